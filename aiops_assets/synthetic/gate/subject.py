"""What gates look at: the records of a version, the configuration they were made by, and what they are compared with.

What belongs here: the files of a version and the expected frame. What does not: judging (``gates``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import polars as pl

from aiops_assets.promotion.gates import VersionFiles
from aiops_assets.synthetic.golden import reference as references
from aiops_assets.synthetic.golden.config import GoldenConfig, parse_golden_config
from aiops_assets.synthetic.golden.declared import Declared
from aiops_assets.synthetic.golden.generate import generate
from aiops_assets.synthetic.golden.record import SCHEMA
from aiops_assets.synthetic.golden.skeleton import SkeletonSource, Vocabulary

INCIDENTS = "incidents.parquet"
CONFIG = "config.json"
#: records drawn to know what the configuration's own data look like
_EXPECTED_ROWS = 4_000
_EXPECTED_SEED = 0x5EED


class ReferenceChanged(ValueError):
    """The reference is not the file that the version was made with."""


@dataclass(frozen=True)
class Subject:
    """A data set to be judged.

    ``frame`` has ``record.SCHEMA`` (a planted or foreign one may differ: the schema gate says so). ``reference`` has
    ``reference.FIELDS``; ``source`` draws what is expected; ``people`` are names of real people that must not occur.
    """

    frame: pl.DataFrame
    config: GoldenConfig
    reference: pl.DataFrame | None = None
    source: SkeletonSource | None = None
    people: tuple[str, ...] = ()
    seed: int = 0

    @cached_property
    def drawn(self) -> SkeletonSource:
        """Where skeletons of this data set come from."""
        return self.source or Declared(self.config)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The names that records may bear."""
        return self.drawn.vocabulary()

    @cached_property
    def expected(self) -> pl.DataFrame:
        """Records of the same configuration and another seed: its declared weights, ranges and hours as data."""
        rows = max(500, min(self.frame.height, _EXPECTED_ROWS))
        return generate(self.config, count=rows, seed=self.seed ^ _EXPECTED_SEED, skeletons=self.source)

    @cached_property
    def finished(self) -> pl.DataFrame:
        """Records whose life is over; a reference is compared with these."""
        return self.frame.filter(pl.col("resolved_at").is_not_null())


def subject(files: VersionFiles) -> Subject:
    """The data set of a version, read once for all its gates.

    Raises:
        ReferenceChanged: the recorded reference is another file by now.
        FileNotFoundError, ValueError: files of the version are missing or unreadable.
    """
    more: Mapping[str, Any] = files.inputs.get("more") or {}
    path, recorded = more.get("reference"), (files.inputs.get("files") or {}).get("reference")
    columns = tuple(sorted((more.get("reference_columns") or {}).items()))
    people = tuple(more.get("people") or ())
    return _subject(files.folder, files.version, path, recorded, columns, people, int(files.inputs.get("seed") or 0))


@lru_cache(maxsize=1)
def _subject(
    folder: Path,
    version: str,
    reference: str | None,
    recorded: str | None,
    columns: tuple[tuple[str, str], ...],
    people: tuple[str, ...],
    seed: int,
) -> Subject:
    from aiops_assets.synthetic.golden.calibrated import Calibrated
    from aiops_assets.synthetic.golden.fitting import load

    config = parse_golden_config((folder / CONFIG).read_text("utf-8"), str(folder / CONFIG))
    frame = pl.read_parquet(folder / INCIDENTS)
    real: pl.DataFrame | None = None
    source: SkeletonSource | None = None
    if reference is not None:
        if references.digest(Path(reference)) != recorded:
            raise ReferenceChanged(
                f"{reference}: is not the file that {version[:12]} was made with; "
                "make a new candidate, or put the file back"
            )
        real = references.read(Path(reference), dict(columns))
        source = Calibrated(load(folder))
    return Subject(frame, config, real, source, people, seed)


def typed(frame: pl.DataFrame) -> list[str]:
    """How columns differ from those of records: one line each."""
    lines = [f"{name}: missing" for name in SCHEMA if name not in frame.columns]
    lines += [f"{name}: not a column of records" for name in frame.columns if name not in SCHEMA]
    lines += [
        f"{name}: {frame.schema[name]}, expected {dtype}"
        for name, dtype in SCHEMA.items()
        if name in frame.columns and frame.schema[name] != dtype
    ]
    return lines
