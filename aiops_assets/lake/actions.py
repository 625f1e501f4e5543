"""The files that make up one version of a table, as a frame.

What belongs here: the one reading of Delta's add actions that upkeep, retention and verification share. What does not:
the files themselves (``lake.files``).
"""

from __future__ import annotations

import polars as pl
from deltalake import DeltaTable

from aiops_assets.lake.files import path_of
from aiops_assets.tables import Table


def actions_of(handle: DeltaTable, table: Table) -> pl.DataFrame:
    """The files of a version: partition (null without), path as on disk, size_bytes, num_records, ``min.…``, ``max.…``.

    ``modified`` is in seconds since the epoch.
    """
    actions = pl.DataFrame(handle.get_add_actions(flatten=True))
    column = f"partition.{table.partition}"
    key = pl.col(column) if column in actions.columns else pl.lit(None, pl.String)
    modified = (
        pl.col("modification_time").dt.epoch("ms")
        if isinstance(actions.schema["modification_time"], pl.Datetime)
        else pl.col("modification_time")
    )
    return actions.with_columns(
        key.alias("partition"),
        pl.Series("path", [path_of(path) for path in actions["path"].to_list()], pl.String),
        (modified.cast(pl.Float64) / 1000).alias("modified"),
    )
