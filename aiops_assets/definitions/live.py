"""The live code location: from drops to incidents, with light imports only.

What belongs here: what a person sees of the live plane in the asset graph, and the session that keeps it. What does
not: anything that needs scikit-learn, Prophet, pandas or dbt (``definitions.learning``).
"""

from __future__ import annotations

import logging

import dagster as dg

from aiops_assets.config import Config, ConfigError, load_config
from aiops_assets.detection.assets import detection_specs
from aiops_assets.detection.checks import detection_checks
from aiops_assets.errors.assets import error_specs
from aiops_assets.errors.checks import error_checks
from aiops_assets.incidents.assets import incident_specs
from aiops_assets.incidents.checks import ticket_checks
from aiops_assets.knowledge.assets import knowledge_specs
from aiops_assets.knowledge.checks import knowledge_checks
from aiops_assets.lake.assets import drops_key
from aiops_assets.landing.assets import quarantine_asset
from aiops_assets.landing.checks import no_segment_missing, quarantine_not_growing
from aiops_assets.live.assets import backfillable
from aiops_assets.logs.assets import log_specs
from aiops_assets.logs.checks import log_checks
from aiops_assets.settings import Settings, load_settings
from aiops_assets.sources.catalogue import entries
from aiops_assets.sources.factory import source_checks, source_spec
from aiops_assets.tables import TABLES
from aiops_assets.telemetry.assets import telemetry_specs
from aiops_assets.telemetry.checks import telemetry_checks
from jobs.live import live_session_job
from sensors.automation import automation_sensor
from sensors.failures import failure_sensor
from sensors.landing import landing_sensor

log = logging.getLogger(__name__)


def build_definitions(settings: Settings | None = None, config: Config | None = None) -> dg.Definitions:
    """All definitions of the live location; tests hand in their own settings and configuration."""
    settings = settings or load_settings()
    gateway = f"http://{settings.gateway_host}:{settings.gateway_port}"
    sources = entries(config or _config(settings), gateway)
    drops = [drops_key(entry.name) for entry in sources]
    feeding = {table: [drops_key(entry.name) for entry in sources if table in entry.feeds] for table in TABLES}
    return dg.Definitions(
        assets=[
            *(source_spec(entry) for entry in sources),
            quarantine_asset(drops),
            *backfillable(
                [
                    *telemetry_specs(feeding),
                    *detection_specs(feeding),
                    *log_specs(feeding),
                    *error_specs(feeding),
                    *incident_specs(feeding),
                    *knowledge_specs(feeding),
                ]
            ),
        ],
        asset_checks=[
            *source_checks(sources),
            quarantine_not_growing,
            no_segment_missing,
            *telemetry_checks(),
            *detection_checks(),
            *log_checks(),
            *error_checks(),
            *ticket_checks(),
            *knowledge_checks(),
        ],
        jobs=[live_session_job(settings.session_seconds)],
        sensors=[
            landing_sensor,
            failure_sensor,
            automation_sensor("live_automation", dg.AssetSelection.all() | dg.AssetSelection.all_asset_checks(), 60),
        ],
        resources={"settings": settings},
        executor=dg.in_process_executor,
    )


def _config(settings: Settings) -> Config:
    """aiops.yaml as it is now; a mistake in it is logged and costs only the sources it names."""
    try:
        return load_config(settings.paths.config)
    except ConfigError as error:
        log.warning("the asset graph shows the shipped sources only, aiops.yaml is wrong: %s", error)
        return Config()


@dg.definitions
def live() -> dg.Definitions:
    """What ``workspace.yaml`` loads."""
    return build_definitions()
