"""Live sessions against each other and against their own end: two at once, one killed, one asked to give way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.lake.tables import Lake
from aiops_assets.landing.segment import Delivery
from aiops_assets.landing.writer import SegmentWriter
from aiops_assets.live.lease import held, live_lease
from aiops_assets.live.progress import read_progress
from aiops_assets.settings import Settings
from tests.stack import wait_until

START = 1_790_000_000 * MICROS_PER_SECOND
HOSTS, SEGMENTS = 50, 40

SESSION = """
import sys
from aiops_assets.live.loop import follow
from aiops_assets.settings import load_settings
print(follow(load_settings(), owner=sys.argv[1], tell=lambda *_: None, lease_wait_seconds=60).ending, flush=True)
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    Settings(home=tmp_path).paths.create()
    with SegmentWriter(tmp_path / "landing", "gateway", max_bytes=1 << 20, max_age_seconds=60) as writer:
        for number in range(SEGMENTS):
            at = START + number * MICROS_PER_SECOND
            body = orjson.dumps(
                [{"host": f"h{n}", "ts": at, "points": [{"metric": "m", "value": number}]} for n in range(HOSTS)]
            )
            delivery = Delivery(f"d{number}", at, "test", "application/json", body, {"format": "collected"})
            writer.append_deliveries([delivery])
            writer.seal()
    return tmp_path


def session(home: Path, name: str, **settings: str) -> subprocess.Popen[str]:
    """A session in a process of its own, one segment a batch."""
    variables = {
        "AIOPS_HOME": str(home),
        "AIOPS_SESSION_QUIET_SECONDS": "1",
        "AIOPS_SESSION_BATCH_BYTES": "1",
        **settings,
    }
    return subprocess.Popen(
        [sys.executable, "-c", SESSION, name], env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True
    )


def assert_all_stored_once(home: Path) -> None:
    rows = Lake(home / "lake").read("metric_points")
    assert rows.height == HOSTS * SEGMENTS
    assert rows.select("series_id", "ts").is_unique().all()


def test_two_sessions_started_at_once_store_everything_once(home: Path) -> None:
    both = [session(home, name) for name in ("first", "second")]
    endings = [process.communicate(timeout=180)[0].strip() for process in both]
    assert endings == ["quiet", "quiet"]
    assert_all_stored_once(home)


@pytest.mark.parametrize("after", [1, 15])
def test_a_session_killed_in_the_middle_is_continued_by_the_next(home: Path, after: int) -> None:
    first = session(home, "first")
    wait_until(lambda: read_progress(home / "live").batches >= after, 120, f"{after} batches")
    first.send_signal(signal.SIGKILL)
    first.wait(30)
    second = session(home, "second")
    assert second.communicate(timeout=180)[0].strip() == "quiet"
    assert_all_stored_once(home)


def test_a_working_session_gives_way_to_whoever_asks_for_the_lease(home: Path) -> None:
    first = session(home, "first", AIOPS_SESSION_QUIET_SECONDS="60")
    wait_until(lambda: read_progress(home / "live").batches >= 3, 120, "some batches")
    with held(live_lease(home / "live"), "backfill", wait_seconds=60):
        assert first.communicate(timeout=60)[0].strip() == "asked to stop"
    second = session(home, "second")
    assert second.communicate(timeout=180)[0].strip() == "quiet"
    assert_all_stored_once(home)
