"""ThousandEyes version 7: tests, results and alerts with cursors in ``_links.next`` and an organisation's limit."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.fakes.serving import Clock, Fake

TOKEN = "te-bearer-0a1b2c3d4e5f"
PAGE = 3
AGENTS = ("London", "Tokyo")


class FakeThousandEyes(Fake):
    """One test of each of two kinds, rounds every 60 s by every agent, shown ``lag`` seconds after their end."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.started = clock()
        self.lag = 20.0
        self.interval = 60
        self.tests = [
            {
                "testId": "101", "testName": "Shop front", "type": "http-server", "interval": 60, "enabled": True,
                "url": "https://shop.example.org/health",
            },
            {
                "testId": "102", "testName": "VPN", "type": "agent-to-server", "interval": 60, "enabled": True,
                "server": "vpn.example.org:443",
            },
            {"testId": "103", "testName": "Off", "type": "agent-to-server", "interval": 60, "enabled": False},
        ]  # fmt: skip
        self.alerts: list[dict[str, Any]] = []
        self._app = Starlette(
            routes=[
                Route("/v7/tests", self._tests),
                Route("/v7/test-results/{test}/{kind}", self._results),
                Route("/v7/alerts", self._alerts),
                Route("/v7/alerts/{alert}", self._alert),
            ]
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)

    def _entered(self, request: Request) -> tuple[Response | None, dict[str, str]]:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return JSONResponse({"error": "invalid_token", "error_description": "Invalid access token"}, 401), {}
        if self.limit is None:
            return None, {}
        allowed, left, ends = self.limit.take(self.clock())
        headers = {
            "x-organization-rate-limit-limit": str(self.limit.most),
            "x-organization-rate-limit-remaining": str(left),
            "x-organization-rate-limit-reset": str(int(ends)),
        }
        if allowed:
            return None, headers
        self.refused += 1
        return JSONResponse({"title": "Too Many Requests", "status": 429}, 429, headers), headers

    async def _tests(self, request: Request) -> Response:
        refused, headers = self._entered(request)
        if refused is not None:
            return refused

        async def answer() -> Response:
            return JSONResponse({"tests": self.tests, "_links": {"self": {"href": self.url}}}, headers=headers)

        return await self.guarded(request, answer)

    def rounds(self) -> list[int]:
        """Starts of the rounds that are shown by now (seconds since the epoch)."""
        first = int(-(-self.started // self.interval) * self.interval)
        last = self.clock() - self.lag - self.interval
        return [at for at in range(first, int(last) + 1, self.interval) if at <= last]

    async def _results(self, request: Request) -> Response:
        refused, headers = self._entered(request)
        if refused is not None:
            return refused
        number, kind = request.path_params["test"], request.path_params["kind"]
        test = next((test for test in self.tests if test["testId"] == number), None)

        async def answer() -> Response:
            if test is None:
                return JSONResponse({"title": "Not Found", "status": 404}, 404)
            start, end = (_seconds(request.query_params[name]) for name in ("startDate", "endDate"))
            shown = [
                {**self.values(kind, at, agent), "agent": {"agentId": str(n), "agentName": agent, "location": agent}}
                for at in self.rounds()
                if start - self.interval <= at < end
                for n, agent in enumerate(AGENTS)
            ]
            return self._page(request, headers, {"results": shown, "test": test}, "results")

        return await self.guarded(request, answer)

    def values(self, kind: str, at: int, agent: str) -> dict[str, Any]:
        common = {"roundId": at, "date": _iso(at), "startTime": at, "endTime": at + self.interval}
        failed = at // self.interval % 10 == 0 and agent == "Tokyo"
        if kind == "network":
            return {**common, "loss": 100.0 if failed else 0.0, "avgLatency": 12.5, "jitter": 0.4, "healthScore": 1.0}
        return {
            **common, "responseCode": 200, "responseTime": 80, "totalTime": 95, "dnsTime": 3, "throughput": 20_000.0,
            "wireSize": 1_400, "errorType": "Connect" if failed else "None",
            **({"errorDetails": "Connection refused"} if failed else {}),
        }  # fmt: skip

    async def _alerts(self, request: Request) -> Response:
        refused, headers = self._entered(request)
        if refused is not None:
            return refused

        async def answer() -> Response:
            wanted = request.query_params.get("state", "trigger")
            shown = [self._of(alert) for alert in self.alerts if self._state(alert) == wanted]
            if wanted == "clear":
                start, end = (_seconds(request.query_params[name]) for name in ("startDate", "endDate"))
                shown = [alert for alert in shown if start <= _seconds(alert["startDate"]) < end]
            return self._page(request, headers, {"alerts": shown}, "alerts")

        return await self.guarded(request, answer)

    async def _alert(self, request: Request) -> Response:
        refused, headers = self._entered(request)
        if refused is not None:
            return refused

        async def answer() -> Response:
            found = next((alert for alert in self.alerts if alert["id"] == request.path_params["alert"]), None)
            if found is None:
                return JSONResponse({"title": "Not Found", "status": 404}, 404)
            return JSONResponse(self._of(found), headers=headers)

        return await self.guarded(request, answer)

    def raise_alert(self, identifier: str, starts: float, ends: float, test: str = "101") -> None:
        """An alert that is active from ``starts`` to ``ends``."""
        self.alerts.append({"id": identifier, "starts": starts, "ends": ends, "test": test})

    def _state(self, alert: dict[str, Any]) -> str:
        now = self.clock()
        return "none" if now < alert["starts"] else "trigger" if now < alert["ends"] else "clear"

    def _of(self, alert: dict[str, Any]) -> dict[str, Any]:
        state = self._state(alert)
        ended = {"endDate": _iso(alert["ends"]), "duration": int(alert["ends"] - alert["starts"])}
        return {
            "id": alert["id"], "alertType": "http-server", "alertState": state, "alertSeverity": "major",
            "alertRuleId": "55", "startDate": _iso(alert["starts"]), "violationCount": 2, "suppressed": False,
            **(ended if state == "clear" else {}),
            "_links": {"test": {"href": f"{self.url}/v7/tests/{alert['test']}"}},
        }  # fmt: skip

    def _page(self, request: Request, headers: dict[str, str], document: dict[str, Any], name: str) -> Response:
        place = int(request.query_params.get("cursor", "0"))
        items = document[name]
        links: dict[str, Any] = {"self": {"href": str(request.url)}}
        if place + PAGE < len(items):
            following = request.url.include_query_params(cursor=place + PAGE)
            links["next"] = {"href": str(following)}
        return JSONResponse({**document, name: items[place : place + PAGE], "_links": links}, headers=headers)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
