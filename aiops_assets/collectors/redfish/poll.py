"""The poller of one Redfish service: what to read when, and the turning of what was read into one poll.

What belongs here: the tree of resources that was found, how often each is read and which come first, what becomes of
readings that several resources bring, and what changed since the last poll. What does not: the schedule of polls
(``collectors.scheduler``), the wire (``client``) and the meaning of resources (``resources``).

The whole tree is read once. From then on resources with readings are read in every poll, components every five minutes
and the structure every quarter of an hour, spread over the polls so that each takes a bounded number of requests. What
a slow service could not answer before the deadline stays due and comes earlier the next time.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import xxhash

from aiops_assets.collectors.document import Fetched, Point, Poll, document, point, reboot
from aiops_assets.collectors.redfish.client import (
    CONCURRENCY,
    Answer,
    Broken,
    Forbidden,
    Missing,
    Refused,
    Service,
    ServiceError,
    Slow,
    Unreachable,
    advertised_expand,
)
from aiops_assets.collectors.redfish.fields import LONGEST_TEXT, ROOT, is_expanded, link, members, next_link, short
from aiops_assets.collectors.redfish.logs import (
    BATCH,
    Entry,
    Mark,
    bundle,
    fingerprint,
    key_of,
    mark_of,
    new_entries,
    read_pages,
)
from aiops_assets.collectors.redfish.resources import (
    COMPONENTS,
    EVERY_POLL,
    KINDS,
    STRUCTURE,
    Child,
    Found,
    Reading,
    read,
)
from aiops_assets.config import Device
from aiops_assets.hours import MICROS_PER_SECOND

log = logging.getLogger(__name__)

#: requests of a poll in which nothing new was found
MOST_REQUESTS = 60
#: requests left for components and structure where readings alone need more than that
LEAST_REST = 8
MOST_NODES = 3_000
MOST_MEMBERS = 1_000
MOST_PAGES = 50
#: a resource that cannot be read is tried again at least this often (seconds)
LONGEST_PAUSE = 3_600.0
LONGEST_SLOW_PAUSE = 600.0
#: answers that did not come in a row, with none between them, after which a poll is given up
PATIENCE = 4
#: resets whose times differ by less are the same one: some services count back from now (microseconds)
RESET_SLACK = 60 * MICROS_PER_SECOND
#: clocks that differ by less are taken for right (microseconds), and differences are rounded to a minute
CLOCK_SLACK = 600 * MICROS_PER_SECOND
_MINUTE = 60 * MICROS_PER_SECOND
#: log entries on their way to the landing zone are not fetched again before this (seconds)
DELIVERY_SECONDS = 600.0
#: the same version change reported by a component and by the inventory is one (seconds)
SAME_CHANGE_SECONDS = 2 * STRUCTURE
#: reading the pages of one log takes no more than this part of the deadline
LOG_PART = 0.3
MOST_FIRMWARE_LABELS = 60
MOST_LABEL_CHARS = 12_000
SHOWN_PROBLEMS = 3

_FAMILIES = frozenset({"temperature", "fan", "voltage", "power_supply", "power"})
#: what a sensor is called where several resources say more than the sensor itself, the first of these
_SPECIFIC = ("hw.host.power", "hw.power_supply.usage", "hw.battery.charge", "hw.battery.health", "hw.fan.speed_ratio")
_GENERATIONS = frozenset(
    {"thermal", "power", "thermal_subsystem", "power_subsystem", "thermal_metrics", "environment", "fan"}
    | {"power_supply", "supply_metrics", "sensor"}
)
_SUMMARIES = frozenset({"thermal_metrics", "environment", "supply_metrics", "fan", "battery_metrics"})
#: what is read first when nothing is known yet
_FIRST = ("root", "chassis", "system", "manager")
_LAST = ("update", "firmware")


@dataclass(slots=True)
class _Node:
    """A resource of this device, or a collection of such; instants are monotonic seconds."""

    kind: str
    path: str
    collection: bool
    parent: str | None
    owner: str
    chassis: str | None
    above: str | None
    every: float
    read_at: float = -math.inf
    not_before: float = -math.inf
    failures: int = 0
    problem: str | None = None
    #: it comes with its collection and is not asked for
    inline: bool = False
    #: of a collection: members come with it; ``None``: not tried
    expands: bool | None = None
    #: of an event log: its name, where its last page is, and the state in which it was read
    log: str = ""
    tail: str | None = None
    etag: str | None = None
    print: str = ""
    #: the sensors whose readings it brought when it was last read
    sensors: frozenset[str] = frozenset()

    def rank(self) -> tuple[int, float]:
        """What comes first in a poll: known readings, then what was never read, then what has waited longest."""
        if self.read_at > -math.inf and (self.every == EVERY_POLL or self.kind == "entries"):
            return 0, self.read_at
        if self.read_at == -math.inf and self.failures == 0:
            order = 0 if self.kind in _FIRST else 4 if self.kind in _LAST else 3 if self.kind == "entries" else 1
            return 1, order + (KINDS[self.kind].every > EVERY_POLL)
        return 2, self.read_at


@dataclass(slots=True)
class _LogRead:
    node: _Node
    entries: list[Entry]
    mark: Mark
    tail: str | None
    etag: str | None
    print: str


@dataclass(slots=True)
class _Work:
    """What one poll has collected so far."""

    queue: list[tuple[tuple[int, float], int, _Node]] = field(default_factory=list)
    queued: set[str] = field(default_factory=set)
    readings: list[tuple[_Node, str | None, Reading]] = field(default_factory=list)
    logs: list[_LogRead] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)
    #: anything answered; something other than the root, which is open to everybody
    contact: bool = False
    answered: bool = False
    silent: int = 0
    slowest: tuple[float, str] = (0.0, "")
    count: int = 0
    left: int = 0


class RedfishPoller:
    """Polls one device; see ``document.Poller``. ``wall`` is seconds since the epoch, ``monotonic`` any seconds."""

    kind = "redfish"
    source = "redfish"

    def __init__(
        self,
        device: Device,
        state: Mapping[str, Any] | None = None,
        service: Callable[[Device], Service] = Service,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = device.name
        self.device = device
        self.interval = device.interval
        self.deadline = device.deadline
        self._wall, self._monotonic = wall, monotonic
        self._wrong: str | None = None
        self._service: Service | None = None
        try:
            self._service = service(device)
        except Refused as error:
            self._wrong = str(error)
        self._nodes: dict[str, _Node] = {}
        self._expand: str | None = None
        self._facts: dict[str, dict[str, str]] = {}
        self._firmware_names: dict[str, str] = {}
        self._chassis: dict[str, dict[str, str]] = {}
        self._within: dict[str, list[str]] = {}
        self._told_entity: dict[str, Any] | None = None
        self._entity_at = -math.inf
        self._told: dict[tuple[str, str, bool], float] = {}
        self._skew = 0
        #: (sensor, unit) → the metric, type and owner that another resource gives it
        self._meanings: dict[tuple[str, str], tuple[str, str, str | None]] = {}
        self._labels: dict[tuple[str, ...], tuple[int, dict[str, str]]] = {}
        #: (chassis, family) → whether the first generation of schemas is believed
        self._old: dict[tuple[str, str], bool] = {}
        #: until that is decided, by (chassis, family): the sensors of the second and of the first generation
        self._rivals: dict[tuple[str, str], tuple[set[str], set[str]]] = {}
        self._polls = 0
        self._complete = self._start_over = self._reached = False
        self._delivering_since = -math.inf
        saved = dict(state or {})
        self._marks: dict[str, Mark] = {}
        for path, plain in _mapping(saved.get("logs")).items():
            mark = mark_of(plain)
            if mark is not None:
                self._marks[path] = mark
        self._firmware = {key: value for key, value in _mapping(saved.get("firmware")).items() if type(value) is str}
        self._boots = {
            key: [float(entry) for entry in value]
            for key, value in _mapping(saved.get("boots")).items()
            if isinstance(value, list) and len(value) == 3 and all(type(entry) in {int, float} for entry in value)
        }

    def state(self) -> dict[str, Any]:
        return {
            "logs": {path: mark.plain() for path, mark in self._marks.items()},
            "firmware": dict(self._firmware),
            "boots": {path: list(values) for path, values in self._boots.items()},
        }

    def close(self) -> Awaitable[None] | None:
        """Ends the session on the device, which takes a request: to be awaited."""
        return None if self._service is None else self._service.close()

    async def poll(self) -> Poll:
        if self._service is None:
            return Poll(error=self._wrong)
        work, outcome = _Work(), Poll()
        trouble: str | None = None
        before = self._service.requests
        try:
            async with asyncio.timeout(self.deadline):
                await self._crawl(work)
        except TimeoutError:
            outcome.cut = True
            seconds, path = work.slowest
            slowest = f"; slowest: {path} {seconds:.1f} s" if path else ""
            trouble = f"cut after {self.deadline:g} s: {work.count} resources read, {work.left} left{slowest}"
        except ServiceError as error:
            trouble = str(error)
        outcome.up = self._reached = work.answered
        if work.answered:
            self._polls += 1
            outcome.points = self._points(work)
            outcome.points.append(point("aiops.device.poll.requests", self._service.requests - before, "{request}"))
            outcome.entity = self._entity()
            if outcome.entity is not None:
                outcome.fetched.extend(self._chassis_entities())
        outcome.changes = work.changes
        self._deliver(work, outcome)
        problems = [trouble] if trouble else []
        faults = [node.problem for node in self._nodes.values() if node.problem is not None]
        problems.extend(faults[:SHOWN_PROBLEMS])
        if len(faults) > SHOWN_PROBLEMS:
            problems.append(f"and {len(faults) - SHOWN_PROBLEMS} more resources")
        nothing = "nothing but the service root could be read" if work.contact else "nothing could be read"
        outcome.error = "; ".join(problems) or (None if work.answered else nothing)
        return outcome

    # --- what to read ----------------------------------------------------------------------------------------------

    async def _crawl(self, work: _Work) -> None:
        if self._start_over:
            # After a restart there may be other parts, other firmware and other schemas.
            self._start_over, self._complete = False, False
            for known in (self._nodes, self._old, self._labels, self._meanings, self._facts, self._firmware_names):
                known.clear()
            self._chassis.clear()
            self._within.clear()
        if not self._nodes:
            self._add(Child("root", f"{ROOT}/"), None, work)
        self._enqueue_due(work)
        running: set[asyncio.Task[None]] = set()
        try:
            while work.queue or running:
                # Where nothing answered last time, the first answer decides whether anything else need be asked.
                at_once = CONCURRENCY if work.contact or self._reached else 1
                while work.queue and len(running) < at_once:
                    _, _, node = heapq.heappop(work.queue)
                    if node.inline or self._nodes.get(node.path) is not node:
                        continue
                    running.add(asyncio.create_task(self._visit(node, work)))
                if not running:
                    continue
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                failures = [failure for failure in (task.exception() for task in done) if failure is not None]
                if failures:
                    raise failures[0]
        finally:
            work.left = len(work.queue) + len(running)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _enqueue_due(self, work: _Work) -> None:
        now = self._monotonic()
        slack = self.interval / 2
        due = [
            node
            for node in self._nodes.values()
            if not node.inline and now >= node.not_before and now >= node.read_at + node.every - slack
        ]
        due.sort(key=_Node.rank)
        first = sum(node.rank()[0] == 0 for node in due)
        rest = max(MOST_REQUESTS - first, LEAST_REST)
        for node in due:
            if node.rank()[0] == 2:
                rest -= 1
                if rest < 0:
                    continue
            self._enqueue(node, work)

    def _enqueue(self, node: _Node, work: _Work) -> None:
        if node.path not in work.queued:
            work.queued.add(node.path)
            heapq.heappush(work.queue, (node.rank(), len(work.queued), node))

    def _add(self, child: Child, above: _Node | None, work: _Work, *, log_name: str = "") -> _Node | None:
        """The node of a link, made when it is new; ``None`` when the link leads nowhere usable."""
        assert self._service is not None  # noqa: S101 - polls begin with it
        path = child.path if child.kind == "root" else self._service.path(child.path)
        if path is None or (len(self._nodes) >= MOST_NODES and path not in self._nodes):
            return None
        node = self._nodes.get(path)
        if node is None:
            kind = KINDS[child.kind]
            chassis = path if child.kind == "chassis" and not child.collection else above.chassis if above else None
            owner = above.owner if above is not None else "enclosure"
            every = STRUCTURE if child.collection else max(kind.every, self.interval if kind.every else 0.0)
            node = _Node(child.kind, path, child.collection, child.parent, owner, chassis, None, every, log=log_name)
            node.above = above.path if above is not None else None
            self._nodes[path] = node
            self._enqueue(node, work)
        elif child.parent is not None and (node.parent is None or child.parent > node.parent):
            # A drive belongs to a controller and to a chassis: the same one names it whichever was read first.
            node.parent, node.owner = child.parent, above.owner if above is not None else node.owner
        return node

    def _forget(self, path: str) -> None:
        gone = [path]
        while gone:
            path = gone.pop()
            if self._nodes.pop(path, None) is not None:
                self._facts.pop(path, None)
                self._chassis.pop(path, None)
                self._within.pop(path, None)
                gone.extend(node.path for node in self._nodes.values() if node.above == path)

    # --- reading ---------------------------------------------------------------------------------------------------

    async def _visit(self, node: _Node, work: _Work) -> None:
        began = self._monotonic()
        try:
            if node.collection:
                await self._read_collection(node, work)
            elif node.kind == "entries":
                await self._read_log(node, work)
            else:
                answer = await self._get(node.path, work)
                self._take(node, answer.body, work)
        except Missing as error:
            self._failed(node, error, told=False)
            if node.kind == "root":
                self._without_root(work)
        except (Slow, Broken) as error:
            self._failed(node, error, told=True)
            work.silent += 1
            if work.silent >= PATIENCE:
                raise Unreachable(f"{PATIENCE} requests in a row without an answer, the last: {error}") from error
        except (Unreachable, Refused):
            raise
        except ServiceError as error:
            self._failed(node, error, told=True)
            if node.kind == "root" and not isinstance(error, Forbidden):
                self._without_root(work)
        else:
            node.read_at, node.failures, node.problem = self._monotonic(), 0, None
        finally:
            took = self._monotonic() - began
            if took > work.slowest[0]:
                work.slowest = (took, node.path)

    async def _get(self, path: str, work: _Work, etag: str | None = None) -> Answer:
        assert self._service is not None  # noqa: S101 - polls begin with it
        answer = await self._service.get(path, etag)
        work.contact, work.silent = True, 0
        work.answered = work.answered or path.rstrip("/") != ROOT
        work.count += 1
        return answer

    def _failed(self, node: _Node, error: ServiceError, *, told: bool) -> None:
        log.debug("%s: %s", self.name, error)
        node.failures += 1
        node.problem = str(error) if told else None
        longest = LONGEST_SLOW_PAUSE if isinstance(error, Slow) else LONGEST_PAUSE
        if node.kind != "root":
            pause = min(self.interval * 2.0 ** min(node.failures - 1, 10), max(longest, self.interval))
            node.not_before = self._monotonic() + pause - self.interval / 2

    def _without_root(self, work: _Work) -> None:
        """A service without a usable root still has its collections where everybody has them."""
        for name, kind in (("Chassis", "chassis"), ("Systems", "system"), ("Managers", "manager")):
            self._add(Child(kind, f"{ROOT}/{name}", collection=True), None, work)
        self._add(Child("update", f"{ROOT}/UpdateService"), None, work)

    def _take(self, node: _Node, body: dict[str, Any], work: _Work) -> None:
        """Everything that a resource says."""
        found, owner = read(node.kind, node.path, body, node.parent, node.owner)
        if node.kind == "root":
            self._expand = advertised_expand(body)
            if self._service is not None:
                self._service.sessions_at(body)
        own = _Node(node.kind, node.path, False, node.parent, owner, node.chassis, node.above, node.every)
        for child in found.children:
            self._add(child, own, work, log_name=found.log or "")
        work.readings.extend((node, node.parent, reading) for reading in found.readings)
        node.sensors = frozenset(
            reading.id for reading in found.readings if reading.metric != "hw.status" and not reading.more
        )
        if found.facts:
            self._facts[node.path] = found.facts
        if found.entity:
            self._chassis[node.path] = found.entity
        if node.kind in {"system", "chassis"}:
            self._within[node.path] = found.within
        self._note_changes(node, found, work)

    async def _read_collection(self, node: _Node, work: _Work) -> None:
        expand = self._expand if node.expands is not False else None
        try:
            first = await self._get(f"{node.path}?{expand}" if expand else node.path, work)
        except (Unreachable, Refused, Missing, Slow):
            raise
        except ServiceError:
            if not expand:
                raise
            # Advertised is not yet possible.
            node.expands = False
            first, expand = await self._get(node.path, work), None
        body: Mapping[str, Any] = first.body
        paths: set[str] = set()
        visited: set[str] = set()
        inline = 0
        for _ in range(MOST_PAGES):
            for member in members(body):
                target = link(member)
                if target is None or len(paths) >= MOST_MEMBERS:
                    continue
                child = self._add(Child(node.kind, target, parent=node.parent), node, work)
                if child is None or child.path in paths:
                    continue
                paths.add(child.path)
                child.inline = is_expanded(member)
                if child.inline:
                    inline += 1
                    self._take(child, member, work)
                    child.read_at, child.failures, child.problem = self._monotonic(), 0, None
            following = next_link(body)
            target = self._service.path(following) if following is not None and self._service is not None else None
            if target is None or target in visited or not members(body):
                break
            visited.add(target)
            body = (await self._get(target, work)).body
        node.expands = bool(inline) if expand or inline else False
        kind = KINDS[node.kind]
        node.every = min(max(kind.every, self.interval if kind.every else 0.0), STRUCTURE) if inline else STRUCTURE
        gone = [other.path for other in self._nodes.values() if other.above == node.path and other.path not in paths]
        for path in gone:
            self._forget(path)

    # --- event logs ------------------------------------------------------------------------------------------------

    async def _read_log(self, node: _Node, work: _Work) -> None:
        if self._monotonic() - self._delivering_since < DELIVERY_SECONDS:
            return
        mark = self._marks.get(node.path)
        now = round(self._wall() * MICROS_PER_SECOND) + self._skew
        place = node.tail or node.path
        answer = await self._get(place, work, node.etag if mark is not None else None)
        print_ = f"{place} {fingerprint(answer.body)}"
        if answer.unchanged or (mark is not None and print_ == node.print):
            return

        async def page(target: str) -> Mapping[str, Any]:
            path = self._service.path(target) if self._service is not None else None
            return {} if path is None else (await self._get(path, work)).body

        async def single(target: str) -> Entry | None:
            try:
                return dict(await page(target)) or None
            except (Missing, Forbidden):
                return None

        until = self._monotonic() + LOG_PART * self.deadline
        pages = await read_pages(
            answer.body, place, mark, page, single, now,
            from_start=place == node.path, enough=lambda: self._monotonic() >= until,
        )  # fmt: skip
        if place != node.path and mark is not None and mark.newest not in map(key_of, pages.entries):
            # The page that was the last holds nothing known: the log was cleared, or has moved on by more than a page.
            answer = await self._get(node.path, work)
            pages = await read_pages(answer.body, node.path, mark, page, single, now)
        fresh, moved = new_entries(mark, pages.entries, now, whole=pages.whole)
        if pages.more and pages.tail is None:
            log.warning(
                "%s: %s holds more new entries than are read at once; the oldest are left out", self.name, place
            )
        tail = pages.tail if pages.tail != node.path else None
        work.logs.append(_LogRead(node, fresh, moved, tail, answer.etag if tail is None else None, print_))

    def _deliver(self, work: _Work, outcome: Poll) -> None:
        """Hand over new log entries; marks move when they are durable, or at once when there is nothing to lose."""
        waiting = []
        for one in work.logs:
            for start in range(0, len(one.entries), BATCH):
                part = one.entries[start : start + BATCH]
                body = bundle(self.name, one.node.log, one.node.path, part, self._skew)
                identity = f"redfish-{xxhash.xxh3_128_hexdigest(body)}"
                outcome.fetched.append(Fetched(body, "redfish_log", delivery_id=identity))
            if one.entries:
                waiting.append(one)
            else:
                self._move(one)
        if not waiting:
            return
        self._delivering_since = self._monotonic()

        def delivered() -> None:
            self._delivering_since = -math.inf
            for one in waiting:
                self._move(one)

        outcome.delivered = delivered

    def _move(self, one: _LogRead) -> None:
        self._marks[one.node.path] = one.mark
        one.node.tail, one.node.etag, one.node.print = one.tail, one.etag, one.print

    # --- changes ---------------------------------------------------------------------------------------------------

    def _note_changes(self, node: _Node, found: Found, work: _Work) -> None:
        now = round(self._wall() * MICROS_PER_SECOND)
        if found.clock is not None:
            ahead = found.clock - now
            self._skew = round(ahead / _MINUTE) * _MINUTE if abs(ahead) >= CLOCK_SLACK else 0
        for component, (name, version) in found.firmware.items():
            before = self._firmware.get(component)
            self._firmware[component] = version
            self._firmware_names[component] = name
            if before is not None and before != version:
                self._note_firmware(component, name, before, version, now, work)
        if found.reset_at is not None or found.boots is not None:
            self._note_boot(node, found, now, work)

    def _note_firmware(self, component: str, name: str, before: str, after: str, now: int, work: _Work) -> None:
        listed = component.startswith("firmware/")
        at = self._monotonic()
        self._told[before, after, listed] = at
        if at - self._told.get((before, after, not listed), -math.inf) < SAME_CHANGE_SECONDS:
            return
        title = f"{name} of {self.name}: {before} → {after}"
        details = {"component": component, "name": name, "version": after, "version_before": before}
        work.changes.append({"ts": now, "kind": "firmware", "title": title, "details": details})

    def _note_boot(self, node: _Node, found: Found, now: int, work: _Work) -> None:
        """Compare the last reset and the count of boots (-1: not told) with those of the poll before."""
        reset_at = -1.0 if found.reset_at is None else float(found.reset_at)
        boots = -1.0 if found.boots is None else found.boots
        before = self._boots.get(node.path)
        self._boots[node.path] = [reset_at, boots, float(now)]
        if before is None:
            return
        again = before[0] >= 0 and reset_at > before[0] + RESET_SLACK
        counted = before[1] >= 0 and boots > before[1]
        if not again and not counted:
            return
        # It happened since the last poll, whatever the device's clock says.
        at = min(max(int(reset_at) - self._skew, int(before[2])), now) if again else now
        several = sum(other.kind == node.kind and not other.collection for other in self._nodes.values()) > 1
        which = f"{self.name} ({short(node.path)})" if several else self.name
        title = f"{which} restarted" if node.kind == "system" else f"management controller of {which} restarted"
        work.changes.append(reboot(at, title, {"resource": node.path, "last_reset_time": int(reset_at)}))
        log.info("%s", title)
        self._start_over = True

    # --- meaning ---------------------------------------------------------------------------------------------------

    def _points(self, work: _Work) -> list[Point]:
        """The points of what was read, each series once."""
        for _, _, reading in work.readings:
            if reading.rank:
                self._learn(reading)
        chosen: dict[tuple[str, ...], tuple[int, Point]] = {}
        readings = list(self._named(work))
        self._choose_generation(readings)
        for node, parent, reading in readings:
            if _of_one_generation(node, reading):
                believed = self._old.get((node.chassis or "", reading.family))
                if believed is not None and believed != reading.old:
                    continue
            key = reading.key
            labels = self._series_labels(reading, node.parent if reading.parent == parent else reading.parent)
            made = point(reading.metric, reading.value, reading.unit, reading.kind, labels)
            if key not in chosen or reading.rank < chosen[key][0]:
                chosen[key] = (reading.rank, made)
        if not self._complete and all(node.read_at > -math.inf or node.failures for node in self._nodes.values()):
            self._complete = True
            self._settle()
        # Readings first: a trial shows the first rows.
        return sorted((made for _, made in chosen.values()), key=lambda made: bool(made["metric"] == "hw.status"))

    def _learn(self, reading: Reading) -> None:
        known = self._meanings.get((reading.id, reading.unit))
        if known is None or _specific(reading.metric) < _specific(known[0]):
            self._meanings[reading.id, reading.unit] = (reading.metric, reading.type, reading.parent)

    def _named(self, work: _Work) -> Iterator[tuple[_Node, str | None, Reading]]:
        """Readings under the name that the resource with the most to say gives their sensor."""
        for node, parent, reading in work.readings:
            known = self._meanings.get((reading.id, reading.unit))
            if known is not None and known[0] != reading.metric and not reading.more and reading.metric != "hw.status":
                reading.metric, reading.type = known[0], known[1]
            yield node, parent, reading

    def _choose_generation(self, readings: list[tuple[_Node, str | None, Reading]]) -> None:
        """Which resources of a chassis are believed where both generations are there: those that tell more.

        Until all of a chassis was read once it is what was seen so far; then it stays.
        """
        for node, _, reading in readings:
            if _of_one_generation(node, reading) and reading.metric != "hw.status":
                place = (node.chassis or "", reading.family)
                if not self._complete or place not in self._old:
                    self._rivals.setdefault(place, (set(), set()))[reading.old].add(reading.id)
        for place, (new, old) in self._rivals.items():
            self._old[place] = len(old) > len(new)
        if self._complete:
            self._rivals.clear()

    def _settle(self) -> None:
        """Everything was read once: from now on read nothing that tells no more than something else.

        Of a collection of sensors that comes in one piece not the summaries, else not the sensors that those have; and
        of the two generations the one that is not believed only with the structure.
        """
        self._rivals.clear()
        rarely = max(COMPONENTS, self.interval)
        nodes = list(self._nodes.values())
        sensors = {id_ for node in nodes if node.kind == "sensor" and node.inline for id_ in node.sensors}
        summed = {id_ for node in nodes if node.kind in _SUMMARIES and not node.inline for id_ in node.sensors}
        for node in nodes:
            if node.kind in {"thermal", "power"}:
                families = ("temperature", "fan") if node.kind == "thermal" else ("voltage", "power_supply", "power")
                needed = any(self._old.get((node.chassis or "", family), False) for family in families)
                node.every = EVERY_POLL if needed else STRUCTURE
            elif node.inline or not node.sensors:
                continue
            elif (node.kind in _SUMMARIES and node.sensors <= sensors) or (
                node.kind == "sensor" and node.sensors <= summed
            ):
                node.every = rarely

    def _series_labels(self, reading: Reading, parent: str | None) -> dict[str, str]:
        known = self._labels.get(reading.key)
        if known is not None and known[0] <= reading.rank:
            return known[1]
        labels = {"hw.id": reading.id, "hw.type": reading.type}
        for label, value in (
            ("hw.name", reading.name),
            ("hw.parent", parent),
            ("hw.sensor_location", reading.location),
        ):
            if value:
                labels[label] = value
        labels.update(reading.more)
        self._labels[reading.key] = (reading.rank, labels)
        return labels

    def _entity(self) -> dict[str, Any] | None:
        """The device, when it is new, has changed, or was not told for a while."""
        labels: dict[str, str] = {"address": self.device.address}
        for _, facts in sorted(self._facts.items()):
            for label, value in facts.items():
                labels.setdefault(label, value)
        for _, facts in sorted(self._chassis.items()):
            for label in ("vendor", "model", "serial", "sku", "part_number", "asset_tag"):
                if label in facts:
                    labels.setdefault(label, facts[label])
        versions = sorted((self._firmware_names[key], self._firmware[key]) for key in self._firmware_names)
        for name, version in versions[:MOST_FIRMWARE_LABELS]:
            labels.setdefault(f"firmware.{name[:100]}", version[:100])
        kept: dict[str, str] = {}
        room = MOST_LABEL_CHARS
        for label, value in labels.items():
            room -= len(label) + len(value)
            if room >= 0:
                kept[label] = value[:LONGEST_TEXT]
        kept.update(self.device.labels)
        needed = list(dict.fromkeys([*self.device.depends_on, *(name for name, _, _ in self._holding())]))
        made = {"kind": "device", "site": self.device.site, "labels": kept, "depends_on": needed}
        now = self._monotonic()
        spread = zlib.crc32(self.name.encode()) % 1000 / 4000
        due = now - self._entity_at >= STRUCTURE * (1 + spread)
        if not (self._complete or self._polls > PATIENCE) or (made == self._told_entity and not due):
            return None
        self._told_entity, self._entity_at = made, now
        return made

    def _holding(self) -> list[tuple[str, dict[str, str], list[str]]]:
        """(name, labels, what holds it) of every chassis that holds a system of this device, from inside out."""
        assert self._service is not None  # noqa: S101 - polls begin with it
        waiting = [target for path, targets in self._within.items() if path not in self._chassis for target in targets]
        seen: dict[str, tuple[str, dict[str, str], list[str]]] = {}
        while waiting and len(seen) < 50:
            path = self._service.path(waiting.pop(0))
            if path is None or path in seen or path not in self._chassis:
                continue
            above = [found for found in map(self._service.path, self._within.get(path, ())) if found is not None]
            names = [self._chassis_name(found) for found in above if found in self._chassis]
            seen[path] = (self._chassis_name(path), self._chassis[path], names)
            waiting.extend(above)
        return list(seen.values())

    def _chassis_name(self, path: str) -> str:
        """Blades see the same chassis: its serial number makes it one entity."""
        serial = self._chassis[path].get("serial")
        return f"chassis {serial}" if serial else f"{self.name} {short(path)}"

    def _chassis_entities(self) -> Iterator[Fetched]:
        documents = [
            {
                "host": name,
                "entity": {"kind": "device", "site": self.device.site, "labels": labels, "depends_on": above},
            }
            for name, labels, above in self._holding()
        ]
        if documents:
            yield Fetched(orjson.dumps(documents), "collected")


def _of_one_generation(node: _Node, reading: Reading) -> bool:
    """Whether the other generation of schemas may hold the same reading."""
    where = node.kind in _GENERATIONS and (node.kind != "environment" or node.owner == "enclosure")
    return where and node.chassis is not None and reading.family in _FAMILIES


def _specific(metric: str) -> int:
    return _SPECIFIC.index(metric) if metric in _SPECIFIC else len(_SPECIFIC)


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


async def poll_once(device: Device) -> tuple[dict[str, Any], Poll]:
    """Poll a device that nobody polls yet: its document and, for people, the outcome behind it.

    The session is ended again. Never raises for what the device does wrong.
    """
    poller = RedfishPoller(device)
    began, ts = time.monotonic(), time.time_ns() // 1000
    try:
        outcome = await poller.poll()
        return document(device.name, poller.kind, ts, outcome, time.monotonic() - began), outcome
    finally:
        closing = poller.close()
        if closing is not None:
            await closing
