"""Versions in an object store: kept in a folder of this host, and copied to the lake before anybody may use them.

What belongs here: copying versions up and down. What does not: what a version is (``store``), whose folder is a cache
here: what it lacks is fetched, and compared with its manifest, when it is asked for. The manifest goes up last, so that
a half-copied version is none.
"""

from __future__ import annotations

from pathlib import Path

from aiops_assets.lake.files import TableFiles
from aiops_assets.promotion.problems import VersionDamaged
from aiops_assets.promotion.store import MANIFEST, Manifest, VersionStore, copy_files, manifest_bytes, read_manifest


class MirroredStore(VersionStore):
    """Versions below a folder of this host, and below a folder of an object store, which all hosts share."""

    def __init__(self, root: Path, remote: TableFiles) -> None:
        super().__init__(root)
        self._remote = remote

    def manifest(self, thing: str, version: str) -> Manifest | None:
        """That of the cache, else that of the object store."""
        found = super().manifest(thing, version)
        path = f"{thing}/{version}/{MANIFEST}"
        if found is None and path in self._remote.names(f"{thing}/{version}"):
            found = read_manifest(self._remote.read(path), f"{self._remote.uri}/{path}")
        return found

    def things(self) -> list[str]:
        """Everything that is in either place."""
        return sorted({*super().things(), *(path.split("/")[0] for path in self._manifests(""))})

    def versions(self, thing: str) -> list[str]:
        """Those in either place."""
        return sorted({*super().versions(thing), *(path.split("/")[1] for path in self._manifests(thing))})

    def problems(self, manifest: Manifest) -> list[str]:
        """What is wrong with the files in the cache; they are fetched first where there are none."""
        if not self.folder(manifest.thing, manifest.version).exists():
            try:
                self._fetch(manifest)
            except FileNotFoundError as error:
                return [f"{self._remote.uri}/{manifest.thing}/{manifest.version}: a file is missing ({error})"]
            except VersionDamaged as problem:
                return [f"{self._remote.uri}: {problem}"]
        return super().problems(manifest)

    def _place(self, manifest: Manifest, staging: Path) -> Manifest:
        placed = super()._place(manifest, staging)
        prefix, folder = f"{placed.thing}/{placed.version}", self.folder(placed.thing, placed.version)
        there = self._remote.names(prefix)
        if f"{prefix}/{MANIFEST}" not in there:
            for entry in placed.files:
                self._remote.put_file(f"{prefix}/{entry.path}", folder / entry.path)
            self._remote.put(f"{prefix}/{MANIFEST}", manifest_bytes(placed))
        return placed

    def _fetch(self, manifest: Manifest) -> None:
        with self.working(manifest.thing) as folder:
            for entry in manifest.files:
                target = folder / entry.path
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    for chunk in self._remote.chunks(f"{manifest.thing}/{manifest.version}/{entry.path}"):
                        file.write(chunk)
            with self.working(manifest.thing, ".staging-") as staging:
                copy_files(manifest, folder, staging)
                super()._place(manifest, staging)

    def _manifests(self, below: str) -> list[str]:
        names = self._remote.names(below)
        return [path for path in names if path.endswith(f"/{MANIFEST}") and path.count("/") == 2]
