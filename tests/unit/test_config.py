"""``aiops.yaml``: mistakes are named with file, line, field and what is allowed, and never take a process down."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiops_assets.config import (
    Config,
    ConfigError,
    ConfigFile,
    default_rules,
    load_config,
    parse_config,
    parse_duration,
    template,
)


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "aiops.yaml")
    return caught.value.problems


def test_the_shipped_file_means_the_defaults() -> None:
    assert parse_config(template(), "aiops.yaml") == Config()


def test_a_missing_or_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load_config(tmp_path / "absent.yaml") == Config()
    assert parse_config("# nothing\n", "aiops.yaml") == Config()


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("rules:\n  - {name: a, metric: m, kind: foo, value: 1}\n", 2, ["rules.0.kind", "'threshold'", "'absence'"]),
        ("devices:\n  - name: x\n    adress: y\n", 3, ["devices.0.adress", "unknown field", "address"]),
        ("devices:\n  - name: x\n", 2, ["devices.0.address", "required"]),
        ("rules:\n  - name: a\n    metric: m\n    for: soon\n", 4, ["rules.0.for", "5m"]),
        ("maintenance:\n  - {name: a, from: 2026-01-02, to: 2026-01-01, author: a, reason: b}\n", 2, ["later"]),
        ("colour: red\n", 1, ["colour", "unknown field", "maintenance"]),
        ("rules: [}\n", 1, ["YAML"]),
        ("- a\n- b\n", 1, ["mapping"]),
        ("rules:\n  - {name: a, metric: m, value: 1}\n  - {name: a, metric: n, value: 1}\n", 1, ["'a' appears twice"]),
        ('priority: {"1/1": 1}\n', 1, ["priority", "3/3"]),
    ],
)
def test_a_mistake_names_its_line_field_and_what_is_allowed(text: str, line: int, words: list[str]) -> None:
    told = problems(text)
    assert any(problem.startswith(f"aiops.yaml:{line}:") for problem in told), told
    for word in words:
        assert any(word in problem for problem in told), (word, told)


def test_every_mistake_is_told_at_once() -> None:
    assert len(problems("rules:\n  - {name: a}\n  - {name: B B, metric: m, value: 1}\n")) >= 2


def test_secrets_come_from_the_environment_and_stay_out_of_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNMP_COMMUNITY", "s3cret")
    text = 'devices: [{name: x, address: a, snmp: {community: "${SNMP_COMMUNITY}"}}]\n'
    config = parse_config(text, "aiops.yaml")
    assert config.devices[0].snmp.community.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(config)
    assert "s3cret" not in config.model_dump_json()


def test_a_variable_that_is_not_set_is_named() -> None:
    assert "NO_SUCH_VARIABLE" in problems("devices: [{name: x, address: '${NO_SUCH_VARIABLE}'}]\n")[0]


def test_a_mistake_while_running_keeps_the_last_good_configuration(tmp_path: Path) -> None:
    path = tmp_path / "aiops.yaml"
    path.write_text("statistics: {enabled: false}\n")
    file = ConfigFile(path)
    assert not file.current().statistics.enabled
    path.write_text("statistics: {enabled: perhaps}\n")
    assert not file.current().statistics.enabled
    assert "statistics.enabled" in file.problems[0]
    path.write_text("statistics: {enabled: true}\n")
    os.utime(path, ns=(1, 1))
    assert file.current().statistics.enabled
    assert file.problems == []


def test_a_mistake_at_the_start_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "aiops.yaml"
    path.write_text("rules: 7\n")
    with pytest.raises(ConfigError, match=r"aiops\.yaml:1: rules"):
        ConfigFile(path).current()


def test_a_rule_of_the_same_name_replaces_a_shipped_one() -> None:
    shipped = default_rules()[0]
    config = parse_config(f"rules: [{{name: {shipped.name}, metric: other, value: 5}}]\n", "aiops.yaml")
    (rule,) = [rule for rule in config.active_rules if rule.name == shipped.name]
    assert rule.metric == "other"
    assert len(config.active_rules) == len(default_rules())
    assert parse_config("default_rules: false\n", "aiops.yaml").active_rules == ()


def test_the_digest_changes_with_any_setting() -> None:
    assert Config().digest == Config().digest
    assert parse_config("grouping: {window: 5m}\n", "aiops.yaml").digest != Config().digest


@given(
    amount=st.integers(0, 10_000), unit=st.sampled_from([("ms", 0.001), ("s", 1), ("m", 60), ("h", 3600), ("d", 86400)])
)
def test_durations_are_read_in_their_unit(amount: int, unit: tuple[str, float]) -> None:
    assert parse_duration(f"{amount}{unit[0]}") == pytest.approx(amount * unit[1])


@given(text=st.text(max_size=200))
def test_no_text_whatever_breaks_the_loader(text: str) -> None:
    try:
        assert isinstance(parse_config(text, "aiops.yaml"), Config)
    except ConfigError as error:
        assert all(problem.startswith("aiops.yaml") for problem in error.problems)
