"""Walking a batch point by point, for all series at once.

Detectors and rules are recurrences: the verdict on a point depends on the points of the same series before it. Step k
holds the k-th new point of every series of the batch, so a recurrence runs as NumPy operations over thousands of
series, and gives the same result however the stream is cut into batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Step:
    """At most one point of each series.

    ``series``: int32, dense series numbers, distinct. ``ts``: int64, microseconds since the epoch (UTC).
    ``value``: float64, finite. ``row``: int64, the row in the arrays handed to ``steps``.
    """

    series: NDArray[np.int32]
    ts: NDArray[np.int64]
    value: NDArray[np.float64]
    row: NDArray[np.int64]


def steps(series: NDArray[np.int32], ts: NDArray[np.int64], value: NDArray[np.float64]) -> Iterator[Step]:
    """Cut arrays of points into steps; within a series, steps follow ``ts`` (ties: the order given)."""
    if not len(series):
        return
    same = series[1:] == series[:-1]
    sorted_already = bool(((series[1:] > series[:-1]) | (same & (ts[1:] >= ts[:-1]))).all())
    order = np.arange(len(series)) if sorted_already else np.lexsort((ts, series))
    if not sorted_already:
        sorted_series = series[order]
        same = sorted_series[1:] == sorted_series[:-1]
    starts = np.flatnonzero(np.r_[True, ~same])
    lengths = np.diff(np.r_[starts, len(order)])
    longest = int(lengths.max())
    rank = np.arange(len(order)) - np.repeat(starts, lengths)
    # short integers are sorted by counting, in a fraction of the time
    by_rank = np.argsort(rank.astype(np.uint16) if longest <= 1 << 16 else rank, kind="stable")
    bounds = np.r_[0, np.cumsum(np.bincount(rank))]
    order = order[by_rank]
    series, ts, value = series[order], ts[order], value[order]
    for start, end in pairwise(bounds):
        yield Step(series[start:end], ts[start:end], value[start:end], order[start:end])
