"""Column charts over days or weeks as SVG geometry, readable without any script. Pure functions.

What belongs here: scales, ticks and positions. What does not: which figures are drawn (``kpis``), and plots of series
(``incidents.plots``). Horizontal positions are percent of the width, vertical ones pixels: a chart fits a phone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

HEIGHT = 150.0
_TOP = 16.0
#: share of a column's place that the column takes
_FILL = 0.74
Ticks = Callable[[float], list[tuple[float, str]]]
_DURATIONS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400)
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Column:
    """What one period shows: stacked values from below, a text, or (``beyond``) that the value is not known yet."""

    values: tuple[float, ...]
    title: str
    beyond: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle; ``part`` numbers the stack from below."""

    x: float
    width: float
    y: float
    height: float
    part: int


@dataclass(frozen=True, slots=True)
class Place:
    """The whole height of a period: it takes the pointer and has the text; ``beyond`` draws an arrow at ``middle``."""

    x: float
    width: float
    middle: float
    title: str
    beyond: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """``at``: percent (x) or pixels (y)."""

    at: float
    label: str
    anchor: str = "middle"


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with its name, what it shows, and a summary for those who cannot see it."""

    name: str
    about: str
    bars: tuple[Bar, ...]
    places: tuple[Place, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    key: tuple[str, ...]
    summary: str
    height: float


def column_chart(
    name: str,
    about: str,
    periods: Sequence[date],
    columns: Sequence[Column],
    ticks: Ticks,
    *,
    key: tuple[str, ...] = (),
    highest: float | None = None,
    height: float = HEIGHT,
) -> Chart:
    """Draw one column a period. ``ticks`` gives labelled values up to the highest; the last one is the top."""
    top = max((sum(column.values) for column in columns), default=0.0) if highest is None else highest
    marks = ticks(top)
    top = max(top, marks[-1][0], 1e-9)
    step = 100 / max(len(periods), 1)

    def y(value: float) -> float:
        return round(height - (height - _TOP) * value / top, 2)

    bars, places = [], []
    for number, column in enumerate(columns):
        left = number * step
        below = 0.0
        for part, value in enumerate(column.values):
            if value > 0:
                upper, lower = y(below + value), y(below)
                bars.append(
                    Bar(
                        round(left + step * (1 - _FILL) / 2, 3),
                        round(step * _FILL, 3),
                        upper,
                        max(lower - upper, 1.0),
                        part,
                    )
                )
            below += value
        places.append(Place(round(left, 3), round(step, 3), round(left + step / 2, 3), column.title, column.beyond))
    told = [column.title for column in columns if column.values or column.beyond]
    return Chart(
        name=name,
        about=about,
        bars=tuple(bars),
        places=tuple(places),
        x_ticks=tuple(_day_ticks(periods, step)),
        y_ticks=tuple(Tick(y(value), label) for value, label in marks),
        key=key,
        summary=f"{name}, {about}. " + (f"Last: {told[-1]}" if told else "Nothing to show."),
        height=height,
    )


def duration_ticks(high: float) -> list[tuple[float, str]]:
    """Three or four round durations up to the first one at or above ``high`` seconds."""
    step = next((step for step in _DURATIONS if high / step <= 3), 0) or math.ceil(high / 3 / _DAY) * _DAY
    return [(number * step, _duration(number * step)) for number in range(max(1, math.ceil(high / step)) + 1)]


def whole_ticks(high: float) -> list[tuple[float, str]]:
    """Three or four round counts up to the first one at or above ``high``."""
    rough = max(high, 1) / 3
    base = 10.0 ** math.floor(math.log10(rough))
    step = max(1.0, next(factor * base for factor in (1, 2, 5, 10) if factor * base >= rough * 0.999))
    return [(number * step, f"{number * step:,.0f}") for number in range(max(1, math.ceil(high / step)) + 1)]


def _duration(seconds: float) -> str:
    if seconds == 0:
        return "0"
    for size, unit in ((_DAY, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def _day_ticks(periods: Sequence[date], step: float) -> list[Tick]:
    """About four dates, the last one always."""
    every = max(1, math.ceil(len(periods) / 4))
    shown = []
    for number in range(len(periods) - 1, -1, -every):
        at = (number + 0.5) * step
        shown.append(
            Tick(round(at, 3), f"{periods[number]:%d %b}", "end" if at > 92 else "start" if at < 8 else "middle")
        )
    return shown[::-1]
