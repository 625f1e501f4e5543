"""Putting revisions of alerts into incidents, inside one transaction.

What belongs here: the working set of one ``IncidentStore.apply`` (which incidents are touched, joined, merged,
reopened, withdrawn). What does not: the rules by which alerts belong together (``correlation``), when somebody is paged
(``paging``), and where records lie (``records``; in memory for ``rehearsal``).

**Amendments.** A revision with ``amended_by`` says that an hour was derived again and something else came out. What
people expect of it, and what happens:

- *Corrected*: the alert stays where it is and shows what is now known; the timeline says what changed and why. An
  alert that fires after all reopens its incident, unless a person resolved it while the alert was firing.
- *Withdrawn*: it stays listed and counts for nothing any more. When nothing that could have opened the incident is
  left, the incident is resolved as withdrawn. What a person resolved or reopened stays as the person left it, marked.
  No later alert joins through what is withdrawn. If it is restored, the incident goes on as if nothing had happened.
- *Found late and still firing*: like any other alert; it opens an incident (and pages) when nothing is there to join.
- *Found late and over*: it joins the incident that ran beside it in event time, without reopening it, without merging
  incidents and without keeping it open. Where there is none, an incident is opened that is resolved from the start,
  pages nobody and links to later alerts as if it had been resolved in its time. All revisions that come together count
  as one: what began and ended before anybody knew never runs.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from aiops_assets.config import Config
from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.incidents.amendments import (
    FOUND,
    WITHDRAWN,
    amendment_text,
    corrections,
    hour_of,
    kind_of,
    tells_the_end,
)
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
    label_map,
    new_revisions,
    suspects,
)
from aiops_assets.incidents.paging import Standing, page_reason
from aiops_assets.incidents.topology import Topology

#: who acts when no person does
SYSTEM = "aiops"
_STRONG = frozenset({"same_series", "same_host", "dependency"})
#: what a firing alert said, which stays readable when it has ended
_WRONG = ("title", "value", "threshold", "evidence")


@dataclass(frozen=True, slots=True)
class Reach:
    """Which members a new alert could link to. Instants are microseconds since the epoch (UTC).

    Members of the same series or fingerprint that fire; and of incidents active since ``floor``: members on the hosts,
    and those of a metric that began between two instants at distance 0.
    """

    floor: int
    series: frozenset[int]
    fingerprints: frozenset[str]
    hosts: frozenset[str]
    metrics: frozenset[str]
    began: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Placed:
    """An alert as it is written: where it belongs and why; ``stored`` says that it was there before."""

    alert: Alert
    incident_id: str | None
    link: str | None
    link_text: str | None
    hops: int
    stored: bool

    @property
    def activity_at(self) -> int:
        alert = self.alert
        return max(alert.starts_at, alert.changed_at, alert.ends_at or alert.starts_at)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a transaction writes. ``incidents`` are rows with whether they are new; the rest are rows to add."""

    incidents: list[tuple[dict[str, Any], bool]]
    alerts: list[Placed]
    events: list[dict[str, Any]]
    amendments: list[dict[str, Any]]
    pages: list[dict[str, Any]]


class Records(Protocol):
    """Where incidents and alerts lie. Rows of incidents have their assessment as a dictionary of the caller's own."""

    def mark(self) -> int:
        """The change number of this transaction."""
        ...

    def alerts(self, alert_ids: Iterable[str]) -> Iterator[tuple[Alert, str | None]]:
        """Known alerts and the incidents they belong to."""
        ...

    def incidents(self, incident_ids: Iterable[str]) -> Iterator[dict[str, Any]]:
        """Incidents by id."""
        ...

    def running(self, start: int, end: int) -> Iterator[dict[str, Any]]:
        """Incidents that run and began between two instants."""
        ...

    def members(self, incident_ids: Iterable[str]) -> Iterator[tuple[Alert, str, str, str, int]]:
        """All alerts of incidents: alert, incident, link, its text, hops."""
        ...

    def nearby(self, reach: Reach) -> Iterator[tuple[Alert, str, int]]:
        """Counted members that a new alert could link to: alert (its texts may be missing), incident, hops."""
        ...

    def waiting(self, start: int, end: int) -> Iterator[Alert]:
        """Suppressed alerts without an incident that began between two instants; not imported history."""
        ...

    def write(self, outcome: Outcome) -> None:
        """Keep what was decided."""
        ...


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
    #: as it was before this transaction
    before: Standing | None = None

    @property
    def standing(self) -> Standing:
        return Standing(not self.resolved, self.row["priority"], self.row["paged_priority"])

    @property
    def linked_until(self) -> int | None:
        """When it was over, for links: one that was found when it was over was so in its own time."""
        if self.found:
            return int(self.row["ended_at"])
        return None if self.row["resolved_at"] is None else int(self.row["resolved_at"])

    @property
    def found(self) -> bool:
        """Whether it was opened when it was over already."""
        return self.resolved and (self.row["resolution"] or "").startswith(FOUND)

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
    """The working set of one ``apply``. ``now`` is microseconds since the epoch (UTC).

    ``changes`` gives the changes between two instants (microseconds, both included), oldest first.
    """

    def __init__(
        self,
        records: Records,
        config: Config,
        topology: Topology,
        changes: Callable[[int, int], Sequence[Change]],
        now: int,
    ) -> None:
        self._records = records
        self._config, self._topology, self._now = config, topology, now
        self._changes_between = changes
        self._changes = ChangeIndex(())
        self._board = Board(topology)
        self._cases: dict[str, Case] = {}
        self._alerts: dict[str, tuple[Alert, str | None]] = {}
        self._stored: set[str] = set()
        self._dirty_alerts: set[str] = set()
        self._loose: dict[str, Alert] = {}
        self._events: list[dict[str, Any]] = []
        self._amendments: list[dict[str, Any]] = []
        self._pages: list[dict[str, Any]] = []

    def run(self, rows: Sequence[Alert]) -> list[str]:
        """Take the revisions that are new, look at changes, write; the incidents touched, in order."""
        fresh = self._together(self._load_known(rows))
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
            self._page(case)
        if dirty or self._dirty_alerts:
            self._records.mark()
            incidents = [(case.row, case.born) for case in dirty]
            written = Outcome(incidents, self._placed(), self._events, self._amendments, self._pages)
            self._records.write(written)
        return sorted(case.incident_id for case in dirty)

    def _together(self, fresh: Sequence[Alert]) -> list[Alert]:
        """What was found late begins and ends at once: of its revisions that come together the last one counts."""
        first: dict[str, Alert] = {}
        last: dict[str, Alert] = {}
        for alert in fresh:
            first.setdefault(alert.alert_id, alert)
            last[alert.alert_id] = alert
        taken = []
        for alert in fresh:
            found = first[alert.alert_id]
            if alert.alert_id in self._alerts or not found.amended_by or found is last[alert.alert_id]:
                taken.append(alert)
            elif alert is last[alert.alert_id]:
                whole = replace(alert, amended_by=alert.amended_by or found.amended_by)
                taken.append(whole if whole.active else _keep_what_was_wrong(found, whole))
        return taken

    # -- taking revisions -------------------------------------------------------------------------------------------

    def _take(self, alert: Alert) -> None:
        before, incident_id = self._alerts.get(alert.alert_id, (None, None))
        if alert.amended_by:
            self._amendments.append(self._amendment(before, alert))
        if incident_id is None:
            if not alert.withdrawn and (before is None or alert.active or (alert.amended_by and alert.counted)):
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
        if alert.withdrawn:
            return False
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
        told, reason = alert.title, alert.amended_by
        ended = alert.state == "resolved" and before.state != "resolved" and not reason
        if alert.withdrawn or ended or (tells_the_end(alert) and not tells_the_end(before)):
            alert = _keep_what_was_wrong(before, alert)
        # A correction stays visible when the alert goes on after it.
        member.alert = alert if reason else replace(alert, amended_by=before.amended_by)
        self._alerts[alert.alert_id] = (member.alert, case.incident_id)
        self._dirty_alerts.add(alert.alert_id)
        case.dirty = True
        if reason:
            self._show_again(case)
            self._tell_amendment(case, before, alert)
        elif alert.counted:
            self._board.put(case.incident_id, alert, member.hops, case.linked_until)
        if alert.state == before.state or alert.withdrawn:
            return
        if before.withdrawn:
            self._restore(case)
        if alert.state == "firing":
            if not reason:
                self._event(case, "alert_joined", f"{alert.title} – fires again", alert, alert.changed_at)
            if case.resolved and case.row["merged_into"] is None and not (reason and _left_firing(case, before)):
                self._reopen(case, alert)
        elif reason:
            return
        elif alert.state == "resolved":
            if before.state == "firing":
                self._event(case, "alert_ended", f"{told} – ended", alert, alert.ends_at)
        elif alert.state == "suppressed":
            self._event(case, "alert_suppressed", f"{alert.title} – suppressed by {alert.suppressed_by}", alert)

    def _show_again(self, case: Case) -> None:
        """Put an incident on the board anew: a correction may have taken away what it linked by."""
        if self._board.drop(case.incident_id):
            for member in case.members.values():
                if member.alert.counted:
                    self._board.put(case.incident_id, member.alert, member.hops, case.linked_until)

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
        if _over_when_found(alert):
            links.sort(key=lambda link: (link.kind not in _STRONG, link.order))
            self._join(self._case(links[0].incident_id), alert, links[0])
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
            "resolution": None,
            "paged_priority": None,
            "merged_into": None,
            "touched": False,
            "held_open": False,
            "assessment": {},
            "updated_at": self._now,
            "change_number": 0,
        }
        case = Case(row, born=True, complete=True)
        self._cases[incident_id] = case
        over = _over_when_found(alert)
        if over:
            resolution = f"{FOUND} when it was over: {alert.amended_by}"
            row |= {"state": "resolved", "resolved_at": self._now, "resolved_by": SYSTEM, "resolution": resolution}
            row["ended_at"] = alert.over_at
        text = "opened the incident" + (f", {FOUND}" if alert.amended_by else "")
        self._enter(case, alert, Member(alert, "opened", text, 0))
        self._event(case, "opened", alert.title, alert, alert.starts_at)
        if alert.amended_by:
            self._tell_amendment(case, None, alert)
        if not alert.active:
            self._event(case, "alert_ended", f"{alert.title} – ended", alert, alert.ends_at)
        if over:
            self._event(case, "resolved", str(row["resolution"]))

    def _join(self, case: Case, alert: Alert, link: Link) -> None:
        text = link.text + (f", {FOUND}" if alert.amended_by else "")
        if case.found and alert.over_at is not None:
            case.row["ended_at"] = max(int(case.row["ended_at"]), alert.over_at)
        self._enter(case, alert, Member(alert, link.kind, text, link.hops))
        if not _over_when_found(alert):
            case.row["held_open"] = False
        self._event(case, "alert_joined", f"{alert.title} – joined: {link.text}", alert, alert.starts_at)
        if alert.amended_by:
            self._tell_amendment(case, None, alert)
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
        self._board.put(case.incident_id, alert, member.hops, case.linked_until)

    def _reopen(self, case: Case, alert: Alert) -> None:
        case.row |= {"state": "reopened", "resolved_at": None, "resolved_by": None, "resolution": None}
        case.row["paged_priority"] = None
        self._board.settle(case.incident_id, None)
        self._event(case, "reopened", alert.title, alert)

    def _restore(self, case: Case) -> None:
        """What was withdrawn is true after all: the incident goes on in the state that the withdrawal ended."""
        state = case.assessment.pop("state_before_withdrawal", None)
        if case.assessment.pop("withdrawn_because", None) is None:
            return
        if state is not None and case.resolved and case.row["resolved_by"] == SYSTEM:
            case.row |= {"state": state, "resolved_at": None, "resolved_by": None, "resolution": None}
            case.row["paged_priority"] = None
            self._board.settle(case.incident_id, None)
            self._event(case, "restored", f"no longer withdrawn; it is {state} again")
        else:
            self._event(case, "restored", "no longer withdrawn")

    def _withdraw(self, case: Case, members: Sequence[Alert]) -> None:
        """Nothing is left that could have opened the incident: it is over, unless people decided about it."""
        reasons = dict.fromkeys(alert.amended_by for alert in members if alert.withdrawn and alert.amended_by)
        because = "; ".join(str(reason) for reason in list(reasons)[-3:])
        case.assessment["withdrawn_because"] = because
        text = f"{WITHDRAWN}: {because}"
        if case.row["held_open"] or case.row["merged_into"] is not None:
            self._event(case, "withdrawn", f"all its alerts are {text}")
        elif not case.resolved:
            case.assessment["state_before_withdrawal"] = case.row["state"]
            case.row |= {
                "state": "resolved",
                "resolved_at": self._now,
                "resolved_by": SYSTEM,
                "resolution": text,
            }
            self._event(case, "resolved", text)
        else:
            if case.row["resolved_by"] == SYSTEM:
                case.row["resolution"] = text
            self._event(case, "withdrawn", f"all its alerts are {text}")

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
            if member.alert.counted:
                self._board.put(keeper.incident_id, member.alert, hops, keeper.linked_until)
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
                "resolution": f"merged into {keeper.incident_id}",
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
        found = self._records.waiting(min(joined) - window, max(joined) + window)
        waiting = {alert.alert_id: alert for alert in found}
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
        for row in self._records.running(min(instants), max(instants) + lookback):
            case = self._cases.get(row["incident_id"]) or self._adopt(row)
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
        case.row |= {"updated_at": self._now, "change_number": self._records.mark()}
        if not members:
            return
        counted = [alert for alert in members if alert.counted]
        withdrawn = [alert for alert in members if alert.withdrawn]
        numbers = {
            "alerts": len(counted),
            "firing": sum(alert.active for alert in counted),
            "suppressed": sum(alert.suppressed for alert in members),
            "withdrawn": len(withdrawn),
            "amended": sum(alert.amended_by is not None and not alert.withdrawn for alert in members),
        }
        nothing_left = bool(withdrawn) and all(alert.severity_number < MIN_SEVERITY for alert in counted)
        if nothing_left and "hosts" in case.assessment:
            # What was said of it stays, so that people recognise it.
            case.assessment.update(numbers)
            case.row["ended_at"] = max(int(alert.over_at or alert.starts_at) for alert in (*withdrawn, *counted))
        else:
            self._say(case, counted or withdrawn or members, numbers)
        if nothing_left and "withdrawn_because" not in case.assessment:
            self._withdraw(case, members)

    def _say(self, case: Case, counted: Sequence[Alert], numbers: dict[str, int]) -> None:
        """What its alerts say of an incident: title, priority, suspects and the rest."""
        changes = self._changes_of(case)
        found = assess(counted, topology=self._topology, changes=changes, config=self._config)
        before = case.assessment
        after = assessment_json(found) | numbers
        after |= {name: before[name] for name in ("related",) if name in before}
        after.setdefault("related", [])
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
        }

    def _page(self, case: Case) -> None:
        reason = page_reason(case.before, case.standing)
        if reason is None:
            return
        case.row["paged_priority"] = case.row["priority"]
        page = {"incident_id": case.incident_id, "at": self._now, "priority": case.row["priority"], "reason": reason}
        self._pages.append(page)

    def _amendment(self, before: Alert | None, alert: Alert) -> dict[str, Any]:
        return {
            "alert_id": alert.alert_id,
            "revision": alert.revision,
            "hour": hour_of(alert),
            "kind": kind_of(before, alert),
            "reason": alert.amended_by,
            "at": self._now,
        }

    def _tell_amendment(self, case: Case, before: Alert | None, alert: Alert) -> None:
        kind = kind_of(before, alert)
        found = corrections(before, alert) if before is not None and kind != "withdrawn" else ()
        details = {
            "revision": alert.revision,
            "amendment": kind,
            "title": alert.title,
            "reason": alert.amended_by,
            "corrections": [asdict(entry) for entry in found],
        }
        at = alert.starts_at if before is None else None
        self._event(case, "amendment", amendment_text(kind, alert, found), alert, at, details)

    def _event(
        self,
        case: Case,
        kind: str,
        text: str,
        alert: Alert | None = None,
        at: int | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        details = dict(details or {})
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
                "details": details,
            }
        )

    # -- loading and writing ----------------------------------------------------------------------------------------

    def _load_known(self, rows: Sequence[Alert]) -> list[Alert]:
        for alert, incident_id in self._records.alerts({alert.alert_id for alert in rows}):
            self._alerts[alert.alert_id] = (alert, incident_id)
            self._stored.add(alert.alert_id)
        return new_revisions(rows, {alert_id: alert.revision for alert_id, (alert, _) in self._alerts.items()})

    def _load_changes(self, fresh: Sequence[Alert], window: int) -> None:
        lookback = round(self._config.grouping.change_lookback * MICROS_PER_SECOND)
        start = min([alert.starts_at for alert in fresh], default=self._now) - window - 2 * lookback
        self._changes = ChangeIndex(self._changes_between(start, self._now + window))

    def _load_board(self, arriving: Sequence[Alert], window: int) -> None:
        """Members that a new alert could link to."""
        scoped = [a for a in arriving if a.metric and self._topology.scopes(a.host, label_map(a.labels))]
        starts = [alert.starts_at for alert in scoped]
        reach = Reach(
            floor=min(alert.starts_at for alert in arriving) - window,
            series=frozenset(alert.series_id for alert in arriving if alert.series_id is not None),
            fingerprints=frozenset(alert.fingerprint for alert in arriving),
            hosts=frozenset(self._near(arriving)),
            metrics=frozenset(str(alert.metric) for alert in scoped),
            began=(min(starts, default=0) - NEARBY, max(starts, default=0) + NEARBY),
        )
        members = {alert.alert_id: (alert, owner, hops) for alert, owner, hops in self._records.nearby(reach)}
        self._load_cases({incident_id for _, incident_id, _ in members.values()})
        for alert, incident_id, hops in members.values():
            self._board.put(incident_id, alert, hops, self._cases[incident_id].linked_until)

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
        for row in self._records.incidents(set(incident_ids) - self._cases.keys()):
            self._adopt(row)

    def _case(self, incident_id: str) -> Case:
        self._load_cases([incident_id])
        return self._cases[incident_id]

    def _owner(self, alert_id: str) -> str | None:
        return self._alerts[alert_id][1] if alert_id in self._alerts else None

    def _adopt(self, row: dict[str, Any]) -> Case:
        case = Case(row)
        case.before = case.standing
        self._cases[case.incident_id] = case
        return case

    def _complete(self, *cases: Case) -> None:
        """Load all members of cases; those changed in this transaction stay as they are."""
        missing = {case.incident_id: case for case in cases if not case.complete}
        for alert, incident_id, link, link_text, hops in self._records.members(missing):
            self._stored.add(alert.alert_id)
            current, owner = self._alerts.setdefault(alert.alert_id, (alert, incident_id))
            if owner == incident_id:
                missing[incident_id].members.setdefault(alert.alert_id, Member(current, link, link_text, hops))
        for case in missing.values():
            case.complete = True

    def _placed(self) -> list[Placed]:
        places = {
            alert_id: (case.incident_id, member)
            for case in self._cases.values()
            for alert_id, member in case.members.items()
            if alert_id in self._dirty_alerts
        }
        placed = []
        for alert_id in sorted(self._dirty_alerts):
            alert, stored = self._alerts[alert_id][0], alert_id in self._stored
            if alert_id in places:
                incident_id, member = places[alert_id]
                placed.append(Placed(alert, incident_id, member.link, member.link_text, member.hops, stored))
            else:
                placed.append(Placed(alert, None, None, None, 0, stored))
        return placed


def _keep_what_was_wrong(before: Alert, alert: Alert) -> Alert:
    """The end says how it ended, a withdrawal nothing: what people need to see stays what was wrong."""
    kept: dict[str, Any] = {name: getattr(before, name) for name in _WRONG}
    return replace(alert, **kept)


def _over_when_found(alert: Alert) -> bool:
    """Whether nobody could know of an alert before it was over."""
    return bool(alert.amended_by) and alert.counted and not alert.active


def _left_firing(case: Case, before: Alert) -> bool:
    """Whether a person resolved an incident although this alert fired then."""
    over_at = before.over_at
    return case.row["resolved_by"] != SYSTEM and (over_at is None or over_at > int(case.row["resolved_at"]))
