"""``aiops query``: SQL over the lake and the marts, read-only."""

from __future__ import annotations

import csv
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from aiops_assets.cli.output import USAGE, clean, console, fail, load, print_json, table

if TYPE_CHECKING:
    from aiops_assets.marts.query import Answer
    from aiops_assets.settings import Settings

_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "UBIGINT", "UINTEGER")


def query(
    sql: Annotated[str, typer.Argument(help="One statement that reads; - takes it from standard input.")] = "",
    tables: Annotated[bool, typer.Option("--tables", help="List what can be asked, with columns and rows.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="At most so many rows.")] = 1_000,
    timeout: Annotated[float, typer.Option(min=0.1, help="Stop after so many seconds.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects as one JSON document.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values with a header.")] = False,
) -> None:
    """Ask the lake and the marts in SQL (DuckDB's), without changing anything.

    Every table of the lake and every mart has a view of its name. Instants are in UTC.

    Examples:

      aiops query "select metric, count(*) from metric_points where hour = '2026-01-10T09' group by all"

      aiops query --csv "select * from incident_kpis where scope = 'all' order by day" > kpis.csv

      aiops query --tables
    """
    from aiops_assets.marts.query import QueryProblem, run_query

    if as_json and as_csv:
        fail("--json or --csv, not both", USAGE)
    settings = load()
    try:
        if tables:
            _tables(settings, as_json)
            return
        text = sys.stdin.read() if sql == "-" else sql
        if not text.strip():
            fail("no statement: give one, for example: aiops query 'from fleet_health'; --tables lists tables", USAGE)
        answer = run_query(settings, text, limit=limit, timeout=timeout)
    except (QueryProblem, ValueError) as error:
        fail(str(error), USAGE)
    if as_json:
        names = _distinct(answer.columns)
        print_json([dict(zip(names, row, strict=True)) for row in answer.rows])
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(answer.columns)
        writer.writerows(answer.rows)
    else:
        _print(answer)
    if answer.more:
        console(stderr=True).print(f"only the first {limit:,} rows; --limit gives more", style="yellow")


def _print(answer: Answer) -> None:
    if "explain_value" in answer.columns:
        for row in answer.rows:
            sys.stdout.write(f"{row[-1]}\n")
        return
    names = _distinct(answer.columns)
    right = [name for name, kind in zip(names, answer.types, strict=True) if kind.startswith(_NUMBERS)]
    shown = table(*names, right=right)
    for row in answer.rows:
        shown.add_row(*(_cell(value) for value in row))
    console().print(shown)


def _cell(value: object) -> str:
    from datetime import datetime

    if value is None:
        return "[dim]null[/]"
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S") + (f".{value.microsecond:06d}" if value.microsecond else "")
    return clean(value)


def _distinct(columns: tuple[str, ...]) -> list[str]:
    """Column names, a number added to those that come twice."""
    names: list[str] = []
    for column in columns:
        name, number = column, 1
        while name in names:
            number += 1
            name = f"{column}_{number}"
        names.append(name)
    return names


def _tables(settings: Settings, as_json: bool) -> None:
    from aiops_assets.marts.query import readables

    found = readables(settings)
    if as_json:
        print_json(
            [
                {"name": entry.name, "kind": entry.kind, "rows": entry.rows, "columns": dict(entry.columns)}
                for entry in found
            ]
        )
        return
    shown = table("name", "kind", "rows", "columns", right=("rows",))
    for entry in found:
        shown.add_row(entry.name, entry.kind, f"{entry.rows:,}", ", ".join(name for name, _ in entry.columns))
    console().print(shown)
