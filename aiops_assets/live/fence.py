"""Ownership across hosts: a fenced row in a shared operations database, held beside the kernel lock of this host.

On one host (an operations database in SQLite) the kernel lock is enough and the fence does nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from aiops_assets.operations.database import connect, upgrade
from aiops_assets.operations.leases import DatabaseLease

#: the row runs out when it was not renewed for this long; a holder renews it three times as often
FENCE_SECONDS = 30.0
_POLL_SECONDS = 0.5


class Fence:
    """The fenced row ``live/<shard>`` of the operations database behind ``url``; free of effect with SQLite."""

    def __init__(self, url: str, owner: str, shard: int = 0, seconds: float = FENCE_SECONDS) -> None:
        self._renew_every = seconds / 3
        self._renewed_at = 0.0
        self._lease: DatabaseLease | None = None
        if not url.startswith("sqlite"):
            upgrade(url)
            self._engine = connect(url)
            self._lease = DatabaseLease(self._engine, f"live/{shard}", owner, seconds=seconds)

    def acquire(self, keep_waiting: Callable[[], bool]) -> bool:
        """Take the row, waiting while another host holds it and ``keep_waiting()`` is true."""
        while self._lease is not None and not self._lease.acquire():
            if not keep_waiting():
                return False
            time.sleep(_POLL_SECONDS)
        self._renewed_at = time.monotonic()
        return True

    def check(self) -> None:
        """Make sure that the row is still ours, and renew it in time; call it before every commit.

        Raises:
            aiops_assets.operations.leases.LeaseLost: another host has taken it.
        """
        if self._lease is None:
            return
        if time.monotonic() - self._renewed_at >= self._renew_every:
            self._lease.renew()
            self._renewed_at = time.monotonic()
        else:
            self._lease.check()

    def release(self) -> None:
        """Give the row free, if it is ours."""
        if self._lease is not None:
            self._lease.release()
            self._engine.dispose()
