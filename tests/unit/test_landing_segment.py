"""The segment format: what goes in comes out, and damage is found where it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiops_assets.landing.segment import MAGIC, DamagedSegment, Delivery, decode, encode, is_name, scan

HERE = Path("landing/gateway/000000000001.seg")
text = st.text(max_size=40)
deliveries = st.builds(
    Delivery,
    delivery_id=text,
    received_at=st.integers(0, 2**62),
    source=text,
    content_type=text,
    body=st.binary(max_size=300),
    headers=st.dictionaries(text, text, max_size=4),
)


def segment(batch: list[Delivery]) -> bytes:
    return MAGIC + b"".join(part for delivery in batch for part in encode(delivery))


def positioned(batch: list[Delivery]) -> list[Delivery]:
    return [
        Delivery(d.delivery_id, d.received_at, d.source, d.content_type, d.body, d.headers, "gateway", 1, index)
        for index, d in enumerate(batch)
    ]


@given(st.lists(deliveries, max_size=6))
def test_deliveries_come_back_as_they_were_written(batch: list[Delivery]) -> None:
    assert list(decode(HERE, segment(batch), "gateway", 1)) == positioned(batch)


def test_a_tail_torn_at_any_byte_keeps_exactly_the_whole_deliveries() -> None:
    batch = [Delivery(f"id-{i}", i, "telegraf", "text/plain", b"x" * i, {"format": "telegraf"}) for i in range(4)]
    data = segment(batch)
    ends = [end for end, _, _ in scan(HERE, data)]
    for cut in range(len(data)):
        found: list[Delivery] = []
        iterator = decode(HERE, data[:cut], "gateway", 1)
        if cut in {len(MAGIC), *ends}:
            found = list(iterator)
        else:
            with pytest.raises(DamagedSegment) as damage:
                found.extend(iterator)
            assert damage.value.offset == max([0, *(end for end in (len(MAGIC), *ends) if end <= cut)])
        assert found == positioned(batch)[: len(found)]
        assert len(found) == sum(end <= cut for end in ends)


@given(st.lists(deliveries, min_size=1, max_size=3), st.data())
def test_a_flipped_bit_is_noticed(batch: list[Delivery], data: st.DataObject) -> None:
    content = bytearray(segment(batch))
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    before = []
    with pytest.raises(DamagedSegment):
        for delivery in decode(HERE, bytes(content), "gateway", 1):
            before.append(delivery)
    assert before == positioned(batch)[: len(before)]


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_damage_and_nothing_worse(content: bytes) -> None:
    with pytest.raises(DamagedSegment):
        list(decode(HERE, content, "gateway", 1) if content != MAGIC else scan(HERE, b""))


@pytest.mark.parametrize("header", [b"[]", b"{}", b"nonsense", b'{"id":1,"at":"x","src":"","ct":"","h":{}}', b"null"])
def test_a_header_that_is_not_one_is_damage(header: bytes) -> None:
    import xxhash

    from aiops_assets.landing.segment import PREFIX

    data = MAGIC + PREFIX.pack(len(header), 0, xxhash.xxh3_64_intdigest(header)) + header
    with pytest.raises(DamagedSegment, match="header"):
        list(decode(HERE, data, "gateway", 1))


@pytest.mark.parametrize("name", ["telegraf", "a", "web-1.prod_eu", "0", "a" * 63])
def test_legal_names(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a..b", "A", "ä", "a b", "a\n", "-a", "a" * 64, "<script>"]
)
def test_illegal_names(name: str) -> None:
    assert not is_name(name)
