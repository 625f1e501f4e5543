"""OTLP logs, protobuf and JSON: one row a log record.

What belongs here: reading that shape. What does not: resources and values (``otlp``). The time is that of the event,
else that of its observation; a body that is no text is kept as JSON. ``app`` is the service, else the scope (the
logger); ``attributes`` are those of the record, beside them ``resource``, ``scope``, ``severity_text``, ``event_name``
and ``observed_time_unix_nano`` where sent. A severity of zero is read from its text. The sender's own identity of a
record is ``log.record.uid``. A record that cannot be read is rejected alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from aiops_assets.formats.batch import LOGS_SCHEMA, Parsed
from aiops_assets.formats.otlp import (
    UNKNOWN_HOST,
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
    plain,
    plain_attributes,
    plain_of_json,
    record_of,
    request_body,
    scoped,
    sender_of,
    storable,
    text_of,
    texts_of_json,
)
from aiops_assets.formats.payload import Refused, Rejects, UnreadableBody, name_problem
from aiops_assets.formats.records import MAX_MICROS
from aiops_assets.landing.segment import Delivery

#: severities by name: OTLP's own, and words of common libraries
_WORDS = {
    "trace": 1, "debug": 5, "info": 9, "information": 9, "informational": 9, "notice": 10, "warn": 13, "warning": 13,
    "error": 17, "err": 17, "critical": 21, "crit": 21, "fatal": 21, "alert": 22, "emergency": 24, "emerg": 24,
}  # fmt: skip
_SEVERITIES = {
    f"SEVERITY_NUMBER_{word}{step or ''}": base + max(step - 1, 0)
    for word, base in (("TRACE", 1), ("DEBUG", 5), ("INFO", 9), ("WARN", 13), ("ERROR", 17), ("FATAL", 21))
    for step in (0, 2, 3, 4)
} | {"SEVERITY_NUMBER_UNSPECIFIED": 0}

Row = tuple[Any, ...]


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read export requests. Never raises on their content: what cannot be read is in ``rejects``."""
    rows: list[Row] = []
    rejects, senders = Rejects(between=b""), Senders()
    for index, delivery in enumerate(deliveries):
        try:
            body = request_body(delivery)
            if is_json(delivery, body):
                for part in json_parts(index, body, rejects, "Logs", "logRecords"):
                    _json_scope(index, part, rows, rejects, senders)
                    if rejects.full(index):
                        break
            else:
                _protobuf(index, body, rows, rejects, senders)
        except UnreadableBody as error:
            rejects.add(index, 0, str(error), delivery.body)
    logs = pl.DataFrame(rows, schema=LOGS_SCHEMA, orient="row")
    productive = set(logs.get_column("delivery").unique().to_list())
    return Parsed(logs=logs, entities=senders.frame(), rejects=rejects.finish(deliveries, productive))


def _protobuf(index: int, body: bytes, rows: list[Row], rejects: Rejects, senders: Senders) -> None:
    from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs

    for at, message in parts(index, body, rejects, ResourceLogs):
        try:
            sender = sender_of(plain_attributes(message.resource.attributes))
            senders.add(sender)
        except Refused as error:
            rejects.add(index, at, str(error), record_of(message))
            continue
        for scope in message.scope_logs:
            for record in scope.log_records:
                try:
                    rows.append(_row(index, record, sender, scope.scope.name))
                except Refused as error:
                    only = ResourceLogs(resource=message.resource)
                    only.scope_logs.add(scope=scope.scope).log_records.append(record)
                    rejects.add(index, at, str(error), record_of(only))
                    if rejects.full(index):
                        return


def _row(index: int, record: Any, sender: Sender, scope: str) -> Row:
    body = plain(record.body)
    attributes = plain_attributes(record.attributes)
    return _described(
        index,
        sender,
        scope,
        (record.time_unix_nano, record.observed_time_unix_nano),
        record.severity_number,
        record.severity_text,
        body,
        attributes,
        id_of_bytes("trace_id", record.trace_id, 32),
        id_of_bytes("span_id", record.span_id, 16),
        record.event_name,
    )


def _json_scope(index: int, part: JsonPart, rows: list[Row], rejects: Rejects, senders: Senders) -> None:
    try:
        sender = sender_of(part.resource)
        senders.add(sender)
    except Refused as error:
        rejects.add(index, part.offset, str(error), part.content(part.records))
        return
    for record in part.records:
        try:
            rows.append(_json_row(index, record, sender, part.scope))
        except Refused as error:
            rejects.add(index, part.offset, str(error), part.content([record]))
            if rejects.full(index):
                return


def _json_row(index: int, record: object, sender: Sender, scope: str) -> Row:
    if not isinstance(record, dict):
        raise Refused("logRecords: expected objects")
    body = plain_of_json(record.get("body"))
    return _described(
        index,
        sender,
        scope,
        (
            integer("timeUnixNano", record.get("timeUnixNano") or 0),
            integer("observedTimeUnixNano", record.get("observedTimeUnixNano") or 0),
        ),
        enumerated("severityNumber", record.get("severityNumber"), _SEVERITIES),
        texts_of_json(record, "severityText"),
        body,
        json_attributes(record.get("attributes")),
        hex_id("traceId", record.get("traceId"), 32),
        hex_id("spanId", record.get("spanId"), 16),
        texts_of_json(record, "eventName"),
    )


def _described(
    index: int,
    sender: Sender,
    scope: str,
    nanos: tuple[int, int],
    severity: int,
    severity_text: str,
    body: Any,
    attributes: dict[str, Any],
    trace_id: str | None,
    span_id: str | None,
    event_name: str,
) -> Row:
    """A row of the logs frame.

    Raises:
        Refused: something of it cannot be stored.
    """
    ts = micros_of_nanos(nanos[0] or nanos[1])
    if ts is not None and not 0 <= ts <= MAX_MICROS:
        raise Refused("timeUnixNano: expected nanoseconds since the epoch")
    # without a body the name of the event says what happened
    text = (event_name if body is None else body) if isinstance(body, str | None) else text_of(body)
    app = sender.service or scope or None
    if app is not None and name_problem("app", app):
        app = None
    event_id = attributes.get("log.record.uid")
    pid = sender.attributes.get("process.pid", attributes.get("process.pid"))
    return (
        index,
        ts,
        storable("log.record.uid", event_id) if isinstance(event_id, str) and event_id else None,
        sender.host if sender.host != UNKNOWN_HOST else (_host_of(attributes) or UNKNOWN_HOST),
        app,
        pid if isinstance(pid, int) and 0 <= pid < 2**63 else None,
        severity if 1 <= severity <= 24 else _WORDS.get(severity_text.strip().lower()),
        storable("body", text),
        trace_id,
        span_id,
        scoped(
            attributes,
            sender,
            scope,
            severity_text=severity_text,
            event_name=event_name,
            observed_time_unix_nano=nanos[1] if nanos[0] else 0,
        ),
    )


def _host_of(attributes: dict[str, Any]) -> str | None:
    """A host that a record names itself."""
    host = attributes.get("host.name")
    return host if isinstance(host, str) and name_problem("host", host) is None else None
