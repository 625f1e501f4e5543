"""``aiops sources``: what feeds the platform, and one of them tried now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aiops_assets.cli.output import PROBLEM, USAGE, clean, console, duration, fail, group, load, print_json, table

if TYPE_CHECKING:
    import polars as pl

    from aiops_assets.sources.trial import Trial

sources = group("sources", "What feeds the platform: list, test.")
_SHOWN_CHARS = 60


@sources.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="A page with how to point every sender here.")] = False,
) -> None:
    """Every source with its format, when it is called late, and how to point a sender here."""
    if markdown:
        from aiops_assets.sources.catalogue import documentation

        typer.echo(documentation(), nl=False)
        return
    from aiops_assets.cli.up import gateway_url
    from aiops_assets.config import load_config
    from aiops_assets.sources.catalogue import entries

    settings = load()
    found = entries(load_config(settings.paths.config), gateway_url(settings))
    if as_json:
        print_json(
            [
                {
                    "name": entry.name,
                    "formats": list(entry.formats),
                    "late_after_seconds": entry.freshness.total_seconds() if entry.freshness else None,
                    "description": entry.description,
                    "point_here": entry.point_here,
                }
                for entry in found
            ]
        )
        return
    shown = table("source", "format", "late after", "what")
    for entry in found:
        late = duration(entry.freshness.total_seconds()) if entry.freshness else "–"
        shown.add_row(clean(entry.name), clean(", ".join(entry.formats)), late, clean(entry.description))
    console().print(shown)
    console().print("aiops sources test NAME tries one now and says how to point a sender here.")


@sources.command("test")
def test(
    name: Annotated[str, typer.Argument(help="A source, or the name of a device, pull, file or folder.")],
    payload: Annotated[
        Path | None, typer.Option("--file", help="Read this body as if the sender had sent it.", show_default=False)
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows shown of each table.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Try one source now: what it would store, or the exact problem. Nothing is stored. Exit code 1 on a problem.

    Devices, APIs, files and folders are fetched; of what is pushed the newest delivery is read.

    Examples:

      aiops sources test switch-1

      aiops sources test telegraf --file payload.lp
    """
    from aiops_assets.cli.up import gateway_url
    from aiops_assets.sources.trial import UnknownSource, try_source

    try:
        settings = load()
        trial = try_source(settings, name, payload, gateway=gateway_url(settings))
    except UnknownSource as error:
        fail(str(error), USAGE)
    except OSError as error:
        fail(f"{payload}: {error.strerror or error}", USAGE)
    if as_json:
        print_json(_document(trial, rows))
    else:
        _shown(trial, rows)
    raise typer.Exit(0 if trial.ok else PROBLEM)


def _document(trial: Trial, rows: int) -> dict[str, object]:
    return {
        "name": trial.name,
        "how": trial.how,
        "ok": trial.ok,
        "seconds": round(trial.seconds, 3),
        "problem": trial.problem,
        "next_step": trial.next_step,
        "rejects": trial.rejects,
        "tables": {
            name: {"rows": frame.height, "first": frame.head(rows).to_dicts()} for name, frame in trial.rows.items()
        },
    }


def _shown(trial: Trial, rows: int) -> None:
    out = console()
    out.print(f"{clean(trial.name)}: {clean(trial.how)} ({duration(trial.seconds)})")
    for name, frame in trial.rows.items():
        shown = _filled(frame)
        drawn = table(*shown.columns, title=f"{name}: {frame.height:,} rows", right=())
        for row in shown.head(rows).iter_rows():
            drawn.add_row(*(_cell(value) for value in row))
        out.print(drawn)
    for reason in trial.rejects[:rows]:
        out.print(f"[red]refused[/] {clean(reason)}")
    if len(trial.rejects) > rows:
        out.print(f"[red]refused[/] and {len(trial.rejects) - rows:,} more")
    if trial.problem:
        out.print(f"[red]problem[/] {clean(trial.problem)}")
    if trial.next_step:
        out.print(trial.next_step, markup=False, highlight=False, soft_wrap=True)
    if not trial.rows and not trial.problem and not trial.rejects:
        out.print("it answers and has nothing to tell")


def _filled(frame: pl.DataFrame) -> pl.DataFrame:
    """Without columns that say nothing."""
    told = [name for name in frame.columns if frame[name].null_count() < frame.height]
    return frame.select(told)


def _cell(value: object) -> str:
    text = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return clean(text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…")
