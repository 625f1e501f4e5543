"""The telemetry room in the asset graph: points, their series and baselines, and what is known about the hosts.

What belongs here: asset specs of this room. What does not: parsing, storing and closing hours, which is plain Python
in ``formats``, ``live`` and ``detection``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg

from aiops_assets.lake.assets import table_spec
from aiops_assets.tables import BASELINES, CHANGES, ENTITIES, METRIC_POINTS, SERIES, SPANS

GROUP = "telemetry"


def telemetry_specs(feeding: Mapping[str, Sequence[dg.AssetKey]]) -> list[dg.AssetSpec]:
    """The assets of this room; ``feeding`` maps tables to the sources that feed them."""
    return [
        table_spec(
            METRIC_POINTS,
            group=GROUP,
            deps=feeding[METRIC_POINTS.name],
            about="Exactly once: a point that is sent again is stored once, and the lowest ingest position wins. "
            "Hours are those of the measurement, so late data fill earlier hours.",
        ),
        table_spec(
            SERIES,
            group=GROUP,
            deps=[METRIC_POINTS.name],
            about="Read it to turn a series_id into host, metric and labels.",
        ),
        table_spec(
            BASELINES,
            group=GROUP,
            deps=[METRIC_POINTS.name],
            about="Computed when event time has passed the end of an hour. Statistics judge new points against closed "
            "hours only.",
        ),
        table_spec(
            ENTITIES,
            group=GROUP,
            deps=feeding[ENTITIES.name],
            about="Declared in aiops.yaml or seen in telemetry; incidents follow depends_on.",
        ),
        table_spec(
            CHANGES,
            group=GROUP,
            deps=feeding[CHANGES.name],
            about="An incident lists the changes shortly before its start as suspects.",
        ),
        table_spec(
            SPANS,
            group=GROUP,
            deps=feeding[SPANS.name],
            about="Exactly once by trace and span identifier, which the sender gives.",
        ),
    ]
