"""`aiops try`: the stranger's first incident, also while processes are killed, and no trace afterwards."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from aiops_assets.lake.tables import Lake
from aiops_assets.landing.reader import gaps, numbers, read_segment, writers
from aiops_assets.landing.segment import SEALED
from aiops_assets.live.progress import read_progress
from tests.stack import Stack, wait_until
from tests.stack import running as running_stack

pytestmark = pytest.mark.timeout(500)
HOSTS = {"try-web-1", "try-web-2", "try-db-1"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("try") / "home") as started:
        yield started


def aiops(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "aiops_assets.cli", *arguments]
    return subprocess.run(command, env=stack.variables, capture_output=True, text=True, timeout=400, check=False)


def test_an_incident_comes_with_its_suspect_while_processes_are_killed(stack: Stack) -> None:
    done = aiops(stack, "try", "--kill", "--days", "2", "--speed", "1.5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kill -9   gateway" in done.stdout
    assert "kill -9   run worker" in done.stdout
    counted = re.search(r"sent ([\d,]+), stored ([\d,]+), duplicates 0 ", done.stdout)
    assert counted is not None, done.stdout
    assert counted[1] == counted[2]
    assert int(counted[1].replace(",", "")) > 10_000
    found = re.search(r"incident  (INC-\w+) P(\d)", done.stdout)
    assert found is not None
    shown = json.loads(aiops(stack, "incidents", "show", found[1], "--json").stdout)
    assert "try-db-1" in shown["hosts"]
    assert {suspect["title"] for suspect in shown["suspects"]} == {"try-shop 2.14.0 rolled out (synthetic)"}
    assert "filesystem-full" in {member["alert"]["name"] for member in shown["members"]}
    acknowledged = json.loads(aiops(stack, "incidents", "ack", found[1], "--who", "kim", "--json").stdout)
    assert acknowledged["state"] == "acknowledged"


def test_clean_removes_every_trace_and_nothing_else(stack: Stack) -> None:
    lake = Lake(stack.home / "lake")
    hosts_before = set(lake.read("series")["host"]) - HOSTS
    assert set(lake.read("series")["host"]) >= HOSTS
    assert "try" in set(lake.read("log_events")["source"])
    done = aiops(stack, "try", "--clean")
    assert done.returncode == 0, done.stderr
    assert "metric_points: " in done.stdout
    told = ("metric_points", "series", "changes", "alerts", "anomalies", "entities", "log_events", "error_events")
    for table in told:
        frame = lake.read(table)
        for column in {"source", "host", "name"} & set(frame.columns):
            assert not frame.filter(pl.col(column).is_in([*HOSTS, "try-shop", "try"])).height, (table, column)
    known = set(lake.read("series")["series_id"])
    assert set(lake.read("baselines")["series_id"]) <= known
    assert set(lake.read("metric_points")["series_id"]) <= known
    assert set(lake.read("series")["host"]) == hosts_before
    landing = stack.home / "landing"
    for writer in writers(landing):
        assert not gaps(landing / writer)
        for seq in numbers(landing / writer, SEALED):
            assert all(delivery.source != "try" for delivery in read_segment(landing / writer, seq).deliveries)
    assert json.loads(aiops(stack, "incidents", "list", "--all", "--host", "try-*", "--json").stdout) == []
    assert json.loads(aiops(stack, "silence", "list", "--all", "--json").stdout) == []
    assert "try" not in read_progress(stack.home / "live").sources


def test_the_platform_goes_on_after_clean(stack: Stack) -> None:
    lake = Lake(stack.home / "lake")
    points = lake.scan("metric_points").select(pl.len())
    before = points.collect().item()
    wait_until(lambda: lake.scan("metric_points").select(pl.len()).collect().item() > before, 120, "points are stored")
    again = aiops(stack, "try", "--clean")
    assert again.returncode == 0
    assert again.stdout == ""
    assert "incidents  none open" in aiops(stack, "status").stdout


@pytest.mark.soak
def test_try_starts_the_platform_itself_and_ends_it_again(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "home")
    done = aiops(stack, "try", "--no-stay", "--days", "0.2", "--speed", "4")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "starting it for this try" in done.stdout
    assert "aiops try --clean" in done.stdout
    assert not stack.answers()
