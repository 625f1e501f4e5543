"""A folder of documents: what is new, changed or gone, once; what is outside stays outside."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from aiops_assets.collectors import folders
from aiops_assets.collectors.document import Poll
from aiops_assets.collectors.folders import FolderPoller
from aiops_assets.collectors.scheduler import make_poller
from aiops_assets.config import Folder
from aiops_assets.formats import parse
from tests.fakes.journey import delivery_of


def poller_of(path: Path, state: dict[str, Any] | None = None, **more: Any) -> FolderPoller:
    return FolderPoller(Folder.model_validate({"name": "kb", "path": str(path), **more}), state)


def turn(poller: FolderPoller, *, durable: bool = True) -> Poll:
    poll = asyncio.run(poller.poll())
    if durable and poll.delivered is not None:
        poll.delivered()
    return poll


def places(poll: Poll) -> list[str]:
    return [f"{'-' if one.headers.get('removed') else ''}{one.headers['path']}" for one in poll.fetched]


def write(path: Path, text: str, age: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (1_790_000_000 - age, 1_790_000_000 - age))
    return path


def test_files_come_once_as_they_are_and_again_when_they_change(tmp_path: Path) -> None:
    write(tmp_path / "a.md", "# A\n\nx")
    write(tmp_path / "sub/b.txt", "text")
    write(tmp_path / "sub/c.png", "no document")
    poller = poller_of(tmp_path)
    poll = turn(poller)
    assert poll.up
    assert places(poll) == ["a.md", "sub/b.txt"]
    assert poll.fetched[0].body == b"# A\n\nx"
    assert poll.fetched[0].headers["uri"] == (tmp_path / "a.md").as_uri()
    assert places(turn(poller)) == []
    write(tmp_path / "a.md", "# A\n\ny")
    assert places(turn(poller)) == []
    write(tmp_path / "a.md", "# A\n\nyy")
    assert places(turn(poller)) == ["a.md"]
    parsed = parse("documents", [delivery_of("kb", one) for one in poll.fetched])
    assert parsed.documents["title"].to_list() == ["A", "b"]


def test_an_unchanged_file_costs_one_stat_and_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        write(tmp_path / f"{number}.md", "x")
    poller = poller_of(tmp_path)
    turn(poller)

    def opened(*args: object) -> None:
        raise AssertionError(args)

    monkeypatch.setattr(folders, "_read", opened)
    assert places(turn(poller)) == []


def test_a_restart_goes_on_from_what_was_durable(tmp_path: Path) -> None:
    write(tmp_path / "a.md", "x")
    poller = poller_of(tmp_path)
    turn(poller, durable=False)
    assert "not durable yet" in str(turn(poller).error)
    state = orjson.loads(orjson.dumps(poller.state()))
    poller = poller_of(tmp_path, state)
    first = turn(poller)
    assert places(first) == ["a.md"]
    poller = poller_of(tmp_path, orjson.loads(orjson.dumps(poller.state())))
    assert places(turn(poller)) == []
    other = poller_of(tmp_path, state)
    assert turn(other).fetched[0].delivery_id == first.fetched[0].delivery_id


def test_a_file_that_is_gone_twice_is_removed_once(tmp_path: Path) -> None:
    write(tmp_path / "a.md", "x")
    gone = write(tmp_path / "b.md", "x")
    poller = poller_of(tmp_path)
    turn(poller)
    gone.unlink()
    assert places(turn(poller)) == []
    poll = turn(poller)
    assert places(poll) == ["-b.md"]
    assert places(turn(poller)) == []
    (row,) = parse("documents", [delivery_of("kb", one) for one in poll.fetched]).documents.iter_rows(named=True)
    assert row["removed"]
    assert row["document_id"] == "kb/b.md"


def test_a_folder_that_is_not_there_removes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "kb"
    write(root / "a.md", "x")
    poller = poller_of(root)
    turn(poller)
    root.rename(tmp_path / "away")
    for _ in range(3):
        poll = turn(poller)
        assert not poll.up
        assert "No such file" in str(poll.error)
    root.mkdir()
    poller._device = -1
    poll = turn(poller)
    assert "is it mounted?" in str(poll.error)
    assert places(poll) == []


def test_links_out_of_the_folder_are_not_followed_and_links_within_are(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.md", "secret")
    root = tmp_path / "kb"
    write(root / ".data/real.md", "real")
    write(root / "dir/x.md", "x")
    (root / "out.md").symlink_to(secret)
    (root / "up").symlink_to(tmp_path)
    (root / "in.md").symlink_to(root / ".data/real.md")
    (root / "loop").symlink_to(root)
    (root / "gone.md").symlink_to(root / "nowhere.md")
    os.mkfifo(root / "pipe.md")
    poll = turn(poller_of(root))
    assert places(poll) == ["dir/x.md", "in.md"]
    assert {one.body for one in poll.fetched} == {b"x", b"real"}


def test_large_files_are_named_and_a_turn_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MAX_TURN_BYTES", 25)
    for number in range(6):
        write(tmp_path / f"{number}.md", "0123456789")
    write(tmp_path / "huge.md", "x" * 100)
    poller = poller_of(tmp_path, max_bytes=50)
    found = []
    for _ in range(3):
        poll = turn(poller)
        found.append(places(poll))
        assert "larger than 50 bytes ('max_bytes'): huge.md" in str(poll.error)
    assert found == [["0.md", "1.md", "2.md"], ["3.md", "4.md", "5.md"], []]


def test_a_file_that_is_being_written_waits_for_the_next_turn(tmp_path: Path) -> None:
    path = write(tmp_path / "a.md", "x")
    assert folders._read(str(path), (1, 1)) is None
    stamp = (path.stat().st_mtime_ns // 1000, 1)
    assert folders._read(str(path), stamp) == b"x"


def test_an_unreadable_subfolder_is_named_and_removes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "sub/a.md", "x")
    poller = poller_of(tmp_path)
    turn(poller)
    scandir = os.scandir

    def refusing(path: str) -> Any:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    for _ in range(3):
        poll = turn(poller)
        assert "cannot be read: sub/" in str(poll.error)
        assert places(poll) == []


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("**/*", ["a.md", "x/b.md", "x/y/c.md"]),
        ("*.md", ["a.md"]),
        ("x/**/*.md", ["x/b.md", "x/y/c.md"]),
        ("x/?.md", ["x/b.md"]),
        ("**/[a].md", []),
    ],
)
def test_patterns_choose_files(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    for name in ("a.md", "x/b.md", "x/y/c.md"):
        write(tmp_path / name, "x")
    assert places(turn(poller_of(tmp_path, pattern=pattern))) == expected


def test_the_scheduler_makes_the_pollers(tmp_path: Path) -> None:
    made = make_poller(Folder.model_validate({"name": "kb", "path": str(tmp_path)}), lambda: None)  # type: ignore[arg-type, return-value]
    assert (made.kind, made.source) == ("folder", "kb")
