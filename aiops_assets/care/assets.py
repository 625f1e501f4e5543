"""Lake care as assets: what each did stands in the run as tables of before and after.

What belongs here: wiring, configuration and wording. What does not: the work (``live.upkeep``). Whatever destroys is a
dry run unless it is told otherwise; the schedule tells.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from aiops_assets.lake.drawing import markdown_table
from aiops_assets.settings import Settings
from aiops_assets.tables import PLATFORM

GROUP = "lake_care"
COMPACTION, PACKS, RETENTION = "lake_compaction", "landing_packs", "lake_retention"
VERIFICATION, VACUUM, RELEASE = "lake_verification", "lake_vacuum", "landing_release"
#: in the order in which the job runs them
NAMES = (COMPACTION, PACKS, RETENTION, VERIFICATION, VACUUM, RELEASE)
#: tables whose hours are compacted, expire and have receipts
_OF_LAKE = [dg.AssetKey(name) for name in ("metric_points", "baselines", "anomalies", "alerts")]
_MIB = 1024 * 1024


class DryRun(dg.Config):
    """Whether to do it."""

    dry_run: bool = Field(default=True, description="only count what would be done")


class VacuumConfig(DryRun):
    """How long files without a use are kept."""

    keep_hours: float = Field(default=24, ge=1, description="readers that have them open may finish within this time")


class PackConfig(DryRun):
    """Which segments are packed."""

    after_hours: float = Field(default=1, ge=0, description="segments that were sealed this long ago")


class VerifyConfig(dg.Config):
    """How much is looked at."""

    full: bool = Field(default=False, description="read everything, not only what is new since the last look")


def care_assets() -> list[dg.AssetsDefinition]:
    """All assets of lake care."""
    return [_compaction(), _packs(), _retention(), _verification(), _vacuum(), _release()]


def _asset(name: str, description: str, kinds: set[str], deps: list[dg.AssetKey], **more: Any) -> Any:
    return dg.asset(
        name=name,
        deps=deps,
        group_name=GROUP,
        owners=[PLATFORM],
        kinds=kinds,
        description=description,
        tags={"plane": "learning"},
        **more,
    )


def _result(dry_run: bool, what: list[dict[str, Any]], **totals: Any) -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(
        metadata={"dry_run": dry_run, **totals, "what": dg.MetadataValue.md(markdown_table(pl.DataFrame(what)))}
    )


def _mib(size: int) -> float:
    return round(size / _MIB, 2)


def _compaction() -> dg.AssetsDefinition:
    @_asset(
        COMPACTION,
        "Closed partitions as one sorted file each, in the layout that steady metrics take the fewest bytes in. The "
        "live session stands aside while it runs, for two minutes at most.\n\nBy hand: `aiops lake compact`.",
        {"deltalake"},
        _OF_LAKE,
    )
    def lake_compaction(
        context: dg.AssetExecutionContext, config: DryRun, settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult[None]:
        from aiops_assets.live.upkeep import compact_closed

        done = compact_closed(settings, dry_run=config.dry_run, now=datetime.now(UTC), tell=_teller(context))
        rows = [
            {
                "table": table.table,
                "partitions": table.partitions,
                "rows": table.rows,
                "files before": table.files_before,
                "files after": table.files_after,
                "MiB before": _mib(table.size_before),
                "MiB after": _mib(table.size_after),
                "bytes a row": round(table.size_after / max(table.rows, 1), 2),
                "not readable": table.unreadable,
            }
            for table in done
        ]
        return _result(
            config.dry_run,
            rows,
            partitions=sum(table.partitions for table in done),
            files_before=sum(table.files_before for table in done),
            files_after=sum(table.files_after for table in done),
            bytes_before=sum(table.size_before for table in done),
            bytes_after=sum(table.size_after for table in done),
        )

    return lake_compaction


def _packs() -> dg.AssetsDefinition:
    @_asset(
        PACKS,
        "Old landing segments, many to a compressed file. Readers, replays and rebuilds read them as before.\n\nBy "
        "hand: `aiops lake pack`.",
        {"file"},
        [],
    )
    def landing_packs(
        context: dg.AssetExecutionContext, config: PackConfig, settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult[None]:
        from aiops_assets.live.upkeep import pack_segments

        done = pack_segments(
            settings,
            dry_run=config.dry_run,
            now=datetime.now(UTC),
            after_hours=config.after_hours,
            tell=_teller(context),
        )
        rows = [
            {
                "writer": writer.writer,
                "segments": writer.segments,
                "packs": writer.packs,
                "MiB before": _mib(writer.size),
                "MiB after": _mib(writer.packed_size),
            }
            for writer in done
        ]
        return _result(
            config.dry_run,
            rows,
            files_before=sum(writer.segments for writer in done),
            files_after=sum(writer.packs for writer in done),
            bytes_before=sum(writer.size for writer in done),
            bytes_after=sum(writer.packed_size for writer in done),
        )

    return landing_packs


def _retention() -> dg.AssetsDefinition:
    @_asset(
        RETENTION,
        "Whole partitions that have passed their table's retention (`retention` in aiops.yaml) go. Receipts stay "
        "longer and say 'inputs expired' from then on.\n\nBy hand: `aiops lake retain`.",
        {"deltalake"},
        _OF_LAKE,
    )
    def lake_retention(config: DryRun, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[None]:
        from aiops_assets.live.upkeep import expire_rows

        gone = expire_rows(settings, dry_run=config.dry_run, now=datetime.now(UTC))
        rows = [
            {
                "table": table.table,
                "from": table.first,
                "to": table.last,
                "partitions": table.partitions,
                "rows": table.rows,
                "files": table.files,
                "MiB": _mib(table.size),
            }
            for table in gone
        ]
        return _result(
            config.dry_run,
            rows,
            partitions=sum(table.partitions for table in gone),
            rows=sum(table.rows for table in gone),
            bytes=sum(table.size for table in gone),
        )

    return lake_retention


def _verification() -> dg.AssetsDefinition:
    from aiops_assets.lake.verification import CHECKS

    @_asset(
        VERIFICATION,
        "Is the lake what its logs and receipts say? Files, commits, statistics, keys, partitions, and the hashes of "
        "closed hours. Only what is new is read, unless `full` is set. Segments are released only after it.\n\n"
        "By hand: `aiops lake verify`.",
        {"deltalake"},
        [*_OF_LAKE, dg.AssetKey(PACKS)],
        check_specs=[
            dg.AssetCheckSpec(name, asset=VERIFICATION, description=text, blocking=True)
            for name, text in CHECKS.items()
        ],
    )
    def lake_verification(
        context: dg.AssetExecutionContext, config: VerifyConfig, settings: dg.ResourceParam[Settings]
    ) -> Iterator[Any]:
        from aiops_assets.live.upkeep import verify_all

        outcome = verify_all(settings, full=config.full, now=datetime.now(UTC), tell=_teller(context))
        for finding in outcome.findings:
            place = " ".join(filter(None, (finding.table, finding.partition, finding.file)))
            context.log.error(f"{place}: {finding.what}; next: {finding.next_step}")
        tables = [
            {
                "table": table.table,
                "version": table.version,
                "files": table.files,
                "read now": table.read,
                "rows": table.rows,
                "MiB": _mib(table.size),
                "findings": table.findings,
            }
            for table in outcome.tables
        ]
        yield dg.MaterializeResult(
            metadata={
                "full": config.full,
                "findings": len(outcome.findings),
                "files_read": sum(table.read for table in outcome.tables),
                "hours_compared": outcome.hours_compared,
                "inputs_expired": outcome.expired,
                "seconds": round(outcome.seconds, 2),
                "tables": dg.MetadataValue.md(markdown_table(pl.DataFrame(tables))),
                "wrong": dg.MetadataValue.md(markdown_table(_findings(outcome.findings))),
            }
        )
        for name, text in CHECKS.items():
            wrong = [finding for finding in outcome.findings if finding.check == name]
            yield dg.AssetCheckResult(
                asset_key=VERIFICATION,
                check_name=name,
                passed=not wrong,
                description=wrong[0].what if wrong else text,
                metadata={"findings": len(wrong), "wrong": dg.MetadataValue.md(markdown_table(_findings(wrong)))},
            )

    return lake_verification


def _findings(findings: list[Any]) -> pl.DataFrame:
    rows = [
        {
            "table": finding.table,
            "partition": finding.partition or "",
            "file": finding.file or "",
            "what": finding.what,
            "next": finding.next_step,
        }
        for finding in findings[:50]
    ]
    return pl.DataFrame(rows)


def _vacuum() -> dg.AssetsDefinition:
    @_asset(
        VACUUM,
        "Files that no version of a table needs any more, and old entries of the Delta logs, go.\n\nBy hand: `aiops "
        "lake vacuum`.",
        {"deltalake"},
        [dg.AssetKey(VERIFICATION), dg.AssetKey(COMPACTION), dg.AssetKey(RETENTION)],
    )
    def lake_vacuum(config: VacuumConfig, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[None]:
        from aiops_assets.live.upkeep import vacuum

        done = vacuum(settings, dry_run=config.dry_run, keep_hours=config.keep_hours, now=datetime.now(UTC))
        rows = [
            {
                "table": table.table,
                "removed": table.removed,
                "MiB removed": _mib(table.size),
                "in use": table.files,
                "waiting": table.waiting,
                "version": table.version,
            }
            for table in done
        ]
        return _result(
            config.dry_run,
            rows,
            files_removed=sum(table.removed for table in done),
            bytes_removed=sum(table.size for table in done),
            files_after=sum(table.files for table in done),
        )

    return lake_vacuum


def _release() -> dg.AssetsDefinition:
    @_asset(
        RELEASE,
        "Landing segments and packs that the lake has, synced and read back without a finding, go after their "
        "retention (AIOPS_LANDING_RETENTION_HOURS).",
        {"file"},
        [dg.AssetKey(VERIFICATION), dg.AssetKey(PACKS)],
    )
    def landing_release(config: DryRun, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[None]:
        from aiops_assets.landing.retention import release
        from aiops_assets.live.upkeep import releasable

        keep_seconds = settings.landing_retention_hours * 3600
        gone = release(settings.paths.landing, releasable(settings), keep_seconds, dry_run=config.dry_run)
        rows = [
            {"writer": writer.writer, "segments": writer.segments, "MiB": _mib(writer.size)}
            for writer in gone
        ]  # fmt: skip
        return _result(
            config.dry_run,
            rows,
            segments=sum(writer.segments for writer in gone),
            bytes=sum(writer.size for writer in gone),
        )

    return landing_release


#: progress is told at most this often: each line is a row in the event log
_TELL_SECONDS = 10.0


def _teller(context: dg.AssetExecutionContext) -> Any:
    last = time.monotonic()

    def tell(what: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _TELL_SECONDS:
            last = time.monotonic()
            context.log.info(f"{what}: {done} of {total}")

    return tell
