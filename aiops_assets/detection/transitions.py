"""The change that rules and detectors report: something began or ended on a series."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FIRING: Literal["firing"] = "firing"
RESOLVED: Literal["resolved"] = "resolved"


@dataclass(frozen=True, slots=True)
class Transition:
    """A rule or detector changed its mind about one series. Instants are microseconds since the epoch (UTC).

    ``starts_at`` is the first bad point, ``at`` the point (or the watermark) that decided. ``row`` is the row of the
    batch that decided, -1 when no point did (absence).
    """

    kind: Literal["rule", "anomaly", "absence"]
    name: str
    series: int
    state: Literal["firing", "resolved"]
    starts_at: int
    at: int
    severity_number: int
    summary: str
    value: float | None = None
    threshold: float | None = None
    evidence: Mapping[str, object] = field(default_factory=dict)
    row: int = -1
