"""Rules, statistics and the book of alerts as one: points in, anomalies and decisions about alerts out.

What belongs here: running the engines side by side and handing their state over. What does not: what each of them finds
bad (``rules``, ``statistics``), which points an hour has (``derive``) and what people are told (``live``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from aiops_assets.detection.alerts import AlertBook, BatchRows
from aiops_assets.detection.handover import HandOver
from aiops_assets.detection.judgement import Judgement
from aiops_assets.detection.rules import RuleEngine
from aiops_assets.detection.statistics import DETECTOR_VERSION, Tier1
from aiops_assets.detection.steps import steps
from aiops_assets.detection.transitions import Transition
from aiops_assets.hours import MICROS_PER_HOUR, hour_start
from aiops_assets.telemetry.series import SeriesDirectory

#: a baseline is learnt by hours that begin so many hours after it did: by then it is closed
LEARNT_AFTER_HOURS = 2
#: what was learnt of hours older than this is not corrected any more
LEARNT_KEPT_HOURS = 7 * 24
_NEVER = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class Lesson:
    """Baselines of one closed hour to learn: the version, and the one learnt before (``None``: none).

    The frames have ``series_id`` and ``quantiles`` of ``tables.BASELINES``.
    """

    hour: str
    version: int
    baselines: pl.DataFrame
    replaces: int | None = None
    replaced: pl.DataFrame | None = None


class Judge:
    """The engines over one directory of series, which must have announced every series before its points come."""

    def __init__(self, judgement: Judgement, directory: SeriesDirectory) -> None:
        self.judgement = judgement
        self.directory = directory
        self.rules = RuleEngine(judgement.rules)
        self.statistics = Tier1(judgement.statistics)
        self.book = AlertBook(history_after=None)
        #: event time of the newest point judged, by series number (µs)
        self.last: NDArray[np.int64] = np.empty(0, np.int64)
        #: hour → baseline version that the seasonal profile has taken in
        self.learnt: dict[str, int] = {}
        self.grow()

    def grow(self) -> None:
        """Take the series that the directory has gained."""
        known = len(self.last)
        if len(self.directory) == known:
            return
        added = self.directory.frame[known:]
        self.rules.grow(added)
        self.statistics.grow(added)
        self.last = np.concatenate([self.last, np.full(added.height, _NEVER)])

    def reconfigure(self, judgement: Judgement) -> None:
        """Put other rules and settings in force; what removed rules had open ends with the next points."""
        if judgement == self.judgement:
            return
        self.rules.replace(judgement.rules, self.directory.frame)
        self.statistics.reconfigure(judgement.statistics, self.directory.frame)
        self.judgement = judgement

    def learn(self, lessons: Iterable[Lesson]) -> None:
        """Take closed hours into the seasonal profile, in the order given."""
        for lesson in lessons:
            start = hour_start(lesson.hour)
            after = self._numbered(lesson.baselines)
            if lesson.replaced is None:
                self.statistics.close_hour(start, after)
            else:
                later = sum(1 for hour in self.learnt if hour > lesson.hour and hour[11:] == lesson.hour[11:])
                self.statistics.correct_hour(start, self._numbered(lesson.replaced), after, later)
            self.learnt[lesson.hour] = lesson.version

    def take(
        self, number: NDArray[np.int32], ts: NDArray[np.int64], value: NDArray[np.float64], received: NDArray[np.int64]
    ) -> tuple[pl.DataFrame, list[Transition]]:
        """Judge points of one hour, parallel arrays in any order, each newer than what was judged of its series.

        Returns:
            The unusual rows as ``Tier1.process`` gives them, and what began or ended, both with ``row`` as the place
            in the arrays; transitions ordered by instant and series_id.
        """
        batch = list(steps(number, ts, value))
        transitions = self.rules.process(batch, received)
        found, unusual = self.statistics.process(batch)
        np.maximum.at(self.last, number, ts)
        return found, self._in_order([*transitions, *unusual])

    def absences(self, watermark: int) -> list[Transition]:
        """What the event time reached (µs) says about series that sent nothing."""
        return self._in_order(self.rules.absences(watermark))

    def decide(self, transitions: Sequence[Transition], batch: BatchRows) -> pl.DataFrame:
        """Enter transitions in the book: new revisions of alerts, without regard to windows and silences."""
        return self.book.apply(transitions, directory=self.directory.frame, windows=(), batch=batch)

    def forget(self, before: int) -> None:
        """Forget ended alerts and learnt hours that no later hour (from ``before``, µs) can refer to."""
        self.book.forget(before)
        kept = before - LEARNT_KEPT_HOURS * MICROS_PER_HOUR
        self.learnt = {hour: version for hour, version in self.learnt.items() if hour_start(hour) >= kept}

    def export(self) -> HandOver:
        """The state, the same for the same points whatever the numbers of the series are."""
        ids = self.directory.ids
        heard = np.flatnonzero(self.last != _NEVER)
        heard = heard[np.argsort(ids[heard], kind="stable")]
        return HandOver(
            {
                "seen": {"series_id": ids[heard], "last": self.last[heard]},
                "statistics": self.statistics.export(ids),
                **self.rules.export(),
            },
            {
                "config": self.judgement.digest,
                "detector": DETECTOR_VERSION,
                "learnt": dict(sorted(self.learnt.items())),
                **self.book.export(),
            },
        )

    def adopt(self, state: HandOver) -> None:
        """Take over an ``export`` in place of everything; series that the directory lacks are left out.

        Raises:
            ValueError: it is of other rules or another detector version.
        """
        if not state.parts:
            state = Judge(self.judgement, self.directory).export()
        if state.document["detector"] != DETECTOR_VERSION:
            raise ValueError(f"the state is of detector {state.document['detector']}, this code has {DETECTOR_VERSION}")
        if state.document["config"] != self.judgement.digest:
            raise ValueError("the state is of other rules")
        rules = {name: part for name, part in state.parts.items() if name not in {"seen", "statistics"}}
        self.rules.adopt(rules, self.numbers_of)
        self.statistics.adopt(state.parts["statistics"], self.numbers_of)
        numbers = self.numbers_of(state.parts["seen"]["series_id"])
        self.last[:] = _NEVER
        self.last[numbers[numbers >= 0]] = state.parts["seen"]["last"][numbers >= 0]
        self.book.adopt_state(state.document)
        self.book.drop_absences_but(self.rules.silent())
        self.learnt = {str(hour): int(version) for hour, version in state.document["learnt"].items()}

    def numbers_of(self, series_id: NDArray[np.int64]) -> NDArray[np.int32]:
        """Series numbers, -1 where the directory has none."""
        number_of = self.directory.number_of
        return np.fromiter(
            (-1 if (number := number_of(id_)) is None else number for id_ in series_id.tolist()),
            np.int32,
            len(series_id),
        )

    def numbers_of_column(self, series_id: pl.Series) -> NDArray[np.int32]:
        """``numbers_of`` for a column in which each series_id occurs many times, equal ones side by side.

        Raises:
            KeyError: the directory lacks one of them.
        """
        if not len(series_id):
            return np.empty(0, np.int32)
        runs = series_id.rle().struct.unnest()
        numbers = self.numbers_of(runs["value"].to_numpy())
        if (numbers < 0).any():
            raise KeyError(f"series {runs['value'][int(np.argmin(numbers))]} is not in the table of series")
        return np.repeat(numbers, runs["len"].to_numpy())

    def _numbered(self, baselines: pl.DataFrame) -> pl.DataFrame:
        numbers = pl.Series("number", self.numbers_of(baselines["series_id"].to_numpy()))
        return baselines.select("quantiles").with_columns(numbers).filter(pl.col("number") >= 0).sort("number")

    def _in_order(self, transitions: list[Transition]) -> list[Transition]:
        ids = self.directory.ids
        return sorted(transitions, key=lambda t: (t.at, int(ids[t.series]), t.kind, t.name))


def lessons_due(hour: str, learnt: Mapping[str, int], newest: Mapping[str, int]) -> list[tuple[str, int | None, int]]:
    """Baselines that an hour shall learn at its start: (hour, version learnt before, version), ascending.

    Args:
        hour: the hour that is about to be judged.
        learnt: hour → version that its state has.
        newest: hour → newest version there is.
    """
    start = hour_start(hour)
    last = start - LEARNT_AFTER_HOURS * MICROS_PER_HOUR
    first = start - LEARNT_KEPT_HOURS * MICROS_PER_HOUR
    return [
        (key, learnt.get(key), version)
        for key, version in sorted(newest.items())
        if first <= hour_start(key) <= last and learnt.get(key, 0) < version
    ]
