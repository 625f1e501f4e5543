"""Alertmanager and Grafana webhooks: every alert one external alert with key, state, severity, place, evidence."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops_assets.formats import parse
from aiops_assets.formats.events import host_of
from aiops_assets.hours import micros
from tests.examples import examples
from tests.unit.mutations import accounted, captured, delivery, entities, external, mutated


def at(text: str) -> int:
    return micros(datetime.fromisoformat(text).astimezone(UTC))


FIRING: dict[str, Any] = {
    "status": "firing",
    "labels": {"alertname": "LinkDown", "instance": "sw1:9100", "severity": "critical", "service": "edge", "dc": "fra"},
    "annotations": {"summary": "ge-0/0/1 is down", "description": "no light"},
    "startsAt": "2026-11-20T08:00:27.824314362Z",
    "endsAt": "0001-01-01T00:00:00Z",
    "generatorURL": "http://prom/graph?g0.expr=up",
    "fingerprint": "c19c24e9b1bdbc40",
}
RESOLVED = FIRING | {"status": "resolved", "endsAt": "2026-11-20T08:05:00Z"}
V4: dict[str, Any] = {
    "version": "4",
    "groupKey": '{}:{alertname="LinkDown"}',
    "truncatedAlerts": 0,
    "status": "firing",
    "receiver": "aiops",
    "groupLabels": {"alertname": "LinkDown"},
    "commonLabels": {},
    "commonAnnotations": {},
    "externalURL": "http://am:9093",
    "alerts": [FIRING],
}
GRAFANA: dict[str, Any] = V4 | {
    "orgId": 1,
    "title": "[FIRING:1] High memory",
    "state": "alerting",
    "version": "1",
    "alerts": [
        FIRING
        | {
            "values": {"B": 44.2, "C": 1},
            "silenceURL": "https://g/alerting/silence/new",
            "dashboardURL": "https://g/d/abc",
            "panelURL": "https://g/d/abc?viewPanel=2",
            "imageURL": "https://g/img.png",
        }
    ],
}
LEGACY: dict[str, Any] = {
    "dashboardId": 1,
    "panelId": 2,
    "orgId": 3,
    "ruleId": 7,
    "ruleName": "Panel Title alert",
    "ruleUrl": "http://g/d/x",
    "state": "alerting",
    "title": "[Alerting] Panel Title alert",
    "message": "too high",
    "tags": {"host": "web-1"},
    "evalMatches": [{"value": 100, "metric": "High value", "tags": None}],
}


def test_an_alert_keeps_key_state_severity_place_and_evidence() -> None:
    parsed = parse("alertmanager", [delivery(V4)])
    (alert,) = external(parsed)
    assert alert["key"] == "c19c24e9b1bdbc40"
    assert (alert["state"], alert["severity_number"], alert["name"], alert["host"]) == ("firing", 21, "LinkDown", "sw1")
    assert alert["title"] == "ge-0/0/1 is down"
    assert alert["starts_at"] == alert["ts"] == at("2026-11-20T08:00:27.824314Z")
    assert alert["ends_at"] is None
    assert alert["labels"] == FIRING["labels"]
    evidence = alert["evidence"]
    assert evidence["annotations"] == FIRING["annotations"]
    assert (evidence["generatorURL"], evidence["externalURL"]) == (FIRING["generatorURL"], "http://am:9093")
    assert (evidence["receiver"], evidence["groupKey"]) == ("aiops", V4["groupKey"])
    assert parsed.rejects == []


def test_host_and_service_become_entities_at_their_site() -> None:
    found = entities(parse("alertmanager", [delivery(V4)]))
    assert found == {"sw1": ("host", "fra", []), "edge": ("service", "fra", ["sw1"])}


def test_a_resolved_alert_ends_when_it_says() -> None:
    (alert,) = external(parse("alertmanager", [delivery(V4 | {"alerts": [RESOLVED], "status": "resolved"})]))
    assert (alert["state"], alert["key"]) == ("resolved", FIRING["fingerprint"])
    assert alert["ends_at"] == alert["ts"] == at("2026-11-20T08:05:00Z")


def test_a_repeated_notification_gives_the_same_row() -> None:
    first, second = external(parse("alertmanager", [delivery(V4), delivery(V4)]))
    assert first | {"delivery": 1} == second


def test_alerts_without_fingerprint_are_known_by_their_labels_without_severity() -> None:
    old = {name: value for name, value in FIRING.items() if name != "fingerprint"}
    worse = old | {"labels": old["labels"] | {"severity": "warning"}}
    other = old | {"labels": old["labels"] | {"instance": "sw2"}}
    first, second, third = external(parse("alertmanager", [delivery(V4 | {"alerts": [old, worse, other]})]))
    assert first["key"] == second["key"] != third["key"]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"severity": "page"}, 21),
        ({"severity": "disaster"}, 21),
        ({"priority": "P1"}, 21),
        ({"severity": "error"}, 17),
        ({"severity": "High"}, 17),
        ({"severity": "major"}, 17),
        ({"priority": "P2"}, 17),
        ({"severity": "warning"}, 13),
        ({"severity": "minor"}, 13),
        ({"severity": "info"}, 9),
        ({"severity": "something of ours"}, 13),
        ({}, 13),
    ],
)
def test_severity_words_have_numbers(labels: dict[str, str], expected: int) -> None:
    alert = FIRING | {"labels": {"alertname": "a", **labels}}
    assert external(parse("alertmanager", [delivery(V4 | {"alerts": [alert]})]))[0]["severity_number"] == expected


@pytest.mark.parametrize(
    ("labels", "host"),
    [
        ({"instance": "http://web-1:9100/metrics"}, "web-1"),
        ({"instance": "[fe80::1]:9100"}, "fe80::1"),
        ({"instance": "fe80::1"}, "fe80::1"),
        ({"instance": "10.0.0.7:9100", "host": "b"}, "10.0.0.7"),
        ({"hostname": "c"}, "c"),
        ({"node": "n1"}, "n1"),
        ({"device": "sw9"}, "sw9"),
        ({"service": "shop"}, "shop"),
        ({"job": "node"}, "node"),
        ({"team": "blue"}, "unknown"),
    ],
)
def test_the_host_is_the_first_label_that_names_one(labels: dict[str, str], host: str) -> None:
    alert = FIRING | {"labels": {"alertname": "a", **labels}}
    assert external(parse("alertmanager", [delivery(V4 | {"alerts": [alert]})]))[0]["host"] == host


def test_a_port_is_only_what_stands_behind_one_colon() -> None:
    assert [host_of(text) for text in ("a:1", "a:b", "::1", "user@h:22", "https://u:p@h:1/x")] == [
        "a", "a:b", "::1", "user@h", "h",
    ]  # fmt: skip


def test_alerts_left_out_by_the_sender_are_noted() -> None:
    parsed = parse("alertmanager", [delivery(V4 | {"truncatedAlerts": 12})])
    (note,) = parsed.logs.to_dicts()
    assert "12 alerts" in note["body"]
    assert note["severity_number"] == 13


def test_a_bad_alert_is_rejected_alone_and_can_be_sent_again() -> None:
    bad = FIRING | {"labels": {"alertname": "x", "host": "a\nb"}}
    parsed = parse("alertmanager", [delivery(V4 | {"alerts": [FIRING, bad, RESOLVED]})])
    assert len(external(parsed)) == 2
    (reject,) = parsed.rejects
    assert "item 2" in reject.reason
    assert "control character" in reject.reason
    assert parse("alertmanager", [delivery(reject.content)]).rejects[0].reason.endswith(reject.reason[8:])


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"nope", b'{"alerts": []}', b'{"alerts": [3]}', b'{"alerts": {}}'])
def test_what_is_no_notification_is_rejected_whole(body: bytes) -> None:
    (reject,) = parse("alertmanager", [delivery(body)]).rejects
    assert reject.content == body


def test_values_that_are_not_strings_do_not_lose_an_alert() -> None:
    odd = FIRING | {"labels": {"alertname": "a", "host": "h", "n": 3, "x": {"y": 1}, "none": None}, "startsAt": "soon"}
    (alert,) = external(parse("alertmanager", [delivery(V4 | {"alerts": [odd]})]))
    assert alert["labels"] == {"alertname": "a", "host": "h", "n": "3", "x": '{"y":1}'}
    assert alert["ts"] is None
    assert alert["evidence"]["startsAt"] == "soon"


def test_huge_evidence_is_shortened_not_lost() -> None:
    huge = FIRING | {"annotations": {"summary": "s", "dump": "x" * 500_000}}
    (alert,) = external(parse("alertmanager", [delivery(V4 | {"alerts": [huge]})]))
    assert alert["evidence"]["annotations"]["dump"].endswith("(500000 characters)")


@pytest.mark.parametrize("name", ["alertmanager-1", "am-503-1", "am-503-2"])
def test_captured_requests_are_read_whole(name: str) -> None:
    parsed = accounted(partial(parse, "alertmanager"), [delivery(captured(name))])
    assert (len(external(parsed)), parsed.rejects) == (1, [])


def test_grafana_adds_its_values_and_links() -> None:
    (alert,) = external(parse("grafana", [delivery(GRAFANA)]))
    assert alert["value"] == 44.2
    evidence = alert["evidence"]
    for field in ("silenceURL", "dashboardURL", "panelURL", "imageURL", "values"):
        assert evidence[field] == GRAFANA["alerts"][0][field]
    assert evidence["orgId"] == 1
    assert alert["key"] == FIRING["fingerprint"]


@pytest.mark.parametrize(
    ("values", "text", "expected"),
    [
        ({"B": 44.2, "C": 1}, None, 44.2),
        ({"A": 1}, None, 1.0),
        ({"A": 3, "B": 4}, None, None),
        (None, "[ metric='' labels={} value=14151.331 ]", 14151.331),
        (None, "[ var='B0' labels={a=b} value=-1.5e3 ], [ var='C' labels={} value=1 ]", -1500.0),
        (None, "no value", None),
        ({"A": None}, None, None),
    ],
)
def test_grafanas_value_is_told_when_it_is_clear(values: object, text: object, expected: float | None) -> None:
    alert = FIRING | {"values": values, "valueString": text}
    assert external(parse("grafana", [delivery(V4 | {"alerts": [alert]})]))[0]["value"] == expected


def test_grafanas_legacy_alerts_fire_and_resolve_under_one_key() -> None:
    fired, ok = external(parse("grafana", [delivery(LEGACY), delivery(LEGACY | {"state": "ok", "evalMatches": []})]))
    assert fired["key"] == ok["key"] == "legacy:3:1:2:7"
    assert (fired["state"], ok["state"]) == ("firing", "resolved")
    assert (fired["host"], fired["value"], fired["name"]) == ("web-1", 100.0, "Panel Title alert")
    assert fired["ts"] is None


@given(st.integers(0, 2**32), st.lists(st.sampled_from([V4, GRAFANA, LEGACY, [FIRING]]), min_size=1, max_size=3))
@settings(max_examples=examples(300), deadline=None)
def test_damaged_notifications_are_rows_or_rejects(seed: int, samples: list[Any]) -> None:
    deliveries = [delivery(mutated(sample, seed + number)) for number, sample in enumerate(samples)]
    for format_name in ("alertmanager", "grafana"):
        accounted(partial(parse, format_name), deliveries)
