"""Generic JSON for what has no format of its own: points, changes, logs, alerts; one object, an array, or one a line.

What belongs here: reading that shape. A point is ``{"host", "metric", "value", "ts", "unit", "kind", "labels"}`` (also
``hostname`` or ``device``; ``name``; ``time`` or ``timestamp``; ``tags``), a change ``{"type": "change", "kind",
"host", "service", "title", "actor", "ts", …}`` (or ``"type": "deploy"`` and so on), a log ``{"type": "log", "host",
"app", "severity", "body", "ts", …}`` (also ``service``; ``level``; ``message``), an alert ``{"type": "alert", "name",
"key", "state", "severity", "host", "title", "labels", "starts_at", "ends_at", "value", …}``. Items may stand in an
array under ``points``, ``metrics``, ``events``, ``changes`` or ``logs``; host, time and labels beside that array hold
for items that name none. Times are ISO 8601 (UTC when no zone is given) or epoch numbers in seconds, milliseconds,
microseconds or nanoseconds, told by their magnitude. A bad item is rejected alone, with the field and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiops_assets.formats.batch import Parsed
from aiops_assets.formats.columns import checked_labels, number
from aiops_assets.formats.events import Events, finite, first_of, identity, severity
from aiops_assets.formats.payload import (
    Refused,
    UnreadableBody,
    documents,
    json_bytes,
    micros_of_json,
    unpacked,
)
from aiops_assets.formats.records import CHANGE_KINDS, checked_host
from aiops_assets.landing.segment import Delivery

_ARRAYS = ("points", "metrics", "events", "changes", "logs")
HOSTS = ("host", "hostname", "device")
_METRICS = ("metric", "name")
_TIMES = ("ts", "time", "timestamp")
_LABELS = ("labels", "tags")
_KNOWN = frozenset((*HOSTS, *_TIMES, "type", "kind", "service", "title", "actor"))
_CHANGE_TYPES = frozenset(("change", *CHANGE_KINDS)) - {"other"}
_BODIES = ("body", "message", "msg")
_APPS = ("app", "service", "logger")
_LOG = frozenset((*HOSTS, *_TIMES, *_BODIES, *_APPS, "type", "severity", "level", "pid", "id", "trace_id", "span_id"))
_ALERT = frozenset(
    (*HOSTS, *_TIMES, *_LABELS, "type", "key", "name", "state", "status", "severity", "title", "metric", "value",
     "threshold", "starts_at", "ends_at")
)  # fmt: skip
_STATES = {"firing": True, "resolved": False, "active": True, "open": True, "closed": False, "ok": False}
_TYPES = (*sorted(_CHANGE_TYPES), "log", "alert")
_EXPECTED = 'expected {"host", "metric", "value"} or {"type": "change", "host", "title"}, or an array of them'


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read deliveries of generic JSON. Never raises on their content: what cannot be read is in ``rejects``."""
    events = Events()
    rejects = events.rejects
    for index, delivery in enumerate(deliveries):
        try:
            body = unpacked(delivery)
            for offset, document in documents(index, body, rejects):
                defaults, items = items_of(document)
                for position, item in enumerate(items):
                    try:
                        take(events, index, delivery.received_at, item, defaults)
                    except Refused as error:
                        place = f"item {position + 1}: " if len(items) > 1 else ""
                        content = json_bytes({**defaults, **item} if isinstance(item, dict) else item, body)
                        rejects.add(index, offset, f"{place}{error}", content)
                        if rejects.full(index):
                            break
        except UnreadableBody as error:
            rejects.add(index, 0, str(error), delivery.body)
    return events.finish(deliveries)


def items_of(document: object) -> tuple[dict[str, Any], list[Any]]:
    """What holds for all items, and the items."""
    if isinstance(document, list):
        return {}, document
    if isinstance(document, dict):
        for name in _ARRAYS:
            inner = document.get(name)
            if isinstance(inner, list):
                shared = (*HOSTS, *_TIMES, *_LABELS)
                defaults = {field: document[field] for field in shared if field in document}
                return (defaults | {"type": "log"} if name == "logs" else defaults), inner
    return {}, [document]


def is_item(item: object, defaults: Mapping[str, Any]) -> bool:
    """Whether it looks like an item of this format, whatever its fields hold."""
    if not isinstance(item, dict):
        return False
    kind = item.get("type", defaults.get("type"))
    return (isinstance(kind, str) and kind in _TYPES) or ("value" in item and any(name in item for name in _METRICS))


def take(events: Events, index: int, received_at: int, item: object, defaults: Mapping[str, Any]) -> None:
    """Add one item; ``defaults`` hold where it names no host, time or labels.

    Raises:
        Refused: naming the field that is wrong and what is allowed.
    """
    if not isinstance(item, dict):
        raise Refused(_EXPECTED)
    kind = item.get("type", defaults.get("type"))
    if isinstance(kind, str) and kind in _CHANGE_TYPES:
        _change(events, index, received_at, item, defaults, kind)
        return
    if kind == "log":
        _log(events, index, item, defaults)
        return
    if kind == "alert":
        _alert(events, index, item, defaults)
        return
    if kind is not None and "value" not in item:
        raise Refused(f"type: allowed: {', '.join(_TYPES)}; a point has no type")
    host = _first(item, HOSTS, _first(defaults, HOSTS))
    if host is None:
        raise Refused(f"host: is required (or {' or '.join(HOSTS[1:])})" if item else _EXPECTED)
    metric = _first(item, _METRICS)
    if metric is None:
        raise Refused("metric: is required (or name)")
    if item.get("value") is None:
        raise Refused("value: is required, a number")
    labels = _first(item, _LABELS, _first(defaults, _LABELS))
    value = number("value", item["value"])
    ts = _micros(item, defaults, received_at)
    code = events.columns.known_code(host, metric, item.get("unit"), item.get("kind"), labels)
    events.columns.add(index, code, ts, value)
    events.productive.add(index)


def _change(
    events: Events, index: int, received_at: int, item: dict[str, Any], defaults: Mapping[str, Any], kind: str
) -> None:
    service = item.get("service")
    host = checked_host(_first(item, HOSTS, _first(defaults, HOSTS, service)))
    details = _rest(item, _KNOWN, "details")
    labels = _first(item, _LABELS, _first(defaults, _LABELS))
    checked_labels(labels)
    events.change(
        index,
        received_at,
        _micros(item, defaults, received_at),
        host,
        {
            "kind": item.get("kind", "other") if kind == "change" else kind,
            "service": service,
            "title": item.get("title"),
            "actor": item.get("actor"),
            "details": details,
        },
    )
    events.entity("service", service, depends_on=[host])


def _log(events: Events, index: int, item: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    body = first_of(item, _BODIES)
    if body is None:
        raise Refused(f"body: is required (or {' or '.join(_BODIES[1:])})")
    app = first_of(item, _APPS)
    host = checked_host(_first(item, HOSTS, _first(defaults, HOSTS, app)))
    given = first_of(item, ("severity", "level"))
    labels = _first(item, _LABELS, _first(defaults, _LABELS))
    extra = _rest(item, _LOG, "attributes")
    events.log(
        index,
        _instant(item, defaults, "ts"),
        host,
        body,
        app=app,
        pid=item.get("pid"),
        event_id=item.get("id"),
        severity_number=_severity(given) if given is not None else None,
        trace_id=item.get("trace_id"),
        span_id=item.get("span_id"),
        attributes=extra if labels is None or not isinstance(labels, dict) else {"labels": labels} | extra,
    )
    events.entity("host", host)
    events.entity("service", item.get("service"), depends_on=[host])


def _alert(events: Events, index: int, item: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    name = item.get("name")
    if not isinstance(name, str) or not name:
        raise Refused("name: is required: what the alert is called")
    state = first_of(item, ("state", "status"))
    word = state.lower() if isinstance(state, str) else "firing" if state is None else ""
    if word not in _STATES:
        raise Refused("state: allowed: firing, resolved")
    labels = checked_labels(_first(item, _LABELS, _first(defaults, _LABELS)))
    service = item.get("service")
    host = checked_host(_first(item, HOSTS, _first(defaults, HOSTS, service)))
    firing = _STATES[word]
    given = item.get("severity")
    ts = _instant(item, defaults, "ts")
    starts_at, ends_at = _instant(item, {}, "starts_at"), _instant(item, {}, "ends_at")
    told = starts_at if firing else ends_at
    events.alert(
        index,
        told if ts is None else ts,
        key=first_of(item, ("key", "id")) or identity(host, name, labels),
        name=name,
        firing=firing,
        severity_number=_severity(given) if given is not None else 13,
        host=host,
        title=item.get("title"),
        labels=labels,
        metric=item.get("metric"),
        starts_at=starts_at,
        ends_at=ends_at if ends_at is not None else ts,
        value=finite(item.get("value")),
        threshold=finite(item.get("threshold")),
        evidence=_rest(item, _ALERT, "evidence"),
    )
    events.entity("host", host)
    events.entity("service", service, depends_on=[host])


def _rest(item: Mapping[str, Any], known: frozenset[str], group: str) -> dict[str, Any]:
    """Fields without a meaning of their own, and those that stand in the object made for them."""
    rest = {name: value for name, value in item.items() if name not in known}
    inner = rest.get(group)
    return (
        {**inner, **{name: value for name, value in rest.items() if name != group}} if isinstance(inner, dict) else rest
    )


def _severity(given: object) -> int:
    """A severity number 1 to 24, or one of the usual words.

    Raises:
        Refused: neither.
    """
    if isinstance(given, int) and not isinstance(given, bool) and 1 <= given <= 24:
        return given
    found = severity(given, 0) if isinstance(given, str) else 0
    if not found:
        raise Refused("severity: allowed: trace, debug, info, warning, error, critical, or 1 to 24")
    return found


def _instant(item: Mapping[str, Any], defaults: Mapping[str, Any], field: str) -> int | None:
    names = _TIMES if field == "ts" else (field,)
    stamp = _first(item, names, _first(defaults, names))
    found = None if stamp is None else micros_of_json(stamp)
    if stamp is not None and found is None:
        raise Refused(f"{field}: expected ISO 8601 or an epoch number in s, ms, µs or ns")
    return found


def _micros(item: Mapping[str, Any], defaults: Mapping[str, Any], received_at: int) -> int:
    stamp = _first(item, _TIMES, _first(defaults, _TIMES))
    if stamp is None:
        return received_at
    ts = micros_of_json(stamp)
    if ts is None:
        raise Refused("ts: expected ISO 8601 or an epoch number in s, ms, µs or ns")
    return ts


def _first(record: Mapping[str, Any], names: Sequence[str], default: Any = None) -> Any:
    for name in names:
        value = record.get(name)
        if value is not None:
            return value
    return default
