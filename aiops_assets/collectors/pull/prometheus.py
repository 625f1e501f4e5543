"""Prometheus: range queries from a mark on, answers kept as they come.

What belongs here: how ``/api/v1/query_range`` is asked (also of Thanos, Mimir and VictoriaMetrics). What does not:
reading the answer (``formats.prometheus_range``) and the one-time import of a history (``shadow``).
"""

from __future__ import annotations

import asyncio
import gzip
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from aiops_assets.collectors.document import Fetched
from aiops_assets.collectors.pull.http import Api, ApiError, TooMuch, basic
from aiops_assets.collectors.pull.marks import State, Window, halved, seconds
from aiops_assets.collectors.pull.poller import Page, Turn, fetched
from aiops_assets.config import Pull

FORMAT = "prometheus_range"
#: Prometheus refuses more than 11,000 points a series
MAX_STEPS = 10_000
#: types and units of metrics are asked for again after this time (seconds)
METADATA_SECONDS = 3600.0
_NAME = re.compile(rb'"__name__"\s*:\s*"([a-zA-Z_:][a-zA-Z0-9_:]*)"')
_EMPTY = re.compile(rb'"result"\s*:\s*(?:\[\s*\]|null)')
_TOO_MUCH = (
    "too many samples",
    "maximum resolution",
    "too many points",
    "limit exceeded",
    "exceeds limit",
    "too large",
)
_SUFFIXES = re.compile(r"_(?:bucket|count|sum)\Z")
_LEVEL = 3


class PrometheusClient:
    """Streams are the queries."""

    def __init__(self, pull: Pull, **api: Any) -> None:
        headers = {}
        if pull.token is not None:
            headers["Authorization"] = f"Bearer {pull.token.get_secret_value()}"
        elif pull.user is not None and pull.password is not None:
            headers["Authorization"] = basic(pull.user, pull.password.get_secret_value())
        self.api = Api(pull, headers, **api)
        self._pull = pull
        self._step = int(pull.step)
        self._queries = {name or query: _expression(name, query) for name, query in pull.named_queries}
        self._metadata: dict[str, Any] = {}
        self._metadata_at = float("-inf")

    async def streams(self) -> Sequence[str]:
        return list(self._queries)

    async def page(self, stream: str, state: State, turn: Turn) -> Page:
        step = self._step * 1_000_000
        pace = replace(turn.pace, window=min(turn.pace.window, MAX_STEPS * step))
        # The instant at which a window ends belongs to it.
        window = pace.next(state, turn.now, settle=int(self._pull.settle * 1e6) - step, step=step)
        if window is None:
            return Page(state)
        try:
            body = await self._range(self._queries[stream], window)
        except TooMuch as error:
            smaller = halved(state, window, step)
            if smaller is None:
                raise ApiError(f"too much even for one instant ({error}); narrow the query") from error
            return Page(smaller, more=True)
        page = Page(pace.closed(state, window, lazily=True), more=not window.last)
        if _EMPTY.search(body):
            return page
        if not _NAME.search(body):
            page.note = "the result has no metric's name and is not stored; give it one: {name: …, query: …}"
            return page
        page.fetched.append(await self._enveloped(body))
        if b'"warnings":[' in body[-4000:]:
            page.note = "the server calls the answer incomplete (warnings)"
        return page

    async def _range(self, query: str, window: Window) -> bytes:
        """The answer of a range query, whole.

        Raises:
            TooMuch: a shorter time may go.
            ApiError: it refuses.
        """
        form = {
            "query": query,
            "start": str(seconds(window.start)),
            "end": str(seconds(window.end) - self._step),
            "step": str(self._step),
            "timeout": f"{self._pull.timeout:g}s",
        }
        try:
            answer = await self.api.ask("POST", "/api/v1/query_range", form=form, again=_is_torn)
        except ApiError as error:
            if any(sign in str(error).lower() for sign in _TOO_MUCH):
                raise TooMuch(str(error)) from error
            raise
        if not re.match(rb'\s*\{[^\[{]*"status"\s*:\s*"success"', answer.body[:200]):
            document = answer.json()
            if not isinstance(document, dict) or document.get("status") != "success":
                raise ApiError(
                    "the answer is none of Prometheus' API; is a path missing in 'url', such as /prometheus?"
                )
        return answer.body

    async def _enveloped(self, body: bytes) -> Fetched:
        await self._know_metadata()
        names = {name.decode() for name in _NAME.findall(body)}
        families = names | {_SUFFIXES.sub("", name) for name in names}
        metadata = {name: self._metadata[name] for name in sorted(families) if name in self._metadata}
        head = orjson.dumps({"prometheus_range": 1, "host_label": self._pull.host_label, "metadata": metadata})
        whole = head[:-1] + b',"answer":' + body + b"}"
        packed = await asyncio.to_thread(gzip.compress, whole, _LEVEL, mtime=0)
        return fetched(self._pull, FORMAT, packed, {}, "application/json")

    async def _know_metadata(self) -> None:
        if time.monotonic() - self._metadata_at < METADATA_SECONDS:
            return
        self._metadata_at = time.monotonic()
        try:
            document = (await self.api.ask("GET", "/api/v1/metadata")).json()
        except (ApiError, TooMuch):
            # Not every server that answers queries has metadata; names tell the kinds then.
            return
        data = document.get("data") if isinstance(document, dict) else None
        self._metadata = _described(data) if isinstance(data, dict) else {}


def _described(data: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Type and unit by metric; metrics that targets disagree about are left out."""
    known: dict[str, dict[str, str]] = {}
    for metric, entries in data.items():
        kinds = {(str(e.get("type", "")), str(e.get("unit", ""))) for e in entries or () if isinstance(e, dict)}
        if len(kinds) == 1:
            kind, unit = kinds.pop()
            known[metric] = {"type": kind, "unit": unit}
    return known


def _expression(name: str | None, query: str) -> str:
    """The query whose result bears the name: expressions of PromQL lose the metric's name."""
    return query if name is None else f'label_replace({query}, "__name__", {orjson.dumps(name).decode()}, "", "")'


def _is_torn(body: bytes) -> bool:
    return not (body.lstrip()[:1] == b"{" and body[-64:].rstrip().endswith(b"}"))
