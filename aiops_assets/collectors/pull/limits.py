"""What servers say about how often they may be asked: ``Retry-After`` and the families of rate limit headers.

What belongs here: headers in, the instant until which to wait out. What does not: waiting, and requests (``http``).

Read are ``Retry-After`` (RFC 9110: seconds or a date), ``RateLimit-Remaining``/``-Reset`` and ``RateLimit`` of the IETF
drafts (seconds to wait), ``X-RateLimit-*`` (Datadog: seconds to wait; ServiceNow: an instant) and
``X-Organization-Rate-Limit-*`` (ThousandEyes: an instant). Seconds and instants are told apart by their size.
"""

from __future__ import annotations

import email.utils
import math
import re
from collections.abc import Mapping

#: nobody is believed who asks to wait longer (seconds)
LONGEST_WAIT = 6 * 3600.0
#: a limit without a word of how long (seconds)
UNTOLD_WAIT = 60.0
#: a number of at least this is an instant in seconds since the epoch, not a duration
_EPOCH = 100_000_000
_FAMILIES = ("x-ratelimit", "ratelimit", "x-organization-rate-limit", "x-instant-test-rate-limit")
_DRAFT = re.compile(r"(?:^|[;,\s])(limit|remaining|reset|r|t)\s*=\s*(\d+)")


def retry_after(header: str | None, now: float) -> float | None:
    """The instant (seconds since the epoch) that a ``Retry-After`` header names; ``None`` without a sense."""
    if header is None:
        return None
    header = header.strip()
    try:
        return _until(float(header), now)
    except ValueError:
        pass
    try:
        return _bounded(email.utils.parsedate_to_datetime(header).timestamp(), now)
    except (ValueError, TypeError, OverflowError):
        return None


def exhausted_until(headers: Mapping[str, str], now: float) -> float | None:
    """The instant until which no request is left, by headers with lower-case names; ``None`` while some are left."""
    latest: float | None = None
    for family in _FAMILIES:
        remaining, reset = _number(headers.get(f"{family}-remaining")), _number(headers.get(f"{family}-reset"))
        if remaining is None and family == "ratelimit":
            remaining, reset = _draft(headers.get("ratelimit", ""), reset)
        if remaining is not None and remaining <= 0 and reset is not None:
            latest = max(latest or 0.0, _until(reset, now))
    return latest


def refused_until(headers: Mapping[str, str], now: float) -> float:
    """The instant to wait for after an answer 429 or 503."""
    told = retry_after(headers.get("retry-after"), now)
    if told is not None:
        return told
    exhausted = exhausted_until(headers, now)
    if exhausted is not None:
        return exhausted
    for family in _FAMILIES:
        reset = _number(headers.get(f"{family}-reset"))
        if reset is not None:
            return _until(reset, now)
    period = _number(headers.get("x-ratelimit-period"))
    return _until(period if period is not None else UNTOLD_WAIT, now)


def _draft(header: str, reset: float | None) -> tuple[float | None, float | None]:
    """Remaining and reset of ``limit=100, remaining=5, reset=30`` or ``"name";r=5;t=30``."""
    found = {name: float(value) for name, value in _DRAFT.findall(header)}
    return found.get("remaining", found.get("r")), found.get("reset", found.get("t", reset))


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and math.isfinite(value) else None


def _until(seconds: float, now: float) -> float:
    if not math.isfinite(seconds):
        raise ValueError
    return _bounded(seconds if seconds >= _EPOCH else now + seconds, now)


def _bounded(instant: float, now: float) -> float:
    return min(max(instant, now), now + LONGEST_WAIT)
