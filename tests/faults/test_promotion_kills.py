"""A promotion that is killed anywhere leaves the old champion or the new one, whole; doing it again completes it.

One process imports everything and starts no thread; each of its children runs the whole way (files, manifest, row,
gates, publish, pointer; or a restore) and kills itself before or after one of the steps by which anything becomes
durable. Another child then looks at what is left, does it again, and looks again.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiops_assets.promotion import archive, pointers, records, store
from aiops_assets.promotion.gates import Candidate, Gate, GateResult, Inputs, VersionFiles
from aiops_assets.promotion.registry import Registry
from aiops_assets.settings import Settings

THING = "toy"
GATE = Gate("good", "Is it good?", lambda files, champion: GateResult(True, "good"))
#: what makes something durable or visible: (where it is looked up, its name)
STEPS: tuple[tuple[Any, str], ...] = (
    (os, "fsync"),
    (os, "rename"),
    (os, "replace"),
    (os, "mkdir"),
    (store, "_copy"),
    (store, "fsync_folder"),
    (archive, "fsync_folder"),
    (records, "_append"),
    (pointers, "append"),
    (pointers, "bring_back"),
    (shutil, "rmtree"),
)


def make(home: Path, content: str) -> str:
    """The whole way of a version into use."""
    settings = Settings(home=home)
    with Registry(settings) as registry:
        with registry.working(THING) as folder:
            (folder / "model.json").write_text(json.dumps({"content": content}))
            (folder / "parts").mkdir()
            (folder / "parts" / "a.csv").write_text("x\n1\n")
            version = registry.register(THING, "model", folder, Candidate(Inputs("1")), gates=["good"])
        registry.record_gates(THING, version, [(GATE, GateResult(True, "good"))])
        registry.promote(THING, version, who="kim", publish=lambda files: publish(home, files))
    return version


def publish(home: Path, files: VersionFiles) -> None:
    """Whole or not at all, and idempotent, as publishers must be."""
    temporary = home / ".published"
    temporary.write_text(json.loads((files.folder / "model.json").read_text())["content"])
    os.replace(temporary, home / "published")  # noqa: PTH105 - a step that is counted


def take_archive(home: Path) -> None:
    with Registry(Settings(home=home)) as registry:
        archive.back_up(registry, home / "registry.tar")


def restore(home: Path, _: str) -> None:
    settings = Settings(home=home / "elsewhere")
    settings.paths.create()
    with Registry(settings) as registry:
        archive.restore(registry, home / "registry.tar", who="sam")


def look(home: Path, allowed: tuple[str | None, ...]) -> None:
    """What serves is one of the allowed contents, whole; no table has a row twice; no version is half there."""
    with Registry(Settings(home=home)) as registry:
        version = registry.champion(THING)
        content = None
        if version is not None:
            files = registry.files(THING, version)
            content = json.loads((files.folder / "model.json").read_text())["content"]
        assert content in allowed, content
        for name in registry.store.versions(THING):
            manifest = registry.store.manifest(THING, name)
            assert manifest is not None and registry.store.problems(manifest) == []
        rows = registry.lake.read("registry_versions")
        assert rows.height == rows["version"].n_unique()
        judged = registry.lake.read("registry_gates").select("version", "gate", "evaluated_at")
        assert judged.height == judged.n_unique()


def finished(home: Path, content: str) -> None:
    look(home, (content,))
    with Registry(Settings(home=home)) as registry:
        for version in registry.store.versions(THING):
            assert version in set(registry.lake.read("registry_versions")["version"])
        registry.store.sweep(seconds=0)
        assert [path.name for path in registry.store.root.rglob(".*") if path.is_dir()] == []


def killing(at: int) -> None:
    """Kill this process at step ``at``; even ones come before, odd ones after something was done."""
    count = 0

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def step(*positional: Any, **named: Any) -> Any:
            nonlocal count
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            outcome = original(*positional, **named)
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            return outcome

        return step

    for place, name in STEPS:
        setattr(place, name, counted(getattr(place, name)))


def child(work: Callable[[], Any]) -> int:
    """The exit code of a child that does some work; negative when it was killed."""
    process = os.fork()
    if process == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def drill(what: str, base: Path, stride: int, first: int) -> int:
    """Kill at every ``stride``-th step from ``first`` on until none is left; how often it was killed."""
    start = base / "start"
    Settings(home=start).paths.create()
    assert child(lambda: make(start, "old")) == 0
    if what == "restore":
        assert child(lambda: take_archive(start)) == 0
    for killed, at in enumerate(range(first, 10_000, stride)):
        home = base / f"home-{at}"
        shutil.copytree(start, home)
        work = {"promote": make, "restore": restore}[what]

        def run(home: Path = home, at: int = at, work: Callable[[Path, str], Any] = work) -> None:
            killing(at)
            work(home, "new")

        code = child(run)
        assert code in {0, -signal.SIGKILL}, f"step {at}"
        place, states = (home, ("old", "new")) if what == "promote" else (home / "elsewhere", (None, "old"))
        if place.exists():
            assert child(lambda place=place, states=states: look(place, states)) == 0, f"after step {at}"
        assert child(lambda home=home, work=work: work(home, "new")) == 0, f"again after step {at}"
        assert child(lambda place=place, states=states: finished(place, str(states[1]))) == 0, f"in the end, step {at}"
        shutil.rmtree(home)
        if code == 0:
            return killed
    raise AssertionError("it never came to its end")


def _drilled(what: str, folder: Path, stride: int, first: int) -> int:
    command = [sys.executable, "-m", "tests.faults.test_promotion_kills", what, str(folder), str(stride), str(first)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=220, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize(("what", "stride"), [("promote", 7), ("restore", 19)])
def test_a_kill_at_some_step_leaves_one_whole_champion_and_again_completes_it(
    what: str, stride: int, tmp_path: Path
) -> None:
    assert _drilled(what, tmp_path, stride, 3) > 3


@pytest.mark.soak
@pytest.mark.parametrize("what", ["promote", "restore"])
def test_a_kill_at_every_single_step(what: str, tmp_path: Path) -> None:
    assert _drilled(what, tmp_path, 1, 0) > 30


if __name__ == "__main__":
    print(drill(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
