"""The daily snapshot of incidents for the lake."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from aiops_assets.hours import micros
from aiops_assets.incidents.store import IncidentStore


def snapshot(operations_url: str, now: datetime) -> pl.DataFrame:
    """``tables.INCIDENTS`` rows as of ``now`` (aware); see ``IncidentStore.snapshot``."""
    store = IncidentStore(operations_url)
    try:
        return store.snapshot(micros(now))
    finally:
        store.close()
