"""Netdata's json:http exporter: averages under canonical names, everything else under Netdata's own."""

from __future__ import annotations

from functools import partial
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops_assets.formats import parse
from tests.examples import examples
from tests.unit.mutations import NOW, accounted, delivery, mutated, rows

MICROS = 1_795_160_829_000_000


def dimension(context: str, name: str, units: str, value: float, **more: Any) -> dict[str, Any]:
    return {
        "prefix": "netdata",
        "hostname": "web-1",
        "chart_id": context,
        "chart_name": context,
        "chart_family": "",
        "chart_context": context,
        "chart_type": "line",
        "units": units,
        "id": name,
        "name": name,
        "value": value,
        "timestamp": 1_795_160_829,
    } | more


IDLE = dimension("system.cpu", "idle", "percentage", 75.0)
OTHER = dimension("mysql.queries", "slow", "queries/s", 1.5, chart_id="mysql_db.queries", chart_family="queries")


@pytest.mark.parametrize(
    ("sent", "metric", "unit", "labels", "value"),
    [
        (IDLE, "system.cpu.utilization", "1", {"cpu": "total"}, 0.25),
        (
            dimension("cpu.cpu", "user", "percentage", 5.0, chart_id="cpu.cpu3"),
            "system.cpu.user.utilization", "1", {"cpu": "3"}, 0.05,
        ),
        (dimension("system.load", "load1", "load", 1.5), "system.cpu.load_average.1m", "1", {}, 1.5),
        (dimension("system.ram", "used", "MiB", 2.0), "system.memory.usage", "By", {}, 2_097_152.0),
        (
            dimension("disk.space", "used", "GiB", 0.5, chart_id="disk_space._var", chart_family="/var"),
            "system.filesystem.usage", "By", {"mountpoint": "/var"}, 536_870_912.0,
        ),
        (
            dimension("net.net", "sent", "kilobits/s", -8.0, chart_id="net.eth0", chart_family="eth0"),
            "system.network.io", "By/s", {"device": "eth0", "direction": "transmit"}, 1_000.0,
        ),
        (
            dimension("net.packets", "received", "packets/s", 4.0, chart_id="net_packets.eth0"),
            "system.network.packets", "{packet}/s", {"device": "eth0", "direction": "receive"}, 4.0,
        ),
        (
            dimension("disk.io", "writes", "KiB/s", -2.0, chart_id="disk.sda"),
            "system.disk.io", "By/s", {"device": "sda", "direction": "write"}, 2_048.0,
        ),
        (dimension("system.uptime", "uptime", "seconds", 60.0), "system.uptime", "s", {}, 60.0),
        (
            dimension("sensors.temperature", "core0", "Celsius", 41.5, chart_id="sensors.t"),
            "hw.temperature", "Cel", {"hw.id": "sensors.t/core0", "hw.type": "temperature", "plugin": "netdata"}, 41.5,
        ),
        (
            OTHER,
            "netdata.mysql.queries", "", {"dimension": "slow", "chart": "mysql_db.queries", "family": "queries"}, 1.5,
        ),
    ],
)  # fmt: skip
def test_averages_have_canonical_names_and_scales(
    sent: dict[str, Any], metric: str, unit: str, labels: dict[str, str], value: float
) -> None:
    for body in ([sent], sent, orjson.dumps(sent) + b"\n" + orjson.dumps(sent)):
        host, found, told, _, text, ts, number = rows(parse("netdata", [delivery(body)]))[0]
        assert (host, found, told, orjson.loads(text), ts) == ("web-1", metric, unit, labels, MICROS)
        assert number == pytest.approx(value)


def test_shares_are_derived_where_all_parts_are_there() -> None:
    parts = {"used": 1.0, "free": 5.0, "cached": 1.5, "buffers": 0.5}
    memory = [dimension("system.ram", name, "MiB", value) for name, value in parts.items()]
    space = [dimension("disk.space", name, "GiB", 2.0, chart_family="/var") for name in ("used", "avail")]
    found = {
        metric: (labels, value)
        for _, metric, _, _, labels, _, value in rows(parse("netdata", [delivery(memory + space)]))
    }
    assert found["system.memory.utilization"] == ("{}", 0.125)
    assert found["system.filesystem.utilization"] == ('{"mountpoint":"/var"}', 0.5)
    partly = parse("netdata", [delivery(memory[:3]), delivery(memory[3:])])
    assert "system.memory.utilization" not in partly.series["metric"].to_list()


def test_numbers_as_collected_keep_netdatas_names() -> None:
    sent = dimension("system.load", "load1", "load", 1_500)
    ((_, metric, unit, kind, labels, _, value),) = rows(parse("netdata", [delivery([sent])]))
    assert (metric, unit, kind, value) == ("netdata.raw.system.load", "", "gauge", 1_500.0)
    assert labels == '{"dimension":"load1"}'


def test_one_dimension_is_one_series_however_often_it_comes() -> None:
    later = IDLE | {"timestamp": 1_795_160_839, "value": 50.0}
    parsed = parse("netdata", [delivery([IDLE, later, OTHER]), delivery([IDLE])])
    assert parsed.series.height == 2
    assert [value for *_, value in rows(parsed)] == [0.25, 0.5, 1.5, 0.25]


def test_labels_of_the_host_belong_to_the_host() -> None:
    labels = {"_os_name": "debian", "location": "fra"}
    parsed = parse("netdata", [delivery([IDLE | {"labels": labels}, IDLE | {"labels": labels}])])
    assert orjson.loads(parsed.entities["labels"].item()) == labels
    assert parsed.series.height == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hostname": None}, "host: expected"),
        ({"hostname": "a\nb"}, "control character"),
        ({"value": "x"}, "value: expected"),
        ({"value": True}, "value: expected"),
        ({"timestamp": "soon"}, "timestamp: expected"),
        ({"chart_context": "", "chart_id": ""}, "expected ["),
        ({"units": 3}, "units: expected"),
        ({"labels": [1]}, "labels: expected"),
    ],
)
def test_a_bad_dimension_is_rejected_alone_with_the_field(change: dict[str, Any], reason: str) -> None:
    parsed = parse("netdata", [delivery([IDLE, IDLE | change, IDLE])])
    assert parsed.points.height == 2
    assert reason in parsed.rejects[0].reason
    assert orjson.loads(parsed.rejects[0].content) == IDLE | change


def test_without_a_timestamp_it_is_of_now() -> None:
    sent = {name: value for name, value in IDLE.items() if name != "timestamp"}
    assert rows(parse("netdata", [delivery([sent])]))[0][5] == NOW


@given(st.integers(0, 2**32), st.lists(st.sampled_from([[IDLE, OTHER], [IDLE | {"labels": {"a": "b"}}]]), min_size=1))
@settings(max_examples=examples(300), deadline=None)
def test_damaged_payloads_are_rows_or_rejects(seed: int, samples: list[Any]) -> None:
    deliveries = [delivery(mutated(sample, seed + number)) for number, sample in enumerate(samples[:3])]
    accounted(partial(parse, "netdata"), [delivery(samples[0]), *deliveries])
