"""The lease of the live plane: one owner, whatever happens to its process."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from aiops_assets.live.lease import FileLease, LeaseLost, held


def _hold_for_ever(path: Path, ready: multiprocessing.synchronize.Event) -> None:
    FileLease(path).acquire("other", seconds=60, keep_waiting=lambda: False)
    ready.set()
    signal.pause()


def test_a_second_owner_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    first, second = FileLease(tmp_path / "lease"), FileLease(tmp_path / "lease")
    assert first.acquire("run-1", seconds=60, keep_waiting=lambda: False)
    assert not second.acquire("run-2", seconds=60, keep_waiting=lambda: False)
    holder = second.holder()
    assert holder is not None
    assert (holder.owner, holder.pid) == ("run-1", os.getpid())
    assert holder.deadline == pytest.approx(holder.started_at + 60)


def test_a_released_lease_is_free(tmp_path: Path) -> None:
    lease = FileLease(tmp_path / "lease")
    lease.acquire("run-1", seconds=60, keep_waiting=lambda: False)
    lease.release()
    assert lease.holder() is None
    assert FileLease(tmp_path / "lease").acquire("run-2", seconds=60, keep_waiting=lambda: False)


def test_a_killed_owner_leaves_the_lease_free(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    owner = context.Process(target=_hold_for_ever, args=(tmp_path / "lease", ready), daemon=True)
    owner.start()
    assert ready.wait(30)
    lease = FileLease(tmp_path / "lease")
    holder = lease.holder()
    assert holder is not None
    assert holder.pid == owner.pid
    owner.kill()
    owner.join(30)
    assert lease.holder() is None
    assert lease.acquire("successor", seconds=60, keep_waiting=lambda: False)


@pytest.mark.parametrize("harm", ["removed", "replaced"])
def test_a_lost_lock_file_stops_the_holder_before_its_next_commit(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "lease"
    lease = FileLease(path)
    lease.acquire("run-1", seconds=60, keep_waiting=lambda: False)
    lease.check()
    path.unlink()
    if harm == "replaced":
        path.touch()
    with pytest.raises(LeaseLost):
        lease.check()


def test_waiting_for_a_held_lease_ends_with_its_holders_name(tmp_path: Path) -> None:
    FileLease(tmp_path / "lease").acquire("run-1", seconds=60, keep_waiting=lambda: False)
    with pytest.raises(TimeoutError, match="run-1"), held(FileLease(tmp_path / "lease"), "backfill", wait_seconds=0.1):
        pass
