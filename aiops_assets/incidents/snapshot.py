"""The daily snapshot of incidents for the lake.

What belongs here: when the last snapshot was and what one of now has to contain. What does not: the rows themselves
(``IncidentStore.snapshot``) and the asset.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl

from aiops_assets.hours import micros
from aiops_assets.incidents.store import IncidentStore
from aiops_assets.lake.tables import Lake
from aiops_assets.tables import INCIDENTS


def snapshot(operations_url: str, now: datetime, lake: Lake | None = None) -> pl.DataFrame:
    """``tables.INCIDENTS`` rows as of ``now`` (aware); see ``IncidentStore.snapshot``.

    With ``lake``, everything that changed since the last snapshot of an earlier day is in it, however long ago that
    was, so that a machine that slept for a week loses no resolution.
    """
    store = IncidentStore(operations_url)
    try:
        return store.snapshot(micros(now), None if lake is None else since(lake, now))
    finally:
        store.close()


def since(lake: Lake, now: datetime) -> int:
    """An instant (microseconds since the epoch) by which the newest snapshot of an earlier day had been taken.

    It is the start of that day: a day's partition holds its last snapshot, and what changed before that is in it.
    0 (everything) when there is no snapshot yet.
    """
    today = now.astimezone(UTC).strftime("%Y-%m-%d")
    earlier = [part.partition for part in lake.partitions(INCIDENTS.name) if part.partition < today]
    if not earlier:
        return 0
    day = datetime.strptime(max(earlier), "%Y-%m-%d").replace(tzinfo=UTC)
    return micros(min(day, now.astimezone(UTC) - timedelta(days=1)))
