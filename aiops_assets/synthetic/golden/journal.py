"""What a batch that asks a language model has come to, on disk incident by incident, so that a kill loses nothing.

What belongs here: the file, its lock, its recovery. What does not: asking (``from_model``) and the cache of answers
(``llm.cache``), which serves every purpose and may be switched off.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from aiops_assets.landing.writer import fsync_folder


class BatchBusy(Exception):
    """Another process is working on the same batch."""


class Journal:
    """Finished incidents of one batch by their number, in a file of JSON lines; one process at a time.

    Raises:
        BatchBusy: another live process has it open.
    """

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}.jsonl"
        self._file = open(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640), "r+b")  # noqa: PTH123, SIM115
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise BatchBusy(f"{self.path}: another process is asking for the same incidents; wait for it") from error
        self._done = self._recovered()
        fsync_folder(folder)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._done)

    def get(self, key: str) -> dict[str, Any] | None:
        """What was recorded under a key; ``None``: nothing yet."""
        return self._done.get(key)

    def put(self, key: str, entry: dict[str, Any]) -> None:
        """Record an entry: a kill of this process does not lose it any more, a power cut does until ``sync``."""
        self._done[key] = entry
        self._file.write(orjson.dumps({"key": key, **entry}, option=orjson.OPT_APPEND_NEWLINE))
        self._file.flush()

    def sync(self) -> None:
        """Everything that was put survives a power cut from here on."""
        os.fdatasync(self._file.fileno())

    def remove(self) -> None:
        """Forget the batch: its result has been handed over."""
        self.path.unlink(missing_ok=True)

    def _recovered(self) -> dict[str, dict[str, Any]]:
        """Whole entries; what follows the last of them was torn by a kill and is cut."""
        done: dict[str, dict[str, Any]] = {}
        whole = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            try:
                entry = orjson.loads(line)
                done[str(entry.pop("key"))] = entry
            except (ValueError, KeyError, AttributeError):
                break
            whole += len(line)
        self._file.truncate(whole)
        self._file.seek(whole)
        return done
