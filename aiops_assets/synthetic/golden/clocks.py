"""When incidents open, are resolved and are closed: what logs of service desks show, learnt and drawn again.

What belongs here: arrivals by the hour, spans until resolution (at once, the same day, so many days later at an hour of
the day), closings (with the resolution, a fixed time after it by a job that runs at a minute of the hour, in a batch)
and the grid that times lie on. What does not: which other fields they depend on (``fitting``).
Instants are microseconds since the epoch, UTC; spans are minutes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Micros = NDArray[np.int64]
Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
_GRIDS = (HOUR, 30 * MINUTE, 15 * MINUTE, 5 * MINUTE, MINUTE, SECOND, 1_000, 1)


def grid(instants: Micros) -> int:
    """The coarsest step (microseconds) that 99% of instants are multiples of."""
    return next(step for step in _GRIDS if np.mean(instants % step == 0) >= 0.99)


def weekday(instants: Micros) -> Codes:
    """0 Monday … 6 Sunday; the epoch was a Thursday."""
    return (instants // DAY + 3) % 7


def hour(instants: Micros) -> Codes:
    """0 … 23."""
    return instants % DAY // HOUR


def working_day(instants: Micros) -> Codes:
    """Working days (Monday to Friday) since the epoch's week; Saturday and Sunday have the number of their Friday."""
    day = instants // DAY + 3
    return np.asarray(day // 7 * 5 + np.minimum(day % 7, 4))


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Density of openings: constant between ``edges`` (instants), with ``cumulative`` share at each edge."""

    edges: Micros
    cumulative: Floats

    def at(self, share: Floats) -> Micros:
        """The instants by which these shares of all incidents have been opened."""
        cell = np.clip(np.searchsorted(self.cumulative, share, side="right") - 1, 0, self.edges.size - 2)
        low, high = self.cumulative[cell], self.cumulative[cell + 1]
        within = np.where(high > low, (share - low) / np.where(high > low, high - low, 1.0), 0.0)
        length = self.edges[cell + 1] - self.edges[cell]
        return np.asarray(self.edges[cell] + np.minimum((within * length).astype(np.int64), length - 1))


def learn_arrivals(opened: Micros, step: int) -> Arrivals:
    """Openings an hour, smoothed over neighbours, or as day × hour of the week, by what tells left-out ones best."""
    begin, end = int(opened.min()) // step * step, int(opened.max()) // step * step + step
    inner = np.arange(begin // HOUR + 1, (end - 1) // HOUR + 1) * HOUR
    edges = np.unique(np.concatenate([[begin], inner, [end]])).astype(np.int64)
    cell = np.clip(np.searchsorted(edges, opened, side="right") - 1, 0, edges.size - 2)
    length = (edges[1:] - edges[:-1]) / HOUR
    fold = np.arange(opened.size) % 2
    scores: dict[str, float] = {}
    for name in _SMOOTHING:
        score = 0.0
        for part in (0, 1):
            counts = np.bincount(cell[fold == part], minlength=length.size).astype(np.float64)
            rate = _rate(name, counts, length, edges)
            score += float(np.log((rate / (rate * length).sum())[cell[fold != part]]).sum())
        scores[name] = score
    best = max(_SMOOTHING, key=lambda name: scores[name])
    rate = _rate(best, np.bincount(cell, minlength=length.size).astype(np.float64), length, edges)
    cumulative = np.concatenate([[0.0], np.cumsum(rate * length)])
    return Arrivals(edges, cumulative / cumulative[-1])


_SMOOTHING = ("0", "1", "2", "4", "week")


def _rate(name: str, counts: Floats, length: Floats, edges: Micros) -> Floats:
    least = 0.02 * counts.sum() / length.sum()
    if name == "week":
        slot = weekday(edges[:-1]) * 24 + hour(edges[:-1])
        day = (edges[:-1] - edges[0]) // DAY
        profile = np.bincount(slot, counts, 168) / np.maximum(np.bincount(slot, length, 168), 1e-9)
        expected = profile[slot] * length
        by_day = np.bincount(day, counts) / np.maximum(np.bincount(day, expected), 1e-9)
        return np.asarray(expected * by_day[day] / length + least)
    width = int(name)
    kernel = np.maximum(0.0, 1 - np.abs(np.arange(-width, width + 1)) / (width + 1))
    over = np.convolve(counts, kernel)[width : width + counts.size]
    under = np.convolve(length, kernel)[width : width + counts.size]
    return np.asarray(over / under + least)


@dataclass(frozen=True, slots=True)
class Span:
    """A class of times to resolve: ``zero``, ``minutes`` on the day of opening, or ``days``; both ends belong to it.

    Days are working days, so that a span does not end on a weekend because of the weekday on which it began; how often
    what falls on a Friday is resolved on the weekend after it is learnt apart.
    """

    kind: Literal["zero", "minutes", "days"]
    low: int
    high: int


def learn_spans(opened: Micros, resolved: Micros, leaf: int) -> tuple[tuple[Span, ...], Codes]:
    """Classes of times to resolve with at least about ``leaf`` incidents each, and the class of every incident."""
    minutes = np.maximum(0, resolved - opened) // MINUTE
    later = resolved // DAY > opened // DAY
    days = working_day(resolved) - working_day(opened)
    spans: list[Span] = []
    zero = ~later & (resolved - opened < MINUTE)
    if zero.any():
        spans.append(Span("zero", 0, 0))
    same = ~later & ~zero
    spans += [Span("minutes", low, high) for low, high in _classes(minutes[same], 2 * leaf, 10)]
    single = [day for day in range(11) if np.count_nonzero(later & (days == day)) >= leaf]
    spans += [Span("days", day, day) for day in single]
    spans += [Span("days", low, high) for low, high in _classes(days[later & ~np.isin(days, single)], 2 * leaf, 14)]
    code = np.zeros(opened.size, dtype=np.int64)
    for number, span in enumerate(spans):
        if span.kind == "zero":
            member = zero
        elif span.kind == "minutes":
            member = same & (minutes >= span.low) & (minutes <= span.high)
        else:
            member = later & (days >= span.low) & (days <= span.high)
            if span.low != span.high:
                member &= ~np.isin(days, single)
        code[member] = number
    return tuple(spans), code


def resolved_at(
    spans: tuple[Span, ...], code: Codes, opened: Micros, weekend: Codes, later_hour: Codes, draws: Floats, step: int
) -> Micros:
    """Instants of resolution; ``draws`` has a row an incident and two columns.

    ``weekend`` is 0 for a Friday, 1 or 2 for the Saturday or Sunday after it, and counts only where a Friday came out.
    """
    low = np.array([span.low for span in spans], dtype=np.float64)[code]
    high = np.array([span.high for span in spans], dtype=np.float64)[code]
    kind = np.array([("zero", "minutes", "days").index(span.kind) for span in spans])[code]
    value = np.exp(np.log(np.maximum(low, 0.5)) + draws[:, 0] * np.log((high + 1) / np.maximum(low, 0.5)))
    value = np.clip(np.floor(value), low, high)
    left = (DAY - opened % DAY) // MINUTE - 1
    over = (kind == 1) & (value > left)
    least = np.minimum(low, left)
    value[over] = np.floor(least + draws[:, 1] * (left - least))[over]
    target = working_day(opened) + value.astype(np.int64)
    day = target // 5 * 7 + target % 5
    day = day + np.where(target % 5 == 4, weekend, 0) - 3
    day = np.where(day <= opened // DAY, opened // DAY + 1, day)
    within = (draws[:, 1] * HOUR).astype(np.int64)
    later = day * DAY + later_hour * HOUR + within
    same = opened + value.astype(np.int64) * MINUTE + (within % MINUTE if step < MINUTE else 0)
    out = np.where(kind == 2, later, np.where(kind == 1, same, opened))
    return np.maximum(np.asarray(out // step * step), opened)


def _classes(values: NDArray[Any], leaf: int, most: int) -> list[tuple[int, int]]:
    if not values.size:
        return []
    number = int(np.clip(values.size // leaf, 1, most))
    cuts = np.unique(np.quantile(values, np.linspace(0, 1, number + 1)).astype(np.int64))
    if cuts.size == 1:
        return [(int(cuts[0]), int(cuts[0]))]
    lows = [int(cuts[0]), *(int(cut) + 1 for cut in cuts[1:-1])]
    return [(low, max(low, int(high))) for low, high in zip(lows, cuts[1:], strict=True)]


@dataclass(frozen=True, slots=True)
class Closing:
    """A way to be closed.

    ``now``: with the resolution. ``due``: ``low`` minutes later, when the job runs next. ``batch``: at the instant
    ``low`` with others. ``late``: ``low`` to ``high`` minutes later. ``never``: not at all.
    """

    kind: Literal["now", "due", "batch", "late", "never"]
    low: int = 0
    high: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """How a closing job keeps time.

    ``after`` minutes after the resolution an incident is due. ``exact``: closed at that very time. Otherwise at the
    next minute of the hour that ``minutes`` lists (its drawn entry); ``strict``: the minute itself is too early.
    No ``minutes``: anywhere in the hour after.
    """

    after: int
    exact: bool
    strict: bool
    minutes: tuple[int, ...]


def learn_closings(
    resolved: Micros, closed: Micros, known: NDArray[np.bool_], leaf: int
) -> tuple[tuple[Closing, ...], Job | None, Codes]:
    """Ways to be closed, the job behind the usual one, and the way of every incident (``known``: has both times)."""
    gap = np.where(known, closed - resolved, 0)
    ways: list[Closing] = []
    code = np.full(resolved.size, -1, dtype=np.int64)
    if not known.all():
        code[~known] = len(ways)
        ways.append(Closing("never"))
    now = known & (gap < MINUTE)
    if now.any():
        code[now] = len(ways)
        ways.append(Closing("now"))
    job, due = _job(resolved, closed, known & ~now)
    if job is not None:
        code[due] = len(ways)
        ways.append(Closing("due", job.after))
    instants, counts = np.unique(closed[code == -1], return_counts=True)
    for instant in instants[counts >= max(3, leaf // 2)]:
        code[(code == -1) & (closed == instant)] = len(ways)
        ways.append(Closing("batch", int(instant)))
    rest = code == -1
    minutes = gap // MINUTE
    for low, high in _classes(minutes[rest], 2 * leaf, 10):
        code[rest & (minutes >= low) & (minutes <= high)] = len(ways)
        ways.append(Closing("late", low, high))
    return tuple(ways), job, code


def _job(resolved: Micros, closed: Micros, rows: NDArray[np.bool_]) -> tuple[Job | None, NDArray[np.bool_]]:
    none = np.zeros(resolved.size, dtype=np.bool_)
    if rows.sum() < 10:
        return None, none
    gap = closed - resolved
    hours = gap[rows] // HOUR
    hours = hours[(hours >= 1) & (hours <= 60 * 24)]
    if not hours.size:
        return None, none
    counts = np.bincount(hours)
    usual = int(counts.argmax())
    around = np.concatenate([counts[max(0, usual - 6) : max(0, usual - 1)], counts[usual + 2 : usual + 7], [0]])
    if counts[usual] < max(10, 0.1 * rows.sum(), 5 * around.mean()):
        return None, none
    after = usual * 60
    slack = (gap - usual * HOUR) // MINUTE
    due = rows & (slack >= 0) & (slack <= 60)
    exact = float(np.mean(slack[due] == 0)) > 0.8
    at = closed[due] % HOUR // MINUTE
    minutes, often = np.unique(at, return_counts=True)
    order = np.argsort(-often, kind="stable")
    phased = not exact and often[order[:6]].sum() >= 0.6 * at.size
    usual_minutes = tuple(sorted(int(minute) for minute in minutes[often >= 2])) if phased else ()
    strict = bool(np.sum(slack[due] == 60) > np.sum(slack[due] == 0))
    return Job(after, exact, strict, usual_minutes), due


def closed_at(
    ways: tuple[Closing, ...], job: Job | None, code: Codes, phase: Codes, resolved: Micros, draws: Floats, step: int
) -> tuple[Micros, NDArray[np.bool_]]:
    """Instants of closing and which incidents are closed at all; ``phase`` is an index of ``job.minutes``."""
    kinds = np.array([("now", "due", "batch", "late", "never").index(way.kind) for way in ways])[code]
    low = np.array([way.low for way in ways], dtype=np.int64)[code]
    high = np.array([way.high for way in ways], dtype=np.int64)[code]
    out = resolved.copy()
    batch = (kinds == 2) & (low >= resolved)
    out[batch] = low[batch]
    late = kinds == 3
    span = np.exp(np.log(np.maximum(low, 1.0)) + draws * np.log((high + 1.0) / np.maximum(low, 1.0)))
    out[late] = resolved[late] + (span[late] * MINUTE).astype(np.int64)
    if job is not None:
        due = (kinds == 1) | ((kinds == 2) & ~batch)
        when = resolved + job.after * MINUTE
        if not job.exact and job.minutes:
            minute = np.array(job.minutes, dtype=np.int64)[np.minimum(phase, len(job.minutes) - 1)] * MINUTE
            for which, base in ((due, when), (late, out)):
                run = base // HOUR * HOUR + minute
                run = np.where((run < base) | (job.strict & (run == base)), run + HOUR, run)
                out[which] = run[which]
        elif not job.exact:
            out[due] = (when + (draws * HOUR).astype(np.int64))[due]
        else:
            out[due] = when[due]
    out = np.where(kinds == 0, out, np.maximum(out // step * step, resolved))
    return np.asarray(out), np.asarray(kinds != 4)
