"""Reading and writing the canonical tables as Delta tables (delta-rs, no JVM).

An append carries one application transaction per landing writer, whose version is the last segment taken: appending
the same segments twice is refused by version, see the Delta protocol, "Transaction Identifiers".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import TableNotFoundError

from aiops_assets.lake import encoding
from aiops_assets.tables import TABLES, Table

#: Every commit lists the log's folder: with a day of one commit a second in it an append takes most of a second. What
#: is older than the last checkpoint is of no use here, and replaced files are kept by ``lake.upkeep``, not by the log.
_CONFIGURATION: Mapping[str, str | None] = {
    "delta.logRetentionDuration": "interval 10 minutes",
    "delta.deletedFileRetentionDuration": "interval 1 hours",
    "delta.checkpointInterval": "100",
    "delta.enableExpiredLogCleanup": "true",
}
#: tells compaction that an hour has enough small files
FILES_BEFORE_COMPACTION = 64


@dataclass(frozen=True, slots=True)
class PartitionFiles:
    """The files of one partition: how many, rows (from Delta statistics) and bytes."""

    partition: str
    files: int
    rows: int
    size: int


class Lake:
    """The tables below one root, a folder or an object-store URI. Handles are opened anew for each read."""

    def __init__(self, root: str | Path, storage_options: Mapping[str, str] | None = None) -> None:
        self.root = str(root).rstrip("/")
        self.storage_options = dict(storage_options or {})

    def uri(self, name: str) -> str:
        """Where a table lies."""
        return f"{self.root}/{name}"

    def open(self, name: str) -> DeltaTable | None:
        """The newest version of a table, or ``None`` while nothing was ever written to it."""
        try:
            return DeltaTable(self.uri(name), storage_options=self.storage_options or None)
        except TableNotFoundError:
            return None

    def scan(self, name: str, hours: Sequence[str] | None = None, columns: Sequence[str] | None = None) -> pl.LazyFrame:
        """A lazy frame over a table, limited to partitions when given; empty with the right schema when it is new."""
        handle = self.open(name) if hours != [] else None
        frame = self.scan_at(handle, name, hours)
        return frame.select(columns) if columns is not None else frame

    def scan_at(self, handle: DeltaTable | None, name: str, hours: Sequence[str] | None = None) -> pl.LazyFrame:
        """``scan`` of the version that a handle stands at, for reading several parts of one state of a table."""
        return _scan(handle, TABLES[name], hours, self.storage_options)

    def read(self, name: str, hours: Sequence[str] | None = None, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """``scan``, collected."""
        return self.scan(name, hours, columns).collect()

    def partitions(self, name: str) -> list[PartitionFiles]:
        """Files, rows and bytes of every partition (one entry with an empty name for an unpartitioned table)."""
        handle = self.open(name)
        if handle is None:
            return []
        actions = pl.DataFrame(handle.get_add_actions(flatten=True))
        column = f"partition.{TABLES[name].partition}"
        key = pl.col(column) if column in actions.columns else pl.lit("")
        summary = (
            actions.group_by(key.alias("partition"))
            .agg(pl.len().alias("files"), pl.col("num_records").sum(), pl.col("size_bytes").sum())
            .sort("partition")
        )
        return [PartitionFiles(*map(_plain, row)) for row in summary.iter_rows()]

    def taken(self, name: str, writers: Iterable[str]) -> dict[str, int]:
        """The last segment of each landing writer that this table has; 0 when none."""
        handle = self.open(name)
        return {writer: _transaction(handle, writer) for writer in writers}


class TableWriter:
    """The single writer of one table, for the holder of the lease; keeps its handle open between commits."""

    def __init__(self, lake: Lake, table: Table) -> None:
        self._lake, self.table = lake, table
        self._handle = lake.open(table.name)
        if self._handle is not None:
            configure(self._handle)
        self._taken: dict[str, int] = {}
        #: whether the stored schema may be narrower than the table's; false once it was seen to be complete
        self._widen = self._handle is not None
        self._partitions = {part.partition for part in lake.partitions(table.name)}
        #: files added to a partition ("" for an unpartitioned table) since it was last compacted
        self.small_files: dict[str, int] = {}

    def taken(self, writer: str) -> int:
        """The last segment of a landing writer that this table has; 0 when none."""
        if writer not in self._taken:
            self._taken[writer] = _transaction(self._handle, writer)
        return self._taken[writer]

    def append(self, frame: pl.DataFrame, positions: Mapping[str, int]) -> int:
        """Append rows and remember the positions in one commit; the version of the table afterwards.

        The caller has left out rows at or before ``taken``. With no rows, only the positions are recorded.
        """
        transactions = [
            Transaction(_app_id(writer), seq) for writer, seq in positions.items() if seq > self.taken(writer)
        ]
        if frame.is_empty() and not transactions:
            return self._version()
        frame = frame.select(pl.col(name).cast(dtype) for name, dtype in self.table.schema.items())
        properties = CommitProperties(app_transactions=transactions)
        target: Any = self._handle if self._handle is not None else self._lake.uri(self.table.name)
        write_deltalake(
            target,
            frame,
            mode="append",
            schema_mode=self._schema_mode(),
            partition_by=self.table.partition,
            configuration=_CONFIGURATION if self._handle is None else None,
            description=self.table.description if self._handle is None else None,
            commit_properties=properties,
            writer_properties=encoding.OPEN,
            storage_options=self._lake.storage_options or None,
        )
        if self._handle is None:
            self._handle = self._lake.open(self.table.name)
        self._taken.update(positions)
        for partition in frame[self.table.partition].unique() if self.table.partition else [""]:
            self.small_files[partition] = self.small_files.get(partition, 0) + 1
            self._partitions.add(partition)
        return self._version()

    def compact_where_due(self) -> None:
        """Merge the small files of every partition that has gathered ``FILES_BEFORE_COMPACTION`` of them."""
        for partition in [name for name, files in self.small_files.items() if files >= FILES_BEFORE_COMPACTION]:
            if self._handle is not None:
                self._handle.optimize.compact(
                    partition_filters=[(self.table.partition, "=", partition)] if self.table.partition else None,
                    writer_properties=encoding.MERGED,
                )
            del self.small_files[partition]

    def replace(self, frame: pl.DataFrame, partition: str) -> None:
        """Put rows in the place of a whole partition, sorted for compression, in one commit."""
        if self._handle is None:
            self.append(frame, {})
            return
        frame = frame.select(pl.col(name).cast(dtype) for name, dtype in self.table.schema.items())
        frame = frame.sort(self.table.sort) if self.table.sort else frame
        write_deltalake(
            self._handle,
            frame,
            mode="overwrite",
            schema_mode=self._schema_mode(),
            predicate=f"{self.table.partition} = {quote(partition)}",
            writer_properties=encoding.closed(self.table, frame),
        )
        self.small_files.pop(partition, None)
        self._partitions.add(partition)

    def delete(self, predicate: str) -> int:
        """Delete rows by an SQL predicate built with ``quote``; the number of rows that went."""
        if self._handle is None:
            return 0
        return int(self._handle.delete(predicate).get("num_deleted_rows") or 0)

    def overwrite(self, frame: pl.DataFrame) -> None:
        """Put rows in the place of the whole (small, unpartitioned) table, in one commit."""
        frame = frame.select(pl.col(name).cast(dtype) for name, dtype in self.table.schema.items())
        target: Any = self._handle if self._handle is not None else self._lake.uri(self.table.name)
        write_deltalake(
            target,
            frame,
            mode="overwrite",
            schema_mode=self._schema_mode(),
            configuration=_CONFIGURATION if self._handle is None else None,
            storage_options=self._lake.storage_options or None,
        )
        if self._handle is None:
            self._handle = self._lake.open(self.table.name)

    def read(self, partition: str, columns: Sequence[str]) -> pl.DataFrame:
        """Rows of one partition, through the open handle; free of cost where there are none."""
        if not self.has_partition(partition):
            return self.table.empty().select(columns)
        return _scan(self._handle, self.table, [partition], self._lake.storage_options).select(columns).collect()

    def has_partition(self, partition: str) -> bool:
        """Whether any file of a partition exists."""
        return partition in self._partitions

    def files(self, partition: str) -> int:
        """How many files a partition has."""
        if self._handle is None:
            return 0
        return len(self._handle.file_uris(file_pruning_predicate=_in_partitions(self.table, [partition])))

    def _schema_mode(self) -> Literal["merge"] | None:
        """``merge`` while the stored table lacks columns, as one written by an earlier schema version does."""
        if self._widen and self._handle is not None:
            stored = {field.name for field in self._handle.schema().fields}
            self._widen = not stored.issuperset(self.table.schema)
            return "merge" if self._widen else None
        return None

    def _version(self) -> int:
        return self._handle.version() if self._handle is not None else -1


def configure(handle: DeltaTable) -> None:
    """Give a table that an earlier version created the properties of today; one commit, only where they differ."""
    present = handle.metadata().configuration
    wanted = {name: str(value) for name, value in _CONFIGURATION.items() if present.get(name) != value}
    if wanted:
        handle.alter.set_table_properties(wanted)


def data_files(handle: DeltaTable, predicate: list[tuple[str, str, Any]] | None = None) -> list[str]:
    """Paths (or object-store URIs) of a table's files. delta-rs gives a folder with spaces in its URL form."""
    uris = handle.file_uris(file_pruning_predicate=predicate)
    encoded = handle.table_uri.removeprefix("file://")
    folder = unquote(encoded)
    if "://" in encoded or folder == encoded:
        return uris
    return [folder + uri.removeprefix(encoded) for uri in uris]


def quote(text: str) -> str:
    """An SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def labels(canonical: str) -> dict[str, str]:
    """The labels of a canonical JSON string."""
    return {str(name): str(value) for name, value in json.loads(canonical or "{}").items()}


def _scan(
    handle: DeltaTable | None, table: Table, partitions: Sequence[str] | None, storage_options: dict[str, str]
) -> pl.LazyFrame:
    uris = data_files(handle, _in_partitions(table, partitions)) if handle is not None else []
    if not uris:
        return table.empty().lazy()
    return pl.scan_parquet(
        uris,
        schema=table.schema,
        hive_partitioning=table.partition is not None,
        hive_schema={table.partition: pl.String()} if table.partition else None,
        try_parse_hive_dates=False,
        missing_columns="insert",
        extra_columns="ignore",
        storage_options=storage_options or None,
    )


def _in_partitions(table: Table, partitions: Sequence[str] | None) -> list[tuple[str, str, Any]] | None:
    """Delta's filter for some partitions of a table; ``None`` means all of it."""
    return [(table.partition, "in", list(partitions))] if partitions is not None and table.partition else None


def _app_id(writer: str) -> str:
    return f"landing/{writer}"


def _transaction(handle: DeltaTable | None, writer: str) -> int:
    version = handle.transaction_version(_app_id(writer)) if handle is not None else None
    return 0 if version is None else int(version)


def _plain(value: Any) -> Any:
    return 0 if value is None else value
