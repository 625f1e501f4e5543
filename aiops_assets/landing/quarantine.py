"""What could not be stored, with its reason and its original bytes; nothing is ever dropped silently.

One file a (source, segment): ``quarantine/<source>/<writer>-<seq>.jsonl``, written whole and atomically, so that taking
a segment twice leaves one copy. ``retry`` hands the bytes back to the landing zone.
"""

from __future__ import annotations

import base64
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from aiops_assets.landing.segment import Delivery
from aiops_assets.landing.writer import SegmentWriter, fsync_folder

_RETRIED = ".retried"


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """One piece of input that is not in the tables. ``offset`` counts bytes in the decompressed body."""

    source: str
    reason: str
    content: bytes
    delivery_id: str
    received_at: int
    content_type: str
    format: str
    writer: str
    seq: int
    index: int
    offset: int = 0


class Quarantine:
    """The quarantine below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def record(self, entries: Sequence[QuarantineEntry]) -> None:
        """Store entries durably; entries of one (source, segment) must come together, a second call replaces them."""
        grouped: dict[tuple[str, str, int], list[QuarantineEntry]] = {}
        for entry in entries:
            grouped.setdefault((entry.source, entry.writer, entry.seq), []).append(entry)
        for (source, writer, seq), members in grouped.items():
            folder = self.root / source
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{writer}-{seq:012d}.jsonl"
            if path.with_suffix(_RETRIED).exists():
                continue
            temporary = folder / f".{path.name}.{os.getpid()}"
            with temporary.open("wb") as file:
                for member in members:
                    file.write(_encode(member))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            fsync_folder(folder)

    def entries(self, source: str | None = None, *, retried: bool = False) -> Iterator[QuarantineEntry]:
        """What is in quarantine, by source and position; with ``retried`` also what was sent through again since."""
        for path in self._files(source, retried):
            with path.open("rb") as file:
                for line in file:
                    yield _decode(line)

    def counts(self) -> dict[str, dict[str, int]]:
        """source → reason → number of entries."""
        found: dict[str, Counter[str]] = {}
        for entry in self.entries():
            found.setdefault(entry.source, Counter())[entry.reason] += 1
        return {source: dict(reasons) for source, reasons in found.items()}

    def retry(self, writer: SegmentWriter, source: str | None = None) -> int:
        """Put the bytes back into the landing zone and retire the files; the number of entries handed back."""
        total = 0
        for path in list(self._files(source)):
            with path.open("rb") as file:
                entries = [_decode(line) for line in file]
            writer.append_deliveries([_delivery(entry, number) for number, entry in enumerate(entries)])
            path.rename(path.with_suffix(_RETRIED))
            fsync_folder(path.parent)
            total += len(entries)
        writer.seal()
        return total

    def _files(self, source: str | None, retried: bool = False) -> Iterator[Path]:
        if not self.root.exists():
            return
        folders = [self.root / source] if source else sorted(path for path in self.root.iterdir() if path.is_dir())
        for folder in folders:
            if folder.is_dir():
                yield from sorted(folder.glob("*.jsonl"))
                if retried:
                    yield from sorted(folder.glob(f"*{_RETRIED}"))


def _delivery(entry: QuarantineEntry, number: int) -> Delivery:
    return Delivery(
        delivery_id=f"{entry.delivery_id}-r{entry.offset}-{number}",
        received_at=entry.received_at,
        source=entry.source,
        content_type=entry.content_type,
        body=entry.content,
        headers={"format": entry.format, "retry-of": entry.delivery_id},
    )


def _encode(entry: QuarantineEntry) -> bytes:
    fields = {name: getattr(entry, name) for name in QuarantineEntry.__slots__ if name != "content"}
    return orjson.dumps({**fields, "content": base64.b64encode(entry.content).decode()}) + b"\n"


def _decode(line: bytes) -> QuarantineEntry:
    fields = orjson.loads(line)
    return QuarantineEntry(**{**fields, "content": base64.b64decode(fields["content"])})
