"""The scenario language: what can be written, and what is said of what cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from aiops_assets.synthetic.storms.faults import Plan
from aiops_assets.synthetic.storms.fleet import Fleet
from aiops_assets.synthetic.storms.scenario import load_scenario, parse_scenario, shipped, source_text
from aiops_assets.synthetic.storms.vocabulary import ScenarioError, library, seconds_of
from tests.storms import START, document, fault, tiny

DAY = 86_400 * 1_000_000


def problems(document: dict[str, Any]) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(document, "mine.yaml")
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1h30m", 5400), ("7d", 604_800), ("250ms", 0.25), (12, 12), ("1.5h", 5400)]
)
def test_spans_of_time_are_written_as_people_write_them(text: object, seconds: float) -> None:
    assert seconds_of(text) == seconds


@given(st.one_of(st.text(), st.booleans(), st.none(), st.lists(st.integers())))
def test_what_is_no_span_of_time_is_refused(value: object) -> None:
    try:
        assert seconds_of(value) >= 0
    except ValueError as error:
        assert "such as 30s" in str(error)


def test_at_least_twelve_scenarios_ship_and_all_can_be_loaded() -> None:
    names = shipped()
    assert len(names) >= 12
    for name in names:
        scenario = load_scenario(name)
        assert scenario.name == name
        assert scenario.title
        assert scenario.description
    assert {"calm-week", "bad-deploy", "black-friday"} <= set(names)


def test_the_calm_week_has_no_fault_but_much_that_looks_like_one() -> None:
    calm = load_scenario("calm-week")
    assert not calm.faults
    assert {"deploy", "backup", "month_end", "maintenance", "campaign"} <= {event.kind for event in calm.benign}
    assert len(Fleet(calm).hosts) == 100
    assert 950 <= Fleet(calm).series <= 1_100
    assert Fleet(calm.scaled(10)).series > 9_500


def test_every_kind_of_fault_that_ships_is_used_by_a_scenario() -> None:
    used = {event.kind for name in shipped() for event in load_scenario(name).events}
    assert {name for name in library().kinds if name not in used} <= {
        "runaway_process",
        "uplink_saturated",
        "pool_exhaustion",
    }


def test_a_scenario_file_may_be_named_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(document()))
    assert load_scenario(path) == load_scenario(str(path)) == tiny()


def test_a_shipped_scenario_can_be_taken_as_a_start(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(source_text("disk-fills"))
    assert load_scenario(path) == load_scenario("disk-fills")


def test_an_unknown_field_is_named_with_what_is_allowed() -> None:
    made = document()
    made["hosts"]["web"]["intervall"] = "10s"
    (problem,) = problems(made)
    assert problem.startswith("mine.yaml: hosts.web.intervall: unknown field; allowed: ")
    assert "interval" in problem


@pytest.mark.parametrize(
    ("change", "place", "allowed"),
    [
        ({"faults": [fault("disk_fillign", "db-1")]}, "faults.it.kind", "disk_filling"),
        ({"faults": [fault("disk_filling", "db-7")]}, "faults.it.target", "db-1"),
        ({"faults": [{**fault("disk_filling", "db-1"), "with": {"ful": 1}}]}, "faults.it.with", "full"),
        ({"faults": [fault("disk_filling", "db-1", start="11m")]}, "it.start", "end of the scenario"),
        ({"faults": [fault("backup", "db-1")]}, "faults.it.kind", "belongs under benign"),
        ({"faults": [fault("disk_filling", "db-1"), fault("slow_disk", "db-1")]}, "faults.it", "two of this id"),
        ({"faults": [{**fault("disk_filling", "db-1"), "caused_by": "that"}]}, "it.caused_by", "it"),
        ({"faults": [{"id": "it", "kind": "slow_disk", "target": "db-1"}]}, "faults.0", "at least one"),
        ({"fleet": "smal"}, "fleet", "small"),
        ({"duration": "soon"}, "duration", "such as 30s"),
        ({"source": "No Source"}, "source", "no name of a source"),
    ],
)
def test_mistakes_are_told_with_place_and_what_is_allowed(change: dict[str, Any], place: str, allowed: str) -> None:
    found = problems({**document(), **change})
    assert any(f"mine.yaml: {place}" in line and allowed in line for line in found), found


def test_all_mistakes_are_told_at_once_a_line_each() -> None:
    made = document(faults=[fault("nonsense", "nowhere")])
    made["hosts"]["web"]["depends_on"] = ["dbb"]
    assert len(problems(made)) == 3


def test_an_effect_names_its_parameter_or_is_refused() -> None:
    kind = {"title": "t", "cause": "c", "effects": [{"signal": "cpu", "do": "scale", "value": "$much"}]}
    (problem,) = problems(document(kinds={"mine": kind}))
    assert "unknown parameter $much" in problem


def test_text_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("name: [")
    with pytest.raises(ScenarioError, match=r"bad\.yaml: not YAML"):
        load_scenario(path)
    with pytest.raises(ScenarioError, match=r"allowed are the path of a YAML file and .*calm-week"):
        load_scenario("no-such-scenario")


def test_names_of_hosts_and_services_begin_with_the_prefix() -> None:
    fleet = Fleet(tiny())
    assert [host.name for host in fleet.hosts][:2] == ["tiny-web-1", "tiny-web-2"]
    assert fleet.services == ("tiny-shop", "tiny-orders")
    assert Fleet(load_scenario("bad-deploy")).hosts[0].name == "try-web-1"


def test_a_fleet_may_be_taken_over_and_changed_entry_by_entry() -> None:
    small = parse_scenario(
        {"name": "s", "title": "t", "duration": "1h", "fleet": "small", "hosts": {"web": {"count": 5}}}
    )
    assert small.hosts["web"].count == 5
    assert small.hosts["web"].service == "shop"
    assert "db" in small.hosts


def test_dependencies_reach_hosts_groups_and_services_hop_by_hop() -> None:
    fleet = Fleet(tiny())
    position = {host.plain: host.position for host in fleet.hosts}
    assert fleet.reach([position["switch-1"]], "dependents", 1) == {
        position[name]: 1 for name in ("web-1", "web-2", "web-3", "db-1", "db-2")
    }
    assert fleet.reach([position["web-1"]], "dependencies", 2) == {
        position["db-1"]: 1, position["db-2"]: 1, position["switch-1"]: 1,
    }  # fmt: skip
    assert fleet.reach([position["web-1"]], "group", 1) == {position["web-2"]: 0, position["web-3"]: 0}
    racks = fleet.reach([position["db-1"]], "rack", 1)
    assert position["web-1"] in racks
    assert position["web-2"] not in racks


def test_what_comes_daily_comes_in_the_history_too_and_faults_do_not() -> None:
    scenario = tiny(
        duration="2d",
        history={"span": "3d"},
        benign=[{"id": "nightly", "kind": "backup", "target": "db", "at": "02:00"}],
    )
    plan = Plan(scenario, Fleet(scenario), START, 1)
    assert [one.start % DAY for one in plan.occurrences] == [2 * 3_600 * 1_000_000] * 5
    scenario = tiny(
        {"id": "it", "kind": "slow_disk", "target": "db-1", "at": "02:00", "lasts": "1h"},
        duration="2d",
        history={"span": "3d"},
    )
    assert len(Plan(scenario, Fleet(scenario), START, 1).occurrences) == 2


def test_days_of_the_week_are_kept_and_a_start_with_a_time_of_day_comes_once() -> None:
    weekend = [{"id": "w", "kind": "backup", "target": "db", "at": "02:00", "days": ["sat"]}]
    once = [{"id": "o", "kind": "backup", "target": "db", "start": "1d", "at": "07:30"}]
    scenario = tiny(duration="14d", benign=[*weekend, *once])
    plan = Plan(scenario, Fleet(scenario), START, 1)
    saturdays = [one.start for one in plan.occurrences if one.event.id == "w"]
    assert len(saturdays) == 2
    # 1970-01-03 was a Saturday
    assert all((start // DAY) % 7 == 2 for start in saturdays)
    (single,) = [one.start for one in plan.occurrences if one.event.id == "o"]
    assert START + DAY <= single < START + 2 * DAY
    assert single % DAY == (7 * 60 + 30) * 60 * 1_000_000


def test_a_part_of_the_hosts_is_drawn_with_the_seed() -> None:
    scenario = load_scenario("calm-week")
    fleet = Fleet(scenario)
    first, again, other = (Plan(scenario, fleet, START, seed).occurrences for seed in (1, 1, 2))
    assert [one.roots for one in first] == [one.roots for one in again]
    assert [one.roots for one in first] != [one.roots for one in other]
    assert all(len(one.roots) == 10 for one in first if one.event.id == "deploy-portal")
