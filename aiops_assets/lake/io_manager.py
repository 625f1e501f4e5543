"""A Dagster IO manager over the canonical Delta tables.

What belongs here: reading and replacing whole partitions for assets that run outside the live session. What does not:
exactly-once appends, which are the live session's alone (``lake.tables.TableWriter``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl

from aiops_assets.lake.assets import table_metadata
from aiops_assets.tables import TABLES, Table

if TYPE_CHECKING:
    from aiops_assets.lake.tables import Lake


class DeltaIOManager(dg.ConfigurableIOManager):
    """Stores a ``pl.DataFrame`` as one partition of a canonical table, replacing what was there.

    The table is named by the asset's definition metadata ``table``, or is the last part of its key. Running a partition
    twice therefore leaves one copy. Frames need the table's columns; the partition column is filled in.
    """

    root: str
    storage_options: dict[str, str] = {}  # noqa: RUF012  (a pydantic field)

    def handle_output(self, context: dg.OutputContext, obj: pl.DataFrame) -> None:
        from aiops_assets.lake.tables import TableWriter

        table = _table(context.definition_metadata, context.asset_key)
        partition = context.partition_key if context.has_partition_key else None
        if bool(table.partition) != (partition is not None):
            raise dg.Failure(
                f"table {table.name} is partitioned by {table.partition or 'nothing'}", allow_retries=False
            )
        frame = obj.with_columns(pl.lit(partition).alias(str(table.partition))) if partition is not None else obj
        missing = sorted(set(table.schema) - set(frame.columns))
        unknown = sorted(set(frame.columns) - set(table.schema))
        if missing or unknown:
            raise dg.Failure(
                f"table {table.name}: missing columns {missing}, unknown columns {unknown}", allow_retries=False
            )
        if partition is None:
            raise dg.Failure(
                f"table {table.name} has no partitions: replacing all of it is not supported", allow_retries=False
            )
        TableWriter(self._lake(), table).replace(frame, partition)
        count = "dagster/partition_row_count"
        context.add_output_metadata(
            {count: frame.height, **{k: v for k, v in table_metadata(table).items() if "schema" in k}}
        )

    def load_input(self, context: dg.InputContext) -> pl.DataFrame:
        upstream = context.upstream_output
        metadata = upstream.definition_metadata if upstream is not None else {}
        table = _table(metadata, context.asset_key)
        partitions = list(context.asset_partition_keys) if context.has_asset_partitions else None
        return self._lake().read(table.name, partitions)

    def _lake(self) -> Lake:
        from aiops_assets.lake.tables import Lake

        return Lake(self.root, self.storage_options)


def _table(metadata: Mapping[str, object] | None, key: dg.AssetKey) -> Table:
    name = (metadata or {}).get("table")
    return TABLES[str(getattr(name, "value", name) or key.path[-1])]
