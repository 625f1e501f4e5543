"""What one hour hands over to the next: the state of rules, detectors and open alerts, by series_id.

What belongs here: the state as a value: its hash, its file, joining two of them. What does not: how state comes about
(``judge``) and which hours need which (``receipts``). Arrays and JSON only, never pickled.

The **hash** depends on what was learnt, not on the numbers that series happen to have in a process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from aiops_assets.landing.writer import fsync_folder

Entries = dict[str, NDArray[Any]]
VERSION = 2
_SUFFIX = ".state.zst"
_LENGTH = 8
_CHECKSUM = 16


@dataclass(frozen=True, slots=True)
class HandOver:
    """``parts``: name → arrays whose last axis is ``series_id`` (``coverage`` has none). ``document``: JSON values.

    ``document`` holds ``config`` (digest of the judgement), ``detector`` (its version), ``open`` and ``closed``
    (alerts) and ``learnt`` (hour → baseline version that the seasonal profile has taken in).
    """

    parts: Mapping[str, Entries] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict)
    _hash: list[str] = field(default_factory=list, compare=False, repr=False)

    def digest(self) -> str:
        """128 bits (32 hex digits) over everything; computed once."""
        if not self._hash:
            self._hash.append(self._digest())
        return self._hash[0]

    def _digest(self) -> str:
        state = xxhash.xxh3_128(orjson.dumps(self.document, option=orjson.OPT_SORT_KEYS))
        for part in sorted(self.parts):
            for name, array in sorted(self.parts[part].items()):
                state.update(f"{part}/{name}:{array.dtype}:{array.shape};".encode())
                state.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
        return state.hexdigest()


def merged(base: HandOver, other: HandOver) -> HandOver:
    """Series by series the state that has seen the later point; where they are equal, that of ``other``.

    Both must be of the same rules and detector version.

    Raises:
        ValueError: they are not.
    """
    if not base.parts:
        return other
    if not other.parts:
        return base
    if any(base.document[name] != other.document[name] for name in ("config", "detector")):
        raise ValueError("states of different rules or detector versions cannot be joined")
    seen, newer = base.parts["seen"], other.parts["seen"]
    place = np.searchsorted(seen["series_id"], newer["series_id"])
    inside = np.minimum(place, max(len(seen["series_id"]) - 1, 0))
    known = (place < len(seen["series_id"])) & (
        seen["series_id"][inside] == newer["series_id"] if len(seen["series_id"]) else np.zeros(len(place), bool)
    )
    before = np.full(len(place), np.iinfo(np.int64).min)
    before[known] = seen["last"][inside[known]]
    taken = newer["series_id"][newer["last"] >= before]
    parts = {
        name: _reached_further(base.parts[name], other.parts[name])
        if name == "coverage"
        else _joined(base.parts[name], other.parts[name], taken)
        for name in base.parts
    }
    chosen = set(taken.tolist())
    document = dict(base.document)
    document["open"] = sorted(
        [entry for entry in base.document["open"] if entry["series_id"] not in chosen]
        + [entry for entry in other.document["open"] if entry["series_id"] in chosen],
        key=lambda entry: entry["fingerprint"],
    )
    closed = {key: entry for key, entry in base.document["closed"].items() if entry["series_id"] not in chosen}
    closed |= {key: entry for key, entry in other.document["closed"].items() if entry["series_id"] in chosen}
    document["closed"] = closed
    learnt = dict(base.document["learnt"])
    for hour, version in other.document["learnt"].items():
        learnt[hour] = max(version, learnt.get(hour, 0))
    document["learnt"] = learnt
    return HandOver(parts, document)


def _reached_further(base: Entries, other: Entries) -> Entries:
    return other if other["coverage_reached"][0] > base["coverage_reached"][0] else base


def _joined(base: Entries, other: Entries, taken: NDArray[np.int64]) -> Entries:
    """Entries of ``other`` for the series ``taken``, of ``base`` for all others, by ascending series_id."""
    kept = ~np.isin(base["series_id"], taken)
    added = np.isin(other["series_id"], taken)
    ids = np.concatenate([base["series_id"][kept], other["series_id"][added]])
    order = np.argsort(ids, kind="stable")
    axis = {name: _series_axis(name, array) for name, array in base.items()}
    return {
        name: np.take(
            np.concatenate(
                [np.compress(kept, array, axis[name]), np.compress(added, other[name], axis[name])], axis[name]
            ),
            order,
            axis[name],
        )
        for name, array in base.items()
    }


def _series_axis(name: str, array: NDArray[Any]) -> int:
    """Profiles have the series first, everything else last."""
    return 0 if name in {"weekly", "daily"} else array.ndim - 1


_BEGINNING = "begun_after"


def read_beginning(folder: Path) -> str | None:
    """The newest hour that was closed before there were receipts ("": none); ``None`` before anything began."""
    try:
        return (folder / _BEGINNING).read_text("utf-8").strip()
    except FileNotFoundError:
        return None


def write_beginning(folder: Path, hour: str) -> None:
    """Write down where receipts begin."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{_BEGINNING}.{os.getpid()}"
    temporary.write_text(hour, "utf-8")
    temporary.replace(folder / _BEGINNING)


def save(path: Path, state: HandOver) -> None:
    """Write a state whole or not at all (temporary file, fsync, rename).

    The file is the length of what follows (8 bytes, little-endian) and one Zstandard frame of it: the length of a JSON
    head (8 bytes), the head, the bytes of its arrays in the order that it lists them (name, dtype, shape), and the
    XXH3-128 of all that (16 bytes).
    """
    arrays = {
        f"{part}/{name}": np.ascontiguousarray(array)
        for part, entries in sorted(state.parts.items())
        for name, array in sorted(entries.items())
    }
    listed = [[name, array.dtype.str, array.shape] for name, array in arrays.items()]
    head = orjson.dumps({"version": VERSION, "arrays": listed, "document": state.document}, option=orjson.OPT_SORT_KEYS)
    pieces = [
        len(head).to_bytes(_LENGTH, "little"),
        head,
        *(array.data.cast("B") if array.size else b"" for array in arrays.values()),
    ]
    checksum = xxhash.xxh3_128()
    for piece in pieces:
        checksum.update(piece)
    content = b"".join([*pieces, checksum.digest()])
    packed = pa.Codec("zstd", 1).compress(content, asbytes=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(len(content).to_bytes(_LENGTH, "little"))
            file.write(packed)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


def load(path: Path) -> HandOver:
    """Read a state.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is damaged or was written in another format.
    """
    packed = path.read_bytes()
    try:
        size = int.from_bytes(packed[:_LENGTH], "little")
        content = pa.Codec("zstd").decompress(packed[_LENGTH:], size, asbytes=True)
        start = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
        head = orjson.loads(content[_LENGTH:start])
        if head["version"] != VERSION:
            raise ValueError(f"it has version {head['version']}, this code reads version {VERSION}")
        if xxhash.xxh3_128_digest(memoryview(content)[:-_CHECKSUM]) != content[-_CHECKSUM:]:
            raise ValueError("its checksum does not match")
        parts: dict[str, Entries] = {}
        for name, dtype, shape in head["arrays"]:
            part, _, entry = name.partition("/")
            count = int(np.prod(shape))
            array = np.frombuffer(content, dtype, count, start).reshape(shape) if count else np.empty(shape, dtype)
            parts.setdefault(part, {})[entry] = array
            start += array.nbytes
        return HandOver(parts, head["document"])
    except (OSError, KeyError, IndexError, TypeError, ValueError, OverflowError, MemoryError) as error:
        raise ValueError(f"{path}: not a readable hand-over state: {error}") from error


class Shelf:
    """The states on disk: ``<hour>.<revision>.state.zst`` in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, hour: str, revision: int, state: HandOver) -> None:
        """Store the state at the end of an hour, as a revision of it left it."""
        save(self._path(hour, revision), state)

    def get(self, hour: str, revision: int) -> HandOver | None:
        """The state at the end of an hour; ``None`` when it is not kept (any more) or cannot be read."""
        try:
            return load(self._path(hour, revision))
        except (FileNotFoundError, ValueError):
            return None

    def kept(self) -> list[tuple[str, int]]:
        """(hour, revision) of all states, ascending."""
        found = []
        for path in self.folder.glob(f"*{_SUFFIX}"):
            hour, _, revision = path.name.removesuffix(_SUFFIX).rpartition(".")
            if hour and revision.isdigit():
                found.append((hour, int(revision)))
        return sorted(found)

    def drop(self, hour: str, revision: int) -> None:
        """Remove a state."""
        self._path(hour, revision).unlink(missing_ok=True)

    def _path(self, hour: str, revision: int) -> Path:
        return self.folder / f"{hour}.{revision}{_SUFFIX}"
