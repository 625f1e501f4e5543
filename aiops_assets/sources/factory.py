"""From a source entry to Dagster definitions: the asset of its drops, its freshness policy, checks and row in docs.

What belongs here: the factory. What does not: the entries (``sources.catalogue``).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta

import dagster as dg

from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.lake.assets import drops_key
from aiops_assets.lake.checks import EVERY_QUARTER, SettingsResource, check_result
from aiops_assets.sources import health
from aiops_assets.sources.catalogue import SourceEntry
from aiops_assets.tables import PLATFORM, SERIES

GROUP = "intake"
_MINUTE = timedelta(minutes=1)


def source_spec(entry: SourceEntry) -> dg.AssetSpec:
    """The external asset that stands for a source's drops."""
    return dg.AssetSpec(
        drops_key(entry.name),
        group_name=GROUP,
        owners=[PLATFORM],
        kinds=set(entry.kinds),
        description=f"{entry.description}\n\n**How to point the sender here.** {entry.point_here}\n\n"
        "Keys: `aiops keys create`. The live session reports what arrived here about once a minute.",
        freshness_policy=freshness_policy(entry.freshness),
        metadata={
            "formats": ", ".join(entry.formats),
            "late_after_seconds": entry.freshness.total_seconds() if entry.freshness else "never",
        },
    )


def freshness_policy(age: timedelta | None) -> dg.FreshnessPolicy | None:
    """Fails at ``age`` (Dagster takes no less than two minutes here), warns at half of it."""
    if age is None:
        return None
    fail = max(age, 2 * _MINUTE)
    return dg.FreshnessPolicy.time_window(fail_window=fail, warn_window=max(fail / 2, _MINUTE))


def source_checks(entries: Sequence[SourceEntry]) -> list[dg.AssetChecksDefinition]:
    """One check a source, one more for what the collector polls, and one for what all of them may add to ``series``."""
    return [
        check_series_within_cap,
        *(_arrives_check(entry, entry.freshness.total_seconds()) for entry in entries if entry.freshness),
        *(_laggard_check(entry.name) for entry in entries if entry.polled),
    ]


def _arrives_check(entry: SourceEntry, limit: float) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=drops_key(entry.name),
        name=health.ARRIVES,
        description=health.ARRIVES_TEXT,
        automation_condition=EVERY_QUARTER,
    )
    def arrives(settings: SettingsResource) -> dg.AssetCheckResult:
        from aiops_assets.live.progress import SourceProgress, read_progress

        seen = read_progress(settings.paths.live).sources.get(entry.name, SourceProgress())
        now = int(time.time() * MICROS_PER_SECOND)
        return check_result(health.arrives_in_time(entry.name, limit, seen.last_received_at, now))

    return arrives


def _laggard_check(source: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=drops_key(source),
        name=health.NO_LAGGARDS,
        description=health.LAGGARDS_TEXT,
        automation_condition=EVERY_QUARTER,
    )
    def laggards(settings: SettingsResource) -> dg.AssetCheckResult:
        return check_result(health.no_laggards(source, health.read_status(settings.paths.collector / "status.json")))

    return laggards


@dg.asset_check(
    asset=SERIES.name, name=health.WITHIN_CAP, description=health.CAP_TEXT, automation_condition=EVERY_QUARTER
)
def check_series_within_cap(settings: SettingsResource) -> dg.AssetCheckResult:
    from aiops_assets.live.progress import read_progress

    sources = read_progress(settings.paths.live).sources
    return check_result(health.series_within_cap({name: seen.refused_series for name, seen in sources.items()}))
