"""How a protocol speaks: where a request carries its key, and how acceptance and refusal look to its clients.

What belongs here: ``Dialect``, which is also the plain one of webhooks, Prometheus remote write and netdata. What does
not: the way of a delivery to the disk (``intake``), which paths there are (``endpoints``), and protocols that need
more than a few lines (``sentry``, ``otlp``, ``hec``, ``elastic``, ``journal``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from aiops_assets.gateway.answers import Refusal, Send, refuse, unauthorized
from aiops_assets.gateway.credentials import key_of
from aiops_assets.gateway.keys import Principal
from aiops_assets.landing.segment import Delivery

RawHeaders = Mapping[bytes, bytes]


class Dialect:
    """The plain dialect: a key in the usual headers, 204 without a body, refusals as our own small JSON."""

    #: whether a key may also stand in the query, which is then never kept in a cache
    key_in_query: ClassVar[bool] = False
    #: whether a body is read even while nothing may be accepted, because the refusal speaks of what is in it
    reads_what_it_refuses: ClassVar[bool] = False
    #: whether an empty body is a delivery like any other; otherwise ``is_empty`` judges it
    keeps_empty: ClassVar[bool] = True

    def key(self, headers: RawHeaders, _query: bytes) -> bytes | None:
        """The key that a request carries, if any."""
        return key_of(headers)

    def unauthorized(self, _headers: RawHeaders, _key: bytes | None) -> Refusal:
        """What is said when there is no key or none that is in force."""
        return unauthorized()

    def check(self, headers: RawHeaders, principal: Principal, kept: Mapping[str, str]) -> None:
        """Refuse what this protocol's clients understand: another form is wanted, or they send too much."""

    def is_empty(self, body: bytes) -> bool:
        """Whether a body says that there is nothing new; it is accepted then, and nothing is stored.

        Raises:
            Refusal: where the protocol has no such bodies.
        """
        return not body

    async def accepted(self, send: Send, delivery: Delivery, _headers: RawHeaders) -> None:
        """Say that a delivery is durable."""
        # No body: the server would send it in a second system call and wake the sender twice.
        headers_back = [(b"x-delivery-id", delivery.delivery_id.encode())]
        await send({"type": "http.response.start", "status": 204, "headers": headers_back})
        await send({"type": "http.response.body", "body": b""})

    def hears_only_silence(self, _headers: RawHeaders) -> bool:
        """Whether this client repeats only what got no answer at all."""
        return False

    async def refused(self, send: Send, refusal: Refusal, _headers: RawHeaders) -> None:
        """Say that nothing was kept, in the form that makes this protocol's clients do the right thing."""
        await refuse(send, refusal)

    async def not_kept(self, send: Send, refusal: Refusal, _delivery: Delivery, headers: RawHeaders) -> None:
        """Say that a delivery that was read whole could not be kept, and must be sent again."""
        await self.refused(send, refusal, headers)


class RemoteWrite(Dialect):
    """Prometheus remote write 1.0. Version 2.0 is refused with 415, at which senders fall back to 1.0."""

    keeps_empty = False

    def check(self, headers: RawHeaders, principal: Principal, kept: Mapping[str, str]) -> None:
        _, given, message = headers.get(b"content-type", b"").partition(b"proto=")
        if given and message.strip(b' ";') != b"prometheus.WriteRequest":
            raise Refusal(415, "unsupported_message", "remote write 1.0: proto=prometheus.WriteRequest")


class Netdata(Dialect):
    """The JSON exporter of netdata, which posts an empty array at every turn in which it collected nothing."""

    keeps_empty = False

    def is_empty(self, body: bytes) -> bool:
        return len(body) < 16 and not body.strip(b"[] \r\n")
