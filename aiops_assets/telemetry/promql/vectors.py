"""Instant vectors over many instants at once.

What belongs here: the matrix that every expression works on, and what keeps label sets unique. What does not: what
expressions do (``functions``, ``aggregations``, ``operators``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from aiops_assets.telemetry.promql.errors import execution
from aiops_assets.telemetry.promql.names import NAME

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Labels = dict[str, str]
Identity = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Vector:
    """``values`` (float64) and ``present`` (bool) have one row a label set and one column an instant.

    Values of absent cells mean nothing. No two rows have the same labels.
    """

    labels: list[Labels]
    values: Floats
    present: Bools

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def of(cls, labels: list[Labels], values: Floats, present: Bools) -> Vector:
        """A vector without the rows that are absent everywhere."""
        some = np.logical_or.reduce(present, axis=1)
        if some.all():
            return cls(labels, values, present)
        return cls([entry for entry, keep in zip(labels, some, strict=True) if keep], values[some], present[some])

    @classmethod
    def empty(cls, instants: int) -> Vector:
        """No rows."""
        return cls([], np.empty((0, instants)), np.zeros((0, instants), np.bool_))


def identity(labels: Labels) -> Identity:
    """A label set as something to compare and hash."""
    return tuple(sorted(labels.items()))


def without_name(labels: Iterable[Labels]) -> list[Labels]:
    """Label sets without the metric name, which no longer says what the values are."""
    return [{name: value for name, value in entry.items() if name != NAME} for entry in labels]


def restricted(labels: Labels, names: Sequence[str], on: bool) -> Labels:
    """The labels named (``on``), else all but them and the metric name."""
    if on:
        return {name: labels[name] for name in names if name in labels}
    return {name: value for name, value in labels.items() if name not in names and name != NAME}


def merged(labels: list[Labels], values: Floats, present: Bools, *, strict: bool = False, problem: str = "") -> Vector:
    """A vector from rows of which some may have the same labels; those become one row.

    Args:
        strict: refuse rows with the same labels even when they are present at different instants.
        problem: the message instead of Prometheus' usual one.

    Raises:
        QueryError: two rows with the same labels are present at the same instant.
    """
    places: dict[Identity, int] = {}
    of_row = [places.setdefault(identity(entry), len(places)) for entry in labels]
    if len(places) == len(labels):
        return Vector.of(labels, values, present)
    message = problem or "vector cannot contain metrics with the same labelset"
    if strict:
        raise execution(message)
    out_values, out_present = values[: len(places)].copy(), np.zeros((len(places), values.shape[1]), np.bool_)
    for row, place in enumerate(of_row):
        if (out_present[place] & present[row]).any():
            raise execution(message)
        out_values[place] = np.where(present[row], values[row], out_values[place])
        out_present[place] |= present[row]
    return Vector.of([dict(key) for key in places], out_values, out_present)


def groups(keys: Sequence[Identity]) -> tuple[list[Identity], Ints, Ints]:
    """Distinct keys in order of appearance, row numbers ordered by key, and where each key's rows start in them."""
    places: dict[Identity, int] = {}
    of_row = np.fromiter((places.setdefault(key, len(places)) for key in keys), np.int64, len(keys))
    order = np.argsort(of_row, kind="stable")
    starts = np.searchsorted(of_row[order], np.arange(len(places)))
    return list(places), order, starts


def members(order: Ints, starts: Ints) -> list[Ints]:
    """The row numbers of each group that ``groups`` found."""
    return [order[start:stop] for start, stop in pairwise([*starts.tolist(), len(order)])]
