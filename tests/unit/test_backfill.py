"""Backfills: looking first, owning the live plane only for what differs, the same result however it is interrupted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from typer.testing import CliRunner

from aiops_assets.cli import app
from aiops_assets.detection.receipts import BACKFILL, CLOSED, Receipt, newest, read_receipts
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND, hour_key
from aiops_assets.lake.tables import Lake, TableWriter, quote
from aiops_assets.live.lease import live_lease
from aiops_assets.replay import backfill as backfilling
from aiops_assets.replay.backfill import backfill_hours, backfill_points
from aiops_assets.replay.events import PartitionBackfilled, backfill_events
from aiops_assets.settings import Settings
from aiops_assets.tables import METRIC_POINTS, TABLES
from tests.unit.test_closing_hours import MINUTE, START, Home, content, differing, outcome, telemetry

HOURS = [hour_key(START + n * MICROS_PER_HOUR) for n in range(6)]
#: the first five are closed
CLOSED_HOURS = HOURS[:5]
DEPLOY = {"ts": START + 10 * MINUTE, "kind": "deploy", "title": "shop 1.2 on h1", "details": {}}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five closed hours and an open one."""
    home = Home(tmp_path_factory.mktemp("backfilled") / "home")
    documents = telemetry(5.3)
    documents[0]["changes"] = [DEPLOY]
    home.stream(documents)
    home.rest()
    home.pipeline.close()
    return home.settings.home


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, but rows that change an alert of the second hour came late and are not derived yet."""
    home = Home(tmp_path_factory.mktemp("late") / "home")
    documents = telemetry(5.3)
    held = [d for d in documents if d["host"] == "h1" and 85 <= (d["ts"] - START) // MINUTE < 130]
    home.stream([d for d in documents if d not in held])
    home.rest()
    home.send(held, received_at=documents[-1]["ts"] + MICROS_PER_SECOND)
    home.pipeline.close()
    return home.settings.home


def copied(source: Path, target: Path) -> Settings:
    shutil.copytree(source, target)
    return Settings(home=target)


@pytest.fixture
def settings(filled: Path, tmp_path: Path) -> Settings:
    return copied(filled, tmp_path / "home")


def receipts(settings: Settings) -> list[Receipt]:
    return read_receipts(Lake(settings.paths.lake))


def tables(settings: Settings) -> dict[str, pl.DataFrame]:
    """What closed hours have in the tables that a backfill writes."""
    lake = Lake(settings.paths.lake)
    return {
        name: lake.read(name).filter(pl.col("hour").is_in(CLOSED_HOURS)).sort(TABLES[name].key)
        for name in ("anomalies", "alert_decisions", "baselines", "metric_points")
    }


def present(settings: Settings) -> list[tuple[Any, ...]]:
    rows = Lake(settings.paths.lake).read("alerts").sort("revision").unique("alert_id", keep="last")
    return content(rows.sort("starts_at", "name", "host"))


def reopened(settings: Settings) -> Home:
    """The home as a session sees it that comes after everything."""
    home = Home(settings.home)
    home.rest()
    return home


def test_hours_that_are_as_they_should_be_are_left_alone_beside_a_session(settings: Settings) -> None:
    before, told = tables(settings), present(settings)
    lease = live_lease(settings.paths.live)
    assert lease.acquire("a session", seconds=60, keep_waiting=lambda: False)
    done = backfill_hours(settings, CLOSED_HOURS)
    lease.release()
    assert [hour.status for hour in done.hours] == ["same"] * 5
    assert done.owned_seconds == 0
    assert {receipt.revision for receipt in receipts(settings)} == {1}
    assert all(frame.equals(before[name]) for name, frame in tables(settings).items())
    assert present(settings) == told


@pytest.mark.parametrize("lost", ["anomalies", "alert_decisions", "baselines"])
def test_rows_that_a_table_lost_come_back_and_no_revision_is_added(settings: Settings, lost: str) -> None:
    before = tables(settings)
    if before[lost].is_empty():
        lake = Lake(settings.paths.lake)
        row = pl.DataFrame([{"series_id": 1, "ts": 0, "hour": HOURS[1]}]).cast({"ts": TABLES[lost].schema["ts"]})
        empty = TABLES[lost].empty()
        TableWriter(lake, TABLES[lost]).append(pl.concat([empty, row], how="diagonal_relaxed"), {})
    else:
        TableWriter(Lake(settings.paths.lake), TABLES[lost]).delete(f"hour = {quote(HOURS[1])}")
    assert not tables(settings)[lost].equals(before[lost])
    done = backfill_hours(settings, CLOSED_HOURS)
    assert [hour.status for hour in done.hours] == ["same", "repaired", "same", "same", "same"]
    assert lost in done.hours[1].why
    assert tables(settings)[lost].equals(before[lost])
    assert {receipt.revision for receipt in receipts(settings)} == {1}


@pytest.fixture(scope="module")
def amended(late: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The late rows after a backfill that nothing disturbed."""
    settings = copied(late, tmp_path_factory.mktemp("whole") / "home")
    done = backfill_hours(settings, CLOSED_HOURS)
    assert done.owned_seconds > 0
    assert [hour.status for hour in done.hours] == ["same", *["amended"] * 4]
    return settings


def test_late_rows_are_derived_as_a_session_would_have_done(amended: Settings, late: Path, tmp_path: Path) -> None:
    by_session = reopened(copied(late, tmp_path / "session"))
    found = {row["name"]: row for row in by_session.alerts().to_dicts() if row["amended_by"]}
    assert found
    told = [row[1:] for row in present(amended)]
    assert told == [row[1:] for row in content(by_session.alerts())]
    assert {r.reason for r in receipts(amended) if r.revision > 1} == {BACKFILL}
    assert differing(reopened(amended)) == []


@pytest.mark.parametrize("chunks", [1, 2])
def test_a_killed_backfill_goes_on_to_the_same_result(
    amended: Settings, late: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunks: int
) -> None:
    settings = copied(late, tmp_path / "home")
    passed: list[object] = []

    class Killed(BaseException):
        pass

    def serve(*_: object) -> None:
        passed.append(_)
        if len(passed) == chunks:
            raise Killed

    monkeypatch.setattr(backfilling, "HOURS_AT_ONCE", 1)
    with monkeypatch.context() as patched:
        patched.setattr(backfilling._Work, "_serve", serve)
        with pytest.raises(Killed):
            backfill_hours(settings, CLOSED_HOURS)
    assert len([r for r in receipts(settings) if r.revision == 2]) == chunks
    done = backfill_hours(settings, CLOSED_HOURS)
    assert done.resumed >= chunks
    assert outcome(receipts(settings)) == outcome(receipts(amended))
    whole = {(r.hour, r.revision): r.state_in for r in receipts(amended)}
    assert {(r.hour, r.revision): r.state_in for r in receipts(settings)} == whole
    assert present(settings) == present(amended)
    assert not list((settings.paths.live / "backfill").iterdir())


def test_hours_are_amended_one_after_the_other_as_all_at_once(
    amended: Settings, late: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = copied(late, tmp_path / "home")
    monkeypatch.setattr(backfilling, "HOURS_AT_ONCE", 1)
    backfill_hours(settings, CLOSED_HOURS)
    assert outcome(receipts(settings)) == outcome(receipts(amended))
    assert differing(reopened(settings)) == []


def test_a_second_backfill_of_the_same_hours_finds_nothing_to_do(amended: Settings, tmp_path: Path) -> None:
    settings = copied(amended.home, tmp_path / "home")
    before = len(receipts(settings))
    done = backfill_hours(settings, CLOSED_HOURS)
    assert done.counts() == {"same": 5}
    assert len(receipts(settings)) == before
    assert done.owned_seconds == 0


def test_overlapping_backfills_come_to_one_result(amended: Settings, late: Path, tmp_path: Path) -> None:
    settings = copied(late, tmp_path / "home")
    backfill_hours(settings, CLOSED_HOURS[2:])
    backfill_hours(settings, CLOSED_HOURS)
    assert outcome(receipts(settings)) == outcome(receipts(amended))
    assert differing(reopened(settings)) == []


def test_what_arrives_meanwhile_is_taken(late: Path, tmp_path: Path) -> None:
    settings = copied(late, tmp_path / "home")
    waiting = Home.__new__(Home)
    waiting.settings, waiting._number = settings, 1_000
    fresh = [d for d in telemetry(5.5) if (d["ts"] - START) // MINUTE >= 325]
    waiting.land(fresh)
    backfill_hours(settings, CLOSED_HOURS)
    stored = Lake(settings.paths.lake).read("metric_points")
    assert stored["ts"].dt.epoch("us").max() == fresh[-1]["ts"]


def test_an_hour_of_which_rows_are_gone_stays_as_it_is(settings: Settings) -> None:
    TableWriter(Lake(settings.paths.lake), METRIC_POINTS).delete(f"hour = {quote(HOURS[1])} AND host = 'h0'")
    told = present(settings)
    done = backfill_hours(settings, CLOSED_HOURS)
    assert [hour.status for hour in done.hours] == ["same", "expired", "same", "same", "same"]
    assert "inputs expired" in done.refused[0].why
    assert {receipt.revision for receipt in receipts(settings)} == {1}
    assert present(settings) == told


def test_an_open_hour_is_refused_and_says_when_it_closes(settings: Settings) -> None:
    (hour,) = backfill_hours(settings, [HOURS[5]]).hours
    assert (hour.status, hour.refused) == ("open", True)
    assert "still open" in hour.why and "it closes at" in hour.why


def test_an_hour_without_points_is_nothing_to_do(settings: Settings) -> None:
    before, after = hour_key(START - 5 * MICROS_PER_HOUR), hour_key(START + 9 * MICROS_PER_HOUR)
    assert [hour.status for hour in backfill_hours(settings, [before, after]).hours] == ["absent", "absent"]


def test_an_hour_that_is_over_and_was_never_closed_is_closed(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", close_grace_seconds=7200)
    home.stream(telemetry(2.3))
    home.pipeline.close()
    assert home.receipts() == []
    done = backfill_hours(Settings(home=tmp_path / "home"), HOURS[:2])
    assert [hour.status for hour in done.hours] == ["closed", "closed"]
    assert [r.reason for r in home.receipts()] == [CLOSED, CLOSED]


def test_an_hour_that_the_stream_passed_by_gets_its_receipt(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    documents = telemetry(3.3)
    gap = [d for d in documents if hour_key(d["ts"]) == HOURS[1]]
    home.stream([d for d in documents if d not in gap])
    home.rest()
    home.send(gap, received_at=documents[-1]["ts"] + MICROS_PER_SECOND)
    home.pipeline.close()
    done = backfill_hours(home.settings, HOURS[:3])
    assert [hour.status for hour in done.hours] == ["same", "closed", "amended"]
    assert differing(reopened(home.settings)) == []


def test_points_come_back_from_their_segments_and_the_hours_after_them(settings: Settings) -> None:
    before = tables(settings)
    TableWriter(Lake(settings.paths.lake), METRIC_POINTS).delete(f"hour = {quote(HOURS[1])} AND host = 'h0'")
    report = backfill_points(settings, CLOSED_HOURS)
    assert [hour.outcome for hour in report.hours] == ["same", "replaced", "same", "same", "same"]
    assert backfill_hours(settings, CLOSED_HOURS).counts() == {"same": 5}
    assert all(frame.equals(before[name]) for name, frame in tables(settings).items())
    assert backfill_points(settings, CLOSED_HOURS).hours[1].outcome == "same"


def test_points_whose_segments_are_released_stay_as_they_are(settings: Settings) -> None:
    before = tables(settings)
    for path in sorted((settings.paths.landing / "gateway").glob("*.seg"))[:-1]:
        path.unlink()
    report = backfill_points(settings, CLOSED_HOURS)
    assert {hour.outcome for hour in report.hours} == {"same"}
    assert report.segments <= 1
    assert tables(settings)["metric_points"].equals(before["metric_points"])


def changes(settings: Settings, day: str) -> list[PartitionBackfilled]:
    (done,) = backfill_events(settings, {"changes": [day]})
    return done.partitions


def test_changes_come_back_from_their_segments_once(settings: Settings) -> None:
    lake = Lake(settings.paths.lake)
    before = lake.read("changes")
    assert before["title"].to_list() == [DEPLOY["title"]]
    day = before["day"][0]
    TableWriter(lake, TABLES["changes"]).delete(f"day = {quote(day)}")
    assert [(d.rows, d.added, d.complete) for d in changes(settings, day)] == [(0, 1, True)]
    assert lake.read("changes").equals(before)
    assert [(d.rows, d.added) for d in changes(settings, day)] == [(1, 0)]
    (old,) = changes(settings, "2020-01-01")
    assert (old.rows, old.added, old.complete) == (0, 0, True)


@pytest.fixture
def command(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[CliRunner]:
    monkeypatch.setenv("AIOPS_HOME", str(settings.home))
    yield CliRunner()


def test_the_command_goes_from_points_to_hours_and_says_what_it_did(command: CliRunner, settings: Settings) -> None:
    TableWriter(Lake(settings.paths.lake), TABLES["alert_decisions"]).delete(f"hour = {quote(HOURS[1])}")
    told = command.invoke(app, ["backfill", HOURS[0], HOURS[5], "--assets", "metric_points,alert_decisions", "--json"])
    assert told.exit_code == 0, told.output
    document = orjson.loads(told.stdout)
    assert document["points"]["hours"] == {"same": 5}
    assert document["hours"]["counts"] == {"same": 4, "repaired": 1}
    assert "marts" not in document and "changes" not in document


def test_the_command_names_what_it_refuses(command: CliRunner) -> None:
    told = command.invoke(app, ["backfill", HOURS[4], hour_key(START + 6 * MICROS_PER_HOUR), "--assets", "anomalies"])
    assert told.exit_code == 1
    assert "still open" in told.output
    wrong = command.invoke(app, ["backfill", HOURS[4], HOURS[5], "--assets", "nonsense"])
    assert wrong.exit_code == 2
    assert "metric_points" in wrong.output
    assert command.invoke(app, ["backfill", HOURS[5], HOURS[4]]).exit_code == 2


def test_newest_receipts_are_what_counts(amended: Settings) -> None:
    assert {r.revision for r in newest(receipts(amended)).values()} == {1, 2}
