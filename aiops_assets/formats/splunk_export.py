"""Results of Splunk searches as ``/services/search/v2/jobs/export`` streams them: one JSON object a line.

What belongs here: ``{"preview": false, "offset": 0, "result": {"_time", "_raw", "host", "source", …}}``. What does not:
asking (``collectors.pull.splunk``) and the event collector (``hec``).

Previews and messages are no results and are left out. An event is identified by its bucket and address (``_bkt``,
``_cd``), a row without them by its content; the body is ``_raw``, and without one the fields themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from aiops_assets.formats.batch import Parsed
from aiops_assets.formats.events import Events, first_of, identity, instant_of, prose
from aiops_assets.formats.payload import Refused, UnreadableBody, documents, json_bytes, unpacked
from aiops_assets.formats.severity import of_text, of_word
from aiops_assets.landing.segment import Delivery

_APP = ("app", "process", "program", "appname", "sourcetype")
_LEVEL = ("log_level", "level", "severity", "loglevel", "priority")
_SERVICE = ("service", "service_name", "service.name")
_PID = ("pid", "process_id", "PID")
#: what Splunk adds for itself
_OWN = frozenset({
    "_bkt", "_cd", "_serial", "_si", "_sourcetype", "_subsecond", "_raw", "_time", "_kv", "_eventtype_color", "host",
    "splunk_server", "splunk_server_group", "linecount", "punct", "timestartpos", "timeendpos", "_confstr",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Row:
    delivery: int
    offset: int
    result: dict[str, Any]
    body: str | None
    level: int | None


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read exported results. Never raises on their content: what cannot be read is in ``rejects``."""
    events = Events()
    rows: list[_Row] = []
    for index, delivery in enumerate(deliveries):
        try:
            for offset, document in documents(index, unpacked(delivery), events.rejects):
                try:
                    row = _row(index, offset, document)
                except Refused as error:
                    events.rejects.add(index, offset, str(error), json_bytes(document, b"nested too deeply"))
                    if events.rejects.full(index):
                        break
                else:
                    if row is not None:
                        rows.append(row)
        except UnreadableBody as error:
            events.rejects.add(index, 0, str(error), delivery.body)
    spoken = of_text(pl.Series([row.body or "" for row in rows], dtype=pl.String)).to_list()
    for row, severity in zip(rows, spoken, strict=True):
        try:
            _log(events, row, row.level if row.level is not None else severity)
        except Refused as error:
            content = json_bytes({"preview": False, "result": row.result}, b"nested too deeply")
            events.rejects.add(row.delivery, row.offset, str(error), content)
    return events.finish(deliveries)


def _row(index: int, offset: int, document: object) -> _Row | None:
    """The result of a line, ``None`` when it holds none by intention."""
    if not isinstance(document, dict):
        raise Refused('expected {"preview": false, "result": {…}}')
    if document.get("preview") is True or ("result" not in document and {"messages", "lastrow"} & document.keys()):
        return None
    result = document.get("result")
    if not isinstance(result, dict):
        raise Refused('expected {"preview": false, "result": {…}}')
    return _Row(index, offset, result, prose(result.get("_raw")), of_word(first_of(result, _LEVEL)))


def _log(events: Events, row: _Row, severity: int | None) -> None:
    result = row.result
    attributes = {name: value for name, value in result.items() if name not in _OWN and not name.startswith("__")}
    body: object = row.body
    if body is None:
        body = first_of(result, ("message", "msg")) or attributes
    host = first_of(result, ("host", "orig_host", *_SERVICE))
    service = first_of(result, _SERVICE)
    pid = first_of(result, _PID)
    bucket, address = result.get("_bkt"), result.get("_cd")
    events.log(
        row.delivery,
        instant_of(result.get("_time")),
        host,
        body,
        app=prose(first_of(result, _APP)),
        event_id=f"{bucket}:{address}" if bucket and address else identity(result),
        pid=int(pid) if isinstance(pid, str) and pid.isdecimal() and len(pid) < 19 else pid,
        severity_number=severity,
        trace_id=result.get("trace_id"),
        span_id=result.get("span_id"),
        attributes=attributes,
    )
    if isinstance(host, str):
        site = first_of(result, ("site", "datacenter", "dc"))
        if result.get("host"):
            events.entity("host", host, site=site)
        if isinstance(service, str):
            events.entity("service", service, depends_on=[host] if result.get("host") else [])
