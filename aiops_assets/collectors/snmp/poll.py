"""The poller of one SNMP device: discovery, regular polls, and the turning of objects into points.

What belongs here: what to ask a device for and when, what its answers mean by its profiles, and its restarts. What does
not: the schedule (``collectors.scheduler``) and the wire (``engine``).

A table is discovered by walking all its columns. From then on only those columns are fetched that a point is made of
(the 64-bit counter where there is one, not its 32-bit twin), until the next discovery: every quarter of an hour, after
a restart of the agent, or at once when a row appears that was not known.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiops_assets.collectors.document import Point, Poll, document, point, reboot
from aiops_assets.collectors.rates import Counters, Uptime, restarted
from aiops_assets.collectors.snmp.engine import COUNTER64, Engine, Oid, Session, SnmpError, oid_text, parse_oid
from aiops_assets.collectors.snmp.inferred import NOT_GUESSED, infer, subtree
from aiops_assets.collectors.snmp.profile import (
    Cell,
    Measure,
    Profile,
    ProfileError,
    Table,
    numeric,
    select,
    shipped_profiles,
    single_objects,
    text,
)
from aiops_assets.collectors.snmp.sensors import Instance, in_class_unit, resolve, total_load
from aiops_assets.collectors.snmp.sensors import points as reading_points
from aiops_assets.collectors.snmp.walk import End, Pace, Walk, enterprises, fetch, walk
from aiops_assets.collectors.snmp.window import Window, WindowedSession
from aiops_assets.config import Device
from aiops_assets.hours import MICROS_PER_SECOND

log = logging.getLogger(__name__)

#: a device's tables are discovered anew after this time, plus up to a quarter more by its name
DISCOVERY_SECONDS = 900.0
#: what kind of device it is, and which of the objects of its profiles it lacks, is found out anew after this time
PROBE_SECONDS = 86_400.0
#: requests that finding out which enterprises' objects an agent has may take
MOST_ENTERPRISES = 40
#: interface descriptions and the like taken into an entity's labels
MOST_DESCRIPTIONS = 100
LONGEST_LABEL = 200
#: ratios this far outside 0 to 1 are rounding of counters read at slightly different instants
RATIO_SLACK = 0.05

_OBJECT_ID: Oid = (1, 3, 6, 1, 2, 1, 1, 2)
_DESCRIPTION: Oid = (1, 3, 6, 1, 2, 1, 1, 1)
_HOST_UPTIME = "hrSystemUptime"
_AGENT_UPTIME = "sysUpTime"

Cells = dict[str, dict[Oid, Cell]]


@dataclass(slots=True)
class _Plan:
    """What is known about a table of this device since its discovery."""

    identity: Cells
    #: columns to fetch in regular polls
    columns: dict[str, Oid]
    labels: dict[Oid, dict[str, str]]
    rows: int
    descriptions: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Reading:
    """A table as read in this poll; ``at`` is monotonic seconds."""

    table: Table
    plan: _Plan
    cells: Cells
    at: float


@dataclass(slots=True)
class _Work:
    """Everything that one poll has collected so far."""

    scalars: dict[str, Cell] = field(default_factory=dict)
    scalars_at: float = 0.0
    readings: dict[str, _Reading] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)
    discovered: bool = False
    answered: bool = False
    doing: str = "first contact"


class _View:
    """A row of a table (or, with no columns, the single objects) as expressions see it."""

    __slots__ = ("at", "columns", "counters", "epoch", "index", "key", "noted", "scalars")

    def __init__(self, key: str, columns: Cells, scalars: Mapping[str, Cell], counters: Counters, at: float) -> None:
        self.key, self.columns, self.scalars, self.counters, self.at = key, columns, scalars, counters, at
        self.index: Oid = ()
        self.epoch: object = None
        #: names that were looked at, where someone wants to know
        self.noted: set[str] | None = None

    def cell(self, name: str) -> Cell | None:
        if self.noted is not None:
            self.noted.add(name)
        column = self.columns.get(name)
        return self.scalars.get(name) if column is None else column.get(self.index)

    def other(self, column: str, key: str, wanted: str) -> Cell | None:
        for index, cell in self.columns.get(key, {}).items():
            if text(cell) == wanted:
                return self.columns.get(column, {}).get(index)
        return None

    def growth(self, name: str, cell: Cell, limit: float | None) -> float | None:
        value = cell[1]
        assert isinstance(value, int)  # noqa: S101 - numeric cells only
        bits = 64 if cell[0] == COUNTER64 else 32
        return self.counters.rate(
            (self.key, name, self.index, self.epoch), value, self.at, 64 if bits == 64 else 32, limit or None
        )


@dataclass(frozen=True, slots=True)
class Source:
    """Where a point came from, for scoring: its objects, and a sensor's class and value in the unit of the class."""

    point: Point
    objects: tuple[Oid, ...]
    cells: tuple[Cell, ...]
    kind: str | None = None
    value: float | None = None


@dataclass(slots=True)
class _Probe:
    """What is known about the kind of a device: who it says it is, and the enterprises whose objects it has."""

    object_id: Oid
    description: str
    enterprises: tuple[int, ...]
    #: seconds since the epoch after which to look again
    until: float


class _Tracer(_View):
    """A view that notes which columns are looked at."""

    __slots__ = ("touched",)

    def __init__(self, key: str, columns: Cells, scalars: Mapping[str, Cell]) -> None:
        super().__init__(key, columns, scalars, Counters(), 0.0)
        self.touched: set[str] = set()

    def cell(self, name: str) -> Cell | None:
        found = super().cell(name)
        if found is not None:
            self.touched.add(name)
        return found

    def other(self, column: str, key: str, wanted: str) -> Cell | None:
        self.touched.update((column, key))
        return super().other(column, key, wanted)


class SnmpPoller:
    """Polls one device; see ``document.Poller``."""

    kind = "snmp"
    source = "snmp"

    def __init__(
        self,
        device: Device,
        engine: Engine,
        profiles: Sequence[Profile] | None = None,
        state: Mapping[str, Any] | None = None,
        window: Window | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = device.name
        self.device = device
        self.interval = device.interval
        self.deadline = device.deadline
        session = engine.session(device)
        self._session: Session = session if window is None else WindowedSession(session, window)
        self._clock, self._monotonic = clock, monotonic
        self._known: tuple[Profile, ...] = ()
        #: of those that are known, the ones that this device may answer
        self._profiles: tuple[Profile, ...] = ()
        self._wrong: str | None = None
        try:
            self._known = select(shipped_profiles() if profiles is None else profiles, device.profiles)
        except ProfileError as error:
            self._wrong = str(error)
        self._pace = Pace(repetitions=device.max_repetitions, most=max(1, min(60, round(2.4 * device.max_repetitions))))
        self._counters = Counters()
        self._plans: dict[str, _Plan] = {}
        self._previous_plans: dict[str, _Plan] = {}
        self._unfinished: dict[str, Walk] = {}
        self._singles: dict[Oid, str] = {}
        self._identity: dict[str, Cell] = {}
        self._discover_at = -math.inf
        self._uptime = _load_uptime(state, "uptime")
        self._host_uptime = _load_uptime(state, "host_uptime")
        self._probe = _load_probe(state)
        self._barren: dict[str, float] = _load_barren(state)
        self._instances: dict[str, list[Instance]] = {}
        self._values: dict[Oid, Cell] = {}
        self._inferred: list[Instance] = []
        self._guessed: dict[int, float] = {}
        #: set to a list to be told where every point came from
        self.sources: list[Source] | None = None
        #: objects received in the last poll
        self.objects = 0

    def state(self) -> dict[str, Any]:
        probe = self._probe
        return {
            "uptime": _dump_uptime(self._uptime),
            "host_uptime": _dump_uptime(self._host_uptime),
            "probe": None
            if probe is None
            else [oid_text(probe.object_id), probe.description, list(probe.enterprises), probe.until],
            "barren": {key: round(until) for key, until in self._barren.items()},
        }

    def close(self) -> None:
        self._session.close()

    async def poll(self) -> Poll:
        if self._wrong is not None:
            return Poll(error=self._wrong)
        work = _Work()
        outcome = Poll()
        self.objects = 0
        try:
            async with asyncio.timeout(self.deadline):
                await self._fetch(work)
        except TimeoutError:
            outcome.cut = True
            work.problems.append(f"cut after {self.deadline:g} s during {work.doing}")
        except SnmpError as error:
            work.problems.append(str(error))
        outcome.up = work.answered
        if work.answered:
            outcome.points = list(self._points(work))
            self._counters.turn()
        outcome.changes = work.changes
        if work.discovered:
            outcome.entity = self._entity(work)
        outcome.error = "; ".join(work.problems) or None
        return outcome

    # --- fetching --------------------------------------------------------------------------------------------------

    async def _fetch(self, work: _Work) -> None:
        now = self._monotonic()
        if now >= self._discover_at:
            await self._first_contact(work)
            self._previous_plans, self._plans = self._plans | {}, {}
            self._pace.restore()
            spread = zlib.crc32(self.name.encode()) % 1000 / 4000
            self._discover_at = now + DISCOVERY_SECONDS * (1 + spread)
            self._note_uptime(work)
        again = True
        while again:
            again = False
            for table in (table for profile in self._profiles for table in profile.tables):
                plan = self._plans.get(table.key)
                if plan is None:
                    if self._clock() >= self._barren.get(table.key, 0.0):
                        await self._discover(table, work)
                elif not plan.columns and plan.labels:
                    self._keep(table, plan, {}, work)
                elif plan.columns:
                    first = not work.scalars
                    await self._read(table, plan, work)
                    if first and self._note_uptime(work):
                        # The agent began anew, perhaps with other rows: what was read has old names.
                        self._previous_plans, self._plans = {}, {}
                        work.readings.clear()
                        again = True
                        break
        if not work.scalars:
            await self._walk(Walk.of((), list(self._singles)), work, 0)
            self._note_uptime(work)
        await self._readings(work)
        await self._guess(work)

    async def _recognise(self, work: _Work) -> None:
        """Find out which profiles fit: by sysObjectID, and by the enterprises whose objects the agent has."""
        if self.device.profiles or not any(profile.applies for profile in self._known):
            self._profiles = self._known
            return
        work.doing = "recognition"
        task = Walk.of((), [_OBJECT_ID, _DESCRIPTION])
        self._singles = {}
        await self._walk(task, work, 0)
        object_id, description = _oid_of(task.scalars[_OBJECT_ID]), text(task.scalars[_DESCRIPTION]) or ""
        probe, now = self._probe, self._clock()
        if probe is None or probe.object_id != object_id or probe.description != description or now >= probe.until:
            if probe is not None:
                self._barren = {}
            numbers = await enterprises(self._session, MOST_ENTERPRISES)
            if object_id[:6] == (1, 3, 6, 1, 4, 1):
                numbers.extend(number for number in object_id[6:7] if number not in numbers)
            spread = zlib.crc32(self.name.encode()) % 1000 / 4000
            self._probe = probe = _Probe(object_id, description, tuple(numbers), now + PROBE_SECONDS * (1 + spread))
        self._profiles = tuple(
            profile for profile in self._known if profile.fits(probe.object_id, frozenset(probe.enterprises))
        )

    async def _readings(self, work: _Work) -> None:
        """Sensors, processors and memory: find those that are not known yet, ask for those that are."""
        self._values = {}
        asks: list[Oid] = []
        for profile in self._profiles:
            if not profile.readings:
                continue
            known = self._instances.get(profile.name)
            if known is None:
                if self._clock() >= self._barren.get(f"{profile.name}.readings", 0.0):
                    await self._find(profile, work)
            else:
                asks.extend(oid for instance in known for oid in instance.asks.values())
        asks.extend(oid for instance in self._inferred for oid in instance.asks.values())
        if asks:
            work.doing = "sensors"
            task = Walk.of(())
            try:
                self._values |= await fetch(self._session, list(dict.fromkeys(asks)), self._pace, task)
            finally:
                self.objects += task.objects
                work.answered = work.answered or bool(task.replies)

    async def _guess(self, work: _Work) -> None:
        """Look for sensors in the words of makers' tables that no profile is about, once a day."""
        if self._probe is None or self.device.profiles:
            return
        covered = {next(iter(instance.asks.values()))[6] for known in self._instances.values() for instance in known}
        for maker in self._probe.enterprises:
            key = f"inferred.{maker}"
            if maker in covered or maker in NOT_GUESSED or self._clock() < self._guessed.get(maker, 0.0):
                continue
            if self._clock() < self._barren.get(key, 0.0):
                continue
            # Also where it comes to nothing: a slow agent must not be asked for all of this again and again.
            self._barren[key] = self._clock() + PROBE_SECONDS
            work.doing = "inference"
            objects = await subtree(self._session, (1, 3, 6, 1, 4, 1, maker), self._pace)
            self.objects += len(objects)
            found = infer(objects)
            self._guessed[maker] = self._barren[key]
            if found:
                # What is found is not saved: after a restart it is looked for again.
                del self._barren[key]
                self._inferred = [i for i in self._inferred if next(iter(i.asks.values()))[6] != maker] + found
                self._values |= {oid: objects[oid] for i in found for oid in i.asks.values()}
                work.discovered = True

    async def _find(self, profile: Profile, work: _Work) -> None:
        key = f"{profile.name}.readings"
        work.doing = f"discovery of {key}"
        task = self._unfinished.pop(key, None)
        if task is None:
            task = Walk.of(list(dict.fromkeys(oid for reading in profile.readings for oid in reading.columns())))
        try:
            await self._walk(task, work, 0)
        finally:
            passing = [column for column in task.columns if column.end in {End.UNFINISHED, End.LOST, End.FAILED}]
            for column in passing:
                column.end = End.UNFINISHED
            if passing:
                self._unfinished[key] = task
        if passing:
            return
        cells = {
            column.root: {index: (kind, value) for index, kind, value in column.rows}
            for column in task.columns
            if column.rows
        }
        found = resolve(profile.readings, cells)
        work.discovered = True
        if found:
            self._instances[profile.name] = found
            self._barren.pop(key, None)
        elif not task.faults:
            self._barren[key] = self._clock() + PROBE_SECONDS
        for root, rows in cells.items():
            for index, cell in rows.items():
                self._values[(*root, *index)] = cell

    async def _first_contact(self, work: _Work) -> None:
        await self._recognise(work)
        self._instances = {}
        names = {oid: name for name, oid in single_objects(self._profiles)}
        task = Walk.of((), list(names))
        self._singles = names
        await self._walk(task, work, 0)
        wanted = {name for profile in self._profiles for name in profile.identity}
        self._identity = {name: cell for name, cell in work.scalars.items() if name in wanted}
        self._singles = {oid: name for oid, name in names.items() if name in work.scalars and name not in wanted}
        work.discovered = True

    async def _discover(self, table: Table, work: _Work) -> None:
        work.doing = f"discovery of {table.key}"
        task = self._unfinished.pop(table.key, None)
        resumed = task is not None
        if task is None:
            task = Walk.of([*table.identity.values(), *table.columns.values()])
        try:
            await self._walk(task, work, 0)
        finally:
            passing = [column for column in task.columns if column.end in {End.UNFINISHED, End.LOST, End.FAILED}]
            if passing:
                # Names from half a table would be wrong names: go on from here in the next poll.
                for column in passing:
                    column.end = End.UNFINISHED
                self._unfinished[table.key] = task
        if passing:
            old = self._previous_plans.get(table.key)
            if old is not None:
                self._plans[table.key] = old
            return
        cells = _cells([*table.identity, *table.columns], task)
        plan = _plan(table, cells, work.scalars | self._identity)
        self._plans[table.key] = plan
        if any(cells.values()):
            self._barren.pop(table.key, None)
        elif task.complete:
            # A hot-plugged module may bring the first row of a table: that is seen a day later, or at its restart.
            self._barren[table.key] = self._clock() + PROBE_SECONDS
        work.discovered = True
        if resumed and plan.columns:
            await self._read(table, plan, work)
        elif plan.labels:
            self._keep(table, plan, {name: cells[name] for name in plan.columns}, work)

    async def _read(self, table: Table, plan: _Plan, work: _Work) -> None:
        work.doing = table.key
        singles = [] if work.scalars else list(self._singles)
        task = Walk.of(list(plan.columns.values()), singles)
        try:
            await self._walk(task, work, plan.rows)
        finally:
            cells = _cells(list(plan.columns), task)
            self._keep(table, plan, cells, work)
        plan.rows = max((len(column.rows) for column in task.columns), default=0)
        unknown = any(index not in plan.labels for column in cells.values() for index in column)
        if unknown and task.complete:
            del self._plans[table.key]
            await self._discover(table, work)

    def _keep(self, table: Table, plan: _Plan, cells: Cells, work: _Work) -> None:
        work.readings[table.key] = _Reading(table, plan, plan.identity | cells, self._monotonic())

    async def _walk(self, task: Walk, work: _Work, rows: int) -> None:
        try:
            await walk(self._session, task, self._pace, rows, alive=work.answered)
        finally:
            self.objects += task.objects
            if task.replies:
                work.answered = True
            for oid, found in task.scalars.items():
                if found is not None and oid in self._singles:
                    work.scalars[self._singles[oid]] = found
            if task.scalars and task.replies:
                work.scalars_at = self._monotonic()
            work.problems.extend(column.explain() for column in task.faults if column.end is not End.UNFINISHED)

    # --- restarts --------------------------------------------------------------------------------------------------

    def _note_uptime(self, work: _Work) -> bool:
        """Compare the uptimes with the last ones; a restart resets the counters and becomes a change."""
        ticks = numeric(work.scalars.get(_AGENT_UPTIME))
        if ticks is None:
            return False
        at = self._clock()
        agent, before = Uptime(int(ticks), at), self._uptime
        host_ticks = numeric(work.scalars.get(_HOST_UPTIME))
        host = None if host_ticks is None else Uptime(int(host_ticks), at)
        host_before, self._uptime, self._host_uptime = self._host_uptime, agent, host
        if before is None or not restarted(before, agent):
            return False
        self._counters.reset()
        self._discover_at = -math.inf
        self._barren = {}
        machine = host is None or host_before is None or restarted(host_before, host)
        boot = host if machine and host is not None else agent
        title = (
            f"{self.name} restarted" if machine else f"SNMP agent of {self.name} restarted, the machine kept running"
        )
        details = {
            "agent_uptime_seconds": agent.ticks / 100,
            "agent_uptime_seconds_before": before.ticks / 100,
            "machine_restarted": machine if host is not None and host_before is not None else None,
        }
        work.changes.append(reboot(round(boot.booted_at) * MICROS_PER_SECOND, title, details))
        log.info("%s", title)
        return True

    # --- meaning ---------------------------------------------------------------------------------------------------

    def _points(self, work: _Work) -> Iterator[Point]:
        scalars = self._identity | work.scalars
        for profile in self._profiles:
            if work.scalars:
                view = _View(profile.name, {}, scalars, self._counters, work.scalars_at)
                for measure in profile.measures:
                    value = self._value(measure, view, {**profile.identity, **profile.scalars})
                    if value is not None:
                        yield point(measure.metric, value, measure.unit, measure.kind, measure.labels)
            for table in profile.tables:
                reading = work.readings.get(table.key)
                if reading is not None:
                    yield from self._rows(reading, scalars)
            instances = self._instances.get(profile.name, [])
            for instance in instances:
                yield from self._reading(instance)
            total = total_load(instances, self._values)
            if total is not None:
                yield total

        for instance in self._inferred:
            yield from self._reading(instance)

    def _reading(self, instance: Instance) -> Iterator[Point]:
        values = {name: cell for name, oid in instance.asks.items() if (cell := self._values.get(oid)) is not None}
        for made in reading_points(instance, values):
            if self.sources is not None:
                value = in_class_unit(instance, values)
                names = tuple(instance.asks.values())
                self.sources.append(Source(made, names, tuple(values.values()), instance.reading.kind, value))
            yield made

    def _value(self, measure: Measure, view: _View, columns: Mapping[str, Oid]) -> float | None:
        """The measure's value in the view's row; where someone wants to know, with the objects it came from."""
        if self.sources is None:
            return _value(measure, view)
        noted: set[str] = set()
        view.noted = noted
        shown = _value(measure, view)
        view.noted = None
        names = sorted(name for name in noted if name in columns and view.cell(name) is not None)
        if not names:
            # A constant: what it says is that the row is there.
            names = [name for name in columns if view.cell(name) is not None][:1]
        cells = {
            (*columns[name], *(view.index or (0,))): cell for name in names if (cell := view.cell(name)) is not None
        }
        if cells and (shown is not None or measure.kind == "rate"):
            # A rate has no value in a first poll, but its counter was read.
            value = math.nan if shown is None else shown
            made = point(measure.metric, value, measure.unit, measure.kind, measure.labels)
            self.sources.append(Source(made, tuple(cells), tuple(cells.values())))
        return shown

    def _rows(self, reading: _Reading, scalars: Mapping[str, Cell]) -> Iterator[Point]:
        table, plan = reading.table, reading.plan
        columns = {**table.identity, **table.columns}
        view = _View(table.key, reading.cells, scalars, self._counters, reading.at)
        epochs = reading.cells.get(table.discontinuity, {}) if table.discontinuity else {}
        gathered: dict[int, list[float]] = {}
        for index, labels in plan.labels.items():
            view.index, view.epoch = index, epochs.get(index)
            if table.when is not None and not table.when(view):
                continue
            for position, measure in enumerate(table.measures):
                value = self._value(measure, view, columns)
                if value is None:
                    continue
                if measure.aggregate is not None:
                    gathered.setdefault(position, []).append(value)
                elif measure.bare:
                    yield point(measure.metric, value, measure.unit, measure.kind, measure.labels)
                else:
                    yield {
                        "metric": measure.metric,
                        "value": value,
                        "unit": measure.unit,
                        "kind": measure.kind,
                        "labels": {**labels, **measure.labels} if measure.labels else labels,
                    }
        for position, values in gathered.items():
            measure = table.measures[position]
            total = math.fsum(values)
            value = total / len(values) if measure.aggregate == "mean" else total
            yield point(measure.metric, value, measure.unit, measure.kind, measure.labels)

    def _entity(self, work: _Work) -> dict[str, Any]:
        cells = self._identity | work.scalars
        labels: dict[str, str] = {"address": self.device.address}
        for profile in self._profiles:
            for label, name in profile.entity.items():
                written = text(cells.get(name))
                if written:
                    labels[label] = written[:LONGEST_LABEL]
        descriptions = [pair for plan in self._plans.values() for pair in plan.descriptions.items()]
        labels.update(descriptions[:MOST_DESCRIPTIONS])
        labels.update(self.device.labels)
        return {
            "kind": "device",
            "site": self.device.site,
            "labels": labels,
            "depends_on": list(self.device.depends_on),
        }


def _value(measure: Measure, view: _View) -> float | None:
    if measure.when is not None and not measure.when(view):
        return None
    value = measure.value(view)
    if value is None or not math.isfinite(value):
        return None
    if measure.kind == "ratio":
        if not -RATIO_SLACK <= value <= 1 + RATIO_SLACK:
            return None
        return min(1.0, max(0.0, float(value)))
    return float(value)


def _cells(names: Iterable[str], task: Walk) -> Cells:
    """The columns of a finished walk by name, in the order in which they were asked for."""
    return {
        name: {index: (kind, value) for index, kind, value in column.rows}
        for name, column in zip(names, task.columns, strict=True)
    }


def _plan(table: Table, cells: Cells, scalars: Mapping[str, Cell]) -> _Plan:
    """Which columns the points of these rows are made of, and the rows' labels."""
    indices = dict.fromkeys(index for name in (*table.columns, *table.rows_of) for index in cells[name])
    tracer = _Tracer(table.key, cells, scalars)
    for index in indices:
        tracer.index = index
        if table.when is not None and not table.when(tracer):
            continue
        for measure in table.measures:
            if measure.when is None or measure.when(tracer):
                measure.value(tracer)
    touched = tracer.touched
    if table.discontinuity and cells[table.discontinuity] and touched & set(table.columns):
        touched.add(table.discontinuity)
    columns = {name: oid for name, oid in table.columns.items() if name in touched}
    identity = {name: cells[name] for name in table.identity}
    labels = _labels(table, identity, indices)
    descriptions: dict[str, str] = {}
    for prefix, column in table.describe.items():
        for index in indices:
            written = text(identity.get(column, {}).get(index))
            if written:
                descriptions[f"{prefix}.{next(iter(labels[index].values()), oid_text(index))}"] = written[
                    :LONGEST_LABEL
                ]
    rows = max((len(cells[name]) for name in columns), default=0)
    return _Plan(identity, columns, labels, rows, descriptions)


def _labels(table: Table, identity: Cells, indices: Iterable[Oid]) -> dict[Oid, dict[str, str]]:
    """The labels of each row; rows that would have the same ones get their index added."""
    labels: dict[Oid, dict[str, str]] = {}
    taken: dict[tuple[str, ...], Oid] = {}
    for index in indices:
        row: dict[str, str] = {}
        for label, spec in table.labels.items():
            for name in spec.first:
                written = oid_text(index) if name == "index" else text(identity.get(name, {}).get(index))
                if written and spec.cut:
                    written = written.partition(spec.cut)[0]
                if written:
                    row[label] = written[:LONGEST_LABEL]
                    break
        values = tuple(row.values())
        if row and values in taken:
            first = next(iter(row))
            row[first] = f"{row[first]}#{oid_text(index)}"
        else:
            taken[values] = index
        labels[index] = row
    return labels


def _dump_uptime(uptime: Uptime | None) -> list[float] | None:
    return None if uptime is None else [uptime.ticks, uptime.at]


def _oid_of(cell: Cell | None) -> Oid:
    return cell[1] if cell is not None and isinstance(cell[1], tuple) else ()


def _load_probe(state: Mapping[str, Any] | None) -> _Probe | None:
    match (state or {}).get("probe"):
        case [str() as object_id, str() as description, list() as numbers, int() | float() as until]:
            named = parse_oid(object_id) if object_id else ()
            return _Probe(named, description, tuple(int(number) for number in numbers), float(until))
    return None


def _load_barren(state: Mapping[str, Any] | None) -> dict[str, float]:
    found = (state or {}).get("barren")
    return {str(key): float(until) for key, until in found.items()} if isinstance(found, dict) else {}


def _load_uptime(state: Mapping[str, Any] | None, key: str) -> Uptime | None:
    match (state or {}).get(key):
        case [int() | float() as ticks, int() | float() as at]:
            return Uptime(int(ticks), float(at))
    return None


async def poll_once(
    device: Device, engine: Engine | None = None, profiles: Sequence[Profile] | None = None
) -> tuple[dict[str, Any], Poll]:
    """Poll a device that nobody polls yet: its document and, for people, the outcome behind it.

    Rates need two polls of the same poller and are not in it. Never raises for what the device does wrong.
    """
    own = None
    if engine is None:
        from aiops_assets.collectors.snmp.pysnmp_engine import PysnmpEngine

        own = engine = PysnmpEngine()
    poller = SnmpPoller(device, engine, profiles)
    began, ts = time.monotonic(), time.time_ns() // 1000
    try:
        outcome = await poller.poll()
        return document(device.name, poller.kind, ts, outcome, time.monotonic() - began), outcome
    finally:
        poller.close()
        if own is not None:
            own.close()
