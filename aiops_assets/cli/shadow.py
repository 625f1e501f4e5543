"""``aiops shadow``: the history of a Prometheus imported, its alert rules converted, and who would have paged when."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from aiops_assets.cli.output import USAGE, clean, console, duration, fail, load, print_json, size, table

if TYPE_CHECKING:
    from rich.console import Console

    from aiops_assets.settings import Settings
    from aiops_assets.shadow.client import Access
    from aiops_assets.shadow.conversion import Conversion
    from aiops_assets.shadow.run import Estimate, Options, Outcome, Steps

TOKEN_VARIABLE, BASIC_VARIABLE = "AIOPS_PROMETHEUS_TOKEN", "AIOPS_PROMETHEUS_BASIC"
_SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})


def shadow(
    prometheus: Annotated[str, typer.Option(help="Its address, for example http://prom:9090.")],
    days: Annotated[float, typer.Option(min=0.01, max=3660, help="How much history, up to an hour ago.")] = 14.0,
    match: Annotated[
        list[str] | None,
        typer.Option(help="A selector, such as '{job=\"node\"}'; may be repeated. Default: everything."),
    ] = None,
    rules: Annotated[
        list[Path] | None, typer.Option(help="Rule files. Default: the rules that this Prometheus runs.")
    ] = None,
    step: Annotated[str, typer.Option(help="Distance of samples; it must divide an hour.")] = "60s",
    source: Annotated[str, typer.Option(help="The source that the points belong to.")] = "prometheus",
    host_label: Annotated[
        str | None, typer.Option(help="The label that names the host. Default: host, hostname, nodename, instance.")
    ] = None,
    rate_limit: Annotated[float, typer.Option(min=0.01, max=1000, help="Requests a second, at most.")] = 5.0,
    concurrency: Annotated[int, typer.Option(min=1, max=16, help="Requests at a time, at most.")] = 2,
    timeout: Annotated[str, typer.Option(help="Longest time for one answer.")] = "60s",
    token_file: Annotated[
        Path | None, typer.Option(help=f"A file with a bearer token. Or the variable {TOKEN_VARIABLE}.")
    ] = None,
    basic_file: Annotated[
        Path | None, typer.Option(help=f"A file with user:password. Or the variable {BASIC_VARIABLE}.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(help="A header without secrets, such as 'X-Scope-OrgID: team'.")
    ] = None,
    ca_file: Annotated[Path | None, typer.Option(help="Certificates to trust, PEM.")] = None,
    shifts: Annotated[
        str | None, typer.Option(help="Shifts, such as 08-16-24 or 06-22. Default: the settings'.")
    ] = None,
    zone: Annotated[str | None, typer.Option(help="Their time zone. Default: the settings'.")] = None,
    statistics: Annotated[bool, typer.Option(help="Run the statistics that need no rules as well.")] = True,
    report: Annotated[Path | None, typer.Option(help="Write the report there (Markdown, pictures beside it).")] = None,
    fetch: Annotated[bool, typer.Option(help="--no-fetch: only look at what was imported before.")] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be fetched and converted; write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The result as one JSON document.")] = False,
) -> None:
    """Import the history of a running Prometheus and compare: what would have paged here, what did page there.

    The import goes on where it was interrupted when the same command is run again; run later, it fetches what is new.
    Rules that mean the same here are converted, all others are listed with the reason. Nothing is paged.

    Examples:

      aiops shadow --prometheus http://prom:9090 --days 14 --report shadow.md

      aiops shadow --prometheus https://prom.example.com --match '{job="node"}' --rules alerts.yml --dry-run
    """
    from aiops_assets.cli.ingest import free_writer
    from aiops_assets.landing.writer import LandingFull
    from aiops_assets.shadow.client import PrometheusError, Stopped
    from aiops_assets.shadow.episodes import AlertsUnreadable
    from aiops_assets.shadow.history import SegmentGone
    from aiops_assets.shadow.journal import JournalBusy, JournalDamaged
    from aiops_assets.shadow.report import to_dict, write_report
    from aiops_assets.shadow.rule_files import RuleFileError
    from aiops_assets.shadow.run import NothingImported, Options, estimate, run

    settings = load()
    options = Options(
        access=_access(prometheus, rate_limit, concurrency, timeout, token_file, basic_file, header or [], ca_file),
        days=days,
        selectors=_selectors(match),
        step=_step(step),
        source=_source(source),
        host_label=host_label,
        rule_files=tuple(rules or ()),
        shifts=_shifts(shifts or settings.shifts),
        zone=_zone(zone or settings.time_zone),
        statistics=statistics,
        fetch=fetch,
    )
    stop = threading.Event()
    try:
        if dry_run:
            _show_estimate(estimate(options, time.time()), options, as_json=as_json)
            return
        settings.paths.create()
        with _progress(quiet=as_json) as steps:
            outcome = run(options, settings, lambda: free_writer(settings), time.time(), steps, stop)
    except (PrometheusError, JournalBusy, JournalDamaged, NothingImported, AlertsUnreadable, SegmentGone) as error:
        fail(str(error))
    except RuleFileError as error:
        fail(str(error), USAGE)
    except LandingFull as error:
        fail(f"{error}; what was taken so far stays, run the same command again when there is room")
    except (KeyboardInterrupt, Stopped):
        stop.set()
        fail("interrupted; what was fetched stays, run the same command again to go on", 130)
    values = to_dict(outcome.imported, outcome.conversion, outcome.recording, outcome.comparison)
    written: list[str] = []
    if report is not None:
        paths = write_report(report, outcome.imported, outcome.conversion, outcome.recording, outcome.comparison)
        written = [str(path) for path in paths]
    if as_json:
        values["import"]["taken_up_chunks"] = outcome.resumed_chunks
        values["import"]["landing"] = outcome.writers
        print_json({**values, "written": written})
        return
    _show(outcome, settings, written)


def _access(
    url: str,
    rate: float,
    concurrency: int,
    timeout: str,
    token_file: Path | None,
    basic_file: Path | None,
    headers: list[str],
    ca_file: Path | None,
) -> Access:
    from aiops_assets.config import parse_duration
    from aiops_assets.settings import environment_variable
    from aiops_assets.shadow.client import Access, PrometheusError, checked_url

    try:
        address = checked_url(url)
        seconds = parse_duration(timeout)
    except (PrometheusError, ValueError) as error:
        fail(f"--prometheus, --timeout: {error}" if isinstance(error, ValueError) else str(error), USAGE)
    if not 1 <= seconds <= 3600:
        fail("--timeout: expected between 1s and 1h", USAGE)
    given: dict[str, str] = {}
    for text in headers:
        name, colon, value = text.partition(":")
        if not colon or not name.strip() or name.strip().lower() in _SECRET_HEADERS:
            fail(
                f"--header {name.strip()!r}: expected 'Name: value' without secrets; those come from --token-file, "
                f"--basic-file, {TOKEN_VARIABLE} or {BASIC_VARIABLE}",
                USAGE,
            )
        given[name.strip()] = value.strip()
    basic = _secret("--basic-file", basic_file) or environment_variable(BASIC_VARIABLE)
    if basic is not None and ":" not in basic:
        fail(f"--basic-file or {BASIC_VARIABLE}: expected user:password", USAGE)
    return Access(
        url=address,
        token=_secret("--token-file", token_file) or environment_variable(TOKEN_VARIABLE),
        basic=basic,
        headers=given,
        ca_file=str(ca_file) if ca_file is not None else None,
        requests_per_second=rate,
        concurrency=concurrency,
        timeout_seconds=seconds,
    )


def _secret(option: str, path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{option} {path}: cannot be read: {error}", USAGE)
    if not text or "\n" in text:
        fail(f"{option} {path}: expected one line", USAGE)
    return text


def _selectors(match: list[str] | None) -> tuple[str, ...]:
    from aiops_assets.shadow.plan import EVERYTHING, checked_selector

    try:
        return tuple(dict.fromkeys(checked_selector(text) for text in match)) if match else (EVERYTHING,)
    except ValueError as error:
        fail(str(error), USAGE)


def _step(text: str) -> int:
    from aiops_assets.config import parse_duration

    try:
        seconds = parse_duration(text)
    except ValueError as error:
        fail(f"--step {text!r}: expected {error}", USAGE)
    if seconds < 1 or seconds != int(seconds) or 3600 % int(seconds):
        fail(f"--step {text}: expected whole seconds that divide an hour, such as 15s, 60s or 5m", USAGE)
    return int(seconds)


def _source(text: str) -> str:
    from aiops_assets.landing.segment import is_name

    if not is_name(text):
        fail(f"--source {text!r}: use lower-case letters, digits, '_', '.' and '-', at most 63", USAGE)
    return text


def _shifts(text: str) -> tuple[tuple[int, int], ...]:
    from aiops_assets.shadow.comparison import parse_shifts

    try:
        return tuple(parse_shifts(text))
    except ValueError as error:
        fail(f"--shifts {error}", USAGE)


def _zone(name: str) -> str:
    try:
        return ZoneInfo(name).key
    except (ZoneInfoNotFoundError, ValueError) as error:
        fail(f"--zone {name!r}: {error}; expected a name such as Europe/Berlin", USAGE)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Steps]:
    """Bars for the import and the judging, with the time that is left. Silent when nobody watches."""
    from aiops_assets.shadow.run import Steps

    out = console(stderr=True)
    if quiet or not out.is_terminal:
        yield Steps()
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=out) as bar:
        importing = bar.add_task("import", total=None, note="")
        judging = bar.add_task("judge", total=None, note="hours", start=False)

        def imported(done: int, total: int, samples: int) -> None:
            bar.update(importing, completed=done, total=total, note=f"{samples:,} samples")

        def judged(done: int, total: int) -> None:
            bar.start_task(judging)
            bar.update(judging, completed=done // 3600, total=max(total // 3600, 1))

        yield Steps(imported, judged, lambda why: bar.update(importing, note=why))


def _show_estimate(found: Estimate, options: Options, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "series": found.series,
                "requests": found.requests,
                "samples_at_most": found.samples,
                "seconds_at_least": round(found.seconds, 1),
                "landing_bytes": found.landing_bytes,
                "window_seconds": found.legs[0].window,
                "queries_per_window": len(found.legs[0].queries),
                "rules": {
                    "converted": [
                        {"alert": e.source.alert, "place": e.source.place, "exactness": e.exactness, "notes": e.notes}
                        for e in found.conversion.converted
                    ],
                    "not_converted": [
                        {"alert": e.source.alert, "place": e.source.place, "reason": e.reason}
                        for e in found.conversion.unconverted
                    ],
                    "recording": found.recording,
                },
            }
        )
        return
    out = console()
    window = duration(found.legs[0].window)
    out.print(
        f"{found.series:,} series, at most {found.samples:,} samples in {found.requests:,} requests "
        f"({len(found.legs[0].queries)} + 1 a window of {window}); at {options.access.requests_per_second:g} a second "
        f"at least {duration(found.seconds)}; about {size(found.landing_bytes)} in the landing zone"
    )
    _show_rules(out, found.conversion, found.recording)


def _show(outcome: Outcome, settings: Settings, written: list[str]) -> None:
    from aiops_assets.shadow.report import lead_text, span_text

    imported, out = outcome.imported, console()
    refused = f", {imported.refused:,} not stored (NaN, infinite, native histograms)" if imported.refused else ""
    out.print(
        f"{imported.samples:,} samples of {imported.series:,} series{refused}; {imported.requests:,} requests, "
        f"{imported.retries} repeated, {duration(imported.seconds)}"
    )
    if imported.partial:
        out.print(f"[red]{imported.partial} answers were called incomplete by the server itself[/]")
    numbers = ("series", "theirs", "ours", "both", "only theirs", "only ours", "lead", "lasting")
    shown = table("alert", "conversion", *numbers, right=numbers)
    for entry in outcome.comparison.rules:
        lasting = span_text(entry.theirs) + " / " + span_text(entry.ours)
        cells = (entry.watched, len(entry.theirs), len(entry.ours), entry.both, len(entry.only_theirs))
        lead = lead_text(entry.lead_seconds)
        name = entry.alert + (f" ({', '.join(entry.static_labels.values())})" if entry.static_labels else "")
        shown.add_row(clean(name), entry.exactness, *map(str, (*cells, len(entry.only_ours))), lead, lasting)
    out.print(shown)
    load_table = table("shift", "theirs", "ours", "most in one (theirs / ours)", right=("theirs", "ours"))
    for load_ in outcome.comparison.shifts:
        most = f"{load_.most_theirs} / {load_.most_ours}"
        load_table.add_row(load_.shift, str(load_.theirs), str(load_.ours), most)
    out.print(load_table)
    _show_rules(out, outcome.conversion, outcome.recording)
    for path in written:
        out.print(f"written: {clean(path)}")


def _show_rules(out: Console, conversion: Conversion, recording: int) -> None:
    total = len(conversion.converted) + len(conversion.unconverted)
    out.print(f"{len(conversion.converted)} of {total} alert rules converted; {recording} recording rules beside them")
    if conversion.unconverted:
        shown = table("not converted", "place", "why")
        for entry in conversion.unconverted:
            shown.add_row(clean(entry.source.alert), clean(entry.source.place), clean(entry.reason))
        out.print(shown)
