"""``aiops quarantine``: what could not be stored, why, and another try."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from aiops_assets.cli.output import USAGE, clean, console, fail, group, instant, load, print_json, size, table

quarantine = group("quarantine", "Input that could not be stored: list, show, retry.")
_SHOWN_BYTES = 400


@quarantine.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False) -> None:
    """Count what is in quarantine, by source and reason."""
    from aiops_assets.landing.quarantine import Quarantine

    found = Quarantine(load().paths.quarantine).counts()
    if as_json:
        print_json(found)
        return
    if not found:
        console().print("nothing is in quarantine")
        return
    shown = table("source", "entries", "reason", right=("entries",))
    for source, reasons in sorted(found.items()):
        for reason, count in sorted(reasons.items(), key=lambda entry: -entry[1]):
            shown.add_row(clean(source), f"{count:,}", clean(reason))
    console().print(shown)


@quarantine.command("show")
def show(
    source: Annotated[str | None, typer.Argument(help="Only this source.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many entries.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, contents included.")] = False,
) -> None:
    """Show entries with their reason, position and first bytes."""
    from aiops_assets.landing.quarantine import Quarantine

    _check(source)
    entries = list(islice(Quarantine(load().paths.quarantine).entries(source), limit))
    if as_json:
        names = (
            "source",
            "reason",
            "delivery_id",
            "received_at",
            "content_type",
            "format",
            "writer",
            "seq",
            "index",
            "offset",
        )
        print_json(
            [
                {
                    **{name: getattr(entry, name) for name in names},
                    "content": entry.content.decode("utf-8", "backslashreplace"),
                }
                for entry in entries
            ]
        )
        return
    out = console()
    for entry in entries:
        where = f"{entry.writer}/{entry.seq}[{entry.index}] byte {entry.offset}"
        out.print(
            f"[bold]{clean(entry.source)}[/]  {instant(entry.received_at)}  {clean(where)}  {size(len(entry.content))}"
        )
        out.print(f"  {clean(entry.reason)}")
        out.print(f"  [dim]{clean(entry.content[:_SHOWN_BYTES].decode('utf-8', 'backslashreplace'))}[/]")
    if not entries:
        out.print("nothing is in quarantine")


@quarantine.command("retry")
def retry(
    source: Annotated[str | None, typer.Argument(help="Only this source. Default: all.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Put the original bytes into the landing zone again, for after a fix; what was stored already is not stored twice.

    Example:

      aiops quarantine retry telegraf
    """
    from aiops_assets.cli.ingest import free_writer
    from aiops_assets.landing.quarantine import Quarantine

    _check(source)
    settings = load()
    settings.paths.create()
    with free_writer(settings, "retry") as writer:
        count = Quarantine(settings.paths.quarantine).retry(writer, source)
    if as_json:
        print_json({"retried": count})
    else:
        console().print(f"{count:,} entries are in the landing zone again")


def _check(source: str | None) -> None:
    from aiops_assets.landing.segment import is_name

    if source is not None and not is_name(source):
        fail(f"{source!r} is not a source's name", USAGE)
