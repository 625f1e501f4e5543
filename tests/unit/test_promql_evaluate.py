"""Evaluation over a lake: windows, limits, alerts, caches. Numbers are compared with a real Prometheus elsewhere."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.tables import ALERTS, METRIC_POINTS
from aiops_assets.telemetry.promql import evaluate, functions, render
from aiops_assets.telemetry.promql.errors import QueryError
from aiops_assets.telemetry.promql.evaluate import Evaluator, Limits, Stop
from aiops_assets.telemetry.promql.plan import plan
from aiops_assets.telemetry.promql.points import Cache, Lakeside, grouped
from tests import lake_samples
from tests.lake_samples import Stored

START = 1_772_409_600_000
MINUTE = 60_000


def lake_with(folder: Path, *series: Stored) -> Lakeside:
    lake = Lake(folder / "lake")
    lake_samples.write(lake, series, shuffle=1)
    return Lakeside(lake)


def steady(host: str = "a", minutes: int = 180, metric: str = "m", **rest: Any) -> Stored:
    ts = START + np.arange(minutes) * MINUTE
    return Stored(host, metric, ts, np.arange(minutes, dtype=float), **rest)


def instant(lake: Lakeside, query: str, minute: float, **options: Any) -> dict[str, float]:
    """Values by host."""
    answer = Evaluator(lake, **options).instant(plan(query), int((START + minute * MINUTE) * 1000))
    data = json.loads(render.data_of(answer, as_range=False))
    return {entry["metric"].get("host", ""): float(entry["value"][1]) for entry in data["result"]}


def ranged(lake: Lakeside, query: str, first: float, last: float, step: float = 1, **options: Any) -> list[Any]:
    start, end, width = (int(minutes * MINUTE * 1000) for minutes in (first, last, step))
    answer = Evaluator(lake, **options).range(plan(query), START * 1000 + start, START * 1000 + end, width)
    found: list[Any] = json.loads(render.data_of(answer, as_range=True))["result"]
    return found


def test_a_point_is_seen_for_five_minutes(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, Stored("a", "m", [START], [7.0]))
    assert instant(lake, "m", -0.01) == {}
    assert instant(lake, "m", 0) == {"a": 7.0}
    assert instant(lake, "m", 5) == {"a": 7.0}
    assert instant(lake, "m", 5.001) == {}
    assert instant(lake, "m", 5, open_left=True) == {}
    assert instant(lake, "m", 9, lookback=600_000_000) == {"a": 7.0}


def test_windows_hold_both_their_ends_unless_asked_otherwise(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, steady())
    assert instant(lake, "count_over_time(m[5m])", 10) == {"a": 6.0}
    assert instant(lake, "count_over_time(m[5m])", 10, open_left=True) == {"a": 5.0}
    assert instant(lake, "max_over_time(m[5m:1m])", 10, open_left=True) == {"a": 10.0}
    assert instant(lake, "count_over_time(m[5m:1m])", 10, open_left=True) == {"a": 5.0}


def test_a_staleness_marker_ends_a_series_and_is_no_point(tmp_path: Path) -> None:
    stale = float(np.array([functions.STALE_BITS]).view(np.float64)[0])
    lake = lake_with(tmp_path, Stored("a", "m", START + np.arange(3) * MINUTE, [1.0, 2.0, stale]))
    assert instant(lake, "m", 1.9) == {"a": 2.0}
    assert instant(lake, "m", 2) == {}
    assert instant(lake, "count_over_time(m[5m])", 3) == {"a": 2.0}
    assert [len(entry.ts) for entry in Evaluator(lake).instant(plan("m[9m]"), (START + 4 * MINUTE) * 1000).ranges] == [
        2
    ]


def test_a_query_over_many_hours_is_worked_on_in_portions_with_the_same_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = lake_with(tmp_path, *(steady(host, 600) for host in "abcdefg"))
    queries = (
        "m",
        "rate(m[10m])",
        "avg_over_time(m[3h])",
        "quantile_over_time(0.5, m[20m])",
        "m offset 1h",
        "m @ end()",
    )
    whole = [ranged(lake, query, -5, 640, 7) for query in queries]
    monkeypatch.setattr(evaluate, "POINTS_AT_ONCE", 200)
    monkeypatch.setattr(functions, "EXPANDED_AT_ONCE", 50)
    assert [ranged(lake, query, -5, 640, 7) for query in queries] == whole
    assert len(whole[0]) == 7


def test_what_was_read_is_kept_while_the_files_of_the_hour_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = lake_with(tmp_path, steady(minutes=150))
    before = ranged(lake, "m", 0, 150)
    reads: list[Sequence[str]] = []
    original = lake.snapshot().__class__._read_hours

    def counted(self: Any, ids: Any, digest: bytes, hours: Sequence[str]) -> Any:
        reads.append(hours)
        return original(self, ids, digest, hours)

    monkeypatch.setattr(lake.snapshot().__class__, "_read_hours", counted)
    assert ranged(lake, "m", 0, 150) == before
    assert reads == []
    lake_samples.write(Lake(tmp_path / "lake"), [Stored("a", "m", [START + 90_500], [99.0])])
    assert ranged(lake, "max_over_time(m[1h])", 60, 60)[0]["values"][0][1] == "99"
    assert reads == [["2026-03-02T00"]]


def test_new_series_are_seen_at_once(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, steady("a"))
    assert list(instant(lake, "m", 5)) == ["a"]
    lake_samples.write(Lake(tmp_path / "lake"), [steady("b")])
    assert sorted(instant(lake, "m", 5)) == ["a", "b"]


def test_rows_of_one_series_and_instant_count_once(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, Stored("a", "m", [START, START, START + 1000], [1.0, 1.0, 1.0]))
    assert instant(lake, "count_over_time(m[5m])", 1) == {"a": 2.0}


def test_too_many_samples_values_or_seconds_end_a_query_with_the_limit_named(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, *(steady(host) for host in "abc"))
    with pytest.raises(QueryError, match=r"more than 100;.*AIOPS_PROMETHEUS_MAX_SAMPLES") as samples:
        ranged(lake, "m", 0, 180, limits=Limits(samples=100))
    assert samples.value.kind == "execution"
    with pytest.raises(QueryError, match="3 series of 181 points; at most 500"):
        ranged(lake, "m", 0, 180, limits=Limits(cells=500))
    with pytest.raises(QueryError) as slow:
        ranged(lake, "m", 0, 180, stop=Stop(-1.0))
    assert slow.value.kind == "timeout"
    stop = Stop(10.0)
    stop.cancelled.set()
    with pytest.raises(QueryError) as gone:
        ranged(lake, "m", 0, 180, stop=stop)
    assert gone.value.kind == "canceled"


def test_two_series_that_a_function_would_make_equal_are_refused(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, steady(metric="m"), steady(metric="n"))
    with pytest.raises(QueryError, match="same labelset"):
        instant(lake, '-{__name__=~"m|n"}', 5)
    with pytest.raises(QueryError, match="many-to-many"):
        instant(lake, 'm * on(host) {__name__=~"m|n"}', 5)
    with pytest.raises(QueryError, match="group_left"):
        instant(lake, '{__name__=~"m|n"} * on(host) m', 5)


def test_metrics_with_equal_names_can_be_computed_on_together(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, steady(metric="a.b"), steady(metric="a_b"))
    assert len(ranged(lake, "rate(a_b[5m])", 10, 10)) == 2
    assert instant(lake, 'sum({"a.b"})', 5) == {"": 5.0}


def alert(alert_id: str, revision: int, state: str, start: float, end: float | None, **changes: Any) -> dict[str, Any]:
    def at(minute: float) -> datetime:
        return datetime.fromtimestamp(START / 1000 + minute * 60, UTC)

    return {
        "alert_id": alert_id,
        "revision": revision,
        "fingerprint": alert_id,
        "kind": "rule",
        "name": "cpu high",
        "state": state,
        "severity_number": 17,
        "host": "web-1",
        "metric": "system.cpu.utilization",
        "series_id": 1,
        "labels": '{"cpu":"0"}',
        "starts_at": at(start),
        "ends_at": None if end is None else at(end),
        "changed_at": at(end or start),
        "title": "cpu is high",
        "value": 0.97,
        "threshold": 0.9,
        "evidence": "{}",
        "suppressed_by": None,
        "amended_by": None,
        "received_at": at(start),
        "writer": "gateway",
        "seq": 1,
        **changes,
        "hour": at(start).strftime("%Y-%m-%dT%H"),
    }


def write_alerts(folder: Path, *rows: dict[str, Any]) -> Lakeside:
    lake = Lake(folder / "lake")
    TableWriter(lake, ALERTS).append(pl.DataFrame(rows, schema=ALERTS.schema), {})
    return Lakeside(lake)


def test_alerts_are_series_while_they_last(tmp_path: Path) -> None:
    lake = write_alerts(
        tmp_path,
        alert("1", 0, "firing", 3.2, None),
        alert("1", 1, "resolved", 3.2, 20.5),
        alert("2", 0, "firing", 10, None, host="web-2", severity_number=21),
        alert("3", 0, "suppressed", 10, None, host="web-3"),
        alert("4", 0, "firing", 10, None, host="web-4"),
        alert("4", 1, "withdrawn", 10, 11, host="web-4"),
    )
    assert instant(lake, "ALERTS", 3) == {}
    assert instant(lake, "ALERTS", 3.2) == {"web-1": 1.0}
    assert instant(lake, "ALERTS", 15) == {"web-1": 1.0, "web-2": 1.0, "web-3": 1.0}
    assert instant(lake, "ALERTS", 20.5) == {"web-2": 1.0, "web-3": 1.0}
    assert instant(lake, 'ALERTS{severity="critical"}', 15) == {"web-2": 1.0}
    assert instant(lake, 'ALERTS{alertstate="suppressed"}', 15) == {"web-3": 1.0}
    assert instant(lake, 'ALERTS{alertname=~"cpu.*",host!="web-1",alertstate="firing"}', 900) == {"web-2": 1.0}
    assert instant(lake, "count_over_time(ALERTS{host='web-1'}[1h])", 30) == {"web-1": 18.0}
    assert instant(lake, "ALERTS_FOR_STATE{host='web-2'}", 15) == {"web-2": START / 1000 + 600}
    assert instant(lake, 'absent(ALERTS{host="web-9"})', 15) == {"web-9": 1.0}
    (only,) = ranged(lake, 'sum by (alertname, cpu) (ALERTS{host="web-1"})', 0, 30, 1)
    assert only["metric"] == {"alertname": "cpu high", "cpu": "0"}
    assert [entry[0] for entry in only["values"]] == [START / 1000 + minute * 60 for minute in range(4, 21)]


def test_an_alert_that_follows_another_keeps_the_series_going(tmp_path: Path) -> None:
    lake = write_alerts(tmp_path, alert("1", 0, "resolved", 0, 5), alert("2", 0, "firing", 5, None))
    assert instant(lake, "ALERTS", 5) == {"web-1": 1.0}
    assert instant(lake, "ALERTS", 5.5) == {"web-1": 1.0}


def test_open_hours_are_read_like_closed_ones(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, steady("a", 130), steady("b", 130))
    before = ranged(lake, "rate(m[5m])", 0, 130)
    writer = TableWriter(Lake(tmp_path / "lake"), METRIC_POINTS)
    for hour in ("2026-03-02T00", "2026-03-02T01"):
        rows = Lake(tmp_path / "lake").read("metric_points", [hour])
        writer.replace(rows, hour)
    assert ranged(Lakeside(Lake(tmp_path / "lake")), "rate(m[5m])", 0, 130) == before


def test_numbers_are_written_as_prometheus_writes_them() -> None:
    values = np.array([1.0, -0.0, 0.1, math.inf, -math.inf, math.nan, 1e21, 1 / 3])
    assert render.numbers(values).to_list() == ["1", "-0", "0.1", "+Inf", "-Inf", "NaN", "1e+21", "0.3333333333333333"]
    assert render.times(np.array([1_000_000, 1_500_000, 1_023_000, 1_000])).to_list() == ["1", "1.5", "1.023", "0.001"]


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=20))
def test_written_numbers_read_back_the_same(values: list[float]) -> None:
    assert [float(text) for text in render.numbers(np.array(values))] == values


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), max_size=60, unique=True),
    st.integers(0, 20),
    st.booleans(),
)
def test_windows_hold_exactly_the_points_between_their_ends(
    cells: list[tuple[int, int]], width: int, open_left: bool
) -> None:
    series = np.array([cell[0] for cell in cells], np.int64)
    ts = np.array([cell[1] for cell in cells], np.int64)
    points = grouped(series, ts, ts.astype(float), 4)
    instants = np.arange(-10, 60, 7, dtype=np.int64)
    found = functions.windows(points, instants, width, instants, open_left=open_left)
    for row in range(4):
        for column, at in enumerate(instants.tolist()):
            inside = points.ts[found.low[row, column] : found.high[row, column]].tolist()
            expected = sorted(
                t for s, t in cells if s == row and at - width <= t <= at and not (open_left and t == at - width)
            )
            assert inside == expected


def test_a_cache_forgets_what_was_used_longest_ago() -> None:
    cache = Cache(40_000)
    for number in range(10):
        cache.put((number,), number, 8_000)
        cache.get((0,))
    assert cache.get((0,)) == 0
    assert cache.get((1,)) is None
    assert cache.get((9,)) == 9
    cache.put(("large",), 1, 30_000)
    assert cache.get(("large",)) is None
