"""How alerts, incidents and pages compare with a truth. Pure functions; nothing here reads a clock or a file.

What belongs here: the definitions, each written at the place where it is counted. What does not: running a storm
(``passage``), the shape of a truth (``truth``) and how a score is shown (``report``).

**Firing.** A stretch in which an alert of severity warning or worse fired, neither suppressed nor withdrawn. What an
amendment found afterwards (its first firing revision has ``amended_by``) told nobody in time: it detects nothing and is
counted apart.

**Explained.** A firing is explained by a fault when it is on a series that the fault touches and was *decided* between
the beginning of the fault's effect on it and ``RECOVERY`` after its end: going back to normal may look as odd as
leaving it. What fired before a fault began is never explained by it, however long it lasts. An alert is *right* when a
fault explains one of its firings, else it is a *false alarm*; an incident is right when one of its alerts is; a page is
right when an explained alert of its incident had fired by then.

**Found.** A fault is found when a firing is explained by it that was decided before its recovery began: what only its
end sets off comes too late. It is *paged* when meanwhile a page was sent for an incident of which an alert that it
explains had fired by then: of what joins an incident that is open for another reason nobody was told.

**Delay.** From the start of the fault, and from when it could be seen in principle, to the first firing that it
explains; never below zero. Event time, as everything: what a live session adds (about a second) is not in it.

**Shift.** Eight hours. Rates are given for the measured fleet and for 10,000 series at the same rate a series.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import polars as pl

from aiops_assets.evaluation.truth import Benign, Fault, Symptom, Truth
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND
from aiops_assets.incidents.placing import incident_id_of

#: OpenTelemetry severity below which an alert is a notice and opens no incident (13 is WARN)
WARNING = 13
#: a firing decided this long after a fault's end is still about it
RECOVERY = 900 * MICROS_PER_SECOND
#: alerts of the same second are taken together, so a page may bear the instant of any of them
TOGETHER = MICROS_PER_SECOND
SHIFT_HOURS = 8.0
#: kind of alerts about hosts that fell silent
ABSENCE = "absence"

FIRINGS_SCHEMA: dict[str, pl.DataType] = {
    "alert_id": pl.String(),
    "kind": pl.String(),
    "name": pl.String(),
    "host": pl.String(),
    "metric": pl.String(),
    "labels": pl.String(),
    "severity_number": pl.Int32(),
    "title": pl.String(),
    "fired_at": pl.Int64(),
    "ended_at": pl.Int64(),
    "in_time": pl.Boolean(),
}


@dataclass(frozen=True, slots=True)
class FaultScore:
    """What became of one fault. Instants are microseconds since the epoch (UTC), delays are seconds.

    Attributes:
        alerts: how many alerts it explains.
        incidents: the incidents that they are in, the one that was told first in front.
        rank: place of the true root among the hosts to look at of that incident (1 is best), ``None`` when it is not
            among them.
        change_rank: place of the causing change among its suspects; ``None`` when there is none or it is not listed.
        mixed_with: other faults, of other matters, that share one of its incidents.
    """

    fault: Fault
    found_at: int | None = None
    paged_at: int | None = None
    alerts: int = 0
    incidents: tuple[str, ...] = ()
    rank: int | None = None
    change_rank: int | None = None
    mixed_with: tuple[str, ...] = ()

    @property
    def found(self) -> bool:
        return self.found_at is not None

    @property
    def delay(self) -> float | None:
        """Seconds from the start of the fault to the first firing."""
        return None if self.found_at is None else max(0, self.found_at - self.fault.start) / MICROS_PER_SECOND

    @property
    def delay_visible(self) -> float | None:
        """Seconds from when it could be seen in principle to the first firing."""
        return None if self.found_at is None else max(0, self.found_at - self.fault.visible_at) / MICROS_PER_SECOND


@dataclass(frozen=True, slots=True)
class BenignScore:
    """What an ordinary event set off: alerts on its hosts while it lasted that no fault explains."""

    event: Benign
    alerts: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Things told to people, and how many of them a fault explains."""

    total: int
    right: int

    @property
    def wrong(self) -> int:
        return self.total - self.right

    @property
    def precision(self) -> float | None:
        """Share that a fault explains; ``None`` when nothing was told."""
        return self.right / self.total if self.total else None


@dataclass(frozen=True, slots=True)
class Grouping:
    """How well explained alerts were put together, by pairs of them.

    Two alerts belong together when faults of one matter (``Fault.incident``) explain both. ``pairs_together`` of them
    belong together, ``pairs_joined`` share an incident, ``pairs_both`` do both. ``split`` matters lie in more than one
    incident, ``merged`` incidents hold more than one matter. ``foreign`` are false alarms within right incidents.
    """

    pairs_together: int = 0
    pairs_joined: int = 0
    pairs_both: int = 0
    split: int = 0
    merged: int = 0
    foreign: int = 0

    @property
    def precision(self) -> float | None:
        """Of pairs that share an incident, the share that belongs together."""
        return self.pairs_both / self.pairs_joined if self.pairs_joined else None

    @property
    def recall(self) -> float | None:
        """Of pairs that belong together, the share that shares an incident."""
        return self.pairs_both / self.pairs_together if self.pairs_together else None


@dataclass(frozen=True, slots=True)
class Volume:
    """How much went in. ``points`` and ``anomalies`` are rows of the scored period."""

    series: int = 0
    points: int = 0
    events: int = 0
    deliveries: int = 0
    anomalies: int = 0
    quarantined: int = 0


@dataclass(frozen=True, slots=True)
class StormScore:
    """Everything that is told of one storm."""

    scenario: str
    seed: int
    start: int
    end: int
    volume: Volume
    faults: tuple[FaultScore, ...]
    benign: tuple[BenignScore, ...]
    alerts: Counts
    incidents: Counts
    pages: Counts
    notices: int
    found_late: int
    grouping: Grouping
    problems: tuple[str, ...] = ()
    seconds: float = 0.0
    #: false alarms by what raised them, the most frequent first
    false_alarms: Mapping[str, int] = field(default_factory=dict)

    @property
    def found(self) -> tuple[FaultScore, ...]:
        return tuple(fault for fault in self.faults if fault.found)

    @property
    def recall(self) -> float | None:
        """Share of faults that were found; ``None`` without faults."""
        return len(self.found) / len(self.faults) if self.faults else None

    @property
    def recall_paged(self) -> float | None:
        """Share of faults for which somebody was paged."""
        return sum(fault.paged_at is not None for fault in self.faults) / len(self.faults) if self.faults else None

    @property
    def shifts(self) -> float:
        """Shifts of eight hours in the scored period."""
        return (self.end - self.start) / MICROS_PER_HOUR / SHIFT_HOURS

    @property
    def compression(self) -> float | None:
        """1 − incidents / alerts; ``None`` without alerts."""
        return 1.0 - self.incidents.total / self.alerts.total if self.alerts.total else None

    @property
    def benign_mistaken(self) -> int:
        """Ordinary events that set off an alert."""
        return sum(event.alerts > 0 for event in self.benign)

    def per_shift(self, count: float) -> float:
        """A count of the scored period as a rate for a shift."""
        return count / self.shifts if self.shifts else 0.0

    def per_shift_and_10k(self, count: float) -> float:
        """The same for a fleet of 10,000 series."""
        return self.per_shift(count) * 10_000 / self.volume.series if self.volume.series else 0.0

    def hits(self, within: int) -> int:
        """Found faults whose true root stands within the first so many hosts to look at."""
        return sum(fault.rank is not None and fault.rank <= within for fault in self.found)

    @property
    def reciprocal_rank(self) -> float | None:
        """Mean reciprocal rank of the true root over found faults; one that is not listed counts 0."""
        found = self.found
        return sum(1.0 / fault.rank if fault.rank else 0.0 for fault in found) / len(found) if found else None

    def by_kind(self) -> dict[str, tuple[int, int]]:
        """Kind of fault → (found, all)."""
        total = Counter(fault.fault.kind for fault in self.faults)
        found = Counter(fault.fault.kind for fault in self.found)
        return {kind: (found[kind], total[kind]) for kind in sorted(total)}


def firings_of(alerts: pl.DataFrame) -> pl.DataFrame:
    """Stretches in which alerts fired.

    Args:
        alerts: rows of ``tables.ALERTS``, all revisions, in any order.

    Returns:
        ``FIRINGS_SCHEMA`` by ``fired_at``: the instant of the decision and that of its end (microseconds, null while it
        fires). ``in_time`` is false for what an amendment found. Notices are there with their severity, which is the
        worst of the stretch.
    """
    instants = ("changed_at", "starts_at")
    rows = (
        alerts.with_columns(pl.col(name).dt.epoch("us") for name in instants)
        .unique(["alert_id", "revision"], keep="last")
        .sort("alert_id", "revision")
    )
    firings: list[dict[str, Any]] = []
    running: dict[str, Any] | None = None
    previous = ""
    for row in rows.iter_rows(named=True):
        if row["alert_id"] != previous:
            previous, running = row["alert_id"], None
        if row["state"] == "firing":
            if running is None or running["severity_number"] < WARNING <= row["severity_number"]:
                # A notice that becomes a warning concerns people from then on.
                if running is not None:
                    running["ended_at"] = row["changed_at"]
                running = {name: row[name] for name in FIRINGS_SCHEMA if name in row}
                running |= {"fired_at": row["changed_at"], "ended_at": None, "in_time": not row["amended_by"]}
                firings.append(running)
            running["severity_number"] = max(running["severity_number"], row["severity_number"])
        elif running is not None:
            running["ended_at"] = row["changed_at"]
            running = None
    return pl.DataFrame(firings, schema=FIRINGS_SCHEMA, orient="row").sort("fired_at", "alert_id")


class Explanations:
    """Which faults explain a firing."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._faults = faults
        self._by_host: dict[str, list[tuple[int, Symptom]]] = defaultdict(list)
        for number, fault in enumerate(faults):
            for symptom in fault.symptoms:
                self._by_host[symptom.host].append((number, symptom))

    def of(self, kind: str, host: str, metric: str | None, labels: str | None, fired_at: int) -> list[int]:
        """Numbers of the faults that explain a firing decided at an instant (microseconds).

        A firing about silence is explained by any series of its host that falls silent, one without a metric (of
        another system, of logs) by anything that the fault does to its host.
        """
        found = {
            number
            for number, symptom in self._by_host.get(host, ())
            if symptom.start <= fired_at <= symptom.end + RECOVERY and _shows_in(symptom, kind, metric, labels)
        }
        return sorted(found)


def _shows_in(symptom: Symptom, kind: str, metric: str | None, labels: str | None) -> bool:
    if metric is None:
        return True
    if kind == ABSENCE:
        return symptom.silent
    return symptom.metric == metric and (symptom.labels is None or labels is None or symptom.labels == labels)


@dataclass(frozen=True, slots=True)
class _Firing:
    alert_id: str
    fired_at: int
    faults: tuple[int, ...]
    about: str


def score(
    truth: Truth,
    alerts: pl.DataFrame,
    incidents: pl.DataFrame,
    pages: pl.DataFrame,
    *,
    scenario: str = "",
    seed: int = 0,
    volume: Volume | None = None,
    problems: Sequence[str] = (),
    seconds: float = 0.0,
) -> StormScore:
    """Compare what was told with what happened.

    Args:
        truth: only what was decided within it is counted.
        alerts: rows of ``tables.ALERTS``, all revisions.
        incidents, pages: as ``rehearsal.incidents_of`` gives them.
    """
    in_period = pl.col("fired_at").is_between(truth.start, truth.end)
    all_firings = firings_of(alerts).filter(in_period)
    notices = all_firings.filter(pl.col("severity_number") < WARNING)["alert_id"].n_unique()
    serious = all_firings.filter(pl.col("severity_number") >= WARNING)
    late = serious.filter(~pl.col("in_time"))["alert_id"].n_unique()
    explanations = Explanations(truth.faults)
    firings = [_firing(row, explanations) for row in serious.filter("in_time").iter_rows(named=True)]
    explained: dict[str, set[int]] = defaultdict(set)
    for firing in firings:
        explained[firing.alert_id].update(firing.faults)
    owners = {
        alert_id: incident_id
        for incident_id, alert_ids in incidents.select("incident_id", "alert_ids").iter_rows()
        for alert_id in alert_ids
        if alert_id in explained
    }
    told = _told(pages, firings, owners, truth)
    about = {firing.alert_id: firing.about for firing in firings}
    wrong = Counter(about[alert_id] for alert_id, faults in explained.items() if not faults)
    right_incidents = {owners[alert_id] for alert_id, faults in explained.items() if faults and alert_id in owners}
    touched = set(owners.values())
    return StormScore(
        scenario=scenario,
        seed=seed,
        start=truth.start,
        end=truth.end,
        volume=volume or Volume(),
        faults=tuple(_fault_scores(truth.faults, firings, owners, incidents, told)),
        benign=tuple(_benign_scores(truth.benign, serious, explained)),
        alerts=Counts(len(explained), sum(bool(faults) for faults in explained.values())),
        incidents=Counts(len(touched), len(touched & right_incidents)),
        pages=Counts(len(told), sum(bool(faults) for *_, faults in told)),
        notices=notices,
        found_late=late,
        grouping=_grouping(truth.faults, explained, owners),
        problems=tuple(problems),
        seconds=seconds,
        false_alarms=dict(wrong.most_common()),
    )


def _firing(row: Mapping[str, Any], explanations: Explanations) -> _Firing:
    faults = explanations.of(row["kind"], row["host"], row["metric"], row["labels"], row["fired_at"])
    about = f"{row['name']}: {row['metric']}" if row["metric"] else row["name"]
    return _Firing(row["alert_id"], row["fired_at"], tuple(faults), about)


#: (incident, instant, faults that explain an alert of it by then)
_Page = tuple[str, int, frozenset[int]]


def _told(pages: pl.DataFrame, firings: Iterable[_Firing], owners: Mapping[str, str], truth: Truth) -> list[_Page]:
    """Pages within the period; one of an incident that another took over is judged by the alert that opened it."""
    of_incident: dict[str, list[_Firing]] = defaultdict(list)
    for firing in firings:
        opened = incident_id_of(firing.alert_id)
        of_incident[opened].append(firing)
        owner = owners.get(firing.alert_id, opened)
        if owner != opened:
            of_incident[owner].append(firing)
    found: list[_Page] = []
    for incident_id, at in pages.select("incident_id", pl.col("at").dt.epoch("us")).iter_rows():
        if truth.start <= at <= truth.end:
            known = (firing for firing in of_incident[incident_id] if firing.fired_at <= at + TOGETHER)
            found.append((incident_id, at, frozenset(number for firing in known for number in firing.faults)))
    return found


def _fault_scores(
    faults: Sequence[Fault],
    firings: Sequence[_Firing],
    owners: Mapping[str, str],
    incidents: pl.DataFrame,
    told: Sequence[_Page],
) -> Iterable[FaultScore]:
    rows = {row["incident_id"]: row for row in incidents.iter_rows(named=True)}
    by_fault: dict[int, list[_Firing]] = defaultdict(list)
    matters: dict[str, set[int]] = defaultdict(set)
    for firing in firings:
        for number in firing.faults:
            by_fault[number].append(firing)
            if firing.alert_id in owners:
                matters[owners[firing.alert_id]].add(number)
    for number, fault in enumerate(faults):
        mine = sorted(by_fault[number], key=lambda firing: firing.fired_at)
        mine_in = tuple(dict.fromkeys(owners[firing.alert_id] for firing in mine if firing.alert_id in owners))
        alerts = len({firing.alert_id for firing in mine})
        if not mine or mine[0].fired_at >= fault.recovers_at:
            yield FaultScore(fault, alerts=alerts, incidents=mine_in)
            continue
        paged = [at for _, at, explained in told if number in explained and fault.start <= at < fault.recovers_at]
        others = {other for incident in mine_in for other in matters[incident]}
        first = rows.get(mine_in[0]) if mine_in else None
        yield FaultScore(
            fault,
            found_at=mine[0].fired_at,
            paged_at=min(paged, default=None),
            alerts=alerts,
            incidents=mine_in,
            rank=_rank(first["hosts"], fault.roots) if first else None,
            change_rank=_change_rank(first.get("suspects") or (), fault.change) if first and fault.change else None,
            mixed_with=tuple(
                faults[other].fault_id for other in sorted(others) if faults[other].incident != fault.incident
            ),
        )


def _rank(hosts: Sequence[str], roots: Sequence[str]) -> int | None:
    return next((place for place, host in enumerate(hosts, 1) if host in roots), None)


def _change_rank(suspects: Sequence[str], change: str) -> int | None:
    return next((place for place, title in enumerate(suspects, 1) if change in title), None)


def _benign_scores(
    events: Sequence[Benign], serious: pl.DataFrame, explained: Mapping[str, set[int]]
) -> Iterable[BenignScore]:
    for event in events:
        near = serious.filter(
            pl.col("fired_at").is_between(event.start, event.end + RECOVERY) & pl.col("host").is_in(list(event.hosts))
        )
        alerts = {alert_id for alert_id in near["alert_id"] if not explained.get(alert_id)}
        yield BenignScore(event, len(alerts))


def _grouping(faults: Sequence[Fault], explained: Mapping[str, set[int]], owners: Mapping[str, str]) -> Grouping:
    cells: Counter[tuple[str, frozenset[str]]] = Counter()
    foreign: Counter[str] = Counter()
    for alert_id, numbers in explained.items():
        incident = owners.get(alert_id, alert_id)
        if numbers:
            cells[incident, frozenset(faults[number].incident for number in numbers)] += 1
        else:
            foreign[incident] += 1
    together = joined = both = 0
    for count in cells.values():
        pairs = count * (count - 1) // 2
        together, joined, both = together + pairs, joined + pairs, both + pairs
    for (one, other), (mine, theirs) in zip(combinations(cells, 2), combinations(cells.values(), 2), strict=True):
        same_incident, same_matter = one[0] == other[0], bool(one[1] & other[1])
        joined += mine * theirs * same_incident
        together += mine * theirs * same_matter
        both += mine * theirs * (same_incident and same_matter)
    matters: dict[str, set[str]] = defaultdict(set)
    holding: dict[str, list[frozenset[str]]] = defaultdict(list)
    for incident, names in cells:
        holding[incident].append(names)
        # What several matters explain tells of none of them that it was split.
        if len(names) == 1:
            matters[next(iter(names))].add(incident)
    return Grouping(
        together,
        joined,
        both,
        split=sum(len(lies_in) > 1 for lies_in in matters.values()),
        merged=sum(len({name for name in names if len(name) == 1}) > 1 for names in holding.values()),
        foreign=sum(count for incident, count in foreign.items() if incident in holding),
    )
