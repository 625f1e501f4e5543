"""Evaluating a storm end to end (emit, live path in process, incidents by event time, score), beside emitting it alone.

Each run is in a process of its own. The reference makes the same deliveries and throws them away, so the ratio is what
the live path and the score cost for each second of making a storm.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time


def evaluated(name: str) -> dict[str, float]:
    """Seconds, event hours, points and peak memory of an evaluation."""
    from aiops_assets.evaluation.storm import evaluate
    from aiops_assets.synthetic.storms.scenario import load_scenario

    scenario = load_scenario(name)
    began = time.perf_counter()
    done = evaluate(scenario)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    hours = ((scenario.history.span if scenario.history else 0.0) + scenario.duration) / 3_600
    return {"seconds": seconds, "hours": hours, "deliveries": done.score.volume.deliveries, "peak_gb": peak}


def emitted(name: str) -> dict[str, float]:
    """Seconds that making the same deliveries takes."""
    from aiops_assets.evaluation.storm import begins_at
    from aiops_assets.synthetic.storms.engine import emissions
    from aiops_assets.synthetic.storms.scenario import load_scenario

    scenario = load_scenario(name)
    began = time.perf_counter()
    deliveries = sum(1 for _ in emissions(scenario, start_at=begins_at(scenario), seed=scenario.seed))
    return {"seconds": time.perf_counter() - began, "deliveries": deliveries}


def _in_process(what: str, name: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, what, name], capture_output=True, text=True, check=False, timeout=1_800
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run(quick: bool = False) -> list[dict[str, object]]:
    """Rows for the table of ``make bench``."""
    results: list[dict[str, object]] = []
    for name in ("bad-deploy",) if quick else ("bad-deploy", "demo"):
        live, bare = _in_process("evaluated", name), _in_process("emitted", name)
        if live["deliveries"] != bare["deliveries"]:
            raise RuntimeError(f"{name}: {live['deliveries']} deliveries taken, {bare['deliveries']} made")
        results.append(
            {
                "name": f"storm {name} evaluated, {live['hours']:.0f} hours of event time",
                "value": round(live["seconds"], 1),
                "unit": "s",
                "reference": "making the same deliveries",
                "reference_value": round(bare["seconds"], 1),
                "ratio": round(live["seconds"] / bare["seconds"], 1),
                "bar": None,
                "ok": None,
            }
        )
        results.append(
            {
                "name": f"peak memory, storm {name}",
                "value": round(live["peak_gb"], 2),
                "unit": "GB",
                "bar": 2,
                "ok": live["peak_gb"] <= 2,
            }
        )
    return results


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(json.dumps({"evaluated": evaluated, "emitted": emitted}[sys.argv[1]](sys.argv[2])))
    else:
        print(json.dumps(run("--quick" in sys.argv), indent=1))
