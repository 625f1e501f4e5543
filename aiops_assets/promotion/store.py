"""The files of versions: written once, named by their contents, read back against their hashes.

Layout, below ``<lake>/_registry``::

    <thing>/<version>/…              the files, read only
    <thing>/<version>/manifest.json  {"checksum": SHA-256 of the canonical JSON of "manifest", "manifest": {…}}
    <thing>/.work-…, .staging-…      of a process that is making a version, or was killed while it did
    .lock                            held while a row is appended

A version is the SHA-256 of what ``sha256sum`` prints for its files in the order of their paths. A folder gets its name
by one rename when all in it is durable, so a half-written version has no name; what killed processes left is removed by
the next ``put`` of the same thing and by lake care (``sweep``). What belongs here: folders and hashes. What does not:
rows, gates and pointers (``registry``).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import orjson
from ulid import ULID

from aiops_assets.landing.writer import fsync_folder
from aiops_assets.promotion.pickles import pickled
from aiops_assets.promotion.problems import FileRefused, RegistryProblem, VersionDamaged, VersionUnknown
from aiops_assets.promotion.ustar import LONGEST_NAME

FOLDER, MANIFEST = "_registry", "manifest.json"
FORMAT = 1
KINDS = ("dataset", "model", "forecaster")
#: what a process left behind is removed when it is this old and no process holds it
ABANDONED_SECONDS = 3600.0
_THING = re.compile(r"[a-z][a-z0-9_]{0,63}")
_VERSION = re.compile(r"[0-9a-f]{64}")
_CHUNK = 4 << 20
_LONGEST_MANIFEST = 64 << 20


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of a version; ``path`` is relative, with slashes, ``size`` in bytes."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that is recorded of a version; ``created_at`` in microseconds since the epoch (UTC).

    ``gates`` are the blocking gates that it has to pass, ``publisher`` names the function that publishes it.
    """

    thing: str
    kind: str
    version: str
    created_at: int
    inputs: Mapping[str, Any]
    metrics: Mapping[str, float | None]
    files: tuple[FileEntry, ...]
    rows: int | None = None
    gates: tuple[str, ...] = ()
    publisher: str | None = None
    run_id: str | None = None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)

    def document(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Draft:
    """What is told of a version before its files have been hashed; see ``Manifest``."""

    thing: str
    kind: str
    created_at: int
    inputs: Mapping[str, Any]
    metrics: Mapping[str, float]
    rows: int | None = None
    gates: Sequence[str] = ()
    publisher: str | None = None
    run_id: str | None = None


@dataclass(slots=True)
class Swept:
    """What was removed (or would be), and how many folders are in use or too young."""

    removed: int = 0
    size: int = 0
    waiting: int = 0
    paths: list[str] = field(default_factory=list)


class VersionStore:
    """Versions below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, draft: Draft, source: Path) -> Manifest:
        """Keep the files of a folder as a version; its manifest, or that of the same contents if they are kept already.

        Raises:
            FileRefused: a file is a pickle or a link, or has a name that is not taken; nothing is kept.
        """
        thing = check_thing(draft.thing)
        if draft.kind not in KINDS:
            raise RegistryProblem(f"{thing}: kind {draft.kind!r} is not one of {', '.join(KINDS)}")
        self.sweep(thing)
        with self.working(thing, ".staging-") as staging:
            entries = [_copy(source, path, staging) for path in _listed(source)]
            manifest = Manifest(
                thing,
                draft.kind,
                version_of(entries),
                draft.created_at,
                _plain(draft.inputs),
                _plain(draft.metrics),
                tuple(entries),
                draft.rows,
                tuple(draft.gates),
                draft.publisher,
                draft.run_id,
            )
            return self._place(manifest, staging)

    def put_as_is(self, manifest: Manifest, source: Path) -> Manifest:
        """Keep files under a manifest that was made elsewhere (an archive); the files must be those it names.

        Raises:
            VersionDamaged: they are not.
        """
        check_thing(manifest.thing)
        with self.working(manifest.thing, ".staging-") as staging:
            copy_files(manifest, source, staging)
            return self._place(manifest, staging)

    def manifest(self, thing: str, version: str) -> Manifest | None:
        """What is recorded of a version; ``None`` when there is none.

        Raises:
            VersionDamaged: the manifest cannot be read.
        """
        if not _VERSION.fullmatch(version):
            return None
        path = self.folder(thing, version) / MANIFEST
        try:
            return read_manifest(path.read_bytes(), str(path))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def folder(self, thing: str, version: str) -> Path:
        """Where the files of a version lie."""
        return self.root / check_thing(thing) / version

    def things(self) -> list[str]:
        """Everything that has a folder, in order."""
        return sorted(path.name for path in _folders(self.root) if _THING.fullmatch(path.name))

    def versions(self, thing: str) -> list[str]:
        """Names of all version folders of a thing, in no meaningful order."""
        return sorted(path.name for path in _folders(self.root / thing) if _VERSION.fullmatch(path.name))

    def problems(self, manifest: Manifest) -> list[str]:
        """What is wrong with a version's files, a line each; every byte is read."""
        folder = self.folder(manifest.thing, manifest.version)
        found = []
        for entry in manifest.files:
            path = folder / entry.path
            try:
                digest, size = _hash(path)
            except (FileNotFoundError, NotADirectoryError):
                found.append(f"{path}: missing")
                continue
            if (digest, size) != (entry.sha256, entry.size):
                found.append(f"{path}: damaged (its SHA-256 is {digest[:12]}…, the manifest says {entry.sha256[:12]}…)")
        extra = {path.as_posix() for path in _relative(folder)} - {entry.path for entry in manifest.files} - {MANIFEST}
        return found + [f"{folder / path}: does not belong to the version" for path in sorted(extra)]

    @contextlib.contextmanager
    def working(self, thing: str | None, prefix: str = ".work-") -> Iterator[Path]:
        """An empty folder beside the versions of a thing (or all things), which goes afterwards.

        Others see that it is in use, by a lock that ends with the process.
        """
        parent = self.root if thing is None else self.root / check_thing(thing)
        parent.mkdir(parents=True, exist_ok=True)
        folder = parent / f"{prefix}{ULID()}"
        folder.mkdir(mode=0o750)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield folder
        finally:
            os.close(descriptor)
            if folder.exists():
                shutil.rmtree(folder)

    def sweep(self, thing: str | None = None, *, dry_run: bool = False, seconds: float = ABANDONED_SECONDS) -> Swept:
        """Remove what killed processes left: hidden folders that nobody holds and that are old enough."""
        outcome = Swept()
        everywhere = [self.root, *(self.root / name for name in self.things())]
        for parent in everywhere if thing is None else [self.root / thing]:
            for folder in _folders(parent):
                if not folder.name.startswith("."):
                    continue
                try:
                    if _held(folder) or time.time() - folder.stat().st_mtime < seconds:
                        outcome.waiting += 1
                        continue
                    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
                    if not dry_run:
                        shutil.rmtree(folder)
                except FileNotFoundError:
                    # Finished, or swept by somebody else, since the folder was read.
                    continue
                outcome.removed += 1
                outcome.size += size
                outcome.paths.append(str(folder))
        return outcome

    def _place(self, manifest: Manifest, staging: Path) -> Manifest:
        target = self.folder(manifest.thing, manifest.version)
        kept = self._whole(target, manifest)
        if kept is not None:
            return kept
        with (staging / MANIFEST).open("wb") as file:
            file.write(manifest_bytes(manifest))
            file.flush()
            os.fchmod(file.fileno(), 0o440)
            os.fsync(file.fileno())
        for folder in {staging, *(path for path in staging.rglob("*") if path.is_dir())}:
            fsync_folder(folder)
        while True:
            try:
                staging.rename(target)
            except OSError:
                if not target.exists():
                    raise
                # Somebody else kept the same contents meanwhile, or what is there is damaged.
                kept = self._whole(target, manifest)
                if kept is not None:
                    return kept
                target.rename(target.with_name(f".damaged-{ULID()}"))
                continue
            fsync_folder(target.parent)
            fsync_folder(self.root)
            return manifest

    def _whole(self, target: Path, manifest: Manifest) -> Manifest | None:
        try:
            kept = self.manifest(manifest.thing, manifest.version)
        except VersionDamaged:
            return None
        return kept if kept is not None and target.exists() and not self.problems(kept) else None


def copy_files(manifest: Manifest, source: Path, staging: Path) -> None:
    """Copy the files of a manifest durably from one folder to another.

    Raises:
        VersionDamaged: the folder has others, or they differ.
    """
    entries = [_copy(source, path, staging) for path in _listed(source)]
    if tuple(entries) != manifest.files or version_of(entries) != manifest.version:
        raise VersionDamaged(f"{manifest.thing} {manifest.version[:12]}: the files are not those of its manifest")


def check_thing(name: str) -> str:
    """A name that can be a folder, an asset and a row.

    Raises:
        VersionUnknown: it cannot.
    """
    if not _THING.fullmatch(name):
        raise VersionUnknown(f"{name!r} names no promoted thing: lower-case letters, digits and '_', at most 64")
    return name


def check_path(path: str) -> str:
    """The path of a file in a version: relative, without '..', hidden parts or control characters.

    Raises:
        FileRefused: it is anything else.
    """
    parts = path.split("/")
    plain = path.isprintable() and "\\" not in path and len(path.encode()) <= LONGEST_NAME
    if not plain or PurePosixPath(path).is_absolute() or any(not part or part.startswith(".") for part in parts):
        raise FileRefused(
            f"{path!r}: a file of a version has a relative, printable path without hidden parts, of at most "
            f"{LONGEST_NAME} bytes"
        )
    if path == MANIFEST:
        raise FileRefused(f"{path}: is the name of the registry's own file; give yours another one")
    return path


def version_of(entries: Sequence[FileEntry]) -> str:
    """The name of contents: SHA-256 over ``<sha256>  <path>`` lines in the order of the paths."""
    lines = "".join(f"{entry.sha256}  {entry.path}\n" for entry in sorted(entries, key=lambda entry: entry.path))
    return hashlib.sha256(lines.encode()).hexdigest()


def manifest_bytes(manifest: Manifest) -> bytes:
    """The manifest as it is written."""
    body = {"format": FORMAT, **manifest.document()}
    return orjson.dumps({"checksum": _checksum(body), "manifest": body}, option=orjson.OPT_SORT_KEYS)


def read_manifest(content: bytes, where: str) -> Manifest:
    """A manifest from its bytes; ``where`` names them in errors.

    Raises:
        VersionDamaged: they are no manifest, or were changed.
    """
    try:
        if len(content) > _LONGEST_MANIFEST:
            raise ValueError(f"{len(content):,} bytes")
        document = orjson.loads(content)
        body = document["manifest"]
        if _checksum(body) != document["checksum"]:
            raise VersionDamaged(f"{where}: its checksum differs, it was changed or damaged")
        if body.pop("format") != FORMAT:
            raise VersionDamaged(f"{where}: is of another format; this version reads format {FORMAT}")
        files = tuple(FileEntry(check_path(entry["path"]), entry["sha256"], entry["size"]) for entry in body["files"])
        manifest = Manifest(**{**body, "files": files, "gates": tuple(body["gates"])})
        check_thing(manifest.thing)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise VersionDamaged(f"{where}: is no manifest of a version ({error})") from error
    if version_of(files) != manifest.version:
        raise VersionDamaged(f"{where}: its files do not come to version {manifest.version[:12]}")
    return manifest


def _checksum(body: Any) -> str:
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _plain(value: Any) -> Any:
    """As JSON gives it back, so that what is recorded and what is read are equal."""
    return orjson.loads(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY))


def _listed(source: Path) -> list[str]:
    found = []
    for path in _relative(source):
        if (source / path).is_symlink() or not (source / path).is_file():
            raise FileRefused(f"{source / path}: is no ordinary file; a version has files only")
        found.append(check_path(path.as_posix()))
    if not found:
        raise FileRefused(f"{source}: holds no file; a version has at least one")
    return sorted(found)


def _relative(folder: Path) -> list[Path]:
    return [path.relative_to(folder) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]


def _copy(source: Path, relative: str, staging: Path) -> FileEntry:
    target = staging / relative
    target.parent.mkdir(parents=True, exist_ok=True)
    state, size = hashlib.sha256(), 0
    with (source / relative).open("rb") as file, target.open("xb") as copy:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
            size += len(chunk)
            copy.write(chunk)
        copy.flush()
        os.fchmod(copy.fileno(), 0o440)
        os.fsync(copy.fileno())
    if reason := pickled(target):
        raise FileRefused(
            f"{source / relative}: {reason}; pickles run code when they are loaded and are never kept: "
            "write JSON, Parquet, plain arrays or skops"
        )
    return FileEntry(relative, state.hexdigest(), size)


def _hash(path: Path) -> tuple[str, int]:
    state, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
            size += len(chunk)
    return state.hexdigest(), size


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and not path.is_symlink())
    except FileNotFoundError:
        return []


def _held(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
