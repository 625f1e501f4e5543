"""ServiceNow: records of the Table API in the order of their last update.

What belongs here: how ``/api/now/table/<table>`` is asked. What does not: reading records (``formats.servicenow``).

Pages are found by the last record of the page before (time of update, then ``sys_id``) rather than by counting: a
record that is updated meanwhile moves to the end and would shift all that come after it. Records that the user may not
see are missing from pages without notice, so the end is told by ``Link`` or ``X-Total-Count``, not by a short page.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from aiops_assets.collectors.pull.http import Answer, Api, ApiError, basic
from aiops_assets.collectors.pull.marks import State
from aiops_assets.collectors.pull.poller import Page, Turn, fetched
from aiops_assets.config import Pull
from aiops_assets.hours import instant, micros

FORMAT = "servicenow"
_TIME = "%Y-%m-%d %H:%M:%S"
_NEXT = re.compile(r'<[^>]*>\s*;\s*rel="next"')
_SECOND = 1_000_000
#: drafts are nobody's knowledge yet
_FILTERS = {"kb_knowledge": "workflow_stateINpublished,retired,outdated^"}


class ServiceNowClient:
    """Streams are the tables."""

    def __init__(self, pull: Pull, **api: Any) -> None:
        if pull.token is not None:
            authorization = f"Bearer {pull.token.get_secret_value()}"
        else:
            assert pull.user is not None and pull.password is not None  # noqa: S101 - checked in aiops.yaml
            authorization = basic(pull.user, pull.password.get_secret_value())
        self.api = Api(pull, {"Authorization": authorization, "Accept": "application/json"}, **api)
        self._pull = pull

    async def streams(self) -> Sequence[str]:
        return list(self._pull.tables)

    async def page(self, stream: str, state: State, turn: Turn) -> Page:
        begun = state["mark"]
        place = state.get("open") or {"at": _written(begun), "asked": turn.now, "after": None, "offset": 0}
        limit = self._pull.page
        params = {
            "sysparm_query": _FILTERS.get(stream, "") + _query(place),
            "sysparm_limit": limit,
            "sysparm_offset": place["offset"],
            "sysparm_display_value": "all",
            "sysparm_exclude_reference_link": "true",
        }
        answer = await self.api.ask("GET", f"/api/now/table/{stream}", params=params, again=_is_torn)
        document = answer.json()
        records = document.get("result") if isinstance(document, dict) else None
        if not isinstance(records, list):
            raise ApiError("the answer holds no 'result'; is 'url' the address of the instance?")
        more = _has_more(answer, len(records), limit, place["offset"])
        following, done = _following(place, records, more, limit)
        if following is None:
            page = Page({"mark": max(begun, place["asked"] - turn.pace.overlap)})
        else:
            mark = max(begun, min(done, place["asked"] - turn.pace.overlap))
            page = Page({"mark": mark, "open": following}, more=True)
        ids = [f"{stream}:{text_of(record, 'sys_id')}:{text_of(record, 'sys_updated_on')}" for record in records]
        fresh = turn.fresh(ids)
        if any(fresh):
            new = [record for record, is_new in zip(records, fresh, strict=True) if is_new]
            body = answer.body if all(fresh) else orjson.dumps({"result": new})
            headers = {"servicenow-table": stream, "servicenow-instance": self.api.base}
            page.fetched.append(fetched(self._pull, FORMAT, body, headers, "application/json"))
            page.ids = [identifier for identifier, is_new in zip(ids, fresh, strict=True) if is_new]
        return page


def text_of(record: object, name: str) -> str:
    """The stored value of a field, however values are shown."""
    value = record.get(name) if isinstance(record, dict) else None
    if isinstance(value, dict):
        value = value.get("value")
    return value if isinstance(value, str) else ""


def _query(place: State) -> str:
    if place["after"] is None:
        return f"sys_updated_on>={place['at']}^ORDERBYsys_updated_on^ORDERBYsys_id"
    return f"sys_updated_on={place['at']}^sys_id>{place['after']}^ORDERBYsys_id"


def _following(place: State, records: Sequence[object], more: bool, limit: int) -> tuple[State | None, int]:
    """Where the next page begins, ``None`` at the end, and up to which instant everything was read."""
    at, after = place["at"], place["after"]
    if more and not records:
        # All of this page is hidden from us.
        return {**place, "offset": place["offset"] + limit}, _instant(at)
    if more:
        last, last_id = text_of(records[-1], "sys_updated_on"), text_of(records[-1], "sys_id")
        if not last or not last_id:
            raise ApiError("records lack sys_updated_on or sys_id; the user needs to read both")
        if after is not None or last == at:
            return {**place, "after": last_id, "offset": 0}, _instant(at)
        return {**place, "at": last, "after": None, "offset": 0}, _instant(last)
    if after is not None:
        following = _instant(at) + _SECOND
        return {**place, "at": _written(following), "after": None, "offset": 0}, following
    return None, 0


def _has_more(answer: Answer, count: int, limit: int, offset: int) -> bool:
    total = answer.headers.get("x-total-count", "")
    if total.isdigit():
        return offset + limit < int(total)
    link = answer.headers.get("link")
    return _NEXT.search(link) is not None if link is not None else count >= limit


def _written(at: int) -> str:
    return instant(at).strftime(_TIME)


def _instant(text: str) -> int:
    """Microseconds of a time of the Table API.

    Raises:
        ApiError: it is none.
    """
    try:
        return micros(datetime.strptime(text, _TIME).replace(tzinfo=UTC))
    except ValueError as error:
        raise ApiError(f"sys_updated_on: expected 'YYYY-MM-DD hh:mm:ss', not {text[:40]!r}") from error


def _is_torn(body: bytes) -> bool:
    return not body.rstrip().endswith(b"}")
