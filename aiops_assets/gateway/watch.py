"""Looks at the landing zone once a second and closes the intake while it must not grow.

What belongs here: what is known about backlog, room and the live session, refreshed off the event loop. What does not:
the answers given because of it (``intake``, ``pages``).
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from aiops_assets.gateway.answers import Refusal, unavailable
from aiops_assets.gateway.intake import RETRY_LATER, Intake
from aiops_assets.landing.reader import Backlog, BacklogMeter
from aiops_assets.live.progress import Progress, read_progress
from aiops_assets.settings import Home

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0
NOTHING = Backlog(0, 0, None)
#: room that intake leaves for sessions and the operations database: this much, or a twentieth of a small disk
RESERVE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class View:
    """What was seen last. ``free`` and ``reserve`` in bytes, ``seen_at`` in seconds since the epoch."""

    backlog: Backlog = NOTHING
    progress: Progress = field(default_factory=Progress)
    free: int = 0
    reserve: int = 0
    seen_at: float = 0.0


class Watch:
    """Keeps ``view`` fresh and the intake open or closed accordingly."""

    def __init__(self, home: Home, intake: Intake, *, max_backlog_bytes: int) -> None:
        self.view = View()
        self._home, self._intake, self._max_backlog = home, intake, max_backlog_bytes
        self._meter = BacklogMeter(home.landing)

    def look(self) -> View:
        """Read positions, sizes and free room from disk."""
        progress = read_progress(self._home.live)
        backlog = self._meter.measure(progress.taken)
        free, reserve = room(self._home.landing)
        return View(backlog, progress, free, reserve, time.time())

    def reason_to_close(self, view: View) -> Refusal | None:
        """Why nothing may be accepted now, if there is a reason."""
        if view.free < view.reserve:
            return unavailable("disk_full", f"the disk is full: {view.free} bytes are free", RETRY_LATER)
        if view.backlog.size > self._max_backlog:
            message = f"{view.backlog.size} bytes wait to be taken, the limit is {self._max_backlog}"
            return unavailable("backlog", message, RETRY_LATER)
        return None

    async def refresh(self) -> None:
        """Look once, and open or close the intake."""
        self.view = await asyncio.to_thread(self.look)
        reason = self.reason_to_close(self.view)
        before, self._intake.closed = self._intake.closed, reason
        if reason is not None and before is None:
            log.warning("intake is closed: %s", reason.message)
        elif reason is None and before is not None:
            log.info("intake is open again")

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            try:
                await self.refresh()
            except OSError:
                log.exception("the landing zone cannot be looked at")
            await asyncio.sleep(INTERVAL_SECONDS)


def room(folder: Path) -> tuple[int, int]:
    """(bytes free, bytes to leave free) on a folder's file system."""
    status = os.statvfs(folder)
    total = status.f_blocks * status.f_frsize
    return status.f_bavail * status.f_frsize, min(RESERVE_BYTES, total // 20)
