"""Entries of event logs: each is delivered, none twice, however a service lists, cuts, clears and dates them."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops_assets.collectors.redfish.logs import (
    FIRST,
    MOST_KNOWN,
    OVERLAP,
    Mark,
    Pages,
    bundle,
    key_of,
    mark_of,
    new_entries,
    read_pages,
)
from aiops_assets.formats import parse
from aiops_assets.formats.batch import Parsed
from aiops_assets.hours import MICROS_PER_SECOND, micros
from aiops_assets.landing.segment import Delivery
from tests.examples import examples

NOW = 1_790_000_000 * MICROS_PER_SECOND
MINUTE = 60 * MICROS_PER_SECOND


def entry(number: int, at: int | None, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"Id": str(number), "Message": f"happened {number}", **more}
    if at is not None:
        made["Created"] = datetime.datetime.fromtimestamp(at // MICROS_PER_SECOND, datetime.UTC).isoformat()
    return made


def ids(entries: list[dict[str, Any]]) -> list[str]:
    return [found["Id"] for found in entries]


def test_first_contact_takes_what_is_recent() -> None:
    log = [entry(1, NOW - FIRST - MINUTE), entry(2, NOW - MINUTE), entry(3, None)]
    fresh, mark = new_entries(None, log, NOW, whole=True)
    assert ids(fresh) == ["2"]
    assert new_entries(mark, log, NOW, whole=True)[0] == []


def test_an_empty_log_and_then_the_first_entry() -> None:
    fresh, mark = new_entries(None, [], NOW, whole=True)
    assert fresh == []
    assert ids(new_entries(mark, [entry(1, NOW)], NOW, whole=True)[0]) == ["1"]


def test_entries_of_one_second_are_all_delivered() -> None:
    _, mark = new_entries(None, [entry(1, NOW)], NOW, whole=True)
    fresh, mark = new_entries(mark, [entry(1, NOW), entry(2, NOW), entry(3, NOW)], NOW, whole=True)
    assert ids(fresh) == ["2", "3"]


def test_a_cleared_log_whose_numbers_begin_anew() -> None:
    _, mark = new_entries(None, [entry(number, NOW - MINUTE) for number in range(1, 9)], NOW, whole=True)
    fresh, mark = new_entries(mark, [entry(1, NOW, Message="log cleared")], NOW, whole=True)
    assert ids(fresh) == ["1"]
    assert new_entries(mark, [entry(1, NOW, Message="log cleared")], NOW, whole=True)[0] == []


def test_a_clock_that_went_back_loses_nothing() -> None:
    _, mark = new_entries(None, [entry(1, NOW)], NOW, whole=True)
    back = NOW - 3 * 365 * 86_400 * MICROS_PER_SECOND
    fresh, mark = new_entries(mark, [entry(1, NOW), entry(2, back), entry(3, 5 * MICROS_PER_SECOND)], NOW, whole=True)
    assert set(ids(fresh)) == {"2", "3"}
    assert new_entries(mark, [entry(1, NOW), entry(2, back), entry(3, 5 * MICROS_PER_SECOND)], NOW, whole=True)[0] == []


def test_a_clock_that_was_ahead_hides_nothing_once_it_is_right() -> None:
    ahead = NOW + 10 * 3600 * MICROS_PER_SECOND
    _, mark = new_entries(None, [entry(1, NOW - MINUTE)], NOW, whole=True)
    fresh, mark = new_entries(mark, [entry(1, NOW - MINUTE), entry(2, ahead)], NOW, whole=True)
    assert ids(fresh) == ["2"]
    later = NOW + 5 * MINUTE
    log = [entry(1, NOW - MINUTE), entry(2, ahead), entry(3, later)]
    assert ids(new_entries(mark, log, later, whole=True)[0]) == ["3"]


def test_a_storm_in_the_log_is_not_delivered_again() -> None:
    log = [entry(number, NOW + number * MICROS_PER_SECOND // 4) for number in range(3 * MOST_KNOWN)]
    _, mark = new_entries(None, log[:1], NOW, whole=True)
    fresh, mark = new_entries(mark, log, NOW + MINUTE, whole=True)
    assert len(fresh) == len(log) - 1
    assert len(mark.known) <= MOST_KNOWN
    assert new_entries(mark, log, NOW + MINUTE, whole=True)[0] == []


def test_a_log_without_any_time_is_not_delivered_for_ever() -> None:
    log = [entry(number, None) for number in range(40)]
    _, mark = new_entries(None, log, NOW, whole=True)
    fresh, mark = new_entries(mark, [*log, entry(40, None)], NOW, whole=True)
    assert ids(fresh) == ["40"]
    huge = [entry(number, None) for number in range(5 * MOST_KNOWN)]
    for _ in range(3):
        fresh, mark = new_entries(mark, huge, NOW, whole=True)
    assert fresh == []


@given(st.builds(Mark, st.integers(0, 2**60), st.integers(0, 2**60), st.text(max_size=16), st.integers(-1, 2**60)))
def test_a_mark_survives_as_json(mark: Mark) -> None:
    assert mark_of(orjson.loads(orjson.dumps(mark.plain()))) == mark


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
    )
)
def test_what_is_no_mark_is_none(plain: Any) -> None:
    assert mark_of(plain) is None


class Log:
    """An event log as a service shows it: in either order, in pages, of limited size."""

    def __init__(self, *, newest_first: bool, page: int, size: int) -> None:
        self.entries: list[dict[str, Any]] = []
        self.newest_first, self.page, self.size = newest_first, page, size
        self.number = 0
        self.asked = 0

    def add(self, at: int) -> str:
        self.number += 1
        made = entry(self.number, at, Message=f"at {at} number {self.number}")
        self.entries = [*self.entries, made][-self.size :]
        return key_of(made)

    def clear(self) -> None:
        self.entries, self.number = [], 0

    def show(self, place: str) -> dict[str, Any]:
        self.asked += 1
        start = int(place.partition("skip=")[2] or 0)
        listed = self.entries[::-1] if self.newest_first else self.entries
        shown: dict[str, Any] = {"Members": listed[start : start + self.page]}
        if start + self.page < len(listed):
            shown["Members@odata.nextLink"] = f"/redfish/v1/log?skip={start + self.page}"
        return shown

    def read(self, mark: Mark | None, now: int) -> tuple[list[dict[str, Any]], Mark]:
        async def page(place: str) -> dict[str, Any]:
            return self.show(place)

        async def single(place: str) -> None:
            raise AssertionError(place)

        async def pages_from(place: str) -> Pages:
            start = place == "/redfish/v1/log"
            return await read_pages(self.show(place), place, mark, page, single, now, from_start=start)

        pages = asyncio.run(pages_from("/redfish/v1/log"))
        entries = pages.entries
        while pages.more and pages.tail is not None:
            pages = asyncio.run(pages_from(pages.tail))
            entries += pages.entries
        return new_entries(mark, entries, now, whole=pages.whole)


@settings(max_examples=examples(100), deadline=None)
@given(
    newest_first=st.booleans(),
    page=st.integers(1, 7),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(1, 12)),
            st.tuples(st.just("clear"), st.just(0)),
            st.tuples(st.just("poll"), st.just(1)),
            st.tuples(st.just("poll, not stored"), st.just(1)),
        ),
        max_size=30,
    ),
)
def test_every_entry_is_delivered_exactly_once_whatever_happens_between_polls(
    newest_first: bool, page: int, steps: list[tuple[str, int]]
) -> None:
    log = Log(newest_first=newest_first, page=page * 10 if newest_first else page, size=400)
    now = NOW
    _, mark = log.read(None, now)
    wanted: list[str] = []
    stored: list[str] = []
    present: list[str] = []
    for step, count in [*steps, ("poll", 1)]:
        now += 20 * MICROS_PER_SECOND
        if step == "add":
            present += [log.add(now + number * MICROS_PER_SECOND // 3) for number in range(count)]
        elif step == "clear":
            log.clear()
            present.clear()
        else:
            fresh, moved = log.read(mark, now)
            if step == "poll":
                mark = moved
                stored += [key_of(found) for found in fresh]
                wanted += [key for key in present if key not in set(wanted)]
    assert sorted(stored) == sorted(wanted)


@pytest.mark.parametrize("newest_first", [True, False])
def test_a_log_that_lists_its_newest_first_is_not_read_to_its_end(newest_first: bool) -> None:
    log = Log(newest_first=newest_first, page=10, size=1000)
    for number in range(300):
        log.add(NOW - (300 - number) * 2 * OVERLAP)
    _, mark = log.read(None, NOW)
    log.add(NOW)
    log.asked = 0
    fresh, _ = log.read(mark, NOW)
    assert len(fresh) == 1
    assert log.asked <= (2 if newest_first else 31)


# --- the format -------------------------------------------------------------------------------------------------------


def parsed(*bodies: bytes) -> Parsed:
    return parse(
        "redfish_log",
        [
            Delivery(f"d{number}", NOW, "redfish", "application/json", body, {"format": "redfish_log"})
            for number, body in enumerate(bodies)
        ],
    )


PATH = "/redfish/v1/Systems/1/LogServices/SEL/Entries"


def test_an_entry_becomes_a_log_event() -> None:
    one = entry(7, NOW - MINUTE, Severity="Critical", SensorType="Temperature", MessageId="E.1", Oem={})
    result = parsed(bundle("web-1", "SEL", PATH, [one], 0))
    assert result.rejects == []
    [row] = result.logs.to_dicts()
    assert (row["host"], row["app"], row["severity_number"], row["body"]) == ("web-1", "SEL", 21, "happened 7")
    assert row["ts"] == NOW - MINUTE
    attributes = orjson.loads(row["attributes"])
    assert attributes["SensorType"] == "Temperature"
    assert attributes["log"] == PATH
    assert "Oem" not in attributes


def test_the_same_entry_has_the_same_identity_in_whatever_delivery() -> None:
    one, other = entry(1, NOW - MINUTE), entry(2, NOW - MINUTE)
    together = parsed(bundle("web-1", "SEL", PATH, [one, other], 0)).logs["event_id"].to_list()
    alone = parsed(bundle("web-1", "SEL", PATH, [other], 0)).logs["event_id"].to_list()
    assert together[1:] == alone
    assert len(set(together)) == 2
    assert parsed(bundle("web-2", "SEL", PATH, [other], 0)).logs["event_id"].to_list() != alone


@pytest.mark.parametrize(
    ("word", "number"), [("OK", 9), ("Warning", 13), ("Critical", 21), ("critical", 21), ("odd", None), (None, None)]
)
def test_severities(word: str | None, number: int | None) -> None:
    result = parsed(bundle("web-1", "SEL", PATH, [entry(1, NOW, Severity=word)], 0))
    assert result.logs["severity_number"].to_list() == [number]


def test_times_of_a_wrong_clock_are_put_right_and_impossible_ones_left_out() -> None:
    year = 365 * 86_400 * MICROS_PER_SECOND
    behind = bundle("web-1", "SEL", PATH, [entry(1, NOW - year - MINUTE)], -year)
    unset = bundle(
        "web-1", "SEL", PATH, [entry(2, 5 * MICROS_PER_SECOND), entry(3, None), entry(4, NOW + 5 * MINUTE)], 0
    )
    zoned = bundle("web-1", "SEL", PATH, [{"Id": "5", "Created": "2026-09-21T16:13:20+06:00", "Message": "m"}], 0)
    assert parsed(behind).logs["ts"].to_list() == [NOW - MINUTE]
    assert parsed(unset).logs["ts"].to_list() == [None, None, None]
    moment = datetime.datetime(2026, 9, 21, 10, 13, 20, tzinfo=datetime.UTC)
    assert parsed(zoned).logs["ts"].to_list() == [micros(moment)]


def test_entries_without_a_message_say_what_they_can() -> None:
    bare = {"Id": "1", "SensorType": "Fan", "EntryCode": "Lower Critical - going low"}
    assert parsed(bundle("a", "SEL", PATH, [bare], 0)).logs["body"].to_list() == ["Fan: Lower Critical - going low"]


def test_what_is_no_log_is_rejected_with_a_reason_and_the_rest_is_kept() -> None:
    result = parsed(b"{}", b"no", b'{"host": "a", "entries": ["x", {"Id": "1", "Message": "m"}]}', b"")
    assert result.logs["body"].to_list() == ["m"]
    assert len(result.rejects) == 4
    assert all(reject.reason for reject in result.rejects)


@settings(max_examples=examples(150), deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["Id", "Created", "Severity", "Message", "EventTimestamp", "MessageId", "Links", "x"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
                max_leaves=5,
            ),
        ),
        max_size=6,
    ),
    st.one_of(st.integers(), st.none(), st.text(max_size=3)),
)
def test_no_content_is_lost_or_raises(entries: list[dict[str, Any]], ahead: Any) -> None:
    import json

    body = json.dumps({"host": "a", "log": "SEL", "path": PATH, "clock_ahead_us": ahead, "entries": entries}).encode()
    result = parsed(body)
    assert result.logs.height + len(result.rejects) >= min(1, len(entries))
    assert result.logs.height <= len(entries)
