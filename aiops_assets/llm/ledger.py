"""The table ``llm_calls``: one row a question, stored answers and degraded ones included.

What belongs here: gathering rows and appending them in batches, from as many processes as there are, and reading them
for people. What does not: what a row means (``client``, ``tables``). Rows hold no text of any question or answer.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.tables import LLM_CALLS, TIMESTAMP

log = logging.getLogger(__name__)

#: a commit is written when so many rows wait, or the first of them so long
ROWS, SECONDS = 2_000, 10.0
_ATTEMPTS = 6
#: beyond this, rows that cannot be written push out older ones
_MOST_WAITING = 200_000


class Ledger:
    """Rows on their way into the lake; ``close`` writes the rest and raises when it cannot."""

    def __init__(self, lake: Lake, *, rows: int = ROWS, seconds: float = SECONDS) -> None:
        self._lake, self._rows, self._seconds = lake, rows, seconds
        self._waiting: list[dict[str, Any]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._lost = 0

    def add(self, row: dict[str, Any]) -> None:
        """Take a row; it is written soon."""
        self._waiting.append(row)
        if len(self._waiting) > _MOST_WAITING:
            del self._waiting[0]
            self._lost += 1
        if len(self._waiting) >= self._rows:
            self._begin()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._begin)

    async def close(self) -> None:
        """Write everything that waits.

        Raises:
            deltalake.exceptions.DeltaError, OSError: it cannot be written.
        """
        self._stop_timer()
        if self._writing is not None:
            await self._writing
        rows, self._waiting = self._waiting, []
        if rows:
            await asyncio.to_thread(append, self._lake, frame_of(rows))
        if self._lost:
            log.error("%d rows of %s were lost: the lake could not be written to", self._lost, LLM_CALLS.name)

    def _begin(self) -> None:
        self._stop_timer()
        if self._waiting and (self._writing is None or self._writing.done()):
            self._writing = asyncio.get_running_loop().create_task(self._write(), name="llm-ledger")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _write(self) -> None:
        rows, self._waiting = self._waiting, []
        try:
            await asyncio.to_thread(append, self._lake, frame_of(rows))
        except Exception:
            # They are tried again with the next rows; ``close`` is where a lasting failure is raised.
            log.exception("%d rows of %s cannot be written yet", len(rows), LLM_CALLS.name)
            self._waiting = rows + self._waiting
            return
        if self._waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._begin)


def frame_of(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Rows as a frame of the table's schema; ``ts`` is microseconds since the epoch."""
    schema = {**LLM_CALLS.schema, "ts": pl.Int64()}
    del schema["day"]
    return (
        pl.DataFrame(rows, schema=schema, orient="row")
        .with_columns(pl.from_epoch("ts", time_unit="us").dt.replace_time_zone("UTC").cast(TIMESTAMP))
        .with_columns(pl.col("ts").dt.strftime("%Y-%m-%d").alias("day"))
        .sort("ts", "call_id")
    )


def append(lake: Lake, frame: pl.DataFrame) -> None:
    """Append rows, in as many commits as attempts of other processes make it; delta-rs repeats conflicts by itself.

    Raises:
        deltalake.exceptions.DeltaError: it still fails after several attempts.
    """
    from deltalake.exceptions import DeltaError

    for attempt in range(_ATTEMPTS):
        try:
            TableWriter(lake, LLM_CALLS).append(frame, {})
            return
        except DeltaError:
            # Two processes that make the table or set its properties at once: one of them begins anew.
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(random.uniform(0.0, 0.05 * 2.0**attempt))  # noqa: S311 - spreads repetitions


def recent(lake: Lake, days: float, now: float | None = None) -> pl.DataFrame:
    """Rows of the last days, newest first."""
    until = datetime.fromtimestamp(time.time() if now is None else now, UTC)
    since = until - timedelta(days=days)
    partitions = [(since + timedelta(days=n)).date().isoformat() for n in range((until.date() - since.date()).days + 1)]
    frame = lake.scan(LLM_CALLS.name, partitions).filter(pl.col("ts") >= since)
    return frame.collect().unique("call_id", maintain_order=True).sort("ts", "call_id", descending=True)


def sums(frame: pl.DataFrame) -> pl.DataFrame:
    """Calls, outcomes, tokens, cost and latency (seconds) by purpose, provider and model."""
    degraded = ~pl.col("outcome").is_in(["answered", "repaired"])
    return (
        frame.group_by("purpose", "provider", "model")
        .agg(
            pl.len().alias("calls"),
            pl.col("cache_hit").sum().alias("cached"),
            degraded.sum().alias("degraded"),
            (pl.col("outcome") == "repaired").sum().alias("repaired"),
            pl.col("attempts").sum().cast(pl.Int64).alias("requests"),
            pl.col("prompt_tokens", "completion_tokens", "cost").sum(),
            pl.col("redactions").sum().cast(pl.Int64),
            pl.col("latency_seconds").filter(~pl.col("cache_hit")).quantile(0.5).alias("latency_p50"),
            pl.col("latency_seconds").filter(~pl.col("cache_hit")).quantile(0.95).alias("latency_p95"),
        )
        .sort("purpose", "provider", "model")
    )
