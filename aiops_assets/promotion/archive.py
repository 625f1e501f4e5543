"""Archives of the registry: things with all their versions, gates and moves in one file, and back.

What belongs here: writing, checking and restoring archives. What does not: what an archive consists of
(``archive_format``) and whole-system backups (``backup``), which hold the registry too.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson

from aiops_assets.landing.writer import fsync_folder
from aiops_assets.operations import audit
from aiops_assets.operations.database import changing
from aiops_assets.promotion import pointers, records, ustar
from aiops_assets.promotion.archive_format import (
    FILES,
    FORMAT,
    GATES,
    INDEX,
    MOVES,
    THINGS,
    Archive,
    Contents,
    Member,
    Tell,
    checksum,
    read,
)
from aiops_assets.promotion.gates import VersionFiles
from aiops_assets.promotion.pointers import Move
from aiops_assets.promotion.problems import ArchiveProblem, VersionDamaged
from aiops_assets.promotion.records import Evaluation
from aiops_assets.promotion.registry import Registry
from aiops_assets.promotion.store import MANIFEST, Manifest, manifest_bytes


@dataclass(slots=True)
class Restored:
    """What was brought back; what was there already is not counted."""

    contents: Contents
    versions: int = 0
    evaluations: int = 0
    moves: int = 0
    #: thing → version that serves
    champions: dict[str, str | None] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "contents": self.contents.document()}


def back_up(
    registry: Registry,
    path: Path,
    things: Sequence[str] = (),
    *,
    tell: Tell = lambda what, done, total: None,
) -> Contents:
    """Write an archive of things (all of them unless named) and read it back; the file appears when it is whole.

    Raises:
        RegistryProblem: a thing is unknown, or a version's files are not whole; nothing is written.
    """
    if path.suffix != ".tar":
        raise ArchiveProblem(f"{path}: an archive is a tar file; name it {path.with_suffix('.tar').name}")
    known = registry.things()
    if unknown := sorted(set(things) - set(known)):
        raise ArchiveProblem(f"{', '.join(unknown)}: the registry has {', '.join(known) or 'nothing yet'}")
    wanted = sorted(set(things) or set(known))
    # Read in the opposite order of writing, so that every move in the archive has its version in it.
    moves = [move for thing in wanted for move in registry.history(thing)]
    evaluations = [one for thing in wanted for one in registry.evaluations(thing)]
    manifests = [manifest for thing in wanted for manifest in registry.versions(thing)]
    for number, manifest in enumerate(manifests):
        tell("hashes", number, len(manifests))
        if problems := registry.store.problems(manifest):
            raise VersionDamaged(f"{manifest.thing} {manifest.version[:12]}: " + "; ".join(problems[:5]))
    tell("hashes", len(manifests), len(manifests))
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _write(file, registry, wanted, manifests, evaluations, moves, tell)
            file.flush()
            os.fsync(file.fileno())
        contents = verify(temporary, tell=tell)
        temporary.replace(path)
        fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return Contents(**{**asdict(contents), "path": str(path)})


def verify(path: Path, *, tell: Tell = lambda what, done, total: None) -> Contents:
    """Read an archive to its end; what it holds.

    Raises:
        ArchiveProblem: it is damaged, incomplete, was tampered with or holds a pickle; the text names the member.
    """
    with tempfile.TemporaryDirectory(prefix="aiops-archive-") as folder:
        return read(path, None, Path(folder), tell).contents


def restore(
    registry: Registry,
    path: Path,
    *,
    who: str,
    publish: Callable[[Manifest, VersionFiles], None] = lambda manifest, files: None,
    tell: Tell = lambda what, done, total: None,
) -> Restored:
    """Bring an archive's things into a home that does not have them.

    Nothing is written before the whole archive was read and found whole. Moves come back as they were, so that what
    served at an instant stays answerable, followed by one move ``restored`` a thing, which says since when this home
    has it. A restore that was killed is done again: what is there already is kept, what is damaged there is replaced.

    ``publish`` is called with each version that will serve, before its pointer moves; it must be idempotent.

    Raises:
        ArchiveProblem: the archive is not whole, or the home has moves of a thing that the archive does not have.
    """
    registry.store.sweep()
    with registry.store.working(None, ".restoring-") as folder:
        found = read(path, folder, folder, tell)
        for thing in found.contents.things:
            _refuse_other_history(registry, thing, [move for move in found.moves if move.thing == thing], path)
        restored = Restored(found.contents)
        for number, manifest in enumerate(found.manifests):
            tell("versions", number, len(found.manifests))
            before = registry.store.manifest(manifest.thing, manifest.version)
            registry.store.put_as_is(manifest, folder / manifest.thing / manifest.version)
            entered = records.enter_version(registry.lake, registry.store.root, manifest)
            restored.versions += entered or before is None
        tell("versions", len(found.manifests), len(found.manifests))
    restored.evaluations = _enter_evaluations(registry, found.evaluations)
    for thing in found.contents.things:
        serving = pointers.serving([move for move in found.moves if move.thing == thing])
        if serving is not None and serving.version is not None and not registry.history(thing):
            publish(registry.manifest(thing, serving.version), registry.files(thing, serving.version))
    restored.moves = _enter_moves(registry, found, who)
    restored.champions = {thing: registry.champion(thing) for thing in found.contents.things}
    return restored


# -- writing --------------------------------------------------------------------------------------------------------


def _write(
    file: IO[bytes],
    registry: Registry,
    things: Sequence[str],
    manifests: Sequence[Manifest],
    evaluations: Sequence[Evaluation],
    moves: Sequence[Move],
    tell: Tell,
) -> None:
    contents: dict[str, bytes] = {
        GATES: _lines(one.document() for one in evaluations),
        MOVES: _lines({k: v for k, v in move.document().items() if k != "changed"} for move in moves),
    }
    members = [Member(name, hashlib.sha256(content).hexdigest(), len(content)) for name, content in contents.items()]
    sources: dict[str, Path] = {}
    for manifest in manifests:
        prefix = f"{THINGS}/{manifest.thing}/{manifest.version}"
        written = manifest_bytes(manifest)
        contents[f"{prefix}/{MANIFEST}"] = written
        members.append(Member(f"{prefix}/{MANIFEST}", hashlib.sha256(written).hexdigest(), len(written)))
        folder = registry.store.folder(manifest.thing, manifest.version)
        for entry in manifest.files:
            sources[f"{prefix}/{FILES}/{entry.path}"] = folder / entry.path
            members.append(Member(f"{prefix}/{FILES}/{entry.path}", entry.sha256, entry.size))
    body = {"format": FORMAT, "things": list(things), "members": [asdict(member) for member in members]}
    index = orjson.dumps({"checksum": checksum(body), "archive": body}, option=orjson.OPT_SORT_KEYS)
    written_bytes = _put(file, INDEX, len(index), [index])
    for number, member in enumerate(members):
        tell("members", number, len(members))
        if member.name in contents:
            written_bytes += _put(file, member.name, member.size, [contents[member.name]])
        else:
            with sources[member.name].open("rb") as source:
                written_bytes += _put(file, member.name, member.size, ustar.pieces(source, member.size))
    file.write(ustar.end(written_bytes))
    tell("members", len(members), len(members))


def _put(file: IO[bytes], name: str, size: int, content: Iterable[bytes]) -> int:
    """Write a member; the bytes that it takes."""
    try:
        header = ustar.header(name, size)
    except ValueError as error:
        raise ArchiveProblem(str(error)) from error
    file.write(header)
    for piece in content:
        file.write(piece)
    file.write(ustar.padding(size))
    return len(header) + size + len(ustar.padding(size))


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(
        orjson.dumps(row, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS) + b"\n" for row in rows
    )


# -- restoring ------------------------------------------------------------------------------------------------------


def _refuse_other_history(registry: Registry, thing: str, moves: Sequence[Move], path: Path) -> None:
    """A home has no moves of a thing yet, or those of the archive and perhaps more after them."""
    present = registry.history(thing)
    if present and present[: len(moves)] != list(moves):
        raise ArchiveProblem(
            f"{path}: {thing}: this home has {len(present)} moves of its own; an archive is restored where its things "
            "are not in use yet: set AIOPS_HOME to another home, or name other things when you back up"
        )


def _enter_evaluations(registry: Registry, evaluations: Sequence[Evaluation]) -> int:
    known = {
        (one.thing, one.version, one.gate, one.evaluated_at)
        for thing in {one.thing for one in evaluations}
        for one in registry.evaluations(thing)
    }
    groups: dict[tuple[str, str, int, str | None], list[Evaluation]] = {}
    for one in evaluations:
        if (one.thing, one.version, one.gate, one.evaluated_at) not in known:
            groups.setdefault((one.thing, one.version, one.evaluated_at, one.run_id), []).append(one)
    return sum(
        len(group) for group in groups.values() if records.enter_gates(registry.lake, registry.store.root, group)
    )


def _enter_moves(registry: Registry, archive: Archive, who: str) -> int:
    """All moves in one transaction, each thing's followed by the mark of this restore."""
    path, count = Path(archive.contents.path), 0
    now = time.time_ns() // 1000
    with changing(registry.engine) as transaction:
        connection = transaction.connection
        for thing in archive.contents.things:
            wanted = [move for move in archive.moves if move.thing == thing]
            present = pointers.moves(connection, thing)
            if present:
                if present[: len(wanted)] != wanted:
                    raise ArchiveProblem(f"{path}: {thing}: somebody else moved it meanwhile; nothing was restored")
                continue
            if wanted:
                pointers.bring_back(connection, wanted)
                last = wanted[-1]
                reason = f"archive {path.name}, SHA-256 {archive.contents.sha256}"
                pointers.append(
                    connection,
                    Move(thing, last.sequence + 1, last.version, last.version, now, who, "restored", reason),
                )
                count += len(wanted) + 1
        audit.record(
            connection,
            at=now,
            who=who,
            action="registry.restore",
            target=path.name,
            details={"sha256": archive.contents.sha256, "things": list(archive.contents.things), "moves": count},
        )
    return count
