"""Personal data and secrets: found wherever they stand, and nothing else is."""

from __future__ import annotations

import random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops_assets.privacy.corpus import MAKERS, NEGATIVES, corpus, password, score
from aiops_assets.privacy.detect import KINDS, People, find, spans
from aiops_assets.privacy.numbers import IBAN_LENGTHS, is_card, luhn, mod_97
from aiops_assets.privacy.spans import Span, settled
from tests.examples import examples

#: what may stand beside an item without being part of it
SURROUNDINGS = st.sampled_from(["", " ", "\n", "\t", "(", ")", '"', "'", ", ", "; ", "\r\n", "|", "<", ">", "[", "]"])


def kinds(text: str, **more: object) -> list[tuple[str, str]]:
    return [(span.kind, text[span.start : span.end]) for span in spans(text, **more)]  # type: ignore[arg-type]


@settings(max_examples=examples(400), deadline=None)
@given(
    kind=st.sampled_from([kind for kind in KINDS if kind != "person"]),
    seed=st.integers(0, 2**32),
    before=SURROUNDINGS,
    after=SURROUNDINGS,
    negative=st.sampled_from(NEGATIVES),
    where=st.integers(0, 2),
)
def test_planted_items_are_found_wherever_they_stand(
    kind: str, seed: int, before: str, after: str, negative: str, where: int
) -> None:
    item = MAKERS[kind](random.Random(seed))
    text = before + item + after
    text = (text, f"{negative}\n{text}", f"{text}\n{negative}")[where]
    start = text.index(item)
    found = [span for span in spans(text) if span.start <= start and span.end >= start + len(item)]
    assert [span.kind for span in found] == [kind], (item, kinds(text))


@settings(max_examples=examples(200), deadline=None)
@given(seed=st.integers(0, 2**32), phrase=st.sampled_from(["password={}", "pwd: '{}'", "new password is {}"]))
def test_passwords_are_found_behind_the_word_for_them(seed: int, phrase: str) -> None:
    chosen = password(random.Random(seed))
    assert ("secret", chosen) in kinds(phrase.format(chosen))


@settings(max_examples=examples(150), deadline=None)
@given(texts=st.lists(st.text(max_size=80), max_size=12))
def test_any_text_is_scanned_and_the_column_says_what_single_texts_say(texts: list[str]) -> None:
    found = find(texts)
    for row, text in enumerate(texts):
        own = [(r["kind"], r["start"], r["end"]) for r in found.filter(row=row).iter_rows(named=True)]
        assert own == [(span.kind, span.start, span.end) for span in spans(text)]
    for row in found.iter_rows(named=True):
        assert texts[row["row"]][row["start"] : row["end"]] == row["text"]


def test_the_prefilter_leaves_no_find_out() -> None:
    planted = corpus(1_500, seed=11)
    found = find(planted.texts).select("row", "kind", "start", "end").rows()
    single = [(row, span.kind, span.start, span.end) for row, text in enumerate(planted.texts) for span in spans(text)]
    assert found == single


def test_recall_and_precision_on_a_corpus_made_from_standards() -> None:
    planted = corpus(2_500, seed=12)
    scores = {row["kind"]: row for row in score(find(planted.texts), planted.truth).to_dicts()}
    for kind in KINDS:
        least = 0.97 if kind == "person" else 0.995
        assert scores[kind]["planted"] > 300
        assert scores[kind]["recall"] >= least, scores[kind]
        assert scores[kind]["precision"] >= 0.995, scores[kind]


@pytest.mark.parametrize("line", NEGATIVES)
def test_what_only_looks_alike_is_left_alone(line: str) -> None:
    assert kinds(line) == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("jane@example.com", "email"),
        ("jane@mail.example.org", "email"),
        ("jane@corp.test", "email"),
        ("ops@shop.invalid", "email"),
        ("a.b@x.example", "email"),
        ("call (212) 555-0142", "phone"),
        ("call +1 646-555-0199", "phone"),
        ("from 192.0.2.1", "ip"),
        ("from 198.51.100.77", "ip"),
        ("from 203.0.113.254", "ip"),
        ("from 2001:db8::8a2e:370:7334", "ip"),
        ("4111 1111 1111 1111", "card"),
        ("5555555555554444", "card"),
        ("SSN 078-05-1120", "ssn"),
    ],
)
def test_reserved_forms_are_nobodys_unless_they_shall_count(text: str, kind: str) -> None:
    assert kinds(text) == []
    assert [found for found, _ in kinds(text, reserved=True)] == [kind]


@pytest.mark.parametrize("address", ["10.1.2.3", "172.31.0.9", "192.168.1.1", "100.64.0.1", "fd12:3456:789a::1"])
def test_private_addresses_are_infrastructure_unless_they_shall_count(address: str) -> None:
    text = f"host {address} is down"
    assert kinds(text) == []
    assert kinds(text, infrastructure=True) == [("ip", address)]


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1 ::1 fe80::1 0.0.0.0 255.255.255.255 224.0.0.251",
        "Chrome/124.0.0.0 v1.2.3.4 version 8.8.8.8 pkg-8.8.8.8.tar Version=4.0.0.0 kernel 5.15.0.91",
        "1.3.6.1.4.1.9.2.1 256.1.1.1 1.2.3.4.5 8.8.8.8.example",
        "std::map a::b dead::beef 12:34:56 00:1a:2b:3c:4d:5e",
    ],
)
def test_versions_identifiers_and_times_are_no_addresses(text: str) -> None:
    assert kinds(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mail <jürgen.müller@büro.de>.", "jürgen.müller@büro.de"),
        ("https://x.io/?u=anna%40contoso.com&v=1", "anna%40contoso.com"),
        ('"anna smith"@contoso.com', '"anna smith"@contoso.com'),
        ("to=<x.y+z@mail.contoso.co.uk>,", "x.y+z@mail.contoso.co.uk"),
        ("CONTACT:ANNA@CONTOSO.COM", "ANNA@CONTOSO.COM"),
    ],
)
def test_mail_addresses_in_their_many_surroundings(text: str, expected: str) -> None:
    assert ("email", expected) in kinds(text)


@pytest.mark.parametrize(
    "text",
    [
        "user@1000.service getty@tty1.service lodash@4.17.21 icon@2x.png root@web-1 @channel a@b",
        "git clone git@github.com:shop/cart.git; ssh://deploy@build.internal.net/x",
        "aes128-gcm@openssh.com umac-64-etm@openssh.com hmac@libssh.org",
    ],
)
def test_what_has_an_at_sign_and_is_no_mail_address(text: str) -> None:
    assert kinds(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "2025-03-14 09:26:53 1767225600123 20250314092653 +02:00 -0500",
        "id 0701/114930:WARN 212-867-530 12.34.56 0012-3456",
        "took 212-867 ms, 123.456.7890.12, 0123456789abcdef, 01 23 45 67 89 ab",
        "550e8400-e29b-41d4-a716-446655440000 6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "score 911-911-9111 x 411 211 311",
    ],
)
def test_times_identifiers_and_measures_are_no_telephone_numbers(text: str) -> None:
    assert [found for found in kinds(text) if found[0] == "phone"] == []


def test_card_numbers_need_an_issuer_a_length_and_a_check_digit() -> None:
    assert is_card("4532015112830366")
    assert not is_card("4532015112830367")
    assert not is_card("1532015112830369")
    assert not luhn("4532015112830367")
    assert kinds("blk_-4532015112830366 and _4532015112830366 and 45320151128303660") == []
    assert kinds("4532015112830366") == [("card", "4532015112830366")]


def test_account_numbers_need_their_countrys_length_and_check() -> None:
    assert mod_97("GB82WEST12345698765432") == 1
    assert kinds("iban gb82 west 1234 5698 7654 32!") == [("iban", "gb82 west 1234 5698 7654 32")]
    assert kinds("GB82WEST12345698765433 GB00WEST12345698765432 GB82WEST123456987654321 XX82WEST12345698765432") == []
    assert all(15 <= length <= 33 for length in IBAN_LENGTHS.values())


@pytest.mark.parametrize("number", ["000-12-3456", "666-12-3456", "912-34-5678", "123-00-4567", "123-45-0000"])
def test_social_security_numbers_that_are_never_given_out(number: str) -> None:
    assert kinds(f"SSN {number}") == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Regards,\nKarin Mustermann\nIT", "Karin Mustermann"),
        ("Mit freundlichen Grüßen\n\nJürgen Müller", "Jürgen Müller"),
        ("Thanks, Anna", "Anna"),
        ("Dear Mr. Vandersloot,", "Vandersloot"),
        ("Frau Dr. Weber rief an", "Weber"),
        ("Hi Katarzyna,\nplease", "Katarzyna"),
        ("SMITH, ANNA locked out", "SMITH, ANNA"),
        ("closed by Łukasz Wiśniewski", "Łukasz Wiśniewski"),
        ("printer of Maria del Carmen", "Maria del Carmen"),
        ("laptop of Peter van den Berg", "Peter van den Berg"),
        ("login anna.smith failed", "anna.smith"),
        ("Siobhán O'Connor called", "Siobhán O'Connor"),
    ],
)
def test_names_by_lexicon_and_surroundings(text: str, name: str) -> None:
    assert ("person", name) in kinds(text)


@pytest.mark.parametrize(
    "text",
    [
        "Restart Jenkins on build node. Update Travis Config. Morgan Stanley feed, Harley Davidson portal.",
        "Regards,\nService Desk",
        "Thanks,\nMainframe Team",
        "Best,\nThe Network Team",
        "Dear Colleagues, Hello Everyone, Hi all, Dear Customer",
        "Assigned to Mainframe Operations, escalated to Storage Engineering, owner Cloud Platform",
        "Victoria Station lost WAN; Grant Access; Mark Read; Page Rank; May Release; Will Power; Rich Text",
        "Ms Teams and MS Office; Dr Site failover; Miss Rate rises",
        "user mira.k, tech.4127, svc.backup and web.server",
        "com.jordan.server james.server",
    ],
)
def test_desks_products_and_sentences_are_no_people(text: str) -> None:
    assert kinds(text) == []


def test_configured_people_are_found_in_every_form() -> None:
    people = People.of(["Quirin Xaver Zwetschge", "Cher"])
    text = "quirin xaver ZWETSCHGE; Zwetschge, Quirin Xaver; quirin xaver.zwetschge; Cher; Zwetschgenbaum"
    assert kinds(text) == []
    assert len(kinds(text, people=people)) == 3
    assert len(find([text, "nobody"], people=people)) == 3
    apart = "JÜRGEN\n XAVER  ZÜRN"
    for wanted in (People.of(["Jürgen Xaver Zürn"]), People.of(["jürgen xaver zürn"])):
        assert kinds(apart, people=wanted) == [("person", apart)]
        assert find([apart], people=wanted)["text"].to_list() == [apart]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Basic dXNlcjpodW50ZXIy", "dXNlcjpodW50ZXIy"),
        ("curl -H 'X-Api-Key: 8f7e6d5c4b3a'", "8f7e6d5c4b3a"),
        ("redis://:s3cr3t@cache:6379/0", ":s3cr3t"),
        ("AccountKey=Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9v==;", "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9v=="),
        ("snmp community: 'n0tpublic'", "n0tpublic"),
        ('{"password": "correct horse"}', "correct horse"),
        ("DB_PASSWORD=hunter2", "hunter2"),
        ("dbPassword: Hunter2x", "Hunter2x"),
        ("the api key 9fK2mQ7xTb4LzP8wRv3Ns6Yd was leaked", "9fK2mQ7xTb4LzP8wRv3Ns6Yd"),
        (
            "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        ),
    ],
)
def test_credentials_in_their_many_surroundings(text: str, expected: str) -> None:
    assert ("secret", expected) in kinds(text)


@pytest.mark.parametrize(
    "text",
    [
        "password=*** password=<password> password=${DB_PASS} password: [secret] pwd={{ pass }} token=null",
        "password expired, password: required, token: invalid, secret: not found, password authentication failed",
        "PWD=/home/app ; USER=root ; COMMAND=/bin/ls",
        "tokens=1200 keyboard=us monkey=banana author: unknown passenger: 12A",
        "bearer token missing; basic authentication required; Bearer of bad news",
        "commit 9fceb02d0ae598e95dc970b74767f19372d61af8 sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca4959",
        "postgres://db.internal/x http://proxy:3128/ https://user@host/path",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
    ],
)
def test_words_about_secrets_are_none(text: str) -> None:
    assert kinds(text) == []


def test_overlaps_become_one_find_over_all_of_it() -> None:
    spans_ = [Span(5, 12, "phone"), Span(0, 8, "secret"), Span(20, 25, "ip"), Span(20, 25, "email"), Span(25, 30, "ip")]
    expected = [Span(0, 12, "secret"), Span(20, 25, "email"), Span(25, 30, "ip")]
    assert settled(spans_) == expected
    assert settled(reversed(spans_)) == expected


def test_columns_with_nulls_and_nothing() -> None:
    assert find([]).is_empty()
    assert find([]).schema == find(["anna@contoso.com"]).schema
    found = find(pl.Series([None, "anna@contoso.com", None]))
    assert found.select("row", "kind", "start", "end").rows() == [(1, "email", 0, 16)]
    with pytest.raises(ValueError, match="no kind mail; there are"):
        find(["x"], kinds=["mail"])
    assert find(["anna@contoso.com 8.8.4.4"], kinds=["ip"])["kind"].to_list() == ["ip"]


def test_finds_lie_in_their_own_rows_beyond_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiops_assets.privacy.detect._CHUNK", 3)
    texts = ["x"] * 4 + ["anna@contoso.com"] + ["y"] * 4 + ["8.8.4.4"]
    assert find(texts)["row"].to_list() == [4, 9]


@pytest.mark.parametrize(
    "text",
    [
        "a" * 200_000,
        "1" * 200_000,
        "a@" * 50_000,
        "1.1." * 50_000,
        ":" * 100_000,
        "a_" * 100_000,
        "Aa " * 60_000,
        "password=" * 20_000,
        "(" * 100_000,
        "0 1" * 60_000,
        "-----BEGIN PRIVATE KEY-----" * 5_000,
        "+1 " * 60_000,
        "eyJ." * 50_000,
        "a.b@" * 40_000,
        "://" * 60_000,
    ],
    ids=lambda text: text[:12],
)
@pytest.mark.timeout(20)
def test_hostile_texts_take_no_more_than_linear_time(text: str) -> None:
    find([text])
