"""Faults: what they do to signals, how they grow, spread and end, and the truth that is told of them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops_assets.synthetic.storms.course import Course, Without
from aiops_assets.synthetic.storms.engine import Storm
from aiops_assets.synthetic.storms.scenario import Scenario, load_scenario
from aiops_assets.synthetic.storms.truth import Truth, truth
from aiops_assets.synthetic.storms.vocabulary import library
from tests.examples import examples
from tests.storms import SECOND, START, document, fault, parsed, played, tiny

FAULTS = sorted(name for name, kind in library().kinds.items() if not kind.benign)
#: signals' homes: which host of the tiny fleet shows a kind best
ROOTS = {
    "network_partition": "switch-1", "link_flapping": "switch-1", "uplink_saturated": "switch-1",
    "bad_deploy": "web-1", "certificate_expiry": "web-1", "pool_exhaustion": "web-1", "thundering_herd": "web-1",
    "memory_leak": "web-2", "clock_skew": "web-2",
}  # fmt: skip
#: kinds whose own signals only hosts of other roles have
ELSEWHERE = {"dns_outage", "cache_loss"}


def signal(scenario: Scenario, group: str, name: str, *, sender: str = "telegraf") -> tuple[np.ndarray, np.ndarray]:
    """(seconds since the start, [T, H] values without noise)."""
    storm = Storm(scenario, START)
    stream = next(one for one in storm.fleet.streams if (one.group, one.sender) == (group, sender))
    course = Course(storm.plan, stream, stream.interval)
    steps = course.steps(START, START + 600 * SECOND)
    return (steps * stream.interval - START) / SECOND, course.values(name, steps, Without(noise=True))


def told(scenario: Scenario) -> Truth:
    return truth(scenario, START)


def own(kind: dict[str, Any], target: str = "db-1", **more: Any) -> Scenario:
    """A scenario with a kind of its own."""
    whole = {"title": "own", "cause": "{root} did it", "ramp": "60s", "recovery": "60s", **kind}
    return tiny({**fault("mine", target), **more}, kinds={"mine": whole})


def test_a_filling_disk_rises_to_the_full_mark_stays_and_is_emptied() -> None:
    scenario = tiny(fault("disk_filling", "db-1", ramp="2m"))
    at, values = signal(scenario, "db", "data_disk")
    full = values[:, 0]
    assert full[at < 120].max() < 0.7
    during = full[(at >= 130) & (at <= 240)]
    assert (np.diff(during) > 0).all()
    assert full[(at > 240) & (at < 420)] == pytest.approx(0.994)
    assert full[at > 540].max() < 0.7
    assert values[:, 1].max() < 0.7


@pytest.mark.parametrize(
    ("do", "value", "expected"), [("scale", 3.0, 3.0), ("add", 0.58, 2.0), ("toward", 0.29, 0.5), ("scale", 0.0, 0.0)]
)
def test_primitives_do_what_they_say(do: str, value: float, expected: float) -> None:
    kind = {"effects": [{"signal": "memory", "do": do, "value": value}]}
    with_it = own(kind)
    made = with_it.model_copy(
        update={"hosts": {name: group.model_copy(update={"signals": {}}) for name, group in with_it.hosts.items()}}
    )
    at, values = signal(made, "db", "memory")
    _, without = signal(tiny(), "db", "memory")
    chosen = (at > 200) & (at < 400)
    ratio = (values[chosen, 0] - (value if do == "add" else 0.0)) / without[chosen, 0]
    if do == "scale":
        assert ratio == pytest.approx(np.minimum(expected, 1.0 / without[chosen, 0]), rel=0.01)
    elif do == "toward":
        assert values[chosen, 0] == pytest.approx(value)
    else:
        assert values[chosen, 0] == pytest.approx(np.minimum(1.0, without[chosen, 0] + value))
    assert values[:, 1] == pytest.approx(without[:, 1])


@pytest.mark.parametrize(
    ("shape", "least", "most"),
    [("linear", 0.45, 0.56), ("exponential", 0.1, 0.25), ("sigmoid", 0.4, 0.6), ("step", 1, 1)],
)
def test_ramps_have_their_shapes(shape: str, least: float, most: float) -> None:
    kind = {"ramp": "100s", "effects": [{"signal": "query_time", "do": "scale", "value": 2.0, "shape": shape}]}
    at, values = signal(own(kind), "db", "query_time")
    _, without = signal(tiny(), "db", "query_time")
    half = int(np.searchsorted(at, 170))
    assert least - 0.06 <= values[half, 0] / without[half, 0] - 1.0 <= most + 0.06


def test_a_flapping_link_goes_up_and_down_with_its_traps() -> None:
    scenario = tiny(fault("link_flapping", "switch-1"))
    _, values = signal(scenario, "switch", "port_up", sender="snmp")
    turns = np.abs(np.diff(values[:, 0])).sum()
    assert 4 <= turns <= 6
    traps = [orjson.loads(one.body) for one in played(scenario) if one.format == "snmp_trap"]
    assert [trap["trap"][-1] for trap in traps] == ["3", "4"] * 3
    assert {trap["host"] for trap in traps} == {"tiny-switch-1"}
    assert all(first["ts"] < second["ts"] for first, second in pairwise(traps))


def test_faults_reach_dependents_later_and_weaker_with_every_hop() -> None:
    spread = {"hops": 2, "delay": "30s", "attenuation": 0.5}
    kind = {
        "ramp": 0, "recovery": 0, "spread": spread,
        "effects": [{"to": "dependents", "signal": ["latency", "query_time"], "do": "scale", "value": 3.0}],
    }  # fmt: skip
    made = document(kinds={"mine": {"title": "t", "cause": "c", **kind}}, faults=[fault("mine", "switch-1")])
    made["hosts"]["web"]["depends_on"] = ["db"]
    from aiops_assets.synthetic.storms.scenario import parse_scenario

    scenario = parse_scenario(made)
    plain = parse_scenario({**made, "faults": []})
    begun = {}
    for group, name in (("db", "query_time"), ("web", "latency")):
        at, values = signal(scenario, group, name)
        ratio = values[:, 0] / signal(plain, group, name)[1][:, 0]
        begun[group] = at[np.flatnonzero(ratio > 1.01)[0]], ratio[(at > 200) & (at < 400)].mean()
    assert begun["db"] == (150, pytest.approx(3.0))
    assert begun["web"] == (180, pytest.approx(2.0))


def test_a_silent_host_sends_nothing_and_a_polled_device_is_down() -> None:
    read = parsed(played(tiny(fault("silent_host", "web-3"), {**fault("silent_host", "switch-1"), "id": "device"})))
    window = pl.col("ts").is_between(START + 121 * SECOND, START + 419 * SECOND)
    points = read["telegraf"].points.join(read["telegraf"].series.with_row_index("series"), on="series").filter(window)
    assert set(points["host"]) == {"tiny-web-1", "tiny-web-2", "tiny-db-1", "tiny-db-2"}
    polls = read["collected"].points.join(read["collected"].series.with_row_index("series"), on="series")
    polls = polls.filter(window, pl.col("host") == "tiny-switch-1")
    assert set(polls["metric"]) == {"aiops.device.up", "aiops.device.poll.duration"}
    assert polls.filter(pl.col("metric") == "aiops.device.up")["value"].max() == 0
    hosts = read["syslog"].logs.filter(pl.col("ts").is_between(START + 125 * SECOND, START + 415 * SECOND))["host"]
    assert "tiny-web-3" not in set(hosts)


def test_a_skewed_clock_shows_in_samples_and_lines() -> None:
    scenario = tiny({**fault("clock_skew", "web-2"), "ramp": "10s", "with": {"seconds": 40}})
    found = played(scenario)
    read = parsed(found)["telegraf"]
    at = pl.DataFrame({"at": [one.at for one in found if one.format == "telegraf"]}).with_row_index("delivery")
    points = read.points.join(at, on="delivery").join(read.series.with_row_index("series"), on="series")
    window = pl.col("at").is_between(START + 150 * SECOND, START + 400 * SECOND)
    ahead = points.filter(window).group_by("host").agg((pl.col("ts") - pl.col("at")).max() / SECOND)
    by_host = dict(ahead.iter_rows())
    assert 25 <= by_host["tiny-web-2"] <= 40
    assert all(seconds <= 0 for host, seconds in by_host.items() if host != "tiny-web-2")


@pytest.mark.parametrize("kind", FAULTS)
def test_every_kind_that_ships_shows_where_its_truth_says(kind: str) -> None:
    target = ROOTS.get(kind, "db-1")
    scenario = tiny({**fault(kind, target), "ramp": "1m"})
    if kind in ELSEWHERE:
        assert not any(row.hop == 0 and row.host == f"tiny-{target}" for row in told(scenario).affected if row.effect)
        return
    made = told(scenario)
    (one,) = made.faults
    assert one.root == f"tiny-{target}"
    assert one.visible_at is not None
    assert one.start <= one.visible_at <= one.end
    assert "{" not in one.root_cause
    read = parsed(played(scenario))
    series = {row for batch in read.values() for row in batch.series.select("host", "metric", "labels").iter_rows()}
    assert made.affected or made.traces
    assert {(row.host, row.metric, row.labels) for row in made.affected} <= series
    assert all(row.start <= (row.visible_at or row.start) <= row.end for row in made.affected)


def test_the_truth_tells_the_size_over_the_noise_that_is_in_the_values() -> None:
    scenario = tiny(fault("slow_disk", "db-1", ramp="1s"))
    (row,) = [row for row in told(scenario).affected if row.signal == "query_time" and row.host == "tiny-db-1"]
    read = parsed(played(scenario))["telegraf"]
    points = read.points.join(
        read.series.with_row_index("series").filter(
            pl.col("host") == row.host, pl.col("metric") == row.metric, pl.col("labels") == row.labels
        ),
        on="series",
    )
    before = points.filter(pl.col("ts") < row.start)["value"]
    during = points.filter(pl.col("ts").is_between(row.start + 10 * SECOND, row.end - 90 * SECOND))["value"]
    assert row.effect == pytest.approx(during.mean() - before.mean(), rel=0.35)
    assert row.effect_over_noise is not None
    assert row.effect_over_noise > 20


def test_what_no_fault_touches_is_not_told_and_does_not_change() -> None:
    scenario, calm = tiny(fault("slow_disk", "db-1")), tiny()
    touched = {(row.host, row.metric, row.labels) for row in told(scenario).affected}

    def values(made: Scenario) -> dict[tuple[str, ...], list[float]]:
        found: dict[tuple[str, ...], list[float]] = {}
        for batch in parsed(one for one in played(made) if one.format in {"telegraf", "collected"}).values():
            rows = batch.points.join(batch.series.with_row_index("series"), on="series").sort("ts")
            for key, part in rows.group_by("host", "metric", "labels"):
                found[tuple(map(str, key))] = part.sort("ts")["value"].to_list()
        return found

    stormy, plain = values(scenario), values(calm)
    changed = {key for key in plain if stormy[key] != plain[key]}
    assert changed >= {key for key in touched if key in plain} - {key for key in touched if plain[key] == stormy[key]}
    small = changed - touched
    for key in small:
        # below half a deviation nothing is told
        assert np.std(plain[key]) == 0 or abs(np.mean(stormy[key]) - np.mean(plain[key])) < 2 * np.std(plain[key])
    assert {host for host, _, _ in changed} <= {"tiny-db-1", "tiny-web-1", "tiny-web-2", "tiny-web-3"}


def test_faults_of_one_incident_are_told_together_with_the_first_cause_as_root() -> None:
    made = truth(load_scenario("black-friday"), START)
    checkout = next(one for one in made.incidents if one.id == "checkout")
    assert checkout.faults == ("release", "locks")
    assert checkout.root == "black-friday-api-05"
    assert "black-friday-db-1" in checkout.hosts
    assert {one.id for one in made.incidents} == {"checkout", "psu", "resolver", "silence", "disk"}
    locks = next(one for one in made.faults if one.id == "locks")
    assert locks.change is not None
    assert locks.change["version"] == "5.1.0"
    assert {one.id for one in made.benign} == {"newsletter", "other-release", "backup"}


def test_the_truth_is_plain_json_and_frames() -> None:
    made = truth(load_scenario("bad-deploy"), START)
    again = orjson.loads(orjson.dumps(made.as_json()))
    assert again["faults"][0]["root"] in made.hosts
    frames = made.frames()
    assert set(frames) == {"faults", "affected", "traces", "incidents", "benign", "benign_affected"}
    assert frames["affected"].height == len(made.affected)
    assert frames["faults"]["start"].dtype == pl.Int64
    assert frames["incidents"]["hosts"].dtype == pl.List(pl.String)


def test_benign_events_can_be_told_with_their_series() -> None:
    scenario = load_scenario("ordinary-day")
    made = truth(scenario, START, benign_series=True)
    assert not made.faults
    assert {row.fault_id.partition(".")[0] for row in made.benign_affected} >= {"release", "newsletter", "job"}


def test_a_kind_of_ones_own_takes_parameters() -> None:
    kind = {
        "parameters": {"much": 5.0},
        "effects": [{"signal": "connections", "do": "scale", "value": "$much"}],
        "logs": [{"app": "own", "rate": 1.0, "lines": [{"text": "{root} is at {n}", "severity": "crit"}]}],
    }
    scenario = own(kind, **{"with": {"much": 9.0}})
    at, values = signal(scenario, "db", "connections")
    _, without = signal(tiny(), "db", "connections")
    chosen = (at > 200) & (at < 400)
    assert values[chosen, 0] / without[chosen, 0] == pytest.approx(9.0, rel=0.02)
    lines = parsed(played(scenario))["syslog"].logs.filter(pl.col("app") == "own")
    assert lines.height > 150
    assert lines["body"].str.starts_with("tiny-db-1 is at ").all()
    assert set(lines["severity_number"]) == {21}
    assert told(scenario).faults[0].root_cause == "tiny-db-1 did it"


@settings(max_examples=examples(8), deadline=None)
@given(
    st.sampled_from(["scale", "add", "toward", "noise", "freeze", "silence"]),
    st.floats(-10, 1e6, allow_nan=False),
    st.sampled_from(["linear", "step", "exponential", "sigmoid", "flap", "sawtooth"]),
    st.floats(0, 0.9),
    st.sampled_from(["cpu", "memory", "connections", "data_write", "load", "*"]),
)
def test_whatever_a_kind_declares_parsers_can_read_what_comes_of_it(
    do: str, value: float, shape: str, begins: float, name: str
) -> None:
    effect = {"signal": name, "do": do, "value": value, "shape": shape, "begins": begins}
    scenario = own({"effects": [effect]}, lasts="1m", start="30s").model_copy(update={"duration": 120.0})
    for batch in parsed(played(scenario)).values():
        assert not batch.rejects
