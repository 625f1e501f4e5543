"""Processes that belong together, found again by a mark in their environment.

A supervisor gives every child one variable with a token that no other process has. Descendants inherit it, whatever
they do with sessions, groups and parents, so the token names exactly what the supervisor has to answer for, also when
a parent was killed and the kernel gave its children away. (The same trick ends leftovers in build servers.)

Two small programs of the supervisor live here as well, run by file name with only the standard library, so that they
cost milliseconds: ``exec`` becomes the child after asking the kernel to be told when the supervisor dies, ``guard``
waits for the supervisor's end and removes what it left behind. What to run is decided elsewhere.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

#: the variable that carries the token
MARK = "AIOPS_SUPERVISOR"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def marked(token: str) -> set[int]:
    """Process ids of all living processes (not zombies) whose environment carries the token, without this one."""
    numbers = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    return {pid for pid in numbers if pid != os.getpid() and _carries(pid, token)}


def _carries(pid: int, token: str) -> bool:
    try:
        environment = Path("/proc", str(pid), "environ").read_bytes()
    except OSError:  # it has ended, or belongs to somebody else
        return False
    return f"{MARK}={token}".encode() in environment.split(b"\0")


def start_ticks(pid: int) -> int | None:
    """When a process started, in kernel ticks since boot: with its number this names one process for ever."""
    try:
        stat = Path("/proc", str(pid), "stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()
    return None if fields[0] == b"Z" else int(fields[19])


def send(pid: int, token: str, number: signal.Signals) -> bool:
    """Send a signal to a process if it still carries the token; the number cannot have been reused in between."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not _carries(pid, token):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def end(token: str, grace: float, wait: Callable[[float], object] = time.sleep) -> int:
    """Ask every process with the token to end, insist after ``grace`` seconds; returns how many there were.

    Gives up ten seconds later: a process that even SIGKILL does not end waits for its disk.

    ``wait`` passes a fraction of a second; a parent uses it to read its children's output and collect their ends.
    """
    asked: set[int] = set()
    deadline = time.monotonic() + grace
    while alive := marked(token):
        late = time.monotonic() >= deadline
        if time.monotonic() >= deadline + 10:
            break
        for pid in alive if late else alive - asked:
            send(pid, token, signal.SIGKILL if late else signal.SIGTERM)
        asked |= alive
        wait(0.05)
    return len(asked)


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent ends, instead of the machine's first process."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def exec_command(parent: int, command: list[str]) -> None:
    """Become ``command``, in such a way that the kernel sends SIGTERM when the parent ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("the supervisor has ended")
    os.execv(command[0], command)  # noqa: S606  no shell, a fixed argument list


def guard(token: str, grace: float) -> None:
    """Wait until standard input ends, which is when the supervisor does, and remove what it left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        select.select([sys.stdin.fileno()], [], [])
        if not os.read(sys.stdin.fileno(), 64):
            break
    end(token, grace)


if __name__ == "__main__":
    if sys.argv[1] == "exec":
        exec_command(int(sys.argv[2]), sys.argv[3:])
    elif sys.argv[1] == "guard":
        guard(sys.argv[2], float(sys.argv[3]))
