"""An Excel workbook (ECMA-376, Office Open XML) of golden incidents, written row by row in constant memory.

What belongs here: the parts of the file, typed cells, styles, limits of the format. What does not: other formats and
publishing (``exports``), and reading (``imports``).

Cells are made as columns of text and not one by one: twenty times as fast as the libraries that write cell by cell, and
numbers keep their 17 digits. Text never becomes a formula: cells are typed ``inlineStr``, and those that begin like one
carry ``quotePrefix``, so that they stay text when somebody edits them. Characters that XML cannot hold are written as
``_xHHHH_`` (ECMA-376 part 1, 22.9.2.19, ST_Xstring).
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from typing import IO
from xml.sax.saxutils import escape, quoteattr

import polars as pl

from aiops_assets.synthetic.golden.record import SCHEMA
from aiops_assets.synthetic.golden.work_notes import as_paragraphs

#: limits of the format (Microsoft, "Excel specifications and limits")
MOST_ROWS = 1_048_576
MOST_CHARACTERS = 32_767
#: a part above this would need ZIP64, which not every reader knows
MOST_BYTES = 3_500_000_000
INCIDENTS, METADATA = "incidents", "metadata"
#: begins a cell with a JSON string: text with the two characters that neither XML nor ``_xHHHH_`` brings through
ESCAPED = "json:"
_UNHOLDABLE = r"[\x{FFFE}\x{FFFF}]"
#: beginnings that a spreadsheet takes for a formula when a cell is edited
FORMULA = r"\A[=+\-@\t\r\n＝＋－＠']"
_CONTROL = {chr(code): f"_x{code:04X}_" for code in range(32) if chr(code) not in "\t\n"}
_XML = {"&": "&amp;", "<": "&lt;", ">": "&gt;", **_CONTROL}
_TEXT, _QUOTED, _DATE, _HEADER = 0, 1, 2, 3
_MICROS_PER_DAY = 86_400_000_000
#: 1899-12-30, day 0 of the 1900 date system for dates after its leap-year mistake
_DAY_ZERO = -2_209_161_600_000_000
#: what a typed date can hold: from 1900-03-01 on, whole milliseconds
_FIRST_DATE = _DAY_ZERO + 61 * _MICROS_PER_DAY
_WIDTHS = {"short_description": 48, "description": 60, "work_notes": 60, "resolution_notes": 48}
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_DOCUMENT = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_EPOCH = (1980, 1, 1, 0, 0, 0)


class TooLongForCell(ValueError):
    """A text is longer than a cell may be."""


class Workbook:
    """Streams frames of ``SCHEMA`` into sheets ``incidents``, ``incidents 2`` … of a binary file."""

    def __init__(self, file: IO[bytes], *, rows_per_sheet: int = MOST_ROWS - 1, level: int = 1) -> None:
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=level)
        self._rows_per_sheet = rows_per_sheet
        self._sheet: IO[bytes] | None = None
        self._sheets: list[tuple[str, int]] = []
        self._in_sheet = self._bytes = self._taken = 0

    def add(self, frame: pl.DataFrame) -> None:
        """Write the rows of a frame.

        Raises:
            TooLongForCell: names row (counted from 1 over all frames) and column.
        """
        while not frame.is_empty():
            if self._sheet is None or self._in_sheet == self._rows_per_sheet or self._bytes > MOST_BYTES:
                self._begin()
            piece = frame.head(min(self._rows_per_sheet - self._in_sheet, 8_192))
            self._write(_rows(piece, self._in_sheet + 2, self._taken))
            self._in_sheet += piece.height
            self._taken += piece.height
            frame = frame.slice(piece.height)

    def close(self, metadata: Mapping[str, object] | None) -> None:
        """Finish the file; ``metadata`` becomes a sheet of its own."""
        if self._sheet is None:
            self._begin()
        self._end()
        names = [name for name, _ in self._sheets]
        if metadata is not None:
            names.append(METADATA)
            self._part(f"xl/worksheets/sheet{len(names)}.xml", _metadata_sheet(metadata))
        for path, text in _parts(names, [rows for _, rows in self._sheets]):
            self._part(path, text)
        self._zip.close()

    def abandon(self) -> None:
        """Give the file back without finishing it."""
        if self._sheet is not None:
            self._sheet.close()
        self._zip.close()

    def _begin(self) -> None:
        if self._sheet is not None:
            self._end()
        number = len(self._sheets) + 1
        self._sheets.append((INCIDENTS if number == 1 else f"{INCIDENTS} {number}", 0))
        self._sheet = self._zip.open(_info(f"xl/worksheets/sheet{number}.xml"), "w")
        self._in_sheet = self._bytes = 0
        self._write(_sheet_head(number == 1).encode())

    def _end(self) -> None:
        if self._sheet is None:
            return
        name, _ = self._sheets[-1]
        self._sheets[-1] = (name, self._in_sheet)
        self._write(f'</sheetData><autoFilter ref="A1:{_LAST}{self._in_sheet + 1}"/></worksheet>'.encode())
        self._sheet.close()
        self._sheet = None

    def _write(self, data: bytes) -> None:
        if self._sheet is not None:
            self._sheet.write(data)
            self._bytes += len(data)

    def _part(self, path: str, text: str) -> None:
        self._zip.writestr(_info(path), text)


def _info(path: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(path, _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def _letters(number: int) -> str:
    """A, B, … Z, AA, … of a column counted from 0."""
    return _letters(number // 26 - 1) + chr(65 + number % 26) if number >= 26 else chr(65 + number)


_LAST = _letters(len(SCHEMA) - 1)


def _rows(frame: pl.DataFrame, first: int, taken: int) -> bytes:
    """The XML of rows; ``first`` is the number of the first row in its sheet."""
    texts = frame.select(
        as_paragraphs(pl.col(name)).alias(name) if isinstance(dtype, pl.List) else pl.col(name)
        for name, dtype in SCHEMA.items()
        if isinstance(dtype, pl.List) or dtype == pl.String
    )
    texts = texts.select(_holdable(pl.col(name)).alias(name) for name in texts.columns)
    _check_lengths(texts, taken)
    wide = frame.with_columns(texts).with_columns(_row=pl.int_range(first, first + frame.height).cast(pl.String))
    cells = [_cell(name, dtype, _letters(number)) for number, (name, dtype) in enumerate(SCHEMA.items())]
    row = pl.concat_str(pl.lit('<row r="'), "_row", pl.lit('">'), *cells, pl.lit("</row>"))
    return str(wide.select(row.str.join("")).item()).encode()


def _holdable(text: pl.Expr) -> pl.Expr:
    """Text as it can be brought through a workbook; see ``ESCAPED``."""
    special = text.str.contains(_UNHOLDABLE) | text.str.starts_with(ESCAPED)
    encoded = text.map_batches(_json_strings, return_dtype=pl.String())
    return pl.when(special).then(pl.concat_str(pl.lit(ESCAPED), encoded)).otherwise(text)


def _json_strings(texts: pl.Series) -> pl.Series:
    special = texts.str.contains(_UNHOLDABLE) | texts.str.starts_with(ESCAPED)
    if not special.any():
        return texts
    import json

    return pl.Series(texts.name, [None if text is None else json.dumps(text) for text in texts], pl.String)


def _check_lengths(texts: pl.DataFrame, taken: int) -> None:
    """Excel counts UTF-16 units, of which characters beyond U+FFFF need two."""
    for column in texts.iter_columns():
        if not (column.str.len_bytes() > MOST_CHARACTERS).any():
            continue
        units = column.str.len_chars() + column.str.count_matches(r"[\x{10000}-\x{10FFFF}]")
        if (units > MOST_CHARACTERS).any():
            row = units.arg_max() or 0
            raise TooLongForCell(
                f"row {taken + row + 1}, {column.name}: {units[row]:,} characters, an Excel cell holds at most "
                f"{MOST_CHARACTERS:,}; export to .parquet, .jsonl or .csv instead"
            )


def _cell(name: str, dtype: pl.DataType, letters: str) -> pl.Expr:
    """The XML of one column's cells; an empty text for null, whose cell is left out."""
    at = pl.lit(f'<c r="{letters}')
    value = pl.col(name)
    if isinstance(dtype, pl.List) or dtype == pl.String:
        made = _text_cell(at, value)
    elif isinstance(dtype, pl.Datetime):
        micros = value.to_physical()
        serial = (micros - _DAY_ZERO).cast(pl.Float64) / _MICROS_PER_DAY
        typed = (micros % 1_000 == 0) & (micros >= _FIRST_DATE) & (value.dt.year() <= 9999)
        date = pl.concat_str(at, "_row", pl.lit(f'" s="{_DATE}"><v>'), serial.cast(pl.String), pl.lit("</v></c>"))
        made = pl.when(typed).then(date).otherwise(_text_cell(at, value.dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")))
    elif dtype == pl.Boolean:
        made = pl.concat_str(at, "_row", pl.lit('" t="b"><v>'), value.cast(pl.Int8).cast(pl.String), pl.lit("</v></c>"))
    else:
        made = pl.concat_str(at, "_row", pl.lit('"><v>'), value.cast(pl.String), pl.lit("</v></c>"))
    return made.fill_null("")


def _text_cell(at: pl.Expr, value: pl.Expr) -> pl.Expr:
    style = pl.when(value.str.contains(FORMULA)).then(pl.lit(f'" s="{_QUOTED}"')).otherwise(pl.lit('"'))
    return pl.concat_str(
        at,
        "_row",
        style,
        pl.lit(' t="inlineStr"><is><t xml:space="preserve">'),
        _xml_text(value),
        pl.lit("</t></is></c>"),
    )


def _xml_text(value: pl.Expr) -> pl.Expr:
    """Text for XML; what looks like an escape is escaped itself."""
    looks = value.str.contains(r"_x[0-9A-Fa-f]{4}_")
    plain = pl.when(looks).then(value.str.replace_all("_x", "_x005F_x", literal=True)).otherwise(value)
    return plain.str.replace_many(list(_XML), list(_XML.values()))


def _sheet_head(selected: bool) -> str:
    columns = "".join(
        f'<col min="{number}" max="{number}" width="{_width(name, dtype)}" customWidth="1"/>'
        for number, (name, dtype) in enumerate(SCHEMA.items(), 1)
    )
    header = "".join(
        f'<c r="{_letters(number)}1" s="{_HEADER}" t="inlineStr"><is><t>{escape(name)}</t></is></c>'
        for number, name in enumerate(SCHEMA)
    )
    tab = ' tabSelected="1"' if selected else ""
    return (
        f'{_HEAD}<worksheet xmlns="{_MAIN}"><sheetViews><sheetView{tab} workbookViewId="0">'
        '<pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/>'
        '<selection pane="bottomLeft" activeCell="A2" sqref="A2"/></sheetView></sheetViews>'
        f'<sheetFormatPr defaultRowHeight="15"/><cols>{columns}</cols><sheetData><row r="1">{header}</row>'
    )


def _width(name: str, dtype: pl.DataType) -> int:
    least = 20 if isinstance(dtype, pl.Datetime) else 14 if dtype == pl.String else 9
    return max(_WIDTHS.get(name, least), len(name) + 3)


def _metadata_sheet(metadata: Mapping[str, object]) -> str:
    rows = []
    for number, (name, value) in enumerate(metadata.items(), 1):
        key = f'<c r="A{number}" s="{_HEADER}" t="inlineStr"><is><t>{escape(name)}</t></is></c>'
        whole = isinstance(value, int) and not isinstance(value, bool)
        text = f"<v>{value}</v></c>" if whole else f"<is><t>{escape(str(value))}</t></is></c>"
        kind = "" if whole else ' t="inlineStr"'
        rows.append(f'<row r="{number}">{key}<c r="B{number}"{kind}>{text}</row>')
    return (
        f'{_HEAD}<worksheet xmlns="{_MAIN}"><cols><col min="1" max="1" width="20" customWidth="1"/>'
        f'<col min="2" max="2" width="70" customWidth="1"/></cols><sheetData>{"".join(rows)}</sheetData></worksheet>'
    )


def _parts(names: list[str], rows: list[int]) -> list[tuple[str, str]]:
    """Paths and texts of everything but the sheets; ``rows`` are those of the sheets that have a filter."""
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    numbers = range(1, len(names) + 1)
    types = "".join(
        f'<Override PartName="/xl/worksheets/sheet{n}.xml" ContentType="{kind}.worksheet+xml"/>' for n in numbers
    )
    sheets = "".join(f'<sheet name={quoteattr(names[n - 1])} sheetId="{n}" r:id="rId{n}"/>' for n in numbers)
    filters = "".join(
        f'<definedName name="_xlnm._FilterDatabase" localSheetId="{n}" hidden="1">'
        f"'{names[n]}'!$A$1:${_LAST}${height + 1}</definedName>"
        for n, height in enumerate(rows)
    )
    links = "".join(
        f'<Relationship Id="rId{n}" Type="{_DOCUMENT}/worksheet" Target="worksheets/sheet{n}.xml"/>' for n in numbers
    )
    return [
        (
            "[Content_Types].xml",
            f'{_HEAD}<Types xmlns="{_PACKAGE}/content-types"><Default Extension="rels" '
            'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            '<Default Extension="xml" ContentType="application/xml"/>'
            f'<Override PartName="/xl/workbook.xml" ContentType="{kind}.sheet.main+xml"/>{types}'
            f'<Override PartName="/xl/styles.xml" ContentType="{kind}.styles+xml"/></Types>',
        ),
        (
            "_rels/.rels",
            f'{_HEAD}<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="rId1" '
            f'Type="{_DOCUMENT}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        ),
        (
            "xl/workbook.xml",
            f'{_HEAD}<workbook xmlns="{_MAIN}" xmlns:r="{_DOCUMENT}"><bookViews><workbookView/></bookViews>'
            f"<sheets>{sheets}</sheets><definedNames>{filters}</definedNames></workbook>",
        ),
        (
            "xl/_rels/workbook.xml.rels",
            f'{_HEAD}<Relationships xmlns="{_PACKAGE}/relationships">{links}'
            f'<Relationship Id="rId{len(names) + 1}" Type="{_DOCUMENT}/styles" Target="styles.xml"/></Relationships>',
        ),
        ("xl/styles.xml", _STYLES),
    ]


_STYLES = (
    f'{_HEAD}<styleSheet xmlns="{_MAIN}">'
    '<numFmts count="1"><numFmt numFmtId="164" formatCode="yyyy\\-mm\\-dd\\ hh:mm:ss"/></numFmts>'
    '<fonts count="2"><font><sz val="11"/><name val="Calibri"/><family val="2"/></font>'
    '<font><b/><sz val="11"/><name val="Calibri"/><family val="2"/></font></fonts>'
    '<fills count="2"><fill><patternFill patternType="none"/></fill><fill><patternFill patternType="gray125"/></fill>'
    '</fills><borders count="1"><border><left/><right/><top/><bottom/><diagonal/></border></borders>'
    '<cellStyleXfs count="1"><xf numFmtId="0" fontId="0" fillId="0" borderId="0"/></cellStyleXfs>'
    '<cellXfs count="4"><xf numFmtId="0" fontId="0" fillId="0" borderId="0" xfId="0"/>'
    '<xf numFmtId="49" fontId="0" fillId="0" borderId="0" xfId="0" quotePrefix="1" applyNumberFormat="1"/>'
    '<xf numFmtId="164" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/>'
    '<xf numFmtId="0" fontId="1" fillId="0" borderId="0" xfId="0" applyFont="1"/></cellXfs>'
    '<cellStyles count="1"><cellStyle name="Normal" xfId="0" builtinId="0"/></cellStyles></styleSheet>'
)
