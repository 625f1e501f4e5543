"""What is put in the place of finds: the same for the same, nothing that is found again, nothing lost beside it."""

from __future__ import annotations

import random

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops_assets.privacy.corpus import MAKERS, corpus
from aiops_assets.privacy.detect import KINDS, People, find
from aiops_assets.privacy.redact import redacted, replaced
from tests.examples import examples

PIECES = st.one_of(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 2**32)).map(lambda both: MAKERS[both[0]](random.Random(both[1]))),
    st.text(max_size=12),
    st.sampled_from(["password=", "Dear ", "Regards,\n", "Call ", "SSN ", "user:", "@", " ", "", "://", ":", "token "]),
)
TEXTS = st.lists(PIECES, max_size=8).map("".join)


@settings(max_examples=examples(400), deadline=None)
@given(text=TEXTS)
def test_redacting_twice_changes_nothing(text: str) -> None:
    once, count = redacted(text)
    assert redacted(once) == (once, 0)
    assert (once == text) == (count == 0)
    assert find([once]).is_empty()


@settings(max_examples=examples(300), deadline=None)
@given(texts=st.lists(TEXTS, max_size=4))
def test_nothing_is_found_in_what_was_replaced(texts: list[str]) -> None:
    made = replaced(texts, "salt")
    assert find(made).is_empty()
    assert replaced(made, "salt").to_list() == made.to_list()
    assert len(made) == len(texts)


def test_the_words_around_stay() -> None:
    text = "User anna.smith@contoso.com at 8.8.4.4, card 4532 0151 1283 0366: login fails."
    assert redacted(text) == ("User [email] at [ip], card [card]: login fails.", 3)


def test_the_same_becomes_the_same_and_others_become_others() -> None:
    texts = ["anna@contoso.com", "mail ANNA@contoso.com now", "bob@contoso.com"]
    one, two, other = replaced(texts, "s")
    assert one in two
    assert one != other
    assert replaced(texts, "s").to_list() == [one, two, other]
    assert replaced(texts, "another salt")[0] != one
    phones = replaced(["call +1 212-867-5309", "call +1 (212) 867 5309", "call +1 212-867-5310"], "s")
    assert phones[0] == phones[1] != phones[2]


def test_every_kind_is_replaced_by_a_form_that_belongs_to_nobody() -> None:
    draw = random.Random(4)
    texts = [f"see {MAKERS[kind](draw)} there" for kind in KINDS for _ in range(200)]
    known = set(find(texts)["row"])
    assert len(known) > 0.98 * len(texts)
    made = replaced(texts, "salt")
    assert find(made).is_empty()
    for row in known:
        assert made[row] != texts[row]
        assert made[row].startswith("see ")
        assert made[row].endswith(" there")


def test_a_corpus_comes_out_without_a_trace_of_what_was_planted() -> None:
    planted = corpus(800, seed=5)
    found = planted.truth.join(find(planted.texts), on=["row", "kind", "start", "end"]).select("row", "text")
    made = replaced(planted.texts, "salt")
    assert find(made).is_empty()
    left = [text for row, text in found.iter_rows() if len(text) > 6 and text in made[row]]
    assert left == []


def test_nulls_names_and_configured_people() -> None:
    column = pl.Series("description", [None, "Ask Quirin Zwetschge", ""])
    made = replaced(column, "s", people=People.of(["Quirin Zwetschge"]))
    assert made.name == "description"
    assert made[0] is None
    assert made[1].startswith("Ask person.")
    assert redacted("ask QUIRIN ZWETSCHGE", people=People.of(["Quirin Zwetschge"])) == ("ask [person]", 1)
    assert redacted("mail jane@example.com", reserved=True) == ("mail [email]", 1)
