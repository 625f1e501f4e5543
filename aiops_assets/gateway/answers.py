"""Answers in raw ASGI: small JSON bodies, built without a framework.

What belongs here: the shape of errors, ``{"error": code, "message": text}``. What does not: when they are given.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]


class Refusal(Exception):
    """A request that is not served: status, a code for programs and a sentence for people."""

    def __init__(self, status: int, code: str, message: str, headers: Headers = ()) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers


def unauthorized() -> Refusal:
    return Refusal(
        401,
        "unauthorized",
        "send a key: 'Authorization: Bearer <key>' or 'X-Api-Key: <key>'; aiops keys create makes one",
        ((b"www-authenticate", b'Bearer realm="aiops"'),),
    )


def unavailable(code: str, message: str, retry_after: int) -> Refusal:
    """503: nothing was kept, the sender must deliver again after some seconds."""
    return Refusal(503, code, message, ((b"retry-after", str(retry_after).encode()),))


async def answer_json(send: Send, status: int, value: object, headers: Headers = ()) -> None:
    """Send one complete JSON answer."""
    body = orjson.dumps(value)
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def refuse(send: Send, refusal: Refusal) -> None:
    """Send a refusal."""
    value = {"error": refusal.code, "message": refusal.message}
    await answer_json(send, refusal.status, value, refusal.headers)
