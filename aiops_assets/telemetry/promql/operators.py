"""Binary operators between scalars and vectors, and the matching of vectors.

What belongs here: arithmetic, comparisons and set operators with ``on``, ``ignoring``, ``group_left``, ``group_right``
and ``bool``. What does not: everything with one operand (``functions``). Rules are those of Prometheus' documentation,
"Operators", and of promql/engine.go where it is silent.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from aiops_assets.telemetry.promql.errors import execution
from aiops_assets.telemetry.promql.names import NAME
from aiops_assets.telemetry.promql.plan import COMPARISONS, Matching
from aiops_assets.telemetry.promql.vectors import (
    Bools,
    Floats,
    Identity,
    Ints,
    Labels,
    Vector,
    groups,
    identity,
    members,
    merged,
    restricted,
    without_name,
)

_ARITHMETIC: dict[str, Callable[[Floats, Floats], Floats]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.fmod,
    "^": np.power,
    "atan2": np.arctan2,
}
_COMPARISON: dict[str, Callable[[Floats, Floats], Bools]] = {
    "==": np.equal,
    "!=": np.not_equal,
    ">": np.greater,
    "<": np.less,
    ">=": np.greater_equal,
    "<=": np.less_equal,
}
#: pairs of rows of a matching, times instants, that may be looked at
MAX_PAIRED_CELLS = 20_000_000


def of_scalars(op: str, left: Floats, right: Floats) -> Floats:
    """Both operands are scalars (by instant); comparisons give 0 or 1."""
    return _COMPARISON[op](left, right).astype(np.float64) if op in COMPARISONS else _ARITHMETIC[op](left, right)


def with_scalar(op: str, vector: Vector, scalar: Floats, *, scalar_is_left: bool, returns_bool: bool) -> Vector:
    """A vector and a scalar (by instant); a comparison without ``bool`` keeps the elements for which it holds."""
    left, right = (scalar, vector.values) if scalar_is_left else (vector.values, scalar)
    if op not in COMPARISONS:
        return merged(without_name(vector.labels), _ARITHMETIC[op](left, right), vector.present)
    holds = _COMPARISON[op](left, right)
    if returns_bool:
        return merged(without_name(vector.labels), holds.astype(np.float64), vector.present)
    return Vector.of(vector.labels, vector.values, vector.present & holds)


def of_vectors(op: str, left: Vector, right: Vector, matching: Matching, *, returns_bool: bool) -> Vector:
    """Arithmetic or comparison of two vectors, one-to-one or with a ``group_…`` many-to-one.

    Raises:
        QueryError: an element of the "one" side has several partners at an instant.
    """
    swapped = matching.group == "right"
    many, one = (right, left) if swapped else (left, right)
    one_keys = _signatures(one, matching)
    found, order, starts = groups(one_keys)
    rows_of = dict(zip(found, members(order, starts), strict=True))
    _refuse_duplicates(one, rows_of, np.logical_or.reduce(many.present, axis=0), "left" if swapped else "right")
    many_rows, one_rows = _pairs(_signatures(many, matching), rows_of)
    if len(many_rows) * max(left.values.shape[1], 1) > MAX_PAIRED_CELLS:
        raise execution("this matching makes too many pairs; narrow the selectors or the time range")
    many_values, one_values = many.values[many_rows], one.values[one_rows]
    first, second = (one_values, many_values) if swapped else (many_values, one_values)
    present = many.present[many_rows] & one.present[one_rows]
    values, kept = _combined(op, first, second, returns_bool)
    present = present & kept
    drops_name = op not in COMPARISONS or returns_bool
    labels = [
        _result_labels(many.labels[a], one.labels[b], matching, drops_name)
        for a, b in zip(many_rows.tolist(), one_rows.tolist(), strict=True)
    ]
    if matching.group:
        problem = "multiple matches for labels: grouping labels must ensure unique matches"
    else:
        problem = "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
        _refuse_overlaps([many_signature(many.labels[row], matching) for row in many_rows], present, problem)
    return merged(labels, values, present, problem=problem)


def of_sets(op: str, left: Vector, right: Vector, matching: Matching) -> Vector:
    """``and``, ``or``, ``unless``: elements of one vector by whether the other has a partner at that instant."""
    left_keys, right_keys = _signatures(left, matching), _signatures(right, matching)
    if op == "or":
        partner = _partners(right_keys, left_keys, left.present)
        return merged(
            [*left.labels, *right.labels],
            np.concatenate([left.values, right.values]),
            np.concatenate([left.present, right.present & ~partner]),
        )
    partner = _partners(left_keys, right_keys, right.present)
    return Vector.of(left.labels, left.values, left.present & (partner if op == "and" else ~partner))


def many_signature(labels: Labels, matching: Matching) -> Identity:
    """What of a label set has to be equal for two elements to match."""
    return identity(restricted(labels, matching.labels, matching.on))


def _signatures(vector: Vector, matching: Matching) -> list[Identity]:
    return [many_signature(entry, matching) for entry in vector.labels]


def _partners(keys: list[Identity], other: list[Identity], present: Bools) -> Bools:
    """For each key, at which instants any row of the other side with the same key is present."""
    found, order, starts = groups(other)
    instants = present.shape[1]
    if not found:
        return np.zeros((len(keys), instants), np.bool_)
    reduced = np.logical_or.reduceat(present[order], starts, axis=0)
    places = {key: number for number, key in enumerate(found)}
    padded = np.concatenate([reduced, np.zeros((1, instants), np.bool_)])
    return np.asarray(padded[[places.get(key, len(found)) for key in keys]], np.bool_).reshape(len(keys), instants)


def _pairs(keys: list[Identity], rows_of: dict[Identity, Ints]) -> tuple[Ints, Ints]:
    many: list[int] = []
    one: list[int] = []
    for row, key in enumerate(keys):
        for other in rows_of.get(key, ()):
            many.append(row)
            one.append(int(other))
    return np.array(many, np.int64), np.array(one, np.int64)


def _refuse_duplicates(vector: Vector, rows_of: dict[Identity, Ints], asked: Bools, side: str) -> None:
    """Refuse several elements of a group at an instant at which the other side has any."""
    for key, rows in rows_of.items():
        if len(rows) > 1 and (asked & (vector.present[rows].sum(axis=0) > 1)).any():
            group = ", ".join(f'{name}="{value}"' for name, value in key)
            raise execution(
                f"found duplicate series for the match group {{{group}}} on the {side} hand-side of the operation; "
                "many-to-many matching not allowed: matching labels must be unique on one side"
            )


def _refuse_overlaps(keys: list[Identity], present: Bools, problem: str) -> None:
    found, order, starts = groups(keys)
    if len(found) < len(keys) and (np.add.reduceat(present[order].astype(np.int64), starts, axis=0) > 1).any():
        raise execution(problem)


def _combined(op: str, left: Floats, right: Floats, returns_bool: bool) -> tuple[Floats, Bools]:
    if op not in COMPARISONS:
        return _ARITHMETIC[op](left, right), np.ones(left.shape, np.bool_)
    holds = _COMPARISON[op](left, right)
    if returns_bool:
        return holds.astype(np.float64), np.ones(left.shape, np.bool_)
    return left, holds


def _result_labels(many: Labels, one: Labels, matching: Matching, drops_name: bool) -> Labels:
    labels = dict(many)
    if drops_name:
        labels.pop(NAME, None)
    if not matching.group:
        if matching.on:
            labels = {name: value for name, value in labels.items() if name in matching.labels}
        else:
            labels = {name: value for name, value in labels.items() if name not in matching.labels}
    for name in matching.include:
        if one.get(name):
            labels[name] = one[name]
        else:
            labels.pop(name, None)
    return labels
