"""Putting revisions of alerts into incidents, inside one transaction of the operations database.

What belongs here: the working set of one ``IncidentStore.apply`` (which incidents are touched, joined, merged,
reopened) and its loading and writing. The rules by which alerts belong together are in ``correlation``.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import orjson
import polars as pl
from sqlalchemy import Connection, Row, Table, and_, bindparam, insert, null, or_, select, update

from aiops_assets.config import Config
from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.incidents.correlation import (
    MAX_HOPS,
    MIN_SEVERITY,
    NEARBY,
    Alert,
    Board,
    Change,
    ChangeIndex,
    Link,
    assess,
    assessment_json,
    changes_of,
    label_map,
    new_revisions,
    suspects,
)
from aiops_assets.incidents.topology import Topology
from aiops_assets.operations.database import Changing
from aiops_assets.operations.models import INCIDENT_ALERTS, INCIDENT_EVENTS, INCIDENTS

#: who acts when no person does
SYSTEM = "aiops"
_STRONG = frozenset({"same_series", "same_host", "dependency"})
_SUPPRESSED = or_(
    INCIDENT_ALERTS.c.state == "suppressed",
    and_(INCIDENT_ALERTS.c.state == "resolved", INCIDENT_ALERTS.c.suppressed_by.is_not(None)),
)
_ALERT_COLUMNS = [INCIDENT_ALERTS.c[name] for name in Alert.__dataclass_fields__]
#: values of one IN clause
_CHUNK = 5_000


@dataclass(slots=True)
class Member:
    """An alert in an incident, and how it came there."""

    alert: Alert
    link: str
    link_text: str
    hops: int


@dataclass(slots=True)
class Case:
    """An incident while it is being worked on. ``row`` holds the columns of the incidents table."""

    row: dict[str, Any]
    born: bool = False
    complete: bool = False
    members: dict[str, Member] = field(default_factory=dict)
    dirty: bool = False

    @property
    def incident_id(self) -> str:
        return str(self.row["incident_id"])

    @property
    def resolved(self) -> bool:
        return self.row["state"] == "resolved"

    @property
    def assessment(self) -> dict[str, Any]:
        return self.row["assessment"]


def incident_id_of(alert_id: str) -> str:
    """``INC-`` and ten base32 characters of the hash of the alert that opens the incident."""
    return "INC-" + base64.b32encode(hashlib.sha256(alert_id.encode()).digest())[:10].decode()


class Placement:
    """The working set of one ``apply``. ``now`` is microseconds since the epoch (UTC)."""

    def __init__(self, changing: Changing, config: Config, topology: Topology, changes: pl.DataFrame, now: int) -> None:
        self._connection = changing.connection
        self._changing = changing
        self._config, self._topology, self._now = config, topology, now
        self._changes_frame = changes
        self._changes = ChangeIndex(())
        self._board = Board(topology)
        self._cases: dict[str, Case] = {}
        self._alerts: dict[str, tuple[Alert, str | None]] = {}
        self._stored: set[str] = set()
        self._dirty_alerts: set[str] = set()
        self._loose: dict[str, Alert] = {}
        self._events: list[dict[str, Any]] = []

    def run(self, rows: Sequence[Alert]) -> list[str]:
        """Take the revisions that are new, look at changes, write; the incidents touched, in order."""
        fresh = self._load_known(rows)
        window = round(self._config.grouping.window * MICROS_PER_SECOND)
        current = [alert for alert in fresh if not alert.historic]
        self._load_changes(current, window)
        owners = {self._owner(alert.alert_id) for alert in fresh} - {None}
        self._load_cases(str(owner) for owner in owners)
        self._complete(*(self._cases[str(owner)] for owner in owners))
        arriving = [self._as_symptom(alert) for alert in current if self._may_be_placed(alert)]
        if arriving:
            self._load_board(arriving, window)
        for alert in fresh:
            self._take(alert)
        self._adopt_suppressed(window)
        self._look_for_changes()
        dirty = [case for case in self._cases.values() if case.dirty]
        self._complete(*dirty)
        for case in dirty:
            self._assess(case)
        if dirty or self._dirty_alerts:
            self._changing.mark()
            self._write_incidents(dirty)
            self._write_alerts()
        return sorted(case.incident_id for case in dirty)

    # -- taking revisions -------------------------------------------------------------------------------------------

    def _take(self, alert: Alert) -> None:
        before, incident_id = self._alerts.get(alert.alert_id, (None, None))
        if incident_id is None:
            if before is None or alert.active:
                self._place(alert)
            else:
                self._keep_loose(alert)
            return
        assert before is not None  # noqa: S101
        case = self._case(incident_id)
        if self._outlived(case, before, alert):
            case.members.pop(alert.alert_id)
            case.dirty = True
            self._place(alert)
        else:
            self._revise(case, before, alert)

    def _may_be_placed(self, alert: Alert) -> bool:
        before, incident_id = self._alerts.get(alert.alert_id, (None, None))
        return before is None or incident_id is None or self._outlived(self._case(incident_id), before, alert)

    def _as_symptom(self, alert: Alert) -> Alert:
        """The alert as links see it: one whose suppression ended begins to concern people at that moment."""
        before, _ = self._alerts.get(alert.alert_id, (None, None))
        released = before is not None and before.suppressed and alert.active
        return replace(alert, starts_at=alert.changed_at) if released else alert

    def _outlived(self, case: Case, before: Alert, alert: Alert) -> bool:
        """Whether an alert that was only shown as suppressed fires now that its incident is long over."""
        if not (before.suppressed and alert.active and case.resolved) or case.members[alert.alert_id].link == "opened":
            return False
        window = round(self._config.grouping.window * MICROS_PER_SECOND)
        return alert.changed_at > int(case.row["resolved_at"]) + window

    def _revise(self, case: Case, before: Alert, alert: Alert) -> None:
        member = case.members[alert.alert_id]
        told = alert.title
        if alert.state == "resolved" and before.state != "resolved" and not alert.amended_by:
            # The end says how it ended; what people need to see stays what was wrong.
            kept = {name: getattr(before, name) for name in ("title", "value", "threshold", "evidence")}
            alert = replace(alert, **kept)
        member.alert = alert
        self._alerts[alert.alert_id] = (alert, case.incident_id)
        self._dirty_alerts.add(alert.alert_id)
        if not alert.suppressed:
            self._board.put(case.incident_id, alert, member.hops, case.row["resolved_at"])
        case.dirty = True
        if alert.amended_by and alert.amended_by != before.amended_by:
            self._event(case, "alert_amended", f"{alert.title} – corrected: {alert.amended_by}", alert)
        if alert.state == before.state:
            return
        if alert.state == "resolved":
            if before.state == "firing":
                self._event(case, "alert_ended", f"{told} – ended", alert, alert.ends_at)
        elif alert.state == "suppressed":
            self._event(case, "alert_suppressed", f"{alert.title} – suppressed by {alert.suppressed_by}", alert)
        else:
            self._event(case, "alert_joined", f"{alert.title} – fires again", alert, alert.changed_at)
            if case.resolved and case.row["merged_into"] is None:
                self._reopen(case, alert)

    def _place(self, alert: Alert) -> None:
        if alert.historic:
            self._keep_loose(alert)
            return
        links = self._board.links(self._as_symptom(alert), self._changes, self._config.grouping)
        if alert.suppressed:
            running = [link for link in links if not self._case(link.incident_id).resolved]
            if running:
                self._show_suppressed(alert, running[0])
            else:
                self._keep_loose(alert)
            return
        if alert.severity_number < MIN_SEVERITY:
            running = [link for link in links if not self._case(link.incident_id).resolved]
            if running:
                self._join(self._case(running[0].incident_id), alert, running[0])
            else:
                self._keep_loose(alert)
            return
        if not links:
            self._open(alert)
            return
        links.sort(key=lambda link: (link.kind not in _STRONG, self._case(link.incident_id).resolved, link.order))
        case, link = self._merge(links)
        self._join(case, alert, link)
        over_before = alert.over_at is not None and case.resolved and alert.over_at <= case.row["resolved_at"]
        if case.resolved and not over_before:
            self._reopen(case, alert)

    def _open(self, alert: Alert) -> None:
        incident_id = incident_id_of(alert.alert_id)
        row = {
            "incident_id": incident_id,
            "title": "",
            "state": "open",
            "priority": 5,
            "impact": 3,
            "urgency": 3,
            "assignee": None,
            "started_at": alert.starts_at,
            "last_symptom_at": alert.starts_at,
            "ended_at": None,
            "opened_at": self._now,
            "acknowledged_at": None,
            "resolved_at": None,
            "resolved_by": None,
            "merged_into": None,
            "touched": False,
            "held_open": False,
            "assessment": {},
            "updated_at": self._now,
            "change_number": 0,
        }
        case = Case(row, born=True, complete=True)
        self._cases[incident_id] = case
        self._enter(case, alert, Member(alert, "opened", "opened the incident", 0))
        self._event(case, "opened", alert.title, alert, alert.starts_at)
        if not alert.active:
            self._event(case, "alert_ended", f"{alert.title} – ended", alert, alert.ends_at)

    def _join(self, case: Case, alert: Alert, link: Link) -> None:
        self._enter(case, alert, Member(alert, link.kind, link.text, link.hops))
        case.row["held_open"] = False
        self._event(case, "alert_joined", f"{alert.title} – joined: {link.text}", alert, alert.starts_at)
        if not alert.active:
            self._event(case, "alert_ended", f"{alert.title} – ended", alert, alert.ends_at)

    def _show_suppressed(self, alert: Alert, link: Link) -> None:
        case = self._case(link.incident_id)
        self._loose.pop(alert.alert_id, None)
        case.members[alert.alert_id] = Member(alert, link.kind, link.text, link.hops)
        case.dirty = True
        self._alerts[alert.alert_id] = (alert, case.incident_id)
        self._dirty_alerts.add(alert.alert_id)
        text = f"{alert.title} – would have joined ({link.text}), suppressed by {alert.suppressed_by}"
        self._event(case, "suppressed", text, alert, alert.starts_at)

    def _keep_loose(self, alert: Alert) -> None:
        self._loose[alert.alert_id] = alert
        self._alerts[alert.alert_id] = (alert, None)
        self._dirty_alerts.add(alert.alert_id)

    def _enter(self, case: Case, alert: Alert, member: Member) -> None:
        self._loose.pop(alert.alert_id, None)
        case.members[alert.alert_id] = member
        case.dirty = True
        self._alerts[alert.alert_id] = (alert, case.incident_id)
        self._dirty_alerts.add(alert.alert_id)
        self._board.put(case.incident_id, alert, member.hops, case.row["resolved_at"])

    def _reopen(self, case: Case, alert: Alert) -> None:
        case.row |= {"state": "reopened", "resolved_at": None, "resolved_by": None}
        self._board.settle(case.incident_id, None)
        self._event(case, "reopened", alert.title, alert)

    # -- merging ----------------------------------------------------------------------------------------------------

    def _merge(self, links: Sequence[Link]) -> tuple[Case, Link]:
        """Merge the running incidents that an alert ties together; the incident to join and the link to it."""
        first = links[0]
        if first.kind not in _STRONG or self._case(first.incident_id).resolved:
            return self._case(first.incident_id), first
        tied = [link for link in links if link.kind in _STRONG and not self._case(link.incident_id).resolved]
        tied.sort(
            key=lambda link: (
                not self._case(link.incident_id).row["touched"],
                self._case(link.incident_id).born,
                self._case(link.incident_id).row["started_at"],
                link.incident_id,
            )
        )
        kept, *others = tied
        keeper = self._case(kept.incident_id)
        for link in others:
            other = self._case(link.incident_id)
            if other.row["touched"] or kept.hops + link.hops > MAX_HOPS:
                self._relate(keeper, other)
            else:
                self._absorb(keeper, other, kept.hops + link.hops)
        return keeper, kept

    def _absorb(self, keeper: Case, other: Case, distance: int) -> None:
        self._complete(keeper)
        self._complete(other)
        self._board.drop(other.incident_id)
        for alert_id, member in other.members.items():
            text = member.link_text if other.born else f"{member.link_text} (came with {other.incident_id})"
            hops = min(MAX_HOPS, member.hops + distance)
            keeper.members[alert_id] = Member(member.alert, member.link, text, hops)
            self._alerts[alert_id] = (member.alert, keeper.incident_id)
            self._dirty_alerts.add(alert_id)
            if not member.alert.suppressed:
                self._board.put(keeper.incident_id, member.alert, hops, keeper.row["resolved_at"])
        other.members = {}
        if other.born:
            del self._cases[other.incident_id]
            for event in self._events:
                if event["incident_id"] == other.incident_id:
                    event["incident_id"] = keeper.incident_id
                    if event["kind"] == "opened":
                        event["kind"] = "alert_joined"
        else:
            other.dirty = True
            other.row |= {
                "state": "resolved",
                "resolved_at": self._now,
                "resolved_by": SYSTEM,
                "merged_into": keeper.incident_id,
            }
            self._event(other, "merged", f"its alerts now belong to {keeper.incident_id}")
            self._event(keeper, "merged", f"took over the alerts of {other.incident_id}: {other.row['title']}")
        keeper.dirty = True

    def _relate(self, one: Case, other: Case) -> None:
        for case, relative in ((one, other), (other, one)):
            related = case.assessment.setdefault("related", [])
            if relative.incident_id not in related:
                related.append(relative.incident_id)
                case.dirty = True
                self._event(case, "related", f"an alert links it with {relative.incident_id}; both stay open")

    # -- looking around ---------------------------------------------------------------------------------------------

    def _adopt_suppressed(self, window: int) -> None:
        """Show suppressed alerts that came before the incident which they would have joined."""
        grown = [case for case in self._cases.values() if case.dirty and not case.resolved]
        joined = [
            member.alert.starts_at
            for case in grown
            for alert_id, member in case.members.items()
            if alert_id in self._dirty_alerts and member.alert.active and alert_id not in self._stored
        ]
        if not joined:
            return
        table = INCIDENT_ALERTS.c
        statement = select(*_ALERT_COLUMNS).where(
            table.incident_id.is_(None),
            _SUPPRESSED,
            table.starts_at.between(min(joined) - window, max(joined) + window),
            ~table.suppressed_by.startswith("history"),
        )
        waiting = {row[0]: _alert(row) for row in self._connection.execute(statement.limit(1_000))}
        self._stored |= waiting.keys()
        waiting |= {
            alert_id: alert for alert_id, alert in self._loose.items() if alert.suppressed and not alert.historic
        }
        for alert_id, alert in waiting.items():
            if self._owner(alert_id) is not None:
                continue
            links = self._board.links(alert, self._changes, self._config.grouping)
            running = [link for link in links if not self._case(link.incident_id).resolved]
            if running:
                self._show_suppressed(alert, running[0])

    def _look_for_changes(self) -> None:
        """Touch running incidents beside which a change has become known since they were assessed."""
        instants = [change.ts for change in self._changes.changes]
        if not instants:
            return
        lookback = round(self._config.grouping.change_lookback * MICROS_PER_SECOND)
        statement = select(INCIDENTS).where(
            INCIDENTS.c.state != "resolved", INCIDENTS.c.started_at.between(min(instants), max(instants) + lookback)
        )
        for row in self._connection.execute(statement):
            case = self._cases.get(row.incident_id) or self._adopt(row)
            listed = {suspect["change_id"] for suspect in case.assessment.get("suspects", [])}
            hosts = case.assessment.get("hosts", [])
            span = (case.row["started_at"], case.row["last_symptom_at"])
            found = suspects(hosts, *span, self._changes_of(case), self._topology, self._config.grouping)
            if any(suspect.change.change_id not in listed for suspect in found):
                case.dirty = True

    def _changes_of(self, case: Case) -> ChangeIndex:
        """The changes at hand, and those listed before that the caller no longer hands over."""
        at_hand = {change.change_id for change in self._changes.changes}
        listed = [
            Change(**{name: suspect[name] for name in Change.__dataclass_fields__})
            for suspect in case.assessment.get("suspects", [])
            if suspect["change_id"] not in at_hand
        ]
        return ChangeIndex([*self._changes.changes, *listed]) if listed else self._changes

    def _assess(self, case: Case) -> None:
        members = [member.alert for member in case.members.values()]
        if not members:
            case.row |= {"updated_at": self._now, "change_number": self._changing.mark()}
            return
        counted = [alert for alert in members if not alert.suppressed]
        changes = self._changes_of(case)
        found = assess(counted or members, topology=self._topology, changes=changes, config=self._config)
        before = case.assessment
        after = assessment_json(found)
        after["related"] = before.get("related", [])
        after["alerts"] = len(counted)
        after["firing"] = sum(alert.active for alert in counted)
        after["suppressed"] = len(members) - len(counted)
        listed = {suspect["change_id"] for suspect in before.get("suspects", [])}
        for suspect in after["suspects"]:
            if suspect["change_id"] not in listed:
                about = f"{suspect['kind']} “{suspect['title']}” {suspect['text']}"
                self._event(case, "change", about, at=suspect["ts"])
        priority = found.priority
        if not case.born and case.row["priority"] != priority.priority:
            why = (
                f"impact {priority.impact}: {priority.impact_text}; urgency {priority.urgency}: {priority.urgency_text}"
            )
            self._event(case, "priority", f"P{case.row['priority']} → P{priority.priority}: {why}")
        case.row |= {
            "title": found.title,
            "priority": priority.priority,
            "impact": priority.impact,
            "urgency": priority.urgency,
            "started_at": found.started_at,
            "last_symptom_at": found.last_symptom_at,
            "ended_at": found.ended_at,
            "assessment": after,
            "updated_at": self._now,
            "change_number": self._changing.mark(),
        }

    def _event(self, case: Case, kind: str, text: str, alert: Alert | None = None, at: int | None = None) -> None:
        details: dict[str, Any] = {}
        if alert is not None:
            details["alert_id"] = alert.alert_id
        if at is not None:
            details["event_time"] = at
        self._events.append(
            {
                "incident_id": case.incident_id,
                "at": self._now,
                "who": SYSTEM,
                "kind": kind,
                "text": text,
                "details": orjson.dumps(details).decode(),
            }
        )

    # -- loading and writing ----------------------------------------------------------------------------------------

    def _load_known(self, rows: Sequence[Alert]) -> list[Alert]:
        columns = (*_ALERT_COLUMNS, INCIDENT_ALERTS.c.incident_id)
        for chunk in _chunks(sorted({alert.alert_id for alert in rows})):
            for row in self._connection.execute(select(*columns).where(INCIDENT_ALERTS.c.alert_id.in_(chunk))):
                self._alerts[row.alert_id] = (_alert(row[:-1]), row[-1])
                self._stored.add(row.alert_id)
        return new_revisions(rows, {alert_id: alert.revision for alert_id, (alert, _) in self._alerts.items()})

    def _load_changes(self, fresh: Sequence[Alert], window: int) -> None:
        lookback = round(self._config.grouping.change_lookback * MICROS_PER_SECOND)
        start = min([alert.starts_at for alert in fresh], default=self._now) - window - 2 * lookback
        self._changes = ChangeIndex(changes_of(self._changes_frame, start, self._now + window))

    def _load_board(self, arriving: Sequence[Alert], window: int) -> None:
        """Members that a new alert could link to; texts that do not matter for that are left in the database."""
        table = INCIDENT_ALERTS.c
        placing = {
            "host",
            "metric",
            "series_id",
            "fingerprint",
            "labels",
            "starts_at",
            "ends_at",
            "changed_at",
            "state",
        }
        placing |= {"alert_id", "revision", "severity_number"}
        columns = [table[name] if name in placing else null().label(name) for name in Alert.__dataclass_fields__]
        floor = min(alert.starts_at for alert in arriving) - window
        running = INCIDENTS.c.state != "resolved"
        recent = or_(and_(running, table.activity_at >= floor), and_(~running, INCIDENTS.c.resolved_at >= floor))
        lasting = and_(running, table.ends_at.is_(None))
        series = sorted({alert.series_id for alert in arriving if alert.series_id is not None})
        fingerprints = sorted({alert.fingerprint for alert in arriving})
        reach = [and_(lasting, table.series_id.in_(chunk)) for chunk in _chunks(series)]
        reach += [and_(lasting, table.fingerprint.in_(chunk)) for chunk in _chunks(fingerprints)]
        reach += [and_(recent, table.host.in_(chunk)) for chunk in _chunks(sorted(self._near(arriving)))]
        scoped = [a for a in arriving if a.metric and self._topology.scopes(a.host, label_map(a.labels))]
        if scoped:
            starts = [alert.starts_at for alert in scoped]
            nearby = table.starts_at.between(min(starts) - NEARBY, max(starts) + NEARBY)
            for chunk in _chunks(sorted({str(alert.metric) for alert in scoped})):
                reach.append(and_(recent, nearby, table.hops == 0, table.metric.in_(chunk)))
        members: dict[str, tuple[Alert, str, int]] = {}
        for condition in reach:
            statement = (
                select(*columns, table.incident_id, table.hops)
                .join(INCIDENTS, INCIDENTS.c.incident_id == table.incident_id)
                .where(condition, ~_SUPPRESSED, INCIDENTS.c.merged_into.is_(None))
            )
            for row in self._connection.execute(statement):
                members[row.alert_id] = (_alert(row[:-2]), row.incident_id, row.hops)
        self._load_cases({incident_id for _, incident_id, _ in members.values()})
        for alert, incident_id, hops in members.values():
            self._board.put(incident_id, alert, hops, self._cases[incident_id].row["resolved_at"])

    def _near(self, arriving: Sequence[Alert]) -> set[str]:
        """Hosts whose incidents a new alert could join."""
        near: set[str] = set()
        for alert in arriving:
            near |= {alert.host, *self._topology.upstream(alert.host), *self._topology.downstream(alert.host)}
            for service in self._topology.direct_services(alert.host):
                near |= set(self._topology.parts(service))
            for _, others in self._changes.shared_with(alert, self._topology, self._config.grouping):
                near |= others
        return near

    def _load_cases(self, incident_ids: Iterable[str]) -> None:
        for chunk in _chunks(sorted(set(incident_ids) - self._cases.keys())):
            for row in self._connection.execute(select(INCIDENTS).where(INCIDENTS.c.incident_id.in_(chunk))):
                self._adopt(row)

    def _case(self, incident_id: str) -> Case:
        self._load_cases([incident_id])
        return self._cases[incident_id]

    def _owner(self, alert_id: str) -> str | None:
        return self._alerts[alert_id][1] if alert_id in self._alerts else None

    def _adopt(self, row: Row[Any]) -> Case:
        case = Case({**row._mapping, "assessment": orjson.loads(row.assessment)})
        self._cases[case.incident_id] = case
        return case

    def _complete(self, *cases: Case) -> None:
        """Load all members of cases; those changed in this transaction stay as they are."""
        missing = {case.incident_id: case for case in cases if not case.complete}
        table = INCIDENT_ALERTS.c
        columns = (*_ALERT_COLUMNS, table.incident_id, table.link, table.link_text, table.hops)
        for chunk in _chunks(sorted(missing)):
            for row in self._connection.execute(select(*columns).where(table.incident_id.in_(chunk))):
                alert, case = _alert(row[:-4]), missing[row.incident_id]
                self._stored.add(alert.alert_id)
                current, owner = self._alerts.setdefault(alert.alert_id, (alert, case.incident_id))
                if owner == case.incident_id:
                    case.members.setdefault(alert.alert_id, Member(current, row.link, row.link_text, row.hops))
        for case in missing.values():
            case.complete = True

    def _write_incidents(self, cases: Sequence[Case]) -> None:
        rows = [({**case.row, "assessment": orjson.dumps(case.assessment).decode()}, case.born) for case in cases]
        _insert(self._connection, INCIDENTS, [row for row, born in rows if born])
        _replace(self._connection, INCIDENTS, "incident_id", [row for row, born in rows if not born])

    def _write_alerts(self) -> None:
        places = {
            alert_id: (case.incident_id, member)
            for case in self._cases.values()
            for alert_id, member in case.members.items()
        }
        fresh: list[dict[str, Any]] = []
        changed: list[dict[str, Any]] = []
        for alert_id in sorted(self._dirty_alerts):
            alert = self._alerts[alert_id][0]
            incident_id, member = places.get(alert_id, (None, None))
            values: dict[str, Any] = asdict(alert) | {
                "incident_id": incident_id,
                "link": member.link if member else None,
                "link_text": member.link_text if member else None,
                "hops": member.hops if member else 0,
                "activity_at": max(alert.starts_at, alert.changed_at, alert.ends_at or alert.starts_at),
            }
            (changed if alert_id in self._stored else fresh).append(values)
        _insert(self._connection, INCIDENT_ALERTS, fresh)
        _replace(self._connection, INCIDENT_ALERTS, "alert_id", changed)
        _insert(self._connection, INCIDENT_EVENTS, self._events)


def _alert(values: Sequence[Any]) -> Alert:
    return Alert(*values)


def _insert(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(insert(table), rows)


def _replace(connection: Connection, table: Table, key: str, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    parameter = {name: f"new_{name}" for name in rows[0]}
    values: dict[str, Any] = {name: bindparam(parameter[name]) for name in rows[0] if name != key}
    statement = update(table).where(table.c[key] == bindparam(parameter[key])).values(values)
    connection.execute(statement, [{parameter[name]: value for name, value in row.items()} for row in rows])


def _chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]
