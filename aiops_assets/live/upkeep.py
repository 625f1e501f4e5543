"""What the live plane no longer needs.

What belongs here: up to which landing segment everything that could be asked again has been kept. What does not:
removing them (``landing.retention``).
"""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path

import numpy as np
import orjson

from aiops_assets.lake.tables import Lake
from aiops_assets.landing.reader import writers
from aiops_assets.settings import Settings

log = logging.getLogger(__name__)


def releasable(settings: Settings) -> dict[str, int]:
    """Writer → last segment that may go: taken by ``metric_points`` and behind every checkpoint that could be loaded.

    Without a checkpoint nothing may go; a writer that one of them does not know keeps all its segments.
    """
    home = settings.paths
    names = writers(home.landing)
    saved = checkpoint_positions(home.live / "state")
    if not saved:
        return {}
    taken = Lake(home.lake).taken("metric_points", names)
    return {name: min([taken[name], *(positions.get(name, 0) for positions in saved)]) for name in names}


def checkpoint_positions(folder: Path) -> list[dict[str, int]]:
    """The ingest positions of every readable checkpoint; one that cannot be read can not be loaded either."""
    found = []
    for path in sorted(folder.glob("*.npz")):
        try:
            with np.load(path, allow_pickle=False) as archive:
                document = orjson.loads(archive["__document__"].tobytes())
            found.append({str(writer): int(seq) for writer, seq in document["positions"].items()})
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            log.warning("%s: cannot be read (%s)", path, error)
    return found
