"""Where an occurrence shows: its series with the size of the effect over the noise, and its traces beside metrics.

What belongs here: evaluating the signals without noise twice, with the occurrence and without. What does not: the
shapes of the truth (``truth``).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from aiops_assets.collectors.document import UP
from aiops_assets.formats.batch import labels_json
from aiops_assets.formats.telegraf_mapping import resolve, rule
from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.synthetic.storms.course import Course, Without
from aiops_assets.synthetic.storms.engine import Storm
from aiops_assets.synthetic.storms.faults import LOAD, Occurrence
from aiops_assets.synthetic.storms.fleet import Host, Stream
from aiops_assets.synthetic.storms.happenings import of_occurrence, reports
from aiops_assets.synthetic.storms.lines import MARK, POLLED, line_tags, wires_of
from aiops_assets.synthetic.storms.noise import Floats, Ints
from aiops_assets.synthetic.storms.truth import AffectedSeries, Trace
from aiops_assets.synthetic.storms.writing import rate_of, writes

#: deviations from which an effect can be told from noise, and below which it is not worth telling
VISIBLE, WORTH_TELLING = 3.0, 0.5
#: from so many equal samples on a signal that has noise is known to be frozen
REPEATED = 5
_MAX_SAMPLES = 2_000_000
_LARGEST = 1e6


def affected_series(storm: Storm, occurrence: Occurrence) -> list[AffectedSeries]:
    """Series that an occurrence changes, by stream, signal and host."""
    made: list[AffectedSeries] = []
    begin, end = max(occurrence.start, storm.start_at), min(occurrence.over, storm.plan.end)
    if begin >= end:
        return made
    for stream in storm.fleet.streams:
        course = Course(storm.plan, stream, stream.interval)
        steps = course.steps(begin, end)
        if not len(steps):
            continue
        stride = max(1, len(steps) * len(stream.hosts) // _MAX_SAMPLES)
        steps = steps[::stride]
        silenced = _silenced(storm, stream, occurrence)
        under_load = _felt(storm, stream, LOAD, occurrence)
        for name, signal in stream.signals.items():
            felt = dict(_felt(storm, stream, name, occurrence))
            if under_load and (signal.load or signal.capacity is not None):
                felt |= {column: hop for column, hop in under_load.items() if column not in felt}
            shifted = {column: hop for column, hop in felt.items() if column not in silenced}
            if shifted:
                made += _shifts(course, occurrence, name, steps, shifted, end)
            for column, hop in silenced.items():
                made += _absences(course, occurrence, name, steps, column, hop, end)
        if stream.sender in POLLED:
            made += _unreachable(course, occurrence, steps, silenced, end)
    return made


def _felt(storm: Storm, stream: Stream, signal: str, occurrence: Occurrence) -> dict[int, int]:
    """Column → nearest hop of the hosts on which an occurrence changes the values of a signal."""
    found: dict[int, int] = {}
    for applied in storm.plan.applied(stream, signal):
        everything = "*" in applied.effect.signals and applied.effect.do in {"silence", "skew", "restart"}
        if applied.occurrence is occurrence and not everything:
            for column, hop in zip(applied.columns.tolist(), applied.hops.tolist(), strict=True):
                found[column] = min(hop, found.get(column, hop))
    return found


def _silenced(storm: Storm, stream: Stream, occurrence: Occurrence) -> dict[int, int]:
    return {
        column: hop
        for applied in storm.plan.applied(stream, "*")
        if applied.occurrence is occurrence and applied.effect.do == "silence"
        for column, hop in zip(applied.columns.tolist(), applied.hops.tolist(), strict=True)
    }


def _shifts(
    course: Course, occurrence: Occurrence, name: str, steps: Ints, felt: dict[int, int], end: int
) -> Iterator[AffectedSeries]:
    at = steps * course.interval
    before = course.values(name, steps, Without(True, frozenset({occurrence.id})))
    after = course.values(name, steps, Without(True))
    deviation = course.deviation(name, at)
    frozen = any(
        one.effect.do == "freeze" for one in course.plan.applied(course.stream, name) if one.occurrence is occurrence
    )
    for column, hop in felt.items():
        change = after[:, column] - before[:, column]
        absent = np.isnan(change)
        with np.errstate(divide="ignore", invalid="ignore"):
            size = np.where(absent, np.inf, np.abs(change) / deviation[:, column])
        size = np.minimum(np.where(np.nan_to_num(change) == 0.0, np.where(absent, np.inf, 0.0), size), _LARGEST)
        peak = int(size.argmax())
        if size[peak] < WORTH_TELLING and not frozen:
            continue
        if frozen:
            # Nobody can tell a value that stays from one that is about to change before it was sent a few times.
            since = int(np.searchsorted(at, occurrence.start + occurrence.delay(hop))) + REPEATED - 1
            seen = np.arange(since, len(at)) if course.stream.signals[name].noise else np.arange(0)
        else:
            seen = np.flatnonzero(size >= VISIBLE)
        gone = bool(absent.any())
        over = np.flatnonzero(size >= WORTH_TELLING)
        for metric, labels, unit, factor in names_of(course.stream, course.stream.hosts[column], name):
            yield AffectedSeries(
                fault_id=occurrence.id,
                host=course.stream.hosts[column].name,
                metric=metric,
                labels=labels,
                unit=unit,
                signal=name,
                hop=hop,
                what="absence" if gone else "frozen" if frozen else "shift",
                start=occurrence.start + occurrence.delay(hop),
                visible_at=int(at[seen[0]]) if len(seen) else None,
                peak_at=int(at[peak]),
                end=int(at[over[-1]]) if len(over) else end,
                effect=None if gone else float(change[peak] * factor),
                effect_over_noise=None if gone else float(size[peak]),
            )


def _absences(
    course: Course, occurrence: Occurrence, name: str, steps: Ints, column: int, hop: int, end: int
) -> Iterator[AffectedSeries]:
    at = steps * course.interval
    missing = at[(at >= occurrence.start + occurrence.delay(hop)) & (at < occurrence.end + occurrence.delay(hop))]
    if not len(missing):
        return
    host = course.stream.hosts[column]
    for metric, labels, unit, _ in names_of(course.stream, host, name):
        yield AffectedSeries(
            occurrence.id, host.name, metric, labels, unit, name, hop, "absence",
            occurrence.start + occurrence.delay(hop), int(missing[0]), int(missing[0]), int(missing[-1]), None, None,
        )  # fmt: skip


def _unreachable(
    course: Course, occurrence: Occurrence, steps: Ints, silenced: dict[int, int], end: int
) -> Iterator[AffectedSeries]:
    """The polls themselves say that a device does not answer."""
    at = steps * course.interval
    labels = labels_json({"kind": POLLED[course.stream.sender], **MARK})
    for column, hop in silenced.items():
        since = occurrence.start + occurrence.delay(hop)
        polls = at[(at >= since) & (at < occurrence.end + occurrence.delay(hop))]
        if len(polls):
            yield AffectedSeries(
                occurrence.id, course.stream.hosts[column].name, UP, labels, "1", "up", hop, "shift",
                since, int(polls[0]), int(polls[0]), int(polls[-1]), -1.0, _LARGEST,
            )  # fmt: skip


def names_of(stream: Stream, host: Host, signal: str) -> list[tuple[str, str, str, float]]:
    """(metric, labels as canonical JSON, unit, factor) of the series that a signal becomes when it has been read.

    The effect on a counter is that on its growth a second.
    """
    declared = stream.signals[signal]
    if stream.sender != "telegraf":
        return [(one.metric, labels_json({**one.labels, **MARK}), one.unit, one.factor) for one in declared.collected]
    found = []
    for wire in wires_of(signal, declared.telegraf, declared.collected):
        key = resolve(wire.measurement, tuple(line_tags(stream, host, wire).items()))
        known = rule(key.family, key.measurement, wire.field)
        labels = {**key.labels, **({known.extra[0]: known.extra[1]} if known.extra else {})}
        found.append((known.metric, labels_json(labels), known.unit, wire.factor / known.divisor))
    return found


def traces(storm: Storm, occurrence: Occurrence) -> list[Trace]:
    """What an occurrence leaves beside metrics, by host."""
    made: list[Trace] = []
    begin, end = max(occurrence.start, storm.start_at), min(occurrence.over, storm.plan.end)
    length = max(MICROS_PER_SECOND, (end - begin) // 2_000)
    edges = np.arange(begin, end + length, length, dtype=np.int64)
    if begin < end:
        for stream in storm.fleet.streams:
            if not stream.main:
                continue
            course = Course(storm.plan, stream, stream.interval)
            for effect in occurrence.kind.logs:
                if not writes(storm.plan, stream, effect):
                    continue
                reach = occurrence.reach[effect.to]
                rate = rate_of(occurrence, course, reach, edges, effect.rate, effect.begins, effect.once)
                made += _marks(occurrence, stream, "log", f"{effect.app}: {effect.lines[0].text}", rate, edges)
            for error in occurrence.kind.errors:
                if not reports(storm.plan, stream, error):
                    continue
                rate = rate_of(occurrence, course, occurrence.reach[error.to], edges, error.rate, error.begins)
                text = f"{error.exceptions[0].type}: {error.exceptions[0].value}"
                made += _marks(occurrence, stream, "error", text, rate, edges)
    for kind, host, at, text in of_occurrence(occurrence, storm.plan):
        if storm.start_at <= at < storm.plan.end:
            made.append(Trace(occurrence.id, host, kind, at, at, 1.0, text))
    return made


def _marks(
    occurrence: Occurrence, stream: Stream, kind: str, text: str, rate: Floats | None, edges: Ints
) -> Iterator[Trace]:
    """Hosts on which at least half a line or exception is to be expected."""
    if rate is None:
        return
    seconds = (edges[1:] - edges[:-1])[:, None] / MICROS_PER_SECOND
    expected = np.where(np.isinf(rate), 1.0, rate * seconds)
    reached = np.cumsum(expected, axis=0)
    for column, host in enumerate(stream.hosts):
        if reached[-1, column] >= 0.5:
            first = int(np.searchsorted(reached[:, column], 0.5))
            last = int(np.flatnonzero(expected[:, column])[-1])
            yield Trace(
                occurrence.id, host.name, "log" if kind == "log" else "error",
                int(edges[first]), int(edges[last + 1]), round(float(reached[-1, column]), 3), text,
            )  # fmt: skip
