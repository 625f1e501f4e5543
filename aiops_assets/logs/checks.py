"""Checks of the logs room: what its tables imply.

What belongs here: asset checks on this room's tables. What does not: how late sources are (``sources``).
"""

from __future__ import annotations

import dagster as dg

from aiops_assets.lake.checks import all_table_checks
from aiops_assets.tables import LOG_EVENTS


def log_checks() -> list[dg.AssetChecksDefinition]:
    """All checks of this room."""
    return all_table_checks([LOG_EVENTS])
