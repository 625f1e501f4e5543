"""A collector that follows a file and is killed with -9 again and again: every line is stored once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import orjson
import polars as pl

from aiops_assets.formats import parse
from aiops_assets.landing.reader import read_segment
from aiops_assets.landing.segment import Delivery
from tests.stack import wait_until

KILLS = 3
LINES_A_TURN = 40


def collector(home: Path) -> subprocess.Popen[bytes]:
    with (home / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "aiops_assets.cli", "collect"],
            env=os.environ | {"AIOPS_HOME": str(home), "AIOPS_SEGMENT_MAX_AGE_SECONDS": "0.1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def stored(home: Path) -> pl.DataFrame:
    """Log rows of everything in the landing zone, as the pipeline keeps them: one row an identifier."""
    folder = home / "landing" / "collector"
    found: list[Delivery] = []
    for path in sorted(folder.glob("*.seg")):
        found += [one for one in read_segment(folder, int(path.stem)).deliveries if one.headers["format"] == "text"]
    return parse("text", found).logs.unique("event_id", maintain_order=True)


def known(home: Path, log: Path) -> bool:
    """Whether the saved state knows the file that is being written now."""
    try:
        files = orjson.loads((home / "collector" / "state.json").read_bytes())["tail:app"]["files"]
        return any(one["inode"] == log.stat().st_ino and one["offset"] > 0 for one in files)
    except (FileNotFoundError, KeyError):
        return False


def test_every_line_is_stored_once_across_kills_and_rotations(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    content = {
        "collect": {"host": {"enabled": False}},
        "tail": [{"name": "app", "paths": [str(log)], "host": "h"}],
    }
    (tmp_path / "aiops.yaml").write_bytes(orjson.dumps(content))
    written: list[str] = []
    stop = threading.Event()
    pause = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            if pause.is_set():
                stop.wait(0.01)
                continue
            with log.open("a") as file:
                for _ in range(LINES_A_TURN):
                    line = f"2026-11-20T07:48:19.{number % 1000000:06}Z INFO line {number}"
                    file.write(line + "\n")
                    written.append(line)
                    number += 1
            stop.wait(0.05)

    writer = threading.Thread(target=write)
    writer.start()
    process = collector(tmp_path)
    try:
        for turn in range(KILLS):
            before = len(written)
            wait_until(lambda before=before: stored(tmp_path).height > before, 30, "lines are stored")  # type: ignore[misc]
            wait_until(lambda: known(tmp_path, log), 30, "the file is in the saved state")
            process.send_signal(signal.SIGKILL)
            process.wait(10)
            if turn != 1:
                wait_until(log.exists, 10, "the file is there")
                log.rename(tmp_path / f"app.log.{turn}")
            else:
                pause.set()
                wait_until(log.exists, 10, "the file is there")
                shutil.copy(log, tmp_path / f"app.log.{turn}")
                os.truncate(log, 0)
                pause.clear()
            process = collector(tmp_path)
        stop.set()
        writer.join(10)
        wait_until(lambda: stored(tmp_path).height >= len(written), 40, f"{len(written)} lines are stored")
    finally:
        stop.set()
        writer.join(10)
        process.kill()
        process.wait(10)
    assert sorted(stored(tmp_path)["body"]) == sorted(written)
