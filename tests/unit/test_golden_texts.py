"""What golden incidents say: whole phrases, one story, much variety, nobody's data; and what the score makes of it."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache
from typing import Any

import polars as pl
import pytest

from aiops_assets.privacy.detect import find
from aiops_assets.synthetic.golden.confidence import WEIGHTS, checks, confidence
from aiops_assets.synthetic.golden.config import LANGUAGES, GoldenConfig, default_config
from aiops_assets.synthetic.golden.generate import generate
from aiops_assets.synthetic.golden.grammar import CONTEXTS, Grammar, how_reported
from aiops_assets.synthetic.golden.population import handle
from aiops_assets.synthetic.golden.wording import Slots, contexts_of, phrases, role, topics

COUNT = 4_000


@cache
def made() -> pl.DataFrame:
    return generate(default_config(), count=COUNT, seed=21)


def entries() -> pl.DataFrame:
    """One row an entry, with the ticket's number and fields."""
    return made().explode("work_notes").unnest("work_notes")


def every_text() -> pl.Series:
    frame = made()
    return pl.concat(
        [frame["short_description"], frame["description"], frame["resolution_notes"].drop_nulls(), entries()["note"]]
    )


# --- phrases


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_role_has_phrases_in_all_its_contexts(language: str) -> None:
    for name, keys in CONTEXTS.items():
        for key, context in zip(keys, contexts_of(language, name, keys), strict=True):
            assert context, f"{language}: {name}: {key}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_answers_stand_beside_their_questions(language: str) -> None:
    for question, answer in (("asked", "answered"), ("vendor_asked", "vendor_answered")):
        assert len(phrases(language)[question]) == len(phrases(language)[answer])


def test_languages_know_the_same_topics_in_the_same_order() -> None:
    english = topics("en")
    for language in LANGUAGES:
        known = topics(language)
        assert list(known) == list(english)
        for subject, topic in known.items():
            assert len(topic.symptoms) == len(english[subject].symptoms) >= 4
            assert [cause[2] for cause in topic.causes] == [cause[2] for cause in english[subject].causes]
            assert all(topic.fits), f"{language}: {subject}: a symptom without a cause"


def test_the_shipped_company_has_phrases_for_all_it_knows() -> None:
    for category in default_config().categories:
        for sub in category.subcategories:
            assert (category.name, sub.name) in topics("en")


def test_phrases_are_filled_column_by_column() -> None:
    some = role([["a {x} b {y}!", "none"], ["{y}"]])
    slots = Slots({"x": pl.Series(["1", "2", "3"]), "y": pl.Series(["p", "q", "r"])})
    assert some.texts(pl.Series([0, 1, 2]).to_numpy(), slots).to_list() == ["a 1 b p!", "none", "r"]
    of_events = Slots(slots.of_tickets, {"y": pl.Series(["E", "F"])})
    told = some.texts(pl.Series([0, 2]).to_numpy(), of_events, pl.Series([2, 0]).to_numpy())
    assert told.to_list() == ["a 3 b E!", "F"]


def test_ways_of_reporting_are_known_by_their_names() -> None:
    assert [how_reported(name) for name in ("Phone", "Telefon", "E-Mail", "Email")] == [2, 2, 0, 0]
    assert [how_reported(name) for name in ("Event Management", "Virtual agent chat", "Walk-in", "Direct opening")] == [
        5,
        4,
        3,
        1,
    ]


# --- texts


def test_no_text_is_left_unfinished() -> None:
    texts = every_text()
    assert not texts.str.contains(r"[{}]|  |^ | $|\bNone\b| \.").any()
    assert (texts.str.len_chars() > 0).all()
    assert (made()["short_description"].str.len_chars() <= 160).all()


def test_texts_are_of_their_language() -> None:
    german, english = (made().filter(pl.col("language") == language)["description"] for language in ("de", "en"))
    assert german.len() > 500
    assert english.len() > 500
    marks = r"(?i)\b(ist|nicht|und|das|die|der|es|ich|bei|auf)\b"
    assert german.str.contains(marks).mean() > 0.99
    assert english.str.contains(r"(?i)\b(nicht|und|das|ich|wird|der)\b").mean() < 0.01


def test_texts_hold_nothing_personal() -> None:
    found = find(every_text().gather_every(2))
    assert found.height == 0, found.head(5)


def test_descriptions_are_hardly_ever_alike() -> None:
    shingles = []
    for text in made()["description"]:
        words = text.lower().split()
        shingles.append(frozenset(zip(words, words[1:], words[2:], strict=False)))
    holders: dict[Any, list[int]] = defaultdict(list)
    for number, own in enumerate(shingles):
        for shingle in own:
            holders[shingle].append(number)
    alike: set[int] = set()
    for number, own in enumerate(shingles):
        # Two sets that share four fifths share one of any fifth and one more: the rarest ones bring few candidates.
        rare = sorted(own, key=lambda shingle: (len(holders[shingle]), shingle))[: len(own) // 5 + 1]
        candidates = {other for shingle in rare for other in holders[shingle] if other < number}
        if any(len(own & shingles[o]) >= 0.8 * len(own | shingles[o]) for o in candidates):
            alike.add(number)
    assert len(alike) / COUNT <= 0.01
    assert made()["short_description"].n_unique() > 0.75 * COUNT
    assert made()["description"].n_unique() == COUNT


def test_technical_people_write_otherwise() -> None:
    base = default_config()
    told = {}
    for level in ("low", "high"):
        values = base.model_dump(by_alias=True)
        values["personas"] = [{**persona, "technical_level": level} for persona in values["personas"]]
        told[level] = generate(GoldenConfig.model_validate(values), count=600, seed=2)["description"]
    technical = r"(?i)log|reproduc|reproduz|trace|ping|narrow|eingrenz|cache|zwischenspeicher|protokoll"
    assert told["high"].str.contains(technical).mean() > 2 * told["low"].str.contains(technical).mean()


def test_wording_can_be_without_typos_and_haste() -> None:
    values = default_config().model_dump(by_alias=True)
    tidy, hasty = (
        generate(GoldenConfig.model_validate({**values, "wording": wording}), count=500, seed=2)
        for wording in ({"typos": 0, "telegraphic": 0}, {"typos": 1, "telegraphic": 0.5})
    )
    lower = [(frame["description"] == frame["description"].str.to_lowercase()).mean() for frame in (tidy, hasty)]
    assert lower[0] < 0.01
    assert lower[1] > 0.3
    wrong = r"\b(teh|recieve|becuase|porblem|nciht|udn|weider|adn|dsa)\b"
    assert not tidy["description"].str.contains(wrong).any()
    assert hasty["description"].str.contains(wrong).mean() > 0.2


# --- one story


def test_entries_tell_who_had_the_ticket() -> None:
    by_ticket = made().filter((pl.col("reassignment_count") > 0) & (pl.col("state") == "Closed"))
    groups = sorted((group.name for group in default_config().groups), key=len, reverse=True)
    pattern = re.compile("|".join(re.escape(name) for name in groups))
    for row in by_ticket.head(150).iter_rows(named=True):
        named = [pattern.findall(note["note"]) for note in row["work_notes"]]
        assert any(row["assignment_group"] in found for found in named), row["incident_id"]
        assert row["work_notes"][-2]["author"] == row["assigned_to"] or row["work_notes"][-1]["author"] == "system"


def test_a_ticket_that_came_back_says_so() -> None:
    rows = made().filter((pl.col("reopen_count") > 0) & (pl.col("state") == "Closed"))
    assert rows.height > 50
    for row in rows.head(80).iter_rows(named=True):
        back = [note for note in row["work_notes"] if note["written_at"] == row["reopened_at"]]
        assert any(note["author"] == row["caller_id"] for note in back)
        assert row["resolved_at"] >= row["reopened_at"]
        solved = next(note for note in row["work_notes"] if note["written_at"] == row["resolved_at"])
        assert solved["author"] == row["assigned_to"]


def test_the_cause_of_the_resolution_is_that_of_the_entries_and_of_the_code() -> None:
    names = phrases("en")["codes"]
    known = {
        cause: names[code]
        for language in LANGUAGES
        for topic in topics(language).values()
        for _, cause, code in topic.causes
        if "{" not in cause
    }
    rows = made().filter(pl.col("resolution_notes").is_not_null()).head(1_500)
    judged = 0
    for row in rows.iter_rows(named=True):
        fix = next((fix for fix in known if fix in row["resolution_notes"]), None)
        if fix is None:
            continue
        judged += 1
        assert row["close_code"] == known[fix]
        if row["reopen_count"] == 0:
            assert any(fix in note["note"] for note in row["work_notes"]), row["incident_id"]
    assert judged > 1_000


def test_monitoring_does_not_speak_as_a_person() -> None:
    alerts = made().filter(pl.col("contact_type") == "Monitoring")
    assert alerts.height > 50
    assert not alerts["description"].str.contains(r"\b(I|my|me|we|colleagues|caller)\b").any()
    written = alerts.explode("work_notes").unnest("work_notes")
    assert (written["author"].str.contains(r"^(svc\.monitoring|system|[a-z]+\.[a-z]\d*)$")).all()


def test_handles_are_different_for_different_people() -> None:
    some = [handle(number) for number in range(30_000)]
    assert len(set(some)) == len(some)
    assert all(re.fullmatch(r"[a-z]{4,6}\.[a-z]\d*", name) for name in some)


def test_callers_keep_location_and_language() -> None:
    people = made().filter(pl.col("contact_type") != "Monitoring").group_by("caller_id")
    assert people.agg(pl.col("location").n_unique())["location"].max() == 1
    assert people.agg(pl.col("language").n_unique())["language"].max() == 1


# --- the score


def test_the_score_is_no_constant_and_mostly_high() -> None:
    score = made()["ai_confidence_score"]
    assert score.is_between(0, 1).all()
    assert score.n_unique() > 8
    assert 0.85 < score.mean() < 0.99  # type: ignore[operator]
    assert confidence(made(), default_config()).equals(score)


FAULTS: dict[str, tuple[pl.Expr, str]] = {
    "another priority": (((pl.col("priority") % 5) + 1).alias("priority"), "priority_by_matrix"),
    "resolved before opened": ((pl.col("opened_at") - pl.duration(days=1)).alias("resolved_at"), "times_in_order"),
    "another state": (pl.lit("New").alias("state"), "state_fits_times"),
    "an unknown category": (pl.lit("Kitchen").alias("category"), "names_known"),
    "a group that does not fit": (
        pl.when(pl.col("category") == "Printing")
        .then(pl.lit("ERP Basis"))
        .otherwise(pl.lit("Print"))
        .alias("assignment_group"),
        "group_fits_category",
    ),
    "a promise kept that was not": (pl.col("made_sla").not_().alias("made_sla"), "sla_agrees"),
    "entries backwards": (pl.col("work_notes").list.reverse().alias("work_notes"), "entries_in_order"),
    "entries lost": (pl.col("work_notes").list.head(1).alias("work_notes"), "entries_cover_changes"),
    "too few updates": (pl.lit(0, pl.Int32).alias("update_count"), "updates_cover_entries"),
    "no resolution": (pl.lit(None, pl.String).alias("resolution_notes"), "resolution_told"),
    "a resolution of something else": (
        pl.lit("Replaced burnt croissants with fresh ones from yonder bakery").alias("resolution_notes"),
        "resolution_in_entries",
    ),
    "an empty report": (pl.lit("Help.").alias("description"), "complete"),
    "a novel as summary": (pl.col("description").alias("short_description"), "summary_is_short"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_wrong_with_a_record_lowers_its_score_by_the_right_check(name: str) -> None:
    config, (fault, check) = default_config(), FAULTS[name]
    frame = made().filter(pl.col("state") == "Closed").head(500)
    spoilt = frame.with_columns(fault.cast(frame.schema[fault.meta.output_name()]))
    before, after = checks(frame, config)[check], checks(spoilt, config)[check]
    assert before.mean() > 0.85  # type: ignore[operator]
    assert after.mean() < 0.15  # type: ignore[operator]
    assert (confidence(spoilt, config) < confidence(frame, config)).mean() > 0.8


def test_texts_of_another_category_are_not_evident() -> None:
    config = default_config()
    frame = made().filter(pl.col("category") == "Printing")
    other = made().filter(pl.col("category") == "Email and Calendar").head(frame.height)
    moved = frame.head(other.height).with_columns(other["description"], other["short_description"])
    held, lost = checks(frame, config)["category_evident"].mean(), checks(moved, config)["category_evident"].mean()
    assert held > 0.9  # type: ignore[operator]
    assert lost < 0.1  # type: ignore[operator]


def test_weights_are_of_checks_that_are_made() -> None:
    assert list(checks(made().head(5), default_config()).columns) == list(WEIGHTS)
    assert confidence(made().clear(), default_config()).len() == 0
    assert len(Grammar(default_config()).subjects) == sum(len(c.subcategories) for c in default_config().categories)
