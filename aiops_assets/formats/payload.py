"""Bodies of deliveries as plain bytes, and what could not be read of them.

What belongs here: decompression with a bound, the reading of timestamps whose unit is not told, the rules for names,
and the collector of rejects that every format uses. What does not: any knowledge of one wire format.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice

import numpy as np
import numpy.typing as npt
import orjson

from aiops_assets.formats.batch import MAX_NAME_CHARS, Reject
from aiops_assets.hours import micros
from aiops_assets.landing.segment import Delivery

MAX_BODY_BYTES = 256 * 1024 * 1024
#: JSON becomes objects many times its size, so less of it is read at once
MAX_JSON_BYTES = 64 * 1024 * 1024
#: of each delivery this many rejects are kept one by one; those after it are joined into one
MAX_REJECTS = 1_000
MAX_PROBLEMS = 100_000
GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
SNAPPY_MAGIC = b"\xff\x06\x00\x00sNaPpY"
#: content encodings that a body may come in
ENCODINGS = ("identity", "gzip", "deflate", "br", "zstd", "snappy")
#: a snappy block cannot grow this much (three bytes copy at most 64), and a frame holds at most so many bytes
_SNAPPY_RATIO, _SNAPPY_FRAME = 32, 1 << 16
BOM = b"\xef\xbb\xbf"
#: control characters, line separators, lone surrogates, noncharacters: a name that holds one is refused, never altered
FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_NOT_FINITE = re.compile(rb"NaN|Infinity|[eE]\+?\d{3}|\d{300}|\\u[dD][89a-fA-F]")

#: nanoseconds by which a timestamp of each precision is multiplied
PRECISIONS: dict[str, int] = {
    "ns": 1, "n": 1, "nanoseconds": 1,
    "us": 1_000, "u": 1_000, "µs": 1_000, "microseconds": 1_000,
    "ms": 1_000_000, "milliseconds": 1_000_000,
    "s": 1_000_000_000, "seconds": 1_000_000_000,
    "m": 60_000_000_000, "h": 3_600_000_000_000,
}  # fmt: skip

Int64s = npt.NDArray[np.int64]


class UnreadableBody(Exception):
    """A body that cannot be turned into plain bytes; the message says why, for people."""


class Refused(Exception):
    """Something that was read but cannot be stored; the message names the field and what is allowed, for people."""


def plain_body(body: bytes) -> bytes:
    """The body without gzip (told by its first bytes, whatever the headers say) and without a byte-order mark.

    Raises:
        UnreadableBody: the gzip stream is damaged, truncated, or larger than 256 MiB when unpacked.
    """
    if body[:2] == GZIP_MAGIC:
        body = gunzip(body, MAX_BODY_BYTES)
    return body[3:] if body[:3] == BOM else body


def unpacked(delivery: Delivery) -> bytes:
    """The body of a delivery without the encoding that its ``content-encoding`` or its first bytes tell.

    gzip, deflate (with or without the zlib frame), br, zstd and snappy (block and framed) are known. A body that says
    gzip, zstd or deflate and is plain is taken as it is: some proxies unpack and leave the header.

    Raises:
        UnreadableBody: it is damaged, truncated, or larger than 256 MiB when unpacked.
    """
    encoding = delivery.headers.get("content-encoding", "")
    return plain_body(decoded(delivery.body, encoding) if encoding else delivery.body)


def decoded(body: bytes, encoding: str, limit: int = MAX_BODY_BYTES) -> bytes:
    """A body without one content encoding, never holding much more than ``limit`` bytes of output.

    Raises:
        UnreadableBody: damaged, truncated, more output than ``limit``, or an encoding that is not known.
    """
    if not body or encoding in {"", "identity"}:
        return body
    if encoding in {"gzip", "x-gzip"}:
        return gunzip(body, limit) if body[:2] == GZIP_MAGIC else body
    if encoding == "deflate":
        return _inflate(body, limit)
    if encoding == "zstd":
        return _stream(body, "zstd", limit) if body[:4] == ZSTD_MAGIC else body
    if encoding == "br":
        return _stream(body, "brotli", limit)
    if encoding == "snappy":
        return _snappy_frames(body, limit) if body[:10] == SNAPPY_MAGIC else _snappy_block(body, limit)
    raise UnreadableBody(f"content-encoding {encoding[:40]!r}; allowed: {', '.join(ENCODINGS)}")


def opening(delivery: Delivery, size: int) -> bytes:
    """At most ``size`` bytes of the unpacked body, as far as they can be read; cheap however long the body is."""
    encoding, body = delivery.headers.get("content-encoding", ""), delivery.body
    try:
        if encoding == "deflate" or body[:2] == GZIP_MAGIC:
            return zlib.decompressobj(wbits=31 if body[:2] == GZIP_MAGIC else _deflate_bits(body)).decompress(
                body, size
            )
        if encoding in {"br", "zstd"}:
            return b"".join(_pieces(body, "brotli" if encoding == "br" else "zstd", size, size))[:size]
        return unpacked(delivery)[:size] if encoding == "snappy" else body[:size]
    except (zlib.error, UnreadableBody):
        return b""


def _deflate_bits(body: bytes) -> int:
    """Window bits of a zlib frame (RFC 1950) or, where its check fails, of raw deflate, which many senders mean."""
    framed = len(body) > 1 and body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    return zlib.MAX_WBITS if framed else -zlib.MAX_WBITS


def _inflate(body: bytes, limit: int) -> bytes:
    stream = zlib.decompressobj(wbits=_deflate_bits(body))
    try:
        result = stream.decompress(body, limit + 1)
    except zlib.error as error:
        if body[:1] in {b"{", b"["}:
            return body
        raise UnreadableBody(f"deflate: damaged: {error}") from error
    if len(result) > limit:
        raise _too_large("deflate", limit)
    if not stream.eof:
        raise UnreadableBody(f"deflate: truncated after {len(result)} bytes of content")
    return result


def _stream(body: bytes, codec: str, limit: int) -> bytes:
    room, parts = limit, []
    for part in _pieces(body, codec, limit + 1):
        room -= len(part)
        if room < 0:
            raise _too_large(codec, limit)
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _pieces(body: bytes, codec: str, limit: int, size: int = 1 << 20) -> Iterator[bytes]:
    """The output of a streaming codec piece by piece, about ``limit`` bytes of it."""
    import pyarrow as pa

    try:
        with pa.CompressedInputStream(pa.BufferReader(body), codec) as stream:
            while limit > 0 and (part := stream.read(min(size, limit))):
                limit -= len(part)
                yield part
    except OSError as error:
        raise UnreadableBody(f"{codec}: {error}") from error


def _snappy_block(body: bytes, limit: int) -> bytes:
    import pyarrow as pa

    size = _snappy_length(body)
    if size > limit:
        raise _too_large("snappy", limit)
    if size > len(body) * _SNAPPY_RATIO:
        raise UnreadableBody(f"snappy: {len(body)} bytes cannot hold the {size} that they claim")
    if size == 0:
        return b""
    try:
        return bytes(pa.Codec("snappy").decompress(body, size, asbytes=True))
    except OSError as error:
        raise UnreadableBody(f"snappy: {error}") from error


def _snappy_length(block: bytes) -> int:
    """The unpacked size that a block begins with (a varint of 32 bits)."""
    size = 0
    for index, byte in enumerate(block[:5]):
        size |= (byte & 127) << 7 * index
        if byte < 128:
            return size
    raise UnreadableBody("snappy: does not begin with a length")


def _snappy_frames(body: bytes, limit: int) -> bytes:
    """The framing format of snappy; its checksums are left to whoever sent it, as transport has its own."""
    parts: list[bytes] = []
    offset, room = len(SNAPPY_MAGIC), limit
    while offset < len(body):
        kind, end = body[offset], offset + 4 + int.from_bytes(body[offset + 1 : offset + 4], "little")
        if end > len(body) or offset + 4 > len(body):
            raise UnreadableBody(f"snappy: truncated after {limit - room} bytes of content")
        if kind in {0, 1}:
            content = body[offset + 8 : end]
            part = _snappy_block(content, _SNAPPY_FRAME) if kind == 0 else content
            room -= len(part)
            if room < 0:
                raise _too_large("snappy", limit)
            parts.append(part)
        elif kind < 128:
            raise UnreadableBody(f"snappy: a chunk of the unknown kind {kind}")
        offset = end
    return b"".join(parts)


def _too_large(codec: str, limit: int) -> UnreadableBody:
    return UnreadableBody(f"{codec}: more than {limit // 1024 // 1024} MiB when unpacked")


def gunzip(body: bytes, limit: int) -> bytes:
    """Unpack every member of a gzip stream, never holding more than ``limit`` bytes of output.

    Raises:
        UnreadableBody: damaged, truncated, or more output than ``limit``.
    """
    parts: list[bytes] = []
    room, rest = limit, body
    while rest:
        member = zlib.decompressobj(wbits=31)
        try:
            part = member.decompress(rest, room + 1)
        except zlib.error as error:
            if parts and not rest.strip(b"\0"):
                break
            raise UnreadableBody(f"gzip: damaged: {error}") from error
        room -= len(part)
        if room < 0:
            raise UnreadableBody(f"gzip: more than {limit // 1024 // 1024} MiB when unpacked")
        parts.append(part)
        if not member.eof:
            raise UnreadableBody(f"gzip: truncated after {limit - room} bytes of content")
        rest = member.unused_data
    return b"".join(parts)


def name_problem(what: str, name: str) -> str | None:
    """Why a host, metric or label cannot be stored, or ``None``."""
    if not name:
        return f"{what} is empty"
    if len(name) > MAX_NAME_CHARS:
        return f"{what} is longer than {MAX_NAME_CHARS} characters"
    found = FORBIDDEN.search(name)
    if found:
        return f"{what} holds the control character U+{ord(found[0]):04X}"
    return None


def micros_of_any(stamps: Int64s) -> Int64s:
    """Microseconds of epoch timestamps whose unit is told by their magnitude.

    Below 1e11 they are seconds (until the year 5138), below 1e14 milliseconds, below 1e17 microseconds (both from
    March 1973), else nanoseconds, rounded down. Shape and dtype (int64) are kept.
    """
    size = np.abs(stamps)
    if stamps.size == 0 or size.min() >= 10**17:
        return stamps // 1000
    result = np.where(size < 10**17, stamps, stamps // 1000)
    result = np.where(size < 10**14, stamps * 1000, result)
    return np.where(size < 10**11, stamps * 1_000_000, result)


def micros_of_number(value: float) -> int | None:
    """``micros_of_any`` for one integer or float (fractions count), ``None`` when it is no instant."""
    size = abs(value)
    if not size < 2**63:
        return None
    if size < 10**11:
        return round(value * 1_000_000)
    if size < 10**14:
        return round(value * 1000)
    return int(value) if size < 10**17 else int(value) // 1000


def micros_of_json(value: object) -> int | None:
    """Microseconds of a JSON timestamp: epoch number in any unit, digits in a string, or ISO 8601 (UTC if no zone)."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return micros_of_number(value)
    if not isinstance(value, str) or len(value) > 64:
        return None
    return _micros_of_text(value.strip())


@lru_cache(maxsize=4096)
def _micros_of_text(text: str) -> int | None:
    try:
        return micros_of_number(int(text) if text.lstrip("-").isdigit() else float(text))
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
        return micros(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None


class Rejects:
    """Collects what could not be read, bounded.

    After 1,000 rejects of a delivery the rest is joined into one; after 100,000 the delivery is ``full``: parsers stop
    looking at its doubtful parts one by one, and it is kept whole instead.
    """

    def __init__(self, between: bytes = b"\n") -> None:
        #: what stands between the contents of rejects that are joined
        self._between = between
        self._found: dict[int, list[Reject]] = {}
        self._more: dict[int, tuple[int, str, list[bytes]]] = {}

    def add(self, delivery: int, offset: int, reason: str, content: bytes) -> None:
        """Record one; ``offset`` counts bytes in the unpacked body."""
        found = self._found.setdefault(delivery, [])
        if len(found) < MAX_REJECTS:
            found.append(Reject(delivery, offset, reason, content))
            return
        self._more.setdefault(delivery, (offset, reason, []))[2].append(content)

    def count(self, delivery: int) -> int:
        """How many were recorded of a delivery."""
        return len(self._found.get(delivery, ())) + len(self._more.get(delivery, (0, "", ()))[2])

    def full(self, delivery: int) -> bool:
        """Whether so many were recorded of a delivery that its doubtful parts are no longer worth a look."""
        return self.count(delivery) >= MAX_PROBLEMS

    def back_to(self, delivery: int, count: int) -> None:
        """Forget all but the first ``count`` of a delivery, because the rest is read again."""
        found = self._found.get(delivery, [])
        more = self._more.get(delivery, (0, "", []))[2]
        del more[max(0, count - len(found)) :]
        if not more:
            self._more.pop(delivery, None)
        del found[count:]

    def finish(self, deliveries: Sequence[Delivery], productive: set[int]) -> list[Reject]:
        """All rejects in order of delivery and offset, with every delivery accounted for.

        A delivery that gave nothing at all (``productive`` holds the others) becomes one reject of its whole body as
        it arrived, so that it can be re-sent unchanged; one without any content is rejected as "empty".
        """
        result: list[Reject] = []
        for index, delivery in enumerate(deliveries):
            found = self._found.get(index, [])
            if not found:
                if index not in productive:
                    result.append(Reject(index, 0, "empty", delivery.body))
                continue
            if index not in productive or self.full(index):
                count = self.count(index)
                reason = found[0].reason if count == 1 else f"{found[0].reason} (and {count - 1} more problems)"
                result.append(Reject(index, found[0].offset, reason, delivery.body))
                continue
            result.extend(sorted(found, key=lambda reject: reject.offset))
            if index in self._more:
                offset, reason, contents = self._more[index]
                result.append(
                    Reject(index, offset, f"{reason} ({len(contents)} rejects joined)", self._between.join(contents))
                )
        return result


def json_bytes(value: object, instead: bytes) -> bytes:
    """A value that came out of JSON as JSON again; ``instead`` when it is nested too deeply for that."""
    try:
        data = orjson.dumps(value)
        if b"null" not in data:
            return data
    except orjson.JSONEncodeError:
        pass
    # orjson writes NaN and infinity as null and cannot write lone surrogates; what is kept must show what was sent
    try:
        return json.dumps(value).encode()
    except (ValueError, RecursionError):
        return instead


def _loads(body: bytes) -> object:
    """A JSON value. ``NaN``, ``Infinity``, numbers beyond float64 and lone surrogates, which strict JSON lacks but
    common libraries write, are read as they are, so that only the item that holds them is rejected.

    Raises:
        orjson.JSONDecodeError: no JSON even so.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        if not _NOT_FINITE.search(body):
            raise
        try:
            return json.loads(
                body.decode(), parse_int=lambda digits: int(digits) if len(digits) < 20 else float(digits)
            )
        except (ValueError, RecursionError):
            pass
        raise


def documents(index: int, body: bytes, rejects: Rejects) -> Iterator[tuple[int, object]]:
    """The JSON values of the plain body of delivery ``index``, with their byte offsets.

    The body is one document, or one a line; lines that are no JSON are added to ``rejects``.

    Raises:
        UnreadableBody: too large for JSON, or neither a document nor lines that begin with one.
    """
    if len(body) > MAX_JSON_BYTES:
        raise UnreadableBody(f"JSON of more than {MAX_JSON_BYTES // 1024 // 1024} MiB")
    try:
        document = _loads(body)
    except orjson.JSONDecodeError as error:
        if not _begins_with_documents(body):
            raise UnreadableBody(f"not JSON: {error}") from error
    else:
        yield 0, document
        return
    for offset, line in _lines(body):
        try:
            document = _loads(line)
        except orjson.JSONDecodeError as error:
            rejects.add(index, offset, f"not JSON: {error}", line)
        else:
            yield offset, document
        if rejects.full(index):
            return


def _lines(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, stripped, with the byte offsets at which the lines begin."""
    start = 0
    while start < len(body):
        end = body.find(b"\n", start)
        end = len(body) if end < 0 else end
        line = body[start:end].strip()
        if line:
            yield start, line
        start = end + 1


def _begins_with_documents(body: bytes) -> bool:
    """Whether one of the first lines is an object or array of its own: then it is one document a line.

    A line that ends otherwise than a document belongs to one that spans lines and is broken.
    """
    for _, line in islice(_lines(body), 3):
        if line[-1:] not in {b"}", b"]"}:
            return False
        try:
            if isinstance(_loads(line), dict | list):
                return True
        except orjson.JSONDecodeError:
            continue
    return False
