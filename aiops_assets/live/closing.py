"""When hours close, and when closed hours are due again because late rows came.

What belongs here: the clock of hours, driven by event time and by which sources have passed an hour. What does not:
what happens when an hour closes (``deriving``). Nothing here reads a wall clock: it sees rows and micro-batches.
"""

from __future__ import annotations

from dataclasses import dataclass

from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND

#: an hour whose sources stay behind is due once it was left alone for this many batches
QUIET_BATCHES = 5
#: an hour closes at the latest when event time is this far past its end, whoever is still behind
LONGEST_WAIT = MICROS_PER_HOUR


@dataclass(slots=True)
class _Open:
    """Rows came to an hour since it was last derived."""

    sources: set[str]
    last_batch: int


class HourClock:
    """Knows which hours (counted from the epoch) have rows that no derivation covers yet."""

    def __init__(self, grace_seconds: float) -> None:
        self._grace = int(grace_seconds * MICROS_PER_SECOND)
        self._open: dict[int, _Open] = {}
        self._late: dict[int, _Open] = {}
        self._reached: dict[str, int] = {}
        #: the newest hour that was closed
        self.closed_upto: int | None = None

    def touch(self, hour: int, source: str, newest: int, batch: int) -> None:
        """Rows of a source, the newest at ``newest`` (µs), were stored in an hour."""
        late = self.closed_upto is not None and hour <= self.closed_upto
        entry = (self._late if late else self._open).setdefault(hour, _Open(set(), batch))
        entry.sources.add(source)
        entry.last_batch = batch
        self._reached[source] = max(self._reached.get(source, newest), newest)

    def due(self, watermark: int, batch: int) -> list[int]:
        """Hours that event time has passed, ascending and without a gap: a later one waits for an earlier one.

        An hour is passed when every source that wrote to it has gone beyond it and its grace, or was left alone for a
        while, or ``LONGEST_WAIT`` is over.
        """
        hours = []
        for hour in sorted(self._open):
            end = (hour + 1) * MICROS_PER_HOUR + self._grace
            entry = self._open[hour]
            passed = all(self._reached[source] >= end for source in entry.sources)
            quiet = batch - entry.last_batch >= QUIET_BATCHES
            if watermark < end or not (passed or quiet or watermark >= end + LONGEST_WAIT):
                break
            hours.append(hour)
        return hours

    def late(self, batch: int) -> list[int]:
        """Closed hours that got rows and were left alone since, ascending; all of them as soon as one of them is."""
        quiet = any(batch - entry.last_batch >= QUIET_BATCHES for entry in self._late.values())
        return sorted(self._late) if quiet else []

    @property
    def open_hours(self) -> list[int]:
        """Hours with rows that are not closed, ascending."""
        return sorted(self._open)

    @property
    def late_hours(self) -> list[int]:
        """Closed hours with rows that their derivation does not cover, ascending."""
        return sorted(self._late)

    def closed(self, hour: int) -> None:
        """An hour was derived for good; what is older counts as late from now on."""
        self._open.pop(hour, None)
        self.closed_upto = hour if self.closed_upto is None else max(hour, self.closed_upto)
        for earlier in [other for other in self._open if other < hour]:
            self._late[earlier] = self._open.pop(earlier)

    def amended(self, hour: int) -> None:
        """A closed hour was derived again with all its rows."""
        self._late.pop(hour, None)
