"""Sentry's two ways in: envelopes of its SDKs, and signed webhooks of its integrations.

What belongs here: where a DSN's key travels, rate-limit answers, signatures and replays. What does not: what events
hold (``formats.sentry``, ``formats.sentry_envelope``). SDKs drop what they are refused, whatever the status; 429 with
``Retry-After`` and ``X-Sentry-Rate-Limits`` at least makes them wait, so an intake that is closed answers that too.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl

from aiops_assets.config import ConfigError, ConfigFile
from aiops_assets.formats.payload import opening
from aiops_assets.gateway.answers import Headers, Refusal, Send, answer_json, unavailable
from aiops_assets.gateway.credentials import key_of
from aiops_assets.gateway.dialects import Dialect, RawHeaders
from aiops_assets.gateway.keys import Principal
from aiops_assets.landing.segment import Delivery

SIGNATURE, TIMESTAMP, REQUEST_ID = b"sentry-hook-signature", b"sentry-hook-timestamp", b"request-id"
#: a webhook whose timestamp is further from now is refused, seconds
REPLAY_SECONDS = 300
#: webhooks are small, and must be read before anything about them can be believed
MAX_HOOK_BYTES = 4 * 1024 * 1024
MAX_REMEMBERED = 100_000
_WINDOW_SECONDS = 60
_KEY = re.compile(rb"sentry_key=([^,\s]+)")
_EVENT_ID = re.compile(rb'"event_id"\s*:\s*"([0-9a-fA-F]{32}|[0-9a-fA-F-]{36})"')
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,200}")
_DIGEST = re.compile(rb"[0-9a-fA-F]{64}")
#: browsers hand a page's SDK its answer, and the headers that it needs, only with these
CROSS_ORIGIN: Headers = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"x-sentry-error, x-sentry-rate-limits, retry-after"),
)


class Envelopes(Dialect):
    """The SDK's store: ``{"id"}`` on success, ``{"detail"}`` and rate-limit headers otherwise.

    ``per_minute`` is how many envelopes one key may send to one project in a minute; 0 sets no limit.
    """

    key_in_query = True
    keeps_empty = False

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._window = 0
        self._seen: dict[tuple[str, str], int] = {}

    def key(self, headers: RawHeaders, query: bytes) -> bytes | None:
        for name in (b"x-sentry-auth", b"authorization"):
            value = headers.get(name, b"")
            if value[:7].lower() == b"sentry ":
                found = _KEY.search(value)
                if found:
                    return found[1]
        if b"sentry_key=" in query:
            return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=32)).get(b"sentry_key")
        return key_of(headers)

    def unauthorized(self, _headers: RawHeaders, key: bytes | None) -> Refusal:
        if key is None:
            return Refusal(401, "unauthorized", "missing authorization information: put a key into the DSN")
        return Refusal(403, "unauthorized", "the DSN's key is not known: aiops keys create makes one")

    def is_empty(self, body: bytes) -> bool:
        if not body:
            raise Refusal(400, "empty", "an envelope without a header")
        return False

    def check(self, _headers: RawHeaders, principal: Principal, kept: Mapping[str, str]) -> None:
        """Count an envelope, and refuse it with 429 when this key has sent enough to this project."""
        key_id, project = principal.key_id, kept["project"]
        if not self._per_minute:
            return
        now = time.monotonic()
        window = int(now // _WINDOW_SECONDS)
        if window != self._window:
            self._window, self._seen = window, {}
        count = self._seen.get((key_id, project), 0)
        if count >= self._per_minute:
            wait = int((window + 1) * _WINDOW_SECONDS - now) + 1
            raise Refusal(
                429,
                "rate_limited",
                f"more than {self._per_minute} envelopes a minute (AIOPS_SENTRY_MAX_PER_MINUTE)",
                ((b"retry-after", str(wait).encode()),),
            )
        self._seen[key_id, project] = count + 1

    async def accepted(self, send: Send, delivery: Delivery, _headers: RawHeaders) -> None:
        start = opening(delivery, 65536)
        found = _EVENT_ID.search(start.partition(b"\n")[0]) or _EVENT_ID.search(start)
        answer = {"id": found[1].decode().replace("-", "").lower()} if found else {}
        await answer_json(send, 200, answer, CROSS_ORIGIN)

    async def refused(self, send: Send, refusal: Refusal, _headers: RawHeaders) -> None:
        status, headers = refusal.status, refusal.headers
        if status in {429, 503}:
            status = 429
            wait = next((value for name, value in headers if name == b"retry-after"), b"60")
            headers = (*headers, (b"x-sentry-rate-limits", wait + b"::organization"))
        error = refusal.message.encode("ascii", "replace")[:200]
        answer = {"detail": refusal.message, "causes": []}
        await answer_json(send, status, answer, (*headers, (b"x-sentry-error", error), *CROSS_ORIGIN))


async def answer_preflight(send: Send) -> None:
    """Let a browser's page on any site send envelopes: the key is what counts."""
    allowed: Headers = (
        (b"access-control-allow-methods", b"POST"),
        (b"access-control-allow-headers", b"x-sentry-auth, content-type, content-encoding, authorization"),
        (b"access-control-max-age", b"3600"),
    )
    await answer_json(send, 200, {}, (*CROSS_ORIGIN, *allowed))


class Claim:
    """What a webhook says of itself, to be believed once its body is here."""

    __slots__ = ("_digest", "_secret", "request_id", "source")

    def __init__(self, source: str, secret: bytes, digest: bytes, request_id: str | None) -> None:
        self.source, self.request_id = source, request_id
        self._secret, self._digest = secret, digest

    def check(self, body: bytes) -> None:
        """Compare the signature with the body's own, in constant time.

        Raises:
            Refusal: 401.
        """
        own = hmac.new(self._secret, body, hashlib.sha256).hexdigest().encode()
        if not hmac.compare_digest(own, self._digest):
            raise Refusal(401, "bad_signature", "Sentry-Hook-Signature does not match the body and the client secret")


class Hooks:
    """Signed webhooks: the secrets in force, and which requests were taken already."""

    def __init__(self, config: ConfigFile, clock: Callable[[], float] = time.time) -> None:
        self._config, self._clock = config, clock
        self._loading = asyncio.Lock()
        self._taken: OrderedDict[tuple[str, str], float] = OrderedDict()

    async def claim(self, source: str, headers: RawHeaders) -> Claim:
        """Read what the headers claim, and refuse what need not be read any further.

        Raises:
            Refusal: 400, 401, 403 or 503.
        """
        digest = headers.get(SIGNATURE, b"")
        if not _DIGEST.fullmatch(digest):
            raise Refusal(401, "bad_signature", "Sentry-Hook-Signature: 64 hexadecimal digits")
        stamp = headers.get(TIMESTAMP, b"")
        seconds = float(stamp) if stamp.isdigit() and len(stamp) < 20 else 0.0
        # Some relays write milliseconds.
        seconds = seconds / 1000 if seconds > 1e11 else seconds
        if abs(self._clock() - seconds) > REPLAY_SECONDS:
            raise Refusal(401, "stale", f"Sentry-Hook-Timestamp is more than {REPLAY_SECONDS} s from this clock")
        request_id = headers.get(REQUEST_ID)
        if request_id is not None and not _REQUEST_ID.fullmatch(request_id):
            raise Refusal(400, "bad_request_id", "Request-ID: 1 to 200 visible ASCII characters")
        try:
            async with self._loading:
                config = await asyncio.to_thread(self._config.current)
        except ConfigError as error:
            message = "aiops.yaml is wrong, so that no secret can be read from it"
            raise unavailable("bad_config", message, 15) from error
        declared = config.sources.get(source)
        if declared is None or declared.secret is None:
            raise Refusal(403, "no_secret", f"aiops.yaml: sources.{source}.secret: set the integration's client secret")
        secret = declared.secret.get_secret_value().encode()
        return Claim(source, secret, digest.lower(), request_id.decode() if request_id is not None else None)

    def is_repeated(self, claim: Claim) -> bool:
        """Whether a request with this id was made durable a short while ago."""
        return claim.request_id is not None and (claim.source, claim.request_id) in self._taken

    def remember(self, claim: Claim) -> None:
        """Note that a request is durable."""
        if claim.request_id is None:
            return
        now = self._clock()
        self._taken[claim.source, claim.request_id] = now
        while len(self._taken) > MAX_REMEMBERED or next(iter(self._taken.values())) < now - 2 * REPLAY_SECONDS:
            self._taken.popitem(last=False)
