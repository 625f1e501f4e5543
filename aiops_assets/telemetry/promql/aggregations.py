"""Aggregations across series: sum, quantile, topk and their kin, by or without labels.

What belongs here: grouping rows of a vector and reducing each group at every instant. What does not: aggregation over
time (``functions``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from aiops_assets.telemetry.promql.errors import bad_data, execution
from aiops_assets.telemetry.promql.functions import out_of_range
from aiops_assets.telemetry.promql.names import is_label
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
)

MAX_COUNTED_VALUES = 10_000


def aggregate(
    op: str, vector: Vector, labels: Sequence[str], without: bool, parameter: Floats | None, text: str
) -> Vector:
    """One row a group (for topk and bottomk: the rows chosen).

    Args:
        parameter: the number that quantile, topk and bottomk take, by instant.
        text: the label that count_values takes.

    Raises:
        QueryError: the parameter is missing or not legal.
    """
    keys = [identity(restricted(entry, labels, not without)) for entry in vector.labels]
    found, order, starts = groups(keys)
    if not found:
        return Vector.empty(vector.values.shape[1])
    if op in {"topk", "bottomk"}:
        if parameter is None:
            raise bad_data(f"{op} needs a number")
        return _chosen(vector, order, starts, parameter, largest=op == "topk")
    values, present = vector.values[order], vector.present[order]
    if op == "count_values":
        return _counted_values(found, values, present, starts, text)
    some = np.logical_or.reduceat(present, starts, axis=0)
    if op == "quantile":
        if parameter is None:
            raise bad_data("quantile needs a number")
        reduced = _quantile(values, present, starts, parameter)
    else:
        reduced = _REDUCTIONS[op](values, present, starts)
    return Vector.of([dict(key) for key in found], reduced, some)


def _counts(present: Bools, starts: Ints) -> Floats:
    return np.add.reduceat(present.astype(np.float64), starts, axis=0)


def _sum(values: Floats, present: Bools, starts: Ints) -> Floats:
    return np.asarray(np.add.reduceat(np.where(present, values, 0.0), starts, axis=0))


def _average(values: Floats, present: Bools, starts: Ints) -> Floats:
    counts = _counts(present, starts)
    mean = _sum(values, present, starts) / counts
    if np.isinf(mean).any():
        shares = _sum(values / _repeated(counts, starts, len(values)), present, starts)
        mean = np.where(np.isinf(mean), shares, mean)
    return mean


def _variance(values: Floats, present: Bools, starts: Ints) -> Floats:
    deviation = values - _repeated(_average(values, present, starts), starts, len(values))
    return _sum(deviation * deviation, present, starts) / _counts(present, starts)


def _repeated(reduced: Floats, starts: Ints, rows: int) -> Floats:
    return np.repeat(reduced, np.diff(np.append(starts, rows)), axis=0)


def _extreme(ufunc: np.ufunc) -> Callable[[Floats, Bools, Ints], Floats]:
    return lambda values, present, starts: ufunc.reduceat(np.where(present, values, np.nan), starts, axis=0)


_REDUCTIONS: dict[str, Callable[[Floats, Bools, Ints], Floats]] = {
    "avg": _average,
    "count": lambda _values, present, starts: _counts(present, starts),
    "group": lambda _values, present, starts: np.ones((len(starts), present.shape[1])),
    "max": _extreme(np.fmax),
    "min": _extreme(np.fmin),
    "stddev": lambda values, present, starts: np.sqrt(_variance(values, present, starts)),
    "stdvar": _variance,
    "sum": _sum,
}


def _quantile(values: Floats, present: Bools, starts: Ints, q: Floats) -> Floats:
    out = np.full((len(starts), values.shape[1]), np.nan)
    for number, rows in enumerate(members(np.arange(len(values)), starts)):
        block, there = values[rows], present[rows]
        order = np.lexsort((block, ~np.isnan(block), ~there), axis=0)
        ordered = np.take_along_axis(block, order, axis=0)
        counts = there.sum(axis=0)
        rank = np.clip(np.nan_to_num(q), 0.0, 1.0) * np.maximum(counts - 1, 0)
        low = np.floor(rank).astype(np.int64)
        high = np.minimum(low + 1, np.maximum(counts - 1, 0))
        lower = np.take_along_axis(ordered, low[None, :], axis=0)[0]
        upper = np.take_along_axis(ordered, high[None, :], axis=0)[0]
        weight = rank - low
        out[number] = out_of_range(lower * (1 - weight) + upper * weight, q)
    return out


def _chosen(vector: Vector, order: Ints, starts: Ints, k: Floats, *, largest: bool) -> Vector:
    """The ``k`` largest or smallest rows of each group at each instant, with all their labels; NaN comes last."""
    if not (np.isfinite(k) & (np.abs(k) < 2.0**63)).all():
        raise execution(f"Scalar value {k[~np.isfinite(k)][0] if not np.isfinite(k).all() else k[0]} overflows int64")
    present = np.zeros(vector.present.shape, np.bool_)
    for rows in members(order, starts):
        values = vector.values[rows]
        ranked = np.lexsort((-values if largest else values, np.isnan(values), ~vector.present[rows]), axis=0)
        ranks = np.empty_like(ranked)
        np.put_along_axis(ranks, ranked, np.arange(len(rows))[:, None], axis=0)
        present[rows] = vector.present[rows] & (ranks < np.trunc(k))
    return Vector.of(vector.labels, vector.values, present)


def _counted_values(found: list[Identity], values: Floats, present: Bools, starts: Ints, label: str) -> Vector:
    if not is_label(label):
        raise execution(f'invalid label name "{label}"')
    labels: list[Labels] = []
    counts: list[NDArray[np.int64]] = []
    for key, rows in zip(found, members(np.arange(len(values)), starts), strict=True):
        block, there = values[rows], present[rows]
        distinct = np.unique(block[there])
        if len(labels) + len(distinct) > MAX_COUNTED_VALUES:
            raise execution(f"count_values found more than {MAX_COUNTED_VALUES} distinct values; round them first")
        for value in distinct:
            same = np.isnan(block) if np.isnan(value) else block == value
            labels.append({**dict(key), label: go_number(float(value))})
            counts.append((there & same).sum(axis=0))
    counted = np.array(counts, np.float64).reshape(len(labels), values.shape[1])
    return merged(labels, counted, counted > 0)


def go_number(value: float) -> str:
    """A number as Go's ``FormatFloat(v, 'f', -1, 64)`` writes it: shortest, never with an exponent."""
    if np.isnan(value):
        return "NaN"
    if np.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return np.format_float_positional(value, trim="-")
