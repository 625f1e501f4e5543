"""A collector that asks APIs and reads a folder, killed with -9 again and again: nothing is lost, nothing twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from aiops_assets.formats import parse
from aiops_assets.formats.batch import Parsed
from aiops_assets.landing.reader import numbers, read_segment
from aiops_assets.landing.segment import OPEN, SEALED, Delivery
from tests.fakes import servicenow
from tests.fakes.datadog import API_KEY, APPLICATION_KEY, FakeDatadog
from tests.fakes.servicenow import FakeServiceNow
from tests.stack import wait_until

KILLS = 3
DOCUMENTS = 40


class _Wall:
    """The clock on the wall, since a real collector asks."""

    def __call__(self) -> float:
        return time.time()


@contextmanager
def collector(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (home / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "aiops_assets.cli", "collect"],
            env=os.environ | {"AIOPS_HOME": str(home), "AIOPS_SEGMENT_MAX_AGE_SECONDS": "0.2"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)


def landed(home: Path, source: str) -> list[Delivery]:
    """What one source delivered, durable by now and sealed."""
    folder = home / "landing" / "collector"
    if not folder.is_dir():
        return []
    found = [one for seq in numbers(folder, SEALED) for one in read_segment(folder, seq).deliveries]
    return [one for one in found if one.source == source and one.headers["format"] != "collected"]


def running_pid(home: Path) -> int | None:
    """The collector that last wrote the status file."""
    path = home / "collector" / "status.json"
    return orjson.loads(path.read_bytes())["pid"] if path.exists() else None


def read(home: Path, source: str, format_name: str) -> Parsed:
    return parse(format_name, landed(home, source))


def test_apis_and_folders_are_complete_after_kills(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "kb"
    home.mkdir()
    folder.mkdir()
    now = time.time()
    dd, sn = FakeDatadog(_Wall()), FakeServiceNow(_Wall())  # type: ignore[arg-type]
    events = [dd.add(n, now - 3000 + n) for n in range(2000)]
    for n in range(300):
        sn.put("incident", f"{n:032x}", now - 3000 + n // 50, number=f"INC{n}", short_description="x")
    with dd.serving() as dd_url, sn.serving() as sn_url:
        pace = {"interval": "1s", "page": 20, "overlap": "30s"}
        keys = {"token": "${DD_KEY}", "application_key": APPLICATION_KEY}
        basic = {"user": servicenow.USER, "password": servicenow.PASSWORD}
        content = {
            "collect": {"host": {"enabled": False}},
            "pull": [
                {"name": "dd", "kind": "datadog", "url": dd_url, "logs": "*", **keys, **pace},
                {"name": "sn", "kind": "servicenow", "url": sn_url, "tables": ["incident"], **basic, **pace},
            ],
            "folders": [{"name": "kb", "path": str(folder), "interval": "1s"}],
        }
        (home / "aiops.yaml").write_bytes(orjson.dumps(content))
        os.environ["DD_KEY"] = API_KEY
        try:
            for kill in range(KILLS):
                for n in range(DOCUMENTS):
                    (folder / f"{kill}-{n}.md").write_text(f"# {kill} {n}\n\ntext")
                events += [dd.add(3000 + 100 * kill + n, time.time() - 5) for n in range(50)]
                sn.put("incident", f"{kill:032x}", time.time(), state="6")
                before = len(landed(home, "dd"))
                with collector(home) as process:
                    wait_until(lambda least=before: len(landed(home, "dd")) > least, 60, "something is durable")  # type: ignore[misc]
                    # Each kill comes at another moment of a turn.
                    time.sleep(0.13 * kill)
                    process.send_signal(signal.SIGKILL)
            with collector(home) as process:
                wait_until(lambda: running_pid(home) == process.pid, 60, "the collector runs")
                wait_until(lambda: set(read(home, "dd", "datadog_api").logs["event_id"]) >= set(events), 60, "all logs")
                complete = {(f"{n:032x}", "6" if n < KILLS else None) for n in range(300)}
                wait_until(
                    lambda: set(read(home, "sn", "servicenow").tickets.select("ticket_id", "state").rows()) >= complete,
                    60,
                    "all tickets",
                )
                wait_until(
                    lambda: read(home, "kb", "documents").documents["document_id"].n_unique() == KILLS * DOCUMENTS,
                    60,
                    "all documents",
                )
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 0
        finally:
            del os.environ["DD_KEY"]
    assert not list((home / "landing" / "collector").glob(f"*{OPEN}"))
    logs = read(home, "dd", "datadog_api").logs
    assert sorted(set(logs["event_id"])) == sorted(events)
    texts = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file() and path.name != "aiops.yaml")
    for secret in (API_KEY, APPLICATION_KEY, servicenow.PASSWORD):
        assert secret.encode() not in texts
    # A stream that was read to the end is not read again: what comes twice is only what a kill forgot.
    assert len(logs) < (KILLS + 1.5) * len(events)
