"""The journal export format of systemd, as systemd-journal-upload and ``journalctl -o export`` write it.

What belongs here: reading entries (text and binary fields, a blank line after each) as log events. ``__CURSOR`` is the
event's identifier, so an entry that is uploaded again is told apart. All other fields stay in ``attributes`` under
their own names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from aiops_assets.formats.batch import Parsed
from aiops_assets.formats.framing import text_of
from aiops_assets.formats.log_record import LogRows
from aiops_assets.formats.payload import Rejects, UnreadableBody, name_problem, unpacked
from aiops_assets.formats.severity import SYSLOG
from aiops_assets.formats.syslog import FACILITIES
from aiops_assets.landing.segment import Delivery

#: of no use beside the columns and the identifier
_DROPPED = frozenset({"__CURSOR", "__REALTIME_TIMESTAMP", "__MONOTONIC_TIMESTAMP", "__SEQNUM", "__SEQNUM_ID"})
_APPS = ("SYSLOG_IDENTIFIER", "_COMM", "_SYSTEMD_UNIT")

Entry = dict[str, list[bytes]]


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read journal exports. Never raises on their content: what cannot be read is in ``rejects``."""
    rows, rejects = LogRows(), Rejects()
    productive: set[int] = set()
    for index, delivery in enumerate(deliveries):
        try:
            body = unpacked(delivery)
        except UnreadableBody as error:
            rejects.add(index, 0, str(error), delivery.body)
            continue
        for start, end, entry, found in entries(body):
            empty = "MESSAGE" not in entry and not any(_one(entry, name) for name in _APPS)
            problem = found or ("an entry without MESSAGE" if empty else None)
            if problem is not None:
                rejects.add(index, start, problem, body[start:end])
                if rejects.full(index):
                    break
                continue
            _row(rows, index, entry, delivery.headers.get("host") or None)
            productive.add(index)
    return Parsed(logs=rows.frame(), entities=rows.entities(), rejects=rejects.finish(deliveries, productive))


def entries(body: bytes) -> Iterator[tuple[int, int, Entry, str | None]]:
    """(start, end, fields, what is wrong or ``None``) of every entry; ``end`` is where the next one begins.

    After something unreadable, reading goes on behind the next blank line.
    """
    position, size = 0, len(body)
    while position < size:
        if body[position] == 10:
            position += 1
            continue
        start, entry, problem = position, Entry(), None
        while position < size and body[position] != 10:
            line_end = body.find(b"\n", position)
            line_end = size if line_end < 0 else line_end
            line = body[position:line_end]
            name, separator, value = line.partition(b"=")
            if separator:
                after = line_end + 1
            else:
                data = line_end + 1 + 8
                length = int.from_bytes(body[line_end + 1 : data], "little")
                after = data + length + 1
                value = body[data : data + length]
                if data > size or after - 1 > size or (after <= size and body[after - 1] != 10):
                    problem = f"a binary field {text_of(name)[:64]!r} that is cut off or damaged"
            if problem is None and not (0 < len(name) <= 256 and name.replace(b"_", b"").isalnum()):
                problem = f"no field name: {text_of(name)[:64]!r}"
            if problem is not None:
                blank = body.find(b"\n\n", position)
                position = size if blank < 0 else blank + 1
                break
            entry.setdefault(name.decode("ascii", "replace"), []).append(value)
            position = after
        position = min(position, size)
        yield start, min(position + 1, size), entry, problem
        position += 1


def _row(rows: LogRows, index: int, entry: Entry, default_host: str | None) -> None:
    host = _one(entry, "_HOSTNAME")
    host = host if host and not name_problem("host", host) else default_host
    app = next((found for name in _APPS if (found := _one(entry, name)) and not name_problem("app", found)), None)
    priority = _integer(entry, "PRIORITY")
    attributes: dict[str, Any] = {}
    for name, values in entry.items():
        if name not in _DROPPED and name not in {"MESSAGE", "_HOSTNAME", "PRIORITY", "_PID", "SYSLOG_FACILITY"}:
            texts = [text_of(value) for value in values]
            attributes[name] = texts[0] if len(texts) == 1 else texts
    facility = _integer(entry, "SYSLOG_FACILITY")
    if facility is not None:
        attributes["syslog.facility"] = FACILITIES[facility] if facility < len(FACILITIES) else str(facility)
    pid = _integer(entry, "_PID")
    cursor = _one(entry, "__CURSOR")
    rows.add(
        index,
        _integer(entry, "__REALTIME_TIMESTAMP"),
        "\n".join(text_of(value) for value in entry.get("MESSAGE", [])),
        host=host,
        app=app,
        pid=_integer(entry, "SYSLOG_PID") if pid is None else pid,
        severity=SYSLOG[priority] if priority is not None and priority < 8 else None,
        event_id=cursor[:512] if cursor else None,
        attributes=attributes,
    )


def _one(entry: Entry, name: str) -> str | None:
    values = entry.get(name)
    return text_of(values[0]) if values else None


def _integer(entry: Entry, name: str) -> int | None:
    values = entry.get(name)
    if not values or len(values[0]) > 18 or not values[0].isdigit():
        return None
    return int(values[0])
