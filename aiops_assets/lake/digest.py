"""A hash of rows that depends on the rows alone: not on their order, their files or the library that wrote them.

What belongs here: the one definition of "the same rows, byte for byte" that receipts, verification and replays share.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import xxhash


def digest(frame: pl.DataFrame, by: Sequence[str]) -> str:
    """128 bits (32 hex digits) over names, types and values of all columns, rows in order of the columns ``by``.

    ``by`` must order the rows completely (a key). Floats count by their bits; nulls, empty strings and empty lists are
    told apart.
    """
    ordered = frame.sort(by, maintain_order=True, nulls_last=False)
    state = xxhash.xxh3_128()
    for column in ordered.select(sorted(ordered.columns)).iter_columns():
        state.update(f"{column.name}:{column.dtype}:{len(column)};".encode())
        _add(state, column)
    return state.hexdigest()


def _add(state: xxhash.xxh3_128, column: pl.Series) -> None:
    if column.null_count():
        state.update(column.is_null().to_numpy().tobytes())
    if isinstance(column.dtype, pl.List):
        lengths = column.list.len().fill_null(0)
        state.update(lengths.to_numpy().tobytes())
        _add(
            state,
            column.drop_nulls().explode(empty_as_null=False)
            if lengths.sum()
            else pl.Series([], dtype=column.dtype.inner),
        )
    elif column.dtype == pl.String:
        filled = column.fill_null("")
        state.update(filled.str.len_bytes().to_numpy().tobytes())
        state.update("".join(filled.to_list()).encode())
    else:
        state.update(column.to_physical().fill_null(0).to_numpy().tobytes())
