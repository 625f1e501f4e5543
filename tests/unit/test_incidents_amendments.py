"""What amendments do to incidents: corrected, withdrawn, restored and late alerts, who is paged, nothing twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aiops_assets.incidents.amendments import FOUND, corrections_text
from aiops_assets.incidents.store import IncidentStore
from tests.unit.test_incidents_store import CONFIG, MINUTE, T0, alert, apply, running

HOUR = 60 * MINUTE
REASON = "hour 2025-10-09T08 re-derived: 12 late rows of web-1"
LATER = T0 + 5 * HOUR


@pytest.fixture
def store(tmp_path: Path) -> Iterator[IncidentStore]:
    opened = IncidentStore(f"sqlite:///{tmp_path / 'operations.db'}")
    yield opened
    opened.close()


def amended(alert_id: str, host: str, starts: int = T0, **fields: Any) -> dict[str, Any]:
    """A revision that an amendment made: number 5 unless given."""
    return alert(alert_id, host, starts, **{"revision": 5, "amended_by": REASON} | fields)


def withdrawn(alert_id: str, host: str, starts: int = T0, **fields: Any) -> dict[str, Any]:
    return amended(alert_id, host, starts, **{"state": "withdrawn"} | fields)


def kinds(store: IncidentStore, incident_id: str) -> list[str]:
    return [event.kind for event in store.get(incident_id).events]


def ended(store: IncidentStore, alert_id: str = "a", host: str = "web-1") -> str:
    """An incident of one alert that ended after a minute and resolved itself."""
    [incident_id] = apply(store, alert(alert_id, host), alert(alert_id, host, ends=T0 + MINUTE))
    assert store.auto_resolve(T0 + 10 * MINUTE, CONFIG) == [incident_id]
    return incident_id


def test_a_correction_updates_the_member_and_says_what_changed(store: IncidentStore) -> None:
    [incident_id] = apply(store, alert("a", "web-1", severity_number=13))
    change = amended("a", "web-1", severity_number=17, value=1.0, ends=T0 + 3 * MINUTE)
    assert apply(store, change, now=LATER) == [incident_id]
    incident = store.get(incident_id)
    [member] = incident.members
    assert (member.alert.value, member.alert.ends_at, member.alert.amended_by) == (1.0, T0 + 3 * MINUTE, REASON)
    assert (incident.urgency, incident.amended_alerts, incident.firing) == (2, 1, 0)
    [told] = [event for event in incident.events if event.kind == "amendment"]
    assert (told.alert_id, told.revision, told.reason, told.amendment) == ("a", 5, REASON, "corrected")
    assert (
        corrections_text(told.corrections)
        == "severity warning → error; value 0.99 → 1; end still firing → 2025-10-09 08:56:20 UTC"
    )
    assert REASON in told.text and "severity warning → error" in told.text


def test_the_same_amendment_again_changes_nothing(store: IncidentStore) -> None:
    rows = [alert("a", "web-1"), amended("a", "web-1", value=1.0), amended("b", "web-1", ends=T0 + MINUTE)]
    [incident_id] = apply(store, *rows, now=LATER)
    before, number = store.get(incident_id), store.change_number()
    assert apply(store, *rows, now=LATER + MINUTE) == []
    assert store.get(incident_id) == before and store.change_number() == number
    assert [event.alert_id for event in before.events if event.kind == "amendment"] == ["a", "b"]


def test_what_was_wrong_stays_readable_when_an_amendment_tells_how_it_ended(store: IncidentStore) -> None:
    [incident_id] = apply(store, alert("a", "web-1", title="cpu is busy", evidence='{"limit":0.95}'))
    over: dict[str, Any] = {"title": "cpu is idle (after 3 min)", "value": 0.1, "evidence": '{"duration_seconds":180}'}
    apply(store, amended("a", "web-1", ends=T0 + 3 * MINUTE, **over))
    [member] = store.get(incident_id).members
    assert (member.alert.title, member.alert.value, member.alert.evidence) == ("cpu is busy", 0.99, '{"limit":0.95}')
    [told] = [event for event in store.get(incident_id).events if event.kind == "amendment"]
    assert [entry.what for entry in told.corrections] == ["end"]


def test_a_correction_stays_visible_when_the_alert_goes_on(store: IncidentStore) -> None:
    [incident_id] = apply(store, alert("a", "web-1"), amended("a", "web-1", revision=1, severity_number=21))
    apply(store, alert("a", "web-1", revision=2, ends=T0 + 9 * MINUTE))
    [member] = store.get(incident_id).members
    assert member.alert.amended_by == REASON and member.alert.state == "resolved"
    assert kinds(store, incident_id).count("amendment") == 1


def test_a_later_end_does_not_reopen_and_an_alert_that_fires_after_all_does(store: IncidentStore) -> None:
    incident_id = ended(store)
    apply(store, amended("a", "web-1", ends=T0 + 4 * MINUTE), now=LATER)
    assert store.get(incident_id).state == "resolved" and store.get(incident_id).ended_at == T0 + 4 * MINUTE
    apply(store, amended("a", "web-1", revision=6), now=LATER)
    incident = store.get(incident_id)
    assert (incident.state, incident.ended_at, incident.resolution) == ("reopened", None, None)
    assert [page.reason for page in store.pages()] == ["opened", "reopened"]


def test_what_a_person_resolved_while_it_fired_is_not_reopened_by_a_correction(store: IncidentStore) -> None:
    [incident_id] = apply(store, alert("a", "web-1"))
    store.resolve(incident_id, "kim", "known", at=T0 + 5 * MINUTE)
    apply(store, alert("a", "web-1", ends=T0 + 9 * MINUTE))
    apply(store, amended("a", "web-1"), now=LATER)
    assert (store.get(incident_id).state, store.get(incident_id).resolution) == ("resolved", "known")


def test_what_a_person_resolved_after_its_end_is_reopened_when_it_fires_after_all(store: IncidentStore) -> None:
    [incident_id] = apply(store, alert("a", "web-1"), alert("a", "web-1", ends=T0 + MINUTE))
    store.resolve(incident_id, "kim", at=T0 + 5 * MINUTE)
    apply(store, amended("a", "web-1"), now=LATER)
    assert store.get(incident_id).state == "reopened"


def test_a_withdrawn_alert_stays_listed_and_counts_for_nothing(store: IncidentStore) -> None:
    [incident_id] = apply(store, alert("a", "web-1", severity_number=13), alert("b", "db-1", severity_number=21))
    assert store.get(incident_id).hosts == ("db-1", "web-1") and store.get(incident_id).urgency == 1
    apply(store, withdrawn("b", "db-1", severity_number=21), now=LATER)
    incident = store.get(incident_id)
    assert incident.state == "open" and incident.hosts == ("web-1",) and incident.urgency == 3
    assert incident.title == "system.cpu.utilization is too high on web-1"
    assert (incident.alerts, incident.firing, incident.withdrawn_alerts) == (1, 1, 1)
    assert [member.alert.state for member in incident.members] == ["withdrawn", "firing"] or [
        member.alert.state for member in incident.members
    ] == ["firing", "withdrawn"]
    assert incident.events[-2].text == f"system.cpu.utilization is too high on db-1 – withdrawn: {REASON}"


def test_an_incident_whose_alerts_are_all_withdrawn_is_resolved_as_such(store: IncidentStore) -> None:
    [incident_id] = apply(store, alert("a", "web-1"), alert("b", "web-1", T0 + MINUTE))
    store.acknowledge(incident_id, "kim", at=T0 + 2 * MINUTE)
    apply(store, withdrawn("a", "web-1"), now=LATER)
    assert store.get(incident_id).state == "acknowledged"
    apply(store, withdrawn("b", "web-1", T0 + MINUTE), now=LATER)
    incident = store.get(incident_id)
    assert (incident.state, incident.resolved_by, incident.resolved_at) == ("resolved", "aiops", LATER)
    assert (incident.resolution, incident.withdrawn_because) == (f"withdrawn: {REASON}", REASON)
    assert incident.title == "system.cpu.utilization is too high on web-1" and incident.hosts == ("web-1",)
    assert (incident.alerts, incident.withdrawn_alerts) == (0, 2)
    assert kinds(store, incident_id)[-1] == "resolved"


def test_information_alone_does_not_keep_a_withdrawn_incident(store: IncidentStore) -> None:
    [incident_id] = apply(store, alert("a", "lonely"), alert("i", "lonely", T0 + MINUTE, severity_number=9))
    apply(store, withdrawn("a", "lonely"), now=LATER)
    assert store.get(incident_id).state == "resolved"


def test_what_people_decided_about_a_withdrawn_incident_stays(store: IncidentStore) -> None:
    [incident_id] = apply(store, alert("a", "web-1"))
    store.resolve(incident_id, "kim", "replaced the fan", at=T0 + 5 * MINUTE)
    apply(store, withdrawn("a", "web-1"), now=LATER)
    incident = store.get(incident_id)
    assert (incident.resolved_by, incident.resolution) == ("kim", "replaced the fan")
    assert incident.resolved_at == T0 + 5 * MINUTE and incident.withdrawn_because == REASON
    [other] = apply(store, alert("b", "lonely"), alert("b", "lonely", ends=T0 + MINUTE))
    store.auto_resolve(T0 + 10 * MINUTE, CONFIG)
    store.reopen(other, "kim", "not over", at=T0 + 11 * MINUTE)
    apply(store, withdrawn("b", "lonely"), now=LATER)
    assert store.get(other).state == "reopened" and store.get(other).withdrawn_because == REASON
    assert store.auto_resolve(LATER + HOUR, CONFIG) == []


def test_one_that_resolved_itself_before_is_marked_and_keeps_its_time(store: IncidentStore) -> None:
    incident_id = ended(store)
    apply(store, withdrawn("a", "web-1", ends_at=T0 + MINUTE), now=LATER)
    incident = store.get(incident_id)
    assert incident.resolved_at == T0 + 6 * MINUTE and incident.resolution == f"withdrawn: {REASON}"
    assert kinds(store, incident_id)[-2:] == ["amendment", "withdrawn"]


def test_nothing_joins_through_what_is_withdrawn(store: IncidentStore) -> None:
    [incident_id] = apply(store, alert("a", "web-1"))
    apply(store, withdrawn("a", "web-1"), now=T0 + 2 * MINUTE)
    [other] = apply(store, alert("b", "web-1", T0 + 3 * MINUTE), now=T0 + 3 * MINUTE)
    assert other != incident_id and store.get(incident_id).state == "resolved"
    # within one batch too
    [third] = apply(store, alert("c", "lonely"))
    touched = apply(store, withdrawn("c", "lonely"), alert("d", "lonely", T0 + MINUTE))
    assert len(touched) == 2 and third in touched


def test_a_restored_alert_puts_its_incident_back_without_a_reopening(store: IncidentStore) -> None:
    [incident_id] = apply(store, alert("a", "web-1"))
    store.acknowledge(incident_id, "kim", at=T0 + MINUTE)
    apply(store, withdrawn("a", "web-1"), now=LATER)
    apply(store, amended("a", "web-1", revision=6), now=LATER + MINUTE)
    incident = store.get(incident_id)
    assert (incident.state, incident.resolution, incident.withdrawn_because) == ("acknowledged", None, None)
    assert "reopened" not in kinds(store, incident_id) and incident.firing == 1
    assert [page.reason for page in store.pages()] == ["opened", "reopened"]
    apply(store, withdrawn("a", "web-1", revision=7), now=LATER + MINUTE)
    apply(store, amended("a", "web-1", revision=8, ends=T0 + 9 * MINUTE), now=LATER + 2 * MINUTE)
    assert store.auto_resolve(LATER, CONFIG) == [incident_id]
    assert store.get(incident_id).resolution == "all alerts have ended"


def test_one_that_fires_and_is_withdrawn_in_one_batch_pages_nobody(store: IncidentStore) -> None:
    [incident_id] = apply(store, alert("a", "web-1"), withdrawn("a", "web-1"), now=LATER)
    assert store.get(incident_id).resolution == f"withdrawn: {REASON}" and store.pages() == ()
    assert store.get(incident_id).hosts == ("web-1",)


def test_an_alert_found_late_that_fires_opens_and_pages(store: IncidentStore) -> None:
    [incident_id] = apply(store, amended("a", "web-1", revision=0), now=LATER)
    assert store.get(incident_id).state == "open" and [page.reason for page in store.pages()] == ["opened"]
    assert kinds(store, incident_id) == ["opened", "amendment"]
    assert apply(store, amended("i", "printer-1", revision=0, severity_number=9), now=LATER) == []


def test_an_alert_found_when_it_was_over_opens_nothing_that_runs(store: IncidentStore) -> None:
    began = amended("a", "web-1", revision=0, title="cpu is busy")
    over = amended("a", "web-1", revision=1, ends=T0 + MINUTE, title="idle", evidence='{"duration_seconds":60}')
    [incident_id] = apply(store, began, over, now=LATER)
    incident = store.get(incident_id)
    assert (incident.state, incident.resolved_by, incident.title) == ("resolved", "aiops", "web-1: cpu is busy")
    assert incident.resolution == f"{FOUND} when it was over: {REASON}"
    assert (incident.opened_at, incident.resolved_at, incident.ended_at) == (LATER, LATER, T0 + MINUTE)
    assert store.pages() == () and kinds(store, incident_id) == ["opened", "amendment", "alert_ended", "resolved"]
    assert running(store) == ()


def test_late_ones_join_each_other_and_link_as_of_their_own_time(store: IncidentStore) -> None:
    first = amended("a", "web-1", revision=1, ends=T0 + MINUTE)
    second = amended("b", "web-1", T0 + 6 * MINUTE, revision=1, ends=T0 + 8 * MINUTE)
    [incident_id] = apply(store, first, second, now=LATER)
    assert store.get(incident_id).alerts == 2 and store.get(incident_id).ended_at == T0 + 8 * MINUTE
    [third] = apply(store, amended("c", "web-1", T0 + 20 * MINUTE, revision=1, ends=T0 + 21 * MINUTE), now=LATER)
    assert third == incident_id
    # what fires now is hours away from it
    [now_] = apply(store, alert("d", "web-1", LATER + MINUTE), now=LATER + MINUTE)
    assert now_ != incident_id and store.get(incident_id).state == "resolved"


def test_a_late_alert_joins_the_incident_of_its_time_and_not_the_one_of_now(store: IncidentStore) -> None:
    old = ended(store)
    [now_] = apply(store, alert("n", "web-1", LATER, series_id=7))
    late = amended("b", "web-1", T0 + 2 * MINUTE, series_id=7, revision=1, ends=T0 + 30 * MINUTE)
    assert apply(store, late, now=LATER) == [old]
    incident = store.get(old)
    assert incident.state == "resolved" and incident.alerts == 2 and incident.ended_at == T0 + 30 * MINUTE
    assert store.get(now_).alerts == 1
    assert incident.members[1].link_text == f"also on web-1, {FOUND}"


def test_a_late_alert_of_a_series_that_fired_for_hours_then_joins_it(store: IncidentStore) -> None:
    rows = (alert("a", "lonely", series_id=7), alert("a", "lonely", series_id=7, ends=T0 + 3 * HOUR))
    [incident_id] = apply(store, *rows)
    store.auto_resolve(T0 + 4 * HOUR, CONFIG)
    late = amended("b", "lonely", T0 + HOUR, series_id=7, revision=1, ends=T0 + HOUR + MINUTE)
    assert apply(store, late, now=LATER) == [incident_id]
    assert store.get(incident_id).members[1].link == "same_series"


def test_a_late_alert_that_is_over_merges_nothing_and_keeps_nothing_open(store: IncidentStore) -> None:
    touched = apply(store, alert("a", "web-1"), alert("b", "web-2", T0 + 6 * MINUTE))
    assert len(touched) == 2
    late = amended("c", "db-1", T0 + MINUTE, revision=1, ends=T0 + 2 * MINUTE)
    assert len(apply(store, late, now=LATER)) == 1 and len(running(store)) == 2


def test_a_late_alert_moves_the_start_and_may_raise_the_priority(store: IncidentStore) -> None:
    [incident_id] = apply(store, alert("a", "lonely", severity_number=13))
    late = amended("b", "lonely", T0 - 5 * MINUTE, revision=1, ends=T0, severity_number=21)
    apply(store, late, now=LATER)
    incident = store.get(incident_id)
    assert incident.started_at == T0 - 5 * MINUTE and incident.urgency == 1


def test_a_rise_to_the_two_highest_priorities_pages_once(store: IncidentStore) -> None:
    [incident_id] = apply(store, alert("a", "db-1", severity_number=13), now=T0)
    assert store.get(incident_id).priority == 3
    apply(store, amended("a", "db-1", revision=1, severity_number=21), now=LATER)
    apply(store, amended("a", "db-1", revision=2, severity_number=13), now=LATER + 1)
    apply(store, amended("a", "db-1", revision=3, severity_number=21), now=LATER + 2)
    assert [(page.at, page.priority, page.reason) for page in store.pages(incident_id=incident_id)] == [
        (T0, 3, "opened"),
        (LATER, 1, "raised"),
    ]
    assert store.pages(after=store.pages()[-1].page_id) == ()


def test_a_rise_of_what_is_over_pages_nobody(store: IncidentStore) -> None:
    ended(store, host="db-1")
    apply(store, amended("a", "db-1", severity_number=21, ends=T0 + MINUTE), now=LATER)
    assert [page.reason for page in store.pages()] == ["opened"]


def test_a_silenced_alert_can_be_withdrawn_and_what_never_belonged_anywhere_too(store: IncidentStore) -> None:
    [incident_id] = apply(store, alert("a", "web-1"))
    apply(store, alert("s", "web-1", T0 + MINUTE, state="suppressed", suppressed_by="SIL-1: known"))
    apply(store, withdrawn("s", "web-1", T0 + MINUTE, suppressed_by="SIL-1: known"))
    incident = store.get(incident_id)
    assert (incident.state, incident.suppressed_alerts, incident.withdrawn_alerts) == ("open", 0, 1)
    assert apply(store, withdrawn("x", "lonely")) == []
    assert [member.alert.alert_id for member in store.alerts(state="withdrawn")] == ["s", "x"]


def test_imported_history_stays_history_when_it_is_amended(store: IncidentStore) -> None:
    late = amended("h", "web-1", revision=0, state="suppressed", suppressed_by="history: received 5 h after")
    assert apply(store, late, now=LATER) == []


def test_amendments_are_listed_by_the_hour_that_was_derived_again(store: IncidentStore) -> None:
    [incident_id] = apply(store, alert("a", "web-1"))
    apply(store, amended("a", "web-1", value=1.0, revision=1), now=LATER)
    apply(store, withdrawn("a", "web-1", amended_by="judged again", revision=2), now=LATER)
    found = store.amendments("2025-10-09T00", "2025-10-09T23")
    assert [(entry.hour, entry.kind, entry.incident_id) for entry in found] == [
        ("2025-10-09T08", "corrected", incident_id),
        ("2025-10-09T08", "withdrawn", incident_id),
    ]
    assert store.amendments("2025-10-10T00", "2025-10-10T23") == ()
    apply(store, amended("loose", "lonely", revision=0, severity_number=9))
    assert len(store.amendments("2025-10-09T08", "2025-10-09T08")) == 3
    store.prune(LATER)
    assert len(store.amendments("2025-10-09T08", "2025-10-09T08")) == 2


def test_revisions_of_one_alert_keep_their_order_whatever_their_instants(store: IncidentStore) -> None:
    rows = (
        alert("a", "web-1", changed_at=T0 + 30 * MINUTE),
        amended("a", "web-1", revision=1, changed_at=T0, severity_number=21),
        alert("a", "web-1", revision=2, ends=T0 + 40 * MINUTE, severity_number=21),
    )
    [incident_id] = apply(store, *rows)
    assert kinds(store, incident_id) == ["opened", "amendment", "alert_ended"]
