"""Reading marts as the gateway does: parquet files through Polars, without DuckDB or dbt.

What belongs here: where a mart lies, its rows and row counts, and a cache by modification time for pages. What does
not: what pages make of them (``kpis``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

#: of a daily mart, a page reads at most this many files
MOST_FILES = 400


def files(folder: Path, name: str, first_day: str | None = None) -> list[Path]:
    """The files of a mart, oldest first: one, or one a day from ``first_day`` (``YYYY-MM-DD``) on."""
    single = folder / f"{name}.parquet"
    if single.is_file():
        return [single]
    found = sorted((folder / name).glob("*.parquet"))
    return [path for path in found if first_day is None or path.stem >= first_day][-MOST_FILES:]


def rows(folder: Path, name: str, day: str | None = None, *, limit: int | None = None) -> pl.DataFrame:
    """Rows of a mart, of one day or of all its files; an empty frame without columns when it was never built."""
    chosen = [path for path in files(folder, name) if day is None or path.stem in {day, name}]
    if not chosen:
        return pl.DataFrame()
    frame = _scan(chosen)
    return (frame if limit is None else frame.head(limit)).collect()


def row_count(folder: Path, name: str, day: str | None = None) -> int:
    """How many rows a mart has, from its files' footers."""
    chosen = [path for path in files(folder, name) if day is None or path.stem in {day, name}]
    return int(_scan(chosen).select(pl.len()).collect().item()) if chosen else 0


def _scan(paths: Sequence[Path]) -> pl.LazyFrame:
    """Files as one frame with the columns of the newest: models gain columns in time."""
    return pl.scan_parquet(list(reversed(paths)), missing_columns="insert", extra_columns="ignore")


Stamp = tuple[tuple[str, int, int], ...]


@dataclass(slots=True)
class MartReader:
    """Frames of marts, read again only when a file of them has changed."""

    folder: Path
    _kept: dict[tuple[str, str | None], tuple[Stamp, pl.DataFrame]] = field(default_factory=dict)

    def frame(self, name: str, first_day: str | None = None) -> pl.DataFrame:
        """All rows from ``first_day`` on; an empty frame without columns while the mart was never built."""
        chosen = files(self.folder, name, first_day)
        stamp = _stamp(chosen)
        kept = self._kept.get((name, first_day))
        if kept is not None and kept[0] == stamp:
            return kept[1]
        frame = _scan(chosen).collect() if chosen else pl.DataFrame()
        self._kept = {key: value for key, value in self._kept.items() if key[0] != name}
        self._kept[name, first_day] = (stamp, frame)
        return frame


def _stamp(paths: Sequence[Path]) -> Stamp:
    stats = [(path, path.stat()) for path in paths]
    return tuple((path.name, stat.st_mtime_ns, stat.st_ino) for path, stat in stats)
