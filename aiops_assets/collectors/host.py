"""The machine the platform runs on, through psutil.

What belongs here: reading of processor, memory, filesystems, disks, network and processes, and their rates. What does
not: schedules. Every reading happens in a daemon thread, filesystems that live elsewhere (NFS and alike) each in one of
their own: a call that never returns costs its own points, is named, and keeps nobody else waiting.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import re
import socket
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from aiops_assets.collectors.document import Point, Poll, point, reboot
from aiops_assets.collectors.rates import Counters
from aiops_assets.hours import MICROS_PER_SECOND

log = logging.getLogger(__name__)

T = TypeVar("T")

#: a filesystem of the kernel's own, without space that could fill up
PSEUDO_FILESYSTEMS = frozenset({
    "autofs", "binder", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "cpuset", "debugfs", "devfs", "devpts",
    "devtmpfs", "efivarfs", "fdescfs", "functionfs", "fuse.gvfsd-fuse", "fuse.lxcfs", "fuse.portal", "fusectl",
    "hugetlbfs", "map", "mqueue", "nsfs", "proc", "procfs", "pstore", "resctrl", "rootfs", "rpc_pipefs", "securityfs",
    "selinuxfs", "smackfs", "sysfs", "tracefs", "usbfs",
})  # fmt: skip
#: always full by nature
IMAGE_FILESYSTEMS = frozenset({"cd9660", "cramfs", "erofs", "iso9660", "romfs", "squashfs", "udf"})
#: answered by another machine or process, which may be gone
REMOTE_FILESYSTEMS = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "davfs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "ncpfs", "orangefs",
    "smb2", "smb3", "smbfs",
})  # fmt: skip
#: temporary filesystems that people fill; the many others belong to services and containers
TEMPORARY_MOUNTS = ("/tmp", "/var/tmp", "/dev/shm", "/run", "/")  # noqa: S108 - names of mount points, nothing is written
#: interfaces and disks that containers create and remove
PASSING_INTERFACES = re.compile(r"(veth|cali|lxc|tap|vnet|br-)[0-9a-f]")
PASSING_DISKS = re.compile(r"(loop|ram|zram|fd|sr)\d")
#: kernel threads carry numbers and queues in their names
KERNEL_THREAD = re.compile(
    r"^(kworker|ksoftirqd|migration|cpuhp|idle_inject|irq|rcu[a-z_]*|watchdog|kswapd|jbd2|scsi_\w+?)[/_-].*"
)
ENTITY_SECONDS = 900.0


class StillRunning(Exception):
    """The previous call has not returned yet."""


class Aside:
    """Runs blocking calls in daemon threads, one at a time for each key."""

    def __init__(self) -> None:
        self._running: dict[Hashable, float] = {}

    async def call(self, key: Hashable, function: Callable[[], T], seconds: float) -> T:
        """The function's result.

        Raises:
            StillRunning: an earlier call with this key hangs; no new thread is started.
            TimeoutError: it takes longer than ``seconds``; the thread is left to itself.
        """
        since = self._running.get(key)
        if since is not None:
            raise StillRunning(f"no answer for {time.monotonic() - since:.0f} s")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            self._running.pop(key, None)
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        def work() -> None:
            result, failure = None, None
            try:
                result = function()
            except Exception as error:
                failure = error
            try:
                loop.call_soon_threadsafe(settle, result, failure)
            except RuntimeError:
                # The loop has ended meanwhile: nobody waits for this any more.
                return

        self._running[key] = time.monotonic()
        threading.Thread(target=work, name=f"host-{key}", daemon=True).start()
        async with asyncio.timeout(seconds):
            return await future


@dataclass(frozen=True, slots=True)
class Mount:
    """A filesystem worth measuring."""

    mountpoint: str
    device: str
    fstype: str
    remote: bool


def is_remote(fstype: str) -> bool:
    """Whether a filesystem's answers come from elsewhere."""
    return fstype in REMOTE_FILESYSTEMS or (fstype.startswith("fuse.") and fstype != "fuse.fuseblk")


def real_mounts(partitions: Iterable[Any]) -> list[Mount]:
    """The filesystems with space of their own, each once, under its shortest mount point.

    ``partitions`` are psutil's with ``all=True`` (its own choice leaves out overlay, ZFS datasets and network mounts).
    """
    mounts: dict[tuple[str, str], Mount] = {}
    for entry in partitions:
        fstype, options = entry.fstype, entry.opts.split(",")
        if not fstype or fstype in PSEUDO_FILESYSTEMS or fstype in IMAGE_FILESYSTEMS:
            continue
        if fstype in {"tmpfs", "ramfs"} and (entry.mountpoint not in TEMPORARY_MOUNTS or "ro" in options):
            continue
        mount = Mount(entry.mountpoint, entry.device, fstype, is_remote(fstype))
        # Bind mounts repeat a device; overlay, tmpfs and the like have no device that would tell them apart.
        key = (entry.device, "") if entry.device.startswith("/") or mount.remote else (entry.device, entry.mountpoint)
        known = mounts.get(key)
        if known is None or (len(mount.mountpoint), mount.mountpoint) < (len(known.mountpoint), known.mountpoint):
            mounts[key] = mount
    return sorted(mounts.values(), key=lambda mount: mount.mountpoint)


def filesystem_points(mount: Mount, status: os.statvfs_result) -> list[Point]:
    """Utilization and usage as ``df`` computes them: what root keeps in reserve is neither used nor available."""
    used = status.f_blocks - status.f_bfree
    visible = used + status.f_bavail
    if status.f_blocks == 0 or visible <= 0:
        return []
    labels = {"mountpoint": mount.mountpoint, "device": mount.device}
    return [
        point("system.filesystem.utilization", used / visible, "1", "ratio", labels),
        point("system.filesystem.usage", float(used * status.f_frsize), "By", "gauge", labels),
    ]


def process_name(name: str) -> str:
    """A process name without the numbers that would make each instance a series of its own."""
    name = name.strip()
    match = KERNEL_THREAD.match(name)
    if match:
        name = match[1]
    return "".join(c if c.isprintable() else "?" for c in name)[:64] or "unnamed"


@dataclass(slots=True)
class _Usage:
    cpu: float = 0.0
    memory: float = 0.0


class Busiest:
    """Which process names are reported: the busiest by smoothed processor time, with inertia.

    A name stays in until another uses clearly more, so that series do not flicker at the edge, and the number of names
    ever reported is bounded: beyond it new ones are not taken in.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._smooth: dict[str, float] = {}
        self._chosen: list[str] = []
        self._ever: set[str] = set()

    def choose(self, usage: Mapping[str, _Usage]) -> list[str]:
        """The names to report for this interval."""
        alpha = 0.3
        self._smooth = {
            name: alpha * entry.cpu + (1 - alpha) * self._smooth.get(name, entry.cpu) for name, entry in usage.items()
        }
        stay = [name for name in self._chosen if name in usage]
        others = sorted(
            (name for name in usage if name not in stay),
            key=lambda name: (-self._smooth[name], -usage[name].memory, name),
        )
        for name in others:
            if name not in self._ever and len(self._ever) >= 20 * max(self._count, 1):
                continue
            if len(stay) < self._count:
                stay.append(name)
                continue
            weakest = min(stay, key=lambda entry: (self._smooth[entry], usage[entry].memory), default=None)
            if weakest is None or self._smooth[name] <= 1.5 * self._smooth[weakest] + 0.002:
                break
            stay[stay.index(weakest)] = name
        self._chosen = stay
        self._ever.update(stay)
        return sorted(stay)


class HostPoller:
    """Polls this machine; see ``document.Poller``."""

    kind = "host"
    source = "host"

    def __init__(
        self,
        *,
        interval: float,
        processes: int,
        name: str | None = None,
        deadline: float | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name or socket.gethostname()
        self.interval = interval
        self.deadline = deadline if deadline is not None else max(5.0, min(interval, 20.0))
        self._processes = processes
        self._aside = Aside()
        self._counters = Counters()
        self._cpu: dict[str, float] = {}
        self._process_times: dict[tuple[int, float], float] = {}
        self._process_at = 0.0
        self._busiest = Busiest(processes)
        self._boot = dict(state or {}).get("boot")
        self._entity_at = float("-inf")

    def state(self) -> dict[str, Any]:
        return {"boot": self._boot}

    def close(self) -> None:
        """Nothing is kept open."""

    async def poll(self) -> Poll:
        outcome = Poll()
        problems: list[str] = []
        budget = 0.9 * self.deadline
        mounts: list[Mount] = []
        jobs: list[Any] = [
            self._section("resources", self._resources, outcome, problems, budget),
            self._section("processes", self._process_points, outcome, problems, budget),
        ]
        try:
            mounts = await self._aside.call("mounts", lambda: real_mounts(psutil.disk_partitions(all=True)), budget)
        except (TimeoutError, StillRunning, OSError) as error:
            problems.append(f"mount table: {_why(error)}")
        local = [mount for mount in mounts if not mount.remote]
        jobs.append(self._section("filesystems", lambda: _local_filesystems(local), outcome, problems, budget))
        jobs.extend(self._remote(mount, outcome, problems, budget / 2) for mount in mounts if mount.remote)
        await asyncio.gather(*jobs)
        self._counters.turn()
        self._note_boot(outcome)
        outcome.up = True
        if time.monotonic() - self._entity_at >= ENTITY_SECONDS:
            self._entity_at = time.monotonic()
            outcome.entity = entity()
        outcome.error = "; ".join(problems) or None
        return outcome

    async def _section(
        self, name: str, read: Callable[[], list[Point]], outcome: Poll, problems: list[str], seconds: float
    ) -> None:
        try:
            outcome.points.extend(await self._aside.call(name, read, seconds))
        except (TimeoutError, StillRunning, OSError, psutil.Error, ValueError) as error:
            problems.append(f"{name}: {_why(error)}")

    async def _remote(self, mount: Mount, outcome: Poll, problems: list[str], seconds: float) -> None:
        try:
            status = await self._aside.call(("mount", mount.mountpoint), lambda: os.statvfs(mount.mountpoint), seconds)
            outcome.points.extend(filesystem_points(mount, status))
        except (TimeoutError, StillRunning, OSError) as error:
            problems.append(f"filesystem {mount.mountpoint} ({mount.device}): {_why(error)}")

    def _note_boot(self, outcome: Poll) -> None:
        """A boot identity other than the remembered one is a reboot."""
        booted_at = psutil.boot_time()
        identity = boot_identity()
        outcome.points.append(point("system.uptime", max(0.0, time.time() - booted_at), "s"))
        before = self._boot
        if isinstance(before, Mapping) and "id" in before and before["id"] != identity:
            # Without an identity the boot time stands in for it, and that moves a little when the clock is corrected.
            same_clock = not identity.startswith("boot-time:") or abs(booted_at - float(before["at"])) > 60
            if same_clock:
                details = {"boot": identity, "boot_before": before["id"]}
                outcome.changes.append(reboot(round(booted_at) * MICROS_PER_SECOND, f"{self.name} restarted", details))
        self._boot = {"id": identity, "at": booted_at}

    # --- readings, in threads --------------------------------------------------------------------------------------

    def _resources(self) -> list[Point]:
        now = time.monotonic()
        points = self._cpu_points()
        points.extend(_load_points())
        points.extend(_memory_points())
        points.extend(self._disk_points(now))
        points.extend(self._network_points(now))
        points.append(point("system.processes.count", float(len(psutil.pids())), "{process}"))
        return points

    def _cpu_points(self) -> list[Point]:
        times = psutil.cpu_times()._asdict()
        # Guest time is part of user time already.
        times = {mode: value for mode, value in times.items() if mode not in {"guest", "guest_nice"}}
        before, self._cpu = self._cpu, times
        spent = {mode: max(0.0, value - before.get(mode, value)) for mode, value in times.items()}
        total = sum(spent.values())
        if not before or total <= 0:
            return []
        idle = spent.get("idle", 0.0) + spent.get("iowait", 0.0)
        points = [point("system.cpu.utilization", 1 - idle / total, "1", "ratio", {"cpu": "total"})]
        points.extend(
            point("system.cpu.mode.utilization", value / total, "1", "ratio", {"mode": mode})
            for mode, value in spent.items()
            if mode in {"user", "system", "nice", "iowait", "steal", "irq", "softirq"}
        )
        return points

    def _disk_points(self, now: float) -> list[Point]:
        points: list[Point] = []
        for name, io in (psutil.disk_io_counters(perdisk=True) or {}).items():
            if PASSING_DISKS.match(name) or not is_whole_disk(name):
                continue
            for metric, unit, direction, value in (
                ("system.disk.io", "By/s", "read", io.read_bytes),
                ("system.disk.io", "By/s", "write", io.write_bytes),
                ("system.disk.operations", "{operation}/s", "read", io.read_count),
                ("system.disk.operations", "{operation}/s", "write", io.write_count),
            ):
                self._rate(points, metric, unit, {"device": name, "direction": direction}, value, now)
        return points

    def _network_points(self, now: float) -> list[Point]:
        points: list[Point] = []
        states = psutil.net_if_stats()
        for name, io in psutil.net_io_counters(pernic=True).items():
            if PASSING_INTERFACES.match(name):
                continue
            for metric, unit, direction, value in (
                ("system.network.io", "By/s", "receive", io.bytes_recv),
                ("system.network.io", "By/s", "transmit", io.bytes_sent),
                ("system.network.packets", "{packet}/s", "receive", io.packets_recv),
                ("system.network.packets", "{packet}/s", "transmit", io.packets_sent),
                ("system.network.errors", "{error}/s", "receive", io.errin),
                ("system.network.errors", "{error}/s", "transmit", io.errout),
                ("system.network.dropped", "{packet}/s", "receive", io.dropin),
                ("system.network.dropped", "{packet}/s", "transmit", io.dropout),
            ):
                self._rate(points, metric, unit, {"device": name, "direction": direction}, value, now)
            if name in states:
                points.append(point("system.network.up", float(states[name].isup), "1", "gauge", {"device": name}))
        return points

    def _rate(
        self, points: list[Point], metric: str, unit: str, labels: dict[str, str], value: int, now: float
    ) -> None:
        growth = self._counters.rate((metric, *labels.values()), value, now)
        if growth is not None:
            points.append(point(metric, growth, unit, "rate", labels))

    def _process_points(self) -> list[Point]:
        if self._processes == 0:
            return []
        now = time.monotonic()
        span = now - self._process_at
        first = not self._process_times
        times: dict[tuple[int, float], float] = {}
        usage: dict[str, _Usage] = {}
        for process in psutil.process_iter(["name", "cpu_times", "memory_info", "create_time"]):
            info = process.info
            if info["cpu_times"] is None or info["name"] is None:
                continue
            key = (process.pid, info["create_time"] or 0.0)
            spent = info["cpu_times"].user + info["cpu_times"].system
            times[key] = spent
            entry = usage.setdefault(process_name(info["name"]), _Usage())
            entry.cpu += max(0.0, spent - self._process_times.get(key, 0.0 if not first else spent))
            entry.memory += info["memory_info"].rss if info["memory_info"] else 0
        self._process_times, self._process_at = times, now
        if first or span <= 0:
            return []
        cores = psutil.cpu_count() or 1
        for entry in usage.values():
            entry.cpu = min(1.0, entry.cpu / span / cores)
        points = []
        for name in self._busiest.choose(usage):
            labels = {"process": name}
            points.append(point("process.cpu.utilization", usage[name].cpu, "1", "ratio", labels))
            points.append(point("process.memory.usage", usage[name].memory, "By", "gauge", labels))
        return points


def _local_filesystems(mounts: list[Mount]) -> list[Point]:
    points: list[Point] = []
    for mount in mounts:
        try:
            points.extend(filesystem_points(mount, os.statvfs(mount.mountpoint)))
        except FileNotFoundError:
            # Unmounted since the table was read.
            continue
        except PermissionError:
            log.debug("filesystem %s may not be looked at", mount.mountpoint)
    return points


def _load_points() -> list[Point]:
    names = ("1m", "5m", "15m")
    return [
        point(f"system.cpu.load_average.{name}", value, "1")
        for name, value in zip(names, psutil.getloadavg(), strict=True)
    ]


def _memory_points() -> list[Point]:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    points = []
    if memory.total:
        used = memory.total - memory.available
        points.append(point("system.memory.utilization", used / memory.total, "1", "ratio"))
        points.append(point("system.memory.usage", float(used), "By"))
    if swap.total:
        points.append(point("system.paging.utilization", swap.used / swap.total, "1", "ratio"))
    return points


def is_whole_disk(name: str) -> bool:
    """Whether a name is a disk rather than a partition of one (Linux tells; elsewhere every name counts)."""
    blocks = Path("/sys/block")
    return not blocks.is_dir() or (blocks / name.replace("/", "!")).exists()


def boot_identity() -> str:
    """What changes with every boot and with nothing else."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return f"boot-time:{round(psutil.boot_time())}"


def entity() -> dict[str, Any]:
    """This machine as an entity."""
    return {
        "kind": "host",
        "site": None,
        "labels": {"os": platform.system(), "kernel": platform.release(), "arch": platform.machine()},
        "depends_on": [],
    }


def _why(error: BaseException) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
