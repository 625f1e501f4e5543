"""The Prometheus API over HTTP: ``query_range`` of 24 hours of 100 series out of 10,000, and what it costs deliveries.

The lake is 1,000 hosts × 10 metrics with a point a minute (14.4 million), polls jittering by milliseconds, every hour
in one file as closing leaves it. The reference reads the same rows with a bare polars scan and takes their mean.
"First" asks for other hosts each time, so nothing was read before; "again" repeats one question, as a dashboard does.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import psutil

from aiops_assets.hours import MICROS_PER_HOUR, hour_expr, hour_key, hour_start
from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.settings import Settings
from aiops_assets.tables import METRIC_POINTS, SERIES, TIMESTAMP
from aiops_assets.telemetry.series import series_ids
from tests.gateway_process import served

FIRST_HOUR = hour_start("2026-03-02T00")
METRICS = (
    ("system.cpu.utilization", "1", "gauge"),
    ("system.memory.utilization", "1", "gauge"),
    ("system.filesystem.utilization", "1", "gauge"),
    ("system.cpu.load_average.1m", "1", "gauge"),
    ("system.processes.count", "{process}", "gauge"),
    ("hw.temperature", "Cel", "gauge"),
    ("hw.fan.speed", "rpm", "gauge"),
    ("system.network.io.total", "By", "counter"),
    ("system.disk.io.total", "By", "counter"),
    ("http.server.requests", "{request}", "counter"),
)
COUNTER = "system_network_io_total"
SERIES_ASKED, BAR_MS, ACKNOWLEDGE_BAR_MS = 100, 300.0, 50.0


def fill(lake: Lake, hosts: int, hours: int) -> list[str]:
    """Write the day; the names of the hosts."""
    random_numbers = np.random.default_rng(1)
    names = [f"web-{number:04d}" for number in range(hosts)]
    rows = pl.DataFrame(
        [(host, metric, unit, "{}", kind) for host in names for metric, unit, kind in METRICS],
        schema=["host", "metric", "unit", "labels", "kind"],
        orient="row",
    )
    rows = rows.with_columns(pl.Series("series_id", series_ids(rows), pl.Int64), pl.lit("bench").alias("source"))
    first_seen = pl.lit(FIRST_HOUR).cast(TIMESTAMP).alias("first_seen")
    TableWriter(lake, SERIES).append(rows.with_columns(first_seen), {})
    writer = TableWriter(lake, METRIC_POINTS)
    count = rows.height
    counter = (rows["kind"] == "counter").to_numpy()[:, None]
    level, total = random_numbers.uniform(10, 90, (count, 1)), np.zeros((count, 1))
    wide = rows.drop("labels", "kind")[np.repeat(np.arange(count), 60)]
    for hour in range(hours):
        minutes = FIRST_HOUR + (hour * 60 + np.arange(60)) * 60_000_000
        jitter = np.repeat(random_numbers.integers(0, 4_000, (hosts, 60)) * 1_000, len(METRICS), axis=0)
        gauge = np.round(level + random_numbers.normal(0, 3, (count, 60)), 2)
        growth = total + random_numbers.integers(0, 50_000, (count, 60)).cumsum(axis=1)
        total = growth[:, -1:]
        frame = wide.with_columns(
            pl.Series("ts", (minutes + jitter).ravel()).cast(TIMESTAMP),
            pl.Series("value", np.where(counter, growth, gauge).ravel()),
            pl.lit(int(minutes[0]) + 61_000_000).cast(TIMESTAMP).alias("received_at"),
            pl.lit("gateway").alias("writer"),
            pl.lit(hour, pl.Int64).alias("seq"),
        ).with_columns(hour_expr().alias("hour"))
        key = hour_key(int(minutes[0]))
        writer.append(frame.head(0) if hour else frame, {"bench": hour + 1})
        writer.replace(frame, key)
    return names


def spread(seconds: list[float]) -> tuple[float, float]:
    """Median and 95th percentile, milliseconds."""
    ordered = sorted(seconds)
    return statistics.median(ordered) * 1000, ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))] * 1000


def timed(work: Callable[[], Any], times: int) -> list[float]:
    """Seconds of each call."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return found


class Deliveries:
    """Small deliveries at a steady pace in a thread; how long each took to be acknowledged."""

    def __init__(self, url: str, key: str) -> None:
        self._client = httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=30)
        self._stop = threading.Event()
        self.seconds: list[float] = []

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            began = time.perf_counter()
            self._client.post("/webhooks/telegraf", content=b"cpu v=1").raise_for_status()
            self.seconds.append(time.perf_counter() - began)

    def during(self, work: Callable[[], Any]) -> list[float]:
        """Seconds of the deliveries that were sent while something ran."""
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            work()
        finally:
            self._stop.set()
            thread.join()
        return self.seconds


def row(
    name: str, value: float, unit: str, reference: str, reference_value: float, bar: float | None
) -> dict[str, Any]:
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "reference": reference,
        "reference_value": reference_value,
        "ratio": value / reference_value if reference_value else None,
        "bar": bar,
        "ok": None if bar is None else value <= bar,
    }


def run(quick: bool = False) -> list[dict[str, Any]]:
    """The rows of this benchmark."""
    hosts, hours, times = (100, 3, 5) if quick else (1_000, 24, 40)
    asked = min(SERIES_ASKED, hosts // 2)
    with tempfile.TemporaryDirectory(prefix="bench-prometheus-") as folder:
        settings = Settings(home=Path(folder) / "home")
        settings.paths.create()
        lake = Lake(settings.paths.lake)
        names = fill(lake, hosts, hours)
        with served(settings) as (url, key):
            return _measured(lake, names, hours, asked, times, url, key)


def _measured(
    lake: Lake, names: list[str], hours: int, asked: int, times: int, url: str, key: str
) -> list[dict[str, Any]]:
    start, end = FIRST_HOUR // 1_000_000, (FIRST_HOUR + hours * MICROS_PER_HOUR) // 1_000_000
    dice = random.Random(1)
    ids = {host: identifier for host, metric, identifier in _dictionary(lake) if metric == "system.network.io.total"}
    keys = [hour_key(FIRST_HOUR + hour * MICROS_PER_HOUR) for hour in range(hours)]

    def reference() -> None:
        wanted = pl.Series([ids[host] for host in dice.sample(names, asked)]).implode()
        points = lake.scan("metric_points", keys).filter(pl.col("series_id").is_in(wanted))
        points.group_by("series_id").agg(pl.col("value").mean()).collect()

    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=60) as client:

        def query(form: str, chosen: list[str]) -> None:
            expression = form.replace("HOSTS", "|".join(chosen))
            fields = {"query": expression, "start": str(start), "end": str(end), "step": "60"}
            answer = client.post("/api/v1/query_range", data=fields)
            answer.raise_for_status()
            assert len(answer.content) > 10_000

        rate, mean = f'rate({COUNTER}{{host=~"HOSTS"}}[5m])', 'avg by (host) (system_cpu_utilization{host=~"HOSTS"})'
        query(rate, names[:asked])
        plain = spread(timed(reference, times))
        first_rate = spread(timed(lambda: query(rate, dice.sample(names, asked)), times))
        first_mean = spread(timed(lambda: query(mean, dice.sample(names, asked)), times))
        again = spread(timed(lambda: query(rate, names[:asked]), times))
        values = timed(lambda: client.get("/api/v1/label/host/values").raise_for_status(), times)
        process = psutil.Process(_listener(url))
        quiet = spread(Deliveries(url, key).during(lambda: time.sleep(2)))
        busy = spread(
            Deliveries(url, key).during(
                lambda: timed(lambda: query(rate, dice.sample(names, asked)), max(times // 2, 3))
            )
        )
        size = process.memory_info().rss / 2**20
    what = f"{hours} h × {asked} series"
    scan = "polars scan and mean of the same rows, p95"
    return [
        row(f"query_range {what}, rate, first, p95", first_rate[1], "ms", scan, plain[1], BAR_MS),
        row(f"query_range {what}, rate, first, median", first_rate[0], "ms", "the same, median", plain[0], None),
        row(f"query_range {what}, avg by host, first, p95", first_mean[1], "ms", scan, plain[1], BAR_MS),
        row(f"query_range {what}, rate, again, p95", again[1], "ms", scan, plain[1], BAR_MS),
        row("label values of 1,000 hosts, p95", spread(values)[1], "ms", "", 0.0, None),
        row("acknowledgement beside queries, p95", busy[1], "ms", "without queries", quiet[1], ACKNOWLEDGE_BAR_MS),
        row("memory of the gateway after it all", size, "MiB", "", 0.0, None),
    ]


def _dictionary(lake: Lake) -> list[tuple[str, str, int]]:
    return list(lake.read("series").select("host", "metric", "series_id").iter_rows())


def _listener(url: str) -> int:
    """The process that listens at an address."""
    port = int(url.rpartition(":")[2])
    for child in psutil.Process(os.getpid()).children(recursive=True):
        if any(entry.laddr.port == port for entry in child.net_connections() if entry.status == "LISTEN"):
            return int(child.pid)
    raise RuntimeError(f"nothing listens on {url}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    sys.stdout.write(json.dumps(run(parser.parse_args().quick), indent=1) + "\n")
