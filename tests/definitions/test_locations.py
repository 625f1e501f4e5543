"""Both code locations: they load from anywhere, with nothing around them, and their graph explains itself."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import yaml

from aiops_assets.config import parse_config
from aiops_assets.definitions import learning, live
from aiops_assets.hours import hour_key, hour_start, micros
from aiops_assets.partitions import MOST_PARTITIONS, daily, first_day, hourly
from aiops_assets.settings import Settings
from aiops_assets.tables import TABLES

ROOT = Path(__file__).parents[2]
NO_NETWORK = """
import socket
real = socket.socket.connect
def connect(self, address):
    local = str(address[0]).startswith(("127.", "::1", "localhost"))
    if self.family in (socket.AF_INET, socket.AF_INET6) and not local:
        raise OSError(f"a connection to {address} while loading")
    return real(self, address)
socket.socket.connect = connect
def resolve(host, *rest, **more):
    if host not in ("localhost", "127.0.0.1", "::1", None):
        raise OSError(f"{host} was looked up while loading")
    return lookup(host, *rest, **more)
lookup, socket.getaddrinfo = socket.getaddrinfo, resolve
"""


@pytest.fixture
def platform(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def graph(platform: Settings) -> dg.Definitions:
    return live.build_definitions(platform)


def specs(definitions: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}


def test_the_workspace_validates_with_a_bare_environment_and_without_network(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_NETWORK)
    (tmp_path / "dagster").mkdir()
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONPATH": str(tmp_path),
        "DAGSTER_HOME": str(tmp_path / "dagster"),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
    }
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "-w", str(ROOT / "workspace.yaml")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Validation successful for code location live" in done.stderr + done.stdout
    assert "Validation successful for code location learning" in done.stderr + done.stdout
    assert not (tmp_path / ".aiops").exists(), "loading made a home folder"


def test_the_workspace_names_both_locations() -> None:
    entries = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    modules = {entry["python_module"]["location_name"]: entry["python_module"]["module_name"] for entry in entries}
    assert modules == {"live": "aiops_assets.definitions.live", "learning": "aiops_assets.definitions.learning"}
    assert all("working_directory" not in entry["python_module"] for entry in entries)


def test_definitions_are_built_when_asked_for_not_on_import() -> None:
    code = (
        "import aiops_assets.settings as s\n"
        "s.Settings.__init__ = None\n"
        "import aiops_assets.definitions.live, aiops_assets.definitions.learning\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_every_asset_explains_itself(platform: Settings, graph: dg.Definitions) -> None:
    elsewhere = set(specs(graph)) | {"hour_closed"}
    for definitions in (graph, learning.build_definitions(platform)):
        for name, spec in specs(definitions).items():
            if definitions is not graph and name in elsewhere and not spec.description:
                continue  # a stub by which learning refers to the live location
            assert spec.description and len(spec.description) > 40, name
            assert spec.owners, name
            assert spec.kinds, name
            assert spec.group_name in {
                "intake",
                "telemetry",
                "logs",
                "errors",
                "knowledge",
                "detection",
                "incidents",
                "marts",
                "lake_care",
                "replay",
                "synthetic",
                "promotion",
                "language_models",
                "evaluation",
            }, name


#: tables that the learning location keeps, and the assets that stand for them
OF_LEARNING = {
    "incidents": "incident_snapshot",
    "golden_incidents": "golden_incidents_champion",
    "llm_calls": "llm_calls",
    "registry_versions": "registry_versions",
    "registry_gates": "registry_gates",
}


def test_canonical_tables_show_the_columns_that_tables_py_declares(platform: Settings, graph: dg.Definitions) -> None:
    found, learnt = specs(graph), specs(learning.build_definitions(platform))
    for table in TABLES.values():
        asset = learnt[OF_LEARNING[table.name]] if table.name in OF_LEARNING else found[table.name]
        schema = asset.metadata["dagster/column_schema"]
        assert [column.name for column in schema.columns] == list(table.schema)
        assert {column.name for column in schema.columns if column.constraints.nullable} == {
            column.name for column in table.columns if column.nullable
        }


def test_lineage_runs_from_drops_to_incidents(graph: dg.Definitions) -> None:
    found = specs(graph)
    parents = {name: {dep.asset_key.to_user_string() for dep in spec.deps} for name, spec in found.items()}

    def ancestors(name: str) -> set[str]:
        return parents[name].union(*(ancestors(parent) for parent in parents[name]))

    assert {"drops/host", "drops/snmp", "drops/telegraf", "metric_points", "anomalies", "alerts"} <= ancestors(
        "incidents"
    )
    assert ancestors("baselines") >= {"metric_points"}
    assert "metric_points" not in ancestors("changes")


def test_the_locations_join_at_the_incidents(platform: Settings, graph: dg.Definitions) -> None:
    snapshot = specs(learning.build_definitions(platform))["incident_snapshot"]
    assert {dep.asset_key.to_user_string() for dep in snapshot.deps} == {"incidents"}
    assert "incidents" in specs(graph)


def test_what_the_session_keeps_is_materialised_by_hand_only_by_partition(graph: dg.Definitions) -> None:
    assets = graph.resolve_asset_graph()
    materialisable = {key.to_user_string() for key in assets.materializable_asset_keys}
    partitioned = {key for key in materialisable if assets.get(dg.AssetKey(key)).is_partitioned}
    assert materialisable == partitioned | {"quarantine"}
    tables = {name for name, table in TABLES.items() if table.partition and name not in OF_LEARNING}
    assert partitioned == tables | {"hour_closed"}


def test_sensors_and_schedules_run_without_being_switched_on(platform: Settings, graph: dg.Definitions) -> None:
    running = dg.DefaultSensorStatus.RUNNING
    for definitions in (graph, learning.build_definitions(platform)):
        repository = definitions.get_repository_def()
        assert {sensor.name for sensor in repository.sensor_defs if sensor.default_status != running} == set()
        assert all(schedule.default_status == dg.DefaultScheduleStatus.RUNNING for schedule in repository.schedule_defs)


def test_sources_of_the_configuration_become_assets(platform: Settings) -> None:
    config = parse_config(
        "sources: {shop.orders-eu: {format: generic, freshness: 5m}, telegraf: {freshness: 1h}}", "test"
    )
    found = specs(live.build_definitions(platform, config))
    assert found["drops/shop.orders-eu"].freshness_policy == dg.FreshnessPolicy.time_window(
        fail_window=timedelta(minutes=5),
        warn_window=timedelta(minutes=2.5),
    )
    assert "?source=shop.orders-eu" in str(found["drops/shop.orders-eu"].description)
    assert found["drops/telegraf"].freshness_policy != found["drops/generic"].freshness_policy


def test_a_mistake_in_the_configuration_costs_no_location(tmp_path: Path) -> None:
    (tmp_path / "aiops.yaml").write_text("sources: {telegraf: {freshness: soon}}\n")
    definitions = live.build_definitions(Settings(home=tmp_path))
    assert "drops/telegraf" in specs(definitions)


def test_only_sources_that_come_by_themselves_have_a_freshness_policy(graph: dg.Definitions) -> None:
    policies = {name: spec.freshness_policy for name, spec in specs(graph).items() if name.startswith("drops/")}
    assert policies.pop("drops/try") is None
    assert all(policies.values())


def test_partition_keys_are_those_of_the_tables() -> None:
    for instant in ("2026-01-01T00:00:00", "2026-06-30T23:59:59.999999"):
        moment = micros(datetime.fromisoformat(instant).replace(tzinfo=UTC))
        assert hourly(date(2026, 1, 1)).has_partition_key(hour_key(moment))
        assert hour_start(hour_key(moment)) <= moment
    assert daily(date(2026, 1, 1)).has_partition_key("2026-06-30")


def test_the_present_hour_and_day_have_partitions() -> None:
    now = datetime.now(UTC)
    assert hourly().has_partition_key(now.strftime("%Y-%m-%dT%H"))
    assert daily().has_partition_key(now.strftime("%Y-%m-%d"))


def test_partitions_stay_below_what_dagster_handles_well() -> None:
    now = datetime(2026, 11, 20, 9, tzinfo=UTC)
    assert first_day(date(2020, 1, 1), now) == date(2020, 1, 1)
    start = first_day(date(1990, 1, 1), now)
    assert start == date(2016, 1, 1)
    assert hourly(start).get_num_partitions() < MOST_PARTITIONS


def test_the_installed_project_finds_its_locations_from_any_folder(tmp_path: Path) -> None:
    code = "import aiops_assets.definitions.live, aiops_assets.definitions.learning, jobs, sensors; print('ok')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == "ok", done.stderr
