"""Jobs that derive the past again: as a proof, as a rehearsal, or to write it anew.

What belongs here: jobs, their configuration and the schedule of the proof. What does not: replaying and restating
(``aiops_assets.replay``).
"""

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from pydantic import Field

from aiops_assets.lake.assets import materialization_events
from aiops_assets.lake.drawing import markdown_table
from aiops_assets.lake.report import Report
from aiops_assets.replay.assets import CHECK, REPORT, VERIFICATION, VerificationConfig, progress_of
from aiops_assets.settings import Settings
from jobs.tags import learning_tags

_SECONDS = 4 * 3600


class RestateConfig(VerificationConfig):
    """Which hours are judged again with what is known today, and written."""

    reason: str = Field(default="", description="for people: it stands in receipts and on amended alerts")
    dry_run: bool = Field(default=True, description="only say what would change")


def replay_jobs() -> tuple[UnresolvedAssetJobDefinition, UnresolvedAssetJobDefinition]:
    """The proof and the rehearsal."""
    return (
        dg.define_asset_job(
            "replay_as_recorded",
            selection=dg.AssetSelection.assets(VERIFICATION),
            description=f"Derives closed hours again from their pinned inputs; the check {CHECK} says whether all is "
            "identical. By default yesterday.",
            tags=dict(learning_tags(_SECONDS)),
            executor_def=dg.in_process_executor,
        ),
        dg.define_asset_job(
            "replay_as_now",
            selection=dg.AssetSelection.assets(REPORT),
            description="Judges closed hours with what is known today, and with changed parameters if wanted; the "
            "report shows what would be otherwise. By default yesterday.",
            tags=dict(learning_tags(_SECONDS)),
            executor_def=dg.in_process_executor,
        ),
    )


@dg.op(
    name="restate_hours",
    description="Judges closed hours again with today's rules and all rows, and writes it; old revisions stay.",
    tags={"kind": "polars"},
)
def restate_hours(context: dg.OpExecutionContext, config: RestateConfig, settings: dg.ResourceParam[Settings]) -> None:
    from aiops_assets.replay.period import Period

    period = Period.parse(config.from_, config.to, now=datetime.now(UTC))
    progress = progress_of(context.log.info)
    if config.dry_run:
        from aiops_assets.replay.report import inline_pictures, markdown
        from aiops_assets.replay.run import as_now

        would = as_now(settings, period, fresh=True, progress=progress)
        pictures = inline_pictures(would.found, would.shadow.journal.request.period)
        context.add_output_metadata(
            {"dry_run": True, "report": dg.MetadataValue.md(markdown(would.document, would.found, pictures))}
        )
        return
    import polars as pl

    from aiops_assets.live.report import hour_closed
    from aiops_assets.replay.restate import restate as run

    done = run(settings, period, reason=config.reason, progress=progress)
    for event in materialization_events(Report(tuple(hour_closed(receipt) for receipt in done.changed))):
        # Its signature leaves out check evaluations, which it takes as well.
        context.log_event(cast(dg.AssetMaterialization, event))
    names = ("hour", "revision", "raised", "amended", "withdrawn")
    rows = [tuple(getattr(receipt, name) for name in names) for receipt in done.changed]
    numbers: dict[str, Any] = {name: getattr(done, name) for name in ("hours", "raised", "amended", "withdrawn")}
    context.add_output_metadata(
        {
            "dry_run": False,
            **numbers,
            "changed": dg.MetadataValue.md(markdown_table(pl.DataFrame(rows, schema=names, orient="row"))),
        }
    )


@dg.job(
    executor_def=dg.in_process_executor,
    description="Writes what is known today about closed hours; the live session gives way and what arrives is taken "
    "meanwhile. A dry run unless told otherwise. A killed run goes on where it was when it is started again.",
    tags=dict(learning_tags(_SECONDS)),
)
def restate() -> None:
    restate_hours()


def verification_schedule(job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    """Every night the proof that the day before replays: what cannot be derived again is found within a day."""

    @dg.schedule(
        name="replay_schedule",
        job=job,
        cron_schedule="40 3 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def replay_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        today = context.scheduled_execution_time.astimezone(UTC)
        days = [(today - timedelta(days=back)).strftime("%Y-%m-%d") for back in (1, 0)]
        config = {"ops": {VERIFICATION: {"config": {"from": days[0], "to": days[1]}}}}
        return dg.RunRequest(run_key=days[0], run_config=config)

    return replay_schedule
