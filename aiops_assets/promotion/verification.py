"""Are all versions there and whole? Every byte of those that were not looked at yet, the sizes of the others.

What belongs here: versions against their manifests and rows. What does not: bringing them back (``archive``,
``backup``) and when this is asked (lake care).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from aiops_assets.lake.tables import Lake
from aiops_assets.promotion.problems import RegistryProblem
from aiops_assets.promotion.records import entered_versions
from aiops_assets.promotion.store import FOLDER, Manifest, VersionStore

NEXT_STEP = "aiops registry restore FILE (an archive), or aiops restore from the newest backup"


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with a version (or, with an empty one, with a thing)."""

    thing: str
    version: str
    what: str


def verify(
    lake: Lake,
    known: Collection[str] = (),
    *,
    readable: bool = True,
    tell: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> tuple[list[Flaw], list[str]]:
    """(what is wrong, ``thing/version`` of those that are whole); ``known`` ones are not read again.

    ``readable`` tells whether the table of versions can be opened; otherwise folders alone are looked at.
    """
    if "://" in lake.root:
        return [], []
    store = VersionStore(Path(lake.root) / FOLDER)
    found: list[Flaw] = []
    whole: list[str] = []
    every = [(thing, version) for thing in store.things() for version in store.versions(thing)]
    for number, (thing, version) in enumerate(every):
        tell("versions", number, len(every))
        name = f"{thing}/{version}"
        try:
            manifest = store.manifest(thing, version)
        except RegistryProblem as problem:
            found.append(Flaw(thing, version, str(problem)))
            continue
        if manifest is None:
            found.append(Flaw(thing, version, f"{store.folder(thing, version)}: has no manifest"))
            continue
        problems = _sizes(store, manifest) if name in known else store.problems(manifest)
        found += [Flaw(thing, version, what) for what in problems]
        whole += [name] if not problems else []
    tell("versions", len(every), len(every))
    if readable:
        there = set(every)
        for thing, version in entered_versions(lake).select("thing", "version").iter_rows():
            if (thing, version) not in there:
                found.append(Flaw(thing, version, f"{store.folder(thing, version)}: lost, registry_versions names it"))
    return found, whole


def _sizes(store: VersionStore, manifest: Manifest) -> list[str]:
    found = []
    for entry in manifest.files:
        path = store.folder(manifest.thing, manifest.version) / entry.path
        size = path.stat().st_size if path.is_file() else None
        if size != entry.size:
            found.append(f"{path}: missing" if size is None else f"{path}: {size:,} bytes instead of {entry.size:,}")
    return found
