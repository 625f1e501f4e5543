"""Pruning Dagster's event log: what the graph shows survives, everything else of old runs goes."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable as Events
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

from aiops_assets.definitions.learning import build_definitions
from aiops_assets.settings import Settings
from jobs.event_log import EMPTY_SHARD_BYTES, Budget, Pruned, prune

POINTS = dg.AssetKey("metric_points")
CHECK = dg.AssetCheckKey(POINTS, "key_is_unique")
IN_TEN_DAYS = datetime.now(UTC) + timedelta(days=10)


def session(instance: dg.DagsterInstance, hours: list[str], *, repeat: int = 5) -> str:
    """A run that tells of each hour several times, as a live session does."""

    @dg.op
    def follow(context: dg.OpExecutionContext) -> None:
        for hour in hours * repeat:
            context.log_event(dg.AssetMaterialization(POINTS, partition=hour, metadata={"rows": 1}, tags={"x": "y"}))
            context.log_event(dg.AssetCheckEvaluation(asset_key=POINTS, check_name=CHECK.name, passed=True))
        context.log.info("a line")

    @dg.job
    def live() -> None:
        follow()

    return live.execute_in_process(instance=instance).run_id


def event_rows(instance: dg.DagsterInstance) -> int:
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage)
    with storage.index_connection() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(Events)).scalar_one())


def check_pruning(instance: dg.DagsterInstance) -> None:
    """The whole contract on one instance; used for SQLite here and for Postgres in ``test_instance``."""
    runs = [session(instance, ["2026-06-01T10", "2026-06-01T11"]), session(instance, ["2026-06-01T11"])]
    before = event_rows(instance)
    newest = instance.get_latest_materialization_event(POINTS)
    kept = {"keep_days": 3.0, "keep_runs_days": 30.0}

    assert prune(instance, **kept, dry_run=False) == Pruned(), "nothing is old yet"
    counted = prune(instance, **kept, dry_run=True, now=IN_TEN_DAYS)
    assert counted.events > 0 and counted.runs == 0
    assert event_rows(instance) == before, "a dry run deleted something"

    pruned = prune(instance, **kept, dry_run=False, now=IN_TEN_DAYS)
    assert pruned.events > 0
    assert not pruned.unfinished
    # two hours, one check evaluation a run's row that is left
    assert event_rows(instance) <= 4
    assert instance.get_materialized_partitions(POINTS) == {"2026-06-01T10", "2026-06-01T11"}
    assert instance.get_latest_materialization_event(POINTS) == newest
    records = instance.fetch_materializations(POINTS, limit=100).records
    assert sorted(str(record.partition_key) for record in records) == ["2026-06-01T10", "2026-06-01T11"]
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage)
    (execution,) = storage.get_asset_check_execution_history(CHECK, limit=10)
    assert execution.status.value == "SUCCEEDED"
    assert instance.get_run_by_id(runs[0]) is not None
    assert prune(instance, **kept, dry_run=False, now=IN_TEN_DAYS).events == 0, "a second call finds nothing"

    # A newer session tells of the same hours: the older one has nothing left, and its record goes in time.
    session(instance, ["2026-06-01T10", "2026-06-01T11"])
    later = IN_TEN_DAYS + timedelta(days=60)
    assert prune(instance, **kept, dry_run=False, now=later).runs == 2
    assert instance.get_run_by_id(runs[0]) is None
    assert instance.get_materialized_partitions(POINTS) == {"2026-06-01T10", "2026-06-01T11"}


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        yield instance


def test_what_the_graph_shows_survives_and_the_rest_goes(instance: dg.DagsterInstance) -> None:
    check_pruning(instance)


def test_files_of_old_runs_shrink_and_stay_readable_until_the_run_goes(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    run = session(instance, ["2026-06-01T10"])
    (shard,) = tmp_path.rglob(f"{run}.db")
    assert shard.stat().st_size > EMPTY_SHARD_BYTES
    assert prune(instance, keep_days=3, keep_runs_days=30, dry_run=False, now=IN_TEN_DAYS).logs == 1
    assert shard.stat().st_size < EMPTY_SHARD_BYTES
    assert instance.all_logs(run) == []
    assert not [path for path in tmp_path.rglob(f"{run}*") if path.is_dir()], "captured output is still there"
    with dg.DagsterInstance.from_ref(instance.get_ref()) as another_process:
        assert another_process.all_logs(run) == []
    assert prune(instance, keep_days=3, keep_runs_days=30, dry_run=False, now=IN_TEN_DAYS).logs == 0
    session(instance, ["2026-06-01T10"])
    assert (
        prune(instance, keep_days=3, keep_runs_days=30, dry_run=False, now=IN_TEN_DAYS + timedelta(days=60)).runs == 1
    )
    assert not list(tmp_path.rglob(f"{run}*"))


def test_unfinished_runs_are_left_alone(instance: dg.DagsterInstance) -> None:
    @dg.job
    def live() -> None: ...

    run = instance.create_run_for_job(live, status=dg.DagsterRunStatus.STARTED)
    instance.report_engine_event("Started process", run)
    rows = len(instance.all_logs(run.run_id))
    prune(instance, keep_days=3, keep_runs_days=30, dry_run=False, now=IN_TEN_DAYS + timedelta(days=100))
    assert len(instance.all_logs(run.run_id)) == rows


def test_work_stops_at_its_budget_and_continues_the_next_time(instance: dg.DagsterInstance) -> None:
    for _ in range(3):
        session(instance, ["2026-06-01T10"])
    first = prune(instance, keep_days=3, keep_runs_days=30, dry_run=False, now=IN_TEN_DAYS, budget=Budget(runs=1))
    assert first.unfinished and first.logs == 1
    rest = prune(instance, keep_days=3, keep_runs_days=30, dry_run=False, now=IN_TEN_DAYS)
    assert not rest.unfinished and rest.logs == 2


def test_jobs_that_delete_are_dry_runs_unless_told_and_their_schedules_tell(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    settings.paths.create()
    repository = build_definitions(settings).get_repository_def()
    by_hand = repository.get_job("event_log_prune").execute_in_process(instance=dg.DagsterInstance.ephemeral())
    (output,) = [event for event in by_hand.all_events if event.event_type == dg.DagsterEventType.STEP_OUTPUT]
    assert output.step_output_data.metadata["dry_run"].value is True
    for name in ("event_log_prune_schedule", "lake_upkeep_schedule"):
        schedule = repository.get_schedule_def(name)
        tick = schedule.evaluate_tick(dg.build_schedule_context(repository_def=repository))
        assert tick.run_requests is not None
        ops = tick.run_requests[0].run_config["ops"]
        assert ops and all(op["config"]["dry_run"] is False for op in ops.values())


def test_housekeeping_of_an_empty_home_does_nothing(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    settings.paths.create()
    job = build_definitions(settings).resolve_job_def("lake_upkeep")
    assert job.execute_in_process(instance=dg.DagsterInstance.ephemeral()).success
