"""Devices of a storm as recordings for an SNMP simulator (snmpsim's snmprec), at one instant.

What belongs here: the objects that a switch of a storm would answer with (SNMPv2-MIB, IF-MIB, HOST-RESOURCES-MIB,
ENTITY-MIB, ENTITY-SENSOR-MIB). What does not: the documents that a storm delivers without a simulator (``lines``). A
line is ``OID|TAG|VALUE`` in the order of object identifiers; counters are what has been counted until then at the rate
of the instant.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.synthetic.storms.course import Course
from aiops_assets.synthetic.storms.engine import Storm
from aiops_assets.synthetic.storms.fleet import Host, Stream

_INTEGER, _OCTETS, _OBJECT_ID, _GAUGE, _TICKS, _COUNTER = "2", "4", "6", "66", "67", "70"
_COUNTER32 = "65"
_SYSTEM, _IF, _IFX = "1.3.6.1.2.1.1", "1.3.6.1.2.1.2.2.1", "1.3.6.1.2.1.31.1.1.1"
_STORAGE, _PROCESSOR = "1.3.6.1.2.1.25.2.3.1", "1.3.6.1.2.1.25.3.3.1.2"
_ENTITY, _SENSOR = "1.3.6.1.2.1.47.1.1.1.1", "1.3.6.1.2.1.99.1.1.1"
_NET_SNMP = "1.3.6.1.4.1.8072.3.2.10"
_RAM = "1.3.6.1.2.1.25.2.1.2"
_UNIT, _UNITS = 4096, 1_048_576
_PORT = "Te1/0/1"


def recordings(storm: Storm, at: int) -> Iterator[tuple[Host, str]]:
    """Each device that is polled over SNMP, and the text of its recording at an instant (microseconds, UTC).

    A device that is silent then has no recording, as one that does not answer.
    """
    for stream in storm.fleet.streams:
        if stream.sender != "snmp":
            continue
        course = Course(storm.plan, stream, stream.interval)
        steps = np.array([at // stream.interval], dtype=np.int64)
        silent = course.silent(steps)
        values = {name: course.values(name, steps)[0] for name in stream.signals}
        for column, host in enumerate(stream.hosts):
            if silent is None or not silent[0, column]:
                shown = {name: float(found[column]) for name, found in values.items()}
                yield host, _text(host, stream, shown, (at - storm.plan.begin) / MICROS_PER_SECOND + 8_640_000)


def _text(host: Host, stream: Stream, values: dict[str, float], uptime: float) -> str:
    objects: list[tuple[str, str, object]] = [
        (f"{_SYSTEM}.1.0", _OCTETS, f"Synthetic switch of {stream.group}"),
        (f"{_SYSTEM}.2.0", _OBJECT_ID, _NET_SNMP),
        (f"{_SYSTEM}.3.0", _TICKS, int(uptime * 100) % 2**32),
        (f"{_SYSTEM}.5.0", _OCTETS, host.name),
        (f"{_SYSTEM}.6.0", _OCTETS, host.site or "synthetic"),
    ]
    if "uplink_in" in values or "port_up" in values:
        objects += _port(values, uptime)
    if "cpu" in values:
        objects.append((f"{_PROCESSOR}.1", _INTEGER, round(values["cpu"] * 100)))
    if "memory" in values:
        objects += [
            (f"{_STORAGE}.1.1", _INTEGER, 1),
            (f"{_STORAGE}.2.1", _OBJECT_ID, _RAM),
            (f"{_STORAGE}.3.1", _OCTETS, "Physical memory"),
            (f"{_STORAGE}.4.1", _INTEGER, _UNIT),
            (f"{_STORAGE}.5.1", _INTEGER, _UNITS),
            (f"{_STORAGE}.6.1", _INTEGER, round(_UNITS * values["memory"])),
        ]
    if "temperature" in values:
        objects += [
            (f"{_ENTITY}.2.1", _OCTETS, "Chassis"),
            (f"{_ENTITY}.5.1", _INTEGER, 8),
            (f"{_ENTITY}.7.1", _OCTETS, "Chassis"),
            # celsius, units, no decimals, ok
            (f"{_SENSOR}.1.1", _INTEGER, 8),
            (f"{_SENSOR}.2.1", _INTEGER, 9),
            (f"{_SENSOR}.3.1", _INTEGER, 0),
            (f"{_SENSOR}.4.1", _INTEGER, round(values["temperature"])),
            (f"{_SENSOR}.5.1", _INTEGER, 1),
        ]
    objects.sort(key=lambda one: tuple(map(int, one[0].split("."))))
    return "".join(f"{oid}|{tag}|{value}\n" for oid, tag, value in objects)


def _port(values: dict[str, float], uptime: float) -> list[tuple[str, str, object]]:
    up = 1 if values.get("port_up", 1.0) >= 0.5 else 2

    def counted(name: str) -> int:
        return int(values.get(name, 0.0) * uptime)

    return [
        (f"{_IF}.1.1", _INTEGER, 1),
        (f"{_IF}.2.1", _OCTETS, "TenGigabitEthernet1/0/1"),
        (f"{_IF}.3.1", _INTEGER, 6),
        (f"{_IF}.7.1", _INTEGER, 1),
        (f"{_IF}.8.1", _INTEGER, up),
        (f"{_IF}.14.1", _COUNTER32, counted("port_errors") % 2**32),
        (f"{_IFX}.1.1", _OCTETS, _PORT),
        (f"{_IFX}.6.1", _COUNTER, counted("uplink_in") % 2**64),
        (f"{_IFX}.10.1", _COUNTER, counted("uplink_out") % 2**64),
        (f"{_IFX}.15.1", _GAUGE, 10_000),
    ]
