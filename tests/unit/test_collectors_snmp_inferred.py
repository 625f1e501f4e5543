"""Sensors of makers without a profile are inferred from words in their tables, and from nothing less."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiops_assets.collectors.snmp.engine import INTEGER, OBJECT_ID, OCTETS, Oid, Value, parse_oid
from aiops_assets.collectors.snmp.inferred import MOST_OBJECTS, MOST_SENSORS, infer, subtree
from aiops_assets.collectors.snmp.poll import PROBE_SECONDS
from aiops_assets.collectors.snmp.recording import Recorded
from aiops_assets.collectors.snmp.sensors import in_class_unit
from aiops_assets.collectors.snmp.walk import Pace
from tests.unit.test_collectors_snmp_poll import Bench, system, values

BASE = "1.3.6.1.4.1.99998"
Objects = dict[str, tuple[str, Value]]


def table(*rows: tuple[Any, ...], at: str = f"{BASE}.3.1") -> Objects:
    """A table whose columns are the row's cells in turn, beginning with column 2."""
    made: Objects = {}
    for index, row in enumerate(rows, start=1):
        for column, cell in enumerate(row, start=2):
            value = (OCTETS, cell.encode()) if isinstance(cell, str) else (INTEGER, cell)
            made[f"{at}.{column}.{index}"] = value
    return made


def found(objects: Objects, codes: bool = False) -> dict[tuple[str, str], float | None]:
    parsed = {parse_oid(name): cell for name, cell in objects.items()}
    return {
        (instance.reading.kind, instance.labels["hw.id"]): in_class_unit(
            instance, {name: parsed[oid] for name, oid in instance.asks.items()}
        )
        for instance in infer(parsed)
        if codes or instance.reading.kind != "code"
    }


def test_words_say_what_a_row_measures_and_plausibility_where_and_how() -> None:
    made = found(
        table(("CPU Temperature", 1, 451, 800), ("Inlet Temp", 2, 233, 800), at=f"{BASE}.3.1")
        | table(("Fan 1", 1, 5_230), ("Fan 2", 1, 0), at=f"{BASE}.4.1")
        | table(("+12V", 11_870), ("+5V", 5_020), ("3.3V", 3_290), at=f"{BASE}.5.1")
    )
    assert made == {
        ("temperature", "CPU Temperature"): pytest.approx(45.1),
        ("temperature", "Inlet Temp"): pytest.approx(23.3),
        ("fanspeed", "Fan 1"): 5_230,
        ("fanspeed", "Fan 2"): 0,
        ("voltage", "+12V"): pytest.approx(11.87),
        ("voltage", "+5V"): pytest.approx(5.02),
        ("voltage", "3.3V"): pytest.approx(3.29),
    }


def test_a_unit_in_words_says_more_than_a_name() -> None:
    assert found(table(("Ambient", 24, "degrees C"), ("Aisle", 27, "degrees C"))) == {
        ("temperature", "Ambient"): 24,
        ("temperature", "Aisle"): 27,
    }


def test_numbers_written_as_text_are_read() -> None:
    assert found(table(("System temp", "36.500"))) == {("temperature", "System temp"): 36.5}


def test_rows_without_words_say_nothing() -> None:
    assert found(table((45, 60), (46, 60))) == {}
    assert found(table(("eth0", 45), ("eth1", 46))) == {}


def test_indices_and_constants_are_no_readings() -> None:
    rows = [(f"Temp sensor {n}", n, 60, 300 + n) for n in range(10, 16)]
    made = found(table(*rows))
    assert made["temperature", "Temp sensor 12"] in (12, pytest.approx(31.2))
    constant = [(f"Temp sensor {n}", 60) for n in range(6)]
    assert found(table(*constant)) == {}


def test_what_is_not_plausible_is_not_taken() -> None:
    assert found(table(("CPU temperature", 1, 2), ("PCH temperature", 2, 3))) == {}
    assert (
        found(
            table(
                ("+12V rail", 3),
            )
        )
        == {}
    )


def test_states_in_words_are_states() -> None:
    made = found(table(("PSU 1", "ok"), ("PSU 2", "failed"), ("PSU 3", "Normal")))
    assert set(made) == {("state", "PSU 1"), ("state", "PSU 2"), ("state", "PSU 3")}


def test_the_first_small_number_after_a_components_name_is_kept_as_a_code() -> None:
    made = found(table(("PSU 1", 4, 750), ("PSU 2", 2, 749)), codes=True)
    assert made == {("code", "PSU 1"): 4, ("code", "PSU 2"): 2}
    assert found(table(("eth0", 1), ("eth1", 2)), codes=True) == {}
    assert found(table(("PSU 1", 1), ("PSU 2", 2)), codes=True) == {}, "these are the rows' own numbers"


def test_transceivers_are_known_by_their_five_readings() -> None:
    made = found(table(("port 1", 280, 33_410, 31_250, -240, -191), ("port 2", 0, 0, 0, 0, 0)))
    assert made["temperature", "port 1"] == pytest.approx(28.0)
    assert made["voltage", "port 1"] == pytest.approx(3.341)
    assert made["dbm", "port 1 transmit"] in (pytest.approx(-2.4), pytest.approx(-24))
    assert found(table((1, 2, 3, 4, 5), (2, 3, 4, 5, 6))) == {}


def test_two_sensors_of_one_name_stay_apart() -> None:
    assert len(found(table(("Temp", 31), ("Temp", 32)))) == 2


def test_the_number_of_sensors_and_objects_is_bounded() -> None:
    rows = table(*[(f"Temperature {n}", 200 + n % 300) for n in range(1_000)])
    assert len(infer({parse_oid(name): cell for name, cell in rows.items()})) == MOST_SENSORS
    many = {parse_oid(f"{BASE}.1.{n}"): (INTEGER, n) for n in range(2 * MOST_OBJECTS)}
    read = asyncio.run(subtree(Recorded(many), parse_oid(BASE), Pace()))
    assert MOST_OBJECTS <= len(read) < MOST_OBJECTS + 100


@given(
    st.dictionaries(
        st.lists(st.integers(1, 3), min_size=1, max_size=6).map(lambda tail: (1, 3, 6, 1, 4, 1, 9, 1, *tail)),
        st.one_of(
            st.tuples(st.just(INTEGER), st.integers(-(2**31), 2**31)),
            st.tuples(
                st.just(OCTETS), st.sampled_from([b"Fan 1", b"Temp", b"+5V", b"ok", b"C", b"45.1", b"\xff\x00", b""])
            ),
        ),
        max_size=60,
    )
)
def test_any_subtree_is_survived(objects: dict[Oid, tuple[str, Any]]) -> None:
    for instance in infer(objects):
        assert all(oid in objects for oid in instance.asks.values())


def maker(**more: Any) -> Objects:
    named: Objects = {"1.3.6.1.2.1.1.2.0": (OBJECT_ID, parse_oid(f"{BASE}.7"))}
    return named | table(("CPU Temperature", 45), ("Board temp", 38)) | more


def test_a_maker_without_a_profile_is_looked_at_once_a_day_and_its_sensors_polled_by_name() -> None:
    bench = Bench(system(100) | maker())
    assert set(values(bench.poll(), "hw.temperature").values()) == {45, 38}
    before = bench.agent.requests
    later = bench.poll(system(6_100) | maker() | table(("CPU Temperature", 51), ("Board temp", 39)), after=60)
    assert set(values(later, "hw.temperature").values()) == {51, 39}
    assert {p["labels"]["hw.inferred"] for p in later.points if p["metric"] == "hw.temperature"} == {"true"}
    assert bench.agent.requests - before == 2
    asked: list[Oid] = []
    bench.agent.disturb = lambda number, oids, varbinds: asked.extend(oids)
    bench.poll(system(20_000) | maker(), after=120)
    assert parse_oid(BASE) not in asked
    bench.poll(system(100 * int(2 * PROBE_SECONDS)) | maker(), after=2 * PROBE_SECONDS)
    assert parse_oid(BASE) in asked


def test_naming_profiles_leaves_inference_out() -> None:
    outcome = Bench(system(100) | maker(), profiles=("system", "interfaces")).poll()
    assert not values(outcome, "hw.temperature")
