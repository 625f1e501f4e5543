"""The hosts of a scenario, what they stand on and what stands on them, and the streams of samples they send.

What belongs here: names, numbers, and the graph of dependencies. What does not: values (``course``) and bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from aiops_assets.synthetic.storms.scenario import HostGroup, Load, Scenario
from aiops_assets.synthetic.storms.vocabulary import Sender, Signal, Where

BMC = "bmc"
#: a host that needs a larger group needs so many of its hosts, those of its own site where there are any
MOST_NEEDED = 12


@dataclass(frozen=True, slots=True)
class Host:
    """One host or device. ``position`` is its number in the fleet, ``number`` that in its group (from 1)."""

    position: int
    name: str
    plain: str
    group: str
    number: int
    service: str | None
    site: str | None
    rack: int


@dataclass(frozen=True, slots=True)
class Stream:
    """Samples that all hosts of a group send together. Times are in microseconds; hosts keep the fleet's order."""

    group: str
    sender: Sender
    interval: int
    history_interval: int
    jitter: int
    lost: float
    signals: Mapping[str, Signal]
    hosts: tuple[Host, ...]
    load: Load
    service: str | None
    tags: Mapping[str, str]
    #: the first of the streams of its group, to which the group's logs and errors belong
    main: bool

    @property
    def first(self) -> int:
        """The position of its first host; the others follow."""
        return self.hosts[0].position

    @property
    def name(self) -> str:
        """Which stream it is."""
        return f"{self.group}/{self.sender}"

    @property
    def series(self) -> int:
        """How many series it holds, polls of devices included."""
        wires = sum(
            len(signal.telegraf) or len(signal.collected) if self.sender == "telegraf" else len(signal.collected)
            for signal in self.signals.values()
        )
        return len(self.hosts) * (wires + (2 if self.sender in {"snmp", "redfish"} else 0))


class Fleet:
    """Hosts in order of their groups, the dependencies among them, and their streams."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.prefix = scenario.host_prefix
        hosts: list[Host] = []
        self._named: dict[str, list[int]] = {}
        self._depends: list[tuple[str, ...]] = []
        self._needed_by: dict[str, list[int]] = {}
        self._near: dict[tuple[str, str | None], list[int]] = {}
        for name, group in scenario.hosts.items():
            for number in range(1, group.count * (scenario.scale if group.scales else 1) + 1):
                host = self._host(name, group, number, len(hosts))
                hosts.append(host)
                for key in {host.plain, name, *((group.service,) if group.service else ())}:
                    self._named.setdefault(key, []).append(host.position)
                needs = group.depends_on
                if group.service:
                    needs = (*needs, *scenario.services[group.service].depends_on)
                self._depends.append(tuple(dict.fromkeys(needs)))
                for key in self._depends[-1]:
                    self._needed_by.setdefault(key, []).append(host.position)
        self.hosts: tuple[Host, ...] = tuple(hosts)

    def _host(self, group_name: str, group: HostGroup, number: int, position: int) -> Host:
        plain = group.name.format(n=number)
        sites = group.sites or ((self.scenario.services[group.service].site,) if group.service else (None,))
        site = sites[(number - 1) % len(sites)]
        rack = (number - 1) // len(sites) % group.racks + 1
        return Host(position, self.named(plain), plain, group_name, number, group.service, site, rack)

    def named(self, plain: str) -> str:
        """The full name of a host or service."""
        return plain if plain.startswith(self.prefix) else self.prefix + plain

    def positions(self, names: Iterable[str]) -> list[int]:
        """Positions of hosts that are named, or belong to a group or service that is."""
        return sorted({position for name in names for position in self._named.get(name, ())})

    def group_of(self, host: Host) -> HostGroup:
        """The declaration of a host's group."""
        return self.scenario.hosts[host.group]

    def needs(self, position: int) -> set[int]:
        """Hosts that a host needs directly."""
        return {other for key in self._depends[position] for other in self._needed(key, position)} - {position}

    def _needed(self, key: str, position: int) -> Sequence[int]:
        """Those hosts of a group or service that a host needs: all, or its share of a large one."""
        members = self._named[key]
        if len(members) <= MOST_NEEDED:
            return members
        site = self.hosts[position].site
        if (key, site) not in self._near:
            near = [other for other in members if self.hosts[other].site == site]
            self._near[key, site] = near or members
        near = self._near[key, site]
        first = position * MOST_NEEDED % len(near)
        return [near[(first + number) % len(near)] for number in range(min(MOST_NEEDED, len(near)))]

    def needed_by(self, position: int) -> set[int]:
        """Hosts that need a host directly."""
        host = self.hosts[position]
        keys = (host.plain, host.group, *((host.service,) if host.service else ()))
        return {
            other for key in keys for other in self._needed_by.get(key, ()) if position in self._needed(key, other)
        } - {position}

    def reach(self, roots: Sequence[int], where: Where, hops: int) -> dict[int, int]:
        """Position → hop of the hosts where an effect is felt; 0 for everything that is not along dependencies."""
        if where == "root":
            return dict.fromkeys(roots, 0)
        if where in {"dependents", "dependencies"}:
            step = self.needed_by if where == "dependents" else self.needs
            found: dict[int, int] = {}
            edge = set(roots)
            for hop in range(1, hops + 1):
                edge = {other for position in edge for other in step(position)} - found.keys() - set(roots)
                found |= dict.fromkeys(sorted(edge), hop)
            return found
        keys = {self._scope(self.hosts[position], where) for position in roots}
        return {
            host.position: 0
            for host in self.hosts
            if host.position not in roots and (scope := self._scope(host, where)) is not None and scope in keys
        }

    @staticmethod
    def _scope(host: Host, where: Where) -> tuple[object, ...] | None:
        if where == "group":
            return (host.group,)
        if where == "service":
            return (host.service,) if host.service else None
        return (host.site,) if where == "site" else (host.site, host.rack)

    @cached_property
    def streams(self) -> tuple[Stream, ...]:
        """All streams, in the order of their groups."""
        made = []
        for name, group in self.scenario.hosts.items():
            hosts = tuple(self.hosts[position] for position in self._named[name])
            # A group may bear the name of a service or a host as well; only its own hosts count.
            hosts = tuple(host for host in hosts if host.group == name)
            made.append(self._stream(name, group, hosts, group.profiles, group.sender, group.interval))
            if group.bmc:
                made.append(self._stream(name, group, hosts, (BMC,), "redfish", group.bmc_interval))
        return tuple(made)

    def _stream(
        self,
        name: str,
        group: HostGroup,
        hosts: tuple[Host, ...],
        profiles: Sequence[str],
        sender: Sender,
        interval: float,
    ) -> Stream:
        signals: dict[str, Signal] = {}
        for profile in profiles:
            signals |= self.scenario.profile(profile).signals
        for signal, change in group.signals.items():
            if signal in signals:
                signals[signal] = signals[signal].model_copy(update=change.model_dump(exclude_unset=True))
        signals = {key: signal for key, signal in signals.items() if key not in group.without}
        if sender != "telegraf":
            signals = {key: signal for key, signal in signals.items() if signal.collected}
        history = self.scenario.history
        past = group.history_interval or (max(interval, history.interval) if history else interval)
        service = self.scenario.services.get(group.service) if group.service else None
        return Stream(
            name,
            sender,
            round(interval * 1e6),
            round(past * 1e6),
            round(group.jitter * 1e6),
            group.lost,
            signals,
            hosts,
            service.load if service else Load(),
            group.service,
            group.tags,
            profiles != (BMC,),
        )

    @property
    def series(self) -> int:
        """How many series of metrics the fleet sends."""
        return sum(stream.series for stream in self.streams)

    @property
    def services(self) -> tuple[str, ...]:
        """Full names of the services."""
        return tuple(self.named(name) for name in self.scenario.services)

    def declared_needs(self, host: Host) -> list[str]:
        """Full names of what a host needs: hosts of the groups it names, and services."""
        names: list[str] = []
        for key in self.group_of(host).depends_on:
            if key in self.scenario.services:
                names.append(self.named(key))
            else:
                names += [self.hosts[position].name for position in self._needed(key, host.position)]
        return [name for name in dict.fromkeys(names) if name != host.name]

    def parts(self, service: str) -> list[str]:
        """Full names of what a service consists of and needs."""
        needed = self.scenario.services[service].depends_on
        names = [host.name for host in self.hosts if host.service == service]
        for key in needed:
            if key in self.scenario.services:
                names.append(self.named(key))
            else:
                names += [self.hosts[position].name for position in self._named[key]]
        return list(dict.fromkeys(names))
