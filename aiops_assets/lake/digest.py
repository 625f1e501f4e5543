"""A hash of rows that depends on the rows alone: not on their order, their files or the library that wrote them.

What belongs here: the one definition of "the same rows, byte for byte" that receipts, verification and replays share.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import xxhash


def digest(frame: pl.DataFrame, by: Sequence[str]) -> str:
    """128 bits (32 hex digits) over names, types and values of all columns, rows in order of the columns ``by``.

    ``by`` must order the rows completely (a key). Floats count by their bits; nulls, empty strings and empty lists are
    told apart.
    """
    ordered = in_order(frame, by)
    state = xxhash.xxh3_128()
    for column in ordered.select(sorted(ordered.columns)).iter_columns():
        state.update(f"{column.name}:{column.dtype}:{len(column)};".encode())
        _add(state, column.rechunk())
    return state.hexdigest()


def in_order(frame: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """The frame sorted by some columns; as it is when its (at most two, whole-number) keys ascend already."""
    keys = [frame[name].to_physical() for name in by]
    if len(keys) <= 2 and all(key.dtype == pl.Int64 and not key.null_count() for key in keys):
        rises = np.zeros(max(frame.height - 1, 0), bool)
        for key in reversed(keys):
            values = key.to_numpy()
            rises = (values[1:] > values[:-1]) | ((values[1:] == values[:-1]) & rises)
        if rises.all():
            return frame
    return frame.sort(by, maintain_order=True, nulls_last=False)


def _add(state: xxhash.xxh3_128, column: pl.Series) -> None:
    if column.null_count():
        state.update(column.is_null().to_numpy().tobytes())
    if isinstance(column.dtype, pl.List):
        lengths = column.list.len().fill_null(0)
        state.update(lengths.to_numpy().tobytes())
        if lengths.sum():
            _add(state, column.drop_nulls().explode(empty_as_null=False).rechunk())
    elif column.dtype == pl.String:
        filled = column.fill_null("")
        state.update(filled.str.len_bytes().to_numpy().tobytes())
        if len(filled):
            state.update(_text(filled))
    else:
        state.update(column.to_physical().fill_null(0).to_numpy().tobytes())


def _text(column: pl.Series) -> memoryview:
    """The bytes of all strings, one after the other."""
    array = column.to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offsets, data = array.buffers()
    if data is None:
        return memoryview(b"")
    bounds = np.frombuffer(offsets, np.int64)
    return memoryview(data)[int(bounds[array.offset]) : int(bounds[array.offset + len(array)])]
