"""The poller of every ``pull:`` entry: turns, deadlines, fairness between streams, and marks that follow durability.

What belongs here: what all APIs have in common. What does not: requests (``http``), the arithmetic of windows
(``marks``) and what each API is asked (the clients).

A client has streams (one query, one table, the logs …) and fetches one page of a stream at a time. Every page says what
the state of its stream becomes once the page is durable. A turn ends when all streams are read to the present, when the
deadline or the bound on bytes comes, or when the server asks for a pause; the next turn goes on from there.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiops_assets.collectors.document import Fetched, Poll
from aiops_assets.collectors.pull.http import Api, ApiError, OutOfTime, Paused, TooMuch
from aiops_assets.collectors.pull.marks import Pace, Seen, State, digest
from aiops_assets.config import Pull

#: a turn gives at most about so many bytes, so that they never crowd out what others wait to write
MAX_TURN_BYTES = 16 * 1024 * 1024
#: a turn ends this much before the poll would be cut (part of the deadline, and seconds at most)
_MARGIN_PART, _MARGIN_SECONDS = 0.1, 2.0
#: what was fetched is not fetched again for so long while the landing zone takes nothing (seconds)
DURABLE_PATIENCE = 600.0
_VERSION = 1
#: answers that a request for a page may get whose place is no longer known
_PLACE_UNKNOWN = frozenset({400, 404, 410, 422})
_PLACE = frozenset({"open", "cursor", "found"})


@dataclass(slots=True)
class Page:
    """What one request gave. ``ids`` are of the records in ``fetched``; ``more``: this stream has more to read now."""

    state: State
    fetched: list[Fetched] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    more: bool = False
    #: something people should know although it is no failure
    note: str = ""


class Client(Protocol):
    """How one API is asked for what is new."""

    api: Api

    async def streams(self) -> Sequence[str]:
        """The names of the streams at present.

        Raises:
            ApiError, Paused, OutOfTime: as ``Api``.
        """
        ...

    async def page(self, stream: str, state: State, turn: Turn) -> Page:
        """The next page of a stream.

        Raises:
            ApiError, Paused, OutOfTime, TooMuch: as ``Api``; the state stays as it was.
        """
        ...


@dataclass(frozen=True, slots=True)
class Turn:
    """What a client knows of the turn: ``now`` (microseconds since the epoch), and what was delivered before."""

    now: int
    pace: Pace
    seen: Seen
    #: of records that this turn has fetched
    own: set[int] = field(default_factory=set)

    def fresh(self, identifiers: Sequence[str]) -> list[bool]:
        """By identifier, whether its record was neither delivered before nor fetched in this turn."""
        keys = [digest(identifier) for identifier in identifiers]
        found: set[int] = set()
        result = []
        for key in keys:
            result.append(key not in found and key not in self.own and not self.seen.holds(key))
            found.add(key)
        return result


def pace_of(pull: Pull) -> Pace:
    """The durations of a pull in microseconds."""
    return Pace(int(pull.overlap * 1e6), int(pull.window * 1e6))


def fetched(pull: Pull, format_name: str, body: bytes, headers: Mapping[str, str], content_type: str) -> Fetched:
    """A page for the landing zone; its identifier follows from the pull and the content."""
    digest = hashlib.sha256(f"{pull.name}\0{format_name}\0{sorted(headers.items())}\0".encode())
    digest.update(body)
    return Fetched(body, format_name, content_type, digest.hexdigest()[:32], dict(headers))


class PullPoller:
    """Asks one API for what is new. ``poll`` never raises for what the API does wrong."""

    kind = "api"

    def __init__(
        self, pull: Pull, client: Client, state: Mapping[str, Any] | None, now: Callable[[], float] = time.time
    ) -> None:
        self.name = self.source = pull.name
        self.interval, self.deadline = pull.interval, pull.deadline
        self._client, self._now = client, now
        self._pace, self._since = pace_of(pull), int(pull.since * 1e6)
        self._seen = Seen()
        saved = dict(state or {})
        fits = saved.get("version") == _VERSION and saved.get("url") == client.api.base
        self._url = client.api.base
        self._states: dict[str, State] = dict(saved.get("streams") or {}) if fits else {}
        client.api.paused_until = float(saved.get("paused_until") or 0.0) if fits else 0.0
        self._first = 0
        self._turn = 0
        self._waiting: tuple[int, float] | None = None

    def state(self) -> dict[str, Any]:
        """Marks of all streams and the pause that the server asked for; nothing secret."""
        return {
            "version": _VERSION,
            "url": self._url,
            "streams": {name: dict(state) for name, state in self._states.items()},
            "paused_until": self._client.api.paused_until,
        }

    def close(self) -> Awaitable[None]:
        """Close connections."""
        return self._client.api.close()

    async def poll(self) -> Poll:
        """Read every stream as far as time, bytes and the server's limits allow."""
        if self._waiting is not None:
            age = time.monotonic() - self._waiting[1]
            if age < DURABLE_PATIENCE:
                return Poll(
                    up=True, error=f"what was fetched {age:.0f} s ago is not durable yet; nothing more till then"
                )
        self._turn += 1
        turn = Turn(int(self._now() * 1e6), self._pace, self._seen)
        reading = _Reading(self._client, self._states, turn, turn.now - self._since)
        self._client.api.begin(self.deadline - min(_MARGIN_PART * self.deadline, _MARGIN_SECONDS))
        await reading.run(self._first)
        self._first += 1
        outcome = Poll(up=reading.up, error=reading.told(), cut=reading.cut, fetched=reading.fetched)
        if reading.fetched:
            self._waiting = (self._turn, time.monotonic())
        outcome.delivered = self._moves(self._turn, reading)
        return outcome

    def _moves(self, turn: int, reading: _Reading) -> Callable[[], None]:
        def delivered() -> None:
            # Another turn has begun in between: what this one read may not set its marks back.
            if turn == self._turn:
                self._states.update(reading.states)
                if reading.current is not None:
                    self._states = {name: self._states[name] for name in reading.current if name in self._states}
            self._seen.add(reading.ids)
            if self._waiting is not None and self._waiting[0] == turn:
                self._waiting = None

        return delivered


class _Reading:
    """One turn over all streams."""

    def __init__(self, client: Client, states: dict[str, State], turn: Turn, beginning: int) -> None:
        self._client, self._turn = client, turn
        self._before, self._beginning = states, beginning
        self.states: dict[str, State] = {}
        self.current: Sequence[str] | None = None
        self.fetched: list[Fetched] = []
        self.ids: list[str] = []
        self.up = False
        self.cut = False
        self._bytes = 0
        self._problems: list[str] = []

    def told(self) -> str | None:
        """What people should know of this turn, in one line."""
        return "; ".join(dict.fromkeys(self._problems))[:1000] or None

    async def run(self, first: int) -> None:
        api = self._client.api
        try:
            names = list(await self._client.streams())
            self.current = names
            for name in names:
                # Where a stream begins is settled when it is first seen, not when it first answers.
                self._before.setdefault(name, {"mark": self._beginning})
            rotated = names[first % len(names) :] + names[: first % len(names)] if names else []
            rest = await self._round(rotated, share=True)
            # Time that others did not need goes to those with more to read.
            await self._round(rest, share=False)
        except Paused as pause:
            self.up = True
            self._problems.append(f"{pause}; goes on after that")
        except OutOfTime:
            self._out_of_time()
        except (ApiError, TooMuch) as error:
            self._problems.append(api.shown(str(error)))

    async def _round(self, names: Sequence[str], *, share: bool) -> list[str]:
        """Read streams; those with more to read than their share of the time."""
        more = []
        for position, name in enumerate(names):
            left = self._client.api.left
            until = left - left / (len(names) - position) if share else 0.0
            try:
                if await self._stream(name, until):
                    more.append(name)
            except (ApiError, TooMuch) as error:
                self._problems.append(self._client.api.shown(f"{name}: {error}"))
                if isinstance(error, ApiError) and error.status in _PLACE_UNKNOWN:
                    self._back_to_mark(name)
        return more

    async def _stream(self, name: str, until: float) -> bool:
        while True:
            if self._bytes >= MAX_TURN_BYTES:
                self._problems.append("more waits to be read; the next turn goes on")
                return False
            state = self.states.get(name, self._before[name])
            page = await self._client.page(name, state, self._turn)
            self.up = True
            self.states[name] = page.state
            self.fetched += page.fetched
            self.ids += page.ids
            self._turn.own.update(map(digest, page.ids))
            self._bytes += sum(len(one.body) for one in page.fetched)
            if page.note:
                self._problems.append(self._client.api.shown(f"{name}: {page.note}"))
            if not page.more:
                return False
            if self._client.api.left <= until:
                return True

    def _back_to_mark(self, name: str) -> None:
        """Places in pages expire: the stream is read from its mark again, without what was delivered."""
        state = self.states.get(name, self._before[name])
        if not _PLACE.isdisjoint(state):
            self.states[name] = {field: value for field, value in state.items() if field not in _PLACE}

    def _out_of_time(self) -> None:
        if self.up:
            self._problems.append("the deadline came before everything was read; the next turn goes on")
        else:
            self.cut = True
            self._problems.append("no answer before the deadline")
