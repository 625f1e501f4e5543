"""Closing hours: when event time has passed an hour, its statistics become the baseline that later hours are judged by.

Closing also rewrites the hour's many small files as one, sorted by series and time. Rows that come after an hour was
closed give it a new baseline version; earlier versions stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from aiops_assets.detection.baselines import close
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND, hour_key, instant
from aiops_assets.lake.tables import Lake, TableWriter

#: a closed hour that still receives rows is closed again once it was left alone for this many batches
QUIET_BATCHES = 5


@dataclass(slots=True)
class _Dirty:
    """Rows came to an hour since it was last closed."""

    sources: set[str]
    last_batch: int


@dataclass(frozen=True, slots=True)
class ClosedHour:
    """A closed hour with its statistics, one row a series (columns as ``baselines.close`` returns them)."""

    hour_start: int
    version: int
    statistics: pl.DataFrame


class HourCloser:
    """Knows which hours have rows that no baseline covers yet."""

    def __init__(self, lake: Lake, points: TableWriter, baselines: TableWriter, grace_seconds: float) -> None:
        self._lake, self._points, self._baselines = lake, points, baselines
        self._grace = int(grace_seconds * MICROS_PER_SECOND)
        self._dirty: dict[int, _Dirty] = {}
        self._reached: dict[str, int] = {}
        self.closed = 0

    def touch(self, hour: int, source: str, newest: int, batch: int) -> None:
        """Rows of a source, the newest at ``newest`` (µs), were stored in an hour (hours since the epoch)."""
        entry = self._dirty.setdefault(hour, _Dirty(set(), batch))
        entry.sources.add(source)
        entry.last_batch = batch
        self._reached[source] = max(self._reached.get(source, newest), newest)

    def due(self, watermark: int, batch: int) -> list[int]:
        """Hours that event time has passed, ascending: for every source that wrote to it, or for all and left alone."""
        hours = []
        for hour in sorted(self._dirty):
            end = (hour + 1) * MICROS_PER_HOUR + self._grace
            entry = self._dirty[hour]
            passed = all(self._reached[source] >= end for source in entry.sources)
            quiet = batch - entry.last_batch >= QUIET_BATCHES
            if watermark >= end and (quiet or (passed and not self._has_baseline(hour))):
                hours.append(hour)
        return hours

    def close(self, hour: int) -> ClosedHour | None:
        """Close one hour; ``None`` when its newest baseline already covers all its rows."""
        del self._dirty[hour]
        key = hour_key(hour * MICROS_PER_HOUR)
        rows = self._lake.read("metric_points", [key])
        files = next((part.files for part in self._lake.partitions("metric_points") if part.partition == key), 0)
        if files > 1:
            self._points.replace(rows, key)
        statistics = close(rows.select("series_id", "ts", "value"))
        stored = self._lake.read("baselines", [key], ["baseline_version", "count"])
        newest = int(stored["baseline_version"].max() or 0)  # type: ignore[arg-type]
        covered = stored.filter(pl.col("baseline_version") == newest)["count"].sum() if newest else -1
        version = newest
        if covered != rows.height:
            version = newest + 1
            start = pl.lit(instant(hour * MICROS_PER_HOUR))
            frame = statistics.with_columns(
                start.alias("hour_start"), pl.lit(version).alias("baseline_version"), pl.lit(key).alias("hour")
            )
            self._baselines.append(frame, {})
        self.closed += 1
        return ClosedHour(hour * MICROS_PER_HOUR, version, statistics)

    def _has_baseline(self, hour: int) -> bool:
        return self._baselines.has_partition(hour_key(hour * MICROS_PER_HOUR))

    def state(self) -> dict[str, object]:
        """JSON-able state for the checkpoint."""
        return {
            "dirty": {str(hour): [sorted(entry.sources), entry.last_batch] for hour, entry in self._dirty.items()},
            "reached": self._reached,
            "closed": self.closed,
        }

    def load(self, state: dict[str, dict[str, tuple[list[str], int]] | dict[str, int] | int]) -> None:
        """Restore ``state``."""
        self._dirty = {int(hour): _Dirty(set(sources), 0) for hour, (sources, _) in state["dirty"].items()}  # type: ignore[union-attr,misc]
        self._reached = dict(state["reached"])  # type: ignore[arg-type]
        self.closed = int(state["closed"])  # type: ignore[arg-type]
