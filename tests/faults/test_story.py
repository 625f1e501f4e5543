"""The story of everything that goes wrong at once, short: what `make soak` tells first, before its hour."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import story
from tests.faults.test_disk_full import small_file_system


@pytest.mark.soak
@pytest.mark.timeout(420)
def test_after_kills_reloads_late_rows_and_a_full_disk_nothing_is_lost_or_different(tmp_path: Path) -> None:
    with small_file_system(tmp_path / "disk", 1024) as disk:
        told = story.tell(disk / "home", disk, minutes=0.7, kills=30, hours=4.5)
    assert told.late == 200
    assert sum(told.killed.values()) == 30
    assert set(told.killed) == {"gateway", "run_worker", "collector", "code_server"}
