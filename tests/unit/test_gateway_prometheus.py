"""The Prometheus API of the gateway: Grafana's own requests, who may ask, what bounds an answer."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest

from aiops_assets.gateway import prometheus
from aiops_assets.gateway.app import Gateway, create_app
from aiops_assets.gateway.keys import create_key
from aiops_assets.lake.tables import Lake
from aiops_assets.settings import Settings
from aiops_assets.telemetry.promql.points import Lakeside
from tests import lake_samples
from tests.lake_samples import Stored
from tests.stack import wait_until

Test = Callable[[Gateway, httpx.AsyncClient], Awaitable[None]]
START = 1_772_409_600
FORM = {"content-type": "application/x-www-form-urlencoded"}


def with_gateway(home: Path, test: Test, *series: Stored, **changes: Any) -> None:
    """Run a test against a gateway whose lake has these series; the client sends the first key."""
    settings = Settings(home=home, **changes)
    settings.paths.create()
    if series:
        lake_samples.write(Lake(settings.paths.lake), series)

    async def run() -> None:
        async with running(settings) as (gateway, client):
            await test(gateway, client)

    asyncio.run(run())


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[tuple[Gateway, httpx.AsyncClient]]:
    gateway = create_app(settings)
    await gateway.start()
    key = (settings.paths.keys / "admin.key").read_text().strip()
    transport = httpx.ASGITransport(gateway)
    try:
        async with httpx.AsyncClient(
            transport=transport, base_url="http://gateway.test", headers={"authorization": f"Bearer {key}"}
        ) as client:
            yield gateway, client
    finally:
        await gateway.stop()


def fleet(hosts: int = 3, minutes: int = 120) -> list[Stored]:
    ts = START * 1000 + np.arange(minutes) * 60_000
    found = []
    for host in range(hosts):
        values = np.full(minutes, host / 10)
        found.append(Stored(f"web-{host}", "system.cpu.utilization", ts, values, {"cpu": "0"}, "1"))
        counts = np.arange(minutes, dtype=float) * 60
        found.append(Stored(f"web-{host}", "http.server.requests", ts, counts, {}, "{request}", kind="counter"))
    return found


def test_grafanas_health_check_is_answered(tmp_path: Path) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        answer = await client.post("/api/v1/query", content="query=1%2B1&time=1772409600.123", headers=FORM)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == {
            "status": "success",
            "data": {"resultType": "scalar", "result": [1772409600.123, "2"]},
        }
        build = (await client.get("/api/v1/status/buildinfo")).json()
        assert build["data"]["version"] == "2.42.0"

    with_gateway(tmp_path, test)


def test_a_panel_of_grafana_is_a_posted_range_query(tmp_path: Path) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        form = (
            "query=avg+by+%28host%29+%28system_cpu_utilization%7Bhost%3D~%22web-0%7Cweb-2%22%7D%29"
            f"&start={START}&end={START + 3600}&step=15"
        )
        answer = await client.post("/api/v1/query_range", content=form, headers=FORM)
        data = answer.json()["data"]
        assert data["resultType"] == "matrix"
        assert [entry["metric"] for entry in data["result"]] == [{"host": "web-0"}, {"host": "web-2"}]
        assert data["result"][1]["values"][0] == [START, "0.2"]
        assert len(data["result"][1]["values"]) == 241
        rate = f"query=rate(http_server_requests[1m0s])&start={START}&end={START + 600}&step=1m"
        answer = await client.post("/api/v1/query_range", content=rate, headers=FORM)
        assert {entry["values"][-1][1] for entry in answer.json()["data"]["result"]} == {"1"}

    with_gateway(tmp_path, test, *fleet())


def test_variables_of_grafana_are_filled(tmp_path: Path) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        times = {"start": str(START), "end": str(START + 3600)}

        async def data(path: str, **parameters: Any) -> Any:
            return (await client.get(f"/api/v1/{path}", params={**times, **parameters})).json()["data"]

        assert await data("label/host/values") == ["web-0", "web-1", "web-2"]
        assert await data("label/host/values", **{"match[]": "http_server_requests{host!='web-0'}"}) == [
            "web-1",
            "web-2",
        ]
        assert await data("label/__name__/values") == ["http_server_requests", "system_cpu_utilization"]
        assert await data("label/__name__/values", limit="1") == ["http_server_requests"]
        assert await data("labels", **{"match[]": "http_server_requests"}) == ["__name__", "host", "source", "unit"]
        answer = await client.post(
            "/api/v1/series", content="match%5B%5D=system_cpu_utilization&start=1772409600&end=1772413200", headers=FORM
        )
        assert answer.json()["data"][0] == {
            "__name__": "system_cpu_utilization",
            "cpu": "0",
            "host": "web-0",
            "source": "test",
            "unit": "1",
        }
        assert (await client.post("/api/v1/labels", content="", headers=FORM)).status_code == 200
        assert (await client.get("/api/v1/query_exemplars", params={"query": "up", **times})).json()["data"] == []
        assert (await client.get("/api/v1/rules")).json()["data"] == {"groups": []}
        assert (await client.get("/api/v1/alerts")).json()["data"] == {"alerts": []}

    with_gateway(tmp_path, test, *fleet())


def test_only_series_with_points_in_the_range_are_listed(tmp_path: Path) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        async def hosts(start: int, end: int) -> Any:
            answer = await client.get("/api/v1/label/host/values", params={"start": start, "end": end})
            return answer.json()["data"]

        assert await hosts(START, START + 600) == ["early"]
        assert await hosts(START + 3600, START + 7200) == ["late"]
        assert await hosts(START, START + 7200) == ["early", "late"]
        assert await hosts(START + 36_000, START + 40_000) == []

    early = Stored("early", "m", [START * 1000], [1.0])
    late = Stored("late", "m", [START * 1000 + 3_700_000], [1.0])
    with_gateway(tmp_path, test, early, late)


def test_metadata_tells_kind_unit_and_our_own_name(tmp_path: Path) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        data = (await client.get("/api/v1/metadata")).json()["data"]
        assert data["http_server_requests"] == [
            {"type": "counter", "help": "http.server.requests", "unit": "{request}"}
        ]
        assert data["system_cpu_utilization"] == [{"type": "gauge", "help": "system.cpu.utilization", "unit": "1"}]
        only = (await client.get("/api/v1/metadata", params={"metric": "nothing"})).json()["data"]
        assert only == {}

    with_gateway(tmp_path, test, *fleet())


def test_a_key_is_needed_and_travels_as_bearer_or_basic(tmp_path: Path) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        _, reader = create_key(tmp_path / "keys", "grafana", role="read")
        _, sender = create_key(tmp_path / "keys", "sender", role="send")
        await asyncio.to_thread(time.sleep, 1.1)  # keys are read again after a second

        async def ask(method: str, path: str, authorization: str) -> int:
            answer = await client.request(method, path, headers={**FORM, "authorization": authorization})
            return answer.status_code

        basic = base64.b64encode(f"anybody:{reader}".encode()).decode()
        for path in ("/api/v1/query?query=1", "/api/v1/labels"):
            for method in ("GET", "POST"):
                assert await ask(method, path, f"Bearer {reader}") == 200
                assert await ask(method, path, f"Basic {basic}") == 200
                assert await ask(method, path, f"Bearer {sender}") == 403
                assert await ask(method, path, "Basic %%%") == 401
                assert await ask(method, path, f"Basic {base64.b64encode(reader.encode()).decode()}") == 401
                assert await ask(method, path, "Bearer nothing") == 401
        assert await ask("GET", "/federate?match[]=up", f"Basic {basic}") == 200
        assert await ask("GET", "/federate?match[]=up", "") == 401
        assert await ask("POST", "/api/silences", f"Bearer {reader}") in {403, 405}

    with_gateway(tmp_path, test)


@pytest.mark.parametrize(
    ("path", "status", "kind", "text"),
    [
        ("query?query=holt_winters(x[5m],1,1)", 400, "bad_data", "holt_winters"),
        ("query?query=sum(", 400, "bad_data", "unclosed"),
        ("query", 400, "bad_data", "no expression"),
        ("query?query=1&time=never", 400, "bad_data", "time"),
        ("query?query=1&limit=-1", 400, "bad_data", "limit"),
        ("query?query=1&boundaries=both", 400, "bad_data", "boundaries"),
        ("query?query=1&lookback_delta=x", 400, "bad_data", "lookback_delta"),
        ("query_range?query=1&start=0&end=9", 400, "bad_data", "step"),
        ("query_range?query=1&start=0&end=99999&step=1", 400, "bad_data", "11,000"),
        ("query_range?query=m[5m]&start=0&end=9&step=1", 400, "bad_data", "range vector"),
        ("query?query=m{a=~%22[%22}", 400, "bad_data", "regex"),
        ("query?query=label_replace(up,%22a-b%22,%22%22,%22%22,%22%22)", 422, "execution", "label name"),
        ("query?query=system_cpu_utilization&time=1772409600&timeout=0", 503, "timeout", "timed out"),
        ("series", 400, "bad_data", "match[]"),
        ("series?match[]=m[5m]", 400, "bad_data", "match[]"),
        ("label/a-b/values", 400, "bad_data", "label name"),
        ("labels?start=9&end=1", 400, "bad_data", "end"),
        ("query?query=%FF", 400, "bad_data", "form"),
        ("query?" + "&".join(["a=1"] * 2000), 400, "bad_data", "form"),
        ("query?query=1" + "%2B1" * 1000, 400, "bad_data", "at most"),
    ],
)
def test_a_refusal_has_prometheus_form(tmp_path: Path, path: str, status: int, kind: str, text: str) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        answer = await client.get(f"/api/v1/{path}")
        assert answer.status_code == status
        body = answer.json()
        assert (body["status"], body["errorType"]) == ("error", kind)
        assert text in body["error"]

    with_gateway(tmp_path, test, *fleet(1, 10))


def test_a_limit_cuts_the_series_of_an_answer(tmp_path: Path) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        parameters = {"query": "system_cpu_utilization", "time": START, "limit": 2}
        answer = await client.get("/api/v1/query", params=parameters)
        assert [entry["metric"]["host"] for entry in answer.json()["data"]["result"]] == ["web-0", "web-1"]

    with_gateway(tmp_path, test, *fleet())


def test_the_samples_of_a_query_are_bounded(tmp_path: Path) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        parameters = {"query": "system_cpu_utilization", "start": START, "end": START + 7200, "step": 60}
        answer = await client.get("/api/v1/query_range", params=parameters)
        assert answer.status_code == 422
        assert "AIOPS_PROMETHEUS_MAX_SAMPLES" in answer.json()["error"]

    with_gateway(tmp_path, test, *fleet(), prometheus_max_samples=100)


def test_the_federation_page_has_the_newest_points(tmp_path: Path) -> None:
    now = time.time_ns() // 1_000_000

    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        answer = await client.get("/federate", params={"match[]": ["system_cpu_utilization", '{host="b"}']})
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert answer.text.splitlines() == [
            "# TYPE http_server_requests counter",
            f'http_server_requests{{host="b",instance="",note="a\\"b\\\\",source="test"}} 5 {now}',
            "# TYPE system_cpu_utilization gauge",
            f'system_cpu_utilization{{host="a",instance="",source="test"}} 0.5 {now - 1000}',
        ]
        assert (await client.get("/federate", params={"match[]": "rate(x[5m])"})).status_code == 400
        assert (await client.get("/federate")).text == ""

    with_gateway(
        tmp_path,
        test,
        Stored("a", "system.cpu.utilization", [now - 9000, now - 1000], [0.1, 0.5]),
        Stored("a", "old.one", [now - 900_000], [1]),
        Stored("b", "http.server.requests", [now], [5], {"note": 'a"b\\'}, kind="counter"),
        Stored("b", "system.cpu.utilization", [now - 400_000], [0.9]),
    )


class Gate:
    """Holds every query back at the dictionary of series until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.open = threading.Semaphore(0), threading.Event()
        original = Lakeside.index

        def index(lakeside: Lakeside) -> Any:
            self.entered.release()
            assert self.open.wait(20)
            return original(lakeside)

        monkeypatch.setattr(Lakeside, "index", index)


def test_queries_beyond_those_that_may_wait_are_refused_and_deliveries_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    monkeypatch.setattr(prometheus, "MAX_WAITING", 1)

    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        asked = [asyncio.create_task(client.get("/api/v1/query", params={"query": "up"})) for _ in range(3)]
        await asyncio.to_thread(wait_until, lambda: gateway.prometheus.pending == 3, 10, "three queries are under way")
        refused = await client.get("/api/v1/query", params={"query": "up"})
        assert (refused.status_code, refused.json()["errorType"]) == (503, "unavailable")
        delivered = await client.post("/webhooks/telegraf", content=b"cpu v=1")
        assert delivered.status_code == 204
        gate.open.set()
        assert [answer.status_code for answer in await asyncio.gather(*asked)] == [200, 200, 200]

    with_gateway(tmp_path, test)


def test_a_query_whose_client_has_gone_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    ended: list[str] = []
    finished = threading.Event()
    original = prometheus._guarded

    def guarded(*arguments: Any) -> bytes:
        try:
            return original(*arguments)
        except prometheus.QueryError as error:
            ended.append(error.kind)
            raise
        finally:
            finished.set()

    monkeypatch.setattr(prometheus, "_guarded", guarded)

    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        messages: list[Any] = [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]

        async def receive() -> Any:
            if len(messages) == 1:
                await asyncio.to_thread(gate.entered.acquire)
            return messages.pop(0)

        async def send(_message: Any) -> None:
            pass

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/api/v1/query",
            "query_string": b"query=system_cpu_utilization&time=1772409600",
            "headers": [(b"authorization", client.headers["authorization"].encode())],
        }
        await asyncio.wait_for(gateway(scope, receive, send), 10)
        gate.open.set()

        assert await asyncio.to_thread(finished.wait, 10)
        assert ended == ["canceled"]

    with_gateway(tmp_path, test, *fleet())


def test_a_fault_is_an_internal_error_and_no_more_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_lakeside: Lakeside) -> Any:
        raise pl.exceptions.ComputeError("secret path")

    monkeypatch.setattr(Lakeside, "index", broken)

    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        answer = await client.get("/api/v1/query", params={"query": "up"})
        assert answer.status_code == 500
        assert answer.json()["errorType"] == "internal"
        assert "secret" not in answer.text

    with_gateway(tmp_path, test)
