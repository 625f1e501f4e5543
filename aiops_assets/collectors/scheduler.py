"""One asyncio scheduler for every device: when to poll, and what becomes of what comes back.

What belongs here: intervals, deterministic jitter, deadlines, back-off of dead devices, reloading of ``aiops.yaml``,
the status file and the process's main function. What does not: how a device is polled (``host``, ``snmp``).

Every device has its own timer and its own task, so a slow one delays nobody: when its next turn comes and it is still
being polled, that turn is skipped and counted. A device that does not answer is tried less often, but its absence is
reported at every turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import orjson

from aiops_assets.collectors import process
from aiops_assets.collectors.document import Fetched, Poll, Poller, document, encode
from aiops_assets.collectors.host import HostPoller
from aiops_assets.collectors.outbox import Outbox
from aiops_assets.collectors.snmp.engine import Engine
from aiops_assets.collectors.snmp.poll import SnmpPoller
from aiops_assets.collectors.snmp.profile import Profile, ProfileError, load_profiles, shipped_profiles
from aiops_assets.collectors.snmp.window import Window
from aiops_assets.config import (
    Config,
    ConfigError,
    ConfigFile,
    Device,
    Discovery,
    Folder,
    HostCollection,
    Pull,
    Tail,
)
from aiops_assets.landing.writer import SegmentWriter
from aiops_assets.settings import Settings

log = logging.getLogger(__name__)

#: what aiops.yaml can declare to be polled
Declared = Device | HostCollection | Pull | Tail | Folder | Discovery
WRITER_ID = "collector"
STATUS_FILE = "status.json"
STATE_FILE = "state.json"
#: how often the status file is written and aiops.yaml looked at (seconds)
HOUSEKEEPING_SECONDS = 1.0
LONGEST_HOUSEKEEPING_SECONDS = 5.0
#: how often the state of pollers is saved (seconds)
STATE_SECONDS = 10.0
#: and where log files are followed: a rotation of a file that no saved state knows may lose lines (seconds)
FOLLOWING_STATE_SECONDS = 1.0
#: failed polls in a row after which a device is tried less often
PATIENCE = 3
#: what answers and tells nothing of itself, such as a file, is reported as up this often (microseconds)
REPORT_MICROS = 60_000_000
#: an abandoned poll is cancelled at most so often
CANCELLATIONS = 20
#: a dead device is tried at least this often (seconds), or at its interval when that is longer
LONGEST_BACK_OFF = 300.0
#: first polls are spread over this many devices a second
WARM_UP_RATE = 100.0
#: a poll that takes more than this part of its deadline (or interval) is called slow
SLOW_PART = 0.15
#: a poller that ignores its own deadline is cut this much later (seconds)
GRACE_SECONDS = 1.0
BEAT_SECONDS = 0.1
#: timers later than this mean that turns are left out; well below the usual timeout of a request
OVERLOAD_SECONDS = 0.75
DRAIN_SECONDS = 5.0
MAX_DESCRIPTORS = 65_536
#: what a poller still says to its device when it is closed may take so long (seconds)
CLOSE_SECONDS = 5.0


def jitter(name: str, interval: float) -> float:
    """Where in its interval a device has its turn: 0 ≤ seconds < interval, always the same for a name."""
    return zlib.crc32(name.encode()) / 2**32 * interval


def next_turn(now: float, name: str, interval: float) -> float:
    """The next instant after ``now`` (wall clock seconds) at which a device has its turn."""
    phase = jitter(name, interval)
    return phase + ((now - phase) // interval + 1) * interval


def back_off(failures: int, interval: float) -> float:
    """Seconds until a device that failed so often in a row is tried again; its interval while patience lasts."""
    if failures < PATIENCE:
        return interval
    return max(interval, min(interval * 2.0 ** min(failures - PATIENCE + 1, 16), LONGEST_BACK_OFF))


class Pulse:
    """How late timers are and how long requests queue: the signs of a collector with too much to do.

    Replies that wait unread look like silence. Rather than call healthy devices dead, an overloaded collector leaves
    out turns, and counts them.
    """

    def __init__(self, queued: Callable[[], float] = lambda: 0.0) -> None:
        #: seconds by which the last beat was late
        self.timer_lag = 0.0
        self._queued = queued
        #: turns left out since the start
        self.left_out = 0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._told_at = float("-inf")

    @property
    def lag(self) -> float:
        """Seconds by which this process is behind."""
        return max(self.timer_lag, self._queued())

    @property
    def overloaded(self) -> bool:
        return self.lag > OVERLOAD_SECONDS

    def start(self) -> None:
        """Begin to beat in the running event loop."""
        loop = asyncio.get_running_loop()
        self._due = loop.time() + BEAT_SECONDS
        self._timer = loop.call_at(self._due, self._beat)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def leave_out(self) -> None:
        """A turn was left out."""
        self.left_out += 1
        now = asyncio.get_running_loop().time()
        if now - self._told_at >= 10:
            self._told_at = now
            log.warning("the collector cannot keep up, it is %.1f s behind; left out: %d", self.lag, self.left_out)

    def _beat(self) -> None:
        self.timer_lag = max(0.0, asyncio.get_running_loop().time() - self._due)
        self.start()


class Destination(Protocol):
    """Where documents and fetched bytes go: an ``Outbox``, or something in its place."""

    def put(self, source: str, body: bytes) -> None:
        """Take an encoded document."""
        ...

    def deliver(self, source: str, fetched: Sequence[Fetched], delivered: Callable[[], None] | None) -> None:
        """Take what was fetched; call ``delivered`` when it is durable."""
        ...


class Watch:
    """One device's turns. ``outbox`` takes finished documents and what was fetched."""

    def __init__(
        self,
        poller: Poller,
        outbox: Destination,
        pulse: Pulse | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.poller = poller
        self.ok: bool | None = None
        self.error: str | None = None
        self.duration = 0.0
        self.last_poll_at = 0
        self.points = 0
        self.slow = False
        self.skipped = 0
        self.polls = 0
        self.failures = 0
        self._retry_at = 0.0
        self._turn_at = float("-inf")
        self._last_ts = 0
        self._reported_at, self._reported_up = 0, False
        self._outbox, self._clock = outbox, clock
        self._pulse = pulse or Pulse()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def start(self, first_within: float) -> None:
        """Begin: the first turn comes within this many seconds, the others at the device's own phase."""
        spread = min(first_within, self.poller.interval)
        self._timer = asyncio.get_running_loop().call_later(jitter(self.poller.name, spread), self.turn)

    async def stop(self) -> None:
        """No more turns; a running poll is abandoned."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None and not self._task.done():
            await _abandon(self._task)
        closing = self.poller.close()
        if closing is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await closing

    async def finish(self, seconds: float) -> None:
        """No more turns, but a running poll may end within ``seconds``."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None and not self._task.done():
            await asyncio.wait([self._task], timeout=seconds)
        await self.stop()

    def turn(self) -> None:
        """The device's turn has come: poll, or say why not."""
        if self._closed:
            return
        now, interval = self._clock(), self.poller.interval
        if self.polls == 0 and self._pulse.overloaded:
            # Starting many devices is work in itself: the first poll waits for it rather than being left out.
            self._timer = asyncio.get_running_loop().call_later(1.0 + jitter(self.poller.name, 4.0), self.turn)
            return
        # Timers fire a little early: this turn must not be found again. A clock set back must not end all turns.
        after = max(now, self._turn_at + interval / 2) if self._turn_at - now < interval else now
        self._turn_at = next_turn(after, self.poller.name, interval)
        self._timer = asyncio.get_running_loop().call_later(self._turn_at - now, self.turn)
        if self._task is not None and not self._task.done():
            self.skipped += 1
            if self.skipped in {1, 10} or self.skipped % 100 == 0:
                log.warning(
                    "%s is still being polled when its next turn comes; turns skipped so far: %d",
                    self.poller.name,
                    self.skipped,
                )
        elif self._pulse.overloaded:
            self.skipped += 1
            self._pulse.leave_out()
        elif now < self._retry_at:
            # Dead and not yet due: its absence is a fact at this turn too.
            self._publish(Poll(error=self.error), self.duration, self._stamp())
        else:
            self._task = asyncio.create_task(self._poll(), name=f"poll-{self.poller.name}")

    async def _poll(self) -> None:
        began, ts = time.monotonic(), self._stamp()
        limit = self.poller.deadline + GRACE_SECONDS
        try:
            async with asyncio.timeout(limit):
                outcome = await self.poller.poll()
        except TimeoutError:
            outcome = Poll(error=f"cut after {limit:g} s", cut=True)
        except Exception as error:
            log.exception("polling %s failed", self.poller.name)
            outcome = Poll(error=f"{type(error).__name__}: {error}")
        duration = time.monotonic() - began
        self._note(outcome, duration, ts)
        self._publish(outcome, duration, ts)

    def _note(self, outcome: Poll, duration: float, ts: int) -> None:
        name = self.poller.name
        self.polls += 1
        self.duration, self.last_poll_at = duration, ts
        if outcome.up:
            if self.ok is False:
                log.info("%s answers again after %d failed polls", name, self.failures)
            self.failures, self._retry_at = 0, 0.0
        else:
            self.failures += 1
            wait = back_off(self.failures, self.poller.interval)
            # Turns come at fixed instants: half an interval early still means this turn.
            self._retry_at = self._clock() + wait - self.poller.interval / 2 if self.failures >= PATIENCE else 0.0
            if self.ok is not False:
                log.warning("%s does not answer: %s", name, outcome.error)
            elif self.failures == PATIENCE:
                log.warning("%s has failed %d times, it is tried less often now", name, PATIENCE)
        if outcome.up and outcome.error and outcome.error != self.error:
            log.warning("%s: %s", name, outcome.error)
        allowed = min(self.poller.deadline, self.poller.interval)
        slow = outcome.cut or (outcome.up and duration > SLOW_PART * allowed)
        if slow and not self.slow:
            log.warning("%s is slow: its poll took %.2f s (deadline %g s)", name, duration, self.poller.deadline)
        elif self.slow and outcome.up and not slow:
            log.info("%s is no longer slow: %.2f s", name, duration)
        self.slow = slow or (self.slow and not outcome.up)
        self.ok, self.error = outcome.up, outcome.error

    def _stamp(self) -> int:
        """Now in microseconds since the epoch, never the same twice and never back, whatever the clock does."""
        now = int(self._clock() * 1_000_000)
        self._last_ts = max(now, self._last_ts + 1)
        return self._last_ts

    def _publish(self, outcome: Poll, duration: float, ts: int) -> None:
        made = document(self.poller.name, self.poller.kind, ts, outcome, duration)
        self.points = len(made["points"])
        told = outcome.points or outcome.changes or outcome.entity is not None
        if told or not outcome.up or outcome.up is not self._reported_up or ts - self._reported_at >= REPORT_MICROS:
            self._outbox.put(self.poller.source, encode(made))
            self._reported_at, self._reported_up = ts, outcome.up
        if outcome.fetched or outcome.delivered is not None:
            self._outbox.deliver(self.poller.source, outcome.fetched, outcome.delivered)

    def status(self) -> dict[str, Any]:
        """This device in the status file."""
        return {
            "ok": bool(self.ok),
            "last_poll_at": self.last_poll_at,
            "duration": round(self.duration, 6),
            "points": self.points,
            "error": self.error,
            "slow": self.slow,
            "skipped": self.skipped,
            "failures": self.failures,
            "polls": self.polls,
            "kind": self.poller.kind,
            "source": self.poller.source,
        }


async def _abandon(task: asyncio.Task[None]) -> None:
    """Cancel until it takes effect: a timeout that runs out at the same instant may take a cancellation for its own."""
    for _ in range(CANCELLATIONS):
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=0.25)
        if done:
            return
    log.error("%s does not end", task.get_name())


class Collector:
    """All watches of this process, kept equal to what aiops.yaml says."""

    def __init__(
        self,
        outbox: Outbox,
        engine: Callable[[], Engine],
        *,
        state: Mapping[str, Mapping[str, Any]] | None = None,
        profiles: Sequence[Profile] | None = None,
        host_name: str | None = None,
    ) -> None:
        self._outbox = outbox
        self._window = Window()
        self.pulse = Pulse(lambda: self._window.delay)
        self._make_engine = engine
        self._engine: Engine | None = None
        self._states: dict[str, Mapping[str, Any]] = dict(state or {})
        self._profiles = profiles
        self._host_name = host_name
        #: by (kind, name), with what each was made from
        self.watches: dict[tuple[str, str], tuple[Declared, Watch]] = {}

    async def apply(self, config: Config) -> None:
        """Start, replace and stop watches so that they are what the configuration says."""
        wanted: dict[tuple[str, str], Declared] = {(d.kind, d.name): d for d in config.devices}
        wanted |= {("pull", pull.name): pull for pull in config.pull}
        wanted |= {("tail", tail.name): tail for tail in config.tail}
        wanted |= {("folder", folder.name): folder for folder in config.folders}
        wanted |= {("discover", discovery.name): discovery for discovery in config.discover}
        if config.collect.host.enabled:
            wanted["host", ""] = config.collect.host
        if self._engine is None and any(kind in {"snmp", "discover"} for kind, _ in wanted):
            self._engine = await asyncio.to_thread(self._make_engine)
        gone = [key for key, (made_from, _) in self.watches.items() if wanted.get(key) != made_from]
        for key in gone:
            _, watch = self.watches.pop(key)
            self._states[_state_key(key)] = watch.poller.state()
            await watch.stop()
            if key not in wanted:
                log.info("%s is no longer polled", watch.poller.name)
                self._states.pop(_state_key(key), None)
        fresh = [key for key in wanted if key not in self.watches]
        within = max(1.0, len(fresh) / WARM_UP_RATE)
        for number, key in enumerate(fresh):
            watch = Watch(self._poller(key, wanted[key]), self._outbox, self.pulse)
            self.watches[key] = (wanted[key], watch)
            watch.start(within)
            if number % 50 == 49:
                await asyncio.sleep(0)
        if fresh:
            log.info("%d devices polled, %d of them new or changed", len(self.watches), len(fresh))

    def _poller(self, key: tuple[str, str], made_from: Declared) -> Poller:
        return make_poller(
            made_from,
            lambda: self._engine or self._make_engine(),
            profiles=self._profiles,
            host_name=self._host_name,
            state=self._states.get(_state_key(key)),
            window=self._window,
        )

    def state(self) -> dict[str, Any]:
        """What survives a restart, by device."""
        return {_state_key(key): watch.poller.state() for key, (_, watch) in self.watches.items()}

    def status(self) -> dict[str, Any]:
        """Every device by name."""
        return {watch.poller.name: watch.status() for _, watch in self.watches.values()}

    async def finish(self, seconds: float) -> None:
        """Let running polls end, within ``seconds``."""
        await asyncio.gather(*(watch.finish(seconds) for _, watch in self.watches.values()))

    def close(self) -> None:
        """Close the SNMP engine."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None


def make_poller(
    made_from: Declared,
    engine: Callable[[], Engine],
    *,
    profiles: Sequence[Profile] | None = None,
    host_name: str | None = None,
    state: Mapping[str, Any] | None = None,
    window: Window | None = None,
) -> Poller:
    """The poller of something that aiops.yaml declares; ``engine`` is called for SNMP only.

    The module of each kind is imported only where something of it is declared.
    """
    if isinstance(made_from, HostCollection):
        return HostPoller(interval=made_from.interval, processes=made_from.processes, name=host_name, state=state)
    if isinstance(made_from, Device) and made_from.kind == "snmp":
        return SnmpPoller(made_from, engine(), profiles, state, window or Window())
    if isinstance(made_from, Discovery):
        from aiops_assets.collectors.discovery import DiscoveryPoller

        return DiscoveryPoller(made_from, engine(), profiles, state, window)
    if isinstance(made_from, Pull):
        from aiops_assets.collectors.pull import poller_of

        return poller_of(made_from, state)
    if isinstance(made_from, Tail):
        from aiops_assets.collectors.tail import TailPoller

        return TailPoller(made_from, state)
    if isinstance(made_from, Folder):
        from aiops_assets.collectors.folders import FolderPoller

        return FolderPoller(made_from, state)
    from aiops_assets.collectors.redfish.poll import RedfishPoller

    return RedfishPoller(made_from, state)


def _state_key(key: tuple[str, str]) -> str:
    return f"{key[0]}:{key[1]}"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a file by a JSON object, atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(orjson.dumps(content))
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object of a file; empty when there is none or it is damaged."""
    try:
        content = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def _pysnmp_engine() -> Engine:
    # Imported only where devices are polled: it takes a second.
    from aiops_assets.collectors.snmp.pysnmp_engine import PysnmpEngine

    return PysnmpEngine()


async def collect(settings: Settings, writer: SegmentWriter, stop: asyncio.Event) -> None:
    """Poll until ``stop`` is set, then drain and seal. A mistake in aiops.yaml is reported and changes nothing."""
    home = settings.paths
    folder = home.collector
    loop = asyncio.get_running_loop()
    outbox = Outbox(writer)
    runner = asyncio.create_task(outbox.run(), name="outbox")
    profiles, profile_problem = _profiles(home.root / "profiles")
    collector = Collector(outbox, _pysnmp_engine, state=read_json(folder / STATE_FILE), profiles=profiles)
    config_file = ConfigFile(home.config)
    collector.pulse.start()
    applied: Config | None = None
    first_problems: list[str] = []
    saved_state: dict[str, Any] = {}
    save_at = 0.0
    try:
        while not stop.is_set():
            try:
                # A thousand devices take a second to parse: polling goes on meanwhile.
                config = await asyncio.to_thread(config_file.current)
                first_problems = []
            except ConfigError as error:
                # Nothing good was ever read: collect this machine meanwhile, and say why that is all.
                config = applied or Config()
                if error.problems != first_problems:
                    log.error("aiops.yaml is wrong, only this machine is collected until it is right: %s", error)
                first_problems = error.problems
            if config is not applied:
                await collector.apply(config)
                applied = config
            began = loop.time()
            problems = [*first_problems, *config_file.problems, *([profile_problem] if profile_problem else [])]
            status = {
                "updated_at": time.time_ns() // 1000,
                "pid": os.getpid(),
                "devices": collector.status(),
                "landing": {
                    "blocked": outbox.blocked,
                    "waiting": outbox.waiting,
                    "waiting_bytes": outbox.waiting_bytes,
                    "dropped": outbox.dropped,
                    "written": outbox.written,
                },
                "lag": round(collector.pulse.lag, 4),
                "left_out": collector.pulse.left_out,
                "problems": list(dict.fromkeys(problems)),
            }
            state = collector.state()
            try:
                await asyncio.to_thread(write_json, folder / STATUS_FILE, status)
                if state != saved_state and loop.time() >= save_at:
                    await asyncio.to_thread(write_json, folder / STATE_FILE, state)
                    saved_state = state
                    save_at = loop.time() + (FOLLOWING_STATE_SECONDS if config.tail else STATE_SECONDS)
            except OSError as error:
                log.warning("the status file cannot be written: %s", error)
            # Large fleets make large status files: keep their writing to a small part of the time.
            pause = min(max(HOUSEKEEPING_SECONDS, 20 * (loop.time() - began)), LONGEST_HOUSEKEEPING_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await stop.wait()
    finally:
        collector.pulse.stop()
        await collector.finish(DRAIN_SECONDS)
        state = collector.state()
        collector.close()
        await outbox.close(runner)
        with contextlib.suppress(OSError):
            write_json(folder / STATE_FILE, state)


def _profiles(folder: Path) -> tuple[tuple[Profile, ...], str | None]:
    """The profiles in force and what is wrong with the user's own."""
    try:
        return load_profiles(folder), None
    except (ProfileError, OSError, UnicodeDecodeError) as error:
        log.error("profiles: %s; only the shipped ones are used", error)
        return shipped_profiles(), str(error)


def _raise_descriptor_limit() -> None:
    """Every Redfish service has up to three connections, every file that is followed a descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def run(settings: Settings) -> int:
    """The collector process: polls until SIGTERM or SIGINT, then drains and seals.

    Returns the exit code: 0 after a signal, 2 when another collector owns the landing folder.
    """
    _raise_descriptor_limit()
    return process.run(settings, WRITER_ID, "collect", collect)
