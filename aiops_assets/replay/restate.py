"""``aiops restate``: closed hours judged again with today's rules, and written; what was there before stays readable.

What belongs here: which hours are left to do, the order of lease and session, and how it goes on after a kill. What
does not: deriving and amending (``live.deriving``).

The live plane is owned for as long as it takes, and served: what arrives meanwhile is taken between two steps, so
nobody waits for alerts. A record in ``home.live`` says which hours are done; the same command goes on after them. Old
revisions of receipts and decisions stay, so that what was known before can still be explained.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ValidationError

from aiops_assets.detection.receipts import RESTATED, Receipt, newest, read_receipts
from aiops_assets.lake.tables import Lake
from aiops_assets.live.ownership import WAIT_SECONDS, owned
from aiops_assets.live.pipeline import BatchReport, Pipeline
from aiops_assets.replay.period import Period
from aiops_assets.settings import Settings

_NAME = "restate.json"


class Record(BaseModel):
    """A restatement that was begun: instants in seconds since the epoch, ``done`` the last hour that is written."""

    first: str
    last: str
    reason: str
    config: str
    started_at: float
    done: str = ""


@dataclass(slots=True)
class Restated:
    """What came out. ``changed`` are receipts of hours that came out otherwise, ``hours`` all that were looked at."""

    first: str
    last: str
    hours: int = 0
    resumed_after: str = ""
    changed: list[Receipt] = field(default_factory=list)

    @property
    def raised(self) -> int:
        return sum(receipt.raised for receipt in self.changed)

    @property
    def amended(self) -> int:
        return sum(receipt.amended for receipt in self.changed)

    @property
    def withdrawn(self) -> int:
        return sum(receipt.withdrawn for receipt in self.changed)


def restate(
    settings: Settings,
    period: Period,
    *,
    reason: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
    wait_seconds: float = WAIT_SECONDS,
) -> Restated:
    """Judge the closed hours of a period again with what is known today, and write it.

    Args:
        reason: for people; it stands in receipts and on amended alerts.
        progress: called with hours done and to do.
        wait_seconds: how long to wait for the live plane.

    Raises:
        LookupError: the period has no closed hour.
        TimeoutError: somebody holds the live plane; the text says who.
    """
    first, last = period.hours
    with owned(settings, "aiops restate", wait_seconds=wait_seconds) as check_lease:
        pipeline = Pipeline(settings, session="restate", check_lease=check_lease)
        pipeline.open()
        try:
            return _restate(settings, pipeline, first, last, reason, progress)
        finally:
            pipeline.close()


def _restate(
    settings: Settings,
    pipeline: Pipeline,
    first: str,
    last: str,
    reason: str,
    progress: Callable[[int, int], None],
) -> Restated:
    record = _record(settings, first, last, reason)
    hours = [key for key in newest(read_receipts(Lake(settings.paths.lake), first, last)) if key > record.done]
    result = Restated(first, last, resumed_after=record.done)
    if not hours and not record.done:
        raise LookupError(f"no closed hour from {first} to {last}")
    total = len(hours)

    def tell(report: BatchReport, left: int) -> None:
        result.changed += report.receipts
        result.hours = total - left
        if result.hours:
            record.done = hours[result.hours - 1]
            _write(settings, record)
        progress(result.hours, total)
        if left and pipeline.waiting():
            pipeline.step()

    pipeline.rederive(hours, f"{RESTATED}: {reason}" if reason else RESTATED, tell)
    (settings.paths.live / _NAME).unlink(missing_ok=True)
    return result


def _record(settings: Settings, first: str, last: str, reason: str) -> Record:
    """The record of this restatement: the one begun before, if it is the same, else a new one."""
    from aiops_assets.config import load_config

    config = load_config(settings.paths.config).digest
    path = settings.paths.live / _NAME
    try:
        known = Record.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        known = None
    if known is not None and (known.first, known.last, known.reason, known.config) == (first, last, reason, config):
        return known
    record = Record(first=first, last=last, reason=reason, config=config, started_at=time.time())
    _write(settings, record)
    return record


def _write(settings: Settings, record: Record) -> None:
    path: Path = settings.paths.live / _NAME
    temporary = path.with_name(f".{_NAME}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(record.model_dump_json())
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
