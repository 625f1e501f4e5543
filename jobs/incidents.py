"""The job that takes the incident snapshot, and its schedule.

What belongs here: wiring. What does not: the snapshot (``aiops_assets.incidents``).
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from aiops_assets.incidents.assets import SNAPSHOT
from aiops_assets.partitions import DAY_FORMAT
from jobs.tags import learning_tags


def snapshot_job() -> UnresolvedAssetJobDefinition:
    """Materialises the snapshot of one day."""
    return dg.define_asset_job(
        "incident_snapshot_job",
        selection=dg.AssetSelection.assets(SNAPSHOT),
        description="Copies all incidents from the operations database to the lake, replacing the day's earlier copy.",
        tags=dict(learning_tags(900)),
        executor_def=dg.in_process_executor,
    )


def snapshot_schedule(job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    """Four times a day, so that a machine that sleeps at midnight has a snapshot too; always of the present day."""

    @dg.schedule(
        name="incident_snapshot_schedule",
        job=job,
        cron_schedule="55 5,11,17,23 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def incident_snapshot_schedule(context: dg.ScheduleEvaluationContext) -> Sequence[dg.RunRequest]:
        now = context.scheduled_execution_time.astimezone(UTC)
        return (
            [dg.RunRequest(run_key=f"{now:%Y-%m-%dT%H}", partition_key=now.strftime(DAY_FORMAT))] if _today(now) else []
        )

    return incident_snapshot_schedule


def _today(moment: datetime) -> bool:
    """A tick that is made up for later must not take yesterday's snapshot today."""
    return moment.date() == datetime.now(UTC).date()
