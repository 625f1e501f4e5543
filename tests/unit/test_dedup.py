"""One point a (series, ts): the lowest ingest position wins."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import example, given
from hypothesis import strategies as st

from aiops_assets.hours import hour_expr
from aiops_assets.live.dedup import Deduplicator
from aiops_assets.tables import TIMESTAMP
from aiops_assets.telemetry.series import SeriesDirectory

MINUTE = 60_000_000


class Stored:
    """A stand-in for the table: what was accepted, by hour."""

    def __init__(self) -> None:
        schema = {"series_id": pl.Int64, "ts": TIMESTAMP, "value": pl.Float64}
        self.rows = pl.DataFrame(schema=schema)
        self.reads = 0

    def read_hour(self, hour: str) -> pl.DataFrame:
        self.reads += 1
        return self.rows.filter(hour_expr() == hour)

    def add(self, ids: np.ndarray, ts: np.ndarray, value: np.ndarray) -> None:
        frame = pl.DataFrame({"series_id": ids, "ts": pl.Series(ts).cast(TIMESTAMP), "value": value})
        self.rows = pl.concat([self.rows, frame])


def directory_of(size: int) -> SeriesDirectory:
    directory = SeriesDirectory()
    series = pl.DataFrame(
        {"host": ["h"] * size, "metric": [f"m{n}" for n in range(size)], "unit": "", "labels": "{}", "kind": "gauge"}
    )
    directory.register(series, "test", None)
    return directory


POINT = st.tuples(st.integers(0, 3), st.integers(0, 150), st.sampled_from([1.0, 2.0]))


@example(batches=[[(0, 0, 2.0)], [(0, 0, 1.0), (0, 0, 2.0)]], forget=False)
@given(batches=st.lists(st.lists(POINT, max_size=30), min_size=1, max_size=6), forget=st.booleans())
def test_every_key_is_stored_once_with_the_first_value_seen(
    batches: list[list[tuple[int, int, float]]], forget: bool
) -> None:
    directory, stored = directory_of(4), Stored()
    dedup = Deduplicator(directory, stored.read_hour)
    expected: dict[tuple[int, int], float] = {}
    for batch in batches:
        if forget:
            dedup = Deduplicator(directory, stored.read_hour)
        number = np.array([p[0] for p in batch], np.int32)
        ts = np.array([p[1] * MINUTE for p in batch], np.int64)
        value = np.array([p[2] for p in batch])
        verdict = dedup.judge(number, ts, value)
        for row, (series, minute, seen) in enumerate(batch):
            first = expected.setdefault((series, minute), seen)
            if verdict.fresh[row]:
                assert first == seen
            elif verdict.conflict[row]:
                assert first != seen
            else:
                assert verdict.duplicate[row]
                assert first == seen
        fresh = verdict.fresh
        stored.add(directory.ids[number[fresh]], ts[fresh], value[fresh])
        dedup.accept(number[fresh], ts[fresh])
    keys = stored.rows.select("series_id", pl.col("ts").dt.epoch("us"), "value").rows()
    assert len(keys) == len(expected)
    assert {(directory.number_of(id_), ts // MINUTE): value for id_, ts, value in keys} == expected


def test_points_in_order_never_read_the_table_again() -> None:
    directory, stored = directory_of(3), Stored()
    dedup = Deduplicator(directory, stored.read_hour)
    for minute in range(50):
        number, ts = np.arange(3, dtype=np.int32), np.full(3, minute * MINUTE)
        assert dedup.judge(number, ts, np.ones(3)).fresh.all()
        dedup.accept(number, ts)
    assert stored.reads == 1
