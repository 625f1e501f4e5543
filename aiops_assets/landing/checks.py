"""Checks of the landing room: is the quarantine growing?

What belongs here: asset checks on ``quarantine``. What does not: gaps in landing segments (a check of
``metric_points``, which would miss their rows).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import dagster as dg

from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND
from aiops_assets.lake.checks import SettingsResource, check_result
from aiops_assets.lake.report import CheckResult

if TYPE_CHECKING:
    from aiops_assets.landing.quarantine import QuarantineEntry

NOT_GROWING = "not_growing"
DESCRIPTION = "Nothing was put into quarantine in the last hour."


def not_growing(entries: Iterable[QuarantineEntry], now: int) -> CheckResult:
    """Entries of the last hour by source; ``now`` in microseconds since the epoch."""
    recent = Counter(entry.source for entry in entries if entry.received_at > now - MICROS_PER_HOUR)
    return CheckResult(
        "quarantine", NOT_GROWING, not recent, DESCRIPTION, "WARN", numbers=dict(recent) or {"entries": 0}
    )


@dg.asset_check(asset="quarantine", name=NOT_GROWING, description=DESCRIPTION)
def quarantine_not_growing(settings: SettingsResource) -> dg.AssetCheckResult:
    from aiops_assets.landing.quarantine import Quarantine

    now = int(time.time() * MICROS_PER_SECOND)
    return check_result(not_growing(Quarantine(settings.paths.quarantine).entries(), now))
