"""Damaged hours come back from landing segments row for row, as the live session had stored them."""

from __future__ import annotations

import time
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from aiops_assets.hours import MICROS_PER_HOUR, hour_key
from aiops_assets.lake.digest import digest
from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.landing.packing import pack
from aiops_assets.landing.quarantine import Quarantine
from aiops_assets.landing.retention import release
from aiops_assets.live.rebuild import rebuild_hours
from aiops_assets.settings import Settings
from aiops_assets.tables import HOUR_RECEIPTS, METRIC_POINTS, SERIES
from tests.home import MINUTE, document, drain, fill, home, points, send

HOUR = time.time_ns() // 1000 // MICROS_PER_HOUR * MICROS_PER_HOUR - 3 * MICROS_PER_HOUR
KEY = hour_key(HOUR)


@pytest.fixture
def platform(tmp_path: Path) -> Settings:
    """An hour from two writers that sent some points twice, with other values, and one in the far future."""
    settings = home(tmp_path / "home")
    fill(settings, HOUR, 10)
    drain(settings)
    fill(settings, HOUR + 5 * MINUTE, 10, writer="collector", value=0.9)
    send(settings, [document("web-0", HOUR + 20 * MINUTE, 1.0), document("web-0", HOUR + 20 * MINUTE, 2.0)])
    far = document("web-9", HOUR + 30 * MICROS_PER_HOUR, 7.0)
    send(settings, [document("web-0", HOUR + 21 * MINUTE, 1.0), far], at=HOUR + 21 * MINUTE)
    drain(settings)
    send(settings, [document("web-1", HOUR + 22 * MINUTE, 3.0)], "collector")
    send(settings, [document("web-1", HOUR + 22 * MINUTE, 4.0)], "gateway")
    send(settings, [document("web-1", HOUR + MICROS_PER_HOUR, 4.0)], "gateway")
    drain(settings)
    assert sum(len(list(Quarantine(settings.paths.quarantine).entries())) for _ in [0]) >= 3
    return settings


def files(settings: Settings, hour: str = KEY) -> list[Path]:
    handle = Lake(settings.paths.lake).open("metric_points")
    assert handle is not None
    return sorted(Path(uri) for uri in handle.file_uris() if f"hour={hour}" in uri)


def test_an_hour_that_is_right_is_left_alone(platform: Settings) -> None:
    version = Lake(platform.paths.lake).open("metric_points").version()  # type: ignore[union-attr]
    report = rebuild_hours(platform, None)
    assert {hour.outcome for hour in report.hours} == {"same"}
    assert {KEY, hour_key(HOUR + MICROS_PER_HOUR)} <= {hour.hour for hour in report.hours}
    assert Lake(platform.paths.lake).open("metric_points").version() == version  # type: ignore[union-attr]
    assert report.mended == report.rederived == []


@pytest.mark.parametrize("damage", ["torn", "lost", "empty"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_file_comes_back_row_for_row(platform: Settings, damage: str, packed: bool) -> None:
    before = points(platform)
    victim = files(platform)[0]
    if damage == "lost":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[:200] if damage == "torn" else b"")
    if packed:
        for writer in ("gateway", "collector"):
            pack(platform.paths.landing / writer, 1 << 60, time.time() + 1e6)
    (hour,) = rebuild_hours(platform, [KEY]).hours
    assert hour.outcome == "replaced"
    assert hour.rows == hour.rows_promised
    assert "cannot be read" in hour.why
    assert_frame_equal(points(platform), before)
    assert {hour.outcome for hour in rebuild_hours(platform, None).hours} == {"same"}


def test_a_dry_run_changes_nothing(platform: Settings) -> None:
    files(platform)[0].unlink()
    state = sorted((str(path), path.stat().st_mtime_ns) for path in Path(platform.paths.lake).rglob("*"))
    (hour,) = rebuild_hours(platform, [KEY], dry_run=True).hours
    assert hour.outcome == "replaced"
    assert sorted((str(path), path.stat().st_mtime_ns) for path in Path(platform.paths.lake).rglob("*")) == state


def test_rows_that_no_segment_has_go_when_that_is_accepted(platform: Settings) -> None:
    before = points(platform)
    stray = before.filter(pl.col("hour") == KEY).head(2)
    writer = TableWriter(Lake(platform.paths.lake), METRIC_POINTS)
    writer.append(stray, {})
    writer.append(stray.with_columns(pl.col("ts") + pl.duration(microseconds=5)), {})
    (refused,) = rebuild_hours(platform, None).refused
    assert "4 rows are in the table and in no segment" in refused.why
    assert {hour.outcome for hour in rebuild_hours(platform, None, accept_loss=True).hours} == {"same", "replaced"}
    assert_frame_equal(points(platform), before)


def test_repeated_rows_go(platform: Settings) -> None:
    before = points(platform)
    TableWriter(Lake(platform.paths.lake), METRIC_POINTS).append(before.filter(pl.col("hour") == KEY).head(5), {})
    assert {hour.outcome for hour in rebuild_hours(platform, None).hours} == {"same", "replaced"}
    assert_frame_equal(points(platform), before)


def test_an_hour_is_not_replaced_by_less_unless_that_is_accepted(platform: Settings) -> None:
    before = points(platform).filter(pl.col("hour") == KEY)
    for path in files(platform):
        path.write_bytes(b"torn")
    release(platform.paths.landing, {"gateway": 6}, keep_seconds=-10)
    (hour,) = rebuild_hours(platform, [KEY]).hours
    assert hour.outcome == "refused"
    assert "released" in hour.why
    (hour,) = rebuild_hours(platform, [KEY], accept_loss=True).hours
    assert hour.outcome == "replaced"
    after = points(platform).filter(pl.col("hour") == KEY)
    assert 0 < after.height < before.height


def test_rows_of_released_segments_stay_when_other_rows_are_rebuilt(platform: Settings) -> None:
    before = points(platform)
    release(platform.paths.landing, {"gateway": 4}, keep_seconds=-10)
    lost = before.filter((pl.col("hour") == KEY) & (pl.col("seq") == 9) & (pl.col("writer") == "gateway"))
    assert lost.height
    kept = before.filter(pl.col("hour") == KEY).join(lost, on=["series_id", "ts"], how="anti")
    TableWriter(Lake(platform.paths.lake), METRIC_POINTS).replace(kept, KEY)
    (hour,) = rebuild_hours(platform, [KEY]).hours
    assert hour.outcome == "replaced"
    assert_frame_equal(points(platform), before)


def test_lost_series_come_back_with_their_rows(platform: Settings) -> None:
    lake = Lake(platform.paths.lake)
    series = lake.read("series").sort("series_id")
    TableWriter(lake, SERIES).overwrite(series.head(1))
    files(platform)[0].unlink()
    report = rebuild_hours(platform, [KEY])
    stored = lake.read("series").sort("series_id")
    assert report.new_series == stored.height - 1
    assert set(points(platform)["series_id"]) <= set(stored["series_id"])
    assert_frame_equal(stored, series.filter(pl.col("series_id").is_in(stored["series_id"].implode())))


@pytest.mark.parametrize("torn", [b"", b'{"commitInfo":{"timest'])
def test_commits_that_a_power_cut_tore_come_back(platform: Settings, torn: bytes) -> None:
    before = points(platform)
    log = Path(platform.paths.lake) / "metric_points" / "_delta_log"
    newest = sorted(log.glob("*.json"))[-1]
    newest.write_bytes(torn)
    report = rebuild_hours(platform, None)
    assert len(report.mended) == 1
    drain(platform)
    assert_frame_equal(points(platform), before)
    assert {hour.outcome for hour in rebuild_hours(platform, None).hours} == {"same"}


def test_a_commit_lost_in_the_middle_of_the_log_comes_back(platform: Settings) -> None:
    before = points(platform)
    log = Path(platform.paths.lake) / "metric_points" / "_delta_log"
    (log / f"{1:020d}.json").write_bytes(b"")
    assert points(platform).height < before.height
    rebuild_hours(platform, None)
    assert_frame_equal(points(platform), before)


def test_the_rebuilt_hour_is_compared_with_its_receipt(platform: Settings) -> None:
    lake = Lake(platform.paths.lake)
    rows = points(platform).filter(pl.col("hour") == KEY)
    receipt = dict.fromkeys(HOUR_RECEIPTS.schema) | {
        "table": "metric_points",
        "hour": KEY,
        "revision": 1,
        "positions": '{"gateway": 1000, "collector": 1000}',
        "input_hash": digest(rows.drop("hour"), ("series_id", "ts")),
    }
    TableWriter(lake, HOUR_RECEIPTS).replace(pl.DataFrame([receipt], HOUR_RECEIPTS.schema), KEY)
    files(platform)[0].unlink()
    (hour,) = rebuild_hours(platform, [KEY]).hours
    assert hour.receipt is True
    wrong = receipt | {"revision": 2, "input_hash": "0" * 32}
    TableWriter(lake, HOUR_RECEIPTS).replace(pl.DataFrame([wrong], HOUR_RECEIPTS.schema), KEY)
    (hour,) = rebuild_hours(platform, [KEY]).hours
    assert (hour.outcome, hour.receipt) == ("same", False)
