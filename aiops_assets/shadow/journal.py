"""What a backfill has done so far, so that it goes on after a kill and never fetches twice what was delivered.

What belongs here: the folder ``shadow/<id>/`` of the home. What does not: the points, which are in the landing zone and
the lake. ``done.jsonl`` has a line a chunk whose deliveries are durable, appended and synced after them; what a crash
leaves unsaid in between is read back from the landing zone (``backfill.recovered``).

    plan.json             the question: address, selectors, step, source
    leg-<n>.json          a stretch of time with its queries, never changed
    series-<n>.json.gz    the series it had
    metadata.json         types and units of metrics
    alerts/<leg>.<w>.json answers about ALERTS of a window, one JSON document a line
    done.jsonl            {"chunk", "writer", "seq", "samples", "refused", "bytes"} and {"writer", "from"}
"""

from __future__ import annotations

import fcntl
import gzip
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from aiops_assets.landing.writer import fsync_folder
from aiops_assets.shadow.plan import Leg, Query


class JournalBusy(Exception):
    """Another process works on the same import."""


class JournalDamaged(Exception):
    """A file of the journal is not what it was written as; the text says which."""


@dataclass(frozen=True, slots=True)
class Done:
    """A chunk whose deliveries are durable: where they are and what they hold."""

    chunk: str
    writer: str
    seq: int
    samples: int
    refused: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Question:
    """What is imported."""

    url: str
    selectors: tuple[str, ...]
    step: int
    source: str
    host_label: str | None


class Journal:
    """The journal of one import; a kernel lock keeps a second process out.

    Raises:
        JournalBusy: another process has it.
        JournalDamaged: a file cannot be read.
    """

    def __init__(self, root: Path, shadow_id: str, question: Question) -> None:
        self.shadow_id, self.question = shadow_id, question
        self.folder = root / shadow_id
        (self.folder / "alerts").mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise JournalBusy(f"another `aiops shadow` works on this import ({self.folder})") from error
        self.legs: list[Leg] = []
        self.done: dict[str, Done] = {}
        #: by writer: the lowest segment that may hold deliveries of this import
        self.first_seq: dict[str, int] = {}
        self._read()
        self._lines = (self.folder / "done.jsonl").open("ab")

    def close(self) -> None:
        self._lines.close()
        os.close(self._lock)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add_leg(self, leg: Leg, series: Sequence[Mapping[str, str]]) -> None:
        """Write a stretch down, once and for all, with the series that it had."""
        packed = gzip.compress(orjson.dumps(series), 3, mtime=0)
        self._replace(self.folder / f"series-{leg.number:04d}.json.gz", packed)
        self.write(f"leg-{leg.number:04d}.json", asdict(leg))
        self.legs.append(leg)

    def series(self) -> list[dict[str, str]]:
        """The series (labels with ``__name__``) of all stretches, each once."""
        found: dict[bytes, dict[str, str]] = {}
        for leg in self.legs:
            path = self.folder / f"series-{leg.number:04d}.json.gz"
            try:
                entries = orjson.loads(gzip.decompress(path.read_bytes()))
            except (OSError, EOFError, zlib.error, orjson.JSONDecodeError) as error:
                raise JournalDamaged(f"{path}: {error}; remove {self.folder} to begin again") from error
            for labels in entries:
                found.setdefault(orjson.dumps(labels, option=orjson.OPT_SORT_KEYS), labels)
        return list(found.values())

    def started(self, writer: str, first_seq: int) -> None:
        """Say where deliveries will go, before any goes there."""
        self.first_seq.setdefault(writer, first_seq)
        self._append({"writer": writer, "from": first_seq})

    def finished(self, done: Sequence[Done]) -> None:
        """Say that chunks are durable."""
        for entry in done:
            self.done[entry.chunk] = entry
        self._append(*(asdict(entry) for entry in done))

    def unfinished(self, leg: Leg) -> bool:
        """Whether anything of a stretch is missing."""
        alerts = all(self.alerts_path(leg.number, number).exists() for number in range(len(leg.windows())))
        return not alerts or any(chunk.key not in self.done for chunk in leg.chunks())

    def alerts_path(self, leg: int, window: int) -> Path:
        return self.folder / "alerts" / f"{leg}.{window}.json"

    def save_alerts(self, leg: int, window: int, answers: Sequence[bytes]) -> None:
        """Keep what Prometheus said about its alerts in a window."""
        path = self.alerts_path(leg, window)
        self._replace(path, b"\n".join(answer.replace(b"\n", b" ") for answer in answers) + b"\n")

    def write(self, name: str, value: object) -> None:
        """Replace a JSON file durably."""
        self._replace(self.folder / name, orjson.dumps(value, option=orjson.OPT_INDENT_2))

    def read(self, name: str) -> Any:
        """A JSON file, ``None`` when there is none."""
        path = self.folder / name
        try:
            return orjson.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except orjson.JSONDecodeError as error:
            raise JournalDamaged(f"{path}: not JSON: {error}; remove {self.folder} to begin again") from error

    def _replace(self, path: Path, content: bytes) -> None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_folder(path.parent)

    def _append(self, *entries: Mapping[str, object]) -> None:
        self._lines.write(b"".join(orjson.dumps(entry) + b"\n" for entry in entries))
        self._lines.flush()
        os.fdatasync(self._lines.fileno())

    def _read(self) -> None:
        if self.read("plan.json") is None:
            self.write("plan.json", asdict(self.question))
        for path in sorted(self.folder.glob("leg-*.json")):
            fields = self.read(path.name)
            self.legs.append(Leg(**{**fields, "queries": tuple(Query(**query) for query in fields["queries"])}))
        lines = self.folder / "done.jsonl"
        data = lines.read_bytes() if lines.exists() else b""
        if data and not data.endswith(b"\n"):
            # A crash while a line was being written; what it said is in the landing zone.
            data = data[: data.rfind(b"\n") + 1]
            with lines.open("r+b") as file:
                file.truncate(len(data))
        for number, line in enumerate(data.splitlines(), 1):
            try:
                entry = orjson.loads(line)
                if "chunk" in entry:
                    self.done[entry["chunk"]] = Done(**entry)
                else:
                    self.first_seq.setdefault(entry["writer"], entry["from"])
            except (orjson.JSONDecodeError, TypeError, KeyError) as error:
                message = f"{lines}:{number}: cannot be read: {error}; remove {self.folder} to begin again"
                raise JournalDamaged(message) from error
