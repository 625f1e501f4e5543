"""Alerts of other systems: one a sender's key, resolved when it resolves, never doubled."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from aiops_assets.detection.alerts import Suppression, present
from aiops_assets.detection.external import ExternalBook
from aiops_assets.formats.batch import EXTERNAL_SCHEMA
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND
from aiops_assets.incidents.store import IncidentStore
from aiops_assets.lake.tables import Lake
from aiops_assets.live.pipeline import Pipeline
from aiops_assets.settings import Settings
from tests.home import document, drain, home, send
from tests.unit.test_events import deliver

NOW = time.time_ns() // 1000
SECOND = MICROS_PER_SECOND


def news(*told: dict[str, Any]) -> pl.DataFrame:
    usual = {
        "delivery": 0, "key": "disk", "name": "DiskFull", "state": "firing", "severity_number": 17, "host": "db-1",
        "labels": "{}", "starts_at": NOW, "title": "disk is full", "evidence": "{}", "ts": NOW,
    }  # fmt: skip
    frame = pl.DataFrame([usual | entry for entry in told], EXTERNAL_SCHEMA)
    return frame.with_columns(
        pl.lit("alertmanager").alias("source"), pl.lit(NOW).alias("received_at"), pl.lit("gateway").alias("writer"),
        pl.lit(1, pl.Int64).alias("seq"),
    )  # fmt: skip


def states(rows: pl.DataFrame) -> list[tuple[int, str]]:
    return list(rows.select("revision", "state").iter_rows())


def test_an_alert_fires_once_and_resolves_when_its_sender_says_so() -> None:
    book = ExternalBook()
    assert states(book.apply(news({}, {}), [])) == [(0, "firing")]
    assert states(book.apply(news({"ts": NOW + 60 * SECOND}), [])) == []
    ended = book.apply(news({"state": "resolved", "ends_at": NOW + 90 * SECOND, "ts": NOW + 91 * SECOND}), [])
    assert states(ended) == [(1, "resolved")]
    assert ended["ends_at"].dt.epoch("us").to_list() == [NOW + 90 * SECOND]
    assert states(book.apply(news({"state": "resolved", "ts": NOW + 92 * SECOND}), [])) == []


def test_a_late_repetition_of_the_start_does_not_reopen_what_ended() -> None:
    book = ExternalBook()
    book.apply(news({}, {"state": "resolved", "ts": NOW + 10 * SECOND}), [])
    assert states(book.apply(news({}, {"ts": NOW + 5 * SECOND}), [])) == []
    assert states(book.apply(news({"ts": NOW + 30 * SECOND}), [])) == [(2, "firing")]


def test_an_end_that_comes_before_any_start_is_no_alert() -> None:
    assert states(ExternalBook().apply(news({"state": "resolved"}), [])) == []


def test_a_new_start_ends_what_was_never_resolved() -> None:
    book = ExternalBook()
    first = book.apply(news({}), [])
    later = NOW + MICROS_PER_HOUR
    rows = book.apply(news({"starts_at": later, "ts": later}), [])
    assert states(rows) == [(1, "resolved"), (0, "firing")]
    assert rows["alert_id"][0] == first["alert_id"][0] != rows["alert_id"][1]


def test_a_change_of_severity_is_a_revision() -> None:
    book = ExternalBook()
    book.apply(news({}), [])
    rows = book.apply(news({"severity_number": 21, "ts": NOW + SECOND, "title": "worse"}), [])
    assert rows.select("revision", "severity_number", "title").rows() == [(1, 21, "worse")]


def test_two_sources_with_the_same_key_have_two_alerts() -> None:
    book = ExternalBook()
    both = pl.concat([news({}), news({}).with_columns(pl.lit("grafana").alias("source"))])
    assert book.apply(both, [])["alert_id"].n_unique() == 2


def test_a_window_suppresses_it_and_its_end_lets_it_fire() -> None:
    book = ExternalBook()
    window = Suppression("w", "window", NOW - SECOND, NOW + 60 * SECOND, "eva", "upgrade", host="db-*")
    assert states(book.apply(news({}), [window])) == [(0, "suppressed")]
    assert states(book.recheck(NOW + 30 * SECOND, [window])) == []
    assert states(book.recheck(NOW + 60 * SECOND, [window])) == [(1, "firing")]


def test_what_the_table_tells_is_taken_over() -> None:
    told = ExternalBook()
    rows = pl.concat([told.apply(news({}, {"key": "b"}, {"key": "b", "state": "resolved", "ts": NOW + SECOND}), [])])
    book = ExternalBook()
    book.load(rows)
    assert book.open_count == 1
    assert states(book.apply(news({}, {"key": "b"}), [])) == []
    assert states(book.apply(news({"state": "resolved", "ts": NOW + SECOND}), [])) == [(1, "resolved")]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return home(tmp_path / "home")


def external(state: str = "firing", ts: int = NOW, **more: Any) -> dict[str, Any]:
    told = {"key": "disk", "name": "DiskFull", "state": state, "severity_number": 21, "host": "db-1", "ts": ts}
    told |= {"labels": '{"severity":"critical"}', "starts_at": NOW, "title": "disk is full", "evidence": '{"v":1}'}
    return {"external": told | more}


def incidents(settings: Settings) -> list[tuple[str, str]]:
    store = IncidentStore(settings.paths.operations_url)
    try:
        return [(incident.title, incident.state) for incident in store.list()]
    finally:
        store.close()


def test_an_external_alert_opens_an_incident_and_its_end_resolves_it(settings: Settings) -> None:
    deliver(settings, [external()], "one", source="alertmanager")
    drain(settings)
    assert [state for _, state in incidents(settings)] == ["open"]
    ended = NOW + 60 * SECOND
    deliver(settings, [external("resolved", ended, ends_at=ended)], "two", at=ended, source="alertmanager")
    later = NOW + 2 * MICROS_PER_HOUR
    deliver(settings, [external("resolved", later, key="other")], "three", at=later, source="alertmanager")
    drain(settings)
    alerts = Lake(settings.paths.lake).read("alerts").sort("revision")
    assert alerts.select("kind", "state", "revision", "host").rows() == [
        ("external", "firing", 0, "db-1"),
        ("external", "resolved", 1, "db-1"),
    ]
    assert [state for _, state in incidents(settings)] == ["resolved"]


def test_a_delivery_that_comes_again_after_a_crash_raises_no_second_alert(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(settings, [external()], "one", source="alertmanager")
    pipeline = Pipeline(settings)
    pipeline.open()
    real = pipeline._alerts.append
    monkeypatch.setattr(pipeline._alerts, "append", lambda *_: (_ for _ in ()).throw(RuntimeError("cut")))
    with pytest.raises(RuntimeError, match="cut"):
        pipeline.step()
    monkeypatch.setattr(pipeline._alerts, "append", real)
    drain(settings)
    drain(settings)
    assert Lake(settings.paths.lake).read("alerts").height == 1
    assert len(incidents(settings)) == 1


def test_hours_that_close_and_are_amended_leave_external_alerts_alone(settings: Settings) -> None:
    start = (NOW // MICROS_PER_HOUR - 4) * MICROS_PER_HOUR
    send(settings, [document("db-1", start + SECOND, 1.0)])
    deliver(settings, [external(ts=start + 2 * SECOND, starts_at=start + 2 * SECOND)], "one", at=start + 3 * SECOND)
    for hour in range(1, 4):
        send(settings, [document("db-1", start + hour * MICROS_PER_HOUR, 1.0)])
    drain(settings)
    send(settings, [document("db-1", start + 60 * SECOND, 2.0)], at=start + 4 * MICROS_PER_HOUR)
    pipeline = Pipeline(settings)
    pipeline.open()
    while "late rows" not in Lake(settings.paths.lake).read("hour_receipts")["reason"]:
        if pipeline.step() is None:
            pipeline.idle()
    pipeline.close()
    lake = Lake(settings.paths.lake)
    assert lake.read("hour_receipts")["revision"].max() == 2
    assert present(lake.read("alerts")).select("state", "amended_by").rows() == [("firing", None)]


def test_news_that_tells_no_start_is_about_what_is_open() -> None:
    book = ExternalBook()
    first = book.apply(news({"starts_at": None}), [])
    assert states(first) == [(0, "firing")]
    assert first["starts_at"].dt.epoch("us").to_list() == [NOW]
    assert states(book.apply(news({"starts_at": None, "ts": NOW + 60 * SECOND}), [])) == []
    assert states(book.apply(news({"state": "resolved", "starts_at": None, "ts": NOW + 90 * SECOND}), [])) == [
        (1, "resolved")
    ]
    later = NOW + 2 * MICROS_PER_HOUR
    again = book.apply(news({"starts_at": None, "ts": later}), [])
    assert states(again) == [(0, "firing")]
    assert again["alert_id"][0] != first["alert_id"][0]
