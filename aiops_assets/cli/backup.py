"""``aiops backup`` and ``aiops restore``: an installation into a folder, and back onto an empty home."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aiops_assets.cli.lake import AsJson, progress, show_verification
from aiops_assets.cli.output import PROBLEM, USAGE, clean, console, duration, fail, load, print_json, size, table


def backup(
    destination: Annotated[Path, typer.Argument(help="Folder for backups; later ones add only what is new.")],
    list_: Annotated[bool, typer.Option("--list", help="Show the backups in the folder and take none.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Read the new backup back and compare all hashes.")] = False,
    without_keys: Annotated[bool, typer.Option("--without-keys", help="Leave API keys and secrets out.")] = False,
    with_dagster: Annotated[bool, typer.Option("--with-dagster", help="Take Dagster's run history too.")] = False,
    all_segments: Annotated[
        bool, typer.Option("--all-segments", help="Take all landing segments, not only those the lake does not have.")
    ] = False,
    link: Annotated[
        bool, typer.Option("--link", help="On the same disk: give lake files a second name instead of copying them.")
    ] = False,
    keep: Annotated[int | None, typer.Option(min=1, help="Then keep only so many backups.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Save the whole installation into a folder, while it runs. The folder holds secrets unless --without-keys.

    Examples:

      aiops backup /mnt/backup/aiops --keep 14

      aiops backup /mnt/backup/aiops --list
    """
    from aiops_assets.backup.capture import Options, back_up
    from aiops_assets.backup.restore import check_backup
    from aiops_assets.backup.store import BackupProblem, Store

    try:
        if list_:
            _list(Store.open(destination), as_json)
            return
        settings = load()
        if not settings.paths.root.is_dir():
            fail(f"{settings.paths.root}: there is no home to back up (AIOPS_HOME)", USAGE)
        options = Options(without_keys, with_dagster, all_segments, link)
        with progress(as_json) as tell:
            taken = back_up(settings, destination, options, keep=keep, tell=tell)
            store = Store.open(destination)
            wrong = check_backup(store, taken.manifest, tell) if verify else []
    except BackupProblem as problem:
        fail(str(problem))
    if as_json:
        print_json({**taken.document(), "damaged": wrong})
    else:
        out = console()
        parts = ", ".join(f"{name} {size(count)}" for name, count in sorted(taken.manifest.parts.items()))
        out.print(
            f"backup [bold]{taken.manifest.backup_id}[/]: {len(taken.manifest.entries):,} files, "
            f"{size(taken.manifest.size)} ({parts})"
        )
        new = f"{taken.added:,} files, {size(taken.added_size)}"
        out.print(f"new in {clean(destination)}: {new}, {duration(taken.seconds)}")
        if taken.forgotten:
            out.print(f"{taken.forgotten:,} older backups removed, {size(taken.freed)} freed")
        if verify:
            out.print("[red]not whole:[/]" if wrong else "every content was read back and is as it was")
        for line in wrong:
            out.print(f"[red]{clean(line)}[/]")
        if taken.manifest.keys:
            out.print("[yellow]It holds API keys and whatever secrets aiops.yaml has: keep the folder to yourself.[/]")
    if wrong:
        raise typer.Exit(PROBLEM)


def _list(store: object, as_json: bool) -> None:
    from aiops_assets.backup.store import Store

    assert isinstance(store, Store)  # noqa: S101 - narrows the type for the checker
    found = store.backups()
    if as_json:
        print_json({"backups": [manifest.summary() for manifest in found], "damaged": store.damaged()})
        return
    shown = table("backup", "taken", "home", "files", "size", "points up to", "keys", right=("files", "size"))
    for manifest in found:
        positions = ", ".join(f"{writer} {seq}" for writer, seq in sorted(manifest.positions.items()))
        shown.add_row(
            manifest.backup_id, manifest.created_at, clean(manifest.home), f"{len(manifest.entries):,}",
            size(manifest.size), clean(positions), "yes" if manifest.keys else "no",
        )  # fmt: skip
    out = console()
    out.print(shown if found else "no backup is in this folder")
    for line in store.damaged():
        out.print(f"[red]{clean(line)}[/]")


def restore(
    source: Annotated[Path, typer.Argument(help="Folder with backups.")],
    home: Annotated[Path, typer.Option("--home", help="The home to make; empty or missing.")],
    backup_id: Annotated[
        str | None, typer.Option("--backup", help="Which one. Default: the newest.", show_default=False)
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read all hashes first, and verify the restored lake; exit 1 on a finding.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a home from a backup. The live session then goes on where the backup was taken, exactly once.

    Example:

      aiops restore /mnt/backup/aiops --home /srv/aiops --verify
    """
    from aiops_assets.backup.restore import restore as run
    from aiops_assets.backup.store import BackupProblem
    from aiops_assets.settings import Settings

    settings = Settings(home=home)
    try:
        with progress(as_json) as tell:
            restored = run(source, settings, backup_id, verify=verify, tell=tell)
    except BackupProblem as problem:
        fail(str(problem))
    if as_json:
        print_json(restored.document())
    else:
        out = console()
        out.print(
            f"backup [bold]{restored.backup_id}[/] is in {clean(restored.home)}: {restored.files:,} files, "
            f"{size(restored.size)}, {duration(restored.seconds)}"
        )
        if restored.verification is not None:
            show_verification(restored.verification)
        if not restored.keys:
            out.print("it has no keys: make new ones with aiops keys create")
        out.print(f"start it with: AIOPS_HOME={clean(restored.home)} aiops up")
    if not restored.clean:
        raise typer.Exit(PROBLEM)
