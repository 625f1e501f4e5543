"""What a stream of golden incidents holds, as one hash: the same whatever the file format and the size of its pieces.

What belongs here: the running hash over frames and the code version that exports name. What does not: hashes of files.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl

from aiops_assets.synthetic.golden.record import SCHEMA


class ContentHash:
    """SHA-256 over names, types and values of rows in their order, fed frame by frame.

    Every column has its own running hashes of validity, lengths and bytes, so that where one frame ends and the next
    begins leaves no trace. Floats count by their bits; null, the empty text and the empty list are told apart.
    """

    def __init__(self) -> None:
        self._parts: dict[str, hashlib._Hash] = {}
        self.rows = 0

    def add(self, frame: pl.DataFrame) -> None:
        """Take the rows of a frame of ``SCHEMA``."""
        self.rows += frame.height
        for column in frame.iter_columns():
            self._take(column.name, column)

    def hexdigest(self) -> str:
        """64 hex digits for everything taken so far."""
        whole = hashlib.sha256(f"{self.rows};".encode())
        for name in sorted(self._parts):
            whole.update(f"{name};".encode() + self._parts[name].digest())
        return whole.hexdigest()

    def _update(self, name: str, data: bytes | memoryview) -> None:
        if name not in self._parts:
            self._parts[name] = hashlib.sha256()
        self._parts[name].update(data)

    def _take(self, name: str, column: pl.Series) -> None:
        column = column.rechunk()
        self._update(f"{name}/null", column.is_null().to_numpy().tobytes())
        if isinstance(column.dtype, pl.List):
            self._update(f"{name}/length", column.list.len().fill_null(0).to_numpy().tobytes())
            self._take(f"{name}/item", column.drop_nulls().explode(empty_as_null=False))
        elif isinstance(column.dtype, pl.Struct):
            for field in column.struct.fields:
                self._take(f"{name}/{field}", column.struct.field(field))
        elif column.dtype == pl.String:
            filled = column.fill_null("")
            self._update(f"{name}/length", filled.str.len_bytes().to_numpy().tobytes())
            if len(filled):
                self._update(f"{name}/text", _text(filled))
        else:
            self._update(f"{name}/{column.dtype}", column.to_physical().fill_null(0).to_numpy().tobytes())


def _text(column: pl.Series) -> memoryview:
    """The bytes of all strings, one after the other."""
    array = column.to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offsets, data = array.buffers()
    if data is None:
        return memoryview(b"")
    bounds = np.frombuffer(offsets, np.int64)
    return memoryview(data)[int(bounds[array.offset]) : int(bounds[array.offset + len(array)])]


def content_hash(frame: pl.DataFrame) -> str:
    """The hash of one whole frame of ``SCHEMA``."""
    taken = ContentHash()
    taken.add(frame.select(list(SCHEMA)))
    return taken.hexdigest()


@cache
def code_version() -> str:
    """12 hex digits that change when the code or the language data of golden incidents does."""
    folder = Path(__file__).parent
    hashed = hashlib.blake2b(digest_size=6)
    for path in sorted(path for path in folder.rglob("*") if path.suffix in {".py", ".yaml", ".json"}):
        hashed.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return hashed.hexdigest()
