"""``aiops evaluate``: the live path's own code over files and storms whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aiops_assets.cli.output import USAGE, clean, complain, console, duration, fail, group, print_json, table

if TYPE_CHECKING:
    from rich.progress import TaskID

    from aiops_assets.evaluation.scoring import StormScore
    from aiops_assets.evaluation.storm import Evaluation
    from aiops_assets.synthetic.storms.scenario import Scenario

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


@evaluate.command("storm")
def storm(
    scenarios: Annotated[
        list[str] | None, typer.Argument(help="Names of shipped scenarios, or paths of YAML files.", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All shipped scenarios.")] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of the storms; default: each scenario's own.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for index.html, truth, alerts, incidents and scores.")
    ] = None,
    batch: Annotated[float, typer.Option(min=1, max=3600, help="Seconds of event time that a step takes.")] = 60.0,
    alerts: Annotated[
        Path | None, typer.Option(help="Score alerts of another tool (CSV, JSON lines, Parquet) instead.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="With --alerts: the truth, from `aiops storm truth SCENARIO --json`.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as one JSON document.")] = False,
) -> None:
    """Send storms whose truth is known through the live path and say what became of it.

    Recall per fault, delay, false alarms a shift and for 10,000 series, how many events went into how many incidents,
    what was split or merged, and at which place the root cause stands. Nothing of the home folder is touched.

    Examples:

      aiops evaluate storm bad-deploy

      aiops evaluate storm --all --out out/storms

      aiops evaluate storm --alerts theirs.csv --truth truth.json
    """
    from aiops_assets.synthetic.storms.scenario import load_scenario, shipped
    from aiops_assets.synthetic.storms.vocabulary import ScenarioError

    if alerts is not None or truth is not None:
        if alerts is None or truth is None or scenarios or every:
            fail("--alerts and --truth belong together, without names of scenarios", USAGE)
        _score_others(alerts, truth, as_json)
        return
    names = shipped() if every else list(scenarios or ())
    if not names:
        fail(f"name a scenario, or --all; shipped are {', '.join(shipped())}", USAGE)
    try:
        chosen = [load_scenario(name) for name in names]
    except ScenarioError as error:
        fail(str(error), USAGE)
    evaluations = _evaluate_storms(chosen, seed, round(batch * 1_000_000), as_json)
    written: list[Path] = []
    if out is not None:
        from aiops_assets.evaluation.report import write

        written = write(evaluations, out)
    _show_scores([evaluation.score for evaluation in evaluations], as_json)
    if written and not as_json:
        console().print(f"{len(written)} files written; look at {clean(written[-1])}")


def _evaluate_storms(chosen: list[Scenario], seed: int | None, batch: int, quiet: bool) -> list[Evaluation]:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from aiops_assets.evaluation.storm import evaluate as run

    errors = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    evaluations = []
    with Progress(*columns, console=errors, disable=quiet or not errors.is_terminal) as bar:
        for number, scenario in enumerate(chosen, 1):
            task = bar.add_task(f"{scenario.name} ({number} of {len(chosen)})", total=None)

            def tell(at: int, start: int, end: int, task: TaskID = task) -> None:
                bar.update(task, completed=at - start, total=end - start)

            evaluations.append(run(scenario, seed=seed, batch=batch, tell=tell))
    return evaluations


def _score_others(alerts: Path, truth: Path, as_json: bool) -> None:
    from aiops_assets.evaluation.outside import AlertsProblem, score_alerts
    from aiops_assets.evaluation.truth import TruthProblem, read_truth

    try:
        found = score_alerts(alerts, read_truth(truth))
    except (AlertsProblem, TruthProblem) as error:
        fail(str(error), USAGE)
    _show_scores([found], as_json)


_HEADS = (
    *("scenario", "found", "paged", "delay", "visible", "alerts", "incidents", "pages", "false", "/shift/10k"),
    *("compressed", "grouped", "root 1st", "in 3"),
)


def _show_scores(scores: list[StormScore], as_json: bool) -> None:
    from aiops_assets.evaluation.report import document, faults_frame, summary, totals

    if as_json:
        print_json({"totals": totals(scores), "scenarios": [document(score) for score in scores]})
        return
    shown = table(*_HEADS, right=_HEADS[1:])
    for row, score in zip(summary(scores).iter_rows(named=True), scores, strict=True):
        grouped = "-"
        if score.grouping.precision is not None or score.grouping.recall is not None:
            grouped = f"{_share(score.grouping.precision)}/{_share(score.grouping.recall)}"
        shown.add_row(
            clean(row["scenario"]),
            f"{row['found']}/{row['faults']}",
            f"{row['paged']}/{row['faults']}",
            _delay(row["median_delay"]),
            _delay(row["median_delay_visible"]),
            f"{row['alerts']:,}",
            f"{row['incidents']:,}",
            f"{row['pages']:,}",
            f"{row['false_pages']:,}",
            f"{row['false_pages_shift_10k']:.2f}",
            _share(row["compression"]),
            grouped,
            f"{row['hit_1']}/{row['found']}",
            f"{row['hit_3']}/{row['found']}",
        )
    out = console()
    out.print(shown)
    faults = table("scenario", "fault", "kind", "root", "found after", "paged", "alerts", "root at", "mixed with")
    for row in faults_frame(scores).iter_rows(named=True):
        faults.add_row(
            clean(row["scenario"]),
            clean(row["fault"]),
            clean(row["kind"]),
            clean(row["root"]),
            _delay(row["delay"]) if row["found"] else "[red]missed[/]",
            "yes" if row["paged"] else "no",
            str(row["alerts"]),
            "-" if not row["found"] else str(row["root_rank"] or "not listed"),
            clean(row["mixed_with"]),
        )
    if faults.row_count:
        out.print(faults)
    _show_totals(scores, totals(scores))
    for score in scores:
        for line in score.problems:
            complain(f"{clean(score.scenario)}: {clean(line)}")


def _show_totals(scores: list[StormScore], sums: dict[str, Any]) -> None:
    out = console()
    kinds = [f"{kind} {n['found']}/{n['faults']}" for kind, n in sums["recall_by_kind"].items()]
    if kinds:
        out.print(f"found by kind: {clean(', '.join(kinds))}")
    wrong: dict[str, int] = {}
    for score in scores:
        for name, count in score.false_alarms.items():
            wrong[name] = wrong.get(name, 0) + count
    if wrong:
        worst = sorted(wrong.items(), key=lambda entry: (-entry[1], entry[0]))[:6]
        out.print(f"false alarms by: {clean(', '.join(f'{name} {count}' for name, count in worst))}")
    rate = sums["false_pages_per_shift_and_10k_series"]
    found = sums["found"]
    parts = [
        f"{found} of {sums['faults']} faults found ({sums['paged']} paged)",
        f"median {_delay(sums['median_delay'])} after their start",
        f"{sums['false_pages']:,} of {sums['pages']:,} pages false"
        + (f", {rate:.2f} a shift and 10,000 series" if rate is not None else ""),
        f"{sums['alerts']:,} alerts in {sums['incidents']:,} incidents",
        f"root cause first in {sums['hit_1']} of {found}, in the first three in {sums['hit_3']}",
        f"{sums['benign_mistaken']} of {sums['benign']} ordinary events mistaken",
        duration(sums["seconds"]),
    ]
    out.print("; ".join(parts))


def _delay(seconds: float | None) -> str:
    return "-" if seconds is None else duration(seconds)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


@evaluate.command("privacy")
def privacy(
    count: Annotated[int, typer.Option(help="Texts to make, of one to six lines each.", min=1, max=1_000_000)] = 10_000,
    seed: Annotated[int, typer.Option(help="Another seed makes other texts.")] = 1,
    lines: Annotated[Path | None, typer.Option(help="A file whose lines hold nothing personal: what is found?")] = None,
    show: Annotated[int, typer.Option(help="How many misses and false finds to show.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="The scores as one JSON document.")] = False,
) -> None:
    """Precision and recall of the detectors of personal data and secrets, on texts made from the standards.

    Example:

      aiops evaluate privacy --lines /var/log/syslog --show 10
    """
    import polars as pl

    from aiops_assets.privacy.corpus import corpus, misses, score
    from aiops_assets.privacy.detect import find

    planted = corpus(count, seed)
    found = find(planted.texts)
    scores = score(found, planted.truth)
    result: dict[str, object] = {"texts": count, "seed": seed, "kinds": scores.to_dicts()}
    missed = misses(found, planted.truth).head(show)
    finds = pl.DataFrame()
    if lines is not None:
        try:
            column = pl.Series(lines.read_text("utf-8", "replace").splitlines(), dtype=pl.String)
        except OSError as error:
            fail(f"{lines}: {error.strerror}", USAGE)
        finds = find(column)
        by_kind = dict(finds.group_by("kind").len().sort("kind").iter_rows())
        thousands = max(len(column), 1) / 1000
        rates = {kind: count / thousands for kind, count in by_kind.items()}
        result["lines"] = {"file": str(lines), "lines": len(column), "finds_per_1000": rates}
    if as_json:
        print_json(result)
        return
    numbers = ("planted", "recall", "covered", "finds", "precision")
    shown = table("kind", *numbers, right=numbers)

    def share(value: float | None) -> str:
        return "–" if value is None else f"{value:.2%}"

    for row in scores.iter_rows(named=True):
        shares = {name: share(row[name]) for name in ("recall", "covered", "precision")}
        cells = [f"{row['planted']:,}", shares["recall"], shares["covered"], f"{row['finds']:,}", shares["precision"]]
        shown.add_row(row["kind"], *cells)
    console().print(shown)
    for row in missed.iter_rows(named=True):
        console().print(clean(f"missed {row['kind']}: {row['text']}"), soft_wrap=True)
    if lines is not None:
        counts = ", ".join(f"{kind} {rate:.2f}" for kind, rate in rates.items()) or "nothing"
        console().print(f"{clean(lines)}: {len(column):,} lines; finds in 1,000 lines: {counts}")
        for row in finds.head(show).iter_rows(named=True):
            console().print(clean(f"line {row['row'] + 1}: {row['kind']} {row['text']}"), soft_wrap=True)
