"""Closing an hour gives the same bits whatever the order of rows, and merging hours equals closing them together."""

from __future__ import annotations

import math
import warnings

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiops_assets.detection import baselines
from aiops_assets.tables import BASELINES

values = st.floats(allow_nan=False, allow_infinity=False)
rows = st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 59), values), max_size=40)


def frame(points: list[tuple[int, int, float]]) -> pl.DataFrame:
    return pl.DataFrame(points, schema={"series_id": pl.Int64, "ts": pl.Int64, "value": pl.Float64}, orient="row")


@given(rows, st.randoms(use_true_random=False))
def test_row_order_does_not_change_a_bit(points: list[tuple[int, int, float]], random: object) -> None:
    shuffled = list(points)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert baselines.close(frame(points)).equals(baselines.close(frame(shuffled)))
    bits = [repr(row) for row in baselines.close(frame(points)).rows()]
    assert bits == [repr(row) for row in baselines.close(frame(shuffled)).rows()]


@given(rows)
def test_every_statistic_is_finite_and_in_order(points: list[tuple[int, int, float]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        closed = baselines.close(frame(points))
    for row in closed.iter_rows(named=True):
        sequence = [row["min"], *row["quantiles"], row["max"]]
        assert all(math.isfinite(x) for x in [*sequence, row["mean"], row["m2"]])
        assert sequence == sorted(sequence)
        assert row["min"] <= row["mean"] <= row["max"]
        assert row["m2"] >= 0


def test_statistics_are_those_of_numpy() -> None:
    rng = np.random.default_rng(1)
    value = rng.normal(50, 7, 600)
    closed = baselines.close(frame([(k % 3, k, v) for k, v in enumerate(value.tolist())]))
    assert closed["series_id"].to_list() == [0, 1, 2]
    for k, row in enumerate(closed.iter_rows(named=True)):
        mine = value[k::3]
        assert row["count"] == 200
        assert row["mean"] == pytest.approx(mine.mean())
        assert row["m2"] == pytest.approx(((mine - mine.mean()) ** 2).sum())
        assert row["quantiles"] == pytest.approx(np.quantile(mine, baselines.QUANTILES).tolist())


def test_the_columns_are_those_of_the_table() -> None:
    closed = baselines.close(frame([(1, 1, 1.0)]))
    schema = BASELINES.schema
    assert set(schema) - set(closed.columns) == {"hour_start", "baseline_version", "hour"}
    assert all(closed.schema[name] == schema[name] for name in closed.columns)
    assert baselines.close(frame([])).schema == closed.schema


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 59), st.floats(-1e6, 1e6)), min_size=1, max_size=40))
def test_merged_hours_are_the_statistics_of_their_pooled_points(points: list[tuple[int, int, float]]) -> None:
    whole = baselines.close(frame(points))
    merged = baselines.merge([baselines.close(frame(points[::2])), baselines.close(frame(points[1::2]))])
    assert merged.select("series_id", "count", "min", "max").equals(whole.select("series_id", "count", "min", "max"))
    assert merged["mean"].to_list() == pytest.approx(whole["mean"].to_list(), rel=1e-9, abs=1e-6)
    assert merged["m2"].to_list() == pytest.approx(whole["m2"].to_list(), rel=1e-6, abs=1e-3)


def test_merging_nothing_gives_an_empty_frame() -> None:
    assert baselines.merge([]).schema == baselines.close(frame([])).schema
