"""A request to the next session: derive these closed hours again, for this reason.

What belongs here: the request's file. Whoever changes stored rows outside the session (under its lease) leaves one, so
that receipts, anomalies and alerts follow.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ValidationError

_NAME = "rederive.json"


class Request(BaseModel):
    """Hours (partition keys) and why they shall be derived again."""

    hours: list[str]
    reason: str


def ask_for(live: Path, hours: Iterable[str], reason: str) -> None:
    """Leave a request, joined with one that waits already (the newer reason counts)."""
    waiting = read_request(live)
    joined = sorted({*hours, *(waiting.hours if waiting else ())})
    if not joined:
        return
    live.mkdir(parents=True, exist_ok=True)
    temporary = live / f".{_NAME}.{os.getpid()}"
    with temporary.open("w", encoding="utf-8") as file:
        file.write(Request(hours=joined, reason=reason).model_dump_json())
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(live / _NAME)


def read_request(live: Path) -> Request | None:
    """The request that waits, if any."""
    try:
        return Request.model_validate_json((live / _NAME).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def forget_request(live: Path) -> None:
    """It was done."""
    (live / _NAME).unlink(missing_ok=True)
