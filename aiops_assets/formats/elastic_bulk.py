"""Elasticsearch bulk requests (NDJSON: an action, then its document) as log events.

What belongs here: pairing actions with documents, one outcome an action, so that an endpoint can answer item by item.
What fields of a document mean is in ``log_record``. ``_id`` is the event's identifier, ``_index`` an attribute.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from aiops_assets.formats.batch import MAX_NAME_CHARS, Parsed
from aiops_assets.formats.json_lines import defaults_of
from aiops_assets.formats.log_record import Defaults, LogRows, read
from aiops_assets.formats.payload import Rejects, UnreadableBody, unpacked
from aiops_assets.landing.segment import Delivery

ACTIONS = ("index", "create", "update", "delete")


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read bulk requests. Never raises on their content: what cannot be read is in ``rejects``."""
    rows, rejects = LogRows(), Rejects()
    productive: set[int] = set()
    for index, delivery in enumerate(deliveries):
        try:
            body = unpacked(delivery)
        except UnreadableBody as error:
            rejects.add(index, 0, str(error), delivery.body)
            continue
        defaults = defaults_of(delivery)
        for offset, content, action, about, document, problem in items(body):
            if problem is not None:
                rejects.add(index, offset, problem, content)
                if rejects.full(index):
                    break
                continue
            target = about.get("_index") or delivery.headers.get("index")
            attributes = {**defaults.attributes}
            if isinstance(target, str) and target:
                attributes["elasticsearch.index"] = target
            identifier = about.get("_id")
            known = isinstance(identifier, str | int) and not isinstance(identifier, bool) and identifier != ""
            event_id = str(identifier)[:MAX_NAME_CHARS] if known else None
            if action == "update":
                event_id = None
            read(rows, index, document, Defaults(defaults.host, defaults.app, None, attributes), event_id)
            productive.add(index)
    return Parsed(logs=rows.frame(), entities=rows.entities(), rejects=rejects.finish(deliveries, productive))


def items(body: bytes) -> Iterator[tuple[int, bytes, str, dict[str, Any], dict[str, Any], str | None]]:
    """Every action of a bulk body: (byte offset, its lines, action, metadata, document, what is wrong or ``None``).

    A line that is no action where one is due is one item with a problem; reading goes on with the next line.
    """
    lines = _lines(body)
    for offset, line in lines:
        content = line
        action, about, problem = _action(line)
        if problem is not None:
            yield offset, content, action, about, {}, problem
            continue
        if action == "delete":
            yield offset, content, action, about, {}, "delete: log events are not removed"
            continue
        following = next(lines, None)
        if following is None:
            yield offset, content, action, about, {}, f"{action}: the document is missing"
            return
        content = line + b"\n" + following[1]
        try:
            document = orjson.loads(following[1])
        except orjson.JSONDecodeError as error:
            yield offset, content, action, about, {}, f"{action}: not JSON: {error}"
            continue
        if action == "update" and isinstance(document, dict):
            inner = document.get("doc", document.get("upsert"))
            document = inner if isinstance(inner, dict) else document
        if not isinstance(document, dict) or not document:
            yield offset, content, action, about, {}, f"{action}: expected an object as the document"
            continue
        yield offset, content, action, about, document, None


def _action(line: bytes) -> tuple[str, dict[str, Any], str | None]:
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return "index", {}, f"not JSON: {error}"
    if isinstance(document, dict) and len(document) == 1:
        ((action, about),) = document.items()
        if action in ACTIONS and (about is None or isinstance(about, dict)):
            return action, about or {}, None
    return "index", {}, f"expected an action: {', '.join(ACTIONS)}"


def _lines(body: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    while start < len(body):
        end = body.find(b"\n", start)
        end = len(body) if end < 0 else end
        line = body[start:end].strip()
        if line:
            yield start, line
        start = end + 1
