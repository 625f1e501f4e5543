"""Log files that are followed: what was appended since the last look, whole records only, each once.

What belongs here: which files there are, how far each was read, rotation, and the joining of lines that belong
together. What does not: the meaning of lines (``formats.text`` and others) and when to look (``scheduler``).

A file is known by its inode and its first line, so a new name does not matter (rotation by rename), and a file that
was cut and written anew (copytruncate) is noticed: it is shorter than what was read, or begins otherwise, or the bytes
before the position are others. What was not read yet is then looked for in the copy: a sibling that begins with the
same line and has the same bytes before the position, also one that was compressed. A new file that begins as one that
is still whole is left alone for some seconds: it may be the copy that is being made. Records carry the identity of the
file and their offset, so that what is read again after a crash is told apart; positions move only when what was read
is durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import gzip
import os
import re
import socket
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from typing import IO, Any, cast

import xxhash

from aiops_assets.collectors.document import Fetched, Poll
from aiops_assets.config import Tail
from aiops_assets.formats.framing import FILE, FRAMING, RECORDS, numbered
from aiops_assets.formats.journal import entries

INTERVAL_SECONDS, DEADLINE_SECONDS = 1.0, 30.0
#: read at most so much in one poll, of all files together
POLL_BYTES = 8 << 20
#: a delivery holds about so many bytes
DELIVERY_BYTES = 1 << 20
#: a line or record longer than this comes in pieces
RECORD_BYTES = 1 << 20
RECORD_LINES = 2_000
#: a record that may go on waits so long for its next line (seconds)
SETTLE_SECONDS = 2.0
#: a file that has gone is forgotten when nothing has come for so long (seconds)
FORGET_SECONDS = 60.0
#: a new file that begins as a known one is left alone so long (seconds)
COPY_SECONDS = 10.0
#: what was not stored by then is read again (seconds)
GIVE_UP_SECONDS = 300.0
#: files that are kept open, so that what is appended before they are removed is read
OPEN_FILES = 256
MAX_FILES = 20_000
FIRST_LINE_BYTES, MARK_BYTES = 1024, 64
_COMPRESSED = (".gz",)

_TRACEBACK = re.compile(rb"Traceback \(most recent call last\)|Exception in thread |panic: |goroutine \d+ \[")
_CONTINUED = re.compile(
    rb"[ \t]|Caused by: |Suppressed: |\.\.\. \d+ (?:more|common frames)|Traceback \(most recent call last\)"
    rb"|(?:[A-Za-z_$][\w$]*\.)+[\w$]*(?:Exception|Error|Throwable)\b|goroutine \d+ \[|\tat |\}\s*$"
    rb"|During handling of the above|The above exception was the direct"
)


@dataclass(slots=True)
class Followed:
    """One file. ``offset`` is how far it was read, ``durable`` how far of that is stored."""

    device: int
    inode: int
    path: str
    #: hash of the first line; "" while a file that was cut has none yet
    first_line: str
    #: inode, first line and a number for each time the file was cut; a copy has that of its original
    identity: str
    generation: int = 0
    offset: int = 0
    durable: int = 0
    #: hash of the bytes before ``durable``
    mark: str = ""
    compressed: bool = False
    file: IO[bytes] | None = None
    #: monotonic time at which it was last longer than before, and how long it was
    grown_at: float = 0.0
    size: int = 0
    #: size and time of change when it was last looked at
    stamp: tuple[int, int] = (-1, -1)
    #: monotonic time since when no path leads to it
    gone_at: float | None = None

    def state(self) -> dict[str, Any]:
        return {
            "device": self.device,
            "inode": self.inode,
            "path": self.path,
            "first_line": self.first_line,
            "identity": self.identity,
            "generation": self.generation,
            "offset": self.durable,
            "mark": self.mark,
            "compressed": self.compressed,
        }


@dataclass(slots=True)
class _Piece:
    """What was read of one file in one poll."""

    followed: Followed
    start: int
    end: int
    mark: str
    body: bytes


@dataclass(slots=True)
class _Look:
    """The outcome of one look at all files."""

    pieces: list[_Piece] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    room: int = POLL_BYTES


class TailPoller:
    """Follows the files of one entry under ``tail``; a poll fetches what is new."""

    kind = "file"
    interval = INTERVAL_SECONDS
    deadline = DEADLINE_SECONDS

    def __init__(
        self,
        tail: Tail,
        state: Mapping[str, Any] | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        poll_bytes: int = POLL_BYTES,
    ) -> None:
        self.name = self.source = tail.name
        self._tail, self._clock, self._poll_bytes = tail, clock, poll_bytes
        self._host = tail.host or socket.gethostname()
        self._joins = _joiner(tail.multiline)
        self._files: dict[tuple[int, int], Followed] = {}
        #: files that were cut while their copies still hold what was not read
        self._copies: list[Followed] = []
        self._looked = False
        #: new files that may be copies under way, and since when (monotonic)
        self._suspects: dict[tuple[int, int], float] = {}
        self._under_way: tuple[float, list[_Piece]] | None = None
        self._looking: asyncio.Future[_Look] | None = None
        self._turn = 0
        self._restore(state or {})

    def _restore(self, state: Mapping[str, Any]) -> None:
        for entry in state.get("files", ()):
            with contextlib.suppress(KeyError, TypeError, ValueError):
                offset = int(entry["offset"])
                followed = Followed(
                    int(entry["device"]),
                    int(entry["inode"]),
                    str(entry["path"]),
                    str(entry["first_line"]),
                    str(entry["identity"]),
                    int(entry["generation"]),
                    offset,
                    offset,
                    str(entry["mark"]),
                    bool(entry["compressed"]),
                )
                if entry.get("copy"):
                    self._copies.append(followed)
                else:
                    self._files[followed.device, followed.inode] = followed
        self._looked = bool(state.get("looked"))

    async def poll(self) -> Poll:
        """Fetch what was appended, as deliveries of the declared format."""
        if self._under_way is not None:
            since, pieces = self._under_way
            if self._clock() - since < GIVE_UP_SECONDS:
                return Poll(up=True)
            for piece in pieces:
                piece.followed.offset = piece.followed.durable
            self._under_way = None
        if self._looking is None:
            self._looking = asyncio.ensure_future(asyncio.to_thread(self._look))
        try:
            # A look that outlives the deadline of its poll goes on, and the next poll has what it found.
            look = await asyncio.shield(self._looking)
        finally:
            if self._looking.done():
                self._looking = None
        error = "; ".join(look.problems[:5]) or None
        if len(look.problems) > 5:
            error = f"{error}; and {len(look.problems) - 5} more"
        # A file that is missing now may be there in the next second: it is no reason to look less often.
        outcome = Poll(up=True, error=error)
        if look.pieces:
            pieces = look.pieces
            self._under_way = (self._clock(), pieces)
            outcome.fetched = [self._fetched(piece) for piece in pieces]
            outcome.delivered = lambda: self._delivered(pieces)
        return outcome

    def state(self) -> dict[str, Any]:
        """How far each file is stored."""
        files = [followed.state() for followed in self._files.values()]
        files += [{**followed.state(), "copy": True} for followed in self._copies]
        return {"looked": self._looked, "files": files}

    def close(self) -> None:
        """Close the files."""
        for followed in (*self._files.values(), *self._copies):
            _close(followed)

    def _delivered(self, pieces: list[_Piece]) -> None:
        for piece in pieces:
            piece.followed.durable, piece.followed.mark = piece.end, piece.mark
        self._under_way = None

    def _fetched(self, piece: _Piece) -> Fetched:
        followed = piece.followed
        headers = {"host": self._host, "path": followed.path, "zone": self._tail.zone}
        if self._tail.app:
            headers["app"] = self._tail.app
        if self._tail.format != "journal":
            headers |= {FRAMING: RECORDS, FILE: f"{self._tail.name}-{followed.identity}"}
        place = f"{self._tail.name}-{followed.identity}-{piece.start}-{piece.end}"
        return Fetched(piece.body, self._tail.format, "text/plain", f"tail-{place}", headers)

    def _look(self) -> _Look:
        look = _Look(room=self._poll_bytes)
        seen = self._find(look)
        now = self._clock()
        for key, followed in tuple(self._files.items()):
            if key not in seen:
                self._gone(key, followed, now)
        order = [*self._copies, *self._files.values()]
        # Who was last in this poll is first in the next: no file starves another.
        start = self._turn % len(order) if order else 0
        for followed in (*order[start:], *order[:start]):
            if look.room <= 0:
                break
            self._turn += 1
            self._read(followed, look, now)
        for followed in tuple(self._copies):
            if followed.size and followed.offset == followed.durable >= followed.size:
                _close(followed)
                self._copies.remove(followed)
        self._looked = True
        return look

    def _find(self, look: _Look) -> set[tuple[int, int]]:
        """Look at every path that is declared; returns the files to which one leads."""
        seen: set[tuple[int, int]] = set()
        paths = sorted({path for pattern in self._tail.paths for path in _expand(pattern, look.problems)})
        if len(paths) > MAX_FILES:
            look.problems.append(f"{len(paths)} files; only the first {MAX_FILES} are followed")
        if self._tail.compressed:
            paths += sorted({rotated for path in paths for rotated in _expand(f"{glob.escape(path)}*.gz", [])})
        for path in dict.fromkeys(paths[:MAX_FILES]):
            compressed = path.endswith(_COMPRESSED)
            if compressed and not self._tail.compressed:
                continue
            try:
                key = self._note(path, compressed)
            except (OSError, EOFError, zlib.error) as error:
                look.problems.append(f"{path}: {getattr(error, 'strerror', None) or error}")
            else:
                if key is not None:
                    seen.add(key)
        return seen

    def _note(self, path: str, compressed: bool) -> tuple[int, int] | None:
        """Bring what is known of a path up to date; ``None`` when it is no file, or has no whole line yet."""
        now = Path(path).stat()
        if not S_ISREG(now.st_mode):
            return None
        unchanged = self._files.get((now.st_dev, now.st_ino))
        if unchanged is not None and unchanged.path == path and unchanged.stamp == (now.st_size, now.st_mtime_ns):
            unchanged.gone_at = None
            return now.st_dev, now.st_ino
        with Path(path).open("rb") as plain:
            stat = os.fstat(plain.fileno())
            key = stat.st_dev, stat.st_ino
            known = self._files.get(key)
            if known is not None:
                known.path, known.gone_at = path, None
                if not compressed:
                    self._check(known, plain, stat.st_size)
                self._files[key].stamp = (stat.st_size, stat.st_mtime_ns)
                return key
            file = _unpacked(plain) if compressed else plain
            first = _first_line(file)
            if first is None:
                return None
            made = Followed(*key, path, first, _identity(key, first, 0), compressed=compressed, grown_at=self._clock())
            original = self._original(file, made)
            if original is not None:
                if not self._free(original):
                    since = self._suspects.setdefault(key, self._clock())
                    if self._clock() - since < COPY_SECONDS:
                        return None
                else:
                    made.identity, made.generation, made.mark = original.identity, original.generation, original.mark
                    made.offset = made.durable = original.durable
                    if original in self._copies:
                        self._copies.remove(original)
                        _close(original)
            elif not self._looked and not self._tail.from_start:
                made.offset = made.durable = _last_line_end(file)
                made.mark = _mark(file, made.offset)
            self._suspects.pop(key, None)
            self._files[key] = made
            return key

    def _check(self, known: Followed, file: IO[bytes], size: int) -> None:
        """Notice that a known file was cut, and begin it anew."""
        first = _first_line(file)
        if known.first_line == "":
            if first is not None:
                known.first_line = first
                known.identity = _identity((known.device, known.inode), first, known.generation)
            return
        if first == known.first_line and size >= known.offset and _marked(file, known):
            return
        self._was_cut(known)
        key = known.device, known.inode
        generation = known.generation + 1
        self._files[key] = Followed(
            *key, known.path, first or "", _identity(key, first or "", generation), generation, grown_at=self._clock()
        )

    def _free(self, original: Followed) -> bool:
        """Whether a file is no longer what its path leads to, so that a new one like it is its copy."""
        if original in self._copies or original.gone_at is not None:
            return True
        try:
            with Path(original.path).open("rb") as file:
                stat = os.fstat(file.fileno())
                if (stat.st_dev, stat.st_ino) != (original.device, original.inode):
                    return True
                return original.compressed or stat.st_size < original.offset or not _marked(file, original)
        except OSError:
            return True

    def _original(self, file: IO[bytes], made: Followed) -> Followed | None:
        """A file that is known and of which this one is a copy, with as much in it as was read of that, or more."""
        for known in (*self._copies, *self._files.values()):
            if known.first_line == made.first_line and known.durable and _mark(file, known.durable) == known.mark:
                return known
        return None

    def _was_cut(self, known: Followed) -> None:
        """A file was cut and begun anew: what was not read of it may be in its copy."""
        _close(known)
        found = _sibling(known, lambda stat, file: _first_line(file) == known.first_line)
        if found is None:
            return
        path, key = found
        if key in self._files:
            return
        copy = Followed(
            *key, path, known.first_line, known.identity, known.generation, known.durable, known.durable, known.mark,
            path.endswith(_COMPRESSED), grown_at=self._clock(), gone_at=self._clock(),
        )  # fmt: skip
        self._copies.append(copy)

    def _gone(self, key: tuple[int, int], followed: Followed, now: float) -> None:
        """No path leads to a file any more: it was renamed out of the patterns, compressed or removed."""
        if followed.gone_at is None:
            followed.gone_at = now
            if followed.file is None:
                found = _sibling(followed, lambda stat, file: (stat.st_dev, stat.st_ino) == key)
                found = found or _sibling(followed, lambda stat, file: _first_line(file) == followed.first_line)
                if found is not None:
                    followed.path, followed.compressed = found[0], found[0].endswith(_COMPRESSED)
        others = (one for one in (*self._copies, *self._files.values()) if one is not followed)
        if any(one.identity == followed.identity and one.durable >= followed.durable for one in others):
            # Its content has another name and inode now, and is followed there.
            _close(followed)
            del self._files[key]
            return
        settled = followed.offset == followed.durable and self._under_way is None
        if settled and now - max(followed.gone_at, followed.grown_at) > FORGET_SECONDS:
            _close(followed)
            del self._files[key]

    def _read(self, followed: Followed, look: _Look, now: float) -> None:
        if followed.first_line == "":
            return
        try:
            file = followed.file or _open(followed)
        except OSError as error:
            if followed.gone_at is None:
                look.problems.append(f"{followed.path}: {error.strerror or error}")
            return
        try:
            size = os.fstat(file.fileno()).st_size if not followed.compressed else 0
            if followed.compressed or size > followed.offset:
                file.seek(followed.offset)
                data = file.read(min(look.room, self._poll_bytes))
            else:
                data = b""
            before = _before(file, followed.offset)
        except (OSError, EOFError, zlib.error) as error:
            look.problems.append(f"{followed.path}: {getattr(error, 'strerror', None) or error}")
            followed.file = None
            file.close()
            return
        self._keep_open(followed, file)
        end = followed.offset + len(data)
        if end > followed.size:
            followed.size, followed.grown_at = end, now
        if not data:
            return
        complete = len(data) < look.room
        finished = complete and (followed.gone_at is not None or followed.compressed)
        settled = finished or (complete and now - followed.grown_at >= SETTLE_SECONDS)
        look.room -= len(data)
        start = followed.offset
        for body, length in self._cut(data, start, finished and now - followed.grown_at >= SETTLE_SECONDS, settled):
            upto = start + length
            before = (before + data[start - followed.offset : upto - followed.offset])[-MARK_BYTES:]
            if body:
                look.pieces.append(_Piece(followed, start, upto, _hash(before), body))
            elif followed.durable == start:
                # Blank lines: there is nothing to store.
                followed.durable, followed.mark = upto, _hash(before)
            start = upto
        followed.offset = start

    def _keep_open(self, followed: Followed, file: IO[bytes]) -> None:
        if followed.file is file:
            return
        held = sum(one.file is not None for one in self._files.values())
        if held < OPEN_FILES:
            followed.file = file
        else:
            file.close()

    def _cut(self, data: bytes, offset: int, finished: bool, settled: bool) -> Iterator[tuple[bytes, int]]:
        """Bodies of deliveries and how many bytes of the file each stands for.

        ``finished``: nothing more will be appended, so an unfinished line is whole; ``settled``: nothing has been for a
        while, so the last record is.
        """
        if self._tail.format == "journal":
            yield from _journal(data, finished)
            return
        batch: list[tuple[int, bytes]] = []
        began = taken = 0
        for start, end, record in self._joins(data, finished, settled):
            taken = end
            if record.strip():
                batch.append((offset + start, record))
            if end - began >= DELIVERY_BYTES:
                yield numbered(batch), end - began
                batch, began = [], end
        if taken > began:
            yield numbered(batch), taken - began


_Joiner = Callable[[bytes, bool, bool], Iterator[tuple[int, int, bytes]]]


def _joiner(multiline: str | None) -> _Joiner:
    """How lines become records: (start, end, record) of each that is whole."""
    if multiline is None:
        return _lines
    if multiline == "auto":
        return lambda data, finished, settled: _joined(data, finished, settled, _Traces().continues)
    first = re.compile(multiline.encode())
    return lambda data, finished, settled: _joined(data, finished, settled, lambda line: first.search(line) is None)


class _Traces:
    """Which lines go on with the one before, after the habits of Java, Python, Go, .NET and JavaScript."""

    def __init__(self) -> None:
        self._in_trace = False

    def continues(self, line: bytes) -> bool:
        if _TRACEBACK.match(line):
            self._in_trace = True
            return True
        if _CONTINUED.match(line):
            return True
        if not line.strip():
            return self._in_trace
        # After the frames of a traceback comes one more line: what was raised.
        closing, self._in_trace = self._in_trace, False
        return closing


def _lines(data: bytes, finished: bool, settled: bool) -> Iterator[tuple[int, int, bytes]]:
    start, size = 0, len(data)
    while start < size:
        end = data.find(b"\n", start, start + RECORD_BYTES)
        if end < 0:
            if size - start >= RECORD_BYTES:
                yield start, start + RECORD_BYTES, data[start : start + RECORD_BYTES]
                start += RECORD_BYTES
                continue
            if finished:
                yield start, size, data[start:size]
            return
        yield start, end + 1, data[start:end].rstrip(b"\r")
        start = end + 1


def _joined(
    data: bytes, finished: bool, settled: bool, continues: Callable[[bytes], bool]
) -> Iterator[tuple[int, int, bytes]]:
    began = ended = -1
    lines: list[bytes] = []
    length = 0
    for start, end, line in _lines(data, finished, settled):
        goes_on = continues(line)
        if lines and (not goes_on or len(lines) >= RECORD_LINES or length + len(line) > RECORD_BYTES):
            yield began, ended, b"\n".join(lines)
            lines, length = [], 0
        if not lines:
            began = start
        lines.append(line)
        length += len(line)
        ended = end
    if lines and (settled or finished):
        yield began, ended, b"\n".join(lines)


def _journal(data: bytes, finished: bool) -> Iterator[tuple[bytes, int]]:
    """Whole entries of a journal export."""
    began = upto = 0
    for _, end, _, problem in entries(data):
        whole = data[end - 2 : end] == b"\n\n"
        if not (whole and (problem is None or end < len(data))) and not (finished and end == len(data)):
            break
        upto = end
        if upto - began >= DELIVERY_BYTES:
            yield data[began:upto], upto - began
            began = upto
    if upto > began:
        yield data[began:upto], upto - began


def _expand(pattern: str, problems: list[str]) -> list[str]:
    if glob.has_magic(pattern):
        return glob.glob(pattern, recursive=True)  # noqa: PTH207 - patterns may be absolute
    if not os.path.lexists(pattern):
        problems.append(f"{pattern}: No such file")
        return []
    return [pattern]


def _unpacked(file: IO[bytes]) -> IO[bytes]:
    return cast(IO[bytes], gzip.GzipFile(fileobj=file))


def _identity(key: tuple[int, int], first_line: str, generation: int) -> str:
    return f"{key[1]:x}-{first_line}-{generation}"


def _open(followed: Followed) -> IO[bytes]:
    """The file, and not another one that has its name now. Raises: OSError."""
    file: IO[bytes] = Path(followed.path).open("rb")  # noqa: SIM115 - kept open while the file grows
    if followed.compressed:
        return _unpacked(file)
    stat = os.fstat(file.fileno())
    same = (stat.st_dev, stat.st_ino) == (followed.device, followed.inode)
    if not same and _first_line(file) != followed.first_line:
        file.close()
        raise FileNotFoundError(2, "has been replaced", followed.path)
    return file


def _close(followed: Followed) -> None:
    if followed.file is not None:
        followed.file.close()
        followed.file = None


def _first_line(file: IO[bytes]) -> str | None:
    """Hash of the first line, ``None`` while it has no end."""
    file.seek(0)
    head = file.read(FIRST_LINE_BYTES)
    end = head.find(b"\n")
    if end < 0 and len(head) < FIRST_LINE_BYTES:
        return None
    return _hash(head[: end if end >= 0 else FIRST_LINE_BYTES])


def _before(file: IO[bytes], offset: int) -> bytes:
    start = max(0, offset - MARK_BYTES)
    file.seek(start)
    return file.read(offset - start)


def _mark(file: IO[bytes], offset: int) -> str:
    held = _before(file, offset)
    return _hash(held) if len(held) == min(offset, MARK_BYTES) else ""


def _marked(file: IO[bytes], known: Followed) -> bool:
    """Whether the bytes before what is stored are still the same."""
    return not known.durable or _mark(file, known.durable) == known.mark


def _hash(data: bytes) -> str:
    return xxhash.xxh3_64_hexdigest(data)


def _last_line_end(file: IO[bytes]) -> int:
    """The offset behind the last line that has an end."""
    size = file.seek(0, os.SEEK_END) if not isinstance(file, gzip.GzipFile) else _length(file)
    position = size
    while position > 0:
        start = max(0, position - 65_536)
        file.seek(start)
        found = file.read(position - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return 0


def _length(file: IO[bytes]) -> int:
    file.seek(0)
    size = 0
    while part := file.read(1 << 20):
        size += len(part)
    return size


def _sibling(
    followed: Followed, fits: Callable[[os.stat_result, IO[bytes]], bool]
) -> tuple[str, tuple[int, int]] | None:
    """Another file beside this one, with the name as its beginning, that fits and holds what was read."""
    path = Path(followed.path)
    stem = path.name.removesuffix(".gz")
    try:
        names = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return None
    head = stem.partition(".")[0]
    for name in names:
        other = path.parent / name
        if name == path.name or not name.startswith((stem, head)):
            continue
        try:
            with other.open("rb") as plain:
                stat = os.fstat(plain.fileno())
                file = _unpacked(plain) if name.endswith(_COMPRESSED) else plain
                if fits(stat, file) and (not followed.durable or _mark(file, followed.durable) == followed.mark):
                    return str(other), (stat.st_dev, stat.st_ino)
        except (OSError, EOFError, zlib.error):
            continue
    return None
