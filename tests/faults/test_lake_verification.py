"""Whatever happens to the files of the lake, verification says so: where, what, and what to do next."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import polars as pl
import pytest

from aiops_assets.hours import MICROS_PER_HOUR, hour_expr, hour_key, instant
from aiops_assets.lake import verification
from aiops_assets.lake.digest import digest
from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.lake.verification import Verification, known_clean, verify
from aiops_assets.landing.packing import pack, packs
from aiops_assets.live.rebuild import rebuild_hours
from aiops_assets.live.upkeep import releasable, verify_all
from aiops_assets.settings import Settings
from aiops_assets.tables import (
    ALERT_DECISIONS,
    ANOMALIES,
    BASELINES,
    HOUR_RECEIPTS,
    METRIC_POINTS,
    TABLES,
    Table,
)
from tests.home import drain, fill, home

START = 1_767_225_600_000_000
HOURS = [hour_key(START + n * MICROS_PER_HOUR) for n in range(3)]
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def filled(table: Table, rows: int, hour: str, **values: object) -> pl.DataFrame:
    """Rows of a table in an hour, one a second, with distinct keys."""
    start = instant(START + HOURS.index(hour) * MICROS_PER_HOUR)
    made: dict[str, pl.Series] = {}
    for name, dtype in table.schema.items():
        if name in values:
            made[name] = pl.Series([values[name]] * rows, dtype=dtype)
        elif isinstance(dtype, pl.Datetime):
            made[name] = pl.Series([start + timedelta(seconds=n) for n in range(rows)], dtype=dtype)
        elif isinstance(dtype, pl.List):
            inner = ["a", "b"] if dtype.inner == pl.String() else [0.5, 1.5]
            made[name] = pl.Series([inner for _ in range(rows)], dtype=dtype)
        elif isinstance(dtype, pl.String):
            made[name] = pl.Series([f"{name}-{n}" for n in range(rows)], dtype=dtype)
        else:
            made[name] = pl.Series(list(range(rows)), dtype=dtype, strict=False)
    return pl.DataFrame(made).with_columns(pl.lit(hour).alias("hour")).select(list(table.schema))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Three closed hours with points, results and receipts; the second was amended."""
    lake = Lake(tmp_path / "lake")
    writers = {t.name: TableWriter(lake, t) for t in (METRIC_POINTS, ANOMALIES, ALERT_DECISIONS, BASELINES)}
    receipts = []
    for number, hour in enumerate(HOURS):
        points = filled(METRIC_POINTS, 60, hour, writer="gateway", seq=number + 1, host="web-1")
        late = filled(METRIC_POINTS, 5, hour, writer="gateway", seq=50, host="web-2").with_columns(
            pl.col("series_id") + 1000
        )
        writers["metric_points"].append(points, {"gateway": number + 1})
        writers["metric_points"].append(late, {})
        anomalies = filled(ANOMALIES, 4, hour)
        writers["anomalies"].append(anomalies, {})
        for revision in (1, 2) if number == 1 else (1,):
            decisions = filled(ALERT_DECISIONS, 3 + revision, hour, receipt_revision=revision)
            baselines = filled(
                BASELINES, 6, hour, baseline_version=revision, hour_start=instant(START + number * MICROS_PER_HOUR)
            )
            writers["alert_decisions"].append(decisions, {})
            writers["baselines"].append(baselines, {})
            inputs = points if revision == 1 else pl.concat([late, points])
            receipts.append(
                dict.fromkeys(HOUR_RECEIPTS.schema)
                | {
                    "table": "metric_points",
                    "hour": hour,
                    "hour_start": instant(START + number * MICROS_PER_HOUR),
                    "revision": revision,
                    "reason": "closed" if revision == 1 else "late rows",
                    "rows": inputs.height,
                    "positions": orjson.dumps({"gateway": 10 if revision == 1 else 60}).decode(),
                    "input_hash": digest(inputs.drop("hour"), ("series_id", "ts")),
                    "anomalies_hash": digest(anomalies.drop("hour"), ("series_id", "ts")),
                    "decisions_hash": digest(decisions.drop("hour", "receipt_revision"), ("alert_id", "revision")),
                    "baseline_version": revision,
                    "baseline_hash": digest(baselines.drop("hour"), ("series_id",)),
                }
            )
    TableWriter(lake, HOUR_RECEIPTS).append(pl.DataFrame(receipts, HOUR_RECEIPTS.schema), {})
    return lake


@pytest.fixture(autouse=True)
def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "SETTLE_SECONDS", 0.0)


def file_of(lake: Lake, name: str, hour: str | None = None) -> Path:
    handle = lake.open(name)
    assert handle is not None
    return sorted(Path(uri) for uri in handle.file_uris() if hour is None or f"={hour}" in uri)[0]


def only(outcome: Verification) -> tuple[str, str, str | None]:
    (finding,) = outcome.findings
    assert finding.next_step
    return finding.table, finding.check, finding.partition


def test_a_whole_lake_is_clean_and_the_second_look_reads_nothing(lake: Lake, tmp_path: Path) -> None:
    first = verify(lake, tmp_path / "memory")
    assert first.clean, first.findings
    assert first.hours_compared == 3
    assert sum(table.read for table in first.tables) == sum(table.files for table in first.tables)
    again = verify(lake, tmp_path / "memory")
    assert again.clean
    assert again.hours_compared == 0
    assert sum(table.read for table in again.tables) == 0
    full = verify(lake, tmp_path / "memory", full=True)
    assert full.clean
    assert full.hours_compared == 3


def test_only_what_is_new_is_read(lake: Lake, tmp_path: Path) -> None:
    verify(lake, tmp_path / "memory")
    late = filled(METRIC_POINTS, 5, HOURS[0], writer="gateway", seq=70).with_columns(pl.col("series_id") + 5000)
    TableWriter(lake, METRIC_POINTS).append(late, {})
    again = verify(lake, tmp_path / "memory")
    assert again.clean
    assert {table.table: table.read for table in again.tables if table.read} == {"metric_points": 1}
    assert again.hours_compared == 1


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda path: path.unlink(), "lost"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "torn"),
        (lambda path: path.write_bytes(b""), "torn"),
        (lambda path: path.write_bytes(b"x" * path.stat().st_size), "torn"),
    ],
    ids=["lost", "cut", "emptied", "overwritten"],
)
@pytest.mark.parametrize("name", ["metric_points", "anomalies", "hour_receipts"])
def test_a_damaged_file_is_named(
    lake: Lake, tmp_path: Path, damage: Callable[[Path], object], what: str, name: str
) -> None:
    verify(lake, tmp_path / "memory")
    damage(file_of(lake, name, HOURS[1]))
    # Where the size stays, only a look at everything (or at something new) sees it.
    outcome = verify(lake, tmp_path / "memory", full=True)
    found = [f for f in outcome.findings if f.check == "files_whole"]
    assert [(f.table, f.partition) for f in found] == [(name, HOURS[1])]
    assert found[0].what.startswith(what)
    assert found[0].file is not None and found[0].file.startswith(f"hour={HOURS[1]}/")
    again = verify(lake, tmp_path / "memory")
    assert [(f.table, f.file) for f in again.findings if f.check == "files_whole"] == [(name, found[0].file)]


def test_bytes_that_change_in_a_cold_file_are_seen_by_a_full_look(lake: Lake, tmp_path: Path) -> None:
    verify(lake, tmp_path / "memory")
    path = file_of(lake, "metric_points", HOURS[0])
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    assert verify(lake, tmp_path / "memory").clean
    table, check, hour = only(verify(lake, tmp_path / "memory", full=True))
    assert (table, check, hour) == ("metric_points", "files_whole", HOURS[0])


@pytest.mark.parametrize("content", [b"", b'{"commitInfo":{"timest', b"\x00" * 300])
def test_a_torn_commit_is_found_even_where_the_table_opens(lake: Lake, tmp_path: Path, content: bytes) -> None:
    log = Path(lake.uri("metric_points")) / "_delta_log"
    sorted(log.glob("*.json"))[-1].write_bytes(content)
    outcome = verify(lake, tmp_path / "memory")
    found = [f for f in outcome.findings if f.check == "logs_whole"]
    assert found and found[0].table == "metric_points"
    assert "rebuild" in found[0].next_step


def test_a_missing_commit_is_found(lake: Lake, tmp_path: Path) -> None:
    log = Path(lake.uri("anomalies")) / "_delta_log"
    (log / f"{1:020d}.json").unlink()
    outcome = verify(lake, tmp_path / "memory")
    assert any(f.check == "logs_whole" and f.table == "anomalies" for f in outcome.findings)


def test_a_torn_checkpoint_is_found(lake: Lake, tmp_path: Path) -> None:
    handle = lake.open("metric_points")
    assert handle is not None
    handle.create_checkpoint()
    assert verify(lake, tmp_path / "memory").clean
    (path,) = (Path(lake.uri("metric_points")) / "_delta_log").glob("*.checkpoint.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    outcome = verify(lake, None)
    assert any("torn checkpoint" in f.what for f in outcome.findings if f.check == "logs_whole")


def test_repeated_keys_and_rows_of_another_hour_are_found(lake: Lake, tmp_path: Path) -> None:
    rows = filled(METRIC_POINTS, 2, HOURS[0], writer="gateway", seq=90)
    writer = TableWriter(lake, METRIC_POINTS)
    writer.append(rows.with_columns(pl.col("series_id") + 0), {})
    table, check, hour = only(verify(lake, tmp_path / "memory"))
    assert (table, check, hour) == ("metric_points", "keys_unique", HOURS[0])
    writer.append(rows.with_columns(pl.lit(HOURS[2]).alias("hour"), pl.col("series_id") + 900), {})
    found = {(f.check, f.partition) for f in verify(lake, tmp_path / "memory").findings}
    assert found == {("keys_unique", HOURS[0]), ("rows_in_their_partition", HOURS[2])}


@pytest.mark.parametrize("name", ["metric_points", "anomalies", "alert_decisions", "baselines"])
def test_a_closed_hour_that_is_other_than_its_receipt_says_is_named(lake: Lake, tmp_path: Path, name: str) -> None:
    verify(lake, tmp_path / "memory")
    table = TABLES[name]
    value = {"metric_points": "value", "anomalies": "score", "alert_decisions": "value", "baselines": "mean"}[name]
    rows = lake.read(name, [HOURS[1]]).with_columns(pl.col(value).cast(pl.Float64) + 1e-9)
    TableWriter(lake, table).replace(rows, HOURS[1])
    assert only(verify(lake, tmp_path / "memory")) == (name, "closed_hours_unchanged", HOURS[1])
    # It stays a finding until it is mended.
    assert only(verify(lake, tmp_path / "memory")) == (name, "closed_hours_unchanged", HOURS[1])


def test_a_mismatch_of_this_moment_waits_for_its_receipt(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "SETTLE_SECONDS", 300.0)
    TableWriter(lake, ANOMALIES).append(filled(ANOMALIES, 9, HOURS[1]).tail(2), {})
    outcome = verify(lake, tmp_path / "memory")
    assert outcome.clean
    assert outcome.deferred == [HOURS[1]]


def test_an_hour_that_is_gone_is_lost_or_expired(lake: Lake, tmp_path: Path) -> None:
    TableWriter(lake, METRIC_POINTS).delete(f"hour = '{HOURS[0]}'")
    assert only(verify(lake, keep_days={"metric_points": 30}, now=NOW)) == (
        "metric_points",
        "closed_hours_unchanged",
        HOURS[0],
    )
    outcome = verify(lake, keep_days={"metric_points": 0.5}, now=NOW)
    assert outcome.clean
    assert outcome.expired == 1


def test_every_table_is_looked_at(lake: Lake) -> None:
    for table in TABLES.values():
        if lake.open(table.name) is None and table.partition == "hour":
            frame = filled(table, 3, HOURS[0])
            if table.time_column in frame.columns:
                frame = frame.with_columns(hour_expr(table.time_column).alias("hour"))
            TableWriter(lake, table).append(frame, {})
    outcome = verify(lake)
    assert outcome.clean, outcome.findings
    assert len(outcome.tables) >= 6


@pytest.fixture
def platform(tmp_path: Path) -> Settings:
    settings = home(tmp_path / "home")
    hour = time.time_ns() // 1000 // MICROS_PER_HOUR * MICROS_PER_HOUR - 4 * MICROS_PER_HOUR
    fill(settings, hour, 130)
    drain(settings)
    return settings


def test_what_was_found_is_mended_by_the_step_that_is_named(platform: Settings) -> None:
    assert verify_all(platform, full=False, now=datetime.now(UTC)).clean
    lake = Lake(platform.paths.lake)
    handle = lake.open("metric_points")
    assert handle is not None
    for uri in handle.file_uris()[:2]:
        Path(uri).unlink()
    outcome = verify_all(platform, full=False, now=datetime.now(UTC))
    steps = {f.next_step for f in outcome.findings if f.check == "files_whole"}
    hours = sorted(step.removeprefix("aiops lake rebuild ") for step in steps)
    assert {hour.outcome for hour in rebuild_hours(platform, hours).hours} == {"replaced"}
    assert verify_all(platform, full=True, now=datetime.now(UTC)).clean


def test_segments_go_only_after_their_rows_were_read_back(platform: Settings) -> None:
    taken = Lake(platform.paths.lake).taken("metric_points", ["gateway"])
    assert releasable(platform) == {"gateway": 0}
    assert verify_all(platform, full=False, now=datetime.now(UTC)).clean
    assert releasable(platform) == taken
    fill(platform, time.time_ns() // 1000 - 60_000_000, 1)
    drain(platform)
    assert releasable(platform) == taken
    handle = Lake(platform.paths.lake).open("metric_points")
    assert handle is not None
    Path(handle.file_uris()[0]).write_bytes(b"")
    assert not verify_all(platform, full=False, now=datetime.now(UTC)).clean
    assert known_clean(platform.paths.care / "verified") == taken


def test_a_damaged_pack_and_a_missing_segment_are_found(platform: Settings) -> None:
    folder = platform.paths.landing / "gateway"
    pack(folder, 100, time.time() + 1e6)
    assert verify_all(platform, full=False, now=datetime.now(UTC)).clean
    ((_, _, path),) = packs(folder)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    (finding,) = verify_all(platform, full=False, now=datetime.now(UTC)).findings
    assert (finding.table, finding.check, finding.file) == ("landing", "files_whole", str(path))
    path.write_bytes(whole)
    (folder / f"{110:012d}.seg").unlink()
    (finding,) = verify_all(platform, full=True, now=datetime.now(UTC)).findings
    assert finding.what == "segments missing: 110"


def test_memory_that_was_lost_costs_a_look_and_nothing_else(lake: Lake, tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    verify(lake, memory)
    (memory / "metric_points.json").write_bytes(b"torn")
    (memory / "receipts.json").unlink()
    assert verify(lake, memory).clean
    shutil.rmtree(memory)
    outcome = verify(lake, memory)
    assert outcome.clean
    assert outcome.hours_compared == 3


def test_verification_beside_appends_is_clean(platform: Settings) -> None:
    hour = time.time_ns() // 1000 - 600_000_000
    for minute in range(3):
        fill(platform, hour + minute * 60_000_000, 1)
        drain(platform)
        assert verify_all(platform, full=False, now=datetime.now(UTC)).clean
    assert list((platform.paths.care / "verified").iterdir())
