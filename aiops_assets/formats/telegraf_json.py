"""Telegraf's JSON: ``{"name", "tags", "fields", "timestamp"}`` as one object, ``{"metrics": […]}``, array or lines.

What belongs here: reading that shape. What does not: names and their mapping (``telegraf_mapping``). Timestamps are
epoch numbers; their unit (``json_timestamp_units``, a second unless set) is told by their magnitude. Text fields are
left out as in line protocol; one bad metric is rejected alone, as the JSON of that metric.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
from aiops_assets.formats.telegraf_mapping import Key, assemble, metric_problem, resolve
from aiops_assets.landing.segment import Delivery

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
        found, bad = documents(body)
        read = [(offset, document, _metrics(document)) for offset, document in found]
        if read and all(metrics is None for _, _, metrics in read):
            raise UnreadableBody(_EXPECTED)
        for offset, document, metrics in read:
            if metrics is None:
                self.rejects.add(index, offset, _EXPECTED, json_bytes(document, body))
                continue
            points, values = len(self._key), len(self._values)
            self._take(index, delivery.received_at, metrics, offset, body, careful=False)
            if not math.isfinite(sum(self._values[values:])):
                for column in (self._delivery, self._key, self._shape, self._ts):
                    del column[points:]
                del self._values[values:]
                self.rejects.forget(index, offset)
                self._take(index, delivery.received_at, metrics, offset, body, careful=True)
        for offset, problem, text in bad:
            self.rejects.add(index, offset, problem, text)

    def _take(self, index: int, received_at: int, metrics: list[Any], offset: int, body: bytes, careful: bool) -> None:
        key_codes, shape_codes = self._key_codes, self._shape_codes
        number_types = {int, float}
        for position, metric in enumerate(metrics):
            try:
                tags = metric["tags"]
                stamp = metric["timestamp"]
                fields = metric["fields"]
                key = key_codes.get((metric["name"], *tags.items()))
                shape = shape_codes.get((metric["name"], *fields))
                plain = (
                    not careful
                    and key is not None
                    and shape is not None
                    and type(stamp) is int
                    and 0 < stamp < 2**63
                    and number_types.issuperset(map(type, fields.values()))
                )
            except (KeyError, TypeError, AttributeError):
                plain = False
            if not plain:
                try:
                    key, shape, stamp, values = self._careful(metric, received_at)
                except Refused as error:
                    place = f"metric {position + 1}: " if len(metrics) > 1 else ""
                    self.rejects.add(index, offset, f"{place}{error}", json_bytes(metric, body))
                    continue
            else:
                values = fields.values()
                if stamp >= 10**17:
                    stamp //= 1000
                elif stamp < 10**11:
                    stamp *= 1_000_000
                elif stamp < 10**14:
                    stamp *= 1000
            self._delivery.append(index)
            self._key.append(key)  # type: ignore[arg-type]
            self._shape.append(shape)  # type: ignore[arg-type]
            self._ts.append(stamp)
            self._values.extend(values)

    def _careful(self, metric: object, received_at: int) -> tuple[int, int, int, list[float]]:
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
        return key, shape, ts, list(numbers.values())

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
