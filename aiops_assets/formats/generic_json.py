"""Generic JSON for everything that is not Telegraf: points and changes, one object, an array, or one a line.

What belongs here: reading that shape. A point is ``{"host", "metric", "value", "ts", "unit", "kind", "labels"}`` (also
``hostname`` or ``device``; ``name``; ``time`` or ``timestamp``; ``tags``), a change ``{"type": "change", "kind",
"host", "service", "title", "actor", "ts", …}`` (or ``"type": "deploy"`` and so on). Items may stand in an array under
``points``, ``metrics``, ``events`` or ``changes``; host, time and labels beside that array hold for items that name
none. Times are ISO 8601 (UTC when no zone is given) or epoch numbers in seconds, milliseconds, microseconds or
nanoseconds, told by their magnitude. A bad item is rejected alone, with the field and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiops_assets.formats.batch import Parsed
from aiops_assets.formats.columns import PointColumns, checked_labels, number
from aiops_assets.formats.payload import (
    Refused,
    Rejects,
    UnreadableBody,
    documents,
    json_bytes,
    micros_of_json,
    plain_body,
)
from aiops_assets.formats.records import CHANGE_KINDS, Changes, checked_host
from aiops_assets.landing.segment import Delivery

_ARRAYS = ("points", "metrics", "events", "changes")
_HOSTS = ("host", "hostname", "device")
_METRICS = ("metric", "name")
_TIMES = ("ts", "time", "timestamp")
_LABELS = ("labels", "tags")
_KNOWN = frozenset((*_HOSTS, *_TIMES, "type", "kind", "service", "title", "actor"))
_CHANGE_TYPES = frozenset(("change", *CHANGE_KINDS)) - {"other"}
_EXPECTED = 'expected {"host", "metric", "value"} or {"type": "change", "host", "title"}, or an array of them'


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read deliveries of generic JSON. Never raises on their content: what cannot be read is in ``rejects``."""
    columns, changes, rejects = PointColumns(), Changes(), Rejects()
    productive: set[int] = set()
    for index, delivery in enumerate(deliveries):
        try:
            body = plain_body(delivery.body)
            for offset, document in documents(index, body, rejects):
                defaults, items = _items(document)
                for position, item in enumerate(items):
                    try:
                        _item(index, delivery.received_at, item, defaults, columns, changes)
                        productive.add(index)
                    except Refused as error:
                        place = f"item {position + 1}: " if len(items) > 1 else ""
                        content = json_bytes({**defaults, **item} if isinstance(item, dict) else item, body)
                        rejects.add(index, offset, f"{place}{error}", content)
                        if rejects.full(index):
                            break
        except UnreadableBody as error:
            rejects.add(index, 0, str(error), delivery.body)
    series, points = columns.finish()
    return Parsed(series, points, changes.frame(), rejects=rejects.finish(deliveries, productive))


def _items(document: object) -> tuple[dict[str, Any], list[Any]]:
    """What holds for all items, and the items."""
    if isinstance(document, list):
        return {}, document
    if isinstance(document, dict):
        for name in _ARRAYS:
            inner = document.get(name)
            if isinstance(inner, list):
                shared = (*_HOSTS, *_TIMES, *_LABELS)
                return {field: document[field] for field in shared if field in document}, inner
    return {}, [document]


def _item(
    index: int, received_at: int, item: object, defaults: Mapping[str, Any], columns: PointColumns, changes: Changes
) -> None:
    if not isinstance(item, dict):
        raise Refused(_EXPECTED)
    kind = item.get("type")
    if isinstance(kind, str) and kind in _CHANGE_TYPES:
        _change(index, received_at, item, defaults, kind, changes)
        return
    if kind is not None and "value" not in item:
        raise Refused(f"type: allowed: {', '.join(sorted(_CHANGE_TYPES))}; a point has no type")
    host = _first(item, _HOSTS, _first(defaults, _HOSTS))
    if host is None:
        raise Refused(f"host: is required (or {' or '.join(_HOSTS[1:])})" if item else _EXPECTED)
    metric = _first(item, _METRICS)
    if metric is None:
        raise Refused("metric: is required (or name)")
    if item.get("value") is None:
        raise Refused("value: is required, a number")
    labels = _first(item, _LABELS, _first(defaults, _LABELS))
    value = number("value", item["value"])
    ts = _micros(item, defaults, received_at)
    code = columns.known_code(host, metric, item.get("unit"), item.get("kind"), labels)
    columns.add(index, code, ts, value)


def _change(
    index: int, received_at: int, item: dict[str, Any], defaults: Mapping[str, Any], kind: str, changes: Changes
) -> None:
    service = item.get("service")
    host = checked_host(_first(item, _HOSTS, _first(defaults, _HOSTS, service)))
    details = {name: value for name, value in item.items() if name not in _KNOWN}
    labels = _first(item, _LABELS, _first(defaults, _LABELS))
    checked_labels(labels)
    changes.add(
        index,
        host,
        _micros(item, defaults, received_at),
        {
            "kind": item.get("kind", "other") if kind == "change" else kind,
            "service": service,
            "title": item.get("title"),
            "actor": item.get("actor"),
            "details": details,
        },
    )


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
