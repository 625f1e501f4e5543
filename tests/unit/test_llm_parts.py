"""The parts behind a question: repetition, breaker, schemas, stored answers, budget and ledger, each by itself."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretStr, ValidationError

from aiops_assets.config import ConfigError, Llm, parse_config
from aiops_assets.lake.tables import Lake
from aiops_assets.llm.budget import Budget, Use, cost_micros, day_of, over_limit, spent
from aiops_assets.llm.cache import AnswerCache, Stored
from aiops_assets.llm.compatible import Misconfigured, azure_identity, client_of
from aiops_assets.llm.ledger import Ledger, append, frame_of, recent, sums
from aiops_assets.llm.retrying import Breaker, pause, retry_after
from aiops_assets.llm.schema import Unfit, read, strict
from aiops_assets.operations.database import connect, reading, upgrade
from tests.examples import examples

NOW = 1_767_225_600.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": format_datetime(datetime.fromtimestamp(NOW + 7, UTC), usegmt=True)}, 7.0),
        ({"retry-after": format_datetime(datetime.fromtimestamp(NOW - 7, UTC), usegmt=True)}, 0.0),
        ({"retry-after": "-4"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_retry_after_in_all_of_its_forms(headers: Mapping[str, str], seconds: float | None) -> None:
    assert retry_after(headers, lambda: NOW) == seconds


@settings(max_examples=examples(200))
@given(attempt=st.integers(0, 40), asked=st.none() | st.floats(0, 1e6), seed=st.integers(0, 1000))
def test_pauses_grow_are_spread_and_are_bounded(attempt: int, asked: float | None, seed: int) -> None:
    seconds = pause(attempt, asked, 60.0, random.Random(seed))
    assert 0 <= seconds <= max(20.0, 60.0)
    assert asked is None or seconds >= min(asked, 60.0)
    assert asked is not None or seconds <= 0.5 * 2 ** min(attempt, 16)


def test_the_breaker_opens_waits_and_lets_one_try() -> None:
    now = 0.0
    breaker = Breaker(2, 10.0, lambda: now)
    breaker.failed("500")
    breaker.succeeded()
    breaker.failed("500")
    assert breaker.refuses() is None
    breaker.failed("503 overloaded")
    assert breaker.refuses() == "provider down, tried again in 10 s: 503 overloaded"
    now = 10.0
    assert breaker.refuses() is None
    with breaker.trying():
        assert breaker.refuses() == "provider down, being tried again: 503 overloaded"
        breaker.failed("still")
    assert breaker.refuses() == "provider down, tried again in 10 s: still"
    now = 20.0
    with breaker.trying():
        breaker.succeeded()
    assert breaker.refuses() is None
    breaker.failed("401", hopeless=True)
    assert breaker.refuses() is not None


class Inner(BaseModel):
    """Something inside."""

    kind: Literal["a", "b"] = "a"
    weight: float | None = Field(None, ge=0, le=1)


class Outer(BaseModel):
    title: str = Field(min_length=2, description="one line")
    inner: Inner = Field(description="the inner one")
    many: list[Inner] = Field(default_factory=list, max_length=3)


def test_a_strict_schema_closes_every_object_and_requires_every_field() -> None:
    schema, is_strict = strict(Outer)
    assert is_strict
    assert schema["required"] == ["title", "inner", "many"]
    assert schema["$defs"]["Inner"]["required"] == ["kind", "weight"]
    assert schema["$defs"]["Inner"]["additionalProperties"] is False
    assert schema["properties"]["title"] == {"type": "string", "description": "one line (minLength 2)"}
    assert schema["properties"]["inner"]["anyOf"] == [{"$ref": "#/$defs/Inner"}]

    class Free(BaseModel):
        labels: dict[str, str]

    assert strict(Free)[1] is False


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (None, "empty"),
        ("  ", "empty"),
        ("<think>only thoughts</think>", "empty"),
        ("no", "not_json"),
        ('{"title": "x"', "not_json"),
        ('{"title": "x"} trailing', "not_json"),
        ("[]", "wrong_schema"),
        ('{"title": "x", "inner": {"kind": "c"}}', "wrong_schema"),
        ("null", "wrong_schema"),
    ],
)
def test_unfit_texts_are_told_apart(text: str | None, kind: str) -> None:
    with pytest.raises(Unfit) as caught:
        read(text, Outer)
    assert caught.value.kind == kind


def test_errors_name_the_field_and_not_the_value() -> None:
    with pytest.raises(Unfit, match=r"inner\.kind: Input should be 'a' or 'b'") as caught:
        read('{"title": "xy", "inner": {"kind": "hunter22"}}', Outer)
    assert "hunter22" not in str(caught.value)


@settings(max_examples=examples(100))
@given(text=st.text())
def test_any_text_is_either_read_or_unfit(text: str) -> None:
    try:
        assert isinstance(read(text, Inner), Inner)
    except Unfit as unfit:
        assert unfit.kind in {"empty", "not_json", "wrong_schema"}


def stored(at: float = NOW) -> Stored:
    return Stored('{"x": 1}', "m", "test", 3, 4, at)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_stored_answers_are_found_until_they_are_too_old(tmp_path: Path, scheme: str) -> None:
    now = NOW
    cache = AnswerCache(f"{scheme}{tmp_path}", 100.0, lambda: now)
    digest = "ab" * 32
    assert cache.get(digest) is None
    assert cache.prune() == (0, 0)
    cache.put(digest, stored())
    cache.put(digest, stored())
    assert cache.get(digest) == stored()
    now = NOW + 101
    assert cache.get(digest) is None
    assert [path.name for path in (tmp_path / "_llm_cache" / "ab").iterdir()] == [f"{digest}.json"]


def test_pruning_takes_what_is_old_and_parts_of_killed_writes(tmp_path: Path) -> None:
    cache = AnswerCache(str(tmp_path), 100.0)
    for digest in ("aa" * 32, "bb" * 32):
        cache.put(digest, stored(time.time()))
    old = tmp_path / "_llm_cache" / "aa" / f"{'aa' * 32}.json"
    part = tmp_path / "_llm_cache" / "bb" / ".x.part"
    part.write_bytes(b"{")
    for path in (old, part):
        os.utime(path, (NOW, NOW))
    assert cache.prune() == (2, 1)
    assert cache.get("aa" * 32) is None
    assert cache.get("bb" * 32) is not None
    assert cache.prune(0.0) == (1, 0)


def limited(**more: Any) -> Llm:
    return Llm(prompt_price=1.0, completion_price=2.0, **more)


def test_costs_are_rounded_up_to_millionths() -> None:
    assert cost_micros(limited(), 10, 5) == 20
    assert cost_micros(Llm(prompt_price=0.15), 1, 0) == 1


def test_limits_hold_for_all_and_for_each_purpose() -> None:
    config = limited(budget={"cost": 0.001, "calls": 9}, budgets={"a": {"tokens": 100}})
    rows = {"a": Use(3, 40, 40, 120), "b": Use(5, 1, 1, 3)}
    assert over_limit(config, rows, "a", Use(1, 10, 10, 30)) is None
    assert over_limit(config, rows, "a", Use(1, 11, 10, 30)) == "budget: tokens of purpose 'a' would be 101 of 100"
    assert over_limit(config, rows, "b", Use(2, 0, 0, 0)) == "budget: calls of all purposes would be 10 of 9"
    assert over_limit(config, rows, "b", Use(1, 0, 0, 900)) == "budget: cost of all purposes would be 0.001023 of 0.001"


def of_today(url: str, day: str) -> dict[str, Use]:
    upgrade(url)
    engine = connect(url)
    try:
        with reading(engine) as connection:
            return spent(connection, day)
    finally:
        engine.dispose()


def test_reserving_refuses_beyond_the_limit_and_settling_gives_back(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'operations.db'}"

    async def run() -> list[str | None]:
        now = NOW
        budget = Budget(url, limited(budget={"calls": 10, "tokens": 1000}), lambda: now)
        first = await budget.reserve("a", Use(1, 300, 300, 900))
        second = await budget.reserve("b", Use(1, 300, 300, 900))
        budget.settle(first, Use(2, 100, 50, 200))
        third = await budget.reserve("b", Use(1, 300, 300, 900))
        now = NOW + 86_400
        next_day = await budget.reserve("b", Use(1, 500, 500, 1500))
        budget.settle(third, Use(1, 1, 1, 3))
        await budget.close()
        return [entry.refused for entry in (first, second, third, next_day)]

    refused = asyncio.run(run())
    assert refused == [None, "budget: tokens of all purposes would be 1,200 of 1,000 on 2026-01-01 (UTC)", None, None]
    assert of_today(url, "2026-01-01") == {"a": Use(2, 100, 50, 200), "b": Use(1, 1, 1, 3)}
    assert of_today(url, "2026-01-02") == {"b": Use(1, 500, 500, 1500)}
    assert day_of(NOW) == "2026-01-01"


def test_what_waits_at_once_is_reserved_in_order_and_never_too_much(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'operations.db'}"

    async def run() -> int:
        budget = Budget(url, limited(budget={"calls": 7}), lambda: NOW)
        made = await asyncio.gather(*(budget.reserve("a", Use(1)) for _ in range(50)))
        await budget.close()
        return sum(entry.refused is None for entry in made)

    assert asyncio.run(run()) == 7
    assert of_today(url, "2026-01-01") == {"a": Use(7)}


def test_without_the_database_a_budget_refuses_and_no_budget_does_not(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/missing/operations.db"

    async def run(config: Llm) -> str | None:
        budget = Budget(url, config, lambda: NOW)
        reservation = await budget.reserve("a", Use(1))
        budget.settle(reservation, Use(1))
        await budget.close()
        return reservation.refused

    assert asyncio.run(run(limited())) is None
    refused = asyncio.run(run(limited(budget={"calls": 5})))
    assert refused is not None
    assert refused.startswith("budget unknown: the operations database failed")


def row(number: int, **more: Any) -> dict[str, Any]:
    return {
        "call_id": f"{number:026}",
        "ts": round((NOW + number) * 1e6),
        "purpose": "test",
        "provider": "offline",
        "model": "offline/1",
        "outcome": "answered",
        "reason": None,
        "cache_hit": False,
        "attempts": 1,
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "latency_seconds": 0.5,
        "waited_seconds": 0.0,
        "cost": 0.25,
        "redactions": 2,
        "request_digest": "d",
        "run_id": None,
        **more,
    }


def test_the_ledger_writes_at_its_size_at_its_age_and_at_its_end(tmp_path: Path) -> None:
    lake = Lake(tmp_path)

    def stored_rows() -> int:
        return len(lake.read("llm_calls"))

    async def run() -> list[int]:
        ledger = Ledger(lake, rows=3, seconds=0.05)
        seen = []
        for start, count in ((0, 3), (3, 1)):
            for number in range(start, start + count):
                ledger.add(row(number))
            until = time.monotonic() + 20
            while await asyncio.to_thread(stored_rows) < start + count:
                assert time.monotonic() < until
            seen.append(await asyncio.to_thread(stored_rows))
        ledger = Ledger(lake)
        ledger.add(row(9))
        await ledger.close()
        return [*seen, stored_rows()]

    assert asyncio.run(run()) == [3, 4, 5]
    assert lake.read("llm_calls")["day"].unique().to_list() == ["2026-01-01"]


def test_rows_that_cannot_be_written_wait_and_the_end_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    failing = True

    def sometimes(lake: Lake, frame: pl.DataFrame) -> None:
        if failing:
            raise OSError("no space left")
        written.append(len(frame))

    monkeypatch.setattr("aiops_assets.llm.ledger.append", sometimes)

    async def run() -> None:
        nonlocal failing
        ledger = Ledger(Lake(tmp_path), rows=2)
        for number in range(4):
            ledger.add(row(number))
            await asyncio.sleep(0)
        ending = Ledger(Lake(tmp_path))
        ending.add(row(9))
        with pytest.raises(OSError, match="no space"):
            await ending.close()
        failing = False
        await ledger.close()

    asyncio.run(run())
    assert sum(written) == 4


def test_several_writers_append_at_once_and_no_row_is_lost(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    frames = [frame_of([row(10 * writer + n) for n in range(10)]) for writer in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda frame: append(Lake(tmp_path), frame), frames))
    assert sorted(lake.read("llm_calls")["call_id"]) == sorted(entry for frame in frames for entry in frame["call_id"])


def test_recent_calls_and_their_sums(tmp_path: Path) -> None:
    rows = [
        row(0),
        row(1, cache_hit=True, attempts=0, latency_seconds=0.0, cost=0.0),
        row(2, outcome="degraded", reason="budget"),
        row(3, purpose="other"),
        row(4, ts=round((NOW - 3 * 86_400) * 1e6)),
    ]
    append(Lake(tmp_path), frame_of(rows))
    found = recent(Lake(tmp_path), 1.0, NOW + 60)
    assert found["call_id"].to_list() == [f"{n:026}" for n in (3, 2, 1, 0)]
    by_purpose = {entry["purpose"]: entry for entry in sums(found).to_dicts()}
    assert by_purpose["test"]["calls"] == 3
    assert by_purpose["test"]["cached"] == 1
    assert by_purpose["test"]["degraded"] == 1
    assert by_purpose["test"]["cost"] == 0.5
    assert by_purpose["test"]["latency_p50"] == 0.5
    assert recent(Lake(tmp_path / "none"), 1.0).is_empty()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"provider": "openai", "model": "m"}, "needs 'api_key'"),
        ({"provider": "openai", "api_key": "k"}, "needs 'model'"),
        ({"provider": "azure", "model": "m"}, "needs 'base_url'"),
        ({"provider": "compatible", "model": "m"}, "needs 'base_url'"),
        ({"provider": "ollama", "model": "m", "base_url": "localhost:11434"}, "begins with http"),
        ({"concurrency": 0}, "concurrency"),
        ({"timeout": "0s"}, "timeout"),
        ({"budget": {"cost": -1}}, "cost"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Llm.model_validate(values)


def test_the_file_says_all_of_it_and_mistakes_name_their_line() -> None:
    text = """
llm:
  provider: ollama
  model: llama3
  timeout: 90s
  budget: {cost: 5, tokens: 1000000}
  budgets:
    golden-incident: {calls: 10000}
  cache: {max_age: 30d}
  breaker: {failures: 3, pause: 2m}
  people: [Anna Smith]
"""
    config = parse_config(text, "aiops.yaml").llm
    assert config.timeout == 90
    assert config.budgets["golden-incident"].calls == 10_000
    assert config.cache.max_age == 30 * 86_400
    with pytest.raises(
        ConfigError, match=r"aiops.yaml:6: llm.budget.costs: unknown field; allowed: cost, tokens, calls"
    ):
        parse_config(text.replace("cost:", "costs:"), "aiops.yaml")


def test_azure_without_a_key_asks_the_managed_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    module = ModuleType("azure.identity")
    module.DefaultAzureCredential = lambda: "credential"  # type: ignore[attr-defined]
    module.get_bearer_token_provider = lambda credential, scope: lambda: asked.append(scope) or "token-1"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "azure", ModuleType("azure"))
    monkeypatch.setitem(sys.modules, "azure.identity", module)
    assert asyncio.run(azure_identity()()) == "token-1"
    assert asked == ["https://cognitiveservices.azure.com/.default"]
    config = Llm(provider="azure", model="d", base_url="https://x.openai.azure.com")
    assert "x.openai.azure.com" in str(client_of(config).base_url)
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with pytest.raises(Misconfigured, match=r"pip install 'aiops-assets\[azure\]'"):
        client_of(config)


def test_a_client_repeats_nothing_by_itself_and_looks_for_no_key_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere.invalid/v1")
    for provider, key in (("ollama", None), ("openai", SecretStr("k")), ("compatible", None)):
        client = client_of(Llm(provider=provider, model="m", base_url="http://127.0.0.1:1/v1", api_key=key))  # type: ignore[arg-type]
        assert client.max_retries == 0
        assert client.api_key in {"none", "k"}
    assert (
        str(client_of(Llm(provider="openai", model="m", api_key=SecretStr("k"))).base_url)
        == "https://api.openai.com/v1/"
    )
    with pytest.raises(Misconfigured, match="has no client"):
        client_of(Llm())
