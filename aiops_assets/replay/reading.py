"""Hours of the lake read ahead: one hour is judged while the next is fetched in a thread.

What belongs here: pinned table versions and the order of fetching. What does not: what is read of an hour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import polars as pl
from deltalake import DeltaTable

from aiops_assets.detection.judge import Lesson
from aiops_assets.detection.receipts import effective
from aiops_assets.lake.tables import Lake
from aiops_assets.tables import TABLES

Key = TypeVar("Key")
Content = TypeVar("Content")


class Snapshot:
    """Tables at the versions at which they were first read."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self._handles: dict[str, DeltaTable | None] = {}
        self._partitions: dict[str, dict[str, int]] = {}

    def partitions(self, table: str) -> dict[str, int]:
        """Partition → rows, ascending."""
        if table not in self._partitions:
            handle = self._handle(table)
            found: dict[str, int] = {}
            if handle is not None:
                column = f"partition.{TABLES[table].partition}"
                actions = pl.DataFrame(handle.get_add_actions(flatten=True))
                rows = actions.group_by(column).agg(pl.col("num_records").sum()).sort(column)
                found = dict(rows.iter_rows())
            self._partitions[table] = found
        return self._partitions[table]

    def read(self, table: str, partition: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Rows of one partition."""
        if partition not in self.partitions(table):
            empty = TABLES[table].empty()
            return empty.select(columns) if columns is not None else empty
        frame = self.lake.scan_at(self._handle(table), table, [partition])
        return (frame.select(columns) if columns is not None else frame).collect()

    def _handle(self, table: str) -> DeltaTable | None:
        if table not in self._handles:
            self._handles[table] = self.lake.open(table)
        return self._handles[table]


class MissingBaselines(LookupError):
    """Baselines that an hour learnt are not stored (any more); ``hour`` says of which hour."""

    def __init__(self, hour: str, version: int) -> None:
        super().__init__(f"baselines version {version} of hour {hour} are not stored (any more)")
        self.hour = hour

    def __str__(self) -> str:
        return str(self.args[0])


def lessons_of(tables: Snapshot, pins: Sequence[tuple[str, int | None, int]]) -> list[Lesson]:
    """The baselines that a receipt says were learnt at the start of its hour.

    Raises:
        MissingBaselines: a version is not in the table.
    """
    return [
        Lesson(
            hour,
            version,
            _version(tables, hour, version),
            before,
            _version(tables, hour, before) if before is not None else None,
        )
        for hour, before, version in pins
    ]


def _version(tables: Snapshot, hour: str, version: int) -> pl.DataFrame:
    stored = tables.read("baselines", hour, ["series_id", "baseline_version", "quantiles"])
    try:
        return effective(stored, version)
    except LookupError as error:
        raise MissingBaselines(hour, version) from error


def ahead(keys: Iterable[Key], fetch: Callable[[Key], Content]) -> Iterator[tuple[Key, Content]]:
    """``fetch`` of each key in order, the next one while the caller works on this one.

    Raises:
        Exception: what ``fetch`` raises, when its key's turn comes.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="replay-read") as pool:
        waiting: tuple[Key, Future[Content]] | None = None
        try:
            for key in keys:
                following = key, pool.submit(fetch, key)
                if waiting is not None:
                    yield waiting[0], waiting[1].result()
                waiting = following
            if waiting is not None:
                yield waiting[0], waiting[1].result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
