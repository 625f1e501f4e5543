"""Run tags and what they mean to the run queue (``dagster.yaml``).

What belongs here: names of tags, priorities and time limits, each with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping

PLANE = "aiops/plane"
#: the queue lets live sessions pass everything else: a drop that waits is an incident that waits
LIVE_PRIORITY = 10
UPKEEP_PRIORITY = -1
#: after this beyond its own time a session is taken for hung and terminated by run monitoring
GRACE_SECONDS = 600


def live_tags(session_seconds: float) -> Mapping[str, str]:
    """Tags of live sessions; never retried by Dagster, because the landing sensor asks again where there is need."""
    return {
        PLANE: "live",
        "dagster/priority": str(LIVE_PRIORITY),
        "dagster/max_runtime": str(int(session_seconds) + GRACE_SECONDS),
        "dagster/max_retries": "0",
    }


def learning_tags(max_runtime_seconds: int, priority: int = UPKEEP_PRIORITY) -> Mapping[str, str]:
    """Tags of everything that may wait."""
    return {PLANE: "learning", "dagster/priority": str(priority), "dagster/max_runtime": str(max_runtime_seconds)}
