"""The blocks of a tar file, made and compared byte by byte.

What belongs here: headers, padding and the end of an archive in the ustar format (POSIX.1-1988), which every ``tar``
reads. What does not: what the members are (``archive``). A reader that knows what comes next compares instead of
parsing: links, devices, sparse files and extension headers cannot occur, nothing can hide between two members.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

BLOCK, RECORD = 512, 20 * 512
LONGEST_NAME, LARGEST = 100, 8**11 - 1
_PREFIX = 155
_CHUNK = 4 << 20


class Cut(Exception):
    """The file ends before it should."""


def header(name: str, size: int) -> bytes:
    """The header of an ordinary file of nobody, last changed in 1970.

    Raises:
        ValueError: the name (more than 100 bytes after its folder of at most 155) or the size (8 GiB) does not fit.
    """
    encoded = name.encode()
    prefix = b""
    if len(encoded) > LONGEST_NAME:
        places = [place for place, byte in enumerate(encoded[: _PREFIX + 1]) if byte == ord("/")]
        if not places or len(encoded) - places[-1] - 1 > LONGEST_NAME:
            raise ValueError(f"{name}: the name is too long for a tar file")
        prefix, encoded = encoded[: places[-1]], encoded[places[-1] + 1 :]
    if size > LARGEST:
        raise ValueError(f"{name}: {size:,} bytes, a tar file takes {LARGEST:,} a member")
    fields = (
        encoded.ljust(100, b"\0"),
        b"0000640\0" + b"0000000\0" * 2,
        b"%011o\0" % size,
        b"00000000000\0",
        b" " * 8,
        b"0" + b"\0" * 100,
        b"ustar\x0000" + b"\0" * 64,
        b"0000000\0" * 2,
        prefix.ljust(_PREFIX, b"\0"),
    )
    block = b"".join(fields).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def name_in(block: bytes) -> str:
    """The name that a header block has, for telling somebody; whatever is no name is made visible."""
    name, prefix = block[:100].rstrip(b"\0"), block[345:500].rstrip(b"\0")
    text = (prefix + b"/" + name if prefix else name).decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text) or "nothing"


def size_in(block: bytes) -> int | None:
    """The size that a header block states in octal; ``None`` when it states none."""
    digits = block[124:135]
    return int(digits, 8) if len(digits) == 11 and set(digits) <= set(b"01234567") else None


def padding(size: int, unit: int = BLOCK) -> bytes:
    """Zeros that fill the last block."""
    return b"\0" * (-size % unit)


def end(size: int) -> bytes:
    """The end of an archive whose members take ``size`` bytes: two empty blocks, filled up to a record."""
    return b"\0" * (2 * BLOCK + (-(size + 2 * BLOCK) % RECORD))


def exactly(file: IO[bytes], size: int) -> bytes:
    """The next ``size`` bytes.

    Raises:
        Cut: there are fewer.
    """
    found = file.read(size)
    if len(found) != size:
        raise Cut
    return found


def pieces(file: IO[bytes], size: int) -> Iterator[bytes]:
    """The next ``size`` bytes, some at a time.

    Raises:
        Cut: there are fewer.
    """
    while size > 0:
        chunk = exactly(file, min(size, _CHUNK))
        size -= len(chunk)
        yield chunk
