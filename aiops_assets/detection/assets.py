"""The detection room in the asset graph: anomalies and alerts, and the hours that decided about them.

What belongs here: asset specs of this room. What does not: judging points, which is plain Python beside this module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg

from aiops_assets.lake.assets import BACKFILLED, table_spec
from aiops_assets.partitions import hourly
from aiops_assets.tables import (
    ALERT_DECISIONS,
    ALERTS,
    ANOMALIES,
    BASELINES,
    CONFIG_VERSIONS,
    HOUR_RECEIPTS,
    MAINTENANCE,
    METRIC_POINTS,
    PLATFORM,
    SERIES,
)

GROUP = "detection"
HOUR_CLOSED = "hour_closed"


def detection_specs(feeding: Mapping[str, Sequence[dg.AssetKey]]) -> list[dg.AssetSpec]:
    """The assets of this room; ``feeding`` maps tables to the sources that feed them."""
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
            deps=[METRIC_POINTS.name, SERIES.name, ANOMALIES.name, MAINTENANCE.name, *feeding[ALERTS.name]],
            about="From the rules in aiops.yaml, from statistics, from silence, and from other systems that raise "
            "alerts of their own. One event is one alert; a suppressed alert says by which window and why.",
        ),
        table_spec(
            ALERT_DECISIONS,
            group=GROUP,
            deps=[METRIC_POINTS.name, SERIES.name, BASELINES.name, CONFIG_VERSIONS.name],
            about="What counts: derived from all rows of a closed hour in one order, whatever the live stream told. "
            "Alerts are put right where they say something else. `aiops explain alert ID` derives one again.",
        ),
        table_spec(
            HOUR_RECEIPTS,
            group=GROUP,
            deps=[METRIC_POINTS.name, BASELINES.name, ANOMALIES.name, ALERT_DECISIONS.name, CONFIG_VERSIONS.name],
            about="The newest revision of an hour is its truth; earlier ones say what was known before.",
        ),
        table_spec(
            CONFIG_VERSIONS,
            group=GROUP,
            about="From aiops.yaml, the first time that a closed hour was judged by it.",
        ),
        hour_closed_spec(),
        table_spec(
            MAINTENANCE,
            group=GROUP,
            about="Windows come from aiops.yaml, silences from people (`aiops` and the incident pages).",
        ),
    ]


def hour_closed_spec() -> dg.AssetSpec:
    """One materialisation for every hour that closes or is amended; what follows closed hours hangs on it."""
    return dg.AssetSpec(
        HOUR_CLOSED,
        deps=[METRIC_POINTS.name, BASELINES.name, ANOMALIES.name, ALERTS.name, HOUR_RECEIPTS.name],
        description="An hour is closed when event time has passed it: then all its rows are derived once in one order, "
        "and that counts. Each materialisation is one revision of the hour's receipt with its reason: `closed`, or why "
        "it was amended (late rows, a backfill, a restatement), and what that changed about alerts.\n\n" + BACKFILLED,
        group_name=GROUP,
        owners=[PLATFORM],
        kinds={"deltalake"},
        partitions_def=hourly(),
        metadata={"table": HOUR_RECEIPTS.name, "key": "hour, revision"},
    )
