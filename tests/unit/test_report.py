"""What the asset graph is told: true, bounded, and complete at the end."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.live import report as module
from aiops_assets.live.pipeline import BatchReport
from aiops_assets.live.progress import Progress, SourceProgress
from aiops_assets.live.report import Reporter
from aiops_assets.tables import METRIC_POINTS
from tests.unit.test_lake import points

RUNNING = pl.DataFrame({"incident": ["INC-1"], "priority": [1], "state": ["open"], "title": ["t"], "hosts": ["h"]})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path)
    TableWriter(lake, METRIC_POINTS).append(points(600), {"gateway": 1})
    return lake


def touched(*partitions: str, rows: int = 60) -> BatchReport:
    report = BatchReport()
    report.touched = {("metric_points", partition): (rows, 0) for partition in partitions}
    return report


def test_a_partition_is_told_once_a_minute_with_all_rows_added_since(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    reporter = Reporter(lake, Progress(), lambda: RUNNING)
    reporter.add(touched("1970-01-01T00"))
    (first,) = reporter.due(Progress()).partitions
    assert (first.rows, first.added) == (60, 60)
    for _ in range(10):
        reporter.add(touched("1970-01-01T00", rows=1))
        assert not reporter.due(Progress()).partitions
    now[0] += module.INTERVAL_SECONDS
    (second,) = reporter.due(Progress()).partitions
    assert second.added == 10


def test_an_import_of_many_hours_is_told_whole_but_only_the_newest_in_full(lake: Lake) -> None:
    reporter = Reporter(lake, Progress(), lambda: RUNNING)
    reporter.add(touched(*(f"1970-01-01T{hour:02d}" for hour in range(10))))
    told = reporter.due(Progress(), final=True)
    assert sorted(part.partition or "" for part in told.partitions) == [f"1970-01-01T{hour:02d}" for hour in range(10)]
    assert all(part.rows == 60 for part in told.partitions)
    assert [part.partition for part in told.partitions if part.preview is not None] == [
        "1970-01-01T09",
        "1970-01-01T08",
    ]
    assert {check.partition for check in told.checks} == {"1970-01-01T09", "1970-01-01T08"}


def test_incidents_are_told_from_the_operations_database(lake: Lake) -> None:
    reporter = Reporter(lake, Progress(), lambda: RUNNING)
    reporter.add(BatchReport(incidents=["INC-1", "INC-2"]))
    (part,) = reporter.due(Progress()).partitions
    assert (part.table, part.partition, part.rows, part.added) == ("incidents", None, 1, 2)


def test_sources_are_told_by_what_they_delivered_in_this_session(lake: Lake) -> None:
    before = Progress(sources={"telegraf": SourceProgress(deliveries=5, points=50)})
    reporter = Reporter(lake, before, lambda: RUNNING)
    now = Progress(sources={"telegraf": SourceProgress(deliveries=7, points=80, last_received_at=9)})
    (drops,) = reporter.due(now).sources
    assert (drops.source, drops.deliveries, drops.points) == ("telegraf", 2, 30)
    assert not reporter.due(now, final=True).sources
