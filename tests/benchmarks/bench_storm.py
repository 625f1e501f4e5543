"""Storms made on one core: points a second, and memory that does not grow with the length.

The work runs in processes of their own with one Polars thread; processor time is what counts, so that a busy neighbour
does not show. Reference: Polars writing as many numbers as text and joining them to lines of the same shape, values and
stamps given, without making, ordering or cutting anything. The memory of a storm is compared with that of one a quarter
as long.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

START = 1_795_180_800_000_000
HOUR = 3_600_000_000


def play(name: str, scale: int, hours: float) -> dict[str, float]:
    """Make that much of a scenario's beginning; counts, processor seconds and the largest resident memory in MB."""
    from aiops_assets.synthetic.storms.engine import Storm
    from aiops_assets.synthetic.storms.scenario import load_scenario

    storm = Storm(load_scenario(name).scaled(scale), START)
    points = events = size = 0
    begun = time.process_time()
    for emission in storm.emissions(end=round(storm.plan.begin + hours * HOUR)):
        if emission.format in {"telegraf", "collected"}:
            points += emission.points
        else:
            events += emission.points
        size += len(emission.body)
    seconds = time.process_time() - begun
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"points": points, "events": events, "bytes": size, "seconds": seconds, "memory": memory}


def bare(points: int) -> float:
    """Points a second of the reference: lines of three fields with four tags."""
    import numpy as np
    import polars as pl

    lines = points // 3
    values = np.round(np.random.default_rng(1).normal(30, 5, (3, lines)), 4)
    prefix = pl.Series([f"cpu,cpu=cpu-total,host=storm-web-{n:03d},site=ams,synthetic=true " for n in range(100)])
    prefix = prefix.gather(np.arange(lines) % 100)
    stamps = pl.Series(np.arange(lines) * 10**10 + START * 1000)
    begun = time.process_time()
    frame = pl.DataFrame({"p": prefix, "t": stamps, "a": values[0], "b": values[1], "c": values[2]})
    columns = [
        "p",
        pl.lit("usage_idle="),
        "a",
        pl.lit(",usage_user="),
        "b",
        pl.lit(",usage_system="),
        "c",
        pl.lit(" "),
        "t",
    ]
    text = frame.select(pl.concat_str([pl.col(c) if isinstance(c, str) else c for c in columns])).to_series()
    assert len(text) == lines
    return points / (time.process_time() - begun)


def measured(task: str, *arguments: object) -> Any:
    """A task in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--measure", task, *map(str, arguments)]
    environment = {**os.environ, "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, timeout=900, env=environment)
    return json.loads(done.stdout)


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Rows for ``make bench``."""
    part = 0.1 if quick else 1.0
    reference = measured("bare", round(3_000_000 * part))
    rows: list[dict[str, Any]] = []

    def add(
        name: str, value: float, unit: str, told: str, beside: float, bar: float | None, *, most: bool = False
    ) -> None:
        ok = None if bar is None else (value <= bar if most else value >= bar)
        ratio = value / beside if beside else None
        rows.append(
            {
                "name": name,
                "value": value,
                "unit": unit,
                "reference": told,
                "reference_value": beside,
                "ratio": ratio,
                "bar": bar,
                "ok": ok,
            }
        )

    calm = measured("play", "calm-week", 1, 240 * part)
    written = "numbers as text, joined to lines"
    add("calm week, 100 hosts: points", calm["points"] / calm["seconds"], "/s", written, reference, 5e5)
    large = measured("play", "calm-week", 10, 24 * part)
    add("calm week, 1,000 hosts: points", large["points"] / large["seconds"], "/s", written, reference, 5e5)
    friday = measured("play", "black-friday", 1, 24.7)
    both = friday["points"] + friday["events"]
    add("black friday, every 10 s: points, lines, exceptions", both / friday["seconds"], "/s", written, reference, 2e5)
    short = measured("play", "calm-week", 1, 60 * part)
    add(
        "memory of 4 times the length",
        calm["memory"],
        "MB",
        "a quarter of it",
        short["memory"],
        1.1 * short["memory"],
        most=True,
    )
    return rows


if __name__ == "__main__":
    if "--measure" in sys.argv:
        task, *given = sys.argv[sys.argv.index("--measure") + 1 :]
        result = bare(int(given[0])) if task == "bare" else play(given[0], int(given[1]), float(given[2]))
        print(json.dumps(result))
    else:
        for entry in run("--quick" in sys.argv):
            print(entry)
