"""Housekeeping of the Delta tables: files that no version needs any more, and old log entries.

What belongs here: what may run beside the live session at any time. What does not: compaction and overwrites, which
conflict with appends and are the lease holder's alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from aiops_assets.lake.tables import Lake
from aiops_assets.tables import TABLES


@dataclass(frozen=True, slots=True)
class Tidied:
    """One table: files that went (or would go), its version, and the files that make up its newest version."""

    table: str
    removed: int
    version: int
    files: int


def tidy(lake: Lake, *, keep_hours: int, dry_run: bool) -> list[Tidied]:
    """Remove files that were replaced more than ``keep_hours`` ago, and log entries beyond the log's retention.

    A reader that opened a table may finish within ``keep_hours``. At least 24 hours, the tables' own setting.
    """
    if keep_hours < 24:
        raise ValueError("keep_hours: at least 24, the retention that the tables are created with")
    found = []
    for name in TABLES:
        handle = lake.open(name)
        if handle is None:
            continue
        removed = handle.vacuum(retention_hours=keep_hours, dry_run=dry_run, enforce_retention_duration=True)
        if not dry_run:
            handle.create_checkpoint()
            handle.cleanup_metadata()
        found.append(Tidied(name, len(removed), handle.version(), len(handle.file_uris())))
    return found
