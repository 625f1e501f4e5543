"""Generic JSON by a declared mapping, the checks of the mapping, and the generic format's own logs and alerts."""

from __future__ import annotations

from functools import partial
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops_assets.config import ConfigError, Reading, parse_config
from aiops_assets.formats import mapped, parse
from tests.examples import examples
from tests.unit.mutations import NOW, accounted, delivery, entities, external, mutated, rows

T = 1_795_160_829
MICROS = T * 1_000_000
BODY: dict[str, Any] = {
    "agent": {"name": "probe-1", "site": "fra"},
    "sent": T,
    "readings": [
        {"sensor": "t1", "celsius": "21.5", "at": T},
        {"sensor": "t2", "celsius": 22, "at": "2026-11-20T07:47:09Z"},
    ],
    "lines": [{"text": "door opened", "level": "warn", "who": "jo"}],
    "alarms": [{"id": 7, "name": "Too hot", "prio": "P1", "open": True}],
    "release": {"version": "1.2", "app": "shop"},
}
POINTS = Reading(
    items="readings[].{s: sensor, c: celsius, at: at}",
    kind="point",
    fields={
        "host": "'probe-1'",
        "metric": "'hw.temperature'",
        "value": "c",
        "ts": "at",
        "unit": "'Cel'",
        "labels.sensor": "s",
    },
)
LOGS = Reading(
    items="lines",
    kind="log",
    fields={"host": "'probe-1'", "app": "'door'", "body": "text", "severity": "level", "attributes.who": "who"},
)
ALERTS = Reading(
    items="alarms",
    kind="alert",
    fields={
        "key": "id",
        "name": "name",
        "host": "'probe-1'",
        "severity": "prio",
        "state": "open && 'firing' || 'resolved'",
        "evidence": "@",
    },
)
CHANGES = Reading(
    items="release",
    kind="change",
    fields={"service": "app", "kind": "'deploy'", "title": "join(' ', [app, version])", "details.version": "version"},
)


def read(*readings: Reading, body: Any = BODY) -> Any:
    return parse("generic", [delivery(body)], readings)


def test_points_are_read_by_their_expressions() -> None:
    parsed = read(POINTS)
    assert [(host, metric, unit, labels, ts, value) for host, metric, unit, _, labels, ts, value in rows(parsed)] == [
        ("probe-1", "hw.temperature", "Cel", '{"sensor":"t1"}', MICROS, 21.5),
        ("probe-1", "hw.temperature", "Cel", '{"sensor":"t2"}', MICROS, 22.0),
    ]


def test_several_readings_read_one_document() -> None:
    parsed = read(POINTS, LOGS, ALERTS, CHANGES)
    assert parsed.rejects == []
    assert parsed.points.height == 2
    (line,) = parsed.logs.to_dicts()
    assert (line["body"], line["app"], line["severity_number"], line["ts"]) == ("door opened", "door", 13, None)
    assert orjson.loads(line["attributes"]) == {"who": "jo"}
    (alert,) = external(parsed)
    assert (alert["key"], alert["severity_number"], alert["state"]) == ("7", 21, "firing")
    assert alert["evidence"]["prio"] == "P1"
    (change,) = parsed.changes.to_dicts()
    assert (change["kind"], change["service"], change["title"]) == ("deploy", "shop", "shop 1.2")
    assert orjson.loads(change["details"]) == {"version": "1.2"}
    assert entities(parsed)["probe-1"][0] == "host"


def test_a_source_without_readings_is_read_as_the_generic_format() -> None:
    point = {"host": "a", "metric": "m", "value": 1, "ts": T}
    assert rows(parse("generic", [delivery(point)]))[0][:2] == ("a", "m")


def test_a_field_that_is_missing_is_named_with_expression_and_example() -> None:
    body = BODY | {"readings": [{"sensor": "t1"}, *BODY["readings"]]}
    parsed = read(POINTS, body=body)
    assert parsed.points.height == 2
    (reject,) = parsed.rejects
    for part in ("item 1", "sources.web.reading[0].fields.value", "'c' found nothing", '"s": "t1"'):
        assert part in reject.reason


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"celsius": "warm"}, ("fields.value", "'c'", "'warm'", "expected a number")),
        ({"at": "soon"}, ("fields.ts", "'at'", "expected ISO 8601")),
        ({"sensor": "a\nb"}, ("labels", "control character")),
        ({"celsius": [1]}, ("fields.value", "'c'", "expected a number")),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_expression_and_example(
    change: dict[str, Any], parts: tuple[str, ...]
) -> None:
    body = BODY | {"readings": [BODY["readings"][0] | change]}
    reason = read(POINTS, body=body).rejects[0].reason
    assert "sources.web.reading[0]" in reason
    assert "applied to:" in reason
    for part in parts:
        assert part in reason


def test_functions_that_fail_are_named_with_their_expression() -> None:
    reading = Reading(items="lines", kind="log", fields={"host": "'h'", "body": "join(',', who)"})
    reason = read(reading).rejects[0].reason
    assert "sources.web.reading[0].fields.body" in reason
    assert "join" in reason


def test_a_delivery_in_which_nothing_is_found_is_rejected_whole() -> None:
    (reject,) = read(POINTS, LOGS, body={"other": 1}).rejects
    assert "nothing found by" in reject.reason
    assert orjson.loads(reject.content) == {"other": 1}


def test_expressions_are_compiled_once() -> None:
    assert mapped.compiled("a.b") is mapped.compiled("a.b")


def config(reading: str) -> str:
    return f"sources:\n  web:\n    reading:\n      - {reading}\n"


def test_a_reading_of_the_file_is_loaded() -> None:
    loaded = parse_config(
        config("{items: 'data[]', fields: {host: host, metric: name, value: val, labels.site: site}}"), "aiops.yaml"
    )
    (reading,) = loaded.sources["web"].reading
    assert reading.fields["labels.site"] == "site"
    assert reading.required == {"host", "metric", "value"}


@pytest.mark.parametrize(
    ("reading", "reason"),
    [
        ("{fields: {host: host, metric: m}}", "kind point needs value"),
        ("{kind: log, fields: {body: m}}", "kind log needs host or app or service"),
        ("{kind: alert, fields: {host: h}}", "kind alert needs name"),
        ("{fields: {host: h, metric: m, value: v, sevrity: x}}", "'sevrity' is no field of kind point; allowed: host"),
        ("{fields: {host: h, metric: m, value: v, labels.: x}}", "is no field"),
        ("{fields: {host: 'a[', metric: m, value: v}}", "fields.host: 'a[' is no JMESPath expression"),
        ("{items: '((', fields: {host: h, metric: m, value: v}}", "items: '((' is no JMESPath expression"),
    ],
)
def test_mistakes_in_a_reading_are_found_when_the_file_is_loaded(reading: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(config(reading), "aiops.yaml")
    assert reason in str(caught.value)
    assert "reading" in str(caught.value)


LOG: dict[str, Any] = {
    "type": "log",
    "host": "web-1",
    "service": "shop",
    "severity": "error",
    "message": "card declined",
    "ts": T,
    "id": "e-1",
    "pid": 7,
    "trace_id": "0AF7651916CD43DD8448EB211C80319C",
    "cart": 3,
}
ALERT: dict[str, Any] = {
    "type": "alert",
    "name": "DiskFull",
    "host": "db-1",
    "severity": "critical",
    "title": "db-1 is full",
    "labels": {"mount": "/var"},
    "value": 97.5,
    "threshold": 95,
    "starts_at": T,
    "runbook": "https://wiki/x",
}


def test_the_generic_format_reads_logs() -> None:
    parsed = parse("generic", [delivery([LOG]), delivery({"host": "web-1", "ts": T, "logs": [{"msg": "plain"}]})])
    first, second = parsed.logs.to_dicts()
    assert (first["host"], first["app"], first["body"], first["severity_number"]) == (
        "web-1",
        "shop",
        "card declined",
        17,
    )
    assert (first["event_id"], first["pid"], first["ts"]) == ("e-1", 7, MICROS)
    assert first["trace_id"] == LOG["trace_id"].lower()
    assert orjson.loads(first["attributes"]) == {"cart": 3}
    assert (second["host"], second["body"], second["severity_number"], second["ts"]) == ("web-1", "plain", None, MICROS)
    assert entities(parsed)["shop"] == ("service", None, ["web-1"])


def test_the_generic_format_reads_alerts_that_fire_and_resolve() -> None:
    over = ALERT | {"state": "resolved", "ends_at": T + 60}
    fired, resolved = external(parse("generic", [delivery([ALERT, over])]))
    assert fired["key"] == resolved["key"]
    assert (fired["starts_at"], fired["ts"], fired["value"], fired["threshold"]) == (MICROS, MICROS, 97.5, 95.0)
    assert (resolved["state"], resolved["ends_at"], resolved["ts"]) == (
        "resolved",
        MICROS + 60_000_000,
        MICROS + 60_000_000,
    )
    assert fired["evidence"] == {"runbook": "https://wiki/x"}


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (LOG | {"message": None}, "body: is required"),
        (LOG | {"host": None, "service": None}, "host: is required"),
        (LOG | {"severity": "loud"}, "severity: allowed"),
        (LOG | {"ts": "soon"}, "ts: expected"),
        (ALERT | {"name": ""}, "name: is required"),
        (ALERT | {"state": "maybe"}, "state: allowed"),
        (ALERT | {"labels": 3}, "labels: expected"),
        (ALERT | {"severity": 99}, "severity: allowed"),
        (ALERT | {"starts_at": "soon"}, "starts_at: expected"),
    ],
)
def test_a_bad_log_or_alert_is_rejected_alone_with_the_field(item: dict[str, Any], reason: str) -> None:
    parsed = parse("generic", [delivery([LOG, item, ALERT])])
    assert (parsed.logs.height, parsed.external.height) == (1, 1)
    assert reason in parsed.rejects[0].reason


def test_changes_without_a_time_are_of_now() -> None:
    (change,) = read(CHANGES).changes.to_dicts()
    assert round(change["ts"].timestamp() * 1_000_000) == NOW


@given(st.integers(0, 2**32), st.booleans())
@settings(max_examples=examples(400), deadline=None)
def test_damaged_payloads_are_rows_or_rejects(seed: int, declared: bool) -> None:
    if declared:
        read_ = partial(mapped.parse, readings=(POINTS, LOGS, ALERTS, CHANGES))
        accounted(read_, [delivery(mutated(BODY, seed)), delivery(BODY)])
    else:
        accounted(partial(parse, "generic"), [delivery(mutated([LOG, ALERT], seed)), delivery([LOG])])
