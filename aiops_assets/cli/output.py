"""How commands speak: results on standard output, everything about them on standard error, exit codes as people expect.

What belongs here: the group class that turns known errors into lines and exit codes (0 done, 1 a problem, 2 wrong
usage or configuration), JSON output, and the wording of times, sizes and counts. Tables of one command belong to it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from aiops_assets.settings import Settings

PROBLEM, USAGE = 1, 2
_MICROS = 1_000_000
#: lines in files and pipes are not wrapped to a terminal that is not there
_WIDTH_OF_FILES = 200


class Problem(Exception):
    """A command cannot do what was asked; the text says why and what to do."""

    def __init__(self, text: str, code: int = PROBLEM) -> None:
        super().__init__(text)
        self.code = code


class Commands(TyperGroup):
    """A group whose commands end with one clear line instead of a traceback when the cause is known."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Problem as problem:
            complain(str(problem))
            raise typer.Exit(problem.code) from problem
        except BrokenPipeError as error:
            # The reader (head, less) has gone; Python must not complain about it at exit either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from error
        except Exception as error:
            lines = _known(error)
            if lines is None:
                raise
            for line in lines:
                complain(line)
            raise typer.Exit(USAGE) from error


def _known(error: Exception) -> list[str] | None:
    """Lines for mistakes in ``aiops.yaml`` and in ``AIOPS_…`` variables; ``None`` for anything else."""
    if type(error).__name__ == "ConfigError":
        return list(getattr(error, "problems", [str(error)]))
    if type(error).__name__ == "ValidationError" and getattr(error, "title", "") == "Settings":
        entries = error.errors(include_url=False)  # type: ignore[attr-defined]
        return [f"AIOPS_{'.'.join(map(str, entry['loc'])).upper()}: {entry['msg']}" for entry in entries]
    return None


def group(name: str, text: str) -> typer.Typer:
    """A group of sub-commands with the behaviour above."""
    return typer.Typer(name=name, help=text, cls=Commands, no_args_is_help=True, rich_markup_mode="rich")


def load() -> Settings:
    """The settings in force."""
    from aiops_assets.settings import load_settings

    return load_settings()


def complain(text: str) -> None:
    """One line on standard error."""
    typer.secho(text, err=True, fg="red" if sys.stderr.isatty() else None)


def fail(text: str, code: int = PROBLEM) -> NoReturn:
    """End the command with a line on standard error."""
    raise Problem(text, code)


def console(*, stderr: bool = False) -> Console:
    """A rich console; markup in data must be escaped by ``rich.text.Text`` or ``escape``."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else _WIDTH_OF_FILES)


def print_json(value: object) -> None:
    """One JSON document on standard output and nothing else."""
    import orjson

    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE, default=str).decode())


def table(*columns: str, title: str | None = None, right: Sequence[str] = ()) -> Table:
    """An unadorned table; columns named in ``right`` are numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def plain(value: object) -> str:
    """A text from outside for the terminal, with control characters made visible."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in str(value))


def clean(value: object) -> str:
    """``plain`` for places where rich reads markup."""
    from rich.markup import escape

    return escape(plain(value))


def ago(micros: int | None, now: float | None = None) -> str:
    """How long ago an instant (microseconds since the epoch) was: ``5 s ago``, ``never``."""
    if not micros:
        return "never"
    seconds = (time.time() if now is None else now) - micros / _MICROS
    return f"{duration(seconds)} ago" if seconds >= 0 else f"in {duration(-seconds)}"


def duration(seconds: float) -> str:
    """A time span in its largest sensible unit: ``0.4 s``, ``12 s``, ``3 min``, ``5.0 h``, ``2.1 d``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.1f} d"


def instant(micros: int | None) -> str:
    """An instant as ``YYYY-MM-DD HH:MM:SS`` UTC, ``–`` when there is none."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(micros / _MICROS)) if micros else "–"


def severity(number: int) -> str:
    """The word for an OpenTelemetry severity number."""
    words = ((21, "critical"), (17, "error"), (13, "warning"), (9, "info"), (5, "debug"))
    return next((word for least, word in words if number >= least), "trace")


def size(count: float) -> str:
    """Bytes in words: ``12.3 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
