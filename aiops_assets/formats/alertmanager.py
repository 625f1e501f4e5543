"""Prometheus Alertmanager's webhook (version 4, and older ones without fingerprints): every alert one external alert.

What belongs here: that payload, and the reading of one alert of its family, which Grafana and collectd send as well.
What does not: Grafana's own fields (``grafana``). The news of a firing alert is as old as its ``startsAt``, of a
resolved one as its ``endsAt``: notifications that Alertmanager repeats give equal rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiops_assets.formats.batch import Parsed
from aiops_assets.formats.events import (
    Events,
    first_of,
    identity,
    instant_of,
    read_json,
    severity,
    text_labels,
    where,
)
from aiops_assets.formats.payload import Refused
from aiops_assets.landing.segment import Delivery

SEVERITY_LABELS = ("severity", "priority", "level")
TITLES = ("summary", "title", "description", "message")
#: fields of the notification that are evidence for each of its alerts
_SHARED = ("receiver", "externalURL", "groupKey", "version", "truncatedAlerts")
#: labels that may change while an alert stays the same
_VOLATILE = frozenset(SEVERITY_LABELS)
_EXPECTED = 'expected {"version": "4", "status", "alerts": [{"status", "labels", "annotations", "startsAt"}]}'


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read deliveries of the webhook. Never raises on their content: what cannot be read is in ``rejects``."""
    return read_json(deliveries, _notification)


def _notification(events: Events, index: int, delivery: Delivery, offset: int, document: object) -> None:
    if isinstance(document, list):
        document = {"alerts": document}
    if not isinstance(document, dict) or not isinstance(document.get("alerts"), list):
        raise Refused(_EXPECTED)
    alerts = document["alerts"]
    beside = {name: value for name, value in document.items() if name != "alerts"}
    shared = {name: document.get(name) for name in _SHARED}
    events.each(
        index,
        offset,
        alerts,
        lambda alert: take_alert(events, index, beside, shared, alert),
        around=lambda alert: {**beside, "alerts": [alert]},
    )
    if not alerts:
        raise Refused("alerts: is empty")
    note_truncated(events, index, document)


def note_truncated(events: Events, index: int, document: Mapping[str, Any]) -> None:
    """Say in the log that the sender left alerts out of this notification."""
    left_out = document.get("truncatedAlerts")
    if isinstance(left_out, int) and not isinstance(left_out, bool) and left_out > 0:
        events.log(
            index,
            None,
            None,
            f"{left_out} alerts of the group were left out of the notification: raise or remove max_alerts",
            app="alertmanager",
            severity_number=13,
            attributes={name: document.get(name) for name in ("groupKey", "receiver", "externalURL")},
        )


def take_alert(
    events: Events,
    index: int,
    beside: Mapping[str, Any],
    shared: Mapping[str, Any],
    alert: object,
    extra: Mapping[str, Any] | None = None,
    value: float | None = None,
) -> None:
    """Add one alert; ``beside`` is the rest of the notification, ``extra`` more evidence.

    Raises:
        Refused: naming the field that is wrong.
    """
    if not isinstance(alert, dict):
        raise Refused(_EXPECTED)
    labels = text_labels(alert.get("labels"))
    annotations = alert.get("annotations") or {}
    if not isinstance(annotations, dict):
        raise Refused("annotations: expected an object of strings")
    if not labels and not annotations:
        raise Refused("labels: is required")
    status = alert.get("status") or beside.get("status")
    starts_at, ends_at = instant_of(alert.get("startsAt")), instant_of(alert.get("endsAt"))
    if status is not None and status not in ("firing", "resolved"):
        raise Refused("status: allowed: firing, resolved")
    # clients of Alertmanager's own API send an end in the future while an alert lasts, and no status
    firing = status == "firing" if status else ends_at is None
    host = where(labels)
    events.alert(
        index,
        starts_at if firing else ends_at,
        key=alert.get("fingerprint") or fingerprint(labels),
        name=labels.get("alertname") or labels.get("rulename"),
        firing=firing,
        severity_number=severity(first_of(labels, SEVERITY_LABELS)),
        host=host,
        title=first_of(annotations, TITLES),
        labels=labels,
        starts_at=starts_at,
        ends_at=ends_at,
        value=value,
        evidence={
            "annotations": annotations,
            "generatorURL": alert.get("generatorURL"),
            "startsAt": alert.get("startsAt") if starts_at is None else None,
            **shared,
            **(extra or {}),
        },
    )
    events.around(labels, host)


def fingerprint(labels: Mapping[str, str]) -> str:
    """The identity of an alert that carries none: a hash of its labels, without those that tell how bad it is."""
    return identity(sorted((name, value) for name, value in labels.items() if name not in _VOLATILE))
