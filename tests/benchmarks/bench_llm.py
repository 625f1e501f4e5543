"""Incidents told by a language model: how far the allowed concurrency is used, and that it is never exceeded.

The model is a server on loopback in a process of its own that answers after 200 ms and counts what it sees.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pydantic import SecretStr

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from aiops_assets.config import Llm, LlmCache
from aiops_assets.settings import Settings
from aiops_assets.synthetic.golden.config import default_config
from aiops_assets.synthetic.golden.from_model import A_QUESTION, ModelBatch, Tally
from tests.fakes.golden_model import running
from tests.fakes.openai_server import API_KEY

LATENCY, SLOTS = 0.2, 10


def run(quick: bool = False) -> list[dict[str, Any]]:
    """All rows; ``quick`` uses small sizes."""
    rows = []
    count = 60 if quick else 1_000
    for a_question in (1, A_QUESTION, 5):
        with running(LATENCY) as server, tempfile.TemporaryDirectory() as folder:
            # What is loaded once is not part of what a long batch needs.
            told(Path(folder) / "first", server.url, SLOTS, a_question)
            before = server.seen().requests
            tally, seconds, used = told(Path(folder) / "home", server.url, count, a_question)
            seen = server.seen()
        best = a_question * SLOTS / LATENCY
        name = f"{count:,} incidents, {a_question} a question, {SLOTS} at once, answers after 200 ms"
        rate = count / seconds
        rows += [
            row(f"{name}: incidents", rate, "1/s", "slots ÷ latency", best, 45.0 if a_question == A_QUESTION else None),
            row(
                f"{name}: requests", (seen.requests - before) / seconds, "1/s", "slots ÷ latency", SLOTS / LATENCY, None
            ),
            most(f"{name}: most requests at once, as the server saw", seen.most_at_once, SLOTS),
            row(
                f"{name}: CPU a request",
                used / (seen.requests - before) * 1000,
                "ms",
                "a slot's time",
                LATENCY * 1000,
                None,
            ),
            row(f"{name}: told by the model", tally.told / count, "share", "", 0.0, None),
        ]
    return rows


def told(home: Path, url: str, count: int, a_question: int) -> tuple[Tally, float, float]:
    """Tell a batch; what came of it, seconds, and CPU seconds of this process."""
    settings = Settings(home=home)
    settings.paths.create()
    llm = Llm(
        provider="compatible",
        model="fake-1",
        base_url=f"{url}/v1",
        api_key=SecretStr(API_KEY),
        concurrency=SLOTS,
        cache=LlmCache(enabled=True),
    )
    with ModelBatch(settings, llm, default_config(), seed=1, count=count, a_question=a_question) as batch:
        started, used = time.perf_counter(), time.process_time()
        done = sum(frame.height for frame in batch.frames())
        seconds, used = time.perf_counter() - started, time.process_time() - used
        batch.finish()
    if done != count:
        raise RuntimeError(f"{done} incidents of {count}")
    return batch.tally, seconds, used


def row(
    name: str, value: float, unit: str, reference: str, reference_value: float, bar: float | None
) -> dict[str, Any]:
    """One line of the result; a bar is the least that is asked for."""
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "reference": reference,
        "reference_value": reference_value or None,
        "ratio": value / reference_value if reference_value else None,
        "bar": bar,
        "ok": None if bar is None else value >= bar,
    }


def most(name: str, value: int, bar: int) -> dict[str, Any]:
    """A line whose bar is the most that is allowed."""
    return {**row(name, value, "", "allowed", bar, None), "bar": bar, "ok": value <= bar}


if __name__ == "__main__":
    for entry in run("--quick" in sys.argv):
        print(entry)
