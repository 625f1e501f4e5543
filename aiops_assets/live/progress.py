"""What a live session says about itself: a small JSON file, rewritten whole after every commit.

Readers (sensor, gateway, ``aiops status``) treat it as a hint: the truth about positions is in the Delta tables.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError


class SourceProgress(BaseModel):
    """One source since the home folder exists. Instants are microseconds since the epoch (UTC), 0 when never."""

    deliveries: int = 0
    points: int = 0
    #: logs, errors, spans, tickets, documents and news of external alerts
    events: int = 0
    duplicates: int = 0
    conflicts: int = 0
    quarantined: int = 0
    refused_series: int = 0
    late: int = 0
    last_received_at: int = 0
    last_event_at: int = 0
    #: rows stored per second, averaged over the last minute
    rate: float = 0.0


class Progress(BaseModel):
    """The state of the live plane."""

    version: int = 1
    session: str = ""
    pid: int = 0
    started_at: int = 0
    updated_at: int = 0
    #: last segment taken, by landing writer
    taken: dict[str, int] = Field(default_factory=dict)
    watermark: int = 0
    series: int = 0
    batches: int = 0
    #: age in seconds of the newest batch's first delivery when a stage was done: landing (taken), points, incidents
    lag: dict[str, float] = Field(default_factory=dict)
    sources: dict[str, SourceProgress] = Field(default_factory=dict)
    open_alerts: int = 0
    hours_closed: int = 0
    #: problems for people, newest last: disk full, a gap in a writer's numbers, a wrong aiops.yaml
    problems: list[str] = Field(default_factory=list)


def read_progress(live: Path) -> Progress:
    """The last progress written, or an empty one when there is none (yet)."""
    try:
        return Progress.model_validate_json((live / "progress.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return Progress()


def write_progress(live: Path, progress: Progress) -> None:
    """Replace the progress file atomically."""
    temporary = live / f".progress.{os.getpid()}"
    temporary.write_text(progress.model_dump_json(), "utf-8")
    temporary.replace(live / "progress.json")


class SourceRates:
    """Rows stored per second by source, over the last minute."""

    def __init__(self, window_seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._window, self._clock = window_seconds, clock
        self._seen: dict[str, deque[tuple[float, int]]] = {}

    def update(self, sources: Mapping[str, SourceProgress]) -> None:
        """Note the present counts and set each source's ``rate``."""
        now = self._clock()
        for name, source in sources.items():
            seen = self._seen.setdefault(name, deque())
            if not seen or now - seen[-1][0] >= 1.0:
                seen.append((now, source.points + source.events))
            while len(seen) > 1 and now - seen[1][0] >= self._window:
                seen.popleft()
            elapsed = now - seen[0][0]
            source.rate = (
                round((source.points + source.events - seen[0][1]) / elapsed, 2) if elapsed >= 1.0 else source.rate
            )
