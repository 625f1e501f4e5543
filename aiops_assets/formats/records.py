"""Changes and entities as JSON formats bring them, checked field by field.

What belongs here: the rows that are not points. What does not: reading bytes, and identifiers (made by the pipeline).
"""

from __future__ import annotations

from typing import Any

import orjson
import polars as pl

from aiops_assets.formats.batch import CHANGES_SCHEMA, ENTITIES_SCHEMA, MAX_NAME_CHARS, labels_json
from aiops_assets.formats.columns import checked_labels
from aiops_assets.formats.payload import FORBIDDEN, Refused, name_problem
from aiops_assets.hours import instant

CHANGE_KINDS = ("deploy", "config", "reboot", "firmware", "other")
ENTITY_KINDS = ("host", "service", "device")
#: microseconds since the epoch of the years 1 and 9999, which a timestamp column and a datetime can both hold
MIN_MICROS, MAX_MICROS = -62_135_596_800_000_000, 253_402_300_799_999_999
MAX_DETAILS_CHARS = 65_536


def checked_host(host: object, field: str = "host") -> str:
    """A host name that can be stored.

    Raises:
        Refused: it is missing, no string, empty, too long or holds control characters.
    """
    if not isinstance(host, str):
        raise Refused(f"{field}: expected a string" if host is not None else f"{field}: is required")
    problem = name_problem(field, host)
    if problem:
        raise Refused(problem)
    return host


class Changes:
    """Rows of the changes frame (``batch.CHANGES_SCHEMA``)."""

    def __init__(self) -> None:
        self._rows: list[tuple[Any, ...]] = []

    def add(self, delivery: int, host: str, ts: int, change: object) -> None:
        """Add one change; ``ts`` is in microseconds. A title is prose: its control characters become blanks.

        Raises:
            Refused: naming the field that is wrong and what is allowed.
        """
        if not isinstance(change, dict):
            raise Refused('changes: expected {"ts", "kind", "title", …}')
        kind = change.get("kind", "other")
        if not (isinstance(kind, str) and kind in CHANGE_KINDS):
            raise Refused(f"kind: allowed: {', '.join(CHANGE_KINDS)}")
        if not MIN_MICROS <= ts <= MAX_MICROS:
            raise Refused("ts: expected a time between the years 1 and 9999")
        service, actor = _text(change, "service"), _text(change, "actor")
        title = change.get("title")
        if title is not None and (not isinstance(title, str) or len(title) > MAX_NAME_CHARS):
            raise Refused(f"title: expected a string of at most {MAX_NAME_CHARS} characters")
        title = FORBIDDEN.sub(" ", title).strip() if title else ""
        details = change.get("details", {})
        try:
            text = orjson.dumps(details, option=orjson.OPT_SORT_KEYS).decode()
        except orjson.JSONEncodeError as error:
            raise Refused(f"details: {error}") from error
        if len(text) > MAX_DETAILS_CHARS:
            raise Refused(f"details: longer than {MAX_DETAILS_CHARS} characters")
        self._rows.append((delivery, instant(ts), kind, host, service, title or f"{kind} on {host}", actor, text))

    def frame(self) -> pl.DataFrame:
        return pl.DataFrame(self._rows, schema=CHANGES_SCHEMA, orient="row")


class Entities:
    """Rows of the entities frame (``batch.ENTITIES_SCHEMA``), the last of each kind and name."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], tuple[Any, ...]] = {}

    def add(self, name: str, entity: object) -> None:
        """Add what is known of the entity called ``name``.

        Raises:
            Refused: naming the field that is wrong and what is allowed.
        """
        if not isinstance(entity, dict):
            raise Refused("entity: expected an object")
        kind = entity.get("kind", "host")
        if not (isinstance(kind, str) and kind in ENTITY_KINDS):
            raise Refused(f"entity.kind: allowed: {', '.join(ENTITY_KINDS)}")
        depends_on = entity.get("depends_on") or []
        if not isinstance(depends_on, list):
            raise Refused("entity.depends_on: expected an array of names")
        needed = [checked_host(other, "entity.depends_on") for other in depends_on]
        labels = labels_json(checked_labels(entity.get("labels")))
        self._rows[kind, name] = (kind, name, _text(entity, "site"), labels, needed)

    def frame(self) -> pl.DataFrame:
        return pl.DataFrame(list(self._rows.values()), schema=ENTITIES_SCHEMA, orient="row")


def _text(record: dict[str, Any], field: str) -> str | None:
    value = record.get(field)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise Refused(f"{field}: expected a string")
    problem = name_problem(field, value)
    if problem:
        raise Refused(problem)
    return value
