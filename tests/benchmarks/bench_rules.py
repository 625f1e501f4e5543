"""Processor time of rules and alerts, each beside a bare reference measured in the same run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from aiops_assets.config import Rule
from aiops_assets.detection.alerts import AlertBook, BatchRows
from aiops_assets.detection.rules import RuleEngine
from aiops_assets.detection.steps import Step
from aiops_assets.detection.transitions import Transition
from aiops_assets.hours import MICROS_PER_SECOND

START = 1_767_225_600 * MICROS_PER_SECOND
MINUTE = 60 * MICROS_PER_SECOND
METRICS = 10


def directory(hosts: int) -> pl.DataFrame:
    """``hosts`` times ten metrics ``m0`` … ``m9``."""
    count = hosts * METRICS
    number = pl.int_range(count, dtype=pl.Int32, eager=True)
    return pl.DataFrame({"number": number, "series_id": number.cast(pl.Int64) * 7919}).with_columns(
        host=pl.format("host-{}", pl.col("number") // METRICS),
        metric=pl.format("m{}", pl.col("number") % METRICS),
        unit=pl.lit("1"),
        labels=pl.concat_str(pl.lit('{"mountpoint":"/data'), pl.col("number") % 50, pl.lit('"}')),
        kind=pl.lit("gauge"),
        source=pl.lit("bench"),
    )


def rule_set(metric: Callable[[int], str]) -> list[Rule]:
    """Ten rules of the usual mixture: six thresholds, two rates, one fill-up, one absence."""
    kinds = [
        *[{"value": 0.9, "clear": 0.87, "for": "2m"}] * 6,
        *[{"kind": "rate", "value": 0.002, "window": "10m"}] * 2,
        {"kind": "fill_up", "value": 1.0, "window": "30m", "horizon": "4h", "for": "2m"},
        {"kind": "absence", "for": "5m"},
    ]
    return [Rule.model_validate({"name": f"r{k}", "metric": metric(k)} | kind) for k, kind in enumerate(kinds)]


def day(series: int, points: int, seed: int = 1) -> list[Step]:
    """A point a minute of every series: slow waves, noise, the series of one host in a hundred run full."""
    random = np.random.default_rng(seed)
    numbers = np.arange(series, dtype=np.int32)
    phase, level = random.uniform(0, 6.28, series), random.uniform(0.1, 0.7, series)
    filling = np.where(numbers // METRICS % 100 == 7, 0.5 / points, 0.0)
    made = []
    for k in range(points):
        value = level + 0.1 * np.sin(phase + k / 230) + filling * k + 0.01 * random.standard_normal(series)
        made.append(Step(numbers, np.full(series, START + k * MINUTE), value, numbers.astype(np.int64) + k * series))
    return made


def bare_numpy(made: Sequence[Step]) -> float:
    """Seconds to compare the same points with one limit and remember which crossed it."""
    crossed = np.zeros(len(made[0].series), bool)
    began = time.process_time()
    for step in made:
        crossed[step.series] |= step.value >= 0.9
    return time.process_time() - began


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def row(name: str, value: float, unit: str, reference: str, reference_value: float, bar: float) -> dict[str, object]:
    return {
        "name": name,
        "value": round(value, 4),
        "unit": unit,
        "reference": reference,
        "reference_value": round(reference_value, 4),
        "ratio": round(value / reference_value, 2) if reference_value else None,
        "bar": bar,
        "ok": value <= bar,
    }


def run(quick: bool = False) -> list[dict[str, object]]:
    """Rows for ``make bench``; ``quick`` takes a tenth of the points and of the bars that grow with them."""
    points = 144 if quick else 1440
    series = directory(1000)
    made = day(len(series), points)
    bare = bare_numpy(made)

    engine = RuleEngine(rule_set(lambda k: f"m{k}"))
    engine.grow(series)
    found: list[Transition] = []
    bulk = seconds(lambda: found.extend(engine.process(made)))
    rows = [row("rules, bulk, 10% matched", bulk, "s", "one comparison of the same points", bare, 3.0 * points / 1440)]

    engine = RuleEngine(rule_set(lambda k: "m*"))
    engine.grow(series)
    engine.process(made[:60])
    single = [seconds(lambda step=step: engine.process([step])) for step in made[60:120]]
    bare_step = bare / points
    rows.append(
        row(
            "rules, one step, all matched", 1e3 * float(np.median(single)), "ms", "one comparison", 1e3 * bare_step, 8.0
        )
    )

    state = engine.export()
    copy = seconds(lambda: {part: {k: array.copy() for k, array in entries.items()} for part, entries in state.items()})
    fresh = RuleEngine(engine.rules)
    fresh.grow(series)
    numbers = series["number"].to_numpy()
    handed = seconds(lambda: fresh.adopt(engine.export(), lambda ids: numbers[ids // 7919]))
    rows.append(row("rules, state out and in", 1e3 * handed, "ms", "copy of the arrays", 1e3 * copy, 250.0))

    many = directory(10_000)
    engine = RuleEngine(rule_set(lambda k: f"m{k}"))
    bare_match = seconds(lambda: many.filter(pl.col("metric") == "m1"))
    grown = seconds(lambda: engine.grow(many))
    rows.append(row("rules, 100k new series", 1e3 * grown, "ms", "one filter", 1e3 * bare_match, 250.0))

    storm = [
        Transition("rule", "r0", number, "firing", START, START, 17, "at 95%", 0.95, 0.9, {"op": ">="}, number)
        for number in range(10_000)
    ]
    batch = BatchRows(np.full(10_000, START), ["w"] * 10_000, np.zeros(10_000, np.int64))
    book = AlertBook()
    plain = seconds(lambda: pl.DataFrame([{"a": t.name, "b": t.at} for t in storm]))
    opened = seconds(lambda: book.apply(storm, directory=series, windows=[], batch=batch))
    rows.append(row("alerts, storm of 10,000", opened, "s", "a frame of two columns", plain, 2.0))
    return rows


if __name__ == "__main__":
    for entry in run(quick="--quick" in sys.argv):
        print(entry)
