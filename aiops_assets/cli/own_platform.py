"""A running platform for a command that shows something: the one that is there, or one that ends with the command.

What belongs here: starting, waiting until it is ready, ending. What does not: what is shown (``try_out``, ``demo``).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from aiops_assets.cli.output import duration, fail

if TYPE_CHECKING:
    from rich.console import Console

    from aiops_assets.settings import Settings

_START_SECONDS = 120.0
_NEEDED = ("gateway", "code-live", "dagster-daemon")


@contextlib.contextmanager
def running_platform(
    settings: Settings, out: Console, purpose: str, environment: Mapping[str, str] | None = None
) -> Iterator[bool]:
    """A running platform. Yields whether it is ours; one of ours ends with the block.

    Args:
        purpose: what it is started for, for people: ``this try``.
        environment: variables that make the platform's settings these ones, where ours differ from the caller's.
    """
    from aiops_assets.cli import processes
    from aiops_assets.cli.supervisor import running
    from aiops_assets.cli.up import COMPONENTS, check_ports, prepare, program
    from aiops_assets.settings import child_environment

    home = settings.paths
    if (state := running(home.root)) is not None:
        if not set(_NEEDED) <= set(state.children):
            fail(f"the platform runs without gateway or Dagster; start all of it: {program()} up")
        until(lambda: _ready(settings), _START_SECONDS, "the platform is not ready")
        yield False
        return
    prepare(settings)
    check_ports(settings, COMPONENTS)
    out.print(f"The platform is not running; starting it for {purpose} …")
    log = home.logs / "try-up.log"
    with log.open("ab") as file:
        wrapper = [sys.executable, "-I", "-S", processes.__file__, "exec", str(os.getpid())]
        process = subprocess.Popen(
            [*wrapper, sys.executable, "-m", "aiops_assets.cli", "up"],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=child_environment(environment or {}),
        )
    try:
        begun = time.monotonic()
        trouble = f"the platform did not start, see {log}"
        until(lambda: process.poll() is not None or _ready(settings), _START_SECONDS, trouble)
        if process.poll() is not None:
            fail(trouble)
        out.print(f"  ready after {duration(time.monotonic() - begun)}")
        yield True
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def _ready(settings: Settings) -> bool:
    from aiops_assets.cli.supervisor import running

    state = running(settings.paths.root)
    return state is not None and all(name in state.children and state.children[name].ready for name in _NEEDED)


def until(condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
    """Look until a condition holds; fail with ``otherwise`` when it does not in time."""
    deadline, tick = time.monotonic() + seconds, threading.Event()
    while not condition():
        if time.monotonic() >= deadline:
            fail(otherwise)
        tick.wait(0.1)


def stay_until_interrupted(out: Console) -> None:
    """Keep everything running until Ctrl-C."""
    out.print("\nThe platform stays up for you to look around; Ctrl-C ends it.")
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
