"""``histogram_quantile`` over classic histograms: cumulative buckets with the label ``le``.

What belongs here: that function. What does not: quantiles of values (``aggregations``, ``functions``).
"""

from __future__ import annotations

import numpy as np

from aiops_assets.telemetry.promql.functions import out_of_range
from aiops_assets.telemetry.promql.names import NAME
from aiops_assets.telemetry.promql.vectors import Floats, Vector, groups, identity, members

BUCKET = "le"


def histogram_quantile(q: Floats, vector: Vector) -> Vector:
    """The ``q``-quantile (by instant) of every histogram, linear within a bucket (promql/quantile.go)."""
    rows, bounds, keys = [], [], []
    for row, labels in enumerate(vector.labels):
        bound = _bound(labels.get(BUCKET))
        if bound is not None:
            rows.append(row)
            bounds.append(bound)
            keys.append(identity({name: value for name, value in labels.items() if name not in {BUCKET, NAME}}))
    found, order, starts = groups(keys)
    instants = vector.values.shape[1]
    values = np.full((len(found), instants), np.nan)
    present = np.zeros((len(found), instants), np.bool_)
    for number, entries in enumerate(members(order, starts)):
        ascending = sorted(entries.tolist(), key=lambda entry: bounds[entry])
        of_group = [rows[entry] for entry in ascending]
        limits = np.array([bounds[entry] for entry in ascending])
        there = vector.present[of_group]
        present[number] = there.any(axis=0)
        patterns, of_instant = np.unique(there, axis=1, return_inverse=True)
        for pattern in range(patterns.shape[1]):
            columns = np.flatnonzero(of_instant.ravel() == pattern)
            kept = patterns[:, pattern]
            if kept.any():
                counts = vector.values[np.array(of_group)[kept]][:, columns]
                values[number, columns] = _quantiles(q[columns], limits[kept], counts)
    return Vector.of([dict(key) for key in found], values, present)


def _bound(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _quantiles(q: Floats, bounds: Floats, counts: Floats) -> Floats:
    """Of one histogram at many instants: ``bounds`` ascending (B,), ``counts`` cumulative (B, T)."""
    instants = np.arange(counts.shape[1])
    nothing = np.full(counts.shape[1], np.nan)
    if not np.isposinf(bounds[-1]):
        return out_of_range(nothing, q)
    distinct, firsts = np.unique(bounds, return_index=True)
    counts = np.maximum.accumulate(np.add.reduceat(counts, firsts, axis=0), axis=0)
    if len(distinct) < 2:
        return out_of_range(nothing, q)
    observations = counts[-1]
    rank = q * observations
    bucket = np.argmax(counts >= rank, axis=0)
    last = len(distinct) - 1
    bucket = np.where((counts >= rank).any(axis=0), np.minimum(bucket, last), last)
    below = np.maximum(bucket - 1, 0)
    inner = bucket > 0
    low = np.where(inner, distinct[below], 0.0)
    before = np.where(inner, counts[below, instants], 0.0)
    within = (rank - before) / (counts[bucket, instants] - before)
    value = low + (distinct[bucket] - low) * within
    value = np.where(~inner & (distinct[0] <= 0), distinct[0], value)
    value = np.where(bucket == last, distinct[-2], value)
    return out_of_range(np.where(observations == 0, np.nan, value), q)
