"""Sensors, processors and memory of profiles: found once, then asked for by name, many in one request."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiops_assets.collectors.snmp.engine import (
    GAUGE32,
    INTEGER,
    OBJECT_ID,
    OCTETS,
    OPAQUE,
    NoReply,
    Oid,
    Reply,
    Value,
    VarBind,
    parse_oid,
)
from aiops_assets.collectors.snmp.poll import DISCOVERY_SECONDS, PROBE_SECONDS
from aiops_assets.collectors.snmp.profile import Profile, ProfileError, load_profiles, parse_profile
from aiops_assets.collectors.snmp.sensors import CLASSES, SENSOR_CLASS, number
from aiops_assets.config import Device
from tests.unit.test_collectors_snmp_poll import Bench, SnmpPoller, mib, system, values

ACME = """
name: acme
description: Acme
applies: [1.3.6.1.4.1.99999]
base: 1.3.6.1.4.1.99999
processors:
  - {oid: .2.1, label: .2.2}
memory:
  - {used: .3.1, total: .3.2, unit: 1024, name: main}
sensors:
  - {class: temperature, oid: .1.3, div: 10, label: .1.2, where: {.1.1: [1]}}
  - {class: fanspeed, oid: .1.3, label: .1.2, where: {.1.1: [2]}}
  - {class: state, oid: .1.4, label: .1.2, type: fan, states: {ok: [1], degraded: [2], failed: [3]}}
  - {class: temperature, oid: '.4', name: Room, convert: fahrenheit, skip: [0]}
"""
BASE = "1.3.6.1.4.1.99999"


def acme(temperature: int = 425, state: int = 1) -> dict[str, tuple[str, Value]]:
    return {
        "1.3.6.1.2.1.1.2.0": (OBJECT_ID, parse_oid(f"{BASE}.7")),
        f"{BASE}.1.1.1": (INTEGER, 1),
        f"{BASE}.1.1.2": (INTEGER, 2),
        f"{BASE}.1.2.1": (OCTETS, b"CPU"),
        f"{BASE}.1.2.2": (OCTETS, b"Fan 1"),
        f"{BASE}.1.3.1": (INTEGER, temperature),
        f"{BASE}.1.3.2": (INTEGER, 5_200),
        f"{BASE}.1.4.2": (INTEGER, state),
        f"{BASE}.2.1.0": (GAUGE32, 30),
        f"{BASE}.2.2.0": (OCTETS, b"RE0"),
        f"{BASE}.3.1.0": (INTEGER, 512),
        f"{BASE}.3.2.0": (INTEGER, 2_048),
        f"{BASE}.4.0": (OCTETS, b"68.0 F"),
    }


class Acme(Bench):
    """A bench that knows this one profile beside the shipped ones."""

    def restart(self) -> SnmpPoller:
        profiles: Sequence[Profile] = (*load_profiles(), parse_profile(ACME, "acme.yaml"))
        self.poller = SnmpPoller(
            self.device, self, profiles, state=self.state, clock=lambda: 1.7e9 + self.now, monotonic=lambda: self.now
        )
        return self.poller


def test_sensors_get_canonical_names_units_and_states() -> None:
    outcome = Acme(system(1) | acme()).poll()
    assert values(outcome, "hw.temperature") == {
        ("CPU", "temperature"): pytest.approx(42.5),
        ("Room", "temperature"): pytest.approx(20.0),
    }
    assert values(outcome, "hw.fan.speed") == {("Fan 1", "fan"): 5_200}
    assert values(outcome, "hw.status") == {
        ("Fan 1", "fan", "ok"): 1,
        ("Fan 1", "fan", "degraded"): 0,
        ("Fan 1", "fan", "failed"): 0,
    }
    assert values(outcome, "system.cpu.utilization") == {("RE0",): 0.3, ("total",): pytest.approx(0.3)}
    assert values(outcome, "system.memory.utilization") == {(): 0.25}
    assert values(outcome, "system.memory.pool.usage") == {("main",): 512 * 1_024}


def test_later_polls_ask_for_known_sensors_by_name_in_one_request() -> None:
    bench = Acme(system(100) | acme())
    bench.poll()
    before = bench.agent.requests
    outcome = bench.poll(system(6_100) | acme(temperature=500, state=3), after=60)
    assert values(outcome, "hw.temperature")["CPU", "temperature"] == pytest.approx(50)
    assert values(outcome, "hw.status")["Fan 1", "fan", "failed"] == 1
    assert bench.agent.requests - before == 2, "uptime, and all sensors together"


def test_an_unknown_code_is_an_unknown_state_and_no_failure() -> None:
    outcome = Acme(system(1) | acme(state=77)).poll()
    assert values(outcome, "hw.status")["Fan 1", "fan", "unknown"] == 1
    assert values(outcome, "hw.status")["Fan 1", "fan", "failed"] == 0


def test_a_profile_is_used_where_sysobjectid_or_an_answering_subtree_says_so() -> None:
    generic = acme() | {"1.3.6.1.2.1.1.2.0": (OBJECT_ID, parse_oid("1.3.6.1.4.1.8072.3.2.10"))}
    assert values(Acme(system(1) | generic).poll(), "hw.fan.speed")
    other = {"1.3.6.1.2.1.1.2.0": (OBJECT_ID, parse_oid("1.3.6.1.4.1.9.1.1"))}
    bench = Acme(system(1) | other)
    asked: list[Oid] = []
    bench.agent.disturb = lambda number, oids, varbinds: asked.extend(oids)
    bench.poll()
    assert not any(oid[:7] == parse_oid(BASE) for oid in asked)


def test_what_a_device_lacks_is_looked_for_once_a_day_and_after_its_restart() -> None:
    bench = Acme(system(100))
    bench.poll()
    first = bench.agent.requests
    bench.poll(system(100 + 200_000), after=2 * DISCOVERY_SECONDS)
    again = bench.agent.requests - first
    assert again < first / 2
    bench.restart()
    before = bench.agent.requests
    bench.poll(system(100 + 200_100), after=1)
    assert bench.agent.requests - before <= again + 1, "remembered by the saved state"
    before = bench.agent.requests
    bench.poll(system(100 + 100 * int(2 * PROBE_SECONDS)), after=2 * PROBE_SECONDS)
    assert bench.agent.requests - before >= first - 2


def test_a_reply_that_would_be_too_big_is_asked_for_in_parts() -> None:
    def too_big(number: int, oids: Sequence[Oid], varbinds: list[VarBind]) -> Reply | None:
        return Reply(1, 0) if len(varbinds) > 3 else None

    bench = Acme(system(1) | acme(), too_big)
    bench.poll()
    outcome = bench.poll(after=60)
    assert outcome.error is None
    assert len(values(outcome, "hw.temperature")) == 2
    assert values(outcome, "hw.fan.speed") == {("Fan 1", "fan"): 5_200}


@pytest.mark.parametrize("index", [0, 2])
def test_an_object_that_cannot_be_read_costs_only_itself(index: int) -> None:
    bad = parse_oid(f"{BASE}.1.3.1")

    def failing(number: int, oids: Sequence[Oid], varbinds: list[VarBind]) -> Reply | None:
        asked = list(oids)
        # only exact requests end with the instance itself and others beside it
        if bad in asked and parse_oid(f"{BASE}.4.0") in asked:
            return Reply(5, asked.index(bad) + 1 if index else 0)
        return Reply(5, 1 if index else 0) if asked == [bad] else None

    bench = Acme(system(1) | acme())
    bench.poll()
    bench.agent.disturb = failing
    outcome = bench.poll(after=60)
    assert values(outcome, "hw.temperature") == {("Room", "temperature"): pytest.approx(20.0)}
    assert values(outcome, "hw.fan.speed") == {("Fan 1", "fan"): 5_200}


def test_version_1_gives_the_same_sensors() -> None:
    for entries in (acme(), {k: v for k, v in acme().items() if not k.endswith(".4.0")}):
        one, two = Acme(system(1) | entries, version="1"), Acme(system(1) | entries)
        assert one.poll().points == two.poll().points
        gone = {k: v for k, v in (system(1) | entries).items() if k != f"{BASE}.1.3.2"}
        assert one.poll(gone, after=60).points == two.poll(gone, after=60).points


def test_a_device_that_falls_silent_among_its_sensors_keeps_what_came() -> None:
    bench = Acme(system(1) | acme())
    bench.poll()

    def silent(number: int, oids: Sequence[Oid], varbinds: list[VarBind]) -> Reply | None:
        if parse_oid(f"{BASE}.4.0") in oids:
            raise NoReply("no reply")
        return None

    bench.agent.disturb = silent
    outcome = bench.poll(after=60)
    assert outcome.up
    assert outcome.error is not None
    assert values(outcome, "system.uptime")


def test_an_agent_that_goes_round_in_circles_is_recognised_all_the_same() -> None:
    loop = parse_oid("1.3.6.1.4.1.5.1.0")

    def circling(number: int, oids: Sequence[Oid], varbinds: list[VarBind]) -> Reply | None:
        if len(oids) == 1 and oids[0][:6] == (1, 3, 6, 1, 4, 1) and len(oids[0]) <= 7:
            return Reply(0, 0, [(loop, INTEGER, 1)])
        return None

    bench = Acme(system(1) | acme(), circling)
    assert values(bench.poll(), "hw.fan.speed")
    assert bench.agent.requests < 60


def test_every_class_has_a_name_and_a_unit() -> None:
    assert set(SENSOR_CLASS.__args__) == set(CLASSES)
    assert all(m.metric.startswith("hw.") and m.unit and m.type for m in CLASSES.values())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("sensors: [{class: warmth, oid: .1.1}]", "sensors.0.class"),
        ("sensors: [{class: temperature, oid: .1.x}]", "sensors.0.oid"),
        ("sensors: [{class: temperature, oid: .1}]", "in quotes"),
        ("sensors: [{class: state, oid: .1.1}]", "states"),
        ("memory: [{used: .1.1}]", "two of used, free and total"),
        ("sensors: [{class: temperature, oid: .1.1, divisor: 2}]", "divisor"),
    ],
)
def test_a_mistake_in_a_profile_names_the_file_and_the_field(wrong: str, said: str) -> None:
    with pytest.raises(ProfileError, match=said) as caught:
        parse_profile(f"name: x\ndescription: x\nbase: 1.3.6.1.4.1.99999\n{wrong}\n", "x.yaml")
    assert "x.yaml" in str(caught.value)


def test_an_identifier_that_continues_nothing_is_refused() -> None:
    with pytest.raises(ProfileError, match="no base"):
        parse_profile("name: x\ndescription: x\nsensors: [{class: temperature, oid: .1.1}]\n", "x.yaml")


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_floats_inside_opaque_are_read(value: float) -> None:
    found = number((OPAQUE, b"\x9f\x78\x04" + struct.pack(">f", value)))
    assert found is not None
    assert math.isclose(found, value)


@given(st.binary(max_size=20))
def test_any_octets_are_a_number_or_nothing(octets: bytes) -> None:
    found = number((OCTETS, octets))
    assert found is None or math.isfinite(found)


def test_shipped_profiles_of_vendors_say_for_whom_they_are() -> None:
    for profile in load_profiles():
        for reading in profile.readings:
            if profile.applies:
                continue
            column = next(iter(reading.operands.values()))
            standard = column[:6] in {(1, 3, 6, 1, 2, 1), (1, 3, 6, 1, 3, 94)}
            assert standard or column[:7] == (1, 3, 6, 1, 4, 1, 2021), profile.name
        assert all(prefix[:6] == (1, 3, 6, 1, 4, 1) and len(prefix) >= 7 for prefix in profile.applies)


def test_a_named_profile_is_used_without_recognition() -> None:
    bench = Acme(system(1) | acme(), profiles=("acme",))
    outcome = bench.poll()
    assert values(outcome, "hw.fan.speed")
    assert not values(outcome, "system.uptime")
    assert isinstance(bench.device, Device)
    assert mib(acme())
