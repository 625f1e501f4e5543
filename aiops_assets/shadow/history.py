"""The imported history, read back in the order of time: from the landing zone, or from the lake when it is gone there.

What belongs here: points of one import, window after window, numbered by series. What does not: what they mean.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from aiops_assets.formats import parse
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND, hour_key, hour_start
from aiops_assets.lake.tables import Lake
from aiops_assets.landing.reader import read_segment
from aiops_assets.landing.segment import Delivery
from aiops_assets.shadow.backfill import FORMAT, chunk_of
from aiops_assets.shadow.journal import Journal
from aiops_assets.shadow.plan import Chunk
from aiops_assets.telemetry.series import SeriesDirectory

_HOURS_AT_ONCE = 6
_SEGMENTS_HELD = 4


@dataclass(frozen=True, slots=True)
class Window:
    """Points of a stretch of time: ``number`` int32, ``ts`` int64 µs UTC, ``value`` float64, parallel; ``new`` series.

    ``end`` is the instant after the stretch (µs). No (number, ts) comes twice; windows come in the order of time.
    """

    end: int
    number: NDArray[np.int32]
    ts: NDArray[np.int64]
    value: NDArray[np.float64]
    new: pl.DataFrame


class SegmentGone(Exception):
    """A segment of the import is no longer in the landing zone, or damaged."""


def windows(journal: Journal, landing: Path, lake_root: str, directory: SeriesDirectory) -> Iterator[Window]:
    """The windows of an import; ``directory``, an empty one, receives the series."""
    lowest: dict[str, int] = {}
    for done in journal.done.values():
        if done.writer:
            lowest[done.writer] = min(done.seq, lowest.get(done.writer, done.seq))
    try:
        # The landing zone gives up its oldest segments first.
        for writer, seq in lowest.items():
            _deliveries(landing, writer, seq)
    except SegmentGone:
        yield from _from_lake(journal, Lake(lake_root), directory)
    else:
        yield from _from_landing(journal, landing, directory)


def _deliveries(landing: Path, writer: str, seq: int) -> list[Delivery]:
    try:
        segment = read_segment(landing / writer, seq)
    except FileNotFoundError as error:
        raise SegmentGone(f"{writer}/{seq} is no longer in the landing zone; run the same command again") from error
    if segment.damage is not None:
        raise SegmentGone(str(segment.damage)) from segment.damage
    return segment.deliveries


def _from_landing(journal: Journal, landing: Path, directory: SeriesDirectory) -> Iterator[Window]:
    held: OrderedDict[tuple[str, int], list[Delivery]] = OrderedDict()
    overlapping = len(journal.question.selectors) > 1
    for leg in sorted(journal.legs, key=lambda leg: leg.start):
        by_window: dict[int, list[Chunk]] = defaultdict(list)
        for chunk in leg.chunks():
            by_window[chunk.window].append(chunk)
        for number, (_, end) in enumerate(leg.windows()):
            wanted = {chunk.key: journal.done[chunk.key] for chunk in by_window[number] if chunk.key in journal.done}
            places = {(done.writer, done.seq) for done in wanted.values() if done.writer}
            found: dict[str, Delivery] = {}
            for writer, seq in sorted(places):
                if (writer, seq) not in held:
                    held[writer, seq] = _deliveries(landing, writer, seq)
                    while len(held) > _SEGMENTS_HELD:
                        held.popitem(last=False)
                for delivery in held[writer, seq]:
                    if chunk_of(delivery, journal.shadow_id) in wanted:
                        found.setdefault(delivery.delivery_id, delivery)
            yield _parsed(list(found.values()), directory, end, journal.question.source, overlapping)


def _parsed(deliveries: list[Delivery], directory: SeriesDirectory, end: int, source: str, overlapping: bool) -> Window:
    parsed = parse(FORMAT, deliveries)
    numbers, new = directory.register(parsed.series, source, None)
    points = parsed.points.select(
        pl.Series("number", numbers[parsed.points["series"].to_numpy()], pl.Int32), "ts", "value"
    )
    if overlapping:
        points = points.unique(["number", "ts"], keep="first", maintain_order=True)
    return Window(
        end * MICROS_PER_SECOND,
        points["number"].to_numpy(),
        points["ts"].to_numpy(),
        points["value"].to_numpy(),
        new,
    )


def _from_lake(journal: Journal, lake: Lake, directory: SeriesDirectory) -> Iterator[Window]:
    start = min(leg.start for leg in journal.legs) * MICROS_PER_SECOND
    end = max(leg.end for leg in journal.legs) * MICROS_PER_SECOND
    stored = lake.read("series").unique("series_id", keep="first", maintain_order=True)
    first = hour_start(hour_key(start))
    span = _HOURS_AT_ONCE * MICROS_PER_HOUR
    for begin in range(first, end, span):
        hours = [hour_key(at) for at in range(begin, min(begin + span, end), MICROS_PER_HOUR)]
        points = (
            lake.scan("metric_points", hours, ["series_id", "ts", "value", "source"])
            .filter(pl.col("source") == journal.question.source)
            .select("series_id", pl.col("ts").dt.epoch("us"), "value")
            .filter(pl.col("ts").is_between(start, end, closed="left"))
            .collect()
        )
        seen = stored.join(points.select("series_id").unique(), on="series_id", how="semi")
        numbers, new = directory.register(seen, journal.question.source, None)
        numbered = points.join(
            seen.select("series_id", pl.Series("number", numbers, pl.Int32)), on="series_id", how="inner"
        ).sort("number", "ts")
        yield Window(
            min(begin + span, end),
            numbered["number"].to_numpy(),
            numbered["ts"].to_numpy(),
            numbered["value"].to_numpy(),
            new,
        )
