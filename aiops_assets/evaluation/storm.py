"""Evaluating the platform on a storm whose truth is known: emit it, send it through the live path, compare.

What belongs here: putting the parts together, and where and when an evaluated storm takes place. What does not: the
parts (``passage``, ``scoring``, ``report``).
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from aiops_assets.evaluation.passage import BATCH, Passage, Tell, read_passage, send_through, stored_incidents
from aiops_assets.evaluation.scoring import StormScore, score
from aiops_assets.evaluation.truth import truth_of
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND
from aiops_assets.settings import Settings
from aiops_assets.synthetic.storms.engine import emissions
from aiops_assets.synthetic.storms.truth import truth

if TYPE_CHECKING:
    from aiops_assets.synthetic.storms.scenario import Scenario
    from aiops_assets.synthetic.storms.truth import Truth as StormTruth

#: Monday, 27 April 2026, 00:00 UTC: a week of it has the end of a month in it
MONDAY = 1_777_248_000 * MICROS_PER_SECOND
#: a storm shorter than a day begins at this hour of the day, when people work
BEGINS_AT_HOUR = 9


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A score, and what it was made from. ``truth`` is the JSON form of the storm's truth."""

    score: StormScore
    truth: dict[str, Any]
    passage: Passage


def begins_at(scenario: Scenario) -> int:
    """When an evaluated storm begins (microseconds since the epoch, UTC): always the same, so that scores compare."""
    day = 24 * 3_600
    return MONDAY if scenario.duration >= day else MONDAY + BEGINS_AT_HOUR * MICROS_PER_HOUR


def evaluate_storm(scenario: Scenario, *, seed: int | None = None, home: Path | None = None, **more: Any) -> StormScore:
    """The score alone; arguments as those of ``evaluate``."""
    return evaluate(scenario, seed=seed, home=home, **more).score


def evaluate(
    scenario: Scenario,
    *,
    seed: int | None = None,
    home: Path | None = None,
    start: int | None = None,
    batch: int = BATCH,
    tell: Tell = lambda at, start, end: None,
) -> Evaluation:
    """Send a storm through the live path of a home of its own and compare what came out with the truth.

    Args:
        seed: of the storm; the scenario's own when left out.
        home: an empty folder to use and keep; a temporary one that is removed when left out.
        start: when the storm begins (microseconds since the epoch, UTC); ``begins_at`` when left out.
        batch: event time that a step of the live session takes.
        tell: hears (event time reached, start of the history, end).

    Raises:
        ValueError: the home has data in it.
    """
    began = time.monotonic()
    seed = scenario.seed if seed is None else seed
    start = begins_at(scenario) if start is None else start
    known = truth(scenario, start, seed)
    with _home(home) as folder:
        passage = send_through(
            Settings(home=folder, config=None, lake=None, operations_url=None),
            emissions(scenario, start_at=start, seed=seed),
            start=known.start,
            end=known.end,
            past_start=known.history_start,
            batch=batch,
            keep_segments=home is not None,
            tell=tell,
        )
    problems = [*passage.problems, *_unknown_series(known, passage.series)]
    result = score(
        truth_of(known),
        passage.alerts,
        passage.incidents,
        passage.pages,
        scenario=scenario.name,
        seed=seed,
        volume=passage.volume,
        problems=problems,
        seconds=time.monotonic() - began,
    )
    return Evaluation(result, known.as_json(), passage)


def score_home(settings: Settings, known: StormTruth) -> tuple[StormScore, Passage]:
    """The score of a storm that has gone through the platform of this home: its own incidents, without pages."""
    passage = read_passage(settings, start=known.start, end=known.end)
    incidents = stored_incidents(settings)
    own = pl.col("host").is_in(known.hosts)
    alerts = passage.alerts.filter(own)
    found = score(
        truth_of(known),
        alerts,
        incidents,
        passage.pages.clear(),
        scenario=known.scenario,
        seed=known.seed,
        volume=passage.volume,
        problems=[*passage.problems, *_unknown_series(known, passage.series)],
    )
    return found, Passage(alerts, incidents, passage.pages, passage.series, passage.volume, passage.problems)


@contextlib.contextmanager
def _home(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="aiops-storm-") as made:
        yield Path(made)


def _unknown_series(known: StormTruth, series: pl.DataFrame) -> Iterator[str]:
    """Series of the truth that never arrived under that name: whatever they show cannot be told right."""
    arrived = set(series.select("host", "metric", "labels").iter_rows())
    lacking = sorted({(one.host, one.metric, one.labels) for one in known.affected} - arrived)
    if lacking:
        host, metric, labels = lacking[0]
        yield f"{len(lacking):,} series of the truth never arrived, for example {metric} of {host} {labels}"
