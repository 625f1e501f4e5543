"""Plots of series as SVG geometry, computed on the server and readable without any script. Pure functions.

What belongs here: scales, ticks, paths and positions, as values that the templates draw. Horizontal positions are
percent of the plot's width, so that a plot fits a phone and a wide screen alike; vertical ones are pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import orjson
import polars as pl

from aiops_assets.detection.wording import quantity
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND, instant
from aiops_assets.incidents.correlation import Alert, severity_word
from aiops_assets.incidents.series import Expectation, SeriesInfo, UsualRange

Scale = Callable[[float], float]

HEIGHT = 170.0
_TOP, _BOTTOM = 22.0, 10.0
#: horizontal resolution of paths
WIDTH = 1000.0
_MINUTE = 60 * MICROS_PER_SECOND
_STEPS = tuple(n * _MINUTE for n in (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10080))
#: what lies further away than this many times the range of the values is pointed to, not drawn
_REACH = 3.0


@dataclass(frozen=True, slots=True)
class Tick:
    """``at``: percent (x) or pixels (y); ``anchor`` keeps labels inside the plot."""

    at: float
    label: str
    anchor: str = "middle"
    instant: int = 0


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time in which an alert was active; percent."""

    x: float
    width: float
    severity: str
    title: str


@dataclass(frozen=True, slots=True)
class Marker:
    """A change; ``number`` is its place in the list of changes."""

    x: float
    number: int
    title: str


@dataclass(frozen=True, slots=True)
class Limit:
    """A threshold line in pixels; ``off`` is above or below when it lies outside the plot."""

    y: float
    label: str
    off: str = ""


@dataclass(frozen=True, slots=True)
class Plot:
    """One series over one stretch of time. Instants are microseconds since the epoch (UTC)."""

    series_id: int
    info: SeriesInfo
    start: int
    end: int
    lines: tuple[str, ...]
    dots: tuple[tuple[float, float], ...]
    band: str
    band_label: str
    usual: tuple[float, float] | None
    usual_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    limits: tuple[Limit, ...]
    spans: tuple[Span, ...]
    markers: tuple[Marker, ...]
    summary: str
    data: str
    height: float = HEIGHT


def plot(
    info: SeriesInfo,
    series_id: int,
    points: pl.DataFrame,
    *,
    start: int,
    end: int,
    alerts: Sequence[Alert],
    changes: Sequence[tuple[int, int, str]],
    expected: Sequence[Expectation] = (),
    usual: UsualRange | None = None,
) -> Plot:
    """Draw one series. ``points`` has ``ts`` (Datetime UTC) and ``value``, sorted; ``changes``: (number, ts, title)."""
    instants: list[int] = points["ts"].dt.timestamp("us").to_list()
    values: list[float] = points["value"].to_list()
    limits = _limits(alerts)
    low, high = _range(values, limits, expected, usual, info.unit)

    def x(at: int) -> float:
        return round(min(max((at - start) / max(end - start, 1), 0.0), 1.0) * 100, 3)

    def y(value: float) -> float:
        share = (value - low) / (high - low)
        return round(_TOP + (1 - share) * (HEIGHT - _TOP - _BOTTOM), 2)

    runs = list(_runs(instants))
    coordinates = [(x(at) * WIDTH / 100, y(value)) for at, value in zip(instants, values, strict=True)]
    usual_box = None
    if usual is not None and usual.upper >= low and usual.lower <= high:
        usual_box = (y(min(usual.upper, high)), y(max(usual.lower, low)))
    return Plot(
        series_id=series_id,
        info=info,
        start=start,
        end=end,
        lines=tuple(_path(coordinates[first:last]) for first, last in runs if last - first > 1),
        dots=tuple(
            (coordinates[first][0] / WIDTH * 100, coordinates[first][1]) for first, last in runs if last - first == 1
        ),
        band=_band(expected, x, y, low, high),
        band_label=_band_label(expected, info.unit),
        usual=usual_box,
        usual_label=_usual_label(usual, info.unit),
        x_ticks=tuple(_time_ticks(start, end)),
        y_ticks=tuple(Tick(y(value), quantity(value, info.unit)) for value in nice_values(low, high, 4, info.unit)),
        limits=tuple(_limit(limit, y, low, high, info.unit) for limit in limits),
        spans=tuple(_span(alert, x, end) for alert in alerts if alert.starts_at <= end),
        markers=tuple(Marker(x(at), number, title) for number, at, title in changes if start <= at <= end),
        summary=_summary(info, values),
        data=orjson.dumps(
            [[(at - start) // 1000, float(f"{value:.7g}")] for at, value in zip(instants, values, strict=True)]
        ).decode(),
    )


def window_of(started_at: int, ended_at: int | None, now: int, hours: float | None = None) -> tuple[int, int]:
    """The stretch of time to draw for an incident: some time before its start until some after its end, or until now.

    ``hours`` asks for so many hours up to the end instead. Never longer than seven days.
    """
    last = min(now, ended_at + 15 * _MINUTE) if ended_at is not None else now
    last = max(last, started_at + 5 * _MINUTE)
    lasting = last - started_at
    first = (
        last - round(hours * MICROS_PER_HOUR)
        if hours
        else started_at - max(30 * _MINUTE, min(lasting // 3, 6 * MICROS_PER_HOUR))
    )
    return max(first, last - 7 * 24 * MICROS_PER_HOUR), last


def nice_values(low: float, high: float, count: int, unit: str = "") -> list[float]:
    """About ``count`` round numbers within a range (steps of 1, 2 or 5; of powers of two for bytes)."""
    if not math.isfinite(high - low) or high <= low:
        return [low]
    rough = (high - low) / count
    if unit in {"By", "By/s"} and rough > 1:
        base = 1024.0 ** math.floor(math.log(rough, 1024))
        step = base * next(n for n in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024) if n * base >= rough)
    else:
        base = 10.0 ** math.floor(math.log10(rough))
        step = next(n for n in (1, 2, 5, 10) if n * base >= rough * 0.999) * base
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _range(
    values: Sequence[float],
    limits: Sequence[float],
    expected: Sequence[Expectation],
    usual: UsualRange | None,
    unit: str,
) -> tuple[float, float]:
    if values:
        low, high = min(values), max(values)
    elif limits:
        low, high = min(limits), max(limits)
    else:
        low, high = 0.0, 1.0
    extent = max(high - low, abs(high) * 0.02, 1e-9)
    wanted = [*limits, *(edge for entry in expected for edge in (entry.lower, entry.upper))]
    wanted += [usual.lower, usual.upper] if usual else []
    near = [edge for edge in wanted if low - _REACH * extent <= edge <= high + _REACH * extent]
    low, high = min([low, *near]), max([high, *near])
    if unit == "1" and low >= 0 and high <= 1.2:
        return (0.0 if low < 0.5 or high - low < 0.01 else low - (high - low) * 0.1), max(
            1.0 if high > 0.5 else high * 1.1, 1e-9
        )
    if 0 <= low < 0.5 * high:
        return 0.0, high * 1.08
    pad = max(high - low, abs(high) * 0.02, 1e-9) * 0.08
    return low - pad, high + pad


def _limits(alerts: Sequence[Alert]) -> list[float]:
    """Limits in the unit of the series: not the ones of rules that look at its pace."""
    found: set[float] = set()
    for alert in alerts:
        kind = orjson.loads(alert.evidence or "{}").get("rule", "threshold")
        if alert.threshold is not None and math.isfinite(alert.threshold) and kind in {"threshold", "fill_up"}:
            found.add(alert.threshold)
    return sorted(found)[-4:]


def _limit(value: float, y: Scale, low: float, high: float, unit: str) -> Limit:
    label = quantity(value, unit)
    if value > high:
        return Limit(_TOP - 6, label, "above")
    if value < low:
        return Limit(HEIGHT - 2, label, "below")
    return Limit(y(value), label)


def _span(alert: Alert, x: Callable[[int], float], end: int) -> Span:
    first, last = x(alert.starts_at), x(alert.over_at if alert.over_at is not None else end)
    return Span(first, round(max(last - first, 0.3), 3), severity_word(alert.severity_number), alert.title)


def _runs(instants: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Stretches without a hole (four times the usual distance): (first, behind the last)."""
    if not instants:
        return
    distances = [later - earlier for earlier, later in pairwise(instants)]
    hole = 4 * median(distances) if distances else 0
    first = 0
    for position, distance in enumerate(distances, 1):
        if distance > hole:
            yield first, position
            first = position
    yield first, len(instants)


def _path(coordinates: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in coordinates)


def _band(expected: Sequence[Expectation], x: Callable[[int], float], y: Scale, low: float, high: float) -> str:
    if not expected:
        return ""
    shown = [entry for entry in expected if entry.upper >= low and entry.lower <= high]
    if not shown:
        return ""
    at = [x(entry.ts) * WIDTH / 100 for entry in shown]
    if at[-1] - at[0] < 4:
        at = [at[0] - 2, *at[1:-1], at[0] + 2] if len(at) > 1 else [at[0] - 2, at[0] + 2]
        shown = shown if len(shown) > 1 else [shown[0], shown[0]]
    upper = [(px, y(min(entry.upper, high))) for px, entry in zip(at, shown, strict=True)]
    lower = [(px, y(max(entry.lower, low))) for px, entry in zip(at, shown, strict=True)]
    return _path([*upper, *reversed(lower)]) + "Z"


def _band_label(expected: Sequence[Expectation], unit: str) -> str:
    if not expected:
        return ""
    last = expected[-1]
    return f"expected {quantity(last.lower, unit)} to {quantity(last.upper, unit)} when last unusual"


def _usual_label(usual: UsualRange | None, unit: str) -> str:
    if usual is None:
        return ""
    hours = "hour" if usual.hours == 1 else f"{usual.hours} hours"
    return f"usual range of the {hours} before: {quantity(usual.lower, unit)} to {quantity(usual.upper, unit)}"


def _time_ticks(start: int, end: int) -> Iterator[Tick]:
    step = next((step for step in _STEPS if (end - start) / step <= 6), _STEPS[-1])
    first = -(-start // step) * step
    for at in range(first, end + 1, step):
        share = (at - start) / max(end - start, 1) * 100
        anchor = "end" if share > 95 else "middle"
        minutes = at // _MINUTE
        label = f"{minutes // 60 % 24:02d}:{minutes % 60:02d}" if step < 1440 * _MINUTE else _day(at)
        # The first label would stand on the name of the time zone.
        label = label if share >= 16 else ""
        yield Tick(round(share, 3), label, anchor, at)


def _day(at: int) -> str:
    return instant(at).strftime("%d %b")


def _summary(info: SeriesInfo, values: Sequence[float]) -> str:
    if not values:
        return f"{info.metric} on {info.host}: no points in this time"
    low, high, last = (quantity(value, info.unit) for value in (min(values), max(values), values[-1]))
    return f"{info.metric} on {info.host}: between {low} and {high}, last {last}"


def infos_of(alerts: Sequence[Alert], known: Mapping[int, SeriesInfo]) -> dict[int, tuple[SeriesInfo, list[Alert]]]:
    """The series of alerts in the order given, each with its alerts; an unknown series is described by its alert."""
    found: dict[int, tuple[SeriesInfo, list[Alert]]] = {}
    for alert in alerts:
        if alert.series_id is None:
            continue
        described = SeriesInfo(alert.host, alert.metric or alert.name, "", orjson.loads(alert.labels or "{}"))
        info = known.get(alert.series_id, described)
        found.setdefault(alert.series_id, (info, []))[1].append(alert)
    return found
