"""Archives of the registry: the same state is the same bytes, and nothing but a whole archive comes back."""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from aiops_assets.cli import app
from aiops_assets.promotion import archive, ustar
from aiops_assets.promotion.archive_format import GATES, INDEX, MOVES
from aiops_assets.promotion.gates import Candidate, Gate, GateResult, Inputs, Measure, VersionFiles
from aiops_assets.promotion.problems import ArchiveProblem, VersionDamaged
from aiops_assets.promotion.registry import Registry
from aiops_assets.promotion.store import FileEntry, Manifest, manifest_bytes, version_of
from aiops_assets.settings import Settings
from tests.examples import examples
from tests.home import home

GOOD = Gate("good", "Is it good?", lambda files, champion: GateResult(True, "good"))
RESULT = GateResult(
    True, "fine", {"auc": Measure(0.55, most=0.6), "n": Measure(float("nan"))}, [{"row": 1, "why": "é"}]
)


def filled(folder: Path) -> Settings:
    """A home with two things, of which one was promoted, rolled back and revoked."""
    platform = home(folder)
    with Registry(platform) as registry:
        for thing, contents in (("toy", "abc"), ("other", "x")):
            for content in contents:
                with registry.working(thing) as made:
                    (made / "model.json").write_text(json.dumps({"content": content}))
                    (made / "parts" / "deep").mkdir(parents=True)
                    (made / "parts" / "deep" / "zeros.bin").write_bytes(bytes(700))
                    (made / "empty").touch()
                    version = registry.register(
                        thing, "model", made, Candidate(Inputs("1", seed=3), {"n": 1.0}, rows=2)
                    )
                registry.record_gates(thing, version, [(GOOD, RESULT)])
                registry.promote(thing, version, who="kim", reason=f"it is {content}")
        registry.rollback("toy", who="kim", reason="a drill")
        registry.revoke("toy", registry.versions("toy")[2].version, who="kim", reason="leaks")
    return platform


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return filled(tmp_path_factory.mktemp("source") / "home")


@pytest.fixture(scope="module")
def whole(source: Settings, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("archive") / "registry.tar"
    with Registry(source) as registry:
        archive.back_up(registry, path)
    return path.read_bytes()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Registry]:
    with Registry(home(tmp_path / "elsewhere")) as registry:
        yield registry


def state(registry: Registry) -> dict[str, Any]:
    return {
        thing: (
            [manifest.document() for manifest in registry.versions(thing)],
            [json.dumps(one.document()) for one in registry.evaluations(thing)],
            [move.document() for move in registry.history(thing)],
        )
        for thing in registry.things()
    }


def refused(content: bytes, folder: Path) -> str:
    path = folder / "registry.tar"
    path.write_bytes(content)
    with pytest.raises(ArchiveProblem) as problem:
        archive.verify(path)
    said = str(problem.value)
    assert str(path) in said
    return said


def test_an_archive_is_an_ordinary_tar_file_and_the_same_state_the_same_bytes(
    source: Settings, whole: bytes, tmp_path: Path
) -> None:
    with Registry(source) as registry:
        contents = archive.back_up(registry, tmp_path / "again.tar")
        version = registry.versions("other")[0].version
    assert (tmp_path / "again.tar").read_bytes() == whole
    assert contents.things == {"other": 1, "toy": 3} and contents.sha256 == hashlib.sha256(whole).hexdigest()
    assert [path.name for path in tmp_path.iterdir()] == ["again.tar"]
    with tarfile.open(tmp_path / "again.tar") as tar:
        names = tar.getnames()
        model = tar.extractfile(f"things/other/{version}/files/model.json")
        assert model is not None and model.read() == b'{"content": "x"}'
    assert names[:3] == [INDEX, GATES, MOVES] and len(names) == contents.files
    subprocess.run(["tar", "-tf", tmp_path / "again.tar"], check=True, capture_output=True)


def test_everything_comes_back_and_what_served_then_is_still_known(
    source: Settings, whole: bytes, empty: Registry, tmp_path: Path
) -> None:
    path = tmp_path / "registry.tar"
    path.write_bytes(whole)
    published: list[tuple[str, str | None]] = []

    def publish(manifest: Manifest, files: VersionFiles) -> None:
        published.append((files.version, empty.champion(files.thing)))

    restored = archive.restore(empty, path, who="sam", publish=publish)
    with Registry(source) as registry:
        before, after = state(registry), state(empty)
        champions = {thing: registry.champion(thing) for thing in registry.things()}
    assert (restored.versions, restored.evaluations, restored.champions) == (4, 4, champions)
    assert sorted(published) == sorted((version, None) for version in champions.values())
    for thing, (versions, evaluations, moves) in before.items():
        assert after[thing][:2] == (versions, evaluations)
        assert after[thing][2][:-1] == moves
        mark = after[thing][2][-1]
        assert (mark["how"], mark["who"], mark["version"]) == ("restored", "sam", moves[-1]["version"])
        assert hashlib.sha256(whole).hexdigest() in mark["reason"]
        assert all(empty.champion(thing, move["at"]) == move["version"] for move in moves)
    assert empty.rollback is not None and len(empty.revoked("toy")) == 1
    assert empty.files("toy", str(champions["toy"])).metrics == {"n": 1.0}


def test_restoring_twice_is_restoring_once(whole: bytes, empty: Registry, tmp_path: Path) -> None:
    path = tmp_path / "registry.tar"
    path.write_bytes(whole)
    archive.restore(empty, path, who="sam")
    once = state(empty)
    again = archive.restore(empty, path, who="sam")
    assert (again.versions, again.evaluations, again.moves) == (0, 0, 0) and state(empty) == once
    assert empty.lake.read("registry_versions").height == 4


def test_a_home_that_went_its_own_way_is_left_alone(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "registry.tar"
    path.write_bytes(whole)
    with Registry(filled(tmp_path / "own")) as registry:
        before = state(registry)
        with pytest.raises(ArchiveProblem, match="this home has 1 moves of its own"):
            archive.restore(registry, path, who="sam")
        assert state(registry) == before


def test_a_damaged_version_is_mended_from_an_archive(tmp_path: Path) -> None:
    with Registry(filled(tmp_path / "home")) as registry:
        archive.back_up(registry, tmp_path / "registry.tar")
        version = str(registry.champion("toy"))
        damaged = registry.store.folder("toy", version) / "model.json"
        damaged.unlink()
        with pytest.raises(VersionDamaged, match=r"model\.json"):
            archive.back_up(registry, tmp_path / "later.tar")
        assert not (tmp_path / "later.tar").exists()
        archive.restore(registry, tmp_path / "registry.tar", who="sam")
        assert registry.files("toy", version).version == version


def test_single_things_are_taken_and_unknown_ones_named(source: Settings, tmp_path: Path) -> None:
    with Registry(source) as registry:
        assert archive.back_up(registry, tmp_path / "a.tar", ["other"]).things == {"other": 1}
        with pytest.raises(ArchiveProblem, match="tory: the registry has other, toy"):
            archive.back_up(registry, tmp_path / "b.tar", ["tory"])
        with pytest.raises(ArchiveProblem, match=r"name it a\.tar"):
            archive.back_up(registry, tmp_path / "a.zip")


def test_no_flipped_byte_gets_through(whole: bytes, tmp_path: Path) -> None:
    chance = random.Random(7)
    for place in sorted({*range(0, 512, 7), *(chance.randrange(len(whole)) for _ in range(examples(900)))}):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << chance.randrange(8)
        refused(bytes(flipped), tmp_path)


def test_no_cut_gets_through(whole: bytes, tmp_path: Path) -> None:
    chance = random.Random(7)
    for length in [
        0,
        1,
        511,
        512,
        len(whole) - 1,
        len(whole) - 512,
        *(chance.randrange(len(whole)) for _ in range(60)),
    ]:
        refused(whole[:length], tmp_path)


def test_a_damaged_member_is_named(whole: bytes, tmp_path: Path) -> None:
    place = whole.index(b'{"content": "b"}')
    said = refused(whole[:place] + b'{"content": "B"}' + whole[place + 16 :], tmp_path)
    assert "files/model.json: is damaged or was changed" in said


def test_what_stands_behind_the_end_is_refused(whole: bytes, tmp_path: Path) -> None:
    added = ustar.header("things/toy/extra", 0)
    with tarfile.open(fileobj=BytesIO(whole)) as tar:
        last = tar.getmembers()[-1]
    end = last.offset_data + last.size + len(ustar.padding(last.size))
    assert end + len(ustar.end(end)) == len(whole)
    assert "does not belong to the archive" in refused(whole + b"x", tmp_path)
    assert "things/toy/extra: does not belong" in refused(whole[:end] + added + whole[end + 512 :], tmp_path)
    for appended in (bytes(10240), whole):
        refused(whole + appended, tmp_path)


# -- archives that were made on purpose -----------------------------------------------------------------------------


def members(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=BytesIO(content)) as tar:
        return {one.name: tar.extractfile(one).read() for one in tar.getmembers()}  # type: ignore[union-attr]


def made(parts: dict[str, bytes], change: Callable[[dict[str, Any]], None] = lambda body: None) -> bytes:
    """An archive with right checksums whatever it holds, as somebody would make who knows the format."""
    body = orjson.loads(parts[INDEX])["archive"]
    body["members"] = [
        {"name": name, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        for name, content in parts.items()
        if name != INDEX
    ]
    change(body)
    checksum = hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
    index = orjson.dumps({"checksum": checksum, "archive": body}, option=orjson.OPT_SORT_KEYS)
    blocks = b""
    for name, content in {**parts, INDEX: index}.items():
        blocks += ustar.header(name, len(content)) + content + ustar.padding(len(content))
    return blocks + ustar.end(len(blocks))


def smuggled(whole: bytes, name: str, content: bytes) -> bytes:
    """An archive in which one version has another file, all hashes and names following from it."""
    parts = members(whole)
    prefix = next(one for one in parts if one.startswith("things/other/")).rsplit("/", 1)[0]
    old = prefix.split("/")[2]
    manifest = orjson.loads(parts[f"{prefix}/manifest.json"])["manifest"]
    manifest.pop("format")
    files = [
        replace(entry, path=name, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        if entry.path == "model.json"
        else entry
        for entry in (FileEntry(**one) for one in manifest["files"])
    ]
    new = version_of(files)
    changed = Manifest(**{**manifest, "files": tuple(sorted(files, key=lambda e: e.path)), "version": new, "gates": ()})
    found: dict[str, bytes] = {}
    for member, body in parts.items():
        if member == f"{prefix}/files/model.json":
            found[f"things/other/{new}/files/{name}"] = content
        elif member == f"{prefix}/manifest.json":
            found[f"things/other/{new}/manifest.json"] = manifest_bytes(changed)
        else:
            found[member.replace(old, new)] = body.replace(old.encode(), new.encode())
    return made(found)


def test_the_maker_of_archives_makes_good_ones_too(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "registry.tar"
    path.write_bytes(made(members(whole)))
    assert path.read_bytes() == whole
    path.write_bytes(smuggled(whole, "model.json", b"{}"))
    assert archive.verify(path).versions == 4


@pytest.mark.parametrize("name", ["model.pkl", "model.bin"])
def test_a_pickle_in_an_archive_is_refused_by_name(whole: bytes, empty: Registry, tmp_path: Path, name: str) -> None:
    path = tmp_path / "registry.tar"
    path.write_bytes(smuggled(whole, name, pickle.dumps({"a": 1})))
    with pytest.raises(ArchiveProblem, match=rf"files/{name}: .*pickles run code"):
        archive.restore(empty, path, who="sam")
    assert state(empty) == {} and empty.store.things() == []


@pytest.mark.parametrize(
    "name", ["../../../evil", "/etc/evil", "a/../../evil", "..", ".hidden", "a//b", "a\\..\\b", "manifest.json", "a\nb"]
)
def test_names_that_lead_out_of_the_home_are_refused(whole: bytes, empty: Registry, tmp_path: Path, name: str) -> None:
    path = tmp_path / "registry.tar"
    path.write_bytes(smuggled(whole, name, b"{}"))
    with pytest.raises(ArchiveProblem):
        archive.restore(empty, path, who="sam")
    assert not list(tmp_path.rglob("evil")) and empty.store.things() == []


def test_what_does_not_fit_together_is_refused_by_name(whole: bytes, tmp_path: Path) -> None:
    parts = members(whole)
    first = next(name for name in parts if name.endswith("/files/model.json"))
    manifest = next(name for name in parts if name.endswith("/manifest.json"))

    def without(name: str) -> bytes:
        return made({member: content for member, content in parts.items() if member != name})

    assert f"{first}: is missing" in refused(without(first), tmp_path)
    assert "is not a file that the version's manifest names" in refused(without(manifest), tmp_path)
    assert "moves.jsonl: is missing" in refused(without(MOVES), tmp_path)
    extra = first.replace("model.json", "extra.json")
    assert f"{extra}: is not a file" in refused(made({**parts, extra: b"{}"}), tmp_path)
    assert "no archive of the registry has such a member" in refused(made({**parts, "etc/passwd": b""}), tmp_path)
    lines = parts[MOVES].splitlines(keepends=True)
    assert "does not follow the one before" in refused(
        made({**parts, MOVES: b"".join(lines[:2] + lines[3:])}), tmp_path
    )
    lost = orjson.loads(parts[GATES].splitlines()[0])["version"]
    swapped = parts[GATES].replace(lost.encode(), b"0" * 64)
    assert "judged other 000000000000, which is missing" in refused(made({**parts, GATES: swapped}), tmp_path)
    assert "gates.jsonl: line 1" in refused(made({**parts, GATES: b"{"}), tmp_path)
    assert "moves.jsonl: a record cannot be read" in refused(made({**parts, MOVES: b'{"a":1}\n'}), tmp_path)
    assert "has format 2" in refused(made(parts, lambda body: body.update(format=2)), tmp_path)
    assert "names no promoted thing" in refused(made(parts, lambda body: body.update(things=["../x"])), tmp_path)
    assert "is named twice" in refused(made(parts, lambda b: b["members"].append(b["members"][-1])), tmp_path)
    assert f"{manifest}: {tmp_path}" in refused(made({**parts, manifest: b"{}"}), tmp_path)


def test_what_claims_to_be_huge_is_refused_before_it_is_read(whole: bytes, tmp_path: Path) -> None:
    huge = 8**11 - 1
    said = refused(ustar.header(INDEX, huge), tmp_path)
    assert "does not begin with aiops-registry.json" in said

    def swell(body: dict[str, Any]) -> None:
        body["members"][0]["size"] = huge

    assert "are more than it can have" in refused(made(members(whole), swell), tmp_path)


@pytest.mark.parametrize("kind", ["gz", "zip", "empty", "text", "pickle", "link", "folder"])
def test_other_files_are_no_archives(whole: bytes, tmp_path: Path, kind: str) -> None:
    import gzip
    import zipfile

    file = BytesIO()
    if kind == "gz":
        file.write(gzip.compress(whole))
    elif kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bomb:
            bomb.writestr(INDEX, bytes(10_000_000))
    elif kind == "text":
        file.write(b"aiops-registry.json\n")
    elif kind == "pickle":
        file.write(pickle.dumps([1]))
    elif kind in {"link", "folder"}:
        with tarfile.open(fileobj=file, mode="w") as tar:
            entry = tarfile.TarInfo(INDEX)
            entry.type, entry.linkname = (tarfile.SYMTYPE, "/etc/passwd") if kind == "link" else (tarfile.DIRTYPE, "")
            tar.addfile(entry)
    assert "is no archive of the registry" in refused(file.getvalue(), tmp_path)
    with pytest.raises(ArchiveProblem, match="there is no such file"):
        archive.verify(tmp_path / "missing.tar")


@given(content=st.binary(max_size=3000))
@settings(max_examples=examples(100), deadline=None)
def test_reading_anything_ends_with_a_refusal(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    refused(ustar.header(INDEX, len(content)) + content, tmp_path_factory.mktemp("a"))


@given(
    name=st.text(
        st.characters(codec="utf-8", exclude_categories=["C"], exclude_characters="/"), min_size=1, max_size=40
    ),
    size=st.integers(0, ustar.LARGEST),
)
@settings(max_examples=examples(100), deadline=None)
def test_headers_are_those_that_tar_reads(name: str, size: int) -> None:
    if len(name.encode()) > ustar.LONGEST_NAME:
        return
    full = "things/" + "t" * 64 + "/" + "0" * 64 + "/files/" + name
    found = tarfile.TarInfo.frombuf(ustar.header(full, size), "utf-8", "strict")
    assert (found.name, found.size, found.isreg(), found.mtime, found.mode) == (full, size, True, 0, 0o640)


def test_the_commands_back_up_verify_and_restore(source: Settings, tmp_path: Path) -> None:
    def run(platform: Path, *words: str, code: int = 0) -> Any:
        result = CliRunner().invoke(app, ["registry", *words], env={"AIOPS_HOME": str(platform)})
        assert result.exit_code == code, result.output
        return json.loads(result.output) if "--json" in words else result.output

    path, target = tmp_path / "registry.tar", tmp_path / "new"
    assert run(source.home, "backup", str(path), "--json")["versions"] == 4
    assert "is whole: other (1 versions), toy (3 versions)" in run(target, "restore", str(path), "--verify")
    assert not target.exists()
    damaged = bytearray(path.read_bytes())
    damaged[-20_000] ^= 1
    (tmp_path / "damaged.tar").write_bytes(damaged)
    for more in ([], ["--verify"]):
        assert "damaged.tar: things/" in run(target, "restore", str(tmp_path / "damaged.tar"), *more, code=1)
    assert not target.exists()
    restored = run(target, "restore", str(path), "--json")
    assert restored["versions"] == 4 and set(restored["champions"]) == {"other", "toy"}
    assert "restored" in run(target, "show", "toy", "champion")
    assert "serves" in run(target, "restore", str(path))
