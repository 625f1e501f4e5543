"""The errors room in the asset graph.

What belongs here: asset specs of this room. What does not: parsing and storing (``formats``, ``live``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg

from aiops_assets.lake.assets import table_spec
from aiops_assets.tables import ERROR_EVENTS

GROUP = "errors"


def error_specs(feeding: Mapping[str, Sequence[dg.AssetKey]]) -> list[dg.AssetSpec]:
    """The assets of this room; ``feeding`` maps tables to the sources that feed them."""
    return [
        table_spec(
            ERROR_EVENTS,
            group=GROUP,
            deps=feeding[ERROR_EVENTS.name],
            about="Exactly once by the sender's own event identifier. People's addresses are stored as hashes only.",
        )
    ]
