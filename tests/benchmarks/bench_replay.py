"""Replaying closed hours of 1,000 hosts × 10 metrics, one point a minute, beside a bare Polars read of the same rows.

The hours are written straight into the tables as closed hours lie there, then closed once so that they have receipts,
baselines and states. Each replay runs in a process of its own, so that the peak of its memory is its own. Thirty days
are extrapolated from the median hour and, by the day, from what lies outside the hours (start, comparison, report).
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

HOSTS, POINTS_PER_HOUR, HOURS_OF_30_DAYS = 1_000, 60, 720
METRICS = (
    "system.cpu.utilization",
    "system.memory.utilization",
    "system.filesystem.utilization",
    "system.paging.utilization",
    "system.network.errors",
    "network.receive",
    "network.transmit",
    "disk.read",
    "disk.write",
    "app.latency",
)
START = 1_767_225_600_000_000  # a midnight, µs since the epoch
HOUR, MINUTE = 3_600_000_000, 60_000_000


def build(home: Path, hours: int) -> dict[str, float]:
    """Points, series and receipts of so many hours."""
    import numpy as np
    import polars as pl

    from aiops_assets.config import Config
    from aiops_assets.detection.handover import Shelf
    from aiops_assets.detection.judgement import Judgement
    from aiops_assets.hours import hour_key
    from aiops_assets.lake.tables import Lake, TableWriter
    from aiops_assets.live.deriving import Deriver
    from aiops_assets.settings import Settings
    from aiops_assets.tables import ALERTS, ANOMALIES, BASELINES, METRIC_POINTS, SERIES, TIMESTAMP
    from aiops_assets.telemetry.series import SeriesDirectory, stored_rows

    settings = Settings(home=home)
    settings.paths.create()
    lake = Lake(settings.paths.lake)
    directory = SeriesDirectory()
    hosts = [f"host-{number:04d}" for number in range(HOSTS)]
    names = [(host, metric) for host in hosts for metric in METRICS]
    described = pl.DataFrame(names, schema=["host", "metric"], orient="row").with_columns(
        unit=pl.lit("1"), labels=pl.lit("{}"), kind=pl.lit("gauge")
    )
    _, added = directory.register(described, "bench", None)
    TableWriter(lake, SERIES).append(stored_rows(added, np.full(len(names), START)), {})
    frame = directory.frame
    order = np.argsort(directory.ids, kind="stable")
    host_of = order // len(METRICS)
    rng = np.random.default_rng(7)
    level = rng.uniform(0.1, 0.6, len(names))
    points = TableWriter(lake, METRIC_POINTS)
    points.append(METRIC_POINTS.empty(), {"bench": hours})
    keys = []
    for hour in range(hours):
        minutes = np.arange(POINTS_PER_HOUR)
        ts = START + hour * HOUR + minutes * MINUTE + rng.integers(0, 5_000_000, (HOSTS, 1))
        cycle = 1 + 0.2 * np.sin(2 * np.pi * (hour * 60 + minutes) / 1_440)
        values = level[:, None] * cycle + rng.normal(0, 0.01, (len(names), POINTS_PER_HOUR))
        values[rng.integers(0, HOSTS, 3) * len(METRICS), 20:50] = 0.97  # three busy hosts an hour
        rows = frame[order].select("series_id", "host", "metric", "unit", "source")
        key = hour_key(START + hour * HOUR)
        keys.append(key)
        whole = rows[np.repeat(np.arange(len(order)), POINTS_PER_HOUR)].with_columns(
            pl.Series("ts", ts[host_of].ravel()).cast(TIMESTAMP),
            pl.Series("value", np.round(values[order], 4).ravel()),
            pl.lit("bench").alias("writer"),
            pl.lit(hour + 1, pl.Int64).alias("seq"),
            pl.lit(key).alias("hour"),
        )
        points.replace(whole.with_columns(received_at=pl.col("ts") + pl.duration(seconds=2)), key)
    deriver = Deriver(
        lake,
        points,
        TableWriter(lake, BASELINES),
        TableWriter(lake, ANOMALIES),
        directory,
        Shelf(settings.paths.live / "handover"),
        Judgement.of(Config()),
    )
    alerts = TableWriter(lake, ALERTS)
    deriver.grow()
    left = deriver.open(keys)
    began = time.perf_counter()
    while left:
        outcome = deriver.close(left, [], [], START + (hours + 1) * HOUR, [], lambda rows: alerts.append(rows, {}))
        left = left[len(outcome.closed) :]
    return {"points": hours * HOSTS * len(METRICS) * POINTS_PER_HOUR, "closing": time.perf_counter() - began}


class _Clock:
    """Seconds of each hour, from the calls of a progress callback."""

    def __init__(self) -> None:
        self.began = self.last = time.perf_counter()
        self.hours: list[float] = []

    def __call__(self, done: int, total: int) -> None:
        now = time.perf_counter()
        self.hours.append(now - self.last)
        self.last = now

    def result(self, **more: Any) -> dict[str, Any]:
        whole = time.perf_counter() - self.began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
        typical = median(self.hours[1:] or self.hours)
        return {"hour": typical, "outside": max(whole - sum(self.hours[1:]), 0.0), "peak_gb": peak, **more}


def as_now(home: Path, hours: int) -> dict[str, Any]:
    """A replay as of now with one changed parameter."""
    from aiops_assets.replay.period import Period
    from aiops_assets.replay.run import as_now as run
    from aiops_assets.settings import Settings

    clock = _Clock()
    done = run(
        Settings(home=home), Period(START, START + hours * HOUR), sets=["cpu-saturated.value=0.96"], progress=clock
    )
    return clock.result(points=done.document["points"], alerts=done.document["alerts"]["replayed"])


def as_recorded(home: Path, hours: int) -> dict[str, Any]:
    """A verification; it must find nothing."""
    from aiops_assets.replay.period import Period
    from aiops_assets.replay.run import as_recorded as run
    from aiops_assets.settings import Settings

    clock = _Clock()
    found = run(Settings(home=home), Period(START, START + hours * HOUR), progress=clock)
    if not found.identical or found.hours != hours:
        raise RuntimeError(f"{found.hours} hours, {found.differences[:3]}")
    return clock.result(points=found.rows)


def bare(home: Path, hours: int) -> dict[str, Any]:
    """The same columns read by Polars, hour by hour."""
    import polars as pl

    clock = _Clock()
    points = 0
    columns = ["series_id", "ts", "value", "received_at", "writer", "seq"]
    for number, folder in enumerate(sorted((home / "lake" / "metric_points").glob("hour=*")), 1):
        files = sorted(folder.glob("*.parquet"), key=lambda path: path.stat().st_mtime)[-1:]
        points += pl.read_parquet(files, columns=columns, hive_partitioning=False).height
        clock(number, hours)
    return clock.result(points=points)


def _in_process(what: str, home: Path, hours: int) -> dict[str, Any]:
    command = [sys.executable, __file__, what, str(home), str(hours)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run(quick: bool = False) -> list[dict[str, object]]:
    """Rows for the table of ``make bench``."""
    hours = 3 if quick else 24
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        built = _in_process("build", home, hours)
        now, recorded = _in_process("as_now", home, hours), _in_process("as_recorded", home, hours)
        reference = _in_process("bare", home, hours)
    for found in (now, recorded, reference):
        if found["points"] != built["points"]:
            raise RuntimeError(f"{built['points']} points stored, {found['points']} read")
    results: list[dict[str, object]] = []
    for name, found in (("as now, with a changed rule", now), ("as recorded", recorded)):
        seconds = found["hour"] * HOURS_OF_30_DAYS + found["outside"] * 30
        results.append(
            {
                "name": f"30 days of 432M points {name}, from {hours} hours",
                "value": round(seconds, 0),
                "unit": "s",
                "reference": "polars read of the same columns",
                "reference_value": round(reference["hour"] * HOURS_OF_30_DAYS, 0),
                "ratio": round(found["hour"] / reference["hour"], 1),
                "bar": 600,
                "ok": seconds <= 600,
            }
        )
        results.append(
            {
                "name": f"peak memory, {name}",
                "value": round(found["peak_gb"], 2),
                "unit": "GB",
                "bar": 2,
                "ok": found["peak_gb"] <= 2,
            }
        )
    return results


if __name__ == "__main__":
    if len(sys.argv) > 3:
        roles = {"build": build, "as_now": as_now, "as_recorded": as_recorded, "bare": bare}
        print(json.dumps(roles[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))))
    else:
        print(json.dumps(run("--quick" in sys.argv), indent=1))
