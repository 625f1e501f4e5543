"""Tolerant reading of what management controllers write as JSON.

What belongs here: looking a property up whatever its case, and turning doubtful values into a number, a text, a link,
an instant or nothing. What does not: what a property means (``resources``). Nothing here raises on content.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from aiops_assets.formats.payload import FORBIDDEN
from aiops_assets.hours import micros

State = Literal["ok", "degraded", "failed"]

LONGEST_TEXT = 200
LONGEST_PATH = 1_000
ROOT = "/redfish/v1"
#: instants before this (microseconds, the year 2000) are of a clock that was never set
PLAUSIBLE = 946_684_800_000_000

_HEALTH: Mapping[str, State] = {"ok": "ok", "warning": "degraded", "critical": "failed"}
#: states in which a sensor measures nothing, although some services write a number
_DARK = frozenset({"absent", "disabled", "unavailableoffline", "standbyoffline"})
_WORSE: tuple[State, ...] = ("ok", "degraded", "failed")
_NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d{1,15})?")


def field(record: object, name: str) -> Any:
    """A property by name, in any case when it is not there as written; ``None`` when it is absent or null."""
    if not isinstance(record, dict):
        return None
    if name in record:
        return record[name]
    lowered = name.lower()
    for key, value in record.items():
        if len(key) == len(name) and key.lower() == lowered:
            return value
    return None


def number(value: object) -> float | None:
    """A finite number, also one written as text; booleans are none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value.strip()) else None
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None


def text(value: object) -> str | None:
    """A short text of one line, numbers written out; ``None`` when nothing is left."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return FORBIDDEN.sub(" ", str(value)).strip()[:LONGEST_TEXT].strip() or None


def records(value: object) -> list[dict[str, Any]]:
    """The objects of an array; of a single object, itself."""
    if isinstance(value, dict):
        return [value]
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def link(value: object) -> str | None:
    """Where a link leads: ``{"@odata.id": …}``, ``{"href": …}`` of early services, or the address itself."""
    if isinstance(value, dict):
        value = field(value, "@odata.id") or field(value, "href")
    return value if isinstance(value, str) and 0 < len(value) <= LONGEST_PATH else None


def next_link(body: object) -> str | None:
    """Where the next page of a collection is."""
    for name in ("Members@odata.nextLink", "@odata.nextLink", "Members@odata.nextlink"):
        found = link(field(body, name))
        if found:
            return found
    return None


def members(body: object) -> list[dict[str, Any]]:
    """The members of a collection page."""
    for name in ("Members", "Items"):
        found = field(body, name)
        if isinstance(found, list):
            return records(found)
    return []


def is_expanded(member: Mapping[str, Any]) -> bool:
    """Whether a member is there itself rather than a link to it."""
    return any(not key.startswith("@") and key != "href" for key in member)


def short(path: str) -> str:
    """An identifier made from a path: without the service root and without a slash at the end."""
    cut = path[len(ROOT) :] if path[: len(ROOT)].lower() == ROOT else path
    return FORBIDDEN.sub(" ", cut.strip("/")) or "root"


def is_absent(record: object) -> bool:
    """Whether nothing is in this place."""
    return (text(field(field(record, "Status"), "State")) or "").lower() == "absent"


def measured(record: object, *names: str) -> float | None:
    """The number that the first of these properties with one holds, unless the sensor is not in service."""
    state = text(field(field(record, "Status"), "State"))
    if state is not None and state.lower() in _DARK:
        return None
    for name in names:
        value = number(field(record, name))
        if value is not None:
            return value
    return None


def health(record: object, *, rollup: bool = False) -> State | None:
    """The judgement of the service on a component, ``None`` where it gives none or nothing is in its place.

    With ``rollup`` the worse of its own state and that of its parts.
    """
    status = field(record, "Status")
    if not isinstance(status, dict) or is_absent(record):
        return None
    found: list[State] = []
    for name in ("Health", "HealthRollup", "HealthRollUp") if rollup else ("Health",):
        word = text(field(status, name))
        state = _HEALTH.get(word.lower()) if word else None
        if state is not None:
            found.append(state)
    return max(found, key=_WORSE.index) if found else None


def instant(value: object) -> int | None:
    """Microseconds since the epoch (UTC) of an ISO 8601 instant; without a zone it is taken for UTC."""
    if not isinstance(value, str) or len(value) > 40:
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
        return micros(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None
