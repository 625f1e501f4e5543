"""A pull over days of simulated time: turns, a landing zone that may refuse, kills and restarts.

What belongs here: driving a poller and collecting what became durable. What does not: single APIs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
import polars as pl

from aiops_assets.collectors.document import Fetched, Poll
from aiops_assets.collectors.outbox import _as_fetched, _Waiting
from aiops_assets.collectors.pull import client_of
from aiops_assets.collectors.pull.poller import PullPoller
from aiops_assets.config import Pull
from aiops_assets.formats import parse
from aiops_assets.formats.batch import Parsed
from aiops_assets.landing.segment import Delivery
from tests.fakes.serving import Clock


class Journey:
    """One pull. ``landed`` is what became durable, in order."""

    def __init__(self, pull: Pull, clock: Clock) -> None:
        self.pull, self.clock = pull, clock
        self.landed: list[Fetched] = []
        self.polls: list[Poll] = []
        self.saved: dict[str, Any] = {}
        self.poller = self._made(None)

    def _made(self, state: dict[str, Any] | None) -> PullPoller:
        client = client_of(self.pull, clock=self.clock, pause=0.001)
        return PullPoller(self.pull, client, state, now=self.clock)

    async def turn(self, *, durable: bool = True, save: bool = True) -> Poll:
        """One poll; what it fetched becomes durable unless the landing zone refuses, and the state is saved."""
        poll = await self.poller.poll()
        self.polls.append(poll)
        if durable:
            self.landed += poll.fetched
            if poll.delivered is not None:
                poll.delivered()
        if save:
            self.saved = orjson.loads(orjson.dumps(self.poller.state()))
        return poll

    async def run(self, seconds: float, **how: bool) -> None:
        """Turns at every interval for so long."""
        until = self.clock.now + seconds
        while self.clock.now < until:
            await self.turn(**how)
            self.clock.now += self.pull.interval

    async def outage(self, seconds: float) -> None:
        """Nobody answers for so long; a few turns notice it."""
        for part in (0.01, 0.5, 0.49):
            await self.turn()
            self.clock.now += part * seconds

    async def kill(self) -> None:
        """The process dies: only what was saved is left."""
        await self.close()
        self.poller = self._made(self.saved)

    async def close(self) -> None:
        await self.poller.close()

    def parsed(self) -> Parsed:
        """Everything that is durable, read."""
        assert len({one.format for one in self.landed}) <= 1
        return parse(self.landed[0].format, self.deliveries()) if self.landed else Parsed()

    def deliveries(self) -> list[Delivery]:
        return [delivery_of(self.pull.name, one) for one in self.landed]


def delivery_of(source: str, one: Fetched) -> Delivery:
    """A delivery as the landing zone keeps it."""
    return _as_fetched(_Waiting(source, one.body, 1_790_000_000_000_000, one), one)


def keys(frame: pl.DataFrame, *columns: str) -> list[Any]:
    """The values of columns by row, sorted."""
    return sorted(frame.select(columns).rows()) if len(columns) > 1 else sorted(frame[columns[0]].to_list())


def repeated(values: Iterable[Any]) -> list[Any]:
    """The values that are there more than once."""
    seen: set[Any] = set()
    return [value for value in values if value in seen or seen.add(value)]  # type: ignore[func-returns-value]
