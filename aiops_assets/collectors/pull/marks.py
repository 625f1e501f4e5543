"""How far a stream was read: high-water marks, windows of time with cursors in them, and what was already delivered.

What belongs here: the arithmetic of time windows and the memory of identifiers, without any request. What does not:
pages (the clients) and when marks are saved (``poller``).

The state of a stream is plain JSON. ``mark`` (microseconds since the epoch, UTC) is the instant up to which everything
there is has been delivered. Indexes lag, so what was asked for at ``A`` is complete up to ``A - overlap`` only: that is
as far as the mark moves, and the next sweep begins there. A sweep reads windows from the mark to the present, oldest
first, none longer than ``window``; ``at`` is where it stands once it is beyond the mark. A window that is not read to
its end keeps its place in ``open``, with the instant of its first question. ``span`` is the length to which windows had
to be shortened because a server would not give more; it grows again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import xxhash

from aiops_assets.hours import instant

#: identifiers remembered, so that overlaps are not delivered again and again; beyond it they are, harmlessly
MAX_SEEN = 200_000
#: a mark stays at most so long behind because a server said that something is missing (microseconds)
LONGEST_HELD = 86_400_000_000
State = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Window:
    """The time that is being read: [``start``, ``end``), first asked for at ``asked``; microseconds.

    ``last`` says that it reaches the present.
    """

    start: int
    end: int
    asked: int
    last: bool
    cursor: str | None = None

    def opened(self, state: Mapping[str, Any], cursor: str | None) -> State:
        """The state that stays within this window, at ``cursor``."""
        place = {"start": self.start, "end": self.end, "asked": self.asked, "last": self.last, "cursor": cursor}
        return {**state, "open": place}


@dataclass(frozen=True, slots=True)
class Pace:
    """Durations of one pull in microseconds."""

    overlap: int
    window: int

    def next(self, state: Mapping[str, Any], now: int, *, settle: int = 0, step: int = 0) -> Window | None:
        """The window to read now; ``None`` when there is nothing to ask for yet.

        What is younger than ``settle`` is left for later. With a ``step`` windows begin and end on its multiples.
        """
        place = state.get("open")
        if isinstance(place, dict):
            return Window(place["start"], place["end"], place["asked"], place["last"], place.get("cursor"))
        limit = now - settle
        start = state.get("at", min(state["mark"], now))
        end = start + max(int(state.get("span", self.window)), step, 1)
        if step:
            start, end, limit = start // step * step, end // step * step, limit // step * step
        end, last = min(end, limit), end >= limit
        return Window(start, end, now, last) if end > start else None

    def closed(self, state: Mapping[str, Any], window: Window, *, held: bool = False, lazily: bool = False) -> State:
        """The state after a window was read to its end.

        Args:
            held: something of it is missing, so the mark stays; for ``LONGEST_HELD`` at most.
            lazily: the overlap is not read again at every turn, only once it is twice as long.
        """
        mark = state["mark"]
        if "at" not in state and not (held and window.asked - mark < LONGEST_HELD):
            mark = max(mark, min(window.end, window.asked - self.overlap))
        done: State = {"mark": mark}
        ahead = window.end - mark
        if ahead > 0 and (not window.last or (lazily and ahead < 2 * self.overlap)):
            done["at"] = window.end
        span = 2 * int(state.get("span", self.window))
        if span < self.window:
            done["span"] = span
        return done


def seconds(at: int) -> int:
    """Whole seconds of microseconds since the epoch."""
    return at // 1_000_000


def iso(at: int, *, whole: bool = False) -> str:
    """Microseconds since the epoch as ISO 8601 in UTC, with milliseconds unless ``whole``."""
    text = instant(at).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}Z" if whole else f"{text}.{at // 1000 % 1000:03d}Z"


def halved(state: Mapping[str, Any], window: Window, least: int) -> State | None:
    """The state in which half as much time is asked for, ``None`` when it is the least already."""
    span = (window.end - window.start) // 2 // least * least
    if span < least:
        return None
    smaller = {name: value for name, value in state.items() if name != "open"}
    return {**smaller, "span": span}


class Seen:
    """Identifiers of records that were delivered, the newest ``MAX_SEEN`` of them."""

    def __init__(self, most: int = MAX_SEEN) -> None:
        self._known: OrderedDict[int, None] = OrderedDict()
        self._most = most

    def holds(self, key: int) -> bool:
        """Whether the record of this ``digest`` was delivered."""
        return key in self._known

    def add(self, identifiers: Iterable[str]) -> None:
        """Remember what is durable now."""
        for identifier in identifiers:
            key = digest(identifier)
            self._known[key] = None
            self._known.move_to_end(key)
        while len(self._known) > self._most:
            self._known.popitem(last=False)


def digest(identifier: str) -> int:
    """64 bits that stand for an identifier."""
    return xxhash.xxh3_64_intdigest(identifier.encode("utf-8", "replace"))
