"""What is sent one event at a time: exceptions, hardware events, traps, changes, tickets, and the inventory.

What belongs here: bodies as SDKs, management controllers, devices, pipelines and ITSM systems send them. What does not:
samples (``lines``) and log lines (``writing``). Everything is a function of the seed and its own instant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import orjson

from aiops_assets.hours import MICROS_PER_SECOND, instant
from aiops_assets.synthetic.storms.course import Course
from aiops_assets.synthetic.storms.faults import Occurrence, Plan
from aiops_assets.synthetic.storms.fleet import Host, Stream
from aiops_assets.synthetic.storms.lines import MARK
from aiops_assets.synthetic.storms.noise import Floats, Ints, salt, salts
from aiops_assets.synthetic.storms.vocabulary import ErrorEffect, HardwareEvent, Raised, Ticket, Trap
from aiops_assets.synthetic.storms.writing import chances, events, fill, rate_of, service_of

_MINUTE = 60 * MICROS_PER_SECOND
#: how long after the end a ticket is resolved, and how often the inventory is told again
_RESOLVED_AFTER = 20 * _MINUTE
INVENTORY_EVERY = 6 * 60 * _MINUTE
_INVENTORY_HOSTS = 500
_PRIORITIES = {(1, 1): 1, (1, 2): 2, (2, 1): 2, (1, 3): 3, (2, 2): 3, (3, 1): 3, (2, 3): 4, (3, 2): 4, (3, 3): 5}


@dataclass(frozen=True, slots=True)
class Happening:
    """One event at ``at`` (microseconds since the epoch, UTC). ``headers`` is what its parser needs beside the body."""

    at: int
    format: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def stamp(at: int) -> str:
    """An instant in ISO 8601, UTC."""
    return instant(at).strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z"


def releases(occurrence: Occurrence, plan: Plan) -> tuple[str, str]:
    """(release, previous release) of a deployment."""
    event = occurrence.event
    host = plan.fleet.hosts[occurrence.roots[0]]
    declared = plan.scenario.services[host.service].release if host.service else "1.0.0"
    if event.release:
        return event.release, event.previous or declared
    number = 1 + sum(1 for one in plan.occurrences if one.kind.changes and one.start < occurrence.start)
    head, _, last = declared.rpartition(".")
    base = int(last) if last.isdigit() else 0
    return f"{head}.{base + number}", event.previous or f"{head}.{base + number - 1}"


def release_at(plan: Plan, host: Host, at: int) -> str:
    """The release that a host's service runs at an instant."""
    found = plan.scenario.services[host.service].release if host.service else "1.0.0"
    for one in plan.occurrences:
        if one.start > at:
            break
        deployed = any(change.kind == "deploy" for change in one.kind.changes)
        if deployed and plan.fleet.hosts[one.roots[0]].service == host.service:
            found = releases(one, plan)[0]
    return found


def words(occurrence: Occurrence, plan: Plan, host: Host | None = None) -> dict[str, str]:
    """Values of the placeholders that an occurrence gives."""
    root = plan.fleet.hosts[occurrence.roots[0]]
    release, previous = releases(occurrence, plan)
    return {
        "root": root.name,
        "host": (host or root).name,
        "service": service_of(plan, root),
        "release": release,
        "previous": previous,
        "title": occurrence.event.title or occurrence.kind.title,
    }


def exceptions(course: Course, plan: Plan, edges: Ints, bucket_numbers: Ints) -> Iterator[Happening]:
    """Envelopes of a stream's hosts in the buckets between ``edges``, in no particular order."""
    stream = course.stream
    names = [host.name for host in stream.hosts]
    sources: list[tuple[str, tuple[Raised, ...], Floats, str]] = []
    middles = (edges[:-1] + edges[1:]) // 2
    load = np.broadcast_to(course.load(middles), (len(middles), len(stream.hosts)))
    for number, habit in enumerate(plan.scenario.errors_of(plan.scenario.hosts[stream.group])):
        rate = habit.rate * np.maximum(1.0 + habit.load * (load - 1.0), 0.0)
        sources.append((f"habit {number}", habit.exceptions, rate, ""))
    for occurrence in plan.between(int(edges[0]), int(edges[-1])):
        for number, effect in enumerate(occurrence.kind.errors):
            if not reports(plan, stream, effect):
                continue
            felt = rate_of(occurrence, course, occurrence.reach[effect.to], edges, effect.rate, effect.begins)
            if felt is not None:
                root = plan.fleet.hosts[occurrence.roots[0]].name
                sources.append((f"{occurrence.id} {number}", effect.exceptions, felt, root))
    silent = course.silent(middles // course.interval)
    for name, raised, rate, root in sources:
        salted = salts(plan.seed, f"{stream.group} error {name}", names)
        shown = rate if silent is None else np.where(silent, 0.0, rate)
        for bucket, column, number in zip(*events(shown, edges, bucket_numbers, salted), strict=True):
            key = salt(int(salted[column]), int(bucket_numbers[bucket]), int(number))
            length = int(edges[bucket + 1] - edges[bucket])
            at = int(edges[bucket]) + (key >> 20) % length
            yield _envelope(plan, stream.hosts[column], at, key, raised[key % len(raised)], root)


def reports(plan: Plan, stream: Stream, effect: ErrorEffect) -> bool:
    """Whether the applications on hosts of a stream report exceptions: where the fault is, and where they always do."""
    return effect.to == "root" or bool(plan.scenario.errors_of(plan.scenario.hosts[stream.group]))


def _envelope(plan: Plan, host: Host, at: int, key: int, raised: Raised, root: str) -> Happening:
    service = service_of(plan, host)
    values = {**chances(key), "host": host.name, "service": service, "root": root}
    module, _, function = raised.culprit.partition(" in ")
    event_id = f"{key:016x}{salt(key, 'event'):016x}"
    path = (module or "app").replace(".", "/")
    frames = [
        {"module": "wsgi", "function": "handle", "filename": "wsgi.py", "lineno": 88, "in_app": False},
        {"module": module or "app", "function": function or "main", "filename": f"{path}.py",
         "lineno": 20 + salt(raised.type, module) % 400, "in_app": True},
    ]  # fmt: skip
    event = {
        "event_id": event_id,
        "timestamp": stamp(at),
        "level": raised.level,
        "platform": "python",
        "server_name": host.name,
        "environment": plan.scenario.environment,
        "release": f"{service}@{release_at(plan, host, at)}",
        "transaction": values["path"],
        "tags": {**MARK, "service": service},
        "exception": {
            "values": [{"type": raised.type, "value": fill(raised.value, values), "stacktrace": {"frames": frames}}]
        },
        "sdk": {"name": "sentry.python", "version": "2.0.0"},
    }
    body = b"\n".join(
        [
            orjson.dumps({"event_id": event_id, "sent_at": stamp(at)}),
            orjson.dumps({"type": "event"}),
            orjson.dumps(event),
        ]
    )
    services = list(plan.scenario.services)
    project = services.index(host.service) + 1 if host.service else len(services) + 1
    return Happening(at, "sentry_envelope", body, {"project": str(project), "endpoint": "envelope"})


def happenings(plan: Plan) -> list[Happening]:
    """All changes, hardware events, traps and tickets of a plan, by instant."""
    found = [
        one
        for occurrence in plan.occurrences
        if occurrence.roots
        for one in (
            *_changes(occurrence, plan),
            *_hardware(occurrence, plan),
            *_traps(occurrence, plan),
            *_tickets(occurrence, plan),
        )
    ]
    return sorted(found, key=lambda one: one.at)


def inventory_between(plan: Plan, begin: int, end: int) -> list[Happening]:
    """What a discovery tells in [begin, end)."""
    first = plan.begin + -(-(begin - plan.begin) // INVENTORY_EVERY) * INVENTORY_EVERY
    return [one for at in range(first, end, INVENTORY_EVERY) for one in inventory(plan, at)]


def of_occurrence(
    occurrence: Occurrence, plan: Plan
) -> Iterator[tuple[Literal["hardware", "trap", "change", "ticket"], str, int, str]]:
    """(kind, host, instant, text) of the single events of an occurrence that tell of it, not of its end."""
    for body in changes_of(occurrence, plan):
        yield "change", body["host"], int(body["ts"]), body["title"]
    for position in occurrence.roots:
        host = plan.fleet.hosts[position].name
        for event in occurrence.kind.hardware:
            yield "hardware", host, occurrence.start, event.message
        for trap in occurrence.kind.traps:
            yield "trap", host, occurrence.start, trap.trap
    ticket = occurrence.kind.ticket
    if ticket is not None and occurrence.event.ticket:
        root = plan.fleet.hosts[occurrence.roots[0]].name
        yield "ticket", root, ticket_at(occurrence, ticket), ticket.title


def changes_of(occurrence: Occurrence, plan: Plan) -> list[dict[str, Any]]:
    """The changes of an occurrence, as a pipeline would tell them to the generic webhook; ``ts`` in microseconds."""
    made = []
    for change in occurrence.kind.changes:
        for position in occurrence.roots:
            host = plan.fleet.hosts[position]
            values = words(occurrence, plan, host)
            body = {
                "type": change.kind,
                "host": host.name,
                "service": plan.fleet.named(host.service) if host.service else None,
                "title": f"{fill(occurrence.event.title or change.title, values)} (synthetic)",
                "actor": change.actor,
                "ts": occurrence.start - round(change.before * MICROS_PER_SECOND),
                "synthetic": True,
            }
            if change.kind == "deploy":
                body |= {"version": values["release"], "previous": values["previous"]}
            made.append({name: value for name, value in body.items() if value is not None})
    return made


def _changes(occurrence: Occurrence, plan: Plan) -> Iterator[Happening]:
    for body in changes_of(occurrence, plan):
        yield Happening(int(body["ts"]), "generic", orjson.dumps(body))


def _hardware(occurrence: Occurrence, plan: Plan) -> Iterator[Happening]:
    for event in occurrence.kind.hardware:
        for position in occurrence.roots:
            host = plan.fleet.hosts[position]
            yield _redfish(host, event, occurrence.start, occurrence.id, False)
            if event.cleared is not None and occurrence.end < plan.end:
                yield _redfish(host, event, occurrence.end, occurrence.id, True)


def _redfish(host: Host, event: HardwareEvent, at: int, name: str, cleared: bool) -> Happening:
    record = {
        "EventType": "Alert",
        "EventId": f"{salt(host.name, name, cleared) & 0xFFFFFF}",
        "EventTimestamp": stamp(at),
        "MessageId": event.cleared if cleared else event.message_id,
        "MessageSeverity": "OK" if cleared else event.severity,
        "Severity": "OK" if cleared else event.severity,
        "Message": event.cleared_message if cleared else event.message,
        "OriginOfCondition": {"@odata.id": event.origin},
        "MemberId": "0",
        "Oem": {"Synthetic": MARK},
    }
    body = {
        "@odata.type": "#Event.v1_7_0.Event",
        "Id": record["EventId"],
        "Name": "Event Array",
        "Context": host.name,
        "Events": [record],
    }
    return Happening(at, "redfish_event", orjson.dumps(body), {"query": f"host={host.name}"})


def _traps(occurrence: Occurrence, plan: Plan) -> Iterator[Happening]:
    for trap in occurrence.kind.traps:
        for position in occurrence.roots:
            host = plan.fleet.hosts[position]
            flap = next((effect for effect in occurrence.kind.effects if effect.shape == "flap"), None)
            end = min(occurrence.end, plan.end)
            if flap is None:
                turns = [(occurrence.start, end)]
            else:
                period = round(flap.period * MICROS_PER_SECOND)
                turns = [(at, min(end, at + round(period * flap.duty))) for at in range(occurrence.start, end, period)]
            for down, up in turns:
                yield _notification(plan, host, trap, trap.trap, down)
                if trap.cleared is not None and up < plan.end:
                    yield _notification(plan, host, trap, trap.cleared, up)


def _notification(plan: Plan, host: Host, trap: Trap, oid: str, at: int) -> Happening:
    body = {
        "ts": at,
        "peer": f"192.0.2.{host.position % 254 + 1}",
        "host": host.name,
        "version": "2c",
        "kind": "trap",
        "request": salt(host.name, at) & 0x7FFFFFFF,
        "uptime": (at - plan.begin) // 10_000 + 8_640_000,
        "trap": oid,
        "varbinds": [[name, kind, value] for name, kind, value in trap.varbinds],
    }
    return Happening(at, "snmp_trap", orjson.dumps(body))


def ticket_at(occurrence: Occurrence, ticket: Ticket) -> int:
    """When people open the ticket of an occurrence, give or take a third."""
    share = 0.67 + 0.66 * (salt(occurrence.id, "ticket") % 1_000) / 1_000.0
    shown = occurrence.start + round(occurrence.ramp * (0.9 if occurrence.kind.shape != "step" else 0.0))
    return min(shown, occurrence.end) + round(ticket.after * share * MICROS_PER_SECOND)


def _tickets(occurrence: Occurrence, plan: Plan) -> Iterator[Happening]:
    ticket = occurrence.kind.ticket
    if ticket is None or not occurrence.event.ticket:
        return
    opened = ticket_at(occurrence, ticket)
    if opened >= plan.end:
        return
    closed = max(occurrence.end, opened) + _RESOLVED_AFTER
    yield Happening(
        opened, "servicenow", _record(occurrence, plan, ticket, opened, None), {"servicenow-table": "incident"}
    )
    if closed < plan.end:
        yield Happening(
            closed, "servicenow", _record(occurrence, plan, ticket, opened, closed), {"servicenow-table": "incident"}
        )


def _record(occurrence: Occurrence, plan: Plan, ticket: Ticket, opened: int, resolved: int | None) -> bytes:
    host = plan.fleet.hosts[occurrence.roots[0]]
    key = salt(plan.seed, plan.scenario.name, occurrence.id, opened)
    values = words(occurrence, plan)
    record: dict[str, Any] = {
        "sys_id": f"{key:016x}{salt(key, 'ticket'):016x}",
        "sys_class_name": "incident",
        "number": f"INC{key % 10_000_000:07d}",
        "sys_updated_on": _plain(resolved or opened),
        "sys_created_on": _plain(opened),
        "opened_at": _plain(opened),
        "short_description": fill(ticket.title, values),
        "description": f"{fill(ticket.description, values)} (synthetic)",
        "category": ticket.category,
        "impact": str(ticket.impact),
        "urgency": str(ticket.urgency),
        "priority": str(_PRIORITIES[ticket.impact, ticket.urgency]),
        "caller_id": {"value": f"{key & 0xFFFF:04x}", "display_value": f"user.{key & 0xFFFF:04d}"},
        "assignment_group": {"value": "", "display_value": ticket.group},
        "business_service": {"value": "", "display_value": service_of(plan, host) if host.service else ""},
        "contact_type": ("phone", "self-service", "email")[key >> 16 & 1],
        "state": {
            "value": "2" if resolved is None else "6",
            "display_value": "In Progress" if resolved is None else "Resolved",
        },
        "correlation_display": "synthetic",
    }
    if resolved is not None:
        # People learn where it was only in the end.
        record |= {
            "resolved_at": _plain(resolved),
            "close_code": "Solved (Permanently)",
            "close_notes": ticket.resolution,
            "cmdb_ci": {"value": "", "display_value": host.name},
        }
    return orjson.dumps({"result": [record]})


def _plain(at: int) -> str:
    return instant(at).strftime("%Y-%m-%d %H:%M:%S")


def inventory(plan: Plan, at: int) -> list[Happening]:
    """What a discovery tells of every host and service: kind, site, what it needs."""
    fleet, scenario = plan.fleet, plan.scenario
    documents: list[dict[str, Any]] = []
    for host in fleet.hosts:
        labels = {**MARK, "role": host.group, "rack": f"{host.site or fleet.prefix.rstrip('-')}-r{host.rack}"}
        if host.service:
            labels["service"] = fleet.named(host.service)
        kind = "device" if fleet.group_of(host).sender == "snmp" else "host"
        entity = {"kind": kind, "labels": labels, "depends_on": fleet.declared_needs(host)}
        documents.append(
            {"host": host.name, "ts": at, "entity": {**entity, **({"site": host.site} if host.site else {})}}
        )
    for name in scenario.services:
        entity = {"kind": "service", "labels": dict(MARK), "depends_on": fleet.parts(name)}
        documents.append({"host": fleet.named(name), "ts": at, "entity": entity})
    return [
        Happening(at, "collected", orjson.dumps(documents[start : start + _INVENTORY_HOSTS]))
        for start in range(0, len(documents), _INVENTORY_HOSTS)
    ]
