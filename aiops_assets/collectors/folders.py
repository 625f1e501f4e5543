"""Document folders: which files are new, changed or gone, and their bytes as they are.

What belongs here: scanning, one ``stat`` for a file that did not change, reading within bounds. What does not: what the
bytes mean (``formats.documents``).

A file is known by its place in the folder, and unchanged while its time of change and its size are. Its state moves
only when its bytes are durable. Hidden files and folders are left out; a symbolic link counts when it leads to a file
within the folder, and no link to a folder is followed. A file that is gone at two scans in a row is removed; a folder
that is not there, cannot be read or lies on another file system than before removes nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from aiops_assets.collectors.document import Fetched, Poll, point
from aiops_assets.config import Folder
from aiops_assets.formats.documents import MEDIA_TYPES

FORMAT = "documents"
#: a turn gives at most about so many bytes, and at least one file
MAX_TURN_BYTES = 16 * 1024 * 1024
DEADLINE_SECONDS = 60.0
#: no more files than this are watched
MAX_FILES = 200_000
#: what was read is not read again for so long while the landing zone takes nothing (seconds)
DURABLE_PATIENCE = 600.0
_VERSION = 1
_NAMED = 3

#: (microseconds of the last change, size in bytes)
Stamp = tuple[int, int]


@dataclass(slots=True)
class Scan:
    """What a folder holds: by place in it, the real path and the stamp of each file."""

    files: dict[str, tuple[str, Stamp]] = field(default_factory=dict)
    #: folders that could not be read, with a slash at the end; "" for the root
    unreadable: list[str] = field(default_factory=list)
    too_large: list[str] = field(default_factory=list)
    device: int = 0
    too_many: bool = False


class FolderPoller:
    """Watches one folder. ``poll`` never raises for what the folder does wrong."""

    kind = "folder"
    deadline = DEADLINE_SECONDS

    def __init__(self, folder: Folder, state: Mapping[str, Any] | None) -> None:
        self.name = self.source = folder.name
        self.interval = folder.interval
        self._folder = folder
        self._matches = _pattern(folder.pattern)
        saved = dict(state or {})
        fits = saved.get("version") == _VERSION and saved.get("path") == folder.path
        self._device: int | None = saved.get("device") if fits else None
        #: never changed in place, because what is handed out as state is compared with it
        self._files: dict[str, list[int]] = dict(saved.get("files") or {}) if fits else {}
        self._missing: frozenset[str] = frozenset()
        self._turn = 0
        self._waiting: tuple[int, float] | None = None

    def state(self) -> dict[str, Any]:
        """The stamps of all files that were delivered."""
        return {"version": _VERSION, "path": self._folder.path, "device": self._device, "files": self._files}

    def close(self) -> None:
        """Nothing is held."""

    async def poll(self) -> Poll:
        """Scan, and read what is new or changed as far as time and bytes allow."""
        if self._waiting is not None:
            age = time.monotonic() - self._waiting[1]
            if age < DURABLE_PATIENCE:
                return Poll(up=True, error=f"what was read {age:.0f} s ago is not durable yet; nothing more till then")
        self._turn += 1
        until = time.monotonic() + 0.9 * self.deadline
        return await asyncio.to_thread(self._poll, until, self._turn)

    def _poll(self, until: float, turn: int) -> Poll:
        root = Path(self._folder.path)
        try:
            scan = scanned(root, self._matches, self._folder.max_bytes)
        except OSError as error:
            return Poll(error=f"{root}: {error.strerror or error}")
        gone = [path for path in self._files if path not in scan.files and not _within(path, scan.unreadable)]
        if gone and not scan.files and self._device not in {None, scan.device}:
            return Poll(error=f"{root}: empty, and on another file system than before; is it mounted?")
        outcome = Poll(up=True, points=[point("aiops.folder.documents", len(scan.files), "{document}")])
        problems = _problems(scan, self._folder.max_bytes)
        moved: dict[str, list[int] | None] = {}
        size = 0
        for path, (real, stamp) in sorted(scan.files.items()):
            if self._files.get(path) == list(stamp):
                continue
            if size >= MAX_TURN_BYTES or time.monotonic() > until:
                problems.append("more files wait to be read; the next turn goes on")
                break
            try:
                body = _read(real, stamp)
            except OSError as error:
                problems.append(f"{path}: {error.strerror or error}")
                continue
            if body is None:
                # It is being written: the next turn finds another stamp.
                continue
            size += len(body)
            outcome.fetched.append(self._fetched(path, body, stamp[0]))
            moved[path] = list(stamp)
        confirmed = [path for path in gone if path in self._missing]
        self._missing = frozenset(gone)
        for path in confirmed:
            outcome.fetched.append(self._fetched(path, b"", time.time_ns() // 1000, removed=True))
            moved[path] = None
        outcome.error = "; ".join(problems) or None
        if outcome.fetched:
            self._waiting = (turn, time.monotonic())
        outcome.delivered = self._moves(turn, moved, scan.device)
        return outcome

    def _moves(self, turn: int, moved: Mapping[str, list[int] | None], device: int) -> Callable[[], None]:
        def delivered() -> None:
            if turn == self._turn:
                kept = {**self._files, **{path: stamp for path, stamp in moved.items() if stamp is not None}}
                if moved:
                    self._files = {path: stamp for path, stamp in kept.items() if moved.get(path, stamp) is not None}
                self._device = device
            if self._waiting is not None and self._waiting[0] == turn:
                self._waiting = None

        return delivered

    def _fetched(self, path: str, body: bytes, modified: int, *, removed: bool = False) -> Fetched:
        media = MEDIA_TYPES[PurePosixPath(path).suffix.lower()]
        headers = {
            "folder": self.name,
            "path": path,
            "uri": (Path(self._folder.path).absolute() / path).as_uri(),
            "media-type": media,
            "modified": str(modified),
        }
        if removed:
            headers["removed"] = "true"
        digest = hashlib.sha256(f"{self.name}\0{path}\0{modified}\0{removed}\0".encode("utf-8", "surrogateescape"))
        digest.update(body)
        return Fetched(body, FORMAT, media, digest.hexdigest()[:32], headers)


def scanned(root: Path, matches: Callable[[str], bool], max_bytes: int) -> Scan:
    """What is in a folder now.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    scan = Scan()
    top = os.path.realpath(root)
    scan.device = os.stat(top).st_dev  # noqa: PTH116
    for path, entry in _walk(top, "", scan):
        if PurePosixPath(path).suffix.lower() not in MEDIA_TYPES or not matches(path):
            continue
        if not _is_text(path):
            scan.unreadable.append(ascii(path))
            continue
        found = _stamp(entry, top)
        if found is None:
            continue
        real, stamp = found
        if stamp[1] > max_bytes:
            scan.too_large.append(path)
        elif len(scan.files) >= MAX_FILES:
            scan.too_many = True
            break
        else:
            scan.files[path] = (real, stamp)
    return scan


def _walk(folder: str, prefix: str, scan: Scan) -> Iterator[tuple[str, os.DirEntry[str]]]:
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except OSError:
        if not prefix:
            raise
        scan.unreadable.append(prefix)
        return
    for entry in found:
        if entry.name.startswith((".", "~$")) or entry.name.endswith(("~", ".tmp", ".swp")):
            continue
        try:
            is_folder = entry.is_dir(follow_symlinks=False)
        except OSError:
            scan.unreadable.append(f"{prefix}{entry.name}")
            continue
        if is_folder:
            yield from _walk(entry.path, f"{prefix}{entry.name}/", scan)
        else:
            yield f"{prefix}{entry.name}", entry


def _stamp(entry: os.DirEntry[str], top: str) -> tuple[str, Stamp] | None:
    """Real path and stamp of a regular file, also behind a link that stays within the folder."""
    try:
        path = entry.path
        found = entry.stat(follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            path = os.path.realpath(path)
            if not path.startswith(f"{top}{os.sep}"):
                return None
            found = os.stat(path, follow_symlinks=False)  # noqa: PTH116
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return path, (found.st_mtime_ns // 1000, found.st_size)


def _read(path: str, stamp: Stamp) -> bytes | None:
    """The bytes of a file, ``None`` when it changes while it is read.

    Raises:
        OSError: it cannot be read, or has become a link.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode) or (before.st_mtime_ns // 1000, before.st_size) != stamp:
            return None
        body = file.read(stamp[1] + 1)
        after = os.fstat(file.fileno())
    return body if (after.st_mtime_ns // 1000, len(body)) == stamp else None


def _is_text(path: str) -> bool:
    """Whether a name is UTF-8; others cannot be written down."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _problems(scan: Scan, max_bytes: int) -> list[str]:
    problems = []
    if scan.unreadable:
        problems.append(f"cannot be read: {_some(scan.unreadable)}")
    if scan.too_large:
        problems.append(f"larger than {max_bytes} bytes ('max_bytes'): {_some(scan.too_large)}")
    if scan.too_many:
        problems.append(f"more than {MAX_FILES} files; narrow 'pattern'")
    return problems


def _some(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"


def _within(path: str, folders: list[str]) -> bool:
    return any(path == folder or (folder.endswith("/") and path.startswith(folder)) for folder in folders)


def _pattern(glob: str) -> Callable[[str], bool]:
    """Whether a place in the folder fits a glob: ``**/`` any folders, ``*`` and ``?`` within a name."""
    expression = ""
    for part in re.split(r"(\*\*/|\*\*|\*|\?)", glob.removeprefix("./")):
        expression += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part))
    compiled = re.compile(expression)
    return lambda path: compiled.fullmatch(path) is not None
