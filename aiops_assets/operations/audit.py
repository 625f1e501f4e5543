"""The audit trail: who did what to what, when; rows are only ever added."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from sqlalchemy import Connection, insert

from aiops_assets.operations.models import AUDIT


def record(
    connection: Connection, *, at: int, who: str, action: str, target: str, details: Mapping[str, object] | None = None
) -> None:
    """Add a row inside the caller's transaction; ``at`` is microseconds since the epoch (UTC)."""
    row = {"at": at, "who": who, "action": action, "target": target, "details": orjson.dumps(details or {}).decode()}
    connection.execute(insert(AUDIT).values(row))
