"""Incidents told by a language model: facts stay, texts are held against them, what cannot be used stays offline."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import SecretStr

from aiops_assets.config import Llm, LlmBudget, LlmCache
from aiops_assets.operations.database import upgrade
from aiops_assets.privacy.detect import find
from aiops_assets.settings import Settings
from aiops_assets.synthetic.golden.config import default_config
from aiops_assets.synthetic.golden.from_model import ModelBatch, Tally
from aiops_assets.synthetic.golden.generate import generate
from aiops_assets.synthetic.golden.journal import BatchBusy, Journal
from aiops_assets.synthetic.golden.text_checks import Facts, Texts, problems
from aiops_assets.synthetic.golden.topics import Topics, learn
from tests.fakes.golden_model import Spoil, asked, content
from tests.fakes.openai_server import API_KEY, FakeOpenAI, Trouble

COUNT, SEED = 12, 5
TEXTS = {"short_description", "description", "work_notes", "resolution_notes", "ai_confidence_score", "model_version"}


@pytest.fixture(scope="module")
def offline() -> pl.DataFrame:
    return generate(default_config(), count=COUNT, seed=SEED)


@cache
def learnt() -> Topics:
    return learn(generate(default_config(), count=2_000, seed=0))


@pytest.fixture
def topics() -> Topics:
    return learnt()


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    fake = FakeOpenAI(content=content())
    with fake.serving():
        yield fake


@pytest.fixture(scope="module")
def new_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Settings(home=tmp_path_factory.mktemp("new") / "home")
    made.paths.create()
    upgrade(made.paths.operations_url)
    return made.paths.root


@pytest.fixture
def settings(tmp_path: Path, new_home: Path) -> Settings:
    shutil.copytree(new_home, tmp_path / "home")
    return Settings(home=tmp_path / "home")


def llm(server: FakeOpenAI, **more: Any) -> Llm:
    given = {"provider": "compatible", "model": "m1", "base_url": f"{server.url}/v1", "api_key": SecretStr(API_KEY)}
    return Llm(**{**given, "retries": 0, "concurrency": 4, **more})


def opened(settings: Settings, config: Llm, count: int = COUNT, **more: Any) -> ModelBatch:
    return ModelBatch(
        settings, config, default_config(), seed=SEED, count=count, topics=learnt(), **{"a_question": 1, **more}
    )


def told(settings: Settings, config: Llm, count: int = COUNT, **more: Any) -> tuple[pl.DataFrame, Tally]:
    with opened(settings, config, count, **more) as batch:
        frame = pl.concat(batch.frames())
        batch.finish()
    return frame, batch.tally


def english(offline: pl.DataFrame) -> pl.Series:
    """Rows whose offline texts the checks take: those of the fake are made of them."""
    return offline["language"] == "en"


def test_the_model_writes_the_texts_and_nothing_else(
    settings: Settings, server: FakeOpenAI, offline: pl.DataFrame
) -> None:
    frame, tally = told(settings, llm(server))
    kept = [name for name in frame.columns if name not in TEXTS]
    assert frame.select(kept).equals(offline.select(kept))
    by_model = frame["model_version"] == "compatible/m1"
    assert by_model.sum() == tally.told >= english(offline).sum() - 1
    assert tally.told + sum(tally.kept.values()) == COUNT
    written = frame.filter(by_model)
    assert written["description"].str.contains("told once more").all()
    for row, before in zip(written.iter_rows(named=True), offline.filter(by_model).iter_rows(named=True), strict=True):
        for note, outline in zip(row["work_notes"], before["work_notes"], strict=True):
            assert (note["written_at"], note["author"]) == (outline["written_at"], outline["author"])
            automatic = note["author"] in {"system", "svc.monitoring"}
            assert (note["note"] == outline["note"]) is automatic
        assert (row["resolution_notes"] is None) is (before["resolution_notes"] is None)


def test_confidence_is_computed_and_not_asked_for(settings: Settings, server: FakeOpenAI) -> None:
    from aiops_assets.synthetic.golden.confidence import confidence

    frame, _ = told(settings, llm(server))
    assert frame["ai_confidence_score"].equals(confidence(frame, default_config()))
    assert "confidence" not in server.seen


def test_a_question_carries_the_facts_in_the_language_of_the_incident(
    settings: Settings, server: FakeOpenAI, offline: pl.DataFrame
) -> None:
    told(settings, llm(server))
    names = {"en": "English", "de": "German"}
    first = {facts["incident_id"]: facts for body in server.bodies for facts in asked(body)}
    assert set(first) == set(offline["incident_id"])
    for row in offline.iter_rows(named=True):
        facts = first[row["incident_id"]]
        assert (facts["category"], facts["language"]) == (row["category"], names[row["language"]])
        assert len(facts["entries"]) == sum(
            note["author"] not in {"system", "svc.monitoring"} for note in row["work_notes"]
        )


def test_several_incidents_a_question_need_fewer_questions(settings: Settings, server: FakeOpenAI) -> None:
    frame, tally = told(settings, llm(server), a_question=6)
    assert tally.questions <= 2 * COUNT / 6
    assert frame.height == COUNT
    assert tally.told > 0


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda facts, good, turn: good | {"work_notes": good["work_notes"][1:]}, "work_notes needs exactly"),
        (lambda facts, good, turn: good | {"description": "Sorry"}, "description has 5 characters"),
        (lambda facts, good, turn: good | {"description": f"{good['description']} {{user}}"}, "placeholder"),
        (lambda facts, good, turn: good | {"description": "As an AI language model I cannot say."}, "not what people"),
    ],
)
def test_texts_that_do_not_hold_are_asked_for_once_more(
    spoil: Spoil, words: str, settings: Settings, server: FakeOpenAI
) -> None:
    server.content = content(lambda facts, good, turn: spoil(facts, good, turn) if turn == 1 else good)
    _, tally = told(settings, llm(server), count=8)
    assert tally.repaired == tally.told > 0
    assert tally.questions == 16
    assert words in server.seen


def test_texts_that_stay_wrong_leave_the_offline_ones_and_say_so(
    settings: Settings, server: FakeOpenAI, offline: pl.DataFrame
) -> None:
    wrong = set(offline["incident_id"][:3])
    server.content = content(
        lambda facts, good, turn: good | {"description": "no"} if facts["incident_id"] in wrong else good
    )
    frame, tally = told(settings, llm(server))
    assert frame["description"][:3].equals(offline["description"][:3])
    assert frame["model_version"][:3].to_list() == [f"{offline['model_version'][0]} for compatible/m1"] * 3
    assert tally.kept["texts"] >= 3


def test_personal_data_of_a_model_does_not_get_through(settings: Settings, server: FakeOpenAI) -> None:
    leak = "Call Anna Smith on +49 30 901820 or write to anna.smith@contoso-mail.com."
    server.content = content(lambda facts, good, turn: good | {"description": f"{good['description']} {leak}"})
    frame, tally = told(settings, llm(server))
    assert tally.told > 0
    assert tally.sanitised["email"] == tally.told
    assert not frame["description"].str.contains("contoso-mail").any()
    assert find(frame["description"]).is_empty()


def test_the_same_description_twice_is_taken_once(settings: Settings, server: FakeOpenAI) -> None:
    same = "The screen stays dark when the computer is started, nothing else happens then."
    server.content = content(lambda facts, good, turn: good | {"description": same})
    frame, tally = told(settings, llm(server))
    assert (frame["description"] == same).sum() <= 1
    assert tally.kept["repeated"] > 0


def test_a_spent_budget_degrades_and_does_not_fail(
    settings: Settings, server: FakeOpenAI, offline: pl.DataFrame
) -> None:
    frame, tally = told(settings, llm(server, budget=LlmBudget(calls=5)))
    assert server.requests <= 5
    assert tally.kept["budget"] >= COUNT - 5
    assert tally.reason
    assert frame.height == offline.height


def test_what_a_broken_provider_left_out_is_asked_for_when_it_is_back(settings: Settings, server: FakeOpenAI) -> None:
    server.behave = lambda number, body: Trouble("status", 500) if number > 4 else None
    config = llm(server, breaker={"failures": 1000})
    with opened(settings, config) as batch:
        pl.concat(batch.frames())
    assert batch.tally.kept["provider"] > 0
    before, server.behave = batch.tally, lambda number, body: None
    _, tally = told(settings, config)
    assert tally.kept["provider"] == 0
    assert tally.told > before.told
    assert tally.resumed >= before.told


@pytest.mark.parametrize("cached", [True, False])
def test_a_batch_that_is_begun_again_asks_nothing_twice(cached: bool, settings: Settings, server: FakeOpenAI) -> None:
    config = llm(server, cache=LlmCache(enabled=cached))
    with opened(settings, config) as batch:
        first = pl.concat(batch.frames())
    sent = server.requests
    second, tally = told(settings, config)
    assert server.requests == sent
    assert tally.resumed == COUNT
    assert second.equals(first)
    third, tally = told(settings, config)
    assert (tally.resumed, server.requests == sent) == (0, cached)
    assert third.equals(first)


def test_two_processes_do_not_pay_for_the_same_batch(settings: Settings, server: FakeOpenAI) -> None:
    config = llm(server)
    with (
        opened(settings, config),
        pytest.raises(BatchBusy, match="another process"),
    ):
        opened(settings, config)


@pytest.mark.parametrize("more", [{"count": 10_001}, {"count": 0}, {"count": 5, "a_question": 21}])
def test_sizes_beyond_the_limits_are_refused(more: dict[str, int], settings: Settings, server: FakeOpenAI) -> None:
    with pytest.raises(ValueError, match="allowed are 1 to"):
        opened(settings, llm(server), **more)


def test_leaving_in_the_middle_stops_asking(settings: Settings, server: FakeOpenAI) -> None:
    server.latency = 0.05
    with opened(settings, llm(server, concurrency=2), 400) as batch:
        frames = batch.frames()
        next(frames)
        frames.close()  # type: ignore[attr-defined]
    assert server.requests < 200


# -- journal ----------------------------------------------------------------------------------------------------------


def test_a_torn_line_at_the_end_of_a_journal_is_cut(tmp_path: Path) -> None:
    with Journal(tmp_path, "a") as journal:
        journal.put("one", {"texts": ["x"], "reason": ""})
        journal.put("two", {"texts": None, "reason": "texts"})
        journal.sync()
    whole = journal.path.read_bytes()
    for torn in (b'{"key":"three","te', b"\x00\x00\n", b'{"no":1}\n'):
        journal.path.write_bytes(whole + torn)
        with Journal(tmp_path, "a") as again:
            assert len(again) == 2
            assert again.get("one") == {"texts": ["x"], "reason": ""}
        assert journal.path.read_bytes() == whole


# -- checks -----------------------------------------------------------------------------------------------------------

GOOD = Texts(
    "Outlook closes right after its start",
    "Since this morning Outlook closes right after its start. I have restarted the computer, it did not help.",
    ("Called back, the profile is damaged.", "New profile made, mail is there again."),
    "The mail profile was damaged and has been made anew.",
)
FACTS = Facts("Email and Calendar", "en", 2, resolved=True)


def test_good_texts_have_no_problems(topics: Topics) -> None:
    assert problems(GOOD, FACTS, topics) == []


def test_another_language_is_noticed() -> None:
    german = Texts(
        "Outlook schließt sich nach dem Start",
        "Seit heute Morgen schließt sich Outlook direkt nach dem Start. Ich habe den Rechner neu gestartet, es ist "
        "nicht besser. Bitte um Hilfe, ich kann keine Mail lesen und der Kunde wartet.",
        ("Mit dem Anrufer gesprochen, das Profil ist defekt.", "Das Profil wurde neu angelegt."),
        "Das Profil war defekt und wurde neu angelegt.",
    )
    assert problems(german, FACTS) == ["the texts must be in the language 'en', these read like 'de'"]
    assert problems(german, Facts("Email and Calendar", "de", 2, resolved=True)) == []
    assert problems(GOOD, Facts("Email and Calendar", "de", 2, resolved=True)) != []
    assert problems(GOOD, Facts("Email and Calendar", "xx", 2, resolved=True)) == []


def test_texts_of_another_category_are_noticed_and_those_of_their_own_are_not(topics: Topics) -> None:
    frame = generate(default_config(), count=600, seed=77).filter(pl.col("language") == "en")
    categories = sorted(set(frame["category"]))
    own = other = 0
    for row in frame.iter_rows(named=True):
        text = "\n".join([row["short_description"], row["description"], row["resolution_notes"] or ""])
        own += topics.other(row["category"], text) is not None
        wrong = categories[(categories.index(row["category"]) + 1) % len(categories)]
        other += topics.other(wrong, text) is not None
    assert own <= 0.03 * frame.height
    assert other >= 0.7 * frame.height
    assert topics.other("a category nobody knows", "anything at all") is None


def test_a_resolution_belongs_to_resolved_incidents_only() -> None:
    unresolved = Facts("Email and Calendar", "en", 2, resolved=False)
    assert problems(GOOD, unresolved) == ["resolution_notes must be null: the incident is not resolved"]
