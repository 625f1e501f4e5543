"""Numbers and names as people read them in titles and summaries.

What belongs here: quantities with their unit, durations, instants, and the defusing of names that senders chose. What
does not: the sentences themselves, which stand beside the decision they describe.
"""

from __future__ import annotations

import math

from aiops_assets.hours import MICROS_PER_SECOND, instant

_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_SYMBOLS = {"Cel": "°C"}
OP_SYMBOL = {">": ">", ">=": "≥", "<": "<", "<=": "≤"}


def quantity(value: float, unit: str | None) -> str:
    """A value with its UCUM unit: ``1`` as a percentage, bytes with binary prefixes, seconds as a duration."""
    if unit == "1":
        return f"{value * 100:.4g}%"
    if unit in {"By", "By/s"}:
        power = 0
        while abs(value) >= 1024 and power < len(_BINARY) - 1:
            value, power = value / 1024, power + 1
        return f"{value:.4g} {_BINARY[power]}{'B' if unit == 'By' else 'B/s'}"
    if unit == "s":
        return duration(value)
    if not unit:
        return f"{value:.6g}"
    return f"{value:.6g} {printable(_SYMBOLS.get(unit, unit).replace('{', '').replace('}', ''), 24)}"


def duration(seconds: float) -> str:
    """``45 s``, ``5 min``, ``2 h 10 min``, ``3 d 4 h``."""
    if not math.isfinite(seconds) or abs(seconds) < 60:
        return f"{seconds:.3g} s"
    sign, minutes = ("-" if seconds < 0 else ""), round(abs(seconds) / 60)
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        parts = [f"{days} d", f"{hours} h" if hours else ""]
    elif hours:
        parts = [f"{hours} h", f"{minutes} min" if minutes else ""]
    else:
        parts = [f"{minutes} min"]
    return sign + " ".join(part for part in parts if part)


def when(micros: int) -> str:
    """``2026-01-10 22:00:05 UTC`` of microseconds since the epoch."""
    return instant(micros // MICROS_PER_SECOND * MICROS_PER_SECOND).strftime("%Y-%m-%d %H:%M:%S UTC")


def printable(text: str, limit: int = 120) -> str:
    """The text without control and direction characters and at most ``limit`` long: safe in a terminal or a log."""
    if not text.isprintable():
        text = "".join(character if character.isprintable() else "\ufffd" for character in text[: limit + 1])
    return text if len(text) <= limit else text[: limit - 1] + "…"
