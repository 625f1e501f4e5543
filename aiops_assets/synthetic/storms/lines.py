"""Samples as bytes: Telegraf's line protocol and the documents of our collectors, whole columns at a time.

What belongs here: those two ways of writing and the totals that counters need. What does not: values (``course``) and
deliveries (``engine``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from aiops_assets.collectors.document import POLL_DURATION, UP
from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.synthetic.storms.course import Course, chunks
from aiops_assets.synthetic.storms.fleet import Host, Stream
from aiops_assets.synthetic.storms.noise import Floats, Ints, salts, uniform
from aiops_assets.synthetic.storms.vocabulary import Point, Wire

#: on everything, so that nobody takes it for real
MARK = {"synthetic": "true"}
#: kinds of pollers as their documents name them
POLLED = {"snmp": "snmp", "redfish": "redfish"}
_ESCAPES = str.maketrans({",": "\\,", " ": "\\ ", "=": "\\="})
_IN_MEASUREMENT = str.maketrans({",": "\\,", " ": "\\ "})
_MAX_TOTAL = 2**62
_BASE_SECONDS = 5.0e6


@dataclass(frozen=True, slots=True)
class Rows:
    """Rendered rows in one buffer: row i is ``data[offsets[i]:offsets[i + 1]]``; ``bounds[k]`` is the first row of
    bucket k. Every row holds ``points`` points."""

    data: bytes
    offsets: Ints
    bounds: Ints
    points: Ints

    def parts(self, bucket: int, limit: int) -> Iterator[tuple[bytes, int]]:
        """Runs of rows of one bucket of at most ``limit`` bytes, each with its number of points."""
        row, last = int(self.bounds[bucket]), int(self.bounds[bucket + 1])
        while row < last:
            begin = int(self.offsets[row])
            end = int(np.searchsorted(self.offsets, begin + limit, side="right")) - 1
            end = min(last, max(row + 1, end))
            yield self.data[begin : int(self.offsets[end])], int(self.points[row:end].sum())
            row = end


class Totals:
    """Running totals of the counters of a stream, exact integers, carried from window to window.

    Every host's total begins anywhere, as those of machines that have been up for weeks do, and at zero again after a
    restart.
    """

    def __init__(self, seed: int, stream: Stream) -> None:
        self._seed, self._stream = seed, stream
        self._carry: dict[tuple[str, int], NDArray[np.int64]] = {}
        self._held: dict[tuple[str, int], NDArray[np.int64]] = {}

    def advance(self, course: Course, name: str, number: int, wire: Wire, steps: Ints, values: Floats) -> Ints:
        """[T, H] totals at ``steps``, which follow those of the call before; ``values`` are rates a second."""
        key = (name, number)
        if key not in self._carry:
            self._carry[key] = self._base(course, name, wire)
        seconds = course.interval / MICROS_PER_SECOND
        grown = np.nan_to_num(values, nan=0.0) * (wire.factor * seconds)
        steps_up = np.rint(np.maximum(grown, 0.0)).astype(np.int64)
        # A sample holds what was counted before it, so that totals go on where the interval changes.
        found = np.cumsum(steps_up, axis=0) - steps_up
        found += self._carry[key]
        if len(steps):
            begin, end = int(steps[0]) * course.interval, (int(steps[-1]) + 1) * course.interval
            for instant, columns in course.restarts(begin, end):
                row = -(-instant // course.interval) - int(steps[0])
                if row < len(steps):
                    found[row:, columns] -= found[row, columns]
            self._carry[key] = found[-1] + steps_up[-1]
            frozen = course.frozen(name, steps * course.interval)
            if frozen is not None:
                self._hold(key, found, frozen)
            self._held[key] = found[-1].copy()
        return found

    def _hold(self, key: tuple[str, int], found: Ints, frozen: NDArray[np.bool_]) -> None:
        """An agent that hangs repeats the last total it sent."""
        for column in np.flatnonzero(frozen.any(axis=0)).tolist():
            held = int(self._held[key][column] if key in self._held else found[0, column])
            for row, there in enumerate(frozen[:, column].tolist()):
                if there:
                    found[row, column] = held
                held = int(found[row, column])

    def _base(self, course: Course, name: str, wire: Wire) -> NDArray[np.int64]:
        names = [host.name for host in self._stream.hosts]
        share = uniform(np.zeros(1, np.int64), salts(self._seed, f"{self._stream.name} {name} total", names))[0]
        return np.minimum(course.level(name) * wire.factor * _BASE_SECONDS * share, _MAX_TOTAL).astype(np.int64)

    def skip(self, course: Course, steps: Ints) -> None:
        """Take the totals past ``steps`` without writing anything."""
        for run in chunks(steps, max(1, 200_000 // len(self._stream.hosts))):
            for name, signal in self._stream.signals.items():
                for number, wire in enumerate(signal.telegraf):
                    if wire.total:
                        self.advance(course, name, number, wire, run, course.values(name, run))


def line_tags(stream: Stream, host: Host, wire: Wire) -> dict[str, str]:
    """All tags of a line, sorted as Telegraf writes them."""
    site = {"site": host.site} if host.site else {}
    return dict(sorted({**site, **MARK, **stream.tags, **wire.tags, "host": host.name}.items()))


def telegraf(course: Course, totals: Totals, steps: Ints, edges: Ints) -> list[Rows]:
    """Line protocol of the samples at ``steps``, one ``Rows`` a measurement and set of tags.

    Args:
        edges: ascending instants [B + 1] that part the samples into buckets by their full interval.
    """
    stream = course.stream
    if not len(steps):
        return []
    firsts = course.firsts(steps, edges)
    stamps = _text(course.stamps(steps) // MICROS_PER_SECOND * MICROS_PER_SECOND * 1_000)
    keep = _kept(course, steps)
    families: dict[tuple[str, tuple[tuple[str, str], ...]], list[tuple[Wire, pl.Series]]] = {}
    for name, signal in stream.signals.items():
        if not signal.telegraf and not signal.collected:
            continue
        values = course.values(name, steps)
        for number, wire in enumerate(wires_of(name, signal.telegraf, signal.collected)):
            column = (
                totals.advance(course, name, number, wire, steps, values).ravel()
                if wire.total
                else np.rint(values * wire.factor + wire.offset)
                if wire.integer
                else np.round(values * wire.factor + wire.offset, wire.digits)
            )
            families.setdefault((wire.measurement, tuple(wire.tags.items())), []).append((wire, _field(wire, column)))
    made = []
    for (measurement, _), fields in families.items():
        prefixes = pl.Series(
            [_prefix(measurement, line_tags(stream, host, fields[0][0])) for host in stream.hosts]
        ).gather(np.tile(np.arange(len(stream.hosts)), len(steps)))
        made.append(_lines(prefixes, fields, stamps, keep, firsts, len(stream.hosts)))
    return made


def wires_of(name: str, telegraf_: Sequence[Wire], collected_: Sequence[Point]) -> Sequence[Wire]:
    """How Telegraf writes a signal; one that is only declared for collectors becomes a measurement of its own."""
    if telegraf_:
        return telegraf_
    return [
        Wire(
            measurement=one.metric,
            field="value",
            tags=one.labels,
            factor=one.factor,
            offset=one.offset,
            digits=one.digits,
        )
        for one in collected_
    ]


def _prefix(measurement: str, tags: dict[str, str]) -> str:
    written = "".join(f",{key.translate(_ESCAPES)}={value.translate(_ESCAPES)}" for key, value in tags.items())
    return measurement.translate(_IN_MEASUREMENT) + written + " "


def _field(wire: Wire, column: Floats | Ints) -> pl.Series:
    """Values as text, null where there is none."""
    flat = column.ravel()
    if not np.issubdtype(flat.dtype, np.floating):
        return _text(flat.astype(np.int64, copy=False))
    missing = np.isnan(flat)
    # Adding zero takes the sign off negative zeros.
    numbers = np.nan_to_num(flat) + 0.0
    made = _text(numbers.astype(np.int64)) if wire.integer else pl.Series(numbers).cast(pl.String)
    return made.set(pl.Series(missing), None) if missing.any() else made


def _text(values: Ints) -> pl.Series:
    return pl.Series(values.ravel()).cast(pl.String)


def _kept(course: Course, steps: Ints) -> NDArray[np.bool_] | None:
    """[T, H] samples that are sent; ``None`` for all of them."""
    gone = [one for one in (course.lost(steps), course.silent(steps)) if one is not None]
    return ~np.logical_or.reduce(gone) if gone else None


def _lines(
    prefixes: pl.Series,
    fields: list[tuple[Wire, pl.Series]],
    stamps: pl.Series,
    keep: NDArray[np.bool_] | None,
    firsts: Ints,
    hosts: int,
) -> Rows:
    frame = pl.DataFrame(
        [prefixes.alias("prefix"), stamps.alias("ts"), *(column.alias(f"v{n}") for n, (_, column) in enumerate(fields))]
    )
    holes = any(column.null_count() for _, column in fields)
    if holes:
        written = [
            pl.concat_str([pl.lit(f"{wire.field}="), pl.col(f"v{n}"), pl.lit("i" if wire.integer else "")])
            for n, (wire, _) in enumerate(fields)
        ]
        body = pl.concat_str(written, separator=",", ignore_nulls=True)
        there = frame.select(pl.any_horizontal(pl.col(f"v{n}").is_not_null() for n in range(len(fields)))).to_series()
        keep = there.to_numpy() if keep is None else keep.ravel() & there.to_numpy()
        frame = frame.with_columns(prefix=pl.concat_str(["prefix", body, pl.lit(" "), "ts", pl.lit("\n")]))
        points = frame.select(
            pl.sum_horizontal(pl.col(f"v{n}").is_not_null().cast(pl.Int64) for n in range(len(fields)))
        ).to_series()
    else:
        parts: list[pl.Expr] = [pl.col("prefix")]
        for number, (wire, _) in enumerate(fields):
            parts += [pl.lit(f"{',' if number else ''}{wire.field}="), pl.col(f"v{number}")]
            if wire.integer:
                parts.append(pl.lit("i"))
        frame = frame.with_columns(prefix=pl.concat_str([*parts, pl.lit(" "), pl.col("ts"), pl.lit("\n")]))
        points = pl.repeat(len(fields), len(frame), dtype=pl.Int64, eager=True)
    return _rows(frame["prefix"], points, keep, firsts, hosts)


def _rows(texts: pl.Series, points: pl.Series, keep: NDArray[np.bool_] | None, firsts: Ints, hosts: int) -> Rows:
    """``firsts`` are numbers of steps; every step has ``hosts`` rows of which ``keep`` stay."""
    bounds = firsts * hosts
    if keep is not None:
        flat = keep.ravel()
        texts, points = texts.filter(pl.Series(flat)), points.filter(pl.Series(flat))
        bounds = np.concatenate([[0], np.cumsum(flat)])[bounds]
    data, offsets = buffer_of(texts)
    return Rows(data, offsets, bounds.astype(np.int64), points.to_numpy())


def buffer_of(texts: pl.Series) -> tuple[bytes, Ints]:
    """All texts in one run of bytes, and where each begins and the last ends."""
    lengths = texts.str.len_bytes().to_numpy().astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    array = texts.to_arrow(compat_level=pl.CompatLevel.oldest())
    data = array.buffers()[2]
    begin = np.frombuffer(array.buffers()[1], dtype=np.int64, count=array.offset + 1)[array.offset] if len(texts) else 0
    return (data.to_pybytes()[begin : begin + int(offsets[-1])] if data is not None and len(texts) else b""), offsets


def collected(course: Course, steps: Ints, edges: Ints) -> list[Rows]:
    """Documents of a collector, a JSON object and a comma for each host and poll; what is silent is polled in vain."""
    stream = course.stream
    if not len(steps):
        return []
    hosts, polled = len(stream.hosts), stream.sender in POLLED
    firsts = course.firsts(steps, edges)
    stamps = course.stamps(steps).ravel()
    columns: dict[str, pl.Series] = {
        "host": pl.Series([_document_head(host) for host in stream.hosts]).gather(
            np.tile(np.arange(hosts), len(steps))
        ),
        "ts": _text(stamps),
    }
    silent = course.silent(steps)
    lost = course.lost(steps)
    written: list[pl.Expr] = []
    count = 0
    if polled:
        columns["up"] = _text(np.ones(len(stamps), np.int64) if silent is None else (~silent).ravel().astype(np.int64))
        took = 0.02 + 0.3 * uniform(steps, salts(course.plan.seed, "poll", [host.name for host in stream.hosts])) ** 3
        if silent is not None:
            took = np.where(silent, 9.0, took)
        columns["took"] = pl.Series(np.round(took, 6).ravel()).cast(pl.String)
        labels = {"kind": POLLED[stream.sender], **MARK}
        written += [
            *_point_parts(UP, "1", "gauge", labels, "up", ""),
            *_point_parts(POLL_DURATION, "s", "gauge", labels, "took", ","),
        ]
        count = 2
    for name, signal in stream.signals.items():
        values = course.values(name, steps)
        for number, one in enumerate(signal.collected):
            key = f"{name} {number}"
            scaled = np.round(values * one.factor + one.offset, one.digits)
            wire = Wire(measurement="-", field="-", integer=one.digits == 0)
            columns[key] = _field(wire, scaled)
            labels = {**one.labels, **MARK}
            comma = "," if count or written else ""
            parts = _point_parts(one.metric, one.unit, one.kind, labels, key, comma)
            if columns[key].null_count() or (polled and silent is not None):
                shown = pl.col(key).is_not_null() & (pl.col("up") == "1" if polled else pl.lit(True))
                written.append(pl.when(shown).then(pl.concat_str(parts)).otherwise(pl.lit("")))
            else:
                written += parts
            count += 1
    frame = pl.DataFrame([column.alias(name) for name, column in columns.items()])
    text = pl.concat_str([pl.col("host"), pl.col("ts"), pl.lit(',"points":['), *written, pl.lit("]},")])
    texts = frame.select(text).to_series()
    if not polled and any(column.null_count() for column in columns.values()):
        texts = texts.str.replace('"points":[,', '"points":[', literal=True)
    gone = lost if polled or silent is None else silent if lost is None else lost | silent
    points = pl.repeat(count, len(frame), dtype=pl.Int64, eager=True)
    if polled and silent is not None:
        points = pl.Series(np.where(silent.ravel(), 2, count))
    return [_rows(texts, points, None if gone is None else ~gone, firsts, hosts)]


def _document_head(host: Host) -> str:
    return f'{{"host":{orjson.dumps(host.name).decode()},"ts":'


def _point_parts(metric: str, unit: str, kind: str, labels: dict[str, str], column: str, comma: str) -> list[pl.Expr]:
    head = f'{comma}{{"metric":{orjson.dumps(metric).decode()},"value":'
    tail = f',"unit":{orjson.dumps(unit).decode()},"kind":"{kind}","labels":{orjson.dumps(labels).decode()}}}'
    return [pl.lit(head), pl.col(column), pl.lit(tail)]
