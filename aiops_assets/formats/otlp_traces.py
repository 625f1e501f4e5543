"""OTLP traces, protobuf and JSON: one row a span, as it came.

What belongs here: reading that shape. What does not: resources and values (``otlp``). Identifiers are lower-case hex;
``attributes`` are those of the span, beside them ``events``, ``links``, ``resource``, ``scope`` and ``trace_state``
where sent. A span that ends before it begins, or has no end, has the duration 0 and its ``end_time_unix_nano`` among
the attributes. A span that cannot be read, or lacks an identifier, is rejected alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from aiops_assets.formats.batch import SPANS_SCHEMA, Parsed
from aiops_assets.formats.otlp import (
    UNKNOWN_SERVICE,
    JsonPart,
    Sender,
    Senders,
    enumerated,
    hex_id,
    id_of_bytes,
    integer,
    is_json,
    json_attributes,
    json_parts,
    micros_of_nanos,
    parts,
    plain_attributes,
    record_of,
    request_body,
    scoped,
    sender_of,
    storable,
    texts_of_json,
)
from aiops_assets.formats.payload import Refused, Rejects, UnreadableBody
from aiops_assets.formats.records import MAX_MICROS
from aiops_assets.landing.segment import Delivery

_KINDS = ("internal", "internal", "server", "client", "producer", "consumer")
_STATUSES = ("unset", "ok", "error")
_KIND_NUMBERS = {
    f"SPAN_KIND_{name}": number
    for number, name in enumerate(("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"))
}
_STATUS_NUMBERS = {f"STATUS_CODE_{name.upper()}": number for number, name in enumerate(_STATUSES)}

Row = tuple[Any, ...]


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read export requests. Never raises on their content: what cannot be read is in ``rejects``."""
    rows: list[Row] = []
    rejects, senders = Rejects(between=b""), Senders()
    for index, delivery in enumerate(deliveries):
        try:
            body = request_body(delivery)
            if is_json(delivery, body):
                for part in json_parts(index, body, rejects, "Spans", "spans"):
                    _json_scope(index, part, rows, rejects, senders)
                    if rejects.full(index):
                        break
            else:
                _protobuf(index, body, rows, rejects, senders)
        except UnreadableBody as error:
            rejects.add(index, 0, str(error), delivery.body)
    spans = pl.DataFrame(rows, schema=SPANS_SCHEMA, orient="row")
    productive = set(spans.get_column("delivery").unique().to_list())
    return Parsed(spans=spans, entities=senders.frame(), rejects=rejects.finish(deliveries, productive))


def _protobuf(index: int, body: bytes, rows: list[Row], rejects: Rejects, senders: Senders) -> None:
    from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

    for at, message in parts(index, body, rejects, ResourceSpans):
        try:
            sender = sender_of(plain_attributes(message.resource.attributes))
            senders.add(sender)
        except Refused as error:
            rejects.add(index, at, str(error), record_of(message))
            continue
        for scope in message.scope_spans:
            for span in scope.spans:
                try:
                    rows.append(_row(index, span, sender, scope.scope.name))
                except Refused as error:
                    only = ResourceSpans(resource=message.resource)
                    only.scope_spans.add(scope=scope.scope).spans.append(span)
                    rejects.add(index, at, str(error), record_of(only))
                    if rejects.full(index):
                        return


def _row(index: int, span: Any, sender: Sender, scope: str) -> Row:
    events = [_event(event.time_unix_nano, event.name, plain_attributes(event.attributes)) for event in span.events]
    links = [_link(link.trace_id.hex(), link.span_id.hex(), plain_attributes(link.attributes)) for link in span.links]
    return _described(
        index,
        sender,
        scope,
        (
            id_of_bytes("trace_id", span.trace_id, 32),
            id_of_bytes("span_id", span.span_id, 16),
            id_of_bytes("parent_span_id", span.parent_span_id, 16),
        ),
        (span.start_time_unix_nano, span.end_time_unix_nano),
        span.name,
        span.kind,
        (span.status.code, span.status.message),
        plain_attributes(span.attributes),
        events=events,
        links=links,
        trace_state=span.trace_state,
    )


def _json_scope(index: int, part: JsonPart, rows: list[Row], rejects: Rejects, senders: Senders) -> None:
    try:
        sender = sender_of(part.resource)
        senders.add(sender)
    except Refused as error:
        rejects.add(index, part.offset, str(error), part.content(part.records))
        return
    for span in part.records:
        try:
            rows.append(_json_row(index, span, sender, part.scope))
        except Refused as error:
            rejects.add(index, part.offset, str(error), part.content([span]))
            if rejects.full(index):
                return


def _json_row(index: int, span: object, sender: Sender, scope: str) -> Row:
    if not isinstance(span, dict):
        raise Refused("spans: expected objects")
    status = span.get("status") or {}
    if not isinstance(status, dict):
        raise Refused('status: expected {"code", "message"}')
    events = [
        _event(
            integer("timeUnixNano", event.get("timeUnixNano") or 0),
            texts_of_json(event, "name"),
            json_attributes(event.get("attributes")),
        )
        for event in _objects(span, "events")
    ]
    links = [
        _link(
            hex_id("links.traceId", link.get("traceId"), 32) or "",
            hex_id("links.spanId", link.get("spanId"), 16) or "",
            json_attributes(link.get("attributes")),
        )
        for link in _objects(span, "links")
    ]
    return _described(
        index,
        sender,
        scope,
        (
            hex_id("traceId", span.get("traceId"), 32),
            hex_id("spanId", span.get("spanId"), 16),
            hex_id("parentSpanId", span.get("parentSpanId"), 16),
        ),
        (
            integer("startTimeUnixNano", span.get("startTimeUnixNano") or 0),
            integer("endTimeUnixNano", span.get("endTimeUnixNano") or 0),
        ),
        texts_of_json(span, "name"),
        enumerated("kind", span.get("kind"), _KIND_NUMBERS),
        (enumerated("status.code", status.get("code"), _STATUS_NUMBERS), texts_of_json(status, "message")),
        json_attributes(span.get("attributes")),
        events=events,
        links=links,
        trace_state=texts_of_json(span, "traceState"),
    )


def _objects(span: dict[str, Any], field: str) -> list[dict[str, Any]]:
    found = span.get(field) or []
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise Refused(f"{field}: expected an array of objects")
    return found


def _event(nanos: int, name: str, attributes: dict[str, Any]) -> dict[str, Any]:
    return {"time_unix_nano": nanos, "name": name, "attributes": attributes}


def _link(trace_id: str, span_id: str, attributes: dict[str, Any]) -> dict[str, Any]:
    return {"trace_id": trace_id, "span_id": span_id, "attributes": attributes}


def _described(
    index: int,
    sender: Sender,
    scope: str,
    ids: tuple[str | None, str | None, str | None],
    nanos: tuple[int, int],
    name: str,
    kind: int,
    status: tuple[int, str],
    attributes: dict[str, Any],
    **more: Any,
) -> Row:
    """A row of the spans frame.

    Raises:
        Refused: something of it cannot be stored.
    """
    trace_id, span_id, parent = ids
    if trace_id is None or span_id is None:
        raise Refused("traceId and spanId: are required, and not nothing but zeros")
    start, end = nanos
    ts = micros_of_nanos(start)
    if ts is not None and not 0 <= ts <= MAX_MICROS:
        raise Refused("startTimeUnixNano: expected nanoseconds since the epoch")
    regular = end >= start > 0
    return (
        index,
        ts,
        trace_id,
        span_id,
        parent,
        (end - start) / 1e9 if regular else 0.0,
        storable("name", name),
        _KINDS[kind] if 0 <= kind < len(_KINDS) else "internal",
        sender.service or UNKNOWN_SERVICE,
        sender.host,
        _STATUSES[status[0]] if 0 <= status[0] < len(_STATUSES) else "unset",
        storable("status.message", status[1]) or None,
        scoped(attributes, sender, scope, end_time_unix_nano=0 if regular else end, **more),
    )
