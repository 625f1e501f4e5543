"""What an amendment said of an alert: what it changed, in words, and which hour was derived again. Pure functions.

What belongs here: comparing two states of an alert. What does not: when an hour is derived again (``live``) and what an
amendment does to an incident (``placing``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import orjson

from aiops_assets.detection.wording import when
from aiops_assets.hours import hour_key
from aiops_assets.incidents.correlation import Alert, severity_word

#: how the resolution of an incident begins that was over before anybody could know of it
FOUND = "found by an amendment"
#: how the resolution of an incident begins whose alerts should never have fired
WITHDRAWN = "withdrawn"

AmendmentKind = Literal["found", "corrected", "withdrawn", "restored"]
What = Literal["severity", "value", "limit", "start", "end"]
_HOUR = re.compile(r"\b\d{4}-\d{2}-\d{2}T\d{2}\b")


@dataclass(frozen=True, slots=True)
class Correction:
    """One thing that changed: severity is a word, value and limit numbers, start and end microseconds (UTC).

    The end is ``None`` while the alert fires.
    """

    what: What
    before: str | float | int | None
    after: str | float | int | None


def kind_of(before: Alert | None, after: Alert) -> AmendmentKind:
    """What an amended revision means for an alert as it was known before (``None``: it was not)."""
    if after.withdrawn:
        return "withdrawn"
    if before is None:
        return "found"
    return "restored" if before.withdrawn else "corrected"


def corrections(before: Alert, after: Alert) -> tuple[Correction, ...]:
    """What differs between two states of an alert, as far as it concerns people."""
    pairs: tuple[tuple[What, str | float | int | None, str | float | int | None], ...] = (
        ("severity", severity_word(before.severity_number), severity_word(after.severity_number)),
        ("value", before.value, after.value),
        ("limit", before.threshold, after.threshold),
        ("start", before.starts_at, after.starts_at),
        ("end", before.ends_at, after.ends_at),
    )
    return tuple(Correction(what, old, new) for what, old, new in pairs if old != new)


def corrections_text(found: Iterable[Correction]) -> str:
    """``severity warning → error; end still firing → 2026-01-10 22:00:05 UTC``; empty when nothing changed."""
    told = ((entry.what, side_text(entry, entry.before), side_text(entry, entry.after)) for entry in found)
    return "; ".join(f"{what} {before} → {after}" for what, before, after in told)


def side_text(entry: Correction, side: str | float | int | None) -> str:
    """The old or the new side of a correction."""
    if side is None:
        return "still firing" if entry.what == "end" else "none"
    if entry.what in {"start", "end"}:
        return when(int(side))
    return f"{side:.6g}" if isinstance(side, float | int) else side


def amendment_text(kind: AmendmentKind, alert: Alert, found: Iterable[Correction]) -> str:
    """The sentence of the timeline."""
    words = {"found": FOUND, "corrected": "corrected", "withdrawn": "withdrawn", "restored": "no longer withdrawn"}
    changed = corrections_text(found)
    return f"{alert.title} – {words[kind]}: {alert.amended_by}" + (f" ({changed})" if changed else "")


def hour_of(alert: Alert) -> str:
    """The hour that was derived again: named by the reason, else the hour in which the alert began."""
    named = _HOUR.search(alert.amended_by or "")
    return named.group() if named else hour_key(alert.starts_at)


def tells_the_end(alert: Alert) -> bool:
    """Whether title, value and evidence of a revision say how the alert ended, not what was wrong."""
    return alert.state == "resolved" and "duration_seconds" in orjson.loads(alert.evidence or "{}")
