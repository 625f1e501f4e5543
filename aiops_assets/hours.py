"""The hour of a timestamp: the one place that derives partition names.

Times are UTC. Integers are microseconds since the Unix epoch; partition keys are strings ``YYYY-MM-DDTHH``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl

HOUR_FORMAT = "%Y-%m-%dT%H"
MICROS_PER_SECOND = 1_000_000
MICROS_PER_HOUR = 3_600 * MICROS_PER_SECOND
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def hour_key(micros: int) -> str:
    """Partition key of a UTC instant given in microseconds since the epoch."""
    return (EPOCH + timedelta(microseconds=micros)).strftime(HOUR_FORMAT)


def hour_start(key: str) -> int:
    """First microsecond (UTC epoch) of the hour named by a partition key."""
    return micros(datetime.strptime(key, HOUR_FORMAT).replace(tzinfo=UTC))


def hour_expr(column: str = "ts") -> pl.Expr:
    """Polars expression: partition key of a ``Datetime('us', 'UTC')`` column."""
    return pl.col(column).dt.strftime(HOUR_FORMAT)


def micros(instant: datetime) -> int:
    """Microseconds since the epoch of an aware datetime, exact (no float in between)."""
    delta = instant - EPOCH
    return (delta.days * 86_400 + delta.seconds) * MICROS_PER_SECOND + delta.microseconds


def instant(micros_since_epoch: int) -> datetime:
    """Aware UTC datetime of microseconds since the epoch."""
    return EPOCH + timedelta(microseconds=micros_since_epoch)
