"""Checks of the incidents room.

What belongs here: asset checks on tickets and on the snapshot of incidents. What does not: checks of alerts
(``detection``).
"""

from __future__ import annotations

import dagster as dg

from aiops_assets.incidents.assets import SNAPSHOT
from aiops_assets.lake import quality
from aiops_assets.lake.checks import SettingsResource, all_table_checks, recent
from aiops_assets.tables import INCIDENTS, TICKETS


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


def ticket_checks() -> list[dg.AssetChecksDefinition]:
    """Checks of the live table of this room."""
    return all_table_checks([TICKETS])
