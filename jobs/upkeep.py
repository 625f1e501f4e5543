"""Jobs that keep the installation small: Dagster's event log, replaced lake files, segments that the lake has.

What belongs here: ops with their configuration, jobs and schedules. What does not: the work (``jobs.event_log``,
``lake.upkeep``, ``landing.retention``). Whatever deletes is a dry run unless told otherwise; the schedules tell.
"""

import dagster as dg
from pydantic import Field

from aiops_assets.settings import Settings
from jobs.event_log import prune
from jobs.tags import learning_tags


class PruneConfig(dg.Config):
    """How long Dagster's own history is kept."""

    dry_run: bool = Field(default=True, description="only count what would go")
    keep_days: float = Field(default=3.0, description="events and captured output of finished runs")
    keep_runs_days: float = Field(default=30.0, description="records of runs of which nothing else is left")


class TidyConfig(dg.Config):
    """How long replaced files of the lake are kept."""

    dry_run: bool = Field(default=True, description="only count what would go")
    keep_hours: int = Field(
        default=24, ge=24, description="replaced files stay this long for readers that have them open"
    )


class ReleaseConfig(dg.Config):
    """Release of landing segments; their retention is AIOPS_LANDING_RETENTION_HOURS."""

    dry_run: bool = Field(default=True, description="only count what would go")


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


@dg.op(
    description="Removes files that no recent version of a table needs, and old entries of the Delta logs.",
    tags={"kind": "deltalake"},
)
def tidy_lake(context: dg.OpExecutionContext, config: TidyConfig, settings: dg.ResourceParam[Settings]) -> None:
    from aiops_assets.lake.tables import Lake
    from aiops_assets.lake.upkeep import tidy

    tidied = tidy(Lake(settings.paths.lake), keep_hours=config.keep_hours, dry_run=config.dry_run)
    for table in tidied:
        context.log.info(
            f"{table.table}: {table.removed} replaced files{' (dry run)' if config.dry_run else ''}, "
            f"{table.files} in use"
        )
    context.add_output_metadata(
        {"dry_run": config.dry_run, **{f"{table.table}_removed": table.removed for table in tidied}}
    )


@dg.op(
    description="Removes landing segments that every table and checkpoint has, after their retention.",
    tags={"kind": "file"},
)
def release_segments(
    context: dg.OpExecutionContext, config: ReleaseConfig, settings: dg.ResourceParam[Settings]
) -> None:
    from aiops_assets.landing.retention import release
    from aiops_assets.live.upkeep import releasable

    keep_seconds = settings.landing_retention_hours * 3600
    released = release(settings.paths.landing, releasable(settings), keep_seconds, dry_run=config.dry_run)
    for writer in released:
        context.log.info(
            f"{writer.writer}: {writer.segments} segments, {writer.size} bytes{' (dry run)' if config.dry_run else ''}"
        )
    context.add_output_metadata(
        {
            "dry_run": config.dry_run,
            "segments": sum(writer.segments for writer in released),
            "bytes": sum(writer.size for writer in released),
        }
    )


@dg.job(
    executor_def=dg.in_process_executor,
    description="Keeps Dagster's storage small. Partitions, lineage and check states survive.",
    tags=dict(learning_tags(1800)),
)
def event_log_prune() -> None:
    prune_event_log()


@dg.job(
    executor_def=dg.in_process_executor,
    description="Housekeeping of the platform's data: replaced lake files, then landing segments that the lake has.",
    tags=dict(learning_tags(3600)),
)
def lake_upkeep() -> None:
    tidy_lake()
    release_segments()


def upkeep_schedules() -> list[dg.ScheduleDefinition]:
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
            job=lake_upkeep,
            cron_schedule="41 */6 * * *",
            run_config={"ops": {"tidy_lake": really, "release_segments": really}},
            default_status=dg.DefaultScheduleStatus.RUNNING,
        ),
    ]
