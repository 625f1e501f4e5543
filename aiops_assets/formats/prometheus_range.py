"""Answers of Prometheus' ``/api/v1/query_range``: a matrix of series, each with its ``[seconds, "value"]`` pairs.

What belongs here: the bare answer (also of Thanos, Mimir and VictoriaMetrics), and the same answer in an envelope that
carries what the answer lacks::

    {"prometheus_range": 1, "host_label": "node", "metadata": {"http_requests": {"type": "counter", "unit": ""}},
     "answer": {"status": "success", "data": {"resultType": "matrix", "result": […]}}}

What a series becomes:

- metric: the name, as it is. Unit: from the metadata, else from the name's ending (``_seconds``, ``_bytes_total``).
- labels: all of them, as they are; so two series of Prometheus are never one series here.
- host: the label ``host_label`` of the envelope if the series has it, else the first there is of ``host``,
  ``hostname``, ``nodename``, ``instance`` (without its port), ``job``; else ``prometheus``.
- kind: counter by the metadata's type, else when the name ends in ``_total``, ``_count``, ``_sum`` or ``_bucket``.

NaN and infinite values are rejected together, counted; native histograms are rejected by name. Answers as Prometheus
writes them are read by columns after a proof that nothing but digits, signs and separators stands between the brackets;
all others sample by sample.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from aiops_assets.formats.batch import POINTS_SCHEMA, SERIES_SCHEMA, Parsed
from aiops_assets.formats.columns import PointColumns, dense
from aiops_assets.formats.payload import (
    MAX_JSON_BYTES,
    Refused,
    Rejects,
    UnreadableBody,
    documents,
    json_bytes,
    plain_body,
)
from aiops_assets.formats.records import MAX_MICROS, MIN_MICROS
from aiops_assets.landing.segment import Delivery

HOST_LABELS = ("host", "hostname", "nodename", "instance", "job")
NO_HOST = "prometheus"
_COUNTER_ENDINGS = ("_total", "_count", "_sum", "_bucket")
_COUNTER_TYPES = frozenset({"counter", "histogram", "summary"})
#: units as OpenMetrics writes them → UCUM
_UNITS = {
    "seconds": "s", "milliseconds": "ms", "bytes": "By", "bits": "bit", "ratio": "1", "percent": "%", "celsius": "Cel",
    "volts": "V", "amperes": "A", "joules": "J", "watts": "W", "meters": "m", "metres": "m", "grams": "g",
    "hertz": "Hz", "rpm": "{rpm}",
}  # fmt: skip
_EXPECTED = 'expected {"status": "success", "data": {"resultType": "matrix", "result": […]}}'
_VALUES = b'"values":['
_NUMERIC = b"0123456789.eE+-NaInf"
_PORT = re.compile(r":\d{1,5}\Z")

Int = NDArray[np.int64]
Float = NDArray[np.float64]


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read answers of range queries. Never raises on their content: what cannot be read is in ``rejects``."""
    reader = _Reader()
    for index, delivery in enumerate(deliveries):
        try:
            reader.feed(index, plain_body(delivery.body))
        except UnreadableBody as error:
            reader.rejects.add(index, 0, str(error), delivery.body)
    series, points = reader.finish()
    return Parsed(series, points, rejects=reader.rejects.finish(deliveries, reader.productive))


def host_of(labels: Mapping[str, str], host_label: str | None = None) -> str:
    """The host that a series of Prometheus is about."""
    for name in (host_label, *HOST_LABELS) if host_label else HOST_LABELS:
        value = labels.get(name)
        if value:
            return without_port(value) if name == "instance" else value
    return NO_HOST


def without_port(instance: str) -> str:
    """``web-1:9100`` → ``web-1``, ``[::1]:9100`` → ``::1``; an address without a port stays as it is."""
    if instance.startswith("["):
        address, bracket, rest = instance[1:].partition("]")
        return address if bracket and address and (not rest or _PORT.fullmatch(rest)) else instance
    return _PORT.sub("", instance) or instance if instance.count(":") == 1 else instance


def kind_of(metric: str, metadata: Mapping[str, Any] | None = None) -> str:
    """``counter`` or ``gauge``; the type of the metadata (of the metric or its histogram or summary) goes first."""
    metadata = metadata or {}
    declared = _type_of(metadata.get(metric))
    if declared is not None:
        return "counter" if declared == "counter" else "gauge"
    for ending in _COUNTER_ENDINGS:
        family = _type_of(metadata.get(metric.removesuffix(ending))) if metric.endswith(ending) else None
        if family is not None:
            return "counter" if family in _COUNTER_TYPES else "gauge"
    return "counter" if metric.endswith(_COUNTER_ENDINGS) else "gauge"


def unit_of(metric: str, metadata: Mapping[str, Any] | None = None) -> str:
    """The UCUM unit of a metric, empty when unknown."""
    stem = metric
    for ending in ("_total", "_sum"):
        stem = stem.removesuffix(ending)
    entry = (metadata or {}).get(metric) or (metadata or {}).get(stem)
    declared = entry.get("unit") if isinstance(entry, dict) else None
    if isinstance(declared, str) and declared in _UNITS:
        return _UNITS[declared]
    if metric.endswith(("_count", "_bucket")):
        return ""
    return _UNITS.get(stem.rpartition("_")[2], "") if "_" in stem else ""


def _type_of(entry: object) -> str | None:
    kind = entry.get("type") if isinstance(entry, dict) else None
    return kind if isinstance(kind, str) and kind not in {"", "unknown", "untyped"} else None


@dataclass(frozen=True, slots=True)
class _Context:
    """What an envelope says about its answer."""

    metadata: Mapping[str, Any] = field(default_factory=dict)
    host_label: str | None = None

    def reject_body(self, result: Sequence[object]) -> dict[str, object]:
        """A part of an answer as a body that can be read again."""
        answer: dict[str, object] = {"status": "success", "data": {"resultType": "matrix", "result": list(result)}}
        names = {
            entry["metric"].get("__name__")
            for entry in result
            if isinstance(entry, dict) and isinstance(entry.get("metric"), dict)
        }
        known = {name: self.metadata[name] for name in names if isinstance(name, str) and name in self.metadata}
        if not known and self.host_label is None:
            return answer
        return {"prometheus_range": 1, "host_label": self.host_label, "metadata": known, "answer": answer}


def _opened(document: object) -> tuple[list[Any], _Context]:
    """The series of an answer and its envelope.

    Raises:
        Refused: it is no successful matrix; the text says what it is.
    """
    if not isinstance(document, dict):
        raise Refused(_EXPECTED)
    context = _Context()
    if "answer" in document:
        if document.get("prometheus_range", 1) != 1:
            raise Refused("prometheus_range: allowed: 1")
        metadata, host_label = document.get("metadata") or {}, document.get("host_label")
        if not isinstance(metadata, dict):
            raise Refused('metadata: expected {"<metric>": {"type", "unit"}}')
        if host_label is not None and not isinstance(host_label, str):
            raise Refused("host_label: expected a label's name")
        context = _Context(metadata, host_label)
        document = document["answer"]
        if not isinstance(document, dict):
            raise Refused(_EXPECTED)
    if document.get("status") == "error":
        raise Refused(f"the query failed: {document.get('errorType')}: {document.get('error')}"[:500])
    data = document.get("data")
    if document.get("status") != "success" or not isinstance(data, dict):
        raise Refused(_EXPECTED)
    if data.get("resultType") != "matrix":
        raise Refused(f"resultType {data.get('resultType')!r}: allowed: 'matrix'"[:200])
    result = data.get("result")
    if not isinstance(result, list):
        raise Refused("result: expected an array")
    return result, context


class _Reader:
    def __init__(self) -> None:
        self._names = PointColumns()
        self._known: set[int] = set()
        self.rejects = Rejects()
        self.productive: set[int] = set()
        self._parts: list[tuple[int, Int, Int, Float]] = []

    def feed(self, index: int, body: bytes) -> None:
        if len(body) > MAX_JSON_BYTES:
            raise UnreadableBody(f"JSON of more than {MAX_JSON_BYTES // 1024 // 1024} MiB")
        if not self._by_columns(index, body):
            self._one_by_one(index, body)

    def finish(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The ``series`` and ``points`` frames, points in the order of the payload."""
        if not self._parts:
            return pl.DataFrame(schema=SERIES_SCHEMA), pl.DataFrame(schema=POINTS_SCHEMA)
        named, _ = self._names.finish()
        used, series = dense(np.concatenate([codes for _, codes, _, _ in self._parts]), named.height)
        points = pl.DataFrame(
            {
                "delivery": np.repeat(
                    np.array([index for index, *_ in self._parts], np.uint32),
                    [len(codes) for _, codes, _, _ in self._parts],
                ),
                "series": series.astype(np.uint32),
                "ts": np.concatenate([ts for _, _, ts, _ in self._parts]),
                "value": np.concatenate([value for *_, value in self._parts]),
            },
            schema=POINTS_SCHEMA,
        )
        return named[used], points

    def _code(self, index: int, metric: object, context: _Context) -> int:
        if not isinstance(metric, dict):
            raise Refused("metric: expected an object of labels")
        labels = dict(metric)
        name = labels.pop("__name__", None)
        if not isinstance(name, str) or not name:
            raise Refused("metric: a series without __name__ (the result of an expression) is not stored")
        if any(not isinstance(value, str) for value in labels.values()):
            raise Refused("metric: label values are strings")
        # Prometheus knows no empty labels: one that is empty is one that is not there.
        labels = {label: value for label, value in labels.items() if value}
        code = self._names.code(
            host_of(labels, context.host_label),
            name,
            unit_of(name, context.metadata),
            kind_of(name, context.metadata),
            labels,
        )
        if code not in self._known:
            # One entry a series makes ``finish`` list all of them, in the order of their codes.
            self._known.add(code)
            self._names.add(index, code, 0, 0.0)
        return code

    def _take(self, index: int, codes: Int, ts: Int, value: Float) -> None:
        if len(codes):
            self._parts.append((index, codes, ts, value))
            self.productive.add(index)

    def _by_columns(self, index: int, body: bytes) -> bool:
        """Read an answer as Prometheus writes it; ``False``, with nothing taken, when it is written otherwise."""
        head, *pieces = body.split(_VALUES)
        if not pieces:
            return False
        texts: list[bytes] = []
        rest: list[bytes] = [head]
        for piece in pieces:
            end = piece.find(b"]]")
            if end < 1 or piece[0] != 0x5B:
                return False
            texts.append(piece[1:end])
            rest.append(piece[end + 2 :])
        try:
            result, context = _opened(orjson.loads(b'"values":[]'.join(rest)))
        except (orjson.JSONDecodeError, Refused):
            return False
        if len(result) != len(texts) or not all(type(entry) is dict and entry.get("values") == [] for entry in result):
            return False
        samples = _samples(b"],[".join(texts))
        if samples is None:
            return False
        counts = np.array([text.count(b"],[") + 1 for text in texts], np.int64)
        ts, value = samples
        codes = np.full(len(texts), -1, np.int64)
        for position, entry in enumerate(result):
            try:
                _no_histograms(entry)
                codes[position] = self._code(index, entry.get("metric"), context)
            except Refused as error:
                values = orjson.Fragment(b"[[" + texts[position] + b"]]")
                content = orjson.dumps(context.reject_body([{**entry, "values": values}]))
                self.rejects.add(index, 0, str(error), content)
        which = np.repeat(np.arange(len(texts)), counts)
        good = (codes >= 0)[which]
        finite = np.isfinite(value)
        if not finite[good].all():
            self._reject_not_finite(index, result, context, texts, which, good & ~finite)
        keep = good & finite
        if keep.all():
            self._take(index, codes[which], ts, value)
        else:
            self._take(index, codes[which[keep]], ts[keep], value[keep])
        return True

    def _reject_not_finite(
        self, index: int, result: list[Any], context: _Context, texts: list[bytes], which: Int, mask: NDArray[np.bool_]
    ) -> None:
        """One reject a delivery for all its NaN and infinite values, with the samples themselves."""
        places = np.flatnonzero(mask)
        first = np.flatnonzero(np.r_[True, which[1:] != which[:-1]])
        parts = []
        for position in np.unique(which[places]).tolist():
            pairs = texts[position].split(b"],[")
            chosen = places[which[places] == position] - first[position]
            values = orjson.Fragment(b"[[" + b"],[".join([pairs[at] for at in chosen.tolist()]) + b"]]")
            parts.append({"metric": result[position]["metric"], "values": values})
        self._add_not_finite(index, context, len(places), parts)

    def _add_not_finite(self, index: int, context: _Context, count: int, parts: list[dict[str, Any]]) -> None:
        reason = f"{count} values are NaN or infinite, which are not stored"
        self.rejects.add(index, 0, reason, orjson.dumps(context.reject_body(parts)))

    def _one_by_one(self, index: int, body: bytes) -> None:
        for offset, document in documents(index, body, self.rejects):
            try:
                result, context = _opened(document)
                if not result:
                    raise Refused("the answer holds no series")
            except Refused as error:
                self.rejects.add(index, offset, str(error), json_bytes(document, body))
                continue
            self._series_one_by_one(index, offset, result, context, body)

    def _series_one_by_one(self, index: int, offset: int, result: list[Any], context: _Context, body: bytes) -> None:
        odd: list[dict[str, Any]] = []
        for entry in result:
            try:
                if not isinstance(entry, dict):
                    raise Refused('result: expected {"metric", "values"}')
                _no_histograms(entry)
                code = self._code(index, entry.get("metric"), context)
                values = entry.get("values")
                if not isinstance(values, list) or not values:
                    raise Refused('values: expected [[seconds, "value"], …]')
            except Refused as error:
                self.rejects.add(index, offset, str(error), json_bytes(context.reject_body([entry]), body))
            else:
                odd += self._pairs(index, offset, code, entry["metric"], values, context, body)
            if self.rejects.full(index):
                return
        if odd:
            self._add_not_finite(index, context, sum(len(entry["values"]) for entry in odd), odd)

    def _pairs(
        self, index: int, offset: int, code: int, metric: object, values: list[Any], context: _Context, body: bytes
    ) -> list[dict[str, Any]]:
        """Take the samples of a series; what is returned are the ones that are not finite."""
        together = _well_formed(values)
        if together is not None:
            self._take(index, np.full(len(values), code, np.int64), *together)
            return []
        ts: list[int] = []
        good: list[float] = []
        not_finite: list[Any] = []
        for pair in values:
            try:
                at, number = _sample(pair)
            except Refused as error:
                content = json_bytes(context.reject_body([{"metric": metric, "values": [pair]}]), body)
                self.rejects.add(index, offset, str(error), content)
                if self.rejects.full(index):
                    break
                continue
            if np.isfinite(number):
                ts.append(at)
                good.append(number)
            else:
                not_finite.append(pair)
        self._take(index, np.full(len(ts), code, np.int64), np.array(ts, np.int64), np.array(good, np.float64))
        return [{"metric": metric, "values": not_finite}] if not_finite else []


def _no_histograms(entry: Mapping[str, Any]) -> None:
    if "histograms" in entry:
        name = entry["metric"].get("__name__") if isinstance(entry.get("metric"), dict) else None
        raise Refused(f"native histogram {str(name)[:200]!r}: only float samples are stored")


def _samples(text: bytes) -> tuple[Int, Float] | None:
    """Microseconds and values of ``1700000000,"0.5"],[1700000060,"0.6"``; ``None`` unless it is written just so."""
    count = text.count(b"],[") + 1
    if text.translate(None, _NUMERIC) != (b',""],[' * count)[:-3]:
        return None
    # The separators are the right ones in the right order; these leave no room for digits between any two of them.
    if text.count(b',"') != count or text.count(b'"],[') != count - 1 or not text.endswith(b'"'):
        return None
    rows = text.replace(b'"],[', b"\n")[:-1].replace(b'"', b"")
    try:
        frame = pl.read_csv(
            rows,
            has_header=False,
            schema={"ts": pl.Float64, "value": pl.Float64},
            quote_char=None,
            low_memory=False,
        )
    except pl.exceptions.PolarsError:
        return None
    if frame.height != count or frame.null_count().row(0) != (0, 0):
        return None
    # Prometheus counts milliseconds; rounding to them undoes what a float did to the fraction.
    millis = np.rint(frame["ts"].to_numpy() * 1000.0)
    with np.errstate(invalid="ignore"):
        if not ((millis >= MIN_MICROS // 1000) & (millis <= MAX_MICROS // 1000)).all():
            return None
    return millis.astype(np.int64) * 1000, frame["value"].to_numpy()


def _well_formed(values: list[Any]) -> tuple[Int, Float] | None:
    """Microseconds and values of pairs that all are as they should be and finite, ``None`` otherwise."""
    if set(map(type, values)) != {list} or set(map(len, values)) != {2}:
        return None
    seconds, texts = zip(*values, strict=True)
    if not set(map(type, seconds)) <= {int, float} or set(map(type, texts)) != {str}:
        return None
    try:
        numbers = pl.Series(texts, dtype=pl.String)
        millis = np.rint(np.array(seconds, np.float64) * 1000.0)
    except (UnicodeEncodeError, OverflowError):
        return None
    # Numbers without a letter but e, so that nothing depends on how a parser spells NaN.
    if not numbers.str.contains(_PLAIN_NUMBER).all():
        return None
    value = numbers.cast(pl.Float64, strict=False).to_numpy()
    if not (np.isfinite(value).all() and (np.abs(millis) < _LAST_MILLIS).all()):
        return None
    return millis.astype(np.int64) * 1000, value


def _sample(pair: object) -> tuple[int, float]:
    if not isinstance(pair, list) or len(pair) != 2:
        raise Refused('values: expected [seconds, "value"]')
    at, text = pair
    if isinstance(at, bool) or not isinstance(at, int | float) or not abs(at) < 1e12:
        raise Refused("values: expected seconds since the epoch as a number")
    micros = round(at * 1000) * 1000
    if not MIN_MICROS <= micros <= MAX_MICROS:
        raise Refused("values: expected a time between the years 1 and 9999")
    if not isinstance(text, str) or not _NUMBER.fullmatch(text):
        raise Refused("values: expected a number in a string")
    return micros, float(text)


_PLAIN_NUMBER = r"^[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
#: before it and after its negative all instants are within the years that a timestamp can hold
_LAST_MILLIS = -(MIN_MICROS // 1000)
_NUMBER = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf|nan)", re.ASCII | re.IGNORECASE)
