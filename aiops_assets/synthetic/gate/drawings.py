"""Small SVG plots for gates, without any library.

What belongs here: bars beside each other, cumulative distributions, ROC curves. What does not: plots of series, KPIs.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 720, 260, 46, 28, 46
_COLOURS = ("#9aa5b1", "#1769aa")


def bars(title: str, labels: Sequence[str], series: Mapping[str, Sequence[float]]) -> str:
    """Bars of each series beside each other, a group a label."""
    top = max((value for values in series.values() for value in values), default=0.0) or 1.0
    place = (_WIDTH - _LEFT - 10) / max(1, len(labels))
    width = 0.8 * place / max(1, len(series))
    parts = _frame(title, list(series), f"{top:.1%}")
    for number, values in enumerate(series.values()):
        for at, value in enumerate(values):
            high = (_HEIGHT - _TOP - _BOTTOM) * value / top
            x = _LEFT + at * place + 0.1 * place + number * width
            parts.append(
                f'<rect x="{x:.1f}" y="{_HEIGHT - _BOTTOM - high:.1f}" width="{width:.1f}" height="{high:.1f}" '
                f'fill="{_COLOURS[number % 2]}"/>'
            )
    for at, label in enumerate(labels):
        x = _LEFT + (at + 0.5) * place
        turned = (
            f' transform="rotate(-35 {x:.1f} {_HEIGHT - _BOTTOM + 12})" text-anchor="end"'
            if len(labels) > 8 and max(map(len, labels)) > 2
            else ' text-anchor="middle"'
        )
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 12}"{turned}>{html.escape(label[:14])}</text>')
    return _document(parts)


def distributions(title: str, series: Mapping[str, NDArray[np.float64]]) -> str:
    """Cumulative shares over a logarithmic axis."""
    logs = {name: np.log1p(np.maximum(0.0, values)) for name, values in series.items()}
    most = max((float(values.max()) for values in logs.values() if values.size), default=1.0) or 1.0
    at = np.linspace(0, most, 120)
    lines = {
        name: (at / most, np.searchsorted(np.sort(values), at, side="right") / max(1, values.size))
        for name, values in logs.items()
    }
    ticks = [
        (float(np.log1p(value)) / most, label)
        for value, label in ((1, "1 h"), (24, "1 d"), (168, "7 d"), (720, "30 d"))
    ]
    return _curves(title, lines, [(x, label) for x, label in ticks if x <= 1])


def roc(title: str, scores: NDArray[np.float64], labels: NDArray[np.int64]) -> str:
    """The ROC curve of scores, beside that of chance."""
    order = np.argsort(-scores, kind="stable")
    hits = labels[order]
    true = np.concatenate([[0.0], np.cumsum(hits) / max(1, hits.sum())])
    false = np.concatenate([[0.0], np.cumsum(1 - hits) / max(1, (1 - hits).sum())])
    keep = np.unique(np.linspace(0, true.size - 1, 200).astype(int))
    even = np.array([0.0, 1.0])
    return _curves(
        title, {"chance": (even, even), "discriminator": (false[keep], true[keep])}, [(0.5, "false positives")]
    )


def _curves(
    title: str,
    lines: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
    ticks: Sequence[tuple[float, str]],
) -> str:
    parts = _frame(title, list(lines), "100%")
    wide, high = _WIDTH - _LEFT - 10, _HEIGHT - _TOP - _BOTTOM
    for number, (x, y) in enumerate(lines.values()):
        points = " ".join(
            f"{_LEFT + a * wide:.1f},{_HEIGHT - _BOTTOM - b * high:.1f}" for a, b in zip(x, y, strict=True)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{_COLOURS[number % 2]}" stroke-width="2"/>')
    for x_share, label in ticks:
        parts.append(
            f'<text x="{_LEFT + x_share * wide:.1f}" y="{_HEIGHT - _BOTTOM + 14}" text-anchor="middle">'
            f"{html.escape(label)}</text>"
        )
    return _document(parts)


def _frame(title: str, names: Sequence[str], top: str) -> list[str]:
    parts = [
        f'<text x="{_LEFT}" y="14" font-weight="bold">{html.escape(title)}</text>',
        f'<line x1="{_LEFT}" y1="{_HEIGHT - _BOTTOM}" x2="{_WIDTH - 10}" y2="{_HEIGHT - _BOTTOM}" stroke="#555"/>',
        f'<text x="{_LEFT - 4}" y="{_TOP + 8}" text-anchor="end">{top}</text>',
        f'<text x="{_LEFT - 4}" y="{_HEIGHT - _BOTTOM}" text-anchor="end">0</text>',
    ]
    for number, name in enumerate(names):
        x = _WIDTH - 260 + 130 * number
        parts.append(f'<rect x="{x}" y="6" width="10" height="10" fill="{_COLOURS[number % 2]}"/>')
        parts.append(f'<text x="{x + 14}" y="15">{html.escape(name)}</text>')
    return parts


def _document(parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'font-family="sans-serif" font-size="11"><rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>'
        f"{''.join(parts)}</svg>"
    )
