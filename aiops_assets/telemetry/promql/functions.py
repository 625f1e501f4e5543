"""Functions of PromQL on arrays.

What belongs here: windows over points (rate, …_over_time) and functions of single values. What does not: label sets
and the walk over a plan (``evaluate``). Formulas are those of Prometheus' promql/functions.go, restated for arrays;
each takes the points of many series and the windows of many instants at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.telemetry.promql.points import Points

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Cells = tuple[Floats, Bools]
Number = TypeVar("Number", np.float64, np.int64)
#: Prometheus' marker that a series has ended: one particular NaN
STALE_BITS = np.uint64(0x7FF0000000000002)
#: points handled at once where windows are spelled out point by point
EXPANDED_AT_ONCE = 2_000_000
EXTRAPOLATION = 1.1


@dataclass(frozen=True, slots=True)
class Windows:
    """For each series (row) and instant (column): its points are ``low:high`` of ``points``.

    ``instants`` (microseconds) are where the windows end, ``width`` microseconds is how long they are; ``modern`` asks
    for the extrapolation of Prometheus 3, ``evaluated`` are the instants asked about, before any offset.
    """

    points: Points
    low: Ints
    high: Ints
    instants: Ints
    width: int
    evaluated: Ints
    modern: bool = False

    @property
    def counts(self) -> Ints:
        return self.high - self.low

    def value(self, indices: Ints) -> Floats:
        """Values of points; indices outside of the points are clipped."""
        return _taken(self.points.values, indices)

    def time(self, indices: Ints) -> Ints:
        """Times of points; indices outside of the points are clipped."""
        return _taken(self.points.ts, indices)


def _taken(values: NDArray[Number], indices: Ints) -> NDArray[Number]:
    if not len(values):
        return np.zeros(indices.shape, values.dtype)
    return values[np.clip(indices, 0, len(values) - 1)]


def windows(
    points: Points, instants: Ints, width: int, evaluated: Ints, *, open_left: bool, modern: bool = False
) -> Windows:
    """The windows ``[t - width, t]`` (``open_left``: ``(t - width, t]``) of every series at every instant."""
    count = points.series
    if not len(points):
        nothing = np.zeros((count, len(instants)), np.int64)
        return Windows(points, nothing, nothing, instants, width, evaluated, modern)
    base = int(points.ts.min())
    span = int(points.ts.max()) - base + 2
    of_point = np.repeat(np.arange(count, dtype=np.int64), np.diff(points.starts))
    keys = of_point * span + (points.ts - base)
    rows = np.arange(count, dtype=np.int64)[:, None] * span
    ends = rows + np.clip(instants - base, -1, span - 1)
    starts = rows + np.clip(instants - width - base, -1, span - 1)
    high = np.searchsorted(keys, ends, "right")
    low = np.searchsorted(keys, starts, "right" if open_left else "left")
    return Windows(points, np.minimum(low, high), high, instants, width, evaluated, modern)


def is_stale(values: Floats) -> Bools:
    """Which values are staleness markers."""
    return np.ascontiguousarray(values).view(np.uint64) == STALE_BITS


def without_stale(points: Points) -> Points:
    """Points without staleness markers."""
    stale = is_stale(points.values)
    if not stale.any():
        return points
    kept = np.concatenate([[0], np.cumsum(~stale)])
    return Points(kept[points.starts], points.ts[~stale], points.values[~stale])


def instant_values(found: Windows) -> tuple[Floats, Bools, Ints]:
    """The newest point of each window: value, whether there is one that is no staleness marker, and its time."""
    last = found.high - 1
    values = found.value(last)
    return values, (found.counts > 0) & ~is_stale(values), found.time(last)


def _reduced(ufunc: np.ufunc, values: Floats, low: Ints, high: Ints) -> Floats:
    """``ufunc`` over ``values[low:high]`` for every pair; NaN where a pair is empty."""
    out = np.full(low.shape, np.nan)
    some = high > low
    if not some.any():
        return out
    bounds = np.empty(2 * int(some.sum()), np.int64)
    bounds[0::2], bounds[1::2] = low[some], high[some]
    out[some] = ufunc.reduceat(np.append(values, 0.0), bounds)[0::2]
    return out


def _expanded(found: Windows) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Non-empty windows point by point, in portions: window numbers, each one's first place, indices of points."""
    counts = found.counts.ravel()
    numbers = np.flatnonzero(counts)
    ends = np.cumsum(counts[numbers])
    low = found.low.ravel()
    start = 0
    while start < len(numbers):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + EXPANDED_AT_ONCE, "right")))
        chosen = numbers[start:stop]
        lengths = counts[chosen]
        firsts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        indices = np.arange(int(lengths.sum())) - np.repeat(firsts - low[chosen], lengths)
        yield chosen, firsts, indices
        start = stop


# --- windows ---------------------------------------------------------------------------------------------------------


def _extrapolated(found: Windows, *, counter: bool, per_second: bool) -> Cells:
    """rate, increase, delta: the change from first to last point, extrapolated towards the edges of the window."""
    points, first, last = found.points, found.low, found.high - 1
    enough = found.counts >= 2
    value_first, value_last = found.value(first), found.value(last)
    time_first, time_last = found.time(first), found.time(last)
    result = value_last - value_first
    if counter:
        previous = np.concatenate([[0.0], points.values[:-1]]) if len(points) else points.values
        drops = np.where(points.values < previous, previous, 0.0)
        drops[points.starts[:-1][points.starts[:-1] < len(points)]] = 0.0
        if drops.any():
            lost = _reduced(np.add, drops, np.minimum(first + 1, found.high), found.high)
            result = result + np.nan_to_num(lost, nan=0.0, posinf=np.inf, neginf=-np.inf)
    to_start = (time_first - (found.instants - found.width)) / MICROS_PER_SECOND
    to_end = (found.instants - time_last) / MICROS_PER_SECOND
    sampled = (time_last - time_first) / MICROS_PER_SECOND
    average = sampled / np.maximum(found.counts - 1, 1)
    threshold = average * EXTRAPOLATION
    if found.modern:
        to_start = np.where(to_start >= threshold, average / 2, to_start)
    if counter:
        to_zero = sampled * (value_first / result)
        reaches_zero = (result > 0) & (value_first >= 0) & (to_zero < to_start)
        to_start = np.where(reaches_zero, to_zero, to_start)
    extrapolated = sampled + np.where(found.modern | (to_start < threshold), to_start, average / 2)
    extrapolated = extrapolated + np.where(to_end < threshold, to_end, average / 2)
    factor = extrapolated / sampled
    if per_second:
        factor = factor / (found.width / MICROS_PER_SECOND)
    return result * factor, enough


def _instantaneous(found: Windows, *, per_second: bool) -> Cells:
    """irate and idelta: the change between the last two points."""
    last = found.high - 1
    newest, before = found.value(last), found.value(last - 1)
    seconds = (found.time(last) - found.time(last - 1)) / MICROS_PER_SECOND
    if not per_second:
        return newest - before, found.counts >= 2
    return np.where(newest < before, newest, newest - before) / seconds, found.counts >= 2


def _sum(found: Windows) -> Cells:
    return _reduced(np.add, found.points.values, found.low, found.high), found.counts > 0


def _average(found: Windows) -> Cells:
    total, some = _sum(found)
    mean = total / found.counts
    if not np.isfinite(mean[some]).all():
        overflowing = some & ~np.isfinite(mean)
        halves = _reduced(np.add, found.points.values / 1024, found.low, found.high) / found.counts * 1024
        mean = np.where(overflowing, halves, mean)
    return mean, some


def _extreme(ufunc: np.ufunc) -> Callable[[Windows], Cells]:
    def reduce(found: Windows) -> Cells:
        return _reduced(ufunc, found.points.values, found.low, found.high), found.counts > 0

    return reduce


def _count(found: Windows) -> Cells:
    return found.counts.astype(np.float64), found.counts > 0


def _last(found: Windows) -> Cells:
    return found.value(found.high - 1), found.counts > 0


def _present(found: Windows) -> Cells:
    return np.ones(found.low.shape), found.counts > 0


def _variance(found: Windows) -> Cells:
    mean, some = _average(found)
    out = np.full(mean.size, np.nan)
    flat = mean.ravel()
    for chosen, firsts, indices in _expanded(found):
        lengths = np.diff(np.append(firsts, len(indices)))
        deviation = found.points.values[indices] - np.repeat(flat[chosen], lengths)
        out[chosen] = np.add.reduceat(deviation * deviation, firsts) / lengths
    return out.reshape(mean.shape), some


def _deviation(found: Windows) -> Cells:
    variance, some = _variance(found)
    return np.sqrt(variance), some


def _steps(changed: Callable[[Floats, Floats], Bools]) -> Callable[[Windows], Cells]:
    """Counts of neighbouring points for which something holds."""

    def count(found: Windows) -> Cells:
        values = found.points.values
        flags = np.zeros(len(values) + 1, np.int64)
        if len(values) > 1:
            flags[2:] = np.cumsum(changed(values[:-1], values[1:]))
        first = np.minimum(found.low + 1, found.high)
        return (_taken(flags, found.high) - _taken(flags, first)).astype(np.float64), found.counts > 0

    return count


def quantile_over_time(found: Windows, q: Floats) -> Cells:
    """The ``q``-quantile (by instant) of the points of each window."""
    out = np.full(found.low.size, np.nan)
    of_window = np.broadcast_to(q, found.low.shape).ravel()
    for chosen, firsts, indices in _expanded(found):
        lengths = np.diff(np.append(firsts, len(indices)))
        values = found.points.values[indices]
        order = np.lexsort((values, ~np.isnan(values), np.repeat(np.arange(len(chosen)), lengths)))
        out[chosen] = _quantile_of_sorted(values[order], firsts, lengths, of_window[chosen])
    return out.reshape(found.low.shape), found.counts > 0


def _quantile_of_sorted(values: Floats, firsts: Ints, lengths: Ints, q: Floats) -> Floats:
    """Linear interpolation between the two nearest of each run of sorted values; ±Inf for q outside of 0…1."""
    rank = np.clip(np.nan_to_num(q), 0.0, 1.0) * (lengths - 1)
    low = np.floor(rank).astype(np.int64)
    weight = rank - low
    lower = values[firsts + low]
    upper = values[firsts + np.minimum(low + 1, lengths - 1)]
    return out_of_range(lower * (1 - weight) + upper * weight, q)


def out_of_range(values: Floats, q: Floats) -> Floats:
    """Quantiles with Prometheus' answers for a ``q`` that is none."""
    return np.where(np.isnan(q), np.nan, np.where(q < 0, -np.inf, np.where(q > 1, np.inf, values)))


def _regression(found: Windows, origin: Ints) -> tuple[Floats, Floats]:
    """Slope per second and value at ``origin`` of the least-squares line through each window's points."""
    slope, intercept = np.full(found.low.size, np.nan), np.full(found.low.size, np.nan)
    of_window = np.broadcast_to(origin, found.low.shape).ravel()
    for chosen, firsts, indices in _expanded(found):
        lengths = np.diff(np.append(firsts, len(indices)))
        y = found.points.values[indices]
        x = (found.points.ts[indices] - np.repeat(of_window[chosen], lengths)) / MICROS_PER_SECOND
        mean_x, mean_y = np.add.reduceat(x, firsts) / lengths, np.add.reduceat(y, firsts) / lengths
        dx, dy = x - np.repeat(mean_x, lengths), y - np.repeat(mean_y, lengths)
        rise = np.add.reduceat(dx * dy, firsts) / np.add.reduceat(dx * dx, firsts)
        start = y[firsts]
        constant = np.logical_and.reduceat(y == np.repeat(start, lengths), firsts)
        level = np.where(np.isinf(start), np.nan, start)
        slope[chosen] = np.where(constant, level * 0, rise)
        intercept[chosen] = np.where(constant, level, mean_y - rise * mean_x)
    return slope.reshape(found.low.shape), intercept.reshape(found.low.shape)


def _deriv(found: Windows) -> Cells:
    origin = found.time(found.low)
    return _regression(found, origin)[0], found.counts >= 2


def predict_linear(found: Windows, seconds: Floats) -> Cells:
    """Where each window's line will be ``seconds`` (by instant) after the evaluation."""
    slope, intercept = _regression(found, found.evaluated)
    return intercept + slope * seconds, found.counts >= 2


#: functions of one window; ``quantile_over_time`` and ``predict_linear`` also take a number, absence has its own place
OF_WINDOWS: dict[str, Callable[[Windows], Cells]] = {
    "avg_over_time": _average,
    "changes": _steps(lambda before, after: (before != after) & ~(np.isnan(before) & np.isnan(after))),
    "count_over_time": _count,
    "delta": lambda found: _extrapolated(found, counter=False, per_second=False),
    "deriv": _deriv,
    "idelta": lambda found: _instantaneous(found, per_second=False),
    "increase": lambda found: _extrapolated(found, counter=True, per_second=False),
    "irate": lambda found: _instantaneous(found, per_second=True),
    "last_over_time": _last,
    "max_over_time": _extreme(np.fmax),
    "min_over_time": _extreme(np.fmin),
    "present_over_time": _present,
    "rate": lambda found: _extrapolated(found, counter=True, per_second=True),
    "resets": _steps(lambda before, after: after < before),
    "stddev_over_time": _deviation,
    "stdvar_over_time": _variance,
    "sum_over_time": _sum,
}

# --- single values ---------------------------------------------------------------------------------------------------


def _rounded(values: Floats, *to_nearest: Floats) -> Floats:
    inverse = 1.0 / to_nearest[0] if to_nearest else np.float64(1.0)
    return np.floor(values * inverse + 0.5) / inverse


def _sign(values: Floats) -> Floats:
    return np.where(values < 0, -1.0, np.where(values > 0, 1.0, values))


def _calendar(part: Callable[[NDArray[np.datetime64]], NDArray[np.generic]]) -> Callable[..., Floats]:
    """A part of the UTC date of seconds since the epoch."""

    def of(values: Floats) -> Floats:
        known = np.isfinite(values) & (np.abs(values) < 2.0**53)
        seconds = np.where(known, values, 0).astype(np.int64).astype("datetime64[s]")
        return np.where(known, np.asarray(part(seconds)).astype(np.float64), np.nan)

    return of


def _since(unit: str, whole: str) -> Callable[[NDArray[np.datetime64]], NDArray[np.generic]]:
    """How many of a unit have passed since the start of a larger one."""
    return lambda at: at.astype(f"datetime64[{unit}]") - at.astype(f"datetime64[{whole}]").astype(f"datetime64[{unit}]")


def _days_in_month(at: NDArray[np.datetime64]) -> NDArray[np.generic]:
    month = at.astype("datetime64[M]")
    return (month + 1).astype("datetime64[D]") - month.astype("datetime64[D]")


CALENDAR: dict[str, Callable[..., Floats]] = {
    "day_of_month": _calendar(lambda at: _since("D", "M")(at).astype(np.int64) + 1),
    "day_of_week": _calendar(lambda at: (at.astype("datetime64[D]").astype(np.int64) + 4) % 7),
    "day_of_year": _calendar(lambda at: _since("D", "Y")(at).astype(np.int64) + 1),
    "days_in_month": _calendar(_days_in_month),
    "hour": _calendar(_since("h", "D")),
    "minute": _calendar(_since("m", "h")),
    "month": _calendar(lambda at: _since("M", "Y")(at).astype(np.int64) + 1),
    "year": _calendar(lambda at: at.astype("datetime64[Y]").astype(np.int64) + 1970),
}

#: functions of a value, some with further numbers (by instant)
OF_VALUES: dict[str, Callable[..., Floats]] = {
    **CALENDAR,
    "abs": np.abs,
    "acos": np.arccos,
    "acosh": np.arccosh,
    "asin": np.arcsin,
    "asinh": np.arcsinh,
    "atan": np.arctan,
    "atanh": np.arctanh,
    "ceil": np.ceil,
    "clamp": lambda values, low, high: np.maximum(low, np.minimum(high, values)),
    "clamp_max": lambda values, high: np.minimum(high, values),
    "clamp_min": lambda values, low: np.maximum(low, values),
    "cos": np.cos,
    "cosh": np.cosh,
    "deg": np.degrees,
    "exp": np.exp,
    "floor": np.floor,
    "ln": np.log,
    "log10": np.log10,
    "log2": np.log2,
    "rad": np.radians,
    "round": _rounded,
    "sgn": _sign,
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "tan": np.tan,
    "tanh": np.tanh,
}
