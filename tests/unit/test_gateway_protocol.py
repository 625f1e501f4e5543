"""What a connection may cost: bounded headers, and no waiting for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from aiops_assets.gateway.protocol import (
    HEAD_SECONDS,
    IDLE_SECONDS,
    MAX_OVERHEAD_BYTES,
    REQUEST_SECONDS,
    STALL_SECONDS,
    BoundedProtocol,
)


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def patient_app(_scope: Any, receive: Any, send: Any) -> None:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def with_connection(test: Callable[[BoundedProtocol, Transport, Callable[[], float]], Any]) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        config = Config(patient_app, log_config=None)
        config.load()
        protocol = BoundedProtocol(config, ServerState(), {}, loop)
        transport = Transport()
        protocol.connection_made(transport)
        result = test(protocol, transport, loop.time)
        if asyncio.iscoroutine(result):
            await result
        protocol.connection_lost(None)
        await asyncio.gather(*protocol.tasks)

    asyncio.run(run())


HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize("piece", [b"a: b\r\n", b"x"], ids=["many headers", "one endless header"])
def test_headers_are_bounded(piece: bytes) -> None:
    def test(protocol: BoundedProtocol, transport: Transport, _now: Any) -> None:
        protocol.data_received(HEAD + (b"" if piece.endswith(b"\n") else b"x: "))
        for _ in range(40):
            if not transport.closed:
                protocol.data_received(piece * (8192 // len(piece)))
        assert transport.closed
        assert b" 431 " in transport.sent

    with_connection(test)


def test_trailers_are_bounded_too() -> None:
    def test(protocol: BoundedProtocol, transport: Transport, _now: Any) -> None:
        protocol.data_received(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
        headers = len(protocol.headers)
        for _ in range(40):
            if not transport.closed:
                protocol.data_received(b"a: b\r\n" * 2000)
        assert transport.closed
        assert len(protocol.headers) == headers

    with_connection(test)


@pytest.mark.parametrize("size", [1, 100, 8192])
def test_long_bodies_in_chunks_of_any_size_are_no_overhead(size: int) -> None:
    async def test(protocol: BoundedProtocol, transport: Transport, _now: Any) -> None:
        protocol.data_received(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = f"{size:x}\r\n".encode() + b"x" * size + b"\r\n"
        for _ in range(3 * MAX_OVERHEAD_BYTES // len(chunk) // 50 + 1):
            protocol.data_received(chunk * 50)
            await asyncio.sleep(0)
        assert not transport.closed
        protocol.data_received(b"0\r\n\r\n")

    with_connection(test)


def test_many_requests_on_one_connection_do_not_add_up() -> None:
    async def test(protocol: BoundedProtocol, transport: Transport, _now: Any) -> None:
        request = HEAD + b"a: " + b"b" * 8000 + b"\r\nContent-Length: 2\r\n\r\nok"
        for _ in range(3 * MAX_OVERHEAD_BYTES // len(request)):
            protocol.data_received(request)
            while not protocol.cycle.response_complete:  # noqa: ASYNC110 - the cycle announces nothing
                await asyncio.sleep(0)
        assert not transport.closed
        protocol._unset_keepalive_if_required()

    with_connection(test)


@pytest.mark.parametrize(
    ("received", "allowed"),
    [
        (b"", IDLE_SECONDS),
        (b"POST /", HEAD_SECONDS),
        (HEAD, HEAD_SECONDS),
        (HEAD + b"Content-Length: 5\r\n\r\nab", STALL_SECONDS),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", STALL_SECONDS),
    ],
)
def test_a_silent_peer_is_dropped_when_its_time_is_up(received: bytes, allowed: float) -> None:
    def test(protocol: BoundedProtocol, transport: Transport, now: Callable[[], float]) -> None:
        start = now()
        if received:
            protocol.data_received(received)
        assert not protocol.drop_if_stalled(start + allowed - 1)
        assert not transport.closed
        assert protocol.drop_if_stalled(now() + allowed + 1)
        assert transport.closed

    with_connection(test)


def test_a_peer_that_drips_is_dropped_in_the_end() -> None:
    def test(protocol: BoundedProtocol, transport: Transport, now: Callable[[], float]) -> None:
        protocol.data_received(HEAD + b"Content-Length: 5\r\n\r\nab")
        protocol._heard_at = now() + REQUEST_SECONDS
        assert not protocol.drop_if_stalled(now() + REQUEST_SECONDS - 1)
        assert protocol.drop_if_stalled(now() + REQUEST_SECONDS + 1)
        assert transport.closed

    with_connection(test)


def test_nobody_is_dropped_while_we_are_the_slow_ones() -> None:
    def test(protocol: BoundedProtocol, _transport: Transport, now: Callable[[], float]) -> None:
        protocol.data_received(HEAD + b"Content-Length: 500000\r\n\r\n" + b"x" * 100_000)
        assert cast(Any, protocol.flow).read_paused
        assert not protocol.drop_if_stalled(now() + STALL_SECONDS + 1)

    with_connection(test)


def test_a_header_line_may_end_with_a_line_feed_alone() -> None:
    async def test(protocol: BoundedProtocol, transport: Transport, _now: Any) -> None:
        protocol.data_received(HEAD + b"Authorization: Basic YTpi\nContent-Length: 2\r\n\r\nab")
        async with asyncio.timeout(5):
            while not transport.sent:  # noqa: ASYNC110 - a transport announces nothing
                await asyncio.sleep(0)
        assert transport.sent.startswith(b"HTTP/1.1 204")

    with_connection(test)
