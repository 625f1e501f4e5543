"""Files of golden incidents: safe in spreadsheets, typed, the same bytes every time, whole or not there, audited."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import os
import tempfile
import traceback
import zipfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from aiops_assets.operations.database import connect, reading
from aiops_assets.operations.models import AUDIT
from aiops_assets.settings import Settings
from aiops_assets.synthetic.golden import spreadsheet
from aiops_assets.synthetic.golden.audit import ACTION, export
from aiops_assets.synthetic.golden.exports import ExportProblem, Origin, format_of, metadata_path, part_path, write
from aiops_assets.synthetic.golden.imports import read
from aiops_assets.synthetic.golden.record import SCHEMA
from aiops_assets.synthetic.golden.spreadsheet import TooLongForCell, Workbook
from tests.golden_frames import NASTY, plain

NAMES = ("a.csv", "a.csv.gz", "a.json", "a.jsonl", "a.xlsx", "a.parquet")


def nasty() -> pl.DataFrame:
    return plain(len(NASTY)).with_columns(pl.Series("short_description", NASTY))


# -- formats ----------------------------------------------------------------------------------------------------------


def test_csv_is_what_other_readers_of_rfc_4180_read(tmp_path: Path) -> None:
    write([nasty()], tmp_path / "a.csv")
    data = (tmp_path / "a.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    assert list(rows[0]) == list(SCHEMA)
    for row, text in zip(rows, NASTY, strict=True):
        assert row["short_description"] in {text, f"'{text}"}
    assert data.count(b"\r\n") >= len(rows) + 1
    assert orjson.loads(rows[0]["work_notes"])[0]["author"] == "mira.k"


def test_no_text_of_a_csv_begins_like_a_formula(tmp_path: Path) -> None:
    write([nasty()], tmp_path / "a.csv")
    text = (tmp_path / "a.csv").read_text("utf-8-sig")
    for row in csv.reader(io.StringIO(text, newline="")):
        assert not [cell for cell in row if cell[:1] in set("=+-@\t\r\n＝＋－＠") and not cell.lstrip("-").isdigit()]


def test_a_workbook_holds_types_no_formulas_and_the_frame_of_a_table(tmp_path: Path) -> None:
    import openpyxl

    write([nasty()], tmp_path / "a.xlsx", origin=Origin(seed=3))
    book = openpyxl.load_workbook(tmp_path / "a.xlsx")
    sheet = book["incidents"]
    assert (sheet.freeze_panes, sheet.auto_filter.ref) == ("A2", sheet.dimensions)
    assert sheet.column_dimensions["C"].width > 50
    header = [cell.value for cell in sheet[1]]
    assert header == list(SCHEMA)
    of = {name: sheet.cell(2, number) for number, name in enumerate(header, 1)}
    assert (of["opened_at"].value, of["opened_at"].is_date) == (datetime(2026, 3, 2, 9), True)
    assert (of["priority"].value, of["made_sla"].value, of["ai_confidence_score"].value) == (3, False, 1)
    assert of["work_notes"].value.startswith("[2026-03-02T09:07:00Z] mira.k:\n  Looked at ticket 0.")
    kinds = {cell.data_type for row in sheet.iter_rows(min_row=2) for cell in row}
    assert kinds <= {"s", "inlineStr", "n", "d", "b"}
    quoted = [row for row in range(2, sheet.max_row + 1) if sheet.cell(row, 2).quotePrefix]
    assert [NASTY[row - 2] for row in quoted] == [text for text in NASTY if text[:1] in set("=+-@\t\r\n＝'")]
    about = dict(book["metadata"].iter_rows(values_only=True))
    assert (about["seed"], about["count"]) == (3, len(NASTY))


def test_numbers_and_instants_that_no_typed_cell_holds_are_text_and_come_back(tmp_path: Path) -> None:
    import openpyxl

    frame = plain(4).with_columns(
        pl.Series("ai_confidence_score", [0.8421, 0.1 + 0.2, 1.7976931348623157e308, -0.0]),
        opened_at=pl.Series([0, 1, 999, -3_000_000_000_000_000]).cast(pl.Datetime("us", "UTC")),
    )
    write([frame], tmp_path / "a.xlsx")
    assert_frame_equal(read(tmp_path / "a.xlsx"), frame, check_exact=True)
    sheet = openpyxl.load_workbook(tmp_path / "a.xlsx")["incidents"]
    kinds = {cell.value: [below.data_type for below in sheet[cell.column_letter][1:]] for cell in sheet[1]}
    assert kinds["ai_confidence_score"] == ["n", "s", "s", "n"]
    assert kinds["opened_at"] == ["d", "s", "s", "s"]


def test_more_rows_than_a_sheet_holds_go_on_in_the_next(tmp_path: Path) -> None:
    import openpyxl

    path = tmp_path / "a.xlsx"
    with path.open("wb") as file:
        book = Workbook(file, rows_per_sheet=7)
        book.add(plain(10))
        book.add(plain(10, 10))
        book.close(None)
    assert read(path).equals(plain(20))
    made = openpyxl.load_workbook(path)
    assert made.sheetnames == ["incidents", "incidents 2", "incidents 3"]
    assert [sheet.auto_filter.ref for sheet in made] == ["A1:AI8", "A1:AI8", "A1:AI7"]


def test_a_sheet_that_would_be_too_large_for_plain_zip_goes_on_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreadsheet, "MOST_BYTES", 300_000)
    monkeypatch.setattr(spreadsheet, "LOOK_EVERY", 50)
    for name, pieces in (("a.xlsx", [plain(400)]), ("b.xlsx", [plain(70), plain(330, 70)])):
        write(pieces, tmp_path / name)
    assert read(tmp_path / "a.xlsx").equals(plain(400))
    assert (tmp_path / "a.xlsx").read_bytes() == (tmp_path / "b.xlsx").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.xlsx") as archive:
        sizes = [part.file_size for part in archive.infolist() if "/worksheets/" in part.filename]
    assert len(sizes) > 2
    assert max(sizes) < 500_000


def test_neither_a_written_nor_an_abandoned_workbook_leaves_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()

    def broken() -> Iterator[pl.DataFrame]:
        yield plain(10)
        assert list((tmp_path / "temporary").iterdir())
        raise RuntimeError("the generator broke")

    with pytest.raises(RuntimeError, match="the generator broke"):
        write(broken(), tmp_path / "a.xlsx")
    write([plain(10)], tmp_path / "a.xlsx")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_full_disk_is_told_as_such() -> None:
    class Disk(io.BytesIO):
        full = True

        def write(self, data: Any) -> int:
            if self.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    disk = Disk()
    book = Workbook(disk)
    book.add(plain(3))
    with pytest.raises(OSError, match="No space left") as problem:
        book.close(None)
    assert problem.value.errno == errno.ENOSPC
    disk.full = False
    # An archive in them writes its end when it is collected.
    traceback.clear_frames(problem.tb)


def test_a_text_too_long_for_a_cell_is_named_with_a_way_out(tmp_path: Path) -> None:
    longest = plain(3).with_columns(description=pl.lit("😀" * (spreadsheet.MOST_CHARACTERS // 2)))
    write([longest], tmp_path / "a.xlsx")
    frame = plain(3).with_columns(description=pl.lit("😀" * (spreadsheet.MOST_CHARACTERS // 2 + 1)))
    with pytest.raises(TooLongForCell, match=r"row 11, description: 32,768 characters.*32,767.*\.parquet"):
        write([plain(10), frame], tmp_path / "b.xlsx")
    assert {path.name for path in tmp_path.iterdir()} == {"a.xlsx"}


def test_json_is_one_document_with_its_metadata_first(tmp_path: Path) -> None:
    write([plain(2), plain(2, 2)], tmp_path / "a.json", origin=Origin(seed=5))
    text = (tmp_path / "a.json").read_text()
    document = orjson.loads(text)
    assert list(document) == ["metadata", "incidents"]
    assert (document["metadata"]["seed"], len(document["incidents"])) == (5, 4)
    assert text.index('"metadata"') < text.index('"incidents"')


def test_parquet_holds_row_groups_zstd_and_its_metadata(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    write((plain(9_000, start) for start in range(0, 90_000, 9_000)), tmp_path / "a.parquet")
    about = pq.read_metadata(tmp_path / "a.parquet")
    assert [about.row_group(number).num_rows for number in range(about.num_row_groups)] == [65_536, 90_000 - 65_536]
    assert about.row_group(0).column(0).compression == "ZSTD"
    assert orjson.loads(about.metadata[b"aiops.golden"])["count"] == 90_000


@pytest.mark.parametrize("name", NAMES)
def test_the_same_incidents_give_the_same_bytes_whatever_the_size_of_the_pieces(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    first = write([plain(500)], path, origin=Origin(seed=1))
    assert first.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    if name == "a.csv.gz":
        second = write([plain(500)], path, origin=Origin(seed=1))
    else:
        second = write((plain(100, start) for start in range(0, 500, 100)), path, origin=Origin(seed=1))
    assert first == second


def test_every_format_names_the_same_content(tmp_path: Path) -> None:
    frame = nasty()
    hashes = {write([frame], tmp_path / name).content_hash for name in NAMES}
    assert len(hashes) == 1
    other = frame.with_columns(location=pl.lit("elsewhere"))
    assert write([other], tmp_path / "a.csv").content_hash not in hashes


@pytest.mark.parametrize(
    ("name", "asked", "expected"),
    [
        ("A.CSV", None, "csv"),
        ("a.ndjson", None, "jsonl"),
        ("a.jsonl.gz", None, "jsonl"),
        ("a.dat", "parquet", "parquet"),
    ],
)
def test_the_format_follows_from_the_suffix_or_from_what_is_asked(name: str, asked: str | None, expected: str) -> None:
    assert format_of(Path(name), asked) == expected


@pytest.mark.parametrize(
    ("name", "asked", "words"),
    [("a", None, "suffix"), ("a.xls", None, "none of"), ("a.xlsx.gz", None, "without it"), ("a.csv", "toml", "toml")],
)
def test_an_unknown_format_is_refused_with_the_known_ones(name: str, asked: str | None, words: str) -> None:
    with pytest.raises(ExportProblem, match=words):
        format_of(Path(name), asked)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (pl.lit(None, pl.String).alias("category"), "row 4: category has no value"),
        (pl.lit(float("nan")).alias("ai_confidence_score"), "row 4: ai_confidence_score is no finite number"),
        (pl.lit(3, pl.Int64).alias("priority"), "priority is Int64, not Int32"),
        (pl.lit(10**18).cast(pl.Datetime("us", "UTC")).alias("opened_at"), "opened_at is outside the years"),
    ],
)
def test_frames_that_could_not_be_read_back_are_refused(change: pl.Expr, words: str, tmp_path: Path) -> None:
    with pytest.raises(ExportProblem, match=words):
        write([plain(3), plain(3).with_columns(change)], tmp_path / "a.csv")
    assert list(tmp_path.iterdir()) == []


# -- publishing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_failure_leaves_what_was_there_before(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    write([plain(5)], path)
    before = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}

    def broken() -> Iterator[pl.DataFrame]:
        yield plain(5_000)
        raise RuntimeError("the generator broke")

    with pytest.raises(RuntimeError, match="the generator broke"):
        write(broken(), path)
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == before


def test_two_exports_to_one_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"

    def other_meanwhile() -> Iterator[pl.DataFrame]:
        yield plain(3)
        with pytest.raises(ExportProblem, match="another export is writing it"):
            write([plain(1)], path)
        yield plain(3, 3)

    write(other_meanwhile(), path)
    assert read(path).equals(plain(6))


def test_what_a_killed_export_left_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    part_path(path).write_bytes(b"half a fi" * 10_000)
    write([plain(2)], path)
    assert read(path).equals(plain(2))
    assert not part_path(path).exists()


def test_metadata_of_an_earlier_file_does_not_stay_beside_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write([plain(2)], path)
    assert metadata_path(path).exists()
    write([plain(3)], path, metadata=False)
    assert not metadata_path(path).exists()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportProblem, match="there is no folder"):
        write([plain(1)], tmp_path / "none" / "a.csv")
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(ExportProblem, match="is a folder"):
        write([plain(1)], tmp_path / "a.csv")


def test_progress_counts_rows(tmp_path: Path) -> None:
    seen: list[int] = []
    write([plain(2), plain(3, 2)], tmp_path / "a.csv", progress=seen.append)
    assert seen == [2, 5]


# -- audit ------------------------------------------------------------------------------------------------------------


def test_every_export_is_in_the_audit_trail(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    path = tmp_path / "a.csv"
    made = export(settings, [plain(4)], path, who="ada", origin=Origin(seed=9, config_digest="d1"))
    engine = connect(settings.paths.operations_url)
    with reading(engine) as connection:
        (row,) = connection.execute(select(AUDIT).where(AUDIT.c.action == ACTION)).all()
    engine.dispose()
    assert (row.who, row.target) == ("ada", str(path.resolve()))
    details = orjson.loads(row.details)
    assert (details["count"], details["seed"], details["config_digest"]) == (4, 9, "d1")
    assert details["sha256"] == made.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_without_its_row_in_the_audit_trail_a_file_is_not_published(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    export(settings, [plain(1)], tmp_path / "first.csv", who="ada")
    engine = connect(settings.paths.operations_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE audit")
    engine.dispose()
    with pytest.raises(SQLAlchemyError):
        export(settings, [plain(1)], tmp_path / "second.csv", who="ada")
    assert {entry.name for entry in tmp_path.iterdir()} == {"home", "first.csv", "first.csv.metadata.json"}
