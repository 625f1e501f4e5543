"""Housekeeping: what the lake and the landing zone may let go, and when the live session has to stand aside."""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from aiops_assets.hours import MICROS_PER_HOUR, hour_key, instant
from aiops_assets.lake import tables
from aiops_assets.lake.retention import expire, first_kept
from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.lake.upkeep import compact, compactable, tidy
from aiops_assets.landing.reader import numbers
from aiops_assets.landing.segment import SEALED
from aiops_assets.live.lease import live_lease
from aiops_assets.live.upkeep import compact_closed, expire_rows, pack_segments, releasable, vacuum, verify_all
from aiops_assets.settings import Settings
from aiops_assets.tables import INCIDENTS, METRIC_POINTS
from tests.home import MINUTE, drain, fill, home, points

NOW = datetime.now(UTC)
HOUR = time.time_ns() // 1000 // MICROS_PER_HOUR * MICROS_PER_HOUR - 5 * MICROS_PER_HOUR
DAY = 24 * 3600.0


@pytest.fixture
def platform(tmp_path: Path) -> Settings:
    settings = home(tmp_path / "home")
    for part in range(5):
        fill(settings, HOUR + part * 40 * MINUTE, 3)
        drain(settings)
    return settings


def incidents(lake: Lake, count: int, day: str = "2026-06-01") -> None:
    """A day's snapshot, replaced again and again."""
    now = datetime(2026, 6, 1, tzinfo=UTC)
    row = dict.fromkeys(INCIDENTS.schema) | {"snapshot_at": now, "day": day}
    writer = TableWriter(lake, INCIDENTS)
    for number in range(count):
        writer.replace(pl.DataFrame([row | {"incident_id": f"INC-{number}"}], INCIDENTS.schema), day)


def on_disk(lake: Lake, name: str) -> set[Path]:
    return set(Path(lake.uri(name)).rglob("*.parquet")) - set(Path(lake.uri(name), "_delta_log").rglob("*"))


def test_replaced_files_go_when_no_reader_can_need_them_any_more(tmp_path: Path) -> None:
    lake, memory = Lake(tmp_path / "lake"), tmp_path / "memory"
    incidents(lake, 4)
    assert len(on_disk(lake, "incidents")) == 4
    start = 1_000_000_000.0
    (first,) = tidy(lake, memory, keep_hours=24, dry_run=False, now=start)
    assert (first.removed, first.waiting, first.files) == (0, 3, 1)
    (second,) = tidy(lake, memory, keep_hours=24, dry_run=False, now=start + DAY - 1)
    assert second.removed == 0
    (third,) = tidy(lake, memory, keep_hours=24, dry_run=False, now=start + DAY)
    assert (third.removed, third.waiting) == (3, 0)
    assert len(on_disk(lake, "incidents")) == 1
    assert lake.read("incidents")["incident_id"].to_list() == ["INC-3"]


def test_a_file_that_is_used_again_or_about_to_be_named_stays(tmp_path: Path) -> None:
    lake, memory = Lake(tmp_path / "lake"), tmp_path / "memory"
    incidents(lake, 2)
    (stray,) = on_disk(lake, "incidents") - {Path(uri) for uri in lake.open("incidents").file_uris()}  # type: ignore[union-attr]
    tidy(lake, memory, keep_hours=1, dry_run=False, now=0.0)
    handle = lake.open("incidents")
    assert handle is not None
    handle.restore(0)
    (done,) = tidy(lake, memory, keep_hours=1, dry_run=False, now=7200.0)
    assert stray.exists()
    assert done.removed == 0


def test_a_dry_run_writes_nothing(platform: Settings) -> None:
    def everything() -> list[tuple[str, int]]:
        return sorted((str(p), p.stat().st_mtime_ns) for p in platform.paths.root.rglob("*") if p.is_file())

    before = everything()
    vacuum(platform, dry_run=True, keep_hours=1, now=NOW)
    compact_closed(platform, dry_run=True, now=NOW)
    expire_rows(platform, dry_run=True, now=NOW + timedelta(days=3000))
    pack_segments(platform, dry_run=True, now=NOW + timedelta(days=1))
    assert everything() == before


def test_files_are_kept_for_an_hour_at_least(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        tidy(Lake(tmp_path), tmp_path / "memory", keep_hours=0.5, dry_run=True, now=0.0)


def test_the_log_stays_short_and_a_table_of_an_earlier_version_gets_its_settings(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    incidents(lake, 1)
    handle = lake.open("incidents")
    assert handle is not None
    handle.alter.set_table_properties(
        {"delta.logRetentionDuration": "interval 1 days", "delta.deletedFileRetentionDuration": "interval 1 days"}
    )
    tidy(lake, tmp_path / "memory", keep_hours=24, dry_run=False, now=0.0)
    again = lake.open("incidents")
    assert again is not None
    configuration = again.metadata().configuration
    assert configuration["delta.logRetentionDuration"] == "interval 10 minutes"
    log = tmp_path / "lake" / "incidents" / "_delta_log"
    for path in log.glob("*.json"):
        os.utime(path, (1, 1))
    incidents(lake, 1)
    tidy(lake, tmp_path / "memory", keep_hours=24, dry_run=False, now=0.0)
    assert len(list(log.glob("*.json"))) <= 2
    assert lake.read("incidents").height == 1


def test_closed_hours_become_one_sorted_file_without_a_row_changed(platform: Settings) -> None:
    lake = Lake(platform.paths.lake)
    before = points(platform)
    # The session rewrites what it closes; leave one hour as small files, as late rows do.
    key = hour_key(HOUR)
    rows = lake.read("metric_points", [key])
    writer = TableWriter(lake, METRIC_POINTS)
    writer.delete(f"hour = '{key}'")
    for part in (rows[5:], rows[:5]):
        writer.append(part, {})
    done = {table.table: table for table in compact_closed(platform, dry_run=False, now=NOW)}
    assert done["metric_points"].partitions >= 1
    assert done["metric_points"].files_after == done["metric_points"].partitions
    assert compact_closed(platform, dry_run=False, now=NOW) == []
    handle = lake.open("metric_points")
    assert handle is not None
    (uri,) = [uri for uri in handle.file_uris() if f"hour={key}" in uri]
    stored = pl.read_parquet(uri, hive_partitioning=False)
    assert_frame_equal(stored, stored.sort("series_id", "ts"))
    assert_frame_equal(points(platform), before)
    assert verify_all(platform, full=True, now=NOW).clean


def test_the_session_is_asked_aside_only_when_there_is_something_to_do(platform: Settings) -> None:
    compact_closed(platform, dry_run=False, now=NOW)
    lease = live_lease(platform.paths.live)
    assert lease.acquire("session", seconds=60, keep_waiting=lambda: False)
    try:
        assert compact_closed(platform, dry_run=False, now=NOW) == []
        assert expire_rows(platform, dry_run=False, now=NOW) == []
    finally:
        lease.release()


def test_the_session_gives_way_and_gets_the_lease_back(platform: Settings) -> None:
    lease = live_lease(platform.paths.live)
    assert lease.acquire("session", seconds=60, keep_waiting=lambda: False)

    def give_way() -> None:
        while not lease.wanted():
            time.sleep(0.005)
        lease.release()

    session = threading.Thread(target=give_way)
    session.start()
    gone = expire_rows(platform, dry_run=False, now=NOW + timedelta(days=10_000))
    session.join()
    assert {table.table for table in gone} >= {"metric_points", "baselines", "hour_receipts"}
    assert points(platform).is_empty()
    assert lease.acquire("session", seconds=60, keep_waiting=lambda: False)
    lease.release()


def test_an_hour_that_cannot_be_read_does_not_stop_the_others(platform: Settings) -> None:
    lake = Lake(platform.paths.lake)
    for hour in {hour_key(HOUR), hour_key(HOUR + MICROS_PER_HOUR)}:
        rows = lake.read("metric_points", [hour])
        writer = TableWriter(lake, METRIC_POINTS)
        writer.delete(f"hour = '{hour}'")
        for part in (rows[:2], rows[2:]):
            writer.append(part, {})
    handle = lake.open("metric_points")
    assert handle is not None
    torn = next(Path(uri) for uri in handle.file_uris() if f"hour={hour_key(HOUR)}" in uri)
    torn.write_bytes(b"torn")
    done = {table.table: table for table in compact_closed(platform, dry_run=False, now=NOW)}
    assert done["metric_points"].unreadable == 1
    assert compactable(lake, METRIC_POINTS, "9999") == [hour_key(HOUR)]


def test_compaction_stops_when_its_time_is_up(platform: Settings) -> None:
    lake = Lake(platform.paths.lake)
    for number in range(2):
        rows = points(platform).head(1).with_columns(pl.col("ts") + pl.duration(microseconds=number + 1))
        TableWriter(lake, METRIC_POINTS).append(rows, {})
    before = {"metric_points": "9999"}
    assert compact(lake, before, dry_run=False, keep_going=lambda: False)[0].partitions == 0
    assert compact(lake, before, dry_run=False)[0].partitions >= 1


def test_partitions_go_by_event_time_and_by_when_they_were_stored(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    start = instant(1_767_225_600_000_000)
    row = dict.fromkeys(METRIC_POINTS.schema) | {"series_id": 1, "value": 1.0, "writer": "w", "seq": 1}
    ages = [(0, 0), (20, 0), (20, 20), (9, 9)]
    rows = [
        row | {"ts": start - timedelta(days=age, minutes=n), "received_at": start - timedelta(days=stored)}
        for n, (age, stored) in enumerate(ages)
    ]
    frame = pl.DataFrame(rows, {**METRIC_POINTS.schema}).with_columns(
        pl.col("ts").dt.strftime("%Y-%m-%dT%H").alias("hour")
    )
    for number in range(frame.height):
        TableWriter(lake, METRIC_POINTS).append(frame[number], {})
    other = (
        frame[2]
        .with_columns(pl.col("ts") - timedelta(days=1))
        .with_columns(pl.col("ts").dt.strftime("%Y-%m-%dT%H").alias("hour"))
    )
    TableWriter(lake, METRIC_POINTS).append(other, {})
    (planned,) = expire(lake, {"metric_points": 10.0}, start, dry_run=True)
    assert (planned.partitions, planned.rows) == (1, 1)
    assert expire(lake, {"metric_points": 10.0}, start, dry_run=False) == [planned]
    kept = sorted((start - ts).days for ts in lake.read("metric_points")["ts"])
    assert kept == [0, 9, 20, 20], "an hour with a row that was stored lately stays"
    assert expire(lake, {"metric_points": None}, start, dry_run=True) == []
    assert first_kept(METRIC_POINTS, 1.0, start) == "2025-12-31T00"


def test_segments_that_the_lake_has_are_packed_and_read_as_before(platform: Settings) -> None:
    folder = platform.paths.landing / "gateway"
    fill(platform, HOUR + 200 * MINUTE, 2)
    (done,) = pack_segments(platform, dry_run=False, now=NOW + timedelta(hours=2))
    assert done.segments == 15
    assert sorted(numbers(folder, SEALED)) == [16, 17], "what the lake does not have is left alone"
    before = points(platform).height
    drain(platform)
    assert points(platform).height == before + 6


def test_nothing_is_releasable_in_a_new_home(tmp_path: Path) -> None:
    settings = home(tmp_path / "home")
    assert releasable(settings) == {}
    fill(settings, HOUR, 1)
    assert releasable(settings) == {"gateway": 0}


def test_appends_do_not_slow_down_with_the_number_of_commits() -> None:
    # What makes them slow is the length of the log's folder; see the module for the measurement.
    assert tables._CONFIGURATION["delta.logRetentionDuration"] == "interval 10 minutes"
    assert tables._CONFIGURATION["delta.enableExpiredLogCleanup"] == "true"
