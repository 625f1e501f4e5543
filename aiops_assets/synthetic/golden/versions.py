"""Incidents of a registered version or of a file, as frames.

What belongs here: which file of a version holds its incidents, and reading it piece by piece. What does not: versions
themselves (``promotion``) and what gates say of them (``synthetic.gate``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import polars as pl

from aiops_assets.promotion.gates import VersionFiles
from aiops_assets.synthetic.golden.record import SCHEMA

THING = "golden_incidents"
#: rows read at once
_ROWS = 20_000


class NoIncidents(ValueError):
    """A version has no file with golden incidents."""


def incidents_file(files: VersionFiles) -> Path:
    """The Parquet file of a version that holds its incidents.

    Raises:
        NoIncidents: there is none, or several.
    """
    found = [
        path for path in sorted(files.folder.rglob("*.parquet")) if set(SCHEMA) <= set(pl.read_parquet_schema(path))
    ]
    if len(found) != 1:
        raise NoIncidents(
            f"{files.thing} {files.version[:12]}: {len(found)} files with golden incidents in {files.folder}, "
            "expected one"
        )
    return found[0]


def frames(path: Path) -> Iterator[pl.DataFrame]:
    """The incidents of a Parquet file in pieces of ``record.SCHEMA``; memory does not grow with their number."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS, columns=list(SCHEMA)):
            frame = cast(pl.DataFrame, pl.from_arrow(batch))
            yield frame.select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())
