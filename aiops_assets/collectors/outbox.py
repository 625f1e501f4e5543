"""The buffer between polls and the landing zone.

What belongs here: gathering of documents for a moment, one durable append off the event loop, and what happens when the
disk is full: a bounded buffer that gives up its oldest documents, counted and said aloud. What does not: the landing
format (``landing``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ulid import ULID

from aiops_assets.collectors.document import Fetched
from aiops_assets.landing.segment import Delivery
from aiops_assets.landing.writer import LandingFull, SegmentWriter

log = logging.getLogger(__name__)

HEADERS = {"format": "collected"}
CONTENT_TYPE = "application/json"
#: documents wait this long for company (seconds)
GATHER_SECONDS = 0.2
#: after a refused append the next attempt waits this long (seconds)
RETRY_SECONDS = 1.0
#: a delivery holds at most so many bytes of documents
DELIVERY_BYTES = 1 << 20


@dataclass(slots=True)
class _Fetch:
    """Deliveries that were fetched together: only when none of them was given up may they count as delivered."""

    waiting: int
    delivered: Callable[[], None] | None
    given_up: bool = False

    def written(self) -> None:
        self.waiting -= 1
        if self.waiting == 0 and not self.given_up and self.delivered is not None:
            self.delivered()


@dataclass(frozen=True, slots=True)
class _Waiting:
    source: str
    body: bytes
    at: int
    #: a whole delivery that was fetched, and those fetched with it; ``None`` for a document of our own
    fetched: Fetched | None = None
    fetch: _Fetch | None = None


class Outbox:
    """Takes documents from the event loop and makes them durable in a thread of its own.

    It never raises for a landing zone that refuses: documents wait, up to ``max_bytes``, and the oldest go first.
    """

    def __init__(
        self, writer: SegmentWriter, *, max_bytes: int = 64 << 20, gather_seconds: float = GATHER_SECONDS
    ) -> None:
        self._writer = writer
        self._max_bytes, self._gather = max_bytes, gather_seconds
        self._waiting: deque[_Waiting] = deque()
        self._size = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outbox")
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        #: why nothing can be written at present
        self.blocked: str | None = None
        self.dropped = 0
        self.written = 0

    @property
    def waiting(self) -> int:
        """Documents that are not durable yet."""
        return len(self._waiting)

    @property
    def waiting_bytes(self) -> int:
        return self._size

    def put(self, source: str, body: bytes) -> None:
        """Add an encoded document; the oldest make room when the buffer is full."""
        self._add(_Waiting(source, body, time.time_ns() // 1000))

    def deliver(self, source: str, fetched: Sequence[Fetched], delivered: Callable[[], None] | None) -> None:
        """Add what was fetched; ``delivered`` is called on the event loop when all of it is durable."""
        now = time.time_ns() // 1000
        fetch = _Fetch(len(fetched), delivered)
        for one in fetched:
            self._add(_Waiting(source, one.body, now, one, fetch))
        if not fetched and delivered is not None:
            delivered()

    def _add(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        self._size += len(waiting.body)
        while self._size > self._max_bytes and len(self._waiting) > 1:
            self._give_up_oldest()
            if self.dropped == 1 or self.dropped % 1000 == 0:
                log.error("the landing zone takes nothing (%s): %d documents were given up", self.blocked, self.dropped)
        self._wake.set()

    async def run(self) -> None:
        """Write until ``close`` is called, then what is left, once."""
        while not self._closing.is_set():
            await self._pause()
            await self._flush()
        await self._flush()

    async def close(self, runner: asyncio.Task[None]) -> None:
        """Drain, seal and release the writer's folder."""
        self._closing.set()
        self._wake.set()
        await runner
        if self._waiting:
            log.error("%d documents could not be written before the end: %s", len(self._waiting), self.blocked)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._writer.close)
        self._thread.shutdown()

    async def _pause(self) -> None:
        """Until there is something to write and it has had time to gather; no longer than a segment may stay open."""
        seconds = RETRY_SECONDS if self.blocked else self._gather
        if not self._waiting:
            try:
                async with asyncio.timeout(self._gather):
                    await self._wake.wait()
            except TimeoutError:
                return
        self._wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return

    async def _flush(self) -> None:
        # New documents may arrive meanwhile, and old ones may be given up only before they are handed over.
        taken, self._waiting = self._waiting, deque()
        size, self._size = self._size, 0
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._append, list(taken))
        except (LandingFull, OSError) as error:
            self._back(taken, size)
            if self.blocked is None:
                log.error(
                    "the landing zone refuses: %s; documents wait in memory, up to %d bytes", error, self._max_bytes
                )
            self.blocked = str(error)
            return
        self.written += len(taken)
        for waiting in taken:
            if waiting.fetch is not None:
                waiting.fetch.written()
        if self.blocked is not None:
            log.warning("the landing zone takes documents again; %d were given up so far", self.dropped)
            self.blocked = None

    def _back(self, taken: deque[_Waiting], size: int) -> None:
        taken.extend(self._waiting)
        self._waiting = taken
        self._size += size
        while self._size > self._max_bytes and len(self._waiting) > 1:
            self._give_up_oldest()

    def _give_up_oldest(self) -> None:
        oldest = self._waiting.popleft()
        self._size -= len(oldest.body)
        self.dropped += 1
        if oldest.fetch is not None:
            oldest.fetch.given_up = True

    def _append(self, taken: list[_Waiting]) -> None:
        if taken:
            self._writer.append_deliveries(deliveries(taken))
        self._writer.seal_if_due()


def deliveries(documents: list[_Waiting]) -> list[Delivery]:
    """Documents of a source together in one delivery, as a JSON array, up to ``DELIVERY_BYTES``."""
    grouped: dict[str, list[_Waiting]] = {}
    made: list[Delivery] = []
    sizes: dict[str, int] = {}
    for document in documents:
        if document.fetched is not None:
            made.append(_as_fetched(document, document.fetched))
            continue
        group = grouped.setdefault(document.source, [])
        if group and sizes[document.source] + len(document.body) > DELIVERY_BYTES:
            made.append(_delivery(group))
            grouped[document.source] = group = []
            sizes[document.source] = 0
        group.append(document)
        sizes[document.source] = sizes.get(document.source, 0) + len(document.body)
    made.extend(_delivery(group) for group in grouped.values() if group)
    return made


def _as_fetched(waiting: _Waiting, fetched: Fetched) -> Delivery:
    own = {"idempotency-key": fetched.delivery_id} if fetched.delivery_id else {}
    return Delivery(
        delivery_id=fetched.delivery_id or str(ULID()),
        received_at=waiting.at,
        source=waiting.source,
        content_type=fetched.content_type,
        body=fetched.body,
        headers={**fetched.headers, **own, "format": fetched.format},
    )


def _delivery(group: list[_Waiting]) -> Delivery:
    return Delivery(
        delivery_id=str(ULID()),
        received_at=max(document.at for document in group),
        source=group[0].source,
        content_type=CONTENT_TYPE,
        body=b"[" + b",".join(document.body for document in group) + b"]",
        headers=HEADERS,
    )
