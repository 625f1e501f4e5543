"""The scenario language: a fleet and its load, the faults that befall it, and what is ordinary and no fault.

What belongs here: the models, the loader, the names of what ships. What does not: the parts that scenarios are made of
(``vocabulary``), the hosts that come of it (``fleet``) and what they send (``engine``).

A scenario is a YAML file::

    name: small
    title: Two web servers and a database whose disk fills
    duration: 30m
    services: {shop: {depends_on: [orders]}, orders: {}}
    hosts:
      web: {name: "web-{n}", count: 2, service: shop, profiles: [linux, web], depends_on: [db]}
      db: {name: "db-{n}", service: orders, profiles: [linux, postgres], interval: 10s}
    faults:
      - {id: disk, kind: disk_filling, target: db-1, start: 5m, ramp: 15m}
    benign:
      - {id: nightly, kind: backup, target: db, at: "02:00"}

Spans of time are written ``30s``, ``5m``, ``1h30m``, ``7d``; a number is seconds. Instants within a scenario count from
its start; ``at`` is a time of day (UTC) and comes every day, or on ``days`` only.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from aiops_assets.landing.segment import is_name
from aiops_assets.synthetic.storms.vocabulary import (
    ErrorHabit,
    Kind,
    LogHabit,
    Name,
    Part,
    Profile,
    ScenarioError,
    Seconds,
    Sender,
    Span,
    Spread,
    library,
    mapping,
    problems_of,
    read_yaml,
)

_FOLDER = "scenarios"
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MAX_HOSTS = 20_000


def _time_of_day(value: object) -> float:
    if isinstance(value, str) and (match := _CLOCK.fullmatch(value.strip())):
        return int(match[1]) * 3_600.0 + int(match[2]) * 60.0
    # YAML 1.1 reads 02:00 without quotes as a number to base 60.
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1_440:
        return value * 60.0
    raise ValueError(f"expected a time of day such as '02:30', got {value!r}")


TimeOfDay = Annotated[float, BeforeValidator(_time_of_day)]


class Load(Part):
    """How busy a service is: 1 on average, ``daily`` and ``weekly`` the amplitudes, ``peak`` the busiest hour (UTC).

    ``noise`` is shared by all hosts of the service, which is why they move together.
    """

    daily: float = Field(0.45, ge=0, lt=1)
    weekly: float = Field(0.15, ge=0, lt=1)
    peak: float = Field(14.0, ge=0, lt=24)
    noise: float = Field(0.04, ge=0)
    growth: float = 0.0


class Service(Part):
    """A service; its hosts are those of the groups that name it. ``growth`` of its load is a share a week."""

    depends_on: tuple[str, ...] = ()
    site: str | None = None
    load: Load = Load()
    release: str = "1.0.0"
    owner: str | None = None


class Overrides(Part):
    """What a scenario changes of a signal of a profile."""

    level: float | None = None
    load: float | None = None
    capacity: float | None = Field(None, gt=1)
    daily: float | None = None
    weekly: float | None = None
    noise: float | None = Field(None, ge=0)
    slow: float | None = Field(None, ge=0, le=1)
    tails: float | None = Field(None, ge=0, le=1)
    spikes: float | None = Field(None, ge=0)
    spike_size: float | None = None
    spread: float | None = Field(None, ge=0, le=0.9)
    growth: float | None = None
    most: float | None = None
    least: float | None = None
    quantum: float | None = Field(None, ge=0)


class HostGroup(Part):
    """Hosts or devices of one role. ``{n}`` (also ``{n:02d}``) in the name counts from 1.

    ``depends_on`` names groups, hosts and services. ``interval`` is that of the measurements; ``jitter`` the most by
    which a sample comes after the full interval; ``lost`` the share of samples that never come. With ``bmc`` a
    management controller is polled over Redfish under the same host name. Hosts stand in ``racks`` by turns.
    ``signals`` changes what profiles say, ``without`` leaves signals out. ``scales`` tells whether ``--scale``
    multiplies the count.
    """

    name: str = Field(min_length=1, max_length=80)
    count: int = Field(1, ge=1, le=MAX_HOSTS)
    service: str | None = None
    site: str | tuple[str, ...] | None = None
    racks: int = Field(4, ge=1)
    profiles: tuple[str, ...] = Field(min_length=1)
    sender: Sender = "telegraf"
    interval: Span = 10.0
    history_interval: Span | None = None
    jitter: Seconds = 0.0
    lost: float = Field(0.0005, ge=0, lt=0.5)
    depends_on: tuple[str, ...] = ()
    bmc: bool = False
    bmc_interval: Span = 60.0
    signals: dict[str, Overrides] = Field(default_factory=dict)
    without: tuple[str, ...] = ()
    tags: dict[str, str] = Field(default_factory=dict)
    scales: bool = True

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that its hosts stand in by turns."""
        return (self.site,) if isinstance(self.site, str) else self.site or ()


class Event(Part):
    """A fault, or something ordinary that looks like one. ``target`` names hosts, groups or services; with ``pick``
    only that many of those hosts, drawn with the seed.

    It happens at ``start`` (from the start of the scenario), or every day ``at`` a time of day (on ``days``), or with
    both once, at that time of day after the start. ``ramp``, ``lasts`` and
    ``recovery`` are the kind's unless told; without ``lasts`` it goes on to the end of the scenario. ``with`` sets
    parameters of the kind. ``incident`` joins faults that people would treat as one. ``caused_by`` names the fault or
    benign event behind it.
    """

    id: Name
    kind: str
    target: str | tuple[str, ...]
    pick: int | None = Field(None, ge=1)
    start: Seconds | None = None
    at: TimeOfDay | None = None
    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = ()
    ramp: Seconds | None = None
    lasts: Span | None = None
    recovery: Seconds | None = None
    strength: float = Field(1.0, gt=0)
    spread: Spread | None = None
    parameters: dict[str, float] = Field(default_factory=dict, alias="with")
    incident: Name | None = None
    caused_by: str | None = None
    ticket: bool = True
    title: str | None = None
    release: str | None = None
    previous: str | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.target,) if isinstance(self.target, str) else self.target

    @model_validator(mode="after")
    def _has_a_time(self) -> Event:
        if self.start is None and self.at is None:
            raise ValueError("start, at: at least one of them is needed")
        if self.days and (self.at is None or self.start is not None):
            raise ValueError("days: only together with at, and without start")
        return self

    @property
    def weekdays(self) -> frozenset[int]:
        """Monday is 0; all of them when none are named."""
        return frozenset(_DAYS.index(day) for day in self.days or _DAYS)


class History(Part):
    """The ordinary past before the start, delivered as history: ``span`` long, sampled every ``interval``. ``logs``
    tells whether log lines and exceptions are part of it."""

    span: Span = 604_800.0
    interval: Span = 60.0
    logs: bool = True


class Scenario(Part):
    """A whole scenario; see the module. ``flush`` is how often senders send; ``fleet`` a shipped fleet (small, shop,
    estate) whose services and hosts it takes over, and may change entry by entry."""

    name: Name
    title: str
    description: str = ""
    duration: Span
    history: History | None = None
    flush: Span = 10.0
    seed: int = 1
    prefix: str | None = Field(None, pattern=r"^[a-z0-9][a-z0-9-]*-$")
    source: str | None = None
    environment: str = "synthetic"
    fleet: str | None = None
    services: dict[str, Service] = Field(default_factory=dict)
    hosts: dict[Name, HostGroup] = Field(min_length=1)
    profiles: dict[Name, Profile] = Field(default_factory=dict)
    kinds: dict[Name, Kind] = Field(default_factory=dict)
    faults: tuple[Event, ...] = ()
    benign: tuple[Event, ...] = ()
    scale: int = Field(1, ge=1, le=1_000)

    @property
    def host_prefix(self) -> str:
        """What every name of a host or service begins with."""
        return self.prefix or f"{self.name}-"

    @property
    def source_name(self) -> str:
        """The source of its deliveries."""
        return self.source or f"storm-{self.name}"

    @property
    def events(self) -> tuple[Event, ...]:
        """Faults, then benign events."""
        return (*self.faults, *self.benign)

    def kind(self, name: str) -> Kind:
        """A kind of its own or of the library."""
        return self.kinds[name] if name in self.kinds else library().kinds[name]

    def profile(self, name: str) -> Profile:
        """A profile of its own or of the library."""
        return self.profiles[name] if name in self.profiles else library().profiles[name]

    def scaled(self, factor: int) -> Scenario:
        """The same with ``factor`` times as many hosts in groups that scale."""
        return self.model_copy(update={"scale": factor})

    def logs_of(self, group: HostGroup) -> list[LogHabit]:
        """Log habits of the profiles of a group."""
        return [habit for name in group.profiles for habit in self.profile(name).logs]

    def errors_of(self, group: HostGroup) -> list[ErrorHabit]:
        """Error habits of the profiles of a group."""
        return [habit for name in group.profiles for habit in self.profile(name).errors]

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Scenario:
        problems = [*self._unknown_names(), *self._wrong_times()]
        if not is_name(self.source_name):
            problems.append(f"source: {self.source_name!r} is no name of a source")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _unknown_names(self) -> list[str]:
        profiles = {**library().profiles, **self.profiles}
        kinds = {**library().kinds, **self.kinds}
        problems = []
        for name, group in self.hosts.items():
            place = f"hosts.{name}"
            problems += [_unknown(f"{place}.profiles", one, profiles) for one in group.profiles if one not in profiles]
            if group.service is not None and group.service not in self.services:
                problems.append(_unknown(f"{place}.service", group.service, self.services))
            known = {signal for one in group.profiles if one in profiles for signal in profiles[one].signals}
            if group.bmc and "bmc" in profiles:
                known |= set(profiles["bmc"].signals)
            for field, used in (("signals", tuple(group.signals)), ("without", group.without)):
                problems += [_unknown(f"{place}.{field}", one, known) for one in used if one not in known]
            if group.count > 1 and "{n" not in group.name:
                problems.append(f"{place}.name: {group.name!r} needs {{n}}, there are {group.count} hosts")
            if group.jitter >= group.interval:
                problems.append(f"{place}.jitter: must be less than the interval")
        names = self._names()
        for name, group in self.hosts.items():
            problems += [_unknown(f"hosts.{name}.depends_on", o, names) for o in group.depends_on if o not in names]
        for name, service in self.services.items():
            problems += [
                _unknown(f"services.{name}.depends_on", o, names) for o in service.depends_on if o not in names
            ]
        served = {group.service for group in self.hosts.values()} | set(self.hosts)
        seen: set[str] = set()
        for field, events in (("faults", self.faults), ("benign", self.benign)):
            for event in events:
                place = f"{field}.{event.id}"
                if event.id in seen:
                    problems.append(f"{place}: there are two of this id")
                seen.add(event.id)
                problems += [_unknown(f"{place}.target", one, names) for one in event.targets if one not in names]
                problems += [
                    f"{place}.target: no hosts belong to the service {one!r}"
                    for one in event.targets
                    if one in self.services and one not in served
                ]
                if event.kind not in kinds:
                    problems.append(_unknown(f"{place}.kind", event.kind, kinds))
                    continue
                allowed = kinds[event.kind].parameters
                problems += [_unknown(f"{place}.with", one, allowed) for one in event.parameters if one not in allowed]
                if kinds[event.kind].benign != (field == "benign"):
                    where = "benign" if kinds[event.kind].benign else "faults"
                    problems.append(f"{place}.kind: {event.kind} belongs under {where}")
        ids = {event.id for event in self.events}
        problems += [
            _unknown(f"{event.id}.caused_by", event.caused_by, ids)
            for event in self.events
            if event.caused_by is not None and event.caused_by not in ids
        ]
        return problems

    def _wrong_times(self) -> list[str]:
        return [
            f"{event.id}.start: lies after the end of the scenario ({self.duration:g} s)"
            for event in self.events
            if event.start is not None and event.start >= self.duration
        ]

    def _names(self) -> set[str]:
        hosts = {
            group.name.format(n=number)
            for group in self.hosts.values()
            for number in range(1, group.count * (self.scale if group.scales else 1) + 1)
        }
        return {*hosts, *self.hosts, *self.services}


def _unknown(place: str, name: str, allowed: object) -> str:
    listed = sorted(allowed)  # type: ignore[call-overload]
    shown = ", ".join(listed[:40]) + (" …" if len(listed) > 40 else "")
    return f"{place}: unknown {name!r}; allowed: {shown or 'none'}"


def shipped() -> list[str]:
    """Names of the scenarios that ship with the product, sorted."""
    folder = resources.files("aiops_assets.synthetic.storms").joinpath(_FOLDER)
    return sorted(place.name.removesuffix(".yaml") for place in folder.iterdir() if place.name.endswith(".yaml"))


def source_text(name: str) -> str:
    """The YAML of a shipped scenario.

    Raises:
        ScenarioError: none of this name ships.
    """
    if name not in shipped():
        raise ScenarioError([f"scenario {name!r}: allowed are the path of a YAML file and {', '.join(shipped())}"])
    folder = resources.files("aiops_assets.synthetic.storms").joinpath(_FOLDER)
    return folder.joinpath(f"{name}.yaml").read_text("utf-8")


def load_scenario(name_or_path: str | Path) -> Scenario:
    """A shipped scenario by its name, or one of your own by its path.

    Raises:
        ScenarioError: with a line for every mistake.
    """
    path = Path(name_or_path)
    if isinstance(name_or_path, Path) or path.suffix in {".yaml", ".yml"} or path.is_file():
        return parse_scenario(read_yaml(path), str(path))
    return parse_scenario(mapping(source_text(str(name_or_path)), f"scenario {name_or_path}"), str(name_or_path))


def parse_scenario(document: dict[str, Any], origin: str = "scenario") -> Scenario:
    """A scenario from what stands in its YAML; ``origin`` is named in errors.

    Raises:
        ScenarioError: with a line for every mistake.
    """
    try:
        return Scenario.model_validate(_with_fleet(document, origin))
    except ValidationError as error:
        lines = problems_of(error, origin, Scenario)
        raise ScenarioError([part for line in lines for part in _parted(line, origin)]) from error


def _with_fleet(document: dict[str, Any], origin: str) -> dict[str, Any]:
    """The scenario with services and hosts of the shipped fleet it names; its own entries change those of the fleet."""
    name = document.get("fleet")
    if name is None:
        return document
    folder = resources.files("aiops_assets.synthetic.storms").joinpath("library", "fleets")
    known = sorted(place.name.removesuffix(".yaml") for place in folder.iterdir() if place.name.endswith(".yaml"))
    if name not in known:
        raise ScenarioError([f"{origin}: fleet: unknown {name!r}; allowed: {', '.join(known)}"])
    fleet = mapping(folder.joinpath(f"{name}.yaml").read_text("utf-8"), f"fleet {name}")
    merged = dict(document)
    for field in ("services", "hosts"):
        own = document.get(field) or {}
        if not isinstance(own, dict):
            continue
        both = dict(fleet.get(field, {}))
        for key, entry in own.items():
            both[key] = {**both[key], **entry} if isinstance(entry, dict) and key in both else entry
        merged[field] = both
    return merged


def _parted(line: str, origin: str) -> list[str]:
    """Mistakes that were found together, each on a line of its own."""
    head = f"{origin}: (the whole): "
    if not line.startswith(head):
        return [line]
    return [f"{origin}: {part}" for part in line.removeprefix(head).split("\n") if part]
