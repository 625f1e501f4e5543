"""The instance configurations that ship, loaded by Dagster itself, on SQLite and on a real Postgres."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from aiops_assets.settings import Settings
from jobs.live import live_session_job
from jobs.tags import PLANE, learning_tags, live_tags

SQLITE, POSTGRES = "dagster.yaml", "dagster.postgres.yaml"


def text(name: str) -> str:
    return resources.files("aiops_assets").joinpath("definitions", name).read_text("utf-8")


def parsed(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load(text(name)))


def load(folder: Path, name: str) -> dg.DagsterInstance:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dagster.yaml").write_text(text(name))
    return dg.DagsterInstance.from_config(str(folder))


def test_the_two_differ_in_storage_alone() -> None:
    postgres = parsed(POSTGRES)
    assert postgres.pop("storage") == {"postgres": {"postgres_url": {"env": "AIOPS_POSTGRES_URL"}}}
    assert postgres == parsed(SQLITE)


@pytest.mark.parametrize("name", [SQLITE, POSTGRES])
def test_no_secret_and_no_address_stands_in_them(name: str) -> None:
    assert not re.search(r"password|://[^.…]*@|@", text(name), re.IGNORECASE)


def test_what_keeps_an_installation_healthy_is_switched_on(tmp_path: Path) -> None:
    with load(tmp_path, SQLITE) as instance:
        assert instance.run_monitoring_enabled
        assert instance.run_monitoring_start_timeout_seconds < 600
        assert instance.run_monitoring_max_runtime_seconds
        assert instance.run_retries_enabled
        assert not instance.get_settings("run_retries")["retry_on_asset_or_op_failure"]
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled
        assert instance.freshness_enabled


def test_ticks_do_not_pile_up(tmp_path: Path) -> None:
    from dagster._core.definitions.run_request import InstigatorType
    from dagster._core.scheduler.instigation import TickStatus

    with load(tmp_path, SQLITE) as instance:
        retention = instance.get_tick_retention_settings(InstigatorType.SENSOR)
        assert retention[TickStatus.SKIPPED] == 1
        for kind in (InstigatorType.SENSOR, InstigatorType.SCHEDULE, InstigatorType.AUTO_MATERIALIZE):
            days = instance.get_tick_retention_settings(kind)
            assert all(0 < kept <= 30 for status, kept in days.items() if status != TickStatus.STARTED), kind


def test_live_sessions_find_a_place_however_much_learning_waits(tmp_path: Path) -> None:
    with load(tmp_path, SQLITE) as instance:
        queue = instance.get_concurrency_config().run_queue_config
        assert queue is not None
        limits = {limit["value"]: limit["limit"] for limit in queue.tag_concurrency_limits if limit["key"] == PLANE}
        assert limits["live"] >= 2, "a successor starts while its predecessor works"
        assert limits["live"] + limits["learning"] < queue.max_concurrent_runs
    assert live_tags(1)[PLANE] == "live"
    assert learning_tags(1)[PLANE] == "learning"
    assert int(live_tags(1)["dagster/priority"]) > int(learning_tags(1)["dagster/priority"])


def test_dagster_never_retries_a_live_session_by_itself() -> None:
    assert live_session_job(Settings().session_seconds).tags["dagster/max_retries"] == "0"


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    binary = shutil.which("postgres") or next(
        map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))), None
    )
    if binary is None:
        pytest.skip("Postgres is not installed")
    if os.geteuid() == 0 and not shutil.which("runuser"):
        pytest.skip("Postgres does not run as root and there is no runuser")
    binaries = Path(binary).resolve().parent
    if not (binaries / "initdb").exists():
        pytest.skip(f"no initdb beside {binary}")
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_user and subprocess.run(["id", "postgres"], capture_output=True, timeout=10, check=False).returncode:
        pytest.skip("Postgres does not run as root and there is no user postgres")
    folder = Path(tempfile.mkdtemp(prefix="aiops-postgres-"))
    data = folder / "data"
    if as_user:
        shutil.chown(folder, "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = subprocess.run(
        [*as_user, str(binaries / "initdb"), "-D", str(data), "-U", "dagster", "-A", "trust", "--no-sync"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd="/",
    )
    assert made.returncode == 0, made.stderr
    options = ["-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", str(folder), "-F"]
    server = subprocess.Popen([*as_user, str(binaries / "postgres"), *options], stderr=subprocess.DEVNULL, cwd="/")
    try:
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert server.poll() is None, "Postgres ended"
                assert time.monotonic() < until, "Postgres does not answer"
                time.sleep(0.1)
        yield f"postgresql+psycopg2://dagster@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def on_postgres(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> dg.DagsterInstance:
    monkeypatch.setenv("AIOPS_POSTGRES_URL", url)
    return load(folder, POSTGRES)


def test_runs_and_partitions_are_kept_on_postgres(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dg.op
    def told(context) -> None:
        context.log_event(dg.AssetMaterialization("told", partition="2026-06-01T12"))

    @dg.job(tags=dict(live_tags(10)))
    def session() -> None:
        told()

    with on_postgres(tmp_path, postgres_url, monkeypatch) as instance:
        assert "Postgres" in type(instance.event_log_storage).__name__
        assert session.execute_in_process(instance=instance).success
        assert instance.get_materialized_partitions(dg.AssetKey("told")) == {"2026-06-01T12"}
    assert not list(tmp_path.rglob("*.db")), "something was kept in SQLite beside Postgres"


def test_the_event_log_is_pruned_on_postgres_too(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.definitions.test_event_log import check_pruning

    with on_postgres(tmp_path, postgres_url, monkeypatch) as instance:
        check_pruning(instance)


def test_a_missing_address_of_postgres_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIOPS_POSTGRES_URL", raising=False)
    with pytest.raises(Exception, match="AIOPS_POSTGRES_URL"), load(tmp_path, POSTGRES) as instance:
        instance.get_runs(limit=1)
