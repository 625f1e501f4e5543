"""Sentry SDK envelopes (and the bare events of the older store endpoint): errors, spans, logs, points and check-ins.

What belongs here: the framing of envelopes and what each type of item becomes. What does not: the reading of an event
(``sentry_event``) and integration webhooks (``sentry``). The project is that of the address the SDK posted to (header
``project``), else that of the DSN in the envelope.

Items: event → error; transaction, span → spans; session(s) → ``sentry.sessions``, ``sentry.session.duration`` and
``sentry.session.errors``; client_report → ``sentry.discarded``; statsd, trace_metric → points under their own names;
log → log events; check_in → log event, and an external alert that a good check-in resolves; feedback → log events.
Attachments, profiles, replays and types that are not known leave a log event that names them, their size and their
hash; their bytes stay with the delivery. The microseconds of individual sessions are derived from their ids, because
clocks of browsers tell milliseconds and two sessions must not become one point.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson

from aiops_assets.formats.batch import Parsed
from aiops_assets.formats.events import (
    Events,
    as_json,
    finite,
    first_of,
    instant_of,
    prose,
    pseudonym,
)
from aiops_assets.formats.payload import MAX_JSON_BYTES, Refused, UnreadableBody, json_bytes, unpacked
from aiops_assets.formats.sentry_event import (
    attributes_of,
    error_row,
    event_id,
    host_of_event,
    instant_of_event,
    level,
    message_of,
    package_of,
    release_of,
    service_of,
    service_of_attributes,
    user_of,
    without_people,
)
from aiops_assets.landing.segment import Delivery

MAX_ITEMS = 10_000
_EVENT_FIELDS = frozenset(
    {"exception", "message", "logentry", "level", "platform", "stacktrace", "culprit", "timestamp", "type"}
)
_CHECK_IN = ("check_in_id", "event_id", "duration", "release", "environment", "monitor_config", "server_name")
_EXPECTED = "expected an envelope: a line of JSON headers, then items, each a line of headers and its payload"
_STATUSES = ("exited", "errored", "abnormal", "crashed", "unhandled")
_KINDS = {"server": "server", "client": "client", "producer": "producer", "consumer": "consumer"}
_UNITS = {
    "none": "1", "ratio": "1", "percent": "%", "nanosecond": "ns", "microsecond": "us", "millisecond": "ms",
    "second": "s", "minute": "min", "hour": "h", "day": "d", "week": "wk", "bit": "bit", "byte": "By",
    "kilobyte": "kBy", "kibibyte": "KiBy", "megabyte": "MBy", "mebibyte": "MiBy", "gigabyte": "GBy",
    "gibibyte": "GiBy", "terabyte": "TBy", "tebibyte": "TiBy",
}  # fmt: skip
#: attributes that would make a series of each user or process
_NO_LABELS = ("sentry.sdk", "sentry.trace", "user.", "process.", "server.address")
_STATSD = re.compile(
    r"(?P<name>[^@:|#]{1,200})(?:@(?P<unit>[a-zA-Z0-9_]{1,32}))?:(?P<values>[^|]{1,10000})\|(?P<type>[cdgs])"
    r"(?:\|#(?P<tags>[^|]{0,8000}))?(?:\|[^T|][^|]{0,200})*(?:\|T(?P<stamp>\d{1,19}))?\s*"
)


@dataclass(slots=True)
class _Envelope:
    """Where the items of an envelope come from."""

    events: Events
    index: int
    received_at: int
    project: str | None
    header: Mapping[str, Any]
    sent_at: int | None = None
    environment: str | None = None
    release: str | None = None
    points: dict[tuple[Any, ...], float] = field(default_factory=dict)

    @property
    def now(self) -> int:
        """When it was sent, else received."""
        return self.received_at if self.sent_at is None else self.sent_at

    def place(self, package: object) -> str:
        """What stands for the host where only a service or a project is known."""
        return package_of(package) or self.project or "unknown"


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read envelopes. Never raises on their content: what cannot be read is in ``rejects``."""
    events = Events()
    for index, delivery in enumerate(deliveries):
        try:
            body = _unwrapped(unpacked(delivery))
            if len(body) > MAX_JSON_BYTES:
                raise UnreadableBody(f"an envelope of more than {MAX_JSON_BYTES // 1024 // 1024} MiB")
            _delivery(events, index, delivery, body)
        except (UnreadableBody, Refused) as error:
            events.rejects.add(index, 0, str(error), delivery.body)
    return events.finish(deliveries)


def _unwrapped(body: bytes) -> bytes:
    """Old SDKs post to the store endpoint what zlib packed, in base64."""
    if body[:2] != b"eJ":
        return body
    try:
        packer = zlib.decompressobj()
        plain = packer.decompress(base64.b64decode(body, validate=False), MAX_JSON_BYTES)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise UnreadableBody(f"neither an envelope nor base64 of zlib: {error}") from error
    if not packer.eof:
        raise UnreadableBody("zlib: truncated, or too large when unpacked")
    return plain


def _delivery(events: Events, index: int, delivery: Delivery, body: bytes) -> None:
    project = delivery.headers.get("project")
    event = _bare_event(body)
    if event is not None:
        envelope = _Envelope(events, index, delivery.received_at, project, {})
        kind = "transaction" if event.get("type") == "transaction" else "event"
        _TAKERS[kind](envelope, {"type": kind}, orjson.dumps(event))
        return
    end = body.find(b"\n")
    header = _object(body if end < 0 else body[:end])
    if header is None:
        raise Refused(_EXPECTED)
    trace = header.get("trace")
    scope: Mapping[str, Any] = trace if isinstance(trace, dict) else {}
    envelope = _Envelope(
        events,
        index,
        delivery.received_at,
        project or _project_of(header.get("dsn")),
        header,
        instant_of(header.get("sent_at")),
        prose(scope.get("environment")),
        prose(scope.get("release")),
    )
    count = 0
    for offset, item, payload, broken in _items(body, len(body) if end < 0 else end + 1):
        count += 1
        reason = f"more than {MAX_ITEMS} items" if broken is None and count > MAX_ITEMS else broken
        if reason is None:
            kind = str(item.get("type"))
            try:
                _TAKERS.get(kind, _unknown)(envelope, item, payload)
                continue
            except Refused as error:
                reason = f"{kind[:64]}: {error}"
        content = b"\n".join((json_bytes(header, b"{}"), json_bytes(item, b"{}"), payload))
        events.rejects.add(index, offset, reason, content)
        if events.rejects.full(index) or count > MAX_ITEMS:
            break
    for (host, metric, unit, labels, ts), value in envelope.points.items():
        try:
            events.point(index, ts, host, metric, unit, "gauge", dict(labels), value)
        except Refused as error:
            point = {"host": host, "metric": metric, "labels": dict(labels), "ts": ts, "value": value}
            events.rejects.add(index, 0, str(error), json_bytes(point, body))
    if not count:
        raise Refused("an envelope without items")


def _bare_event(body: bytes) -> dict[str, Any] | None:
    """The event of a body of the store endpoint, which is nothing but JSON."""
    document = _object(body)
    if document is None or "items" in document or not _EVENT_FIELDS & document.keys():
        return None
    return document


def _items(body: bytes, start: int) -> Iterator[tuple[int, dict[str, Any], bytes, str | None]]:
    """(offset, headers, payload, what is wrong) of each item."""
    while start < len(body):
        if body[start : start + 1] in {b"\n", b"\r"}:
            start += 1
            continue
        end = body.find(b"\n", start)
        line = body[start:] if end < 0 else body[start:end]
        item = _object(line)
        if item is None or not isinstance(item.get("type"), str):
            yield start, item or {}, body[start:], 'an item\'s headers: expected {"type": …} on one line'
            return
        begin = len(body) if end < 0 else end + 1
        length = item.get("length")
        if isinstance(length, int) and not isinstance(length, bool) and length >= 0:
            stop = begin + length
            if stop > len(body):
                yield start, item, body[begin:], f"truncated: {len(body) - begin} of {length} bytes"
                return
            if stop < len(body) and body[stop : stop + 1] not in {b"\n", b"\r"}:
                yield start, item, body[begin:], "length: the payload does not end where it says"
                return
        else:
            stop = body.find(b"\n", begin)
            stop = len(body) if stop < 0 else stop
        yield start, item, body[begin:stop], None
        start = stop + 1


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _payload(payload: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise Refused(f"not JSON: {error}") from error
    if not isinstance(found, dict):
        raise Refused("expected an object")
    return found


def _project_of(dsn: object) -> str | None:
    if not isinstance(dsn, str) or len(dsn) > 2_000:
        return None
    try:
        return urlsplit(dsn).path.rstrip("/").rpartition("/")[2][:256] or None
    except ValueError:
        return None


def _event(envelope: _Envelope, item: Mapping[str, Any], payload: bytes) -> None:
    event = _payload(payload)
    if not _EVENT_FIELDS & event.keys():
        raise Refused("expected an event with an exception, a message or a level")
    row = error_row(event, envelope.project)
    row["event_id"] = row["event_id"] or event_id(envelope.header.get("event_id"))
    row["environment"] = row["environment"] or envelope.environment
    ts = instant_of_event(event)
    envelope.events.error(envelope.index, envelope.sent_at if ts is None else ts, row)
    _around(envelope, row["host"], row["service"])


def _around(envelope: _Envelope, host: str | None, service: str | None) -> None:
    if host:
        envelope.events.entity("host", host)
    if service:
        envelope.events.entity("service", service, depends_on=[host] if host else [])


def _transaction(envelope: _Envelope, item: Mapping[str, Any], payload: bytes) -> None:
    event = _payload(payload)
    given = event.get("contexts")
    contexts: Mapping[str, Any] = given if isinstance(given, dict) else {}
    trace = contexts.get("trace")
    if not isinstance(trace, dict):
        raise Refused("contexts.trace: is required")
    service = service_of(event, envelope.project)
    host = host_of_event(event)
    root = {
        **trace,
        "description": event.get("transaction") or trace.get("description"),
        "start_timestamp": event.get("start_timestamp"),
        "timestamp": event.get("timestamp"),
    }
    more = {
        "event_id": event_id(event.get("event_id")),
        "release": release_of(event) or envelope.release,
        "environment": event.get("environment") or envelope.environment,
        **attributes_of({**event, "contexts": {name: value for name, value in contexts.items() if name != "trace"}}),
    }
    _one_span(envelope, root, service, host, more)
    spans = event.get("spans")
    envelope.events.each(
        envelope.index,
        0,
        spans if isinstance(spans, list) else [],
        lambda span: _one_span(envelope, span, service, host, {}, trace.get("trace_id")),
        around=lambda span: {"trace_id": trace.get("trace_id"), "spans": [span]},
    )
    _around(envelope, host, service)


def _one_span(
    envelope: _Envelope,
    span: object,
    service: str | None,
    host: str | None,
    more: Mapping[str, Any],
    trace_id: object = None,
) -> None:
    """Add a span of a transaction, or one that was sent alone.

    Raises:
        Refused: identifiers or times are missing.
    """
    if not isinstance(span, dict):
        raise Refused("expected a span, an object")
    data = span.get("data")
    given = data if isinstance(data, dict) else {}
    start = instant_of(span.get("start_timestamp"))
    end = instant_of(span.get("timestamp") or span.get("end_timestamp"))
    if start is None or end is None:
        raise Refused("start_timestamp, timestamp: expected the start and the end")
    op = prose(span.get("op") or given.get("sentry.op"), 256)
    status = prose(span.get("status"), 256)
    envelope.events.span(
        envelope.index,
        start,
        {
            "trace_id": span.get("trace_id") or trace_id,
            "span_id": span.get("span_id"),
            "parent_span_id": span.get("parent_span_id"),
            "duration": (end - start) / 1_000_000,
            "name": span.get("description") or span.get("name") or op,
            "kind": _kind(span.get("kind"), op),
            "service": service,
            "host": host,
            "status": _status(status),
            "status_message": status if _status(status) == "error" else None,
            "attributes": {
                name: value
                for name, value in {
                    "op": op,
                    "origin": prose(span.get("origin"), 256),
                    "data": without_people(given),
                    "tags": without_people(span.get("tags")),
                    "measurements": span.get("measurements"),
                    **more,
                }.items()
                if value not in (None, {}, [], "")
            },
        },
    )


def _kind(given: object, op: str | None) -> str:
    """The kind of a span, from what it does where it is not told."""
    if isinstance(given, str) and given.lower() in _KINDS:
        return given.lower()
    if not op:
        return "internal"
    if op.startswith(("queue.publish", "queue.submit", "topic.send")):
        return "producer"
    if op.startswith(("queue.process", "queue.task", "queue.receive", "topic.receive")):
        return "consumer"
    if op.endswith(".server"):
        return "server"
    return "client" if op.endswith(".client") or op.split(".")[0] in {"db", "cache", "rpc"} else "internal"


def _status(status: str | None) -> str:
    if status is None or status in {"unset", "unknown", "cancelled"}:
        return "unset"
    return "ok" if status == "ok" else "error"


def _span(envelope: _Envelope, item: Mapping[str, Any], payload: bytes) -> None:
    document = _payload(payload)
    spans = document.get("items")
    if isinstance(spans, list):
        envelope.events.each(
            envelope.index, 0, spans, lambda span: _span_v2(envelope, span), around=lambda span: {"items": [span]}
        )
        return
    data = document.get("data")
    scope = data if isinstance(data, dict) else {}
    service = service_of_attributes(scope) or envelope.place(scope.get("sentry.release") or envelope.release)
    host = prose(scope.get("server.address") or scope.get("host.name"))
    _one_span(envelope, document, service, host, {"segment_id": document.get("segment_id")})
    _around(envelope, None, service)


def _span_v2(envelope: _Envelope, span: object) -> None:
    if not isinstance(span, dict):
        raise Refused("expected a span, an object")
    attributes = _flat(span.get("attributes"))
    service = service_of_attributes(attributes) or envelope.place(attributes.get("sentry.release") or envelope.release)
    host = prose(attributes.get("host.name"))
    op = attributes.get("sentry.op")
    more = {"attributes": without_people(attributes), "links": span.get("links")}
    plain = {name: value for name, value in span.items() if name != "attributes"}
    _one_span(envelope, {**plain, "op": op, "kind": attributes.get("sentry.kind")}, service, host, more)
    _around(envelope, host, service)


def _flat(attributes: object) -> dict[str, Any]:
    """``{name: {"value", "type"}}`` as ``{name: value}``."""
    if not isinstance(attributes, dict):
        return {}
    return {
        name: value["value"] if isinstance(value, dict) and "value" in value else value
        for name, value in attributes.items()
    }


def _log(envelope: _Envelope, item: Mapping[str, Any], payload: bytes) -> None:
    document = _payload(payload)
    records = document.get("items")
    records = records if isinstance(records, list) else [document]
    envelope.events.each(
        envelope.index, 0, records, lambda record: _record(envelope, record), around=lambda record: {"items": [record]}
    )


def _record(envelope: _Envelope, record: object) -> None:
    if not isinstance(record, dict) or not ("body" in record or "level" in record):
        raise Refused('expected a log record {"timestamp", "level", "body", "attributes"}')
    attributes = _flat(record.get("attributes"))
    number = record.get("severity_number")
    plain = isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= 24
    service = service_of_attributes(attributes) or envelope.place(attributes.get("sentry.release") or envelope.release)
    named = prose(attributes.get("server.address") or attributes.get("host.name"))
    ts = instant_of(record.get("timestamp"))
    body = record.get("body")
    envelope.events.log(
        envelope.index,
        envelope.sent_at if ts is None else ts,
        named or service,
        body["stringValue"] if isinstance(body, dict) and isinstance(body.get("stringValue"), str) else body,
        app=prose(attributes.get("logger.name")) or service,
        pid=attributes.get("process.pid"),
        severity_number=number if plain else level(record.get("level"), 9),
        trace_id=record.get("trace_id"),
        span_id=record.get("span_id") or attributes.get("sentry.trace.parent_span_id"),
        attributes=without_people(attributes),
    )
    _around(envelope, named, service)


def _count(
    envelope: _Envelope, host: str, metric: str, unit: str, labels: Mapping[str, object], ts: int, value: float
) -> None:
    """Add to a point; what one envelope counts of one series at one instant is summed."""
    kept = tuple(sorted((name, text) for name, text in ((n, prose(v)) for n, v in labels.items()) if text))
    key = (host, metric, unit, kept, ts)
    envelope.points[key] = envelope.points.get(key, 0.0) + value


def _session(envelope: _Envelope, item: Mapping[str, Any], payload: bytes) -> None:
    session = _payload(payload)
    given = session.get("attrs")
    attrs: Mapping[str, Any] = given if isinstance(given, dict) else {}
    status = prose(session.get("status"), 32)
    if status is None:
        raise Refused("status: is required")
    stamp = instant_of(session.get("timestamp"))
    ts = envelope.now if stamp is None else stamp
    digest = hashlib.blake2b(as_json(session.get("sid")).encode(), digest_size=2).digest()
    if ts % 1_000 == 0:
        ts += int.from_bytes(digest, "big") % 1_000
    host = envelope.place(attrs.get("release"))
    labels = {"status": status, "release": attrs.get("release"), "environment": attrs.get("environment")}
    _count(envelope, host, "sentry.sessions", "{session}", labels, ts, 1.0)
    duration, errors = finite(session.get("duration")), finite(session.get("errors"))
    if duration is not None:
        _count(envelope, host, "sentry.session.duration", "s", labels, ts, duration)
    if errors:
        _count(envelope, host, "sentry.session.errors", "{error}", labels, ts, errors)
    envelope.events.entity("service", host)


def _sessions(envelope: _Envelope, item: Mapping[str, Any], payload: bytes) -> None:
    document = _payload(payload)
    aggregates = document.get("aggregates")
    if not isinstance(aggregates, list):
        raise Refused("aggregates: expected an array")
    given = document.get("attrs") or document.get("attributes")
    attrs: Mapping[str, Any] = given if isinstance(given, dict) else {}
    host = envelope.place(attrs.get("release"))
    shared = {"release": attrs.get("release"), "environment": attrs.get("environment")}
    counted = False
    for aggregate in aggregates:
        for status in _STATUSES:
            number = finite(aggregate.get(status)) if isinstance(aggregate, dict) else None
            if number is not None:
                # a minute is told in parts by each process and each flush: the instant of sending tells them apart
                labels = {"status": status, **shared}
                _count(envelope, host, "sentry.sessions", "{session}", labels, envelope.now, number)
                counted = True
    if not counted:
        raise Refused("aggregates: no counts of exited, errored, abnormal or crashed")
    envelope.events.entity("service", host)


def _client_report(envelope: _Envelope, item: Mapping[str, Any], payload: bytes) -> None:
    report = _payload(payload)
    stamp = instant_of(report.get("timestamp"))
    ts = envelope.now if stamp is None else stamp
    counted = False
    for field_name in ("discarded_events", "rate_limited_events", "filtered_events", "filtered_sampling_events"):
        found = report.get(field_name)
        for entry in found if isinstance(found, list) else ():
            quantity = finite(entry.get("quantity")) if isinstance(entry, dict) else None
            if quantity is not None:
                labels = {"reason": entry.get("reason"), "category": entry.get("category")}
                host = envelope.place(envelope.release)
                _count(envelope, host, "sentry.discarded", "{event}", labels, ts, quantity)
                counted = True
    if not counted:
        raise Refused('discarded_events: expected [{"reason", "category", "quantity"}]')


def _check_in(envelope: _Envelope, item: Mapping[str, Any], payload: bytes) -> None:
    check_in = _payload(payload)
    slug, status = prose(check_in.get("monitor_slug")), prose(check_in.get("status"), 32)
    if slug is None or status is None:
        raise Refused("monitor_slug, status: are required")
    stamp = instant_of(check_in.get("timestamp"))
    ts = envelope.sent_at if stamp is None else stamp
    release, environment = check_in.get("release"), prose(check_in.get("environment"))
    host = host_of_event(check_in) or envelope.place(release)
    failed = status in {"error", "missed", "timeout"}
    details = {name: check_in.get(name) for name in _CHECK_IN if check_in.get(name) is not None}
    envelope.events.log(
        envelope.index,
        ts,
        host,
        f"check-in of {slug}: {status}",
        app=slug,
        severity_number=17 if failed else 9,
        attributes=without_people(details) | {"status": status},
    )
    if failed or status == "ok":
        labels = {"monitor": slug, **({"environment": environment} if environment else {})}
        envelope.events.alert(
            envelope.index,
            ts,
            key=f"check_in:{envelope.project or 'unknown'}:{environment or ''}:{slug}",
            name=slug,
            firing=failed,
            severity_number=17,
            host=host,
            title=f"{slug}: {'failed' if status == 'error' else status}",
            labels=labels,
            ends_at=ts,
            evidence=without_people(details) | {"status": status},
        )
    duration = finite(check_in.get("duration"))
    if duration is not None:
        at = envelope.now if ts is None else ts
        about = {"monitor": slug, "status": status, "environment": environment}
        _count(envelope, host, "sentry.check_in.duration", "s", about, at, duration)
    _around(envelope, host_of_event(check_in), envelope.place(release))


def _feedback(envelope: _Envelope, item: Mapping[str, Any], payload: bytes) -> None:
    document = _payload(payload)
    contexts = document.get("contexts")
    inner = contexts.get("feedback") if isinstance(contexts, dict) else None
    feedback: Mapping[str, Any] = inner if isinstance(inner, dict) else document
    message = prose(feedback.get("message") or feedback.get("comments") or message_of(document))
    if message is None:
        raise Refused("comments: is required")
    ts = instant_of(document.get("timestamp"))
    person = first_of(feedback, ("contact_email", "email", "name"))
    user = document.get("user")
    about = feedback.get("associated_event_id") or document.get("event_id")
    service = service_of(document, envelope.project)
    envelope.events.log(
        envelope.index,
        envelope.sent_at if ts is None else ts,
        host_of_event(document) or service,
        message,
        app="sentry.feedback",
        event_id=f"feedback:{event_id(document.get('event_id'))}" if item.get("type") == "feedback" else None,
        severity_number=9,
        attributes={
            "about": about,
            "person": pseudonym(person) if person else user_of(user) if isinstance(user, dict) else None,
        },
    )
    _around(envelope, None, service)


def _statsd(envelope: _Envelope, item: Mapping[str, Any], payload: bytes) -> None:
    try:
        lines = [line.strip() for line in payload.decode().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise Refused(f"not UTF-8: {error.reason}") from error
    envelope.events.each(envelope.index, 0, lines, lambda line: _statsd_line(envelope, line))
    if not lines:
        raise Refused("no metrics")


def _statsd_line(envelope: _Envelope, line: str) -> None:
    found = _STATSD.fullmatch(line)
    values = [finite(text) for text in found["values"].split(":")] if found else []
    numbers = [value for value in values if value is not None]
    if found is None or len(numbers) < len(values):
        raise Refused("expected a metric as name@unit:values|type|#tags|Ttimestamp")
    ts = instant_of(found["stamp"]) if found["stamp"] else None
    tags = dict(tag.partition(":")[::2] for tag in (found["tags"] or "").split(",") if tag)
    host = envelope.place(tags.get("release") or envelope.release)
    unit = _UNITS.get(found["unit"] or "none", "")
    at = envelope.now if ts is None else ts
    name = found["name"]
    if found["type"] == "c":
        told = {name: sum(numbers)}
    elif found["type"] == "g":
        told = {name: numbers[0]}
    elif found["type"] == "s":
        told = {name: float(len(set(numbers)))}
    else:
        told = {
            f"{name}.count": float(len(numbers)),
            f"{name}.sum": sum(numbers),
            f"{name}.min": min(numbers),
            f"{name}.max": max(numbers),
        }
    for metric, value in told.items():
        envelope.events.point(
            envelope.index, at, host, metric, "" if metric.endswith(".count") else unit, "gauge", tags, value
        )


def _trace_metric(envelope: _Envelope, item: Mapping[str, Any], payload: bytes) -> None:
    document = _payload(payload)
    found = document.get("items")
    records = found if isinstance(found, list) else [document]
    envelope.events.each(
        envelope.index, 0, records, lambda record: _metric(envelope, record), around=lambda record: {"items": [record]}
    )


def _metric(envelope: _Envelope, record: object) -> None:
    value = finite(record.get("value")) if isinstance(record, dict) else None
    if not isinstance(record, dict) or value is None:
        raise Refused('expected a metric {"timestamp", "name", "type", "value"}')
    attributes = _flat(record.get("attributes"))
    labels = {
        name: text
        for name, text in ((name, prose(value)) for name, value in without_people(attributes).items())
        if text and not name.startswith(_NO_LABELS)
    }
    service = service_of_attributes(attributes) or envelope.place(attributes.get("sentry.release") or envelope.release)
    stamp = instant_of(record.get("timestamp"))
    envelope.events.point(
        envelope.index,
        envelope.now if stamp is None else stamp,
        prose(attributes.get("server.address")) or service,
        prose(record.get("name")) or "",
        _UNITS.get(str(record.get("unit") or "none"), ""),
        "gauge",
        labels,
        value,
    )


def _kept_aside(envelope: _Envelope, item: Mapping[str, Any], payload: bytes) -> None:
    """What has no table of its own: named in the log with its size and hash."""
    kind = prose(item.get("type"), 64) or "item"
    service = envelope.place(envelope.release)
    named = prose(item.get("filename"), 256)
    envelope.events.log(
        envelope.index,
        envelope.sent_at,
        service,
        f"{kind}{f' {named}' if named else ''}: {len(payload)} bytes, not stored as rows",
        app="sentry",
        severity_number=5,
        attributes={
            "type": kind,
            "filename": named,
            "content_type": prose(item.get("content_type"), 256),
            "attachment_type": prose(item.get("attachment_type"), 256),
            "bytes": len(payload),
            "sha256": hashlib.sha256(payload).hexdigest(),
            "event_id": event_id(envelope.header.get("event_id")),
        },
    )


def _unknown(envelope: _Envelope, item: Mapping[str, Any], payload: bytes) -> None:
    _kept_aside(envelope, item, payload)


_TAKERS: dict[str, Callable[[_Envelope, Mapping[str, Any], bytes], None]] = {
    "event": _event,
    "error": _event,
    "default": _event,
    "transaction": _transaction,
    "span": _span,
    "otel_span": _unknown,
    "log": _log,
    "otel_log": _log,
    "session": _session,
    "sessions": _sessions,
    "client_report": _client_report,
    "check_in": _check_in,
    "user_report": _feedback,
    "feedback": _feedback,
    "statsd": _statsd,
    "trace_metric": _trace_metric,
}
