"""Exported golden incidents read back, from every format, to exactly what was written.

What belongs here: reading files that ``exports`` wrote, also after somebody saved them again in a spreadsheet, and
their metadata. What does not: real incidents of other shapes (``reference``), and judging what was read (the gate).
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from aiops_assets.synthetic.golden.content import content_hash
from aiops_assets.synthetic.golden.exports import (
    FORMULA,
    PARQUET_KEY,
    ExportProblem,
    Format,
    format_of,
    metadata_path,
)
from aiops_assets.synthetic.golden.record import NULLABLE, SCHEMA
from aiops_assets.synthetic.golden.spreadsheet import ESCAPED, INCIDENTS, METADATA
from aiops_assets.synthetic.golden.work_notes import parsed

#: how times may be written in text, besides what Excel gives as a date
_TIMES = ("%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f")
_NOTE_TIME = "%Y-%m-%dT%H:%M:%S%.f%#z"
#: what JSON is read as: times as texts, which is four times as fast as letting the reader find out
_WRITTEN: dict[str, pl.DataType] = {
    name: pl.List(pl.Struct({"written_at": pl.String(), "author": pl.String(), "note": pl.String()}))
    if isinstance(dtype, pl.List)
    else pl.String()
    if isinstance(dtype, pl.Datetime)
    else dtype
    for name, dtype in SCHEMA.items()
}
_TRUE, _FALSE = ("true", "TRUE", "True", "1"), ("false", "FALSE", "False", "0")


class ImportProblem(ValueError):
    """A file is no export of golden incidents; says which file and where, what was expected, and what to do."""


def read(path: Path, *, format: str | None = None) -> pl.DataFrame:
    """All incidents of a file, a frame of ``record.SCHEMA``.

    Columns may stand in any order; others than the record's are left out. In text formats times without an offset are
    taken as UTC.

    Raises:
        ImportProblem: names the file and the first row and column that cannot be read.
    """
    readers: dict[Format, Callable[[Path], pl.DataFrame]] = {
        "csv": _csv,
        "json": _json,
        "jsonl": _json_lines,
        "xlsx": _xlsx,
        "parquet": _parquet,
    }
    if not path.is_file():
        raise ImportProblem(f"{path}: there is no such file")
    try:
        return _complete(readers[format_of(path, format)](path), path)
    except ImportProblem:
        raise
    except ExportProblem as error:
        raise ImportProblem(str(error)) from error
    except (pl.exceptions.PolarsError, ValueError, OSError, EOFError, zlib.error) as error:
        raise ImportProblem(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error


def metadata(path: Path, *, format: str | None = None) -> dict[str, Any] | None:
    """What the file says about itself; ``None`` when it was written without metadata.

    Raises:
        ImportProblem: the file is missing or damaged.
    """
    if not path.is_file():
        raise ImportProblem(f"{path}: there is no such file")
    try:
        kind = format_of(path, format)
        if kind in {"csv", "jsonl"}:
            beside = metadata_path(path)
            return orjson.loads(beside.read_bytes()) if beside.is_file() else None
        if kind == "json":
            found: dict[str, Any] | None = _document(path).get("metadata")
            return found
        if kind == "parquet":
            import pyarrow.parquet as pq

            entries = pq.read_metadata(path).metadata or {}
            stored = entries.get(PARQUET_KEY.encode())
            return None if stored is None else orjson.loads(stored)
        return _sheet_metadata(path)
    except ExportProblem as error:
        raise ImportProblem(str(error)) from error
    except (ValueError, OSError) as error:
        raise ImportProblem(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error


def verified(path: Path) -> tuple[pl.DataFrame, bool | None]:
    """The incidents, and whether they are those that the metadata names (``None``: the file has none)."""
    frame, about = read(path), metadata(path)
    expected = (about or {}).get("content_hash")
    return frame, None if expected is None else content_hash(frame) == expected


def _bytes(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix.lower() == ".gz" else data


def _csv(path: Path) -> pl.DataFrame:
    frame = pl.read_csv(_bytes(path), infer_schema=False)
    return frame.with_columns(
        pl.when(pl.col(name).str.contains(FORMULA) & pl.col(name).str.starts_with("'"))
        .then(pl.col(name).str.strip_prefix("'"))
        .otherwise(name)
        .alias(name)
        for name in frame.columns
    )


def _json_lines(path: Path) -> pl.DataFrame:
    data = _bytes(path)
    return pl.read_ndjson(data, schema=_WRITTEN) if data.strip() else pl.DataFrame(schema=SCHEMA)


def _document(path: Path) -> dict[str, Any]:
    document = orjson.loads(path.read_bytes())
    if not isinstance(document, dict) or not isinstance(document.get("incidents"), list):
        raise ImportProblem(f"{path}: expected one object with a list 'incidents' (and 'metadata')")
    return document


def _json(path: Path) -> pl.DataFrame:
    lines = b"\n".join(orjson.dumps(entry) for entry in _document(path)["incidents"])
    return pl.read_ndjson(lines, schema=_WRITTEN) if lines else pl.DataFrame(schema=SCHEMA)


def _parquet(path: Path) -> pl.DataFrame:
    return pl.read_parquet(path)


def _xlsx(path: Path) -> pl.DataFrame:
    import fastexcel

    try:
        book = fastexcel.read_excel(path)
        names = [name for name in book.sheet_names if name == INCIDENTS or name.startswith(f"{INCIDENTS} ")]
        if not names:
            raise ImportProblem(f"{path}: has no sheet {INCIDENTS!r}; its sheets are {', '.join(book.sheet_names)}")
        sheets = []
        for name in names:
            header = book.load_sheet(name, n_rows=0)
            dtypes = {column.name: _cell_type(column.name) for column in header.available_columns()}
            sheets.append(book.load_sheet(name, dtypes=dtypes).to_polars())  # type: ignore[arg-type]
    except fastexcel.FastExcelError as error:
        raise ImportProblem(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error
    frame = pl.concat(sheets)
    texts = [name for name in frame.columns if isinstance(SCHEMA.get(name), pl.String | pl.List)]
    frame = frame.with_columns(_from_json_strings(frame[name]) for name in texts)
    # A spreadsheet that saves the file again leaves out cells with an empty text.
    return frame.with_columns(pl.col(name).fill_null("") for name in texts if name not in NULLABLE)


def _cell_type(name: str) -> str:
    dtype = SCHEMA.get(name)
    return "float" if dtype is not None and dtype.is_numeric() else "boolean" if dtype == pl.Boolean else "string"


def _from_json_strings(texts: pl.Series) -> pl.Series:
    """Texts with characters that no cell can hold are JSON strings; see ``spreadsheet.ESCAPED``."""
    if not texts.str.starts_with(ESCAPED).any():
        return texts
    import json

    back = [
        json.loads(text.removeprefix(ESCAPED)) if text is not None and text.startswith(ESCAPED) else text
        for text in texts
    ]
    return pl.Series(texts.name, back, pl.String)


def _sheet_metadata(path: Path) -> dict[str, Any] | None:
    import fastexcel

    try:
        book = fastexcel.read_excel(path)
        if METADATA not in book.sheet_names:
            return None
        sheet = book.load_sheet(METADATA, header_row=None, column_names=["name", "value"], dtypes="string")
    except fastexcel.FastExcelError as error:
        raise ImportProblem(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error
    whole = {"count", "seed", "layout"}
    return {name: int(value) if name in whole else value for name, value in sheet.to_polars().iter_rows()}


def _complete(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The frame with the record's columns, order and dtypes."""
    if missing := [name for name in SCHEMA if name not in frame.columns]:
        raise ImportProblem(
            f"{path}: no column {', '.join(missing)}; golden incidents have {', '.join(SCHEMA)}. "
            "Real incidents of another shape are for `aiops golden fit`"
        )
    made = pl.DataFrame([_typed(frame[name], dtype, path) for name, dtype in SCHEMA.items()], schema=SCHEMA)
    for name in SCHEMA:
        if name not in NULLABLE and made[name].null_count():
            row = (made[name].is_null().arg_max() or 0) + 1
            raise ImportProblem(f"{path}: row {row}: {name} has no value")
    return made


def _typed(column: pl.Series, dtype: pl.DataType, path: Path) -> pl.Series:
    if column.dtype == dtype:
        return column
    if column.dtype == pl.Null:
        return column.cast(dtype)
    if isinstance(dtype, pl.List) and column.dtype == pl.String:
        try:
            return parsed(column).alias(column.name)
        except ValueError as error:
            raise ImportProblem(f"{path}: {error}") from error
    if isinstance(dtype, pl.List):
        written = pl.field("written_at").str.to_datetime(_NOTE_TIME, time_unit="us")
        return column.list.eval(pl.element().struct.with_fields(written)).cast(dtype)
    if dtype == pl.Boolean and column.dtype == pl.String:
        made = column.to_frame().select(
            pl.when(column.is_in(_TRUE)).then(True).when(column.is_in(_FALSE)).then(False)
        ).to_series()  # fmt: skip
    elif isinstance(dtype, pl.Datetime) and column.dtype == pl.String:
        made = _instants(column)
    elif isinstance(dtype, pl.Datetime):
        made = column.dt.replace_time_zone("UTC") if column.dtype == pl.Datetime else column.clear(len(column))
        made = made.cast(dtype)
    else:
        made = column.cast(dtype, strict=False)
        if column.dtype.is_float() and dtype.is_integer():
            made = made.to_frame().select(pl.when(made.cast(pl.Float64) == column).then(made)).to_series()
    lost = made.is_null() & column.is_not_null()
    if column.dtype == pl.String:
        lost &= column != ""
    if lost.any():
        row = lost.arg_max() or 0
        raise ImportProblem(f"{path}: row {row + 1}: {column.name} is {column[row]!r}, expected {_words(dtype)}")
    return made.alias(column.name)


def _instants(column: pl.Series) -> pl.Series:
    made = pl.Series(column.name, [None] * len(column), pl.Datetime("us", "UTC"))
    for form in _TIMES:
        if made.null_count() == column.null_count():
            break
        read = column.str.to_datetime(form, time_unit="us", strict=False, exact=True)
        zoned = read.dt.replace_time_zone("UTC") if read.dtype.time_zone is None else read  # type: ignore[attr-defined]
        made = made.zip_with(made.is_not_null(), zoned)
    return made


def _words(dtype: pl.DataType) -> str:
    if isinstance(dtype, pl.Datetime):
        return "an instant such as 2026-03-02T09:15:00Z"
    if dtype == pl.Boolean:
        return "true or false"
    return "a whole number" if dtype.is_integer() else "a number" if dtype.is_float() else "a text"
