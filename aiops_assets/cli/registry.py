"""``aiops registry``: versions of everything that is promoted, what gates said, which one serves, and moving that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aiops_assets.cli.incidents import Who, login
from aiops_assets.cli.lake import progress
from aiops_assets.cli.output import USAGE, clean, console, fail, group, instant, load, print_json, size, table
from aiops_assets.cli.registry_view import (
    cell,
    difference,
    flat,
    number,
    passed,
    print_contents,
    print_gates,
    print_history,
    print_measures,
    sentence,
    short,
    tell,
)

if TYPE_CHECKING:
    from aiops_assets.promotion.gates import VersionFiles
    from aiops_assets.promotion.records import Evaluation
    from aiops_assets.promotion.registry import Publish, Registry
    from aiops_assets.promotion.store import Manifest
    from aiops_assets.settings import Settings

registry = group("registry", "Versions of models, forecasters and data sets: what serves, what served, why.")
_PROMISING = "Which version: its first digits, 'champion' or 'newest'."

Thing = Annotated[str, typer.Argument(help="What is promoted, for example golden_incidents.")]
Version = Annotated[str, typer.Argument(help=_PROMISING)]
Reason = Annotated[str, typer.Option("--reason", "-m", help="Why; recorded with the move and in the audit trail.")]
Unpublished = Annotated[
    bool, typer.Option("--without-publishing", help="Only move the pointer; do not write tables and the like anew.")
]
Seen = Annotated[
    int | None,
    typer.Option("--expected", help="Only if this is the last move (see show); else nothing is done.", min=0),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document; instants are microseconds since 1970 UTC.")]


@contextmanager
def _opened() -> Iterator[tuple[Registry, Settings]]:
    """The registry of the home folder in force; what it refuses becomes a line."""
    from aiops_assets.promotion.problems import RegistryProblem, VersionUnknown
    from aiops_assets.promotion.registry import Registry

    settings = load()
    if not settings.paths.root.is_dir():
        fail(f"there is no home folder {settings.paths.root}; make it with: aiops init, or set AIOPS_HOME")
    try:
        with Registry(settings) as opened:
            yield opened, settings
    except VersionUnknown as problem:
        fail(str(problem), USAGE)
    except RegistryProblem as problem:
        fail(str(problem))


@registry.command("list")
def list_(
    thing: Annotated[str | None, typer.Argument(help="Only this one, with all versions.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """List what is promoted, or all versions of one thing.

    Example:

      aiops registry list golden_incidents
    """
    with _opened() as (opened, _):
        if thing is not None:
            opened.resolve(thing, "newest")
            _list_versions(opened, thing, as_json)
            return
        rows = [_summary(opened, name) for name in opened.things()]
    if as_json:
        print_json(rows)
        return
    if not rows:
        console().print("nothing is registered yet; a run of a …_candidate asset registers a version")
        return
    shown = table("thing", "kind", "versions", "serves", "since", "how", "newest", "its gates", right=("versions",))
    for row in rows:
        shown.add_row(
            row["thing"], row["kind"], str(row["versions"]), short(row["champion"]), instant(row["since"]),
            clean(row["how"] or "–"), short(row["newest"]), row["newest_gates"],
        )  # fmt: skip
    console().print(shown)


def _summary(opened: Registry, thing: str) -> dict[str, Any]:
    from aiops_assets.promotion.pointers import brought_in

    known, history = opened.versions(thing), opened.history(thing)
    head, since = (history[-1] if history else None), brought_in(history)
    return {
        "thing": thing,
        "kind": known[-1].kind,
        "versions": len(known),
        "champion": head.version if head is not None else None,
        "since": since.at if since is not None else None,
        "how": since.how if since is not None else None,
        "moves": head.sequence if head is not None else 0,
        "newest": known[-1].version,
        "newest_gates": passed(opened.gates(thing, known[-1].version)),
    }


def _list_versions(opened: Registry, thing: str, as_json: bool) -> None:
    from aiops_assets.promotion.records import newest
    from aiops_assets.promotion.registry import described

    head, revoked = opened.head(thing), opened.revoked(thing)
    serves = head.version if head is not None else None
    judged: dict[str, list[Evaluation]] = {}
    for one in newest(opened.evaluations(thing)):
        judged.setdefault(one.version, []).append(one)
    rows = [
        {
            **described(manifest),
            "serves": manifest.version == serves,
            "revoked": manifest.version in revoked,
            "gates_passed": passed(judged.get(manifest.version, [])),
        }
        for manifest in opened.versions(thing)
    ]
    if as_json:
        print_json(rows)
        return
    shown = table("version", "made", "", "gates", "rows", "size", "seed", "provider", right=("rows", "size", "seed"))
    for row in rows:
        mark = "[bold green]serves[/]" if row["serves"] else "[red]revoked[/]" if row["revoked"] else ""
        rows_ = "" if row["rows"] is None else f"{row['rows']:,}"
        shown.add_row(
            short(row["version"]), instant(row["created_at"]), mark, row["gates_passed"], rows_, size(row["size"]),
            clean(row["inputs"].get("seed", "")), clean(row["inputs"].get("provider", "")),
        )  # fmt: skip
    console().print(shown)


@registry.command("show")
def show(thing: Thing, version: Version = "newest", as_json: AsJson = False) -> None:
    """Show everything about one version: inputs, metrics, files, gates, and every move of the pointer."""
    with _opened() as (opened, _):
        manifest = opened.manifest(thing, opened.resolve(thing, version))
        evaluations = opened.gates(thing, manifest.version)
        history = opened.history(thing)
        problems = opened.store.problems(manifest)
        folder = opened.store.folder(thing, manifest.version)
        revoked = opened.revoked(thing).get(manifest.version)
    serves = bool(history) and history[-1].version == manifest.version
    if as_json:
        print_json(
            {
                **manifest.document(),
                "size": manifest.size,
                "folder": str(folder),
                "serves": serves,
                "revoked": revoked.document() if revoked is not None else None,
                "damaged": problems,
                "gates": [one.document() for one in evaluations],
                "history": [move.document() for move in history],
            }
        )
        return
    out = console()
    state = "[bold green]serves[/]" if serves else "[red]revoked[/]" if revoked is not None else "does not serve"
    out.print(f"[bold]{thing}[/] {manifest.version}  {state}")
    out.print(f"{manifest.kind}, made {instant(manifest.created_at)}, {size(manifest.size)} in {clean(folder)}")
    for line in problems:
        out.print(f"[red]{clean(line)}[/]")
    facts = table("input", "value")
    for name, value in flat(manifest.inputs).items():
        facts.add_row(clean(name), clean(value))
    out.print(facts)
    if manifest.metrics:
        numbers = table("metric", "value", right=("value",))
        for name, value in manifest.metrics.items():
            numbers.add_row(clean(name), number(value))
        out.print(numbers)
    files = table("file", "size", "SHA-256", right=("size",))
    for entry in manifest.files:
        files.add_row(clean(entry.path), size(entry.size), entry.sha256[:16])
    out.print(files)
    print_gates(evaluations)
    print_history(history)


@registry.command("gate")
def gate(
    thing: Thing,
    version: Version = "newest",
    name: Annotated[str | None, typer.Option("--gate", help="Only this gate, with its rows.")] = None,
    history: Annotated[bool, typer.Option("--history", help="Every evaluation, not only the last.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what the gates said of a version: measures, limits, what to do. Exit 1 when it may not be promoted."""
    with _opened() as (opened, _):
        resolved = opened.resolve(thing, version)
        found = opened.evaluations(thing, resolved) if history else opened.gates(thing, resolved)
        unmet = opened.unmet(thing, resolved)
    if name is not None:
        known = ", ".join(sorted({one.gate for one in found})) or "none yet"
        found = [one for one in found if one.gate == name]
        if not found:
            fail(f"--gate {name!r}: the gates of {thing} {resolved[:12]} are: {known}", USAGE)
    if as_json:
        document = {"thing": thing, "version": resolved, "promotable": not unmet, "unmet": unmet}
        print_json({**document, "gates": [one.document() for one in found]})
    else:
        console().print(f"[bold]{thing}[/] {resolved}")
        print_gates(found)
        print_measures(found, rows=name is not None)
        for line in unmet:
            console().print(f"[red]keeps it from serving:[/] {clean(line)}")
    if unmet:
        raise typer.Exit(1)


@registry.command("diff")
def diff(thing: Thing, a: Version, b: Version, as_json: AsJson = False) -> None:
    """Put two versions side by side: inputs, metrics, files and gates; only what differs is marked.

    Example:

      aiops registry diff golden_incidents champion newest
    """
    from aiops_assets.promotion.comparison import compare

    with _opened() as (opened, _):
        first, second = opened.resolve(thing, a), opened.resolve(thing, b)
        found = compare(opened, thing, first, second)
    if as_json:
        print_json(found)
        return
    out = console()
    out.print(f"[bold]{thing}[/] A = {first[:12]}, B = {second[:12]}")
    for part in ("inputs", "metrics", "files", "gates"):
        shown = table(part, "A", "B", "difference", right=("difference",))
        for row in found[part]:
            mark = "bold" if row["differs"] else "dim"
            cells = (row["name"], cell(row["a"]), cell(row["b"]), difference(row))
            shown.add_row(*map(clean, cells), style=mark)
        if found[part]:
            out.print(shown)
    if first == second:
        out.print("both are the same version")


@registry.command("promote")
def promote(
    thing: Thing,
    version: Version,
    override: Annotated[
        bool, typer.Option("--override", help="Although gates have not passed; needs --reason and is recorded.")
    ] = False,
    reason: Reason = "",
    without_publishing: Unpublished = False,
    expected: Seen = None,
    who: Who = None,
    as_json: AsJson = False,
) -> None:
    """Let a version serve whose blocking gates have all passed.

    Examples:

      aiops registry promote golden_incidents 3f2a91

      aiops registry promote golden_incidents 3f2a91 --override --reason 'the reference is out of date, CHG0042'
    """
    with _opened() as (opened, settings):
        resolved = opened.resolve(thing, version)
        move = opened.promote(
            thing,
            resolved,
            who=who or login(),
            reason=reason,
            override=override,
            expected=expected,
            publish=None if without_publishing else _publishing(opened, settings),
        )
    tell(move, as_json, "serves already; nothing was changed")


@registry.command("rollback")
def rollback(
    thing: Thing,
    reason: Reason = "",
    without_publishing: Unpublished = False,
    expected: Seen = None,
    who: Who = None,
    as_json: AsJson = False,
) -> None:
    """Back to the version that served before, past revoked ones. The next run does not undo it: a person promotes.

    Example:

      aiops registry rollback golden_incidents --reason 'pages too often'
    """
    with _opened() as (opened, settings):
        publish = None if without_publishing else _publishing(opened, settings)
        move = opened.rollback(thing, who=who or login(), reason=reason, expected=expected, publish=publish)
    tell(move, as_json, "")


@registry.command("revoke")
def revoke(
    thing: Thing,
    version: Version,
    reason: Reason = "",
    without_publishing: Unpublished = False,
    who: Who = None,
    as_json: AsJson = False,
) -> None:
    """Mark a version never to serve again. If it serves, the one before takes over, or none."""
    with _opened() as (opened, settings):
        resolved = opened.resolve(thing, version)
        publish = None if without_publishing else _publishing(opened, settings)
        move = opened.revoke(thing, resolved, who=who or login(), reason=reason, publish=publish)
    tell(move, as_json, "was revoked already; nothing was changed")


@registry.command("as-of")
def as_of(
    thing: Thing,
    time_: Annotated[
        str, typer.Argument(metavar="TIME", help="ISO 8601, for example 2026-03-01T08:00; UTC unless it has an offset.")
    ],
    as_json: AsJson = False,
) -> None:
    """Which version served at an instant, since when, and why. Exit 1 when none did.

    Example:

      aiops registry as-of golden_incidents 2026-03-01T08:00
    """
    from aiops_assets.hours import micros
    from aiops_assets.promotion.pointers import brought_in

    try:
        moment = datetime.fromisoformat(time_.strip())
    except ValueError:
        fail(f"{time_!r}: write ISO 8601, for example 2026-03-01T08:00 or 2026-03-01T08:00+02:00", USAGE)
    at = micros(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
    with _opened() as (opened, _):
        opened.resolve(thing, "newest")
        move = brought_in(opened.history(thing), at)
    version = move.version if move is not None else None
    if as_json:
        print_json({"thing": thing, "at": at, "version": version, "move": move.document() if move else None})
    elif move is None:
        console().print(f"nothing of {thing} served at {instant(at)}: it was first promoted later, or never")
    elif version is None:
        console().print(f"nothing of {thing} served at {instant(at)}: {clean(sentence(move))}")
    else:
        console().print(f"{version}\n{clean(sentence(move))}")
    if version is None:
        raise typer.Exit(1)


@registry.command("backup")
def backup(
    file: Annotated[Path, typer.Argument(help="The archive to write, NAME.tar.")],
    things: Annotated[list[str] | None, typer.Argument(help="What to take. Default: all.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Write versions, gates and moves into one file and read it back. It appears when it is whole.

    Example:

      aiops registry backup registry.tar golden_incidents
    """
    from aiops_assets.promotion.archive import back_up

    with _opened() as (opened, _), progress(as_json) as hear:
        contents = back_up(opened, file, things or (), tell=hear)
    if as_json:
        print_json(contents.document())
        return
    print_contents(contents.document(), "was written and read back")


@registry.command("restore")
def restore(
    file: Annotated[Path, typer.Argument(help="An archive that aiops registry backup wrote.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Only read it and compare everything; write nothing.")
    ] = False,
    without_publishing: Unpublished = False,
    who: Who = None,
    as_json: AsJson = False,
) -> None:
    """Bring an archive's things into a home that does not use them yet. A damaged archive is refused by name.

    Examples:

      aiops registry restore registry.tar --verify

      AIOPS_HOME=/srv/aiops aiops registry restore registry.tar
    """
    from aiops_assets.promotion import archive
    from aiops_assets.promotion.problems import ArchiveProblem
    from aiops_assets.promotion.publishing import find

    if verify:
        try:
            with progress(as_json) as hear:
                contents = archive.verify(file, tell=hear)
        except ArchiveProblem as problem:
            fail(str(problem))
        if as_json:
            print_json(contents.document())
        else:
            print_contents(contents.document(), "is whole")
        return
    home = load().paths
    if not home.root.is_dir():
        try:
            archive.verify(file)
        except ArchiveProblem as problem:
            fail(str(problem))
    home.create()
    with _opened() as (opened, settings), progress(as_json) as hear:

        def publish(manifest: Manifest, files: VersionFiles) -> None:
            if manifest.publisher is not None and not without_publishing:
                find(manifest.publisher)(settings, files)

        restored = archive.restore(opened, file, who=who or login(), publish=publish, tell=hear)
    if as_json:
        print_json(restored.document())
        return
    print_contents(restored.contents.document(), "is whole")
    counts = f"{restored.versions:,} versions, {restored.evaluations:,} evaluations, {restored.moves:,} moves"
    console().print(f"brought back: {counts}")
    for thing, version in restored.champions.items():
        console().print(f"{thing}: {short(version)} serves" if version else f"{thing}: nothing serves")


def _publishing(opened: Registry, settings: Settings) -> Publish:
    """What publishes the version that is about to serve, by the name that was recorded with it."""
    from aiops_assets.promotion.publishing import find

    def publish(files: VersionFiles) -> None:
        name = opened.manifest(files.thing, files.version).publisher
        if name is not None:
            find(name)(settings, files)

    return publish
