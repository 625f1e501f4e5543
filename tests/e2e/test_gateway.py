"""The gateway as a process: limits, full disks, and kill -9 under load."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from aiops_assets.landing.reader import gaps, numbers, read_segment
from aiops_assets.landing.segment import Delivery
from aiops_assets.landing.writer import SegmentWriter

#: reading the certificates of the machine takes longer than most requests here
TLS = ssl.create_default_context()
SERVE = """
import resource, sys
from aiops_assets.gateway.app import serve
from aiops_assets.settings import load_settings
limit = int(sys.argv[1])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
serve(load_settings())
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class GatewayProcess:
    """One gateway on one home folder; ``settings`` are variables without their prefix."""

    home: Path
    settings: dict[str, str] = field(default_factory=dict)
    file_size_limit: int = 0
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None
    client: httpx.Client = field(default_factory=lambda: httpx.Client(verify=TLS, trust_env=False, timeout=20))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        return {"x-api-key": (self.home / "keys" / "admin.key").read_text().strip()}

    def launch(self) -> subprocess.Popen[str]:
        own = {"HOME": str(self.home), "GATEWAY_PORT": str(self.port)} | self.settings
        environment = os.environ | {f"AIOPS_{name}": value for name, value in own.items()}
        command = [sys.executable, "-c", SERVE, str(self.file_size_limit)]
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        return self.process

    def start(self) -> None:
        process = self.launch()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[1]
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.02)
        raise AssertionError("the gateway did not start")

    def kill(self, number: signal.Signals = signal.SIGKILL) -> tuple[int, str]:
        assert self.process is not None
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors

    def post(self, body: bytes, path: str = "/webhooks/telegraf", **headers: str) -> httpx.Response:
        return self.client.post(self.url + path, content=body, headers=self.headers | headers)

    def stored(self) -> list[Delivery]:
        """All sealed deliveries in order, after a check that nothing is damaged or missing."""
        folder = self.home / "landing" / "gateway"
        assert gaps(folder) == []
        segments = [read_segment(folder, seq) for seq in sorted(numbers(folder, ".seg"))]
        assert [segment.damage for segment in segments if segment.damage] == []
        return [delivery for segment in segments for delivery in segment.deliveries]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    started = GatewayProcess(tmp_path / "home", {"GATEWAY_MAX_BODY_BYTES": "1000000"})
    yield started
    if started.process is not None and started.process.poll() is None:
        started.kill()


def test_a_delivery_is_sealed_when_the_gateway_is_asked_to_stop(gateway: GatewayProcess) -> None:
    gateway.settings["SEGMENT_MAX_AGE_SECONDS"] = "600"
    gateway.start()
    assert gateway.post(b"cpu v=1").status_code == 204
    assert gateway.client.post(f"{gateway.url}/webhooks/telegraf", content=b"x").status_code == 401
    code, errors = gateway.kill(signal.SIGTERM)
    assert code == 0
    assert [delivery.body for delivery in gateway.stored()] == [b"cpu v=1"]
    assert all(json.loads(line)["component"] == "gateway" for line in errors.splitlines())
    assert gateway.headers["x-api-key"] not in errors


def test_a_stop_asked_for_at_any_moment_of_the_start_is_a_stop(gateway: GatewayProcess) -> None:
    for pause in (0.0, 0.005, 0.02, 0.05):
        gateway.start()
        time.sleep(pause)
        assert gateway.kill(signal.SIGTERM)[0] == 0


def test_too_large_a_body_gets_its_answer(gateway: GatewayProcess) -> None:
    gateway.start()
    large = b"x" * 3_000_000
    assert gateway.post(large).status_code == 413

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(large), 100_000):
            yield large[start : start + 100_000]

    answer = gateway.client.post(f"{gateway.url}/webhooks/telegraf", content=pieces(), headers=gateway.headers)
    assert answer.status_code == 413
    assert gateway.post(b"x" * 1_000_000).status_code == 204
    gateway.kill(signal.SIGTERM)
    assert [len(delivery.body) for delivery in gateway.stored()] == [1_000_000]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x00\x01\x02\r\n\r\n",
        b"POST /webhooks/\xff HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx",
        b"POST /webhooks/telegraf HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: " + b"b" * 600_000 + b"\r\n\r\n",
    ],
)
def test_broken_requests_get_a_client_error_or_a_closed_door(gateway: GatewayProcess, request_bytes: bytes) -> None:
    gateway.start()
    received = b""
    address = ("127.0.0.1", gateway.port)
    with socket.create_connection(address, timeout=20) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(request_bytes)
        connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(65536):
            received += data
    assert received == b"" or received[9:10] == b"4"
    assert gateway.post(b"still here").status_code == 204


def test_a_used_port_and_a_used_home_are_said_in_one_line(gateway: GatewayProcess, tmp_path: Path) -> None:
    gateway.start()
    other = GatewayProcess(tmp_path / "other", port=gateway.port)
    _, errors = other.launch().communicate(timeout=30)
    assert (other.process and other.process.returncode, len(errors.splitlines())) == (2, 1)
    assert f"{gateway.port} is already in use" in errors
    second = GatewayProcess(gateway.home)
    _, errors = second.launch().communicate(timeout=30)
    assert (second.process and second.process.returncode, len(errors.splitlines())) == (2, 1)
    assert "another gateway" in errors


def test_a_home_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    gateway = GatewayProcess(tmp_path / "home")
    _, errors = gateway.launch().communicate(timeout=30)
    assert (gateway.process and gateway.process.returncode, len(errors.splitlines())) == (2, 1)
    assert "cannot be written" in errors


def test_damaged_keys_let_nobody_in(gateway: GatewayProcess) -> None:
    (gateway.home / "keys").mkdir(parents=True)
    (gateway.home / "keys" / "keys.json").write_text("{")
    _, errors = gateway.launch().communicate(timeout=30)
    assert (gateway.process and gateway.process.returncode, len(errors.splitlines())) == (2, 1)
    assert "keys.json" in errors


def test_a_file_size_limit_means_503_until_the_segment_is_sealed(gateway: GatewayProcess) -> None:
    gateway.file_size_limit = 300_000
    gateway.settings["SEGMENT_MAX_AGE_SECONDS"] = "0.3"
    gateway.start()
    accepted, refused = [], 0
    deadline = time.monotonic() + 30
    while len(accepted) < 8 and time.monotonic() < deadline:
        body = f"{len(accepted)}-".encode() + b"x" * 100_000
        answer = gateway.post(body)
        if answer.status_code == 204:
            accepted.append(body)
        else:
            refused += 1
            assert (answer.status_code, answer.json()["error"]) == (503, "disk_full")
            assert int(answer.headers["retry-after"]) > 0
    assert refused > 0
    assert gateway.kill(signal.SIGTERM)[0] == 0
    assert [delivery.body for delivery in gateway.stored()] == accepted


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False, timeout=10).returncode != 0:
        pytest.skip("a small file system needs the right to mount one")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True, timeout=10)


def test_a_full_disk_means_503_and_what_was_acknowledged_is_there(small_disk: Path) -> None:
    gateway = GatewayProcess(small_disk / "home")
    gateway.start()
    try:
        accepted: list[bytes] = []
        codes: Counter[int] = Counter()
        for number in range(60):
            body = f"{number}-".encode() + os.urandom(200_000)
            answer = gateway.post(body)
            codes[answer.status_code] += 1
            if answer.status_code == 204:
                accepted.append(body)
        assert set(codes) == {204, 503}
        for path, status in (("/health", 200), ("/ready", 503)):
            assert gateway.client.get(gateway.url + path, headers=gateway.headers).status_code == status
        gateway.kill()
        for path in (small_disk / "home" / "logs").iterdir():
            path.unlink()
        with SegmentWriter(gateway.home / "landing", "gateway", max_bytes=1 << 20, max_age_seconds=1):
            pass
        assert [delivery.body for delivery in gateway.stored()] == accepted
    finally:
        if gateway.process is not None and gateway.process.poll() is None:
            gateway.kill()


async def _send_until_cut_off(gateway: GatewayProcess, start: int, acknowledged: set[str], attempted: set[str]) -> None:
    """Deliver with eight connections until the gateway goes away; every delivery has an id of its own."""
    numbers_left = iter(range(start, start + 100_000))
    limits = httpx.Limits(max_connections=8)
    own = {"verify": TLS, "trust_env": False, "timeout": 10, "limits": limits}
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, **own) as client:  # type: ignore[arg-type]

        async def one_sender() -> None:
            for number in numbers_left:
                name = f"delivery-{number}"
                attempted.add(name)
                body = f"{name} ".encode() * (1 + number % 50)
                answer = await client.post("/webhooks/telegraf", content=body, headers={"idempotency-key": name})
                assert answer.status_code == 204
                acknowledged.add(answer.headers["x-delivery-id"])

        results = await asyncio.gather(*(one_sender() for _ in range(8)), return_exceptions=True)
        assert all(isinstance(result, httpx.TransportError) for result in results), results


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_every_acknowledged_delivery_is_stored_once_whatever_ends_the_gateway(
    gateway: GatewayProcess, number: signal.Signals
) -> None:
    gateway.settings |= {"SEGMENT_MAX_BYTES": "20000", "SEGMENT_MAX_AGE_SECONDS": "0.05"}
    acknowledged: set[str] = set()
    attempted: set[str] = set()

    async def rounds() -> None:
        for turn in range(4):
            await asyncio.to_thread(gateway.start)
            before = len(acknowledged)
            sending = asyncio.create_task(
                _send_until_cut_off(gateway, turn * 100_000, acknowledged, attempted), name="sending"
            )
            async with asyncio.timeout(60):
                while len(acknowledged) < before + 40 + 70 * turn:  # noqa: ASYNC110 - sets announce nothing
                    await asyncio.sleep(0.001)
            assert gateway.process is not None
            gateway.process.send_signal(number)
            await sending
            await asyncio.to_thread(gateway.process.communicate, timeout=30)

    asyncio.run(rounds())
    gateway.start()
    assert gateway.kill(signal.SIGTERM)[0] == 0
    found: Any = Counter(delivery.delivery_id for delivery in gateway.stored())
    assert set(found.values()) == {1}
    assert acknowledged <= set(found) <= attempted
    for delivery in gateway.stored():
        index = int(delivery.delivery_id.rsplit("-", 1)[1])
        assert delivery.body == f"{delivery.delivery_id} ".encode() * (1 + index % 50)
