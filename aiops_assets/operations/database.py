"""Connections, transactions and migrations of the operations database, on SQLite and Postgres.

SQLite runs in WAL mode with foreign keys on, full synchronisation (what people did survives a power cut) and a busy
timeout; a writing transaction takes the write lock at its beginning, so it never fails half way for another writer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, select, text, update
from sqlalchemy.exc import OperationalError

from aiops_assets.operations.models import COUNTERS

BUSY_SECONDS = 15.0
#: the newest migration; a test compares it with the scripts
HEAD = "0003"
VERSION_TABLE = "operations_version"
_CHANGES = "changes"
#: key of the Postgres advisory lock that lets one process migrate at a time
_MIGRATION_LOCK = 7_061_933_512_044_119


class UnknownSchema(Exception):
    """The database was migrated by a newer version of the product."""


def connect(url: str) -> Engine:
    """An engine for the operations database; it opens no connection yet.

    Raises:
        ValueError: the URL names neither SQLite (a file) nor Postgres.
    """
    parsed = make_url(url)
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return create_engine(
            parsed,
            pool_pre_ping=True,
            pool_timeout=BUSY_SECONDS,
            connect_args={
                "connect_timeout": 10,
                "application_name": "aiops-operations",
                "options": "-c lock_timeout=15000 -c statement_timeout=60000 -c timezone=UTC",
            },
        )
    if backend != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise ValueError(f"operations database {parsed.render_as_string()}: use sqlite:///file or postgresql://…")
    engine = create_engine(parsed, connect_args={"timeout": BUSY_SECONDS})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that sees one state of the database."""
    with engine.connect() as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        yield connection


class Changing:
    """A transaction that changes the database, one at a time. ``mark`` gives it its change number."""

    def __init__(self, connection: Connection, before: int) -> None:
        self.connection = connection
        self._before = before
        self._marked = False

    def mark(self) -> int:
        """The change number of this transaction; taking it makes watchers look."""
        if not self._marked:
            self.connection.execute(update(COUNTERS).where(COUNTERS.c.name == _CHANGES).values(value=self._before + 1))
            self._marked = True
        return self._before + 1


@contextmanager
def changing(engine: Engine) -> Iterator[Changing]:
    """A transaction that changes the database; it is alone from its beginning to its end."""
    with engine.connect().execution_options(aiops_writes=True) as connection, connection.begin():
        statement = select(COUNTERS.c.value).where(COUNTERS.c.name == _CHANGES).with_for_update()
        yield Changing(connection, int(connection.execute(statement).scalar_one()))


def change_number(connection: Connection) -> int:
    """How many transactions have changed something; grows in commit order."""
    return int(connection.execute(select(COUNTERS.c.value).where(COUNTERS.c.name == _CHANGES)).scalar_one())


def upgrade(url: str) -> None:
    """Bring the schema to ``HEAD``; does nothing when it is there. Safe when several processes start together.

    Raises:
        UnknownSchema: the database is newer than this code.
    """
    engine = connect(url)
    try:
        _retry_while_locked(lambda: _upgrade(engine))
    finally:
        engine.dispose()


def schema_revision(connection: Connection) -> str | None:
    """The migration that the database is at, ``None`` when it is empty."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    revision = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one_or_none()  # noqa: S608
    return None if revision is None else str(revision)


def _upgrade(engine: Engine) -> None:
    with engine.connect() as connection, connection.begin():
        if schema_revision(connection) == HEAD:
            return
    if engine.dialect.name == "sqlite":
        # Outside of any transaction; the mode stays with the file.
        raw = engine.raw_connection()
        try:
            raw.cursor().execute("PRAGMA journal_mode=WAL")
        finally:
            raw.close()
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(resources.files("aiops_assets.operations").joinpath("migrations")))
    with engine.connect().execution_options(aiops_writes=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        present = schema_revision(connection)
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if present is not None and present not in known:
            raise UnknownSchema(
                f"the operations database is at revision {present!r}, this version knows up to {HEAD!r}"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _retry_while_locked(work: Any) -> None:
    """Switching a new SQLite file to WAL ignores the busy timeout, so that one error is tried again for a while."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            work()
            return
        except OperationalError as error:
            if "database is locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.02)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={int(BUSY_SECONDS * 1000)}")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("aiops_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
