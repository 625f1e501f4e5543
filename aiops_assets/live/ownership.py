"""Work on the live plane's tables beside the session: the session gives way, the work is done, the session comes back.

What belongs here: holding the lease of this host and the fence across hosts for a block of work. What does not: the
work (``live.upkeep``, ``live.rebuild``).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from aiops_assets.live.fence import Fence
from aiops_assets.live.lease import held, live_lease
from aiops_assets.settings import Settings

#: a session ends after its batch when it is asked to; the longest batch takes less than this
WAIT_SECONDS = 120.0


@contextlib.contextmanager
def owned(settings: Settings, owner: str, *, wait_seconds: float = WAIT_SECONDS) -> Iterator[Callable[[], None]]:
    """Own the live plane for a block of work; gives the function to be called before every commit.

    Raises:
        TimeoutError: it was not to be had in ``wait_seconds``.
    """
    until = time.monotonic() + wait_seconds
    fence = Fence(settings.paths.operations_url, owner)
    with held(live_lease(settings.paths.live), owner, wait_seconds=wait_seconds) as lease:
        if not fence.acquire(lambda: time.monotonic() < until):
            raise TimeoutError(f"another host owns the live plane and did not give way in {wait_seconds:.0f} s")

        def check() -> None:
            lease.check()
            fence.check()

        try:
            yield check
        finally:
            fence.release()
