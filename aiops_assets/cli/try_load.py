"""What ``aiops try`` sends: each delivery repeated until the gateway has acknowledged it, and a ledger of both.

What belongs here: sending under failure, killing processes of the platform on purpose, counting what came through.
The story is in ``try_story``, what people read in ``try_out``.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx
import orjson
from ulid import ULID

from aiops_assets.cli import processes
from aiops_assets.cli.supervisor import running
from aiops_assets.cli.try_story import points_in
from aiops_assets.live.lease import live_lease
from aiops_assets.settings import Settings

if TYPE_CHECKING:
    from aiops_assets.synthetic.storms.engine import Emission

SOURCE = "try"
#: of the steady load that is counted
_LEDGER_HOST, _MARK = "try-web-2", {"synthetic": "true"}
LEDGER_METRIC = "aiops.try.ledger"
_TIMEOUT_SECONDS = 5.0
_RETRY_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A delivery to be made: format, body and the points in it; with ``emission`` as its own sender would post it."""

    format_name: str
    body: bytes
    points: int
    key: str = field(default_factory=lambda: str(ULID()))
    emission: Emission | None = None

    @classmethod
    def of(cls, emission: Emission) -> Outgoing:
        """A delivery of a story."""
        return cls(emission.format, emission.body, points_in(emission), emission.key, emission)

    def request(self, key: str) -> tuple[str, Mapping[str, str], Mapping[str, str]]:
        """(path, query, headers) with which it is posted."""
        if self.emission is not None:
            from aiops_assets.synthetic.storms.delivery import request_of

            return request_of(self.emission, key, history=False)
        headers = {
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "Idempotency-Key": self.key,
        }
        return f"/webhooks/{self.format_name}", {"source": SOURCE}, headers


class Sender:
    """Posts deliveries in order, in a thread of its own; a delivery is repeated until it was acknowledged."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._key = url, key
        self._queue: queue.SimpleQueue[Outgoing | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self._given_up = threading.Event()
        #: points acknowledged, requests made, requests that had to be repeated
        self.acknowledged = self.requests = self.repeated = 0
        #: the answer that will not become better by asking again, if there was one
        self.refusal: str | None = None

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def send(self, outgoing: Outgoing) -> None:
        """Add a delivery to what waits."""
        self._queue.put(outgoing)

    def finish(self, seconds: float) -> bool:
        """Send what waits and end; whether it all went out in time."""
        self._queue.put(None)
        self._thread.join(seconds)
        finished = not self._thread.is_alive()
        self._given_up.set()
        return finished and self.refusal is None

    def _run(self) -> None:
        with httpx.Client(timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
            while (outgoing := self._queue.get()) is not None and self.refusal is None:
                attempt = 0
                while not self._given_up.is_set() and not self._post(client, outgoing):
                    if self.refusal is not None:
                        return
                    attempt += 1
                    self.repeated += 1
                    self._given_up.wait(min(1.0, _RETRY_SECONDS * attempt))

    def _post(self, client: httpx.Client, outgoing: Outgoing) -> bool:
        self.requests += 1
        try:
            path, params, headers = outgoing.request(self._key)
            answer = client.post(f"{self._url}{path}", params=params, content=outgoing.body, headers=headers)
        except httpx.HTTPError:
            return False
        if answer.is_success:
            self.acknowledged += outgoing.points
            return True
        if 400 <= answer.status_code < 500 and answer.status_code != 429:
            self.refusal = f"the gateway refuses the delivery with {answer.status_code}: {answer.text[:200]}"
        return False


class Ledger:
    """A steady load of points that can be counted: ``series`` points at ever new instants, many times a second."""

    def __init__(self, sender: Sender, *, series: int = 50, pause: float = 0.05) -> None:
        self._sender, self._series, self._pause = sender, series, pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self.points = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; what was handed to the sender stays with it."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            now = time.time_ns() // 1000
            points = [
                {"metric": LEDGER_METRIC, "value": 1.0, "kind": "gauge", "labels": {"n": f"{n:02d}", **_MARK}}
                for n in range(self._series)
            ]
            body = orjson.dumps({"host": _LEDGER_HOST, "ts": now, "points": points})
            self._sender.send(Outgoing("collected", body, len(points)))
            self.points += len(points)


class Killer:
    """Kills one process of the platform after the other with SIGKILL: gateway, run worker, collector, in turn."""

    def __init__(self, settings: Settings, *, pause: float = 5.0) -> None:
        self._settings, self._pause = settings, pause
        self._due = time.monotonic() + pause
        self._turns = self._cycle()
        self.kills: dict[str, int] = {}

    def kill_when_due(self) -> str | None:
        """Kill the next one when its time has come and it is there; what was killed, for people."""
        if time.monotonic() < self._due:
            return None
        self._due = time.monotonic() + self._pause
        name, pid = next(self._turns)
        state = running(self._settings.paths.root)
        if not pid or state is None or not processes.send(pid, state.token, signal.SIGKILL):
            return None
        self.kills[name] = self.kills.get(name, 0) + 1
        return f"{name} (process {pid})"

    def _cycle(self) -> Iterator[tuple[str, int]]:
        home = self._settings.paths
        while True:
            for name in ("gateway", "run worker", "collector", "run worker"):
                if name == "run worker":
                    holder = live_lease(home.live).holder()
                    yield name, holder.pid if holder else 0
                else:
                    state = running(home.root)
                    yield name, state.children[name].pid if state and name in state.children else 0


def count_stored(settings: Settings, began: int, ended: int) -> tuple[int, int]:
    """(rows, rows with distinct keys) of source ``try`` whose instants lie in [began, ended], from the Delta table."""
    import polars as pl

    from aiops_assets.hours import MICROS_PER_HOUR, hour_key, instant
    from aiops_assets.lake.tables import Lake

    hours = [hour_key(at) for at in range(began - began % MICROS_PER_HOUR, ended + 1, MICROS_PER_HOUR)]
    stored = (
        Lake(settings.paths.lake)
        .scan("metric_points", hours, ["series_id", "ts", "source"])
        .filter(pl.col("source") == SOURCE, pl.col("ts").is_between(instant(began), instant(ended)))
        .select(pl.len().alias("rows"), pl.struct("series_id", "ts").n_unique().alias("keys"))
        .collect()
    )
    return int(stored["rows"][0]), int(stored["keys"][0])
