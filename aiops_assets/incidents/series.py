"""What the pages read from the lake: points, what a series is, and what was expected of it.

What belongs here: bounded, read-only queries and their thinning for plots. What does not: drawing (``plots``). Every
function blocks on files, so servers call them in a thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import orjson
import polars as pl

from aiops_assets.hours import MICROS_PER_HOUR, hour_key, instant
from aiops_assets.lake.tables import Lake
from aiops_assets.tables import ENTITIES, TIMESTAMP

MAX_POINTS = 1_000
#: closed hours whose statistics make the usual range
USUAL_HOURS = 24
MAX_HOURS = 24 * 14

POINTS_SCHEMA: dict[str, pl.DataType] = {"series_id": pl.Int64(), "ts": TIMESTAMP, "value": pl.Float64()}


@dataclass(frozen=True, slots=True)
class SeriesInfo:
    """What a series is: host, metric, UCUM unit (may be empty) and labels."""

    host: str
    metric: str
    unit: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Expectation:
    """What was expected of a series around an instant (microseconds since the epoch, UTC)."""

    ts: int
    lower: float
    expected: float
    upper: float


@dataclass(frozen=True, slots=True)
class UsualRange:
    """Where a series was 98% of the time in ``hours`` closed hours; ``centre`` is the median of their medians."""

    lower: float
    centre: float
    upper: float
    hours: int


class SeriesReader(Protocol):
    """Where the pages get series from. Instants are microseconds since the epoch (UTC)."""

    def read_points(self, series_ids: Sequence[int], start: int, end: int) -> pl.DataFrame:
        """``series_id`` Int64, ``ts`` Datetime UTC, ``value`` Float64, sorted, at most ``MAX_POINTS`` a series."""
        ...

    def describe(self, series_ids: Sequence[int]) -> dict[int, SeriesInfo]:
        """What each series is, as far as it is known."""
        ...

    def expected(self, series_ids: Sequence[int], start: int, end: int) -> dict[int, list[Expectation]]:
        """What the detectors expected where they judged a point unusual, by time."""
        ...

    def usual(self, series_ids: Sequence[int], before: int) -> dict[int, UsualRange]:
        """The range of the last closed hours before an instant."""
        ...

    def entities(self) -> pl.DataFrame:
        """Rows of ``tables.ENTITIES``."""
        ...


class LakeReader:
    """Reads the canonical tables below one root."""

    def __init__(self, root: str) -> None:
        self._root = root

    def read_points(self, series_ids: Sequence[int], start: int, end: int) -> pl.DataFrame:
        wanted = pl.col("series_id").is_in(list(series_ids)) & pl.col("ts").is_between(instant(start), instant(end))
        columns = list(POINTS_SCHEMA)
        points = self._scan("metric_points", start, end).filter(wanted).select(columns).collect()
        return thin(points.cast(dict(POINTS_SCHEMA)), start, end)  # type: ignore[arg-type]

    def describe(self, series_ids: Sequence[int]) -> dict[int, SeriesInfo]:
        columns = ("series_id", "host", "metric", "unit", "labels")
        series = (
            self._lake().scan("series").filter(pl.col("series_id").is_in(list(series_ids))).select(columns).collect()
        )
        return {
            series_id: SeriesInfo(host, metric, unit or "", orjson.loads(labels or "{}"))
            for series_id, host, metric, unit, labels in series.iter_rows()
        }

    def expected(self, series_ids: Sequence[int], start: int, end: int) -> dict[int, list[Expectation]]:
        bounds = ("lower", "expected", "upper")
        wanted = pl.col("series_id").is_in(list(series_ids)) & pl.col("ts").is_between(instant(start), instant(end))
        rows = (
            self._scan("anomalies", start, end)
            .filter(wanted)
            .select("series_id", pl.col("ts").dt.timestamp("us"), *bounds)
        )
        found: dict[int, list[Expectation]] = {}
        for series_id, *values in rows.drop_nulls().sort("series_id", "ts").collect().iter_rows():
            found.setdefault(series_id, []).append(Expectation(*values))
        return found

    def usual(self, series_ids: Sequence[int], before: int) -> dict[int, UsualRange]:
        start = before - USUAL_HOURS * MICROS_PER_HOUR
        quantile = pl.col("quantiles").list
        rows = (
            self._scan("baselines", start, before - MICROS_PER_HOUR)
            .filter(pl.col("series_id").is_in(list(series_ids)))
            .sort("baseline_version")
            .unique(["series_id", "hour"], keep="last")
            .group_by("series_id")
            .agg(
                quantile.get(0).min(),
                quantile.get(3).median().alias("centre"),
                quantile.get(6).max().alias("upper"),
                pl.len(),
            )
            .drop_nulls()
            .collect()
        )
        return {series_id: UsualRange(*values) for series_id, *values in rows.iter_rows()}

    def entities(self) -> pl.DataFrame:
        return self._lake().scan(ENTITIES.name).collect()

    def _scan(self, table: str, start: int, end: int) -> pl.LazyFrame:
        first = max(start, end - MAX_HOURS * MICROS_PER_HOUR)
        first -= first % MICROS_PER_HOUR
        hours = [hour_key(at) for at in range(first, end + 1, MICROS_PER_HOUR)]
        return self._lake().scan(table, hours=hours)

    def _lake(self) -> Lake:
        return Lake(self._root)


def thin(points: pl.DataFrame, start: int, end: int, limit: int = MAX_POINTS) -> pl.DataFrame:
    """At most ``limit`` points a series between two instants (microseconds), sorted; peaks and troughs stay.

    Long series are cut into ``limit / 2`` equal spans of time, and each keeps its smallest and its largest value.
    """
    points = points.sort("series_id", "ts")
    lengths = points.group_by("series_id").len()
    long = lengths.filter(pl.col("len") > limit)["series_id"]
    if long.is_empty():
        return points
    width = max((end - start) // (limit // 2) + 1, 1)
    span = (pl.col("ts").dt.timestamp("us") - start) // width
    dense = points.filter(pl.col("series_id").is_in(long.to_list()))
    extremes = dense.group_by("series_id", span.alias("_span"), maintain_order=True).agg(
        pl.col("ts", "value").gather(
            pl.concat_list(pl.col("value").arg_min(), pl.col("value").arg_max()).explode().unique()
        )
    )
    kept = extremes.explode("ts", "value").select("series_id", "ts", "value")
    sparse = points.filter(~pl.col("series_id").is_in(long.to_list()))
    return pl.concat([sparse, kept]).sort("series_id", "ts")
