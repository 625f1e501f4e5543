"""Telegraf's JSON: ``{"name", "tags", "fields", "timestamp"}`` as one object, ``{"metrics": […]}``, array or lines.

What belongs here: reading that shape. What does not: names and their mapping (``telegraf_mapping``). Timestamps are
epoch numbers; their unit (``json_timestamp_units``, a second unless set) is told by their magnitude. Text fields are
left out as in line protocol; one bad metric is rejected alone, as the JSON of that metric.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import polars as pl

from aiops_assets.formats.batch import Parsed
from aiops_assets.formats.columns import label_text, number
from aiops_assets.formats.payload import (
    Refused,
    Rejects,
    UnreadableBody,
    documents,
    json_bytes,
    micros_of_json,
    plain_body,
)
from aiops_assets.formats.telegraf_mapping import Key, assemble, is_redundant_text, metric_problem, resolve
from aiops_assets.landing.segment import Delivery

_NUMBERS = {int, float}
_EXPECTED = 'expected {"name", "tags", "fields", "timestamp"}, an array of them or {"metrics": […]}'


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read deliveries of Telegraf JSON. Never raises on their content: what cannot be read is in ``rejects``."""
    reader = JsonReader()
    for index, delivery in enumerate(deliveries):
        try:
            reader.feed(index, delivery, plain_body(delivery.body))
        except UnreadableBody as error:
            reader.rejects.add(index, 0, str(error), delivery.body)
    series, points = reader.finish()
    productive = set(points.get_column("delivery").unique().to_list())
    return Parsed(series, points, rejects=reader.rejects.finish(deliveries, productive))


class JsonReader:
    """Takes bodies one after the other and gives the frames at the end."""

    def __init__(self, rejects: Rejects | None = None) -> None:
        self.rejects = rejects if rejects is not None else Rejects()
        self._keys: list[Key] = []
        #: (measurement, number of tags, their names, their values, names of fields) as sent → codes of key and shape
        self._known: dict[tuple[Any, ...], tuple[int, int]] = {}
        #: whether fields are looked at metric by metric, because some are no plain numbers
        self._checking = False
        self._key_codes: dict[tuple[Any, ...], int] = {}
        self._names: list[str] = []
        self._name_codes: dict[str, int] = {}
        #: distinct (measurement, names of fields): code, and the codes of the names in their order
        self._shape_codes: dict[tuple[str, ...], int] = {}
        self._shapes: list[np.ndarray[Any, np.dtype[np.int64]]] = []
        # one entry a metric
        self._delivery: list[int] = []
        self._key: list[int] = []
        self._shape: list[int] = []
        self._ts: list[int] = []
        # one entry a point
        self._values: list[float] = []

    def feed(self, index: int, delivery: Delivery, body: bytes) -> None:
        """Add the plain body of delivery number ``index``.

        Raises:
            UnreadableBody: it is no JSON, or none of this shape.
        """
        for offset, document in documents(index, body, self.rejects):
            metrics = _metrics(document)
            if metrics is None:
                self.rejects.add(index, offset, _EXPECTED, json_bytes(document, body))
                continue
            points, values, problems = len(self._key), len(self._values), self.rejects.count(index)
            self._take(index, delivery.received_at, metrics, offset, body)
            if not self._checking and not _plain_numbers(self._values[values:]):
                for column in (self._delivery, self._key, self._shape, self._ts):
                    del column[points:]
                del self._values[values:]
                self.rejects.back_to(index, problems)
                self._checking = True
                self._take(index, delivery.received_at, metrics, offset, body)

    def _take(self, index: int, received_at: int, metrics: list[Any], offset: int, body: bytes) -> None:
        known, checking = self._known, self._checking
        add_delivery, add_key, add_shape = self._delivery.append, self._key.append, self._shape.append
        add_ts, add_values = self._ts.append, self._values.extend
        values: Collection[float]
        for position, metric in enumerate(metrics):
            try:
                tags, fields, stamp = metric["tags"], metric["fields"], metric["timestamp"]
                codes = known.get((metric["name"], len(tags), *tags, *tags.values(), *fields))
                values = fields.values()
                plain = type(stamp) is int and 0 < stamp < 2**63 and (not checking or _plain_numbers(values))
            except (KeyError, TypeError, AttributeError):
                codes, plain = None, False
            if codes is None or not plain:
                try:
                    if _is_redundant(metric):
                        continue
                    codes, stamp, values = self._careful(metric, received_at)
                except Refused as error:
                    place = f"metric {position + 1}: " if len(metrics) > 1 else ""
                    self.rejects.add(index, offset, f"{place}{error}", json_bytes(metric, body))
                    if self.rejects.full(index):
                        return
                    continue
            elif stamp >= 10**17:
                stamp //= 1000
            elif stamp < 10**11:
                stamp *= 1_000_000
            elif stamp < 10**14:
                stamp *= 1000
            add_delivery(index)
            add_key(codes[0])
            add_shape(codes[1])
            add_ts(stamp)
            add_values(values)

    def _careful(self, metric: object, received_at: int) -> tuple[tuple[int, int], int, list[float]]:
        """Codes, microseconds and values of a metric that is new, or not plainly valid.

        Raises:
            Refused: naming the field that is wrong and what is allowed.
        """
        if not isinstance(metric, dict):
            raise Refused(_EXPECTED)
        name, tags, fields = metric.get("name"), metric.get("tags"), metric.get("fields")
        if not isinstance(name, str):
            raise Refused("name: expected a string")
        if not isinstance(fields, dict):
            raise Refused("fields: expected an object of numbers")
        if tags is None:
            tags = {}
        if not isinstance(tags, dict):
            raise Refused("tags: expected an object of strings")
        text_tags = tuple(
            (tag, label_text(tag, value)) for tag, value in tags.items() if value is not None and value != ""
        )
        key_id = (name, *text_tags)
        key = self._key_codes.get(key_id)
        if key is None:
            self._keys.append(resolve(name, text_tags))
            key = self._key_codes[key_id] = len(self._keys) - 1
        numbers = _numbers(name, fields)
        stamp = metric.get("timestamp")
        ts = received_at if stamp is None else micros_of_json(stamp)
        if ts is None:
            raise Refused("timestamp: expected seconds, milliseconds, microseconds or nanoseconds since the epoch")
        shape_id = (name, *numbers)
        shape = self._shape_codes.get(shape_id)
        if shape is None:
            shape = self._shape_codes[shape_id] = len(self._shapes)
            self._shapes.append(np.array([self._name_code(field) for field in numbers], dtype=np.int64))
        if len(numbers) == len(fields) and all(type(value) is str and value for value in tags.values()):
            self._known[name, len(tags), *tags, *tags.values(), *fields] = key, shape
        return (key, shape), ts, list(numbers.values())

    def _name_code(self, name: str) -> int:
        code = self._name_codes.get(name)
        if code is None:
            code = self._name_codes[name] = len(self._names)
            self._names.append(name)
        return code

    def finish(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The ``series`` and ``points`` frames of everything fed, in the order it came."""
        shape = np.array(self._shape, dtype=np.int64)
        empty = np.empty(0, dtype=np.int64)
        if not shape.size:
            return assemble([], [], empty, empty, {})
        widths = np.array([names.size for names in self._shapes], dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(widths)])[:-1]
        width = widths[shape]
        ends = np.cumsum(width)
        within = np.arange(int(ends[-1])) - np.repeat(ends - width, width)
        names = np.concatenate(self._shapes)[np.repeat(starts[shape], width) + within]
        return assemble(
            self._keys,
            self._names,
            np.repeat(np.array(self._key, dtype=np.int64), width),
            names,
            {
                "delivery": np.repeat(np.array(self._delivery, dtype=np.uint32), width),
                "ts": np.repeat(np.array(self._ts, dtype=np.int64), width),
                "value": np.array(self._values, dtype=np.float64),
            },
        )


def _plain_numbers(values: Collection[object]) -> bool:
    """Whether all are integers or floats (no booleans, no text), and finite (a sum that overflows counts as not)."""
    return _NUMBERS.issuperset(map(type, values)) and math.isfinite(sum(values))  # type: ignore[arg-type]


def _is_redundant(metric: object) -> bool:
    fields = metric.get("fields") if isinstance(metric, dict) else None
    if not isinstance(metric, dict) or not isinstance(fields, dict) or metric.get("name") != "system":
        return False
    return is_redundant_text("system", fields) and isinstance(fields["uptime_format"], str)


def _metrics(document: object) -> list[Any] | None:
    if isinstance(document, dict):
        inner = document.get("metrics")
        return inner if isinstance(inner, list) else [document] if "fields" in document else None
    return document if isinstance(document, list) else None


def _numbers(measurement: str, fields: dict[str, object]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name, value in fields.items():
        problem = metric_problem(measurement, name)
        if problem:
            raise Refused(problem)
        if isinstance(value, int | float):
            numbers[name] = number(f"fields.{name[:64]}", value)
        elif value is not None and not isinstance(value, str):
            raise Refused(f"fields.{name[:64]}: expected a number, true, false or text")
    if not numbers:
        raise Refused("only text fields" if fields else "no fields")
    return numbers
