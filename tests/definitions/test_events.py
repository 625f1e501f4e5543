"""What the asset graph is told, how often, and that nothing in the data can disturb the page that shows it."""

import re
from collections import Counter
from datetime import UTC, datetime, timedelta

import dagster as dg
import polars as pl
import pytest

from aiops_assets.definitions.live import build_definitions
from aiops_assets.hours import micros
from aiops_assets.lake import quality
from aiops_assets.lake.assets import materialization_events
from aiops_assets.lake.report import CheckResult, Report, SourceDrops, TouchedPartition
from aiops_assets.live.report import INTERVAL_SECONDS
from aiops_assets.settings import Settings
from aiops_assets.tables import METRIC_POINTS, TABLES
from tests.definitions.test_locations import OF_LEARNING

NOW = micros(datetime(2026, 6, 1, 12, 30, tzinfo=UTC))
HOSTILE = [
    "<script>alert(1)</script>",
    "[x](javascript:alert(1))",
    "a|b\n| c",
    "`'; drop table",
    "![i](http://e/x.png)",
    "\u202egnp",
]


def touched(partition: str | None = "2026-06-01T12", table: str = "metric_points") -> TouchedPartition:
    preview = pl.DataFrame({"ts": [datetime.now(UTC)] * len(HOSTILE), "host": HOSTILE, "value": 1.0})
    minutes = [datetime(2026, 6, 1, 12, minute, tzinfo=UTC) for minute in range(len(HOSTILE))]
    plot = pl.DataFrame({"label": HOSTILE, "ts": minutes, "value": 1.0})
    return TouchedPartition(table, partition, rows=100, added=7, newest=NOW, preview=preview, plot=plot)


def log(report: Report) -> tuple[list[dg.DagsterEvent], dg.DagsterInstance]:
    """Log a report from a plain op as the live session does."""
    instance = dg.DagsterInstance.ephemeral()

    @dg.op
    def session(context: dg.OpExecutionContext) -> None:
        for event in materialization_events(report):
            context.log_event(event)

    @dg.job
    def told() -> None:
        session()

    return told.execute_in_process(instance=instance).all_events, instance


def test_a_touched_hour_stands_as_a_materialised_partition_with_its_rows() -> None:
    _, instance = log(Report(partitions=(touched(),)))
    event = instance.get_latest_materialization_event(dg.AssetKey("metric_points"))
    assert event is not None and event.asset_materialization is not None
    materialization = event.asset_materialization
    assert materialization.partition == "2026-06-01T12"
    assert materialization.metadata["dagster/partition_row_count"].value == 100
    assert instance.get_materialized_partitions(dg.AssetKey("metric_points")) == {"2026-06-01T12"}


def test_an_unpartitioned_table_tells_its_rows() -> None:
    (event,) = materialization_events(Report(partitions=(touched(None, "series"),)))
    assert isinstance(event, dg.AssetMaterialization)
    assert event.partition is None
    assert event.metadata["dagster/row_count"].value == 100


def test_hours_before_the_first_partition_are_told_in_one_observation() -> None:
    report = Report(partitions=tuple(touched(f"2014-02-14T{hour:02}") for hour in range(20)))
    (event,) = materialization_events(report)
    assert isinstance(event, dg.AssetObservation)
    assert event.metadata["partitions"].value == 20
    assert event.metadata["rows_added"].value == 140


def test_a_source_that_delivered_is_fresh() -> None:
    _, instance = log(Report(sources=(SourceDrops("telegraf", 3, 300, 0, NOW),)))
    assert instance.get_latest_materialization_event(dg.AssetKey(["drops", "telegraf"])) is not None


def test_check_results_stand_under_the_check_that_the_graph_knows(tmp_path: object) -> None:
    keys = build_definitions(Settings(home=str(tmp_path))).resolve_asset_graph().asset_check_keys
    for table in TABLES.values():
        if table.name in OF_LEARNING:
            continue
        for expectation in quality.expectations(table):
            assert dg.AssetCheckKey(dg.AssetKey(table.name), expectation.name) in keys
    result = CheckResult("metric_points", quality.KEY.name, False, "d", numbers={"duplicates": 2})
    events, _ = log(Report(checks=(result,)))
    (evaluation,) = [event for event in events if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION]
    assert not evaluation.asset_check_evaluation_data.passed


def test_repeated_evaluations_in_one_run_are_no_error() -> None:
    result = CheckResult("metric_points", quality.KEY.name, True, "d", partition="2026-06-01T12")
    events, _ = log(Report(checks=(result,) * 5))
    assert sum(event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION for event in events) == 5


def test_hostile_names_form_no_markup_in_previews() -> None:
    (event,) = materialization_events(Report(partitions=(touched(),)))
    assert isinstance(event, dg.AssetMaterialization)
    text = str(event.metadata["preview"].value)
    rows = text.splitlines()
    assert len(rows) == 2 + 5, "a name began a line of its own"
    assert all(row.count("|") == 4 for row in rows), "a name began a cell of its own"
    for row in rows[2:]:
        cells = re.sub(r"&#\d+;", "", row)
        assert not set(cells) & set("<>[]()`!*_\u202e"), row


def test_hostile_names_form_no_markup_in_plots() -> None:
    from xml.etree import ElementTree

    from aiops_assets.lake.drawing import line_plot

    plot = touched().plot
    assert plot is not None
    root = ElementTree.fromstring(line_plot(plot, "</text><script>", "x"))  # noqa: S314
    tags = {element.tag.split("}")[1] for element in root.iter()}
    assert tags <= {"svg", "rect", "line", "polyline", "circle", "text"}


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_numbers_of_a_check_are_plain_text(text: str) -> None:
    (event,) = materialization_events(Report(checks=(CheckResult("series", "c", True, "d", numbers={text: text}),)))
    assert isinstance(event, dg.AssetCheckEvaluation)
    assert not any(
        "\n" in f"{name}{value.value}" or "\u202e" in f"{name}{value.value}" for name, value in event.metadata.items()
    )


def test_a_day_of_steady_flow_stays_within_500_runs_and_100000_event_rows() -> None:
    """Counted from what one minute and one run really log, and from the schedules that there are."""
    minutes = 24 * 60 * 60 / INTERVAL_SECONDS
    hour = "2026-06-01T12"
    checks = {table.name: len(quality.expectations(table)) for table in TABLES.values()}
    # Every source delivers and every minute has alerts and anomalies: busier than a steady day.
    steadily = ["metric_points", "anomalies", "alerts"]
    report = Report(
        partitions=tuple(touched(hour, name) for name in steadily),
        sources=tuple(SourceDrops(name, 1, 1, 0, NOW) for name in ("host", "snmp", "telegraf", "generic")),
        checks=tuple(CheckResult(name, f"c{n}", True, "d") for name in steadily for n in range(checks[name])),
    )
    empty, _ = log(Report())
    events, _ = log(report)
    told = len(events) - len(empty)
    hourly = sum(1 + checks[name] for name in ("baselines", "series", "entities", "changes"))
    sessions = 24 * 3600 / Settings().session_seconds
    beside = {"quarter checks": 96, "quarantine": 24, "snapshot": 4, "upkeep": 5}
    runs = sessions + sum(beside.values())
    rows_a_run = len(empty) + 12
    quarter_rows = 96 * 11 * 12
    rows = told * minutes + 24 * hourly + runs * rows_a_run + quarter_rows
    assert runs <= 500, runs
    assert rows <= 100_000, rows
    assert Counter(event.event_type for event in events)[dg.DagsterEventType.ASSET_MATERIALIZATION] == 7


def test_partitions_of_a_report_are_those_of_the_graph() -> None:
    key = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H")
    from aiops_assets.partitions import of_grain

    partitions = of_grain(METRIC_POINTS.partition)
    assert partitions is not None and partitions.has_partition_key(key)
