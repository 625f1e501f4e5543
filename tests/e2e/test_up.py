"""`aiops up` on a fresh home folder, as a stranger starts it, and as it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import polars as pl
import pytest

from aiops_assets.cli import processes
from aiops_assets.cli.supervisor import SupervisorState, running
from aiops_assets.hours import instant
from aiops_assets.lake.tables import Lake
from aiops_assets.live.lease import live_lease
from tests.stack import Stack, wait_until
from tests.stack import running as running_stack

pytestmark = pytest.mark.timeout(400)
CODE_LOCATIONS = """{ workspaceOrError { ... on Workspace { locationEntries {
    name locationOrLoadError { __typename ... on PythonError { message } } } } } }"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("up") / "home") as started:
        yield started


def aiops(stack: Stack, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "aiops_assets.cli", *arguments]
    return subprocess.run(
        command, env={**stack.variables, **more}, capture_output=True, text=True, timeout=60, check=False
    )


def state(stack: Stack) -> SupervisorState:
    found = running(stack.home)
    assert found is not None
    return found


def told(stack: Stack) -> str:
    return (stack.home.parent / "up.log").read_text()


def test_real_telemetry_of_this_machine_is_in_the_tables_within_a_minute(stack: Stack) -> None:
    lake = Lake(stack.home / "lake")
    began = instant(state(stack).started_at)

    def stored() -> set[str]:
        frame = lake.scan("metric_points", columns=["metric", "source", "ts"])
        return set(frame.filter(pl.col("source") == "host", pl.col("ts") >= began).collect()["metric"])

    expected = {
        "system.cpu.utilization",
        "system.memory.utilization",
        "system.filesystem.utilization",
        "system.network.io",
        "system.cpu.load_average.1m",
    }
    wait_until(lambda: expected <= stored(), 60, "metrics of this machine are stored")
    assert time.time() - state(stack).started_at / 1e6 < 90


def test_it_says_where_everything_is(stack: Stack) -> None:
    wait_until(lambda: "What to try next" in told(stack), 60, "the banner is there")
    said = told(stack)
    for text in (
        f"{stack.url}/incidents",
        f"http://127.0.0.1:{stack.dagster_port}",
        str(stack.home / "keys" / "admin.key"),
        "this machine (",
        "absolute rules",
        "aiops try",
    ):
        assert text in said
    assert "problem" not in said
    assert stack.key not in said


def test_both_code_locations_load_in_the_dagster_ui(stack: Stack) -> None:
    url = f"http://127.0.0.1:{stack.dagster_port}/graphql"

    def loaded() -> dict[str, str]:
        answer = httpx.post(url, json={"query": CODE_LOCATIONS}, timeout=10).json()
        entries = answer["data"]["workspaceOrError"]["locationEntries"]
        return {entry["name"]: (entry["locationOrLoadError"] or {}).get("__typename") for entry in entries}

    wait_until(lambda: set(loaded().values()) == {"RepositoryLocation"}, 60, "the code locations load")
    assert set(loaded()) == {"live", "learning"}


def test_status_and_doctor_agree_that_all_is_well(stack: Stack) -> None:
    wait_until(lambda: all(child.ready for child in state(stack).children.values()), 60, "all parts are ready")
    status = json.loads(aiops(stack, "status", "--json").stdout)
    assert status["problems"] == []
    assert status["session"]["holder"]
    assert {source["name"] for source in status["sources"]} == {"host"}
    assert set(status["processes"]) == set(state(stack).children)
    doctor = aiops(stack, "doctor")
    assert doctor.returncode == 0, doctor.stdout


def test_a_second_start_on_the_same_home_says_so_and_changes_nothing(stack: Stack) -> None:
    before = state(stack)
    second = aiops(stack, "up")
    assert second.returncode == 1
    assert f"already running for {stack.home} (process {before.pid})" in second.stderr
    assert {name: child.pid for name, child in state(stack).children.items()} == {
        name: child.pid for name, child in before.children.items()
    }


def test_a_used_port_is_said_in_one_line_each(stack: Stack, tmp_path: Path) -> None:
    other = aiops(stack, "up", AIOPS_HOME=str(tmp_path / "other"))
    assert other.returncode == 2
    lines = other.stderr.strip().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"port {stack.gateway_port} is used")
    assert lines[0].endswith("set AIOPS_GATEWAY_PORT to a free one")
    assert lines[1].endswith("set AIOPS_DAGSTER_PORT to a free one")


def test_a_killed_part_is_named_and_started_again(stack: Stack) -> None:
    for name in ("gateway", "collector", "code-live"):
        wait_until(lambda name=name: state(stack).children[name].ready, 60, f"{name} is ready")
        pid = state(stack).children[name].pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda name=name: state(stack).children[name].restarts, 30, f"{name} is missed")
        wait_until(lambda name=name: state(stack).children[name].ready, 60, f"{name} is ready again")
        assert state(stack).children[name].pid != pid
        assert f"! {name} was killed by SIGKILL" in told(stack)


def test_reload_replaces_the_code_servers_and_leaves_the_session_alone(stack: Stack) -> None:
    wait_until(lambda: live_lease(stack.home / "live").holder(), 120, "a session works")
    before = state(stack)
    answer = aiops(stack, "reload")
    assert answer.returncode == 0, answer.stderr
    for name in ("code-live", "code-learning"):
        old = before.children[name].pid
        wait_until(
            lambda name=name, old=old: state(stack).children[name].ready and state(stack).children[name].pid != old,
            60,
            f"{name} is new",
        )
    for name in ("gateway", "collector", "dagster-daemon", "dagster-webserver"):
        assert state(stack).children[name].pid == before.children[name].pid


@pytest.mark.soak
def test_whatever_ends_it_nothing_is_left_behind(tmp_path: Path) -> None:
    """kill -9 of the supervisor first, then a start on what that left, then Ctrl-C."""
    with running_stack(tmp_path / "home") as stack:
        token = state(stack).token
        holder = live_lease(stack.home / "live").holder()
        assert holder is not None
        assert holder.pid in processes.marked(token)
        assert stack.process is not None
        stack.process.kill()
        stack.process.wait(10)
        wait_until(lambda: not processes.marked(token), 40, "everything has gone after kill -9 of the supervisor")
        stack.start()
        token = state(stack).token
        assert len(processes.marked(token)) >= 7
        began = time.monotonic()
        stack.stop()
        assert time.monotonic() - began < 30
        assert not processes.marked(token)
        assert running(stack.home) is None
        assert "stopped; nothing is left running" in told(stack)
        for port in (stack.gateway_port, stack.dagster_port):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
