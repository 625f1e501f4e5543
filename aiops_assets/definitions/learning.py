"""The learning code location: what runs on schedules beside the live plane, and may import what it likes in functions.

What belongs here: snapshots, housekeeping, marts, replays, synthetic data and its gate, evaluations. What does not:
anything between a drop and its incident (``definitions.live``).
"""

from __future__ import annotations

import logging

import dagster as dg

from aiops_assets.care.assets import care_assets
from aiops_assets.evaluation.assets import evaluation_assets
from aiops_assets.incidents.assets import SNAPSHOT, snapshot_asset
from aiops_assets.incidents.checks import snapshot_has_each_incident_once
from aiops_assets.lake.io_manager import DeltaIOManager
from aiops_assets.llm.assets import llm_specs
from aiops_assets.marts.assets import GROUP as MARTS
from aiops_assets.marts.assets import mart_assets
from aiops_assets.marts.project import ProjectProblem
from aiops_assets.promotion.assets import registry_specs
from aiops_assets.replay.assets import replay_assets
from aiops_assets.settings import Settings, load_settings
from aiops_assets.synthetic.assets import GROUP as SYNTHETIC
from aiops_assets.synthetic.assets import golden_incidents
from jobs.incidents import snapshot_job, snapshot_schedule
from jobs.marts import marts_job, marts_schedule
from jobs.replay import replay_jobs, restate, verification_schedule
from jobs.synthetic import golden_incidents_job, golden_incidents_schedule, storm_evaluation_job
from jobs.tags import learning_tags
from jobs.upkeep import event_log_prune, lake_upkeep_job, upkeep_schedules
from sensors.automation import automation_sensor

log = logging.getLogger(__name__)


def build_definitions(settings: Settings | None = None) -> dg.Definitions:
    """All definitions of the learning location; tests hand in their own settings."""
    settings = settings or load_settings()
    job, upkeep = snapshot_job(), lake_upkeep_job()
    core = dg.Definitions(
        assets=[snapshot_asset(), *care_assets()],
        asset_checks=[snapshot_has_each_incident_once],
        jobs=[job, event_log_prune, upkeep],
        schedules=[snapshot_schedule(job), *upkeep_schedules(upkeep)],
        sensors=[automation_sensor("learning_automation", dg.AssetSelection.assets(SNAPSHOT), 60)],
        resources={"settings": settings, "lake_io": DeltaIOManager(root=settings.paths.lake)},
    )
    return dg.Definitions.merge(core, _replays(), _synthetic(), marts(settings))


def _replays() -> dg.Definitions:
    """The proof that the past replays, its rehearsal with other rules, and the job that writes it anew."""
    as_recorded, as_now = replay_jobs()
    return dg.Definitions(
        assets=replay_assets(),
        jobs=[as_recorded, as_now, restate],
        schedules=[verification_schedule(as_recorded)],
    )


def _synthetic() -> dg.Definitions:
    """Golden incidents behind their gate, what language models were asked, and how well the platform does on storms."""
    golden = golden_incidents()
    job = golden_incidents_job()
    return dg.Definitions(
        assets=[*golden.assets, *registry_specs([golden]), *llm_specs(), *evaluation_assets()],
        asset_checks=golden.checks,
        jobs=[job, storm_evaluation_job()],
        schedules=[golden_incidents_schedule(job)],
        sensors=[automation_sensor("promotion_automation", dg.AssetSelection.groups(SYNTHETIC), 60)],
    )


def marts(settings: Settings) -> dg.Definitions:
    """The marts with their job, schedule and sensor; a dbt project that cannot be used costs these alone."""
    try:
        assets = mart_assets(settings)
    except ProjectProblem as problem:
        log.error("the asset graph has no marts: %s", problem)
        return dg.Definitions()
    job = marts_job()
    tags = dict(learning_tags(7200))
    return dg.Definitions(
        assets=assets,
        jobs=[job],
        schedules=[marts_schedule(job)],
        sensors=[automation_sensor("marts_automation", dg.AssetSelection.groups(MARTS), 60, run_tags=tags)],
        resources={"settings": settings},
    )


@dg.definitions
def learning() -> dg.Definitions:
    """What ``workspace.yaml`` loads."""
    return build_definitions()
