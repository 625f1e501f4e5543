"""``aiops backfill``: stretches of time brought to what landing segments, code and receipts say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aiops_assets.cli.output import PROBLEM, USAGE, clean, console, duration, fail, load, print_json, table

if TYPE_CHECKING:
    from aiops_assets.live.rebuild import RebuildReport
    from aiops_assets.replay.backfill import Backfilled, Progress
    from aiops_assets.replay.events import EventsBackfilled
    from aiops_assets.replay.submission import Webserver
    from aiops_assets.settings import Settings

POINTS, MARTS = "metric_points", "marts"
#: hours and days of what deliveries tell without any derivation
EVENTS = ("changes", "log_events", "error_events", "spans", "tickets", "documents")
#: all of these come from one derivation
DERIVED = ("baselines", "anomalies", "alerts", "alert_decisions", "hour_receipts", "hour_closed")
_SHOWN = 40


@dataclass(slots=True)
class _Span:
    """The hours and days of a backfill, as partition keys."""

    hours: list[str]
    days: list[str]
    text: str


@dataclass(slots=True)
class _Outcome:
    """What was done, part by part; ``problems`` are lines for people."""

    document: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def backfill(
    first: Annotated[str, typer.Argument(metavar="FROM", help="First hour: 2026-09-01, 2026-09-01T05, yesterday.")],
    last: Annotated[str, typer.Argument(metavar="TO", help="Up to, not including, this time.")],
    assets: Annotated[
        str,
        typer.Option(help=f"Only these, with commas: {POINTS}, {', '.join((*EVENTS, *DERIVED))}, {MARTS}."),
    ] = "",
    in_dagster: Annotated[
        bool, typer.Option("--in-dagster", help="Submit it to the running Dagster and follow it there.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The result as one JSON document.")] = False,
) -> None:
    """Bring a stretch of time up to date: points, then hours, then marts.

    Points are compared with the landing segments still kept, hours are derived again from what their receipts pin, and
    what differs is put right, beside the live session. Interrupted, the same command goes on where it was. Ends with 1
    when something was refused.

    Examples:

      aiops backfill yesterday today

      aiops backfill 2026-09-01 2026-10-01 --assets anomalies,alerts --in-dagster
    """
    settings = load()
    span, chosen = _span(first, last), _chosen(assets)
    if not settings.paths.root.is_dir():
        fail(f"there is no home folder {settings.paths.root}; make it with: aiops init, or set AIOPS_HOME")
    outcome = _Outcome({"from": first, "to": last})
    if in_dagster:
        _in_dagster(settings, span, chosen, outcome)
    else:
        _here(settings, span, chosen, outcome, quiet=as_json)
    if as_json:
        print_json({**outcome.document, "problems": outcome.problems})
    for line in outcome.problems:
        console(stderr=True).print(f"[red]{clean(line)}[/]")
    raise typer.Exit(PROBLEM if outcome.problems else 0)


def _span(first: str, last: str) -> _Span:
    from aiops_assets.hours import MICROS_PER_HOUR, hour_key
    from aiops_assets.replay.period import Period

    try:
        period = Period.parse(first, last, now=datetime.now(UTC)).whole_hours()
    except ValueError as error:
        fail(str(error), USAGE)
    hours = [hour_key(at) for at in range(period.start, period.end, MICROS_PER_HOUR)]
    start = datetime.fromisoformat(hours[0][:10]).date()
    count = (datetime.fromisoformat(hours[-1][:10]).date() - start).days + 1
    return _Span(hours, [f"{start + timedelta(days=day)}" for day in range(count)], str(period))


def _chosen(assets: str) -> set[str]:
    known = (POINTS, *EVENTS, *DERIVED, MARTS)
    names = {name.strip() for name in assets.split(",") if name.strip()} or set(known)
    unknown = sorted(names - set(known))
    if unknown:
        fail(f"--assets: there is no {', '.join(unknown)} to backfill; choose among {', '.join(known)}", USAGE)
    return names


# -- in this process -------------------------------------------------------------------------------------------------


def _here(settings: Settings, span: _Span, chosen: set[str], outcome: _Outcome, *, quiet: bool) -> None:
    from aiops_assets.replay.backfill import backfill_hours, backfill_points
    from aiops_assets.replay.events import backfill_events
    from aiops_assets.tables import TABLES

    try:
        with _bar() as progress:
            if POINTS in chosen:
                _told_points(backfill_points(settings, span.hours, progress=progress), outcome, quiet=quiet)
            events = {
                name: span.hours if TABLES[name].partition == "hour" else span.days for name in EVENTS if name in chosen
            }
            _told_events(backfill_events(settings, events, progress=progress), outcome, quiet=quiet)
            if chosen & set(DERIVED):
                done = backfill_hours(settings, span.hours, progress=progress)
                _told_hours(done, outcome, quiet=quiet)
    except TimeoutError as error:
        fail(f"{error}; what was done so far stays, and the same command goes on from there")
    if chosen & set(DERIVED) and (settings.paths.dagster / "dagster.yaml").is_file():
        from aiops_assets.live.assets import tell_asset_graph

        tell_asset_graph(settings, done)
    if MARTS in chosen:
        _marts(settings, span.days, outcome, quiet=quiet)


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    words = {"segments": "reading landing segments", "hours": "comparing points"}
    words |= {"look": "deriving hours", "derive": "putting hours right"}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as shown:
        tasks: dict[str, Any] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(words.get(what, what), total=total)
            shown.update(tasks[what], completed=done, total=total)

        yield progress


def _told_points(report: RebuildReport, outcome: _Outcome, *, quiet: bool) -> None:
    outcomes = [str(hour.outcome) for hour in report.hours]
    counts = {name: outcomes.count(name) for name in dict.fromkeys(outcomes)}
    outcome.document["points"] = {"hours": counts, "segments": report.segments, "seconds": round(report.seconds, 3)}
    outcome.problems += [f"{POINTS} {hour.hour}: {hour.why}" for hour in report.refused]
    if not quiet:
        said = "no landing segment of them is kept: they stay as they are" if not report.segments else ""
        said = said or f"compared with {report.segments} landing segments"
        console().print(f"{POINTS}: {_words(counts)}; {said} ({duration(report.seconds)})")


def _told_events(reports: Sequence[EventsBackfilled], outcome: _Outcome, *, quiet: bool) -> None:
    from aiops_assets.tables import TABLES

    for report in reports:
        outcome.document[report.table] = report.document()
        if not quiet:
            added, rows = sum(part.added for part in report.partitions), sum(part.rows for part in report.partitions)
            released = sum(not part.complete for part in report.partitions)
            grain = TABLES[report.table].partition
            said = f", segments of {released} {grain}s were released" if released else ""
            console().print(f"{report.table}: {rows} stored, {added} added{said} ({duration(report.seconds)})")


def _told_hours(done: Backfilled, outcome: _Outcome, *, quiet: bool) -> None:
    outcome.document["hours"] = done.document()
    outcome.problems += [f"hour {hour.hour}: {hour.why}" for hour in done.refused]
    if quiet:
        return
    aside = f"the live session stood aside for {duration(done.owned_seconds)}" if done.owned_seconds else ""
    aside = aside or "the live session was not disturbed"
    resumed = f", {done.resumed} done before the interruption" if done.resumed else ""
    out = console()
    out.print(f"hours: {_words(done.counts())}{resumed}; {aside} ({duration(done.seconds)})")
    told = [hour for hour in done.hours if hour.status not in {"same", "absent"} and not hour.refused]
    if not told:
        return
    shown = table("hour", "backfill", "revision", "rows", "alerts", "why", right=("revision", "rows"))
    for hour in told[:_SHOWN]:
        receipt, alerts = hour.receipt, ""
        if receipt is not None and hour.status == "amended":
            alerts = f"{receipt.raised} raised, {receipt.amended} amended, {receipt.withdrawn} withdrawn"
        numbers = (str(receipt.revision), str(receipt.rows)) if receipt is not None else ("–", "–")
        shown.add_row(hour.hour, hour.status, *numbers, alerts, clean(hour.why))
    out.print(shown)
    if told[_SHOWN:]:
        out.print(f"… and {len(told) - _SHOWN} more: --json has all of them")


def _marts(settings: Settings, days: Sequence[str], outcome: _Outcome, *, quiet: bool) -> None:
    from aiops_assets.marts.project import ProjectProblem, build

    today = datetime.now(UTC).date()
    start, end = (datetime.fromisoformat(day).date() for day in (days[0], days[-1]))
    if start > today:
        return
    try:
        with console(stderr=True).status(f"dbt builds the marts of {len(days)} days"):
            said = build(settings, start, min(end, today)).strip().splitlines()[-1].split("  ", 1)[-1]
    except ProjectProblem as problem:
        outcome.problems.append(f"{MARTS}: {problem}")
        return
    outcome.document["marts"] = {"first_day": days[0], "last_day": f"{min(end, today)}", "said": said}
    if not quiet:
        console().print(f"{MARTS}: {clean(said)}")


def _words(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {word}" for word, count in counts.items()) or "nothing"


# -- in Dagster ------------------------------------------------------------------------------------------------------


def _in_dagster(settings: Settings, span: _Span, chosen: set[str], outcome: _Outcome) -> None:
    from aiops_assets.cli.up import dagster_url
    from aiops_assets.replay.submission import DagsterProblem, Webserver
    from aiops_assets.tables import TABLES

    outcome.document["backfills"] = []
    try:
        with Webserver(dagster_url(settings)) as webserver:
            hourly = [name for name in (POINTS, *DERIVED) if name in chosen]
            _submitted(webserver, hourly, span.hours, span, outcome)
            for grain, partitions in (("hour", span.hours), ("day", span.days)):
                events = [name for name in EVENTS if name in chosen and TABLES[name].partition == grain]
                _submitted(webserver, events, partitions, span, outcome)
            marts = webserver.partitioned_assets(MARTS) if MARTS in chosen else []
            _submitted(webserver, marts, span.days, span, outcome)
    except DagsterProblem as problem:
        outcome.problems.append(str(problem))


def _submitted(
    webserver: Webserver, assets: Sequence[str], partitions: Sequence[str], span: _Span, outcome: _Outcome
) -> None:
    if not assets:
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from aiops_assets.replay.submission import Standing

    backfill_id = webserver.submit(assets, partitions, f"aiops backfill {span.text}")
    out = console(stderr=True)
    out.print(f"backfill {backfill_id}: {webserver.url}/runs/b/{backfill_id}")
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=out, transient=True) as shown:
        task = shown.add_task("requested", total=len(assets) * len(partitions))

        def tell(standing: Standing) -> None:
            said = f"{standing.status.lower()}: {standing.materialised} of {standing.targeted} materialised"
            said += f", {standing.failed} failed" if standing.failed else ""
            shown.update(task, description=said, completed=standing.materialised + standing.failed)

        standing = webserver.follow(backfill_id, tell)
    outcome.document["backfills"].append(
        {
            "backfill_id": backfill_id,
            "status": standing.status,
            "assets": {
                name: {"targeted": targeted, "materialised": materialised, "failed": failed}
                for name, (targeted, materialised, failed) in standing.by_asset.items()
            },
        }
    )
    out.print(f"  {standing.materialised} of {standing.targeted} materialised, {standing.status.lower()}")
    if not standing.good:
        why = standing.error or f"{standing.failed} of {standing.targeted} partitions failed; the runs say why"
        outcome.problems.append(f"backfill {backfill_id} {standing.status.lower()}: {why}")
