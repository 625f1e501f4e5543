"""Points and series as queries need them, read from the lake.

What belongs here: bounded, cached, read-only access: the dictionary by version of its table, points by hour and
selection. What does not: what they mean (``evaluate``). Files of a Delta table never change, so what was read of an
hour is kept while the hour has the same files. Every function blocks; servers call them in a thread.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np
import polars as pl
import xxhash
from deltalake import DeltaTable
from numpy.typing import NDArray

from aiops_assets.hours import MICROS_PER_HOUR, hour_key, hour_start
from aiops_assets.lake.tables import Lake, data_files
from aiops_assets.tables import ALERTS, METRIC_POINTS, SERIES
from aiops_assets.telemetry.promql.index import COLUMNS, SeriesIndex, build

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
CACHE_BYTES = 64 * 1024 * 1024
#: an hour further from the epoch than this is no hour of ours, and would not have a name
MAX_INSTANT = 253_402_300_799_000_000
#: a handle looked at this lately follows the log; after longer the next commit may have been cleaned away: reopen
FOLLOW_SECONDS = 60.0
#: files of so many hours are read in one go, and between goes a query can be ended
HOURS_AT_ONCE = 48
ALERT_COLUMNS = (
    "alert_id", "name", "kind", "state", "severity_number", "host", "metric", "labels", "starts_at", "ends_at", "title",
    "value",
)  # fmt: skip
Read = TypeVar("Read")
_POINT_COLUMNS = ("series_id", "ts", "value")
_HOUR = re.compile(r"/hour=(\d{4}-\d{2}-\d{2}T\d{2})/[^/]*$")


@dataclass(frozen=True, slots=True)
class Points:
    """Points of some series, in order: those of series ``n`` are ``starts[n]:starts[n + 1]``, ascending in time."""

    starts: Ints
    ts: Ints
    values: Floats

    def __len__(self) -> int:
        return len(self.ts)

    @property
    def series(self) -> int:
        return len(self.starts) - 1


def grouped(series: Ints, ts: Ints, values: Floats, count: int) -> Points:
    """Points of ``count`` series given in any order; of equal (series, ts) the first stays."""
    base = int(ts.min()) if len(ts) else 0
    span = int(ts.max()) - base + 1 if len(ts) else 1
    keys = series * span + (ts - base)
    if len(keys) > 1 and not (keys[1:] > keys[:-1]).all():
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        fresh = np.concatenate([[True], keys[1:] != keys[:-1]])
        order, keys = order[fresh], keys[fresh]
        ts, values = ts[order], values[order]
    starts = np.searchsorted(keys, np.arange(count + 1, dtype=np.int64) * span)
    return Points(starts.astype(np.int64), ts, values)


class Cache:
    """The most recently used values, up to a number of bytes; safe to share between threads."""

    def __init__(self, limit: int) -> None:
        self._limit, self._used = limit, 0
        self._entries: OrderedDict[tuple[object, ...], tuple[object, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[object, ...]) -> object | None:
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                return None
            self._entries.move_to_end(key)
            return found[0]

    def put(self, key: tuple[object, ...], value: object, size: int) -> None:
        size += 512
        with self._lock:
            if size > self._limit // 4 or key in self._entries:
                return
            self._entries[key] = (value, size)
            self._used += size
            while self._used > self._limit:
                _, (_, freed) = self._entries.popitem(last=False)
                self._used -= freed


@dataclass(frozen=True, slots=True)
class Files:
    """The files of an hour in one version of a table, and how many rows they have (0: unknown)."""

    uris: tuple[str, ...]
    rows: int


class _Looked(Generic[Read]):
    """Something read from one version of a table, and read again when there is a newer one."""

    def __init__(self, read: Callable[[DeltaTable | None], Read]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._table: DeltaTable | None = None
        self._held: tuple[tuple[int, str], Read] | None = None
        self._looked_at = -math.inf

    def get(self, open_table: Callable[[str], DeltaTable | None], name: str, fresh_seconds: float) -> Read:
        with self._lock:
            now = time.monotonic()
            if self._held is not None and now - self._looked_at < fresh_seconds:
                return self._held[1]
            if self._table is not None and now - self._looked_at < FOLLOW_SECONDS:
                self._table.update_incremental()
            else:
                self._table = open_table(name)
            table = self._table
            version = (table.version(), str(table.metadata().id)) if table is not None else (-1, "")
            if self._held is None or self._held[0] != version:
                self._held = version, self._read(table)
            self._looked_at = now
            return self._held[1]


class Lakeside:
    """What queries see of one lake. Share one instance: it holds the caches.

    Args:
        fresh_seconds: tables are looked at again when they were last looked at longer ago.
    """

    def __init__(self, lake: Lake, cache_bytes: int = CACHE_BYTES, *, fresh_seconds: float = 0.0) -> None:
        self._lake = lake
        self._cache = Cache(cache_bytes)
        self._fresh_seconds = fresh_seconds
        self._index = _Looked[SeriesIndex](self._read_index)
        self._files = _Looked[Mapping[str, Files]](self._read_files)
        self._alerts = _Looked[pl.DataFrame](self._read_alerts)

    def index(self) -> SeriesIndex:
        """The dictionary of series."""
        return self._index.get(self._lake.open, SERIES.name, self._fresh_seconds)

    def snapshot(self) -> Snapshot:
        """The points; a query reads them all from one version of the table."""
        files = self._files.get(self._lake.open, METRIC_POINTS.name, self._fresh_seconds)
        return Snapshot(files, self._cache, self._lake.storage_options)

    def alerts(self) -> pl.DataFrame:
        """The newest revision of every alert (``ALERT_COLUMNS``), those that were withdrawn left out."""
        return self._alerts.get(self._lake.open, ALERTS.name, self._fresh_seconds)

    def _read_index(self, table: DeltaTable | None) -> SeriesIndex:
        uris = data_files(table) if table is not None else []
        return build(_scan(uris, self._lake.storage_options).select(COLUMNS).collect() if uris else SERIES.empty())

    @staticmethod
    def _read_files(table: DeltaTable | None) -> Mapping[str, Files]:
        return _files(table) if table is not None else {}

    def _read_alerts(self, table: DeltaTable | None) -> pl.DataFrame:
        parts = []
        for uri in data_files(table) if table is not None else []:
            part = self._cache.get((ALERTS.name, uri))
            if not isinstance(part, pl.DataFrame):
                part = _scan([uri], self._lake.storage_options).select(*ALERT_COLUMNS, "revision").collect()
                self._cache.put((ALERTS.name, uri), part, int(part.estimated_size()))
            parts.append(part)
        if not parts:
            return ALERTS.empty().select(ALERT_COLUMNS)
        newest = pl.concat(parts).sort("revision").unique("alert_id", keep="last", maintain_order=True)
        return newest.filter(pl.col("state") != "withdrawn").select(ALERT_COLUMNS).sort("starts_at", "alert_id")


class Snapshot:
    """The points of one version of the table."""

    def __init__(self, files: Mapping[str, Files], cache: Cache, storage_options: Mapping[str, str]) -> None:
        self._files, self._cache, self._options = files, cache, dict(storage_options)

    def hours(self, first: int, last: int) -> list[str]:
        """The hours between two instants (microseconds, both included) that have points."""
        first, last = max(first, -MAX_INSTANT), min(last, MAX_INSTANT)
        if first > last:
            return []
        low, high = hour_key(first), hour_key(last)
        return sorted(hour for hour in self._files if low <= hour <= high)

    def rows(self, hours: Sequence[str]) -> int:
        """Rows of all series in some hours."""
        return sum(self._files[hour].rows for hour in hours)

    def read(self, ids: Ints, first: int, last: int, check: Callable[[], None]) -> Points:
        """Points of some series (ascending ``ids``) between two instants, both included.

        Args:
            check: called between reads; raises when the query should end.
        """
        digest = xxhash.xxh3_128_digest(ids.tobytes())
        parts: list[_Part] = []
        missing: list[str] = []
        for hour in self.hours(first, last):
            found = self._cache.get((digest, self._files[hour].uris))
            if isinstance(found, _Part):
                parts.append(found)
            else:
                missing.append(hour)
        for start in range(0, len(missing), HOURS_AT_ONCE):
            check()
            parts += self._read_hours(ids, digest, missing[start : start + HOURS_AT_ONCE])
        check()
        return _joined(parts, first, last, len(ids))

    def present(self, first: int, last: int, check: Callable[[], None]) -> Ints:
        """The series that have a point in any hour that two instants touch, ascending."""
        found = []
        for hour in self.hours(first, last):
            key = ("present", self._files[hour].uris)
            ids = self._cache.get(key)
            if not isinstance(ids, np.ndarray):
                check()
                rows = _scan(self._files[hour].uris, self._options).select(pl.col("series_id").unique().sort())
                ids = rows.collect()["series_id"].to_numpy()
                self._cache.put(key, ids, ids.nbytes)
            found.append(ids)
        return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)

    def _read_hours(self, ids: Ints, digest: bytes, hours: Sequence[str]) -> list[_Part]:
        uris = [uri for hour in hours for uri in self._files[hour].uris]
        wanted = pl.Series(ids, dtype=pl.Int64).implode()
        # Few rows of many are wanted: the other columns are decoded for those only.
        scan = _scan(uris, self._options, parallel="prefiltered")
        rows = scan.filter(pl.col("series_id").is_in(wanted)).select(_POINT_COLUMNS).collect()
        ts = rows["ts"].dt.timestamp("us").to_numpy()
        series = np.searchsorted(ids, rows["series_id"].to_numpy()).astype(np.int32)
        values = rows["value"].to_numpy()
        of_hour = ts // MICROS_PER_HOUR
        order = np.argsort(of_hour, kind="stable")
        series, ts, values, of_hour = series[order], ts[order], values[order], of_hour[order]
        parts = []
        for hour in hours:
            number = hour_start(hour) // MICROS_PER_HOUR
            rows_of = slice(*np.searchsorted(of_hour, [number, number + 1]).tolist())
            part = _Part(series[rows_of].copy(), ts[rows_of].copy(), values[rows_of].copy())
            self._cache.put((digest, self._files[hour].uris), part, part.size)
            parts.append(part)
        return parts


@dataclass(frozen=True, slots=True)
class _Part:
    """What a selection has in one hour; ``series`` are positions in it."""

    series: NDArray[np.int32]
    ts: Ints
    values: Floats

    @property
    def size(self) -> int:
        return self.series.nbytes + self.ts.nbytes + self.values.nbytes


def _joined(parts: Sequence[_Part], first: int, last: int, count: int) -> Points:
    if not parts:
        return Points(np.zeros(count + 1, np.int64), np.empty(0, np.int64), np.empty(0, np.float64))
    series = np.concatenate([part.series for part in parts]).astype(np.int64)
    ts = np.concatenate([part.ts for part in parts])
    values = np.concatenate([part.values for part in parts])
    inside = (ts >= first) & (ts <= last)
    if not inside.all():
        series, ts, values = series[inside], ts[inside], values[inside]
    return grouped(series, ts, values, count)


def _files(table: DeltaTable) -> dict[str, Files]:
    """The files of every hour, and their rows as the Delta log tells them."""
    uris: dict[str, list[str]] = {}
    for uri in data_files(table):
        found = _HOUR.search(uri)
        if found:
            uris.setdefault(found[1], []).append(uri)
    actions = pl.DataFrame(table.get_add_actions(flatten=True))
    column = "partition.hour"
    if column not in actions.columns:
        return {}
    rows = dict(actions.group_by(column).agg(pl.col("num_records").sum()).iter_rows())
    return {hour: Files(tuple(sorted(names)), int(rows.get(hour) or 0)) for hour, names in uris.items()}


def _scan(
    uris: Sequence[str], storage_options: Mapping[str, str], parallel: Literal["auto", "prefiltered"] = "auto"
) -> pl.LazyFrame:
    return pl.scan_parquet(
        list(uris),
        hive_partitioning=False,
        extra_columns="ignore",
        parallel=parallel,
        storage_options=dict(storage_options) or None,
    )
