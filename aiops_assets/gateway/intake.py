"""The way of a delivery: authenticate, bound, make durable, acknowledge; nothing is parsed before that.

What belongs here: the hot path in raw ASGI. What does not: which paths there are (``endpoints``), what each protocol
says (``dialects``), pages (``pages``) and the meaning of bodies (``formats``): content that turns out to be poison is
accepted and quarantined later, because senders repeat what they are refused.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Mapping
from random import getrandbits

from aiops_assets.config import ConfigFile
from aiops_assets.gateway.answers import Receive, Refusal, Scope, Send, unavailable
from aiops_assets.gateway.counters import Counters
from aiops_assets.gateway.elastic import answer_handshake
from aiops_assets.gateway.endpoints import PLAIN, Endpoint, Endpoints, Route, route
from aiops_assets.gateway.hec import answer_acks, answer_health
from aiops_assets.gateway.journal import PIECE_BYTES, whole_entries
from aiops_assets.gateway.keys import KeyStore, Principal
from aiops_assets.gateway.protocol import HANG_UP
from aiops_assets.gateway.sentry import SIGNATURE, Claim, Hooks, answer_preflight
from aiops_assets.landing.segment import Delivery
from aiops_assets.landing.writer import GroupCommit, LandingFull

log = logging.getLogger(__name__)

#: bodies received and not yet durable may hold this much memory, or four of the largest if that is more
MAX_IN_FLIGHT_BYTES = 256 * 1024 * 1024
MAX_IDEMPOTENCY_KEY = 200
MAX_CONTENT_TYPE = 200
#: request headers that are kept because their names begin so, and the length of a value
MAX_KEPT_HEADERS, MAX_KEPT_BYTES = 64, 1024
RETRY_SOON, RETRY_LATER = 1, 15
_ROUTES = 4096
_VISIBLE = re.compile(rb"[\x21-\x7e]+")
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _CROCKFORD for low in _CROCKFORD]
_ENCODINGS = {
    b"gzip": "gzip",
    b"x-gzip": "gzip",
    b"deflate": "deflate",
    b"br": "br",
    b"zstd": "zstd",
    b"snappy": "snappy",
    b"": "",
    b"identity": "",
}


def new_delivery_id() -> str:
    """A ULID: 48 bits of milliseconds, 80 random bits, in Crockford's base 32."""
    value = time.time_ns() // 1_000_000 << 80 | getrandbits(80)
    return "".join([_PAIRS[value >> shift & 1023] for shift in range(120, -1, -10)])


class Intake:
    """Accepts deliveries. ``closed`` holds the reason while the landing zone must not grow (set by ``watch``)."""

    def __init__(
        self,
        endpoints: Endpoints,
        keys: KeyStore,
        counters: Counters,
        config: ConfigFile,
        *,
        max_body_bytes: int,
    ) -> None:
        self.closed: Refusal | None = None
        self.commit: GroupCommit | None = None
        self._endpoints, self._keys, self._counters = endpoints, keys, counters
        self._hooks = Hooks(config)
        self._max_body = max_body_bytes
        self._max_in_flight = max(MAX_IN_FLIGHT_BYTES, 4 * max_body_bytes)
        self._piece = min(PIECE_BYTES, max(1, max_body_bytes // 2))
        self._routes: dict[tuple[str, bytes], Route | Refusal] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send, endpoint: Endpoint) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        query: bytes = scope["query_string"]
        dialect = endpoint.dialect
        claim: Claim | None = None
        delivery: Delivery | None = None
        held = 0
        try:
            asks = endpoint.question is not None or scope["method"] == "OPTIONS"
            if asks and await self._answered(scope, receive, send, endpoint, headers):
                return
            if endpoint.signed and SIGNATURE in headers:
                source, kept = self._routed(endpoint, query, None)
                claim = await self._hooks.claim(source, headers)
            else:
                principal = self._principal(endpoint, headers, query)
                source, kept = self._routed(endpoint, query, principal)
                if not principal.may_send(source):
                    raise Refusal(403, "forbidden", f"this key may not send to the source {source!r}")
                dialect.check(headers, principal, kept)
            if scope["method"] != "POST":
                raise Refusal(405, "method_not_allowed", "deliver with POST", ((b"allow", b"POST"),))
            limit = min(self._max_body, endpoint.max_body) if endpoint.max_body is not None else self._max_body
            delivery_id = self._read_headers(headers, endpoint, kept, limit)
            if claim is not None and claim.request_id is not None:
                delivery_id = claim.request_id
            if self.closed is not None and not dialect.reads_what_it_refuses:
                raise self.closed
            if self.commit is None:
                raise unavailable("starting", "the landing zone is not open", RETRY_SOON)

            content_type = headers.get(b"content-type", b"")[:MAX_CONTENT_TYPE].decode("latin-1")
            message = await receive()
            body: bytes = message.get("body", b"")
            if message.get("more_body") or message["type"] == "http.disconnect":
                parts = [body]
                self._counters.in_flight_bytes += len(body)
                held = len(body)
                cut_at = self._piece if endpoint.cut and "content-encoding" not in kept else 0
                while message["type"] == "http.request" and message.get("more_body"):
                    message = await receive()
                    part: bytes = message.get("body", b"")
                    held += len(part)
                    self._counters.in_flight_bytes += len(part)
                    parts.append(part)
                    if cut_at and held >= cut_at:
                        rest = await self._cut(b"".join(parts), source, content_type, kept)
                        parts = [rest]
                        self._counters.in_flight_bytes -= held - len(rest)
                        held = len(rest)
                        cut_at = held + self._piece
                    self._check_size(held, limit)
                if message["type"] != "http.request":
                    self._counters.refused["disconnected"] += 1
                    return
                body = b"".join(parts)
            else:
                held = len(body)
                self._counters.in_flight_bytes += held
                self._check_size(held, limit)

            delivery = Delivery(delivery_id, time.time_ns() // 1000, source, content_type, body, kept)
            if claim is not None:
                claim.check(body)
                if not self._hooks.is_repeated(claim):
                    await self._store(delivery)
                    self._hooks.remember(claim)
            elif dialect.keeps_empty or not dialect.is_empty(body):
                await self._store(delivery)
        except Refusal as refusal:
            self._counters.refused[refusal.code] += 1
            if refusal.status == 503 and dialect.hears_only_silence(headers) and await _hung_up(scope, receive):
                return
            if delivery is None:
                await dialect.refused(send, refusal, headers)
            else:
                await dialect.not_kept(send, refusal, delivery, headers)
            return
        finally:
            self._counters.in_flight_bytes -= held
        await dialect.accepted(send, delivery, headers)

    async def _store(self, delivery: Delivery) -> None:
        """Make a delivery durable.

        Raises:
            Refusal: 503, nothing was kept.
        """
        if self.closed is not None:
            raise self.closed
        started = time.perf_counter()
        commit = self.commit
        try:
            if commit is None:
                raise RuntimeError("the landing writer is closed")
            await commit.submit(delivery)
        except LandingFull as error:
            raise unavailable("disk_full", "the disk is full; deliver again later", RETRY_LATER) from error
        except (OSError, RuntimeError) as error:
            log.error("a delivery could not be made durable: %s", error)
            raise unavailable("not_durable", "the delivery could not be made durable", RETRY_SOON) from error
        seconds = time.perf_counter() - started
        self._counters.accepted(delivery.source, delivery.headers["format"], len(delivery.body), seconds)

    async def _cut(self, data: bytes, source: str, content_type: str, kept: Mapping[str, str]) -> bytes:
        """Store the whole entries at the beginning of ``data`` and return the rest."""
        end = await asyncio.to_thread(whole_entries, data)
        if end:
            piece = Delivery(new_delivery_id(), time.time_ns() // 1000, source, content_type, data[:end], kept)
            await self._store(piece)
        return data[end:]

    async def _answered(
        self, scope: Scope, receive: Receive, send: Send, endpoint: Endpoint, headers: Mapping[bytes, bytes]
    ) -> bool:
        """Answer what delivers nothing; returns whether that is what this request is."""
        if endpoint.question == "health":
            await answer_health(send, self.closed)
            return True
        if endpoint.question is None:
            if endpoint.dialect is not self._endpoints.envelopes:
                return False
            await answer_preflight(send)
            return True
        self._principal(endpoint, headers, scope["query_string"])
        if endpoint.question == "acks":
            await answer_acks(self._endpoints.hec, scope, receive, send, headers)
        else:
            await answer_handshake(send, scope["path"].rstrip("/") or "/")
        return True

    def _principal(self, endpoint: Endpoint, headers: Mapping[bytes, bytes], query: bytes) -> Principal:
        key = endpoint.dialect.key(headers, query)
        principal = self._keys.verify(key) if key is not None else None
        if principal is None:
            raise endpoint.dialect.unauthorized(headers, key)
        return principal

    def _routed(self, endpoint: Endpoint, query: bytes, principal: Principal | None) -> tuple[str, dict[str, str]]:
        """(source, the headers that are kept as far as path and query tell them)."""
        if not endpoint.format:
            raise self._endpoints.not_found()
        found = self._route(endpoint, query) if query else PLAIN
        if isinstance(found, Refusal):
            raise found
        source = found.source or (principal.only_source if principal is not None else None) or endpoint.source
        return source, {**found.kept, **endpoint.kept}

    def _route(self, endpoint: Endpoint, query: bytes) -> Route | Refusal:
        if endpoint.dialect.key_in_query:
            return route(endpoint, query)
        found = self._routes.get((endpoint.format, query))
        if found is None:
            found = route(endpoint, query)
            if len(self._routes) >= _ROUTES:
                self._routes.clear()
            self._routes[endpoint.format, query] = found
        return found

    def _check_size(self, size: int, limit: int) -> None:
        if size > limit:
            raise _too_large(limit)
        if self._counters.in_flight_bytes > self._max_in_flight:
            raise unavailable("overload", "too many deliveries at once", RETRY_SOON)

    @staticmethod
    def _read_headers(headers: Mapping[bytes, bytes], endpoint: Endpoint, kept: dict[str, str], limit: int) -> str:
        """Add to ``kept`` what request headers tell; refuse what can be refused before the body is read."""
        length = headers.get(b"content-length")
        if length is not None and length.isdigit() and int(length[:20]) > limit:
            raise _too_large(limit)
        encoding = headers.get(b"content-encoding")
        if encoding is not None:
            known = _ENCODINGS.get(encoding.strip().lower())
            if known is None:
                accepted = ((b"accept-encoding", b"gzip, deflate, br, zstd, snappy, identity"),)
                message = "Content-Encoding may be gzip, deflate, br, zstd, snappy or identity, one of them"
                raise Refusal(415, "unsupported_encoding", message, accepted)
            if known:
                kept["content-encoding"] = known
        if headers.get(b"x-aiops-history") == b"1":
            kept["history"] = "1"
        for name in endpoint.keeps:
            value = headers.get(name)
            if value is not None:
                kept[name.decode()] = value[:MAX_KEPT_BYTES].decode("utf-8", "replace")
        if endpoint.keeps_prefix:
            chosen = [name for name in headers if name.startswith(endpoint.keeps_prefix)]
            for name in chosen[:MAX_KEPT_HEADERS]:
                kept[name.decode("latin-1")] = headers[name][:MAX_KEPT_BYTES].decode("utf-8", "replace")
        own = headers.get(b"idempotency-key")
        if own is None:
            return new_delivery_id()
        if len(own) > MAX_IDEMPOTENCY_KEY or not _VISIBLE.fullmatch(own):
            raise Refusal(
                400,
                "bad_idempotency_key",
                f"Idempotency-Key: 1 to {MAX_IDEMPOTENCY_KEY} visible ASCII characters without spaces",
            )
        kept["idempotency-key"] = own.decode()
        return own.decode()


async def _hung_up(scope: Scope, receive: Receive) -> bool:
    """End the connection without an answer, where the server can; returns whether it did."""
    hang_up = scope.get("extensions", {}).get(HANG_UP)
    if hang_up is None:
        return False
    hang_up["close"]()
    while (await receive())["type"] != "http.disconnect":
        pass
    return True


def _too_large(limit: int) -> Refusal:
    return Refusal(413, "too_large", f"a body may have at most {limit} bytes")
