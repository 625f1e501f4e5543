"""One story of everything that goes wrong at once, in any length, for ``make soak``: minutes, or an hour.

A platform on a small disk of its own takes a steady load whose event time runs faster than the clock, so that many
hours close. Meanwhile parts are killed, code and configuration are reloaded, late rows come, hours are backfilled and
the disk fills up and is freed. At the end nothing may be lost, doubled, open, different or damaged.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import polars as pl
import psutil

from aiops_assets.detection.receipts import newest, read_receipts
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND, hour_key, hour_start
from aiops_assets.lake.tables import Lake
from aiops_assets.live.progress import read_progress
from tests.faults.test_disk_full import fill
from tests.faults.test_exactly_once import SETTINGS, kill_at_random
from tests.stack import BATCH_POINTS, Sender, Stack, running, wait_until

PARTS = ("gateway", "collector", "run_worker")
#: a batch of the steady load moves event time by this much
BATCH_SECONDS = 2.0
CONFIGS = (
    "rules:\n- {name: story-high, metric: story.value, op: '>=', value: 1.0e+9, severity: info}\n",
    "rules:\n- {name: story-high, metric: story.value, op: '>=', value: 2.0e+9, severity: info}\n",
)


class Moving(Sender):
    """The steady load: event time starts hours ago and moves on with every batch, up to a minute before now."""

    def __init__(self, stack: Stack, name: str, hours: float, pause: float = 0.02) -> None:
        super().__init__(stack, name, pause)
        self.reached = time.time_ns() // 1000 - int(hours * MICROS_PER_HOUR)
        self.sent = 0

    def _run(self) -> None:
        with httpx.Client(timeout=5) as client:
            while not self._stop.is_set():
                now = time.time_ns() // 1000 - 60 * MICROS_PER_SECOND
                step = BATCH_SECONDS * MICROS_PER_SECOND if self.reached < now - MICROS_PER_HOUR else 20_000
                self.reached = min(self.reached + int(step), now)
                body = "\n".join(
                    f"{self._name},host=h{n} value={self.sent}.{n:02d} {self.reached * 1000}"
                    for n in range(BATCH_POINTS)
                )
                while not self._post(client, body):
                    if self._stop.wait(0.05):
                        return
                self.acknowledged += BATCH_POINTS
                self.sent += 1
                self._stop.wait(self._pause)


@dataclass
class Story:
    """The running platform and what was seen of it."""

    stack: Stack
    disk: Path
    minutes: float
    kills: int
    sizes: dict[str, list[int]] = field(default_factory=lambda: {part: [] for part in PARTS})
    late: int = 0
    killed: dict[str, int] = field(default_factory=dict)

    @property
    def lake(self) -> Lake:
        return Lake(self.stack.home / "lake")

    def aiops(self, *arguments: str, seconds: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a command of the product beside the running platform."""
        return subprocess.run(
            [sys.executable, "-m", "aiops_assets.cli", *arguments],
            env=self.stack.variables,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def closed_hours(self) -> list[str]:
        return sorted(newest(read_receipts(self.lake)))

    def send_late_rows(self, hour: str) -> None:
        """Points of a host of its own, in an hour that is closed."""
        start = hour_start(hour) * 1000
        body = "\n".join(f"late,host=late value={n} {start + (self.late + n) * 1_000_000_000}" for n in range(100))
        headers = {"Authorization": f"Token {self.stack.key}"}

        def accepted() -> bool:
            try:
                url = f"{self.stack.url}/webhooks/telegraf"
                return httpx.post(url, content=body, headers=headers, timeout=5).status_code < 300
            except httpx.HTTPError:
                return False

        wait_until(accepted, 60, "late rows are accepted")
        self.late += 100

    def fill_and_free(self) -> None:
        """No room for the next commit; the platform says so; then there is room again."""
        ballast = fill(self.disk, leave_bytes=8 * 1024 * 1024)
        try:
            wait_until(self._says_that_the_disk_is_full, 90, "the full disk is told")
        finally:
            ballast.unlink()

    def _says_that_the_disk_is_full(self) -> bool:
        said = self.aiops("status", "--json", seconds=60).stdout
        return "disk" in said.lower() or "room" in said.lower()

    def watch_memory(self, stop: threading.Event) -> None:
        """Resident bytes of each part every five seconds."""
        while not stop.wait(5):
            for part in PARTS:
                pid = self.stack.pid_of(part)
                try:
                    if pid is not None:
                        self.sizes[part].append(psutil.Process(pid).memory_info().rss)
                except psutil.NoSuchProcess:
                    continue


def tell(home: Path, disk: Path, *, minutes: float, kills: int, hours: float, pause: float = 0.02) -> Story:
    """Run the story; every promise of the platform is asserted at its end."""
    with running(home, **SETTINGS, AIOPS_CLOSE_GRACE_SECONDS="30") as stack:
        story = Story(stack, disk, minutes, kills)
        stop = threading.Event()
        watcher = threading.Thread(target=story.watch_memory, args=(stop,), daemon=True)
        watcher.start()
        with Moving(stack, "story", hours, pause) as sender:
            _chapters(story, sender)
        stop.set()
        watcher.join(30)
        sender.assert_exactly_once(story.lake, 180)
        wait_until(lambda: _late_rows(story) == story.late, 120, f"{story.late} late rows stored")
        wait_until(lambda: not _lacking(story), 240, "every hour that is over is closed with all its rows")
        assert not [p for p in read_progress(home / "live").problems if "missing" in p]
        _assert_nothing_differs(story)
    return story


def _chapters(story: Story, sender: Moving) -> None:
    """Kills all along; between them, one after the other, everything else that happens to a platform."""
    until = time.monotonic() + story.minutes * 60
    events: list[Callable[[], None]] = [
        lambda: _everything_dies(story, sender),
        lambda: (story.stack.home / "aiops.yaml").write_text(CONFIGS[0]),
        lambda: story.send_late_rows(story.closed_hours()[0]),
        lambda: _succeeds(story, "reload"),
        lambda: _succeeds(story, "backfill", *_first_two(story.closed_hours())),
        lambda: (story.stack.home / "aiops.yaml").write_text(CONFIGS[1]),
        story.fill_and_free,
        lambda: story.send_late_rows(story.closed_hours()[-1]),
    ]
    wait_until(lambda: len(story.closed_hours()) >= 2, 120, "two hours are closed")
    share, left = story.kills // (len(events) + 1), story.kills
    pause = story.minutes * 60 / (len(events) + 1)
    for number, event in enumerate(events):
        _kill(story, sender, share, number)
        left -= share
        event()
        seconds = pause - (time.monotonic() - (until - story.minutes * 60) - number * pause)
        if seconds > 0:
            target = sender.acknowledged + int(seconds * BATCH_POINTS)
            wait_until(lambda target=target: sender.acknowledged >= target or time.monotonic() > until, 600, "load")
    _kill(story, sender, left, 99)
    while time.monotonic() < until:
        reached = sender.acknowledged
        wait_until(lambda n=reached: sender.acknowledged > n, 120, "the load goes on")


def _kill(story: Story, sender: Moving, kills: int, seed: int) -> None:
    for part, count in kill_at_random(story.stack, sender, kills=kills, seed=seed).items():
        story.killed[part] = story.killed.get(part, 0) + count


def _everything_dies(story: Story, sender: Moving) -> None:
    """The whole platform ends with -9 at once and is started again."""
    acknowledged = sender.acknowledged
    story.stack.kill_all()
    story.stack.start()
    wait_until(lambda: sender.acknowledged > acknowledged + 500, 60, "intake goes on")


def _first_two(hours: list[str]) -> tuple[str, str]:
    """A stretch of the first two hours: its start, and the time up to which it goes."""
    return hours[0], hour_key(hour_start(hours[0]) + 2 * MICROS_PER_HOUR)


def _succeeds(story: Story, *arguments: str) -> None:
    done = story.aiops(*arguments)
    assert done.returncode == 0, f"aiops {' '.join(arguments)}: {done.stdout}{done.stderr}"


def _late_rows(story: Story) -> int:
    rows = story.lake.scan("metric_points", columns=["metric"]).filter(pl.col("metric") == "late.value")
    return int(rows.select(pl.len()).collect().item())


def _lacking(story: Story) -> list[str]:
    """Hours that are over and have no receipt for all of their rows."""
    receipts = newest(read_receipts(story.lake))
    present = hour_key(time.time_ns() // 1000 - 90 * MICROS_PER_SECOND)
    return [
        part.partition
        for part in story.lake.partitions("metric_points")
        if part.partition < present and (part.partition not in receipts or receipts[part.partition].rows != part.rows)
    ]


def _assert_nothing_differs(story: Story) -> None:
    hours = story.closed_hours()
    after = hour_key(hour_start(hours[-1]) + MICROS_PER_HOUR)
    again = story.aiops("replay", hours[0], after, "--as-recorded", "--json")
    assert again.returncode == 0, again.stdout + again.stderr
    verified = story.aiops("lake", "verify", "--full", "--json")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert not json.loads(verified.stdout).get("findings"), verified.stdout


def assert_flat(sizes: dict[str, list[int]]) -> None:
    """Resident memory of each part in the last quarter is at most a tenth above that of the second quarter."""
    for part, series in sizes.items():
        quarter = len(series) // 4
        early, late = sorted(series[quarter : 2 * quarter]), sorted(series[-quarter:])
        assert late[quarter // 2] <= 1.1 * early[quarter // 2], (part, early[quarter // 2], late[quarter // 2])
