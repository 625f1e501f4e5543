"""The micro-batch: landing segments in, points, anomalies, alerts and incidents out, in an order that survives any cut.

Within a batch the order of commits is quarantine, series, changes, entities, events, external alerts with their
incidents, points (with the ingest positions), anomalies, incidents, alerts. All before the points are idempotent; all
after them follow from the points, so after a crash the next session derives them again from the tables and tells what
was not told (``deriving``).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from aiops_assets.config import Config, ConfigFile
from aiops_assets.detection.alerts import AlertBook, BatchRows, Suppression, suppressions_of
from aiops_assets.detection.derive import anomaly_rows
from aiops_assets.detection.external import KIND, ExternalBook
from aiops_assets.detection.handover import Shelf
from aiops_assets.detection.judgement import Judgement
from aiops_assets.detection.receipts import LATE, Receipt
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND, hour_key, hour_start, instant, micros
from aiops_assets.incidents.store import IncidentStore
from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.landing.quarantine import Quarantine, QuarantineEntry
from aiops_assets.landing.reader import first_seq, gaps, read_segment, waiting_segments, writers
from aiops_assets.landing.segment import Delivery
from aiops_assets.live.closing import HourClock
from aiops_assets.live.dedup import Deduplicator, rows_by_hour
from aiops_assets.live.deriving import Deriver, Outcome
from aiops_assets.live.entities import EntityBook, maintenance_rows
from aiops_assets.live.events import EVENT_TABLES, EventTable, change_rows, event_rows
from aiops_assets.live.intake import Bounds, Intake, point_documents, quarantine_entry, readings_of, take_in
from aiops_assets.live.progress import Progress, read_progress
from aiops_assets.live.rederive import Request, forget_request, read_request
from aiops_assets.live.rows import hours_of, positions_of
from aiops_assets.live.tally import Tally
from aiops_assets.settings import Settings
from aiops_assets.tables import (
    ALERTS,
    ANOMALIES,
    BASELINES,
    CHANGES,
    ENTITIES,
    MAINTENANCE,
    METRIC_POINTS,
    SERIES,
    TIMESTAMP,
)
from aiops_assets.telemetry.series import SeriesDirectory, stored_rows

log = logging.getLogger(__name__)

#: how often silences are read from the operations database
SILENCE_SECONDS = 5.0
#: values of entities that only changed are written at most this often
ENTITY_SECONDS = 10.0
#: the operations database forgets alerts that never belonged to an incident after this long
UNRELATED_ALERT_DAYS = 7
#: a sample in memory, roughly
BYTES_A_SAMPLE = 24
#: between two passes over late hours lies this multiple of the time that one takes
LATE_SHARE = 10.0


@dataclass(slots=True)
class BatchReport:
    """What one micro-batch did. ``touched`` maps (table, partition) to rows added and the newest event time (µs)."""

    segments: int = 0
    deliveries: int = 0
    points: int = 0
    events: int = 0
    anomalies: int = 0
    alerts: int = 0
    incidents: list[str] = field(default_factory=list)
    touched: dict[tuple[str, str | None], tuple[int, int | None]] = field(default_factory=dict)
    closed_hours: list[str] = field(default_factory=list)
    amended_hours: list[str] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)

    def touch(self, table: str, frame: pl.DataFrame, partition: str | None, time_column: str | None) -> None:
        """Count the rows of a frame under the partitions they went to."""
        if frame.is_empty():
            return
        groups = frame.group_by(partition) if partition else [((None,), frame)]
        for (key,), rows in groups:
            added, newest = self.touched.get((table, key), (0, None))
            latest = int(rows[time_column].dt.epoch("us").max()) if time_column else None  # type: ignore[arg-type]
            newest = latest if newest is None or (latest is not None and latest > newest) else newest
            self.touched[table, key] = (added + rows.height, newest)


@dataclass(frozen=True, slots=True)
class _Stored:
    """Points that are new, parallel arrays in order of ingest position; ``delivery`` is the place in the batch."""

    number: NDArray[np.int32]
    ts: NDArray[np.int64]
    value: NDArray[np.float64]
    delivery: NDArray[np.uint32]


class Pipeline:
    """The live plane of one shard. The caller holds the lease; ``check_lease`` is called before every commit."""

    def __init__(
        self, settings: Settings, *, session: str = "local", check_lease: Callable[[], None] | None = None
    ) -> None:
        self.settings = settings
        self._home = settings.paths
        self._check_lease = check_lease or (lambda: None)
        self._config_file = ConfigFile(self._home.config)
        self._config: Config = self._config_file.current()
        self.lake = Lake(self._home.lake)
        self._quarantine = Quarantine(self._home.quarantine)
        self._store = IncidentStore(self._home.operations_url)
        self._directory = SeriesDirectory()
        self._points = TableWriter(self.lake, METRIC_POINTS)
        self._series = TableWriter(self.lake, SERIES)
        self._baselines = TableWriter(self.lake, BASELINES)
        self._anomalies = TableWriter(self.lake, ANOMALIES)
        self._alerts = TableWriter(self.lake, ALERTS)
        self._changes = EventTable(self.lake, CHANGES)
        self._entities_table = TableWriter(self.lake, ENTITIES)
        self._maintenance_table = TableWriter(self.lake, MAINTENANCE)
        self._events = {name: EventTable(self.lake, table) for name, table in EVENT_TABLES.items()}
        self._external = ExternalBook()
        #: newest time (µs) of news of external alerts; hours and absences do not depend on it
        self._news_upto = 0
        self._dedup = Deduplicator(self._directory, lambda hour: self._points.read(hour, ["series_id", "ts", "value"]))
        self._book = AlertBook()
        self._clock = HourClock(settings.close_grace_seconds)
        self._deriver = Deriver(
            self.lake,
            self._points,
            self._baselines,
            self._anomalies,
            self._directory,
            Shelf(self._home.live / "handover"),
            Judgement.of(self._config),
        )
        #: hours that the live stream has begun to judge
        self._begun: set[str] = set()
        self._request: Request | None = None
        #: hours that are due were left for the next step
        self._behind = False
        self._next_late_at = 0.0
        self._entities = EntityBook()
        self._entities_written_at = -math.inf
        self._bounds = Bounds(settings.max_future_seconds, settings.max_past_days * 86_400, settings.late_hours * 3600)
        self._position: dict[str, int] = {}
        self._new_changes = CHANGES.empty()
        self._silences: list[Suppression] = []
        self._silences_read_at = 0.0
        now = time.time_ns() // 1000
        self._tally = Tally(self._home.live, Progress(session=session, started_at=now, updated_at=now))
        #: the progress of the predecessor, as it was when this session began
        self.started_with = Progress()

    # -- state --------------------------------------------------------------------------------------------------------

    def open(self) -> BatchReport:
        """Restore the state after the newest closed hour and run the open hours through it; what came out of that."""
        self._directory.load(self.lake.read("series"))
        self._entities.load(self.lake.read("entities"))
        self._external.load(self.lake.scan("alerts").filter(pl.col("kind") == KIND).collect())
        previous = read_progress(self._home.live)
        self._tally.progress = previous.model_copy(
            update={"session": self.progress.session, "started_at": self.progress.started_at, "problems": []}
        )
        for writer in writers(self._home.landing):
            self._position[writer] = self._points.taken(writer)
            missing = gaps(self._home.landing / writer)
            if missing:
                self._tally.problem(
                    f"landing writer {writer}: segments missing: {missing[:5]}{' …' if len(missing) > 5 else ''}"
                )
        self._deriver.grow()
        stored = self.lake.partitions("metric_points")
        open_hours = self._deriver.open([part.partition for part in stored])
        if self._deriver.begun_after is not None:
            self._clock.closed(_number(self._deriver.begun_after))
        self._touch_stored(open_hours)
        self._find_late({part.partition: part.rows for part in stored})
        self._deriver.restore_timeline(Judgement.of(self._config), self.progress.watermark + 1)
        self._write_reference_tables()
        self._deriver.remember_told()
        report = BatchReport()
        due = self._clock.due(self.progress.watermark, self.progress.batches)
        if due:
            self._derive(report)
        else:
            revisions = self._deriver.catch_up(open_hours, self.progress.watermark, self._windows()).frame()
            self._begun = set(open_hours)
            self._tell(revisions, report)
            self._rebase()
        self.started_with = self.progress.model_copy(deep=True)
        return report

    def close(self) -> None:
        """Leave everything in order for the successor."""
        if self._entities.altered:
            self._write_entities()
        self._write_progress()
        self._store.prune(time.time_ns() // 1000 - UNRELATED_ALERT_DAYS * 24 * MICROS_PER_HOUR)
        self._store.close()

    @property
    def progress(self) -> Progress:
        """What is told about the session; rewritten to disk after every batch."""
        return self._tally.progress

    def running_incidents(self) -> pl.DataFrame:
        """Incidents that are not resolved, the most pressing first: incident_id, priority, state, title, hosts."""
        running = [incident for incident in self._store.list() if incident.state != "resolved"]
        return pl.DataFrame(
            [(i.incident_id, i.priority, i.state, i.title, ", ".join(i.hosts)) for i in running],
            schema={
                "incident": pl.String,
                "priority": pl.Int32,
                "state": pl.String,
                "title": pl.String,
                "hosts": pl.String,
            },
            orient="row",
        )

    def _touch_stored(self, open_hours: list[str]) -> None:
        """Tell the clock of the rows that open hours have."""
        for key in open_hours:
            rows = self._points.read(key, ["source", "ts", "received_at"])
            reached = rows.select(pl.min_horizontal("ts", "received_at").max()).item()
            newest = rows.group_by("source").agg(pl.col("ts").dt.epoch("us").max())
            for source, at in newest.sort("source").iter_rows():
                self._clock.touch(_number(key), source, at, self.progress.batches)
            if reached is not None:
                self.progress.watermark = max(self.progress.watermark, micros(reached))

    def _find_late(self, rows: Mapping[str, int]) -> None:
        """Closed hours with other rows than their receipts count, and hours that somebody asked for."""
        for key, receipt in self._deriver.receipts.items():
            if rows.get(key, 0) != receipt.rows:
                self._clock.touch(_number(key), "", 0, self.progress.batches)
        self._request = read_request(self._home.live)
        if self._request is not None:
            self._request.hours = [key for key in self._request.hours if key <= (self._deriver.begun_after or "")]
            for key in self._request.hours:
                self._clock.touch(_number(key), "", 0, self.progress.batches)
            if not self._request.hours:
                self._finish_request([])

    def _grow(self, added: pl.DataFrame) -> None:
        if not added.is_empty():
            self._deriver.grow()

    # -- one micro-batch ----------------------------------------------------------------------------------------------

    def waiting(self) -> bool:
        """Whether any sealed segment waits, or hours that are due; a few ``stat`` calls."""
        return self._behind or any(
            waiting_segments(self._home.landing / writer, self._after(writer), 1)
            for writer in writers(self._home.landing)
        )

    def step(self) -> BatchReport | None:
        """Take what waits (bounded) all the way to incidents; ``None`` when nothing waited."""
        self._reconfigure()
        deliveries, upto, report = self._take()
        if not upto and not self._behind:
            return None
        self.progress.batches += 1
        self._tally.passed("landing", deliveries)
        intake = take_in(deliveries, self._directory, self._bounds, self._series_limit, readings_of(self._config))
        self._grow(intake.new_series)
        stored = self._store_rows(deliveries, intake, upto, report)
        self._tally.passed("points", deliveries)
        self._judge(deliveries, stored, report)
        self._tally.passed("incidents", deliveries)
        self._position.update(upto)
        for table in self._tables:
            table.compact_where_due()
        self._write_progress()
        return report

    def idle(self) -> BatchReport | None:
        """What is due without new segments: silences that end, incidents that resolve, hours left alone."""
        self._check_lease()
        self._reconfigure()
        report = BatchReport()
        self.progress.batches += 1
        self._derive(report)
        self._tell(self._recheck(), report)
        self._store.auto_resolve(max(self.progress.watermark, self._news_upto), self._config)
        self._write_progress()
        return report if report.touched or report.incidents else None

    def rederive(
        self,
        hours: Sequence[str],
        reason: str,
        tell: Callable[[BatchReport, int], None] | None = None,
        after: tuple[str, int] | None = None,
    ) -> BatchReport:
        """Derive closed hours again, for a backfill (pinned inputs) or a restatement (what is known today).

        Args:
            hours: ascending; hours that are not closed are left out.
            reason: ``receipts.BACKFILL``, ``RESTATED``, ``REMOVED`` or ``LATE``.
            tell: called after every chunk with what it did and how many hours are left.
            after: the hour and revision that an earlier call came to, when this one goes on with its pass.

        Returns:
            What all chunks did.
        """
        if after is not None:
            self._deriver.go_on_after(after)
        upto = self._clock.closed_upto
        left = [key for key in hours if upto is not None and _number(key) <= upto]
        whole = BatchReport()
        while left:
            self._check_lease()
            report = BatchReport()
            open_hours = [hour_key(hour * MICROS_PER_HOUR) for hour in self._clock.open_hours]
            outcome = self._deriver.close(
                [],
                left,
                open_hours,
                self.progress.watermark,
                self._windows(),
                lambda revisions, report=report: self._tell(revisions, report),  # type: ignore[misc]
                reason,
            )
            for key in outcome.passed:
                self._clock.amended(_number(key))
            left = left[len(outcome.passed) :]
            self._rebase()
            self._tell_of_hours(outcome, report)
            whole.amended_hours += report.amended_hours
            whole.receipts += report.receipts
            whole.incidents += report.incidents
            whole.alerts += report.alerts
            whole.touched |= report.touched
            if tell is not None:
                tell(report, len(left))
        self._write_progress()
        return whole

    @property
    def _tables(self) -> tuple[TableWriter, ...]:
        mine = (self._points, self._anomalies, self._alerts, self._series, self._changes.writer, self._baselines)
        return (*mine, *(table.writer for table in self._events.values()), *self._deriver.writers)

    def _after(self, writer: str) -> int:
        if writer not in self._position:
            self._position[writer] = max(self._points.taken(writer), first_seq(self._home.landing / writer) - 1)
        return self._position[writer]

    def _take(self) -> tuple[list[Delivery], dict[str, int], BatchReport]:
        deliveries: list[Delivery] = []
        upto: dict[str, int] = {}
        report = BatchReport()
        budget = self.settings.session_batch_bytes
        for writer in writers(self._home.landing):
            folder = self._home.landing / writer
            for seq, size in waiting_segments(folder, self._after(writer), max(budget, 1)):
                segment = read_segment(folder, seq)
                deliveries += segment.deliveries
                if segment.damage is not None:
                    self._keep_damage(writer, seq, segment.damage.reason, segment.damage.offset, segment.remainder)
                upto[writer] = seq
                report.segments += 1
                budget -= max(size, sum(map(_announced_bytes, segment.deliveries)))
                if budget <= 0:
                    break
            if budget <= 0:
                break
        report.deliveries = len(deliveries)
        return deliveries, upto, report

    def _keep_damage(self, writer: str, seq: int, reason: str, offset: int, content: bytes) -> None:
        self._tally.problem(f"landing segment {writer}/{seq} is damaged at byte {offset}: {reason}")
        entry = QuarantineEntry(
            "landing",
            f"damaged segment: {reason}",
            content,
            f"{writer}-{seq}",
            0,
            "application/octet-stream",
            "segment",
            writer,
            seq,
            -1,
            offset,
        )
        self._quarantine.record([entry])

    def _store_rows(
        self, deliveries: list[Delivery], intake: Intake, upto: Mapping[str, int], report: BatchReport
    ) -> _Stored:
        """Commit quarantine, series, changes, entities and points; returns the points that are new."""
        verdict = self._dedup.judge(intake.number, intake.ts, intake.value)
        fresh, conflicts = np.flatnonzero(verdict.fresh), np.flatnonzero(verdict.conflict)
        quarantined = [*intake.quarantined, *self._conflict_entries(deliveries, intake, conflicts)]
        self._check_lease()
        self._quarantine.record(quarantined)
        if not intake.new_series.is_empty():
            rows = stored_rows(intake.new_series, intake.first_seen)
            self._series.append(rows, {})
            report.touch("series", rows, None, "first_seen")
            self._entities.discover_hosts(rows)
        self._store_changes(deliveries, intake, report)
        self._entities.discover(intake.entities, int(time.time_ns() // 1000))
        altered_long_ago = time.monotonic() - self._entities_written_at > ENTITY_SECONDS
        if self._entities.changed or (self._entities.altered and altered_long_ago):
            report.touch("entities", self._write_entities(), None, None)
        self._store_events(deliveries, intake, report)
        self._tell_external(deliveries, intake, report)
        frame = self._point_rows(deliveries, intake, fresh)
        self._check_lease()
        self._points.append(frame, upto)
        self._dedup.accept(intake.number[fresh], intake.ts[fresh])
        report.points = frame.height
        report.touch("metric_points", frame, "hour", "ts")
        self._tally.stored(deliveries, intake, fresh)
        self._tally.refused(deliveries, intake, np.flatnonzero(verdict.duplicate), conflicts, quarantined)
        return _Stored(intake.number[fresh], intake.ts[fresh], intake.value[fresh], intake.delivery[fresh])

    def _point_rows(self, deliveries: list[Delivery], intake: Intake, rows: NDArray[np.int64]) -> pl.DataFrame:
        if not len(rows):
            return METRIC_POINTS.empty()
        directory = self._directory.frame
        number = pl.Series(intake.number[rows])
        position = positions_of(deliveries)[pl.Series(intake.delivery[rows])]
        ts = pl.Series("ts", intake.ts[rows]).cast(TIMESTAMP)
        named = directory[number].select("series_id", "host", "metric", "unit")
        return (
            pl.DataFrame([ts, pl.Series("value", intake.value[rows])])
            .hstack(named)
            .hstack(position)
            .with_columns(hours_of(intake.ts[rows]))
        )

    def _touch_hours(self, deliveries: list[Delivery], points: _Stored) -> None:
        """Tell the clock which hours got rows, from which sources; rows of closed hours count as late."""
        if not len(points.ts):
            return
        sources = pl.DataFrame({"source": [d.source for d in deliveries]})[pl.Series(points.delivery)]
        touched = (
            sources.with_columns(pl.Series("hour", points.ts // MICROS_PER_HOUR), pl.Series("ts", points.ts))
            .group_by("hour", "source")
            .agg(pl.col("ts").max(), pl.len())
            .sort("hour", "source")
        )
        for hour, source, newest, rows in touched.iter_rows():
            self._clock.touch(hour, source, newest, self.progress.batches)
            if self._clock.closed_upto is not None and hour <= self._clock.closed_upto:
                self._tally.late(source, rows)

    def _store_changes(self, deliveries: list[Delivery], intake: Intake, report: BatchReport) -> None:
        if intake.changes.is_empty():
            return
        fresh = self._changes.fresh(change_rows(intake.changes, deliveries))
        if fresh.is_empty():
            return
        self._changes.append(fresh)
        self._new_changes = fresh.select(CHANGES.schema.keys())
        report.touch("changes", fresh, "day", "ts")

    def _store_events(self, deliveries: list[Delivery], intake: Intake, report: BatchReport) -> None:
        """Append logs, errors, spans, tickets and documents that the tables lack."""
        for name, parsed in intake.events.items():
            table = self._events[name]
            rows = event_rows(name, parsed, deliveries)
            fresh = table.fresh(rows)
            self._tally.events(rows, fresh)
            if fresh.is_empty():
                continue
            self._check_lease()
            table.append(fresh)
            report.events += fresh.height
            report.touch(table.table.name, fresh, table.table.partition, "ts")

    def _tell_external(self, deliveries: list[Delivery], intake: Intake, report: BatchReport) -> None:
        """What other systems say of their alerts goes to incidents and into the table."""
        if intake.external.is_empty():
            return
        received = positions_of(deliveries)[intake.external["delivery"]]
        news = intake.external.hstack(received.with_columns(pl.col("received_at").dt.epoch("us")))
        self._tally.events(news, news)
        reached = news.select(pl.min_horizontal("ts", "received_at").max()).item()
        self._news_upto = max(self._news_upto, int(reached))
        self._tell(self._external.apply(news, self._windows()), report)

    def _judge(self, deliveries: list[Delivery], points: _Stored, report: BatchReport) -> None:
        """Rules and detectors over what is new; hours that are over are derived for good instead."""
        received = np.fromiter((d.received_at for d in deliveries), np.int64, len(deliveries))
        self._touch_hours(deliveries, points)
        if len(points.ts):
            reached = int(np.minimum(points.ts, received[points.delivery]).max())
            self.progress.watermark = max(self.progress.watermark, reached)
        alerts: list[pl.DataFrame] = []
        if not self._derive(report):
            alerts = self._judge_live(deliveries, points, received, report)
        alerts.append(self._recheck(int(received.max()) if len(received) else None))
        self._tell(pl.concat(alerts), report)
        self._store.auto_resolve(max(self.progress.watermark, self._news_upto), self._config)

    def _judge_live(
        self, deliveries: list[Delivery], points: _Stored, received: NDArray[np.int64], report: BatchReport
    ) -> list[pl.DataFrame]:
        """Judge points of open hours as they come; what is older than the newest of its series waits for the close."""
        live = self._deriver.live
        positions = positions_of(deliveries)
        windows = self._windows()
        anomalies: list[pl.DataFrame] = []
        alerts: list[pl.DataFrame] = []
        for hour, rows in rows_by_hour(points.ts):
            if self._clock.closed_upto is not None and hour <= self._clock.closed_upto:
                continue
            key = hour_key(hour * MICROS_PER_HOUR)
            if key not in self._begun:
                self._begun.add(key)
                self._deriver.begin_hour(key)
            mine = rows[_in_time(points.number[rows], points.ts[rows], live.last)]
            if len(mine) < len(rows):
                live.rules.reported(points.ts[np.setdiff1d(rows, mine)])
            if not len(mine):
                continue
            delivery = points.delivery[mine]
            found, transitions = live.take(points.number[mine], points.ts[mine], points.value[mine], received[delivery])
            if not found.is_empty():
                origin = positions[pl.Series(delivery)]
                anomalies.append(anomaly_rows(found, origin, self._directory.frame))
            if transitions:
                batch = BatchRows(
                    received[delivery], positions["writer"].gather(delivery), positions["seq"].gather(delivery)
                )
                alerts.append(
                    self._book.apply(transitions, directory=self._directory.frame, windows=windows, batch=batch)
                )
        silent = live.absences(self.progress.watermark)
        if silent:
            alerts.append(
                self._book.apply(silent, directory=self._directory.frame, windows=windows, batch=BatchRows.empty())
            )
        if anomalies:
            frame = pl.concat(anomalies)
            self._check_lease()
            self._anomalies.append(frame, {})
            report.anomalies = frame.height
            report.touch("anomalies", frame, "hour", "ts")
        for frame in alerts:
            self._deriver.told(frame)
        return alerts

    def _derive(self, report: BatchReport) -> bool:
        """Close hours that are due and amend those with late rows; whether there were any."""
        due = [
            hour_key(hour * MICROS_PER_HOUR) for hour in self._clock.due(self.progress.watermark, self.progress.batches)
        ]
        late, reason = self._late_hours()
        if not due and not late:
            self._behind = False
            return False
        self._check_lease()
        began = time.monotonic()
        open_hours = [hour_key(hour * MICROS_PER_HOUR) for hour in self._clock.open_hours]
        open_hours = [key for key in open_hours if key not in due]
        outcome = self._deriver.close(
            due,
            late,
            open_hours,
            self.progress.watermark,
            self._windows(),
            lambda revisions: self._tell(revisions, report),
            reason,
        )
        for key in outcome.closed:
            self._clock.closed(_number(key))
        for key in outcome.passed:
            self._clock.amended(_number(key))
        waits = len(outcome.closed) < len(due)
        self._begun = set() if waits else set(open_hours)
        self._behind = waits or (bool(late) and len(outcome.passed) < len(late))
        self._rebase()
        self._tell_of_hours(outcome, report)
        if late and not self._behind:
            self._finish_request(late)
            self._next_late_at = time.monotonic() + LATE_SHARE * (time.monotonic() - began)
        return True

    def _late_hours(self) -> tuple[list[str], str]:
        """Closed hours to derive again now, and why."""
        if self._request is not None:
            asked = [key for key in self._request.hours if _number(key) in self._clock.late_hours]
            if asked:
                return asked, self._request.reason
        if time.monotonic() < self._next_late_at and not self._behind:
            return [], LATE
        hours = self._clock.late_hours if self._behind else self._clock.late(self.progress.batches)
        return [hour_key(hour * MICROS_PER_HOUR) for hour in hours], LATE

    def _finish_request(self, late: list[str]) -> None:
        if self._request is not None and set(self._request.hours) <= {*late}:
            forget_request(self._home.live)
            self._request = None

    def _tell_of_hours(self, outcome: Outcome, report: BatchReport) -> None:
        """Note for the asset graph what was derived."""
        report.closed_hours += outcome.closed
        report.amended_hours += outcome.amended
        self.progress.hours_closed += len(outcome.closed)
        for line in self._deriver.problems:
            self._tally.problem(line)
        self._deriver.problems.clear()
        for key, rows in outcome.anomalies.items():
            if rows:
                report.touched["anomalies", key] = (rows, hour_start(key))
        for key in (*outcome.closed, *outcome.amended):
            report.touched["hour_receipts", key] = (1, hour_start(key))
            report.touched["baselines", key] = (1, hour_start(key))
            if outcome.decisions.get(key):
                report.touched["alert_decisions", key] = (outcome.decisions[key], hour_start(key))
            receipt = self._deriver.receipts.get(key)
            if receipt is not None:
                report.receipts.append(receipt)

    def _rebase(self) -> None:
        """The book of what was told goes on from the derived one."""
        self._book.rebase(self._deriver.live.book, self._deriver.newest_told)

    def _tell(self, frame: pl.DataFrame, report: BatchReport) -> None:
        """Incidents first, then the table: what the table lacks is told again after a crash, which changes nothing."""
        changes, self._new_changes = self._new_changes, CHANGES.empty()
        if frame.is_empty() and changes.is_empty():
            return
        self._check_lease()
        report.incidents += self._store.apply(
            frame,
            config=self._config,
            entities=self._entities.rows(self._config),
            changes=changes if frame.is_empty() else self._changes_near(frame),
            now=time.time_ns() // 1000,
        )
        if not frame.is_empty():
            self._alerts.append(frame, {})
        report.alerts += frame.height
        report.touch("alerts", frame, "hour", "starts_at")

    def _changes_near(self, alerts: pl.DataFrame) -> pl.DataFrame:
        """Changes that may have caused alerts: from the lookback before the earliest of them to the latest decision."""
        lookback = self._config.grouping.change_lookback
        first = alerts["starts_at"].dt.epoch("us").min()
        last = alerts["changed_at"].dt.epoch("us").max()
        start = instant(int(first) - int(lookback * MICROS_PER_SECOND))  # type: ignore[arg-type]
        end = instant(int(last))  # type: ignore[arg-type]
        near = self.lake.scan("changes").filter(pl.col("ts").is_between(start, end))
        return near.collect()

    # -- configuration, counting, telling -----------------------------------------------------------------------------

    def _reconfigure(self) -> None:
        config = self._config_file.current()
        for line in self._config_file.problems:
            self._tally.problem(line)
        if config is self._config:
            return
        log.info("aiops.yaml changed: %s replaces %s", config.digest, self._config.digest)
        self._deriver.reconfigure(Judgement.of(config), self.progress.watermark + 1)
        self._config = config
        self._write_reference_tables()

    def _write_reference_tables(self) -> None:
        self._write_entities()
        self._maintenance_table.overwrite(maintenance_rows(self._windows()))

    def _write_entities(self) -> pl.DataFrame:
        rows = self._entities.rows(self._config)
        self._check_lease()
        self._entities_table.overwrite(rows)
        self._entities.written()
        self._entities_written_at = time.monotonic()
        return rows

    def _windows(self) -> list[Suppression]:
        if time.monotonic() - self._silences_read_at > SILENCE_SECONDS:
            silences = self._active_silences()
            changed, self._silences = silences != self._silences, silences
            self._silences_read_at = time.monotonic()
            if changed:
                self._maintenance_table.overwrite(maintenance_rows([*suppressions_of(self._config), *silences]))
        return [*suppressions_of(self._config), *self._silences]

    def _active_silences(self) -> list[Suppression]:
        return [
            Suppression(
                window_id=silence.silence_id,
                kind="silence",
                starts_at=silence.starts_at,
                ends_at=silence.ends_at,
                author=silence.author,
                reason=silence.reason,
                host=silence.host,
                rule=silence.rule,
                labels=silence.labels,
            )
            for silence in self._store.silences(active_at=time.time_ns() // 1000)
        ]

    def _recheck(self, received_at: int | None = None) -> pl.DataFrame:
        windows = self._windows()
        own = self._book.recheck(
            self.progress.watermark,
            windows=windows,
            directory=self._directory.frame,
            latest=self._deriver.live.last,
            received_at=received_at,
        )
        others = self._external.recheck(max(self.progress.watermark, self._news_upto), windows)
        return pl.concat([own, others]) if others.height else own

    def _series_limit(self, source: str) -> int | None:
        declared = self._config.sources.get(source)
        return declared.max_series if declared and declared.max_series else self.settings.max_series_per_source

    def _conflict_entries(
        self, deliveries: list[Delivery], intake: Intake, rows: NDArray[np.int64]
    ) -> list[QuarantineEntry]:
        if not len(rows):
            return []
        frame = self._directory.frame[pl.Series(intake.number[rows])].with_columns(
            pl.Series("ts", intake.ts[rows]),
            pl.Series("value", intake.value[rows]),
            pl.Series("delivery", intake.delivery[rows]),
        )
        return [
            quarantine_entry(
                deliveries[int(index)],
                "another value is stored for this series and time",
                point_documents(group),
                0,
                "collected",
            )
            for (index,), group in frame.group_by("delivery", maintain_order=True)
        ]

    def _write_progress(self) -> None:
        self._tally.write(self._position, len(self._directory), self._book.open_count + self._external.open_count)


def _announced_bytes(delivery: Delivery) -> int:
    """Memory that a compressed delivery will take, where its sender says how many samples it holds."""
    samples = delivery.headers.get("samples", "0")
    return BYTES_A_SAMPLE * int(samples) if samples.isdecimal() else 0


def _number(key: str) -> int:
    """Hours since the epoch of a partition key."""
    return hour_start(key) // MICROS_PER_HOUR


def _in_time(number: NDArray[np.int32], ts: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which rows, in order of arrival, are newer than everything judged of their series."""
    order = np.argsort(number, kind="stable")
    by_series = pl.DataFrame({"number": number[order], "ts": ts[order]})
    before = by_series.select(
        pl.max_horizontal(pl.col("ts").cum_max().shift(1).over("number"), pl.Series("last", last[number[order]]))
    ).to_series()
    in_time = np.empty(len(number), bool)
    in_time[order] = ts[order] > before.to_numpy()
    return in_time
