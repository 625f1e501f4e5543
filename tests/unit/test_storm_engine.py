"""The engine: order, determinism, any part alone, flat memory, values that look like those of machines."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from aiops_assets.synthetic.storms.course import Course, Without
from aiops_assets.synthetic.storms.engine import Storm, emissions
from aiops_assets.synthetic.storms.noise import counts, normal, salts, uniform, wandering, with_tails
from aiops_assets.synthetic.storms.scenario import Scenario, parse_scenario
from tests.storms import SECOND, START, document, fault, parsed, played, tiny


def mixed(**changes: object) -> Scenario:
    """Faults of several kinds, after some history."""
    return tiny(
        fault("silent_host", "web-3", lasts="3m"),
        {**fault("clock_skew", "web-2"), "id": "clock", "ramp": "1m"},
        {**fault("frozen_sensor", "db-2"), "id": "frozen"},
        history={"span": "20m", "interval": "60s"},
        **changes,
    )


def test_the_same_seed_and_start_give_the_same_bytes() -> None:
    assert played(mixed()) == played(mixed()) == list(emissions(mixed(), start_at=START))


def test_another_seed_gives_other_values() -> None:
    assert played(mixed(), seed=2) != played(mixed(), seed=3)


def test_deliveries_come_in_order_of_time_and_never_before_what_they_tell() -> None:
    found = played(tiny(fault("slow_disk", "db-1")))
    assert [one.at for one in found] == sorted(one.at for one in found)
    for name, batch in parsed(found).items():
        sent = pl.DataFrame({"at": [one.at for one in found if one.format == name]}).with_row_index("delivery")
        for rows in (batch.points, batch.logs, batch.errors):
            ahead = rows.select("delivery", "ts").join(sent, on="delivery").filter(pl.col("ts") > pl.col("at"))
            assert ahead.is_empty(), name


@pytest.mark.parametrize(("begin", "end"), [(-700, 100), (123, 321), (140, 141), (-1_200, 600), (400, 600)])
def test_any_part_made_alone_is_what_it_is_in_the_whole(begin: int, end: int) -> None:
    whole = played(mixed())
    part = played(mixed(), begin=START + begin * SECOND, end=START + end * SECOND)
    keys = {one.key for one in part}
    assert part
    assert part == [one for one in whole if one.key in keys]
    inside = [one for one in whole if START + begin * SECOND < one.at < START + end * SECOND]
    assert {one.key for one in inside} <= keys


def test_windows_do_not_show_in_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = played(mixed())
    monkeypatch.setattr("aiops_assets.synthetic.storms.engine.WINDOW_VALUES", 700)
    assert played(mixed()) == whole


def test_history_is_marked_and_lies_before_the_start() -> None:
    found = played(mixed())
    assert all(one.history == (one.at <= START) for one in found if one.format in {"telegraf", "collected"})
    assert not any(one.history for one in played(mixed(), history=False))


def test_no_delivery_is_larger_than_a_live_session_takes_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiops_assets.synthetic.storms.engine.BODY_BYTES", 4_000)
    found = played(tiny())
    assert max(len(one.body) for one in found if one.format == "telegraf") <= 4_000
    assert parsed(found)["telegraf"].points.height == sum(one.points for one in found if one.format == "telegraf")


def test_counters_only_grow_and_go_on_from_the_history_into_the_storm() -> None:
    scenario = tiny(history={"span": "30m", "interval": "60s"})
    read = parsed(played(scenario))["telegraf"]
    points = read.points.join(
        read.series.with_row_index("series").filter(pl.col("metric") == "system.uptime", pl.col("host") == "tiny-db-1"),
        on="series",
    ).sort("ts")
    ticks = points["value"].diff().drop_nulls() - points["ts"].diff().drop_nulls() / SECOND
    assert points.height > 80
    assert ticks.abs().max() == 0


def test_a_restart_begins_counters_at_zero() -> None:
    read = parsed(played(tiny(fault("silent_host", "web-3", lasts="3m"))))["telegraf"]
    uptime = read.points.join(
        read.series.with_row_index("series").filter(
            pl.col("metric") == "system.uptime", pl.col("host") == "tiny-web-3"
        ),
        on="series",
    ).sort("ts")
    after = uptime.filter(pl.col("ts") > START + 300 * SECOND)
    assert uptime.filter(pl.col("ts").is_between(START + 121 * SECOND, START + 299 * SECOND)).is_empty()
    assert after["value"].max() <= 480
    assert after["value"].is_sorted()


def test_a_hanging_agent_repeats_its_last_values_and_totals() -> None:
    read = parsed(played(tiny(fault("frozen_sensor", "db-2"))))["telegraf"]
    points = read.points.join(read.series.with_row_index("series"), on="series")
    held = points.filter(
        pl.col("host") == "tiny-db-2", pl.col("ts").is_between(START + 121 * SECOND, START + 419 * SECOND)
    )
    assert held.group_by("metric", "labels").agg(pl.col("value").n_unique())["value"].max() == 1
    others = points.filter(pl.col("host") == "tiny-db-1", pl.col("metric") == "system.memory.utilization")
    assert others["value"].n_unique() > 20


def test_memory_does_not_grow_with_the_length() -> None:
    import tracemalloc

    def peak(minutes: int) -> int:
        scenario = tiny(duration=f"{minutes}m")
        tracemalloc.start()
        for _ in Storm(scenario, START).emissions():
            pass
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    from aiops_assets.synthetic.storms import engine

    before, engine.WINDOW_VALUES = engine.WINDOW_VALUES, 6_000
    try:
        peak(2)
        assert peak(30) < 1.5 * peak(10)
    finally:
        engine.WINDOW_VALUES = before


def course(scenario: Scenario, group: str) -> Course:
    storm = Storm(scenario, START)
    stream = next(one for one in storm.fleet.streams if one.group == group)
    return Course(storm.plan, stream, stream.interval)


def test_busy_hours_and_quiet_weekends_show() -> None:
    made = course(tiny(), "web")
    week = np.arange(0, 7 * 86_400, 600, dtype=np.int64) * SECOND + START
    load = made.load(week, Without(noise=True))[:, 0]
    hour = week // (3_600 * SECOND) % 24
    weekend = (week // (86_400 * SECOND) + 3) % 7 >= 5
    assert load[(hour == 14) & ~weekend].mean() > 2 * load[(hour == 3) & ~weekend].mean()
    assert load[weekend].mean() < 0.9 * load[~weekend].mean()
    assert 0.9 < load.mean() < 1.1


def test_noise_is_correlated_in_time_and_heavier_in_its_tails_than_a_normal_one() -> None:
    made = course(tiny(), "web")
    steps = np.arange(0, 30_000, dtype=np.int64) + START // made.interval
    values = made.values("cpu", steps)[:, 0] / made.values("cpu", steps, Without(noise=True))[:, 0] - 1.0
    lagged = np.corrcoef(values[:-1], values[1:])[0, 1]
    assert 0.3 < lagged < 0.95
    quick = np.diff(values)
    assert ((quick - quick.mean()) ** 4).mean() / quick.var() ** 2 > 3.2
    assert 0.03 < values.std() < 0.15


def test_hosts_of_a_service_move_together_and_are_not_the_same() -> None:
    made = course(tiny(), "web")
    steps = np.arange(0, 5_000, dtype=np.int64) + START // made.interval
    values = made.values("requests", steps)
    together = np.corrcoef(values.T)
    assert together[0, 1] > 0.3
    assert together[0, 1] < 0.999
    assert len({round(value, 6) for value in values.mean(axis=0)}) == 3


def test_ratios_stay_ratios_and_whole_numbers_whole() -> None:
    made = course(tiny(fault("runaway_process", "web-1", lasts="8m")), "web")
    steps = made.steps(START, START + 600 * SECOND)
    assert made.values("cpu", steps).max() <= 1.0
    assert made.values("cpu", steps).min() > 0.0
    sessions = made.values("sessions", steps)
    assert (sessions == np.rint(sessions)).all()


def test_some_samples_never_come() -> None:
    made = document(duration="20m")
    for group in made["hosts"].values():
        group["lost"] = 0.05
    storm = Storm(parse_scenario(made), START)
    sent = sum(one.points for one in storm.emissions() if one.format == "telegraf")
    expected = sum(
        stream.series * (1_200 * SECOND // stream.interval)
        for stream in storm.fleet.streams
        if stream.sender == "telegraf"
    )
    assert 0.90 * expected < sent < 0.99 * expected


def test_deviates_have_the_moments_they_claim() -> None:
    salted = salts(1, "t", [f"h{n}" for n in range(50)])
    index = np.arange(4_000, dtype=np.int64)
    deviates = normal(index, salted)
    assert abs(deviates.mean()) < 0.01
    assert abs(deviates.std() - 1) < 0.01
    assert abs(with_tails(deviates, 0.3).std() - 1) < 0.03
    assert abs(wandering(index * 60 * SECOND, salted).std() - 1) < 0.12
    found = counts(np.full((4_000, 50), 3.0), uniform(index, salted))
    assert abs(found.mean() - 3.0) < 0.03
    assert abs(found.var() - 3.0) < 0.08
