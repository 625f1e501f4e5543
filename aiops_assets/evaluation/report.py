"""A score as people and scripts read it: JSON-able values, frames for tables, a page with a picture, and files.

What belongs here: wording and files. What does not: counting (``scoring``), drawing (``timeline``) and the terminal
(``cli``).
"""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import polars as pl

from aiops_assets.evaluation.scoring import Counts, FaultScore, StormScore
from aiops_assets.evaluation.timeline import timeline
from aiops_assets.hours import instant
from aiops_assets.lake.drawing import plain
from aiops_assets.landing.writer import fsync_folder

if TYPE_CHECKING:
    from aiops_assets.evaluation.storm import Evaluation

_COUNTS = ("total", "right", "wrong", "precision")
#: names of false alarms that are shown
_SHOWN = 12
SUMMARY_SCHEMA: dict[str, pl.DataType] = {
    "scenario": pl.String(),
    "series": pl.Int64(),
    "hours": pl.Float64(),
    "faults": pl.Int64(),
    "found": pl.Int64(),
    "paged": pl.Int64(),
    "recall": pl.Float64(),
    "median_delay": pl.Float64(),
    "median_delay_visible": pl.Float64(),
    "alerts": pl.Int64(),
    "incidents": pl.Int64(),
    "pages": pl.Int64(),
    "false_alerts": pl.Int64(),
    "false_incidents": pl.Int64(),
    "false_pages": pl.Int64(),
    "false_pages_shift": pl.Float64(),
    "false_pages_shift_10k": pl.Float64(),
    "benign": pl.Int64(),
    "benign_mistaken": pl.Int64(),
    "anomalies": pl.Int64(),
    "compression": pl.Float64(),
    "grouping_precision": pl.Float64(),
    "grouping_recall": pl.Float64(),
    "hit_1": pl.Int64(),
    "hit_3": pl.Int64(),
    "reciprocal_rank": pl.Float64(),
    "seconds": pl.Float64(),
}
FAULTS_SCHEMA: dict[str, pl.DataType] = {
    "scenario": pl.String(),
    "fault": pl.String(),
    "kind": pl.String(),
    "root": pl.String(),
    "start": pl.String(),
    "found": pl.Boolean(),
    "delay": pl.Float64(),
    "delay_visible": pl.Float64(),
    "paged": pl.Boolean(),
    "alerts": pl.Int64(),
    "incidents": pl.Int64(),
    "root_rank": pl.Int64(),
    "change_rank": pl.Int64(),
    "mixed_with": pl.String(),
}


def document(score: StormScore) -> dict[str, Any]:
    """JSON-able values: instants in ISO 8601 (UTC), spans in seconds, shares from 0 to 1, ``null`` where none is."""
    return {
        "scenario": score.scenario,
        "seed": score.seed,
        "from": _iso(score.start),
        "to": _iso(score.end),
        "shifts": score.shifts,
        **asdict(score.volume),
        "recall": score.recall,
        "recall_paged": score.recall_paged,
        "recall_by_kind": {kind: {"found": found, "faults": total} for kind, (found, total) in score.by_kind().items()},
        "median_delay": _median([fault.delay for fault in score.found]),
        "median_delay_visible": _median([fault.delay_visible for fault in score.found]),
        "alerts": _counts(score.alerts),
        "incidents": _counts(score.incidents),
        "pages": _counts(score.pages),
        "notices": score.notices,
        "found_late": score.found_late,
        "per_shift": _rates(score.per_shift, score),
        "per_shift_and_10k_series": _rates(score.per_shift_and_10k, score),
        "false_alarms": dict(score.false_alarms),
        "benign": {"events": len(score.benign), "mistaken": score.benign_mistaken},
        "compression": score.compression,
        "anomalies_per_incident": score.volume.anomalies / score.incidents.total if score.incidents.total else None,
        "grouping": {
            "precision": score.grouping.precision,
            "recall": score.grouping.recall,
            "split": score.grouping.split,
            "merged": score.grouping.merged,
            "foreign": score.grouping.foreign,
        },
        "root_cause": {
            "hit_1": score.hits(1),
            "hit_3": score.hits(3),
            "of": len(score.found),
            "reciprocal_rank": score.reciprocal_rank,
        },
        "faults": [_fault(fault) for fault in score.faults],
        "ordinary_events": [
            {"event": one.event.event_id, "kind": one.event.kind, "from": _iso(one.event.start), "alerts": one.alerts}
            for one in score.benign
        ],
        "problems": list(score.problems),
        "seconds": round(score.seconds, 1),
    }


def summary(scores: Sequence[StormScore]) -> pl.DataFrame:
    """``SUMMARY_SCHEMA``: a row a scenario; delays in seconds."""
    rows = [
        {
            "scenario": score.scenario,
            "series": score.volume.series,
            "hours": score.shifts * 8,
            "faults": len(score.faults),
            "found": len(score.found),
            "paged": sum(fault.paged_at is not None for fault in score.faults),
            "recall": score.recall,
            "median_delay": _median([fault.delay for fault in score.found]),
            "median_delay_visible": _median([fault.delay_visible for fault in score.found]),
            "alerts": score.alerts.total,
            "incidents": score.incidents.total,
            "pages": score.pages.total,
            "false_alerts": score.alerts.wrong,
            "false_incidents": score.incidents.wrong,
            "false_pages": score.pages.wrong,
            "false_pages_shift": score.per_shift(score.pages.wrong),
            "false_pages_shift_10k": score.per_shift_and_10k(score.pages.wrong),
            "benign": len(score.benign),
            "benign_mistaken": score.benign_mistaken,
            "anomalies": score.volume.anomalies,
            "compression": score.compression,
            "grouping_precision": score.grouping.precision,
            "grouping_recall": score.grouping.recall,
            "hit_1": score.hits(1),
            "hit_3": score.hits(3),
            "reciprocal_rank": score.reciprocal_rank,
            "seconds": score.seconds,
        }
        for score in scores
    ]
    return pl.DataFrame(rows, schema=SUMMARY_SCHEMA, orient="row")


def totals(scores: Sequence[StormScore]) -> dict[str, Any]:
    """All scenarios together; rates a shift over all of their shifts, weighted by their series."""
    faults = [fault for score in scores for fault in score.faults]
    found = [fault for fault in faults if fault.found]
    wrong, pages = sum(s.pages.wrong for s in scores), sum(s.pages.total for s in scores)
    alerts, incidents = sum(s.alerts.total for s in scores), sum(s.incidents.total for s in scores)
    shifts = sum(score.shifts for score in scores)
    series_shifts = sum(score.shifts * score.volume.series for score in scores)
    kinds: dict[str, list[int]] = {}
    for fault in faults:
        entry = kinds.setdefault(fault.fault.kind, [0, 0])
        entry[0] += fault.found
        entry[1] += 1
    return {
        "scenarios": len(scores),
        "faults": len(faults),
        "found": len(found),
        "paged": sum(fault.paged_at is not None for fault in faults),
        "recall": len(found) / len(faults) if faults else None,
        "recall_by_kind": {kind: {"found": n, "faults": of} for kind, (n, of) in sorted(kinds.items())},
        "median_delay": _median([fault.delay for fault in found]),
        "median_delay_visible": _median([fault.delay_visible for fault in found]),
        "alerts": alerts,
        "incidents": incidents,
        "pages": pages,
        "false_alerts": sum(score.alerts.wrong for score in scores),
        "false_incidents": sum(score.incidents.wrong for score in scores),
        "false_pages": wrong,
        "page_precision": 1 - wrong / pages if pages else None,
        "false_pages_per_shift": wrong / shifts if shifts else None,
        "false_pages_per_shift_and_10k_series": wrong * 10_000 / series_shifts if series_shifts else None,
        "benign": sum(len(score.benign) for score in scores),
        "benign_mistaken": sum(score.benign_mistaken for score in scores),
        "compression": 1 - incidents / alerts if alerts else None,
        "split": sum(score.grouping.split for score in scores),
        "merged": sum(score.grouping.merged for score in scores),
        "hit_1": sum(score.hits(1) for score in scores),
        "hit_3": sum(score.hits(3) for score in scores),
        "reciprocal_rank": sum(1 / fault.rank if fault.rank else 0.0 for fault in found) / len(found)
        if found
        else None,
        "seconds": round(sum(score.seconds for score in scores), 1),
    }


def faults_frame(scores: Sequence[StormScore]) -> pl.DataFrame:
    """``FAULTS_SCHEMA``: a row a fault; delays in seconds, ``start`` in ISO 8601."""
    rows = [
        {
            "scenario": score.scenario,
            "fault": one.fault.fault_id,
            "kind": one.fault.kind,
            "root": one.fault.roots[0],
            "start": _iso(one.fault.start),
            "found": one.found,
            "delay": one.delay,
            "delay_visible": one.delay_visible,
            "paged": one.paged_at is not None,
            "alerts": one.alerts,
            "incidents": len(one.incidents),
            "root_rank": one.rank,
            "change_rank": one.change_rank,
            "mixed_with": ", ".join(one.mixed_with),
        }
        for score in scores
        for one in score.faults
    ]
    return pl.DataFrame(rows, schema=FAULTS_SCHEMA, orient="row")


def picture(evaluation: Evaluation) -> str:
    """The timeline as an SVG document."""
    passage = evaluation.passage
    return timeline(evaluation.score, passage.alerts, passage.incidents, passage.pages)


def page(evaluations: Sequence[Evaluation]) -> str:
    """A page of HTML that needs nothing from outside: sums, and for each scenario a timeline and its faults."""
    scores = [evaluation.score for evaluation in evaluations]
    body = [f"<h1>Storm evaluation</h1>{_summary_table(scores)}"]
    for evaluation in evaluations:
        score = evaluation.score
        title = f"{score.scenario}: {len(score.found)} of {len(score.faults)} faults found"
        body += [
            f'<h2 id="{_text(score.scenario)}">{_text(title)}</h2><p>{_sentence(score)}</p>',
            f'<div class="plot">{picture(evaluation)}</div>',
            _faults_table(score),
            _false_alarms(score),
            _problems(score),
        ]
    head = f'<meta charset="utf-8"><title>Storm evaluation</title>{_STYLE}'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>'


def write(evaluations: Sequence[Evaluation], folder: Path) -> list[Path]:
    """Write ``scores.json``, ``index.html`` and, a folder a scenario, truth, alerts, incidents and pages; the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for evaluation in evaluations:
        place = folder / evaluation.score.scenario
        place.mkdir(exist_ok=True)
        written.append(_file(place / "truth.json", _json(evaluation.truth)))
        written.append(_file(place / "score.json", _json(document(evaluation.score))))
        written.append(_file(place / "timeline.svg", picture(evaluation).encode()))
        passage = evaluation.passage
        for name, frame in (("alerts", passage.alerts), ("incidents", passage.incidents), ("pages", passage.pages)):
            target = place / f"{name}.parquet"
            temporary = target.with_name(f".{target.name}.{os.getpid()}")
            frame.write_parquet(temporary)
            temporary.replace(target)
            written.append(target)
        fsync_folder(place)
    scores = [evaluation.score for evaluation in evaluations]
    content = {"totals": totals(scores), "scenarios": [document(score) for score in scores]}
    written.append(_file(folder / "scores.json", _json(content)))
    written.append(_file(folder / "index.html", page(evaluations).encode()))
    fsync_folder(folder)
    return written


def _file(path: Path, content: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return path


def _json(value: Mapping[str, Any]) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2)


def _iso(at: int) -> str:
    return instant(at).isoformat(timespec="seconds").replace("+00:00", "Z")


def _median(values: Sequence[float | None]) -> float | None:
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    middle = len(known) // 2
    return known[middle] if len(known) % 2 else (known[middle - 1] + known[middle]) / 2


def _counts(counts: Counts) -> dict[str, Any]:
    return {name: getattr(counts, name) for name in _COUNTS}


def _rates(rate: Any, score: StormScore) -> dict[str, float]:
    parts = {"alerts": score.alerts, "incidents": score.incidents, "pages": score.pages}
    false = {f"false_{name}": round(rate(counts.wrong), 4) for name, counts in parts.items()}
    return {name: round(rate(counts.total), 4) for name, counts in parts.items()} | false


def _fault(one: FaultScore) -> dict[str, Any]:
    return {
        "fault": one.fault.fault_id,
        "kind": one.fault.kind,
        "title": one.fault.title,
        "roots": list(one.fault.roots),
        "from": _iso(one.fault.start),
        "to": _iso(one.fault.end),
        "found_at": None if one.found_at is None else _iso(one.found_at),
        "paged_at": None if one.paged_at is None else _iso(one.paged_at),
        "delay": one.delay,
        "delay_visible": one.delay_visible,
        "alerts": one.alerts,
        "incidents": list(one.incidents),
        "root_rank": one.rank,
        "change_rank": one.change_rank,
        "mixed_with": list(one.mixed_with),
    }


# -- HTML -------------------------------------------------------------------------------------------------------------

_STYLE = """<style>
body{font:14px/1.45 system-ui,sans-serif;color:#222;max-width:1120px;margin:24px auto;padding:0 12px}
table{border-collapse:collapse;margin:10px 0 18px;font-size:13px}td,th{padding:3px 9px;border-bottom:1px solid #ddd}
th{text-align:left;color:#555;font-weight:600}td.n,th.n{text-align:right}.plot{overflow-x:auto;border:1px solid #ddd}
.missed{color:#a33;font-weight:600}h2{margin-top:34px}
</style>"""
_HEAD = (
    ("scenario", "scenario"),
    ("faults", "faults"),
    ("found", "found"),
    ("paged", "paged"),
    ("median_delay", "median delay, s"),
    ("alerts", "alerts"),
    ("incidents", "incidents"),
    ("pages", "pages"),
    ("false_pages", "false pages"),
    ("false_pages_shift_10k", "… a shift and 10,000 series"),
    ("compression", "compression"),
    ("hit_1", "root cause first"),
    ("hit_3", "… in first three"),
)


def _summary_table(scores: Sequence[StormScore]) -> str:
    frame = summary(scores)
    head = "".join(f'<th class="n">{_text(name)}</th>' for _, name in _HEAD[1:])
    lines = []
    for row in frame.iter_rows(named=True):
        cells = "".join(f'<td class="n">{_cell(row[name])}</td>' for name, _ in _HEAD[1:])
        name = _text(row["scenario"])
        lines.append(f'<tr><td><a href="#{name}">{name}</a></td>{cells}</tr>')
    return f"<table><tr><th>scenario</th>{head}</tr>{''.join(lines)}</table>"


def _faults_table(score: StormScore) -> str:
    if not score.faults:
        return ""
    names = ("fault", "kind", "root", "found", "paged", "root cause", "mixed with")
    head = f"<tr>{''.join(f'<th>{name}</th>' for name in names)}</tr>"
    lines = []
    for one in score.faults:
        found = f"after {one.delay:.0f} s" if one.delay is not None else '<span class="missed">missed</span>'
        paged = "yes" if one.paged_at is not None else "no"
        rank = "-" if not one.found else f"place {one.rank}" if one.rank else "not listed"
        cells = (_text(one.fault.fault_id), _text(one.fault.kind), _text(one.fault.roots[0]), found, paged, rank)
        mixed = _text(", ".join(one.mixed_with))
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in (*cells, mixed)) + "</tr>")
    return f"<table>{head}{''.join(lines)}</table>"


def _false_alarms(score: StormScore) -> str:
    if not score.false_alarms:
        return ""
    shown = list(score.false_alarms.items())[:_SHOWN]
    lines = "".join(f'<tr><td>{_text(name)}</td><td class="n">{count:,}</td></tr>' for name, count in shown)
    return f'<table><tr><th>false alarms by</th><th class="n">alerts</th></tr>{lines}</table>'


def _problems(score: StormScore) -> str:
    return "".join(f'<p class="missed">{_text(line, 300)}</p>' for line in score.problems)


def _sentence(score: StormScore) -> str:
    volume = score.volume
    return _text(
        f"Seed {score.seed}, {_iso(score.start)} to {_iso(score.end)} ({score.shifts:.1f} shifts of 8 h); "
        f"{volume.series:,} series, {volume.points:,} points, {volume.anomalies:,} anomalous points, "
        f"{score.alerts.total:,} alerts, {score.incidents.total:,} incidents, {score.pages.total:,} pages, of which "
        f"{score.pages.wrong:,} false: {score.per_shift_and_10k(score.pages.wrong):.2f} a shift and 10,000 series.",
        600,
    )


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else f"{value:,}"


def _text(value: object, limit: int = 120) -> str:
    return html.escape(plain(value, limit))
