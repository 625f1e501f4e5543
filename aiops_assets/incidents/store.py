"""Incidents, silences and alerts as people meet them: one store, used by live sessions, pages and the command line.

What belongs here: transactions, lifecycle and queries. The rules are in ``correlation`` and ``lifecycle``, the working
set of ``apply`` in ``placing``. Instants are microseconds since the epoch (UTC) throughout.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import orjson
import polars as pl
from sqlalchemy import ColumnElement, Connection, Row, and_, case, delete, func, insert, or_, select, update

from aiops_assets.config import Config
from aiops_assets.hours import MICROS_PER_SECOND, instant, micros
from aiops_assets.incidents.amendments import AmendmentKind, Correction
from aiops_assets.incidents.correlation import Alert, alerts_of, changes_of
from aiops_assets.incidents.lifecycle import Action, ActionNotAllowed, IncidentNotFound, allowed_actions
from aiops_assets.incidents.paging import PageReason
from aiops_assets.incidents.placing import SYSTEM, Placement
from aiops_assets.incidents.records import DatabaseRecords
from aiops_assets.incidents.topology import Topology
from aiops_assets.operations import audit
from aiops_assets.operations.database import change_number, changing, connect, reading, upgrade
from aiops_assets.operations.models import (
    ALERT_AMENDMENTS,
    INCIDENT_ALERTS,
    INCIDENT_EVENTS,
    INCIDENT_PAGES,
    INCIDENTS,
    SILENCES,
)
from aiops_assets.tables import INCIDENTS as INCIDENTS_TABLE

MAX_WHO, MAX_TEXT = 255, 10_000
#: why an incident is resolved that resolved itself
ENDED = "all alerts have ended"
_ALERT_FIELDS = tuple(Alert.__dataclass_fields__)


class SilenceNotFound(LookupError):
    """There is no such silence."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A change near an incident; ``before`` says that it came before the first symptom."""

    change_id: str
    ts: int
    kind: str
    host: str
    service: str | None
    title: str
    actor: str | None
    text: str
    before: bool


@dataclass(frozen=True, slots=True)
class Member:
    """An alert with the incident it belongs to, and why."""

    alert: Alert
    incident_id: str | None
    link: str | None
    link_text: str | None


@dataclass(frozen=True, slots=True)
class Event:
    """An entry of the timeline. ``event_time`` is when the thing itself happened, where that differs from ``at``.

    An amendment has its parts beside the text: what it means for the alert, the alert's title, reason, what changed.
    """

    event_id: int
    at: int
    who: str
    kind: str
    text: str
    event_time: int | None
    alert_id: str | None
    revision: int | None = None
    amendment: AmendmentKind | None = None
    title: str | None = None
    reason: str | None = None
    corrections: tuple[Correction, ...] = ()

    @property
    def happened_at(self) -> int:
        """When the thing itself happened, as far as that is known."""
        return self.at if self.event_time is None else self.event_time


@dataclass(frozen=True, slots=True)
class Amendment:
    """What an amendment said of an alert; ``hour`` (``YYYY-MM-DDTHH``) is the one that was derived again."""

    hour: str
    kind: AmendmentKind
    reason: str
    at: int
    revision: int
    alert_id: str
    alert_title: str
    host: str
    incident_id: str | None
    incident_title: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """A moment at which somebody is paged (``paging``). ``page_id`` grows in the order in which they are due."""

    page_id: int
    incident_id: str
    at: int
    priority: int
    reason: PageReason


@dataclass(frozen=True, slots=True)
class Incident:
    """An incident. ``members``, ``suppressed`` and ``events`` are filled by ``IncidentStore.get`` only.

    ``members`` has withdrawn alerts too, which count for nothing. ``withdrawn_because`` is the reason when all of them
    are, whatever people then did with the incident.
    """

    incident_id: str
    title: str
    state: str
    priority: int
    impact: int
    urgency: int
    impact_text: str
    urgency_text: str
    assignee: str | None
    hosts: tuple[str, ...]
    started_at: int
    last_symptom_at: int
    ended_at: int | None
    opened_at: int
    acknowledged_at: int | None
    resolved_at: int | None
    resolved_by: str | None
    resolution: str | None
    merged_into: str | None
    alerts: int
    firing: int
    suppressed_alerts: int
    withdrawn_alerts: int
    amended_alerts: int
    withdrawn_because: str | None
    causes: tuple[tuple[str, str], ...]
    suspects: tuple[Suspect, ...]
    related: tuple[str, ...]
    updated_at: int
    change_number: int
    members: tuple[Member, ...] = ()
    suppressed: tuple[Member, ...] = ()
    events: tuple[Event, ...] = ()

    @property
    def allowed(self) -> tuple[Action, ...]:
        """What people may do with it now."""
        return allowed_actions(self.state, self.merged_into is not None)


@dataclass(frozen=True, slots=True)
class Silence:
    """A silence; patterns use ``*``. ``state`` at a given instant is pending, active or expired."""

    silence_id: str
    host: str
    rule: str
    labels: Mapping[str, str]
    starts_at: int
    ends_at: int
    author: str
    reason: str
    created_at: int
    expired_at: int | None
    expired_by: str | None

    def state(self, now: int) -> str:
        if self.expired_at is not None or now >= self.ends_at:
            return "expired"
        return "active" if now >= self.starts_at else "pending"


class IncidentStore:
    """The store behind a URL of the operations database, which is created or migrated when needed."""

    def __init__(self, url: str) -> None:
        upgrade(url)
        self.engine = connect(url)
        self._topology: tuple[Config, pl.DataFrame, Topology] | None = None

    def close(self) -> None:
        """Give connections back."""
        self.engine.dispose()

    # -- what the live session does -----------------------------------------------------------------------------------

    def apply(
        self, alerts: pl.DataFrame, *, config: Config, entities: pl.DataFrame, changes: pl.DataFrame, now: int
    ) -> list[str]:
        """Take new revisions of alerts (``tables.ALERTS``, any order), in one transaction; ids of touched incidents.

        Revisions that were taken before change nothing. What ``amended_by`` does is told in ``placing``; each revision
        of an alert that has it makes one entry ``amendment`` in the timeline. ``entities`` and ``changes`` are rows of
        their canonical tables; changes that became known since are added to running incidents even when no alert comes.
        Hand the same ``config`` and ``entities`` objects while they are unchanged: the dependency graph is kept.
        """
        if alerts.is_empty() and changes.is_empty():
            return []
        rows = alerts_of(alerts)
        topology = self._topology_of(config, entities)
        with changing(self.engine) as transaction:
            known = DatabaseRecords(transaction)
            return Placement(known, config, topology, lambda start, end: changes_of(changes, start, end), now).run(rows)

    def auto_resolve(self, now: int, config: Config) -> list[str]:
        """Resolve incidents whose alerts all ended ``grouping.resolve_after`` before ``now``; their ids.

        They were resolved at that moment, however much later somebody looked.
        """
        lasting = round(config.grouping.resolve_after * MICROS_PER_SECOND)
        ended_before = now - lasting
        due = and_(INCIDENTS.c.state != "resolved", INCIDENTS.c.ended_at <= ended_before, ~INCIDENTS.c.held_open)
        with reading(self.engine) as connection:
            if connection.execute(select(INCIDENTS.c.incident_id).where(due).limit(1)).first() is None:
                return []
        with changing(self.engine) as transaction:
            connection = transaction.connection
            columns = (INCIDENTS.c.incident_id, INCIDENTS.c.ended_at)
            ended = dict(sorted(tuple(row) for row in connection.execute(select(*columns).where(due))))
            for incident_id, ended_at in ended.items():
                values = resolved_itself(ended_at + lasting)
                _change(connection, incident_id, values, now, transaction.mark())
                _event(connection, incident_id, now, SYSTEM, "resolved", ENDED)
            return list(ended)

    def prune(self, before: int) -> int:
        """Forget alerts that belong to no incident and ended before an instant; how many."""
        old = and_(INCIDENT_ALERTS.c.incident_id.is_(None), INCIDENT_ALERTS.c.activity_at < before)
        gone = select(INCIDENT_ALERTS.c.alert_id).where(old)
        with changing(self.engine) as transaction:
            transaction.connection.execute(delete(ALERT_AMENDMENTS).where(ALERT_AMENDMENTS.c.alert_id.in_(gone)))
            return transaction.connection.execute(delete(INCIDENT_ALERTS).where(old)).rowcount

    # -- what people do -----------------------------------------------------------------------------------------------

    def acknowledge(self, incident_id: str, who: str, text: str = "", *, at: int | None = None) -> Incident:
        """Somebody works on it. Raises ``IncidentNotFound`` or ``ActionNotAllowed``, as all of these do."""
        return self._act("acknowledge", incident_id, who, text, at, {"state": "acknowledged"})

    ack = acknowledge

    def assign(self, incident_id: str, who: str, assignee: str, text: str = "", *, at: int | None = None) -> Incident:
        """Say who works on it; an empty ``assignee`` means nobody."""
        name = _clean(assignee, MAX_WHO, "assignee", required=False)
        said = f"to {name}" if name else "to nobody"
        return self._act(
            "assign", incident_id, who, f"{said}: {text}" if text.strip() else said, at, {"assignee": name or None}
        )

    def note(self, incident_id: str, who: str, text: str, *, at: int | None = None) -> Incident:
        """Add a note to the timeline."""
        return self._act("note", incident_id, who, _clean(text, MAX_TEXT, "text"), at, {})

    def resolve(self, incident_id: str, who: str, text: str = "", *, at: int | None = None) -> Incident:
        """It is over. It stays so until a new alert comes within the grouping window, whatever still fires."""
        return self._act("resolve", incident_id, who, text, at, {"state": "resolved", "held_open": False})

    def reopen(self, incident_id: str, who: str, text: str = "", *, at: int | None = None) -> Incident:
        """It is not over. It does not resolve itself until a new alert has joined and ended."""
        changed = {"state": "reopened", "held_open": True}
        changed |= {"resolved_at": None, "resolved_by": None, "resolution": None}
        return self._act("reopen", incident_id, who, text, at, changed)

    def act(self, action: Action, incident_id: str, who: str, text: str = "", assignee: str = "") -> Incident:
        """Any of the actions by name."""
        if action == "assign":
            return self.assign(incident_id, who, assignee, text)
        if action == "note":
            return self.note(incident_id, who, text)
        if action == "acknowledge":
            return self.acknowledge(incident_id, who, text)
        return self.resolve(incident_id, who, text) if action == "resolve" else self.reopen(incident_id, who, text)

    def create_silence(
        self,
        *,
        author: str,
        reason: str,
        starts_at: int,
        ends_at: int,
        host: str = "*",
        rule: str = "*",
        labels: Mapping[str, str] | None = None,
        at: int | None = None,
    ) -> Silence:
        """Suppress alerts that match, for a time.

        Raises:
            ValueError: no reason, an end before the start, or a silence of everything.
        """
        now = _now(at)
        who, why = _clean(author, MAX_WHO, "author"), _clean(reason, MAX_TEXT, "reason")
        host, rule = _clean(host or "*", MAX_WHO, "host"), _clean(rule or "*", MAX_WHO, "rule")
        labels = {
            _clean(name, MAX_WHO, "label"): _clean(value, MAX_WHO, "label") for name, value in (labels or {}).items()
        }
        if ends_at <= starts_at:
            raise ValueError("the end must be later than the start")
        if ends_at <= now:
            raise ValueError("the end must be in the future")
        if host == "*" and rule == "*" and not labels:
            raise ValueError("say what to silence: a host, a rule or a label")
        silence = Silence(
            "SIL-" + secrets.token_hex(5).upper(), host, rule, labels, starts_at, ends_at, who, why, now, None, None
        )
        with changing(self.engine) as transaction:
            transaction.mark()
            names = tuple(Silence.__dataclass_fields__)
            values = {name: getattr(silence, name) for name in names} | {"labels": _json(dict(sorted(labels.items())))}
            transaction.connection.execute(insert(SILENCES).values(values))
            details = {"host": host, "rule": rule, "labels": labels, "reason": why, "until": ends_at}
            audit.record(
                transaction.connection,
                at=now,
                who=who,
                action="silence.create",
                target=silence.silence_id,
                details=details,
            )
        return silence

    def expire_silence(self, silence_id: str, who: str, *, at: int | None = None) -> Silence:
        """End a silence now; one that ended already stays as it is.

        Raises:
            SilenceNotFound: there is none of that name.
        """
        now, who = _now(at), _clean(who, MAX_WHO, "who")
        with changing(self.engine) as transaction:
            connection = transaction.connection
            row = connection.execute(select(SILENCES).where(SILENCES.c.silence_id == silence_id)).first()
            if row is None:
                raise SilenceNotFound(f"there is no silence {silence_id!r}")
            silence = _silence(row)
            if silence.state(now) == "expired":
                return silence
            transaction.mark()
            ended = {"expired_at": now, "expired_by": who}
            connection.execute(update(SILENCES).where(SILENCES.c.silence_id == silence_id).values(ended))
            audit.record(connection, at=now, who=who, action="silence.expire", target=silence_id)
        return replace(silence, expired_at=now, expired_by=who)

    def _act(
        self, action: Action, incident_id: str, who: str, text: str, at: int | None, values: dict[str, Any]
    ) -> Incident:
        now = _now(at)
        who, text = _clean(who, MAX_WHO, "who"), _clean(text, MAX_TEXT, "text", required=False)
        with changing(self.engine) as transaction:
            connection = transaction.connection
            incident = _load(connection, incident_id)
            if action not in incident.allowed:
                raise ActionNotAllowed(action, incident_id, incident.state, incident.allowed)
            changed = {**values, "touched": True}
            if action == "acknowledge" and incident.acknowledged_at is None:
                changed["acknowledged_at"] = now
            if action == "resolve":
                changed |= {"resolved_at": now, "resolved_by": who, "resolution": text or None}
            kinds = {"acknowledge": "acknowledged", "assign": "assigned", "resolve": "resolved", "reopen": "reopened"}
            _change(connection, incident_id, changed, now, transaction.mark())
            _event(connection, incident_id, now, who, kinds.get(action, "note"), text)
            audit.record(
                connection, at=now, who=who, action=f"incident.{action}", target=incident_id, details={"text": text}
            )
            return _load(connection, incident_id)

    # -- what people ask ----------------------------------------------------------------------------------------------

    def get(self, incident_id: str) -> Incident:
        """An incident with its alerts and timeline.

        Raises:
            IncidentNotFound: there is none of that name.
        """
        with reading(self.engine) as connection:
            incident = _load(connection, incident_id)
            alerts, events = INCIDENT_ALERTS.c, INCIDENT_EVENTS.c
            found = connection.execute(
                select(*_member_columns())
                .where(alerts.incident_id == incident_id)
                .order_by(alerts.starts_at, alerts.alert_id)
            )
            members = [_member(row) for row in found]
            timeline = connection.execute(
                select(INCIDENT_EVENTS).where(events.incident_id == incident_id).order_by(events.event_id)
            )
            return replace(
                incident,
                members=tuple(member for member in members if not member.alert.suppressed),
                suppressed=tuple(member for member in members if member.alert.suppressed),
                events=tuple(_timeline_event(row) for row in timeline),
            )

    def list(
        self,
        *,
        states: Sequence[str] = (),
        priority: int | None = None,
        host: str = "",
        search: str = "",
        limit: int = 200,
        offset: int = 0,
    ) -> tuple[Incident, ...]:
        """Incidents that match, the running and most pressing first. ``host`` is a pattern with ``*``."""
        order = (
            case((INCIDENTS.c.state == "resolved", 1), else_=0),
            case((INCIDENTS.c.state == "resolved", 0), else_=INCIDENTS.c.priority),
            INCIDENTS.c.last_symptom_at.desc(),
            INCIDENTS.c.incident_id,
        )
        conditions = _conditions(states, priority, host, search)
        with reading(self.engine) as connection:
            rows = connection.execute(select(INCIDENTS).where(*conditions).order_by(*order).limit(limit).offset(offset))
            return tuple(_incident(row) for row in rows)

    def counts(self, *, priority: int | None = None, host: str = "", search: str = "") -> dict[str, int]:
        """How many incidents are in each state, for the same filters as ``list``."""
        statement = (
            select(INCIDENTS.c.state, func.count().label("number"))
            .where(*_conditions((), priority, host, search))
            .group_by(INCIDENTS.c.state)
        )
        with reading(self.engine) as connection:
            found = {row.state: row.number for row in connection.execute(statement)}
        return {state: found.get(state, 0) for state in ("open", "acknowledged", "reopened", "resolved")}

    def alerts(
        self, *, state: str = "", host: str = "", since: int | None = None, limit: int = 200, offset: int = 0
    ) -> tuple[Member, ...]:
        """Recent alerts in their present state, newest first, suppressed ones included."""
        table = INCIDENT_ALERTS.c
        conditions: list[ColumnElement[bool]] = []
        if state:
            conditions.append(table.state == state)
        if host:
            conditions.append(table.host.like(_pattern(host), escape="\\"))
        if since is not None:
            conditions.append(table.activity_at >= since)
        statement = select(*_member_columns()).where(*conditions).order_by(table.starts_at.desc(), table.alert_id)
        with reading(self.engine) as connection:
            return tuple(_member(row) for row in connection.execute(statement.limit(limit).offset(offset)))

    def amendments(self, first_hour: str, last_hour: str, limit: int = 1_000) -> tuple[Amendment, ...]:
        """What amendments of hours between two (``YYYY-MM-DDTHH``, both included) said of alerts, newest hour first."""
        table, alerts = ALERT_AMENDMENTS.c, INCIDENT_ALERTS.c
        columns = (
            *(table[name] for name in ("hour", "kind", "reason", "at", "revision", "alert_id")),
            *(alerts.title, alerts.host, alerts.incident_id, INCIDENTS.c.title.label("incident_title")),
        )
        statement = (
            select(*columns)
            .select_from(ALERT_AMENDMENTS)
            .join(INCIDENT_ALERTS, alerts.alert_id == table.alert_id)
            .outerjoin(INCIDENTS, INCIDENTS.c.incident_id == alerts.incident_id)
            .where(table.hour.between(first_hour, last_hour))
            .order_by(table.hour.desc(), table.at.desc(), table.alert_id, table.revision)
        )
        with reading(self.engine) as connection:
            return tuple(Amendment(*row) for row in connection.execute(statement.limit(limit)))

    def pages(self, *, after: int = 0, incident_id: str = "", limit: int = 1_000) -> tuple[Page, ...]:
        """Moments at which somebody is paged, oldest first: those behind a ``page_id``, of all incidents or of one."""
        table = INCIDENT_PAGES.c
        conditions = [table.page_id > after]
        if incident_id:
            conditions.append(table.incident_id == incident_id)
        columns = [table[name] for name in Page.__dataclass_fields__]
        statement = select(*columns).where(*conditions).order_by(table.page_id).limit(limit)
        with reading(self.engine) as connection:
            return tuple(Page(*row) for row in connection.execute(statement))

    def silences(self, *, active_at: int | None = None, limit: int = 500) -> tuple[Silence, ...]:
        """Silences, newest first; with ``active_at`` only those that hold then."""
        table = SILENCES.c
        statement = select(SILENCES).order_by(table.created_at.desc(), table.silence_id).limit(limit)
        if active_at is not None:
            statement = statement.where(
                table.starts_at <= active_at, table.ends_at > active_at, table.expired_at.is_(None)
            )
        with reading(self.engine) as connection:
            return tuple(_silence(row) for row in connection.execute(statement))

    def change_number(self) -> int:
        """Grows with every transaction that changed something; watchers compare it."""
        with reading(self.engine) as connection:
            return change_number(connection)

    def changed_since(self, number: int) -> tuple[int, tuple[str, ...]]:
        """The present change number, and the incidents that changed after ``number``."""
        changed = select(INCIDENTS.c.incident_id).where(INCIDENTS.c.change_number > number).limit(1_000)
        with reading(self.engine) as connection:
            return change_number(connection), tuple(connection.execute(changed).scalars())

    def snapshot(self, now: int, since: int | None = None) -> pl.DataFrame:
        """``tables.INCIDENTS``: what is not resolved, and what changed after ``since``.

        ``since`` is the instant of the snapshot before; by default the start of the day before ``now``'s. Incidents
        that another one took over are among them, with ``merged_into``, so that history does not take them for open.
        """
        day = instant(now).replace(hour=0, minute=0, second=0, microsecond=0)
        recent = INCIDENTS.c.updated_at >= (micros(day - timedelta(days=1)) if since is None else since)
        alerts, events = INCIDENT_ALERTS.c, INCIDENT_EVENTS.c
        with reading(self.engine) as connection:
            chosen = or_(INCIDENTS.c.state != "resolved", recent)
            statement = select(INCIDENTS).where(chosen).order_by(INCIDENTS.c.incident_id)
            incidents = [_incident(row) for row in connection.execute(statement)]
            members: dict[str, list[Any]] = {incident.incident_id: [] for incident in incidents}
            columns = (alerts.incident_id, alerts.alert_id, alerts.state, alerts.kind, alerts.suppressed_by)
            rows = select(*columns).join(INCIDENTS).where(chosen)
            for row in connection.execute(rows.order_by(alerts.starts_at, alerts.alert_id)):
                members[row.incident_id].append(row)
            told = (
                select(events.incident_id, events.kind, func.count().label("times"), func.min(events.at).label("first"))
                .join(INCIDENTS)
                .where(chosen, events.kind.in_(("resolved", "reopened")))
                .group_by(events.incident_id, events.kind)
            )
            turns = {(row.incident_id, row.kind): (row.times, row.first) for row in connection.execute(told)}
        snapshots = [
            _snapshot_row(incident, members[incident.incident_id], turns)
            | {"snapshot_at": now, "day": day.strftime("%Y-%m-%d")}
            for incident in incidents
        ]
        schema = INCIDENTS_TABLE.schema
        plain = {name: pl.Int64() if isinstance(dtype, pl.Datetime) else dtype for name, dtype in schema.items()}
        return pl.DataFrame(snapshots, schema=plain, orient="row").select(
            pl.col(name).cast(dtype) for name, dtype in schema.items()
        )

    def _topology_of(self, config: Config, entities: pl.DataFrame) -> Topology:
        kept = self._topology
        if kept is None or kept[0] is not config or kept[1] is not entities:
            kept = self._topology = (config, entities, Topology.of(config, entities))
        return kept[2]


def _snapshot_row(
    incident: Incident, members: Sequence[Any], turns: Mapping[tuple[str, str], tuple[int, int]]
) -> dict[str, Any]:
    """An incident as its daily snapshot has it. ``turns``: (id, kind of event) → (how often, first instant)."""
    withdrawn = [row for row in members if row.state == "withdrawn"]
    suppressed = [
        row
        for row in members
        if row.state == "suppressed" or (row.state == "resolved" and row.suppressed_by is not None)
    ]
    counted = [row for row in members if row not in withdrawn and row not in suppressed]
    names = (
        "incident_id", "title", "state", "priority", "impact", "urgency", "assignee", "started_at", "opened_at",
        "acknowledged_at", "resolved_at", "resolved_by", "merged_into", "ended_at", "updated_at", "withdrawn_because",
    )  # fmt: skip
    return {name: getattr(incident, name) for name in names} | {
        "hosts": [*incident.hosts],
        "alert_ids": [row.alert_id for row in members],
        "first_resolved_at": turns.get((incident.incident_id, "resolved"), (0, incident.resolved_at))[1],
        "reopened": turns.get((incident.incident_id, "reopened"), (0, 0))[0],
        "alerts": len(counted),
        "suppressed_alerts": len(suppressed),
        "withdrawn_alerts": len(withdrawn),
        "kinds": sorted({row.kind for row in counted}),
    }


def resolved_itself(at: int) -> dict[str, Any]:
    """What is written of an incident that resolved itself at an instant."""
    return {"state": "resolved", "resolved_at": at, "resolved_by": SYSTEM, "resolution": ENDED}


def _now(at: int | None) -> int:
    return time.time_ns() // 1_000 if at is None else at


def _clean(text: str, limit: int, what: str, *, required: bool = True) -> str:
    """Text as people write it, without control characters; refuses what is too long or missing."""
    cleaned = "".join(letter for letter in text if letter in "\n\t" or (letter >= " " and letter != "\x7f")).strip()
    cleaned = cleaned.encode("utf-8", "replace").decode()
    if required and not cleaned:
        raise ValueError(f"{what} is required")
    if len(cleaned) > limit:
        raise ValueError(f"{what} is longer than {limit} characters")
    return cleaned


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _pattern(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%")


def _conditions(states: Sequence[str], priority: int | None, host: str, search: str) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [INCIDENTS.c.merged_into.is_(None)]
    if states:
        conditions.append(INCIDENTS.c.state.in_(tuple(states)))
    if priority is not None:
        conditions.append(INCIDENTS.c.priority == priority)
    alerts = INCIDENT_ALERTS.c
    belongs = alerts.incident_id == INCIDENTS.c.incident_id
    if host:
        conditions.append(
            select(alerts.alert_id).where(belongs, alerts.host.like(_pattern(host), escape="\\")).exists()
        )
    if search:
        wanted = f"%{_pattern(search)}%"
        conditions.append(
            or_(
                INCIDENTS.c.title.ilike(wanted, escape="\\"),
                INCIDENTS.c.incident_id.ilike(wanted, escape="\\"),
                INCIDENTS.c.assignee.ilike(wanted, escape="\\"),
                select(alerts.alert_id).where(belongs, alerts.title.ilike(wanted, escape="\\")).exists(),
            )
        )
    return conditions


def _load(connection: Connection, incident_id: str) -> Incident:
    row = connection.execute(select(INCIDENTS).where(INCIDENTS.c.incident_id == incident_id)).first()
    if row is None:
        raise IncidentNotFound(incident_id)
    return _incident(row)


def _change(connection: Connection, incident_id: str, values: dict[str, Any], now: int, number: int) -> None:
    changed = {**values, "updated_at": now, "change_number": number}
    connection.execute(update(INCIDENTS).where(INCIDENTS.c.incident_id == incident_id).values(changed))


def _event(connection: Connection, incident_id: str, at: int, who: str, kind: str, text: str) -> None:
    row = {"incident_id": incident_id, "at": at, "who": who, "kind": kind, "text": text, "details": "{}"}
    connection.execute(insert(INCIDENT_EVENTS).values(row))


def _incident(row: Row[Any]) -> Incident:
    values = dict(row._mapping)
    found = orjson.loads(values.pop("assessment"))
    del values["touched"], values["held_open"], values["paged_priority"]
    return Incident(
        **values,
        impact_text=found.get("impact_text", ""),
        urgency_text=found.get("urgency_text", ""),
        hosts=tuple(found.get("hosts", ())),
        alerts=found.get("alerts", 0),
        firing=found.get("firing", 0),
        suppressed_alerts=found.get("suppressed", 0),
        withdrawn_alerts=found.get("withdrawn", 0),
        amended_alerts=found.get("amended", 0),
        withdrawn_because=found.get("withdrawn_because"),
        causes=tuple((cause["host"], cause["text"]) for cause in found.get("causes", ())),
        suspects=tuple(Suspect(**suspect) for suspect in found.get("suspects", ())),
        related=tuple(found.get("related", ())),
    )


def _member_columns() -> list[ColumnElement[Any]]:
    table = INCIDENT_ALERTS.c
    return [*(table[name] for name in _ALERT_FIELDS), table.incident_id, table.link, table.link_text]


def _member(row: Row[Any]) -> Member:
    values: Sequence[Any] = row
    return Member(Alert(*values[:-3]), *values[-3:])


def _timeline_event(row: Row[Any]) -> Event:
    details = orjson.loads(row.details)
    changed = tuple(Correction(**entry) for entry in details.pop("corrections", ()))
    known = {name: value for name, value in details.items() if name in Event.__dataclass_fields__}
    known = {"event_time": None, "alert_id": None} | known
    return Event(row.event_id, row.at, row.who, row.kind, row.text, **known, corrections=changed)


def _silence(row: Row[Any]) -> Silence:
    return Silence(**{**row._mapping, "labels": orjson.loads(row.labels)})
