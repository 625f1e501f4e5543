"""``aiops replay``: the past derived again, to prove that it is as recorded, or to see what would be otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aiops_assets.cli.output import PROBLEM, USAGE, ago, clean, console, duration, fail, load, print_json, table

if TYPE_CHECKING:
    from aiops_assets.replay.period import Period
    from aiops_assets.replay.recorded import Verification
    from aiops_assets.replay.run import Replayed

_SHOWN = 40


def replay(
    first: Annotated[
        str | None, typer.Argument(metavar="FROM", help="First hour: 2026-09-01, 2026-09-01T05, yesterday.")
    ] = None,
    last: Annotated[str | None, typer.Argument(metavar="TO", help="Up to, not including, this time.")] = None,
    recorded: Annotated[
        bool, typer.Option("--as-recorded", help="Derive from the pinned inputs; must be identical.")
    ] = False,
    now: Annotated[bool, typer.Option("--as-now", help="Judge with what is known today; shows what differs.")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="As now, with NAME.PARAMETER=VALUE of a rule or of statistics; may be repeated."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="As now, with this aiops.yaml.")] = None,
    mask: Annotated[
        list[str] | None, typer.Option(help="As now, as if nothing had come in FROM..TO; may be repeated.")
    ] = None,
    host: Annotated[str, typer.Option(help="As now, only hosts that match; * matches anything.")] = "*",
    labels: Annotated[
        Path | None,
        typer.Option(help="As now: host,metric,from,to of real trouble (CSV or JSON), to be scored against."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="As now: do not go on with an unfinished one.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the replays on disk.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The result as one JSON document.")] = False,
) -> None:
    """Derive closed hours again: as recorded (proof), or as now (what would be otherwise).

    --as-recorded ends with 0 when everything is identical and with 1 when anything differs. --as-now writes shadow
    tables and a report into a folder of its own, changes nothing else, and goes on where it was interrupted.

    Examples:

      aiops replay yesterday today --as-recorded

      aiops replay 2026-09-01 2026-10-01 --as-now --set cpu-saturated.value=0.9 --set cpu-saturated.for=5m

      aiops replay 2026-09-01 2026-09-02 --as-now --mask 2026-09-01T05..2026-09-01T07 --labels trouble.csv
    """
    if list_:
        _list(as_json)
        return
    period = _period(first, last)
    of_now = set_ or config or mask or host != "*" or labels or fresh
    if recorded and (now or of_now):
        fail("--as-recorded takes no other input than what is recorded: leave out the options of --as-now", USAGE)
    if not recorded and not now:
        fail("say --as-recorded or --as-now", USAGE)
    if recorded:
        _as_recorded(period, as_json)
    else:
        _as_now(period, set_ or [], config, mask or [], host, labels, fresh, as_json)


def _period(first: str | None, last: str | None) -> Period:
    from aiops_assets.replay.period import Period

    if first is None or last is None:
        fail("FROM and TO are needed, for example: aiops replay yesterday today --as-recorded", USAGE)
    try:
        return Period.parse(first, last, now=datetime.now(UTC))
    except ValueError as error:
        fail(str(error), USAGE)


def _as_recorded(period: Period, as_json: bool) -> None:
    from aiops_assets.replay.run import as_recorded

    with hours_bar(as_json) as progress:
        found = as_recorded(load(), period, progress=progress)
    if as_json:
        print_json(found.document())
    else:
        _show_verification(found)
    if not found.hours and not found.expired:
        fail(f"no closed hour with a receipt from {found.first} to {found.last}")
    if not found.identical:
        raise typer.Exit(PROBLEM)


def _show_verification(found: Verification) -> None:
    from aiops_assets.replay.report import verdict

    out = console()
    for entry in found.differences[:_SHOWN]:
        out.print(f"[red]{entry.hour}[/] revision {entry.revision}: {clean(entry.what)}")
        out.print(f"    expected  {clean(entry.expected)}\n    found     {clean(entry.found)}")
        if entry.row:
            out.print(f"    {clean(entry.row[:1000])}")
    if len(found.differences) > _SHOWN:
        out.print(f"… and {len(found.differences) - _SHOWN:,} more (--json has them all)")
    for hour, why in list(found.expired.items())[:_SHOWN]:
        out.print(f"[yellow]{hour}[/] inputs expired: {clean(why)}")
    if found.without_receipt:
        hours = found.without_receipt
        out.print(f"without receipt (still open, or closed before there were any): {_some(hours)}")
    if found.derived_by_other:
        out.print(f"derived by other code or libraries: {clean('; '.join(found.derived_by_other))}; now {found.code}")
    out.print(f"[bold]{verdict(found)}[/]")


def _some(hours: list[str]) -> str:
    return ", ".join(hours[:6]) + (f" … ({len(hours)})" if len(hours) > 6 else "")


def _as_now(
    period: Period,
    sets: list[str],
    config: Path | None,
    masks: list[str],
    host: str,
    labels: Path | None,
    fresh: bool,
    as_json: bool,
) -> None:
    from aiops_assets.replay.asnow import Busy
    from aiops_assets.replay.labels import LabelProblem
    from aiops_assets.replay.period import parse_mask
    from aiops_assets.replay.run import as_now

    try:
        stretches = [parse_mask(text, now=datetime.now(UTC)) for text in masks]
        with hours_bar(as_json) as progress:
            done = as_now(
                load(),
                period,
                sets=sets,
                config=config,
                masks=stretches,
                host=host,
                labels=labels,
                fresh=fresh,
                progress=progress,
            )
    except (ValueError, LabelProblem, FileNotFoundError) as error:
        fail(str(error), USAGE)
    except (LookupError, Busy) as error:
        fail(str(error.args[0]))
    if as_json:
        print_json(done.document)
    else:
        show_replayed(done)


def show_replayed(done: Replayed) -> None:
    """The result of a replay as of now, in tables."""
    from aiops_assets.replay.report import MARKDOWN, is_empty, rules_table, short_table

    out = console()
    content = done.document
    out.print(
        f"{content['hours']:,} hours, {content['points']:,} points in {duration(content['seconds'])}; "
        f"{clean(content['began'])}"
    )
    if content["hours_still_open"]:
        out.print(f"left out, still open: {_some(content['hours_still_open'])}")
    for frame in (short_table(content), rules_table(done.found)):
        shown = table(*frame.columns, right=frame.columns[1:])
        for row in frame.iter_rows():
            shown.add_row(*("" if cell is None else clean(cell) for cell in row))
        out.print(shown)
    for side, score in content["labels"].items():
        if score is not None:
            out.print(
                f"{side}: {score['seen']} of {score['windows']} labelled windows seen; right are "
                f"{score['right']} of {score['alerts']} alerts and {score['pages_right']} of {score['pages']} pages"
            )
    if is_empty(content):
        out.print("[bold]nothing differs[/]")
    out.print(f"report: {clean(done.shadow.folder / MARKDOWN)}")


def _list(as_json: bool) -> None:
    from aiops_assets.replay.asnow import replays, running

    found = [(shadow, running(shadow)) for shadow in replays(load().paths.replays)]
    if as_json:
        print_json(
            [
                {**shadow.journal.model_dump(mode="json"), "folder": str(shadow.folder), "running": busy}
                for shadow, busy in found
            ]
        )
        return
    if not found:
        console().print("no replay yet: aiops replay yesterday today --as-now")
        return
    shown = table("replay", "begun", "state", "hours", "set", "mask", "host", right=("hours",))
    for shadow, busy in found:
        journal, request = shadow.journal, shadow.journal.request
        state = "done" if journal.finished else "running" if busy else "interrupted"
        shown.add_row(
            request.replay_id,
            ago(round(journal.started_at * 1_000_000)),
            state,
            f"{journal.done}/{len(journal.hours)}",
            clean(", ".join(request.sets) or "–"),
            str(len(request.masks) or "–"),
            clean(request.host),
        )
    console().print(shown)


@contextmanager
def hours_bar(quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar over hours with the time left, on standard error of a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    errors = console(stderr=True)
    columns = (TextColumn("hours"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, disable=quiet or not errors.is_terminal) as bar:
        task = bar.add_task("hours", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
