"""Is a file a pickle, or does it hold one? Such files run code when they are loaded, so none is kept or given out.

What belongs here: recognising pickles by name and by content (protocol header, opcodes, NumPy object arrays, members of
zip files, compressed files). What does not: what follows from it (``store``, ``archive``). Nothing is unpickled here.
Format: PEP 307, PEP 3154, PEP 574; NumPy's NEP 1.
"""

from __future__ import annotations

import ast
import bz2
import gzip
import io
import lzma
import pickletools
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

SUFFIXES = frozenset({".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle"})
_HEAD = 64 * 1024
_NPY = b"\x93NUMPY"
#: opcodes that call something or fill an object's state
_CALLS = frozenset({"REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"})
_MEMBERS = 100_000
_MOST = 256 << 20
#: first bytes of pickles of protocol 0 and 1 that can call something
_OPENING = frozenset(
    {b"(", b"]", b"}", b")", b"c", b"i", b"I", b"L", b"S", b"V", b"X", b"N", b"F", b"K", b"J", b"G", b"U"}
)


def pickled(path: Path) -> str | None:
    """Why a file counts as a pickle, in words; ``None`` when it does not."""
    if path.suffix.lower() in SUFFIXES:
        return f"its name ends in {path.suffix.lower()}"
    with path.open("rb") as file:
        head = file.read(_HEAD)
        if head.startswith(b"PK\x03\x04") and zipfile.is_zipfile(file):
            file.seek(0)
            return _in_zip(file)
        if head[:1] in _OPENING and _whole(file):
            return "it is a pickle without a protocol header"
    return _in_head(head) or _compressed(head)


def _in_head(head: bytes) -> str | None:
    if len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return f"it begins as a pickle of protocol {head[1]}"
    if head.startswith(_NPY):
        return "it is a NumPy array of objects, which are pickles" if _objects(head) else None
    return "it is a pickle without a protocol header" if _runs(head) else None


def _in_zip(file: IO[bytes]) -> str | None:
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len(members) > _MEMBERS:
                return f"it is a zip file of {len(members):,} members, too many to be looked through"
            for member in members:
                if Path(member.filename).suffix.lower() in SUFFIXES:
                    return f"its member {member.filename!r} is a pickle by name"
                with archive.open(member) as inner:
                    head = inner.read(_HEAD)
                if reason := _in_head(head) or _compressed(head):
                    return f"its member {member.filename!r}: {reason}"
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, zlib.error) as error:
        return f"it is a zip file that cannot be looked into ({error})"
    return None


def _compressed(head: bytes) -> str | None:
    for magic, opening in _COMPRESSIONS:
        if head.startswith(magic):
            reason = _in_head(opening(head))
            return f"compressed: {reason}" if reason else None
    return None


def _zlib(head: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(head, _HEAD)
    except zlib.error:
        return b""


def _stream(opening: Callable[[IO[bytes]], Any]) -> Callable[[bytes], bytes]:
    def read(head: bytes) -> bytes:
        found = b""
        try:
            with opening(io.BytesIO(head)) as file:
                while len(found) < _HEAD and (chunk := file.read1(_HEAD - len(found))):
                    found += chunk
        except (OSError, EOFError, lzma.LZMAError, zlib.error):
            # Cut at the end of the head, or not what its first bytes say.
            return found
        return found

    return read


_COMPRESSIONS: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"\x1f\x8b", _stream(lambda file: gzip.GzipFile(fileobj=file))),
    (b"BZh", _stream(bz2.BZ2File)),
    (b"\xfd7zXZ\x00", _stream(lzma.LZMAFile)),
    (b"x\x01", _zlib),
    (b"x\x5e", _zlib),
    (b"x\x9c", _zlib),
    (b"x\xda", _zlib),
)


def _objects(head: bytes) -> bool:
    wide = head[6:7] != b"\x01"
    start = 12 if wide else 10
    length = int.from_bytes(head[8:start], "little")
    try:
        description = ast.literal_eval(head[start : start + length].decode("utf-8" if wide else "latin-1").strip())
        return _has_objects(description["descr"])
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError):
        # Not readable as an array: better refused than opened.
        return True


def _has_objects(descr: Any) -> bool:
    if isinstance(descr, str):
        return "O" in descr
    return any(_has_objects(part) for field in descr for part in (field[1] if isinstance(field, tuple) else field,))


def _whole(file: IO[bytes]) -> bool:
    """``_runs`` of a whole file; other text is given up at the first byte that is no opcode, so it costs nothing."""
    file.seek(0)
    return _runs(cast("IO[bytes]", _Limited(file)))


class _Limited:
    """A file that ends early, so that a length in it cannot ask for all memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._left = file, _MOST

    def read(self, size: int) -> bytes:
        """The next bytes."""
        found = self._file.read(min(size, self._left))
        self._left -= len(found)
        return found

    def readline(self) -> bytes:
        """The next line."""
        found = self._file.readline(self._left)
        self._left -= len(found)
        return found

    def tell(self) -> int:
        """The position."""
        return self._file.tell()


def _runs(content: bytes | IO[bytes]) -> bool:
    """Whether text parses as a pickle of protocol 0 or 1 that calls something."""
    calls = False
    try:
        for opcode, _, _ in pickletools.genops(content):
            calls = calls or opcode.name in _CALLS
            if opcode.name == "STOP":
                return calls
    except Exception:  # whatever the parser stumbles over: it is no pickle then
        return False
    return False
