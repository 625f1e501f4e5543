"""Messages in streams, notifications on the wire, and what a listener believes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyasn1.codec.ber import decoder, encoder
from pysnmp.proto.api import v2c
from pysnmp.proto.rfc1902 import Integer32, ObjectIdentifier, TimeTicks

from aiops_assets.collectors.listener import Allowed, Intake, Tally, device_names, split
from aiops_assets.collectors.outbox import Outbox
from aiops_assets.collectors.streams import Framing
from aiops_assets.collectors.traps import NotBelieved, TrapDecoder
from aiops_assets.config import ConfigError, TrapListener, parse_config
from aiops_assets.landing.reader import read_segment
from aiops_assets.landing.writer import SegmentWriter
from tests.examples import examples

CAPTURES = Path(os.environ.get("AIOPS_REAL_DATA", "../shared/data")) / "captures"


def messages_of(chunks: list[bytes], max_message: int = 1000) -> list[bytes]:
    framing = Framing(max_message)
    found = [message for chunk in chunks for message in framing.feed(chunk)]
    return [*found, *framing.finish()]


@settings(max_examples=examples(100), deadline=None)
@given(
    messages=st.lists(
        st.tuples(st.booleans(), st.text(st.characters(exclude_characters="\n\0\r", codec="utf-8"), max_size=30)),
        max_size=6,
    ),
    cuts=st.lists(st.integers(0, 300), max_size=8),
)
def test_both_framings_may_alternate_and_come_in_any_pieces(messages: list[tuple[bool, str]], cuts: list[int]) -> None:
    stream, expected = b"", []
    for counted, text in messages:
        message = b"<13>" + text.encode()
        stream += b"%d %s" % (len(message), message) if counted else message + b"\n"
        expected.append(message)
    places = sorted({0, *(min(cut, len(stream)) for cut in cuts), len(stream)})
    chunks = [stream[start:end] for start, end in pairwise(places)]
    assert messages_of(chunks) == expected


def test_a_counted_message_may_hold_line_feeds_and_numbers_are_no_counts() -> None:
    assert messages_of([b"9 <13>a\nb\nc7 <13>end", b"2026 was a year\n12 monkeys\n"]) == [
        b"<13>a\nb\nc",
        b"<13>end",
        b"2026 was a year",
        b"12 monkeys",
    ]


def test_a_message_beyond_the_limit_comes_in_pieces() -> None:
    framing = Framing(10)
    assert framing.feed(b"<13>" + b"x" * 21 + b"\n<1>y\n") == [b"<13>xxxxxx", b"x" * 10, b"x" * 5, b"<1>y"]
    assert framing.cut == 2
    assert Framing(10).feed(b"25 <13>" + b"x" * 21 + b"5 <13>y") == [b"<13>xxxxxx", b"x" * 10, b"x" * 5, b"<13>y"]


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=10))
def test_any_bytes_give_bounded_messages(chunks: list[bytes]) -> None:
    framing = Framing(16)
    for chunk in chunks:
        for message in framing.feed(chunk):
            assert 0 < len(message) <= 16
        assert framing.waiting <= 64
    framing.finish()


class Wire:
    """A decoder and what came of what it was given."""

    def __init__(self, folder: Path, **declared: Any) -> None:
        self.taken: list[dict[str, Any]] = []
        self.confirm: list[Callable[[], None]] = []
        self.answers: list[bytes] = []
        self.decoder = TrapDecoder(TrapListener.model_validate(declared), folder, self._take)

    def _take(self, made: dict[str, Any], confirm: Callable[[], None] | None) -> None:
        self.taken.append(made)
        if confirm is not None:
            self.confirm.append(confirm)

    def receive(self, datagram: bytes) -> None:
        self.decoder.receive(datagram, "192.0.2.7", self.answers.append)


def notification(pdu: Any, community: str = "public") -> bytes:
    v2c.apiPDU.set_defaults(pdu)
    v2c.apiPDU.set_varbinds(
        pdu,
        [
            (ObjectIdentifier((1, 3, 6, 1, 2, 1, 1, 3, 0)), TimeTicks(17)),
            (ObjectIdentifier((1, 3, 6, 1, 6, 3, 1, 1, 4, 1, 0)), ObjectIdentifier((1, 3, 6, 1, 6, 3, 1, 1, 5, 3))),
            (ObjectIdentifier((1, 3, 6, 1, 2, 1, 2, 2, 1, 1, 7)), Integer32(7)),
        ],
    )
    message = v2c.Message()
    v2c.apiMessage.set_defaults(message)
    v2c.apiMessage.set_community(message, community)
    v2c.apiMessage.set_pdu(message, pdu)
    return bytes(encoder.encode(message))


def test_an_inform_is_answered_only_when_it_is_confirmed(tmp_path: Path) -> None:
    wire = Wire(tmp_path, communities=["public"])
    wire.receive(notification(v2c.InformRequestPDU()))
    assert wire.taken[0]["trap"] == "1.3.6.1.6.3.1.1.5.3"
    assert wire.taken[0]["varbinds"] == [["1.3.6.1.2.1.2.2.1.1.7", "integer", 7]]
    assert wire.answers == []
    wire.confirm[0]()
    answer, _ = decoder.decode(wire.answers[0], asn1Spec=v2c.Message())
    pdu = v2c.apiMessage.get_pdu(answer)
    assert pdu.tagSet == v2c.ResponsePDU.tagSet
    assert int(v2c.apiPDU.get_request_id(pdu)) == wire.taken[0]["request"]


def test_unknown_communities_are_refused_and_not_told(tmp_path: Path) -> None:
    wire = Wire(tmp_path, communities=["secret"])
    with pytest.raises(NotBelieved) as refused:
        wire.receive(notification(v2c.SNMPv2TrapPDU()))
    assert "public" not in str(refused.value)
    assert "secret" not in str(refused.value)
    with pytest.raises(NotBelieved):
        Wire(tmp_path).receive(notification(v2c.SNMPv2TrapPDU()))


@pytest.mark.skipif(not CAPTURES.exists(), reason=f"no captures in {CAPTURES}")
def test_a_captured_trap_of_net_snmp(tmp_path: Path) -> None:
    wire = Wire(tmp_path, communities=["public"])
    wire.receive((CAPTURES / "snmptrap-v2c-udp-1.bin").read_bytes())
    assert wire.taken[0]["trap"] == "1.3.6.1.6.3.1.1.5.3"


@settings(max_examples=examples(100), deadline=None)
@given(st.data())
def test_any_datagram_is_taken_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    wire = Wire(tmp_path_factory.getbasetemp(), communities=["public"])
    datagram = bytearray(notification(v2c.SNMPv2TrapPDU()))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(datagram) - 1))
        datagram[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
        datagram = datagram or bytearray(b"0")
    try:
        wire.receive(bytes(datagram))
    except NotBelieved:
        assert wire.taken == []
    else:
        assert len(wire.taken) == 1
        orjson.dumps(wire.taken[0])


def test_the_engine_keeps_its_identity_and_counts_its_starts(tmp_path: Path) -> None:
    user = {"version": "3", "user": "alice", "auth_key": "authentic-phrase"}
    kept = []
    for _ in range(2):
        Wire(tmp_path, users=[user])
        kept.append(orjson.loads((tmp_path / "snmp_engine.json").read_bytes()))
    assert kept[0]["engine_id"] == kept[1]["engine_id"]
    assert kept[1]["boots"] == kept[0]["boots"] + 1


def test_who_may_send_and_under_which_name() -> None:
    allowed = Allowed(["192.0.2.0/24", "2001:db8::/32"], {"192.0.2.7": "core1", "192.0.2.9": "two words"})
    assert allowed.sender("192.0.2.9") == "192.0.2.9"
    assert allowed.sender("192.0.2.7") == "core1"
    assert allowed.sender("192.0.2.8") == "192.0.2.8"
    assert allowed.sender("::ffff:192.0.2.7") == "core1"
    assert allowed.sender("2001:db8::1") == "2001:db8::1"
    assert allowed.sender("198.51.100.1") is None
    assert allowed.sender("no address") is None


def test_senders_that_fall_silent_are_named() -> None:
    tally = Tally()
    for second in range(100):
        tally.took("chatty", 10, float(second))
    tally.took("rare", 10, 0.0)
    assert tally.laggards(200.0) == []
    assert tally.laggards(2000.0) == ["chatty"]


def test_devices_give_their_addresses_a_name_but_not_this_machine() -> None:
    config = parse_config(
        "devices:\n- {name: core1, address: '192.0.2.7:1161'}\n- {name: self, address: 127.0.0.1}\n"
        "- {name: v6, address: '[2001:db8::1]:161'}\n- {name: named, address: core2.example}\n",
        "aiops.yaml",
    )
    assert device_names(config) == {"192.0.2.7": "core1", "2001:db8::1": "v6"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("127.0.0.1:5514", ("127.0.0.1", 5514)), ("[::1]:514", ("::1", 514)), ("::1", ("::1", 514)), ("h", ("h", 514))],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert split(text, 514) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("listen: {syslog: {udp: ['nowhere']}}", "host:port"),
        ("listen: {syslog: {allow: ['everybody']}}", "a network such as"),
        ("listen: {syslog: {zone: Mars}}", "a time zone such as"),
        ("listen: {syslog: {tls: ['127.0.0.1:6514']}}", "needs 'certificate' and 'private_key'"),
        ("listen: {traps: {engine_ids: ['zz']}}", "an engine id in hex"),
    ],
)
def test_mistakes_in_the_configuration_are_named(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        parse_config(text, "aiops.yaml")
    assert told in str(wrong.value)


def test_memory_is_bounded_when_nothing_can_be_stored_and_streams_go_on_later(tmp_path: Path) -> None:
    async def scenario() -> None:
        writer = SegmentWriter(tmp_path, "listener", max_bytes=1 << 20, max_age_seconds=0.05)
        outbox = Outbox(writer, gather_seconds=0.01)
        intake = Intake(outbox, max_bytes=10_000)
        went_on = asyncio.Event()
        while not intake.full:
            intake.syslog("UTC", 1, "192.0.2.7", b"<13>" + b"x" * 500)
        intake.when_room(went_on.set)
        intake.flush()
        runner = asyncio.create_task(outbox.run())
        async with asyncio.timeout(10):
            await went_on.wait()
        assert not intake.full
        await outbox.close(runner)

    asyncio.run(scenario())
    deliveries = read_segment(tmp_path / "listener", 1).deliveries
    assert deliveries[0].headers == {"framing": "peers", "zone": "UTC", "format": "syslog"}
    assert deliveries[0].source == "syslog"
