"""Splunk: ``/services/search/v2/jobs/export`` with previews, messages, newest first, and a limit of searches."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.fakes.serving import Clock, Fake

TOKEN = "splunk-token-eyJraWQiOiJzcGx1bmsuc2Vj"


@dataclass
class Indexed:
    """An event, when it happened and when it was indexed (seconds since the epoch)."""

    number: int
    at: float
    indexed: float


class FakeSplunk(Fake):
    """``break_after`` results the stream breaks off, once; ``messages`` come with the next answer."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.events: list[Indexed] = []
        self.break_after: list[int] = []
        self.messages: list[dict[str, str]] = []
        self.searches: list[dict[str, str]] = []
        self._app = Starlette(routes=[Route("/services/search/v2/jobs/export", self._export, methods=["POST"])])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)

    async def _export(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return JSONResponse({"messages": [{"type": "WARN", "text": "call not properly authenticated"}]}, 401)
        form = dict(parse_qsl((await request.body()).decode()))
        self.searches.append(form)
        if form.get("output_mode") != "json" or not form["search"].startswith(("search ", "|")):
            return JSONResponse({"messages": [{"type": "FATAL", "text": "Error in 'search': unknown"}]}, 400)

        async def answer() -> Response:
            found = [event for event in self.events if self._shown(event, form)]
            found.sort(key=lambda event: (event.at, event.number), reverse=True)
            return StreamingResponse(self._lines(found), media_type="application/json")

        return await self.guarded(request, answer)

    def _shown(self, event: Indexed, form: dict[str, str]) -> bool:
        now = self.clock()
        # _indextime has whole seconds, and its bounds are inclusive.
        if "index_earliest" in form:
            indexed = int(event.indexed)
            if not float(form["index_earliest"]) <= indexed <= float(form["index_latest"]):
                return False
        return event.indexed <= now and float(form["earliest_time"]) <= event.at < float(form["latest_time"])

    async def _lines(self, found: list[Indexed]) -> AsyncIterator[bytes]:
        messages, self.messages = self.messages, []
        for event in found[:2]:
            yield _line({"preview": True, "offset": 0, "result": self.result(event)})
        if messages:
            yield _line({"messages": messages})
        stop = self.break_after.pop(0) if self.break_after else None
        for offset, event in enumerate(found):
            if offset == stop:
                raise ConnectionAbortedError
            last = {"lastrow": True} if offset == len(found) - 1 else {}
            yield _line({"preview": False, "offset": offset, **last, "result": self.result(event)})
        if not found:
            yield _line({"preview": False, "lastrow": True})

    @staticmethod
    def result(event: Indexed) -> dict[str, Any]:
        at = datetime.fromtimestamp(event.at, UTC).isoformat(timespec="milliseconds")
        return {
            "_bkt": "main~7~11C2D5E0-3B1A-4C1F-9E1E-000000000001",
            "_cd": f"7:{event.number}",
            "_time": at,
            "_indextime": str(int(event.indexed)),
            "_raw": f"{at} ERROR payment {event.number} refused",
            "_sourcetype": "app",
            "_si": ["idx1", "main"],
            "_serial": "0",
            "host": f"pay-{event.number % 2}",
            "index": "main",
            "source": "/var/log/pay.log",
            "sourcetype": "app",
            "linecount": "1",
            "splunk_server": "idx1",
        }


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode() + b"\n"
