"""Exported incidents come back as they were, from every format, whatever their texts hold."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import orjson
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from polars.testing import assert_frame_equal

from aiops_assets.synthetic.golden import work_notes
from aiops_assets.synthetic.golden.exports import Origin, write
from aiops_assets.synthetic.golden.imports import ImportProblem, metadata, read, verified
from aiops_assets.synthetic.golden.record import SCHEMA
from tests.examples import examples
from tests.golden_frames import NASTY, frames, plain

NAMES = ("a.csv", "a.csv.gz", "a.json", "a.jsonl", "a.ndjson.gz", "a.xlsx", "a.parquet")
#: packing goes over the same bytes, whatever they are
UNPACKED = tuple(name for name in NAMES if not name.endswith(".gz"))
quickly = settings(
    max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@pytest.mark.parametrize("name", UNPACKED)
@quickly
@given(frame=frames())
def test_everything_comes_back_exactly(name: str, frame: pl.DataFrame) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write([frame], path)
        back, whole = verified(path)
    assert_frame_equal(back, frame, check_exact=True)
    assert whole


@quickly
@given(frame=frames())
def test_both_texts_of_work_notes_are_read_back(frame: pl.DataFrame) -> None:
    for text in (work_notes.as_json, work_notes.as_paragraphs):
        texts = frame.select(text(pl.col("work_notes")).alias("work_notes"))["work_notes"]
        assert work_notes.parsed(texts).to_list() == frame["work_notes"].to_list()


@pytest.mark.parametrize("name", NAMES)
def test_every_text_that_ever_broke_a_file_comes_back(name: str, tmp_path: Path) -> None:
    frame = plain(len(NASTY)).with_columns(pl.Series("description", NASTY), pl.Series("resolution_notes", NASTY))
    notes = [[{"written_at": None, "author": text, "note": text}] for text in NASTY]
    frame = frame.with_columns(pl.Series("work_notes", notes, SCHEMA["work_notes"]))
    write([frame], tmp_path / name)
    assert_frame_equal(read(tmp_path / name), frame, check_exact=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_without_rows_is_read_as_none(name: str, tmp_path: Path) -> None:
    write([], tmp_path / name)
    assert read(tmp_path / name).schema == pl.Schema(SCHEMA)
    assert metadata(tmp_path / name)["count"] == 0  # type: ignore[index]


@pytest.mark.parametrize("name", NAMES)
def test_metadata_comes_back_and_is_missing_when_it_was_left_out(name: str, tmp_path: Path) -> None:
    origin = Origin(seed=7, config_digest="ab12", provider="offline", version="c0ffee")
    made = write([plain(3), plain(2, 3)], tmp_path / name, origin=origin)
    about = metadata(tmp_path / name)
    assert about is not None
    assert (about["seed"], about["config_digest"], about["version"], about["count"]) == (7, "ab12", "c0ffee", 5)
    assert about["content_hash"] == made.content_hash
    write([plain(3)], tmp_path / name, metadata=False)
    assert metadata(tmp_path / name) is None
    assert verified(tmp_path / name)[1] is None


def test_rows_that_were_changed_after_the_export_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write([plain(3)], path)
    path.write_bytes(path.read_bytes().replace(b"laptop LT-1", b"laptop LT-9"))
    assert verified(path)[1] is False


def test_columns_may_stand_in_another_order_and_more_of_them(tmp_path: Path) -> None:
    frame = plain(4)
    shuffled = frame.select(pl.lit("v1").alias("version"), *reversed(frame.columns))
    shuffled.write_parquet(tmp_path / "a.parquet")
    assert_frame_equal(read(tmp_path / "a.parquet"), frame)


def test_a_workbook_that_another_program_saved_again_is_read(tmp_path: Path) -> None:
    import openpyxl

    path = tmp_path / "a.xlsx"
    frame = plain(20).with_columns(location=pl.lit(""), description=pl.lit("=2+2 is no formula"))
    write([frame], path)
    book = openpyxl.load_workbook(path)
    book.save(path)
    assert_frame_equal(read(path), frame)


def test_times_as_people_type_them_are_utc_unless_they_say_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write([plain(1)], path)
    text = path.read_text("utf-8-sig")
    first = "2026-03-02T09:00:00Z"
    assert first in text
    for typed in ("2026-03-02 09:00:00", "2026-03-02T10:00:00+01:00", "2026-03-02 09:00:00.000"):
        path.write_text(text.replace(first, typed))
        assert_frame_equal(read(path), plain(1))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b'"2026-03-02T09:01:00Z"', b'"yesterday"', ("row 2", "opened_at", "yesterday", "2026-03-02T09:15:00Z")),
        (b",2,2,", b",2,two,", ("row 1", "impact", "two", "whole number")),
        (b'"true"', b'"perhaps"', ("row 2", "made_sla", "perhaps", "true or false")),
        (b'"[{""written_at', b'"[{written_at', ("row 1", "work_notes", "JSON")),
        (b'"[{""written_at', b'"[2026] {""', ("row 1", "work_notes", "dated paragraphs")),
        (b'"incident_id"', b'"number"', ("incident_id", "golden fit")),
        (b'"INC0000001"', b"", ("row 2", "incident_id has no value")),
    ],
)
def test_what_cannot_be_read_is_named(old: bytes, new: bytes, words: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write([plain(3)], path)
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(ImportProblem) as problem:
        read(path)
    for word in ("a.csv", *words):
        assert word in str(problem.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    write([plain(50)], path, metadata=False)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImportProblem, match=name):
        read(path)


def test_a_document_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(orjson.dumps([{"incident_id": "INC1"}]))
    with pytest.raises(ImportProblem, match="expected one object with a list 'incidents'"):
        read(tmp_path / "a.json")
    with pytest.raises(ImportProblem, match="no such file"):
        read(tmp_path / "b.json")
    (tmp_path / "a.txt").write_bytes(gzip.compress(b""))
    with pytest.raises(ImportProblem, match="is none of csv"):
        read(tmp_path / "a.txt")
