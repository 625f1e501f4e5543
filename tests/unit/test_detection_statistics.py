"""The tier-1 detector: what it reports and leaves alone; batches, handing over and numbering change nothing."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from aiops_assets.config import Statistics
from aiops_assets.detection import baselines
from aiops_assets.detection.alerts import AlertBook, BatchRows
from aiops_assets.detection.statistics import Tier1
from aiops_assets.detection.steps import steps
from aiops_assets.detection.transitions import Transition
from aiops_assets.hours import MICROS_PER_HOUR
from tests.examples import examples

START = 1_760_000_400_000_000 // MICROS_PER_HOUR * MICROS_PER_HOUR
MINUTE = 60_000_000
NOTICE = 9


def directory(count: int, kind: str = "gauge") -> pl.DataFrame:
    return pl.DataFrame(
        {
            "host": [f"web-{k}" for k in range(count)],
            "metric": ["system.cpu.utilization"] * count,
            "labels": ["{}"] * count,
            "kind": [kind] * count,
        }
    )


def detector(count: int, kind: str = "gauge", options: Statistics | None = None) -> Tier1:
    made = Tier1(options)
    made.grow(directory(count, kind))
    return made


def feed(
    made: Tier1, series: Any, ts: Any, value: Any, *, close: bool = True
) -> tuple[pl.DataFrame, list[Transition], NDArray[np.float64]]:
    """Hour by hour, each hour judged before it closes, as the live plane does."""
    series, ts = np.asarray(series, np.int32), np.asarray(ts, np.int64)
    value = np.asarray(value, np.float64)
    frames, transitions, scores = [], [], np.zeros(len(ts))
    for hour in np.unique(ts // MICROS_PER_HOUR):
        rows = np.flatnonzero(ts // MICROS_PER_HOUR == hour)
        of_hour = np.zeros(len(rows))
        frame, found = made.process(steps(series[rows], ts[rows], value[rows]), of_hour)
        scores[rows] = of_hour
        frames.append(frame)
        transitions += found
        if close:
            made.close_hour(int(hour) * MICROS_PER_HOUR, closed(series[rows], ts[rows], value[rows]))
    return pl.concat(frames), transitions, scores


def closed(series: NDArray[np.int32], ts: NDArray[np.int64], value: NDArray[np.float64]) -> pl.DataFrame:
    points = pl.DataFrame({"series_id": series.astype(np.int64), "ts": ts, "value": value})
    return baselines.close(points).with_columns(number=pl.col("series_id").cast(pl.Int32))


def daily(days: float, step: int = 5 * MINUTE, noise: float = 1.0, seed: int = 0) -> tuple[Any, NDArray[np.float64]]:
    ts = START + np.arange(int(days * 86_400_000_000 / step), dtype=np.int64) * step
    rng = np.random.default_rng(seed)
    return ts, 50 + 20 * np.sin(ts / 86_400_000_000 * 2 * np.pi) + rng.normal(0, noise, len(ts))


def one(ts: Any, value: Any, **options: Any) -> tuple[pl.DataFrame, list[Transition], NDArray[np.float64]]:
    return feed(detector(1, **options), np.zeros(len(ts)), ts, value)


def test_a_calm_daily_rhythm_raises_nothing() -> None:
    ts, value = daily(14)
    _, transitions, _ = one(ts, value)
    assert transitions == []


def test_a_spike_is_one_event_on_its_first_row_and_resolves() -> None:
    ts, value = daily(10)
    value[2000:2004] += 90
    frame, transitions, scores = one(ts, value)
    assert [t.state for t in transitions] == ["firing", "resolved"]
    fired, resolved = transitions
    assert fired.at == fired.starts_at == resolved.starts_at == ts[2000]
    assert resolved.at > ts[2003]
    assert frame.filter("opens_event")["ts"].to_list() == [ts[2000]]
    assert scores[2000] == scores.max() > 0.6
    assert "system.cpu.utilization on web-0" in fired.summary
    assert fired.threshold is not None
    assert fired.threshold < value[2000]
    evidence = json.loads(frame.filter("opens_event")["evidence"][0])
    assert evidence["side"] == "above"
    assert evidence["passed"]


def test_a_lasting_shift_of_the_level_is_one_event() -> None:
    ts, value = daily(10)
    value[2000:] += 60
    _, transitions, _ = one(ts, value)
    assert sum(t.state == "firing" for t in transitions) == 1


def test_a_day_without_its_usual_peak_is_found() -> None:
    ts, value = daily(12, noise=0.5)
    missing = (ts >= ts[0] + 9 * 86_400_000_000) & (ts < ts[0] + 10 * 86_400_000_000)
    value[missing] = 30 + np.random.default_rng(3).normal(0, 0.5, int(missing.sum()))
    _, transitions, _ = one(ts, value)
    assert any(t.state == "firing" and ts[missing][0] <= t.at <= ts[missing][-1] for t in transitions)


def test_a_sensor_that_freezes_is_found() -> None:
    ts = START + np.arange(2300, dtype=np.int64) * 5 * MINUTE
    value = np.random.default_rng(0).normal(50, 1, len(ts))
    value[2000:] = 50.0
    _, transitions, _ = one(ts, value)
    assert [(t.name, t.state) for t in transitions if t.severity_number > NOTICE] == [("flatline", "firing")]
    assert "without any change for" in transitions[-1].summary


def test_a_series_that_never_varied_is_not_called_frozen() -> None:
    ts = START + np.arange(3000, dtype=np.int64) * 5 * MINUTE
    assert one(ts, np.full(len(ts), 7.0))[1] == []


def test_a_weak_event_is_a_notice_and_gets_its_severity_when_it_grows() -> None:
    ts = START + np.arange(2500, dtype=np.int64) * 5 * MINUTE
    value = np.random.default_rng(0).uniform(49, 51, len(ts))
    value[2000], value[2001] = 52.6, 80.0
    frame, transitions, _ = one(ts, value)
    transitions = [t for t in transitions if t.at >= ts[2000]]
    first, second, last = transitions
    assert [(t.state, t.severity_number) for t in transitions] == [("firing", 9), ("firing", 13), ("resolved", 13)]
    assert first.starts_at == second.starts_at == last.starts_at == ts[2000]
    assert frame.filter("opens_event")["ts"].to_list()[-1] == ts[2000]
    book = AlertBook(history_after=None)
    series = directory(1).with_columns(
        series_id=pl.lit(7, pl.Int64), number=pl.lit(0, pl.Int32), unit=pl.lit(""), source=pl.lit("s")
    )
    alerts = book.apply(transitions, directory=series, windows=[], batch=BatchRows.empty())
    assert alerts["alert_id"].n_unique() == 1
    assert alerts["severity_number"].to_list() == [9, 13, 13]
    assert alerts["state"].to_list() == ["firing", "firing", "resolved"]


def test_a_ramp_over_hours_becomes_more_than_a_notice() -> None:
    ts = START + np.arange(9 * 1440, dtype=np.int64) * MINUTE
    value = np.random.default_rng(0).normal(50, 1, len(ts))
    value[-600:] += np.linspace(0, 12, 600)
    _, transitions, _ = one(ts[::2], value[::2])
    assert max(t.severity_number for t in transitions if t.at > ts[-600]) == 13


def test_what_happens_in_a_gap_of_the_data_is_no_spike() -> None:
    ts = START + np.arange(3000, dtype=np.int64) * 5 * MINUTE
    value = np.random.default_rng(0).uniform(49, 51, len(ts)) + np.sin(np.arange(len(ts)) / 300) * 20
    keep = np.r_[0:1500, 1900:3000]
    _, transitions, _ = one(ts[keep], value[keep])
    assert "spike" not in {t.name for t in transitions}


def test_a_long_event_keeps_a_bounded_number_of_rows() -> None:
    ts = START + np.arange(2300, dtype=np.int64) * 5 * MINUTE
    value = np.random.default_rng(0).normal(50, 1, len(ts))
    value[2000:] += 100
    frame, _, _ = one(ts, value)
    assert 12 <= frame.height <= 30


def test_the_same_excursion_is_reported_once_in_a_while_not_each_time() -> None:
    ts = START + np.arange(4000, dtype=np.int64) * 5 * MINUTE
    value = np.random.default_rng(0).normal(50, 1, len(ts))
    value[2000::200] += 100
    _, transitions, _ = one(ts, value)
    assert [t.at for t in transitions if t.state == "firing" and t.severity_number > NOTICE] == [ts[2000]]


def test_nothing_is_reported_before_there_is_a_day_of_history() -> None:
    ts, value = daily(0.9)
    value[-20] = 1e6
    assert one(ts, value)[1] == []


def test_a_spike_that_comes_every_day_is_reported_at_most_twice() -> None:
    ts, value = daily(14)
    value[::288] += 80
    assert sum(t.state == "firing" for t in one(ts, value)[1]) <= 2


def test_a_counter_is_judged_by_its_rate_and_a_reset_is_skipped() -> None:
    ts, _ = daily(8)
    rng = np.random.default_rng(0)
    total = np.cumsum(rng.uniform(900, 1100, len(ts)))
    total[1500:] -= total[1500] - 5.0
    assert one(ts, total, kind="counter")[1] == []
    total[2000:] += 100_000
    _, transitions, _ = one(ts, total, kind="counter")
    assert [t.at for t in transitions if t.state == "firing" and t.severity_number > NOTICE] == [ts[2000]]


def test_excluded_metrics_are_left_alone() -> None:
    ts, value = daily(10)
    value[2000] = 1e9
    assert one(ts, value, options=Statistics(exclude=("system.cpu.*",)))[1] == []


def test_a_metric_that_is_excluded_while_its_event_is_open_ends_it() -> None:
    ts, value = daily(10)
    value[2000:] += 90
    made = detector(1)
    _, transitions, _ = feed(made, np.zeros(2003), ts[:2003], value[:2003])
    assert transitions[-1].state == "firing"
    made.reconfigure(Statistics(exclude=("system.*",)), directory(1))
    _, transitions, _ = feed(made, np.zeros(50), ts[2003:2053], value[2003:2053])
    assert [(t.state, t.at) for t in transitions] == [("resolved", ts[2003])]
    made.reconfigure(Statistics(severity="error"), directory(1))
    value[2060] += 1e6
    _, transitions, _ = feed(made, np.zeros(10), ts[2053:2063], value[2053:2063])
    assert [t.severity_number for t in transitions] == [17]


def test_severity_comes_from_the_configuration() -> None:
    ts, value = daily(10)
    value[2000] = 1e9
    assert {t.severity_number for t in one(ts, value, options=Statistics(severity="error"))[1]} == {17}


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(3000),
        np.full(3000, 1e300),
        np.where(np.arange(3000) % 7, 5e-324, 0.0),
        np.where(np.arange(3000) % 2, 1.7e308, -1.7e308),
        np.where(np.arange(3000) % 500, 0.0, 1e300),
        np.round(np.random.default_rng(0).uniform(0, 3, 3000)),
        np.arange(3000.0),
        np.where(np.arange(3000) == 2500, 1e300, 1e-300),
    ],
    ids=["zero", "huge", "denormal", "alternating", "sparse", "quantised", "ramp", "from tiny to huge"],
)
def test_extreme_series_make_no_warning_and_no_nan(value: NDArray[np.float64]) -> None:
    ts = START + np.arange(len(value), dtype=np.int64) * 5 * MINUTE
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = detector(1)
        frame, transitions, scores = feed(made, np.zeros(len(ts)), ts, value)
    assert np.isfinite(scores).all()
    assert ((scores >= 0) & (scores <= 1)).all()
    for column in ("value", "lower", "upper", "expected", "score"):
        assert frame[column].is_finite().all()
    assert sum(t.state == "firing" for t in transitions) <= 3
    assert all(np.isfinite(array).all() for array in learnt(made, 1).values() if array.dtype == np.float64)


def ids(count: int) -> NDArray[np.int64]:
    """A series_id for each number; they do not ascend."""
    return np.arange(count, dtype=np.int64) * 7919 % 1009 - 500


def numbers_in(series_id: NDArray[np.int64]) -> Callable[[NDArray[np.int64]], NDArray[np.int32]]:
    """Numbers of series_ids, -1 where there is none."""
    number_of = {id_: number for number, id_ in enumerate(series_id.tolist())}
    return lambda wanted: np.array([number_of.get(id_, -1) for id_ in wanted.tolist()], np.int32)


def learnt(made: Tier1, count: int) -> dict[str, NDArray[Any]]:
    return made.export(ids(count))


def same(left: dict[str, NDArray[Any]], right: dict[str, NDArray[Any]]) -> bool:
    assert left.keys() == right.keys()
    return all(
        (left[name].dtype, left[name].shape, left[name].tobytes())
        == (right[name].dtype, right[name].shape, right[name].tobytes())
        for name in left
    )


def handed_over(before: Tier1, count: int, more: int = 0) -> Tier1:
    """Another detector that goes on from there."""
    after = detector(count + more)
    after.adopt(learnt(before, count), numbers_in(ids(count + more)))
    return after


@settings(max_examples=examples(10), deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 5000), max_size=6), st.booleans())
def test_cuts_into_batches_and_handing_over_change_no_bit(seed: int, cuts: list[int], restart: bool) -> None:
    rng = np.random.default_rng(seed)
    count = 7
    interval = rng.choice([MINUTE, 5 * MINUTE, 20 * MINUTE], count)
    length = 900
    series = np.repeat(np.arange(count, dtype=np.int32), length)
    ts = (
        START + np.arange(length)[None, :] * interval[:, None] + rng.integers(0, MINUTE // 2, (count, length))
    ).ravel()
    value = rng.standard_t(2, count * length)
    value[rng.random(len(value)) < 0.002] *= 40
    order = np.argsort(ts, kind="stable")
    series, ts, value = series[order], ts[order], value[order]
    whole = detector(count)
    frame, transitions = whole.process(steps(series, ts, value))

    piecewise = detector(count)
    bounds = [0, *sorted({c % len(ts) for c in cuts} - {0}), len(ts)]
    frames, found = [], []
    for start, end in pairwise(bounds):
        part, more = piecewise.process(steps(series[start:end], ts[start:end], value[start:end]))
        frames.append(part.with_columns(row=pl.col("row") + start))
        found += [(t.series, t.at, t.state, t.name, t.summary, t.row + start) for t in more]
        if restart:
            piecewise = handed_over(piecewise, count)
    key = ["series", "ts", "opens_event"]
    assert pl.concat(frames).sort(key).equals(frame.sort(key))
    assert sorted(found) == sorted((t.series, t.at, t.state, t.name, t.summary, t.row) for t in transitions)
    assert same(learnt(whole, count), learnt(piecewise, count))


@settings(max_examples=examples(10), deadline=None)
@given(st.integers(0, 2**31), st.permutations(range(7)), st.integers(1, 799))
def test_neither_the_numbers_of_series_nor_more_of_them_change_what_follows_or_is_handed_over(
    seed: int, order: list[int], cut: int
) -> None:
    rng = np.random.default_rng(seed)
    count, length = 5, 800
    series = np.tile(np.arange(count, dtype=np.int32), length)
    ts = START + np.repeat(np.arange(length), count) * 5 * MINUTE
    value = rng.standard_t(2, count * length)
    value[rng.random(len(value)) < 0.004] *= 40
    cut *= count
    here = ids(7)[:count]
    there = ids(7)[order]
    number_of = numbers_in(there)(here)
    names = pl.DataFrame(
        {
            "host": [f"h{id_}" for id_ in there],
            "metric": ["m"] * 7,
            "kind": ["counter" if id_ % 5 == 0 else "gauge" for id_ in there],
        }
    )
    named = names[number_of]

    plain, elsewhere = Tier1(), Tier1()
    plain.grow(named)
    elsewhere.grow(names)
    feed(plain, series[:cut], ts[:cut], value[:cut])
    feed(elsewhere, number_of[series[:cut]], ts[:cut], value[:cut])
    assert same(plain.export(here), elsewhere.export(there))

    after = Tier1()
    after.grow(names)
    after.adopt(plain.export(here), numbers_in(there))
    frame, transitions = plain.process(steps(series[cut:], ts[cut:], value[cut:]))
    moved, found = after.process(steps(number_of[series[cut:]], ts[cut:], value[cut:]))
    key = ["ts", "series", "opens_event"]
    back = pl.Series(numbers_in(here)(there))
    assert moved.with_columns(series=back.gather(moved["series"])).sort(key).equals(frame.sort(key))
    told = [
        sorted((int(known[t.series]), t.at, t.state, t.name, t.summary, t.row) for t in some)
        for known, some in ((here, transitions), (there, found))
    ]
    assert told[0] == told[1]
    assert same(plain.export(here), after.export(there))


def test_a_subset_of_series_and_all_of_them_are_computed_alike() -> None:
    ts, value = daily(6)
    together, apart = detector(3), detector(3)
    series = np.tile(np.arange(3, dtype=np.int32), len(ts))
    for made, mask in ((together, [[0, 1, 2]]), (apart, [[0, 2], [1]])):
        for members in mask:
            rows = np.isin(series, members)
            made.process(steps(series[rows], np.repeat(ts, 3)[rows], np.repeat(value, 3)[rows]))
    assert same(learnt(together, 3), learnt(apart, 3))


def test_series_announced_after_a_hand_over_start_fresh() -> None:
    ts, value = daily(3)
    made = detector(1)
    made.process(steps(np.zeros(len(ts), np.int32), ts, value))
    longer = handed_over(made, 1, more=1)
    grown = handed_over(made, 1)
    grown.grow(directory(1))
    fresh = detector(1)
    assert same(learnt(longer, 2), learnt(made, 1))
    for one in (longer, grown):
        one.process(steps(np.ones(len(ts), np.int32), ts, value))
    fresh.process(steps(np.zeros(len(ts), np.int32), ts, value))
    assert same(learnt(longer, 2), learnt(grown, 2))
    alone = fresh.export(ids(2)[1:])
    both = learnt(longer, 2)
    assert both["state"][:, both["series_id"] == ids(2)[1]].tobytes() == alone["state"].tobytes()


def test_adopting_a_state_forgets_everything_learnt_before_and_leaves_out_unknown_series() -> None:
    ts, value = daily(3)
    empty = learnt(detector(2), 2)
    assert not len(empty["series_id"])
    made = detector(2)
    feed(made, np.repeat([0, 1], len(ts)), np.tile(ts, 2), np.tile(value, 2))
    narrow = detector(1)
    narrow.adopt(learnt(made, 2), numbers_in(ids(2)[1:]))
    assert narrow.export(ids(2)[1:])["series_id"].tolist() == [ids(2)[1]]
    made.adopt(empty, numbers_in(ids(2)))
    assert same(learnt(made, 2), empty)
    fresh = detector(2)
    for one in (made, fresh):
        feed(one, np.ones(len(ts)), ts, value)
    assert same(learnt(made, 2), learnt(fresh, 2))


def test_late_and_repeated_points_are_not_judged() -> None:
    ts, value = daily(8)
    made = detector(1)
    made.process(steps(np.zeros(len(ts), np.int32), ts, value))
    before = learnt(made, 1)
    _, transitions = made.process(steps(np.zeros(2, np.int32), ts[[100, -1]], np.array([1e9, 1e9])))
    assert transitions == []
    assert same(learnt(made, 1), before)


def test_memory_is_bounded_per_series() -> None:
    made = detector(1000)
    made.process(steps(np.arange(1000, dtype=np.int32), np.full(1000, START), np.ones(1000)))
    state = learnt(made, 1000)
    assert len(state["series_id"]) == 1000
    assert sum(array.nbytes for array in state.values()) / 1000 < 10_000
