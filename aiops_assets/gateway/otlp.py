"""OTLP over HTTP as its exporters know it: answers in the request's own encoding, partial success, status errors.

What belongs here: that protocol's answers, after the OTLP specification 1.x ("OTLP/HTTP"). What does not: the meaning
of metrics, logs and spans (``formats.otlp_*``). A request is durable before it is looked at; then it is parsed once in
a thread of its own, so that its exporter learns what was not taken. Large requests, and those of a busy hour, are
answered without that look: what cannot be read is found when it is stored, and is in quarantine.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import orjson

from aiops_assets.formats import parse
from aiops_assets.formats.batch import Parsed, Reject
from aiops_assets.formats.payload import opening
from aiops_assets.gateway.answers import Refusal, Send
from aiops_assets.gateway.dialects import Dialect, RawHeaders
from aiops_assets.gateway.keys import Principal
from aiops_assets.landing.segment import Delivery

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 20 * 1024 * 1024
#: larger requests are not looked at before they are answered, nor those that find so many waiting
MAX_LOOKED_AT_BYTES, MAX_UNPACKED_BYTES = 1024 * 1024, 4 * 1024 * 1024
MAX_WAITING = 32
#: looking may take about a quarter of the time in the long run; so many seconds of it may be overdrawn
_SHARE, _OVERDRAFT_SECONDS = 0.25, 2.0
_REJECTED = {
    "otlp_metrics": "rejectedDataPoints",
    "otlp_logs": "rejectedLogRecords",
    "otlp_traces": "rejectedSpans",
}
#: google.rpc.Code of HTTP statuses
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 405: 12, 413: 8, 415: 3, 429: 8, 503: 14}
_JOINED = re.compile(r"\((\d+) rejects joined\)$")


class Otlp(Dialect):
    """Export responses and ``google.rpc.Status`` as protobuf or JSON, whichever the request came in."""

    keeps_empty = False

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="otlp-answers")
        self._waiting = 0
        self._rested_at = 0.0

    def check(self, headers: RawHeaders, _principal: Principal, _kept: Mapping[str, str]) -> None:
        content_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if content_type.startswith(b"application/grpc"):
            raise Refusal(415, "unsupported_encoding", "OTLP over HTTP: application/x-protobuf or application/json")

    async def accepted(self, send: Send, delivery: Delivery, headers: RawHeaders) -> None:
        rejects: Sequence[Reject] = ()
        if len(delivery.body) <= MAX_LOOKED_AT_BYTES and self._has_time():
            self._waiting += 1
            try:
                loop = asyncio.get_running_loop()
                rejects, seconds = await loop.run_in_executor(self._thread, _look, delivery)
            finally:
                self._waiting -= 1
            self._rested_at = max(self._rested_at, time.monotonic()) + seconds / _SHARE
        json = _is_json(headers, delivery.body)
        if any(reject.content == delivery.body for reject in rejects):
            message = f"kept in quarantine, nothing of it could be read: {rejects[0].reason}"
            await self.refused(send, Refusal(400, "undecodable", message), headers, json)
            return
        count, message = _count(rejects), rejects[0].reason if rejects else ""
        body = _partial(_REJECTED[delivery.headers["format"]], count, message, json)
        await _answer(send, 200, body, json, ())

    async def refused(self, send: Send, refusal: Refusal, headers: RawHeaders, json: bool | None = None) -> None:
        code = _CODES.get(refusal.status, 2)
        if json if json is not None else _is_json(headers, b""):
            body = orjson.dumps({"code": code, "message": refusal.message})
            await _answer(send, refusal.status, body, True, refusal.headers)
        else:
            body = b"\x08" + _varint(code) + _text(2, refusal.message)
            await _answer(send, refusal.status, body, False, refusal.headers)

    def _has_time(self) -> bool:
        rested = self._rested_at - _OVERDRAFT_SECONDS / _SHARE <= time.monotonic()
        return rested and self._waiting < MAX_WAITING

    def close(self) -> None:
        """End the thread; what waits is not looked at any more."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _look(delivery: Delivery) -> tuple[Sequence[Reject], float]:
    """What of a delivery cannot be read, and the seconds that it took to find out."""
    started = time.perf_counter()
    rejects: Sequence[Reject] = ()
    if len(opening(delivery, MAX_UNPACKED_BYTES + 1)) <= MAX_UNPACKED_BYTES:
        try:
            parsed: Parsed = parse(delivery.headers["format"], [delivery])
            rejects = [reject for reject in parsed.rejects if reject.reason != "empty"]
        except Exception:  # the delivery is durable: whatever is wrong with a parser, its exporter must not repeat it
            log.exception("a delivery of %s could not be looked at", delivery.source)
    return rejects, time.perf_counter() - started


def _count(rejects: Sequence[Reject]) -> int:
    joined = [_JOINED.search(reject.reason) for reject in rejects]
    return sum(int(match[1]) if match else 1 for match in joined)


def _is_json(headers: RawHeaders, body: bytes) -> bool:
    content_type = headers.get(b"content-type")
    return b"json" in content_type.lower() if content_type else body[:1] == b"{"


def _partial(field: str, count: int, message: str, json: bool) -> bytes:
    """An Export*ServiceResponse; empty when nothing was rejected, as the specification asks."""
    if json:
        if not count:
            return b"{}"
        return orjson.dumps({"partialSuccess": {field: str(count), "errorMessage": message}})
    if not count:
        return b""
    inner = b"\x08" + _varint(count) + _text(2, message)
    return b"\x0a" + _varint(len(inner)) + inner


def _varint(number: int) -> bytes:
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    data.append(number)
    return bytes(data)


def _text(field: int, text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    return bytes([field << 3 | 2]) + _varint(len(data)) + data


async def _answer(send: Send, status: int, body: bytes, json: bool, headers: tuple[tuple[bytes, bytes], ...]) -> None:
    kind = b"application/json" if json else b"application/x-protobuf"
    length = (b"content-length", str(len(body)).encode())
    start = [(b"content-type", kind), length, *headers]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})
