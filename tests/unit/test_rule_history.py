"""Rules tested on stored points say what the live path would have said."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from aiops_assets.config import Config, Rule, parse_config
from aiops_assets.detection import rule_history
from aiops_assets.detection.alerts import AlertBook, BatchRows, present
from aiops_assets.detection.rules import RuleEngine
from aiops_assets.detection.steps import steps
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND, hour_key
from aiops_assets.tables import METRIC_POINTS, SERIES, TABLES, TIMESTAMP

START = 1_767_225_600 * MICROS_PER_SECOND  # 2026-01-01T00:00:00Z
MINUTE = 60 * MICROS_PER_SECOND
HOUR = MICROS_PER_HOUR
CONFIG = parse_config(
    """
default_rules: false
rules:
  - {name: high, metric: load, value: 10, clear: 8, for: 2m}
  - {name: silent, kind: absence, metric: load, host: "web-*", for: 5m}
  - {name: draft, metric: load, value: 3, enabled: false}
""",
    "f",
)


class FakeLake:
    """Two tables in memory, read as the lake reads them."""

    def __init__(self, points: Sequence[tuple[int, int, float]], hosts: Sequence[tuple[str, str]]) -> None:
        self.read_hours: list[str] = []
        ids, ts, value = zip(*points, strict=True)
        columns = {"series_id": ids, "ts": ts, "value": value, "hour": [hour_key(at) for at in ts]}
        self._points = _filled(pl.DataFrame(columns), METRIC_POINTS.schema)
        rows = {"series_id": range(len(hosts)), "host": [h for h, _ in hosts], "metric": [m for _, m in hosts]}
        self._series = _filled(pl.DataFrame(rows), SERIES.schema).with_columns(
            labels=pl.lit("{}"), kind=pl.lit("gauge")
        )

    def scan(self, name: str, hours: Sequence[str] | None) -> pl.LazyFrame:
        frame = {"metric_points": self._points, "series": self._series}[name].lazy()
        if hours is None:
            return frame
        self.read_hours += hours
        return frame.filter(pl.col(TABLES[name].partition or "").is_in(list(hours)))


def _filled(frame: pl.DataFrame, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    return frame.select(
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in schema.items()
    )


def wave(series: int, first: float, last: float, value: float) -> list[tuple[int, int, float]]:
    """A point every half minute between two hours."""
    return [(series, ts, value) for ts in range(START + int(first * HOUR), START + int(last * HOUR), MINUTE // 2)]


HOSTS = [("web-1", "load"), ("web-2", "load"), ("web-1", "other")]
POINTS = [
    *(*wave(0, 0, 1.5, 1), *wave(0, 1.5, 3, 12), *wave(0, 3, 6, 1), *wave(0, 6, 6.5, 20)),
    *(*wave(1, 0, 2, 1), *wave(1, 4, 6.5, 1)),
    *wave(2, 0, 6.5, 99),
]


def test_it_says_what_each_rule_would_have_fired() -> None:
    lake = FakeLake(POINTS, HOSTS)
    report = rule_history.run_rule_test("", CONFIG, START + HOUR, START + 13 * HOUR // 2, scan=lake.scan)
    high, silent = report.rules.to_dicts()
    assert (high["rule"], high["series"], high["alerts"], high["open_at_end"], high["hosts"]) == ("high", 2, 2, 1, 1)
    assert high["firing_seconds"] == 2 * 3600
    assert high["top_hosts"] == [{"host": "web-1", "alerts": 2}]
    assert (silent["alerts"], silent["open_at_end"], silent["top_hosts"]) == (1, 0, [{"host": "web-2", "alerts": 1}])
    assert silent["firing_seconds"] == pytest.approx(2 * 3600, abs=31)
    assert report.alerts["state"].to_list() == ["resolved", "resolved", "firing"]
    assert report.hours == len(set(lake.read_hours)) == 7
    document = json.loads(json.dumps(report.to_dict()))
    assert document["from"] == "2026-01-01T01:00:00+00:00"
    assert document["rules"][0]["first"] == "2026-01-01T01:30:00.000000Z"
    assert document["alerts"][0]["title"].startswith("load on web-1: back at 1, was 12")


def test_what_was_over_before_the_stretch_does_not_count_and_what_went_on_does() -> None:
    lake = FakeLake(POINTS, HOSTS)
    report = rule_history.run_rule_test("", CONFIG, START + 5 * HOUR, START + 6 * HOUR, ["high"], scan=lake.scan)
    assert report.rules["alerts"].to_list() == [0]
    inside = rule_history.run_rule_test("", CONFIG, START + 2 * HOUR, START + 5 * HOUR // 2, ["high"], scan=lake.scan)
    assert inside.rules["alerts"].to_list() == [1]
    assert inside.rules["firing_seconds"].to_list() == [1800.0]


def test_a_rule_can_be_tested_before_it_is_enabled() -> None:
    report = rule_history.run_rule_test("", CONFIG, START, START + HOUR, ["draft"], scan=FakeLake(POINTS, HOSTS).scan)
    assert report.rules["rule"].to_list() == ["draft"]


@pytest.mark.parametrize(
    ("names", "end", "message"),
    [(["nope"], START + HOUR, "no rule named 'nope'; known: .*high"), ([], START, "'to' must be later than 'from'")],
)
def test_mistakes_are_named(names: list[str], end: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rule_history.run_rule_test("", CONFIG, START, end, names, scan=FakeLake(POINTS, HOSTS).scan)


def test_an_empty_lake_gives_an_empty_report(tmp_path: object) -> None:
    report = rule_history.run_rule_test(str(tmp_path), Config(), START, START + HOUR)
    assert report.points == 0
    assert report.rules["alerts"].sum() == 0
    assert report.to_dict()["alerts"] == []


def test_a_stretch_without_any_telemetry_is_nobodys_silence() -> None:
    points = [*wave(0, 0, 1, 1), *wave(1, 0, 1, 1), *wave(1, 3, 4, 1), *wave(0, 3.02, 4, 1), *wave(2, 0, 1, 1)]
    off = rule_history.run_rule_test("", CONFIG, START, START + 4 * HOUR, ["silent"], scan=FakeLake(points, HOSTS).scan)
    assert off.rules["alerts"].to_list() == [0]
    on = FakeLake([*points, *wave(2, 1, 4, 1)], HOSTS)
    went_on = rule_history.run_rule_test("", CONFIG, START, START + 4 * HOUR, ["silent"], scan=on.scan)
    assert went_on.rules["alerts"].to_list() == [2]


def test_the_test_of_a_rule_equals_the_live_path() -> None:
    random = np.random.default_rng(3)
    directory = pl.DataFrame(
        {
            "number": np.arange(40, dtype=np.int32),
            "series_id": np.arange(40),
            "host": [f"web-{k}" for k in range(40)],
            "metric": "load",
            "unit": "",
            "labels": "{}",
            "kind": "gauge",
        }
    )
    ts = np.sort(random.integers(START, START + 6 * HOUR, 20_000))
    number = random.integers(0, 40, 20_000).astype(np.int32)
    value = 5 + 5 * np.sin(ts / HOUR * 7 + number) + random.standard_normal(20_000)
    rules: tuple[Rule, ...] = CONFIG.active_rules
    frame = pl.DataFrame({"number": number, "ts": ts, "value": value}).unique(["number", "ts"], maintain_order=True)
    by_hour = [
        (hour_key(at), frame.filter(pl.col("ts").is_between(at, at + HOUR, "left")))
        for at in range(START, START + 6 * HOUR, HOUR)
    ]
    report = rule_history.test_rules(by_hour, directory, rules, start=START, end=START + 6 * HOUR)

    engine, book = RuleEngine(rules), AlertBook()
    engine.grow(directory)
    live = []
    for batch in frame.iter_slices(777):
        at = batch["ts"].to_numpy()
        found = engine.process(steps(batch["number"].to_numpy(), at, batch["value"].to_numpy())) + engine.absences(
            int(at[-1])
        )
        live.append(book.apply(found, directory=directory, windows=[], batch=BatchRows.empty()))
    expected = present(pl.concat(live)).sort("starts_at", "name", "host", "alert_id")
    assert len(expected) > 50
    assert report.alerts.equals(expected)
    assert report.alerts["starts_at"].dtype == TIMESTAMP
