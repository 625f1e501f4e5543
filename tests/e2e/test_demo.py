"""`aiops demo`: a storm through a platform of its own, to incidents, with what was true of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack import Stack

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1_200)]


def aiops(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "aiops_assets.cli", *arguments]
    return subprocess.run(command, env=stack.variables, capture_output=True, text=True, timeout=1_000, check=False)


def test_the_demo_shows_faults_as_incidents_and_leaves_your_home_alone(tmp_path: Path) -> None:
    yours = Stack(tmp_path / "home")
    own = tmp_path / "home-demo"
    done = aiops(yours, "demo", "--no-stay")
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"(\d+) of 6 faults found; the root cause first in (\d+)", done.stdout)
    assert found is not None, done.stdout
    assert int(found[1]) >= 5
    assert int(found[2]) >= 1
    sent = re.search(r"Sent: ([\d,]+) points", done.stdout)
    assert sent is not None
    assert int(sent[1].replace(",", "")) > 50_000
    assert re.search(r"http://127\.0\.0\.1:\d+/incidents/INC-\w+", done.stdout)
    assert not yours.home.exists()
    assert (own / "demo").exists()
    assert not Stack(own).answers()


def test_a_folder_that_no_demo_made_and_a_storm_too_long_are_refused(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "home")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    refused = aiops(stack, "demo", "--home", str(tmp_path / "mine"))
    assert refused.returncode == 2
    assert "was not made by a demo" in refused.stderr
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    long = aiops(stack, "demo", "stuck-backup", "--home", str(tmp_path / "new"))
    assert long.returncode == 2
    assert "aiops evaluate storm stuck-backup" in long.stderr
    assert not (tmp_path / "new").exists()
