"""The logs room in the asset graph.

What belongs here: asset specs of this room. What does not: parsing and storing (``formats``, ``live``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg

from aiops_assets.lake.assets import table_spec
from aiops_assets.tables import LOG_EVENTS

GROUP = "logs"


def log_specs(feeding: Mapping[str, Sequence[dg.AssetKey]]) -> list[dg.AssetSpec]:
    """The assets of this room; ``feeding`` maps tables to the sources that feed them."""
    return [
        table_spec(
            LOG_EVENTS,
            group=GROUP,
            deps=feeding[LOG_EVENTS.name],
            about="Exactly once: an event that is sent again has the same identifier. Templates are found later.",
        )
    ]
