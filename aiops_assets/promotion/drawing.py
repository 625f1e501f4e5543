"""Gate results as tables and pictures: every measured value beside its limits, readable without colour.

What belongs here: frames and SVG of measures and evaluations. What does not: gates' own plots (they bring them whole)
and where they are shown (``assets``, the command line).
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from aiops_assets.lake.drawing import COLOURS, plain
from aiops_assets.promotion.gates import Measure

_WIDTH, _ROW, _TOP, _LEFT, _RIGHT = 720, 26, 28, 210, 230
_MOST = 24
_PASSED, _FAILED, _ALLOWED = COLOURS[0], COLOURS[1], "#dcefe6"


def number(value: float | None, unit: str = "") -> str:
    """A value in at most four significant digits, with its unit; ``–`` for none."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "not a number"
    text = f"{value:,.0f}" if value == round(value) and abs(value) < 1e12 else f"{value:.4g}"
    return f"{text} {unit}".strip()


def limits(measure: Measure) -> str:
    """The limits in words: ``0.5 to 0.6``, ``at most 3``, ``none``."""
    if measure.least is not None and measure.most is not None:
        return f"{number(measure.least)} to {number(measure.most, measure.unit)}"
    if measure.least is not None:
        return f"at least {number(measure.least, measure.unit)}"
    return f"at most {number(measure.most, measure.unit)}" if measure.most is not None else "none"


def measure_rows(measures: Mapping[str, Measure]) -> pl.DataFrame:
    """Columns measure, value, limits, holds (strings), those that do not hold first."""
    ordered = sorted(measures.items(), key=lambda item: item[1].holds)
    rows = [
        {
            "measure": name,
            "value": number(measure.value, measure.unit),
            "limits": limits(measure),
            "holds": "yes" if measure.holds else "NO",
        }
        for name, measure in ordered
    ]
    return pl.DataFrame(rows, schema={name: pl.String() for name in ("measure", "value", "limits", "holds")})


def detail_rows(details: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Rows of a finding as a frame of strings, with the columns in the order in which they appear."""
    columns = list(dict.fromkeys(str(name) for row in details for name in row))
    plain_rows = [{str(name): value for name, value in row.items()} for row in details]
    return pl.DataFrame(
        {name: [None if row.get(name) is None else _cell(row[name]) for row in plain_rows] for name in columns},
        schema={name: pl.String() for name in columns},
    )


def measures_plot(measures: Mapping[str, Measure], title: str) -> str | None:
    """An SVG document: a line a measure, its allowed range shaded, a dot (holds) or a cross (does not) at its value.

    Each line has its own scale. ``None`` when no measure has limits; of more than 24 the worst are drawn.
    """
    bounded = {name: one for name, one in measures.items() if one.least is not None or one.most is not None}
    if not bounded:
        return None
    shown = sorted(bounded.items(), key=lambda item: item[1].holds)[:_MOST]
    height = _TOP + _ROW * len(shown) + 8
    parts = [_text(8, 16, title, weight="bold")]
    for place, (name, measure) in enumerate(shown):
        parts += _line(name, measure, _TOP + place * _ROW)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'font-family="sans-serif" font-size="11"><rect width="{_WIDTH}" height="{height}" fill="#fff"/>'
        f"{''.join(parts)}</svg>"
    )


def _line(name: str, measure: Measure, top: float) -> list[str]:
    known = [one for one in (measure.value, measure.least, measure.most) if one is not None and math.isfinite(one)]
    low, high = min([0.0, *known]), max([*known, 0.0])
    span = (high - low) or 1.0
    low, high = low - 0.05 * span, high + 0.05 * span

    def x(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    middle, upper, lower = top + _ROW / 2, top + 4, top + _ROW - 4
    start = x(measure.least) if measure.least is not None else x(low)
    end = x(measure.most) if measure.most is not None else x(high)
    parts = [
        _text(_LEFT - 8, middle + 4, plain(name, 32), anchor="end"),
        f'<rect x="{start:.1f}" y="{top + 5:.1f}" width="{max(end - start, 1):.1f}" height="{_ROW - 10}" '
        f'fill="{_ALLOWED}"/>',
        f'<line x1="{_LEFT}" y1="{middle}" x2="{_WIDTH - _RIGHT}" y2="{middle}" stroke="#bbb"/>',
        *(
            f'<line x1="{x(limit):.1f}" y1="{upper}" x2="{x(limit):.1f}" y2="{lower}" stroke="#555"/>'
            for limit in (measure.least, measure.most)
            if limit is not None and math.isfinite(limit)
        ),
        _text(_WIDTH - _RIGHT + 8, middle + 4, number(measure.value, measure.unit), weight="bold"),
        _text(_WIDTH - 8, middle + 4, limits(measure), anchor="end"),
    ]
    if math.isfinite(measure.value):
        at = x(measure.value)
        parts.append(
            f'<circle cx="{at:.1f}" cy="{middle}" r="4.5" fill="{_PASSED}"/>'
            if measure.holds
            else f'<path d="M{at - 5:.1f} {middle - 5} l10 10 m0 -10 l-10 10" stroke="{_FAILED}" stroke-width="3"/>'
        )
    return parts


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="#333">'
        f"{html.escape(plain(text))}</text>"
    )


def _cell(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)
