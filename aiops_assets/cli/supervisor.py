"""One process that owns the others: starts them, keeps their output, restarts what dies, leaves nothing behind.

What belongs here: the supervision of any set of commands. Which ones the platform consists of stands in ``up``.
Everything runs in one thread (the kernel's notice of a parent's death is bound to the thread that started the child);
only the checks of readiness, which may wait for an answer, have a thread of their own.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import queue
import secrets
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Literal

from aiops_assets.cli import processes
from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.settings import child_environment

log = logging.getLogger(__name__)

STATE_FILE = "supervisor.json"
_LOG_BYTES = 10 * 1024 * 1024
_LOG_BACKUPS = 5
_LONGEST_LINE = 64 * 1024
_FIRST_BACKOFF = 1.0
#: a child that ran this long starts again without the memory of earlier failures
_STEADY_SECONDS = 10.0
_READY_POLL_SECONDS = 0.2
_SECOND_WISH_SECONDS = 1.0
#: a child waits no longer than this for those that go first
_LONGEST_HOLD_SECONDS = 10.0


EventKind = Literal["started", "ready", "died", "stopping", "stopped", "cleaned"]


class AlreadyRunning(Exception):
    """Another supervisor owns this home folder; ``state`` is what it wrote about itself."""

    def __init__(self, state: SupervisorState | None) -> None:
        super().__init__("another supervisor owns this home folder")
        self.state = state


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """A process to keep running.

    ``ready`` is asked with the start time (seconds since the epoch) until it says yes. ``after`` names children that go
    first: this one starts when they are ready, or some seconds later in any case.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[float], bool] | None = None
    after: tuple[str, ...] = ()
    #: seconds after which it starts whether those are ready or not
    longest_hold: float = _LONGEST_HOLD_SECONDS


@dataclass(frozen=True, slots=True)
class ChildState:
    """What is known of a child. Instants are microseconds since the epoch (UTC); ``pid`` 0 while it does not run."""

    pid: int = 0
    started_at: int = 0
    ready: bool = False
    restarts: int = 0
    last_exit: str | None = None


@dataclass(frozen=True, slots=True)
class SupervisorState:
    """The content of ``supervisor.json``. ``ticks`` is the supervisor's start in kernel ticks since boot."""

    pid: int
    ticks: int
    token: str
    started_at: int
    children: Mapping[str, ChildState]

    @property
    def alive(self) -> bool:
        """Whether the supervisor that wrote this still runs (and not another process with its number)."""
        return processes.start_ticks(self.pid) == self.ticks


@dataclass(frozen=True, slots=True)
class Event:
    """Something to tell people about. ``text`` is one line."""

    kind: EventKind
    child: str
    text: str


@dataclass(slots=True)
class _Child:
    spec: ChildSpec
    log: RotatingFileHandler
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    started_monotonic: float = 0.0
    ready: bool = False
    restarts: int = 0
    failures: int = 0
    restart_at: float | None = None
    last_exit: str | None = None
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    partial: dict[int, bytes] = field(default_factory=dict)


def read_state(home: Path) -> SupervisorState | None:
    """What the last supervisor of a home folder wrote, or ``None``."""
    try:
        fields = json.loads((home / STATE_FILE).read_text("utf-8"))
        fields["children"] = {name: ChildState(**child) for name, child in fields["children"].items()}
        return SupervisorState(**fields)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read: %s", home / STATE_FILE, error)
        return None


def running(home: Path) -> SupervisorState | None:
    """The state of the supervisor that owns a home folder now, or ``None`` when there is none."""
    state = read_state(home)
    return state if state is not None and state.alive else None


def exit_reason(code: int) -> str:
    """A return code of ``subprocess`` in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


class Supervisor:
    """Owns a set of processes from start to end.

    Raises:
        AlreadyRunning: from ``run`` (before anything is started) when another supervisor owns the home folder.
    """

    def __init__(
        self,
        home: Path,
        logs: Path,
        children: Sequence[ChildSpec],
        on_event: Callable[[Event], None] = lambda event: None,
        *,
        grace: float = 15.0,
        longest_backoff: float = 30.0,
    ) -> None:
        self._home, self._logs = home, logs
        self._longest_backoff = longest_backoff
        self._on_event = on_event
        self._grace = grace
        self._token = secrets.token_hex(16)
        self._started_at = 0
        self._children = {spec.name: _Child(spec, _log_file(logs / f"{spec.name}.log")) for spec in children}
        self._own_log = _log_file(logs / "supervisor.log")
        self._selector = selectors.DefaultSelector()
        self._answers: queue.SimpleQueue[tuple[str, float]] = queue.SimpleQueue()
        #: when we were asked to end
        self._signals: list[float] = []
        self._stopping = threading.Event()
        self._wake = -1

    @property
    def state(self) -> SupervisorState:
        """What ``supervisor.json`` says."""
        return SupervisorState(
            os.getpid(),
            processes.start_ticks(os.getpid()) or 0,
            self._token,
            self._started_at,
            {
                name: ChildState(
                    pid=child.process.pid if child.process else 0,
                    started_at=int(child.started * MICROS_PER_SECOND),
                    ready=child.ready,
                    restarts=child.restarts,
                    last_exit=child.last_exit,
                )
                for name, child in self._children.items()
            },
        )

    def run(self) -> None:
        """Start everything and stay until SIGINT, SIGTERM or SIGHUP; when it returns, nothing of it runs any more."""
        lock = self._own()
        try:
            self._remove_leftovers()
            processes.adopt_orphans()
            self._started_at = int(time.time() * MICROS_PER_SECOND)
            with self._woken_by_signals():
                guard = self._start_guard()
                readiness = threading.Thread(target=self._ask_whether_ready, name="readiness", daemon=True)
                try:
                    for child in self._children.values():
                        if child.spec.after:
                            child.restart_at = time.monotonic() + child.spec.longest_hold
                        else:
                            self._start(child)
                    readiness.start()
                    while not self._interrupted():
                        self._turn(self._until_next_restart())
                finally:
                    self._stopping.set()
                    self._end()
                    self._dismiss(guard)
        finally:
            for child in self._children.values():
                child.log.close()
            (self._home / STATE_FILE).unlink(missing_ok=True)
            os.close(lock)
            self._own_log.close()

    def _own(self) -> int:
        self._home.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._home / "supervisor.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise AlreadyRunning(read_state(self._home)) from error
        return lock

    def _remove_leftovers(self) -> None:
        earlier = read_state(self._home)
        if earlier is not None and (ended := processes.end(earlier.token, self._grace)):
            self._tell("cleaned", "", f"ended {ended} processes that an earlier run had left behind")

    def _tell(self, kind: EventKind, child: str, text: str) -> None:
        line = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}"
        self._own_log.emit(logging.makeLogRecord({"msg": line}))
        try:
            self._on_event(Event(kind, child, text))
        except OSError as error:
            # The terminal has gone. What is supervised must be ended in order all the same.
            self._own_log.emit(logging.makeLogRecord({"msg": f"nobody reads any more: {error}"}))
            self._on_event = lambda event: None

    @contextmanager
    def _woken_by_signals(self) -> Iterator[None]:
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wake = read
        self._selector.register(read, selectors.EVENT_READ)
        stop = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        earlier = {number: signal.signal(number, self._note_signal) for number in (*stop, signal.SIGCHLD)}
        earlier_wakeup = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(earlier_wakeup)
            for number, handler in earlier.items():
                signal.signal(number, handler)
            self._selector.close()
            os.close(read)
            os.close(write)

    def _note_signal(self, number: int, frame: object) -> None:
        if number != signal.SIGCHLD:
            self._signals.append(time.monotonic())

    def _interrupted(self) -> bool:
        return bool(self._signals)

    def _start_guard(self) -> subprocess.Popen[bytes]:
        """A process outside the supervised set that outlives us by as long as it takes to remove what we left."""
        return subprocess.Popen(
            [sys.executable, "-I", "-S", processes.__file__, "guard", self._token, str(self._grace)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _dismiss(self, guard: subprocess.Popen[bytes]) -> None:
        if guard.stdin is not None:
            guard.stdin.close()
        try:
            guard.wait(timeout=self._grace + 5)
        except subprocess.TimeoutExpired:
            guard.kill()
            guard.wait()

    def _start(self, child: _Child) -> None:
        child.restart_at = None
        child.ready = False
        child.started, child.started_monotonic = time.time(), time.monotonic()
        wrapper = [sys.executable, "-I", "-S", processes.__file__, "exec", str(os.getpid())]
        child.process = subprocess.Popen(
            [*wrapper, *child.spec.command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=child_environment({**child.spec.environment, processes.MARK: self._token}),
            start_new_session=True,
        )
        if child.process.stdout is None:
            raise RuntimeError("a child without a pipe")
        # Descendants may keep this pipe open after the child's end, so its own descriptor outlives the Popen object.
        descriptor = os.dup(child.process.stdout.fileno())
        child.process.stdout.close()
        os.set_blocking(descriptor, False)
        self._selector.register(descriptor, selectors.EVENT_READ, child)
        self._write_state()
        self._tell("started", child.spec.name, f"{child.spec.name} started (process {child.process.pid})")

    def _turn(self, timeout: float) -> None:
        """Wait for something to happen, at most ``timeout`` seconds, and deal with it."""
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                while _read(self._wake):
                    pass
            else:
                self._take_output(key.fd, key.data)
        self._collect_ends()
        self._note_readiness()
        if not self._stopping.is_set():
            now = time.monotonic()
            for child in self._children.values():
                if child.restart_at is not None and child.restart_at <= now and not self._interrupted():
                    self._start(child)

    def _until_next_restart(self) -> float:
        due = [child.restart_at for child in self._children.values() if child.restart_at is not None]
        return max(0.0, min([1.0, *(at - time.monotonic() for at in due)]))

    def _take_output(self, descriptor: int, child: _Child) -> None:
        data = _read(descriptor)
        if data is None:
            return
        text = child.partial.pop(descriptor, b"") + data
        lines = text.split(b"\n")
        rest = lines.pop()
        if not data or len(rest) > _LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        for line in lines:
            decoded = line.decode("utf-8", "replace").rstrip("\r")
            if decoded:
                child.tail.append(decoded)
                child.log.emit(logging.makeLogRecord({"msg": decoded}))
        if not data:
            self._selector.unregister(descriptor)
            os.close(descriptor)
        elif rest:
            child.partial[descriptor] = rest

    def _collect_ends(self) -> None:
        """Collect every ended process: children, and descendants that became ours when their parent ended."""
        by_pid = {child.process.pid: child for child in self._children.values() if child.process}
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            child = by_pid.pop(ended.si_pid, None)
            if child is not None and child.process is not None:
                self._died(child, child.process.wait())
            else:
                os.waitpid(ended.si_pid, os.WNOHANG)

    def _died(self, child: _Child, code: int) -> None:
        lasted = time.monotonic() - child.started_monotonic
        child.process, child.ready = None, False
        child.last_exit = exit_reason(code)
        if self._stopping.is_set() or self._interrupted():
            self._write_state()
            return
        child.failures = 1 if lasted >= _STEADY_SECONDS else child.failures + 1
        child.restarts += 1
        delay = min(self._longest_backoff, _FIRST_BACKOFF * 2 ** (child.failures - 1))
        child.restart_at = time.monotonic() + delay
        self._write_state()
        words = child.tail[-1].strip() if code > 0 and child.tail else ""
        said = f" ({words[:160]})" if words else ""
        self._tell(
            "died",
            child.spec.name,
            f"{child.spec.name} {child.last_exit} after {lasted:.0f} s{said}; it starts again in {delay:.0f} s. "
            f"Its log: {self._logs / child.spec.name}.log",
        )

    def _ask_whether_ready(self) -> None:
        """In a thread of its own: ask each child that is not ready yet whether it is."""
        while not self._stopping.wait(_READY_POLL_SECONDS):
            for child in self._children.values():
                started = child.started
                if child.process is None or child.ready or self._stopping.is_set():
                    continue
                if self._is_ready(child.spec, started):
                    self._answers.put((child.spec.name, started))
                    os.kill(os.getpid(), signal.SIGCHLD)

    def _is_ready(self, spec: ChildSpec, started: float) -> bool:
        try:
            return spec.ready is None or spec.ready(started)
        except Exception as error:
            # A check that breaks must not end the thread that all checks share.
            log.warning("the readiness check of %s broke: %s", spec.name, error)
            return False

    def _note_readiness(self) -> None:
        while not self._answers.empty():
            name, started = self._answers.get()
            child = self._children[name]
            if child.started == started and child.process is not None and not child.ready:
                child.ready = True
                self._write_state()
                self._tell("ready", name, f"{name} ready after {time.time() - started:.1f} s")
                self._release()

    def _release(self) -> None:
        """Let children start whose predecessors are all ready."""
        ready = {name for name, child in self._children.items() if child.ready}
        for child in self._children.values():
            if not child.started and child.restart_at is not None and ready.issuperset(child.spec.after):
                child.restart_at = time.monotonic()

    def _end(self) -> None:
        self._tell("stopping", "", "stopping")

        def wait(seconds: float) -> None:
            self._turn(seconds)
            # Asked again: no more patience. Twice at once is one wish, passed on by a shell or by make.
            if self._signals and self._signals[-1] - self._signals[0] > _SECOND_WISH_SECONDS:
                for pid in processes.marked(self._token):
                    processes.send(pid, self._token, signal.SIGKILL)

        processes.end(self._token, self._grace, wait)
        self._turn(0)
        self._tell("stopped", "", "stopped; nothing is left running")

    def _write_state(self) -> None:
        temporary = self._home / f".{STATE_FILE}.{os.getpid()}"
        temporary.write_text(json.dumps(asdict(self.state), indent=1), "utf-8")
        temporary.chmod(0o600)
        temporary.replace(self._home / STATE_FILE)


def _read(descriptor: int) -> bytes | None:
    """What a non-blocking descriptor holds; ``None`` when nothing, empty at its end."""
    try:
        return os.read(descriptor, 65536)
    except BlockingIOError:
        return None


def _log_file(path: Path) -> RotatingFileHandler:
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=_LOG_BACKUPS, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler
