"""Closing an hour of 600,000 points, and deriving it again for late rows, commits and receipts included.

1,000 hosts with 10 metrics, a point a minute. The hours lie in the table as the live stream leaves them; what is timed
is everything from "the hour is over" to its receipt. The reference reads the same rows, sorts them and writes them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND, hour_key
from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.live.pipeline import Pipeline
from aiops_assets.settings import Settings
from aiops_assets.tables import METRIC_POINTS, SERIES, TIMESTAMP
from aiops_assets.telemetry.series import series_ids

MINUTE = 60 * MICROS_PER_SECOND
METRICS = (
    "system.cpu.utilization",
    "system.memory.utilization",
    "system.filesystem.utilization",
    "system.paging.utilization",
    "system.network.errors",
    *(f"app.metric.{n}" for n in range(5)),
)


def fleet(hosts: int) -> pl.DataFrame:
    """Rows of ``tables.SERIES``: ``hosts`` hosts with ten metrics each."""
    series = pl.DataFrame(
        [(f"host-{host:04d}", metric) for host in range(hosts) for metric in METRICS],
        schema=["host", "metric"],
        orient="row",
    ).with_columns(
        pl.lit("1").alias("unit"),
        pl.lit("{}").alias("labels"),
        pl.lit("gauge").alias("kind"),
        pl.lit("bench").alias("source"),
    )
    first_seen = pl.lit(0).cast(TIMESTAMP).alias("first_seen")
    return series.with_columns(pl.Series("series_id", series_ids(series)), first_seen).select(list(SERIES.schema))


def hour_of_points(series: pl.DataFrame, start: int, rng: np.random.Generator, seq: int = 1) -> pl.DataFrame:
    """Rows of ``tables.METRIC_POINTS``: a point a minute of every series, in order of arrival."""
    n = series.height
    ts = start + np.repeat(np.arange(60), n) * MINUTE + np.tile(rng.integers(0, MINUTE, n), 60)
    level = np.tile(rng.uniform(0.2, 0.6, n), 60)
    tiled = series.select("series_id", "host", "metric", "unit", "source")
    return (
        pl.concat([tiled] * 60)
        .with_columns(
            pl.Series("ts", ts).cast(TIMESTAMP),
            pl.Series("value", np.round(level + 0.02 * rng.standard_normal(n * 60), 4)),
            pl.Series("received_at", ts + MICROS_PER_SECOND).cast(TIMESTAMP),
            pl.lit("gateway").alias("writer"),
            pl.lit(seq).alias("seq"),
            pl.lit(hour_key(start)).alias("hour"),
        )
        .select(list(METRIC_POINTS.schema))
    )


def run(quick: bool = False) -> list[dict[str, Any]]:
    """The rows of this benchmark."""
    hosts, hours = (100, 3) if quick else (1000, 5)
    rng = np.random.default_rng(5)
    start = (time.time_ns() // 1000 // MICROS_PER_HOUR - hours - 3) * MICROS_PER_HOUR
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder))
        settings.paths.create()
        lake = Lake(settings.paths.lake)
        series = fleet(hosts)
        TableWriter(lake, SERIES).append(series, {})
        points = TableWriter(lake, METRIC_POINTS)
        for n in range(hours):
            points.append(hour_of_points(series, start + n * MICROS_PER_HOUR, rng, n + 1), {"gateway": n + 1})
        reference = _reference(points, hour_key(start), Path(folder))
        pipeline = Pipeline(settings)
        pipeline.open()
        closing: list[float] = []
        for n in range(hours):
            at = start + (hours + n) * MICROS_PER_HOUR
            rows = hour_of_points(series, at, rng, hours + n + 1)
            pipeline._points.append(rows, {"gateway": hours + n + 1})
            pipeline._clock.touch(at // MICROS_PER_HOUR, "bench", at + 2 * MICROS_PER_HOUR, 0)
            pipeline.progress.watermark = at + MICROS_PER_HOUR + 300 * MICROS_PER_SECOND
            began = time.perf_counter()
            while pipeline._clock.open_hours:
                pipeline.idle()
            closing.append(time.perf_counter() - began)
        late: list[float] = []
        for n in range(hours):
            at = start + (hours + n) * MICROS_PER_HOUR
            rows = hour_of_points(series[:10], at, rng, 2 * hours + n + 1)
            pipeline._points.append(rows, {"gateway": 2 * hours + n + 1})
            began = time.perf_counter()
            pipeline.rederive([hour_key(at)], "late rows")
            late.append(time.perf_counter() - began)
    count = hosts * len(METRICS) * 60
    close, amend = statistics.median(closing[1:]), statistics.median(late)
    shape = {"unit": "s", "reference": "read, sort and write the rows", "reference_value": reference}
    return [
        {
            "name": f"close an hour of {count:,} points",
            "value": close,
            "ratio": close / reference,
            "bar": 2.0,
            "ok": close <= 2.0,
            **shape,
        },
        {
            "name": f"derive a late hour of {count:,} points again",
            "value": amend,
            "ratio": amend / reference,
            "bar": 3.0,
            "ok": amend <= 3.0,
            **shape,
        },
    ]


def _reference(points: TableWriter, key: str, folder: Path) -> float:
    seconds = []
    for n in range(3):
        began = time.perf_counter()
        rows = points.read(key, list(METRIC_POINTS.schema)).sort("series_id", "ts")
        rows.write_parquet(folder / f"reference-{n}.parquet", compression="zstd", compression_level=1)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


if __name__ == "__main__":
    print(*run(), sep="\n")
