"""``POST /webhooks/<format>``: authenticate, bound, make durable, acknowledge; nothing is parsed.

What belongs here: the hot path in raw ASGI. What does not: pages (``pages``) and the meaning of bodies (``formats``):
content that turns out to be poison is accepted and quarantined later, because senders repeat what they are refused.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from random import getrandbits
from urllib.parse import parse_qs

from aiops_assets.gateway.answers import Receive, Refusal, Scope, Send, refuse, unauthorized, unavailable
from aiops_assets.gateway.counters import Counters
from aiops_assets.gateway.credentials import key_of
from aiops_assets.gateway.keys import KeyStore
from aiops_assets.landing.segment import Delivery, is_name
from aiops_assets.landing.writer import GroupCommit, LandingFull

log = logging.getLogger(__name__)

PREFIX = "/webhooks/"
#: bodies received and not yet durable may hold this much memory, or four of the largest if that is more
MAX_IN_FLIGHT_BYTES = 256 * 1024 * 1024
MAX_IDEMPOTENCY_KEY = 200
MAX_CONTENT_TYPE = 200
RETRY_SOON, RETRY_LATER = 1, 15
_ROUTES = 4096
_VISIBLE = re.compile(rb"[\x21-\x7e]+")
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _CROCKFORD for low in _CROCKFORD]
_Route = tuple[str, str | None] | Refusal


def new_delivery_id() -> str:
    """A ULID: 48 bits of milliseconds, 80 random bits, in Crockford's base 32."""
    value = time.time_ns() // 1_000_000 << 80 | getrandbits(80)
    return "".join([_PAIRS[value >> shift & 1023] for shift in range(120, -1, -10)])


class Intake:
    """Accepts deliveries. ``closed`` holds the reason while the landing zone must not grow (set by ``watch``)."""

    def __init__(self, formats: frozenset[str], keys: KeyStore, counters: Counters, *, max_body_bytes: int) -> None:
        self.closed: Refusal | None = None
        self.commit: GroupCommit | None = None
        self._formats, self._keys, self._counters = formats, keys, counters
        self._max_body = max_body_bytes
        self._max_in_flight = max(MAX_IN_FLIGHT_BYTES, 4 * max_body_bytes)
        self._routes: dict[tuple[str, bytes], _Route] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        held = 0
        try:
            key = key_of(headers)
            principal = self._keys.verify(key) if key is not None else None
            if principal is None:
                raise unauthorized()
            route = self._routes.get((scope["path"], scope["query_string"])) or self._route(scope)
            if isinstance(route, Refusal):
                raise route
            format_name, named = route
            source = named or principal.only_source or format_name
            if not principal.may_send(source):
                raise Refusal(403, "forbidden", f"this key may not send to the source {source!r}")
            if scope["method"] != "POST":
                raise Refusal(405, "method_not_allowed", "deliver with POST", ((b"allow", b"POST"),))
            delivery_id, kept = self._read_headers(headers, format_name)
            if self.closed is not None:
                raise self.closed
            commit = self.commit
            if commit is None:
                raise unavailable("starting", "the landing zone is not open", RETRY_SOON)

            message = await receive()
            body: bytes = message.get("body", b"")
            if message.get("more_body") or message["type"] == "http.disconnect":
                parts = [body]
                self._counters.in_flight_bytes += len(body)
                held = len(body)
                while message["type"] == "http.request" and message.get("more_body"):
                    message = await receive()
                    part: bytes = message.get("body", b"")
                    held += len(part)
                    self._counters.in_flight_bytes += len(part)
                    self._check_size(held)
                    parts.append(part)
                if message["type"] != "http.request":
                    self._counters.refused["disconnected"] += 1
                    return
                body = b"".join(parts)
            else:
                held = len(body)
                self._counters.in_flight_bytes += held
                self._check_size(held)

            started = time.perf_counter()
            content_type = headers.get(b"content-type", b"")[:MAX_CONTENT_TYPE].decode("latin-1")
            delivery = Delivery(delivery_id, time.time_ns() // 1000, source, content_type, body, kept)
            try:
                await commit.submit(delivery)
            except LandingFull as error:
                raise unavailable("disk_full", "the disk is full; deliver again later", RETRY_LATER) from error
            except (OSError, RuntimeError) as error:
                log.error("a delivery could not be made durable: %s", error)
                raise unavailable("not_durable", "the delivery could not be made durable", RETRY_SOON) from error
            self._counters.accepted(source, format_name, len(body), time.perf_counter() - started)
        except Refusal as refusal:
            self._counters.refused[refusal.code] += 1
            await refuse(send, refusal)
            return
        finally:
            self._counters.in_flight_bytes -= held
        # No body: the server would send it in a second system call and wake the sender twice.
        headers_back = [(b"x-delivery-id", delivery_id.encode())]
        await send({"type": "http.response.start", "status": 204, "headers": headers_back})
        await send({"type": "http.response.body", "body": b""})

    def _check_size(self, size: int) -> None:
        if size > self._max_body:
            raise self._too_large()
        if self._counters.in_flight_bytes > self._max_in_flight:
            raise unavailable("overload", "too many deliveries at once", RETRY_SOON)

    def _too_large(self) -> Refusal:
        return Refusal(413, "too_large", f"a body may have at most {self._max_body} bytes")

    def _read_headers(self, headers: Mapping[bytes, bytes], format_name: str) -> tuple[str, dict[str, str]]:
        """(delivery id, headers to keep); refuses what can be refused before the body is read."""
        kept = {"format": format_name}
        length = headers.get(b"content-length")
        if length is not None and length.isdigit() and int(length[:20]) > self._max_body:
            raise self._too_large()
        encoding = headers.get(b"content-encoding")
        if encoding is not None:
            encoding = encoding.strip().lower()
            if encoding in {b"gzip", b"x-gzip"}:
                kept["content-encoding"] = "gzip"
            elif encoding not in {b"", b"identity"}:
                accepted = ((b"accept-encoding", b"gzip, identity"),)
                raise Refusal(415, "unsupported_encoding", "Content-Encoding may be gzip or identity", accepted)
        if headers.get(b"x-aiops-history") == b"1":
            kept["history"] = "1"
        own = headers.get(b"idempotency-key")
        if own is None:
            return new_delivery_id(), kept
        if len(own) > MAX_IDEMPOTENCY_KEY or not _VISIBLE.fullmatch(own):
            raise Refusal(
                400,
                "bad_idempotency_key",
                f"Idempotency-Key: 1 to {MAX_IDEMPOTENCY_KEY} visible ASCII characters without spaces",
            )
        kept["idempotency-key"] = own.decode()
        return own.decode(), kept

    def _route(self, scope: Scope) -> _Route:
        route = self._resolve(scope["path"], scope["query_string"])
        if len(self._routes) >= _ROUTES:
            self._routes.clear()
        self._routes[scope["path"], scope["query_string"]] = route
        return route

    def _resolve(self, path: str, query: bytes) -> _Route:
        format_name = path.removeprefix(PREFIX).rstrip("/")
        if format_name not in self._formats:
            known = ", ".join(f"{PREFIX}{name}" for name in sorted(self._formats))
            return Refusal(404, "not_found", f"there are {known}")
        try:
            named = parse_qs(query.decode("ascii"), keep_blank_values=True, max_num_fields=16).get("source", [])
        except ValueError:
            return Refusal(400, "bad_query", "the query string cannot be read")
        if not named:
            return format_name, None
        if len(named) != 1 or not is_name(named[0]):
            return Refusal(
                400, "bad_source", "source: lower-case letters, digits, '_', '.' and '-', at most 63, given once"
            )
        return format_name, named[0]
