"""The KPI page: routes for the gateway's app. It reads marts as files, and works without scripts.

What belongs here: HTTP in and out. What does not: figures (``kpis``), geometry (``charts``), who may come in
(``gateway``). DuckDB and dbt are never imported here. What blocks runs in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import cast

import orjson
import polars as pl
from jinja2 import ChoiceLoader, Environment, PackageLoader
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from aiops_assets.incidents.pages import PAGE_HEADERS
from aiops_assets.incidents.pages import environment as incident_environment
from aiops_assets.marts.kpis import RANGES, Board, board, documents
from aiops_assets.marts.reading import MartReader
from aiops_assets.settings import Settings

log = logging.getLogger(__name__)


def routes(settings: Settings) -> list[BaseRoute]:
    """The routes of the KPI page."""
    pages = KpiPages(settings)
    return [
        Route("/kpis", pages.page, methods=["GET"]),
        Route("/api/kpis", pages.document, methods=["GET"]),
    ]


class KpiPages:
    """Handlers and the marts that they read."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._reader = MartReader(settings.paths.marts)
        self._reading = asyncio.Lock()

    async def page(self, request: Request) -> Response:
        """The page; query: days (14, 30, 90, 365)."""
        days, today = _days(request), datetime.now(UTC).date()
        problem = ""
        try:
            shown = await self._board(days, today)
        except (OSError, pl.exceptions.PolarsError) as error:
            log.error("the marts cannot be read: %s", error)
            problem = "The marts could not be read; the gateway's log says why."
            shown = board(lambda _: pl.DataFrame(), days, today)
        text = (
            _environment()
            .get_template("kpis.html")
            .render(
                board=shown,
                built=bool(shown.tiles),
                problem=problem,
                ranges=RANGES,
                time_zone=self._settings.time_zone,
                path=request.url.path,
                who=_who(request),
                now=time.time_ns() // 1_000,
            )
        )
        return HTMLResponse(text, headers=PAGE_HEADERS)

    async def document(self, request: Request) -> Response:
        """Daily figures as JSON; query: days. Instants are ISO 8601 in UTC."""
        days, today = _days(request), datetime.now(UTC).date()
        headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
        try:
            async with self._reading:
                found = await asyncio.to_thread(documents, self._frames(days, today), days, today)
        except (OSError, pl.exceptions.PolarsError) as error:
            log.error("the marts cannot be read: %s", error)
            body = {"error": "unavailable", "message": "the marts cannot be read"}
            return Response(orjson.dumps(body), 503, headers, "application/json")
        return Response(orjson.dumps({"days": days, **found}), 200, headers, "application/json")

    async def _board(self, days: int, today: date) -> Board:
        async with self._reading:
            return await asyncio.to_thread(board, self._frames(days, today), days, today)

    def _frames(self, days: int, today: date) -> Callable[[str], pl.DataFrame]:
        first_day = f"{today - timedelta(days=days - 1)}"
        return lambda name: self._reader.frame(name, first_day)


@cache
def _environment() -> Environment:
    """The incident pages' templates and filters, and the template of this room."""
    loaders = [PackageLoader("aiops_assets.marts", "templates"), PackageLoader("aiops_assets.incidents", "templates")]
    return incident_environment().overlay(loader=ChoiceLoader(loaders))


def _days(request: Request) -> int:
    text = request.query_params.get("days", "")
    return int(text) if text in {str(days) for days in RANGES} else 30


def _who(request: Request) -> str:
    principal = getattr(request.state, "principal", None)
    if principal is None:
        return "local"
    return principal if isinstance(principal, str) else cast(str, principal.name)
