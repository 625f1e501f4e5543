"""Questions to a provider that behaves and misbehaves: every one ends in a valid answer that says how it was had."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pytest
from pydantic import BaseModel, Field, SecretStr

from aiops_assets.config import Llm
from aiops_assets.lake.tables import Lake
from aiops_assets.llm.client import Answer, LanguageModel, Message, Question, language_model
from aiops_assets.operations.database import upgrade
from aiops_assets.settings import Settings
from tests.fakes.openai_server import API_KEY, FakeOpenAI, Trouble
from tests.home import home


class Verdict(BaseModel):
    """What the tests ask for."""

    summary: str = Field(min_length=3)
    severity: Literal["low", "high"]
    score: int = Field(ge=0, le=10)


OFFLINE = Verdict(summary="offline", severity="low", score=0)


def question(text: str = "What happened on web-1?", purpose: str = "test", **more: Any) -> Question[Verdict]:
    return Question(purpose, [Message("user", text)], Verdict, lambda: OFFLINE, **more)


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    fake = FakeOpenAI()
    with fake.serving():
        yield fake


@pytest.fixture(autouse=True, scope="module")
def one_trust_store() -> Iterator[None]:
    """The certificates of the system are read once, not for every client."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssl.create_default_context", cache(ssl.create_default_context))
        yield


@cache
def migrated() -> bytes:
    """An operations database without rows, migrated once for all tests."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "operations.db"
        upgrade(f"sqlite:///{path}")
        return path.read_bytes()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiops_assets.llm.retrying._FIRST_PAUSE", 0.005)
    monkeypatch.setattr("aiops_assets.llm.retrying._LONGEST_PAUSE", 0.01)


def configured(server: FakeOpenAI, **more: Any) -> Llm:
    values: dict[str, Any] = {
        "provider": "compatible",
        "model": "fake-1",
        "base_url": f"{server.url}/v1",
        "api_key": SecretStr(API_KEY),
    }
    return Llm(**{**values, **more})


@asynccontextmanager
async def asking(folder: Path, config: Llm) -> AsyncIterator[LanguageModel]:
    settings = home(folder)
    if not (folder / "operations.db").exists():
        (folder / "operations.db").write_bytes(migrated())
    async with language_model(settings, config, run_id="run-1") as model:
        yield model


def ask(folder: Path, config: Llm, *questions: Question[Verdict]) -> list[Answer[Verdict]]:
    """Questions one after the other."""

    async def run() -> list[Answer[Verdict]]:
        async with asking(folder, config) as model:
            return [await model.structured(entry) for entry in questions]

    return asyncio.run(run())


def calls(folder: Path) -> pl.DataFrame:
    return Lake(Settings(home=folder).paths.lake).read("llm_calls").sort("ts", "call_id")


def test_a_question_gets_a_valid_answer_and_a_row(server: FakeOpenAI, tmp_path: Path) -> None:
    config = configured(server, prompt_price=2.0, completion_price=10.0)
    [answer] = ask(tmp_path, config, question(seed=7))
    assert (answer.outcome, answer.degraded, answer.cached, answer.attempts) == ("answered", False, False, 1)
    assert answer.value.severity == "low"
    assert answer.prompt_tokens > 0
    assert answer.cost == pytest.approx((2 * answer.prompt_tokens + 10 * answer.completion_tokens) / 1e6)
    [row] = calls(tmp_path).to_dicts()
    assert row["purpose"] == "test"
    assert (row["provider"], row["model"], row["outcome"], row["attempts"]) == ("compatible", "fake-1", "answered", 1)
    assert (row["run_id"], row["reason"], row["request_digest"]) == ("run-1", None, answer.digest)
    assert row["day"] == row["ts"].date().isoformat()
    [body] = server.bodies
    assert body["seed"] == 7
    assert body["temperature"] == 0.0
    form = body["response_format"]["json_schema"]
    assert form["strict"] is True
    assert form["schema"]["additionalProperties"] is False
    assert "stream" not in body


def test_offline_answers_alone_and_never_loads_openai(tmp_path: Path) -> None:
    code = f"""
import asyncio, sys
from pathlib import Path
from tests.unit.test_llm_client import ask, question, OFFLINE
from aiops_assets.config import Llm
[one, two] = ask(Path({str(tmp_path)!r}), Llm(), question(), question())
assert one.value == two.value == OFFLINE and one.digest == two.digest and not one.degraded
print(*[name for name in sys.modules if name.split(".")[0] in ("openai", "httpx2")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
    assert calls(tmp_path)["provider"].to_list() == ["offline", "offline"]


@pytest.mark.parametrize(
    ("trouble", "outcome", "requests"),
    [
        (Trouble("truncated"), "truncated", 1),
        (Trouble("refused"), "refused", 1),
        (Trouble("filtered"), "filtered", 1),
        (Trouble("status", 400, message="filtered", code="content_filter"), "filtered", 1),
    ],
)
def test_an_answer_that_no_repair_helps_is_taken_offline(
    server: FakeOpenAI, tmp_path: Path, trouble: Trouble, outcome: str, requests: int
) -> None:
    server.faults = [trouble]
    [answer] = ask(tmp_path, configured(server), question())
    assert (answer.outcome, answer.degraded, answer.value) == (outcome, True, OFFLINE)
    assert answer.reason
    assert server.requests == requests


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [("broken_json", "not_json"), ("prose", "not_json"), ("wrong_schema", "wrong_schema"), ("empty", "empty")],
)
def test_an_unfit_answer_is_repaired_once_and_only_once(
    server: FakeOpenAI, tmp_path: Path, kind: str, outcome: str
) -> None:
    server.faults = [Trouble(kind)]
    [mended] = ask(tmp_path / "mended", configured(server), question())
    assert (mended.outcome, mended.degraded, mended.attempts) == ("repaired", False, 2)
    server.faults = [Trouble(kind), Trouble(kind), Trouble(kind)]
    [given_up] = ask(tmp_path / "given_up", configured(server), question())
    assert (given_up.outcome, given_up.value, given_up.attempts) == (outcome, OFFLINE, 2)
    assert server.requests == 4


def test_the_repair_shows_what_is_wrong(server: FakeOpenAI, tmp_path: Path) -> None:
    server.faults = [Trouble("content", message='{"summary": "ab", "severity": "medium", "score": 11}')]
    [answer] = ask(tmp_path, configured(server), question())
    assert answer.outcome == "repaired"
    said = server.bodies[1]["messages"][-1]["content"]
    assert "summary" in said
    assert "severity" in said
    assert "score" in said
    assert server.bodies[1]["messages"][-2]["role"] == "assistant"


def test_fenced_json_and_thoughts_around_it_are_read(server: FakeOpenAI, tmp_path: Path) -> None:
    text = '<think>hm {"a": 1}</think>\n```json\n{"summary": "fine", "severity": "high", "score": 3}\n```'
    server.faults = [Trouble("content", message=text)]
    [answer] = ask(tmp_path, configured(server), question())
    assert (answer.outcome, answer.value.score) == ("answered", 3)


@pytest.mark.parametrize(
    "trouble",
    [
        Trouble("status", 500),
        Trouble("status", 503),
        Trouble("status", 429, headers={"retry-after": "0.01"}),
        Trouble("status", 408),
        Trouble("status", 409),
        Trouble("reset"),
        Trouble("torn"),
        Trouble("html"),
        Trouble("stream"),
        Trouble("garbage"),
        Trouble("no_choices"),
    ],
    ids=lambda trouble: f"{trouble.kind}-{trouble.status}",
)
def test_what_passes_is_tried_again(server: FakeOpenAI, tmp_path: Path, trouble: Trouble) -> None:
    server.faults = [trouble, trouble]
    [answer] = ask(tmp_path, configured(server), question())
    assert (answer.outcome, answer.attempts, server.requests) == ("answered", 3, 3)


def test_repetitions_are_bounded(server: FakeOpenAI, tmp_path: Path) -> None:
    server.behave = lambda number, body: Trouble("status", 500)
    [answer] = ask(tmp_path, configured(server, retries=2), question())
    assert (answer.outcome, answer.value, server.requests) == ("failed", OFFLINE, 3)
    assert answer.reason is not None
    assert answer.reason.startswith("500")


@pytest.mark.parametrize(
    ("status", "advice"), [(400, "limits"), (401, "llm.api_key"), (403, "may use model"), (404, "llm.base_url")]
)
def test_mistakes_are_not_repeated_and_say_what_to_check(
    server: FakeOpenAI, tmp_path: Path, status: int, advice: str
) -> None:
    server.faults = [Trouble("status", status, message="no")]
    [answer] = ask(tmp_path, configured(server), question())
    assert (answer.outcome, server.requests) == ("failed", 1)
    assert answer.reason is not None
    assert advice in answer.reason


def test_used_up_credit_is_not_repeated(server: FakeOpenAI, tmp_path: Path) -> None:
    server.behave = lambda number, body: Trouble("status", 429, message="quota", code="insufficient_quota")
    answers = ask(tmp_path, configured(server), question("a"), question("b"))
    assert [answer.outcome for answer in answers] == ["failed", "degraded"]
    assert server.requests == 1


def test_a_hanging_provider_is_given_up_in_time(server: FakeOpenAI, tmp_path: Path) -> None:
    server.behave = lambda number, body: Trouble("hang")
    [answer] = ask(tmp_path, configured(server, timeout=0.1, retries=1), question())
    assert (answer.outcome, answer.value, server.requests) == ("timed_out", OFFLINE, 2)


def test_the_deadline_ends_repetition(server: FakeOpenAI, tmp_path: Path) -> None:
    server.behave = lambda number, body: Trouble("status", 429, headers={"retry-after": "30"})
    [answer] = ask(tmp_path, configured(server, deadline=0.5, retries=20), question())
    assert (answer.outcome, server.requests) == ("failed", 1)


def test_retry_after_holds_everybody_back(server: FakeOpenAI, tmp_path: Path) -> None:
    arrived: list[float] = []

    def behave(number: int, body: dict[str, Any]) -> Trouble | None:
        arrived.append(asyncio.get_running_loop().time())
        return Trouble("status", 429, headers={"retry-after": "0.4"}) if number == 1 else None

    server.behave = behave

    async def run() -> list[Answer[Verdict]]:
        async with asking(tmp_path, configured(server, concurrency=1)) as model:
            return [answer async for answer in model.answers(question(str(n)) for n in range(4))]

    answers = asyncio.run(run())
    assert {answer.outcome for answer in answers} == {"answered"}
    assert all(at - arrived[0] >= 0.39 for at in arrived[1:])


def test_personal_data_and_secrets_never_leave(server: FakeOpenAI, tmp_path: Path) -> None:
    text = (
        "Caller Anna Smith (anna.smith@contoso.com, +49 30 90182031) says db-1 at 8.8.4.4 rejects password=Winter2024! "
        "and card 4532 0151 1283 0366; see postgres://app:hunter22@db.internal/x. Ask Quirin Xaver."
    )
    planted = ["Anna Smith", "contoso", "90182031", "8.8.4.4", "Winter2024", "4532", "hunter22", "Quirin Xaver"]
    server.faults = [Trouble("content", message='{"mail": "bob.jones@contoso.com"}')]
    config = configured(server, people=("Quirin Xaver",))
    [answer] = ask(tmp_path, config, question(text))
    assert answer.outcome == "repaired"
    assert answer.redactions >= len(planted)
    assert [entry for entry in planted if entry in server.seen] == []
    assert "[email]" in server.seen
    assert calls(tmp_path)["redactions"].to_list() == [answer.redactions]


def test_redaction_can_be_switched_off(server: FakeOpenAI, tmp_path: Path) -> None:
    [answer] = ask(tmp_path, configured(server, redact=False), question("mail anna.smith@contoso.com"))
    assert answer.redactions == 0
    assert "anna.smith@contoso.com" in server.seen


def test_the_key_is_nowhere_on_disk_or_in_errors(server: FakeOpenAI, tmp_path: Path) -> None:
    key = "sk-live-" + "Z9y8" * 8
    answers = ask(tmp_path, configured(server, api_key=SecretStr(key), retries=0), question())
    assert answers[0].outcome == "failed"
    assert key not in str(answers[0].reason)
    found = [path for path in tmp_path.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]
    assert found == []
    assert key not in repr(configured(server, api_key=SecretStr(key)))


def test_a_stored_answer_is_used_and_nobody_is_asked(server: FakeOpenAI, tmp_path: Path) -> None:
    config = configured(server)
    [first] = ask(tmp_path, config, question())
    [second, other] = ask(tmp_path, config, question(), question("something else"))
    assert (second.cached, second.attempts, second.cost, second.value) == (True, 0, 0.0, first.value)
    assert not other.cached
    assert server.requests == 2
    assert calls(tmp_path)["cache_hit"].to_list() == [False, True, False]


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"temperature": 0.7}, {"max_tokens": 99}, {"text": "x"}, {"purpose": "other"}]
)
def test_only_what_matters_makes_another_question(server: FakeOpenAI, tmp_path: Path, change: dict[str, Any]) -> None:
    [_, second] = ask(tmp_path, configured(server), question(), question(**change))
    assert second.cached is ("purpose" in change)


def test_degraded_answers_are_not_stored(server: FakeOpenAI, tmp_path: Path) -> None:
    server.faults = [Trouble("refused")]
    [first, second] = ask(tmp_path, configured(server), question(), question())
    assert (first.outcome, second.outcome, second.cached) == ("refused", "answered", False)


def test_a_damaged_stored_answer_is_asked_for_again(server: FakeOpenAI, tmp_path: Path) -> None:
    [first] = ask(tmp_path, configured(server), question())
    [file] = (tmp_path / "lake" / "_llm_cache").rglob("*.json")
    for damage in (b"", b'{"content": 3}', file.read_bytes()[:-9]):
        file.write_bytes(damage)
        [again] = ask(tmp_path, configured(server), question())
        assert (again.cached, again.value) == (False, first.value)
    [last] = ask(tmp_path, configured(server), question())
    assert last.cached


def test_the_same_question_at_the_same_time_is_paid_for_once(server: FakeOpenAI, tmp_path: Path) -> None:
    server.latency = 0.05

    async def run() -> list[Answer[Verdict]]:
        async with asking(tmp_path, configured(server)) as model:
            return await asyncio.gather(*(model.structured(question()) for _ in range(5)))

    answers = asyncio.run(run())
    assert server.requests == 1
    assert sorted(answer.cached for answer in answers) == [False, True, True, True, True]


def test_one_that_waits_for_the_same_question_goes_on_when_the_first_is_cancelled(
    server: FakeOpenAI, tmp_path: Path
) -> None:
    server.latency = 0.2

    async def run() -> Answer[Verdict]:
        async with asking(tmp_path, configured(server)) as model:
            first = asyncio.create_task(model.structured(question()))
            second = asyncio.create_task(model.structured(question()))
            while server.requests == 0:
                await asyncio.to_thread(time.sleep, 0.005)
            first.cancel()
            return await second

    answer = asyncio.run(run())
    assert (answer.outcome, answer.cached, server.requests) == ("answered", False, 2)


@pytest.mark.parametrize("ordered", [True, False])
def test_many_questions_fill_the_slots_and_never_exceed_them(server: FakeOpenAI, tmp_path: Path, ordered: bool) -> None:
    server.latency = 0.03
    taken = 0

    def source() -> Iterator[Question[Verdict]]:
        nonlocal taken
        for number in range(60):
            taken += 1
            yield question(f"question {number}")

    async def run() -> list[str]:
        seen = []
        config = configured(server, concurrency=5)
        async with asking(tmp_path, config) as model:
            async for answer in model.answers(source(), ordered=ordered):
                seen.append(answer.question.messages[0].content)
                assert taken - len(seen) <= 4 * 5
        return seen

    seen = asyncio.run(run())
    assert sorted(seen) == sorted(f"question {n}" for n in range(60))
    assert not ordered or seen == [f"question {n}" for n in range(60)]
    assert server.most_at_once == 5


def test_two_models_of_a_process_share_the_slots(server: FakeOpenAI, tmp_path: Path) -> None:
    server.latency = 0.02

    async def run() -> None:
        config = configured(server, concurrency=3)
        async with asking(tmp_path, config) as one, asking(tmp_path, config) as two:
            both = (one.structured(question(f"{n}")) for n in range(12))
            more = (two.structured(question(f"{n}")) for n in range(12, 24))
            await asyncio.gather(*both, *more)

    asyncio.run(run())
    assert server.most_at_once == 3


def test_leaving_the_loop_cancels_what_is_under_way(server: FakeOpenAI, tmp_path: Path) -> None:
    async def run() -> int:
        async with asking(tmp_path, configured(server, concurrency=2)) as model:
            server.behave = lambda number, body: None if number == 1 else Trouble("hang")
            answers = model.answers((question(str(n)) for n in range(50)), ordered=False)
            async for _ in answers:
                break
            await answers.aclose()  # type: ignore[attr-defined]
            return len([task for task in asyncio.all_tasks() if "structured" in str(task.get_coro())])

    assert asyncio.run(run()) == 0
    assert server.requests <= 3


def test_questions_may_come_asynchronously(server: FakeOpenAI, tmp_path: Path) -> None:
    async def source() -> AsyncIterator[Question[Verdict]]:
        for number in range(3):
            await asyncio.sleep(0)
            yield question(str(number))

    async def run() -> int:
        async with asking(tmp_path, configured(server)) as model:
            return len([answer async for answer in model.answers(source())])

    assert asyncio.run(run()) == 3


def test_a_provider_that_is_down_is_left_alone(server: FakeOpenAI, tmp_path: Path) -> None:
    server.behave = lambda number, body: Trouble("status", 500)
    config = configured(server, retries=0, breaker={"failures": 3, "pause": 0.3}, cache={"enabled": False})

    async def run() -> tuple[list[str], str, int, str]:
        async with asking(tmp_path, config) as model:
            down = [(await model.structured(question())).outcome for _ in range(8)]
            requests = server.requests
            server.behave = lambda number, body: None
            until = asyncio.get_running_loop().time() + 10
            while (answer := await model.structured(question())).degraded:
                assert asyncio.get_running_loop().time() < until
                reason = str(answer.reason)
                await asyncio.to_thread(time.sleep, 0.02)
            return [str(outcome) for outcome in down], answer.outcome, requests, reason

    down, after, requests, reason = asyncio.run(run())
    assert down == ["failed"] * 3 + ["degraded"] * 5
    assert (after, requests) == ("answered", 3)
    assert reason.startswith("provider down, tried again in")


@pytest.mark.parametrize(
    ("unsupported", "expected"),
    [
        ({"json_schema"}, {"response_format": {"type": "json_object"}}),
        ({"json_schema", "json_object"}, {}),
        ({"temperature"}, {}),
        ({"seed", "temperature", "json_schema"}, {}),
        ({"max_tokens"}, {}),
    ],
    ids=lambda value: "+".join(sorted(value)) or "nothing",
)
def test_what_a_server_does_not_take_is_left_out_from_then_on(
    server: FakeOpenAI, tmp_path: Path, unsupported: set[str], expected: dict[str, Any]
) -> None:
    server.unsupported = frozenset(unsupported)
    answers = ask(tmp_path, configured(server), question("a", seed=1), question("b", seed=1))
    assert [answer.outcome for answer in answers] == ["answered", "answered"]
    assert answers[1].attempts == 1
    last = server.bodies[-1]
    assert not unsupported & set(last)
    assert expected.items() <= last.items()


def test_a_server_that_refuses_both_names_of_the_length_is_given_up(server: FakeOpenAI, tmp_path: Path) -> None:
    server.unsupported = frozenset({"max_tokens", "max_completion_tokens"})
    [answer] = ask(tmp_path, configured(server), question())
    assert (answer.outcome, server.requests) == ("failed", 2)


def test_an_answer_that_cannot_be_stored_is_handed_on(
    server: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("aiops_assets.llm.cache.AnswerCache.put", full)
    monkeypatch.setattr("aiops_assets.llm.cache.AnswerCache.get", full)
    answers = ask(tmp_path, configured(server), question(), question())
    assert [answer.outcome for answer in answers] == ["answered", "answered"]
    assert server.requests == 2


def test_tools_carry_the_schema_too(server: FakeOpenAI, tmp_path: Path) -> None:
    [answer] = ask(tmp_path, configured(server, structured="tools"), question())
    assert answer.outcome == "answered"
    assert server.bodies[0]["tools"][0]["function"]["parameters"]["required"] == ["summary", "severity", "score"]
    server.unsupported = frozenset({"tools"})
    [fallen_back] = ask(tmp_path, configured(server, structured="tools"), question("other"))
    assert fallen_back.outcome == "answered"
    assert server.bodies[-1]["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize("path", ["", "/openai/v1"])
def test_azure_is_asked_in_both_of_its_forms(server: FakeOpenAI, tmp_path: Path, path: str) -> None:
    config = configured(server, provider="azure", base_url=server.url + path, model="incidents")
    [answer] = ask(tmp_path, config, question())
    assert (answer.outcome, answer.provider) == ("answered", "azure")
    wanted = "/openai/v1/chat/completions"
    assert server.paths == [wanted if path else "/openai/deployments/incidents/chat/completions?api-version=2024-10-21"]
    assert "max_completion_tokens" in server.bodies[0]


def test_a_deployment_that_is_missing_is_named(server: FakeOpenAI, tmp_path: Path) -> None:
    config = configured(server, provider="azure", base_url=server.url, model="missing")
    [answer] = ask(tmp_path, config, question())
    assert answer.reason is not None
    assert "'llm.model' ('missing')" in answer.reason


def test_ollama_needs_no_key(tmp_path: Path) -> None:
    fake = FakeOpenAI(api_key=None, usage=False)
    with fake.serving():
        config = Llm(provider="ollama", model="llama3", base_url=f"{fake.url}/v1")
        [answer] = ask(tmp_path, config, question())
    assert answer.outcome == "answered"
    assert answer.prompt_tokens > 0
    assert "max_tokens" in fake.bodies[0]


def test_over_budget_is_answered_offline_and_says_so(server: FakeOpenAI, tmp_path: Path) -> None:
    config = configured(server, budgets={"test": {"calls": 2}})
    answers = ask(tmp_path, config, *(question(str(n)) for n in range(4)), question("free", purpose="other"))
    assert [answer.outcome for answer in answers] == ["answered", "answered", "degraded", "degraded", "answered"]
    assert answers[2].value == OFFLINE
    assert str(answers[2].reason).startswith("budget: calls of purpose 'test' would be 3 of 2")
    assert server.requests == 3
    [stored] = ask(tmp_path, config, question("0"))
    assert stored.cached


def test_a_repair_beyond_the_budget_is_not_asked_for(server: FakeOpenAI, tmp_path: Path) -> None:
    server.faults = [Trouble("prose")]
    [answer] = ask(tmp_path, configured(server, budget={"calls": 1}), question())
    assert (answer.outcome, answer.attempts, server.requests) == ("not_json", 1, 1)


def test_a_storm_of_troubles_ends_in_valid_answers_and_one_row_each(server: FakeOpenAI, tmp_path: Path) -> None:
    kinds = ("", "status", "reset", "truncated", "broken_json", "wrong_schema", "refused", "torn", "html", "empty", "")

    def behave(number: int, body: dict[str, Any]) -> Trouble | None:
        kind = kinds[number * 7919 % len(kinds)]
        return Trouble(kind, 500) if kind else None

    server.behave = behave
    server.latency = 0.002
    config = configured(server, concurrency=8, breaker={"failures": 1000})

    async def run() -> list[Answer[Verdict]]:
        async with asking(tmp_path, config) as model:
            return [answer async for answer in model.answers((question(f"q{n}") for n in range(150)), ordered=False)]

    answers = asyncio.run(run())
    assert len({answer.question.messages[0].content for answer in answers}) == 150
    assert all(isinstance(answer.value, Verdict) for answer in answers)
    assert all(answer.degraded == (answer.value == OFFLINE) for answer in answers)
    assert server.most_at_once <= 8
    rows = calls(tmp_path)
    assert len(rows) == 150
    assert rows["attempts"].sum() == server.requests


def test_a_wrong_purpose_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="purpose 'Golden Incident'"):
        question(purpose="Golden Incident")
    assert json.loads(OFFLINE.model_dump_json())["severity"] == "low"
