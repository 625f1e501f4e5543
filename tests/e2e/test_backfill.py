"""Backfills as real processes: beside a session, two at once, killed in the middle, and submitted to a real Dagster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import orjson
import polars as pl
import pytest

from aiops_assets.detection.receipts import newest, read_receipts
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND, hour_key
from aiops_assets.lake.tables import Lake, TableWriter, quote
from aiops_assets.live.lease import live_lease
from aiops_assets.settings import Settings
from aiops_assets.tables import METRIC_POINTS
from tests.stack import Sender, Stack, running, wait_until
from tests.unit.test_closing_hours import MINUTE, START, Home, differing, telemetry

HOURS = [hour_key(START + n * MICROS_PER_HOUR) for n in range(6)]
#: a live session that starts again whenever it has given way, until the file is there
SESSION = """
import sys, time
from pathlib import Path
from aiops_assets.live.loop import follow
from aiops_assets.settings import load_settings
settings, stop, number = load_settings(), Path(sys.argv[1]), 0
while not stop.exists():
    number += 1
    print(follow(settings, owner=f"session {number}", tell=lambda *_: None, should_stop=stop.exists), flush=True)
"""


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "AIOPS_HOME": str(home), "AIOPS_SESSION_QUIET_SECONDS": "600"}


def backfill(home: Path, first: int, last: int, *more: str) -> subprocess.Popen[str]:
    """The command in a process of its own; hours are numbered from ``START``."""
    command = [sys.executable, "-m", "aiops_assets.cli", "backfill"]
    span = [hour_key(START + number * MICROS_PER_HOUR) for number in (first, last)]
    assets = ["--assets", "metric_points,changes,alerts,baselines", "--json"]
    return subprocess.Popen(
        [*command, *span, *assets, *more],
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    told, complaints = process.communicate(timeout=240)
    assert process.returncode == 0, complaints[-3000:]
    return dict(orjson.loads(told))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Six closed hours; rows that change an alert of the second hour are stored and not derived yet."""
    home = Home(tmp_path / "home")
    documents = telemetry(6.3)
    held = [d for d in documents if d["host"] == "h1" and 85 <= (d["ts"] - START) // MINUTE < 130]
    home.stream([d for d in documents if d not in held])
    home.rest()
    home.send(held, received_at=documents[-1]["ts"] + MICROS_PER_SECOND)
    home.pipeline.close()
    return home


def assert_one_result(home: Home, rows: int) -> None:
    """Every hour derived again gives what its receipt says, no revision came twice, no row was lost."""
    lake = Lake(home.settings.paths.lake)
    receipts = read_receipts(lake)
    assert len({receipt.reference for receipt in receipts}) == len(receipts)
    points = lake.read("metric_points")
    assert points.select("series_id", "ts").is_unique().all()
    assert points.height == rows
    for hour, receipt in newest(receipts).items():
        assert points.filter(pl.col("hour") == hour).height == receipt.rows
    alerts = lake.read("alerts")
    assert alerts.select("alert_id", "revision").is_unique().all()
    home.restart()
    assert differing(home) == []


@pytest.mark.soak
def test_a_session_and_two_overlapping_backfills_come_to_one_result(home: Home, tmp_path: Path) -> None:
    root, stop = home.settings.home, tmp_path / "stop"
    rows = Lake(home.settings.paths.lake).read("metric_points").height
    log = (tmp_path / "session.log").open("w")
    session = subprocess.Popen(
        [sys.executable, "-c", SESSION, str(stop)], env=environment(root), stdout=log, stderr=log, text=True
    )
    try:
        lease = live_lease(home.settings.paths.live)
        wait_until(lease.holder, 60, "a session holds the lease")
        fresh = [d for d in telemetry(6.5) if (d["ts"] - START) // MINUTE >= 385]
        rows += 2 * len(fresh)
        home.land(fresh)
        first, second = backfill(root, 0, 6), backfill(root, 1, 5)
        done = [finished(first), finished(second)]
        wait_until(lambda: Lake(home.settings.paths.lake).read("metric_points").height == rows, 60, "all rows stored")
    finally:
        stop.touch()
        session.wait(60)
        log.close()
    assert session.returncode == 0, (tmp_path / "session.log").read_text()[-3000:]
    assert all(document["problems"] == [] for document in done)
    assert_one_result(home, rows)
    receipts = newest(read_receipts(Lake(home.settings.paths.lake)))
    assert receipts[HOURS[1]].revision >= 2


def test_a_backfill_that_is_killed_is_simply_run_again(home: Home) -> None:
    root = home.settings.home
    rows = Lake(home.settings.paths.lake).read("metric_points").height
    TableWriter(Lake(home.settings.paths.lake), METRIC_POINTS).delete(f"hour = {quote(HOURS[4])} AND host = 'h0'")
    for _ in range(3):
        process = backfill(root, 0, 6)
        live = home.settings.paths.live

        def begun(process: subprocess.Popen[str] = process, live: Path = live) -> bool:
            holder = live_lease(live).holder()
            return process.poll() is not None or (holder is not None and holder.pid == process.pid)

        wait_until(begun, 60, "the backfill owns the live plane")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
        process.communicate()
        assert live_lease(live).holder() is None, "the lease died with its process"
    document = finished(backfill(root, 0, 6))
    assert set(document["hours"]["counts"]) <= {"same", "amended"}
    assert not list((home.settings.paths.live / "backfill").glob("*.json"))
    assert_one_result(home, rows)


@pytest.mark.soak
def test_dagster_runs_a_backfill_beside_the_live_stream(home: Home) -> None:
    root = home.settings.home
    with running(root) as stack, Sender(stack, "beside", pause=0.2) as sender:
        wait_until(lambda: answers(stack), 120, "the Dagster webserver answers")
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "aiops_assets.cli", "backfill", HOURS[0], HOURS[4]),
                *("--assets", "metric_points,alerts,hour_closed", "--in-dagster", "--json"),
            ],
            env=stack.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        document = finished(process)
        (entry,) = document["backfills"]
        assert entry["status"] == "COMPLETED_SUCCESS"
        assert set(entry["assets"]) == {"metric_points", "alerts", "hour_closed"}
        assert all(counts["materialised"] == counts["targeted"] == 4 for counts in entry["assets"].values())
        acknowledged = sender.acknowledged
        wait_until(lambda: sender.acknowledged > acknowledged, 60, "deliveries are taken afterwards")
    settings = Settings(home=root)
    wait_until(lambda: live_lease(settings.paths.live).holder() is None, 60, "nobody holds the lease")
    receipts = newest(read_receipts(Lake(settings.paths.lake)))
    assert receipts[HOURS[1]].revision == 2


def answers(stack: Stack) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{stack.dagster_port}/server_info", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
