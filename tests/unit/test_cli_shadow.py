"""The command `aiops shadow`: wrong usage in one line, secrets by file or variable, and what a person sees."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from aiops_assets.cli import app
from tests.prometheus_peer import Peer

SERIES = [
    {"__name__": "up", "instance": "web-1:9100", "job": "node"},
    {"__name__": "load", "instance": "web-1:9100", "job": "node"},
]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--prometheus", "http://user:secret@127.0.0.1:9"), "use --basic-file"),
        (("--prometheus", "http://127.0.0.1:9", "--step", "7s"), "divide an hour"),
        (("--prometheus", "http://127.0.0.1:9", "--match", "sum(up)"), "expected a selector"),
        (("--prometheus", "http://127.0.0.1:9", "--header", "Authorization: x"), "--token-file"),
        (("--prometheus", "http://127.0.0.1:9", "--shifts", "8-12,13-20"), "cover a day once"),
        (("--prometheus", "http://127.0.0.1:9", "--zone", "Mars/Base"), "Europe/Berlin"),
        (("--prometheus", "http://127.0.0.1:9", "--source", "My Source"), "lower-case"),
        (("--prometheus", "http://127.0.0.1:9", "--rules", "/nowhere.yml"), "/nowhere.yml: cannot be read"),
    ],
)
def test_wrong_usage_is_said_in_one_line(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["shadow", *arguments], env={"AIOPS_HOME": str(tmp_path / "home")})
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def server() -> Peer:
    peer = Peer(SERIES, lambda labels, at: "0" if at % 7200 < 1200 else "1")
    peer.rules = [{"type": "alerting", "name": "Down", "query": "up == 0", "duration": 300, "labels": {}}]
    peer.rules.append({"type": "alerting", "name": "Load", "query": "sum(load) > 3", "duration": 0})
    return peer


def test_a_person_sees_the_import_both_tables_and_what_was_not_converted(tmp_path: Path) -> None:
    with server() as peer:
        arguments = ["shadow", "--prometheus", peer.url, "--days", "0.5", "--rate-limit", "1000"]
        report = tmp_path / "r.md"
        environment = {"AIOPS_HOME": str(tmp_path / "home")}
        done = CliRunner().invoke(app, [*arguments, "--report", str(report)], env=environment)
    assert done.exit_code == 0, done.output
    for text in (
        "1,440 samples of 2 series",
        "Down",
        "exact",
        "08–16",
        "1 of 2 alert rules converted",
        "aggregation sum()",
    ):
        assert text in done.stdout
    assert report.exists()


def test_a_dry_run_says_what_it_would_ask_for(tmp_path: Path) -> None:
    with server() as peer:
        arguments = ["shadow", "--prometheus", peer.url, "--days", "1", "--dry-run"]
        done = CliRunner().invoke(app, arguments, env={"AIOPS_HOME": str(tmp_path / "home")})
        assert {path for path, _ in peer.requests} == {"/api/v1/series", "/api/v1/metadata", "/api/v1/rules"}
    assert "2 series, at most 2,880 samples" in done.stdout
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("way", ["file", "variable"])
@pytest.mark.parametrize(
    ("option", "variable", "secret", "sent"),
    [
        ("--token-file", "AIOPS_PROMETHEUS_TOKEN", "t0ken", "Bearer t0ken"),
        ("--basic-file", "AIOPS_PROMETHEUS_BASIC", "user:pass", "Basic dXNlcjpwYXNz"),
    ],
)
def test_secrets_come_from_files_or_variables(
    way: str, option: str, variable: str, secret: str, sent: str, tmp_path: Path
) -> None:
    path = tmp_path / "secret"
    path.write_text(secret + "\n")
    environment = {"AIOPS_HOME": str(tmp_path / "home"), **({variable: secret} if way == "variable" else {})}
    with server() as peer:
        arguments = ["shadow", "--prometheus", peer.url, "--days", "0.1", "--dry-run"]
        arguments += [option, str(path)] if way == "file" else []
        done = CliRunner().invoke(app, arguments, env=environment)
    assert done.exit_code == 0, done.output
    assert {headers["authorization"] for _, headers in peer.requests} == {sent}
    assert secret not in done.output


def test_a_prometheus_that_does_not_answer_is_named_and_the_exit_code_says_so(tmp_path: Path) -> None:
    from aiops_assets.shadow import client

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "_FIRST_PAUSE_SECONDS", 0.001)
        arguments = ["shadow", "--prometheus", "http://127.0.0.1:1", "--rate-limit", "1000"]
        done = CliRunner().invoke(app, arguments, env={"AIOPS_HOME": str(tmp_path / "home")})
    assert done.exit_code == 1
    assert "http://127.0.0.1:1/api/v1/rules: 6 attempts failed" in done.stderr
