"""The knowledge room in the asset graph.

What belongs here: asset specs of this room. What does not: parsing and storing (``formats``, ``live``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg

from aiops_assets.lake.assets import table_spec
from aiops_assets.tables import DOCUMENTS

GROUP = "knowledge"


def knowledge_specs(feeding: Mapping[str, Sequence[dg.AssetKey]]) -> list[dg.AssetSpec]:
    """The assets of this room; ``feeding`` maps tables to the sources that feed them."""
    return [
        table_spec(
            DOCUMENTS,
            group=GROUP,
            deps=feeding[DOCUMENTS.name],
            about="A version of a document is stored once; one that is gone has a last row that says so.",
        )
    ]
