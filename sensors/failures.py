"""The failure sensor: a run that fails is written down where people look.

What belongs here: turning a failed run into a problem line and a log line. What does not: alerts about watched machines
and retries (the landing sensor asks again by itself).
"""

import logging

import dagster as dg

from aiops_assets.lake.drawing import plain
from aiops_assets.live.problems import record_problem
from aiops_assets.settings import Settings

log = logging.getLogger("aiops.failures")
_LONGEST = 400


@dg.run_failure_sensor(
    name="failure_sensor",
    monitor_all_code_locations=True,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=15,
    description="Writes every failed run of either code location to the problems that `aiops status` shows.",
)
def failure_sensor(context: dg.RunFailureSensorContext, settings: dg.ResourceParam[Settings]) -> None:
    run = context.dagster_run
    steps = ", ".join(sorted(event.step_key or "run" for event in context.get_step_failure_events()))
    text = plain(f"{run.job_name} failed{f' in {steps}' if steps else ''}: {context.failure_event.message}", _LONGEST)
    record_problem(settings.paths.live, "failure_sensor", text, link=f"/runs/{run.run_id}")
    log.error("%s", text, extra={"run_id": run.run_id, "job": run.job_name})
