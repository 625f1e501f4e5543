"""Alert rules of Prometheus: converted where ours mean the same, listed with the reason everywhere else."""

from __future__ import annotations

import operator
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aiops_assets.config import Rule, parse_config
from aiops_assets.detection.matching import matches
from aiops_assets.shadow.conversion import Conversion, convert, rule_yaml
from aiops_assets.shadow.judging import hosts_of
from aiops_assets.shadow.matchers import MAX_PATTERNS, NotExact, patterns_of
from aiops_assets.shadow.rule_files import (
    AlertRule,
    RuleFileError,
    parse_rules,
    prometheus_duration,
    read_rule_file,
    rules_of_api,
)

ONE_HOST = hosts_of([{"__name__": "up", "instance": "web-1:9100", "job": "node"}], None)


def one(expr: str, hosts: Any = ONE_HOST, **fields: Any) -> Conversion:
    return convert([AlertRule("Some", expr, "r.yml", 3, **fields)], hosts_of=hosts)


def rule(expr: str, **fields: Any) -> Rule:
    conversion = one(expr, **fields)
    assert not conversion.unconverted, conversion.unconverted[0].reason
    return conversion.converted[0].rule


def reason(expr: str, **fields: Any) -> str:
    conversion = one(expr, **fields)
    assert not conversion.converted, conversion.converted[0].rule
    return conversion.unconverted[0].reason


def meaning(made: Rule) -> dict[str, Any]:
    return made.model_dump(by_alias=True, exclude_defaults=True, exclude={"name", "severity"})


@pytest.mark.parametrize(
    ("expr", "fields"),
    [
        ("m > 5", {"metric": "m", "op": ">", "value": 5.0}),
        ("m >= 5e3", {"metric": "m", "value": 5000.0}),
        ("(m) < (-0.5)", {"metric": "m", "op": "<", "value": -0.5}),
        ("5 < m", {"metric": "m", "op": ">", "value": 5.0}),
        ('{__name__="m", a="b"} <= 1', {"metric": "m", "labels": {"a": ("b",)}, "op": "<=", "value": 1.0}),
        ("m * 100 > 90", {"metric": "m", "op": ">", "value": 0.9}),
        ("m / 1024 / 1024 > 3 * 2", {"metric": "m", "op": ">", "value": 6291456.0}),
        ("100 - m > 90", {"metric": "m", "op": "<", "value": 10.0}),
        ("100 * (1 - m) >= 90", {"metric": "m", "op": "<=", "value": 0.1}),
        ("-m > 5", {"metric": "m", "op": "<", "value": -5.0}),
        ("m > 2 ^ 10", {"metric": "m", "op": ">", "value": 1024.0}),
        ("up == 0", {"metric": "up", "op": "<=", "value": 0.0}),
        ("up != 1", {"metric": "up", "op": "<", "value": 1.0}),
        ("up{job='x'} == 1", {"metric": "up", "labels": {"job": ("x",)}, "value": 1.0}),
        ("1 - probe_success == 1", {"metric": "probe_success", "op": "<=", "value": 0.0}),
        ("errors_total != 0", {"metric": "errors_total", "op": ">", "value": 0.0}),
        ('m{a=~"x|y.*"} > 1', {"metric": "m", "labels": {"a": ("x", "y*")}, "op": ">", "value": 1.0}),
        ('m{a=""} > 1', {"metric": "m", "labels": {"a": ("",)}, "op": ">", "value": 1.0}),
        ('{__name__=~"node_.*"} > 1', {"metric": "node_*", "op": ">", "value": 1.0}),
        ("rate(e_total[5m]) > 0.5", {"kind": "rate", "metric": "e_total", "op": ">", "value": 0.5, "window": 300.0}),
        ("60 * rate(e_total[10m]) > 30", {"kind": "rate", "metric": "e_total", "op": ">", "value": 0.5}),
        ("increase(e_total[1m]) > 30", {"kind": "rate", "metric": "e_total", "op": ">", "value": 0.5, "window": 60.0}),
        ("delta(m[1h]) < -7200", {"kind": "rate", "metric": "m", "op": "<", "value": -2.0, "window": 3600.0}),
        (
            "predict_linear(free[6h], 4*3600) < 0",
            {"kind": "fill_up", "metric": "free", "op": "<=", "value": 0.0, "window": 21600.0},
        ),
        (
            "predict_linear(used[1h], 86400) / 100 > 0.9",
            {"kind": "fill_up", "metric": "used", "value": 90.0, "window": 3600.0, "horizon": 86400.0},
        ),
        (
            'absent(up{instance="web-1:9100"})',
            {"kind": "absence", "metric": "up", "for": 300.0, "labels": {"instance": ("web-1:9100",)}},
        ),
        ("absent(up) == 1", {"kind": "absence", "metric": "up", "for": 300.0}),
        ("absent_over_time(up[20m])", {"kind": "absence", "metric": "up", "for": 1200.0}),
    ],
)  # fmt: skip
def test_what_means_the_same_is_converted(expr: str, fields: dict[str, Any]) -> None:
    made = meaning(rule(expr))
    made["labels"] = dict(made.get("labels", {}))
    found = made if made["labels"] else {key: value for key, value in made.items() if key != "labels"}
    assert found == {key: value for key, value in fields.items() if (key, value) != ("op", ">=")}


def test_the_rest_of_a_rule_comes_along() -> None:
    source = AlertRule(
        "HostOutOfMemory90", "m > 5", "r.yml", 3, hold=90.0, labels={"severity": "page"},
        annotations={"summary": "short", "description": " long "},
    )  # fmt: skip
    (entry,) = convert([source]).converted
    assert (entry.rule.name, entry.rule.hold, entry.rule.severity) == ("host-out-of-memory-90", 90.0, "critical")
    assert entry.rule.description == "long"
    assert (entry.exactness, entry.notes) == ("exact", ())


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        ("m", "nothing is compared"),
        ("m == 3", "which values it can have is not known"),
        ("m != 3", "which values it can have is not known"),
        ("up == 2", "which values it can have is not known"),
        ("m > bool 3", "always fires"),
        ("a / b > 0.5", "between two vectors"),
        ("a > b", "compares two vectors"),
        ("1 > bool 2", "bool"),
        ("a > 1 and b > 2", "'and' joins"),
        ("a > 1 or b > 2", "'or' joins"),
        ("a > 1 unless b", "'unless' joins"),
        ("1 / m > 3", "divisor"),
        ("m / 0 > 3", "division by 0"),
        ("m * 0 > 3", "multiplied by 0"),
        ("m % 2 > 0", "'%'"),
        ("m ^ 2 > 4", "'^'"),
        ("m > 3 > 2", "'>' within the expression"),
        ("m offset 5m > 3", "offset"),
        ("m @ 100 > 3", "'@'"),
        ("m > Inf", "infinite"),
        ("m > 1e308 * 10", "beyond what a float"),
        ("sum(m) > 3", "the aggregation sum()"),
        ("sum by (job) (rate(e_total[5m])) > 3", "the aggregation sum()"),
        ("avg_over_time(m[5m]) > 3", "avg_over_time()"),
        ("irate(e_total[5m]) > 3", "irate()"),
        ("deriv(m[5m]) > 3", "deriv()"),
        ("time() - m > 3", "between two vectors"),
        ("rate(m[5m]) > 3", "no counter"),
        ("delta(e_total[5m]) > 3", "is a counter"),
        ('delta({__name__=~"e.*"}[5m]) > 3', "pattern of names"),
        ("rate(e_total[5m:1m]) > 3", "subquery"),
        ("rate(e_total[5m]) == 0", "'==' on rate()"),
        ("rate(e_total[500ms]) > 3", "shorter than a second"),
        ("predict_linear(m[1h], -60) < 0", "less than a second"),
        ("predict_linear(m[1h], 400 * 86400) < 0", "horizon"),
        ("predict_linear(m[1h], scalar(x)) < 0", "no constant"),
        ('m{a!="b"} > 1', "not what it is not"),
        ('m{a!~"b.*"} > 1', "not what it is not"),
        ('m{a=~".+"} > 1', "has no pattern"),
        ('m{a=~"b", a=~"b.*"} > 1', "two matchers"),
        ('m{a="x*"} > 1', "'*'"),
        ('{__name__=~"a|b"} > 1', "several metric names"),
        ('{a="b"} > 1', "no metric name"),
        ('m{a="b" or c="d"} > 1', "'or' between matchers"),
        ("absent(sum(up))", "of an expression"),
        ("absent(nothing)", "no host has it"),
        ("absent(up) > 1", "never fires"),
        ("vector(1) > 0", "vector()"),
        ("m > ", "cannot be parsed"),
        ("{{ .Values.expr }}", "cannot be parsed"),
    ],
)
def test_what_does_not_is_listed_with_the_reason(expr: str, text: str) -> None:
    assert text in reason(expr)


def test_keep_firing_for_and_absence_of_several_hosts_are_listed() -> None:
    assert "keep_firing_for" in reason("m > 3", keep_firing=60.0)
    two = hosts_of([{"__name__": "up", "instance": f"web-{n}:9100"} for n in range(2)], None)
    assert "all 2 hosts" in reason("absent(up)", hosts=two)
    assert rule('absent(up{instance="web-1:9100"})', hosts=two).kind == "absence"
    assert "the history is not known" in reason("absent(up)", hosts=None)


NUMBERS = st.integers(-1000, 1000).map(str) | st.floats(-1e6, 1e6).map(lambda x: f"{x:.3f}")
STEPS = st.lists(st.tuples(st.sampled_from("+-*/"), NUMBERS, st.booleans()), max_size=4)
OPERATORS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


@given(STEPS, st.sampled_from(sorted(OPERATORS)), NUMBERS, st.booleans(), st.lists(st.floats(-1e4, 1e4), min_size=1))
@settings(deadline=None)
def test_a_converted_comparison_says_the_same_of_every_value(
    steps: list[tuple[str, str, bool]], comparison: str, limit: str, flipped: bool, values: list[float]
) -> None:
    expr = "m"
    for sign, number, left in steps:
        expr = f"({number} {sign} {expr})" if left else f"({expr} {sign} {number})"
    conversion = one(f"{limit} {comparison} {expr}" if flipped else f"{expr} {comparison} {limit}")
    for source in conversion.unconverted:
        assert re.search(r"divisor|division by 0|multiplied by 0", source.reason)
    for entry in conversion.converted:
        assert entry.rule.value is not None
        for value in values:
            said = eval(expr.replace("m", f"({value!r})"))  # noqa: S307 - arithmetic made above
            assume(abs(said - float(limit)) > 1e-6 * max(1.0, abs(said), abs(float(limit))))
            assume(abs(value - entry.rule.value) > 1e-9 * max(1.0, abs(value)))
            theirs = OPERATORS[comparison](float(limit), said) if flipped else OPERATORS[comparison](said, float(limit))
            assert OPERATORS[entry.rule.op](value, entry.rule.value) == theirs


PIECES = st.sampled_from(
    ["a", "b", "web", "-", "1", "\\.", "\\-", ".*", "a?", "(b|c)", "(?:x|yz)?", "[0-2]", "[ab]", "\\d", "|", ".", "+"]
)


@given(st.lists(PIECES, max_size=6).map("".join), st.lists(st.text("abcwexyz012.-", max_size=6), min_size=5))
@settings(deadline=None)
def test_patterns_match_exactly_what_their_regular_expression_matches(expression: str, texts: list[str]) -> None:
    try:
        compiled = re.compile(expression)
    except re.error:
        return
    try:
        patterns = patterns_of(expression)
    except NotExact:
        return
    assert len(patterns) <= MAX_PATTERNS
    texts += [pattern.replace("*", filler) for pattern in patterns[:8] for filler in ("", "a", "0.-")]
    for text in texts:
        assert any(matches(pattern, text) for pattern in patterns) == (compiled.fullmatch(text) is not None)


@pytest.mark.parametrize(
    "expression", ["a+", ".", ".+", "a*", "(?i)a", "[^a]", "\\w", "a{2}", "(a", "a)", "[a", "a\\", "x*y", "\\*"]
)
def test_regular_expressions_beyond_patterns_are_refused(expression: str) -> None:
    with pytest.raises(NotExact):
        patterns_of(expression)


def test_too_many_patterns_are_refused() -> None:
    with pytest.raises(NotExact, match="more than 64"):
        patterns_of("[a-z][a-z]")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0), ("5m", 300.0), ("1h30m", 5400.0), ("1d", 86400.0), ("1w2d", 777600.0), ("500ms", 0.5),
        ("1m1s1ms", 61.001), ("1y", 31536000.0),
    ],
)  # fmt: skip
def test_durations_are_read_as_prometheus_writes_them(text: str, seconds: float) -> None:
    assert prometheus_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "m5", "5m1h", "1.5h", "-5m", "5 m", None, True, "5M"])
def test_other_durations_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        prometheus_duration(text)


RULES = """\
groups:
  - name: nodes
    rules:
      - record: job:errors:rate5m
        expr: sum by (job) (rate(errors_total[5m]))
      - alert: Down
        expr: up == 0
        for: 5m
        labels: {severity: critical, tier: 1}
      - alert: Down
        expr: up == 0
        labels: {severity: warning}
      - alert: Odd
        expr: m > 3
        for: soon
      - expr: m > 3
"""


def test_rules_are_read_with_their_lines() -> None:
    found = parse_rules(RULES, "rules.yml")
    assert [(rule.alert, rule.place) for rule in found.alerts] == [
        ("Down", "rules.yml:6"),
        ("Down", "rules.yml:10"),
        ("Odd", "rules.yml:13"),
        ("?", "rules.yml:16"),
    ]
    assert found.recording == 1
    assert (found.alerts[0].hold, found.alerts[0].labels) == (300.0, {"severity": "critical", "tier": "1"})
    conversion = convert(found.alerts)
    assert [entry.rule.name for entry in conversion.converted] == ["down", "down-warning"]
    assert [(entry.source.place, entry.reason) for entry in conversion.unconverted] == [
        ("rules.yml:13", "for: 'soon' is no duration such as 30s, 5m or 1h30m"),
        ("rules.yml:16", "alert: is required"),
    ]


def test_rules_of_kubernetes_and_of_several_documents_are_read() -> None:
    document = {"kind": "PrometheusRule", "spec": yaml.safe_load(RULES)}
    text = yaml.safe_dump({"kind": "ConfigMap"}) + "---\n" + yaml.safe_dump(document)
    assert len(parse_rules(text, "k8s.yml").alerts) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", r"r\.yml:2: not valid YAML"),
        ("a: 1", "no 'groups'"),
        ("groups: 3", r"r\.yml:1: groups: expected a list"),
    ],
)
def test_files_that_hold_no_rules_are_named(text: str, message: str) -> None:
    with pytest.raises(RuleFileError, match=message):
        parse_rules(text + "\n", "r.yml")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuleFileError, match="cannot be read"):
        read_rule_file(tmp_path / "none.yml")


def test_rules_of_the_running_server_are_read() -> None:
    data = {
        "groups": [
            {
                "name": "g",
                "file": "/etc/prometheus/r.yml",
                "rules": [
                    {"type": "recording", "name": "a:b", "query": "sum(x)"},
                    {
                        "type": "alerting",
                        "name": "Down",
                        "query": "up == 0",
                        "duration": 300,
                        "labels": {"severity": "page"},
                    },
                ],
            }
        ]
    }
    found = rules_of_api(data, "http://prom")
    assert found.recording == 1
    (alert,) = found.alerts
    assert (alert.alert, alert.expr, alert.hold, alert.place) == ("Down", "up == 0", 300.0, "/etc/prometheus/r.yml")


def test_converted_rules_can_be_pasted_into_aiops_yaml() -> None:
    exprs = ["up == 0", "rate(e_total[5m]) > 1", "predict_linear(m[1h], 7200) < 0", "absent(up)", 'm{a=~"x|y.*"} > 2']
    sources = [AlertRule(f"Alert{n}", expr, "r.yml", n, hold=60.0) for n, expr in enumerate(exprs)]
    conversion = convert(sources, hosts_of=ONE_HOST)
    config = parse_config(rule_yaml(conversion), "aiops.yaml")
    assert config.rules == tuple(entry.rule for entry in conversion.converted)
    assert len(config.rules) == len(exprs)


@given(st.lists(st.text(max_size=30), max_size=6), st.sampled_from(["warning", "", "p1"]))
@settings(deadline=None)
def test_names_are_unique_and_allowed_whatever_alerts_are_called(names: list[str], severity: str) -> None:
    sources = [AlertRule(name, "m > 1", "r.yml", 1, labels={"severity": severity}) for name in [*names, *names]]
    conversion = convert(sources)
    assert len({entry.rule.name for entry in conversion.converted}) == len(sources)
