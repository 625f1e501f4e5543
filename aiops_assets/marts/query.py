"""Read-only questions in SQL over every table of the lake and every mart.

What belongs here: what a statement may be, limits of time, memory and rows, and errors in words. What does not: how
results are printed (``cli.query``) and the views (``views``).

A statement is refused by its kind unless it only reads. Behind that, DuckDB may open nothing but the files of the lake
and the marts, load no extension, and its settings are locked; the database is in memory, so nothing could be kept.
"""

from __future__ import annotations

import difflib
import re
import tempfile
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiops_assets.lake.tables import Lake, quote
from aiops_assets.marts.reading import row_count
from aiops_assets.marts.views import OPEN_POINTS, open_all
from aiops_assets.tables import TABLES

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from aiops_assets.settings import Settings

_READS = frozenset({"SELECT", "EXPLAIN"})
_EXPLAIN = re.compile(r"\s*explain(\s+analyze)?\s+(?!\()", re.IGNORECASE)
_UNKNOWN_TABLE = re.compile(r"(?:Table|View) with name \"?([^\s\"!]+)\"? does not exist")


class QueryProblem(Exception):
    """A question that cannot be answered; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows in order, names and DuckDB types of the columns; ``more`` says that the limit cut rows off."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    more: bool


@dataclass(frozen=True, slots=True)
class Readable:
    """A table or mart that can be asked: ``columns`` as (name, DuckDB type)."""

    name: str
    kind: str
    rows: int
    columns: tuple[tuple[str, str], ...]


def run_query(settings: Settings, sql: str, *, limit: int = 1_000, timeout: float = 60.0) -> Answer:
    """Answer one statement that only reads. Instants in rows are aware datetimes in UTC.

    Args:
        sql: one SELECT (WITH, FROM, VALUES, DESCRIBE, SUMMARIZE and SHOW too) or EXPLAIN.
        limit: rows returned at most.
        timeout: seconds after which the statement is stopped.

    Raises:
        QueryProblem: it is refused, wrong, too slow or needs more memory than ``AIOPS_MARTS_MEMORY``.
        ValueError: there is no home folder.
    """
    import duckdb

    statement = readable_statement(sql)
    with tempfile.TemporaryDirectory(prefix="aiops-query-") as scratch:
        connection = open_all(settings)
        try:
            _lock(connection, settings, scratch)
            names = [str(row[0]) for row in connection.execute("select view_name from duckdb_views()").fetchall()]
            timer = threading.Timer(timeout, connection.interrupt)
            timer.start()
            try:
                return _fetch(connection, statement, limit)
            except duckdb.InterruptException as error:
                raise QueryProblem(
                    f"stopped after {timeout:g} s; name fewer hours (… where hour between '2026-01-10T00' and "
                    "'2026-01-10T23'), ask a mart such as metric_hourly, or give --timeout"
                ) from error
            except duckdb.OutOfMemoryException as error:
                raise QueryProblem(
                    f"needs more memory than {settings.marts_memory} (AIOPS_MARTS_MEMORY); name fewer hours or columns"
                ) from error
            except duckdb.Error as error:
                raise QueryProblem(_in_words(str(error), names)) from error
            finally:
                timer.cancel()
        finally:
            connection.close()


def readable_statement(sql: str) -> str:
    """The statement, when it is one and only reads.

    Raises:
        QueryProblem: it is none, several, or does something else than read; its kind is named.
    """
    import duckdb

    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryProblem(_first_lines(str(error))) from error
    if len(statements) != 1:
        raise QueryProblem(f"one statement is answered at a time; these are {len(statements)}")
    kind = statements[0].type.name
    text = str(statements[0].query).strip().rstrip(";")
    if kind == "MULTI":
        raise QueryProblem("PIVOT: name the values, so that it only reads: pivot … on column in ('a', 'b') using …")
    if kind not in _READS:
        raise QueryProblem(f"{kind} is refused: only statements that read are answered (SELECT, WITH, DESCRIBE …)")
    if kind == "EXPLAIN":
        explained, found = _EXPLAIN.subn("", text, count=1)
        if not found:
            raise QueryProblem("EXPLAIN is answered as `explain select …` or `explain analyze select …`")
        readable_statement(explained)
    return text


def readables(settings: Settings) -> list[Readable]:
    """Everything that can be asked, tables first, with rows and columns."""
    connection = open_all(settings)
    try:
        found: dict[str, list[tuple[str, str]]] = {}
        for view, column, kind in connection.execute(
            "select table_name, column_name, data_type from duckdb_columns() where schema_name = 'main' "
            "and not internal order by table_name, column_index"
        ).fetchall():
            found.setdefault(str(view), []).append((str(column), str(kind)))
        open_points = connection.table(OPEN_POINTS).count("*").fetchall()[0][0]
    finally:
        connection.close()
    lake = Lake(settings.paths.lake)
    counts = {name: sum(part.rows for part in lake.partitions(name)) for name in TABLES} | {OPEN_POINTS: open_points}
    tables = [Readable(name, "table", counts[name], tuple(found[name])) for name in counts]
    marts = [
        Readable(name, "mart", row_count(settings.paths.marts, name), tuple(columns))
        for name, columns in found.items()
        if name not in counts and not name.endswith("_files")
    ]
    return tables + marts


def _lock(connection: DuckDBPyConnection, settings: Settings, scratch: str) -> None:
    home = settings.paths
    folders = [str(home.marts), scratch, *([] if "://" in home.lake else [home.lake])]
    connection.execute(f"set temp_directory = {quote(scratch)}")
    connection.execute("set python_enable_replacements = false")
    connection.execute(f"set allowed_directories = [{', '.join(map(quote, folders))}]")
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")


def _fetch(connection: DuckDBPyConnection, statement: str, limit: int) -> Answer:
    relation = None if statement[:7].lower() == "explain" else connection.sql(statement)
    if relation is None:
        result = connection.execute(statement)
        rows = result.fetchall()
        columns = tuple(str(entry[0]) for entry in result.description or ())
        return Answer(columns, ("VARCHAR",) * len(columns), rows[:limit], len(rows) > limit)
    rows = relation.limit(limit + 1).fetchall()
    types = tuple(str(kind) for kind in relation.types)
    return Answer(tuple(relation.columns), types, rows[:limit], len(rows) > limit)


def _in_words(text: str, names: list[str]) -> str:
    unknown = _UNKNOWN_TABLE.search(text)
    if unknown is None:
        return _first_lines(text)
    near = difflib.get_close_matches(unknown[1].rpartition(".")[2], names, n=3, cutoff=0.5)
    hint = f"near it: {', '.join(near)}; " if near else ""
    return f"there is no table {unknown[1]!r}; {hint}aiops query --tables lists them all"


def _first_lines(text: str) -> str:
    """DuckDB's words without the repeated statement."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return "\n".join(line for line in lines if not line.startswith("LINE ") and set(line) - {" ", "^"})
