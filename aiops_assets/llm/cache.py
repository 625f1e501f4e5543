"""Answers that were paid for, kept in the lake under the digest of their question.

One JSON file an answer: writing is atomic without a lock or a log that many processes would contend for, an answer is
found by its name alone, and what is old goes by its time of change. A Delta table would make a commit of every answer,
since none may be handed on before it is safe. What belongs here: reading, writing, pruning. What does not: what the
digest is made of (``client``), or any question: only answers are stored.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from aiops_assets.landing.writer import fsync_folder

log = logging.getLogger(__name__)

FOLDER = "_llm_cache"
_FORM = 1


@dataclass(frozen=True, slots=True)
class Stored:
    """An answer: ``content`` is the JSON text of its value, ``at`` when it came (seconds since the epoch)."""

    content: str
    model: str
    purpose: str
    prompt_tokens: int
    completion_tokens: int
    at: float
    form: int = _FORM


class AnswerCache:
    """The answers below one lake, in a folder or (through ``pyarrow.fs``) an object store."""

    def __init__(self, lake: str, max_age: float, clock: Callable[[], float] = time.time) -> None:
        self._max_age, self._clock = max_age, clock
        self._files: _Folder | _Objects = (
            _Objects(f"{lake}/{FOLDER}") if "://" in lake else _Folder(Path(lake) / FOLDER)
        )

    def get(self, digest: str) -> Stored | None:
        """The answer to a question, ``None`` when there is none, it is too old, or its file is damaged."""
        data = self._files.read(_name(digest))
        if data is None:
            return None
        try:
            document = orjson.loads(data)
            stored = Stored(**document)
            usable = stored.form == _FORM and isinstance(stored.content, str)
        except (ValueError, TypeError):
            log.warning("stored answer %s is damaged and asked for again", digest)
            return None
        return stored if usable and self._clock() - stored.at < self._max_age else None

    def put(self, digest: str, stored: Stored) -> None:
        """Keep an answer; when this returns, it survives a crash."""
        self._files.write(_name(digest), orjson.dumps(asdict(stored)))

    def prune(self, max_age: float | None = None) -> tuple[int, int]:
        """Remove answers older than ``max_age`` seconds (default: the configured age); how many went, and are left."""
        before = self._clock() - (self._max_age if max_age is None else max_age)
        gone = left = 0
        for name, changed in self._files.names():
            if changed < before:
                self._files.remove(name)
                gone += 1
            else:
                left += 1
        return gone, left


def _name(digest: str) -> str:
    return f"{digest[:2]}/{digest}.json"


class _Folder:
    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, name: str) -> bytes | None:
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        path = self._root / name
        if not path.parent.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            fsync_folder(self._root)
        descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).rename(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        fsync_folder(path.parent)

    def names(self) -> Iterator[tuple[str, float]]:
        # Parts of writes that were killed are as old as any other file and go with it.
        for path in self._root.glob("??/*"):
            try:
                yield path.relative_to(self._root).as_posix(), path.stat().st_mtime
            except FileNotFoundError:
                continue

    def remove(self, name: str) -> None:
        (self._root / name).unlink(missing_ok=True)


class _Objects:
    def __init__(self, uri: str) -> None:
        from pyarrow import fs

        self._files, self._root = fs.FileSystem.from_uri(uri)

    def read(self, name: str) -> bytes | None:
        try:
            with self._files.open_input_stream(f"{self._root}/{name}") as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        # An object appears whole or not at all; only file systems have folders that must exist before.
        from pyarrow import fs

        path = f"{self._root}/{name}"
        if isinstance(self._files, fs.LocalFileSystem):
            self._files.create_dir(path.rpartition("/")[0])
        with self._files.open_output_stream(path) as stream:
            stream.write(data)

    def names(self) -> Iterator[tuple[str, float]]:
        from pyarrow import fs

        selector: Any = fs.FileSelector(self._root, allow_not_found=True, recursive=True)
        for info in self._files.get_file_info(selector):
            if info.type == fs.FileType.File:
                yield info.path.removeprefix(f"{self._root}/"), info.mtime.timestamp()

    def remove(self, name: str) -> None:
        self._files.delete_file(f"{self._root}/{name}")
