"""Checks of the incidents room.

What belongs here: asset checks on incidents and their snapshot. What does not: checks of alerts (``detection``).
"""

from __future__ import annotations

import dagster as dg

from aiops_assets.incidents.assets import SNAPSHOT
from aiops_assets.lake import quality
from aiops_assets.lake.checks import SettingsResource, recent
from aiops_assets.tables import INCIDENTS


@dg.asset_check(
    asset=SNAPSHOT,
    name=quality.KEY.name,
    description="An incident stands in a day's snapshot once.",
    blocking=True,
)
def snapshot_has_each_incident_once(settings: SettingsResource) -> dg.AssetCheckResult:
    from aiops_assets.lake.tables import Lake

    passed, numbers = quality.key_is_unique(
        INCIDENTS, Lake(settings.paths.lake).scan(INCIDENTS.name, recent(INCIDENTS, 1))
    )
    return dg.AssetCheckResult(passed=passed, metadata=dict(numbers))
