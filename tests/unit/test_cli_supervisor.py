"""The supervisor owns its processes: restarts and names what dies, and leaves nothing behind, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from aiops_assets.cli import processes
from aiops_assets.cli.supervisor import ChildSpec, Supervisor, exit_reason, read_state, running

T = TypeVar("T")

#: a child with a descendant of its own that left the session and will not go when asked
STUBBORN = """
import os, signal, subprocess, sys, time
code = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
time.sleep(600)
"""
QUIET = "import time; print('hello from the child', flush=True); time.sleep(600)"
FAILING = "import sys; print('no disk', flush=True); sys.exit(3)"

RUNNER = """
import sys
from pathlib import Path
from typing import TypeVar
from aiops_assets.cli.supervisor import AlreadyRunning, ChildSpec, Supervisor
home = Path(sys.argv[1])
grace = float(sys.argv[2])
specs = [ChildSpec(f"child-{n}", (sys.executable, "-c", code)) for n, code in enumerate(sys.argv[3:])]
try:
    Supervisor(home, home / "logs", specs, lambda event: print(event.kind, event.text, flush=True), grace=grace).run()
except AlreadyRunning as error:
    print("already running", error.state.pid)
    sys.exit(1)
"""


def eventually(look: Callable[[], T], seconds: float = 20.0) -> T:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


class Run:
    def __init__(self, home: Path, *codes: str, grace: float = 1.0) -> None:
        self.home = home
        self.output = home.parent / f"{home.name}-{time.monotonic_ns()}.out"
        with self.output.open("w") as file:
            command = [sys.executable, "-c", RUNNER, str(home), str(grace), *codes]
            self.process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)

    def token(self) -> str:
        return eventually(lambda: read_state(self.home) if running(self.home) else None).token

    def child(self, name: str = "child-0") -> int:
        def look() -> int:
            state = running(self.home)
            return state.children[name].pid if state and name in state.children else 0

        return eventually(look)

    def refuses(self, name: str = "child-0") -> bool:
        """Whether the stubborn descendant is there and deaf."""
        log = self.home / "logs" / f"{name}.log"
        return log.exists() and "up" in log.read_text().split()

    def said(self) -> str:
        return self.output.read_text()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def begin(*codes: str, grace: float = 1.0) -> Run:
        runs.append(Run(tmp_path / "home", *codes, grace=grace))
        return runs[-1]

    yield begin
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()


def test_a_killed_child_is_named_and_started_again(start: Callable[..., Run]) -> None:
    run = start(QUIET)
    first = run.child()
    os.kill(first, signal.SIGKILL)
    assert eventually(lambda: run.child() != first and run.child())
    assert "died child-0 was killed by SIGKILL" in run.said()
    state = running(run.home)
    assert state is not None
    assert state.children["child-0"].restarts == 1
    assert state.children["child-0"].last_exit == "was killed by SIGKILL"
    assert run.end() == 0


def test_a_child_that_keeps_failing_waits_longer_each_time_and_says_why(start: Callable[..., Run]) -> None:
    run = start(FAILING)
    eventually(lambda: "starts again in 2 s" in run.said())
    assert "child-0 ended with exit code 3 after 0 s (no disk); it starts again in 1 s" in run.said()
    assert run.end() == 0


def test_output_of_children_goes_to_their_logs(start: Callable[..., Run]) -> None:
    run = start(QUIET)
    log = run.home / "logs" / "child-0.log"
    eventually(lambda: log.exists() and "hello from the child" in log.read_text())
    assert run.end(signal.SIGINT) == 0


def test_an_orderly_end_leaves_nothing_even_of_descendants_that_refuse(start: Callable[..., Run]) -> None:
    run = start(STUBBORN, QUIET)
    token = run.token()
    eventually(lambda: run.refuses() and len(processes.marked(token)) == 3)
    assert run.end() == 0
    assert processes.marked(token) == set()
    assert read_state(run.home) is None


def test_asking_again_ends_without_patience(start: Callable[..., Run]) -> None:
    run = start(STUBBORN, grace=60.0)
    token = run.token()
    eventually(run.refuses)
    run.process.send_signal(signal.SIGINT)
    eventually(lambda: "stopping" in run.said())
    asked = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        run.process.wait(1.2)
    assert run.end(signal.SIGINT) == 0
    assert time.monotonic() - asked < 30
    assert processes.marked(token) == set()


def test_killing_the_supervisor_leaves_nothing(start: Callable[..., Run]) -> None:
    run = start(STUBBORN, QUIET)
    token = run.token()
    eventually(lambda: run.refuses() and len(processes.marked(token)) == 3)
    run.end(signal.SIGKILL)
    eventually(lambda: not processes.marked(token))
    assert running(run.home) is None


def test_descendants_of_a_killed_child_still_belong_to_the_supervisor(start: Callable[..., Run]) -> None:
    run = start(STUBBORN)
    token = run.token()
    eventually(lambda: run.refuses() and len(processes.marked(token)) == 2)
    os.kill(run.child(), signal.SIGKILL)
    eventually(lambda: "was killed" in run.said())
    assert run.end() == 0
    assert processes.marked(token) == set()


def test_a_second_supervisor_of_the_same_home_says_so_and_touches_nothing(start: Callable[..., Run]) -> None:
    first = start(QUIET)
    child = first.child()
    second = start(QUIET)
    assert second.process.wait(20) == 1
    assert f"already running {first.process.pid}" in second.said()
    assert first.child() == child
    assert first.end() == 0


def test_a_start_removes_what_a_dead_supervisor_left(start: Callable[..., Run], tmp_path: Path) -> None:
    token = "a" * 32
    leftover = subprocess.Popen([sys.executable, "-c", QUIET], env={**os.environ, processes.MARK: token})
    home = tmp_path / "home"
    home.mkdir()
    state = {"pid": 1, "ticks": -1, "token": token, "started_at": 0, "children": {}}
    (home / "supervisor.json").write_text(json.dumps(state))
    eventually(lambda: processes.marked(token))
    run = start(QUIET)
    assert leftover.wait(20) in {-signal.SIGTERM, -signal.SIGKILL}  # on a busy machine it is asked twice
    eventually(lambda: "cleaned ended 1 processes" in run.said())
    assert run.end() == 0


def test_a_signal_never_reaches_a_process_without_the_token() -> None:
    with subprocess.Popen([sys.executable, "-c", QUIET], stdout=subprocess.DEVNULL) as stranger:
        assert not processes.send(stranger.pid, "b" * 32, signal.SIGKILL)
        assert stranger.poll() is None
        stranger.kill()


def test_readiness_is_asked_until_it_is_there(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from aiops_assets.cli.supervisor import ChildSpec, Supervisor
        home = Path(sys.argv[1])
        asked = []
        def ready(started):
            asked.append(started)
            return len(asked) >= 3
        spec = ChildSpec("slow", (sys.executable, "-c", "import time; time.sleep(600)"), ready=ready)
        def say(event):
            print(event.kind, event.text, flush=True)
            if event.kind == "ready":
                import os, signal
                os.kill(os.getpid(), signal.SIGTERM)
        Supervisor(home, home / "logs", [spec], say, grace=1.0).run()
    """)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=30, check=True
    )
    assert "ready slow ready after" in done.stdout


def test_a_terminal_that_goes_away_does_not_keep_anything_alive(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from aiops_assets.cli.supervisor import ChildSpec, Supervisor
        home = Path(sys.argv[1])
        def tell(event):
            os.kill(os.getpid(), signal.SIGHUP)
            raise OSError("input/output error")
        spec = ChildSpec("quiet", (sys.executable, "-c", "import time; time.sleep(600)"))
        supervisor = Supervisor(home, home / "logs", [spec], tell, grace=1.0)
        token = supervisor.state.token
        supervisor.run()
        from aiops_assets.cli import processes
        print("left:", sorted(processes.marked(token)))
    """)
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "left: []\n"


def test_a_readiness_check_that_breaks_is_asked_again(tmp_path: Path) -> None:
    asked = []

    def ready(started: float) -> bool:
        asked.append(started)
        return 1 // (len(asked) - 1) > 0

    spec = ChildSpec("odd", (sys.executable,), ready=ready)
    supervisor = Supervisor(tmp_path, tmp_path / "logs", [spec])
    assert not supervisor._is_ready(spec, 1.0)
    assert supervisor._is_ready(spec, 1.0)


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "ended with exit code 0"), (-9, "was killed by SIGKILL"), (-200, "was killed by signal 200")],
)
def test_ends_are_told_in_words(code: int, words: str) -> None:
    assert exit_reason(code) == words


def test_logs_rotate_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiops_assets.cli.supervisor._LOG_BYTES", 2_000)
    supervisor = Supervisor(tmp_path, tmp_path / "logs", [ChildSpec("noisy", (sys.executable,))])
    child = supervisor._children["noisy"]
    read, write = os.pipe()
    os.set_blocking(read, False)
    supervisor._selector.register(read, 1, child)
    os.write(write, b"x" * 99 + b"\n")
    os.write(write, (b"y" * 99 + b"\n") * 50)
    os.close(write)
    for _ in range(2):
        supervisor._take_output(read, child)
    child.log.close()
    files = list((tmp_path / "logs").glob("noisy.log*"))
    assert 2 <= len(files) <= 6
    assert all(file.stat().st_size <= 2_000 for file in files)
