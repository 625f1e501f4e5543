"""Receipts of closed hours: what each was derived from, and the lake read back exactly as it was then.

What belongs here: the receipt as a value, the newest ones of a range, pinned inputs by receipt. What does not: deriving
(``derive``), writing receipts while data flows (``live``), doing something with the comparison (``replay``).
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from aiops_assets.detection.derive import input_hash
from aiops_assets.detection.judge import Lesson
from aiops_assets.detection.judgement import Judgement
from aiops_assets.hours import hour_start, instant
from aiops_assets.lake.tables import Lake
from aiops_assets.tables import HOUR_RECEIPTS, METRIC_POINTS

TABLE = METRIC_POINTS.name
CLOSED, LATE, BACKFILL, RESTATED, REMOVED = "closed", "late rows", "backfill", "restated", "rows removed"
#: libraries whose arithmetic enters results
_LIBRARIES = ("numpy", "polars", "pyarrow", "deltalake", "xxhash", "orjson")
#: the code that an hour is derived by
_CODE = ("detection", "hours.py", "tables.py", "config.py", "telemetry/series.py", "lake/digest.py")

Reference = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Receipt:
    """One row of ``hour_receipts``; JSON columns are read. Instants are µs since the epoch (UTC)."""

    hour: str
    revision: int
    reason: str
    derived_at: int
    rows: int
    late_rows: int
    positions: Mapping[str, int]
    input_hash: str
    #: judgements in force: (from event time or None, digest)
    config: Sequence[tuple[int | None, str]]
    #: baselines learnt at its start: (hour, version replaced or None, version)
    baselines: Sequence[tuple[str, int | None, int]]
    #: final states handed over, joined in this order
    state_in: Sequence[Reference]
    state_in_hash: str
    state_out_hash: str
    baseline_version: int
    baseline_hash: str
    anomalies: int
    anomalies_hash: str
    decisions: int
    decisions_hash: str
    raised: int = 0
    amended: int = 0
    withdrawn: int = 0
    windows: Sequence[Mapping[str, Any]] = ()
    detector_version: str = ""
    code_version: str = ""
    libraries: Mapping[str, str] = field(default_factory=dict)

    @property
    def start(self) -> int:
        """First microsecond of the hour."""
        return hour_start(self.hour)

    @property
    def reference(self) -> Reference:
        """The hour and its revision."""
        return self.hour, self.revision

    def row(self) -> dict[str, Any]:
        """The row of ``tables.HOUR_RECEIPTS``."""
        values = {name: getattr(self, name) for name in self.__slots__}
        for name in ("positions", "config", "baselines", "state_in", "windows", "libraries"):
            values[name] = orjson.dumps(values[name], option=orjson.OPT_SORT_KEYS).decode()
        return values | {
            "table": TABLE,
            "hour_start": instant(hour_start(self.hour)),
            "derived_at": instant(self.derived_at),
        }

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Receipt:
        """Read a row (times as µs)."""
        values = {name: row[name] for name in cls.__slots__}
        for name in ("positions", "windows", "libraries"):
            values[name] = orjson.loads(row[name])
        for name in ("config", "baselines", "state_in"):
            values[name] = [tuple(entry) for entry in orjson.loads(row[name])]
        return cls(**values)


def receipts_frame(receipts: Iterable[Receipt]) -> pl.DataFrame:
    """Rows of ``tables.HOUR_RECEIPTS``."""
    return pl.DataFrame([receipt.row() for receipt in receipts], schema=HOUR_RECEIPTS.schema, orient="row")


def read_receipts(lake: Lake, first: str | None = None, last: str | None = None) -> list[Receipt]:
    """All receipts of the hours from ``first`` to ``last`` (inclusive; ``None``: open), by hour and revision."""
    frame = lake.scan("hour_receipts").filter(pl.col("table") == TABLE)
    if first is not None:
        frame = frame.filter(pl.col("hour") >= first)
    if last is not None:
        frame = frame.filter(pl.col("hour") <= last)
    rows = frame.with_columns(pl.col("derived_at").dt.epoch("us")).sort("hour", "revision").collect()
    return [Receipt.of_row(row) for row in rows.iter_rows(named=True)]


def newest(receipts: Iterable[Receipt]) -> dict[str, Receipt]:
    """The highest revision of each hour."""
    found: dict[str, Receipt] = {}
    for receipt in receipts:
        if receipt.hour not in found or found[receipt.hour].revision < receipt.revision:
            found[receipt.hour] = receipt
    return found


def pinned_rows(lake: Lake, receipt: Receipt) -> pl.DataFrame:
    """The rows of ``metric_points`` that a receipt counts: those up to its ingest positions."""
    return up_to(lake.read(TABLE, [receipt.hour]), receipt.positions)


def up_to(rows: pl.DataFrame, positions: Mapping[str, int]) -> pl.DataFrame:
    """Rows that had been taken when the positions were reached."""
    reached = pl.col("writer").replace_strict(dict(positions), default=-1, return_dtype=pl.Int64)
    return rows.filter(pl.col("seq") <= reached)


def has_inputs(receipt: Receipt, rows: pl.DataFrame) -> bool:
    """Whether rows are those that the receipt was derived from."""
    return rows.height == receipt.rows and input_hash(rows) == receipt.input_hash


def pinned_lessons(lake: Lake, pins: Sequence[tuple[str, int | None, int]]) -> list[Lesson]:
    """The baselines that were learnt at the start of an hour.

    Raises:
        LookupError: a version is not in the table any more.
    """
    lessons = []
    for hour, before, version in pins:
        stored = lake.read("baselines", [hour], ["series_id", "baseline_version", "quantiles"])
        lessons.append(
            Lesson(
                hour,
                version,
                effective(stored, version),
                before,
                effective(stored, before) if before is not None else None,
            )
        )
    return lessons


def effective(stored: pl.DataFrame, version: int) -> pl.DataFrame:
    """Baselines of an hour as of a version.

    Raises:
        LookupError: the table does not have that version.
    """
    rows = stored.filter(pl.col("baseline_version") == version)
    if rows.is_empty() and version > 0:
        raise LookupError(f"baselines version {version} is not stored (any more)")
    return rows.select("series_id", "quantiles")


def pinned_judgements(
    versions: Mapping[str, Judgement], config: Sequence[tuple[int | None, str]]
) -> list[tuple[int | None, Judgement]]:
    """The judgements of a receipt.

    Raises:
        LookupError: a version is not in the table of versions.
    """
    lacking = [digest for _, digest in config if digest not in versions]
    if lacking:
        raise LookupError(f"config version {lacking[0]} is not in config_versions")
    return [(at, versions[digest]) for at, digest in config]


def read_judgements(lake: Lake) -> dict[str, Judgement]:
    """Every version of the judgement that was ever in force, by digest."""
    stored = lake.read("config_versions").unique("config_digest", keep="first")
    return {row["config_digest"]: Judgement.parse(row["document"]) for row in stored.iter_rows(named=True)}


@cache
def code_version() -> str:
    """12 hex digits that change when the code that derives hours does."""
    package = Path(__file__).parent.parent
    files: list[Path] = []
    for name in _CODE:
        path = package / name
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    digest = hashlib.blake2b(digest_size=6)
    for path in files:
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


@cache
def libraries() -> dict[str, str]:
    """Versions of Python and of the libraries that compute."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in _LIBRARIES}}
