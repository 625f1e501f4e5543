"""From deliveries to numbered points: the first, pure part of a micro-batch.

What belongs here: parsing by format and source, numbering of series, refusal of points that cannot be true. Every byte
of the deliveries ends as a point, an event, a change, an entity or a quarantine entry.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from aiops_assets.config import Config, Reading
from aiops_assets.formats import parse
from aiops_assets.formats.batch import CHANGES_SCHEMA, ENTITIES_SCHEMA, EXTERNAL_SCHEMA, Parsed, Reject
from aiops_assets.formats.rows import encode
from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.landing.quarantine import QuarantineEntry
from aiops_assets.landing.segment import Delivery
from aiops_assets.live.events import EVENT_TABLES, with_event_ids
from aiops_assets.telemetry.series import SeriesDirectory

log = logging.getLogger(__name__)

#: stored when a delivery does not say how it is written
DEFAULT_FORMAT = "generic"
#: an instant (µs) beyond any that is stored, whose difference from another still fits 64 bits
_FAR = 1 << 62


#: source → how its generic JSON is to be read
Readings = Callable[[str], Sequence[Reading]]


def readings_of(config: Config) -> Readings:
    """What ``aiops.yaml`` declares."""
    return lambda source: config.sources[source].reading if source in config.sources else ()


@dataclass(frozen=True, slots=True)
class Bounds:
    """Event times outside these are refused, in seconds from the time of acceptance.

    ``past_seconds`` holds for deliveries that say that they are history, ``late_seconds`` for all others.
    """

    future_seconds: float
    past_seconds: float
    late_seconds: float


@dataclass(frozen=True, slots=True)
class Intake:
    """The rows of a micro-batch, by ingest position.

    ``number`` int32, ``ts`` int64 µs UTC, ``value`` float64 and ``delivery`` uint32 are parallel; ``delivery`` points
    to the deliveries handed in. ``new_series`` are directory rows, ``first_seen`` their first event times.
    """

    number: NDArray[np.int32]
    ts: NDArray[np.int64]
    value: NDArray[np.float64]
    delivery: NDArray[np.uint32]
    new_series: pl.DataFrame
    first_seen: NDArray[np.int64]
    changes: pl.DataFrame
    entities: pl.DataFrame
    quarantined: list[QuarantineEntry]
    refused_series: dict[str, int]
    #: name in ``EVENT_TABLES`` → frame of ``Parsed`` by ingest position, every row with a time and an identifier
    events: dict[str, pl.DataFrame]
    #: news of external alerts, with a time in each row
    external: pl.DataFrame


def take_in(
    deliveries: Sequence[Delivery],
    directory: SeriesDirectory,
    bounds: Bounds,
    series_limit: Callable[[str], int | None],
    readings: Readings | None = None,
) -> Intake:
    """Parse deliveries (in order of ingest position) and register their series in ``directory``.

    ``readings`` tells how a source's generic JSON is to be read.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for index, delivery in enumerate(deliveries):
        groups.setdefault((delivery.headers.get("format", DEFAULT_FORMAT), delivery.source), []).append(index)
    received = np.fromiter((delivery.received_at for delivery in deliveries), np.int64, len(deliveries))
    history = np.fromiter((delivery.headers.get("history") == "1" for delivery in deliveries), bool, len(deliveries))
    oldest = np.where(history, bounds.past_seconds, min(bounds.past_seconds, bounds.late_seconds)) * MICROS_PER_SECOND
    parts: list[tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float64], NDArray[np.uint32]]] = []
    new_series: list[pl.DataFrame] = [directory.frame.clear()]
    changes: list[pl.DataFrame] = [pl.DataFrame(schema=CHANGES_SCHEMA)]
    entities: list[pl.DataFrame] = [pl.DataFrame(schema=ENTITIES_SCHEMA)]
    quarantined: list[QuarantineEntry] = []
    refused: dict[str, int] = {}
    events: dict[str, list[pl.DataFrame]] = {name: [] for name in (*EVENT_TABLES, "external")}
    for source, members, parsed in _parsed(groups, deliveries, readings):
        index_of = np.asarray(members, np.uint32)
        quarantined += [
            quarantine_entry(deliveries[members[reject.delivery]], reject.reason, reject.content, reject.offset)
            for reject in parsed.rejects
        ]
        changes.append(_rebased(parsed.changes, index_of))
        entities.append(parsed.entities)
        for name, found in events.items():
            rows = getattr(parsed, name)
            if not rows.is_empty():
                rows = rows.with_columns(pl.Series("delivery", index_of[rows["delivery"].to_numpy()], pl.UInt32))
                found.append(timely(name, rows, deliveries, received, bounds, quarantined))
        if parsed.points.is_empty():
            continue
        numbers, added = directory.register(parsed.series, source, series_limit(source))
        new_series.append(added)
        number = numbers[parsed.points["series"].to_numpy()]
        ts = parsed.points["ts"].to_numpy()
        value = parsed.points["value"].to_numpy()
        delivery_index = index_of[parsed.points["delivery"].to_numpy()]
        age = received[delivery_index] - ts
        future = age < -bounds.future_seconds * MICROS_PER_SECOND
        past = age > oldest[delivery_index]
        refusals = (
            (future, f"event time more than {bounds.future_seconds:.0f} s in the future"),
            (past & ~future, _too_old(bounds)),
            ((number < 0) & ~future & ~past, "series limit of the source reached"),
        )
        keep = ~future & ~past & (number >= 0)
        for mask, reason in refusals:
            if mask.any():
                quarantined += _point_entries(deliveries, parsed, delivery_index, np.flatnonzero(mask), reason)
        if (over := int(((number < 0) & ~future & ~past).sum())) > 0:
            refused[source] = refused.get(source, 0) + over
        if keep.all():
            parts.append((number, ts, value, delivery_index))
        else:
            parts.append((number[keep], ts[keep], value[keep], delivery_index[keep]))
    number, ts, value, delivery_index = _joined(parts)
    if len(parts) > 1:
        order = np.argsort(delivery_index, kind="stable")
        number, ts, value, delivery_index = number[order], ts[order], value[order], delivery_index[order]
    fresh = pl.concat(new_series)
    return Intake(
        number,
        ts,
        value,
        delivery_index,
        fresh,
        _first_seen(fresh, number, ts),
        pl.concat(changes),
        pl.concat(entities),
        quarantined,
        refused,
        {name: _in_order(events[name]) for name in EVENT_TABLES if events[name]},
        _in_order(events["external"]) if events["external"] else pl.DataFrame(schema=EXTERNAL_SCHEMA),
    )


def _parsed(
    groups: Mapping[tuple[str, str], list[int]], deliveries: Sequence[Delivery], readings: Readings | None
) -> Iterator[tuple[str, list[int], Parsed]]:
    """Each group as its format reads it.

    A parser should never raise on what a delivery holds. Should one do so, that delivery goes to quarantine with the
    error, and everybody else's data go on.
    """
    for (how, source), members in groups.items():
        mine = [deliveries[index] for index in members]
        declared = readings(source) if readings else ()
        try:
            found = [(members, parse(how, mine, declared))]
        except Exception:
            log.exception("the parser of %s failed; its %d deliveries are read one by one", how, len(mine))
            found = [([index], _read_alone(how, deliveries[index], declared)) for index in members]
        for part, parsed in found:
            yield source, part, parsed


def _read_alone(how: str, delivery: Delivery, readings: Sequence[Reading]) -> Parsed:
    try:
        return parse(how, [delivery], readings)
    except Exception as error:
        reason = f"the parser of {how} failed: {type(error).__name__}: {error}"[:500]
        return Parsed(rejects=[Reject(0, 0, reason, delivery.body)])


def timely(
    name: str,
    rows: pl.DataFrame,
    deliveries: Sequence[Delivery],
    received: NDArray[np.int64],
    bounds: Bounds,
    quarantined: list[QuarantineEntry],
) -> pl.DataFrame:
    """Events with a time and an identifier; those whose time cannot be true are appended to ``quarantined``.

    No hour is derived from events, so that they may be as old as history.

    Args:
        name: field of ``Parsed`` that the rows are of.
        rows: with ``delivery`` as index into ``deliveries``.
        received: time of acceptance by delivery, microseconds.
    """
    timed = rows["ts"].is_not_null()
    accepted = pl.Series("received", received[rows["delivery"].to_numpy()])
    if name != "external":
        rows = with_event_ids(rows, deliveries, timed)
    rows = rows.with_columns(pl.coalesce("ts", accepted).alias("ts"))
    age = accepted.to_numpy() - rows["ts"].clip(-_FAR, _FAR).to_numpy()
    future = age < -bounds.future_seconds * MICROS_PER_SECOND
    past = age > bounds.past_seconds * MICROS_PER_SECOND
    for mask, reason in (
        (future, f"event time more than {bounds.future_seconds:.0f} s in the future"),
        (past, f"event time more than {bounds.past_seconds / 86_400:.0f} days in the past"),
    ):
        for (index,), group in rows.filter(pl.Series(mask)).group_by("delivery", maintain_order=True):
            quarantined.append(quarantine_entry(deliveries[int(index)], reason, encode(name, group), 0, "rows"))
    return rows.filter(pl.Series(~(future | past)))


def _in_order(parts: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(parts).sort("delivery", maintain_order=True) if len(parts) > 1 else parts[0]


def _too_old(bounds: Bounds) -> str:
    return (
        f"event time more than {bounds.late_seconds / 3600:g} h in the past (AIOPS_LATE_HOURS); "
        f"history of up to {bounds.past_seconds / 86_400:.0f} days is taken by aiops ingest or with X-Aiops-History: 1"
    )


def _joined(
    parts: list[tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float64], NDArray[np.uint32]]],
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float64], NDArray[np.uint32]]:
    if not parts:
        return np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.float64), np.empty(0, np.uint32)
    if len(parts) == 1:
        return parts[0]
    number, ts, value, delivery = zip(*parts, strict=True)
    return np.concatenate(number), np.concatenate(ts), np.concatenate(value), np.concatenate(delivery)


def _first_seen(fresh: pl.DataFrame, number: NDArray[np.int32], ts: NDArray[np.int64]) -> NDArray[np.int64]:
    if fresh.is_empty():
        return np.empty(0, np.int64)
    start = int(fresh["number"][0])
    first = np.full(fresh.height, np.iinfo(np.int64).max)
    is_new = number >= start
    np.minimum.at(first, number[is_new] - start, ts[is_new])
    # A series of which every point was refused has no first point; it is known since the batch's oldest point.
    first[first == np.iinfo(np.int64).max] = int(ts.min()) if len(ts) else 0
    return first


def _rebased(changes: pl.DataFrame, index_of: NDArray[np.uint32]) -> pl.DataFrame:
    if changes.is_empty():
        return changes
    return changes.with_columns(pl.Series("delivery", index_of[changes["delivery"].to_numpy()], pl.UInt32))


def quarantine_entry(
    delivery: Delivery, reason: str, content: bytes, offset: int, format_name: str | None = None
) -> QuarantineEntry:
    return QuarantineEntry(
        source=delivery.source,
        reason=reason,
        content=content,
        delivery_id=delivery.delivery_id,
        received_at=delivery.received_at,
        content_type=delivery.content_type,
        format=format_name or delivery.headers.get("format", DEFAULT_FORMAT),
        writer=delivery.writer,
        seq=delivery.seq,
        index=delivery.index,
        offset=offset,
    )


def _point_entries(
    deliveries: Sequence[Delivery],
    parsed: Parsed,
    delivery_index: NDArray[np.uint32],
    rows: NDArray[np.int64],
    reason: str,
) -> list[QuarantineEntry]:
    """One entry a delivery, its refused points written in the ``collected`` format so that a retry can read them."""
    points = parsed.points[rows].with_columns(pl.Series("delivery", delivery_index[rows], pl.UInt32))
    described = points.join(parsed.series.with_row_index("series"), on="series", how="left", maintain_order="left")
    return [
        quarantine_entry(deliveries[int(index)], reason, point_documents(group), 0, "collected")
        for (index,), group in described.group_by("delivery", maintain_order=True)
    ]


def point_documents(points: pl.DataFrame) -> bytes:
    """Points (host, metric, unit, labels, kind, ts, value) as a JSON array in the ``collected`` format."""
    return orjson.dumps(
        [
            {
                "host": host,
                "ts": ts,
                "points": [
                    {"metric": metric, "value": value, "unit": unit, "kind": kind, "labels": orjson.Fragment(labels)}
                ],
            }
            for host, ts, metric, value, unit, kind, labels in points.select(
                "host", "ts", "metric", "value", "unit", "kind", "labels"
            ).iter_rows()
        ]
    )
