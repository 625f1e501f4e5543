"""Gateway intake: requests and points a second from one process, and waiting times at half the required load.

Each line stands beside a bare reference measured in the same run: a minimal ASGI app under the same server that appends
bodies to one file and answers after a group-committed ``fdatasync``; no keys, no checksums, no segments.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

import uvloop

SINGLE_BYTES = 200
LINES = 1000
SINGLE_BAR, POINTS_BAR, P99_BAR_MS = 10_000, 2_000_000, 50.0
CONNECTIONS = {"single": 64, "batch": 24}
PORTS = range(18760, 18799)


def bodies() -> dict[str, bytes]:
    """One event of 200 bytes, and a batch of 1,000 line-protocol lines."""
    event = b"shop,host=web-1,region=eu-central-1,service=checkout latency_ms=12.5,errors=0i 1760000000000000000"
    single = event + b"\n" + b"# " + b"x" * (SINGLE_BYTES - len(event) - 3)
    lines = [f"cpu,host=web-{i % 50},cpu=cpu{i % 8} usage={i % 100}.5 1760000000{i:09d}" for i in range(LINES)]
    return {"single": single, "batch": "\n".join(lines).encode()}


class Connection(asyncio.Protocol):
    """One keep-alive connection that sends the same request again when its answer is complete."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.buffer = b""
        self.intended = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.load.idle.append(self)

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.load.over:
            self.load.failures += 1

    def send(self, intended: float) -> None:
        self.intended = intended
        self.transport.write(self.load.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        data = self.buffer + data
        head = data.find(b"\r\n\r\n")
        if head < 0 or len(data) < head + 4 + _content_length(data[:head]):
            self.buffer = data
            return
        self.buffer = b""
        now = time.perf_counter()
        if data[9:10] != b"2":
            self.load.failures += 1
        self.load.times.append(now - self.intended)
        self.load.answered(self, now)


def _content_length(head: bytes) -> int:
    start = head.lower().find(b"content-length:")
    return int(head[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0


class Load:
    """A load of identical requests: closed loop, or open loop at a rate, timed from when each should have started."""

    def __init__(self, request: bytes, rate: float | None) -> None:
        self.request, self.rate = request, rate
        self.idle: deque[Connection] = deque()
        self.times: list[float] = []
        self.failures = 0
        self.over = False

    async def run(self, port: int, connections: int, seconds: float) -> dict[str, float]:
        self.loop = asyncio.get_running_loop()
        for _ in range(connections):
            await self.loop.create_connection(lambda: Connection(self), "127.0.0.1", port)
        self.end = time.perf_counter() + seconds
        started = time.perf_counter()
        if self.rate is None:
            while self.idle:
                self.idle.popleft().send(started)
            await asyncio.sleep(seconds)
        else:
            await self._paced(started)
        elapsed = time.perf_counter() - started
        self.over = True
        times = sorted(self.times)
        return {
            "rate": len(times) / elapsed,
            "p50_ms": times[len(times) // 2] * 1000,
            "p99_ms": times[int(len(times) * 0.99)] * 1000,
            "failures": self.failures,
        }

    async def _paced(self, started: float) -> None:
        assert self.rate is not None
        issued = 0
        while (now := time.perf_counter()) < self.end:
            due = int((now - started) * self.rate)
            while issued < due and self.idle:
                self.idle.popleft().send(started + issued / self.rate)
                issued += 1
            await asyncio.sleep(0.0005)

    def answered(self, connection: Connection, now: float) -> None:
        if self.rate is not None or now >= self.end:
            self.idle.append(connection)
        else:
            connection.send(now)


def request_bytes(port: int, path: str, body: bytes, key: str) -> bytes:
    """The request as Telegraf sends it."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: bench\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\nAuthorization: Bearer {key}\r\n"
        f"Accept-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def reference_server(port: int, path: str) -> None:
    """The bare reference: append, group-committed fdatasync, answer."""
    import uvicorn

    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    waiting: list[tuple[bytes, asyncio.Future[None]]] = []
    wake = asyncio.Event()

    def write(batch: list[bytes]) -> None:
        for start in range(0, len(batch), 1024):
            os.writev(descriptor, batch[start : start + 1024])
        os.fdatasync(descriptor)

    async def commit() -> None:
        loop = asyncio.get_running_loop()
        while True:
            await wake.wait()
            wake.clear()
            while waiting:
                batch = waiting[:]
                waiting.clear()
                await loop.run_in_executor(None, write, [body for body, _ in batch])
                for _, future in batch:
                    future.set_result(None)

    tasks: list[asyncio.Task[None]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            tasks.append(asyncio.create_task(commit()))
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        future = asyncio.get_running_loop().create_future()
        waiting.append((body, future))
        wake.set()
        await future
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    uvicorn.run(app, port=port, loop="uvloop", http="httptools", access_log=False, log_level="error")


def _free_port() -> int:
    for port in PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise RuntimeError(f"no free port in {PORTS}")


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(0.2)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
    raise RuntimeError("the server did not start")


def _measure(port: int, path: str, kind: str, key: str, rate: float | None, seconds: float) -> dict[str, float]:
    """Run the load generator in a process of its own, on the other core."""
    arguments = [sys.executable, __file__, "--load", str(port), path, kind, key, str(rate or 0), str(seconds)]
    output = subprocess.run(arguments, check=True, capture_output=True, timeout=seconds + 60).stdout
    result: dict[str, float] = json.loads(output)
    return result


def _drain(home: Path) -> None:
    """Remove sealed segments, all but the newest, so that the disk does not fill."""
    for path in sorted((home / "landing" / "gateway").glob("*.seg"))[:-1]:
        path.unlink()


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Rows of name, value, unit, reference value, ratio, bar and whether the bar is met."""
    seconds = 2.0 if quick else 8.0
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        results: dict[str, dict[str, dict[str, float]]] = {}
        for name in ("reference", "gateway"):
            port = _free_port()
            if name == "gateway":
                code = "from aiops_assets.settings import load_settings; from aiops_assets.gateway.app import serve; "
                command = [sys.executable, "-c", code + "serve(load_settings())"]
                limits = {"AIOPS_GATEWAY_MAX_BACKLOG_BYTES": str(1 << 50)}
                environment = os.environ | {"AIOPS_HOME": folder, "AIOPS_GATEWAY_PORT": str(port)} | limits
            else:
                command = [sys.executable, __file__, "--reference", str(port), str(home / "reference")]
                environment = dict(os.environ)
            process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
            try:
                _wait_for(port, process)
                key_file = home / "keys" / "admin.key"
                key = key_file.read_text().strip() if key_file.exists() else "none"
                results[name] = {}
                for kind, rate in (("single", SINGLE_BAR / 2), ("batch", POINTS_BAR / 2 / LINES)):
                    path = "/webhooks/telegraf"
                    _measure(port, path, kind, key, None, 1.0)
                    results[name][kind] = _measure(port, path, kind, key, None, seconds)
                    results[name][f"{kind} half"] = _measure(port, path, kind, key, rate, seconds)
                    if name == "gateway":
                        _drain(home)
                    else:
                        os.truncate(home / "reference", 0)
            finally:
                process.terminate()
                process.wait(30)
    reference, gateway = results["reference"], results["gateway"]
    for label, kind, field, factor, unit, bar in (
        ("gateway, single events", "single", "rate", 1, "requests/s", SINGLE_BAR),
        ("gateway, batches of 1,000", "batch", "rate", LINES, "points/s", POINTS_BAR),
        ("gateway p99 at 5,000 requests/s", "single half", "p99_ms", 1, "ms", P99_BAR_MS),
        ("gateway p99 at 1M points/s", "batch half", "p99_ms", 1, "ms", P99_BAR_MS),
    ):
        value, other = gateway[kind][field] * factor, reference[kind][field] * factor
        good = (value >= bar if field == "rate" else value <= bar) and gateway[kind]["failures"] == 0
        rows.append(
            {
                "name": label,
                "value": round(value, 2),
                "unit": unit,
                "reference": "bare ASGI app, group-committed fdatasync",
                "reference_value": round(other, 2),
                "ratio": round(value / other, 3),
                "bar": bar,
                "ok": good,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--reference", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--load", nargs=6, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.reference:
        reference_server(int(arguments.reference[0]), arguments.reference[1])
    elif arguments.load:
        port, path, kind, key, rate, seconds = arguments.load
        load = Load(request_bytes(int(port), path, bodies()[kind], key), float(rate) or None)
        print(json.dumps(uvloop.run(load.run(int(port), CONNECTIONS[kind], float(seconds)))))
    else:
        print(json.dumps(run(arguments.quick), indent=1))


if __name__ == "__main__":
    main()
