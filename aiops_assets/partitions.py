"""The partitions of the asset graph: hours and days of event time, in UTC.

What belongs here: partition definitions and the question whether a key lies inside them. What does not: deriving the
hour of a timestamp (``hours``, which these definitions spell out in the same format) and partitions by device, which no
asset has: a partition is a stretch of time.
"""

from __future__ import annotations

from datetime import UTC, date, datetime

import dagster as dg

from aiops_assets.hours import HOUR_FORMAT
from aiops_assets.settings import load_settings

DAY_FORMAT = "%Y-%m-%d"
#: Dagster handles at most this many keys an asset well; hours before them are still stored, only not drawn
MOST_PARTITIONS = 100_000


def first_day(wanted: date, now: datetime) -> date:
    """The first day that has partitions: the one wanted, or the first January that keeps the hours below the limit."""
    earliest = datetime.fromtimestamp(now.timestamp() - (MOST_PARTITIONS - 1) * 3600, UTC)
    return (
        wanted
        if datetime(wanted.year, wanted.month, wanted.day, tzinfo=UTC) >= earliest
        else date(earliest.year + 1, 1, 1)
    )


def hourly(start: date | None = None) -> dg.HourlyPartitionsDefinition:
    """Hours of event time, ``YYYY-MM-DDTHH`` in UTC, the present hour included."""
    day = start or _configured_start()
    return dg.HourlyPartitionsDefinition(
        start_date=f"{day:{DAY_FORMAT}}T00", fmt=HOUR_FORMAT, timezone="UTC", end_offset=1
    )


def daily(start: date | None = None) -> dg.DailyPartitionsDefinition:
    """Days of event time, ``YYYY-MM-DD`` in UTC, the present day included."""
    day = start or _configured_start()
    return dg.DailyPartitionsDefinition(start_date=f"{day:{DAY_FORMAT}}", fmt=DAY_FORMAT, timezone="UTC", end_offset=1)


def of_grain(grain: str | None) -> dg.PartitionsDefinition[str] | None:
    """The partitions of a canonical table, from its ``partition`` field."""
    return {"hour": hourly, "day": daily}[grain]() if grain else None


def _configured_start() -> date:
    return first_day(load_settings().partitions_start, datetime.now(UTC))
