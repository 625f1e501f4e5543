"""The micro-batch: landing segments in, points, anomalies, alerts and incidents out, in an order that survives any cut.

Within a batch the order of commits is quarantine, series, points, changes, anomalies, alerts, incidents, checkpoint.
Each commit is idempotent, so after a crash the segments since the last checkpoint are taken again: what a table already
has is left out by ingest position, and the state of rules and detectors runs through the same points once more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from aiops_assets.config import Config, ConfigFile, Statistics
from aiops_assets.detection.alerts import AlertBook, BatchRows, Suppression, suppressions_of
from aiops_assets.detection.rules import RuleEngine
from aiops_assets.detection.statistics import Tier1
from aiops_assets.detection.steps import steps
from aiops_assets.detection.transitions import Transition
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND, hour_start, instant
from aiops_assets.incidents.store import IncidentStore
from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.landing.quarantine import Quarantine, QuarantineEntry
from aiops_assets.landing.reader import first_seq, gaps, read_segment, waiting_segments, writers
from aiops_assets.landing.segment import Delivery
from aiops_assets.live.checkpoint import Checkpoint, load_newest, save
from aiops_assets.live.closing import HourCloser
from aiops_assets.live.dedup import Deduplicator, rows_by_hour
from aiops_assets.live.entities import EntityBook, maintenance_rows
from aiops_assets.live.intake import Bounds, Intake, point_documents, quarantine_entry, take_in
from aiops_assets.live.progress import Progress, read_progress
from aiops_assets.live.rows import change_id, hours_of, positions_of
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

#: hours of stored points that run through rules and detectors when there is no checkpoint
REBUILD_HOURS = 6
#: closed hours that a detector is given when there is no checkpoint
REBUILD_BASELINE_HOURS = 7 * 24
#: how often silences are read from the operations database
SILENCE_SECONDS = 5.0
#: the operations database forgets alerts that never belonged to an incident after this long
UNRELATED_ALERT_DAYS = 7
FOR_EVER = 1 << 62


@dataclass(slots=True)
class BatchReport:
    """What one micro-batch did. ``touched`` maps (table, partition) to rows added and the newest event time (µs)."""

    segments: int = 0
    deliveries: int = 0
    points: int = 0
    anomalies: int = 0
    alerts: int = 0
    incidents: list[str] = field(default_factory=list)
    touched: dict[tuple[str, str | None], tuple[int, int | None]] = field(default_factory=dict)
    closed_hours: list[str] = field(default_factory=list)

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
class _Scorable:
    """Points that go through rules and detectors, parallel arrays in order of ingest position."""

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
        self._changes = TableWriter(self.lake, CHANGES)
        self._entities_table = TableWriter(self.lake, ENTITIES)
        self._maintenance_table = TableWriter(self.lake, MAINTENANCE)
        self._dedup = Deduplicator(self._directory, lambda hour: self._points.read(hour, ["series_id", "ts", "value"]))
        self._last_scored: NDArray[np.int64]
        self._begin_state()
        self._entities = EntityBook()
        self._bounds = Bounds(settings.max_future_seconds, settings.max_past_days * 86_400)
        self._position: dict[str, int] = {}
        self._checkpoint_number = 0
        self._checkpointed_at = time.monotonic()
        self._alert_keys: set[tuple[str, int]] | None = None
        self._change_ids: set[str] = set()
        self._new_changes = CHANGES.empty()
        self._silences: list[Suppression] = []
        self._silences_read_at = 0.0
        self._replayed_until: dict[str, int] = {}
        now = time.time_ns() // 1000
        self._tally = Tally(self._home.live, Progress(session=session, started_at=now, updated_at=now))
        #: the progress of the predecessor, as it was when this session began
        self.started_with = Progress()

    # -- state --------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Continue from the newest checkpoint, or rebuild state from the lake when there is none."""
        found = load_newest(self._checkpoints)
        order = list(found[1].document["series_ids"]) if found else None
        self._directory.load(self.lake.read("series"), order)
        self._grow(self._directory.frame)
        self._change_ids = set(self.lake.read("changes", columns=["change_id"])["change_id"].to_list())
        self._entities.load(self.lake.read("entities"))
        present = writers(self._home.landing)
        restored = False
        if found:
            self._checkpoint_number, checkpoint = found
            self._position = {writer: int(seq) for writer, seq in checkpoint.document["positions"].items()}
            restored = self._restore(checkpoint)
        else:
            self._position = {writer: self._points.taken(writer) for writer in present}
        if not restored:
            counted = {"sources": read_progress(self._home.live).sources}
            self._tally.progress = self.progress.model_copy(update=counted)
            self._rebuild()
        for writer in present:
            self._replayed_until[writer] = self._points.taken(writer)
            missing = gaps(self._home.landing / writer)
            if missing:
                self._tally.problem(
                    f"landing writer {writer}: segments missing: {missing[:5]}{' …' if len(missing) > 5 else ''}"
                )
        behind = {w: seq for w, seq in self._replayed_until.items() if seq > self._position.get(w, 0)}
        if behind or not restored:
            keys = self.lake.read("alerts", columns=["alert_id", "revision"])
            self._alert_keys = set(keys.iter_rows())
        self._write_reference_tables()
        self.started_with = self.progress.model_copy(deep=True)

    def close(self) -> None:
        """Save everything for the successor."""
        self._save()
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

    @property
    def _checkpoints(self) -> Any:
        return self._home.live / "state"

    def _grow(self, added: pl.DataFrame) -> None:
        if added.is_empty():
            return
        self._rules.grow(added)
        self._tier1.grow(added)
        self._last_scored = np.concatenate([self._last_scored, np.full(added.height, np.iinfo(np.int64).min)])

    def _save(self) -> None:
        self._check_lease()
        self._checkpoint_number += 1
        document = {
            "positions": self._position,
            "series_ids": self._directory.ids,
            "config": self._config.digest,
            "closer": self._closer.state(),
            "alerts": self._book.state(),
            "progress": self.progress.model_dump(),
        }
        engines = {
            "rules": self._rules.state(),
            "statistics": self._tier1.state(),
            "pipeline": {"last_scored": self._last_scored},
        }
        save(self._checkpoints, self._checkpoint_number, Checkpoint(engines, document))
        self._checkpointed_at = time.monotonic()

    def _begin_state(self) -> None:
        """Rules, detectors and books that have seen nothing."""
        self._rules = RuleEngine(self._config.active_rules)
        self._tier1 = Tier1(_in_force(self._config))
        self._book = AlertBook()
        self._closer = HourCloser(self._points, self._baselines, self.settings.close_grace_seconds)
        self._last_scored = np.empty(0, np.int64)

    def _restore(self, checkpoint: Checkpoint) -> bool:
        """Take over a checkpoint; whether this code can read it (an upgrade may have changed an engine's state)."""
        document = checkpoint.document
        try:
            self._rules.load(checkpoint.engines["rules"])
            self._tier1.load(dict(checkpoint.engines["statistics"]))
            self._book.load(document["alerts"])
            self._closer.load(document["closer"])
            last = checkpoint.engines["pipeline"]["last_scored"]
            self._last_scored[: len(last)] = last
            previous = Progress.model_validate(document["progress"])
        except (KeyError, ValueError, TypeError, IndexError) as error:
            log.warning("the saved state does not fit this code (%r); it is rebuilt from the lake", error)
            self._begin_state()
            self._grow(self._directory.frame)
            return False
        self._tally.progress = previous.model_copy(
            update={"session": self.progress.session, "started_at": self.progress.started_at, "problems": []}
        )
        return True

    def _rebuild(self) -> None:
        """State without a checkpoint: what the lake has up to the positions runs through detectors, outputs unused."""
        hours = [part.partition for part in self.lake.partitions("metric_points")][-REBUILD_HOURS:]
        if not hours:
            return
        log.info("no checkpoint: rebuilding state from %d stored hours", len(hours))
        self._book.adopt(self.lake.read("alerts"))
        baseline_hours = [part.partition for part in self.lake.partitions("baselines")][-REBUILD_BASELINE_HOURS:]
        for key in baseline_hours:
            stored = self.lake.read("baselines", [key]).sort("baseline_version").unique("series_id", keep="last")
            if not stored.is_empty() and key < hours[0]:
                self._judge_against(hour_start(key), stored)
        reached = pl.col("writer").replace_strict(self._position, default=0, return_dtype=pl.Int64)
        for key in hours:
            rows = self.lake.read("metric_points", [key]).filter(pl.col("seq") <= reached).sort("series_id", "ts")
            rows = rows.with_columns(pl.Series("number", self._numbers_of(rows["series_id"]))).filter(
                pl.col("number") >= 0
            )
            if rows.is_empty():
                continue
            numbers = rows["number"].to_numpy()
            ts = rows["ts"].dt.epoch("us").to_numpy()
            received = rows["received_at"].dt.epoch("us").to_numpy()
            batch = list(steps(numbers, ts, rows["value"].to_numpy()))
            self._rules.process(batch, received)
            self._tier1.process(batch)
            np.maximum.at(self._last_scored, numbers, ts)
            self.progress.watermark = max(self.progress.watermark, int(np.minimum(ts, received).max()))
            stored = self.lake.read("baselines", [key]).sort("baseline_version").unique("series_id", keep="last")
            if stored.is_empty():
                newest = rows.group_by("source").agg(pl.col("ts").dt.epoch("us").max())
                for source, at in newest.iter_rows():
                    self._closer.touch(hour_start(key) // MICROS_PER_HOUR, source, at, self.progress.batches)
            else:
                self._judge_against(hour_start(key), stored)
        self._rules.absences(self.progress.watermark)

    def _numbers_of(self, ids: pl.Series) -> NDArray[np.int32]:
        number_of = self._directory.number_of
        return np.fromiter((-1 if (n := number_of(id_)) is None else n for id_ in ids.to_list()), np.int32, len(ids))

    def _judge_against(self, hour_start: int, statistics: pl.DataFrame) -> None:
        """Hand the statistics of a closed hour to the detector, by series number."""
        numbers = pl.Series("number", self._numbers_of(statistics["series_id"]))
        self._tier1.close_hour(
            hour_start, statistics.with_columns(numbers).filter(pl.col("number") >= 0).sort("number")
        )

    # -- one micro-batch ----------------------------------------------------------------------------------------------

    def waiting(self) -> bool:
        """Whether any sealed segment waits; a few ``stat`` calls."""
        return any(
            waiting_segments(self._home.landing / writer, self._after(writer), 1)
            for writer in writers(self._home.landing)
        )

    def step(self) -> BatchReport | None:
        """Take what waits (bounded) all the way to incidents; ``None`` when nothing waited."""
        self._reconfigure()
        deliveries, upto, report = self._take()
        if not upto:
            return None
        self._tally.passed("landing", deliveries)
        intake = take_in(deliveries, self._directory, self._bounds, self._series_limit)
        self._grow(intake.new_series)
        new = np.fromiter((d.seq > self._points.taken(d.writer) for d in deliveries), bool, len(deliveries))
        scorable = self._store_rows(deliveries, new, intake, upto, report)
        self._tally.passed("points", deliveries)
        self._judge(deliveries, scorable, upto, report)
        self._tally.passed("incidents", deliveries)
        self._position.update(upto)
        self.progress.batches += 1
        for table in (self._points, self._anomalies, self._alerts, self._series, self._changes, self._baselines):
            table.compact_where_due()
        if time.monotonic() - self._checkpointed_at >= self.settings.checkpoint_seconds:
            self._save()
        self._write_progress()
        return report

    def idle(self) -> BatchReport | None:
        """What is due without new segments: silences that end, incidents that resolve, hours left alone."""
        self._check_lease()
        self._reconfigure()
        report = BatchReport()
        self.progress.batches += 1
        self._close_due()
        self._save_baselines(report)
        self._commit_alerts(self._recheck(), {}, report)
        self._store.auto_resolve(self.progress.watermark, self._config)
        self._write_progress()
        return report if report.touched or report.incidents else None

    def _after(self, writer: str) -> int:
        if writer not in self._position:
            folder = self._home.landing / writer
            self._position[writer] = max(self._points.taken(writer), first_seq(folder) - 1)
            self._replayed_until[writer] = self._points.taken(writer)
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
                budget -= size
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
        self,
        deliveries: list[Delivery],
        new: NDArray[np.bool_],
        intake: Intake,
        upto: Mapping[str, int],
        report: BatchReport,
    ) -> _Scorable:
        """Commit quarantine, series, points, changes and entities; returns what rules and detectors shall see."""
        rows_new = new[intake.delivery] if len(intake.delivery) else np.zeros(0, bool)
        taken = np.flatnonzero(rows_new)
        verdict = self._dedup.judge(intake.number[taken], intake.ts[taken], intake.value[taken])
        fresh = taken[verdict.fresh]
        conflicts = taken[verdict.conflict]
        fresh_positions = {(d.writer, d.seq) for d, is_new in zip(deliveries, new, strict=True) if is_new}
        quarantined = [e for e in intake.quarantined if (e.writer, e.seq) in fresh_positions]
        quarantined += self._conflict_entries(deliveries, intake, conflicts)
        self._check_lease()
        self._quarantine.record(quarantined)
        if not intake.new_series.is_empty():
            rows = stored_rows(intake.new_series, intake.first_seen)
            self._series.append(rows, {})
            report.touch("series", rows, None, "first_seen")
            self._entities.discover_hosts(rows)
        frame = self._point_rows(deliveries, intake, fresh)
        self._offer_new_hours(frame)
        self._points.append(frame, upto)
        self._dedup.accept(intake.number[fresh], intake.ts[fresh])
        report.points = frame.height
        report.touch("metric_points", frame, "hour", "ts")
        keep = np.zeros(len(intake.number), bool)
        keep[fresh] = True
        keep |= ~rows_new
        self._touch_hours(deliveries, intake, np.flatnonzero(keep))
        self._store_changes(deliveries, intake, upto, report)
        self._entities.discover(intake.entities, int(time.time_ns() // 1000))
        if self._entities.changed:
            rows = self._entities.rows(self._config)
            self._entities_table.overwrite(rows)
            report.touch("entities", rows, None, None)
        self._tally.stored(deliveries, new, intake, fresh)
        self._tally.refused(deliveries, intake, taken[verdict.duplicate], conflicts, quarantined)
        return self._in_time(deliveries, intake, np.flatnonzero(keep))

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

    def _offer_new_hours(self, frame: pl.DataFrame) -> None:
        """Hours that have no rows yet can be closed from memory."""
        for (hour,), rows in frame.select("hour", "series_id", "ts", "value").group_by("hour"):
            if not self._points.has_partition(str(hour)):
                self._closer.offer(hour_start(str(hour)) // MICROS_PER_HOUR, rows)

    def _touch_hours(self, deliveries: list[Delivery], intake: Intake, rows: NDArray[np.int64]) -> None:
        if not len(rows):
            return
        sources = pl.DataFrame({"source": [d.source for d in deliveries]})[pl.Series(intake.delivery[rows])]
        touched = (
            sources.with_columns(
                pl.Series("hour", intake.ts[rows] // MICROS_PER_HOUR), pl.Series("ts", intake.ts[rows])
            )
            .group_by("hour", "source")
            .agg(pl.col("ts").max())
        )
        for hour, source, newest in touched.iter_rows():
            self._closer.touch(hour, source, newest, self.progress.batches)

    def _store_changes(
        self, deliveries: list[Delivery], intake: Intake, upto: Mapping[str, int], report: BatchReport
    ) -> None:
        if intake.changes.is_empty():
            return
        ids = [change_id(*row) for row in intake.changes.select("host", "kind", "ts", "title").iter_rows()]
        frame = intake.changes.with_columns(pl.Series("change_id", ids))
        frame = frame.filter(~pl.col("change_id").is_in(list(self._change_ids))).unique(
            "change_id", keep="first", maintain_order=True
        )
        if frame.is_empty():
            return
        position = positions_of(deliveries)[frame["delivery"]]
        frame = frame.drop("delivery").hstack(position).with_columns(pl.col("ts").dt.strftime("%Y-%m-%d").alias("day"))
        self._changes.append(frame, {})
        self._change_ids.update(frame["change_id"].to_list())
        self._new_changes = frame
        report.touch("changes", frame, "day", "ts")

    def _in_time(self, deliveries: list[Delivery], intake: Intake, rows: NDArray[np.int64]) -> _Scorable:
        """Rows that are newer than everything scored of their series, in order of arrival; the rest comes late."""
        number, ts = intake.number[rows], intake.ts[rows]
        if len(rows):
            order = np.argsort(number, kind="stable")
            by_series = pl.DataFrame({"number": number[order], "ts": ts[order]})
            before = by_series.select(
                pl.max_horizontal(
                    pl.col("ts").cum_max().shift(1).over("number"), pl.Series("last", self._last_scored[number[order]])
                )
            ).to_series()
            in_time = np.empty(len(rows), bool)
            in_time[order] = ts[order] > before.to_numpy()
            late = intake.delivery[rows[~in_time]]
            for index, count in zip(*np.unique(late, return_counts=True), strict=True):
                self._tally.late(deliveries[index].source, int(count))
            self._rules.reported(ts[~in_time])
            rows = rows[in_time]
            np.maximum.at(self._last_scored, intake.number[rows], intake.ts[rows])
        return _Scorable(intake.number[rows], intake.ts[rows], intake.value[rows], intake.delivery[rows])

    def _judge(
        self, deliveries: list[Delivery], points: _Scorable, upto: Mapping[str, int], report: BatchReport
    ) -> None:
        """Rules and detectors hour by hour, alerts and incidents from what they say."""
        received = np.fromiter((d.received_at for d in deliveries), np.int64, len(deliveries))
        positions = positions_of(deliveries)
        anomalies: list[pl.DataFrame] = []
        alerts: list[pl.DataFrame] = []
        windows = self._windows()
        for hour, rows in rows_by_hour(points.ts):
            delivery = points.delivery[rows]
            batch = list(steps(points.number[rows], points.ts[rows], points.value[rows]))
            transitions: list[Transition] = self._rules.process(batch, received[delivery])
            found, unusual = self._tier1.process(batch)
            anomalies.append(self._anomaly_rows(found, positions[pl.Series(delivery)]))
            transitions += unusual
            if transitions:
                origin = BatchRows(
                    received[delivery], positions["writer"].gather(delivery), positions["seq"].gather(delivery)
                )
                alerts.append(
                    self._book.apply(transitions, directory=self._directory.frame, windows=windows, batch=origin)
                )
            reached = int(np.minimum(points.ts[rows], received[delivery]).max())
            self.progress.watermark = max(self.progress.watermark, reached)
            self._close_due(hour)
        self._close_due()
        self._save_baselines(report)
        silent = self._rules.absences(self.progress.watermark)
        if silent:
            alerts.append(
                self._book.apply(silent, directory=self._directory.frame, windows=windows, batch=BatchRows.empty())
            )
        alerts.append(self._recheck(int(received.max()) if len(received) else None))
        self._commit_anomalies(anomalies, upto, report)
        self._commit_alerts(pl.concat(alerts), upto, report)
        self._store.auto_resolve(self.progress.watermark, self._config)

    def _anomaly_rows(self, found: pl.DataFrame, positions: pl.DataFrame) -> pl.DataFrame:
        if found.is_empty():
            return ANOMALIES.empty()
        named = self._directory.frame[found["series"]].select("series_id", "host", "metric")
        origin = positions[found["row"]].select("received_at", "writer", "seq")
        return (
            found.drop("row", "series")
            .hstack(named)
            .hstack(origin)
            .with_columns(hours_of(found["ts"].to_numpy()), pl.col("ts").cast(TIMESTAMP))
            .select(list(ANOMALIES.schema))
        )

    def _commit_anomalies(self, found: list[pl.DataFrame], upto: Mapping[str, int], report: BatchReport) -> None:
        frame = pl.concat(found) if found else ANOMALIES.empty()
        if not frame.is_empty():
            taken = {writer: self._anomalies.taken(writer) for writer in frame["writer"].unique()}
            frame = frame.filter(pl.col("seq") > pl.col("writer").replace_strict(taken, return_dtype=pl.Int64))
        if frame.is_empty():
            return
        self._check_lease()
        self._anomalies.append(frame, upto)
        report.anomalies = frame.height
        report.touch("anomalies", frame, "hour", "ts")

    def _commit_alerts(self, frame: pl.DataFrame, upto: Mapping[str, int], report: BatchReport) -> None:
        changes, self._new_changes = self._new_changes, CHANGES.empty()
        if frame.is_empty() and changes.is_empty():
            return
        fresh = frame
        if self._alert_keys is not None:
            known = self._alert_keys
            mask = [key not in known for key in frame.select("alert_id", "revision").iter_rows()]
            fresh = frame.filter(pl.Series(mask, dtype=pl.Boolean))
        self._check_lease()
        if not fresh.is_empty():
            self._alerts.append(fresh, upto)
        report.alerts += fresh.height
        report.touch("alerts", fresh, "hour", "starts_at")
        report.incidents += self._store.apply(
            frame,
            config=self._config,
            entities=self._entities.rows(self._config),
            changes=changes if frame.is_empty() else self._changes_near(frame),
            now=time.time_ns() // 1000,
        )

    def _changes_near(self, alerts: pl.DataFrame) -> pl.DataFrame:
        """Changes that may have caused alerts: from the lookback before the earliest of them to the latest decision."""
        lookback = self._config.grouping.change_lookback
        first = alerts["starts_at"].dt.epoch("us").min()
        last = alerts["changed_at"].dt.epoch("us").max()
        start = instant(int(first) - int(lookback * MICROS_PER_SECOND))  # type: ignore[arg-type]
        end = instant(int(last))  # type: ignore[arg-type]
        near = self.lake.scan("changes").filter(pl.col("ts").is_between(start, end))
        return near.collect()

    def _close_due(self, upto: int = FOR_EVER) -> None:
        """Close hours up to one (counted from the epoch) and judge what comes later against them."""
        for hour in self._closer.due(self.progress.watermark, self.progress.batches, upto):
            self._check_lease()
            closed = self._closer.close(hour)
            self._judge_against(closed.hour_start, closed.statistics)

    def _save_baselines(self, report: BatchReport) -> None:
        self._check_lease()
        report.closed_hours += self._closer.save()
        for key in report.closed_hours:
            report.touched["baselines", key] = (1, hour_start(key))

    # -- configuration, counting, telling -----------------------------------------------------------------------------

    def _reconfigure(self) -> None:
        config = self._config_file.current()
        for line in self._config_file.problems:
            self._tally.problem(line)
        if config is self._config:
            return
        log.info("aiops.yaml changed: %s replaces %s", config.digest, self._config.digest)
        self._rules.replace(config.active_rules, self._directory.frame)
        self._tier1.reconfigure(_in_force(config), self._directory.frame)
        self._config = config
        self._write_reference_tables()

    def _write_reference_tables(self) -> None:
        self._entities_table.overwrite(self._entities.rows(self._config))
        self._maintenance_table.overwrite(maintenance_rows(self._windows()))

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
        return self._book.recheck(
            self.progress.watermark,
            windows=self._windows(),
            directory=self._directory.frame,
            latest=self._last_scored,
            received_at=received_at,
        )

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
        self._tally.write(self._position, len(self._directory), self._book.open_count, self._closer.closed)


def _in_force(config: Config) -> Statistics:
    """The settings of the statistics; turned off means that they leave every metric alone, so that events end."""
    return config.statistics if config.statistics.enabled else config.statistics.model_copy(update={"exclude": ("*",)})
