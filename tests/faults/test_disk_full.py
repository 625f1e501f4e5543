"""A disk that fills during a session: it stops cleanly, says so, and goes on without loss when there is room again."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import polars as pl
import pytest

from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.lake.tables import Lake
from aiops_assets.landing.segment import Delivery
from aiops_assets.landing.writer import LandingFull, SegmentWriter
from aiops_assets.live import loop
from aiops_assets.live.loop import DiskFull, follow
from aiops_assets.live.pipeline import BatchReport, Pipeline
from aiops_assets.settings import Settings

SIZE_MIB = 160


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that is easily filled."""
    with small_file_system(tmp_path / "disk", SIZE_MIB) as folder:
        yield folder


@contextlib.contextmanager
def small_file_system(folder: Path, size_mib: int) -> Iterator[Path]:
    """A file system in memory; skips the test where it cannot be mounted."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path, leave_bytes: int = 0) -> Path:
    """Take all room but so much."""
    ballast = folder / "ballast"
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - leave_bytes)
    return ballast


def documents(batch: int, count: int = 200) -> Delivery:
    now = time.time_ns() // 1000
    body = orjson.dumps(
        [
            {"host": f"h{n}", "ts": now - batch * MICROS_PER_SECOND, "points": [{"metric": "m", "value": float(n)}]}
            for n in range(count)
        ]
    )
    return Delivery(f"d{batch}", now, "test", "application/json", body, {"format": "collected"})


def send(root: Path, batches: range) -> None:
    with SegmentWriter(root, "gateway", max_bytes=1 << 20, max_age_seconds=60) as writer:
        for batch in batches:
            writer.append_deliveries([documents(batch)])
            writer.seal()


def test_a_session_stops_before_a_full_disk_and_loses_nothing(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=small_disk / "home", session_quiet_seconds=0.5, session_batch_bytes=1)
    settings.paths.create()
    send(settings.paths.landing, range(20))
    ballast: list[Path] = []

    def fill_after_three(pipeline: Pipeline, report: BatchReport, final: bool) -> None:
        if pipeline.progress.batches == 3 and not ballast:
            ballast.append(fill(small_disk))

    with pytest.raises(DiskFull):
        follow(settings, owner="first", tell=fill_after_three)
    assert Lake(settings.paths.lake).read("metric_points").height == 3 * 200
    ballast[0].unlink()
    monkeypatch.setattr(loop, "BATCH_SECONDS", 0.0)
    assert follow(settings, owner="second", tell=lambda *_: None).ending == "quiet"
    rows = Lake(settings.paths.lake).read("metric_points")
    assert rows.height == 20 * 200
    assert rows.select("series_id", "ts").is_unique().all()


def test_a_commit_that_hits_the_full_disk_leaves_the_table_as_it_was(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "MINIMUM_FREE_BYTES", 0)
    settings = Settings(home=small_disk / "home", session_quiet_seconds=0.5)
    settings.paths.create()
    send(settings.paths.landing, range(5))
    ballast = fill(small_disk, leave_bytes=64 * 1024)
    with pytest.raises(DiskFull):
        follow(settings, owner="first", tell=lambda *_: None)
    ballast.unlink()
    follow(settings, owner="second", tell=lambda *_: None)
    rows = Lake(settings.paths.lake).read("metric_points")
    assert rows.height == 5 * 200
    assert rows.select("series_id", "ts").is_unique().all()


def test_a_writer_without_room_refuses_and_keeps_what_it_promised(small_disk: Path) -> None:
    root = small_disk / "landing"
    root.mkdir()
    with SegmentWriter(root, "gateway", max_bytes=1 << 20, max_age_seconds=60) as writer:
        writer.append_deliveries([documents(0)])
        ballast = fill(small_disk)
        with pytest.raises(LandingFull):
            for batch in range(1, 50):
                writer.append_deliveries([documents(batch)])
        ballast.unlink()
        writer.append_deliveries([documents(99)])
    settings = Settings(home=small_disk, session_quiet_seconds=0.5)
    settings.paths.create()
    follow(settings, owner="reader", tell=lambda *_: None)
    rows = Lake(settings.paths.lake).read("metric_points")
    assert rows.height % 200 == 0
    assert rows.group_by("host", "metric").len().select(pl.col("len").n_unique()).item() == 1
