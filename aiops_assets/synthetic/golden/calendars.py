"""Working time: from an instant so many working hours on, and how many lie between two, for many rows at once.

What belongs here: opening hours, holidays and time zones of locations as sorted intervals. What does not: how long
anything takes. Instants are int64 microseconds since the epoch (UTC), durations float64 seconds of working time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from aiops_assets.hours import MICROS_PER_SECOND, micros
from aiops_assets.synthetic.golden.config import DAYS, Location

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: how far calendars reach beyond the period, for what is promised or solved after it
BEYOND = timedelta(days=500)
_DAY = 86_400 * MICROS_PER_SECOND


@dataclass(frozen=True)
class Calendars:
    """One calendar a location, in their order, and a last one that never closes (``always``)."""

    opens: Ints
    closes: Ints
    worked: Floats  # seconds before each interval, by its own calendar
    first: Ints  # position of the first interval of each calendar
    last: Ints
    always: int
    _opens_keyed: Floats
    _worked_keyed: Floats

    def position(self, at: Ints, which: Ints) -> Floats:
        """Working seconds from the start of the calendars to ``at``, by calendar ``which`` of each row."""
        found = np.searchsorted(self._opens_keyed, which * _SPREAD + at / MICROS_PER_SECOND, side="right") - 1
        found = np.clip(found, self.first[which], self.last[which])
        inside = np.clip(at, self.opens[found], self.closes[found]) - self.opens[found]
        return np.asarray(self.worked[found] + inside / MICROS_PER_SECOND)

    def instant(self, worked: Floats, which: Ints) -> Ints:
        """The instant at which so many working seconds have passed; what lies beyond the last interval is its end."""
        found = np.searchsorted(self._worked_keyed, which * _SPREAD + worked, side="right") - 1
        found = np.clip(found, self.first[which], self.last[which])
        inside = ((worked - self.worked[found]) * MICROS_PER_SECOND).astype(np.int64)
        return np.asarray(np.minimum(self.opens[found] + np.maximum(inside, 0), self.closes[found]))

    def later(self, at: Ints, seconds: Floats, which: Ints) -> Ints:
        """``at`` plus so many working seconds, never before ``at``."""
        return np.maximum(self.instant(self.position(at, which) + seconds, which), at)


#: keeps calendars apart in one sorted array; larger than any instant in seconds
_SPREAD = 1e10


def calendars(locations: Sequence[Location], start: datetime, end: datetime) -> Calendars:
    """The calendars of locations from a week before ``start`` to ``BEYOND`` after ``end``."""
    begin, until = start - timedelta(days=7), end + BEYOND
    opens: list[NDArray[np.int64]] = []
    closes: list[NDArray[np.int64]] = []
    for location in locations:
        first_open, first_close = _intervals(location, begin, until)
        opens.append(first_open)
        closes.append(first_close)
    opens.append(np.array([micros(begin)], np.int64))
    closes.append(np.array([micros(until)], np.int64))
    lengths = [(c - o) / MICROS_PER_SECOND for o, c in zip(opens, closes, strict=True)]
    worked = [np.cumsum(length) - length for length in lengths]
    counts = np.array([len(part) for part in opens])
    first = np.concatenate(([0], np.cumsum(counts)[:-1]))
    owner = np.repeat(np.arange(len(opens)), counts)
    every_open, every_worked = np.concatenate(opens), np.concatenate(worked)
    return Calendars(
        opens=every_open,
        closes=np.concatenate(closes),
        worked=every_worked,
        first=first,
        last=first + counts - 1,
        always=len(locations),
        _opens_keyed=owner * _SPREAD + every_open / MICROS_PER_SECOND,
        _worked_keyed=owner * _SPREAD + every_worked,
    )


def _intervals(location: Location, begin: datetime, until: datetime) -> tuple[Ints, Ints]:
    """Opening and closing instants of every day on which a location works; always open where it never does."""
    first, last = np.datetime64(begin.date() - timedelta(days=1)), np.datetime64(until.date() + timedelta(days=1))
    days = np.arange(first, last, dtype="M8[D]")
    working = np.isin((days.astype(np.int64) + 3) % 7, [DAYS.index(day) for day in location.hours.days])
    days = days[working & ~np.isin(days, np.array(sorted(location.holidays), "M8[D]"))]
    if not len(days):
        return np.array([micros(begin)], np.int64), np.array([micros(until)], np.int64)
    midnight = days.astype(np.int64) * _DAY
    minute = 60 * MICROS_PER_SECOND
    opens = _from_local(midnight + location.hours.open * minute, location.time_zone)
    return opens, _from_local(midnight + location.hours.close * minute, location.time_zone)


def _from_local(local: Ints, zone: str) -> Ints:
    """The instants at which clocks in a zone show local times (given as if they were UTC).

    The first of two where clocks are put back; where they are put forward over it, what it was by the old offset.
    """
    by_old = local - offsets(local - _DAY, zone)
    by_new = local - offsets(by_old, zone)
    return np.asarray(np.where(offsets(by_new, zone) == local - by_new, by_new, by_old))


def local_midnight_after(at: Ints, zone: str, minutes: int) -> Ints:
    """The first instant not before ``at`` at which a clock in ``zone`` shows ``minutes`` after midnight."""
    shift = offsets(at, zone)
    local = at + shift
    clock = local // _DAY * _DAY + minutes * 60 * MICROS_PER_SECOND
    clock = np.where(clock < local, clock + _DAY, clock)
    # The offset at the result counts, which differs where the clocks change in between.
    return np.asarray(np.maximum(clock - offsets(clock - shift, zone), at))


def offsets(at: Ints, zone: str) -> Ints:
    """Offset from UTC in microseconds of a zone at each instant, exact to the hour that the instant lies in."""
    if len(at) == 0:
        return np.zeros(0, np.int64)
    hour = 3_600 * MICROS_PER_SECOND
    low, high = int(at.min()) // hour, int(at.max()) // hour
    changes, values = _changes(zone, low // 8_766, high // 8_766 + 1)
    return values[np.searchsorted(changes, at, side="right") - 1]


@lru_cache(maxsize=1_024)
def _changes(zone: str, first_year: int, last_year: int) -> tuple[Ints, Ints]:
    """Instants from which an offset holds, and the offsets, over years counted from 1970."""
    info = ZoneInfo(zone)
    step = datetime(1970 + first_year - 1, 1, 1, tzinfo=UTC)
    until = datetime(1970 + last_year + 1, 1, 1, tzinfo=UTC)
    found = [(int(np.iinfo(np.int64).min), _offset(step, info))]
    while step < until:
        following = step + timedelta(days=1)
        exact = step
        while exact < following:
            if _offset(exact, info) != found[-1][1]:
                found.append((micros(exact), _offset(exact, info)))
            exact += timedelta(minutes=15) if _offset(following, info) != found[-1][1] else timedelta(days=1)
        step = following
    return np.array([at for at, _ in found], np.int64), np.array([shift for _, shift in found], np.int64)


def _offset(at: datetime, info: ZoneInfo) -> int:
    found = at.astimezone(info).utcoffset()
    return 0 if found is None else round(found.total_seconds()) * MICROS_PER_SECOND
