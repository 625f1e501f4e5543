"""Checks of the detection room.

What belongs here: asset checks on anomalies, alerts and maintenance windows. What does not: the quality of detectors,
which is measured (``aiops evaluate detector``), not checked.
"""

from __future__ import annotations

import dagster as dg

from aiops_assets.lake.checks import all_table_checks
from aiops_assets.tables import ALERTS, ANOMALIES, MAINTENANCE


def detection_checks() -> list[dg.AssetChecksDefinition]:
    """All checks of this room."""
    return all_table_checks([ANOMALIES, ALERTS, MAINTENANCE])
