"""A gateway on a port of its own, in a process of its own, as tests and benchmarks that need real HTTP ask it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

import httpx

from aiops_assets.settings import Settings
from tests.stack import free_port, wait_until

_SERVE = """
from aiops_assets.gateway.app import serve
from aiops_assets.settings import load_settings
serve(load_settings())
"""


@contextlib.contextmanager
def served(settings: Settings) -> Iterator[tuple[str, str]]:
    """The address of a gateway on a home folder, and its first key."""
    port = free_port()
    environment = {**os.environ, "AIOPS_HOME": str(settings.home), "AIOPS_GATEWAY_PORT": str(port)}
    log = (settings.paths.root.parent / f"gateway-{port}.log").open("wb")
    process = subprocess.Popen([sys.executable, "-c", _SERVE], env=environment, stdout=log, stderr=log)
    log.close()
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, (settings.paths.root.parent / f"gateway-{port}.log").read_text()
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{url}/health", timeout=2).status_code == 200
        return False

    try:
        wait_until(answers, 60, "the gateway answers")
        yield url, (settings.paths.keys / "admin.key").read_text().strip()
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)
