"""Telling open pages that something changed: server-sent events from one shared look at the database.

What belongs here: the poller, its subscribers and the wire format. The change counter of the operations database orders
everything, so an event's id is a change number and ``Last-Event-ID`` continues where a connection broke.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

import orjson
from sqlalchemy.exc import SQLAlchemyError

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
HEARTBEAT_SECONDS = 15.0
MAX_SUBSCRIBERS = 500
_RETRY_MILLISECONDS = 2_000

#: a change number that is never reached: nothing has changed after it
_FUTURE = 2**62

Look = Callable[[int], tuple[int, tuple[str, ...]]]


class FeedFull(Exception):
    """Too many pages are open."""


class Feed:
    """One poller for all subscribers of a process; it runs only while there are any.

    ``look(number)`` blocks; it returns the present change number and the ids of incidents changed after ``number``.
    """

    def __init__(self, look: Look, *, poll_seconds: float = POLL_SECONDS, heartbeat: float = HEARTBEAT_SECONDS) -> None:
        self._look, self._poll, self._heartbeat = look, poll_seconds, heartbeat
        self._number = -1
        self._subscribers = 0
        self._news = asyncio.Event()
        #: the poller, once there was a subscriber
        self.task: asyncio.Task[None] | None = None

    def admit(self) -> None:
        """Make room for a subscriber.

        Raises:
            FeedFull: there is none.
        """
        if self._subscribers >= MAX_SUBSCRIBERS:
            raise FeedFull(f"{MAX_SUBSCRIBERS} pages are watching already")

    async def stream(self, since: int | None, incident_id: str | None = None) -> AsyncIterator[bytes]:
        """Events after a change number (``None``: from now on), of all incidents or of one."""
        self._subscribers += 1
        try:
            self._start()
            yield f"retry: {_RETRY_MILLISECONDS}\n\n".encode()
            seen = since
            while True:
                news = self._news
                if self._number >= 0 and seen is None:
                    seen = self._number
                if self._number >= 0 and seen is not None and self._number != seen:
                    number, changed = await asyncio.to_thread(self._look, seen)
                    seen = number
                    if incident_id is None or incident_id in changed:
                        yield _event(number, changed)
                    continue
                try:
                    await asyncio.wait_for(news.wait(), self._heartbeat)
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            self._subscribers -= 1

    def _start(self) -> None:
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._watch(), name="incident-feed")

    async def _watch(self) -> None:
        failing = False
        while self._subscribers:
            try:
                number, _ = await asyncio.to_thread(self._look, _FUTURE)
                if failing:
                    log.info("the operations database answers again")
                failing = False
            except SQLAlchemyError as error:
                if not failing:
                    log.warning("pages are not updated, the operations database fails: %s", error)
                failing = True
            else:
                if number != self._number:
                    self._number = number
                    news, self._news = self._news, asyncio.Event()
                    news.set()
            await asyncio.sleep(self._poll)

    async def close(self) -> None:
        """Stop looking."""
        if self.task is not None:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.task


def _event(number: int, changed: tuple[str, ...]) -> bytes:
    data = orjson.dumps({"change_number": number, "incidents": changed})
    return b"id: %d\nevent: change\ndata: %s\n\n" % (number, data)
