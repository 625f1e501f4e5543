"""The operations database in transit: a copy of the SQLite file, and rows as JSON lines that either database can take.

What belongs here: reading all tables in one transaction and writing them into an empty database. What does not: what
they mean (``operations``, ``incidents``).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, ForeignKeyConstraint, MetaData, Table, delete, func, inspect, select, text

from aiops_assets.operations.database import (
    HEAD,
    VERSION_TABLE,
    UnknownSchema,
    connect,
    reading,
    schema_revision,
    upgrade,
)

_ROWS_PER_INSERT = 1000


def copy_sqlite(source: Path, target: Path) -> None:
    """A consistent copy of a SQLite file that is in use, as one file without a journal."""
    origin = sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=30)
    try:
        copy = sqlite3.connect(target, timeout=30)
        try:
            origin.backup(copy, pages=1024)
            copy.execute("PRAGMA journal_mode=DELETE")
        finally:
            copy.close()
    finally:
        origin.close()


def export(url: str) -> tuple[bytes, dict[str, Any]]:
    """All rows as JSON lines, the first line the revision; and (revision, table → rows). Both empty without tables."""
    engine = connect(url)
    try:
        with reading(engine) as connection:
            revision = schema_revision(connection)
            if revision is None:
                return b"", {"revision": None, "rows": {}}
            lines = [orjson.dumps({"revision": revision})]
            counts: dict[str, int] = {}
            for table in _tables(connection):
                rows = [dict(row) for row in connection.execute(select(table)).mappings()]
                counts[str(table.name)] = len(rows)
                # Reflected names are a kind of string of their own.
                lines += [
                    orjson.dumps({"table": table.name, "row": row}, option=orjson.OPT_NON_STR_KEYS) for row in rows
                ]
    finally:
        engine.dispose()
    return b"\n".join(lines) + b"\n", {"revision": revision, "rows": counts}


def load(url: str, content: bytes) -> dict[str, int]:
    """Bring a database to the revision of an export, put the rows in, and migrate to today's; table → rows.

    Raises:
        ValueError: the database is not empty.
        UnknownSchema: the export is of a newer version of the product.
    """
    lines = iter(content.splitlines())
    revision = str(orjson.loads(next(lines))["revision"])
    engine = connect(url)
    try:
        if _in_use(engine):
            raise ValueError("the operations database is not empty: empty it, or name another one")
        _migrate(engine, revision)
        counts: dict[str, int] = {}
        with engine.connect().execution_options(aiops_writes=True) as connection, connection.begin():
            tables = {table.name: table for table in _tables(connection)}
            for table in reversed(list(tables.values())):
                connection.execute(delete(table))
            rows: dict[str, list[dict[str, Any]]] = {}
            for line in lines:
                record = orjson.loads(line)
                rows.setdefault(record["table"], []).append(record["row"])
            for name, table in tables.items():
                counts[name] = _insert(connection, table, rows.pop(name, []))
            if rows:
                raise ValueError(f"the export has tables that revision {revision} does not: {', '.join(sorted(rows))}")
            if engine.dialect.name == "postgresql":
                _advance_sequences(connection, tables.values())
    finally:
        engine.dispose()
    upgrade(url)
    return counts


def _tables(connection: Connection) -> list[Table]:
    """Every table but the migrations' own, those referred to first."""
    metadata = MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name != VERSION_TABLE]


def _in_use(engine: Engine) -> bool:
    with engine.connect() as connection:
        if not inspect(connection).has_table(VERSION_TABLE):
            return False
        return any(
            connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in _tables(connection)
            if table.name not in {"counters", "leases"}
        )


def _migrate(engine: Engine, revision: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(resources.files("aiops_assets.operations").joinpath("migrations")))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision not in known:
        raise UnknownSchema(f"the backup's database is at revision {revision!r}, this version knows up to {HEAD!r}")
    with engine.connect().execution_options(aiops_writes=True) as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def _insert(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> int:
    """Insert rows; references of a table to itself are filled in after all of it is there."""
    own = [
        constraint.column_keys[0]
        for constraint in table.constraints
        if isinstance(constraint, ForeignKeyConstraint) and constraint.referred_table is table
    ]
    for chunk in _chunks(rows):
        connection.execute(table.insert(), [{**row, **dict.fromkeys(own)} for row in chunk])
    (key, *_) = table.primary_key.columns
    for column in own:
        for row in rows:
            if row[column] is not None:
                statement = table.update().where(key == row[key.name]).values({column: row[column]})
                connection.execute(statement)
    return len(rows)


def _advance_sequences(connection: Connection, tables: Any) -> None:
    for table in tables:
        for column in table.primary_key.columns:
            name = connection.execute(
                text("SELECT pg_get_serial_sequence(:table, :column)"), {"table": table.name, "column": column.name}
            ).scalar_one_or_none()
            if name is not None:
                highest = connection.execute(select(func.max(column))).scalar_one()
                connection.execute(
                    text("SELECT setval(CAST(:name AS regclass), :value, :used)"),
                    {"name": name, "value": highest or 1, "used": highest is not None},
                )


def _chunks(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(rows), _ROWS_PER_INSERT):
        yield rows[start : start + _ROWS_PER_INSERT]
