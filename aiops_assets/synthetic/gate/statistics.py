"""Data sets against what is expected of them: volumes, distributions, times of day, confidence.

What belongs here: gates that compare frequencies and shapes. What does not: rules of single records (``rules``), texts
(``texts``) and learners (``realism``). Distances: total variation of names (0 the same, 1 nothing shared), the
two-sample Kolmogorov–Smirnov statistic of numbers, differences of Cramér's V of pairs of names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from aiops_assets.promotion.gates import GateResult, Measure
from aiops_assets.synthetic.gate import drawings
from aiops_assets.synthetic.gate.features import present
from aiops_assets.synthetic.gate.subject import Subject
from aiops_assets.synthetic.golden.confidence import confidence as recomputed

_NAMES = (
    "category",
    "subcategory",
    "priority",
    "impact",
    "contact_type",
    "location",
    "assignment_group",
    "business_service",
    "close_code",
    "reassignment_count",
    "reopen_count",
    "made_sla",
    "language",
    "state",
)
_PAIRS = (
    ("category", "assignment_group"),
    ("category", "priority"),
    ("category", "business_service"),
    ("priority", "made_sla"),
    ("location", "language"),
    ("contact_type", "category"),
)
#: what is not chance: distances up to this are no finding whatever the number of records
_SLACK_TV = 0.06
_SLACK_KS = 0.06
_SLACK_V = 0.12


def volumes(subject: Subject) -> GateResult:
    """Categories and contact types come as often as the configuration (or the reference) weighs them."""
    frame = subject.frame
    n = max(1, frame.height)
    measures: dict[str, Measure] = {}
    rows: list[dict[str, Any]] = []
    plot: str | None = None
    for name in ("category",):
        expected = _weights(subject, name)
        if name not in frame.columns or not expected:
            continue
        counts = dict(frame[name].cast(pl.String).value_counts().iter_rows())
        total = sum(expected.values())
        shares = {key: weight / total for key, weight in expected.items()}
        distance = 0.5 * sum(abs(counts.get(key, 0) / n - shares.get(key, 0.0)) for key in {*counts, *shares})
        chance = 0.5 * sum(math.sqrt(2 * p * (1 - p) / (math.pi * n)) for p in shares.values())
        if subject.reference is not None:
            chance += 0.5 * sum(
                math.sqrt(2 * p * (1 - p) / (math.pi * subject.reference.height)) for p in shares.values()
            )
        measures[f"{name}_distance"] = Measure(distance, most=0.03 + 1.6 * chance)
        missing = [key for key, p in shares.items() if p * n >= 12 and not counts.get(key)]
        measures[f"{name}_missing"] = Measure(len(missing), most=0)
        for key in sorted({*counts, *shares}, key=lambda k: -abs(counts.get(k, 0) / n - shares.get(k, 0.0)))[:15]:
            rows.append({"field": name, "value": key, "expected": round(shares.get(key, 0.0), 4),
                         "found": round(counts.get(key, 0) / n, 4)})  # fmt: skip
        labels = sorted(shares, key=lambda key: -shares[key])[:24]
        plot = drawings.bars(
            f"Share of each {name}",
            labels,
            {"expected": [shares[key] for key in labels], "found": [counts.get(key, 0) / n for key in labels]},
        )
    return _verdict(measures, rows, plot, "weights", "Compare the weights of the categories with what was generated.")


def _weights(subject: Subject, name: str) -> dict[str, float]:
    if subject.reference is not None:
        counts = subject.reference[name].drop_nulls().cast(pl.String).value_counts()
        return {str(key): float(count) for key, count in counts.iter_rows()}
    return {entry.name: entry.weight for entry in subject.config.categories}


def distribution(subject: Subject) -> GateResult:
    """Distances to the reference, or to what the configuration itself declares."""
    frame, other = subject.frame, subject.expected if subject.reference is None else subject.reference
    if subject.reference is not None:
        frame = subject.finished
        other = other.filter(pl.col("resolved_at").is_not_null())
    shared = [n for n in _NAMES if n in frame.columns and n in other.columns]
    if subject.reference is not None:
        shared = [n for n in shared if n in present(other, frame)]
    measures: dict[str, Measure] = {}
    rows: list[dict[str, Any]] = []
    for name in shared:
        found, chance, shift = _variation(frame[name], other[name])
        measures[f"{name}_tv"] = Measure(found, most=_SLACK_TV + 1.8 * chance)
        rows.append({"field": name, "distance": "total variation", "value": round(found, 4),
                     "by chance": round(chance, 4),
                     "largest": shift})  # fmt: skip
    ours, theirs = _numbers(frame), _numbers(other)
    drawn: tuple[str, NDArray[np.float64], NDArray[np.float64]] | None = None
    for name in ours.keys() & theirs.keys():
        a, b = ours[name], theirs[name]
        if a.size < 30 or b.size < 30:
            continue
        found, chance = _ks(a, b), math.sqrt((a.size + b.size) / (a.size * b.size))
        measures[f"{name}_ks"] = Measure(found, most=_SLACK_KS + 1.95 * chance)
        rows.append({"field": name, "distance": "Kolmogorov–Smirnov", "value": round(found, 4),
                     "by chance": round(chance, 4), "largest": ""})  # fmt: skip
        if name == "hours_to_resolve":
            drawn = (name, a, b)
    for first, second in _PAIRS:
        if first in shared and second in shared:
            gap = abs(_cramer(frame, first, second) - _cramer(other, first, second))
            smaller = min(frame.height, other.height)
            cells = frame[first].n_unique() * frame[second].n_unique()
            measures[f"{first}_{second}_association"] = Measure(
                gap, most=_SLACK_V + min(0.2, 0.3 * math.sqrt(cells / smaller))
            )
    plot = None
    if drawn is not None:
        plot = drawings.distributions("Hours to resolve (cumulative share)", {"found": drawn[1], "expected": drawn[2]})
    beside = "the reference" if subject.reference is not None else "what the configuration declares"
    return _verdict(measures, rows, plot, f"distances to {beside}",
                    "Details name the fields that are furthest off.")  # fmt: skip


def _numbers(frame: pl.DataFrame) -> dict[str, NDArray[np.float64]]:
    spans = {
        "hours_to_respond": ("opened_at", "first_response_at"),
        "hours_to_resolve": ("opened_at", "resolved_at"),
        "hours_to_close": ("resolved_at", "closed_at"),
    }
    out = {
        name: (frame[end] - frame[begin]).dt.total_seconds().drop_nulls().to_numpy() / 3600.0
        for name, (begin, end) in spans.items()
        if begin in frame.columns and end in frame.columns
    }
    if "update_count" in frame.columns:
        out["update_count"] = frame["update_count"].drop_nulls().to_numpy().astype(np.float64)
    return out


def _variation(a: pl.Series, b: pl.Series) -> tuple[float, float, str]:
    left = dict(a.cast(pl.String).fill_null("(null)").value_counts().iter_rows())
    right = dict(b.cast(pl.String).fill_null("(null)").value_counts().iter_rows())
    n, m = max(1, a.len()), max(1, b.len())
    gaps = {key: left.get(key, 0) / n - right.get(key, 0) / m for key in {*left, *right}}
    pooled = {key: (left.get(key, 0) + right.get(key, 0)) / (n + m) for key in gaps}
    chance = 0.5 * sum(math.sqrt(2 / math.pi * p * (1 - p) * (1 / n + 1 / m)) for p in pooled.values())
    largest = max(sorted(gaps), key=lambda key: abs(gaps[key]), default="")
    return 0.5 * sum(abs(gap) for gap in gaps.values()), chance, f"{largest} {gaps.get(largest, 0.0):+.1%}"


def _ks(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    points = np.unique(np.concatenate([a, b]))
    left = np.searchsorted(np.sort(a), points, side="right") / a.size
    right = np.searchsorted(np.sort(b), points, side="right") / b.size
    return float(np.abs(left - right).max())


def _cramer(frame: pl.DataFrame, a: str, b: str) -> float:
    """Cramér's V with the correction of Bergsma (2013)."""
    table = (
        frame.select(pl.col(a, b).cast(pl.String).fill_null("(null)"))
        .group_by(a, b).len().pivot(b, index=a, values="len").fill_null(0).drop(a).to_numpy().astype(np.float64)
    )  # fmt: skip
    n, (r, c) = table.sum(), table.shape
    if n < 2 or min(r, c) < 2:
        return 0.0
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / n
    phi = max(0.0, float(((table - expected) ** 2 / expected).sum()) / n - (r - 1) * (c - 1) / (n - 1))
    sides = min(r - (r - 1) ** 2 / (n - 1), c - (c - 1) ** 2 / (n - 1)) - 1
    return math.sqrt(phi / sides) if sides > 0 else 0.0


def times(subject: Subject) -> GateResult:
    """Times look like times: hours of the day and weekdays as expected, clocks' own grain, spans that vary."""
    frame, other = subject.frame, subject.expected if subject.reference is None else subject.reference
    measures: dict[str, Measure] = {}
    rows: list[dict[str, Any]] = []
    plot: str | None = None
    for name in ("opened_at", "first_response_at", "resolved_at"):
        if name not in frame.columns or name not in other.columns:
            continue
        a, b = frame[name].drop_nulls(), other[name].drop_nulls()
        if a.len() < 30 or b.len() < 30:
            continue
        for part, size in (("hour", 24), ("weekday", 7)):
            ours, theirs = ((s.dt.hour() if part == "hour" else s.dt.weekday()) for s in (a, b))
            found, chance, shift = _variation(ours, theirs)
            measures[f"{name}_{part}_tv"] = Measure(found, most=0.05 + 1.8 * chance)
            rows.append({"time": name, "what": part, "distance": round(found, 4), "by chance": round(chance, 4),
                         "largest": shift})  # fmt: skip
            if name == "opened_at" and part == "hour":
                hours = list(range(size))
                plot = drawings.bars(
                    "Openings by hour of the day (UTC)",
                    [str(h) for h in hours],
                    {
                        "expected": [float((theirs == h).sum()) / theirs.len() for h in hours],
                        "found": [float((ours == h).sum()) / ours.len() for h in hours],
                    },
                )
        for step, micros in (("minute", 60_000_000), ("hour", 3_600_000_000)):
            on_grid = [float((s.to_physical() % micros == 0).mean() or 0.0) for s in (a, b)]  # type: ignore[arg-type]
            measures[f"{name}_on_{step}"] = Measure(abs(on_grid[0] - on_grid[1]), most=0.1)
        distinct = [s.n_unique() / s.len() for s in (a, b)]
        if a.len() <= 3 * b.len():
            measures[f"{name}_distinct"] = Measure(distinct[0], least=0.5 * distinct[1])
    spans = [(f["resolved_at"] - f["opened_at"]).drop_nulls() for f in (frame, other)]
    if all(s.len() >= 30 for s in spans):
        varied = [s.head(2_000).n_unique() / min(s.len(), 2_000) for s in spans]
        measures["distinct_spans"] = Measure(varied[0], least=0.5 * varied[1])
    return _verdict(
        measures,
        rows,
        plot,
        "times",
        "Seasonality and business hours stand in the configuration; times must follow them.",
    )


def confidence(subject: Subject) -> GateResult:
    """The stored score is what the record's checks give, and it tells records apart."""
    stored = subject.frame["ai_confidence_score"]
    made = recomputed(subject.frame, subject.config, subject.vocabulary)
    gap = (stored - made).abs().fill_null(1.0)
    wrong = gap > 1e-6
    measures = {
        "differing": Measure(float(wrong.sum()), most=0),
        "distinct_values": Measure(stored.n_unique(), least=2),
        "mean": Measure(float(stored.mean() or 0.0), least=0.6, most=1.0),  # type: ignore[arg-type]
    }
    rows = [
        {"incident_id": number, "stored": old, "computed": new}
        for number, old, new in pl.DataFrame([subject.frame["incident_id"], stored, made.alias("made")])
        .filter(wrong)
        .head(20)
        .iter_rows()
    ]
    return _verdict(
        measures,
        rows,
        None,
        "confidence",
        "Scores are computed by `golden.confidence`, never set by hand or by a model.",
    )


def _verdict(
    measures: dict[str, Measure], rows: Sequence[dict[str, Any]], plot: str | None, what: str, advice: str
) -> GateResult:
    failed = [name for name, measure in measures.items() if not measure.holds]
    if not measures:
        return GateResult(
            False, f"{what}: nothing could be measured", {}, rows, plot, "Check the columns (schema gate)."
        )
    summary = (
        f"all {len(measures)} measures of {what} hold"
        if not failed
        else f"{len(failed)} of {len(measures)} measures of {what} do not hold: {', '.join(failed[:5])}"
    )
    return GateResult(not failed, summary, measures, rows, plot, advice)
