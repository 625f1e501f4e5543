"""Storage, opening after a month of commits, packing, verification, rebuild, backup, each beside a bare reference."""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from deltalake import DeltaTable, WriterProperties, write_deltalake

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from aiops_assets.backup.capture import back_up
from aiops_assets.hours import MICROS_PER_HOUR
from aiops_assets.lake import tables
from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.lake.verification import verify
from aiops_assets.landing.packing import pack
from aiops_assets.landing.segment import Delivery
from aiops_assets.landing.writer import SegmentWriter
from aiops_assets.live.rebuild import rebuild_hours
from aiops_assets.settings import Settings
from aiops_assets.tables import METRIC_POINTS
from tests.home import home
from tests.steady import MINUTE, START, steady_hour

HOURS_OF_A_MONTH = 720
#: commits in the ten minutes that the log keeps
LOG_COMMITS = 600


def run(quick: bool = False) -> list[dict[str, Any]]:
    """All rows; ``quick`` uses small sizes."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows += storage(root / "storage", 100 if quick else 1000)
        rows += month(root / "month", quick)
        rows += packing(root / "packing", 400 if quick else 20_000)
        rows += care(root / "care", 20 if quick else 200)
    return rows


def row(
    name: str, value: float, unit: str, reference: str, reference_value: float, bar: float | None
) -> dict[str, Any]:
    """One line of the result; a bar is the most that is allowed."""
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "reference": reference,
        "reference_value": reference_value,
        "ratio": value / reference_value if reference_value else None,
        "bar": bar,
        "ok": None if bar is None else value <= bar,
    }


def storage(root: Path, hosts: int) -> list[dict[str, Any]]:
    """Bytes a point of a closed hour, beside what the writer's defaults make of the same sorted rows."""
    rows = []
    for name, jitter, noise in (
        ("steady metrics, polls that jitter", 0.003, False),
        ("steady metrics, polls on the minute", 0.0, False),
        ("values of pure noise", 0.003, True),
    ):
        frame = steady_hour(hosts, jitter_seconds=jitter, noise=noise)
        lake = Lake(root / name.replace(" ", "-"))
        writer = TableWriter(lake, METRIC_POINTS)
        writer.append(frame, {"gateway": 1})
        started = time.perf_counter()
        writer.replace(frame, "2026-01-01T00")
        seconds = time.perf_counter() - started
        (part,) = lake.partitions("metric_points")
        bare = root / "bare" / name.replace(" ", "-")
        write_deltalake(str(bare), frame, writer_properties=WriterProperties(compression="ZSTD", compression_level=3))
        size = sum(path.stat().st_size for path in bare.glob("*.parquet"))
        bar = None if noise else 3.0
        rows.append(
            row(f"storage: {name}", part.size / part.rows, "bytes/point", "defaults, zstd 3", size / part.rows, bar)
        )
        if not rows[1:]:
            rows.append(row("storage: laying out a closed hour", seconds, "s", "", 0.0, None))
    return rows


@contextmanager
def tombstones_of_an_hour(commits_a_second: float) -> Iterator[None]:
    """Replaced files are forgotten after as many commits as an hour has at one commit a second."""
    before = tables._CONFIGURATION
    seconds = max(1, round(3600 / commits_a_second))
    tables._CONFIGURATION = {**before, "delta.deletedFileRetentionDuration": f"interval {seconds} seconds"}
    try:
        yield
    finally:
        tables._CONFIGURATION = before


class Ageing:
    """Makes the log as old as it would be at one commit a second, so that its retention of ten minutes works."""

    def __init__(self, root: Path) -> None:
        self._log = root / "metric_points" / "_delta_log"
        self._aged = 0

    def pass_time(self, newest: int) -> None:
        """Commits of more than ten minutes ago get an old time; the next checkpoint then drops them."""
        upto = newest - LOG_COMMITS
        for version in range(self._aged, upto):
            for suffix in ("json", "checkpoint.parquet"):
                with contextlib.suppress(FileNotFoundError):
                    os.utime(self._log / f"{version:020d}.{suffix}", (1, 1))
        self._aged = max(self._aged, upto)


def median_ms(work: Callable[[], object], times: int = 15) -> float:
    """Median duration in milliseconds."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1000


def month(root: Path, quick: bool) -> list[dict[str, Any]]:
    """Hours of commits with their compactions and closings, the last one at the full cadence of a commit a second."""
    hours, each, last = (48, 5, 400) if quick else (HOURS_OF_A_MONTH, 20, 3600)
    lake = Lake(root)
    sample = steady_hour(1).head(10)
    commit = 0
    ageing = Ageing(root)
    with tombstones_of_an_hour(measured_rate(root / "rate", sample)):
        writer = TableWriter(lake, METRIC_POINTS)
        early: list[float] = []
        late: list[float] = []
        for hour in range(hours):
            frame = sample.with_columns(pl.col("ts") + timedelta(hours=hour))
            frame = frame.with_columns(pl.col("ts").dt.strftime("%Y-%m-%dT%H").alias("hour"))
            key = str(frame["hour"][0])
            for _ in range(last if hour == hours - 1 else each):
                commit += 1
                started = time.perf_counter()
                version = writer.append(frame, {"gateway": commit, "collector": commit})
                took = time.perf_counter() - started
                early += [took] if commit <= 100 else []
                late = [*late[-199:], took]
                writer.compact_where_due()
                if commit % 100 == 0:
                    ageing.pass_time(version)
            if hour < hours - 1:
                writer.replace(writer.read(key, list(METRIC_POINTS.schema)), key)
    fresh = Lake(root / "fresh")
    TableWriter(fresh, METRIC_POINTS).append(sample, {"gateway": 1})
    open_ms = median_ms(lambda: lake.open("metric_points"))
    bare_ms = median_ms(lambda: DeltaTable(fresh.uri("metric_points")))
    log = len(list((root / "metric_points" / "_delta_log").iterdir()))
    name = f"opening after {hours} hours, {commit:,} commits ({log} log files left)"
    return [
        row(name, open_ms, "ms", "a table of one commit", bare_ms, 100.0),
        row(
            "appending after them, median", statistics.median(late) * 1000, "ms",
            "the first 100 appends", statistics.median(early) * 1000, None,
        ),
    ]  # fmt: skip


def measured_rate(root: Path, sample: pl.DataFrame) -> float:
    """Small commits a second on this machine, now."""
    writer = TableWriter(Lake(root), METRIC_POINTS)
    started = time.perf_counter()
    for commit in range(100):
        writer.append(sample, {"gateway": commit + 1})
    return 100 / (time.perf_counter() - started)


def packing(root: Path, segments: int) -> list[dict[str, Any]]:
    """Packing of small segments of line protocol, beside bare zstd over the same bytes."""
    import pyarrow as pa

    with SegmentWriter(root, "gateway", max_bytes=1, max_age_seconds=60) as writer:
        for number in range(segments):
            lines = "\n".join(
                f"cpu,host=web-{host} usage_user={(number * 7 + host) % 97}.{host % 10} {START + number}000"
                for host in range(100)
            )
            writer.append_deliveries([Delivery(f"d{number}", START + number, "telegraf", "text/plain", lines.encode())])
    folder = root / "gateway"
    content = b"".join(path.read_bytes() for path in sorted(folder.glob("*.seg"))[:-1])
    started = time.perf_counter()
    bare = len(pa.Codec("zstd", compression_level=9).compress(content, asbytes=True))
    bare_seconds = time.perf_counter() - started
    started = time.perf_counter()
    done = pack(folder, segments, time.time() + 3600)
    seconds = time.perf_counter() - started
    mib = done.size / 1024**2
    return [
        row(f"packing {done.segments:,} segments, read back and compared", mib / seconds, "MiB/s", "bare zstd 9",
            mib / bare_seconds, None),
        row("packing: size", done.size / done.packed_size, "times smaller", "bare zstd 9", len(content) / bare, None),
    ]  # fmt: skip


def care(root: Path, hosts: int) -> list[dict[str, Any]]:
    """Verification, rebuild and backup of an installation with four hours, beside bare reads and copies."""
    settings: Settings = home(root)
    lake = Lake(settings.paths.lake)
    frames = [steady_hour(hosts, start=START + n * MICROS_PER_HOUR) for n in range(4)]
    written = deliver(settings, frames)
    writer = TableWriter(lake, METRIC_POINTS)
    for frame in frames:
        writer.append(frame.with_columns(pl.lit(1).alias("seq").cast(pl.Int64)), {"gateway": written})
    handle = lake.open("metric_points")
    assert handle is not None
    points = sum(frame.height for frame in frames)
    bare_read = median_ms(lambda: pl.read_parquet(handle.file_uris()), 3) / 1000
    memory = root / "memory"
    started = time.perf_counter()
    outcome = verify(lake, memory)
    seconds = time.perf_counter() - started
    again = median_ms(lambda: verify(lake, memory), 3)
    assert outcome.clean
    result = [
        row("verification, first look", points / seconds, "points/s", "bare read", points / bare_read, None),
        row("verification, nothing new", again, "ms", "first look", seconds * 1000, None),
    ]
    started = time.perf_counter()
    report = rebuild_hours(settings, None, accept_loss=True)
    seconds = time.perf_counter() - started
    result.append(
        row(f"rebuild of {len(report.hours)} hours from segments", report.points / seconds, "points/s", "bare read",
            points / bare_read, None)
    )  # fmt: skip
    started = time.perf_counter()
    first = back_up(settings, root.parent / "backups")
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    back_up(settings, root.parent / "backups")
    result.append(
        row("backup, nothing new", time.perf_counter() - started, "s",
            f"the first, {first.added_size / 1024**2:.0f} MiB", seconds, None)
    )  # fmt: skip
    return result


def deliver(settings: Settings, frames: list[pl.DataFrame]) -> int:
    """The points of frames as deliveries in line protocol, one segment a minute; the number of segments."""
    with SegmentWriter(settings.paths.landing, "gateway", max_bytes=1, max_age_seconds=60) as writer:
        for frame in frames:
            minutes = frame.with_columns(((pl.col("ts").dt.epoch("us") - START) // MINUTE).alias("minute"))
            for _, rows in minutes.sort("minute").group_by("minute", maintain_order=True):
                text = rows.select(
                    pl.format(
                        "fleet,host={},metric={} value={} {}000",
                        "host",
                        "metric",
                        "value",
                        pl.col("ts").dt.epoch("us"),
                    )
                ).to_series()
                at = int(datetime.now(UTC).timestamp() * 1e6)
                body = "\n".join(text.to_list()).encode()
                headers = {"format": "telegraf", "history": "1"}
                writer.append_deliveries([Delivery("d", at, "telegraf", "text/plain", body, headers)])
        return writer.last_sealed


if __name__ == "__main__":
    for entry in run("--quick" in sys.argv):
        print(entry)
