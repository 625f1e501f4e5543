"""Shared fields of incidents as numbers that learners take: the same for real and for made-up records.

What belongs here: derived features of times and of names. What does not: learners (``realism``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

CATEGORICAL = (
    "category",
    "subcategory",
    "contact_type",
    "location",
    "assignment_group",
    "assigned_to",
    "caller_id",
    "business_service",
    "configuration_item",
    "close_code",
)
NUMERIC = ("impact", "urgency", "priority", "reassignment_count", "reopen_count", "update_count", "made_sla")
TIMES = ("opened_at", "resolved_at", "closed_at")
#: names with more levels than this are told by how often they occur and by what was seen with them
_MOST_LEVELS = 60


@dataclass(frozen=True, slots=True)
class Features:
    """A row an incident. ``plain`` are numbers (NaN: unknown), ``coded`` columns hold the code of a name."""

    names: tuple[str, ...]
    values: NDArray[np.float64]
    coded: tuple[int, ...]


def present(*frames: pl.DataFrame) -> list[str]:
    """The shared fields that all frames have: known in at least a tenth of their rows, not constant over all."""
    fields = [
        name
        for name in (*CATEGORICAL, *NUMERIC, *TIMES)
        if all(name in frame.columns and frame[name].null_count() <= 0.9 * frame.height for frame in frames)
    ]
    return [name for name in fields if pl.concat([frame[name].cast(pl.String) for frame in frames]).n_unique() > 1]


def features(frame: pl.DataFrame, fields: Sequence[str]) -> Features:
    """Features of the fields named: codes and frequencies of names, and of times what grids and habits show.

    Codes are those of ``frame``: stack frames that are to be compared.
    """
    names: list[str] = []
    columns: list[NDArray[np.float64]] = []
    coded: list[int] = []
    for name in fields:
        if name in CATEGORICAL:
            values = frame[name]
            levels = values.drop_nulls().unique().sort().to_list()
            code = values.replace_strict(levels, list(range(len(levels))), default=None, return_dtype=pl.Float64)
            coded.append(len(columns))
            names.append(name)
            columns.append(_floats(code))
            if len(levels) > _MOST_LEVELS:
                often = frame.select(pl.len().over(name)).to_series()
                names.append(f"{name} (how often)")
                columns.append(_floats(often))
        elif name in NUMERIC:
            names.append(name)
            columns.append(_floats(frame[name]))
    for name, numbers in _clock(frame, [name for name in fields if name in TIMES]):
        names.append(name)
        columns.append(numbers)
    if not columns:
        return Features((), np.zeros((frame.height, 0)), ())
    return Features(tuple(names), np.column_stack(columns), tuple(coded))


def _clock(frame: pl.DataFrame, fields: Sequence[str]) -> list[tuple[str, NDArray[np.float64]]]:
    out: list[tuple[str, NDArray[np.float64]]] = []
    for name in fields:
        at = frame[name].dt
        out += [
            (f"{name} (instant)", _floats(at.epoch("s"))),
            (f"{name} (hour)", _floats(at.hour())),
            (f"{name} (weekday)", _floats(at.weekday())),
            (f"{name} (minute)", _floats(at.minute())),
            (f"{name} (second)", _floats(at.second())),
            (f"{name} (microsecond)", _floats(at.microsecond())),
        ]
    for a, b in (("opened_at", "resolved_at"), ("resolved_at", "closed_at"), ("opened_at", "closed_at")):
        if a in fields and b in fields:
            gap = _floats((frame[b] - frame[a]).dt.total_seconds())
            out += [
                (f"{a} to {b} (log)", np.sign(gap) * np.log1p(np.abs(gap))),
                (f"{a} to {b} (days)", np.floor(gap / 86_400)),
                (f"{a} to {b} (rest of the day)", np.mod(gap, 86_400)),
            ]
    return out


def _floats(values: pl.Series) -> NDArray[np.float64]:
    return values.cast(pl.Float64).fill_null(float("nan")).to_numpy()
