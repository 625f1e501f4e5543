"""Every acknowledged point is in the table once, whatever is killed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from aiops_assets.lake.tables import Lake
from aiops_assets.live.progress import read_progress
from tests.stack import Sender, Stack, running, wait_until

#: parts in the proportion in which they are killed
PARTS = ["gateway"] * 4 + ["run_worker"] * 3 + ["collector"] * 2 + ["code_server"]
SETTINGS = {
    "AIOPS_SESSION_SECONDS": "25",
    "AIOPS_SESSION_RETRY_SECONDS": "1",
    "AIOPS_RESTART_BACKOFF_SECONDS": "1",
    "AIOPS_SEGMENT_MAX_AGE_SECONDS": "0.2",
}


def kill_at_random(stack: Stack, sender: Sender, kills: int, seed: int) -> dict[str, int]:
    """Kill parts at random points, each once work has gone on since the kill before; counts by part."""
    dice = random.Random(seed)
    done: dict[str, int] = {}
    while sum(done.values()) < kills:
        part = dice.choice(PARTS)
        wanted = sender.acknowledged + dice.randint(50, 800)
        wait_until(lambda wanted=wanted: sender.acknowledged >= wanted, 120, "points are acknowledged")
        wait_until(lambda part=part: stack.pid_of(part) is not None, 120, f"{part} is back")
        if stack.kill(part):
            done[part] = done.get(part, 0) + 1
    return done


@pytest.mark.soak
@pytest.mark.timeout(420)
def test_process_kills_and_stack_kills_lose_and_repeat_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with running(home, **SETTINGS) as stack:
        with Sender(stack, "faults") as sender:
            killed = kill_at_random(stack, sender, kills=30, seed=4)
            for _ in range(3):
                acknowledged = sender.acknowledged
                stack.kill_all()
                stack.start()
                wait_until(lambda n=acknowledged: sender.acknowledged > n + 500, 60, "intake goes on")
        sender.assert_exactly_once(Lake(home / "lake"), 120)
        assert sum(killed.values()) == 30
        assert set(killed) == {"gateway", "run_worker", "collector", "code_server"}
        assert not [p for p in read_progress(home / "live").problems if "missing" in p]
