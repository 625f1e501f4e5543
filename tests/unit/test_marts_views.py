"""The lake as DuckDB views: every table, written or not, of today's schema or an earlier one, wherever it lies."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.marts import connect
from aiops_assets.marts.plugin import prepare_folder, publish
from aiops_assets.marts.views import OPEN_POINTS, create_lake_views, create_mart_views, duckdb_type
from aiops_assets.settings import Settings
from aiops_assets.tables import BASELINES, INCIDENTS, METRIC_POINTS, TABLES, TIMESTAMP
from tests.marts_lake import at, incident, points, small_lake, write, write_baseline, write_points


def opened(lake: Lake) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("set TimeZone = 'UTC'")
    create_lake_views(connection, lake)
    return connection


def count(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    return int(connection.execute(sql).fetchall()[0][0])


def test_tables_that_were_never_written_are_empty_views_with_their_columns(tmp_path: Path) -> None:
    connection = opened(Lake(tmp_path / "lake"))
    for name, table in TABLES.items():
        relation = connection.table(name)
        assert relation.columns == list(table.schema)
        assert [str(kind) for kind in relation.types] == [duckdb_type(dtype) for dtype in table.schema.values()]
        assert relation.fetchall() == []


def test_a_view_has_the_rows_of_its_table_and_prunes_hours_by_name(tmp_path: Path) -> None:
    lake = small_lake(str(tmp_path / "lake"))
    connection = opened(lake)
    for name in ("metric_points", "baselines", "alerts", "incidents", "series"):
        assert len(connection.table(name).fetchall()) == lake.read(name).height
    plan = connection.execute("explain select * from metric_points where hour = '2026-03-02T07'").fetchall()[0][1]
    assert "Scanning Files: 1/" in plan


def test_open_points_are_those_of_hours_without_a_baseline(tmp_path: Path) -> None:
    connection = opened(small_lake(str(tmp_path / "lake")))
    hours = connection.table(OPEN_POINTS).select("hour").distinct().fetchall()
    assert hours == [("2026-03-03T12",)]


@pytest.mark.parametrize("folder", ["a folder", "ümläut", "it's"])
def test_a_lake_may_lie_in_a_folder_with_any_name(tmp_path: Path, folder: str) -> None:
    lake = Lake(tmp_path / folder)
    write_points(lake, points(1, at(), at(0, 2)), at(0, 1))
    assert lake.read("metric_points").height == 120
    assert count(opened(lake), "select count(*) from metric_points") == 120


def test_files_of_an_object_store_are_read_through_arrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = small_lake(str(tmp_path / "lake"))
    monkeypatch.setattr(
        "aiops_assets.marts.views.data_files", lambda handle: [f"s3://x{u}" for u in handle.file_uris()]
    )
    connection = opened(lake)
    assert count(connection, "select count(*) from metric_points where hour >= '2026-03-03T00'") == 1560
    assert len(connection.table(OPEN_POINTS).fetchall()) == 120
    assert connection.execute("select max(ts) from open_points").fetchall()[0][0] == at(1, 12, 59)


def first_version(frame: pl.DataFrame) -> pl.DataFrame:
    """Snapshots as the first schema version wrote them."""
    return frame.drop([*list(INCIDENTS.schema)[14:-1]])


def test_a_snapshot_table_of_the_first_schema_version_is_read_replaced_and_appended_to(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    frame = pl.DataFrame([incident("INC-1", at(), at(0, 1))], schema=INCIDENTS.schema, orient="row")
    write_deltalake(lake.uri("incidents"), first_version(frame), partition_by="day")
    assert lake.read("incidents").schema == pl.Schema(INCIDENTS.schema)
    assert count(opened(lake), "select count(*) from incidents where reopened is null") == 1
    later = pl.DataFrame([incident("INC-2", at(), at(1, 1), reopened=2)], schema=INCIDENTS.schema, orient="row")
    TableWriter(lake, INCIDENTS).append(later, {})
    assert lake.read("incidents").sort("incident_id")["reopened"].to_list() == [None, 2]
    again = pl.DataFrame([incident("INC-3", at(), at(0, 2), reopened=1)], schema=INCIDENTS.schema, orient="row")
    TableWriter(lake, INCIDENTS).replace(again, "2026-03-02")
    connection = opened(lake)
    found = connection.execute("select incident_id, reopened from incidents order by 1").fetchall()
    assert found == [("INC-2", 2), ("INC-3", 1)]
    assert {field.name for field in DeltaTable(lake.uri("incidents")).schema().fields} == set(INCIDENTS.schema)


def test_a_partition_of_an_old_table_can_be_replaced_first(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    frame = pl.DataFrame([incident("INC-1", at(), at(0, 1))], schema=INCIDENTS.schema, orient="row")
    write_deltalake(lake.uri("incidents"), first_version(frame), partition_by="day")
    TableWriter(lake, INCIDENTS).replace(frame.with_columns(reopened=pl.lit(3)), "2026-03-02")
    assert lake.read("incidents")["reopened"].to_list() == [3]


def test_connect_opens_tables_and_marts_in_utc(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    with pytest.raises(ValueError, match="aiops init"):
        connect(settings)
    settings.paths.create()
    write(Lake(settings.paths.lake), METRIC_POINTS.name, points(1, at(), at(0, 1)).select(*METRIC_POINTS.schema))
    (settings.paths.marts / "daily").mkdir(parents=True)
    pl.DataFrame({"day": [1]}).write_parquet(settings.paths.marts / "daily" / "2026-03-02.parquet")
    pl.DataFrame({"day": [2], "more": ["x"]}).write_parquet(settings.paths.marts / "daily" / "2026-03-03.parquet")
    (settings.paths.marts / "daily" / ".half.writing").write_text("half")
    connection = connect(settings)
    assert connection.execute("select ts from metric_points order by ts limit 1").fetchall() == [(at(),)]
    assert connection.execute("select * from daily order by day").fetchall() == [(1, None), (2, "x")]


def test_a_newer_baseline_of_an_hour_hides_nothing(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    frame = points(1, at(), at(0, 1))
    write_points(lake, frame, at(0, 1))
    write_baseline(lake, frame.head(30), at(), 2)
    newest = opened(lake).execute(
        "select count from baselines "
        "qualify row_number() over (partition by series_id order by baseline_version desc) = 1"
    )
    assert newest.fetchall() == [(30,)]
    assert str(BASELINES.schema["hour_start"]) == str(TIMESTAMP)


def test_a_file_is_published_whole_and_leftovers_of_killed_runs_go(tmp_path: Path) -> None:
    folder = Path(prepare_folder(str(tmp_path / "marts" / "m")))
    final, written = folder / "2026-03-02.parquet", folder / ".2026-03-02.one.writing"
    final.write_text("old")
    written.write_text("new")
    publish(str(written), str(final))
    assert final.read_text() == "new" and not written.exists()
    old, fresh = folder / ".a.writing", folder / ".b.writing"
    old.write_text("half")
    fresh.write_text("half")
    import os

    before = (at() - timedelta(days=400)).timestamp()
    os.utime(old, (before, before))
    prepare_folder(str(folder))
    assert not old.exists() and fresh.exists()
    assert create_mart_views(duckdb.connect(), tmp_path / "nowhere") == []
