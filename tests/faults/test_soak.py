"""Long runs: a hundred kills, and an hour of everything at once. `make soak`; too long for every push."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiops_assets.lake.tables import Lake
from tests.faults import story
from tests.faults.test_disk_full import small_file_system
from tests.faults.test_exactly_once import SETTINGS, kill_at_random
from tests.stack import Sender, running

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

SOAK_MINUTES = 60


def test_a_hundred_kills_lose_and_repeat_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with running(home, **SETTINGS) as stack:
        with Sender(stack, "soak") as sender:
            killed = kill_at_random(stack, sender, kills=100, seed=11)
        sender.assert_exactly_once(Lake(home / "lake"), 180)
    assert sum(killed.values()) == 100


@pytest.mark.timeout(2 * 3600)
def test_an_hour_of_everything_that_goes_wrong_at_once(tmp_path: Path) -> None:
    with small_file_system(tmp_path / "disk", 6 * 1024) as disk:
        told = story.tell(disk / "home", disk, minutes=SOAK_MINUTES, kills=100, hours=40, pause=0.04)
    assert sum(told.killed.values()) == 100
    story.assert_flat(told.sizes)
    assert told.late == 200
