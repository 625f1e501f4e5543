"""`aiops replay` and `aiops restate` as people run them: exit codes, what is printed, jobs, two at once, kill -9."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from aiops_assets.definitions.learning import build_definitions
from aiops_assets.detection.receipts import newest, read_receipts
from aiops_assets.hours import MICROS_PER_HOUR, instant
from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.replay.assets import REPORT, VERIFICATION
from aiops_assets.settings import Settings
from aiops_assets.tables import METRIC_POINTS
from tests.replay_home import Story, documents, start
from tests.stack import wait_until

FIRST = start()
FROM, TO = (instant(at).strftime("%Y-%m-%dT%H") for at in (FIRST, FIRST + 6 * MICROS_PER_HOUR))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    story = Story(folder)
    story.stream(documents(FIRST, 60 * 6 + 10), 160)
    story.settle()
    story.pipeline.close()
    return folder


@pytest.fixture
def home(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original, tmp_path / "home")
    return tmp_path / "home"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "aiops_assets.cli", *arguments]


def run(home: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        command(*arguments),
        env={**os.environ, "AIOPS_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_past_replays_and_says_so(home: Path) -> None:
    assert "identical: 6 hours, 4,275 rows" in run(home, "replay", FROM, TO, "--as-recorded")
    found = json.loads(run(home, "replay", FROM, TO, "--as-recorded", "--json"))
    assert (found["identical"], found["hours"], found["differences"]) == (True, 6, [])


def test_a_difference_ends_with_1_and_is_named(home: Path) -> None:
    lake = Lake(Settings(home=home).paths.lake)
    key = lake.partitions("metric_points")[2].partition
    TableWriter(lake, METRIC_POINTS).replace(lake.read("metric_points", [key]).head(-1), key)
    said = run(home, "replay", FROM, TO, "--as-recorded", code=1)
    assert f"{key} revision 1: rows" in said
    assert "differences in 1 of" in said


def test_what_would_be_otherwise_is_shown_and_listed(home: Path) -> None:
    said = run(home, "replay", FROM, TO, "--as-now", "--set", "filesystem-almost-full.enabled=false")
    assert "filesystem-almost-full" in said
    report = Path(said.split("report: ")[1].strip())
    assert "Alerts vanished (1)" in report.read_text()
    assert "nothing differs" in run(home, "replay", FROM, TO, "--as-now")
    listed = json.loads(run(home, "replay", "--list", "--json"))
    assert sorted(entry["request"]["sets"] for entry in listed) == [[], ["filesystem-almost-full.enabled=false"]]
    assert "done" in run(home, "replay", "--list")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--as-now", "--set", "cpu-saturated.severity=bad"), "'critical'"),
        (("--as-now", "--mask", "soon"), "write FROM..TO"),
        (("--as-now", "--config", "no-such.yaml"), "no such file"),
        (("--as-recorded", "--set", "a.b=1"), "leave out the options"),
        ((), "say --as-recorded or --as-now"),
    ],
)
def test_what_cannot_be_is_refused_with_2(home: Path, arguments: tuple[str, ...], said: str) -> None:
    assert said in run(home, "replay", FROM, TO, *arguments, code=2)


@pytest.mark.soak
def test_two_restatements_at_once_one_of_them_killed_end_as_one(home: Path) -> None:
    settings = Settings(home=home)
    settings.paths.config.write_text("rules:\n- {name: app-load, metric: app.load, value: 1.85, for: 1m}\n")
    dry = run(home, "restate", FROM, TO, "--dry-run")
    assert "app-load" in dry
    before = read_receipts(Lake(settings.paths.lake))
    environment = {**os.environ, "AIOPS_HOME": str(home)}
    killed = subprocess.Popen(command("restate", FROM, TO), env=environment, stderr=subprocess.PIPE)
    wait_until(lambda: (settings.paths.live / "restate.json").exists() or killed.poll() is not None, 60, "it begins")
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=30)
    two = [
        subprocess.Popen(
            command("restate", FROM, TO), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=180)[0].decode() for process in two]
    assert [process.returncode for process in two] == [0, 0], said
    after = read_receipts(Lake(settings.paths.lake))
    assert all(receipt in after for receipt in before)
    assert {receipt.revision for receipt in newest(after).values()} == {2}
    assert "identical: 6 hours" in run(home, "replay", FROM, TO, "--as-recorded")
    assert "nothing differs" in run(home, "replay", FROM, TO, "--as-now")


def test_the_jobs_do_the_same(home: Path) -> None:
    settings = Settings(home=home)
    definitions = build_definitions(settings)
    hours = {"from": FROM, "to": TO}

    def execute(job: str, node: str, **config: object) -> dg.ExecuteInProcessResult:
        with dg.DagsterInstance.ephemeral() as instance:
            return definitions.resolve_job_def(job).execute_in_process(
                run_config={"ops": {node: {"config": {**hours, **config}}}}, instance=instance, raise_on_error=False
            )

    proof = execute("replay_as_recorded", VERIFICATION)
    (check,) = proof.get_asset_check_evaluations()
    assert (check.passed, check.blocking, check.metadata["hours"].value) == (True, True, 6)
    report = execute("replay_as_now", REPORT, set=["filesystem-almost-full.enabled=false"])
    (event,) = report.asset_materializations_for_node(REPORT)
    assert event.metadata["alerts_vanished"].value == 1
    assert "data:image/svg+xml" in str(event.metadata["report"].value)
    assert execute("restate", "restate_hours", dry_run=False, reason="by a job").success
    lake = Lake(settings.paths.lake)
    key = lake.partitions("metric_points")[1].partition
    TableWriter(lake, METRIC_POINTS).replace(lake.read("metric_points", [key]).head(-1), key)
    disproof = execute("replay_as_recorded", VERIFICATION)
    (check,) = disproof.get_asset_check_evaluations()
    assert not check.passed
    assert not disproof.success, "a blocking check fails its run, so that somebody is told"
