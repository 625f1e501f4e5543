"""``aiops golden validate|certificate|export|sanitise|diff|fit``: what is done with whole data sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from aiops_assets.cli.golden import (
    AsJson,
    ConfigFile,
    Fit,
    FormatName,
    NoMetadata,
    Out,
    described,
    fitted_source,
    golden,
    golden_config,
    known_problems,
    say,
    written,
)
from aiops_assets.cli.incidents import Who
from aiops_assets.cli.output import PROBLEM, USAGE, clean, console, fail, load, print_json, table

if TYPE_CHECKING:
    import polars as pl

    from aiops_assets.promotion.gates import GateResult, VersionFiles
    from aiops_assets.synthetic.golden.difference import Difference

__all__ = ["golden"]

_WHICH = "Which version: its first digits, 'champion' or 'newest'."
_MOST_SHOWN = 10


@golden.command("validate")
def validate(
    file: Annotated[Path, typer.Argument(help="Golden incidents in any format that `generate` writes.")],
    config: ConfigFile = None,
    reference: Annotated[
        Path | None, typer.Option(help="Real incidents to be compared with, CSV or Parquet; with --reference-fit.")
    ] = None,
    reference_fit: Fit = None,
    as_json: AsJson = False,
) -> None:
    """Ask every gate about a file; exit code 1 when one of them fails.

    Give the configuration (and the fit) that the incidents were made with: shares and names are held against it.

    Examples:

      aiops golden validate incidents.csv

      aiops golden validate incidents.parquet --config mine.yaml --json
    """
    from aiops_assets.cli.lake import progress
    from aiops_assets.config import load_config
    from aiops_assets.synthetic.gate.subject import Subject
    from aiops_assets.synthetic.gate.validation import validated
    from aiops_assets.synthetic.golden import imports
    from aiops_assets.synthetic.golden import reference as references

    known, source = golden_config(config, reference_fit), fitted_source(reference_fit)
    with known_problems():
        frame, whole = imports.verified(file)
    try:
        real = None if reference is None else references.read(reference)
    except references.ReferenceProblem as error:
        fail(str(error), USAGE)
    people = load_config(load().paths.config).llm.people
    with progress(as_json) as tell:
        results = validated(Subject(frame, known, real, source, people), lambda name, n, of: tell("gates", n, of))
    passed = whole is not False and all(result.passed for result in results.values())
    if as_json:
        print_json(
            {
                "file": str(file),
                "count": frame.height,
                "as_written": whole,
                "passed": passed,
                "gates": [_gate(name, result) for name, result in results.items()],
            }
        )
    else:
        _show_gates(file, frame.height, whole, results)
    if not passed:
        raise typer.Exit(PROBLEM)


@golden.command("certificate")
def certificate(
    version: Annotated[str, typer.Argument(help=_WHICH)] = "champion",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A file: .json, .md or .html.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the certificate of a version: what it was made from, and what every gate said of it.

    Example:

      aiops golden certificate champion --out certificate.html
    """
    from aiops_assets.synthetic.gate.certificate import markdown, page, recorded

    kinds = (".json", ".md", ".html")
    if out is not None and out.suffix.lower() not in kinds:
        fail(f"{out}: name a file with {', '.join(kinds)}", USAGE)
    with _version(version) as files:
        document = recorded(load(), files)
    if out is not None:
        written_as = {".md": markdown, ".html": page}.get(out.suffix.lower())
        text = written_as(document) if written_as else orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
        try:
            out.write_text(text, "utf-8")
        except OSError as error:
            fail(f"{out}: cannot be written: {error.strerror}", USAGE)
    if as_json:
        print_json(document)
    elif out is not None:
        console().print(f"written to {clean(out)}")
    else:
        from rich.markdown import Markdown

        console().print(Markdown(markdown(document)))


@golden.command("export")
def export(
    out: Out,
    version: Annotated[str, typer.Option("--version", help=_WHICH)] = "champion",
    format_: FormatName = None,
    no_metadata: NoMetadata = False,
    who: Who = None,
    as_json: AsJson = False,
) -> None:
    """Write a version of the data set into a file; its bytes are verified first. Every export is audited.

    Example:

      aiops golden export --version champion --out golden.csv
    """
    from aiops_assets.synthetic.golden.exports import Origin
    from aiops_assets.synthetic.golden.versions import frames, incidents_file

    settings = load()
    with known_problems(), _version(version) as files:
        inputs = files.inputs
        origin = Origin(
            config_digest=str(inputs.get("config_digest") or ""),
            seed=inputs.get("seed"),
            provider=str(inputs.get("provider") or "offline"),
            version=files.version,
        )
        path = incidents_file(files)
        made = written(settings, frames(path), _rows(path), out, format_, not no_metadata, origin, who, as_json)
    if as_json:
        print_json(described(made))
        return
    say(made)


@golden.command("sanitise")
def sanitise(
    file: Annotated[Path, typer.Argument(help="Golden incidents, for example edited by people.")],
    out: Out,
    redact: Annotated[bool, typer.Option(help="Put [email] and the like there instead of made-up values.")] = False,
    salt: Annotated[str, typer.Option(help="The same salt replaces alike in several files; default: random.")] = "",
    format_: FormatName = None,
    no_metadata: NoMetadata = False,
    who: Who = None,
    as_json: AsJson = False,
) -> None:
    """Take personal data and secrets out of a file: the same value is replaced by the same made-up one everywhere.

    Example:

      aiops golden sanitise edited.xlsx --out clean.parquet
    """
    import secrets

    from aiops_assets.config import load_config
    from aiops_assets.privacy.detect import People
    from aiops_assets.synthetic.golden import imports
    from aiops_assets.synthetic.golden.exports import Origin
    from aiops_assets.synthetic.golden.sanitise import sanitised

    settings = load()
    people = People.of(load_config(settings.paths.config).llm.people)
    with known_problems():
        about = imports.metadata(file) or {}
        clean_set = sanitised(imports.read(file), salt or secrets.token_hex(16), people=people, redact=redact)
        origin = Origin(
            generator="aiops golden, sanitised",
            config_digest=str(about.get("config_digest") or ""),
            seed=about.get("seed"),
            provider=str(about.get("provider") or "offline"),
        )
        frames = iter([clean_set.frame])
        made = written(settings, frames, None, out, format_, not no_metadata, origin, who, as_json)
    if as_json:
        print_json({**described(made), "finds": clean_set.finds, "incidents_with_finds": clean_set.rows})
        return
    found = ", ".join(f"{number:,} {kind}" for kind, number in clean_set.finds.items()) or "nothing"
    console().print(f"taken out of {clean_set.rows:,} incidents: {found}")
    say(made)


@golden.command("diff")
def diff(
    first: Annotated[str, typer.Argument(help="A version (first digits, champion, newest) or a file.")],
    second: Annotated[str, typer.Argument(help="Another one.")],
    as_json: AsJson = False,
) -> None:
    """What differs between two data sets: numbers, names, shares, times, words.

    Examples:

      aiops golden diff champion newest

      aiops golden diff monday.csv tuesday.parquet --json
    """
    from aiops_assets.synthetic.golden.difference import difference

    with known_problems():
        found = difference(_incidents(first), _incidents(second))
    if as_json:
        print_json({"a": first, "b": second, **found.document()})
        return
    _show_difference(first, second, found)


@golden.command("fit")
def fit(
    reference: Annotated[Path, typer.Argument(help="Real incidents: CSV or Parquet, an event log or one row each.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for what was learnt; made when missing.")],
    column: Annotated[
        list[str] | None, typer.Option("--column", help="FIELD=COLUMN where the file calls a field otherwise.")
    ] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Learn from real incidents how often, when and how long, so that generated ones are like them.

    Neither texts nor people are taken over: names of people and pseudonyms are made anew. The configuration, with the
    priority matrix and the period of the reference, is kept beside what was learnt.

    Examples:

      aiops golden fit incident_log.csv --out fitted

      aiops golden generate -n 5000 --reference-fit fitted -o a.parquet
    """
    from aiops_assets.synthetic.golden import fitting
    from aiops_assets.synthetic.golden import reference as references
    from aiops_assets.synthetic.golden.candidates import CONFIG, adapted, config_bytes

    columns = dict(_field(entry) for entry in column or ())
    known = golden_config(config)
    if not reference.is_file():
        fail(f"{reference}: there is no such file", USAGE)
    try:
        frame = references.read(reference, columns)
        learnt = fitting.fit(frame)
    except (references.ReferenceProblem, fitting.FittedProblem) as error:
        fail(str(error), USAGE)
    try:
        out.mkdir(parents=True, exist_ok=True)
        learnt.save(out)
        (out / CONFIG).write_bytes(config_bytes(adapted(known, learnt, frame)))
    except OSError as error:
        fail(f"{out}: cannot be written: {error.strerror}", USAGE)
    if as_json:
        print_json({"folder": str(out), "digest": learnt.digest, "report": dict(learnt.report)})
        return
    shown = table("learnt", "what")
    for name, value in learnt.report.items():
        shown.add_row(clean(name), clean(value))
    console().print(shown)
    console().print(f"written to {clean(out)}, digest {learnt.digest[:12]}; use it with --reference-fit {clean(out)}")


def _gate(name: str, result: GateResult) -> dict[str, Any]:
    return {
        "gate": name,
        "passed": result.passed,
        "skipped": result.skipped,
        "summary": result.summary,
        "measures": {
            key: {"value": measure.value, "least": measure.least, "most": measure.most, "holds": measure.holds}
            for key, measure in result.measures.items()
        },
        "details": list(result.details)[:100],
        "advice": result.advice if not result.passed else "",
    }


def _show_gates(file: Path, rows: int, whole: bool | None, results: Mapping[str, GateResult]) -> None:
    out = console()
    shown = table("gate", "verdict", "finding")
    for name, result in results.items():
        verdict = "[yellow]skipped[/]" if result.skipped else "[green]passed[/]" if result.passed else "[red]failed[/]"
        shown.add_row(clean(name), verdict, clean(result.summary))
    out.print(shown)
    for name, result in results.items():
        if result.passed:
            continue
        out.print(f"[bold]{clean(name)}[/]: {clean(result.advice or result.summary)}")
        for row in list(result.details)[:_MOST_SHOWN]:
            out.print("  " + clean(", ".join(f"{key} {value}" for key, value in row.items())))
    failed = sum(not result.passed for result in results.values())
    if whole is False:
        out.print("[red]the incidents are not those that the file's metadata names: it was changed since[/]")
    out.print(f"{clean(file)}: {rows:,} incidents, {failed} of {len(results)} gates failed")


def _field(entry: str) -> tuple[str, str]:
    name, separator, column = entry.partition("=")
    if not separator or not name or not column:
        fail(f"--column {entry!r}: expected FIELD=COLUMN, for example opened_at=created", USAGE)
    return name, column


@contextmanager
def _version(name: str) -> Iterator[VersionFiles]:
    """A verified version of the data set."""
    from aiops_assets.promotion.problems import RegistryProblem, VersionUnknown
    from aiops_assets.promotion.registry import Registry
    from aiops_assets.synthetic.golden.versions import THING, NoIncidents

    settings = load()
    if not settings.paths.root.is_dir():
        fail(f"there is no home folder {settings.paths.root}; make it with: aiops init, or set AIOPS_HOME")
    try:
        with Registry(settings) as registry:
            yield registry.files(THING, registry.resolve(THING, name))
    except VersionUnknown as problem:
        fail(str(problem), USAGE)
    except (RegistryProblem, NoIncidents) as problem:
        fail(str(problem))


def _incidents(name: str) -> pl.DataFrame:
    """All incidents of a file or a version."""
    import polars as pl

    from aiops_assets.synthetic.golden.imports import read
    from aiops_assets.synthetic.golden.versions import frames, incidents_file

    path = Path(name)
    if path.is_file():
        return read(path)
    if path.suffix:
        fail(f"{name}: there is no such file", USAGE)
    with _version(name) as files:
        return pl.concat(frames(incidents_file(files)))


def _rows(path: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


def _show_difference(first: str, second: str, found: Difference) -> None:
    out = console()
    out.print(
        f"{clean(first)}: {found.before:,} incidents, {clean(second)}: {found.after:,}; {found.same:,} are the same in "
        f"every field, {found.changed:,} more have the same number and differ"
    )
    shares = table("field", "distance", "largest changes", "came", "went", right=("distance",))
    for name, entry in sorted(found.names.items(), key=lambda item: -item[1].distance):
        if not entry.distance:
            continue
        changes = ", ".join(f"{shift.value} {shift.before:.1%} → {shift.after:.1%}" for shift in entry.shifts[:3])
        shares.add_row(
            name, f"{entry.distance:.3f}", clean(changes), clean(_short(entry.added)), clean(_short(entry.removed))
        )
    if shares.row_count:
        out.print(shares)
    numbers = table("measure", "distance", "median", "", "90th percentile", "", right=("distance", "median", ""))
    for name, measure in found.numbers.items():
        if measure.distance:
            numbers.add_row(
                name,
                f"{measure.distance:.3f}",
                *(
                    "–" if value is None else f"{value:,.2f}"
                    for value in (measure.median_before, measure.median_after, measure.p90_before, measure.p90_after)
                ),
            )
    if numbers.row_count:
        out.print(numbers)
    out.print(f"words: {found.vocabulary_before:,} and {found.vocabulary_after:,}")
    if found.words_added:
        out.print(f"  only in the second: {clean(_short(found.words_added))}")
    if found.words_removed:
        out.print(f"  only in the first: {clean(_short(found.words_removed))}")


def _short(values: list[str]) -> str:
    more = f" … and {len(values) - _MOST_SHOWN} more" if len(values) > _MOST_SHOWN else ""
    return ", ".join(values[:_MOST_SHOWN]) + more
