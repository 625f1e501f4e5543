"""The detection room in the asset graph: anomalies and alerts.

What belongs here: asset specs of this room. What does not: judging points, which is plain Python beside this module.
"""

from __future__ import annotations

import dagster as dg

from aiops_assets.lake.assets import table_spec
from aiops_assets.tables import ALERTS, ANOMALIES, BASELINES, MAINTENANCE, METRIC_POINTS, SERIES

GROUP = "detection"


def detection_specs() -> list[dg.AssetSpec]:
    """The assets of this room."""
    return [
        table_spec(
            ANOMALIES,
            group=GROUP,
            deps=[METRIC_POINTS.name, SERIES.name, BASELINES.name],
            about="Each row carries the expected band and the numbers behind its score; `opens_event` marks the first "
            "row of an event.",
        ),
        table_spec(
            ALERTS,
            group=GROUP,
            deps=[METRIC_POINTS.name, SERIES.name, ANOMALIES.name, MAINTENANCE.name],
            about="From the rules in aiops.yaml, from statistics, and from silence. One event is one alert; a "
            "suppressed alert says by which window and why.",
        ),
        table_spec(
            MAINTENANCE,
            group=GROUP,
            about="Windows come from aiops.yaml, silences from people (`aiops` and the incident pages).",
        ),
    ]
