"""Plots: reading from the lake, thinning and geometry."""

from __future__ import annotations

import math
from pathlib import Path

import orjson
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiops_assets.hours import MICROS_PER_HOUR, hour_key, instant
from aiops_assets.incidents.plots import HEIGHT, nice_values, plot, window_of
from aiops_assets.incidents.series import POINTS_SCHEMA, Expectation, LakeReader, SeriesInfo, UsualRange, thin
from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.tables import TABLES
from tests.unit.test_incidents_correlation import made
from tests.unit.test_incidents_store import MINUTE, SECOND, T0

INFO = SeriesInfo("db-1", "system.filesystem.utilization", "1", {"mountpoint": "/"})


def points(*pairs: tuple[int, float], series_id: int = 1) -> pl.DataFrame:
    frame = pl.DataFrame(
        [(series_id, at, value) for at, value in pairs],
        schema={"series_id": pl.Int64, "ts": pl.Int64, "value": pl.Float64},
        orient="row",
    )
    return frame.with_columns(pl.col("ts").cast(POINTS_SCHEMA["ts"]))


def test_thinning_keeps_peaks_and_troughs_and_order() -> None:
    pairs = [(T0 + n * SECOND, 1.0) for n in range(20_000)]
    pairs[7_777], pairs[12_345] = (pairs[7_777][0], 99.0), (pairs[12_345][0], -99.0)
    thinned = thin(points(*pairs), T0, T0 + 20_000 * SECOND)
    assert thinned.height <= 1_000 and thinned["ts"].is_sorted()
    assert thinned["value"].max() == 99.0 and thinned["value"].min() == -99.0


def test_thinning_leaves_short_series_alone() -> None:
    both = pl.concat(
        [points((T0, 1.0), (T0 + SECOND, 2.0)), points(*((T0 + n, 1.0) for n in range(3_000)), series_id=2)]
    )
    thinned = thin(both, T0, T0 + 3_000)
    assert thinned.filter(pl.col("series_id") == 1).height == 2
    assert thinned.filter(pl.col("series_id") == 2).height <= 1_000


def test_a_plot_places_points_limits_alerts_and_changes() -> None:
    alert = made("a", "db-1", T0 + 5 * MINUTE, threshold=0.9, evidence='{"rule":"threshold"}')
    drawn = plot(
        INFO,
        1,
        points(*((T0 + n * MINUTE, 0.5 + 0.04 * n) for n in range(11))),
        start=T0,
        end=T0 + 10 * MINUTE,
        alerts=[alert],
        changes=[(1, T0 + 2 * MINUTE, "deploy"), (2, T0 - MINUTE, "before")],
        usual=UsualRange(0.48, 0.5, 0.52, 24),
    )
    assert len(drawn.lines) == 1 and drawn.lines[0].startswith("M0.0 ")
    assert [(span.x, span.width) for span in drawn.spans] == [(50.0, 50.0)]
    assert [(marker.x, marker.number) for marker in drawn.markers] == [(20.0, 1)]
    assert [limit.label for limit in drawn.limits] == ["90%"] and 0 < drawn.limits[0].y < HEIGHT
    assert orjson.loads(drawn.data)[1] == [60_000, 0.54]
    assert "usual range of the 24 hours before: 48% to 52%" in drawn.usual_label
    assert drawn.summary.endswith("between 50% and 90%, last 90%")


def test_a_hole_in_the_points_is_a_hole_in_the_line() -> None:
    pairs = [(T0 + n * MINUTE, 1.0) for n in [*range(10), *range(30, 40), 59]]
    drawn = plot(INFO, 1, points(*pairs), start=T0, end=T0 + 60 * MINUTE, alerts=[], changes=[])
    assert len(drawn.lines) == 2 and len(drawn.dots) == 1


def test_a_limit_far_away_is_pointed_to_and_one_of_pace_is_not_drawn() -> None:
    far = made("a", "h", threshold=1e9, evidence='{"rule":"threshold"}')
    pace = made("b", "h", threshold=0.5, evidence='{"rule":"rate"}')
    info = SeriesInfo("h", "m", "By")
    drawn = plot(info, 1, points((T0, 1.0), (T0 + 1, 2.0)), start=T0, end=T0 + MINUTE, alerts=[far, pace], changes=[])
    assert [(limit.off, limit.label) for limit in drawn.limits] == [("above", "953.7 MiB")]


def test_without_points_there_is_still_a_plot() -> None:
    drawn = plot(INFO, 1, points(), start=T0, end=T0 + MINUTE, alerts=[made("a", "h")], changes=[])
    assert drawn.lines == () and drawn.summary.endswith("no points in this time")


def test_the_window_reaches_around_the_incident() -> None:
    start, end = window_of(T0, None, T0 + 10 * MINUTE)
    assert (start, end) == (T0 - 30 * MINUTE, T0 + 10 * MINUTE)
    start, end = window_of(T0, T0 + 60 * MINUTE, T0 + 900 * MINUTE)
    assert (start, end) == (T0 - 30 * MINUTE, T0 + 75 * MINUTE)
    start, end = window_of(T0, None, T0 + 30 * 24 * 60 * MINUTE)
    assert end - start == 7 * 24 * 60 * MINUTE
    start, end = window_of(T0, None, T0 + 10 * MINUTE, hours=24)
    assert end - start == 24 * 60 * MINUTE


finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(
    values=st.lists(finite, min_size=1, max_size=30),
    limit=st.one_of(st.none(), finite),
    band=st.tuples(finite, finite).map(sorted),
    unit=st.sampled_from(["1", "By", "s", "", "Cel"]),
)
def test_whatever_the_values_everything_lies_inside_the_plot(
    values: list[float], limit: float | None, band: list[float], unit: str
) -> None:
    alert = made("a", "h", T0, threshold=limit, evidence='{"rule":"threshold"}')
    drawn = plot(
        SeriesInfo("h", "m", unit),
        1,
        points(*((T0 + n * SECOND, value) for n, value in enumerate(values))),
        start=T0,
        end=T0 + 30 * SECOND,
        alerts=[alert],
        changes=[(1, T0 + SECOND, "c")],
        expected=[Expectation(T0 + SECOND, band[0], sum(band) / 2, band[1])],
        usual=UsualRange(band[0], sum(band) / 2, band[1], 3),
    )
    numbers = [
        float(number)
        for path in (*drawn.lines, drawn.band)
        for number in path.replace("M", " ").replace("L", " ").replace("Z", " ").split()
    ]
    assert all(math.isfinite(number) for number in numbers)
    assert all(-0.6 <= y <= HEIGHT + 0.6 for y in numbers[1::2])
    assert all(0 <= tick.at <= HEIGHT for tick in drawn.y_ticks) and len(drawn.y_ticks) <= 12


@pytest.mark.parametrize(
    ("low", "high", "unit", "expected"),
    [
        (0, 1, "1", [0, 0.5, 1]),
        (0, 100, "", [0, 50, 100]),
        (0, 4 * 1024**2, "By", [0, 1024**2, 2 * 1024**2, 3 * 1024**2, 4 * 1024**2]),
        (5, 5, "", [5]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, unit: str, expected: list[float]) -> None:
    assert nice_values(low, high, 4, unit) == pytest.approx(expected)


def test_the_lake_is_read_by_hour_and_series(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    hour = T0 - T0 % MICROS_PER_HOUR
    stamp = {"received_at": instant(T0), "writer": "gateway", "seq": 1}

    def write(name: str, rows: list[dict[str, object]]) -> None:
        TableWriter(lake, TABLES[name]).append(pl.DataFrame(rows, schema=TABLES[name].schema, orient="row"), {})

    told = {"host": "db-1", "metric": "m", "unit": "1", "source": "try"} | stamp
    write(
        "metric_points",
        [
            {"ts": instant(at), "series_id": series_id, "value": float(series_id), "hour": hour_key(at)} | told
            for at in (hour - MICROS_PER_HOUR, hour + MINUTE, hour + 2 * MINUTE)
            for series_id in (1, 2)
        ],
    )
    series = {"host": "db-1", "metric": "m", "unit": "1", "labels": '{"a":"b"}', "kind": "gauge", "source": "try"}
    write("series", [{"series_id": 1, "first_seen": instant(T0)} | series])
    judged = {"host": "db-1", "metric": "m", "value": 9.0, "expected": 1.0, "lower": 0.0, "upper": 2.0, "score": 0.9}
    judged |= {"detector": "spike", "detector_version": "1", "evidence": "{}", "opens_event": True} | stamp
    write("anomalies", [{"ts": instant(hour + MINUTE), "series_id": 1, "hour": hour_key(hour)} | judged])
    write(
        "baselines",
        [
            {
                "series_id": 1, "hour_start": instant(at), "baseline_version": version, "count": 60, "mean": 1.0,
                "m2": 0.0, "min": 0.0, "max": 2.0, "quantiles": [low, 0.0, 0.0, centre, 0.0, 0.0, high],
                "hour": hour_key(at),
            }
            for at, version, low, centre, high in (
                (hour - 2 * MICROS_PER_HOUR, 1, 0.2, 1.0, 1.5), (hour - MICROS_PER_HOUR, 1, -9.0, 9.0, 9.0),
                (hour - MICROS_PER_HOUR, 2, 0.1, 2.0, 1.8), (hour, 1, -5.0, 5.0, 5.0),
            )
        ],
    )  # fmt: skip
    reader = LakeReader(str(tmp_path))
    found = reader.read_points([1], hour, hour + 90 * SECOND)
    assert found.schema == pl.Schema(POINTS_SCHEMA) and found.rows() == [(1, instant(hour + MINUTE), 1.0)]
    assert reader.describe([1, 5]) == {1: SeriesInfo("db-1", "m", "1", {"a": "b"})}
    assert reader.expected([1, 2], hour, hour + MICROS_PER_HOUR - 1) == {1: [Expectation(hour + MINUTE, 0.0, 1.0, 2.0)]}
    assert reader.usual([1], hour + MINUTE) == {1: UsualRange(0.1, 1.5, 1.8, 2)}
    assert reader.entities().is_empty()


def test_an_empty_lake_reads_as_nothing(tmp_path: Path) -> None:
    reader = LakeReader(str(tmp_path))
    assert reader.read_points([1], T0, T0 + MINUTE).schema == pl.Schema(POINTS_SCHEMA)
    assert (reader.describe([1]), reader.expected([1], T0, T0), reader.usual([1], T0)) == ({}, {}, {})
