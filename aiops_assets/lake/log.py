"""The Delta log as files: is it whole, who was taken when, and how to mend what a power cut tore.

delta-rs does not fsync its commits. After a power cut the newest ones can be missing, cut or empty, and an empty one is
taken for a commit without changes: its rows are gone without a word. What belongs here: finding such commits and
putting harmless ones in their place, so that the table opens again. What does not: bringing the rows back
(``live.rebuild``).
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from aiops_assets.lake.files import LOG, TableFiles

_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint(?:\.\d{10}\.\d{10})?\.parquet")
_LAST = "_last_checkpoint"
_WRITER = "landing/"


@dataclass(frozen=True, slots=True)
class LogProblem:
    """One thing that is wrong with a log; ``version`` is the commit concerned, ``file`` its name in the log."""

    version: int
    file: str
    what: str


@dataclass(frozen=True, slots=True)
class LogState:
    """A log: its newest version (-1 when it is empty), its newest checkpoint, and what is wrong."""

    version: int
    checkpoint: int | None
    problems: tuple[LogProblem, ...]


def inspect(files: TableFiles, after: int = -1) -> LogState:
    """Look at every commit behind ``after`` that is still in the log, and at the newest checkpoint."""
    names = files.log()
    commits = {int(match[1]): name for name in names if (match := _COMMIT.fullmatch(name))}
    checkpoints = {int(match[1]): name for name in names if (match := _CHECKPOINT.fullmatch(name))}
    problems = []
    newest = max(checkpoints, default=None)
    last = max([*commits, *checkpoints], default=-1)
    start = 0 if newest is None else min(commits, default=last + 1)
    missing = [version for version in range(start, last + 1) if version not in commits]
    if missing and newest is not None:
        # A clean-up may have been under way: it takes commits from the oldest on, so look again where it has got to.
        left = [int(match[1]) for name in files.log() if (match := _COMMIT.fullmatch(name))]
        missing = [version for version in missing if version > min(left, default=last + 1)]
    problems += [LogProblem(v, f"{v:020d}.json", "missing: the commits around it are there") for v in missing]
    for version, name in sorted(commits.items()):
        if version > after and (what := _torn(files, f"{LOG}/{name}")):
            problems.append(LogProblem(version, name, what))
    if newest is not None and newest > after and (what := _torn_checkpoint(files, f"{LOG}/{checkpoints[newest]}")):
        problems.append(LogProblem(newest, checkpoints[newest], what))
    if _LAST in names and not _points_to(files, set(checkpoints)):
        problems.append(LogProblem(last, _LAST, "does not name a checkpoint that is there"))
    return LogState(last, newest, tuple(sorted(problems, key=lambda problem: (problem.version, problem.file))))


def mend(files: TableFiles, aside: Path) -> list[LogProblem]:
    """Put harmless commits in the place of torn and missing ones; what was torn is kept in the folder ``aside``.

    The rows of such commits are not in the table afterwards, and the positions of the newest of them neither: rebuild
    the hours concerned. A torn checkpoint is set aside as well; the commits since the one before take its place.
    """
    state = inspect(files)
    for problem in state.problems:
        path = f"{LOG}/{problem.file}"
        present = problem.file in files.log()
        if present:
            aside.mkdir(parents=True, exist_ok=True)
            (aside / problem.file).write_bytes(files.read(path))
        if _COMMIT.fullmatch(problem.file):
            note = {
                "timestamp": time.time_ns() // 1_000_000,
                "operation": "REPAIR",
                "operationParameters": {},
                "engineInfo": "aiops",
            }
            files.put(path, orjson.dumps({"commitInfo": note}) + b"\n")
        elif present:
            files.remove(path)
    return list(state.problems)


def taking_order(files: TableFiles) -> dict[str, list[tuple[int, int]]]:
    """Landing writer → (last segment, version) of every commit still in the log that took segments, ascending.

    Segments of two writers were taken in the order of the versions; within one version in the order of their names.
    """
    found: dict[str, list[tuple[int, int]]] = {}
    for name in sorted(name for name in files.log() if _COMMIT.fullmatch(name)):
        for line in files.read(f"{LOG}/{name}").splitlines():
            if b'"txn"' not in line:
                continue
            try:
                action = orjson.loads(line).get("txn") or {}
            except orjson.JSONDecodeError:
                continue
            if str(action.get("appId", "")).startswith(_WRITER):
                writer = str(action["appId"]).removeprefix(_WRITER)
                found.setdefault(writer, []).append((int(action["version"]), int(name[:20])))
    return found


def _torn(files: TableFiles, path: str) -> str | None:
    try:
        data = files.read(path)
    except FileNotFoundError:
        # Cleaned up since it was listed: it was older than a checkpoint.
        return None
    if not data.strip():
        return "empty: a commit whose content was lost"
    try:
        actions = [orjson.loads(line) for line in data.splitlines() if line.strip()]
    except orjson.JSONDecodeError:
        return "torn: not whole JSON lines"
    return None if all(isinstance(action, Mapping) for action in actions) else "not Delta actions"


def _torn_checkpoint(files: TableFiles, path: str) -> str | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with files.open(path) as file:
            pq.ParquetFile(file).read()
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError) as error:
        return f"torn checkpoint: {error}"
    return None


def _points_to(files: TableFiles, checkpoints: set[int]) -> bool:
    try:
        return int(orjson.loads(files.read(f"{LOG}/{_LAST}"))["version"]) in checkpoints
    except FileNotFoundError:
        return True
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return False
