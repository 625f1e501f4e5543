"""The Delta IO manager and the incident snapshot that uses it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from aiops_assets.definitions.learning import build_definitions
from aiops_assets.lake.io_manager import DeltaIOManager
from aiops_assets.lake.tables import Lake
from aiops_assets.partitions import daily
from aiops_assets.settings import Settings
from aiops_assets.tables import INCIDENTS

DAY = datetime.now(UTC).strftime("%Y-%m-%d")


def incidents(count: int) -> pl.DataFrame:
    now = datetime.now(UTC)
    return pl.DataFrame(
        {
            "snapshot_at": now,
            "incident_id": [f"INC-{number}" for number in range(count)],
            "title": "t",
            "state": "open",
            "priority": 1,
            "impact": 1,
            "urgency": 1,
            "assignee": None,
            "hosts": [["web-1"]] * count,
            "alert_ids": [["a"]] * count,
            "started_at": now,
            "opened_at": now,
            "acknowledged_at": None,
            "resolved_at": None,
        }
    ).with_columns(pl.lit(None, dtype).alias(name) for name, dtype in list(INCIDENTS.schema.items())[14:-1])


def materialise(root: Path, frame: pl.DataFrame, partition: str = DAY) -> dg.ExecuteInProcessResult:
    @dg.asset(partitions_def=daily(), io_manager_key="lake_io", metadata={"table": "incidents"})
    def snapshot() -> pl.DataFrame:
        return frame

    return dg.materialize(
        [snapshot],
        partition_key=partition,
        resources={"lake_io": DeltaIOManager(root=str(root))},
        instance=dg.DagsterInstance.ephemeral(),
        raise_on_error=False,
    )


def test_a_partition_is_replaced_not_added_to(tmp_path: Path) -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%d")
    assert materialise(tmp_path, incidents(2), yesterday).success
    assert materialise(tmp_path, incidents(5)).success
    assert materialise(tmp_path, incidents(3)).success
    stored = Lake(tmp_path).read("incidents")
    assert stored.filter(pl.col("day") == DAY).height == 3
    assert stored.filter(pl.col("day") == yesterday).height == 2
    assert dict(stored.schema) == INCIDENTS.schema


@pytest.mark.parametrize("wrong", ["missing", "unknown"])
def test_a_frame_with_other_columns_is_refused_and_nothing_is_stored(tmp_path: Path, wrong: str) -> None:
    frame = incidents(1).drop("title") if wrong == "missing" else incidents(1).with_columns(more=pl.lit(1))
    assert not materialise(tmp_path, frame).success
    assert Lake(tmp_path).read("incidents").is_empty()


def test_what_was_stored_can_be_an_input(tmp_path: Path) -> None:
    assert materialise(tmp_path, incidents(4)).success
    seen: list[pl.DataFrame] = []

    @dg.asset(partitions_def=daily())
    def reader(incidents: pl.DataFrame) -> None:
        seen.append(incidents)

    spec = dg.AssetSpec("incidents", partitions_def=daily()).with_io_manager_key("lake_io")
    result = dg.materialize(
        [reader, spec],
        selection=["reader"],
        partition_key=DAY,
        resources={"lake_io": DeltaIOManager(root=str(tmp_path))},
        instance=dg.DagsterInstance.ephemeral(),
    )
    assert result.success
    assert seen[0].height == 4


@pytest.fixture
def platform(tmp_path: Path) -> Settings:
    settings = Settings(home=tmp_path / "home")
    settings.paths.create()
    return settings


def snapshot_run(platform: Settings, partition: str) -> dg.ExecuteInProcessResult:
    job = build_definitions(platform).resolve_job_def("incident_snapshot_job")
    return job.execute_in_process(
        partition_key=partition, instance=dg.DagsterInstance.ephemeral(), raise_on_error=False
    )


def test_the_snapshot_of_a_day_without_incidents_is_empty_and_passes_its_check(platform: Settings) -> None:
    result = snapshot_run(platform, DAY)
    assert result.success
    assert all(evaluation.passed for evaluation in result.get_asset_check_evaluations())
    assert result.get_asset_check_evaluations()


def test_a_past_day_cannot_be_taken_in_hindsight(platform: Settings) -> None:
    result = snapshot_run(platform, "2026-01-01")
    assert not result.success
    failure = next(event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_FAILURE)
    assert "cannot be taken" in str(failure.step_failure_data.error)


def test_the_schedule_asks_for_today_only(platform: Settings) -> None:
    repository = build_definitions(platform).get_repository_def()
    schedule = repository.get_schedule_def("incident_snapshot_schedule")
    now = datetime.now(UTC)
    context = dg.build_schedule_context(scheduled_execution_time=now, repository_def=repository)
    requests = schedule.evaluate_tick(context).run_requests
    assert requests is not None and [request.partition_key for request in requests] == [now.strftime("%Y-%m-%d")]
    late = dg.build_schedule_context(scheduled_execution_time=now - timedelta(days=2), repository_def=repository)
    assert not schedule.evaluate_tick(late).run_requests
