"""Housekeeping: what the lake and the landing zone may let go."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.lake.upkeep import tidy
from aiops_assets.landing.segment import Delivery
from aiops_assets.landing.writer import SegmentWriter
from aiops_assets.live import checkpoint
from aiops_assets.live.upkeep import checkpoint_positions, releasable
from aiops_assets.settings import Settings
from aiops_assets.tables import INCIDENTS, METRIC_POINTS


@pytest.fixture
def platform(tmp_path: Path) -> Settings:
    settings = Settings(home=tmp_path / "home")
    settings.paths.create()
    for name in ("gateway", "collector"):
        with SegmentWriter(settings.paths.landing, name, max_bytes=1, max_age_seconds=60) as writer:
            writer.append_deliveries([Delivery("d", 1, "generic", "application/json", b"{}")])
    return settings


def save(platform: Settings, number: int, positions: dict[str, int]) -> None:
    checkpoint.save(platform.paths.live / "state", number, checkpoint.Checkpoint({}, {"positions": positions}))


def test_nothing_goes_before_there_is_a_checkpoint(platform: Settings) -> None:
    TableWriter(Lake(platform.paths.lake), METRIC_POINTS).append(METRIC_POINTS.empty(), {"gateway": 9})
    assert releasable(platform) == {}


def test_only_what_the_table_and_every_checkpoint_have_may_go(platform: Settings) -> None:
    TableWriter(Lake(platform.paths.lake), METRIC_POINTS).append(METRIC_POINTS.empty(), {"gateway": 9, "collector": 9})
    save(platform, 1, {"gateway": 5})
    save(platform, 2, {"gateway": 8, "collector": 12})
    assert releasable(platform) == {"gateway": 5, "collector": 0}
    save(platform, 3, {"gateway": 20, "collector": 12})
    assert releasable(platform) == {"gateway": 8, "collector": 9}


def test_a_damaged_checkpoint_holds_nothing_back(platform: Settings) -> None:
    save(platform, 1, {"gateway": 5})
    (platform.paths.live / "state" / "000000000002.npz").write_bytes(b"torn")
    assert checkpoint_positions(platform.paths.live / "state") == [{"gateway": 5}]


def test_replaced_files_stay_as_long_as_a_reader_may_need_them(tmp_path: Path) -> None:
    lake, now = Lake(tmp_path), datetime.now(UTC)
    row = {column.name: None for column in INCIDENTS.columns} | {"snapshot_at": now, "day": "2026-06-01"}
    writer = TableWriter(lake, INCIDENTS)
    for number in range(3):
        writer.replace(pl.DataFrame([row | {"incident_id": f"INC-{number}"}], INCIDENTS.schema), "2026-06-01")
    (tidied,) = tidy(lake, keep_hours=24, dry_run=False)
    assert tidied.table == "incidents"
    assert tidied.removed == 0
    assert lake.read("incidents").height == 1
    with pytest.raises(ValueError, match="at least 24"):
        tidy(lake, keep_hours=1, dry_run=True)


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    TableWriter(lake, METRIC_POINTS).append(METRIC_POINTS.empty(), {"gateway": 1})
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    tidy(lake, keep_hours=24, dry_run=True)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before
