"""``aiops restate``: closed hours judged again with what is known today, and written beside what was known then."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from aiops_assets.cli.output import USAGE, clean, console, fail, load, print_json, table
from aiops_assets.cli.replay import hours_bar, show_replayed

if TYPE_CHECKING:
    from aiops_assets.replay.period import Period


def restate(
    first: Annotated[str, typer.Argument(metavar="FROM", help="First hour: 2026-09-01, 2026-09-01T05, yesterday.")],
    last: Annotated[str, typer.Argument(metavar="TO", help="Up to, not including, this time.")],
    reason: Annotated[str, typer.Option(help="Why; it stands in the receipts and on amended alerts.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would change (a replay as of now).")
    ] = False,
    wait: Annotated[float, typer.Option(min=0, help="Wait so many seconds for whoever owns the live plane.")] = 120.0,
    as_json: Annotated[bool, typer.Option("--json", help="The result as one JSON document.")] = False,
) -> None:
    """Write what is known today about closed hours: today's rules and all rows; old revisions stay readable.

    The live session gives way and what arrives is taken meanwhile. A killed restatement goes on with the same command.

    Examples:

      aiops restate 2026-09-01 2026-09-02 --dry-run

      aiops restate 2026-09-01 2026-09-02 --reason "the disk rule had the wrong limit"
    """
    from aiops_assets.replay.period import Period

    try:
        period = Period.parse(first, last, now=datetime.now(UTC))
    except ValueError as error:
        fail(str(error), USAGE)
    if dry_run:
        _dry_run(period, as_json)
        return
    from aiops_assets.replay.restate import restate as run

    try:
        with hours_bar(as_json) as progress:
            done = run(load(), period, reason=reason, progress=progress, wait_seconds=wait)
    except (LookupError, TimeoutError) as error:
        fail(str(error.args[0]))
    if as_json:
        print_json(
            {
                "first": done.first,
                "last": done.last,
                "hours": done.hours,
                "resumed_after": done.resumed_after,
                "raised": done.raised,
                "amended": done.amended,
                "withdrawn": done.withdrawn,
                "changed": [
                    {
                        "hour": r.hour,
                        "revision": r.revision,
                        "raised": r.raised,
                        "amended": r.amended,
                        "withdrawn": r.withdrawn,
                    }
                    for r in done.changed
                ],
            }
        )
        return
    out = console()
    if done.resumed_after:
        out.print(f"went on after {done.resumed_after}")
    if done.changed:
        numbers = ("revision", "raised", "amended", "withdrawn")
        shown = table("hour", *numbers, right=numbers)
        for receipt in done.changed:
            shown.add_row(clean(receipt.hour), *(str(getattr(receipt, name)) for name in numbers))
        out.print(shown)
    out.print(
        f"{done.hours} hours judged again, {len(done.changed)} came out otherwise: {done.raised} alerts raised, "
        f"{done.amended} amended, {done.withdrawn} withdrawn"
    )


def _dry_run(period: Period, as_json: bool) -> None:
    from aiops_assets.replay.asnow import Busy
    from aiops_assets.replay.run import as_now

    try:
        with hours_bar(as_json) as progress:
            done = as_now(load(), period, fresh=True, progress=progress)
    except (LookupError, Busy) as error:
        fail(str(error.args[0]))
    if as_json:
        print_json(done.document)
    else:
        show_replayed(done)
