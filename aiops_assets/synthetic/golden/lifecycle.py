"""The life of tickets: from what was drawn of each to everything that happened to it, seen at one instant.

What belongs here: which events a ticket has, when each lies (in working time where people do it), who acts, and the
fields that follow from them. What does not: the words of the entries (``telling``). Instants are int64 microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import polars as pl
from numpy.typing import NDArray

from aiops_assets.hours import MICROS_PER_SECOND, micros
from aiops_assets.synthetic.golden.calendars import Calendars, local_midnight_after
from aiops_assets.synthetic.golden.config import GoldenConfig
from aiops_assets.synthetic.golden.draws import Draws, Floats, Ints

Bools = NDArray[np.bool_]
#: who confirms a solution does so within four days; what is closed later, the closing job closed
CONFIRMED_WITHIN = 4 * 86_400 * MICROS_PER_SECOND
_NEIGHBOURS = 3
_LATE = np.iinfo(np.int64).max


class Kind(IntEnum):
    """What happens to a ticket, in the order in which events of the same second are told."""

    OPENED = 0
    TRIAGED = 1
    ACCEPTED = 2
    MOVED = 3
    EXAMINED = 4
    ASKED = 5
    ANSWERED = 6
    VENDOR_ASKED = 7
    CHASED = 8
    VENDOR_ANSWERED = 9
    PROGRESS = 10
    BREACHED = 11
    FIRST_SOLVED = 12
    REOPENED = 13
    SOLVED = 14
    CONFIRMED = 15
    AUTO_CLOSED = 16


@dataclass(frozen=True)
class Events:
    """What happened until the ticket is seen, ordered by ticket and time."""

    row: Ints
    at: Ints
    kind: Ints
    ordinal: Ints  # which of several of its kind
    counts: Ints  # events a ticket


@dataclass(frozen=True)
class Life:
    """Fields of tickets at the instant at which they are seen; times are ``_LATE`` (see ``seen``) where null."""

    events: Events
    opened: Ints
    responded: Ints
    resolved: Ints
    reopened: Ints
    closed: Ints
    waiting: Bools
    response_due: Ints
    resolution_due: Ints
    made_sla: Bools
    moves: Ints
    reopenings: Ints
    chain: Ints  # [n × most moves + 1], groups in order; the final one stands at the ticket's number of moves
    all_moves: Ints
    updates: Ints

    @property
    def state(self) -> Ints:
        """Position in ``record.STATES``."""
        made = np.where(self.responded < _LATE, 1, 0)
        made = np.where(self.waiting, 2, made)
        made = np.where(self.resolved < _LATE, 3, made)
        return np.where(self.closed < _LATE, 4, made)

    @property
    def group(self) -> Ints:
        """Position of the present group in ``chain``'s vocabulary."""
        return np.asarray(self.chain[np.arange(len(self.moves)), self.moves])


def instants(values: Ints) -> pl.Series:
    """Instants as a column, null where they are later than the ticket is seen."""
    made = pl.Series(values).cast(pl.Datetime("us", "UTC"))
    late = pl.Series(values == _LATE)
    return pl.select(pl.when(~late).then(made)).to_series() if late.any() else made


class Clock:
    """Instants by share of a working span, for tickets of one chunk."""

    def __init__(self, calendars: Calendars, which: Ints, begin: Ints, end: Ints) -> None:
        self._calendars, self._which, self._begin, self._end = calendars, which, begin, end
        self._from = calendars.position(begin, which)
        self._worked = calendars.position(end, which) - self._from
        # Where hardly any working time lies between, people worked outside it: the clock on the wall counts.
        self._by_wall = self._worked < 0.5 * np.minimum((end - begin) / MICROS_PER_SECOND, 3_600.0)

    def at(self, rows: Ints, share: Floats) -> Ints:
        """Whole seconds from ``begin`` to ``end``."""
        begin, end, which = self._begin[rows], self._end[rows], self._which[rows]
        worked = self._calendars.instant(self._from[rows] + share * self._worked[rows], which)
        wall = begin + ((end - begin) * share).astype(np.int64)
        made = np.where(self._by_wall[rows], wall, worked)
        made = -(-made // MICROS_PER_SECOND) * MICROS_PER_SECOND
        return np.asarray(np.clip(made, begin, end))


@dataclass(frozen=True)
class People:
    """Who may act, as positions: groups of a vocabulary, of which one is the service desk."""

    groups: int
    desk: int
    by_desk: Bools  # [n] whether the final group is the desk
    final: Ints  # [n] position of the final group
    monitoring: Bools  # [n]


def live(
    frame: pl.DataFrame, draws: Draws, config: GoldenConfig, calendars: Calendars, place: Ints, people: People
) -> Life:
    """The lives of tickets.

    Args:
        frame: of ``SKELETON_SCHEMA``.
        place: position of each ticket's location in the configuration (its calendar).
    """
    seen = micros(config.seen_at)
    count = frame.height
    every = np.arange(count)
    opened = frame["opened_at"].dt.epoch("us").to_numpy()
    priority = frame["priority"].to_numpy()
    sla = _promises(config)
    always = sla.always[np.clip(priority, 0, 5)]
    which = np.where(always, calendars.always, place)
    responded = opened + _micros(frame["response_seconds"])
    solved = frame["resolve_seconds"].is_not_null().to_numpy()
    resolved = np.where(solved, opened + _micros(frame["resolve_seconds"]), _LATE)
    # A ticket that is never solved is worked on until somebody looks at it, and beyond.
    until = np.where(solved, resolved, np.maximum(np.int64(seen), responded) + 86_400 * MICROS_PER_SECOND)
    responded = np.minimum(responded, until)
    closed = np.where(
        solved & frame["close_seconds"].is_not_null().to_numpy(),
        np.where(solved, resolved, 0) + _micros(frame["close_seconds"]),
        _LATE,
    )
    moves = frame["reassignment_count"].to_numpy().astype(np.int64)
    reopenings = frame["reopen_count"].to_numpy().astype(np.int64)
    clock = Clock(calendars, which, responded, until)
    worked = calendars.position(until, which) - calendars.position(responded, which)
    half = np.where(reopenings > 0, 0.5, 1.0)

    chain = _chain(draws, people, moves)
    flags = _flags(
        chain[:, 0] != people.desk,
        frame,
        draws,
        config,
        people,
        worked,
        moves,
        reopenings,
        opened,
        responded,
        solved,
        closed,
    )
    share = {
        Kind.EXAMINED: half * draws_between(draws, "examined", 0.41, 0.44),
        Kind.ASKED: half * draws_between(draws, "asked", 0.45, 0.5),
        Kind.ANSWERED: half * draws_between(draws, "answered", 0.52, 0.62),
        Kind.VENDOR_ASKED: half * draws_between(draws, "vendor", 0.63, 0.67),
        Kind.CHASED: half * draws_between(draws, "chased", 0.7, 0.8),
        Kind.VENDOR_ANSWERED: half * draws_between(draws, "vendor:back", 0.82, 0.9),
        Kind.PROGRESS: half * draws_between(draws, "progress", 0.91, 0.95),
    }
    rows: list[Ints] = []
    ats: list[Ints] = []
    kinds: list[Ints] = []
    ordinals: list[Ints] = []

    def add(kind: Kind, row: Ints, at: Ints, ordinal: Ints | None = None) -> None:
        rows.append(row)
        ats.append(at)
        kinds.append(np.full(len(row), int(kind)))
        ordinals.append(np.zeros(len(row), np.int64) if ordinal is None else ordinal)

    times = {kind: clock.at(every, part) for kind, part in share.items() if flags[kind].any()}
    for kind, at in times.items():
        row = np.flatnonzero(flags[kind])
        add(kind, row, at[row])
    add(Kind.OPENED, every, opened)
    row = np.flatnonzero(flags[Kind.TRIAGED])
    before = Clock(calendars, which[row], opened[row], responded[row])
    add(Kind.TRIAGED, row, before.at(np.arange(len(row)), draws.uniform("triaged:at")[row] * 0.7 + 0.05))
    row = np.flatnonzero(flags[Kind.ACCEPTED])
    add(Kind.ACCEPTED, row, responded[row])

    row, ordinal = _repeated(moves)
    jitter = Draws(draws.seed, _address(frame, row, ordinal)).uniform("moved:at")
    moved = clock.at(row, half[row] * (0.04 + 0.36 * (ordinal + 0.8 * jitter + 0.1) / np.maximum(moves[row], 1)))
    add(Kind.MOVED, row, moved, ordinal)
    row_again, ordinal_again = _repeated(reopenings)
    jitter = Draws(draws.seed, _address(frame, row_again, ordinal_again)).uniform("reopened:at")
    width = 0.44 / np.maximum(reopenings[row_again], 1)
    first = 0.52 + width * ordinal_again
    provisional = clock.at(row_again, first + width * (0.05 + 0.25 * jitter))
    back = clock.at(row_again, first + width * (0.45 + 0.4 * jitter))
    add(Kind.FIRST_SOLVED, row_again, provisional, ordinal_again)
    add(Kind.REOPENED, row_again, back, ordinal_again)
    row = np.flatnonzero(solved)
    add(Kind.SOLVED, row, resolved[row])

    due_response = calendars.later(opened, sla.response[np.clip(priority, 0, 5)], which)
    due = _resolution_due(calendars, which, opened, sla.resolution[np.clip(priority, 0, 5)], flags, times, seen)
    given = frame["made_sla"]
    due = _agreeing(due, given, opened, resolved)
    add_breach = flags[Kind.BREACHED] & (due > opened) & (due < until)
    row = np.flatnonzero(add_breach)
    add(Kind.BREACHED, row, due[row])
    automatic = _automatic(config, resolved, closed)
    row = np.flatnonzero((closed < _LATE) & automatic)
    add(Kind.AUTO_CLOSED, row, closed[row])
    row = np.flatnonzero((closed < _LATE) & ~automatic)
    add(Kind.CONFIRMED, row, closed[row])

    events = _ordered(rows, ats, kinds, ordinals, count, seen)
    visible_moves = _counted(events, Kind.MOVED, count)
    visible_reopenings = _counted(events, Kind.REOPENED, count)
    now_resolved, reopened = _standing(events, count)
    now_closed = np.where(closed <= seen, closed, _LATE)
    waiting = _waiting(flags, times, seen) & (now_resolved == _LATE)
    final = np.where(now_resolved < _LATE, now_resolved, np.int64(seen))
    entries = events.counts - 1
    extra = draws.below("updates", 3) if frame["update_count"].null_count() == count else np.zeros(count, np.int64)
    wanted = frame["update_count"].fill_null(0).to_numpy().astype(np.int64)
    return Life(
        events=events,
        opened=opened,
        responded=np.where(responded <= seen, responded, _LATE),
        resolved=now_resolved,
        reopened=reopened,
        closed=now_closed,
        waiting=waiting,
        response_due=due_response,
        resolution_due=due,
        made_sla=final <= due,
        moves=visible_moves,
        reopenings=visible_reopenings,
        chain=chain,
        all_moves=moves,
        updates=np.maximum(np.where(now_closed < _LATE, wanted, 0), entries + np.where(entries > 0, extra, 0)),
    )


def draws_between(draws: Draws, field: str, low: float, high: float) -> Floats:
    """Uniform between two bounds."""
    return low + (high - low) * draws.uniform(field)


def _micros(seconds: pl.Series) -> Ints:
    values = np.nan_to_num(seconds.fill_null(0.0).to_numpy().astype(np.float64), nan=0.0)
    return np.asarray(np.maximum(np.round(values), 0).astype(np.int64) * MICROS_PER_SECOND)


@dataclass(frozen=True)
class _Promises:
    response: Floats
    resolution: Floats
    always: Bools


def _promises(config: GoldenConfig) -> _Promises:
    """SLA by priority 0 … 5; a priority without one has that of the nearest."""
    nearest = [config.sla[min(config.sla, key=lambda known: abs(known - level))] for level in range(6)]
    return _Promises(
        np.array([entry.response for entry in nearest]),
        np.array([entry.resolution for entry in nearest]),
        np.array([entry.around_the_clock for entry in nearest]),
    )


def _address(frame: pl.DataFrame, row: Ints, ordinal: Ints) -> Ints:
    """A number of its own for each of a ticket's events of one kind."""
    return np.asarray(frame["index"].to_numpy()[row] * 64 + ordinal)


def _repeated(counts: Ints) -> tuple[Ints, Ints]:
    """(row, ordinal) of each of so many events a row."""
    row = np.repeat(np.arange(len(counts)), counts)
    first = np.cumsum(counts) - counts
    return row, np.arange(len(row)) - np.repeat(first, counts)


def _flags(
    elsewhere: Bools,
    frame: pl.DataFrame,
    draws: Draws,
    config: GoldenConfig,
    people: People,
    worked: Floats,
    moves: Ints,
    reopenings: Ints,
    opened: Ints,
    responded: Ints,
    solved: Bools,
    closed: Ints,
) -> Mapping[Kind, Bools]:
    """Which of the events that need not be happen; fewer where a number of updates is given."""
    rates = config.rates
    person = ~people.monitoring
    long_enough = worked > 1_500
    # The longer it took, the more probably somebody was waited for; the mean stays about that of the rates.
    tendency = np.clip(0.55 + 0.3 * np.log10(np.maximum(worked, 60.0) / 3_600.0), 0.0, 2.2)
    wait_user = draws.happens("wait:user", np.clip(rates.waiting_user * tendency * 1.5, 0, 1))
    wait_vendor = draws.happens("wait:vendor", np.clip(rates.waiting_vendor * tendency * 1.5, 0, 1))
    vendor = wait_vendor & (worked > 7_200)
    asked = wait_user & long_enough & person
    wanted: dict[Kind, tuple[Bools, int]] = {
        Kind.TRIAGED: (elsewhere & (responded - opened > 60 * MICROS_PER_SECOND), 1),
        Kind.ACCEPTED: ((worked > 420) | (moves > 0), 1),
        Kind.EXAMINED: ((worked > 900) & draws.happens("examined:is", 0.75), 1),
        Kind.ASKED: (asked, 2),
        Kind.VENDOR_ASKED: (vendor, 2),
        Kind.PROGRESS: ((worked > 6 * 3_600) & draws.happens("progress:is", 0.5), 1),
        Kind.CHASED: ((worked > 8 * 3_600) & person & draws.happens("chased:is", 0.3), 1),
        Kind.BREACHED: (np.ones(frame.height, np.bool_), 1),
    }
    budget = frame["update_count"].cast(pl.Float64).fill_null(np.inf).to_numpy()
    budget = budget - moves - 2 * reopenings - solved - (closed < _LATE)
    made: dict[Kind, Bools] = {}
    for kind, (flag, cost) in wanted.items():
        affordable = flag & (budget >= cost)
        budget = budget - cost * affordable
        made[kind] = affordable
    made[Kind.ANSWERED] = made[Kind.ASKED]
    made[Kind.VENDOR_ANSWERED] = made[Kind.VENDOR_ASKED]
    return made


def _resolution_due(
    calendars: Calendars,
    which: Ints,
    opened: Ints,
    seconds: Floats,
    flags: Mapping[Kind, Bools],
    times: Mapping[Kind, Ints],
    seen: int,
) -> Ints:
    """When it has to be resolved; the clock of the SLA stands still while somebody else is waited for."""
    due = calendars.later(opened, seconds, which)
    for begin, end in ((Kind.ASKED, Kind.ANSWERED), (Kind.VENDOR_ASKED, Kind.VENDOR_ANSWERED)):
        if begin not in times:
            continue
        row = np.flatnonzero(flags[begin] & (times[begin] < due) & (times[begin] < seen))
        held_from, held_until = times[begin][row], np.minimum(times[end][row], seen)
        held = calendars.position(held_until, which[row]) - calendars.position(held_from, which[row])
        due[row] = calendars.later(due[row], held, which[row])
    return due


def _agreeing(due: Ints, given: pl.Series, opened: Ints, resolved: Ints) -> Ints:
    """Moves what is due to where it agrees with a given verdict: a reference's own promises are not known."""
    if given.null_count() == len(given):
        return due
    made = given.fill_null(False).to_numpy()
    known = given.is_not_null().to_numpy() & (resolved < _LATE)
    taken = np.where(resolved < _LATE, resolved - opened, 0)
    later = resolved + np.maximum(taken // 10, 60 * MICROS_PER_SECOND)
    earlier = opened + taken * 4 // 5
    due = np.where(known & made & (due < resolved), np.where(resolved < _LATE, later, due), due)
    return np.where(known & ~made & (due >= resolved) & (taken > 0), earlier, due)


def _automatic(config: GoldenConfig, resolved: Ints, closed: Ints) -> Bools:
    """Whether the closing job closed it: at its time of day, or much later than people confirm."""
    known = closed < _LATE
    if not known.any():
        return known
    some = np.where(known, closed, np.int64(micros(config.end)))
    late = some - np.where(known, resolved, some) >= CONFIRMED_WITHIN
    return np.asarray(known & (when_the_job_runs(config, some) | late))


def when_the_job_runs(config: GoldenConfig, at: Ints) -> Bools:
    """Whether instants lie within the five minutes that the closing job takes."""
    begun = local_midnight_after(at - 300 * MICROS_PER_SECOND, config.locations[0].time_zone, config.closing.at)
    return np.asarray(begun <= at)


def _ordered(
    rows: list[Ints], ats: list[Ints], kinds: list[Ints], ordinals: list[Ints], count: int, seen: int
) -> Events:
    row, at, kind, ordinal = (np.concatenate(parts) for parts in (rows, ats, kinds, ordinals))
    kept = np.flatnonzero(at <= seen)
    order = kept[np.lexsort((ordinal[kept], kind[kept], at[kept], row[kept]))]
    return Events(row[order], at[order], kind[order], ordinal[order], np.bincount(row[order], minlength=count))


def _counted(events: Events, kind: Kind, count: int) -> Ints:
    return np.bincount(events.row[events.kind == kind], minlength=count).astype(np.int64)


def _standing(events: Events, count: int) -> tuple[Ints, Ints]:
    """(resolved, last reopened) as they stand: a reopened ticket is not resolved until it is again."""
    resolved = np.full(count, _LATE)
    reopened = np.full(count, _LATE)
    for kind in (Kind.FIRST_SOLVED, Kind.REOPENED, Kind.SOLVED):
        chosen = events.kind == kind
        target = reopened if kind == Kind.REOPENED else resolved
        target[events.row[chosen]] = events.at[chosen]
    open_again = (reopened < _LATE) & (resolved < reopened)
    resolved[open_again] = _LATE
    return resolved, reopened


def _waiting(flags: Mapping[Kind, Bools], times: Mapping[Kind, Ints], seen: int) -> Bools:
    made = np.zeros(len(flags[Kind.ASKED]), np.bool_)
    for begin, end in ((Kind.ASKED, Kind.ANSWERED), (Kind.VENDOR_ASKED, Kind.VENDOR_ANSWERED)):
        if begin in times:
            made |= flags[begin] & (times[begin] <= seen) & (times[end] > seen)
    return made


def _chain(draws: Draws, people: People, moves: Ints) -> Ints:
    """Groups that had the ticket, in order: the desk or a wrong group first, the final one last."""
    most = int(moves.max(initial=0))
    chain = np.repeat(people.final[:, None], most + 1, axis=1)
    if people.groups < 2:
        return chain
    for step in range(most - 1, -1, -1):
        following = chain[:, step + 1]
        # Neighbours in the list of groups do similar work: whoever missorts a ticket, missorts it to one of them.
        reach = min(_NEIGHBOURS, people.groups - 1)
        away = 1 + draws.below(f"chain:{step}", reach)
        away = np.where(draws.happens(f"chain:{step}:before", 0.5), -away, away)
        other = (following + away) % people.groups
        to_desk = (people.desk >= 0) & (following != people.desk) & (step == 0) & draws.happens("chain:desk", 0.55)
        other = np.where(to_desk, people.desk, other)
        chain[:, step] = np.where(step < moves, other, people.final)
    return chain
