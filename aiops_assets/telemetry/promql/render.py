"""Answers as the JSON of the Prometheus HTTP API.

What belongs here: ``resultType`` and ``result``, written in bulk. What does not: the envelope around them
(``gateway.prometheus``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson
import polars as pl

from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.telemetry.promql.evaluate import Answer
from aiops_assets.telemetry.promql.points import Ints
from aiops_assets.telemetry.promql.vectors import Floats, Labels, Vector


def data_of(answer: Answer, *, as_range: bool) -> bytes:
    """The ``data`` member: ``{"resultType": …, "result": …}``; ``as_range`` for ``query_range``."""
    if answer.ranges or answer.kind == "matrix":
        labels = [entry.labels for entry in answer.ranges]
        counts = [len(entry.ts) for entry in answer.ranges]
        ts = np.concatenate([np.empty(0, np.int64), *(entry.ts for entry in answer.ranges)])
        values = np.concatenate([np.empty(0), *(entry.values for entry in answer.ranges)])
        return _matrix(labels, counts, ts, values)
    if answer.kind == "string":
        seconds = float(answer.instants[0]) / MICROS_PER_SECOND
        return _typed("string", orjson.dumps([seconds, answer.text]))
    if answer.vector is not None:
        return _range(answer.vector, answer.instants) if as_range else _instant(answer.vector, answer.instants)
    scalar = answer.scalar if answer.scalar is not None else np.empty(0)
    if as_range:
        return _matrix([{}], [len(scalar)], answer.instants, scalar)
    return _typed("scalar", pairs(answer.instants, scalar)[0].encode())


def numbers(values: Floats) -> pl.Series:
    """Numbers as Prometheus writes them: the shortest text that reads back the same, ``+Inf``, ``-Inf``, ``NaN``."""
    text = pl.Series("value", values, dtype=pl.Float64).cast(pl.String)
    if (values == np.trunc(values)).any():
        text = text.str.strip_suffix(".0")
    return text.replace({"inf": "+Inf", "-inf": "-Inf"}) if np.isinf(values).any() else text


def times(ts: Ints) -> pl.Series:
    """Microseconds as seconds with at most three decimals."""
    milliseconds = np.asarray(ts) // 1000
    whole = pl.Series("ts", milliseconds // 1000).cast(pl.String)
    rest = milliseconds % 1000
    if not rest.any():
        return whole
    fraction = pl.Series(rest).cast(pl.String).str.zfill(3)
    frame = pl.DataFrame({"whole": whole, "fraction": fraction, "some": rest > 0})
    decimal = pl.concat_str("whole", pl.lit("."), "fraction").str.strip_chars_end("0")
    return frame.select(pl.when("some").then(decimal).otherwise("whole").alias("ts")).to_series()


def pairs(ts: Ints, values: Floats) -> list[str]:
    """``[time, "value"]`` for each point."""
    frame = pl.DataFrame({"ts": times(ts), "value": numbers(values)})
    return frame.select(pl.concat_str(pl.lit("["), "ts", pl.lit(',"'), "value", pl.lit('"]'))).to_series().to_list()


def _instant(vector: Vector, instants: Ints) -> bytes:
    texts = pairs(np.repeat(instants, len(vector)), vector.values[:, 0] if len(vector) else np.empty(0))
    entries = [
        b'{"metric":' + orjson.dumps(labels) + b',"value":' + text.encode() + b"}"
        for labels, text in zip(vector.labels, texts, strict=True)
    ]
    return _typed("vector", b"[" + b",".join(entries) + b"]")


def _range(vector: Vector, instants: Ints) -> bytes:
    rows, columns = np.nonzero(vector.present)
    counts = np.add.reduce(vector.present, axis=1, dtype=np.int64)
    return _matrix(vector.labels, counts.tolist(), instants, vector.values[rows, columns], columns)


def _matrix(
    labels: Sequence[Labels], counts: Sequence[int], ts: Ints, values: Floats, of_point: Ints | None = None
) -> bytes:
    """Points of one series after the other: ``counts`` of each; their times are ``ts``, or ``ts[of_point]``.

    Every point is preceded by its time, and the first of a series by the head of that series as well, so that the whole
    is one gather from few distinct texts and one join.
    """
    filled = [number for number, count in enumerate(counts) if count]
    if not filled:
        return _typed("matrix", b"[]")
    firsts = np.concatenate([[0], np.cumsum([counts[number] for number in filled])[:-1]]).astype(np.int64)
    before = np.arange(len(values), dtype=np.int64) if of_point is None else of_point.astype(np.int64)
    stamps = times(ts)
    heads = [
        f'{"]}," if place else ""}{{"metric":{orjson.dumps(labels[number]).decode()},"values":[[{stamp},"'
        for place, (number, stamp) in enumerate(zip(filled, stamps.gather(before[firsts]), strict=True))
    ]
    texts = pl.concat([pl.select(pl.concat_str(pl.lit(",["), stamps, pl.lit(',"'))).to_series(), pl.Series(heads)])
    before = before.copy()
    before[firsts] = len(stamps) + np.arange(len(filled))
    frame = pl.DataFrame({"before": texts.gather(before), "value": numbers(values)})
    joined = frame.select(pl.concat_str("before", "value", pl.lit('"]')).str.join("")).item()
    return _typed("matrix", b"[" + joined.encode() + b"]}]")


def _typed(kind: str, result: bytes) -> bytes:
    return b'{"resultType":"' + kind.encode() + b'","result":' + result + b"}"
