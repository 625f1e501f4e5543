"""The whole platform as a test sees it: started as a user starts it, killed as the world kills it.

What belongs here: running `aiops up` on a home of its own, finding and killing its processes, and a sender that keeps a
ledger of what was acknowledged.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import polars as pl
import psutil

from aiops_assets.cli.supervisor import read_state
from aiops_assets.lake.tables import Lake
from aiops_assets.live.lease import live_lease

BATCH_POINTS = 50


def free_port() -> int:
    """A TCP port on loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for a condition, polling; fail with its name when it does not come true."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds:.0f} s")


@dataclass
class Stack:
    """`aiops up` on one home folder. Extra ``environment`` holds settings."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.gateway_port, self.dagster_port = free_port(), free_port()

    @property
    def variables(self) -> dict[str, str]:
        return {
            **os.environ,
            "AIOPS_HOME": str(self.home),
            "AIOPS_GATEWAY_PORT": str(self.gateway_port),
            "AIOPS_DAGSTER_PORT": str(self.dagster_port),
            **self.environment,
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def key(self) -> str:
        return (self.home / "keys" / "admin.key").read_text().strip()

    def start(self, *, wait_for_session: bool = True) -> None:
        """Start the stack; returns when the gateway answers and (unless told otherwise) a session holds the lease."""
        log = (self.home.parent / "up.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "aiops_assets.cli", "up"],
            env=self.variables,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        wait_until(self.answers, 60, "the gateway answers /health")
        if wait_for_session:
            wait_until(lambda: live_lease(self.home / "live").holder(), 120, "a live session holds the lease")

    def answers(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/health", timeout=2).status_code == 200
        return False

    def stop(self) -> None:
        """Stop as Ctrl-C does."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)
        self.process = None

    def kill_all(self) -> None:
        """Everything dies at once with -9: supervisor, servers, code servers, run workers."""
        assert self.process is not None
        tree = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        for member in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(tree, 30)
        self.process.wait(30)
        self.process = None

    def pid_of(self, part: str) -> int | None:
        """The process of a part: gateway, collector, code_server or run_worker; ``None`` while it is down."""
        if part == "run_worker":
            holder = live_lease(self.home / "live").holder()
            return holder.pid if holder is not None and holder.pid else None
        part = {"code_server": "code-live"}.get(part, part)
        state = read_state(self.home)
        return (state.children[part].pid or None) if state is not None and part in state.children else None

    def kill(self, part: str) -> bool:
        """Kill one part with -9; whether it was there to be killed."""
        pid = self.pid_of(part)
        if pid is None:
            return False
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True


class Sender:
    """Posts batches of distinct points in a thread, repeats each until it is acknowledged, keeps the ledger."""

    def __init__(self, stack: Stack, name: str, pause: float = 0.02) -> None:
        self._stack, self._name, self._pause = stack, name, pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.acknowledged = 0
        self.attempts = 0
        self._random = random.Random(name)

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        start = time.time_ns() // 1_000_000_000 - 60
        batch = 0
        with httpx.Client(timeout=5) as client:
            while not self._stop.is_set():
                at = (start * 1000 + batch * 20) * 1_000_000
                body = "\n".join(f"{self._name},host=h{n} value={batch}.{n:02d} {at}" for n in range(BATCH_POINTS))
                while not self._post(client, body):
                    if self._stop.wait(0.05):
                        return
                self.acknowledged += BATCH_POINTS
                if self._random.random() < 0.05:
                    self._post(client, body)
                batch += 1
                self._stop.wait(self._pause)

    def _post(self, client: httpx.Client, body: str) -> bool:
        self.attempts += 1
        try:
            answer = client.post(
                f"{self._stack.url}/webhooks/telegraf",
                content=body,
                headers={"Authorization": f"Token {self._stack.key}"},
            )
        except (httpx.HTTPError, FileNotFoundError):
            return False
        assert answer.status_code < 500 or answer.status_code == 503, answer.text
        return answer.status_code < 300

    def stored(self, lake: Lake) -> pl.DataFrame:
        """What the table has of this sender's points: series_id, ts, value."""
        return (
            lake.scan("metric_points", columns=["series_id", "ts", "value", "metric"])
            .filter(pl.col("metric") == f"{self._name}.value")
            .collect()
        )

    def assert_exactly_once(self, lake: Lake, seconds: float) -> None:
        """Every acknowledged point is in the table once, and nothing else but perhaps one unanswered batch."""
        wait_until(lambda: self.stored(lake).height >= self.acknowledged, seconds, f"{self.acknowledged} points stored")
        rows = self.stored(lake)
        assert rows.select("series_id", "ts").is_unique().all()
        batches = rows["value"].floor().n_unique()
        assert rows.height == batches * BATCH_POINTS
        assert 0 <= rows.height - self.acknowledged <= BATCH_POINTS


@contextlib.contextmanager
def running(home: Path, *, wait_for_session: bool = True, **environment: str) -> Iterator[Stack]:
    """A running stack that is gone afterwards, whatever happens."""
    stack = Stack(home, environment)
    try:
        stack.start(wait_for_session=wait_for_session)
        yield stack
    finally:
        if stack.process is not None and stack.process.poll() is None:
            try:
                stack.stop()
            except subprocess.TimeoutExpired:
                stack.kill_all()
