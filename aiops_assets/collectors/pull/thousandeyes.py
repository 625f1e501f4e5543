"""ThousandEyes: results of tests and alerts of one account group.

What belongs here: how version 7 of the API is asked. What does not: reading its answers (``formats.thousandeyes``).

Results name their test by number only, and alerts too, so each answer is kept in an envelope with what the list of
tests says of them. An alert that is no longer among the active ones is asked for by its id, so that its end is seen
whenever it came.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from aiops_assets.collectors.document import Fetched
from aiops_assets.collectors.pull.http import Api, ApiError
from aiops_assets.collectors.pull.marks import State, iso
from aiops_assets.collectors.pull.poller import Page, Turn, fetched
from aiops_assets.config import Pull

FORMAT = "thousandeyes"
ACTIVE, CLEARED = "alerts active", "alerts cleared"
#: the list of tests is asked for again after this time (seconds)
TESTS_SECONDS = 600.0
#: type of a test → kinds of its results
_RESULTS: Mapping[str, tuple[str, ...]] = {
    "agent-to-server": ("network",),
    "agent-to-agent": ("network",),
    "http-server": ("http-server", "network"),
    "page-load": ("page-load", "http-server", "network"),
    "dns-server": ("dns-server",),
}
#: what of a test goes into the envelope
_TEST_FIELDS = ("testId", "testName", "type", "interval", "server", "url", "domain", "port", "targetAgentId")
_SECOND = 1_000_000
_MOST_PAGES = 1000


class ThousandEyesClient:
    """Streams are the alerts and each kind of result of each test."""

    def __init__(self, pull: Pull, **api: Any) -> None:
        assert pull.token is not None  # noqa: S101 - checked in aiops.yaml
        headers = {"Authorization": f"Bearer {pull.token.get_secret_value()}", "Accept": "application/hal+json"}
        self.api = Api(pull, headers, **api)
        self._pull = pull
        self._root = "" if self.api.base.endswith("/v7") else "/v7"
        self._tests: dict[str, dict[str, Any]] = {}
        self._tests_at = float("-inf")

    async def streams(self) -> Sequence[str]:
        await self._know_tests()
        names = [ACTIVE, CLEARED]
        for number, test in self._tests.items():
            if self._wanted(test):
                names += [f"{number} {kind}" for kind in _kinds(test)]
        return names

    async def page(self, stream: str, state: State, turn: Turn) -> Page:
        if stream == ACTIVE:
            return await self._active(state, turn)
        if stream == CLEARED:
            return await self._cleared(state, turn)
        number, _, kind = stream.partition(" ")
        return await self._results(number, kind, state, turn)

    async def _know_tests(self) -> None:
        if time.monotonic() - self._tests_at < TESTS_SECONDS:
            return
        found: dict[str, dict[str, Any]] = {}
        path: str | None = f"{self._root}/tests"
        params: Mapping[str, Any] | None = self._account()
        for _ in range(_MOST_PAGES):
            document = _object((await self.api.ask("GET", str(path), params=params, again=_is_torn)).json())
            for test in _list(document, "tests"):
                found[str(test.get("testId", ""))] = {
                    name: test[name] for name in (*_TEST_FIELDS, "enabled") if name in test
                }
            path, params = _next(document), None
            if path is None:
                break
        self._tests, self._tests_at = found, time.monotonic()

    def _wanted(self, test: Mapping[str, Any]) -> bool:
        if test.get("enabled") is False:
            return False
        return not self._pull.tests or not {str(test.get("testId")), test.get("testName")}.isdisjoint(self._pull.tests)

    async def _results(self, number: str, kind: str, state: State, turn: Turn) -> Page:
        test = self._tests[number]
        interval = int(float(test.get("interval") or 60) * _SECOND)
        if turn.now < state.get("due", 0) and "open" not in state:
            return Page(state)
        # Agents report a round when it is over, and some of them later.
        pace = replace(turn.pace, overlap=max(turn.pace.overlap, interval))
        window = pace.next(state, turn.now, step=_SECOND)
        if window is None:
            return Page(state)
        if window.cursor is not None:
            path, params = window.cursor, None
        else:
            path = f"{self._root}/test-results/{number}/{kind}"
            params = {
                **self._account(),
                "startDate": iso(window.start, whole=True),
                "endDate": iso(window.end, whole=True),
            }
        document = _object((await self.api.ask("GET", path, params=params, again=_is_torn)).json())
        results = _list(document, "results")
        following = _next(document)
        if following is not None:
            page = Page(window.opened(state, following), more=True)
        else:
            # A test gives nothing new before its next round; while catching up there is no waiting.
            due = {"due": turn.now + min(interval, 3600 * _SECOND) // 2} if window.last else {}
            page = Page({**pace.closed(state, window), **due}, more=not window.last)
        self._keep(page, turn, results, "results", kind, [_result_id(number, kind, entry) for entry in results], test)
        return page

    async def _active(self, state: State, turn: Turn) -> Page:
        """All alerts that are active, page by page, then the end of each that is no longer among them."""
        vanished = list(state.get("vanished") or ())
        if vanished:
            return await self._ended(state, vanished, turn)
        cursor = state.get("cursor")
        path = cursor or f"{self._root}/alerts"
        params = None if cursor else {**self._account(), "state": "trigger"}
        document = _object((await self.api.ask("GET", path, params=params, again=_is_torn)).json())
        alerts = _list(document, "alerts")
        found = [*state.get("found", ()), *(_alert_id(alert) for alert in alerts)]
        following = _next(document)
        if following is not None:
            page = Page({**state, "found": found, "cursor": following}, more=True)
        else:
            gone = sorted(set(state.get("active", ())) - set(found))
            page = Page({"active": sorted(set(found)), "vanished": gone}, more=bool(gone))
        self._keep_alerts(page, turn, alerts)
        return page

    async def _ended(self, state: State, vanished: list[str], turn: Turn) -> Page:
        identifier, *others = vanished
        try:
            answer = await self.api.ask("GET", f"{self._root}/alerts/{identifier}", params=self._account())
            alert = {"id": identifier, **_object(answer.json())}
        except ApiError as error:
            if error.status != 404:
                raise
            # It was deleted there: all that is known is that it is over.
            alert = {"id": identifier, "alertState": "clear", "endDate": iso(turn.now, whole=True), "deleted": True}
        page = Page({**state, "vanished": others}, more=bool(others))
        self._keep_alerts(page, turn, [alert])
        return page

    async def _cleared(self, state: State, turn: Turn) -> Page:
        window = turn.pace.next(state, turn.now, step=_SECOND)
        if window is None:
            return Page(state)
        if window.cursor is not None:
            path, params = window.cursor, None
        else:
            path = f"{self._root}/alerts"
            params = {
                **self._account(),
                "state": "clear",
                "startDate": iso(window.start, whole=True),
                "endDate": iso(window.end, whole=True),
            }
        document = _object((await self.api.ask("GET", path, params=params, again=_is_torn)).json())
        following = _next(document)
        if following is not None:
            page = Page(window.opened(state, following), more=True)
        else:
            page = Page(turn.pace.closed(state, window), more=not window.last)
        self._keep_alerts(page, turn, _list(document, "alerts"))
        return page

    def _keep_alerts(self, page: Page, turn: Turn, alerts: list[dict[str, Any]]) -> None:
        self._keep(page, turn, alerts, "alerts", "alerts", [_news_id(alert) for alert in alerts], None)

    def _keep(
        self,
        page: Page,
        turn: Turn,
        records: list[dict[str, Any]],
        name: str,
        kind: str,
        ids: list[str],
        test: Mapping[str, Any] | None,
    ) -> None:
        """Put the records that are new into the page, in their envelope."""
        fresh = turn.fresh(ids)
        new = [record for record, is_new in zip(records, fresh, strict=True) if is_new]
        if not new:
            return
        tests: list[Mapping[str, Any] | None] = [test]
        if test is None:
            tests = [self._tests.get(number) for number in map(_test_of, new)]
        known = {str(entry["testId"]): entry for entry in tests if entry is not None}
        envelope = {"thousandeyes": 7, "kind": kind, "tests": known, "answer": {name: new}}
        page.ids += [identifier for identifier, is_new in zip(ids, fresh, strict=True) if is_new]
        body = orjson.dumps(envelope, option=orjson.OPT_SORT_KEYS)
        page.fetched.append(_delivery(self._pull, body))

    def _account(self) -> dict[str, str]:
        return {"aid": self._pull.account} if self._pull.account else {}


def _delivery(pull: Pull, body: bytes) -> Fetched:
    return fetched(pull, FORMAT, body, {}, "application/json")


def _kinds(test: Mapping[str, Any]) -> tuple[str, ...]:
    return _RESULTS.get(str(test.get("type")), ())


def _result_id(number: str, kind: str, result: Mapping[str, Any]) -> str:
    agent = result.get("agent") or {}
    parts = (number, kind, agent.get("agentId"), result.get("roundId"), result.get("direction"), result.get("server"))
    return "/".join(str(part) for part in parts)


def _alert_id(alert: Mapping[str, Any]) -> str:
    return str(alert.get("id") or alert.get("alertId") or "")


def _news_id(alert: Mapping[str, Any]) -> str:
    """An alert and what of it is news when it changes."""
    state = alert.get("alertState") or alert.get("state")
    severity = alert.get("alertSeverity") or alert.get("severity")
    parts = (_alert_id(alert), state, severity, alert.get("endDate"), (alert.get("meta") or {}).get("version"))
    return "alert/" + "/".join(str(part) for part in parts)


def _test_of(alert: Mapping[str, Any]) -> str:
    """The number of the test of an alert: the end of its link."""
    link = (alert.get("_links") or {}).get("test") or {}
    return str(link.get("href", "")).partition("?")[0].rstrip("/").rpartition("/")[2]


def _next(document: Mapping[str, Any]) -> str | None:
    link = (document.get("_links") or {}).get("next") or {}
    href = link.get("href")
    return href if isinstance(href, str) and href else None


def _object(document: object) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise ApiError("the answer is no object of the API; is 'url' https://api.thousandeyes.com?")
    return document


def _list(document: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = document.get(name)
    if found is None:
        return []
    if not isinstance(found, list):
        raise ApiError(f"the answer holds no list {name!r}")
    return [entry for entry in found if isinstance(entry, dict)]


def _is_torn(body: bytes) -> bool:
    return not body.rstrip().endswith(b"}")
