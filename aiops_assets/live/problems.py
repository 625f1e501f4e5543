"""Problems for people: a short, bounded list of lines that ``aiops status`` and the pages show.

What belongs here: what somebody should look at (a failed run, an orphaned one). What does not: logs, which have
everything, and alerts about the machines that are watched.
"""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import BaseModel, ValidationError

_FILE = "problems.jsonl"
_MOST_BYTES = 256 * 1024
_LONGEST = 600


class Problem(BaseModel):
    """One line. ``at`` is microseconds since the epoch (UTC), ``origin`` what noticed it, ``link`` where to look."""

    at: int
    origin: str
    text: str
    link: str = ""


def record_problem(live: Path, origin: str, text: str, link: str = "") -> Problem:
    """Append a problem; the older half goes when the file has grown beyond 256 KiB."""
    path = live / _FILE
    live.mkdir(parents=True, exist_ok=True)
    problem = Problem(at=time.time_ns() // 1000, origin=origin, text=text[:_LONGEST], link=link)
    if path.exists() and path.stat().st_size > _MOST_BYTES:
        lines = path.read_text("utf-8").splitlines(keepends=True)
        temporary = path.with_suffix(".new")
        temporary.write_text("".join(lines[len(lines) // 2 :]), "utf-8")
        temporary.replace(path)
    with path.open("a", encoding="utf-8") as file:
        file.write(problem.model_dump_json() + "\n")
    return problem


def recent_problems(live: Path, limit: int = 20) -> list[Problem]:
    """The newest problems, newest first; a line that cannot be read is left out."""
    try:
        lines = (live / _FILE).read_text("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    found: list[Problem] = []
    for line in reversed(lines):
        if len(found) == limit:
            break
        try:
            found.append(Problem.model_validate_json(line))
        except ValidationError:
            continue
    return found
