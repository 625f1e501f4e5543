"""Hours of ``metric_points`` from landing segments, row for row as the live session stored them.

What belongs here: taking segments (packed ones included) again in the order in which they were taken, under the same
rules, and putting hours that differ in their place. What does not: finding out which hours are damaged
(``lake.verification``).

The order is that of the commits while the Delta log still has them, and of the segments' sealing before that; it
matters only where two writers sent the same point. What was refused at the time is left out by its quarantine entries.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
import polars as pl

from aiops_assets.config import load_config
from aiops_assets.detection.receipts import BACKFILL
from aiops_assets.formats import parse
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND, hour_expr, hour_key, hour_start
from aiops_assets.lake.actions import actions_of
from aiops_assets.lake.digest import digest
from aiops_assets.lake.files import TableFiles
from aiops_assets.lake.log import mend, taking_order
from aiops_assets.lake.tables import Lake, TableWriter, quote
from aiops_assets.landing.quarantine import Quarantine
from aiops_assets.landing.reader import first_seq, look, read_segment, writers
from aiops_assets.landing.segment import Delivery
from aiops_assets.live.intake import Bounds, Intake, readings_of, take_in
from aiops_assets.live.ownership import owned
from aiops_assets.live.rederive import ask_for
from aiops_assets.live.rows import hours_of, positions_of
from aiops_assets.settings import Settings
from aiops_assets.tables import METRIC_POINTS, SERIES, TABLES, TIMESTAMP
from aiops_assets.telemetry.series import SeriesDirectory, series_ids, stored_rows

log = logging.getLogger(__name__)

#: hears (what is done, how far, how much there is)
Tell = Callable[[str, int, int], None]
Outcome = Literal["same", "replaced", "refused", "absent"]
_SCHEMA = METRIC_POINTS.schema
_KEY = ("series_id", "ts")


@dataclass(frozen=True, slots=True)
class HourRebuilt:
    """One hour. ``rows_before`` were readable, ``rows_promised`` is what the log said, ``rows`` are there now.

    ``receipt`` says whether the rows are those that the hour's newest receipt was derived from; ``None`` without one.
    """

    hour: str
    outcome: Outcome
    rows_before: int
    rows_promised: int
    rows: int
    receipt: bool | None = None
    why: str = ""


@dataclass(slots=True)
class RebuildReport:
    """What a rebuild did. ``mended``: torn commits of Delta logs; ``rederived``: hours that get a new receipt."""

    hours: list[HourRebuilt] = field(default_factory=list)
    segments: int = 0
    points: int = 0
    new_series: int = 0
    mended: list[str] = field(default_factory=list)
    rederived: list[str] = field(default_factory=list)
    seconds: float = 0.0
    dry_run: bool = False

    @property
    def refused(self) -> list[HourRebuilt]:
        return [hour for hour in self.hours if hour.outcome == "refused"]

    def document(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def rebuild_hours(
    settings: Settings,
    hours: Sequence[str] | None,
    *,
    tell: Tell = lambda what, done, total: None,
    accept_loss: bool = False,
    dry_run: bool = False,
    check_lease: Callable[[], None] | None = None,
) -> RebuildReport:
    """Bring hours of ``metric_points`` to what the landing zone says; hours that are right already are left alone.

    Args:
        hours: partition keys; ``None`` for every hour that any segment still there has points of.
        accept_loss: replace an hour even when fewer rows come out than the log promises (their segments were released).
        check_lease: given by a caller that owns the live plane; without it, it is owned for the time of the work.

    Raises:
        TimeoutError: the live session did not give way.
    """
    if check_lease is None and not dry_run:
        with owned(settings, "aiops lake rebuild") as check:
            return rebuild_hours(settings, hours, tell=tell, accept_loss=accept_loss, check_lease=check)
    started = time.monotonic()
    report = RebuildReport(dry_run=dry_run)
    if not dry_run:
        _mend(settings, report)
    lake = Lake(settings.paths.lake)
    settings.paths.care.mkdir(parents=True, exist_ok=True)
    spool = Path(tempfile.mkdtemp(prefix="rebuild-", dir=settings.paths.care))
    try:
        work = _Work(settings, lake, spool, None if hours is None else sorted(set(hours)), tell)
        work.read(report)
        wanted = work.hours if hours is None else sorted(set(hours))
        for number, hour in enumerate(wanted):
            tell("hours", number, len(wanted))
            report.hours.append(work.settle(hour, accept_loss, dry_run, check_lease or (lambda: None), report))
        tell("hours", len(wanted), len(wanted))
        if not dry_run:
            # Their rows are others than those that the receipt was derived from: the next session amends them.
            report.rederived = [hour.hour for hour in report.hours if hour.outcome == "replaced" and not hour.receipt]
            ask_for(settings.paths.live, report.rederived, BACKFILL)
    finally:
        shutil.rmtree(spool)
    report.seconds = time.monotonic() - started
    return report


def _mend(settings: Settings, report: RebuildReport) -> None:
    """Make the tables open again; the session takes the segments of commits that were lost at their ends once more."""
    lake, home = Lake(settings.paths.lake), settings.paths
    aside = home.care / "set-aside" / time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    for name in TABLES:
        problems = mend(TableFiles(lake, name), aside / name)
        report.mended += [f"{name} {problem.file}: {problem.what}" for problem in problems]


class _Work:
    """One pass over the segments, with the points of the wanted hours on disk, and then one hour after the other."""

    def __init__(self, settings: Settings, lake: Lake, spool: Path, wanted: list[str] | None, tell: Tell) -> None:
        self._settings, self._lake, self._spool, self._tell = settings, lake, spool, tell
        self._landing = settings.paths.landing
        self._wanted = None if wanted is None else np.array([hour_start(key) // MICROS_PER_HOUR for key in wanted])
        self._writers = writers(self._landing)
        self._taken = lake.taken("metric_points", self._writers)
        self._first = {writer: first_seq(self._landing / writer) for writer in self._writers}
        self._readings = readings_of(load_config(settings.paths.config))
        self._directory = SeriesDirectory()
        stored = lake.read("series")
        self._directory.load(stored)
        self._known = set(stored["series_id"].to_list())
        self._fresh: list[tuple[pl.DataFrame, np.ndarray[Any, Any]]] = []
        self._parts = 0
        self._refused_points: pl.DataFrame | None = None
        self.hours: list[str] = []

    # -- reading ------------------------------------------------------------------------------------------------------

    def read(self, report: RebuildReport) -> None:
        """Parse every segment that may have points of the wanted hours."""
        limits = self._settings
        bounds = Bounds(limits.max_future_seconds, limits.max_past_days * 86_400, limits.late_hours * 3600)
        segments = self._segments()
        seen: set[int] = set()
        batch: list[Delivery] = []
        size = 0
        for number, (writer, seq, length) in enumerate(segments):
            segment = read_segment(self._landing / writer, seq)
            batch += segment.deliveries
            size += length
            if size >= self._settings.session_batch_bytes or number + 1 == len(segments):
                report.points += self._spool_points(batch, bounds, seen)
                batch, size = [], 0
                self._tell("segments", number + 1, len(segments))
        report.segments = len(segments)
        self.hours = sorted(hour_key(hour * MICROS_PER_HOUR) for hour in seen)

    def _segments(self) -> list[tuple[str, int, int]]:
        """(writer, seq, bytes) in the order in which they were taken."""
        versions = taking_order(TableFiles(self._lake, METRIC_POINTS.name))
        earliest = -float("inf")
        if self._wanted is not None and len(self._wanted):
            start = int(self._wanted.min()) * MICROS_PER_HOUR / MICROS_PER_SECOND
            earliest = start - self._settings.max_future_seconds
        found: list[tuple[tuple[int, float, str, int], int]] = []
        for writer in self._writers:
            known = versions.get(writer, [])
            upto = [seq for seq, _ in known]
            for seq in range(self._first[writer], self._taken[writer] + 1):
                seen = look(self._landing / writer, seq)
                if seen is None or (0 < seen[1] < earliest):
                    continue
                # Segments up to the first commit that is still in the log may have come in earlier ones.
                at = bisect_left(upto, seq)
                recorded = 0 < at < len(upto)
                key = (1, float(known[at][1]), writer, seq) if recorded else (0, seen[1], writer, seq)
                found.append((key, seen[0]))
        return [(writer, seq, size) for (_, _, writer, seq), size in sorted(found)]

    def _spool_points(self, deliveries: list[Delivery], bounds: Bounds, seen: set[int]) -> int:
        if not deliveries:
            return 0
        intake = take_in(deliveries, self._directory, bounds, lambda source: None, self._readings)
        if not intake.new_series.is_empty():
            self._fresh.append((intake.new_series, intake.first_seen))
        hour = intake.ts // MICROS_PER_HOUR
        rows = np.arange(len(hour)) if self._wanted is None else np.flatnonzero(np.isin(hour, self._wanted))
        if not len(rows):
            return 0
        frame = self._rows(deliveries, intake, rows)
        for (key,), part in frame.group_by("hour", maintain_order=True):
            folder = self._spool / str(key)
            folder.mkdir(exist_ok=True)
            part.write_parquet(folder / f"{self._parts:08d}.parquet", compression="lz4")
        self._parts += 1
        seen.update(int(number) for number in np.unique(hour[rows]))
        return len(rows)

    def _rows(self, deliveries: list[Delivery], intake: Intake, rows: np.ndarray[Any, Any]) -> pl.DataFrame:
        number = pl.Series(intake.number[rows])
        position = positions_of(deliveries)[pl.Series(intake.delivery[rows])]
        named = self._directory.frame[number].select("series_id", "host", "metric", "unit")
        return (
            pl.DataFrame(
                [
                    pl.Series("ts", intake.ts[rows]).cast(TIMESTAMP),
                    pl.Series("value", intake.value[rows]),
                ]
            )
            .hstack(named)
            .hstack(position)
            .with_columns(hours_of(intake.ts[rows]))
            .select(pl.col(name).cast(dtype) for name, dtype in _SCHEMA.items())
        )

    # -- settling -----------------------------------------------------------------------------------------------------

    def settle(
        self, hour: str, accept_loss: bool, dry_run: bool, check_lease: Callable[[], None], report: RebuildReport
    ) -> HourRebuilt:
        """Compare one hour with the lake and replace it where they differ."""
        present, promised, unreadable = self._present(hour)
        rows = self._derive(hour, present)
        faithful = not unreadable and present.height == promised
        if faithful and digest(present, [*_KEY, "writer", "seq"]) == digest(rows, [*_KEY, "writer", "seq"]):
            outcome: Outcome = "same" if promised else "absent"
            return HourRebuilt(hour, outcome, present.height, promised, rows.height, self._receipt(hour, rows))
        lost = promised - rows.height
        why = f"{unreadable} of its files cannot be read" if unreadable else ""
        distinct = present.select(_KEY).n_unique() if present.height else 0
        # Rows that repeat a key are not lost when one of them stays.
        if (lost > 0 and (unreadable or distinct > rows.height)) and not accept_loss:
            gone = "lay in segments that were released" if unreadable else "are in the table and in no segment"
            why = (f"{why}; " if why else "") + f"{lost:,} rows {gone}"
            return HourRebuilt(hour, "refused", present.height, promised, rows.height, None, why)
        if not dry_run:
            check_lease()
            self._store_series(rows, report)
            writer = TableWriter(self._lake, METRIC_POINTS)
            if rows.is_empty():
                writer.delete(f"hour = {quote(hour)}")
            else:
                writer.replace(rows, hour)
        return HourRebuilt(
            hour, "replaced", present.height, promised, rows.height, self._receipt(hour, rows), why or "rows differed"
        )

    def _present(self, hour: str) -> tuple[pl.DataFrame, int, int]:
        """(rows of the hour that can be read, rows that the log promises, files that cannot be read)."""
        handle = self._lake.open(METRIC_POINTS.name)
        if handle is None:
            return METRIC_POINTS.empty(), 0, 0
        actions = actions_of(handle, METRIC_POINTS).filter(pl.col("partition") == hour)
        frames = [METRIC_POINTS.empty()]
        unreadable = 0
        for path, size, records in actions.select("path", "size_bytes", "num_records").iter_rows():
            uri = f"{self._lake.uri(METRIC_POINTS.name)}/{path}"
            try:
                if "://" not in uri and Path(uri).stat().st_size != size:
                    raise OSError("not of the size that the log says")
                part = pl.read_parquet(uri, hive_partitioning=False, storage_options=self._lake.storage_options or None)
                if part.height != records:
                    raise OSError("not as many rows as the log says")
            except (OSError, pl.exceptions.PolarsError) as error:
                log.warning("%s: %s", uri, str(error).partition("\n")[0])
                unreadable += 1
                continue
            frames.append(
                part.with_columns(pl.lit(hour).alias("hour")).select(pl.col(n).cast(t) for n, t in _SCHEMA.items())
            )
        whole = pl.concat(frames)
        # Without the lease the session goes on: what it stored since this work began is not compared.
        taken = pl.col("writer").replace_strict(self._taken or {"": 0}, default=1 << 62, return_dtype=pl.Int64)
        rows = whole.filter(pl.col("seq") <= taken)
        return rows, int(actions["num_records"].sum() or 0) - (whole.height - rows.height), unreadable

    def _derive(self, hour: str, present: pl.DataFrame) -> pl.DataFrame:
        """The rows that the hour should have: what came before the segments still there, then what these say."""
        first = pl.col("writer").replace_strict(self._first or {"": 0}, default=1 << 62, return_dtype=pl.Int64)
        kept = present.filter((pl.col("seq") < first) & (hour_expr() == hour))
        parts = sorted((self._spool / hour).glob("*.parquet")) if (self._spool / hour).is_dir() else []
        read = [pl.read_parquet(part) for part in parts]
        rows = pl.concat([METRIC_POINTS.empty(), *read])
        refused = self._refused()
        if not refused.is_empty() and not rows.is_empty():
            rows = rows.join(refused, on=list(refused.columns), how="anti", maintain_order="left", nulls_equal=True)
        return pl.concat([kept, rows]).unique(_KEY, keep="first", maintain_order=True)

    def _refused(self) -> pl.DataFrame:
        """Points that were put into quarantine instead of into the table: writer, seq, series_id, ts, value."""
        if self._refused_points is None:
            entries = _refused_deliveries(Quarantine(self._settings.paths.quarantine), self._writers)
            self._refused_points = refused_points(list(entries))
        return self._refused_points

    def _store_series(self, rows: pl.DataFrame, report: RebuildReport) -> None:
        """Series that only the segments know any more come back with the rows of theirs."""
        needed = set(rows["series_id"].unique().to_list()) - self._known
        if not needed:
            return
        chosen = [
            stored_rows(frame, first).filter(pl.col("series_id").is_in(list(needed))) for frame, first in self._fresh
        ]
        frame = pl.concat(chosen)
        TableWriter(self._lake, SERIES).append(frame, {})
        self._known |= needed
        report.new_series += frame.height

    def _receipt(self, hour: str, rows: pl.DataFrame) -> bool | None:
        receipts = self._lake.read("hour_receipts", [hour], ["table", "revision", "positions", "input_hash"])
        receipts = receipts.filter(pl.col("table") == METRIC_POINTS.name).sort("revision")
        if receipts.is_empty():
            return None
        positions: Mapping[str, int] = orjson.loads(receipts["positions"][-1])
        reached = pl.col("writer").replace_strict(dict(positions) or {"": 0}, default=-1, return_dtype=pl.Int64)
        counted = rows.filter(pl.col("seq") <= reached).select(pl.exclude("hour"))
        return bool(digest(counted, _KEY) == receipts["input_hash"][-1])


def _refused_deliveries(quarantine: Quarantine, known: Sequence[str]) -> Iterator[Delivery]:
    """Quarantined points as deliveries in the ``collected`` format, as ``live.intake`` writes them."""
    for entry in quarantine.entries(retried=True):
        if entry.format == "collected" and entry.writer in known and entry.content.startswith(b"["):
            yield Delivery(
                entry.delivery_id, entry.received_at, entry.source, entry.content_type, entry.content,
                {"format": "collected"}, entry.writer, entry.seq, entry.index,
            )  # fmt: skip


def refused_points(deliveries: list[Delivery]) -> pl.DataFrame:
    """The points of quarantined deliveries in the ``collected`` format: writer, seq, series_id, ts, value."""
    schema: dict[str, pl.DataType] = {name: _SCHEMA[name] for name in ("writer", "seq", "series_id", "ts", "value")}
    if not deliveries:
        return pl.DataFrame(schema=schema)
    parsed = parse("collected", deliveries)
    if parsed.points.is_empty():
        return pl.DataFrame(schema=schema)
    ids = pl.Series("series_id", series_ids(parsed.series), pl.Int64)
    position = positions_of(deliveries)[parsed.points["delivery"]]
    return pl.DataFrame(
        {
            "writer": position["writer"],
            "seq": position["seq"],
            "series_id": ids.gather(parsed.points["series"]),
            "ts": parsed.points["ts"],
            "value": parsed.points["value"],
        }
    ).select(pl.col(name).cast(dtype) for name, dtype in schema.items())
