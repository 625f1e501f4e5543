"""The loop of a live session: follow the landing zone until it is quiet or the session's time is up.

What belongs here: pacing, lease, and when to stop. The work of a batch is in ``pipeline``; what the Dagster UI is told
is the caller's (``session``), through ``tell``.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aiops_assets.live.fence import Fence
from aiops_assets.live.lease import live_lease
from aiops_assets.live.pipeline import BatchReport, Pipeline
from aiops_assets.settings import Settings

log = logging.getLogger(__name__)

#: shortest time between two micro-batches: fewer, larger commits
BATCH_SECONDS = 0.5
#: how often an idle session looks for segments
POLL_SECONDS = 0.05
#: how often an idle session does what is due without segments
IDLE_SECONDS = 5.0
#: how often the session asks whether its code was replaced
CODE_CHECK_SECONDS = 10.0
#: a session does not begin a batch with less free disk than this
MINIMUM_FREE_BYTES = 64 * 1024 * 1024

Ending = Literal["lease held by another session", "time is up", "quiet", "code replaced", "asked to stop", "disk full"]


@dataclass(slots=True)
class Outcome:
    """Why a session ended and what it did."""

    ending: Ending
    batches: int = 0
    points: int = 0
    alerts: int = 0


class DiskFull(Exception):
    """There is no room for the next commit; nothing was lost, what waits stays in the landing zone."""


def follow(
    settings: Settings,
    *,
    owner: str,
    tell: Callable[[Pipeline, BatchReport, bool], None],
    should_stop: Callable[[], bool] = lambda: False,
    lease_wait_seconds: float = 60.0,
) -> Outcome:
    """Run one live session to its end.

    Args:
        owner: who holds the lease, for people: the run's id.
        tell: called after every batch with what it did; the last call has ``True`` as its third argument.
        should_stop: asked between batches.
        lease_wait_seconds: how long a successor waits for its predecessor to go.

    Raises:
        DiskFull: there is no room; the state on disk is whole.
        LeaseLost: the lease went to somebody else; nothing was committed after that.
    """
    home = settings.paths
    lease, fence = live_lease(home.live), Fence(home.operations_url, owner)
    until = time.monotonic() + lease_wait_seconds

    def keep_waiting() -> bool:
        return time.monotonic() < until and not should_stop()

    if not lease.acquire(owner, seconds=settings.session_seconds, keep_waiting=keep_waiting):
        return Outcome("lease held by another session")
    try:
        if not fence.acquire(keep_waiting):
            return Outcome("lease held by another session")

        def check() -> None:
            lease.check()
            fence.check()

        with _naming_a_full_disk():
            pipeline = Pipeline(settings, session=owner, check_lease=check)
            tell(pipeline, pipeline.open(), False)
            outcome = _drain(settings, pipeline, tell, lambda: should_stop() or lease.wanted())
            tell(pipeline, BatchReport(), True)
            pipeline.close()
        return outcome
    finally:
        fence.release()
        lease.release()


def _drain(
    settings: Settings,
    pipeline: Pipeline,
    tell: Callable[[Pipeline, BatchReport, bool], None],
    should_stop: Callable[[], bool],
) -> Outcome:
    started = last_work = last_idle = last_code_check = time.monotonic()
    code = code_stamp()
    outcome = Outcome("quiet")
    while True:
        began = time.monotonic()
        if should_stop():
            outcome.ending = "asked to stop"
            return outcome
        if began - started >= settings.session_seconds:
            outcome.ending = "time is up"
            return outcome
        if began - last_work >= settings.session_quiet_seconds:
            return outcome
        if began - last_code_check >= CODE_CHECK_SECONDS:
            last_code_check = began
            if code_stamp() != code:
                outcome.ending = "code replaced"
                return outcome
        if pipeline.waiting():
            _make_sure_of_room(settings)
            report = pipeline.step()
            if report is not None:
                last_work = time.monotonic()
                outcome.batches += 1
                outcome.points += report.points
                outcome.alerts += report.alerts
                tell(pipeline, report, False)
                # A backlog is drained at full speed; a trickle is gathered into batches.
                if not pipeline.waiting():
                    time.sleep(max(0.0, BATCH_SECONDS - (time.monotonic() - began)))
            continue
        if began - last_idle >= IDLE_SECONDS:
            last_idle = began
            report = pipeline.idle()
            if report is not None:
                tell(pipeline, report, False)
        time.sleep(POLL_SECONDS)


def _make_sure_of_room(settings: Settings) -> None:
    free = shutil.disk_usage(settings.paths.root).free
    if free < MINIMUM_FREE_BYTES:
        need = MINIMUM_FREE_BYTES // 1024**2
        raise DiskFull(f"{settings.paths.root}: {free // 1024**2} MiB free, a session needs {need}")


@contextlib.contextmanager
def _naming_a_full_disk() -> Iterator[None]:
    """delta-rs wraps ENOSPC in its own errors, SQLite in OperationalError; the text is what they share."""
    try:
        yield
    except Exception as error:
        if any(text in str(error) for text in ("No space left", "os error 28", "disk is full")):
            raise DiskFull(str(error)) from error
        raise


def code_stamp() -> int:
    """Changes when any of the package's code does: the newest modification time of its files, in nanoseconds."""
    package = Path(__file__).parent.parent
    return max(path.stat().st_mtime_ns for path in package.rglob("*.py"))
