"""Log events as JSON: one object a line, an array, or an object with an array, from fluent-bit, vector, filebeat,
Docker, Loki's push API and everything alike.

What belongs here: how objects stand in a body. What their fields mean is in ``log_record``. A line of a followed file
that is no JSON is read as text; in a request it is rejected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import polars as pl

from aiops_assets.formats import text
from aiops_assets.formats.batch import Parsed
from aiops_assets.formats.framing import FRAMING, records
from aiops_assets.formats.log_record import Defaults, LogRows, read
from aiops_assets.formats.payload import Rejects, UnreadableBody, documents, json_bytes, unpacked
from aiops_assets.landing.segment import Delivery

_ARRAYS = ("events", "logs", "records", "entries", "messages", "items", "Records", "logEvents", "value")
_EXPECTED = "expected a JSON object with a message, or an array of them"


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read deliveries of JSON logs. Never raises on their content: what cannot be read is in ``rejects``."""
    rows, rejects = LogRows(), Rejects()
    productive: set[int] = set()
    plain: list[pl.DataFrame] = []
    framed = [index for index, delivery in enumerate(deliveries) if delivery.headers.get(FRAMING)]
    if framed:
        plain = _framed(deliveries, framed, rows, rejects, productive)
    for index, delivery in enumerate(deliveries):
        if delivery.headers.get(FRAMING):
            continue
        try:
            body = unpacked(delivery)
            defaults = defaults_of(delivery)
            for offset, document in documents(index, body, rejects):
                _document(index, document, defaults, offset, body, rows, rejects, productive)
        except UnreadableBody as error:
            rejects.add(index, 0, str(error), delivery.body)
    logs = pl.concat([rows.frame(), *plain]).sort("delivery", maintain_order=True)
    return Parsed(logs=logs, entities=rows.entities(), rejects=rejects.finish(deliveries, productive))


def defaults_of(delivery: Delivery) -> Defaults:
    """What the headers of a delivery say of its events."""
    headers = delivery.headers
    attributes = {"log.file.path": headers["path"]} if headers.get("path") else {}
    return Defaults(headers.get("host") or None, headers.get("app") or None, None, attributes)


def _document(
    index: int,
    document: object,
    defaults: Defaults,
    offset: int,
    body: bytes,
    rows: LogRows,
    rejects: Rejects,
    productive: set[int],
) -> None:
    items, shared = _items(document)
    for position, item in enumerate(items):
        if isinstance(item, dict) and item:
            read(rows, index, {**shared, **item} if shared else item, defaults, None)
            productive.add(index)
        elif isinstance(item, str) and item.strip():
            read(rows, index, {**shared, "message": item}, defaults, None)
            productive.add(index)
        else:
            place = f"item {position + 1}: " if len(items) > 1 else ""
            rejects.add(index, offset, place + _EXPECTED, json_bytes(item, body))
            if rejects.full(index):
                return


def _items(document: object) -> tuple[Sequence[object], Mapping[str, Any]]:
    """The events of a document, and the fields beside them that hold for all."""
    if isinstance(document, list):
        return document, {}
    if isinstance(document, dict):
        streams = document.get("streams")
        if isinstance(streams, list):
            loki = [entry for stream in streams for entry in _stream(stream)]
            return loki or [document], {}
        for name in _ARRAYS:
            inner = document.get(name)
            if isinstance(inner, list) and inner and all(isinstance(entry, dict) for entry in inner):
                return inner, {key: value for key, value in document.items() if key != name}
    return [document], {}


def _stream(stream: object) -> list[object]:
    """The lines of one stream of Loki's push API."""
    if not isinstance(stream, dict) or not isinstance(stream.get("values"), list):
        return [stream]
    labels = stream.get("stream")
    labels = labels if isinstance(labels, dict) else {}
    made: list[object] = []
    for value in stream["values"]:
        if isinstance(value, list) and len(value) in {2, 3} and isinstance(value[1], str):
            more = value[2] if len(value) == 3 and isinstance(value[2], dict) else {}
            made.append({**labels, **more, "timestamp": value[0], "message": value[1]})
        else:
            made.append(value)
    return made


def _framed(
    deliveries: Sequence[Delivery], chosen: Sequence[int], rows: LogRows, rejects: Rejects, productive: set[int]
) -> list[pl.DataFrame]:
    """Lines of followed files; those that are no JSON as text."""
    own = [deliveries[index] for index in chosen]
    found = Rejects()
    frame = records(own, found)
    for reject in found.finish(own, set(range(len(own)))):
        rejects.add(chosen[reject.delivery], reject.offset, reject.reason, reject.content)
    plain: list[int] = []
    for place, (number, line, event_id) in enumerate(frame.select("delivery", "text", "event_id").iter_rows()):
        index = chosen[number]
        productive.add(index)
        try:
            document = orjson.loads(line)
        except orjson.JSONDecodeError:
            document = None
        if isinstance(document, dict) and document:
            read(rows, index, document, defaults_of(deliveries[index]), event_id)
        else:
            plain.append(place)
    if not plain:
        return []
    logs = text.read_lines(frame[plain], own)
    numbers = pl.Series(list(chosen), dtype=pl.UInt32)[logs["delivery"]]
    return [logs.with_columns(numbers.alias("delivery"))]
