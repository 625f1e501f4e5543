"""The learning code location: what runs on schedules beside the live plane, and may import what it likes in functions.

What belongs here: snapshots, housekeeping, and later training, forecasts and marts. What does not: anything between a
drop and its incident (``definitions.live``).
"""

from __future__ import annotations

import dagster as dg

from aiops_assets.incidents.assets import SNAPSHOT, snapshot_asset
from aiops_assets.incidents.checks import snapshot_has_each_incident_once
from aiops_assets.lake.io_manager import DeltaIOManager
from aiops_assets.settings import Settings, load_settings
from jobs.incidents import snapshot_job, snapshot_schedule
from jobs.upkeep import event_log_prune, lake_upkeep, upkeep_schedules
from sensors.automation import automation_sensor


def build_definitions(settings: Settings | None = None) -> dg.Definitions:
    """All definitions of the learning location; tests hand in their own settings."""
    settings = settings or load_settings()
    job = snapshot_job()
    return dg.Definitions(
        assets=[snapshot_asset()],
        asset_checks=[snapshot_has_each_incident_once],
        jobs=[job, event_log_prune, lake_upkeep],
        schedules=[snapshot_schedule(job), *upkeep_schedules()],
        sensors=[automation_sensor("learning_automation", dg.AssetSelection.assets(SNAPSHOT), 60)],
        resources={"settings": settings, "lake_io": DeltaIOManager(root=settings.paths.lake)},
    )


@dg.definitions
def learning() -> dg.Definitions:
    """What ``workspace.yaml`` loads."""
    return build_definitions()
