"""Two sets of golden incidents side by side: how many, which names, which shares, which times, which words.

What belongs here: the comparison as numbers. What does not: limits and verdicts (``synthetic.gate``).

Distances: total variation of the shares of names (half the sum of absolute differences; 0 the same, 1 nothing shared)
and the Kolmogorov–Smirnov statistic of numbers (largest distance of the two cumulative distributions).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import polars as pl

#: columns whose values are names or grades
NAMES = (
    "category", "subcategory", "priority", "impact", "urgency", "state", "contact_type", "location", "assignment_group",
    "business_service", "business_domain", "close_code", "language", "made_sla", "model_version",
)  # fmt: skip
_HOUR = 3600e6
_MOST_SHIFTS, _MOST_WORDS = 5, 25
_TEXTS = ("short_description", "description", "resolution_notes")


@dataclass(frozen=True, slots=True)
class Shift:
    """One name's share in either set."""

    value: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Names:
    """A column of names: distance, names that came and went, and the largest changes of shares."""

    distance: float
    added: list[str]
    removed: list[str]
    shifts: list[Shift]


@dataclass(frozen=True, slots=True)
class Numbers:
    """A measure: distance, medians and 90th percentiles; ``None`` where a set has no value."""

    distance: float | None
    median_before: float | None
    median_after: float | None
    p90_before: float | None
    p90_after: float | None


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs between two sets; ``before`` and ``after`` are A and B."""

    before: int
    after: int
    #: incidents whose every field is the same in both, and incidents of the same id that differ
    same: int
    changed: int
    names: dict[str, Names]
    numbers: dict[str, Numbers]
    #: words of at least three letters that only one set has, the most frequent first
    words_added: list[str] = field(default_factory=list)
    words_removed: list[str] = field(default_factory=list)
    vocabulary_before: int = 0
    vocabulary_after: int = 0

    def document(self) -> dict[str, Any]:
        """The same as plain JSON."""
        return asdict(self)


def difference(before: pl.DataFrame, after: pl.DataFrame) -> Difference:
    """Compare two frames of ``record.SCHEMA``."""
    shared = before.join(after, "incident_id", "semi")
    same = before.hash_rows(1).is_in(after.hash_rows(1).implode()).sum()
    words_before, words_after = words(before), words(after)
    return Difference(
        before=before.height,
        after=after.height,
        same=int(same),
        changed=max(shared.height - int(same), 0),
        names={name: _names(before[name], after[name]) for name in NAMES},
        numbers={
            name: _numbers(old, new) for (name, old), (_, new) in zip(_measures(before), _measures(after), strict=True)
        },
        words_added=_only(words_after, words_before),
        words_removed=_only(words_before, words_after),
        vocabulary_before=words_before.height,
        vocabulary_after=words_after.height,
    )


def words(frame: pl.DataFrame) -> pl.DataFrame:
    """The words of all texts: ``word`` in lower case, ``count``, the most frequent first."""
    notes = frame["work_notes"].explode(empty_as_null=False, keep_nulls=False).struct.field("note")
    texts = pl.concat([*(frame[name].drop_nulls().rename("word") for name in _TEXTS), notes.rename("word")])
    return (
        texts.str.to_lowercase()
        .str.extract_all(r"\p{L}{3,}")
        .explode(empty_as_null=False)
        .to_frame()
        .group_by("word")
        .agg(count=pl.len())
        .sort(["count", "word"], descending=[True, False])
    )


def _only(these: pl.DataFrame, those: pl.DataFrame) -> list[str]:
    return these.join(those, "word", "anti", maintain_order="left")["word"].head(_MOST_WORDS).to_list()


def _shares(column: pl.Series) -> dict[str, float]:
    counts = column.cast(pl.String).fill_null("(none)").value_counts(name="count")
    return {value: count / max(len(column), 1) for value, count in counts.iter_rows()}


def _names(before: pl.Series, after: pl.Series) -> Names:
    old, new = _shares(before), _shares(after)
    shifts = [Shift(value, old.get(value, 0.0), new.get(value, 0.0)) for value in sorted({*old, *new})]
    shifts.sort(key=lambda shift: -abs(shift.after - shift.before))
    return Names(
        distance=sum(abs(shift.after - shift.before) for shift in shifts) / 2,
        added=sorted(set(new) - set(old)),
        removed=sorted(set(old) - set(new)),
        shifts=[shift for shift in shifts[:_MOST_SHIFTS] if shift.after != shift.before],
    )


def _measures(frame: pl.DataFrame) -> list[tuple[str, pl.Series]]:
    opened = pl.col("opened_at").to_physical()
    measures = {
        "hours to first response": (pl.col("first_response_at").to_physical() - opened) / _HOUR,
        "hours to resolution": (pl.col("resolved_at").to_physical() - opened) / _HOUR,
        "reassignments": pl.col("reassignment_count"),
        "reopenings": pl.col("reopen_count"),
        "updates": pl.col("update_count"),
        "work notes": pl.col("work_notes").list.len(),
        "characters of the description": pl.col("description").str.len_chars(),
        "hour of the day (UTC)": pl.col("opened_at").dt.hour(),
        "confidence": pl.col("ai_confidence_score"),
    }
    made = frame.select(measure.cast(pl.Float64).alias(name) for name, measure in measures.items())
    return [(name, made[name].drop_nulls()) for name in measures]


def _numbers(before: pl.Series, after: pl.Series) -> Numbers:
    return Numbers(
        distance=_kolmogorov_smirnov(before, after),
        median_before=_quantile(before, 0.5),
        median_after=_quantile(after, 0.5),
        p90_before=_quantile(before, 0.9),
        p90_after=_quantile(after, 0.9),
    )


def _quantile(values: pl.Series, share: float) -> float | None:
    return values.quantile(share, "linear")


def _kolmogorov_smirnov(before: pl.Series, after: pl.Series) -> float | None:
    if before.is_empty() or after.is_empty():
        return None
    old, new = np.sort(before.to_numpy()), np.sort(after.to_numpy())
    every = np.concatenate([old, new])
    apart = np.searchsorted(old, every, "right") / len(old) - np.searchsorted(new, every, "right") / len(new)
    return float(np.abs(apart).max())
