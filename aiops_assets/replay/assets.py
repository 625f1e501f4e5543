"""Replays as assets: the proof that yesterday replays, and the report of what would be otherwise.

What belongs here: wiring, configuration and wording. What does not: replaying (``run``). Neither changes anything that
another asset reads.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from aiops_assets.lake.checks import SettingsResource
from aiops_assets.tables import OPERATIONS, PLATFORM

GROUP = "replay"
VERIFICATION, REPORT = "replay_verification", "replay_report"
CHECK = "replays_identically"
_READS = [dg.AssetKey(name) for name in ("hour_closed", "metric_points", "baselines", "anomalies", "alerts")]
#: a run says at most this often how far it has come
_TELL_SECONDS = 10.0


class VerificationConfig(dg.Config):
    """Which hours are derived again from their pinned inputs."""

    from_: str = Field(
        default="yesterday", alias="from", description="first hour: 2026-09-01, 2026-09-01T05, yesterday"
    )
    to: str = Field(default="today", description="up to, not including, this time")


class ReplayConfig(VerificationConfig):
    """Which hours are judged with what is known today, and what is changed for it."""

    set: list[str] = Field(default=[], description="NAME.PARAMETER=VALUE of rules or statistics")
    mask: list[str] = Field(default=[], description="FROM..TO: as if nothing had come")
    config: str | None = Field(default=None, description="path of an aiops.yaml in place of the one in force")
    host: str = Field(default="*", description="only hosts that match; * matches anything")
    labels: str | None = Field(default=None, description="path of a CSV or JSON file: host, metric, from, to")
    fresh: bool = Field(default=False, description="do not go on with an unfinished replay of the same request")


def replay_assets() -> list[dg.AssetsDefinition]:
    """The assets of this room."""
    return [_verification(), _report()]


def progress_of(log: Callable[[str], None]) -> Callable[[int, int], None]:
    """A callback that logs hours done, to do and the time left, at a bounded rate."""
    began = told = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= _TELL_SECONDS or done == total:
            told = now
            left = (now - began) / done * (total - done) if done else 0.0
            log(f"{done} of {total} hours, about {left:.0f} s left")

    return progress


def _verification() -> dg.AssetsDefinition:
    @dg.asset(
        name=VERIFICATION,
        group_name=GROUP,
        deps=_READS,
        owners=[PLATFORM],
        kinds={"polars", "deltalake"},
        tags={"plane": "learning"},
        description="Closed hours derived again from their pinned inputs and compared with their receipts and with "
        "what stands in the tables. Identical, or every difference is named. Nothing is written.",
        check_specs=[
            dg.AssetCheckSpec(
                CHECK,
                asset=VERIFICATION,
                blocking=True,
                description="Every hour whose inputs are stored comes out the same, to the last bit.",
            )
        ],
    )
    def replay_verification(
        context: dg.AssetExecutionContext, config: VerificationConfig, settings: SettingsResource
    ) -> dg.MaterializeResult:
        from aiops_assets.replay.period import Period
        from aiops_assets.replay.report import verdict, verification_markdown
        from aiops_assets.replay.run import as_recorded

        now = datetime.now(UTC)
        period = Period.parse(config.from_, config.to, now=now)
        found = as_recorded(settings, period, now=now, progress=progress_of(context.log.info))
        context.log.info(f"{period}: {verdict(found)}")
        numbers: dict[str, Any] = {
            "from": found.first,
            "to": found.last,
            "hours": found.hours,
            "rows": found.rows,
            "anomalies": found.anomalies,
            "alerts": found.alerts,
            "differences": len(found.differences),
            "inputs_expired": len(found.expired),
            "code_version": found.code,
        }
        return dg.MaterializeResult(
            metadata={**numbers, "report": dg.MetadataValue.md(verification_markdown(found))},
            check_results=[
                dg.AssetCheckResult(
                    check_name=CHECK, passed=found.identical, description=verdict(found), metadata=numbers
                )
            ],
        )

    return replay_verification


def _report() -> dg.AssetsDefinition:
    @dg.asset(
        name=REPORT,
        group_name=GROUP,
        deps=_READS,
        owners=[OPERATIONS],
        kinds={"polars", "deltalake"},
        tags={"plane": "learning"},
        description="Closed hours judged with what is known today, and with changed rules if wanted, in shadow tables: "
        "which anomalies, alerts, incidents and pages would be otherwise. The files stand in the replay's own folder.",
    )
    def replay_report(
        context: dg.AssetExecutionContext, config: ReplayConfig, settings: SettingsResource
    ) -> dg.MaterializeResult[None]:
        from aiops_assets.replay.period import Period, parse_mask
        from aiops_assets.replay.report import inline_pictures, markdown
        from aiops_assets.replay.run import as_now

        now = datetime.now(UTC)
        done = as_now(
            settings,
            Period.parse(config.from_, config.to, now=now),
            sets=config.set,
            config=Path(config.config) if config.config else None,
            masks=[parse_mask(text, now=now) for text in config.mask],
            host=config.host,
            labels=Path(config.labels) if config.labels else None,
            fresh=config.fresh,
            progress=progress_of(context.log.info),
        )
        content = done.document
        pictures = inline_pictures(done.found, done.shadow.journal.request.period)
        return dg.MaterializeResult(
            metadata={
                "report": dg.MetadataValue.md(markdown(content, done.found, pictures)),
                "folder": dg.MetadataValue.path(str(done.shadow.folder)),
                "hours": content["hours"],
                "points": content["points"],
                "seconds": content["seconds"],
                **_counts(content),
            }
        )

    return replay_report


def _counts(content: dict[str, Any]) -> dict[str, Any]:
    parts: Sequence[str] = ("alerts", "incidents", "pages")
    counts = {f"{part}_{side}": content[part][side] for part in parts for side in ("recorded", "replayed")}
    differ = {f"alerts_{kind}": len(content["alerts"][kind]) for kind in ("raised", "vanished", "changed")}
    scores = {
        f"{side}_{name}": score[name]
        for side, score in content["labels"].items()
        if score is not None
        for name in ("precision", "recall")
        if score[name] is not None
    }
    return counts | differ | scores
