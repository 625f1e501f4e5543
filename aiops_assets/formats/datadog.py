"""Datadog's webhook integration: monitor notifications become external alerts, all other events log events.

What belongs here: the default payload and templates of users' own, whose fields are recognised by the name of the
variable they usually hold (``alert_transition``, ``ALERT_ID``, ``aggregKey`` and so on, at any level). What does not:
Datadog's query API (``datadog_api``). What Datadog did not fill (``null`` or its own ``$NAME``) counts as not sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

import orjson

from aiops_assets.formats.batch import Parsed, Reject
from aiops_assets.formats.events import (
    Events,
    finite,
    host_of,
    instant_of,
    read_json,
    severity,
    text_labels,
    where,
)
from aiops_assets.formats.payload import Refused, UnreadableBody, unpacked
from aiops_assets.landing.segment import Delivery

#: transition → (firing, severity when no priority tells it)
_TRANSITIONS: dict[str, tuple[bool, int]] = {
    "triggered": (True, 17),
    "re-triggered": (True, 17),
    "retriggered": (True, 17),
    "renotify": (True, 17),
    "re-notify": (True, 17),
    "alert": (True, 17),
    "error": (True, 17),
    "warn": (True, 13),
    "warning": (True, 13),
    "re-warn": (True, 13),
    "no data": (True, 13),
    "re-no data": (True, 13),
    "nodata": (True, 13),
    "recovered": (False, 9),
    "warn recovered": (False, 9),
    "no data recovered": (False, 9),
    "ok": (False, 9),
    "success": (False, 9),
}
_PREFIX = re.compile(
    r"^\s*(?:\[P(?P<priority>[1-5])\]\s*)?\[(?P<state>[A-Za-z][A-Za-z \-]{1,20})(?: on (?P<scope>[^\]]{0,500}))?\]\s*"
)
_VARIABLE = re.compile(r"\$[A-Z][A-Z0-9_]*")
_KINDS = {"error": 17, "warning": 13, "success": 9, "info": 9, "user_update": 9}
_FORM = "application/x-www-form-urlencoded"
_EXPECTED = 'expected the fields of the webhook\'s payload, for example {"id", "title", "alert_transition", "alert_id"}'
_ALL = {
    "id": ("id", "eventid"),
    "transition": ("alerttransition", "transition"),
    "monitor": ("alertid", "monitorid"),
    "group": ("aggregkey", "aggregationkey"),
    "cycle": ("alertcyclekey", "cyclekey"),
    "title": ("title", "eventtitle", "alerttitle"),
    "body": ("textonlymsg", "body", "eventmsg", "msgtext", "text", "msgtitle"),
    "event_type": ("eventtype",),
    "alert_type": ("alerttype",),
    "host": ("hostname", "host"),
    "tags": ("tags", "alertscope", "scope"),
    "priority": ("alertpriority", "priority"),
    "date": ("dateposix", "date", "lastupdatedposix", "lastupdated", "timestamp"),
    "metric": ("alertmetric", "metric"),
    "query": ("alertquery", "query"),
    "link": ("link", "url"),
    "snapshot": ("snapshot", "image"),
    "status": ("alertstatus", "status"),
    "user": ("user", "username"),
    "org": ("orgname", "orgid"),
}


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read deliveries of the webhook. Never raises on their content: what cannot be read is in ``rejects``."""
    parsed = read_json([_unform(delivery) for delivery in deliveries], _document)
    return replace(parsed, rejects=[_as_sent(reject, deliveries) for reject in parsed.rejects])


def _as_sent(reject: Reject, deliveries: Sequence[Delivery]) -> Reject:
    """A form that gave nothing is kept as it arrived."""
    sent = deliveries[reject.delivery]
    return replace(reject, content=sent.body) if sent.content_type.startswith(_FORM) else reject


def _unform(delivery: Delivery) -> Delivery:
    """A delivery that was encoded as a form ("Encode as form") as the JSON of its fields."""
    if not delivery.content_type.startswith(_FORM):
        return delivery
    try:
        fields = dict(parse_qsl(unpacked(delivery).decode(), keep_blank_values=True, max_num_fields=1_000))
    except (UnreadableBody, UnicodeDecodeError, ValueError):
        return delivery
    body = fields["payload"].encode() if list(fields) == ["payload"] else orjson.dumps(fields)
    return replace(delivery, body=body, headers={}) if fields else delivery


def _document(events: Events, index: int, delivery: Delivery, offset: int, document: object) -> None:
    items = document if isinstance(document, list) else [document]
    events.each(index, offset, items, lambda item: _event(events, index, item))


def _event(events: Events, index: int, item: object) -> None:
    if not isinstance(item, dict) or not item:
        raise Refused(_EXPECTED)
    named = dict(_fields(item))
    found = {field: next((named[name] for name in names if name in named), None) for field, names in _ALL.items()}
    if not any(found[field] for field in ("title", "body", "monitor", "event_type", "status")):
        raise Refused(_EXPECTED)
    title = str(found["title"] or found["status"] or found["body"] or "")
    prefix = _PREFIX.match(title)
    state = str(found["transition"] or (prefix["state"] if prefix else "")).strip().lower()
    scope = prefix["scope"] if prefix else None
    tags = _tags(scope.strip().strip("{}") if scope else None) | _tags(found["tags"])
    labels = text_labels(tags)
    given = found["host"]
    host = host_of(given) if isinstance(given, str) else where(labels)
    ts = instant_of(found["date"])
    priority = found["priority"] or (f"P{prefix['priority']}" if prefix and prefix["priority"] else None)
    evidence = {
        "body": found["body"],
        "link": found["link"],
        "snapshot": found["snapshot"],
        "query": found["query"],
        "status": found["status"],
        "event_type": found["event_type"],
        "event_id": found["id"],
        "cycle": found["cycle"],
        "org": found["org"],
        "sent": item,
    }
    if state in _TRANSITIONS:
        firing, default = _TRANSITIONS[state]
        named_severity = priority if str(priority).lower() not in {"normal", "low"} else None
        bare = _PREFIX.sub("", title) or title
        key = [str(found[part]) for part in ("monitor", "group") if found[part] is not None]
        if not found["group"] and host:
            key.append(host)
        events.alert(
            index,
            ts,
            key=":".join(key)
            if found["monitor"] or found["group"]
            else ":".join(["title", bare[:512], *([scope] if scope else key)]),
            name=bare,
            firing=firing,
            severity_number=severity(named_severity, default),
            host=host,
            title=title,
            labels=labels,
            metric=found["metric"] if isinstance(found["metric"], str) and len(found["metric"]) <= 200 else None,
            ends_at=None if firing else ts,
            value=finite(named.get("value") or named.get("alertvalue")),
            threshold=finite(named.get("threshold")),
            evidence=evidence,
        )
    else:
        events.log(
            index,
            ts,
            host,
            found["body"] or title,
            app="datadog",
            event_id=f"datadog:{found['id']}" if found["id"] else None,
            severity_number=_KINDS.get(str(found["alert_type"]).lower(), 9),
            attributes={"title": title, "labels": labels} | evidence,
        )
    events.around(labels, host)
    if isinstance(given, str) and host:
        events.entity("host", host)


def _fields(item: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[str, Any]]:
    """(name without case and separators, value) of every field that was filled; outer ones win over inner ones."""
    inner: list[tuple[str, Mapping[str, Any]]] = []
    own: dict[str, Any] = {}
    for name, value in item.items():
        if isinstance(value, dict):
            inner.append((name, value))
        elif not _unfilled(value):
            own.setdefault(re.sub(r"[^a-z0-9]", "", name.lower()), value)
    if depth < 3:
        for name, value in inner:
            outer = re.sub(r"[^a-z0-9]", "", name.lower())
            for field, found in _fields(value, depth + 1):
                yield (f"{outer}{field}", found) if field in {"id", "name", "type"} else (field, found)
    yield from own.items()


def _unfilled(value: object) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in {"", "null", "none", "n/a", "undefined"} or bool(_VARIABLE.fullmatch(value))
    return value is None


def _tags(given: object) -> dict[str, str]:
    """``a:b,c`` or an array of such as labels; a tag without a value is its own value, the first of a name counts."""
    parts = given.split(",") if isinstance(given, str) else given if isinstance(given, list) else []
    if isinstance(given, dict):
        return {str(name): str(value) for name, value in given.items() if not isinstance(value, dict | list)}
    labels: dict[str, str] = {}
    for part in parts:
        if isinstance(part, str) and part.strip():
            name, _, value = part.strip().partition(":")
            labels.setdefault(name or "tag", value or name)
    return labels
