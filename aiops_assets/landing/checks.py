"""Checks of the landing room: is the quarantine growing, is a segment missing?

What belongs here: asset checks on ``quarantine``, the asset of everything that was accepted and is not in the tables.
What does not: how late sources are (``sources``).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND
from aiops_assets.lake.checks import EVERY_QUARTER, SettingsResource, check_result
from aiops_assets.lake.report import CheckResult

if TYPE_CHECKING:
    from aiops_assets.landing.quarantine import QuarantineEntry

NOT_GROWING = "not_growing"
DESCRIPTION = "Nothing was put into quarantine in the last hour."
CONTIGUOUS = "segments_contiguous"
CONTIGUOUS_DESCRIPTION = "No landing segment is missing between the oldest and the newest of any writer."


def not_growing(entries: Iterable[QuarantineEntry], now: int) -> CheckResult:
    """Entries of the last hour by source; ``now`` in microseconds since the epoch."""
    recent = Counter(entry.source for entry in entries if entry.received_at > now - MICROS_PER_HOUR)
    return CheckResult(
        "quarantine", NOT_GROWING, not recent, DESCRIPTION, "WARN", numbers=dict(recent) or {"entries": 0}
    )


def segments_contiguous(gaps: Mapping[str, Sequence[int]]) -> CheckResult:
    """Whether segment numbers are missing; ``gaps`` holds the missing numbers by landing writer."""
    missing = {writer: ", ".join(map(str, numbers[:10])) for writer, numbers in sorted(gaps.items()) if numbers}
    return CheckResult("quarantine", CONTIGUOUS, not missing, CONTIGUOUS_DESCRIPTION, numbers=missing or {"missing": 0})


@dg.asset_check(asset="quarantine", name=NOT_GROWING, description=DESCRIPTION, automation_condition=EVERY_QUARTER)
def quarantine_not_growing(settings: SettingsResource) -> dg.AssetCheckResult:
    from aiops_assets.landing.quarantine import Quarantine

    now = int(time.time() * MICROS_PER_SECOND)
    return check_result(not_growing(Quarantine(settings.paths.quarantine).entries(), now))


@dg.asset_check(
    asset="quarantine", name=CONTIGUOUS, description=CONTIGUOUS_DESCRIPTION, automation_condition=EVERY_QUARTER
)
def no_segment_missing(settings: SettingsResource) -> dg.AssetCheckResult:
    from aiops_assets.landing.reader import gaps, writers

    landing = settings.paths.landing
    return check_result(segments_contiguous({writer: gaps(landing / writer) for writer in writers(landing)}))
