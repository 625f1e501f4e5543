"""The gateway's own pages: login, logout, health, readiness and metrics.

What belongs here: those few routes. What does not: incident pages (``incidents.pages``), access control (``access``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from html import escape
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from aiops_assets.gateway.credentials import is_same_origin, local_target
from aiops_assets.gateway.intake import Intake
from aiops_assets.gateway.keys import KeyStore
from aiops_assets.gateway.sessions import COOKIE, LIFETIME_SECONDS, Sessions
from aiops_assets.gateway.watch import INTERVAL_SECONDS, Watch
from aiops_assets.observability.health import Check, check_backlog, check_database, check_session
from aiops_assets.observability.metrics import Histogram, Sample, exposition
from aiops_assets.observability.readings import (
    IncidentReadings,
    LakeReadings,
    backlog_samples,
    collector_samples,
    collector_status,
    live_samples,
)
from aiops_assets.settings import Home

#: what is read from the lake and the operations database is at most this old
SLOW_SECONDS = 15.0
READY_SECONDS = 5.0
Samples = list[Sample | Histogram]

_LOGIN = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Log in</title><style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }}
body {{ max-width: 26rem; margin: 15vh auto 0; padding: 0 1rem }}
label, input, button {{ display: block; width: 100%; box-sizing: border-box; font: inherit }}
input, button {{ padding: .6rem; margin: .4rem 0 1rem; border-radius: .4rem; border: 1px solid #8888 }}
button {{ background: #2457c5; color: #fff; border: 0; cursor: pointer }}
.problem {{ color: #c62828 }} code {{ font-size: .9em }}
</style></head><body><h1>Log in</h1>{problem}
<form method="post" action="/login"><input type="hidden" name="next" value="{target}">
<label for="key">Key</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus>
<button>Log in</button></form>
<p>The first key lies in <code>keys/admin.key</code> of the home folder; <code>aiops keys create</code> makes more.</p>
</body></html>
"""


class Pages:
    """The handlers and what they need."""

    def __init__(
        self,
        home: Home,
        *,
        keys: KeyStore,
        sessions: Sessions,
        intake: Intake,
        watch: Watch,
        own_samples: Callable[[], Samples],
        max_backlog_bytes: int,
    ) -> None:
        self._home, self._keys, self._sessions, self._intake, self._watch = home, keys, sessions, intake, watch
        self._own_samples, self._max_backlog = own_samples, max_backlog_bytes
        self._lake, self._incidents = LakeReadings(home.lake), IncidentReadings(home.operations_url)
        self._slow: Samples = []
        self._slow_read_at = -SLOW_SECONDS
        self._slow_lock = asyncio.Lock()

    def routes(self) -> Sequence[BaseRoute]:
        """The routes, for Starlette."""
        return [
            Route("/", self.start, methods=["GET"]),
            Route("/health", self.health, methods=["GET"]),
            Route("/ready", self.ready, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
            Route("/login", self.login_form, methods=["GET"]),
            Route("/login", self.login, methods=["POST"]),
            Route("/logout", self.logout, methods=["GET", "POST"]),
        ]

    async def start(self, _request: Request) -> Response:
        return RedirectResponse("/incidents", 303)

    async def health(self, _request: Request) -> Response:
        """Alive: the event loop answers. Says nothing about dependencies."""
        return JSONResponse({"status": "ok"})

    async def ready(self, _request: Request) -> Response:
        """200 when everything that intake and pages depend on works, else 503; the reasons either way."""
        view = self._watch.view
        commit = self._intake.commit
        age = time.time() - view.seen_at
        checks = [
            Check("landing", commit is not None and commit.alive, "the landing writer runs"),
            Check("room", view.free >= view.reserve, f"{view.free} bytes free, {view.reserve} are kept free"),
            check_backlog(view.backlog, self._max_backlog),
            check_session(view.backlog, view.progress),
            Check("watch", age < 10 * INTERVAL_SECONDS, f"the landing zone was looked at {age:.1f} s ago"),
        ]
        try:
            database = asyncio.to_thread(check_database, self._home.operations_url)
            checks.append(await asyncio.wait_for(database, READY_SECONDS))
        except TimeoutError:
            checks.append(Check("operations", False, f"the operations database was silent for {READY_SECONDS:.0f} s"))
        ok = all(check.ok for check in checks)
        body = {
            "ready": ok,
            "checks": [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in checks],
        }
        return JSONResponse(body, 200 if ok else 503)

    async def metrics(self, request: Request) -> Response:
        """Every metric of the catalogue that has a value, for Prometheus."""
        view = self._watch.view
        async with self._slow_lock:
            if time.monotonic() - self._slow_read_at >= SLOW_SECONDS:
                self._slow = await asyncio.to_thread(self._read_slowly)
                self._slow_read_at = time.monotonic()
        status = await asyncio.to_thread(collector_status, self._home.collector)
        samples: Samples = [
            *self._own_samples(),
            *backlog_samples(view.backlog, view.free),
            *live_samples(view.progress),
            *collector_samples(status),
            *self._slow,
        ]
        page, content_type = exposition(samples, request.headers.get("accept", ""))
        return Response(page, headers={"content-type": content_type})

    def _read_slowly(self) -> Samples:
        return [*self._incidents.samples(), *self._lake.samples()]

    async def login_form(self, request: Request) -> Response:
        return _login_page(request.query_params.get("next", "/incidents"))

    async def login(self, request: Request) -> Response:
        """Exchange a key for a session cookie and go back to where the person wanted to be."""
        headers = dict(request.scope["headers"])
        if (b"origin" in headers or b"sec-fetch-site" in headers) and not is_same_origin(headers):
            return _login_page("/incidents", "The form was sent from another site.", 403)
        try:
            fields = parse_qs((await request.body()).decode("ascii"), max_num_fields=16)
        except ValueError:
            return _login_page("/incidents", "The form cannot be read.", 400)
        target = local_target(fields.get("next", ["/incidents"])[0])
        principal = self._keys.verify(fields.get("key", [""])[0].strip().encode())
        if principal is None:
            return _login_page(target, "This key is not known, or was revoked.", 401)
        if not principal.may_read:
            return _login_page(target, "This key may only send deliveries.", 403)
        response = RedirectResponse(target, 303)
        response.set_cookie(
            COOKIE,
            self._sessions.issue(principal),
            max_age=LIFETIME_SECONDS,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https",
        )
        return response

    async def logout(self, _request: Request) -> Response:
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response


def _login_page(target: str, problem: str = "", status: int = 200) -> Response:
    text = f'<p class="problem" role="alert">{escape(problem)}</p>' if problem else ""
    return HTMLResponse(_LOGIN.format(target=escape(local_target(target)), problem=text), status)
