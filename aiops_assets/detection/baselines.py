"""Baseline statistics of a closed hour: what one series did in it, in numbers that can be merged.

What belongs here: computing the rows of the ``baselines`` table from points, and merging rows of several hours. What
does not: when an hour closes (``live``), how rows are stored (``lake``) and what is judged against them
(``statistics``). Results depend on the set of points alone, to the last bit: points are put in (series_id, ts, value)
order and added one after the other, so neither the order of rows nor the number of threads matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from aiops_assets.lake.digest import in_order
from aiops_assets.tables import BASELINES

#: probabilities of the values in the column ``quantiles``
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
MEDIAN = QUANTILES.index(0.5)

_COLUMNS = tuple(
    column for column in BASELINES.schema if column not in {"hour_start", "baseline_version", BASELINES.partition}
)
_LARGEST = np.finfo(np.float64).max


def close(points: pl.DataFrame) -> pl.DataFrame:
    """Statistics of each series over the points of one hour.

    Args:
        points: ``series_id`` (Int64), ``ts`` (Datetime or Int64), ``value`` (Float64, finite), in any order.

    Returns:
        One row a series, ascending ``series_id``: the columns of ``tables.BASELINES`` without ``hour_start``,
        ``baseline_version`` and ``hour``. Sums of squares beyond the largest float are cut to it.
    """
    plain = points.select(
        pl.col("series_id").cast(pl.Int64),
        pl.col("ts").to_physical(),
        # adding zero makes one zero of -0.0 and 0.0, whose order would otherwise be free
        (pl.col("value").cast(pl.Float64) + 0.0).alias("value"),
    )
    ordered = in_order(plain, ("series_id", "ts"))
    if ordered is not plain:
        ordered = plain.sort("series_id", "ts", "value")
    series = ordered["series_id"].to_numpy()
    value = ordered["value"].to_numpy()
    if not len(series):
        nothing = np.empty(0)
        return _frame(series, series, nothing, nothing, nothing, nothing, np.empty((0, len(QUANTILES))))
    starts = np.flatnonzero(np.r_[True, series[1:] != series[:-1]])
    count = np.diff(np.r_[starts, len(series)])
    group = np.repeat(np.arange(len(starts)), count)
    ranked = ordered.sort("series_id", "value")["value"].to_numpy()
    smallest, largest = ranked[starts], ranked[starts + count - 1]
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.bincount(group, weights=value) / count
        overflown = ~np.isfinite(mean)
        if overflown.any():
            mean = np.where(overflown, np.bincount(group, weights=value / count[group]), mean)
        mean = np.clip(mean, smallest, largest)
        m2 = np.bincount(group, weights=np.square(value - mean[group]))
    return _frame(series[starts], count, mean, m2, smallest, largest, _quantiles(ranked, starts, count))


def _quantiles(ranked: NDArray[np.float64], starts: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.float64]:
    """Linear interpolation between order statistics; ``ranked`` holds each group's values in ascending order."""
    result = np.empty((len(starts), len(QUANTILES)))
    for column, probability in enumerate(QUANTILES):
        position = probability * (count - 1)
        below = np.floor(position)
        left = starts + below.astype(np.int64)
        share = position - below
        right = np.minimum(left + 1, starts + count - 1)
        result[:, column] = ranked[left] * (1.0 - share) + ranked[right] * share
    return np.maximum.accumulate(result, axis=1)


def merge(hours: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Statistics of each series over several hours, merged in the order given.

    Count, mean, m2, min and max are those of the pooled points (Chan, Golub and LeVeque 1983) up to rounding. The
    quantiles are an approximation: the average of the hours' quantile functions, weighted by their counts.

    Args:
        hours: frames as ``close`` returns them; the same points must not occur twice.
    """
    parts = [frame.select(_COLUMNS) for frame in hours if frame.height]
    if not parts:
        return close(pl.DataFrame(schema={"series_id": pl.Int64, "ts": pl.Int64, "value": pl.Float64}))
    ordered = pl.concat(parts).sort("series_id", maintain_order=True)
    series = ordered["series_id"].to_numpy()
    starts = np.flatnonzero(np.r_[True, series[1:] != series[:-1]])
    group = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(series)]))
    count, mean = ordered["count"].to_numpy(), ordered["mean"].to_numpy()
    total = np.add.reduceat(count, starts)
    weight = count / total[group]
    smallest = np.minimum.reduceat(ordered["min"].to_numpy(), starts)
    largest = np.maximum.reduceat(ordered["max"].to_numpy(), starts)
    pooled = np.clip(np.bincount(group, weights=mean * weight), smallest, largest)
    with np.errstate(over="ignore", invalid="ignore"):
        between = count * np.square(mean - pooled[group])
        m2 = np.bincount(group, weights=ordered["m2"].to_numpy() + between)
    sketch = ordered["quantiles"].list.to_array(len(QUANTILES)).to_numpy() * weight[:, None]
    quantiles = np.stack([np.bincount(group, weights=sketch[:, k]) for k in range(len(QUANTILES))], axis=1)
    return _frame(series[starts], total, pooled, m2, smallest, largest, np.maximum.accumulate(quantiles, axis=1))


def _frame(
    series: NDArray[np.int64],
    count: NDArray[np.int64],
    mean: NDArray[Any],
    m2: NDArray[Any],
    smallest: NDArray[np.float64],
    largest: NDArray[np.float64],
    quantiles: NDArray[np.float64],
) -> pl.DataFrame:
    columns = {
        "series_id": pl.Series(series, dtype=pl.Int64),
        "count": pl.Series(count.astype(np.int64), dtype=pl.Int64),
        "mean": mean,
        "m2": np.minimum(m2, _LARGEST),
        "min": smallest,
        "max": largest,
        "quantiles": pl.Series(np.clip(quantiles, smallest[:, None], largest[:, None])).cast(pl.List(pl.Float64)),
    }
    return pl.DataFrame(columns).select(_COLUMNS)
