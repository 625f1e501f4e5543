"""``aiops lake``: each command says what it did, in words and as JSON, and exits as scripts expect."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from aiops_assets.cli import app
from aiops_assets.hours import MICROS_PER_HOUR, hour_key
from aiops_assets.lake.tables import Lake
from aiops_assets.live import ownership
from aiops_assets.live.lease import live_lease
from aiops_assets.settings import Settings
from tests.home import drain, fill, home

HOUR = time.time_ns() // 1000 // MICROS_PER_HOUR * MICROS_PER_HOUR - 4 * MICROS_PER_HOUR
runner = CliRunner()


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    settings = home(tmp_path / "home")
    fill(settings, HOUR, 5)
    drain(settings)
    monkeypatch.setenv("AIOPS_HOME", str(settings.paths.root))
    return settings


def call(*words: str, code: int = 0) -> Any:
    done = runner.invoke(app, ["lake", *words, "--json"])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def test_every_command_has_a_dry_run_and_json(platform: Settings) -> None:
    for name, key in (("compact", "tables"), ("vacuum", "tables"), ("retain", "tables"), ("pack", "writers")):
        answer = call(name, "--dry-run")
        assert answer["dry_run"] is True
        assert isinstance(answer[key], list)
        assert runner.invoke(app, ["lake", name, "--dry-run"]).exit_code == 0
        assert runner.invoke(app, ["lake", name]).exit_code == 0


def test_a_finding_is_an_exit_code_and_its_next_step_mends_it(platform: Settings) -> None:
    assert call("verify")["clean"] is True
    handle = Lake(platform.paths.lake).open("metric_points")
    assert handle is not None
    for uri in handle.file_uris():
        Path(uri).write_bytes(b"")
    answer = call("verify", code=1)
    step = answer["findings"][0]["next_step"]
    shown = runner.invoke(app, ["lake", "verify"])
    assert shown.exit_code == 1
    assert "next: aiops lake rebuild" in shown.output
    assert step == f"aiops lake rebuild {hour_key(HOUR)}"
    assert call("rebuild", hour_key(HOUR), "--dry-run")["hours"][0]["outcome"] == "replaced"
    assert call("rebuild", hour_key(HOUR))["hours"][0]["outcome"] == "replaced"
    assert call("verify", "--full")["clean"] is True
    assert {hour["outcome"] for hour in call("rebuild", "--all")["hours"]} == {"same"}


@pytest.mark.parametrize("words", [[], ["--all", "2026-01-01T00"], ["2026-01-01"], ["2026-1-1T0"], ["tomorrow"]])
def test_a_wrong_hour_is_told_before_anything_is_done(platform: Settings, words: list[str]) -> None:
    done = runner.invoke(app, ["lake", "rebuild", *words])
    assert done.exit_code == 2
    assert "hour" in done.output


def test_a_session_that_does_not_give_way_is_named(platform: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership.owned.__wrapped__, "__kwdefaults__", {"wait_seconds": 0.05})  # type: ignore[attr-defined]
    lease = live_lease(platform.paths.live)
    assert lease.acquire("session", seconds=60, keep_waiting=lambda: False)
    try:
        done = runner.invoke(app, ["lake", "rebuild", hour_key(HOUR)])
    finally:
        lease.release()
    assert done.exit_code == 1
    assert "still held by" in done.output
