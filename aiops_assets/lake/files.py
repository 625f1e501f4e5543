"""The files below one table, seen as files: what lies in the folder, whatever the Delta log says.

What belongs here: listing, reading and removing, in a folder or an object store. What does not: what the files mean
(``lake.log``, ``lake.verification``, ``lake.upkeep``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from aiops_assets.lake.tables import Lake

LOG = "_delta_log"
_CHUNK = 4 << 20


@dataclass(frozen=True, slots=True)
class FileInfo:
    """Bytes, and modification time in seconds since the epoch."""

    size: int
    modified: float


class TableFiles:
    """The files of one table. Paths are relative to the table and written as in its folder."""

    def __init__(self, lake: Lake, name: str) -> None:
        self.uri = lake.uri(name)
        self._options = lake.storage_options
        self.local = None if "://" in self.uri else Path(self.uri)
        self._remote_system: Any = None

    def exists(self) -> bool:
        """Whether anything of the table is there."""
        return self.local.is_dir() if self.local is not None else bool(self.log())

    def data(self) -> dict[str, FileInfo]:
        """Every Parquet file that lies in the table's folder, wanted or not; the log's own are not among them."""
        return {
            path: info
            for path, info in self._list("")
            if path.endswith(".parquet") and not path.startswith(("_", ".")) and "/." not in path and "/_" not in path
        }

    def log(self) -> dict[str, FileInfo]:
        """The files of the Delta log by name."""
        return {path.removeprefix(f"{LOG}/"): info for path, info in self._list(LOG) if path.count("/") == 1}

    def read(self, path: str) -> bytes:
        """The bytes of a file.

        Raises:
            FileNotFoundError: it is not there.
        """
        return b"".join(self.chunks(path))

    def chunks(self, path: str) -> Iterator[bytes]:
        """``read`` in pieces, for files that need not fit in memory."""
        with self.open(path) as file:
            while chunk := file.read(_CHUNK):
                yield chunk

    def open(self, path: str) -> Any:
        """A file to read from, with ``read`` and ``seek``."""
        return (self.local / path).open("rb") if self.local is not None else self._remote().open_input_file(path)

    def remove(self, path: str) -> None:
        """Delete a file; one that has gone already is fine."""
        if self.local is not None:
            (self.local / path).unlink(missing_ok=True)
        else:
            self._remote().delete_file(path)

    def put(self, path: str, content: bytes) -> None:
        """Write a file whole and durably, in the place of the one there."""
        if self.local is None:
            with self._remote().open_output_stream(path) as stream:
                stream.write(content)
            return
        target = self.local / path
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        from aiops_assets.landing.writer import fsync_folder

        fsync_folder(target.parent)

    def put_file(self, path: str, source: Path) -> None:
        """``put`` of a file that need not fit in memory, into an object store."""
        with source.open("rb") as file, self._remote().open_output_stream(path) as stream:
            while chunk := file.read(_CHUNK):
                stream.write(chunk)

    def names(self, below: str) -> list[str]:
        """Paths of all files below a folder of the table's, ``""`` for all."""
        return [path for path, _ in self._list(below)]

    def _list(self, below: str) -> Iterator[tuple[str, FileInfo]]:
        if self.local is not None:
            yield from _walk(self.local / below, self.local)
            return
        from pyarrow.fs import FileSelector, FileType

        for entry in self._remote().get_file_info(FileSelector(below, recursive=True, allow_not_found=True)):
            if entry.type == FileType.File:
                yield entry.path.lstrip("/"), FileInfo(entry.size, entry.mtime.timestamp())

    def _remote(self) -> Any:
        if self._remote_system is None:
            from deltalake.fs import DeltaStorageHandler
            from pyarrow.fs import PyFileSystem

            class Storage(DeltaStorageHandler):
                def open_output_stream(self, path: str, metadata: dict[str, str] | None = None) -> Any:
                    return _writable(self._handler.open_output_stream(path, metadata))

            self._remote_system = PyFileSystem(Storage(self.uri, self._options or None))
        return self._remote_system


def _writable(stream: Any) -> Any:
    """A stream of delta-rs for pyarrow, which hands over buffers where delta-rs (1.6) takes bytes alone."""
    import pyarrow as pa

    class Bytes:
        closed = False

        def write(self, chunk: Any) -> int:
            content = bytes(chunk)
            stream.write(content)
            return len(content)

        def flush(self) -> None:
            stream.flush()

        def close(self) -> None:
            if not self.closed:
                self.closed = True
                stream.close()

    return pa.PythonFile(Bytes(), mode="w")


def path_of(action_path: str) -> str:
    """The path of a file as it lies in the folder, from the one in the log, which is percent-encoded."""
    return unquote(action_path)


def _walk(folder: Path, root: Path) -> Iterator[tuple[str, FileInfo]]:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), root)
            else:
                stat = entry.stat()
                yield Path(entry.path).relative_to(root).as_posix(), FileInfo(stat.st_size, stat.st_mtime)
        except FileNotFoundError:
            # Removed while the folder was read: replaced log entries and temporary files are.
            continue
