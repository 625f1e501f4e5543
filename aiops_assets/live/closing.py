"""Closing hours: when event time has passed an hour, its statistics become the baseline that later hours are judged by.

Closing also rewrites the hour's many small files as one, sorted by series and time. Rows that come after an hour was
closed give it a new baseline version; earlier versions stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from aiops_assets.detection.baselines import close
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND, hour_key, instant
from aiops_assets.lake.tables import TableWriter
from aiops_assets.tables import METRIC_POINTS

#: a closed hour that still receives rows is closed again once it was left alone for this many batches
QUIET_BATCHES = 5
#: an hour with more files than this is rewritten when it closes; fewer are left to compaction
FILES_TO_REWRITE = 4


@dataclass(slots=True)
class _Dirty:
    """Rows came to an hour since it was last closed."""

    sources: set[str]
    last_batch: int


@dataclass(frozen=True, slots=True)
class ClosedHour:
    """A closed hour with its statistics, one row a series (columns as ``baselines.close`` returns them)."""

    hour_start: int
    statistics: pl.DataFrame


class HourCloser:
    """Knows which hours (counted from the epoch) have rows that no baseline covers yet."""

    def __init__(self, points: TableWriter, baselines: TableWriter, grace_seconds: float) -> None:
        self._points, self._baselines = points, baselines
        self._grace = int(grace_seconds * MICROS_PER_SECOND)
        self._dirty: dict[int, _Dirty] = {}
        self._reached: dict[str, int] = {}
        self._whole: dict[int, pl.DataFrame] = {}
        self._unsaved: list[pl.DataFrame] = []
        self.closed = 0

    def touch(self, hour: int, source: str, newest: int, batch: int) -> None:
        """Rows of a source, the newest at ``newest`` (µs), were stored in an hour."""
        entry = self._dirty.setdefault(hour, _Dirty(set(), batch))
        entry.sources.add(source)
        entry.last_batch = batch
        self._reached[source] = max(self._reached.get(source, newest), newest)

    def offer(self, hour: int, rows: pl.DataFrame) -> None:
        """All rows (series_id, ts, value) of an hour that had none before this batch: saves reading them back."""
        self._whole[hour] = rows

    def due(self, watermark: int, batch: int, upto: int) -> list[int]:
        """Hours up to ``upto`` that event time has passed, ascending.

        An hour is passed when every source that wrote to it has gone beyond it; one that was closed before, or whose
        sources stay behind the watermark, is due once it was left alone.
        """
        hours = []
        for hour in sorted(hour for hour in self._dirty if hour <= upto):
            end = (hour + 1) * MICROS_PER_HOUR + self._grace
            entry = self._dirty[hour]
            passed = all(self._reached[source] >= end for source in entry.sources)
            quiet = batch - entry.last_batch >= QUIET_BATCHES
            if watermark >= end and (quiet or (passed and not self._baselines.has_partition(_key(hour)))):
                hours.append(hour)
        return hours

    def close(self, hour: int) -> ClosedHour:
        """Compute an hour's statistics; ``save`` stores them unless the newest baseline covers all its rows."""
        del self._dirty[hour]
        key = _key(hour)
        rows = self._whole.pop(hour, None)
        if rows is None:
            stored = self._points.read(key, list(METRIC_POINTS.schema))
            if self._points.files(key) > FILES_TO_REWRITE:
                self._points.replace(stored, key)
            rows = stored.select("series_id", "ts", "value")
        statistics = close(rows)
        version, covered = self._newest_version(key)
        if covered != rows.height:
            start = pl.lit(instant(hour * MICROS_PER_HOUR))
            named = (
                start.alias("hour_start"),
                pl.lit(version + 1).alias("baseline_version"),
                pl.lit(key).alias("hour"),
            )
            self._unsaved.append(statistics.with_columns(named))
        self.closed += 1
        return ClosedHour(hour * MICROS_PER_HOUR, statistics)

    def save(self) -> list[str]:
        """Store the statistics of all hours closed since, in one commit; the hours that have new ones."""
        self._whole.clear()
        if not self._unsaved:
            return []
        frame = pl.concat(self._unsaved)
        self._unsaved.clear()
        self._baselines.append(frame, {})
        return sorted(frame["hour"].unique())

    def _newest_version(self, key: str) -> tuple[int, int]:
        """The newest baseline version of an hour and how many rows it covers; (0, -1) when there is none."""
        if not self._baselines.has_partition(key):
            return 0, -1
        stored = self._baselines.read(key, ["baseline_version", "count"])
        newest = stored.filter(pl.col("baseline_version") == pl.col("baseline_version").max())
        return int(newest["baseline_version"][0]), int(newest["count"].sum())

    def state(self) -> dict[str, Any]:
        """JSON-able state for the checkpoint."""
        return {
            "dirty": {str(hour): sorted(entry.sources) for hour, entry in self._dirty.items()},
            "reached": self._reached,
            "closed": self.closed,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore ``state``."""
        self._dirty = {int(hour): _Dirty(set(sources), 0) for hour, sources in state["dirty"].items()}
        self._reached = dict(state["reached"])
        self.closed = int(state["closed"])


def _key(hour: int) -> str:
    return hour_key(hour * MICROS_PER_HOUR)
