"""The landing sensor: keeps one live session at work while deliveries arrive, and clears away dead runs.

What belongs here: what a tick looks at. What does not: what follows from it (``live.demand``). A tick probes files by
name and asks for unfinished runs of one job; it takes milliseconds and stays far below Dagster's 60 s.
"""

import time
from collections.abc import Sequence
from datetime import UTC

import dagster as dg
import psutil

from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.lake.checks import SettingsResource
from aiops_assets.live.demand import Limits, LiveRun, Situation, decide, load_cursor, positions
from aiops_assets.live.lease import LeaseInfo, live_lease
from aiops_assets.live.progress import read_progress
from jobs.live import LIVE_JOB

#: the daemon looks every 5 s; with a limit of 5 every other look comes a moment too early and is skipped
INTERVAL_SECONDS = 4
#: unfinished runs that one tick looks at; more than a few never exist
MOST_RUNS = 20
#: a run that has just started has not written its process number yet
_SETTLING_SECONDS = 10.0
_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_WORKING = {dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING}
_FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


@dg.sensor(
    name="landing_sensor",
    job_name=LIVE_JOB,
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Requests a live session when deliveries wait and nobody holds the lease, and a successor shortly "
    "before the holder's time is up. Fails runs whose process is gone.",
)
def landing_sensor(context: dg.SensorEvaluationContext, settings: SettingsResource) -> dg.SensorResult:
    home = settings.paths
    now = time.time()
    progress = read_progress(home.live)
    cursor = load_cursor(context.cursor)
    holder = live_lease(home.live).holder()
    runs = clear_orphans(context, unfinished_runs(context.instance, holder, now))
    taken, waiting = positions(home.landing, progress.taken, cursor.taken)
    quiet_for = now - progress.updated_at / MICROS_PER_SECOND
    decision = decide(
        cursor,
        Situation(
            now=now,
            taken=taken,
            waiting=waiting,
            holder=holder,
            runs=runs,
            flowing=quiet_for < settings.session_quiet_seconds,
            last_failed=bool(waiting) and holder is None and _last_failed(context.instance),
        ),
        Limits(
            handover=min(Limits().handover, settings.session_seconds / 2),
            longest_retry=10 * settings.session_retry_seconds,
            longest_retry_with_progress=settings.session_retry_seconds,
        ),
    )
    requests = [dg.RunRequest(run_key=decision.run_key)] if decision.run_key else []
    return dg.SensorResult(
        run_requests=requests,
        skip_reason=None if requests else decision.reason,
        cursor=decision.cursor.model_dump_json(),
    )


def unfinished_runs(instance: dg.DagsterInstance, holder: LeaseInfo | None, now: float) -> list[LiveRun]:
    """Unfinished runs of the live job, newest first; ``alive`` is judged for started ones without the lease."""
    records = instance.get_run_records(dg.RunsFilter(job_name=LIVE_JOB, statuses=_UNFINISHED), limit=MOST_RUNS)
    found = []
    for record in records:
        run_id = record.dagster_run.run_id
        created = record.create_timestamp.replace(tzinfo=record.create_timestamp.tzinfo or UTC).timestamp()
        started = record.dagster_run.status in _WORKING
        alive: bool | None = None
        if started and (holder is None or holder.owner != run_id):
            settled = now - (record.start_time or created) > _SETTLING_SECONDS
            alive = process_alive(instance, run_id) if settled else None
        found.append(LiveRun(run_id, created, started, alive))
    return found


def process_alive(instance: dg.DagsterInstance, run_id: str) -> bool | None:
    """Whether the process that Dagster started for a run still exists on this host; ``None`` when none was recorded."""
    connection = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT, limit=20)
    for record in connection.records:
        event = record.event_log_entry.dagster_event
        if event is None or not event.engine_event_data or "pid" not in event.engine_event_data.metadata:
            continue
        pid = int(str(event.engine_event_data.metadata["pid"].value))
        try:
            # A process that began after this line was written has inherited the number, not the run.
            return psutil.Process(pid).create_time() <= record.event_log_entry.timestamp + 1.0
        except psutil.NoSuchProcess:
            return False
    return None


def clear_orphans(context: dg.SensorEvaluationContext, runs: Sequence[LiveRun]) -> list[LiveRun]:
    """Fail started runs whose process is gone (the failure sensor tells people); the runs that remain."""
    for orphan in (run for run in runs if run.alive is False):
        run = context.instance.get_run_by_id(orphan.run_id)
        if run is None or run.is_finished:
            continue
        text = f"live session {orphan.run_id[:8]}: its process is gone and it does not hold the lease"
        if run.status == dg.DagsterRunStatus.CANCELING:
            context.instance.report_run_canceled(run, message=text)
        else:
            context.instance.report_run_failed(run, message=text)
        context.log.warning(text)
    return [run for run in runs if run.alive is not False]


def _last_failed(instance: dg.DagsterInstance) -> bool:
    records = instance.get_run_records(dg.RunsFilter(job_name=LIVE_JOB, statuses=_FINISHED), limit=1)
    return bool(records) and records[0].dagster_run.status != dg.DagsterRunStatus.SUCCESS
