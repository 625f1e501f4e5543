"""The hourly tables of the live plane as assets that can be backfilled: partitions are chosen, and derived again.

What belongs here: which assets one run brings up to date together, and what the asset graph is told about it. What does
not: the work (``replay.backfill``) and what the tables are (each room's ``assets``). While data flow, the live session
keeps the same assets; nothing here runs by itself.

An hour that is refused is never shown as materialised: the run then fails at its end, with the others done and told.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from aiops_assets.detection.assets import HOUR_CLOSED
from aiops_assets.lake.assets import materialization_events
from aiops_assets.lake.checks import SettingsResource
from aiops_assets.lake.drawing import markdown_table
from aiops_assets.lake.report import Report, TouchedPartition
from aiops_assets.settings import Settings
from aiops_assets.tables import (
    ALERT_DECISIONS,
    ALERTS,
    ANOMALIES,
    BASELINES,
    CHANGES,
    DOCUMENTS,
    ERROR_EVENTS,
    HOUR_RECEIPTS,
    LOG_EVENTS,
    METRIC_POINTS,
    SPANS,
    TABLES,
    TICKETS,
)

if TYPE_CHECKING:
    from aiops_assets.detection.receipts import Receipt
    from aiops_assets.replay.backfill import Backfilled

POINTS = METRIC_POINTS.name
#: what deriving an hour gives, each after those that it depends on
DERIVED = (BASELINES.name, ANOMALIES.name, ALERTS.name, ALERT_DECISIONS.name, HOUR_RECEIPTS.name, HOUR_CLOSED)
#: one backfill at a time rewrites the tables of the live plane
POOL = "live_tables"
#: what deliveries tell without any derivation
EVENTS = tuple(table.name for table in (CHANGES, LOG_EVENTS, ERROR_EVENTS, SPANS, TICKETS, DOCUMENTS))
#: days, and hours, of events that one run looks for in the landing segments
_DAYS_A_RUN, _HOURS_A_RUN = 31, 24
#: a run says at most this often how far it has come
_TELL_SECONDS = 10.0
_MOST_SHOWN = 100
_TAGS = {"plane": "live"}


def backfillable(specs: Iterable[dg.AssetSpec]) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Definitions that can be executed for those of the specs that can be backfilled, the others as they are."""
    by_name = {spec.key.path[-1]: spec for spec in specs}
    points = by_name.pop(POINTS)
    events = [by_name.pop(name) for name in EVENTS]
    derived = [by_name.pop(name) for name in DERIVED]
    return [_points_asset(points), *map(_events_asset, events), _hours_asset(derived), *by_name.values()]


def _points_asset(spec: dg.AssetSpec) -> dg.AssetsDefinition:
    # One pass over the landing segments serves all hours of a run; they wait on disk, so memory does not bind.
    @dg.multi_asset(
        name=POINTS,
        specs=[spec.merge_attributes(tags=_TAGS)],
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=POOL,
        can_subset=True,
    )
    def metric_points(context: dg.AssetExecutionContext, settings: SettingsResource) -> Iterator[Any]:
        from aiops_assets.replay.backfill import backfill_points

        hours = sorted(context.partition_keys)
        report = backfill_points(settings, hours, progress=_progress(context.log.info))
        refused = [hour for hour in report.hours if hour.outcome == "refused"]
        touched = [
            TouchedPartition(
                POINTS,
                hour.hour,
                hour.rows if hour.outcome == "replaced" else hour.rows_promised,
                max(hour.rows - hour.rows_before, 0) if hour.outcome == "replaced" else 0,
                numbers={"backfill": hour.outcome, "why": hour.why or "as the landing segments still kept say"},
            )
            for hour in report.hours
            if hour.outcome != "refused"
        ]
        context.log.info(
            f"{len(report.hours)} hours compared with {report.segments} landing segments: "
            f"{sum(hour.outcome == 'replaced' for hour in report.hours)} replaced, {len(refused)} refused"
        )
        yield from _results(context, touched, [(hour.hour, hour.why) for hour in refused])

    return metric_points


def _events_asset(spec: dg.AssetSpec) -> dg.AssetsDefinition:
    # Hours and days have nothing to do with each other, and what a run adds is held in memory.
    name = spec.key.path[-1]
    at_once = _HOURS_A_RUN if TABLES[name].partition == "hour" else _DAYS_A_RUN

    @dg.multi_asset(
        name=name,
        specs=[spec.merge_attributes(tags=_TAGS)],
        backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=at_once),
        pool=POOL,
        can_subset=True,
    )
    def events(context: dg.AssetExecutionContext, settings: SettingsResource) -> Iterator[Any]:
        from aiops_assets.replay.events import backfill_events

        chosen = {name: sorted(context.partition_keys)}
        (done,) = backfill_events(settings, chosen, progress=_progress(context.log.info))
        said = {True: "every landing segment of it is kept", False: "landing segments of it were released"}
        touched = [
            TouchedPartition(
                name, part.partition, part.rows + part.added, part.added, numbers={"backfill": said[part.complete]}
            )
            for part in done.partitions
        ]
        yield from _results(context, touched, [])

    return events


def _hours_asset(specs: Sequence[dg.AssetSpec]) -> dg.AssetsDefinition:
    # One run, because each hour goes on from what the hour before came to.
    @dg.multi_asset(
        name="derived_hours",
        specs=[spec.merge_attributes(tags=_TAGS) for spec in specs],
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=POOL,
        can_subset=True,
        description="Derives hours again from what their receipts pin and puts right what differs; all six assets come "
        "from one derivation, whichever of them are chosen.",
    )
    def derived_hours(context: dg.AssetExecutionContext, settings: SettingsResource) -> Iterator[Any]:
        from aiops_assets.replay.backfill import backfill_hours

        hours = sorted(context.partition_keys)
        done = backfill_hours(settings, hours, progress=_progress(context.log.info))
        chosen = {key.path[-1] for key in context.selected_asset_keys}
        # Other hours closed meanwhile, or the asset was not chosen: told beside the run, which would count them as its.
        _tell_beside(context.instance, _closed_beside(done, hours if HOUR_CLOSED in chosen else []))
        context.log.info(_summary(done))
        yield from _results(context, _touched(settings, done, chosen), [(hour.hour, hour.why) for hour in done.refused])

    return derived_hours


def tell_asset_graph(settings: Settings, done: "Backfilled") -> bool:
    """Tell the asset graph of this installation what a backfill outside of it did; whether there is one to tell."""
    if not (settings.paths.dagster / "dagster.yaml").is_file():
        return False
    touched = _touched(settings, done, set(DERIVED) - {HOUR_CLOSED}, only_changed=True) + _closed_beside(done, [])
    with dg.DagsterInstance.from_config(str(settings.paths.dagster)) as instance:
        _tell_beside(instance, touched)
    return True


def _results(
    context: dg.AssetExecutionContext, touched: Sequence[TouchedPartition], refused: Sequence[tuple[str, str]]
) -> Iterator[dg.MaterializeResult[None]]:
    """Tell what each partition has: by the results of the step, or, when some were refused, before it fails."""
    events = [
        event
        for event in materialization_events(Report(partitions=tuple(touched)))
        if isinstance(event, dg.AssetMaterialization)
    ]
    if refused:
        for event in events:
            context.log_event(event)
        _fail(refused)
    for event in events:
        context.add_asset_metadata(dict(event.metadata), asset_key=event.asset_key, partition_key=event.partition)
    order = [*DERIVED, POINTS, CHANGES.name]
    for key in sorted(context.selected_asset_keys, key=lambda key: order.index(key.path[-1])):
        yield dg.MaterializeResult(asset_key=key)


def _tell_beside(instance: dg.DagsterInstance, touched: Sequence[TouchedPartition]) -> None:
    for event in materialization_events(Report(partitions=tuple(touched))):
        if not isinstance(event, dg.AssetCheckEvaluation):
            instance.report_runless_asset_event(event)


def _touched(
    settings: Settings, done: "Backfilled", names: set[str], *, only_changed: bool = False
) -> list[TouchedPartition]:
    """What each chosen asset has of each hour that was done."""
    from aiops_assets.lake.tables import Lake
    from aiops_assets.live.report import hour_closed

    lake = Lake(settings.paths.lake)
    rows = {name: {part.partition: part.rows for part in lake.partitions(name)} for name in names - {HOUR_CLOSED}}
    touched = []
    for hour in done.hours:
        if hour.refused or (only_changed and hour.status not in {"repaired", "amended", "closed"}):
            continue
        said: dict[str, Any] = {"backfill": hour.status, **({"why": hour.why} if hour.why else {})}
        for name in sorted(names):
            if name != HOUR_CLOSED:
                touched.append(TouchedPartition(name, hour.hour, rows[name].get(hour.hour, 0), 0, numbers=said))
            elif hour.receipt is not None:
                closed = hour_closed(hour.receipt)
                touched.append(
                    TouchedPartition(
                        closed.table, hour.hour, closed.rows, 0, closed.newest, numbers={**closed.numbers, **said}
                    )
                )
            else:
                touched.append(TouchedPartition(name, hour.hour, 0, 0, numbers=said))
    return touched


def _closed_beside(done: "Backfilled", hours: Sequence[str]) -> list[TouchedPartition]:
    """The hours, others than ``hours``, that were closed or amended: the newest revision of each."""
    from aiops_assets.live.report import hour_closed

    newest: dict[str, Receipt] = {receipt.hour: receipt for receipt in done.receipts if receipt.hour not in set(hours)}
    return [hour_closed(receipt) for receipt in newest.values()]


def _summary(done: "Backfilled") -> str:
    shown = pl.DataFrame(
        [
            (hour.hour, hour.status, hour.receipt.revision if hour.receipt else None, hour.why)
            for hour in done.hours
            if hour.status != "same"
        ][:_MOST_SHOWN],
        schema={"hour": pl.String, "backfill": pl.String, "revision": pl.Int64, "why": pl.String},
        orient="row",
    )
    counts = ", ".join(f"{count} {status}" for status, count in done.counts().items())
    text = f"{counts}; {done.seconds:.1f} s, of which the live session stood aside for {done.owned_seconds:.1f} s" + (
        f"; {done.resumed} hours were done before the interruption" if done.resumed else ""
    )
    return text + (f"\n{markdown_table(shown)}" if shown.height else "")


def _fail(refused: Sequence[tuple[str, str]]) -> None:
    lines = "\n".join(f"{hour}: {why}" for hour, why in refused[:20])
    more = f"\n… and {len(refused) - 20} more" if len(refused) > 20 else ""
    raise dg.Failure(
        f"{len(refused)} hours were refused, the others are done:\n{lines}{more}",
        metadata={"refused": dg.MetadataValue.json([list(entry) for entry in refused[:_MOST_SHOWN]])},
        allow_retries=False,
    )


def _progress(log: Callable[[str], None]) -> Callable[[str, int, int], None]:
    told = time.monotonic()

    def progress(what: str, done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told >= _TELL_SECONDS or (done == total and total):
            told = time.monotonic()
            log(f"{what}: {done} of {total}")

    return progress
