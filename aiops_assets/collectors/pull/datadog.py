"""Datadog: metric queries and logs of a Datadog site.

What belongs here: how ``/api/v1/query`` and ``/api/v2/logs/events/search`` are asked. What does not: reading their
answers (``formats.datadog_api``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import orjson

from aiops_assets.collectors.pull.http import Api, ApiError, TooMuch
from aiops_assets.collectors.pull.marks import State, halved, iso, seconds
from aiops_assets.collectors.pull.poller import Page, Turn, fetched
from aiops_assets.config import Pull

FORMAT = "datadog_api"
LOGS = "logs"
_LOGS_PATH = "/api/v2/logs/events/search"
#: one metric with one aggregation over tags, to which the resolution can be added
_PLAIN = re.compile(
    r"(avg|sum|min|max):[A-Za-z][\w.]*\{[^{}()]*\}(?:\s*by\s*\{[^{}()]*\})?(?:\.as_(?:count|rate)\(\))?"
)


class DatadogClient:
    """Streams are the metric queries and the logs."""

    def __init__(self, pull: Pull, **api: Any) -> None:
        assert pull.token is not None and pull.application_key is not None  # noqa: S101 - checked in aiops.yaml
        headers = {
            "DD-API-KEY": pull.token.get_secret_value(),
            "DD-APPLICATION-KEY": pull.application_key.get_secret_value(),
            "Accept": "application/json",
        }
        self.api = Api(pull, headers, **api)
        self._pull = pull
        self._queries = {f"metrics {name or query}": (name, query) for name, query in pull.named_queries}

    async def streams(self) -> Sequence[str]:
        return [*self._queries, *([LOGS] if self._pull.logs is not None else [])]

    async def page(self, stream: str, state: State, turn: Turn) -> Page:
        return await (self._logs(state, turn) if stream == LOGS else self._metrics(stream, state, turn))

    async def _metrics(self, stream: str, state: State, turn: Turn) -> Page:
        step = int(self._pull.step) * 1_000_000
        window = turn.pace.next(state, turn.now, settle=int(self._pull.settle * 1e6), step=step)
        if window is None:
            return Page(state)
        name, query = self._queries[stream]
        params = {
            "from": seconds(window.start),
            # The bucket that begins at the end is not over yet.
            "to": seconds(window.end) - 1,
            "query": with_resolution(query, int(self._pull.step)),
        }
        try:
            answer = await self.api.ask("GET", "/api/v1/query", params=params, again=_is_torn)
        except TooMuch as error:
            smaller = halved(state, window, step)
            if smaller is None:
                raise ApiError(f"too much even for one step ({error}); narrow the query") from error
            return Page(smaller, more=True)
        document = answer.json()
        if not isinstance(document, dict) or document.get("status", "ok") != "ok" or document.get("error"):
            problem = document.get("error") if isinstance(document, dict) else None
            raise ApiError(f"the query failed: {problem or 'no word why'}"[:300])
        page = Page(turn.pace.closed(state, window, lazily=True), more=not window.last)
        if document.get("series"):
            headers = {"datadog-name": name} if name else {}
            page.fetched.append(fetched(self._pull, FORMAT, answer.body, headers, "application/json"))
        return page

    async def _logs(self, state: State, turn: Turn) -> Page:
        window = turn.pace.next(state, turn.now)
        if window is None:
            return Page(state)
        place: dict[str, Any] = {"limit": self._pull.page}
        if window.cursor is not None:
            place["cursor"] = window.cursor
        wanted = {
            "filter": {"query": self._pull.logs, "from": iso(window.start), "to": iso(window.end)},
            "sort": "timestamp",
            "page": place,
        }
        answer = await self.api.ask("POST", _LOGS_PATH, json=wanted, again=_is_torn)
        document = answer.json()
        events = document.get("data") if isinstance(document, dict) else None
        meta = document.get("meta") or {} if isinstance(document, dict) else {}
        if not isinstance(events, list):
            raise ApiError("the answer holds no 'data'")
        if meta.get("status") == "timeout":
            raise ApiError("the search timed out there; narrow 'logs' or shorten 'window'")
        cursor = (meta.get("page") or {}).get("after")
        if cursor and events:
            page = Page(window.opened(state, str(cursor)), more=True)
        else:
            page = Page(turn.pace.closed(state, window), more=not window.last)
        ids = [str(event.get("id")) if isinstance(event, dict) else "" for event in events]
        fresh = turn.fresh(ids)
        if any(fresh):
            new = [event for event, is_new in zip(events, fresh, strict=True) if is_new]
            body = answer.body if all(fresh) else orjson.dumps({"data": new})
            page.fetched.append(fetched(self._pull, FORMAT, body, {}, "application/json"))
            page.ids = [identifier for identifier, is_new in zip(ids, fresh, strict=True) if is_new]
        return page


def with_resolution(query: str, step: int) -> str:
    """A plain query with a rollup of ``step`` seconds, so that its points do not depend on how much time is asked for.

    Queries with functions or arithmetic stay as they are; they can carry ``.rollup(…)`` themselves.
    """
    match = _PLAIN.fullmatch(query.strip())
    return query if match is None else f"{query.strip()}.rollup({match[1]}, {step})"


def _is_torn(body: bytes) -> bool:
    return not body.rstrip().endswith((b"}", b"]"))
