"""An Excel workbook of golden incidents, written row by row in constant memory by XlsxWriter.

What belongs here: which cell a value becomes, sheets, their look, limits of the format. What does not: other formats
and publishing (``exports``), and reading (``imports``).

Text never becomes a formula, a link or a number, and what begins like a formula carries ``quotePrefix``, so that it
stays text when somebody edits it. Every value comes back as it was: what a typed cell cannot hold is written as text.
Those are numbers that need more than the 16 digits XlsxWriter writes (Excel itself shows and computes with 15), and
instants before March 1900 or finer than a millisecond. Texts that XlsxWriter or readers would change are JSON strings
after ``ESCAPED``. Until it is closed, a workbook is a folder of XML in the system's place for temporary files
(``TMPDIR``), at the end up to four times the size of the rows as CSV; a killed process leaves it there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from datetime import datetime
from tempfile import TemporaryDirectory
from typing import IO, Any

import polars as pl

from aiops_assets.synthetic.golden.record import SCHEMA
from aiops_assets.synthetic.golden.work_notes import as_paragraphs

#: limits of the format (Microsoft, "Excel specifications and limits")
MOST_ROWS = 1_048_576
MOST_CHARACTERS = 32_767
#: a sheet with more bytes of XML would be ZIP64, which Excel opens with a question only; looked at every so many rows
MOST_BYTES, LOOK_EVERY = 1_900_000_000, 1_024
INCIDENTS, METADATA = "incidents", "metadata"
#: begins a cell with a JSON string
ESCAPED = "json:"
#: neither XML nor ``_xHHHH_`` brings the two characters through, runs of escapes are read differently by every
#: program, and XlsxWriter takes ``<r>`` for XML that is finished
_CHANGED = rf"\A(?:{ESCAPED}|<r>)|[\x{{FFFE}}\x{{FFFF}}]|_x[0-9A-Fa-f]{{4}}_"
#: beginnings that a spreadsheet takes for a formula when a cell is edited
FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠']")
#: the first day after the leap day of 1900 that Excel alone knows
_FIRST_DATE = datetime(1900, 3, 1)
#: no clock is read, so that the same incidents give the same bytes
_CREATED = datetime(2000, 1, 1)
_WIDTHS = {"short_description": 48, "description": 60, "work_notes": 60, "resolution_notes": 48}


class TooLongForCell(ValueError):
    """A text is longer than a cell may be."""


class Workbook:
    """Streams frames of ``SCHEMA`` into sheets ``incidents``, ``incidents 2`` … of a binary file."""

    def __init__(self, file: IO[bytes], *, rows_per_sheet: int = MOST_ROWS - 1) -> None:
        import xlsxwriter

        self._folder = TemporaryDirectory(prefix="aiops-workbook-")
        options = {
            "constant_memory": True,
            "tmpdir": self._folder.name,
            "strings_to_formulas": False,
            "strings_to_urls": False,
            "strings_to_numbers": False,
            # only for what grows past ``MOST_BYTES`` between two looks
            "use_zip64": True,
        }
        self._book = xlsxwriter.Workbook(file, options)
        self._book.set_properties({"created": _CREATED})
        self._quoted = self._book.add_format({"quote_prefix": True, "num_format": "@"})
        self._date = self._book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
        self._bold = self._book.add_format({"bold": True})
        self._rows_per_sheet = rows_per_sheet
        self._in_sheet = self._taken = 0
        self._begin()

    def add(self, frame: pl.DataFrame) -> None:
        """Write the rows of a frame.

        Raises:
            TooLongForCell: names row (counted from 1 over all frames) and column.
        """
        for row in _cells(frame).iter_rows():
            if self._in_sheet == self._rows_per_sheet or self._is_large():
                self._end()
                self._begin()
            self._in_sheet += 1
            self._taken += 1
            for column, value in enumerate(row):
                if value is not None:
                    self._write(self._in_sheet, column, value)

    def close(self, metadata: Mapping[str, object] | None) -> None:
        """Finish the file; ``metadata`` becomes a sheet of its own.

        Raises:
            OSError: the disk is full, for instance.
        """
        from xlsxwriter.exceptions import FileCreateError

        self._end()
        if metadata is not None:
            self._sheet = self._book.add_worksheet(METADATA)
            self._sheet.set_column(0, 0, 20)
            self._sheet.set_column(1, 1, 70)
            for number, (name, value) in enumerate(metadata.items()):
                self._sheet.write_string(number, 0, name, self._bold)
                self._write(number, 1, value if isinstance(value, int) else str(value))
        try:
            self._book.close()
        except FileCreateError as error:
            raise error.args[0] from error
        finally:
            self._folder.cleanup()

    def abandon(self) -> None:
        """Give the file back without finishing it."""
        for sheet in self._book.worksheets():
            sheet.row_data_fh.close()
        self._folder.cleanup()

    def _begin(self) -> None:
        number = len(self._book.worksheets()) + 1
        self._sheet = self._book.add_worksheet(INCIDENTS if number == 1 else f"{INCIDENTS} {number}")
        self._sheet.freeze_panes(1, 0)
        for column, (name, dtype) in enumerate(SCHEMA.items()):
            least = 20 if isinstance(dtype, pl.Datetime) else 14 if dtype == pl.String else 9
            self._sheet.set_column(column, column, max(_WIDTHS.get(name, least), len(name) + 3))
            self._sheet.write_string(0, column, name, self._bold)
        self._in_sheet = 0

    def _end(self) -> None:
        self._sheet.autofilter(0, 0, self._in_sheet, len(SCHEMA) - 1)

    def _is_large(self) -> bool:
        return self._in_sheet % LOOK_EVERY == 0 and os.fstat(self._sheet.row_data_fh.fileno()).st_size > MOST_BYTES

    def _write(self, row: int, column: int, value: Any) -> None:
        if isinstance(value, str):
            self._text(row, column, value)
        elif isinstance(value, bool):
            self._sheet.write_boolean(row, column, value)
        elif isinstance(value, datetime):
            if value >= _FIRST_DATE and value.microsecond % 1_000 == 0:
                self._sheet.write_datetime(row, column, value, self._date)
            else:
                self._text(row, column, f"{value.isoformat()}Z")
        elif float(f"{value:.16G}") == value:
            self._sheet.write_number(row, column, value)
        else:
            self._text(row, column, repr(value))

    def _text(self, row: int, column: int, text: str) -> None:
        # XlsxWriter cuts longer texts off, which this module never accepts.
        units = len(text) if len(text) <= MOST_CHARACTERS // 2 else len(text.encode("utf-16-le")) // 2
        if units > MOST_CHARACTERS:
            raise TooLongForCell(
                f"row {self._taken}, {list(SCHEMA)[column]}: {units:,} characters, an Excel cell holds at most "
                f"{MOST_CHARACTERS:,}; export to .parquet, .jsonl or .csv instead"
            )
        self._sheet.write_string(row, column, text, self._quoted if FORMULA.match(text) else None)


def _cells(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with work notes as texts, instants in UTC without a zone, and texts that a cell can hold."""
    flat = frame.select(
        as_paragraphs(pl.col(name)).alias(name)
        if isinstance(dtype, pl.List)
        else pl.col(name).dt.replace_time_zone(None)
        if isinstance(dtype, pl.Datetime)
        else pl.col(name)
        for name, dtype in SCHEMA.items()
    )
    return flat.with_columns(_holdable(column) for column in flat.iter_columns() if column.dtype == pl.String)


def _holdable(texts: pl.Series) -> pl.Series:
    changed = texts.str.contains(_CHANGED)
    if not changed.any():
        return texts
    made = [_json(text) if special else text for text, special in zip(texts, changed, strict=True)]
    return pl.Series(texts.name, made, pl.String)


def _json(text: str) -> str:
    return ESCAPED + json.dumps(text).replace("_x", r"\u005fx")
