"""Checks of the telemetry room: what the tables imply.

What belongs here: asset checks on this room's tables. What does not: missing landing segments (``landing``), how late
sources are, and whether they are refused series (``sources``).
"""

from __future__ import annotations

import dagster as dg

from aiops_assets.lake.checks import all_table_checks
from aiops_assets.tables import BASELINES, CHANGES, ENTITIES, METRIC_POINTS, SERIES, SPANS


def telemetry_checks() -> list[dg.AssetChecksDefinition]:
    """All checks of this room."""
    return all_table_checks([METRIC_POINTS, SERIES, BASELINES, ENTITIES, CHANGES, SPANS])
