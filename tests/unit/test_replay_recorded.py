"""As recorded: what was derived comes out the same, whatever happened; what was tampered with is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import polars as pl
import pytest

from aiops_assets.config import Retention
from aiops_assets.detection.handover import Shelf
from aiops_assets.detection.receipts import RESTATED, read_receipts
from aiops_assets.hours import hour_key
from aiops_assets.lake.tables import Lake, TableWriter, quote
from aiops_assets.live.pipeline import Pipeline
from aiops_assets.replay.recorded import Verification, verify
from aiops_assets.settings import Settings
from aiops_assets.tables import ALERTS, ANOMALIES, BASELINES, HOUR_RECEIPTS, METRIC_POINTS, TABLES, Table
from tests.replay_home import MINUTE, Story, calm, documents, eventful, start

EVER = ("2000-01-01T00", "2999-01-01T00")


@pytest.fixture(scope="module")
def eventful_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eventful")
    eventful(folder).pipeline.close()
    return folder


@pytest.fixture(scope="module")
def calm_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calm")
    calm(folder, 5).pipeline.close()
    return folder


@pytest.fixture
def settings(calm_home: Path, tmp_path: Path) -> Settings:
    """A copy of the calm home, to be tampered with."""
    shutil.copytree(calm_home, tmp_path / "home")
    return Settings(home=tmp_path / "home")


def check(settings: Settings, *, shelf: Path | None = None, now: datetime | None = None) -> Verification:
    return verify(
        Lake(settings.paths.lake),
        Shelf(shelf or settings.paths.live / "handover"),
        *EVER,
        retention=Retention(),
        now=now or datetime.now(UTC),
    )


def rewrite(settings: Settings, table: Table, change: Callable[[pl.DataFrame], pl.DataFrame], place: int = 0) -> str:
    """Change the rows of one partition that has some; its key."""
    lake = Lake(settings.paths.lake)
    key = [part.partition for part in lake.partitions(table.name) if part.rows][place]
    TableWriter(lake, table).replace(change(lake.read(table.name, [key])), key)
    return key


def test_everything_that_can_happen_to_an_hour_replays_to_the_last_bit(eventful_home: Path) -> None:
    found = check(Settings(home=eventful_home))
    assert found.differences == []
    assert found.expired == {}
    receipts = read_receipts(Lake(Settings(home=eventful_home).paths.lake))
    assert found.hours == len({receipt.hour for receipt in receipts})
    assert {receipt.reason for receipt in receipts} >= {"closed", "late rows"}
    assert any(len(receipt.config) > 1 for receipt in receipts), "a configuration changed within an hour"
    assert any(receipt.withdrawn for receipt in receipts)


def test_states_that_are_gone_are_derived_again(eventful_home: Path, tmp_path: Path) -> None:
    found = check(Settings(home=eventful_home), shelf=tmp_path / "empty")
    assert found.differences == []
    assert found.hours == 8


def test_a_part_of_the_past_replays_from_the_state_before_it(eventful_home: Path) -> None:
    settings = Settings(home=eventful_home)
    lake = Lake(settings.paths.lake)
    hours = sorted({receipt.hour for receipt in read_receipts(lake)})
    shelf = Shelf(settings.paths.live / "handover")
    found = verify(lake, shelf, hours[3], hours[4], retention=Retention(), now=datetime.now(UTC))
    assert (found.hours, found.differences) == (2, [])


def test_restated_hours_replay_as_well_and_keep_what_was_known_before(eventful_home: Path, tmp_path: Path) -> None:
    shutil.copytree(eventful_home, tmp_path / "home")
    settings = Settings(home=tmp_path / "home")
    settings.paths.config.write_text("rules:\n- {name: app-load, metric: app.load, value: 1.6, for: 1m}\n")
    before = read_receipts(Lake(settings.paths.lake))
    pipeline = Pipeline(settings)
    pipeline.open()
    hours = sorted({receipt.hour for receipt in before})
    report = pipeline.rederive(hours[2:6], RESTATED)
    pipeline.close()
    assert report.amended_hours
    found = check(settings)
    assert found.differences == []
    after = read_receipts(Lake(settings.paths.lake))
    assert [receipt for receipt in after if receipt.reference in {r.reference for r in before}] == before


def test_open_hours_and_hours_without_rows_are_told_apart(eventful_home: Path) -> None:
    found = check(Settings(home=eventful_home))
    lake = Lake(Settings(home=eventful_home).paths.lake)
    assert found.without_receipt == [max(part.partition for part in lake.partitions("metric_points"))]


def test_nothing_is_written(settings: Settings) -> None:
    def content() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in settings.home.rglob("*") if path.is_file()}

    before = content()
    assert check(settings).identical
    assert content() == before


def test_a_changed_value_is_named_with_its_hour(settings: Settings) -> None:
    def change(rows: pl.DataFrame) -> pl.DataFrame:
        return rows.with_columns(value=pl.when(pl.int_range(pl.len()) == 7).then(0.987).otherwise("value"))

    key = rewrite(settings, METRIC_POINTS, change, 2)
    found = check(settings)
    assert {entry.hour for entry in found.differences} == {key}
    assert "input hash" in {entry.what for entry in found.differences}


def test_a_lost_row_is_a_difference_and_not_an_expired_input(settings: Settings) -> None:
    key = rewrite(settings, METRIC_POINTS, lambda rows: rows.head(-1), 1)
    found = check(settings)
    (entry,) = [entry for entry in found.differences if entry.what == "rows"]
    assert (entry.hour, entry.expected, entry.found) == (key, "720", "719")
    assert found.expired == {}


def test_a_row_that_came_after_the_receipt_is_no_difference(settings: Settings) -> None:
    def add(rows: pl.DataFrame) -> pl.DataFrame:
        later = rows.head(1).with_columns(pl.col("ts") + pl.duration(seconds=1), seq=pl.lit(1 << 40, pl.Int64))
        return pl.concat([rows, later.select(rows.columns)])

    rewrite(settings, METRIC_POINTS, add, 1)
    assert check(settings).identical


def test_a_changed_alert_is_named_with_what_was_decided(settings: Settings) -> None:
    def soften(rows: pl.DataFrame) -> pl.DataFrame:
        return rows.with_columns(severity_number=pl.lit(9, pl.Int32))

    key = rewrite(settings, ALERTS, soften)
    (entry,) = check(settings).differences
    assert entry.hour == key
    assert entry.what.startswith("alert ")
    assert "severity 17" in entry.expected
    assert "severity 9" in entry.found


def test_an_alert_that_nobody_was_told_of_is_named(settings: Settings) -> None:
    lake = Lake(settings.paths.lake)
    first = lake.read("alerts").sort("starts_at")["alert_id"][0]
    TableWriter(lake, ALERTS).delete(f"alert_id = {quote(first)}")
    (entry,) = check(settings).differences
    assert (entry.what, entry.found) == (f"alert {first}", "never told")


def test_an_alert_that_no_hour_decided_is_named(settings: Settings) -> None:
    lake = Lake(settings.paths.lake)
    made_up = lake.read("alerts").sort("starts_at").head(1).with_columns(alert_id=pl.lit("made-up"))
    TableWriter(lake, ALERTS).append(made_up, {})
    (entry,) = check(settings).differences
    assert (entry.what, entry.expected) == ("alert made-up", "no decision about it")


def test_a_changed_decision_is_named_with_its_row(settings: Settings) -> None:
    key = rewrite(settings, TABLES["alert_decisions"], lambda rows: rows.with_columns(title=pl.lit("another")))
    found = check(settings)
    assert "alert_decisions" in {entry.what for entry in found.differences}
    (entry,) = [entry for entry in found.differences if entry.what == "alert_decisions"]
    assert entry.hour == key
    assert "title another stored" in entry.row


def test_an_anomaly_that_was_not_derived_is_named(settings: Settings) -> None:
    lake = Lake(settings.paths.lake)
    key = lake.partitions("hour_receipts")[1].partition
    row = dict.fromkeys(ANOMALIES.schema) | {
        "ts": lake.read("metric_points", [key])["ts"][0],
        "series_id": 1,
        "host": "web-1",
        "metric": "x",
        "value": 1.0,
        "score": 1.0,
        "detector": "spike",
        "detector_version": "?",
        "evidence": "{}",
        "opens_event": True,
        "received_at": datetime.now(UTC),
        "writer": "gateway",
        "seq": 1,
        "hour": key,
    }
    TableWriter(lake, ANOMALIES).append(pl.DataFrame([row], schema=ANOMALIES.schema), {})
    (entry,) = check(settings).differences
    assert (entry.hour, entry.what) == (key, "anomalies")
    assert "stored, and not derived" in entry.row


def test_changed_baselines_are_named(settings: Settings) -> None:
    key = rewrite(settings, BASELINES, lambda rows: rows.with_columns(pl.col("mean") + 1e-9))
    (entry,) = check(settings).differences
    assert (entry.hour, entry.what) == (key, "baselines version 1")
    assert "mean" in entry.row


@pytest.mark.parametrize(
    "column", ["input_hash", "anomalies_hash", "decisions_hash", "state_out_hash", "state_in_hash", "baseline_hash"]
)
def test_a_forged_receipt_is_named(settings: Settings, column: str) -> None:
    key = rewrite(settings, HOUR_RECEIPTS, lambda rows: rows.with_columns(pl.lit("0" * 32).alias(column)), 1)
    found = check(settings)
    assert [entry.expected for entry in found.differences] == ["0" * 32]
    assert found.differences[0].hour == key


def test_a_receipt_that_names_other_rules_is_named(settings: Settings) -> None:
    other = orjson.dumps([[None, "0123456789abcdef"]]).decode()
    key = rewrite(settings, HOUR_RECEIPTS, lambda rows: rows.with_columns(config=pl.lit(other)), 1)
    found = check(settings)
    assert [(entry.hour, entry.what) for entry in found.differences if entry.hour == key] == [(key, "inputs")]


def test_a_difference_in_one_hour_is_not_blamed_on_the_hours_after_it(settings: Settings) -> None:
    key = rewrite(settings, METRIC_POINTS, lambda rows: rows.head(-5), 0)
    assert {entry.hour for entry in check(settings).differences} == {key}


def test_hours_whose_rows_have_passed_their_retention_are_listed_and_are_no_difference(settings: Settings) -> None:
    lake = Lake(settings.paths.lake)
    keys = [part.partition for part in lake.partitions("metric_points")][:2]
    TableWriter(lake, METRIC_POINTS).delete(f"hour IN ({', '.join(map(quote, keys))})")
    now = datetime.now(UTC) + timedelta(days=180) - timedelta(hours=10)
    found = check(settings, now=now)
    assert list(found.expired) == keys
    assert "retention" in found.expired[keys[0]]
    assert found.identical
    assert found.hours == 2
    assert not check(settings).identical, "within the retention they are lost, not expired"


def test_an_hour_that_is_amended_while_it_is_compared_is_read_again(tmp_path: Path) -> None:
    story = Story(tmp_path)
    first = start()
    sent = documents(first, 60 * 4)
    late = [entry for entry in sent if entry["host"] == "web-2" and 70 <= (entry["ts"] - first) // MINUTE < 90]
    story.stream([entry for entry in sent if entry not in late])
    lake = Lake(story.settings.paths.lake)
    amended = False

    def meanwhile(done: int, total: int) -> None:
        nonlocal amended
        if not amended:
            story.stream(late, delay=3 * 3600)
            story.settle()
            amended = True

    found = verify(lake, story.shelf, *EVER, retention=Retention(), now=datetime.now(UTC), progress=meanwhile)
    assert hour_key(first + 70 * MINUTE) in {r.hour for r in read_receipts(lake) if r.revision == 2}
    assert found.differences == []
