"""Replays from beginning to end, as the command line and the jobs call them.

What belongs here: the order of reading the configuration, running, comparing and writing. What does not: any of those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiops_assets.config import load_config
from aiops_assets.detection.handover import Shelf
from aiops_assets.lake.tables import Lake
from aiops_assets.replay.asnow import Request, Shadow, finish, replay
from aiops_assets.replay.assessment import Assessment, assess
from aiops_assets.replay.labels import read_labels
from aiops_assets.replay.overrides import apply
from aiops_assets.replay.period import Period
from aiops_assets.replay.recorded import Verification, verify
from aiops_assets.replay.report import write
from aiops_assets.settings import Settings

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Replayed:
    """A finished replay: its folder, what differs, and that as JSON-able values."""

    shadow: Shadow
    found: Assessment
    document: dict[str, Any]


def shelf_of(settings: Settings) -> Shelf:
    """The states that a home keeps."""
    return Shelf(settings.paths.live / "handover")


def as_recorded(
    settings: Settings, period: Period, *, now: datetime | None = None, progress: Progress = lambda done, total: None
) -> Verification:
    """Derive the hours of a period again from their pinned inputs and compare. Nothing is written."""
    first, last = period.hours
    return verify(
        Lake(settings.paths.lake),
        shelf_of(settings),
        first,
        last,
        retention=load_config(settings.paths.config).retention,
        now=now or datetime.now(UTC),
        progress=progress,
    )


def as_now(
    settings: Settings,
    period: Period,
    *,
    sets: Sequence[str] = (),
    config: Path | None = None,
    masks: Sequence[Period] = (),
    host: str = "*",
    labels: Path | None = None,
    fresh: bool = False,
    progress: Progress = lambda done, total: None,
) -> Replayed:
    """Judge the hours of a period with what is known today, in shadow tables, and compare with what is recorded.

    Args:
        sets: parameters to change, see ``overrides``.
        config: an aiops.yaml in place of the one in force.
        masks: points in these stretches count as if they had never come.
        host: pattern of hosts.
        labels: a file as ``labels`` describes it.
        fresh: do not go on with an unfinished replay of the same request.

    Raises:
        ConfigError: the configuration or a parameter is wrong.
        LabelProblem: the labels are wrong.
        LookupError: there is nothing to replay.
        ValueError: a mask lies outside the period.
        asnow.Busy: another process runs this replay.
    """
    whole = period.whole_hours()
    outside = [str(mask) for mask in masks if mask.start < whole.start or mask.end > whole.end]
    if outside:
        raise ValueError(
            f"the mask {outside[0]} is not within {whole}: what came before FROM is in the state handed over"
        )
    known = read_labels(labels) if labels is not None else None
    today = load_config(settings.paths.config)
    changed = apply(today if config is None else load_config(_existing(config)), sets)
    lake = Lake(settings.paths.lake)
    request = Request.of(whole, changed, sets, masks, host)
    shadow = replay(lake, shelf_of(settings), settings.paths.replays, request, changed, fresh=fresh, progress=progress)
    found = assess(lake, shadow, today, changed, known)
    document = write(shadow, found)
    finish(shadow)
    return Replayed(shadow, found, document)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return path
