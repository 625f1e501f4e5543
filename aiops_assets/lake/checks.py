"""The checks of canonical tables as Dagster asset checks, to be run from the UI.

What belongs here: wiring of ``lake.quality`` to Dagster. What does not: the checks themselves, and their evaluation for
the hours that a live session touches (it calls ``lake.quality`` and logs the outcome itself).
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

import dagster as dg

from aiops_assets.hours import HOUR_FORMAT
from aiops_assets.lake import quality
from aiops_assets.lake.report import CheckResult
from aiops_assets.partitions import DAY_FORMAT
from aiops_assets.settings import Settings
from aiops_assets.tables import Table

#: what the name of a resource in every location gives
SettingsResource = dg.ResourceParam[Settings]
#: for checks that must also run while no session does: silence is what they look for
EVERY_QUARTER: "dg.AutomationCondition[dg.AssetCheckKey]" = cast(
    "dg.AutomationCondition[dg.AssetCheckKey]", dg.AutomationCondition.cron_tick_passed("*/15 * * * *")
)


class Window(dg.Config):
    """How far back a check that is run by hand looks."""

    hours: int = 3


def table_checks(table: Table) -> dg.AssetChecksDefinition:
    """One asset check definition with all that the table's description implies; single checks can be selected."""
    specs = [
        dg.AssetCheckSpec(
            expectation.name, asset=table.name, description=expectation.description, blocking=expectation.blocking
        )
        for expectation in quality.expectations(table)
    ]

    @dg.multi_asset_check(name=f"check_{table.name}", specs=specs, can_subset=True)
    def check(
        context: dg.AssetCheckExecutionContext, config: Window, settings: SettingsResource
    ) -> Iterator[dg.AssetCheckResult]:
        from aiops_assets.lake.tables import Lake

        selected = [key.name for key in context.selected_asset_check_keys]
        partitions = recent(table, config.hours)
        for result in quality.evaluate(Lake(settings.paths.lake), table.name, partitions, selected):
            yield check_result(result)

    return check


def recent(table: Table, hours: int) -> list[str] | None:
    """Keys of the newest partitions that a window covers; ``None`` for a table without partitions."""
    now = datetime.now(UTC)
    if table.partition == "hour":
        return [(now - timedelta(hours=back)).strftime(HOUR_FORMAT) for back in range(hours)]
    if table.partition == "day":
        return [(now - timedelta(days=back)).strftime(DAY_FORMAT) for back in range(hours // 24 + 1)]
    return None


def check_result(result: CheckResult) -> dg.AssetCheckResult:
    """A ``CheckResult`` as a check function of Dagster returns it."""
    return dg.AssetCheckResult(
        asset_key=dg.AssetKey(result.table.split("/")),
        check_name=result.name,
        passed=result.passed,
        severity=dg.AssetCheckSeverity[result.severity],
        description=result.description,
        metadata=dict(result.numbers),
    )


def all_table_checks(tables: Sequence[Table]) -> list[dg.AssetChecksDefinition]:
    """``table_checks`` for several tables."""
    return [table_checks(table) for table in tables]
