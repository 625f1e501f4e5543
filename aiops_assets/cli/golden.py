"""``aiops golden``: synthetic incidents made, looked at and configured; whole data sets are in ``golden_sets``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from aiops_assets.cli.incidents import Who, login
from aiops_assets.cli.output import USAGE, Commands, clean, console, fail, group, load, plain, print_json, size, table

if TYPE_CHECKING:
    import polars as pl

    from aiops_assets.settings import Settings
    from aiops_assets.synthetic.golden.config import GoldenConfig
    from aiops_assets.synthetic.golden.exports import Export, Format, Origin
    from aiops_assets.synthetic.golden.from_model import ModelBatch
    from aiops_assets.synthetic.golden.skeleton import SkeletonSource

golden = group("golden", "Golden incidents: synthetic ITSM tickets that are simulated, told, judged and exported.")
config_group = typer.Typer(
    name="config", cls=Commands, invoke_without_command=True, help="The generator's configuration: print it, check it."
)
golden.add_typer(config_group)

Seed = Annotated[int, typer.Option("--seed", "-s", min=0, help="Another seed gives another data set of the same kind.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="The generator's configuration; default: that of aiops.yaml, else the shipped."
    ),
]
Fit = Annotated[
    Path | None,
    typer.Option("--reference-fit", help="Folder that `aiops golden fit` wrote: incidents like those of a reference."),
]
Provider = Annotated[
    Literal["offline", "configured"],
    typer.Option(help="offline: the simulation tells; configured: the language model of aiops.yaml does."),
]
Batch = Annotated[int, typer.Option("--batch", min=1, max=20, help="Incidents a question to the language model.")]
Out = Annotated[
    Path, typer.Option("--out", "-o", help="The file: .csv .json .jsonl .xlsx .parquet (.csv.gz .jsonl.gz).")
]
FormatName = Annotated[
    str | None, typer.Option("--format", "-f", help="csv, json, jsonl, xlsx or parquet; default: by the suffix.")
]
NoMetadata = Annotated[bool, typer.Option("--no-metadata", help="Only the incidents, nothing about them.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


@golden.command("generate")
def generate(
    out: Out,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many; a model tells at most 10,000.")] = 1_000,
    seed: Seed = 1,
    config: ConfigFile = None,
    format_: FormatName = None,
    no_metadata: NoMetadata = False,
    provider: Provider = "offline",
    batch: Batch = 2,
    reference_fit: Fit = None,
    who: Who = None,
    as_json: AsJson = False,
) -> None:
    """Make incidents and write them into a file; memory does not grow with their number.

    The same seed, count and configuration give the same bytes. With a language model a killed batch goes on where it
    stood when the same command is given again; no question is asked twice.

    Examples:

      aiops golden generate --count 10000 --seed 7 --out incidents.parquet

      aiops golden generate -n 500 -o incidents.xlsx --provider configured
    """
    from aiops_assets.synthetic.golden.config import digest
    from aiops_assets.synthetic.golden.exports import Origin

    settings, known = load(), golden_config(config, reference_fit)
    source = fitted_source(reference_fit)
    origin = Origin(config_digest=_digest_with(digest(known), reference_fit), seed=seed)
    tally = None
    with known_problems():
        if provider == "configured":
            with model_batch(settings, known, count=count, seed=seed, source=source, batch=batch) as asked:
                origin = Origin(config_digest=origin.config_digest, seed=seed, provider=asked.model_version)
                made = written(settings, asked.frames(), count, out, format_, not no_metadata, origin, who, as_json)
                asked.finish()
                tally = asked.tally
        else:
            from aiops_assets.synthetic.golden.generate import stream

            frames = stream(known, count=count, seed=seed, skeletons=source)
            made = written(settings, frames, count, out, format_, not no_metadata, origin, who, as_json)
    if as_json:
        print_json(described(made) | ({"model": tally.document()} if tally else {}))
        return
    say(made)
    if tally is not None:
        kept = ", ".join(f"{number:,} for {reason}" for reason, number in tally.kept.most_common()) or "none"
        cost = f", cost {tally.cost:.4f}" if tally.cost else ""
        console().print(
            f"{tally.told:,} told by {clean(made.origin.provider)} ({tally.repaired:,} at the second attempt), kept "
            f"their offline text: {kept}; {tally.requests:,} requests, {tally.cached:,} stored answers, "
            f"{tally.prompt_tokens + tally.completion_tokens:,} tokens{cost}"
        )
        if tally.reason:
            console().print(f"last reason: {clean(tally.reason)}")


@golden.command("one")
def one(
    seed: Seed = 1,
    index: Annotated[int, typer.Option("--index", "-i", min=0, help="Which, from 0, in order of opening.")] = 0,
    count: Annotated[
        int, typer.Option("--count", "-n", min=1, help="Of how many: the data set it is part of.")
    ] = 1_000,
    config: ConfigFile = None,
    provider: Provider = "offline",
    reference_fit: Fit = None,
    as_json: AsJson = False,
) -> None:
    """Show one incident: the same as in `generate` with this seed and count.

    Example:

      aiops golden one --seed 7 --index 41
    """
    from aiops_assets.synthetic.golden.generate import generate as generated
    from aiops_assets.synthetic.golden.record import records

    if index >= count:
        fail(f"--index {index} is outside the data set: with --count {count} the last is {count - 1}", USAGE)
    known, source = golden_config(config, reference_fit), fitted_source(reference_fit)
    with known_problems():
        if provider == "configured":
            settings = load()
            settings.paths.create()
            with model_batch(
                settings, known, count=1, seed=seed, source=source, start=index, total=count, batch=1
            ) as asked:
                (frame,) = asked.frames()
                asked.finish()
        else:
            frame = generated(known, count=1, seed=seed, start=index, total=count, skeletons=source)
    (incident,) = records(frame)
    if as_json:
        print_json(incident.model_dump(mode="json"))
        return
    _show(incident.model_dump())


@config_group.callback()
def config_(
    context: typer.Context,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write it into this file.")] = None,
) -> None:
    """Print the shipped configuration, with comments: what a configuration of your own begins with.

    Example:

      aiops golden config --out golden.yaml && aiops golden config check golden.yaml
    """
    if context.invoked_subcommand is not None:
        return
    from importlib import resources

    from aiops_assets.synthetic.golden.config import SHIPPED

    text = resources.files("aiops_assets.synthetic.golden").joinpath(SHIPPED).read_text("utf-8")
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        fail(f"{out}: is there already; name another file or remove it", USAGE)
    except OSError as error:
        fail(f"{out}: cannot be written: {error.strerror}", USAGE)
    console().print(f"written to {clean(out)}; name it as golden.config in aiops.yaml or give it with --config")


@config_group.command("check")
def config_check(
    file: Annotated[Path, typer.Argument(help="The configuration, YAML or JSON.")], as_json: AsJson = False
) -> None:
    """Check a configuration; every mistake is one line with file, line, field and what is allowed. Exit 2 when wrong.

    Example:

      aiops golden config check golden.yaml
    """
    from aiops_assets.config import ConfigError
    from aiops_assets.synthetic.golden.config import digest, load_golden_config

    try:
        known = load_golden_config(file)
    except ConfigError as error:
        if not as_json:
            raise
        print_json({"file": str(file), "problems": error.problems})
        raise typer.Exit(USAGE) from error
    if as_json:
        print_json({"file": str(file), "problems": [], "digest": digest(known)})
        return
    subcategories = sum(len(category.subcategories) for category in known.categories)
    console().print(
        f"{clean(file)} is right: {clean(known.company)}, {len(known.categories)} categories with {subcategories} "
        f"subcategories, {len(known.services)} services, {len(known.groups)} groups, {len(known.locations)} locations; "
        f"digest {digest(known)[:12]}"
    )


# -- shared with golden_sets ------------------------------------------------------------------------------------------


def golden_config(path: Path | None, fit: Path | None = None) -> GoldenConfig:
    """The configuration: the file given, else that beside a fit, else that of ``aiops.yaml``, else the shipped one."""
    from aiops_assets.config import load_config
    from aiops_assets.synthetic.golden.candidates import CONFIG
    from aiops_assets.synthetic.golden.config import load_golden_config

    if path is None and fit is not None and (fit / CONFIG).is_file():
        return load_golden_config(fit / CONFIG)
    return load_golden_config(path or load_config(load().paths.config).golden.config)


def fitted_source(folder: Path | None) -> SkeletonSource | None:
    """What ``aiops golden fit`` wrote, as a source of skeletons."""
    if folder is None:
        return None
    from aiops_assets.synthetic.golden.calibrated import Calibrated
    from aiops_assets.synthetic.golden.fitting import FittedProblem
    from aiops_assets.synthetic.golden.fitting import load as load_fitted

    try:
        return Calibrated(load_fitted(folder))
    except FittedProblem as error:
        fail(str(error), USAGE)


def _digest_with(config_digest: str, fit: Path | None) -> str:
    """The digest of the configuration, and of the fit where there is one."""
    if fit is None:
        return config_digest
    from aiops_assets.synthetic.golden.fitting import load as load_fitted

    return f"{config_digest}+{load_fitted(fit).digest[:16]}"


@contextmanager
def model_batch(
    settings: Settings,
    config: GoldenConfig,
    *,
    count: int,
    seed: int,
    source: SkeletonSource | None,
    batch: int,
    start: int = 0,
    total: int | None = None,
) -> Iterator[ModelBatch]:
    """A batch told by the language model of ``aiops.yaml``; what keeps it from being asked becomes a line."""
    from aiops_assets.config import load_config
    from aiops_assets.llm.client import Misconfigured
    from aiops_assets.synthetic.golden.from_model import ModelBatch
    from aiops_assets.synthetic.golden.journal import BatchBusy

    llm = load_config(settings.paths.config).llm
    if llm.provider == "offline":
        fail(
            f"--provider configured: {settings.paths.config} names no language model (llm.provider is offline); set "
            "llm.provider, llm.model and what they need, or leave --provider away",
            USAGE,
        )
    settings.paths.create()
    try:
        with ModelBatch(
            settings, llm, config, seed=seed, count=count, start=start, total=total, source=source, a_question=batch
        ) as asked:
            yield asked
    except BatchBusy as error:
        fail(str(error))
    except Misconfigured as error:
        fail(str(error), USAGE)


@contextmanager
def known_problems() -> Iterator[None]:
    """What a person can mend becomes a line instead of a traceback."""
    from sqlalchemy.exc import SQLAlchemyError

    from aiops_assets.synthetic.golden.exports import ExportProblem
    from aiops_assets.synthetic.golden.imports import ImportProblem
    from aiops_assets.synthetic.golden.spreadsheet import TooLongForCell

    try:
        yield
    except (ExportProblem, ImportProblem, TooLongForCell) as error:
        fail(str(error), USAGE)
    except SQLAlchemyError as error:
        fail(f"the audit trail cannot be written, so nothing was exported: {str(error).splitlines()[0]}")
    except OSError as error:
        fail(f"{error.filename or 'the export'}: {error.strerror or error}")


def written(
    settings: Settings,
    frames: Iterator[pl.DataFrame],
    count: int | None,
    out: Path,
    format_: str | None,
    metadata: bool,
    origin: Origin,
    who: str | None,
    as_json: bool,
) -> Export:
    """An audited export with a progress bar: number, rate, time left."""
    from aiops_assets.synthetic.golden.audit import export
    from aiops_assets.synthetic.golden.exports import format_of

    kind: Format = format_of(out, format_)
    with counting(count, as_json) as tell:
        return export(
            settings, frames, out, who=who or login(), format=kind, metadata=metadata, origin=origin, progress=tell
        )


@contextmanager
def counting(count: int | None, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar of incidents on standard error; nothing in a file or with ``--json``."""
    errors = console(stderr=True)
    if quiet or not errors.is_terminal:
        yield lambda done: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("incidents"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    began = time.monotonic()
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task("incidents", total=count, rate="")

        def tell(done: int) -> None:
            rate = done / max(time.monotonic() - began, 1e-6)
            bar.update(task, completed=done, rate=f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s")

        yield tell


def described(made: Export) -> dict[str, Any]:
    """An export as JSON."""
    return {
        "file": str(made.path),
        "format": made.format,
        "count": made.rows,
        "size": made.size,
        "sha256": made.sha256,
        "content_hash": made.content_hash,
        "seed": made.origin.seed,
        "config_digest": made.origin.config_digest,
        "provider": made.origin.provider,
        "version": made.origin.version,
    }


def say(made: Export) -> None:
    """An export in a line."""
    console().print(
        f"{made.rows:,} incidents written to {clean(made.path)} ({made.format}, {size(made.size)}), "
        f"sha256 {made.sha256[:16]}…"
    )


def _show(incident: dict[str, Any]) -> None:
    out = console()
    out.print(f"[bold]{clean(incident['incident_id'])}[/]  {clean(incident['short_description'])}")
    out.print()
    out.print(clean_lines(incident["description"]), soft_wrap=True)
    fields = table("field", "value")
    apart = {"incident_id", "short_description", "description", "work_notes", "resolution_notes"}
    for name, value in incident.items():
        if name not in apart and value is not None:
            fields.add_row(name, clean(f"{value:%Y-%m-%d %H:%M:%SZ}" if hasattr(value, "strftime") else value))
    out.print(fields)
    for entry in incident["work_notes"]:
        out.print(f"{entry['written_at']:%Y-%m-%d %H:%M}  [bold]{clean(entry['author'])}[/]")
        out.print(f"  {clean_lines(entry['note'])}", soft_wrap=True)
    if incident["resolution_notes"]:
        out.print(f"\n[bold]resolution[/]  {clean_lines(incident['resolution_notes'])}", soft_wrap=True)


def clean_lines(text: str) -> str:
    """``clean`` that keeps line feeds."""
    from rich.markup import escape

    return "\n".join(escape(plain(line)) for line in text.split("\n"))
