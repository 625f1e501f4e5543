"""Datadog: ``/api/v1/query`` and ``/api/v2/logs/events/search`` with both keys, cursors and ``X-RateLimit-*``."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.fakes.serving import Clock, Fake

API_KEY, APPLICATION_KEY = "dd-api-key-0123456789abcdef", "dd-app-key-fedcba9876543210"


@dataclass
class Event:
    """A log event and when the index shows it (seconds since the epoch)."""

    id: str
    at: float
    indexed: float
    attributes: dict[str, Any]


class FakeDatadog(Fake):
    """``value(host, seconds)`` is the metric's value; ``hosts`` are its groups."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.events: list[Event] = []
        self.hosts: list[str] = []
        self.value: Callable[[str, int], float | None] = lambda host, at: 1.0
        self.limit_name = "logs_public_search_api"
        self._app = Starlette(
            routes=[
                Route("/api/v1/query", self._query),
                Route("/api/v2/logs/events/search", self._search, methods=["POST"]),
            ]
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)

    def _entered(self, request: Request) -> tuple[Response | None, dict[str, str]]:
        if request.headers.get("dd-api-key") != API_KEY or request.headers.get("dd-application-key") != APPLICATION_KEY:
            return JSONResponse({"errors": ["Forbidden"]}, 403), {}
        if self.limit is None:
            return None, {}
        allowed, left, ends = self.limit.take(self.clock())
        headers = {
            "x-ratelimit-limit": str(self.limit.most),
            "x-ratelimit-period": f"{self.limit.period:g}",
            "x-ratelimit-remaining": str(left),
            "x-ratelimit-reset": str(int(ends - self.clock()) + 1),
            "x-ratelimit-name": self.limit_name,
        }
        if allowed:
            return None, headers
        self.refused += 1
        return JSONResponse({"errors": ["Too many requests"]}, 429, headers), headers

    async def _query(self, request: Request) -> Response:
        refused, headers = self._entered(request)
        if refused is not None:
            return refused

        async def answer() -> Response:
            start, end = int(request.query_params["from"]), int(request.query_params["to"])
            query = request.query_params["query"]
            step = int(query.rpartition(",")[2].strip(" )")) if "rollup" in query else 20
            series = []
            for host in self.hosts:
                at = range(-(-start // step) * step, end + 1, step)
                # A bucket that is not over yet has half of its value.
                whole = [
                    [s * 1000.0, self.value(host, s) if s + step <= self.clock() else -1.0]
                    for s in at
                    if s <= self.clock() and self.value(host, s) is not None
                ]
                if whole:
                    series.append(
                        {
                            "metric": "system.cpu.user",
                            "tag_set": [f"host:{host}"],
                            "scope": f"host:{host}",
                            "pointlist": whole,
                            "aggr": "avg",
                            "interval": step,
                            "expression": query,
                            "display_name": "system.cpu.user",
                            "unit": [{"family": "percentage", "name": "percent", "scale_factor": 1.0}, None],
                        }
                    )
            found = {"status": "ok", "res_type": "time_series", "series": series, "query": query, "message": ""}
            return JSONResponse({**found, "from_date": start * 1000, "to_date": end * 1000}, headers=headers)

        return await self.guarded(request, answer)

    async def _search(self, request: Request) -> Response:
        refused, headers = self._entered(request)
        if refused is not None:
            return refused
        wanted = json.loads(await request.body())

        async def answer() -> Response:
            place = wanted.get("page", {})
            limit = place.get("limit", 10)
            if not 1 <= limit <= 1000:
                return JSONResponse({"errors": ["limit must be between 1 and 1000"]}, 400)
            start, end = (_seconds(wanted["filter"][name]) for name in ("from", "to"))
            shown = [e for e in self.events if start <= e.at < end and e.indexed <= self.clock()]
            shown.sort(key=lambda event: (event.at, event.id))
            if "cursor" in place:
                after = json.loads(base64.b64decode(place["cursor"]))
                shown = [event for event in shown if (event.at, event.id) > tuple(after)]
            page = shown[:limit]
            document: dict[str, Any] = {
                "data": [{"id": e.id, "type": "log", "attributes": e.attributes} for e in page],
                "meta": {"elapsed": 13, "request_id": "r", "status": "done"},
            }
            if len(shown) > limit:
                after = base64.b64encode(json.dumps([page[-1].at, page[-1].id]).encode()).decode()
                document["meta"]["page"] = {"after": after}
                document["links"] = {"next": f"{self.url}/api/v2/logs/events?page[cursor]={after}"}
            return JSONResponse(document, headers=headers)

        return await self.guarded(request, answer)

    def add(self, number: int, at: float, indexed: float | None = None) -> str:
        """A log event of number ``number``."""
        identifier = f"AQAAA{number:08d}"
        attributes = {
            "timestamp": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "host": f"web-{number % 3}",
            "service": "shop",
            "status": "error" if number % 5 == 0 else "info",
            "message": f"request {number} done",
            "tags": ["env:prod", "team:web", "service:shop"],
            "attributes": {"http": {"status_code": 200}},
        }
        self.events.append(Event(identifier, at, at if indexed is None else indexed, attributes))
        return identifier


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
