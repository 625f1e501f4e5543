"""New entries of event logs: what has been delivered, what has not, and how to read no more than needed.

What belongs here: the high-water mark of one log, and the reading of a log's pages until nothing new is left. What does
not: requests (``client``), and what an entry means (``formats.redfish_log``).

Services list their entries oldest first or newest first, with identifiers that begin anew when a log is cleared and
with clocks that are not set. So an entry is told by its content, and a mark holds, beside the newest instant, the
entries around it. When the newest entry that was known is gone, the log was cleared: then every entry that is not
among those remembered counts as new.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson
import xxhash

from aiops_assets.collectors.redfish.fields import PLAUSIBLE, instant, is_expanded, link, members, next_link, text
from aiops_assets.collectors.redfish.fields import field as get
from aiops_assets.hours import MICROS_PER_SECOND

#: on first contact entries older than this are not delivered (microseconds)
FIRST = 7 * 86_400 * MICROS_PER_SECOND
#: so long before the newest known entry another may still appear with an earlier time (microseconds)
OVERLAP = 3_600 * MICROS_PER_SECOND
#: an entry farther ahead of the device's own clock has no time (microseconds)
AHEAD = 86_400 * MICROS_PER_SECOND
#: entries a mark remembers
MOST_KNOWN = 1_000
#: pages of a log read in one poll
MOST_PAGES = 40
#: entries that are only links are asked for one by one, so many in one poll
MOST_LINKS = 30
#: entries of one delivery
BATCH = 500

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Mark:
    """What is known of a log. Instants are microseconds since the epoch, in the clock of the device.

    ``at`` is that of the ``newest`` entry; entries up to ``floor`` are known, of those after it the ``known`` ones.
    ``last_id`` is the greatest number among the identifiers, of the entry ``last``.
    """

    at: int = 0
    floor: int = 0
    newest: str = ""
    last_id: int = -1
    last: str = ""
    known: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self) | {"known": list(self.known)}


def mark_of(plain: object) -> Mark | None:
    """A mark from JSON, ``None`` when it is none."""
    match plain:
        case {
            "at": int() as at,
            "floor": int() as floor,
            "newest": str() as newest,
            "last_id": int() as last_id,
            "last": str() as last,
            "known": list() as known,
        }:
            keys = tuple(key for key in known if isinstance(key, str))
            return Mark(at, floor, newest, last_id, last, keys[-MOST_KNOWN:])
    return None


def created_at(entry: Mapping[str, Any], now: int) -> int | None:
    """When an entry was made (microseconds), ``None`` when the clock was not set or far ahead of ``now``."""
    found = instant(get(entry, "Created"))
    if found is None:
        found = instant(get(entry, "EventTimestamp"))
    return found if found is not None and PLAUSIBLE <= found <= now + AHEAD else None


def key_of(entry: Mapping[str, Any]) -> str:
    """What tells an entry from every other of its log, the same whenever it is read."""
    parts = [text(get(entry, name)) or "" for name in ("Id", "Created", "MessageId", "Message", "EntryCode")]
    if not any(parts):
        parts = [link(entry) or "", orjson.dumps(entry, option=orjson.OPT_SORT_KEYS).decode()]
    return xxhash.xxh3_64_hexdigest("\x1f".join(parts).encode())


def _id_of(entry: Mapping[str, Any]) -> int:
    written = text(get(entry, "Id")) or ""
    return int(written) if written.isascii() and written.isdigit() and len(written) < 18 else -1


def new_entries(mark: Mark | None, entries: Sequence[Entry], now: int, *, whole: bool) -> tuple[list[Entry], Mark]:
    """The entries that were never delivered, in the order of time, and the mark once they are.

    ``whole`` says that ``entries`` is all of the log; only then can a cleared log be noticed. ``now`` (microseconds, in
    the clock of the device) bounds what is delivered on first contact, when ``mark`` is ``None``.
    """
    dated = {key_of(entry): (created_at(entry, now), entry) for entry in entries}
    before = mark or Mark()
    known = {before.newest, *before.known}
    cleared = bool(whole and before.newest and before.newest not in dated)
    # Where the identifiers did not change, a greater one is new even if the clock went back.
    counted = bool(before.last and before.last in dated)
    undated = sum(at is None for at, _ in dated.values()) <= MOST_KNOWN // 2
    fresh: list[tuple[int, Entry]] = []
    for key, (at, entry) in dated.items():
        if key in known:
            continue
        if mark is None:
            wanted = at is not None and at >= now - FIRST
        elif at is None:
            wanted = undated
        else:
            wanted = cleared or at > before.floor or (counted and _id_of(entry) > before.last_id)
        if wanted:
            fresh.append((at or 0, entry))
    fresh.sort(key=lambda item: item[0])
    moved = _moved(before, dated, now, cleared=cleared, whole=whole)
    if mark is None and dated:
        moved = replace(moved, floor=max(moved.floor, now - FIRST))
    return [entry for _, entry in fresh], moved


def _moved(
    before: Mark, dated: Mapping[str, tuple[int | None, Entry]], now: int, *, cleared: bool, whole: bool
) -> Mark:
    if not dated:
        # An empty log that was not: what comes next is new, whatever its clock says.
        return Mark() if whole else before
    at, newest = max(((at, key) for key, (at, _) in dated.items() if at is not None), default=(0, ""))
    if not cleared and before.at > at:
        at, newest = before.at, before.newest
    floor = max(0 if cleared else before.floor, min(at, now) - OVERLAP)
    # Entries without a time stay known longest: nothing else tells that they were delivered.
    around = [(now + AHEAD if when is None else when, key) for key, (when, _) in dated.items()]
    around = sorted((when, key) for when, key in around if when > floor and key != newest)
    dropped, around = around[:-MOST_KNOWN], around[-MOST_KNOWN:]
    # What is no longer remembered one by one is known by its time.
    floor = max([floor, *(when for when, _ in dropped if when < now + AHEAD)])
    kept = [] if whole else [key for key in (*before.known, before.newest) if key and key not in dated]
    known = [*kept, *(key for _, key in around)][-MOST_KNOWN:]
    # Where nothing has a time, any entry can tell whether the log was cleared.
    newest = newest or list(dated)[-1]
    last_id, last = max((_id_of(entry), key) for key, (_, entry) in dated.items())
    if not cleared and before.last_id > last_id and not whole:
        last_id, last = before.last_id, before.last
    return Mark(at, floor, newest, last_id, last if last_id >= 0 else "", tuple(known))


@dataclass(frozen=True, slots=True)
class Pages:
    """The pages of a log that were read. ``tail``: the last page, from which the next reading may go on."""

    entries: list[Entry]
    whole: bool
    tail: str | None
    #: pages are left that were not read, and entries in them may be new
    more: bool = False


async def read_pages(
    first: Mapping[str, Any],
    place: str,
    mark: Mark | None,
    page: Callable[[str], Awaitable[Mapping[str, Any]]],
    single: Callable[[str], Awaitable[Entry | None]],
    now: int,
    *,
    from_start: bool = True,
    enough: Callable[[], bool] = lambda: False,
) -> Pages:
    """The entries of a log from its page ``first`` (read at ``place``) on.

    A log that lists its newest entries first is read until a page ends with entries that are known by their time.
    ``page`` fetches a page and ``single`` an entry that is only linked to; what they raise is passed on. Where
    ``enough`` says so no further page is read: another reading goes on at ``tail``.
    """
    since = now - FIRST if mark is None else mark.floor
    known = {*mark.known, mark.newest} if mark is not None else set()
    entries: list[Entry] = []
    visited = {place}
    body, here = first, place
    links = 0
    for number in range(MOST_PAGES):
        found = members(body)
        fresh = 0
        bare = [target for target in (link(member) for member in found if not is_expanded(member)) if target]
        links += len(bare)
        got = [await single(target) for target in sorted(bare, key=_place_of)[-MOST_LINKS:]]
        for entry in (*(member for member in found if is_expanded(member)), *got):
            if entry is not None:
                entries.append(entry)
                fresh += key_of(entry) not in known
        following = next_link(body)
        if following is None or following in visited or not found:
            return Pages(entries, from_start and links <= MOST_LINKS, here)
        downwards = _newest_first(entries, now)
        if downwards and (fresh == 0 or (created_at(entries[-1], now) or now) < since):
            return Pages(entries, whole=False, tail=None)
        if number == MOST_PAGES - 1 or enough():
            break
        visited.add(following)
        body, here = await page(following), following
    return Pages(entries, whole=False, tail=None if _newest_first(entries, now) else here, more=True)


def _place_of(target: str) -> int:
    """The number at the end of an entry's address: the newest entries have the greatest."""
    last = target.rstrip("/").rpartition("/")[2]
    return int(last) if last.isascii() and last.isdigit() and len(last) < 18 else -1


def fingerprint(page: Mapping[str, Any]) -> str:
    """What changes when a page of a log does."""
    return xxhash.xxh3_64_hexdigest(orjson.dumps([members(page), next_link(page)]))


def _newest_first(entries: Sequence[Entry], now: int) -> bool:
    times = [at for at in (created_at(entry, now) for entry in entries) if at is not None]
    return len(times) > 1 and times[0] > times[-1]


def bundle(host: str, log: str, path: str, entries: Sequence[Entry], skew: int) -> bytes:
    """The document that ``formats.redfish_log`` reads; the same entries always give the same bytes."""
    return orjson.dumps({"host": host, "log": log, "path": path, "clock_ahead_us": skew, "entries": list(entries)})
