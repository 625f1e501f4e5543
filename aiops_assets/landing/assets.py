"""The landing room in the asset graph: what could not be stored.

What belongs here: the ``quarantine`` asset. What does not: the quarantine itself (``landing.quarantine``) and the
sources that fill the landing zone (``sources``).
"""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg
import polars as pl

from aiops_assets.lake.drawing import markdown_table
from aiops_assets.settings import Settings
from aiops_assets.tables import PLATFORM

GROUP = "intake"


def quarantine_asset(drops: Iterable[dg.AssetKey]) -> dg.AssetsDefinition:
    """An overview of the quarantine, renewed hourly while anything arrives, or by hand."""

    @dg.asset(
        name="quarantine",
        deps=list(drops),
        group_name=GROUP,
        owners=[PLATFORM],
        kinds={"file"},
        description="Deliveries and points that could not be stored, with the reason, the offset and the original "
        "bytes. Nothing is dropped silently. See them with `aiops quarantine list`, send them through again with "
        "`aiops quarantine retry`.",
        automation_condition=dg.AutomationCondition.cron_tick_passed("0 * * * *")
        & dg.AutomationCondition.any_deps_updated().since_last_handled(),
        tags={"plane": "live"},
    )
    def quarantine(settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[None]:
        from aiops_assets.landing.quarantine import Quarantine

        counts = Quarantine(settings.paths.quarantine).counts()
        rows = [
            (source, reason, count) for source, reasons in sorted(counts.items()) for reason, count in reasons.items()
        ]
        frame = pl.DataFrame(rows, {"source": pl.String, "reason": pl.String, "entries": pl.Int64}, orient="row")
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": int(frame["entries"].sum()),
                "reasons": dg.MetadataValue.md(markdown_table(frame.sort("entries", descending=True).head(20))),
            }
        )

    return quarantine
