"""Backfills of the hourly assets: what is selected is told as materialised, what is refused never is."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from aiops_assets.definitions.live import build_definitions
from aiops_assets.detection.checks import AMENDED, COMPLETE, amended_hours, lacking_receipts
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND, hour_key
from aiops_assets.lake.tables import Lake, TableWriter, quote
from aiops_assets.live.assets import DERIVED, EVENTS, tell_asset_graph
from aiops_assets.replay.backfill import backfill_hours
from aiops_assets.settings import Settings
from aiops_assets.tables import HOUR_RECEIPTS, METRIC_POINTS, TABLES
from tests.unit.test_closing_hours import MINUTE, START, Home, telemetry

HOURS = [hour_key(START + n * MICROS_PER_HOUR) for n in range(4)]
RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three closed hours, the open one, and late rows of the second hour that nobody derived yet."""
    home = Home(tmp_path_factory.mktemp("graph") / "home")
    documents = telemetry(3.3)
    documents[0]["changes"] = [{"ts": START, "kind": "deploy", "title": "shop 1.2", "details": {}}]
    held = [d for d in documents if d["host"] == "h1" and 86 <= (d["ts"] - START) // MINUTE < 89]
    for document in held:
        document["points"][0]["value"] = 0.4
    home.stream([d for d in documents if d not in held])
    home.rest()
    home.send(held, received_at=documents[-1]["ts"] + MICROS_PER_SECOND)
    home.pipeline.close()
    return home.settings.home


@pytest.fixture
def settings(filled: Path, tmp_path: Path) -> Settings:
    shutil.copytree(filled, tmp_path / "home")
    return Settings(home=tmp_path / "home")


def materialise(
    settings: Settings, names: Sequence[str], hours: Sequence[str], instance: dg.DagsterInstance
) -> dg.ExecuteInProcessResult:
    """One run of the implicit asset job over a range of partitions."""
    definitions = build_definitions(settings)
    job = dg.define_asset_job("by_hand", selection=dg.AssetSelection.assets(*names))
    resolved = dg.Definitions(
        assets=list(definitions.assets or []),
        resources={"settings": settings},
        jobs=[job],
        executor=dg.in_process_executor,
    ).resolve_job_def("by_hand")
    tags = dict(zip(RANGE, (hours[0], hours[-1]), strict=True))
    return resolved.execute_in_process(instance=instance, tags=tags, raise_on_error=False)


def partitions(instance: dg.DagsterInstance, name: str) -> set[str]:
    return set(instance.get_materialized_partitions(dg.AssetKey(name)))


def test_each_selected_asset_stands_materialised_in_each_hour(settings: Settings) -> None:
    instance = dg.DagsterInstance.ephemeral()
    done = materialise(settings, DERIVED, HOURS[:3], instance)
    assert done.success
    for name in DERIVED:
        assert partitions(instance, name) == set(HOURS[:3])
    event = instance.get_latest_materialization_event(dg.AssetKey("hour_closed"))
    assert event is not None and event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    assert metadata["revision"].value == 2
    assert metadata["reason"].value == "backfill"
    assert metadata["backfill"].value == "amended"


def test_a_single_asset_can_be_selected_and_amended_hours_are_told_all_the_same(settings: Settings) -> None:
    instance = dg.DagsterInstance.ephemeral()
    assert materialise(settings, ["anomalies"], HOURS[:3], instance).success
    assert partitions(instance, "anomalies") == set(HOURS[:3])
    assert partitions(instance, "alerts") == set()
    assert partitions(instance, "hour_closed") == {HOURS[1], HOURS[2]}, "what hangs on closed hours hears of amendments"


def test_an_hour_that_is_refused_is_not_shown_as_materialised(settings: Settings) -> None:
    instance = dg.DagsterInstance.ephemeral()
    done = materialise(settings, ["alerts"], HOURS, instance)
    assert not done.success
    assert partitions(instance, "alerts") == set(HOURS[:3])
    (failure,) = [event for event in done.all_events if event.is_step_failure]
    assert HOURS[3] in str(failure.step_failure_data.error)
    assert "still open" in str(failure.step_failure_data.error)


def test_points_are_compared_with_their_segments(settings: Settings) -> None:
    TableWriter(Lake(settings.paths.lake), METRIC_POINTS).delete(f"hour = {quote(HOURS[0])} AND host = 'h0'")
    instance = dg.DagsterInstance.ephemeral()
    assert materialise(settings, ["metric_points"], HOURS[:3], instance).success
    assert partitions(instance, "metric_points") == set(HOURS[:3])
    events = instance.fetch_materializations(
        dg.AssetRecordsFilter(dg.AssetKey("metric_points"), asset_partitions=[HOURS[0]]), limit=1
    )
    materialization = events.records[0].asset_materialization
    assert materialization is not None
    assert materialization.metadata["backfill"].value == "replaced"
    assert materialization.metadata["rows_added"].value == 120


def test_points_and_hours_are_brought_up_in_one_run_in_their_order(settings: Settings) -> None:
    TableWriter(Lake(settings.paths.lake), METRIC_POINTS).delete(f"hour = {quote(HOURS[0])} AND host = 'h0'")
    instance = dg.DagsterInstance.ephemeral()
    assert materialise(settings, ["metric_points", *DERIVED], HOURS[:3], instance).success
    assert partitions(instance, "hour_receipts") == set(HOURS[:3])
    receipts = Lake(settings.paths.lake).read(HOUR_RECEIPTS.name, [HOURS[0]])
    assert receipts["revision"].to_list() == [1], "the rows are again those of the receipt"


def test_changes_are_looked_for_in_the_segments(settings: Settings) -> None:
    lake = Lake(settings.paths.lake)
    day = lake.read("changes")["day"][0]
    TableWriter(lake, TABLES["changes"]).delete(f"day = {quote(day)}")
    instance = dg.DagsterInstance.ephemeral()
    assert materialise(settings, ["changes"], [day], instance).success
    assert partitions(instance, "changes") == {day}
    assert lake.read("changes")["title"].to_list() == ["shop 1.2"]


def test_backfills_of_hours_are_one_run_and_those_of_days_several(settings: Settings) -> None:
    graph = build_definitions(settings).resolve_asset_graph()
    policies = {name: graph.get(dg.AssetKey(name)).backfill_policy for name in ("metric_points", *EVENTS, *DERIVED)}
    several = {name: policies.pop(name) for name in EVENTS}
    assert {name: policy and policy.max_partitions_per_run for name, policy in several.items()} == {
        "changes": 31, "tickets": 31, "documents": 31, "log_events": 24, "error_events": 24, "spans": 24,
    }  # fmt: skip
    assert set(policies.values()) == {dg.BackfillPolicy.single_run()}


def test_nothing_executes_them_by_itself(settings: Settings) -> None:
    graph = build_definitions(settings).resolve_asset_graph()
    assert all(graph.get(dg.AssetKey(name)).automation_condition is None for name in ("metric_points", *DERIVED))


def test_a_backfill_outside_the_graph_is_told_to_it(settings: Settings) -> None:
    done = backfill_hours(settings, HOURS[:3])
    assert tell_asset_graph(settings, done) is False, "there is no instance to tell"
    (settings.paths.dagster / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    assert tell_asset_graph(settings, done) is True
    with dg.DagsterInstance.from_config(str(settings.paths.dagster)) as instance:
        assert partitions(instance, "hour_closed") == {HOURS[1], HOURS[2]}
        assert partitions(instance, "alerts") == {HOURS[1], HOURS[2]}


def test_hours_without_a_receipt_are_found_once_later_ones_are_closed() -> None:
    points = {HOURS[0]: 5, HOURS[1]: 5, HOURS[2]: 5, HOURS[3]: 5}
    assert lacking_receipts(points, HOURS[:3], "").passed
    result = lacking_receipts(points, [HOURS[0], HOURS[2]], "")
    assert (result.passed, result.numbers["some"]) == (False, HOURS[1])
    assert lacking_receipts(points, [HOURS[2]], HOURS[1]).passed, "closed before there were receipts"


def test_amended_hours_are_shown_with_their_reason(settings: Settings) -> None:
    backfill_hours(settings, HOURS[:3])
    receipts = Lake(settings.paths.lake).read(HOUR_RECEIPTS.name)
    result, shown = amended_hours(receipts, datetime.now(UTC))
    assert (result.passed, result.severity, result.numbers["hours"]) == (False, "WARN", 2)
    assert shown["reason"].unique().to_list() == ["backfill"]
    assert amended_hours(receipts.filter(pl.col("revision") == 1), datetime.now(UTC))[0].passed


def test_the_checks_can_be_run_and_show_a_table(settings: Settings) -> None:
    backfill_hours(settings, HOURS[:3])
    definitions = build_definitions(settings)
    checks = [check for check in definitions.asset_checks or [] if isinstance(check, dg.AssetChecksDefinition)]
    wanted = [check for check in checks if {key.name for key in check.check_keys} & {AMENDED, COMPLETE}]
    job = dg.Definitions(asset_checks=wanted, resources={"settings": settings}).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=dg.DagsterInstance.ephemeral())
    found = {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}
    assert found[COMPLETE].passed
    assert not found[AMENDED].passed
    assert "| backfill |" in str(found[AMENDED].metadata["amended_hours"].value)
