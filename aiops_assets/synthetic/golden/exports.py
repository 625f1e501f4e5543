"""Golden incidents as files: CSV, JSON, JSON Lines, Excel and Parquet, frame by frame, published whole or not at all.

What belongs here: the writers of the formats, the metadata that goes with a file, and publishing under the final name.
What does not: who exported what (``audit``), reading back (``imports``), the inside of workbooks (``spreadsheet``).

The same incidents with the same metadata give the same bytes: nothing here reads a clock. CSV follows RFC 4180 with a
byte-order mark; every text is quoted, and texts that a spreadsheet would take for a formula get a leading apostrophe
(OWASP, "CSV Injection"), which ``imports`` takes away again. Metadata of CSV and JSON Lines, which have no place for
it, goes into ``NAME.metadata.json`` beside the file.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, cast, get_args

import orjson
import polars as pl

from aiops_assets.landing.writer import fsync_folder
from aiops_assets.synthetic.golden.content import ContentHash, code_version
from aiops_assets.synthetic.golden.record import NULLABLE, SCHEMA
from aiops_assets.synthetic.golden.work_notes import as_json

Format = Literal["csv", "json", "jsonl", "xlsx", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".xlsx": "xlsx",
    ".parquet": "parquet",
}
PACKED: tuple[Format, ...] = ("csv", "jsonl")
#: begins texts that spreadsheets take for formulas; an apostrophe before one of them is doubled, so that it comes back
FORMULA = r"\A'*[=+\-@\t\r\n＝＋－＠]"
#: version of the layout of exported files
LAYOUT = 1
#: key of the metadata in the footer of Parquet files
PARQUET_KEY = "aiops.golden"
_ROWS_PER_GROUP = 65_536
#: room for the metadata at the beginning of a JSON document, which is known when everything has been written
_ROOM = 4_096
#: microseconds since the epoch of the first and the last instant that ISO 8601 writes with four digits of a year
_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_799_999_999


class ExportProblem(ValueError):
    """Incidents cannot be written as asked; says which file, what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where incidents come from, as far as the caller knows: part of a file's metadata and of the audit trail."""

    generator: str = "aiops golden"
    config_digest: str = ""
    seed: int | None = None
    provider: str = "offline"
    #: version of the data set, when it is a registered one
    version: str = ""


@dataclass(frozen=True, slots=True)
class Export:
    """A file that is written and about to be published, or already is."""

    path: Path
    format: Format
    rows: int
    size: int
    #: of the file's bytes
    sha256: str
    #: of the incidents, the same in every format; see ``content``
    content_hash: str
    origin: Origin


class _Writer(Protocol):
    def add(self, frame: pl.DataFrame) -> None: ...

    def close(self, metadata: dict[str, Any] | None) -> None: ...

    def abandon(self) -> None: ...


def format_of(path: Path, asked: str | None = None) -> Format:
    """The format of a file by what was asked for or by its suffix, ``.gz`` left out.

    Raises:
        ExportProblem: neither names a known format, or it cannot be packed.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = bool(suffixes) and suffixes[-1] == ".gz"
    if packed:
        suffixes.pop()
    found = asked or SUFFIXES.get(suffixes[-1] if suffixes else "")
    for known in FORMATS:
        if known == found:
            if packed and known not in PACKED:
                raise ExportProblem(f"{path}: .gz is for {' and '.join(PACKED)}; write .{known} without it")
            return known
    raise ExportProblem(
        f"{path}: {'format ' + repr(asked) if asked else 'the suffix'} is none of {', '.join(FORMATS)}; "
        f"name the file with {', '.join(SUFFIXES)} (.csv.gz, .jsonl.gz) or say which format"
    )


def metadata_path(path: Path) -> Path:
    """Where the metadata of a CSV or JSON Lines file is."""
    return path.with_name(path.name + ".metadata.json")


def write(
    frames: Iterable[pl.DataFrame],
    path: Path,
    *,
    format: Format | None = None,
    metadata: bool = True,
    origin: Origin | None = None,
    progress: Callable[[int], None] | None = None,
    before_publishing: Callable[[Export], None] | None = None,
) -> Export:
    """Write frames of ``record.SCHEMA`` (more columns are left out) into one file; memory does not grow with rows.

    The file appears under its name only when all of it is on disk; a killed export leaves what was there before, and a
    hidden ``.NAME.part`` that the next export to that name takes over. ``progress`` gets the rows written so far.
    ``before_publishing`` is called when the bytes are final and before the name is: if it raises, nothing appears.

    Raises:
        ExportProblem: unknown format, a frame that is no golden incidents, a value that the format cannot hold, a
            missing folder, or another export to the same file under way.
        spreadsheet.TooLongForCell: a text that no Excel cell can hold.
    """
    kind = format_of(path, format)
    origin = origin or Origin()
    content = ContentHash()
    with _part(path) as file:
        with _packing(file, path) as target:
            writer = _writer(kind, target)
            try:
                for frame in frames:
                    checked = _checked(frame, content.rows)
                    content.add(checked)
                    writer.add(checked)
                    if progress is not None:
                        progress(content.rows)
            except BaseException:
                writer.abandon()
                raise
            about = _metadata(kind, origin, content)
            writer.close(about if metadata else None)
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        made = Export(path, kind, content.rows, file.tell(), sha256, content.hexdigest(), origin)
        if before_publishing is not None:
            before_publishing(made)
        _publish(path, {**about, "sha256": sha256} if metadata and kind in PACKED else None)
    return made


def _metadata(kind: Format, origin: Origin, content: ContentHash) -> dict[str, Any]:
    return {
        **{name: value for name, value in asdict(origin).items() if value not in {"", None}},
        "count": content.rows,
        "content_hash": content.hexdigest(),
        "code_version": code_version(),
        "layout": LAYOUT,
        "format": kind,
    }


def _checked(frame: pl.DataFrame, before: int) -> pl.DataFrame:
    """The frame's columns in order, when all of them can be written and read back; ``before`` rows came earlier."""
    if missing := [name for name in SCHEMA if name not in frame.columns]:
        raise ExportProblem(f"these are no golden incidents: no column {', '.join(missing)}")
    frame = frame.select(list(SCHEMA))
    wrong = [
        f"{name} is {frame[name].dtype}, not {dtype}" for name, dtype in SCHEMA.items() if frame[name].dtype != dtype
    ]
    if wrong:
        raise ExportProblem(f"these are no golden incidents: {'; '.join(wrong)}")
    for name, dtype in SCHEMA.items():
        column = frame[name]
        if name not in NULLABLE and column.null_count():
            raise ExportProblem(f"row {before + (column.is_null().arg_max() or 0) + 1}: {name} has no value")
        times = column.list.explode().struct.field("written_at") if isinstance(dtype, pl.List) else column
        if isinstance(times.dtype, pl.Datetime):
            numbers = times.to_physical()
            least, most = numbers.min(), numbers.max()
            if least is not None and (least < _FIRST or most > _LAST):  # type: ignore[operator]
                raise ExportProblem(f"rows from {before + 1} on: {name} is outside the years 1 to 9999")
        if dtype == pl.Float64 and not column.is_finite().all():
            raise ExportProblem(f"row {before + (column.is_finite().arg_min() or 0) + 1}: {name} is no finite number")
    return frame


@contextmanager
def _part(path: Path) -> Iterator[io.BufferedRandom]:
    """A locked, empty file that ``_publish`` gives its name; removed when anything goes wrong before."""
    if not path.parent.is_dir():
        raise ExportProblem(f"{path}: there is no folder {path.parent}; create it first")
    if path.is_dir():
        raise ExportProblem(f"{path}: is a folder; name a file in it")
    part = part_path(path)
    while True:
        with open(os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+b") as file:  # noqa: PTH123
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                text = f"{path}: another export is writing it; wait for it or choose another name"
                raise ExportProblem(text) from error
            if not _same(file, part):
                # Between opening and locking it was published by another export.
                continue
            file.truncate(0)
            try:
                yield file
            except BaseException:
                if _same(file, part):
                    part.unlink()
                raise
            return


def _same(file: BinaryIO, path: Path) -> bool:
    """Whether the open file is the one under this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def part_path(path: Path) -> Path:
    """Where an export is while it is written."""
    return path.with_name(f".{path.name}.part")


def _publish(path: Path, beside: dict[str, Any] | None) -> None:
    """Give the file its name. Metadata of what was there before goes first: it must never stand beside other rows."""
    metadata_path(path).unlink(missing_ok=True)
    part_path(path).rename(path)
    if beside is not None:
        notes = part_path(metadata_path(path))
        with notes.open("wb") as file:
            file.write(_json(beside))
            file.flush()
            os.fsync(file.fileno())
        notes.rename(metadata_path(path))
    fsync_folder(path.parent)


@contextmanager
def _packing(file: BinaryIO, path: Path) -> Iterator[BinaryIO]:
    """The file itself, or a gzip stream into it; neither time nor name is recorded."""
    if path.suffix.lower() != ".gz":
        yield file
        return
    with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed:
        yield cast(BinaryIO, packed)


def _writer(kind: Format, file: BinaryIO) -> _Writer:
    if kind == "xlsx":
        from aiops_assets.synthetic.golden.spreadsheet import Workbook

        return Workbook(file)
    writers: dict[str, Callable[[BinaryIO], _Writer]] = {
        "csv": _Csv,
        "json": _Json,
        "jsonl": _JsonLines,
        "parquet": _Parquet,
    }
    return writers[kind](file)


def _json(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


class _Plain:
    """Writers that hold nothing but the file."""

    def close(self, metadata: dict[str, Any] | None) -> None:
        """Metadata goes beside the file."""

    def abandon(self) -> None:
        """Nothing is held."""


class _Csv(_Plain):
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._file.write(b"\xef\xbb\xbf" + ",".join(f'"{name}"' for name in SCHEMA).encode() + b"\r\n")

    def add(self, frame: pl.DataFrame) -> None:
        flat = frame.with_columns(as_json(pl.col("work_notes")).alias("work_notes"))
        flat = flat.with_columns(
            pl.when(pl.col(name).str.contains(FORMULA))
            .then(pl.concat_str(pl.lit("'"), name))
            .otherwise(name)
            .alias(name)
            for name, dtype in flat.schema.items()
            if dtype == pl.String
        )
        # Not into the file itself: polars writes past Python's buffers and packers, to the descriptor below them.
        text = flat.write_csv(
            include_header=False,
            line_terminator="\r\n",
            datetime_format="%Y-%m-%dT%H:%M:%S%.fZ",
            quote_style="non_numeric",
        )
        self._file.write(text.encode())


class _JsonLines(_Plain):
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def add(self, frame: pl.DataFrame) -> None:
        self._file.write(frame.write_ndjson().encode())


class _Json(_Plain):
    """One document. The metadata stands first, in room that is kept for it and filled at the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._begun = False
        file.write(b"{" + b" " * _ROOM + b'"incidents": [\n')

    def add(self, frame: pl.DataFrame) -> None:
        if frame.is_empty():
            return
        lines = frame.write_ndjson().encode()
        self._file.write((b",\n" if self._begun else b"") + lines.rstrip(b"\n").replace(b"}\n{", b"},\n{"))
        self._begun = True

    def close(self, metadata: dict[str, Any] | None) -> None:
        self._file.write(b"\n]}\n")
        if metadata is None:
            return
        head = b'\n"metadata": ' + _json(metadata).rstrip() + b",\n"
        if len(head) > _ROOM:
            raise ExportProblem(f"the metadata takes {len(head):,} bytes, there is room for {_ROOM:,}")
        self._file.seek(1)
        self._file.write(head)
        self._file.seek(0, os.SEEK_END)


class _Parquet:
    """Row groups of the same size whatever the size of the frames, so that the bytes are the same too."""

    def __init__(self, file: BinaryIO) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._waiting: list[pl.DataFrame] = []
        self._rows = 0
        schema = pl.DataFrame(schema=SCHEMA).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
        fields = [field.with_nullable(field.name in NULLABLE) for field in schema]
        self._schema = pa.schema(fields)
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd", compression_level=3)

    def add(self, frame: pl.DataFrame) -> None:
        self._waiting.append(frame)
        self._rows += frame.height
        if self._rows >= _ROWS_PER_GROUP:
            whole = pl.concat(self._waiting)
            full = whole.height - whole.height % _ROWS_PER_GROUP
            for start in range(0, full, _ROWS_PER_GROUP):
                self._group(whole.slice(start, _ROWS_PER_GROUP))
            rest = whole.slice(full)
            self._waiting, self._rows = ([rest] if rest.height else []), rest.height

    def close(self, metadata: dict[str, Any] | None) -> None:
        if self._rows:
            self._group(pl.concat(self._waiting))
        if metadata is not None:
            self._writer.add_key_value_metadata({PARQUET_KEY: orjson.dumps(metadata).decode()})
        self._writer.close()

    def abandon(self) -> None:
        self._writer.close()

    def _group(self, frame: pl.DataFrame) -> None:
        table = frame.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest()).cast(self._schema)
        self._writer.write_table(table, row_group_size=_ROWS_PER_GROUP)
