"""Entries of a server's event logs (SEL, IML and the like) as our Redfish collector delivers them.

What belongs here: reading that shape. The entries are LogEntry resources as the service writes them::

    {"host": "web-1", "log": "SEL", "path": "/redfish/v1/Systems/1/LogServices/SEL/Entries", "clock_ahead_us": 0,
     "entries": [{"Id": "1", "Created": "2026-01-02T03:04:05Z", "Severity": "Critical", "Message": "…"}]}

``clock_ahead_us`` is by how many microseconds the device's clock is ahead of ours (behind: negative); from ten minutes
on it is taken off the times of entries, whose own writing stays among the attributes. What does not belong here: events
that a service posts by itself (``redfish_event``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiops_assets.formats.batch import Parsed
from aiops_assets.formats.events import Events, identity, instant_of, name_of, prose, read_json
from aiops_assets.formats.payload import Refused
from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.landing.segment import Delivery

SEVERITY: Mapping[str, int] = {"ok": 9, "informational": 9, "warning": 13, "critical": 21}
#: clocks this near are taken for right (microseconds)
CLOCK_SLACK = 600 * MICROS_PER_SECOND
#: an entry before this (microseconds, the year 2000) is of a clock that was never set
NEVER_SET = 946_684_800_000_000
#: and one so far ahead of its acceptance of a clock that is wrong: it happened when it was accepted
AHEAD = 60 * MICROS_PER_SECOND

_EXPECTED = 'expected {"host", "log", "entries": […]} or an array of them'
#: what makes an entry's identity: the same whenever and from wherever in the log it is read
_IDENTITY = ("Id", "Created", "MessageId", "Message", "EntryCode")


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read deliveries of log entries. Never raises on their content: what cannot be read is in ``rejects``."""
    return read_json(deliveries, _document)


def _document(events: Events, index: int, delivery: Delivery, offset: int, document: object) -> None:
    events.each(
        index,
        offset,
        document if isinstance(document, list) else [document],
        lambda item: _log(events, index, delivery, offset, item),
    )


def _log(events: Events, index: int, delivery: Delivery, offset: int, item: object) -> None:
    if not isinstance(item, dict) or not isinstance(item.get("entries"), list):
        raise Refused(_EXPECTED)
    host = name_of("host", item.get("host"))
    if host is None:
        raise Refused("host: is required")
    log, path = name_of("log", item.get("log")) or "redfish", name_of("path", item.get("path")) or ""
    ahead = item.get("clock_ahead_us")
    skew = ahead if type(ahead) is int and CLOCK_SLACK <= abs(ahead) < 2**62 else 0

    def take(entry: object) -> None:
        if not isinstance(entry, dict):
            raise Refused("entries: expected LogEntry objects")
        _entry(events, index, delivery.received_at, host, log, path, skew, entry)

    events.each(index, offset, item["entries"], take, lambda entry: {**item, "entries": [entry]})


def _entry(
    events: Events, index: int, received_at: int, host: str, log: str, path: str, skew: int, entry: Mapping[str, Any]
) -> None:
    folded = {key.lower(): value for key, value in entry.items()}
    written = instant_of(folded.get("created")) or instant_of(folded.get("eventtimestamp"))
    at = None if written is None or written < NEVER_SET else written - skew
    word = prose(folded.get("severity")) or prose(folded.get("messageseverity")) or ""
    body = prose(folded.get("message")) or _composed(folded)
    events.log(
        index,
        at if at is not None and NEVER_SET <= at <= received_at + AHEAD else None,
        host,
        body,
        app=log,
        event_id=identity("redfish", host, path, *(folded.get(name.lower()) for name in _IDENTITY)),
        severity_number=SEVERITY.get(word.strip().lower()),
        attributes={"log": path, **{key: value for key, value in entry.items() if value not in (None, "", [], {})}},
    )


def _composed(entry: Mapping[str, Any]) -> str:
    """What happened, of an entry without a message."""
    names = ("sensortype", "entrycode", "messageid", "description", "name", "id")
    found = [text for text in (prose(entry.get(name)) for name in names[:2]) if text]
    return ": ".join(found) or next((text for text in (prose(entry.get(name)) for name in names[2:]) if text), "")
