"""How long the rows of each table stay: whole partitions go when their time is up.

What belongs here: which partitions a retention lets go, and removing them in one commit a table. What does not: the
times themselves (``config.Retention``), and the files, which stay until no reader can need them (``lake.upkeep``).

Time counts from an hour's event time or from when its rows were accepted, whichever is later: history that was imported
yesterday is not old.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl

from aiops_assets.hours import HOUR_FORMAT
from aiops_assets.lake.actions import actions_of
from aiops_assets.lake.tables import Lake, TableWriter, quote
from aiops_assets.tables import TABLES, Table

_DAY_FORMAT = "%Y-%m-%d"


@dataclass(frozen=True, slots=True)
class Expired:
    """Partitions of one table that went (or would go), the oldest and the newest of them."""

    table: str
    first: str
    last: str
    partitions: int
    files: int
    rows: int
    size: int


def first_kept(table: Table, days: float, now: datetime) -> str:
    """The oldest partition that has an instant younger than ``days``; event time has expired before it."""
    horizon = now.astimezone(UTC) - timedelta(days=days)
    return horizon.strftime(HOUR_FORMAT if table.partition == "hour" else _DAY_FORMAT)


def expire(lake: Lake, days: Mapping[str, float | None], now: datetime, *, dry_run: bool) -> list[Expired]:
    """Remove the partitions that have passed their table's retention in days; ``None`` keeps a table for ever.

    Unless it is a dry run, the caller holds the lease. Tables without partitions describe what is known, not what
    happened, and keep all their rows.
    """
    gone = []
    for name, kept in days.items():
        table = TABLES[name]
        handle = lake.open(name) if kept is not None and table.partition is not None else None
        if handle is None or kept is None:
            continue
        actions = actions_of(handle, table).filter(pl.col("partition") < first_kept(table, kept, now))
        horizon = (now - timedelta(days=kept)).timestamp()
        accepted = pl.col("modified")
        if "max.received_at" in actions.columns:
            accepted = pl.coalesce(pl.col("max.received_at").dt.epoch("ms").cast(pl.Float64) / 1000, accepted)
        old = (
            actions.group_by("partition")
            .agg(accepted.max().alias("accepted"), pl.len().alias("files"), pl.col("num_records", "size_bytes").sum())
            .filter(pl.col("accepted") < horizon)
            .sort("partition")
        )
        if old.is_empty():
            continue
        if not dry_run:
            names = ", ".join(quote(str(partition)) for partition in old["partition"])
            TableWriter(lake, table).delete(f"{table.partition} IN ({names})")
        gone.append(
            Expired(
                name,
                str(old["partition"][0]),
                str(old["partition"][-1]),
                old.height,
                int(old["files"].sum()),
                int(old["num_records"].sum() or 0),
                int(old["size_bytes"].sum()),
            )
        )
    return gone
