"""Recordings of agents (snmpsim's snmprec) as sessions in memory.

What belongs here: the reading of such files, and a session that answers from one as an agent would. What does not: what
the answers mean. A line is ``OID|TAG|VALUE`` with the ASN.1 tag as a decimal number; ``x`` after it means hexadecimal.
"""

from __future__ import annotations

import bisect
import ipaddress
from collections.abc import Mapping, Sequence
from pathlib import Path

from aiops_assets.collectors.snmp.engine import (
    COUNTER32,
    COUNTER64,
    END_OF_MIB,
    GAUGE32,
    INTEGER,
    IP_ADDRESS,
    NO_SUCH_INSTANCE,
    NULL,
    OBJECT_ID,
    OCTETS,
    OPAQUE,
    TIMETICKS,
    Oid,
    Reply,
    Value,
    VarBind,
    parse_oid,
)
from aiops_assets.config import Device

_TAGS = {
    "2": INTEGER, "4": OCTETS, "5": NULL, "6": OBJECT_ID, "64": IP_ADDRESS, "65": COUNTER32, "66": GAUGE32,
    "67": TIMETICKS, "68": OPAQUE, "70": COUNTER64,
}  # fmt: skip


def read(path: Path) -> dict[Oid, tuple[str, Value]]:
    """The objects of a recording. Lines that are none (dynamic ones, damaged ones) are left out.

    Raises:
        OSError: when the file cannot be read.
    """
    found: dict[Oid, tuple[str, Value]] = {}
    for line in path.read_bytes().decode("utf-8", "surrogateescape").splitlines():
        name, _, rest = line.partition("|")
        tag, separator, value = rest.partition("|")
        kind = _TAGS.get(tag.rstrip("x"))
        if not separator or kind is None:
            continue
        try:
            found[parse_oid(name)] = (kind, _value(kind, value, tag.endswith("x")))
        except ValueError:
            continue
    return found


def _value(kind: str, value: str, hexadecimal: bool) -> Value:
    if kind == NULL:
        return None
    if kind == OBJECT_ID:
        return parse_oid(value)
    if kind == IP_ADDRESS:
        return bytes.fromhex(value) if hexadecimal else ipaddress.IPv4Address(value).packed
    if kind in {OCTETS, OPAQUE}:
        return bytes.fromhex(value) if hexadecimal else value.encode("utf-8", "surrogateescape")
    return int(value, 16) if hexadecimal else int(value)


class Recorded:
    """A session that answers from objects in memory; see ``engine.Session``. ``requests`` counts what was asked."""

    def __init__(self, objects: Mapping[Oid, tuple[str, Value]], version: str = "2c") -> None:
        self.version = version
        self.requests = 0
        self._objects = objects
        self._names = sorted(objects)

    async def get(self, oids: Sequence[Oid]) -> Reply:
        self.requests += 1
        return Reply(varbinds=[(oid, *self._objects.get(oid, (NO_SUCH_INSTANCE, None))) for oid in oids])

    async def get_next(self, oids: Sequence[Oid]) -> Reply:
        self.requests += 1
        return Reply(varbinds=[self._next(oid) for oid in oids])

    async def get_bulk(self, non_repeaters: int, repetitions: int, oids: Sequence[Oid]) -> Reply:
        self.requests += 1
        found = [self._next(oid) for oid in oids[:non_repeaters]]
        cursors = list(oids[non_repeaters:])
        for _ in range(repetitions):
            row = [self._next(oid) for oid in cursors]
            found.extend(row)
            cursors = [varbind[0] for varbind in row]
            if all(varbind[1] == END_OF_MIB for varbind in row):
                break
        return Reply(varbinds=found)

    def _next(self, oid: Oid) -> VarBind:
        position = bisect.bisect_right(self._names, oid)
        if position == len(self._names):
            return oid, END_OF_MIB, None
        name = self._names[position]
        return name, *self._objects[name]

    def close(self) -> None:
        """Nothing is held."""


class RecordedEngine:
    """An engine whose one device is a recording."""

    def __init__(self, objects: Mapping[Oid, tuple[str, Value]]) -> None:
        self.recorded = Recorded(objects)

    def session(self, device: Device) -> Recorded:
        return self.recorded

    def close(self) -> None:
        """Nothing is held."""
