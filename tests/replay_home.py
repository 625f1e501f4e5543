"""Homes with a past that is worth replaying: what tests of replays, explanations and restatements start from."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aiops_assets.detection.handover import Shelf
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND
from aiops_assets.live.pipeline import Pipeline
from aiops_assets.settings import Settings
from tests.home import home, send

MINUTE = 60 * MICROS_PER_SECOND
HOSTS = 4
#: minutes in which a host's disk is nearly full, by host number
FULL = {1: (150, 171), 2: (405, 440)}
#: minutes in which a host is silent
SILENT = {3: (260, 275)}


def start(hours_ago: int = 20) -> int:
    """The start (µs) of an hour so long ago."""
    return (time.time_ns() // 1000 // MICROS_PER_HOUR - hours_ago) * MICROS_PER_HOUR


def documents(first: int, minutes: int, hosts: int = HOSTS, seed: int = 1) -> list[dict[str, Any]]:
    """One document a host and minute in the ``collected`` format: CPU, a disk and the application's load."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0.0, 0.02, (minutes, hosts))
    made = []
    for minute in range(minutes):
        ts = first + minute * MINUTE
        for host in range(hosts):
            if host in SILENT and SILENT[host][0] <= minute < SILENT[host][1]:
                continue
            value = float(np.round(0.5 + 0.1 * np.sin(minute / 200) + noise[minute, host], 6))
            full = host in FULL and FULL[host][0] <= minute < FULL[host][1]
            points = [
                point("system.cpu.utilization", value, cpu="total"),
                point("system.filesystem.utilization", 0.93 if full else value, mountpoint="/"),
                point("app.load", value * 3),
            ]
            made.append({"host": f"web-{host}", "ts": ts + host * 1000, "points": points})
    return made


def point(metric: str, value: float, **labels: str) -> dict[str, Any]:
    """One gauge."""
    return {"metric": metric, "value": value, "unit": "1", "kind": "gauge", "labels": labels}


class Story:
    """A home whose session is driven step by step."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.settings: Settings = home(folder, **more)
        self.pipeline = Pipeline(self.settings)
        self.pipeline.open()

    def stream(self, sent: Sequence[dict[str, Any]], per_segment: int = 80, delay: int = 30) -> None:
        """Send documents in segments, each received ``delay`` seconds after its newest, and take them."""
        for begin in range(0, len(sent), per_segment):
            batch = sent[begin : begin + per_segment]
            send(self.settings, batch, at=max(entry["ts"] for entry in batch) + delay * MICROS_PER_SECOND)
            self.take()

    def take(self) -> None:
        """Take what waits."""
        while self.pipeline.step() is not None:
            pass

    def settle(self) -> None:
        """Let late hours be derived again."""
        for _ in range(12):
            self.pipeline.idle()

    def restart(self) -> None:
        """A session ends, another begins."""
        self.pipeline.close()
        self.pipeline = Pipeline(self.settings)
        self.pipeline.open()

    def configure(self, text: str) -> None:
        """Put another aiops.yaml in force."""
        self.settings.paths.config.write_text(text, "utf-8")

    @property
    def shelf(self) -> Shelf:
        """The states that are kept."""
        return Shelf(self.settings.paths.live / "handover")


RULES = """
rules:
- name: app-load
  metric: app.load
  op: ">="
  value: 1.85
  for: 1m
"""


def calm(folder: Path, hours: int = 9) -> Story:
    """Rows in order, nothing late, one configuration."""
    story = Story(folder)
    story.stream(documents(start(), 60 * hours))
    story.settle()
    return story


def eventful(folder: Path, tell: Callable[[str], None] = lambda what: None) -> Story:
    """Out of order, twice, late with amendments, another configuration within an hour, restarts, a gap, restated."""
    story = Story(folder)
    first = start()
    sent = documents(first, 60 * 9)
    held_back = [entry for entry in sent if entry["host"] == "web-1" and 140 <= (entry["ts"] - first) // MINUTE < 200]
    rest = [entry for entry in sent if entry not in held_back]
    shuffled = list(rest)
    draw = random.Random(3)
    for begin in range(0, len(shuffled), 160):
        part = shuffled[begin : begin + 160]
        draw.shuffle(part)
        shuffled[begin : begin + 160] = part
    third = len(shuffled) // 3
    story.stream(shuffled[:third], 40)
    story.stream(shuffled[third - 80 : third], 40)
    story.configure(RULES)
    story.stream(shuffled[third : 2 * third], 40)
    story.restart()
    story.stream(held_back, 200, delay=4 * 3600)
    story.settle()
    story.stream([entry for entry in shuffled[2 * third :] if not 400 <= (entry["ts"] - first) // MINUTE < 470], 40)
    story.restart()
    story.settle()
    return story
