"""How a canonical table stands in the asset graph: its spec, its column schema, the events that say what was written.

What belongs here: the one translation from ``tables`` and ``lake.report`` to Dagster's words, used by every room. What
does not: which assets there are and what they depend on (each room's ``assets``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl

from aiops_assets.hours import instant
from aiops_assets.lake.drawing import line_plot, markdown_image, markdown_table, plain
from aiops_assets.lake.report import CheckResult, Report, SourceDrops, TouchedPartition
from aiops_assets.partitions import of_grain
from aiops_assets.tables import TABLES, Column, Table

#: said of every asset that the live session keeps
LIVE = "Kept by the live session (job `live_session`): it cannot be materialised by hand."
#: said of those with partitions
BACKFILLED = (
    "Kept by the live session (job `live_session`). Materialise partitions to backfill them: what landing segments and "
    "receipts say is put right, beside the session (or `aiops backfill FROM TO`)."
)
_MOST_NAMED_OUTSIDE = 10


def drops_key(source: str) -> dg.AssetKey:
    """The asset that stands for what a source delivers."""
    return dg.AssetKey(["drops", source])


def table_spec(
    table: Table,
    *,
    group: str,
    deps: Iterable[dg.CoercibleToAssetDep] = (),
    about: str = "",
    kinds: Sequence[str] = ("deltalake",),
    freshness: dg.FreshnessPolicy | None = None,
    key: str | None = None,
) -> dg.AssetSpec:
    """The asset of a canonical table that the live session keeps."""
    kept = BACKFILLED if table.partition else LIVE
    return dg.AssetSpec(
        key or table.name,
        deps=deps,
        description="\n\n".join(part for part in (table.description, about, kept) if part),
        group_name=group,
        owners=[table.owner],
        kinds=set(kinds),
        partitions_def=of_grain(table.partition),
        freshness_policy=freshness,
        metadata=table_metadata(table),
    )


def table_metadata(table: Table) -> Mapping[str, Any]:
    """Definition metadata of a canonical table."""
    return {
        "dagster/column_schema": column_schema(table),
        "dagster/table_name": table.name,
        "dagster/storage_kind": "deltalake",
        "key": ", ".join(table.key),
        "schema_version": table.schema_version,
        "time": f"{table.time_column}, UTC, microseconds" if table.time_column in table.schema else "none",
    }


def column_schema(table: Table) -> dg.TableSchema:
    """Columns with types, units and constraints, the partition column last."""
    columns = [
        dg.TableColumn(
            column.name,
            type_name(column.dtype),
            description=column.description + (f" [{column.unit}]" if column.unit else ""),
            constraints=dg.TableColumnConstraints(
                nullable=column.nullable, unique=table.key == (column.name,), other=_part_of_key(table, column)
            ),
        )
        for column in table.columns
    ]
    if table.partition and table.partition not in {column.name for column in table.columns}:
        form = {"hour": "YYYY-MM-DDTHH", "day": "YYYY-MM-DD"}[table.partition]
        columns.append(
            dg.TableColumn(
                table.partition,
                "string",
                description=f"partition: {table.partition} of {table.time_column}, {form} in UTC",
                constraints=dg.TableColumnConstraints(nullable=False),
            )
        )
    return dg.TableSchema(columns, constraints=dg.TableConstraints(other=[f"unique ({', '.join(table.key)})"]))


def type_name(dtype: pl.DataType) -> str:
    """The SQL type of a polars dtype, in words that the Dagster UI has icons for."""
    if isinstance(dtype, pl.List):
        return f"array<{type_name(dtype.inner)}>"  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        inner = ", ".join(f"{field.name}: {type_name(field.dtype)}" for field in dtype.fields)  # type: ignore[arg-type]
        return f"struct<{inner}>"
    names: Mapping[Any, str] = {
        pl.String: "string",
        pl.Int64: "bigint",
        pl.Int32: "integer",
        pl.Float64: "double",
        pl.Boolean: "boolean",
        pl.Datetime: "timestamp",
    }
    return names[type(dtype)]


def _part_of_key(table: Table, column: Column) -> list[str]:
    return ["part of the key"] if column.name in table.key and len(table.key) > 1 else []


Event = dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckEvaluation


def materialization_events(report: Report) -> list[Event]:
    """The events that make partitions, lineage, freshness and checks in the UI true.

    Partitions before the first one that the graph has are told in one observation a table, so that a large import of
    old history stays visible without inventing partitions.
    """
    events: list[Event] = [_drops_event(drops) for drops in report.sources]
    outside: dict[str, list[TouchedPartition]] = {}
    for touched in report.partitions:
        if touched.partition is not None and touched.partition < _first_partition(touched.table):
            outside.setdefault(touched.table, []).append(touched)
        else:
            events.append(_partition_event(touched))
    events.extend(_outside_event(table, members) for table, members in outside.items())
    events.extend(_check_event(result) for result in report.checks)
    return events


def _first_partition(name: str) -> str:
    partitions = of_grain("hour" if name == "hour_closed" else TABLES[name].partition if name in TABLES else None)
    return (partitions.get_first_partition_key() if partitions is not None else None) or ""


def _partition_event(touched: TouchedPartition) -> dg.AssetMaterialization:
    count = "dagster/partition_row_count" if touched.partition is not None else "dagster/row_count"
    metadata: dict[str, Any] = {count: touched.rows, "rows_added": touched.added, **_numbers(touched.numbers)}
    if touched.newest is not None:
        metadata["newest"] = dg.MetadataValue.timestamp(instant(touched.newest))
    if touched.preview is not None:
        metadata["preview"] = dg.MetadataValue.md(markdown_table(touched.preview.head(5)))
    if touched.plot is not None and not touched.plot.is_empty():
        title = f"{touched.table} {touched.partition or ''}".strip()
        metadata["course"] = dg.MetadataValue.md(markdown_image(line_plot(touched.plot, title, "rows a minute"), title))
    return dg.AssetMaterialization(touched.table, partition=touched.partition, metadata=metadata)


def _outside_event(table: str, members: Sequence[TouchedPartition]) -> dg.AssetObservation:
    names = sorted(str(touched.partition) for touched in members)
    return dg.AssetObservation(
        table,
        description="Rows older than the first partition of the asset graph were stored (AIOPS_PARTITIONS_START).",
        metadata={
            "partitions": len(names),
            "oldest": names[0],
            "newest": names[-1],
            "rows_added": sum(touched.added for touched in members),
            "some": ", ".join(names[:_MOST_NAMED_OUTSIDE]),
        },
    )


def _drops_event(drops: SourceDrops) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        drops_key(drops.source),
        metadata={
            "deliveries": drops.deliveries,
            "points": drops.points,
            "quarantined": drops.quarantined,
            "last_received": dg.MetadataValue.timestamp(instant(drops.last_received_at)),
        },
    )


def _check_event(result: CheckResult) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(result.table.split("/")),
        check_name=result.name,
        passed=result.passed,
        severity=dg.AssetCheckSeverity[result.severity],
        description=result.description,
        metadata=_numbers({**result.numbers, **({"partition": result.partition} if result.partition else {})}),
    )


def _numbers(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata entries whose names and texts cannot disturb the page that shows them."""
    return {plain(name): plain(value, 400) if isinstance(value, str) else value for name, value in numbers.items()}
