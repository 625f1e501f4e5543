"""Long runs: a hundred kills, and memory that stays flat. `make soak`; too long for every push."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from aiops_assets.lake.tables import Lake
from tests.faults.test_exactly_once import SETTINGS, kill_at_random
from tests.stack import Sender, running, wait_until

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

FLAT_MINUTES = 20
PARTS = ("gateway", "collector", "run_worker")


def test_a_hundred_kills_lose_and_repeat_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with running(home, **SETTINGS) as stack:
        with Sender(stack, "soak") as sender:
            killed = kill_at_random(stack, sender, kills=100, seed=11)
        sender.assert_exactly_once(Lake(home / "lake"), 180)
    assert sum(killed.values()) == 100


def test_memory_is_flat_under_steady_load(tmp_path: Path) -> None:
    """Resident memory of each part in the last quarter is at most a tenth above that of the second quarter."""
    with running(tmp_path / "home") as stack, Sender(stack, "flat", pause=0.05):
        sizes: dict[str, list[int]] = {part: [] for part in PARTS}
        until = time.monotonic() + FLAT_MINUTES * 60
        while time.monotonic() < until:
            wait_until(lambda: all(stack.pid_of(part) for part in PARTS), 60, "all parts run")
            for part in PARTS:
                pid = stack.pid_of(part)
                assert pid is not None
                sizes[part].append(psutil.Process(pid).memory_info().rss)
            time.sleep(5)
    for part, series in sizes.items():
        quarter = len(series) // 4
        early, late = sorted(series[quarter : 2 * quarter]), sorted(series[-quarter:])
        assert late[quarter // 2] <= 1.1 * early[quarter // 2], (part, early[quarter // 2], late[quarter // 2])
