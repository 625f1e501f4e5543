"""Exports with a trace: who wrote which incidents into which file, in the audit trail of the operations database.

What belongs here: the audited export that commands and assets call. What does not: formats (``exports``).

The row is committed when the file's bytes are final and before it has its name: a file that is there has its row. After
a kill in between there is a row without a file, never a file without a row.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import polars as pl

from aiops_assets.operations import audit
from aiops_assets.operations.database import changing, connect, upgrade
from aiops_assets.settings import Settings
from aiops_assets.synthetic.golden.exports import Export, Format, Origin, write

ACTION = "golden.export"


def export(
    settings: Settings,
    frames: Iterable[pl.DataFrame],
    path: Path,
    *,
    who: str,
    format: Format | None = None,
    metadata: bool = True,
    origin: Origin | None = None,
    progress: Callable[[int], None] | None = None,
) -> Export:
    """``exports.write`` with a row in the audit trail; without the row there is no file.

    Raises:
        ExportProblem, TooLongForCell: as ``exports.write``.
        sqlalchemy.exc.SQLAlchemyError: the operations database cannot be written; nothing was published.
    """
    settings.paths.create()
    upgrade(settings.paths.operations_url)

    def recorded(made: Export) -> None:
        record(settings, made, who)

    return write(
        frames,
        path,
        format=format,
        metadata=metadata,
        origin=origin,
        progress=progress,
        before_publishing=recorded,
    )


def record(settings: Settings, made: Export, who: str) -> None:
    """One row of the audit trail for a file that is about to be published."""
    details: dict[str, object] = {
        "format": made.format,
        "count": made.rows,
        "size": made.size,
        "sha256": made.sha256,
        "content_hash": made.content_hash,
        "generator": made.origin.generator,
        "config_digest": made.origin.config_digest,
        "seed": made.origin.seed,
        "provider": made.origin.provider,
        "version": made.origin.version,
    }
    engine = connect(settings.paths.operations_url)
    try:
        with changing(engine) as transaction:
            audit.record(
                transaction.connection,
                at=time.time_ns() // 1_000,
                who=who,
                action=ACTION,
                target=str(made.path.resolve()),
                details=details,
            )
    finally:
        engine.dispose()
