"""The Splunk HTTP Event Collector as its clients know it: tokens, answer codes, channels and acknowledgements.

What belongs here: that protocol's words. What does not: the events (``formats.hec``). Codes are those that Splunk
documents under "Troubleshoot HTTP Event Collector".
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from urllib.parse import parse_qsl

import orjson

from aiops_assets.gateway.answers import Headers, Receive, Refusal, Scope, Send, answer_json
from aiops_assets.gateway.credentials import key_of
from aiops_assets.gateway.dialects import Dialect, RawHeaders
from aiops_assets.landing.segment import Delivery

CHANNEL = b"x-splunk-request-channel"
MAX_ACKS = 10_000
MAX_ACK_BODY_BYTES = 1024 * 1024
_CODES = {
    "no_token": 2,
    "bad_authorization": 3,
    "unauthorized": 4,
    "forbidden": 4,
    "empty": 5,
    "bad_query": 6,
    "no_channel": 10,
    "too_large": 27,
}
_SCHEMES = (b"splunk ", b"bearer ", b"token ", b"key ", b"basic ")
Acks = Mapping[str, bool]


class Hec(Dialect):
    """``{"text", "code"}`` answers, with ``ackId`` where the client opened a channel.

    An ack id is acknowledged as soon as it exists, since it is given only after the delivery is durable. Ids are
    microseconds since the epoch made unique, so that those from before a restart are known to be older, and durable.
    """

    key_in_query = True
    keeps_empty = False

    def __init__(self) -> None:
        self._last_ack = time.time_ns() // 1000

    def key(self, headers: RawHeaders, query: bytes) -> bytes | None:
        authorization = headers.get(b"authorization", b"")
        if authorization[:7].lower() == b"splunk ":
            return authorization[7:].strip()
        key = key_of(headers)
        if key is None and b"token=" in query:
            key = dict(parse_qsl(query, keep_blank_values=True, max_num_fields=32)).get(b"token")
        return key

    def unauthorized(self, headers: RawHeaders, key: bytes | None) -> Refusal:
        if key is not None:
            return Refusal(403, "unauthorized", "Invalid token")
        authorization = headers.get(b"authorization")
        if authorization is None:
            return Refusal(401, "no_token", "Token is required")
        known = authorization.lower().startswith(_SCHEMES)
        return Refusal(401, "bad_authorization", "Invalid authorization" if not known else "Token is required")

    def is_empty(self, body: bytes) -> bool:
        if not body:
            raise Refusal(400, "empty", "No data")
        return False

    async def accepted(self, send: Send, delivery: Delivery, headers: RawHeaders) -> None:
        answer: dict[str, object] = {"text": "Success", "code": 0}
        if CHANNEL in headers or "channel=" in delivery.headers.get("query", ""):
            self._last_ack = max(self._last_ack + 1, time.time_ns() // 1000)
            answer["ackId"] = self._last_ack
        await answer_json(send, 200, answer)

    async def refused(self, send: Send, refusal: Refusal, _headers: RawHeaders) -> None:
        if refusal.status == 503:
            await answer_json(send, 503, {"text": "Server is busy", "code": 9}, refusal.headers)
            return
        answer = {"text": refusal.message, "code": _CODES.get(refusal.code, 6)}
        await answer_json(send, refusal.status, answer, refusal.headers)

    def acks(self, body: bytes) -> dict[str, bool]:
        """The state of the ack ids that a client asks for.

        Raises:
            Refusal: the body is not ``{"acks": [id, …]}``.
        """
        try:
            asked = orjson.loads(body)["acks"]
            if len(asked) > MAX_ACKS or not all(type(ack) is int for ack in asked):
                raise ValueError
        except (ValueError, TypeError, KeyError):
            raise Refusal(400, "bad_acks", 'Invalid data format: send {"acks": [id, …]}') from None
        return {str(ack): 0 <= ack <= self._last_ack for ack in asked}


async def answer_health(send: Send, closed: Refusal | None) -> None:
    """What load balancers and clients ask before they send; it needs no token."""
    if closed is None:
        await answer_json(send, 200, {"text": "HEC is healthy", "code": 17})
    else:
        await answer_json(send, 503, {"text": "HEC is unhealthy, queues are full", "code": 18}, closed.headers)


async def answer_acks(hec: Hec, scope: Scope, receive: Receive, send: Send, headers: RawHeaders) -> None:
    """Answer ``POST /services/collector/ack`` of somebody who may send."""
    if CHANNEL not in headers and b"channel=" not in scope["query_string"]:
        raise Refusal(400, "no_channel", "Data channel is missing")
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_ACK_BODY_BYTES:
            raise Refusal(413, "too_large", "Request entity too large")
        more = message["type"] == "http.request" and message.get("more_body", False)
    none: Headers = ()
    await answer_json(send, 200, {"acks": hec.acks(b"".join(parts))}, none)
