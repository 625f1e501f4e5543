"""Rules: each kind's meaning, and that cutting, handing over and numbering change nothing."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from aiops_assets.config import ConfigError, Rule, default_rules, parse_config
from aiops_assets.detection.matching import matches, matching_series
from aiops_assets.detection.rules import CELL, GAP, LIVE, RETIRED, STALE, Portable, RuleEngine
from aiops_assets.detection.steps import steps
from aiops_assets.detection.transitions import Transition
from aiops_assets.hours import MICROS_PER_SECOND
from tests.examples import examples

START = 1_767_225_600 * MICROS_PER_SECOND  # 2026-01-01T00:00:00Z
MINUTE = 60 * MICROS_PER_SECOND
HOUR = 60 * MINUTE
Point = tuple[int, int, float]


def directory(*series: dict[str, str], start: int = 0) -> pl.DataFrame:
    """Directory rows; each series a dict of the fields that matter."""
    rows = [
        {
            "number": start + place,
            "series_id": 1000 + start + place,
            "host": "web-1",
            "metric": "load",
            "unit": "",
            "labels": "{}",
        }
        | {"kind": "gauge", "source": "test"}
        | entry
        for place, entry in enumerate(series)
    ]
    return pl.DataFrame(rows, schema_overrides={"number": pl.Int32, "series_id": pl.Int64})


def rule(**fields: object) -> Rule:
    return Rule.model_validate({"name": "r", "metric": "load", "value": 10} | fields)


def feed(engine: RuleEngine, points: Sequence[Point]) -> list[Transition]:
    """One batch of (series, ts, value)."""
    series, ts, value = zip(*points, strict=True) if points else ((), (), ())
    return engine.process(steps(np.array(series, np.int32), np.array(ts, np.int64), np.array(value, float)))


def every(seconds: float, values: Sequence[float], series: int = 0, start: int = START) -> list[Point]:
    return [(series, start + round(k * seconds * MICROS_PER_SECOND), float(v)) for k, v in enumerate(values)]


def engine(*rules: Rule, series: pl.DataFrame | None = None) -> RuleEngine:
    made = RuleEngine(rules)
    made.grow(directory({}) if series is None else series)
    return made


def states(found: Sequence[Transition]) -> list[tuple[str, int, int]]:
    """(state, starts_at, at) with instants in seconds from START."""
    return [(t.state, (t.starts_at - START) // MICROS_PER_SECOND, (t.at - START) // MICROS_PER_SECOND) for t in found]


# -- threshold --------------------------------------------------------------------------------------------------------


def test_threshold_fires_at_the_first_bad_point_and_ends_at_the_first_good_one() -> None:
    found = feed(engine(rule()), every(10, [5, 12, 15, 9, 3]))
    assert states(found) == [("firing", 10, 10), ("resolved", 10, 30)]
    assert found[0].value == 12
    assert found[0].threshold == 10
    assert found[1].evidence["worst"] == 15


@pytest.mark.parametrize(
    ("op", "bad", "good"), [(">", 10.1, 10.0), (">=", 10.0, 9.9), ("<", 9.9, 10.0), ("<=", 10.0, 10.1)]
)
def test_operators_decide_at_the_limit_as_written(op: str, bad: float, good: float) -> None:
    assert feed(engine(rule(op=op)), every(10, [good])) == []
    assert states(feed(engine(rule(op=op)), every(10, [bad, good]))) == [("firing", 0, 0), ("resolved", 0, 10)]


def test_hold_needs_every_point_bad_and_starts_at_the_first_of_them() -> None:
    values = [12, 12, 5, 12, 12, 12, 12, 12, 5]
    found = feed(engine(rule(**{"for": "40s"})), every(10, values))
    assert states(found) == [("firing", 30, 70), ("resolved", 30, 80)]
    assert found[0].evidence["bad_for_seconds"] == 40


def test_hysteresis_keeps_it_open_until_clear_is_reached() -> None:
    found = feed(engine(rule(clear=7)), every(10, [12, 9, 8, 11, 7.5, 7, 9, 12]))
    assert states(found) == [("firing", 0, 0), ("resolved", 0, 50), ("firing", 70, 70)]


def test_a_clear_of_zero_is_reached_by_zero() -> None:
    assert states(feed(engine(rule(clear=0)), every(10, [12, 1, 0])))[-1] == ("resolved", 0, 20)


def test_bad_points_far_apart_do_not_vouch_for_the_time_between() -> None:
    night = GAP // MICROS_PER_SECOND + 1
    hold = rule(**{"for": "10m"})
    assert feed(engine(hold), [*every(10, [12] * 6), *every(10, [12] * 6, start=START + 9 * HOUR)]) == []
    assert states(feed(engine(hold), every(night, [12, 12, 12]))) == [("firing", night, 2 * night)]
    assert states(feed(engine(rule(**{"for": "1h"})), every(1800, [12, 12, 12]))) == [("firing", 0, 3600)]


def test_a_firing_series_that_stays_silent_is_closed_by_the_watermark() -> None:
    made = engine(rule())
    feed(made, every(10, [12, 12]))
    last = START + 10 * MICROS_PER_SECOND
    assert made.absences(last + STALE) == []
    found = made.absences(last + STALE + 1)
    assert [(t.state, t.at, t.row) for t in found] == [("resolved", last + STALE, -1)]
    assert made.absences(last + 2 * STALE) == []
    assert states(feed(made, [(0, last + 3 * STALE, 12.0)]))[0][0] == "firing"


def test_a_firing_series_that_comes_back_after_a_long_silence_starts_anew() -> None:
    later = START + STALE + HOUR
    found = feed(engine(rule()), [(0, START, 12.0), (0, later, 12.0)])
    assert [(t.state, t.starts_at, t.at) for t in found] == [
        ("firing", START, START),
        ("resolved", START, START + STALE),
        ("firing", later, later),
    ]


def test_extreme_values_are_judged_and_leave_evidence_that_is_json() -> None:
    found = feed(engine(rule(value=1e308, clear=-1e308)), every(10, [1.7e308, -1.7e308]))
    assert [t.state for t in found] == ["firing", "resolved"]


# -- rate -------------------------------------------------------------------------------------------------------------


def test_rate_compares_with_the_value_a_window_ago() -> None:
    made = engine(rule(kind="rate", value=1.0, window="60s"))
    values = [0.0] * 10 + [k * 20.0 for k in range(1, 10)] + [180.0] * 10
    found = feed(made, every(10, values))
    # 20 per 10 s is 2 per second; over 60 s the change reaches 60 with the third rising point.
    assert states(found) == [("firing", 120, 120), ("resolved", 120, 220)]
    assert found[0].value == pytest.approx(1.0)
    assert found[0].evidence["seconds_between"] == 60


def test_rate_says_nothing_before_a_window_has_passed_or_across_a_long_gap() -> None:
    made = engine(rule(kind="rate", value=0.001, window="60s"))
    assert feed(made, [(0, START, 0.0), (0, START + 59 * MICROS_PER_SECOND, 1e9)]) == []
    assert feed(made, [(0, START + GAP + 2 * MINUTE, 1e12)]) == []


def test_rate_works_when_points_are_further_apart_than_the_window() -> None:
    found = feed(engine(rule(kind="rate", value=1.0, window="10s")), every(60, [0, 0, 120, 120]))
    assert states(found) == [("firing", 120, 120), ("resolved", 120, 180)]


def test_a_counter_that_restarts_is_not_a_falling_rate() -> None:
    values = [1000.0 + k for k in range(20)] + [float(k) for k in range(20)]
    falling = rule(kind="rate", op="<=", value=-5, window="60s")
    assert feed(engine(falling, series=directory({"kind": "counter"})), every(10, values)) == []
    assert feed(engine(falling, series=directory({"kind": "gauge"})), every(10, values)) != []


def test_a_rate_that_overflows_is_no_verdict() -> None:
    assert feed(engine(rule(kind="rate", value=1, window="60s")), every(60, [-1.7e308, 1.7e308, 1.7e308])) == []


# -- fill_up ----------------------------------------------------------------------------------------------------------

FILL = {"kind": "fill_up", "value": 1.0, "window": "30m", "horizon": "4h"}


def line(start: float, per_hour: float, minutes: int, noise: float = 0.0, step: int = 1) -> list[float]:
    random = np.random.default_rng(7)
    return [start + per_hour * k / 60 + noise * random.standard_normal() for k in range(0, minutes, step)]


def test_fill_up_fires_when_the_trend_reaches_the_level_within_the_horizon() -> None:
    found = feed(engine(rule(**FILL), series=directory({"unit": "1"})), every(60, line(0.70, 0.10, 60)))
    assert [t.state for t in found] == ["firing"]
    first = found[0]
    assert first.evidence["slope_per_second"] == pytest.approx(0.10 / 3600)
    left = first.evidence["seconds_to_level"]
    assert isinstance(left, float)
    assert left == pytest.approx((1.0 - first.value) / 0.10 * 3600, rel=0.01)
    assert 18 * MINUTE <= first.at - START <= 22 * MINUTE
    assert re.search(r"at 7\d.*%, at this pace 100% in 2 h", first.summary)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("flat", line(0.9, 0.0, 120)),
        ("falling", line(0.9, -0.1, 120)),
        ("too slow", line(0.5, 0.05, 120)),
        ("noise", line(0.9, 0.0, 400, noise=0.01)),
        ("a jump", [0.5] * 60 + [0.8] * 60),
        ("too few points", line(0.7, 0.1, 60, step=15)),
        ("full and flat", [1.0] * 60),
        ("overflow", [-1.7e308, 1.7e308] * 30),
    ],
)
def test_fill_up_is_quiet_without_a_trend_that_means_something(name: str, values: list[float]) -> None:
    seconds = 900 if name == "too few points" else 60
    assert feed(engine(rule(**FILL)), every(seconds, values)) == []


def test_fill_up_sees_a_trend_through_noise_and_ends_when_it_stops() -> None:
    rising = line(0.6, 0.2, 60, noise=0.002)
    found = feed(engine(rule(**FILL)), every(60, rising + [rising[-1]] * 90))
    assert [t.state for t in found] == ["firing", "resolved"]


def test_fill_up_stays_open_while_the_level_is_reached() -> None:
    values = [min(v, 1.0) for v in line(0.8, 0.4, 240)]
    assert [t.state for t in feed(engine(rule(**FILL)), every(60, values))] == ["firing"]
    emptied = values + [0.3] * 120
    assert [t.state for t in feed(engine(rule(**FILL)), every(60, emptied))] == ["firing", "resolved"]


def test_fill_up_with_a_falling_operator_sees_something_run_out() -> None:
    running_out = rule(**FILL | {"op": "<=", "value": 0})
    assert [t.state for t in feed(engine(running_out), every(60, line(0.3, -0.1, 60)))] == ["firing"]
    assert feed(engine(running_out), every(60, line(0.3, 0.1, 60))) == []


# -- absence ----------------------------------------------------------------------------------------------------------

ABSENT = rule(kind="absence", value=None, **{"for": "5m"})
TWO_HOSTS = directory({"host": "web-1"}, {"host": "web-2"})


def pulse(series: int, first: float, last: float, seconds: float = 10) -> list[Point]:
    """Points of a series between two minutes."""
    start, end = START + int(first * MINUTE), START + int(last * MINUTE)
    return [(series, ts, 1.0) for ts in range(start, end + 1, int(seconds * MICROS_PER_SECOND))]


def test_absence_follows_the_watermark_and_ends_when_the_host_reports_again() -> None:
    made = engine(ABSENT, series=TWO_HOSTS)
    assert feed(made, pulse(0, 0, 12) + pulse(1, 0, 2)) == []
    assert made.absences(START + 7 * MINUTE) == []
    found = made.absences(START + 12 * MINUTE)
    assert states(found) == [("firing", 120, 420)]
    assert found[0].series == 1
    assert found[0].row == -1
    assert made.absences(START + 12 * MINUTE) == []
    assert states(feed(made, [(1, START + 13 * MINUTE, 1.0)])) == [("resolved", 120, 780)]


def test_absence_of_a_host_needs_all_its_matching_series_silent() -> None:
    series = directory(
        {"host": "web-1", "labels": '{"cpu":"0"}'}, {"host": "web-1", "labels": '{"cpu":"1"}'}, {"host": "x"}
    )
    made = engine(ABSENT, series=series)
    feed(made, pulse(0, 0, 2) + pulse(1, 0, 20) + pulse(2, 0, 40))
    found = made.absences(START + 40 * MINUTE)
    assert states(found) == [("firing", 1200, 1500)]
    one = engine(rule(kind="absence", value=None, labels={"cpu": "0"}, **{"for": "5m"}), series=series)
    feed(one, pulse(0, 0, 2) + pulse(1, 0, 20) + pulse(2, 0, 40))
    assert states(one.absences(START + 40 * MINUTE)) == [("firing", 120, 420)]


def test_a_host_never_seen_is_not_absent() -> None:
    made = engine(ABSENT, series=TWO_HOSTS)
    feed(made, pulse(0, 0, 60))
    assert made.absences(START + HOUR) == []


def test_a_gap_inside_one_batch_is_found_without_a_watermark() -> None:
    found = feed(engine(ABSENT, series=TWO_HOSTS), pulse(0, 0, 60) + pulse(1, 0, 10) + pulse(1, 30, 60))
    assert states(found) == [("firing", 600, 900), ("resolved", 600, 1800)]


def test_time_without_any_telemetry_is_nobodys_silence() -> None:
    made = engine(ABSENT, series=TWO_HOSTS)
    feed(made, pulse(0, 0, 10) + pulse(1, 0, 10))
    # The platform was off for nine hours; web-1 reports first.
    assert feed(made, pulse(0, 550, 551)) == []
    assert made.absences(START + 551 * MINUTE) == []
    assert feed(made, pulse(1, 551.5, 552)) == []
    # web-2 falls silent again, and this time web-1 goes on.
    feed(made, pulse(0, 551, 560))
    assert states(made.absences(START + 560 * MINUTE)) == [("firing", 552 * 60, 557 * 60)]


def test_a_host_that_never_comes_back_after_an_outage_is_found() -> None:
    made = engine(ABSENT, series=TWO_HOSTS)
    feed(made, pulse(0, 0, 10) + pulse(1, 0, 10))
    feed(made, pulse(0, 550, 560))
    found = made.absences(START + 560 * MINUTE)
    assert [t.state for t in found] == ["firing"]
    assert START + 552 * MINUTE <= found[0].at <= START + 553 * MINUTE


def test_a_lone_host_that_was_off_raises_nothing() -> None:
    made = engine(ABSENT)
    assert feed(made, pulse(0, 0, 10)) == []
    assert made.absences(START + 10 * MINUTE) == []
    assert feed(made, pulse(0, 600, 610)) == []


def test_imported_history_does_not_fall_silent() -> None:
    made = engine(ABSENT, series=TWO_HOSTS)
    points = pulse(1, 0, 2) + pulse(0, 0, 12)
    series, ts, value = (np.array(column) for column in zip(*points, strict=True))
    received = np.where(series == 1, ts + LIVE + 1, ts)
    made.process(steps(series.astype(np.int32), ts, value), received)
    assert made.absences(START + 12 * MINUTE) == []


def test_a_host_that_is_gone_for_good_is_closed() -> None:
    made = engine(ABSENT, series=TWO_HOSTS)
    feed(made, pulse(1, 0, 0) + pulse(0, 0, 60 * 24 * 8, seconds=600))
    assert made.absences(START + 20 * MINUTE)[0].state == "firing"
    found = made.absences(START + RETIRED + 2 * HOUR)
    assert [(t.series, t.state, t.at) for t in found] == [(1, "resolved", START + RETIRED)]
    assert made.absences(START + RETIRED + 5 * HOUR) == []


# -- matching ---------------------------------------------------------------------------------------------------------


@given(st.text("ab*.[^$\\", max_size=8), st.text("ab.[^$\\\n", max_size=12))
def test_patterns_mean_stars_and_nothing_else(pattern: str, text: str) -> None:
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None
    assert matches(pattern, text) == expected


def test_a_hostile_pattern_takes_no_time() -> None:
    assert not matches("*a" * 200 + "b", "a" * 20_000)


def test_series_are_matched_by_metric_host_and_labels() -> None:
    series = directory(
        {"metric": "disk.used", "labels": '{"mountpoint":"/data"}'},
        {"metric": "disk.used", "labels": '{"mountpoint":"/"}', "host": "db-1"},
        {"metric": "disk.free", "labels": '{"mountpoint":"/data"}'},
        {"metric": "disk.used"},
    )
    assert matching_series(series, metric="disk.*").tolist() == [0, 1, 2, 3]
    assert matching_series(series, metric="disk.used", host="db-*").tolist() == [1]
    assert matching_series(series, metric="disk.used", labels={"mountpoint": "/d*"}).tolist() == [0]
    assert matching_series(series, metric="disk.used", labels={"mountpoint": ("/", "")}).tolist() == [1, 3]
    assert matching_series(series.clear(), metric="x").tolist() == []


@pytest.mark.parametrize(
    "hostile", ["../../x", "'; drop table", "<script>", ".*", "a\x00b", "\u202e", "(" * 50, "%s{0}"]
)
def test_hostile_names_are_only_names(hostile: str) -> None:
    labels = json.dumps({"k": hostile})
    made = engine(rule(host=hostile, labels={"k": hostile}), series=directory({"host": hostile, "labels": labels}, {}))
    assert [t.series for t in feed(made, every(10, [50]) + every(10, [50], series=1))] == [0]


def test_units_reach_the_summary_as_people_read_them() -> None:
    made = engine(rule(value=0.9, **{"for": "30s"}), series=directory({"unit": "1"}))
    assert feed(made, every(30, [0.932, 0.932]))[0].summary == "at 93.2% (≥ 90%, for 30 s)"


# -- growth, state, other rules ----------------------------------------------------------------------------------------


def test_series_that_appear_later_are_judged() -> None:
    made = engine(rule())
    made.grow(directory({"metric": "other"}, {}, start=1))
    found = feed(made, every(10, [50], series=1) + every(10, [50], series=2))
    assert [t.series for t in found] == [2]
    assert made.matched() == {"r": 2}


def test_series_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 1"):
        engine(rule()).grow(directory({}, start=7))


RULES = (
    rule(name="threshold", clear=8, **{"for": "25s"}),
    rule(name="low", op="<", value=3),
    rule(name="rate", kind="rate", value=0.05, clear=0.01, window="2m"),
    rule(name="fill", kind="fill_up", value=14, window="5m", horizon="10m"),
    rule(name="absent", kind="absence", value=None, **{"for": "90s"}),
    rule(name="absent-host", kind="absence", metric="*", value=None, **{"for": "4m"}),
)
MANY = directory(
    {"host": "a"},
    {"host": "a", "labels": '{"cpu":"0"}'},
    {"host": "b"},
    {"host": "c", "kind": "counter"},
    {"host": "c"},
)


@st.composite
def histories(draw: st.DrawFn) -> list[Point]:
    """Points of five series in order of time: waves, stretches of silence, jumps."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    points: list[Point] = []
    for number in range(5):
        ts = START
        level = random.uniform(0, 12)
        for _ in range(draw(st.integers(0, 120))):
            pause = (
                random.choice([10, 10, 10, 15, 60, 400]) if random.random() < 0.97 else random.choice([5000, 100_000])
            )
            ts += int(pause * MICROS_PER_SECOND) + int(random.integers(0, 5))
            level += random.choice([0.0, 0.05, 0.05, 0.2, -0.3, 4, -4], p=[0.2, 0.3, 0.2, 0.1, 0.1, 0.05, 0.05])
            points.append((number, ts, float(level)))
    return sorted(points, key=lambda point: point[1])


def numbers_in(known: pl.DataFrame) -> Callable[[NDArray[np.int64]], NDArray[np.int32]]:
    """Numbers of series_ids in a directory, -1 where it has none."""
    number_of = dict(known.select("series_id", "number").iter_rows())
    return lambda ids: np.array([number_of.get(series_id, -1) for series_id in ids.tolist()], np.int32)


def handed_over(before: RuleEngine, known: pl.DataFrame) -> RuleEngine:
    """Another engine with the same rules, over another directory, that goes on from there."""
    after = engine(*before.rules, series=known)
    after.adopt(before.export(), numbers_in(known))
    return after


def content(portable: Portable) -> list[tuple[str, str, str, tuple[int, ...], bytes]]:
    """Everything that an export says, in an order of its own."""
    return sorted(
        (part, name, str(array.dtype), array.shape, array.tobytes())
        for part, entries in portable.items()
        for name, array in entries.items()
    )


def comparable(found: Sequence[Transition]) -> list[tuple[object, ...]]:
    """Transitions without the row, which is the batch's, in one order."""
    plain = [replace(t, row=0) for t in found]
    return sorted((t.at, t.name, t.series, t.starts_at, t.state, str(t)) for t in plain)


@settings(max_examples=examples(60), deadline=None)
@given(histories(), st.lists(st.tuples(st.integers(0, 600), st.booleans()), max_size=12))
def test_cuts_handing_over_and_watermarks_change_nothing(points: list[Point], cuts: list[tuple[int, bool]]) -> None:
    end = points[-1][1] if points else START
    whole = engine(*RULES, series=MANY)
    expected = feed(whole, points) + whole.absences(end)
    part = engine(*RULES, series=MANY[:3])
    part.grow(MANY[3:])
    found: list[Transition] = []
    done = 0
    for cut, hand_over in sorted(cuts):
        batch, done = points[done:cut], max(cut, done)
        found += feed(part, batch)
        if batch:
            found += part.absences(batch[-1][1])
        if hand_over:
            part = handed_over(part, MANY)
    found += feed(part, points[done:]) + part.absences(end)
    assert comparable(found) == comparable(expected)
    assert content(part.export()) == content(whole.export())


def renumbered(order: Sequence[int]) -> pl.DataFrame:
    """The series of ``MANY`` and three more (of hosts new and known), in another order."""
    more = directory({"host": "a", "labels": '{"cpu":"9"}'}, {"host": "new"}, {"host": "b", "metric": "other"}, start=5)
    return pl.concat([MANY, more])[list(order)].with_columns(number=pl.int_range(8, dtype=pl.Int32))


def by_id(found: Sequence[Transition], known: pl.DataFrame) -> list[tuple[object, ...]]:
    return comparable([replace(t, series=known["series_id"][t.series]) for t in found])


@settings(max_examples=examples(60), deadline=None)
@given(histories(), st.permutations(range(8)), st.integers(0, 600))
def test_neither_the_order_of_the_directory_nor_more_series_change_what_follows_or_is_handed_over(
    points: list[Point], order: list[int], cut: int
) -> None:
    known = renumbered(order)
    number_of = numbers_in(known)(MANY["series_id"].to_numpy())
    moved = [(int(number_of[series]), ts, value) for series, ts, value in points]
    between = points[cut - 1][1] if 0 < cut <= len(points) else START
    end = points[-1][1] if points else START
    plain, elsewhere = engine(*RULES, series=MANY), engine(*RULES, series=known)
    for made, own in ((plain, points), (elsewhere, moved)):
        feed(made, own[:cut])
        made.absences(between)
    assert content(plain.export()) == content(elsewhere.export())
    after = handed_over(plain, known)
    expected = feed(plain, points[cut:]) + plain.absences(end + HOUR)
    assert by_id(feed(after, moved[cut:]) + after.absences(end + HOUR), known) == by_id(expected, MANY)
    assert content(after.export()) == content(plain.export())


@settings(max_examples=examples(40), deadline=None)
@given(histories())
def test_starts_and_ends_alternate_and_lie_in_order(points: list[Point]) -> None:
    made = engine(*RULES, series=MANY)
    found = feed(made, points) + made.absences(points[-1][1] if points else START)
    assert [t.at for t in found if t.row >= 0] == sorted(t.at for t in found if t.row >= 0)
    opened: dict[tuple[str, int], Transition] = {}
    for t in found:
        if t.state == "firing":
            assert (t.name, t.series) not in opened
            opened[t.name, t.series] = t
            assert t.starts_at <= t.at
        else:
            first = opened.pop((t.name, t.series))
            assert (first.starts_at, first.at) <= (t.starts_at, t.at)
            assert t.starts_at == first.starts_at


def test_a_state_of_other_rules_is_refused() -> None:
    saved = engine(rule(name="a"), rule(name="b")).export()
    with pytest.raises(ValueError, match=r"state is of other rules.*rule:b:"):
        engine(rule(name="a")).adopt(saved, numbers_in(directory({})))
    with pytest.raises(ValueError, match=r"state is of other rules.*rule:a:"):
        engine(rule(name="a", value=11), rule(name="b")).adopt(saved, numbers_in(directory({})))


def test_a_directory_that_grew_since_the_state_was_exported_takes_it() -> None:
    before = engine(*RULES, series=MANY[:2])
    feed(before, every(10, [12] * 9))
    after = handed_over(before, MANY)
    assert feed(after, every(10, [5], start=START + 2 * MINUTE))[0].state == "resolved"
    assert [t.series for t in feed(after, every(10, [12] * 9, series=2, start=START + 2 * MINUTE))] == [2]


def test_series_that_the_directory_lacks_are_left_out() -> None:
    before = engine(rule(), series=directory({}, {}))
    feed(before, every(10, [50], series=0) + every(10, [50], series=1))
    only = directory({})
    after = handed_over(before, only)
    assert after.export()[exported_name(after)]["series_id"].tolist() == [1000]
    assert [t.state for t in feed(after, every(10, [5], start=START + MINUTE))] == ["resolved"]


def exported_name(made: RuleEngine) -> str:
    """The name under which an engine with one rule exports it."""
    (name,) = set(made.export()) - {"coverage"}
    return name


def test_adopting_a_state_forgets_everything_learnt_before() -> None:
    made = engine(rule(), ABSENT.model_copy(update={"name": "silent"}), series=TWO_HOSTS)
    empty = made.export()
    feed(made, every(10, [50, 60]) + pulse(1, 0, 12))
    made.absences(START + 12 * MINUTE)
    made.adopt(empty, numbers_in(TWO_HOSTS))
    assert content(made.export()) == content(empty)
    assert made.absences(START + 30 * MINUTE) == []
    assert [t.state for t in feed(made, every(10, [50], start=START + HOUR))] == ["firing"]


@pytest.mark.parametrize("first", [0, 1])
def test_of_two_series_that_stand_for_one_host_the_one_that_reported_last_counts(first: int) -> None:
    """States of different hours that are joined may each name another series of a host."""
    series = directory({"host": "a", "labels": '{"cpu":"0"}'}, {"host": "a", "labels": '{"cpu":"1"}'}, {"host": "b"})
    one, other = engine(ABSENT, series=series), engine(ABSENT, series=series)
    feed(one, pulse(first, 0, 20) + pulse(2, 0, 20))
    feed(other, pulse(1 - first, 0, 10) + pulse(2, 0, 20))
    name = exported_name(one)
    mine, theirs = one.export()[name], other.export()[name]
    both = np.concatenate([mine["series_id"], theirs["series_id"][theirs["series_id"] != 1002]])
    ids, place = np.unique(both, return_index=True)
    joined = {
        key: np.concatenate([array, theirs[key][theirs["series_id"] != 1002]])[place] for key, array in mine.items()
    }
    assert joined["series_id"].tolist() == ids.tolist() == [1000, 1001, 1002]
    after = engine(ABSENT, series=series)
    after.adopt({"coverage": one.export()["coverage"], name: joined}, numbers_in(series))
    assert content(after.export()) == content(one.export())


def test_other_rules_keep_what_unchanged_ones_know_and_end_what_removed_ones_had_open() -> None:
    keep, drop, change = rule(name="keep"), rule(name="drop"), rule(name="change")
    gone = rule(name="gone", kind="absence", value=None, **{"for": "1m"})
    made = engine(keep, drop, change, gone, series=TWO_HOSTS)
    feed(made, every(10, [50, 60]) + pulse(1, 0, 5, seconds=20))
    assert [t.name for t in made.absences(START + 5 * MINUTE)] == ["gone"]
    reworded = keep.model_copy(update={"description": "other words", "severity": "critical"})
    made.replace([reworded, rule(name="change", value=40), rule(name="new")], TWO_HOSTS)
    ended = made.absences(START + 5 * MINUTE)
    assert [(t.kind, t.name, t.state) for t in ended] == [
        ("rule", "change", "resolved"),
        ("rule", "drop", "resolved"),
        ("absence", "gone", "resolved"),
    ]
    found = feed(made, every(10, [50], start=START + HOUR))
    assert {(t.name, t.state) for t in found} == {("change", "firing"), ("new", "firing")}


# -- configuration ----------------------------------------------------------------------------------------------------


def test_the_shipped_rules_load_and_watch_the_whole_processor() -> None:
    made = RuleEngine(default_rules())
    cpu = {"metric": "system.cpu.utilization", "unit": "1"}
    made.grow(directory(cpu | {"labels": '{"cpu":"total"}'}, cpu | {"labels": '{"cpu":"0"}'}, cpu))
    assert made.matched()["cpu-saturated"] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{name: a, metric: x, value: .nan}", r"f:2: rules.0.value: .*finite"),
        ("{name: a, metric: x, value: 1, horizon: 3h}", "'horizon' has no effect in a rule of kind 'threshold'"),
        ("{name: a, metric: x, kind: absence, for: 5m, clear: 3}", "'clear' has no effect"),
        ("{name: a, metric: x, kind: rate, value: 1, window: 0}", "needs a 'window'"),
        ("{name: a, metric: x, value: 1, labels: {port: 5}}", "rules.0.labels.port: a pattern such as"),
        ("{name: a, metric: x, value: 1, for: 999999w}", "rules.0.for"),
    ],
)
def test_a_mistake_in_a_rule_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(f"rules:\n - {text}", "f")


def test_constants_fit_together() -> None:
    assert CELL < GAP < LIVE < STALE < RETIRED
    assert math.isfinite(RETIRED)
