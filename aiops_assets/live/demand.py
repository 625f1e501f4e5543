"""Whether a live session is needed: the landing sensor's judgement, without Dagster.

What belongs here: the sensor's cursor and the decision, as pure functions of what was seen. What does not: looking
(``sensors.landing``) and the session itself. The lease says who works, never a run's status: a run can be STARTED with
its process long dead, or dead to Dagster with its process working.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import xxhash
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aiops_assets.landing.reader import first_seq, look, writers
from aiops_assets.live.lease import LeaseInfo

log = logging.getLogger(__name__)


class Cursor(BaseModel):
    """What the sensor remembers from tick to tick; times are seconds since the epoch.

    Version 1 was the bare mapping writer → seq.
    """

    model_config = ConfigDict(extra="ignore")

    version: int = 2
    #: last segment known to be taken, by landing writer
    taken: dict[str, int] = Field(default_factory=dict)
    #: the need a session was last requested for, how often, and when
    need: str = ""
    batch: str = ""
    attempt: int = 0
    requested_at: float = 0.0


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A run of the live job that is not finished. ``alive`` is ``None`` when its process is not known (yet)."""

    run_id: str
    created_at: float
    started: bool
    alive: bool | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """What a tick sees. ``taken`` and ``waiting`` are segment numbers by landing writer."""

    now: float
    taken: Mapping[str, int]
    waiting: Mapping[str, int]
    holder: LeaseInfo | None
    runs: Sequence[LiveRun]
    #: whether anything was stored lately, so that a successor will have work
    flowing: bool = True
    #: whether the last finished run of the job failed
    last_failed: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, and how many unfinished runs beside the holder are too many."""

    #: a run takes 5 to 20 s from request to process; a successor that is early waits for the lease
    handover: float = 40.0
    start: float = 60.0
    first_retry: float = 5.0
    #: the longest pause while sessions fail without getting further (below 500 runs a day), and while they do
    longest_retry: float = 180.0
    longest_retry_with_progress: float = 30.0
    runs: int = 3


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do: ``run_key`` requests a session, ``None`` requests nothing; ``reason`` is for people."""

    reason: str
    cursor: Cursor
    run_key: str | None = None


def load_cursor(text: str | None) -> Cursor:
    """The cursor of the tick before, of any version; a broken one is logged and forgotten, never raised."""
    if not text:
        return Cursor()
    try:
        fields = orjson.loads(text)
        if isinstance(fields, dict) and "version" not in fields:
            return Cursor(taken=fields)
        return Cursor.model_validate(fields)
    except (orjson.JSONDecodeError, ValidationError) as error:
        log.warning("the landing sensor starts with an empty cursor, the old one cannot be read: %s", error)
        return Cursor()


def positions(
    landing: Path, known: Mapping[str, int], remembered: Mapping[str, int]
) -> tuple[dict[str, int], dict[str, int]]:
    """(taken, waiting): the last segment taken of each writer, and the next one of those that have it sealed.

    Segments are probed by name; a folder is listed only for a writer of which neither ``known`` (the session's
    progress) nor ``remembered`` (the cursor) says anything that fits its files.
    """
    taken, waiting = {}, {}
    for writer in writers(landing):
        folder = landing / writer
        position = known.get(writer, remembered.get(writer, -1))
        # The newest segment of a writer always stays, so a position without a file is from another landing zone.
        if position < 0 or not any(look(folder, seq) for seq in (position, position + 1)):
            position = first_seq(folder) - 1
        taken[writer] = position
        if look(folder, taken[writer] + 1):
            waiting[writer] = taken[writer] + 1
    return taken, waiting


def decide(cursor: Cursor, seen: Situation, limits: Limits | None = None) -> Decision:
    """Request a first session when deliveries wait, a successor shortly before the holder goes, else nothing.

    One need gets one run: another is requested only when none is on its way, after a pause that doubles.
    """
    limits = limits or Limits()
    kept = cursor.model_copy(update={"taken": dict(seen.taken)})
    holder = seen.holder
    others = [run for run in seen.runs if (holder is None or run.run_id != holder.owner) and run.alive is not False]
    coming = [run for run in others if run.started or seen.now - run.created_at < limits.start]

    if holder is not None and holder.owner == "unknown":
        return Decision("a session has just taken the lease", kept)
    if holder is not None and holder.deadline - seen.now > limits.handover:
        return Decision(f"session {holder.owner[:8]} works for another {holder.deadline - seen.now:.0f} s", kept)
    if holder is None and not seen.waiting:
        return Decision("nothing waits", kept)
    if holder is not None and not seen.waiting and not seen.flowing:
        return Decision(f"session {holder.owner[:8]} is about to end and nothing arrives", kept)
    if coming:
        return Decision(f"run {coming[0].run_id[:8]} is on its way", kept)
    if len(others) >= limits.runs:
        return Decision(f"{len(others)} requested runs have not started: does the Dagster daemon launch runs?", kept)

    if holder is not None:
        need, same = f"after {holder.owner}", cursor.need == f"after {holder.owner}"
        why = f"successor of {holder.owner[:8]}"
    else:
        need = "deliveries wait after " + _digest(seen.taken)
        same = cursor.need == need or (seen.last_failed and cursor.need.startswith("deliveries wait"))
        why = f"deliveries of {', '.join(sorted(seen.waiting))} wait"
    attempt = cursor.attempt + 1 if same else 0
    longest = limits.longest_retry if cursor.need == need else limits.longest_retry_with_progress
    pause = min(limits.first_retry * 2 ** min(attempt, 16), longest) if attempt else 0.0
    if seen.now - cursor.requested_at < pause:
        left = pause - (seen.now - cursor.requested_at)
        return Decision(f"{why}; attempt {attempt} did not last, the next is in {left:.0f} s", kept)
    # The batch names the moment, so that a lost cursor can never meet a run key that was used before.
    batch = cursor.batch if same and cursor.batch else f"{_digest({need: 0})}-{seen.now:.0f}"
    asked = kept.model_copy(update={"need": need, "batch": batch, "attempt": attempt, "requested_at": seen.now})
    return Decision(why, asked, f"live/{batch}/{attempt}")


def _digest(values: Mapping[str, int]) -> str:
    return xxhash.xxh3_64_hexdigest(orjson.dumps(dict(values), option=orjson.OPT_SORT_KEYS))[:12]
