"""Sensors that evaluate automation conditions, declared running: Dagster's own default sensor starts stopped.

What belongs here: one sensor a cost class, so that a slow one cannot hold up another. What does not: the conditions,
which stand with their assets.
"""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg


def automation_sensor(
    name: str, selection: dg.AssetSelection, seconds: int, *, run_tags: Mapping[str, str] | None = None
) -> dg.AutomationConditionSensorDefinition:
    """A running sensor for the automation conditions of some assets, evaluated every ``seconds``.

    ``run_tags`` are given to the runs that it requests (``jobs.tags`` says what they mean).
    """
    return dg.AutomationConditionSensorDefinition(
        name,
        target=selection,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=seconds,
        run_tags=run_tags,
    )
