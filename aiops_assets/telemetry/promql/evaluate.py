"""The walk over a plan: from selectors and functions to an answer.

What belongs here: evaluation at one instant or a grid of them, time shifts, subqueries, limits. What does not: the
single functions, aggregations and operators, which have modules of their own. Every node is evaluated once for all
instants of the query; instants and durations are microseconds since the epoch (UTC).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND
from aiops_assets.telemetry.promql import alerts, functions
from aiops_assets.telemetry.promql.aggregations import aggregate
from aiops_assets.telemetry.promql.errors import QueryError, bad_data, execution
from aiops_assets.telemetry.promql.functions import Cells, Windows, windows
from aiops_assets.telemetry.promql.histograms import histogram_quantile
from aiops_assets.telemetry.promql.index import SeriesIndex
from aiops_assets.telemetry.promql.labelling import label_join, label_replace
from aiops_assets.telemetry.promql.names import NAME
from aiops_assets.telemetry.promql.operators import of_scalars, of_sets, of_vectors, with_scalar
from aiops_assets.telemetry.promql.plan import (
    SET_OPERATORS,
    Aggregation,
    At,
    Binary,
    Call,
    Kind,
    Matcher,
    Negation,
    Node,
    Number,
    Selector,
    Subquery,
    Text,
    Window,
)
from aiops_assets.telemetry.promql.points import Ints, Lakeside, Points, Snapshot, grouped
from aiops_assets.telemetry.promql.vectors import Floats, Labels, Vector, identity, merged, without_name

LOOKBACK = 300 * MICROS_PER_SECOND
DEFAULT_SUBQUERY_STEP = 60 * MICROS_PER_SECOND
#: Prometheus' own limit of points a series
MAX_INSTANTS = 11_000
#: points held in memory at once; longer ranges are worked on in portions
POINTS_AT_ONCE = 2_000_000
Value = Floats | Vector | str
OnWindows = Callable[[Windows, slice], Cells]


@dataclass(frozen=True, slots=True)
class Limits:
    """``samples``: points that one query may read; ``cells``: series times instants of any step; ``seconds``."""

    samples: int = 50_000_000
    cells: int = 5_000_000
    seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Range:
    """Points of one series of an answer: ``ts`` microseconds (int64), ``values`` float64."""

    labels: Labels
    ts: Ints
    values: Floats


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query gives. Of ``vector``, ``scalar``, ``text`` and ``ranges`` the one that ``kind`` says is set."""

    kind: Kind
    instants: Ints
    vector: Vector | None = None
    scalar: Floats | None = None
    text: str = ""
    ranges: list[Range] = field(default_factory=list)


@dataclass(eq=False)
class Stop:
    """When a query ends early: its time is up, or nobody waits for it any more."""

    seconds: float
    cancelled: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._until = time.monotonic() + self.seconds

    def check(self) -> None:
        """Raises:
        QueryError: ``timeout`` or ``canceled``.
        """
        if self.cancelled.is_set():
            raise QueryError("canceled", "query was canceled in expression evaluation")
        if time.monotonic() > self._until:
            raise QueryError("timeout", f"query timed out in expression evaluation after {self.seconds:g} s")


def instants_of(start: int, end: int, step: int) -> Ints:
    """The grid of a range query.

    Raises:
        QueryError: the step or the number of instants is not legal.
    """
    if end < start:
        raise bad_data('invalid parameter "end": end timestamp must not be before start time')
    if step <= 0:
        raise bad_data(
            'invalid parameter "step": zero or negative query resolution step widths are not accepted. '
            "Try a positive integer"
        )
    if (end - start) // step > MAX_INSTANTS:
        raise bad_data(
            f"exceeded maximum resolution of {MAX_INSTANTS:,} points per timeseries. "
            "Try decreasing the query resolution (?step=XX)"
        )
    return np.arange(start, end + 1, step, dtype=np.int64)


class Evaluator:
    """One query on one state of the lake.

    Args:
        open_left: windows leave out a point exactly at their start, and rates are extrapolated, as in Prometheus 3.
    """

    def __init__(
        self,
        lake: Lakeside,
        limits: Limits | None = None,
        *,
        stop: Stop | None = None,
        lookback: int = LOOKBACK,
        open_left: bool = False,
    ) -> None:
        self._lake, self._limits = lake, limits or Limits()
        self._stop = stop or Stop(self._limits.seconds)
        self._lookback, self._open = lookback, open_left
        self._start = self._end = 0
        self._read = 0

    def instant(self, node: Node, at: int) -> Answer:
        """The value of an expression at one instant.

        Raises:
            QueryError: it cannot be evaluated, or a limit is passed.
        """
        self._start = self._end = at
        instants = np.array([at], np.int64)
        if isinstance(node, Text):
            return Answer("string", instants, text=node.value)
        with np.errstate(all="ignore"):
            if isinstance(node, Window | Subquery):
                return Answer("matrix", instants, ranges=self._ranges(node, instants))
            value = self._value(node, instants)
        return self._answer(node, value, instants)

    def range(self, node: Node, start: int, end: int, step: int) -> Answer:
        """The values of an expression from ``start`` to at most ``end``, every ``step``.

        Raises:
            QueryError: it cannot be evaluated, or a limit is passed.
        """
        if node.kind not in {"scalar", "vector"}:
            name = {"matrix": "range vector"}.get(node.kind, node.kind)
            raise bad_data(
                f'invalid parameter "query": invalid expression type "{name}" for range query, '
                "must be Scalar or instant Vector"
            )
        instants = instants_of(start, end, step)
        self._start, self._end = start, end
        with np.errstate(all="ignore"):
            value = self._value(node, instants)
        return self._answer(node, value, instants)

    def newest(self, matchers: tuple[Matcher, ...], at: int) -> list[Range]:
        """The newest point of every series that satisfies the matchers, as an instant query at ``at`` would see it.

        Raises:
            QueryError: a limit is passed.
        """
        seen: dict[int, Ints] = {}

        def newest_of(found: Windows, _columns: slice) -> Cells:
            values, present, when = functions.instant_values(found)
            seen[len(seen)] = when[:, 0]
            return values, present

        instants = np.array([at], np.int64)
        labels, values, present = self._selected(
            Selector(matchers), self._lookback, instants, newest_of, keeps_stale=True
        )
        when = np.concatenate([np.empty(0, np.int64), *seen.values()])
        return [Range(labels[row], when[row : row + 1], values[row]) for row in np.flatnonzero(present[:, 0]).tolist()]

    @staticmethod
    def _answer(node: Node, value: Value, instants: Ints) -> Answer:
        if isinstance(value, Vector):
            ordered = isinstance(node, Call | Aggregation) and _orders(node) and len(instants) == 1
            return Answer("vector", instants, vector=value if ordered else _by_labels(value))
        if isinstance(value, str):
            raise bad_data("a string is no answer here")
        return Answer("scalar", instants, scalar=value)

    # --- nodes -------------------------------------------------------------------------------------------------------

    def _value(self, node: Node, instants: Ints) -> Value:
        self._stop.check()
        match node:
            case Number(number):
                return np.full(len(instants), number)
            case Text(text):
                return text
            case Selector():
                return self._instant_vector(node, instants)
            case Negation(inner):
                value = self._value(inner, instants)
                if isinstance(value, Vector):
                    return merged(without_name(value.labels), -value.values, value.present)
                return -_scalar(value)
            case Aggregation():
                return self._aggregation(node, instants)
            case Binary():
                return self._binary(node, instants)
            case Call():
                return self._call(node, instants)
        raise bad_data("a range vector needs a function such as rate() around it")

    def _vector(self, node: Node, instants: Ints) -> Vector:
        value = self._value(node, instants)
        if not isinstance(value, Vector):
            raise bad_data("expected an instant vector")
        return value

    def _number(self, node: Node, instants: Ints) -> Floats:
        return _scalar(self._value(node, instants))

    def _aggregation(self, node: Aggregation, instants: Ints) -> Vector:
        vector = self._vector(node.inner, instants)
        parameter, text = None, ""
        if isinstance(node.parameter, Text):
            text = node.parameter.value
        elif node.parameter is not None:
            parameter = self._number(node.parameter, instants)
        result = aggregate(node.op, vector, node.labels, node.without, parameter, text)
        if node.op in {"topk", "bottomk"} and len(instants) == 1:
            return _sorted(result, descending=node.op == "topk")
        return result

    def _binary(self, node: Binary, instants: Ints) -> Value:
        left, right = self._value(node.left, instants), self._value(node.right, instants)
        if isinstance(left, Vector) and isinstance(right, Vector):
            if node.op in SET_OPERATORS:
                result = of_sets(node.op, left, right, node.matching)
            else:
                result = of_vectors(node.op, left, right, node.matching, returns_bool=node.returns_bool)
            self._bounded(len(result), len(instants))
            return result
        if isinstance(left, Vector):
            return with_scalar(node.op, left, _scalar(right), scalar_is_left=False, returns_bool=node.returns_bool)
        if isinstance(right, Vector):
            return with_scalar(node.op, right, _scalar(left), scalar_is_left=True, returns_bool=node.returns_bool)
        return of_scalars(node.op, _scalar(left), _scalar(right))

    def _call(self, node: Call, instants: Ints) -> Value:
        name, arguments = node.name, node.arguments
        seconds = instants / MICROS_PER_SECOND
        if name in functions.OF_WINDOWS or name in {"quantile_over_time", "predict_linear"}:
            return self._over_time(node, instants)
        if name in functions.OF_VALUES:
            return self._per_value(node, instants)
        match name:
            case "time":
                return seconds
            case "pi":
                return np.full(len(instants), np.pi)
            case "vector":
                return _unlabelled(self._number(arguments[0], instants))
            case "scalar":
                vector = self._vector(arguments[0], instants)
                alone = vector.present.sum(axis=0) == 1
                return np.where(alone, np.where(vector.present, vector.values, 0.0).sum(axis=0), np.nan)
            case "timestamp":
                return self._timestamp(arguments[0], instants)
            case "absent":
                return _absent(arguments[0], np.logical_or.reduce(self._vector(arguments[0], instants).present, axis=0))
            case "absent_over_time":
                _, _, present = self._windowed(arguments[0], instants, _presence)
                return _absent(arguments[0], np.logical_or.reduce(present, axis=0))
            case "sort" | "sort_desc":
                vector = self._vector(arguments[0], instants)
                return _sorted(vector, descending=name == "sort_desc") if len(instants) == 1 else vector
            case "label_replace":
                target, replacement, source, pattern = (_text(argument) for argument in arguments[1:])
                return label_replace(self._vector(arguments[0], instants), target, replacement, source, pattern)
            case "label_join":
                target, separator, *sources = (_text(argument) for argument in arguments[1:])
                return label_join(self._vector(arguments[0], instants), target, separator, sources)
            case "histogram_quantile":
                q = self._number(arguments[0], instants)
                return histogram_quantile(q, self._vector(arguments[1], instants))
        raise bad_data(f"function {name!r} is not supported here")

    def _per_value(self, node: Call, instants: Ints) -> Vector:
        function = functions.OF_VALUES[node.name]
        if not node.arguments:
            return _unlabelled(function(instants / MICROS_PER_SECOND))
        vector = self._vector(node.arguments[0], instants)
        numbers = [self._number(argument, instants) for argument in node.arguments[1:]]
        present = vector.present
        if node.name == "clamp":
            present = present & ~(numbers[1] < numbers[0])
        return merged(without_name(vector.labels), function(vector.values, *numbers), present)

    def _timestamp(self, argument: Node, instants: Ints) -> Vector:
        if not isinstance(argument, Selector):
            vector = self._vector(argument, instants)
            seconds = np.broadcast_to(instants / MICROS_PER_SECOND, vector.values.shape)
            return merged(without_name(vector.labels), seconds, vector.present)

        def times(found: Windows, _columns: slice) -> Cells:
            _, present, at = functions.instant_values(found)
            return at / MICROS_PER_SECOND, present

        labels, values, present = self._selected(argument, self._lookback, instants, times, keeps_stale=True)
        return merged(without_name(labels), values, present)

    def _over_time(self, node: Call, instants: Ints) -> Vector:
        over, apply = self._window_function(node, instants)
        labels, values, present = self._windowed(over, instants, apply)
        if node.name == "last_over_time":
            return merged(labels, values, present)
        some = np.logical_or.reduce(present, axis=1)
        named = [entry for entry, keep in zip(without_name(labels), some, strict=True) if keep]
        return merged(named, values[some], present[some], strict=True)

    def _window_function(self, node: Call, instants: Ints) -> tuple[Node, OnWindows]:
        """The range that a function looks at, and the function with its other arguments filled in."""
        if node.name == "quantile_over_time":
            q = self._number(node.arguments[0], instants)
            return node.arguments[1], lambda found, columns: functions.quantile_over_time(found, q[columns])
        if node.name == "predict_linear":
            ahead = self._number(node.arguments[1], instants)
            return node.arguments[0], lambda found, columns: functions.predict_linear(found, ahead[columns])
        function = functions.OF_WINDOWS[node.name]
        return node.arguments[0], lambda found, _columns: function(found)

    # --- points ------------------------------------------------------------------------------------------------------

    def _instant_vector(self, node: Selector, instants: Ints) -> Vector:
        def newest(found: Windows, _columns: slice) -> Cells:
            values, present, _ = functions.instant_values(found)
            return values, present

        return Vector.of(*self._selected(node, self._lookback, instants, newest, keeps_stale=True))

    def _windowed(self, node: Node, instants: Ints, apply: OnWindows) -> tuple[list[Labels], Floats, NDArray[np.bool_]]:
        if isinstance(node, Window):
            return self._selected(node.selector, node.width, instants, apply, keeps_stale=False)
        if not isinstance(node, Subquery):
            raise bad_data("expected a range vector")
        times = self._shifted(node.offset, node.at, instants)
        labels, points = self._subquery(node, int(times[0]) - node.width, int(times[-1]))
        found = windows(points, times, node.width, instants, open_left=self._open, modern=self._open)
        return labels, *apply(found, slice(0, len(instants)))

    def _subquery(self, node: Subquery, first: int, last: int) -> tuple[list[Labels], Points]:
        step = node.step or DEFAULT_SUBQUERY_STEP
        begin = -(-first // step) * step
        if self._open and begin == first:
            begin += step
        if (last - begin) // step > self._limits.cells:
            raise execution(f"a subquery may have at most {self._limits.cells} steps; use a longer one")
        inner_instants = np.arange(begin, last + 1, step, dtype=np.int64)
        if not len(inner_instants):
            return [], grouped(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), 0)
        vector = self._vector(node.inner, inner_instants)
        rows, columns = np.nonzero(vector.present)
        points = grouped(rows.astype(np.int64), inner_instants[columns], vector.values[rows, columns], len(vector))
        return vector.labels, points

    def _ranges(self, node: Window | Subquery, instants: Ints) -> list[Range]:
        """The points themselves, for a query that is nothing but a range."""
        if isinstance(node, Subquery):
            end = int(self._shifted(node.offset, node.at, instants)[-1])
            first = end - node.width
            labels, points = self._subquery(node, first, end)
        else:
            end = int(self._shifted(node.selector.offset, node.selector.at, instants)[-1])
            first = end - node.width + (1 if self._open else 0)
            labels, points = self._points_of(node.selector, first, end)
            points = functions.without_stale(points)
        found = [
            Range(entry, points.ts[start:stop], points.values[start:stop])
            for entry, start, stop in zip(labels, points.starts[:-1], points.starts[1:], strict=True)
            if stop > start
        ]
        return sorted(found, key=lambda entry: identity(entry.labels))

    def _points_of(self, node: Selector, first: int, last: int) -> tuple[list[Labels], Points]:
        positions = self._index.select(node.matchers)
        hours = self._snapshot.hours(first, last)
        self._expect(self._snapshot.rows(hours) * len(positions) / max(len(self._index), 1))
        points = self._snapshot.read(self._index.ids[positions], first, last, self._stop.check)
        self._count(len(points))
        labels = [self._index.labels(position) for position in positions]
        names = alerts.concerned(node.matchers)
        if not names:
            return labels, points
        alert_labels, alert_points = alerts.select(self._alerts, names, node.matchers, first, last)
        starts = np.concatenate([points.starts, alert_points.starts[1:] + len(points)])
        both = Points(
            starts,
            np.concatenate([points.ts, alert_points.ts]),
            np.concatenate([points.values, alert_points.values]),
        )
        return [*labels, *alert_labels], both

    def _selected(
        self, node: Selector, width: int, instants: Ints, apply: OnWindows, *, keeps_stale: bool
    ) -> tuple[list[Labels], Floats, NDArray[np.bool_]]:
        """Something done with the windows of a selector's series at every instant; rows may be absent everywhere."""
        times = self._shifted(node.offset, node.at, instants)
        first, last = int(times[0]) - width, int(times[-1])
        positions = self._index.select(node.matchers)
        positions = positions[self._index.first_seen[positions] <= last]
        labels = [self._index.labels(position) for position in positions]
        names = alerts.concerned(node.matchers)
        extra, points = alerts.select(self._alerts, names, node.matchers, first, last) if names else ([], None)
        self._bounded(len(labels) + len(extra), len(instants))
        values = np.full((len(labels) + len(extra), len(instants)), np.nan)
        present = np.zeros(values.shape, np.bool_)

        def fill(rows: slice, columns: slice, points: Points) -> None:
            points = points if keeps_stale else functions.without_stale(points)
            found = windows(points, times[columns], width, instants[columns], open_left=self._open, modern=self._open)
            values[rows, columns], present[rows, columns] = apply(found, columns)

        for rows, columns in self._portions(len(positions), times, width):
            self._stop.check()
            ids = self._index.ids[positions[rows]]
            found = self._snapshot.read(ids, int(times[columns][0]) - width, int(times[columns][-1]), self._stop.check)
            self._count(len(found))
            fill(rows, columns, found)
        if extra and points is not None:
            fill(slice(len(labels), None), slice(0, len(instants)), points)
        return [*labels, *extra], values, present

    def _portions(self, series: int, times: Ints, width: int) -> list[tuple[slice, slice]]:
        """Rows and columns that can be worked on at once without holding too many points."""
        if not series:
            return []
        hours = self._snapshot.hours(int(times[0]) - width, int(times[-1]))
        total = self._snapshot.rows(hours) * series / max(len(self._index), 1)
        self._expect(total)
        if total <= POINTS_AT_ONCE:
            return [(slice(0, series), slice(0, len(times)))]
        each = max(total / series / max(len(hours), 1), 1.0)
        window_hours = width / MICROS_PER_HOUR + 1
        rows_at_once = max(1, min(series, int(POINTS_AT_ONCE / (each * window_hours * 2))))
        hours_at_once = max(1.0, POINTS_AT_ONCE / (each * rows_at_once) - window_hours)
        block = ((times - times[0]) / (hours_at_once * MICROS_PER_HOUR)).astype(np.int64)
        starts = np.flatnonzero(np.concatenate([[True], block[1:] != block[:-1]])).tolist()
        columns = [slice(start, stop) for start, stop in zip(starts, [*starts[1:], len(times)], strict=True)]
        rows = [slice(start, min(start + rows_at_once, series)) for start in range(0, series, rows_at_once)]
        return [(row, column) for row in rows for column in columns]

    def _shifted(self, offset: int, at: At, instants: Ints) -> Ints:
        """The instants that a selector looks at."""
        if at is None:
            return instants - offset
        fixed = {"start": self._start, "end": self._end}.get(at, at) if isinstance(at, str) else at
        return np.full(len(instants), int(fixed) - offset, np.int64)

    @cached_property
    def _index(self) -> SeriesIndex:
        return self._lake.index()

    @cached_property
    def _snapshot(self) -> Snapshot:
        return self._lake.snapshot()

    @cached_property
    def _alerts(self) -> pl.DataFrame:
        return self._lake.alerts()

    # --- limits ------------------------------------------------------------------------------------------------------

    def _bounded(self, series: int, instants: int) -> None:
        if series * instants > self._limits.cells:
            raise execution(
                f"the query makes {series:,} series of {instants:,} points; at most {self._limits.cells:,} values are "
                "held at once: narrow the selector or use a longer step"
            )

    def _expect(self, samples: float) -> None:
        if self._read + samples > 2 * self._limits.samples:
            raise self._too_many()

    def _count(self, samples: int) -> None:
        self._read += samples
        if self._read > self._limits.samples:
            raise self._too_many()

    def _too_many(self) -> QueryError:
        return execution(
            f"query processing would load too many samples into memory: more than {self._limits.samples:,}; narrow the "
            "selector or the time range, or raise AIOPS_PROMETHEUS_MAX_SAMPLES"
        )


def _unlabelled(values: Floats) -> Vector:
    return Vector([{}], values[None, :], np.ones((1, len(values)), np.bool_))


def _scalar(value: Value) -> Floats:
    if isinstance(value, Vector | str):
        raise bad_data("expected a scalar")
    return value


def _text(node: Node) -> str:
    if not isinstance(node, Text):
        raise bad_data("expected a string")
    return node.value


def _presence(found: Windows, _columns: slice) -> Cells:
    return np.ones(found.low.shape), found.counts > 0


def _orders(node: Node) -> bool:
    return (isinstance(node, Call) and node.name in {"sort", "sort_desc"}) or (
        isinstance(node, Aggregation) and node.op in {"topk", "bottomk"}
    )


def _by_labels(vector: Vector) -> Vector:
    order = sorted(range(len(vector)), key=lambda row: identity(vector.labels[row]))
    return Vector([vector.labels[row] for row in order], vector.values[order], vector.present[order])


def _sorted(vector: Vector, *, descending: bool) -> Vector:
    """Rows of a vector of one instant by value; NaN comes last."""
    column = vector.values[:, 0] if len(vector) else np.empty(0)
    order = np.lexsort((-column if descending else column, np.isnan(column)))
    return Vector([vector.labels[row] for row in order], vector.values[order], vector.present[order])


def _absent(argument: Node, anything: NDArray[np.bool_]) -> Vector:
    """1 where nothing is present, with the labels that the selector's equality matchers say."""
    selector = argument.selector if isinstance(argument, Window) else argument
    matchers: tuple[Matcher, ...] = selector.matchers if isinstance(selector, Selector) else ()
    labels: Labels = {}
    seen: set[str] = set()
    for matcher in matchers:
        if matcher.name == NAME:
            continue
        if matcher.op == "=" and matcher.name not in seen:
            seen.add(matcher.name)
            labels[matcher.name] = matcher.value
        else:
            labels.pop(matcher.name, None)
    labels = {name: value for name, value in labels.items() if value}
    return Vector.of([labels], np.ones((1, len(anything))), ~anything[None, :])
