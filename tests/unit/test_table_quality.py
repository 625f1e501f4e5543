"""Checks and descriptions generated from a table's declaration, and the text and pictures made of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiops_assets.lake import quality
from aiops_assets.lake.assets import column_schema
from aiops_assets.lake.drawing import COLOURS, line_plot, markdown_image, markdown_table, markdown_text, plain
from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.live.problems import recent_problems, record_problem
from aiops_assets.tables import ALERTS, METRIC_POINTS, SERIES, TABLES

START = datetime(2026, 6, 1, 12, tzinfo=UTC)


def points(rows: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "ts": [START + timedelta(seconds=number) for number in range(rows)],
            "series_id": range(rows),
            "value": 0.5,
            "host": "web-1",
            "metric": "m",
            "unit": "1",
            "source": "telegraf",
            "received_at": START,
            "writer": "gateway",
            "seq": 1,
            "hour": "2026-06-01T12",
        }
    ).cast(METRIC_POINTS.schema)


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_every_canonical_table_has_checks_and_passes_them_while_it_is_empty(tmp_path: Path, table: object) -> None:
    name = table.name  # type: ignore[attr-defined]
    results = quality.evaluate(Lake(tmp_path), name)
    assert {result.name for result in results} >= {"schema_as_declared", "key_is_unique", "required_values_present"}
    assert all(result.passed for result in results)


def test_only_the_checks_that_are_named_are_evaluated(tmp_path: Path) -> None:
    (result,) = quality.evaluate(Lake(tmp_path), "metric_points", only=["key_is_unique"])
    assert result.name == "key_is_unique"


def test_a_column_of_another_type_is_named() -> None:
    frame = points(1).with_columns(value=pl.lit("x"), more=1).drop("unit").lazy()
    passed, numbers = quality.schema_as_declared(METRIC_POINTS, frame)
    assert not passed
    assert "value: String instead of Float64" in str(numbers["different"])
    assert "unit: missing" in str(numbers["different"])
    assert numbers["unknown"] == "more"


def test_a_partition_is_described_by_its_rows_its_newest_and_its_course(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    TableWriter(lake, METRIC_POINTS).append(points(200), {"gateway": 1})
    described = quality.describe(lake, "metric_points", "2026-06-01T12", added=200)
    assert described.rows == 200
    assert described.preview is not None and described.preview["ts"].to_list()[0] == START + timedelta(seconds=199)
    assert described.plot is not None and described.plot["value"].to_list() == [60.0, 60.0, 60.0], (
        "the last is unfinished"
    )


def test_a_table_without_time_is_described_too(tmp_path: Path) -> None:
    described = quality.describe(Lake(tmp_path), SERIES.name, None, added=0)
    assert described.rows == 0
    assert described.plot is None


@given(st.text(max_size=200))
def test_no_text_forms_markup(text: str) -> None:
    shown = markdown_text(text)
    assert not set(shown) & set("<>[]()`!*_|~\\\"'\n\r\u202e")
    assert "\n" not in plain(text)


@given(st.lists(st.tuples(st.text(max_size=30), st.floats(allow_nan=False, allow_infinity=False)), max_size=20))
def test_a_preview_has_a_line_a_row_and_a_cell_a_column(rows: list[tuple[str, float]]) -> None:
    frame = pl.DataFrame(rows, {"host": pl.String, "value": pl.Float64}, orient="row")
    lines = markdown_table(frame).split("\n")
    assert len(lines) == (2 + len(rows) if rows else 1)
    assert all(line.count("|") == 3 for line in lines if rows)


@given(
    st.lists(
        st.tuples(st.text(max_size=20), st.integers(0, 3600), st.floats(0, 1e300) | st.none()), min_size=0, max_size=40
    )
)
def test_any_points_make_a_well_formed_picture(rows: list[tuple[str, int, float | None]]) -> None:
    frame = pl.DataFrame(
        {
            "label": [label for label, _, _ in rows],
            "ts": [START + timedelta(seconds=second) for _, second, _ in rows],
            "value": [value for _, _, value in rows],
        },
        schema={"label": pl.String, "ts": pl.Datetime("us", "UTC"), "value": pl.Float64},
    )
    root = ElementTree.fromstring(line_plot(frame, "t", "u"))  # noqa: S314
    assert len([element for element in root.iter() if element.tag.endswith("polyline")]) <= len(COLOURS)


def test_a_picture_needs_nothing_from_outside() -> None:
    image = markdown_image(
        line_plot(METRIC_POINTS.empty().select(label="host", ts="ts", value="value"), "t", "u"), "a|b"
    )
    assert image.startswith("![a&#124;b](data:image/svg+xml;base64,")
    assert "http" not in image


def test_the_column_schema_tells_keys_units_and_partitions() -> None:
    columns = {column.name: column for column in column_schema(ALERTS).columns}
    assert columns["hour"].description is not None and "starts_at" in columns["hour"].description
    assert columns["alert_id"].constraints.other == ["part of the key"]
    assert columns["ends_at"].constraints.nullable
    assert next(column for column in column_schema(SERIES).columns if column.name == "series_id").constraints.unique


def test_problems_are_read_newest_first_and_stay_bounded(tmp_path: Path) -> None:
    for number in range(3000):
        record_problem(tmp_path, "test", f"{number} " + "x" * 200)
    found = recent_problems(tmp_path, 2)
    assert [problem.text.split()[0] for problem in found] == ["2999", "2998"]
    assert (tmp_path / "problems.jsonl").stat().st_size < 300 * 1024


def test_a_damaged_line_hides_no_other_problem(tmp_path: Path) -> None:
    record_problem(tmp_path, "test", "first")
    with (tmp_path / "problems.jsonl").open("ab") as file:
        file.write(b'\xff\xfe{"at": \n')
    record_problem(tmp_path, "test", "second")
    assert [problem.text for problem in recent_problems(tmp_path)] == ["second", "first"]


def test_no_problems_are_no_problem(tmp_path: Path) -> None:
    assert recent_problems(tmp_path / "nowhere") == []
