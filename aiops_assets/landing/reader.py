"""Reading sealed segments in order, packed ones included, and measuring what waits.

Readers never list a writer's folder in a loop (it may hold hundreds of thousands of segments): numbers are contiguous,
so the next one is probed by name. Only where there is no file of that name are the packs asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aiops_assets.landing.packing import DamagedPack, find, packed_ranges, read_packed
from aiops_assets.landing.segment import OPEN, SEALED, DamagedSegment, Delivery, decode, is_name, segment_path


@dataclass(frozen=True, slots=True)
class Segment:
    """The content of one sealed segment; ``damage`` tells what could not be read, with the bytes from there on."""

    writer: str
    seq: int
    deliveries: list[Delivery]
    size: int
    damage: DamagedSegment | None = None
    remainder: bytes = b""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is sealed and not yet taken: number of segments, bytes, and the age in seconds of the oldest."""

    segments: int
    size: int
    oldest_modified: float | None


def writers(root: Path) -> list[str]:
    """Names of all writers that have a folder, sorted."""
    return sorted(path.name for path in root.iterdir() if path.is_dir() and is_name(path.name)) if root.exists() else []


def read_segment(folder: Path, seq: int) -> Segment:
    """Read one sealed segment whole; damage is reported, never raised, so that one bad file stops nobody."""
    path = segment_path(folder, seq)
    try:
        data = read_bytes(folder, seq)
    except DamagedPack as damage:
        return Segment(folder.name, seq, [], 0, DamagedSegment(path, 0, str(damage)))
    deliveries: list[Delivery] = []
    try:
        deliveries.extend(decode(path, data, folder.name, seq))
    except DamagedSegment as damage:
        whole = deliveries_before(path, data, folder.name, seq)
        return Segment(folder.name, seq, whole, len(data), damage, data[damage.offset :])
    return Segment(folder.name, seq, deliveries, len(data))


def read_bytes(folder: Path, seq: int) -> bytes:
    """The bytes of a sealed segment, from its own file or from a pack.

    Raises:
        FileNotFoundError: there is no such segment.
        DamagedPack: it is in a pack that does not give it back.
    """
    try:
        return segment_path(folder, seq).read_bytes()
    except FileNotFoundError:
        return read_packed(folder, seq)


def look(folder: Path, seq: int) -> tuple[int, float] | None:
    """(bytes, modification time in epoch seconds) of a sealed segment, packed or not; ``None`` when there is none."""
    try:
        stat = segment_path(folder, seq).stat()
    except FileNotFoundError:
        try:
            found = find(folder, seq)
        except DamagedPack:
            # It is there, though not to be read: whoever reads it is told.
            return 0, 0.0
        return None if found is None else (found[1].length, found[1].modified / 1e9)
    return stat.st_size, stat.st_mtime_ns / 1e9


def deliveries_before(path: Path, data: bytes, writer: str, seq: int) -> list[Delivery]:
    """The whole deliveries that stand before the first damage."""
    whole: list[Delivery] = []
    iterator = decode(path, data, writer, seq)
    while True:
        try:
            whole.append(next(iterator))
        except (StopIteration, DamagedSegment):
            return whole


def waiting_segments(folder: Path, after: int, max_bytes: int) -> list[tuple[int, int]]:
    """(seq, size) of sealed segments after a position, contiguous, up to ``max_bytes`` but at least one."""
    found: list[tuple[int, int]] = []
    total, seq = 0, after + 1
    while True:
        seen = look(folder, seq)
        if seen is None:
            return found
        size = seen[0]
        if found and total + size > max_bytes:
            return found
        found.append((seq, size))
        total, seq = total + size, seq + 1


def backlog(root: Path, taken: Mapping[str, int]) -> Backlog:
    """What waits in the landing zone beyond the positions already taken (writer → last ``seq``)."""
    segments = size = 0
    oldest: float | None = None
    for writer in writers(root):
        folder = root / writer
        waiting = waiting_segments(folder, taken.get(writer, first_seq(folder) - 1), 1 << 62)
        if waiting:
            first = look(folder, waiting[0][0])
            if first is not None:
                oldest = first[1] if oldest is None else min(oldest, first[1])
        segments += len(waiting)
        size += sum(bytes_ for _, bytes_ in waiting)
    return Backlog(segments, size, oldest)


class BacklogMeter:
    """``backlog`` for those who ask again and again: a segment is looked at once, however long the queue grows."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._waiting: dict[str, deque[tuple[int, int, float]]] = {}
        self._seen: dict[str, int] = {}

    def measure(self, taken: Mapping[str, int]) -> Backlog:
        """What waits now beyond the positions taken (writer → last ``seq``)."""
        segments = size = 0
        oldest: float | None = None
        for writer in writers(self.root):
            folder = self.root / writer
            waiting = self._waiting.setdefault(writer, deque())
            if writer not in self._seen:
                self._seen[writer] = max(taken.get(writer, 0), first_seq(folder) - 1)
            self._look_further(folder, writer, waiting)
            while waiting and waiting[0][0] <= taken.get(writer, 0):
                waiting.popleft()
            if waiting:
                oldest = waiting[0][2] if oldest is None else min(oldest, waiting[0][2])
            segments += len(waiting)
            size += sum(bytes_ for _, bytes_, _ in waiting)
        return Backlog(segments, size, oldest)

    def _look_further(self, folder: Path, writer: str, waiting: deque[tuple[int, int, float]]) -> None:
        while True:
            seq = self._seen[writer] + 1
            seen = look(folder, seq)
            if seen is None:
                return
            waiting.append((seq, *seen))
            self._seen[writer] = seq


def first_seq(folder: Path) -> int:
    """The lowest segment number still there, packed or not (1 in an empty folder).

    It lists the folder, so call it once a start.
    """
    return min([*numbers(folder, SEALED), *(first for first, _ in packed_ranges(folder))], default=1)


def newest_seq(folder: Path) -> int:
    """The highest sealed segment number, packed or not (0 in an empty folder); it lists the folder."""
    return max([*numbers(folder, SEALED), *(last for _, last in packed_ranges(folder))], default=0)


def gaps(folder: Path) -> list[int]:
    """Numbers that are missing between the lowest and the highest segment: each one is an alarm."""
    present = set(numbers(folder, SEALED)) | set(numbers(folder, OPEN))
    for first, last in packed_ranges(folder):
        present.update(range(first, last + 1))
    return sorted(set(range(min(present), max(present) + 1)) - present) if present else []


def numbers(folder: Path, suffix: str) -> list[int]:
    """Segment numbers in a folder with a given suffix, unordered; those in packs are not among them."""
    return [int(path.stem) for path in folder.glob(f"*{suffix}") if path.stem.isdigit()]
