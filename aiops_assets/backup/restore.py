"""Making a home of a backup: all of it or nothing, and only where there is none.

What belongs here: writing a backup's files to a new home, its operations database, and looking whether all is whole.
What does not: what a backup consists of (``capture``).
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiops_assets.backup.capture import OPERATIONS_FILE, OPERATIONS_ROWS
from aiops_assets.backup.operations import load
from aiops_assets.backup.store import BackupProblem, Manifest, Store, free_bytes
from aiops_assets.lake.verification import Verification
from aiops_assets.landing.writer import fsync_folder
from aiops_assets.live.upkeep import verify_all
from aiops_assets.settings import Settings

Tell = Callable[[str, int, int], None]


@dataclass(slots=True)
class Restored:
    """The outcome; ``verification`` and ``damaged`` only when it was asked for."""

    backup_id: str
    home: str
    files: int
    size: int
    operations: dict[str, int] = field(default_factory=dict)
    keys: bool = True
    verification: Verification | None = None
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        """Whether nothing was found wrong."""
        return self.verification is None or self.verification.clean

    def document(self) -> dict[str, Any]:
        """JSON-able."""
        found = self.verification.document() if self.verification is not None else None
        return {**asdict(self), "verification": found, "clean": self.clean}


def check_backup(store: Store, manifest: Manifest, tell: Tell = lambda what, done, total: None) -> list[str]:
    """Read every content of a backup and compare it with its hash; what is wrong, a line each."""
    problems = []
    seen: set[str] = set()
    for number, entry in enumerate(manifest.entries):
        tell("contents", number, len(manifest.entries))
        if entry.sha256 not in seen:
            seen.add(entry.sha256)
            problems += [problem] if (problem := store.check(entry)) else []
    return problems


def restore(
    source: Path,
    settings: Settings,
    backup_id: str | None = None,
    *,
    verify: bool = False,
    tell: Tell = lambda what, done, total: None,
) -> Restored:
    """Make the (empty or missing) home of ``settings`` from a backup, the newest unless named.

    The home appears when it is whole. With ``verify`` all hashes are read first and the restored lake afterwards.

    Raises:
        BackupProblem: the home or the operations database is not empty, or the backup is not whole; nothing is left.
    """
    started = time.monotonic()
    store = Store.open(source)
    manifest = store.manifest(backup_id)
    home = settings.paths.root
    _refuse_unless_empty(settings)
    if verify and (problems := check_backup(store, manifest, tell)):
        raise BackupProblem(f"{source}: backup {manifest.backup_id} is not whole:\n" + "\n".join(problems[:10]))
    home.parent.mkdir(parents=True, exist_ok=True)
    if free_bytes(home.parent) < manifest.size:
        raise BackupProblem(f"{home}: the backup needs {manifest.size:,} bytes, {free_bytes(home.parent):,} are free")
    staging = home.parent / f".{home.name}.restoring-{os.getpid()}"
    staging.mkdir(mode=0o700)
    url = settings.paths.operations_url
    embedded = url == f"sqlite:///{home / OPERATIONS_FILE}"
    restored = Restored(manifest.backup_id, str(home), len(manifest.entries), manifest.size, keys=manifest.keys)
    try:
        rows: bytes | None = None
        has_file = any(entry.path == OPERATIONS_FILE for entry in manifest.entries)
        for number, entry in enumerate(manifest.entries):
            tell("files", number, len(manifest.entries))
            if entry.path == OPERATIONS_ROWS:
                rows = store.object(entry.sha256).read_bytes()
            elif entry.path != OPERATIONS_FILE or embedded:
                store.extract(entry, _inside(staging, entry.path))
        tell("files", len(manifest.entries), len(manifest.entries))
        if manifest.keys and (staging / "keys").is_dir():
            (staging / "keys").chmod(0o700)
        if rows is not None and not (embedded and has_file):
            restored.operations = _load_operations(f"sqlite:///{staging / OPERATIONS_FILE}" if embedded else url, rows)
        else:
            restored.operations = dict(manifest.operations.get("rows", {}))
        os.sync()
        if home.exists():
            home.rmdir()
        staging.rename(home)
        fsync_folder(home.parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    settings.paths.create()
    if verify:
        restored.verification = verify_all(settings, full=True, now=datetime.now(UTC), tell=tell)
    restored.seconds = time.monotonic() - started
    return restored


def _refuse_unless_empty(settings: Settings) -> None:
    home = settings.paths.root
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise BackupProblem(f"{home}: is not empty; a backup is restored onto an empty or missing home only")
    lake = settings.paths.lake
    if lake != str(home / "lake"):
        raise BackupProblem(
            f"AIOPS_LAKE is {lake}: a backup is restored to {home / 'lake'}; unset it, restore, then move the lake"
        )


def _load_operations(url: str, rows: bytes) -> dict[str, int]:
    try:
        return load(url, rows)
    except ValueError as error:
        raise BackupProblem(str(error)) from error


def _inside(root: Path, relative: str) -> Path:
    """A path below a folder; a manifest that was made up must not write elsewhere."""
    path = (root / relative).resolve()
    if not path.is_relative_to(root.resolve()):
        raise BackupProblem(f"{relative}: leads out of the home; the backup was tampered with")
    return path
