"""Generic JSON read as ``aiops.yaml`` declares it: a source has readings, each field a JMESPath expression.

What belongs here: the evaluation of readings on deliveries. What does not: their shape and checks when the file is
loaded (``config.Reading``), and the meaning of the rows' fields, which is that of ``generic_json``. Every reading is
applied to every document; a delivery in which no reading finds an item is rejected whole. Errors name the source, the
reading, the field, its expression and an example of what it was applied to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jmespath
import jmespath.exceptions
import orjson

from aiops_assets.config import Reading
from aiops_assets.formats import generic_json
from aiops_assets.formats.batch import Parsed
from aiops_assets.formats.events import Events, finite, storable
from aiops_assets.formats.payload import (
    Refused,
    UnreadableBody,
    documents,
    json_bytes,
    unpacked,
)
from aiops_assets.landing.segment import Delivery

_EXAMPLE_CHARS = 200
#: fields that hold numbers; senders often write those as text
_NUMBERS = frozenset({"value", "threshold", "pid"})
_TEXTS = frozenset({"host", "metric", "unit", "app", "service", "actor", "title", "key", "id", "name"})


@lru_cache(maxsize=1_024)
def compiled(expression: str) -> Any:
    """A compiled expression.

    Raises:
        jmespath.exceptions.JMESPathError: it is not valid.
    """
    return jmespath.compile(expression)


def parse(deliveries: Sequence[Delivery], readings: Sequence[Reading]) -> Parsed:
    """Read deliveries of one source. Never raises on their content: what cannot be read is in ``rejects``."""
    events = Events()
    for index, delivery in enumerate(deliveries):
        try:
            body = unpacked(delivery)
            for offset, document in documents(index, body, events.rejects):
                _document(events, index, delivery, offset, document, readings)
                if events.rejects.full(index):
                    break
        except UnreadableBody as error:
            events.rejects.add(index, 0, str(error), delivery.body)
    return events.finish(deliveries)


def _document(
    events: Events, index: int, delivery: Delivery, offset: int, document: object, readings: Sequence[Reading]
) -> None:
    found_any = False
    for number, reading in enumerate(readings):
        place = f"sources.{delivery.source}.reading[{number}]"
        try:
            items = _items(place, reading, document)
        except Refused as error:
            found_any = True
            events.rejects.add(index, offset, str(error), json_bytes(document, b"nested too deeply"))
            continue
        found_any = found_any or bool(items)
        for position, item in enumerate(items):
            try:
                _take(events, index, delivery, place, reading, item)
            except Refused as error:
                which = f"item {position + 1}: " if len(items) > 1 else ""
                events.rejects.add(index, offset, f"{which}{error}", json_bytes(item, b"nested too deeply"))
                if events.rejects.full(index):
                    return
    if not found_any:
        expressions = ", ".join(repr(reading.items) for reading in readings)
        reason = (
            f"sources.{delivery.source}.reading: items: nothing found by {expressions}; applied to: {_shown(document)}"
        )
        events.rejects.add(index, offset, reason, json_bytes(document, b"nested too deeply"))


def _items(place: str, reading: Reading, document: object) -> list[Any]:
    found = _found(f"{place}.items", reading.items, document)
    if found is None:
        return []
    return found if isinstance(found, list) else [found]


def _found(place: str, expression: str, on: object) -> Any:
    try:
        return compiled(expression).search(on)
    except (jmespath.exceptions.JMESPathError, RecursionError, TypeError, ValueError, ArithmeticError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise Refused(f"{place}: {expression!r}: {reason}; applied to: {_shown(on)}") from error


def _take(events: Events, index: int, delivery: Delivery, place: str, reading: Reading, item: object) -> None:
    row: dict[str, Any] = {} if reading.kind == "point" else {"type": reading.kind}
    grouped: dict[str, dict[str, Any]] = {}
    for field, expression in reading.fields.items():
        value = _found(f"{place}.fields.{field}", expression, item)
        if value is None:
            if field in reading.required:
                raise Refused(
                    f"{place}.fields.{field}: {expression!r} found nothing, and {field} is required; "
                    f"applied to: {_shown(item)}"
                )
            continue
        group, separator, name = field.partition(".")
        if separator:
            grouped.setdefault(group, {})[name] = value
        else:
            row[field] = _converted(f"{place}.fields.{field}", field, expression, value, item)
    for group, entries in grouped.items():
        given = row.get(group)
        row[group] = {**given, **entries} if isinstance(given, Mapping) else entries
    try:
        generic_json.take(events, index, delivery.received_at, row, {})
    except Refused as error:
        field = str(error).split(":")[0].split(".")[0]
        told = f"{field}: {reading.fields[field]!r}: " if field in reading.fields else ""
        raise Refused(f"{place}.fields.{told}{error}; applied to: {_shown(item)}") from error


def _converted(place: str, field: str, expression: str, value: object, item: object) -> object:
    """Numbers of text, and text of numbers, where the field wants the one or the other."""
    if field in _NUMBERS and isinstance(value, str):
        number = finite(value.strip())
        if number is None:
            raise Refused(f"{place}: {expression!r} gave {value[:64]!r}; expected a number; applied to: {_shown(item)}")
        return int(number) if field == "pid" else number
    if field in _TEXTS and isinstance(value, int | float) and not isinstance(value, bool):
        return orjson.dumps(value).decode()
    return value


def _shown(value: object) -> str:
    text = storable(json_bytes(value, b"nested too deeply").decode("utf-8", "replace"))
    return text if len(text) <= _EXAMPLE_CHARS else f"{text[:_EXAMPLE_CHARS]}…"
