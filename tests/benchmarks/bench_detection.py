"""What tier 1 costs and what it does: processor seconds a day of points, memory a series, false alarms, faults found.

Processor time counts, so that a busy neighbour does not show. The reference for scoring is a bare Polars write and read
of the same rows as Parquet. Calm series and faults are drawn from a fixed seed; an alarm is an alert of at least the
severity ``warning``, which is what opens incidents; notices are counted apart.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from aiops_assets.detection import baselines
from aiops_assets.detection.statistics import Tier1
from aiops_assets.detection.steps import Step
from aiops_assets.detection.transitions import Transition
from aiops_assets.hours import MICROS_PER_HOUR

START = 1_760_000_400_000_000 // MICROS_PER_HOUR * MICROS_PER_HOUR
MINUTE = 60_000_000
DAY = 1_440
WARNING = 13
Matrix = NDArray[np.float64]


def detector(series: int) -> Tier1:
    """A detector that knows so many gauges."""
    made = Tier1()
    made.grow(pl.DataFrame({"host": ["h"] * series, "metric": ["m"] * series, "kind": ["gauge"] * series}))
    return made


def minutes(values: Matrix, first: int) -> Iterator[Step]:
    """One step a minute from minute ``first`` on; ``values`` is minutes × series."""
    series = np.arange(values.shape[1], dtype=np.int32)
    for minute, value in enumerate(values, first):
        yield Step(series, np.full(len(series), START + minute * MINUTE), value, series.astype(np.int64))


def play(made: Tier1, values: Matrix, first: int) -> list[Transition]:
    """Hour by hour: judge, then close."""
    found: list[Transition] = []
    number = np.arange(values.shape[1], dtype=np.int32)
    for hour in range(0, len(values), 60):
        part = values[hour : hour + 60]
        found += made.process(minutes(part, first + hour))[1]
        quantiles = np.repeat(np.median(part, axis=0)[:, None], len(baselines.QUANTILES), axis=1)
        closed = pl.DataFrame({"number": number, "quantiles": pl.Series(quantiles).cast(pl.List(pl.Float64))})
        made.close_hour(START + (first + hour) * MINUTE, closed)
    return found


def calm(days: int, each: int, rng: np.random.Generator) -> Matrix:
    """Minutes × series of nine kinds: noise, wandering, daily (two), weekly, counts, hourly job, saw, tenths."""
    shape = (days * DAY, each)
    minute = np.arange(days * DAY)[:, None]
    wave = np.sin(2 * np.pi * minute / DAY + rng.uniform(0, 2 * np.pi, each))
    workday = ((START // MINUTE // DAY + minute // DAY + 3) % 7 < 5) * 1.0
    wandering = np.zeros(shape)
    for row in range(1, len(wandering)):
        wandering[row] = 0.95 * wandering[row - 1] + 0.3 * rng.normal(size=each)
    kinds = [
        rng.normal(50, 3, shape),
        50 + wandering,
        50 + 20 * wave + rng.normal(0, 2, shape),
        np.exp(3 + 0.8 * wave + 0.2 * wandering),
        30 + 25 * workday * np.maximum(wave, 0) + wandering,
        rng.poisson(np.exp(1 + 0.7 * wave)).astype(float),
        5 + rng.normal(0, 0.3, shape) + (minute % 60 == rng.integers(0, 60, each)) * rng.normal(40, 3, shape),
        40 + 30 * (minute / rng.uniform(60, 300, each) % 1) + rng.normal(0, 0.5, shape),
        np.round(40 + 3 * wave + wandering, 1),
    ]
    return np.concatenate(kinds, axis=1)


def faults(values: Matrix, at: NDArray[np.int64], deviation: Matrix) -> dict[str, Matrix]:
    """Copies of ``values`` (minutes × series) with a fault in each series from minute ``at`` on."""
    since = np.arange(len(values))[:, None] - at
    frozen = values[at, np.arange(values.shape[1])]
    return {
        "level up by 6 deviations": values + 6 * deviation * (since >= 0),
        "5 minutes up by 10 deviations": values + 10 * deviation * ((since >= 0) & (since < 5)),
        "up by 10 deviations in 2 hours": values + 10 * deviation * np.clip(since / 120, 0, 1),
        "stuck for 4 hours": np.where((since >= 0) & (since < 240), frozen, values),
    }


def row(
    name: str, value: float, unit: str, *, bar: float | None = None, below: bool = True, **more: Any
) -> dict[str, Any]:
    """A line of the table; ``ok`` compares with the bar."""
    ok = None if bar is None else (value <= bar if below else value >= bar)
    empty = {"reference": None, "reference_value": None, "ratio": None}
    return {"name": name, "value": value, "unit": unit, **empty, "bar": bar, "ok": ok, **more}


def scoring(series: int, steps: int) -> Iterator[dict[str, Any]]:
    """Processor time of ``Tier1.process`` beside a bare write and read of the same rows."""
    rng = np.random.default_rng(0)
    values = rng.normal(50, 3, (steps, series))
    made = detector(series)
    play(made, rng.normal(50, 3, (60, series)), 0)
    prepared = list(minutes(values, 60))
    started = time.process_time()
    made.process(prepared)
    spent = time.process_time() - started
    frame = pl.DataFrame(
        {
            "ts": np.repeat(START + np.arange(steps) * MINUTE, series),
            "series_id": np.tile(rng.integers(-(2**63), 2**63 - 1, series), steps),
            "value": values.ravel(),
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "points.parquet"
        started = time.process_time()
        frame.write_parquet(path, compression="zstd")
        pl.read_parquet(path)
        bare = time.process_time() - started
    scale = 14.4e6 / values.size
    yield row(
        "tier 1, 14.4M points of 10,000 series", spent * scale, "s", reference="bare Polars write and read of the rows",
        reference_value=bare * scale, ratio=spent / bare, bar=3.0, ok=spent / bare <= 3.0,
    )  # fmt: skip
    ids = np.arange(series, dtype=np.int64)
    state = made.export(ids)
    size = sum(array.nbytes for array in state.values()) / series
    yield row("tier 1, state of a series", size, "B", bar=10_000)
    started = time.process_time()
    detector(series).adopt(made.export(ids), lambda wanted: wanted.astype(np.int32))
    yield row(
        "tier 1, state out and in, 10,000 series", (time.process_time() - started) * 10_000 / series, "s", bar=1.0
    )


def closing(series: int) -> Iterator[dict[str, Any]]:
    """Closing an hour of one point a minute, rows shuffled."""
    rng = np.random.default_rng(0)
    points = pl.DataFrame(
        {
            "series_id": np.repeat(rng.integers(-(2**63), 2**63 - 1, series), 60),
            "ts": np.tile(np.arange(60) * MINUTE, series),
            "value": rng.normal(size=series * 60),
        }
    ).sample(fraction=1.0, shuffle=True, seed=1)
    started = time.process_time()
    baselines.close(points)
    spent = time.process_time() - started
    started = time.process_time()
    points.group_by("series_id").agg(
        pl.len(), pl.col("value").mean(), pl.col("value").var().alias("v"), pl.col("value").quantile(0.5).alias("q")
    )
    bare = time.process_time() - started
    scale = 10_000 / series
    yield row(
        "closing an hour, 600,000 points of 10,000 series", spent * scale, "s", bar=2.0,
        reference="bare Polars group_by (mean, variance, median)", reference_value=bare * scale, ratio=spent / bare,
    )  # fmt: skip


def alarms(days: int, each: int) -> Iterator[dict[str, Any]]:
    """False alarms in the second half of calm days, and faults found on the day after."""
    rng = np.random.default_rng(7)
    values = calm(days + 1, each, rng)
    history, today = values[: days * DAY], values[days * DAY :]
    series = values.shape[1]
    made = detector(series)
    found = play(made, history, 0)
    half = START + days * DAY // 2 * MINUTE
    late = [t.severity_number for t in found if t.state == "firing" and t.at >= half]
    unit = days / 2 * 3 * series / 10_000
    label = "8 h and 10,000 calm series"
    yield row(f"alarms per {label}", sum(s >= WARNING for s in late) / unit, "alarms", bar=1.0)
    yield row(f"notices per {label}", sum(s < WARNING for s in late) / unit, "notices")
    at = rng.integers(60, 600, series)
    for name, faulty in faults(today, at, history[-7 * DAY :].std(axis=0)).items():
        one = copy.deepcopy(made)
        hit = np.zeros((2, series), bool)
        for t in play(one, faulty, days * DAY):
            since = (t.at - START) // MINUTE - days * DAY - at[t.series]
            if t.state == "firing" and 0 <= since <= 240:
                hit[int(t.severity_number >= WARNING), t.series] = True
        yield row(f"faults found, {name}", float(hit.any(axis=0).mean()), "share", bar=0.9, below=False)
        yield row(f"  … with an alarm, {name}", float(hit[1].mean()), "share")


def run(quick: bool = False) -> list[dict[str, Any]]:
    """All lines; ``quick`` draws fewer series and days."""
    return [
        *scoring(10_000, 60 if quick else 1_440),
        *closing(10_000),
        *alarms(10 if quick else 21, 5 if quick else 100),
    ]


if __name__ == "__main__":
    print(json.dumps(run("--quick" in sys.argv), indent=1))
