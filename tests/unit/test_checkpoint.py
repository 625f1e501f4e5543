"""Saved session state: exact, atomic, never pickled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aiops_assets.live.checkpoint import Checkpoint, load_newest, save


def checkpoint(mark: int) -> Checkpoint:
    arrays = {"level": np.array([0.1 + 0.2, np.nan, -np.inf]), "open": np.array([True, False, True])}
    return Checkpoint({"rules": arrays, "statistics": {"count": np.arange(mark)}}, {"positions": {"gateway": mark}})


def test_arrays_come_back_bit_for_bit(tmp_path: Path) -> None:
    save(tmp_path, 1, checkpoint(3))
    found = load_newest(tmp_path)
    assert found is not None
    number, loaded = found
    assert number == 1
    assert loaded.document == {"positions": {"gateway": 3}}
    for engine, state in checkpoint(3).engines.items():
        for name, array in state.items():
            assert loaded.engines[engine][name].dtype == array.dtype
            assert loaded.engines[engine][name].tobytes() == array.tobytes()


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for number in range(1, 6):
        save(tmp_path, number, checkpoint(number))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000000004.npz", "000000000005.npz"]


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_torn_checkpoint_falls_back_to_the_one_before(tmp_path: Path, keep: int) -> None:
    save(tmp_path, 1, checkpoint(1))
    save(tmp_path, 2, checkpoint(2))
    newest = tmp_path / "000000000002.npz"
    newest.write_bytes(newest.read_bytes()[:keep])
    found = load_newest(tmp_path)
    assert found is not None
    assert found[0] == 1


def test_without_any_readable_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "absent") is None
    (tmp_path / "000000000001.npz").write_bytes(b"not an archive")
    assert load_newest(tmp_path) is None


def test_object_arrays_are_refused_because_they_would_need_pickle(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        save(tmp_path, 1, Checkpoint({"rules": {"bad": np.array([object()])}}, {}))
    assert not list(tmp_path.iterdir())
