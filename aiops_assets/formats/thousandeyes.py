"""Answers of ThousandEyes' API (version 7) in the envelope of our client: results of tests, and alerts.

What belongs here::

    {"thousandeyes": 7, "kind": "network", "tests": {"<id>": {"testName", "type", "server", "url", …}},
     "answer": {"results": [{"agent": {…}, "roundId", "loss", "avgLatency", …}]}}

with kind ``network``, ``http-server``, ``page-load``, ``dns-server`` or ``alerts`` (``answer.alerts``). What does not:
asking (``collectors.pull.thousandeyes``).

The host is what the test looks at (server or host of the URL), since that is what several agents agree about when it is
down; the agent that looked is a label. Names follow ThousandEyes' own OpenTelemetry data model, times are seconds.
Values that it has no name for are ``thousandeyes.<kind>.<field>``. A result with an error is a log event as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiops_assets.formats.batch import Parsed
from aiops_assets.formats.events import (
    UNKNOWN_HOST,
    Events,
    finite,
    first_of,
    host_of,
    identity,
    instant_of,
    prose,
    read_json,
    severity,
    text_labels,
)
from aiops_assets.formats.payload import Refused
from aiops_assets.landing.segment import Delivery

_EXPECTED = 'expected {"thousandeyes": 7, "kind", "tests", "answer": {"results" or "alerts": […]}}'
#: (kind, field) → metric, unit, factor
_METRICS: Mapping[tuple[str, str], tuple[str, str, float]] = {
    ("network", "loss"): ("network.loss", "%", 1.0),
    ("network", "avgLatency"): ("network.latency", "s", 0.001),
    ("network", "jitter"): ("network.jitter", "s", 0.001),
    ("http-server", "responseTime"): ("http.client.request.duration", "s", 0.001),
    ("http-server", "throughput"): ("http.server.throughput", "By/s", 1.0),
    ("page-load", "pageLoadTime"): ("web.page_load.duration", "s", 0.001),
    ("dns-server", "resolutionTime"): ("dns.lookup.duration", "s", 0.001),
}
_AVAILABILITY = {"http-server": "http.server.request.availability", "dns-server": "dns.lookup.availability"}
_BYTES = frozenset({"wireSize", "totalSize"})
_MILLISECONDS = ("Time", "Latency")
_NO_VALUES = frozenset({"roundId", "startTime", "endTime", "serverId"})
_MICROS = 1_000_000


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read answers in envelopes. Never raises on their content: what cannot be read is in ``rejects``."""
    return read_json(deliveries, _take)


def _take(events: Events, index: int, delivery: Delivery, offset: int, document: object) -> None:
    if not isinstance(document, dict) or document.get("thousandeyes") != 7:
        raise Refused(_EXPECTED)
    kind, answer, tests = document.get("kind"), document.get("answer"), document.get("tests") or {}
    name = "alerts" if kind == "alerts" else "results"
    items = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(kind, str) or not isinstance(items, list) or not isinstance(tests, dict):
        raise Refused(_EXPECTED)

    def around(item: object) -> dict[str, object]:
        return {**document, "answer": {name: [item]}}

    if kind == "alerts":
        events.each(index, offset, items, lambda item: _alert(events, index, delivery, item, tests), around)
        return
    test = next((entry for entry in tests.values() if isinstance(entry, dict)), {})
    events.each(index, offset, items, lambda item: _result(events, index, kind, item, test), around)


def _result(events: Events, index: int, kind: str, result: object, test: Mapping[str, Any]) -> None:
    if not isinstance(result, dict):
        raise Refused('results: expected {"agent", "roundId", …}')
    ts = instant_of(first_of(result, ("startTime", "roundId", "date")))
    if ts is None:
        raise Refused("roundId: expected seconds since the epoch")
    agent = result.get("agent")
    agent = agent if isinstance(agent, dict) else {}
    target = _target(test) or host_of(prose(result.get("server")) or "") or UNKNOWN_HOST
    given = {
        "thousandeyes.test.name": test.get("testName"),
        "thousandeyes.test.id": test.get("testId"),
        "thousandeyes.source.agent.name": agent.get("agentName"),
        "thousandeyes.source.agent.location": agent.get("location"),
        "network.io.direction": result.get("direction"),
    }
    if kind == "dns-server":
        given["dns.server"] = result.get("server")
    labels = text_labels(given)
    added = False
    for field, value in result.items():
        found = finite(value) if not isinstance(value, str) else None
        if found is None or field in _NO_VALUES or (field == "healthScore" and found < 0):
            continue
        metric, unit, factor = _METRICS.get((kind, field)) or _own(kind, field)
        events.point(index, ts, target, metric, unit, "gauge", labels, found * factor)
        added = True
    problem = prose(result.get("errorDetails")) or _error_type(result)
    if kind in _AVAILABILITY:
        events.point(index, ts, target, _AVAILABILITY[kind], "%", "gauge", labels, 0.0 if problem else 100.0)
        added = True
    if problem:
        parts = (test.get("testId"), kind, agent.get("agentId"), result.get("roundId"), result.get("server"))
        events.log(
            index,
            ts,
            target,
            problem,
            app="thousandeyes",
            event_id=identity("thousandeyes", *parts),
            severity_number=17,
            attributes={**labels, "errorType": result.get("errorType"), "kind": kind},
        )
        added = True
    if not added:
        raise Refused("results: holds no value")
    _entities(events, target, test, agent)


def _own(kind: str, field: str) -> tuple[str, str, float]:
    """Name, unit and factor of a value that has no canonical name."""
    name = f"thousandeyes.{kind}.{field}"
    if field.endswith(_MILLISECONDS):
        return name, "s", 0.001
    if field in _BYTES:
        return name, "By", 1.0
    return name, "Mbit/s" if field in {"availableBandwidth", "capacity", "bandwidth"} else "", 1.0


def _alert(events: Events, index: int, delivery: Delivery, alert: object, tests: Mapping[str, Any]) -> None:
    if not isinstance(alert, dict):
        raise Refused('alerts: expected {"id", "alertState", …}')
    state = str(first_of(alert, ("alertState", "state")) or "").lower()
    if state not in {"trigger", "active", "clear", "cleared"}:
        raise Refused("alertState: allowed: trigger, clear")
    firing = state in {"trigger", "active"}
    number = _number_of(alert)
    test = tests.get(number)
    test = test if isinstance(test, dict) else {}
    starts_at = instant_of(first_of(alert, ("startDate", "dateStart")))
    ends_at = instant_of(first_of(alert, ("endDate", "dateEnd")))
    length = finite(alert.get("duration"))
    if not firing and ends_at is None and starts_at is not None and length is not None:
        ends_at = starts_at + int(length * _MICROS)
    kind = prose(alert.get("alertType")) or prose(alert.get("type")) or "alert"
    name = prose(alert.get("ruleName")) or f"ThousandEyes {kind}"
    where = prose(test.get("testName")) or (f"test {number}" if number else None)
    target = _target(test)
    rule = prose(first_of(alert, ("alertRuleId", "ruleId")))
    events.alert(
        index,
        (starts_at if firing else ends_at) or (None if firing else delivery.received_at),
        key=first_of(alert, ("id", "alertId")),
        name=name,
        firing=firing,
        severity_number=severity(first_of(alert, ("alertSeverity", "severity"))),
        host=target or where or UNKNOWN_HOST,
        title=f"{name}: {where}" if where else name,
        labels=text_labels({"test": where, "alert_type": kind, "rule": rule}),
        starts_at=starts_at,
        ends_at=ends_at or (None if firing else delivery.received_at),
        value=finite(alert.get("violationCount")),
        evidence=alert,
    )
    if target:
        _entities(events, target, test, {})


def _entities(events: Events, target: str, test: Mapping[str, Any], agent: Mapping[str, Any]) -> None:
    if target != UNKNOWN_HOST:
        labels = text_labels({"thousandeyes.test.name": test.get("testName")})
        events.entity("service", target, labels=labels)
    labels = text_labels({"thousandeyes.agent.id": agent.get("agentId"), "country": agent.get("countryId")})
    events.entity("device", agent.get("agentName"), site=agent.get("location"), labels=labels)


def _target(test: Mapping[str, Any]) -> str:
    """The host that a test looks at, empty when it does not say."""
    return host_of(prose(first_of(test, ("url", "server", "domain"))) or "")


def _error_type(result: Mapping[str, Any]) -> str | None:
    kind = prose(result.get("errorType"))
    return None if kind is None or kind.lower() == "none" else kind


def _number_of(alert: Mapping[str, Any]) -> str:
    links = alert.get("_links")
    link = links.get("test") if isinstance(links, dict) else None
    href = link.get("href") if isinstance(link, dict) else None
    if isinstance(href, str):
        return href.partition("?")[0].rstrip("/").rpartition("/")[2]
    return prose(alert.get("testId")) or ""
