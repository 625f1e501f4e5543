"""The registry: versions of everything that is promoted, what gates said of them, and which one serves.

What belongs here: the rules by which a version comes into use and goes. What does not: its files (``store``), rows
(``records``), the pointer history (``pointers``), archives (``archive``) and Dagster (``assets``).

A version is registered in the order files, manifest, row; a promotion is publish, then pointer. So a process that is
killed anywhere leaves the champion as it was or as it is to be, and the same call again completes what is missing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import Engine

from aiops_assets.hours import instant, micros
from aiops_assets.lake.files import TableFiles
from aiops_assets.lake.tables import Lake
from aiops_assets.operations.database import changing, connect, reading, upgrade
from aiops_assets.promotion import pointers, records
from aiops_assets.promotion.gates import Candidate, Gate, GateResult, VersionFiles
from aiops_assets.promotion.mirror import MirroredStore
from aiops_assets.promotion.pointers import Move
from aiops_assets.promotion.problems import (
    GatesNotPassed,
    NothingBefore,
    RegistryProblem,
    RolledBack,
    VersionDamaged,
    VersionRevoked,
    VersionUnknown,
)
from aiops_assets.promotion.records import Evaluation
from aiops_assets.promotion.store import FOLDER, Draft, Manifest, VersionStore, check_thing
from aiops_assets.settings import Home, Settings

Publish = Callable[[VersionFiles], None]
_SHORTEST_PREFIX = 4


class Registry:
    """The registry of one home. Close it, or use it as a context."""

    def __init__(self, place: Settings | Home) -> None:
        home = place.paths if isinstance(place, Settings) else place
        self.lake = Lake(home.lake)
        self.store = (
            MirroredStore(home.root / "registry", TableFiles(self.lake, FOLDER))
            if "://" in home.lake
            else VersionStore(Path(home.lake) / FOLDER)
        )
        self._operations_url = home.operations_url

    @cached_property
    def engine(self) -> Engine:
        """The operations database, at the present schema."""
        upgrade(self._operations_url)
        return connect(self._operations_url)

    def close(self) -> None:
        """Give connections back."""
        if "engine" in self.__dict__:
            self.engine.dispose()

    def __enter__(self) -> Registry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- versions -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def working(self, thing: str) -> Iterator[Path]:
        """An empty folder on the lake's file system to make a candidate in; it goes afterwards."""
        with self.store.working(thing) as folder:
            yield folder

    def register(
        self,
        thing: str,
        kind: str,
        folder: Path,
        candidate: Candidate,
        *,
        gates: Sequence[str] = (),
        publisher: str | None = None,
        run_id: str | None = None,
    ) -> str:
        """Keep the files of a folder as an immutable version and return its name; the same contents are the same one.

        Args:
            gates: blocking gates that it has to pass, whoever promotes it.
            publisher: ``publishing.name_of`` the function that publishes it.

        Raises:
            FileRefused: a file is a pickle, a link, or has a name that is not taken.
        """
        draft = Draft(
            thing,
            kind,
            _now(),
            asdict(candidate.inputs),
            {name: float(value) for name, value in candidate.metrics.items()},
            candidate.rows,
            tuple(gates),
            publisher,
            run_id,
        )
        manifest = self.store.put(draft, folder)
        self._complete(thing)
        return manifest.version

    def versions(self, thing: str) -> list[Manifest]:
        """All versions of a thing, oldest first."""
        frame = records.entered_versions(self.lake, check_thing(thing))
        return [self._listed(row) for row in frame.iter_rows(named=True)]

    def things(self) -> list[str]:
        """Everything that has a version."""
        return sorted(set(records.entered_versions(self.lake)["thing"]))

    def manifest(self, thing: str, version: str) -> Manifest:
        """What is recorded of a version.

        Raises:
            VersionUnknown: there is none.
            VersionDamaged: its manifest cannot be read.
        """
        manifest = self.store.manifest(thing, version)
        if manifest is None:
            known = ", ".join(one.version[:12] for one in self.versions(thing)[-5:]) or "none"
            raise VersionUnknown(f"{thing}: there is no version {version[:12]!r}; the newest are: {known}")
        return manifest

    def resolve(self, thing: str, name: str) -> str:
        """A version from what a person writes: its first digits (at least 4), ``champion``, ``newest``.

        Raises:
            VersionUnknown: none or several begin so.
        """
        known = self.versions(thing)
        if not known:
            things = ", ".join(self.things()) or "nothing yet"
            raise VersionUnknown(f"{thing}: has no version; the registry has: {things}")
        if name == "newest":
            return known[-1].version
        if name == "champion":
            serving = self.champion(thing)
            if serving is None:
                raise VersionUnknown(f"{thing}: nothing serves; see aiops registry list {thing}")
            return serving
        found = [one.version for one in known if len(name) >= _SHORTEST_PREFIX and one.version.startswith(name)]
        if len(found) == 1:
            return found[0]
        if len(found) > 1:
            raise VersionUnknown(f"{thing}: {len(found)} versions begin with {name!r}; write more digits of it")
        newest = ", ".join(one.version[:12] for one in known[-5:])
        raise VersionUnknown(f"{thing}: there is no version {name!r}; write at least 4 digits of one of: {newest}")

    def files(self, thing: str, version: str) -> VersionFiles:
        """The files of a version, every byte of which was read and compared with its hash.

        Raises:
            VersionUnknown: there is no such version.
            VersionDamaged: a file is missing, differs or was added.
        """
        manifest = self.manifest(thing, version)
        if problems := self.store.problems(manifest):
            raise VersionDamaged(
                f"{thing} {version[:12]}: " + "; ".join(problems[:5]) + "; bring it back with aiops registry restore "
                "from an archive, or make it again from its recorded inputs"
            )
        return self._version_files(manifest)

    # -- gates --------------------------------------------------------------------------------------------------------

    def record_gates(
        self,
        thing: str,
        version: str,
        results: Sequence[tuple[Gate, GateResult]],
        *,
        champion: str | None = None,
        sequence: int | None = None,
        at: int | None = None,
        run_id: str | None = None,
    ) -> list[Evaluation]:
        """Record what gates said, once; ``at`` in microseconds since the epoch (now unless given).

        ``champion`` is what the version was compared with and ``sequence`` the pointer's position that was read before
        judging (both as of now unless ``sequence`` is given).
        """
        self.manifest(thing, version)
        if sequence is None:
            last = self.head(thing)
            champion, sequence = (last.version, last.sequence) if last is not None else (None, 0)
        at = _now() if at is None else at
        evaluations = [
            Evaluation.of(thing, version, gate, result, at=at, champion=champion, sequence=sequence, run_id=run_id)
            for gate, result in results
        ]
        records.enter_gates(self.lake, self.store.root, evaluations)
        return evaluations

    def evaluations(self, thing: str, version: str | None = None) -> list[Evaluation]:
        """Everything that gates ever said, oldest first."""
        return records.entered_gates(self.lake, thing, version)

    def gates(self, thing: str, version: str) -> list[Evaluation]:
        """The last evaluation of every gate of a version."""
        return records.newest(self.evaluations(thing, version))

    def unmet(self, thing: str, version: str, required: Collection[str] | None = None) -> list[str]:
        """Why a version may not be promoted, a line a gate; empty when every blocking gate has passed.

        ``required`` names the gates that count; unless given, those that the version was registered with and every
        blocking one that was recorded of it.
        """
        last = {one.gate: one for one in self.gates(thing, version)}
        if required is None:
            recorded = {name for name, one in last.items() if one.blocking}
            required = recorded | set(self.manifest(thing, version).gates)
            if not required:
                return ["no gate was ever asked: materialise its candidate and checks, so that there is evidence"]
        found = []
        for name in sorted(required):
            one = last.get(name)
            if one is None:
                found.append(f"{name}: was never asked: run the checks of {thing}_candidate")
            elif not one.passed:
                found.append(f"{name}: {one.summary}" + (f" → {one.advice}" if one.advice else ""))
        return found

    # -- pointers -----------------------------------------------------------------------------------------------------

    def history(self, thing: str) -> list[Move]:
        """Every move of the pointer, in order."""
        with reading(self.engine) as connection:
            return pointers.moves(connection, check_thing(thing))

    def head(self, thing: str) -> Move | None:
        """The last move; ``None`` while nothing ever served."""
        return pointers.serving(self.history(thing))

    def champion(self, thing: str, at: datetime | int | None = None) -> str | None:
        """The version that serves, or that served at an instant (aware, or microseconds since the epoch)."""
        moment = micros(at) if isinstance(at, datetime) else at
        move = pointers.serving(self.history(thing), moment)
        return move.version if move is not None else None

    def champion_files(self, thing: str) -> VersionFiles | None:
        """``files`` of the version that serves."""
        version = self.champion(thing)
        return None if version is None else self.files(thing, version)

    def promote(
        self,
        thing: str,
        version: str,
        *,
        who: str,
        reason: str = "",
        override: bool = False,
        expected: int | None = None,
        run_id: str | None = None,
        required: Collection[str] | None = None,
        publish: Publish | None = None,
        automatic: bool = False,
    ) -> Move:
        """Let a version serve; the move, with ``changed`` false when it serves already (then the one that did it).

        Args:
            override: promote although gates have not passed; needs a reason and is recorded as ``overridden``.
            expected: number of the last move that whoever judged had seen (now unless given).
            required: the blocking gates that count, see ``unmet``.
            publish: is called with the files before the pointer moves; must be idempotent.
            automatic: no person asks, so that a version from which somebody rolled back is refused.

        Raises:
            GatesNotPassed: a blocking gate failed or was never asked, and nobody overrides.
            VersionRevoked: it never serves again, whoever asks.
            RolledBack: see ``automatic``.
            MovedMeanwhile: the pointer has moved since ``expected``.
            VersionUnknown, VersionDamaged: there is no such version, or its files are not whole.
        """
        if override and not reason.strip():
            raise RegistryProblem(f"{thing}: an override needs a reason, which is recorded; say it with --reason TEXT")
        self.manifest(thing, version)
        history = self.history(thing)
        last = pointers.serving(history)
        if last is not None and last.version == version:
            return replace(pointers.brought_in(history) or last, changed=False)
        reached = _expect(thing, expected, last)
        self._refuse_revoked(history, thing, version)
        left = pointers.rolled_back_from(history).get(version)
        if automatic and not override and left is not None:
            raise RolledBack(
                f"{thing}: {left.who} rolled back from {version[:12]} on {_day(left.at)} ({left.reason or 'no reason'})"
                f"; only a person promotes it again: aiops registry promote {thing} {version[:12]}"
            )
        problems = self.unmet(thing, version, required)
        if problems and not override:
            raise GatesNotPassed(
                f"{thing} {version[:12]} may not serve, these gates have not passed:\n"
                + "\n".join(f"  {line}" for line in problems)
                + "\nMake a better candidate, or promote it all the same: "
                + f"aiops registry promote {thing} {version[:12]} --override --reason TEXT"
            )
        how: pointers.How = "overridden" if problems else "promoted"
        previous = last.version if last is not None else None
        move = Move(thing, reached + 1, version, previous, _now(), who, how, reason, run_id)
        return self._move(move, previous, publish)

    def rollback(
        self, thing: str, *, who: str, reason: str = "", expected: int | None = None, publish: Publish | None = None
    ) -> Move:
        """Back to the version that served before the present one, past those that were revoked.

        Raises:
            NothingBefore: there is none.
            VersionDamaged: its files are not whole; nothing was changed.
            MovedMeanwhile: the pointer has moved since ``expected``.
        """
        history = self.history(thing)
        last = pointers.serving(history)
        reached = _expect(thing, expected, last)
        line = pointers.succession(history)
        present = last.version if last is not None else None
        before = line[:-1] if line and line[-1] == present else line
        if last is None or not before:
            state = f"only {present[:12]} ever served" if present else "nothing serves and nothing is left that did"
            raise NothingBefore(
                f"{thing}: there is no version to roll back to, {state}; aiops registry revoke takes a version out of "
                "use, aiops registry promote lets another one serve"
            )
        move = Move(thing, reached + 1, before[-1], present, _now(), who, "rolled_back", reason)
        return self._move(move, present, publish)

    def revoke(self, thing: str, version: str, *, who: str, reason: str, publish: Publish | None = None) -> Move:
        """Mark a version never to serve again; if it serves, the one before it takes over, or none.

        Raises:
            RegistryProblem: no reason was given.
            VersionDamaged: the version that would take over is not whole; revoke that one first.
            MovedMeanwhile: the pointer has moved meanwhile.
        """
        if not reason.strip():
            raise RegistryProblem(f"{thing}: a revocation needs a reason, which is recorded; say it with --reason TEXT")
        self.manifest(thing, version)
        history = self.history(thing)
        last = pointers.serving(history)
        known = pointers.revoked(history).get(version)
        if known is not None:
            return replace(known, changed=False)
        serving = last.version if last is not None else None
        successor = serving
        if serving == version:
            left = [one for one in pointers.succession(history) if one != version]
            successor = left[-1] if left else None
        move = Move(
            thing, (last.sequence if last is not None else 0) + 1, successor, version, _now(), who, "revoked", reason
        )
        return self._move(move, serving, publish)

    def revoked(self, thing: str) -> dict[str, Move]:
        """Version → the move that revoked it."""
        return pointers.revoked(self.history(thing))

    # -- inside -------------------------------------------------------------------------------------------------------

    def _move(self, move: Move, serving: str | None, publish: Publish | None) -> Move:
        if move.version is not None and move.version != serving:
            files = self.files(move.thing, move.version)
            if publish is not None:
                publish(files)
        with changing(self.engine) as transaction:
            return pointers.append(transaction.connection, move)

    def _complete(self, thing: str) -> None:
        """Enter versions whose files are whole and whose row is missing: their process was killed in between."""
        entered = set(records.entered_versions(self.lake, thing)["version"])
        for version in self.store.versions(thing):
            if version not in entered and (manifest := self.store.manifest(thing, version)) is not None:
                records.enter_version(self.lake, self.store.root, manifest)

    def _listed(self, row: Mapping[str, Any]) -> Manifest:
        try:
            manifest = self.store.manifest(row["thing"], row["version"])
        except VersionDamaged:
            # Listed by its row; whoever wants its files is told.
            manifest = None
        return manifest if manifest is not None else records.manifest_of(row)

    def _version_files(self, manifest: Manifest) -> VersionFiles:
        metrics = {name: float("nan") if value is None else value for name, value in manifest.metrics.items()}
        folder = self.store.folder(manifest.thing, manifest.version)
        return VersionFiles(manifest.thing, manifest.version, folder, manifest.inputs, metrics)

    def _refuse_revoked(self, history: Sequence[Move], thing: str, version: str) -> None:
        move = pointers.revoked(history).get(version)
        if move is not None:
            raise VersionRevoked(
                f"{thing} {version[:12]} was revoked by {move.who} on {_day(move.at)} ({move.reason}); it never serves "
                "again: make another candidate"
            )


def described(manifest: Manifest) -> dict[str, Any]:
    """A version for JSON: its manifest with its size, without the single files."""
    own = {name: value for name, value in manifest.document().items() if name != "files"}
    return {**own, "size": manifest.size, "file_count": len(manifest.files)}


def _expect(thing: str, expected: int | None, last: Move | None) -> int:
    """The number of the last move, which must be the expected one where one is expected."""
    reached = last.sequence if last is not None else 0
    if expected not in {None, reached}:
        raise pointers.moved_meanwhile(thing, int(expected or 0), last)
    return reached


def _now() -> int:
    return time.time_ns() // 1000


def _day(at: int) -> str:
    return f"{instant(at):%Y-%m-%d %H:%M} UTC"
