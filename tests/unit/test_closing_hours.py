"""Hours that close, late rows, restatements: the same rows give the same bytes, and what was told is put right."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from aiops_assets.detection.handover import Shelf
from aiops_assets.detection.receipts import (
    BACKFILL,
    CLOSED,
    LATE,
    RESTATED,
    Receipt,
    newest,
    read_judgements,
    read_receipts,
)
from aiops_assets.detection.restoring import Past
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND, hour_key
from aiops_assets.incidents.store import IncidentStore
from aiops_assets.landing.quarantine import Quarantine
from aiops_assets.landing.segment import Delivery
from aiops_assets.landing.writer import SegmentWriter
from aiops_assets.live.pipeline import Pipeline
from aiops_assets.settings import Settings
from aiops_assets.telemetry.series import SeriesDirectory
from tests.examples import examples

MINUTE = 60 * MICROS_PER_SECOND
#: whole hours, the last of them well in the past, none older than late rows may be
START = (time.time_ns() // 1000 // MICROS_PER_HOUR - 30) * MICROS_PER_HOUR
Document = dict[str, Any]
#: what receipts record about the outcome of an hour
OUTCOME = ("rows", "input_hash", "anomalies_hash", "decisions_hash", "state_out_hash", "baseline_hash")


def telemetry(hours: float, hosts: int = 3, seed: int = 1) -> list[Document]:
    """A point a minute of two metrics: host 1's filesystem is full for a while each hour, host 2 falls silent once."""
    rng = np.random.default_rng(seed)
    documents = []
    for minute in range(int(hours * 60)):
        for host in range(hosts):
            if host == 2 and 70 <= minute < 90:
                continue
            full = host == 1 and 20 <= minute % 60 < 35
            points = [
                {
                    "metric": "system.filesystem.utilization",
                    "value": 0.98 if full else 0.5 + 0.01 * float(rng.normal()),
                    "unit": "1",
                    "labels": {"mountpoint": "/"},
                },
                {"metric": "system.cpu.utilization", "value": 0.3 + 0.02 * float(rng.normal()), "unit": "1"},
            ]
            documents.append({"host": f"h{host}", "ts": START + minute * MINUTE + host * 1000, "points": points})
    return documents


class Home:
    """A home with a pipeline that is driven by hand."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.settings = Settings(home=root, **settings)
        self.settings.paths.create()
        self.pipeline = Pipeline(self.settings)
        self.pipeline.open()
        self._number = 0

    def send(self, documents: Sequence[Document], received_at: int | None = None, **headers: str) -> None:
        """One segment, taken at once."""
        self.land(documents, received_at, **headers)
        while self.pipeline.step() is not None:
            pass

    def land(self, documents: Sequence[Document], received_at: int | None = None, **headers: str) -> None:
        self._number += 1
        at = max(document["ts"] for document in documents) + MICROS_PER_SECOND if received_at is None else received_at
        folder = self.settings.paths.landing
        with SegmentWriter(folder, "gateway", max_bytes=1 << 24, max_age_seconds=60) as writer:
            body = orjson.dumps(list(documents))
            delivery = Delivery(
                f"d{self._number}", at, "test", "application/json", body, {"format": "collected", **headers}
            )
            writer.append_deliveries([delivery])

    def stream(self, documents: Sequence[Document], minutes: int = 15) -> None:
        """Documents in order of time, some minutes a segment."""
        bounds: dict[int, list[Document]] = {}
        for document in documents:
            bounds.setdefault(document["ts"] // (minutes * MINUTE), []).append(document)
        for _, part in sorted(bounds.items()):
            self.send(part)

    def rest(self) -> None:
        """Long enough without segments for everything that waits to be left alone."""
        for _ in range(8):
            self.pipeline.idle()

    def restart(self) -> None:
        self.pipeline = Pipeline(self.settings)
        self.pipeline.open()

    def receipts(self) -> list[Receipt]:
        return read_receipts(self.pipeline.lake)

    def alerts(self) -> pl.DataFrame:
        """The present state of every alert."""
        rows = self.pipeline.lake.read("alerts").sort("revision").unique("alert_id", keep="last")
        return rows.sort("starts_at", "name", "host")

    def past(self) -> Past:
        directory = SeriesDirectory()
        lake = self.pipeline.lake
        directory.load(lake.read("series"))
        shelf = Shelf(self.settings.paths.live / "no states are kept")
        return Past(lake, shelf, directory, read_judgements(lake), self.receipts())


def differing(home: Home) -> list[tuple[str, int, str]]:
    """Hours that come out otherwise when every receipt is derived again from the first on."""
    past, found = home.past(), []
    for receipt in home.receipts():
        derived, state = past.again(receipt)
        past.known[receipt.reference] = state
        now = (derived.anomalies_hash, derived.decisions_hash, state.digest())
        then = (receipt.anomalies_hash, receipt.decisions_hash, receipt.state_out_hash)
        found += [(receipt.hour, receipt.revision, what) for what, a, b in zip("ads", now, then, strict=True) if a != b]
    return found


def outcome(receipts: Sequence[Receipt]) -> dict[str, tuple[Any, ...]]:
    return {hour: tuple(getattr(r, name) for name in OUTCOME) for hour, r in newest(receipts).items()}


def content(alerts: pl.DataFrame) -> list[tuple[Any, ...]]:
    """What alerts say, without how it came to be told."""
    live = alerts.filter(pl.col("state") != "withdrawn")
    return live.select("alert_id", "name", "host", "starts_at", "ends_at", "title", "value", "evidence").rows()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_every_passed_hour_closes_with_a_receipt_and_comes_out_the_same_again(home: Home) -> None:
    home.stream(telemetry(5.2))
    receipts = home.receipts()
    assert [receipt.hour for receipt in receipts] == [hour_key(START + n * MICROS_PER_HOUR) for n in range(5)]
    assert {receipt.reason for receipt in receipts} == {CLOSED}
    assert [receipt.state_in for receipt in receipts] == [[], *([r.reference] for r in receipts[:-1])]
    assert all(b.state_in_hash == a.state_out_hash for a, b in pairwise(receipts))
    assert sum(receipt.decisions for receipt in receipts) > 0
    assert differing(home) == []


def test_an_hour_learns_the_hours_that_closed_before_it_began(home: Home) -> None:
    home.stream(telemetry(4.2))
    pins = [receipt.baselines for receipt in home.receipts()]
    assert pins == [[], [], [(hour_key(START), None, 1)], [(hour_key(START + MICROS_PER_HOUR), None, 1)]]


@settings_of_hypothesis(
    max_examples=examples(5), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32))
def test_any_order_of_arrival_gives_the_same_bytes(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    documents = telemetry(2.2)
    shuffled = list(documents)
    random.Random(seed).shuffle(shuffled)
    found = []
    for order in (documents, shuffled):
        home = Home(tmp_path_factory.mktemp("home"))
        home.send(order, received_at=START + 3 * MICROS_PER_HOUR)
        home.rest()
        found.append((outcome(home.receipts()), content(home.alerts())))
    assert found[0] == found[1]
    assert len(found[0][0]) == 2


def test_out_of_order_rows_of_an_open_hour_count_when_it_closes(home: Home, tmp_path: Path) -> None:
    documents = telemetry(2.2)
    held_back = [d for d in documents if d["host"] == "h1" and 20 * MINUTE <= d["ts"] - START < 30 * MINUTE]
    rest = [d for d in documents if d not in held_back]
    home.stream([d for d in rest if d["ts"] < START + 50 * MINUTE])
    home.send(held_back, received_at=START + 51 * MINUTE)
    home.stream([d for d in rest if d["ts"] >= START + 50 * MINUTE])
    in_order = Home(tmp_path / "in order")
    in_order.stream(documents)
    assert content(home.alerts()) == content(in_order.alerts())
    assert differing(home) == []
    amended = home.pipeline.lake.read("alerts").filter(pl.col("amended_by").is_not_null())
    assert amended.height
    assert amended["amended_by"].str.contains("judged again with all rows").all()


def late_by_hours(home: Home, first: int = 60, last: int = 150) -> list[Document]:
    """Everything but a stretch (minutes) of host 1 in time; gives back what is still to come."""
    documents = telemetry(5.2)
    late = [d for d in documents if d["host"] == "h1" and first <= (d["ts"] - START) // MINUTE < last]
    home.stream([d for d in documents if d not in late])
    return late


def test_late_rows_amend_their_hours_and_only_those(home: Home) -> None:
    late = late_by_hours(home)
    before = outcome(home.receipts())
    assert len(before) == 5
    alerts_before = home.alerts()
    home.send(late, received_at=START + 6 * MICROS_PER_HOUR)
    home.rest()
    again = [receipt for receipt in home.receipts() if receipt.revision > 1]
    assert [(receipt.hour, receipt.reason) for receipt in again] == [
        (hour_key(START + n * MICROS_PER_HOUR), LATE) for n in (1, 2)
    ]
    assert [receipt.late_rows for receipt in again] == [120, 60]
    after = outcome(home.receipts())
    assert {hour for hour in before if before[hour] != after[hour]} == {receipt.hour for receipt in again}
    assert differing(home) == []
    raised = home.alerts().filter(~pl.col("alert_id").is_in(alerts_before["alert_id"].implode()))
    assert set(raised["host"]) == {"h1"}
    assert raised["amended_by"].str.contains("late rows").all()
    assert sum(receipt.raised for receipt in again) == raised.height


def test_silence_that_late_rows_fill_is_withdrawn_on_the_incident_as_well(home: Home) -> None:
    late = late_by_hours(home)
    silent = home.alerts().filter(pl.col("kind") == "absence", pl.col("host") == "h1")
    assert silent["state"].to_list() == ["resolved"]
    home.send(late, received_at=START + 6 * MICROS_PER_HOUR)
    home.rest()
    now = home.alerts().filter(pl.col("alert_id") == silent["alert_id"][0])
    assert now["state"].to_list() == ["withdrawn"]
    assert "late rows" in now["amended_by"][0]
    store = IncidentStore(home.settings.paths.operations_url)
    timelines = [event for incident in store.list() for event in store.get(incident.incident_id).events]
    assert any("late rows" in event.text for event in timelines)


def test_a_late_row_that_was_there_already_changes_nothing(home: Home) -> None:
    late_by_hours(home, 0, 0)
    before = home.receipts()
    home.send(telemetry(1), received_at=START + 6 * MICROS_PER_HOUR)
    home.rest()
    assert home.receipts() == before


def test_late_rows_give_the_profile_a_newer_version_in_hours_to_come(home: Home) -> None:
    late = late_by_hours(home)
    home.send(late, received_at=START + 5 * MICROS_PER_HOUR + 12 * MINUTE)
    home.rest()
    home.stream([d for d in telemetry(8.2) if d["ts"] >= START + 5.2 * MICROS_PER_HOUR])
    pins = {receipt.hour: receipt.baselines for receipt in home.receipts()}
    amended = (hour_key(START + MICROS_PER_HOUR), 1, 2)
    assert [hour for hour, learnt in pins.items() if amended in learnt] == [hour_key(START + 5 * MICROS_PER_HOUR)]
    assert differing(home) == []


def test_rows_that_come_too_late_are_kept_in_quarantine_with_the_way_out(home: Home) -> None:
    old = {"host": "h9", "ts": START - 40 * MICROS_PER_HOUR, "points": [{"metric": "m", "value": 1.0}]}
    home.send([old], received_at=START + 9 * MICROS_PER_HOUR)
    (entry,) = Quarantine(home.settings.paths.quarantine).entries()
    assert "more than 48 h in the past (AIOPS_LATE_HOURS)" in entry.reason
    assert "aiops ingest" in entry.reason
    assert home.pipeline.lake.read("metric_points").is_empty()
    home.send([old], received_at=START + 9 * MICROS_PER_HOUR, history="1")
    assert home.pipeline.lake.read("metric_points").height == 1


def test_history_of_new_series_is_derived_and_reaches_the_present(home: Home) -> None:
    home.stream(telemetry(3.2))
    import_ = [
        {"host": "new", "ts": START - 60 * MICROS_PER_HOUR + n * MINUTE, "points": [{"metric": "m", "value": n % 7}]}
        for n in range(180)
    ]
    home.send(import_, received_at=START + 4 * MICROS_PER_HOUR, history="1")
    home.rest()
    receipts = home.receipts()
    assert [receipt.hour for receipt in receipts[:3]] == [
        hour_key(START + n * MICROS_PER_HOUR) for n in (-60, -59, -58)
    ]
    live = home.pipeline._deriver.live
    number = home.pipeline._directory.number_of(
        int(home.pipeline.lake.read("series").filter(pl.col("host") == "new")["series_id"][0])
    )
    assert live.last[number] == import_[-1]["ts"]
    assert differing(home) == []
    home.restart()
    assert home.pipeline._deriver.live.export().digest() == live.export().digest()


def test_a_configuration_that_changes_within_an_hour_is_pinned_by_event_time(home: Home) -> None:
    documents = telemetry(3.2)
    cut = START + 80 * MINUTE
    home.stream([d for d in documents if d["ts"] < cut])
    home.settings.paths.config.write_text(
        "rules:\n- {name: busy, metric: system.cpu.utilization, op: '>=', value: 0.29, severity: info}\n"
    )
    home.stream([d for d in documents if d["ts"] >= cut])
    config = {receipt.hour: receipt.config for receipt in home.receipts()}
    first, second, third = (config[hour_key(START + n * MICROS_PER_HOUR)] for n in range(3))
    assert len(first) == len(third) == 1
    assert [at for at, _ in second] == [None, max(d["ts"] for d in documents if d["ts"] < cut) + 1]
    assert third[0][1] == second[1][1] != first[0][1] == second[0][1]
    assert differing(home) == []


def test_a_restart_at_any_moment_tells_nothing_twice_and_ends_the_same(home: Home, tmp_path: Path) -> None:
    documents = telemetry(3.2)
    home.stream(documents)
    restarted = Home(tmp_path / "restarted")
    for start in range(0, len(documents), 60):
        restarted.send(documents[start : start + 60])
        restarted.restart()
    assert content(restarted.alerts()) == content(home.alerts())
    told = restarted.pipeline.lake.read("alerts")
    assert told.select("alert_id", "revision").is_unique().all()
    assert told.height == home.pipeline.lake.read("alerts").height
    assert [r.decisions_hash for r in restarted.receipts()] != []
    assert differing(restarted) == []


@pytest.mark.parametrize("table", ["baselines", "anomalies", "alert_decisions", "alerts", "hour_receipts"])
def test_a_cut_before_any_commit_of_a_close_is_made_good(
    home: Home, table: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from aiops_assets.lake.tables import TableWriter

    documents = telemetry(2.2)
    whole = Home(tmp_path / "whole")
    whole.stream(documents)
    append = TableWriter.append

    def cut(self: TableWriter, frame: pl.DataFrame, positions: dict[str, int]) -> int:
        if self.table.name == table and not frame.is_empty():
            raise KeyboardInterrupt
        return append(self, frame, positions)

    home.stream([d for d in documents if d["ts"] < START + 55 * MINUTE])
    for minute in range(55, 132, 15):
        home.land([d for d in documents if minute <= (d["ts"] - START) // MINUTE < minute + 15])
    with monkeypatch.context() as patch:
        patch.setattr(TableWriter, "append", cut)
        try:
            while home.pipeline.step() is not None:
                pass
        except KeyboardInterrupt:
            pass
    home.restart()
    while home.pipeline.step() is not None:
        pass
    home.rest()
    assert [(r.hour, r.revision) for r in home.receipts()] == [(r.hour, r.revision) for r in whole.receipts()]
    assert content(home.alerts()) == content(whole.alerts())
    assert home.pipeline.lake.read("alerts").select("alert_id", "revision").is_unique().all()
    decisions = home.pipeline.lake.read("alert_decisions")
    assert decisions.select("alert_id", "revision", "receipt_revision").is_unique().all()
    assert differing(home) == []


def test_a_backfill_of_untouched_hours_changes_nothing_and_repairs_lost_rows(home: Home) -> None:
    home.stream(telemetry(3.2))
    before = home.receipts()
    hours = [receipt.hour for receipt in before]
    alerts = home.pipeline.lake.read("alerts")
    home.pipeline.rederive(hours, BACKFILL)
    assert home.receipts() == before
    assert home.pipeline.lake.read("alerts").equals(alerts)
    decisions = home.pipeline.lake.read("alert_decisions").sort("alert_id", "revision")
    home.pipeline._deriver._decisions.delete("revision = 0")
    home.restart()
    home.pipeline.rederive(hours, BACKFILL)
    assert home.pipeline.lake.read("alert_decisions").sort("alert_id", "revision").equals(decisions)
    assert home.receipts() == before


def test_a_restatement_writes_what_is_known_today_and_keeps_the_old(home: Home) -> None:
    home.stream(telemetry(4.2))
    hours = [receipt.hour for receipt in home.receipts()]
    home.settings.paths.config.write_text(
        "rules:\n- {name: filesystem-full, metric: system.filesystem.utilization, op: '>=', value: 0.99, "
        "severity: critical}\n"
    )
    before = home.alerts().filter(pl.col("name") == "filesystem-full")
    home.pipeline.step()
    home.pipeline.rederive(hours, RESTATED)
    receipts = home.receipts()
    assert [(receipt.hour, receipt.revision, receipt.reason) for receipt in receipts] == [
        (hour, revision, reason) for hour in hours for revision, reason in ((1, CLOSED), (2, RESTATED))
    ]
    now = home.alerts().filter(pl.col("alert_id").is_in(before["alert_id"].implode()))
    closed = now.filter(pl.col("starts_at").dt.strftime("%Y-%m-%dT%H").is_in(hours))
    assert set(closed["state"]) == {"withdrawn"}
    assert differing(home) == []
    home.pipeline.rederive(hours, RESTATED)
    assert len(home.receipts()) == len(receipts)


def test_states_are_kept_hourly_then_sparsely_and_what_is_missing_is_derived_again(home: Home) -> None:
    home.stream(telemetry(13.2, hosts=2), minutes=60)
    kept = {hour for hour, _ in Shelf(home.settings.paths.live / "handover").kept()}
    hours = [receipt.hour for receipt in home.receipts()]
    assert set(hours[-6:]) <= kept
    assert all(int(hour[11:]) % 6 == 0 for hour in kept - set(hours[-6:]))
    wanted = next(receipt for receipt in home.receipts() if receipt.hour == hours[4])
    assert home.past().state(wanted.reference).digest() == wanted.state_out_hash
