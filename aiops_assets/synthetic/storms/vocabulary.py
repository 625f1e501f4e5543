"""What a scenario is written with: spans of time, signals and how senders write them, habits of logs, kinds of faults.

What belongs here: those parts, which the shipped library (``library/*.yaml``) and every scenario share, and the reading
of YAML with errors that name the file, the field and what is allowed. What does not: fleets and faults of a scenario
(``scenario``) and what becomes of them (``engine``).
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_NAME = r"^[a-z][a-z0-9_.-]{0,62}$"


class ScenarioError(ValueError):
    """A scenario cannot be used; ``problems`` are lines that name file, field and what is allowed."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def seconds_of(value: object) -> float:
    """Seconds of a number, or of text such as ``90s``, ``1h30m``, ``7d``.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        text = value.strip().replace(" ", "")
        parts = _SPAN.findall(text)
        if parts and "".join(number + unit for number, unit in parts) == text:
            return sum(float(number) * _SECONDS[unit] for number, unit in parts)
    raise ValueError(f"expected a span of time such as 30s, 5m, 1h30m or 7d, got {value!r}")


Seconds = Annotated[float, BeforeValidator(seconds_of)]
Span = Annotated[float, BeforeValidator(seconds_of), Field(gt=0)]
Name = Annotated[str, Field(pattern=_NAME)]
#: a number, or ``$parameter`` of the kind
Amount = Annotated[str, Field(pattern=r"^\$[a-z_]+$")] | float

Sender = Literal["telegraf", "collected", "snmp", "redfish"]
#: where an effect is felt: where the fault is; what needs that, along dependencies; what that needs; the other hosts of
#: its rack, of its group, of its service, of its site
Where = Literal["root", "dependents", "dependencies", "rack", "group", "service", "site"]
#: how a value is changed, see ``Effect``
Primitive = Literal["scale", "add", "toward", "noise", "freeze", "silence", "skew", "restart"]
#: how an effect grows from 0 to 1 over the ramp; ``flap`` and ``sawtooth`` go on while it lasts
Shape = Literal["linear", "step", "exponential", "sigmoid", "flap", "sawtooth"]
Severity = Literal["debug", "info", "notice", "warning", "err", "crit", "alert", "emerg"]


class Part(BaseModel):
    """Anything of a scenario: unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Wire(Part):
    """A field of Telegraf's line protocol made from a signal: ``value * factor + offset``.

    ``total`` sends the integral over time instead, a counter that wraps to zero when the host restarts.
    """

    measurement: str
    field: str
    tags: dict[str, str] = {}
    factor: float = 1.0
    offset: float = 0.0
    digits: int = Field(4, ge=0, le=9)
    integer: bool = False
    total: bool = False


class Point(Part):
    """A point of a collector's document made from a signal, canonical name and unit: ``value * factor + offset``."""

    metric: str
    unit: str = "1"
    kind: Literal["gauge", "rate", "counter", "ratio"] = "gauge"
    labels: dict[str, str] = {}
    factor: float = 1.0
    offset: float = 0.0
    digits: int = Field(6, ge=0, le=9)


class Signal(Part):
    """One quantity of a host. Amplitudes and deviations are relative to ``level``.

    ``load`` is by how much it follows the load of its service (1: in proportion); ``capacity`` is the multiple of the
    usual load at which it would grow without bounds, as queues do. ``noise`` is a standard deviation, of whose variance
    the part ``slow`` wanders over minutes to hours; ``tails`` lifts large deviations. ``spikes`` come so often a day,
    so large. ``spread`` is by how much hosts differ.
    """

    level: float
    load: float = 0.0
    capacity: float | None = Field(None, gt=1.0)
    daily: float = 0.0
    weekly: float = 0.0
    noise: float = Field(0.03, ge=0)
    slow: float = Field(0.5, ge=0, le=1)
    tails: float = Field(0.05, ge=0, le=1)
    spikes: float = Field(0.0, ge=0)
    spike_size: float = 1.0
    spread: float = Field(0.08, ge=0, le=0.9)
    growth: float = 0.0
    least: float = 0.0
    most: float | None = None
    quantum: float = Field(0.0, ge=0)
    telegraf: tuple[Wire, ...] = ()
    collected: tuple[Point, ...] = ()

    @model_validator(mode="after")
    def _is_sent(self) -> Signal:
        if not self.telegraf and not self.collected:
            raise ValueError("telegraf, collected: at least one of them says how the signal is sent")
        return self


class Line(Part):
    """A text that a log habit or a fault writes; ``{host}``, ``{service}``, ``{peer}``, ``{n}``, ``{ms}``, ``{hex}``,
    ``{user}`` and ``{path}`` are filled in."""

    text: str
    severity: Severity = "info"
    weight: float = Field(1.0, gt=0)


class LogHabit(Part):
    """Lines that an app of every host writes: ``rate`` a second and host, in proportion to the load by ``load``."""

    app: str = Field(pattern=r"^[!-~]{1,48}$")
    rate: float = Field(gt=0)
    load: float = 1.0
    facility: int = Field(1, ge=0, le=23)
    lines: tuple[Line, ...] = Field(min_length=1)


class Raised(Part):
    """An exception as an SDK reports it; texts are filled in as those of lines."""

    type: str
    value: str
    culprit: str = ""
    level: Literal["warning", "error", "fatal"] = "error"


class ErrorHabit(Part):
    """Exceptions that applications report anyway: ``rate`` a second and host."""

    rate: float = Field(gt=0)
    load: float = 1.0
    exceptions: tuple[Raised, ...] = Field(min_length=1)


class Profile(Part):
    """What hosts of a role measure and write."""

    signals: dict[Name, Signal] = {}
    logs: tuple[LogHabit, ...] = ()
    errors: tuple[ErrorHabit, ...] = ()


class Spread(Part):
    """How a fault travels along dependencies: later and weaker with every hop."""

    hops: int = Field(2, ge=0, le=6)
    delay: Seconds = 20.0
    attenuation: float = Field(0.6, gt=0, le=1)


class Effect(Part):
    """What a fault does to a signal where it is felt, scaled by its progress p (0 to 1) and by the attenuation.

    ``scale`` multiplies by up to ``value``; ``add`` adds up to it; ``toward`` moves to it, all the way at p = 1;
    ``noise`` multiplies the deviation of the noise; ``freeze`` holds the value of the beginning; ``silence`` sends
    nothing; ``restart`` sets counters to zero when it begins; ``skew`` shifts the host's clock by up to ``value``
    seconds. The signal ``load`` is the load itself, ``*`` stands for all signals. The effect begins when the fault has
    progressed to ``begins``; with ``shape`` flap it is there for ``duty`` of every ``period``, with sawtooth it grows
    and drops once a ``period``.
    """

    to: Where = "root"
    signal: str | tuple[str, ...]
    do: Primitive
    value: Amount = 1.0
    shape: Shape | None = None
    begins: float = Field(0.0, ge=0, lt=1)
    period: Span = 120.0
    duty: float = Field(0.5, gt=0, lt=1)

    @property
    def signals(self) -> tuple[str, ...]:
        return (self.signal,) if isinstance(self.signal, str) else self.signal


class LogEffect(Part):
    """Lines that a fault makes an app write, ``rate`` a second and host at full progress. With ``once`` one line when
    it begins; with ``mutes`` the app's ordinary lines stop."""

    to: Where = "root"
    app: str = Field(pattern=r"^[!-~]{1,48}$")
    facility: int = Field(3, ge=0, le=23)
    rate: float = Field(0.5, ge=0)
    begins: float = Field(0.0, ge=0, lt=1)
    once: bool = False
    lines: tuple[Line, ...] = Field(min_length=1)


class ErrorEffect(Part):
    """Exceptions that a fault makes applications report, ``rate`` a second and host at full progress."""

    to: Where = "root"
    rate: float = Field(0.2, gt=0)
    begins: float = Field(0.0, ge=0, lt=1)
    exceptions: tuple[Raised, ...] = Field(min_length=1)


class HardwareEvent(Part):
    """A Redfish event when the fault begins, and one when it ends."""

    message_id: str
    severity: Literal["OK", "Warning", "Critical"] = "Critical"
    message: str
    origin: str = "/redfish/v1/Chassis/1"
    cleared: str | None = None
    cleared_message: str = "The condition is gone."


class Trap(Part):
    """An SNMP notification when the fault begins (at every turn of a flap), and one when it ends."""

    trap: str = Field(pattern=r"^[0-9.]+$")
    cleared: str | None = Field(None, pattern=r"^[0-9.]+$")
    varbinds: tuple[tuple[str, str, int | str], ...] = ()


class Change(Part):
    """A change event ``before`` the fault begins to show, as a pipeline or an administrator reports it."""

    kind: Literal["deploy", "config", "reboot", "firmware", "other"] = "deploy"
    title: str
    actor: str = "pipeline"
    before: Seconds = 0.0


class Ticket(Part):
    """What people open ``after`` the fault shows, in their own words."""

    after: Seconds = 420.0
    title: str
    description: str
    category: str = "software"
    group: str = "Service Desk"
    impact: int = Field(2, ge=1, le=3)
    urgency: int = Field(2, ge=1, le=3)
    resolution: str = "Service restored."


class Kind(Part):
    """A kind of fault or of ordinary event: its effects, and the traces it leaves beside metrics."""

    title: str
    cause: str
    benign: bool = False
    parameters: dict[Annotated[str, Field(pattern=r"^[a-z_]+$")], float] = {}
    ramp: Seconds = 60.0
    recovery: Seconds = 60.0
    lasts: Seconds | None = None
    shape: Shape = "linear"
    spread: Spread = Spread()
    effects: tuple[Effect, ...] = ()
    logs: tuple[LogEffect, ...] = ()
    errors: tuple[ErrorEffect, ...] = ()
    hardware: tuple[HardwareEvent, ...] = ()
    traps: tuple[Trap, ...] = ()
    changes: tuple[Change, ...] = ()
    ticket: Ticket | None = None

    @model_validator(mode="after")
    def _knows_its_parameters(self) -> Kind:
        for number, effect in enumerate(self.effects):
            if isinstance(effect.value, str) and effect.value[1:] not in self.parameters:
                known = ", ".join(f"${name}" for name in self.parameters) or "none"
                raise ValueError(f"effects.{number}.value: unknown parameter {effect.value}; allowed: {known}")
        return self


class Library(Part):
    """Profiles and kinds by name."""

    profiles: dict[Name, Profile] = {}
    kinds: dict[Name, Kind] = {}


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ScenarioError: it cannot be read, is no YAML, or no mapping.
    """
    try:
        return mapping(path.read_text("utf-8"), str(path))
    except OSError as error:
        raise ScenarioError([f"{path}: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ScenarioError([f"{path}: not UTF-8: {error}"]) from error


def mapping(text: str, origin: str) -> dict[str, Any]:
    """The mapping in a YAML text; ``origin`` is named in errors."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ScenarioError([f"{origin}: not YAML: {' '.join(str(error).split())}"]) from error
    if not isinstance(found, dict):
        raise ScenarioError([f"{origin}: expected a mapping of fields, see `aiops storm show bad-deploy --yaml`"])
    return found


def problems_of(error: ValidationError, origin: str, known: type[BaseModel]) -> list[str]:
    """A line for every mistake: file, field, what is wrong, and the allowed fields where one is unknown."""
    lines = []
    for entry in error.errors(include_url=False):
        place = ".".join(str(part) for part in entry["loc"]) or "(the whole)"
        text = entry["msg"].removeprefix("Value error, ")
        if entry["type"] == "extra_forbidden":
            text = f"unknown field; allowed: {', '.join(_fields(known, entry['loc'][:-1]))}"
        elif entry["type"] == "missing":
            text = "is required"
        given = entry.get("input")
        shown = f" (got {given!r})" if isinstance(given, str | int | float) and "got" not in text else ""
        lines.append(f"{origin}: {place}: {text}{shown}")
    return lines


def _fields(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """The fields of the model that stands at a place within another."""
    found = model
    for part in place:
        inner = found.model_fields.get(str(part))
        if inner is not None:
            found = _model_in(inner.annotation) or found
    return sorted(found.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = [_model_in(part) for part in getattr(annotation, "__args__", ())]
    return next((model for model in inner if model is not None), None)


@lru_cache(maxsize=1)
def library() -> Library:
    """The profiles and kinds that ship with the product."""
    parts: dict[str, Any] = {}
    folder = resources.files("aiops_assets.synthetic.storms").joinpath("library")
    for name in ("profiles", "kinds", "benign"):
        place = folder.joinpath(f"{name}.yaml")
        for field, entries in mapping(place.read_text("utf-8"), f"library/{name}.yaml").items():
            parts.setdefault(field, {}).update(entries)
    try:
        return Library.model_validate(parts)
    except ValidationError as error:
        raise ScenarioError(problems_of(error, "library", Library)) from error
