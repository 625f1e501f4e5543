"""The landing writer: durable, contiguous, and whole again after a crash."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops_assets.landing import writer as module
from aiops_assets.landing.reader import gaps, numbers, read_segment
from aiops_assets.landing.segment import MAGIC, OPEN, SEALED, Delivery, encode, segment_path
from aiops_assets.landing.writer import GroupCommit, LandingFull, SegmentWriter, WriterBusy
from tests.examples import examples


def delivery(number: int, size: int = 20) -> Delivery:
    return Delivery(f"id-{number}", number, "telegraf", "text/plain", b"x" * size, {"format": "telegraf"})


def open_writer(root: Path, *, max_bytes: int = 1 << 20, max_age: float = 60.0) -> SegmentWriter:
    return SegmentWriter(root, "gateway", max_bytes=max_bytes, max_age_seconds=max_age)


def stored(folder: Path) -> list[str]:
    """Ids in order of position; fails on damage and on gaps."""
    assert gaps(folder) == []
    found: list[str] = []
    for seq in sorted(numbers(folder, SEALED)):
        segment = read_segment(folder, seq)
        assert segment.damage is None
        found += [entry.delivery_id for entry in segment.deliveries]
    return found


def test_deliveries_are_readable_in_order_once_sealed(tmp_path: Path) -> None:
    with open_writer(tmp_path, max_bytes=200) as writer:
        for number in range(20):
            writer.append_deliveries([delivery(number)])
    assert stored(writer.folder) == [f"id-{number}" for number in range(20)]
    assert len(numbers(writer.folder, SEALED)) > 1
    assert numbers(writer.folder, OPEN) == []


def test_numbers_go_on_where_the_last_process_stopped(tmp_path: Path) -> None:
    for number in range(3):
        with open_writer(tmp_path) as writer:
            writer.append_deliveries([delivery(number)])
    assert sorted(numbers(writer.folder, SEALED)) == [1, 2, 3]


def test_a_second_writer_is_kept_out_and_may_follow(tmp_path: Path) -> None:
    first = open_writer(tmp_path)
    with pytest.raises(WriterBusy):
        open_writer(tmp_path)
    first.close()
    open_writer(tmp_path).close()


@pytest.mark.parametrize("name", ["../x", "", "A", "a/b"])
def test_a_writer_cannot_have_a_path_for_a_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="writer id"):
        SegmentWriter(tmp_path, name, max_bytes=1, max_age_seconds=1)


def test_a_segment_without_deliveries_uses_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = open_writer(tmp_path, max_age=0.0)
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "writev", _fail_with(errno.ENOSPC))
        with pytest.raises(LandingFull):
            writer.append_deliveries([delivery(1)])
    assert not writer.seal_if_due()
    writer.close()
    assert list(writer.folder.glob("*.*seg")) == []
    assert numbers(writer.folder, OPEN) == []


def _fail_with(number: int):
    def fail(*_arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("call", ["writev", "fdatasync"])
def test_no_room_refuses_the_append_and_leaves_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    with open_writer(tmp_path) as writer:
        writer.append_deliveries([delivery(1)])
        with monkeypatch.context() as patch:
            patch.setattr(module.os, call, _fail_with(number))
            with pytest.raises(LandingFull):
                writer.append_deliveries([delivery(2)])
        writer.append_deliveries([delivery(3)])
    assert stored(writer.folder) == ["id-1", "id-3"]


def test_a_write_cut_short_by_a_full_disk_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writev = os.writev

    def short(descriptor: int, parts: Sequence[bytes]) -> int:
        return writev(descriptor, [b"".join(parts)[:7]])

    with open_writer(tmp_path) as writer:
        writer.append_deliveries([delivery(1)])
        with monkeypatch.context() as patch:
            patch.setattr(module.os, "writev", short)
            patch.setattr(module.os, "write", _fail_with(errno.ENOSPC))
            with pytest.raises(LandingFull):
                writer.append_deliveries([delivery(2)])
            patch.undo()
            patch.setattr(module.os, "writev", short)
            writer.append_deliveries([delivery(3)])
    assert stored(writer.folder) == ["id-1", "id-3"]


def test_when_even_cutting_back_fails_another_segment_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_writer(tmp_path) as writer:
        writer.append_deliveries([delivery(1)])
        with monkeypatch.context() as patch:
            patch.setattr(module.os, "fdatasync", _fail_with(errno.EIO))
            patch.setattr(module.os, "ftruncate", _fail_with(errno.EIO))
            with pytest.raises(OSError, match="Input/output"):
                writer.append_deliveries([delivery(2)])
        writer.append_deliveries([delivery(3)])
    assert [name for name in stored(writer.folder) if name != "id-2"] == ["id-1", "id-3"]


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_seal_that_fails_neither_loses_nor_repeats_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    with open_writer(tmp_path, max_age=0.0) as writer:
        writer.append_deliveries([delivery(1)])
        with monkeypatch.context() as patch:
            if call == "fsync":
                patch.setattr(module.os, "fsync", _fail_with(errno.EIO))
            else:
                patch.setattr(Path, "rename", _fail_with(errno.EIO))
            assert not writer.seal_if_due()
        writer.append_deliveries([delivery(2)])
    assert stored(writer.folder) == ["id-1", "id-2"]


def test_a_folder_sync_that_fails_after_the_rename_never_reuses_the_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_writer(tmp_path, max_age=0.0) as writer:
        writer.append_deliveries([delivery(1)])
        with monkeypatch.context() as patch:
            patch.setattr(module, "fsync_folder", _fail_with(errno.EIO))
            writer.seal_if_due()
        writer.append_deliveries([delivery(2)])
    assert stored(writer.folder) == ["id-1", "id-2"]


def test_recovery_at_every_byte_keeps_whole_deliveries_and_nothing_else(tmp_path: Path) -> None:
    batch = [delivery(number, number) for number in range(3)]
    data = MAGIC + b"".join(part for entry in batch for part in encode(entry))
    lengths = [sum(map(len, encode(entry))) for entry in batch]
    for cut in range(len(data) + 1):
        root = tmp_path / str(cut)
        folder = root / "gateway"
        folder.mkdir(parents=True)
        segment_path(folder, 1, OPEN).write_bytes(data[:cut])
        with open_writer(root) as writer:
            writer.append_deliveries([delivery(99)])
        whole = sum(cut >= len(MAGIC) + sum(lengths[: index + 1]) for index in range(3))
        assert stored(folder) == [*(f"id-{number}" for number in range(whole)), "id-99"]


@settings(deadline=None, max_examples=examples(25))
@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=8), st.data())
def test_whatever_was_appended_before_a_crash_is_there_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, bool]], data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("landing")
    expected: list[str] = []
    number = 0
    writer = open_writer(root, max_bytes=300)
    for count, crash in steps:
        batch = [delivery(number + index) for index in range(count)]
        number += count
        writer.append_deliveries(batch)
        expected += [entry.delivery_id for entry in batch]
        if crash:
            _abandon(writer)
            opened = list(writer.folder.glob(f"*{OPEN}"))
            if opened:
                torn = b"".join(encode(delivery(10_000)))
                with opened[0].open("ab") as file:
                    file.write(torn[: data.draw(st.integers(0, len(torn) - 1))])
            writer = open_writer(root, max_bytes=300)
    writer.close()
    assert stored(writer.folder) == expected


def _abandon(writer: SegmentWriter) -> None:
    """What a killed process leaves: descriptors closed, nothing sealed."""
    for descriptor in (writer._descriptor, writer._lock):
        if descriptor >= 0:
            os.close(descriptor)


def test_everybody_who_waits_shares_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    fdatasync = os.fdatasync
    monkeypatch.setattr(module.os, "fdatasync", lambda descriptor: calls.append(1) or fdatasync(descriptor))

    async def run() -> None:
        commit = GroupCommit(open_writer(tmp_path))
        commit.start()
        await asyncio.gather(*(commit.submit(delivery(number)) for number in range(200)))
        await commit.close()

    asyncio.run(run())
    assert sorted(stored(tmp_path / "gateway")) == sorted(f"id-{number}" for number in range(200))
    assert len(calls) <= 3


def test_nothing_is_promised_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        commit = GroupCommit(open_writer(tmp_path, max_age=0.0))
        commit.start()
        await commit.submit(delivery(1))
        with monkeypatch.context() as patch:
            patch.setattr(module.os, "writev", _fail_with(errno.ENOSPC))
            with pytest.raises(LandingFull):
                await commit.submit(delivery(2))
        await commit.submit(delivery(3))
        await commit.close()

    asyncio.run(run())
    assert stored(tmp_path / "gateway") == ["id-1", "id-3"]


def test_an_unforeseen_failure_reaches_those_who_wait_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        commit = GroupCommit(open_writer(tmp_path))
        commit.start()
        with monkeypatch.context() as patch:
            patch.setattr(SegmentWriter, "append", _raise_value_error)
            with pytest.raises(ValueError, match="unforeseen"):
                await commit.submit(delivery(1))
        await commit.submit(delivery(2))
        assert commit.alive
        await commit.close()
        with pytest.raises(RuntimeError, match="closed"):
            commit.submit(delivery(3))

    asyncio.run(run())
    assert stored(tmp_path / "gateway") == ["id-2"]


def _raise_value_error(*_arguments: object) -> None:
    raise ValueError("unforeseen")


def test_a_quiet_segment_is_sealed_by_age(tmp_path: Path) -> None:
    async def run() -> None:
        commit = GroupCommit(open_writer(tmp_path, max_age=0.05))
        commit.start()
        await commit.submit(delivery(1))
        async with asyncio.timeout(10):
            while not numbers(tmp_path / "gateway", SEALED):  # noqa: ASYNC110 - files announce nothing
                await asyncio.sleep(0.01)
        await commit.close()

    asyncio.run(run())


_LIMITED = """
import resource, sys
from pathlib import Path
from aiops_assets.landing.segment import Delivery
from aiops_assets.landing.writer import LandingFull, SegmentWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
accepted = 0
with SegmentWriter(Path(sys.argv[1]), "gateway", max_bytes=1 << 20, max_age_seconds=0.0) as writer:
    for number in range(60):
        try:
            writer.append_deliveries([Delivery(f"id-{number}", 0, "telegraf", "", b"x" * 300, {})])
            accepted += 1
        except LandingFull:
            print("full")
            writer.seal_if_due()
print(accepted)
"""


def test_a_real_limit_on_file_size_refuses_and_recovers(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _LIMITED, str(tmp_path)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.split()
    assert "full" in lines
    assert len(stored(tmp_path / "gateway")) == int(lines[-1])
