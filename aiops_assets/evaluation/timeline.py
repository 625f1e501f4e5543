"""A storm as a picture: faults as bars, above them what people were told, as SVG that needs nothing from outside.

What belongs here: positions, colours and words of the picture. What does not: counting (``scoring``).
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from aiops_assets.evaluation.scoring import WARNING, FaultScore, StormScore, firings_of
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND, instant
from aiops_assets.lake.drawing import COLOURS, plain

_WIDTH, _LEFT, _RIGHT, _TOP, _LANE = 1080, 250, 14, 34, 22
#: incidents and faults drawn at most; the rest is counted
_LANES = 40
_FOUND, _MISSED, _BENIGN, _WRONG = COLOURS[2], COLOURS[1], "#8a8a8a", COLOURS[4]
_RIGHT_COLOUR, _PAGE = COLOURS[0], COLOURS[3]
_STEPS = (60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800)
#: labels of the axis at most
_TICKS = 9


@dataclass(frozen=True, slots=True)
class _Scale:
    start: int
    end: int

    def x(self, at: int) -> float:
        """Pixels of an instant; beyond the ends it is put at them."""
        share = (min(max(at, self.start), self.end) - self.start) / max(self.end - self.start, 1)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def timeline(score: StormScore, alerts: pl.DataFrame, incidents: pl.DataFrame, pages: pl.DataFrame) -> str:
    """An SVG document: alerts as ticks, incidents as bars with their pages, then faults and ordinary events.

    Args:
        alerts: rows of ``tables.ALERTS``, all revisions.
        incidents, pages: as ``rehearsal.incidents_of`` gives them.
    """
    scale = _Scale(score.start, score.end)
    right = {incident for fault in score.faults for incident in fault.incidents}
    parts: list[str] = []
    y = _TOP
    y = _alerts(parts, scale, y, alerts, incidents, right)
    y = _incidents(parts, scale, y, incidents, pages, right)
    y = _faults(parts, scale, y, score.faults)
    y = _benign(parts, scale, y, score)
    axis = _axis(scale, y)
    height = y + 26
    name = f"{score.scenario}: {len(score.found)} of {len(score.faults)} faults found, {score.pages.total} pages"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" font-family="sans-serif" font-size="12"><title>{html.escape(plain(name, 200))}</title>'
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>{_key()}{"".join(axis)}{"".join(parts)}</svg>'
    )


def _alerts(
    parts: list[str], scale: _Scale, y: int, alerts: pl.DataFrame, incidents: pl.DataFrame, right: set[str]
) -> int:
    owners = {
        alert: incident
        for incident, members in incidents.select("incident_id", "alert_ids").iter_rows()
        for alert in members
    }
    shown = firings_of(alerts).filter(
        (pl.col("severity_number") >= WARNING) & pl.col("fired_at").is_between(scale.start, scale.end)
    )
    parts.append(_label(y, f"alerts ({shown['alert_id'].n_unique():,})"))
    for row in shown.iter_rows(named=True):
        x = scale.x(row["fired_at"])
        colour = _RIGHT_COLOUR if owners.get(row["alert_id"]) in right else _WRONG
        text = f"{_clock(row['fired_at'])} {row['title']}"
        parts.append(
            f'<line x1="{x:.1f}" y1="{y + 3}" x2="{x:.1f}" y2="{y + _LANE - 5}" stroke="{colour}" stroke-width="1.5" '
            f'stroke-opacity="0.7"><title>{html.escape(plain(text, 200))}</title></line>'
        )
    return y + _LANE + 8


def _incidents(
    parts: list[str], scale: _Scale, y: int, incidents: pl.DataFrame, pages: pl.DataFrame, right: set[str]
) -> int:
    shown = incidents.filter(
        (pl.col("started_at").dt.epoch("us") <= scale.end)
        & (pl.col("resolved_at").is_null() | (pl.col("resolved_at").dt.epoch("us") >= scale.start))
        & ~pl.col("withdrawn")
    ).with_columns(pl.col("started_at").dt.epoch("us"), pl.col("resolved_at").dt.epoch("us"))
    paged: dict[str, list[int]] = {}
    for incident, at in pages.select("incident_id", pl.col("at").dt.epoch("us")).iter_rows():
        paged.setdefault(incident, []).append(at)
    for row in shown.head(_LANES).iter_rows(named=True):
        incident = row["incident_id"]
        colour = _RIGHT_COLOUR if incident in right else _WRONG
        members = len(row["alert_ids"])
        text = f"{incident} P{row['priority']}, {members} alert{'s' if members != 1 else ''}: {row['title']}"
        parts.append(_label(y, f"{incident}  P{row['priority']}"))
        parts.append(_bar(scale, y, row["started_at"], row["resolved_at"] or scale.end, colour, text, row["title"]))
        for at in paged.get(incident, ()):
            if scale.start <= at <= scale.end:
                x = scale.x(at)
                parts.append(
                    f'<path d="M{x:.1f} {y + 1} l5 8 h-10 z" fill="{_PAGE}"><title>page at {_clock(at)}</title></path>'
                )
        y += _LANE
    if shown.height > _LANES:
        parts.append(_label(y, f"and {shown.height - _LANES} more incidents"))
        y += _LANE
    return y + 8


def _faults(parts: list[str], scale: _Scale, y: int, faults: Sequence[FaultScore]) -> int:
    for number, found in enumerate(faults):
        if number == _LANES:
            parts.append(_label(y, f"and {len(faults) - _LANES} more faults"))
            return y + _LANE + 8
        fault = found.fault
        what = f"found after {_span(found.delay or 0.0)}" if found.found else "missed"
        text = f"{fault.title or fault.kind} on {', '.join(fault.roots)}, {_clock(fault.start)}: {what}"
        parts.append(_label(y, f"{fault.fault_id} ({what})"))
        colour = _FOUND if found.found else _MISSED
        parts.append(_bar(scale, y, fault.start, fault.end, colour, text, f"{fault.kind} on {fault.roots[0]}"))
        if found.found_at is not None:
            x = scale.x(found.found_at)
            parts.append(
                f'<line x1="{x:.1f}" y1="{y}" x2="{x:.1f}" y2="{y + _LANE - 3}" stroke="#000" stroke-width="2">'
                f"<title>first alert at {_clock(found.found_at)}</title></line>"
            )
        y += _LANE
    return y + 8 if faults else y


def _benign(parts: list[str], scale: _Scale, y: int, score: StormScore) -> int:
    if not score.benign:
        return y
    kinds: dict[str, list[str]] = {}
    for one in score.benign:
        event = one.event
        text = f"{event.kind} on {', '.join(event.hosts[:4])}, {_clock(event.start)}: ordinary, {one.alerts} alerts"
        bar = _bar(scale, 0, event.start, event.end, _WRONG if one.alerts else _BENIGN, text, "")
        kinds.setdefault(event.kind, []).append(bar)
    for kind, bars in kinds.items():
        parts.append(_label(y, f"{kind} (ordinary, {len(bars)})"))
        parts.append(f'<g transform="translate(0 {y})">{"".join(bars)}</g>')
        y += _LANE
    return y + 8


def _axis(scale: _Scale, y: int) -> list[str]:
    span = (scale.end - scale.start) / MICROS_PER_SECOND
    step = next((step for step in _STEPS if span / step <= _TICKS), _STEPS[-1]) * MICROS_PER_SECOND
    long = span > 36 * 3_600
    parts = []
    for at in range(-(-scale.start // step) * step, scale.end + 1, step):
        x = scale.x(at)
        text = f"{instant(at):%a %d %b}" if long else f"{instant(at):%H:%M}"
        parts.append(f'<line x1="{x:.1f}" y1="{_TOP - 4}" x2="{x:.1f}" y2="{y}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{x:.1f}" y="{y + 16}" text-anchor="middle" fill="#555">{text}</text>')
    return parts


def _key() -> str:
    entries = (
        ("explained by a fault", _RIGHT_COLOUR),
        ("false alarm", _WRONG),
        ("page", _PAGE),
        ("fault found", _FOUND),
        ("fault missed", _MISSED),
        ("ordinary", _BENIGN),
    )
    return "".join(
        f'<rect x="{_LEFT + number * 135}" y="8" width="12" height="12" fill="{colour}"/>'
        f'<text x="{_LEFT + number * 135 + 17}" y="18" fill="#333">{text}</text>'
        for number, (text, colour) in enumerate(entries)
    )


def _bar(scale: _Scale, y: int, start: int, end: int, colour: str, text: str, inside: str) -> str:
    x = scale.x(start)
    width = max(scale.x(end) - x, 3.0)
    drawn = (
        f'<rect x="{x:.1f}" y="{y + 2}" width="{width:.1f}" height="{_LANE - 6}" rx="2" fill="{colour}" '
        f'fill-opacity="0.75"><title>{html.escape(plain(text, 240))}</title></rect>'
    )
    room = int((_WIDTH - _RIGHT - x) / 6.5)
    if not inside or room < 12:
        return drawn
    return drawn + (
        f'<text x="{x + 5:.1f}" y="{y + 15}" font-size="11" fill="#111" pointer-events="none">'
        f"{html.escape(plain(inside, min(room, 90)))}</text>"
    )


def _label(y: int, text: str) -> str:
    shown = html.escape(plain(text, 38))
    return f'<text x="{_LEFT - 8}" y="{y + 15}" text-anchor="end" fill="#333">{shown}</text>'


def _clock(at: int) -> str:
    return f"{instant(at):%a %H:%M:%S}"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3_600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds * MICROS_PER_SECOND / MICROS_PER_HOUR:.1f} h"
