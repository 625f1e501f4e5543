"""Logs, errors, spans, tickets and documents: stored once, whatever is sent again or killed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiops_assets.formats.batch import Parsed
from aiops_assets.formats.rows import SCHEMAS, encode, parse
from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.lake.tables import Lake
from aiops_assets.landing.quarantine import Quarantine
from aiops_assets.landing.segment import Delivery
from aiops_assets.landing.writer import SegmentWriter
from aiops_assets.live.events import SeenKeys
from aiops_assets.live.pipeline import Pipeline
from aiops_assets.settings import Settings
from tests.home import drain, home

NOW = time.time_ns() // 1000


def deliver(
    settings: Settings,
    lines: list[dict[str, Any]],
    name: str,
    *,
    at: int = NOW,
    source: str = "app",
    headers: dict[str, str] | None = None,
) -> None:
    body = b"\n".join(orjson.dumps(line) for line in lines)
    with SegmentWriter(settings.paths.landing, "gateway", max_bytes=1 << 24, max_age_seconds=60) as target:
        target.append_deliveries(
            [Delivery(name, at, source, "application/json", body, {"format": "rows", **(headers or {})})]
        )


def stored(settings: Settings, table: str) -> pl.DataFrame:
    return Lake(settings.paths.lake).read(table)


def log(body: str, ts: int | None = NOW, **more: Any) -> dict[str, Any]:
    return {"logs": {"ts": ts, "host": "web-1", "body": body, "attributes": "{}", **more}}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return home(tmp_path / "home")


def test_every_kind_of_event_lands_in_its_table(settings: Settings) -> None:
    deliver(
        settings,
        [
            log("started", app="shop", severity_number=9),
            {"errors": {"ts": NOW, "project": "shop", "type": "KeyError", "value": "'x'", "event_id": "e1"}},
            {"spans": {"ts": NOW, "trace_id": "a" * 32, "span_id": "b" * 16, "duration": 0.25, "name": "GET /"}},
            {"tickets": {"ts": NOW, "ticket_id": "t1", "title": "printer", "opened_at": NOW - 10, "kind": "incident"}},
            {
                "documents": {
                    "ts": NOW,
                    "document_id": "d1",
                    "content_hash": "h",
                    "title": "Runbook",
                    "text": "Restart.",
                }
            },
        ],
        "one",
    )
    drain(settings)
    assert stored(settings, "log_events").select("host", "app", "severity_number", "body", "source").rows() == [
        ("web-1", "shop", 9, "started", "app")
    ]
    assert stored(settings, "error_events").select("event_id", "type", "attributes").rows() == [
        ("e1", "KeyError", "{}")
    ]
    assert stored(settings, "spans").select("duration", "name", "service").rows() == [(0.25, "GET /", "")]
    ticket = stored(settings, "tickets").row(0, named=True)
    assert ticket["opened_at"].timestamp() * 1e6 == pytest.approx(NOW - 10, abs=1)
    assert stored(settings, "documents").select("title", "removed").rows() == [("Runbook", False)]


def test_a_delivery_that_is_sent_again_is_stored_once(settings: Settings) -> None:
    lines = [log("a"), log("a"), log("b")]
    deliver(settings, lines, "first")
    drain(settings)
    deliver(settings, lines, "second", at=NOW + MICROS_PER_SECOND)
    deliver(settings, lines, "third", at=NOW + 2 * MICROS_PER_SECOND)
    drain(settings)
    assert sorted(stored(settings, "log_events")["body"]) == ["a", "a", "b"], "equal lines of one delivery are two"


def test_lines_without_a_time_are_told_apart_by_their_delivery(settings: Settings) -> None:
    deliver(settings, [log("tick", ts=None)], "first", at=NOW)
    deliver(settings, [log("tick", ts=None)], "second", at=NOW + MICROS_PER_SECOND)
    drain(settings)
    assert stored(settings, "log_events")["ts"].dt.epoch("us").sort().to_list() == [NOW, NOW + MICROS_PER_SECOND]


def test_the_senders_own_delivery_identifier_decides(settings: Settings) -> None:
    own = {"idempotency-key": "chunk-7"}
    deliver(settings, [log("x", ts=None)], "chunk-7", headers=own)
    deliver(settings, [log("x", ts=None)], "chunk-7", at=NOW + MICROS_PER_SECOND, headers=own)
    drain(settings)
    assert stored(settings, "log_events").height == 1


def test_the_same_line_of_two_files_is_two_lines(settings: Settings) -> None:
    deliver(settings, [log("x")], "a", headers={"path": "/var/log/a"})
    deliver(settings, [log("x")], "b", headers={"path": "/var/log/b"})
    drain(settings)
    assert stored(settings, "log_events").height == 2


def test_a_session_that_is_cut_between_events_and_points_repeats_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(settings, [log("x"), {"spans": {"ts": NOW, "trace_id": "a" * 32, "span_id": "b" * 16}}], "first")
    pipeline = Pipeline(settings)
    pipeline.open()

    def cut(*_arguments: object) -> None:
        raise RuntimeError("cut")

    monkeypatch.setattr(pipeline, "_point_rows", cut)
    with pytest.raises(RuntimeError, match="cut"):
        pipeline.step()
    assert stored(settings, "log_events").height == 1
    drain(settings)
    assert stored(settings, "log_events").height == 1
    assert stored(settings, "spans").height == 1


def test_events_with_impossible_times_wait_in_quarantine_and_can_be_tried_again(settings: Settings) -> None:
    future, ancient = NOW + 400 * 86_400 * MICROS_PER_SECOND, 0
    deliver(settings, [log("later", ts=future), log("ancient", ts=ancient), log("now")], "mixed")
    drain(settings)
    assert stored(settings, "log_events")["body"].to_list() == ["now"]
    kept = list(Quarantine(settings.paths.quarantine).entries())
    assert sorted(entry.reason.split(" in the ")[1][:6] for entry in kept) == ["future", "past"]
    again = parse([Delivery("r", NOW, "app", "", entry.content, {"format": "rows"}) for entry in kept])
    assert sorted(again.logs["body"]) == ["ancient", "later"]
    assert again.rejects == []


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_of_rows_fail(body: bytes) -> None:
    parsed = parse([Delivery("r", NOW, "app", "", body, {})])
    rows = sum(getattr(parsed, name).height for name in SCHEMAS)
    assert rows or parsed.rejects


def test_rows_are_read_as_they_were_written() -> None:
    rows = pl.DataFrame(
        [{"delivery": 0, "ts": NOW, "host": "h", "body": "x\ny", "attributes": '{"a":1}'}], dict(SCHEMAS["logs"])
    )
    assert parse([Delivery("r", NOW, "app", "", encode("logs", rows), {})]).logs.equals(rows)


@given(st.lists(st.lists(st.integers(0, 50), max_size=20), max_size=30))
def test_keys_are_remembered_over_any_number_of_batches(batches: list[list[int]]) -> None:
    seen, expected = SeenKeys(lambda _: np.array([3, 7], np.uint64)), {3, 7}
    for batch in batches:
        keys = np.array(batch, np.uint64)
        assert seen.known("p", keys).tolist() == [key in expected for key in batch]
        seen.add("p", keys)
        expected.update(batch)


def test_a_parser_that_fails_costs_its_own_delivery_only(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(deliveries: Sequence[Delivery]) -> Parsed:
        if any(b"poison" in delivery.body for delivery in deliveries):
            raise ZeroDivisionError("a mistake of ours")
        return parse(deliveries)

    monkeypatch.setattr("aiops_assets.formats.rows.parse", broken)
    for name in ("good", "poison", "fine"):
        deliver(settings, [log(name)], name)
    drain(settings)
    assert sorted(stored(settings, "log_events")["body"]) == ["fine", "good"]
    (kept,) = Quarantine(settings.paths.quarantine).entries()
    assert kept.reason == "the parser of rows failed: ZeroDivisionError: a mistake of ours"
    assert b"poison" in kept.content
