"""The lake and the marts as views of a DuckDB connection.

What belongs here: one view for each Delta table, over the files that its log names now, and one for each mart. What
does not: DuckDB's own delta extension, which would be a download, and writing.

Views of tables that were never written are empty and have the right columns. Files of an object store are read through
Arrow by delta-rs, because DuckDB would need an extension for that too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from aiops_assets.hours import hour_key
from aiops_assets.lake.tables import Lake, data_files, quote
from aiops_assets.tables import BASELINES, METRIC_POINTS, TABLES, Table

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from duckdb import DuckDBPyConnection

    from aiops_assets.settings import Settings

#: points of hours that were not closed yet; closed hours have their statistics in ``baselines``
OPEN_POINTS = "open_points"
#: no-download, no-surprise settings of every connection
CONNECTION: Mapping[str, str | int | bool] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
_SIMPLE: Mapping[Any, str] = {
    pl.String: "VARCHAR",
    pl.Int64: "BIGINT",
    pl.Int32: "INTEGER",
    pl.Float64: "DOUBLE",
    pl.Boolean: "BOOLEAN",
    pl.Datetime: "TIMESTAMP WITH TIME ZONE",
    pl.Date: "DATE",
}


def duckdb_type(dtype: pl.DataType) -> str:
    """DuckDB's name of a polars type of the canonical tables."""
    if isinstance(dtype, pl.List):
        return f"{duckdb_type(dtype.inner)}[]"  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        inner = ", ".join(f"{field.name} {duckdb_type(field.dtype)}" for field in dtype.fields)  # type: ignore[arg-type]
        return f"STRUCT({inner})"
    return _SIMPLE[type(dtype)]


def create_lake_views(connection: DuckDBPyConnection, lake: Lake, schema: str = "main") -> None:
    """One view for every canonical table, and ``open_points``, over the files that make up the tables now."""
    connection.execute(f"create schema if not exists {schema}")
    handles = {name: lake.open(name) for name in TABLES}
    for name, table in TABLES.items():
        _create(connection, f"{schema}.{name}", table, _files(handles[name]), handles[name])
    closed = _partitions(handles[BASELINES.name])
    files = {uri for uri in _files(handles[METRIC_POINTS.name]) if _hour_of(uri) not in closed}
    _create(connection, f"{schema}.{OPEN_POINTS}", METRIC_POINTS, sorted(files), handles[METRIC_POINTS.name], closed)


def create_mart_views(connection: DuckDBPyConnection, folder: Path, schema: str = "main") -> list[str]:
    """One view for every mart that was built; their names. A mart is a file, or a folder with a file a day."""
    if not folder.is_dir():
        return []
    names = []
    for entry in sorted(folder.iterdir()):
        files = [entry] if entry.suffix == ".parquet" else sorted(entry.glob("*.parquet")) if entry.is_dir() else []
        if files and not entry.name.startswith("."):
            listed = ", ".join(quote(str(file)) for file in files)
            connection.execute(
                f'create or replace view {schema}."{entry.stem}" as from read_parquet([{listed}], union_by_name = true)'
            )
            names.append(entry.stem)
    return names


def open_all(settings: Settings) -> DuckDBPyConnection:
    """See ``aiops_assets.marts.connect``."""
    import duckdb

    home = settings.paths
    if not home.root.is_dir():
        raise ValueError(f"there is no home folder {home.root}; make it with: aiops init, or set AIOPS_HOME")
    connection = duckdb.connect(":memory:", config={**CONNECTION, "memory_limit": settings.marts_memory})
    connection.execute("set TimeZone = 'UTC'")
    create_lake_views(connection, Lake(home.lake))
    create_mart_views(connection, home.marts)
    return connection


def _create(
    connection: DuckDBPyConnection,
    name: str,
    table: Table,
    files: list[str],
    handle: DeltaTable | None,
    without_hours: frozenset[str] = frozenset(),
) -> None:
    if not files or handle is None:
        source, stored, condition = "(select 1)", set[str](), "where false"
    elif all("://" not in file for file in files):
        source, condition = _read_parquet(files, table, union=_widened(table, handle)), ""
        probe = source if _widened(table, handle) else _read_parquet(files[:1], table, union=False)
        stored = {str(row[0]) for row in connection.execute(f"describe from {probe}").fetchall()}
    else:
        source = name.replace(".", "_") + "_files"
        connection.register(source, handle.to_pyarrow_dataset())
        stored = {field.name for field in handle.schema().fields}
        left_out = ", ".join(map(quote, sorted(without_hours)))
        condition = f"where {table.partition} not in ({left_out})" if without_hours else ""
    columns = ", ".join(
        f'"{column}"' if column in stored else f'cast(null as {duckdb_type(dtype)}) as "{column}"'
        for column, dtype in table.schema.items()
    )
    # Names come from tables.py, paths are quoted.
    connection.execute(f"create or replace view {name} as select {columns} from {source} {condition}")  # noqa: S608


def _read_parquet(files: list[str], table: Table, *, union: bool) -> str:
    """DuckDB's table function over files, the partition column taken from their paths."""
    options = ["union_by_name = true"] if union else []
    if table.partition:
        options += ["hive_partitioning = true", f"hive_types = {{{table.partition}: VARCHAR}}"]
    listed = ", ".join(map(quote, files))
    return f"read_parquet({', '.join([f'[{listed}]', *options])})"


def _widened(table: Table, handle: DeltaTable) -> bool:
    """Whether files of an earlier schema version, with fewer columns, may lie beside newer ones."""
    return table.schema_version > 1 or not {field.name for field in handle.schema().fields}.issuperset(table.schema)


def _files(handle: DeltaTable | None) -> list[str]:
    return sorted(data_files(handle)) if handle is not None else []


def _partitions(handle: DeltaTable | None) -> frozenset[str]:
    return frozenset(_hour_of(uri) for uri in _files(handle))


def _hour_of(uri: str) -> str:
    """The hour of a file of an hourly table, from its path; the first hour there is for a path without one."""
    part = uri.rpartition("/hour=")[2].partition("/")[0] if "/hour=" in uri else hour_key(0)
    return part.replace("%3A", ":")
