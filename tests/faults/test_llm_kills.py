"""Batches of questions that are killed and repeated, and budgets that several processes hold."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

from aiops_assets.config import Llm
from aiops_assets.llm.budget import Budget, Use, day_of, spent
from aiops_assets.operations.database import connect, reading, upgrade
from tests.fakes.openai_server import FakeOpenAI, Trouble

NOW = 1_767_225_600.0


def test_a_batch_that_was_killed_does_not_pay_twice(tmp_path: Path) -> None:
    """Kill -9 after some answers were handed on: the same batch asks only for the rest."""
    fake = FakeOpenAI(latency=0.02)
    with fake.serving():
        code = f"""
import asyncio, sys
from pathlib import Path
from tests.unit.test_llm_client import asking, configured, question
from aiops_assets.config import Llm
from aiops_assets.llm.budget import Budget, Use, day_of, spent
from aiops_assets.operations.database import connect, reading, upgrade
from tests.fakes.openai_server import FakeOpenAI, Trouble

NOW = 1_767_225_600.0
fake = FakeOpenAI(); fake.url = {fake.url!r}
async def run():
    async with asking(Path({str(tmp_path)!r}), configured(fake, concurrency=2)) as model:
        async for answer in model.answers(question(str(n)) for n in range(40)):
            print(answer.cached, flush=True)
asyncio.run(run())
"""
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        handed_on = [process.stdout.readline() for _ in range(8)]
        process.kill()
        process.wait(30)
        assert handed_on == ["False\n"] * 8
        before = fake.requests
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
        cached = done.stdout.split().count("True")
        assert cached >= 8
        assert fake.requests - before == 40 - cached
        # Asked for twice is at most what had not been handed on when the process died.
        assert fake.requests <= 40 + 4 * 2


def test_processes_share_one_budget(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'operations.db'}"
    upgrade(url)
    code = f"""
import asyncio
from aiops_assets.config import Llm
from aiops_assets.llm.budget import Budget, Use
async def run():
    budget = Budget({url!r}, Llm(budget={{"calls": 25}}), lambda: {NOW})
    done = 0
    for _ in range(20):
        done += (await budget.reserve("a", Use(1))).refused is None
    await budget.close()
    print(done)
asyncio.run(run())
"""
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    granted = [int(process.communicate(timeout=60)[0]) for process in started]
    assert sum(granted) == 25
    assert used(url, "2026-01-01") == {"a": Use(25)}


def used(url: str, day: str) -> dict[str, Use]:
    engine = connect(url)
    try:
        with reading(engine) as connection:
            return spent(connection, day)
    finally:
        engine.dispose()


def test_what_a_killed_process_had_reserved_stays_counted_until_the_day_ends(tmp_path: Path) -> None:
    fake = FakeOpenAI()
    fake.behave = lambda number, body: Trouble("hang")
    with fake.serving():
        code = f"""
import asyncio
from pathlib import Path
from tests.unit.test_llm_client import asking, configured, question
from tests.fakes.openai_server import FakeOpenAI
fake = FakeOpenAI(); fake.url = {fake.url!r}
async def run():
    async with asking(Path({str(tmp_path)!r}), configured(fake, budget={{"calls": 3}})) as model:
        await asyncio.gather(*(model.structured(question(str(n))) for n in range(2)))
asyncio.run(run())
"""
        process = subprocess.Popen([sys.executable, "-c", code])
        until = time.monotonic() + 60
        while fake.requests < 2:
            assert time.monotonic() < until
            time.sleep(0.01)
        process.kill()
        process.wait(30)
    url = f"sqlite:///{tmp_path / 'operations.db'}"
    today = used(url, day_of(time.time())) or used(url, day_of(time.time() - 3600))
    assert today["test"].calls == 2
    assert today["test"].prompt_tokens > 0

    async def reserved(at: float) -> str | None:
        budget = Budget(url, Llm(budget={"calls": 3}), lambda: at)
        refused = (await budget.reserve("test", Use(2))).refused
        await budget.close()
        return refused

    assert asyncio.run(reserved(time.time())) is not None
    assert asyncio.run(reserved(time.time() + 86_400)) is None
