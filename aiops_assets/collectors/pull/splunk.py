"""Splunk: searches whose results stream, by the time at which events were indexed.

What belongs here: how ``/services/search/v2/jobs/export`` is asked and what its lines mean for the mark. What does not:
reading results (``formats.splunk_export``).

Going by index time, an event that arrives late is not missed, however old it is (up to ``reach``). Going by event time,
``overlap`` must cover how late events arrive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from aiops_assets.collectors.document import Fetched
from aiops_assets.collectors.pull.http import Api, ApiError, OutOfTime, Paused, TooMuch, basic
from aiops_assets.collectors.pull.marks import State, Window, halved, seconds
from aiops_assets.collectors.pull.poller import MAX_TURN_BYTES, Page, Turn, fetched
from aiops_assets.config import Pull

FORMAT = "splunk_export"
_PATH = "/services/search/v2/jobs/export"
#: results together in one delivery (bytes)
BATCH_BYTES = 1 << 20
_SECOND = 1_000_000
#: clocks of senders may be ahead by this (seconds)
_AHEAD = 86_400


class SplunkClient:
    """Streams are the searches."""

    def __init__(self, pull: Pull, **api: Any) -> None:
        if pull.token is not None:
            authorization = f"Bearer {pull.token.get_secret_value()}"
        else:
            assert pull.user is not None and pull.password is not None  # noqa: S101 - checked in aiops.yaml
            authorization = basic(pull.user, pull.password.get_secret_value())
        self.api = Api(pull, {"Authorization": authorization}, **api)
        self._pull = pull
        self._searches = {name or query: _search(query) for name, query in pull.named_queries}

    async def streams(self) -> Sequence[str]:
        return list(self._searches)

    async def page(self, stream: str, state: State, turn: Turn) -> Page:
        window = turn.pace.next(state, turn.now, step=_SECOND)
        if window is None:
            return Page(state)
        batch = _Batch(self._pull, turn)
        smaller = halved(state, window, _SECOND)
        try:
            async for line in self.api.lines("POST", _PATH, self._form(self._searches[stream], window)):
                batch.take(line)
                if batch.bytes >= MAX_TURN_BYTES and smaller is not None:
                    # Newest come first, so a part is no step ahead; what was read is known and not delivered again.
                    return batch.page(smaller, more=True)
        except OutOfTime:
            if not batch.lines:
                raise
            note = "the deadline came in the middle of the answer"
            if smaller is None:
                return batch.page(state, note=f"{note}, although one second was asked for; raise 'deadline'")
            return batch.page(smaller, note=f"{note}; a shorter time is asked for next")
        except (ApiError, Paused, TooMuch) as error:
            if not batch.lines:
                raise
            return batch.page(state, note=str(error))
        if batch.fatal:
            return batch.page(state, note=batch.fatal)
        if batch.results and not batch.last_row and not self.api.framed:
            return batch.page(state, note="the answer broke off")
        closed = turn.pace.closed(state, window, held=bool(batch.problem))
        return batch.page(closed, more=not window.last, note=batch.problem)

    def _form(self, search: str, window: Window) -> dict[str, str]:
        form = {"search": search, "output_mode": "json", "preview": "false"}
        start, end = seconds(window.start), seconds(window.end)
        if self._pull.time == "event":
            return {**form, "earliest_time": str(start), "latest_time": str(end)}
        return {
            **form,
            "index_earliest": str(start),
            "index_latest": str(end),
            "earliest_time": str(max(0, int(start - self._pull.reach))),
            "latest_time": str(end + _AHEAD),
        }


class _Batch:
    """What the lines of one answer hold."""

    def __init__(self, pull: Pull, turn: Turn) -> None:
        self._pull, self._turn = pull, turn
        self.lines = 0
        self.results = 0
        self.bytes = 0
        self.last_row = False
        #: why results are missing, and why the search failed
        self.problem = ""
        self.fatal = ""
        self._parts: list[list[bytes]] = [[]]
        self._part_bytes = 0
        self._ids: list[str] = []
        self._own: set[str] = set()

    def take(self, line: bytes) -> None:
        """One line: a result, a preview, or messages."""
        line = line.strip()
        if not line:
            return
        self.lines += 1
        try:
            document = orjson.loads(line)
        except orjson.JSONDecodeError:
            # The format keeps it and says what is wrong with it.
            document = None
        if isinstance(document, dict):
            if document.get("preview") is True:
                return
            self._messages(document.get("messages"))
            self.last_row = self.last_row or document.get("lastrow") is True
            if "result" not in document:
                return
        self.results += 1
        identifier = result_id(document.get("result") if isinstance(document, dict) else None, line)
        if identifier in self._own or not self._turn.fresh([identifier])[0]:
            return
        self._own.add(identifier)
        self._ids.append(identifier)
        if self._part_bytes + len(line) > BATCH_BYTES and self._parts[-1]:
            self._parts.append([])
            self._part_bytes = 0
        self._parts[-1].append(line)
        self._part_bytes += len(line)
        self.bytes += len(line)

    def page(self, state: State, *, more: bool = False, note: str = "") -> Page:
        found: list[Fetched] = [
            fetched(self._pull, FORMAT, b"\n".join(part), {}, "application/x-ndjson") for part in self._parts if part
        ]
        return Page(state, found, self._ids, more, note)

    def _messages(self, messages: object) -> None:
        for message in messages if isinstance(messages, list) else ():
            kind = str(message.get("type", "")).upper() if isinstance(message, dict) else ""
            if kind in {"ERROR", "FATAL"}:
                text = f"{kind}: {message.get('text', '')}"[:300]
                self.problem = self.problem or text
                self.fatal = self.fatal or (text if kind == "FATAL" else "")


def result_id(result: object, line: bytes) -> str:
    """What identifies a result: bucket and address of the event in it, else its content."""
    if isinstance(result, dict) and result.get("_bkt") and result.get("_cd"):
        return f"{result['_bkt']}:{result['_cd']}"
    content = orjson.dumps(result, option=orjson.OPT_SORT_KEYS) if isinstance(result, dict) else line
    return content.decode("utf-8", "replace")


def _search(query: str) -> str:
    text = query.strip()
    return text if text.startswith(("|", "search ")) else f"search {text}"
