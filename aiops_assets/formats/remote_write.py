"""Prometheus remote write 1.0: a snappy block that holds a protobuf ``prometheus.WriteRequest``.

What belongs here: reading that shape. What does not: names and hosts (``prometheus_mapping``). The fast path knows a
series as Prometheus writes it: complete label fields, then samples of one of two lengths. Bytes before the samples
that were proven once to be complete fields are recognised when they come again; samples are found from the end of each
series and read by columns. Since a protobuf message is read from left to right, a proven beginning and samples that
fill the rest leave no other reading. Every other series is read by the protobuf library.

Staleness markers mean that a series ended: they are no rows and no rejects. Other NaN and infinite values are rejected
together, a reject a delivery, and so are instants outside the years 1 to 9999. Native histograms are rejected by name.
Exemplars are left out; metadata of a request tells kinds and units of its own series. Rejected parts are kept as
write requests without snappy, which are read here as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import polars as pl
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from aiops_assets.formats import wire
from aiops_assets.formats.batch import ENTITIES_SCHEMA, POINTS_SCHEMA, SERIES_SCHEMA, Parsed
from aiops_assets.formats.columns import dense, distinct_series
from aiops_assets.formats.payload import GZIP_MAGIC, Refused, Rejects, UnreadableBody, decoded, unpacked
from aiops_assets.formats.prometheus_mapping import Series, resolve
from aiops_assets.formats.records import MAX_MICROS, MIN_MICROS
from aiops_assets.landing.segment import Delivery

#: bodies are worked on together until they have this many bytes
PIECE_BYTES = 2 * 1024 * 1024
#: samples of one series that are looked for from its end; with more it goes to the library, which then is as fast
MAX_SAMPLES = 64
MAX_SERIES = 1_000_000

STALE = 0x7FF0_0000_0000_0002
_SERIES, _SAMPLE, _METADATA = b"\x0a", b"\x12", b"\x1a"
# A sample is 12 10 09 <8 bytes> 10 <6 bytes>, or 12 07 10 <6 bytes> when its value is zero; six bytes hold the
# milliseconds from 1971 to 2109. All of it is compared as little-endian words.
_HEAD, _HEAD_MASK = np.uint64(0x09_10_12), np.uint64(0xFF_FF_FF)
_TAIL, _TAIL_MASK = np.uint64(0x00_80_80_80_80_80_10_00), np.uint64(0x80_80_80_80_80_80_FF_00)
_ZERO_TAIL, _ZERO_TAIL_MASK = np.uint64(0x00_80_80_80_80_80_10_07), np.uint64(0x80_80_80_80_80_80_FF_FF)
_METRIC_TYPES = ("unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset")

Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]

#: what the label fields of series were read as
recollections = wire.Recollections(limit=256 * 1024 * 1024)


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read deliveries of remote write. Never raises on their content: what cannot be read is in ``rejects``."""
    with recollections.lent() as recollection:
        reader = _Reader(recollection)
        for index, delivery in enumerate(deliveries):
            try:
                reader.feed(index, plain_request(delivery))
            except UnreadableBody as error:
                reader.rejects.add(index, 0, str(error), delivery.body)
        series, points, entities = reader.finish()
    return Parsed(series, points, entities=entities, rejects=reader.rejects.finish(deliveries, reader.productive))


def plain_request(delivery: Delivery) -> bytes:
    """The write request of a delivery; what comes back from quarantine is no longer packed, and no header tells.

    Raises:
        UnreadableBody: it is damaged, or larger than 64 MiB when unpacked.
    """
    encoding = delivery.headers.get("content-encoding", "")
    if encoding not in {"", "identity", "snappy"} or delivery.body[:2] == GZIP_MAGIC:
        body = unpacked(delivery)
    else:
        try:
            body = decoded(delivery.body, "snappy", wire.MAX_MESSAGE_BYTES)
        except UnreadableBody:
            if encoding == "snappy":
                raise
            body = delivery.body
    if len(body) > wire.MAX_MESSAGE_BYTES:
        raise UnreadableBody(f"a write request of more than {wire.MAX_MESSAGE_BYTES // 1024 // 1024} MiB")
    return body


@cache
def messages() -> dict[str, Any]:
    """Classes of the protobuf library by name: WriteRequest, TimeSeries, Label, Sample, MetricMetadata.

    Fields as documented in https://prometheus.io/docs/specs/prw/remote_write_spec/.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="aiops/remote_write.proto", package="prometheus", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    shapes: dict[str, tuple[tuple[str, int, int, str | None, bool], ...]] = {
        "Label": (("name", 1, kinds.TYPE_STRING, None, False), ("value", 2, kinds.TYPE_STRING, None, False)),
        "Sample": (("value", 1, kinds.TYPE_DOUBLE, None, False), ("timestamp", 2, kinds.TYPE_INT64, None, False)),
        # Of exemplars and histograms only their presence counts; their content is kept as unknown fields.
        "Opaque": (),
        "TimeSeries": (
            ("labels", 1, kinds.TYPE_MESSAGE, "Label", True),
            ("samples", 2, kinds.TYPE_MESSAGE, "Sample", True),
            ("exemplars", 3, kinds.TYPE_MESSAGE, "Opaque", True),
            ("histograms", 4, kinds.TYPE_MESSAGE, "Opaque", True),
        ),
        "MetricMetadata": (
            ("type", 1, kinds.TYPE_INT32, None, False),
            ("metric_family_name", 2, kinds.TYPE_STRING, None, False),
            ("help", 4, kinds.TYPE_STRING, None, False),
            ("unit", 5, kinds.TYPE_STRING, None, False),
        ),
        "WriteRequest": (
            ("timeseries", 1, kinds.TYPE_MESSAGE, "TimeSeries", True),
            ("metadata", 3, kinds.TYPE_MESSAGE, "MetricMetadata", True),
        ),
    }
    for name, members in shapes.items():
        message = file.message_type.add(name=name)
        for field, number, kind, of, many in members:
            message.field.add(
                name=field,
                number=number,
                type=kind,
                type_name=f".prometheus.{of}" if of else None,
                label=kinds.LABEL_REPEATED if many else kinds.LABEL_OPTIONAL,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"prometheus.{name}")) for name in shapes}


class _Reader:
    """Takes bodies one after the other and gives the frames at the end."""

    def __init__(self, recollection: wire.Recollection) -> None:
        self.recollection = recollection
        self.rejects = Rejects(between=b"")
        #: deliveries that need no reject even when they gave no rows
        self.productive: set[int] = set()
        self._waiting: list[tuple[int, bytes]] = []
        self._waiting_bytes = 0
        self._parts: list[tuple[NDArray[np.uint32], Int64s, Int64s, Float64s]] = []

    def feed(self, index: int, body: bytes) -> None:
        """Add the plain write request of delivery number ``index``."""
        self._waiting.append((index, body))
        self._waiting_bytes += len(body)
        if self._waiting_bytes >= PIECE_BYTES:
            self._work()

    def finish(self) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        """The ``series``, ``points`` and ``entities`` frames, points in the order in which they came."""
        self._work()
        if not self._parts:
            return (
                pl.DataFrame(schema=SERIES_SCHEMA),
                pl.DataFrame(schema=POINTS_SCHEMA),
                pl.DataFrame(schema=ENTITIES_SCHEMA),
            )
        delivery, codes, ts, value = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        used, codes = dense(codes, len(self.recollection.rows))
        rows: list[Series] = [self.recollection.rows[code] for code in used.tolist()]
        frame = pl.DataFrame(
            {name: [row[place] for row in rows] for place, name in enumerate(SERIES_SCHEMA)}, schema=SERIES_SCHEMA
        )
        frame, codes = distinct_series(frame, codes)
        points = pl.DataFrame(
            {"delivery": delivery, "series": codes.astype(np.uint32), "ts": ts, "value": value}, schema=POINTS_SCHEMA
        )
        sites = {row.host: row.site for row in rows if row.site is not None}
        entities = pl.DataFrame(
            [("host", host, site, "{}", []) for host, site in sites.items()], schema=ENTITIES_SCHEMA, orient="row"
        )
        return frame, points, entities

    def _work(self) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        together: list[tuple[int, bytes, list[int], list[int]]] = []
        for index, body in waiting:
            starts, ends, metadata = self._framing(index, body)
            if metadata:
                _Piece(self, [(index, body, starts, ends)], metadata).run()
            elif starts:
                together.append((index, body, starts, ends))
        if together:
            _Piece(self, together, {}).run()

    def _framing(self, index: int, body: bytes) -> tuple[list[int], list[int], dict[str, Any]]:
        """Where the series of a request lie, and its metadata by metric; what is malformed is rejected to the end."""
        starts: list[int] = []
        ends: list[int] = []
        metadata: dict[str, Any] = {}
        at = 0
        try:
            while at < len(body):
                at = wire.repeated(body, at, len(body), _SERIES[0], starts, ends)
                if len(starts) > MAX_SERIES:
                    raise UnreadableBody(f"more than {MAX_SERIES:,} series in a request")
                if at == len(body) or body[at] == _SERIES[0]:
                    continue
                field = wire.field_at(body, at, len(body))
                if field.number in {4, 5} and not starts:
                    raise UnreadableBody(
                        "remote write 2.0; allowed: protobuf_message: prometheus.WriteRequest (remote write 1.0)"
                    )
                if field.number == 3 and field.wire == wire.BYTES:
                    self._metadata(index, body, field, metadata)
                at = field.end
        except UnreadableBody as error:
            self.rejects.add(index, 0, str(error), body)
            return [], [], {}
        except wire.Malformed as error:
            reason = f"no write request from byte {error.offset}: {error}"
            self.rejects.add(index, error.offset, reason, body[error.offset :])
        return starts, ends, metadata

    def _metadata(self, index: int, body: bytes, field: wire.Field, metadata: dict[str, Any]) -> None:
        try:
            entry = messages()["MetricMetadata"].FromString(body[field.start : field.end])
        except DecodeError as error:
            self.rejects.add(index, field.at, f"metadata: {error}", body[field.at : field.end])
            return
        kind = _METRIC_TYPES[entry.type] if 0 <= entry.type < len(_METRIC_TYPES) else "unknown"
        metadata[entry.metric_family_name] = {"type": kind, "unit": entry.unit}
        self.productive.add(index)

    def code(self, fields: bytes, metadata: dict[str, Any]) -> int | None:
        """The number of the series whose labels these bytes are; ``None`` when they are anything but labels.

        Raises:
            Refused: the labels cannot be stored.
        """
        try:
            series = messages()["TimeSeries"].FromString(fields)
        except DecodeError:
            return None
        if series.samples or series.exemplars or series.histograms:
            return None
        return self.recollection.number(resolve(labels_of(series), metadata))

    def done(self, delivery: NDArray[np.uint32], codes: Int64s, ts: Int64s, value: Float64s) -> None:
        self._parts.append((delivery, codes, ts, value))


def labels_of(series: Any) -> dict[str, str]:
    """The labels of a ``TimeSeries``.

    Raises:
        Refused: there are none, or one appears twice.
    """
    labels = {label.name: label.value for label in series.labels}
    if not labels:
        raise Refused("a series without labels")
    if len(labels) < len(series.labels):
        raise Refused("a series with a label that appears twice")
    return labels


class _Piece:
    """Bodies that are worked on together, from the places of their series to columns."""

    def __init__(
        self, reader: _Reader, bodies: list[tuple[int, bytes, list[int], list[int]]], metadata: dict[str, Any]
    ) -> None:
        self.reader, self.metadata = reader, metadata
        margin = bytes(wire.MARGIN)
        self.columns = wire.Columns(b"".join((margin, *(body for _, body, _, _ in bodies), margin)))
        self.data = self.columns.data
        sizes = np.array([len(body) for _, body, _, _ in bodies], np.int64)
        #: where each body begins in ``data``
        self.bases = np.concatenate([[0], np.cumsum(sizes)[:-1]]) + wire.MARGIN
        self.deliveries = np.array([index for index, *_ in bodies], np.uint32)
        counts = np.array([len(starts) for _, _, starts, _ in bodies], np.int64)
        self.body_of = np.repeat(np.arange(len(bodies)), counts)
        shift = self.bases[self.body_of]
        self.starts = np.array([at for _, _, starts, _ in bodies for at in starts], np.int64) + shift
        self.ends = np.array([at for _, _, _, ends in bodies for at in ends], np.int64) + shift
        #: numbers by the bytes of label fields; kinds and units that one request declares do not hold for another
        self.known: dict[bytes, int] = {} if metadata else reader.recollection.known

    def run(self) -> None:
        labels_end, (series, at, millis, value) = self._samples()
        starts, ends = self.starts.tolist(), labels_end.tolist()
        data, get = self.data, self.known.get
        codes = np.array([get(data[start:end], -1) for start, end in zip(starts, ends, strict=True)], np.int64)
        odd = labels_end == self.ends
        full: set[int] = set()
        doubtful = np.flatnonzero((codes < 0) | odd)
        extra: list[tuple[int, int, int, int, float]] = []
        for place in doubtful.tolist():
            index = int(self.deliveries[self.body_of[place]])
            if index in full:
                continue
            try:
                code = self._learned(data[starts[place] : ends[place]]) if not odd[place] else None
                if code is None:
                    codes[place] = -1
                    extra += self._with_care(place, index)
                else:
                    codes[place] = code
            except (Refused, DecodeError) as error:
                codes[place] = -1
                content = data[starts[place] : int(self.ends[place])]
                reason = f"not valid: {error}" if isinstance(error, DecodeError) else str(error)
                self.reader.rejects.add(index, self._offset(place), reason, wire.framed(_SERIES, content))
                if self.reader.rejects.full(index):
                    full.add(index)
        keep = codes[series] >= 0
        if not keep.all():
            series, at, millis, value = series[keep], at[keep], millis[keep], value[keep]
        of_series = codes[series]
        if extra:
            places, codes_of, more_at, more_millis, more_value = zip(*extra, strict=True)
            series = np.concatenate([series, np.array(places, np.int64)])
            of_series = np.concatenate([of_series, np.array(codes_of, np.int64)])
            at = np.concatenate([at, np.array(more_at, np.int64)])
            millis = np.concatenate([millis, np.array(more_millis, np.int64)])
            value = np.concatenate([value, np.array(more_value, np.float64)])
        if at.size > 1 and (np.diff(at) < 0).any():
            order = np.argsort(at, kind="stable")
            series, of_series, millis, value = series[order], of_series[order], millis[order], value[order]
        self._emit(series, of_series, millis, value)

    def _samples(self) -> tuple[Int64s, tuple[Int64s, Int64s, Int64s, Float64s]]:
        """Where the labels of each series end, if samples of the known lengths follow them; and those samples.

        They are the number of the series, the place, milliseconds and value of each.
        """
        columns = self.columns
        labels_end = self.ends.copy()
        found: list[tuple[Int64s, Int64s, Int64s, Float64s]] = []
        series, start, end = np.arange(self.ends.size), self.starts, self.ends
        for _ in range(MAX_SAMPLES):
            tail = columns.words(end - 8)
            some = (tail & _TAIL_MASK == _TAIL) & (end - start >= 9)
            if not some.any():
                break
            if not some.all():
                series, start, end, tail = series[some], start[some], end[some], tail[some]
            whole = (columns.words(end - 18) & _HEAD_MASK == _HEAD) & (end - start >= 18)
            zero = ~whole & (tail & _ZERO_TAIL_MASK == _ZERO_TAIL) & (columns.bytes[end - 9] == _SAMPLE[0])
            if zero.any():
                length = np.where(whole, 18, 9)
                either = whole | zero
                if not either.all():
                    series, start, end, tail = series[either], start[either], end[either], tail[either]
                    length, whole = length[either], whole[either]
            else:
                if not whole.all():
                    series, start, end, tail = series[whole], start[whole], end[whole], tail[whole]
                    whole = whole[whole]
                length = np.full(end.size, 18)
            value = columns.doubles(end - 15)
            if not whole.all():
                value[~whole] = 0.0
            end = end - length
            labels_end[series] = end
            found.append((series, end, _millis(tail), value))
        else:
            # More samples than are looked for: what was found of the series that have more does not count.
            more = np.zeros(self.ends.size, bool)
            more[series] = True
            labels_end[more] = self.ends[more]
            found = [tuple(column[~more[part[0]]] for column in part) for part in found]  # type: ignore[misc]
        if not found:
            none = np.empty(0, np.int64)
            return labels_end, (none, none, none, np.empty(0, np.float64))
        if len(found) == 1:
            return labels_end, found[0]
        series, at, millis, value = (np.concatenate(column) for column in zip(*found, strict=True))
        order = np.argsort(at)
        return labels_end, (series[order], at[order], millis[order], value[order])

    def _learned(self, fields: bytes) -> int | None:
        code = self.known.get(fields)
        if code is None:
            code = self.reader.code(fields, self.metadata)
            if code is not None:
                self.known[fields] = code
                self.reader.recollection.size += len(fields) + 150
        return code

    def _with_care(self, place: int, index: int) -> list[tuple[int, int, int, int, float]]:
        """The samples of a series that the fast path does not know: place of the series, its code, where, when, what.

        Raises:
            DecodeError: it is no series.
            Refused: its labels cannot be stored.
        """
        start, end = int(self.starts[place]), int(self.ends[place])
        series = messages()["TimeSeries"].FromString(self.data[start:end])
        labels = labels_of(series)
        code = self.reader.recollection.number(resolve(labels, self.metadata))
        if series.histograms:
            reason = f"native histogram {labels['__name__'][:200]!r}: only float samples are stored"
            only = messages()["TimeSeries"](labels=series.labels, histograms=series.histograms)
            content = wire.framed(_SERIES, only.SerializeToString())
            self.reader.rejects.add(index, self._offset(place), reason, content)
        # Labels alone say nothing: what should have been samples may be damaged. Exemplars are left out, and a request
        # with nothing else is kept whole.
        if series.samples or series.histograms:
            self.reader.productive.add(index)
        found = [(place, code, start, sample.timestamp, sample.value) for sample in series.samples]
        bad = [entry for entry in found if not MIN_MICROS // 1000 <= entry[3] <= MAX_MICROS // 1000]
        if bad:
            only = messages()["TimeSeries"](labels=series.labels)
            for _, _, _, millis, value in bad:
                only.samples.add(timestamp=millis, value=value)
            reason = "timestamp: expected milliseconds of a time between the years 1 and 9999"
            content = wire.framed(_SERIES, only.SerializeToString())
            self.reader.rejects.add(index, self._offset(place), reason, content)
            found = [entry for entry in found if MIN_MICROS // 1000 <= entry[3] <= MAX_MICROS // 1000]
        return found

    def _offset(self, place: int) -> int:
        """Where the content of a series begins in its body."""
        return int(self.starts[place] - self.bases[self.body_of[place]])

    def _emit(self, series: Int64s, codes: Int64s, millis: Int64s, value: Float64s) -> None:
        delivery = self.deliveries[self.body_of[series]]
        finite = np.isfinite(value)
        if not finite.all():
            stale = value.view(np.uint64) == STALE
            self._reject_not_finite(np.flatnonzero(~finite & ~stale), series, millis, value)
            self.reader.productive.update(np.unique(delivery[stale]).tolist())
            delivery, codes, millis, value = delivery[finite], codes[finite], millis[finite], value[finite]
        self.reader.productive.update(np.unique(delivery).tolist())
        if codes.size:
            self.reader.done(delivery, codes, millis * 1000, value)

    def _reject_not_finite(self, rows: Int64s, series: Int64s, millis: Int64s, value: Float64s) -> None:
        """One reject a delivery for all its NaN and infinite values, with their series."""
        bodies = self.body_of[series[rows]]
        for body in np.unique(bodies).tolist():
            mine = rows[bodies == body]
            parts = []
            for row in mine.tolist():
                place = int(series[row])
                whole = messages()["TimeSeries"].FromString(self.data[int(self.starts[place]) : int(self.ends[place])])
                only = messages()["TimeSeries"](labels=whole.labels)
                only.samples.add(timestamp=int(millis[row]), value=float(value[row]))
                parts.append(wire.framed(_SERIES, only.SerializeToString()))
            reason = f"{len(mine)} values are NaN or infinite, which are not stored"
            offset = self._offset(int(series[mine[0]]))
            self.reader.rejects.add(int(self.deliveries[body]), offset, reason, b"".join(parts))


def _millis(tail: NDArray[np.uint64]) -> Int64s:
    """The integer of six bytes at the end of each word."""
    result = (tail >> np.uint64(16)) & np.uint64(0x7F)
    for place in range(1, 6):
        result |= ((tail >> np.uint64(16 + 8 * place)) & np.uint64(0x7F)) << np.uint64(7 * place)
    return result.view(np.int64)
