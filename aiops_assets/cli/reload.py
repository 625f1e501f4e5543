"""``aiops reload``: let Dagster see changed code while the platform runs."""

from __future__ import annotations

import signal

from aiops_assets.cli.output import console, fail, load


def reload() -> None:
    """Start Dagster's code servers anew, so that changed definitions are in force. Nothing is lost or taken twice.

    A live session at work goes on; it notices changed code by itself, finishes its batch and hands over.

    Example:

      aiops reload
    """
    from aiops_assets.cli import processes
    from aiops_assets.cli.supervisor import running

    state = running(load().paths.root)
    if state is None:
        fail("the platform does not run for this home folder; start it: aiops up")
    told = []
    for name, child in state.children.items():
        # Asked politely, a code server would wait for its runs; those belong to the supervisor and live on.
        if name.startswith("code-") and child.pid and processes.send(child.pid, state.token, signal.SIGKILL):
            told.append(name)
    console().print(f"{', '.join(told) or 'no code server'} starts anew")
