"""Ownership of the live plane: one owner a shard, guaranteed by a kernel file lock.

The lock dies with its process, however it ends, so no heartbeat has to be believed. Across hosts the fenced lease of
the operations database takes its place.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson


@dataclass(frozen=True, slots=True)
class LeaseInfo:
    """Who holds a lease. Instants are seconds since the epoch (UTC); ``deadline`` is when the holder means to go."""

    owner: str
    pid: int
    started_at: float
    deadline: float


class LeaseLost(Exception):
    """The lock file was replaced or removed under its holder: stop before the next commit."""


class FileLease:
    """A lease on one host. The lock file is never deleted, so its inode identifies the lease."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    def acquire(self, owner: str, *, seconds: float, keep_waiting: Callable[[], bool], poll: float = 0.02) -> bool:
        """Take the lease, waiting while another holds it and ``keep_waiting()`` is true. Returns whether we have it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o640)
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not keep_waiting():
                    os.close(descriptor)
                    return False
                time.sleep(poll)
        now = time.time()
        info = orjson.dumps(asdict(LeaseInfo(owner, os.getpid(), now, now + seconds)))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, info, 0)
        self._descriptor = descriptor
        return True

    def check(self) -> None:
        """Make sure that the lease is still ours; call it before every commit.

        Raises:
            LeaseLost: it is not.
        """
        if self._descriptor < 0:
            raise LeaseLost(f"{self.path}: not held")
        try:
            on_disk = self.path.stat()
        except FileNotFoundError as error:
            raise LeaseLost(f"{self.path}: the lock file was removed") from error
        held = os.fstat(self._descriptor)
        if (on_disk.st_ino, on_disk.st_dev) != (held.st_ino, held.st_dev):
            raise LeaseLost(f"{self.path}: the lock file was replaced")

    def release(self) -> None:
        """Give the lease free."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @contextlib.contextmanager
    def requested(self) -> Iterator[None]:
        """Ask the holder to go, for as long as the block lasts; the request dies with its process."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._wanted, os.O_RDWR | os.O_CREAT, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield
        finally:
            os.close(descriptor)

    def wanted(self) -> bool:
        """Whether somebody asks for the lease; a session then ends after its batch."""
        try:
            descriptor = os.open(self._wanted, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    @property
    def _wanted(self) -> Path:
        return self.path.with_suffix(".wanted")

    def holder(self) -> LeaseInfo | None:
        """Who holds the lease now, ``None`` when nobody does. Asks the kernel, not the file's content."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                with contextlib.suppress(orjson.JSONDecodeError, TypeError):
                    return LeaseInfo(**orjson.loads(os.pread(descriptor, 4096, 0)))
                # Taken a moment ago, its description is not written yet.
                return LeaseInfo("unknown", 0, time.time(), time.time())
            return None
        finally:
            os.close(descriptor)


def live_lease(live: Path, shard: int = 0) -> FileLease:
    """The lease of a live shard below ``home.live``."""
    return FileLease(live / f"shard-{shard}.lease")


@contextlib.contextmanager
def held(lease: FileLease, owner: str, *, wait_seconds: float) -> Iterator[FileLease]:
    """Hold a lease for a block of work beside the live session, which is asked to end.

    Raises:
        TimeoutError: it was not to be had in ``wait_seconds``.
    """
    until = time.monotonic() + wait_seconds
    with lease.requested():
        ours = lease.acquire(owner, seconds=wait_seconds, keep_waiting=lambda: time.monotonic() < until)
    if not ours:
        raise TimeoutError(f"{lease.path}: still held by {lease.holder()} after {wait_seconds:.0f} s")
    try:
        yield lease
    finally:
        lease.release()
