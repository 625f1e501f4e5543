"""``aiops config``: is ``aiops.yaml`` right, and where is it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aiops_assets.cli.output import USAGE, clean, console, fail, group, load

config = group("config", "The file aiops.yaml: check it, find it.")


@config.command("check")
def check(
    file: Annotated[Path | None, typer.Argument(help="Another file than the one in force.", show_default=False)] = None,
) -> None:
    """Check the file; every mistake is one line with file, line, field and what is allowed. Exit code 2 when wrong.

    Example:

      aiops config check new-aiops.yaml && cp new-aiops.yaml .aiops/aiops.yaml
    """
    from aiops_assets.config import load_config

    path = file or load().paths.config
    if file is not None and not file.is_file():
        fail(f"{file}: there is no such file", USAGE)
    found = load_config(path)
    exists = "" if path.exists() else " (there is none, so the defaults are in force)"
    console().print(
        f"{clean(path)}{exists} is right: {len(found.devices)} devices, {len(found.active_rules)} rules, "
        f"{len(found.maintenance)} maintenance windows, {len(found.entities)} entities"
    )


@config.command("path")
def path_() -> None:
    """Print where the file in force is."""
    typer.echo(load().paths.config)
