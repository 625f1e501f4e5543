"""Bodies come out of every content encoding as they went in, or are refused, and never become too large."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiops_assets.formats.payload import UnreadableBody, decoded, opening, unpacked
from aiops_assets.landing.segment import Delivery


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


def codec(name: str) -> Callable[[bytes], bytes]:
    def packed(body: bytes) -> bytes:
        # A streaming writer closes the frame, also of an empty body.
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, name) as stream:
            stream.write(body)
        return bytes(sink.getvalue())

    return packed


def varint(number: int) -> bytes:
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    return bytes([*data, number])


def snappy(body: bytes) -> bytes:
    return bytes(pa.Codec("snappy").compress(body, asbytes=True)) if body else b"\0"


def framed_snappy(body: bytes) -> bytes:
    """The framing format with a plain and a compressed chunk for each piece; checksums are not looked at."""
    made = b"\xff\x06\x00\x00sNaPpY"
    for start in range(0, len(body), 60_000):
        piece = body[start : start + 60_000]
        for kind, content in ((0, snappy(piece[::2])), (1, piece[1::2])):
            made += bytes([kind]) + (len(content) + 4).to_bytes(3, "little") + b"\0\0\0\0" + content
        made += b"\xfe\x02\x00\x00\x00\x00"
    return made


PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "br": ("br", codec("brotli")),
    "zstd": ("zstd", codec("zstd")),
    "snappy": ("snappy", snappy),
}


def delivery(body: bytes, encoding: str) -> Delivery:
    return Delivery("1", 0, "shop", "", body, {"content-encoding": encoding} if encoding else {})


@pytest.mark.parametrize("name", PACKERS)
@given(st.binary(max_size=2000).filter(lambda body: body[:2] != b"\x1f\x8b" and body[:3] != b"\xef\xbb\xbf"))
def test_every_encoding_is_undone(name: str, body: bytes) -> None:
    encoding, packer = PACKERS[name]
    packed = packer(body)
    assert unpacked(delivery(packed, encoding)) == body
    assert opening(delivery(packed, encoding), 100) == body[:100]


def test_frames_of_snappy_are_told_by_their_first_bytes() -> None:
    body = b"".join(f"{number} ".encode() for number in range(50_000))
    pieces = [body[start : start + 60_000] for start in range(0, len(body), 60_000)]
    expected = b"".join(piece[::2] + piece[1::2] for piece in pieces)
    assert unpacked(delivery(framed_snappy(body), "snappy")) == expected


def test_several_members_are_joined() -> None:
    for name in ("gzip", "zstd"):
        encoding, packer = PACKERS[name]
        assert unpacked(delivery(packer(b"one,") + packer(b"two"), encoding)) == b"one,two"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_a_body_that_a_proxy_unpacked_already_is_taken_as_it_is(encoding: str) -> None:
    assert unpacked(delivery(b'{"host": "a"}', encoding)) == b'{"host": "a"}'


@pytest.mark.parametrize("name", PACKERS)
def test_damage_is_refused_with_a_reason(name: str) -> None:
    encoding, packer = PACKERS[name]
    packed = packer(bytes(range(256)) * 40)
    for broken in (packed[: len(packed) // 2], packed[:-1]):
        with pytest.raises(UnreadableBody):
            unpacked(delivery(broken, encoding))
    with pytest.raises(UnreadableBody, match="compress"):
        decoded(b"x", "compress")


@pytest.mark.parametrize("name", PACKERS)
@given(data=st.data())
def test_no_bytes_make_anything_but_a_body_or_a_refusal(name: str, data: st.DataObject) -> None:
    encoding, packer = PACKERS[name]
    packed = bytearray(packer(data.draw(st.binary(max_size=300))))
    for _ in range(data.draw(st.integers(0, 4))):
        position = data.draw(st.integers(0, max(0, len(packed) - 1)))
        packed[position : position + 1] = data.draw(st.binary(max_size=3))
    opening(delivery(bytes(packed), encoding), 50)
    try:
        unpacked(delivery(bytes(packed), encoding))
    except UnreadableBody as error:
        assert str(error)


@pytest.mark.parametrize("name", [*PACKERS, "framed snappy"])
def test_a_bomb_is_refused_before_it_fills_the_memory(name: str) -> None:
    limit = 1 << 20
    if name == "framed snappy":
        encoding = "snappy"
        block = snappy(bytes(65_536))
        chunk = b"\0" + (len(block) + 4).to_bytes(3, "little") + b"\0\0\0\0" + block
        bomb = b"\xff\x06\x00\x00sNaPpY" + chunk * 1000
    else:
        encoding, packer = PACKERS[name]
        bomb = packer(bytes(64 << 20))
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableBody, match="more than 1 MiB"):
            decoded(bomb, encoding, limit)
        assert tracemalloc.get_traced_memory()[1] < 8 * limit
    finally:
        tracemalloc.stop()
    assert pa.total_allocated_bytes() - before < 8 * limit
    assert len(opening(delivery(bomb, encoding), 100)) <= 100


def test_a_block_that_claims_more_than_it_can_hold_is_refused_at_once() -> None:
    with pytest.raises(UnreadableBody, match="cannot hold"):
        decoded(varint(200 << 20) + b"\0" * 20, "snappy")
    with pytest.raises(UnreadableBody, match="does not begin with a length"):
        decoded(b"\xff" * 20, "snappy")
