"""The jobs of synthetic data: a new candidate of golden incidents with its gate, and storms through the live path.

What belongs here: wiring. What does not: the data sets (``aiops_assets.synthetic``) and their scores
(``aiops_assets.evaluation``).
"""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from aiops_assets.evaluation.assets import NAME as STORM_EVALUATION
from aiops_assets.synthetic.assets import GROUP
from jobs.tags import learning_tags


def golden_incidents_job() -> UnresolvedAssetJobDefinition:
    """Makes a candidate, asks its gates, and lets the champion follow when all blocking ones have passed."""
    return dg.define_asset_job(
        "golden_incidents_job",
        selection=dg.AssetSelection.groups(GROUP),
        description="Generates a candidate of golden incidents as aiops.yaml says, asks every gate, and promotes it "
        "when all blocking ones have passed.",
        tags=dict(learning_tags(7200)),
        executor_def=dg.in_process_executor,
    )


def golden_incidents_schedule(job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    """Weekly: with the same inputs it makes the same version again, which is the proof that it can; else a new one."""
    return dg.ScheduleDefinition(
        "golden_incidents_schedule",
        job=job,
        cron_schedule="40 4 * * 0",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )


def storm_evaluation_job() -> UnresolvedAssetJobDefinition:
    """A storm a partition; choose all of them in the launchpad for the whole table."""
    return dg.define_asset_job(
        "storm_evaluation_job",
        selection=dg.AssetSelection.assets(STORM_EVALUATION),
        description="Sends storms whose truth is known through the live path's own code, in homes of their own, and "
        "says what was found, how late, how loud.",
        tags=dict(learning_tags(7200)),
        executor_def=dg.in_process_executor,
    )
