"""Reading in order, and the measure of what waits."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops_assets.landing.reader import (
    BacklogMeter,
    backlog,
    gaps,
    read_segment,
    waiting_segments,
    writers,
)
from aiops_assets.landing.segment import MAGIC, Delivery, encode, segment_path
from tests.examples import examples


def write(folder: Path, seq: int, count: int = 1) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    batch = [Delivery(f"{seq}-{index}", 0, "telegraf", "", b"body", {}) for index in range(count)]
    data = MAGIC + b"".join(part for entry in batch for part in encode(entry))
    segment_path(folder, seq).write_bytes(data)
    return len(data)


def test_damage_is_reported_with_what_stands_before_it(tmp_path: Path) -> None:
    folder = tmp_path / "gateway"
    size = write(folder, 1, 3)
    path = segment_path(folder, 1)
    path.write_bytes(path.read_bytes()[:-1])
    segment = read_segment(folder, 1)
    assert [entry.delivery_id for entry in segment.deliveries] == ["1-0", "1-1"]
    assert segment.damage is not None
    assert len(segment.remainder) == size - 1 - segment.damage.offset


def test_waiting_segments_stop_at_a_gap_and_at_the_size_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "gateway"
    sizes = [write(folder, seq) for seq in (3, 4, 5, 7)]
    assert [seq for seq, _ in waiting_segments(folder, 2, 1 << 30)] == [3, 4, 5]
    assert [seq for seq, _ in waiting_segments(folder, 2, 1)] == [3]
    assert [seq for seq, _ in waiting_segments(folder, 3, sizes[1] + sizes[2])] == [4, 5]
    assert waiting_segments(folder, 5, 1 << 30) == []
    assert gaps(folder) == [6]


def test_only_names_of_writers_are_writers(tmp_path: Path) -> None:
    for name in ("gateway", "Bad", ".hidden"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_text("")
    assert writers(tmp_path) == ["gateway"]
    assert writers(tmp_path / "absent") == []


@settings(max_examples=examples(30), deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["gateway", "collector"]), st.integers(0, 3), st.integers(0, 4)), max_size=8))
def test_the_meter_says_what_a_full_look_says(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    root = tmp_path_factory.mktemp("landing")
    meter = BacklogMeter(root)
    last: dict[str, int] = {}
    taken: dict[str, int] = {}
    for writer, written, advance in steps:
        for _ in range(written):
            last[writer] = last.get(writer, 0) + 1
            write(root / writer, last[writer], last[writer] % 3)
        taken[writer] = min(taken.get(writer, 0) + advance, last.get(writer, 0))
        assert meter.measure(taken) == backlog(root, taken)
