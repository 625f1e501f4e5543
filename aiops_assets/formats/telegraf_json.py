"""Telegraf's JSON: ``{"name", "tags", "fields", "timestamp"}`` as one object, ``{"metrics": […]}``, array or lines.

What belongs here: reading that shape. What does not: names and their mapping (``telegraf_mapping``). Timestamps are
epoch numbers; their unit (``json_timestamp_units``, a second unless set) is told by their magnitude. Text fields become
log events as in line protocol; one bad metric is rejected alone, as the JSON of that metric.

Bodies whose metrics are written in Telegraf's own order (fields, name, tags, timestamp) are read by columns: Polars
splits them at the marks between those four, which no JSON string can hold because of their quotes. Name and tags are
proven to be JSON once for each distinct text, so are names of fields; values are numbers, and so are timestamps. A
metric that is otherwise is read as JSON by itself, and a body in which that fails as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

from aiops_assets.formats.batch import MAX_NAME_CHARS, Parsed
from aiops_assets.formats.columns import label_text, number
from aiops_assets.formats.payload import (
    MAX_JSON_BYTES,
    Int64s,
    Refused,
    Rejects,
    UnreadableBody,
    documents,
    json_bytes,
    micros_of_any,
    micros_of_json,
    plain_body,
)
from aiops_assets.formats.telegraf_mapping import (
    Key,
    Texts,
    assemble,
    escape_field,
    is_redundant_text,
    metric_problem,
    resolve,
)
from aiops_assets.landing.segment import Delivery

_NUMBERS = {int, float}
#: bodies are split together until they have this many bytes
PIECE_BYTES = 4 * 1024 * 1024
_BOOLEANS = {"true": 1.0, "false": 0.0}
#: metrics of one body are told apart in the order by this many bits
_ORDER_BITS = 24
_BRACE = ord("}")
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
    logs = reader.texts.frame()
    productive = set(points.get_column("delivery").unique().to_list()) | set(logs.get_column("delivery").to_list())
    return Parsed(series, points, logs=logs, rejects=reader.rejects.finish(deliveries, productive))


class _Style(NamedTuple):
    """How a library writes JSON: what stands between the parts of a metric and before and after all of them."""

    opening: bytes
    metric: bytes
    name: str
    stamp: str
    comma: str
    colon: str


_STYLES = tuple(
    _Style(
        f'{{"metrics":{blank}['.encode(),
        f'{{"fields":{blank}{{'.encode(),
        f'}},{blank}"name":{blank}',
        f'}},{blank}"timestamp":{blank}',
        f",{blank}",
        f":{blank}",
    )
    for blank in ("", " ")
)


#: how bodies of a style begin
_BEGINNINGS = {start: style for style in _STYLES for start in (style.metric, style.opening + style.metric)}


class _Coded:
    """Distinct texts of a column as numbers, read once each; -1 where reading them gave nothing."""

    def __init__(self, read: Callable[[str], int]) -> None:
        self._read = read
        # the codes of a category set live as long as some column uses it, so one is kept
        self._anchor = pl.Series([""], dtype=pl.Categorical(pl.Categories.random()))
        self._places: Int64s = np.empty(0, dtype=np.int64)

    def of(self, texts: pl.Series) -> Int64s:
        """The number of each text; there are no nulls."""
        column = texts.cast(self._anchor.dtype)
        codes = column.to_physical().to_numpy()
        known = self._places.size
        count = int(codes.max()) + 1 if codes.size else 0
        if count > known:
            fresh = column.filter(codes >= known).unique()
            places = np.full(count, -1, dtype=np.int64)
            places[:known] = self._places
            for code, text in zip(fresh.to_physical().to_list(), fresh.cast(pl.String).to_list(), strict=True):
                places[code] = self._read(text)
            self._places = places
        return self._places[codes]


class JsonReader:
    """Takes bodies one after the other and gives the frames at the end."""

    def __init__(self, rejects: Rejects | None = None) -> None:
        self.rejects = rejects if rejects is not None else Rejects()
        self.texts = Texts()
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
        #: where the metric stands among all, only to bring both ways of reading into one order
        self._order: list[int] = []
        # one entry a point
        self._values: list[float] = []
        #: bodies in Telegraf's order that wait for being split: delivery, time of acceptance, order, body
        self._waiting: dict[bytes, list[tuple[int, int, int, bytes]]] = {start: [] for start in _BEGINNINGS}
        #: those that a metric alone without blanks begins with, found with one look
        self._waiting_alone = {start: waiting for start, waiting in self._waiting.items() if len(start) == 11}
        self._waiting_bytes = 0
        self._bodies = 0
        self._longest = [0, 0]
        self._coded_keys, self._coded_names = _Coded(self._read_key), _Coded(self._read_name)
        self._columns: list[dict[str, npt.NDArray[np.generic]]] = []

    def feed(self, index: int, delivery: Delivery, body: bytes) -> None:
        """Add the plain body of delivery number ``index``.

        Raises:
            UnreadableBody: it is no JSON, or none of this shape.
        """
        self._bodies += 1
        order = self._bodies << _ORDER_BITS
        waiting = self._waiting_alone.get(body[:11])
        if waiting is None:
            waiting = next((self._waiting[start] for start in _BEGINNINGS if body.startswith(start)), None)
        if waiting is not None and len(body) <= MAX_JSON_BYTES:
            waiting.append((index, delivery.received_at, order, body))
            self._waiting_bytes += len(body)
            if self._waiting_bytes >= PIECE_BYTES:
                self._split_all()
            return
        self._feed_document(index, delivery.received_at, order, body)

    def _feed_document(self, index: int, received_at: int, order: int, body: bytes) -> None:
        for offset, document in documents(index, body, self.rejects):
            metrics = _metrics(document)
            if metrics is None:
                self.rejects.add(index, offset, _EXPECTED, json_bytes(document, body))
                continue
            points, values, problems = len(self._key), len(self._values), self.rejects.count(index)
            texts = self.texts.count()
            self._take(index, received_at, metrics, offset, body)
            if not self._checking and not _plain_numbers(self._values[values:]):
                for column in (self._delivery, self._key, self._shape, self._ts):
                    del column[points:]
                del self._values[values:]
                self.rejects.back_to(index, problems)
                self.texts.back_to(texts)
                self._checking = True
                self._take(index, received_at, metrics, offset, body)
            self._order.extend([order] * (len(self._key) - points))

    # -- by columns -------------------------------------------------------------------------------------------------

    def _split_all(self) -> None:
        for start, waiting in self._waiting.items():
            if waiting:
                _Split(self, _BEGINNINGS[start], start, waiting.copy()).run()
                waiting.clear()
        self._waiting_bytes = 0

    def _read_key(self, text: str) -> int:
        """Position in ``_keys`` of ``"cpu","tags":{"host":"a"``, -1 when the careful way must look."""
        try:
            metric = orjson.loads(f'{{"name":{text}}}}}')
        except orjson.JSONDecodeError:
            return -1
        if not isinstance(metric, dict) or list(metric) != ["name", "tags"]:
            return -1
        name, tags = metric["name"], metric["tags"]
        if not isinstance(name, str) or not isinstance(tags, dict):
            return -1
        try:
            code = self._key_code(name, tags)
        except Refused:
            return -1
        self._longest[0] = max(self._longest[0], len(name))
        return code

    def _read_name(self, text: str) -> int:
        """Position in ``_names`` of a quoted field name, -1 when the careful way must look."""
        try:
            name = orjson.loads(text)
        except orjson.JSONDecodeError:
            return -1
        if not isinstance(name, str) or metric_problem("", name):
            return -1
        self._longest[1] = max(self._longest[1], len(escape_field(name)))
        return self._name_code(name)

    @property
    def names_may_be_too_long(self) -> bool:
        """Whether some measurement and some field together could pass the limit of a metric name."""
        return sum(self._longest) + 1 > MAX_NAME_CHARS

    def take_alone(self, index: int, received_at: int, metric: Any, place: str, order: int, body: bytes) -> None:
        """Read one metric with care."""
        before = len(self._key)
        checking, self._checking = self._checking, True
        self._take(index, received_at, [metric], 0, body, place)
        self._checking = checking
        self._order.extend([order] * (len(self._key) - before))

    def done(self, columns: dict[str, npt.NDArray[np.generic]]) -> None:
        """Keep the points of bodies that were split."""
        self._columns.append(columns)

    # -- metric by metric -------------------------------------------------------------------------------------------

    def _take(
        self, index: int, received_at: int, metrics: list[Any], offset: int, body: bytes, which: str | None = None
    ) -> None:
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
                    codes, stamp, values = self._careful(index, metric, received_at)
                except Refused as error:
                    place = (f"metric {position + 1}: " if len(metrics) > 1 else "") if which is None else which
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

    def _careful(self, index: int, metric: object, received_at: int) -> tuple[tuple[int, int], int, list[float]]:
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
        key = self._key_code(name, tags)
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
        for field, text in fields.items():
            if isinstance(text, str):
                self.texts.add(index, ts, self._keys[key], field, text)
        if len(numbers) == len(fields) and all(type(value) is str and value for value in tags.values()):
            self._known[name, len(tags), *tags, *tags.values(), *fields] = key, shape
        return (key, shape), ts, list(numbers.values())

    def _key_code(self, name: str, tags: dict[str, Any]) -> int:
        """Position in ``_keys``.

        Raises:
            Refused: name or tags cannot be stored.
        """
        text_tags = tuple(
            (tag, label_text(tag, value)) for tag, value in tags.items() if value is not None and value != ""
        )
        key_id = (name, *text_tags)
        key = self._key_codes.get(key_id)
        if key is None:
            self._keys.append(resolve(name, text_tags))
            key = self._key_codes[key_id] = len(self._keys) - 1
        return key

    def _name_code(self, name: str) -> int:
        code = self._name_codes.get(name)
        if code is None:
            code = self._name_codes[name] = len(self._names)
            self._names.append(name)
        return code

    def finish(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The ``series`` and ``points`` frames of everything fed, in the order it came."""
        self._split_all()
        parts = [*self._columns, self._by_metric()] if self._shape else self._columns
        if not parts:
            empty = np.empty(0, dtype=np.int64)
            return assemble([], [], empty, empty, {})
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        order = columns.pop("order")
        if (order[1:] < order[:-1]).any():
            by_order = np.argsort(order, kind="stable")
            columns = {name: column[by_order] for name, column in columns.items()}
        key, name = columns.pop("key").astype(np.int64), columns.pop("name").astype(np.int64)
        return assemble(self._keys, self._names, key, name, columns)

    def _by_metric(self) -> dict[str, npt.NDArray[np.generic]]:
        """The points that were read metric by metric."""
        shape = np.array(self._shape, dtype=np.int64)
        widths = np.array([names.size for names in self._shapes], dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(widths)])[:-1]
        width = widths[shape]
        ends = np.cumsum(width)
        within = np.arange(int(ends[-1])) - np.repeat(ends - width, width)
        return {
            "order": np.repeat(np.array(self._order, dtype=np.int64), width),
            "delivery": np.repeat(np.array(self._delivery, dtype=np.uint32), width),
            "key": np.repeat(np.array(self._key, dtype=np.int64), width),
            "name": np.concatenate(self._shapes)[np.repeat(starts[shape], width) + within],
            "ts": np.repeat(np.array(self._ts, dtype=np.int64), width),
            "value": np.array(self._values, dtype=np.float64),
        }


class _Split:
    """Bodies in Telegraf's order, from bytes to columns."""

    def __init__(
        self, reader: JsonReader, style: _Style, start: bytes, waiting: list[tuple[int, int, int, bytes]]
    ) -> None:
        self.reader, self.style, self.waiting = reader, style, waiting
        self._start = len(start)
        self._ending = b"}" if start == style.metric else b"}]}"

    def run(self) -> None:
        pieces, of, numbers, alone = self._pieces()
        if pieces is None:
            for index, received_at, order, body in self.waiting:
                self._with_care(index, received_at, order, body)
            return
        style = self.style
        fields, rest = pieces.str.splitn(style.name, 2).struct.unnest().get_columns()
        key, stamp = rest.str.splitn(style.stamp, 2).struct.unnest().get_columns()
        ts = stamp.cast(pl.Int64, strict=False)
        sure = (ts > 0).fill_null(False).to_numpy() & (fields != "").fill_null(False).to_numpy()
        keys = self.reader._coded_keys.of(key.fill_null(""))
        lists = fields.fill_null("").str.split(style.comma)
        widths = lists.list.len().to_numpy().astype(np.int64)
        line = np.repeat(np.arange(pieces.len()), widths)
        pairs = lists.explode() if int(widths.max()) > 1 else fields.fill_null("")
        name, word = pairs.str.splitn(style.colon, 2).struct.unnest().get_columns()
        names = self.reader._coded_names.of(name.fill_null(""))
        value = word.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
        finite = np.isfinite(value)
        if not finite.all():
            value = value.copy()
            boolean = word.gather(np.flatnonzero(~finite)).replace_strict(_BOOLEANS, default=None)
            value[~finite] = boolean.cast(pl.Float64).fill_null(np.nan).to_numpy()
            finite = np.isfinite(value)
        sure &= keys >= 0
        if self.reader.names_may_be_too_long:
            sure[:] = False
        sure[line[(names < 0) | ~finite]] = False
        damaged = self._alone(pieces, of, numbers, alone, np.flatnonzero(~sure))
        if damaged:
            sure &= ~np.isin(of, np.array(sorted(damaged)))
        orders = np.array([entry[2] for entry in self.waiting], np.int64)
        delivery = np.array([entry[0] for entry in self.waiting], np.uint32)
        micros = micros_of_any(ts.fill_null(0).to_numpy())
        keep = sure[line]
        if not keep.all():
            line, names, value = line[keep], names[keep], value[keep]
        body_of = of[line]
        self.reader.done(
            {
                "order": orders[body_of] + numbers[line],
                "delivery": delivery[body_of],
                "key": keys[line],
                "name": names,
                "ts": micros[line],
                "value": value,
            }
        )

    def _pieces(self) -> tuple[pl.Series | None, Int64s, Int64s, Int64s]:
        """Each metric's text between its first and its last brace, its body, its number there, metrics of its body.

        ``None`` when a body does not end as it should, or is not UTF-8: then all are read with care.
        """
        style = self.style
        lead, close = style.metric.decode(), "}" + style.comma
        texts: list[bytes] = []
        kept: list[tuple[int, int, int, bytes]] = []
        start, ending, end = self._start, self._ending, -len(self._ending)
        for entry in self.waiting:
            body = entry[3]
            if body[-1] != _BRACE:
                body = body.rstrip()
            if body.endswith(ending, start):
                kept.append(entry)
                texts.append(body[start:end])
            else:
                self._with_care(*entry)
        self.waiting = kept
        nothing = np.empty(0, np.int64)
        if not kept:
            return None, nothing, nothing, nothing
        try:
            whole = pl.Series(texts, dtype=pl.Binary).cast(pl.String)
        except pl.exceptions.ComputeError:
            return None, nothing, nothing, nothing
        lists = whole.str.split(close + lead)
        counts = lists.list.len().to_numpy().astype(np.int64)
        of = np.repeat(np.arange(len(kept)), counts)
        numbers = np.arange(of.size) - np.repeat(np.cumsum(counts) - counts, counts)
        return lists.explode(), of, numbers, counts

    def _alone(self, pieces: pl.Series, of: Int64s, numbers: Int64s, counts: Int64s, places: Int64s) -> set[int]:
        """Read metrics one by one; what is returned are the bodies of which nothing was read, except as a whole."""
        damaged: set[int] = set()
        documents_of: dict[int, list[tuple[int, Any]]] = {}
        lead = self.style.metric.decode()
        for place, text in zip(places.tolist(), pieces.gather(places).to_list(), strict=True):
            body = int(of[place])
            if body in damaged:
                continue
            try:
                metric = orjson.loads(f"{lead}{text}}}")
            except orjson.JSONDecodeError:
                damaged.add(body)
                continue
            documents_of.setdefault(body, []).append((int(numbers[place]), metric))
        for body, found in documents_of.items():
            if body in damaged:
                continue
            index, received_at, order, whole = self.waiting[body]
            for position, metric in found:
                where = f"metric {position + 1}: " if counts[body] > 1 else ""
                self.reader.take_alone(index, received_at, metric, where, order + position, whole)
                if self.reader.rejects.full(index):
                    break
        for body in sorted(damaged):
            self._with_care(*self.waiting[body])
        return damaged

    def _with_care(self, index: int, received_at: int, order: int, body: bytes) -> None:
        try:
            self.reader._feed_document(index, received_at, order, body)
        except UnreadableBody as error:
            self.reader.rejects.add(index, 0, str(error), body)


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
    if not numbers and not any(isinstance(value, str) for value in fields.values()):
        raise Refused("no fields")
    return numbers
