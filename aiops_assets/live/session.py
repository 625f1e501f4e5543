"""The live session as Dagster sees it: a run that logs, at a bounded rate, what was written.

What belongs here: translating between a run and the loop. The loop knows nothing of Dagster.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import cast

import dagster as dg

from aiops_assets.lake.assets import materialization_events
from aiops_assets.live.loop import DiskFull, Outcome, follow
from aiops_assets.live.pipeline import BatchReport, Pipeline
from aiops_assets.live.problems import record_problem
from aiops_assets.live.report import Reporter
from aiops_assets.settings import load_settings
from aiops_assets.sources.health import on_arrival


def run_session(context: dg.OpExecutionContext) -> Outcome:
    """Run one live session inside a run and tell the asset graph what it wrote.

    Raises:
        dagster.Failure: the disk is full; the landing sensor asks for another session later.
    """
    settings = load_settings()
    reporters: list[Reporter] = []

    def tell(pipeline: Pipeline, report: BatchReport, final: bool) -> None:
        if not reporters:
            reporters.append(Reporter(pipeline.lake, pipeline.started_with, pipeline.running_incidents))
        reporters[0].add(report)
        due = reporters[0].due(pipeline.progress, final=final)
        arrivals = on_arrival(due.sources, settings.paths.collector, time.time_ns() // 1000) if due.sources else []
        for event in materialization_events(replace(due, checks=(*due.checks, *arrivals))):
            # Its signature leaves out check evaluations, which it takes as well.
            context.log_event(cast(dg.AssetMaterialization, event))

    try:
        outcome = follow(settings, owner=context.run_id, tell=tell)
    except DiskFull as error:
        context.log.error("the disk is full, the session stops without loss: %s", error)
        record_problem(settings.paths.live, "live session", f"disk full: {error}")
        raise dg.Failure(f"disk full: {error}", allow_retries=False) from error
    context.log.info(
        "session ended: %s; %d batches, %d points, %d alert changes",
        outcome.ending,
        outcome.batches,
        outcome.points,
        outcome.alerts,
    )
    return outcome
