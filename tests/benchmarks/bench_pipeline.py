"""Segments → ``metric_points`` → scored anomalies, for a day of 1,000 hosts × 10 metrics × 1/min, beside bare Polars.

Each size runs in a process of its own, so that the peak of its memory is its own. The reference reads and writes the
same rows as Parquet with Polars in the same run.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HOSTS, METRICS, MINUTES = 1_000, 10, 1_440
DAY_START = 1_760_000_400  # the start of an hour, in seconds since the epoch
LINES_PER_DELIVERY = 1_000


def write_segments(root: Path, minutes: int) -> int:
    """Line protocol of a fleet with a daily cycle and noise, one line a host and minute; the number of points."""
    import numpy as np

    from aiops_assets.landing.segment import Delivery
    from aiops_assets.landing.writer import SegmentWriter

    rng = np.random.default_rng(7)
    level = rng.uniform(10, 90, (HOSTS, METRICS))
    root.mkdir(parents=True)
    with SegmentWriter(root, "gateway", max_bytes=32 << 20, max_age_seconds=3600) as writer:
        for minute in range(minutes):
            at = DAY_START + 60 * minute
            cycle = 1 + 0.2 * np.sin(2 * np.pi * minute / MINUTES)
            values = np.round(level * cycle + rng.normal(0, 1, level.shape), 3).tolist()
            lines = [
                f"bench,host=host-{host:04d} " + ",".join(f"m{m}={v}" for m, v in enumerate(row)) + f" {at}000000000"
                for host, row in enumerate(values)
            ]
            writer.append_deliveries(
                [
                    Delivery(
                        f"{minute}-{start}",
                        (at + 1) * 1_000_000,
                        "telegraf",
                        "text/plain",
                        "\n".join(lines[start : start + LINES_PER_DELIVERY]).encode(),
                        {"format": "telegraf"},
                    )
                    for start in range(0, len(lines), LINES_PER_DELIVERY)
                ]
            )
    return minutes * HOSTS * METRICS


def drain(home: Path) -> dict[str, float]:
    """Run the live pipeline over everything that waits; seconds, rows and peak memory of this process."""
    from aiops_assets.live.pipeline import Pipeline
    from aiops_assets.settings import Settings

    settings = Settings(home=home)
    settings.paths.create()
    began = time.perf_counter()
    pipeline = Pipeline(settings)
    pipeline.open()
    points = anomalies = 0
    while (report := pipeline.step()) is not None:
        points += report.points
        anomalies += report.anomalies
    seconds = time.perf_counter() - began
    pipeline.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    return {"seconds": seconds, "points": points, "anomalies": anomalies, "peak_gb": peak}


def bare(home: Path) -> dict[str, float]:
    """Read the rows and write them again with nothing but Polars."""
    from aiops_assets.lake.tables import Lake

    began = time.perf_counter()
    rows = Lake(home / "lake").read("metric_points")
    rows.write_parquet(home / "bare.parquet", compression="zstd")
    return {"seconds": time.perf_counter() - began, "points": rows.height}


def _in_process(what: str, home: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, what, str(home)], capture_output=True, text=True, check=False, timeout=900
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run(quick: bool = False) -> list[dict[str, object]]:
    """Rows for the table of ``make bench``."""
    results: list[dict[str, object]] = []
    rates: list[float] = []
    for minutes in (60, 144) if quick else (144, 1_440):
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            total = write_segments(home / "landing", minutes)
            live = _in_process("drain", home)
            reference = _in_process("bare", home)
            if live["points"] != total or reference["points"] != total:
                raise RuntimeError(f"{total} points sent, {live['points']} taken, {reference['points']} stored")
            rates.append(live["seconds"] / total)
            whole_day = minutes == MINUTES
            results.append(
                {
                    "name": f"segments to scored anomalies, {total / 1e6:.1f}M points",
                    "value": round(live["seconds"], 1),
                    "unit": "s",
                    "reference": "polars read + write of the same rows",
                    "reference_value": round(reference["seconds"], 1),
                    "ratio": round(live["seconds"] / reference["seconds"], 1),
                    "bar": 45 if whole_day else None,
                    "ok": live["seconds"] <= 45 if whole_day else None,
                }
            )
            results.append(
                {
                    "name": f"peak memory, {total / 1e6:.1f}M points",
                    "value": round(live["peak_gb"], 2),
                    "unit": "GB",
                    "bar": 2,
                    "ok": live["peak_gb"] <= 2,
                }
            )
    results.append(
        {
            "name": "seconds a point, large over small",
            "value": round(rates[-1] / rates[0], 2),
            "unit": "ratio",
            "bar": 1.25,
            "ok": rates[-1] / rates[0] <= 1.25,
        }
    )
    return results


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(json.dumps({"drain": drain, "bare": bare}[sys.argv[1]](Path(sys.argv[2]))))
    else:
        print(json.dumps(run("--quick" in sys.argv), indent=1))
