"""Counters become rates here, and restarts are told from wraps.

What belongs here: pure arithmetic on two samples of a counter or of an uptime. What does not: where samples come from.
The method follows the semantics of Counter32, Counter64 and TimeTicks in RFC 2578 (sections 7.1.6, 7.1.8, 7.1.10) and
the discontinuity rules of RFC 2863 (section 3.1.5): after a restart there is no rate until two samples of the new life
exist, and a counter that went back is taken for wrapped only when that is plausible.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Literal

#: no counter of a real device grows faster than this per second (10 Tbit/s in bytes is 1.25e12)
ABSURD_RATE = 2e12
#: two samples nearer than this (seconds) give no meaningful rate
SHORTEST_SPAN = 0.05
#: TimeTicks are hundredths of a second in 32 bits: they wrap after 497 days
TICKS_WRAP = 1 << 32


def rate(
    previous: int, current: int, seconds: float, bits: Literal[32, 64], limit: float | None = None
) -> float | None:
    """Growth per second between two samples of a counter, or ``None`` when no honest number exists.

    A smaller value means a wrap or an unannounced restart. It counts as a wrap only if the counter was in the upper
    half of its range and grew by less than half of it, and, when ``limit`` (per second) is known, no faster than that.
    64-bit counters practically never wrap: one is believed only within 2**40 of the top.
    """
    if seconds < SHORTEST_SPAN:
        return None
    grown = current - previous
    if grown < 0:
        size = 1 << bits
        grown += size
        if previous < size // 2 or grown > (size // 2 if bits == 32 else 1 << 40) or grown < 0:
            return None
        if limit is not None and grown / seconds > limit:
            return None
    result = grown / seconds
    return result if result <= ABSURD_RATE else None


@dataclass(slots=True)
class _Sample:
    value: int
    bits: Literal[32, 64]
    at: float


@dataclass(slots=True)
class Counters:
    """The last sample of every counter of one device; ``turn`` forgets those that were not seen in the last poll."""

    _before: dict[Hashable, _Sample] = field(default_factory=dict)
    _now: dict[Hashable, _Sample] = field(default_factory=dict)

    def rate(
        self, key: Hashable, value: int, at: float, bits: Literal[32, 64] = 64, limit: float | None = None
    ) -> float | None:
        """Per-second growth of counter ``key`` since the poll before, at first ``None``; ``at``: monotonic seconds."""
        before = self._before.get(key)
        self._now[key] = _Sample(value, bits, at)
        if before is None or before.bits != bits:
            return None
        return rate(before.value, value, at - before.at, bits, limit)

    def turn(self) -> None:
        """End of a poll: what was read becomes what the next poll is compared with."""
        self._before, self._now = self._now, {}

    def reset(self) -> None:
        """Forget everything: the device restarted, its counters began anew."""
        self._before.clear()


@dataclass(frozen=True, slots=True)
class Uptime:
    """An uptime in hundredths of a second (32 bits), read at ``at`` wall clock seconds since the epoch (UTC)."""

    ticks: int
    at: float

    @property
    def booted_at(self) -> float:
        """When the count began, as far as one lap of the counter can tell."""
        return self.at - self.ticks / 100


def restarted(before: Uptime, now: Uptime) -> bool:
    """Whether the count began anew between two readings, the 497-day wrap not counted as such.

    A count that went back is a restart unless it is where a wrap would have put it, within a minute or 2% of the time
    passed (clocks drift, replies are late). A count that went on (or is two seconds back, which is jitter), but by far
    less than time did, is a restart only if it could have begun since: neither a suspended machine nor a corrected
    clock is one.
    """
    passed = max(now.at - before.at, 0.0) * 100
    slack = max(6_000.0, 0.02 * passed)
    expected = before.ticks + passed
    if now.ticks >= before.ticks - 200:
        return expected - now.ticks > slack and now.ticks <= passed + 200
    return abs(expected - TICKS_WRAP - now.ticks) > slack
