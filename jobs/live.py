"""The job of the live plane: one run is one live session.

What belongs here: the op and its job. What does not: the session (``aiops_assets.live``) and who asks for it
(``sensors.landing``).
"""

import dagster as dg

from jobs.tags import live_tags

LIVE_JOB = "live_session"


@dg.op(
    name="follow_landing_zone",
    description="Takes the lease, drains the landing zone in micro-batches of about a second and follows it until it "
    "is quiet or the session's time is up. Segments become rows, anomalies, alerts and incidents exactly once.",
    tags={"kind": "deltalake"},
)
def follow_landing_zone(context: dg.OpExecutionContext) -> None:
    from aiops_assets.live.session import run_session

    run_session(context)


def live_session_job(session_seconds: float) -> dg.JobDefinition:
    """The job that the landing sensor requests."""

    @dg.job(
        name=LIVE_JOB,
        executor_def=dg.in_process_executor,
        description="From drops to incidents. The landing sensor requests it when deliveries wait and shortly before a "
        "session's time is up; a second session waits for the first one's lease and ends when it does not get it. "
        "Starting it by hand does no harm.",
        tags=dict(live_tags(session_seconds)),
    )
    def live_session() -> None:
        follow_landing_zone()

    return live_session
