"""SNMP against a real net-snmp agent, and against agents that misbehave as real ones do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
from pyasn1.codec.ber import decoder, encoder
from pysnmp.proto import api

from aiops_assets.collectors.document import Poll
from aiops_assets.collectors.snmp.engine import Engine, Oid, oid_text, parse_oid
from aiops_assets.collectors.snmp.poll import SnmpPoller, poll_once
from aiops_assets.collectors.snmp.pysnmp_engine import PysnmpEngine
from aiops_assets.collectors.snmp.walk import End, Pace, Walk, walk
from aiops_assets.config import Device
from aiops_assets.landing.reader import read_segment, writers
from aiops_assets.landing.segment import Delivery

SNMPD = shutil.which("snmpd") or ("/usr/sbin/snmpd" if Path("/usr/sbin/snmpd").exists() else None)
needs_snmpd = pytest.mark.skipif(SNMPD is None, reason="snmpd is not installed (apt-get install snmpd)")

USERS = {
    "sha-aes": {"auth_protocol": "SHA", "priv_protocol": "AES"},
    "sha256-aes": {"auth_protocol": "SHA256", "priv_protocol": "AES"},
    "md5-des": {"auth_protocol": "MD5", "priv_protocol": "DES"},
}
_NET_SNMP = {"SHA": "SHA", "SHA256": "SHA-256", "MD5": "MD5"}
AUTH_KEY, PRIV_KEY = "authentic-phrase", "private-phrase"


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {seconds:.0f} s")


@dataclass
class Snmpd:
    """A real agent on a port of its own, with everything it keeps in ``folder``."""

    folder: Path
    port: int = field(default_factory=free_udp_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        assert SNMPD is not None
        persistent = self.folder / "persistent"
        persistent.mkdir(parents=True, exist_ok=True)
        users = [
            f"createUser {name} {_NET_SNMP[user['auth_protocol']]} {AUTH_KEY} {user['priv_protocol']} {PRIV_KEY}"
            for name, user in USERS.items()
        ]
        if not (persistent / "snmpd.conf").exists():
            (persistent / "snmpd.conf").write_text("\n".join(users) + "\n")
        (self.folder / "snmpd.conf").write_text(
            f"agentaddress udp:127.0.0.1:{self.port}\nrocommunity public 127.0.0.1\nsysName agent-under-test\n"
            "sysLocation test bench\n" + "".join(f"rouser {name} authpriv\n" for name in USERS)
        )
        command = [SNMPD, "-f", "-Lf", str(self.folder / "snmpd.log")]
        places = {"SNMPCONFPATH": f"{self.folder}:{persistent}", "SNMP_PERSISTENT_DIR": str(persistent), "MIBS": ""}
        environment = os.environ | places
        self.process = subprocess.Popen([*command, "-I", "-smux"], env=environment)
        wait_until(self.answers, 20, "snmpd answers")

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "snmpd.log").read_text()
        return asyncio.run(poll_once(device(self.address, profiles=("system",), timeout=0.5, retries=0)))[1].up

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None


@pytest.fixture(scope="module")
def snmpd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Snmpd]:
    agent = Snmpd(tmp_path_factory.mktemp("snmpd"))
    agent.start()
    try:
        yield agent
    finally:
        agent.stop()


def device(address: str, name: str = "agent", version: str = "2c", user: str | None = None, **fields: Any) -> Device:
    snmp: dict[str, Any] = {"version": version}
    if user is not None:
        snmp = {"version": "3", "user": user, "auth_key": AUTH_KEY, "priv_key": PRIV_KEY} | USERS[user]
    return Device(name=name, address=address, snmp=snmp | fields.pop("snmp", {}), **fields)


def twice(target: Device) -> Poll:
    """The second poll of a device, which has rates."""

    async def both() -> Poll:
        engine = PysnmpEngine()
        try:
            poller = SnmpPoller(target, engine)
            first = await poller.poll()
            assert first.up, first.error
            # Rates need some time between two samples.
            await asyncio.sleep(0.1)
            return await poller.poll()
        finally:
            engine.close()

    return asyncio.run(both())


def series(outcome: Poll) -> dict[tuple[Any, ...], float]:
    return {(p["metric"], *sorted(p["labels"].items())): p["value"] for p in outcome.points}


VERSIONS = [
    pytest.param({"version": "1"}, id="v1"),
    pytest.param({"version": "2c"}, id="v2c"),
    *(pytest.param({"user": user}, id=f"v3-{user}") for user in USERS),
]


@needs_snmpd
@pytest.mark.parametrize("how", VERSIONS)
def test_a_real_agent_gives_canonical_metrics(snmpd: Snmpd, how: dict[str, Any]) -> None:
    outcome = twice(device(snmpd.address, **how))
    assert outcome.error is None
    found = series(outcome)
    assert found["system.network.up", ("device", "lo")] == 1.0
    assert ("system.network.io", ("device", "lo"), ("direction", "receive")) in found
    assert 0 < found["system.memory.utilization",] < 1
    assert found["system.memory.usage",] < psutil.virtual_memory().total
    assert ("system.cpu.load_average.1m",) in found
    assert 0 <= found["system.filesystem.utilization", ("mountpoint", "/")] <= 1
    assert found["system.processes.count",] > 1
    assert found["system.uptime",] == pytest.approx(time.time() - psutil.boot_time(), abs=30)
    assert all(p["value"] >= 0 for p in outcome.points)


@needs_snmpd
def test_every_version_and_security_level_sees_the_same_series(snmpd: Snmpd) -> None:
    seen = {str(p.values[0]): set(series(twice(device(snmpd.address, **p.values[0])))) for p in VERSIONS}  # type: ignore[arg-type]
    reference = seen[str({"version": "2c"})]
    # The processor's rates need ticks between the two polls, and there may be none.
    differences = {key for found in seen.values() for key in found ^ reference}
    assert {key for key in differences if key[0] != "system.cpu.utilization"} == set()


@needs_snmpd
def test_the_agent_says_who_it_is(snmpd: Snmpd) -> None:
    document, outcome = asyncio.run(poll_once(device(snmpd.address, name="sw", site="berlin", labels={"rack": "a3"})))
    assert outcome.error is None
    assert document["host"] == "sw"
    assert document["points"][0] | {"value": 1.0} == {
        "metric": "aiops.device.up", "value": 1.0, "unit": "1", "kind": "gauge", "labels": {"kind": "snmp"},
    }  # fmt: skip
    entity = document["entity"]
    assert entity["kind"] == "device"
    assert entity["site"] == "berlin"
    assert entity["labels"]["sys_name"] == "agent-under-test"
    assert entity["labels"]["sys_location"] == "test bench"
    assert entity["labels"]["rack"] == "a3"


@needs_snmpd
def test_our_walk_finds_what_snmpbulkwalk_finds(snmpd: Snmpd) -> None:
    if shutil.which("snmpbulkwalk") is None:
        pytest.skip("snmpbulkwalk is not installed (apt-get install snmp)")
    root = "1.3.6.1.2.1.25.2"
    command = ["snmpbulkwalk", "-v2c", "-cpublic", "-On", "-Oq", snmpd.address, root]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    names = [line.split()[0].lstrip(".") for line in shown.splitlines()]

    async def ours() -> Walk:
        engine = PysnmpEngine()
        task = Walk.of([parse_oid(root)])
        await walk(engine.session(device(snmpd.address)), task, Pace())
        engine.close()
        return task

    task = asyncio.run(ours())
    assert task.complete
    assert [oid_text((*task.columns[0].root, *index)) for index, _, _ in task.columns[0].rows] == names
    assert len(names) > 10


@needs_snmpd
def test_a_wrong_key_is_called_a_wrong_key(snmpd: Snmpd) -> None:
    wrong = device(snmpd.address, user="sha-aes", snmp={"auth_key": "not-the-phrase"})
    _, outcome = asyncio.run(poll_once(wrong))
    assert not outcome.up
    assert outcome.error is not None
    assert "does not accept the credentials" in outcome.error


@needs_snmpd
def test_an_unknown_user_is_refused_and_a_wrong_community_hears_nothing(snmpd: Snmpd) -> None:
    _, stranger = asyncio.run(poll_once(device(snmpd.address, user="sha-aes", snmp={"user": "nobody"})))
    assert stranger.error is not None
    assert "does not accept the credentials" in stranger.error
    _, silent = asyncio.run(poll_once(device(snmpd.address, snmp={"community": "x"}, timeout=0.1, retries=1)))
    assert not silent.up
    assert silent.error is not None
    assert "no reply" in silent.error


@needs_snmpd
def test_one_user_name_with_two_sets_of_keys_does_not_mix_them_up(snmpd: Snmpd) -> None:
    async def both() -> list[bool]:
        engine = PysnmpEngine()
        good = SnmpPoller(device(snmpd.address, user="sha-aes"), engine)
        bad = SnmpPoller(device(snmpd.address, user="sha-aes", snmp={"auth_key": "not-the-phrase"}), engine)
        seen = []
        for poller in (good, bad, good, bad):
            seen.append((await poller.poll()).up)
        engine.close()
        return seen

    assert asyncio.run(both()) == [True, False, True, False]


@needs_snmpd
def test_many_polls_at_once_share_one_socket_and_all_succeed(snmpd: Snmpd) -> None:
    async def crowd() -> list[Poll]:
        engine = PysnmpEngine()
        ways: list[dict[str, Any]] = [{"version": "2c"}, {"user": "sha-aes"}]
        pollers = [
            SnmpPoller(device(snmpd.address, name=f"d{i}", profiles=("system",), **ways[i % 2]), engine)
            for i in range(40)
        ]
        try:
            return list(await asyncio.gather(*(poller.poll() for poller in pollers)))
        finally:
            engine.close()

    assert [outcome.error for outcome in asyncio.run(crowd())] == [None] * 40


@needs_snmpd
def test_an_agent_that_restarts_becomes_a_change(tmp_path: Path) -> None:
    agent = Snmpd(tmp_path)
    agent.start()
    try:
        # The saved state says that this agent had been up for a day a minute ago.
        state = {"uptime": [8_640_000, time.time() - 60], "host_uptime": None}

        async def poll() -> Poll:
            engine = PysnmpEngine()
            try:
                return await SnmpPoller(device(agent.address, name="sw"), engine, state=state).poll()
            finally:
                engine.close()

        change = asyncio.run(poll()).changes[0]
        assert change["kind"] == "reboot"
        assert change["title"] == "sw restarted"
    finally:
        agent.stop()


def across(agent: Snmpd, between: Callable[[], None], polls: int = 3) -> list[Poll]:
    """Polls of one v3 poller before and after something happens to the agent, with one engine that keeps its caches."""

    async def run() -> list[Poll]:
        engine = PysnmpEngine()
        try:
            target = device(agent.address, user="sha-aes", profiles=("system", "interfaces"), timeout=1, retries=1)
            poller = SnmpPoller(target, engine)
            before = await poller.poll()
            await asyncio.to_thread(between)
            return [before, *[await poller.poll() for _ in range(polls)]]
        finally:
            engine.close()

    return asyncio.run(run())


@needs_snmpd
def test_a_v3_agent_that_restarts_is_synchronised_with_again(tmp_path: Path) -> None:
    agent = Snmpd(tmp_path)
    agent.start()

    def restart() -> None:
        agent.stop()
        agent.start()

    try:
        before, *after = across(agent, restart)
        assert before.error is None
        assert after[-1].error is None, after[-1].error
        assert series(before).keys() <= series(after[-1]).keys()
    finally:
        agent.stop()


@needs_snmpd
def test_another_v3_agent_at_the_same_address_is_discovered_anew(tmp_path: Path) -> None:
    first, second = Snmpd(tmp_path / "first"), Snmpd(tmp_path / "second")
    for one in (first, second):
        one.folder.mkdir()
    second.port = first.port
    first.start()

    def replace() -> None:
        first.stop()
        second.start()

    try:
        before, *after = across(first, replace)
        assert before.error is None
        assert after[-1].error is None, after[-1].error
    finally:
        first.stop()
        second.stop()


@needs_snmpd
def test_a_v3_agent_whose_boot_counter_went_back_is_believed_again(tmp_path: Path) -> None:
    agent = Snmpd(tmp_path)
    agent.start()

    def forget() -> None:
        # As after a restore from a backup: the same engine ID with fewer boots than it had.
        agent.stop()
        kept = agent.folder / "persistent" / "snmpd.conf"
        lines = kept.read_text().splitlines()
        kept.write_text("\n".join("engineBoots 1" if line.startswith("engineBoots") else line for line in lines) + "\n")
        agent.start()

    try:
        for _ in range(3):
            agent.stop()
            agent.start()
        before, *after = across(agent, forget)
        assert before.error is None
        assert after[-1].error is None, after[-1].error
    finally:
        agent.stop()


# --- agents that misbehave ------------------------------------------------------------------------------------------


class FakeAgent:
    """A v2c agent in a thread, with one column, that does what real agents were seen to do."""

    def __init__(self, rows: Sequence[tuple[Oid, int]], **behaviour: Any) -> None:
        self.rows = list(rows)
        self.behaviour = behaviour
        self.requests = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.05)
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> FakeAgent:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(5)
        self._socket.close()

    def _serve(self) -> None:
        while not self._end.is_set():
            with contextlib.suppress(TimeoutError):
                message, sender = self._socket.recvfrom(65_535)
                self.requests += 1
                if self.requests in self.behaviour.get("lose", ()) or self.behaviour.get("dead"):
                    continue
                if self._end.wait(self.behaviour.get("delay", 0)):
                    return
                answer = self._answer(message)
                for _ in range(self.behaviour.get("copies", 1)):
                    self._socket.sendto(answer, sender)

    def _answer(self, message: bytes) -> bytes:
        v2 = api.PROTOCOL_MODULES[1]
        request, _ = decoder.decode(message, asn1Spec=v2.Message())
        pdu = v2.apiMessage.get_pdu(request)
        reply = v2.apiMessage.get_response(request)
        answer = v2.apiMessage.get_pdu(reply)
        names = [tuple(name) for name, _ in v2.apiPDU.get_varbinds(pdu)]
        count, skip = 1, len(names)
        if pdu.tagSet == v2.GetBulkRequestPDU.tagSet:
            skip, count = int(v2.apiBulkPDU.get_non_repeaters(pdu)), int(v2.apiBulkPDU.get_max_repetitions(pdu))
        made: list[tuple[Any, Any]] = []
        cursors = names[skip:]
        for name in names[:skip]:
            made.append(self._successor(name))
        for _ in range(count if cursors else 0):
            for position, cursor in enumerate(cursors):
                found = self._successor(cursor)
                made.append(found)
                cursors[position] = found[0]
        largest = self.behaviour.get("largest")
        broken = self.behaviour.get("gen_err")
        if largest is not None and len(made) > largest:
            v2.apiPDU.set_error_status(answer, 1)
            made = []
        elif broken is not None and any(name == broken for name, _ in made):
            v2.apiPDU.set_error_status(answer, 5)
            v2.apiPDU.set_error_index(answer, 1)
            made = [(name, v2.Null("")) for name in names]
        v2.apiPDU.set_varbinds(answer, [(v2.ObjectIdentifier(name), value) for name, value in made])
        encoded = bytes(encoder.encode(reply))
        damaged = self.behaviour.get("damage_over")
        if damaged is not None and len(made) > damaged:
            # A well-formed start and rubbish after it.
            return encoded[: len(encoded) // 2] + b"\xff" * (len(encoded) - len(encoded) // 2)
        return encoded

    def _successor(self, oid: Oid) -> tuple[Oid, Any]:
        v2 = api.PROTOCOL_MODULES[1]
        names = [name for name, _ in self.rows]
        position = names.index(oid) + 1 if oid in names else bisect_right(sorted(names), oid)
        if position >= len(names):
            return oid, v2.EndOfMibView("")
        return names[position], v2.Integer(self.rows[position][1])


ROOT = (1, 3, 6, 1, 4, 1, 99_999, 1)
ROWS = [((*ROOT, i), i) for i in range(1, 41)]


def walk_of(agent: FakeAgent, **fields: Any) -> tuple[Walk, PysnmpEngine]:
    async def fetch() -> tuple[Walk, PysnmpEngine]:
        engine = PysnmpEngine()
        task = Walk.of([ROOT])
        await walk(engine.session(device(agent.address, timeout=0.2, retries=2, **fields)), task, Pace(most=10))
        # Late duplicates must have come in before the socket goes.
        await asyncio.sleep(0)
        engine.close()
        return task, engine

    return asyncio.run(fetch())


def test_a_well_behaved_agent_is_walked_to_its_end() -> None:
    with FakeAgent(ROWS) as agent:
        task, _ = walk_of(agent)
    assert task.complete
    assert [value for _, _, value in task.columns[0].rows] == list(range(1, 41))


def test_an_agent_out_of_order_is_not_walked_for_ever() -> None:
    rows = [*ROWS[:20], ((*ROOT, 5), 0), *ROWS[20:]]
    with FakeAgent(rows) as agent:
        task, _ = walk_of(agent)
    assert task.columns[0].end is End.NOT_INCREASING
    assert len(task.columns[0].rows) == 20


def test_an_agent_that_fails_in_the_middle_gives_its_rows_up_to_there() -> None:
    with FakeAgent(ROWS, gen_err=(*ROOT, 23)) as agent:
        task, _ = walk_of(agent)
    assert task.columns[0].end is End.ERROR
    assert [value for _, _, value in task.columns[0].rows] == list(range(1, 23))


def test_lost_replies_are_asked_for_again() -> None:
    with FakeAgent(ROWS, lose={1, 3, 4, 6}) as agent:
        task, _ = walk_of(agent)
    assert task.complete
    assert len(task.columns[0].rows) == 40
    assert agent.requests > 8


def test_a_reply_that_would_be_too_big_is_asked_for_in_parts() -> None:
    with FakeAgent(ROWS, largest=3) as agent:
        task, _ = walk_of(agent)
    assert task.complete
    assert len(task.columns[0].rows) == 40


def test_duplicated_replies_do_no_harm() -> None:
    with FakeAgent(ROWS, copies=3) as agent:
        task, engine = walk_of(agent)
    assert task.complete
    assert len(task.columns[0].rows) == 40
    assert engine.dropped == 0, "the engine is closed"


def test_a_damaged_reply_fails_at_once_and_smaller_ones_pass() -> None:
    with FakeAgent(ROWS, damage_over=4) as agent:
        began = time.monotonic()
        task, _ = walk_of(agent)
        took = time.monotonic() - began
    assert task.complete
    assert len(task.columns[0].rows) == 40
    assert took < 0.2 * 3, "no timeout was waited for"


def test_a_reply_from_another_address_is_not_believed() -> None:
    with FakeAgent(ROWS, dead=True) as agent:

        async def forge() -> Poll:
            engine = PysnmpEngine()
            poller = SnmpPoller(device(agent.address, timeout=0.3, retries=0), engine)
            task = asyncio.create_task(poller.poll())
            await asyncio.to_thread(wait_until, lambda: agent.requests, 5, "the request")
            pending = engine._dispatcher()._pendingReqs
            (request,) = pending.values()
            forged = FakeAgent([((1, 3, 6, 1, 2, 1, 1, 3, 0), 5)])._answer(request["outgoingMsg"])
            local = engine._dispatcher().transport_dispatcher.get_transport((1, 3, 6, 1, 6, 1, 1)).transport
            port = local.get_extra_info("socket").getsockname()[1]
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.sendto(forged, ("127.0.0.1", port))
            outcome = await task
            assert engine.dropped == 1
            engine.close()
            return outcome

        outcome = asyncio.run(forge())
    assert not outcome.up


def test_a_slow_device_is_cut_and_delays_no_other() -> None:
    rows = [((1, 3, 6, 1, 2, 1, 1, 3, 0), 1_000)]
    with FakeAgent(rows, delay=1.5) as slow, FakeAgent(rows) as quick:

        async def race() -> tuple[Poll, int]:
            engine: Engine = PysnmpEngine()
            tardy = SnmpPoller(device(slow.address, "slow", timeout=4, deadline=3), engine)
            prompt = SnmpPoller(device(quick.address, "quick"), engine)
            task = asyncio.create_task(tardy.poll())
            meanwhile = 0
            while not task.done():
                assert (await prompt.poll()).up
                meanwhile += not task.done()
            engine.close()
            return await task, meanwhile

        outcome, meanwhile = asyncio.run(race())
    assert outcome.cut
    assert outcome.error is not None
    assert "cut after 3 s during" in outcome.error
    assert meanwhile, "the other was polled while the slow one was waited for"


# --- the collector process ------------------------------------------------------------------------------------------


def landed(home: Path) -> list[Delivery]:
    """Every delivery in sealed segments of the collector."""
    folder = home / "landing" / "collector"
    return [
        delivery
        for path in sorted(folder.glob("*.seg"))
        for delivery in read_segment(folder, int(path.stem)).deliveries
    ]


def documents(home: Path) -> list[dict[str, Any]]:
    return [
        document | {"source": delivery.source} for delivery in landed(home) for document in orjson.loads(delivery.body)
    ]


def status(home: Path) -> dict[str, Any]:
    try:
        return dict(orjson.loads((home / "collector" / "status.json").read_bytes()))
    except FileNotFoundError:
        return {"devices": {}, "problems": []}


@contextlib.contextmanager
def collector(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    script = "import sys, logging; logging.basicConfig(level=20); from aiops_assets.settings import load_settings; "
    script += "from aiops_assets.collectors.scheduler import run; sys.exit(run(load_settings()))"
    environment = os.environ | {"AIOPS_HOME": str(home)}
    with (home / "log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-c", script], env=environment, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait(10)


def entry(name: str, address: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "address": address,
        "interval": 1,
        "timeout": 0.2,
        "retries": 0,
        "profiles": ["system"],
    } | fields


def test_the_collector_polls_reloads_names_the_slow_and_the_dead_and_ends_clean(tmp_path: Path) -> None:
    rows = [((1, 3, 6, 1, 2, 1, 1, 3, 0), 1_000)]
    config = tmp_path / "aiops.yaml"

    def write(*devices: dict[str, Any]) -> None:
        # JSON is YAML.
        content = {"collect": {"host": {"interval": "1s"}}, "devices": devices}
        config.with_suffix(".new").write_bytes(orjson.dumps(content))
        config.with_suffix(".new").replace(config)

    with FakeAgent(rows) as good, FakeAgent(rows, delay=5) as slow, FakeAgent(rows, dead=True) as dead:
        devices = [
            entry("good", good.address),
            entry("slow", slow.address, timeout=10, deadline=1.2),
            entry("dead", dead.address),
        ]
        write(*devices)
        with collector(tmp_path) as process:
            host = socket.gethostname()

            def known(name: str, **wanted: Any) -> Callable[[], bool]:
                return lambda: wanted.items() <= status(tmp_path)["devices"].get(name, {}).items()

            wait_until(known("good", ok=True, error=None, slow=False), 20, "the good device is polled")
            wait_until(known(host, ok=True), 20, "this machine is polled")
            wait_until(known("dead", ok=False, slow=False), 20, "the dead device is named")
            wait_until(known("slow", slow=True), 20, "the slow device is named")
            wait_until(lambda: status(tmp_path)["devices"]["slow"]["skipped"] > 0, 20, "the slow device misses turns")
            wait_until(
                lambda: "cut after 1.2 s" in (status(tmp_path)["devices"]["slow"]["error"] or ""),
                20,
                "the slow device is cut",
            )
            write(*devices, entry("late", good.address))
            wait_until(known("late", ok=True), 20, "a device that was added is polled")
            config.write_text("devices: [{name: x}]\n")
            wait_until(lambda: status(tmp_path)["problems"], 20, "a mistake in aiops.yaml is reported")
            polls = status(tmp_path)["devices"]["late"]["polls"]
            wait_until(lambda: status(tmp_path)["devices"]["late"]["polls"] > polls, 20, "polling goes on")
            write(*devices[:1])
            wait_until(
                lambda: set(status(tmp_path)["devices"]) == {host, "good"}, 20, "devices that were removed are gone"
            )
            assert status(tmp_path)["problems"] == []
            second = subprocess.run(
                [sys.executable, "-c", "import sys; from aiops_assets.settings import load_settings; "
                 "from aiops_assets.collectors.scheduler import run; sys.exit(run(load_settings()))"],
                env=os.environ | {"AIOPS_HOME": str(tmp_path)}, capture_output=True, text=True, timeout=30, check=False,
            )  # fmt: skip
            assert second.returncode == 2
            assert second.stderr.strip().count("\n") == 0
            assert "in use by another process" in second.stderr
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    assert writers(tmp_path / "landing") == ["collector"]
    assert not list((tmp_path / "landing" / "collector").glob("*.open"))
    made = documents(tmp_path)
    assert {d["source"] for d in made} == {"host", "snmp"}
    assert {d["host"] for d in made} == {host, "good", "slow", "dead", "late"}
    assert all(delivery.headers["format"] == "collected" for delivery in landed(tmp_path))
    for document in made:
        assert [p["metric"] for p in document["points"][:2]] == ["aiops.device.up", "aiops.device.poll.duration"]
    up = {name: {d["points"][0]["value"] for d in made if d["host"] == name} for name in ("good", "dead")}
    assert up == {"good": {1.0}, "dead": {0.0}}
    stamps = [(d["host"], d["ts"]) for d in made]
    assert len(stamps) == len(set(stamps))
    log = (tmp_path / "log").read_text()
    assert "slow is slow: its poll took" in log
    assert "dead does not answer: no reply" in log
