"""Records of ServiceNow's Table API: incidents, problems and changes as tickets, knowledge articles as documents.

What belongs here: ``{"result": [{…}]}`` with values plain, or as ``{"value", "display_value"}``. What does not: asking
(``collectors.pull.servicenow``) and ServiceNow's event interface.

The header ``servicenow-table`` names the table, else ``sys_class_name`` or the record's number does. Values are those
stored, whose times are UTC; names of people, groups and configuration items are those shown. A change that is carried
out, or was, is a row of changes as well. Articles are documents; one that is retired or outdated counts as removed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from aiops_assets.formats.batch import DOCUMENTS_SCHEMA, TICKETS_SCHEMA, Parsed
from aiops_assets.formats.events import Events, as_json, instant_of, name_of, one_line, prose
from aiops_assets.formats.markdown import from_html, safe
from aiops_assets.formats.payload import Refused, UnreadableBody, documents, json_bytes, unpacked
from aiops_assets.landing.segment import Delivery

TABLE_HEADER, INSTANCE_HEADER = "servicenow-table", "servicenow-instance"
_EXPECTED = 'expected {"result": [{"sys_id", "sys_updated_on", …}]}'
_KINDS = {"incident": "incident", "problem": "problem", "change_request": "change", "sc_request": "request"}
_PREFIXES = {"INC": "incident", "PRB": "problem", "CHG": "change_request", "REQ": "sc_request", "KB": "kb_knowledge"}
#: category of a change request → kind of change
_CHANGES = {"software": "deploy", "application": "deploy", "deployment": "deploy", "network": "config"}
#: states of a change request in which it is, or was, carried out: implement, review, closed
_CARRIED_OUT = frozenset({"-1", "0", "3"})
_ARTICLE_GONE = frozenset({"retired", "outdated"})
MAX_TEXT_CHARS = 4_000_000


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read records. Never raises on their content: what cannot be read is in ``rejects``."""
    reader = _Reader()
    for index, delivery in enumerate(deliveries):
        try:
            reader.feed(index, delivery, unpacked(delivery))
        except UnreadableBody as error:
            reader.events.rejects.add(index, 0, str(error), delivery.body)
    parsed = reader.events.finish(deliveries)
    return replace(
        parsed,
        tickets=pl.DataFrame(reader.tickets, schema=TICKETS_SCHEMA, orient="row"),
        documents=pl.DataFrame(reader.articles, schema=DOCUMENTS_SCHEMA, orient="row"),
    )


class _Reader:
    def __init__(self) -> None:
        self.events = Events()
        self.tickets: list[dict[str, Any]] = []
        self.articles: list[dict[str, Any]] = []

    def feed(self, index: int, delivery: Delivery, body: bytes) -> None:
        for offset, document in documents(index, body, self.events.rejects):
            result = document.get("result") if isinstance(document, dict) else None
            records = [result] if isinstance(result, dict) else result
            if not isinstance(records, list):
                self.events.rejects.add(index, offset, _EXPECTED, json_bytes(document, body))
                continue
            self.events.each(
                index,
                offset,
                records,
                lambda record: self._record(index, delivery, record),
                lambda record: {"result": [record]},
            )

    def _record(self, index: int, delivery: Delivery, record: object) -> None:
        if not isinstance(record, dict):
            raise Refused(_EXPECTED)
        identifier, updated = name_of("sys_id", value_of(record, "sys_id")), instant_of(value_of(record, _UPDATED))
        if identifier is None:
            raise Refused("sys_id: is required")
        if updated is None:
            raise Refused(f"{_UPDATED}: expected 'YYYY-MM-DD hh:mm:ss'")
        table = delivery.headers.get(TABLE_HEADER) or _table_of(record)
        if table == "kb_knowledge":
            self._article(index, delivery, record, identifier, updated)
        else:
            self._ticket(index, record, table, identifier, updated)
        self.events.productive.add(index)

    def _ticket(self, index: int, record: dict[str, Any], table: str, identifier: str, updated: int) -> None:
        host, service = name_of("cmdb_ci", shown(record, "cmdb_ci")), name_of("service", _service(record))
        opened = instant_of(value_of(record, "opened_at")) or instant_of(value_of(record, "sys_created_on"))
        notes = [shown(record, "close_code"), value_of(record, "close_notes") or value_of(record, "fix_notes")]
        row = {
            "delivery": index,
            "ts": updated,
            "ticket_id": identifier,
            "number": one_line(value_of(record, "number")),
            "kind": _KINDS.get(table, "other"),
            "state": one_line(shown(record, "state")),
            "title": one_line(value_of(record, "short_description"))
            or one_line(value_of(record, "number"))
            or identifier,
            "description": prose(value_of(record, "description")),
            "priority": _level(record, "priority", 5),
            "impact": _level(record, "impact", 3),
            "urgency": _level(record, "urgency", 3),
            "category": one_line(shown(record, "category")),
            "service": service,
            "host": host,
            "assignment_group": one_line(shown(record, "assignment_group")),
            "assignee": one_line(shown(record, "assigned_to")),
            "opened_at": opened,
            "resolved_at": instant_of(value_of(record, "resolved_at")),
            "closed_at": instant_of(value_of(record, "closed_at")),
            "resolution": ": ".join(text for text in map(prose, notes) if text) or None,
            "details": as_json(record),
        }
        if table == "change_request":
            self._change(index, record, host or service, service, updated)
        self.tickets.append(row)
        self.events.entity("host", host)
        self.events.entity("service", service, depends_on=[host] if host else [])

    def _change(self, index: int, record: dict[str, Any], host: str | None, service: str | None, updated: int) -> None:
        began = instant_of(value_of(record, "work_start"))
        if began is None and value_of(record, "state") in _CARRIED_OUT:
            began = instant_of(value_of(record, "start_date"))
        if began is None or host is None:
            return
        number = one_line(value_of(record, "number")) or ""
        what = one_line(value_of(record, "short_description"), 900)
        # What changes while the change goes on stays out, so that each of its states gives the same row.
        change = {
            "kind": _CHANGES.get((prose(value_of(record, "category")) or "").lower(), "other"),
            "service": service,
            "title": f"{number}: {what}" if what else number or None,
            "actor": one_line(shown(record, "assigned_to")) or one_line(shown(record, "assignment_group")),
            "details": {"number": number, "type": shown(record, "type"), "risk": shown(record, "risk")},
        }
        self.events.change(index, updated, began, host, change)

    def _article(self, index: int, delivery: Delivery, record: dict[str, Any], identifier: str, updated: int) -> None:
        instance = delivery.headers.get(INSTANCE_HEADER, "")
        state = str(value_of(record, "workflow_state") or "published").lower()
        removed = state in _ARTICLE_GONE or value_of(record, "active") == "false"
        if not removed and state != "published":
            raise Refused(f"workflow_state {state[:40]!r}: allowed: published, retired, outdated")
        wiki = prose(value_of(record, "wiki"))
        markup = prose(value_of(record, "text")) or ""
        text = "" if removed else (safe(wiki) if wiki and not markup else from_html(markup))[:MAX_TEXT_CHARS]
        number = one_line(value_of(record, "number"))
        title = one_line(value_of(record, "short_description")) or number or identifier
        about = {
            "number": number,
            "category": shown(record, "kb_category"),
            "knowledge_base": shown(record, "kb_knowledge_base"),
            "author": shown(record, "author"),
            "workflow_state": state,
            "valid_to": value_of(record, "valid_to"),
            "meta": shown(record, "meta"),
        }
        self.articles.append(
            {
                "delivery": index,
                "ts": updated,
                "document_id": f"{delivery.source}/kb_knowledge/{identifier}",
                "content_hash": "" if removed else content_hash(title, text),
                "kind": "article",
                "uri": f"{instance}/kb_view.do?sys_kb_id={identifier}",
                "title": title,
                "text": text,
                "media_type": "text/html",
                "language": one_line(value_of(record, "language")),
                "removed": removed,
                "attributes": as_json({name: value for name, value in about.items() if value}),
            }
        )


_UPDATED = "sys_updated_on"


def content_hash(title: str, text: str) -> str:
    """What tells versions of a document apart."""
    return hashlib.blake2b(f"{title}\0{text}".encode("utf-8", "replace"), digest_size=16).hexdigest()


def value_of(record: Mapping[str, Any], name: str) -> str | None:
    """The value as it is stored, ``None`` when empty."""
    value = record.get(name)
    if isinstance(value, dict):
        value = value.get("value")
    return value if isinstance(value, str) and value else None


def shown(record: Mapping[str, Any], name: str) -> str | None:
    """The value as it is shown, else as it is stored."""
    value = record.get(name)
    if isinstance(value, dict):
        value = value.get("display_value") or value.get("value")
    return value if isinstance(value, str) and value else None


def _service(record: Mapping[str, Any]) -> str | None:
    return shown(record, "business_service") or shown(record, "service_offering")


def _level(record: Mapping[str, Any], name: str, most: int) -> int | None:
    text = value_of(record, name) or ""
    return int(text) if text.isdecimal() and len(text) == 1 and 1 <= int(text) <= most else None


def _table_of(record: Mapping[str, Any]) -> str:
    named = value_of(record, "sys_class_name")
    if named in _KINDS:
        return str(named)
    number = value_of(record, "number") or ""
    return next((table for prefix, table in _PREFIXES.items() if number.startswith(prefix)), "other")
