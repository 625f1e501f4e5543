"""The ways in of other people's protocols: paths, keys, what is kept, and answers in each protocol's own words."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import time
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiops_assets.formats.batch import Parsed, Reject
from aiops_assets.gateway import keys as keys_module
from aiops_assets.gateway import otlp
from aiops_assets.gateway.answers import unavailable
from aiops_assets.gateway.app import Gateway
from aiops_assets.gateway.elastic import MAX_ITEMS, answered_items
from aiops_assets.gateway.endpoints import SOURCES, Endpoints, route
from aiops_assets.gateway.journal import whole_entries
from aiops_assets.gateway.keys import create_key
from aiops_assets.gateway.protocol import HANG_UP
from aiops_assets.landing.segment import Delivery
from tests.examples import examples
from tests.unit.test_gateway_app import MAX_BODY, admin, status_of, with_gateway

CLOSED = unavailable("backlog", "too much waits", 15)


def key_of(home: Path) -> str:
    return admin(home)["authorization"].removeprefix("Bearer ")


def basic(key: str) -> str:
    return "Basic " + base64.b64encode(f"aiops:{key}".encode()).decode()


@pytest.mark.parametrize(
    ("path", "format_name", "kept"),
    [
        ("/webhooks/alertmanager", "alertmanager", {}),
        ("/webhooks/alertmanager/", "alertmanager", {}),
        ("/webhooks/telegraf?precision=ms&db=x", "telegraf", {"precision": "ms", "query": "precision=ms&db=x"}),
        (
            "/webhooks/text?host=web-1&app=shop",
            "text",
            {"host": "web-1", "app": "shop", "query": "host=web-1&app=shop"},
        ),
        ("/webhooks/generic?token=S3CRET&a=1", "generic", {"query": "a=1"}),
        ("/api/42/envelope/", "sentry_envelope", {"project": "42", "endpoint": "envelope"}),
        ("/api/42/store", "sentry_envelope", {"project": "42", "endpoint": "store"}),
        ("/v1/metrics", "otlp_metrics", {}),
        ("/v1/logs", "otlp_logs", {}),
        ("/v1/traces", "otlp_traces", {}),
        ("/api/v1/write", "remote_write", {}),
        ("/api/put", "netdata", {}),
        ("/write?db=telegraf&precision=s&p=S3CRET", "telegraf", {"precision": "s", "query": "db=telegraf&precision=s"}),
        ("/api/v2/write?bucket=b", "telegraf", {"query": "bucket=b"}),
        ("/services/collector", "hec", {}),
        ("/services/collector/event/1.0", "hec", {}),
        (
            "/services/collector/raw?host=web-1&source=%2Fvar%2Flog&sourcetype=st&index=main&time=1&token=x",
            "hec_raw",
            {"host": "web-1", "query": "host=web-1&source=%2Fvar%2Flog&sourcetype=st&index=main&time=1"},
        ),
        ("/_bulk", "elastic_bulk", {}),
        ("/logs-shop/_bulk", "elastic_bulk", {"index": "logs-shop"}),
        ("/syslog/events/_bulk", "elastic_bulk", {"index": "syslog"}),
        ("/upload", "journal", {}),
    ],
)
def test_every_path_leads_to_its_format(tmp_path: Path, path: str, format_name: str, kept: dict[str, str]) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        answer = await client.post(path, content=b'{"a": 1}', headers=admin(tmp_path))
        assert answer.status_code in {200, 204, 400}
        if not path.startswith("/v1/"):
            assert answer.status_code != 400

    (delivery,) = with_gateway(tmp_path, test)
    assert delivery.source == SOURCES.get(format_name, format_name)
    assert dict(delivery.headers) == {"format": format_name, **kept}
    assert delivery.body == b'{"a": 1}'


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/api/42/envelope/", {"x-sentry-auth": "Sentry sentry_version=7, sentry_key={}, sentry_client=x/1"}),
        ("/api/42/envelope/?sentry_version=7&sentry_key={}", {}),
        ("/api/42/envelope/", {"authorization": "Sentry sentry_key={}"}),
        ("/services/collector", {"authorization": "Splunk {}"}),
        ("/services/collector", {"authorization": "splunk {}"}),
        ("/services/collector?token={}", {}),
        ("/services/collector", {"authorization": "basic"}),
        ("/v1/logs", {"authorization": "Bearer {}"}),
        ("/v1/logs", {"x-api-key": "{}"}),
        ("/api/v1/write", {"authorization": "basic"}),
        ("/_bulk", {"authorization": "basic"}),
        ("/_bulk", {"authorization": "apikey"}),
        ("/_bulk", {"authorization": "ApiKey {}"}),
        ("/upload", {"authorization": "basic"}),
    ],
)
def test_a_key_travels_as_each_protocol_carries_it_and_is_kept_nowhere(
    tmp_path: Path, path: str, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        key = key_of(tmp_path)
        whole = {"basic": basic(key), "apikey": "ApiKey " + base64.b64encode(f"id:{key}".encode()).decode()}
        own = {name: whole.get(value, value.format(key)) for name, value in headers.items()}
        answer = await client.post(path.format(key), content=b'{"a": 1}\n', headers=own)
        assert answer.status_code in {200, 204, 400}, answer.text
        assert key not in answer.text
        wrong = {name: value.replace(key, "wrong") for name, value in own.items() if name != "authorization"}
        answer = await client.post(path.format("wrong"), content=b"{}", headers=wrong)
        assert answer.status_code in {401, 403}

    (delivery,) = with_gateway(tmp_path, test)
    key = key_of(tmp_path)
    assert key not in repr(delivery)
    assert key not in caplog.text


def test_each_protocol_says_in_its_own_words_that_a_key_is_missing_or_wrong(tmp_path: Path) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        async def said(path: str, **headers: str) -> tuple[int, Any]:
            answer = await client.post(path, content=b"{}", headers={"content-type": "application/json", **headers})
            return answer.status_code, answer.json()

        hec = "/services/collector/event"
        assert await said(hec) == (401, {"text": "Token is required", "code": 2})
        assert await said(hec, authorization="Negotiate x") == (401, {"text": "Invalid authorization", "code": 3})
        assert await said(hec, authorization="Splunk x") == (403, {"text": "Invalid token", "code": 4})
        status, body = await said("/api/42/envelope/")
        assert (status, body["detail"][:29]) == (401, "missing authorization informa")
        assert (await said("/api/42/envelope/?sentry_key=x"))[0] == 403
        assert await said("/v1/metrics") == (401, {"code": 16, "message": (await said("/v1/metrics"))[1]["message"]})
        status, body = await said("/_bulk")
        assert (status, body["status"], body["error"]["type"]) == (401, 401, "security_exception")
        status, body = await said("/api/v1/write")
        assert (status, body["error"]) == (401, "unauthorized")

    assert with_gateway(tmp_path, test) == []


def test_a_key_of_another_source_is_refused_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "RELOAD_SECONDS", 0.0)

    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        _, clear = create_key(tmp_path / "keys", "two", sources=["a", "b"])
        for path in ("/v1/logs", "/_bulk", "/upload", "/api/v1/write", "/services/collector", "/api/1/envelope/"):
            answer = await client.post(path, content=b"{}", headers={"x-api-key": clear})
            assert answer.status_code == 403, path
        _, clear = create_key(tmp_path / "keys", "one", sources=["shop"])
        answer = await client.post("/services/collector?source=other", content=b"{}", headers={"x-api-key": clear})
        assert answer.status_code == 200

    (delivery,) = with_gateway(tmp_path, test)
    assert (delivery.source, delivery.headers["query"]) == ("shop", "source=other")


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/webhooks/telegraf", 503, {"error": "backlog", "message": "too much waits"}),
        ("/api/v1/write", 503, {"error": "backlog", "message": "too much waits"}),
        ("/v1/traces", 503, {"code": 14, "message": "too much waits"}),
        ("/services/collector/raw", 503, {"text": "Server is busy", "code": 9}),
        ("/api/42/envelope/", 429, {"detail": "too much waits", "causes": []}),
        ("/_bulk", 429, None),
    ],
)
def test_a_closed_intake_says_to_each_client_what_makes_it_wait_and_repeat(
    tmp_path: Path, path: str, status: int, body: object
) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        gateway._intake.closed = CLOSED
        headers = admin(tmp_path) | {"content-type": "application/json"}
        answer = await client.post(path, content=b'{"index":{"_id":"7"}}\n{}\n', headers=headers)
        assert (answer.status_code, answer.headers["retry-after"]) == (status, "15")
        if body is not None:
            assert answer.json() == body
        if path.startswith("/api/42"):
            assert answer.headers["x-sentry-rate-limits"] == "15::organization"
        if path == "/_bulk":
            (item,) = answer.json()["items"]
            assert (answer.json()["errors"], item["index"]["status"], item["index"]["_id"]) == (True, 429, "7")
        assert gateway.counters.in_flight_bytes == 0
        health = await client.get("/services/collector/health")
        assert (health.status_code, health.json()["code"]) == (503, 18)
        gateway._intake.closed = None
        health = await client.get("/services/collector/health")
        assert (health.status_code, health.json()["code"]) == (200, 17)

    assert with_gateway(tmp_path, test) == []


@pytest.mark.parametrize("path", ["/webhooks/generic", "/v1/logs", "/services/collector", "/_bulk", "/api/1/envelope/"])
def test_too_much_is_413_in_every_protocol(tmp_path: Path, path: str) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield b"x" * 100

        for content in (b"x" * (MAX_BODY + 1), pieces()):
            answer = await client.post(path, content=content, headers=admin(tmp_path))
            assert answer.status_code == 413
        assert gateway.counters.in_flight_bytes == 0

    assert with_gateway(tmp_path, test) == []


def test_bodies_stay_packed_as_they_came(tmp_path: Path) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        for encoding in ("gzip", "deflate", "br", "zstd", "snappy", "X-Gzip", "identity"):
            headers = admin(tmp_path) | {"content-encoding": encoding}
            answer = await client.post("/webhooks/generic", content=encoding.encode(), headers=headers)
            assert answer.status_code == 204
        for encoding in ("compress", "gzip, gzip"):
            headers = admin(tmp_path) | {"content-encoding": encoding}
            answer = await client.post("/v1/logs", content=b"x", headers=headers)
            assert answer.status_code == 415

    found = with_gateway(tmp_path, test)
    assert [one.headers.get("content-encoding") for one in found] == [
        "gzip",
        "deflate",
        "br",
        "zstd",
        "snappy",
        "gzip",
        None,
    ]


def test_cloudevents_keep_their_headers(tmp_path: Path) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        event = {"ce-id": "1", "ce-source": "/shop", "ce-type": "deploy", "CE-Subject": "x" * 2000, "x-other": "no"}
        answer = await client.post("/webhooks/cloudevents", content=b"{}", headers=admin(tmp_path) | event)
        assert answer.status_code == 204

    (delivery,) = with_gateway(tmp_path, test)
    assert dict(delivery.headers) == {
        "format": "cloudevents",
        "ce-id": "1",
        "ce-source": "/shop",
        "ce-type": "deploy",
        "ce-subject": "x" * 1024,
    }


# Splunk HEC


def test_hec_acknowledges_what_is_durable_also_from_before_a_restart(tmp_path: Path) -> None:
    given_out: list[int] = []

    async def before(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        headers = admin(tmp_path) | {"x-splunk-request-channel": "11111111-1111-1111-1111-111111111111"}
        for _ in range(3):
            answer = await client.post("/services/collector", content=b'{"event": 1}', headers=headers)
            assert (answer.json()["text"], answer.json()["code"]) == ("Success", 0)
            given_out.append(answer.json()["ackId"])
        answer = await client.post("/services/collector", content=b'{"event": 1}', headers=admin(tmp_path))
        assert answer.json() == {"text": "Success", "code": 0}

    async def after(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        later = given_out[-1] + 3_600_000_000
        asked = {"acks": [*given_out, later]}
        answer = await client.post("/services/collector/ack?channel=1", json=asked, headers=admin(tmp_path))
        assert answer.json() == {"acks": {**{str(ack): True for ack in given_out}, str(later): False}}
        answer = await client.post("/services/collector/ack", json=asked, headers=admin(tmp_path))
        assert (answer.status_code, answer.json()["code"]) == (400, 10)
        for wrong in (b"", b"[]", b'{"acks": 1}', b'{"acks": ["a"]}', b'{"acks": [true]}'):
            answer = await client.post("/services/collector/ack?channel=1", content=wrong, headers=admin(tmp_path))
            assert (answer.status_code, answer.json()["code"]) == (400, 6)
        assert (await client.post("/services/collector/ack?channel=1", json=asked)).json()["code"] == 2

    assert len(with_gateway(tmp_path, before)) == 4
    assert sorted(given_out) == given_out
    assert len(set(given_out)) == 3
    with_gateway(tmp_path, after)


def test_hec_without_data_is_said_and_poison_is_taken(tmp_path: Path) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        answer = await client.post("/services/collector", content=b"", headers=admin(tmp_path))
        assert (answer.status_code, answer.json()) == (400, {"text": "No data", "code": 5})
        answer = await client.post("/services/collector", content=b"{broken", headers=admin(tmp_path))
        assert answer.json() == {"text": "Success", "code": 0}
        answer = await client.get("/services/collector", headers=admin(tmp_path))
        assert answer.status_code == 405

    assert [one.body for one in with_gateway(tmp_path, test)] == [b"{broken"]


# OTLP


def with_parser(monkeypatch: pytest.MonkeyPatch, rejects: list[tuple[int, str, bytes | None]]) -> None:
    def parsed(_format: str, deliveries: list[Delivery]) -> Parsed:
        whole = deliveries[0].body
        found = [Reject(0, at, why, whole if content is None else content) for at, why, content in rejects]
        return Parsed(rejects=found)

    monkeypatch.setattr(otlp, "parse", parsed)


def test_otlp_says_nothing_more_when_all_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_parser(monkeypatch, [])

    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        for content_type, expected in (("application/x-protobuf", b""), ("application/json", b"{}"), (None, b"{}")):
            headers = admin(tmp_path) | ({"content-type": content_type} if content_type else {})
            answer = await client.post("/v1/metrics", content=b"{}", headers=headers)
            assert (answer.status_code, answer.content) == (200, expected)
            assert answer.headers["content-type"] == (content_type or "application/json")
        answer = await client.post("/v1/metrics", content=b"", headers=admin(tmp_path))
        assert (answer.status_code, answer.content) == (200, b"")

    assert len(with_gateway(tmp_path, test)) == 3


@pytest.mark.parametrize(
    ("path", "name"),
    [("/v1/metrics", "rejectedDataPoints"), ("/v1/logs", "rejectedLogRecords"), ("/v1/traces", "rejectedSpans")],
)
def test_otlp_tells_how_many_were_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, name: str
) -> None:
    with_parser(monkeypatch, [(0, "no time", b"a"), (9, "no time (299 rejects joined)", b"b")])

    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        json_headers = admin(tmp_path) | {"content-type": "application/json; charset=utf-8"}
        answer = await client.post(path, content=b"{}", headers=json_headers)
        assert answer.json() == {"partialSuccess": {name: "300", "errorMessage": "no time"}}
        headers = admin(tmp_path) | {"content-type": "application/x-protobuf"}
        answer = await client.post(path, content=b"xx", headers=headers)
        assert answer.status_code == 200
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

        partial = ExportMetricsServiceResponse.FromString(answer.content).partial_success
        assert (partial.rejected_data_points, partial.error_message) == (300, "no time")

    assert len(with_gateway(tmp_path, test)) == 2


def test_otlp_that_cannot_be_decoded_is_refused_for_good_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_parser(monkeypatch, [(0, "not protobuf", None)])

    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

        headers = admin(tmp_path) | {"content-type": "application/x-protobuf"}
        answer = await client.post("/v1/logs", content=b"\xff\xff", headers=headers)
        status = Status.FromString(answer.content)
        assert (answer.status_code, status.code) == (400, 3)
        assert "quarantine" in status.message
        assert "not protobuf" in status.message

    assert [one.body for one in with_gateway(tmp_path, test)] == [b"\xff\xff"]


def test_a_parser_that_fails_costs_an_exporter_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_format: str, _deliveries: list[Delivery]) -> Parsed:
        raise ZeroDivisionError

    monkeypatch.setattr(otlp, "parse", broken)

    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/logs", content=b"{}", headers=admin(tmp_path))
        assert (answer.status_code, answer.content) == (200, b"{}")

    assert len(with_gateway(tmp_path, test)) == 1
    assert "could not be looked at" in caplog.text


def test_otlp_that_unpacks_to_a_lot_is_taken_without_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "MAX_UNPACKED_BYTES", 100)
    with_parser(monkeypatch, [(0, "not protobuf", None)])

    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        headers = admin(tmp_path) | {"content-type": "application/x-protobuf", "content-encoding": "gzip"}
        answer = await client.post("/v1/logs", content=gzip.compress(bytes(10_000)), headers=headers)
        assert (answer.status_code, answer.content) == (200, b"")

    assert len(with_gateway(tmp_path, test)) == 1


def test_otlp_looks_only_while_it_has_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def slow(delivery: Delivery) -> tuple[list[Reject], float]:
        looked.append(delivery.delivery_id)
        return [], 1.5

    monkeypatch.setattr(otlp, "_look", slow)

    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        for _ in range(10):
            assert (await client.post("/v1/logs", content=b"{}", headers=admin(tmp_path))).status_code == 200

    assert len(with_gateway(tmp_path, test)) == 10
    assert len(looked) == 2


# Sentry


def envelope(event_id: str) -> bytes:
    return b'{"event_id":"%s","sent_at":"2026-01-01T00:00:00Z"}\n{"type":"event"}\n{}\n' % event_id.encode()


@pytest.mark.parametrize("encoding", ["", "gzip", "deflate"])
def test_sentry_sdks_get_the_id_of_their_event_back(tmp_path: Path, encoding: str) -> None:
    event_id = "9ec79c33ec9942ab8353589fcb2e04dc"

    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        body = envelope(event_id)
        body = {"gzip": gzip.compress, "deflate": zlib.compress}.get(encoding, lambda data: data)(body)
        headers = admin(tmp_path) | ({"content-encoding": encoding} if encoding else {})
        answer = await client.post("/api/42/envelope/", content=body, headers=headers)
        assert (answer.status_code, answer.json()) == (200, {"id": event_id})
        assert answer.headers["access-control-allow-origin"] == "*"
        answer = await client.post("/api/42/envelope/", content=b"\xff\x1f\x8b", headers=admin(tmp_path))
        assert (answer.status_code, answer.json()) == (200, {})
        answer = await client.options("/api/42/envelope/")
        assert (answer.status_code, answer.headers["access-control-allow-methods"]) == (200, "POST")

    assert len(with_gateway(tmp_path, test)) == 2


def test_a_project_may_send_so_many_envelopes_a_minute(tmp_path: Path) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        statuses: dict[str, list[int]] = {"1": [], "2": []}
        for _ in range(4):
            for project, found in statuses.items():
                path = f"/api/{project}/envelope/"
                answer = await client.post(path, content=envelope("a" * 32), headers=admin(tmp_path))
                found.append(answer.status_code)
        assert all(set(found) <= {200, 429} and found.count(200) >= 3 for found in statuses.values())
        assert answer.status_code == 429
        assert 0 < int(answer.headers["retry-after"]) <= 61
        assert answer.headers["x-sentry-rate-limits"] == f"{answer.headers['retry-after']}::organization"

    # A minute may begin in between; then another three are let in.
    assert 6 <= len(with_gateway(tmp_path, test, sentry_max_per_minute=3)) <= 8


SECRET = "c1ient-secret"


def signed(body: bytes, secret: str = SECRET, **changes: str) -> dict[str, str]:
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {
        "sentry-hook-signature": digest,
        "sentry-hook-timestamp": str(int(time.time())),
        "sentry-hook-resource": "event_alert",
        "request-id": "r-1",
    } | changes


def test_a_signed_webhook_needs_no_key_and_comes_once(tmp_path: Path) -> None:
    body = b'{"action": "triggered"}'
    (tmp_path / "aiops.yaml").write_text(f"sources: {{sentry: {{secret: {SECRET}}}}}\n")

    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        for _ in range(3):
            answer = await client.post("/webhooks/sentry", content=body, headers=signed(body))
            assert answer.status_code == 204
        other = signed(body, **{"request-id": "r-2"})
        assert (await client.post("/webhooks/sentry", content=body, headers=other)).status_code == 204

    found = with_gateway(tmp_path, test)
    assert [one.headers["request-id"] for one in found] == ["r-1", "r-2"]
    assert [one.delivery_id for one in found] == ["r-1", "r-2"]
    assert found[0].headers["sentry-hook-resource"] == "event_alert"
    assert "sentry-hook-signature" not in found[0].headers
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"sentry-hook-signature": "0" * 64}, 401, "bad_signature"),
        ({"sentry-hook-signature": "x"}, 401, "bad_signature"),
        ({"sentry-hook-timestamp": str(int(time.time()) - 3000)}, 401, "stale"),
        ({"sentry-hook-timestamp": str(int(time.time()) + 3000)}, 401, "stale"),
        ({"sentry-hook-timestamp": "now"}, 401, "stale"),
        ({"sentry-hook-timestamp": "9" * 19}, 401, "stale"),
        ({"request-id": "a b"}, 400, "bad_request_id"),
    ],
)
def test_a_webhook_that_is_forged_or_old_is_refused(
    tmp_path: Path, changes: dict[str, str], status: int, code: str
) -> None:
    (tmp_path / "aiops.yaml").write_text(f"sources: {{sentry: {{secret: {SECRET}}}}}\n")

    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        body = b"{}"
        answer = await client.post("/webhooks/sentry", content=body, headers=signed(body, **changes))
        assert (answer.status_code, answer.json()["error"]) == (status, code)
        answer = await client.post("/webhooks/sentry", content=b"[]", headers=signed(body))
        assert (answer.status_code, answer.json()["error"]) == (401, "bad_signature")
        assert (await client.post("/webhooks/sentry", content=body)).status_code == 401

    assert with_gateway(tmp_path, test) == []


def test_a_new_secret_is_in_force_without_a_restart(tmp_path: Path) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        async def said(source: str, secret: str) -> tuple[int, str]:
            body = json.dumps({"secret": secret}).encode()
            headers = signed(body, secret, **{"request-id": secret})
            answer = await client.post(f"/webhooks/sentry?source={source}", content=body, headers=headers)
            return answer.status_code, answer.json()["error"] if answer.content else ""

        assert await said("shop", "one") == (403, "no_secret")
        (tmp_path / "aiops.yaml").write_text("sources: {shop: {secret: one}}\n")
        assert await said("shop", "one") == (204, "")
        (tmp_path / "aiops.yaml").write_text("sources: {shop: {secret: another}}\n")
        assert await said("shop", "one") == (401, "bad_signature")
        assert await said("shop", "another") == (204, "")
        (tmp_path / "aiops.yaml").write_text("sources: [\n")
        assert await said("shop", "another-again") == (401, "bad_signature")

    assert [one.source for one in with_gateway(tmp_path, test)] == ["shop", "shop"]


# Elasticsearch bulk


def test_a_bulk_request_gets_one_item_for_each_action(tmp_path: Path) -> None:
    lines = [
        {"index": {"_index": "logs", "_id": "1"}},
        {"message": "a"},
        {"create": {}},
        {"create": {"not": "an action"}},
        {"delete": {"_id": "3"}},
        {"update": {"_id": "4"}},
        {"doc": {}},
    ]

    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        body = "\n".join(map(json.dumps, lines)).encode() + b"\n\n"
        for content, encoding in ((body, "identity"), (gzip.compress(body), "gzip")):
            headers = admin(tmp_path) | {"content-encoding": encoding, "content-type": "application/x-ndjson"}
            answer = await client.post("/logs-shop/_bulk", content=content, headers=headers)
            assert (answer.status_code, answer.json()["errors"]) == (200, False)
            assert answer.headers["x-elastic-product"] == "Elasticsearch"
            found = [(*item, *item.values()) for item in answer.json()["items"]]
            assert [(name, item["_index"], item["status"]) for name, item in found] == [
                ("index", "logs", 201),
                ("create", "logs-shop", 201),
                ("delete", "logs-shop", 200),
                ("update", "logs-shop", 200),
            ]
            assert found[0][1]["_id"] == "1"
        for poison in (b"{", b"\xff\n\xff\n", b"[1]\n{}"):
            answer = await client.post("/_bulk", content=poison, headers=admin(tmp_path))
            assert (answer.status_code, len(answer.json()["items"])) == (200, 1)
        answer = await client.post("/_bulk", content=b"", headers=admin(tmp_path))
        assert (answer.status_code, answer.json()["status"]) == (400, 400)

    assert len(with_gateway(tmp_path, test)) == 5


def test_a_shipper_that_hears_only_silence_gets_none_of_our_words(tmp_path: Path) -> None:
    async def test(gateway: Gateway, _client: httpx.AsyncClient) -> None:
        gateway._intake.closed = CLOSED
        heard: list[str] = []
        messages: list[dict[str, Any]] = [{"type": "http.request", "body": b"{}\n{}\n"}, {"type": "http.disconnect"}]

        async def receive() -> dict[str, Any]:
            return messages.pop(0)

        async def send(message: Any) -> None:
            heard.append(message["type"])

        scope = {"type": "http", "method": "POST", "path": "/_bulk", "query_string": b""}
        scope["headers"] = [(b"x-api-key", key_of(tmp_path).encode())]
        scope["extensions"] = {HANG_UP: {"close": lambda: heard.append("closed")}}
        await gateway(scope, receive, send)
        assert heard == ["closed"]
        assert gateway.counters.in_flight_bytes == 0

    assert with_gateway(tmp_path, test) == []


def test_shippers_find_an_elasticsearch_and_people_find_their_pages(tmp_path: Path) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        for method in ("GET", "HEAD"):
            answer = await client.request(method, "/", headers={"authorization": basic(key_of(tmp_path))})
            assert (answer.status_code, answer.headers["x-elastic-product"]) == (200, "Elasticsearch")
        answer = await client.get("/", headers=admin(tmp_path))
        assert answer.json()["version"]["number"].startswith("8.")
        for path in ("/_license", "/_cat/health", "/_cluster/health"):
            assert (await client.get(path, headers=admin(tmp_path))).status_code == 200
            assert (await client.get(path)).status_code == 401
        assert (await client.get("/", headers={"authorization": basic("wrong")})).status_code == 401
        answer = await client.get("/", headers=admin(tmp_path) | {"accept": "text/html,*/*"})
        assert answer.status_code in {303, 307}
        answer = await client.get("/", headers={"accept": "text/html"})
        assert answer.status_code == 303
        assert (await client.get("/")).status_code == 401

    assert with_gateway(tmp_path, test) == []


def test_what_a_bulk_answer_may_cost_is_bounded() -> None:
    bomb = Delivery("1", 0, "elastic", "", gzip.compress(bytes(80 << 20)), {"content-encoding": "gzip"})
    assert answered_items(bomb) == []
    many = Delivery("1", 0, "elastic", "", b'{"delete":{}}\n' * (MAX_ITEMS + 10), {})
    assert len(answered_items(many)) == MAX_ITEMS
    blank = Delivery("1", 0, "elastic", "", b"\n" * 1_000_000 + b'{"index":{}}\n\n{}\n\n', {})
    assert len(answered_items(blank)) == 1


# journals


def entry(number: int, size: int = 5) -> bytes:
    binary = b"\n\nX=" * size
    return b"__CURSOR=s=%d\nMESSAGE\n" % number + len(binary).to_bytes(8, "little") + binary + b"\nPRIORITY=6\n\n"


@given(st.lists(st.integers(0, 60), max_size=12), st.integers(0, 4000))
def test_a_journal_is_cut_between_entries_whatever_they_hold(sizes: list[int], at: int) -> None:
    entries = [entry(number, size) for number, size in enumerate(sizes)]
    data = b"".join(entries)[:at]
    ends = [sum(map(len, entries[:count])) for count in range(len(entries) + 1)]
    assert whole_entries(data) == max(end for end in ends if end <= len(data))


@given(st.binary(max_size=400))
def test_what_is_no_journal_is_cut_somewhere(data: bytes) -> None:
    assert 0 <= whole_entries(data) <= len(data)


def test_a_journal_may_be_longer_than_any_body(tmp_path: Path) -> None:
    entries = [entry(number) for number in range(200)]
    whole = b"".join(entries)

    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(whole), 333):
                yield whole[start : start + 333]

        answer = await client.post("/upload", content=pieces(), headers=admin(tmp_path))
        assert answer.status_code == 204
        assert gateway.counters.in_flight_bytes == 0
        answer = await client.post("/upload", content=b"", headers=admin(tmp_path))
        assert answer.status_code == 204

        async def endless_line() -> AsyncIterator[bytes]:
            for _ in range(30):
                yield b"x" * 100

        answer = await client.post("/upload", content=endless_line(), headers=admin(tmp_path))
        assert answer.status_code == 413

    found = with_gateway(tmp_path, test)
    assert len(found) > len(whole) // MAX_BODY
    assert b"".join(one.body for one in found) == whole
    assert all(len(one.body) <= MAX_BODY and one.body.endswith(b"\n\n") for one in found)
    assert len({one.delivery_id for one in found}) == len(found)


# everything at once


def test_remote_write_2_is_sent_back_to_1_and_netdata_may_have_nothing_to_say(tmp_path: Path) -> None:
    async def test(_gateway: Gateway, client: httpx.AsyncClient) -> None:
        kind = "application/x-protobuf;proto={}"
        for message, status in (("io.prometheus.write.v2.Request", 415), ("prometheus.WriteRequest", 204)):
            headers = admin(tmp_path) | {"content-type": kind.format(message), "content-encoding": "snappy"}
            assert (await client.post("/api/v1/write", content=b"x", headers=headers)).status_code == status
        assert (await client.post("/api/put", content=b"[\n\n]\n", headers=admin(tmp_path))).status_code == 204

    assert [one.headers["format"] for one in with_gateway(tmp_path, test)] == ["remote_write"]


PATHS = [
    "/webhooks/sentry",
    "/webhooks/cloudevents",
    "/api/42/envelope/",
    "/api/42/store/",
    "/v1/metrics",
    "/v1/logs",
    "/v1/traces",
    "/api/v1/write",
    "/api/put",
    "/services/collector",
    "/services/collector/raw",
    "/services/collector/ack",
    "/services/collector/health",
    "/_bulk",
    "/x/_bulk",
    "/upload",
    "/_license",
    "/",
]
NAMES = ["authorization", "x-sentry-auth", "content-type", "content-encoding", "x-splunk-request-channel"]
NAMES += ["sentry-hook-signature", "sentry-hook-timestamp", "request-id", "ce-id", "idempotency-key", "content-length"]


@settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(PATHS), st.sampled_from(NAMES), st.binary(max_size=40)), min_size=5, max_size=25
    ),
    st.binary(max_size=30),
)
def test_no_request_makes_a_server_error(
    tmp_path_factory: pytest.TempPathFactory, requests: list[tuple[str, str, bytes]], query: bytes
) -> None:
    home = tmp_path_factory.mktemp("home")

    async def test(gateway: Gateway, _client: httpx.AsyncClient) -> None:
        known = [(b"x-api-key", key_of(home).encode())]
        for path, name, value in requests:
            for method in ("POST", "GET", "OPTIONS", "HEAD"):
                for headers in ([], known):
                    own = [*headers, (name.encode(), value)]
                    assert await status_of(gateway, method, path, query, own) < 500
        assert gateway.counters.in_flight_bytes == 0

    with_gateway(home, test)


@given(st.text(max_size=60))
def test_every_path_is_a_page_or_an_endpoint(path: str) -> None:
    endpoints = Endpoints(frozenset({"generic"}))
    try:
        found = endpoints.find(path)
        assert found is None or found.kept.get("format", found.format) == found.format
        for name in ("envelope", "store"):
            assert endpoints.find(f"/api/incidents/{path}/{name}") is None
    finally:
        endpoints.close()


def test_what_names_no_source_belongs_to_the_shipped_one_of_its_format() -> None:
    expected = {"otlp_logs": "otlp", "remote_write": "prometheus", "hec_raw": "hec", "elastic_bulk": "elastic"}
    assert {name: SOURCES[name] for name in expected} == expected
    assert (SOURCES["telegraf"], SOURCES["sentry_envelope"], SOURCES["generic"]) == ("telegraf", "sentry", "generic")


def test_pages_keep_their_paths() -> None:
    endpoints = Endpoints(frozenset({"generic"}))
    for path in (
        "/incidents",
        "/api/incidents/1",
        "/api/incidents/1/acknowledge",
        "/api/v1/query",
        "/health",
        "/metrics",
    ):
        assert endpoints.find(path) is None
    endpoints.close()


@given(st.binary(max_size=60))
def test_no_query_is_more_than_it_says(query: bytes) -> None:
    endpoints = Endpoints(frozenset({"generic"}))
    try:
        for path in ("/webhooks/generic", "/services/collector"):
            endpoint = endpoints.find(path)
            assert endpoint is not None
            found = route(endpoint, query + b"&token=S3CRET&sentry_key=S3CRET")
            assert "S3CRET" not in repr(getattr(found, "kept", ""))
    finally:
        endpoints.close()
