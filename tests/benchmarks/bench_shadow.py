"""Samples a second of what ``aiops shadow`` does with a history, on one core.

Conversion: bytes of a ``query_range`` answer to rows, compressed as Prometheus sends it and plain, beside what
``orjson.loads`` alone needs for the same bytes. Judging: converted rules and statistics over points that are rows
already, beside Polars sorting the same points by series and time. Processor time, one Polars thread, own process.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

START = 1_767_225_600
STEP = 60


def answer(series: int, points: int, first: int = START) -> bytes:
    """An answer as Prometheus writes it: counters, gauges with decimals, gauges that rarely change."""
    result = []
    for number in range(series):
        name = ("node_cpu_seconds_total", "node_hwmon_temp_celsius", "up")[number % 3]
        labels = {"__name__": name, "instance": f"web-{number // 3}:9100", "job": "node", "cpu": str(number % 16)}
        values = []
        for place in range(points):
            at = (first - START) // STEP + place
            value = (at * 7 + number, 40 + (at * 37 + number * 11) % 4001 / 100, 1)[number % 3]
            values.append([first + STEP * place, f"{value:g}" if number % 3 == 2 else str(value)])
        result.append({"metric": labels, "values": values})
    document = {"status": "success", "data": {"resultType": "matrix", "result": result}}
    return json.dumps(document, separators=(",", ":")).encode()


def best(work: Callable[[], object], times: int) -> float:
    """Least processor seconds of several runs."""
    found = []
    for _ in range(times):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def measure(quick: bool) -> list[dict[str, object]]:
    """All rows; call it with ``POLARS_MAX_THREADS=1``."""
    import orjson
    import polars as pl

    from aiops_assets.formats import parse
    from aiops_assets.landing.segment import Delivery
    from aiops_assets.shadow.conversion import convert
    from aiops_assets.shadow.history import Window
    from aiops_assets.shadow.judging import judge
    from aiops_assets.shadow.rule_files import AlertRule
    from aiops_assets.telemetry.series import SeriesDirectory

    times = 2 if quick else 4
    rows: list[dict[str, object]] = []

    def row(name: str, value: float, reference: str, against: float, bar: float | None) -> None:
        rows.append(
            {
                "name": name,
                "value": round(value),
                "unit": "samples/s/core",
                "reference": reference,
                "reference_value": round(against),
                "ratio": round(value / against, 2),
                "bar": bar,
                "ok": None if bar is None else value >= bar,
            }
        )

    series = 120 if quick else 690
    plain = answer(series, 360)
    packed = gzip.compress(plain, 6)
    loads = best(lambda: orjson.loads(plain), times)
    spaced = plain.replace(b'"values":', b'"values": ')
    for name, body, bar in (
        ("answer as sent (gzip)", packed, 5e5),
        ("answer, plain", plain, 5e5),
        ("answer written otherwise", spaced, None),
    ):
        delivery = Delivery("d", START * 10**6, "bench", "application/json", body, {"format": "prometheus_range"})
        parsed = parse("prometheus_range", [delivery])
        if parsed.rejects or parsed.points.height != series * 360:
            raise AssertionError(parsed.rejects[:1])
        seconds = best(lambda delivery=delivery: parse("prometheus_range", [delivery]), times)  # type: ignore[misc]
        count = parsed.points.height
        row(f"conversion, {name}, {count:,}", count / seconds, "orjson.loads alone", count / loads, bar)

    hours = 6 if quick else 48
    exprs = ("up == 0", "node_hwmon_temp_celsius > 79", "rate(node_cpu_seconds_total[5m]) > 1")
    rules = [entry.rule for entry in convert([AlertRule("A", expr, "r", 1, hold=300.0) for expr in exprs]).converted]
    parsed_hours = [
        parse("prometheus_range", [Delivery("d", 0, "bench", "", answer(series, 60, START + hour * 3600), {})])
        for hour in range(hours)
    ]
    count = sum(parsed.points.height for parsed in parsed_hours)

    def judged(statistics: bool) -> None:
        directory = SeriesDirectory()

        def windows() -> object:
            for hour, parsed in enumerate(parsed_hours):
                numbers, new = directory.register(parsed.series, "bench", None)
                number = numbers[parsed.points["series"].to_numpy()]
                end = (START + (hour + 1) * 3600) * 10**6
                yield Window(end, number, parsed.points["ts"].to_numpy(), parsed.points["value"].to_numpy(), new)

        judge(windows(), directory, rules, statistics=statistics)  # type: ignore[arg-type]

    together = pl.concat([parsed.points for parsed in parsed_hours])
    sort = count / best(lambda: together.sort("series", "ts"), times)
    row(f"judging, three rules, {count:,}", count / best(lambda: judged(False), 1), "polars sort", sort, None)
    row(f"judging, rules and statistics, {count:,}", count / best(lambda: judged(True), 1), "polars sort", sort, None)
    return rows


def run(quick: bool = False) -> list[dict[str, object]]:
    """Rows for ``make bench``, measured in a process with one Polars thread."""
    arguments = [sys.executable, str(Path(__file__).resolve()), "--measure", *(["--quick"] if quick else [])]
    done = subprocess.run(
        arguments, check=True, capture_output=True, timeout=600, env={**os.environ, "POLARS_MAX_THREADS": "1"}
    )
    rows: list[dict[str, object]] = json.loads(done.stdout)
    return rows


if __name__ == "__main__":
    if "--measure" in sys.argv:
        print(json.dumps(measure("--quick" in sys.argv)))
    else:
        for entry in run("--quick" in sys.argv):
            print(entry)
