"""``aiops explain`` over 1,000 hosts × 10 metrics × 1/min, the nearest kept state 24 h before, beside a bare read.

The reference reads the rows of the same series and hours with Polars alone.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.bench_backfill import in_process, make_home

BAR_SECONDS = 5.0


def forget_states(home: Path) -> None:
    """Leave the state of the first hour on the shelf, as if the others had passed their time."""
    from aiops_assets.detection.handover import Shelf

    shelf = Shelf(home / "live" / "handover")
    for hour, revision in shelf.kept()[1:]:
        shelf.drop(hour, revision)


def explained(home: Path, hours: int) -> list[dict[str, object]]:
    """Explain the last alert of each kind, and read the rows that it concerns."""
    import polars as pl

    from aiops_assets.hours import hour_key
    from aiops_assets.lake.tables import Lake
    from aiops_assets.replay.explain import explain_alert
    from aiops_assets.settings import Settings

    settings = Settings(home=home)
    lake = Lake(settings.paths.lake)
    closed = [part.partition for part in lake.partitions("hour_receipts")]
    newest = lake.read("alerts").sort("revision").unique("alert_id", keep="last")
    over = pl.col("changed_at").dt.strftime("%Y-%m-%dT%H") <= closed[-1]
    alerts = newest.filter(over).sort("starts_at", "alert_id")
    results: list[dict[str, object]] = []
    for kind in ("rule", "anomaly", "absence"):
        mine = alerts.filter(pl.col("kind") == kind)
        if mine.is_empty():
            continue
        row = mine.row(-1, named=True)
        hour = hour_key(int(row["starts_at"].timestamp() * 1e6))
        span = [key for key in closed if key <= hour][-hours:]
        began = time.perf_counter()
        bare = lake.scan("metric_points", span).filter(pl.col("series_id") == row["series_id"]).collect()
        read = time.perf_counter() - began
        began = time.perf_counter()
        found = explain_alert(settings, row["alert_id"])
        seconds = time.perf_counter() - began
        results.append(
            {
                "kind": kind, "seconds": seconds, "read": read, "rows": bare.height, "verdict": found.verdict,
                "hours": found.hours_derived,
            }
        )  # fmt: skip
    return results


def run(quick: bool = False) -> list[dict[str, object]]:
    """Rows for the table of ``make bench``."""
    hours = 4 if quick else 25
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        in_process("make", home, hours)
        forget_states(home)
        found = explained(home, hours)
    wrong = [entry for entry in found if entry["verdict"] != "same"]
    if wrong:
        raise RuntimeError(f"it did not come out the same: {wrong}")
    return [
        {
            "name": f"explain of an alert by {entry['kind']}, {entry['hours']} hours derived",
            "value": round(float(entry["seconds"]), 2),  # type: ignore[arg-type]
            "unit": "s",
            "reference": "polars read of the same series",
            "reference_value": round(float(entry["read"]), 2),  # type: ignore[arg-type]
            "ratio": round(float(entry["seconds"]) / float(entry["read"]), 1),  # type: ignore[arg-type]
            "bar": BAR_SECONDS,
            "ok": float(entry["seconds"]) <= BAR_SECONDS,  # type: ignore[arg-type]
        }
        for entry in found
    ]


if __name__ == "__main__":
    if len(sys.argv) > 2:
        make_home(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        print(json.dumps(run("--quick" in sys.argv), indent=1))
