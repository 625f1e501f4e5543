"""Delta tables: exactly-once appends, partitions, compaction."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from aiops_assets.hours import hour_expr, instant
from aiops_assets.lake.tables import FILES_BEFORE_COMPACTION, Lake, TableWriter, quote
from aiops_assets.tables import METRIC_POINTS, SERIES, TABLES


def points(count: int, start: int = 0, seq: int = 1, host: str = "web-1") -> pl.DataFrame:
    return pl.DataFrame(
        {
            "ts": [instant((start + n) * 60_000_000) for n in range(count)],
            "series_id": list(range(count)),
            "value": [float(n) for n in range(count)],
            "host": host,
            "metric": "m",
            "unit": "1",
            "source": "test",
            "received_at": instant(0),
            "writer": "gateway",
            "seq": seq,
        }
    ).with_columns(hour_expr().alias("hour"))


def test_a_table_that_was_never_written_reads_as_empty_with_its_schema(tmp_path: Path) -> None:
    for name, table in TABLES.items():
        frame = Lake(tmp_path).read(name)
        assert frame.is_empty()
        assert frame.schema == table.schema


def test_what_was_appended_is_read_back_by_hour(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    rows = points(90)
    TableWriter(lake, METRIC_POINTS).append(rows, {"gateway": 1})
    assert_frame_equal(lake.read("metric_points").sort("ts").select(rows.columns), rows, check_dtypes=False)
    assert lake.read("metric_points", ["1970-01-01T01"]).height == 30
    assert lake.read("metric_points", []).is_empty()
    assert lake.read("metric_points", ["1999-01-01T00"]).is_empty()
    assert [(p.partition, p.rows) for p in lake.partitions("metric_points")] == [
        ("1970-01-01T00", 60),
        ("1970-01-01T01", 30),
    ]


def test_positions_are_committed_with_the_rows_and_survive_a_new_writer(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    writer = TableWriter(lake, METRIC_POINTS)
    assert writer.taken("gateway") == 0
    writer.append(points(3), {"gateway": 4, "collector": 2})
    assert TableWriter(lake, METRIC_POINTS).taken("gateway") == 4
    assert lake.taken("metric_points", ["gateway", "collector", "other"]) == {"gateway": 4, "collector": 2, "other": 0}


def test_segments_without_rows_still_advance_the_position(tmp_path: Path) -> None:
    writer = TableWriter(Lake(tmp_path), METRIC_POINTS)
    writer.append(points(1), {"gateway": 1})
    writer.append(METRIC_POINTS.empty(), {"gateway": 2})
    assert TableWriter(Lake(tmp_path), METRIC_POINTS).taken("gateway") == 2


def test_small_files_of_an_hour_are_merged_and_no_row_is_lost(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    writer = TableWriter(lake, METRIC_POINTS)
    for number in range(FILES_BEFORE_COMPACTION):
        writer.append(points(2, seq=number + 1), {"gateway": number + 1})
        writer.compact_where_due()
    (part,) = lake.partitions("metric_points")
    assert part.files == 1
    assert part.rows == lake.read("metric_points").height == 2 * FILES_BEFORE_COMPACTION


def test_replacing_an_hour_leaves_the_others_alone(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    writer = TableWriter(lake, METRIC_POINTS)
    writer.append(points(90), {"gateway": 1})
    writer.replace(points(5, host="replaced"), "1970-01-01T00")
    assert lake.read("metric_points", ["1970-01-01T00"])["host"].unique().to_list() == ["replaced"]
    assert lake.read("metric_points", ["1970-01-01T01"]).height == 30
    assert TableWriter(lake, METRIC_POINTS).taken("gateway") == 1


@pytest.mark.parametrize("hostile", ["it's", "'; drop table metric_points; --", "../../x", "<script>", "a\\'b"])
def test_hostile_names_are_plain_values_to_a_delete(tmp_path: Path, hostile: str) -> None:
    lake = Lake(tmp_path)
    writer = TableWriter(lake, METRIC_POINTS)
    writer.append(pl.concat([points(2, host=hostile), points(3, host="other")]), {"gateway": 1})
    assert writer.delete(f"host = {quote(hostile)}") == 2
    assert lake.read("metric_points")["host"].unique().to_list() == ["other"]


def test_overwriting_a_reference_table_replaces_all_rows(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    writer = TableWriter(lake, SERIES)
    row = {
        "host": "h",
        "metric": "m",
        "unit": "",
        "labels": "{}",
        "kind": "gauge",
        "source": "s",
        "first_seen": instant(0),
    }
    writer.overwrite(pl.DataFrame([{"series_id": 1, **row}, {"series_id": 2, **row}]))
    writer.overwrite(pl.DataFrame([{"series_id": 3, **row}]))
    assert lake.read("series")["series_id"].to_list() == [3]
