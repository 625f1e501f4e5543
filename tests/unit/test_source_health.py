"""Judging sources from what the collector and the session wrote down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aiops_assets.config import parse_config
from aiops_assets.lake.report import SourceDrops
from aiops_assets.sources.catalogue import SHIPPED, entries
from aiops_assets.sources.health import arrives_in_time, no_laggards, on_arrival, read_status, series_within_cap

SECOND = 1_000_000
STATUS = {
    "devices": {
        "this-machine": {"ok": True, "slow": False, "skipped": 0, "kind": "host"},
        "switch": {"ok": True, "slow": False, "skipped": 7, "kind": "device"},
        "slow": {"ok": True, "slow": True, "kind": "device"},
        "dead": {"ok": False, "error": "no reply", "slow": False, "kind": "device"},
    }
}


@pytest.mark.parametrize(("age", "passed"), [(0, True), (900, True), (901, False)])
def test_a_source_is_late_beyond_its_limit(age: int, passed: bool) -> None:
    now = 10_000 * SECOND
    assert arrives_in_time("telegraf", 900.0, now - age * SECOND, now).passed is passed


def test_a_source_that_never_delivered_is_not_late() -> None:
    assert arrives_in_time("telegraf", 900.0, 0, 10_000 * SECOND).passed


def test_devices_that_lag_are_named_under_their_own_source() -> None:
    snmp, host = no_laggards("snmp", STATUS), no_laggards("host", STATUS)
    assert not snmp.passed
    assert snmp.numbers == {"devices": 3, "laggards": 2, "dead": "no reply", "slow": "slow"}
    assert host.passed and host.numbers["devices"] == 1


def test_turns_skipped_long_ago_do_not_make_a_laggard() -> None:
    assert "switch" not in no_laggards("snmp", STATUS).numbers


def test_many_laggards_are_counted_and_only_some_named() -> None:
    status = {"devices": {f"d{number:03}": {"ok": False, "kind": "device"} for number in range(500)}}
    numbers = no_laggards("snmp", status).numbers
    assert numbers["laggards"] == 500
    assert len(numbers) == 12


@pytest.mark.parametrize("text", [None, "[]", "{}", '{"devices": {"x": 3}}'])
def test_an_odd_status_file_is_no_laggard(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "status.json"
    if text is not None:
        path.write_text(text)
    assert no_laggards("snmp", read_status(path)).passed


def test_refused_series_are_told_by_source() -> None:
    assert series_within_cap({"telegraf": 0, "generic": 0}).passed
    assert series_within_cap({"telegraf": 3, "generic": 0}).numbers == {"telegraf": 3}


def test_what_has_just_arrived_is_in_time_and_brings_its_devices_along(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(json.dumps(STATUS))
    now = 10_000 * SECOND
    results = on_arrival([SourceDrops(name, 1, 1, 0, now) for name in ("telegraf", "snmp", "try")], tmp_path, now)
    assert [(result.table, result.name, result.passed) for result in results] == [
        ("drops/telegraf", "arrives_in_time", True),
        ("drops/snmp", "arrives_in_time", True),
        ("drops/snmp", "no_laggards", False),
    ]


def test_the_configuration_adds_sources_and_sets_freshness() -> None:
    config = parse_config("sources: {orders: {freshness: 60s}, snmp: {freshness: 30m}}", "test")
    found = {entry.name: entry for entry in entries(config)}
    assert list(found)[: len(SHIPPED)] == [entry.name for entry in SHIPPED]
    assert found["snmp"].freshness is not None and found["snmp"].freshness.total_seconds() == 1800
    assert found["orders"].format == "generic"
    assert "?source=orders" in found["orders"].point_here


def test_senders_are_told_how_to_reach_us() -> None:
    found = {entry.name: entry.point_here for entry in entries(parse_config("", "test"), "http://10.0.0.5:9000")}
    assert all(found.values())
    assert '"http://10.0.0.5:9000/webhooks/telegraf"' in found["telegraf"]
    assert '"http://10.0.0.5:9000/webhooks/generic"' in found["generic"]
    assert not any("GATEWAY" in text or "QUERY" in text for text in found.values())
