"""When a request is repeated, and after how long.

What belongs here: which failures pass by themselves, exponential backoff with full jitter (M. Brooker,
"Exponential Backoff And Jitter", AWS Architecture Blog, 2015), ``Retry-After`` (RFC 9110, 10.2.3), and the breaker
that stops a storm of requests to a provider that is down. What does not: any provider's API (``compatible``).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: seconds before the first repetition at most, and before any without Retry-After
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 20.0
_PASSING = frozenset({408, 409, 425, 429})
_JITTER = random.Random()  # noqa: S311 - spreads repetitions, guards nothing


@dataclass(eq=False)
class Failure(Exception):
    """A request without an answer. ``status`` is that of HTTP, ``None`` where there was none.

    ``passing``: the same request may succeed later. ``hopeless``: no request will, until a person changes something.
    ``param`` is the field of the request that the provider objects to.
    """

    kind: str
    message: str
    status: int | None = None
    passing: bool = False
    hopeless: bool = False
    retry_after: float | None = None
    param: str | None = None

    def __str__(self) -> str:
        return self.message


def passes(status: int) -> bool:
    """Whether a request that got this status may succeed when it is repeated."""
    return status in _PASSING or status >= 500


def retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Seconds that a server asks to wait: ``retry-after-ms``, or ``Retry-After`` in seconds or as a date; else None."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if not value:
            continue
        try:
            return max(0.0, float(value) * unit)
        except ValueError:
            pass
        try:
            at = parsedate_to_datetime(value)
        except (TypeError, ValueError):
            continue
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return max(0.0, (at - datetime.fromtimestamp(now(), UTC)).total_seconds())
    return None


def pause(attempt: int, asked: float | None, longest_asked: float, jitter: random.Random = _JITTER) -> float:
    """Seconds before repetition ``attempt`` (from 0); never less than the server asked for, up to ``longest_asked``."""
    own = jitter.uniform(0.0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(attempt, 16)))
    return own if asked is None else max(min(asked, longest_asked), own if asked > 0 else 0.0)


class Breaker:
    """Open after ``failures`` in a row: nobody is asked for ``seconds``, and after that one question tries first."""

    def __init__(self, failures: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._seconds, self._clock = failures, seconds, clock
        self._failed = 0
        self._open_until: float | None = None
        self._trying = False
        self._reason = ""

    def refuses(self) -> str | None:
        """Why nobody may be asked now; ``None`` when one may."""
        if self._open_until is None:
            return None
        left = self._open_until - self._clock()
        if left > 0 or self._trying:
            again = f"tried again in {left:.0f} s" if left > 0 else "being tried again"
            return f"provider down, {again}: {self._reason}"
        return None

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Around a question that was not refused: while the first one after a pause is asked, others still wait."""
        first = self._open_until is not None and not self._trying
        self._trying |= first
        try:
            yield
        finally:
            if first:
                self._trying = False

    def succeeded(self) -> None:
        """The provider has answered, whatever the answer is worth."""
        self._failed, self._open_until = 0, None

    def failed(self, reason: str, *, hopeless: bool = False) -> None:
        """The provider has not answered; ``hopeless`` failures open at once."""
        self._failed += 1
        if hopeless or self._failed >= self._most or self._open_until is not None:
            self._open_until, self._reason = self._clock() + self._seconds, reason
