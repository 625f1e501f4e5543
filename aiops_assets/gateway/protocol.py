"""Bounds on what a connection may cost before a request reaches the app: header bytes and waiting times.

What belongs here: limits that uvicorn's HTTP protocol lacks. What does not: limits on bodies (``intake``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

#: request line, headers, trailers and chunk framing of one request may have this many bytes
MAX_OVERHEAD_BYTES = 128 * 1024
HEAD_SECONDS = 15.0
STALL_SECONDS = 30.0
REQUEST_SECONDS = 600.0
IDLE_SECONDS = 75
#: extension of the request's scope: ends the connection without an answer
HANG_UP = "aiops.hang_up"
#: bytes of framing granted with every piece of a body
_FRAMING = 16


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's httptools protocol with bounded headers and with times at which it was last heard from."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        # netdata ends one of its header lines with a bare LF, which RFC 9112 (2.2) lets a server recognise.
        self.parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True)
        self._overhead = 0
        self._head_open = self._message_open = False
        self._heard_at = self._begun_at = self.loop.time()
        self._extensions: dict[str, dict[object, object]] = {HANG_UP: {"close": self._hang_up}}

    def data_received(self, data: bytes) -> None:
        self._heard_at = self.loop.time()
        self._overhead += len(data)
        super().data_received(data)
        if self._overhead > MAX_OVERHEAD_BYTES and not self.transport.is_closing():
            self._answer(b"431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        self._head_open = self._message_open = True
        self._begun_at = self._heard_at
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_open:  # trailers say nothing we would act on
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_open = False
        super().on_headers_complete()
        self.scope["extensions"] = self._extensions

    def on_body(self, body: bytes) -> None:
        self._overhead -= len(body) + _FRAMING
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._overhead = 0
        self._message_open = False
        super().on_message_complete()

    def drop_if_stalled(self, now: float) -> bool:
        """Close the connection when its peer keeps us waiting; ``now`` is the event loop's time."""
        if self.transport.is_closing() or self.flow.read_paused:
            return False
        quiet, lasting = now - self._heard_at, now - self._begun_at
        if self._message_open:
            late = quiet > STALL_SECONDS or lasting > (HEAD_SECONDS if self._head_open else REQUEST_SECONDS)
            if late:
                self._answer(b"408 Request Timeout")
            return late
        if self.cycle is None and quiet > IDLE_SECONDS:
            self.transport.close()
            return True
        return False

    def _hang_up(self) -> None:
        self.transport.close()

    def _answer(self, status: bytes) -> None:
        if self.cycle is None or self.cycle.response_complete or self._head_open:
            self.transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        self.transport.close()


async def drop_stalled(connections: Iterable[object], interval: float = 5.0) -> None:
    """Look through the open connections every few seconds, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(interval)
        now = loop.time()
        for connection in tuple(connections):
            if isinstance(connection, BoundedProtocol):
                connection.drop_if_stalled(now)
