"""The marts in the asset graph: dbt's models as assets, its tests as asset checks.

What belongs here: keys, owners, partitions, automation, and running dbt for what a run asks for. What does not: SQL
(``dbt/``) and dbt's own arguments (``project``). ``dagster_dbt`` costs seconds to import, so it is imported when the
learning location is assembled and nowhere else.
"""

import shutil
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import dagster as dg

from aiops_assets.lake.checks import SettingsResource
from aiops_assets.lake.drawing import markdown_table
from aiops_assets.marts.project import build_arguments, dbt_executable, load_manifest, project_folder
from aiops_assets.marts.reading import row_count, rows
from aiops_assets.marts.views import OPEN_POINTS
from aiops_assets.partitions import daily
from aiops_assets.settings import Settings
from aiops_assets.tables import INCIDENTS, METRIC_POINTS, TABLES

GROUP = "marts"
POOL = "marts"
HOUR_CLOSED = dg.AssetKey("hour_closed")
#: what the lake calls otherwise than the asset graph
_ASSET_OF_SOURCE = {OPEN_POINTS: METRIC_POINTS.name, INCIDENTS.name: "incident_snapshot"}
#: models that read the lake themselves; the others follow them
_FOLLOWS_HOURS = frozenset({"metric_hourly", "series_coverage", "incident_lifecycle", "alert_load", "noise_reduction"})
#: once an hour, when the hour before had time to close
_PACE = "10 * * * *"
#: days that automation looks after: late rows come within 48 hours
RECENT = timedelta(days=7)
_Condition = dg.AutomationCondition[dg.AssetKey | dg.AssetCheckKey]
_LOGS_KEPT_SECONDS = 7 * 86_400.0


def after_hours() -> dg.AutomationCondition[dg.AssetKey]:
    """Recent days in which an hour was closed or amended, or whose incidents were copied anew, at most once an hour.

    Bounded to ``RECENT``: while the live location does not load, nobody says that ``hour_closed`` has partitions, and
    one update of it would mean every day there is. Older days that were restated are built by a backfill.
    """
    updated = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.newly_updated())
    news = cast("_Condition", updated.allow(dg.AssetSelection.assets(HOUR_CLOSED, _ASSET_OF_SOURCE[INCIDENTS.name])))
    tick = cast("_Condition", dg.AutomationCondition.cron_tick_passed(_PACE))
    wanted = dg.AutomationCondition.in_latest_time_window(RECENT) & news.since_last_handled()
    wanted = wanted & tick.since_last_handled() & ~dg.AutomationCondition.in_progress()
    return cast("dg.AutomationCondition[dg.AssetKey]", wanted.with_label("an hour closed, once an hour"))


def after_marts() -> dg.AutomationCondition[dg.AssetKey]:
    """What a mart that this one reads has new or is about to get, in the same run where partitions allow it."""
    news = dg.AutomationCondition.any_deps_match(
        dg.AutomationCondition.newly_updated() | dg.AutomationCondition.will_be_requested()
    ).allow(dg.AssetSelection.groups(GROUP))
    wanted = cast("_Condition", news).since_last_handled() & ~dg.AutomationCondition.in_progress()
    return cast("dg.AutomationCondition[dg.AssetKey]", wanted.with_label("marts it reads are new"))


def mart_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """The daily marts and the current ones, each as one definition whose models can be selected singly.

    Raises:
        ProjectProblem: the dbt project is not there, or dbt refuses it.
    """
    from dagster_dbt import dbt_assets

    manifest = load_manifest(settings)
    translator = _translator()

    @dbt_assets(
        name="marts_daily",
        manifest=manifest,
        select="config.materialized:daily",
        partitions_def=daily(),
        backfill_policy=dg.BackfillPolicy.single_run(),
        dagster_dbt_translator=translator,
        pool=POOL,
    )
    def marts_daily(context: dg.AssetExecutionContext, settings: SettingsResource) -> Iterator[Any]:
        window = context.partition_key_range
        first, last = date.fromisoformat(window.start), date.fromisoformat(window.end)
        yield from _build(context, settings, first, last, sorted(context.partition_keys))

    @dbt_assets(
        name="marts_current",
        manifest=manifest,
        select="config.materialized:current",
        dagster_dbt_translator=translator,
        pool=POOL,
    )
    def marts_current(context: dg.AssetExecutionContext, settings: SettingsResource) -> Iterator[Any]:
        yield from _build(context, settings, None, None, [])

    return [marts_daily, marts_current]


def _build(
    context: dg.AssetExecutionContext, settings: Settings, first: date | None, last: date | None, days: Sequence[str]
) -> Iterator[Any]:
    """Run ``dbt build`` for what the run selects; its events, with row counts and a preview."""
    logs = settings.paths.logs / "dbt"
    _tidy(logs)
    settings.paths.marts.mkdir(parents=True, exist_ok=True)
    target = logs / context.run.run_id / ("daily" if days else "current")
    invocation = _dbt(settings).cli(build_arguments(settings, first, last), context=context, target_path=target)
    for event in invocation.stream():
        if isinstance(event, dg.Output):
            key = context.asset_key_for_output(event.output_name)
            _describe(context, settings.paths.marts, key, days)
        yield event
    shutil.rmtree(target, ignore_errors=True)


def _describe(context: dg.AssetExecutionContext, folder: Path, key: dg.AssetKey, days: Sequence[str]) -> None:
    name = key.path[-1]
    for day in days:
        count: dict[str, Any] = {"dagster/partition_row_count": row_count(folder, name, day)}
        if day == days[-1]:
            count["preview"] = dg.MetadataValue.md(markdown_table(rows(folder, name, day, limit=5)))
        context.add_asset_metadata(count, asset_key=key, partition_key=day)
    if not days:
        preview = dg.MetadataValue.md(markdown_table(rows(folder, name, limit=5)))
        context.add_asset_metadata({"dagster/row_count": row_count(folder, name), "preview": preview}, asset_key=key)


def _tidy(logs: Path) -> None:
    """Forget what dbt wrote about failed runs a week ago."""
    for folder in logs.iterdir() if logs.is_dir() else ():
        if time.time() - folder.stat().st_mtime > _LOGS_KEPT_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def _dbt(settings: Settings) -> Any:
    """dagster-dbt's resource for the project, without its question to the package index about newer versions."""
    from dagster_dbt import DbtCliResource
    from packaging.version import parse

    class OfflineDbt(DbtCliResource):
        @cached_property
        def _cli_version(self) -> Any:
            return parse(version("dbt-core"))

        def _initialize_dbt_core_adapter(self, args: Sequence[str]) -> Any:
            """None: an adapter in this process would see another in-memory database than dbt's."""

    folder = str(project_folder(settings))
    return OfflineDbt(project_dir=folder, profiles_dir=folder, dbt_executable=dbt_executable())


def _translator() -> Any:
    from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings

    class MartTranslator(DagsterDbtTranslator):
        """Sources are the assets of the canonical tables; models say their owner in ``meta``."""

        def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
            name = str(dbt_resource_props["name"])
            if dbt_resource_props["resource_type"] == "source":
                return dg.AssetKey(_ASSET_OF_SOURCE.get(name, name))
            return dg.AssetKey(name)

        def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: Any) -> dg.AssetSpec:
            spec = super().get_asset_spec(manifest, unique_id, project)
            props = self.get_resource_props(manifest, unique_id)
            if props["resource_type"] != "model":
                return spec
            by_day = props["config"]["materialized"] == "daily"
            return spec.replace_attributes(
                deps=[*_deps(spec.deps, by_day), *([_hours(HOUR_CLOSED)] if props["name"] in _FOLLOWS_HOURS else [])],
                description=_description(props),
                group_name=GROUP,
                owners=[props["config"]["meta"]["owner"]],
                kinds={"dbt", "duckdb", "parquet"},
                automation_condition=after_hours() if props["name"] in _FOLLOWS_HOURS else after_marts(),
                tags={"plane": "learning"},
            ).merge_attributes(
                metadata={
                    "dagster/table_name": props["name"],
                    "dagster/storage_kind": "parquet",
                    "key": ", ".join(props["config"]["meta"]["key"]),
                }
            )

    return MartTranslator(settings=DagsterDbtTranslatorSettings(enable_duplicate_source_asset_keys=True))


def _deps(deps: Iterable[dg.AssetDep], by_day: bool) -> Iterator[dg.AssetDep]:
    hourly = {table.name for table in TABLES.values() if table.partition == "hour"}
    for dep in deps:
        yield _hours(dep.asset_key) if by_day and dep.asset_key.path[-1] in hourly else dg.AssetDep(dep.asset_key)


def _hours(key: dg.AssetKey) -> dg.AssetDep:
    """A day depends on its hours; those of the present day that are still to come do not count."""
    return dg.AssetDep(key, partition_mapping=_day_of_hours())


@cache
def _day_of_hours() -> dg.TimeWindowPartitionMapping:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)


def _description(props: Mapping[str, Any]) -> str:
    place = f"`marts/{props['name']}/<day>.parquet`" if props["config"]["materialized"] == "daily" else ""
    place = place or f"`marts/{props['name']}.parquet`"
    code = f"```sql\n{props['raw_code']}\n```"
    return f"{props['description']}\n\nWritten by dbt to {place} in the home folder.\n\n{code}"
