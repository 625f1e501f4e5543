"""The gateway app, without a server: what is accepted, what is refused, and who may see what."""

from __future__ import annotations

import asyncio
import errno
import gzip
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from deltalake import write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiops_assets.gateway import keys as keys_module
from aiops_assets.gateway.access import Access
from aiops_assets.gateway.app import Gateway, create_app
from aiops_assets.gateway.keys import create_key, revoke_key
from aiops_assets.incidents.store import IncidentStore
from aiops_assets.landing import writer as writer_module
from aiops_assets.landing.reader import numbers, read_segment
from aiops_assets.landing.segment import Delivery
from aiops_assets.live.progress import Progress, SourceProgress, write_progress
from aiops_assets.observability.metrics import CATALOGUE
from aiops_assets.settings import Settings
from tests.examples import examples

Test = Callable[[Gateway, httpx.AsyncClient], Awaitable[None]]
MAX_BODY = 1000
HTML = {"accept": "text/html"}


def with_gateway(home: Path, test: Test, **changes: Any) -> list[Delivery]:
    """Run a test against a gateway on this home folder, then return what it stored, in order."""

    async def run() -> None:
        async with running(home, **changes) as (gateway, client):
            await test(gateway, client)

    asyncio.run(run())
    folder = home / "landing" / "gateway"
    return [delivery for seq in sorted(numbers(folder, ".seg")) for delivery in read_segment(folder, seq).deliveries]


@asynccontextmanager
async def running(home: Path, **changes: Any) -> AsyncIterator[tuple[Gateway, httpx.AsyncClient]]:
    gateway = create_app(Settings(home=home, gateway_max_body_bytes=MAX_BODY, **changes))
    await gateway.start()
    try:
        transport = httpx.ASGITransport(gateway)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as client:
            yield gateway, client
    finally:
        await gateway.stop()


def admin(home: Path) -> dict[str, str]:
    return {"authorization": f"Bearer {(home / 'keys' / 'admin.key').read_text().strip()}"}


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "Token {}", "Key {}", "X"])
def test_a_key_travels_in_every_usual_way(tmp_path: Path, form: str) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        key = admin(tmp_path)["authorization"].removeprefix("Bearer ")
        headers = {"x-api-key": key} if form == "X" else {"authorization": form.format(key)}
        answer = await client.post("/webhooks/telegraf", content=b"cpu v=1", headers=headers)
        assert answer.status_code == 204
        assert len(answer.headers["x-delivery-id"]) == 26

    (delivery,) = with_gateway(tmp_path, test)
    assert delivery.body == b"cpu v=1"
    assert (delivery.source, dict(delivery.headers)) == ("telegraf", {"format": "telegraf"})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic YTpi"},
        {"x-api-key": ""},
        {"x-api-key": "aiops_00000000_" + "x" * 43},
        {"x-forwarded-for": "127.0.0.1", "forwarded": "for=127.0.0.1", "x-real-ip": "127.0.0.1"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/webhooks/telegraf"),
        ("GET", "/metrics"),
        ("GET", "/ready"),
        ("GET", "/incidents"),
        ("GET", "/nothing"),
    ],
)
def test_without_a_good_key_nothing_is_told(tmp_path: Path, headers: dict[str, str], method: str, path: str) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        answer = await client.request(method, path, content=b"x", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["error"] == "unauthorized"
        assert (await client.get("/health")).json() == {"status": "ok"}

    assert with_gateway(tmp_path, test) == []


def test_a_key_of_one_source_sends_there_and_nowhere_else(tmp_path: Path) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        _, clear = create_key(tmp_path / "keys", "shop", sources=["shop"])
        await asyncio.sleep(0)
        headers = {"x-api-key": clear}
        assert (await client.post("/webhooks/generic", content=b"1", headers=headers)).status_code == 204
        assert (await client.post("/webhooks/telegraf?source=shop", content=b"2", headers=headers)).status_code == 204
        answer = await client.post("/webhooks/generic?source=other", content=b"3", headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (403, "forbidden")
        assert (await client.get("/metrics", headers=headers)).status_code == 403

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys_module, "RELOAD_SECONDS", 0.0)
        found = with_gateway(tmp_path, test)
    assert [(entry.source, entry.body) for entry in found] == [("shop", b"1"), ("shop", b"2")]


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/webhooks/nothing", {}, 404, "not_found"),
        ("/webhooks/", {}, 404, "not_found"),
        ("/webhooks/../telegraf", {}, 404, "not_found"),
        ("/webhooks/telegraf?source=../../x", {}, 400, "bad_source"),
        ("/webhooks/telegraf?source=", {}, 400, "bad_source"),
        ("/webhooks/telegraf?source=a&source=b", {}, 400, "bad_source"),
        ("/webhooks/telegraf?source=%3Cscript%3E", {}, 400, "bad_source"),
        ("/webhooks/telegraf?" + "a=1&" * 40, {}, 400, "bad_query"),
        ("/webhooks/telegraf", {"content-encoding": "compress"}, 415, "unsupported_encoding"),
        ("/webhooks/telegraf", {"idempotency-key": "x" * 201}, 400, "bad_idempotency_key"),
        ("/webhooks/telegraf", {"idempotency-key": "a b"}, 400, "bad_idempotency_key"),
        ("/webhooks/telegraf", {"idempotency-key": ""}, 400, "bad_idempotency_key"),
        ("/webhooks/telegraf", {"content-length": "1001"}, 413, "too_large"),
        ("/webhooks/telegraf", {"content-length": "9" * 30}, 413, "too_large"),
    ],
)
def test_refusals_are_named(tmp_path: Path, path: str, headers: dict[str, str], status: int, code: str) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        answer = await client.post(path, content=b"cpu v=1", headers=admin(tmp_path) | headers)
        assert (answer.status_code, answer.json()["error"]) == (status, code)
        assert answer.json()["message"]

    assert with_gateway(tmp_path, test) == []


def test_only_posts_deliver(tmp_path: Path) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        for method in ("GET", "PUT", "DELETE", "PATCH"):
            answer = await client.request(method, "/webhooks/telegraf", headers=admin(tmp_path))
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")

    assert with_gateway(tmp_path, test) == []


def test_a_body_is_bounded_while_it_streams(tmp_path: Path) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        read = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal read
            while True:
                read += 100
                yield b"x" * 100

        async def exact() -> AsyncIterator[bytes]:
            for _ in range(10):
                yield b"y" * (MAX_BODY // 10)

        answer = await client.post("/webhooks/telegraf", content=endless(), headers=admin(tmp_path))
        assert answer.status_code == 413
        assert read <= MAX_BODY + 200
        answer = await client.post("/webhooks/telegraf", content=exact(), headers=admin(tmp_path))
        assert answer.status_code == 204
        assert gateway.counters.in_flight_bytes == 0

    (delivery,) = with_gateway(tmp_path, test)
    assert delivery.body == b"y" * MAX_BODY


def test_what_the_sender_says_about_the_body_is_kept(tmp_path: Path) -> None:
    body = gzip.compress(b"cpu v=1")

    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        headers = admin(tmp_path) | {
            "content-type": "text/plain; charset=utf-8",
            "content-encoding": "GZIP",
            "idempotency-key": 'shop-"42"\\',
            "x-aiops-history": "1",
            "cookie": "secret=1",
        }
        answer = await client.post("/webhooks/telegraf?source=shop", content=body, headers=headers)
        assert (answer.headers["x-delivery-id"], answer.content) == ('shop-"42"\\', b"")

    (delivery,) = with_gateway(tmp_path, test)
    assert delivery.body == body
    assert delivery.delivery_id == 'shop-"42"\\'
    assert delivery.content_type == "text/plain; charset=utf-8"
    assert dict(delivery.headers) == {
        "format": "telegraf",
        "content-encoding": "gzip",
        "history": "1",
        "idempotency-key": 'shop-"42"\\',
    }


@settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=MAX_BODY), max_size=6), st.sampled_from(["telegraf", "generic", "collected"]))
def test_any_bytes_of_a_known_sender_are_accepted_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[bytes], format_name: str
) -> None:
    home = tmp_path_factory.mktemp("home")

    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        for body in bodies:
            answer = await client.post(f"/webhooks/{format_name}", content=body, headers=admin(home))
            assert answer.status_code == 204

    assert [delivery.body for delivery in with_gateway(home, test)] == bodies


async def status_of(gateway: Gateway, method: str, path: str, query: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    """The status of a request made of these very bytes, past any client that would refuse to send them."""
    state: dict[str, Any] = {}
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query}
    scope |= {"headers": headers, "scheme": "http", "server": ("gateway.test", 80), "root_path": "", "state": state}
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await gateway(scope, receive, send)
    return statuses[0]


@settings(max_examples=examples(40), deadline=None)
@given(
    st.binary(max_size=60),
    st.sampled_from(["authorization", "x-api-key", "cookie", "idempotency-key", "content-type", "origin", "host"]),
    st.binary(max_size=20),
)
def test_no_header_and_no_query_makes_a_server_error(
    tmp_path_factory: pytest.TempPathFactory, value: bytes, name: str, query: bytes
) -> None:
    home = tmp_path_factory.mktemp("home")

    async def test(gateway: Gateway, _client: httpx.AsyncClient) -> None:
        known = [(b"authorization", admin(home)["authorization"].encode())]
        for method, path in (("POST", "/webhooks/telegraf"), ("GET", "/incidents"), ("POST", "/login")):
            for headers in ([], known):
                assert await status_of(gateway, method, path, query, [*headers, (name.encode(), value)]) < 500
                assert (
                    await status_of(gateway, method, path, b"source=" + query, [*headers, (name.encode(), value)]) < 500
                )

    with_gateway(home, test)


def test_a_full_disk_is_said_and_nothing_is_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        headers = admin(tmp_path)
        assert (await client.post("/webhooks/telegraf", content=b"1", headers=headers)).status_code == 204
        for number, code in ((errno.ENOSPC, "disk_full"), (errno.EIO, "not_durable")):
            with monkeypatch.context() as patch:
                patch.setattr(writer_module.os, "writev", _fail_with(number))
                answer = await client.post("/webhooks/telegraf", content=b"2", headers=headers)
            assert (answer.status_code, answer.json()["error"]) == (503, code)
            assert int(answer.headers["retry-after"]) > 0
        assert (await client.post("/webhooks/telegraf", content=b"3", headers=headers)).status_code == 204
        assert gateway.counters.refused == {"disk_full": 1, "not_durable": 1}

    assert [delivery.body for delivery in with_gateway(tmp_path, test)] == [b"1", b"3"]


def _fail_with(number: int) -> Callable[..., int]:
    def fail(*_arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


def test_a_long_backlog_closes_the_intake_until_a_session_has_taken_it(tmp_path: Path) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        headers = admin(tmp_path)
        folder = tmp_path / "landing" / "gateway"
        assert (await client.post("/webhooks/telegraf", content=b"x" * 500, headers=headers)).status_code == 204
        async with asyncio.timeout(10):
            while not numbers(folder, ".seg"):  # noqa: ASYNC110 - files announce nothing
                await asyncio.sleep(0.01)
        await gateway.watch.refresh()
        answer = await client.post("/webhooks/telegraf", content=b"y", headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (503, "backlog")
        assert "retry-after" in answer.headers
        ready = await client.get("/ready", headers=headers)
        assert ready.status_code == 503
        assert {check["name"]: check["ok"] for check in ready.json()["checks"]}["backlog"] is False
        write_progress(tmp_path / "live", Progress(taken={"gateway": 1}))
        await gateway.watch.refresh()
        assert (await client.post("/webhooks/telegraf", content=b"z", headers=headers)).status_code == 204

    found = with_gateway(tmp_path, test, gateway_max_backlog_bytes=400, segment_max_age_seconds=0.05)
    assert [delivery.body[:1] for delivery in found] == [b"x", b"z"]


def test_a_nearly_full_disk_closes_the_intake_before_sessions_starve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        monkeypatch.setattr("aiops_assets.gateway.watch.room", lambda _folder: (10, 20))
        await gateway.watch.refresh()
        answer = await client.post("/webhooks/telegraf", content=b"y", headers=admin(tmp_path))
        assert (answer.status_code, answer.json()["error"]) == (503, "disk_full")

    assert with_gateway(tmp_path, test) == []


def test_metrics_come_in_both_formats_and_only_with_names_of_the_catalogue(tmp_path: Path) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        await client.post("/webhooks/telegraf", content=b"12345", headers=admin(tmp_path))
        await client.post("/webhooks/telegraf", content=b"12345")
        page = await client.get("/metrics", headers=admin(tmp_path))
        assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert 'aiops_gateway_deliveries_total{format="telegraf",source="telegraf"} 1.0' in page.text
        assert 'aiops_gateway_body_bytes_total{format="telegraf",source="telegraf"} 5.0' in page.text
        assert 'aiops_gateway_refused_total{reason="unauthorized"} 1.0' in page.text
        names = {line.split()[2] for line in page.text.splitlines() if line.startswith("# TYPE aiops_")}
        assert names <= set(CATALOGUE)
        accept = {"accept": "application/openmetrics-text; version=1.0.0"}
        page = await client.get("/metrics", headers=admin(tmp_path) | accept)
        assert page.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert page.text.endswith("# EOF\n")

    with_gateway(tmp_path, test)


def test_metrics_tell_of_the_session_the_collector_the_lake_and_the_incidents(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    settings.paths.create()
    progress = Progress(taken={"gateway": 7}, lag={"points": 0.5}, sources={"telegraf": SourceProgress(points=42)})
    write_progress(tmp_path / "live", progress)
    status = {"updated_at": 1, "devices": {'web"1\n': {"ok": True, "duration": 0.5, "points": 3, "slow": False}}}
    (tmp_path / "collector" / "status.json").write_text(json.dumps(status))
    write_deltalake(f"{tmp_path}/lake/alerts", pl.DataFrame({"x": [1, 2, 3]}))
    IncidentStore(settings.paths.operations_url).close()

    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        page = (await client.get("/metrics", headers=admin(tmp_path))).text
        for line in (
            'aiops_live_taken_segment{writer="gateway"} 7.0',
            'aiops_live_lag_seconds{stage="points"} 0.5',
            'aiops_source_points_total{source="telegraf"} 42.0',
            'aiops_collector_device_up{device="web\\"1\\n"} 1.0',
            'aiops_collector_skipped_total{device="web\\"1\\n"} 0.0',
            'aiops_table_rows{table="alerts"} 3.0',
            'aiops_table_files{table="alerts"} 1.0',
            'aiops_incidents{state="open"} 0.0',
        ):
            assert line in page.splitlines()
        ready = (await client.get("/ready", headers=admin(tmp_path))).json()
        assert {check["name"]: check["ok"] for check in ready["checks"]}["operations"]

    with_gateway(tmp_path, test)


def test_ready_names_what_is_missing(tmp_path: Path) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        answer = await client.get("/ready", headers=admin(tmp_path))
        checks = {check["name"]: check for check in answer.json()["checks"]}
        assert checks["landing"]["ok"]
        assert checks["session"]["ok"]
        assert answer.json()["ready"] is all(check["ok"] for check in checks.values())

    with_gateway(tmp_path, test)
    assert not list(tmp_path.glob("*.db")), "asking must not create the database"


async def log_in(client: httpx.AsyncClient, key: str, target: str = "/ready", **headers: str) -> httpx.Response:
    return await client.post("/login", data={"key": key, "next": target}, headers=headers)


def test_a_browser_is_led_to_the_login_and_back(tmp_path: Path) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        answer = await client.get("/ready?a=1&b=2", headers=HTML)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Fready%3Fa%3D1%26b%3D2")
        form = await client.get(answer.headers["location"])
        assert 'value="/ready?a=1&amp;b=2"' in form.text
        key = admin(tmp_path)["authorization"].removeprefix("Bearer ")
        assert (await log_in(client, "wrong")).status_code == 401
        answer = await log_in(client, key, "/ready?a=1&b=2")
        assert (answer.status_code, answer.headers["location"]) == (303, "/ready?a=1&b=2")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert key not in cookie
        assert (await client.get("/ready")).json()["checks"]
        assert (await client.get("/")).headers["location"] == "/incidents"
        assert (await client.post("/webhooks/telegraf", content=b"x")).status_code == 401, "a cookie is no sender"
        await client.get("/logout")
        assert (await client.get("/ready")).status_code == 401

    with_gateway(tmp_path, test)


@pytest.mark.parametrize("target", ["//evil.test", "https://evil.test", "/\\evil.test", "javascript:1", "", "/\n/evil"])
def test_the_login_returns_to_this_site_only(tmp_path: Path, target: str) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        key = admin(tmp_path)["authorization"].removeprefix("Bearer ")
        assert (await log_in(client, key, target)).headers["location"] == "/incidents"
        assert 'value="/incidents"' in (await client.get("/login", params={"next": target})).text

    with_gateway(tmp_path, test)


def test_the_login_page_repeats_nothing_unescaped(tmp_path: Path) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        page = await client.get("/login", params={"next": '/"><script>alert(1)</script>'})
        assert "<script" not in page.text
        assert "default-src 'self'" in page.headers["content-security-policy"]

    with_gateway(tmp_path, test)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "http://evil.test"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://gateway.test", "sec-fetch-site": "cross-site"}, 403),
        ({"origin": "http://gateway.test"}, 303),
        ({"sec-fetch-site": "same-origin"}, 303),
    ],
)
def test_a_change_by_cookie_must_come_from_our_own_page(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        await log_in(client, admin(tmp_path)["authorization"].removeprefix("Bearer "))
        answer = await client.post("/logout", headers=headers)
        assert answer.status_code == status
        by_key = await client.post("/logout", headers=admin(tmp_path))
        assert by_key.status_code == 303

    with_gateway(tmp_path, test)


def test_a_login_form_of_another_site_is_refused(tmp_path: Path) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        key = admin(tmp_path)["authorization"].removeprefix("Bearer ")
        answer = await log_in(client, key, origin="http://evil.test")
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers

    with_gateway(tmp_path, test)


def test_a_link_from_another_site_finds_the_session_after_one_step(tmp_path: Path) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        from_elsewhere = HTML | {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
        answer = await client.get("/ready", headers=from_elsewhere)
        assert answer.status_code == 200
        assert 'http-equiv="refresh"' in answer.text

    with_gateway(tmp_path, test)


def test_a_reader_may_look_and_not_act_and_a_revoked_key_ends_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "RELOAD_SECONDS", 0.0)

    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        key, clear = create_key(tmp_path / "keys", "kim", role="read", sources=[])
        headers = {"x-api-key": clear}
        assert (await client.get("/metrics", headers=headers)).status_code == 200
        assert (await client.post("/logout", headers=headers)).status_code == 403
        assert (await client.post("/webhooks/telegraf", content=b"x", headers=headers)).status_code == 403
        assert (await log_in(client, clear)).status_code == 303
        assert (await client.get("/metrics")).status_code == 200
        revoke_key(tmp_path / "keys", key.id)
        assert (await client.get("/metrics")).status_code == 401

    assert with_gateway(tmp_path, test) == []


def test_a_sender_cannot_log_in(tmp_path: Path) -> None:
    _, clear = create_key(tmp_path / "keys", "shop", sources=["shop"])

    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        assert (await log_in(client, clear)).status_code == 403

    with_gateway(tmp_path, test)


def test_unknown_pages_and_large_forms_are_refused_in_json(tmp_path: Path) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        answer = await client.get("/nothing", headers=admin(tmp_path))
        assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
        answer = await client.post("/health", headers=admin(tmp_path))
        assert (answer.status_code, answer.json()["error"]) == (405, "method_not_allowed")
        answer = await client.post("/login", content=b"x" * 2_000_000)
        assert (answer.status_code, answer.json()["error"]) == (413, "too_large")

    with_gateway(tmp_path, test)


def test_endless_answers_end_when_the_server_stops(tmp_path: Path) -> None:
    gateway = create_app(Settings(home=tmp_path))
    sent: list[Any] = []
    begun = asyncio.Event()

    async def endless(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        begun.set()
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def run() -> None:
        access = Access(endless, gateway.keys, gateway.sessions, gateway.counters)
        key = admin(tmp_path)["authorization"].encode()
        scope = {"type": "http", "method": "GET", "path": "/incidents/events", "query_string": b""}
        scope["headers"] = [(b"authorization", key)]
        task = asyncio.create_task(access(scope, receive, send))  # type: ignore[arg-type]
        await begun.wait()
        assert scope["state"]["principal"].name == "admin"  # type: ignore[index]
        access.end_streams()
        await asyncio.wait_for(task, 5)

    asyncio.run(run())
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
