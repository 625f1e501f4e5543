"""This machine, measured as its own tools measure it."""

from __future__ import annotations

import asyncio
import os
import threading
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from aiops_assets.collectors.document import Poll
from aiops_assets.collectors.host import (
    Aside,
    Busiest,
    HostPoller,
    Mount,
    StillRunning,
    _Usage,
    filesystem_points,
    process_name,
    real_mounts,
)


def values(outcome: Poll, metric: str) -> dict[tuple[str, ...], float]:
    return {tuple(p["labels"].values()): p["value"] for p in outcome.points if p["metric"] == metric}


def polls(poller: HostPoller, count: int) -> list[Poll]:
    async def run() -> list[Poll]:
        made = []
        for number in range(count):
            if number:
                # Rates and processor time need some time between two samples.
                await asyncio.sleep(0.15)
            made.append(await poller.poll())
        return made

    return asyncio.run(run())


def test_this_machine_gives_canonical_metrics_and_rates_from_the_second_poll_on() -> None:
    first, second = polls(HostPoller(interval=1, processes=3, name="here"), 2)
    assert first.up
    assert first.error is None
    assert not any(p["kind"] == "rate" for p in first.points)
    assert values(first, "system.cpu.utilization") == {}
    assert first.entity is not None
    assert first.entity["kind"] == "host"
    assert second.entity is None
    assert 0 <= values(second, "system.cpu.utilization")["total",] <= 1
    assert 0 < values(second, "system.memory.utilization")[()] < 1
    assert {key[0] for key in values(second, "system.network.io")} <= set(psutil.net_io_counters(pernic=True))
    assert ("lo", "receive") in values(second, "system.network.io")
    assert len(values(second, "process.cpu.utilization")) <= 3
    assert values(second, "system.processes.count")[()] > 0
    assert values(second, "system.uptime")[()] > 0
    for name in ("1m", "5m", "15m"):
        assert () in values(second, f"system.cpu.load_average.{name}")
    assert all(p["value"] >= 0 for p in second.points)
    assert all(p["value"] <= 1 for p in second.points if p["kind"] == "ratio")


def test_the_root_filesystem_is_there_with_the_numbers_of_df() -> None:
    (outcome,) = polls(HostPoller(interval=1, processes=0), 1)
    status = os.statvfs("/")
    used = status.f_blocks - status.f_bfree
    shown = {
        p["labels"]["mountpoint"]: p["value"] for p in outcome.points if p["metric"] == "system.filesystem.utilization"
    }
    assert shown["/"] == pytest.approx(used / (used + status.f_bavail), abs=0.01)


def partition(mountpoint: str, device: str, fstype: str, opts: str = "rw") -> SimpleNamespace:
    return SimpleNamespace(mountpoint=mountpoint, device=device, fstype=fstype, opts=opts)


def test_real_filesystems_are_all_kept_once_and_pseudo_ones_left_out() -> None:
    found = real_mounts(
        [
            partition("/", "overlay", "overlay"),
            partition("/data", "/dev/sdb1", "ext4"),
            partition("/var/lib/docker/volumes/x", "/dev/sdb1", "ext4"),
            partition("/pool", "tank/pool", "zfs"),
            partition("/pool/home", "tank/home", "zfs"),
            partition("/boot", "/dev/sda1", "xfs", "ro,relatime"),
            partition("/mnt/share", "filer:/export", "nfs4"),
            partition("/mnt/again", "filer:/export", "nfs4"),
            partition("/home/me/remote", "me@host:", "fuse.sshfs"),
            partition("/usb", "/dev/sdc1", "fuseblk"),
            partition("/tmp", "tmpfs", "tmpfs"),
            partition("/run/user/0", "tmpfs", "tmpfs"),
            partition("/snap/core/1", "/dev/loop3", "squashfs", "ro"),
            partition("/proc", "proc", "proc"),
            partition("/sys/fs/cgroup", "cgroup2", "cgroup2"),
            partition("/odd", "/dev/odd", "a-filesystem-nobody-knows"),
        ]
    )
    assert {mount.mountpoint: mount.remote for mount in found} == {
        "/": False, "/data": False, "/pool": False, "/pool/home": False, "/boot": False, "/mnt/again": True,
        "/home/me/remote": True, "/usb": False, "/tmp": False, "/odd": False,
    }  # fmt: skip


def statvfs(blocks: int, free: int, available: int) -> Any:
    return SimpleNamespace(f_blocks=blocks, f_bfree=free, f_bavail=available, f_frsize=4_096)


def test_blocks_reserved_for_root_count_neither_as_used_nor_as_available() -> None:
    mount = Mount("/data", "/dev/sdb1", "ext4", remote=False)
    points = {p["metric"]: p for p in filesystem_points(mount, statvfs(1_000, 150, 50))}
    assert points["system.filesystem.utilization"]["value"] == pytest.approx(850 / 900)
    assert points["system.filesystem.usage"]["value"] == 850 * 4_096
    assert points["system.filesystem.usage"]["labels"] == {"mountpoint": "/data", "device": "/dev/sdb1"}
    assert filesystem_points(mount, statvfs(0, 0, 0)) == []


def test_a_remote_filesystem_that_hangs_is_named_and_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    real = os.statvfs

    def hanging(path: Any) -> Any:
        if path == "/mnt/gone":
            release.wait(30)
        return real("/")

    mounts = [partition("/", "/dev/sda1", "ext4"), partition("/mnt/gone", "filer:/gone", "nfs4")]
    monkeypatch.setattr("aiops_assets.collectors.host.psutil.disk_partitions", lambda all: mounts)
    monkeypatch.setattr("aiops_assets.collectors.host.os.statvfs", hanging)
    try:
        first, second = polls(HostPoller(interval=1, processes=0, deadline=1.0), 2)
    finally:
        release.set()
    assert first.error == "filesystem /mnt/gone (filer:/gone): no answer in time"
    assert second.error is not None
    assert "filesystem /mnt/gone (filer:/gone): no answer for" in second.error
    for outcome in (first, second):
        assert outcome.up
        assert [key[0] for key in values(outcome, "system.filesystem.utilization")] == ["/"]


def test_a_call_that_hangs_is_not_started_again_until_it_returns() -> None:
    async def scene() -> None:
        aside, release, calls = Aside(), threading.Event(), []

        def slow() -> int:
            calls.append(1)
            release.wait(10)
            return 5

        with pytest.raises(TimeoutError):
            await aside.call("x", slow, 0.05)
        with pytest.raises(StillRunning):
            await aside.call("x", slow, 0.05)
        assert await aside.call("y", lambda: 6, 5) == 6
        release.set()
        async with asyncio.timeout(5):
            while True:
                try:
                    assert await aside.call("x", slow, 5) == 5
                    break
                except StillRunning:
                    await asyncio.sleep(0.005)
        assert len(calls) == 2

    asyncio.run(scene())


def test_a_reboot_between_two_lives_of_the_collector_is_a_change() -> None:
    poller = HostPoller(interval=1, processes=0, name="here", state={"boot": {"id": "another-boot", "at": 1.0}})
    first, second = polls(poller, 2)
    assert [change["kind"] for change in first.changes] == ["reboot"]
    assert first.changes[0]["title"] == "here restarted"
    assert first.changes[0]["ts"] == round(psutil.boot_time()) * 1_000_000
    assert second.changes == []
    again = HostPoller(interval=1, processes=0, name="here", state=poller.state())
    assert polls(again, 1)[0].changes == []
    assert polls(HostPoller(interval=1, processes=0, state={"boot": "damaged"}), 1)[0].changes == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("postgres", "postgres"),
        ("kworker/0:1-events", "kworker"),
        ("ksoftirqd/3", "ksoftirqd"),
        ("irq/24-nvme0", "irq"),
        ("python3.11", "python3.11"),
        ("  ", "unnamed"),
        ("a\x1b[0mb", "a?[0mb"),
        ("x" * 100, "x" * 64),
    ],
)
def test_process_names_are_stable_and_printable(name: str, shown: str) -> None:
    assert process_name(name) == shown


def test_the_busiest_stay_in_until_another_uses_clearly_more() -> None:
    busiest = Busiest(2)
    assert busiest.choose({"a": _Usage(0.5), "b": _Usage(0.3), "c": _Usage(0.29)}) == ["a", "b"]
    assert busiest.choose({"a": _Usage(0.5), "b": _Usage(0.3), "c": _Usage(0.31)}) == ["a", "b"]
    for _ in range(10):
        chosen = busiest.choose({"a": _Usage(0.5), "b": _Usage(0.01), "c": _Usage(0.4)})
    assert chosen == ["a", "c"]
    assert busiest.choose({"c": _Usage(0.4)}) == ["c"]


def test_the_number_of_process_names_is_bounded() -> None:
    busiest = Busiest(1)
    seen = {name for n in range(200) for name in busiest.choose({f"job-{n}": _Usage(1.0)})}
    assert len(seen) == 20
