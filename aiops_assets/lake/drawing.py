"""Text and small pictures for the Dagster UI, harmless whatever the data contain.

What belongs here: escaping for Markdown and one line plot as inline SVG. What does not: the incident pages' plots
(``incidents``), which are larger and interactive.
"""

from __future__ import annotations

import base64
import html
import unicodedata
from collections.abc import Sequence
from datetime import datetime

import polars as pl

#: of Okabe and Ito, told apart by people who do not see all colours
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 640, 180, 48, 22, 26


def plain(value: object, limit: int = 80) -> str:
    """One line of visible text: control, format and surrogate characters are replaced, long text is cut."""
    text = value.isoformat(sep=" ", timespec="seconds") if isinstance(value, datetime) else str(value)
    if isinstance(value, float):
        text = f"{value:.6g}"
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Cn"} else c for c in text
    )


def markdown_text(value: object, limit: int = 80) -> str:
    """Text that Markdown shows as it is: all punctuation becomes numeric references, which never form structure."""
    return "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in plain(value, limit))


def markdown_table(frame: pl.DataFrame) -> str:
    """A frame as a Markdown table; an empty one as a sentence."""
    if frame.is_empty():
        return "no rows"

    def line(cells: Sequence[object]) -> str:
        return "| " + " | ".join(markdown_text("" if cell is None else cell) for cell in cells) + " |"

    rule = "|" + " --- |" * frame.width
    return "\n".join([line(frame.columns), rule, *(line(row) for row in frame.rows())])


def line_plot(points: pl.DataFrame, title: str, unit: str) -> str:
    """An SVG document of the lines in ``points`` (columns label, ts, value); at most six, the rest is summed up.

    Lines are drawn against a zero baseline; the legend carries the labels, escaped.
    """
    drawn = points.drop_nulls(["ts", "value"])
    order = (
        drawn.group_by("label")
        .agg(pl.col("value").sum())
        .sort("value", "label", descending=[True, False])["label"]
        .to_list()
    )
    if len(order) > len(COLOURS):
        kept = order[: len(COLOURS) - 1]
        drawn = (
            drawn.with_columns(
                pl.when(pl.col("label").is_in(kept)).then("label").otherwise(pl.lit("others")).alias("label")
            )
            .group_by("label", "ts")
            .agg(pl.col("value").sum())
        )
        order = [*kept, "others"]
    first, last = drawn["ts"].min(), drawn["ts"].max()
    top = float(drawn["value"].max() or 0.0) or 1.0  # type: ignore[arg-type]
    if not isinstance(first, datetime) or not isinstance(last, datetime):
        return _svg([_text(_LEFT, _HEIGHT / 2, "nothing to draw")])
    span = max((last - first).total_seconds(), 1.0)
    base, height = _HEIGHT - _BOTTOM, _HEIGHT - _BOTTOM - _TOP
    parts = [
        f'<line x1="{_LEFT}" y1="{base}" x2="{_WIDTH - 8}" y2="{base}" stroke="#888"/>',
        f'<line x1="{_LEFT}" y1="{_TOP}" x2="{_WIDTH - 8}" y2="{_TOP}" stroke="#ddd"/>',
        _text(_LEFT, 12, f"{title}, {unit}", weight="bold"),
        _text(_LEFT - 4, _TOP + 4, f"{top:.4g}", anchor="end"),
        _text(_LEFT - 4, base + 4, "0", anchor="end"),
        _text(_LEFT, _HEIGHT - 6, f"{first:%Y-%m-%d %H:%M}"),
        _text(_WIDTH - 8, _HEIGHT - 6, f"{last:%H:%M} UTC", anchor="end"),
    ]
    for number, label in enumerate(order):
        line = drawn.filter(pl.col("label") == label).sort("ts")
        colour = COLOURS[number]
        dots = [
            (_LEFT + (ts - first).total_seconds() / span * (_WIDTH - 8 - _LEFT), base - value / top * height)
            for ts, value in line.select("ts", "value").iter_rows()
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.extend(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{colour}"/>' for x, y in dots[:120])
        parts.append(
            _text(_WIDTH - 8 - 100 * (len(order) - 1 - number), 12, plain(label, 14), anchor="end", colour=colour)
        )
    return _svg(parts)


def markdown_image(svg: str, description: str) -> str:
    """An SVG document as a Markdown image that needs nothing from outside."""
    return f"![{markdown_text(description)}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def _svg(parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'font-family="sans-serif" font-size="11"><rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>'
        f"{''.join(parts)}</svg>"
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", colour: str = "#333") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="{colour}">'
        f"{html.escape(plain(text))}</text>"
    )
