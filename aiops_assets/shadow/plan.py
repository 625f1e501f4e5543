"""Which range queries bring a history: few enough to be polite, small enough for both sides.

What belongs here: selectors, the packing of series into queries, the cutting of time. What does not: asking
(``client``). Time is cut in windows that begin at multiples of their length, each instant asked for lies on the grid of
the step, and every query of a window comes before those of the next, so that a history arrives in order.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import promql_parser as promql

#: what Prometheus gives at most of one series in one answer
POINTS_PER_SERIES = 11_000
#: samples of one answer, about 7 MB of JSON
SAMPLES_PER_ANSWER = 250_000
#: samples of one window over all series, while windows are longer than an hour
SAMPLES_PER_WINDOW = 4_000_000
HOUR = 3600
_WINDOWS = (24 * HOUR, 12 * HOUR, 6 * HOUR, 3 * HOUR, 2 * HOUR, HOUR)
_REGEX_CHARS = 16_000
#: what Prometheus writes about its own alerts is no measurement
OWN_SERIES = frozenset({"ALERTS", "ALERTS_FOR_STATE"})
EVERYTHING = '{__name__!=""}'
_OPERATORS = {"Equal": "=", "NotEqual": "!=", "Re": "=~", "NotRe": "!~"}

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Query:
    """A selector and how many series it had in the whole time."""

    selector: str
    series: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """One query over one window: seconds, ``end`` not included."""

    key: str
    window: int
    query: str
    series: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Leg:
    """A stretch of time and the queries that bring it; ``start`` and ``end`` (not included) in seconds."""

    number: int
    start: int
    end: int
    step: int
    window: int
    queries: tuple[Query, ...]

    def windows(self) -> list[tuple[int, int]]:
        """Start and end (not included) of each window."""
        first = self.start - self.start % self.window
        return [(max(at, self.start), min(at + self.window, self.end)) for at in range(first, self.end, self.window)]

    def chunks(self) -> Iterator[Chunk]:
        for number, (start, end) in enumerate(self.windows()):
            for place, query in enumerate(self.queries):
                yield Chunk(f"{self.number}.{number}.{place}", number, query.selector, query.series, start, end)

    def samples(self, chunk: Chunk) -> int:
        """The most samples that a chunk can have."""
        return chunk.series * (chunk.end - chunk.start) // self.step


def checked_selector(text: str) -> str:
    """A selector as it is.

    Raises:
        ValueError: it is no plain vector selector.
    """
    try:
        parsed = promql.parse(text)
    except ValueError as error:
        raise ValueError(f"--match {text!r}: {error}") from error
    if not isinstance(parsed, promql.VectorSelector) or parsed.offset is not None or parsed.at is not None:
        raise ValueError(f'--match {text!r}: expected a selector such as node_load1 or {{job="node"}}')
    if parsed.matchers.or_matchers:
        raise ValueError(f"--match {text!r}: 'or' between matchers is not understood")
    return text


def plan_leg(number: int, start: int, end: int, step: int, found: Sequence[tuple[str, Sequence[Labels]]]) -> Leg:
    """Plan a stretch of time.

    Args:
        start, end: seconds, multiples of ``step``.
        found: selectors with the series (labels with ``__name__``) that each has in that time; a series that an earlier
            selector has too is left to that one.
    """
    seen: set[frozenset[tuple[str, str]]] = set()
    left: list[tuple[str, list[Labels]]] = []
    for selector, series in found:
        own: list[Labels] = []
        for labels in series:
            identity = frozenset(labels.items())
            if identity not in seen and labels.get("__name__") not in OWN_SERIES:
                seen.add(identity)
                own.append(labels)
        left.append((selector, own))
    window = window_seconds(step, len(seen))
    most = max(SAMPLES_PER_ANSWER * step // window, 1)
    queries = tuple(query for selector, series in left for query in pack(selector, series, most))
    return Leg(number, start, end, step, window, queries)


def window_seconds(step: int, series: int) -> int:
    """The longest window that is a multiple of the step and keeps an answer, and a window, within bounds."""
    for window in _WINDOWS:
        points = window // step
        fits = points < POINTS_PER_SERIES and (points * series <= SAMPLES_PER_WINDOW or window == HOUR)
        if window % step == 0 and fits:
            return window
    raise ValueError(f"a step of {step} s: expected one that divides an hour, for example 15s, 60s or 5m")


def pack(selector: str, series: Sequence[Labels], most: int) -> list[Query]:
    """Queries of at most ``most`` series where labels allow that: several small metrics, or a part of a large one."""
    rest = _other_matchers(selector)
    by_name: dict[str, list[Labels]] = defaultdict(list)
    for labels in series:
        by_name[labels["__name__"]].append(labels)
    queries: list[Query] = []
    names: list[str] = []
    count = chars = 0
    for name in sorted(by_name):
        own = by_name[name]
        if len(own) > most:
            queries += _parts(name, own, most, rest)
            continue
        if names and (count + len(own) > most or chars + len(name) > _REGEX_CHARS):
            queries.append(Query(_selector([_one_of("__name__", names), *rest]), count))
            names, count, chars = [], 0, 0
        names.append(name)
        count, chars = count + len(own), chars + len(name) + 1
    if names:
        queries.append(Query(_selector([_one_of("__name__", names), *rest]), count))
    return queries


def _parts(name: str, series: Sequence[Labels], most: int, rest: Sequence[str]) -> list[Query]:
    """A large metric cut along the label that has most values."""
    matcher = _one_of("__name__", [name])
    values: dict[str, set[str]] = defaultdict(set)
    for labels in series:
        for label, value in labels.items():
            if label != "__name__":
                values[label].add(value)
    if not values:
        return [Query(_selector([matcher, *rest]), len(series))]
    label = max(sorted(values), key=lambda entry: (len(values[entry]), entry == "instance"))
    counts = Counter(labels.get(label, "") for labels in series)
    queries: list[Query] = []
    held: list[str] = []
    count = chars = 0
    for value in sorted(counts):
        if held and (count + counts[value] > most or chars + len(value) > _REGEX_CHARS):
            queries.append(Query(_selector([matcher, _one_of(label, held), *rest]), count))
            held, count, chars = [], 0, 0
        held.append(value)
        count, chars = count + counts[value], chars + len(value) + 1
    queries.append(Query(_selector([matcher, _one_of(label, held), *rest]), count))
    return queries


def _other_matchers(selector: str) -> list[str]:
    """Matchers of a selector apart from the metric's name, which its queries have anyway."""
    parsed = promql.parse(selector)
    return [
        f"{matcher.name}{_OPERATORS[str(matcher.op).rpartition('.')[2]]}{_quoted(matcher.value)}"
        for matcher in getattr(parsed, "matchers").matchers  # noqa: B009 - only vector selectors get here
        if matcher.name != "__name__"
    ]


def _one_of(label: str, values: Sequence[str]) -> str:
    if len(values) == 1:
        return f"{label}={_quoted(values[0])}"
    return f"{label}=~{_quoted('|'.join(re.escape(value) for value in values))}"


def _selector(matchers: Sequence[str]) -> str:
    return "{" + ",".join(matchers) + "}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def missing(covered: Sequence[tuple[int, int]], start: int, end: int) -> list[tuple[int, int]]:
    """The parts of [start, end) that no covered stretch holds, in order."""
    found: list[tuple[int, int]] = []
    at = start
    for first, last in sorted(covered):
        if first > at:
            found.append((at, min(first, end)))
        at = max(at, last)
        if at >= end:
            break
    if at < end:
        found.append((at, end))
    return [(first, last) for first, last in found if first < last]


def shadow_id(url: str, selectors: Sequence[str], step: int, source: str, host_label: str | None) -> str:
    """Twelve hex digits that name an import: the same question has the same journal."""
    text = json.dumps([url, list(selectors), step, source, host_label])
    return hashlib.sha256(text.encode()).hexdigest()[:12]
