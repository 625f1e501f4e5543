"""Assembly of the gateway: the ASGI app and the process that serves it.

What belongs here: putting the parts together, starting and stopping. What does not: anything a request does.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import signal
import socket
import sys
from typing import Any, NoReturn

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from uvicorn import Config, Server

from aiops_assets.config import ConfigFile
from aiops_assets.formats import FORMATS
from aiops_assets.gateway.access import Access
from aiops_assets.gateway.answers import Receive, Scope, Send
from aiops_assets.gateway.counters import Counters
from aiops_assets.gateway.endpoints import Endpoints, is_shipper
from aiops_assets.gateway.intake import Intake
from aiops_assets.gateway.keys import KeysDamaged, KeyStore, ensure_admin_key
from aiops_assets.gateway.pages import Pages
from aiops_assets.gateway.prometheus import PrometheusApi
from aiops_assets.gateway.protocol import IDLE_SECONDS, BoundedProtocol, drop_stalled
from aiops_assets.gateway.sessions import Sessions
from aiops_assets.gateway.watch import Watch
from aiops_assets.incidents.pages import routes as incident_routes
from aiops_assets.landing.writer import GroupCommit, SegmentWriter, WriterBusy
from aiops_assets.marts.pages import routes as kpi_routes
from aiops_assets.observability import logging as structured_logging
from aiops_assets.settings import Settings

log = logging.getLogger(__name__)

WRITER_ID = "gateway"
GRACE_SECONDS = 10
BACKLOG = 2048
MAX_CONNECTIONS = 10_000
#: deriving an incident's alerts again ends after this, with what was done by then
EXPLAIN_SECONDS = 20.0
#: exit status when the process cannot start; the reason is one line on standard error
CANNOT_START = 2


class Gateway:
    """The ASGI app. ``open`` takes the landing writer; the lifespan does so too when nobody did before."""

    def __init__(self, settings: Settings) -> None:
        home = settings.paths
        home.create()
        ensure_admin_key(home.keys)
        self.settings = settings
        self.counters = Counters()
        self.connections: set[object] = set()
        self.keys = KeyStore(home.keys)
        self.sessions = Sessions(home.keys, self.keys)
        self._endpoints = Endpoints(frozenset(FORMATS), sentry_per_minute=settings.sentry_max_per_minute)
        self._intake = Intake(
            self._endpoints,
            self.keys,
            self.counters,
            ConfigFile(home.config),
            max_body_bytes=settings.gateway_max_body_bytes,
        )
        self.watch = Watch(home, self._intake, max_backlog_bytes=settings.gateway_max_backlog_bytes)
        own = Pages(
            home,
            keys=self.keys,
            sessions=self.sessions,
            intake=self._intake,
            watch=self.watch,
            own_samples=lambda: self.counters.samples(len(self.connections)),
            max_backlog_bytes=settings.gateway_max_backlog_bytes,
        )
        self.prometheus = PrometheusApi(settings)
        pages = Starlette(
            routes=[
                *own.routes(),
                *self.prometheus.routes(),
                *incident_routes(settings, explain=self._explain),
                *kpi_routes(settings),
            ],
            exception_handlers={HTTPException: _http_error, Exception: _unexpected_error},
        )
        self.access = Access(pages, self.keys, self.sessions, self.counters)
        self._writer: SegmentWriter | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def _explain(self, incident_id: str) -> dict[str, Any]:
        from aiops_assets.replay.explain import explain_incident

        return explain_incident(self.settings, incident_id, seconds=EXPLAIN_SECONDS).document()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            endpoint = self._endpoints.find(path)
            if endpoint is not None and (path != "/" or is_shipper(scope)):
                await self._intake(scope, receive, send, endpoint)
            else:
                await self.access(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            raise RuntimeError(f"{scope['type']} is not served here")

    def open(self) -> None:
        """Take the landing writer, recovering what a crash left.

        Raises:
            WriterBusy: another gateway runs on this home folder.
            OSError: the landing zone cannot be written.
        """
        if self._writer is None:
            self._writer = SegmentWriter(
                self.settings.paths.landing,
                WRITER_ID,
                max_bytes=self.settings.segment_max_bytes,
                max_age_seconds=self.settings.segment_max_age_seconds,
            )

    async def start(self) -> None:
        """Begin to accept; call it inside the running event loop."""
        self.open()
        if self._writer is None:
            raise RuntimeError("the landing writer did not open")
        await self.watch.refresh()
        commit = GroupCommit(self._writer)
        commit.start()
        self._intake.commit = commit
        self._tasks = [
            asyncio.create_task(self.watch.run(), name="gateway-watch"),
            asyncio.create_task(drop_stalled(self.connections), name="gateway-drop-stalled"),
        ]

    async def stop(self) -> None:
        """Finish what was begun, seal, and give the landing writer free."""
        self.prometheus.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        commit, self._intake.commit = self._intake.commit, None
        if commit is not None:
            await commit.close()
        self._endpoints.close()
        self._writer = None

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.start()
        except (OSError, WriterBusy) as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})


def create_app(settings: Settings) -> Gateway:
    """The ASGI app for these settings; makes the home folder and the first key when they are not there yet.

    Raises:
        KeysDamaged: the keys cannot be understood.
        OSError: the home folder cannot be written.
    """
    return Gateway(settings)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish open requests, seal the landing segment and return.

    Raises:
        SystemExit: with ``CANNOT_START`` and one line on standard error when the port is used, the home folder cannot
            be written, its keys are damaged, or another gateway runs on it.
    """
    address = f"{settings.gateway_host}:{settings.gateway_port}"
    try:
        listener = _bind(settings.gateway_host, settings.gateway_port)
    except OSError as error:
        _cannot_listen(address, error)
    try:
        gateway = create_app(settings)
        # Standard error only: under `aiops up` the supervisor writes and rotates the file.
        structured_logging.configure("gateway", None, settings.log_level)
        gateway.open()
    except WriterBusy as error:
        _cannot_start(f"{error}: is another gateway running on {settings.paths.root}?")
    except KeysDamaged as error:
        _cannot_start(str(error))
    except OSError as error:
        _cannot_start(f"{settings.paths.root} cannot be written: {error.strerror or error}")
    config = Config(
        gateway,
        http=BoundedProtocol,
        loop="uvloop",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        limit_concurrency=_connection_limit(),
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = _Server(config, gateway)
    # Before the first connection, so that no signal is lost; uvicorn raises it again once it is done, and a stop that
    # was asked for is a success.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        _cannot_listen(address, error)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    log.info("gateway listens on http://%s", address)
    server.run(sockets=[listener])
    log.info("gateway has stopped")


class _Server(Server):
    """uvicorn's server, which also ends endless answers when it stops."""

    def __init__(self, config: Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway
        gateway.connections = self.server_state.connections  # type: ignore[assignment]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._gateway.access.end_streams()
        await super().shutdown(sockets)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    listener.set_inheritable(False)
    return listener


def _connection_limit() -> int:
    """As many connections as file descriptors allow, up to ``MAX_CONNECTIONS``."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + 200
    limit = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return max(16, limit - 200)


def _cannot_listen(address: str, error: OSError) -> NoReturn:
    used = error.errno == errno.EADDRINUSE
    reason = "is already in use" if used else f"cannot be used: {error.strerror or error}"
    _cannot_start(f"address {address} {reason}; set AIOPS_GATEWAY_PORT to another port")


def _cannot_start(reason: str) -> NoReturn:
    sys.stderr.write(f"gateway cannot start: {reason}\n")
    raise SystemExit(CANNOT_START)


async def _http_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "refused")
    return JSONResponse({"error": code, "message": error.detail}, error.status_code, headers=error.headers)


async def _unexpected_error(request: Request, error: Exception) -> Response:
    log.error("%s %s failed: %s", request.method, request.url.path, type(error).__name__)
    return JSONResponse({"error": "internal", "message": "this failed here; the log says why"}, 500)
