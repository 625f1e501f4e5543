"""Protobuf's wire format: where the fields of a message lie in a buffer, without trusting a length.

What belongs here: the framing that every protobuf message shares, and the recollection of what bytes were read as. What
does not: any message's meaning. Messages of one shape are found with ``repeated`` and read by columns with numpy;
whatever has another shape goes to the classes of the protobuf library, which are the authority on what is valid.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

VARINT, FIXED64, BYTES, GROUP, GROUP_END, FIXED32 = range(6)
#: protobuf libraries refuse groups nested deeper
_MAX_DEPTH = 100
#: largest message that is read; JSON has the same bound
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
#: so many bytes are looked at before fields are counted
STEP_BYTES = 1024 * 1024
#: room before and after a buffer, so that eight bytes can be loaded around every place in it
MARGIN = 32


class Malformed(Exception):
    """Bytes that are no protobuf; ``offset`` counts from the start of the buffer."""

    def __init__(self, offset: int, problem: str) -> None:
        super().__init__(problem)
        self.offset = offset


class Field(NamedTuple):
    """A field of a message: of ``BYTES`` the content, of other wire types the value, lies from ``start`` to ``end``."""

    number: int
    wire: int
    at: int
    start: int
    end: int


def varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """An unsigned integer of up to 64 bits and the place after it.

    Raises:
        Malformed: it does not end before ``end``, or is longer than ten bytes.
    """
    value = shift = 0
    for place in range(at, min(end, at + 10)):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, place + 1
        shift += 7
    raise Malformed(at, "an integer is cut off" if end - at < 10 else "an integer of more than ten bytes")


def field_at(data: bytes, at: int, end: int, depth: int = 0) -> Field:
    """The field that begins at ``at``, inside a message that ends at ``end``.

    Raises:
        Malformed: no field begins there, or it reaches beyond the end.
    """
    tag, start = varint(data, at, end)
    number, wire = tag >> 3, tag & 7
    if number == 0 or tag > 0xFFFF_FFFF:
        raise Malformed(at, "no field begins here")
    if wire == BYTES:
        size, start = varint(data, start, end)
        if size > end - start:
            raise Malformed(at, f"a field of {size} bytes where {end - start} are left")
        return Field(number, wire, at, start, start + size)
    if wire == VARINT:
        return Field(number, wire, at, start, varint(data, start, end)[1])
    if wire in {FIXED64, FIXED32}:
        size = 8 if wire == FIXED64 else 4
        if size > end - start:
            raise Malformed(at, f"a field of {size} bytes where {end - start} are left")
        return Field(number, wire, at, start, start + size)
    if wire == GROUP and depth < _MAX_DEPTH:
        inner = start
        while True:
            tag, after = varint(data, inner, end)
            if tag & 7 == GROUP_END:
                if tag >> 3 != number:
                    raise Malformed(inner, "a group that ends as another one")
                return Field(number, wire, at, start, after)
            inner = field_at(data, inner, end, depth + 1).end
    raise Malformed(at, "no field begins here")


def fields(data: bytes, start: int, end: int) -> list[Field]:
    """The fields of the message from ``start`` to ``end``, in their order.

    Raises:
        Malformed: it is none.
    """
    found: list[Field] = []
    while start < end:
        found.append(field_at(data, start, end))
        start = found[-1].end
    return found


def repeated(data: bytes, at: int, end: int, tag: int, starts: list[int], ends: list[int]) -> int:
    """Add where the contents of consecutive fields of one tag (a byte, wire type ``BYTES``) begin and end.

    It stops after about a mebibyte, so that callers can count before tiny fields become many objects.

    Returns:
        The place of the next field, or ``end``.

    Raises:
        Malformed: a length is damaged or reaches beyond ``end``; all before it was added.
    """
    before = at
    stop = min(end, at + STEP_BYTES)
    try:
        while at < stop and data[at] == tag:
            before = at
            size = data[at + 1]
            if size < 0x80:
                at += 2
            else:
                high = data[at + 2]
                if high < 0x80:
                    size += (high << 7) - 0x80
                    at += 3
                else:
                    size, at = varint(data, at + 1, end)
            starts.append(at)
            at += size
            ends.append(at)
    except IndexError:
        raise Malformed(before, "a field is cut off") from None
    except Malformed as error:
        raise Malformed(before, str(error)) from None
    if at > end:
        size = ends.pop() - starts.pop()
        raise Malformed(before, f"a field of {size} bytes that reaches beyond the end")
    return at


def framed(tag: bytes, content: bytes) -> bytes:
    """A field of wire type ``BYTES``."""
    size, head = len(content), bytearray(tag)
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + content


class Columns:
    """A buffer as columns: little-endian numbers from any place; ``data`` has ``MARGIN`` more bytes at both ends."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.bytes = np.frombuffer(data, dtype=np.uint8)
        self._words: npt.NDArray[np.uint64] = np.ndarray((len(data) - 7,), "<u8", buffer=data, strides=(1,))

    def words(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """Eight bytes from each place as an unsigned integer."""
        return self._words[places]

    def doubles(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        return self._words[places].view(np.float64)


class Recollection:
    """What bytes were read as, kept between batches because senders name the same series again and again.

    ``rows`` are rows of series, each once; ``known`` is for readers: from bytes to what they are.
    """

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.known: dict[Any, Any] = {}
        #: about how many bytes it takes; readers add what they put into ``known``
        self.size = 0
        self._numbers: dict[Any, int] = {}

    def number(self, row: tuple[Any, ...]) -> int:
        """Where a row stands among the rows."""
        number = self._numbers.get(row)
        if number is None:
            number = self._numbers[row] = len(self.rows)
            self.rows.append(row)
            self.size += 500 + sum(len(text) for text in row if text is not None)
        return number


class Recollections:
    """Lends a recollection to one batch at a time and keeps it for the next one, until it has grown to ``limit``.

    A batch that is read while another one is gets an empty one of its own.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: list[Recollection] = []

    @contextmanager
    def lent(self) -> Iterator[Recollection]:
        try:
            recollection = self._kept.pop()
        except IndexError:
            recollection = Recollection()
        yield recollection
        if recollection.size < self._limit and not self._kept:
            self._kept.append(recollection)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
