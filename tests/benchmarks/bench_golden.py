"""What golden incidents cost on one core: records a second to Parquet, memory of a thousand and of a long stream.

Each measurement runs in a process of its own with one Polars thread, so that memory is that of the work alone and
processor time counts. The reference is the same export over frames that were made before.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_ONE_CORE = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"}

_WORK = """
import json, resource, sys, time
from pathlib import Path
import psutil
import pyarrow as pa
from aiops_assets.synthetic.golden import exports
from aiops_assets.synthetic.golden.config import default_config
from aiops_assets.synthetic.golden.generate import generate, stream

pa.set_cpu_count(1)
folder, what, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
config, me = default_config(), psutil.Process()
rss = lambda: me.memory_info().rss / 1e6

if what == "memory":
    before = rss()
    exports.write(stream(config, count=count, seed=1), folder / "few.parquet")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(json.dumps({"extra": peak - before}))
else:
    generate(config, count=10, seed=1)
    curve = [0.0] * 10
    def each(done):
        tenth = min(done * 10 // count, 9)
        curve[tenth] = max(curve[tenth], round(rss(), 1))
    wall, cpu = time.perf_counter(), time.process_time()
    exports.write(stream(config, count=count, seed=1), folder / "many.parquet", progress=each)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    size = (folder / "many.parquet").stat().st_size
    few = min(count, 20_000)
    some = list(stream(config, count=few, seed=1))
    again = time.process_time()
    exports.write(some, folder / "again.parquet")
    again = time.process_time() - again
    print(json.dumps({"wall": count / wall, "cpu": count / cpu, "curve": curve, "bytes": size / count,
                      "written": few / again}))
"""


def measured(what: str, count: int) -> dict[str, Any]:
    """One measurement in a process of its own, pinned to one core where the system can."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", _WORK, folder, what, str(count)],
            cwd=ROOT,
            env={**os.environ, **_ONE_CORE},
            stdout=subprocess.PIPE,
            text=True,
            timeout=1_800,
            check=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {max(os.sched_getaffinity(0))}),
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Rows of the table."""
    few = measured("memory", 1_000)
    many = measured("stream", 50_000 if quick else 1_000_000)
    # Peaks of the tenths; the first warms up. Row groups come and go, a leak would move the later ones as a whole.
    growth = statistics.median(many["curve"][6:]) - statistics.median(many["curve"][1:5])
    print("resident MB, peak of each tenth:", many["curve"], file=sys.stderr)
    return [
        _row("golden incidents to Parquet, one core", many["cpu"], "1/s", 20_000.0, at_least=True)
        | {
            "reference": "only the export of the same frames",
            "reference_value": many["written"],
            "ratio": many["cpu"] / many["written"],
        },
        _row("golden incidents to Parquet, by the clock on the wall", many["wall"], "1/s", None),
        _row("1,000 golden incidents, memory beyond the imports", few["extra"], "MB", 100.0),
        _row("growth of peak memory from the first to the last tenths", growth, "MB", 30.0),
        _row("bytes a record in Parquet", many["bytes"], "By", None),
    ]


def _row(name: str, value: float, unit: str, bar: float | None, *, at_least: bool = False) -> dict[str, Any]:
    ok = None if bar is None else value >= bar if at_least else value <= bar
    return {
        "name": name,
        "value": round(value, 1),
        "unit": unit,
        "reference": None,
        "reference_value": None,
        "ratio": None,
        "bar": bar,
        "ok": ok,
    }


if __name__ == "__main__":
    for line in run(quick="--quick" in sys.argv):
        print(line)
