"""A scenario as deliveries in order of time: what its senders would send, window after window, in bounded memory.

What belongs here: the walk through time and the joining of what all senders say. What does not: values (``course``),
ways of writing (``lines``, ``writing``, ``happenings``) and where deliveries go (``delivery``).

Time is cut into buckets of ``flush`` (in the history into long ones); a sender sends at the end of a bucket what its
samples in it are. A window of whole buckets is made at once. Same scenario, seed and start give the same bytes, and so
does any part of it made alone; only what counters have counted before such a part has to be summed up first.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import xxhash

from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.synthetic.storms.course import Course
from aiops_assets.synthetic.storms.faults import Plan
from aiops_assets.synthetic.storms.fleet import Fleet, Stream
from aiops_assets.synthetic.storms.happenings import Happening, exceptions, happenings, inventory_between
from aiops_assets.synthetic.storms.lines import Rows, Totals, buffer_of, collected, telegraf
from aiops_assets.synthetic.storms.noise import Ints
from aiops_assets.synthetic.storms.scenario import Scenario
from aiops_assets.synthetic.storms.writing import ordered, syslog

#: values made at once, and bytes of one delivery
WINDOW_VALUES = 600_000
BODY_BYTES = 900_000
#: formats that hold points of metrics
METRICS = ("telegraf", "collected")
_HISTORY_FLUSH = 600 * MICROS_PER_SECOND
_MAX_BUCKETS = 2_000


@dataclass(frozen=True, slots=True)
class Emission:
    """One delivery. ``at`` is when it is sent (microseconds since the epoch, UTC), never before what it tells of.

    ``headers`` is what its parser needs beside the body, ``points`` the number of points (or events) in it, ``history``
    whether it lies before the start, ``key`` its identity: the same for the same content.
    """

    at: int
    source: str
    format: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    points: int = 1
    history: bool = False

    @property
    def key(self) -> str:
        """What tells this delivery from others."""
        digest = xxhash.xxh3_128(f"{self.source}|{self.format}|{self.at}|".encode())
        digest.update(self.body)
        return f"storm-{digest.hexdigest()}"


@dataclass(frozen=True, slots=True)
class _Window:
    """Buckets of one length that are made together."""

    edges: Ints
    numbers: Ints
    history: bool


def emissions(
    scenario: Scenario,
    *,
    start_at: int,
    seed: int | None = None,
    history: bool = True,
    begin: int | None = None,
    end: int | None = None,
) -> Iterator[Emission]:
    """All deliveries of a scenario in order of ``at``.

    Args:
        start_at: when the storm begins, microseconds since the epoch (UTC); its history lies before.
        seed: in place of the scenario's own.
        history: whether the history comes too.
        begin, end: only deliveries whose bucket lies in [begin, end), microseconds; rounded to whole buckets.
    """
    chosen = scenario.seed if seed is None else seed
    yield from Storm(scenario, start_at, chosen).emissions(history=history, begin=begin, end=end)


class Storm:
    """A scenario at a certain time with a certain seed."""

    def __init__(self, scenario: Scenario, start_at: int, seed: int | None = None) -> None:
        self.scenario, self.start_at = scenario, start_at
        self.seed = scenario.seed if seed is None else seed
        self.fleet = Fleet(scenario)
        self.plan = Plan(scenario, self.fleet, start_at, self.seed)
        self._flush = round(scenario.flush * MICROS_PER_SECOND)
        self._singles = happenings(self.plan)
        self._instants = [one.at for one in self._singles]
        self._quiet_past = scenario.history is not None and not scenario.history.logs

    def emissions(
        self, *, history: bool = True, begin: int | None = None, end: int | None = None
    ) -> Iterator[Emission]:
        """See ``emissions``."""
        totals = {stream.name: Totals(self.seed, stream) for stream in self.fleet.streams}
        first = self.plan.begin if history else self.start_at
        begin = first if begin is None else max(begin, first)
        end = self.plan.end if end is None else min(end, self.plan.end)
        for number, window in enumerate(self._windows(begin, end)):
            if number == 0:
                self._skip(totals, int(window.edges[0]))
            yield from self._window(window, totals)

    def points(self, *, history: bool = True) -> int:
        """About how many points of metrics there are, for progress."""
        storm = self.plan.end - self.start_at
        past = self.start_at - self.plan.begin if history else 0
        return sum(
            stream.series * (storm // stream.interval + past // stream.history_interval)
            for stream in self.fleet.streams
        )

    def _windows(self, begin: int, end: int) -> Iterator[_Window]:
        past = max(self._flush, _HISTORY_FLUSH)
        for base, length, last, history in (
            # The buckets of the history are counted back from the start, so that none of them straddles it.
            (self.start_at, past, min(end, self.start_at), True),
            (self.start_at, self._flush, end, False),
        ):
            since = begin if history else max(begin, self.start_at)
            if since >= last:
                continue
            low, high = (since - base) // length, -(-(last - base) // length)
            rate = sum(
                len(stream.hosts) * len(stream.signals) / (stream.history_interval if history else stream.interval)
                for stream in self.fleet.streams
            )
            size = int(max(1, min(_MAX_BUCKETS, WINDOW_VALUES / max(rate * length, 1e-9))))
            # Windows begin at multiples of their size, so that a part made alone is cut as the whole is.
            for number in range(low // size * size, high, size):
                numbers = np.arange(max(low, number), min(high, number + size), dtype=np.int64)
                edges = base + np.append(numbers, numbers[-1] + 1) * length
                limit = self.plan.begin if history else self.start_at
                edges = np.clip(edges, limit, self.start_at if history else self.plan.end)
                yield _Window(edges, numbers, history)

    def _course(self, stream: Stream, history: bool) -> Course:
        return Course(self.plan, stream, stream.history_interval if history else stream.interval)

    def _skip(self, totals: dict[str, Totals], begin: int) -> None:
        """Sum up what counters count before ``begin``."""
        for stream in self.fleet.streams:
            if stream.sender != "telegraf":
                continue
            for history, since, until in (
                (True, self.plan.begin, min(begin, self.start_at)),
                (False, self.start_at, begin),
            ):
                course = self._course(stream, history)
                steps = course.steps(since, until)
                if until > since and len(steps):
                    totals[stream.name].skip(course, steps)

    def _window(self, window: _Window, totals: dict[str, Totals]) -> Iterator[Emission]:
        edges = window.edges
        rows: dict[str, list[Rows]] = {"telegraf": [], "collected": []}
        lines: list[pl.DataFrame] = []
        single: list[Happening] = []
        for stream in self.fleet.streams:
            course = self._course(stream, window.history)
            steps = course.steps(int(edges[0]), int(edges[-1]))
            if stream.sender == "telegraf":
                rows["telegraf"] += telegraf(course, totals[stream.name], steps, edges)
            else:
                rows["collected"] += collected(course, steps, edges)
            if stream.main and not (window.history and self._quiet_past):
                lines.append(syslog(course, self.plan, edges, window.numbers))
                single += exceptions(course, self.plan, edges, window.numbers)
        begin, end = int(edges[0]), int(edges[-1])
        single += self._singles[bisect_left(self._instants, begin) : bisect_left(self._instants, end)]
        single += inventory_between(self.plan, begin, end)
        single.sort(key=lambda one: (one.at, one.format, one.body))
        written = _lines(lines, len(edges) - 1)
        at = 0
        for bucket in range(len(edges) - 1):
            sent = int(edges[bucket + 1])
            while at < len(single) and single[at].at < sent:
                one = single[at]
                yield self._emission(one.at, one.format, one.body, 1, window.history, one.headers)
                at += 1
            for name, wrap in (("collected", _array), ("telegraf", _joined), ("syslog", _joined)):
                parts = [*(rows.get(name) or ()), *([written] if name == "syslog" and written else ())]
                for body, points in _bodies(parts, bucket):
                    yield self._emission(sent, name, wrap(body), points, window.history, {})

    def _emission(
        self, at: int, format_name: str, body: bytes, points: int, history: bool, headers: Mapping[str, str]
    ) -> Emission:
        return Emission(at, self.scenario.source_name, format_name, body, headers, points, history)


def _joined(parts: list[bytes]) -> bytes:
    return b"".join(parts)


def _array(parts: list[bytes]) -> bytes:
    """Documents, each followed by a comma, as a JSON array."""
    return b"[" + b"".join(parts)[:-1] + b"]"


def _lines(frames: list[pl.DataFrame], buckets: int) -> Rows | None:
    frames = [frame for frame in frames if frame.height]
    if not frames:
        return None
    frame = ordered(frames)
    data, offsets = buffer_of(frame["line"])
    bounds = np.searchsorted(frame["bucket"].to_numpy(), np.arange(buckets + 1))
    return Rows(data, offsets, bounds.astype(np.int64), np.ones(frame.height, dtype=np.int64))


def _bodies(rows: list[Rows], bucket: int) -> Iterator[tuple[list[bytes], int]]:
    """Parts of all rows of a bucket, together of at most about ``BODY_BYTES``."""
    held: list[bytes] = []
    size = points = 0
    for one in rows:
        for part, count in one.parts(bucket, BODY_BYTES):
            if held and size + len(part) > BODY_BYTES:
                yield held, points
                held, size, points = [], 0, 0
            held.append(part)
            size, points = size + len(part), points + count
    if held:
        yield held, points
