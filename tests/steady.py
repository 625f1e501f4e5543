"""Points of a steady fleet, for tests and benchmarks: gauges as devices report them, one poll a host and minute."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND, hour_expr
from aiops_assets.tables import METRIC_POINTS, TIMESTAMP
from aiops_assets.telemetry.series import series_ids

START = 1_767_225_600 * MICROS_PER_SECOND
MINUTE = 60 * MICROS_PER_SECOND
METRICS = (
    ("system.cpu.utilization", "1"),
    ("system.memory.utilization", "1"),
    ("system.filesystem.utilization", "1"),
    ("system.network.io", "By/s"),
    ("system.processes.count", "{process}"),
    ("hw.temperature", "Cel"),
    ("hw.fan.speed", "rpm"),
    ("hw.power", "W"),
    ("system.cpu.load_average.1m", "1"),
    ("hw.status", "1"),
)


def steady_hour(
    hosts: int, *, start: int = START, jitter_seconds: float = 0.003, seed: int = 0, noise: bool = False
) -> pl.DataFrame:
    """Rows of ``tables.METRIC_POINTS``: one hour of ``hosts`` × 10 metrics, a point a minute, in series order.

    Polls begin at a second of their host's own and jitter by ``jitter_seconds`` (none: all at the full minute). With
    ``noise`` every value has all its 52 bits of random fraction, the worst case for storage.
    """
    rng = np.random.default_rng(seed)
    shape = (hosts, 60)
    ts = np.broadcast_to(start + np.arange(60) * MINUTE, shape).copy()
    if jitter_seconds:
        phase = rng.integers(0, 59 * MICROS_PER_SECOND, hosts)[:, None]
        ts = ts + phase + np.abs(rng.normal(0, jitter_seconds * MICROS_PER_SECOND, shape)).astype(np.int64)
    received = ts + rng.integers(20_000, 400_000, shape)
    names = np.array([f"host-{number:05d}.example.net" for number in range(hosts)])
    frames = []
    for number, (metric, unit) in enumerate(METRICS):
        values = rng.normal(50, 1, shape) if noise else _values(number, rng.normal(0, 1, shape))
        ids = series_ids(pl.DataFrame({"host": names, "metric": [metric] * hosts, "labels": ["{}"] * hosts}))
        frames.append(
            pl.DataFrame(
                {
                    "ts": ts.ravel(),
                    "series_id": np.repeat(np.array(ids), 60),
                    "value": values.ravel().astype(np.float64),
                    "host": np.repeat(names, 60),
                    "metric": metric,
                    "unit": unit,
                    "source": "telegraf",
                    "received_at": received.ravel(),
                    "writer": "gateway",
                    "seq": (received.ravel() - START) // (MICROS_PER_SECOND // 2) + 1,
                }
            )
        )
    frame = pl.concat(frames).with_columns(pl.col("ts", "received_at").cast(TIMESTAMP))
    frame = frame.with_columns(hour_expr().alias("hour")).cast(METRIC_POINTS.schema)  # type: ignore[arg-type]
    assert start % MICROS_PER_HOUR == 0
    return frame.select(list(METRIC_POINTS.schema)).sort("series_id", "ts")


def _values(metric: int, noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values as agents report them: percent with two decimals, whole degrees, steps of a tachometer."""
    walk = np.cumsum(noise, 1)
    makers = (
        lambda: np.round(np.clip(0.3 + 0.05 * noise, 0, 1), 4),
        lambda: np.round(np.clip(0.6 + 0.0003 * walk, 0, 1), 4),
        lambda: np.round(np.clip(0.5 + 0.00002 * np.abs(walk), 0, 1), 4),
        lambda: np.round(np.abs(1e5 + 1e4 * noise), 1),
        lambda: np.round(200 + np.cumsum(noise > 1.2, 1) - np.cumsum(noise < -1.2, 1)),
        lambda: np.round(45 + 0.3 * walk),
        lambda: np.round((6000 + 40 * noise) / 60) * 60,
        lambda: np.round(180 + 2 * noise),
        lambda: np.round(np.abs(1 + 0.06 * walk), 2),
        lambda: np.ones_like(noise),
    )
    return makers[metric]()
