"""Telegraf deliveries: JSON shapes, the choice of the parser, gzip, and the mapping to canonical metrics."""

from __future__ import annotations

import gzip
import itertools
import zlib

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops_assets.formats import parse, payload, telegraf_mapping
from aiops_assets.formats.batch import Parsed, labels_json
from aiops_assets.formats.payload import Refused
from aiops_assets.formats.telegraf_mapping import Key, resolve, rule
from aiops_assets.landing.segment import Delivery
from tests.examples import examples

NOW = 1_760_000_000_123_456
T = 1_750_000_000


def delivery(body: bytes | str, content_type: str = "") -> Delivery:
    return Delivery("id", NOW, "telegraf", content_type, body.encode() if isinstance(body, str) else body, {})


def rows(parsed: Parsed) -> list[tuple[int, str, str, str, int, float]]:
    series = parsed.series.rows(named=True)
    return [
        (of, series[number]["host"], series[number]["metric"], series[number]["labels"], ts, value)
        for of, number, ts, value in parsed.points.iter_rows()
    ]


def metric(name: str = "m", **fields: object) -> dict[str, object]:
    return {"name": name, "tags": {"host": "a"}, "fields": fields, "timestamp": T}


A, B = metric(v=1), metric(v=2.5, w=3)


@pytest.mark.parametrize(
    "body",
    [
        orjson.dumps({"metrics": [A, B]}),
        orjson.dumps([A, B]),
        orjson.dumps(A) + b"\n" + orjson.dumps(B) + b"\n",
        orjson.dumps([A]) + b"\r\n\r\n" + orjson.dumps({"metrics": [B]}),
        b"\xef\xbb\xbf  " + orjson.dumps([A, B]),
    ],
)
def test_every_shape_of_json_gives_the_same_points(body: bytes) -> None:
    assert rows(parse("telegraf", [delivery(body)])) == [
        (0, "a", "m.v", "{}", T * 1_000_000, 1.0),
        (0, "a", "m.v", "{}", T * 1_000_000, 2.5),
        (0, "a", "m.w", "{}", T * 1_000_000, 3.0),
    ]


@pytest.mark.parametrize("content_type", ["", "application/json", "text/plain; charset=utf-8", "nonsense"])
def test_the_body_decides_not_the_content_type(content_type: str) -> None:
    both = [delivery(orjson.dumps(A), content_type), delivery(f"m,host=a v=1 {T}", content_type)]
    parsed = parse("telegraf", both)
    assert [row[1:] for row in rows(parsed)] == [("a", "m.v", "{}", T * 1_000_000, 1.0)] * 2
    assert parsed.series.height == 1


def test_a_measurement_may_begin_with_a_brace() -> None:
    assert rows(parse("telegraf", [delivery(f"{{x}},host=a v=1 {T}")]))[0][2] == "{x}.v"


def test_json_and_lines_interleave_in_the_order_of_deliveries() -> None:
    bodies = [delivery(f"m,host=a v=0 {T}"), delivery(orjson.dumps(metric(v=1))), delivery("m,host=a v=2")]
    assert [(row[0], row[-1]) for row in rows(parse("telegraf", bodies))] == [(0, 0.0), (1, 1.0), (2, 2.0)]


@pytest.mark.parametrize("factor", [1, 10**3, 10**6, 10**9])
def test_json_timestamps_are_told_by_their_magnitude(factor: int) -> None:
    # twice: the first is read with care, the second on the fast path
    body = orjson.dumps([{**A, "timestamp": T * factor}] * 2)
    assert [row[4] for row in rows(parse("telegraf", [delivery(body)]))] == [T * 1_000_000] * 2


def test_booleans_are_numbers_and_text_becomes_a_log_event() -> None:
    body = orjson.dumps([metric(up=True, down=False, text="x", nothing=None, v=7)])
    logs = parse("telegraf", [delivery(body)]).logs
    assert logs.select("ts", "host", "app", "body", "attributes").rows() == [
        (T * 1_000_000, "a", "m", "x", '{"field":"text"}')
    ]
    assert [(row[2], row[-1]) for row in rows(parse("telegraf", [delivery(body)]))] == [
        ("m.up", 1.0),
        ("m.down", 0.0),
        ("m.v", 7.0),
    ]


def test_json_text_that_repeats_a_number_is_left_out_without_a_reject() -> None:
    parsed = parse(
        "telegraf", [delivery(orjson.dumps([metric("system", uptime_format="1 day"), metric("system", uptime=7)]))]
    )
    assert [row[2] for row in rows(parsed)] == ["system.uptime"]
    assert not parsed.rejects


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({**A, "name": 5}, "name: expected"),
        ({**A, "name": ""}, "the measurement is empty"),
        ({**A, "fields": []}, "fields: expected"),
        ({**A, "fields": {}}, "no fields"),
        ({**A, "fields": {"s": None}}, "no fields"),
        ({**A, "fields": {"v": [1]}}, "fields.v: expected a number"),
        ({**A, "tags": [1]}, "tags: expected"),
        ({**A, "tags": {"x": {}}}, "x: expected a string"),
        ({**A, "tags": {"host": "a\x00b"}}, "control character U+0000"),
        ({**A, "timestamp": "soon"}, "timestamp: expected"),
        ({**A, "timestamp": 10**19}, "timestamp: expected"),
        ({**A, "timestamp": True}, "timestamp: expected"),
        ("text", "expected {"),
        (None, "expected {"),
    ],
)
def test_a_bad_metric_is_rejected_alone_with_its_reason(bad: object, reason: str) -> None:
    parsed = parse("telegraf", [delivery(orjson.dumps([A, A, bad, A]))])
    assert [row[-1] for row in rows(parsed)] == [1.0] * 3
    (reject,) = parsed.rejects
    assert reason in reject.reason
    assert reject.reason.startswith("metric 3: ")
    assert orjson.loads(reject.content) == bad


def test_numbers_too_large_for_a_float_are_rejected_on_every_path() -> None:
    metrics = [
        orjson.dumps(A).replace(b'"v":1', b'"v":' + value) for value in (b"1", b"1e999", b"2", b"NaN", b"1" * 400)
    ]
    parsed = parse("telegraf", [delivery(b"[" + b",".join(metrics) + b"]"), delivery(b"\n".join(metrics))])
    assert [row[-1] for row in rows(parsed)] == [1.0, 2.0] * 2
    assert len(parsed.rejects) == 6
    assert all("NaN and infinite" in reject.reason for reject in parsed.rejects)


def test_a_bad_line_between_json_lines_is_rejected_alone() -> None:
    body = orjson.dumps(A) + b"\n{broken\n" + orjson.dumps(B)
    parsed = parse("telegraf", [delivery(body)])
    assert len(rows(parsed)) == 3
    (reject,) = parsed.rejects
    assert (reject.content, body[reject.offset :][:7]) == (b"{broken", b"{broken")


def test_a_missing_json_timestamp_is_the_time_of_acceptance() -> None:
    body = orjson.dumps({"name": "m", "fields": {"v": 1}})
    assert rows(parse("telegraf", [delivery(body)])) == [(0, "unknown", "m.v", "{}", NOW, 1.0)]


@pytest.mark.parametrize("body", [f"m,host=a v=1 {T}".encode(), orjson.dumps(A)])
def test_gzip_is_told_by_its_first_bytes(body: bytes) -> None:
    packed = gzip.compress(body)
    middle = gzip.compress(body[:9]) + gzip.compress(body[9:]) + b"\0\0"
    assert len(rows(parse("telegraf", [delivery(packed), delivery(body), delivery(middle)]))) == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:4],
        lambda data: data[:-4],
        lambda data: data[:-8] + b"\0" * 8,
        lambda data: data[:12] + b"\xff\xff\xff" + data[15:],
        lambda data: data + b"trailing",
    ],
)
def test_damaged_gzip_is_rejected_whole_as_it_came(damage: object) -> None:
    body = damage(gzip.compress(b"m,host=a v=1\n" * 500))  # type: ignore[operator]
    parsed = parse("telegraf", [delivery(body), delivery("m,host=a v=1")])
    (reject,) = parsed.rejects
    assert (reject.delivery, reject.offset, reject.content) == (0, 0, body)
    assert reject.reason.startswith("gzip: ")
    assert parsed.points.height == 1


def test_a_gzip_bomb_is_rejected_within_its_bound() -> None:
    packer = zlib.compressobj(9, wbits=31)
    block = b"\0" * (1 << 20)
    bomb = b"".join([packer.compress(block) for _ in range(300)] + [packer.flush()])
    assert len(bomb) < 1 << 20
    (reject,) = parse("telegraf", [delivery(bomb)]).rejects
    assert "more than 256 MiB" in reject.reason
    assert reject.content is bomb


def test_the_bound_counts_all_members_of_a_gzip_stream() -> None:
    with pytest.raises(payload.UnreadableBody, match="more than 1 MiB"):
        payload.gunzip(gzip.compress(b"x" * 600_000) * 2, 1 << 20)
    assert len(payload.gunzip(gzip.compress(b"x" * (1 << 19)) * 2, 1 << 20)) == 1 << 20


# -- mapping -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "cpu,host=a,cpu=cpu-total usage_idle=97.5",
            ("system.cpu.utilization", '{"cpu":"total"}', "1", "ratio", 0.025),
        ),
        ("cpu,cpu=cpu3,host=a usage_idle=0", ("system.cpu.utilization", '{"cpu":"3"}', "1", "ratio", 1.0)),
        ("cpu,cpu=cpu3,host=a time_idle=9", ("system.cpu.time", '{"cpu":"3","state":"idle"}', "s", "counter", 9.0)),
        ("mem,host=a used_percent=50", ("system.memory.utilization", "{}", "1", "ratio", 0.5)),
        ("mem,host=a used=7i", ("system.memory.usage", "{}", "By", "gauge", 7.0)),
        ("swap,host=a used_percent=25", ("system.paging.utilization", "{}", "1", "ratio", 0.25)),
        (
            "disk,device=sda1,fstype=ext4,host=a,mode=rw,path=/ used_percent=93",
            (
                "system.filesystem.utilization",
                '{"device":"sda1","fstype":"ext4","mode":"rw","mountpoint":"/"}',
                "1",
                "ratio",
                0.93,
            ),
        ),
        (
            "diskio,name=sda,host=a write_bytes=5i",
            ("system.disk.io.total", '{"device":"sda","direction":"write"}', "By", "counter", 5.0),
        ),
        (
            "net,interface=eth0,host=a bytes_recv=5i",
            ("system.network.io.total", '{"device":"eth0","direction":"receive"}', "By", "counter", 5.0),
        ),
        ("system,host=a load1=0.5", ("system.cpu.load_average.1m", "{}", "1", "gauge", 0.5)),
        ("system,host=a uptime=5i", ("system.uptime", "{}", "s", "gauge", 5.0)),
        ("processes,host=a total=5i", ("system.processes.count", "{}", "{process}", "gauge", 5.0)),
        ("ping,url=x,host=a average_response_ms=5", ("ping.response.mean", '{"url":"x"}', "s", "gauge", 0.005)),
        ("ping,url=x,host=a percent_packet_loss=50", ("ping.loss", '{"url":"x"}', "1", "ratio", 0.5)),
        ("nginx,host=a active=5i", ("nginx.active", "{}", "", "gauge", 5.0)),
        ("x,host=a wait_ms=5i", ("x.wait_ms", "{}", "ms", "gauge", 5.0)),
        ("x,host=a a.b=5i", ("x.a%2Eb", "{}", "", "gauge", 5.0)),
        ("system.cpu,host=a utilization=0.5", ("system.cpu.utilization", "{}", "1", "ratio", 0.5)),
        ("hw.temperature,host=a,sensor=x value=50", ("hw.temperature", '{"sensor":"x"}', "Cel", "gauge", 50.0)),
        # tags that Telegraf does not send: the sender's own names
        ("disk,host=a used_percent=93", ("disk.used_percent", "{}", "%", "gauge", 93.0)),
        ("cpu,cpu=all,host=a usage_idle=93", ("cpu.usage_idle", '{"cpu":"all"}', "", "gauge", 93.0)),
        (
            "net,interface=x,device=y,host=a bytes_recv=5i",
            ("net.bytes_recv", '{"device":"y","interface":"x"}', "", "gauge", 5.0),
        ),
    ],
)
def test_fields_become_canonical_metrics(line: str, expected: tuple[str, str, str, str, float]) -> None:
    parsed = parse("telegraf", [delivery(line)])
    (series,) = parsed.series.rows(named=True)
    assert series["host"] == "a"
    assert (series["metric"], series["labels"], series["unit"], series["kind"]) == expected[:4]
    assert parsed.points["value"].item() == pytest.approx(expected[4], abs=1e-15)


@pytest.mark.parametrize(
    ("tags", "host"),
    [
        ("host=a,hostname=b", "a"),
        ("hostname=b,source=c", "b"),
        ("source=c,agent_host=d", "c"),
        ("agent_host=d,device=e", "d"),
        ("device=e", "e"),
        ("x=y", "unknown"),
    ],
)
def test_the_host_comes_from_the_first_tag_that_names_one(tags: str, host: str) -> None:
    assert rows(parse("telegraf", [delivery(f"m,{tags} v=1")]))[0][1] == host


def test_a_disk_is_not_taken_for_a_host() -> None:
    assert rows(parse("telegraf", [delivery("disk,device=sda1,path=/ used=1i")]))[0][1] == "unknown"


ALL_FIELDS = sorted({field for family in telegraf_mapping._FAMILIES.values() for field in family.fields})
WORDS = st.sampled_from(["value", "a", "a.b", "b", "%2E", "%", "%252E", ".", "..", "utilization", "total", "cpu.time"])
TAGS = {
    "cpu": (("cpu", "cpu-total"),), "disk": (("path", "/"),), "diskio": (("name", "sda"),),
    "net": (("interface", "eth0"),), "procstat": (("process_name", "x"),),
    **dict.fromkeys(("interface", "ifTable", "ifXTable"), (("ifName", "eth0"),)),
    **dict.fromkeys(
        [name for name in telegraf_mapping._FAMILIES if name.startswith("redfish")], (("member_id", "0"), ("name", "a"))
    ),
}  # fmt: skip


def named(key: Key, field: str) -> tuple[str, str]:
    entry = rule(key.family, key.measurement, field)
    return entry.metric, labels_json({**key.labels, **dict([entry.extra] if entry.extra else [])})


@given(
    st.sampled_from([*telegraf_mapping._FAMILIES, "m", "system.cpu", "system.cpu.utilization"]),
    st.sets(st.one_of(st.sampled_from(ALL_FIELDS), WORDS, st.text("ab.%2E5", min_size=1, max_size=6)), max_size=30),
    st.booleans(),
)
def test_two_fields_never_share_metric_and_labels(measurement: str, fields: set[str], fitting: bool) -> None:
    key = resolve(measurement, (("host", "a"), *(TAGS.get(measurement, ()) if fitting else ())))
    assert len({named(key, field) for field in fields}) == len(fields)


TAG_VALUES = st.sampled_from(["cpu-total", "cpu0", "total", "0", "read"])
TAG_NAMES = st.sampled_from(
    ["cpu", "path", "mountpoint", "device", "name", "interface", "direction", "state", "x", "ifName", "ifDescr"]
)


@given(
    st.sampled_from(["cpu", "disk", "diskio", "net", "interface"]),
    st.lists(st.dictionaries(TAG_NAMES, TAG_VALUES, max_size=4), max_size=8),
)
def test_different_tags_never_become_the_same_labels(measurement: str, tag_sets: list[dict[str, str]]) -> None:
    seen: dict[tuple[str, str], tuple[str, dict[str, str]]] = {}
    for tags, field in itertools.product(tag_sets, telegraf_mapping._FAMILIES[measurement].fields):
        key = resolve(measurement, (("host", "a"), *tags.items()))
        assert seen.setdefault(named(key, field), (field, tags)) == (field, tags)


def test_no_metric_has_two_units() -> None:
    units: dict[str, set[tuple[str, str]]] = {}
    for family in telegraf_mapping._FAMILIES.values():
        for entry in family.fields.values():
            units.setdefault(entry.metric, set()).add((entry.unit, entry.kind))
    assert {name: found for name, found in units.items() if len(found) > 1} == {}


def test_names_are_refused_never_altered() -> None:
    with pytest.raises(Refused, match="control character"):
        resolve("m", (("a\nb", "c"),))
    assert resolve("<script>", (("'; drop table", "../../x"),)).labels == {"'; drop table": "../../x"}


# -- anything at all ---------------------------------------------------------------------------------------------

NUMBERS = st.one_of(st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(["name", "tags", "fields", "timestamp", "metrics", "host", "v", ""]), inner, max_size=5
        ),
    ),
    max_leaves=12,
)
VALID = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["cpu", "m", "net"]),
        "tags": st.dictionaries(st.sampled_from(["host", "cpu", "interface"]), st.text(max_size=5), max_size=3),
        "fields": st.dictionaries(st.sampled_from(["v", "usage_idle"]), st.one_of(st.integers(0, 9), JSON), max_size=3),
        "timestamp": st.one_of(st.just(T), st.integers(0, 2**63 - 1), JSON),
    }
)


def _mutated(document: object, at: int, inserted: bytes) -> bytes:
    body = orjson.dumps(document)
    return body[:at] + inserted + body[at + 1 :]


@settings(max_examples=examples(150), deadline=None)
@given(
    st.lists(
        st.one_of(
            JSON.map(orjson.dumps),
            st.lists(VALID, max_size=4).map(orjson.dumps),
            st.builds(_mutated, st.lists(VALID, min_size=1, max_size=3), st.integers(0, 200), st.binary(max_size=3)),
            st.binary(max_size=60).map(gzip.compress),
            st.binary(max_size=60),
        ),
        max_size=4,
    )
)
def test_any_delivery_is_points_or_rejects(bodies: list[bytes]) -> None:
    parsed = parse("telegraf", [delivery(body) for body in bodies])
    seen = set(parsed.points["delivery"].to_list()) | {reject.delivery for reject in parsed.rejects}
    assert seen == set(range(len(bodies)))
    assert parsed.points["value"].is_finite().all()
    assert parsed.points["delivery"].is_sorted()
    assert parsed.points["series"].max() is None or parsed.points["series"].max() < parsed.series.height  # type: ignore[operator]
    assert parsed.series.n_unique(["host", "metric", "labels"]) == parsed.series.height


SNMP_TAGS = "agent_host=192.0.2.7,host=telegraf-1,hostname=core-1,ifIndex=3,ifName=Gi0/3"


@pytest.mark.parametrize(
    ("line", "metric", "unit", "kind", "value", "labels"),
    [
        (
            f"interface,{SNMP_TAGS} ifHCInOctets=5i", "system.network.io.total", "By", "counter", 5.0,
            {"device": "Gi0/3", "direction": "receive"},
        ),
        (f"ifXTable,{SNMP_TAGS} ifHCOutUcastPkts=5i", "system.network.packets.total", "{packet}", "counter", 5.0,
         {"direction": "transmit"}),
        (f"ifTable,{SNMP_TAGS} ifInErrors=5i", "system.network.errors.total", "{error}", "counter", 5.0, {}),
        (f"ifTable,{SNMP_TAGS} ifInOctets=5i", "ifTable.ifInOctets", "By", "counter", 5.0, {}),
        (f"ifTable,{SNMP_TAGS} ifHCInMulticastPkts=5i", "ifTable.ifHCInMulticastPkts", "{packet}", "counter", 5.0, {}),
        (f"interface,{SNMP_TAGS} ifHighSpeed=10000i", "interface.ifHighSpeed", "bit/s", "gauge", 1e10, {}),
        (f"snmp,{SNMP_TAGS} uptime=12.5", "system.uptime", "s", "gauge", 12.5, {"ifName": "Gi0/3"}),
        (f"myTable,{SNMP_TAGS} depth=5i", "myTable.depth", "", "gauge", 5.0, {"ifName": "Gi0/3", "host": "telegraf-1"}),
    ],
)  # fmt: skip
def test_what_telegraf_asks_of_devices_belongs_to_the_device(
    line: str, metric: str, unit: str, kind: str, value: float, labels: dict[str, str]
) -> None:
    parsed = parse("telegraf", [delivery(f"{line} {T}")])
    (row,) = parsed.series.rows(named=True)
    assert (row["host"], row["metric"], row["unit"], row["kind"]) == ("core-1", metric, unit, kind)
    assert labels.items() <= orjson.loads(row["labels"]).items()
    assert parsed.points["value"].to_list() == [pytest.approx(value)]


@pytest.mark.parametrize(
    ("measurement", "field", "metric", "unit", "value", "hw_type"),
    [
        ("redfish_thermal_temperatures", "reading_celsius=41", "hw.temperature", "Cel", 41.0, "temperature"),
        ("redfish_thermal_fans", "reading_rpm=4200i", "hw.fan.speed", "rpm", 4200.0, "fan"),
        ("redfish_thermal_fans", "reading_percent=50i", "hw.fan.speed_ratio", "1", 0.5, "fan"),
        ("redfish_power_powersupplies", "power_input_watts=90", "hw.power", "W", 90.0, "power_supply"),
        ("redfish_power_voltages", "reading_volts=12.1", "hw.voltage", "V", 12.1, "voltage"),
        ("redfish_power_voltages", "upper_threshold_critical=13", "redfish_power_voltages.upper_threshold_critical", "",
         13.0, None),
    ],
)  # fmt: skip
def test_redfish_readings_become_hardware_metrics(
    measurement: str, field: str, metric: str, unit: str, value: float, hw_type: str | None
) -> None:
    tags = "address=192.0.2.9,host=telegraf-1,health=OK,member_id=7,name=Inlet,source=web-9,state=Enabled"
    parsed = parse("telegraf", [delivery(f"{measurement},{tags} {field} {T}")])
    (row,) = parsed.series.rows(named=True)
    labels = orjson.loads(row["labels"])
    assert (row["host"], row["metric"], row["unit"]) == ("web-9", metric, unit)
    assert (labels["hw.id"], labels["hw.name"], labels.get("hw.type")) == ("7", "Inlet", hw_type)
    assert parsed.points["value"].to_list() == [value]


@pytest.mark.parametrize(
    ("query", "stamp", "micros"),
    [
        ("db=telegraf&precision=s", 1_750_000_000, 1_750_000_000_000_000),
        ("bucket=b&org=o&precision=ms", 5, 5_000),
        ("precision=us", 5, 5),
        ("precision=n", 5_000, 5),
        ("db=telegraf", 1_750_000_000_000, 1_750_000_000_000_000),
        ("precision=nonsense", 1_750_000_000, 1_750_000_000_000_000),
    ],
)
def test_the_query_string_tells_the_precision(query: str, stamp: int, micros: int) -> None:
    sent = Delivery("id", NOW, "telegraf", "", f"m,host=a v=1 {stamp}".encode(), {"query": query})
    assert [row[4] for row in rows(parse("telegraf", [sent]))] == [micros]


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp", "Cn"]), max_size=8)
FIELD_VALUES = st.one_of(
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.sampled_from(["text", '},"name":"', "a,b:c", "1", "true"]),
    st.none(),
)
METRICS = st.fixed_dictionaries(
    {
        "fields": st.dictionaries(NAMES, FIELD_VALUES, max_size=4),
        "name": st.sampled_from(["cpu", "disk", "m"]) | NAMES,
        "tags": st.dictionaries(NAMES, NAMES | st.sampled_from(['},{"fields":{', "x"]), max_size=3),
        "timestamp": st.integers(1, 2**63 - 1) | st.sampled_from([T, 0, -1, "soon", None, 1.5]),
    }
)


def jumbled(found: dict[str, object]) -> dict[str, object]:
    return {name: found[name] for name in ("name", "timestamp", "tags", "fields")}


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(METRICS, min_size=1, max_size=5), st.sampled_from([(",", ":"), (", ", ": ")]), st.booleans())
def test_json_in_telegrafs_own_order_is_read_as_in_any_other(
    metrics: list[dict[str, object]], separators: tuple[str, str], alone: bool
) -> None:
    import json

    def bodies(found: list[dict[str, object]]) -> list[Delivery]:
        documents: list[object] = list(found) if alone else [{"metrics": found}]
        return [delivery(json.dumps(document, separators=separators) + "\n") for document in documents]

    one = parse("telegraf", bodies(metrics))
    other = parse("telegraf", bodies([jumbled(found) for found in metrics]))
    assert rows(one) == rows(other)
    assert [(reject.delivery, reject.reason) for reject in one.rejects] == [
        (reject.delivery, reject.reason) for reject in other.rejects
    ]


def test_metrics_read_both_ways_keep_the_order_of_the_payload() -> None:
    odd = {"fields": {"v": 1.0, "s": "text"}, "name": "m", "tags": {"host": "a"}, "timestamp": T}
    plain = {"fields": {"v": 2.0}, "name": "m", "tags": {"host": "a"}, "timestamp": T}
    body = orjson.dumps({"metrics": [plain, odd, plain, odd]})
    parsed = parse("telegraf", [delivery(body), delivery(orjson.dumps(odd)), delivery(orjson.dumps(plain))])
    assert [(row[0], row[-1]) for row in rows(parsed)] == [(0, 2.0), (0, 1.0), (0, 2.0), (0, 1.0), (1, 1.0), (2, 2.0)]


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(METRICS, min_size=1, max_size=3), st.data())
def test_mutated_json_never_raises_and_is_never_forgotten(
    metrics: list[dict[str, object]], data: st.DataObject
) -> None:
    body = bytearray(orjson.dumps({"metrics": [{**found, "timestamp": T, "fields": {"v": 1.0}} for found in metrics]}))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    parsed = parse("telegraf", [delivery(bytes(body))])
    assert parsed.points.height or parsed.rejects


def test_text_of_lines_and_of_json_becomes_the_same_log_events() -> None:
    text = 'a "quoted", = \\ back\\slash'
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    fields = {"v": 1.0, "message": text, "state=x": "up"}
    lines = [
        f'm,host=a,disk=C:\\ \\"x v=1,message="{escaped}",state\\=x="up" {T}',
        f'm,host=a,disk=C:\\ \\"x message="{escaped}",v=1,state\\=x="up" {T}',
        f'm,host=a,disk=C:\\ \\"x message="{escaped}",state\\=x="up" {T}',
    ]
    tags = {"host": "a", "disk": 'C: "x'}
    bodies = [orjson.dumps({"fields": fields, "name": "m", "tags": tags, "timestamp": T}).decode(), *lines]
    logs = parse("telegraf", [delivery(body) for body in bodies]).logs
    assert logs["delivery"].to_list() == [0, 0, 1, 1, 2, 2, 3, 3]
    found = [tuple(row) for row in logs.select("ts", "host", "app", "body", "attributes").rows()]
    assert found[:2] == [
        (T * 1_000_000, "a", "m", text, labels_json({"disk": 'C: "x', "field": "message"})),
        (T * 1_000_000, "a", "m", "up", labels_json({"disk": 'C: "x', "field": "state=x"})),
    ]
    assert found == found[:2] * 4


def test_a_delivery_of_nothing_but_text_is_no_reject() -> None:
    parsed = parse("telegraf", [delivery(f'tail,host=a,path=/var/log/x message="it broke" {T}')])
    assert parsed.logs["body"].to_list() == ["it broke"]
    assert not parsed.rejects
    assert not parsed.points.height
