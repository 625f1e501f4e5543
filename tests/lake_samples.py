"""Samples in a lake, written as the platform writes them, for tests of what reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from aiops_assets.formats.batch import labels_json
from aiops_assets.hours import hour_expr
from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.tables import METRIC_POINTS, SERIES, TIMESTAMP
from aiops_assets.telemetry.series import series_ids


@dataclass(frozen=True)
class Stored:
    """One series in our own names; ``ts`` milliseconds since the epoch."""

    host: str
    metric: str
    ts: Sequence[int] | NDArray[np.int64]
    values: Sequence[float] | NDArray[np.float64]
    labels: Mapping[str, str] = field(default_factory=dict)
    unit: str = ""
    kind: str = "gauge"
    source: str = "test"


def write(lake: Lake, series: Sequence[Stored], *, shuffle: int | None = None) -> list[int]:
    """Append series and points (in one commit each, shuffled by a seed if there is one); the series_ids."""
    rows = pl.DataFrame(
        [
            (entry.host, entry.metric, entry.unit, labels_json(entry.labels), entry.kind, entry.source)
            for entry in series
        ],
        schema=["host", "metric", "unit", "labels", "kind", "source"],
        orient="row",
    )
    ids = series_ids(rows)
    rows = rows.with_columns(pl.Series("series_id", ids, pl.Int64))
    first = pl.Series("first_seen", [min(entry.ts) * 1000 for entry in series], pl.Int64).cast(TIMESTAMP)
    TableWriter(lake, SERIES).append(rows.with_columns(first), {})
    counts = [len(entry.ts) for entry in series]
    points = rows[np.repeat(np.arange(len(series)), counts)].with_columns(
        (pl.Series("ts", np.concatenate([np.asarray(entry.ts, np.int64) for entry in series])) * 1000).cast(TIMESTAMP),
        pl.Series("value", np.concatenate([np.asarray(entry.values, np.float64) for entry in series])),
        pl.lit("gateway").alias("writer"),
        pl.lit(1, pl.Int64).alias("seq"),
    )
    points = points.with_columns(pl.col("ts").alias("received_at"), hour_expr().alias("hour"))
    if shuffle is not None:
        points = points.sample(fraction=1.0, shuffle=True, seed=shuffle)
    TableWriter(lake, METRIC_POINTS).append(points.select(list(METRIC_POINTS.schema)), {})
    return ids
