"""The command line as people and scripts meet it: exit codes, one clear line for a mistake, JSON that is only JSON."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aiops_assets.cli import app
from aiops_assets.cli.output import Problem, ago, clean, duration, size
from aiops_assets.cli.up import (
    COMPONENTS,
    LOCATIONS,
    banner,
    check_ports,
    children,
    code_socket,
    location_problems,
    prepare,
)
from aiops_assets.config import Config
from aiops_assets.landing.quarantine import Quarantine, QuarantineEntry
from aiops_assets.live.progress import Progress, SourceProgress, write_progress
from aiops_assets.observability.status import platform_status
from aiops_assets.settings import Settings

ROOT = Path(__file__).parents[2]
GROUPS = ("incidents", "silence", "rules", "quarantine", "keys", "config", "evaluate")
COMMANDS = ("up", "init", "try", "gateway", "collect", "status", "alerts", "ingest", "doctor", "reload")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("AIOPS_HOME", str(tmp_path / "home"))
    return Settings()


@pytest.fixture
def home(settings: Settings) -> Settings:
    prepare(settings)
    return settings


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def test_help_answers_at_once_and_without_heavy_imports() -> None:
    heavy = "{'polars', 'dagster', 'httpx', 'rich', 'pydantic', 'sqlalchemy'}"
    code = f"import sys, time, aiops_assets.cli; print(sorted({heavy} & set(sys.modules)), time.process_time() < 1.0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[] True"


@pytest.mark.parametrize("path", [(), *((name,) for name in (*COMMANDS, *GROUPS))], ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...]) -> None:
    assert "Usage: " in run(*path, "--help")


def test_commands_with_a_choice_show_an_example() -> None:
    for name in ("up", "try", "ingest", "status", "alerts"):
        assert f"aiops {name}" in run(name, "--help")


@pytest.mark.parametrize("arguments", [("nope",), ("ingest",), ("status", "--nope"), ("incidents", "nope")])
def test_wrong_usage_has_exit_code_2(arguments: tuple[str, ...]) -> None:
    run(*arguments, code=2)


def test_a_wrong_setting_is_named_by_its_variable(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIOPS_GATEWAY_PORT", "many")
    assert "AIOPS_GATEWAY_PORT: Input should be a valid integer" in run("doctor", code=2)


def test_a_mistake_in_aiops_yaml_stops_up_before_anything_starts(settings: Settings, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "aiops.yaml").write_text("version: 1\ncolect:\n  host: {}\nrules:\n  - {name: a, metric: m}\n")
    said = run("up", code=2)
    assert f"{home}/aiops.yaml:2: colect: unknown field; allowed: version, collect" in said
    assert "aiops.yaml:5: rules.0: a rule of kind 'threshold' needs 'value'" in said
    assert sorted(path.name for path in home.iterdir()) == ["aiops.yaml"]
    assert run("config", "check", code=2) == said


def test_a_used_port_is_one_line_with_the_variable_to_set(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("AIOPS_DAGSTER_PORT", str(port))
        with pytest.raises(Problem) as caught:
            check_ports(Settings(), COMPONENTS)
        assert caught.value.code == 2
        (line,) = str(caught.value).splitlines()
        assert line.startswith(f"port {port} is used by ")
        assert f"(process {os.getpid()})" in line
        assert line.endswith("set AIOPS_DAGSTER_PORT to a free one")
        check_ports(Settings(), ("gateway",))


def test_init_makes_a_home_and_keeps_what_exists(settings: Settings) -> None:
    run("init")
    home = settings.paths
    key = (home.keys / "admin.key").read_text()
    assert home.keys.stat().st_mode & 0o077 == 0
    assert (home.dagster / "dagster.yaml").exists()
    home.config.write_text("version: 1\n")
    run("init")
    assert (home.keys / "admin.key").read_text() == key
    assert home.config.read_text() == "version: 1\n"


def test_the_code_servers_are_those_of_the_workspace(home: Settings) -> None:
    import yaml

    entries = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    modules = {entry["python_module"]["location_name"]: entry["python_module"]["module_name"] for entry in entries}
    assert modules == LOCATIONS
    written = yaml.safe_load((home.paths.dagster / "workspace.yaml").read_text())["load_from"]
    assert {entry["grpc_server"]["location_name"] for entry in written} == set(LOCATIONS)
    commands = {spec.name: " ".join(spec.command) for spec in children(home)}
    for entry in written:
        name, path = entry["grpc_server"]["location_name"], entry["grpc_server"]["socket"]
        assert f"--socket {path}" in commands[f"code-{name}"]


def test_a_long_home_path_does_not_break_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    settings = Settings(home=tmp_path / ("x" * 120))
    path = code_socket(settings.paths, "live")
    assert path == code_socket(settings.paths, "live")
    assert not path.is_relative_to(settings.paths.root)
    assert path.parent.stat().st_mode & 0o077 == 0


def test_every_process_is_told_its_home_and_stays_on_loopback(home: Settings) -> None:
    specs = {spec.name: spec for spec in children(home)}
    assert set(specs) == set(COMPONENTS)
    for spec in specs.values():
        assert spec.environment["AIOPS_HOME"] == str(home.paths.root)
        assert spec.environment["DAGSTER_HOME"] == str(home.paths.dagster)
        assert Path(spec.command[0]).is_absolute()
    assert "-h 127.0.0.1" in " ".join(specs["dagster-webserver"].command)


def test_the_banner_tells_where_everything_is(home: Settings) -> None:
    text = "\n".join(banner(home, Config(), ("dagster-daemon",), 3.0))
    for said in (
        "Not ready yet: dagster-daemon",
        "http://127.0.0.1:8787/incidents",
        "http://127.0.0.1:3000",
        str(home.paths.keys / "admin.key"),
        str(home.paths.lake),
        "no closed hour of history yet",
        "try ",
    ):
        assert said in text
    assert location_problems(home) == []


def test_status_of_a_new_home_is_calm_and_is_json(home: Settings) -> None:
    assert "none open" in run("status")
    told = json.loads(run("status", "--json"))
    assert told["problems"] == []
    assert told["sources"] == []
    assert told["processes"] == {}


def test_status_names_what_is_wrong(home: Settings) -> None:
    now = time.time()
    late = SourceProgress(deliveries=3, points=30, last_received_at=int((now - 3600) * 1e6), refused_series=7)
    good = SourceProgress(deliveries=1, points=5, last_received_at=int(now * 1e6), rate=2.5)
    write_progress(home.paths.live, Progress(sources={"telegraf": late, "host": good}, problems=["disk full: sdb1"]))
    device = {
        "ok": False,
        "last_poll_at": 0,
        "duration": 2.0,
        "points": 0,
        "error": "timeout",
        "slow": True,
        "skipped": 4,
    }
    (home.paths.collector / "status.json").write_text(
        json.dumps(
            {
                "updated_at": int((now - 600) * 1e6),
                "devices": {"sw-1": device, "sw-2": {**device, "ok": True, "slow": False}},
            }
        )
    )
    entry = QuarantineEntry("evil", "not UTF-8", b"\xff", "d", 0, "text/plain", "telegraf", "gateway", 1, 0)
    Quarantine(home.paths.quarantine).record([entry])
    status = platform_status(home, now=now)
    assert [device.name for device in status.laggards] == ["sw-1"]
    assert {source.name: source.fresh for source in status.sources} == {"evil": False, "host": True, "telegraf": False}
    assert {source.name: source.quarantined for source in status.sources} == {"evil": 1, "host": 0, "telegraf": 0}
    assert [problem.split(":")[0] for problem in status.problems] == [
        "disk full",
        "source telegraf is late",
        "source telegraf",
        "the collector has been silent for 600 s",
    ]
    assert "sw-1" in CliRunner().invoke(app, ["status"]).output
    assert CliRunner().invoke(app, ["status"]).exit_code == 1


def test_doctor_finds_open_keys_and_a_missing_segment(home: Settings) -> None:
    found = {entry["name"]: entry for entry in json.loads(run("doctor", "--json"))}
    assert found["python"]["outcome"] == found["home"]["outcome"] == found["config"]["outcome"] == "ok"
    (home.paths.keys / "admin.key").chmod(0o644)
    folder = home.paths.landing / "gateway"
    folder.mkdir()
    for seq in (1, 3):
        (folder / f"{seq:012d}.seg").write_bytes(b"AIOPSEG1")
    said = CliRunner().invoke(app, ["doctor"])
    assert said.exit_code == 1
    assert "chmod 600" in said.output
    assert "gateway lacks 1 segments: 2" in said.output


def test_keys_are_made_listed_and_revoked(home: Settings) -> None:
    made = json.loads(run("keys", "create", "telegraf", "--source", "telegraf", "--json"))
    assert made["sources"] == ["telegraf"]
    listed = run("keys", "list", "--json")
    assert made["key"] not in listed
    assert made["id"] in {key["id"] for key in json.loads(listed)}
    run("keys", "revoke", made["id"])
    assert next(key for key in json.loads(run("keys", "list", "--json")) if key["id"] == made["id"])["revoked_at"]
    assert "there is no key" in run("keys", "revoke", "nope", code=1)
    assert "use lower-case letters" in run("keys", "create", "x", "--source", "../x", code=2)


def test_quarantine_is_listed_shown_and_retried(home: Settings) -> None:
    entry = QuarantineEntry("telegraf", "[bold]bad[/]\x1b[31m", b"\xffrest", "d", 0, "", "telegraf", "gateway", 1, 0)
    Quarantine(home.paths.quarantine).record([entry])
    assert json.loads(run("quarantine", "list", "--json")) == {"telegraf": {entry.reason: 1}}
    shown = run("quarantine", "show", "telegraf")
    assert "[bold]bad[/]\\x1b[31m" in shown
    assert "\x1b[31m" not in shown
    assert json.loads(run("quarantine", "retry", "--json")) == {"retried": 1}
    assert json.loads(run("quarantine", "list", "--json")) == {}
    assert (home.paths.landing / "retry" / "000000000001.seg").exists()
    assert "is not a source's name" in run("quarantine", "retry", "../..", code=2)


def test_silences_are_made_listed_and_ended(home: Settings) -> None:
    made = json.loads(
        run("silence", "create", "--host", "db-*", "--for", "2h", "--reason", "upgrade", "--label", "a=b*", "--json")
    )
    (listed,) = json.loads(run("silence", "list", "--json"))
    assert (listed["silence_id"], listed["state"], listed["labels"]) == (made["silence_id"], "active", {"a": "b*"})
    run("silence", "expire", made["silence_id"])
    assert json.loads(run("silence", "list", "--json")) == []
    assert "say what to silence" in run("silence", "create", "--reason", "x", code=2)
    assert "--for 'soon'" in run("silence", "create", "--reason", "x", "--for", "soon", code=2)
    assert "there is no silence" in run("silence", "expire", "SIL-0", code=1)


def test_incidents_without_any_and_unknown_ones(home: Settings) -> None:
    assert json.loads(run("incidents", "list", "--json")) == []
    assert json.loads(run("alerts", "--json")) == []
    assert "there is no incident 'INC-0'" in run("incidents", "show", "INC-0", code=1)


def test_commands_that_read_do_not_make_a_home(settings: Settings) -> None:
    assert "make it with: aiops init" in run("incidents", "list", code=1)
    run("status")
    run("quarantine", "list")
    run("config", "check")
    assert not settings.paths.root.exists()


def test_rules_are_listed_and_tested_on_nothing(home: Settings) -> None:
    assert "filesystem-almost-full" in {rule["name"] for rule in json.loads(run("rules", "list", "--json"))}
    report = json.loads(run("rules", "test", "filesystem-full", "--from", "2h", "--json"))
    assert [rule["rule"] for rule in report["rules"]] == ["filesystem-full"]
    assert "no rule named 'nope'" in run("rules", "test", "nope", code=2)
    assert "--to must be later" in run("rules", "test", "--from", "1h", "--to", "2h", code=2)
    assert "write an instant" in run("rules", "test", "--from", "soon", code=2)


def test_evaluate_says_when_there_is_nothing_to_judge(home: Settings, tmp_path: Path) -> None:
    assert "no CSV file" in run("evaluate", "detector", "--data", str(tmp_path), "--out", str(tmp_path / "o"), code=2)


def test_reload_needs_a_running_platform(home: Settings) -> None:
    assert "start it: aiops up" in run("reload", code=1)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.44, "0.4 s"), (59, "59 s"), (300, "5 min"), (9000, "2.5 h"), (200_000, "2.3 d")],
)
def test_durations_are_told_in_one_unit(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_wording() -> None:
    assert ago(None) == ago(0) == "never"
    assert ago(1_000_000, now=6.0) == "5.0 s ago"
    assert ago(9_000_000, now=6.0) == "in 3.0 s"
    assert (size(12), size(2048), size(5 * 1024**4)) == ("12 B", "2.0 KiB", "5.0 TiB")
    assert clean("a\x1b[0m[red]") == "a\\x1b[0m\\[red]"
