"""Checks of the detection room.

What belongs here: asset checks on anomalies, alerts and maintenance windows, and on the hours that were closed. What
does not: the quality of detectors, which is measured (``aiops evaluate detector``), not checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg
import polars as pl

from aiops_assets.detection.assets import HOUR_CLOSED
from aiops_assets.lake.checks import EVERY_QUARTER, SettingsResource, all_table_checks, check_result
from aiops_assets.lake.drawing import markdown_table
from aiops_assets.lake.report import CheckResult
from aiops_assets.tables import ALERT_DECISIONS, ALERTS, ANOMALIES, CONFIG_VERSIONS, HOUR_RECEIPTS, MAINTENANCE

COMPLETE = "every_closed_hour_has_a_receipt"
COMPLETE_DESCRIPTION = "Every hour with points that is older than the newest closed one has a receipt."
AMENDED = "no_hours_amended_lately"
AMENDED_DESCRIPTION = (
    "No closed hour was derived again in the last 24 hours; those that were stand below, with the reason."
)
#: how far back "lately" reaches
LATELY = timedelta(hours=24)
_MOST_SHOWN = 50
_SHOWN = ("hour", "revision", "reason", "late_rows", "raised", "amended", "withdrawn", "derived_at")


def detection_checks() -> list[dg.AssetChecksDefinition]:
    """All checks of this room."""
    tables = [ANOMALIES, ALERTS, ALERT_DECISIONS, HOUR_RECEIPTS, CONFIG_VERSIONS, MAINTENANCE]
    return [*all_table_checks(tables), receipts_complete, no_hours_amended]


def lacking_receipts(points: Mapping[str, int], closed: Iterable[str], closed_before: str) -> CheckResult:
    """Whether hours were left out.

    Args:
        points: rows by hour.
        closed: hours with a receipt.
        closed_before: hours up to this one were closed before there were receipts ("": none).
    """
    known = set(closed)
    newest = max(known, default="")
    lacking = sorted(
        hour for hour, rows in points.items() if rows and closed_before < hour < newest and hour not in known
    )
    numbers: dict[str, int | str] = {"closed": len(known), "lacking": len(lacking)}
    if lacking:
        numbers |= {"some": ", ".join(lacking[:10]), "next": "aiops backfill FROM TO, or materialise the partitions"}
    return CheckResult(HOUR_RECEIPTS.name, COMPLETE, not lacking, COMPLETE_DESCRIPTION, numbers=numbers)


def amended_hours(receipts: pl.DataFrame, now: datetime) -> tuple[CheckResult, pl.DataFrame]:
    """Whether hours were amended lately, and which (newest first); ``receipts`` are rows of ``hour_receipts``."""
    recent = receipts.filter((pl.col("revision") > 1) & (pl.col("derived_at") > now - LATELY))
    shown = recent.sort("derived_at", "hour", descending=True).select(_SHOWN)
    numbers = {"hours": recent["hour"].n_unique(), "revisions": recent.height}
    return CheckResult(HOUR_CLOSED, AMENDED, recent.is_empty(), AMENDED_DESCRIPTION, "WARN", numbers=numbers), shown


@dg.asset_check(
    asset=HOUR_RECEIPTS.name, name=COMPLETE, description=COMPLETE_DESCRIPTION, automation_condition=EVERY_QUARTER
)
def receipts_complete(settings: SettingsResource) -> dg.AssetCheckResult:
    from aiops_assets.detection.handover import read_beginning
    from aiops_assets.lake.tables import Lake

    lake = Lake(settings.paths.lake)
    points = {part.partition: part.rows for part in lake.partitions("metric_points")}
    closed = [part.partition for part in lake.partitions(HOUR_RECEIPTS.name)]
    before = read_beginning(settings.paths.live / "handover") or ""
    return check_result(lacking_receipts(points, closed, before))


@dg.asset_check(asset=HOUR_CLOSED, name=AMENDED, description=AMENDED_DESCRIPTION, automation_condition=EVERY_QUARTER)
def no_hours_amended(settings: SettingsResource) -> dg.AssetCheckResult:
    from aiops_assets.lake.tables import Lake

    now = datetime.now(UTC)
    wanted = (pl.col("revision") > 1) & (pl.col("derived_at") > now - LATELY)
    result, shown = amended_hours(Lake(settings.paths.lake).scan(HOUR_RECEIPTS.name).filter(wanted).collect(), now)
    evaluated = check_result(result)
    if shown.is_empty():
        return evaluated
    table = dg.MetadataValue.md(markdown_table(shown.head(_MOST_SHOWN)))
    return evaluated._replace(metadata={**evaluated.metadata, "amended_hours": table})
