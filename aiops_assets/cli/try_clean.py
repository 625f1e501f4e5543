"""Removing every trace of ``aiops try``: rows, incidents, silences, quarantine, landed deliveries.

Deleting under a working session would pull its state from under it, so this takes the session's lease first; the next
session derives the hours concerned again from what is left. Everything to be removed is recognised by the source
``try`` and the names of the story, so running it twice, or after it was cut short, is harmless.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aiops_assets.cli.try_load import SOURCE
from aiops_assets.cli.try_story import names_of_try

if TYPE_CHECKING:
    from aiops_assets.lake.tables import TableWriter
    from aiops_assets.settings import Home, Settings

_LEASE_SECONDS = 60.0
_IDS_PER_STATEMENT = 500


def remove_traces(settings: Settings) -> Iterator[str]:
    """Remove them all; yields a line for each kind of thing.

    Raises:
        Problem: the live session did not give way in time.
    """
    from aiops_assets.cli.output import Problem
    from aiops_assets.live.lease import held, live_lease

    home = settings.paths
    if not home.root.is_dir():
        yield "there is no home folder, so there is nothing to remove"
        return
    try:
        with held(live_lease(home.live), "aiops try --clean", wait_seconds=_LEASE_SECONDS):
            yield from _segments(home)
            yield from _tables(home)
            yield from _operations(home)
            folder = home.quarantine / SOURCE
            if folder.exists():
                shutil.rmtree(folder)
                yield f"{folder}: removed"
            _forget_progress(home)
    except TimeoutError as error:
        raise Problem(f"the live session did not give way: {error}") from error


def _segments(home: Home) -> Iterator[str]:
    """Leave the deliveries out of sealed segments; the segments stay, so that no writer's numbers have a gap."""
    from aiops_assets.landing.packing import packs, unpack
    from aiops_assets.landing.reader import numbers, read_segment, writers
    from aiops_assets.landing.segment import MAGIC, SEALED, encode, segment_path
    from aiops_assets.landing.writer import fsync_folder

    removed = 0
    for writer in writers(home.landing):
        folder = home.landing / writer
        changed = False
        for first, last, path in packs(folder):
            packed = (read_segment(folder, seq) for seq in range(first, last + 1))
            if any(delivery.source == SOURCE for segment in packed for delivery in segment.deliveries):
                unpack(folder, path)
        for seq in sorted(numbers(folder, SEALED)):
            segment = read_segment(folder, seq)
            kept = [delivery for delivery in segment.deliveries if delivery.source != SOURCE]
            if len(kept) == len(segment.deliveries):
                continue
            path = segment_path(folder, seq)
            content = b"".join([MAGIC, *(part for delivery in kept for part in encode(delivery)), segment.remainder])
            _replace(path, content)
            removed, changed = removed + len(segment.deliveries) - len(kept), True
        if changed:
            fsync_folder(folder)
    if removed:
        yield f"landing zone: {removed:,} deliveries"


def _replace(path: Path, content: bytes) -> None:
    times = path.stat()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.utime(temporary, ns=(times.st_atime_ns, times.st_mtime_ns))
    temporary.replace(path)


def _tables(home: Home) -> Iterator[str]:
    import polars as pl

    from aiops_assets.detection.receipts import REMOVED
    from aiops_assets.lake.tables import Lake, TableWriter, quote
    from aiops_assets.live.events import EVENT_TABLES
    from aiops_assets.live.rederive import ask_for
    from aiops_assets.tables import (
        ALERT_DECISIONS,
        ALERTS,
        ANOMALIES,
        BASELINES,
        CHANGES,
        ENTITIES,
        INCIDENTS,
        METRIC_POINTS,
        SERIES,
    )

    lake = Lake(home.lake)
    names = names_of_try()
    hosts = ", ".join(quote(name) for name in names)
    source = quote(SOURCE)
    ids = lake.scan("series").filter(pl.col("source") == SOURCE).select("series_id").collect()["series_id"].to_list()
    touched = lake.scan("metric_points", columns=["hour", "source"]).filter(pl.col("source") == SOURCE)
    ask_for(home.live, touched.select("hour").unique().collect()["hour"].to_list(), REMOVED)
    yield from _deleted(TableWriter(lake, METRIC_POINTS), [f"source = {source}"])
    for table in (BASELINES, ANOMALIES):
        yield from _deleted(TableWriter(lake, table), [f"series_id IN ({part})" for part in _parts(ids)])
    for table in (ALERTS, ALERT_DECISIONS):
        yield from _deleted(TableWriter(lake, table), [f"host IN ({hosts})"])
    for table in (CHANGES, *EVENT_TABLES.values()):
        yield from _deleted(TableWriter(lake, table), [f"source = {source}"])
    yield from _deleted(TableWriter(lake, ENTITIES), [f"name IN ({hosts})"])
    snapshots = lake.scan("incidents").filter(pl.col("hosts").list.eval(pl.element().is_in(names)).list.any())
    incidents = snapshots.select("incident_id").unique().collect()["incident_id"].to_list()
    parts = [", ".join(quote(name) for name in incidents[i : i + 100]) for i in range(0, len(incidents), 100)]
    yield from _deleted(TableWriter(lake, INCIDENTS), [f"incident_id IN ({part})" for part in parts])
    # Last, because it says which rows of the other tables are meant.
    yield from _deleted(TableWriter(lake, SERIES), [f"source = {source}"])


def _parts(ids: Sequence[int]) -> Iterator[str]:
    for start in range(0, len(ids), _IDS_PER_STATEMENT):
        yield ", ".join(str(int(series_id)) for series_id in ids[start : start + _IDS_PER_STATEMENT])


def _deleted(writer: TableWriter, predicates: Sequence[str]) -> Iterator[str]:
    rows = sum(writer.delete(predicate) for predicate in predicates)
    if rows:
        yield f"{writer.table.name}: {rows:,} rows"


def _operations(home: Home) -> Iterator[str]:
    """Incidents that concern the story's hosts alone, their alerts and timelines, and the silences of the story."""
    from sqlalchemy import delete, select

    from aiops_assets.cli.try_out import SILENCE_REASON
    from aiops_assets.observability.health import check_database
    from aiops_assets.operations.database import changing, connect
    from aiops_assets.operations.models import (
        ALERT_AMENDMENTS,
        INCIDENT_ALERTS,
        INCIDENT_EVENTS,
        INCIDENT_PAGES,
        INCIDENTS,
        SILENCES,
    )

    if not check_database(home.operations_url).ok:
        return
    engine = connect(home.operations_url)
    names = names_of_try()
    try:
        with changing(engine) as transaction:
            connection = transaction.connection
            alerts = INCIDENT_ALERTS.c
            ours = select(alerts.incident_id).where(alerts.host.in_(names), alerts.incident_id.is_not(None))
            others = select(alerts.incident_id).where(alerts.host.not_in(names), alerts.incident_id.is_not(None))
            ids: list[str] = list(
                connection.execute(ours.distinct().where(alerts.incident_id.not_in(others))).scalars()
            )
            for table in (INCIDENT_EVENTS, INCIDENT_PAGES):
                connection.execute(delete(table).where(table.c.incident_id.in_(ids)))
            theirs = select(alerts.alert_id).where(alerts.host.in_(names))
            connection.execute(delete(ALERT_AMENDMENTS).where(ALERT_AMENDMENTS.c.alert_id.in_(theirs)))
            removed = connection.execute(delete(INCIDENT_ALERTS).where(alerts.host.in_(names))).rowcount
            connection.execute(delete(INCIDENTS).where(INCIDENTS.c.incident_id.in_(ids)))
            silences = connection.execute(delete(SILENCES).where(SILENCES.c.reason == SILENCE_REASON)).rowcount
            if ids or removed or silences:
                transaction.mark()
    finally:
        engine.dispose()
    if ids or removed or silences:
        yield f"operations database: {len(ids)} incidents, {removed} alerts, {silences} silences"


def _forget_progress(home: Home) -> None:
    """Progress counts what is gone."""
    from aiops_assets.live.progress import read_progress, write_progress

    progress = read_progress(home.live)
    if progress.sources.pop(SOURCE, None) is not None:
        write_progress(home.live, progress)
