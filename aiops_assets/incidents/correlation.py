"""From alerts to incidents: which belong together, what came before, where to look first. Pure functions.

A new alert joins an incident through the strongest of these links, and opens one of its own when there is none:

==============  ======================================================================================================
``same_series``   the same series (or fingerprint): firing then, or active within ``grouping.window``
``same_host``     the same host, active within the window
``dependency``    one host needs the other (at most three steps), active within the window
``change``        both hosts were touched by the same change within ``grouping.change_lookback``, and both symptoms
                  began within the window
``service``       both are direct parts of one service, symptoms at most ``NEARBY`` apart
``label``         the same metric and the same service, cluster, rack or site, symptoms at most ``NEARBY`` apart
==============  ======================================================================================================

"Active" means that an alert began, fired or ended, or that the incident was resolved. So that one incident does not
swallow what is unrelated, links have a length and an incident reaches at most ``MAX_HOPS`` from the alert that opened
it: same series or host is 0, a dependency its number of steps; the last three links are ``MAX_HOPS`` long and count
only from hosts at distance 0. An alert that links two incidents merges them, unless people already work on both.

Alerts below ``MIN_SEVERITY`` join what runs, but never open, reopen, merge or keep open an incident. Suppressed alerts
are shown where they would have joined; withdrawn ones (an amendment says that they should never have fired) link to
nothing. All times are event times, so an alert that is found hours later joins what ran beside it then.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
import polars as pl

from aiops_assets.config import Config, Grouping
from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.incidents.topology import MAX_PARTS, Topology

MAX_HOPS = 3
NEARBY = 300 * MICROS_PER_SECOND
#: clocks differ: a change this much after the first symptom still counts as before it
CLOCK_SKEW = 60 * MICROS_PER_SECOND
#: OpenTelemetry severity below which an alert opens no incident (13 is WARN)
MIN_SEVERITY = 13
#: from this many hosts on, impact rises by one
WIDE_HOSTS = 5
DEFAULT_IMPACT = 2
MAX_SUSPECTS = 20

LinkKind = Literal["same_series", "same_host", "dependency", "change", "service", "label"]
_STRENGTH: dict[LinkKind, int] = {
    "same_series": 0,
    "same_host": 1,
    "dependency": 2,
    "change": 3,
    "service": 4,
    "label": 5,
}


@dataclass(frozen=True, slots=True)
class Alert:
    """One revision of an alert (``tables.ALERTS``); instants are microseconds since the epoch (UTC)."""

    alert_id: str
    revision: int
    fingerprint: str
    kind: str
    name: str
    state: str
    severity_number: int
    host: str
    metric: str | None
    series_id: int | None
    labels: str
    starts_at: int
    ends_at: int | None
    changed_at: int
    title: str
    value: float | None
    threshold: float | None
    evidence: str
    suppressed_by: str | None
    amended_by: str | None

    @property
    def active(self) -> bool:
        """Whether it is a symptom that lasts."""
        return self.state == "firing"

    @property
    def suppressed(self) -> bool:
        """Whether a window or silence covers it, also after its end."""
        return self.state == "suppressed" or (self.state == "resolved" and self.suppressed_by is not None)

    @property
    def withdrawn(self) -> bool:
        """Whether an amendment said that it should never have fired."""
        return self.state == "withdrawn"

    @property
    def counted(self) -> bool:
        """Whether it counts for what is said of its incident."""
        return not (self.suppressed or self.withdrawn)

    @property
    def historic(self) -> bool:
        """Whether it comes from imported history, which never concerns a running incident."""
        return self.suppressed and (self.suppressed_by or "").startswith("history")

    @property
    def over_at(self) -> int | None:
        """When it ceased to be a symptom: its end, or the moment it was suppressed; ``None`` while it fires."""
        if self.state == "firing":
            return None
        return self.ends_at if self.ends_at is not None else self.changed_at


@dataclass(frozen=True, slots=True)
class Change:
    """A row of ``tables.CHANGES``; ``ts`` is microseconds since the epoch (UTC)."""

    change_id: str
    ts: int
    kind: str
    host: str
    service: str | None
    title: str
    actor: str | None


@dataclass(frozen=True, slots=True)
class Link:
    """Why an alert belongs to an incident. ``gap`` is the time between symptoms in microseconds."""

    incident_id: str
    kind: LinkKind
    text: str
    hops: int
    gap: int

    @property
    def order(self) -> tuple[int, int, int, str]:
        return (_STRENGTH[self.kind], self.hops, self.gap, self.incident_id)


@dataclass(frozen=True, slots=True)
class Priority:
    """Priority from the impact × urgency table, and why."""

    priority: int
    impact: int
    urgency: int
    impact_text: str
    urgency_text: str

    @property
    def cell(self) -> str:
        """The key of the table's cell, as in ``aiops.yaml``."""
        return f"{self.impact}/{self.urgency}"


@dataclass(frozen=True, slots=True)
class Cause:
    """A host to look at, and why it stands at this place of the list."""

    host: str
    text: str
    started_at: int


@dataclass(frozen=True, slots=True)
class Suspect:
    """A change near an incident. ``before``: it came before the first symptom (give or take ``CLOCK_SKEW``)."""

    change: Change
    rank: int
    text: str
    before: bool


@dataclass(frozen=True, slots=True)
class Assessment:
    """What can be said about an incident from its member alerts alone. Instants are microseconds (UTC)."""

    title: str
    hosts: tuple[str, ...]
    started_at: int
    last_symptom_at: int
    ended_at: int | None
    priority: Priority
    causes: tuple[Cause, ...]
    suspects: tuple[Suspect, ...]


@dataclass(slots=True)
class _Presence:
    """What an incident has at one place (a host, a series, a scope): when something happened there.

    ``spans`` has, by alert, when it began and ended (``None`` while it fires).
    """

    instants: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    spans: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    hops: int = MAX_HOPS

    def lasts(self, at: int, window: int, running: bool) -> bool:
        """Whether an alert fired at an instant (one that fires still: or began within the window after it)."""
        return any(
            started <= at < over if over is not None else running and started <= at + window
            for started, over in self.spans.values()
        )


class Board:
    """The incidents that a new alert could join, indexed by where their members are."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._places: dict[Hashable, dict[str, _Presence]] = defaultdict(dict)
        self._resolved_at: dict[str, int | None] = {}

    def put(self, incident_id: str, alert: Alert, hops: int, resolved_at: int | None) -> None:
        """Add a member, or what is new about it."""
        self._resolved_at[incident_id] = resolved_at
        for place in self._places_of(alert, hops):
            presence = self._places[place].setdefault(incident_id, _Presence())
            presence.hops = min(presence.hops, hops)
            insort(presence.instants, alert.starts_at)
            insort(presence.instants, alert.changed_at)
            insort(presence.starts, alert.starts_at)
            presence.spans[alert.alert_id] = (alert.starts_at, alert.over_at)
            if not alert.active:
                insort(presence.instants, alert.over_at or alert.starts_at)
            if resolved_at is not None:
                insort(presence.instants, resolved_at)

    def drop(self, incident_id: str) -> bool:
        """Forget an incident, because another took over its members or they have changed; whether it was here."""
        if incident_id not in self._resolved_at:
            return False
        del self._resolved_at[incident_id]
        for presences in self._places.values():
            presences.pop(incident_id, None)
        return True

    def settle(self, incident_id: str, resolved_at: int | None) -> None:
        """An incident was resolved or reopened."""
        if incident_id in self._resolved_at:
            self._resolved_at[incident_id] = resolved_at

    def links(self, alert: Alert, changes: ChangeIndex, grouping: Grouping) -> list[Link]:
        """All links of an alert, the strongest of each incident, strongest first."""
        best: dict[str, Link] = {}
        window = round(grouping.window * MICROS_PER_SECOND)
        for link in self._links(alert, changes, grouping):
            resolved_at = self._resolved_at[link.incident_id]
            if resolved_at is not None and alert.starts_at > resolved_at + window:
                continue
            if link.incident_id not in best or link.order < best[link.incident_id].order:
                best[link.incident_id] = link
        return sorted(best.values(), key=lambda link: link.order)

    def _links(self, alert: Alert, changes: ChangeIndex, grouping: Grouping) -> Iterator[Link]:
        window = round(grouping.window * MICROS_PER_SECOND)
        at, host = alert.starts_at, alert.host
        for place in _series_places(alert):
            for incident_id, presence in self._at(place):
                gap = _gap(presence.instants, at)
                lasting = presence.lasts(at, window, self._resolved_at[incident_id] is None)
                if gap <= window or lasting:
                    yield Link(incident_id, "same_series", "the same series", presence.hops, 0 if lasting else gap)
        for incident_id, presence in self._at(("host", host)):
            if (gap := _gap(presence.instants, at)) <= window:
                yield Link(incident_id, "same_host", f"also on {host}", presence.hops, gap)
        for found in (self._topology.upstream(host), self._topology.downstream(host)):
            needs = found is self._topology.upstream(host)
            for other, path in found.items():
                for incident_id, presence in self._at(("host", other)):
                    hops = presence.hops + len(path)
                    if hops <= MAX_HOPS and (gap := _gap(presence.instants, at)) <= window:
                        chain = (host, *path) if needs else (*reversed(path), host)
                        yield Link(incident_id, "dependency", need_text(chain), hops, gap)
        for change, others in changes.shared_with(alert, self._topology, grouping):
            for other in others:
                for incident_id, presence in self._at(("core", other)):
                    since = [start for start in presence.starts if start >= change.ts - CLOCK_SKEW]
                    if since and (gap := _gap(since, at)) <= window:
                        text = f"both follow {change_text(change)}"
                        yield Link(incident_id, "change", text, MAX_HOPS, gap)
        for service in self._topology.direct_services(host):
            for other in self._topology.parts(service):
                for incident_id, presence in self._at(("core", other)):
                    if (gap := _gap(presence.starts, at)) <= NEARBY:
                        yield Link(incident_id, "service", f"{host} and {other} both serve {service}", MAX_HOPS, gap)
        if alert.metric:
            for name, value in self._topology.scopes(host, label_map(alert.labels)):
                for incident_id, presence in self._at(("scope", name, value, alert.metric)):
                    if (gap := _gap(presence.starts, at)) <= NEARBY:
                        text = f"the same metric in {name} {value}, {duration_text(gap)} apart"
                        yield Link(incident_id, "label", text, MAX_HOPS, gap)

    def _at(self, place: Hashable) -> Iterable[tuple[str, _Presence]]:
        return self._places[place].items() if place in self._places else ()

    def _places_of(self, alert: Alert, hops: int) -> Iterator[Hashable]:
        yield ("host", alert.host)
        yield from _series_places(alert)
        if hops == 0:
            yield ("core", alert.host)
            if alert.metric:
                for name, value in self._topology.scopes(alert.host, label_map(alert.labels)):
                    yield ("scope", name, value, alert.metric)


class ChangeIndex:
    """Changes by host, service and title."""

    def __init__(self, changes: Sequence[Change]) -> None:
        self.changes = changes
        self._by_host: dict[str, list[Change]] = defaultdict(list)
        self._by_service: dict[str, list[Change]] = defaultdict(list)
        self._hosts_of: dict[tuple[str, str], set[str]] = defaultdict(set)
        for change in changes:
            self._by_host[change.host].append(change)
            if change.service:
                self._by_service[change.service].append(change)
            self._hosts_of[change.kind, change.title].add(change.host)

    def of_host(self, host: str) -> Sequence[Change]:
        return self._by_host.get(host, ())

    def of_service(self, service: str) -> Sequence[Change]:
        return self._by_service.get(service, ())

    def shared_with(self, alert: Alert, topology: Topology, grouping: Grouping) -> Iterator[tuple[Change, set[str]]]:
        """Changes that touched the alert's host before its symptom, each with the other hosts it touched."""
        if not self.changes:
            return
        lookback = round(grouping.change_lookback * MICROS_PER_SECOND)
        services = set(topology.direct_services(alert.host))
        labels = label_map(alert.labels)
        services |= {labels[name] for name in ("service", "service.name") if labels.get(name)}
        touching = {change.change_id: change for change in self.of_host(alert.host)}
        for service in services:
            touching |= {change.change_id: change for change in self.of_service(service)}
        for change in touching.values():
            if not alert.starts_at - lookback <= change.ts <= alert.starts_at + CLOCK_SKEW:
                continue
            others = {change.host, *self._hosts_of[change.kind, change.title]}
            if change.service and len(topology.parts(change.service)) <= MAX_PARTS:
                others |= {change.service, *topology.parts(change.service)}
            others.discard(alert.host)
            if others:
                yield change, others


def assess(members: Sequence[Alert], *, topology: Topology, changes: ChangeIndex, config: Config) -> Assessment:
    """What can be said about an incident of these members (suppressed ones left out, at least one)."""
    started_at = min(alert.starts_at for alert in members)
    last_symptom_at = max(alert.starts_at for alert in members)
    overs = [alert.over_at for alert in members if alert.severity_number >= MIN_SEVERITY] or [
        alert.over_at for alert in members
    ]
    ended_at = None if any(over is None for over in overs) else max(over for over in overs if over is not None)
    causes = probable_causes(members, topology)
    hosts = tuple(cause.host for cause in causes)
    # A host with nothing but notices is shown; what is said of the incident does not rest on it.
    telling = _telling(members)
    concerned = [host for host in hosts if host in telling]
    return Assessment(
        title=incident_title(members, concerned),
        hosts=hosts,
        started_at=started_at,
        last_symptom_at=last_symptom_at,
        ended_at=ended_at,
        priority=prioritise(members, concerned, topology, config),
        causes=tuple(causes),
        suspects=tuple(suspects(hosts, started_at, last_symptom_at, changes, topology, config.grouping)),
    )


def probable_causes(members: Sequence[Alert], topology: Topology) -> list[Cause]:
    """The hosts of an incident: what others need first, then whose symptoms began first; those with notices alone last.

    Alerts below ``MIN_SEVERITY`` join what runs, so that noise beside an incident cannot lead to where it began.
    """
    started: dict[str, int] = {}
    for alert in members:
        started[alert.host] = min(alert.starts_at, started.get(alert.host, alert.starts_at))
    first = min(started.values())
    telling = _telling(members)
    dependents = {host: [other for other in telling if host in topology.upstream(other)] for host in started}
    causes = []
    for host in sorted(started, key=lambda host: (host not in telling, -len(dependents[host]), started[host], host)):
        parts = []
        if dependents[host]:
            parts.append(f"{listing(dependents[host])} {'needs' if len(dependents[host]) == 1 else 'need'} it")
        delay = started[host] - first
        parts.append("first symptom" if delay == 0 else f"symptoms {duration_text(delay)} after the first")
        causes.append(Cause(host, "; ".join(parts), started[host]))
    return causes


def _telling(members: Sequence[Alert]) -> dict[str, None]:
    """Hosts with an alert that could have opened an incident, in order of the members; all of them when none has."""
    serious = [alert.host for alert in members if alert.severity_number >= MIN_SEVERITY]
    return dict.fromkeys(serious or [alert.host for alert in members])


def prioritise(members: Sequence[Alert], hosts: Sequence[str], topology: Topology, config: Config) -> Priority:
    """Impact (what is declared of hosts and of services that need them, number of hosts) × urgency (severity)."""
    candidates: list[tuple[int, str]] = []
    for host in hosts:
        declared = topology.impact(host)
        if declared is not None:
            candidates.append((declared, f"{host} is declared with impact {declared}"))
        else:
            candidates.append((DEFAULT_IMPACT, f"{host} has the default impact {DEFAULT_IMPACT}"))
        for other in topology.downstream(host):
            needing = topology.impact(other)
            if needing is not None and topology.nodes[other].kind == "service":
                candidates.append((needing, f"{other} (impact {needing}) needs {host}"))
    impact, impact_text = min(candidates, key=lambda candidate: candidate[0])
    if len(hosts) >= WIDE_HOSTS and impact > 1:
        impact, impact_text = impact - 1, f"{len(hosts)} hosts are affected; {impact_text}"
    worst = max(members, key=lambda alert: alert.severity_number)
    urgency = urgency_of(worst.severity_number)
    urgency_text = f"the highest severity is {severity_word(worst.severity_number)} ({worst.name} on {worst.host})"
    return Priority(config.priority[f"{impact}/{urgency}"], impact, urgency, impact_text, urgency_text)


def urgency_of(severity_number: int) -> int:
    """1 from OpenTelemetry severity 21 (FATAL) on, 2 from 17 (ERROR) on, else 3."""
    return 1 if severity_number >= 21 else 2 if severity_number >= 17 else 3


def severity_word(severity_number: int) -> str:
    """The word of ``aiops.yaml`` for an OpenTelemetry severity number."""
    words = ("trace", "debug", "info", "warning", "error", "critical")
    return words[min(max((severity_number - 1) // 4, 0), 5)]


def suspects(
    hosts: Sequence[str],
    started_at: int,
    last_symptom_at: int,
    changes: ChangeIndex,
    topology: Topology,
    grouping: Grouping,
) -> list[Suspect]:
    """Changes near an incident: same host, what it needs, what needs it, its services; closest in time first.

    Only what came before the first symptom is a suspect; what came later, until the newest symptom, is listed behind.
    """
    if not changes.changes:
        return []
    lookback = round(grouping.change_lookback * MICROS_PER_SECOND)
    window = round(grouping.window * MICROS_PER_SECOND)
    near: dict[str, tuple[int, str]] = {}
    for position, host in enumerate(hosts):
        _offer(near, host, 0 if position == 0 else 1, f"on {host} itself")
    for host in hosts:
        for other, path in topology.upstream(host).items():
            _offer(near, other, 1 + len(path), f"on {other}: {need_text((host, *path))}")
        for other, path in topology.downstream(host).items():
            _offer(near, other, 4 + len(path), f"on {other}: {need_text((*reversed(path), host))}")
    found: dict[str, Suspect] = {}
    for name, (rank, relation) in near.items():
        for change in (*changes.of_host(name), *changes.of_service(name)):
            if not started_at - lookback <= change.ts <= last_symptom_at + window:
                continue
            before = change.ts <= started_at + CLOCK_SKEW
            text = f"happened {before_text(change.ts, started_at)}, {relation}"
            suspect = Suspect(change, rank, text, before)
            if change.change_id not in found or rank < found[change.change_id].rank:
                found[change.change_id] = suspect
    ordered = sorted(
        found.values(),
        key=lambda suspect: (
            not suspect.before,
            suspect.rank,
            abs(suspect.change.ts - started_at),
            suspect.change.change_id,
        ),
    )
    return ordered[:MAX_SUSPECTS]


def incident_title(members: Sequence[Alert], hosts: Sequence[str]) -> str:
    """The worst, earliest alert of the host to look at first, and which other hosts are concerned."""
    leading = [alert for alert in members if alert.host == hosts[0]]
    lead = min(leading, key=lambda alert: (-alert.severity_number, alert.starts_at, alert.alert_id))
    title = " ".join(lead.title.split()) or lead.name
    if lead.host not in title:
        title = f"{lead.host}: {title}"
    if len(title) > 160:
        title = title[:159] + "…"
    return f"{title} – with {listing(hosts[1:])}" if len(hosts) > 1 else title


def alerts_of(frame: pl.DataFrame) -> list[Alert]:
    """Rows of ``tables.ALERTS`` as values, in the order given; NUL characters, which Postgres refuses, are replaced."""
    names = list(Alert.__dataclass_fields__)
    instants = ("starts_at", "ends_at", "changed_at")
    texts = pl.col(pl.String).str.replace_all("\x00", "�", literal=True)
    rows = frame.select(names).with_columns(pl.col(instants).dt.timestamp("us"), texts)
    return [Alert(*row) for row in rows.iter_rows()]


def changes_of(frame: pl.DataFrame, start: int, end: int) -> list[Change]:
    """Rows of ``tables.CHANGES`` between two instants (microseconds, both included), oldest first."""
    if frame.is_empty():
        return []
    ts = pl.col("ts").dt.timestamp("us")
    texts = pl.col(pl.String).str.replace_all("\x00", "�", literal=True)
    rows = frame.filter(ts.is_between(start, end)).select(list(Change.__dataclass_fields__)).with_columns(ts, texts)
    return [Change(*row) for row in rows.unique("change_id", keep="last").sort("ts", "change_id").iter_rows()]


def label_map(labels: str) -> dict[str, str]:
    """Labels of canonical JSON."""
    return {str(name): str(value) for name, value in orjson.loads(labels or "{}").items()}


def change_text(change: Change) -> str:
    """``deploy “v2” of shop on web-1``."""
    of = f" of {change.service}" if change.service else ""
    return f"{change.kind} “{change.title}”{of} on {change.host}"


def before_text(instant: int, first_symptom: int) -> str:
    """``3 min before the first symptom``; says nothing about cause."""
    gap = first_symptom - instant
    if gap == 0:
        return "at the time of the first symptom"
    return f"{duration_text(abs(gap))} {'before' if gap > 0 else 'after'} the first symptom"


def need_text(chain: Sequence[str]) -> str:
    """``web-1 needs db-1``, ``web-1 needs app, which needs db-1``."""
    text = f"{chain[0]} needs {chain[1]}"
    for name in chain[2:]:
        text += f", which needs {name}"
    return text


def listing(names: Sequence[str], limit: int = 3) -> str:
    """``a``, ``a and b``, ``a, b and 5 more``."""
    if len(names) > limit:
        return f"{', '.join(names[: limit - 1])} and {len(names) - limit + 1} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def duration_text(micros: int) -> str:
    """``40 s``, ``3 min``, ``2 h 5 min``, ``3 d 4 h``."""
    seconds = micros // MICROS_PER_SECOND
    if seconds < 60:
        return f"{seconds} s"
    minutes = seconds // 60
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def assessment_json(assessment: Assessment) -> dict[str, Any]:
    """The parts of an assessment that are stored as JSON beside the incident's columns."""
    return {
        "hosts": list(assessment.hosts),
        "impact_text": assessment.priority.impact_text,
        "urgency_text": assessment.priority.urgency_text,
        "causes": [{"host": cause.host, "text": cause.text} for cause in assessment.causes],
        "suspects": [
            {
                "change_id": suspect.change.change_id,
                "ts": suspect.change.ts,
                "kind": suspect.change.kind,
                "host": suspect.change.host,
                "service": suspect.change.service,
                "title": suspect.change.title,
                "actor": suspect.change.actor,
                "text": suspect.text,
                "before": suspect.before,
            }
            for suspect in assessment.suspects
        ],
    }


def _series_places(alert: Alert) -> Iterator[Hashable]:
    if alert.series_id is not None:
        yield ("series", alert.series_id)
    yield ("fingerprint", alert.fingerprint)


def _gap(instants: Sequence[int], at: int) -> int:
    position = bisect_left(instants, at)
    return min(abs(at - instant) for instant in instants[max(position - 1, 0) : position + 1])


def _offer(near: dict[str, tuple[int, str]], name: str, rank: int, text: str) -> None:
    if name not in near or rank < near[name][0]:
        near[name] = (rank, text)


def by_decision(alerts: Iterable[Alert]) -> list[Alert]:
    """Alerts in the order in which they were decided; revisions of one alert keep their order.

    An amendment may say of the past what came after a later decision: it then counts as decided together with that.
    """
    decided: dict[str, int] = {}
    keyed = []
    for alert in sorted(alerts, key=lambda alert: alert.revision):
        decided[alert.alert_id] = max(alert.changed_at, decided.get(alert.alert_id, alert.changed_at))
        keyed.append((decided[alert.alert_id], alert.revision, alert))
    return [alert for *_, alert in sorted(keyed, key=lambda entry: entry[:2])]


def new_revisions(alerts: Iterable[Alert], known: Mapping[str, int]) -> list[Alert]:
    """Revisions not taken yet, each once."""
    taken = dict(known)
    fresh = []
    for alert in by_decision(alerts):
        if alert.revision > taken.get(alert.alert_id, -1):
            taken[alert.alert_id] = alert.revision
            fresh.append(alert)
    return fresh
