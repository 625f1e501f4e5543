"""Backfilling a day of 1,000 hosts × 10 metrics × 1/min, beside a bare read of the same rows.

Once as it is (every hour is derived again and compared, nothing differs) and once with an hour of late rows at the
start of the day, after which all 24 hours come out otherwise and are committed. Each in a process of its own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HOSTS, METRICS = 1_000, 10
LINES_PER_DELIVERY = 1_000
#: hosts whose first hour comes late
LATE_HOSTS = 20


def make_home(home: Path, hours: int) -> None:
    """A home with closed hours of a fleet with a daily cycle, filesystems that fill, and hosts that fall silent."""
    import numpy as np

    from aiops_assets.landing.segment import Delivery
    from aiops_assets.landing.writer import SegmentWriter
    from aiops_assets.live.pipeline import Pipeline
    from aiops_assets.settings import Settings

    settings = Settings(home=home)
    settings.paths.create()
    rng = np.random.default_rng(7)
    level = rng.uniform(10, 90, (HOSTS, METRICS - 2))
    # The first day begins at midnight, whose state is kept longest.
    start = int(time.time()) // 86_400 * 86_400 - 2 * 86_400
    late: list[str] = []

    def deliver(writer: SegmentWriter, lines: list[str], at: int) -> None:
        writer.append_deliveries(
            [
                Delivery(
                    f"{at}-{first}", (at + 1) * 1_000_000, "telegraf", "text/plain",
                    "\n".join(lines[first : first + LINES_PER_DELIVERY]).encode(), {"format": "telegraf"},
                )
                for first in range(0, len(lines), LINES_PER_DELIVERY)
            ]
        )  # fmt: skip

    with SegmentWriter(settings.paths.landing, "gateway", max_bytes=32 << 20, max_age_seconds=3600) as writer:
        for minute in range(60 * hours + 3):
            at = start + 60 * minute
            cycle = 1 + 0.2 * np.sin(2 * np.pi * minute / 1_440)
            values = np.round(level * cycle + rng.normal(0, 1, level.shape), 3).tolist()
            full = 50 + 5 * np.sin(minute / 100) + rng.normal(0, 0.5, HOSTS)
            full[(np.arange(HOSTS) % 50 == 5) & (minute % 300 > 270)] = 95.0
            idle = np.round(60 + rng.normal(0, 2, HOSTS), 3).tolist()
            lines = []
            for host, row in enumerate(values):
                if host % 200 == 7 and 700 < minute < 730:
                    continue
                mine = [
                    f"disk,host=host-{host:04d},path=/ used_percent={full[host]:.3f} {at}000000000",
                    f"cpu,host=host-{host:04d},cpu=cpu-total usage_idle={idle[host]} {at}000000000",
                    f"bench,host=host-{host:04d} "
                    + ",".join(f"m{m}={v}" for m, v in enumerate(row))
                    + f" {at}000000000",
                ]
                held = host < LATE_HOSTS and 60 <= minute < 120
                (late if held else lines).extend(mine)
            deliver(writer, lines, at)
    (home / "late.lines").write_text("\n".join(late))
    pipeline = Pipeline(settings)
    pipeline.open()
    while pipeline.step() is not None:
        pass
    for _ in range(8):
        pipeline.idle()
    pipeline.close()


def land_late(home: Path) -> None:
    """Store the rows that were held back; they are not derived yet."""
    from aiops_assets.landing.segment import Delivery
    from aiops_assets.landing.writer import SegmentWriter
    from aiops_assets.live.pipeline import Pipeline
    from aiops_assets.settings import Settings

    settings = Settings(home=home)
    body = (home / "late.lines").read_bytes()
    with SegmentWriter(settings.paths.landing, "gateway", max_bytes=1 << 30, max_age_seconds=60) as writer:
        received = int(time.time() * 1e6)
        headers = {"format": "telegraf", "history": "1"}
        writer.append_deliveries([Delivery("late", received, "telegraf", "text/plain", body, headers)])
    pipeline = Pipeline(settings)
    pipeline.open()
    pipeline.step()
    pipeline.close()


def day_of(home: Path, hours: int) -> list[str]:
    """The last hours that are closed."""
    from aiops_assets.lake.tables import Lake

    closed = [part.partition for part in Lake(str(home / "lake")).partitions("hour_receipts")]
    return closed[-hours:]


def backfilled(home: Path, hours: int) -> dict[str, object]:
    """Backfill the last hours; seconds, and what became of them."""
    import resource

    from aiops_assets.replay.backfill import backfill_hours
    from aiops_assets.settings import Settings

    began = time.perf_counter()
    done = backfill_hours(Settings(home=home), day_of(home, hours))
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    return {"seconds": seconds, "counts": done.counts(), "owned": done.owned_seconds, "peak_gb": peak}


def bare(home: Path, hours: int) -> dict[str, object]:
    """Read the same rows with nothing but Polars."""
    from aiops_assets.lake.tables import Lake

    lake, began, points = Lake(str(home / "lake")), time.perf_counter(), 0
    for hour in day_of(home, hours):
        points += lake.read("metric_points", [hour]).height
    return {"seconds": time.perf_counter() - began, "points": points}


def in_process(what: str, home: Path, hours: int) -> dict[str, object]:
    """Run one function of this file in a process of its own."""
    command = [sys.executable, __file__, what, str(home), str(hours)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1_800)
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])
    return dict(json.loads(done.stdout.splitlines()[-1]) or {})


def run(quick: bool = False) -> list[dict[str, object]]:
    """Rows for the table of ``make bench``."""
    hours = 4 if quick else 24
    with tempfile.TemporaryDirectory() as folder:
        home, changed = Path(folder) / "home", Path(folder) / "changed"
        in_process("make", home, hours + 1)
        shutil.copytree(home, changed)
        reference = in_process("bare", home, hours)
        same = in_process("backfill", home, hours)
        in_process("late", changed, hours)
        amended = in_process("backfill", changed, hours)
    if same["counts"] != {"same": hours}:
        raise RuntimeError(f"a day without changes came out as {same['counts']}")
    if dict(amended["counts"]).get("amended", 0) < hours - 1:  # type: ignore[call-overload]
        raise RuntimeError(f"a day with late rows came out as {amended['counts']}")
    points = f"{int(reference['points']) / 1e6:.1f}M points"  # type: ignore[call-overload]
    rows: list[dict[str, object]] = []
    for name, found in (("as it is", same), ("late rows in its first hour", amended)):
        seconds, read = float(found["seconds"]), float(reference["seconds"])  # type: ignore[arg-type]
        rows.append(
            {
                "name": f"backfill of {hours} hours, {points}, {name}",
                "value": round(seconds, 1),
                "unit": "s",
                "reference": "polars read of the same rows",
                "reference_value": round(read, 1),
                "ratio": round(seconds / read, 1),
                "bar": None if quick else 45,
                "ok": None if quick else seconds <= 45,
            }
        )
    rows.append(
        {
            "name": "live session stands aside for it, as it is",
            "value": round(float(same["owned"]), 1),  # type: ignore[arg-type]
            "unit": "s",
            "bar": 0,
            "ok": same["owned"] == 0,
        }
    )
    return rows


if __name__ == "__main__":
    if len(sys.argv) > 3:
        root, count = Path(sys.argv[2]), int(sys.argv[3])
        actions = {"make": make_home, "backfill": backfilled, "bare": bare}
        print(json.dumps(land_late(root) if sys.argv[1] == "late" else actions[sys.argv[1]](root, count)))
    else:
        print(json.dumps(run("--quick" in sys.argv), indent=1))
