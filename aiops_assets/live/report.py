"""How often the asset graph is told what the session wrote: each partition at most once a minute.

A micro-batch a second would flood the event log (a day may add at most 100,000 rows to it). So what batches did is
gathered, and what is due is told a few partitions at a time, so that telling never delays a batch for long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from aiops_assets.detection.receipts import Receipt
from aiops_assets.lake.quality import describe, evaluate
from aiops_assets.lake.report import CheckResult, Number, Report, SourceDrops, TouchedPartition
from aiops_assets.lake.tables import Lake
from aiops_assets.live.pipeline import BatchReport
from aiops_assets.live.progress import Progress, SourceProgress

#: shortest time between two reports of the same partition or source
INTERVAL_SECONDS = 60.0
#: partitions told in one go with preview, plot and checks, the newest first
_IN_FULL = 2
#: and with their row counts only: an import of old history touches thousands of hours
_IN_SHORT = 50
_REMEMBERED = 1_000
_INCIDENTS_SHOWN = 5


@dataclass(slots=True)
class _Pending:
    added: int = 0
    newest: int | None = None
    told_at: float = -INTERVAL_SECONDS


class Reporter:
    """Gathers batch reports and says which part of them is due.

    ``start`` is what sources had delivered before, ``running_incidents`` gives the rows to show of ``incidents``.
    """

    def __init__(self, lake: Lake, start: Progress, running_incidents: Callable[[], pl.DataFrame]) -> None:
        self._lake = lake
        self._running_incidents = running_incidents
        self._touched_incidents: set[str] = set()
        self._incidents_told_at = -INTERVAL_SECONDS
        self._at_start = {name: source.model_copy() for name, source in start.sources.items()}
        self._pending: dict[tuple[str, str | None], _Pending] = {}
        self._receipts: list[Receipt] = []
        self._sources: dict[str, SourceProgress] = {}
        self._sources_told_at: dict[str, float] = {}

    def add(self, report: BatchReport) -> None:
        """Remember what a batch did."""
        self._touched_incidents.update(report.incidents)
        self._receipts += report.receipts
        for key, (added, newest) in report.touched.items():
            entry = self._pending.setdefault(key, _Pending())
            entry.added += added
            entry.newest = (
                newest if entry.newest is None or (newest is not None and newest > entry.newest) else entry.newest
            )

    def due(self, progress: Progress, *, final: bool = False) -> Report:
        """What to tell now; ``final`` tells everything that was not told yet."""
        now = time.monotonic()
        waiting = [
            key
            for key, entry in self._pending.items()
            if entry.added and (final or now - entry.told_at >= INTERVAL_SECONDS)
        ]
        waiting.sort(key=lambda key: (key[1] or "~", key[0]), reverse=True)
        in_full, in_short = waiting[:_IN_FULL], waiting[_IN_FULL : None if final else _IN_FULL + _IN_SHORT]
        partitions: list[TouchedPartition] = []
        checks: list[CheckResult] = []
        for table, partition in in_full:
            entry = self._pending[table, partition]
            partitions.append(describe(self._lake, table, partition, entry.added, entry.newest))
            checks += evaluate(self._lake, table, [partition] if partition is not None else None)
        partitions += self._in_short(in_short)
        partitions += self._incidents_due(now, final)
        partitions += [hour_closed(receipt) for receipt in self._receipts]
        self._receipts.clear()
        for key in (*in_full, *in_short):
            self._pending[key].added, self._pending[key].told_at = 0, now
        self._forget_old()
        return Report(tuple(partitions), tuple(self._sources_due(progress, now, final)), tuple(checks))

    def _incidents_due(self, now: float, final: bool) -> list[TouchedPartition]:
        """``incidents`` lives in the operations database, so it is described from there."""
        if not self._touched_incidents or not (final or now - self._incidents_told_at >= INTERVAL_SECONDS):
            return []
        running = self._running_incidents()
        touched, self._touched_incidents, self._incidents_told_at = len(self._touched_incidents), set(), now
        return [TouchedPartition("incidents", None, running.height, touched, preview=running.head(_INCIDENTS_SHOWN))]

    def _in_short(self, keys: Sequence[tuple[str, str | None]]) -> list[TouchedPartition]:
        """Partitions with their row counts from Delta's statistics, without looking at any row."""
        rows = {
            (table, part.partition or None): part.rows
            for table in {table for table, _ in keys}
            for part in self._lake.partitions(table)
        }
        return [
            TouchedPartition(*key, rows.get(key, 0), self._pending[key].added, self._pending[key].newest)
            for key in keys
        ]

    def _forget_old(self) -> None:
        for key in [key for key, entry in self._pending.items() if not entry.added][:-_REMEMBERED]:
            del self._pending[key]

    def _sources_due(self, progress: Progress, now: float, final: bool) -> list[SourceDrops]:
        drops = []
        for name, seen in progress.sources.items():
            before = self._sources.get(name)
            if before is None:
                before = self._sources[name] = self._at_start.get(name, SourceProgress())
            recent = now - self._sources_told_at.get(name, -INTERVAL_SECONDS) < INTERVAL_SECONDS
            if seen.deliveries == before.deliveries or (recent and not final):
                continue
            drops.append(
                SourceDrops(
                    name,
                    seen.deliveries - before.deliveries,
                    seen.points - before.points,
                    seen.quarantined - before.quarantined,
                    seen.last_received_at,
                )
            )
            self._sources[name], self._sources_told_at[name] = seen.model_copy(), now
        return drops


def hour_closed(receipt: Receipt) -> TouchedPartition:
    """What the asset ``hour_closed`` shows of an hour; told at once, because the learning plane waits for it."""
    numbers: dict[str, Number] = {
        "revision": receipt.revision,
        "reason": receipt.reason,
        "late_rows": receipt.late_rows,
        "anomalies": receipt.anomalies,
        "decisions": receipt.decisions,
        "alerts_raised": receipt.raised,
        "alerts_amended": receipt.amended,
        "alerts_withdrawn": receipt.withdrawn,
        "input_hash": receipt.input_hash,
        "code_version": receipt.code_version,
    }
    return TouchedPartition(
        "hour_closed", receipt.hour, receipt.rows, receipt.rows, newest=receipt.derived_at, numbers=numbers
    )
