"""``--set``: single parameters of rules and of the statistics, checked by the models of ``aiops.yaml``.

What belongs here: reading ``name.parameter=value`` and putting it into a configuration. What does not: any knowledge of
what a parameter means.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from aiops_assets.config import Config, ConfigError, Rule, default_rules

#: parts of a configuration that have parameters of their own
_SECTIONS = ("statistics", "grouping")


def apply(config: Config, settings: Iterable[str]) -> Config:
    """A configuration with parameters changed, one after the other.

    Args:
        settings: each ``NAME.PARAMETER=VALUE``; NAME is a rule (shipped ones too), ``statistics`` or ``grouping``,
            VALUE is written as in ``aiops.yaml``.

    Raises:
        ConfigError: with a line for each mistake: the name, the field and what is allowed.
    """
    changes: dict[str, dict[str, Any]] = {}
    places: dict[str, str] = {}
    problems: list[str] = []
    names = _rule_names(config)
    for text in settings:
        try:
            name, parameter, value = _read(text, names)
        except ValueError as error:
            problems.append(f"--set {text}: {error}")
            continue
        changes.setdefault(name, {})[parameter] = value
        places[name] = text
    for name, values in changes.items():
        try:
            config = _with(config, name, values)
        except ValidationError as error:
            problems += [_line(places[name], name, values, item) for item in error.errors(include_url=False)]
    if problems:
        raise ConfigError(problems)
    return config


def _read(text: str, names: list[str]) -> tuple[str, str, Any]:
    target, equals, written = text.partition("=")
    target = target.strip()
    if not equals or "." not in target:
        raise ValueError("write NAME.PARAMETER=VALUE, for example cpu-saturated.value=0.9 or statistics.severity=error")
    known = sorted((name for name in (*names, *_SECTIONS) if target.startswith(f"{name}.")), key=len)
    if not known:
        name = target.rpartition(".")[0]
        raise ValueError(f"there is no rule {name!r}; there are {', '.join((*_SECTIONS, *names))}")
    parameter = target.removeprefix(f"{known[-1]}.")
    try:
        value = yaml.safe_load(written)
    except yaml.YAMLError as error:
        raise ValueError(f"{written!r} is no YAML value: {getattr(error, 'problem', error)}") from error
    return known[-1], parameter, value


def _rule_names(config: Config) -> list[str]:
    own = {rule.name for rule in config.rules}
    shipped = [rule.name for rule in default_rules() if rule.name not in own] if config.default_rules else []
    return [*shipped, *own]


def _with(config: Config, name: str, values: dict[str, Any]) -> Config:
    if name in _SECTIONS:
        section: BaseModel = getattr(config, name)
        content = section.model_dump(mode="json", by_alias=True, exclude_unset=True) | values
        return config.model_copy(update={name: type(section).model_validate(content)})
    own = {rule.name: rule for rule in config.rules}
    rule = own.get(name) or next(rule for rule in default_rules() if rule.name == name)
    changed = Rule.model_validate(rule.model_dump(mode="json", by_alias=True, exclude_unset=True) | values)
    return config.model_copy(update={"rules": tuple((own | {name: changed}).values())})


def _line(text: str, name: str, values: dict[str, Any], item: Any) -> str:
    field = ".".join(str(part) for part in item["loc"])
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        model: type[BaseModel] = type(getattr(Config(), name)) if name in _SECTIONS else Rule
        allowed = ", ".join(entry.alias or known for known, entry in model.model_fields.items())
        message = f"no such parameter; there are {allowed}"
    shown = next((f"--set {name}.{key}={value}" for key, value in values.items() if key == field), f"--set {text}")
    return f"{shown}: {field + ': ' if field else ''}{message}"
