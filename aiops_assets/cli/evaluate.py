"""``aiops evaluate``: the live path's own code over files, for scoring from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aiops_assets.cli.output import USAGE, clean, console, fail, group, print_json, table

evaluate = group("evaluate", "Run parts of the live path over files, so that others can score them.")


@evaluate.callback()
def _group() -> None:
    """Keeps ``detector`` a sub-command while it is the only one."""


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
