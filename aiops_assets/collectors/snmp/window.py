"""A window of requests under way, so that replies never pile up faster than one core can read them.

What belongs here: flow control over all devices together. What does not: retries and timeouts of one request
(``engine``). Thousands of polls started at once would fill the socket's buffer, lose replies and ask again, until
nothing gets through: congestion collapse, as known from networks. So only so many first answers are awaited at a time.
A request that is not answered within a moment gives its place away and goes on without one: it waits for its device,
not for us, and costs nothing. Slow and dead devices therefore hold nobody up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from aiops_assets.collectors.snmp.engine import Oid, Reply, Session

T = TypeVar("T")

#: replies that may wait to be read; at 5 ms each this is a sixth of a second of work
REQUESTS = 32
#: after so many seconds without an answer a request no longer counts
HOLD_SECONDS = 0.5


class Window:
    """Lets ``requests`` through at a time."""

    def __init__(self, requests: int = REQUESTS, hold_seconds: float = HOLD_SECONDS) -> None:
        self._places = asyncio.Semaphore(requests)
        self._hold = hold_seconds
        self._since: dict[int, float] = {}
        self._number = 0

    @property
    def delay(self) -> float:
        """How long the first in the queue has been waiting (seconds): a sign of overload."""
        first = next(iter(self._since.values()), None)
        return 0.0 if first is None else asyncio.get_running_loop().time() - first

    async def through(self, request: Callable[[], Awaitable[T]]) -> T:
        """The request's result, once there is a place for it."""
        loop = asyncio.get_running_loop()
        self._number += 1
        number = self._number
        self._since[number] = loop.time()
        try:
            await self._places.acquire()
        finally:
            del self._since[number]
        held = True

        def give_back() -> None:
            nonlocal held
            if held:
                held = False
                self._places.release()

        timer = loop.call_later(self._hold, give_back)
        try:
            return await request()
        finally:
            timer.cancel()
            give_back()


class WindowedSession:
    """A session whose requests go through a window; see ``engine.Session``."""

    def __init__(self, session: Session, window: Window) -> None:
        self._session, self._window = session, window
        self.version = session.version

    async def get(self, oids: Sequence[Oid]) -> Reply:
        return await self._window.through(lambda: self._session.get(oids))

    async def get_next(self, oids: Sequence[Oid]) -> Reply:
        return await self._window.through(lambda: self._session.get_next(oids))

    async def get_bulk(self, non_repeaters: int, repetitions: int, oids: Sequence[Oid]) -> Reply:
        return await self._window.through(lambda: self._session.get_bulk(non_repeaters, repetitions, oids))

    def close(self) -> None:
        self._session.close()
