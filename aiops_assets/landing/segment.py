"""The landing segment format, version 1: an append-only file of checksummed deliveries.

A writer owns the folder ``landing/<writer_id>/`` and fills ``<seq>.open``, which becomes ``<seq>.seg`` when sealed;
``seq`` is a contiguous twelve-digit decimal. Layout, little endian::

    file    := magic record*
    magic   := b"AIOPSEG1"
    record  := header_length:u32 body_length:u32 checksum:u64 header body
    header  := JSON object {"id", "at", "src", "ct", "h"}

``checksum`` is XXH3-64 (seed 0) of header and body. ``at`` is the acceptance time in microseconds since the epoch
(UTC), ``src`` the source's name, ``ct`` the content type, ``h`` the chosen request headers in lower case.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import xxhash

MAGIC = b"AIOPSEG1"
PREFIX = struct.Struct("<IIQ")
#: a record that claims more than this is taken for damage
MAX_RECORD_BYTES = 1 << 30
SEALED, OPEN = ".seg", ".open"
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")


class DamagedSegment(Exception):
    """A record cannot be read; ``offset`` is where it starts, everything before it is whole."""

    def __init__(self, path: Path, offset: int, reason: str) -> None:
        super().__init__(f"{path}: damaged at byte {offset}: {reason}")
        self.path, self.offset, self.reason = path, offset, reason


@dataclass(frozen=True, slots=True)
class Delivery:
    """One accepted delivery. ``received_at`` is microseconds since the epoch; position = (writer, seq, index)."""

    delivery_id: str
    received_at: int
    source: str
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    writer: str = ""
    seq: int = 0
    index: int = 0


def is_name(text: str) -> bool:
    """Whether a text may name a source or a writer: lower case, digits, ``_ . -``; never a path."""
    return _NAME.fullmatch(text) is not None and ".." not in text


def encode(delivery: Delivery) -> tuple[bytes, bytes]:
    """The bytes of one record in two parts, so that a large body is never copied: (prefix + header, body)."""
    header = orjson.dumps(
        {
            "id": delivery.delivery_id,
            "at": delivery.received_at,
            "src": delivery.source,
            "ct": delivery.content_type,
            "h": dict(delivery.headers),
        }
    )
    body = delivery.body
    digest = xxhash.xxh3_64(header)
    digest.update(body)
    return PREFIX.pack(len(header), len(body), digest.intdigest()) + header, body


def segment_path(folder: Path, seq: int, suffix: str = SEALED) -> Path:
    """Where segment ``seq`` of the writer whose folder this is lies."""
    return folder / f"{seq:012d}{suffix}"


def scan(path: Path, data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield (end offset, header, body) of every whole record.

    Raises:
        DamagedSegment: at the first record that is torn or whose checksum differs.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise DamagedSegment(path, 0, "not a version 1 landing segment")
    offset, size = len(MAGIC), len(data)
    while offset < size:
        if size - offset < PREFIX.size:
            raise DamagedSegment(path, offset, "torn record prefix")
        header_length, body_length, checksum = PREFIX.unpack_from(data, offset)
        start = offset + PREFIX.size
        middle = start + header_length
        end = middle + body_length
        if header_length + body_length > MAX_RECORD_BYTES:
            raise DamagedSegment(path, offset, f"record of {header_length + body_length} bytes")
        if end > size:
            raise DamagedSegment(path, offset, "torn record")
        if xxhash.xxh3_64_intdigest(memoryview(data)[start:end]) != checksum:
            raise DamagedSegment(path, offset, "checksum differs")
        yield end, data[start:middle], data[middle:end]
        offset = end


def decode(path: Path, data: bytes, writer: str, seq: int) -> Iterator[Delivery]:
    """The deliveries of one segment's bytes, in order.

    Raises:
        DamagedSegment: as ``scan``; what was yielded before stands.
    """
    for index, (end, header, body) in enumerate(scan(path, data)):
        try:
            fields = orjson.loads(header)
            delivery = Delivery(
                delivery_id=str(fields["id"]),
                received_at=int(fields["at"]),
                source=str(fields["src"]),
                content_type=str(fields["ct"]),
                headers={str(name): str(value) for name, value in fields.get("h", {}).items()},
                body=body,
                writer=writer,
                seq=seq,
                index=index,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedSegment(path, end - len(header) - len(body) - PREFIX.size, f"header: {error}") from error
        yield delivery
