"""The past of a few series: hours derived again for them alone, in a fraction of the time and to the same last bit.

What belongs here: narrowing directory, state, rows and baselines to some series. What does not: which series matter and
what the outcome means (``explain``).

Rules and statistics judge each series by itself, so leaving the others out changes nothing about these. Two things are
about all series: the counts of an hour's rows, which Delta's statistics have, and for absence the stretches of time in
which nothing reported at all. The latter are made anew, hour by hour, from the event times and times of receipt of all
rows that the receipt counts (a state kept at the end of a later hour would know of rows that came since).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from aiops_assets.detection.derive import INPUT_COLUMNS, Derived, derive
from aiops_assets.detection.handover import HandOver, Shelf
from aiops_assets.detection.judge import LEARNT_KEPT_HOURS, Lesson, lessons_due
from aiops_assets.detection.judgement import Judgement
from aiops_assets.detection.receipts import TABLE, Receipt, Reference, pinned_judgements, read_receipts, up_to
from aiops_assets.detection.restoring import InputsExpired, Past
from aiops_assets.detection.rules import CELL
from aiops_assets.hours import MICROS_PER_HOUR, hour_key, hour_start
from aiops_assets.lake.tables import Lake
from aiops_assets.telemetry.series import SeriesDirectory

#: a state further back than so many hours is not derived again
MOST_HOURS = 48
_BASELINE_COLUMNS = ("series_id", "baseline_version", "quantiles")


class TooSlow(Exception):
    """The time that was given ran out."""


class _NarrowShelf(Shelf):
    """A shelf that gives states of some series only."""

    def __init__(self, folder: Path, narrow: Callable[[HandOver], HandOver]) -> None:
        super().__init__(folder)
        self._narrow = narrow
        #: states that were taken from it
        self.taken: list[Reference] = []

    def get(self, hour: str, revision: int) -> HandOver | None:
        state = super().get(hour, revision)
        if state is None:
            return None
        self.taken.append((hour, revision))
        return self._narrow(state)


class PastOfSeries(Past):
    """``Past`` for some series.

    Args:
        series: rows of ``tables.SERIES``: what shall be derived.
        coverage: whether absence matters, for which the times of all rows count.
        keep_going: asked before every hour; when it says no, ``TooSlow`` is raised.
    """

    def __init__(
        self,
        lake: Lake,
        folder: Path,
        series: pl.DataFrame,
        judgements: Mapping[str, Judgement],
        *,
        coverage: bool,
        keep_going: Callable[[], bool] = lambda: True,
    ) -> None:
        directory = SeriesDirectory()
        directory.load(series)
        self._narrow_shelf = _NarrowShelf(folder, lambda state: self.judge(state).export())
        super().__init__(lake, self._narrow_shelf, directory, judgements, ())
        self._read: set[str] = set()
        self.ids = directory.frame["series_id"].to_list()
        self._coverage, self._keep_going = coverage, keep_going
        self._points, self._baselines = lake.open(TABLE), lake.open("baselines")
        self._stored_rows = {part.partition: part.rows for part in lake.partitions(TABLE)}
        self._receipt_hours = [part.partition for part in lake.partitions("hour_receipts")]
        #: hours that were derived, in order
        self.derived: list[Reference] = []

    def read_receipts(self, first: str, last: str) -> None:
        """Take the receipts of a stretch of hours."""
        self._read.update(hour for hour in self._receipt_hours if first <= hour <= last)
        for receipt in read_receipts(self.lake, first, last):
            self.receipts[receipt.reference] = receipt

    def state(self, reference: Reference) -> HandOver:
        kept = {*self.shelf.kept(), *self.known}
        waiting = [reference]
        for _ in range(2 * MOST_HOURS):
            if not waiting:
                break
            now = waiting.pop()
            if now in kept:
                continue
            if now[0] not in self._read:
                self.read_receipts(_hours_before(now[0]), now[0])
            waiting += self.receipts[now].state_in if now in self.receipts else []
        return super().state(reference)

    @property
    def started_from(self) -> list[Reference]:
        """The kept states that derivations began with."""
        return self._narrow_shelf.taken

    def again(self, receipt: Receipt) -> tuple[Derived, HandOver]:
        if not self._keep_going():
            raise TooSlow(f"the time was up before hour {receipt.hour} was derived")
        if len(self.derived) >= MOST_HOURS:
            raise InputsExpired(f"no state of the {MOST_HOURS} hours before is kept any more")
        self._make_sure_of_rows(receipt)
        try:
            segments = pinned_judgements(self.judgements, receipt.config)
            lessons = self.lessons(receipt.baselines)
        except LookupError as error:
            raise InputsExpired(f"hour {receipt.hour}, revision {receipt.revision}: {error}") from error
        judge = self.judge(self.handed_over(receipt.state_in), segments[0][1])
        if self._coverage:
            judge.rules.reported(self.reported(receipt.hour, receipt.positions))
        rows = up_to(self.rows(receipt.hour), receipt.positions)
        derived = derive(judge, receipt.start, rows, lessons, segments)
        self.derived.append(receipt.reference)
        return derived, judge.export()

    def so_far(
        self,
        hour: str,
        open_hours: Sequence[str],
        timeline: Sequence[tuple[int, Judgement]],
        otherwise: Judgement,
        watermark: int,
    ) -> tuple[Derived, HandOver]:
        """What an hour that is not closed comes to, judged by all its rows so far; and the state at its start.

        Args:
            open_hours: hours with points after the newest closed one, ascending, ``hour`` among them.
            timeline: judgements in force from an event time (µs) on, since the newest closed hour.
            otherwise: in force when there is neither a state nor a timeline.
            watermark: event time reached (µs).
        """
        judge = self.judge(self.present(), otherwise)
        versions = self._baseline_versions(hour)
        for key in open_hours:
            if not self._keep_going():
                raise TooSlow(f"the time was up before hour {key} was derived")
            start = hour_start(key)
            segments = _segments(judge.judgement, timeline, start)
            lessons = self.lessons(lessons_due(key, judge.learnt, versions))
            before = judge.export() if key == hour else HandOver()
            if self._coverage:
                judge.rules.reported(self.reported(key, None))
            derived = derive(judge, start, self.rows(key), lessons, segments, until=watermark)
            self.derived.append((key, 0))
            if key == hour:
                return derived, before
        raise InputsExpired(f"hour {hour} has no points")

    def present(self) -> HandOver:
        """The state after the newest closed hour, with what was amended since."""
        if not self._receipt_hours:
            return HandOver()
        last = self._receipt_hours[-1]
        closing = next(receipt for receipt in read_receipts(self.lake, last, last))
        recent = self.lake.scan("hour_receipts", columns=["hour", "derived_at"])
        hours = recent.filter(pl.col("derived_at").dt.epoch("us") > closing.derived_at).collect()["hour"]
        self.read_receipts(min([*hours, last]), last)
        since = [receipt for receipt in self.receipts.values() if receipt.derived_at > closing.derived_at]
        taken_up = {reference for receipt in since for reference in receipt.state_in}
        since = sorted((r for r in since if r.reference not in taken_up), key=lambda receipt: receipt.derived_at)
        return self.handed_over([closing.reference, *(receipt.reference for receipt in since)])

    def rows(self, hour: str) -> pl.DataFrame:
        """The rows of the series in an hour, all of them: ``INPUT_COLUMNS``."""
        frame = self.lake.scan_at(self._points, TABLE, [hour])
        return frame.filter(_among(self.ids)).select(INPUT_COLUMNS).collect()

    def reported(self, hour: str, positions: Mapping[str, int] | None) -> NDArray[np.int64]:
        """When anything at all reported in an hour: the beginnings (µs) of the ``rules.CELL`` stretches with points."""
        frame = self.lake.scan_at(self._points, TABLE, [hour])
        if positions is not None:
            frame = up_to_lazily(frame, positions)
        at = pl.min_horizontal(pl.col("ts").dt.epoch("us"), pl.col("received_at").dt.epoch("us"))
        cells = frame.select((at // CELL).unique().sort() * CELL).collect().to_series()
        return cells.to_numpy()

    def lessons(self, pins: Sequence[tuple[str, int | None, int]]) -> list[Lesson]:
        """The baselines that were learnt at the start of an hour, of the series.

        Raises:
            LookupError: a version is not in the table any more.
        """
        return [
            Lesson(
                hour,
                version,
                self._learnt(hour, version),
                before,
                self._learnt(hour, before) if before is not None else None,
            )
            for hour, before, version in pins
        ]

    def baselines(self, hour: str) -> pl.DataFrame:
        """All versions of the baselines of the series in an hour."""
        return self.lake.scan_at(self._baselines, "baselines", [hour]).filter(_among(self.ids)).collect()

    def _learnt(self, hour: str, version: int) -> pl.DataFrame:
        frame = self.lake.scan_at(self._baselines, "baselines", [hour])
        of_version = frame.filter(pl.col("baseline_version") == version)
        rows = of_version.filter(_among(self.ids)).select(_BASELINE_COLUMNS).collect()
        if rows.is_empty() and version > 0 and not of_version.select(pl.len()).collect().item():
            raise LookupError(f"baselines version {version} of hour {hour} is not stored (any more)")
        return rows.select("series_id", "quantiles")

    def _make_sure_of_rows(self, receipt: Receipt) -> None:
        stored = self._stored_rows.get(receipt.hour, 0)
        if stored > receipt.rows:
            frame = up_to_lazily(self.lake.scan_at(self._points, TABLE, [receipt.hour]), receipt.positions)
            stored = frame.select(pl.len()).collect().item()
        if stored != receipt.rows:
            raise InputsExpired(
                f"hour {receipt.hour}, revision {receipt.revision}: {receipt.rows} rows were its input, "
                f"{stored} of its ingest positions are stored"
            )

    def _baseline_versions(self, hour: str) -> dict[str, int]:
        first = _hours_before(hour, LEARNT_KEPT_HOURS + 1)
        stored = self.lake.scan_at(self._baselines, "baselines").filter(pl.col("hour") >= first)
        versions = stored.group_by("hour").agg(pl.col("baseline_version").max()).collect()
        return dict(versions.iter_rows())


def up_to_lazily(rows: pl.LazyFrame, positions: Mapping[str, int]) -> pl.LazyFrame:
    """``receipts.up_to`` of a lazy frame."""
    reached = pl.col("writer").replace_strict(dict(positions), default=-1, return_dtype=pl.Int64)
    return rows.filter(pl.col("seq") <= reached)


def _among(ids: Sequence[int]) -> pl.Expr:
    """Rows of some series; the bounds let Parquet skip row groups of files sorted by series."""
    if not ids:
        return pl.lit(False)
    inside = pl.col("series_id").is_between(min(ids), max(ids))
    return inside if len(set(ids)) == 1 else inside & pl.col("series_id").is_in(list(ids))


def _segments(
    state: Judgement, timeline: Sequence[tuple[int, Judgement]], start: int
) -> list[tuple[int | None, Judgement]]:
    first = state
    for at, judgement in timeline:
        if at <= start:
            first = judgement
    end = start + MICROS_PER_HOUR
    return [(None, first), *((at, judgement) for at, judgement in timeline if start < at < end)]


def _hours_before(hour: str, hours: int = MOST_HOURS) -> str:
    return hour_key(hour_start(hour) - hours * MICROS_PER_HOUR)
