"""Serving a fake on loopback, a clock that a test sets, limits, and faults in the order in which they shall happen."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

#: ports that fakes may take
PORTS = range(21_900, 22_100)


class Clock:
    """Seconds since the epoch, as the test says."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass
class Fault:
    """One answer that is not the wanted one.

    ``kind``: status (with ``status``, ``headers``, ``body``), torn (the body breaks off), cut (half of the body, as if
    it were all), slow (nothing for ``seconds``).
    """

    kind: str
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"errors":["Service Unavailable"]}'
    seconds: float = 1.0


@dataclass
class Limit:
    """``most`` requests in each ``period`` seconds of the clock."""

    most: int
    period: float
    used: int = 0
    window: int = -1

    def take(self, now: float) -> tuple[bool, int, float]:
        """Whether one more is allowed, how many are left, and when the period ends (seconds since the epoch)."""
        window = int(now // self.period)
        if window != self.window:
            self.window, self.used = window, 0
        allowed = self.used < self.most
        self.used += allowed
        return allowed, self.most - self.used, (window + 1) * self.period


class Fake:
    """What all fakes have: a clock, faults, and what was asked."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.faults: list[Fault] = []
        self.limit: Limit | None = None
        self.down = False
        #: (path, query) of requests that came in, and of those that were refused for the limit
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.refused = 0
        self.url = ""

    async def guarded(self, request: Request, answer: Callable[[], Awaitable[Response]]) -> Response:
        """An answer, or the fault that is due."""
        self.asked.append((request.url.path, dict(request.query_params)))
        if self.down:
            return Response(b"<html>502 Bad Gateway</html>", 502)
        if self.faults:
            fault = self.faults.pop(0)
            if fault.kind == "status":
                return Response(fault.body, fault.status, fault.headers)
            if fault.kind == "slow":
                await asyncio.sleep(fault.seconds)
                return await answer()
            good = await answer()
            body = bytes(good.body)
            if fault.kind == "cut":
                return Response(body[: len(body) // 2], 200, media_type="application/json")
            return _torn(body)
        return await answer()

    @contextmanager
    def serving(self, certificate: Path | None = None) -> Iterator[str]:
        """Serve on loopback; gives the address. ``certificate``: a PEM file with key and certificate, for TLS."""
        with serving(self, certificate) as url:
            self.url = url
            yield url

    async def __call__(self, scope: dict, receive: object, send: object) -> None:  # type: ignore[type-arg]
        raise NotImplementedError


def _torn(body: bytes) -> Response:
    """A body of which less comes than its length says."""

    async def half() -> object:
        yield body[: len(body) // 2]
        raise ConnectionAbortedError

    return StreamingResponse(half(), headers={"content-length": str(len(body))}, media_type="application/json")  # type: ignore[arg-type]


@contextmanager
def serving(
    app: object, certificate: Path | None = None, ports: range = PORTS, http: str | type = "auto"
) -> Iterator[str]:
    """An ASGI application on a free port of loopback, in a thread; gives its address. ``http``: uvicorn's protocol."""
    listener = _listener(ports)
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_level="critical",
        lifespan="off",
        http=http,  # type: ignore[arg-type]
        timeout_graceful_shutdown=1,
        ssl_certfile=certificate,
        ssl_keyfile=str(certificate) if certificate else None,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


def _listener(ports: range = PORTS) -> socket.socket:
    for port in ports:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            listener.close()
            continue
        listener.listen(64)
        return listener
    raise OSError(f"no port of {ports} is free")
