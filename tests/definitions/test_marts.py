"""The marts in the asset graph: loading, lineage, partitions, automation that cannot storm, and real builds."""

from __future__ import annotations

import logging
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from aiops_assets.definitions import learning
from aiops_assets.lake.tables import Lake
from aiops_assets.marts import connect
from aiops_assets.marts.assets import HOUR_CLOSED
from aiops_assets.marts.kpis import median_lasting
from aiops_assets.marts.project import build
from aiops_assets.marts.reading import rows
from aiops_assets.partitions import daily, hourly
from aiops_assets.settings import Settings
from aiops_assets.tables import INCIDENTS
from tests.marts_lake import DAY, at, incident, points, small_lake, write, write_baseline

FIRST, SECOND = "2026-03-02", "2026-03-03"
RANGE = {"dagster/asset_partition_range_start": FIRST, "dagster/asset_partition_range_end": SECOND}
DAILY = {
    "metric_hourly", "metric_daily", "host_metric_hourly", "host_metric_daily", "series_coverage", "alert_load",
    "incident_lifecycle", "incident_kpis", "noise_reduction",
}  # fmt: skip
CURRENT = {"fleet_health", "incident_kpis_weekly", "open_incidents"}


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    return learning.marts(Settings(home=tmp_path_factory.mktemp("nothing") / "home"))


class Built:
    """Both days of the small lake, built by the job in one run."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home, time_zone="Europe/Berlin")
        self.settings.paths.create()
        self.lake = small_lake(self.settings.paths.lake)
        job = learning.marts(self.settings).resolve_job_def("marts_job")
        with dg.DagsterInstance.ephemeral() as instance:
            self.result = job.execute_in_process(instance=instance, tags=RANGE, raise_on_error=False)

    def mart(self, name: str, day: str | None = None) -> pl.DataFrame:
        return rows(self.settings.paths.marts, name, day)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("marts") / "home")


def specs(definitions: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}


def test_every_mart_has_an_owner_columns_and_days_where_it_is_about_time(definitions: dg.Definitions) -> None:
    found = {name: spec for name, spec in specs(definitions).items() if spec.group_name == "marts"}
    assert set(found) == DAILY | CURRENT
    for name, spec in found.items():
        assert spec.owners and spec.kinds == {"dbt", "duckdb", "parquet"} and "```sql" in str(spec.description)
        assert spec.metadata["dagster/column_schema"].columns
        assert spec.partitions_def == (daily() if name in DAILY else None)
        assert spec.automation_condition is not None


def test_lineage_joins_the_live_location_by_asset_key(definitions: dg.Definitions) -> None:
    deps = {name: {dep.asset_key.to_user_string() for dep in spec.deps} for name, spec in specs(definitions).items()}
    assert deps["metric_hourly"] == {"metric_points", "baselines", "series", "hour_closed"}
    assert deps["incident_lifecycle"] == {"incident_snapshot", "hour_closed"}
    assert deps["incident_kpis"] == {"incident_lifecycle"}


def test_dbt_tests_are_checks_of_their_assets(definitions: dg.Definitions) -> None:
    checks = {key.to_user_string() for key in definitions.resolve_asset_graph().asset_check_keys}
    assert {f"{name}:{name}_key_is_unique" for name in DAILY | CURRENT} <= checks
    assert "metric_daily:rollups_lose_no_point" in checks


def test_a_range_of_days_is_one_run_with_row_counts_and_checks(built: Built) -> None:
    assert built.result.success
    events = built.result.get_asset_materialization_events()
    found = {(str(event.asset_key and event.asset_key.path[-1]), event.partition) for event in events}
    assert found == {(name, day) for name in DAILY for day in (FIRST, SECOND)} | {(name, None) for name in CURRENT}
    for event in events:
        metadata = event.materialization.metadata
        key = "dagster/partition_row_count" if event.partition else "dagster/row_count"
        name = str(event.asset_key and event.asset_key.path[-1])
        assert metadata[key].value == built.mart(name, event.partition).height
    evaluations = built.result.get_asset_check_evaluations()
    assert len(evaluations) > 25 and all(evaluation.passed for evaluation in evaluations)


def test_rollups_equal_the_points_to_the_last_digits(built: Built) -> None:
    truth = (
        built.lake.scan("metric_points")
        .group_by("series_id", pl.col("ts").dt.truncate("1h").alias("hour_start"))
        .agg(
            points=pl.len().cast(pl.Int64),
            mean=pl.col("value").mean(),
            min=pl.col("value").min(),
            max=pl.col("value").max(),
            stddev=pl.col("value").std(),
            p50=pl.col("value").quantile(0.5, "linear"),
        )
        .sort("hour_start", "series_id")
        .collect()
    )
    mart = built.mart("metric_hourly").sort("hour_start", "series_id")
    assert mart["origin"].value_counts().sort("origin").rows() == [("baselines", 85), ("points", 2)]
    for column in ("series_id", "hour_start", "points", "min", "max"):
        assert mart[column].to_list() == truth[column].to_list()
    for column in ("mean", "stddev", "p50"):
        assert mart[column].to_list() == pytest.approx(truth[column].to_list(), rel=1e-12)
    days = (
        built.lake.scan("metric_points")
        .group_by("series_id", pl.col("ts").dt.date().alias("day"))
        .agg(pl.len(), pl.col("value").mean(), pl.col("value").std().alias("stddev"))
        .sort("day", "series_id")
        .collect()
    )
    daily_mart = built.mart("metric_daily").sort("day", "series_id")
    assert daily_mart["points"].to_list() == days["len"].to_list()
    assert daily_mart["mean"].to_list() == pytest.approx(days["value"].to_list(), rel=1e-12)
    assert daily_mart["stddev"].to_list() == pytest.approx(days["stddev"].to_list(), rel=1e-9)


def test_columns_are_those_that_dbt_documents(built: Built, definitions: dg.Definitions) -> None:
    connection = connect(built.settings)
    for name in DAILY | CURRENT:
        declared = specs(definitions)[name].metadata["dagster/column_schema"].columns
        relation = connection.table(name)
        assert [(column.name, column.type) for column in declared] == [
            (column, str(kind)) for column, kind in zip(relation.columns, relation.types, strict=True)
        ], name


def test_coverage_finds_gaps_silence_and_late_starts(built: Built) -> None:
    found = {
        (row["day"].isoformat(), row["series_id"]): row for row in built.mart("series_coverage").iter_rows(named=True)
    }
    assert found[FIRST, 1]["coverage"] == 1 and found[FIRST, 1]["gaps"] == 0
    assert found[FIRST, 2]["gaps"] == 1 and found[FIRST, 2]["longest_gap_s"] == 14_460
    assert found[FIRST, 3]["expected_points"] == 1_080, "a series that is new is expected from its first point on"
    assert found[FIRST, 3]["longest_gap_s"] == 3_660
    assert found[SECOND, 2]["points"] == 0 and found[SECOND, 2]["coverage"] == 0


def test_alert_load_counts_pages_in_local_shifts(built: Built) -> None:
    found = {(row["shift"], row["team"]): row for row in built.mart("alert_load", FIRST).iter_rows(named=True)}
    day, nobody, night = found["08-16", "team:shop"], found["08-16", "nobody"], found["00-08", "team:shop"]
    assert (day["pages"], day["suppressed"], day["withdrawn"]) == (1, 1, 1), (
        "neither suppressed nor withdrawn is a page"
    )
    assert nobody["pages"] == 1 and nobody["warning"] == 1
    assert night["critical"] == 1 and night["shift_start"] == at(0, 23), "midnight in Berlin is 23:00 UTC"


def test_incident_figures_censor_what_is_open_and_leave_out_what_is_none(built: Built) -> None:
    lifecycle = built.mart("incident_lifecycle", FIRST)
    assert set(lifecycle["incident_id"]) == {"INC-OVER", "INC-LATER", "INC-OPEN", "INC-ITSELF"}
    [kpis] = built.mart("incident_kpis", FIRST).filter(scope="all").to_dicts()
    assert (kpis["incidents"], kpis["still_open"], kpis["resolved"], kpis["resolved_unacknowledged"]) == (4, 1, 3, 1)
    assert kpis["mttd_mean_s"] == 120 and kpis["mtta_mean_s"] == 1200 and kpis["mtta_median_s"] == 1800
    assert kpis["mttr_median_s"] == 3600 and kpis["reopen_rate"] == pytest.approx(1 / 3)
    for seconds, over, column in (
        ("acknowledge_s", "is_acknowledged", "mtta_median_s"),
        ("resolve_s", "is_resolved", "mttr_median_s"),
    ):
        assert kpis[column] == median_lasting(lifecycle[seconds].to_list(), lifecycle[over].to_list())
    assert built.mart("open_incidents")["incident_id"].to_list() == ["INC-OPEN"]


def test_noise_reduction_counts_a_signal_once(built: Built) -> None:
    [first] = built.mart("noise_reduction", FIRST).to_dicts()
    assert (first["anomaly_points"], first["anomaly_events"], first["alerts"], first["signals"]) == (5, 1, 4, 4)
    assert (first["alerts_suppressed"], first["alerts_withdrawn"], first["incidents"]) == (1, 1, 4)
    assert built.mart("noise_reduction", SECOND)["noise_reduction"].to_list() == [None]


def test_health_follows_its_definition(built: Built) -> None:
    found = {row["host"]: row for row in built.mart("fleet_health").iter_rows(named=True)}
    assert found["host-1"]["health_score"] == 70 and found["host-1"]["open_critical"] == 1
    assert found["host-2"]["is_silent"] and found["host-2"]["health_score"] == 100 - 40 - 20
    assert found["host-3"]["health_score"] == 100 - 8 - 2


@pytest.mark.soak
def test_a_past_day_is_restated_with_what_is_known_by_then(built: Built, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", time_zone="Europe/Berlin")
    shutil.copytree(built.settings.paths.root, settings.paths.root)
    lake, marts = Lake(settings.paths.lake), settings.paths.marts
    before = (marts / "incident_kpis" / f"{SECOND}.parquet").read_bytes()
    late = points(2, at(0, 20), at(0, 21))
    write(lake, "metric_points", late)
    write_baseline(lake, late, at(0, 20), 1)
    taken = at(2, 0, 5)
    ended = {"resolved_at": at(2), "first_resolved_at": at(2), "acknowledged_at": at(1, 20)}
    write(lake, INCIDENTS.name, [incident("INC-OPEN", at(0, 12), taken, "resolved", **ended)])
    build(settings, DAY.date(), DAY.date())
    [kpis] = rows(marts, "incident_kpis", FIRST).filter(scope="all").to_dicts()
    assert kpis["still_open"] == 0 and kpis["resolved"] == 4 and kpis["as_of"] == taken
    assert rows(marts, "metric_daily", FIRST).filter(series_id=2)["points"].to_list() == [1_260]
    assert (marts / "incident_kpis" / f"{SECOND}.parquet").read_bytes() == before
    assert rows(marts, "open_incidents").is_empty()


def test_marts_of_an_empty_lake_are_empty_and_their_checks_pass(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    settings.paths.create()
    assert "ERROR=0" in build(settings, DAY.date(), DAY.date())
    assert rows(settings.paths.marts, "metric_hourly", FIRST).height == 0
    assert rows(settings.paths.marts, "noise_reduction", FIRST)["signals"].to_list() == [0]
    assert not [path for path in settings.paths.marts.rglob("*") if path.name.endswith(".writing")]


def test_a_failing_dbt_test_fails_its_check_and_the_run(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    settings.paths.create()
    lake = small_lake(settings.paths.lake)
    write(lake, "series", lake.read("series"))
    with dg.DagsterInstance.ephemeral() as instance:
        job = learning.marts(settings).resolve_job_def("marts_job")
        result = job.execute_in_process(
            instance=instance,
            tags={"dagster/partition": FIRST},
            asset_selection=[dg.AssetKey("metric_hourly")],
            raise_on_error=False,
        )
    failed = [check.check_name for check in result.get_asset_check_evaluations() if not check.passed]
    assert failed == ["metric_hourly_key_is_unique"] and not result.success


def external(name: str, partitions: dg.PartitionsDefinition[str] | None) -> dg.AssetSpec:
    return dg.AssetSpec(name, partitions_def=partitions)


def tick_at(definitions: dg.Definitions, instance: dg.DagsterInstance, moment: datetime, cursor: Any) -> Any:
    return dg.evaluate_automation_conditions(
        defs=definitions,
        instance=instance,
        evaluation_time=moment,
        cursor=cursor,
    )


def marts_beside(definitions: dg.Definitions, hours: dg.PartitionsDefinition[str] | None) -> dg.Definitions:
    marts = [each for each in definitions.assets or [] if isinstance(each, dg.AssetsDefinition) and len(each.keys) > 1]
    beside = [external("hour_closed", hours), external("incident_snapshot", daily())]
    return dg.Definitions(assets=[*marts, *beside], resources={"settings": Settings()})


def test_closed_hours_request_their_day_once_an_hour_however_many_close(definitions: dg.Definitions) -> None:
    whole = marts_beside(definitions, hourly())
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    today = start.strftime("%Y-%m-%d")
    requested = []
    with dg.DagsterInstance.ephemeral() as instance:
        result = tick_at(whole, instance, start, None)
        for minute in range(0, 80, 4):
            if minute % 20 == 0:
                hour = f"{today}T{start.hour:02d}"
                instance.report_runless_asset_event(dg.AssetMaterialization(HOUR_CLOSED, partition=hour))
            moment = start + timedelta(minutes=minute, seconds=1)
            result = tick_at(whole, instance, moment, result.cursor)
            found = result.get_requested_partitions(dg.AssetKey("metric_hourly"))
            if found:
                requested.append((minute, found))
                for name in DAILY:
                    assert result.get_requested_partitions(dg.AssetKey(name)) == found, "all in the same tick: one run"
    assert requested == [(12, {today}), (72, {today})]


def test_an_update_without_a_partition_never_asks_for_all_of_history(definitions: dg.Definitions) -> None:
    whole = marts_beside(definitions, None)
    start = datetime.now(UTC).replace(minute=5, second=0, microsecond=0)
    with dg.DagsterInstance.ephemeral() as instance:
        result = tick_at(whole, instance, start, None)
        instance.report_runless_asset_event(dg.AssetMaterialization(HOUR_CLOSED))
        for minutes in (2, 6):
            result = tick_at(whole, instance, start + timedelta(minutes=minutes), result.cursor)
        found = result.get_requested_partitions(dg.AssetKey("metric_hourly"))
    assert 0 < len(found) <= 8


def test_a_project_that_cannot_be_used_costs_the_marts_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        found = specs(learning.marts(Settings(home=tmp_path, dbt_project=tmp_path)))
    assert found == {}
    assert "AIOPS_DBT_PROJECT" in caplog.text


def test_every_night_the_days_that_may_have_changed_are_built_in_one_run(definitions: dg.Definitions) -> None:
    schedule = definitions.get_repository_def().get_schedule_def("marts_schedule")
    context = dg.build_schedule_context(scheduled_execution_time=datetime(2026, 3, 4, 2, 20, tzinfo=UTC))
    [request] = schedule.evaluate_tick(context).run_requests or []
    assert request.tags["dagster/asset_partition_range_start"] == "2026-03-01"
    assert request.tags["dagster/asset_partition_range_end"] == "2026-03-04"


def test_the_lake_is_only_read(built: Built) -> None:
    assert Lake(built.settings.paths.lake).open("metric_points").version() == 0  # type: ignore[union-attr]
