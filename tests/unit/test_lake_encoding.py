"""The layout of closed hours: few bytes a point, every value as it was, readers can skip by series."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from deltalake import write_deltalake
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from aiops_assets.lake import encoding
from aiops_assets.lake.digest import digest
from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.tables import METRIC_POINTS, TABLES
from tests.examples import examples
from tests.steady import START, steady_hour

HOUR = "2026-01-01T00"


def bytes_a_point(lake: Lake) -> float:
    (part,) = lake.partitions("metric_points")
    return part.size / part.rows


@pytest.mark.parametrize("jitter_seconds", [0.0, 0.003], ids=["aligned", "jittering"])
def test_steady_metrics_cost_at_most_three_bytes_a_point(tmp_path: Path, jitter_seconds: float) -> None:
    lake = Lake(tmp_path)
    rows = steady_hour(200, jitter_seconds=jitter_seconds)
    writer = TableWriter(lake, METRIC_POINTS)
    writer.append(rows, {"gateway": 1})
    before = bytes_a_point(lake)
    writer.replace(rows, HOUR)
    after = bytes_a_point(lake)
    assert after <= 3.0
    assert after < before
    assert digest(lake.read("metric_points"), ("series_id", "ts")) == digest(rows, ("series_id", "ts"))


def test_readers_can_skip_by_series(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    lake = Lake(tmp_path)
    rows = steady_hour(20)
    TableWriter(lake, METRIC_POINTS).append(rows, {"gateway": 1})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(encoding, "ROWS_PER_GROUP", 4_000)
        TableWriter(lake, METRIC_POINTS).replace(rows, HOUR)
    handle = lake.open("metric_points")
    assert handle is not None
    footer = pq.ParquetFile(handle.file_uris()[0]).metadata
    place = footer.schema.names.index("series_id")
    bounds = [footer.row_group(n).column(place).statistics for n in range(footer.num_row_groups)]
    assert footer.num_row_groups == 3
    assert all(a.max <= b.min for a, b in pairwise(bounds))
    actions = pl.DataFrame(handle.get_add_actions(flatten=True))
    assert actions["min.series_id"].to_list() == [rows["series_id"].min()]
    assert actions["max.series_id"].to_list() == [rows["series_id"].max()]


floats = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, -0.0, 5e-324, 1.5, math.nan]),
    st.integers(0, 5).map(float),
)


@given(values=st.lists(floats, min_size=1, max_size=60), repeat=st.integers(1, 20))
@settings_of_hypothesis(max_examples=examples(25), deadline=None)
def test_every_value_comes_back_with_all_its_bits(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], repeat: int
) -> None:
    rows = steady_hour(2).head(len(values) * repeat)
    rows = rows.with_columns(pl.Series("value", (values * repeat)[: rows.height], pl.Float64))
    folder = str(tmp_path_factory.mktemp("lake"))
    write_deltalake(folder, rows, writer_properties=encoding.closed(METRIC_POINTS, rows))
    back = pl.read_parquet(next(Path(folder).glob("*.parquet")))
    bits = [np.asarray(frame["value"]).view(np.int64).tolist() for frame in (rows, back)]
    assert bits[0] == bits[1]
    assert_frame_equal(back.drop("value"), rows.drop("value"))


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_table_can_be_laid_out_even_when_it_is_empty(tmp_path: Path, name: str) -> None:
    table = TABLES[name]
    frame = table.empty()
    write_deltalake(str(tmp_path), frame, writer_properties=encoding.closed(table, frame))


def test_noise_is_split_and_repetition_gets_a_dictionary() -> None:
    noise = pl.Series("value", np.random.default_rng(1).normal(size=1000))
    assert encoding._column(noise, pl.Float64()) is encoding._SPLIT
    assert encoding._column(noise.round(0), pl.Float64()) is None
    assert START % 3_600_000_000 == 0
