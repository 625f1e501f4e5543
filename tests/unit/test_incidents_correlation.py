"""Rules by which alerts become incidents, on made-up worlds."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from aiops_assets.config import Config, parse_config
from aiops_assets.incidents.correlation import (
    Alert,
    Board,
    Change,
    ChangeIndex,
    assess,
    duration_text,
    incident_title,
    listing,
    prioritise,
    probable_causes,
    severity_word,
    suspects,
    urgency_of,
)
from aiops_assets.incidents.store import IncidentStore
from aiops_assets.incidents.topology import Node, Topology
from aiops_assets.tables import CHANGES, ENTITIES
from tests.examples import examples
from tests.unit.test_incidents_store import CONFIG, MINUTE, T0, alert, alerts

NOTHING = ChangeIndex(())


def made(alert_id: str, host: str, starts: int = T0, **fields: object) -> Alert:
    row = alert(alert_id, host, starts, **fields)
    return Alert(**{name: row[name] for name in Alert.__dataclass_fields__})


def graph(**needs: str) -> Topology:
    """``graph(web="db san", db="disk")``: who needs what."""
    return Topology([Node(name.replace("_", "-"), needs=tuple(needed.split())) for name, needed in needs.items()])


def test_paths_are_followed_both_ways_and_not_too_far() -> None:
    chain = graph(a="b", b="c", c="d", d="e")
    assert chain.upstream("a") == {"b": ("b",), "c": ("b", "c"), "d": ("b", "c", "d")}
    assert list(chain.downstream("d")) == ["c", "b", "a"]


def test_circles_in_dependencies_end() -> None:
    circle = graph(a="b", b="c", c="a")
    assert set(circle.upstream("a")) == {"b", "c"} == set(circle.downstream("a"))


def test_declared_entities_win_over_discovered_ones_and_references_are_names() -> None:
    discovered = pl.DataFrame(
        {
            "entity_id": ["host:web-1", "host:db-1"], "kind": ["host", "host"], "name": ["web-1", "db-1"],
            "site": ["paris", None], "owner": [None, None], "labels": ['{"rack":"a"}', "{}"],
            "depends_on": [["host:db-1", "device:sw-1"], []], "origin": ["discovered"] * 2, "first_seen": [None, None],
        },
        schema=ENTITIES.schema,
    )  # fmt: skip
    config = parse_config("entities: [{name: web-1, site: berlin, impact: 1, depends_on: [cache-1]}]", "test")
    node = Topology.of(config, discovered).nodes["web-1"]
    assert (node.site, node.impact, node.labels) == ("berlin", 1, {"rack": "a"})
    assert set(node.needs) == {"db-1", "sw-1", "cache-1"}


def test_distance_from_the_opening_alert_is_bounded() -> None:
    world = graph(a="b", b="c", c="d", d="e", e="f")
    board = Board(world)
    board.put("INC-1", made("1", "a"), 0, None)
    [link] = board.links(made("2", "d"), NOTHING, CONFIG.grouping)
    assert (link.kind, link.hops) == ("dependency", 3)
    board.put("INC-1", made("2", "d"), link.hops, None)
    assert board.links(made("3", "e"), NOTHING, CONFIG.grouping) == []


def test_hosts_that_share_a_switch_are_not_one_incident_for_that() -> None:
    world = graph(**{f"host_{n}": "switch" for n in range(40)})
    board = Board(world)
    board.put("INC-1", made("1", "host-1", metric="cpu"), 0, None)
    assert board.links(made("2", "host-2", metric="disk"), NOTHING, CONFIG.grouping) == []


def test_parts_of_a_service_join_within_minutes() -> None:
    world = Topology([Node("shop", "service", needs=("web-1", "api-1"))])
    board = Board(world)
    board.put("INC-1", made("1", "web-1", metric="cpu"), 0, None)
    [link] = board.links(made("2", "api-1", T0 + 4 * MINUTE, metric="disk"), NOTHING, CONFIG.grouping)
    assert (link.kind, link.text) == ("service", "api-1 and web-1 both serve shop")
    assert board.links(made("3", "api-1", T0 + 6 * MINUTE, metric="disk"), NOTHING, CONFIG.grouping) == []


def test_a_change_links_only_what_began_after_it() -> None:
    rollout = [Change(str(n), T0 - MINUTE, "deploy", host, None, "agent 7", None) for n, host in enumerate("ab")]
    board = Board(graph())
    board.put("INC-1", made("1", "a", T0 - 5 * MINUTE, metric="x"), 0, None)
    assert board.links(made("2", "b", metric="y"), ChangeIndex(rollout), CONFIG.grouping) == []
    board.put("INC-2", made("3", "a", T0, metric="x"), 0, None)
    [link] = board.links(made("2", "b", metric="y"), ChangeIndex(rollout), CONFIG.grouping)
    assert (link.incident_id, link.kind) == ("INC-2", "change")


def test_causes_put_first_what_others_need_then_what_began_first() -> None:
    world = graph(web="db", api="db")
    members = [made("1", "web"), made("2", "lonely", T0 + MINUTE), made("3", "db", T0 + 2 * MINUTE)]
    found = probable_causes(members, world)
    assert [cause.host for cause in found] == ["db", "web", "lonely"]
    assert found[0].text == "web needs it; symptoms 2 min after the first"


def test_a_host_with_nothing_but_notices_is_shown_and_decides_nothing() -> None:
    world = graph(web="db", api="db")
    serious = made("1", "web", T0 + MINUTE, severity_number=13, title="errors on web")
    noise = [made(str(n), host, T0, severity_number=9) for n, host in enumerate(("db", "api", "x", "y", "z"), 2)]
    said = assess([*noise, serious], topology=world, changes=NOTHING, config=Config())
    assert said.hosts[0] == "web"
    assert set(said.hosts) == {"web", "db", "api", "x", "y", "z"}
    assert said.title == "errors on web"
    assert said.priority.impact == 2
    only = assess(noise, topology=world, changes=NOTHING, config=Config())
    assert only.hosts[0] == "db"


def test_impact_rises_with_the_number_of_hosts() -> None:
    members = [made(str(n), f"h{n}") for n in range(5)]
    hosts = [member.host for member in members]
    few, many = (prioritise(members[:n], hosts[:n], graph(), Config()) for n in (4, 5))
    assert (few.impact, many.impact) == (2, 1) and many.impact_text.startswith("5 hosts are affected")
    assert many.cell == "1/2" and many.priority == 2


@pytest.mark.parametrize(
    ("number", "urgency", "word"), [(9, 3, "info"), (13, 3, "warning"), (17, 2, "error"), (24, 1, "critical")]
)
def test_urgency_and_words_follow_severity(number: int, urgency: int, word: str) -> None:
    assert (urgency_of(number), severity_word(number)) == (urgency, word)


def test_suspects_of_unrelated_places_and_times_are_left_out() -> None:
    rows = [("near", "db", -1), ("late", "web", 40), ("early", "web", -61), ("other", "printer", -1)]
    index = ChangeIndex([Change(name, T0 + at * MINUTE, "deploy", host, None, name, None) for name, host, at in rows])
    found = suspects(["web"], T0, T0, index, graph(web="db"), CONFIG.grouping)
    assert [suspect.change.change_id for suspect in found] == ["near"]


def test_titles_name_the_host_and_stay_short() -> None:
    long = incident_title([made("1", "h", title="x" * 500)], ["h"])
    assert long.startswith("h: xxx") and len(long) <= 160
    assert (
        incident_title([made("1", "h", title="h is hot")], ["h", "b", "c", "d", "e"])
        == "h is hot – with b, c and 2 more"
    )


def test_words_for_durations_and_lists() -> None:
    assert [duration_text(n * 1_000_000) for n in (0, 59, 60, 3_700, 200_000)] == [
        "0 s",
        "59 s",
        "1 min",
        "1 h 1 min",
        "2 d 7 h",
    ]
    assert [listing(list("abcde")[:n]) for n in (1, 2, 3, 4)] == ["a", "a and b", "a, b and c", "a, b and 2 more"]


_EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["h1", "h2", "h3", "web-1", "db-1"]),
        st.integers(0, 90),
        st.one_of(st.none(), st.integers(1, 40)),
        st.sampled_from([9, 13, 17, 21]),
        st.sampled_from(["firing", "suppressed"]),
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=examples(25), deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(events=_EVENTS, cuts=st.lists(st.integers(0, 28), max_size=4))
def test_however_a_stream_is_cut_and_repeated_every_alert_has_one_place(
    events: Sequence[tuple], cuts: Sequence[int]
) -> None:
    rows = []
    for number, (host, minute, lasting, severity, state) in enumerate(events):
        starts = T0 + minute * MINUTE
        fields = {"severity_number": severity, "metric": f"m{number}"}
        quiet = {"suppressed_by": "w"} if state == "suppressed" else {}
        rows.append(alert(f"a{number}", host, starts, state=state, **fields, **quiet))
        if lasting is not None:
            rows.append(alert(f"a{number}", host, starts, ends=starts + lasting * MINUTE, **fields, **quiet))
    rows.sort(key=lambda row: (row["changed_at"], row["alert_id"], row["revision"]))
    bounds = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    with tempfile.TemporaryDirectory() as folder:
        store = IncidentStore(f"sqlite:///{Path(folder) / 'o.db'}")
        for first, last in pairwise(bounds):
            batch = alerts(*rows[first:last])
            now = rows[last - 1]["changed_at"]
            store.apply(batch, config=CONFIG, entities=ENTITIES.empty(), changes=CHANGES.empty(), now=now)
            again = store.apply(batch, config=CONFIG, entities=ENTITIES.empty(), changes=CHANGES.empty(), now=now)
            assert again == []
            store.auto_resolve(now, CONFIG)
        known = {member.alert.alert_id: member for member in store.alerts()}
        assert set(known) == {row["alert_id"] for row in rows}
        for number, (_, _, lasting, severity, state) in enumerate(events):
            member = known[f"a{number}"]
            assert member.alert.revision == (0 if lasting is None else 1)
            if state == "firing" and severity >= 13:
                assert member.incident_id is not None
        for incident in store.list():
            whole = store.get(incident.incident_id)
            assert whole.alerts == len(whole.members) >= 1 and whole.firing == sum(
                m.alert.active for m in whole.members
            )
            assert set(whole.hosts) <= {"web-1", "db-1"} or len(whole.hosts) == 1
            assert whole.started_at == min(member.alert.starts_at for member in whole.members)
            if whole.state == "resolved":
                lasting = [m for m in whole.members if m.alert.active and m.alert.severity_number >= 13]
                assert lasting == [] and whole.resolved_at is not None
        store.close()
