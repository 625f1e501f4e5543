"""Killing an export or a batch of questions at any moment: no half file, nothing asked twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import orjson
import pytest
from sqlalchemy import select

from aiops_assets.operations.database import connect, reading
from aiops_assets.operations.models import AUDIT
from aiops_assets.settings import Settings
from aiops_assets.synthetic.golden.audit import ACTION, export
from aiops_assets.synthetic.golden.exports import metadata_path, part_path
from aiops_assets.synthetic.golden.imports import read, verified
from tests.fakes.golden_model import content, turn
from tests.fakes.openai_server import API_KEY, FakeOpenAI, Trouble
from tests.golden_frames import plain
from tests.stack import wait_until

ROOT = Path(__file__).parents[2]
EXPORT = """
import sys, time
from pathlib import Path
from aiops_assets.settings import Settings
from aiops_assets.synthetic.golden.audit import export
from tests.golden_frames import plain
from aiops_assets.synthetic.golden import exports

def slowly():
    for start in range(0, 4000, 400):
        yield plain(400, start)
        print(start, flush=True)
        sys.stdin.readline()

stop = sys.argv[3]
if stop:
    kept = getattr(exports, stop)
    def held(*given, **named):
        print(stop, flush=True)
        sys.stdin.readline()
        return kept(*given, **named)
    setattr(exports, stop, held)
export(Settings(home=Path(sys.argv[1])), slowly(), Path(sys.argv[2]), who="test")
print("done", flush=True)
"""


def killed_export(home: Path, path: Path, at: str, stop: str = "") -> None:
    """Start an export in a process of its own and kill it when it says ``at``."""
    process = subprocess.Popen(
        [sys.executable, "-c", EXPORT, str(home), str(path), stop],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == at:
            break
        process.stdin.write("\n")
        process.stdin.flush()
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    process.stdin.close()
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL


def audited(settings: Settings) -> list[dict[str, object]]:
    engine = connect(settings.paths.operations_url)
    with reading(engine) as connection:
        rows = connection.execute(select(AUDIT).where(AUDIT.c.action == ACTION).order_by(AUDIT.c.at)).all()
    engine.dispose()
    return [{"target": row.target, **orjson.loads(row.details)} for row in rows]


@pytest.mark.parametrize("name", ["a.json", "a.xlsx"])
def test_a_killed_export_leaves_the_file_that_was_there(name: str, tmp_path: Path) -> None:
    settings, path = Settings(home=tmp_path / "home"), tmp_path / name
    export(settings, [plain(3)], path, who="test")
    before = path.read_bytes()
    killed_export(tmp_path / "home", path, "2000")
    assert path.read_bytes() == before
    assert part_path(path).exists()
    assert len(audited(settings)) == 1
    export(settings, [plain(7)], path, who="test")
    assert read(path).equals(plain(7))
    assert not part_path(path).exists()


@pytest.mark.parametrize(("stop", "published"), [("_publish", False), ("fsync_folder", True)])
def test_at_the_end_a_file_and_its_row_of_the_audit_trail_are_never_without_the_row(
    stop: str, published: bool, tmp_path: Path
) -> None:
    home, path = tmp_path / "home", tmp_path / "a.csv"
    killed_export(home, path, stop, stop)
    (row,) = audited(Settings(home=home))
    assert row["count"] == 4000
    assert path.exists() is published
    assert metadata_path(path).exists() is published
    if published:
        frame, whole = verified(path)
        assert (frame.height, whole) == (4000, True)


# -- a batch that asks a language model -------------------------------------------------------------------------------

ANSWERED, COUNT, SLOTS = 9, 30, 4


def model_config(home: Path, server: FakeOpenAI, *, cached: bool) -> None:
    home.mkdir()
    (home / "aiops.yaml").write_text(
        f"llm: {{provider: compatible, model: m1, base_url: '{server.url}/v1', api_key: {API_KEY}, "
        f"concurrency: {SLOTS}, cache: {{enabled: {str(cached).lower()}}}}}\n"
    )


def generating(home: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "aiops_assets.cli",
        "golden",
        "generate",
        "--provider",
        "configured",
        "--batch",
        "1",
    ]
    return subprocess.Popen(
        [*command, "-n", str(COUNT), "--seed", "3", "--out", str(out), "--json"],
        cwd=ROOT,
        env={**os.environ, "AIOPS_HOME": str(home)},
        stdout=subprocess.PIPE,
    )


def recorded(home: Path) -> int:
    """Answers that a kill cannot take away any more."""
    return sum(path.read_bytes().count(b"\n") for path in (home / "golden").glob("*.jsonl"))


@pytest.mark.parametrize("cached", [True, False])
def test_a_killed_batch_goes_on_and_pays_for_no_answer_twice(cached: bool, tmp_path: Path) -> None:
    home, out = tmp_path / "home", tmp_path / "a.parquet"
    server = FakeOpenAI(content=content())
    server.behave = lambda number, body: Trouble("hang", seconds=300) if number > ANSWERED else None
    with server.serving():
        model_config(home, server, cached=cached)
        process = generating(home, out)

        def waits() -> bool:
            # Texts that are not taken at once are asked for once more: such incidents are recorded then.
            mending = sum(turn(body) > 1 for body in list(server.bodies))
            return server.under_way == SLOTS and recorded(home) + mending == ANSWERED

        wait_until(waits, 120, "everything that was answered is recorded")
        paid = [json.dumps(body["messages"]) for body in server.bodies[:ANSWERED]]
        done = recorded(home)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        assert process.returncode == -signal.SIGKILL
        assert not out.exists()
        wait_until(lambda: server.under_way == 0, 30, "the server notices")
        unanswered = server.requests - ANSWERED
        assert unanswered == SLOTS
        server.behave = lambda number, body: None
        process = generating(home, out)
        said = json.loads(process.communicate(timeout=120)[0])
    assert process.returncode == 0
    assert read(out).height == COUNT
    assert said["model"]["resumed"] == done > 0
    times = Counter(json.dumps(body["messages"]) for body in server.bodies)
    again = [question for question in paid if times[question] > 1]
    # Without the cache, an incident whose first texts were refused is not finished, and is begun anew.
    assert len(again) <= (0 if cached else ANSWERED - done)
    assert max(times.values()) <= 2
    assert len(audited(Settings(home=home))) == 1
    assert list((home / "golden").glob("*.jsonl")) == []
