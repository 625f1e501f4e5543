"""Counting what a session does, for ``aiops status``, the metrics and the asset graph.

What belongs here: the progress of a session and how a batch changes it. What does not: deciding anything.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.landing.quarantine import QuarantineEntry
from aiops_assets.landing.segment import Delivery
from aiops_assets.live.intake import Intake
from aiops_assets.live.progress import Progress, SourceProgress, SourceRates, write_progress

log = logging.getLogger(__name__)

_PROBLEMS_KEPT = 20


class Tally:
    """The progress of a session and the file that tells it. Row arguments are rows of the batch's ``Intake``."""

    def __init__(self, live: Path, progress: Progress) -> None:
        self.progress = progress
        self._live = live
        self._rates = SourceRates()

    def stored(self, deliveries: Sequence[Delivery], intake: Intake, fresh: NDArray[np.int64]) -> None:
        """Deliveries, and rows that went into the table."""
        names, source_of = np.unique([delivery.source for delivery in deliveries], return_inverse=True)
        for delivery in deliveries:
            source = self._source(delivery.source)
            source.deliveries += 1
            source.last_received_at = max(source.last_received_at, delivery.received_at)
        newest = np.zeros(len(names), np.int64)
        np.maximum.at(newest, source_of[intake.delivery[fresh]], intake.ts[fresh])
        counts = np.bincount(source_of[intake.delivery[fresh]], minlength=len(names))
        for name, count, at in zip(names, counts, newest, strict=True):
            source = self._source(str(name))
            source.points += int(count)
            source.last_event_at = max(source.last_event_at, int(at))

    def refused(
        self,
        deliveries: Sequence[Delivery],
        intake: Intake,
        duplicates: NDArray[np.int64],
        conflicts: NDArray[np.int64],
        quarantined: Sequence[QuarantineEntry],
    ) -> None:
        """Rows that were there already, rows that contradict what is there, and what went to quarantine."""
        for index, count in _rows_by_delivery(intake.delivery[duplicates]):
            self._source(deliveries[index].source).duplicates += count
        for index, count in _rows_by_delivery(intake.delivery[conflicts]):
            self._source(deliveries[index].source).conflicts += count
        for entry in quarantined:
            self._source(entry.source).quarantined += 1
        for name, count in intake.refused_series.items():
            self._source(name).refused_series += count

    def events(self, rows: pl.DataFrame, fresh: pl.DataFrame) -> None:
        """Events that were delivered, and those of them that are new; columns ``source`` and ``ts``."""
        for name, count in rows.group_by("source").len().iter_rows():
            self._source(name).duplicates += count
        for name, count, newest in (
            fresh.group_by("source").agg(pl.len(), pl.col("ts").cast(pl.Int64).max()).iter_rows()
        ):
            source = self._source(name)
            source.duplicates -= count
            source.events += count
            source.last_event_at = max(source.last_event_at, newest)

    def late(self, source: str, rows: int) -> None:
        """Rows that came after their hour had been closed."""
        self._source(source).late += rows

    def passed(self, stage: str, deliveries: Sequence[Delivery]) -> None:
        """Note how old the batch's first delivery is now that a stage is done."""
        if deliveries:
            first = min(delivery.received_at for delivery in deliveries)
            self.progress.lag[stage] = round((time.time_ns() // 1000 - first) / MICROS_PER_SECOND, 3)

    def problem(self, text: str) -> None:
        """Tell people: once, newest last, bounded."""
        if text not in self.progress.problems:
            log.error("%s", text)
            self.progress.problems = [*self.progress.problems, text][-_PROBLEMS_KEPT:]

    def write(self, taken: Mapping[str, int], series: int, open_alerts: int) -> None:
        """Rewrite the progress file."""
        self._rates.update(self.progress.sources)
        self.progress.updated_at = time.time_ns() // 1000
        self.progress.taken = dict(taken)
        self.progress.series = series
        self.progress.open_alerts = open_alerts
        write_progress(self._live, self.progress)

    def _source(self, name: str) -> SourceProgress:
        return self.progress.sources.setdefault(name, SourceProgress())


def _rows_by_delivery(delivery: NDArray[np.uint32]) -> list[tuple[int, int]]:
    """(delivery, number of rows) of those that have any."""
    index, count = np.unique(delivery, return_counts=True)
    return list(zip(index.tolist(), count.tolist(), strict=True))
