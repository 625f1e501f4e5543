"""``aiops lake``: the care of stored data by hand, each with a dry run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from aiops_assets.cli.output import PROBLEM, USAGE, clean, console, duration, fail, group, load, print_json, size, table

lake = group("lake", "The care of stored data: compact, pack, vacuum, retain, verify, rebuild.")
Tell = Callable[[str, int, int], None]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document.")]


@contextmanager
def progress(as_json: bool) -> Iterator[Tell]:
    """A progress bar on standard error; nothing in a file or with ``--json``."""
    out = console(stderr=True)
    if as_json or not out.is_terminal:
        yield lambda what, done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(clean(what), total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield tell


@contextmanager
def session_aside() -> Iterator[None]:
    """One line instead of a traceback when the live session does not give way."""
    try:
        yield
    except TimeoutError as error:
        fail(f"{error}: try again, or end the session in the Dagster UI")


@lake.command("compact")
def compact(dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Rewrite closed partitions as one sorted file each. The live session stands aside meanwhile."""
    from aiops_assets.live.upkeep import compact_closed

    with progress(as_json) as tell, session_aside():
        done = compact_closed(load(), dry_run=dry_run, now=datetime.now(UTC), tell=tell)
    if as_json:
        print_json({"dry_run": dry_run, "tables": [asdict(entry) for entry in done]})
        return
    if not done:
        console().print("every closed partition is one sorted file")
        return
    shown = table("table", "partitions", "rows", "files", "size", "bytes a row", right=("partitions", "rows", "files"))
    for entry in done:
        after = f"{size(entry.size_before)} → {size(entry.size_after)}" if not dry_run else size(entry.size_before)
        shown.add_row(
            entry.table, f"{entry.partitions:,}", f"{entry.rows:,}", f"{entry.files_before:,} → {entry.files_after:,}",
            after, "" if dry_run else f"{entry.size_after / max(entry.rows, 1):.2f}",
        )  # fmt: skip
    _print(shown, dry_run, "would be compacted")


@lake.command("pack")
def pack(
    after_hours: Annotated[float, typer.Option(min=0, help="Segments that were sealed this long ago.")] = 1.0,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Put old landing segments into compressed packs. Everything reads them as before."""
    from aiops_assets.live.upkeep import pack_segments

    with progress(as_json) as tell:
        done = pack_segments(load(), dry_run=dry_run, now=datetime.now(UTC), after_hours=after_hours, tell=tell)
    if as_json:
        print_json({"dry_run": dry_run, "writers": [asdict(entry) for entry in done]})
        return
    shown = table("writer", "segments", "packs", "size", right=("segments", "packs"))
    for entry in done:
        after = size(entry.size) if dry_run else f"{size(entry.size)} → {size(entry.packed_size)}"
        shown.add_row(entry.writer, f"{entry.segments:,}", f"{entry.packs:,}", after)
    _print(shown, dry_run, "would be packed")


@lake.command("vacuum")
def vacuum(
    keep_hours: Annotated[float, typer.Option(min=1, help="Files without a use stay this long for readers.")] = 24.0,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Remove files that no version of a table needs, and old entries of the Delta logs."""
    from aiops_assets.live.upkeep import vacuum as run

    done = run(load(), dry_run=dry_run, keep_hours=keep_hours, now=datetime.now(UTC))
    if as_json:
        print_json({"dry_run": dry_run, "tables": [asdict(entry) for entry in done]})
        return
    shown = table("table", "removed", "size", "waiting", "in use", right=("removed", "size", "waiting", "in use"))
    for entry in done:
        shown.add_row(
            entry.table, f"{entry.removed:,}", size(entry.size), f"{entry.waiting:,}", f"{entry.files:,}"
        )  # fmt: skip
    _print(shown, dry_run, "would be removed")


@lake.command("retain")
def retain(dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Let partitions go that have passed the retention of their table (``retention`` in aiops.yaml)."""
    from aiops_assets.live.upkeep import expire_rows

    with session_aside():
        gone = expire_rows(load(), dry_run=dry_run, now=datetime.now(UTC))
    if as_json:
        print_json({"dry_run": dry_run, "tables": [asdict(entry) for entry in gone]})
        return
    if not gone:
        console().print("nothing has passed its retention")
        return
    shown = table("table", "from", "to", "partitions", "rows", "size", right=("partitions", "rows", "size"))
    for entry in gone:
        shown.add_row(
            entry.table, entry.first, entry.last, f"{entry.partitions:,}", f"{entry.rows:,}", size(entry.size)
        )  # fmt: skip
    _print(shown, dry_run, "would go")


@lake.command("verify")
def verify(
    full: Annotated[bool, typer.Option("--full", help="Read everything, not only what is new.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look whether files, logs, keys and the hashes of closed hours are what they should be; exit 1 when not.

    Example:

      aiops lake verify --full
    """
    from aiops_assets.live.upkeep import verify_all

    with progress(as_json) as tell:
        outcome = verify_all(load(), full=full, now=datetime.now(UTC), tell=tell)
    if as_json:
        print_json(outcome.document())
    else:
        show_verification(outcome)
    if not outcome.clean:
        raise typer.Exit(PROBLEM)


def show_verification(outcome: Any) -> None:
    """The outcome of a verification as people read it."""
    out = console()
    shown = table(
        "table", "files", "read now", "rows", "size", "wrong", right=("files", "read now", "rows", "size", "wrong")
    )
    for entry in outcome.tables:
        shown.add_row(
            entry.table, f"{entry.files:,}", f"{entry.read:,}", f"{entry.rows:,}", size(entry.size),
            str(entry.findings or ""),
        )  # fmt: skip
    out.print(shown)
    for finding in outcome.findings:
        place = " ".join(filter(None, (finding.table, finding.partition, finding.file)))
        out.print(f"[red]{clean(place)}[/]\n  {clean(finding.what)}\n  next: {clean(finding.next_step)}")
    closed = f"{outcome.hours_compared:,} closed hours compared with their receipts"
    if outcome.expired:
        closed += f", the inputs of {outcome.expired:,} have expired"
    found = len(outcome.findings)
    verdict = "[green]clean[/]" if outcome.clean else f"[red]{found} finding{'s' if found > 1 else ''}[/]"
    out.print(f"{verdict}: {closed}, {duration(outcome.seconds)}")


@lake.command("rebuild")
def rebuild(
    hours: Annotated[list[str] | None, typer.Argument(help="Hours as YYYY-MM-DDTHH, UTC.", show_default=False)] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every hour that the landing zone still has, and torn Delta logs.")
    ] = False,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Replace an hour even where segments of it were released.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Bring hours of metric_points to what the landing segments say, row for row; hours that are right stay.

    Example:

      aiops lake rebuild 2026-01-10T22
    """
    from aiops_assets.live.rebuild import rebuild_hours

    if bool(hours) == everything:
        fail("name hours, or --all", USAGE)
    _check_hours(hours or [])
    with progress(as_json) as tell, session_aside():
        report = rebuild_hours(
            load(), None if everything else hours, tell=tell, accept_loss=accept_loss, dry_run=dry_run
        )
    if as_json:
        print_json(report.document())
    else:
        _show_rebuilt(report, dry_run)
    if report.refused:
        raise typer.Exit(PROBLEM)


def _show_rebuilt(report: Any, dry_run: bool) -> None:
    out = console()
    for line in report.mended:
        out.print(f"mended {clean(line)}")
    changed = [hour for hour in report.hours if hour.outcome != "same"]
    if changed:
        shown = table(
            "hour", "outcome", "rows before", "rows", "as in its receipt", "why", right=("rows before", "rows")
        )
        for hour in changed:
            receipt = {True: "yes", False: "no", None: "–"}[hour.receipt]
            shown.add_row(
                hour.hour, hour.outcome, f"{hour.rows_before:,}", f"{hour.rows:,}", receipt, clean(hour.why)
            )  # fmt: skip
        _print(shown, dry_run, "would be done")
    same = len(report.hours) - len(changed)
    out.print(f"{same:,} hours were right; {report.segments:,} segments read in {duration(report.seconds)}")
    if report.refused:
        out.print("refused hours stay as they are; take a backup (aiops restore), or add --accept-loss")


def _check_hours(hours: list[str]) -> None:
    from aiops_assets.hours import HOUR_FORMAT

    for hour in hours:
        try:
            parsed = datetime.strptime(hour, HOUR_FORMAT).replace(tzinfo=UTC)
        except ValueError:
            parsed = None
        if parsed is None or parsed.strftime(HOUR_FORMAT) != hour:
            fail(f"{hour!r} is not an hour: write YYYY-MM-DDTHH in UTC, for example 2026-01-10T22", USAGE)


def _print(shown: Any, dry_run: bool, would: str) -> None:
    out = console()
    out.print(shown)
    if dry_run:
        out.print(f"[dim]dry run: nothing was changed, this {would}[/]")
