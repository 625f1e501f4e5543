"""Scores of storms on small truths and alerts made by hand: what is right, found, false, late, joined and split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import orjson
import polars as pl
import pytest

from aiops_assets.evaluation.outside import AlertsProblem, score_alerts
from aiops_assets.evaluation.report import document, faults_frame, summary, totals
from aiops_assets.evaluation.scoring import RECOVERY, Explanations, StormScore, Volume, firings_of, score
from aiops_assets.evaluation.timeline import timeline
from aiops_assets.evaluation.truth import Benign, Fault, Symptom, Truth, TruthProblem, read_truth, truth_from
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND, hour_key, instant
from aiops_assets.incidents.placing import incident_id_of
from aiops_assets.incidents.rehearsal import INCIDENTS_SCHEMA, PAGES_SCHEMA
from aiops_assets.tables import ALERTS

S = MICROS_PER_SECOND
START = 1_760_000_400 * S
END = START + 16 * MICROS_PER_HOUR
CPU, DISK = "system.cpu.utilization", "system.filesystem.utilization"


def revision(
    name: str, at: int, /, *, host: str = "db-1", number: int = 0, state: str = "firing", **more: Any
) -> dict[str, Any]:
    """A revision of an alert decided ``at`` seconds after the start."""
    row = {
        "alert_id": name, "fingerprint": name, "kind": "rule", "name": "filesystem-full", "host": host, "metric": DISK,
        "series_id": 1, "labels": "{}", "severity_number": 17, "starts_at": instant(START + at * S), "ends_at": None,
        "changed_at": instant(START + at * S), "revision": number, "state": state, "title": name, "value": 1.0,
        "threshold": 0.9, "evidence": "{}", "suppressed_by": None, "amended_by": None,
        "received_at": instant(START + at * S), "writer": "w", "seq": 1, "hour": hour_key(START + at * S),
    }  # fmt: skip
    return row | more


def alerts(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=ALERTS.schema)


def incidents(*rows: tuple[str, Sequence[str], Sequence[str]], suspects: Sequence[str] = ()) -> pl.DataFrame:
    """(incident, hosts to look at, alerts)."""
    return pl.DataFrame(
        [
            {"incident_id": name, "title": name, "priority": 3, "hosts": list(hosts), "alert_ids": list(members)}
            | {"started_at": instant(START), "resolved_at": None, "withdrawn": False, "suspects": list(suspects)}
            for name, hosts, members in rows
        ],
        schema=INCIDENTS_SCHEMA,
    )


def pages(*rows: tuple[str, int]) -> pl.DataFrame:
    made = [{"incident_id": n, "at": instant(START + at * S), "priority": 3, "reason": "opened"} for n, at in rows]
    return pl.DataFrame(made, schema=PAGES_SCHEMA)


def fault(name: str = "disk", start: int = 100, end: int = 1_000, **more: Any) -> Fault:
    """A fault of db-1's disk, from and to so many seconds after the start."""
    first, last = START + start * S, START + end * S
    symptoms = more.pop("symptoms", (Symptom("db-1", DISK, first, last),))
    values = {"kind": "disk_filling", "roots": ("db-1",), "visible_at": first, "incident": name} | more
    values.setdefault("recovers_at", last)
    return Fault(name, start=first, end=last, symptoms=symptoms, **values)


def scored(
    faults: Sequence[Fault], told: pl.DataFrame, groups: pl.DataFrame, paged: pl.DataFrame, **more: Any
) -> StormScore:
    truth = Truth(START, END, tuple(faults), tuple(more.pop("benign", ())))
    return score(truth, told, groups, paged, **more)


# -- firings --------------------------------------------------------------------------------------------------------


def test_a_firing_lasts_from_the_decision_to_the_next_other_state_and_may_come_again() -> None:
    told = alerts(
        revision("a", 10),
        revision("a", 20, number=1, severity_number=21),
        revision("a", 30, number=2, state="resolved"),
        revision("a", 50, number=3),
        revision("b", 40, state="suppressed"),
    )
    found = firings_of(told)
    assert found.select("alert_id", "fired_at", "ended_at", "severity_number").rows() == [
        ("a", START + 10 * S, START + 30 * S, 21),
        ("a", START + 50 * S, None, 17),
    ]


def test_a_notice_that_becomes_a_warning_concerns_people_from_then_on() -> None:
    told = alerts(revision("a", 10, severity_number=9), revision("a", 400, number=1, severity_number=13))
    assert firings_of(told).select("fired_at", "severity_number").rows() == [
        (START + 10 * S, 9),
        (START + 400 * S, 13),
    ]
    result = scored([fault()], told, incidents(("I", ["db-1"], ["a"])), pages(("I", 400)))
    assert result.faults[0].found_at == START + 400 * S


def test_revisions_that_were_written_twice_count_once() -> None:
    row = revision("a", 10)
    assert firings_of(alerts(row, row)).height == 1


# -- explained ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(99, []), (100, [0]), (1_000, [0]), (1_000 + RECOVERY // S, [0]), (1_001 + RECOVERY // S, [])],
)
def test_a_fault_explains_from_its_beginning_until_some_time_after_its_end(seconds: int, expected: list[int]) -> None:
    assert Explanations([fault()]).of("rule", "db-1", DISK, "{}", START + seconds * S) == expected


def test_a_fault_explains_only_the_series_it_touches() -> None:
    at = START + 200 * S
    exact = fault(symptoms=(Symptom("db-1", DISK, START, END, '{"mountpoint":"/data"}'),))
    explanations = Explanations([exact])
    assert explanations.of("rule", "db-1", DISK, '{"mountpoint":"/data"}', at) == [0]
    assert explanations.of("rule", "db-1", DISK, '{"mountpoint":"/"}', at) == []
    assert explanations.of("rule", "db-1", CPU, '{"mountpoint":"/data"}', at) == []
    assert explanations.of("rule", "db-2", DISK, '{"mountpoint":"/data"}', at) == []
    # Another system's alert names a host and no series.
    assert explanations.of("external", "db-1", None, None, at) == [0]


def test_silence_is_explained_by_what_falls_silent_and_by_nothing_else() -> None:
    at = START + 200 * S
    loud = Explanations([fault(symptoms=(Symptom("db-1", CPU, START, END),))])
    silent = Explanations([fault(symptoms=(Symptom("db-1", DISK, START, END, silent=True),))])
    assert loud.of("absence", "db-1", CPU, "{}", at) == []
    assert silent.of("absence", "db-1", CPU, "{}", at) == [0]


# -- found, delayed, paged ------------------------------------------------------------------------------------------


def test_a_fault_is_found_by_its_first_alert_with_delays_from_start_and_from_visibility() -> None:
    known = fault(visible_at=START + 130 * S)
    told = alerts(revision("a", 160), revision("b", 140, metric=CPU), revision("c", 300))
    result = scored([known], told, incidents(("I", ["db-1"], ["a", "b", "c"])), pages(("I", 140)))
    (found,) = result.faults
    assert (found.found, found.delay, found.delay_visible, found.alerts) == (True, 60.0, 30.0, 2)
    assert result.recall == 1.0
    # The incident was opened by another alert: at that moment nobody was told of this fault.
    assert found.paged_at is None
    assert result.recall_paged == 0.0
    assert (result.pages.total, result.pages.right) == (1, 0)


def test_a_fault_that_nothing_tells_of_is_missed() -> None:
    other = fault("cpu", kind="cpu_hog", symptoms=(Symptom("web-1", CPU, START, END),))
    told = alerts(revision("a", 160))
    result = scored([fault(), other], told, incidents(("I", ["db-1"], ["a"])), pages(("I", 160)))
    assert [found.found for found in result.faults] == [True, False]
    assert (result.recall, result.recall_paged) == (0.5, 0.5)
    assert result.by_kind() == {"cpu_hog": (0, 1), "disk_filling": (1, 1)}
    assert result.faults[1].delay is None


def test_what_only_the_recovery_sets_off_is_no_false_alarm_and_finds_nothing() -> None:
    result = scored([fault()], alerts(revision("a", 1_000)), incidents(("I", ["db-1"], ["a"])), pages(("I", 1_000)))
    (missed,) = result.faults
    assert (missed.found, missed.paged_at, missed.alerts) == (False, None, 1)
    assert (result.recall, result.alerts.wrong, result.pages.wrong) == (0.0, 0, 0)


def test_what_fired_before_the_fault_began_does_not_find_it() -> None:
    result = scored([fault()], alerts(revision("a", 50)), incidents(("I", ["db-1"], ["a"])), pages(("I", 50)))
    assert not result.faults[0].found
    assert (result.alerts.total, result.alerts.right, result.alerts.precision) == (1, 0, 0.0)


def test_what_fires_again_during_the_fault_finds_it() -> None:
    told = alerts(revision("a", 50), revision("a", 60, number=1, state="resolved"), revision("a", 200, number=2))
    result = scored([fault()], told, incidents(("I", ["db-1"], ["a"])), pages(("I", 50), ("I", 200)))
    assert result.faults[0].delay == 100.0
    assert result.faults[0].paged_at == START + 200 * S
    assert (result.pages.total, result.pages.right) == (2, 1)


def test_what_an_amendment_found_and_what_was_suppressed_detects_nothing() -> None:
    late = revision("a", 160, amended_by="late rows")
    told = alerts(late, revision("b", 170, state="suppressed", suppressed_by="night"))
    result = scored([fault()], told, incidents(("I", ["db-1"], ["a"])), pages())
    assert (result.recall, result.found_late, result.alerts.total) == (0.0, 1, 0)


def test_notices_are_counted_apart() -> None:
    told = alerts(revision("a", 160, severity_number=9))
    result = scored([fault()], told, incidents(), pages())
    assert (result.notices, result.alerts.total, result.recall) == (1, 0, 0.0)


# -- false alarms and ordinary events -------------------------------------------------------------------------------


def test_false_alarms_are_told_per_shift_and_for_ten_thousand_series() -> None:
    told = alerts(revision("a", 50, host="web-1", metric=CPU, name="cpu"), revision("b", 160))
    groups = incidents(("I", ["web-1"], ["a"]), ("J", ["db-1"], ["b"]))
    result = scored([fault()], told, groups, pages(("I", 50), ("J", 160)), volume=Volume(series=500))
    assert (result.alerts.wrong, result.incidents.wrong, result.pages.wrong) == (1, 1, 1)
    assert result.shifts == 2.0
    assert result.per_shift(result.pages.wrong) == 0.5
    assert result.per_shift_and_10k(result.pages.wrong) == 10.0
    assert result.false_alarms == {f"cpu: {CPU}": 1}
    assert (result.incidents.precision, result.pages.precision) == (0.5, 0.5)


def test_what_was_decided_outside_the_storm_does_not_count() -> None:
    told = alerts(revision("a", -10), revision("b", 16 * 3600 + 1))
    result = scored([], told, incidents(("I", ["db-1"], ["a", "b"])), pages(("I", -10)))
    assert (result.alerts.total, result.incidents.total, result.pages.total) == (0, 0, 0)
    assert result.recall is None
    assert result.compression is None


def test_an_ordinary_event_is_mistaken_when_something_fires_on_its_hosts_that_no_fault_explains() -> None:
    events = [
        Benign("backup", "backup", ("db-1",), START + 100 * S, START + 200 * S),
        Benign("deploy", "deploy", ("web-1",), START + 100 * S, START + 200 * S),
    ]
    told = alerts(revision("a", 150, metric=CPU), revision("b", 150))
    result = scored([fault()], told, incidents(), pages(), benign=events)
    assert [event.alerts for event in result.benign] == [1, 0]
    assert result.benign_mistaken == 1


# -- grouping and root cause ----------------------------------------------------------------------------------------


def two_faults() -> list[Fault]:
    return [fault(), fault("web", symptoms=(Symptom("web-1", CPU, START, END),), roots=("web-1",))]


def of_both() -> pl.DataFrame:
    web = {"host": "web-1", "metric": CPU}
    return alerts(revision("a", 110), revision("b", 120), revision("c", 130, **web), revision("d", 140, **web))


def test_each_matter_in_one_incident_of_its_own_is_perfect_grouping() -> None:
    groups = incidents(("I", ["db-1"], ["a", "b"]), ("J", ["web-1"], ["c", "d"]))
    result = scored(two_faults(), of_both(), groups, pages(("I", 110), ("J", 130)))
    assert (result.grouping.precision, result.grouping.recall) == (1.0, 1.0)
    assert (result.grouping.split, result.grouping.merged, result.grouping.foreign) == (0, 0, 0)
    assert result.compression == 0.5
    assert [found.rank for found in result.faults] == [1, 1]


def test_two_matters_in_one_incident_are_merged() -> None:
    groups = incidents(("I", ["db-1", "web-1"], ["a", "b", "c", "d"]))
    result = scored(two_faults(), of_both(), groups, pages(("I", 110)))
    assert result.grouping.precision == pytest.approx(2 / 6)
    assert (result.grouping.recall, result.grouping.merged) == (1.0, 1)
    assert [found.mixed_with for found in result.faults] == [("web",), ("disk",)]
    # The second was found, and nobody was told.
    assert [found.paged_at for found in result.faults] == [START + 110 * S, None]
    assert [found.rank for found in result.faults] == [1, 2]
    assert (result.hits(1), result.hits(3), result.reciprocal_rank) == (1, 2, 0.75)


def test_one_matter_in_two_incidents_is_split() -> None:
    groups = incidents(("I", ["db-1"], ["a"]), ("J", ["db-1"], ["b"]))
    result = scored([fault()], alerts(revision("a", 110), revision("b", 120)), groups, pages())
    assert (result.grouping.recall, result.grouping.split) == (0.0, 1)
    assert result.faults[0].incidents == ("I", "J")


def test_faults_of_one_matter_may_share_an_incident() -> None:
    first, second = two_faults()
    same = [first, fault("web", symptoms=second.symptoms, incident="disk")]
    result = scored(same, of_both(), incidents(("I", ["db-1"], ["a", "b", "c", "d"])), pages(("I", 110)))
    assert (result.grouping.precision, result.grouping.recall, result.grouping.merged) == (1.0, 1.0, 0)
    assert [found.mixed_with for found in result.faults] == [(), ()]


def test_a_root_that_is_not_listed_counts_as_not_found() -> None:
    groups = incidents(("I", ["web-1", "web-2"], ["a"]))
    result = scored([fault()], alerts(revision("a", 110)), groups, pages())
    assert result.faults[0].rank is None
    assert (result.hits(3), result.reciprocal_rank) == (0, 0.0)


def test_the_causing_change_is_looked_for_among_the_suspects() -> None:
    known = fault(change="shop 2.14.0")
    groups = incidents(("I", ["db-1"], ["a"]), suspects=["backup began", "shop 2.14.0"])
    result = scored([known], alerts(revision("a", 110)), groups, pages())
    assert result.faults[0].change_rank == 2
    assert scored([fault()], alerts(revision("a", 110)), groups, pages()).faults[0].change_rank is None


def test_a_page_of_an_incident_that_was_merged_is_judged_by_the_alert_that_opened_it() -> None:
    web = {"host": "web-1", "metric": CPU}
    told = alerts(revision("a", 110), revision("x", 120, **web))
    merged = incident_id_of("a"), incident_id_of("x")
    result = scored([fault()], told, incidents(("K", ["db-1"], ["a", "x"])), pages((merged[0], 110), (merged[1], 120)))
    assert (result.pages.total, result.pages.right) == (2, 1)
    assert result.faults[0].paged_at == START + 110 * S
    assert result.grouping.foreign == 1


# -- truths and tables of others ------------------------------------------------------------------------------------


def storm_truth() -> dict[str, Any]:
    """The JSON form of a storm's truth, with one fault."""
    series = {
        "fault_id": "disk", "host": "db-1", "metric": DISK, "labels": "{}", "unit": "1", "signal": "disk", "hop": 0,
        "what": "shift", "start": START + 100 * S, "visible_at": START + 130 * S, "peak_at": START + 900 * S,
        "end": START + 1_000 * S, "effect": 0.4, "effect_over_noise": 90.0,
    }  # fmt: skip
    known = {
        "id": "disk", "kind": "disk_filling", "title": "A filesystem fills up", "root": "db-1", "roots": ["db-1"],
        "root_cause": "x", "start": START + 100 * S, "full_at": START + 900 * S, "end": START + 950 * S,
        "over_at": START + 1_000 * S, "visible_at": START + 130 * S, "incident": "disk", "caused_by": None,
        "change": {"title": "shop 2.14.0"}, "hosts": ["db-1"],
    }  # fmt: skip
    trace = {"fault_id": "disk", "host": "db-1", "first_at": START + 900 * S, "last_at": START + 950 * S, "count": 3.0}
    return {
        "scenario": "small", "source": "storm-small", "seed": 7, "start": START, "end": END, "history_start": START,
        "hosts": ["db-1"], "services": [], "series": 500, "faults": [known],
        "affected": [series, series | {"metric": CPU, "visible_at": None, "effect_over_noise": 0.4}],
        "traces": [trace | {"kind": "hardware", "text": "x"}, trace | {"kind": "ticket", "text": "x"}],
        "incidents": [], "benign": [], "benign_affected": [],
    }  # fmt: skip


def test_the_truth_of_a_storm_gives_faults_with_their_series_and_telling_traces(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    path.write_bytes(orjson.dumps(storm_truth()))
    known = read_truth(path)
    (only,) = known.faults
    assert (only.roots, only.change, only.visible_at) == (("db-1",), "shop 2.14.0", START + 130 * S)
    assert [(symptom.metric, symptom.labels, symptom.silent) for symptom in only.symptoms] == [
        (DISK, "{}", False),
        (None, None, False),
    ]
    assert (known.series, known.seed, known.scenario) == (500, 7, "small")


@pytest.mark.parametrize(("content", "words"), [("{", "JSON"), ("[]", "object"), ('{"start": 1}', "lacks")])
def test_a_file_that_is_no_truth_is_refused_by_name(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "truth.json"
    path.write_text(content)
    with pytest.raises(TruthProblem, match=words) as refused:
        read_truth(path)
    assert str(path) in str(refused.value)


def test_alerts_of_another_tool_are_scored_by_the_same_definitions(tmp_path: Path) -> None:
    at = instant(START + 190 * S).isoformat()
    later = instant(START + 400 * S).isoformat()
    rows = [
        "host,metric,fired_at,incident_id,rank",
        f"web-1,,{at},42,2",
        f"db-1,{DISK},{at},42,1",
        f"web-2,{CPU},{later},43,",
    ]
    table = tmp_path / "theirs.csv"
    table.write_text("\n".join(rows))
    result = score_alerts(table, truth_from(storm_truth()))
    assert (result.recall, result.faults[0].delay, result.faults[0].delay_visible) == (1.0, 90.0, 60.0)
    assert (result.alerts.total, result.alerts.right, result.incidents.total, result.pages.right) == (3, 1, 2, 1)
    assert result.faults[0].rank == 1
    assert result.per_shift_and_10k(result.pages.wrong) == 10.0


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "host\nweb-1\n", "fired_at missing"),
        ("a.csv", "host,fired_at\nweb-1,soon\n", "row 1, fired_at"),
        ("a.csv", "host,fired_at,rank\nweb-1,1760000500000000,best\n", "row 1, rank"),
        ("a.txt", "x", "allowed are"),
        ("none.csv", None, "cannot be read"),
    ],
)
def test_a_table_that_cannot_be_scored_is_refused_with_the_place(
    tmp_path: Path, name: str, content: str | None, words: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(AlertsProblem, match=words):
        score_alerts(path, truth_from(storm_truth()))


# -- what people see ------------------------------------------------------------------------------------------------


def test_the_picture_shows_faults_incidents_and_pages_and_is_harmless() -> None:
    known = fault(title="<script>alert(1)</script>")
    told = alerts(revision("a", 160), revision("x", 300, host="web-1", metric=CPU))
    groups = incidents(("INC-A", ["db-1"], ["a"]), ("INC-B", ["web-1"], ["x"]))
    result = scored([known, fault("other", start=5_000, end=6_000)], told, groups, pages(("INC-A", 160)))
    drawn = timeline(result, told, groups, pages(("INC-A", 160)))
    root = ElementTree.fromstring(drawn)  # noqa: S314
    words = " ".join(text for text in root.itertext())
    for part in ("INC-A", "INC-B", "disk (found after 60 s)", "other (missed)", "alerts (2)", "page at"):
        assert part in words
    assert "<script>" not in drawn


def test_sums_over_scenarios_weigh_rates_by_time_and_series() -> None:
    told = alerts(revision("a", 50), revision("b", 160))
    groups = incidents(("I", ["db-1"], ["a"]), ("J", ["db-1"], ["b"]))
    paged = pages(("I", 50), ("J", 160))
    small = scored([fault()], told, groups, paged, volume=Volume(series=100), scenario="small")
    large = scored([fault()], told.head(0), groups, pages(), volume=Volume(series=900), scenario="large")
    sums = totals([small, large])
    assert (sums["faults"], sums["found"], sums["false_pages"], sums["pages"]) == (2, 1, 1, 2)
    # One false page in 2 shifts of 100 and 2 shifts of 900 series.
    assert sums["false_pages_per_shift_and_10k_series"] == pytest.approx(1 * 10_000 / (2 * 100 + 2 * 900))
    assert document(small)["per_shift_and_10k_series"]["false_pages"] == pytest.approx(50.0)
    assert summary([small, large])["scenario"].to_list() == ["small", "large"]
    assert faults_frame([small, large])["found"].to_list() == [True, False]
    assert orjson.loads(orjson.dumps(document(large)))["recall"] == 0.0
