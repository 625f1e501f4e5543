"""One point a (series, ts): the lowest ingest position wins, wherever a repetition comes from.

Almost every point is newer than all points of its series in its hour; that is decided from one number a series and
hour. Only the rest is compared with the keys that the table already has.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from aiops_assets.hours import MICROS_PER_HOUR, hour_key
from aiops_assets.telemetry.series import SeriesDirectory

_NEVER = np.iinfo(np.int64).min
#: hours whose newest timestamps are kept in memory; others are read again when they are touched
HOURS_IN_MEMORY = 64

#: reads series_id, ts, value of one stored hour
ReadHour = Callable[[str], pl.DataFrame]


@dataclass(frozen=True, slots=True)
class Verdict:
    """By row of the batch: ``fresh`` rows are to be stored; ``conflict`` rows repeat a key with another value."""

    fresh: NDArray[np.bool_]
    duplicate: NDArray[np.bool_]
    conflict: NDArray[np.bool_]


class Deduplicator:
    """Knows which (series, ts) the table holds. ``read_hour`` must see everything that was committed."""

    def __init__(self, directory: SeriesDirectory, read_hour: ReadHour) -> None:
        self._directory = directory
        self._read_hour = read_hour
        self._newest: OrderedDict[int, NDArray[np.int64]] = OrderedDict()

    def judge(self, number: NDArray[np.int32], ts: NDArray[np.int64], value: NDArray[np.float64]) -> Verdict:
        """Judge a batch in order of ingest position. Call ``accept`` with the fresh rows once they are committed."""
        size = len(number)
        fresh = np.ones(size, bool)
        duplicate = np.zeros(size, bool)
        conflict = np.zeros(size, bool)
        #: by row, the value that stands for its key: the stored one, else that of the first row in the batch
        standing = value.copy()
        order, repeats = _repeats(number, ts)
        first = np.maximum.accumulate(np.where(repeats, 0, np.arange(size)))
        fresh[order[repeats]] = False
        for hour, members in rows_by_hour(ts):
            rows = members[fresh[members]]
            suspicious = rows[ts[rows] <= self._hour(hour)[number[rows]]]
            if not len(suspicious):
                continue
            present, stored = self._stored(hour, number[suspicious], ts[suspicious])
            known = suspicious[present]
            fresh[known] = False
            standing[known] = stored
            conflict[known] = value[known] != stored
            duplicate[known] = ~conflict[known]
        if repeats.any():
            repeated, original = order[repeats], order[first[repeats]]
            conflict[repeated] = value[repeated] != standing[original]
            duplicate[repeated] = ~conflict[repeated]
        return Verdict(fresh, duplicate, conflict)

    def accept(self, number: NDArray[np.int32], ts: NDArray[np.int64]) -> None:
        """Remember rows that are now in the table."""
        for hour, rows in rows_by_hour(ts):
            if hour in self._newest:
                np.maximum.at(self._hour(hour), number[rows], ts[rows])

    def _hour(self, hour: int) -> NDArray[np.int64]:
        """Newest stored timestamp of each series in an hour (hours since the epoch)."""
        newest = self._newest.get(hour)
        size = len(self._directory)
        if newest is None:
            newest = np.full(size, _NEVER)
            stored = self._read_hour(hour_key(hour * MICROS_PER_HOUR))
            if not stored.is_empty():
                latest = stored.group_by("series_id").agg(pl.col("ts").max())
                newest[self._numbers(latest["series_id"])] = latest["ts"].dt.epoch("us").to_numpy()
        elif len(newest) < size:
            newest = np.concatenate([newest, np.full(size - len(newest), _NEVER)])
        self._newest[hour] = newest
        self._newest.move_to_end(hour)
        while len(self._newest) > HOURS_IN_MEMORY:
            self._newest.popitem(last=False)
        return newest

    def _stored(
        self, hour: int, number: NDArray[np.int32], ts: NDArray[np.int64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Which of the given keys the table has, and the values it has for those."""
        keys = pl.DataFrame({"series_id": self._directory.ids[number], "ts": ts})
        stored = self._read_hour(hour_key(hour * MICROS_PER_HOUR)).with_columns(pl.col("ts").dt.epoch("us"))
        joined = keys.join(
            stored.with_columns(pl.lit(True).alias("present")),
            on=["series_id", "ts"],
            how="left",
            maintain_order="left",
        )
        present = joined["present"].fill_null(False).to_numpy()
        return present, joined["value"].to_numpy()[present]

    def _numbers(self, series_ids: pl.Series) -> NDArray[np.int64]:
        number_of = self._directory.number_of
        return np.fromiter((number_of(id_) for id_ in series_ids.to_list()), np.int64, len(series_ids))


def rows_by_hour(ts: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
    """(hours since the epoch, rows) of timestamps in microseconds, hours ascending, rows in the order given."""
    if not len(ts):
        return []
    hour = ts // MICROS_PER_HOUR
    if hour[0] == hour[-1] and (hour == hour[0]).all():
        return [(int(hour[0]), np.arange(len(ts)))]
    order = np.argsort(hour, kind="stable")
    bounds = np.flatnonzero(np.diff(hour[order])) + 1
    return [(int(hour[rows[0]]), rows) for rows in np.split(order, bounds)]


def _repeats(number: NDArray[np.int32], ts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Rows ordered by (series, ts, position), and which of them repeat the key before them."""
    order = np.lexsort((ts, number))
    repeats = np.zeros(len(order), bool)
    repeats[1:] = (number[order[1:]] == number[order[:-1]]) & (ts[order[1:]] == ts[order[:-1]])
    return order, repeats
