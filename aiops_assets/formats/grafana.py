"""Grafana's webhook: unified alerting (Alertmanager's family with values and links), and legacy alerting's payload.

What belongs here: Grafana's own fields. What does not: what it shares with Alertmanager (``alertmanager``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from aiops_assets.formats.alertmanager import note_truncated, take_alert
from aiops_assets.formats.batch import Parsed
from aiops_assets.formats.events import Events, finite, instant_of, read_json, severity, text_labels, where
from aiops_assets.formats.payload import Refused
from aiops_assets.landing.segment import Delivery

_SHARED = ("receiver", "externalURL", "groupKey", "orgId", "title", "state", "truncatedAlerts", "appVersion")
_EXTRA = ("values", "valueString", "dashboardURL", "panelURL", "silenceURL", "imageURL", "ruleUID", "orgId")
_STATES = {"alerting": True, "no_data": True, "ok": False, "paused": False}
_NUMBER = re.compile(r"value=\s*([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)")
_EXPECTED = 'expected {"status", "alerts": […]} or legacy alerting\'s {"ruleId", "ruleName", "state"}'


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read deliveries of the webhook. Never raises on their content: what cannot be read is in ``rejects``."""
    return read_json(deliveries, _notification)


def _notification(events: Events, index: int, delivery: Delivery, offset: int, document: object) -> None:
    if not isinstance(document, dict):
        raise Refused(_EXPECTED)
    alerts = document.get("alerts")
    if not isinstance(alerts, list):
        if "ruleId" not in document and "ruleName" not in document:
            raise Refused(_EXPECTED)
        _legacy(events, index, document)
        return
    beside = {name: value for name, value in document.items() if name != "alerts"}
    shared = {name: document.get(name) for name in _SHARED}
    events.each(
        index,
        offset,
        alerts,
        lambda alert: _alert(events, index, beside, shared, alert),
        around=lambda alert: {**beside, "alerts": [alert]},
    )
    if not alerts:
        raise Refused("alerts: is empty")
    note_truncated(events, index, document)


def _alert(events: Events, index: int, beside: Mapping[str, Any], shared: Mapping[str, Any], alert: object) -> None:
    if not isinstance(alert, dict):
        raise Refused(_EXPECTED)
    extra = {name: alert.get(name) for name in _EXTRA if alert.get(name) is not None}
    take_alert(events, index, beside, shared, alert, extra, _value(alert.get("values"), alert.get("valueString")))


def _value(values: object, text: object) -> float | None:
    """The value that decided. Expressions that are conditions give 0 or 1 and are passed over when others remain."""
    numbers = [finite(value) for value in values.values()] if isinstance(values, dict) else []
    known = [value for value in numbers if value is not None]
    if not known and isinstance(text, str):
        known = [float(found) for found in _NUMBER.findall(text[:10_000])]
    telling = [value for value in known if value not in {0.0, 1.0}] or known
    return telling[0] if len(set(telling)) == 1 else None


def _legacy(events: Events, index: int, document: Mapping[str, Any]) -> None:
    state = document.get("state")
    if state == "pending":
        raise Refused("state: pending alerts are not news; allowed: alerting, no_data, ok, paused")
    if not isinstance(state, str) or state not in _STATES:
        raise Refused("state: allowed: alerting, no_data, ok, paused")
    matches = document.get("evalMatches")
    labels = text_labels(document.get("tags") if isinstance(document.get("tags"), dict) else None)
    first: Mapping[str, Any] = {}
    if isinstance(matches, list) and matches and isinstance(matches[0], dict):
        first = matches[0]
    matched = first.get("tags")
    host = where(labels) or (where(matched) if isinstance(matched, dict) else None)
    ids = [document.get(name) for name in ("orgId", "dashboardId", "panelId")]
    rule = document.get("ruleId") or document.get("ruleName")
    ts = instant_of(document.get("time") or document.get("date"))
    firing = _STATES[state]
    events.alert(
        index,
        ts,
        key=":".join(str(part) for part in ("legacy", *ids, rule) if isinstance(part, str | int)),
        name=document.get("ruleName"),
        firing=firing,
        severity_number=severity(labels.get("severity") or labels.get("priority"), 13 if state == "no_data" else 17),
        host=host,
        title=document.get("title") or document.get("message"),
        labels=labels,
        metric=first.get("metric") if isinstance(first.get("metric"), str) else None,
        starts_at=ts if firing else None,
        ends_at=None if firing else ts,
        value=finite(first.get("value")),
        evidence={
            name: document.get(name)
            for name in ("message", "ruleUrl", "imageUrl", "evalMatches", "state", "dashboardId", "panelId", "orgId")
        },
    )
    events.around(labels, host)
