"""OTLP metrics, protobuf and JSON: gauges, sums, histograms, exponential histograms and summaries.

What belongs here: reading those shapes. What does not: resources and values (``otlp``). What a data point becomes:

- host: from its resource. Labels: its own attributes and those of its resource that tell one sender from another
  (``service.*``, ``k8s.*.name`` … but not what merely describes: versions, ``os.*``, ``telemetry.*`` …; that goes to
  the entities). The scope is no label.
- gauge: kind gauge. Sum: cumulative and monotonic is a counter, cumulative otherwise a gauge; a delta is kept as it was
  sent, the amount since the report before it, with kind rate.
- histogram: ``name.count``, ``name.sum``, ``name.bucket`` with the label ``le`` (cumulative over the bounds, as
  Prometheus has it), ``name.min`` and ``name.max`` where sent; counters or, of deltas, rates.
- exponential histogram: ``.count``, ``.sum``, ``.min``, ``.max`` and ``name.quantile`` with the label ``quantile``
  (0.5, 0.9, 0.95, 0.99: the geometric middle of the bucket that holds it; within one bucket of the truth).
- summary: ``.count``, ``.sum``, and ``.quantile`` as sent.

A metric that is a rate per second here under its conventional name (``system.network.io``) keeps its running total
under that name with ``.total``. Points flagged as without a recorded value, and staleness markers, are no rows and no
rejects. Other NaN and infinite values are rejected together, a reject a delivery. Exemplars are left out. A time of
zero is the time of acceptance.

The fast path is for number points as SDKs and collectors write them: fixed fields at fixed places, then attributes.
Attribute bytes that were proven once to be complete fields are recognised when they come again; numbers are read by
columns. Everything else is read by the protobuf library.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
import polars as pl
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from aiops_assets.formats import wire
from aiops_assets.formats.batch import POINTS_SCHEMA, SERIES_SCHEMA, Parsed, labels_json
from aiops_assets.formats.columns import MAX_UNIT_CHARS, checked_texts, dense, distinct_series
from aiops_assets.formats.otlp import (
    JsonPart,
    Sender,
    Senders,
    double,
    enumerated,
    integer,
    is_json,
    joined,
    json_attributes,
    json_parts,
    plain_attributes,
    request_body,
    sender_of,
    sender_of_bytes,
    text_of,
    texts_of_json,
)
from aiops_assets.formats.payload import FORBIDDEN, Refused, Rejects, UnreadableBody, name_problem
from aiops_assets.formats.telegraf_mapping import canonical
from aiops_assets.landing.segment import Delivery

#: bodies are worked on together until they have this many bytes
PIECE_BYTES = 2 * 1024 * 1024
STALE = 0x7FF0_0000_0000_0002
QUANTILES = (0.5, 0.9, 0.95, 0.99)
#: buckets of one point, with the label ``le`` each a series of its own
MAX_BUCKETS = 1_000
MAX_METRICS = 1_000_000
#: the library's objects are many times the size of bytes, so larger metrics are read on the fast path or not at all
MAX_CAREFUL_BYTES = 8 * 1024 * 1024
#: bytes of a point with nothing but a value
_SMALLEST_POINT = 11
_TEMPORALITIES = {
    "AGGREGATION_TEMPORALITY_UNSPECIFIED": 0,
    "AGGREGATION_TEMPORALITY_DELTA": 1,
    "AGGREGATION_TEMPORALITY_CUMULATIVE": 2,
}
_DELTA = 1
_NO_VALUE = 1
#: prefixes and names of resource attributes that describe a sender without telling it from another
_DESCRIPTIVE = (
    "telemetry.", "os.", "host.", "cloud.", "deployment.", "container.image.", "container.command", "process.command",
    "process.runtime.", "process.executable.path", "process.owner", "process.parent_pid", "process.creation",
    "webengine.", "device.", "browser.", "service.version", "service.criticality", "k8s.node.name",
)  # fmt: skip
_DESCRIPTIVE_ENDINGS = (".uid", ".start_time")
_RESOURCE, _SCOPES, _METRIC, _POINT, _ATTRIBUTE = b"\x0a", b"\x12", b"\x12", b"\x0a", b"\x3a"
_GAUGE, _SUM = 0x2A, 0x3A
_HEADER_TAGS = frozenset((0x0A, 0x12, 0x1A))
_START, _TIME, _DOUBLE, _INT = 0x11, 0x19, 0x21, 0x31
#: fields that the fast path has read before the attributes: they must not come again
_READ_FIELDS = frozenset((2, 3, 4, 5, 6))
#: codes of points without a series
_UNKNOWN, _ABSENT, _ELSEWHERE = -1, -2, -3
_DATA = {
    "gauge": "gauge", "sum": "sum", "histogram": "histogram", "exponentialHistogram": "exponential_histogram",
    "summary": "summary",
}  # fmt: skip

Int64s = NDArray[np.int64]
Row = tuple[str, str, str, str, str]

#: what metrics and the attributes of their points were read as
recollections = wire.Recollections(limit=256 * 1024 * 1024)


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read export requests. Never raises on their content: what cannot be read is in ``rejects``."""
    with recollections.lent() as recollection:
        reader = _Reader(deliveries, recollection)
        for index, delivery in enumerate(deliveries):
            try:
                body = request_body(delivery)
                if is_json(delivery, body):
                    reader.feed_json(index, body)
                else:
                    reader.feed(index, body)
            except UnreadableBody as error:
                reader.rejects.add(index, 0, str(error), delivery.body)
        series, points = reader.finish()
    rejects = reader.rejects.finish(deliveries, reader.productive)
    return Parsed(series, points, entities=reader.senders.frame(), rejects=rejects)


class _Metric:
    """A metric of one sender: everything that its points' series share. ``codes`` are by encoded attributes."""

    def __init__(
        self, sender: Sender, name: str, unit: str, shape: _Shape, sent: tuple[bytes, bytes, bytes, bytes] | None = None
    ) -> None:
        self.sender, self.shape = sender, shape
        #: of a metric of the fast path: resource, fields before the data, tag of the data, fields after the points
        self.sent = sent or (b"", b"", b"", b"")
        problem = name_problem("the name of the metric", name)
        if problem:
            raise Refused(problem)
        if len(unit) > MAX_UNIT_CHARS or FORBIDDEN.search(unit):
            raise Refused(f"unit: expected a UCUM code of at most {MAX_UNIT_CHARS} characters")
        self.name, self.unit, self.kind = canonical(name, unit, shape.kind)
        self.codes: dict[object, int] = {}
        self._labels = distinguishing(sender.attributes)

    def row(
        self,
        attributes: Mapping[str, Any],
        suffix: str = "",
        extra: Mapping[str, str] | None = None,
        unit: str | None = None,
        kind: str | None = None,
    ) -> Row:
        """A row of the series frame.

        Raises:
            Refused: the attributes cannot be stored.
        """
        labels = dict(self._labels)
        for name, value in attributes.items():
            if value not in ("", None):
                labels[name] = text_of(value)
        if extra:
            labels.update(extra)
        metric = self.name + suffix
        if suffix:
            problem = name_problem("the name of the metric", metric)
            if problem:
                raise Refused(problem)
        unit = self.unit if unit is None else unit
        return self.sender.host, metric, unit, labels_json(checked_texts(labels)), kind or self.kind


class _Shape(NamedTuple):
    """Which data a metric holds: the name of the field, temporality and monotonicity."""

    data: str
    temporality: int = 0
    monotonic: bool = False

    @property
    def kind(self) -> str:
        """The kind of the metric's series; of a histogram that of its counts."""
        if self.data == "gauge":
            return "gauge"
        if self.temporality == _DELTA:
            return "rate"
        return "counter" if self.monotonic or self.data != "sum" else "gauge"


class _Point(NamedTuple):
    """A point that is read with care. ``key`` stands for its attributes; ``given`` holds the fields of its shape."""

    key: bytes
    attributes: Mapping[str, Any]
    nanos: int
    flags: int
    given: Mapping[str, Any]


def distinguishing(attributes: Mapping[str, Any]) -> dict[str, str]:
    """The attributes of a resource that tell it from another, as labels."""
    found = {
        name: text_of(value)
        for name, value in attributes.items()
        if value not in ("", None) and not name.startswith(_DESCRIPTIVE) and not name.endswith(_DESCRIPTIVE_ENDINGS)
    }
    if "service.instance.id" in found:
        found.pop("process.pid", None)
    return found


class _Reader:
    """Takes bodies one after the other and gives the frames at the end."""

    def __init__(self, deliveries: Sequence[Delivery], recollection: wire.Recollection) -> None:
        self.recollection = recollection
        self.rejects = Rejects(between=b"")
        self.productive: set[int] = set()
        self.senders = Senders()
        self.received = np.array([delivery.received_at for delivery in deliveries], np.int64)
        self._seen: set[int] = set()
        self._sent: list[Sender] = []
        self._waiting: list[tuple[int, bytes]] = []
        self._waiting_bytes = 0
        self._parts: list[tuple[NDArray[np.uint32], Int64s, Int64s, NDArray[np.float64]]] = []

    def feed(self, index: int, body: bytes) -> None:
        """Add the protobuf request of delivery number ``index``."""
        self._waiting.append((index, body))
        self._waiting_bytes += len(body)
        if self._waiting_bytes >= PIECE_BYTES:
            self._work()

    def feed_json(self, index: int, body: bytes) -> None:
        """Add the JSON request of delivery number ``index``.

        Raises:
            UnreadableBody: no JSON.
        """
        self._work()
        rows = _Rows(self, index)
        for part in json_parts(index, body, self.rejects, "Metrics", "metrics"):
            _JsonScope(self, index, part, rows).run()
            if self.rejects.full(index):
                break
        rows.finish()

    def _work(self) -> None:
        if self._waiting:
            waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
            _Piece(self, waiting).run()

    def finish(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The ``series`` and ``points`` frames, points in the order in which they came."""
        self._work()
        if not self._parts:
            return pl.DataFrame(schema=SERIES_SCHEMA), pl.DataFrame(schema=POINTS_SCHEMA)
        delivery, codes, ts, value = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        used, codes = dense(codes, len(self.recollection.rows))
        rows: list[Row] = [self.recollection.rows[code] for code in used.tolist()]
        frame = pl.DataFrame(
            {name: [row[place] for row in rows] for place, name in enumerate(SERIES_SCHEMA)}, schema=SERIES_SCHEMA
        )
        frame, codes = distinct_series(frame, codes)
        points = pl.DataFrame(
            {"delivery": delivery, "series": codes.astype(np.uint32), "ts": ts, "value": value}, schema=POINTS_SCHEMA
        )
        return frame, points

    def sent(self, sender: Sender) -> Sender:
        """Keep a sender for the entities."""
        if id(sender) not in self._seen:
            self._seen.add(id(sender))
            self._sent.append(sender)
            self.senders.add(sender)
        return sender

    def metrics_of(self, resource: bytes) -> dict[object, _Metric]:
        """The metrics known of a resource: by their bytes on the fast path, else by name, unit and shape."""
        found: dict[object, _Metric] | None = self.recollection.known.get(resource)
        if found is None:
            found = self.recollection.known[resource] = {}
            self.recollection.size += len(resource) + 1_000
        return found

    def metric(self, resource: bytes, sender: Sender, name: str, unit: str, shape: _Shape) -> _Metric:
        """A metric that is read with care.

        Raises:
            Refused: its name or unit cannot be stored.
        """
        metrics, key = self.metrics_of(resource), (name, unit, shape)
        found = metrics.get(key)
        if found is None:
            found = metrics[key] = _Metric(sender, name, unit, shape)
            self.recollection.size += 2_000
        return found

    def done(self, delivery: NDArray[np.uint32], codes: Int64s, ts: Int64s, value: NDArray[np.float64]) -> None:
        if codes.size:
            self.productive.update(np.unique(delivery).tolist())
            self._parts.append((delivery, codes, ts, value))


class _Rows:
    """Points of one delivery that are read with care, as columns: where each stood, series, nanoseconds, value."""

    def __init__(self, reader: _Reader, index: int) -> None:
        self.reader, self.index = reader, index
        self.at: list[int] = []
        self.codes: list[int] = []
        self.nanos: list[int] = []
        self.values: list[float] = []

    def add(self, metric: _Metric, point: _Point, at: int) -> None:
        """Add what a point becomes.

        Raises:
            Refused: it cannot be stored; nothing of it was added.
        """
        if point.flags & _NO_VALUE:
            self.reader.productive.add(self.index)
            return
        data = metric.shape.data
        if data in {"gauge", "sum"}:
            codes, values = self._number(metric, point)
        elif data == "histogram":
            codes, values = self._histogram(metric, point)
        elif data == "exponential_histogram":
            codes, values = self._exponential(metric, point)
        else:
            codes, values = self._summary(metric, point)
        if not all(map(math.isfinite, values)):
            if data in {"gauge", "sum"} and np.float64(values[0]).view(np.uint64) == STALE:
                self.reader.productive.add(self.index)
                return
            raise Refused("NaN and infinite values are not stored")
        self.at += [at] * len(codes)
        self.codes += codes
        self.nanos += [point.nanos] * len(codes)
        self.values += values

    def finish(self) -> None:
        """Hand over everything, in the order it came."""
        nanos = np.array(self.nanos, np.uint64)
        ts = (nanos // np.uint64(1000)).astype(np.int64)
        ts[nanos == 0] = self.reader.received[self.index]
        delivery = np.full(len(self.codes), self.index, np.uint32)
        self.reader.done(delivery, np.array(self.codes, np.int64), ts, np.array(self.values, np.float64))

    def _code(self, metric: _Metric, key: object, point: _Point, **about: Any) -> int:
        code = metric.codes.get(key)
        if code is None:
            code = metric.codes[key] = self.reader.recollection.number(metric.row(point.attributes, **about))
            self.reader.recollection.size += len(point.key) + 250
        return code

    def _number(self, metric: _Metric, point: _Point) -> tuple[list[int], list[float]]:
        value = point.given.get("value")
        if value is None:
            raise Refused("a point without asDouble and asInt")
        return [self._code(metric, ("", point.key), point)], [float(value)]

    def _counted(self, metric: _Metric, point: _Point) -> tuple[list[int], list[float]]:
        """Count, sum and, where sent, the smallest and the largest."""
        given, key = point.given, point.key
        codes = [self._code(metric, ("count", key), point, suffix=".count", unit="1")]
        values = [float(given["count"])]
        if given.get("sum") is not None:
            codes.append(self._code(metric, ("sum", key), point, suffix=".sum"))
            values.append(given["sum"])
        for name in ("min", "max"):
            if given.get(name) is not None:
                codes.append(self._code(metric, (name, key), point, suffix=f".{name}", kind="gauge"))
                values.append(given[name])
        return codes, values

    def _histogram(self, metric: _Metric, point: _Point) -> tuple[list[int], list[float]]:
        counts, bounds = point.given["bucket_counts"], point.given["explicit_bounds"]
        if counts and len(counts) != len(bounds) + 1:
            raise Refused(f"{len(counts)} bucketCounts and {len(bounds)} explicitBounds; expected one more count")
        if len(counts) > MAX_BUCKETS:
            raise Refused(f"{len(counts)} buckets; allowed: {MAX_BUCKETS}")
        codes, values = self._counted(metric, point)
        total = 0.0
        for bound, count in zip([*bounds, math.inf], counts, strict=False):
            total += count
            le = _le(bound)
            codes.append(self._code(metric, (le, "le", point.key), point, suffix=".bucket", extra={"le": le}, unit="1"))
            values.append(total)
        return codes, values

    def _exponential(self, metric: _Metric, point: _Point) -> tuple[list[int], list[float]]:
        given = point.given
        if max(len(given["positive"][1]), len(given["negative"][1])) > MAX_BUCKETS:
            raise Refused(f"more than {MAX_BUCKETS} buckets")
        codes, values = self._counted(metric, point)
        found = exponential_quantiles(
            given["scale"], given["zero_count"], given["positive"], given["negative"], QUANTILES
        )
        low, high = given.get("min"), given.get("max")
        for quantile, value in zip(QUANTILES, found, strict=True):
            if value is not None:
                raised = value if low is None else max(value, low)
                codes.append(self._quantile(metric, point, quantile))
                values.append(raised if high is None else min(raised, high))
        return codes, values

    def _summary(self, metric: _Metric, point: _Point) -> tuple[list[int], list[float]]:
        codes, values = self._counted(metric, point)
        for quantile, value in point.given["quantile_values"]:
            # A summary without recent observations has no quantiles: NaN stands for that.
            if not math.isnan(value):
                codes.append(self._quantile(metric, point, quantile))
                values.append(value)
        return codes, values

    def _quantile(self, metric: _Metric, point: _Point, quantile: float) -> int:
        text = _le(quantile)
        key = (text, "quantile", point.key)
        return self._code(metric, key, point, suffix=".quantile", extra={"quantile": text}, kind="gauge")


def _le(bound: float) -> str:
    """A bound as Prometheus writes it."""
    if math.isinf(bound):
        return "+Inf" if bound > 0 else "-Inf"
    return str(int(bound)) if bound.is_integer() and abs(bound) < 1e15 else repr(bound)


def exponential_quantiles(
    scale: int,
    zero_count: int,
    positive: tuple[int, Sequence[int]],
    negative: tuple[int, Sequence[int]],
    quantiles: Sequence[float],
) -> list[float | None]:
    """Quantiles of an exponential histogram, ``None`` of one without observations or beyond float64.

    Buckets are (offset, counts); bucket ``i`` of the positive ones holds values above ``base**(offset + i)`` up to
    ``base**(offset + i + 1)`` with ``base = 2**(2**-scale)``; its geometric middle stands for all of it
    (https://opentelemetry.io/docs/specs/otel/metrics/data-model/#exponentialhistogram).
    """
    counts = np.array([*reversed(negative[1]), zero_count, *positive[1]], np.float64)
    total = counts.sum()
    if not total > 0 or not -1000 <= scale <= 1000:
        return [None] * len(quantiles)
    below, above = len(negative[1]), len(positive[1])
    with np.errstate(over="ignore", under="ignore"):
        width = math.ldexp(1.0, -scale)
        low = -np.exp2((negative[0] + np.arange(below)[::-1] + 0.5) * width)
        high = np.exp2((positive[0] + np.arange(above) + 0.5) * width)
    middles = np.concatenate([low, [0.0], high])
    places = np.searchsorted(np.cumsum(counts), np.array(quantiles) * total, side="left")
    found = middles[np.minimum(places, counts.size - 1)]
    return [float(value) if math.isfinite(value) else None for value in found]


class _Piece:
    """Protobuf requests that are worked on together, from bytes to columns."""

    def __init__(self, reader: _Reader, bodies: list[tuple[int, bytes]]) -> None:
        self.reader = reader
        self.bodies = bodies
        margin = bytes(wire.MARGIN)
        self.columns = wire.Columns(b"".join((margin, *(body for _, body in bodies), margin)))
        self.data = self.columns.data
        self.deliveries = np.array([index for index, _ in bodies], np.uint32)
        #: where each body begins in ``data``
        self.bases = np.cumsum([wire.MARGIN, *(len(body) for _, body in bodies)], dtype=np.int64)[:-1]
        #: of the number points: where each begins and ends, and by runs of one metric what they share
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.run_metrics: list[_Metric] = []
        self.run_counts: list[int] = []
        self.rows: list[_Rows] = []
        self._rows: _Rows
        self.index = 0
        self.base = 0

    def run(self) -> None:
        base = wire.MARGIN
        for index, body in self.bodies:
            self.index, self.base = index, base
            self._rows = _Rows(self.reader, index)
            self._request(base, base + len(body))
            self.rows.append(self._rows)
            base += len(body)
        self._points()

    # -- framing ----------------------------------------------------------------------------------------------------

    def _reject(self, at: int, reason: str, content: bytes) -> None:
        self.reader.rejects.add(self.index, at - self.base, reason, content)

    def _malformed(self, at: int, end: int, error: wire.Malformed, content: bytes | None = None) -> None:
        reason = f"not valid from byte {error.offset - self.base}: {error}"
        self._reject(at, reason, self.data[at:end] if content is None else content)

    def _request(self, at: int, end: int) -> None:
        try:
            while at < end:
                field = wire.field_at(self.data, at, end)
                if field.number == 1 and field.wire == wire.BYTES:
                    self._resource(field)
                    if self.reader.rejects.full(self.index):
                        return
                at = field.end
        except wire.Malformed as error:
            self._malformed(at, end, error)

    def _resource(self, whole: wire.Field) -> None:
        try:
            fields = wire.fields(self.data, whole.start, whole.end)
            encoded = joined(self.data, fields, 1)
            sender = sender_of_bytes(encoded)
        except wire.Malformed as error:
            self._malformed(whole.at, whole.end, error)
            return
        except (DecodeError, Refused) as error:
            reason = f"the resource is not valid: {error}" if isinstance(error, DecodeError) else str(error)
            self._reject(whole.at, reason, self.data[whole.at : whole.end])
            return
        self.reader.sent(sender)
        for field in fields:
            if field.number == 2 and field.wire == wire.BYTES:
                self._scope(field, encoded, sender)

    def _scope(self, scope: wire.Field, resource: bytes, sender: Sender) -> None:
        starts: list[int] = []
        ends: list[int] = []
        at = scope.start
        try:
            while at < scope.end:
                at = wire.repeated(self.data, at, scope.end, _METRIC[0], starts, ends)
                if len(starts) > MAX_METRICS:
                    raise wire.Malformed(at, f"more than {MAX_METRICS:,} metrics in a scope")
                if at < scope.end and self.data[at] != _METRIC[0]:
                    at = wire.field_at(self.data, at, scope.end).end
        except wire.Malformed as error:
            part = wire.framed(_RESOURCE, resource) + self.data[scope.at : scope.end]
            self._malformed(scope.at, scope.end, error, wire.framed(_RESOURCE, part))
            return
        known = self.reader.metrics_of(resource)
        for start, end in zip(starts, ends, strict=True):
            if not self._numbers(start, end, resource, sender, known):
                self._with_care(start, end, resource, sender)
                if self.reader.rejects.full(self.index):
                    return

    def _numbers(self, start: int, end: int, resource: bytes, sender: Sender, known: dict[object, _Metric]) -> bool:
        """Note the points of a gauge or sum that is written as usual; ``False``, with nothing noted, otherwise."""
        data, at = self.data, start
        tag = data[at]
        # The name, a description, a unit; then comes what holds the points, up to the end.
        while tag in _HEADER_TAGS:
            size = data[at + 1]
            if size < 0x80:
                at += 2 + size
            elif data[at + 2] < 0x80:
                at += 3 + size + (data[at + 2] << 7) - 0x80
            else:
                return False
            if at >= end:
                return False
            tag = data[at]
        if tag != _SUM and tag != _GAUGE:  # noqa: PLR1714 - a set would be slower
            return False
        middle = at + 1
        size = data[middle]
        if size < 0x80:
            at += 2
        elif data[at + 2] < 0x80:
            size += (data[at + 2] << 7) - 0x80
            at += 3
        else:
            try:
                size, at = wire.varint(data, middle, end)
            except wire.Malformed:
                return False
        if at + size != end:
            return False
        starts, ends = self.starts, self.ends
        before = len(starts)
        size = data[at + 1]
        if size < 0x80 and at + 2 + size <= end and data[at] == _POINT[0]:
            # the first point, which often is the only one
            at += 2
            starts.append(at)
            at += size
            ends.append(at)
        while at < end and data[at] == _POINT[0]:
            if len(starts) - before > (at - start) // _SMALLEST_POINT + wire.STEP_BYTES // _SMALLEST_POINT:
                del starts[before:], ends[before:]
                return False
            try:
                at = wire.repeated(data, at, end, _POINT[0], starts, ends)
            except wire.Malformed:
                del starts[before:], ends[before:]
                return False
        key = data[start:middle] + data[at:end]
        metric = known.get(key)
        if metric is None:
            metric = self._learned(data[start : middle - 1], tag, data[at:end], resource, sender)
            if metric is None:
                del starts[before:], ends[before:]
                return False
            known[key] = metric
        self.run_metrics.append(metric)
        self.run_counts.append(len(starts) - before)
        return True

    def _learned(self, header: bytes, tag: int, tail: bytes, resource: bytes, sender: Sender) -> _Metric | None:
        from opentelemetry.proto.metrics.v1.metrics_pb2 import Gauge, Metric, Sum

        try:
            about = Metric.FromString(header)
            if tag == _GAUGE:
                shape, points = _Shape("gauge"), len(Gauge.FromString(tail).data_points)
            else:
                rest = Sum.FromString(tail)
                shape = _Shape("sum", rest.aggregation_temporality, rest.is_monotonic)
                points = len(rest.data_points)
            if points:
                return None
            self.reader.recollection.size += 2_000
            return _Metric(sender, about.name, about.unit, shape, (resource, header, bytes([tag]), tail))
        except (DecodeError, Refused):
            return None

    # -- number points ----------------------------------------------------------------------------------------------

    def _points(self) -> None:
        columns, reader = self.columns, self.reader
        start, end = np.array(self.starts, np.int64), np.array(self.ends, np.int64)
        run_of = np.repeat(np.arange(len(self.run_counts)), self.run_counts)
        tags = columns.bytes
        first, length = tags[start], end - start
        later = first == _START
        header = np.where(later, 27, 18)
        value_tag = tags[start + header - 9]
        integer_value = value_tag == _INT
        regular = (
            (later | (first == _TIME))
            & (length >= header)
            & (tags[start + header - 18] == _TIME)
            & (integer_value | (value_tag == _DOUBLE))
        )
        attributes = start + header
        data = self.data
        shared = [metric.codes for metric in self.run_metrics]
        shared = [shared[run] for run in run_of.tolist()]
        codes = np.array(
            [
                known.get(data[at:stop], _UNKNOWN)
                for known, at, stop in zip(shared, attributes.tolist(), end.tolist(), strict=True)
            ],
            np.int64,
        )
        doubtful = np.flatnonzero((codes == _UNKNOWN) | ~regular)
        body_of = self._bodies_of(start)
        for place in doubtful.tolist():
            after = int(attributes[place]) if regular[place] else None
            codes[place] = self._learned_point(
                int(run_of[place]), int(start[place]), after, int(end[place]), int(body_of[place])
            )
        keep = codes >= 0
        if not keep.all():
            absent = codes == _ABSENT
            reader.productive.update(self.deliveries[body_of[absent]].tolist())
            start, end, header, codes = start[keep], end[keep], header[keep], codes[keep]
            integer_value, run_of, body_of = integer_value[keep], run_of[keep], body_of[keep]
        nanos = columns.words(start + header - 17)
        words = columns.words(start + header - 8)
        value = words.view(np.float64).copy()
        if integer_value.any():
            value[integer_value] = words.view(np.int64)[integer_value]
        finite = np.isfinite(value)
        if not finite.all():
            stale = words == np.uint64(STALE)
            reader.productive.update(self.deliveries[body_of[stale]].tolist())
            self._reject_not_finite(np.flatnonzero(~finite & ~stale), start, end, run_of, body_of)
            start, codes, nanos, value = start[finite], codes[finite], nanos[finite], value[finite]
        self._emit(start, codes, nanos, value)

    def _bodies_of(self, places: Int64s) -> Int64s:
        """Which of the bodies holds each place."""
        return np.searchsorted(self.bases, places, side="right") - 1

    def _learned_point(self, run: int, start: int, attributes: int | None, end: int, body: int) -> int:
        """The code of a point's series.

        ``attributes`` is where they begin after fields as usual; points that are otherwise go to ``rows``, and have no
        code.
        """
        from opentelemetry.proto.metrics.v1.metrics_pb2 import NumberDataPoint

        metric = self.run_metrics[run]
        data = self.data
        try:
            if attributes is not None:
                rest = data[attributes:end]
                known = metric.codes.get(rest)
                if known is not None:
                    return known
                point = NumberDataPoint.FromString(rest)
                if _adds_nothing(rest):
                    if point.flags & _NO_VALUE:
                        metric.codes[rest] = _ABSENT
                        return _ABSENT
                    recollection = self.reader.recollection
                    code = recollection.number(metric.row(plain_attributes(point.attributes)))
                    metric.codes[rest] = code
                    recollection.size += len(rest) + 150
                    return code
            point = NumberDataPoint.FromString(data[start:end])
            self.rows[body].add(metric, _number_point(point), start)
        except (DecodeError, Refused, wire.Malformed) as error:
            reason = str(error) if isinstance(error, Refused) else f"not valid: {error}"
            content = _request_of(metric, data[start:end])
            offset = start - int(self.bases[body])
            self.reader.rejects.add(self.rows[body].index, offset, f"{metric.name[:200]}: {reason}", content)
        return _ELSEWHERE

    def _reject_not_finite(self, places: Int64s, start: Int64s, end: Int64s, run_of: Int64s, body_of: Int64s) -> None:
        """One reject a delivery for all its NaN and infinite values."""
        found: dict[int, tuple[int, list[bytes]]] = {}
        for place in places.tolist():
            at = int(start[place])
            content = _request_of(self.run_metrics[int(run_of[place])], self.data[at : int(end[place])])
            found.setdefault(int(body_of[place]), (at, []))[1].append(content)
        for body, (at, contents) in found.items():
            reason = "NaN and infinite values are not stored"
            if len(contents) > 1:
                reason = f"{reason} ({len(contents)} rejects joined)"
            self.reader.rejects.add(int(self.deliveries[body]), at - int(self.bases[body]), reason, b"".join(contents))

    def _emit(self, start: Int64s, codes: Int64s, nanos: NDArray[np.uint64], value: NDArray[np.float64]) -> None:
        """Hand over the points of all bodies in the order in which they stand there."""
        extra_at = [at for rows in self.rows for at in rows.at]
        if extra_at:
            start = np.concatenate([start, np.array(extra_at, np.int64)])
            codes = np.concatenate([codes, np.array([code for rows in self.rows for code in rows.codes], np.int64)])
            nanos = np.concatenate([nanos, np.array([at for rows in self.rows for at in rows.nanos], np.uint64)])
            value = np.concatenate([value, np.array([one for rows in self.rows for one in rows.values], np.float64)])
            order = np.argsort(start, kind="stable")
            start, codes, nanos, value = start[order], codes[order], nanos[order], value[order]
        delivery = self.deliveries[self._bodies_of(start)]
        ts = (nanos // np.uint64(1000)).astype(np.int64)
        missing = nanos == 0
        if missing.any():
            ts[missing] = self.reader.received[delivery[missing]]
        self.reader.done(delivery, codes, ts, value)

    # -- everything else --------------------------------------------------------------------------------------------

    def _with_care(self, start: int, end: int, resource: bytes, sender: Sender) -> None:
        from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

        def content(metric: bytes) -> bytes:
            inner = wire.framed(_RESOURCE, resource) + wire.framed(_SCOPES, wire.framed(_METRIC, metric))
            return wire.framed(_RESOURCE, inner)

        try:
            if end - start > MAX_CAREFUL_BYTES:
                raise Refused(f"a metric of more than {MAX_CAREFUL_BYTES // 1024 // 1024} MiB, not of plain numbers")
            whole = Metric.FromString(self.data[start:end])
            data = whole.WhichOneof("data")
            if data is None:
                raise Refused("a metric without data")
            holder = getattr(whole, data)
            shape = _Shape(data, getattr(holder, "aggregation_temporality", 0), getattr(holder, "is_monotonic", False))
            metric = self.reader.metric(resource, sender, whole.name, whole.unit, shape)
        except (DecodeError, Refused) as error:
            reason = f"not valid: {error}" if isinstance(error, DecodeError) else str(error)
            self._reject(start, reason, content(self.data[start:end]))
            return
        for point in holder.data_points:
            try:
                self._rows.add(metric, _POINTS[data](point), start)
            except Refused as error:
                only = Metric(name=whole.name, unit=whole.unit)
                inner = getattr(only, data)
                inner.CopyFrom(holder)
                del inner.data_points[:]
                inner.data_points.append(point)
                self._reject(start, f"{whole.name[:200]}: {error}", content(only.SerializeToString()))
                if self.reader.rejects.full(self.index):
                    return


def _adds_nothing(rest: bytes) -> bool:
    """Whether fields of a point that follow those of the fast path leave these as they are.

    Raises:
        wire.Malformed: they are no fields.
    """
    if wire.repeated(rest, 0, len(rest), _ATTRIBUTE[0], [], []) == len(rest):
        return True
    return _READ_FIELDS.isdisjoint(field.number for field in wire.fields(rest, 0, len(rest)))


def _request_of(metric: _Metric, point: bytes) -> bytes:
    """A request with one point of a metric of the fast path."""
    resource, header, tag, tail = metric.sent
    whole = wire.framed(_METRIC, header + wire.framed(tag, wire.framed(_POINT, point) + tail))
    return wire.framed(_RESOURCE, wire.framed(_RESOURCE, resource) + wire.framed(_SCOPES, whole))


def _attributes_key(point: Any) -> bytes:
    return b"".join(wire.framed(b"\x0a", entry.SerializeToString()) for entry in point.attributes)


def _point(point: Any, **given: Any) -> _Point:
    key = _attributes_key(point)
    return _Point(key, plain_attributes(point.attributes), point.time_unix_nano, point.flags, given)


def _optional(point: Any, *names: str) -> dict[str, float | None]:
    return {name: getattr(point, name) if point.HasField(name) else None for name in names}


def _number_point(point: Any) -> _Point:
    kind = point.WhichOneof("value")
    return _point(point, value=None if kind is None else getattr(point, kind))


def _histogram_point(point: Any) -> _Point:
    return _point(
        point,
        count=point.count,
        bucket_counts=list(point.bucket_counts),
        explicit_bounds=list(point.explicit_bounds),
        **_optional(point, "sum", "min", "max"),
    )


def _exponential_point(point: Any) -> _Point:
    return _point(
        point,
        count=point.count,
        scale=point.scale,
        zero_count=point.zero_count,
        positive=(point.positive.offset, list(point.positive.bucket_counts)),
        negative=(point.negative.offset, list(point.negative.bucket_counts)),
        **_optional(point, "sum", "min", "max"),
    )


def _summary_point(point: Any) -> _Point:
    values = [(entry.quantile, entry.value) for entry in point.quantile_values]
    return _point(point, count=point.count, sum=point.sum, quantile_values=values)


_POINTS = {
    "gauge": _number_point,
    "sum": _number_point,
    "histogram": _histogram_point,
    "exponential_histogram": _exponential_point,
    "summary": _summary_point,
}


# -- JSON -----------------------------------------------------------------------------------------------------------


class _JsonScope:
    """The metrics of one scope of a JSON request."""

    def __init__(self, reader: _Reader, index: int, part: JsonPart, rows: _Rows) -> None:
        self.reader, self.index, self.part, self.rows = reader, index, part, rows

    def run(self) -> None:
        try:
            sender = sender_of(self.part.resource)
        except Refused as error:
            self._reject(error, self.part.records)
            return
        self.reader.sent(sender)
        resource = orjson.dumps(self.part.resource, option=orjson.OPT_SORT_KEYS)
        for metric in self.part.records:
            try:
                self._metric(metric, sender, resource)
            except Refused as error:
                self._reject(error, [metric])
            if self.reader.rejects.full(self.index):
                return

    def _reject(self, error: Refused, metrics: list[Any]) -> None:
        self.reader.rejects.add(self.index, self.part.offset, str(error), self.part.content(metrics))

    def _metric(self, given: object, sender: Sender, resource: bytes) -> None:
        if not isinstance(given, dict):
            raise Refused("metrics: expected objects")
        name, unit = texts_of_json(given, "name"), texts_of_json(given, "unit")
        field = next((field for field in _DATA if isinstance(given.get(field), dict)), None)
        if field is None:
            raise Refused(f"a metric without data; allowed: {', '.join(_DATA)}")
        holder = given[field]
        points = holder.get("dataPoints") or []
        if not isinstance(points, list):
            raise Refused("dataPoints: expected an array")
        temporality = enumerated("aggregationTemporality", holder.get("aggregationTemporality"), _TEMPORALITIES)
        shape = _Shape(_DATA[field], temporality, bool(holder.get("isMonotonic", False)))
        metric = self.reader.metric(resource, sender, name, unit, shape)
        for point in points:
            try:
                self.rows.add(metric, _json_point(shape.data, point), self.part.offset)
            except Refused as error:
                only = {**given, field: {**holder, "dataPoints": [point]}}
                self._reject(Refused(f"{name[:200]}: {error}"), [only])
                if self.reader.rejects.full(self.index):
                    return


def _json_point(data: str, point: object) -> _Point:
    if not isinstance(point, dict):
        raise Refused("dataPoints: expected objects")
    sent = point.get("attributes")
    attributes = json_attributes(sent)
    # OPT_SORT_KEYS is left out on purpose: what is spelt otherwise is read again, and comes to the same series.
    key = orjson.dumps(sent) if sent else b""
    nanos = integer("timeUnixNano", point.get("timeUnixNano", 0))
    if nanos < 0:
        raise Refused("timeUnixNano: expected nanoseconds since the epoch")
    flags = integer("flags", point.get("flags", 0))
    given: dict[str, Any]
    if data in {"gauge", "sum"}:
        given = {"value": None}
        if point.get("asDouble") is not None:
            given["value"] = double("asDouble", point["asDouble"])
        elif point.get("asInt") is not None:
            given["value"] = float(integer("asInt", point["asInt"]))
        return _Point(key, attributes, nanos, flags, given)
    given = {"count": integer("count", point.get("count", 0))}
    for name in ("sum", "min", "max"):
        given[name] = None if point.get(name) is None else double(name, point[name])
    if data == "histogram":
        given["bucket_counts"] = [integer("bucketCounts", count) for count in _list(point, "bucketCounts")]
        given["explicit_bounds"] = [double("explicitBounds", bound) for bound in _list(point, "explicitBounds")]
    elif data == "exponential_histogram":
        given["scale"] = integer("scale", point.get("scale", 0))
        given["zero_count"] = integer("zeroCount", point.get("zeroCount", 0))
        for name in ("positive", "negative"):
            buckets = point.get(name) or {}
            if not isinstance(buckets, dict):
                raise Refused(f'{name}: expected {{"offset", "bucketCounts"}}')
            counts = [integer("bucketCounts", count) for count in _list(buckets, "bucketCounts")]
            given[name] = (integer("offset", buckets.get("offset", 0)), counts)
    else:
        given["sum"] = given["sum"] or 0.0
        values = _list(point, "quantileValues")
        if not all(isinstance(entry, dict) for entry in values):
            raise Refused("quantileValues: expected objects")
        given["quantile_values"] = [
            (double("quantile", entry.get("quantile", 0.0)), double("value", entry.get("value", 0.0)))
            for entry in values
        ]
    return _Point(key, attributes, nanos, flags, given)


def _list(holder: Mapping[str, Any], field: str) -> list[Any]:
    value = holder.get(field) or []
    if not isinstance(value, list):
        raise Refused(f"{field}: expected an array")
    return value
