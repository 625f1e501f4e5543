"""The ledger of language models in the asset graph.

What belongs here: the asset spec of ``llm_calls``. What does not: who asks (each room's own assets), and how rows come
about (``ledger``).
"""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from aiops_assets.lake.assets import table_metadata
from aiops_assets.partitions import of_grain
from aiops_assets.tables import LLM_CALLS

GROUP = "language_models"
_ABOUT = """Appended by every process that asks a language model, `aiops llm test` too: there is nothing to materialise.

One row a question, stored and degraded answers included; no text of any question or answer is kept. Read it with
`aiops llm calls`; what a day may cost is `llm.budget` in aiops.yaml (`aiops llm budget`)."""


def llm_specs(deps: Iterable[dg.CoercibleToAssetDep] = ()) -> list[dg.AssetSpec]:
    """The assets of this room; ``deps`` are assets whose materialisation asks a model."""
    return [
        dg.AssetSpec(
            LLM_CALLS.name,
            deps=deps,
            description=f"{LLM_CALLS.description}\n\n{_ABOUT}",
            group_name=GROUP,
            owners=[LLM_CALLS.owner],
            kinds={"deltalake"},
            partitions_def=of_grain(LLM_CALLS.partition),
            metadata=table_metadata(LLM_CALLS),
        )
    ]
