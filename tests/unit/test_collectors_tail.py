"""Following log files: whole records, rotation of every kind, and positions that move only when lines are stored."""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiops_assets.collectors.document import Fetched, Poll
from aiops_assets.collectors.tail import COPY_SECONDS, FORGET_SECONDS, GIVE_UP_SECONDS, SETTLE_SECONDS, TailPoller
from aiops_assets.config import Tail
from aiops_assets.formats import parse
from aiops_assets.landing.segment import Delivery
from tests.examples import examples


class Follower:
    """A poller under a clock of its own, and everything it has fetched."""

    def __init__(self, tmp_path: Path, state: Mapping[str, Any] | None = None, **options: Any) -> None:
        self.now = 1000.0
        self.tail = Tail.model_validate({"name": "app", "paths": [str(tmp_path / "app.log")], "host": "h", **options})
        self.poller = TailPoller(self.tail, state, clock=lambda: self.now)
        self.fetched: list[Fetched] = []

    def poll(self, *, store: bool = True, later: float = 1.0) -> Poll:
        self.now += later
        outcome = asyncio.run(self.poller.poll())
        if store:
            self.fetched += outcome.fetched
            if outcome.delivered is not None:
                outcome.delivered()
        return outcome

    @property
    def logs(self) -> pl.DataFrame:
        deliveries = [
            Delivery(one.delivery_id, 1_795_160_899_000_000, "app", one.content_type, one.body, dict(one.headers))
            for one in self.fetched
        ]
        return parse(self.tail.format, deliveries).logs.unique("event_id", maintain_order=True)

    @property
    def lines(self) -> list[str]:
        return self.logs["body"].to_list()


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_lines_come_once_and_a_line_without_its_end_waits(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, "one\ntwo\nthr")
    follower = Follower(tmp_path)
    follower.poll()
    assert follower.lines == ["one", "two"]
    append(log, "ee\nfour\n")
    follower.poll()
    follower.poll()
    assert follower.lines == ["one", "two", "three", "four"]
    assert follower.logs["host"].unique().to_list() == ["h"]
    assert follower.logs["app"].unique().to_list() == ["app"]


def test_what_was_not_stored_is_read_again_with_the_same_identifiers(tmp_path: Path) -> None:
    append(tmp_path / "app.log", "one\ntwo\n")
    follower = Follower(tmp_path)
    lost = follower.poll(store=False)
    assert len(lost.fetched) == 1
    assert follower.poll().fetched == []
    follower.poll(later=GIVE_UP_SECONDS)
    assert follower.fetched[0].delivery_id == lost.fetched[0].delivery_id
    assert follower.lines == ["one", "two"]


def test_a_new_collector_goes_on_where_the_stored_lines_end(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, "one\n")
    first = Follower(tmp_path)
    first.poll()
    append(log, "two\n")
    first.poll(store=False)
    second = Follower(tmp_path, first.poller.state())
    append(log, "three\n")
    second.poll()
    assert second.lines == ["two", "three"]


@pytest.mark.parametrize("restart", [False, True])
def test_rotation_by_rename_loses_nothing(tmp_path: Path, restart: bool) -> None:
    log = tmp_path / "app.log"
    append(log, "one\n")
    follower = Follower(tmp_path)
    follower.poll()
    append(log, "two\n")
    log.rename(tmp_path / "app.log.1")
    append(tmp_path / "app.log.1", "three\n")
    append(log, "new one\n")
    if restart:
        fetched = follower.fetched
        follower = Follower(tmp_path, follower.poller.state())
        follower.fetched = fetched
    for _ in range(3):
        follower.poll()
    assert sorted(follower.lines) == ["new one", "one", "three", "two"]
    for _ in range(3):
        follower.poll(later=FORGET_SECONDS)
    assert len(follower.poller.state()["files"]) == 1


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("pattern", ["app.log", "app.log*"])
def test_rotation_by_copytruncate_reads_the_rest_from_the_copy(tmp_path: Path, restart: bool, pattern: str) -> None:
    log = tmp_path / "app.log"
    append(log, "one\n")
    options = {"paths": [str(tmp_path / pattern)]}
    follower = Follower(tmp_path, **options)
    follower.poll()
    append(log, "two\n")
    shutil.copy(log, tmp_path / "app.log.1")
    os.truncate(log, 0)
    append(log, "after\n")
    if restart:
        fetched = follower.fetched
        follower = Follower(tmp_path, follower.poller.state(), **options)
        follower.fetched = fetched
    for _ in range(3):
        follower.poll()
    assert sorted(follower.lines) == ["after", "one", "two"]


def test_a_file_that_was_cut_and_begins_with_the_same_line_is_noticed(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, "header\nfirst\n")
    follower = Follower(tmp_path)
    follower.poll()
    os.truncate(log, 0)
    append(log, "header\nother line\nthird\n")
    follower.poll()
    follower.poll()
    assert follower.lines == ["header", "first", "header", "other line", "third"]


def test_two_files_that_begin_alike_are_two_files(tmp_path: Path) -> None:
    append(tmp_path / "app.log", "banner\n")
    follower = Follower(tmp_path, paths=[str(tmp_path / "*.log")])
    follower.poll()
    append(tmp_path / "other.log", "banner\n")
    append(tmp_path / "app.log", "from app\n")
    append(tmp_path / "other.log", "from other\n")
    for _ in range(3):
        follower.poll(later=COPY_SECONDS)
    assert sorted(follower.lines) == ["banner", "banner", "from app", "from other"]


def test_what_was_compressed_before_it_was_read_is_read_from_the_archive(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, "one\n")
    first = Follower(tmp_path)
    first.poll()
    append(log, "two\nthree\n")
    (tmp_path / "app.log.1.gz").write_bytes(gzip.compress(log.read_bytes()))
    log.unlink()
    append(log, "new\n")
    second = Follower(tmp_path, first.poller.state())
    for _ in range(3):
        second.poll()
    assert sorted(second.lines) == ["new", "three", "two"]


def test_archives_that_were_never_seen_are_read_when_asked_for(tmp_path: Path) -> None:
    (tmp_path / "app.log.2.gz").write_bytes(gzip.compress(b"old one\nold two\n"))
    append(tmp_path / "app.log", "now\n")
    plain, asked = Follower(tmp_path), Follower(tmp_path, compressed=True)
    for _ in range(4):
        plain.poll()
        asked.poll()
    assert plain.lines == ["now"]
    assert sorted(asked.lines) == ["now", "old one", "old two"]


def test_only_what_is_new_is_read_when_history_is_not_wanted(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, "old\n")
    follower = Follower(tmp_path, from_start=False)
    follower.poll()
    append(log, "new\n")
    append(tmp_path / "app.log", "newer\n")
    follower.poll()
    assert follower.lines == ["new", "newer"]


TRACE = """2026-11-20 07:48:19 ERROR it broke
Traceback (most recent call last):
  File "a.py", line 1, in f
    g()
ValueError: bad
2026-11-20 07:48:20 INFO goes on
2026-11-20 07:48:21 ERROR java
java.lang.IllegalStateException: no
\tat a.b.C(D.java:1)
Caused by: java.io.IOException: x
\t... 3 more
"""


def test_stack_traces_are_one_record(tmp_path: Path) -> None:
    append(tmp_path / "app.log", TRACE)
    follower = Follower(tmp_path, multiline="auto")
    follower.poll()
    assert len(follower.lines) == 2
    follower.poll(later=SETTLE_SECONDS)
    assert [line.count("\n") for line in follower.lines] == [4, 0, 4]
    assert follower.logs["severity_number"].to_list() == [17, 9, 17]


def test_a_regular_expression_tells_where_records_begin(tmp_path: Path) -> None:
    append(tmp_path / "app.log", "[1] a\nb\nc\n[2] d\n")
    follower = Follower(tmp_path, multiline=r"^\[\d+\]")
    follower.poll()
    follower.poll(later=SETTLE_SECONDS)
    assert follower.lines == ["[1] a\nb\nc", "[2] d"]


def test_unreadable_files_are_named_and_the_others_are_read(tmp_path: Path) -> None:
    append(tmp_path / "app.log", "one\n")
    follower = Follower(tmp_path, paths=[str(tmp_path / "app.log"), str(tmp_path / "missing.log")])
    outcome = follower.poll()
    assert outcome.up
    assert "missing.log" in (outcome.error or "")
    assert follower.lines == ["one"]


def test_blank_lines_are_passed_over(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, "\n\n  \n")
    follower = Follower(tmp_path)
    assert follower.poll().fetched == []
    append(log, "\none\n\n")
    follower.poll()
    append(log, "two\n")
    follower.poll()
    assert follower.lines == ["one", "two"]
    assert follower.poller.state()["files"][0]["offset"] == log.stat().st_size


def test_a_file_that_cannot_be_read_now_is_read_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(tmp_path / "app.log", "one\n")
    follower = Follower(tmp_path)

    def broken(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as trouble:
        trouble.setattr("aiops_assets.collectors.tail._before", broken)
        assert "Input/output error" in (follower.poll().error or "")
    follower.poll()
    assert follower.lines == ["one"]


def test_a_poll_reads_no_more_than_it_may_and_starves_no_file(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        append(tmp_path / f"{name}.log", "".join(f"{name}{n:05}\n" for n in range(500)))
    follower = Follower(tmp_path, paths=[str(tmp_path / "*.log")])
    follower.poller._poll_bytes = 1024
    for _ in range(3):
        outcome = follower.poll()
        assert sum(len(one.body) for one in outcome.fetched) < 4096
    assert {line[0] for line in follower.lines} == {"a", "b", "c"}
    for _ in range(20):
        follower.poll()
    assert sorted(follower.lines) == [f"{name}{n:05}" for name in "abc" for n in range(500)]


def test_journal_exports_are_cut_between_entries(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    entry = b"__CURSOR=%d\n__REALTIME_TIMESTAMP=1795160899000001\n_HOSTNAME=vm\nMESSAGE\n\x05\0\0\0\0\0\0\0a\n\nbc\n\n"
    log.write_bytes(entry % 1 + (entry % 2)[:-9])
    follower = Follower(tmp_path, format="journal")
    follower.poll()
    assert follower.logs["event_id"].to_list() == ["1"]
    with log.open("ab") as file:
        file.write((entry % 2)[-9:])
    follower.poll()
    assert follower.logs["event_id"].to_list() == ["1", "2"]
    assert follower.lines == ["a\n\nbc", "a\n\nbc"]


@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.sampled_from(["append", "append", "append", "partial", "rename", "copytruncate", "poll", "lose", "restart"]),
        min_size=3,
        max_size=25,
    )
)
def test_whatever_happens_every_line_is_stored_once(tmp_path: Path, steps: list[str]) -> None:
    folder = tmp_path / os.urandom(8).hex()
    folder.mkdir()
    log = folder / "app.log"
    written: list[str] = []
    follower = Follower(folder)
    rotations = 0
    follower.poll()
    for number, step in enumerate(steps):
        if step == "append":
            append(log, f"line {number:04}\n")
            written.append(f"line {number:04}")
        elif step == "partial":
            append(log, f"line {number:04}")
            append(log, " end\n")
            written.append(f"line {number:04} end")
        elif step in {"rename", "copytruncate"} and log.exists():
            # A rotation follows a look, as it does at any sensible size of files.
            follower.poll()
            rotations += 1
            target = folder / f"app.log.{rotations}"
            if step == "rename":
                log.rename(target)
            else:
                shutil.copy(log, target)
                os.truncate(log, 0)
        elif step == "poll":
            follower.poll()
        elif step == "lose":
            follower.poll(store=False)
            follower.now += GIVE_UP_SECONDS
        elif step == "restart":
            fetched, now = follower.fetched, follower.now
            follower.poller.close()
            follower = Follower(folder, follower.poller.state())
            follower.fetched, follower.now = fetched, now
    for _ in range(4):
        follower.poll(later=COPY_SECONDS + GIVE_UP_SECONDS)
    assert sorted(follower.lines) == sorted(written)
    follower.poller.close()
