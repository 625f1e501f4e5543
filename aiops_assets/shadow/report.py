"""The comparison as people and scripts read it: Markdown with two pictures, and JSON-able values.

What belongs here: wording, tables, drawing. What does not: counting (``comparison``).
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import orjson
import polars as pl

from aiops_assets.hours import MICROS_PER_SECOND, instant
from aiops_assets.lake.drawing import COLOURS, plain
from aiops_assets.shadow.comparison import Comparison, Episode, Load, RuleComparison
from aiops_assets.shadow.conversion import Conversion, rule_yaml

_SHOWN_DIFFERENCES = 20
_LANES = 25
_THEIRS, _OURS = COLOURS[1], COLOURS[0]
_CELL_CHARS = 300
_STRUCTURE = frozenset("\\`*_[]<>|&#!~$")
_WIDTH, _LANE, _LEFT, _TOP = 960, 26, 230, 34


@dataclass(frozen=True, slots=True)
class Imported:
    """What was imported: numbers for the head of the report. ``start`` and ``end`` in seconds."""

    url: str
    shadow_id: str
    source: str
    start: int
    end: int
    step: int
    series: int
    samples: int
    refused: int
    requests: int = 0
    retries: int = 0
    partial: int = 0
    seconds: float = 0.0


def to_dict(
    imported: Imported, conversion: Conversion, recording: int, comparison: Comparison | None
) -> dict[str, Any]:
    """Everything as JSON-able values; instants in ISO 8601 UTC, spans in seconds."""
    return {
        "prometheus": imported.url,
        "import": {
            "id": imported.shadow_id,
            "source": imported.source,
            "from": _iso(imported.start * MICROS_PER_SECOND),
            "to": _iso(imported.end * MICROS_PER_SECOND),
            "step_seconds": imported.step,
            "series": imported.series,
            "samples": imported.samples,
            "refused_samples": imported.refused,
            "requests": imported.requests,
            "retries": imported.retries,
            "partial_answers": imported.partial,
            "seconds": round(imported.seconds, 3),
        },
        "rules": {
            "converted": [
                {
                    "alert": entry.source.alert,
                    "place": entry.source.place,
                    "group": entry.source.group,
                    "expr": entry.source.expr,
                    "exactness": entry.exactness,
                    "notes": list(entry.notes),
                    "rule": entry.rule.model_dump(mode="json", by_alias=True, exclude_defaults=True),
                }
                for entry in conversion.converted
            ],
            "not_converted": [
                {
                    "alert": entry.source.alert,
                    "place": entry.source.place,
                    "group": entry.source.group,
                    "expr": entry.source.expr,
                    "reason": entry.reason,
                }
                for entry in conversion.unconverted
            ],
            "recording": recording,
        },
        "comparison": None if comparison is None else _comparison_dict(comparison),
    }


def _comparison_dict(comparison: Comparison) -> dict[str, Any]:
    return {
        "time_zone": comparison.zone,
        "rules": [
            {
                "alert": entry.alert,
                "rules": entry.rules,
                "labels": entry.static_labels,
                "exactness": entry.exactness,
                "series": entry.watched,
                "theirs": len(entry.theirs),
                "ours": len(entry.ours),
                "both": entry.both,
                "only_theirs": len(entry.only_theirs),
                "only_ours": len(entry.only_ours),
                "before_warm_up": entry.warm_up,
                "median_lead_seconds": entry.lead_seconds,
                "median_duration_seconds": {
                    "theirs": _median_duration(entry.theirs),
                    "ours": _median_duration(entry.ours),
                },
                "differences": {
                    "only_theirs": [_episode(episode) for episode in entry.only_theirs],
                    "only_ours": [_episode(episode) for episode in entry.only_ours],
                },
            }
            for entry in comparison.rules
        ],
        "without_twin": {name: len(found) for name, found in comparison.without_twin.items()},
        "shifts": [
            {
                "shift": load.shift,
                "days": load.days,
                "theirs": load.theirs,
                "ours": load.ours,
                "most_theirs": load.most_theirs,
                "most_ours": load.most_ours,
            }
            for load in comparison.shifts
        ],
        "by_day": [
            {"day": day, "shift": shift, "theirs": theirs, "ours": ours}
            for day, shift, theirs, ours in comparison.by_day
        ],
        "statistics": {
            "findings": len(comparison.statistics),
            "beside_an_alert": comparison.statistics_beside,
            "alerts_with_host": comparison.theirs_with_host,
            "alerts_also_found": comparison.theirs_seen_by_statistics,
        },
    }


def write_report(
    path: Path, imported: Imported, conversion: Conversion, recording: int, comparison: Comparison
) -> list[Path]:
    """Write the Markdown file and, beside it, its pictures; what was written."""
    pictures = {
        path.with_name(f"{path.stem}-pages.svg"): pages_plot(comparison),
        path.with_name(f"{path.stem}-episodes.svg"): episodes_plot(comparison),
    }
    names = [picture.name for picture in pictures]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(markdown(imported, conversion, recording, comparison, names), "utf-8")
    for picture, svg in pictures.items():
        picture.write_text(svg, "utf-8")
    return [path, *pictures]


def markdown(
    imported: Imported, conversion: Conversion, recording: int, comparison: Comparison, pictures: Sequence[str]
) -> str:
    """The report; ``pictures`` are the file names of the plots of pages and of episodes."""
    compared = comparison.rules
    theirs, both = sum(len(entry.theirs) for entry in compared), sum(entry.both for entry in compared)
    ours = sum(len(entry.ours) for entry in compared)
    only_ours = sum(len(entry.only_ours) for entry in compared)
    missed = sum(len(entry.only_theirs) for entry in compared)
    leads = [lead for entry in compared for lead in entry.leads]
    lead = f" Median lead: {_lead(median(leads))}." if leads else ""
    refused = f", {imported.refused:,} not stored (NaN, infinite, native histograms)" if imported.refused else ""
    partial = (
        f"\n\n**{imported.partial} answers were called incomplete by the server itself**; the history has holes."
        if imported.partial
        else ""
    )
    parts = [
        "# What would have paged, beside what did",
        f"{_escaped(imported.url)}, {_day_time(imported.start)} to {_day_time(imported.end)} UTC, every "
        f"{imported.step} s: {imported.samples:,} samples of {imported.series:,} series{refused}.{partial}",
        f"**{len(conversion.converted)} of {len(conversion.converted) + len(conversion.unconverted)} alert rules were "
        f"converted** (recording rules beside them: {recording}). They paged {theirs} times in Prometheus; ours would "
        f"have paged {ours} times: {both} of theirs were seen by both, {missed} only by Prometheus, {only_ours} "
        f"only by ours.{lead}",
        "## By rule",
        _table(_rules_frame(compared)),
        "`both`: episodes of Prometheus that ours saw too, up to five minutes apart. `lead`: how much earlier ours "
        "paged, median. `warm-up`: over before ours could know, at the very start of the history. *exact* rules give "
        "the same verdict at the same samples; *close* ones say in their notes where they differ. Ours take an alert "
        "that starts again within ten minutes for the same one, and end a silent series only after a day.",
        f"![Episodes by rule]({pictures[1]})",
        "## By shift",
        _table(_shifts_frame(comparison.shifts)),
        f"Hours are those of {_escaped(comparison.zone)}; a page belongs to the shift in which it began. Alerts "
        "of rules that were not converted are counted on the side of Prometheus.",
        f"![Pages by day]({pictures[0]})",
        *_differences(compared),
        *_without_twin(comparison),
        *_statistics(comparison),
        *_not_converted(conversion),
        *_converted(conversion),
    ]
    return "\n\n".join(parts) + "\n"


def _rules_frame(compared: Sequence[RuleComparison]) -> pl.DataFrame:
    rows = [
        {
            "alert": entry.alert + _static(entry.static_labels),
            "conversion": entry.exactness,
            "series": entry.watched,
            "theirs": len(entry.theirs),
            "ours": len(entry.ours),
            "both": entry.both,
            "only theirs": len(entry.only_theirs),
            "only ours": len(entry.only_ours),
            "warm-up": entry.warm_up,
            "lead": "" if entry.lead_seconds is None else _lead(entry.lead_seconds),
            "lasting (theirs)": _span(_median_duration(entry.theirs)),
            "lasting (ours)": _span(_median_duration(entry.ours)),
        }
        for entry in compared
    ]
    return pl.DataFrame(rows) if rows else pl.DataFrame({"alert": []}, schema={"alert": pl.String})


def _shifts_frame(loads: Sequence[Load]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "shift": load.shift,
                "theirs": load.theirs,
                "ours": load.ours,
                "theirs a shift": f"{load.theirs / load.days:.2f}",
                "ours a shift": f"{load.ours / load.days:.2f}",
                "most in one (theirs)": load.most_theirs,
                "most in one (ours)": load.most_ours,
            }
            for load in loads
        ]
    )


def _differences(compared: Sequence[RuleComparison]) -> list[str]:
    rows = [
        (episode.start, entry.alert, who, episode)
        for entry in compared
        for who, found in (("only Prometheus", entry.only_theirs), ("only ours", entry.only_ours))
        for episode in found
    ]
    if not rows:
        return []
    rows.sort(key=lambda row: row[:3])
    shown = pl.DataFrame(
        [
            {
                "paged at": f"{instant(at):%Y-%m-%d %H:%M:%S}",
                "alert": alert,
                "who": who,
                "lasting": _span(_duration(episode)),
                "labels": _pairs(episode.labels),
            }
            for at, alert, who, episode in rows[:_SHOWN_DIFFERENCES]
        ]
    )
    more = f"\n\n{len(rows) - len(shown)} more are in the JSON." if len(rows) > len(shown) else ""
    return ["## Where they differ", _table(shown) + more]


def _without_twin(comparison: Comparison) -> list[str]:
    if not comparison.without_twin:
        return []
    frame = pl.DataFrame(
        {
            "alert": list(comparison.without_twin),
            "paged": [len(found) for found in comparison.without_twin.values()],
            "lasting": [_span(_median_duration(found)) for found in comparison.without_twin.values()],
        }
    )
    return ["## Alerts of Prometheus without a twin", _table(frame)]


def _statistics(comparison: Comparison) -> list[str]:
    if not comparison.statistics:
        return []
    text = (
        f"The statistics that need no rule would have opened {len(comparison.statistics)} findings (warnings, not "
        f"counted above). {comparison.statistics_beside} of them stand beside an alert of Prometheus on the same host; "
        f"of the {comparison.theirs_with_host} alerts that name a host they saw {comparison.theirs_seen_by_statistics}."
    )
    return ["## Statistics", text]


def _not_converted(conversion: Conversion) -> list[str]:
    if not conversion.unconverted:
        return []
    frame = pl.DataFrame(
        [
            {"alert": entry.source.alert, "place": entry.source.place, "why": entry.reason, "expr": entry.source.expr}
            for entry in conversion.unconverted
        ]
    )
    return ["## Not converted", _table(frame)]


def _converted(conversion: Conversion) -> list[str]:
    if not conversion.converted:
        return []
    frame = pl.DataFrame(
        [
            {
                "alert": entry.source.alert,
                "rule": entry.rule.name,
                "place": entry.source.place,
                "conversion": entry.exactness,
                "notes": "; ".join(entry.notes),
            }
            for entry in conversion.converted
        ]
    )
    fence = "```"
    yaml = "\n".join(line.replace("`", "'") for line in rule_yaml(conversion).splitlines())
    return ["## Converted", _table(frame), f"For `aiops.yaml`:\n\n{fence}yaml\n{yaml}\n{fence}"]


def _table(frame: pl.DataFrame) -> str:
    """A frame as a Markdown table that can also be read as it stands."""
    if frame.is_empty():
        return "none"

    def line(cells: Sequence[object]) -> str:
        return "| " + " | ".join(_escaped("" if cell is None else cell) for cell in cells) + " |"

    rule = "|" + "".join(" ---: |" if dtype.is_numeric() else " --- |" for dtype in frame.dtypes)
    return "\n".join([line(frame.columns), rule, *(line(row) for row in frame.rows())])


def _escaped(value: object) -> str:
    """Text from outside that forms no Markdown structure."""
    return "".join(f"\\{char}" if char in _STRUCTURE else char for char in plain(value, _CELL_CHARS))


def pages_plot(comparison: Comparison) -> str:
    """SVG: pages by local day, theirs and ours side by side."""
    by_day: dict[str, list[int]] = {}
    for day, _, theirs, ours in comparison.by_day:
        pair = by_day.setdefault(day, [0, 0])
        pair[0], pair[1] = pair[0] + theirs, pair[1] + ours
    height, base, left = 200, 172, 40
    most = max((count for pair in by_day.values() for count in pair), default=0) or 1
    room = (_WIDTH - 12 - left) / max(len(by_day), 1)
    wide = min(room * 0.4, 24.0)
    parts = [
        *_legend("Pages a day"),
        f'<line x1="{left}" y1="{base}" x2="{_WIDTH - 12}" y2="{base}" stroke="#888"/>',
        f'<line x1="{left}" y1="{_TOP}" x2="{_WIDTH - 12}" y2="{_TOP}" stroke="#ddd"/>',
        _text(left - 4, _TOP + 4, str(most), anchor="end"),
        _text(left - 4, base + 4, "0", anchor="end"),
    ]
    shown_every = max(1, -(-len(by_day) // 16))
    for number, (day, pair) in enumerate(by_day.items()):
        middle = left + (number + 0.5) * room
        for count, x, colour in ((pair[0], middle - wide, _THEIRS), (pair[1], middle, _OURS)):
            tall = (base - _TOP) * count / most
            parts.append(
                f'<rect x="{x:.1f}" y="{base - tall:.1f}" width="{wide:.1f}" height="{tall:.1f}" fill="{colour}">'
                f"<title>{day}: {count}</title></rect>"
            )
        if number % shown_every == 0:
            parts.append(_text(middle, base + 16, f"{date.fromisoformat(day):%d %b}", anchor="middle"))
    return _svg(parts, height)


def episodes_plot(comparison: Comparison) -> str:
    """SVG: a lane a rule, Prometheus' episodes above, ours below; the rules that paged most."""
    lanes = [entry for entry in comparison.rules if entry.theirs or entry.ours]
    lanes.sort(key=lambda entry: (-len(entry.theirs) - len(entry.ours), entry.alert))
    lanes = lanes[:_LANES]
    height = _TOP + _LANE * max(len(lanes), 1) + 24
    parts = _legend("Episodes")
    span = max(comparison.end - comparison.start, 1)

    def x(at: int) -> float:
        share = min(max((at - comparison.start) / span, 0.0), 1.0)
        return _LEFT + share * (_WIDTH - 12 - _LEFT)

    for day in _days(comparison.start, comparison.end):
        at = x(day)
        parts.append(f'<line x1="{at:.1f}" y1="{_TOP - 6}" x2="{at:.1f}" y2="{height - 20}" stroke="#e4e4e4"/>')
        parts.append(_text(at, height - 6, f"{instant(day):%d %b}", anchor="middle"))
    if not lanes:
        parts.append(_text(_LEFT, _TOP + 14, "no converted rule paged on either side"))
    for number, entry in enumerate(lanes):
        top = _TOP + number * _LANE
        parts.append(_text(8, top + 14, plain(entry.alert + _static(entry.static_labels), 36)))
        parts.append(f'<line x1="8" y1="{top + _LANE - 3}" x2="{_WIDTH - 12}" y2="{top + _LANE - 3}" stroke="#eee"/>')
        for episodes, y, colour in ((entry.theirs, top + 1, _THEIRS), (entry.ours, top + 11, _OURS)):
            for episode in episodes:
                first = x(episode.start)
                last = x(comparison.end if episode.end is None else episode.end)
                parts.append(
                    f'<rect x="{first:.1f}" y="{y}" width="{max(last - first, 1.5):.1f}" height="8" fill="{colour}" '
                    f'fill-opacity="0.75"><title>{html.escape(_episode_title(episode))}</title></rect>'
                )
    return _svg(parts, height)


def _svg(parts: Sequence[str], height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'font-family="sans-serif" font-size="11"><rect width="{_WIDTH}" height="{height}" fill="#fff"/>'
        f"{''.join(parts)}</svg>"
    )


def _legend(title: str) -> list[str]:
    return [
        _text(8, 16, title, weight="bold"),
        f'<rect x="110" y="8" width="12" height="8" fill="{_THEIRS}"/>' + _text(126, 16, "Prometheus"),
        f'<rect x="210" y="8" width="12" height="8" fill="{_OURS}"/>' + _text(226, 16, "ours"),
    ]


def _episode_title(episode: Episode) -> str:
    return plain(f"{instant(episode.start):%Y-%m-%d %H:%M:%S} UTC {episode.title or episode.labels}", 200)


def _days(start: int, end: int) -> list[int]:
    """Midnights (UTC) within a stretch of time, thinned to at most sixteen."""
    day = 86_400 * MICROS_PER_SECOND
    found = list(range(-(-start // day) * day, end, day))
    return found[:: max(1, -(-len(found) // 16))]


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="#333">'
        f"{html.escape(text)}</text>"
    )


def _static(labels: Mapping[str, str]) -> str:
    return f" ({', '.join(labels.values())})" if labels else ""


def _pairs(labels: str) -> str:
    """Canonical JSON labels as PromQL writes them."""
    return ", ".join(f'{name}="{value}"' for name, value in orjson.loads(labels).items())


def _duration(episode: Episode) -> float | None:
    return None if episode.end is None else (episode.end - episode.start) / MICROS_PER_SECOND


def _median_duration(episodes: Sequence[Episode]) -> float | None:
    known = [duration for episode in episodes if (duration := _duration(episode)) is not None]
    return median(known) if known else None


def _span(seconds: float | None) -> str:
    return "" if seconds is None else str(timedelta(seconds=round(seconds)))


def span_text(episodes: Sequence[Episode]) -> str:
    """How long episodes lasted, median; a dash when none has ended."""
    return _span(_median_duration(episodes)) or "–"


def lead_text(seconds: float | None) -> str:
    """A lead in words, empty when there is none."""
    return "" if seconds is None else _lead(seconds)


def _lead(seconds: float) -> str:
    if abs(seconds) < 0.5:
        return "same time"
    return f"{_span(abs(seconds))} {'earlier' if seconds > 0 else 'later'}"


def _episode(episode: Episode) -> dict[str, Any]:
    return {
        "paged_at": _iso(episode.start),
        "ended_at": None if episode.end is None else _iso(episode.end),
        "labels": episode.labels,
    }


def _iso(at: int) -> str:
    return instant(at).isoformat()


def _day_time(seconds: int) -> str:
    return f"{instant(seconds * MICROS_PER_SECOND):%Y-%m-%d %H:%M}"
