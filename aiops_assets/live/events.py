"""Rows that are not points: logs, errors, spans, tickets and documents, each stored once.

What belongs here: identifiers of events whose senders give none, the memory of what the tables hold, and the rows to
append. What does not: reading bytes (``formats``) and external alerts (``detection.external``).

**Once.** An event is identified by the key columns of its table. Where the sender gives no identifier it follows from
the delivery: from its own identifier when the sender (or our collector) chose that, else, for events that carry their
own time, from source, headers and body, so that a delivery which is repeated after a lost answer gives the same ones,
else from the identifier that was given at acceptance. The first row of a key stays.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import orjson
import polars as pl
import xxhash
from numpy.typing import NDArray

from aiops_assets.formats.payload import UnreadableBody, unpacked
from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.landing.segment import Delivery
from aiops_assets.live.rows import change_id, hours_of, positions_of
from aiops_assets.tables import CHANGES, DOCUMENTS, ERROR_EVENTS, LOG_EVENTS, SPANS, TICKETS, TIMESTAMP, Table

#: field of ``formats.batch.Parsed`` → its table
EVENT_TABLES: Mapping[str, Table] = {
    "logs": LOG_EVENTS,
    "errors": ERROR_EVENTS,
    "spans": SPANS,
    "tickets": TICKETS,
    "documents": DOCUMENTS,
}
#: partitions of a table whose keys are kept in memory; others are read again when they are touched
PARTITIONS_IN_MEMORY = 64
#: sorted arrays of keys that are searched one by one before they are merged
_RUNS = 8
Keys = NDArray[np.uint64]


class SeenKeys:
    """Which keys each partition of a table holds, as 64-bit hashes. ``read`` sees everything that was committed."""

    def __init__(self, read: Callable[[str], Keys]) -> None:
        self._read = read
        self._runs: OrderedDict[str, list[Keys]] = OrderedDict()

    def known(self, partition: str, keys: Keys) -> NDArray[np.bool_]:
        """By key, whether the partition holds it."""
        found = np.zeros(len(keys), bool)
        for run in self._of(partition):
            place = np.minimum(np.searchsorted(run, keys), len(run) - 1)
            found |= run[place] == keys
        return found

    def add(self, partition: str, keys: Keys) -> None:
        """Remember keys that are in the partition now."""
        if not len(keys):
            return
        runs = self._of(partition)
        runs.append(np.sort(keys))
        if len(runs) > _RUNS:
            runs[:] = [np.sort(np.concatenate(runs))]

    def _of(self, partition: str) -> list[Keys]:
        runs = self._runs.get(partition)
        if runs is None:
            stored = np.sort(self._read(partition))
            runs = self._runs[partition] = [stored] if len(stored) else []
        self._runs.move_to_end(partition)
        while len(self._runs) > PARTITIONS_IN_MEMORY:
            self._runs.popitem(last=False)
        return runs


class EventTable:
    """One table of events and what it holds."""

    def __init__(self, lake: Lake, table: Table) -> None:
        self.table = table
        self.writer = TableWriter(lake, table)
        self._seen = SeenKeys(self._stored_keys)

    def fresh(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows whose keys the table lacks, the first of each."""
        partition = str(self.table.partition)
        rows = rows.with_columns(_key_hash(rows, self.table)).unique("_key", keep="first", maintain_order=True)
        known = np.zeros(rows.height, bool)
        keys = rows["_key"].to_numpy()
        for name, members in _members(rows[partition]):
            known[members] = self._seen.known(name, keys[members])
        return rows.filter(pl.Series(~known))

    def append(self, rows: pl.DataFrame) -> None:
        """Commit rows that ``fresh`` gave."""
        self.writer.append(rows.drop("_key"), {})
        keys = rows["_key"].to_numpy()
        for name, members in _members(rows[str(self.table.partition)]):
            self._seen.add(name, keys[members])

    def _stored_keys(self, partition: str) -> Keys:
        stored = self.writer.read(partition, list(self.table.key))
        return _key_hash(stored, self.table).to_numpy()


def event_rows(name: str, parsed: pl.DataFrame, deliveries: Sequence[Delivery]) -> pl.DataFrame:
    """Rows of the table of ``name`` (a key of ``EVENT_TABLES``) with position and partition.

    Args:
        parsed: the frame of that name in ``formats.batch.Parsed``; ``delivery`` refers to ``deliveries``, ``ts`` is not
            null.
    """
    table = EVENT_TABLES[name]
    frame = parsed.with_columns(
        pl.col(column).cast(TIMESTAMP)
        for column, dtype in table.schema.items()
        if dtype == TIMESTAMP and column in parsed
    )
    hours = hours_of(parsed["ts"].to_numpy())
    place = hours if table.partition == "hour" else hours.str.slice(0, 10).alias("day")
    frame = frame.hstack(positions_of(list(deliveries))[parsed["delivery"]]).with_columns(place)
    lacking = [column for column in table.schema if column not in frame.columns]
    frame = frame.with_columns(pl.lit(None).alias(column) for column in lacking)
    return frame.select(
        *(_filled(column.name, column.dtype, column.nullable) for column in table.columns), str(table.partition)
    )


def change_rows(parsed: pl.DataFrame, deliveries: Sequence[Delivery]) -> pl.DataFrame:
    """Rows of ``tables.CHANGES`` from the changes of ``Parsed``."""
    ids = [change_id(*row) for row in parsed.select("host", "kind", "ts", "title").iter_rows()]
    position = positions_of(list(deliveries))[parsed["delivery"]]
    rows = parsed.hstack(position).with_columns(
        pl.Series("change_id", ids, pl.String), pl.col("ts").dt.strftime("%Y-%m-%d").alias("day")
    )
    return rows.select(pl.col(column).cast(dtype) for column, dtype in CHANGES.schema.items())


def with_event_ids(parsed: pl.DataFrame, deliveries: Sequence[Delivery], timed: pl.Series) -> pl.DataFrame:
    """Identifiers for events that have none; ``timed`` says by row whether the sender gave a time."""
    if "event_id" not in parsed.columns or not parsed["event_id"].null_count():
        return parsed
    lacking = parsed["event_id"].is_null()
    used = parsed["delivery"].filter(lacking).unique().to_list()
    own = {index: _own_id(deliveries[index]) for index in used}
    told = {index: own[index] or deliveries[index].delivery_id for index in used}
    repeated = {index: own[index] or _content_id(deliveries[index]) for index in used}
    place = pl.int_range(pl.len()).over("delivery")
    by_content = pl.col("delivery").replace_strict(repeated, default=None, return_dtype=pl.String)
    by_acceptance = pl.col("delivery").replace_strict(told, default=None, return_dtype=pl.String)
    made = pl.concat_str(pl.when(timed).then(by_content).otherwise(by_acceptance), pl.lit("-"), place)
    return parsed.with_columns(pl.coalesce("event_id", made).alias("event_id"))


def _own_id(delivery: Delivery) -> str | None:
    """An identifier that whoever sent the delivery chose, and would choose again."""
    return delivery.headers.get("idempotency-key")


def _content_id(delivery: Delivery) -> str:
    digest = xxhash.xxh3_128(orjson.dumps([delivery.source, dict(delivery.headers)], option=orjson.OPT_SORT_KEYS))
    try:
        digest.update(unpacked(delivery))
    except UnreadableBody:
        digest.update(delivery.body)
    return digest.hexdigest()


def _filled(name: str, dtype: pl.DataType, nullable: bool) -> pl.Expr:
    column = pl.col(name).cast(dtype)
    if nullable:
        return column
    if name == "host":
        return pl.coalesce(column, "source").alias(name)
    if name in {"attributes", "details"}:
        return column.fill_null("{}")
    if dtype == pl.String():
        return column.fill_null("")
    if dtype == pl.Boolean():
        return column.fill_null(False)
    return column.fill_null(0.0) if dtype == pl.Float64() else column


def _key_hash(rows: pl.DataFrame, table: Table) -> pl.Series:
    return rows.select(pl.struct(table.key).hash(seed=7).alias("_key"))["_key"]


def _members(partitions: pl.Series) -> list[tuple[str, NDArray[np.int64]]]:
    """(partition, rows in it)."""
    if partitions.n_unique() == 1:
        return [(partitions[0], np.arange(len(partitions)))]
    grouped = pl.DataFrame({"name": partitions}).with_row_index("row").group_by("name").agg("row")
    return [(name, np.asarray(rows, np.int64)) for name, rows in grouped.iter_rows()]
