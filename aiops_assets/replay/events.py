"""Backfills of events: changes, logs, errors, spans, tickets and documents that landing segments have and tables lack.

What belongs here: reading segments again and adding what is lacking. What does not: points and what follows from them
(``replay.backfill``). Rows that are there stay as they are; an event has the same identifier whenever it is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from aiops_assets.config import load_config
from aiops_assets.formats import parse
from aiops_assets.hours import hour_start
from aiops_assets.lake.tables import Lake
from aiops_assets.landing.reader import first_seq, look, read_segment, writers
from aiops_assets.landing.segment import Delivery
from aiops_assets.live.events import EVENT_TABLES, EventTable, change_rows, event_rows
from aiops_assets.live.intake import DEFAULT_FORMAT, Bounds, readings_of, timely
from aiops_assets.live.ownership import owned
from aiops_assets.settings import Settings
from aiops_assets.tables import CHANGES, METRIC_POINTS, TABLES

OWNER = "aiops backfill"
#: tables that are filled from deliveries without any derivation
NAMES = (CHANGES.name, *(table.name for table in EVENT_TABLES.values()))
#: rows gathered before they are compared with a table
ROWS_AT_ONCE = 500_000

#: hears (what is done, how far, how much there is)
Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class PartitionBackfilled:
    """An hour or day: rows that were there, rows that came back, and whether all its segments are still kept."""

    partition: str
    rows: int
    added: int
    complete: bool


@dataclass(slots=True)
class EventsBackfilled:
    """What a backfill of one table did."""

    table: str
    partitions: list[PartitionBackfilled] = field(default_factory=list)
    segments: int = 0
    seconds: float = 0.0

    def document(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def _quiet(what: str, done: int, total: int) -> None:
    """Tells nobody."""


def backfill_events(
    settings: Settings, chosen: Mapping[str, Sequence[str]], *, progress: Progress = _quiet
) -> list[EventsBackfilled]:
    """Add the rows of some partitions that landing segments have and the tables lack, in one pass over the segments.

    Args:
        chosen: name of a table (one of ``NAMES``) → its hours or days.

    Raises:
        TimeoutError: the live session did not give way.
    """
    began = time.monotonic()
    wanted = {name: sorted(set(partitions)) for name, partitions in chosen.items() if partitions}
    if not wanted:
        return []
    lake = Lake(settings.paths.lake)
    before = {(name, part.partition): part.rows for name in wanted for part in lake.partitions(name)}
    plan, since = _segments(settings, lake, min(_start_of(keys[0]) for keys in wanted.values()))
    added: dict[tuple[str, str], int] = {}
    gathered: dict[str, list[pl.DataFrame]] = {name: [] for name in wanted}
    rows = 0
    reader = _Reader(settings)
    for number, (writer, seq) in enumerate(plan):
        progress("segments", number, len(plan))
        deliveries = read_segment(settings.paths.landing / writer, seq).deliveries
        for name, frame in reader.rows(deliveries).items():
            if name in wanted:
                mine = frame.filter(pl.col(str(TABLES[name].partition)).is_in(wanted[name]))
                gathered[name].append(mine)
                rows += mine.height
        if rows >= ROWS_AT_ONCE or number == len(plan) - 1:
            _add(settings, lake, gathered, added)
            gathered, rows = {name: [] for name in wanted}, 0
    seconds = time.monotonic() - began
    return [
        EventsBackfilled(
            name,
            [
                PartitionBackfilled(key, before.get((name, key), 0), added.get((name, key), 0), since <= _start_of(key))
                for key in keys
            ],
            len(plan),
            seconds,
        )
        for name, keys in wanted.items()
    ]


class _Reader:
    """Deliveries to rows of tables, by the rules of the live session."""

    def __init__(self, settings: Settings) -> None:
        self._readings = readings_of(load_config(settings.paths.config))
        late = settings.late_hours * 3600
        self._bounds = Bounds(settings.max_future_seconds, settings.max_past_days * 86_400, late)

    def rows(self, deliveries: Sequence[Delivery]) -> dict[str, pl.DataFrame]:
        """Table → rows with partition."""
        found: dict[str, list[pl.DataFrame]] = {}
        groups: dict[tuple[str, str], list[Delivery]] = {}
        for delivery in deliveries:
            how = delivery.headers.get("format", DEFAULT_FORMAT)
            groups.setdefault((how, delivery.source), []).append(delivery)
        for (how, source), mine in groups.items():
            parsed = parse(how, mine, self._readings(source))
            received = np.fromiter((delivery.received_at for delivery in mine), np.int64, len(mine))
            if not parsed.changes.is_empty():
                found.setdefault(CHANGES.name, []).append(change_rows(parsed.changes, mine))
            for name, table in EVENT_TABLES.items():
                rows = getattr(parsed, name)
                if not rows.is_empty():
                    rows = timely(name, rows, mine, received, self._bounds, [])
                    found.setdefault(table.name, []).append(event_rows(name, rows, mine))
        return {name: pl.concat(frames) for name, frames in found.items()}


def _segments(settings: Settings, lake: Lake, start: float) -> tuple[list[tuple[str, int]], float]:
    """(segments taken that may hold events from ``start`` (s) on, since when (s) no segment is lacking)."""
    landing = settings.paths.landing
    names = writers(landing)
    taken = lake.taken(METRIC_POINTS.name, names)
    # An event may be told in advance, as far as event times may lie in the future.
    begins = start - settings.max_future_seconds
    plan: list[tuple[str, int]] = []
    since = 0.0
    for writer in names:
        first = first_seq(landing / writer)
        for seq in range(first, taken[writer] + 1):
            seen = look(landing / writer, seq)
            if seen is None:
                continue
            if seq == first > 1:
                since = max(since, seen[1])
            if not 0 < seen[1] < begins:
                plan.append((writer, seq))
    return plan, since


def _add(
    settings: Settings, lake: Lake, gathered: Mapping[str, list[pl.DataFrame]], added: dict[tuple[str, str], int]
) -> None:
    """Append what the tables lack; the live session is asked aside only when there is something."""
    frames = {name: pl.concat(parts) for name, parts in gathered.items() if any(part.height for part in parts)}
    if all(EventTable(lake, TABLES[name]).fresh(frame).is_empty() for name, frame in frames.items()):
        return
    with owned(settings, OWNER) as check_lease:
        for name, frame in frames.items():
            # Another may have added them while this one waited.
            table = EventTable(lake, TABLES[name])
            lacking = table.fresh(frame)
            if lacking.is_empty():
                continue
            check_lease()
            table.append(lacking)
            for key, count in lacking[str(TABLES[name].partition)].value_counts().iter_rows():
                added[name, key] = added.get((name, key), 0) + count


def _start_of(partition: str) -> float:
    if "T" in partition:
        return hour_start(partition) / 1_000_000
    return datetime.fromisoformat(partition).replace(tzinfo=UTC).timestamp()
