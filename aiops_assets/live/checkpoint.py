"""The state of a live session on disk: arrays and plain JSON, written whole, never pickled.

A checkpoint holds everything that the next micro-batch depends on, with the ingest positions it was taken at, so that a
successor continues as if nothing had happened. A missing or damaged one costs time (state is rebuilt from the lake),
never data.
"""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from aiops_assets.landing.writer import fsync_folder

log = logging.getLogger(__name__)

VERSION = 1
_KEPT = 2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """``engines``: engine name → array name → array. ``document``: JSON-able rest."""

    engines: Mapping[str, Mapping[str, NDArray[Any]]] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict)


def save(folder: Path, number: int, checkpoint: Checkpoint) -> None:
    """Write checkpoint ``number`` atomically and forget all but the newest two."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        f"{engine}/{name}": array for engine, state in checkpoint.engines.items() for name, array in state.items()
    }
    document = orjson.dumps({"version": VERSION, **checkpoint.document}, option=orjson.OPT_SERIALIZE_NUMPY)
    temporary = folder / f".{number}.{os.getpid()}"
    try:
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, __document__=np.frombuffer(document, np.uint8), **arrays)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(_path(folder, number))
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(folder)
    for path in _newest_first(folder)[_KEPT:]:
        path.unlink(missing_ok=True)


def load_newest(folder: Path) -> tuple[int, Checkpoint] | None:
    """The newest readable checkpoint and its number; ``None`` when there is none."""
    for path in _newest_first(folder):
        try:
            with np.load(path, allow_pickle=False) as archive:
                document = orjson.loads(archive["__document__"].tobytes())
                if document.pop("version") != VERSION:
                    log.warning("%s: written by another version, state is rebuilt from the lake", path)
                    continue
                engines: dict[str, dict[str, NDArray[Any]]] = {}
                for name in archive.files:
                    engine, _, array = name.partition("/")
                    if array:
                        engines.setdefault(engine, {})[array] = archive[name]
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            log.warning("%s: cannot be read (%s), an older state is used", path, error)
            continue
        return int(path.stem), Checkpoint(engines, document)
    return None


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:012d}.npz"


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.npz"), reverse=True)
