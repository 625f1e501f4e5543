"""What the rest of the collector needs from an SNMP library, and nothing more.

What belongs here: plain types for requests and replies, and the two protocols an engine fulfils. What does not: any
import of such a library, and walking (``walk``), which is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from aiops_assets.config import Device

Oid = tuple[int, ...]
Value = int | bytes | str | Oid | None

INTEGER: Final = "integer"
COUNTER32: Final = "counter32"
GAUGE32: Final = "gauge32"
TIMETICKS: Final = "timeticks"
COUNTER64: Final = "counter64"
OCTETS: Final = "octets"
OBJECT_ID: Final = "oid"
IP_ADDRESS: Final = "ip"
OPAQUE: Final = "opaque"
NULL: Final = "null"
NO_SUCH_OBJECT: Final = "no_such_object"
NO_SUCH_INSTANCE: Final = "no_such_instance"
END_OF_MIB: Final = "end_of_mib"

NUMBERS: Final = frozenset({INTEGER, COUNTER32, GAUGE32, TIMETICKS, COUNTER64})
ABSENT: Final = frozenset({NO_SUCH_OBJECT, NO_SUCH_INSTANCE, END_OF_MIB})

#: one object: name, type (one of the constants above), value. Octets are bytes, object identifiers tuples.
VarBind = tuple[Oid, str, Value]

#: error-status of RFC 3416, section 3
STATUS: Final = (
    "noError", "tooBig", "noSuchName", "badValue", "readOnly", "genErr", "noAccess", "wrongType", "wrongLength",
    "wrongEncoding", "wrongValue", "noCreation", "inconsistentValue", "resourceUnavailable", "commitFailed",
    "undoFailed", "authorizationError", "notWritable", "inconsistentName",
)  # fmt: skip
NO_ERROR, TOO_BIG, NO_SUCH_NAME = 0, 1, 2


def status_name(status: int) -> str:
    """The name of an error-status."""
    return STATUS[status] if 0 <= status < len(STATUS) else f"error-status {status}"


@dataclass(frozen=True, slots=True)
class Reply:
    """An agent's answer. ``index`` (from 1) is the object of the request that ``status`` is about, 0 when unknown."""

    status: int = NO_ERROR
    index: int = 0
    varbinds: list[VarBind] = field(default_factory=list)


class SnmpError(Exception):
    """A request came to nothing; the text says why, for people."""


class NoReply(SnmpError):
    """Nothing came back, however often it was sent."""


class Refused(SnmpError):
    """The agent answered that it does not accept the credentials, or its answer failed authentication."""


class Undecodable(SnmpError):
    """An answer came that cannot be decoded."""


class Session(Protocol):
    """Requests to one device; safe to use from one task at a time."""

    version: str

    async def get(self, oids: Sequence[Oid]) -> Reply:
        """The values of exactly these objects. Raises: SnmpError."""
        ...

    async def get_next(self, oids: Sequence[Oid]) -> Reply:
        """For each name the object that follows it. Raises: SnmpError."""
        ...

    async def get_bulk(self, non_repeaters: int, repetitions: int, oids: Sequence[Oid]) -> Reply:
        """The successor of the first ``non_repeaters`` names once, of the others ``repetitions`` times, row by row.

        Not in version 1. Raises: SnmpError.
        """
        ...

    def close(self) -> None:
        """Give up what is kept for this device."""
        ...


class Engine(Protocol):
    """A source of sessions; one for the whole process."""

    def session(self, device: Device) -> Session:
        """A session for a device; nothing is sent yet."""
        ...

    def close(self) -> None:
        """Close every socket."""
        ...


def parse_oid(text: str) -> Oid:
    """The tuple of a dotted object identifier.

    Raises:
        ValueError: when it is none.
    """
    parts = text.strip().strip(".").split(".")
    if len(parts) < 2 or not all(part.isdecimal() for part in parts):
        raise ValueError(f"{text!r} is not an object identifier such as 1.3.6.1.2.1.1.3")
    return tuple(int(part) for part in parts)


def oid_text(oid: Sequence[int]) -> str:
    """The dotted form of an object identifier."""
    return ".".join(map(str, oid))
