"""The truth of a storm: which faults, in which series and since when, what belongs together, what is innocent.

What belongs here: the shapes, and ``truth``. What does not: how effects are found (``effects``) and the judgement of
what a platform makes of it (``evaluation``).

Instants are int microseconds since the epoch (UTC). A series is named as the platform stores it: host, metric, and
labels as canonical JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import orjson
import polars as pl

from aiops_assets.synthetic.storms.scenario import Scenario

if TYPE_CHECKING:
    from aiops_assets.synthetic.storms.engine import Storm
    from aiops_assets.synthetic.storms.fleet import Fleet


@dataclass(frozen=True, slots=True)
class AffectedSeries:
    """A series that a fault changes. ``effect`` is the largest change in the series' unit, ``effect_over_noise`` that
    change in standard deviations of the ordinary noise (``None``: no sample comes at all). ``visible_at`` is the first
    sample that lies three deviations off, ``None`` when none does; ``hop`` the distance from the root."""

    fault_id: str
    host: str
    metric: str
    labels: str
    unit: str
    signal: str
    hop: int
    what: Literal["shift", "absence", "frozen"]
    start: int
    visible_at: int | None
    peak_at: int
    end: int
    effect: float | None
    effect_over_noise: float | None


@dataclass(frozen=True, slots=True)
class Trace:
    """What a fault leaves beside metrics on one host: ``log``, ``error``, ``hardware``, ``trap``, ``change``,
    ``ticket``. ``count`` is the number expected."""

    fault_id: str
    host: str
    kind: Literal["log", "error", "hardware", "trap", "change", "ticket"]
    first_at: int
    last_at: int
    count: float
    text: str


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. ``start`` is when its ramp begins, ``full_at`` when it is at its worst, ``end`` when recovery begins,
    ``over_at`` when nothing of it is left. ``visible_at`` is that of the series or trace that shows it first."""

    id: str
    kind: str
    title: str
    root: str
    roots: tuple[str, ...]
    root_cause: str
    start: int
    full_at: int
    end: int
    over_at: int
    visible_at: int | None
    incident: str
    caused_by: str | None
    change: Mapping[str, Any] | None
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Incident:
    """What people would treat as one: faults, and all hosts that these touch. ``root`` is that of the first fault."""

    id: str
    faults: tuple[str, ...]
    root: str
    hosts: tuple[str, ...]
    services: tuple[str, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Benign:
    """Something ordinary that must not be taken for a fault, one occurrence. Its series may be told as affected."""

    id: str
    kind: str
    title: str
    hosts: tuple[str, ...]
    start: int
    end: int
    change: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Truth:
    """All of it. ``series`` and ``hosts`` are sizes of the fleet, ``start`` and ``end`` bound the storm itself."""

    scenario: str
    source: str
    seed: int
    start: int
    end: int
    history_start: int
    hosts: tuple[str, ...]
    services: tuple[str, ...]
    series: int
    faults: tuple[Fault, ...]
    affected: tuple[AffectedSeries, ...]
    traces: tuple[Trace, ...]
    incidents: tuple[Incident, ...]
    benign: tuple[Benign, ...]
    benign_affected: tuple[AffectedSeries, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain JSON: the fields as they are named here."""
        return asdict(self)

    def frames(self) -> dict[str, pl.DataFrame]:
        """Frames ``faults``, ``affected``, ``traces``, ``incidents``, ``benign``, ``benign_affected``: a column a
        field, instants as int64 microseconds since the epoch (UTC), mappings as JSON text."""
        return {name: _frame(getattr(self, name), kind) for name, kind in _ROWS.items()}


_ROWS: Mapping[str, type[Any]] = {
    "faults": Fault,
    "affected": AffectedSeries,
    "traces": Trace,
    "incidents": Incident,
    "benign": Benign,
    "benign_affected": AffectedSeries,
}
_TYPES: Mapping[str, pl.DataType] = {
    "int": pl.Int64(),
    "int | None": pl.Int64(),
    "float": pl.Float64(),
    "float | None": pl.Float64(),
    "tuple[str, ...]": pl.List(pl.String),
}


def _cell(value: Any) -> Any:
    if isinstance(value, dict):
        return orjson.dumps(value).decode()
    return list(value) if isinstance(value, tuple) else value


def _frame(rows: tuple[Any, ...], kind: type[Any]) -> pl.DataFrame:
    schema = {field.name: _TYPES.get(str(field.type), pl.String()) for field in fields(kind)}
    values = [{name: _cell(value) for name, value in asdict(row).items()} for row in rows]
    return pl.DataFrame(values, schema=schema, orient="row")


def truth(scenario: Scenario, start_at: int, seed: int | None = None, *, benign_series: bool = False) -> Truth:
    """The truth of a scenario that begins at ``start_at`` (microseconds since the epoch, UTC).

    Args:
        seed: in place of the scenario's own.
        benign_series: also tell which series benign events change (``benign_affected``), which takes longer.
    """
    from aiops_assets.synthetic.storms.effects import affected_series, traces
    from aiops_assets.synthetic.storms.engine import Storm
    from aiops_assets.synthetic.storms.happenings import changes_of, words
    from aiops_assets.synthetic.storms.writing import fill

    storm = Storm(scenario, start_at, seed)
    plan, fleet = storm.plan, storm.fleet
    faults: list[Fault] = []
    affected: list[AffectedSeries] = []
    left: list[Trace] = []
    innocent: list[Benign] = []
    moved: list[AffectedSeries] = []
    for one in plan.occurrences:
        if not one.roots:
            continue
        deployed = changes_of(one, plan)
        roots = tuple(fleet.hosts[position].name for position in one.roots)
        title = one.event.title or one.kind.title
        if not one.fault:
            if one.over > start_at:
                change = deployed[0] if deployed else None
                innocent.append(Benign(one.id, one.event.kind, title, roots, one.start, min(one.end, plan.end), change))
                if benign_series:
                    moved += affected_series(storm, one)
            continue
        series, marks = affected_series(storm, one), traces(storm, one)
        shown = [row.visible_at for row in series if row.visible_at is not None]
        shown += [mark.first_at for mark in marks if mark.kind not in {"change", "ticket"}]
        seen = {row.host for row in series if row.visible_at is not None}
        seen |= {mark.host for mark in marks if mark.kind not in {"change", "ticket"}}
        affected += series
        left += marks
        faults.append(
            Fault(
                id=one.id,
                kind=one.event.kind,
                title=title,
                root=roots[0],
                roots=roots,
                root_cause=fill(one.kind.cause, words(one, plan)),
                start=one.start,
                full_at=min(one.start + one.ramp, one.end, plan.end),
                end=min(one.end, plan.end),
                over_at=min(one.over, plan.end),
                visible_at=min(shown, default=None),
                incident=one.event.incident or one.id,
                caused_by=one.event.caused_by,
                change=deployed[0] if deployed else _change_of(one.event.caused_by, storm),
                hosts=tuple(sorted({*roots, *seen})),
            )
        )
    return Truth(
        scenario=scenario.name,
        source=scenario.source_name,
        seed=storm.seed,
        start=start_at,
        end=plan.end,
        history_start=plan.begin,
        hosts=tuple(host.name for host in fleet.hosts),
        services=fleet.services,
        series=fleet.series,
        faults=tuple(faults),
        affected=tuple(affected),
        traces=tuple(left),
        incidents=_incidents(faults, fleet),
        benign=tuple(innocent),
        benign_affected=tuple(moved),
    )


def _change_of(event_id: str | None, storm: Storm) -> dict[str, Any] | None:
    from aiops_assets.synthetic.storms.happenings import changes_of

    for one in storm.plan.occurrences:
        if one.event.id == event_id and (found := changes_of(one, storm.plan)):
            return found[0]
    return None


def _incidents(faults: list[Fault], fleet: Fleet) -> tuple[Incident, ...]:
    """Faults of one incident together; the root is that of the one that none of the others has caused."""
    services = {host.name: fleet.named(host.service) for host in fleet.hosts if host.service}
    made = []
    for name in dict.fromkeys(fault.incident for fault in faults):
        members = [fault for fault in faults if fault.incident == name]
        hosts = tuple(sorted({host for fault in members for host in fault.hosts}))
        known = {fault.id for fault in members}
        first = min(members, key=lambda fault: (fault.caused_by in known, fault.start))
        made.append(
            Incident(
                id=name,
                faults=tuple(fault.id for fault in members),
                root=first.root,
                hosts=hosts,
                services=tuple(sorted({services[host] for host in hosts if host in services})),
                start=min(fault.start for fault in members),
                end=max(fault.over_at for fault in members),
            )
        )
    return tuple(made)
