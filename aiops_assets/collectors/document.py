"""What a poll produces: one JSON document in the format ``collected``, whatever the kind of device.

What belongs here: the shape of points, changes and documents, and the interface of a poller. What does not: how values
are fetched (``host``, ``snmp``) and when (``scheduler``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import orjson

Kind = Literal["gauge", "rate", "counter", "ratio"]
Point = dict[str, Any]

UP = "aiops.device.up"
POLL_DURATION = "aiops.device.poll.duration"


@dataclass(frozen=True, slots=True)
class Fetched:
    """Bytes that were fetched as their sender writes them, to be read by a format of ``formats``.

    ``delivery_id`` is the same for the same content, so that what is fetched again is told apart; "" for a new one.
    """

    body: bytes
    format: str
    content_type: str = "application/json"
    delivery_id: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Poll:
    """The outcome of one poll. ``error`` says in one line what is missing although ``up`` may be true.

    ``fetched`` goes to the landing zone as it is; ``delivered`` is called on the event loop once all of it is durable,
    which is when a high-water mark may move. It is never called for what could not be stored: fetch that again.
    """

    up: bool = False
    points: list[Point] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)
    entity: dict[str, Any] | None = None
    error: str | None = None
    #: the deadline cut this poll
    cut: bool = False
    fetched: list[Fetched] = field(default_factory=list)
    delivered: Callable[[], None] | None = None


class Poller(Protocol):
    """Fetches one device. ``poll`` never raises for what a device does wrong; it says so in ``Poll.error``."""

    name: str
    kind: str
    source: str
    interval: float
    deadline: float

    async def poll(self) -> Poll:
        """Fetch once, within the deadline; points carry no instant of their own unless it differs from the poll's."""
        ...

    def state(self) -> dict[str, Any]:
        """What must survive a restart of the collector, as plain JSON."""
        ...

    def close(self) -> Awaitable[None] | None:
        """Release what the poller holds; what takes a word with the device is to be awaited."""
        ...


def point(metric: str, value: float, unit: str, kind: Kind = "gauge", labels: Mapping[str, str] | None = None) -> Point:
    """One measurement; ``unit`` is a UCUM code and ``value`` is already in it."""
    return {"metric": metric, "value": value, "unit": unit, "kind": kind, "labels": dict(labels or {})}


def reboot(ts: int, title: str, details: Mapping[str, Any]) -> dict[str, Any]:
    """A change of kind reboot at ``ts`` (microseconds since the epoch, UTC). Host, time and title identify it."""
    return {"ts": ts, "kind": "reboot", "title": title, "details": dict(details)}


def document(host: str, kind: str, ts: int, outcome: Poll, duration: float) -> dict[str, Any]:
    """The document of one poll that began at ``ts`` (microseconds since the epoch, UTC) and took ``duration`` seconds.

    It always says whether the device answered and how long the poll took; of several points of one series the first
    stays.
    """
    labels = {"kind": kind}
    points = [
        point(UP, 1.0 if outcome.up else 0.0, "1", "gauge", labels),
        point(POLL_DURATION, round(duration, 6), "s", "gauge", labels),
        *distinct(outcome.points),
    ]
    made: dict[str, Any] = {"host": host, "ts": ts, "points": points}
    if outcome.entity is not None:
        made["entity"] = outcome.entity
    if outcome.changes:
        made["changes"] = outcome.changes
    return made


def distinct(points: Iterable[Point]) -> list[Point]:
    """The points without those whose metric and labels have appeared before."""
    seen: set[tuple[Any, ...]] = set()
    kept = []
    for entry in points:
        key = (entry["metric"], *sorted(entry["labels"].items()))
        if key not in seen:
            seen.add(key)
            kept.append(entry)
    return kept


def encode(made: Mapping[str, Any]) -> bytes:
    """A document as JSON bytes."""
    return orjson.dumps(made)
