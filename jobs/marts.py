"""The job that builds marts, and its schedule.

What belongs here: wiring. What does not: the marts (``aiops_assets.marts`` and the dbt project).
"""

from datetime import UTC, timedelta

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from aiops_assets.marts.assets import GROUP
from aiops_assets.partitions import DAY_FORMAT, daily
from jobs.tags import learning_tags

#: late rows and acknowledgements of the days before settle within this time
SETTLING_DAYS = 3
_RANGE_START, _RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


def marts_job() -> UnresolvedAssetJobDefinition:
    """Builds all marts for some days, the current ones too; a range of days is one run."""
    return dg.define_asset_job(
        "marts_job",
        selection=dg.AssetSelection.groups(GROUP),
        partitions_def=daily(),
        description="Builds the marts of a day or of a range of days, with their tests. Any day can be built again; it "
        "then says what is known now.",
        tags=dict(learning_tags(7200)),
        executor_def=dg.in_process_executor,
    )


def marts_schedule(job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    """Every night the days that may still have changed, in one run; during the day automation follows closed hours."""

    @dg.schedule(
        name="marts_schedule",
        job=job,
        cron_schedule="20 2 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def marts_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        today = context.scheduled_execution_time.astimezone(UTC)
        first = (today - timedelta(days=SETTLING_DAYS)).strftime(DAY_FORMAT)
        return dg.RunRequest(
            run_key=today.strftime(DAY_FORMAT), tags={_RANGE_START: first, _RANGE_END: today.strftime(DAY_FORMAT)}
        )

    return marts_schedule
