"""Where a storm goes: to the gateway as its senders would post it, or into the landing zone; at any speed.

What belongs here: requests by format, retries, pacing, and what was delivered. What does not: what is sent (``engine``)
and progress bars (``cli``).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, Self

from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.landing.segment import Delivery
from aiops_assets.synthetic.storms.engine import Emission

if TYPE_CHECKING:
    import httpx

    from aiops_assets.landing.writer import SegmentWriter

_APPEND_BYTES = 8 * 1024 * 1024
_TIMEOUT_SECONDS = 30.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
#: content types by format; everything else is JSON
_TEXT = {"telegraf": "text/plain; charset=utf-8", "syslog": "text/plain; charset=utf-8"}
#: which deliveries are marked as history: those before the start, all, or none
Marked = Literal["past", "all", "none"]


class NotDelivered(Exception):
    """The other side refuses, or cannot be reached for too long; the text says which delivery and why."""


@dataclass(slots=True)
class Delivered:
    """What has gone out. ``at`` is the virtual time reached (microseconds, UTC), ``repeated`` requests made again."""

    deliveries: int = 0
    points: int = 0
    bytes: int = 0
    repeated: int = 0
    at: int = 0
    formats: dict[str, int] = field(default_factory=dict)

    def add(self, emission: Emission) -> None:
        """Count one."""
        self.deliveries += 1
        self.points += emission.points
        self.bytes += len(emission.body)
        self.at = max(self.at, emission.at)
        self.formats[emission.format] = self.formats.get(emission.format, 0) + emission.points


class Target(Protocol):
    """Takes deliveries in order; what ``send`` was given is safe when ``flush`` has come back."""

    delivered: Delivered

    def send(self, emission: Emission) -> None:
        """Take one; may come back before it is safe."""

    def flush(self) -> None:
        """Come back when everything is safe."""


class Landing:
    """The landing zone, through a writer of its own. With ``received`` sent a delivery counts as accepted when its
    sender sent it, which is how an evaluation sees a storm as live; otherwise now."""

    def __init__(
        self, writer: SegmentWriter, *, marked: Marked = "past", received: Literal["now", "sent"] = "now"
    ) -> None:
        self.delivered = Delivered()
        self._writer, self._marked, self._received = writer, marked, received
        self._held: list[Delivery] = []
        self._bytes = 0

    def send(self, emission: Emission) -> None:
        at = emission.at if self._received == "sent" else time.time_ns() // 1000
        self._held.append(delivery_of(emission, at, history=is_history(emission, self._marked)))
        self._bytes += len(emission.body)
        self.delivered.add(emission)
        if self._bytes >= _APPEND_BYTES:
            self._append()

    def flush(self) -> None:
        self._append()
        self._writer.seal()

    def _append(self) -> None:
        if self._held:
            self._writer.append_deliveries(self._held)
            self._held, self._bytes = [], 0


class Gateway:
    """The gateway, as the senders of each format post to it. Use it as a context.

    Requests that are answered with 429 or 5xx, or not at all, are repeated with the same idempotency key: after
    ``Retry-After`` where it is told, else after ever longer pauses with jitter (Exponential Backoff And Jitter, AWS
    Architecture Blog 2015), for at most ``patience`` seconds. ``connections`` requests are under way at once; with one
    the order of deliveries is kept.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        marked: Marked = "past",
        connections: int = 1,
        patience: float = 300.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        import httpx

        self.delivered = Delivered()
        self._key, self._marked, self._patience = key, marked, patience
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._client = httpx.Client(
            base_url=url.rstrip("/"), timeout=_TIMEOUT_SECONDS, trust_env=False, limits=limits, transport=transport
        )
        self._connections = max(1, connections)
        self._pool = ThreadPoolExecutor(self._connections, "storm") if connections > 1 else None
        self._waiting: set[Future[None]] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._client.close()

    def send(self, emission: Emission) -> None:
        if self._pool is None:
            self._post(emission)
            return
        while len(self._waiting) >= 2 * self._connections:
            self._collect(FIRST_COMPLETED)
        self._waiting.add(self._pool.submit(self._post, emission))

    def flush(self) -> None:
        while self._waiting:
            self._collect("ALL_COMPLETED")

    def _collect(self, until: str) -> None:
        done, self._waiting = wait(self._waiting, return_when=until)
        for one in done:
            one.result()

    def _post(self, emission: Emission) -> None:
        import httpx

        path, params, headers = request_of(emission, self._key, history=is_history(emission, self._marked))
        begun, attempt = time.monotonic(), 0
        while True:
            try:
                answer = self._client.post(path, params=params, headers=headers, content=emission.body)
                trouble, told = f"{answer.status_code}: {answer.text[:200]}", answer.headers.get("retry-after")
                if answer.is_success:
                    with self._lock:
                        self.delivered.add(emission)
                    return
                if answer.status_code not in _RETRIED:
                    raise NotDelivered(f"the gateway refuses {emission.format} at {path} with {trouble}")
            except httpx.TransportError as error:
                trouble, told = f"{type(error).__name__}: {error}", None
            pause = pause_of(attempt, told)
            attempt += 1
            if time.monotonic() - begun + pause > self._patience:
                waited = time.monotonic() - begun
                raise NotDelivered(f"{emission.format} at {path} cannot be delivered for {waited:.0f} s: {trouble}")
            with self._lock:
                self.delivered.repeated += 1
            if self._closing.wait(pause):
                raise NotDelivered(f"{emission.format} at {path} was given up: {trouble}")


def pause_of(attempt: int, told: str | None) -> float:
    """Seconds before the next attempt: what ``Retry-After`` says in seconds, else a random part of what doubles."""
    if told is not None and told.strip().isdigit():
        return min(float(told), _LONGEST_PAUSE)
    return random.uniform(0.5, 1.0) * min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0**attempt)  # noqa: S311


def is_history(emission: Emission, marked: Marked) -> bool:
    """Whether a delivery is marked as history, which fills tables and baselines and pages nobody."""
    return marked == "all" or (marked == "past" and emission.history)


def request_of(emission: Emission, key: str, *, history: bool) -> tuple[str, dict[str, str], dict[str, str]]:
    """(path, query, headers) under which a sender of this format posts to the gateway."""
    headers = {
        "Content-Type": _TEXT.get(emission.format, "application/json"),
        "Idempotency-Key": emission.key,
        "User-Agent": "aiops-storm",
        **({"X-Aiops-History": "1"} if history else {}),
    }
    params = {"source": emission.source}
    if emission.format == "sentry_envelope":
        headers["Content-Type"] = "application/x-sentry-envelope"
        headers["X-Sentry-Auth"] = f"Sentry sentry_version=7, sentry_client=aiops-storm/1, sentry_key={key}"
        return f"/api/{emission.headers['project']}/envelope/", params, headers
    headers["Authorization"] = f"Bearer {key}"
    if emission.format == "redfish_event":
        params["host"] = emission.headers["query"].partition("=")[2]
    return f"/webhooks/{emission.format}", params, headers


def delivery_of(emission: Emission, received_at: int, *, history: bool) -> Delivery:
    """The delivery that lies in the landing zone when the gateway has taken this."""
    headers: Mapping[str, str] = {
        "format": emission.format,
        **emission.headers,
        **({"history": "1"} if history else {}),
    }
    content_type = _TEXT.get(emission.format, "application/json").partition(";")[0]
    return Delivery(emission.key, received_at, emission.source, content_type, emission.body, headers)


def play(
    emissions: Iterable[Emission],
    target: Target,
    *,
    start_at: int,
    speed: float | None = None,
    advance: Callable[[Delivered], None] = lambda delivered: None,
    stop: threading.Event | None = None,
) -> Delivered:
    """Send deliveries when their time has come.

    Args:
        start_at: the virtual time (microseconds, UTC) that is now; what lies before goes out at once.
        speed: virtual seconds a second; ``None`` for as fast as it goes.
        advance: told of the progress after every delivery.
        stop: ends it before the next delivery.

    Raises:
        NotDelivered, LandingFull: as the target raises them.
    """
    begun = time.monotonic()
    ended = stop or threading.Event()
    for emission in emissions:
        if speed is not None:
            due = begun + (emission.at - start_at) / MICROS_PER_SECOND / speed
            if (pause := due - time.monotonic()) > 0:
                # Whoever waits for the rest shall not wait for what is due already.
                target.flush()
                ended.wait(pause)
        if ended.is_set():
            break
        target.send(emission)
        advance(target.delivered)
    target.flush()
    advance(target.delivered)
    return target.delivered
