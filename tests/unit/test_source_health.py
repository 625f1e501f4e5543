"""Judging sources from what the collector and the session wrote down."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path

import pytest

from aiops_assets.config import parse_config
from aiops_assets.lake.report import SourceDrops
from aiops_assets.live.progress import Progress, SourceProgress, write_progress
from aiops_assets.observability.status import platform_status
from aiops_assets.sources.catalogue import SHIPPED, documentation, entries
from aiops_assets.sources.health import arrives_in_time, no_laggards, on_arrival, read_status, series_within_cap
from tests.home import home

SECOND = 1_000_000
STATUS = {
    "devices": {
        "this-machine": {"ok": True, "slow": False, "skipped": 0, "kind": "host", "source": "host"},
        "switch": {"ok": True, "slow": False, "skipped": 7, "kind": "device", "source": "snmp"},
        "slow": {"ok": True, "slow": True, "kind": "device", "source": "snmp"},
        "dead": {"ok": False, "error": "no reply", "slow": False, "kind": "device", "source": "snmp"},
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
    status = {"devices": {f"d{number:03}": {"ok": False, "source": "snmp"} for number in range(500)}}
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


def test_what_the_collector_fetches_is_a_source_with_its_guide() -> None:
    config = parse_config(
        """
pull:
- {name: snow, kind: servicenow, url: "https://x", token: t}
- {name: dd, kind: datadog, url: "https://x", token: t, application_key: a, interval: 10m, logs: "*"}
tail: [{name: shop-logs, paths: [/var/log/shop.log]}]
folders: [{name: runbooks, path: /srv/runbooks}]
""",
        "test",
    )
    found = {entry.name: entry for entry in entries(config)}
    assert found["snow"].feeds >= {"tickets", "documents"}
    assert found["dd"].freshness == timedelta(minutes=30)
    for name in ("snow", "dd", "shop-logs", "runbooks"):
        assert found[name].polled
        assert "```yaml" in found[name].point_here


def test_every_table_that_deliveries_fill_has_a_source() -> None:
    fed = frozenset().union(*(entry.feeds for entry in entries(parse_config("", "test"))))
    assert fed | {"tickets", "documents"} >= {
        "metric_points", "log_events", "error_events", "spans", "alerts", "changes", "entities", "tickets", "documents",
    }  # fmt: skip


def test_the_page_of_sources_is_what_the_catalogue_says() -> None:
    page = Path(__file__).parents[2] / "docs" / "sources.md"
    assert page.read_text("utf-8") == documentation(), "aiops sources list --markdown > docs/sources.md"


def test_the_status_names_laggards_by_source_and_what_listeners_say(tmp_path: Path) -> None:
    settings = home(tmp_path / "home")
    now = time.time()
    status = {"updated_at": int(now * SECOND), "devices": STATUS["devices"]}
    (settings.paths.collector / "status.json").write_text(json.dumps(status))
    listeners = {
        "udp 127.0.0.1:5514": {"laggards": ["core-1"], "error": None, "dropped": 0},
        "traps 127.0.0.1:5162": {"laggards": [], "error": "the address is in use", "dropped": 3},
    }
    (settings.paths.listener / "status.json").write_text(json.dumps({"listeners": listeners}))
    seen = {name: SourceProgress(last_received_at=int(now * SECOND), deliveries=1) for name in ("snmp", "syslog")}
    write_progress(settings.paths.live, Progress(sources=seen))
    found = platform_status(settings)
    assert {source.name: list(source.laggards) for source in found.sources} == {
        "snmp": ["dead", "slow"],
        "syslog": ["core-1"],
    }
    assert any("traps 127.0.0.1:5162: the address is in use" in problem for problem in found.problems)
    assert any("3 messages were given up" in problem for problem in found.problems)
