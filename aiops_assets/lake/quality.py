"""Checks of a canonical table, generated from its description in ``tables``.

What belongs here: pure evaluation, from frames and Delta metadata to ``CheckResult``. What does not: when checks run
(``live`` for touched hours, ``lake.checks`` for the Dagster UI) and checks that need more than one table's rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from aiops_assets.lake.report import CheckResult, Number, TouchedPartition
from aiops_assets.tables import METRIC_POINTS, TABLES, Table

if TYPE_CHECKING:
    from aiops_assets.lake.tables import Lake

_PREVIEW_ROWS = 5
_TRUNCATION = {"hour": ("1h", "%Y-%m-%dT%H"), "day": ("1d", "%Y-%m-%d")}


@dataclass(frozen=True, slots=True)
class Expectation:
    """A check that a table has; ``blocking`` ones stop what is downstream."""

    name: str
    description: str
    blocking: bool = True


SCHEMA = Expectation("schema_as_declared", "Columns and types on disk are those declared in tables.py.")
KEY = Expectation("key_is_unique", "No two rows of a partition have the same key.")
REQUIRED = Expectation("required_values_present", "Columns that may not be empty have no null and no NaN.")
PLACE = Expectation("rows_in_their_partition", "Every row lies in the partition of its own event time.")
POSITIONS = Expectation(
    "positions_recorded", "No row is from a landing segment beyond the last one this table recorded as taken."
)


def expectations(table: Table) -> tuple[Expectation, ...]:
    """The checks that a table's description implies."""
    found = [SCHEMA, KEY, REQUIRED]
    if table.partition and table.placed_by_time:
        found.append(PLACE)
    if table is METRIC_POINTS:
        found.append(POSITIONS)
    return tuple(found)


def evaluate(
    lake: Lake, name: str, partitions: Sequence[str] | None = None, only: Sequence[str] | None = None
) -> list[CheckResult]:
    """Evaluate a table's checks on some partitions (``None``: all of it), or only those checks that are named.

    ``CheckResult.partition`` is set when exactly one partition was looked at.
    """
    table = TABLES[name]
    frame = lake.scan(name, partitions)
    evaluators: Mapping[str, Callable[[], tuple[bool, dict[str, Number]]]] = {
        SCHEMA.name: lambda: schema_as_declared(table, frame),
        KEY.name: lambda: key_is_unique(table, frame),
        REQUIRED.name: lambda: required_values_present(table, frame),
        PLACE.name: lambda: rows_in_their_partition(table, frame),
        POSITIONS.name: lambda: positions_recorded(lake, table, frame),
    }
    partition = partitions[0] if partitions is not None and len(partitions) == 1 else None
    several = partitions if partition is None else None
    looked_at: dict[str, Number] = {"partitions": ", ".join(several[:5])} if several else {}
    results = []
    for expectation in expectations(table):
        if only is None or expectation.name in only:
            passed, numbers = evaluators[expectation.name]()
            results.append(
                CheckResult(
                    name,
                    expectation.name,
                    passed,
                    expectation.description,
                    partition=partition,
                    numbers={**numbers, **looked_at},
                )
            )
    return results


def schema_as_declared(table: Table, frame: pl.LazyFrame) -> tuple[bool, dict[str, Number]]:
    """Compare names and dtypes; the order of columns does not matter."""
    actual = frame.collect_schema()
    wrong = sorted(
        f"{column}: {actual.get(column, 'missing')} instead of {dtype}"
        for column, dtype in table.schema.items()
        if actual.get(column) != dtype
    )
    unknown = sorted(set(actual) - set(table.schema))
    return not wrong and not unknown, {"different": "; ".join(wrong) or "none", "unknown": ", ".join(unknown) or "none"}


def key_is_unique(table: Table, frame: pl.LazyFrame) -> tuple[bool, dict[str, Number]]:
    """Rows against distinct keys."""
    keys = frame.select(table.key).collect()
    duplicates = keys.height - keys.n_unique() if keys.height else 0
    return duplicates == 0, {"rows": keys.height, "duplicates": duplicates}


def required_values_present(table: Table, frame: pl.LazyFrame) -> tuple[bool, dict[str, Number]]:
    """Nulls (and NaN in numbers) of each column that may not have any."""
    expressions = []
    for column in table.columns:
        if not column.nullable:
            missing = pl.col(column.name).is_null()
            if column.dtype.is_float():
                missing |= pl.col(column.name).is_nan().fill_null(False)
            expressions.append(missing.sum().alias(column.name))
    counts = frame.select(expressions).collect().row(0, named=True)
    found: dict[str, Number] = {column: int(count) for column, count in counts.items() if count}
    return not found, found or {"missing": 0}


def rows_in_their_partition(table: Table, frame: pl.LazyFrame) -> tuple[bool, dict[str, Number]]:
    """Rows whose event time belongs to another partition than the one they lie in."""
    every, layout = _TRUNCATION[str(table.partition)]
    groups = (
        frame.group_by(
            pl.col(str(table.partition)).alias("lies"), pl.col(table.time_column).dt.truncate(every).alias("own")
        )
        .agg(pl.len().alias("rows"))
        .collect()
        .filter(pl.col("lies").ne_missing(pl.col("own").dt.strftime(layout)))
    )
    return groups.is_empty(), {"misplaced": int(groups["rows"].sum())}


def positions_recorded(lake: Lake, table: Table, frame: pl.LazyFrame) -> tuple[bool, dict[str, Number]]:
    """Rows beyond the position that the same commit should have recorded: the sign of a broken append."""
    newest = frame.group_by("writer").agg(pl.col("seq").max()).collect()
    taken = lake.taken(table.name, newest["writer"].to_list())
    beyond = {writer: int(seq) for writer, seq in newest.iter_rows() if seq > taken[writer]}
    return not beyond, {
        "beyond": ", ".join(f"{writer}: {seq} > {taken[writer]}" for writer, seq in beyond.items()) or "none"
    }


def describe(lake: Lake, name: str, partition: str | None, added: int, newest: int | None = None) -> TouchedPartition:
    """What the asset graph shows of one partition: its rows, the newest few of them, and what can be drawn."""
    table = TABLES[name]
    frame = lake.scan(name, [partition] if partition is not None else None)
    rows = int(frame.select(pl.len()).collect().item())
    newest_first = frame.sort(table.time_column, descending=True) if table.time_column in table.schema else frame
    preview = newest_first.head(_PREVIEW_ROWS).select(_shown(table)).collect()
    return TouchedPartition(name, partition, rows, added, newest, preview, plot=_course(table, frame))


def _shown(table: Table) -> list[str]:
    hidden = {"received_at", "writer", "seq", table.partition}
    return [column for column in table.schema if column not in hidden]


def _course(table: Table, frame: pl.LazyFrame) -> pl.DataFrame | None:
    """Rows a minute (label, ts, value) of tables with a course through the hour."""
    label = {"metric_points": "source", "anomalies": "detector", "alerts": "state"}.get(table.name)
    if label is None:
        return None
    course = (
        frame.group_by(pl.col(label).alias("label"), pl.col(table.time_column).dt.truncate("1m").alias("ts"))
        .agg(pl.len().cast(pl.Float64).alias("value"))
        .sort("label", "ts")
        .collect()
    )
    # The newest minute is still filling; drawn, it would look like a drop.
    return course.filter(pl.col("ts") < pl.col("ts").max()) if course["ts"].n_unique() > 2 else course
