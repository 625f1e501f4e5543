"""Jobs that keep the installation small and whole: Dagster's event log, and the care of the lake.

What belongs here: ops with their configuration, jobs and schedules. What does not: the work (``jobs.event_log``, the
assets of ``aiops_assets.care``). Whatever deletes is a dry run unless told otherwise; the schedules tell.
"""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from pydantic import Field

from aiops_assets.care import assets as care
from jobs.event_log import prune
from jobs.tags import learning_tags


class PruneConfig(dg.Config):
    """How long Dagster's own history is kept."""

    dry_run: bool = Field(default=True, description="only count what would go")
    keep_days: float = Field(default=3.0, description="events and captured output of finished runs")
    keep_runs_days: float = Field(default=30.0, description="records of runs of which nothing else is left")


@dg.op(
    description="Deletes old run events, keeping the newest of every asset, partition and check.",
    tags={"kind": "sqlalchemy"},
)
def prune_event_log(context: dg.OpExecutionContext, config: PruneConfig) -> None:
    pruned = prune(
        context.instance, keep_days=config.keep_days, keep_runs_days=config.keep_runs_days, dry_run=config.dry_run
    )
    context.log.info(f"{'would delete' if config.dry_run else 'deleted'}: {pruned}")
    context.add_output_metadata(
        {
            "dry_run": config.dry_run,
            "events": pruned.events,
            "evaluations": pruned.evaluations,
            "run_logs": pruned.logs,
            "runs": pruned.runs,
            "unfinished": pruned.unfinished,
        }
    )


@dg.job(
    executor_def=dg.in_process_executor,
    description="Keeps Dagster's storage small. Partitions, lineage and check states survive.",
    tags=dict(learning_tags(1800)),
)
def event_log_prune() -> None:
    prune_event_log()


def lake_upkeep_job() -> UnresolvedAssetJobDefinition:
    """All of lake care, one after the other; nothing is released when verification finds anything."""
    return dg.define_asset_job(
        "lake_upkeep",
        selection=dg.AssetSelection.assets(*care.NAMES),
        description="Lake care: compaction, packing of landing segments, retention, verification, clean-up of replaced "
        "files, release of segments that the lake has. What a verification finds stops the release.",
        tags=dict(learning_tags(3600)),
        executor_def=dg.in_process_executor,
    )


def upkeep_schedules(lake_upkeep: UnresolvedAssetJobDefinition) -> list[dg.ScheduleDefinition]:
    """Running by default; these do delete."""
    really = {"config": {"dry_run": False}}
    return [
        dg.ScheduleDefinition(
            job=event_log_prune,
            cron_schedule="23 3 * * *",
            run_config={"ops": {"prune_event_log": really}},
            default_status=dg.DefaultScheduleStatus.RUNNING,
        ),
        dg.ScheduleDefinition(
            name="lake_upkeep_schedule",
            job=lake_upkeep,
            cron_schedule="41 */6 * * *",
            run_config={"ops": {name: really for name in care.NAMES if name != care.VERIFICATION}},
            default_status=dg.DefaultScheduleStatus.RUNNING,
        ),
    ]
