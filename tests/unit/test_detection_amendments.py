"""What is told when decisions turn out otherwise: progress as it is, corrections with their reason."""

from __future__ import annotations

from typing import Any

import pytest

from aiops_assets.detection.alerts import HISTORY_AFTER, AlertBook, BatchRows, Suppression
from aiops_assets.detection.amendments import (
    Revisions,
    Row,
    amend,
    by_alert,
    catch_up,
    end_unfollowed,
    newest_told,
    plain,
    same_content,
)
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND, hour_key
from aiops_assets.tables import ALERTS

START = 1_767_225_600 * MICROS_PER_SECOND  # 2026-01-01T00:00:00Z
MINUTE = 60 * MICROS_PER_SECOND
END = START + MICROS_PER_HOUR
WINDOW = Suppression("w", "window", START, START + 30 * MINUTE, "kim", "upgrade", host="web-*")
WHY = "3 late rows"


def row(alert: str = "a", state: str = "firing", at: int = 10, revision: int = 0, **fields: Any) -> Row:
    """A decision at a minute of the hour; the alert started at minute 5 unless ``starts_at`` says otherwise."""
    ends_at = START + at * MINUTE if state == "resolved" else None
    entry = {
        "alert_id": alert,
        "revision": revision,
        "fingerprint": f"f-{alert}",
        "kind": "rule",
        "name": "r",
        "state": state,
        "severity_number": 17,
        "host": "web-1",
        "metric": "load",
        "series_id": 7,
        "labels": "{}",
        "starts_at": START + 5 * MINUTE,
        "ends_at": ends_at,
        "changed_at": START + at * MINUTE,
        "title": f"{state} at {at}",
        "value": 1.0,
        "threshold": 0.5,
        "evidence": "{}",
        "received_at": START + at * MINUTE,
        "writer": "gateway",
        "seq": 3,
        "hour": hour_key(START),
    }
    return entry | fields


def told(*rows: Row, **fields: Any) -> dict[str, Row]:
    """The newest told rows."""
    return {entry["alert_id"]: {"suppressed_by": None, "amended_by": None} | entry | fields for entry in rows}


def open_now(*rows: Row) -> dict[str, Row]:
    return {entry["alert_id"]: entry for entry in rows}


def said(result: Revisions) -> list[tuple[str, int, str, str | None]]:
    """(alert, revision, state, why); the rows are rows of the table."""
    frame = result.frame()
    assert frame.schema == ALERTS.schema
    assert plain(frame) == [dict.fromkeys(ALERTS.schema) | entry for entry in result.rows]
    return [(entry["alert_id"], entry["revision"], entry["state"], entry["amended_by"]) for entry in result.rows]


def counts(result: Revisions) -> tuple[set[str], set[str], set[str]]:
    return result.raised, result.amended, result.withdrawn


# -- catching up ------------------------------------------------------------------------------------------------------


def follow(
    decisions: list[Row],
    before: dict[str, Row],
    *,
    still_open: dict[str, Row] | None = None,
    ended: dict[str, int] | None = None,
    provisional: list[str] | None = None,
    windows: list[Suppression] | None = None,
) -> Revisions:
    return catch_up(by_alert(decisions), before, still_open or {}, ended or {}, provisional or [], windows or [], WHY)


def test_what_is_new_is_told_without_a_reason() -> None:
    result = follow([row(), row(state="resolved", at=20, revision=1)], {})
    assert said(result) == [("a", 0, "firing", None), ("a", 1, "resolved", None)]
    assert counts(result) == ({"a"}, set(), set())


def test_new_alerts_are_told_in_order_of_their_first_decision() -> None:
    result = follow([row("b", at=12), row("c", at=11), row("a", at=12)], {})
    assert [entry["alert_id"] for entry in result.rows] == ["c", "a", "b"]


def test_what_was_told_already_is_not_told_again() -> None:
    both = [row(), row(state="resolved", at=20, revision=1)]
    assert said(follow(both, told(row(state="resolved", at=20, revision=1)))) == []
    assert said(follow(both[:1], told(row()))) == []


def test_what_follows_on_something_told_is_progress() -> None:
    result = follow([row(), row(state="resolved", at=20, revision=1)], told(row(revision=4)))
    assert said(result) == [("a", 5, "resolved", None)]
    assert counts(result) == (set(), set(), set())


def test_what_was_decided_after_everything_told_is_progress() -> None:
    earlier = told(row(at=8, title="told in an hour that is closed"))
    result = follow([row(state="resolved", at=20, revision=1)], earlier)
    assert said(result) == [("a", 1, "resolved", None)]
    assert counts(result) == (set(), set(), set())


def test_what_turns_out_otherwise_carries_the_reason() -> None:
    result = follow([row(value=2.0), row(state="resolved", at=15, revision=1)], told(row(state="resolved", at=20)))
    assert said(result) == [("a", 1, "resolved", WHY)]
    assert result.rows[0]["ends_at"] == START + 15 * MINUTE
    assert counts(result) == (set(), {"a"}, set())


def test_an_alert_that_was_withdrawn_and_is_decided_after_all_is_told_again() -> None:
    result = follow([row()], told(row(state="withdrawn", revision=2)))
    assert said(result) == [("a", 3, "firing", WHY)]
    assert counts(result) == (set(), {"a"}, set())


def test_what_was_told_and_nothing_decides_any_more_is_withdrawn_once() -> None:
    result = follow([], told(row(revision=1)), provisional=["a", "unknown"])
    assert said(result) == [("a", 2, "withdrawn", WHY)]
    assert counts(result) == (set(), set(), {"a"})
    assert said(follow([], told(*result.rows), provisional=["a"])) == []


def test_what_was_not_told_since_is_not_withdrawn() -> None:
    assert said(follow([], told(row()), provisional=[])) == []


def test_an_alert_that_is_open_from_before_stays_and_is_opened_when_its_end_was_told() -> None:
    state = open_now(row(at=6))
    assert said(follow([], told(row(at=6)), still_open=state, provisional=["a"])) == []
    result = follow([], told(row(state="resolved", at=20, revision=1)), still_open=state, provisional=["a"])
    assert said(result) == [("a", 2, "firing", WHY)]
    assert result.rows[0]["ends_at"] is None
    assert counts(result) == (set(), {"a"}, set())


def test_an_alert_that_ended_before_gets_that_end() -> None:
    at = START + 12 * MINUTE
    result = follow([], told(row(state="resolved", at=20, revision=1)), ended={"a": at}, provisional=["a"])
    assert said(result) == [("a", 2, "resolved", WHY)]
    assert result.rows[0]["ends_at"] == at
    again = follow([], told(*result.rows), ended={"a": at}, provisional=["a"])
    assert said(again) == []


# -- suppression of what is told late ---------------------------------------------------------------------------------


def test_windows_count_as_they_would_have_when_it_was_decided() -> None:
    result = follow([row(), row(state="resolved", at=40, revision=1)], {}, windows=[WINDOW])
    assert [(entry["state"], entry["suppressed_by"]) for entry in result.rows] == [
        ("suppressed", WINDOW.explanation),
        ("resolved", WINDOW.explanation),
    ]
    assert [entry["state"] for entry in follow([row(at=31)], {}, windows=[WINDOW]).rows] == ["firing"]
    assert [entry["state"] for entry in follow([row(host="db-1")], {}, windows=[WINDOW]).rows] == ["firing"]


@pytest.mark.parametrize(("late", "state"), [(HISTORY_AFTER, "firing"), (HISTORY_AFTER + 1, "suppressed")])
def test_decisions_on_points_that_came_late_are_history(late: int, state: str) -> None:
    (entry,) = follow([row(received_at=START + 10 * MINUTE + late)], {}).rows
    assert entry["state"] == state
    assert (entry["suppressed_by"] or "history: ").startswith("history: ")


def test_what_was_suppressed_stays_suppressed_when_it_changes() -> None:
    before = told(row(state="suppressed"), suppressed_by="s1: silence by ada")
    (entry,) = follow([row(), row(at=20, severity_number=21, revision=1)], before).rows
    assert (entry["state"], entry["suppressed_by"], entry["severity_number"]) == (
        "suppressed",
        "s1: silence by ada",
        21,
    )


# -- a closed hour derived again --------------------------------------------------------------------------------------


def again(
    old: list[Row],
    new: list[Row],
    before: dict[str, Row],
    *,
    still_open: dict[str, Row] | None = None,
    windows: list[Suppression] | None = None,
) -> Revisions:
    return amend(by_alert(old), by_alert(new), before, still_open or {}, END, windows or [], WHY)


FIRES, ENDS = row(), row(state="resolved", at=20, revision=1)


def test_an_hour_that_decides_the_same_tells_nothing() -> None:
    assert said(again([FIRES, ENDS], [FIRES, ENDS], told(ENDS))) == []


def test_an_alert_that_late_rows_bring_is_raised_with_the_reason() -> None:
    result = again([], [FIRES, ENDS], {})
    assert said(result) == [("a", 0, "firing", WHY), ("a", 1, "resolved", WHY)]
    assert counts(result) == ({"a"}, set(), set())


def test_an_alert_that_late_rows_take_away_is_withdrawn_once() -> None:
    result = again([FIRES, ENDS], [], told(ENDS))
    assert said(result) == [("a", 2, "withdrawn", WHY)]
    assert counts(result) == (set(), set(), {"a"})
    assert said(again([FIRES, ENDS], [], told(*result.rows))) == []
    assert said(again([FIRES, ENDS], [], {})) == []


def test_an_end_that_moved_is_amended() -> None:
    moved = row(state="resolved", at=30, revision=1)
    result = again([FIRES, ENDS], [FIRES, moved], told(ENDS))
    assert said(result) == [("a", 2, "resolved", WHY)]
    assert result.rows[0]["ends_at"] == moved["ends_at"]
    assert counts(result) == (set(), {"a"}, set())
    assert said(again([FIRES, ENDS], [FIRES, moved], told(*result.rows))) == []


def test_what_a_later_hour_told_of_an_alert_stays() -> None:
    later = row(state="resolved", at=90, revision=2)
    moved = row(at=12, severity_number=21, revision=1)
    assert said(again([FIRES], [FIRES, moved], told(later))) == []


def test_an_alert_of_an_earlier_hour_whose_end_falls_away_ends_with_the_hour() -> None:
    result = again([ENDS], [], told(ENDS))
    assert said(result) == [("a", 2, "resolved", WHY)]
    assert result.rows[0]["ends_at"] == END
    assert counts(result) == (set(), {"a"}, set())
    assert said(again([ENDS], [], told(ENDS), still_open=open_now(FIRES))) == []


def test_an_alert_of_an_earlier_hour_that_is_open_stays_open() -> None:
    change = row(at=20, severity_number=21, revision=1)
    assert said(again([change], [], told(change))) == []


def test_windows_count_for_what_an_amendment_raises() -> None:
    (entry,) = again([], [FIRES], {}, windows=[WINDOW]).rows
    assert (entry["state"], entry["suppressed_by"], entry["amended_by"]) == ("suppressed", WINDOW.explanation, WHY)


# -- what nobody follows ----------------------------------------------------------------------------------------------


def test_what_an_amendment_left_open_and_the_present_does_not_know_is_ended() -> None:
    before = told(row("a"), row("b"), row("c", state="resolved"), row("d", state="withdrawn"))
    result = end_unfollowed(before, ["d", "c", "b", "a", "unknown"], open_now(row("b")), END)
    assert said(result) == [("a", 1, "resolved", "not followed beyond 2026-01-01 01:00:00 UTC")]
    assert result.rows[0]["ends_at"] == END
    assert counts(result) == (set(), {"a"}, set())


def test_an_end_is_never_before_what_was_told() -> None:
    result = end_unfollowed(told(row(at=80)), ["a"], {}, END)
    assert result.rows[0]["ends_at"] == START + 80 * MINUTE


def test_suppressed_alerts_that_nobody_follows_end_too_and_keep_why() -> None:
    result = end_unfollowed(told(row(state="suppressed"), suppressed_by="w: window"), ["a"], {}, END)
    assert [(entry["state"], entry["suppressed_by"]) for entry in result.rows] == [("resolved", "w: window")]


# -- rows -------------------------------------------------------------------------------------------------------------


def test_numbering_and_suppression_are_not_content() -> None:
    assert same_content(row(), row() | {"revision": 3, "state": "suppressed", "changed_at": START, "amended_by": "x"})
    for change in (
        {"state": "resolved"},
        {"state": "withdrawn"},
        {"value": 2.0},
        {"severity_number": 9},
        {"starts_at": START},
        {"ends_at": START},
        {"title": "t"},
        {"threshold": None},
        {"evidence": '{"x":1}'},
    ):
        assert not same_content(row(), row() | change)


def test_the_newest_told_row_of_each_alert_is_its_highest_revision() -> None:
    result = follow([row("a"), row("a", state="resolved", at=20, revision=1), row("b", at=12)], {})
    newest = newest_told(result.frame().reverse())
    assert {alert: (entry["revision"], entry["state"]) for alert, entry in newest.items()} == {
        "a": (1, "resolved"),
        "b": (0, "firing"),
    }
    assert newest["a"]["ends_at"] == START + 20 * MINUTE
    assert newest_told(ALERTS.empty()) == {}


def test_decisions_of_a_book_are_told_as_they_are() -> None:
    assert plain(AlertBook().apply([], directory=ALERTS.empty(), windows=[], batch=BatchRows.empty())) == []
    assert follow([], {}).frame().equals(ALERTS.empty())
