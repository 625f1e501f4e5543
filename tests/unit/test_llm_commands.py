"""``aiops llm`` and ``aiops evaluate privacy``: exit codes, JSON, and what they say to do next."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from aiops_assets.cli import app
from aiops_assets.llm.assets import llm_specs
from tests.fakes.openai_server import API_KEY, FakeOpenAI, Trouble


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    fake = FakeOpenAI(content=lambda body: json.dumps({"greeting": "hello", "sum": 42, "provider": "model"}))
    with fake.serving():
        yield fake


def run(folder: Path, *words: str, config: str = "") -> tuple[int, str]:
    folder.mkdir(exist_ok=True)
    (folder / "aiops.yaml").write_text(config)
    environment = {"AIOPS_HOME": str(folder), "AIOPS_CONFIG": None, "LLM_KEY": API_KEY}
    done = CliRunner().invoke(app, list(words), env=environment)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def configured(server: FakeOpenAI) -> str:
    return f"""
llm:
  provider: compatible
  model: fake-1
  base_url: {server.url}/v1
  api_key: ${{LLM_KEY}}
  prompt_price: 1
  budget: {{cost: 1}}
"""


def test_a_provider_that_answers(server: FakeOpenAI, tmp_path: Path) -> None:
    code, output = run(tmp_path, "llm", "test", "--json", config=configured(server))
    found: dict[str, Any] = json.loads(output)
    assert (code, found["outcome"], found["note"]) == (0, "answered", None)
    code, output = run(tmp_path, "llm", "calls", "--json", config=configured(server))
    shown = json.loads(output)
    assert (code, shown["sums"][0]["purpose"], len(shown["calls"])) == (0, "llm-test", 1)
    code, output = run(tmp_path, "llm", "budget", "--json", config=configured(server))
    shown = json.loads(output)
    assert shown["purposes"][0]["calls"] == 1
    assert 0 < shown["all"]["left"]["cost"] < 1
    assert run(tmp_path, "llm", "calls", config=configured(server))[0] == 0
    assert "llm-test" in run(tmp_path, "llm", "budget", config=configured(server))[1]


def test_a_provider_that_does_not(server: FakeOpenAI, tmp_path: Path) -> None:
    server.behave = lambda number, body: Trouble("status", 401, message=f"Incorrect API key provided: {API_KEY}")
    code, output = run(tmp_path, "llm", "test", "--json", config=configured(server))
    found = json.loads(output)
    assert (code, found["outcome"]) == (1, "failed")
    assert "llm.api_key" in found["reason"]
    assert API_KEY not in output
    code, output = run(tmp_path, "llm", "calls", "--degraded", "--json")
    assert json.loads(output)["calls"][0]["outcome"] == "failed"


def test_offline_says_how_to_ask_a_model(tmp_path: Path) -> None:
    code, output = run(tmp_path, "llm", "test")
    assert code == 0
    assert "set 'llm.provider'" in output


def test_nothing_asked_yet_and_wrong_usage(tmp_path: Path) -> None:
    assert "no call in the last" in run(tmp_path, "llm", "calls")[1]
    assert json.loads(run(tmp_path, "llm", "cache", "prune", "--json")[1]) == {"removed": 0, "left": 0}
    assert run(tmp_path, "llm", "cache", "prune", "--older-than", "soon")[0] == 2
    assert run(tmp_path, "llm", "budget", "--day", "yesterday")[0] == 2
    code, output = run(tmp_path, "llm", "test", config="llm: {provider: openai}")
    assert code == 2
    assert "aiops.yaml:1: llm: provider 'openai' needs 'model'" in output


def test_the_ledger_stands_in_the_asset_graph() -> None:
    [spec] = llm_specs([dg.AssetKey("golden_incidents_candidate")])
    assert spec.key == dg.AssetKey("llm_calls")
    columns = {column.name for column in spec.metadata["dagster/column_schema"].columns}
    assert {"purpose", "outcome", "cost", "day"} <= columns
    assert spec.partitions_def is not None


def test_detectors_are_scored(tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("all is well\nmail anna@contoso.com\n")
    words = ("evaluate", "privacy", "--count", "300", "--lines", str(lines))
    code, output = run(tmp_path, *words, "--json")
    found = json.loads(output)
    assert code == 0
    assert {entry["kind"] for entry in found["kinds"]} == {
        "secret",
        "email",
        "card",
        "iban",
        "ssn",
        "phone",
        "ip",
        "person",
    }
    assert found["lines"]["finds_per_1000"] == {"email": 500.0}
    assert "line 2: email anna@contoso.com" in run(tmp_path, *words, "--show", "3")[1]
    assert run(tmp_path, "evaluate", "privacy", "--count", "1", "--lines", str(tmp_path / "no.txt"))[0] == 2
