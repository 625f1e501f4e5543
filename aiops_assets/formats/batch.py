"""What every format returns: strings once a series, numbers once a point.

A delivery of a thousand points mentions few distinct series, so formats return two frames: ``series`` holds each
distinct series of the batch once, ``points`` refers to it by row number. Everything downstream works on integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson
import polars as pl

from aiops_assets.tables import DOCUMENTS, ERROR_EVENTS, SPANS, TICKETS, TIMESTAMP

#: a host, metric or label longer than this many characters is refused
MAX_NAME_CHARS = 1024
#: a series is refused when its labels together are longer than this many characters
MAX_LABELS_CHARS = 16_384

#: One row a distinct series of the batch. ``kind`` is gauge, rate, counter or ratio; ``labels`` is canonical JSON
#: (sorted keys, string values, no spaces: ``labels_json``). Values in ``points`` are already scaled to ``unit``.
SERIES_SCHEMA: dict[str, pl.DataType] = {
    "host": pl.String(),
    "metric": pl.String(),
    "unit": pl.String(),
    "labels": pl.String(),
    "kind": pl.String(),
}

#: One row a point. ``delivery`` is the index into the deliveries handed to the parser, ``series`` the row of the
#: series frame, ``ts`` microseconds since the epoch (UTC).
POINTS_SCHEMA: dict[str, pl.DataType] = {
    "delivery": pl.UInt32(),
    "series": pl.UInt32(),
    "ts": pl.Int64(),
    "value": pl.Float64(),
}

#: Changes as formats see them; the pipeline adds change_id, source and position. Columns as in tables.CHANGES.
CHANGES_SCHEMA: dict[str, pl.DataType] = {
    "delivery": pl.UInt32(),
    "ts": TIMESTAMP,
    "kind": pl.String(),
    "host": pl.String(),
    "service": pl.String(),
    "title": pl.String(),
    "actor": pl.String(),
    "details": pl.String(),
}

#: Discovered entities; ``labels`` canonical JSON.
ENTITIES_SCHEMA: dict[str, pl.DataType] = {
    "kind": pl.String(),
    "name": pl.String(),
    "site": pl.String(),
    "labels": pl.String(),
    "depends_on": pl.List(pl.String()),
}

#: What every kind of event below has: ``delivery`` is the index into the deliveries handed to the parser, ``ts``
#: microseconds since the epoch (UTC), null when the sender gave none (it becomes the time of acceptance).
_EVENT: dict[str, pl.DataType] = {"delivery": pl.UInt32(), "ts": pl.Int64()}

#: Log lines; columns as in tables.LOG_EVENTS. ``event_id`` is the sender's own identifier, null when it has none: the
#: pipeline then derives one from the delivery and the place in it.
LOGS_SCHEMA: dict[str, pl.DataType] = _EVENT | {
    "event_id": pl.String(),
    "host": pl.String(),
    "app": pl.String(),
    "pid": pl.Int64(),
    "severity_number": pl.Int32(),
    "body": pl.String(),
    "trace_id": pl.String(),
    "span_id": pl.String(),
    "attributes": pl.String(),
}

#: Errors of applications; columns as in tables.ERROR_EVENTS. ``event_id`` as for logs.
ERRORS_SCHEMA: dict[str, pl.DataType] = _EVENT | {
    name: ERROR_EVENTS.schema[name]
    for name in (
        "event_id", "project", "platform", "severity_number", "type", "value", "culprit", "handled", "stack", "host",
        "service", "release", "environment", "fingerprint", "trace_id", "span_id", "attributes",
    )
}  # fmt: skip

#: Spans; columns as in tables.SPANS.
SPANS_SCHEMA: dict[str, pl.DataType] = _EVENT | {
    name: SPANS.schema[name]
    for name in (
        "trace_id", "span_id", "parent_span_id", "duration", "name", "kind", "service", "host", "status",
        "status_message", "attributes",
    )
}  # fmt: skip

#: Tickets; columns as in tables.TICKETS, the other instants too as microseconds.
TICKETS_SCHEMA: dict[str, pl.DataType] = _EVENT | {
    name: pl.Int64() if name.endswith("_at") else TICKETS.schema[name]
    for name in (
        "ticket_id", "number", "kind", "state", "title", "description", "priority", "impact", "urgency", "category",
        "service", "host", "assignment_group", "assignee", "opened_at", "resolved_at", "closed_at", "resolution",
        "details",
    )
}  # fmt: skip

#: Documents; columns as in tables.DOCUMENTS.
DOCUMENTS_SCHEMA: dict[str, pl.DataType] = _EVENT | {
    name: DOCUMENTS.schema[name]
    for name in (
        "document_id", "content_hash", "kind", "uri", "title", "text", "media_type", "language", "removed",
        "attributes",
    )
}  # fmt: skip

#: Alerts that other systems raised. ``key`` is the sender's own identity of the alert (its fingerprint or the like):
#: one alert of a source and key is open at a time. ``state`` is firing or resolved. ``ts`` is the instant of this news,
#: ``starts_at`` (null: about what is open, or else beginning now) and ``ends_at`` (null while it lasts) microseconds of
#: the event; ``labels`` canonical JSON;
#: ``evidence`` JSON: annotations, links, the sender's own values.
EXTERNAL_SCHEMA: dict[str, pl.DataType] = _EVENT | {
    "key": pl.String(),
    "name": pl.String(),
    "state": pl.String(),
    "severity_number": pl.Int32(),
    "host": pl.String(),
    "metric": pl.String(),
    "labels": pl.String(),
    "starts_at": pl.Int64(),
    "ends_at": pl.Int64(),
    "title": pl.String(),
    "value": pl.Float64(),
    "threshold": pl.Float64(),
    "evidence": pl.String(),
}


@dataclass(frozen=True, slots=True)
class Reject:
    """Bytes of a delivery that are not stored, and why; ``offset`` counts bytes in the decompressed body."""

    delivery: int
    offset: int
    reason: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Parsed:
    """The rows of a batch of deliveries of one format, and what could not be read."""

    series: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SERIES_SCHEMA))
    points: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=POINTS_SCHEMA))
    changes: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=CHANGES_SCHEMA))
    entities: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=ENTITIES_SCHEMA))
    rejects: list[Reject] = field(default_factory=list)
    logs: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=LOGS_SCHEMA))
    errors: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=ERRORS_SCHEMA))
    spans: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SPANS_SCHEMA))
    tickets: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=TICKETS_SCHEMA))
    documents: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=DOCUMENTS_SCHEMA))
    external: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=EXTERNAL_SCHEMA))


def labels_json(labels: Mapping[str, str]) -> str:
    """Labels as canonical JSON: sorted keys, string values, no spaces, characters beyond ASCII as they are.

    Raises:
        orjson.JSONEncodeError: a key or value is not a string that UTF-8 can hold.
    """
    return orjson.dumps(labels, option=orjson.OPT_SORT_KEYS).decode() if labels else "{}"
