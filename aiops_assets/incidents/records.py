"""What ``placing`` reads and writes, in the operations database.

What belongs here: the queries of one ``IncidentStore.apply`` and its writing. What does not: any rule. ``rehearsal``
has the same records in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import orjson
from sqlalchemy import Connection, Table, and_, bindparam, insert, null, or_, select, update

from aiops_assets.incidents.correlation import Alert
from aiops_assets.incidents.placing import Outcome, Reach
from aiops_assets.operations.database import Changing
from aiops_assets.operations.models import (
    ALERT_AMENDMENTS,
    INCIDENT_ALERTS,
    INCIDENT_EVENTS,
    INCIDENT_PAGES,
    INCIDENTS,
)

_SUPPRESSED = or_(
    INCIDENT_ALERTS.c.state == "suppressed",
    and_(INCIDENT_ALERTS.c.state == "resolved", INCIDENT_ALERTS.c.suppressed_by.is_not(None)),
)
_ALERT_COLUMNS = [INCIDENT_ALERTS.c[name] for name in Alert.__dataclass_fields__]
#: what links need of an alert; texts are left in the database
_PLACING = frozenset({"alert_id", "revision", "fingerprint", "state", "severity_number", "host", "metric", "series_id"})
_PLACING |= {"labels", "starts_at", "ends_at", "changed_at"}
#: values of one IN clause
_CHUNK = 5_000
#: suppressed alerts looked at when an incident grows
_MAX_WAITING = 1_000


class DatabaseRecords:
    """The records of one transaction."""

    def __init__(self, changing: Changing) -> None:
        self._connection: Connection = changing.connection
        self._changing = changing

    def mark(self) -> int:
        return self._changing.mark()

    def alerts(self, alert_ids: Iterable[str]) -> Iterator[tuple[Alert, str | None]]:
        columns = (*_ALERT_COLUMNS, INCIDENT_ALERTS.c.incident_id)
        for chunk in _chunks(sorted(set(alert_ids))):
            for row in self._connection.execute(select(*columns).where(INCIDENT_ALERTS.c.alert_id.in_(chunk))):
                yield Alert(*row[:-1]), row[-1]

    def incidents(self, incident_ids: Iterable[str]) -> Iterator[dict[str, Any]]:
        for chunk in _chunks(sorted(set(incident_ids))):
            for row in self._connection.execute(select(INCIDENTS).where(INCIDENTS.c.incident_id.in_(chunk))):
                yield {**row._mapping, "assessment": orjson.loads(row.assessment)}

    def running(self, start: int, end: int) -> Iterator[dict[str, Any]]:
        began = INCIDENTS.c.started_at.between(start, end)
        for row in self._connection.execute(select(INCIDENTS).where(INCIDENTS.c.state != "resolved", began)):
            yield {**row._mapping, "assessment": orjson.loads(row.assessment)}

    def members(self, incident_ids: Iterable[str]) -> Iterator[tuple[Alert, str, str, str, int]]:
        table = INCIDENT_ALERTS.c
        columns = (*_ALERT_COLUMNS, table.incident_id, table.link, table.link_text, table.hops)
        for chunk in _chunks(sorted(incident_ids)):
            for row in self._connection.execute(select(*columns).where(table.incident_id.in_(chunk))):
                yield Alert(*row[:-4]), *row[-4:]

    def nearby(self, reach: Reach) -> Iterator[tuple[Alert, str, int]]:
        table = INCIDENT_ALERTS.c
        columns = [table[name] if name in _PLACING else null().label(name) for name in Alert.__dataclass_fields__]
        running = INCIDENTS.c.state != "resolved"
        recent = or_(
            and_(running, table.activity_at >= reach.floor), and_(~running, INCIDENTS.c.resolved_at >= reach.floor)
        )
        lasting = and_(running, table.ends_at.is_(None))
        conditions = [and_(lasting, table.series_id.in_(chunk)) for chunk in _chunks(sorted(reach.series))]
        conditions += [and_(lasting, table.fingerprint.in_(chunk)) for chunk in _chunks(sorted(reach.fingerprints))]
        conditions += [and_(recent, table.host.in_(chunk)) for chunk in _chunks(sorted(reach.hosts))]
        if reach.metrics:
            began = table.starts_at.between(*reach.began)
            for chunk in _chunks(sorted(reach.metrics)):
                conditions.append(and_(recent, began, table.hops == 0, table.metric.in_(chunk)))
        for condition in conditions:
            statement = (
                select(*columns, table.incident_id, table.hops)
                .join(INCIDENTS, INCIDENTS.c.incident_id == table.incident_id)
                .where(condition, ~_SUPPRESSED, table.state != "withdrawn", INCIDENTS.c.merged_into.is_(None))
            )
            for row in self._connection.execute(statement):
                yield Alert(*row[:-2]), *row[-2:]

    def waiting(self, start: int, end: int) -> Iterator[Alert]:
        table = INCIDENT_ALERTS.c
        statement = select(*_ALERT_COLUMNS).where(
            table.incident_id.is_(None),
            _SUPPRESSED,
            table.starts_at.between(start, end),
            ~table.suppressed_by.startswith("history"),
        )
        for row in self._connection.execute(statement.limit(_MAX_WAITING)):
            yield Alert(*row)

    def write(self, outcome: Outcome) -> None:
        incidents = [
            ({**row, "assessment": orjson.dumps(row["assessment"]).decode()}, born) for row, born in outcome.incidents
        ]
        _insert(self._connection, INCIDENTS, [row for row, born in incidents if born])
        _replace(self._connection, INCIDENTS, "incident_id", [row for row, born in incidents if not born])
        alerts = [
            (
                asdict(placed.alert)
                | {
                    "incident_id": placed.incident_id,
                    "link": placed.link,
                    "link_text": placed.link_text,
                    "hops": placed.hops,
                    "activity_at": placed.activity_at,
                },
                placed.stored,
            )
            for placed in outcome.alerts
        ]
        _insert(self._connection, INCIDENT_ALERTS, [values for values, stored in alerts if not stored])
        _replace(self._connection, INCIDENT_ALERTS, "alert_id", [values for values, stored in alerts if stored])
        events = [event | {"details": orjson.dumps(event["details"]).decode()} for event in outcome.events]
        _insert(self._connection, INCIDENT_EVENTS, events)
        _insert(self._connection, ALERT_AMENDMENTS, outcome.amendments)
        _insert(self._connection, INCIDENT_PAGES, outcome.pages)


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
