"""Generic and collected JSON: points, changes and entities, and rejects that name the field."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops_assets.formats import FORMATS, parse, payload
from aiops_assets.formats.batch import (
    CHANGES_SCHEMA,
    ENTITIES_SCHEMA,
    POINTS_SCHEMA,
    SERIES_SCHEMA,
    Parsed,
    labels_json,
)
from aiops_assets.landing.segment import Delivery
from tests.examples import examples

NOW = 1_760_000_000_123_456
T = 1_750_000_000
MICROS = T * 1_000_000
POINT = {
    "host": "a",
    "metric": "m",
    "value": 1.5,
    "ts": T,
    "unit": "By",
    "kind": "gauge",
    "labels": {"z": "1", "b": "2"},
}


def delivery(body: object) -> Delivery:
    return Delivery("id", NOW, "s", "", body if isinstance(body, bytes) else orjson.dumps(body), {})


def rows(parsed: Parsed) -> list[tuple[int, str, str, str, int, float]]:
    series = parsed.series.rows(named=True)
    return [
        (of, series[number]["host"], series[number]["metric"], series[number]["labels"], ts, value)
        for of, number, ts, value in parsed.points.iter_rows()
    ]


@pytest.mark.parametrize(
    "body",
    [
        POINT,
        [POINT],
        {"points": [POINT]},
        {"metrics": [POINT]},
        orjson.dumps(POINT) + b"\n\n",
        gzip.compress(orjson.dumps(POINT)),
        {"hostname": "a", "name": "m", "value": 1.5, "time": T, "tags": {"b": 2, "z": "1", "none": None}},
        {
            "device": "a",
            "metric": "m",
            "value": 1.5,
            "timestamp": "2025-06-15T15:06:40Z",
            "labels": {"b": "2", "z": "1"},
        },
        {"host": "a", "ts": T, "labels": {"b": "2", "z": "1"}, "points": [{"metric": "m", "value": 1.5}]},
    ],
)
def test_generic_points_are_read_in_every_shape(body: object) -> None:
    assert rows(parse("generic", [delivery(body)])) == [(0, "a", "m", '{"b":"2","z":"1"}', MICROS, 1.5)]


@pytest.mark.parametrize(
    "stamp",
    [
        T,
        T * 10**3,
        T * 10**6,
        T * 10**9,
        float(T),
        str(T),
        "2025-06-15T15:06:40",
        "2025-06-15T17:06:40+02:00",
        " 2025-06-15 15:06:40Z",
    ],
)
def test_generic_times_are_read_in_every_notation(stamp: object) -> None:
    assert rows(parse("generic", [delivery({**POINT, "ts": stamp})]))[0][4] == MICROS


def test_fractions_of_seconds_count() -> None:
    assert rows(parse("generic", [delivery({**POINT, "ts": T + 0.25})]))[0][4] == MICROS + 250_000


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"host": None}, "host: is required"),
        ({"host": ""}, "host is empty"),
        ({"host": 5}, "host: expected a string"),
        ({"host": "a" * 1025}, "longer than 1024"),
        ({"host": "a\x1bb"}, "control character U+001B"),
        ({"metric": None}, "metric: is required"),
        ({"metric": ["x"]}, "metric: expected a string"),
        ({"value": None}, "value: is required"),
        ({"value": "1"}, "value: expected a number"),
        ({"value": {}}, "value: expected a number"),
        ({"ts": "yesterday"}, "ts: expected"),
        ({"ts": 1e30}, "ts: expected"),
        ({"value": float("nan")}, "NaN and infinite"),
        ({"value": float("-inf")}, "NaN and infinite"),
        ({"metric": "\ud800", "value": float("nan")}, "NaN and infinite"),
        ({"host": "\ud800"}, "control character U+D800"),
        ({"unit": 5}, "unit: expected"),
        ({"unit": "x" * 65}, "unit: expected"),
        ({"kind": "histogram"}, "kind: allowed: gauge, rate, counter, ratio"),
        ({"kind": []}, "kind: allowed"),
        ({"labels": "x"}, "labels: expected"),
        ({"labels": {"a": []}}, "labels.a: expected"),
        ({"labels": {"a": "\n"}}, "control character"),
        ({"type": "other", "value": None}, "type: allowed"),
    ],
)
def test_a_bad_generic_item_is_rejected_alone_with_the_field(change: dict[str, object], reason: str) -> None:
    bad = {name: value for name, value in {**POINT, **change}.items() if value is not None}
    body = json.dumps([POINT, bad, POINT]).encode()
    parsed = parse("generic", [delivery(body)])
    assert len(rows(parsed)) == 2
    (reject,) = parsed.rejects
    assert reason in reject.reason
    assert reject.content in {json.dumps(bad).encode(), json.dumps(bad, separators=(",", ":")).encode()}


@pytest.mark.parametrize(("kind", "expected"), [("deploy", "deploy"), ("reboot", "reboot"), ("change", "other")])
def test_generic_changes_are_read(kind: str, expected: str) -> None:
    item = {"type": kind, "host": "a", "service": "shop", "title": "v2\nnow", "actor": "ci", "ts": T, "commit": "abc"}
    parsed = parse("generic", [delivery([POINT, item])])
    assert parsed.points.height == 1
    assert parsed.changes.rows(named=True) == [
        {
            "delivery": 0, "ts": datetime.fromtimestamp(T, UTC), "kind": expected, "host": "a", "service": "shop",
            "title": "v2 now", "actor": "ci", "details": '{"commit":"abc"}',
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "party"}, "kind: allowed: deploy, config, reboot, firmware, other"),
        ({"host": None, "service": None}, "host: is required"),
        ({"title": 5}, "title: expected"),
        ({"actor": []}, "actor: expected"),
        ({"ts": "0000"}, None),
        ({"ts": "x"}, "ts: expected"),
    ],
)
def test_a_bad_change_is_rejected_with_the_field(change: dict[str, object], reason: str | None) -> None:
    item = {"type": "change", "host": "a", "service": "shop", "title": "x", "ts": T, **change}
    parsed = parse("generic", [delivery([item])])
    assert parsed.changes.height + len(parsed.rejects) == 1
    assert reason is None or reason in parsed.rejects[0].reason


def test_a_change_without_a_host_belongs_to_its_service() -> None:
    parsed = parse("generic", [delivery({"type": "deploy", "service": "shop"})])
    assert parsed.changes["host"].item() == "shop"
    assert parsed.changes["title"].item() == "deploy on shop"
    assert not parsed.rejects


COLLECTED = {
    "host": "web-1",
    "ts": MICROS,
    "points": [
        {"metric": "system.cpu.utilization", "value": 0.4, "unit": "1", "kind": "ratio", "labels": {"cpu": "0"}},
        {"metric": "system.uptime", "value": 7, "unit": "s", "ts": MICROS + 5},
    ],
    "entity": {"kind": "device", "site": "x", "labels": {"rack": "7"}, "depends_on": ["switch-1"]},
    "changes": [{"ts": MICROS - 5, "kind": "reboot", "title": "rebooted", "details": {"up": 3}}],
}


@pytest.mark.parametrize("wrap", [lambda item: item, lambda item: [item]])
def test_collected_objects_are_read_whole(wrap: object) -> None:
    parsed = parse("collected", [delivery(wrap(COLLECTED))])  # type: ignore[operator]
    assert rows(parsed) == [
        (0, "web-1", "system.cpu.utilization", '{"cpu":"0"}', MICROS, 0.4),
        (0, "web-1", "system.uptime", "{}", MICROS + 5, 7.0),
    ]
    assert parsed.series["unit"].to_list() == ["1", "s"]
    assert parsed.series["kind"].to_list() == ["ratio", "gauge"]
    assert parsed.entities.rows() == [("device", "web-1", "x", '{"rack":"7"}', ["switch-1"])]
    assert parsed.changes.select("kind", "host", "title", "details").rows() == [
        ("reboot", "web-1", "rebooted", '{"up":3}')
    ]
    assert not parsed.rejects


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"metric": "m"}, "value: expected"),
        ({"metric": "m", "value": "x"}, "value: expected"),
        ({"value": 1}, "metric: expected"),
        ({"metric": "m", "value": 1, "ts": 1.5}, "ts: expected microseconds"),
        ({"metric": "m", "value": 1, "ts": 2**63}, "ts: expected microseconds"),
        ({"metric": "m", "value": 1, "labels": [1]}, "labels: expected"),
        ({"metric": "m", "value": 1, "labels": {"a": [1]}}, "labels.a: expected"),
        (5, "points: expected"),
    ],
)
def test_a_bad_collected_point_is_rejected_alone_and_can_be_sent_again(bad: object, reason: str) -> None:
    good = {"metric": "m", "value": 1.0}
    parsed = parse("collected", [delivery({"host": "a", "ts": MICROS, "points": [good, good, bad, good]})])
    assert parsed.points.height == 3
    (reject,) = parsed.rejects
    assert reason in reject.reason
    assert orjson.loads(reject.content) == {"host": "a", "ts": MICROS, "points": [bad]}


def test_infinite_collected_values_are_rejected_on_every_path() -> None:
    points = ",".join(
        f'{{"metric":"m","value":{value}}}' for value in ["1.0", "1e999", "NaN", "2.0", "-Infinity", "1" * 400]
    )
    parsed = parse("collected", [delivery(f'{{"host":"a","points":[{points}]}}'.encode())])
    assert [row[-1] for row in rows(parsed)] == [1.0, 2.0]
    assert len(parsed.rejects) == 4


def test_labels_that_only_look_alike_are_different_series() -> None:
    points = [
        {"metric": "m", "value": n, "labels": {"a": label}} for n, label in enumerate(["1", "true", 1, True, "1"])
    ]
    parsed = parse("collected", [delivery({"host": "h", "points": points})])
    assert [row[3] for row in rows(parsed)] == ['{"a":"1"}', '{"a":"true"}', '{"a":"1"}', '{"a":"true"}', '{"a":"1"}']
    assert parsed.series.height == 2


def test_the_first_unit_of_a_series_stays() -> None:
    points = [{"metric": "m", "value": 1, "unit": unit} for unit in ("By", "s", None)]
    parsed = parse("collected", [delivery({"host": "h", "points": points})])
    assert parsed.series["unit"].to_list() == ["By"]


@pytest.mark.parametrize("format_name", ["telegraf", "generic", "collected"])
@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b"null", b"5", b"[" * 100_000, b'{"a":' * 100_000, b'{"points":[]}', b"\x1f\x8b", b"\xff\xfe{"],
)
def test_bodies_without_anything_are_one_reject(format_name: str, body: bytes) -> None:
    parsed = parse(format_name, [delivery(body)])
    assert parsed.points.height == parsed.changes.height == parsed.entities.height == 0
    (reject,) = parsed.rejects
    assert (reject.offset, reject.content) == (0, body)


@pytest.mark.parametrize("format_name", ["telegraf", "generic", "collected"])
def test_deeply_nested_items_are_rejected_not_raised(format_name: str) -> None:
    nested = b"[" * 900 + b"]" * 900
    body = (
        b'[{"host":"a","metric":"m","value":1,"labels":{"x":%s},"name":"m","tags":{"x":%s},"fields":{"x":%s},'
        b'"points":[{"metric":"m","value":%s}]},{"type":"deploy","host":"a","more":%s}]'
    ) % ((nested,) * 5)
    parsed = parse(format_name, [delivery(body)])
    assert parsed.rejects


@pytest.mark.parametrize("format_name", ["telegraf", "generic", "collected"])
@pytest.mark.parametrize("separator", [b",", b"\n"])
def test_a_delivery_full_of_problems_is_kept_whole(
    format_name: str, separator: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payload, "MAX_PROBLEMS", 50)
    good = (
        {"host": "a", "points": [{"metric": "m", "value": 1}]} if format_name == "collected" else {**POINT, "name": "m"}
    )
    body = separator.join([orjson.dumps({**good, "fields": {"v": 1}})] + [b'{"x":1,"fields":0}'] * 500)
    body = b"[" + body + b"]" if separator == b"," else body
    parsed = parse(format_name, [delivery(body)])
    assert parsed.points.height == 1
    (reject,) = parsed.rejects
    assert reject.content == body


def test_json_that_would_fill_the_memory_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "MAX_JSON_BYTES", 1 << 20)
    body = gzip.compress(b"[" + b"{}," * (1 << 20) + b"{}]")
    (reject,) = parse("generic", [delivery(body)]).rejects
    assert reject.reason == "JSON of more than 1 MiB"


def test_a_broken_array_over_several_lines_is_rejected_whole() -> None:
    body = b"[\n" + orjson.dumps(POINT) + b",\n" + orjson.dumps(POINT) + b"\n"
    parsed = parse("generic", [delivery(body)])
    assert parsed.points.is_empty()
    assert [reject.content for reject in parsed.rejects] == [body]


def test_an_unknown_format_rejects_everything() -> None:
    parsed = parse("xml", [delivery(b"<a/>"), delivery(b"<b/>")])
    assert [reject.content for reject in parsed.rejects] == [b"<a/>", b"<b/>"]
    assert "allowed: telegraf, generic, collected" in parsed.rejects[0].reason


def test_no_deliveries_give_empty_frames() -> None:
    for format_name in FORMATS:
        parsed = parse(format_name, [])
        assert dict(parsed.series.schema) == SERIES_SCHEMA
        assert dict(parsed.points.schema) == POINTS_SCHEMA
        assert dict(parsed.changes.schema) == CHANGES_SCHEMA
        assert dict(parsed.entities.schema) == ENTITIES_SCHEMA
        assert not parsed.rejects


def test_labels_are_canonical() -> None:
    assert labels_json({"b": "1", "a": 'é"\\'}) == '{"a":"é\\"\\\\","b":"1"}'
    assert labels_json({}) == "{}"


def _encoded(value: object) -> bytes:
    """JSON as Python's own library writes it: with NaN, Infinity and lone surrogates."""
    return json.dumps(value).encode()


NAMES = st.sampled_from(
    [
        "host",
        "hostname",
        "metric",
        "name",
        "value",
        "ts",
        "time",
        "labels",
        "tags",
        "unit",
        "kind",
        "type",
        "points",
        "entity",
        "changes",
        "title",
        "service",
        "depends_on",
        "details",
        "x",
    ]
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.sampled_from(
        ["a", "gauge", "deploy", "change", "device", "../../x", "'; drop table", "<script>", "2025-06-15T15:06:40Z"]
    ),
    st.text(st.characters(), max_size=6),
    st.just("\ud800"),
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=6)),
    max_leaves=15,
)
ITEM = st.fixed_dictionaries(
    {"host": st.one_of(st.just("a"), JSON)},
    optional={
        "metric": st.one_of(st.just("m"), JSON),
        "value": st.one_of(st.floats(), JSON),
        "ts": st.one_of(st.just(MICROS), JSON),
        "labels": st.one_of(st.just({"a": "b"}), JSON),
        "type": st.one_of(st.sampled_from(["change", "deploy"]), JSON),
        "kind": st.one_of(st.sampled_from(["gauge", "reboot"]), JSON),
        "points": st.one_of(
            st.lists(st.fixed_dictionaries({"metric": st.just("m"), "value": LEAVES}), max_size=3), JSON
        ),
        "entity": JSON,
        "changes": JSON,
    },
)


@settings(max_examples=examples(150), deadline=None)
@given(
    st.sampled_from(["generic", "collected"]),
    st.lists(
        st.one_of(
            JSON.map(_encoded),
            st.lists(ITEM, max_size=4).map(_encoded),
            st.lists(ITEM, max_size=3).map(lambda items: b"\n".join(map(_encoded, items))),
            st.tuples(
                st.lists(ITEM, min_size=1, max_size=2).map(_encoded), st.integers(0, 200), st.binary(max_size=3)
            ).map(lambda cut: cut[0][: cut[1]] + cut[2] + cut[0][cut[1] + 1 :]),
            st.binary(max_size=50),
        ),
        max_size=4,
    ),
)
def test_any_json_is_rows_or_rejects(format_name: str, bodies: list[bytes]) -> None:
    parsed = parse(format_name, [delivery(body) for body in bodies])
    seen = set(parsed.points["delivery"].to_list()) | set(parsed.changes["delivery"].to_list())
    seen |= {reject.delivery for reject in parsed.rejects}
    assert len(set(range(len(bodies))) - seen) <= parsed.entities.height
    assert parsed.points["value"].is_finite().all()
    assert parsed.series.n_unique(["host", "metric", "labels"]) == parsed.series.height
    assert parsed.points["series"].n_unique() == parsed.series.height
