"""Packs give segments back byte for byte, whatever interrupts the packing, and readers do not notice them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from aiops_assets.landing import packing
from aiops_assets.landing.packing import (
    DamagedPack,
    find,
    pack,
    pack_path,
    packs,
    read_index,
    read_pack,
    read_packed,
    unpack,
)
from aiops_assets.landing.reader import BacklogMeter, first_seq, gaps, look, numbers, read_segment, waiting_segments
from aiops_assets.landing.retention import release
from aiops_assets.landing.segment import SEALED, Delivery, segment_path
from aiops_assets.landing.writer import SegmentWriter, recover
from tests.examples import examples

FOR_EVER = 1 << 60
LATER = time.time() + 1e6


def landing(root: Path, segments: int, size: int = 50) -> Path:
    with SegmentWriter(root, "gateway", max_bytes=1, max_age_seconds=60) as writer:
        for number in range(segments):
            body = (f"point {number} " * size).encode()
            writer.append_deliveries([Delivery(str(number), number, "test", "text/plain", body)])
    return root / "gateway"


def contents(folder: Path) -> dict[int, bytes]:
    return {seq: segment_path(folder, seq).read_bytes() for seq in numbers(folder, SEALED)}


def test_segments_come_back_byte_for_byte_and_the_newest_is_left_alone(tmp_path: Path) -> None:
    folder = landing(tmp_path, 30)
    before = contents(folder)
    told: list[tuple[int, int]] = []
    done = pack(folder, FOR_EVER, LATER, tell=lambda n, total: told.append((n, total)))
    assert (done.segments, done.packs) == (29, 1)
    assert done.packed_size < done.size / 5
    assert told == [(29, 29)]
    assert numbers(folder, SEALED) == [30]
    assert {seq: read_packed(folder, seq) for seq in range(1, 30)} == {seq: before[seq] for seq in range(1, 30)}
    assert dict(read_pack(pack_path(folder, 1, 29))) == {seq: before[seq] for seq in range(1, 30)}


def test_readers_do_not_notice_a_pack(tmp_path: Path) -> None:
    folder = landing(tmp_path, 12)
    plain = [read_segment(folder, seq).deliveries for seq in range(1, 13)]
    waiting = waiting_segments(folder, 3, 1 << 30)
    stats = [look(folder, seq) for seq in range(1, 13)]
    meter = BacklogMeter(tmp_path).measure({"gateway": 2})
    pack(folder, 8, LATER)
    assert sorted(numbers(folder, SEALED)) == [9, 10, 11, 12]
    assert [read_segment(folder, seq).deliveries for seq in range(1, 13)] == plain
    assert waiting_segments(folder, 3, 1 << 30) == waiting
    assert [seen and seen[0] for seen in (look(folder, seq) for seq in range(1, 13))] == [s and s[0] for s in stats]
    assert look(folder, 3)[1] == pytest.approx(stats[2][1])  # type: ignore[index]
    assert BacklogMeter(tmp_path).measure({"gateway": 2}) == meter
    assert first_seq(folder) == 1
    assert gaps(folder) == []
    assert recover(folder) == 12
    assert look(folder, 13) is None


def test_only_old_segments_up_to_the_position_are_packed(tmp_path: Path) -> None:
    folder = landing(tmp_path, 10)
    for seq in range(1, 7):
        os.utime(segment_path(folder, seq), (1, 1))
    assert pack(folder, 4, time.time() - 3600).segments == 4
    assert pack(folder, FOR_EVER, time.time() - 3600).segments == 2
    assert [(first, last) for first, last, _ in packs(folder)] == [(1, 4), (5, 6)]
    assert gaps(folder) == []


def test_a_dry_run_packs_nothing(tmp_path: Path) -> None:
    folder = landing(tmp_path, 5)
    before = contents(folder)
    assert pack(folder, FOR_EVER, LATER, dry_run=True).segments == 4
    assert contents(folder) == before
    assert not (folder / "packs").exists()


def test_an_unpacked_pack_is_as_if_it_had_never_been(tmp_path: Path) -> None:
    folder = landing(tmp_path, 8)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("*.seg")}
    pack(folder, FOR_EVER, LATER)
    ((_, _, path),) = packs(folder)
    unpack(folder, path)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("*.seg")} == before
    assert packs(folder) == []
    assert gaps(folder) == []


def test_a_gap_ends_a_pack(tmp_path: Path) -> None:
    folder = landing(tmp_path, 9)
    segment_path(folder, 4).unlink()
    pack(folder, FOR_EVER, LATER)
    assert [(first, last) for first, last, _ in packs(folder)] == [(1, 3), (5, 8)]
    assert gaps(folder) == [4]
    assert find(folder, 4) is None


def test_many_segments_fill_several_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "PACK_SEGMENTS", 4)
    monkeypatch.setattr(packing, "BLOCK_BYTES", 1000)
    folder = landing(tmp_path, 11)
    before = contents(folder)
    assert pack(folder, FOR_EVER, LATER).packs == 3
    assert {seq: read_packed(folder, seq) for seq in range(1, 11)} == {seq: before[seq] for seq in range(1, 11)}


@pytest.mark.parametrize("after", ["write", "unlink"])
def test_a_packing_that_was_killed_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    folder = landing(tmp_path, 10)
    before = contents(folder)

    class Killed(Exception):
        pass

    with monkeypatch.context() as patched:
        if after == "write":
            patched.setattr(packing, "_release", lambda folder, path: (_ for _ in ()).throw(Killed))
        else:
            removed = []
            real = Path.unlink

            def unlink(path: Path, missing_ok: bool = False) -> None:
                if path.suffix == SEALED:
                    if len(removed) == 3:
                        raise Killed
                    removed.append(path)
                real(path, missing_ok=missing_ok)

            patched.setattr(Path, "unlink", unlink)
        with pytest.raises(Killed):
            pack(folder, FOR_EVER, LATER)
    assert gaps(folder) == []
    assert [read_segment(folder, seq).size for seq in range(1, 11)] == [len(before[seq]) for seq in range(1, 11)]
    pack(folder, FOR_EVER, LATER)
    assert numbers(folder, SEALED) == [10]
    assert [(first, last) for first, last, _ in packs(folder)] == [(1, 9)]
    assert {seq: read_packed(folder, seq) for seq in range(1, 10)} == {seq: before[seq] for seq in range(1, 10)}


def test_an_unfinished_pack_goes_and_costs_nothing(tmp_path: Path) -> None:
    folder = landing(tmp_path, 4)
    (folder / "packs").mkdir()
    (folder / "packs" / ".000000000001.99").write_bytes(b"AIOPPAK1 half")
    pack(folder, FOR_EVER, LATER)
    assert [path.name for path in (folder / "packs").iterdir()] == ["000000000001-000000000003.pack"]


@pytest.mark.parametrize("where", [4, 20, -30, -5])
def test_damage_is_found_and_told_and_stops_nobody(tmp_path: Path, where: int) -> None:
    folder = landing(tmp_path, 10)
    pack(folder, FOR_EVER, LATER)
    ((_, _, path),) = packs(folder)
    data = bytearray(path.read_bytes())
    data[where] ^= 0xFF
    path.write_bytes(data)
    packing._read_index.cache_clear()
    packing._block.cache_clear()
    with pytest.raises(DamagedPack):
        list(read_pack(path))
    segment = read_segment(folder, 2)
    assert segment.damage is not None and segment.deliveries == []
    assert waiting_segments(folder, 9, 1 << 30)[0][0] == 10


def test_a_torn_pack_is_no_pack(tmp_path: Path) -> None:
    folder = landing(tmp_path, 6)
    pack(folder, FOR_EVER, LATER)
    ((_, _, path),) = packs(folder)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DamagedPack, match="torn"):
        read_index(path)


def test_packs_go_whole_before_segments_and_leave_no_gap(tmp_path: Path) -> None:
    folder = landing(tmp_path, 12)
    for seq in range(1, 12):
        os.utime(segment_path(folder, seq), (1, 1))
    pack(folder, 4, LATER)
    pack(folder, 8, LATER)
    (gone,) = release(tmp_path, {"gateway": 6}, keep_seconds=3600)
    assert gone.segments == 4
    assert [(first, last) for first, last, _ in packs(folder)] == [(5, 8)]
    assert gaps(folder) == []
    (gone,) = release(tmp_path, {"gateway": 10}, keep_seconds=3600)
    assert gone.segments == 6
    assert sorted(numbers(folder, SEALED)) == [11, 12]
    assert packs(folder) == []


@given(bodies=st.lists(st.binary(max_size=3000), min_size=2, max_size=12), block=st.integers(1, 5000))
@settings_of_hypothesis(max_examples=examples(30), deadline=None)
def test_any_segments_come_back(tmp_path_factory: pytest.TempPathFactory, bodies: list[bytes], block: int) -> None:
    folder = tmp_path_factory.mktemp("landing") / "gateway"
    folder.mkdir()
    for seq, body in enumerate(bodies, 1):
        segment_path(folder, seq).write_bytes(body)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(packing, "BLOCK_BYTES", block)
        pack(folder, FOR_EVER, LATER)
    assert [read_packed(folder, seq) for seq in range(1, len(bodies))] == bodies[:-1]
