"""Walks return what an agent has, or say how they ended."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiops_assets.collectors.snmp.engine import (
    END_OF_MIB,
    INTEGER,
    NO_SUCH_INSTANCE,
    NoReply,
    Oid,
    Refused,
    Reply,
    SnmpError,
    Undecodable,
    Value,
    VarBind,
    oid_text,
    parse_oid,
)
from aiops_assets.collectors.snmp.walk import End, Pace, Walk, walk

GEN_ERR = 5


class Agent:
    """An agent in memory; ``disturb`` sees every request and may answer in the agent's place."""

    def __init__(
        self,
        mib: Mapping[Oid, int | tuple[str, Value]],
        version: str = "2c",
        disturb: Callable[[int, Sequence[Oid], list[VarBind]], Reply | None] | None = None,
    ) -> None:
        self.mib, self.version, self.disturb = mib, version, disturb
        self.names = sorted(mib)
        self.requests = 0

    def successor(self, oid: Oid) -> VarBind | None:
        position = bisect_right(self.names, oid)
        if position == len(self.names):
            return None
        name = self.names[position]
        value = self.mib[name]
        return (name, *value) if isinstance(value, tuple) else (name, INTEGER, value)

    async def get(self, oids: Sequence[Oid]) -> Reply:
        made: list[VarBind] = []
        for index, oid in enumerate(oids, start=1):
            value = self.mib.get(oid)
            if value is None and self.version == "1":
                return self._answer(oids, [], Reply(2, index))
            if value is None:
                made.append((oid, NO_SUCH_INSTANCE, None))
            else:
                made.append((oid, *value) if isinstance(value, tuple) else (oid, INTEGER, value))
        return self._answer(oids, made)

    async def get_next(self, oids: Sequence[Oid]) -> Reply:
        found = [self.successor(oid) for oid in oids]
        if self.version == "1":
            for index, entry in enumerate(found, start=1):
                if entry is None:
                    return self._answer(oids, [], Reply(2, index))
        return self._answer(oids, [e or (oid, END_OF_MIB, None) for e, oid in zip(found, oids, strict=True)])

    async def get_bulk(self, non_repeaters: int, repetitions: int, oids: Sequence[Oid]) -> Reply:
        assert self.version != "1"
        made: list[VarBind] = []
        for oid in oids[:non_repeaters]:
            made.append(self.successor(oid) or (oid, END_OF_MIB, None))
        cursors = list(oids[non_repeaters:])
        for _ in range(repetitions):
            for position, cursor in enumerate(cursors):
                entry = self.successor(cursor) or (cursor, END_OF_MIB, None)
                made.append(entry)
                cursors[position] = entry[0]
        return self._answer(oids, made)

    def _answer(self, oids: Sequence[Oid], varbinds: list[VarBind], reply: Reply | None = None) -> Reply:
        self.requests += 1
        assert self.requests < 5_000, "an endless walk"
        if self.disturb is not None:
            disturbed = self.disturb(self.requests, oids, varbinds)
            if disturbed is not None:
                return disturbed
        return reply or Reply(0, 0, varbinds)

    def close(self) -> None: ...


def fetch(
    agent: Agent, roots: Sequence[Oid], scalars: Sequence[Oid] = (), pace: Pace | None = None, rows: int = 0
) -> Walk:
    task = Walk.of(roots, scalars)
    asyncio.run(walk(agent, task, pace or Pace(), rows))
    return task


A, B, C = (1, 3, 6, 1, 1), (1, 3, 6, 1, 2), (1, 3, 6, 1, 3)
TABLE = {(*root, i): 100 * root[-1] + i for root in (A, B) for i in range(1, 21)} | {(1, 3, 6, 2, 0): 1}

indices = st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple)
mibs = st.dictionaries(
    st.tuples(st.sampled_from([A, B, C]), indices).map(lambda p: p[0] + p[1]), st.integers(), max_size=40
)


@given(mibs, st.integers(1, 60), st.integers(1, 30), st.integers(0, 50), st.sampled_from(["1", "2c"]))
def test_every_row_of_every_column_is_found_once_and_in_order(
    mib: dict[Oid, int], objects: int, repetitions: int, expected: int, version: str
) -> None:
    task = fetch(Agent(mib, version), [A, B, C], [], Pace(objects, repetitions), expected)
    assert task.complete
    for column in task.columns:
        wanted = [(oid[5:], INTEGER, mib[oid]) for oid in sorted(mib) if oid[:5] == column.root]
        assert column.rows == wanted


@given(st.integers(1, 60))
def test_single_objects_come_along_and_missing_ones_stay_empty(objects: int) -> None:
    mib = {(*A, 0): 7, (*C, 0): 9} | {(*B, i): i for i in range(1, 5)}
    task = fetch(Agent(mib), [B], [A, (1, 3, 6, 1, 2, 99), C], Pace(objects, 25))
    assert task.scalars == {A: (INTEGER, 7), (1, 3, 6, 1, 2, 99): None, C: (INTEGER, 9)}
    assert len(task.columns[0].rows) == 4


def test_version_1_learns_the_end_of_the_mib_from_no_such_name() -> None:
    task = fetch(Agent({(*A, 1): 1, (*A, 2): 2}, "1"), [A, B], [C])
    assert task.complete
    assert task.scalars == {C: None}
    assert [len(column.rows) for column in task.columns] == [2, 0]


def test_names_that_do_not_increase_end_the_column_and_are_told() -> None:
    def back(number: int, oids: Sequence[Oid], varbinds: list[VarBind]) -> Reply | None:
        return Reply(0, 0, [((*A, 3), INTEGER, 1), ((*A, 9), INTEGER, 1), ((*A, 4), INTEGER, 1)])

    task = fetch(Agent(TABLE, disturb=back), [A])
    assert task.columns[0].end is End.NOT_INCREASING
    assert [row[0] for row in task.columns[0].rows] == [(3,), (9,)]
    assert "1.3.6.1.1.4 came" in task.columns[0].explain()


def test_an_agent_that_repeats_itself_for_ever_is_left() -> None:
    def again(number: int, oids: Sequence[Oid], varbinds: list[VarBind]) -> Reply | None:
        return Reply(0, 0, [((*A, 3), INTEGER, 1)] * 5)

    task = fetch(Agent(TABLE, disturb=again), [A])
    assert task.columns[0].end is End.NOT_INCREASING
    assert len(task.columns[0].rows) == 1


def test_an_object_that_appears_twice_is_kept_once_and_the_walk_goes_on() -> None:
    def twice(number: int, oids: Sequence[Oid], varbinds: list[VarBind]) -> Reply | None:
        return Reply(0, 0, [*varbinds[:2], varbinds[1], *varbinds[2:]]) if number == 1 else None

    task = fetch(Agent(TABLE, disturb=twice), [A], pace=Pace(5, 5))
    assert task.complete
    assert len(task.columns[0].rows) == 20
    assert task.columns[0].duplicates == 1


def test_an_error_in_the_middle_keeps_the_rows_before_it_and_is_told() -> None:
    def broken(number: int, oids: Sequence[Oid], varbinds: list[VarBind]) -> Reply | None:
        return Reply(GEN_ERR, 1) if any(name == (*A, 13) for name, _, _ in varbinds) else None

    task = fetch(Agent(TABLE, disturb=broken), [A])
    assert [row[0] for row in task.columns[0].rows] == [(i,) for i in range(1, 13)]
    assert task.columns[0].end is End.ERROR
    assert "genErr" in task.columns[0].explain()


def test_an_error_of_one_column_leaves_the_others_whole() -> None:
    def broken(number: int, oids: Sequence[Oid], varbinds: list[VarBind]) -> Reply | None:
        bad = [name for name, _, _ in varbinds if name == (*A, 5)]
        return Reply(GEN_ERR, 0) if bad else None

    task = fetch(Agent(TABLE, disturb=broken), [A, B])
    assert [len(column.rows) for column in task.columns] == [4, 20]
    assert [column.end for column in task.columns] == [End.ERROR, End.COMPLETE]


@pytest.mark.parametrize("limit", [1, 3, 17])
def test_too_big_is_answered_by_asking_for_less(limit: int) -> None:
    def small(number: int, oids: Sequence[Oid], varbinds: list[VarBind]) -> Reply | None:
        return Reply(1, 0) if len(varbinds) > limit else None

    pace = Pace(60, 25)
    task = fetch(Agent(TABLE, disturb=small), [A, B], pace=pace)
    assert task.complete
    assert [len(column.rows) for column in task.columns] == [20, 20]
    assert pace.objects <= max(limit, 1)


def test_replies_that_cannot_be_decoded_are_asked_for_in_smaller_pieces() -> None:
    def damaged(number: int, oids: Sequence[Oid], varbinds: list[VarBind]) -> Reply | None:
        if len(varbinds) > 8:
            raise Undecodable("cut")
        return None

    task = fetch(Agent(TABLE, disturb=damaged), [A, B])
    assert task.complete
    assert [len(column.rows) for column in task.columns] == [20, 20]


def test_a_reply_lost_for_good_is_told_with_the_rows_before_it() -> None:
    def lost(number: int, oids: Sequence[Oid], varbinds: list[VarBind]) -> Reply | None:
        if number > 2:
            raise NoReply("no reply")
        return None

    task = fetch(Agent(TABLE, disturb=lost), [A], pace=Pace(5, 5))
    assert task.columns[0].end is End.LOST
    assert len(task.columns[0].rows) == 10


def test_a_device_that_never_answers_raises() -> None:
    def lost(number: int, oids: Sequence[Oid], varbinds: list[VarBind]) -> Reply | None:
        raise NoReply("no reply")

    with pytest.raises(NoReply):
        fetch(Agent(TABLE, disturb=lost), [A])


def test_a_refusal_in_the_middle_is_told() -> None:
    def refuse(number: int, oids: Sequence[Oid], varbinds: list[VarBind]) -> Reply | None:
        if number > 1:
            raise Refused("wrong digest")
        return None

    task = fetch(Agent(TABLE, disturb=refuse), [A], pace=Pace(5, 5))
    assert task.columns[0].end is End.FAILED
    assert "wrong digest" in task.columns[0].explain()


def test_an_empty_reply_is_an_error_and_not_the_end() -> None:
    task = fetch(Agent(TABLE, disturb=lambda *_: Reply(0, 0, [])), [A])
    assert task.columns[0].end is End.ERROR


def test_truncated_replies_are_continued() -> None:
    def short(number: int, oids: Sequence[Oid], varbinds: list[VarBind]) -> Reply | None:
        return Reply(0, 0, varbinds[:3])

    task = fetch(Agent(TABLE, disturb=short), [A, B], [(1, 3, 6, 2)])
    assert task.complete
    assert [len(column.rows) for column in task.columns] == [20, 20]
    assert task.scalars == {(1, 3, 6, 2): (INTEGER, 1)}


class Chaos(Agent):
    """Errors, losses and damage from a list of random numbers."""

    def __init__(self, mib: dict[Oid, int], dice: list[int], version: str) -> None:
        super().__init__(mib, version, self._roll)
        self._dice = dice

    def _roll(self, number: int, oids: Sequence[Oid], varbinds: list[VarBind]) -> Reply | None:
        die = self._dice[number % len(self._dice)]
        if die == 1:
            raise NoReply("lost")
        if die == 2:
            raise Undecodable("damaged")
        if die == 3:
            return Reply(GEN_ERR, number % 3)
        if die == 4:
            return Reply(1, 0)
        if die == 5:
            return Reply(0, 0, varbinds[: len(varbinds) // 2])
        if die == 6:
            return Reply(0, 0, list(reversed(varbinds)))
        if die == 7:
            raise SnmpError("something else")
        return None


@given(st.lists(st.integers(0, 14), min_size=1, max_size=30), st.sampled_from(["1", "2c"]))
def test_whatever_happens_a_walk_ends_and_is_complete_only_with_all_rows(dice: list[int], version: str) -> None:
    task = Walk.of([A, B])
    agent = Chaos(TABLE, dice, version)
    try:
        asyncio.run(walk(agent, task, Pace(10, 5)))
    except SnmpError:
        return
    for column in task.columns:
        assert column.end is not End.UNFINISHED
        rows = [(*column.root, *index) for index, _, _ in column.rows]
        assert rows == sorted(set(rows))
        if column.end is End.COMPLETE and 6 not in dice:
            assert len(rows) == 20


@pytest.mark.parametrize("text", ["", "1", "1.3.x", "1..3", "-1.2"])
def test_what_is_no_object_identifier_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="object identifier"):
        parse_oid(text)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=2).map(tuple))
def test_object_identifiers_survive_their_text(oid: Oid) -> None:
    assert parse_oid(oid_text(oid)) == oid
