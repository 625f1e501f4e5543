"""Segments leave the landing zone only when the lake has them and their time is up."""

from __future__ import annotations

import os
import time
from pathlib import Path

from aiops_assets.landing.reader import gaps, numbers
from aiops_assets.landing.retention import release
from aiops_assets.landing.segment import SEALED, Delivery, segment_path
from aiops_assets.landing.writer import SegmentWriter


def landing(root: Path, segments: int, old: int) -> Path:
    """A writer folder with segments, the first ``old`` of them a day old."""
    with SegmentWriter(root, "gateway", max_bytes=1, max_age_seconds=60) as writer:
        for number in range(segments):
            writer.append_deliveries([Delivery(str(number), 0, "test", "text/plain", b"x")])
    for seq in range(1, old + 1):
        yesterday = time.time() - 86_400
        os.utime(segment_path(root / "gateway", seq), (yesterday, yesterday))
    return root / "gateway"


def test_only_old_segments_before_the_position_go(tmp_path: Path) -> None:
    folder = landing(tmp_path, segments=10, old=6)
    (gone,) = release(tmp_path, {"gateway": 4}, keep_seconds=3600)
    assert gone.segments == 4
    assert sorted(numbers(folder, SEALED)) == [5, 6, 7, 8, 9, 10]
    assert gaps(folder) == []


def test_young_segments_stay_even_when_the_lake_has_them(tmp_path: Path) -> None:
    folder = landing(tmp_path, segments=4, old=1)
    release(tmp_path, {"gateway": 4}, keep_seconds=3600)
    assert sorted(numbers(folder, SEALED)) == [2, 3, 4]


def test_a_writers_counter_goes_on_after_everything_was_released(tmp_path: Path) -> None:
    folder = landing(tmp_path, segments=5, old=5)
    release(tmp_path, {"gateway": 5}, keep_seconds=3600)
    assert numbers(folder, SEALED) == [5]
    with SegmentWriter(tmp_path, "gateway", max_bytes=1, max_age_seconds=60) as writer:
        writer.append_deliveries([Delivery("next", 0, "test", "text/plain", b"x")])
    assert sorted(numbers(folder, SEALED)) == [5, 6]


def test_a_dry_run_tells_and_removes_nothing(tmp_path: Path) -> None:
    folder = landing(tmp_path, segments=5, old=5)
    (planned,) = release(tmp_path, {"gateway": 5}, keep_seconds=3600, dry_run=True)
    assert planned.segments == 4
    assert planned.size > 0
    assert len(numbers(folder, SEALED)) == 5
