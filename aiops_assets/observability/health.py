"""Checks of what a process depends on: each answers with one line for people and never hangs.

What belongs here: small questions with a yes or no and a reason. What does not: repairs, and what to do about a no
(``cli doctor``).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.landing.reader import Backlog
from aiops_assets.live.progress import Progress

#: segments that wait longer than this say that no session takes them
STALE_SECONDS = 120.0
DATABASE_TIMEOUT_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Check:
    """The answer of one check."""

    name: str
    ok: bool
    detail: str


def check_backlog(backlog: Backlog, limit: int) -> Check:
    """Whether what waits in the landing zone is below the limit (bytes) above which intake is refused."""
    detail = f"{backlog.size} bytes in {backlog.segments} segments wait, the limit is {limit} bytes"
    return Check("backlog", backlog.size <= limit, detail)


def check_session(backlog: Backlog, progress: Progress, now: float | None = None) -> Check:
    """Whether somebody takes what waits; an empty landing zone needs nobody."""
    now = time.time() if now is None else now
    if backlog.oldest_modified is None:
        return Check("session", True, "nothing waits")
    age = now - backlog.oldest_modified
    said = now - progress.updated_at / MICROS_PER_SECOND
    if age <= STALE_SECONDS or said <= STALE_SECONDS:
        return Check("session", True, f"the oldest segment waits for {age:.0f} s")
    last = f"the last session spoke {said:.0f} s ago" if progress.updated_at else "no session has run yet"
    return Check("session", False, f"the oldest segment waits for {age:.0f} s; {last}")


def check_database(url: str) -> Check:
    """Whether the operations database answers; an SQLite file that does not exist is not created by asking."""
    if url.startswith("sqlite:///"):
        path = Path(url.removeprefix("sqlite:///"))
        if not path.exists():
            return Check("operations", False, "the operations database does not exist yet")
        arguments: dict[str, object] = {"timeout": DATABASE_TIMEOUT_SECONDS}
    else:
        arguments = {"connect_timeout": DATABASE_TIMEOUT_SECONDS}
    try:
        engine = create_engine(url, connect_args=arguments)
        try:
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        finally:
            engine.dispose()
    except SQLAlchemyError as error:
        return Check("operations", False, f"the operations database does not answer: {type(error).__name__}")
    return Check("operations", True, "the operations database answers")
