"""The listener against the senders people have: logger, rsyslog, openssl, snmptrap and snmpinform, on loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest

from aiops_assets.formats import parse
from aiops_assets.formats.batch import Parsed
from aiops_assets.landing.reader import read_segment
from aiops_assets.landing.segment import Delivery
from tests.stack import wait_until

FIRST_PORT, LAST_PORT = 21400, 21599
LOGGER, RSYSLOG = shutil.which("logger"), shutil.which("rsyslogd") or shutil.which("/usr/sbin/rsyslogd")
SNMPTRAP, SNMPINFORM, OPENSSL = shutil.which("snmptrap"), shutil.which("snmpinform"), shutil.which("openssl")
needs_logger = pytest.mark.skipif(LOGGER is None, reason="logger is not installed (apt-get install bsdutils)")
needs_rsyslog = pytest.mark.skipif(RSYSLOG is None, reason="rsyslog is not installed (apt-get install rsyslog)")
needs_snmp = pytest.mark.skipif(SNMPTRAP is None, reason="snmptrap is not installed (apt-get install snmp)")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")

ALICE = {
    "version": "3", "user": "alice", "auth_protocol": "SHA", "auth_key": "authentic-phrase",
    "priv_protocol": "AES", "priv_key": "private-phrase",
}  # fmt: skip
AS_ALICE = (
    *("-v3", "-u", "alice", "-l", "authPriv", "-a", "SHA", "-A", "authentic-phrase"),
    *("-x", "AES", "-X", "private-phrase"),
)


def free_port() -> int:
    """A port that neither TCP nor UDP uses."""
    for port in range(FIRST_PORT, LAST_PORT):
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp, contextlib.suppress(OSError):
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))
            if port not in _USED:
                _USED.add(port)
                return port
    raise AssertionError("no free port")


_USED: set[int] = set()


class Listener:
    """A listener process of its own home folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.process: subprocess.Popen[bytes] | None = None

    def declare(self, **listen: Any) -> None:
        new = self.home / "aiops.new"
        # JSON is YAML.
        new.write_bytes(orjson.dumps({"collect": {"host": {"enabled": False}}, "listen": listen}))
        new.replace(self.home / "aiops.yaml")

    def start(self) -> None:
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "aiops_assets.cli", "listen"],
                env=os.environ | {"AIOPS_HOME": str(self.home), "AIOPS_SEGMENT_MAX_AGE_SECONDS": "0.1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: any(one["open"] for one in self.status().values()), 30, "the listener listens")

    def status(self) -> dict[str, Any]:
        with contextlib.suppress(FileNotFoundError):
            content = orjson.loads((self.home / "listener" / "status.json").read_bytes())
            if self.process is not None and content["pid"] == self.process.pid:
                return content["listeners"]  # type: ignore[no-any-return]
        return {}

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(20) == 0

    def landed(self) -> list[Delivery]:
        folder = self.home / "landing" / "listener"
        found = []
        for path in sorted(folder.glob("*.seg")):
            found += read_segment(folder, int(path.stem)).deliveries
        return found

    def parsed(self, source: str) -> Parsed:
        return parse(source, [one for one in self.landed() if one.source == source])

    def logs(self, source: str = "syslog") -> pl.DataFrame:
        return self.parsed(source).logs


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    made = Listener(tmp_path)
    try:
        yield made
    finally:
        if made.process is not None and made.process.poll() is None:
            made.process.kill()
            made.process.wait(10)


def run(*command: str | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@needs_logger
def test_logger_reaches_the_log_table_over_udp_and_tcp_with_both_framings(listener: Listener) -> None:
    port = str(free_port())
    listener.declare(syslog={"udp": [f"127.0.0.1:{port}"], "tcp": [f"127.0.0.1:{port}"]})
    listener.start()
    to = ("-n", "127.0.0.1", "-P", port)
    run(LOGGER, *to, "-d", "--rfc3164", "-t", "shop", "-p", "local0.err", "over udp")
    run(LOGGER, *to, "-d", "--rfc5424", "-t", "shop", "--sd-id", "ex@32473", "--sd-param", 'k="v"', "with data")
    run(LOGGER, *to, "-T", "--octet-count", "-t", "shop", "counted\nline")
    run(LOGGER, *to, "-T", "-t", "shop", "by newline")
    wait_until(lambda: listener.logs().height >= 4, 20, "four messages are stored")
    logs = {row["body"]: row for row in listener.logs().iter_rows(named=True)}
    assert set(logs) == {"over udp", "with data", "counted\nline", "by newline"} or "counted" in " ".join(logs)
    assert {row["app"] for row in logs.values()} == {"shop"}
    assert {row["host"] for row in logs.values()} == {socket.gethostname().split(".")[0]}
    assert logs["over udp"]["severity_number"] == 17
    attributes = orjson.loads(logs["with data"]["attributes"])
    assert attributes["syslog.structured_data"]["ex@32473"] == {"k": "v"}
    assert orjson.loads(logs["over udp"]["attributes"])["syslog.facility"] == "local0"


@needs_rsyslog
def test_rsyslog_forwards_with_both_protocols_and_nothing_is_lost(listener: Listener, tmp_path: Path) -> None:
    port, count = free_port(), 300
    listener.declare(syslog={"udp": [f"127.0.0.1:{port}"], "tcp": [f"127.0.0.1:{port}"]})
    listener.start()
    source = free_port()
    config = tmp_path / "rsyslog.conf"
    config.write_text(
        f"""
global(workDirectory="{tmp_path}")
module(load="imtcp")
input(type="imtcp" port="{source}" address="127.0.0.1")
action(type="omfwd" target="127.0.0.1" port="{port}" protocol="tcp" template="RSYSLOG_SyslogProtocol23Format"
       TCP_Framing="octet-counted")
action(type="omfwd" target="127.0.0.1" port="{port}" protocol="udp" template="RSYSLOG_TraditionalForwardFormat")
"""
    )
    rsyslogd = subprocess.Popen(
        [str(RSYSLOG), "-n", "-f", str(config), "-i", str(tmp_path / "rsyslog.pid")],
        stdout=subprocess.DEVNULL,
        stderr=(tmp_path / "rsyslog.log").open("wb"),
        stdin=subprocess.DEVNULL,
    )
    try:

        def connects() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", source)) == 0

        wait_until(connects, 20, "rsyslog listens")
        with socket.create_connection(("127.0.0.1", source), 10) as feed:
            for number in range(count):
                feed.sendall(f"<29>Nov 20 07:48:19 edge-1 worker[{number}]: job {number} done\n".encode())
        wait_until(lambda: listener.logs().height >= 2 * count, 30, "all messages are stored")
    finally:
        rsyslogd.terminate()
        rsyslogd.wait(20)
    logs = listener.logs().filter(pl.col("app") == "worker")
    assert logs.height == 2 * count
    assert logs["body"].value_counts()["count"].unique().to_list() == [2]
    assert logs["pid"].unique().sort().to_list() == list(range(count))
    assert logs["host"].unique().to_list() == ["edge-1"]
    assert logs["severity_number"].unique().to_list() == [10]


@needs_openssl
def test_tls_takes_only_clients_whose_certificates_the_authority_signed(listener: Listener, tmp_path: Path) -> None:
    import ssl

    subject = ("-subj", "/CN=localhost", "-days", "2")
    for name in ("server", "stranger"):
        made = run(
            OPENSSL, "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject,
            "-keyout", str(tmp_path / f"{name}.key"), "-out", str(tmp_path / f"{name}.pem"),
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
    port = free_port()
    server = str(tmp_path / "server.pem")
    listener.declare(
        syslog={
            "tls": [f"127.0.0.1:{port}"],
            "certificate": server,
            "private_key": str(tmp_path / "server.key"),
            "client_ca": server,
        }
    )
    listener.start()

    def send(name: str, text: str) -> None:
        context = ssl.create_default_context(cafile=server)
        context.check_hostname = False
        context.load_cert_chain(tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
        with socket.create_connection(("127.0.0.1", port), 10) as plain, context.wrap_socket(plain) as secure:
            secure.sendall(f"<13>1 - h a - - - {text}\n".encode())
            secure.unwrap()

    with contextlib.suppress(OSError):
        send("stranger", "not allowed")
    send("server", "allowed")
    wait_until(lambda: listener.logs().height, 20, "the message is stored")
    assert listener.logs()["body"].to_list() == ["allowed"]


def test_only_networks_that_are_allowed_may_send_and_the_configuration_is_read_again(listener: Listener) -> None:
    port, other = free_port(), free_port()
    listener.declare(syslog={"udp": [f"127.0.0.1:{port}"], "allow": ["192.0.2.0/24"]})
    listener.start()
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendto(b"<13>nobody hears this", ("127.0.0.1", port))
        wait_until(lambda: listener.status()[f"udp 127.0.0.1:{port}"]["refused"] == 1, 20, "the sender is refused")
        listener.declare(syslog={"udp": [f"127.0.0.1:{port}", f"127.0.0.1:{other}"], "zone": "Europe/Berlin"})
        wait_until(lambda: listener.status().get(f"udp 127.0.0.1:{other}", {}).get("open"), 20, "the new port is open")
        sender.sendto(b"<13>Nov 20 07:48:19 h app: heard", ("127.0.0.1", port))
        sender.sendto(b"<13>Nov 20 07:48:19 h app: heard too", ("127.0.0.1", other))
    wait_until(lambda: listener.logs().height == 2, 20, "both messages are stored")
    hour = listener.logs().select(pl.col("ts").cast(pl.Datetime("us")).dt.hour())["ts"].unique().to_list()
    assert hour == [6]
    wait_until(
        lambda: listener.status()[f"udp 127.0.0.1:{port}"]["last_sender"] == "127.0.0.1", 20, "the sender is named"
    )
    listener.stop()
    assert not list((listener.home / "landing" / "listener").glob("*.open"))


def test_an_address_that_is_in_use_is_named_and_taken_when_it_is_free(listener: Listener) -> None:
    port, other = free_port(), free_port()
    with socket.socket(type=socket.SOCK_DGRAM) as occupant:
        occupant.bind(("127.0.0.1", port))
        listener.declare(syslog={"udp": [f"127.0.0.1:{port}", f"127.0.0.1:{other}"]})
        listener.start()
        wait_until(lambda: listener.status()[f"udp 127.0.0.1:{port}"]["error"], 20, "the problem is named")
    wait_until(lambda: listener.status()[f"udp 127.0.0.1:{port}"]["open"], 30, "the address is taken")


@needs_snmp
def test_traps_of_every_version_are_stored_and_strangers_refused(listener: Listener) -> None:
    port = free_port()
    to, where = f"127.0.0.1:{port}", f"traps 127.0.0.1:{port}"
    listener.declare(traps={"udp": [to], "communities": ["public"], "users": [ALICE]})
    listener.start()
    down, index = "1.3.6.1.6.3.1.1.5.3", ("1.3.6.1.2.1.2.2.1.1.7", "i", "7")
    engine = ("-e", "0x8000000001020304")
    assert run(SNMPTRAP, "-v2c", "-c", "public", to, "", down, *index).returncode == 0
    assert run(SNMPTRAP, "-v1", "-c", "public", to, "1.3.6.1.4.1.318", "10.0.0.9", "6", "5", "1").returncode == 0
    assert run(SNMPTRAP, *engine, *AS_ALICE, to, "", "1.3.6.1.6.3.1.1.5.1").returncode == 0
    run(SNMPTRAP, "-v2c", "-c", "guess", to, "", down, *index)
    run(SNMPTRAP, *engine, "-v3", "-u", "alice", "-l", "noAuthNoPriv", to, "", down)
    run(SNMPTRAP, *engine, "-v3", "-u", "mallory", "-l", "noAuthNoPriv", to, "", down)
    wrong = [part if part != "authentic-phrase" else "another-phrase" for part in AS_ALICE]
    run(SNMPTRAP, *engine, *wrong, to, "", down)
    wait_until(lambda: listener.status()[where]["refused"] == 4, 20, "four senders are refused")
    wait_until(lambda: listener.logs("snmp_trap").height == 3, 20, "three traps are stored")
    parsed = listener.parsed("snmp_trap")
    assert sorted(parsed.logs["body"].str.split(" ").list.first()) == ["coldStart", "linkDown", "upsOnBattery"]
    assert parsed.changes["kind"].to_list() == ["reboot"]
    assert sorted(parsed.external["name"]) == ["linkDown", "upsOnBattery"]
    assert "guess" not in str(listener.status())
    assert b"authentic-phrase" not in b"".join(one.body for one in listener.landed())


@needs_snmp
@pytest.mark.parametrize("version", [("-v2c", "-c", "public"), AS_ALICE], ids=["v2c", "v3"])
def test_an_inform_is_answered_when_it_is_durable(listener: Listener, version: tuple[str, ...]) -> None:
    to = f"127.0.0.1:{free_port()}"
    listener.declare(traps={"udp": [to], "communities": ["public"], "users": [ALICE]})
    listener.start()
    sent = run(
        SNMPINFORM, "-t", "3", "-r", "2", *version, to, "", "1.3.6.1.6.3.1.1.5.4", "1.3.6.1.2.1.2.2.1.1.7", "i", "7"
    )
    assert sent.returncode == 0, sent.stderr
    # What was answered is there even when the process dies now.
    assert listener.process is not None
    listener.process.kill()
    listener.process.wait(10)
    listener.start()
    listener.stop()
    assert listener.logs("snmp_trap")["body"].to_list() == ["linkUp ifIndex=7"]
    external = listener.parsed("snmp_trap").external
    assert external["state"].to_list() == ["resolved"]
    refused = run(SNMPINFORM, "-t", "1", "-r", "0", "-v2c", "-c", "guess", to, "", "1.3.6.1.6.3.1.1.5.4")
    assert refused.returncode != 0


def test_up_starts_the_listener_when_something_is_declared(listener: Listener) -> None:
    port = free_port()
    listener.declare(syslog={"udp": [f"127.0.0.1:{port}"]})
    with (listener.home / "log").open("ab") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "aiops_assets.cli", "up", "--only", "listener"],
            env=os.environ | {"AIOPS_HOME": str(listener.home), "AIOPS_SEGMENT_MAX_AGE_SECONDS": "0.1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    status = listener.home / "listener" / "status.json"
    try:
        wait_until(status.exists, 60, "the listener is started")
        wait_until(lambda: orjson.loads(status.read_bytes())["listeners"], 20, "it listens")
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            sender.sendto(b"<13>Nov 20 07:48:19 h app: heard", ("127.0.0.1", port))
        wait_until(lambda: listener.logs().height == 1, 20, "the message is stored")
    finally:
        supervisor.send_signal(signal.SIGINT)
        supervisor.wait(40)
