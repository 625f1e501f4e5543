"""Taking a backup of a running installation, part by part in the one order that makes it a consistent cut.

What the live session commits later in a batch is read earlier here. So every effect in a backup has its cause in it:
receipts before the states and results they speak of, alerts before incidents, results before points, points before the
segments that are not in them yet. What belongs here: that order, and what each part consists of.
"""

from __future__ import annotations

import importlib.metadata
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiops_assets.backup.operations import copy_sqlite, export
from aiops_assets.backup.store import BackupProblem, Entry, Manifest, Store, free_bytes
from aiops_assets.lake.actions import actions_of
from aiops_assets.lake.files import LOG, TableFiles
from aiops_assets.lake.tables import Lake
from aiops_assets.landing.packing import FOLDER as PACKS
from aiops_assets.landing.packing import packs
from aiops_assets.landing.reader import look, numbers, read_bytes, writers
from aiops_assets.landing.segment import OPEN, SEALED, segment_path
from aiops_assets.promotion.store import FOLDER as VERSIONS
from aiops_assets.settings import Settings
from aiops_assets.tables import TABLES

#: hears (what is done, files done, files to do)
Tell = Callable[[str, int, int], None]
#: tables in the order in which they are pinned: results before what they come from
FIRST = ("hour_receipts",)
BEFORE_INCIDENTS = ("alerts",)
AFTER_INCIDENTS = ("incidents", "alert_decisions", "anomalies", "baselines", "config_versions", "metric_points")
OPERATIONS_FILE, OPERATIONS_ROWS = "operations.db", "operations.jsonl"
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\.parquet")
_MINIMUM_FREE = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Options:
    """What goes in. ``link``: lake files on the same file system get a second name instead of a copy."""

    without_keys: bool = False
    with_dagster: bool = False
    all_segments: bool = False
    link: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """The outcome. ``added`` files (and bytes) were not in the backup folder yet."""

    manifest: Manifest
    added: int
    added_size: int
    seconds: float
    forgotten: int = 0
    freed: int = 0

    def document(self) -> dict[str, Any]:
        """JSON-able, without the single files."""
        own = {name: value for name, value in asdict(self).items() if name != "manifest"}
        return {**self.manifest.summary(), **own}


@dataclass(frozen=True, slots=True)
class _Pinned:
    """A table at one version: its data files, and the part of its log that says so, in memory."""

    name: str
    version: int
    paths: list[str]
    log: dict[str, bytes]


def back_up(
    settings: Settings,
    destination: Path,
    options: Options | None = None,
    *,
    keep: int | None = None,
    tell: Tell = lambda what, done, total: None,
) -> Taken:
    """Back up an installation into a folder, whether it runs or not.

    Raises:
        BackupProblem: the folder cannot be used, or a part cannot be read; what was stored is used by the next backup.
    """
    started = time.monotonic()
    options = options or Options()
    home = settings.paths
    if "://" in home.lake:
        raise BackupProblem(
            f"the lake is at {home.lake}: object stores are saved by their own versioning or by rclone; "
            "only installations with a lake in a folder are backed up as a whole"
        )
    if destination.resolve().is_relative_to(Path(home.lake).resolve()):
        raise BackupProblem(f"{destination}: lies inside of the lake; name a folder outside")
    store = Store.create(destination)
    with store.writing():
        if free_bytes(destination) < _MINIMUM_FREE:
            raise BackupProblem(f"{destination}: no room ({free_bytes(destination) // 1024**2} MiB free)")
        manifest = _Capture(settings, store, options, tell).take()
        store.commit(manifest)
        forgotten, freed = store.forget(keep) if keep is not None else (0, 0)
    return Taken(manifest, store.added, store.added_size, time.monotonic() - started, forgotten, freed)


class _Capture:
    def __init__(self, settings: Settings, store: Store, options: Options, tell: Tell) -> None:
        self._settings, self._home, self._store = settings, settings.paths, store
        self._options, self._tell = options, tell
        self._lake = Lake(self._home.lake)
        self._entries: list[Entry] = []
        self._parts: dict[str, int] = {}

    def take(self) -> Manifest:
        """Take every part in order; the manifest of it all."""
        created = datetime.now(UTC)
        pinned = self._pin(FIRST)
        self._folder("live", self._home.live, skip=lambda path: path.suffix in {".lease", ".wanted"})
        pinned += self._pin(BEFORE_INCIDENTS)
        operations = self._operations()
        pinned += self._pin(AFTER_INCIDENTS)
        done = {table.name for table in pinned}
        pinned += self._pin([name for name in TABLES if name not in done])
        tables = {table.name: table.version for table in pinned}
        positions = self._positions(tables)
        self._folder("quarantine", self._home.quarantine)
        self._landing(positions)
        self._folder("collector", self._home.collector)
        if self._home.config.exists():
            self._file("aiops.yaml", self._home.config, "config")
        if not self._options.without_keys:
            self._folder("keys", self._home.keys)
        if self._options.with_dagster:
            self._dagster()
        for table in pinned:
            self._table(table)
        self._versions()
        return Manifest(
            backup_id=created.strftime("%Y%m%dT%H%M%S") + f"-{created.microsecond // 1000:03d}",
            created_at=created.isoformat(timespec="milliseconds"),
            home=str(self._home.root),
            product_version=importlib.metadata.version("aiops-assets"),
            entries=tuple(self._entries),
            tables=tables,
            positions=positions,
            operations=operations,
            keys=not self._options.without_keys,
            parts=self._parts,
        )

    # -- the lake -----------------------------------------------------------------------------------------------------

    def _pin(self, names: Any) -> list[_Pinned]:
        pinned = []
        for name in names:
            handle = self._lake.open(name)
            if handle is None:
                continue
            files = TableFiles(self._lake, name)
            paths = sorted(actions_of(handle, TABLES[name])["path"].to_list())
            pinned.append(_Pinned(name, handle.version(), paths, _log_of(files, name, handle.version())))
        return pinned

    def _table(self, table: _Pinned) -> None:
        root = Path(self._lake.uri(table.name))
        prefix = f"lake/{table.name}"
        for number, path in enumerate(table.paths):
            self._tell(table.name, number, len(table.paths))
            try:
                entry = self._store.add_file(f"{prefix}/{path}", root / path, link=self._options.link, immutable=True)
            except FileNotFoundError as error:
                raise BackupProblem(
                    f"{root / path}: the log names it and it is not there; run aiops lake verify, then try again"
                ) from error
            self._add(entry, "lake")
        self._tell(table.name, len(table.paths), len(table.paths))
        for name, content in table.log.items():
            self._add(self._store.add_bytes(f"{prefix}/{LOG}/{name}", content), "lake")

    def _versions(self) -> None:
        """Files of all versions of what is promoted; after the moves and rows that name them, and without what is
        being made."""
        root = Path(self._home.lake) / VERSIONS
        found = [
            path for path in _files(root) if not any(part.startswith(".") for part in path.relative_to(root).parts)
        ]
        for number, path in enumerate(found):
            self._tell(VERSIONS, number, len(found))
            self._file(f"lake/{VERSIONS}/{path.relative_to(root).as_posix()}", path, "lake", immutable=True)

    def _positions(self, tables: dict[str, int]) -> dict[str, int]:
        """Segments that the pinned version of the points has."""
        handle = self._lake.open("metric_points")
        names = writers(self._home.landing)
        if handle is None or "metric_points" not in tables:
            return dict.fromkeys(names, 0)
        handle.load_as_version(tables["metric_points"])
        return {name: int(handle.transaction_version(f"landing/{name}") or 0) for name in names}

    # -- the rest -----------------------------------------------------------------------------------------------------

    def _landing(self, positions: dict[str, int]) -> None:
        """Segments that the lake does not have, and the newest of each writer, whose number is its counter."""
        for writer in writers(self._home.landing):
            folder = self._home.landing / writer
            prefix = f"landing/{writer}"
            if self._options.all_segments:
                for _, _, path in packs(folder):
                    self._file(f"{prefix}/{PACKS}/{path.name}", path, "landing", immutable=True)
            unsealed = numbers(folder, OPEN)
            sealed = sorted(numbers(folder, SEALED))
            taken = positions.get(writer, 0)
            wanted = sealed if self._options.all_segments else [seq for seq in sealed if seq > taken] or sealed[-1:]
            if not self._options.all_segments and wanted and wanted[0] > taken + 1:
                # Not taken and packed: in a home that was restored from a backup of everything.
                packed = [seq for seq in range(taken + 1, wanted[0]) if look(folder, seq)]
                wanted = [*packed, *wanted]
            for number, seq in enumerate(wanted):
                self._tell(f"landing {writer}", number, len(wanted))
                self._segment(folder, prefix, seq)
            # One that was sealed between the two looks is among the sealed ones.
            for seq in sorted({*unsealed} - {*sealed}):
                self._unsealed(folder, prefix, seq)

    def _segment(self, folder: Path, prefix: str, seq: int) -> None:
        seen = look(folder, seq)
        modified = int(seen[1] * 1e9) if seen else 0
        name = segment_path(folder, seq).name
        self._add(self._store.add_bytes(f"{prefix}/{name}", read_bytes(folder, seq), modified=modified), "landing")

    def _unsealed(self, folder: Path, prefix: str, seq: int) -> None:
        """What is acknowledged and not sealed; a tail that is torn by reading it now is cut at the next start."""
        path = segment_path(folder, seq, OPEN)
        try:
            self._add(self._store.add_bytes(f"{prefix}/{path.name}", path.read_bytes()), "landing")
        except FileNotFoundError:
            # Sealed meanwhile, or taken back: a full disk does that.
            if look(folder, seq):
                self._segment(folder, prefix, seq)

    def _operations(self) -> dict[str, Any]:
        url = self._home.operations_url
        database = _sqlite_file(url)
        if database is not None and not database.exists():
            return {"revision": None, "rows": {}, "kind": "none"}
        rows, about = export(url)
        if rows:
            self._add(self._store.add_bytes(OPERATIONS_ROWS, rows), "operations")
        if database is not None:
            with tempfile.TemporaryDirectory(dir=self._store.root) as folder:
                copy = Path(folder) / OPERATIONS_FILE
                copy_sqlite(database, copy)
                self._add(self._store.add_file(OPERATIONS_FILE, copy), "operations")
        return {**about, "kind": "sqlite" if database is not None else "postgresql"}

    def _dagster(self) -> None:
        root = self._home.dagster
        for path in _files(root):
            relative = f"dagster/{path.relative_to(root).as_posix()}"
            if path.suffix in {".db-wal", ".db-shm", ".db-journal"}:
                continue
            if path.suffix == ".db":
                with tempfile.TemporaryDirectory(dir=self._store.root) as folder:
                    copy = Path(folder) / path.name
                    copy_sqlite(path, copy)
                    self._add(self._store.add_file(relative, copy), "dagster")
            else:
                self._file(relative, path, "dagster")

    def _folder(self, prefix: str, root: Path, skip: Callable[[Path], bool] = lambda path: False) -> None:
        found = [path for path in _files(root) if not skip(path) and not path.name.startswith(".")]
        for number, path in enumerate(found):
            self._tell(prefix, number, len(found))
            self._file(f"{prefix}/{path.relative_to(root).as_posix()}", path, prefix)

    def _file(self, relative: str, path: Path, part: str, *, immutable: bool = False) -> None:
        try:
            entry = self._store.add_file(relative, path, immutable=immutable)
        except FileNotFoundError:
            # Replaced or let go since it was listed; what took its place is listed by the next backup.
            return
        self._add(entry, part)

    def _add(self, entry: Entry, part: str) -> None:
        self._entries.append(entry)
        self._parts[part] = self._parts.get(part, 0) + entry.size


def _log_of(files: TableFiles, name: str, version: int) -> dict[str, bytes]:
    """The files of the log that describe a version: the newest checkpoint before it and the commits since."""
    present = files.log()
    checkpoints = [int(match[1]) for entry in present if (match := _CHECKPOINT.fullmatch(entry))]
    base = max((number for number in checkpoints if number <= version), default=None)
    wanted = [] if base is None else [f"{base:020d}.checkpoint.parquet"]
    wanted += [f"{number:020d}.json" for number in range(0 if base is None else base + 1, version + 1)]
    if base is not None:
        # The commit of the checkpoint itself makes the table readable to tools that start from commits.
        wanted += [entry for entry in (f"{base:020d}.json",) if entry in present]
    try:
        return {entry: files.read(f"{LOG}/{entry}") for entry in wanted}
    except FileNotFoundError as error:
        raise BackupProblem(
            f"{files.uri}: version {version} cannot be read from its log; run aiops lake verify, then try again"
        ) from error


def _sqlite_file(url: str) -> Path | None:
    from sqlalchemy import make_url

    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    return Path(str(parsed.database))


def _files(root: Path) -> Iterator[Path]:
    if root.is_dir():
        yield from sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
