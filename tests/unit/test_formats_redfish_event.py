"""Redfish subscriptions: events as logs and alerts that OK ends, metric reports as points."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops_assets.formats import parse
from aiops_assets.formats.redfish_event import family
from tests.examples import examples
from tests.unit.mutations import NOW, accounted, delivery, entities, external, mutated, rows

RECORD: dict[str, Any] = {
    "EventType": "Alert",
    "EventId": "5",
    "EventTimestamp": "2026-11-20T08:00:00-06:00",
    "Severity": "Critical",
    "Message": "Fan 3 has failed.",
    "MessageId": "ResourceEvent.1.0.3.ResourceErrorThresholdExceeded",
    "MessageArgs": ["Fan 3"],
    "OriginOfCondition": {"@odata.id": "/redfish/v1/Chassis/1/Thermal#/Fans/2"},
    "MemberId": "0",
    "Context": "rack-7-node-3",
}
EVENT: dict[str, Any] = {
    "@odata.type": "#Event.v1_7_0.Event",
    "Id": "1",
    "Name": "Event Array",
    "Context": "rack-7-node-3",
    "Events": [RECORD],
}
REPORT: dict[str, Any] = {
    "@odata.type": "#MetricReport.v1_4_0.MetricReport",
    "Id": "PowerMetrics",
    "Name": "Power",
    "Timestamp": "2026-11-20T14:00:00Z",
    "MetricValues": [
        {
            "MetricId": "Temperature",
            "MetricValue": "45.5",
            "Timestamp": "2026-11-20T14:00:10Z",
            "MetricProperty": "/redfish/v1/Chassis/1/Thermal#/Temperatures/0/ReadingCelsius",
        },
        {"MetricId": "SystemInputPower", "MetricValue": "312", "Oem": {"Dell": {"FQDD": "System.Embedded.1"}}},
        {"MetricId": "PowerState", "MetricValue": "On"},
    ],
}
MICROS = 1_795_183_200_000_000


def test_an_event_is_a_log_event_and_what_is_bad_an_alert() -> None:
    parsed = parse("redfish_event", [delivery(EVENT)])
    (event,) = parsed.logs.to_dicts()
    assert (event["host"], event["app"], event["body"]) == ("rack-7-node-3", "ResourceEvent", "Fan 3 has failed.")
    assert (event["severity_number"], event["ts"]) == (21, MICROS)
    assert event["event_id"].startswith("redfish:")
    (alert,) = external(parsed)
    assert (alert["state"], alert["severity_number"], alert["host"]) == ("firing", 21, "rack-7-node-3")
    assert alert["name"] == "ResourceEvent.ResourceErrorThresholdExceeded"
    assert alert["labels"] == {"origin": "/redfish/v1/Chassis/1/Thermal#/Fans/2"}
    assert entities(parsed) == {"rack-7-node-3": ("host", None, [])}


def test_an_event_of_the_same_condition_that_is_ok_ends_it() -> None:
    cleared = RECORD | {"Severity": "OK", "MessageId": "ResourceEvent.1.2.0.ResourceErrorThresholdCleared"}
    fired, ended = external(parse("redfish_event", [delivery(EVENT), delivery(EVENT | {"Events": [cleared]})]))
    assert fired["key"] == ended["key"]
    assert (ended["state"], ended["ends_at"]) == ("resolved", MICROS)


def test_another_part_is_another_alert() -> None:
    other = RECORD | {"OriginOfCondition": "/redfish/v1/Chassis/1/Thermal#/Fans/3"}
    first, second = external(parse("redfish_event", [delivery(EVENT | {"Events": [RECORD, other]})]))
    assert first["key"] != second["key"]


@pytest.mark.parametrize(
    ("message_id", "expected"),
    [
        ("ResourceEvent.1.0.3.ResourceErrorsDetected", "ResourceEvent.ResourceErrors"),
        ("ResourceEvent.1.0.ResourceErrorsCorrected", "ResourceEvent.ResourceErrors"),
        ("Alert.1.0.LanDisconnect", "Alert.Lan"),
        ("iDRAC.2.8.TMP0120", "iDRAC.TMP0120"),
        ("Critical", ".Critical"),
    ],
)
def test_messages_of_one_condition_are_one_family(message_id: str, expected: str) -> None:
    assert family(message_id) == expected


def test_events_that_only_tell_of_resources_raise_nothing() -> None:
    added = RECORD | {"EventType": "ResourceAdded", "Severity": "OK", "MessageId": "ResourceEvent.1.0.ResourceCreated"}
    parsed = parse("redfish_event", [delivery(EVENT | {"Events": [added]})])
    assert parsed.external.is_empty()
    assert parsed.logs.height == 1


def test_events_without_a_type_as_newer_services_send_them_count() -> None:
    newer = {name: value for name, value in RECORD.items() if name not in {"EventType", "Severity"}}
    (alert,) = external(
        parse("redfish_event", [delivery(EVENT | {"Events": [newer | {"MessageSeverity": "Warning"}]})])
    )
    assert (alert["state"], alert["severity_number"]) == ("firing", 13)


def test_the_destinations_query_names_the_host() -> None:
    parsed = parse("redfish_event", [delivery(EVENT, {"query": "source=bmc&host=node-3.example"})])
    assert external(parsed)[0]["host"] == "node-3.example"


def test_without_context_the_source_is_the_host() -> None:
    bare = {"Events": [{name: value for name, value in RECORD.items() if name != "Context"}]}
    assert parse("redfish_event", [delivery(bare)]).logs["host"].to_list() == ["web"]


def test_the_same_event_has_the_same_identifier() -> None:
    twice = parse("redfish_event", [delivery(EVENT), delivery(EVENT)]).logs["event_id"].to_list()
    assert twice[0] == twice[1]
    again = RECORD | {"EventTimestamp": "2026-11-20T09:00:00Z"}
    assert parse("redfish_event", [delivery(EVENT | {"Events": [again]})]).logs["event_id"].item() != twice[0]


def test_metric_reports_are_points_and_states_are_log_events() -> None:
    parsed = parse("redfish_event", [delivery(REPORT | {"Context": "n1"})])
    first, second = rows(parsed)
    assert first[:4] == ("n1", "hw.temperature", "Cel", "gauge")
    assert first[5:] == (MICROS + 10_000_000, 45.5)
    assert second[1] == "redfish.SystemInputPower"
    assert '"hw.id":"System.Embedded.1"' in second[4]
    assert second[5:] == (MICROS, 312.0)
    assert parsed.logs["body"].to_list() == ["PowerState: On"]
    assert parsed.rejects == []


def test_readings_without_a_time_are_of_now() -> None:
    report = {"MetricValues": [{"MetricId": "X", "MetricValue": 1}]}
    assert rows(parse("redfish_event", [delivery(report)]))[0][5] == NOW


@given(st.integers(0, 2**32), st.lists(st.sampled_from([EVENT, REPORT, RECORD]), min_size=1, max_size=3))
@settings(max_examples=examples(300), deadline=None)
def test_damaged_payloads_are_rows_or_rejects(seed: int, samples: list[Any]) -> None:
    deliveries = [delivery(mutated(sample, seed + number)) for number, sample in enumerate(samples)]
    accounted(partial(parse, "redfish_event"), deliveries)
