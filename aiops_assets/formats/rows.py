"""Rows of logs, errors, spans, tickets, documents and external alerts as JSON, the way quarantine keeps them.

What belongs here: one object a line, ``{"logs": {"ts": 1760000000000000, "host": "web-1", …}}``, whose name is a field
of ``batch.Parsed`` and whose fields are that frame's columns. What does not: formats of senders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import polars as pl

from aiops_assets.formats.batch import (
    DOCUMENTS_SCHEMA,
    ERRORS_SCHEMA,
    EXTERNAL_SCHEMA,
    LOGS_SCHEMA,
    SPANS_SCHEMA,
    TICKETS_SCHEMA,
    Parsed,
)
from aiops_assets.formats.payload import Rejects, UnreadableBody, unpacked
from aiops_assets.landing.segment import Delivery

SCHEMAS: Mapping[str, Mapping[str, pl.DataType]] = {
    "logs": LOGS_SCHEMA,
    "errors": ERRORS_SCHEMA,
    "spans": SPANS_SCHEMA,
    "tickets": TICKETS_SCHEMA,
    "documents": DOCUMENTS_SCHEMA,
    "external": EXTERNAL_SCHEMA,
}
_EXPECTED = f"expected one JSON object a line with one of the names {', '.join(SCHEMAS)}"


def encode(name: str, rows: pl.DataFrame) -> bytes:
    """Rows of one frame as lines."""
    fields = [column for column in SCHEMAS[name] if column != "delivery"]
    return b"\n".join(orjson.dumps({name: row}) for row in rows.select(fields).iter_rows(named=True))


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read lines. Never raises on their content: what cannot be read is in ``rejects``."""
    rejects = Rejects()
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}
    productive: set[int] = set()
    for index, delivery in enumerate(deliveries):
        try:
            body = unpacked(delivery)
        except UnreadableBody as error:
            rejects.add(index, 0, str(error), delivery.body)
            continue
        offset = 0
        for line in body.split(b"\n"):
            problem = _take(index, line, found)
            if problem is None:
                productive.add(index)
            elif line.strip():
                rejects.add(index, offset, problem, line)
            offset += len(line) + 1
    frames = {name: pl.DataFrame(rows, dict(SCHEMAS[name]), orient="row") for name, rows in found.items()}
    return Parsed(rejects=rejects.finish(deliveries, productive), **frames)


def _take(index: int, line: bytes, found: dict[str, list[dict[str, Any]]]) -> str | None:
    """Add the row of a line; the reason when it holds none."""
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return f"not JSON: {error}"
    if not isinstance(document, dict) or len(document) != 1:
        return _EXPECTED
    ((name, row),) = document.items()
    if name not in SCHEMAS or not isinstance(row, dict):
        return _EXPECTED
    schema = SCHEMAS[name]
    unknown = [field for field in row if field not in schema or field == "delivery"]
    if unknown:
        return f"{name}: unknown field {unknown[0][:64]!r}; allowed: {', '.join(schema)}"
    row = {"delivery": index, **{field: row.get(field) for field in schema if field != "delivery"}}
    try:
        pl.DataFrame([row], dict(schema), orient="row")
    except (TypeError, pl.exceptions.PolarsError, OverflowError) as error:
        return f"{name}: {str(error).splitlines()[0][:200]}"
    found[name].append(row)
    return None
