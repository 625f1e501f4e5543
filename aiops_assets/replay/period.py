"""Stretches of time as people write them, and the hours they cover.

What belongs here: reading FROM, TO and FROM..TO. What does not: what is done with the hours.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from aiops_assets.hours import MICROS_PER_HOUR, hour_key, instant, micros

_NAMED = frozenset({"now", "today", "yesterday"})
FORMS = "write a day (2026-09-01), an hour (2026-09-01T05), an instant (2026-09-01T05:30Z), today, yesterday or now"


@dataclass(frozen=True, slots=True)
class Period:
    """Instants from ``start`` up to, not including, ``end``; microseconds since the epoch (UTC)."""

    start: int
    end: int

    @classmethod
    def parse(cls, first: str, last: str, *, now: datetime) -> Period:
        """Two instants as ``parse_instant`` reads them.

        Raises:
            ValueError: one of them cannot be read, or they are not in order.
        """
        start, end = parse_instant(first, now=now), parse_instant(last, now=now)
        if end <= start:
            raise ValueError(f"TO ({last}) must be later than FROM ({first}); TO is not included")
        return cls(start, end)

    @property
    def hours(self) -> tuple[str, str]:
        """The first and the last hour (partition keys) that it touches."""
        return hour_key(self.start), hour_key(self.end - 1)

    def whole_hours(self) -> Period:
        """Widened to whole hours."""
        end = -(-self.end // MICROS_PER_HOUR) * MICROS_PER_HOUR
        return Period(self.start // MICROS_PER_HOUR * MICROS_PER_HOUR, end)

    def overlaps(self, start: int, end: int) -> bool:
        """Whether it has an instant in [start, end)."""
        return self.start < end and start < self.end

    def __str__(self) -> str:
        return f"{_short(self.start)}..{_short(self.end)}"


def parse_mask(text: str, *, now: datetime) -> Period:
    """``FROM..TO``.

    Raises:
        ValueError: it cannot be read.
    """
    first, dots, last = text.partition("..")
    if not dots:
        raise ValueError(f"{text!r}: write FROM..TO, for example 2026-09-01T05..2026-09-01T07")
    return Period.parse(first, last, now=now)


def parse_instant(text: str, *, now: datetime | None = None) -> int:
    """Microseconds since the epoch of a day, hour or instant (UTC unless it says otherwise).

    ``now`` (aware) gives today, yesterday and now their meaning; without it they have none.

    Raises:
        ValueError: it cannot be read.
    """
    plain = text.strip()
    if now is not None and plain in _NAMED:
        midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return micros({"now": now, "today": midnight, "yesterday": midnight - timedelta(days=1)}[plain])
    try:
        found = datetime.fromisoformat(plain)
        at = micros(found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r}: not a time; {FORMS}") from error
    return at


def _short(at: int) -> str:
    """An instant without the parts that are zero at its end."""
    moment = instant(at)
    if at % MICROS_PER_HOUR == 0:
        return moment.strftime("%Y-%m-%dT%H" if moment.hour else "%Y-%m-%d")
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
