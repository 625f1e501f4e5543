"""When a live session is requested: the landing sensor's judgement, without Dagster."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops_assets.landing.segment import Delivery
from aiops_assets.landing.writer import SegmentWriter
from aiops_assets.live.demand import Cursor, Limits, LiveRun, Situation, decide, load_cursor, positions
from aiops_assets.live.lease import LeaseInfo

NOW = 1_760_000_000.0
WAITING = {"gateway": 8}
TAKEN = {"gateway": 7}


def situation(
    now: float = NOW,
    *,
    waiting: dict[str, int] | None = None,
    taken: dict[str, int] | None = None,
    left: float | None = None,
    runs: tuple[LiveRun, ...] = (),
    flowing: bool = True,
    last_failed: bool = False,
) -> Situation:
    holder = None if left is None else LeaseInfo("holder", 1, now - 100, now + left)
    return Situation(now, taken or TAKEN, WAITING if waiting is None else waiting, holder, runs, flowing, last_failed)


def test_waiting_deliveries_with_nobody_at_work_request_a_session() -> None:
    assert decide(Cursor(), situation()).run_key is not None


def test_nothing_is_requested_while_nothing_waits() -> None:
    assert decide(Cursor(), situation(waiting={})).run_key is None


def test_a_working_session_is_left_alone_until_shortly_before_its_end() -> None:
    assert decide(Cursor(), situation(left=41)).run_key is None
    assert decide(Cursor(), situation(left=40)).run_key is not None


def test_a_successor_is_requested_once() -> None:
    first = decide(Cursor(), situation(left=20))
    queued = LiveRun("successor", NOW, started=False)
    later = decide(first.cursor, situation(NOW + 5, left=15, runs=(queued,)))
    assert first.run_key is not None
    assert later.run_key is None


def test_a_session_that_waits_for_the_lease_counts_however_long_it_waits() -> None:
    waiting = LiveRun("successor", NOW - 600, started=True, alive=True)
    assert decide(Cursor(), situation(left=1, runs=(waiting,))).run_key is None


def test_a_quiet_session_gets_no_successor() -> None:
    assert decide(Cursor(), situation(left=5, waiting={}, flowing=False)).run_key is None
    assert decide(Cursor(), situation(left=5, waiting={}, flowing=True)).run_key is not None


def test_a_run_that_does_not_start_in_a_minute_is_requested_again_with_another_key() -> None:
    first = decide(Cursor(), situation())
    stuck = LiveRun("stuck", NOW, started=False)
    assert decide(first.cursor, situation(NOW + 59, runs=(stuck,))).run_key is None
    again = decide(first.cursor, situation(NOW + 61, runs=(stuck,)))
    assert again.run_key is not None
    assert again.run_key != first.run_key


def test_requests_stop_when_nothing_starts_at_all() -> None:
    stuck = tuple(LiveRun(f"stuck-{number}", NOW - 1000, started=False) for number in range(3))
    decision = decide(Cursor(), situation(runs=stuck))
    assert decision.run_key is None
    assert "daemon" in decision.reason


def test_a_run_whose_process_is_dead_does_not_count() -> None:
    dead = LiveRun("dead", NOW - 5, started=True, alive=False)
    assert decide(Cursor(), situation(runs=(dead,))).run_key is not None


def test_sessions_that_get_nowhere_are_requested_ever_more_rarely() -> None:
    cursor, now, requested = Cursor(), NOW, []
    while now < NOW + 3600:
        decision = decide(cursor, situation(now))
        cursor = decision.cursor
        if decision.run_key:
            requested.append(now)
        now += 5
    gaps = [later - earlier for earlier, later in pairwise(requested)]
    assert gaps == sorted(gaps)
    assert gaps[0] <= 10
    assert gaps[-1] == 180
    assert 86_400 / gaps[-1] <= 500, "sessions that never work stay within a day's runs"


def test_sessions_that_fail_again_and_again_are_slowed_even_when_they_get_further() -> None:
    cursor, requested = Cursor(), 0
    for tick in range(720):
        seen = situation(NOW + tick * 5, taken={"gateway": tick}, waiting={"gateway": tick + 1}, last_failed=True)
        decision = decide(cursor, seen)
        cursor, requested = decision.cursor, requested + bool(decision.run_key)
    assert requested <= 3600 / Limits().longest_retry_with_progress + 5


def test_a_sparse_sender_is_served_at_once_each_time() -> None:
    cursor = Cursor()
    for number in range(20):
        seen = situation(NOW + number * 200, taken={"gateway": number}, waiting={"gateway": number + 1})
        decision = decide(cursor, seen)
        assert decision.run_key is not None
        cursor = decision.cursor


def test_a_session_that_has_just_taken_the_lease_gets_no_successor() -> None:
    seen = Situation(NOW, TAKEN, WAITING, LeaseInfo("unknown", 0, NOW, NOW), ())
    assert decide(Cursor(), seen).run_key is None


def test_a_lost_cursor_never_meets_a_run_key_that_was_used_before() -> None:
    first = decide(Cursor(), situation())
    assert decide(Cursor(), situation(NOW + 30)).run_key != first.run_key


@given(
    st.lists(
        st.tuples(st.sampled_from(["tick", "start", "take", "finish", "fail", "drop"]), st.integers(1, 40)),
        max_size=120,
    )
)
@settings(deadline=None)
def test_whatever_happens_no_two_runs_are_on_their_way_and_waiting_deliveries_are_served(
    story: list[tuple[str, int]],
) -> None:
    """A small world: runs start, take the lease, end or fail at any time; ticks come every few seconds."""
    now, cursor, number = NOW, Cursor(), 0
    runs: dict[str, LiveRun] = {}
    holder: LeaseInfo | None = None
    waiting, taken, keys = True, 0, set()

    def tick() -> None:
        nonlocal cursor, number
        seen = Situation(
            now,
            {"gateway": taken},
            {"gateway": taken + 1} if waiting else {},
            holder,
            tuple(runs.values()),
            last_failed=False,
        )
        decision = decide(cursor, seen)
        cursor = load_cursor(decision.cursor.model_dump_json())
        if decision.run_key:
            assert decision.run_key not in keys
            keys.add(decision.run_key)
            others = [run for run in runs.values() if holder is None or run.run_id != holder.owner]
            assert all(not run.started and now - run.created_at >= Limits().start for run in others)
            number += 1
            runs[f"run-{number}"] = LiveRun(f"run-{number}", now, started=False)

    for event, seconds in story:
        now += seconds
        if event == "tick":
            tick()
        elif event == "drop":
            waiting = True
        elif event == "start" and runs:
            name = sorted(runs)[0]
            runs[name] = LiveRun(name, runs[name].created_at, started=True, alive=True)
        elif event == "take" and holder is None:
            started = [run for run in runs.values() if run.started]
            if started:
                holder = LeaseInfo(started[0].run_id, 1, now, now + 100)
                taken, waiting = taken + 1, False
        elif event in {"finish", "fail"} and holder is not None:
            runs.pop(holder.owner)
            holder = None
    for name in list(runs):
        runs.pop(name)
    holder, waiting, before = None, True, number
    for _ in range(70):
        now += 5
        tick()
        if number > before:
            break
    assert number > before, "deliveries wait, nobody works, and nobody is asked to"


@pytest.mark.parametrize(
    "text",
    [
        "",
        None,
        "{",
        "[1, 2]",
        '"x"',
        "null",
        '{"version": "two"}',
        '{"version": 2, "taken": {"gateway": "many"}}',
        "\x00",
    ],
)
def test_a_broken_cursor_is_forgotten_and_never_raises(text: str | None) -> None:
    assert load_cursor(text) == Cursor()


def test_the_cursor_of_the_first_version_is_still_read() -> None:
    assert load_cursor('{"gateway": 12, "collector": 3}').taken == {"gateway": 12, "collector": 3}


def test_a_cursor_of_a_later_version_keeps_what_is_known() -> None:
    text = json.dumps({"version": 3, "taken": {"gateway": 4}, "need": "n", "novelty": True})
    assert load_cursor(text).taken == {"gateway": 4}


def test_a_cursor_survives_being_written_and_read() -> None:
    cursor = Cursor(taken={"gateway": 5}, need="n", batch="b", attempt=2, requested_at=NOW)
    assert load_cursor(cursor.model_dump_json()) == cursor


def fill(root: Path, writer: str, segments: int) -> None:
    root.mkdir(exist_ok=True)
    with SegmentWriter(root, writer, max_bytes=1, max_age_seconds=60) as appender:
        for number in range(segments):
            appender.append_deliveries([Delivery(f"d{number}", 1, "generic", "application/json", b"{}")])


def test_what_waits_is_found_from_progress_cursor_or_the_folder(tmp_path: Path) -> None:
    landing = tmp_path / "landing"
    fill(landing, "gateway", 3)
    fill(landing, "collector", 2)
    assert positions(landing, {}, {}) == ({"collector": 0, "gateway": 0}, {"collector": 1, "gateway": 1})
    assert positions(landing, {"gateway": 3}, {"collector": 1}) == ({"collector": 1, "gateway": 3}, {"collector": 2})
    assert positions(landing, {"gateway": 2}, {"gateway": 3, "collector": 2})[1] == {"gateway": 3}


def test_positions_of_another_landing_zone_are_not_believed(tmp_path: Path) -> None:
    landing = tmp_path / "landing"
    fill(landing, "gateway", 2)
    assert positions(landing, {"gateway": 900}, {})[1] == {"gateway": 1}
    assert positions(landing, {}, {"gateway": 900})[1] == {"gateway": 1}


def test_a_landing_zone_that_does_not_exist_yet_is_empty(tmp_path: Path) -> None:
    assert positions(tmp_path / "nowhere", {}, {}) == ({}, {})
