"""`aiops shadow` against a real Prometheus: its history sample by sample, its rules, and who would have paged when.

What Prometheus paged is made by Prometheus itself: recording rules that say what each alert's ``for`` says, evaluated
over the blocks by ``promtool`` and written as ``ALERTS``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from aiops_assets.formats import parse
from aiops_assets.formats.batch import labels_json
from aiops_assets.lake.tables import Lake
from aiops_assets.landing.reader import read_segment, writers
from aiops_assets.landing.segment import Delivery
from tests import stack
from tests.real_prometheus import Sampled, needs_prometheus, running, write_blocks
from tests.stack import wait_until

pytestmark = needs_prometheus

MINUTE, HOUR, DAY = 60, 3600, 86_400
LOOKBACK = 300
DAYS = 1.5

RULES = """\
groups:
  - name: nodes
    interval: 60s
    rules:
      - alert: InstanceDown
        expr: up == 0
        for: 5m
        labels: {severity: critical}
      - alert: TooHot
        expr: node_hwmon_temp_celsius{sensor=~"cpu|gpu"} * 9 / 5 + 32 > 185
        for: 10m
        labels: {severity: warning}
        annotations: {summary: "{{ $labels.instance }} is hot"}
      - alert: Errors
        expr: rate(app_errors_total[5m]) > 0.5
        labels: {severity: error}
      - record: job:app_errors:rate5m
        expr: sum by (job) (rate(app_errors_total[5m]))
      - alert: ErrorShare
        expr: job:app_errors:rate5m / 10 > 0.1 and on() up
      - alert: AllErrors
        expr: sum(rate(app_errors_total[5m])) > 0.7
"""
#: what the rules above say, as series that promtool can write: the condition at each instant of ``for``
ALERTS = """\
groups:
  - name: alerts
    interval: 60s
    rules:
      - record: ALERTS
        expr: min_over_time((up == bool 0)[5m:1m]) == 1
        labels: {alertname: InstanceDown, alertstate: firing, severity: critical}
      - record: ALERTS
        expr: min_over_time((node_hwmon_temp_celsius{sensor=~"cpu|gpu"} > bool 85)[10m:1m]) == 1
        labels: {alertname: TooHot, alertstate: firing, severity: warning}
      - record: ALERTS
        expr: rate(app_errors_total[5m]) > 0.5
        labels: {alertname: Errors, alertstate: firing, severity: error}
      - record: ALERTS
        expr: sum(rate(app_errors_total[5m])) > 0.7
        labels: {alertname: AllErrors, alertstate: firing}
"""


@dataclass
class History:
    """A running Prometheus and what it holds; ``start`` is the first sample, ``end`` the one after the last."""

    url: str
    rules: Path
    series: list[Sampled]
    start: int
    end: int

    def expected(self, step: int, start: int, end: int) -> Counter[tuple[str, str, int, float]]:
        """(metric, labels, µs, value) on the grid: the newest sample at most five minutes old, as there."""
        grid = np.arange(start, end, step)
        found: Counter[tuple[str, str, int, float]] = Counter()
        for entry in self.series:
            ts, values = np.asarray(entry.ts) // 1000, np.asarray(entry.values)
            place = np.searchsorted(ts, grid, "right") - 1
            fresh = (place >= 0) & (grid - ts[np.maximum(place, 0)] < LOOKBACK)
            labels = labels_json({name: text for name, text in entry.labels.items() if name != "__name__"})
            for at, value in zip(grid[fresh].tolist(), values[place[fresh]].tolist(), strict=True):
                if np.isfinite(value):
                    found[entry.labels["__name__"], labels, at * 1_000_000, value] += 1
        return found


def samples(start: int, end: int) -> list[Sampled]:
    """Three hosts, a minute apart: one goes down twice, one is hot, one has errors and restarts; one metric is odd."""
    ts = np.arange(start, end, MINUTE)
    random = np.random.default_rng(7)
    made = []
    for host in range(3):
        instance = f"web-{host}:9100"
        up = np.ones(len(ts))
        if host == 0:
            up[(ts >= start + 9 * HOUR) & (ts < start + 9 * HOUR + 20 * MINUTE)] = 0
            up[(ts >= start + 30 * HOUR) & (ts < start + 30 * HOUR + 3 * MINUTE)] = 0
        temperature = np.round(60 + 10 * np.sin(ts / 7000 + host) + random.normal(0, 1, len(ts)), 2)
        if host == 1:
            temperature[(ts >= start + 5 * HOUR) & (ts < start + 6 * HOUR)] += 40
            temperature[(ts >= start + 20 * HOUR) & (ts < start + 20 * HOUR + 30 * MINUTE)] += 40
        errors = random.poisson(3, len(ts)).astype(float)
        if host == 2:
            errors[(ts >= start + 25 * HOUR) & (ts < start + 26 * HOUR)] += 80
        total = np.cumsum(errors)
        total[ts >= start + 12 * HOUR] -= total[ts < start + 12 * HOUR][-1]
        for name, values, more in (
            ("up", up, {}),
            ("node_hwmon_temp_celsius", temperature, {"sensor": "cpu"}),
            ("app_errors_total", total, {}),
        ):
            labels = {"__name__": name, "instance": instance, "job": "node", **more}
            made.append(Sampled(labels, ts * 1000, values))
    odd = np.where(np.arange(len(ts)) % 3 == 0, np.nan, 0.5)
    made.append(Sampled({"__name__": "odd_ratio", "instance": "web-0:9100"}, ts * 1000, odd))
    return made


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    folder = tmp_path_factory.mktemp("prometheus")
    end = int(time.time()) // MINUTE * MINUTE - 30 * MINUTE
    start = end - int((DAYS + 0.25) * DAY)
    series = samples(start, end)
    data, rules, alerts = folder / "data", folder / "rules.yml", folder / "alerts.yml"
    rules.write_text(RULES)
    alerts.write_text(ALERTS)
    write_blocks(data, series)
    with running(data) as url:
        command = ["promtool", "tsdb", "create-blocks-from", "rules", f"--start={start}", f"--end={end}"]
        command += [f"--url={url}", f"--output-dir={data}", "--eval-interval=60s", str(alerts)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    with running(data, f"rule_files: [{rules}]\n") as url:
        yield History(url, rules, series, start, end)


def aiops(home: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "aiops_assets.cli", "shadow", *arguments],
        env={**os.environ, "AIOPS_HOME": str(home), **options},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def landed(home: Path) -> tuple[list[Delivery], Counter[tuple[str, str, int, float]]]:
    found: list[Delivery] = []
    for writer in writers(home / "landing"):
        for path in sorted((home / "landing" / writer).glob("*.seg")):
            found += read_segment(path.parent, int(path.stem)).deliveries
    parsed = parse("prometheus_range", found)
    rows = parsed.points.join(parsed.series.with_row_index("series"), on="series", how="left")
    return found, Counter(rows.select("metric", "labels", "ts", "value").rows())


def stretch(values: dict[str, Any]) -> tuple[int, int]:
    first, last = (pl.Series([values["import"][name]]).str.to_datetime(time_zone="UTC") for name in ("from", "to"))
    return int(first.dt.epoch("s")[0]), int(last.dt.epoch("s")[0])


def test_a_history_is_imported_whole_its_rules_converted_and_its_pages_compared(
    history: History, tmp_path: Path
) -> None:
    home, report = tmp_path / "home", tmp_path / "report" / "shadow.md"
    values = result(
        aiops(home, "--prometheus", history.url, "--days", str(DAYS), "--json", "--rate-limit", "100",
              "--rules", str(history.rules), "--report", str(report), "--shifts", "06-22", "--zone", "Europe/Berlin")
    )  # fmt: skip
    start, end = stretch(values)
    assert abs(time.time() - HOUR - end) < 10 * MINUTE
    assert end - start == DAYS * DAY
    deliveries, found = landed(home)
    assert found == history.expected(60, start, end)
    assert max(found.values()) == 1
    assert {delivery.headers["history"] for delivery in deliveries} == {"1"}
    assert values["import"]["samples"] == found.total()
    assert values["import"]["refused_samples"] == DAYS * DAY / 60 / 3
    converted = {entry["alert"]: entry for entry in values["rules"]["converted"]}
    assert {name: entry["exactness"] for name, entry in converted.items()} == {
        "InstanceDown": "exact", "TooHot": "exact", "Errors": "close",
    }  # fmt: skip
    assert converted["TooHot"]["rule"]["value"] == 85.0
    assert [(entry["alert"], entry["place"]) for entry in values["rules"]["not_converted"]] == [
        ("ErrorShare", f"{history.rules}:19"),
        ("AllErrors", f"{history.rules}:21"),
    ]
    assert values["rules"]["recording"] == 1
    compared = {entry["alert"]: entry for entry in values["comparison"]["rules"]}
    for name, episodes in (("InstanceDown", 1), ("TooHot", 2), ("Errors", 1)):
        entry = compared[name]
        counts = [entry[field] for field in ("theirs", "ours", "both", "only_theirs", "only_ours")]
        assert counts == [episodes, episodes, episodes, 0, 0], name
        assert entry["series"] == 3
    assert compared["InstanceDown"]["median_lead_seconds"] == compared["TooHot"]["median_lead_seconds"] == 0.0
    assert abs(compared["Errors"]["median_lead_seconds"]) <= 5 * MINUTE
    assert values["comparison"]["without_twin"] == {"AllErrors": 1}
    assert {entry["shift"]: (entry["theirs"], entry["ours"]) for entry in values["comparison"]["shifts"]}.keys() == {
        "06–22", "22–06",
    }  # fmt: skip
    assert sum(entry["ours"] for entry in values["comparison"]["shifts"]) == 4
    text = report.read_text()
    assert "**3 of 5 alert rules were converted**" in text
    assert "| InstanceDown (critical) | exact |" in text
    assert all(
        (report.parent / name).read_text().startswith("<svg") for name in ("shadow-pages.svg", "shadow-episodes.svg")
    )


def test_an_import_that_is_killed_goes_on_and_every_sample_is_there_once(history: History, tmp_path: Path) -> None:
    home = tmp_path / "home"
    arguments = ("--prometheus", history.url, "--days", str(DAYS), "--step", "5s", "--json", "--no-statistics")
    arguments += ("--match", "up", "--match", '{__name__=~"node_.*"}', "--match", "app_errors_total")
    running_ = aiops(home, *arguments, "--rate-limit", "4")

    def done() -> list[str]:
        return [
            line
            for path in home.glob("shadow/*/done.jsonl")
            for line in path.read_text().splitlines()
            if "chunk" in line
        ]

    wait_until(lambda: len(done()) >= 4, 60, "four chunks are written down")
    running_.kill()
    running_.communicate(timeout=30)
    before = len(done())
    values = result(aiops(home, *arguments, "--rate-limit", "100"))
    chunks = len(done())
    assert before < chunks
    assert values["import"]["requests"] < chunks - before + (chunks // 3) + 8
    deliveries, found = landed(home)
    assert max(Counter(delivery.delivery_id for delivery in deliveries).values()) == 1
    start, end = stretch(values)
    wanted = history.expected(5, start, end)
    assert found == Counter({key: count for key, count in wanted.items() if key[0] != "odd_ratio"})
    assert values["comparison"]["rules"][0]["both"] == 1
    again = result(aiops(home, *arguments, "--no-fetch"))
    assert again["comparison"] == values["comparison"]
    assert landed(home)[1] == found


def test_rules_of_the_running_server_are_taken_and_a_dry_run_writes_nothing(history: History, tmp_path: Path) -> None:
    home = tmp_path / "home"
    values = result(aiops(home, "--prometheus", history.url, "--days", "1", "--dry-run", "--json"))
    assert [entry["alert"] for entry in values["rules"]["converted"]] == ["InstanceDown", "TooHot", "Errors"]
    assert {entry["place"] for entry in values["rules"]["not_converted"]} == {str(history.rules)}
    assert values["series"] == len(history.series)
    assert values["samples_at_most"] == len(history.series) * 1440
    assert not home.exists()


@pytest.mark.soak
def test_a_running_platform_stores_the_history_once_and_pages_nobody(history: History, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with stack.running(home):
        values = result(
            aiops(
                home, "--prometheus", history.url, "--days", "0.5", "--json", "--rate-limit", "100", "--no-statistics"
            )
        )
        start, end = stretch(values)
        wanted = history.expected(60, start, end)
        lake = Lake(str(home / "lake"))

        def stored() -> pl.DataFrame:
            return lake.scan("metric_points").filter(pl.col("source") == "prometheus").collect()

        wait_until(lambda: stored().height >= wanted.total(), 90, "the history is stored")
        points = stored().join(lake.read("series").select("series_id", "labels"), on="series_id")
        rows = points.select("metric", "labels", pl.col("ts").dt.epoch("us"), "value").rows()
        assert Counter(rows) == wanted
        assert lake.read("alerts").filter(pl.col("state") == "firing").is_empty()
