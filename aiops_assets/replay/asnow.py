"""``--as-now``: closed hours judged again with what is known today; nothing outside the replay's folder changes.

What belongs here: the run over the hours, its shadow tables and how it goes on after a kill. What does not: judging
(``detection``), comparing (``difference``) and the report.

The state handed over to the first hour is the recorded one; where there is none, detectors warm up on the hours before.
From there on every hour is judged with all rows known today, one configuration and the code of today; baselines are
computed anew where their rows are not those of the stored version. Rules that the configuration changes begin without a
past at the first hour.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from aiops_assets.config import Config
from aiops_assets.detection.baselines import close
from aiops_assets.detection.derive import INPUT_COLUMNS, baseline_hash, derive
from aiops_assets.detection.handover import Shelf, load, save
from aiops_assets.detection.judge import Judge, Lesson, lessons_due
from aiops_assets.detection.judgement import Judgement
from aiops_assets.detection.matching import matches
from aiops_assets.detection.receipts import Receipt, Reference, code_version, newest, read_judgements, read_receipts
from aiops_assets.detection.restoring import InputsExpired, Past
from aiops_assets.hours import MICROS_PER_HOUR, hour_start, instant
from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.replay.period import Period
from aiops_assets.replay.reading import Snapshot, ahead
from aiops_assets.tables import ALERT_DECISIONS, ANOMALIES, BASELINES
from aiops_assets.telemetry.series import SeriesDirectory

#: hours whose results are stored together; after them a killed replay goes on
CHUNK_HOURS = 24
#: stored hours that warm detectors up when there is no state
WARM_UP_HOURS = 24
_WRITER = "replay"
Progress = Callable[[int, int], None]


class Request(BaseModel):
    """What is asked for; two replays of one request are the same replay."""

    model_config = ConfigDict(frozen=True)

    first: str
    last: str
    sets: tuple[str, ...] = ()
    masks: tuple[tuple[int, int], ...] = ()
    host: str = "*"
    #: digest of the whole configuration, and of the code that derives
    config: str
    code: str

    @classmethod
    def of(
        cls, period: Period, config: Config, sets: Sequence[str] = (), masks: Sequence[Period] = (), host: str = "*"
    ) -> Request:
        """A request about whole hours; ``config`` has the ``sets`` in it already."""
        first, last = period.hours
        return cls(
            first=first,
            last=last,
            sets=tuple(sets),
            masks=tuple(sorted((mask.start, mask.end) for mask in masks)),
            host=host,
            config=config.digest,
            code=code_version(),
        )

    @property
    def replay_id(self) -> str:
        """Names the folder: first hour, last hour and a digest of everything."""
        return f"{self.first}_{self.last}_{hashlib.blake2b(self.model_dump_json().encode(), digest_size=4).hexdigest()}"

    @property
    def period(self) -> Period:
        """The hours as instants."""
        return Period(hour_start(self.first), hour_start(self.last) + MICROS_PER_HOUR)


class Journal(BaseModel):
    """How far a replay has come; rewritten whole after every chunk."""

    request: Request
    started_at: float
    hours: list[str]
    #: hours of the range that were left out: still open, without rows after masking
    open_hours: list[str]
    done: int = 0
    chunks: int = 0
    points: int = 0
    seconds: float = 0.0
    finished_at: float | None = None
    #: baseline versions of the last hours done, and which of them stand in the shadow table
    versions: dict[str, int] = {}
    recomputed: list[str] = []
    #: how it began: handed over, warmed up, or from nothing
    began: str = ""

    @property
    def finished(self) -> bool:
        return self.finished_at is not None


class Busy(Exception):
    """Another process runs the same replay."""


@dataclass(slots=True)
class Shadow:
    """A replay on disk: its folder and its journal."""

    folder: Path
    journal: Journal

    @property
    def lake(self) -> Lake:
        """The shadow tables."""
        return Lake(self.folder)

    def alerts_at_start(self) -> pl.DataFrame:
        """The alerts that were open when the range began, rows of ``tables.ALERTS``."""
        return pl.read_parquet(self.folder / "open_at_start.parquet")


def replays(folder: Path) -> list[Shadow]:
    """The replays on disk, the newest first."""
    found = []
    for path in sorted(folder.glob("*/journal.json")):
        with contextlib.suppress(ValidationError):
            found.append(Shadow(path.parent, Journal.model_validate_json(path.read_bytes())))
    return sorted(found, key=lambda shadow: shadow.journal.started_at, reverse=True)


def running(shadow: Shadow) -> bool:
    """Whether a process works on it now."""
    try:
        with _locked(shadow.folder):
            return False
    except Busy:
        return True


def replay(
    lake: Lake,
    shelf: Shelf,
    folder: Path,
    request: Request,
    config: Config,
    *,
    fresh: bool = False,
    progress: Progress = lambda done, total: None,
) -> Shadow:
    """Run a replay, or go on with an unfinished one of the same request.

    Args:
        folder: of all replays (``home.replays``).
        config: what the request's digest is of.
        fresh: begin anew in any case.
        progress: called with hours done and to do.

    Raises:
        Busy: another process is at it.
        LookupError: there is nothing to replay in the range.
    """
    place = folder / request.replay_id
    place.mkdir(parents=True, exist_ok=True)
    with _locked(place):
        journal = _read_journal(place)
        if journal is None or journal.finished or fresh:
            _clear(place)
            journal = None
        return _Run(lake, shelf, place, request, config, journal).go(progress)


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[None]:
    descriptor = os.open(place / "lock", os.O_RDWR | os.O_CREAT, 0o640)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(f"replay {place.name} is being run by another process") from error
        yield
    finally:
        os.close(descriptor)


def _read_journal(place: Path) -> Journal | None:
    try:
        return Journal.model_validate_json((place / "journal.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _write_journal(place: Path, journal: Journal) -> None:
    temporary = place / f".journal.{os.getpid()}"
    with temporary.open("wb") as file:
        file.write(journal.model_dump_json().encode())
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(place / "journal.json")


def _clear(place: Path) -> None:
    for entry in place.iterdir():
        if entry.name == "lock":
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


@dataclass(slots=True)
class _Fetched:
    """An hour as it was read: rows after masking, and its baselines with whether they have to be stored."""

    rows: pl.DataFrame
    stored: int
    version: int
    quantiles: pl.DataFrame
    recomputed: pl.DataFrame | None
    reported: np.ndarray[Any, np.dtype[np.int64]] | None = None


@dataclass(slots=True)
class _Chunk:
    anomalies: list[pl.DataFrame] = field(default_factory=list)
    decisions: list[pl.DataFrame] = field(default_factory=list)
    baselines: list[pl.DataFrame] = field(default_factory=list)


class _Run:
    """One run of a replay, from its start or from where it was cut."""

    def __init__(
        self, lake: Lake, shelf: Shelf, place: Path, request: Request, config: Config, journal: Journal | None
    ) -> None:
        self._lake, self._shelf, self._place = lake, shelf, place
        self._request, self._judgement = request, Judgement.of(config)
        self._masks = [Period(*mask) for mask in request.masks]
        self._tables = Snapshot(lake)
        self._stored = self._tables.partitions("metric_points")
        self._tables.partitions("baselines")
        self._receipts = newest(read_receipts(lake))
        self._directory = SeriesDirectory()
        self._directory.load(lake.read("series"))
        self._stored_versions = self._baseline_versions()
        #: quantiles of hours that are not learnt yet
        self._quantiles: dict[str, pl.DataFrame] = {}
        self._journal = journal or self._plan()
        self._chosen: pl.Series | None = None
        if request.host != "*":
            series = self._directory.frame
            chosen = [matches((request.host,), host) for host in series["host"]]
            self._chosen = series["series_id"].filter(pl.Series(chosen))

    def _baseline_versions(self) -> dict[str, int]:
        stored = self._lake.scan("baselines", columns=["hour", "baseline_version"])
        return dict(stored.group_by("hour").agg(pl.col("baseline_version").max()).collect().iter_rows())

    def _plan(self) -> Journal:
        request = self._request
        keys = sorted({*self._stored, *self._receipts})
        inside = [key for key in keys if request.first <= key <= request.last]
        newest_closed = max(self._receipts, default="") or "".join(keys[-2:-1])
        closed = [key for key in inside if key <= newest_closed and not self._masked_whole(key)]
        if not closed:
            raise LookupError(
                f"no closed hour from {request.first} to {request.last}; "
                + (f"the lake has hours from {keys[0]} to {keys[-1]}" if keys else "the lake has no points yet")
            )
        return Journal(
            request=request,
            started_at=time.time(),
            hours=closed,
            open_hours=[key for key in inside if key > newest_closed],
        )

    def _masked_whole(self, key: str) -> bool:
        start = hour_start(key)
        return any(mask.start <= start and start + MICROS_PER_HOUR <= mask.end for mask in self._masks)

    def go(self, progress: Progress) -> Shadow:
        """Run what is left."""
        journal = self._journal
        judge = self._resumed() if journal.chunks else self._begin()
        _write_journal(self._place, journal)
        shadow = Lake(self._place)
        tables = [TableWriter(shadow, table) for table in (ANOMALIES, ALERT_DECISIONS, BASELINES)]
        left = journal.hours[journal.done :]
        chunk = _Chunk()
        began = time.monotonic()
        for number, (key, fetched) in enumerate(ahead(left, self._fetch), journal.done + 1):
            self._judge_hour(judge, key, fetched, chunk)
            progress(number, len(journal.hours))
            if number % CHUNK_HOURS == 0 or number == len(journal.hours):
                now = time.monotonic()
                journal.seconds, began = journal.seconds + now - began, now
                self._store(tables, chunk, number, judge)
                chunk = _Chunk()
        return Shadow(self._place, journal)

    # -- the beginning ------------------------------------------------------------------------------------------------

    def _begin(self) -> Judge:
        judge, self._journal.began = self._handed_over()
        judge.book.open_rows().write_parquet(self._place / "open_at_start.parquet")
        return judge

    def _handed_over(self) -> tuple[Judge, str]:
        first = self._journal.hours[0]
        references = references_before(self._receipts, read_receipts(self._lake), first)
        if references:
            judgements = read_judgements(self._lake)
            past = Past(self._lake, self._shelf, self._directory, judgements, read_receipts(self._lake))
            try:
                judge = past.judge(past.handed_over(references), self._judgement)
            except (InputsExpired, ValueError) as error:
                why = f"the state after {references[0][0]} cannot be had: {error}"
            else:
                named = ", ".join(f"{hour} revision {revision}" for hour, revision in references)
                return judge, f"from the state handed over by {named}"
        else:
            why = f"there is no receipt before {first}"
        judge = Judge(self._judgement, self._directory)
        before = [key for key in self._stored if key < first][-WARM_UP_HOURS:]
        for key in before:
            known = {hour: version for hour, version in self._stored_versions.items() if hour < key}
            lessons = [self._lesson(*due) for due in lessons_due(key, judge.learnt, known)]
            derive(judge, hour_start(key), self._tables.read("metric_points", key, INPUT_COLUMNS), lessons, [])
        return judge, f"{why}; detectors warmed up on {len(before)} hours" if before else f"from nothing: {why}"

    def _resumed(self) -> Judge:
        state = load(self._state_path(self._journal.chunks))
        judge = Judge(self._judgement, self._directory)
        judge.adopt(state)
        return judge

    # -- one hour -----------------------------------------------------------------------------------------------------

    def _fetch(self, key: str) -> _Fetched:
        """Read an hour; runs beside the judging of the hour before."""
        rows = self._tables.read("metric_points", key, INPUT_COLUMNS)
        stored = rows.height
        for mask in self._masks:
            if mask.overlaps(hour_start(key), hour_start(key) + MICROS_PER_HOUR):
                at = pl.col("ts").dt.epoch("us")
                rows = rows.filter((at < mask.start) | (at >= mask.end))
        masked = rows.height < stored
        receipt = self._receipts.get(key)
        version = receipt.baseline_version if receipt is not None else 0
        recomputed: pl.DataFrame | None = None
        if receipt is not None and version and receipt.rows == stored and not masked:
            quantiles = self._tables.read("baselines", key, ["series_id", "baseline_version", "quantiles"])
            quantiles = quantiles.filter(pl.col("baseline_version") == version).select("series_id", "quantiles")
        else:
            version, recomputed = self._close(key, rows)
            quantiles = recomputed.select("series_id", "quantiles")
            if version == self._stored_versions.get(key):
                recomputed = None
        reported = None
        if self._chosen is not None:
            heard = pl.min_horizontal("ts", "received_at").dt.epoch("us")
            reported = rows.select(heard).to_series().to_numpy()
            rows = rows.filter(pl.col("series_id").is_in(self._chosen.implode()))
        return _Fetched(rows, stored, version, quantiles, recomputed, reported)

    def _close(self, key: str, rows: pl.DataFrame) -> tuple[int, pl.DataFrame]:
        """Baselines of rows: as the newest stored version when that says the same, else as one more."""
        newest_stored = self._stored_versions.get(key, 0)
        named = close(rows).with_columns(
            pl.lit(instant(hour_start(key))).alias("hour_start"),
            pl.lit(key).alias("hour"),
            pl.lit(newest_stored).alias("baseline_version"),
        )
        frame = named.select(pl.col(name).cast(dtype) for name, dtype in BASELINES.schema.items())
        stored = self._tables.read("baselines", key).filter(pl.col("baseline_version") == newest_stored)
        stored = stored.select(list(BASELINES.schema)).sort("series_id")
        if stored.height == frame.height and baseline_hash(stored) == baseline_hash(frame):
            return newest_stored, frame
        version = newest_stored + 1
        return version, frame.with_columns(pl.lit(version, pl.Int32).alias("baseline_version"))

    def _judge_hour(self, judge: Judge, key: str, fetched: _Fetched, chunk: _Chunk) -> None:
        journal = self._journal
        first = journal.hours[0]
        known = {hour: version for hour, version in self._stored_versions.items() if hour < first} | journal.versions
        lessons = [self._lesson(*due) for due in lessons_due(key, judge.learnt, known)]
        if fetched.reported is not None:
            judge.rules.reported(fetched.reported)
        derived = derive(judge, hour_start(key), fetched.rows, lessons, [(None, self._judgement)])
        journal.points += fetched.rows.height
        journal.versions[key] = fetched.version
        self._quantiles[key] = fetched.quantiles
        if fetched.recomputed is not None:
            journal.recomputed.append(key)
            chunk.baselines.append(fetched.recomputed)
        for hour in [hour for hour in self._quantiles if judge.learnt.get(hour) == journal.versions.get(hour)]:
            del self._quantiles[hour]
        if not derived.anomalies.is_empty():
            chunk.anomalies.append(derived.anomalies)
        if not derived.decisions.is_empty():
            revision = pl.lit(0, pl.Int32).alias("receipt_revision")
            chunk.decisions.append(derived.decisions.with_columns(revision).select(list(ALERT_DECISIONS.schema)))

    def _lesson(self, hour: str, before: int | None, version: int) -> Lesson:
        replaced = self._version(hour, before) if before is not None else None
        return Lesson(hour, version, self._version(hour, version), before, replaced)

    def _version(self, hour: str, version: int) -> pl.DataFrame:
        if self._journal.versions.get(hour) == version and hour in self._quantiles:
            return self._quantiles[hour]
        columns = ["series_id", "baseline_version", "quantiles"]
        if hour in self._journal.recomputed and self._journal.versions.get(hour) == version:
            stored = Lake(self._place).read("baselines", [hour], columns)
        else:
            stored = self._tables.read("baselines", hour, columns)
        return stored.filter(pl.col("baseline_version") == version).select("series_id", "quantiles")

    # -- storing ------------------------------------------------------------------------------------------------------

    def _store(self, tables: Sequence[TableWriter], chunk: _Chunk, done: int, judge: Judge) -> None:
        """Tables, then the state, then the journal: a chunk that was stored is not stored again."""
        journal = self._journal
        number = journal.chunks + 1
        for table, frames in zip(tables, (chunk.anomalies, chunk.decisions, chunk.baselines), strict=True):
            if table.taken(_WRITER) < number:
                table.append(pl.concat(frames) if frames else table.table.empty(), {_WRITER: number})
        if done < len(journal.hours):
            save(self._state_path(number), judge.export())
        oldest = hour_start(journal.hours[done - 1]) - 8 * 24 * MICROS_PER_HOUR
        journal.versions = {key: version for key, version in journal.versions.items() if hour_start(key) >= oldest}
        journal.done, journal.chunks = done, number
        _write_journal(self._place, journal)
        self._state_path(number - 1).unlink(missing_ok=True)

    def _state_path(self, number: int) -> Path:
        return self._place / f"state-{number}.npz.zst"


def finish(shadow: Shadow) -> None:
    """The report is written: nothing is left to go on with."""
    shadow.journal.finished_at = time.time()
    _write_journal(shadow.folder, shadow.journal)
    (shadow.folder / f"state-{shadow.journal.chunks}.npz.zst").unlink(missing_ok=True)


def references_before(
    newest_receipts: Mapping[str, Receipt], receipts: Sequence[Receipt], first: str
) -> list[Reference]:
    """What is handed over to an hour today: the newest hour before it, and amended hours that it has not taken up."""
    earlier = [hour for hour in newest_receipts if hour < first]
    if not earlier:
        return []
    last = newest_receipts[max(earlier)]
    since = [receipt for receipt in receipts if receipt.hour < first and receipt.derived_at > last.derived_at]
    taken_up = {reference for receipt in since for reference in receipt.state_in}
    rest = sorted((r for r in since if r.reference not in taken_up), key=lambda receipt: receipt.derived_at)
    return [last.reference, *(receipt.reference for receipt in rest)]
