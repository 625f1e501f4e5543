"""Checks of the errors room: what its tables imply.

What belongs here: asset checks on this room's tables. What does not: how late sources are (``sources``).
"""

from __future__ import annotations

import dagster as dg

from aiops_assets.lake.checks import all_table_checks
from aiops_assets.tables import ERROR_EVENTS


def error_checks() -> list[dg.AssetChecksDefinition]:
    """All checks of this room."""
    return all_table_checks([ERROR_EVENTS])
