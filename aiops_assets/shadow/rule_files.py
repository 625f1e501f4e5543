"""Alert rules as Prometheus keeps them: rule files, ``PrometheusRule`` objects of Kubernetes, ``/api/v1/rules``.

What belongs here: reading them, with the place at which each stands. What does not: what a rule means (``conversion``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_DURATION = re.compile(r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII)
_SECONDS = (365 * 86400.0, 7 * 86400.0, 86400.0, 3600.0, 60.0, 1.0, 0.001)


class RuleFileError(Exception):
    """A rule file cannot be read; the text names the file, the line and what is wrong."""


@dataclass(frozen=True, slots=True)
class AlertRule:
    """One alert rule as written. ``hold`` and ``keep_firing`` in seconds; ``line`` counts from 1, 0 when unknown."""

    alert: str
    expr: str
    file: str
    line: int
    group: str = ""
    hold: float = 0.0
    keep_firing: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    #: why it cannot even be read as a rule
    problem: str = ""

    @property
    def place(self) -> str:
        """File and line, for people."""
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The alert rules that were found, and how many recording rules stand beside them."""

    alerts: tuple[AlertRule, ...] = ()
    recording: int = 0

    def __add__(self, other: RuleSet) -> RuleSet:
        return RuleSet(self.alerts + other.alerts, self.recording + other.recording)


def prometheus_duration(text: object) -> float:
    """Seconds of ``5m``, ``1h30m``, ``0`` as Prometheus writes them.

    Raises:
        ValueError: it is no duration.
    """
    written = str(text).strip() if isinstance(text, str | int) and not isinstance(text, bool) else ""
    if written == "0":
        return 0.0
    match = _DURATION.fullmatch(written)
    if not written or match is None:
        raise ValueError(f"{str(text)[:40]!r} is no duration such as 30s, 5m or 1h30m")
    return sum(int(part) * seconds for part, seconds in zip(match.groups(), _SECONDS, strict=True) if part)


def read_rule_file(path: Path) -> RuleSet:
    """All rules of a file.

    Raises:
        RuleFileError: it cannot be read, is no YAML, or holds no ``groups``.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RuleFileError(f"{path}: cannot be read: {error}") from error
    return parse_rules(text, str(path))


def parse_rules(text: str, origin: str) -> RuleSet:
    """``read_rule_file`` for text; ``origin`` names it."""
    try:
        documents = [node for node in yaml.compose_all(text, Loader=yaml.SafeLoader) if node is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{origin}:{mark.line + 1}" if mark else origin
        raise RuleFileError(f"{place}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    found, seen = RuleSet(), False
    for document in documents:
        spec = _entry(document, "spec")
        groups = _entry(document, "groups") or (_entry(spec, "groups") if spec is not None else None)
        if groups is None:
            continue
        if not isinstance(groups, yaml.SequenceNode):
            raise RuleFileError(f"{origin}:{groups.start_mark.line + 1}: groups: expected a list")
        seen = True
        for group in groups.value:
            found += _group(group, origin)
    if not seen:
        raise RuleFileError(f"{origin}:1: no 'groups' with 'rules', as Prometheus rule files have them")
    return found


def rules_of_api(data: Mapping[str, Any], origin: str) -> RuleSet:
    """The rules in an answer of ``/api/v1/rules`` (its ``data``)."""
    alerts: list[AlertRule] = []
    recording = 0
    for group in data.get("groups") or ():
        for rule in group.get("rules") or ():
            if rule.get("type") == "recording":
                recording += 1
                continue
            alerts.append(
                AlertRule(
                    alert=str(rule.get("name", "")),
                    expr=str(rule.get("query", "")),
                    file=str(group.get("file") or origin),
                    line=0,
                    group=str(group.get("name", "")),
                    hold=float(rule.get("duration") or 0.0),
                    keep_firing=float(rule.get("keepFiringFor") or 0.0),
                    labels=_texts(rule.get("labels")),
                    annotations=_texts(rule.get("annotations")),
                )
            )
    return RuleSet(tuple(alerts), recording)


def _group(node: yaml.Node, origin: str) -> RuleSet:
    name, rules = _value(node, "name"), _entry(node, "rules")
    alerts: list[AlertRule] = []
    recording = 0
    for rule in rules.value if isinstance(rules, yaml.SequenceNode) else ():
        if _entry(rule, "record") is not None:
            recording += 1
            continue
        alerts.append(_alert(rule, origin, str(name or "")))
    return RuleSet(tuple(alerts), recording)


def _alert(node: yaml.Node, origin: str, group: str) -> AlertRule:
    line = (_entry(node, "alert") or node).start_mark.line + 1
    problems = [
        f"{name}: is required" for name in ("alert", "expr") if not isinstance(_value(node, name), str | int | float)
    ]
    times = {}
    for name in ("for", "keep_firing_for"):
        try:
            times[name] = prometheus_duration(_value(node, name) or "0")
        except ValueError as error:
            problems.append(f"{name}: {error}")
    return AlertRule(
        alert=str(_value(node, "alert") or "?"),
        expr=str(_value(node, "expr") or "").strip(),
        file=origin,
        line=line,
        group=group,
        hold=times.get("for", 0.0),
        keep_firing=times.get("keep_firing_for", 0.0),
        labels=_texts(_value(node, "labels")),
        annotations=_texts(_value(node, "annotations")),
        problem="; ".join(problems),
    )


def _entry(node: yaml.Node | None, name: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for key, value in _pairs(node) if key == name), None)


def _pairs(node: yaml.MappingNode) -> Iterator[tuple[object, yaml.Node]]:
    for key, value in node.value:
        yield getattr(key, "value", None), value


def _value(node: yaml.Node, name: str) -> Any:
    """A scalar as its text, a mapping of scalars as texts: ``labels: {tier: 1}`` means ``"1"`` to Prometheus."""
    found = _entry(node, name)
    if isinstance(found, yaml.ScalarNode):
        return None if found.tag == "tag:yaml.org,2002:null" else found.value
    if isinstance(found, yaml.MappingNode):
        return {str(key): value.value for key, value in _pairs(found) if isinstance(value, yaml.ScalarNode)}
    return None


def _texts(value: object) -> dict[str, str]:
    return {str(key): str(entry) for key, entry in value.items()} if isinstance(value, Mapping) else {}
