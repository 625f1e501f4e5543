"""InfluxDB line protocol, many deliveries at once: vectorised, with a scanner for the lines that need care.

What belongs here: the grammar (that of Telegraf's own parser) and the fast path. Lines without escapes are split by
Polars as whole columns; string fields are blanked and escapes replaced by single noncharacters where they occur, so
that those lines can be split as well. The fast path only ever accepts lines it is sure of; all others go, one by one,
to ``scan_line``, which is the authority on what is valid and why not. Distinct keys (measurement with tags) are read
once. What does not belong here: names and their mapping (``telegraf_mapping``).

Numbers become float64, booleans 1 and 0. Text fields are no metrics: each becomes a log event with the text as its body
and the measurement as its app, unless it only repeats a number of another line. One bad line rejects that line alone. A
string field may contain line breaks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import parse_qs

import numpy as np
import numpy.typing as npt
import polars as pl

from aiops_assets.formats.batch import MAX_NAME_CHARS, Parsed
from aiops_assets.formats.payload import (
    PRECISIONS,
    Int64s,
    Refused,
    Rejects,
    UnreadableBody,
    micros_of_any,
    name_problem,
    plain_body,
)
from aiops_assets.formats.telegraf_mapping import Key, Texts, assemble, is_redundant_text, metric_problem, resolve
from aiops_assets.landing.segment import Delivery

#: text is worked on in pieces of about this size: large enough for vectors, small enough for caches and memory
PIECE_BYTES = 8 * 1024 * 1024
#: an open string field is followed over at most this many lines and characters
MAX_STRING_LINES = 1_000
MAX_STRING_CHARS = 1_000_000

#: with more doubtful lines than this, those without any field are rejected together
MANY_LINES = 10_000

_EQUALS, _COMMA, _SPACE, _QUOTE, _BACKSLASH = "\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3", "\ufdd4"
_ESCAPES = {"\\\\": _BACKSLASH, '\\"': _QUOTE, "\\ ": _SPACE, "\\,": _COMMA, "\\=": _EQUALS}
_STANDINS = re.compile(f"[{_EQUALS}-{_BACKSLASH}]")
_STANDIN_BYTE = _EQUALS.encode()[:1]
_IN_MEASUREMENT = str.maketrans({_EQUALS: "\\=", _COMMA: ",", _SPACE: " ", _QUOTE: '\\"', _BACKSLASH: "\\\\"})
_IN_TAG = str.maketrans({_EQUALS: "=", _COMMA: ",", _SPACE: " ", _QUOTE: '"', _BACKSLASH: "\\\\"})
_TO_MEASUREMENT = str.maketrans({",": _COMMA, " ": _SPACE})
_TO_TAG = str.maketrans({"=": _EQUALS, ",": _COMMA, " ": _SPACE})

# The grammar of Telegraf's parser (plugins/parsers/influx). In tags a backslash before a backslash stands for itself,
# in names it takes the next one with it. Possessive quantifiers keep the time linear on hostile input.
_MEASUREMENT = re.compile(r"(?:[^ \t\v\f,\\]|\\.)++")
_TAG = re.compile(r",((?:[^ \t\v\f,=\\]|\\(?=\\)|\\[^\\])++)=((?:[^ \t\v\f,=\\]|\\(?=\\)|\\[^\\])++)")
_BLANKS = re.compile(r"[ \t\v\f]+")
_FIELD_NAME = re.compile(r"((?:[^ \t\v\f,=\\]|\\.)++)=")
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_WORD = re.compile(r"[^ \t\v\f,]++")
_NUMBER = re.compile(r"[-+]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][-+]?\d++)?", re.ASCII)
_INTEGER = re.compile(r"([-+]?\d++)([iu])", re.ASCII)
_STAMP = re.compile(r"-?\d{1,19}", re.ASCII)
_UNESCAPE_NAME = re.compile(r"\\([, ])")
_UNESCAPE_TAG = re.compile(r'\\([,"= ])')
_UNESCAPE_TEXT = re.compile(r'\\(["\\])')
#: the same for columns: measurement and tags of a line, its text fields, and the two parts of one
_KEY_OF_LINE = r"^(?:\\.|[^ \\])+ +"
_TEXT_FIELDS = r'(?:\\.|[^,= "\\])(?:\\.|[^,=\\])*="(?:\\.|[^"\\])*"'
_TEXT_PARTS = r'^((?:\\.|[^,=\\])+)="((?s:\\.|[^"\\])*)"$'

_TRUE, _FALSE = ("t", "T", "true", "True", "TRUE"), ("f", "F", "false", "False", "FALSE")
_BOOLEANS = dict.fromkeys(_TRUE, 1.0) | dict.fromkeys(_FALSE, 0.0)
_INT64 = 2**63
_STAMP_LIMIT = 2**62


class BadLine(Exception):
    """Why a line is rejected, for people."""


class OpenString(BadLine):
    """The line ends inside a string field: it may go on in the next line."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line read with care. ``stamp`` is in the sender's unit, ``None`` when missing; ``texts`` are text fields."""

    measurement: str
    tags: tuple[tuple[str, str], ...]
    names: tuple[str, ...]
    values: tuple[float, ...]
    stamp: int | None
    texts: tuple[tuple[str, str], ...] = ()


def scan_line(text: str) -> Line | None:
    """Read one line (without its line break); ``None`` for a blank line, a comment, or text that repeats a number.

    Raises:
        BadLine: with the reason; ``OpenString`` when a string field is not closed.
    """
    text = text.strip(" \t\v\f\r")
    if not text or text[0] == "#":
        return None
    escapes = "\\" in text
    found = _MEASUREMENT.match(text)
    if found is None:
        raise BadLine("expected a measurement at the start of the line")
    measurement = _UNESCAPE_NAME.sub(r"\1", found[0]) if escapes else found[0]
    at = found.end()
    tags: list[tuple[str, str]] = []
    while at < len(text) and text[at] == ",":
        found = _TAG.match(text, at)
        if found is None:
            raise BadLine(f"expected a tag as name=value at character {at + 1}")
        name, value = found[1], found[2]
        tags.append((_UNESCAPE_TAG.sub(r"\1", name), _UNESCAPE_TAG.sub(r"\1", value)) if escapes else (name, value))
        at = found.end()
    found = _BLANKS.match(text, at)
    if found is None:
        reason = "no fields: expected 'measurement,tag=value field=value timestamp'" if at == len(text) else None
        raise BadLine(reason or f"expected a tag or fields at character {at + 1}")
    at = found.end()
    names: list[str] = []
    values: list[float] = []
    texts: list[tuple[str, str]] = []
    while True:
        found = _FIELD_NAME.match(text, at)
        if found is None:
            raise BadLine(f"expected a field as name=value at character {at + 1}")
        name = _UNESCAPE_TAG.sub(r"\1", found[1]) if escapes else found[1]
        problem = metric_problem(measurement, name)
        if problem:
            raise BadLine(problem)
        at = found.end()
        if text[at : at + 1] == '"':
            found = _TEXT.match(text, at)
            if found is None:
                raise OpenString(f"the string field {name[:64]!r} is not closed")
            texts.append((name, _UNESCAPE_TEXT.sub(r"\1", found[1]) if "\\" in found[1] else found[1]))
        else:
            found = _WORD.match(text, at)
            if found is None:
                raise BadLine(f"the field {name[:64]!r} has no value")
            names.append(name)
            values.append(_number(name, found[0]))
        at = found.end()
        if text[at : at + 1] != ",":
            break
        at += 1
    stamp = None
    if at < len(text):
        found = _BLANKS.match(text, at)
        if found is None:
            raise BadLine(f"expected a comma, a blank or the end of the line at character {at + 1}")
        if _STAMP.fullmatch(text, found.end()) is None:
            raise BadLine(
                f"the timestamp {text[found.end() : found.end() + 40]!r} is not an integer of at most 19 digits"
            )
        stamp = int(text[found.end() :])
        if not -_STAMP_LIMIT <= stamp < _INT64:
            raise BadLine(f"the timestamp {stamp} is outside the range of 64 bits")
    if not names and is_redundant_text(measurement, (name for name, _ in texts)):
        return None
    return Line(measurement, tuple(tags), tuple(names), tuple(values), stamp, tuple(texts))


def _number(field: str, word: str) -> float:
    if _NUMBER.fullmatch(word):
        value = float(word)
        if abs(value) == float("inf"):
            raise BadLine(f"the field {field[:64]!r} is too large for a number")
        return value
    integer = _INTEGER.fullmatch(word)
    if integer:
        digits = integer[1]
        number = int(digits) if len(digits) <= 20 else 1 << 65
        low, high = (-_INT64, _INT64) if integer[2] == "i" else (0, 2 * _INT64)
        if not low <= number < high:
            raise BadLine(f"the field {field[:64]!r} is outside the range of its integer type")
        return float(number)
    if word in _BOOLEANS:
        return _BOOLEANS[word]
    if word.lstrip("+-").lower() in {"nan", "inf", "infinity"}:
        raise BadLine(f"the field {field[:64]!r} is NaN or infinite")
    raise BadLine(f'the field {field[:64]!r} is {word[:40]!r}; allowed: a number, 1i, 1u, true, false or "text"')


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read deliveries of line protocol. Never raises on their content: what cannot be read is in ``rejects``."""
    reader = LineReader()
    for index, delivery in enumerate(deliveries):
        try:
            reader.feed(index, delivery, plain_body(delivery.body))
        except UnreadableBody as error:
            reader.rejects.add(index, 0, str(error), delivery.body)
    series, points = reader.finish()
    logs = reader.texts.frame()
    productive = set(points.get_column("delivery").unique().to_list()) | set(logs.get_column("delivery").to_list())
    return Parsed(series, points, logs=logs, rejects=reader.rejects.finish(deliveries, productive))


@dataclass(frozen=True, slots=True)
class _Piece:
    """Whole lines of one delivery; ``offset`` is where they begin in its body."""

    delivery: int
    offset: int
    text: bytes
    received_at: int
    precision: str


@dataclass(slots=True)
class _Columns:
    """Points of one piece of work as arrays of equal length; ``line`` numbers the lines of that work."""

    line: Int64s
    key: Int64s
    name: Int64s
    value: npt.NDArray[np.float64]

    def only(self, keep: npt.NDArray[np.bool_]) -> _Columns:
        return _Columns(self.line[keep], self.key[keep], self.name[keep], self.value[keep])

    @staticmethod
    def joined(parts: Sequence[_Columns]) -> _Columns:
        """All parts, in the order of their lines; within a line as they were."""
        line = np.concatenate([part.line for part in parts])
        order = np.argsort(line, kind="stable")
        return _Columns(
            line[order],
            np.concatenate([part.key for part in parts])[order],
            np.concatenate([part.name for part in parts])[order],
            np.concatenate([part.value for part in parts])[order],
        )


class LineReader:
    """Takes bodies one after the other and gives the frames at the end; text is let go of as soon as it is read."""

    def __init__(self, rejects: Rejects | None = None) -> None:
        self.rejects = rejects if rejects is not None else Rejects()
        self.texts = Texts()
        self._waiting: list[_Piece] = []
        self._waiting_bytes = 0
        # the codes of a category set live as long as some column uses it, so one is kept
        self._key_anchor = pl.Series([""], dtype=pl.Categorical(pl.Categories.random()))
        self._name_anchor = pl.Series([""], dtype=pl.Categorical(pl.Categories.random()))
        self._keys: list[Key] = []
        #: by code of a key string: position in ``_keys``, -1 when the key needs the scanner
        self._key_of: Int64s = np.empty(0, dtype=np.int64)
        self._names: list[str] = []
        self._name_of: Int64s = np.empty(0, dtype=np.int64)
        self._name_codes: dict[str, int] = {}
        self._scanned: dict[tuple[str, tuple[tuple[str, str], ...]], int] = {}
        #: most characters of a measurement and of a field, as they stand in a metric name
        self._longest = [0, 0]
        self._done: list[dict[str, npt.NDArray[np.generic]]] = []

    def feed(self, index: int, delivery: Delivery, body: bytes) -> None:
        """Add the plain body of delivery number ``index``."""
        query = delivery.headers.get("query", "")
        precision = precision_of(query) if query else delivery.headers.get("precision", "").strip().lower()
        start = 0
        while start < len(body):
            end = len(body)
            if end - start > PIECE_BYTES:
                end = body.rfind(b"\n", start, start + PIECE_BYTES) + 1
                if end == 0:
                    end = body.find(b"\n", start + PIECE_BYTES) + 1 or len(body)
            text = body if end - start == len(body) else body[start:end]
            if len(text) > PIECE_BYTES // 8 and not any(mark in text for mark in (b"=", b'"', b"#")) and text.strip():
                content = text.removesuffix(b"\n").removesuffix(b"\r")
                self.rejects.add(index, start, "no fields: expected a field as name=value", content)
            elif text.strip():
                self._waiting.append(_Piece(index, start, text, delivery.received_at, precision))
                self._waiting_bytes += len(text)
            start = end
            if self._waiting_bytes >= PIECE_BYTES:
                self._work()

    def finish(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The ``series`` and ``points`` frames of everything fed; points in the order of their deliveries and lines."""
        self._work()
        if not self._done:
            empty = np.empty(0, dtype=np.int64)
            return assemble([], [], empty, empty, {})
        columns = {name: np.concatenate([part[name] for part in self._done]) for name in self._done[0]}
        self._done = []
        return assemble(
            self._keys,
            self._names,
            columns.pop("key").astype(np.int64, copy=False),
            columns.pop("name").astype(np.int64, copy=False),
            columns,
        )

    def _work(self) -> None:
        if not self._waiting:
            return
        pieces, self._waiting, self._waiting_bytes = self._waiting, [], 0
        _Work(self, pieces).run()

    # -- distinct keys and names ------------------------------------------------------------------------------------

    def key_codes(self, texts: pl.Series) -> Int64s:
        """Positions in ``_keys`` of key strings (stand-ins instead of escapes), -1 where the scanner must look."""
        column = texts.cast(self._key_anchor.dtype)
        codes = column.to_physical().to_numpy()
        known = self._key_of.size
        count = int(codes.max()) + 1 if codes.size else 0
        if count > known:
            fresh = column.filter(codes >= known).unique()
            places = np.full(count, -1, dtype=np.int64)
            places[:known] = self._key_of
            for code, text in zip(fresh.to_physical().to_list(), fresh.cast(pl.String).to_list(), strict=True):
                key = read_key(text)
                if key is not None:
                    places[code] = len(self._keys)
                    self._keys.append(key)
                    self._longest[0] = max(self._longest[0], len(key.measurement))
            self._key_of = places
        return self._key_of[codes]

    def name_codes(self, texts: pl.Series) -> Int64s:
        """Positions in ``_names`` of field names, -1 where the scanner must look."""
        column = texts.cast(self._name_anchor.dtype)
        codes = column.to_physical().to_numpy()
        known = self._name_of.size
        count = int(codes.max()) + 1 if codes.size else 0
        if count > known:
            fresh = column.filter(codes >= known).unique()
            places = np.full(count, -1, dtype=np.int64)
            places[:known] = self._name_of
            for code, text in zip(fresh.to_physical().to_list(), fresh.cast(pl.String).to_list(), strict=True):
                if _BACKSLASH in text:
                    continue
                name = text.translate(_IN_TAG) if _STANDINS.search(text) else text
                if name_problem("", name) is None:
                    places[code] = self.name_code(name)
            self._name_of = places
        return self._name_of[codes]

    def name_code(self, name: str) -> int:
        """Position in ``_names`` of a checked field name."""
        code = self._name_codes.get(name)
        if code is None:
            code = self._name_codes[name] = len(self._names)
            self._names.append(name)
            self._longest[1] = max(self._longest[1], 3 * len(name) if "." in name or "%" in name else len(name))
        return code

    def key_code(self, line: Line) -> int:
        """Position in ``_keys`` of a scanned line's key.

        Raises:
            Refused: the key cannot be stored.
        """
        place = self._scanned.get((line.measurement, line.tags))
        if place is None:
            key = resolve(line.measurement, line.tags)
            place = self._scanned[line.measurement, line.tags] = len(self._keys)
            self._keys.append(key)
            self._longest[0] = max(self._longest[0], len(key.measurement))
        return place

    @property
    def names_may_be_too_long(self) -> bool:
        """Whether some measurement and some field together could pass the limit of a metric name."""
        return sum(self._longest) + 1 > MAX_NAME_CHARS

    def too_long(self, keys: Int64s, names: Int64s) -> npt.NDArray[np.bool_]:
        """Of points given as positions of key and name: whether the metric name passes the limit."""
        key_chars = np.array([len(key.measurement) for key in self._keys])
        name_chars = np.array([3 * len(name) if "." in name or "%" in name else len(name) for name in self._names])
        return key_chars[keys] + name_chars[names] + 1 > MAX_NAME_CHARS

    def add_text(self, delivery: int, ts: int, key: int, field: str, text: str) -> None:
        """Keep a text field; ``key`` is a position in ``_keys``."""
        self.texts.add(delivery, ts, self._keys[key], field, text)

    def done(self, columns: dict[str, npt.NDArray[np.generic]]) -> None:
        """Keep the points of one piece of work."""
        self._done.append(columns)


@lru_cache(maxsize=256)
def precision_of(query: str) -> str:
    """The unit of timestamps that a query string tells as InfluxDB's write endpoints have it, empty when it does not.

    ``db``, ``bucket``, ``org`` and the like are ignored.
    """
    try:
        return parse_qs(query, max_num_fields=32).get("precision", [""])[-1].strip().lower()
    except ValueError:
        return ""


def read_key(text: str) -> Key | None:
    """The key of a key string without escapes (stand-ins in their place); ``None`` when the scanner must look."""
    parts = text.split(",")
    measurement = parts[0]
    if not measurement or measurement[0] == "#" or _BACKSLASH in text:
        return None
    tags: list[tuple[str, str]] = []
    for part in parts[1:]:
        name, _, value = part.partition("=")
        if not name or not value or "=" in value:
            return None
        tags.append((name, value))
    if _STANDINS.search(text):
        measurement = measurement.translate(_IN_MEASUREMENT)
        tags = [(name.translate(_IN_TAG), value.translate(_IN_TAG)) for name, value in tags]
    try:
        return resolve(measurement, tuple(tags))
    except Refused:
        return None


class _Work:
    """The lines of about eight megabytes of text, from bytes to columns of codes."""

    def __init__(self, reader: LineReader, pieces: list[_Piece]) -> None:
        self.reader, self.pieces = reader, pieces
        self.columns: list[_Columns] = []
        #: lines of the fast path with text fields, their keys, and how many such fields each has
        self._texts: list[tuple[Int64s, Int64s, Int64s]] = []
        #: text fields of lines that were read with care: line, key, field, text
        self._scanned_texts: list[tuple[int, int, str, str]] = []
        self._bad: npt.NDArray[np.bool_] | None = None
        self._breaks: dict[int, Int64s] = {}

    def run(self) -> None:
        lists = self._text().str.split("\n")
        counts = lists.list.len().to_numpy().astype(np.int64)
        self.first = np.concatenate([[0], np.cumsum(counts)])
        self.lines = lists.explode()
        if any(b"\r" in piece.text for piece in self.pieces):
            self.lines = self.lines.str.strip_suffix("\r")
        self.piece_of = np.repeat(np.arange(len(self.pieces)), counts)
        size = self.lines.len()
        #: timestamps in the sender's unit; ``stamped`` false: the line has none
        self.stamp = np.zeros(size, dtype=np.int64)
        self.stamped = np.zeros(size, dtype=bool)
        self.doubtful = np.zeros(size, dtype=bool)
        #: lines that hold characters which stand for escapes here, so that only the scanner reads them right
        self._standins = np.zeros(size, dtype=bool)
        #: lines whose points from the fast path do not count, and those of them that are inside another line's text
        self.gone = np.zeros(size, dtype=bool)
        self._swallowed = np.zeros(size, dtype=bool)
        everything = np.arange(size)
        special = self._special()
        if special is None:
            self._fast(everything, self.lines)
        else:
            self._fast(everything[~special], self.lines.filter(~special))
            self._fast(everything[special], without_escapes(self.lines.filter(special)))
        self._emit()

    def _text(self) -> pl.Series:
        try:
            return pl.Series([piece.text for piece in self.pieces], dtype=pl.Binary).cast(pl.String)
        except pl.exceptions.ComputeError:
            self.pieces = [self._repaired(piece) for piece in self.pieces]
            return pl.Series([piece.text for piece in self.pieces], dtype=pl.Binary).cast(pl.String)

    def _repaired(self, piece: _Piece) -> _Piece:
        """The piece with lines that are not UTF-8 rejected and blanked to the same length."""
        try:
            piece.text.decode()
            return piece
        except UnicodeDecodeError:
            lines = piece.text.split(b"\n")
            offset = piece.offset
            for number, line in enumerate(lines):
                try:
                    line.decode()
                except UnicodeDecodeError as error:
                    reason = f"not valid UTF-8 at byte {error.start} of the line"
                    self.reader.rejects.add(piece.delivery, offset, reason, line)
                    lines[number] = b" " * len(line)
                offset += len(line) + 1
            return _Piece(piece.delivery, piece.offset, b"\n".join(lines), piece.received_at, piece.precision)

    def _special(self) -> npt.NDArray[np.bool_] | None:
        """Which lines hold quotes or backslashes (or stand-ins, which only the scanner may see), if any does."""
        if not any(b'"' in piece.text or b"\\" in piece.text for piece in self.pieces):
            special = None
        else:
            special = self.lines.str.contains_any(['"', "\\"]).to_numpy()
        if any(_STANDIN_BYTE in piece.text for piece in self.pieces):
            standins = self.lines.str.contains(f"[{_EQUALS}-{_BACKSLASH}]").to_numpy()
            self._standins |= standins
            self.doubtful |= standins
        return special if special is not None and special.any() else None

    def _fast(self, numbers: Int64s, lines: pl.Series) -> None:
        """Read lines without escapes as columns; lines that are not plainly valid become doubtful."""
        parts = lines.str.splitn(" ", 3).struct.unnest()
        key, rest, stamp = parts.get_columns()
        whole = rest.is_not_null() & (rest != "") & (key != "")
        if not whole.all():
            keep = whole.to_numpy()
            filled = (lines.str.len_bytes() > 0).to_numpy()
            self.doubtful[numbers[~keep & filled]] = True
            numbers, key, rest, stamp = numbers[keep], key.filter(whole), rest.filter(whole), stamp.filter(whole)
        if numbers.size == 0:
            return
        self._stamps(numbers, stamp)
        keys = self.reader.key_codes(key)
        if _no_comma(rest.head(16)) and _no_comma(rest):
            line, point_key, pairs = numbers, keys, rest
        else:
            fields = rest.str.split(",")
            widths = fields.list.len().to_numpy()
            line, point_key, pairs = np.repeat(numbers, widths), np.repeat(keys, widths), fields.explode()
        name, word = pairs.str.splitn("=", 2).struct.unnest().get_columns()
        names = self.reader.name_codes(name.fill_null(""))
        value, kind = numbers_of(word)
        bad = (point_key < 0) | (names < 0)
        if kind is not None:
            bad |= kind == _BAD
        if self.reader.names_may_be_too_long and self.reader._keys and self.reader._names:
            bad |= self.reader.too_long(point_key, names)
        self.doubtful[line[bad]] = True
        if kind is not None and (kind == _TEXT_FIELD).any():
            number = kind == _NUMBER_FIELD
            text = kind == _TEXT_FIELD
            first = np.flatnonzero(text)[np.r_[True, np.diff(line[text]) > 0]]
            self._texts.append((line[first], point_key[first], np.bincount(line[text], minlength=1)[line[first]]))
            some = np.zeros(self.lines.len(), dtype=bool)
            some[line[number]] = True
            self.doubtful[numbers[~some[numbers]]] = True
            line, point_key, names, value = line[number], point_key[number], names[number], value[number]
        self.columns.append(_Columns(line, point_key, names, value))

    def _stamps(self, numbers: Int64s, stamp: pl.Series) -> None:
        given = stamp.is_not_null().to_numpy()
        number = stamp.cast(pl.Int64, strict=False)
        if number.null_count() > numbers.size - int(given.sum()):
            self.doubtful[numbers[given & number.is_null().to_numpy()]] = True
        if (number < -_STAMP_LIMIT).any():
            self.doubtful[numbers[(number < -_STAMP_LIMIT).fill_null(False).to_numpy()]] = True
        self.stamp[numbers] = number.fill_null(0).to_numpy()
        self.stamped[numbers] = given

    def _emit(self) -> None:
        if self.doubtful.sum() > MANY_LINES:
            self._again()
        if self.doubtful.any():
            scanned = self._scan()
            self.columns = [part.only(~self.gone[part.line]) for part in self.columns]
            self.columns.append(scanned)
        if not self.columns:
            self._emit_texts(self._micros()[0])
            return
        columns = self.columns[0] if len(self.columns) == 1 else _Columns.joined(self.columns)
        micros, bad = self._micros()
        self._bad = bad
        if bad is not None:
            for number in np.flatnonzero(bad).tolist():
                self._reject(number, number, "the timestamp is outside the range of its precision")
            columns = columns.only(~bad[columns.line])
            self.gone |= bad
        self._emit_texts(micros)
        delivery = np.array([piece.delivery for piece in self.pieces], dtype=np.uint32)
        self.reader.done(
            {
                "delivery": delivery[self.piece_of[columns.line]],
                "key": columns.key.astype(np.int32),
                "name": columns.name.astype(np.int32),
                "ts": micros[columns.line],
                "value": columns.value,
            }
        )

    def _emit_texts(self, micros: Int64s) -> None:
        """Hand over the text fields of all lines that count."""
        for number, key, field, text in self._scanned_texts:
            if not (self._bad is not None and self._bad[number]):
                self.reader.add_text(self.pieces[self.piece_of[number]].delivery, int(micros[number]), key, field, text)
        for lines, keys, counts in self._texts:
            keep = ~self.gone[lines]
            self._text_columns(lines[keep], keys[keep], counts[keep], micros)

    def _text_columns(self, lines: Int64s, keys: Int64s, counts: Int64s, micros: Int64s) -> None:
        found = self.lines.gather(lines).str.replace(_KEY_OF_LINE, "").str.extract_all(_TEXT_FIELDS)
        right = found.list.len().to_numpy() == counts
        for place in np.flatnonzero(~right).tolist():
            number = int(lines[place])
            again = scan_line(self.lines.item(number))
            of = self.pieces[self.piece_of[number]].delivery
            for field, value in again.texts if again is not None else ():
                self.reader.add_text(of, int(micros[number]), int(keys[place]), field, value)
        if not right.all():
            lines, keys, counts, found = lines[right], keys[right], counts[right], found.filter(right)
        if not lines.size:
            return
        parts = found.explode().str.extract_groups(_TEXT_PARTS).struct.unnest()
        name, text = parts.get_columns()
        line, key = np.repeat(lines, counts), np.repeat(keys, counts)
        delivery = np.array([piece.delivery for piece in self.pieces], dtype=np.uint32)
        self.reader.texts.add_columns(
            delivery[self.piece_of[line]],
            micros[line],
            self.reader._keys,
            key,
            name.str.replace_many(["\\,", '\\"', "\\=", "\\ "], [",", '"', "=", " "]),
            text.str.replace_many(['\\"', "\\\\"], ['"', "\\"]),
        )

    def _micros(self) -> tuple[Int64s, npt.NDArray[np.bool_] | None]:
        """Microseconds of every line, and which are out of range (``None``: no line is)."""
        received = np.array([piece.received_at for piece in self.pieces], dtype=np.int64)
        bad: npt.NDArray[np.bool_] | None = None
        if any(piece.precision in PRECISIONS for piece in self.pieces):
            factors = np.array([PRECISIONS.get(piece.precision, 0) for piece in self.pieces], dtype=np.int64)[
                self.piece_of
            ]
            told, coarse = factors > 0, factors >= 1000
            micros = np.where(told, 0, micros_of_any(self.stamp))
            scale = np.where(coarse, factors // 1000, 1)
            bad = coarse & (np.abs(self.stamp) > (_INT64 - 1) // scale)
            micros = np.where(coarse & ~bad, self.stamp * scale, micros)
            micros = np.where(factors == 1, self.stamp // 1000, micros)
            bad = bad & self.stamped if bad.any() else None
        else:
            micros = micros_of_any(self.stamp)
        if not self.stamped.all():
            micros = np.where(self.stamped, micros, received[self.piece_of])
        return micros, bad

    # -- line by line -----------------------------------------------------------------------------------------------

    def _again(self) -> None:
        """Give many doubtful lines a second try on the fast path, with their blanks in order."""
        numbers = np.flatnonzero(self.doubtful)
        texts = self.lines.gather(numbers)
        tidy = texts.str.strip_chars(" \t").str.replace_all("[ \t]+", " ")
        changed = (tidy != texts) & (tidy != "") & ~texts.str.contains_any(['"', "\\"])
        if not changed.any():
            return
        again = numbers[changed.to_numpy()]
        self.columns = [part.only(~self.doubtful[part.line]) for part in self.columns]
        self.stamped[again] = False
        self.doubtful[again] = self._standins[again]
        self._fast(again, tidy.filter(changed))

    def _scan(self) -> _Columns:
        """Read the doubtful lines with care, in order; what they yield takes the place of the fast path's points."""
        numbers = np.flatnonzero(self.doubtful)
        self.gone |= self.doubtful
        self.stamped[numbers] = False
        full = np.array([self.reader.rejects.full(piece.delivery) for piece in self.pieces])
        numbers = numbers[~full[self.piece_of[numbers]]]
        hopeless = np.empty(0, dtype=np.int64)
        if numbers.size > MANY_LINES:
            texts = self.lines.gather(numbers)
            useless = ~texts.str.contains_any(["=", '"', "#"]).to_numpy()
            hopeless = numbers[useless & (texts.str.strip_chars() != "").to_numpy()]
            numbers = numbers[~useless]
        line: list[int] = []
        keys: list[int] = []
        names: list[int] = []
        values: list[float] = []
        swallowed = -1
        for number, text in zip(numbers.tolist(), self.lines.gather(numbers).to_list(), strict=True):
            if number <= swallowed:
                continue
            last = number
            if self.reader.rejects.full(self.pieces[self.piece_of[number]].delivery):
                continue
            try:
                try:
                    found = scan_line(text)
                except OpenString:
                    found, last = self._continued(number, text)
                if found is None:
                    continue
                key = self.reader.key_code(found)
            except (BadLine, Refused) as error:
                self._reject(number, last, str(error))
                continue
            if last > number:
                self.gone[number + 1 : last + 1] = True
                self._swallowed[number + 1 : last + 1] = True
                self.stamped[number + 1 : last + 1] = False
                swallowed = last
            self.stamped[number] = found.stamp is not None
            self.stamp[number] = found.stamp or 0
            line.extend([number] * len(found.names))
            keys.extend([key] * len(found.names))
            names.extend([self.reader.name_code(name) for name in found.names])
            values.extend(found.values)
            if found.texts:
                self._scanned_texts += [(number, key, field, text) for field, text in found.texts]
        self._reject_many(hopeless[~self._swallowed[hopeless]], "no fields: expected a field as name=value")
        return _Columns(
            np.array(line, dtype=np.int64),
            np.array(keys, dtype=np.int64),
            np.array(names, dtype=np.int64),
            np.array(values, dtype=np.float64),
        )

    def _continued(self, number: int, text: str) -> tuple[Line | None, int]:
        """Read a line whose string field goes on in the lines after it; also the number of the last one.

        Raises:
            BadLine: no continuation makes a valid line, so the line stands, and falls, alone.
        """
        piece = self.piece_of[number]
        limit = min(int(self.first[piece + 1]), number + MAX_STRING_LINES)
        parts, size = [text], len(text)
        for last, part in enumerate(self._following(number + 1, limit), start=number + 1):
            parts.append(part)
            size += len(part) + 1
            if size > MAX_STRING_CHARS:
                break
            if '"' not in part:
                continue
            try:
                return scan_line("\n".join(parts)), last
            except OpenString:
                continue
            except BadLine:
                break
        raise BadLine("a string field is not closed")

    def _following(self, start: int, end: int) -> Iterator[str]:
        """Lines ``start`` to ``end``, fetched in growing handfuls, since few are needed most of the time."""
        size = 4
        while start < end:
            yield from self.lines.slice(start, min(size, end - start)).to_list()
            start, size = start + size, size * 4

    def _reject(self, first: int, last: int, reason: str) -> None:
        """Reject lines ``first`` to ``last`` (numbers of this work, of one piece)."""
        index = int(self.piece_of[first])
        piece = self.pieces[index]
        start, end = self._span(index, first)[0], self._span(index, last)[1]
        self.reader.rejects.add(piece.delivery, piece.offset + start, reason, piece.text[start:end].removesuffix(b"\r"))

    def _reject_many(self, numbers: Int64s, reason: str) -> None:
        """Reject many lines for one reason: one reject a piece, their text joined."""
        for index in np.unique(self.piece_of[numbers]).tolist():
            mine = numbers[self.piece_of[numbers] == index]
            piece = self.pieces[index]
            start = self._span(index, int(mine[0]))[0]
            content = self.lines.gather(mine).str.join("\n").item().encode()
            self.reader.rejects.add(piece.delivery, piece.offset + start, f"{reason} ({mine.size} lines)", content)

    def _span(self, index: int, number: int) -> tuple[int, int]:
        """Where line ``number`` lies in the text of piece ``index``."""
        text = self.pieces[index].text
        breaks = self._breaks.get(index)
        if breaks is None:
            breaks = self._breaks[index] = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == 10)
        number -= int(self.first[index])
        return int(breaks[number - 1]) + 1 if number else 0, int(breaks[number]) if number < breaks.size else len(text)


def _no_comma(texts: pl.Series) -> bool:
    return not texts.str.contains(",", literal=True).any()


def without_escapes(lines: pl.Series) -> pl.Series:
    """Lines with stand-ins for their escapes and empty string fields, so that blanks and commas only separate.

    A line with a quote in its measurement or tags is left as it is (there a quote is an ordinary character).
    """
    lines = lines.str.replace_many(list(_ESCAPES), list(_ESCAPES.values()))
    key, rest = lines.str.splitn(" ", 2).struct.unnest().get_columns()
    return key + " " + rest.str.replace_all('="[^"]*"', '=""').fill_null("")


_NUMBER_FIELD, _TEXT_FIELD, _BAD = 0, 1, 2


def numbers_of(words: pl.Series) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8] | None]:
    """Field values as float64 and, unless all are numbers, the kind of each: 0 number, 1 text, 2 not sure."""
    number = words.cast(pl.Float64, strict=False)
    value = number.to_numpy()
    finite = np.isfinite(value)
    if finite.all():
        return value, None
    value = value.copy()
    rows = np.flatnonzero(~finite)
    rest = words.gather(rows)
    body, last = rest.str.head(-1), rest.str.tail(1)
    signed = pl.select(pl.when(last == "i").then(body)).to_series().cast(pl.Int64, strict=False)
    unsigned = pl.select(pl.when(last == "u").then(body)).to_series().cast(pl.UInt64, strict=False)
    boolean = rest.replace_strict(_BOOLEANS, default=None, return_dtype=pl.Float64)
    found = signed.cast(pl.Float64).fill_null(unsigned.cast(pl.Float64)).fill_null(boolean)
    value[rows] = found.fill_null(0.0).to_numpy()
    kind = np.zeros(value.size, dtype=np.uint8)
    kind[rows] = np.where(
        found.is_not_null(), _NUMBER_FIELD, np.where((rest == '""').fill_null(False), _TEXT_FIELD, _BAD)
    )
    return value, kind
