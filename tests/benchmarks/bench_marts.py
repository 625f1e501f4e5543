"""Building the marts of a day of 1,000 hosts × 10 metrics × 1/min (14.4 million points), beside bare Polars.

The build is ``dbt build`` as the asset runs it, tests included, in a child process whose peak memory is measured. The
reference counts and averages the same points per series and hour with Polars alone. A question over a day of points is
asked as `aiops query` asks it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiops_assets.settings import Settings

HOSTS, METRICS = 1_000, 10
DAY = datetime(2026, 3, 2, tzinfo=UTC)


def write_day(lake_root: str, hosts: int, hours: int, closed: int) -> int:
    """Points of the first hours of a day, baselines of the closed ones, and the dictionary; the number of points."""
    import numpy as np
    import polars as pl

    from aiops_assets.detection.baselines import close
    from aiops_assets.hours import MICROS_PER_HOUR, hour_key, micros
    from aiops_assets.lake.tables import Lake, TableWriter
    from aiops_assets.tables import BASELINES, METRIC_POINTS, SERIES

    lake = Lake(lake_root)
    points, baselines = TableWriter(lake, METRIC_POINTS), TableWriter(lake, BASELINES)
    count = hosts * METRICS
    ids = np.sort(np.random.default_rng(1).integers(-(2**62), 2**62, count))
    names = pl.DataFrame(
        {
            "series_id": ids,
            "host": [f"host-{n // METRICS:04d}" for n in range(count)],
            "metric": [f"metric.m{n % METRICS}" for n in range(count)],
        }
    )
    series = names.with_columns(
        unit=pl.lit("1"), labels=pl.lit("{}"), kind=pl.lit("gauge"), source=pl.lit("telegraf"), first_seen=pl.lit(DAY)
    )
    TableWriter(lake, SERIES).overwrite(series)
    rng = np.random.default_rng(7)
    level = np.repeat(rng.uniform(10, 90, count), 60)
    for hour in range(hours):
        start = micros(DAY) + hour * MICROS_PER_HOUR
        frame = pl.DataFrame(
            {
                "ts": np.tile(start + np.arange(60) * 60_000_000, count),
                "series_id": np.repeat(ids, 60),
                "value": np.round(level + rng.normal(0, 1, count * 60), 3),
            }
        ).join(names, on="series_id", how="left", maintain_order="left")
        frame = frame.with_columns(
            pl.col("ts").cast(METRIC_POINTS.schema["ts"]),
            unit=pl.lit("1"),
            source=pl.lit("telegraf"),
            received_at=pl.lit(DAY + timedelta(hours=hour)),
            writer=pl.lit("gateway"),
            seq=pl.lit(hour),
            hour=pl.lit(hour_key(start)),
        )
        points.replace(frame, hour_key(start))
        if hour < closed:
            baselines.append(
                close(frame.select("series_id", "ts", "value")).with_columns(
                    hour_start=pl.lit(DAY + timedelta(hours=hour)),
                    baseline_version=pl.lit(1),
                    hour=pl.lit(hour_key(start)),
                ),
                {},
            )
    return hours * count * 60


def _measured(home: Path) -> tuple[float, float]:
    """Seconds and peak memory (MiB, all child processes) of a build of the day, in a process of its own."""
    code = (
        "import resource, sys, time\n"
        "from datetime import date\n"
        "from pathlib import Path\n"
        "from aiops_assets.marts.project import build\n"
        "from aiops_assets.settings import Settings\n"
        "start = time.perf_counter()\n"
        "build(Settings(home=Path(sys.argv[1])), date(2026, 3, 2), date(2026, 3, 2))\n"
        "print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(home)], stdout=subprocess.PIPE, text=True, timeout=1800, check=True
    )
    seconds, mebibytes = map(float, done.stdout.split())
    return seconds, mebibytes


def run(quick: bool = False) -> list[dict[str, object]]:
    """Rows for ``run.py``."""
    import polars as pl

    from aiops_assets.lake.tables import Lake
    from aiops_assets.marts.query import run_query

    hosts = 100 if quick else HOSTS
    with tempfile.TemporaryDirectory(prefix="bench-marts-") as folder:
        settings = Settings(home=Path(folder))
        settings.paths.create()
        points = write_day(settings.paths.lake, hosts, 24, 24)
        seconds, mebibytes = _measured(settings.paths.root)
        scan = Lake(settings.paths.lake).scan("metric_points", columns=["series_id", "hour", "value"])
        start = time.perf_counter()
        scan.group_by("series_id", "hour").agg(
            pl.len(), pl.col("value").mean(), pl.col("value").min().alias("min")
        ).collect()
        bare = time.perf_counter() - start
        sql = "select metric, count(*), avg(value), max(value) from metric_points group by metric"
        start = time.perf_counter()
        run_query(settings, sql, limit=100)
        asked = time.perf_counter() - start
    million = f"{points / 1e6:.1f} M points"
    return [
        {
            "name": f"marts of a day, {million}: dbt build with its tests",
            "value": round(seconds, 2),
            "unit": "s",
            "reference": "Polars: count, mean, least per series and hour",
            "reference_value": round(bare, 2),
            "ratio": round(seconds / bare, 1),
            "bar": 60,
            "ok": seconds <= 60,
        },
        {
            "name": "  peak memory of the build",
            "value": round(mebibytes),
            "unit": "MiB",
            "reference": "",
            "reference_value": None,
            "ratio": None,
            "bar": None,
            "ok": None,
        },
        {
            "name": f"aiops query: count, mean, greatest per metric over {million}",
            "value": round(asked, 2),
            "unit": "s",
            "reference": "Polars, as above",
            "reference_value": round(bare, 2),
            "ratio": round(asked / bare, 1),
            "bar": None,
            "ok": None,
        },
    ]
