"""When somebody is paged: the one definition, for live sessions, replays, reports and effects. Pure.

Somebody is paged at the moment at which an incident

- is **opened** and runs (one that is found by an amendment when it is over already pages nobody),
- is **reopened** by the platform: people were told that it was over (what a person reopens pages nobody), or
- is **raised**: its priority has risen to P1 or P2 and nobody was paged for it at that priority since it last began.

Whoever sends pages takes them from ``IncidentStore.pages``, where each stands once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: priorities to which a rise is worth a page
RAISED_TO = 2

PageReason = Literal["opened", "reopened", "raised"]


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides about pages. ``paged`` is the highest priority (lowest number) paged since it last began."""

    running: bool
    priority: int
    paged: int | None


def page_reason(before: Standing | None, after: Standing) -> PageReason | None:
    """Why somebody is paged when the platform changes an incident (``None`` before: it was just opened)."""
    if not after.running:
        return None
    if before is None:
        return "opened"
    if not before.running:
        return "reopened"
    rose = after.priority < before.priority and after.priority <= RAISED_TO
    return "raised" if rose and (before.paged is None or after.priority < before.paged) else None
