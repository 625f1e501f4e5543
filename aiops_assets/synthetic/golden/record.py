"""The record ``GoldenIncident``: its columns as a frame, and one record as a checked object.

What belongs here: shape and types of records. What does not: judging whether they are good (``synthetic.gate``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from aiops_assets.tables import GOLDEN_INCIDENTS

#: columns and dtypes of golden incidents: the table without the version of the data set
SCHEMA: dict[str, pl.DataType] = {name: dtype for name, dtype in GOLDEN_INCIDENTS.schema.items() if name != "version"}
#: dtype of one entry of ``work_notes``
NOTE: pl.DataType = SCHEMA["work_notes"].inner  # type: ignore[attr-defined]
#: columns that may be null
NULLABLE = frozenset(column.name for column in GOLDEN_INCIDENTS.columns if column.nullable)
STATES = ("New", "In Progress", "On Hold", "Resolved", "Closed")


class WorkNote(BaseModel):
    """A dated entry of one author."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    written_at: AwareDatetime
    author: str = Field(min_length=1)
    note: str = Field(min_length=1)


class GoldenIncident(BaseModel):
    """One synthetic incident. Times are aware; see ``tables.GOLDEN_INCIDENTS`` for what each field means."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    incident_id: str = Field(min_length=1, max_length=40)
    short_description: str = Field(min_length=1, max_length=250)
    description: str = Field(min_length=1, max_length=8_000)
    category: str = Field(min_length=1)
    subcategory: str = Field(min_length=1)
    priority: int = Field(ge=1, le=5)
    urgency: int = Field(ge=1, le=3)
    impact: int = Field(ge=1, le=3)
    state: str = Field(pattern="^(New|In Progress|On Hold|Resolved|Closed)$")
    assigned_to: str | None = None
    assignment_group: str | None = None
    caller_id: str = Field(min_length=1)
    contact_type: str = Field(min_length=1)
    location: str = Field(min_length=1)
    opened_at: AwareDatetime
    first_response_at: AwareDatetime | None = None
    resolved_at: AwareDatetime | None = None
    reopened_at: AwareDatetime | None = None
    closed_at: AwareDatetime | None = None
    configuration_item: str | None = None
    business_service: str = Field(min_length=1)
    business_domain: str = Field(min_length=1)
    work_notes: tuple[WorkNote, ...] = ()
    resolution_notes: str | None = None
    close_code: str | None = None
    reassignment_count: int = Field(ge=0)
    reopen_count: int = Field(ge=0)
    update_count: int = Field(ge=0)
    response_due_at: AwareDatetime
    resolution_due_at: AwareDatetime
    made_sla: bool
    language: str = Field(pattern="^[a-z]{2}$")
    ai_confidence_score: float = Field(ge=0, le=1)
    generation_timestamp: AwareDatetime
    model_version: str = Field(min_length=1)


def records(frame: pl.DataFrame) -> Iterator[GoldenIncident]:
    """The rows of a frame of ``SCHEMA`` as objects.

    Raises:
        pydantic.ValidationError: for a row that is no golden incident.
    """
    return (GoldenIncident.model_validate(row) for row in frame.iter_rows(named=True))


def frame_of(incidents: list[GoldenIncident]) -> pl.DataFrame:
    """Objects as a frame of ``SCHEMA``."""
    rows: list[dict[str, Any]] = [incident.model_dump() for incident in incidents]
    return pl.DataFrame(rows, schema=SCHEMA)
