"""Splunk HTTP Event Collector: JSON objects one after the other, log events or metrics.

What belongs here: reading what is posted to ``/services/collector/event``. Raw text is in ``hec_raw``. An object has
``event`` (text or an object) and may have ``time`` (seconds, with a fraction), ``host``, ``source``, ``sourcetype``,
``index`` and ``fields``; ``"event": "metric"`` has its values as ``metric_name:…`` in ``fields``. Source, source type
and index are kept under the names that OpenTelemetry gives them (``com.splunk.…``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import orjson

from aiops_assets.formats.batch import Parsed
from aiops_assets.formats.columns import PointColumns, number
from aiops_assets.formats.log_record import Defaults, LogRows, plain_labels, read, storable, time_of
from aiops_assets.formats.payload import (
    MAX_JSON_BYTES,
    Refused,
    Rejects,
    UnreadableBody,
    json_bytes,
    name_problem,
    unpacked,
)
from aiops_assets.formats.severity import of_word
from aiops_assets.landing.segment import Delivery

_METRIC = "metric_name:"
_SPLUNK = ("source", "sourcetype", "index")
_DECODER = json.JSONDecoder()
_BLANKS = " \t\r\n,"


@dataclass(frozen=True, slots=True)
class _Broken:
    reason: str
    content: bytes


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read HEC events. Never raises on their content: what cannot be read is in ``rejects``."""
    rows, points, rejects = LogRows(), PointColumns(), Rejects()
    productive: set[int] = set()
    for index, delivery in enumerate(deliveries):
        try:
            body = unpacked(delivery)
            defaults = metadata(delivery)
            for offset, item in objects(body):
                if isinstance(item, _Broken):
                    rejects.add(index, offset, item.reason, item.content)
                    continue
                try:
                    _item(index, delivery.received_at, item, defaults, rows, points)
                    productive.add(index)
                except Refused as error:
                    rejects.add(index, offset, str(error), json_bytes(item, body))
                    if rejects.full(index):
                        break
        except UnreadableBody as error:
            rejects.add(index, 0, str(error), delivery.body)
    series, values = points.finish()
    return Parsed(
        series, values, logs=rows.frame(), entities=rows.entities(), rejects=rejects.finish(deliveries, productive)
    )


def metadata(delivery: Delivery) -> dict[str, str]:
    """host, source, sourcetype, index and time as the query of the request gave them."""
    query = dict(parse_qsl(delivery.headers.get("query", ""), max_num_fields=100))
    given = {name: query[name] for name in ("host", *_SPLUNK, "time") if query.get(name)}
    if delivery.headers.get("host"):
        given.setdefault("host", delivery.headers["host"])
    return given


def objects(body: bytes) -> Iterator[tuple[int, Any]]:
    """JSON values that follow each other with or without separators, with byte offsets; an array's items one by one.

    What follows a broken object, up to the next line that begins with one, is yielded as ``_Broken``.

    Raises:
        UnreadableBody: too large.
    """
    if len(body) > MAX_JSON_BYTES:
        raise UnreadableBody(f"JSON of more than {MAX_JSON_BYTES // 1024 // 1024} MiB")
    try:
        whole = orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    else:
        yield from ((0, item) for item in (whole if isinstance(whole, list) else [whole]))
        return
    text = body.decode("utf-8", "surrogateescape")
    place, size = 0, len(text)
    ascii_only = len(text) == len(body)
    while True:
        while place < size and text[place] in _BLANKS:
            place += 1
        if place >= size:
            return
        offset = place if ascii_only else len(text[:place].encode("utf-8", "surrogateescape"))
        try:
            item, place = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            following = text.find("\n{", place + 1)
            end = size if following < 0 else following
            yield offset, _Broken(f"not JSON: {error}", text[place:end].encode("utf-8", "surrogateescape"))
            place = end
        else:
            yield from ((offset, entry) for entry in (item if isinstance(item, list) else [item]))


def _item(
    index: int,
    received_at: int,
    item: object,
    defaults: Mapping[str, str],
    rows: LogRows,
    points: PointColumns,
) -> None:
    if not isinstance(item, dict):
        raise Refused('expected {"event": …, "time": …, "host": …}')
    fields = item.get("fields")
    if fields is not None and not isinstance(fields, dict):
        raise Refused("fields: expected an object")
    fields = fields or {}
    event = item.get("event")
    about = {name: _plain(item.get(name)) or defaults.get(name) for name in ("host", *_SPLUNK)}
    if about["host"] and name_problem("host", about["host"]):
        about["host"] = None
    stamp = item.get("time", defaults.get("time"))
    ts = time_of(float(stamp)) if isinstance(stamp, str) and _is_number(stamp) else time_of(stamp)
    if event == "metric" and any(name.startswith("metric_name") for name in fields):
        _metrics(index, received_at if ts is None else ts, about["host"], fields, points)
        rows.seen(about["host"], None, None)
        return
    if event is None:
        raise Refused("event: is required")
    if event == "" or (isinstance(event, str) and not event.strip()):
        raise Refused("event: is blank")
    attributes = {f"com.splunk.{name}": about[name] for name in _SPLUNK if about[name]}
    attributes |= fields
    if isinstance(event, str) and event.lstrip()[:1] == "{":
        try:
            inside = orjson.loads(event)
        except orjson.JSONDecodeError:
            inside = None
        if isinstance(inside, dict) and any(name in inside for name in ("message", "msg", "log")):
            event = inside
    app = next((fields[name] for name in ("service.name", "app", "service") if isinstance(fields.get(name), str)), None)
    preset = Defaults(about["host"], app or about["sourcetype"], ts, attributes)
    if isinstance(event, dict):
        # The time of the envelope counts: Splunk's does too.
        record = event if ts is None else {k: v for k, v in event.items() if k not in {"time", "timestamp"}}
        read(rows, index, {**({"host": about["host"]} if about["host"] else {}), **record}, preset, None)
        return
    body = storable(event.rstrip("\r\n")) if isinstance(event, str) else json.dumps(event)
    service = fields.get("service.name")
    rows.seen(about["host"], service if isinstance(service, str) else None, None)
    level = next((fields[name] for name in ("severity", "level", "log.level") if name in fields), None)
    rows.add(index, ts, body, host=preset.host, app=preset.app, severity=of_word(level), attributes=attributes)


def _metrics(index: int, ts: int, host: str | None, fields: Mapping[str, Any], points: PointColumns) -> None:
    values = {name[len(_METRIC) :]: value for name, value in fields.items() if name.startswith(_METRIC)}
    if isinstance(fields.get("metric_name"), str) and "_value" in fields:
        values[fields["metric_name"]] = fields["_value"]
    if not values:
        raise Refused("fields: a metric needs 'metric_name:<name>' or 'metric_name' and '_value'")
    if not host:
        raise Refused("host: is required for a metric")
    used = ("metric_name", "_value", "metric_type", "unit")
    labels = plain_labels({k: v for k, v in fields.items() if not k.startswith(_METRIC) and k not in used})
    unit = fields.get("unit") if isinstance(fields.get("unit"), str) else None
    kind = {"counter": "counter", "gauge": "gauge"}.get(str(fields.get("metric_type", "")).lower())
    found = []
    for name, value in values.items():
        given = float(value) if isinstance(value, str) and _is_number(value) else value
        found.append((points.known_code(host, name, unit, kind, labels), number(name, given)))
    for code, value in found:
        points.add(index, code, ts, value)


def _plain(value: object) -> str | None:
    return storable(value) if isinstance(value, str) and value else None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
