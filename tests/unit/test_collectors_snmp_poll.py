"""Profiles turn an agent's objects into metrics, and the poller keeps them honest over time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiops_assets.collectors.document import Poll
from aiops_assets.collectors.snmp.engine import (
    COUNTER32,
    COUNTER64,
    GAUGE32,
    INTEGER,
    NULL,
    OBJECT_ID,
    OCTETS,
    TIMETICKS,
    NoReply,
    Oid,
    Reply,
    Value,
    VarBind,
    parse_oid,
)
from aiops_assets.collectors.snmp.poll import DISCOVERY_SECONDS, SnmpPoller
from aiops_assets.collectors.snmp.profile import ProfileError, compile_expression, load_profiles, parse_profile, text
from aiops_assets.config import Device
from tests.unit.test_collectors_walk import Agent

Mib = dict[Oid, tuple[str, Value]]
IF, IFX = "1.3.6.1.2.1.2.2.1", "1.3.6.1.2.1.31.1.1.1"


def mib(entries: dict[str, tuple[str, Value]]) -> Mib:
    return {parse_oid(oid): value for oid, value in entries.items()}


def system(ticks: int) -> dict[str, tuple[str, Value]]:
    return {
        "1.3.6.1.2.1.1.1.0": (OCTETS, b"a switch"),
        "1.3.6.1.2.1.1.2.0": (OBJECT_ID, (1, 3, 6, 1, 4, 1, 9)),
        "1.3.6.1.2.1.1.3.0": (TIMETICKS, ticks),
        "1.3.6.1.2.1.1.5.0": (OCTETS, b"sw-1"),
    }


def interface(
    index: int, name: str, octets: int, *, wide: bool = True, alias: str = ""
) -> dict[str, tuple[str, Value]]:
    made: dict[str, tuple[str, Value]] = {
        f"{IF}.2.{index}": (OCTETS, name.encode()),
        f"{IF}.5.{index}": (GAUGE32, 100_000_000),
        f"{IF}.8.{index}": (INTEGER, 1),
        f"{IF}.10.{index}": (COUNTER32, octets % 2**32),
        f"{IF}.14.{index}": (COUNTER32, 0),
    }
    if wide:
        made |= {
            f"{IFX}.1.{index}": (OCTETS, name.encode()),
            f"{IFX}.6.{index}": (COUNTER64, octets),
            f"{IFX}.18.{index}": (OCTETS, alias.encode()),
        }
    return made


class Bench:
    """A poller on an agent in memory, with a clock in the test's hand."""

    def __init__(
        self,
        entries: dict[str, tuple[str, Value]],
        disturb: Callable[[int, Sequence[Oid], list[VarBind]], Reply | None] | None = None,
        version: str = "2c",
        **device: Any,
    ) -> None:
        self.agent = Agent(mib(entries), version, disturb)
        self.now = 1_000_000.0
        self.device = Device(name="sw-1", address="192.0.2.1", snmp={"version": version}, **device)
        self.state: dict[str, Any] | None = None
        self.poller = self.restart()

    def restart(self) -> SnmpPoller:
        """A poller as after a restart of the collector, with the saved state."""
        self.poller = SnmpPoller(
            self.device, self, state=self.state, clock=lambda: 1.7e9 + self.now, monotonic=lambda: self.now
        )
        return self.poller

    def session(self, device: Device) -> Agent:
        return self.agent

    def close(self) -> None: ...

    def poll(self, entries: dict[str, tuple[str, Value]] | None = None, after: float = 0.0) -> Poll:
        self.now += after
        if entries is not None:
            self.agent.mib = mib(entries)
            self.agent.names = sorted(self.agent.mib)
        outcome = asyncio.run(self.poller.poll())
        self.state = self.poller.state()
        return outcome


def values(outcome: Poll, metric: str) -> dict[tuple[str, ...], float]:
    return {tuple(p["labels"].values()): p["value"] for p in outcome.points if p["metric"] == metric}


def test_shipped_profiles_load_and_cover_the_canonical_metrics() -> None:
    profiles = load_profiles()
    names = [profile.name for profile in profiles]
    everywhere = [name for name in names if not next(p for p in profiles if p.name == name).applies]
    assert everywhere[:2] == ["system", "interfaces"]
    assert set(everywhere) == {
        "system", "interfaces", "etherlike", "ucd", "host_resources", "entity_sensor", "ups_mib", "power_ethernet",
        "printer", "docsis", "fcmgmt",
    }  # fmt: skip
    assert names.index(everywhere[-1]) < min(names.index(p.name) for p in profiles if p.applies)
    metrics = {m.metric for p in profiles for m in (*p.measures, *(m for t in p.tables for m in t.measures))}
    assert {
        "system.uptime", "system.network.up", "system.network.io", "system.network.errors", "system.network.packets",
        "system.filesystem.utilization", "system.filesystem.usage", "system.memory.utilization", "system.memory.usage",
        "system.paging.utilization", "system.cpu.utilization", "system.cpu.load_average.1m", "system.processes.count",
        "hw.temperature", "hw.fan.speed", "hw.voltage", "hw.power", "hw.current",
    } <= metrics  # fmt: skip


def test_the_first_poll_has_no_rates_and_the_second_has_true_ones() -> None:
    bench = Bench(system(1_000_000) | interface(1, "eth0", 10_000))
    first = bench.poll()
    assert first.up
    assert first.error is None
    assert values(first, "system.network.io") == {}
    assert values(first, "system.network.up") == {("eth0",): 1.0}
    second = bench.poll(system(1_006_000) | interface(1, "eth0", 16_000), after=60)
    assert values(second, "system.network.io") == {("eth0", "receive"): 100.0}


def test_64_bit_counters_are_preferred_and_32_bit_ones_then_not_fetched() -> None:
    far = 2**40
    bench = Bench(system(1_000_000) | interface(1, "eth0", far) | interface(2, "old", 500, wide=False))
    bench.poll()
    second = bench.poll(
        system(1_006_000) | interface(1, "eth0", far + 6 * 2**32) | interface(2, "old", 1_100, wide=False), after=60
    )
    io = values(second, "system.network.io")
    assert io == {("eth0", "receive"): 6 * 2**32 / 60, ("old", "receive"): 10.0}
    wide_only = Bench(system(1_000_000) | interface(1, "eth0", far))
    wide_only.poll()
    asked: list[Oid] = []
    wide_only.agent.disturb = lambda number, oids, varbinds: asked.extend(oids)
    wide_only.poll(after=60)
    roots = {oid[:10] for oid in asked} | {oid[:11] for oid in asked}
    assert parse_oid(f"{IF}.10") not in roots
    assert parse_oid(f"{IFX}.1") not in roots, "names are not fetched again"
    assert parse_oid(f"{IF}.8") in roots


def test_a_restart_becomes_one_change_and_no_rate() -> None:
    bench = Bench(system(1_000_000) | interface(1, "eth0", 10_000_000))
    bench.poll()
    after = bench.poll(system(1_500) | interface(1, "eth0", 10_000_500), after=60)
    assert values(after, "system.network.io") == {}
    assert [change["kind"] for change in after.changes] == ["reboot"]
    assert after.changes[0]["title"] == "sw-1 restarted"
    assert after.changes[0]["ts"] == int((1.7e9 + bench.now - 15) * 1e6)
    later = bench.poll(system(7_500) | interface(1, "eth0", 10_006_500), after=60)
    assert values(later, "system.network.io") == {("eth0", "receive"): 100.0}
    assert later.changes == []


def test_a_restart_while_the_collector_was_down_is_seen_from_its_saved_state() -> None:
    bench = Bench(system(50_000_000))
    bench.poll()
    bench.restart()
    assert [change["kind"] for change in bench.poll(system(30_000), after=3_600).changes] == ["reboot"]


def test_a_restart_of_the_agent_alone_is_told_from_one_of_the_machine() -> None:
    host = {"1.3.6.1.2.1.25.1.1.0": (TIMETICKS, 90_000_000)}
    bench = Bench(system(1_000_000) | host)
    bench.poll()
    change = bench.poll(system(1_000) | {"1.3.6.1.2.1.25.1.1.0": (TIMETICKS, 90_006_000)}, after=60).changes[0]
    assert "machine kept running" in change["title"]
    assert change["details"]["machine_restarted"] is False


def test_the_wrap_of_the_uptime_after_497_days_is_no_restart() -> None:
    bench = Bench(system(2**32 - 3_000) | interface(1, "eth0", 10_000))
    bench.poll()
    after = bench.poll(system(3_000) | interface(1, "eth0", 16_000), after=60)
    assert after.changes == []
    assert values(after, "system.network.io") == {("eth0", "receive"): 100.0}


def test_renumbered_interfaces_after_a_restart_get_their_new_names_at_once() -> None:
    bench = Bench(system(1_000_000) | interface(1, "eth0", 5) | interface(2, "eth1", 5))
    bench.poll()
    after = bench.poll(
        system(500) | interface(1, "eth1", 5) | interface(2, "eth0", 5) | interface(3, "eth2", 5), after=60
    )
    assert set(values(after, "system.network.up")) == {("eth0",), ("eth1",), ("eth2",)}
    assert len(after.changes) == 1


def test_a_new_interface_is_named_in_the_poll_that_finds_it() -> None:
    bench = Bench(system(1_000_000) | interface(1, "eth0", 5))
    bench.poll()
    after = bench.poll(system(1_006_000) | interface(1, "eth0", 5) | interface(7, "eth7", 5), after=60)
    assert set(values(after, "system.network.up")) == {("eth0",), ("eth7",)}
    assert values(after, "system.network.io") == {("eth0", "receive"): 0.0}


def test_a_discontinuity_of_one_interface_gives_it_no_rate_but_the_others_theirs() -> None:
    def at(ticks: int, octets: int, since: int) -> dict[str, tuple[str, Value]]:
        return (
            system(ticks)
            | interface(1, "eth0", octets)
            | interface(2, "eth1", octets)
            | {f"{IFX}.19.1": (TIMETICKS, since), f"{IFX}.19.2": (TIMETICKS, 0)}
        )

    bench = Bench(at(1_000_000, 10_000, 0))
    bench.poll()
    after = bench.poll(at(1_006_000, 16_000, 1_003_000), after=60)
    assert values(after, "system.network.io") == {("eth1", "receive"): 100.0}


def test_interfaces_of_the_same_name_stay_apart() -> None:
    bench = Bench(system(1) | interface(1, "port", 5) | interface(2, "port", 5))
    assert set(values(bench.poll(), "system.network.up")) == {("port",), ("port#2",)}


def test_aliases_describe_the_entity_and_do_not_name_series() -> None:
    bench = Bench(system(1) | interface(1, "eth0", 5, alias="uplink to core"), labels={"rack": "a3"}, site="berlin")
    entity = bench.poll().entity
    assert entity is not None
    assert entity["labels"]["interface.eth0"] == "uplink to core"
    assert entity["labels"]["sys_name"] == "sw-1"
    assert entity["labels"]["sys_object_id"] == "1.3.6.1.4.1.9"
    assert entity["labels"]["rack"] == "a3"
    assert entity["site"] == "berlin"
    assert bench.poll(after=60).entity is None
    assert bench.poll(after=2 * DISCOVERY_SECONDS).entity is not None


STORAGE = "1.3.6.1.2.1.25.2.3.1"


def storage(index: int, kind: int, name: bytes, units: int, size: int, used: int) -> dict[str, tuple[str, Value]]:
    return {
        f"{STORAGE}.2.{index}": (OBJECT_ID, parse_oid(f"1.3.6.1.2.1.25.2.1.{kind}")),
        f"{STORAGE}.3.{index}": (OCTETS, name),
        f"{STORAGE}.4.{index}": (INTEGER, units),
        f"{STORAGE}.5.{index}": (INTEGER, size),
        f"{STORAGE}.6.{index}": (INTEGER, used),
    }


def test_filesystems_come_in_bytes_with_overflowed_sizes_mended_and_pseudo_ones_left_out() -> None:
    outcome = Bench(
        system(1)
        | storage(1, 4, b"/", 4_096, 1_000, 250)
        | storage(2, 4, b"/big", 4_096, -1_000_000_000, 1_647_483_648)
        | storage(3, 4, b"/sys/fs/cgroup", 4_096, 10, 5)
        | storage(4, 4, b"C:\\ Label:System  Serial Number 1a2b", 4_096, 10, 5)
        | storage(5, 7, b"/cdrom", 2_048, 10, 10)
        | storage(6, 4, b"/empty", 4_096, 0, 0)
    ).poll()
    assert values(outcome, "system.filesystem.utilization") == {
        ("/",): 0.25,
        ("/big",): pytest.approx(0.5),
        ("C:\\",): 0.5,
    }
    assert values(outcome, "system.filesystem.usage")["/big",] == 1_647_483_648 * 4_096


def test_memory_without_ucd_leaves_out_buffers_and_caches() -> None:
    outcome = Bench(
        system(1)
        | storage(1, 2, b"Physical memory", 1_024, 1_000, 900)
        | storage(6, 1, b"Memory buffers", 1_024, 1_000, 100)
        | storage(7, 1, b"Cached memory", 1_024, 300, 300)
    ).poll()
    assert values(outcome, "system.memory.utilization") == {(): 0.5}


def ucd(idle: int, user: int) -> dict[str, tuple[str, Value]]:
    return {
        "1.3.6.1.4.1.2021.4.5.0": (INTEGER, 1_000),
        "1.3.6.1.4.1.2021.4.6.0": (INTEGER, 300),
        "1.3.6.1.4.1.2021.4.14.0": (INTEGER, 100),
        "1.3.6.1.4.1.2021.4.15.0": (INTEGER, 100),
        "1.3.6.1.4.1.2021.11.50.0": (COUNTER32, user),
        "1.3.6.1.4.1.2021.11.52.0": (COUNTER32, 0),
        "1.3.6.1.4.1.2021.11.53.0": (COUNTER32, idle),
        "1.3.6.1.4.1.2021.10.1.2.1": (OCTETS, b"Load-1"),
        "1.3.6.1.4.1.2021.10.1.3.1": (OCTETS, b"0.75"),
    }


def test_ucd_gives_memory_in_use_load_and_processor_time() -> None:
    bench = Bench(system(1_000_000) | ucd(10_000, 5_000))
    first = bench.poll()
    assert values(first, "system.memory.utilization") == {(): 0.5}
    assert values(first, "system.memory.usage") == {(): 500 * 1_024}
    assert values(first, "system.cpu.load_average.1m") == {(): 0.75}
    assert values(first, "system.cpu.utilization") == {}
    second = bench.poll(system(1_006_000) | ucd(14_500, 6_500), after=60)
    assert values(second, "system.cpu.utilization") == {("total",): pytest.approx(0.25)}


def test_processors_without_ucd_have_a_mean() -> None:
    load = "1.3.6.1.2.1.25.3.3.1.2"
    outcome = Bench(system(1) | {f"{load}.1": (INTEGER, 20), f"{load}.2": (INTEGER, 60)}).poll()
    assert values(outcome, "system.cpu.utilization") == {("1",): 0.2, ("2",): 0.6, ("total",): pytest.approx(0.4)}


def sensor(
    index: int, kind: int, scale: int, precision: int, value: int, status: int = 1
) -> dict[str, tuple[str, Value]]:
    base = "1.3.6.1.2.1.99.1.1.1"
    return {
        f"1.3.6.1.2.1.47.1.1.1.1.7.{index}": (OCTETS, f"sensor {index}".encode()),
        f"{base}.1.{index}": (INTEGER, kind),
        f"{base}.2.{index}": (INTEGER, scale),
        f"{base}.3.{index}": (INTEGER, precision),
        f"{base}.4.{index}": (INTEGER, value),
        f"{base}.5.{index}": (INTEGER, status),
    }


TYPES = {1: "temperature", 2: "fan", 3: "voltage", 4: "power_supply", 5: "current"}


def test_sensors_are_scaled_to_base_units_and_broken_ones_left_out() -> None:
    outcome = Bench(
        system(1)
        | sensor(1, 8, 9, 1, 425)
        | sensor(2, 10, 9, 0, 5_400)
        | sensor(3, 4, 8, 0, 12_050)
        | sensor(4, 6, 10, 3, 1_250)
        | sensor(5, 5, 8, 1, 15_000)
        | sensor(6, 8, 9, 0, 99, status=2)
    ).poll()
    assert values(outcome, "hw.temperature") == {("sensor 1", TYPES[1]): pytest.approx(42.5)}
    assert values(outcome, "hw.fan.speed") == {("sensor 2", TYPES[2]): 5_400}
    assert values(outcome, "hw.voltage") == {("sensor 3", TYPES[3]): pytest.approx(12.05)}
    assert values(outcome, "hw.power") == {("sensor 4", TYPES[4]): pytest.approx(1_250)}
    assert values(outcome, "hw.current") == {("sensor 5", TYPES[5]): pytest.approx(1.5)}


def test_counters_that_are_no_numbers_give_no_points_and_no_failure() -> None:
    broken = interface(1, "eth0", 5) | {f"{IFX}.6.1": (OCTETS, b"many"), f"{IF}.10.1": (NULL, None)}
    bench = Bench(system(1_000_000) | broken)
    bench.poll()
    after = bench.poll(system(1_006_000) | broken, after=60)
    assert after.up
    assert values(after, "system.network.io") == {}
    assert values(after, "system.network.up") == {("eth0",): 1.0}


def test_a_truncated_table_is_in_the_error_while_the_rest_is_delivered() -> None:
    def lost(number: int, oids: Sequence[Oid], varbinds: list[VarBind]) -> Reply | None:
        if any(oid[:9] == parse_oid("1.3.6.1.2.1.25.2.3") for oid in oids):
            raise NoReply("no reply from 192.0.2.1")
        return None

    outcome = Bench(system(1) | interface(1, "eth0", 5) | storage(1, 4, b"/", 4_096, 10, 5), lost).poll()
    assert outcome.up
    assert values(outcome, "system.network.up") == {("eth0",): 1.0}
    assert values(outcome, "system.filesystem.usage") == {}
    assert outcome.error is not None
    assert "no reply" in outcome.error


def test_names_lost_in_discovery_are_awaited_rather_than_made_up() -> None:
    losing = True

    def lost(number: int, oids: Sequence[Oid], varbinds: list[VarBind]) -> Reply | None:
        if losing and any(name[:11] == parse_oid(f"{IFX}.1") for name, _, _ in varbinds):
            raise NoReply("no reply")
        return None

    bench = Bench(system(1_000_000) | interface(1, "eth0", 5), lost)
    assert values(bench.poll(), "system.network.up") == {}
    losing = False
    after = bench.poll(system(1_006_000) | interface(1, "eth0", 5), after=60)
    assert values(after, "system.network.up") == {("eth0",): 1.0}


def test_a_silent_device_is_down_with_a_reason() -> None:
    def lost(number: int, oids: Sequence[Oid], varbinds: list[VarBind]) -> Reply | None:
        raise NoReply("no reply from 192.0.2.1")

    outcome = Bench(system(1), lost).poll()
    assert not outcome.up
    assert outcome.error == "no reply from 192.0.2.1"


def test_a_device_cut_by_its_deadline_keeps_what_came_and_is_told() -> None:
    bench = Bench(system(1) | interface(1, "eth0", 5), deadline=0.05)
    prompt = bench.agent.get_bulk

    async def stuck(non_repeaters: int, repetitions: int, oids: Sequence[Oid]) -> Reply:
        if any(oid[:7] == parse_oid("1.3.6.1.2.1.25") for oid in oids):
            await asyncio.Event().wait()
        return await prompt(non_repeaters, repetitions, oids)

    bench.agent.get_bulk = stuck  # type: ignore[method-assign]
    outcome = bench.poll()
    assert outcome.up
    assert outcome.cut
    assert values(outcome, "system.network.up") == {("eth0",): 1.0}
    assert outcome.error == "cut after 0.05 s during discovery of host_resources.storage"


def test_version_1_gives_the_same_metrics() -> None:
    entries = system(1_000_000) | interface(1, "eth0", 10_000) | storage(1, 4, b"/", 4_096, 1_000, 250)
    assert Bench(entries, version="1").poll().points == Bench(entries).poll().points


def test_an_unknown_profile_is_named_with_those_there_are() -> None:
    outcome = Bench(system(1), profiles=("sytem",)).poll()
    assert not outcome.up
    assert outcome.error is not None
    assert "unknown profile sytem; known: a10, " in outcome.error
    assert ", system, " in outcome.error


def test_only_the_named_profiles_are_polled() -> None:
    outcome = Bench(system(100) | interface(1, "eth0", 5), profiles=("system",)).poll()
    assert {p["metric"] for p in outcome.points} == {"system.uptime"}


class OneRow:
    """A row for expressions."""

    def __init__(self, **cells: tuple[str, Value]) -> None:
        self.cells = cells

    def cell(self, name: str) -> tuple[str, Value] | None:
        return self.cells.get(name)

    def other(self, column: str, key: str, text: str) -> tuple[str, Value] | None:
        return None

    def growth(self, name: str, cell: tuple[str, Value], limit: float | None) -> float | None:
        return 1.0


@pytest.mark.parametrize(
    ("source", "result"),
    [
        ("a + 2 * b", 8),
        ("-(a - b) / 2", 0.5),
        ("a / nought", None),
        ("a + missing", None),
        ("first(missing, a)", 2),
        ("u32(negative)", 2**32 - 5),
        ("number(written)", 1.5),
        ("number(a)", 2),
        ("equals(a, 1, 2)", 1),
        ("equals(a, 1)", 0),
        ("equals(missing, 1)", None),
        ("matches(written, '^1')", 1),
        ("si(a, 8, 1)", 0.0002),
        ("rate(missing, a)", 1.0),
    ],
)
def test_expressions(source: str, result: float | None) -> None:
    row = OneRow(a=(INTEGER, 2), b=(INTEGER, 3), nought=(INTEGER, 0), negative=(INTEGER, -5), written=(OCTETS, b"1.5"))
    names = frozenset({"a", "b", "nought", "negative", "written", "missing"})
    value = compile_expression(source, names)(row)
    assert value == (pytest.approx(result) if result is not None else None)


@pytest.mark.parametrize(
    "source",
    [
        "unknown", "a ** 2", "__import__('os')", "a.b", "a if a else a", "rate(a + a)", "rate(a, top=1)", "open('x')",
        "a +", "'text'", "[a]", "lambda: a", "equals(a, a)", "first()",
    ],
)  # fmt: skip
def test_what_is_no_expression_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        compile_expression(source, frozenset({"a"}))


def test_a_wrong_profile_names_its_file_and_field() -> None:
    with pytest.raises(ProfileError, match=r"mine.yaml: tables.0.columns.x"):
        parse_profile("{name: mine, description: d, tables: [{name: t, columns: {x: 1.a}}]}", "mine.yaml")
    with pytest.raises(ProfileError, match=r"'y' is no column; known: sysUpTime, x"):
        parse_profile(
            "{name: mine, description: d, tables: [{name: t, columns: {x: 1.3}, points: "
            "[{metric: m, unit: '1', value: y}]}]}",
            "mine.yaml",
        )


@given(st.binary(max_size=40))
def test_any_octets_have_a_printable_text(octets: bytes) -> None:
    written = text((OCTETS, octets))
    assert written is not None
    assert written.isprintable()
