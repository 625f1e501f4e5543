"""``aiops evaluate``: the live path's own code over files, for scoring from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aiops_assets.cli.output import USAGE, clean, console, fail, group, print_json, table

evaluate = group("evaluate", "Run parts of the live path over files, so that others can score them.")


@evaluate.callback()
def _group() -> None:
    """Sub-commands only."""


@evaluate.command("detector")
def detector(
    data: Annotated[Path, typer.Option(help="Folder with data/<category>/<file>.csv (timestamp,value).")],
    out: Annotated[Path, typer.Option(help="Folder for <category>/<file>.csv (timestamp,anomaly_score,alert).")],
    as_json: Annotated[bool, typer.Option("--json", help="The summary as one JSON document.")] = False,
) -> None:
    """Judge every series causally with the live detector, one configuration for all, no labels read.

    Example:

      aiops evaluate detector --data ../shared/data/nab --out out/nab
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from aiops_assets.detection.evaluate import evaluate_detector

    errors = console(stderr=True)
    columns = (TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=errors, disable=as_json or not errors.is_terminal) as bar:
            task = bar.add_task("rows", total=None)
            summary = evaluate_detector(data, out, lambda done, total: bar.update(task, completed=done, total=total))
    except (FileNotFoundError, ValueError) as error:
        fail(str(error), USAGE)
    if as_json:
        print_json(summary)
        return
    shown = table("file", "rows", "days", "alerts", "alerts/day", right=("rows", "days", "alerts", "alerts/day"))
    for name, entry in summary["by_file"].items():
        rate = entry["alerts"] / entry["days"] if entry["days"] else 0.0
        shown.add_row(clean(name), f"{entry['rows']:,}", f"{entry['days']:.1f}", str(entry["alerts"]), f"{rate:.2f}")
    console().print(shown)
    console().print(
        f"{summary['files']} files, {summary['rows']:,} rows, {summary['alerts']} alerts, "
        f"{summary['alerts_per_series_day']:.2f} a series and day; written to {clean(out)}"
    )


@evaluate.command("snmp")
def snmp(
    recordings: Annotated[Path, typer.Option(help="Folder with NAME.snmprec, recordings of devices.")],
    results: Annotated[Path, typer.Option(help="Folder with NAME.json, what LibreNMS finds on them.")],
    devices: Annotated[bool, typer.Option(help="A line for each device, not only the sums.")] = False,
    missing: Annotated[bool, typer.Option(help="What is not found, one line each.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Shares and counts as one JSON document.")] = False,
) -> None:
    """Of what LibreNMS finds on recorded devices, how much our profiles find, with the same values.

    Example:

      aiops evaluate snmp --recordings devices/recordings --results devices/librenms_results
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from aiops_assets.collectors.snmp.evaluate import KINDS, evaluate_snmp
    from aiops_assets.collectors.snmp.profile import ProfileError

    errors = console(stderr=True)
    columns = (TextColumn("devices"), BarColumn(), MofNCompleteColumn())
    try:
        with Progress(*columns, console=errors, disable=as_json or not errors.is_terminal) as bar:
            task = bar.add_task("devices", total=None)
            found = evaluate_snmp(
                recordings, results, progress=lambda done, total: bar.update(task, completed=done, total=total)
            )
    except (FileNotFoundError, ProfileError) as error:
        fail(str(error), USAGE)
    if as_json:
        print_json(found)
        return
    shown = table("what", "LibreNMS", "found", "share", right=("LibreNMS", "found", "share"))

    def share(have: int, of: int) -> str:
        return f"{have / of:.1%}" if of else "-"

    for kind in KINDS:
        counts = found["counts"][kind]
        shown.add_row(kind, f"{counts['there']:,}", f"{counts['found']:,}", share(counts["found"], counts["there"]))
    for kind, counts in found["classes"].items():
        shown.add_row(
            f"  {clean(kind)}", f"{counts['there']:,}", f"{counts['found']:,}", share(counts["found"], counts["there"])
        )
    console().print(shown)
    if devices:
        each = table("device", *KINDS, "requests", "later", right=(*KINDS, "requests", "later"))
        for name, entry in found["devices"].items():
            cells = [f"{entry['found'][kind]}/{entry['there'][kind]}" for kind in KINDS]
            each.add_row(clean(name), *cells, str(entry["requests_first"]), str(entry["requests_later"]))
        console().print(each)
    if missing:
        for name, lines in found["missing"].items():
            for line in lines:
                console().print(clean(f"{name} {line}"), soft_wrap=True)
    console().print(f"{found['recordings']} devices, {found['unpaired']} files without their other half left out")
