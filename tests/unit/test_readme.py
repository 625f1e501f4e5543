"""The README stays true: its examples work and what it names exists."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from aiops_assets.cli import app
from aiops_assets.config import Config, parse_config
from aiops_assets.landing.segment import Delivery
from aiops_assets.promotion import assets as promotion

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_example_of_a_format_parses_and_rejects(tmp_path: Path) -> None:
    (source,) = [block for block in blocks("python") if "def parse" in block]
    path = tmp_path / "celsius.py"
    path.write_text(source, "utf-8")
    spec = importlib.util.spec_from_file_location("celsius", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    parsed = module.parse([Delivery("d", 7, "lab", "text/plain", b"a;21.5\nb;oops\na;22")])
    assert parsed.series["host"].to_list() == ["a", "b"] or parsed.series["host"].to_list() == ["a"]
    assert parsed.points.select("ts", "value").rows() == [(7, 21.5), (7, 22.0)]
    assert [reject.content for reject in parsed.rejects] == [b"b;oops"]
    assert parsed.points.schema["series"] == pl.UInt32
    assert len(source.strip().splitlines()) <= 30


def test_the_example_of_a_promoted_thing_is_short_and_is_that_of_the_factory() -> None:
    (source,) = [block for block in blocks("python") if "promoted(" in block]
    assert len(source.strip().splitlines()) < 30
    shown = promotion.__doc__
    assert shown is not None
    assert "".join(source.split()).replace(",)", ")") == _example(shown)


def _example(docstring: str) -> str:
    """The code in a docstring without its white space; what is spelt otherwise for its width is spelt alike."""
    code = docstring[docstring.index("    def produce") : docstring.index("with ``assets=")]
    return "".join(code.split()).replace(",)", ")").replace("owners=[PLATFORM]", 'owners=["team:platform"]')


@pytest.mark.parametrize("text", blocks("yaml"))
def test_the_examples_of_aiops_yaml_are_valid(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SNMP_COMMUNITY", "REDFISH_PASSWORD", "SN_PASSWORD"):
        monkeypatch.setenv(name, "x")
    assert yaml.safe_load(text)
    parse_config(text, "README.md")


def test_every_command_that_is_named_exists() -> None:
    commands = set(re.findall(r"aiops ((?:[a-z]+)(?: [a-z]+)?)", README))
    groups = {"keys", "rules", "quarantine", "evaluate", "incidents", "config", "silence", "lake", "marts", "explain"}
    groups |= {"sources", "golden", "registry", "storm"}
    runner = CliRunner()
    for command in sorted(commands):
        words = command.split()
        words = words if words[0] in groups else words[:1]
        assert runner.invoke(app, [*words, "--help"]).exit_code == 0, command


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(((?:docs|deploy)/[^)]+)\)", README))))
def test_every_file_that_is_linked_exists(path: str) -> None:
    assert (Path(__file__).parents[2] / path).is_file()


def test_the_examples_of_aiops_yaml_in_the_guides_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "sources.md").read_text("utf-8")
    found = [text for text in re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL) if _is_ours(text)]
    assert len(found) > 10
    for text in found:
        for name in re.findall(r"\$\{([A-Z_]+)\}", text):
            monkeypatch.setenv(name, "x")
        parse_config(text, "docs/sources.md")


def _is_ours(text: str) -> bool:
    """Whether an example is of our own file: the first word of other programs' files is none of ours."""
    return text.partition(":")[0] in Config.model_fields
