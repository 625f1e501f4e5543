"""Walking columns of an agent's tables so that nothing ends short in silence.

What belongs here: the loop over GetBulk (GetNext for version 1), its checks and its account of how each column ended.
What does not: what the values mean (``profile``) and how they travel (``engine``). Rules after RFC 3416, section 4.2:
names must increase; a column ends where names leave it; an error of the agent, a lost reply or a damaged one is an end
of its own kind, with the rows up to it kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from aiops_assets.collectors.snmp.engine import (
    ABSENT,
    END_OF_MIB,
    NO_ERROR,
    NO_SUCH_NAME,
    TOO_BIG,
    NoReply,
    Oid,
    Reply,
    Session,
    SnmpError,
    Undecodable,
    Value,
    VarBind,
    oid_text,
    status_name,
)

#: objects of one column beyond this are not fetched, and the walk says so
MOST_ROWS = 10_000
#: names in one request; agents may refuse more
MOST_NAMES = 60
_ENTERPRISES: Oid = (1, 3, 6, 1, 4, 1)


class End(StrEnum):
    """How a column ended. Only ``complete`` means that all its rows are there."""

    COMPLETE = "complete"
    NOT_INCREASING = "names do not increase"
    ERROR = "error from the agent"
    LOST = "no reply"
    DAMAGED = "reply cannot be decoded"
    FAILED = "request failed"
    LIMIT = "too many rows"
    UNFINISHED = "not finished"


@dataclass(slots=True)
class Pace:
    """How much is asked for at once from one device: ``objects`` a reply at most, halved when the agent cannot."""

    most: int = 60
    repetitions: int = 25
    objects: int = 0

    def __post_init__(self) -> None:
        self.objects = self.objects or self.most

    def halve(self) -> bool:
        """Ask for half; ``False`` when it is one object already."""
        if self.objects <= 1:
            return False
        self.objects = max(1, self.objects // 2)
        return True

    def restore(self) -> None:
        """Try the full amount again."""
        self.objects = self.most


@dataclass(slots=True)
class Column:
    """One column's rows: (index, type, value) in the agent's order, and how the walk of it ended."""

    root: Oid
    rows: list[tuple[Oid, str, Value]] = field(default_factory=list)
    end: End = End.UNFINISHED
    detail: str = ""
    cursor: Oid = ()
    duplicates: int = 0
    #: ask for single rows from here on, since a larger request met an error
    singly: bool = False

    def __post_init__(self) -> None:
        self.cursor = self.cursor or self.root

    def finish(self, end: End, detail: str = "") -> None:
        self.end, self.detail = end, detail

    def explain(self) -> str:
        """One line for people."""
        at = f" after {oid_text(self.cursor)}" if self.end is not End.COMPLETE else ""
        return (
            f"{oid_text(self.root)}: {self.end}{at}{': ' + self.detail if self.detail else ''} ({len(self.rows)} rows)"
        )


@dataclass(slots=True)
class Walk:
    """Columns and single objects fetched together. It is filled while it runs, so a cut walk keeps what came."""

    columns: list[Column]
    scalars: dict[Oid, tuple[str, Value] | None] = field(default_factory=dict)
    requests: int = 0
    replies: int = 0
    objects: int = 0

    @classmethod
    def of(cls, roots: Sequence[Oid], scalars: Sequence[Oid] = ()) -> Walk:
        return cls([Column(root) for root in roots], dict.fromkeys(scalars))

    @property
    def complete(self) -> bool:
        return all(column.end is End.COMPLETE for column in self.columns)

    @property
    def faults(self) -> list[Column]:
        """The columns that may lack rows."""
        return [column for column in self.columns if column.end is not End.COMPLETE]


async def walk(session: Session, task: Walk, pace: Pace, rows_expected: int = 0, alive: bool = False) -> None:
    """Fill ``task``. ``rows_expected`` (0: unknown) keeps the first requests from asking for much more than there is.

    Raises:
        SnmpError: when the very first request already fails, unless ``alive`` says that the device has just answered.
    """
    singles = list(task.scalars)
    bulk = session.version != "1"
    expected = rows_expected
    lost_before = False
    while True:
        active = [column for column in task.columns if column.end is End.UNFINISHED]
        if not active and not singles:
            return
        asked, columns, repetitions = _next_request(singles, active, pace, expected, bulk)
        names = [*asked, *(column.cursor for column in columns)]
        task.requests += 1
        try:
            if bulk and columns:
                reply = await session.get_bulk(len(asked), repetitions, names)
            else:
                reply = await session.get_next(names)
        except (NoReply, Undecodable) as error:
            # Large replies get lost or damaged on the way where small ones pass.
            damaged = isinstance(error, Undecodable)
            if task.replies == 0 and not damaged and not alive:
                raise
            if (damaged or not lost_before) and len(columns) * repetitions + len(asked) > 1 and pace.halve():
                lost_before = True
                continue
            if task.replies == 0 and not alive:
                raise
            _end_all(active, End.DAMAGED if damaged else End.LOST, str(error))
            return
        except SnmpError as error:
            if task.replies == 0 and not alive:
                raise
            _end_all(active, End.FAILED, str(error))
            return
        task.replies += 1
        if reply.status != NO_ERROR:
            _error(reply, task, singles, asked, columns, repetitions, pace)
            continue
        lost_before = False
        task.objects += len(reply.varbinds)
        if not reply.varbinds:
            if asked:
                singles = singles[len(asked) :]
            _end_all(columns, End.ERROR, "empty reply")
            continue
        answered = asked[: len(reply.varbinds)]
        for name, (oid, kind, value) in zip(answered, reply.varbinds, strict=False):
            if oid == (*name, 0) and kind not in ABSENT:
                task.scalars[name] = (kind, value)
        singles = singles[len(answered) :]
        got = _accept(columns, reply.varbinds[len(asked) :])
        expected = max(0, expected - got) if rows_expected else 0


def _next_request(
    singles: list[Oid], active: list[Column], pace: Pace, expected: int, bulk: bool
) -> tuple[list[Oid], list[Column], int]:
    room = min(pace.objects, MOST_NAMES)
    asked = singles[:room]
    room -= len(asked)
    careful = [column for column in active if column.singly]
    if careful and not asked:
        return [], careful[:1], 1
    columns = [column for column in active if not column.singly][: max(room, 0 if asked else 1)]
    if not columns or not bulk:
        return asked, columns, 1
    repetitions = max(1, min(pace.repetitions, (pace.objects - len(asked)) // len(columns)))
    if expected:
        repetitions = min(repetitions, expected + 1)
    return asked, columns, repetitions


def _accept(columns: list[Column], varbinds: Sequence[VarBind]) -> int:
    """Take a reply's objects, row by row, into their columns; returns the number of rows it held."""
    width = len(columns)
    progress: set[int] = set()
    for position, (oid, kind, value) in enumerate(varbinds):
        column = columns[position % width]
        if column.end is not End.UNFINISHED:
            continue
        if kind in ABSENT:
            whole = kind == END_OF_MIB or not column.rows
            column.finish(End.COMPLETE if whole else End.ERROR, "" if whole else f"{kind} in a walk")
        elif oid <= column.cursor:
            if oid == column.cursor and column.rows:
                column.duplicates += 1
                continue
            column.finish(End.NOT_INCREASING, f"{oid_text(oid)} came")
        elif oid[: len(column.root)] != column.root:
            column.finish(End.COMPLETE)
        elif len(column.rows) >= MOST_ROWS:
            column.finish(End.LIMIT, f"more than {MOST_ROWS}")
        else:
            column.rows.append((oid[len(column.root) :], kind, value))
            column.cursor = oid
            progress.add(position % width)
    for position, column in enumerate(columns[: len(varbinds)]):
        if column.end is End.UNFINISHED and position not in progress:
            column.finish(End.NOT_INCREASING, "the same object again")
    return -(-len(varbinds) // width) if width else 0


def _error(
    reply: Reply,
    task: Walk,
    singles: list[Oid],
    asked: list[Oid],
    columns: list[Column],
    repetitions: int,
    pace: Pace,
) -> None:
    """Act on an error-status: ask for less, leave out what it is about, or end that column and say so."""
    name = status_name(reply.status)
    count = len(asked) + len(columns)
    if reply.status == TOO_BIG and (count > 1 or repetitions > 1) and pace.halve():
        return
    blamed = reply.index - 1 if 1 <= reply.index <= count else None
    if blamed is None and count == 1:
        blamed = 0
    if blamed is None:
        # The agent does not say which object it is about: ask for each one alone.
        if columns:
            for column in columns:
                column.singly = True
            if not asked:
                return
        pace.objects = 1
        return
    if blamed < len(asked):
        # A single object that cannot be read is absent.
        singles.remove(asked[blamed])
        return
    column = columns[blamed - len(asked)]
    if reply.status == NO_SUCH_NAME:
        # Version 1 has no other way to say that the end of the MIB is reached.
        column.finish(End.COMPLETE)
    elif repetitions > 1:
        column.singly = True
    else:
        column.finish(End.ERROR, name)


def _end_all(columns: Sequence[Column], end: End, detail: str) -> None:
    for column in columns:
        if column.end is End.UNFINISHED:
            column.finish(end, detail)


async def enterprises(session: Session, most: int) -> list[int]:
    """The numbers of the enterprise subtrees that an agent answers in, found by leaping from each to the next.

    At most ``most`` requests; an agent that does not go forward ends it.

    Raises:
        SnmpError: when a request comes to nothing.
    """
    found: list[int] = []
    cursor: Oid = _ENTERPRISES
    for _ in range(most):
        reply = await session.get_next([cursor])
        if reply.status != NO_ERROR or not reply.varbinds:
            break
        oid, kind, _value = reply.varbinds[0]
        if kind in ABSENT or len(oid) < 8 or oid[:6] != _ENTERPRISES or (found and oid[6] <= found[-1]):
            break
        found.append(oid[6])
        cursor = (*_ENTERPRISES, oid[6] + 1)
    return found


async def fetch(session: Session, names: Sequence[Oid], pace: Pace, task: Walk) -> dict[Oid, tuple[str, Value]]:
    """The values of exactly these objects, many a request; what the agent does not have is left out.

    ``task`` takes the account of requests, replies and objects. The agent's refusals are acted on as in ``walk``: less
    is asked for at once, and an object that an error is about is left out.

    Raises:
        SnmpError: when a request comes to nothing however small it is.
    """
    found: dict[Oid, tuple[str, Value]] = {}
    left = list(names)
    alone: list[Oid] = []
    while left or alone:
        asked = left[: min(pace.objects, MOST_NAMES)] if left else alone[:1]
        task.requests += 1
        try:
            reply = await session.get(asked)
        except (NoReply, Undecodable):
            if len(asked) > 1 and pace.halve():
                continue
            raise
        task.replies += 1
        if reply.status == NO_ERROR:
            task.objects += len(reply.varbinds)
            wanted = set(asked)
            for oid, kind, value in reply.varbinds:
                if oid in wanted and kind not in ABSENT:
                    found[oid] = (kind, value)
        elif len(asked) > 1:
            if reply.status == TOO_BIG and pace.halve():
                continue
            if 1 <= reply.index <= len(asked):
                left.pop(reply.index - 1)
                continue
            # The agent does not say which object it is about: ask for each one alone.
            alone.extend(asked)
        if left:
            left = left[len(asked) :]
        else:
            alone = alone[1:]
    return found
