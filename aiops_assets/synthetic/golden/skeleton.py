"""What is drawn of an incident before it is told: the frame's schema, and who can supply such frames.

What belongs here: the shape of skeletons. What does not: drawing them from a configuration (``declared``) or from a
fitted reference (``calibrated``), and making tickets of them (``lifecycle``, ``telling``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import polars as pl

from aiops_assets.tables import TIMESTAMP

#: One row an incident, its whole life, whatever the instant is at which it will be seen. ``index`` counts from 0 in
#: order of ``opened_at``. ``response_seconds`` and ``resolve_seconds`` count from the opening, ``close_seconds`` from
#: the (last) resolution; all wall-clock, ``resolve_seconds`` >= ``response_seconds`` >= 0, null ``resolve_seconds``:
#: never resolved. Null ``update_count``, ``made_sla``, ``assigned_to``, ``close_code`` are derived in the telling.
SKELETON_SCHEMA: dict[str, pl.DataType] = {
    "index": pl.Int64(),
    "opened_at": TIMESTAMP,
    "category": pl.String(),
    "subcategory": pl.String(),
    "business_service": pl.String(),
    "business_domain": pl.String(),
    "contact_type": pl.String(),
    "location": pl.String(),
    "caller_id": pl.String(),
    "impact": pl.Int32(),
    "urgency": pl.Int32(),
    "priority": pl.Int32(),
    "assignment_group": pl.String(),
    "assigned_to": pl.String(),
    "configuration_item": pl.String(),
    "reassignment_count": pl.Int32(),
    "reopen_count": pl.Int32(),
    "response_seconds": pl.Float64(),
    "resolve_seconds": pl.Float64(),
    "close_seconds": pl.Float64(),
    "update_count": pl.Int32(),
    "made_sla": pl.Boolean(),
    "close_code": pl.String(),
}
#: columns of ``SKELETON_SCHEMA`` that may be null
NULLABLE = frozenset(
    {
        "assigned_to",
        "configuration_item",
        "resolve_seconds",
        "close_seconds",
        "update_count",
        "made_sla",
        "close_code",
    }
)


#: ``assigned_to`` of an incident that names nobody although it was worked on, as references show them; null: derived
NOBODY = ""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The names that records of a source may bear; empty where a source does not limit a field."""

    #: category → its subcategories
    categories: Mapping[str, frozenset[str]]
    #: assignment groups in a fixed order: misrouted tickets go to one of them first
    groups: tuple[str, ...]
    #: category → groups whose work it is; a category that is missing fits every group
    fitting: Mapping[str, frozenset[str]] = field(default_factory=dict)
    services: frozenset[str] = frozenset()


class SkeletonSource(Protocol):
    """Draws skeletons; pure: a function of its own content and the arguments."""

    def vocabulary(self) -> Vocabulary:
        """The names that skeletons of this source may bear."""
        ...

    def skeletons(self, start: int, count: int, total: int, seed: int) -> pl.DataFrame:
        """Incidents ``start`` … ``start + count`` of a data set of ``total``, a frame of ``SKELETON_SCHEMA``.

        Any slice equals that part of the whole, whatever was drawn before.
        """
        ...
