"""The whole of ``aiops shadow``: import what is missing, convert the rules, run them over the history, compare.

What belongs here: the order of steps and their inputs. What does not: terminals (``cli``) and the steps themselves.
The history ends an hour before now: what is younger counts as live to the session that stores it, and imported points
must never page anybody.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from aiops_assets.formats.prometheus_range import HOST_LABELS, host_of
from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.landing.reader import BacklogMeter
from aiops_assets.landing.writer import SegmentWriter, WriterBusy
from aiops_assets.live.lease import live_lease
from aiops_assets.live.progress import read_progress
from aiops_assets.settings import Settings
from aiops_assets.shadow import backfill, history, judging
from aiops_assets.shadow.client import Access, Prometheus, PrometheusError
from aiops_assets.shadow.comparison import Comparison, compare
from aiops_assets.shadow.conversion import Conversion, convert
from aiops_assets.shadow.episodes import episodes
from aiops_assets.shadow.journal import Journal, Question
from aiops_assets.shadow.plan import EVERYTHING, Labels, Leg, missing, plan_leg, shadow_id
from aiops_assets.shadow.report import Imported
from aiops_assets.shadow.rule_files import RuleSet, read_rule_file, rules_of_api
from aiops_assets.telemetry.series import SeriesDirectory

#: history ends this long before now (seconds): longer ago than what the live plane takes for the present
LIVE_SECONDS = 3600
DAY = 86_400
#: a sample is about so long in an answer (bytes), compressed
_BYTES_PER_SAMPLE = 5


class NothingImported(Exception):
    """There is no history to look at; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for."""

    access: Access
    days: float
    selectors: tuple[str, ...] = (EVERYTHING,)
    step: int = 60
    source: str = "prometheus"
    host_label: str | None = None
    rule_files: tuple[Path, ...] = ()
    shifts: tuple[tuple[int, int], ...] = ((8, 16), (16, 24), (0, 8))
    zone: str = "UTC"
    statistics: bool = True
    fetch: bool = True

    @property
    def question(self) -> Question:
        return Question(self.access.url, self.selectors, self.step, self.source, self.host_label)

    @property
    def shadow_id(self) -> str:
        return shadow_id(self.access.url, self.selectors, self.step, self.source, self.host_label)


@dataclass(frozen=True, slots=True)
class Steps:
    """Who is told how far it is: the import (chunks done, in all, samples) and the judging (seconds done, in all)."""

    importing: Callable[[int, int, int], None] = lambda done, total, samples: None
    judging: Callable[[int, int], None] = lambda done, total: None
    waiting: Callable[[str], None] = lambda why: None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What an import would ask for."""

    legs: list[Leg]
    series: int
    requests: int
    samples: int
    seconds: float
    landing_bytes: int
    conversion: Conversion
    recording: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    imported: Imported
    conversion: Conversion
    recording: int
    comparison: Comparison
    resumed_chunks: int = 0
    writers: dict[str, int] = field(default_factory=dict)


def estimate(options: Options, now: float) -> Estimate:
    """What would be asked for, and which rules would be converted; only lists are fetched, nothing is written."""
    start, end = _stretch(options, now)
    with Prometheus(options.access) as prometheus:
        found = backfill.discover(prometheus, options.selectors, start, end)
        leg = plan_leg(1, start, end, options.step, found)
        metadata = backfill.metric_metadata(prometheus)
        rules = _rules(options, prometheus)
    series = _flat(found)
    conversion = convert(rules.alerts, metadata=metadata, hosts_of=judging.hosts_of(series, options.host_label))
    requests = len(leg.windows()) * (len(leg.queries) + 1)
    samples = sum(leg.samples(chunk) for chunk in leg.chunks())
    seconds = requests / options.access.requests_per_second
    size = samples * _BYTES_PER_SAMPLE
    return Estimate([leg], len(series), requests, samples, seconds, size, conversion, rules.recording)


def run(
    options: Options,
    settings: Settings,
    writer: Callable[[], SegmentWriter],
    now: float,
    steps: Steps | None = None,
    stop: threading.Event | None = None,
) -> Outcome:
    """Import, convert, judge, compare.

    Args:
        writer: opens a free writer of the landing zone.
        now: seconds since the epoch.

    Raises:
        PrometheusError, RuleFileError, JournalBusy, JournalDamaged, LandingFull, NothingImported: see there.
    """
    steps, stop = steps or Steps(), stop or threading.Event()
    begun = time.monotonic()
    home = settings.paths
    with (
        Journal(home.root / "shadow", options.shadow_id, options.question) as journal,
        Prometheus(options.access, stop) as prometheus,
    ):
        # Rules first: a mistake in them must not show after hours of fetching.
        rules = _rules(options, prometheus)
        partial = resumed = 0
        if options.fetch:
            resumed = _take_up(journal, settings)
            legs = _legs(options, journal, prometheus, now)
            if legs:
                with writer() as opened:
                    room = _Room(settings, steps, stop)
                    filling = backfill.Backfill(
                        prometheus,
                        journal,
                        opened,
                        journal.read("metadata.json") or {},
                        wait_for_room=room.wait,
                        stop=stop,
                    )
                    filling.run(legs, steps.importing)
                    partial = filling.partial
        if not journal.legs:
            raise NothingImported("nothing was imported from there yet; run it without --no-fetch")
        if any(journal.unfinished(leg) for leg in journal.legs):
            raise NothingImported("the import is not complete yet; run it without --no-fetch to finish it")
        series = journal.series()
        metadata = journal.read("metadata.json") or {}
        known_hosts = judging.hosts_of(series, options.host_label)
        conversion = convert(rules.alerts, metadata=metadata, hosts_of=known_hosts)
        start, end = min(leg.start for leg in journal.legs), max(leg.end for leg in journal.legs)
        comparison = _compared(options, journal, settings, conversion, start, end, steps)
        done = journal.done.values()
        imported = Imported(
            url=options.access.url,
            shadow_id=journal.shadow_id,
            source=options.source,
            start=start,
            end=end,
            step=options.step,
            series=len(series),
            samples=sum(entry.samples for entry in done),
            refused=sum(entry.refused for entry in done),
            requests=prometheus.counters.requests,
            retries=prometheus.counters.retries,
            partial=partial,
            seconds=time.monotonic() - begun,
        )
        writers: dict[str, int] = {}
        for entry in done:
            if entry.writer:
                writers[entry.writer] = max(entry.seq, writers.get(entry.writer, 0))
    return Outcome(imported, conversion, rules.recording, comparison, resumed, writers)


def _stretch(options: Options, now: float) -> tuple[int, int]:
    """Start and end (not included) in seconds, on the grid."""
    end = int(now - LIVE_SECONDS) // options.step * options.step
    return end - max(round(options.days * DAY) // options.step, 1) * options.step, end


def _legs(options: Options, journal: Journal, prometheus: Prometheus, now: float) -> list[Leg]:
    """The stretches to be fetched: those begun earlier, else what the time asked for has beyond them."""
    unfinished = [leg for leg in journal.legs if journal.unfinished(leg)]
    if unfinished:
        return unfinished
    start, end = _stretch(options, now)
    planned: list[Leg] = []
    for first, last in missing([(leg.start, leg.end) for leg in journal.legs], start, end):
        found = backfill.discover(prometheus, options.selectors, first, last)
        series = _flat(found)
        if not series and not journal.legs:
            raise PrometheusError(
                f"{options.access.url} has no series for {', '.join(options.selectors)} "
                f"in the last {options.days:g} days"
            )
        known = journal.read("metadata.json") or {}
        journal.write("metadata.json", {**known, **backfill.metric_metadata(prometheus)})
        leg = plan_leg(len(journal.legs) + 1, first, last, options.step, found)
        journal.add_leg(leg, series)
        planned.append(leg)
    return planned


def _flat(found: Sequence[tuple[str, Sequence[Labels]]]) -> list[Labels]:
    unique = {frozenset(labels.items()): labels for _, series in found for labels in series}
    return [labels for labels in unique.values() if labels["__name__"] not in {"ALERTS", "ALERTS_FOR_STATE"}]


def _take_up(journal: Journal, settings: Settings) -> int:
    """Note what an earlier process delivered and could no longer write down; how many chunks that were."""
    for name in journal.first_seq:
        # Opening a writer seals what its last owner left open; one in use was put in order by its owner.
        with contextlib.suppress(WriterBusy):
            SegmentWriter(
                settings.paths.landing,
                name,
                max_bytes=settings.segment_max_bytes,
                max_age_seconds=settings.segment_max_age_seconds,
            ).close()
    found = backfill.recovered(journal, settings.paths.landing)
    if found:
        journal.finished(found)
    return len(found)


def _rules(options: Options, prometheus: Prometheus) -> RuleSet:
    if options.rule_files:
        found = RuleSet()
        for path in options.rule_files:
            found += read_rule_file(path)
        return found
    data = prometheus.data("/api/v1/rules")
    return rules_of_api(data if isinstance(data, dict) else {}, options.access.url)


def _compared(
    options: Options, journal: Journal, settings: Settings, conversion: Conversion, start: int, end: int, steps: Steps
) -> Comparison:
    directory = SeriesDirectory()
    stored = history.windows(journal, settings.paths.landing, settings.paths.lake, directory)
    pages, watched = judging.judge(
        stored,
        directory,
        [entry.rule for entry in conversion.converted],
        statistics=options.statistics,
        progress=lambda at, points: steps.judging(at // MICROS_PER_SECOND - start, end - start),
    )
    answers = [
        answer
        for leg in journal.legs
        for number in range(len(leg.windows()))
        for answer in journal.alerts_path(leg.number, number).read_bytes().splitlines()
        if answer
    ]
    return compare(
        conversion,
        _within(pages, start, end),
        episodes(answers, options.step, end),
        start=start,
        end=end,
        shifts=options.shifts,
        zone=options.zone,
        watched=watched,
        host_of=lambda labels: _named_host(labels, options.host_label),
    )


def _within(pages: pl.DataFrame, start: int, end: int) -> pl.DataFrame:
    return pages.filter(
        pl.col("paged_at").is_between(start * MICROS_PER_SECOND, end * MICROS_PER_SECOND, closed="left")
    )


def _named_host(labels: dict[str, Any], host_label: str | None) -> str | None:
    """The host that an alert names, ``None`` when it names none."""
    names = ({host_label} if host_label else set()) | set(HOST_LABELS) - {"job"}
    own = {name: str(value) for name, value in labels.items() if name in names}
    return host_of(own, host_label) if own else None


class _Room:
    """Lets the live session keep up: a landing zone that is too full would refuse what devices send."""

    def __init__(self, settings: Settings, steps: Steps, stop: threading.Event) -> None:
        self._settings, self._steps, self._stop = settings, steps, stop
        self._meter = BacklogMeter(settings.paths.landing)

    def wait(self) -> None:
        """Return when there is room, or when no session is there that could make any."""
        told = False
        home = self._settings.paths
        # Answers are compressed: a quarter of a micro-batch's bytes is as many points as one of plain bytes has.
        most = min(self._settings.gateway_max_backlog_bytes // 2, self._settings.session_batch_bytes // 4)
        while self._meter.measure(read_progress(home.live).taken).size > most:
            if live_lease(home.live).holder() is None:
                return
            if not told:
                self._steps.waiting("the live session has to catch up with the landing zone first")
                told = True
            if self._stop.wait(0.5):
                return
