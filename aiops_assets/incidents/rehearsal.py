"""What incidents and pages alerts would give: the rules of the live store, in memory and without side effects.

What belongs here: records in memory and the order in which a log of alerts is taken, for replays, backtests, reports.
What does not: any rule of its own (``correlation``, ``placing``, ``paging``). Nothing here reads a clock, so the same
rows give the same incidents.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import polars as pl

from aiops_assets.config import Config
from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.incidents.correlation import Alert, Change, alerts_of, by_decision, changes_of
from aiops_assets.incidents.placing import Outcome, Placed, Placement, Reach
from aiops_assets.incidents.store import resolved_itself
from aiops_assets.incidents.topology import Topology
from aiops_assets.tables import TIMESTAMP

#: alerts decided within this time are taken together, as a live session does
CHUNK = MICROS_PER_SECOND
_FOR_EVER = 1 << 62

INCIDENTS_SCHEMA: dict[str, pl.DataType] = {
    "incident_id": pl.String(),
    "title": pl.String(),
    "priority": pl.Int32(),
    "started_at": TIMESTAMP,
    "resolved_at": TIMESTAMP,
    "hosts": pl.List(pl.String()),
    "alert_ids": pl.List(pl.String()),
    "withdrawn": pl.Boolean(),
    "suspects": pl.List(pl.String()),
}
PAGES_SCHEMA: dict[str, pl.DataType] = {
    "incident_id": pl.String(),
    "at": TIMESTAMP,
    "priority": pl.Int32(),
    "reason": pl.String(),
}


def incidents_of(
    alerts: pl.DataFrame,
    *,
    config: Config,
    entities: pl.DataFrame,
    changes: pl.DataFrame,
    until: int | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The incidents and pages that a log of alerts gives.

    Args:
        alerts: rows of ``tables.ALERTS``, all revisions, in any order. They are taken by ``changed_at``, what was
            decided within a second together. Revisions that one amendment made of an alert (same ``amended_by``)
            are taken together when the last of them was decided, since that is how they become known.
        entities, changes: rows of their canonical tables; of changes those are known that happened before.
        until: incidents resolve themselves up to this instant (microseconds since the epoch, UTC). Default: the last
            decision.

    Returns:
        ``INCIDENTS_SCHEMA``, by start (``resolved_at`` is null while one runs; ``withdrawn``: all its alerts were;
        ``hosts`` in the order in which to look at them, ``suspects`` the titles of changes that came before, likewise),
        and ``PAGES_SCHEMA``, by instant (``paging`` says when somebody is paged). Incidents that another one took over
        are left out; pages for them are not.
    """
    topology = Topology.of(config, entities)
    known_changes = changes_of(changes, -_FOR_EVER, _FOR_EVER) if changes.height else []
    instants = [change.ts for change in known_changes]
    lookback = round(config.grouping.change_lookback * MICROS_PER_SECOND)
    resolve_after = round(config.grouping.resolve_after * MICROS_PER_SECOND)
    records = MemoryRecords(resolve_after)
    last = -_FOR_EVER
    for rows in _chunks(alerts_of(alerts)):
        last = now = max(last, *(alert.changed_at for alert in rows))
        records.resolve(min(alert.changed_at for alert in rows))
        first = bisect_left(instants, min(alert.starts_at for alert in rows) - lookback)
        nearby = known_changes[first : bisect_right(instants, now)]

        def between(start: int, end: int, nearby: Sequence[Change] = nearby) -> list[Change]:
            return [change for change in nearby if start <= change.ts <= end]

        Placement(records, config, topology, between, now).run(rows)
    records.resolve(last if until is None else until)
    return records.incident_rows(), records.page_rows()


def _chunks(alerts: Sequence[Alert]) -> Iterator[list[Alert]]:
    """Alerts in the groups in which they become known, oldest first."""
    together: dict[tuple[str, str], int] = {}
    for alert in alerts:
        if alert.amended_by:
            key = (alert.alert_id, alert.amended_by)
            together[key] = max(alert.changed_at, together.get(key, alert.changed_at))
    known_at: dict[str, int] = {}
    chunks: dict[int, list[Alert]] = defaultdict(list)
    for alert in by_decision(alerts):
        at = together[alert.alert_id, alert.amended_by] if alert.amended_by else alert.changed_at
        at = known_at[alert.alert_id] = max(at, known_at.get(alert.alert_id, at))
        chunks[at // CHUNK].append(alert)
    for _, rows in sorted(chunks.items()):
        yield rows


class MemoryRecords:
    """``placing.Records`` in memory."""

    def __init__(self, resolve_after: int) -> None:
        self._resolve_after = resolve_after
        self._number = 0
        self._incidents: dict[str, dict[str, Any]] = {}
        self._alerts: dict[str, Placed] = {}
        self._members: dict[str, set[str]] = defaultdict(set)
        #: ("host", …), ("series", …) or ("about", fingerprint) → incident → counted members
        self._places: dict[Any, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        #: the same places → incidents that run, and what was resolved with its instant, ascending (some are stale)
        self._running_at: dict[Any, set[str]] = defaultdict(set)
        self._resolved_at: dict[Any, list[tuple[int, str]]] = defaultdict(list)
        #: metric → start of counted members and their names, ascending (some are stale)
        self._began: dict[str, list[tuple[int, str]]] = defaultdict(list)
        self._running: set[str] = set()
        self._waiting: dict[str, Alert] = {}
        self._due: list[tuple[int, str]] = []
        self._pages: list[dict[str, Any]] = []

    def mark(self) -> int:
        self._number += 1
        return self._number

    def alerts(self, alert_ids: Iterable[str]) -> Iterator[tuple[Alert, str | None]]:
        for alert_id in sorted(set(alert_ids) & self._alerts.keys()):
            placed = self._alerts[alert_id]
            yield placed.alert, placed.incident_id

    def incidents(self, incident_ids: Iterable[str]) -> Iterator[dict[str, Any]]:
        for incident_id in sorted(set(incident_ids)):
            yield self._copy(incident_id)

    def running(self, start: int, end: int) -> Iterator[dict[str, Any]]:
        for incident_id in sorted(self._running):
            if start <= self._incidents[incident_id]["started_at"] <= end:
                yield self._copy(incident_id)

    def members(self, incident_ids: Iterable[str]) -> Iterator[tuple[Alert, str, str, str, int]]:
        for incident_id in sorted(incident_ids):
            for alert_id in sorted(self._members[incident_id]):
                placed = self._alerts[alert_id]
                yield placed.alert, incident_id, str(placed.link), str(placed.link_text), placed.hops

    def nearby(self, reach: Reach) -> Iterator[tuple[Alert, str, int]]:
        found: set[str] = set()
        lasting = [("series", number) for number in reach.series] + [("about", text) for text in reach.fingerprints]
        for place in lasting:
            for incident_id in self._running_at.get(place, ()):
                members = self._places[place][incident_id]
                found |= {one for one in members if self._alerts[one].alert.ends_at is None}
        for host in reach.hosts:
            place = ("host", host)
            for incident_id in self._running_at.get(place, ()):
                members = self._places[place][incident_id]
                found |= {one for one in members if self._alerts[one].activity_at >= reach.floor}
            resolved = self._resolved_at.get(place, [])
            for _, incident_id in resolved[bisect_left(resolved, (reach.floor, "")) :]:
                if self._is_recent(incident_id, reach.floor):
                    found |= self._telling(self._places[place][incident_id], reach.floor)
        for metric in reach.metrics:
            began = self._began.get(metric, [])
            first, last = bisect_left(began, (reach.began[0], "")), bisect_left(began, (reach.began[1] + 1, ""))
            for _, alert_id in began[first:last]:
                placed = self._alerts[alert_id]
                if (
                    placed.incident_id is None
                    or placed.hops
                    or not placed.alert.counted
                    or placed.alert.metric != metric
                ):
                    continue
                running = placed.incident_id in self._running and placed.activity_at >= reach.floor
                if running or self._is_recent(placed.incident_id, reach.floor):
                    found.add(alert_id)
        for alert_id in sorted(found):
            placed = self._alerts[alert_id]
            yield placed.alert, str(placed.incident_id), placed.hops

    def waiting(self, start: int, end: int) -> Iterator[Alert]:
        for alert_id in sorted(self._waiting):
            if start <= self._waiting[alert_id].starts_at <= end:
                yield self._waiting[alert_id]

    def write(self, outcome: Outcome) -> None:
        for placed in outcome.alerts:
            self._forget(placed.alert.alert_id)
            self._remember(placed)
        for row, _ in outcome.incidents:
            self._keep(row)
        self._pages += outcome.pages

    def _forget(self, alert_id: str) -> None:
        self._waiting.pop(alert_id, None)
        before = self._alerts.get(alert_id)
        if before is None or before.incident_id is None:
            return
        self._members[before.incident_id].discard(alert_id)
        for place in _places_of(before.alert):
            members = self._places[place][before.incident_id]
            members.discard(alert_id)
            if not members:
                del self._places[place][before.incident_id]
                self._running_at[place].discard(before.incident_id)

    def _remember(self, placed: Placed) -> None:
        alert, incident_id = placed.alert, placed.incident_id
        known = self._alerts.get(alert.alert_id)
        self._alerts[alert.alert_id] = placed
        if incident_id is None:
            if alert.suppressed and not alert.historic:
                self._waiting[alert.alert_id] = alert
            return
        self._members[incident_id].add(alert.alert_id)
        if not alert.counted:
            return
        for place in _places_of(alert):
            self._places[place][incident_id].add(alert.alert_id)
            if incident_id in self._running:
                self._running_at[place].add(incident_id)
            elif incident_id in self._incidents:
                self._add_resolved(place, incident_id)
        if alert.metric and (known is None or known.incident_id is None or known.alert.starts_at != alert.starts_at):
            insort(self._began[alert.metric], (alert.starts_at, alert.alert_id))

    def resolve(self, at: int) -> None:
        """Resolve what is due at an instant, as ``IncidentStore.auto_resolve`` does."""
        while self._due and self._due[0][0] <= at:
            due_at, incident_id = heapq.heappop(self._due)
            row = self._incidents[incident_id]
            ended_at = row["ended_at"]
            if incident_id in self._running and ended_at is not None and ended_at + self._resolve_after == due_at:
                self._keep({**row, **resolved_itself(due_at)})

    def incident_rows(self) -> pl.DataFrame:
        """``INCIDENTS_SCHEMA`` of everything that was not taken over."""
        kept = [row for row in self._incidents.values() if row["merged_into"] is None]
        rows = [
            {name: row[name] for name in ("incident_id", "title", "priority", "started_at", "resolved_at")}
            | {
                "hosts": row["assessment"].get("hosts", []),
                "alert_ids": self._alert_ids(row["incident_id"]),
                "withdrawn": "withdrawn_because" in row["assessment"],
                "suspects": [entry["title"] for entry in row["assessment"].get("suspects", []) if entry["before"]],
            }
            for row in kept
        ]
        return _frame(rows, INCIDENTS_SCHEMA).sort("started_at", "incident_id")

    def page_rows(self) -> pl.DataFrame:
        """``PAGES_SCHEMA``."""
        return _frame(self._pages, PAGES_SCHEMA).sort("at", "incident_id", maintain_order=True)

    def _alert_ids(self, incident_id: str) -> list[str]:
        members = sorted((self._alerts[alert_id].alert.starts_at, alert_id) for alert_id in self._members[incident_id])
        return [alert_id for _, alert_id in members]

    def _keep(self, row: dict[str, Any]) -> None:
        incident_id = row["incident_id"]
        before = self._incidents.get(incident_id)
        self._incidents[incident_id] = row
        running = row["state"] != "resolved"
        if running and row["ended_at"] is not None and not row["held_open"]:
            heapq.heappush(self._due, (row["ended_at"] + self._resolve_after, incident_id))
        if before is not None and running == (incident_id in self._running):
            return
        places = {
            place
            for alert_id in self._members[incident_id]
            if self._alerts[alert_id].alert.counted
            for place in _places_of(self._alerts[alert_id].alert)
        }
        if running:
            self._running.add(incident_id)
        else:
            self._running.discard(incident_id)
        for place in places:
            if running:
                self._running_at[place].add(incident_id)
            else:
                self._running_at[place].discard(incident_id)
                self._add_resolved(place, incident_id)

    def _add_resolved(self, place: Any, incident_id: str) -> None:
        entry = (int(self._incidents[incident_id]["resolved_at"]), incident_id)
        listed = self._resolved_at[place]
        position = bisect_left(listed, entry)
        if position == len(listed) or listed[position] != entry:
            listed.insert(position, entry)

    def _telling(self, members: set[str], floor: int) -> set[str]:
        """Of members of a resolved incident those that links could tell apart: the older ones only by their place."""
        telling: dict[Any, tuple[int, str]] = {}
        for alert_id in members:
            placed = self._alerts[alert_id]
            alert = placed.alert
            recent = alert_id if placed.activity_at >= floor else ""
            place = (recent, alert.host, alert.series_id, alert.fingerprint, alert.metric)
            best = (placed.hops, alert_id)
            telling[place] = min(best, telling.get(place, best))
        return {alert_id for _, alert_id in telling.values()}

    def _is_recent(self, incident_id: str, floor: int) -> bool:
        row = self._incidents[incident_id]
        return incident_id not in self._running and row["merged_into"] is None and row["resolved_at"] >= floor

    def _copy(self, incident_id: str) -> dict[str, Any]:
        row = self._incidents[incident_id]
        return {**row, "assessment": dict(row["assessment"])}


def _places_of(alert: Alert) -> Iterator[Any]:
    yield ("host", alert.host)
    yield ("about", alert.fingerprint)
    if alert.series_id is not None:
        yield ("series", alert.series_id)


def _frame(rows: Sequence[dict[str, Any]], schema: dict[str, pl.DataType]) -> pl.DataFrame:
    plain = {name: pl.Int64() if isinstance(dtype, pl.Datetime) else dtype for name, dtype in schema.items()}
    frame = pl.DataFrame(list(rows), schema=plain, orient="row")
    return frame.select(pl.col(name).cast(dtype) for name, dtype in schema.items())
