"""The folder that holds backups: contents by their hash, and one manifest a backup, written last.

Layout, version 1::

    aiops-backup.json          {"format": 1}
    objects/<2>/<64>           contents, named by their SHA-256 (hex); the first two digits are the folder
    backups/<id>.json          {"checksum": SHA-256 of the canonical JSON of "backup", "backup": {…}}
    known.json                 what source files had which hash, so that unchanged ones are not read again

A backup without its manifest is none: what it had stored is used by the next one. The folder can be copied by any tool
(rsync, rclone); nothing in it ever changes but ``known.json``. It holds secrets: it and its files are for their owner.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from aiops_assets.landing.writer import fsync_folder

FORMAT = 1
_MARK, _OBJECTS, _BACKUPS, _KNOWN = "aiops-backup.json", "objects", "backups", "known.json"
_CHUNK = 4 << 20


class BackupProblem(Exception):
    """The backup folder, or a backup in it, cannot be used; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the home. ``path`` is relative to it; ``modified`` in nanoseconds since the epoch."""

    path: str
    sha256: str
    size: int
    modified: int
    mode: int = 0o600


@dataclass(frozen=True, slots=True)
class Manifest:
    """What one backup holds. ``tables`` maps tables to their Delta version, ``positions`` writers to segments taken."""

    backup_id: str
    created_at: str
    home: str
    product_version: str
    entries: tuple[Entry, ...]
    tables: Mapping[str, int]
    positions: Mapping[str, int]
    operations: Mapping[str, Any]
    #: whether keys are in it
    keys: bool
    parts: Mapping[str, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)

    def summary(self) -> dict[str, Any]:
        """JSON-able, without the single files."""
        fields = {name: value for name, value in asdict(self).items() if name != "entries"}
        return {**fields, "files": len(self.entries), "size": self.size}


class Store:
    """One backup folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._objects = root / _OBJECTS
        self._touched: set[Path] = set()
        #: contents and bytes that were not there before
        self.added = 0
        self.added_size = 0
        self._known: dict[str, tuple[int, int, str]] = {}

    @classmethod
    def create(cls, root: Path) -> Store:
        """A backup folder, made where there is none; its owner alone may read it.

        Raises:
            BackupProblem: there is something else, or a newer format.
        """
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        mark = root / _MARK
        if not mark.exists():
            if any(path.name != ".lock" for path in root.iterdir()):
                raise BackupProblem(f"{root}: is neither empty nor a backup folder; name another one")
            root.chmod(0o700)
            _write(mark, orjson.dumps({"format": FORMAT}))
        store = cls.open(root)
        store._objects.mkdir(exist_ok=True, mode=0o700)
        (root / _BACKUPS).mkdir(exist_ok=True, mode=0o700)
        with contextlib.suppress(FileNotFoundError, orjson.JSONDecodeError, TypeError, ValueError):
            known = orjson.loads((root / _KNOWN).read_bytes())
            store._known = {path: (int(size), int(modified), str(sha)) for path, (size, modified, sha) in known.items()}
        return store

    @classmethod
    def open(cls, root: Path) -> Store:
        """An existing backup folder.

        Raises:
            BackupProblem: there is none, or it has a newer format.
        """
        try:
            form = orjson.loads((root / _MARK).read_bytes())["format"]
        except (FileNotFoundError, NotADirectoryError) as error:
            raise BackupProblem(f"{root}: is no backup folder ({_MARK} is missing)") from error
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise BackupProblem(f"{root / _MARK}: cannot be read: {error}") from error
        if form != FORMAT:
            raise BackupProblem(f"{root}: has format {form}, this version reads format {FORMAT}; use a newer one")
        return cls(root)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other backups out of the folder.

        Raises:
            BackupProblem: another one is under way.
        """
        descriptor = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BackupProblem(f"{self.root}: another backup into this folder is under way") from error
            yield
        finally:
            os.close(descriptor)

    # -- writing ------------------------------------------------------------------------------------------------------

    def add_bytes(self, path: str, content: bytes, *, modified: int = 0, mode: int = 0o600) -> Entry:
        """Store a content that is in memory."""
        digest = hashlib.sha256(content).hexdigest()
        if not self._has(digest):
            temporary = self._temporary()
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            self._keep(temporary, digest, len(content))
        return Entry(path, digest, len(content), modified, mode)

    def add_file(self, path: str, source: Path, *, link: bool = False, immutable: bool = False) -> Entry:
        """Store a file; one with the size and time of the last backup is not read again when it is ``immutable``.

        Args:
            link: where possible make another name for the file instead of a copy; only for files that never change.

        Raises:
            FileNotFoundError: it has gone.
        """
        stat = source.stat()
        known = self._known.get(str(source))
        if immutable and known is not None and known[:2] == (stat.st_size, stat.st_mtime_ns) and self._has(known[2]):
            return Entry(path, known[2], stat.st_size, stat.st_mtime_ns, stat.st_mode & 0o777)
        digest, size = self._copy(source, link)
        if immutable:
            self._known[str(source)] = (stat.st_size, stat.st_mtime_ns, digest)
        return Entry(path, digest, size, stat.st_mtime_ns, stat.st_mode & 0o777)

    def commit(self, manifest: Manifest) -> None:
        """Make everything durable and then the manifest, which makes it a backup."""
        for folder in self._touched:
            fsync_folder(folder)
        fsync_folder(self._objects)
        body = orjson.loads(orjson.dumps(asdict(manifest)))
        checksum = hashlib.sha256(_canonical(body)).hexdigest()
        _write(self._manifest(manifest.backup_id), orjson.dumps({"checksum": checksum, "backup": body}))
        _write(self.root / _KNOWN, orjson.dumps(self._known))

    def _copy(self, source: Path, link: bool) -> tuple[str, int]:
        state, size = hashlib.sha256(), 0
        if link:
            with source.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    state.update(chunk)
                    size += len(chunk)
            digest = state.hexdigest()
            if self._has(digest):
                return digest, size
            temporary = self._temporary()
            try:
                os.link(source, temporary)
            except OSError:
                # Another file system, or one without links.
                return self._copy(source, False)
            self._keep(temporary, digest, size, ours=False)
            return digest, size
        temporary = self._temporary()
        try:
            with source.open("rb") as file, temporary.open("wb") as target:
                while chunk := file.read(_CHUNK):
                    state.update(chunk)
                    size += len(chunk)
                    target.write(chunk)
                target.flush()
                os.fsync(target.fileno())
            if self._has(state.hexdigest()):
                return state.hexdigest(), size
            self._keep(temporary, state.hexdigest(), size)
        finally:
            temporary.unlink(missing_ok=True)
        return state.hexdigest(), size

    def _keep(self, temporary: Path, digest: str, size: int, *, ours: bool = True) -> None:
        target = self.object(digest)
        target.parent.mkdir(exist_ok=True, mode=0o700)
        if ours:
            temporary.chmod(0o600)
        temporary.rename(target)
        self._touched.add(target.parent)
        self.added += 1
        self.added_size += size

    def _temporary(self) -> Path:
        return self._objects / f".{os.getpid()}-{self.added}"

    def _has(self, digest: str) -> bool:
        return self.object(digest).exists()

    # -- reading ------------------------------------------------------------------------------------------------------

    def object(self, digest: str) -> Path:
        """Where the content with a hash lies."""
        return self._objects / digest[:2] / digest

    def backups(self) -> list[Manifest]:
        """All backups, oldest first; one whose manifest cannot be read is not among them (``damaged`` names it)."""
        found = []
        for path in sorted((self.root / _BACKUPS).glob("*.json")):
            with contextlib.suppress(BackupProblem):
                found.append(_read_manifest(path))
        return found

    def damaged(self) -> list[str]:
        """What is wrong with manifests that cannot be read."""
        problems = []
        for path in sorted((self.root / _BACKUPS).glob("*.json")):
            try:
                _read_manifest(path)
            except BackupProblem as problem:
                problems.append(str(problem))
        return problems

    def manifest(self, backup_id: str | None = None) -> Manifest:
        """One backup, the newest unless named.

        Raises:
            BackupProblem: there is none of that name, or it cannot be read.
        """
        if backup_id is not None:
            return _read_manifest(self._manifest(backup_id))
        found = self.backups()
        if not found:
            raise BackupProblem(f"{self.root}: holds no whole backup" + "".join(f"\n{p}" for p in self.damaged()))
        return found[-1]

    def check(self, entry: Entry) -> str | None:
        """What is wrong with the content of an entry, read in full; ``None`` when it is as it was."""
        state, size = hashlib.sha256(), 0
        try:
            with self.object(entry.sha256).open("rb") as file:
                while chunk := file.read(_CHUNK):
                    state.update(chunk)
                    size += len(chunk)
        except FileNotFoundError:
            return f"{entry.path}: its content {entry.sha256[:12]} is missing"
        if size != entry.size or state.hexdigest() != entry.sha256:
            return f"{entry.path}: its content {entry.sha256[:12]} is damaged"
        return None

    def extract(self, entry: Entry, target: Path) -> None:
        """Write the content of an entry to a new file, with its time and mode.

        Raises:
            BackupProblem: the content is missing or damaged.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        state = hashlib.sha256()
        try:
            with self.object(entry.sha256).open("rb") as file, target.open("xb") as copy:
                target.chmod(entry.mode)
                while chunk := file.read(_CHUNK):
                    state.update(chunk)
                    copy.write(chunk)
        except FileNotFoundError as error:
            raise BackupProblem(f"{entry.path}: its content {entry.sha256[:12]} is missing") from error
        if state.hexdigest() != entry.sha256:
            raise BackupProblem(f"{entry.path}: its content {entry.sha256[:12]} is damaged")
        if entry.modified:
            os.utime(target, ns=(entry.modified, entry.modified))

    # -- forgetting ---------------------------------------------------------------------------------------------------

    def forget(self, keep: int) -> tuple[int, int]:
        """Remove all but the newest ``keep`` backups and what only they held; (backups, bytes) that went."""
        gone = self.backups()[:-keep]
        for manifest in gone:
            self._manifest(manifest.backup_id).unlink()
        fsync_folder(self.root / _BACKUPS)
        if self.damaged():
            # What they hold is unknown, so nothing may go.
            return len(gone), 0
        used = {entry.sha256 for manifest in self.backups() for entry in manifest.entries}
        size = 0
        for path in self._objects.glob("*/*"):
            if path.name not in used:
                size += path.stat().st_size
                path.unlink()
        for path in self._objects.glob(".*"):
            path.unlink()
        return len(gone), size

    def _manifest(self, backup_id: str) -> Path:
        if not backup_id.replace("-", "").isalnum():
            raise BackupProblem(f"{backup_id!r} is not the name of a backup; aiops backup … --list shows them")
        return self.root / _BACKUPS / f"{backup_id}.json"


def free_bytes(folder: Path) -> int:
    """Free space of the file system that a folder is on."""
    return shutil.disk_usage(folder).free


def entries_below(entries: Iterable[Entry], prefix: str) -> list[Entry]:
    """Entries whose path begins with a folder."""
    return [entry for entry in entries if entry.path.startswith(f"{prefix}/")]


def _read_manifest(path: Path) -> Manifest:
    try:
        document = orjson.loads(path.read_bytes())
        body = document["backup"]
        if hashlib.sha256(_canonical(body)).hexdigest() != document["checksum"]:
            raise BackupProblem(f"{path}: its checksum differs, it was changed or damaged")
        return Manifest(**{**body, "entries": tuple(Entry(**entry) for entry in body["entries"])})
    except FileNotFoundError as error:
        raise BackupProblem(f"{path.parent.parent}: holds no backup {path.stem!r}; see --list") from error
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise BackupProblem(f"{path}: cannot be read: {error}") from error


def _canonical(body: Any) -> bytes:
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    fsync_folder(path.parent)
