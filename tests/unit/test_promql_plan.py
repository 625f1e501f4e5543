"""What is understood of a query and what is refused, by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiops_assets.telemetry.promql import plan as plans
from aiops_assets.telemetry.promql import regexes
from aiops_assets.telemetry.promql.errors import QueryError
from aiops_assets.telemetry.promql.plan import Aggregation, Binary, Matcher, Matching, Selector, plan, selector


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("holt_winters(x[5m], 0.5, 0.5)", "holt_winters"),
        ("mad_over_time(x[5m])", "mad_over_time"),
        ("histogram_count(x)", "histogram_count"),
        ("sort_by_label(x, 'a')", "sort_by_label"),
        ("info(x)", "info"),
        ("invented(x)", "invented"),
        ("limitk(2, x)", "limitk"),
        ("limit_ratio(0.5, x)", "limit_ratio"),
        ("x + fill(0) y", "fill"),
        ('x{a="b" or c="d"}', "'or' between matchers"),
        ("step()", "step"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(query: str, named: str) -> None:
    with pytest.raises(QueryError) as refused:
        plan(query)
    assert refused.value.kind == "bad_data"
    assert named in str(refused.value)
    assert "supported functions: abs, absent" in str(refused.value)


@pytest.mark.parametrize(
    "query", ["", " ", "sum(", "x{", "rate(x)", "1 + bool 2", "x[5m", "x y", "{}", "{a=~'.*'}", "x{a=~'['}", "sum(1)"]
)
def test_what_is_no_promql_is_refused(query: str) -> None:
    with pytest.raises(QueryError) as refused:
        plan(query)
    assert refused.value.kind == "bad_data"


@pytest.mark.parametrize("text", ["x[5m]", "rate(x[5m])", "1", "x offset 5m", "x @ 5", "x + y", ""])
def test_a_match_argument_is_a_plain_selector(text: str) -> None:
    with pytest.raises(QueryError):
        selector(text)


def test_a_plan_says_what_was_written() -> None:
    node = plan('sum by (host) (-x{a!="b"} offset -5m) / on(host) group_left(site) y @ end()')
    assert isinstance(node, Binary)
    assert node.matching == Matching(True, ("host",), "left", ("site",))
    assert isinstance(node.left, Aggregation)
    assert node.left.labels == ("host",)
    assert node.right == Selector((Matcher("__name__", "=", "y"),), 0, "end")
    negated = node.left.inner
    assert negated.inner == Selector(  # type: ignore[union-attr]
        (Matcher("__name__", "=", "x"), Matcher("a", "!=", "b")), -300_000_000
    )


def test_quoted_names_are_read() -> None:
    assert selector('{"system.cpu.utilization", "a.b"="c"}') == (
        Matcher("__name__", "=", "system.cpu.utilization"),
        Matcher("a.b", "=", "c"),
    )


@pytest.mark.parametrize(
    "query",
    [
        "(" * 100_000 + "1" + ")" * 100_000,
        "1" + "+1" * 50_000,
        "1" + "^1" * 50_000,
        "-" * 100_000 + "1",
        "abs(" * 30_000 + "x" + ")" * 30_000,
        "x" + " or x" * 20_000,
        'x{a="' + "\\" * 9_999 + "(" * 50_000,
    ],
)
def test_no_nesting_reaches_the_parser_that_would_end_the_process(query: str) -> None:
    with pytest.raises(QueryError) as refused:
        plan(query)
    assert "at most" in str(refused.value)


def test_brackets_in_texts_do_not_count() -> None:
    hosts = "|".join(f"(web-{number})" for number in range(5_000))
    assert plan(f'x{{host=~"{hosts}"}} # (((' + "(" * 1_000)


@given(st.text(max_size=60))
def test_any_text_is_planned_or_refused(text: str) -> None:
    try:
        plans.plan(text)
    except QueryError as refused:
        assert refused.kind == "bad_data"


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("web-.*", ["web-", "web-1"], ["web", "a-web-1"]),
        ("a|b", ["a", "b"], ["ab", "c", ""]),
        ("", [""], ["a"]),
        (".*", ["", "a"], []),
        (".+", ["a"], [""]),
        (r"\d+", ["12"], ["१२", "1a"]),
        (r"\w+", ["a_1"], ["é", "a b"]),
        (r"[\w.]+", ["a.b"], ["a-b"]),
        (r"[^\d]", ["a", "१"], ["1"]),
        (r"\D", ["a", "१"], ["1"]),
        (r"[\D1]", ["a", "1"], ["2"]),
        (r"\s", [" ", "\t"], ["\u00a0"]),
        (r"a\b.*", ["a", "a-b", "aé"], ["ab"]),
        (r"[a[b]", ["a", "[", "b"], ["]"]),
        (r"[a&&b]", ["a", "&", "b"], []),
        (r"[a~~b]", ["a", "~", "b"], []),
        (r"[+--]", ["+", ",", "-"], ["a"]),
        (r"[]a]", ["]", "a"], ["b"]),
        (r"[^]a]", ["b"], ["]", "a"]),
        (r"[[:digit:]]+", ["12"], ["a"]),
        (r"[a-c]", ["b"], ["-", "d"]),
        (r"[a\-c]", ["-"], ["b"]),
        (r"a{2}", ["aa"], ["a"]),
        (r"a{2,}", ["aa", "aaa"], ["a"]),
        (r"a{x}", ["a{x}"], ["a"]),
        (r"a{,2}", ["a{,2}"], ["a"]),
        (r"\Qa.b\E", ["a.b"], ["axb"]),
        (r"\Qa.b", ["a.b"], ["axb"]),
        (r"(?i)WEB", ["web", "WeB"], ["db"]),
        (r"(?i:W)eb", ["web"], ["wEb"]),
        (r"(?P<x>a)(?:b)", ["ab"], ["a"]),
        (r"a\.b\/c\-d\<", ["a.b/c-d<"], ["axb/c-d<"]),
        (r"\x41\x{42}\p{Lu}\pN", ["ABC1"], ["abc1"]),
        (r"a$", ["a"], ["a\n"]),
    ],
)
def test_patterns_mean_what_they_mean_in_go(pattern: str, matching: list[str], others: list[str]) -> None:
    assert all(regexes.matching(matching, pattern))
    assert not any(regexes.matching(others, pattern))


@pytest.mark.parametrize(
    "pattern", ["[", "(", "a)", "*", r"\C", r"\1", "(?x)a", "(?=a)", "(?<!a)", "(?R)a", "\\", "((a{1000}){1000}){1000}"]
)
def test_what_the_engine_has_not_is_refused(pattern: str) -> None:
    with pytest.raises(QueryError) as refused:
        regexes.matching(["a"], pattern)
    assert refused.value.kind == "bad_data"


def test_a_hostile_pattern_is_answered_at_once() -> None:
    assert regexes.matching(["a" * 20_000 + "!"], "(a+)+(a|aa)*(a|a?)+") == [False]


@given(st.text(max_size=30), st.text(alphabet="ab[]{}()\\dwsQE.*+?|^-&~1,", max_size=12))
def test_any_pattern_matches_or_is_refused(value: str, pattern: str) -> None:
    try:
        (found,) = regexes.matching([value], pattern)
    except QueryError as refused:
        assert refused.kind == "bad_data"
    else:
        assert found in {True, False}


@given(st.text(min_size=1, max_size=20).filter(lambda text: "\x00" not in text))
def test_a_quoted_text_matches_itself_alone(text: str) -> None:
    escaped = "".join(f"\\{char}" if char in r"\.+*?()|[]{}^$" else char for char in text)
    assert regexes.matching([text, text + "x", ""], escaped) == [True, False, False]
