"""Housekeeping of the Delta tables: rewriting closed partitions, removing files that nothing needs any more.

What belongs here: what is done to files while rows stay the same. What does not: letting rows go (``lake.retention``)
and who may do it when: rewriting a partition conflicts with appends to it and is the lease holder's alone, removing
files is not and runs beside the live session at any time.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson
import polars as pl

from aiops_assets.lake.actions import actions_of
from aiops_assets.lake.files import TableFiles
from aiops_assets.lake.tables import Lake, TableWriter, configure
from aiops_assets.tables import METRIC_POINTS, TABLES, Table

log = logging.getLogger(__name__)

#: readers that opened a table (and backups) may finish within this time
KEEP_HOURS = 24


@dataclass(frozen=True, slots=True)
class Tidied:
    """One table: files and bytes that went (or would go), its version, and the files that make up that version."""

    table: str
    removed: int
    size: int
    version: int
    files: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Compacted:
    """One table: partitions that were rewritten (or would be), their files and bytes before and after, their rows."""

    table: str
    partitions: int
    rows: int
    files_before: int
    files_after: int
    size_before: int
    size_after: int
    #: partitions that were left alone because they cannot be read: ``lake.verification`` says why
    unreadable: int = 0


def tidy(lake: Lake, memory: Path, *, keep_hours: float = KEEP_HOURS, dry_run: bool, now: float) -> list[Tidied]:
    """Remove data files that no version needs and that were first seen so at least ``keep_hours`` ago.

    The log forgets replaced files soon (it would be slow otherwise), so what was seen without a use is remembered in
    the folder ``memory``; a file that a commit is about to name is safe, because it is named long before it goes. Also
    writes a checkpoint and lets delta-rs drop old log entries. ``now`` is in seconds since the epoch.
    """
    if keep_hours < 1:
        raise ValueError("keep_hours: at least 1, the time that readers and writers under way need")
    found = []
    for name in TABLES:
        files = TableFiles(lake, name)
        listed = files.data()
        # Listed before it is opened: what is written meanwhile is not taken for unused.
        handle = lake.open(name)
        if handle is None:
            continue
        used = set(actions_of(handle, TABLES[name])["path"])
        seen = _recall(memory / f"{name}.json")
        unused = {path: seen.get(path, now) for path in listed if path not in used}
        due = [path for path, since in unused.items() if now - since >= keep_hours * 3600]
        if not dry_run:
            for path in due:
                files.remove(path)
            _remember(memory / f"{name}.json", {path: since for path, since in unused.items() if path not in set(due)})
            configure(handle)
            handle.create_checkpoint()
            handle.cleanup_metadata()
        found.append(
            Tidied(
                name,
                len(due),
                sum(listed[path].size for path in due),
                handle.version(),
                len(used),
                len(unused) - len(due),
            )
        )
    return found


def compactable(lake: Lake, table: Table, before: str) -> list[str]:
    """Partitions before a key that are not one file in the layout of closed ones, oldest first."""
    handle = lake.open(table.name)
    if handle is None or table.partition is None:
        return []
    actions = actions_of(handle, table)
    files = TableFiles(lake, table.name)
    due = []
    for (partition,), group in actions.sort("partition").group_by("partition", maintain_order=True):
        if str(partition) >= before:
            continue
        if group.height > 1 or (table is METRIC_POINTS and not _in_closed_layout(files, group["path"][0])):
            due.append(str(partition))
    return due


def compact(
    lake: Lake,
    before: Mapping[str, str],
    *,
    dry_run: bool,
    check_lease: Callable[[], None] = lambda: None,
    keep_going: Callable[[], bool] = lambda: True,
    tell: Callable[[str, int, int], None] = lambda table, done, total: None,
) -> list[Compacted]:
    """Rewrite partitions of tables (name → first key that is left alone) as one sorted file each.

    Unless it is a dry run, the caller holds the lease; ``check_lease`` is called before every commit. It stops between
    two partitions when ``keep_going()`` is false. ``tell`` hears (table, partitions done, partitions to do).
    """
    found = []
    for name, first_open in before.items():
        table = TABLES[name]
        due = compactable(lake, table, first_open)
        if not due:
            continue
        sizes = {part.partition: part for part in lake.partitions(name)}
        writer = None if dry_run else TableWriter(lake, table)
        done, unreadable = [], 0
        for number, partition in enumerate(due):
            if not keep_going():
                break
            tell(name, number, len(due))
            if writer is not None:
                try:
                    rows = writer.read(partition, list(table.schema))
                except (pl.exceptions.PolarsError, OSError) as error:
                    log.warning("%s %s is not compacted: %s", name, partition, str(error).partition("\n")[0])
                    unreadable += 1
                    continue
                check_lease()
                writer.replace(rows, partition)
            done.append(partition)
        tell(name, len(due), len(due))
        after = sizes if dry_run else {part.partition: part for part in lake.partitions(name)}
        found.append(
            Compacted(
                name,
                len(done),
                sum(sizes[key].rows for key in done),
                sum(sizes[key].files for key in done),
                len(done) if dry_run else sum(after[key].files for key in done),
                sum(sizes[key].size for key in done),
                sum(after[key].size for key in done),
                unreadable,
            )
        )
    return found


def _in_closed_layout(files: TableFiles, path: str) -> bool:
    """Whether a file of points was written by ``encoding.closed``: its times are plain, which the default never is."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with files.open(path) as file:
            footer = pq.read_metadata(file)
    except (pa.ArrowException, OSError):
        # Lost or torn: for verification to tell and a rebuild to mend.
        return True
    names = [footer.schema.column(index).name for index in range(footer.num_columns)]
    if footer.num_row_groups == 0:
        return True
    return "RLE_DICTIONARY" not in footer.row_group(0).column(names.index("ts")).encodings


def _recall(path: Path) -> dict[str, float]:
    try:
        return {str(name): float(since) for name, since in orjson.loads(path.read_bytes()).items()}
    except (FileNotFoundError, orjson.JSONDecodeError, AttributeError, TypeError, ValueError):
        # Forgotten: the files wait anew.
        return {}


def _remember(path: Path, unused: Mapping[str, float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    temporary.write_bytes(orjson.dumps(dict(unused)))
    temporary.replace(path)
