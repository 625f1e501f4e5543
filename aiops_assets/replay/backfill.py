"""Backfills: stretches of time brought to what the landing zone, the code and the pinned inputs say.

What belongs here: which hours need work, the order of looking, owning the live plane and going on after a kill. What
does not: deriving and amending (``live.deriving``), rebuilding points (``live.rebuild``), events and changes
(``replay.events``), marts (``marts``), and the asset graph (``live.assets``).

A backfill first **looks**, beside the live session and without disturbing it: every hour is derived again from its
receipt and compared with what is stored. Where all is as it should be, that was all. Only for hours that come out
otherwise it **owns** the live plane, and then it serves it: what arrives meanwhile is taken between two hours, and it
gives way to whoever asks. From the first hour on that comes out otherwise, all later ones of the range are derived
again, each from what the one before came to.

An hour is never derived from fewer rows than its receipt counts: what has passed its retention stays as it is.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, Field, ValidationError

from aiops_assets.detection.derive import Derived, anomalies_hash, baseline_hash, decisions_hash, derive, input_hash
from aiops_assets.detection.handover import HandOver, Shelf, read_beginning
from aiops_assets.detection.receipts import (
    BACKFILL,
    TABLE,
    Receipt,
    code_version,
    newest,
    pinned_judgements,
    pinned_lessons,
    read_judgements,
    read_receipts,
    up_to,
)
from aiops_assets.detection.restoring import InputsExpired, Past
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND, hour_key, hour_start, instant
from aiops_assets.lake.tables import Lake
from aiops_assets.live.lease import live_lease
from aiops_assets.live.ownership import WAIT_SECONDS, owned
from aiops_assets.live.pipeline import BatchReport, Pipeline
from aiops_assets.live.progress import read_progress
from aiops_assets.live.rebuild import RebuildReport, rebuild_hours
from aiops_assets.settings import Settings
from aiops_assets.telemetry.series import SeriesDirectory

OWNER = "aiops backfill"
#: hours derived between two looks at what has arrived
HOURS_AT_ONCE = 2
#: an interrupted backfill goes on within this time, else it begins anew
REMEMBERED_SECONDS = 86_400.0
#: what is left of an hour closes after so many quiet batches (``live.closing``)
_QUIET_BATCHES = 6
_GIVE_WAY_SECONDS = 5.0
#: whoever asks for the live plane waits at least this long, and a pass more; what arrives is served meanwhile
_AT_LEAST_SECONDS = 2.0
_STEPS_SERVED = 20
_RESUMED = "done before the interruption"
#: hours before the first of a backfill whose receipts are needed to find a kept state
_HOURS_BACK = 50

#: ``same``: as stored. ``repaired``: a table lacked what the receipt says. ``amended``: a new revision. ``closed``: it
#: had no receipt. ``kept``: closed before there were receipts. ``absent``: it has no points. The others were refused.
Status = Literal["same", "repaired", "amended", "closed", "kept", "absent", "open", "expired", "other code"]
REFUSED: frozenset[Status] = frozenset({"open", "expired", "other code"})


@dataclass(slots=True)
class HourBackfilled:
    """What became of an hour; ``receipt`` is its newest one."""

    hour: str
    status: Status
    why: str = ""
    receipt: Receipt | None = None

    @property
    def refused(self) -> bool:
        """Whether it was not brought to what it should be."""
        return self.status in REFUSED

    def document(self) -> dict[str, Any]:
        """JSON-able."""
        numbers = (
            "revision",
            "reason",
            "rows",
            "late_rows",
            "anomalies",
            "decisions",
            "raised",
            "amended",
            "withdrawn",
        )
        receipt = {name: getattr(self.receipt, name) for name in numbers} if self.receipt is not None else None
        return {"hour": self.hour, "status": self.status, "why": self.why, "receipt": receipt}


@dataclass(slots=True)
class Backfilled:
    """What a backfill of hours did.

    ``owned_seconds``: how long the live session stood aside. ``resumed``: hours that an interrupted run of the same
    backfill had done. ``receipts``: those that came about meanwhile, of other hours too.
    """

    hours: list[HourBackfilled] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    resumed: int = 0
    owned_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def refused(self) -> list[HourBackfilled]:
        return [hour for hour in self.hours if hour.refused]

    def counts(self) -> dict[str, int]:
        """Hours by status."""
        statuses = [hour.status for hour in self.hours]
        return {status: statuses.count(status) for status in dict.fromkeys(statuses)}

    def document(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "hours": [hour.document() for hour in self.hours],
            "counts": self.counts(),
            "resumed": self.resumed,
            "owned_seconds": round(self.owned_seconds, 3),
            "seconds": round(self.seconds, 3),
        }


#: hears (what is done, how far, how much there is)
Progress = Callable[[str, int, int], None]


def _quiet(what: str, done: int, total: int) -> None:
    """Tells nobody."""


class _Journal(BaseModel):
    """What a backfill has done: hour → revision, for those that came out otherwise in ``changed`` too."""

    started_at: float
    code: str
    done: dict[str, int] = Field(default_factory=dict)
    changed: dict[str, int] = Field(default_factory=dict)


class _Notes:
    """The journal's file; written after every hour, removed at the end."""

    def __init__(self, folder: Path, hours: Sequence[str]) -> None:
        name = hashlib.blake2b("\n".join(hours).encode(), digest_size=8).hexdigest()
        self._path = folder / f"{name}.json"
        self.journal = self._read() or _Journal(started_at=time.time(), code=code_version())
        #: done by a run that was interrupted
        self.earlier = frozenset(self.journal.done)

    def _read(self) -> _Journal | None:
        try:
            found = _Journal.model_validate_json(self._path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        fresh = time.time() - found.started_at < REMEMBERED_SECONDS
        return found if fresh and found.code == code_version() else None

    def done(self, hour: str, revision: int, *, changed: bool) -> None:
        self.journal.done[hour] = revision
        if changed:
            self.journal.changed[hour] = revision
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        temporary.write_text(self.journal.model_dump_json(), "utf-8")
        temporary.replace(self._path)

    def finished(self) -> None:
        self._path.unlink(missing_ok=True)


# -- points -----------------------------------------------------------------------------------------------------------


def backfill_points(settings: Settings, hours: Sequence[str], *, progress: Progress = _quiet) -> RebuildReport:
    """Bring hours of ``metric_points`` to what the landing segments still there say.

    Hours whose segments were released are compared with nothing and stay as they are. The live plane is owned only when
    an hour differs; hours that were replaced are derived again by the next session or backfill.

    Raises:
        TimeoutError: the live session did not give way.
    """
    seen = rebuild_hours(settings, hours, dry_run=True, tell=progress)
    differing = [hour.hour for hour in seen.hours if hour.outcome == "replaced"]
    if not differing:
        return seen
    done = rebuild_hours(settings, differing, tell=progress)
    again = {hour.hour: hour for hour in done.hours}
    done.hours = [again.get(hour.hour, hour) for hour in seen.hours]
    done.seconds += seen.seconds
    return done


# -- hours ------------------------------------------------------------------------------------------------------------


def backfill_hours(
    settings: Settings,
    hours: Iterable[str],
    *,
    progress: Progress = _quiet,
    wait_seconds: float = WAIT_SECONDS,
) -> Backfilled:
    """Derive closed hours again from their pinned inputs, and put right what differs; close what is over.

    The same hours can be given again after a kill: what was done is not done twice.

    Args:
        hours: partition keys.
        wait_seconds: how long to wait for the live plane when it is needed.

    Raises:
        TimeoutError: the live session did not give way.
    """
    began = time.monotonic()
    wanted = sorted(set(hours))
    notes = _Notes(settings.paths.live / "backfill", wanted)
    result = Backfilled()
    plan = _Look(settings, notes, wanted, progress).look()
    if plan.repairs and any(seen.status == "expired" for seen in plan.seen.values()):
        # What some hours lack may be what others get back: baselines that they learnt.
        repairs = _Plan(plan.seen, repairs=plan.repairs)
        _Work(settings, notes, result, repairs, progress, wait_seconds).do()
        plan = _Look(settings, notes, wanted, progress).look()
        plan.seen |= {hour: repairs.seen[hour] for hour in repairs.repairs if plan.seen[hour].status == "same"}
    if plan.repairs or plan.chain or plan.closing:
        _Work(settings, notes, result, plan, progress, wait_seconds).do()
    final = newest(read_receipts(Lake(settings.paths.lake), wanted[0], wanted[-1])) if wanted else {}
    for hour in wanted:
        plan.seen[hour].receipt = final.get(hour)
    result.hours = [plan.seen[hour] for hour in wanted]
    result.resumed = sum(hour.why == _RESUMED for hour in result.hours)
    notes.finished()
    result.seconds = time.monotonic() - began
    return result


@dataclass(slots=True)
class _Plan:
    """What is to be done; ``seen`` has every hour, with the status that it has or will have."""

    seen: dict[str, HourBackfilled] = field(default_factory=dict)
    #: tables lack what the receipt says; nothing follows for other hours
    repairs: list[str] = field(default_factory=list)
    #: these come out otherwise, or follow on one that does
    chain: list[str] = field(default_factory=list)
    #: event time has passed these, and they have no receipt yet
    closing: list[str] = field(default_factory=list)


class _Look:
    """Deriving hours beside the live session, to see which of them need work."""

    def __init__(self, settings: Settings, notes: _Notes, hours: Sequence[str], progress: Progress) -> None:
        self._settings, self._notes, self._hours, self._progress = settings, notes, hours, progress
        self._lake = Lake(settings.paths.lake)
        self._points = {part.partition: part.rows for part in self._lake.partitions(TABLE)}
        closed = self._lake.partitions("hour_receipts")
        self._newest_closed = closed[-1].partition if closed else ""
        first = _hours_before(hours[0]) if hours else ""
        self._receipts = read_receipts(self._lake, first, hours[-1]) if hours else []
        self._newest = newest(self._receipts)
        folder = settings.paths.live / "handover"
        self._closed_before = read_beginning(folder) or ""
        directory = SeriesDirectory()
        directory.load(self._lake.read("series"))
        self._past = Past(self._lake, Shelf(folder), directory, read_judgements(self._lake), self._receipts)

    def look(self) -> _Plan:
        """What is to be done."""
        plan = _Plan()
        journal = self._notes.journal
        before = ""
        for number, hour in enumerate(self._hours):
            self._progress("look", number, len(self._hours))
            receipt = self._newest.get(hour)
            if not plan.chain and receipt is not None and journal.done.get(hour) == receipt.revision:
                status: Status = "amended" if hour in journal.changed else "same"
                plan.seen[hour] = HourBackfilled(hour, status, _RESUMED if hour in self._notes.earlier else "")
            else:
                follows = bool(plan.chain) or before in journal.changed
                seen = plan.seen[hour] = self._look_at(hour, receipt, follows)
                lists = {"repaired": plan.repairs, "amended": plan.chain, "closed": plan.closing}
                if seen.status in lists:
                    lists[seen.status].append(hour)
                elif seen.status == "same" and receipt is not None:
                    self._notes.done(hour, receipt.revision, changed=False)
            before = hour
        self._progress("look", len(self._hours), len(self._hours))
        return plan

    def _look_at(self, hour: str, receipt: Receipt | None, follows: bool) -> HourBackfilled:
        if receipt is None:
            return self._without_receipt(hour)
        rows = self._lake.read(TABLE, [hour], ["writer", "seq"] if follows else None)
        pinned = up_to(rows, receipt.positions)
        if pinned.height != receipt.rows:
            return HourBackfilled(
                hour,
                "expired",
                f"inputs expired: {receipt.rows} rows were its input, {pinned.height} of its ingest positions are "
                "stored; it stays as it is (metric_points can be backfilled while their landing segments are kept)",
            )
        if follows:
            return HourBackfilled(hour, "amended")
        if rows.height != pinned.height:
            return HourBackfilled(hour, "amended", f"{rows.height - pinned.height} rows came since")
        if input_hash(rows) != receipt.input_hash:
            return HourBackfilled(hour, "amended", "its rows are others than the receipt says")
        try:
            derived, state = self._derive(receipt, rows)
        except InputsExpired as error:
            return HourBackfilled(hour, "expired", f"inputs expired: {error}; it stays as it is")
        except ValueError as error:
            return HourBackfilled(
                hour, "other code", f"{error}; `aiops restate` judges it anew with what is known today"
            )
        return self._compare(hour, receipt, derived, state)

    def _without_receipt(self, hour: str) -> HourBackfilled:
        if hour > self._newest_closed:
            if not self._points.get(hour):
                return HourBackfilled(hour, "absent", "it has no points")
            reached = read_progress(self._settings.paths.live).watermark
            grace = int(self._settings.close_grace_seconds * MICROS_PER_SECOND)
            end = hour_start(hour) + MICROS_PER_HOUR + grace
            if reached < end:
                return HourBackfilled(hour, "open", _open_text(reached, end))
            return HourBackfilled(hour, "closed")
        if not self._points.get(hour):
            return HourBackfilled(hour, "absent", "it has no points")
        if hour <= self._closed_before:
            return HourBackfilled(hour, "kept", "it was closed before there were receipts")
        # An hour that the live stream passed by: rows of it came when later ones had closed.
        return HourBackfilled(hour, "amended", "it has points and no receipt")

    def _derive(self, receipt: Receipt, rows: pl.DataFrame) -> tuple[Derived, HandOver]:
        try:
            segments = pinned_judgements(self._past.judgements, receipt.config)
            lessons = pinned_lessons(self._lake, receipt.baselines)
        except LookupError as error:
            raise InputsExpired(str(error)) from error
        judge = self._past.judge(self._past.handed_over(receipt.state_in), segments[0][1])
        derived = derive(judge, receipt.start, rows, lessons, segments)
        state = judge.export()
        self._past.known[receipt.reference] = state
        self._past.forget([receipt.reference])
        return derived, state

    def _compare(self, hour: str, receipt: Receipt, derived: Derived, state: HandOver) -> HourBackfilled:
        came = (derived.anomalies_hash, derived.decisions_hash, state.digest())
        if came != (receipt.anomalies_hash, receipt.decisions_hash, receipt.state_out_hash):
            return HourBackfilled(hour, "amended", f"it comes out otherwise than with code {receipt.code_version}")
        anomalies = self._lake.read("anomalies", [hour])
        decisions = self._lake.read("alert_decisions", [hour])
        decisions = decisions.filter(pl.col("receipt_revision") == receipt.revision)
        baselines = self._lake.read("baselines", [hour])
        baselines = baselines.filter(pl.col("baseline_version") == receipt.baseline_version)
        stored = {
            "anomalies": anomalies_hash(anomalies) == receipt.anomalies_hash,
            "alert_decisions": decisions_hash(decisions) == receipt.decisions_hash,
            "baselines": baseline_hash(baselines) == receipt.baseline_hash or not receipt.rows,
        }
        wrong = [name for name, right in stored.items() if not right]
        if wrong:
            return HourBackfilled(hour, "repaired", f"{', '.join(wrong)} did not have what the receipt says")
        return HourBackfilled(hour, "same")


class _Work:
    """Putting hours right while owning the live plane, and serving it."""

    def __init__(
        self,
        settings: Settings,
        notes: _Notes,
        result: Backfilled,
        plan: _Plan,
        progress: Progress,
        wait_seconds: float,
    ) -> None:
        self._settings, self._notes, self._result, self._plan = settings, notes, result, plan
        self._seen = plan.seen
        self._progress, self._wait_seconds = progress, wait_seconds
        self._lease = live_lease(settings.paths.live)
        self._total = 0
        self._left = 0

    def do(self) -> None:
        """Repair hours one by one, amend the chain in order, close what is due."""
        # Each repair is a pass of its own: nothing follows from it.
        passes = [[hour] for hour in self._plan.repairs]
        left = list(self._plan.chain)
        closing = list(self._plan.closing)
        self._total = self._left = len(passes) + len(left)
        while passes or left or closing:
            with owned(self._settings, OWNER, wait_seconds=self._wait_seconds) as check_lease:
                began = time.monotonic()
                pipeline = Pipeline(self._settings, session=OWNER, check_lease=check_lease)
                self._note(pipeline.open())
                try:
                    if closing:
                        self._close(pipeline, closing)
                        closing = []
                    while passes or left:
                        if passes:
                            self._pass(pipeline, passes.pop(0), changes=False)
                        else:
                            self._pass(pipeline, left[:HOURS_AT_ONCE], changes=True)
                            left = left[HOURS_AT_ONCE:]
                        self._serve(pipeline)
                        # Only after some work: of two that ask each other, each gets on.
                        if self._lease.wanted() and time.monotonic() - began > _AT_LEAST_SECONDS:
                            break
                finally:
                    pipeline.close()
                    self._result.owned_seconds += time.monotonic() - began
            if passes or left:
                self._give_way()

    def _pass(self, pipeline: Pipeline, hours: Sequence[str], *, changes: bool) -> None:
        self._progress("derive", self._total - self._left, self._total)
        changed = self._notes.journal.changed
        before = max((hour for hour in self._seen if hour < hours[0]), default="")
        after = (before, changed[before]) if changes and before in changed else None
        report = pipeline.rederive(hours, BACKFILL, after=after)
        self._note(report)
        fresh = {receipt.hour: receipt for receipt in report.receipts}
        known = newest(read_receipts(pipeline.lake, hours[0], hours[-1]))
        for hour in hours:
            seen = self._seen[hour]
            problem = next((line for line in pipeline.progress.problems if line.startswith(f"hour {hour} ")), None)
            if hour in fresh:
                seen.status = "amended" if fresh[hour].revision > 1 else "closed"
            elif problem is not None or hour not in known:
                seen.status, seen.why = "expired", problem or "it could not be derived"
                continue
            elif changes:
                seen.status, seen.why = "same", ""
            self._notes.done(hour, known[hour].revision, changed=hour in fresh)
        self._left -= len(hours)
        self._progress("derive", self._total - self._left, self._total)

    def _close(self, pipeline: Pipeline, hours: Sequence[str]) -> None:
        """Let what is over close; sources that are behind get the batches that the clock of hours waits for."""
        for _ in range(_QUIET_BATCHES):
            closed = {part.partition for part in pipeline.lake.partitions("hour_receipts")}
            if closed.issuperset(hours):
                break
            self._note(pipeline.idle())
        closed = {part.partition for part in pipeline.lake.partitions("hour_receipts")}
        for hour in hours:
            if hour not in closed:
                end = hour_start(hour) + MICROS_PER_HOUR
                self._seen[hour].status = "open"
                self._seen[hour].why = _open_text(pipeline.progress.watermark, end)

    def _serve(self, pipeline: Pipeline) -> None:
        """Take what has arrived, as the session would that stands aside."""
        for _ in range(_STEPS_SERVED):
            if not pipeline.waiting():
                return
            self._note(pipeline.step())

    def _note(self, report: BatchReport | None) -> None:
        if report is not None:
            self._result.receipts += report.receipts

    def _give_way(self) -> None:
        """Wait until whoever asked has the lease, so that a waiting session is not passed over again and again."""
        until = time.monotonic() + _GIVE_WAY_SECONDS
        while self._lease.wanted() and self._lease.holder() is None and time.monotonic() < until:
            time.sleep(0.02)


def _open_text(reached: int, end: int) -> str:
    at = instant(reached).strftime("%Y-%m-%d %H:%M:%S") if reached else "nowhere"
    return f"the hour is still open: event time has come to {at}, it closes at {instant(end):%Y-%m-%d %H:%M:%S} UTC"


def _hours_before(hour: str) -> str:
    return hour_key(hour_start(hour) - _HOURS_BACK * MICROS_PER_HOUR)
