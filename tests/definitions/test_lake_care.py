"""Lake care in the asset graph: what it shows, what it refuses to do by itself, what stops a release."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from aiops_assets.care.assets import GROUP, NAMES, RELEASE, VERIFICATION, care_assets
from aiops_assets.hours import MICROS_PER_HOUR
from aiops_assets.lake.tables import Lake
from aiops_assets.lake.verification import CHECKS
from aiops_assets.landing.packing import packs
from aiops_assets.landing.reader import numbers
from aiops_assets.landing.segment import SEALED
from aiops_assets.settings import Settings
from jobs.upkeep import lake_upkeep_job, upkeep_schedules
from tests.home import drain, fill, home

HOUR = time.time_ns() // 1000 // MICROS_PER_HOUR * MICROS_PER_HOUR - 5 * MICROS_PER_HOUR


@pytest.fixture
def platform(tmp_path: Path) -> Settings:
    settings = home(tmp_path / "home", landing_retention_hours=-1)
    for part in range(3):
        fill(settings, HOUR + part * 4_000_000_000, 4)
        drain(settings)
    return settings


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def definitions(settings: Settings) -> dg.Definitions:
    return dg.Definitions(assets=care_assets(), jobs=[lake_upkeep_job()], resources={"settings": settings})


def run(settings: Settings, instance: dg.DagsterInstance, *, really: bool) -> dg.ExecuteInProcessResult:
    job = definitions(settings).resolve_job_def("lake_upkeep")
    config = {}
    if really:
        (schedule,) = [s for s in upkeep_schedules(lake_upkeep_job()) if s.name == "lake_upkeep_schedule"]
        tick = schedule.evaluate_tick(dg.build_schedule_context())
        assert tick.run_requests
        config = dict(tick.run_requests[0].run_config)
        config["ops"] = {**config["ops"], "landing_packs": {"config": {"dry_run": False, "after_hours": 0.0}}}
    return job.execute_in_process(run_config=config, instance=instance, raise_on_error=False)


def metadata(result: dg.ExecuteInProcessResult, name: str) -> dict[str, object]:
    (event,) = result.asset_materializations_for_node(name)
    return {key: value.value for key, value in event.metadata.items()}


def everything(settings: Settings) -> list[str]:
    kept = [p for p in settings.paths.root.rglob("*") if p.is_file() and not p.is_relative_to(settings.paths.care)]
    return sorted(str(path) for path in kept)


def test_the_assets_say_what_they_are() -> None:
    specs = [spec for asset in care_assets() for spec in asset.specs]
    assert {spec.key.to_user_string() for spec in specs} == set(NAMES)
    for spec in specs:
        assert spec.group_name == GROUP
        assert spec.owners and spec.kinds and spec.description
    checks = [check for asset in care_assets() for check in asset.check_specs]
    assert {check.name for check in checks} == set(CHECKS)
    assert all(check.blocking for check in checks)


def test_by_hand_nothing_is_changed(platform: Settings, instance: dg.DagsterInstance) -> None:
    before = everything(platform)
    result = run(platform, instance, really=False)
    assert result.success
    assert everything(platform) == before
    for name in NAMES:
        if name != VERIFICATION:
            assert metadata(result, name)["dry_run"] is True
    assert metadata(result, "landing_packs")["files_before"] == 0, "segments of this hour are not old"


def test_the_schedule_does_it_and_shows_before_and_after(platform: Settings, instance: dg.DagsterInstance) -> None:
    folder = platform.paths.landing / "gateway"
    result = run(platform, instance, really=True)
    assert result.success
    packed = metadata(result, "landing_packs")
    assert packed["dry_run"] is False
    assert packed["files_before"] == 11
    assert packed["bytes_after"] < packed["bytes_before"]  # type: ignore[operator]
    assert "| gateway |" in str(packed["what"])
    verified = metadata(result, VERIFICATION)
    assert verified["findings"] == 0
    assert "metric" in str(verified["tables"])
    assert metadata(result, RELEASE)["segments"] == 11, "read back, and past a retention of none"
    assert packs(folder) == []
    assert numbers(folder, SEALED) == [12]


def test_what_verification_finds_stops_clean_up_and_release(platform: Settings, instance: dg.DagsterInstance) -> None:
    handle = Lake(platform.paths.lake).open("metric_points")
    assert handle is not None
    Path(handle.file_uris()[0]).write_bytes(b"torn")
    result = run(platform, instance, really=True)
    assert not result.success
    checks = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
    assert checks.pop("files_whole") is False
    assert all(checks.values())
    done = {event.asset_key.to_user_string() for event in result.get_asset_materialization_events() if event.asset_key}
    assert VERIFICATION in done
    assert not done & {RELEASE, "lake_vacuum"}
    (event,) = result.asset_materializations_for_node(VERIFICATION)
    assert "aiops&#32;lake" in str(event.metadata["wrong"].value) or "rebuild" in str(event.metadata["wrong"].value)
