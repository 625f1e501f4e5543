"""collectd's write_http: JSON and PUTVAL give the same canonical points, notifications logs and alerts."""

from __future__ import annotations

from functools import partial
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops_assets.formats import parse
from tests.examples import examples
from tests.unit.mutations import NOW, accounted, captured, delivery, entities, external, mutated, rows

TIME = 1_795_160_829.562
MICROS = 1_795_160_829_562_000


def values(
    plugin: str, kind: str, *numbers: float | None, names: str = "value", types: str = "gauge", **more: Any
) -> dict[str, Any]:
    told = names.split(",")
    return {
        "values": list(numbers),
        "dstypes": [types] * len(told),
        "dsnames": told,
        "time": TIME,
        "interval": 10.0,
        "host": "edge1.example",
        "plugin": plugin,
        "plugin_instance": "",
        "type": kind,
        "type_instance": "",
    } | more


LOAD = values("load", "load", 1.5, 1.25, 1, names="shortterm,midterm,longterm")
OCTETS = values("interface", "if_octets", 100, 200, names="rx,tx", types="derive", plugin_instance="eth0")
FAILURE: dict[str, Any] = {
    "labels": {
        "alertname": "collectd_df_percent_bytes",
        "instance": "edge1.example",
        "df": "root",
        "type": "used",
        "severity": "FAILURE",
        "service": "collectd",
    },
    "annotations": {
        "summary": "Host edge1.example, plugin df: 96 above 95",
        "DataSource": "value",
        "CurrentValue": "96",
        "WarningMax": "90",
        "FailureMin": "nan",
        "FailureMax": "95",
    },
    "startsAt": "2026-11-20T08:00:00.000000000Z",
}


def test_captured_requests_of_both_shapes_are_read_whole() -> None:
    bodies = [captured(f"collectd-{number}") for number in (1, 2, 3, 4)]
    parsed = accounted(partial(parse, "collectd"), [delivery(body) for body in bodies])
    assert parsed.rejects == []
    found = {(metric, labels) for _, metric, _, _, labels, _, _ in rows(parsed)}
    assert ("system.cpu.load_average.1m", "{}") in found
    assert ("system.memory.usage", "{}") in found
    assert ("system.cpu.time", '{"cpu":"0","state":"user"}') in found
    text = [row for row in rows(parse("collectd", [delivery(bodies[0])])) if "cpu.load" in row[1]]
    assert text == [row for row in rows(parse("collectd", [delivery(bodies[1])])) if "cpu.load" in row[1]]
    assert entities(parsed) == {"edge1.example": ("host", None, [])}


@pytest.mark.parametrize(
    ("sent", "metric", "unit", "labels", "value"),
    [
        (values("memory", "memory", 512.0, type_instance="used"), "system.memory.usage", "By", {}, 512.0),
        (values("memory", "memory", 5.0, type_instance="free"), "mem.free", "By", {}, 5.0),
        (values("memory", "percent", 25.0, type_instance="used"), "system.memory.utilization", "1", {}, 0.25),
        (
            values("cpu", "percent", 75.0, plugin_instance="3", type_instance="idle"),
            "system.cpu.utilization", "1", {"cpu": "3"}, 0.25,
        ),
        (values("cpu", "percent", 40.0, type_instance="active"), "system.cpu.utilization", "1", {"cpu": "total"}, 0.4),
        (
            values("cpu", "percent", 5.0, plugin_instance="0", type_instance="wait"),
            "system.cpu.iowait.utilization", "1", {"cpu": "0"}, 0.05,
        ),
        (
            values("df", "df_complex", 7.0, plugin_instance="root", type_instance="used"),
            "system.filesystem.usage", "By", {"mountpoint": "/"}, 7.0,
        ),
        (
            values("df", "percent_bytes", 50.0, plugin_instance="var-log", type_instance="used"),
            "system.filesystem.utilization", "1", {"mountpoint": "var-log"}, 0.5,
        ),
        (values("swap", "swap", 9.0, type_instance="used"), "system.paging.usage", "By", {}, 9.0),
        (
            values("processes", "ps_state", 2.0, type_instance="running"),
            "system.processes.running", "{process}", {}, 2.0,
        ),
        (values("uptime", "uptime", 60.0), "system.uptime", "s", {}, 60.0),
        (values("ping", "ping", 12.5, type_instance="8.8.8.8"), "ping.response.mean", "s", {"url": "8.8.8.8"}, 0.0125),
        (values("ping", "ping_droprate", 0.5, type_instance="x"), "ping.loss", "1", {"url": "x"}, 0.5),
        (
            values("sensors", "temperature", 41.5, plugin_instance="coretemp-isa-0000", type_instance="temp1"),
            "hw.temperature", "Cel",
            {"hw.id": "coretemp-isa-0000/temp1", "hw.type": "temperature", "plugin": "sensors"}, 41.5,
        ),
        (
            values("ipmi", "fanspeed", 4_200.0, type_instance="FAN 1 system"),
            "hw.fan.speed", "rpm", {"hw.id": "FAN 1 system", "hw.type": "fan", "plugin": "ipmi"}, 4_200.0,
        ),
        (
            values("mysql", "threads", 3.0, plugin_instance="db", type_instance="running"),
            "collectd.mysql.threads", "", {"plugin_instance": "db", "type_instance": "running"}, 3.0,
        ),
    ],
)  # fmt: skip
def test_values_have_canonical_names_and_scales(
    sent: dict[str, Any], metric: str, unit: str, labels: dict[str, str], value: float
) -> None:
    ((host, found, told, _, text, ts, number),) = rows(parse("collectd", [delivery([sent])]))
    assert (host, found, told, orjson.loads(text), ts) == ("edge1.example", metric, unit, labels, MICROS)
    assert number == pytest.approx(value)


def test_totals_and_rates_have_names_of_their_own() -> None:
    rates = OCTETS | {"values": [100.5, 200]}
    raw, rated = ([row[1:5] for row in rows(parse("collectd", [delivery([sent])]))] for sent in (OCTETS, rates))
    receive, transmit = ('{"device":"eth0","direction":"receive"}', '{"device":"eth0","direction":"transmit"}')
    assert raw == [
        ("system.network.io.total", "By", "counter", receive),
        ("system.network.io.total", "By", "counter", transmit),
    ]
    assert rated == [("system.network.io", "By/s", "rate", receive), ("system.network.io", "By/s", "rate", transmit)]


def test_a_delivery_carries_either_totals_or_rates() -> None:
    mixed = [OCTETS | {"values": [5, 7]}, OCTETS | {"plugin_instance": "eth1", "values": [None, None]}, LOAD]
    found = rows(parse("collectd", [delivery(mixed), delivery([OCTETS])]))
    assert [metric for _, metric, *_ in found[:2]] == ["system.network.io"] * 2
    assert [metric for _, metric, *_ in found[-2:]] == ["system.network.io.total"] * 2


def test_counters_of_unknown_plugins_keep_their_names() -> None:
    sent = values("tcpconns", "operations", 7, types="counter", plugin_instance="80", type_instance="x")
    assert rows(parse("collectd", [delivery([sent])]))[0][1:4] == ("collectd.tcpconns.operations.total", "", "counter")
    found = rows(parse("collectd", [delivery([sent | {"values": [7.5]}])]))
    assert found[0][1:4] == ("collectd.tcpconns.operations", "", "rate")


def test_unknown_values_are_left_out_and_not_rejected() -> None:
    parsed = parse("collectd", [delivery([values("cpu", "cpu", None, types="derive", plugin_instance="0")])])
    assert (parsed.points.height, parsed.rejects) == (0, [])


def test_lines_of_putval_are_read_with_their_options_and_quotes() -> None:
    body = b"""PUTVAL edge1.example/load/load interval=10.000 1795160829.562:1.5:1.25:1
PUTVAL "my host/df-root/df_complex-used" interval=10 N:7
PUTVAL edge1.example/interface-eth0/if_octets interval=10 1795160829:100:U 1795160839:200:300
putval edge1.example/snmp-x-y/gauge-a/b/c 1795160829:nan
"""
    parsed = parse("collectd", [delivery(body)])
    assert parsed.rejects == []
    found = rows(parsed)
    assert [row[1] for row in found[:3]] == [f"system.cpu.load_average.{period}" for period in ("1m", "5m", "15m")]
    assert (found[3][0], found[3][1], found[3][5]) == ("my host", "system.filesystem.usage", NOW)
    assert [row[6] for row in found[4:]] == [100.0, 200.0, 300.0]


def test_a_bad_line_is_rejected_alone_with_its_offset() -> None:
    body = b"PUTVAL a/load/load 1795160829:1:2:3\nPUTVAL nonsense\nFLUSH\nPUTVAL a/uptime/uptime 1795160829:x\n"
    parsed = parse("collectd", [delivery(body)])
    assert parsed.points.height == 3
    assert [(reject.offset, reject.content) for reject in parsed.rejects] == [
        (36, b"PUTVAL nonsense"),
        (52, b"FLUSH"),
        (58, b"PUTVAL a/uptime/uptime 1795160829:x"),
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"host": None}, "host: expected"),
        ({"host": "a\nb"}, "control character"),
        ({"plugin": ""}, "plugin: expected"),
        ({"values": "x"}, "values: expected"),
        ({"values": ["x"] * 3}, "values: expected"),
        ({"values": [True] * 3}, "values: expected"),
        ({"time": "soon"}, "time: expected"),
        ({"dsnames": ["a"]}, "dsnames: expected"),
    ],
)
def test_a_bad_list_of_values_is_rejected_alone_with_the_field(change: dict[str, Any], reason: str) -> None:
    parsed = parse("collectd", [delivery([LOAD, LOAD | change, LOAD])])
    assert parsed.points.height == 6
    assert reason in parsed.rejects[0].reason
    assert orjson.loads(parsed.rejects[0].content) == LOAD | change


def test_infinite_values_are_rejected() -> None:
    parsed = parse("collectd", [delivery(orjson.dumps([LOAD]).replace(b"1.25", b"Infinity"))])
    assert parsed.points.height == 2
    assert "infinite" in parsed.rejects[0].reason


def test_notifications_are_log_events_and_alerts_that_end() -> None:
    over = FAILURE | {
        "labels": FAILURE["labels"] | {"severity": "OKAY"},
        "annotations": {"summary": "within range", "DataSource": "value"},
        "endsAt": "2026-11-20T08:10:00Z",
    }
    parsed = parse("collectd", [delivery([FAILURE]), delivery([over])])
    fired, ended = external(parsed)
    assert fired["key"] == ended["key"]
    assert (fired["state"], fired["severity_number"], fired["host"]) == ("firing", 17, "edge1.example")
    assert (fired["value"], fired["threshold"], fired["name"]) == (96.0, 95.0, "collectd_df_percent_bytes")
    assert (ended["state"], ended["ends_at"]) == ("resolved", 1_795_162_200_000_000)
    assert parsed.logs["body"].to_list() == [FAILURE["annotations"]["summary"], "within range"]
    assert entities(parsed) == {"edge1.example": ("host", None, [])}


def test_notifications_as_text_are_read_as_well() -> None:
    options = b"PUTNOTIF severity=failure time=1795160829 host=edge1 plugin=df type=percent_bytes"
    body = options + b' message="disk \\"root\\" full"'
    (alert,) = external(parse("collectd", [delivery(body)]))
    assert (alert["title"], alert["host"], alert["name"]) == ('disk "root" full', "edge1", "collectd_df_percent_bytes")


SAMPLES: list[Any] = [
    [LOAD, OCTETS, values("cpu", "cpu", 7, types="derive", plugin_instance="0", type_instance="user")],
    [FAILURE],
    b"PUTVAL a/load/load interval=10 1795160829.5:1:2:3\nPUTVAL a/interface-eth0/if_octets 1795160829:1:2\n" * 2,
    b'PUTNOTIF severity=warning time=1795160829 host=a plugin=df message="x y"\n',
]


@given(st.integers(0, 2**32), st.lists(st.sampled_from(SAMPLES), min_size=1, max_size=4))
@settings(max_examples=examples(400), deadline=None)
def test_damaged_payloads_are_rows_or_rejects(seed: int, samples: list[Any]) -> None:
    deliveries = [delivery(mutated(sample, seed + number)) for number, sample in enumerate(samples)]
    accounted(partial(parse, "collectd"), [delivery(samples[0]), *deliveries])
