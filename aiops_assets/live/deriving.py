"""Closing hours and amending closed ones: the canonical derivation beside the live stream, and its receipts.

The live stream judges points as they come, so that people are told within a second. When an hour closes, all its rows
are derived once more in one order from the state handed over (``detection.derive``); that is what counts, what receipts
record and what the next hour starts from. Where the stream had told something else, alerts are amended.

The order of commits makes the receipt the last: config versions, baselines, anomalies, decisions, incidents and alerts,
states, receipts. All before it are idempotent, so that after a cut the same hours are simply derived again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import polars as pl

from aiops_assets.detection.alerts import Suppression
from aiops_assets.detection.amendments import (
    Revisions,
    Row,
    amend,
    by_alert,
    catch_up,
    end_unfollowed,
    newest_told,
    plain,
)
from aiops_assets.detection.baselines import close
from aiops_assets.detection.derive import INPUT_COLUMNS, Derived, baseline_hash, derive, input_hash
from aiops_assets.detection.handover import HandOver, Shelf, read_beginning, write_beginning
from aiops_assets.detection.judge import Judge, lessons_due
from aiops_assets.detection.judgement import Judgement, read_timeline, versions_frame, write_timeline
from aiops_assets.detection.receipts import (
    CLOSED,
    LATE,
    RESTATED,
    Receipt,
    Reference,
    code_version,
    libraries,
    newest,
    pinned_lessons,
    read_judgements,
    read_receipts,
    receipts_frame,
    up_to,
)
from aiops_assets.detection.restoring import InputsExpired, Past
from aiops_assets.detection.statistics import DETECTOR_VERSION
from aiops_assets.hours import MICROS_PER_HOUR, hour_key, hour_start, instant
from aiops_assets.lake.digest import in_order
from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.tables import (
    ALERT_DECISIONS,
    ANOMALIES,
    BASELINES,
    CONFIG_VERSIONS,
    HOUR_RECEIPTS,
    METRIC_POINTS,
)
from aiops_assets.telemetry.series import SeriesDirectory

log = logging.getLogger(__name__)

#: an hour with more files than this is rewritten as one when it closes
FILES_TO_REWRITE = 4
#: receipts and baseline versions of so many hours before the newest are kept at hand
REMEMBERED_HOURS = 9 * 24
#: stored hours that warm detectors up when there is no state
WARM_UP_HOURS = 24
#: how long one call may derive hours before it gives way to the live stream, seconds
BUDGET_SECONDS = 2.0
#: hours that are due and no older than this count as a backlog, older ones as history
RECENT_HOURS = 48
#: hours of backlog that the live stream takes along with the open ones while history is derived
MOST_RECENT_LEFT = 3
#: states kept of every hour, of every sixth, of every day's first, of every Monday's first: for so many hours back
EVERY_HOUR, EVERY_SIXTH, EVERY_DAY, EVERY_WEEK = 6, 50, 40 * 24, 400 * 24

#: kinds of alerts that rules and detectors raise
_OURS = ("rule", "anomaly", "absence")
#: what makes two derivations of the same rows the same
_OUTCOME = ("anomalies_hash", "decisions_hash", "state_out_hash", "config", "baselines")

Tell = Callable[[pl.DataFrame], None]


@dataclass(slots=True)
class Outcome:
    """What closing or amending did. ``revisions`` are rows of ``tables.ALERTS`` that were told."""

    closed: list[str] = field(default_factory=list)
    amended: list[str] = field(default_factory=list)
    #: late hours that need no more attention: amended, unchanged, or beyond help
    passed: list[str] = field(default_factory=list)
    revisions: pl.DataFrame | None = None
    anomalies: dict[str, int] = field(default_factory=dict)
    decisions: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Hour:
    """An hour that was derived and is not committed yet."""

    receipt: Receipt
    derived: Derived
    baselines: pl.DataFrame | None
    state: HandOver


class Deriver:
    """The derivations of one lake, for the holder of the lease.

    Args:
        points: the writer of ``metric_points``.
        baselines, anomalies: writers of those tables.
        directory: every series of the lake.
        shelf: where states are kept.
        judgement: what is in force now.
    """

    def __init__(
        self,
        lake: Lake,
        points: TableWriter,
        baselines: TableWriter,
        anomalies: TableWriter,
        directory: SeriesDirectory,
        shelf: Shelf,
        judgement: Judgement,
    ) -> None:
        self._lake, self._directory, self._shelf = lake, directory, shelf
        self._points, self._baselines, self._anomalies = points, baselines, anomalies
        self._decisions = TableWriter(lake, ALERT_DECISIONS)
        self._receipts_table = TableWriter(lake, HOUR_RECEIPTS)
        self._versions_table = TableWriter(lake, CONFIG_VERSIONS)
        self._judgements = read_judgements(lake)
        self._current = judgement
        #: judgements in force from an event time on, ascending; those before the last closed hour are dropped
        self._timeline: list[tuple[int, Judgement]] = []
        self.receipts: dict[str, Receipt] = {}
        self._versions: dict[str, int] = {}
        #: state at the end of the newest closed hour, and the hours whose states it was joined from
        self.sealed = Judge(judgement, directory)
        self._sealed_from: list[Reference] = []
        self._sealed_state: HandOver | None = None
        #: what a pass over late hours has come to, while hours of it are left
        self._running = HandOver()
        self._running_from: Reference | None = None
        #: alerts that the pass left open, and how far (µs) it has come
        self._unfollowed: dict[str, int] = {}
        self._passed_upto = 0
        self._closed_before = ""
        #: the newest hour that was closed when this began
        self.begun_after: str | None = None
        #: problems for people
        self.problems: list[str] = []
        #: rules, detectors and the plain book of the present: the sealed state and everything since
        self.live = self.sealed
        #: newest told row of the alerts that were compared last
        self.newest_told: dict[str, Row] = {}
        #: alert_id → (starts_at, changed_at) of what was told about hours that are not closed
        self.told_since: dict[str, tuple[int, int]] = {}

    @property
    def newest_hour(self) -> str | None:
        """The newest closed hour."""
        return max(self.receipts) if self.receipts else None

    @property
    def writers(self) -> tuple[TableWriter, ...]:
        """The tables that only this writes."""
        return self._decisions, self._receipts_table, self._versions_table

    def open(self, stored: Sequence[str]) -> list[str]:
        """Continue after the newest receipt, or begin; the hours that are open.

        A lake that was written before there were receipts begins after the newest hour with baselines: older hours
        count as closed, and detectors warm up on the last of them.

        Args:
            stored: hours that have points, ascending.
        """
        receipts = self._lake.partitions("hour_receipts")
        if receipts:
            last = receipts[-1].partition
            first = hour_key(hour_start(last) - REMEMBERED_HOURS * MICROS_PER_HOUR)
            self.receipts = newest(read_receipts(self._lake, first))
            self._read_baseline_versions(first)
            try:
                self._restore(last)
            except (InputsExpired, ValueError) as error:
                log.warning("the state after %s cannot be restored (%s): detectors warm up anew", last, error)
                self._warm_up([key for key in stored if key <= last])
        else:
            self._read_baseline_versions("")
            last = self._begin()
            self._warm_up([key for key in stored if key <= last])
        self._closed_before = read_beginning(self._shelf.folder) or ""
        self.begun_after = last or None
        return [key for key in stored if key > last]

    def _begin(self) -> str:
        """The newest hour that was closed before there were receipts, "" when there is none; written down once."""
        known = read_beginning(self._shelf.folder)
        if known is None:
            known = max(self._versions, default="")
            write_beginning(self._shelf.folder, known)
        return known

    def _restore(self, last: str) -> None:
        """The state of the present: the newest closed hour, and what was amended since and not taken up by it."""
        closing = next(receipt for receipt in read_receipts(self._lake, last, last))
        later = self._lake.scan("hour_receipts").filter(pl.col("derived_at") > instant(closing.derived_at))
        hours = later.select("hour").collect()["hour"]
        since: list[Receipt] = []
        if len(hours):
            receipts = read_receipts(self._lake, min(hours), max(hours))
            since = [receipt for receipt in receipts if receipt.derived_at > closing.derived_at]
        taken_up = {reference for receipt in since for reference in receipt.state_in}
        since = sorted((r for r in since if r.reference not in taken_up), key=lambda receipt: receipt.derived_at)
        references = [closing.reference, *(receipt.reference for receipt in since)]
        past = self._past()
        self.sealed = past.judge(past.handed_over(references), self._current)
        self._sealed_from, self._sealed_state = references, None

    def _warm_up(self, hours: Sequence[str]) -> None:
        """Without a state: detectors see the last stored hours again, and the baselines of the week before them."""
        self.sealed = Judge(self._current, self._directory)
        self._sealed_from, self._sealed_state = [], None
        for key in hours[-WARM_UP_HOURS:]:
            lessons = pinned_lessons(self._lake, lessons_due(key, self.sealed.learnt, self._versions))
            rows = self._lake.read(METRIC_POINTS.name, [key], list(INPUT_COLUMNS))
            derive(self.sealed, hour_start(key), rows, lessons, [])

    def grow(self) -> None:
        """Announce series that the directory has gained."""
        self.sealed.grow()
        if self.live is not self.sealed:
            self.live.grow()

    def reconfigure(self, judgement: Judgement, at: int) -> None:
        """Other rules are in force from an event time (µs) on."""
        if judgement == self._current:
            return
        self._current = judgement
        self._timeline.append((at, judgement))
        write_timeline(self._shelf.folder, self._timeline)
        self.live.reconfigure(judgement)

    def restore_timeline(self, judgement: Judgement, at: int) -> None:
        """After a start: what was in force since the newest closed hour, and ``judgement`` from ``at`` (µs) on."""
        last = self.newest_hour or self.begun_after
        end = hour_start(last) + MICROS_PER_HOUR if last else 0
        self._timeline = [(since, entry) for since, entry in read_timeline(self._shelf.folder) if since >= end]
        in_force = self._timeline[-1][1] if self._timeline else self.sealed.judgement
        self._current = in_force
        if self.live is self.sealed:
            self._prepare_live()
        self.reconfigure(judgement, at)

    def begin_hour(self, hour: str) -> None:
        """The live stream comes to an hour for the first time: it learns what the hour shall know."""
        self.live.learn(pinned_lessons(self._lake, lessons_due(hour, self.live.learnt, self._versions)))

    def told(self, revisions: pl.DataFrame) -> None:
        """Remember what the live stream told."""
        times = [pl.col("starts_at").dt.epoch("us"), pl.col("changed_at").dt.epoch("us")]
        for alert, starts_at, changed_at in revisions.select("alert_id", *times).iter_rows():
            self.told_since[alert] = starts_at, changed_at

    def remember_told(self) -> None:
        """After a start: what the table says was told about hours that are not closed."""
        last = self.newest_hour or self.begun_after
        end = hour_start(last) + MICROS_PER_HOUR if last else 0
        recent = self._lake.scan("alerts").filter((pl.col("changed_at") >= instant(end)) & pl.col("kind").is_in(_OURS))
        self.told(recent.select("alert_id", "starts_at", "changed_at", "revision").collect().sort("revision"))
        columns = ["alert_id", "starts_at", "revision", "state", "kind"]
        present = self._lake.scan("alerts", columns=columns).sort("revision").unique("alert_id", keep="last")
        open_rows = present.filter(pl.col("state").is_in(["firing", "suppressed"]) & pl.col("kind").is_in(_OURS))
        times = open_rows.select("alert_id", pl.col("starts_at").dt.epoch("us")).collect()
        self._unfollowed = {alert: at for alert, at in times.iter_rows() if alert not in self.told_since}
        self._passed_upto = end

    def go_on_after(self, derivation: Reference) -> None:
        """Go on with a pass over late hours that was interrupted: the next hour starts from what this one came to."""
        self._running, self._running_from = self._past().state(derivation), derivation

    # -- deriving -----------------------------------------------------------------------------------------------------

    def close(
        self,
        due: Sequence[str],
        late: Sequence[str],
        open_hours: Sequence[str],
        watermark: int,
        windows: Sequence[Suppression],
        tell: Tell,
        reason: str = LATE,
    ) -> Outcome:
        """Close hours, amend closed ones, and set the live stream on the outcome.

        It stops after ``BUDGET_SECONDS``; the outcome says which hours were done. As long as hours of the last days
        that are due are left, the open hours wait for them.

        Args:
            due: hours to close, ascending, all newer than every closed one.
            late: closed hours (or hours older than the newest closed one) that have other rows now, ascending.
            open_hours: hours that stay open, ascending.
            watermark: event time reached (µs).
            windows: maintenance windows and silences in force.
            tell: takes revisions to incidents and into the table of alerts.
            reason: why ``late`` hours are derived again.
        """
        outcome = Outcome()
        done: list[_Hour] = []
        until = time.monotonic() + BUDGET_SECONDS
        old_decisions: dict[str, pl.DataFrame] = {}
        for key in due:
            done.append(self._close(key))
            outcome.closed.append(key)
            if time.monotonic() > until:
                break
        left = due[len(outcome.closed) :]
        waiting = bool(left)
        if late and not waiting and (not due or time.monotonic() < until):
            outcome.passed = self._amend(late, done, reason, until)
            outcome.amended = [hour.receipt.hour for hour in done[len(outcome.closed) :]]
            old_decisions = {key: self._stored_decisions(key) for key in outcome.amended}
        self._store(done, outcome)
        self._prepare_live()
        over = len(outcome.passed) == len(late)
        revisions = self._reconcile(
            done,
            old_decisions,
            self._beside(left, open_hours, watermark),
            watermark,
            windows,
            outcome,
            pass_is_over=over,
        )
        outcome.revisions = revisions.frame()
        if not outcome.revisions.is_empty():
            tell(outcome.revisions)
        self._keep_states(done)
        if done:
            self._receipts_table.append(receipts_frame(hour.receipt for hour in done), {})
            self.receipts.update({hour.receipt.hour: hour.receipt for hour in done})
        self._forget()
        return outcome

    @staticmethod
    def _beside(left: Sequence[str], open_hours: Sequence[str], watermark: int) -> list[str] | None:
        """Hours that the live stream judges although hours that are due are left; ``None``: it waits for those.

        History that is being imported must not keep people waiting; a backlog of the last days must, or alerts that
        began in it would be told twice.
        """
        recent = [key for key in left if hour_start(key) >= watermark - RECENT_HOURS * MICROS_PER_HOUR]
        return None if len(recent) > MOST_RECENT_LEFT else [*recent, *open_hours]

    def _close(self, key: str) -> _Hour:
        rows = self._rows(key)
        start = hour_start(key)
        state_in_hash = self._sealed().digest()
        segments = self._segments(start)
        pins = lessons_due(key, self.sealed.learnt, self._versions)
        lessons = pinned_lessons(self._lake, pins)
        derived = derive(self.sealed, start, rows, lessons, segments)
        self._sealed_state = None
        state = self._sealed()
        state_in, self._sealed_from = self._sealed_from, [(key, 1)]
        self._running, self._running_from = HandOver(), None
        receipt = self._receipt(key, 1, CLOSED, rows, 0, segments, pins, state_in, state_in_hash, state, derived)
        return self._with_baselines(receipt, rows, derived, state)

    def _amend(self, late: Sequence[str], done: list[_Hour], reason: str, until: float) -> list[str]:
        """Derive closed hours again, each from its pinned state joined with what the hours before it came to now."""
        past = self._past()
        if self._running_from is not None:
            past.known[self._running_from] = self._running
        passed: list[str] = []
        for key in late:
            if passed and time.monotonic() > until:
                break
            passed.append(key)
            old = self.receipts.get(key) or self._receipt_of(key)
            if old is None and self._closed_without_receipt(key):
                self._renew_baselines(key)
                continue
            rows = self._rows(key)
            same_rows = old is not None and old.rows == rows.height and old.input_hash == input_hash(rows)
            if same_rows and reason == LATE:
                continue
            try:
                hour = self._derive_again(past, key, old, rows, reason)
                if old is None or not same_rows or not _same_outcome(old, hour.receipt):
                    done.append(hour)
                else:
                    self._repair(hour, old)
                    past.known[old.reference] = self._running
            except (InputsExpired, ValueError, LookupError) as error:
                self.problems.append(f"hour {key} has {reason} and cannot be derived again: {error}")
                self._renew_baselines(key)
        if self._running_from is not None:
            self.sealed.adopt(past.joined(self._sealed(), self._running))
            taken_up = {reference for hour in done for reference in hour.receipt.state_in}
            kept = [reference for reference in self._sealed_from if reference not in taken_up]
            self._sealed_from, self._sealed_state = [*kept, self._running_from], None
        if len(passed) == len(late):
            self._running, self._running_from = HandOver(), None
        return passed

    def _derive_again(self, past: Past, key: str, old: Receipt | None, rows: pl.DataFrame, reason: str) -> _Hour:
        pinned = old is not None and not reason.startswith(RESTATED)
        references = list(old.state_in) if old is not None and pinned else self._before(key)
        if self._running_from is not None and {hour for hour, _ in references} == {self._running_from[0]}:
            references = [self._running_from]
        state = past.handed_over(references)
        if self._running_from is not None and self._running_from not in references:
            state = past.joined(state, self._running)
            references.append(self._running_from)
        judge = past.judge(state, self._current)
        segments: Sequence[tuple[int | None, Judgement]]
        if old is not None and pinned:
            segments = [(at, past.judgements[digest]) for at, digest in old.config]
            pins = list(old.baselines)
        else:
            segments = [(None, self._current if reason.startswith(RESTATED) else judge.judgement)]
            pins = lessons_due(key, judge.learnt, self._versions)
        state_in_hash = judge.export().digest()
        derived = derive(judge, hour_start(key), rows, pinned_lessons(self._lake, pins), segments)
        self._running = judge.export()
        receipt = self._receipt(
            key,
            old.revision + 1 if old is not None else 1,
            reason if old is not None else CLOSED,
            rows,
            rows.height - up_to(rows, old.positions).height if old is not None else 0,
            segments,
            pins,
            references,
            state_in_hash,
            self._running,
            derived,
        )
        self._running_from = receipt.reference
        past.known[receipt.reference] = self._running
        past.receipts[receipt.reference] = receipt
        past.forget([receipt.reference])
        return self._with_baselines(receipt, rows, derived, self._running)

    def _repair(self, hour: _Hour, old: Receipt) -> None:
        """The same outcome as recorded: only tables that lack it are put right, and no revision is added."""
        hour.receipt = old
        self._running_from = old.reference
        self._store([hour], Outcome())

    def _closed_without_receipt(self, key: str) -> bool:
        """Whether an hour was closed before there were receipts: then nothing is known that it could be pinned to."""
        return bool(self._versions.get(key)) and key <= self._closed_before

    def _renew_baselines(self, key: str) -> None:
        """A further version of an hour's baselines, and nothing else."""
        statistics = close(self._rows(key))
        version = self._versions.get(key, 0) + 1
        named = statistics.with_columns(
            pl.lit(instant(hour_start(key))).alias("hour_start"),
            pl.lit(key).alias("hour"),
            pl.lit(version).alias("baseline_version"),
        )
        self._baselines.append(named, {})
        self._versions[key] = version

    def _with_baselines(self, receipt: Receipt, rows: pl.DataFrame, derived: Derived, state: HandOver) -> _Hour:
        """Add the hour's statistics: the newest stored version when it says the same, else a further one."""
        key = receipt.hour
        statistics = close(rows)
        version = self._versions.get(key, 0)
        stored = self._baselines.read(key, list(BASELINES.schema))
        named = statistics.with_columns(
            pl.lit(instant(receipt.start)).alias("hour_start"), pl.lit(key).alias("hour")
        ).with_columns(pl.col("hour_start").cast(BASELINES.schema["hour_start"]))
        for candidate in (version, version + 1):
            frame = named.with_columns(pl.lit(candidate, pl.Int32).alias("baseline_version")).select(
                pl.col(name).cast(dtype) for name, dtype in BASELINES.schema.items()
            )
            pinned = replace(receipt, baseline_version=candidate, baseline_hash=baseline_hash(frame))
            before = stored.filter(pl.col("baseline_version") == candidate).sort("series_id")
            if candidate and before.height == frame.height and baseline_hash(before) == pinned.baseline_hash:
                return _Hour(pinned, derived, None, state)
        if rows.is_empty() and not version:
            return _Hour(pinned, derived, None, state)
        self._baselines.append(frame, {})
        self._versions[key] = candidate
        return _Hour(pinned, derived, frame, state)

    def _receipt(
        self,
        key: str,
        revision: int,
        reason: str,
        rows: pl.DataFrame,
        late_rows: int,
        segments: Sequence[tuple[int | None, Judgement]],
        pins: Sequence[tuple[str, int | None, int]],
        state_in: Sequence[Reference],
        state_in_hash: str,
        state: HandOver,
        derived: Derived,
    ) -> Receipt:
        positions = {writer: self._points.taken(writer) for writer in rows["writer"].unique().sort()}
        return Receipt(
            hour=key,
            revision=revision,
            reason=reason,
            derived_at=time.time_ns() // 1000,
            rows=rows.height,
            late_rows=late_rows,
            positions=positions,
            input_hash=input_hash(rows),
            config=[(at, judgement.digest) for at, judgement in segments],
            baselines=list(pins),
            state_in=list(state_in),
            state_in_hash=state_in_hash,
            state_out_hash=state.digest(),
            baseline_version=0,
            baseline_hash="",
            anomalies=derived.anomalies.height,
            anomalies_hash=derived.anomalies_hash,
            decisions=derived.decisions.height,
            decisions_hash=derived.decisions_hash,
            detector_version=DETECTOR_VERSION,
            code_version=code_version(),
            libraries=libraries(),
        )

    def _rows(self, key: str) -> pl.DataFrame:
        """All rows of an hour; one of many files is rewritten as one on the way."""
        rows = in_order(self._points.read(key, list(METRIC_POINTS.schema)), ("series_id", "ts"))
        if self._points.files(key) > FILES_TO_REWRITE:
            self._points.replace(rows, key)
        return rows

    def _sealed(self) -> HandOver:
        """The state at the end of the newest closed hour, and what was amended since."""
        if self._sealed_state is None:
            self._sealed_state = self.sealed.export()
        return self._sealed_state

    def _segments(self, start: int) -> list[tuple[int | None, Judgement]]:
        """What is in force in the hour that starts at ``start`` (µs) and comes next to the sealed state."""
        end = start + MICROS_PER_HOUR
        first = self.sealed.judgement
        for at, judgement in self._timeline:
            if at <= start:
                first = judgement
        inside: list[tuple[int | None, Judgement]] = [
            (at, judgement) for at, judgement in self._timeline if start < at < end
        ]
        return [(None, first), *inside]

    # -- storing ------------------------------------------------------------------------------------------------------

    def _store(self, done: Sequence[_Hour], outcome: Outcome) -> None:
        used = {digest for hour in done for _, digest in hour.receipt.config} - set(self._judgements)
        in_force = [self.sealed.judgement, self._current, *(judgement for _, judgement in self._timeline)]
        lacking = {judgement.digest: judgement for judgement in in_force if judgement.digest in used}
        if lacking:
            self._versions_table.append(versions_frame(lacking.values(), instant(time.time_ns() // 1000)), {})
            self._judgements.update(lacking)
        fresh: list[pl.DataFrame] = []
        for hour in done:
            fresh += self._settle_anomalies(hour.receipt.hour, hour.derived.anomalies)
            outcome.anomalies[hour.receipt.hour] = hour.derived.anomalies.height
            outcome.decisions[hour.receipt.hour] = hour.derived.decisions.height
        if fresh:
            self._anomalies.append(pl.concat(fresh), {})
        self._store_decisions(done)

    def _settle_anomalies(self, key: str, frame: pl.DataFrame) -> list[pl.DataFrame]:
        """Make an hour's stored anomalies those of a frame; gives back what is left to append."""
        stored = self._anomalies.read(key, list(ANOMALIES.schema))
        if stored.is_empty():
            return [] if frame.is_empty() else [frame]
        if not stored.sort("series_id", "ts").equals(frame):
            self._anomalies.replace(frame, key)
        return []

    def _store_decisions(self, done: Sequence[_Hour]) -> None:
        fresh = []
        for hour in done:
            frame = hour.derived.decisions.with_columns(
                pl.lit(hour.receipt.revision, pl.Int32).alias("receipt_revision")
            ).select(list(ALERT_DECISIONS.schema))
            key = hour.receipt.hour
            stored = self._decisions.read(key, list(ALERT_DECISIONS.schema))
            earlier = stored.filter(pl.col("receipt_revision") < hour.receipt.revision)
            if earlier.height < stored.height:
                self._decisions.replace(pl.concat([earlier, frame]), key)
            elif not frame.is_empty():
                fresh.append(frame)
        if fresh:
            self._decisions.append(pl.concat(fresh), {})

    def _stored_decisions(self, key: str) -> pl.DataFrame:
        """The decisions of the newest receipt of an hour."""
        receipt = self.receipts.get(key)
        stored = self._decisions.read(key, list(ALERT_DECISIONS.schema))
        return stored.filter(pl.col("receipt_revision") == (receipt.revision if receipt else -1))

    def _keep_states(self, done: Sequence[_Hour]) -> None:
        """Put on the shelf what later derivations may need, and clear it of the rest."""
        if not done:
            return
        last = max(self.newest_hour or "", *(hour.receipt.hour for hour in done))
        needed = set(self._sealed_from)
        for hour in done:
            if hour.receipt.reference in needed or self._worth_keeping(hour.receipt.hour, last):
                self._shelf.put(*hour.receipt.reference, hour.state)
        for reference in self._shelf.kept():
            if reference not in needed and not self._worth_keeping(reference[0], last):
                self._shelf.drop(*reference)

    @staticmethod
    def _worth_keeping(key: str, last: str) -> bool:
        start = hour_start(key)
        age = (hour_start(last) - start) // MICROS_PER_HOUR
        of_day = start // MICROS_PER_HOUR % 24
        monday = of_day == 0 and start // MICROS_PER_HOUR // 24 % 7 == 4
        return (
            age < EVERY_HOUR
            or (age < EVERY_SIXTH and of_day % 6 == 0)
            or (age < EVERY_DAY and of_day == 0)
            or (age < EVERY_WEEK and monday)
        )

    # -- the present --------------------------------------------------------------------------------------------------

    def _prepare_live(self) -> None:
        """Give the live stream the sealed state, in a judge of its own."""
        state = self._sealed()
        if self.live is self.sealed or self.live.judgement != self.sealed.judgement:
            self.live = Judge(self.sealed.judgement, self._directory)
        self.live.adopt(state)

    def catch_up(self, open_hours: Sequence[str], watermark: int, windows: Sequence[Suppression]) -> Revisions:
        """After a start: set the live stream on what is stored; what is to be told about it."""
        self._prepare_live()
        return self._reconcile([], {}, open_hours, watermark, windows, Outcome())

    def _reconcile(
        self,
        done: list[_Hour],
        old_decisions: Mapping[str, pl.DataFrame],
        open_hours: Sequence[str] | None,
        watermark: int,
        windows: Sequence[Suppression],
        outcome: Outcome,
        *,
        pass_is_over: bool = True,
    ) -> Revisions:
        """Run the open hours (``None``: they wait) through the live judge and compare everything with what was told."""
        fresh: list[pl.DataFrame] = []
        recent: list[pl.DataFrame] = []
        for key in open_hours or ():
            start = hour_start(key)
            rows = self._points.read(key, list(METRIC_POINTS.schema))
            lessons = pinned_lessons(self._lake, lessons_due(key, self.live.learnt, self._versions))
            derived = derive(self.live, start, rows, lessons, self._segments(start), until=watermark)
            fresh += self._settle_anomalies(key, derived.anomalies)
            if not derived.anomalies.is_empty():
                outcome.anomalies[key] = derived.anomalies.height
            recent.append(derived.decisions)
        if fresh:
            self._anomalies.append(pl.concat(fresh), {})
        if open_hours is not None:
            self.live.reconfigure(self._current)
        closed = {hour.receipt.hour for hour in done} - set(old_decisions)
        decisions = by_alert(
            row
            for frame in [*(hour.derived.decisions for hour in done if hour.receipt.hour in closed), *recent]
            for row in _in_time(frame)
        )
        still_open = {row["alert_id"]: row for row in plain(self.live.book.open_rows())}
        ended = self.live.book.ended_at()
        starts = {alert: rows[0]["starts_at"] for alert, rows in decisions.items()}
        starts |= {alert: row["starts_at"] for alert, row in still_open.items()}
        starts |= {alert: starts_at for alert, (starts_at, _) in self.told_since.items()}
        starts |= self.live.book.ended_starts() | self._unfollowed
        for frame in [*old_decisions.values(), *(hour.derived.decisions for hour in done)]:
            times = frame.select("alert_id", pl.col("starts_at").dt.epoch("us"))
            starts |= dict(times.iter_rows())
        told = self._told(starts)
        result = Revisions()
        for place, hour in enumerate(done):
            if hour.receipt.hour in old_decisions:
                self._amend_alerts(done, place, old_decisions[hour.receipt.hour], told, still_open, windows, result)
        reason = "judged again with all rows" + (f" when hour {max(closed)} closed" if closed else " so far")
        if pass_is_over and self._unfollowed:
            ended_rows = end_unfollowed(told, self._unfollowed, still_open, self._passed_upto)
            told |= {row["alert_id"]: row for row in ended_rows.rows}
            result.rows += ended_rows.rows
            self._unfollowed.clear()
        provisional = self._provisional(done, open_hours is None)
        progress = catch_up(decisions, told, still_open, ended, provisional, windows, reason)
        for place, hour in enumerate(done):
            if hour.receipt.hour in closed:
                mine = set(hour.derived.decisions["alert_id"])
                done[place].receipt = replace(
                    hour.receipt,
                    amended=len(progress.amended & mine),
                    withdrawn=len(progress.withdrawn) if hour.receipt.hour == max(closed) else 0,
                    windows=[_window(window) for window in windows],
                )
        result.rows += progress.rows
        told |= {row["alert_id"]: row for row in result.rows}
        self.newest_told = told
        self._remember_open_decisions(progress.rows, done)
        return result

    def _provisional(self, done: Sequence[_Hour], open_hours_wait: bool) -> list[str]:
        """What was told about the hours that are being compared."""
        last = max([self.newest_hour or "", *(hour.receipt.hour for hour in done)])
        end = hour_start(last) + MICROS_PER_HOUR if last else 0
        return [alert for alert, (_, at) in self.told_since.items() if not open_hours_wait or at < end]

    def _amend_alerts(
        self,
        done: list[_Hour],
        place: int,
        old: pl.DataFrame,
        told: dict[str, Row],
        still_open: Mapping[str, Row],
        windows: Sequence[Suppression],
        result: Revisions,
    ) -> None:
        hour = done[place]
        receipt = hour.receipt
        why = f"{receipt.late_rows} late rows" if receipt.reason == LATE else receipt.reason
        changes = amend(
            by_alert(_in_time(old)),
            by_alert(_in_time(hour.derived.decisions)),
            told,
            still_open,
            receipt.start + MICROS_PER_HOUR,
            windows,
            f"hour {receipt.hour} was derived again: {why}",
        )
        told |= {row["alert_id"]: row for row in changes.rows}
        result.rows += changes.rows
        left_open = [row for row in changes.rows if row["state"] not in {"resolved", "withdrawn"}]
        self._unfollowed |= {row["alert_id"]: row["starts_at"] for row in left_open}
        self._passed_upto = receipt.start + MICROS_PER_HOUR
        done[place].receipt = replace(
            receipt,
            raised=len(changes.raised),
            amended=len(changes.amended),
            withdrawn=len(changes.withdrawn),
            windows=[_window(window) for window in windows],
        )

    def _told(self, starts: Mapping[str, int]) -> dict[str, Row]:
        """The newest told row of alerts, from the hours in which they started."""
        if not starts:
            return {}
        hours = sorted({hour_key(at) for at in starts.values()})
        rows = self._lake.scan("alerts", hours).filter(pl.col("alert_id").is_in(list(starts))).collect()
        return newest_told(rows)

    def _remember_open_decisions(self, rows: Iterable[Row], done: Sequence[_Hour]) -> None:
        for row in rows:
            self.told_since[row["alert_id"]] = row["starts_at"], row["changed_at"]
        closed = [hour.receipt.hour for hour in done]
        if closed:
            end = hour_start(max([*closed, *self.receipts])) + MICROS_PER_HOUR
            self.told_since = {alert: at for alert, at in self.told_since.items() if at[1] >= end}

    # -- what is at hand ----------------------------------------------------------------------------------------------

    def _past(self) -> Past:
        judgements = {**self._judgements, self._current.digest: self._current}
        every = read_receipts(self._lake, min(self.receipts)) if self.receipts else []
        return Past(self._lake, self._shelf, self._directory, judgements, every)

    def _receipt_of(self, key: str) -> Receipt | None:
        """The newest receipt of an hour that is older than those at hand."""
        return newest(read_receipts(self._lake, key, key)).get(key)

    def _before(self, key: str) -> list[Reference]:
        """The newest derivation before an hour that was never closed."""
        earlier = [hour for hour in self.receipts if hour < key]
        return [self.receipts[max(earlier)].reference] if earlier else []

    def _read_baseline_versions(self, first: str) -> None:
        stored = self._lake.scan("baselines", columns=["hour", "baseline_version"]).filter(pl.col("hour") >= first)
        versions = stored.group_by("hour").agg(pl.col("baseline_version").max()).collect()
        self._versions = dict(versions.iter_rows())

    def _forget(self) -> None:
        last = self.newest_hour
        if last is None:
            return
        first = hour_key(hour_start(last) - REMEMBERED_HOURS * MICROS_PER_HOUR)
        self.receipts = {hour: receipt for hour, receipt in self.receipts.items() if hour >= first}
        self._versions = {hour: version for hour, version in self._versions.items() if hour >= first}
        end = hour_start(last) + MICROS_PER_HOUR
        self._timeline = [(at, judgement) for at, judgement in self._timeline if at > end - MICROS_PER_HOUR]


def _in_time(decisions: pl.DataFrame) -> list[Row]:
    return plain(decisions.sort("changed_at", "alert_id", "revision"))


def _same_outcome(one: Receipt, other: Receipt) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in _OUTCOME)


def _window(window: Suppression) -> dict[str, object]:
    return {
        "window_id": window.window_id,
        "kind": window.kind,
        "starts_at": window.starts_at,
        "ends_at": window.ends_at,
        "author": window.author,
        "reason": window.reason,
        "host": window.host,
        "rule": window.rule,
        "labels": dict(window.labels),
    }
