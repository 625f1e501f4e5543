"""``aiops marts``: build marts without the asset graph, and keep the dbt project's generated files true."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from aiops_assets.cli.output import USAGE, console, fail, group, load

marts = group("marts", "Marts: build them for some days, write dbt's sources.")


@marts.command("build")
def build(
    first: Annotated[str, typer.Argument(help="First day, YYYY-MM-DD in UTC; default: today.")] = "",
    last: Annotated[str, typer.Argument(help="Last day; default: the first.")] = "",
    select: Annotated[
        list[str] | None, typer.Option(help="Only these, in dbt's words, for example fleet_health.")
    ] = None,
) -> None:
    """Build marts and run their tests, as the asset graph does, but without recording it there.

    Example:

      aiops marts build 2026-01-01 2026-01-31
    """
    from aiops_assets.marts.project import ProjectProblem
    from aiops_assets.marts.project import build as dbt_build

    today = datetime.now(UTC).date()
    try:
        start = datetime.strptime(first, "%Y-%m-%d").date() if first else today
        end = datetime.strptime(last, "%Y-%m-%d").date() if last else start
    except ValueError:
        fail(f"{first} {last}: write days as YYYY-MM-DD", USAGE)
    if end < start:
        fail(f"{last} is before {first}", USAGE)
    errors = console(stderr=True)
    days = (end - start).days + 1
    try:
        with errors.status(f"dbt builds {days} day{'s' if days > 1 else ''}"):
            said = dbt_build(load(), start, end, select=select or ())
    except ProjectProblem as problem:
        fail(str(problem))
    typer.echo(said.strip().splitlines()[-1].split("  ", 1)[-1])


@marts.command("sources")
def sources(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail when the file is stale.")] = False,
) -> None:
    """Write the lake's tables as dbt sources, from the same definitions that the lake is written by."""
    from aiops_assets.marts.dbt_sources import FILE, stale, write
    from aiops_assets.marts.project import ProjectProblem, project_folder

    try:
        folder = project_folder(load())
    except ProjectProblem as problem:
        fail(str(problem))
    if check:
        if stale(folder):
            fail(f"{folder / FILE} is stale; write it again with: aiops marts sources")
        typer.echo(f"{folder / FILE} is up to date")
        return
    typer.echo(f"wrote {write(folder)}")
