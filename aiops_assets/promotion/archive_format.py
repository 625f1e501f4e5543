"""What an archive consists of, and reading one against what it says of itself.

What belongs here: members, their order, and the refusal of whatever is missing, differs, was added, leads elsewhere or
is a pickle. What does not: writing archives and bringing them back (``archive``), and the blocks (``ustar``).

An archive is an uncompressed tar file; the same state gives the same bytes. Its members, in this order::

    aiops-registry.json        {"checksum": SHA-256 of the canonical JSON of "archive", "archive": {…}}
    gates.jsonl, moves.jsonl   evaluations and moves, a line each
    things/<thing>/<version>/manifest.json, things/<thing>/<version>/files/<path>

The first member names every other one with its SHA-256 and size, in order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, cast

import orjson

from aiops_assets.promotion import ustar
from aiops_assets.promotion.gates import Measure
from aiops_assets.promotion.pickles import pickled
from aiops_assets.promotion.pointers import Move
from aiops_assets.promotion.problems import ArchiveProblem, FileRefused, VersionDamaged, VersionUnknown
from aiops_assets.promotion.records import Evaluation
from aiops_assets.promotion.store import MANIFEST, FileEntry, Manifest, check_path, check_thing, read_manifest

FORMAT = 1
INDEX, GATES, MOVES = "aiops-registry.json", "gates.jsonl", "moves.jsonl"
THINGS, FILES = "things", "files"
_LONGEST_INDEX = 256 << 20
_LONGEST_ROWS = 1 << 30
_CHUNK = 4 << 20
#: hears (what is done, how much of it, of how much)
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an archive after its index."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Contents:
    """What an archive holds. ``sha256`` is that of the whole file."""

    path: str
    things: Mapping[str, int]
    versions: int
    evaluations: int
    moves: int
    files: int
    size: int
    sha256: str

    def document(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass(slots=True)
class Archive:
    """An archive that was read to its end and found whole."""

    contents: Contents
    manifests: list[Manifest]
    evaluations: list[Evaluation]
    moves: list[Move]


def checksum(body: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of a document."""
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()


class Tape:
    """An archive that is read once from its beginning; everything on it is compared with what must come next."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path, self._file = path, file
        self.state = hashlib.sha256()
        self.position = 0

    def read(self, size: int) -> bytes:
        """The next bytes; fewer at the end of the file."""
        chunk = self._file.read(size)
        self.state.update(chunk)
        self.position += len(chunk)
        return chunk

    def content(self, expected: Member) -> Iterator[bytes]:
        """The content of the next member, which must be the expected one.

        Raises:
            ArchiveProblem: it is another one, is cut off, or differs.
        """
        name = f"{self.path}: {expected.name}"
        state = hashlib.sha256()
        try:
            block = ustar.exactly(cast("IO[bytes]", self), ustar.BLOCK)
            if block != ustar.header(expected.name, expected.size):
                raise ArchiveProblem(self._other(name, expected, block))
            for chunk in ustar.pieces(cast("IO[bytes]", self), expected.size):
                state.update(chunk)
                yield chunk
            filling = ustar.padding(expected.size)
            if ustar.exactly(cast("IO[bytes]", self), len(filling)) != filling:
                raise ArchiveProblem(f"{name}: something is hidden behind it; the archive was changed or damaged")
        except ustar.Cut as error:
            raise ArchiveProblem(f"{name}: is missing or cut off; the archive is incomplete") from error
        except ValueError as error:
            raise ArchiveProblem(f"{self.path}: {error}") from error
        if state.hexdigest() != expected.sha256:
            raise ArchiveProblem(f"{name}: is damaged or was changed (its SHA-256 differs)")

    def end(self) -> None:
        """Raises ``ArchiveProblem`` unless the archive ends here."""
        wanted = ustar.end(self.position)
        found = self.read(len(wanted) + 1)
        if found != wanted:
            what = ustar.name_in(found[: ustar.BLOCK]) if found.strip(b"\0") else "its end is cut off"
            more = "does not belong to the archive; it was added later" if found.strip(b"\0") else "it is incomplete"
            raise ArchiveProblem(f"{self.path}: {what}: {more}")

    @staticmethod
    def _other(name: str, expected: Member, block: bytes) -> str:
        if not block.strip(b"\0"):
            return f"{name}: is missing; the archive is incomplete"
        found, size = ustar.name_in(block), ustar.size_in(block)
        if found != expected.name:
            return f"{name}: is missing, {found} stands in its place"
        if size != expected.size:
            return f"{name}: has {size} bytes, the archive says {expected.size}"
        return f"{name}: is no ordinary file, or its header was changed or damaged"


def read(path: Path, keep: Path | None, scratch: Path, tell: Tell) -> Archive:
    """Read an archive to its end; with ``keep``, its versions' files are left below it as ``<thing>/<version>/…``."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            tape = Tape(path, file)
            read = _members(tape, keep, scratch, tell)
            tape.end()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ArchiveProblem(f"{path}: there is no such file") from error
    things = dict.fromkeys(read.contents.things, 0)
    for manifest in read.manifests:
        things[manifest.thing] += 1
    digest = tape.state.hexdigest()
    read.contents = Contents(**{**asdict(read.contents), "things": things, "size": size, "sha256": digest})
    return read


def _members(tape: Tape, keep: Path | None, scratch: Path, tell: Tell) -> Archive:
    path = tape.path
    members, things = _index(tape)
    contents: dict[str, bytes] = {}
    manifests: dict[tuple[str, str], Manifest] = {}
    left: dict[tuple[str, str], dict[str, FileEntry]] = {}
    for number, expected in enumerate(members):
        tell("members", number, len(members))
        place = _place(path, expected.name, things)
        if place is None or place[2] == MANIFEST:
            if expected.size > _LONGEST_ROWS:
                raise ArchiveProblem(f"{path}: {expected.name}: {expected.size:,} bytes are more than it can have")
            content = b"".join(tape.content(expected))
            if place is None:
                contents[expected.name] = content
            else:
                manifest = manifests[place[:2]] = _manifest(path, expected.name, content, place)
                left[place[:2]] = {entry.path: entry for entry in manifest.files}
            continue
        thing, version, relative = place
        entry = left.get((thing, version), {}).pop(relative, None)
        if entry is None or (entry.sha256, entry.size) != (expected.sha256, expected.size):
            raise ArchiveProblem(f"{path}: {expected.name}: is not a file that the version's manifest names")
        target = (keep / thing / version if keep is not None else scratch / "member") / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as copy:
            for chunk in tape.content(expected):
                copy.write(chunk)
        if reason := pickled(target):
            raise ArchiveProblem(f"{path}: {expected.name}: {reason}; pickles run code and are never restored")
        if keep is None:
            target.unlink()
    tell("members", len(members), len(members))
    for (thing, version), entries in left.items():
        for name in entries:
            raise ArchiveProblem(f"{path}: {THINGS}/{thing}/{version}/{FILES}/{name}: is missing")
    for name in (GATES, MOVES):
        if name not in contents:
            raise ArchiveProblem(f"{path}: {name}: is missing")
    found = list(manifests.values())
    evaluations = [_evaluation(path, row) for row in _rows(path, GATES, contents[GATES])]
    moves = [_move(path, row) for row in _rows(path, MOVES, contents[MOVES])]
    _refuse_strangers(path, things, set(manifests), evaluations, moves)
    known = dict.fromkeys(things, 0)
    return Archive(
        Contents(str(path), known, len(found), len(evaluations), len(moves), len(members) + 1, 0, ""),
        found,
        evaluations,
        moves,
    )


def _index(tape: Tape) -> tuple[list[Member], list[str]]:
    path = tape.path
    block = tape.read(ustar.BLOCK)
    size = ustar.size_in(block) or 0
    if block != ustar.header(INDEX, size) or size > _LONGEST_INDEX:
        raise ArchiveProblem(f"{path}: is no archive of the registry: it does not begin with {INDEX}")
    content = tape.read(size)
    filling = ustar.padding(size)
    if len(content) != size or tape.read(len(filling)) != filling:
        raise ArchiveProblem(f"{path}: {INDEX}: is cut off or damaged")
    try:
        document = orjson.loads(content)
        body = document["archive"]
        if checksum(body) != document["checksum"] or orjson.dumps(document, option=orjson.OPT_SORT_KEYS) != content:
            raise ArchiveProblem(f"{path}: {INDEX}: its checksum differs, it was changed or damaged")
        if body["format"] != FORMAT:
            raise ArchiveProblem(f"{path}: has format {body['format']}, this version reads format {FORMAT}")
        members = [Member(str(one["name"]), str(one["sha256"]), int(one["size"])) for one in body["members"]]
        things = [check_thing(str(thing)) for thing in body["things"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ArchiveProblem(f"{path}: {INDEX}: cannot be read ({error})") from error
    except VersionUnknown as problem:
        raise ArchiveProblem(f"{path}: {INDEX}: {problem}") from problem
    seen: set[str] = set()
    for member in members:
        if member.name in seen:
            raise ArchiveProblem(f"{path}: {member.name}: is named twice")
        seen.add(member.name)
    return members, things


def _place(path: Path, name: str, things: Sequence[str]) -> tuple[str, str, str] | None:
    """(thing, version, path in it) of a member, ``None`` for those at the top."""
    if name in {GATES, MOVES}:
        return None
    parts = name.split("/")
    try:
        if parts[0] != THINGS or len(parts) < 4 or parts[1] not in things or not _is_version(parts[2]):
            raise ArchiveProblem(f"{path}: {name}: no archive of the registry has such a member")
        if parts[3:] == [MANIFEST]:
            return parts[1], parts[2], MANIFEST
        if parts[3] != FILES:
            raise ArchiveProblem(f"{path}: {name}: no archive of the registry has such a member")
        return parts[1], parts[2], check_path("/".join(parts[4:]))
    except FileRefused as problem:
        raise ArchiveProblem(f"{path}: {name}: {problem}") from problem


def _is_version(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def _manifest(path: Path, name: str, content: bytes, place: tuple[str, str, str]) -> Manifest:
    try:
        manifest = read_manifest(content, f"{path}: {name}")
    except (VersionDamaged, FileRefused) as problem:
        raise ArchiveProblem(f"{path}: {name}: {problem}") from problem
    if (manifest.thing, manifest.version) != place[:2]:
        raise ArchiveProblem(f"{path}: {name}: is the manifest of {manifest.thing} {manifest.version[:12]}")
    return manifest


def _rows(path: Path, name: str, content: bytes) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise ArchiveProblem(f"{path}: {name}: line {number}: {error}") from error
        if not isinstance(row, dict):
            raise ArchiveProblem(f"{path}: {name}: line {number}: is no record")
        yield row


def _evaluation(path: Path, row: Mapping[str, Any]) -> Evaluation:
    try:
        measures = {
            str(name): Measure(
                float("nan") if one["value"] is None else one["value"], one["least"], one["most"], one["unit"]
            )
            for name, one in row["measures"].items()
        }
        return Evaluation(**{**row, "measures": measures})
    except (KeyError, TypeError, AttributeError) as error:
        raise ArchiveProblem(f"{path}: {GATES}: a record cannot be read ({error})") from error


def _move(path: Path, row: Mapping[str, Any]) -> Move:
    try:
        return Move(**row)
    except TypeError as error:
        raise ArchiveProblem(f"{path}: {MOVES}: a record cannot be read ({error})") from error


def _refuse_strangers(
    path: Path,
    things: Sequence[str],
    versions: set[tuple[str, str]],
    evaluations: Sequence[Evaluation],
    moves: Sequence[Move],
) -> None:
    """Every version that gates and moves speak of is in the archive, and moves follow one another."""
    for one in evaluations:
        if (one.thing, one.version) not in versions:
            raise ArchiveProblem(f"{path}: {GATES}: {one.gate} judged {one.thing} {one.version[:12]}, which is missing")
    last = dict.fromkeys(things, 0)
    for move in moves:
        if move.thing not in last or move.sequence != last[move.thing] + 1:
            raise ArchiveProblem(
                f"{path}: {MOVES}: move {move.sequence} of {move.thing} does not follow the one before"
            )
        last[move.thing] = move.sequence
        for version in (move.version, move.previous):
            if version is not None and (move.thing, version) not in versions:
                raise ArchiveProblem(
                    f"{path}: {MOVES}: move {move.sequence} speaks of {move.thing} {version[:12]}, which is missing"
                )
