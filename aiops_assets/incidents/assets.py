"""The incidents room in the asset graph: the incidents people work on, and their snapshot in the lake.

What belongs here: the spec of ``incidents`` (live) and the snapshot asset (learning). What does not: grouping and the
lifecycle, which are plain Python beside this module.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import dagster as dg
import polars as pl

from aiops_assets.lake.assets import LIVE, table_metadata, table_spec
from aiops_assets.partitions import DAY_FORMAT, daily
from aiops_assets.settings import Settings
from aiops_assets.tables import ALERTS, CHANGES, ENTITIES, INCIDENTS, TICKETS

GROUP = "incidents"
SNAPSHOT = "incident_snapshot"


def incident_specs(feeding: Mapping[str, Sequence[dg.AssetKey]]) -> list[dg.AssetSpec]:
    """The live assets of this room; ``feeding`` maps tables to the sources that feed them."""
    return [
        table_spec(
            TICKETS,
            group=GROUP,
            deps=feeding[TICKETS.name],
            about="A ticket has a row for every state that was seen of it; the newest is its present one.",
        ),
        dg.AssetSpec(
            "incidents",
            deps=[ALERTS.name, ENTITIES.name, CHANGES.name],
            description="Alerts grouped by host, time, shared labels and dependency, with priority and suspects. They "
            "live in the operations database, because people change them: work on them in the incident pages or with "
            "`aiops incidents`.\n\n" + LIVE,
            group_name=GROUP,
            owners=[INCIDENTS.owner],
            kinds={"sqlalchemy"},
        ),
    ]


def snapshot_asset() -> dg.AssetsDefinition:
    """The daily copy of all incidents in the lake, for history, reports and learning."""

    @dg.asset(
        name=SNAPSHOT,
        deps=["incidents"],
        partitions_def=daily(),
        group_name=GROUP,
        owners=[INCIDENTS.owner],
        kinds={"deltalake"},
        io_manager_key="lake_io",
        code_version=str(INCIDENTS.schema_version),
        description=f"{INCIDENTS.description} Taken several times a day; the last one of a day stays. Past days cannot "
        "be taken in hindsight.",
        metadata={**table_metadata(INCIDENTS), "table": INCIDENTS.name},
        tags={"plane": "learning"},
    )
    def incident_snapshot(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> pl.DataFrame:
        now = datetime.now(UTC)
        if context.partition_key != now.strftime(DAY_FORMAT):
            raise dg.Failure(
                f"the state of incidents on {context.partition_key} cannot be taken on {now:{DAY_FORMAT}}: "
                "a snapshot is of the present day",
                allow_retries=False,
            )
        from aiops_assets.incidents.snapshot import snapshot
        from aiops_assets.lake.tables import Lake

        frame = snapshot(settings.paths.operations_url, now, Lake(settings.paths.lake))
        states = dict(frame.group_by("state").len().iter_rows())
        context.add_output_metadata(
            {"dagster/partition_row_count": frame.height, **{f"state_{k}": n for k, n in states.items()}}
        )
        return frame

    return incident_snapshot
