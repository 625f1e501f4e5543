"""The book of alerts: one event one alert, suppression that explains itself, ids that never change."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain, pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops_assets.config import parse_config
from aiops_assets.detection.alerts import (
    CLOSED_KEPT,
    HISTORY_AFTER,
    REOPEN_WITHIN,
    AlertBook,
    BatchRows,
    Suppression,
    alert_id,
    fingerprint,
    present,
    suppressions_of,
)
from aiops_assets.detection.transitions import Transition
from aiops_assets.detection.wording import duration, printable, quantity
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND
from aiops_assets.tables import ALERTS
from tests.examples import examples

START = 1_767_225_600 * MICROS_PER_SECOND  # 2026-01-01T00:00:00Z
MINUTE = 60 * MICROS_PER_SECOND
NONE = BatchRows.empty()
DIRECTORY = pl.DataFrame(
    {
        "number": [0, 1, 2],
        "series_id": [100, 101, -102],
        "host": ["db-1", "db-1", "web-1"],
        "metric": ["system.filesystem.utilization", "load", "load"],
        "unit": ["1", "", None],
        "labels": ['{"mountpoint":"/data"}', "{}", "{}"],
        "kind": ["gauge"] * 3,
        "source": ["t"] * 3,
    },
    schema_overrides={"number": pl.Int32},
)
FIRES = Transition(
    "rule", "almost-full", 0, "firing", START, START + MINUTE, 17, "at 93% (≥ 90%)", 0.93, 0.9, {"op": ">="}, row=0
)
ENDS = replace(FIRES, state="resolved", at=START + 10 * MINUTE, summary="back at 80%", value=0.8)
WINDOW = Suppression(
    "db-upgrade", "window", START, START + 60 * MINUTE, "kim", "PostgreSQL upgrade", host="db-*", rule="almost-*"
)


def rows_at(*received_at: int) -> BatchRows:
    count = len(received_at)
    return BatchRows(np.array(received_at, np.int64), ["gateway"] * count, np.arange(5, 5 + count))


def apply(
    book: AlertBook, *transitions: Transition, windows: list[Suppression] | None = None, batch: BatchRows = NONE
) -> list[dict[str, object]]:
    frame = book.apply(transitions, directory=DIRECTORY, windows=windows or [], batch=batch)
    assert frame.schema == ALERTS.schema
    return frame.to_dicts()


def recheck(book: AlertBook, watermark: int, windows: list[Suppression], **more: object) -> list[dict[str, object]]:
    return book.recheck(watermark, windows=windows, directory=DIRECTORY, **more).to_dicts()  # type: ignore[arg-type]


def states(rows: list[dict[str, object]]) -> list[tuple[object, object]]:
    return [(row["revision"], row["state"]) for row in rows]


def micros_of(value: object) -> int:
    return round(value.timestamp() * 1_000_000)  # type: ignore[attr-defined]


# -- one event, one alert ---------------------------------------------------------------------------------------------


def test_an_alert_has_everything_a_person_and_a_program_need() -> None:
    book = AlertBook()
    (row,) = apply(book, FIRES, batch=rows_at(START + MINUTE + 5))
    assert row["title"] == "system.filesystem.utilization (mountpoint=/data) on db-1: at 93% (≥ 90%)"
    assert (row["host"], row["metric"], row["series_id"]) == ("db-1", "system.filesystem.utilization", 100)
    assert (row["value"], row["threshold"], row["severity_number"]) == (0.93, 0.9, 17)
    assert (micros_of(row["starts_at"]), micros_of(row["changed_at"]), row["ends_at"]) == (START, START + MINUTE, None)
    assert (micros_of(row["received_at"]), row["writer"], row["seq"]) == (START + MINUTE + 5, "gateway", 5)
    assert row["hour"] == "2026-01-01T00"
    assert json.loads(str(row["evidence"])) == {"op": ">="}
    assert (row["revision"], row["state"], row["suppressed_by"], row["amended_by"]) == (0, "firing", None, None)
    (over,) = apply(book, ENDS)
    assert over["alert_id"] == row["alert_id"]
    assert (over["revision"], over["state"], micros_of(over["ends_at"])) == (1, "resolved", ENDS.at)
    assert str(over["title"]).endswith("on db-1: back at 80% (after 10 min)")
    assert over["hour"] == row["hour"]
    assert book.open_count == 0


def test_a_second_start_of_what_is_open_and_an_end_of_what_is_not_change_nothing() -> None:
    book = AlertBook()
    assert len(apply(book, FIRES, replace(FIRES, starts_at=START + 1, at=START + 2 * MINUTE))) == 1
    assert len(apply(book, ENDS, ENDS)) == 1
    assert apply(book, ENDS) == []


def test_processing_the_same_transitions_again_adds_nothing() -> None:
    book = AlertBook()
    again = replace(FIRES, starts_at=START + 12 * MINUTE, at=START + 13 * MINUTE)
    stream = [FIRES, ENDS, again]
    assert len(apply(book, *stream)) == 3
    assert apply(book, *stream) == []
    assert apply(book, *stream[:2]) == []
    assert book.open_count == 1


def test_a_series_closed_as_stale_while_history_comes_in_pieces_is_opened_again() -> None:
    book = AlertBook()
    stale = replace(ENDS, at=START + 24 * MICROS_PER_HOUR)
    first, _ = apply(book, FIRES, stale)
    (row,) = apply(book, replace(FIRES, starts_at=START + 20 * MINUTE, at=START + 21 * MINUTE))
    assert (row["alert_id"], row["revision"], row["state"]) == (first["alert_id"], 2, "firing")


def test_ids_follow_from_what_the_alert_is_about() -> None:
    assert fingerprint("rule", "r", 100) == fingerprint("rule", "r", 100)
    different = {fingerprint(*about) for about in [("rule", "r", 100), ("rule", "r", 101), ("anomaly", "r", 100)]}
    different |= {
        fingerprint("absence", "r", "100"),
        fingerprint("absence", "r", '","'),
        fingerprint("absence", 'r","', ""),
    }
    assert len(different) == 6
    assert alert_id("a", 1) != alert_id("a", 2)


def test_absence_is_one_alert_a_host_whichever_series_stands_for_it() -> None:
    book = AlertBook()
    silent = Transition("absence", "missing", 0, "firing", START, START + MINUTE, 17, "no load for 5 min")
    (row,) = apply(book, silent, replace(silent, series=1))
    assert row["title"] == "db-1: no load for 5 min"
    assert row["labels"] == "{}"
    assert len(apply(book, replace(silent, series=2))) == 1


@pytest.mark.parametrize(("pause", "same"), [(0, True), (REOPEN_WITHIN, True), (REOPEN_WITHIN + 1, False)])
def test_what_starts_again_soon_is_the_same_alert(pause: int, same: bool) -> None:
    book = AlertBook()
    first, _ = apply(book, FIRES, ENDS)
    again = replace(FIRES, starts_at=ENDS.at + pause, at=ENDS.at + pause + MINUTE)
    (row,) = apply(book, again)
    assert (row["alert_id"] == first["alert_id"]) == same
    assert row["revision"] == (2 if same else 0)
    if same:
        assert micros_of(row["starts_at"]) == START
        assert json.loads(str(row["evidence"]))["reopened"] == 1
        (over,) = apply(book, replace(ENDS, at=again.at + MINUTE))
        assert over["revision"] == 3


def test_the_memory_of_ended_alerts_is_bounded() -> None:
    book = AlertBook()
    silent = Transition("absence", "r", 0, "firing", START, START, 17, "s")
    named = [replace(silent, name=f"r{number}") for number in range(CLOSED_KEPT + 50)]
    both = [change for one in named for change in (one, replace(one, state="resolved"))]
    book.apply(both, directory=DIRECTORY, windows=[], batch=NONE)
    assert CLOSED_KEPT / 2 < len(book.export()["closed"]) <= CLOSED_KEPT


def test_what_is_forgotten_in_a_storm_does_not_depend_on_handing_over() -> None:
    silent = Transition("absence", "r", 0, "firing", START, START, 17, "s")
    random = np.random.default_rng(0)
    named = [
        replace(silent, name=f"r{number}", at=START + int(at), starts_at=START)
        for number, at in enumerate(random.permutation(CLOSED_KEPT + 500))
    ]
    both = [[one, replace(one, state="resolved")] for one in named]
    first, second = chain(*both[:CLOSED_KEPT]), list(chain(*both[CLOSED_KEPT:]))
    whole, restored = AlertBook(), AlertBook()
    whole.apply(first, directory=DIRECTORY, windows=[], batch=NONE)
    restored.adopt_state(whole.export())
    for book in (whole, restored):
        book.apply(second, directory=DIRECTORY, windows=[], batch=NONE)
    assert whole.export() == restored.export()


# -- suppression ------------------------------------------------------------------------------------------------------


def test_a_window_suppresses_and_says_why() -> None:
    (row,) = apply(AlertBook(), FIRES, windows=[WINDOW])
    assert row["state"] == "suppressed"
    assert row["suppressed_by"] == "db-upgrade: window until 2026-01-01 01:00:00 UTC by kim: PostgreSQL upgrade"


@pytest.mark.parametrize(
    "other",
    [
        replace(WINDOW, host="web-*"),
        replace(WINDOW, rule="load"),
        replace(WINDOW, labels={"mountpoint": "/home*"}),
        replace(WINDOW, ends_at=FIRES.at),
        replace(WINDOW, starts_at=FIRES.at + 1),
        replace(WINDOW, host="db.1"),
    ],
)
def test_a_window_that_does_not_match_suppresses_nothing(other: Suppression) -> None:
    assert apply(AlertBook(), FIRES, windows=[other])[0]["state"] == "firing"


def test_a_window_that_ends_lets_the_alert_fire() -> None:
    book = AlertBook()
    (before,) = apply(book, FIRES, windows=[WINDOW])
    assert recheck(book, START + 30 * MINUTE, [WINDOW]) == []
    (row,) = recheck(book, START + 65 * MINUTE, [WINDOW])
    assert (row["alert_id"], row["revision"], row["state"]) == (before["alert_id"], 1, "firing")
    assert micros_of(row["changed_at"]) == WINDOW.ends_at
    assert row["suppressed_by"] is None
    assert recheck(book, START + 70 * MINUTE, [WINDOW]) == []


def test_a_watermark_behind_the_decision_does_not_lift_a_window_that_covers_it() -> None:
    book = AlertBook()
    apply(book, FIRES, windows=[replace(WINDOW, starts_at=FIRES.at)])
    assert recheck(book, START, [replace(WINDOW, starts_at=FIRES.at)]) == []


def test_a_silence_set_or_lifted_meanwhile_takes_effect() -> None:
    book = AlertBook()
    apply(book, FIRES)
    silence = Suppression("s1", "silence", START + 5 * MINUTE, START + 50 * MINUTE, "ada", "known", host="db-1")
    assert recheck(book, START + 4 * MINUTE, [silence]) == []
    (row,) = recheck(book, START + 6 * MINUTE, [silence])
    assert (row["revision"], row["state"], micros_of(row["changed_at"])) == (1, "suppressed", silence.starts_at)
    (row,) = recheck(book, START + 9 * MINUTE, [])
    assert (row["revision"], row["state"], micros_of(row["changed_at"])) == (2, "firing", START + 9 * MINUTE)


def test_of_several_windows_the_one_that_lasts_longest_explains() -> None:
    longer = replace(WINDOW, window_id="longer", ends_at=WINDOW.ends_at + MINUTE)
    book = AlertBook()
    (row,) = apply(book, FIRES, windows=[WINDOW, longer])
    assert str(row["suppressed_by"]).startswith("longer: ")
    assert recheck(book, START + 30 * MINUTE, [longer, WINDOW]) == []


def test_an_alert_that_ends_suppressed_is_resolved_and_says_that_it_never_fired() -> None:
    book = AlertBook()
    rows = apply(book, FIRES, ENDS, windows=[WINDOW])
    assert states(rows) == [(0, "suppressed"), (1, "resolved")]
    assert rows[1]["suppressed_by"] == rows[0]["suppressed_by"]


def test_windows_of_the_configuration_become_suppressions() -> None:
    text = """
maintenance:
  - {name: w, host: "db-*", labels: {mountpoint: ["/a", "/b*"]}, from: 2026-01-01T00:00:00Z, to: 2026-01-01T01:00:00Z,
     author: kim, reason: upgrade}
"""
    (window,) = suppressions_of(parse_config(text, "f"))
    assert (window.window_id, window.kind, window.starts_at, window.ends_at) == (
        "w",
        "window",
        START,
        START + 60 * MINUTE,
    )
    assert window.covers(START, "db-7", "anything", '{"mountpoint":"/b1"}')
    assert not window.covers(START, "db-7", "anything", '{"mountpoint":"/c"}')


# -- history ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("late", "state"), [(HISTORY_AFTER, "firing"), (HISTORY_AFTER + 1, "suppressed")])
def test_imported_history_never_pages(late: int, state: str) -> None:
    (row,) = apply(AlertBook(), FIRES, batch=rows_at(FIRES.at + late))
    assert row["state"] == state
    assert row["suppressed_by"] == (None if state == "firing" else "history: received 1 h after it happened")


def test_a_book_without_a_history_limit_lets_the_past_fire() -> None:
    assert (
        apply(AlertBook(history_after=None), FIRES, batch=rows_at(FIRES.at + 99 * MICROS_PER_HOUR))[0]["state"]
        == "firing"
    )


def test_history_that_reaches_the_present_fires() -> None:
    book = AlertBook()
    now = START + 48 * MICROS_PER_HOUR
    apply(book, FIRES, batch=rows_at(now))
    latest = np.array([START + MICROS_PER_HOUR, 0, 0])
    assert recheck(book, now, []) == []
    assert recheck(book, now, [], latest=latest, received_at=now) == []
    latest[0] = now - MINUTE
    (row,) = recheck(book, now, [], latest=latest, received_at=now)
    assert (row["revision"], row["state"], row["suppressed_by"]) == (1, "firing", None)


# -- state ------------------------------------------------------------------------------------------------------------


@st.composite
def streams(draw: st.DrawFn) -> list[Transition]:
    """Transitions in order of time, sensible or not."""
    at = START
    made = []
    for _ in range(draw(st.integers(0, 30))):
        at += draw(st.integers(0, 20)) * MINUTE
        made.append(
            Transition(
                draw(st.sampled_from(["rule", "absence"])),
                "r",
                draw(st.integers(0, 2)),
                draw(st.sampled_from(["firing", "resolved"])),
                at - draw(st.integers(0, 5)) * MINUTE,
                at,
                13,
                "s",
                draw(st.floats()),
                0.1,
                {"x": draw(st.floats())},
            )
        )
    return made


@settings(max_examples=examples(80), deadline=None)
@given(streams(), st.lists(st.integers(0, 30), max_size=4))
def test_handing_over_changes_nothing_and_revisions_count_up(stream: list[Transition], cuts: list[int]) -> None:
    whole, part = AlertBook(), AlertBook()
    expected = whole.apply(stream, directory=DIRECTORY, windows=[WINDOW], batch=NONE)
    parts = [ALERTS.empty()]
    bounds = [0, *sorted(cuts), len(stream)]
    for first, last in pairwise(bounds):
        parts.append(part.apply(stream[first:last], directory=DIRECTORY, windows=[WINDOW], batch=NONE))
        state = json.loads(json.dumps(part.export()))
        part = AlertBook()
        part.adopt_state(state)
        assert part.export() == state
    assert pl.concat(parts).equals(expected)
    for revisions in expected.group_by("alert_id").agg("revision")["revision"]:
        assert revisions.to_list() == list(range(len(revisions)))
    assert whole.open_count == present(expected).filter(pl.col("state") != "resolved").height


def test_adopting_a_state_replaces_what_a_book_held() -> None:
    book, other = AlertBook(), AlertBook()
    apply(book, FIRES, replace(FIRES, series=1), ENDS)
    apply(other, replace(FIRES, series=2))
    other.adopt_state(book.export())
    assert other.export() == book.export()
    assert apply(other, ENDS) == []


def test_the_present_is_the_highest_revision_of_each_alert() -> None:
    book = AlertBook()
    other = replace(FIRES, series=1)
    frame = book.apply([FIRES, other, ENDS], directory=DIRECTORY, windows=[], batch=NONE)
    now = present(frame)
    assert sorted(now["state"].to_list()) == ["firing", "resolved"]
    assert present(frame.lazy()).collect().equals(now)
    assert present(ALERTS.empty()).is_empty()


# -- wording and hostile text -----------------------------------------------------------------------------------------


def test_hostile_names_cannot_write_to_a_terminal_or_break_the_row() -> None:
    hostile = "\x1b[2J\u202e<script>'; drop table\n" + "x" * 5000
    directory = DIRECTORY.with_columns(
        pl.lit(hostile).alias("host"),
        pl.lit(hostile).alias("metric"),
        pl.lit(json.dumps({hostile: hostile})).alias("labels"),
    )
    frame = AlertBook().apply([FIRES], directory=directory, windows=[WINDOW], batch=NONE)
    title = frame["title"][0]
    assert title.isprintable()
    assert len(title) < 700
    assert frame["host"][0] == hostile


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.932, "1", "93.2%"),
        (1.0, "1", "100%"),
        (3 * 1024**3, "By", "3 GiB"),
        (2048.0, "By/s", "2 KiB/s"),
        (85.0, "Cel", "85 °C"),
        (12.0, "{error}/s", "12 error/s"),
        (7200.0, "s", "2 h"),
        (0.5, None, "0.5"),
        (float("inf"), "By", "inf EiB"),
        (1e300, "1", "1e+302%"),
    ],
)
def test_quantities_read_as_people_write_them(value: float, unit: str | None, text: str) -> None:
    assert quantity(value, unit) == text


@given(st.floats())
def test_durations_never_fail(seconds: float) -> None:
    assert duration(seconds)


@given(st.text(max_size=300))
def test_printable_text_is_printable_and_bounded(text: str) -> None:
    shown = printable(text, 50)
    assert shown.isprintable()
    assert len(shown) <= 50
