"""A storm's way through the live path: emissions into a landing zone, and the live session's own steps over them.

What belongs here: pacing by event time, and reading what came of it. What does not: the steps (``live.pipeline``), the
rules by which alerts become incidents (``incidents``), and what it is worth (``scoring``).

Nobody waits: an emission counts as accepted ``ACCEPTED_AFTER`` after it was sent, by its own clock, and the session is
stepped whenever ``batch`` of event time has passed, as a live session is every second or so. What the live path decides
follows from event times and times of acceptance, so hours close, baselines are learnt, silence is noticed and alerts
are raised at the instants at which they would have been.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import polars as pl

from aiops_assets.config import load_config
from aiops_assets.evaluation.scoring import Volume
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND, hour_key, instant
from aiops_assets.incidents.rehearsal import INCIDENTS_SCHEMA, incidents_of
from aiops_assets.incidents.store import IncidentStore
from aiops_assets.lake.tables import Lake
from aiops_assets.landing.reader import first_seq
from aiops_assets.landing.segment import segment_path
from aiops_assets.landing.writer import SegmentWriter
from aiops_assets.live.pipeline import Pipeline
from aiops_assets.live.progress import read_progress
from aiops_assets.settings import Settings
from aiops_assets.synthetic.storms.delivery import delivery_of
from aiops_assets.synthetic.storms.engine import Emission

#: what acceptance adds to an emission's own time
ACCEPTED_AFTER = MICROS_PER_SECOND
#: event time that a step takes, before and from the start of the storm
PAST_BATCH, BATCH = 6 * MICROS_PER_HOUR, 60 * MICROS_PER_SECOND
WRITER = "storm"
#: hours that are over close after so many quiet steps (``live.closing``)
_QUIET_STEPS = 8
_SEGMENT_BYTES = 32 << 20
_MANY = 100_000
_WORDS = {
    "quarantined": "parts of deliveries went to quarantine",
    "conflicts": "points differ from what was stored for their series and time",
    "duplicates": "points came twice",
    "late": "points came after their hour was closed",
    "refused_series": "series were refused",
}

#: hears (event time reached, start, end) in microseconds
Tell = Callable[[int, int, int], None]


@dataclass(frozen=True, slots=True)
class Passage:
    """What came out. ``alerts`` are rows of ``tables.ALERTS``, incidents and pages as ``rehearsal`` gives them."""

    alerts: pl.DataFrame
    incidents: pl.DataFrame
    pages: pl.DataFrame
    series: pl.DataFrame
    volume: Volume
    problems: tuple[str, ...]


def send_through(
    settings: Settings,
    emissions: Iterable[Emission],
    *,
    start: int,
    end: int,
    past_start: int,
    batch: int = BATCH,
    keep_segments: bool = False,
    tell: Tell = lambda at, start, end: None,
) -> Passage:
    """Send emissions, in time order, through the live path of a home that is empty.

    Args:
        start, end: of the storm, microseconds since the epoch (UTC).
        past_start: of its history.
        batch: event time that a step takes from ``start`` on.
        keep_segments: whether the landing zone keeps what was taken.

    Raises:
        ValueError: the home has data in it.
    """
    home = settings.paths
    home.create()
    if any(home.landing.iterdir()):
        raise ValueError(f"{home.root}: has data in it; an evaluation needs a home of its own")
    pipeline = Pipeline(settings, session="evaluation")
    pipeline.open()
    deliveries = 0
    try:
        with SegmentWriter(home.landing, WRITER, max_bytes=_SEGMENT_BYTES, max_age_seconds=3600) as writer:
            for upto, group in _in_batches(emissions, start, batch):
                writer.append_deliveries(
                    [delivery_of(one, one.at + ACCEPTED_AFTER, history=one.history) for one in group]
                )
                writer.seal()
                deliveries += len(group)
                while pipeline.step() is not None:
                    pass
                if not keep_segments:
                    # Nothing is promised to anybody here, so the disk holds one stretch at a time.
                    _forget_segments(writer)
                tell(upto, past_start, end)
            for _ in range(_QUIET_STEPS):
                pipeline.idle()
    finally:
        pipeline.close()
    tell(end, past_start, end)
    return read_passage(settings, start=start, end=end, deliveries=deliveries)


def read_passage(settings: Settings, *, start: int, end: int, deliveries: int = 0) -> Passage:
    """What a home holds of a storm that went through it: incidents and pages by event time."""
    home = settings.paths
    lake = Lake(home.lake)
    alerts = lake.read("alerts")
    series = lake.read("series")
    incidents, pages = incidents_of(
        alerts, config=load_config(home.config), entities=lake.read("entities"), changes=lake.read("changes"), until=end
    )
    progress = read_progress(home.live)
    sources = progress.sources.values()
    problems = list(progress.problems)
    for what in ("quarantined", "conflicts", "duplicates", "late", "refused_series"):
        if count := sum(getattr(source, what) for source in sources):
            problems.append(f"{count:,} {_WORDS[what]}")
    volume = Volume(
        series=series.height,
        points=_rows(lake, "metric_points", start, end),
        events=sum(source.events for source in sources),
        deliveries=deliveries,
        anomalies=_rows(lake, "anomalies", start, end),
        quarantined=sum(source.quarantined for source in sources),
    )
    return Passage(alerts, incidents, pages, series, volume, tuple(problems))


def stored_incidents(settings: Settings) -> pl.DataFrame:
    """The incidents of a home as people see them, ``rehearsal.INCIDENTS_SCHEMA``; merged ones are left out."""
    store = IncidentStore(settings.paths.operations_url)
    try:
        whole = [store.get(one.incident_id) for one in store.list(limit=_MANY) if one.merged_into is None]
    finally:
        store.close()
    rows = [
        {
            "incident_id": one.incident_id,
            "title": one.title,
            "priority": one.priority,
            "started_at": instant(one.started_at),
            "resolved_at": None if one.resolved_at is None else instant(one.resolved_at),
            "hosts": list(one.hosts),
            "alert_ids": [member.alert.alert_id for member in (*one.members, *one.suppressed)],
            "withdrawn": one.withdrawn_because is not None,
            "suspects": [suspect.title for suspect in one.suspects if suspect.before],
        }
        for one in whole
    ]
    return pl.DataFrame(rows, schema=INCIDENTS_SCHEMA, orient="row").sort("started_at", "incident_id")


def _rows(lake: Lake, table: str, start: int, end: int) -> int:
    """Rows of a table by hour whose time lies between two instants."""
    hours = [hour_key(at) for at in range(start - start % MICROS_PER_HOUR, end + 1, MICROS_PER_HOUR)]
    within = pl.col("ts").is_between(instant(start), instant(end))
    return int(lake.scan(table, hours).filter(within).select(pl.len()).collect().item())


def _in_batches(emissions: Iterable[Emission], start: int, batch: int) -> Iterator[tuple[int, list[Emission]]]:
    """(end of a stretch of event time, its emissions); no stretch crosses ``start``."""
    group: list[Emission] = []
    until = 0
    for emission in emissions:
        if emission.at >= until:
            if group:
                yield until, group
                group = []
            width = batch if emission.at >= start else PAST_BATCH
            until = emission.at - emission.at % width + width
            if emission.at < start:
                until = min(until, start)
        group.append(emission)
    if group:
        yield until, group


def _forget_segments(writer: SegmentWriter) -> None:
    for seq in range(max(1, first_seq(writer.folder)), writer.last_sealed):
        segment_path(writer.folder, seq).unlink()
