"""ServiceNow's Table API: encoded queries, ``X-Total-Count``, ``Link``, hidden records, basic authentication."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.fakes.serving import Clock, Fake

USER, PASSWORD = "aiops.reader", "s3cret/+pass word"
_CONDITION = re.compile(r"([a-z_]+)(>=|<=|IN|=|>|<)(.*)")
_REFERENCES = {"cmdb_ci", "business_service", "assigned_to", "assignment_group", "kb_category"}


class FakeServiceNow(Fake):
    """``tables`` hold records as stored; ``hidden`` are the ids that the user may not see."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.tables: dict[str, dict[str, dict[str, str]]] = {}
        self.hidden: set[str] = set()
        #: called after each page, for what happens meanwhile
        self.meanwhile: Any = None
        self._app = Starlette(routes=[Route("/api/now/table/{table}", self._table)])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)

    def put(self, table: str, sys_id: str, at: float, **fields: str) -> None:
        """Insert or update a record at ``at``."""
        record = self.tables.setdefault(table, {}).setdefault(
            sys_id, {"sys_id": sys_id, "sys_created_on": _written(at)}
        )
        record.update(fields, sys_updated_on=_written(at))

    async def _table(self, request: Request) -> Response:
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if request.headers.get("authorization") != expected:
            return JSONResponse(
                {"error": {"message": "User Not Authenticated", "detail": "…"}, "status": "failure"}, 401
            )
        if self.limit is not None:
            allowed, _, ends = self.limit.take(self.clock())
            if not allowed:
                self.refused += 1
                headers = {
                    "retry-after": str(int(ends - self.clock()) + 1),
                    "x-ratelimit-limit": str(self.limit.most),
                    "x-ratelimit-reset": str(int(ends)),
                    "x-ratelimit-rule": "Table API - 100 per hour",
                }
                return JSONResponse({"error": {"message": "Rate limit exceeded"}}, 429, headers)

        async def answer() -> Response:
            response = self._page(request)
            if self.meanwhile is not None:
                self.meanwhile()
            return response

        return await self.guarded(request, answer)

    def _page(self, request: Request) -> Response:
        wanted = request.query_params
        rows = [dict(row) for row in self.tables.get(request.path_params["table"], {}).values()]
        order: list[str] = []
        for part in wanted["sysparm_query"].split("^"):
            if part.startswith("ORDERBY"):
                order.append(part.removeprefix("ORDERBY"))
                continue
            match = _CONDITION.fullmatch(part)
            if match is None:
                return JSONResponse({"error": {"message": f"Invalid query: {part}"}}, 400)
            rows = [row for row in rows if _fits(row.get(match[1], ""), match[2], match[3])]
        rows.sort(key=lambda row: tuple(row.get(name, "") for name in order))
        limit, offset = int(wanted["sysparm_limit"]), int(wanted.get("sysparm_offset", "0"))
        # What the user may not see is left out after the page was cut.
        page = [row for row in rows[offset : offset + limit] if row["sys_id"] not in self.hidden]
        links = [f'<{request.url.include_query_params(sysparm_offset=0)}>;rel="first"']
        if offset + limit < len(rows):
            links.append(f'<{request.url.include_query_params(sysparm_offset=offset + limit)}>;rel="next"')
        headers = {"x-total-count": str(len(rows)), "link": ",".join(links)}
        shown = page if wanted.get("sysparm_display_value") != "all" else [_both(row) for row in page]
        return JSONResponse({"result": shown}, headers=headers)


def _fits(value: str, operator: str, wanted: str) -> bool:
    if operator == "IN":
        return value in wanted.split(",")
    return {
        "=": value == wanted,
        ">": value > wanted,
        ">=": value >= wanted,
        "<": value < wanted,
        "<=": value <= wanted,
    }[operator]


def _both(row: dict[str, str]) -> dict[str, dict[str, str]]:
    """Each value as stored and as shown: references by name, times in the user's own zone and format."""
    both = {}
    for name, value in row.items():
        stored, _, name_shown = value.partition("|") if name in _REFERENCES else (value, "", value)
        if re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", value):
            name_shown = f"{value[8:10]}.{value[5:7]}.{value[:4]} 23:59:59"
        both[name] = {"value": stored, "display_value": name_shown}
    return both


def _written(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
