"""The registry: versions that never change, gates that hold, a pointer whose every move is known."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text
from typer.testing import CliRunner

from aiops_assets.backup.capture import back_up
from aiops_assets.backup.restore import restore
from aiops_assets.cli import app
from aiops_assets.hours import instant
from aiops_assets.lake.tables import Lake
from aiops_assets.live.upkeep import vacuum, verify_all
from aiops_assets.operations.database import connect, reading
from aiops_assets.operations.models import AUDIT
from aiops_assets.promotion import pointers
from aiops_assets.promotion.gates import Candidate, Gate, GateResult, Inputs, Measure, VersionFiles
from aiops_assets.promotion.pickles import pickled
from aiops_assets.promotion.pointers import Move
from aiops_assets.promotion.problems import (
    FileRefused,
    GatesNotPassed,
    MovedMeanwhile,
    NothingBefore,
    RegistryProblem,
    VersionDamaged,
    VersionRevoked,
    VersionUnknown,
)
from aiops_assets.promotion.publishing import UNNAMED, find, name_of
from aiops_assets.promotion.registry import Registry
from aiops_assets.promotion.store import MANIFEST, VersionStore
from aiops_assets.settings import Settings
from tests.examples import examples
from tests.home import home
from tests.unit.test_operations_database import postgres  # noqa: F401 - a fixture

INPUTS = Inputs("1.2", "c0ffee", 7, "offline", {"metric_points": 3}, {"reference.csv": "ab" * 32}, {"share": 0.5})
GOOD = Gate("good", "Is it good?", lambda files, champion: GateResult(True, "good"))
SMALL = Gate("small", "Is it small?", lambda files, champion: GateResult(True, "small"), blocking=False)
PASSED, FAILED = GateResult(True, "as it should be"), GateResult(False, "3 rows are wrong", advice="Mend them.")


@pytest.fixture
def platform(tmp_path: Path) -> Settings:
    return home(tmp_path / "home")


@pytest.fixture
def registry(platform: Settings) -> Iterator[Registry]:
    with Registry(platform) as opened:
        yield opened


def register(registry: Registry, content: str, thing: str = "toy", **more: Any) -> str:
    with registry.working(thing) as folder:
        (folder / "model.json").write_text(json.dumps({"content": content}))
        (folder / "parts").mkdir()
        (folder / "parts" / "a.csv").write_text("x\n1\n")
        return registry.register(thing, "model", folder, Candidate(INPUTS, {"rows": 1.0}, rows=1), **more)


def passed(registry: Registry, content: str, thing: str = "toy") -> str:
    version = register(registry, content, thing)
    registry.record_gates(thing, version, [(GOOD, PASSED)])
    return version


def served(registry: Registry, content: str, thing: str = "toy") -> str:
    version = passed(registry, content, thing)
    registry.promote(thing, version, who="kim")
    return version


def audited(platform: Settings) -> list[tuple[str, str, str]]:
    engine = connect(platform.paths.operations_url)
    with reading(engine) as connection:
        rows = connection.execute(select(AUDIT.c.who, AUDIT.c.action, AUDIT.c.details).order_by(AUDIT.c.audit_id)).all()
    engine.dispose()
    return [(row.who, row.action, json.loads(row.details)["reason"]) for row in rows]


# -- versions -------------------------------------------------------------------------------------------------------


def test_the_same_contents_are_the_same_version_and_one_row(registry: Registry) -> None:
    first = register(registry, "a", run_id="run-1")
    again = register(registry, "a", run_id="run-2")
    other = register(registry, "b")
    assert first == again != other
    frame = registry.lake.read("registry_versions")
    assert sorted(frame["version"]) == sorted([first, other])
    (row,) = frame.filter(pl.col("version") == first).to_dicts()
    assert (row["thing"], row["kind"], row["run_id"]) == ("toy", "model", "run-1")
    assert json.loads(row["inputs"]) == {
        "code_version": "1.2", "config_digest": "c0ffee", "seed": 7, "provider": "offline",
        "tables": {"metric_points": 3}, "files": {"reference.csv": "ab" * 32}, "more": {"share": 0.5},
    }  # fmt: skip
    assert [manifest.version for manifest in registry.versions("toy")] == [first, other]


def test_a_version_is_what_sha256sum_says_of_its_files(registry: Registry) -> None:
    version = register(registry, "a")
    folder = registry.files("toy", version).folder
    lines = subprocess.run(["sha256sum", "model.json", "parts/a.csv"], cwd=folder, capture_output=True, check=True)
    assert hashlib.sha256(lines.stdout).hexdigest() == version


def test_gates_see_inputs_and_metrics_as_they_were_recorded(registry: Registry) -> None:
    version = register(registry, "a")
    files = registry.files("toy", version)
    assert (files.thing, files.version, files.metrics) == ("toy", version, {"rows": 1.0})
    assert files.inputs["seed"] == 7 and json.loads((files.folder / "model.json").read_text()) == {"content": "a"}


def test_files_of_a_version_are_read_only(registry: Registry) -> None:
    folder = registry.files("toy", register(registry, "a")).folder
    assert all(path.stat().st_mode & 0o222 == 0 for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "add", "manifest"])
def test_a_version_that_was_changed_is_not_given_out(registry: Registry, harm: str) -> None:
    version = register(registry, "a")
    folder = registry.store.folder("toy", version)
    path = folder / (MANIFEST if harm == "manifest" else "parts/a.csv")
    content = path.read_bytes()
    path.chmod(0o600)
    if harm in {"flip", "manifest"}:
        path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    elif harm == "cut":
        path.write_bytes(content[:-1])
    elif harm == "remove":
        path.unlink()
    else:
        path = folder / "parts" / "b.csv"
        path.write_text("")
    with pytest.raises(VersionDamaged, match=str(path)):
        registry.files("toy", version)
    assert [one.version for one in registry.versions("toy")] == [version]
    # Making it again heals it.
    assert register(registry, "a") == version
    assert registry.files("toy", version).version == version


def test_what_a_killed_process_left_is_removed_when_it_is_old_and_nobody_holds_it(registry: Registry) -> None:
    register(registry, "a")
    left = registry.store.root / "toy" / ".staging-01"
    left.mkdir()
    (left / "half").write_text("x")
    register(registry, "b")
    assert left.exists()
    os.utime(left, (time.time() - 7200,) * 2)
    with registry.store.working("toy") as held:
        os.utime(held, (time.time() - 7200,) * 2)
        register(registry, "c")
        assert held.exists() and not left.exists()
    assert not held.exists()


@pytest.mark.parametrize("thing", ["", "Toy", "a/b", "..", "a-b", "1a", "a" * 65])
def test_names_that_cannot_be_folders_are_refused(registry: Registry, tmp_path: Path, thing: str) -> None:
    (tmp_path / "a").write_text("a")
    with pytest.raises(VersionUnknown, match="names no promoted thing"):
        registry.register(thing, "model", tmp_path, Candidate(INPUTS))


def test_kinds_links_empty_folders_and_our_own_file_names_are_refused(registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()

    def refused(kind: str = "model") -> str:
        with pytest.raises(RegistryProblem) as problem:
            registry.register("toy", kind, folder, Candidate(INPUTS))
        return str(problem.value)

    assert "dataset, model, forecaster" in refused("spaceship")
    assert "holds no file" in refused()
    (folder / "link").symlink_to("/etc/passwd")
    assert "link: is no ordinary file" in refused()
    (folder / "link").unlink()
    for name in (MANIFEST, ".hidden", "new\nline"):
        (folder / name).write_text("x")
        assert repr(name)[1:-1] in refused()
        (folder / name).unlink()
    assert registry.things() == [] and list(registry.store.root.rglob("*.json")) == []


# -- pickles --------------------------------------------------------------------------------------------------------


class Harmful:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return print, ("this ran",)


def _zip(**members: bytes) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def _npy(array: Any, *, objects: bool = False) -> bytes:
    file = BytesIO()
    np.save(file, array, allow_pickle=objects)
    return file.getvalue()


def _parquet() -> bytes:
    file = BytesIO()
    pl.DataFrame({"a": [1]}).write_parquet(file)
    return file.getvalue()


PICKLES = {
    "model.pkl": b"anything",
    "model.joblib": b"anything",
    **{f"protocol{n}.bin": pickle.dumps(Harmful(), n) for n in range(6)},
    "long.txt": pickle.dumps([*map(str, range(20_000)), Harmful()], 0),
    "objects.npy": _npy(np.array([{"a": 1}], dtype=object), objects=True),
    "records.npy": _npy(np.array([(1, "x")], dtype=[("n", "i4"), ("o", "O")]), objects=True),
    "arrays.npz": _zip(**{"a.npy": _npy(np.array(["a", None], dtype=object), objects=True)}),
    "weights.pt": _zip(**{"archive/data.pkl": b"x"}),
    "weights.zip": _zip(**{"archive/data": pickle.dumps(Harmful())}),
    "small.gz": __import__("gzip").compress(pickle.dumps(Harmful())),
    "small.bz2": __import__("bz2").compress(pickle.dumps(Harmful())),
    "small.xz": __import__("lzma").compress(pickle.dumps(Harmful())),
    "small.z": __import__("zlib").compress(pickle.dumps(Harmful())),
}
PLAIN = {
    "model.json": b'{"a": [1, 2]}',
    "text.csv": b"category,group\nc,d\n.,(\n",
    "story.txt": b"cat\nsat\non the mat.\n(a.\n" * 50,
    "empty": b"",
    "array.npy": _npy(np.arange(4.0)),
    "names.npy": _npy(np.array(["a", "bc"])),
    "arrays.npz": _zip(**{"a.npy": _npy(np.arange(3))}),
    "report.xlsx": _zip(**{"xl/workbook.xml": b"<workbook/>"}),
    "lines.json.gz": __import__("gzip").compress(b'{"a": 1}\n' * 100),
    "frame.parquet": _parquet(),
}


@pytest.mark.parametrize("name", sorted(PICKLES))
def test_pickles_in_any_disguise_are_refused_by_name(
    registry: Registry, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / name).write_bytes(PICKLES[name])
    with pytest.raises(FileRefused, match=name):
        registry.register("toy", "model", tmp_path / "files", Candidate(INPUTS))
    assert registry.things() == [] and "this ran" not in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_ordinary_files_are_no_pickles(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(PLAIN[name])
    assert pickled(tmp_path / name) is None


@given(value=st.recursive(st.none() | st.integers() | st.text(), st.lists), protocol=st.integers(2, 5))
@settings(max_examples=examples(100), deadline=None)
def test_whatever_is_pickled_is_seen(tmp_path_factory: pytest.TempPathFactory, value: Any, protocol: int) -> None:
    path = tmp_path_factory.mktemp("p") / "x"
    path.write_bytes(pickle.dumps(value, protocol))
    assert pickled(path) is not None


@given(content=st.binary(max_size=300))
@settings(max_examples=examples(200), deadline=None)
def test_looking_for_pickles_never_fails(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("p") / "x"
    for head in (b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"\x1f\x8b\x08", b"x\x9c"):
        path.write_bytes(head + content)
        pickled(path)


# -- gates ----------------------------------------------------------------------------------------------------------


def test_each_evaluation_is_appended_once_and_the_last_one_counts(registry: Registry) -> None:
    version = register(registry, "a")
    result = GateResult(
        False, "bad", {"auc": Measure(0.7, most=0.6), "rows": Measure(float("nan"), least=1, unit="1")},
        details=[{"row": n} for n in range(300)], advice="Mend it.",
    )  # fmt: skip
    registry.record_gates("toy", version, [(GOOD, result), (SMALL, PASSED)], at=10, run_id="r")
    registry.record_gates("toy", version, [(GOOD, result), (SMALL, PASSED)], at=10, run_id="r")
    assert registry.lake.read("registry_gates").height == 2
    (good, small) = registry.gates("toy", version)
    assert (good.gate, good.passed, good.blocking, good.advice, len(good.details)) == (
        "good",
        False,
        True,
        "Mend it.",
        100,
    )
    assert good.measures["auc"] == Measure(0.7, most=0.6) and good.measures["rows"].value != good.measures["rows"].value
    assert (small.gate, small.blocking, small.evaluated_at, small.run_id) == ("small", False, 10, "r")
    registry.record_gates("toy", version, [(GOOD, PASSED)], at=20)
    assert [one.passed for one in registry.gates("toy", version)] == [True, True]
    assert len(registry.evaluations("toy", version)) == 3


def test_promotion_needs_the_last_word_of_every_blocking_gate(registry: Registry) -> None:
    version = register(registry, "a", gates=["good", "safe"])
    with pytest.raises(GatesNotPassed, match="good: was never asked"):
        registry.promote("toy", version, who="kim")
    safe = Gate("safe", "Is it safe?", GOOD.judge)
    registry.record_gates("toy", version, [(GOOD, FAILED), (safe, PASSED), (SMALL, FAILED)])
    with pytest.raises(GatesNotPassed) as problem:
        registry.promote("toy", version, who="kim")
    said = str(problem.value)
    assert "good: 3 rows are wrong → Mend them." in said and "safe" not in said and "small" not in said
    assert f"aiops registry promote toy {version[:12]} --override --reason TEXT" in said
    assert registry.champion("toy") is None and registry.history("toy") == []
    registry.record_gates("toy", version, [(GOOD, PASSED)])
    assert registry.promote("toy", version, who="kim").how == "promoted"


def test_without_any_evidence_nothing_is_promoted(registry: Registry) -> None:
    with pytest.raises(GatesNotPassed, match="no gate was ever asked"):
        registry.promote("toy", register(registry, "a"), who="kim")


def test_gates_that_are_no_longer_asked_do_not_count_for_those_who_name_theirs(registry: Registry) -> None:
    version = register(registry, "a")
    registry.record_gates("toy", version, [(GOOD, PASSED), (Gate("retired", "", GOOD.judge), FAILED)])
    with pytest.raises(GatesNotPassed, match="retired"):
        registry.promote("toy", version, who="kim")
    assert registry.promote("toy", version, who="dagster", required=["good"]).changed


# -- pointers -------------------------------------------------------------------------------------------------------


def test_an_override_needs_a_reason_and_is_recorded(registry: Registry, platform: Settings) -> None:
    version = register(registry, "a")
    registry.record_gates("toy", version, [(GOOD, FAILED)])
    with pytest.raises(RegistryProblem, match="needs a reason"):
        registry.promote("toy", version, who="kim", override=True, reason="  ")
    move = registry.promote("toy", version, who="kim", override=True, reason="CHG0042")
    assert (move.how, move.sequence, move.version, move.previous) == ("overridden", 1, version, None)
    assert audited(platform) == [("kim", "registry.overridden", "CHG0042")]
    assert registry.promote("toy", passed(registry, "b"), who="kim", override=True, reason="sure").how == "promoted"


def test_what_served_at_an_instant_is_known(registry: Registry) -> None:
    first, second = served(registry, "a"), served(registry, "b")
    registry.rollback("toy", who="kim")
    one, two, three = registry.history("toy")
    assert one.at < two.at < three.at
    served_at = {
        one.at - 1: None,
        one.at: first,
        two.at - 1: first,
        two.at: second,
        three.at: first,
        three.at + 9: first,
    }
    assert {at: registry.champion("toy", at) for at in served_at} == served_at
    assert registry.champion("toy", instant(two.at)) == second


def test_a_clock_that_goes_backwards_leaves_one_answer(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    served(registry, "a")
    last = registry.history("toy")[-1]
    monkeypatch.setattr("aiops_assets.promotion.registry._now", lambda: last.at - 1_000_000)
    served(registry, "b")
    assert registry.history("toy")[-1].at == last.at + 1


def test_promoting_what_serves_changes_nothing_and_says_so(registry: Registry) -> None:
    version = served(registry, "a")
    again = registry.promote("toy", version, who="sam")
    assert not again.changed and again.who == "kim" and len(registry.history("toy")) == 1


def test_rollbacks_go_back_one_by_one_past_revoked_versions(registry: Registry) -> None:
    a, b, c, d = (served(registry, content) for content in "abcd")
    registry.revoke("toy", c, who="kim", reason="wrong units")
    assert registry.champion("toy") == d
    assert [registry.rollback("toy", who="kim").version for _ in range(2)] == [b, a]
    with pytest.raises(NothingBefore, match=f"only {a[:12]} ever served"):
        registry.rollback("toy", who="kim")
    assert [move.how for move in registry.history("toy")][-3:] == ["revoked", "rolled_back", "rolled_back"]


def test_revoking_what_serves_gives_way_to_the_one_before_or_to_none(registry: Registry, platform: Settings) -> None:
    a, b = served(registry, "a"), served(registry, "b")
    with pytest.raises(RegistryProblem, match="needs a reason"):
        registry.revoke("toy", b, who="kim", reason="")
    assert registry.revoke("toy", b, who="kim", reason="leaks").version == a
    assert registry.revoke("toy", a, who="kim", reason="leaks too").version is None
    assert not registry.revoke("toy", a, who="kim", reason="again").changed
    assert registry.champion("toy") is None and set(registry.revoked("toy")) == {a, b}
    for override in (False, True):
        with pytest.raises(VersionRevoked, match="revoked by kim"):
            registry.promote("toy", b, who="sam", override=override, reason="please")
    assert register(registry, "b") == b
    assert served(registry, "c") == registry.champion("toy")
    with pytest.raises(NothingBefore):
        registry.rollback("toy", who="kim")
    assert [entry[1] for entry in audited(platform)] == [
        "registry.promoted", "registry.promoted", "registry.revoked", "registry.revoked", "registry.promoted",
    ]  # fmt: skip


def test_a_damaged_version_does_not_come_into_use(registry: Registry) -> None:
    a, b = served(registry, "a"), served(registry, "b")
    path = registry.store.folder("toy", a) / "model.json"
    path.chmod(0o600)
    path.write_text("{}")
    with pytest.raises(VersionDamaged, match=r"model\.json"):
        registry.rollback("toy", who="kim")
    assert registry.champion("toy") == b
    with pytest.raises(VersionDamaged):
        registry.promote("toy", a, who="kim")


def test_publishing_comes_before_the_pointer_and_its_failure_leaves_it(registry: Registry) -> None:
    a = served(registry, "a")
    b = passed(registry, "b")
    seen = []

    def publish(files: VersionFiles) -> None:
        seen.append((files.version, registry.champion("toy")))
        if len(seen) == 1:
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        registry.promote("toy", b, who="kim", publish=publish)
    assert registry.champion("toy") == a
    registry.promote("toy", b, who="kim", publish=publish)
    assert seen == [(b, a), (b, a)] and registry.champion("toy") == b


def test_who_judged_before_the_last_move_is_refused(registry: Registry) -> None:
    served(registry, "a")
    b, c = passed(registry, "b"), passed(registry, "c")
    registry.promote("toy", b, who="kim", expected=1)
    with pytest.raises(MovedMeanwhile, match=rf"kim has promoted {b[:12]} \(move 2\)"):
        registry.promote("toy", c, who="sam", expected=1)
    with pytest.raises(MovedMeanwhile):
        registry.rollback("toy", who="sam", expected=1)
    assert registry.champion("toy") == b


def test_a_promotion_that_is_overtaken_while_it_publishes_is_refused(registry: Registry, platform: Settings) -> None:
    a, b = passed(registry, "a"), passed(registry, "b")

    def publish(files: VersionFiles) -> None:
        with Registry(platform) as other:
            other.promote("toy", b, who="sam")

    with pytest.raises(MovedMeanwhile, match="sam has promoted"):
        registry.promote("toy", a, who="kim", publish=publish)
    assert registry.champion("toy") == b and len(registry.history("toy")) == 1


@st.composite
def histories(draw: st.DrawFn) -> list[str]:
    return draw(st.lists(st.sampled_from(["promote a", "promote b", "promote c", "rollback", "revoke a", "revoke b"])))


@given(history=histories())
@settings(max_examples=examples(300), deadline=None)
def test_the_line_of_succession_ends_with_what_serves(history: list[str]) -> None:
    moves: list[Move] = []
    for number, wanted in enumerate(history, start=1):
        verb, _, name = wanted.partition(" ")
        head = moves[-1].version if moves else None
        line = pointers.succession(moves)
        assert (line[-1] if line else None) == head
        assert not set(line) & set(pointers.revoked(moves))
        assert all(one != two for one, two in itertools.pairwise(line))
        if verb == "promote" and name != head and name not in pointers.revoked(moves):
            moves.append(Move("toy", number, name, head, number, "kim", "promoted"))
        elif verb == "rollback" and len(line) > 1:
            moves.append(Move("toy", number, line[-2], head, number, "kim", "rolled_back"))
        elif verb == "revoke" and name not in pointers.revoked(moves):
            left = [one for one in line if one != name]
            moves.append(
                Move(
                    "toy", number, (left[-1] if left else None) if head == name else head, name, number, "k", "revoked"
                )
            )


# -- several at once ------------------------------------------------------------------------------------------------

#: imports once, then every line of work is a process of its own; all start when the last one stands ready
SEVERAL = """
import os, sys
from aiops_assets.promotion.gates import Candidate, Inputs
from aiops_assets.promotion.problems import MovedMeanwhile
from aiops_assets.promotion.registry import Registry
from aiops_assets.settings import Settings

def promote(registry, version):
    try:
        return registry.promote("toy", version, who=version[:6], expected=1).changed
    except MovedMeanwhile as problem:
        return f"lost {problem}"

def register(registry, _):
    for number in range(4):
        with registry.working("toy") as folder:
            (folder / "model.json").write_text(str(number))
            registry.register("toy", "model", folder, Candidate(Inputs("1")))

work, home, url, *words = sys.argv[1:]
ready, go = os.pipe(), os.pipe()
children = []
for word in words:
    child = os.fork()
    if child:
        children.append(child)
        continue
    with Registry(Settings(home=home, operations_url=url)) as registry:
        registry.engine
        os.write(ready[1], b"r")
        os.read(go[0], 1)
        answer = globals()[work](registry, word)
    os.write(1, f"{word} {answer}\\n".encode())
    os._exit(0)
for _ in words:
    os.read(ready[0], 1)
os.write(go[1], b"g" * len(words))
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


def at_once(platform: Settings, work: str, words: list[str]) -> dict[str, str]:
    """Word → what the process said that worked with it."""
    command = [sys.executable, "-c", SEVERAL, work, str(platform.home), platform.paths.operations_url, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


@pytest.fixture(params=["sqlite", "postgres"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """A home with its operations database in a file, or on a Postgres server."""
    if request.param == "sqlite":
        return home(tmp_path / "home", operations_url=f"sqlite:///{tmp_path / 'operations.db'}")
    server: str = request.getfixturevalue("postgres")
    name = f"r{time.time_ns()}"
    engine = connect(server)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return home(tmp_path / "home", operations_url=server.removesuffix("/postgres") + f"/{name}")


def test_of_two_promotions_at_once_one_wins_and_the_other_says_so(shared: Settings) -> None:
    with Registry(shared) as registry:
        served(registry, "start")
        versions = [passed(registry, content) for content in "abc"]
        answers = at_once(shared, "promote", versions)
        winners = [version for version, answer in answers.items() if answer == "True"]
        losers = [answer for answer in answers.values() if answer != "True"]
        assert len(winners) == 1 and registry.champion("toy") == winners[0]
        said = f"{winners[0][:6]} has promoted {winners[0][:12]} (move 2)"
        assert all(answer.startswith("lost toy: somebody else moved it") and said in answer for answer in losers)
        assert [move.sequence for move in registry.history("toy")] == [1, 2]


def test_processes_that_register_the_same_contents_make_one_version_and_one_row(platform: Settings) -> None:
    at_once(platform, "register", ["a", "b", "c"])
    frame = Lake(platform.paths.lake).read("registry_versions")
    assert frame.height == 4 and frame["version"].n_unique() == 4
    store = VersionStore(Path(platform.paths.lake) / "_registry")
    assert len(store.versions("toy")) == 4
    assert [path.name for path in (store.root / "toy").iterdir() if path.name.startswith(".")] == []


# -- care of the whole system ---------------------------------------------------------------------------------------


def test_a_backup_of_the_whole_system_has_all_versions_and_none_that_is_being_made(
    registry: Registry, platform: Settings, tmp_path: Path
) -> None:
    a, b = served(registry, "a"), passed(registry, "b")
    with registry.working("toy") as folder:
        (folder / "half").write_text("x")
        back_up(platform, tmp_path / "backups")
    copy = Settings(home=tmp_path / "copy")
    assert restore(tmp_path / "backups", copy, verify=True).clean
    with Registry(copy) as restored:
        assert restored.champion("toy") == a and restored.history("toy") == registry.history("toy")
        assert [restored.files("toy", version).version for version in (a, b)] == [a, b]
        assert [one.passed for one in restored.gates("toy", b)] == [True]
        assert not list(restored.store.root.rglob("half"))
        assert restored.promote("toy", b, who="sam").changed


def test_lake_care_verifies_versions_and_removes_what_was_never_finished(
    registry: Registry, platform: Settings
) -> None:
    a, b = served(registry, "a"), served(registry, "b")
    assert verify_all(platform, full=False, now=datetime.now(UTC)).clean
    left = registry.store.root / "toy" / ".staging-01"
    left.mkdir()
    (left / "half").write_text("xyz")
    os.utime(left, (time.time() - 7200,) * 2)
    for dry_run, there in ((True, True), (False, False)):
        done = vacuum(platform, dry_run=dry_run, keep_hours=24, now=datetime.now(UTC))
        (swept,) = [one for one in done if one.table == "_registry"]
        assert (swept.removed, swept.size, swept.files, left.exists()) == (1, 3, 2, there)
    path = registry.store.folder("toy", a) / "model.json"
    path.chmod(0o600)
    path.write_text(path.read_text().replace("a", "A"))
    assert verify_all(platform, full=False, now=datetime.now(UTC)).clean
    (finding,) = verify_all(platform, full=True, now=datetime.now(UTC)).findings
    assert finding.partition == f"toy/{a[:12]}" and "model.json: damaged" in finding.what
    assert "aiops registry restore" in finding.next_step
    shutil.rmtree(registry.store.folder("toy", b))
    found = verify_all(platform, full=False, now=datetime.now(UTC)).findings
    assert any("lost, registry_versions names it" in finding.what for finding in found)


def test_in_an_object_store_another_host_finds_the_same_versions(tmp_path: Path) -> None:
    lake = f"file://{tmp_path / 'bucket'}"
    # A folder plays the object store, through the same code; only folders have to be there before their files.
    (tmp_path / "bucket" / "_registry").mkdir(parents=True)
    shared = f"sqlite:///{tmp_path / 'operations.db'}"
    first, second = (Settings(home=tmp_path / name, lake=lake, operations_url=shared) for name in ("first", "second"))
    with Registry(first) as registry:
        a, b = served(registry, "a"), served(registry, "b")
    with Registry(second) as registry:
        assert [manifest.version for manifest in registry.versions("toy")] == [a, b]
        assert registry.rollback("toy", who="kim").version == a
        assert json.loads((registry.files("toy", a).folder / "model.json").read_text()) == {"content": "a"}
        assert registry.files("toy", a).folder.is_relative_to(tmp_path / "second" / "registry")
    part = next((tmp_path / "bucket" / "_registry" / "toy" / b).rglob("a.csv"))
    part.chmod(0o600)
    part.write_text("x\n2\n")
    with Registry(Settings(home=tmp_path / "third", lake=lake, operations_url=shared)) as registry:
        assert registry.files("toy", a).version == a
        with pytest.raises(VersionDamaged, match="not those of its manifest"):
            registry.files("toy", b)


# -- publishers -----------------------------------------------------------------------------------------------------


def publish_nowhere(settings: Settings, files: VersionFiles) -> None:
    """A publisher outside of the package."""


def test_a_recorded_publisher_is_followed_only_to_a_function_that_publishes() -> None:
    assert name_of(None) is None
    assert name_of(lambda settings, files: None) == UNNAMED == name_of(publish_nowhere)
    for name in (
        "os:system",
        "aiops_assets.settings:load_settings",
        "aiops_assets.backup.capture:back_up",
        UNNAMED,
        "",
    ):
        with pytest.raises(RegistryProblem, match="materialise its champion asset in Dagster"):
            find(name)


def test_a_publisher_of_the_package_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from aiops_assets.promotion import publishing

    def publish(settings: Settings, files: VersionFiles) -> None:
        """A publisher of the package."""

    publish.__module__, publish.__qualname__ = publishing.__name__, "publish"
    publish.__annotations__ = {"settings": Settings, "files": VersionFiles, "return": None}
    monkeypatch.setattr(publishing, "publish", publish, raising=False)
    name = name_of(publish)
    assert name == "aiops_assets.promotion.publishing:publish" and find(name) is publish


# -- the command line -----------------------------------------------------------------------------------------------


def run(platform: Settings, *words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["registry", *words], env={"AIOPS_HOME": str(platform.home)})
    assert result.exit_code == code, result.output
    return result.output


def documents(platform: Settings, *words: str, code: int = 0) -> Any:
    return json.loads(run(platform, *words, "--json", code=code))


def test_the_commands_tell_and_move(registry: Registry, platform: Settings) -> None:
    assert "nothing is registered yet" in run(platform, "list")
    a = served(registry, "a")
    b = register(registry, "b", gates=["good"])
    registry.record_gates("toy", b, [(GOOD, FAILED), (SMALL, GateResult(True, "ok", {"size": Measure(3, most=9)}))])
    (row,) = documents(platform, "list")
    assert (row["thing"], row["versions"], row["champion"], row["newest"], row["newest_gates"]) == (
        "toy",
        2,
        a,
        b,
        "0/1",
    )
    assert [one["serves"] for one in documents(platform, "list", "toy")] == [True, False]
    shown = documents(platform, "show", "toy", b[:6])
    assert (shown["version"], shown["serves"], shown["damaged"]) == (b, False, []) and shown["inputs"]["seed"] == 7
    assert "3 rows are wrong" in run(platform, "show", "toy", "newest")
    assert documents(platform, "gate", "toy", code=1)["unmet"] == ["good: 3 rows are wrong → Mend them."]
    assert "at most 9" in run(platform, "gate", "toy", "newest", "--gate", "small", code=1)
    assert "are: good, small" in run(platform, "gate", "toy", "--gate", "large", code=2)
    run(platform, "gate", "toy", "champion")
    differs = {row["name"]: row["differs"] for row in documents(platform, "diff", "toy", "champion", "newest")["files"]}
    assert differs == {"model.json": True, "parts/a.csv": False}
    assert "good: 3 rows are wrong" in run(platform, "promote", "toy", b[:6], code=1)
    assert "needs a reason" in run(platform, "promote", "toy", b[:6], "--override", code=1)
    assert "although gates had not passed" in run(
        platform, "promote", "toy", b[:6], "--override", "--reason", "drill", "--who", "sam"
    )
    assert "serves already" in run(platform, "promote", "toy", "newest")
    overridden = registry.history("toy")[-1]
    assert (overridden.how, overridden.who, overridden.reason) == ("overridden", "sam", "drill")
    assert documents(platform, "rollback", "toy", "--reason", "drill over")["version"] == a
    assert "moved it since move 1" in run(platform, "rollback", "toy", "--expected", "1", code=1)
    assert "no version to roll back to" in run(platform, "rollback", "toy", code=1)
    assert documents(platform, "revoke", "toy", "champion", "--reason", "leaks")["version"] is None
    assert "nothing serves" in run(platform, "promote", "toy", "champion", code=2)


def test_as_of_answers_and_refuses_what_is_no_time(registry: Registry, platform: Settings) -> None:
    a, b = served(registry, "a"), served(registry, "b")
    one, two = registry.history("toy")
    assert documents(platform, "as-of", "toy", instant(one.at).isoformat())["version"] == a
    assert run(platform, "as-of", "toy", instant(two.at).isoformat()).startswith(b)
    registry.revoke("toy", a, who="sam", reason="leaks")
    answer = documents(platform, "as-of", "toy", "2999-01-01")
    assert (answer["version"], answer["move"]["sequence"]) == (b, 2)
    assert documents(platform, "list")[0]["since"] == two.at
    assert "nothing of toy served" in run(platform, "as-of", "toy", "2001-02-03", code=1)
    assert "write ISO 8601" in run(platform, "as-of", "toy", "yesterday", code=2)
    assert "the registry has: toy" in run(platform, "as-of", "tory", "2001-02-03", code=2)
    assert "names no promoted thing" in run(platform, "as-of", "../toy", "2001-02-03", code=2)
    assert "write at least 4 digits" in run(platform, "show", "toy", "ab", code=2)


def test_moving_by_command_publishes_and_says_when_it_cannot(
    registry: Registry, platform: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aiops_assets.promotion import publishing

    published = []

    def publish(settings: Settings, files: VersionFiles) -> None:
        """A publisher of the package."""
        published.append((settings.home, files.version))

    publish.__annotations__ = {"settings": Settings, "files": VersionFiles, "return": None}
    monkeypatch.setattr(publishing, "publish", publish, raising=False)
    a = register(registry, "a", publisher="aiops_assets.promotion.publishing:publish")
    b = register(registry, "b", publisher="aiops_assets.promotion.publishing:gone")
    for version in (a, b):
        registry.record_gates("toy", version, [(GOOD, PASSED)])
    run(platform, "promote", "toy", a[:8])
    assert published == [(platform.home, a)]
    assert "materialise its champion asset in Dagster" in run(platform, "promote", "toy", b[:8], code=1)
    assert registry.champion("toy") == a
    run(platform, "promote", "toy", b[:8], "--without-publishing")
    run(platform, "rollback", "toy")
    assert registry.champion("toy") == a and published == [(platform.home, a)] * 2
