"""Sentry SDK envelopes: framing, and what every type of item becomes."""

from __future__ import annotations

import base64
import gzip
import random
import zlib
from functools import partial
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops_assets.formats import parse
from aiops_assets.formats.batch import Parsed
from tests.examples import examples
from tests.unit.mutations import NOW, accounted, damaged, delivery, entities, external, odd_value, rows

SENT = "2026-11-20T08:00:00.000000Z"
MICROS = 1_795_161_600_000_000
HEADER: dict[str, Any] = {
    "event_id": "9ec79c33ec9942ab8353589fcb2e04dc",
    "dsn": "https://abc@gateway.example/42",
    "sent_at": SENT,
    "trace": {"trace_id": "0af7651916cd43dd8448eb211c80319c", "environment": "prod", "release": "shop@1.2"},
}
TRACE = {"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331"}
ERROR: dict[str, Any] = {
    "event_id": "9ec79c33ec9942ab8353589fcb2e04dc",
    "timestamp": SENT,
    "platform": "python",
    "level": "error",
    "server_name": "web-1",
    "release": "shop@1.2",
    "environment": "prod",
    "transaction": "GET /pay",
    "tags": {"service": "checkout"},
    "exception": {"values": [{"type": "KeyError", "value": "'x'", "mechanism": {"handled": True}}]},
    "contexts": {"trace": TRACE},
    "breadcrumbs": {"values": [{"message": "clicked", "category": "ui", "level": "info", "data": {"password": "p"}}]},
}
MESSAGE: dict[str, Any] = {
    "event_id": "1" * 32,
    "level": "warning",
    "logentry": {"message": "disk %s", "params": ["full"], "formatted": "disk full"},
    "server_name": "web-1",
}
TRANSACTION: dict[str, Any] = {
    "type": "transaction",
    "event_id": "2" * 32,
    "transaction": "GET /pay",
    "start_timestamp": "2026-11-20T08:00:00Z",
    "timestamp": "2026-11-20T08:00:00.250000Z",
    "server_name": "web-1",
    "release": "shop@1.2",
    "contexts": {"trace": TRACE | {"op": "http.server", "status": "internal_error", "data": {"http.status": 500}}},
    "spans": [
        {
            "span_id": "a" * 16,
            "parent_span_id": "b7ad6b7169203331",
            "trace_id": TRACE["trace_id"],
            "op": "db.query",
            "description": "select 1",
            "start_timestamp": MICROS / 1e6 + 0.1,
            "timestamp": MICROS / 1e6 + 0.2,
            "status": "ok",
        }
    ],
    "measurements": {"lcp": {"value": 100.0, "unit": "millisecond"}},
}
ATTRS = {"release": "shop@1.2", "environment": "prod", "ip_address": "203.0.113.9"}
SESSION: dict[str, Any] = {
    "sid": "7c7b6585-f901-4351-bf8d-02711b721929",
    "did": "jo@example.com",
    "init": True,
    "started": SENT,
    "timestamp": SENT,
    "status": "crashed",
    "errors": 2,
    "duration": 60.5,
    "attrs": ATTRS,
}
SESSIONS: dict[str, Any] = {
    "aggregates": [
        {"started": "2026-11-20T07:58:00Z", "exited": 100, "errored": 3},
        {"started": "2026-11-20T07:59:00Z", "exited": 50, "crashed": 1},
    ],
    "attrs": ATTRS,
}
REPORT = {"timestamp": SENT, "discarded_events": [{"reason": "queue_overflow", "category": "error", "quantity": 23}]}
CHECK_IN: dict[str, Any] = {
    "check_in_id": "83a7c03ed0a04e1b97e2e3b18d38f244",
    "monitor_slug": "nightly",
    "status": "error",
    "duration": 10.5,
    "environment": "prod",
    "release": "shop@1.2",
}
LOGS: dict[str, Any] = {
    "items": [
        {
            "timestamp": MICROS / 1e6,
            "trace_id": TRACE["trace_id"],
            "level": "warn",
            "severity_number": 13,
            "body": "slow",
            "attributes": {
                "server.address": {"value": "web-1", "type": "string"},
                "sentry.release": {"value": "shop@1.2", "type": "string"},
                "user.email": {"value": "jo@example.com", "type": "string"},
                "took": {"value": 3.5, "type": "double"},
            },
        }
    ]
}
SPANS: dict[str, Any] = {
    "items": [
        {
            "trace_id": TRACE["trace_id"],
            "span_id": "c" * 16,
            "parent_span_id": None,
            "name": "GET /users",
            "status": "ok",
            "is_segment": True,
            "start_timestamp": MICROS / 1e6,
            "end_timestamp": MICROS / 1e6 + 1.5,
            "attributes": {"sentry.op": {"value": "http.client", "type": "string"}},
        }
    ]
}
METRICS: dict[str, Any] = {
    "items": [
        {
            "timestamp": MICROS / 1e6,
            "name": "pay.latency",
            "type": "distribution",
            "value": 12.5,
            "unit": "millisecond",
            "attributes": {"route": {"value": "/pay", "type": "string"}, "user.id": {"value": "7", "type": "string"}},
        }
    ]
}
FEEDBACK: dict[str, Any] = {
    "event_id": "3" * 32,
    "timestamp": SENT,
    "contexts": {
        "feedback": {
            "message": "It broke",
            "contact_email": "jo@example.com",
            "name": "Jo",
            "associated_event_id": "4" * 32,
        }
    },
}


def item(kind: str, payload: object, length: bool = True, **headers: Any) -> bytes:
    body = payload if isinstance(payload, bytes) else orjson.dumps(payload)
    told = {"type": kind, **({"length": len(body)} if length else {}), **headers}
    return orjson.dumps(told) + b"\n" + body + b"\n"


def envelope(*items: bytes, header: dict[str, Any] | None = None) -> bytes:
    return orjson.dumps(HEADER if header is None else header) + b"\n" + b"".join(items)


def read(*items: bytes, header: dict[str, Any] | None = None) -> Parsed:
    return parse("sentry_envelope", [delivery(envelope(*items, header=header), {"project": "42"})])


def test_an_error_is_an_error_event() -> None:
    parsed = read(item("event", ERROR))
    (row,) = parsed.errors.to_dicts()
    assert (row["event_id"], row["project"], row["host"]) == (ERROR["event_id"], "42", "web-1")
    assert (row["type"], row["value"], row["culprit"], row["handled"]) == ("KeyError", "'x'", "GET /pay", True)
    assert (row["service"], row["severity_number"], row["ts"]) == ("checkout", 17, MICROS)
    assert (row["trace_id"], row["span_id"]) == (TRACE["trace_id"], TRACE["span_id"])
    assert orjson.loads(row["attributes"])["breadcrumbs"] == [{"category": "ui", "level": "info", "message": "clicked"}]
    assert entities(parsed) == {"web-1": ("host", None, []), "checkout": ("service", None, ["web-1"])}


def test_a_message_is_an_error_event_without_a_type() -> None:
    (row,) = read(item("event", MESSAGE)).errors.to_dicts()
    assert (row["type"], row["value"], row["severity_number"]) == ("", "disk full", 13)
    assert row["ts"] == MICROS
    assert row["environment"] == "prod"


@pytest.mark.parametrize(
    ("resource", "service"),
    [
        ({"service.name": "cart"}, "cart"),
        ({"service.name": "node", "service.namespace": "sentry"}, "shop"),
        ({"service.name": "unknown_service:node"}, "shop"),
    ],
)
def test_services_that_sdks_invent_are_not_taken_for_services(resource: dict[str, str], service: str) -> None:
    event = ERROR | {"tags": {}, "contexts": {"otel": {"resource": resource}}}
    assert read(item("event", event)).errors["service"].to_list() == [service]


def test_the_culprit_is_the_innermost_frame_of_the_application() -> None:
    frames = [
        {"function": "a", "module": "app.main", "in_app": True},
        {"function": "b", "module": "lib", "in_app": False},
    ]
    value = {"type": "E", "value": "v", "stacktrace": {"frames": frames}}
    (row,) = read(item("event", {"exception": {"values": [value]}})).errors.to_dicts()
    assert row["culprit"] == "app.main in a"


def test_long_stacks_keep_their_innermost_frames() -> None:
    frames = [{"function": f"f{number}", "context_line": "x" * 5_000} for number in range(500)]
    value = {"type": "RecursionError", "value": "v", "stacktrace": {"frames": frames}}
    (row,) = read(item("event", {"exception": {"values": [value]}})).errors.to_dicts()
    stack = orjson.loads(row["stack"])
    assert stack[-1]["function"] == "f499"
    assert len(row["stack"]) < 65_536


def test_a_transaction_is_spans() -> None:
    parsed = read(item("transaction", TRANSACTION))
    root, child = parsed.spans.to_dicts()
    assert (root["name"], root["kind"], root["status"], root["status_message"]) == (
        "GET /pay", "server", "error", "internal_error",
    )  # fmt: skip
    assert (root["ts"], root["duration"]) == (MICROS, 0.25)
    assert (child["name"], child["kind"], child["status"]) == ("select 1", "client", "ok")
    assert child["parent_span_id"] == root["span_id"]
    assert {root["service"], child["service"]} == {"shop"}
    assert orjson.loads(root["attributes"])["measurements"]["lcp"]["value"] == 100.0


def test_spans_sent_alone_are_spans() -> None:
    alone = TRANSACTION["spans"][0] | {"data": {"sentry.release": "shop@1.2", "sentry.op": "ui.click"}}
    parsed = read(item("span", SPANS, item_count=1, content_type="application/vnd.sentry.items.span.v2+json"))
    (row,) = parsed.spans.to_dicts()
    assert (row["name"], row["kind"], row["duration"], row["service"]) == ("GET /users", "client", 1.5, "shop")
    (row,) = read(item("span", alone)).spans.to_dicts()
    assert (row["name"], row["service"]) == ("select 1", "shop")


def test_a_bad_span_is_rejected_alone() -> None:
    bad = TRANSACTION | {"spans": [TRANSACTION["spans"][0], {"span_id": "zz"}]}
    parsed = read(item("transaction", bad))
    assert parsed.spans.height == 2
    assert "start_timestamp" in parsed.rejects[0].reason


def test_sessions_are_points() -> None:
    parsed = read(item("session", SESSION))
    found = {metric: (unit, value) for _, metric, unit, _, _, _, value in rows(parsed)}
    assert found == {
        "sentry.sessions": ("{session}", 1.0),
        "sentry.session.duration": ("s", 60.5),
        "sentry.session.errors": ("{error}", 2.0),
    }
    assert {labels for *_, labels, _, _ in rows(parsed)} == {
        '{"environment":"prod","release":"shop@1.2","status":"crashed"}'
    }
    assert {host for host, *_ in rows(parsed)} == {"shop"}


def test_sessions_of_one_millisecond_stay_apart() -> None:
    others = [item("session", SESSION | {"sid": str(number)}) for number in range(5)]
    stamps = {ts for _, metric, *_, ts, _ in rows(read(*others)) if metric == "sentry.sessions"}
    assert len(stamps) > 1
    assert all(MICROS <= ts < MICROS + 1_000 for ts in stamps)


def test_session_aggregates_are_summed_by_status() -> None:
    found = {labels: (ts, value) for *_, labels, ts, value in rows(read(item("sessions", SESSIONS)))}
    assert {orjson.loads(labels)["status"]: told for labels, told in found.items()} == {
        "exited": (MICROS, 150.0),
        "errored": (MICROS, 3.0),
        "crashed": (MICROS, 1.0),
    }


def test_client_reports_count_what_was_discarded() -> None:
    ((host, metric, unit, _, labels, ts, value),) = rows(read(item("client_report", REPORT)))
    assert (host, metric, unit, ts, value) == ("shop", "sentry.discarded", "{event}", MICROS, 23.0)
    assert labels == '{"category":"error","reason":"queue_overflow"}'


def test_check_ins_fire_and_resolve() -> None:
    parsed = read(*(item("check_in", CHECK_IN | {"status": status}) for status in ("in_progress", "error", "ok")))
    fired, resolved = external(parsed)
    assert fired["key"] == resolved["key"] == "check_in:42:prod:nightly"
    assert (fired["state"], resolved["state"]) == ("firing", "resolved")
    assert parsed.logs["body"].to_list() == [f"check-in of nightly: {s}" for s in ("in_progress", "error", "ok")]


def test_log_records_are_log_events() -> None:
    (row,) = read(item("log", LOGS, item_count=1, content_type="application/vnd.sentry.items.log+json")).logs.to_dicts()
    assert (row["host"], row["app"], row["body"], row["severity_number"]) == ("web-1", "shop", "slow", 13)
    assert (row["ts"], row["trace_id"]) == (MICROS, TRACE["trace_id"])
    attributes = orjson.loads(row["attributes"])
    assert attributes["took"] == 3.5
    assert "example.com" not in attributes["user.email"]


def test_metrics_are_points_without_labels_of_people() -> None:
    assert rows(read(item("trace_metric", METRICS))) == [
        ("shop", "pay.latency", "ms", "gauge", '{"route":"/pay"}', MICROS, 12.5)
    ]


def test_statsd_lines_are_points() -> None:
    lines = b"clicks@none:3:4|c|#page:/a,release:shop@1.2|T1795161600\nload@byte:1:2:6|d|T1795161600\nbad\n"
    parsed = read(item("statsd", lines))
    assert [(metric, unit, value) for _, metric, unit, _, _, _, value in rows(parsed)] == [
        ("clicks", "1", 7.0),
        ("load.count", "", 3.0),
        ("load.sum", "By", 9.0),
        ("load.min", "By", 1.0),
        ("load.max", "By", 6.0),
    ]
    assert "expected a metric" in parsed.rejects[0].reason


def test_feedback_keeps_the_words_and_not_the_person() -> None:
    old = {"event_id": "4" * 32, "name": "Jo", "email": "jo@example.com", "comments": "It broke"}
    parsed = read(item("feedback", FEEDBACK), item("user_report", old))
    first, second = parsed.logs.to_dicts()
    assert first["body"] == second["body"] == "It broke"
    assert orjson.loads(first["attributes"])["about"] == orjson.loads(second["attributes"])["about"] == "4" * 32
    assert "jo@" not in repr(parsed.logs.to_dicts())


@pytest.mark.parametrize(
    "kind", ["attachment", "profile", "profile_chunk", "replay_event", "replay_recording", "new_kind"]
)
def test_what_has_no_table_is_named_with_its_size(kind: str) -> None:
    parsed = read(item("event", ERROR), item(kind, b"\x00bin\nary\n", filename="dump.bin"))
    (row,) = parsed.logs.to_dicts()
    assert row["body"] == f"{kind} dump.bin: 9 bytes, not stored as rows"
    assert orjson.loads(row["attributes"])["bytes"] == 9
    assert parsed.errors.height == 1


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("newline", [b"\n", b""])
def test_items_are_framed_by_length_or_by_line(length: bool, newline: bytes) -> None:
    items = item("event", ERROR, length) + item("session", SESSION, length) + item("event", MESSAGE, length)
    parsed = parse("sentry_envelope", [delivery(envelope(items[:-1] + newline))])
    assert (parsed.errors.height, parsed.rejects) == (2, [])


def test_empty_lines_and_empty_payloads_do_not_confuse_framing() -> None:
    parsed = read(b"\n", item("attachment", b""), b"\n\n", item("event", ERROR))
    assert (parsed.logs.height, parsed.errors.height, parsed.rejects) == (1, 1, [])


@pytest.mark.parametrize("pack", [gzip.compress, lambda body: base64.b64encode(zlib.compress(body))])
def test_packed_bodies_are_unpacked(pack: Any) -> None:
    assert parse("sentry_envelope", [delivery(pack(envelope(item("event", ERROR))))]).errors.height == 1


def test_a_bare_event_of_the_store_endpoint_is_read() -> None:
    parsed = parse("sentry_envelope", [delivery(ERROR, {"project": "42"}), delivery(orjson.dumps(ERROR) + b"\n")])
    assert parsed.errors["event_id"].to_list() == [ERROR["event_id"]] * 2


def test_the_project_is_that_of_the_address_else_of_the_dsn() -> None:
    body = envelope(item("event", ERROR))
    parsed = parse("sentry_envelope", [delivery(body, {"project": "7"}), delivery(body)])
    assert parsed.errors["project"].to_list() == ["7", "42"]


def test_times_that_are_missing_are_those_of_sending_or_receipt() -> None:
    bare = {name: value for name, value in SESSION.items() if name != "timestamp"}
    assert rows(read(item("session", bare), header={}))[0][5] == NOW
    assert read(item("event", MESSAGE), header={}).errors["ts"].to_list() == [None]


def test_a_bad_item_is_rejected_alone_and_can_be_sent_again() -> None:
    parsed = read(item("event", b"{nope"), item("event", ERROR))
    assert parsed.errors.height == 1
    (reject,) = parsed.rejects
    assert reject.reason.startswith("event: not JSON")
    again = parse("sentry_envelope", [delivery(reject.content)])
    assert again.rejects[0].reason == reject.reason


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"nope",
        b"{}\n{}",
        b'{}\n{"type":"event","length":99}\n{}',
        b'{}\n{"type":"event","length":1}\n{}\n',
        b"eJx!",
    ],
)
def test_what_is_no_envelope_is_rejected_whole(body: bytes) -> None:
    (reject,) = parse("sentry_envelope", [delivery(body)]).rejects
    assert reject.content == body


ITEMS: dict[str, Any] = {
    "event": ERROR,
    "transaction": TRANSACTION,
    "session": SESSION,
    "sessions": SESSIONS,
    "client_report": REPORT,
    "check_in": CHECK_IN,
    "log": LOGS,
    "span": SPANS,
    "trace_metric": METRICS,
    "feedback": FEEDBACK,
}


@given(st.integers(0, 2**32), st.lists(st.sampled_from(sorted(ITEMS)), min_size=1, max_size=3), st.booleans())
@settings(max_examples=examples(500), deadline=None)
def test_damaged_envelopes_are_rows_or_rejects(seed: int, names: list[str], in_bytes: bool) -> None:
    chance = random.Random(seed)
    values = [ITEMS[name] if in_bytes else odd_value(ITEMS[name], chance) for name in names]
    body = envelope(*(item(name, json_of(value)) for name, value in zip(names, values, strict=True)))
    body = damaged(body, chance) if in_bytes else body
    accounted(
        partial(parse, "sentry_envelope"), [delivery(body, {"project": "42"}), delivery(envelope(item("event", ERROR)))]
    )


def json_of(value: object) -> bytes:
    import json

    return json.dumps(value).encode()
