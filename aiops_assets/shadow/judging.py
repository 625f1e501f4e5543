"""The detectors run over a history, in memory alone: nothing is stored, nobody is paged.

What belongs here: all that this room asks of ``detection``. What does not: where points come from (``history``) and
what the result is compared with (``comparison``). All points count as live and no maintenance window applies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from aiops_assets.config import Rule
from aiops_assets.detection import baselines
from aiops_assets.detection.alerts import AlertBook, BatchRows
from aiops_assets.detection.matching import labels_match, matches
from aiops_assets.detection.rules import RuleEngine
from aiops_assets.detection.statistics import Tier1
from aiops_assets.detection.steps import steps
from aiops_assets.detection.transitions import Transition
from aiops_assets.formats.prometheus_range import host_of
from aiops_assets.hours import MICROS_PER_HOUR
from aiops_assets.shadow.conversion import HostsOf
from aiops_assets.shadow.history import Window
from aiops_assets.tables import ALERTS
from aiops_assets.telemetry.series import SeriesDirectory

#: one row an alert; times in microseconds since the epoch (UTC), ``ends_at`` null when it was open at the end
PAGES_SCHEMA: dict[str, pl.DataType] = {
    "name": pl.String(),
    "kind": pl.String(),  # rule, absence or anomaly
    "host": pl.String(),
    "metric": pl.String(),
    "labels": pl.String(),
    "title": pl.String(),
    "starts_at": pl.Int64(),  # first bad point
    "paged_at": pl.Int64(),  # the point that decided
    "ends_at": pl.Int64(),
}


def judge(
    windows: Iterable[Window],
    directory: SeriesDirectory,
    rules: Sequence[Rule],
    *,
    statistics: bool,
    progress: Callable[[int, int], None] = lambda end, points: None,
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Run rules, and the statistics of Tier 1 if asked, over a history.

    Args:
        windows: as ``history.windows`` gives them.
        directory: the directory that the windows number series by.
        progress: called with (end of the window, microseconds; points so far).

    Returns:
        Rows of ``PAGES_SCHEMA`` in order of ``paged_at``, and by rule the number of series that it watched.
    """
    engine, book = RuleEngine(rules), AlertBook(history_after=None)
    tier1 = _Hours() if statistics else None
    revisions = [ALERTS.empty()]
    points = 0
    for window in windows:
        engine.grow(window.new)
        found = engine.process(steps(window.number, window.ts, window.value))
        found += engine.absences(window.end)
        if tier1 is not None:
            tier1.detector.grow(window.new)
            found += tier1.take(window.number, window.ts, window.value)
        revisions.append(book.apply(found, directory=directory.frame, windows=[], batch=BatchRows.empty()))
        points += len(window.ts)
        progress(window.end, points)
    return _pages(pl.concat(revisions)), engine.matched()


def hosts_of(series: Iterable[Mapping[str, str]], host_label: str | None) -> HostsOf:
    """Which hosts have a metric, by patterns, among series of Prometheus (labels with ``__name__``)."""
    by_name: dict[str, list[Mapping[str, str]]] = {}
    for labels in series:
        by_name.setdefault(labels["__name__"], []).append(labels)

    def hosts(metric: str, patterns: Mapping[str, tuple[str, ...]]) -> set[str]:
        return {
            host_of({name: value for name, value in labels.items() if name != "__name__"}, host_label)
            for name, own in by_name.items()
            if matches(metric, name)
            for labels in own
            if labels_match(patterns, labels)
        }

    return hosts


class _Hours:
    """Tier 1 as the live plane drives it: an hour is judged by what earlier hours taught, then it closes."""

    def __init__(self) -> None:
        self.detector = Tier1()
        self._hour = -1
        self._open: list[pl.DataFrame] = []

    def take(self, number: NDArray[np.int32], ts: NDArray[np.int64], value: NDArray[np.float64]) -> list[Transition]:
        frame = pl.DataFrame({"number": number, "ts": ts, "value": value}).with_columns(
            hour=pl.col("ts") // MICROS_PER_HOUR
        )
        found: list[Transition] = []
        for (hour,), part in frame.sort("hour", maintain_order=True).group_by("hour", maintain_order=True):
            if hour != self._hour:
                self._close()
                self._hour = int(hour)
            _, transitions = self.detector.process(
                steps(part["number"].to_numpy(), part["ts"].to_numpy(), part["value"].to_numpy())
            )
            found += transitions
            self._open.append(part)
        return found

    def _close(self) -> None:
        if not self._open:
            return
        points = pl.concat(self._open).select(pl.col("number").cast(pl.Int64).alias("series_id"), "ts", "value")
        closed = baselines.close(points).with_columns(number=pl.col("series_id").cast(pl.Int32))
        self.detector.close_hour(self._hour * MICROS_PER_HOUR, closed)
        self._open = []


def _pages(revisions: pl.DataFrame) -> pl.DataFrame:
    first = ("name", "kind", "host", "metric", "labels", "title", "starts_at", "changed_at")
    alerts = (
        revisions.sort("alert_id", "revision")
        .group_by("alert_id", maintain_order=True)
        .agg(pl.col(first).first(), pl.col("ends_at").last())
    )
    return alerts.select(
        "name",
        "kind",
        "host",
        "metric",
        "labels",
        "title",
        pl.col("starts_at").dt.epoch("us"),
        pl.col("changed_at").dt.epoch("us").alias("paged_at"),
        pl.col("ends_at").dt.epoch("us"),
    ).sort("paged_at", "name", "labels")
