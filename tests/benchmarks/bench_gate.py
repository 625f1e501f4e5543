"""What the gate of golden incidents costs, and how close made-up incidents come to a real log.

Realism is measured on halves of the real incidents: learnt from one, compared with the other, both ways, several times.
The reference of the discriminator is what it says of two halves of the real incidents themselves.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import polars as pl

from aiops_assets.settings import load_settings
from aiops_assets.synthetic.gate import gates, realism
from aiops_assets.synthetic.gate.subject import Subject
from aiops_assets.synthetic.golden import reference as references
from aiops_assets.synthetic.golden.calibrated import Calibrated
from aiops_assets.synthetic.golden.candidates import adapted
from aiops_assets.synthetic.golden.config import default_config
from aiops_assets.synthetic.golden.fitting import fit
from aiops_assets.synthetic.golden.generate import generate


def row(
    name: str, value: float, unit: str, bar: float, reference: str = "", beside: float | None = None
) -> dict[str, Any]:
    """One line of the result; lower is better."""
    ratio = value / beside if beside else None
    return {
        "name": name, "value": round(value, 4), "unit": unit, "reference": reference, "reference_value": beside,
        "ratio": ratio, "bar": bar, "ok": value <= bar,
    }  # fmt: skip


def made_like(real: pl.DataFrame, count: int, seed: int) -> pl.DataFrame:
    """Final records by a fit of ``real``."""
    fitted = fit(real)
    return generate(adapted(default_config(), fitted, real), count=count, seed=seed, skeletons=Calibrated(fitted))


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Seconds of all gates, and realism against the real log where it is there."""
    count = 1_000 if quick else 10_000
    began = time.perf_counter()
    frame = generate(default_config(), count=count, seed=1)
    generated = time.perf_counter() - began
    given = Subject(frame, default_config(), seed=1)
    began = time.perf_counter()
    refused = [name for name, _, judge in gates.JUDGES if not judge(given).passed]
    taken = time.perf_counter() - began
    out = [
        row(f"gate: all gates on {count:,} incidents", taken, "s", 60, "generating them", generated),
        row("gate: gates that refuse good records", len(refused), "gates", 0),
    ]
    path = load_settings().real_data / "itsm" / "incident_event_log.csv"
    if not path.is_file():
        return out
    real = references.read(path)
    scores: dict[str, list[float]] = {}
    for turn in range(1 if quick else 5):
        order = np.random.default_rng(turn).permutation(real.height)
        half = real.height // 2
        for a, b in ((order[:half], order[half:]), (order[half:], order[:half])):
            learnt, held = real[np.sort(a)], real[np.sort(b)]
            made = made_like(learnt, held.height, turn + 1)
            scores.setdefault("auc", []).append(realism.discriminate(held, made, seed=turn, explain=False).auc)
            scores.setdefault("real", []).append(realism.discriminate(held, learnt, seed=turn, explain=False).auc)
            near = realism.closeness(learnt, made)
            scores.setdefault("copies", []).append(near.copies)
            if not quick:
                for one in realism.utility(learnt, held, made_like(learnt, 2_000, turn + 1), seed=turn):
                    scores.setdefault(f"loss: {one.target}", []).append(one.loss)
    whole = made_like(real, real.height, 1)
    in_sample = realism.discriminate(real, whole, explain=False).auc
    mean = {name: float(np.mean(values)) for name, values in scores.items()}
    out.append(row("discriminator on held-out halves (AUC)", mean["auc"], "", 0.60, "two real halves", mean["real"]))
    out.append(row("discriminator on the reference itself (AUC)", in_sample, "", 0.60, "two real halves", mean["real"]))
    out.append(row("exact copies of real records", mean["copies"], "share", 0.0))
    out += [row(name, value, "share", 0.10) for name, value in mean.items() if name.startswith("loss: ")]
    return out
