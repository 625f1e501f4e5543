"""The door in front of every page: who is it, may they, and did our own page send it.

What belongs here: authentication by key or session cookie, roles, cross-site request defence and security headers for
everything that is not a webhook. What does not: the login form (``pages``). The verified principal is put into
``scope["state"]["principal"]``, so ``request.state.principal.name`` is who acts.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import quote

from aiops_assets.gateway.answers import App, Receive, Refusal, Scope, Send, answer_json, refuse, unauthorized
from aiops_assets.gateway.counters import Counters
from aiops_assets.gateway.credentials import cookie_of, is_same_origin, key_of
from aiops_assets.gateway.keys import KeyStore, Principal
from aiops_assets.gateway.sessions import COOKIE, Sessions

#: what anybody may fetch; nothing here tells anything about the installation
OPEN_PATHS = frozenset({"/health", "/login", "/favicon.ico"})
OPEN_PREFIX = "/static/"
MAX_PAGE_BODY_BYTES = 1024 * 1024
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
#: what only looks although it is posted: queries that are too long for a URL
_READING_POSTS = frozenset(
    f"/api/v1/{name}" for name in ("query", "query_range", "query_exemplars", "series", "labels")
)
_SECURITY: dict[bytes, bytes] = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"same-origin",
    b"cache-control": b"no-store",
    b"content-security-policy": (
        b"default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; object-src 'none'; "
        b"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
}
#: a browser that comes from another site does not send its strict cookie; one step from our own page and it does
_BOUNCE = b'<!doctype html><meta http-equiv="refresh" content="0"><title>one moment</title>'


class Access:
    """Wraps the page app. ``end_streams`` ends endless answers (server-sent events) when the server stops."""

    def __init__(self, app: App, keys: KeyStore, sessions: Sessions, counters: Counters) -> None:
        self._app, self._keys, self._sessions, self._counters = app, keys, sessions, counters
        self._streams: set[asyncio.Task[Any]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        headers: dict[bytes, bytes] = dict(scope["headers"])
        try:
            if not scope["query_string"].isascii():
                raise Refusal(400, "bad_query", "the query string cannot be read")
            if path not in OPEN_PATHS and not path.startswith(OPEN_PREFIX):
                principal, by_cookie = self._who(headers)
                if principal is None:
                    if b"text/html" in headers.get(b"accept", b"") and method in _SAFE:
                        await self._to_login(scope, headers, send)
                        return
                    raise unauthorized()
                self._check(principal, by_cookie, "GET" if path in _READING_POSTS else method, headers)
                scope.setdefault("state", {})["principal"] = principal
            await self._serve(scope, self._bounded(headers, receive), send)
        except Refusal as refusal:
            self._counters.refused[refusal.code] += 1
            await refuse(send, refusal)

    def end_streams(self) -> None:
        """End every answer that would otherwise go on for ever."""
        for task in self._streams:
            task.cancel("the server stops")

    def _who(self, headers: dict[bytes, bytes]) -> tuple[Principal | None, bool]:
        key = key_of(headers)
        if key is not None:
            return self._keys.verify(key), False
        cookie = cookie_of(headers, COOKIE)
        return (self._sessions.principal(cookie), True) if cookie is not None else (None, True)

    @staticmethod
    def _check(principal: Principal, by_cookie: bool, method: str, headers: dict[bytes, bytes]) -> None:
        if not principal.may_read:
            raise Refusal(403, "forbidden", "this key may only send; it needs the role 'read'")
        if method in _SAFE:
            return
        if not principal.may_operate:
            raise Refusal(403, "forbidden", "this key may only look; it needs the role 'operate'")
        if by_cookie and not is_same_origin(headers):
            raise Refusal(403, "cross_site", "this request did not come from one of our own pages")

    @staticmethod
    async def _to_login(scope: Scope, headers: dict[bytes, bytes], send: Send) -> None:
        if headers.get(b"sec-fetch-site") == b"cross-site" and headers.get(b"sec-fetch-mode") == b"navigate":
            start = [(b"content-type", b"text/html"), (b"content-length", str(len(_BOUNCE)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": [*start, *_SECURITY.items()]})
            await send({"type": "http.response.body", "body": _BOUNCE})
            return
        query = scope["query_string"]
        target = quote(scope["path"]) + (f"?{query.decode('latin-1')}" if query else "")
        location = f"/login?next={quote(target, safe='')}".encode()
        await answer_json(send, 303, {"error": "unauthorized", "message": "log in first"}, ((b"location", location),))

    @staticmethod
    def _bounded(headers: dict[bytes, bytes], receive: Receive) -> Receive:
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > MAX_PAGE_BODY_BYTES:
            raise Refusal(413, "too_large", f"a body may have at most {MAX_PAGE_BODY_BYTES} bytes")
        seen = 0

        async def bounded() -> MutableMapping[str, Any]:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > MAX_PAGE_BODY_BYTES:
                raise Refusal(413, "too_large", f"a body may have at most {MAX_PAGE_BODY_BYTES} bytes")
            return message

        return bounded

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        streaming = False

        async def guarded(message: MutableMapping[str, Any]) -> None:
            nonlocal streaming
            if message["type"] == "http.response.start":
                present = {name.lower(): value for name, value in message.get("headers", ())}
                missing = [(name, value) for name, value in _SECURITY.items() if name not in present]
                message["headers"] = [*message.get("headers", ()), *missing]
                if present.get(b"content-type", b"").startswith(b"text/event-stream") and task is not None:
                    streaming = True
                    self._streams.add(task)
            await send(message)

        try:
            await self._app(scope, receive, guarded)
        except asyncio.CancelledError:
            if not streaming:
                raise
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            if task is not None:
                self._streams.discard(task)
