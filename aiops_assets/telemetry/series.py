"""The dictionary of series: dense numbers for computing, stable hashes for storing.

Every distinct (host, metric, labels) is a series. Its ``series_id`` is XXH3-64 of the three texts, joined by NUL, as a
signed 64-bit integer (Delta has no unsigned one). Its number counts from 0 in the order of discovery and is private to
a process.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from aiops_assets.tables import SERIES, TIMESTAMP

DIRECTORY_SCHEMA: dict[str, pl.DataType] = {
    "number": pl.Int32(),
    "series_id": pl.Int64(),
    "host": pl.String(),
    "metric": pl.String(),
    "unit": pl.String(),
    "labels": pl.String(),
    "kind": pl.String(),
    "source": pl.String(),
}
_SIGN = 1 << 63


def series_ids(series: pl.DataFrame) -> list[int]:
    """Signed 64-bit identifiers of the rows of a frame with host, metric and labels."""
    texts = (
        series.select(pl.concat_str("host", "metric", "labels", separator="\0").cast(pl.Binary)).to_series().to_list()
    )
    digest = xxhash.xxh3_64_intdigest
    return [(number ^ _SIGN) - _SIGN for number in map(digest, texts)]


class SeriesDirectory:
    """All series known to a process. ``frame`` is ordered by number and has the columns of ``DIRECTORY_SCHEMA``."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._chunks: list[pl.DataFrame] = [pl.DataFrame(schema=DIRECTORY_SCHEMA)]
        self._per_source: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def frame(self) -> pl.DataFrame:
        if len(self._chunks) > 1:
            self._chunks = [pl.concat(self._chunks, rechunk=True)]
        return self._chunks[0]

    @property
    def ids(self) -> NDArray[np.int64]:
        """series_id by number."""
        return self.frame["series_id"].to_numpy()

    def number_of(self, series_id: int) -> int | None:
        """The dense number of a series, ``None`` when it is unknown."""
        return self._numbers.get(series_id)

    def load(self, stored: pl.DataFrame) -> None:
        """Fill an empty directory from rows of ``tables.SERIES``, in order of series_id."""
        if not stored.is_empty():
            self._add(stored.unique("series_id", keep="first", maintain_order=True).sort("series_id"))

    def register(self, series: pl.DataFrame, source: str, limit: int | None) -> tuple[NDArray[np.int32], pl.DataFrame]:
        """Numbers of a batch's distinct series, -1 where the source's limit refuses a new one.

        Args:
            series: the columns of ``formats.batch.SERIES_SCHEMA``.
            source: the source that delivered them.
            limit: most series of that source; ``None`` for no limit.

        Returns:
            int32 numbers by row, and the directory rows that are new.
        """
        ids = series_ids(series)
        known = self._numbers
        numbers = np.fromiter((known.get(id_, -1) for id_ in ids), np.int32, len(ids))
        missing = np.flatnonzero(numbers < 0)
        if not len(missing):
            return numbers, self._chunks[0].clear()
        fresh = (
            series[missing]
            .with_columns(
                pl.Series("series_id", [ids[row] for row in missing], pl.Int64), pl.lit(source).alias("source")
            )
            .unique("series_id", keep="first", maintain_order=True)
        )
        if limit is not None:
            fresh = fresh.head(max(0, limit - self._per_source[source]))
        added = self._add(fresh)
        numbers[missing] = np.fromiter((known.get(ids[row], -1) for row in missing), np.int32, len(missing))
        return numbers, added

    def _add(self, rows: pl.DataFrame) -> pl.DataFrame:
        start = len(self._numbers)
        added = rows.with_columns(pl.int_range(start, start + rows.height, dtype=pl.Int32).alias("number")).select(
            pl.col(name).cast(dtype) for name, dtype in DIRECTORY_SCHEMA.items()
        )
        self._numbers.update(zip(added["series_id"].to_list(), range(start, start + added.height), strict=True))
        self._per_source.update(added["source"].to_list())
        self._chunks.append(added)
        return added


def stored_rows(added: pl.DataFrame, first_seen: NDArray[np.int64]) -> pl.DataFrame:
    """Rows of ``tables.SERIES`` for new directory rows; ``first_seen`` is microseconds since the epoch by row."""
    return added.with_columns(pl.Series("first_seen", first_seen, pl.Int64).cast(TIMESTAMP)).select(list(SERIES.schema))
