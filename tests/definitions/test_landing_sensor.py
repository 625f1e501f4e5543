"""The landing sensor against a real Dagster instance, a real lease and real segments."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import EngineEventData

from aiops_assets.definitions.live import build_definitions
from aiops_assets.landing.segment import Delivery
from aiops_assets.landing.writer import SegmentWriter
from aiops_assets.live.lease import live_lease
from aiops_assets.live.problems import recent_problems
from aiops_assets.live.progress import Progress, write_progress
from aiops_assets.settings import Settings
from jobs.live import LIVE_JOB, live_session_job
from sensors.landing import landing_sensor


@pytest.fixture
def platform(tmp_path: Path) -> Settings:
    settings = Settings(home=tmp_path / "home", session_seconds=1800)
    settings.paths.create()
    return settings


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


def tick(platform: Settings, instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorResult:
    repository = build_definitions(platform).get_repository_def()
    context = dg.build_sensor_context(instance, cursor, repository_def=repository, resources={"settings": platform})
    result = landing_sensor(context)
    assert isinstance(result, dg.SensorResult)
    return result


def drop(platform: Settings, count: int = 1) -> None:
    with SegmentWriter(platform.paths.landing, "gateway", max_bytes=1, max_age_seconds=60) as writer:
        for number in range(count):
            writer.append_deliveries([Delivery(f"d{number}", 1, "generic", "application/json", b"{}")])


def started_run(
    instance: dg.DagsterInstance, pid: int, status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED
) -> str:
    run = instance.create_run_for_job(live_session_job(1800), status=status)
    instance.report_engine_event(f"Started process for run (pid: {pid}).", run, EngineEventData.in_process(pid))
    return run.run_id


def age_runs(monkeypatch: pytest.MonkeyPatch, seconds: float = 120.0) -> None:
    real = time.time()
    monkeypatch.setattr("sensors.landing.time.time", lambda: real + seconds)


def test_a_drop_requests_a_session_and_an_empty_landing_zone_does_not(
    platform: Settings, instance: dg.DagsterInstance
) -> None:
    assert not tick(platform, instance).run_requests
    drop(platform)
    result = tick(platform, instance)
    assert result.run_requests and len(result.run_requests) == 1


def test_what_a_session_has_taken_requests_nothing(platform: Settings, instance: dg.DagsterInstance) -> None:
    drop(platform, 3)
    write_progress(platform.paths.live, Progress(taken={"gateway": 3}))
    assert not tick(platform, instance).run_requests


def test_a_request_is_not_repeated_while_its_run_is_on_its_way(
    platform: Settings, instance: dg.DagsterInstance
) -> None:
    drop(platform)
    first = tick(platform, instance)
    instance.create_run_for_job(live_session_job(1800), status=dg.DagsterRunStatus.NOT_STARTED)
    assert not tick(platform, instance, first.cursor).run_requests


def test_the_lease_decides_not_the_status_of_a_run(platform: Settings, instance: dg.DagsterInstance) -> None:
    """A run that failed in Dagster's eyes may still be at work: while it holds the lease nobody else is asked."""
    drop(platform)
    lease = live_lease(platform.paths.live)
    run = instance.create_run_for_job(live_session_job(1800), status=dg.DagsterRunStatus.FAILURE)
    assert lease.acquire(run.run_id, seconds=1800, keep_waiting=lambda: False)
    try:
        assert not tick(platform, instance).run_requests
    finally:
        lease.release()
    assert tick(platform, instance).run_requests


def test_a_successor_is_requested_shortly_before_the_holder_goes(
    platform: Settings, instance: dg.DagsterInstance
) -> None:
    drop(platform)
    lease = live_lease(platform.paths.live)
    assert lease.acquire("holder", seconds=20, keep_waiting=lambda: False)
    try:
        assert tick(platform, instance).run_requests
    finally:
        lease.release()


def test_a_run_whose_process_is_gone_is_failed_and_replaced(
    platform: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(platform)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(timeout=30)
    run_id = started_run(instance, gone.pid)
    age_runs(monkeypatch)
    result = tick(platform, instance)
    run = instance.get_run_by_id(run_id)
    assert run is not None and run.status == dg.DagsterRunStatus.FAILURE
    assert result.run_requests


def test_a_process_number_that_was_given_to_another_process_is_not_mistaken_for_the_run(
    platform: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(platform)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as younger:
        run_id = started_run(instance, younger.pid)
        age_runs(monkeypatch)
        real_time = time.time() + 3600
        monkeypatch.setattr("sensors.landing.psutil.Process.create_time", lambda self: real_time)
        tick(platform, instance)
        younger.communicate(b"\n", timeout=30)
    run = instance.get_run_by_id(run_id)
    assert run is not None and run.status == dg.DagsterRunStatus.FAILURE


def test_a_run_that_waits_for_the_lease_is_left_alone(
    platform: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(platform)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as alive:
        run_id = started_run(instance, alive.pid)
        age_runs(monkeypatch)
        assert not tick(platform, instance).run_requests
        run = instance.get_run_by_id(run_id)
        assert run is not None and run.status == dg.DagsterRunStatus.STARTED
        alive.communicate(b"\n", timeout=30)


def test_a_cancelled_run_whose_process_is_gone_is_cancelled(
    platform: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(timeout=30)
    run_id = started_run(instance, gone.pid, dg.DagsterRunStatus.CANCELING)
    age_runs(monkeypatch)
    tick(platform, instance)
    run = instance.get_run_by_id(run_id)
    assert run is not None and run.status == dg.DagsterRunStatus.CANCELED


@pytest.mark.parametrize("cursor", ["", "{", '{"gateway": 2}', '{"version": 99, "taken": {"gateway": 2}}'])
def test_any_cursor_is_survived(platform: Settings, instance: dg.DagsterInstance, cursor: str) -> None:
    drop(platform, 3)
    assert tick(platform, instance, cursor).run_requests


def test_a_tick_stays_far_below_its_time_whatever_waits(platform: Settings, instance: dg.DagsterInstance) -> None:
    folder = platform.paths.landing / "gateway"
    folder.mkdir(parents=True)
    for seq in range(1, 20_001):
        (folder / f"{seq:012d}.seg").touch()
    for _ in range(25):
        instance.create_run_for_job(live_session_job(1800), status=dg.DagsterRunStatus.FAILURE)
    tick(platform, instance)
    began = time.monotonic()
    tick(platform, instance)
    assert time.monotonic() - began < 5


def test_a_failed_run_becomes_a_problem_that_people_see(platform: Settings, instance: dg.DagsterInstance) -> None:
    from sensors.failures import failure_sensor

    @dg.op
    def breaks() -> None:
        raise RuntimeError("<script>alert('x')</script>\x1b[31m")

    @dg.job
    def broken() -> None:
        breaks()

    result = broken.execute_in_process(instance=instance, raise_on_error=False)
    event = next(event for event in result.all_events if event.event_type == dg.DagsterEventType.RUN_FAILURE)
    context = dg.build_run_status_sensor_context(
        "failure_sensor", event, instance, result.dagster_run, resources={"settings": platform}
    ).for_run_failure()
    failure_sensor(context)
    (problem,) = recent_problems(platform.paths.live)
    assert "broken failed in breaks" in problem.text
    assert "\x1b" not in problem.text
    assert problem.link == f"/runs/{result.run_id}"


def test_the_job_that_the_sensor_asks_for_is_the_live_session() -> None:
    job = live_session_job(1800)
    assert job.name == LIVE_JOB == landing_sensor.job_name
    assert job.tags["aiops/plane"] == "live"
    assert int(job.tags["dagster/max_runtime"]) > 1800
