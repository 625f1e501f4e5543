"""Appending deliveries durably: one writer a folder, fsync before anybody is told yes.

``SegmentWriter`` is synchronous and owned by one thread; ``GroupCommit`` puts one fsync behind every delivery that
waits, for servers on asyncio.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from aiops_assets.landing.segment import (
    MAGIC,
    OPEN,
    SEALED,
    DamagedSegment,
    Delivery,
    encode,
    is_name,
    scan,
    segment_path,
)

log = logging.getLogger(__name__)

#: records handed to one writev call; the kernel takes at most 1,024 buffers
_RECORDS_PER_WRITE = 512
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class LandingFull(Exception):
    """The disk (or a quota) has no room: the sender must keep the delivery and try later."""


class WriterBusy(Exception):
    """Another process owns this writer's folder."""


def fsync_folder(folder: Path) -> None:
    """Make renames and new names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class SegmentWriter:
    """The single appender of one writer folder. A kernel lock keeps a second process out.

    Raises:
        WriterBusy: another live process holds the folder.
        LandingFull: from ``append``, when there is no room; nothing of that append remains.
    """

    def __init__(self, root: Path, writer_id: str, *, max_bytes: int, max_age_seconds: float) -> None:
        if not is_name(writer_id):
            raise ValueError(f"writer id {writer_id!r}: use lower-case letters, digits, '_', '.', '-'")
        self.folder = root / writer_id
        self.writer_id = writer_id
        self._max_bytes, self.max_age = max_bytes, max_age_seconds
        self.folder.mkdir(parents=True, exist_ok=True)
        fsync_folder(root)
        self._lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise WriterBusy(f"landing writer {writer_id!r} is in use by another process") from error
        self._descriptor = -1
        self._size = 0
        self._opened_at = 0.0
        try:
            self.last_sealed = recover(self.folder)
        except OSError:
            os.close(self._lock)
            raise

    def append(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        """Write encoded records and force them to disk. Returns only when they are durable."""
        if self._descriptor < 0:
            self._open()
        durable = self._size
        try:
            for start in range(0, len(records), _RECORDS_PER_WRITE):
                self._write([part for record in records[start : start + _RECORDS_PER_WRITE] for part in record])
            os.fdatasync(self._descriptor)
        except OSError as error:
            self._cut_back(durable)
            raise self._refusal(error) from error
        if self._size >= self._max_bytes:
            self._try_to_seal()

    def append_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        """``append`` for callers that hold deliveries rather than encoded records."""
        self.append([encode(delivery) for delivery in deliveries])

    def seal_if_due(self) -> bool:
        """Seal the open segment when its age has come; returns whether it did. One without deliveries stays open."""
        if self._size > len(MAGIC) and time.monotonic() - self._opened_at >= self.max_age:
            return self._try_to_seal()
        return False

    def seal(self) -> None:
        """Finish the open segment so that readers may take it; an error leaves it open and whole, to be tried again."""
        if self._descriptor < 0:
            return
        seq = self.last_sealed + 1
        os.fsync(self._descriptor)
        segment_path(self.folder, seq, OPEN).rename(segment_path(self.folder, seq))
        self.last_sealed = seq
        self._forget()
        fsync_folder(self.folder)

    def close(self) -> None:
        """Seal what is open and give the folder free."""
        try:
            if self._size == len(MAGIC):
                segment_path(self.folder, self.last_sealed + 1, OPEN).unlink()
                self._forget()
            self.seal()
        finally:
            self._forget()
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        path = segment_path(self.folder, self.last_sealed + 1, OPEN)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        except OSError as error:
            raise self._refusal(error) from error
        try:
            if os.write(descriptor, MAGIC) < len(MAGIC):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync_folder(self.folder)
        except OSError as error:
            os.close(descriptor)
            path.unlink()
            raise self._refusal(error) from error
        self._descriptor, self._size, self._opened_at = descriptor, len(MAGIC), time.monotonic()

    def _refusal(self, error: OSError) -> Exception:
        """What a caller is told: ``LandingFull`` when there is no room, else the error itself."""
        return LandingFull(f"{self.folder}: {error.strerror}") if error.errno in _NO_ROOM else error

    def _try_to_seal(self) -> bool:
        """Seal after an append. What was appended is durable, so a failure here must not make it look lost."""
        try:
            self.seal()
        except OSError:
            log.exception("segment %d of %s cannot be sealed yet", self.last_sealed + 1, self.folder)
            return False
        return True

    def _forget(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._size = -1, 0

    def _write(self, parts: list[bytes]) -> None:
        total = sum(map(len, parts))
        written = os.writev(self._descriptor, parts)
        if written < total:
            # A short write is rare (a full disk, mostly): finish it byte-exactly.
            rest = memoryview(b"".join(parts))[written:]
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        self._size += total

    def _cut_back(self, durable: int) -> None:
        """Remove what was not acknowledged; if even that fails, leave the file to recovery and start another."""
        try:
            os.ftruncate(self._descriptor, durable)
            os.lseek(self._descriptor, durable, os.SEEK_SET)
            self._size = durable
        except OSError:
            self._forget()
            self.last_sealed = recover(self.folder)


def recover(folder: Path) -> int:
    """Bring a writer folder back to order after a crash and return its last sealed ``seq`` (0 when none).

    Whole deliveries of an open segment are kept, a torn tail is cut, the segment is sealed; one without any whole
    delivery is removed, and its number is used again. Retention always leaves a
    writer's newest segment, so the highest name is the writer's persistent counter.
    """
    last = 0
    unsealed = []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = Path(entry.name)
            if name.suffix == SEALED and name.stem.isdigit():
                last = max(last, int(name.stem))
            elif name.suffix == OPEN and name.stem.isdigit():
                unsealed.append(int(name.stem))
    for seq in sorted(unsealed):
        path = segment_path(folder, seq, OPEN)
        data = path.read_bytes()
        whole = len(MAGIC)
        with contextlib.suppress(DamagedSegment):
            for end, _, _ in scan(path, data):
                whole = end
        if whole == len(MAGIC) and seq == last + 1:
            # Nothing in it was ever acknowledged, and a full disk may not have room for even a whole magic.
            path.unlink()
            continue
        with path.open("r+b") as file:
            if not data.startswith(MAGIC):
                file.write(MAGIC)
            file.truncate(whole)
            os.fsync(file.fileno())
        path.rename(segment_path(folder, seq))
        last = max(last, seq)
    if unsealed:
        fsync_folder(folder)
    return last


class GroupCommit:
    """Durable appends for asyncio servers: whoever waits while a sync is under way shares the next one."""

    def __init__(self, writer: SegmentWriter) -> None:
        self._writer = writer
        self._waiting: list[tuple[tuple[bytes, bytes], asyncio.Future[None]]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="landing")
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write; call it inside the running event loop."""
        self._task = asyncio.create_task(self._run(), name="landing-group-commit")

    @property
    def alive(self) -> bool:
        """Whether deliveries are taken."""
        return not self._closing and self._task is not None and not self._task.done()

    def submit(self, delivery: Delivery) -> asyncio.Future[None]:
        """A future that is done when the delivery is on disk; it raises ``LandingFull`` when there is no room."""
        if not self.alive:
            raise RuntimeError("the landing writer is closed")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((encode(delivery), future))
        self._wake.set()
        return future

    async def close(self) -> None:
        """Write what waits, seal, release the folder."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
        await asyncio.get_running_loop().run_in_executor(self._thread, self._writer.close)
        self._thread.shutdown()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        idle_check = max(self._writer.max_age / 2, 0.02)
        while self._waiting or not self._closing:
            if not self._waiting:
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), idle_check)
            batch, self._waiting = self._waiting, []
            error: Exception | None = None
            try:
                await loop.run_in_executor(self._thread, self._commit, [record for record, _ in batch])
            except Exception as failure:  # every kind of failure belongs to those who wait for the append
                error = failure
            for _, future in batch:
                if future.done():
                    continue
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)

    def _commit(self, records: list[tuple[bytes, bytes]]) -> None:
        try:
            if records:
                self._writer.append(records)
        finally:
            self._writer.seal_if_due()
