"""What storms send: parsers read all of it, under names that join, marked as made up."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import orjson
import polars as pl
import pytest
import yaml

from aiops_assets.collectors.snmp.poll import SnmpPoller
from aiops_assets.collectors.snmp.recording import RecordedEngine, read
from aiops_assets.config import Device
from aiops_assets.formats.batch import Parsed
from aiops_assets.synthetic.storms.engine import Emission, Storm
from aiops_assets.synthetic.storms.recordings import recordings
from aiops_assets.synthetic.storms.scenario import Scenario, load_scenario, parse_scenario, shipped
from tests.storms import SECOND, START, document, fault, parsed, played, tiny


def short(name: str) -> Scenario:
    """A shipped scenario with little history, at most 27 minutes long, sampled every minute."""
    scenario = load_scenario(name)
    history = scenario.history.model_copy(update={"span": 600.0}) if scenario.history else None
    hosts = {
        group: declared.model_copy(update={"interval": max(60.0, declared.interval), "jitter": 0.0})
        for group, declared in scenario.hosts.items()
    }
    duration = min(scenario.duration, 1_600.0)
    return scenario.model_copy(update={"duration": duration, "history": history, "hosts": hosts, "flush": 30.0})


@pytest.mark.parametrize("name", shipped())
def test_parsers_read_everything_of_every_scenario(name: str) -> None:
    scenario = short(name)
    storm = Storm(scenario, START)
    found = list(storm.emissions())
    read = parsed(found)
    hosts = {host.name for host in storm.fleet.hosts}
    known = hosts | set(storm.fleet.services)
    series = 0
    for format_name, batch in read.items():
        assert not batch.rejects, (format_name, batch.rejects[:2])
        for frame in (batch.series, batch.logs, batch.errors, batch.changes, batch.external, batch.tickets):
            assert set(frame["host"].drop_nulls()) <= known
        assert set(batch.entities["name"]) <= known
        series += batch.series.height
    assert series == storm.fleet.series
    assert {one.source for one in found} == {scenario.source_name}
    assert {"collected", "syslog"} <= set(read)


def test_all_hosts_and_services_are_told_with_what_they_need() -> None:
    entities = parsed(played(tiny()))["collected"].entities
    needs = {name: list(rows) for name, rows in entities.select("name", "depends_on").iter_rows()}
    assert needs["tiny-web-1"] == ["tiny-db-1", "tiny-db-2", "tiny-switch-1"]
    assert needs["tiny-shop"] == ["tiny-web-1", "tiny-web-2", "tiny-web-3", "tiny-orders"]
    kinds = dict(entities.select("name", "kind").iter_rows())
    assert kinds["tiny-switch-1"] == "device"
    assert kinds["tiny-orders"] == "service"
    assert entities["labels"].str.json_path_match("$.synthetic").eq("true").all()


def marked(batch: Parsed) -> bool:
    labels = batch.series["labels"].str.json_path_match("$.synthetic").eq("true").all()
    attributes = batch.logs.height == 0 or batch.logs["attributes"].str.contains('"synthetic":').all()
    return bool(labels) and bool(attributes)


def test_everything_is_marked_as_made_up() -> None:
    scenario = tiny(fault("bad_deploy", "web-1"), {**fault("psu_failure", "db-1"), "id": "psu"})
    read = parsed(played(scenario))
    for name in ("telegraf", "collected", "syslog"):
        assert marked(read[name]), name
    assert read["sentry_envelope"].errors["attributes"].str.contains('"synthetic":').all()
    assert read["generic"].changes["details"].str.contains('"synthetic":').all()


def test_metrics_come_under_canonical_names_in_their_units() -> None:
    read = parsed(played(tiny()))
    metrics = set(read["telegraf"].series["metric"]) | set(read["collected"].series["metric"])
    assert {
        "system.cpu.utilization", "system.memory.utilization", "system.filesystem.utilization",
        "system.network.io.total", "system.disk.io.total", "hw.temperature", "hw.fan.speed", "hw.power",
        "system.network.io", "system.network.up", "aiops.device.up",
    } <= metrics  # fmt: skip
    both = read["telegraf"].points.join(read["telegraf"].series.with_row_index("series"), on="series")
    ratios = both.filter(pl.col("metric") == "system.cpu.utilization")
    assert ratios["value"].is_between(0, 1).all()
    counters = both.filter(pl.col("kind") == "counter")
    assert counters["value"].min() >= 0
    bytes_ = both.filter(pl.col("metric") == "system.network.io.total")["value"]
    assert (bytes_ == bytes_.round()).all()


def test_hardware_of_a_server_comes_under_the_name_of_the_server() -> None:
    scenario = tiny(fault("psu_failure", "db-1"))
    read = parsed(played(scenario))
    hw = read["collected"].series.filter(pl.col("metric") == "hw.power")
    assert set(hw["host"]) == {"tiny-db-1", "tiny-db-2"}
    external = read["redfish_event"].external
    assert external["host"].to_list() == ["tiny-db-1", "tiny-db-1"]
    assert external["state"].to_list() == ["firing", "resolved"]
    assert external["key"].n_unique() == 1


def test_lines_are_rfc_5424_with_hosts_apps_and_severities() -> None:
    scenario = tiny(fault("lock_contention", "db-1"))
    logs = parsed(played(scenario))["syslog"].logs
    assert logs.select("host", "app", "severity_number", "ts").null_count().row(0) == (0, 0, 0, 0)
    assert {"nginx", "app", "postgres", "systemd"} <= set(logs["app"])
    during = logs.filter(pl.col("host") == "tiny-db-1", pl.col("severity_number") >= 13)
    assert during.filter(pl.col("ts") >= START + 120 * SECOND).height > 20
    assert during.filter(pl.col("ts") < START + 115 * SECOND).height < 3
    assert not logs["body"].str.contains(r"\{(n|ms|hex|peer|path|root|service|host)\}").any()


def test_exceptions_carry_host_service_release_and_environment() -> None:
    scenario = tiny(fault("bad_deploy", "web-1", release="2.0.0", previous="1.0.0"))
    errors = parsed(played(scenario))["sentry_envelope"].errors
    burst = errors.filter(pl.col("type").is_in(["OperationalError", "KeyError"]))
    assert burst.height > 20
    assert set(burst["host"]) == {"tiny-web-1"}
    assert set(burst["service"]) == {"tiny-shop"}
    assert set(burst["release"]) == {"tiny-shop@2.0.0"}
    assert errors["event_id"].n_unique() == errors.height


def test_a_deploy_is_told_to_the_generic_webhook_when_it_happens() -> None:
    scenario = tiny(fault("bad_deploy", "web-1", release="2.0.0", previous="1.0.0"))
    changes = parsed(played(scenario))["generic"].changes
    assert changes.select("kind", "host", "service").row(0) == ("deploy", "tiny-web-1", "tiny-shop")
    assert changes["ts"].dt.epoch("us").item() == START + 120 * SECOND
    assert orjson.loads(changes["details"].item())["version"] == "2.0.0"


def test_people_open_a_ticket_after_it_shows_and_resolve_it_after_its_end() -> None:
    scenario = tiny(fault("lock_contention", "db-1"), duration="40m")
    tickets = parsed(played(scenario))["servicenow"].tickets.sort("ts")
    assert tickets["state"].to_list() == ["In Progress", "Resolved"]
    assert tickets["ticket_id"].n_unique() == 1
    opened = tickets["opened_at"].dt.epoch("us")
    assert START + 200 * SECOND < opened[0] < START + 1_200 * SECOND
    assert tickets["host"].to_list() == [None, "tiny-db-1"]
    assert tickets["resolved_at"].dt.epoch("us")[1] > START + 420 * SECOND
    quiet = parsed(played(tiny({**fault("lock_contention", "db-1"), "ticket": False}, duration="40m")))
    assert "servicenow" not in quiet


def test_what_the_try_shows_is_what_its_scenario_sends() -> None:
    scenario = load_scenario("bad-deploy")
    series = parsed(Storm(scenario, START).emissions(history=False))["collected"].series
    by_host = {host: set(rows["metric"]) for (host,), rows in series.group_by("host")}
    web = {
        "system.cpu.utilization", "system.memory.utilization", "system.filesystem.utilization", "log.records.rate",
        "http.server.request.rate", "http.server.request.duration.p95", "http.server.error.ratio",
    }  # fmt: skip
    database = {
        "system.cpu.utilization", "system.memory.utilization", "system.filesystem.utilization", "system.disk.io",
        "db.client.connections",
    }  # fmt: skip
    assert by_host == {"try-web-1": web, "try-web-2": web, "try-db-1": database}
    assert scenario.source_name == "try"


def test_long_deliveries_of_events_keep_their_identity() -> None:
    first: list[Emission] = played(tiny())
    assert len({one.key for one in first}) == len(first)
    assert [one.key for one in first] == [one.key for one in played(tiny())]


def test_a_recording_for_a_simulator_is_polled_as_the_switch_it_is(tmp_path: Path) -> None:
    storm = Storm(tiny(fault("link_flapping", "switch-1")), START)
    states = {}
    for seconds in (60, 140):
        ((host, text),) = recordings(storm, START + seconds * SECOND)
        path = tmp_path / f"{host.name}.snmprec"
        path.write_text(text)
        poller = SnmpPoller(Device(name=host.name, address="192.0.2.1", deadline=60), RecordedEngine(read(path)))
        outcome = asyncio.run(poller.poll())
        assert outcome.up
        assert outcome.error is None
        points = {(one["metric"], one["labels"].get("device")): one["value"] for one in outcome.points}
        states[seconds] = points["system.network.up", "Te1/0/1"]
        assert 0 < points["system.cpu.utilization", None] < 1
        assert 20 < next(value for (metric, _), value in points.items() if metric == "hw.temperature") < 60
    assert states == {60: 1, 140: 0}


def test_the_examples_of_the_documentation_can_be_played() -> None:
    text = (Path(__file__).parents[2] / "docs" / "storms.md").read_text("utf-8")
    first, second = (yaml.safe_load(part) for part in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))
    assert parse_scenario(first).hosts["db"].bmc
    kind = next(iter(second["kinds"]))
    scenario = parse_scenario(document(kinds=second["kinds"], faults=[fault(kind, "db-1")]))
    for batch in parsed(played(scenario)).values():
        assert not batch.rejects
