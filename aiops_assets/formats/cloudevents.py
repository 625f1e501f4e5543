"""CloudEvents 1.0 over HTTP: structured, batched, and binary (attributes in headers that begin with ``ce-``).

What belongs here: the envelope, and what becomes of an event: deployments (CDEvents and types that say so) are changes;
data that the generic format can read is read by it, with the event's host and time where an item has none; everything
else is a log event. ``source`` and ``id`` together identify an event, so one that comes twice is stored once.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import orjson

from aiops_assets.formats import generic_json
from aiops_assets.formats.batch import Parsed
from aiops_assets.formats.events import (
    Events,
    first_of,
    host_of,
    instant_of,
    prose,
    severity,
)
from aiops_assets.formats.payload import Refused, UnreadableBody, documents, unpacked
from aiops_assets.landing.segment import Delivery

_EXPECTED = 'expected {"specversion": "1.0", "id", "source", "type", "data"}, an array of them, or ce-… headers'
_REQUIRED = ("id", "source", "type")
_OWN = frozenset((*_REQUIRED, "specversion", "data", "data_base64", "time", "subject", "datacontenttype", "dataschema"))
#: types that tell of a deployment that was done
_DEPLOYS = re.compile(
    r"dev\.cdevents\.service\.(deployed|upgraded|rolledback|removed)\b"
    r"|(^|[._\-/])(deploy(ed|ment)?[._\-](succeeded|completed|finished|created)|deployed|rolled_?back|released)([._\-/]|$)",
    re.IGNORECASE,
)
_CONFIG = re.compile(r"dev\.cdevents\.environment\.(created|modified|deleted)\b|config(uration)?[._\-]changed", re.I)


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read deliveries of CloudEvents. Never raises on their content: what cannot be read is in ``rejects``."""
    events = Events()
    for index, delivery in enumerate(deliveries):
        try:
            body = unpacked(delivery)
            if "ce-id" in delivery.headers:
                _take(events, index, delivery, _binary(delivery, body))
            else:
                _structured(events, index, delivery, body)
        except (UnreadableBody, Refused) as error:
            events.rejects.add(index, 0, str(error), delivery.body)
    return events.finish(deliveries)


def _structured(events: Events, index: int, delivery: Delivery, body: bytes) -> None:
    for offset, document in documents(index, body, events.rejects):
        found = document if isinstance(document, list) else [document]
        events.each(index, offset, found, lambda event: _take(events, index, delivery, event))
        if events.rejects.full(index):
            return


def _binary(delivery: Delivery, body: bytes) -> dict[str, Any]:
    """The event whose attributes are headers and whose data is the body."""
    event: dict[str, Any] = {
        name[3:]: unquote(value) for name, value in delivery.headers.items() if name.startswith("ce-")
    }
    media_type = delivery.content_type.split(";")[0].strip().lower()
    if body:
        event["data"] = _data(body, media_type)
    if media_type:
        event["datacontenttype"] = media_type
    return event


def _data(body: bytes, media_type: str) -> object:
    if media_type in {"", "application/json", "text/json"} or media_type.endswith("+json"):
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            pass
    return body.decode("utf-8", "replace")


def _take(events: Events, index: int, delivery: Delivery, event: object) -> None:
    if not isinstance(event, dict):
        raise Refused(_EXPECTED)
    for name in _REQUIRED:
        if not isinstance(event.get(name), str) or not event[name]:
            raise Refused(f"{name}: is required, a string" if "specversion" in event else _EXPECTED)
    version = event.get("specversion", "1.0")
    if version not in ("1.0", "0.3"):
        raise Refused(f"specversion: allowed: 1.0, 0.3; got {str(version)[:32]!r}")
    data = event.get("data")
    if data is None and isinstance(event.get("data_base64"), str):
        try:
            packed = base64.b64decode(event["data_base64"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise Refused(f"data_base64: {error}") from error
        data = _data(packed, str(event.get("datacontenttype", "")))
    ts = instant_of(event.get("time"))
    if _DEPLOYS.search(event["type"]) or _CONFIG.search(event["type"]):
        _change(events, index, delivery, event, data, ts)
    elif not _generic(events, index, delivery, event, data, ts):
        _log(events, index, event, data, ts)


def _origin(event: Mapping[str, Any], data: object) -> tuple[str, str | None]:
    """Host and service of an event: told in its data or its extensions, else what it is about, else who sent it."""
    inner = data if isinstance(data, dict) else {}
    told = first_of(inner, generic_json.HOSTS) or first_of(event, generic_json.HOSTS)
    service = first_of(inner, ("service", "app")) or first_of(event, ("service", "app"))
    named = prose(service) if isinstance(service, str) else None
    if isinstance(told, str):
        return told, named
    source = event["source"]
    return named or prose(event.get("subject")) or (host_of(source) if "://" in source else source), named


def _change(
    events: Events, index: int, delivery: Delivery, event: Mapping[str, Any], data: object, ts: int | None
) -> None:
    inner: Mapping[str, Any] = data if isinstance(data, dict) else {}
    subject = inner.get("subject") if isinstance(inner.get("subject"), dict) else None
    content = subject.get("content") if subject and isinstance(subject.get("content"), dict) else {}
    context = inner.get("context")
    told = first_of(inner, generic_json.HOSTS)
    service = prose((subject or {}).get("id")) or prose(first_of(inner, ("service", "app", "name")))
    host = told if isinstance(told, str) else service or prose(event.get("subject")) or event["source"]
    if ts is None and isinstance(context, dict):
        ts = instant_of(context.get("timestamp"))
    artifact = prose(content.get("artifactId") or first_of(inner, ("version", "image", "artifact", "revision")))
    verb = event["type"].removeprefix("dev.cdevents.")
    title = prose(first_of(inner, ("title", "message"))) or " ".join(part for part in (verb, service, artifact) if part)
    events.change(
        index,
        delivery.received_at,
        ts,
        host,
        {
            "kind": "config" if _CONFIG.search(event["type"]) else "deploy",
            "service": service,
            "title": title,
            "actor": prose(first_of(inner, ("actor", "user", "author"))),
            "details": {name: value for name, value in event.items() if name not in {"data", "data_base64"}}
            | {"data": data},
        },
    )
    if service:
        events.entity("service", service)


def _generic(
    events: Events, index: int, delivery: Delivery, event: Mapping[str, Any], data: object, ts: int | None
) -> bool:
    """Whether the data was points, changes, logs or alerts of the generic format; all of it, or nothing is taken."""
    defaults, items = generic_json.items_of(data)
    if not items or not all(generic_json.is_item(item, defaults) for item in items):
        return False
    host, _ = _origin(event, data)
    defaults = {"host": host, **({"ts": ts} if ts is not None else {}), **defaults}
    events.each(
        index,
        0,
        items,
        lambda item: generic_json.take(events, index, delivery.received_at, item, defaults),
        around=lambda item: {**event, "data": {**defaults, **item}},
    )
    return True


def _log(events: Events, index: int, event: Mapping[str, Any], data: object, ts: int | None) -> None:
    host, service = _origin(event, data)
    inner: Mapping[str, Any] = data if isinstance(data, dict) else {}
    message = prose(first_of(inner, ("message", "msg", "body", "title", "summary", "description")))
    subject = prose(event.get("subject"))
    word = first_of(inner, ("severity", "level")) or event.get("severity")
    events.log(
        index,
        ts,
        host,
        message or (prose(data) if isinstance(data, str) else None) or " ".join(filter(None, (event["type"], subject))),
        app=service or prose(event["type"]),
        event_id=f"{event['source']}#{event['id']}" if len(event["source"]) + len(event["id"]) < 1_000 else None,
        severity_number=severity(word, 9) if isinstance(word, str | int) else 9,
        trace_id=_trace(event, 1),
        span_id=_trace(event, 2),
        attributes={
            "type": event["type"],
            "source": event["source"],
            "subject": subject,
            "data": data,
            "extensions": {name: value for name, value in event.items() if name not in _OWN},
        },
    )
    if service:
        events.entity("service", service)
    told = first_of(inner, generic_json.HOSTS) or first_of(event, generic_json.HOSTS)
    if isinstance(told, str):
        events.entity("host", told)


def _trace(event: Mapping[str, Any], part: int) -> str | None:
    """Part 1 (trace) or 2 (span) of the W3C ``traceparent`` extension."""
    given = event.get("traceparent")
    parts = given.split("-") if isinstance(given, str) and len(given) < 100 else []
    return parts[part] if len(parts) == 4 else None
