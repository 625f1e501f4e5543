"""A real Prometheus on loopback, for tests that compare with it or are asked by it.

What belongs here: writing samples into blocks, starting and stopping the server. Tests that need it are skipped where
it is not installed (`.ci/system-packages` installs Debian's).
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.stack import free_port, wait_until

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None, reason="prometheus is not installed"
)


@dataclass(frozen=True)
class Sampled:
    """One series: its labels with ``__name__``, times in milliseconds, values."""

    labels: Mapping[str, str]
    ts: Sequence[int] | NDArray[np.int64]
    values: Sequence[float] | NDArray[np.float64]


def openmetrics(series: Sequence[Sampled]) -> str:
    """Samples as an OpenMetrics page that ``promtool tsdb create-blocks-from`` reads."""
    lines = []
    for entry in sorted(series, key=lambda entry: entry.labels["__name__"]):
        labels = ",".join(f'{name}="{value}"' for name, value in entry.labels.items() if name != "__name__")
        for ts, value in zip(entry.ts, entry.values, strict=True):
            lines.append(f"{entry.labels['__name__']}{{{labels}}} {float(value)!r} {ts // 1000}.{ts % 1000:03d}")
    text = "\n".join([*lines, "# EOF", ""])
    return text.replace(" inf ", " +Inf ").replace(" -inf ", " -Inf ").replace(" nan ", " NaN ")


def write_blocks(folder: Path, series: Sequence[Sampled]) -> None:
    """Make the data folder of a Prometheus that holds these samples."""
    page = folder.with_suffix(".om")
    page.write_text(openmetrics(series))
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(page), str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


@contextlib.contextmanager
def running(folder: Path, configuration: str = "") -> Iterator[str]:
    """A Prometheus on a data folder; its address."""
    config = folder.with_suffix(".yml")
    config.write_text(configuration or "global: {}\n")
    port = free_port()
    log = folder.with_suffix(".log").open("wb")
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={folder}",
            "--storage.tsdb.retention.time=100y",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=log,
        stderr=log,
    )
    log.close()
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert process.poll() is None, folder.with_suffix(".log").read_text()
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{url}/-/ready", timeout=2).status_code == 200
        return False

    try:
        wait_until(ready, 60, "prometheus is ready")
        yield url
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)
