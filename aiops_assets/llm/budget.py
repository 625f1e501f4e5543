"""What may be used a day and a purpose, held against the table ``llm_spend`` that all processes share.

A question reserves what it may use at most before it is asked, and settles what it used afterwards, both on the day
(UTC) on which it began. What a killed process had reserved stays counted until that day ends: a budget is never
exceeded for it, and the next day begins at nothing. Questions that wait at the same time share one transaction.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, insert, select, text, update

from aiops_assets.config import Llm, LlmBudget
from aiops_assets.operations.database import connect, upgrade
from aiops_assets.operations.models import LLM_SPEND

log = logging.getLogger(__name__)

_MICROS = 1_000_000
#: key of the Postgres advisory lock that lets one process reserve or settle at a time
_LOCK = 7_061_933_512_044_120


@dataclass(frozen=True, slots=True)
class Use:
    """Requests, tokens and cost (millionths of the currency of the prices); differences may be negative."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_micros: int = 0

    def plus(self, other: Use) -> Use:
        """The sum of two."""
        return Use(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cost_micros + other.cost_micros,
        )

    def minus(self, other: Use) -> Use:
        """The difference of two."""
        return self.plus(Use(-other.calls, -other.prompt_tokens, -other.completion_tokens, -other.cost_micros))


@dataclass(frozen=True, slots=True)
class Reservation:
    """What was set aside for a question; ``refused`` says why nothing was."""

    day: str
    purpose: str
    use: Use
    refused: str | None = None


@dataclass(slots=True)
class _Step:
    day: str
    purpose: str
    use: Use
    #: reserving may be refused, settling may not
    limited: bool
    done: asyncio.Future[str | None] | None = field(default=None)


def day_of(seconds: float) -> str:
    """The UTC day of an instant, ``YYYY-MM-DD``."""
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def cost_micros(config: Llm, prompt_tokens: int, completion_tokens: int) -> int:
    """What tokens cost by the configured prices, rounded up."""
    return math.ceil(prompt_tokens * config.prompt_price + completion_tokens * config.completion_price)


class Budget:
    """The budget of one process; ``reserve`` before a call, ``settle`` after it, ``close`` at the end."""

    def __init__(self, url: str, config: Llm, clock: Callable[[], float] = time.time) -> None:
        self._url, self._config, self._clock = url, config, clock
        self._engine: Engine | None = None
        self._steps: list[_Step] = []
        self._writing: asyncio.Task[None] | None = None
        self._limited = any(
            value is not None
            for limits in (config.budget, *config.budgets.values())
            for value in limits.model_dump().values()
        )

    async def reserve(self, purpose: str, use: Use) -> Reservation:
        """Set aside what a question may use at most; refused when that exceeds a limit, or nobody can look it up."""
        day = day_of(self._clock())
        if not self._limited:
            return Reservation(day, purpose, Use())
        step = _Step(day, purpose, use, limited=True, done=asyncio.get_running_loop().create_future())
        self._enqueue(step)
        refused = await step.done  # type: ignore[misc]
        return Reservation(day, purpose, Use() if refused else use, refused)

    def settle(self, reservation: Reservation, used: Use) -> None:
        """Count what was used in the place of what was set aside; written soon, and before ``close`` returns."""
        difference = used.minus(reservation.use)
        if difference != Use():
            self._enqueue(_Step(reservation.day, reservation.purpose, difference, limited=False))

    async def close(self) -> None:
        """Write what waits."""
        while self._writing is not None and not self._writing.done():
            await self._writing
        if self._engine is not None:
            await asyncio.to_thread(self._engine.dispose)
            self._engine = None

    def _enqueue(self, step: _Step) -> None:
        self._steps.append(step)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write(), name="llm-budget")

    async def _write(self) -> None:
        while self._steps:
            steps, self._steps = self._steps, []
            try:
                answers = await asyncio.to_thread(self._commit, steps)
            except Exception as error:
                # Whatever it is, nobody may wait for ever.
                # Unknown is treated as used up; without limits only the count of the day is incomplete.
                log.exception("what language models use cannot be written to the operations database")
                answers = [f"budget unknown: the operations database failed ({type(error).__name__})"] * len(steps)
            for step, answer in zip(steps, answers, strict=True):
                if step.done is not None and not step.done.done():
                    step.done.set_result(answer)
                elif step.done is not None and step.done.cancelled() and answer is None:
                    self._steps.append(_Step(step.day, step.purpose, Use().minus(step.use), limited=False))

    def _commit(self, steps: list[_Step]) -> list[str | None]:
        if self._engine is None:
            upgrade(self._url)
            self._engine = connect(self._url)
        with self._engine.connect().execution_options(aiops_writes=True) as connection, connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            days = {day: spent(connection, day) for day in {step.day for step in steps}}
            before = {day: dict(rows) for day, rows in days.items()}
            answers = []
            for step in steps:
                rows = days[step.day]
                refused = over_limit(self._config, rows, step.purpose, step.use) if step.limited else None
                answers.append(f"{refused} on {step.day} (UTC)" if refused else None)
                if refused is None:
                    rows[step.purpose] = rows.get(step.purpose, Use()).plus(step.use)
            for day, rows in days.items():
                for purpose, use in rows.items():
                    _store(connection, day, purpose, use, before[day].get(purpose))
        return answers


def over_limit(config: Llm, rows: Mapping[str, Use], purpose: str, more: Use) -> str | None:
    """Which limit ``more`` for a purpose would exceed, beside what a day has used; ``None`` when none."""
    total = Use()
    for use in rows.values():
        total = total.plus(use)
    for name, limits, used in (
        ("all purposes", config.budget, total),
        (f"purpose {purpose!r}", config.budgets.get(purpose, LlmBudget()), rows.get(purpose, Use())),
    ):
        after = used.plus(more)
        tokens = after.prompt_tokens + after.completion_tokens
        for what, limit, value in (
            ("cost", limits.cost, after.cost_micros / _MICROS),
            ("tokens", limits.tokens, tokens),
            ("calls", limits.calls, after.calls),
        ):
            if limit is not None and value > limit:
                return f"budget: {what} of {name} would be {value:,.6g} of {limit:,.6g}"
    return None


def spent(connection: Connection, day: str) -> dict[str, Use]:
    """What a day has used and reserved, by purpose."""
    rows = connection.execute(select(LLM_SPEND).where(LLM_SPEND.c.day == day).order_by(LLM_SPEND.c.purpose))
    return {row.purpose: Use(row.calls, row.prompt_tokens, row.completion_tokens, row.cost_micros) for row in rows}


def _store(connection: Connection, day: str, purpose: str, use: Use, before: Use | None) -> None:
    if use == before:
        return
    values = {
        "calls": use.calls,
        "prompt_tokens": use.prompt_tokens,
        "completion_tokens": use.completion_tokens,
        "cost_micros": use.cost_micros,
    }
    if before is None:
        connection.execute(insert(LLM_SPEND).values(day=day, purpose=purpose, **values))
    else:
        row = (LLM_SPEND.c.day == day, LLM_SPEND.c.purpose == purpose)
        connection.execute(update(LLM_SPEND).where(*row).values(**values))
