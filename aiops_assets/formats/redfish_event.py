"""Redfish event subscriptions: events and metric reports, of every generation of their schemas.

What belongs here: those two payloads. What does not: what is asked of a service (``collectors``). An event is a log
event; one of severity Warning or Critical is an external alert as well, which an event of severity OK about the same
condition ends. Neither payload names the machine: it is the ``host`` of the destination's query string
(``?host=server-12``), else the subscription's ``Context``, else the source.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

from aiops_assets.formats.batch import Parsed
from aiops_assets.formats.events import Events, finite, identity, instant_of, prose, read_json
from aiops_assets.formats.payload import Refused
from aiops_assets.landing.segment import Delivery

_EXPECTED = 'expected {"Events": [{"MessageId", "Severity", "Message"}]} or {"MetricValues": [{"MetricId", …}]}'
_SEVERITIES = {"ok": 9, "informational": 9, "warning": 13, "critical": 21, "fatal": 21}
_ALERTING = frozenset({"Alert", "StatusChange", ""})
_VERSIONS = re.compile(r"\.\d+(?=\.|$)")
#: endings by which registries tell that a condition began or ended; without them both are one condition
_ENDINGS = re.compile(
    r"(Exceeded|Cleared|Detected|Corrected|Failed|Failure|Restored|Recovered|Asserted|Deasserted|Lost|Degraded|OK"
    r"|Normal|Resolved|Removed|Inserted|Critical|Warning|Disconnect|Connect|Down|Up)+$"
)
_READINGS = {
    "ReadingCelsius": ("hw.temperature", "Cel", "temperature"),
    "Temperature": ("hw.temperature", "Cel", "temperature"),
    "TemperatureReading": ("hw.temperature", "Cel", "temperature"),
    "ReadingVolts": ("hw.voltage", "V", "voltage"),
    "VoltageReading": ("hw.voltage", "V", "voltage"),
    "PowerConsumedWatts": ("hw.power", "W", "power_supply"),
    "PowerWatts": ("hw.power", "W", "power_supply"),
    "LineInputVoltage": ("hw.voltage", "V", "voltage"),
    "RPMReading": ("hw.fan.speed", "rpm", "fan"),
    "SpeedRPM": ("hw.fan.speed", "rpm", "fan"),
}


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read deliveries of subscriptions. Never raises on their content: what cannot be read is in ``rejects``."""
    return read_json(deliveries, _payload)


def _payload(events: Events, index: int, delivery: Delivery, offset: int, document: object) -> None:
    if not isinstance(document, dict):
        raise Refused(_EXPECTED)
    host = _host(delivery, document)
    records, readings = document.get("Events"), document.get("MetricValues")
    beside = {name: value for name, value in document.items() if name not in {"Events", "MetricValues"}}
    if isinstance(records, list) and records:
        events.each(
            index,
            offset,
            records,
            lambda record: _event(events, index, host, record),
            around=lambda record: {**beside, "Events": [record]},
        )
    elif isinstance(readings, list) and readings:
        events.each(
            index,
            offset,
            readings,
            lambda reading: _reading(events, index, delivery.received_at, host, document, reading),
            around=lambda reading: {**beside, "MetricValues": [reading]},
        )
    elif "MessageId" in document or "EventType" in document:
        _event(events, index, host, document)
    else:
        raise Refused(_EXPECTED)
    events.entity("host", host)


def _host(delivery: Delivery, document: Mapping[str, Any]) -> str:
    asked = parse_qs(delivery.headers.get("query", "")[:4_096]).get("host")
    records = document.get("Events")
    first = records[0] if isinstance(records, list) and records and isinstance(records[0], dict) else {}
    context = prose(document.get("Context")) or prose(first.get("Context"))
    return (prose(asked[0]) if asked else None) or context or delivery.source


def _event(events: Events, index: int, host: str, record: object) -> None:
    if not isinstance(record, dict) or not any(record.get(name) for name in ("MessageId", "Message", "EventType")):
        raise Refused(_EXPECTED)
    message_id = prose(record.get("MessageId"), 256)
    word = prose(record.get("MessageSeverity") or record.get("Severity"), 32) or "OK"
    number = _SEVERITIES.get(word.lower(), 9)
    origin = _path(record.get("OriginOfCondition"))
    ts = instant_of(record.get("EventTimestamp"))
    kind = prose(record.get("EventType"), 64) or ""
    text = prose(record.get("Message")) or message_id or kind
    known = record.get("EventId") not in (None, "") and ts is not None
    details = {name: value for name, value in record.items() if name not in {"Message", "EventTimestamp"}}
    events.log(
        index,
        ts,
        host,
        text,
        app=(message_id or "").split(".")[0] or "redfish",
        event_id=f"redfish:{identity(host, record['EventId'], ts, message_id, record.get('MemberId'))}"
        if known
        else None,
        severity_number=number,
        attributes=details,
    )
    if kind not in _ALERTING or message_id is None:
        return
    events.alert(
        index,
        ts,
        key=f"{host}:{origin or ''}:{family(message_id)}",
        name=_VERSIONS.sub("", message_id),
        firing=number >= 13,
        severity_number=number,
        host=host,
        title=text,
        labels={"origin": origin} if origin else {},
        ends_at=ts,
        evidence=details,
    )


def family(message_id: str) -> str:
    """A message's registry and condition, without the registry's version and without whether it began or ended."""
    registry, _, name = _VERSIONS.sub("", message_id).rpartition(".")
    return f"{registry}.{_ENDINGS.sub('', name) or name}"


def _path(link: object) -> str | None:
    return prose(link.get("@odata.id") if isinstance(link, dict) else link)


def _reading(
    events: Events, index: int, received_at: int, host: str, report: Mapping[str, Any], reading: object
) -> None:
    if not isinstance(reading, dict):
        raise Refused(_EXPECTED)
    name = prose(reading.get("MetricId"), 256)
    place = prose(reading.get("MetricProperty"))
    if name is None and place is None:
        raise Refused("MetricId: is required (or MetricProperty)")
    ts = instant_of(reading.get("Timestamp"))
    if ts is None:
        ts = instant_of(report.get("Timestamp"))
    value = finite(reading.get("MetricValue"))
    if value is None:
        given = prose(reading.get("MetricValue"))
        if given is None:
            raise Refused("MetricValue: is required")
        events.log(index, ts, host, f"{name or place}: {given}", app="redfish", severity_number=9, attributes=reading)
        return
    component = _component(reading)
    known = _READINGS.get(_last(place) or "") or _READINGS.get(name or "")
    labels = {"hw.id": component or place or name or ""}
    if place:
        labels["metric_property"] = place
    if known:
        metric, unit, kind = known
        labels["hw.type"] = kind
    else:
        metric, unit = f"redfish.{name or _last(place)}", ""
    events.point(index, received_at if ts is None else ts, host, metric, unit, "gauge", labels, value)


def _component(reading: Mapping[str, Any]) -> str | None:
    """The part that vendors name beside the value."""
    oem = reading.get("Oem")
    for vendor in oem.values() if isinstance(oem, dict) else ():
        if isinstance(vendor, dict):
            found = prose(vendor.get("FQDD") or vendor.get("ContextID"))
            if found:
                return found
    return None


def _last(place: str | None) -> str | None:
    return re.split(r"[/#]", place)[-1] or None if place else None
