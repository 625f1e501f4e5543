"""Packs: many old landing segments in one compressed file, from which every segment comes back byte for byte.

What belongs here: the pack format, version 1, writing packs and reading segments out of them. What does not: which
segments may be packed (``live.upkeep``) and when packs go (``landing.retention``). A pack of the writer whose folder
this is lies in ``packs/<first>-<last>.pack`` and holds all segments of that range. Layout, little endian::

    file    := magic block* index footer
    magic   := b"AIOPPAK1"
    block   := one zstd frame over the bytes of consecutive segments
    index   := one zstd frame over entry*
    entry   := seq:u64 block_offset:u64 block_size:u32 block_length:u32 start:u32 length:u32 modified:u64 checksum:u64
    footer  := index_offset:u64 index_size:u32 index_length:u32 checksum:u64 b"AIOPPAKF"

``block_offset`` and ``block_size`` say where a block lies in the file, ``block_length`` how long it is unpacked,
``start`` and ``length`` where the segment lies in it. ``modified`` is the segment's modification time in nanoseconds
since the epoch, ``checksum`` XXH3-64 (seed 0) of the segment's bytes; the footer's is of the packed index.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import xxhash

from aiops_assets.landing.segment import SEALED, segment_path

MAGIC, END = b"AIOPPAK1", b"AIOPPAKF"
PACKED, FOLDER = ".pack", "packs"
_ENTRY = struct.Struct("<QQIIIIQQ")
_FOOTER = struct.Struct("<QIIQ8s")
_LEVEL = 9
#: bytes of segments compressed together: small segments share a block, so that their likeness pays
BLOCK_BYTES = 4 << 20
#: a pack is closed at whichever comes first
PACK_BYTES = 1 << 30
PACK_SEGMENTS = 20_000


class DamagedPack(Exception):
    """A pack, or a segment in it, cannot be read back; ``path`` is the pack."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one segment lies in a pack. ``modified`` is in nanoseconds since the epoch."""

    seq: int
    block_offset: int
    block_size: int
    block_length: int
    start: int
    length: int
    modified: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Packed:
    """What one call of ``pack`` did (or would do): segments, their bytes, and the bytes of the packs they went into."""

    writer: str
    segments: int
    size: int
    packs: int
    packed_size: int


def pack_path(folder: Path, first: int, last: int) -> Path:
    """Where the pack of a range of segments of a writer lies."""
    return folder / FOLDER / f"{first:012d}-{last:012d}{PACKED}"


def packs(folder: Path) -> list[tuple[int, int, Path]]:
    """(first, last, path) of the packs in a writer's folder, ascending."""
    found = []
    for path in (folder / FOLDER).glob(f"*{PACKED}"):
        first, _, last = path.stem.partition("-")
        if first.isdigit() and last.isdigit():
            found.append((int(first), int(last), path))
    return sorted(found)


def find(folder: Path, seq: int) -> tuple[Path, Entry] | None:
    """The pack that holds a segment, and where; one ``stat`` where there are no packs or none is new.

    Raises:
        DamagedPack: the pack that should hold it has no readable index.
    """
    for first, last, path in _catalogue(folder):
        if first <= seq <= last:
            try:
                entry = _index(path).get(seq)
            except FileNotFoundError:
                # Released a moment ago.
                return None
            return None if entry is None else (path, entry)
    return None


def packed_ranges(folder: Path) -> list[tuple[int, int]]:
    """(first, last) of every pack; all numbers between are in it."""
    return [(first, last) for first, last, _ in _catalogue(folder)]


def read_packed(folder: Path, seq: int) -> bytes:
    """The bytes of a packed segment, as they were in its own file.

    Raises:
        FileNotFoundError: no pack holds it.
        DamagedPack: it cannot be read back.
    """
    found = find(folder, seq)
    if found is None:
        raise FileNotFoundError(f"{segment_path(folder, seq)}: neither a segment nor in a pack")
    path, entry = found
    return _extract(path, entry, _block(path, entry.block_offset, entry.block_size, entry.block_length))


def read_index(path: Path) -> dict[int, Entry]:
    """The entries of a pack by segment number.

    Raises:
        DamagedPack: it is not a whole version 1 pack.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < len(MAGIC) + _FOOTER.size or file.read(len(MAGIC)) != MAGIC:
            raise DamagedPack(path, "not a version 1 pack")
        file.seek(size - _FOOTER.size)
        offset, packed, length, checksum, end = _FOOTER.unpack(file.read(_FOOTER.size))
        if end != END or offset + packed + _FOOTER.size != size:
            raise DamagedPack(path, "torn: no footer at its end")
        file.seek(offset)
        data = file.read(packed)
    if xxhash.xxh3_64_intdigest(data) != checksum:
        raise DamagedPack(path, "checksum of the index differs")
    unpacked = _decompress(path, data, length)
    return {entry[0]: Entry(*entry) for entry in _ENTRY.iter_unpack(unpacked)}


def read_pack(path: Path) -> Iterator[tuple[int, bytes]]:
    """(seq, bytes) of every segment of a pack in order, each block unpacked once.

    Raises:
        DamagedPack: at the first segment that cannot be read back.
    """
    at, block = -1, b""
    for entry in read_index(path).values():
        if entry.block_offset != at:
            at, block = entry.block_offset, _read_block(path, entry.block_offset, entry.block_size, entry.block_length)
        yield entry.seq, _extract(path, entry, block)


def pack(
    folder: Path,
    upto: int,
    modified_before: float,
    *,
    dry_run: bool = False,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Packed:
    """Pack the sealed segments of a writer up to a number, if they were modified before an instant (epoch seconds).

    The newest segment stays as it is: its name is the writer's counter. A pack is on disk, and has been read back and
    compared, before a segment goes; after a crash the same call finishes what was begun. ``tell`` hears (segments
    done, all).
    """
    if not dry_run:
        _finish(folder)
    present = sorted(int(path.stem) for path in folder.glob(f"*{SEALED}") if path.stem.isdigit())
    chosen, size = [], 0
    for seq in present[:-1]:
        stat = segment_path(folder, seq).stat()
        if seq > upto or stat.st_mtime >= modified_before:
            break
        chosen.append(seq)
        size += stat.st_size
    if dry_run or not chosen:
        return Packed(folder.name, len(chosen), size, 0, 0)
    written = done = count = 0
    for run in _runs(chosen):
        start = 0
        while start < len(run):
            taken = _write(folder, run[start:])
            path = pack_path(folder, run[start], run[start + taken - 1])
            _release(folder, path)
            written += path.stat().st_size
            start += taken
            done += taken
            count += 1
            tell(done, len(chosen))
    return Packed(folder.name, len(chosen), size, count, written)


def unpack(folder: Path, path: Path) -> None:
    """Put the segments of a pack back as files of their own, durably, and remove the pack; for those who change them.

    Raises:
        DamagedPack: it cannot be read back; the pack stays.
    """
    modified = {seq: entry.modified for seq, entry in read_index(path).items()}
    for seq, data in read_pack(path):
        target = segment_path(folder, seq)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.utime(temporary, ns=(modified[seq], modified[seq]))
        temporary.replace(target)
    _sync(folder)
    path.unlink()
    _sync(folder / FOLDER)


def _runs(numbers: Sequence[int]) -> list[list[int]]:
    """Ascending numbers cut where one is missing, so that a pack holds every number of its range."""
    cuts = [0, *(index for index, (a, b) in enumerate(pairwise(numbers), 1) if b != a + 1), len(numbers)]
    return [list(numbers[start:end]) for start, end in pairwise(cuts)]


def _write(folder: Path, numbers: Sequence[int]) -> int:
    """Write a pack of the first of these segments; how many it holds."""
    target = folder / FOLDER
    target.mkdir(exist_ok=True)
    temporary = target / f".{numbers[0]:012d}.{os.getpid()}"
    entries: list[tuple[int, ...]] = []
    raw = 0
    newest = 0
    try:
        with temporary.open("wb") as file:
            file.write(MAGIC)
            block: list[bytes] = []
            members: list[tuple[int, int, int, int, int]] = []
            for position, seq in enumerate(numbers):
                path = segment_path(folder, seq)
                data = path.read_bytes()
                modified = path.stat().st_mtime_ns
                newest = max(newest, modified)
                start = sum(map(len, block))
                block.append(data)
                members.append((seq, start, len(data), modified, xxhash.xxh3_64_intdigest(data)))
                raw += len(data)
                last = position + 1 == len(numbers) or raw >= PACK_BYTES or position + 1 >= PACK_SEGMENTS
                if last or start + len(data) >= BLOCK_BYTES:
                    offset, content = file.tell(), b"".join(block)
                    compressed = _compress(content)
                    file.write(compressed)
                    entries += [
                        (number, offset, len(compressed), len(content), begin, length, when, checksum)
                        for number, begin, length, when, checksum in members
                    ]
                    block, members = [], []
                if last:
                    break
            index = b"".join(_ENTRY.pack(*entry) for entry in entries)
            offset, packed = file.tell(), _compress(index)
            file.write(packed)
            file.write(_FOOTER.pack(offset, len(packed), len(index), xxhash.xxh3_64_intdigest(packed), END))
            file.flush()
            os.fsync(file.fileno())
        os.utime(temporary, ns=(newest, newest))
        temporary.rename(pack_path(folder, numbers[0], entries[-1][0]))
    finally:
        temporary.unlink(missing_ok=True)
    _sync(target)
    _sync(folder)
    return len(entries)


def _release(folder: Path, path: Path) -> None:
    """Remove the segments that a pack gives back unchanged.

    Raises:
        DamagedPack: it does not; nothing was removed of what differs.
    """
    for seq, data in read_pack(path):
        original = segment_path(folder, seq)
        try:
            if original.read_bytes() != data:
                raise DamagedPack(path, f"segment {seq} does not come back as it was; the pack can be deleted")
        except FileNotFoundError:
            continue
        original.unlink()
    _sync(folder)


def _finish(folder: Path) -> None:
    """After a crash: unfinished packs go, and so do segments that a finished one holds."""
    if not (folder / FOLDER).is_dir():
        return
    for path in (folder / FOLDER).glob(".*"):
        path.unlink()
    for first, last, path in packs(folder):
        if segment_path(folder, first).exists() or segment_path(folder, last).exists():
            _release(folder, path)


def _sync(folder: Path) -> None:
    from aiops_assets.landing.writer import fsync_folder

    fsync_folder(folder)


def _catalogue(folder: Path) -> tuple[tuple[int, int, Path], ...]:
    try:
        stamp = (folder / FOLDER).stat().st_mtime_ns
    except FileNotFoundError:
        return ()
    return _listed(folder, stamp)


@lru_cache(maxsize=64)
def _listed(folder: Path, stamp: int) -> tuple[tuple[int, int, Path], ...]:
    return tuple(packs(folder))


def _index(path: Path) -> Mapping[int, Entry]:
    stat = path.stat()
    return _read_index(path, stat.st_ino, stat.st_size)


@lru_cache(maxsize=8)
def _read_index(path: Path, inode: int, size: int) -> Mapping[int, Entry]:
    return read_index(path)


@lru_cache(maxsize=2)
def _block(path: Path, offset: int, size: int, length: int) -> bytes:
    return _read_block(path, offset, size, length)


def _read_block(path: Path, offset: int, size: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return _decompress(path, file.read(size), length)


def _extract(path: Path, entry: Entry, block: bytes) -> bytes:
    data = block[entry.start : entry.start + entry.length]
    if len(data) != entry.length or xxhash.xxh3_64_intdigest(data) != entry.checksum:
        raise DamagedPack(path, f"checksum of segment {entry.seq} differs")
    return data


def _compress(data: bytes) -> bytes:
    import pyarrow as pa

    return bytes(pa.Codec("zstd", compression_level=_LEVEL).compress(data, asbytes=True))


def _decompress(path: Path, data: bytes, length: int) -> bytes:
    import pyarrow as pa

    try:
        return bytes(pa.Codec("zstd").decompress(data, length, asbytes=True))
    except (OSError, pa.ArrowException) as error:
        raise DamagedPack(path, f"cannot be unpacked: {error}") from error
