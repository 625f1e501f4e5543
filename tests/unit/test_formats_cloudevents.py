"""CloudEvents in all three modes: changes, rows of the generic format, or log events; known by source and id."""

from __future__ import annotations

import base64
from functools import partial
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops_assets.formats import parse
from aiops_assets.landing.segment import Delivery
from tests.examples import examples
from tests.unit.mutations import NOW, accounted, delivery, entities, external, mutated, rows

MICROS = 1_795_161_600_000_000
EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "type": "com.example.backup.failed",
    "source": "https://backup.example:8443/jobs",
    "id": "A234-1234",
    "time": "2026-11-20T08:00:00Z",
    "subject": "db-1",
    "datacontenttype": "application/json",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "data": {"message": "backup failed", "severity": "error", "bytes": 7},
}
POINTS = EVENT | {"type": "com.example.reading", "data": [{"metric": "temp", "value": 21.5, "unit": "Cel"}]}
DEPLOYED: dict[str, Any] = {
    "specversion": "1.0",
    "type": "dev.cdevents.service.deployed.0.1.1",
    "source": "/event/source/123",
    "id": "271069a8",
    "time": "2026-11-20T08:00:00Z",
    "data": {
        "context": {"version": "0.3.0", "id": "271069a8", "timestamp": "2026-11-20T07:59:00Z"},
        "subject": {
            "id": "shop",
            "type": "service",
            "content": {"environment": {"id": "prod"}, "artifactId": "pkg:oci/shop@sha256:0b31"},
        },
    },
}


def binary(event: dict[str, Any], body: bytes, content_type: str = "application/json") -> Delivery:
    return delivery(body, {f"ce-{name}": value for name, value in event.items()}, content_type)


def test_an_event_is_a_log_event_known_by_source_and_id() -> None:
    parsed = parse("cloudevents", [delivery(EVENT)])
    (event,) = parsed.logs.to_dicts()
    assert event["event_id"] == "https://backup.example:8443/jobs#A234-1234"
    assert (event["host"], event["app"], event["body"]) == ("db-1", "com.example.backup.failed", "backup failed")
    assert (event["severity_number"], event["ts"]) == (17, MICROS)
    assert event["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert event["span_id"] == "b7ad6b7169203331"
    assert orjson.loads(event["attributes"])["data"] == EVENT["data"]


def test_all_three_modes_give_the_same_row() -> None:
    own = {name: value for name, value in EVENT.items() if name != "data"}
    headers = {name: value for name, value in own.items() if name != "datacontenttype"}
    packed = own | {"data_base64": base64.b64encode(orjson.dumps(EVENT["data"])).decode()}
    deliveries = [
        delivery(EVENT),
        delivery([EVENT]),
        delivery(packed),
        binary(headers, orjson.dumps(EVENT["data"])),
    ]
    parsed = parse("cloudevents", deliveries)
    assert parsed.rejects == []
    assert parsed.logs.height == 4
    assert parsed.logs.drop("delivery").n_unique() == 1


def test_headers_are_percent_decoded_and_text_is_kept() -> None:
    event = {"id": "1", "source": "/s", "type": "t", "specversion": "1.0", "subject": "Euro%20%E2%82%AC"}
    (row,) = parse("cloudevents", [binary(event, b"plain words", "text/plain")]).logs.to_dicts()
    assert (row["host"], row["body"]) == ("Euro €", "plain words")


def test_data_that_the_generic_format_reads_becomes_its_rows() -> None:
    parsed = parse("cloudevents", [delivery(POINTS)])
    assert rows(parsed) == [("db-1", "temp", "Cel", "gauge", "{}", MICROS, 21.5)]
    assert parsed.logs.is_empty()


def test_alerts_and_changes_of_the_generic_format_count_too() -> None:
    alert = {"type": "alert", "name": "disk", "key": "k", "host": "h", "severity": "critical"}
    change = {"type": "deploy", "service": "shop", "title": "1.2"}
    parsed = parse("cloudevents", [delivery(EVENT | {"data": [alert, change]})])
    assert external(parsed)[0]["ts"] == MICROS
    assert parsed.changes["title"].to_list() == ["1.2"]


def test_deployments_are_changes() -> None:
    parsed = parse("cloudevents", [delivery(DEPLOYED)])
    (change,) = parsed.changes.to_dicts()
    assert (change["kind"], change["host"], change["service"]) == ("deploy", "shop", "shop")
    assert "pkg:oci/shop@sha256:0b31" in change["title"]
    assert change["ts"].timestamp() * 1_000_000 == MICROS
    assert entities(parsed) == {"shop": ("service", None, [])}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("com.example.deployment.finished", "deploy"),
        ("org.acme.service.deployed.v1", "deploy"),
        ("io.acme.app.rolled_back", "deploy"),
        ("dev.cdevents.environment.modified.0.1.1", "config"),
        ("com.example.config.changed", "config"),
    ],
)
def test_types_that_tell_of_changes_are_recognised(kind: str, expected: str) -> None:
    event = EVENT | {"type": kind, "data": {"service": "shop", "host": "web-1", "actor": "jo"}}
    (change,) = parse("cloudevents", [delivery(event)]).changes.to_dicts()
    assert (change["kind"], change["service"], change["host"], change["actor"]) == (expected, "shop", "web-1", "jo")


def test_a_deployment_without_a_time_happened_when_it_came() -> None:
    event = {name: value for name, value in EVENT.items() if name != "time"} | {"type": "x.deployed"}
    (change,) = parse("cloudevents", [delivery(event)]).changes.to_dicts()
    assert round(change["ts"].timestamp() * 1_000_000) == NOW


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": None}, "id: is required"),
        ({"source": 3}, "source: is required"),
        ({"type": ""}, "type: is required"),
        ({"specversion": "7"}, "specversion: allowed"),
        ({"data": None, "data_base64": "%%"}, "data_base64:"),
    ],
)
def test_a_bad_event_of_a_batch_is_rejected_alone(change: dict[str, Any], reason: str) -> None:
    parsed = parse("cloudevents", [delivery([EVENT, EVENT | change])])
    assert parsed.logs.height == 1
    assert reason in parsed.rejects[0].reason


@given(st.integers(0, 2**32), st.lists(st.sampled_from([EVENT, POINTS, DEPLOYED, [EVENT, POINTS]]), min_size=1))
@settings(max_examples=examples(300), deadline=None)
def test_damaged_events_are_rows_or_rejects(seed: int, samples: list[Any]) -> None:
    deliveries = [delivery(mutated(sample, seed + number)) for number, sample in enumerate(samples[:3])]
    accounted(partial(parse, "cloudevents"), deliveries)


@given(
    st.dictionaries(
        st.sampled_from(["ce-id", "ce-source", "ce-type", "ce-time", "ce-subject", "ce-specversion", "ce-traceparent"]),
        st.text(max_size=30),
    ),
    st.binary(max_size=60),
    st.sampled_from(["application/json", "text/plain", "", "application/cloudevents+json"]),
)
@settings(max_examples=examples(200), deadline=None)
def test_any_headers_and_bytes_are_rows_or_rejects(headers: dict[str, str], body: bytes, content_type: str) -> None:
    accounted(partial(parse, "cloudevents"), [delivery(body, {"ce-id": "1", **headers}, content_type)])
