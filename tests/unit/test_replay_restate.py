"""Restating: what is known today is written, what was known stays, and interruptions change nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import polars as pl
import pytest

from aiops_assets.detection.receipts import Receipt, newest, read_receipts
from aiops_assets.hours import MICROS_PER_HOUR, hour_key
from aiops_assets.lake.tables import Lake
from aiops_assets.live import deriving
from aiops_assets.live.lease import held, live_lease
from aiops_assets.replay.period import Period
from aiops_assets.replay.report import is_empty
from aiops_assets.replay.restate import restate
from aiops_assets.replay.run import as_now, as_recorded
from aiops_assets.settings import Settings
from tests.home import send
from tests.replay_home import MINUTE, Story, documents, start

FIRST = start()
WHOLE = Period(FIRST, FIRST + 7 * MICROS_PER_HOUR)
RULES = """
rules:
- {name: app-load, metric: app.load, value: 1.85, for: 1m}
- {name: filesystem-almost-full, metric: system.filesystem.utilization, value: 0.95, enabled: false}
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    story = Story(folder)
    story.stream(documents(FIRST, 60 * 7 + 10), 160)
    story.settle()
    story.pipeline.close()
    return folder


@pytest.fixture
def settings(original: Path, tmp_path: Path) -> Settings:
    """A home whose rules have changed since."""
    shutil.copytree(original, tmp_path / "home")
    settings = Settings(home=tmp_path / "home")
    settings.paths.config.write_text(RULES)
    return settings


def receipts(settings: Settings) -> list[Receipt]:
    return read_receipts(Lake(settings.paths.lake))


def outcome(settings: Settings) -> tuple[dict[str, tuple[str, ...]], list[tuple[object, ...]]]:
    """What counts of a home: hashes of the newest receipts, and what alerts say in the end."""
    hashes = {
        hour: (receipt.anomalies_hash, receipt.decisions_hash, receipt.state_out_hash, receipt.baseline_hash)
        for hour, receipt in newest(receipts(settings)).items()
    }
    told = Lake(settings.paths.lake).read("alerts").sort("revision").unique("alert_id", keep="last").sort("alert_id")
    return hashes, told.select("alert_id", "name", "state", "starts_at", "ends_at", "severity_number", "title").rows()


def test_todays_rules_are_written_and_what_was_known_before_stays(settings: Settings) -> None:
    before = receipts(settings)
    done = restate(settings, WHOLE, reason="the disk rule had the wrong limit")
    assert done.hours == 7
    assert {receipt.reason for receipt in done.changed} == {"restated: the disk rule had the wrong limit"}
    assert done.withdrawn == 2
    assert done.raised
    after = receipts(settings)
    assert [receipt for receipt in after if receipt.revision == 1] == before
    told = Lake(settings.paths.lake).read("alerts").filter(pl.col("state") == "withdrawn")
    assert set(told["name"]) == {"filesystem-almost-full"}
    assert "the disk rule had the wrong limit" in told["amended_by"][0]
    assert as_recorded(settings, WHOLE).differences == []
    assert is_empty(as_now(settings, WHOLE).document), "what is recorded now is what is known now"


def test_a_second_restatement_changes_nothing(settings: Settings) -> None:
    restate(settings, WHOLE)
    first, rows = outcome(settings), Lake(settings.paths.lake).read("alerts").height
    again = restate(settings, WHOLE)
    assert (again.hours, again.changed) == (7, [])
    assert outcome(settings) == first
    assert Lake(settings.paths.lake).read("alerts").height == rows


KILLED = """
import os, signal, sys
from pathlib import Path
from aiops_assets.live import deriving
from aiops_assets.replay.period import Period
from aiops_assets.replay.restate import restate
from aiops_assets.settings import Settings

deriving.BUDGET_SECONDS = 0.001
def progress(done, total):
    if done == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
restate(Settings(home=Path(sys.argv[1])), Period(int(sys.argv[2]), int(sys.argv[3])), progress=progress)
"""


@pytest.mark.parametrize("hours", [1, 4])
def test_a_killed_restatement_goes_on_and_ends_alike(
    settings: Settings, tmp_path: Path, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deriving, "BUDGET_SECONDS", 0.001)
    shutil.copytree(settings.home, tmp_path / "whole")
    whole = Settings(home=tmp_path / "whole")
    restate(whole, WHOLE)
    command = [sys.executable, "-c", KILLED, str(settings.home), str(WHOLE.start), str(WHOLE.end), str(hours)]
    killed = subprocess.run(command, timeout=120, check=False, capture_output=True)
    assert killed.returncode == -9, killed.stderr
    resumed = restate(settings, WHOLE)
    assert resumed.resumed_after == hour_key(FIRST + (hours - 1) * MICROS_PER_HOUR)
    assert resumed.hours == 7 - hours
    assert outcome(settings) == outcome(whole)
    assert as_recorded(settings, WHOLE).differences == []
    assert restate(settings, WHOLE).resumed_after == "", "what is finished begins anew"


def test_what_arrives_meanwhile_is_taken(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deriving, "BUDGET_SECONDS", 0.001)
    lake = Lake(settings.paths.lake)
    before = lake.read("metric_points").height
    seen: list[int] = []

    def progress(done: int, total: int) -> None:
        if done == 2:
            send(settings, documents(FIRST + 430 * MINUTE, 2, seed=9), at=FIRST + 433 * MINUTE)
        if done == 4:
            seen.append(lake.read("metric_points").height)

    restate(settings, WHOLE, progress=progress)
    assert seen == [before + 2 * 4 * 3]
    assert as_recorded(settings, WHOLE).differences == []


def test_whoever_holds_the_live_plane_is_named(settings: Settings) -> None:
    lease = live_lease(settings.paths.live)
    with held(lease, "somebody else", wait_seconds=1), pytest.raises(TimeoutError, match="somebody else"):
        restate(settings, WHOLE, wait_seconds=0.2)


def test_two_restatements_at_once_give_one_result(settings: Settings, tmp_path: Path) -> None:
    shutil.copytree(settings.home, tmp_path / "whole")
    whole = Settings(home=tmp_path / "whole")
    restate(whole, WHOLE)
    changed: list[int] = []
    workers = [threading.Thread(target=lambda: changed.append(len(restate(settings, WHOLE).changed))) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert sorted(changed) == [0, 7]
    assert outcome(settings) == outcome(whole)


def test_a_range_without_closed_hours_is_refused(settings: Settings) -> None:
    with pytest.raises(LookupError, match="no closed hour"):
        restate(settings, Period(FIRST - 20 * MICROS_PER_HOUR, FIRST - 10 * MICROS_PER_HOUR))
