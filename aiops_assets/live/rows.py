"""Columns that rows of every table share: where they came from and which hour they belong to."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from aiops_assets.hours import MICROS_PER_HOUR, hour_key
from aiops_assets.landing.segment import Delivery
from aiops_assets.tables import TIMESTAMP


def positions_of(deliveries: list[Delivery]) -> pl.DataFrame:
    """source, received_at, writer, seq by delivery."""
    return pl.DataFrame(
        {
            "source": [d.source for d in deliveries],
            "received_at": [d.received_at for d in deliveries],
            "writer": [d.writer for d in deliveries],
            "seq": [d.seq for d in deliveries],
        },
        schema={"source": pl.String, "received_at": pl.Int64, "writer": pl.String, "seq": pl.Int64},
    ).with_columns(pl.col("received_at").cast(TIMESTAMP))


def hours_of(ts: NDArray[np.int64]) -> pl.Series:
    """Partition keys by row, formatted once for each distinct hour."""
    hours, inverse = np.unique(ts // MICROS_PER_HOUR, return_inverse=True)
    names = pl.Series("hour", [hour_key(int(hour) * MICROS_PER_HOUR) for hour in hours], pl.String)
    return names.gather(inverse) if len(hours) != 1 else names.new_from_index(0, len(ts))


def change_id(host: str, kind: str, ts: datetime, title: str) -> str:
    """Deterministic identity of a change."""
    return xxhash.xxh3_128_hexdigest(f"{host}\0{kind}\0{ts.isoformat()}\0{title}".encode())
