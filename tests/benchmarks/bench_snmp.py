"""SNMP polling: devices a minute from one collector process on one core, against real ``snmpd`` processes.

The collector is the product's own process (``scheduler.run``) with an ``aiops.yaml`` of thousands of devices, pinned to
one core; agents run on the other. One device in a hundred is dead (a socket that never answers) and one is slow (a
relay in front of snmpd that holds each reply back for three seconds). Each device gives at least 40 objects a poll. The
load is sustained when no healthy device misses a turn, fails or is called slow, and the collector's timers are on time.
Beside it stands the bare loop of pysnmp over the same objects, on the same core in the same run, with no profiles,
rates, documents or landing zone; the ratio compares devices per minute of processor time, so that it holds on a busy
machine too, where ``core_taken_by_others`` tells why a load may not have been sustained.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import psutil

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.e2e.test_snmp import AUTH_KEY, PRIV_KEY, SNMPD, Snmpd, status, wait_until

BARS = {"v2c": 6_000, "v3": 3_000}
OBJECTS = 40
AGENTS = 3
SLOW_SECONDS = 3.2
PROFILES = (
    ["system", "interfaces"],
    ["system", "interfaces", "ucd"],
    ["system", "interfaces", "ucd", "host_resources"],
)
COLLECTOR_CORE, AGENT_CORE = 0, min(1, (os.cpu_count() or 1) - 1)
CREDENTIALS: dict[str, dict[str, str]] = {
    "v2c": {"version": "2c"},
    "v3": {
        "version": "3",
        "user": "sha-aes",
        "auth_protocol": "SHA",
        "priv_protocol": "AES",
        "auth_key": AUTH_KEY,
        "priv_key": PRIV_KEY,
    },
}


class Relay(threading.Thread):
    """A slow device: passes requests to an agent at once and its replies back after a while."""

    def __init__(self, agent: tuple[str, int], delay: float) -> None:
        super().__init__(daemon=True)
        self._agent, self._delay = agent, delay
        self._front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._front.bind(("127.0.0.1", 0))
        self.address = "127.0.0.1:" + str(self._front.getsockname()[1])

    def run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        relay = self

        class Back(asyncio.DatagramProtocol):
            def __init__(self, client: Any) -> None:
                self.client = client

            def datagram_received(self, data: bytes, _: Any) -> None:
                loop.call_later(relay._delay, front.sendto, data, self.client)
                loop.call_later(30, self.transport.close)

            def connection_made(self, transport: Any) -> None:
                self.transport = transport

        class Front(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, client: Any) -> None:
                tasks.add(task := loop.create_task(self._pass(data, client)))
                task.add_done_callback(tasks.discard)

            async def _pass(self, data: bytes, client: Any) -> None:
                back, _ = await loop.create_datagram_endpoint(lambda: Back(client), remote_addr=relay._agent)
                back.sendto(data)

        tasks: set[asyncio.Task[None]] = set()
        front, _ = await loop.create_datagram_endpoint(Front, sock=self._front)
        await asyncio.Event().wait()


@contextmanager
def agents() -> Iterator[list[Snmpd]]:
    """Real agents, pinned away from the collector."""
    folder = Path(tempfile.mkdtemp(prefix="bench-snmp-"))
    made = [Snmpd(folder / f"agent-{i}") for i in range(AGENTS)]
    try:
        for agent in made:
            agent.start()
            assert agent.process is not None
            psutil.Process(agent.process.pid).cpu_affinity([AGENT_CORE])
        yield made
    finally:
        for agent in made:
            agent.stop()
        shutil.rmtree(folder, ignore_errors=True)


# --- the worker: in a process of its own, pinned --------------------------------------------------------------------


async def _saturate(task: dict[str, Any]) -> dict[str, float]:
    """Poll as fast as one core can: through the product's poller and documents, and with bare pysnmp calls."""
    from aiops_assets.collectors.document import document, encode
    from aiops_assets.collectors.snmp.poll import SnmpPoller
    from aiops_assets.collectors.snmp.pysnmp_engine import PysnmpEngine
    from aiops_assets.config import Device

    engine = PysnmpEngine()
    pollers = deque(
        SnmpPoller(Device(name=f"d{i}", address=address, snmp=task["snmp"], profiles=tuple(task["profiles"])), engine)
        for i, address in enumerate(task["addresses"] * 20)
    )
    for poller in pollers:
        outcome = await poller.poll()
        assert outcome.error is None, outcome.error
    objects = 0
    polls = 0
    until = time.perf_counter() + task["seconds"]
    began, cpu = time.perf_counter(), time.process_time()

    async def loop_of_polls() -> None:
        nonlocal objects, polls
        while time.perf_counter() < until:
            poller = pollers.popleft()
            start = time.perf_counter()
            outcome = await poller.poll()
            assert outcome.error is None, outcome.error
            encode(document(poller.name, "snmp", time.time_ns() // 1000, outcome, time.perf_counter() - start))
            objects += poller.objects
            polls += 1
            pollers.append(poller)

    await asyncio.gather(*(loop_of_polls() for _ in range(20)))
    took, spent = time.perf_counter() - began, time.process_time() - cpu
    plan = next(iter(pollers))
    used = sum(p.rows * len(p.columns) for p in plan._plans.values()) + len(plan._singles)

    # The bare loop asks for the same objects with the same calls.
    device_plan = next(p for p in plan._plans.values() if p.columns)
    sessions = [poller._session for poller in pollers]
    per_poll = objects / max(polls, 1)
    columns = list(device_plan.columns.values())
    raw_objects = 0
    until = time.perf_counter() + task["seconds"]
    raw_cpu = time.process_time()

    async def bare(session: Any) -> None:
        from pysnmp.hlapi.v1arch import asyncio as v1
        from pysnmp.hlapi.v3arch import asyncio as v3
        from pysnmp.proto.rfc1902 import ObjectName

        nonlocal raw_objects
        pairs = [(ObjectName(oid), v1.Null("")) for oid in columns]
        repetitions = device_plan.rows + 1
        while time.perf_counter() < until:
            if session.version == "3":
                shared = session._shared.engine
                arguments = (shared, session._user, session._target, session._context, 0, repetitions, *pairs)
                _, _, _, found = await v3.bulk_cmd(*arguments, lookupMib=False)
            else:
                arguments = (session._dispatcher(), session._community, session._target, 0, repetitions, *pairs)
                _, _, _, found = await v1.bulk_cmd(*arguments, lookupMib=False)
            raw_objects += len(found)

    await asyncio.gather(*(bare(session) for session in sessions[:20]))
    raw_cpu = time.process_time() - raw_cpu
    engine.close()
    return {
        "devices_per_minute": polls / took * 60,
        "cpu_ms_per_poll": spent / max(polls, 1) * 1000,
        "objects": per_poll,
        "used": used,
        "raw_devices_per_core_minute": raw_objects / per_poll / raw_cpu * 60,
    }


def worker(task: dict[str, Any]) -> dict[str, float]:
    """Run ``_saturate`` in a fresh process on the collector's core."""
    command = ["taskset", "-c", str(COLLECTOR_CORE)] if shutil.which("taskset") else []
    command += [sys.executable, __file__, "--worker", json.dumps(task)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if shown.returncode != 0:
        raise RuntimeError(shown.stderr[-2000:])
    return dict(json.loads(shown.stdout.splitlines()[-1]))


# --- the collector process under a paced load -----------------------------------------------------------------------


def paced(
    version: str, per_minute: int, interval: int, seconds: float, made: list[Snmpd], profiles: list[str]
) -> dict[str, Any]:
    """One collector process with as many devices as give this load; what it did in ``seconds`` after its warm-up."""
    count = per_minute * interval // 60
    slow, dead = Relay(("127.0.0.1", made[0].port), SLOW_SECONDS), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    dead.bind(("127.0.0.1", 0))
    slow.start()
    addresses = {"slow": slow.address, "dead": f"127.0.0.1:{dead.getsockname()[1]}"}
    kinds = ["slow" if i % 100 == 0 else "dead" if i % 100 == 50 else "good" for i in range(count)]
    devices = [
        {
            "name": f"{kind}-{i}",
            "address": addresses.get(kind, made[i % len(made)].address),
            "interval": interval,
            "profiles": profiles,
            "snmp": CREDENTIALS[version],
        }
        for i, kind in enumerate(kinds)
    ]
    home = Path(tempfile.mkdtemp(prefix="bench-snmp-home-"))
    (home / "aiops.yaml").write_bytes(orjson.dumps({"devices": devices}))
    script = "import sys; from aiops_assets.settings import load_settings; "
    script += "from aiops_assets.collectors.scheduler import run; sys.exit(run(load_settings()))"
    command = ["taskset", "-c", str(COLLECTOR_CORE)] if shutil.which("taskset") else []
    process = subprocess.Popen(
        [*command, sys.executable, "-c", script], env=os.environ | {"AIOPS_HOME": str(home)}, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 120 + 3 * interval
        while True:
            found = status(home)["devices"]
            waiting = [n for n, d in found.items() if not d["polls"] and not n.startswith("slow")]
            if len(found) > count and not waiting:
                break
            if time.monotonic() > until:
                raise RuntimeError(f"{len(waiting)} of {count} devices were not polled even once")
            time.sleep(1)
        own = psutil.Process(process.pid)
        seen = status(home)["updated_at"]
        wait_until(lambda: status(home)["updated_at"] > seen, 30, "a fresh status")
        before, waited, began, cpu = status(home), run_delay(process.pid), time.monotonic(), sum(own.cpu_times()[:2])
        lags = []
        while time.monotonic() - began < seconds:
            time.sleep(1)
            lags.append(status(home)["lag"])
        after, cpu = status(home), sum(own.cpu_times()[:2]) - cpu
        elapsed, waited = time.monotonic() - began, run_delay(process.pid) - waited
        took = (after["updated_at"] - before["updated_at"]) / 1e6
        memory = own.memory_info().rss
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    finally:
        process.kill()
        process.wait(10)
        dead.close()
    done: Counter[str] = Counter()
    faults: list[str] = []
    durations = []
    for name, device in after["devices"].items():
        kind = name.partition("-")[0]
        done[kind] += device["polls"] - before["devices"][name]["polls"]
        if kind == "good":
            durations.append(device["duration"])
            skipped = device["skipped"] - before["devices"][name]["skipped"]
            if not device["ok"] or device["error"] or device["slow"] or skipped:
                faults.append(f"{name}: {device}")
    named = all(
        (d["slow"] if name.startswith("slow") else not d["ok"])
        for name, d in after["devices"].items()
        if name.startswith(("slow", "dead"))
    )
    shutil.rmtree(home, ignore_errors=True)
    durations.sort()
    return {
        "devices": count,
        "polls_per_minute": sum(done[kind] for kind in ("good", "slow", "dead")) / took * 60,
        "good_polls_per_minute": done["good"] / took * 60,
        "expected_good_per_minute": kinds.count("good") * 60 / interval,
        "cpu": cpu / elapsed,
        # the part of the time in which the collector was ready to run and another process had its core
        "core_taken_by_others": waited / elapsed,
        "devices_per_core_minute": sum(done[kind] for kind in ("good", "slow", "dead")) / took / (cpu / elapsed) * 60,
        "memory_mb": memory / 1e6,
        "lag_max": max(lags),
        "left_out": after["left_out"] - before["left_out"],
        "p50_ms": durations[len(durations) // 2] * 1000,
        "p99_ms": durations[len(durations) * 99 // 100] * 1000,
        "faults": faults,
        "named": named,
        "exit": code,
        "documents_waiting": after["landing"]["waiting"],
    }


def run_delay(pid: int) -> float:
    """Seconds that a process's main thread has waited for a processor although it could have run (Linux)."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Rows {"name", "value", "unit", "reference", "reference_value", "ratio", "bar", "ok"}."""
    if SNMPD is None:
        return []
    rows: list[dict[str, Any]] = []
    with agents() as made:
        for version, bar in BARS.items():
            task = {
                "snmp": CREDENTIALS[version],
                "addresses": [agent.address for agent in made],
                "seconds": 3 if quick else 8,
            }
            for profiles in PROFILES:
                most = worker(task | {"profiles": profiles})
                if most["used"] >= OBJECTS:
                    break
            interval, seconds = (20, 25) if quick else (60, 65)
            # Four fifths of what the core can do leave room for the scheduler, the status file and collections.
            load = bar if quick else max(bar, int(most["devices_per_minute"] * 0.7 / 600) * 600)
            found = paced(version, load, interval, seconds, made, profiles)
            if not quick and load > bar and (found["faults"] or found["lag_max"] > 1):
                load = bar
                found = paced(version, load, interval, seconds, made, profiles)
            sustained = not found["faults"] and found["lag_max"] <= 1 and found["exit"] == 0 and found["named"]
            sustained = sustained and found["good_polls_per_minute"] >= 0.98 * found["expected_good_per_minute"]
            rows.append(
                {
                    "name": f"snmp_{version}_devices_per_minute",
                    "value": round(found["good_polls_per_minute"] / 0.98) if sustained else 0,
                    "unit": "devices/min",
                    "reference": "bare pysnmp loop over the same objects, devices per minute of processor time",
                    "reference_value": round(most["raw_devices_per_core_minute"]),
                    "ratio": round(found["devices_per_core_minute"] / most["raw_devices_per_core_minute"], 3),
                    "bar": bar,
                    "ok": sustained and load >= bar,
                    "detail": {
                        "objects_used_per_poll": most["used"],
                        "objects_received_per_poll": round(most["objects"], 1),
                        "saturated_devices_per_minute": round(most["devices_per_minute"]),
                        "cpu_ms_per_poll_saturated": round(most["cpu_ms_per_poll"], 2),
                        **{k: (round(v, 3) if isinstance(v, float) else v) for k, v in found.items() if k != "faults"},
                        "faults": len(found["faults"]),
                        "first_fault": next(iter(found["faults"]), None),
                    },
                }
            )
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--worker")
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(asyncio.run(_saturate(json.loads(options.worker)))))
    else:
        print(json.dumps(run(options.quick), indent=2))
