"""Releasing segments that the lake has: only after a sync, only past every position that could still be needed.

delta-rs does not fsync its commits, so a file system sync comes first; what is older than the retention time and lies
before the oldest saved position goes. A writer's newest segment always stays: its name is the writer's counter. A pack
goes whole, when all its segments may.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aiops_assets.landing.packing import FOLDER, packs
from aiops_assets.landing.reader import numbers, writers
from aiops_assets.landing.segment import SEALED, segment_path
from aiops_assets.landing.writer import fsync_folder


@dataclass(frozen=True, slots=True)
class Release:
    """Segments of one writer that went (or would go, in a dry run)."""

    writer: str
    segments: int
    size: int


def release(root: Path, positions: Mapping[str, int], keep_seconds: float, *, dry_run: bool = False) -> list[Release]:
    """Remove segments at or before ``positions`` (writer → segment number) that are older than ``keep_seconds``.

    The caller has made sure that every table in use is at or past ``positions``.
    """
    if not dry_run:
        os.sync()
    horizon = time.time() - keep_seconds
    releases = []
    for writer in writers(root):
        folder = root / writer
        count = size = 0
        kept_pack = False
        for first, last, path in packs(folder):
            stat = path.stat()
            if last > positions.get(writer, 0) or stat.st_mtime > horizon:
                kept_pack = True
                break
            count, size = count + last - first + 1, size + stat.st_size
            if not dry_run:
                path.unlink()
        if count and not dry_run:
            fsync_folder(folder / FOLDER)
        present = sorted(numbers(folder, SEALED))
        # Segments after a pack that stays must stay as well, else there would be a gap.
        for seq in present[:-1] if not kept_pack else ():
            if seq > positions.get(writer, 0):
                break
            path = segment_path(folder, seq)
            stat = path.stat()
            if stat.st_mtime > horizon:
                break
            count, size = count + 1, size + stat.st_size
            if not dry_run:
                path.unlink()
        if count and not dry_run:
            fsync_folder(folder)
        releases.append(Release(writer, count, size))
    return releases
