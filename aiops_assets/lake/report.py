"""What was written to the tables, as plain values: the words between whoever writes and the asset graph.

What belongs here: the report's shape. What does not: how often one is made (``live.report``) and how it becomes events
that the Dagster UI shows (``lake.assets``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import polars as pl

Number = int | float | str | bool


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The outcome of one check of a table. ``numbers`` are the facts behind it, shown beside the outcome."""

    table: str
    name: str
    passed: bool
    description: str
    severity: Literal["ERROR", "WARN"] = "ERROR"
    partition: str | None = None
    numbers: Mapping[str, Number] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TouchedPartition:
    """One partition of a table (``None`` for a table without) that has new rows.

    ``rows`` is the total now, ``added`` what is new since the last report, ``newest`` the largest event time in
    microseconds since the epoch, ``preview`` a few rows, ``points`` (columns ts, value and a label) what to draw.
    """

    table: str
    partition: str | None
    rows: int
    added: int
    newest: int | None = None
    preview: pl.DataFrame | None = None
    numbers: Mapping[str, Number] = field(default_factory=dict)
    plot: pl.DataFrame | None = None


@dataclass(frozen=True, slots=True)
class SourceDrops:
    """What a source delivered since the last report; ``last_received_at`` in microseconds since the epoch."""

    source: str
    deliveries: int
    points: int
    quarantined: int
    last_received_at: int


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a writer tells the asset graph at once."""

    partitions: tuple[TouchedPartition, ...] = ()
    sources: tuple[SourceDrops, ...] = ()
    checks: tuple[CheckResult, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.partitions or self.sources or self.checks)
