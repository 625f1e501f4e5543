"""Answers of range queries: every sample once, every series its own, and whatever is sent, nothing is raised."""

from __future__ import annotations

import gzip
import json
import math
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops_assets.formats import parse
from aiops_assets.formats.batch import POINTS_SCHEMA, SERIES_SCHEMA, Parsed
from aiops_assets.formats.payload import UnreadableBody
from aiops_assets.formats.prometheus_range import _Reader, host_of, kind_of, unit_of, without_port
from aiops_assets.landing.segment import Delivery
from tests.examples import examples


def delivery(body: bytes) -> Delivery:
    return Delivery("d", 0, "prometheus", "application/json", body, {"format": "prometheus_range"})


def read(*bodies: bytes) -> Parsed:
    return parse("prometheus_range", [delivery(body) for body in bodies])


def answer(result: list[Any], **more: Any) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": "matrix", "result": result}, **more}


def compact(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def rows(parsed: Parsed) -> list[tuple[Any, ...]]:
    """(delivery, host, metric, labels, ts, value) in the order of the points."""
    return [
        (*point[:1], *parsed.series.row(point[1])[:2], parsed.series.row(point[1])[3], *point[2:])
        for point in parsed.points.iter_rows()
    ]


LOAD = {"__name__": "node_load1", "instance": "web-1:9100", "job": "node"}


def test_an_answer_becomes_points_with_host_metric_labels_and_microseconds() -> None:
    parsed = read(compact(answer([{"metric": LOAD, "values": [[1700000000, "0.5"], [1700000060.123, "+0.25e1"]]}])))
    assert parsed.series.schema == SERIES_SCHEMA
    assert parsed.points.schema == POINTS_SCHEMA
    assert rows(parsed) == [
        (0, "web-1", "node_load1", '{"instance":"web-1:9100","job":"node"}', 1_700_000_000_000_000, 0.5),
        (0, "web-1", "node_load1", '{"instance":"web-1:9100","job":"node"}', 1_700_000_060_123_000, 2.5),
    ]
    assert parsed.series["kind"].to_list() == ["gauge"]
    assert not parsed.rejects


def test_what_the_envelope_says_goes_before_what_the_name_says() -> None:
    envelope = {
        "prometheus_range": 1,
        "host_label": "node",
        "metadata": {"requests": {"type": "counter", "unit": "bytes"}, "jobs_total": {"type": "gauge", "unit": ""}},
        "answer": answer(
            [
                {"metric": {"__name__": "requests", "node": "k-1", "instance": "x:1"}, "values": [[1, "1"]]},
                {"metric": {"__name__": "jobs_total", "instance": "x:1"}, "values": [[1, "1"]]},
            ]
        ),
    }
    for body in (compact(envelope), json.dumps(envelope, indent=1).encode()):
        assert read(body).series.select("host", "kind", "unit").rows() == [("k-1", "counter", "By"), ("x", "gauge", "")]


@pytest.mark.parametrize(
    ("metric", "kind", "unit"),
    [
        ("node_cpu_seconds_total", "counter", "s"),
        ("http_request_duration_seconds_bucket", "counter", ""),
        ("http_request_duration_seconds_sum", "counter", "s"),
        ("http_request_duration_seconds_count", "counter", ""),
        ("node_filesystem_avail_bytes", "gauge", "By"),
        ("node_hwmon_temp_celsius", "gauge", "Cel"),
        ("disk_used_ratio", "gauge", "1"),
        ("bytes", "gauge", ""),
        ("up", "gauge", ""),
    ],
)
def test_kind_and_unit_follow_from_the_name(metric: str, kind: str, unit: str) -> None:
    assert (kind_of(metric), unit_of(metric)) == (kind, unit)


def test_parts_of_a_histogram_take_their_kind_from_its_metadata() -> None:
    metadata = {"wait_seconds": {"type": "histogram", "unit": ""}, "items": {"type": "gauge", "unit": ""}}
    assert kind_of("wait_seconds_bucket", metadata) == "counter"
    assert kind_of("items_count", metadata) == "gauge"
    assert kind_of("other_total", {"other_total": {"type": "unknown"}}) == "counter"


@pytest.mark.parametrize(
    ("instance", "host"),
    [
        ("web-1:9100", "web-1"),
        ("web-1", "web-1"),
        ("10.0.0.1:80", "10.0.0.1"),
        ("[::1]:9100", "::1"),
        ("[::1]", "::1"),
        ("fe80::1", "fe80::1"),
        ("https://example.com/x", "https://example.com/x"),
        (":9100", ":9100"),
        ("web-1:port", "web-1:port"),
    ],
)
def test_the_port_is_cut_off_an_instance_and_nothing_else(instance: str, host: str) -> None:
    assert without_port(instance) == host


def test_the_host_is_the_most_telling_label_there_is() -> None:
    assert host_of({"instance": "a:1", "host": "b", "job": "c"}) == "b"
    assert host_of({"instance": "a:1", "node": "n"}, "node") == "n"
    assert host_of({"instance": "a:1"}, "node") == "a"
    assert host_of({"job": "c"}) == "c"
    assert host_of({"zone": "z"}) == "prometheus"


NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029"), max_size=12).filter(
    lambda text: not any(0xFDD0 <= ord(char) <= 0xFDEF or ord(char) & 0xFFFE == 0xFFFE for char in text)
)
METRICS = st.builds(
    lambda name, labels: {"__name__": name, **labels},
    NAMES,
    st.dictionaries(st.sampled_from(["instance", "job", "host", "a", 'values":[', "metric"]), TEXTS, max_size=4),
)
NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(10**18), 10**18).map(str),
    st.sampled_from(["NaN", "+Inf", "-Inf", "0", "-0", "1e+06", "4.9e-324"]),
)
SAMPLES = st.lists(
    st.tuples(st.integers(0, 4_102_444_800_000).map(lambda ms: ms // 1000 if ms % 1000 == 0 else ms / 1000), NUMBERS),
    min_size=1,
    max_size=6,
)
RESULTS = st.lists(st.tuples(METRICS, SAMPLES), min_size=1, max_size=5)


@given(st.lists(RESULTS, min_size=1, max_size=3), st.sampled_from(["compact", "spaced", "gzip", "envelope"]))
@settings(deadline=None)
def test_every_finite_sample_arrives_once_in_order_and_no_two_series_become_one(answers: list[Any], shape: str) -> None:
    bodies = []
    for result in answers:
        document = answer([{"metric": metric, "values": [list(pair) for pair in pairs]} for metric, pairs in result])
        if shape == "envelope":
            document = {"prometheus_range": 1, "metadata": {}, "answer": document}
        body = json.dumps(document).encode() if shape == "spaced" else compact(document)
        bodies.append(gzip.compress(body) if shape == "gzip" else body)
    parsed = read(*bodies)
    expected, odd = [], 0
    for index, result in enumerate(answers):
        for metric, pairs in result:
            labels = {name: value for name, value in metric.items() if name != "__name__" and value}
            for at, text in pairs:
                if math.isfinite(float(text)):
                    ts = round(at * 1000) * 1000
                    key = orjson.dumps(labels, option=orjson.OPT_SORT_KEYS).decode()
                    expected.append((index, host_of(labels), metric["__name__"], key, ts, float(text)))
                else:
                    odd += 1
    assert rows(parsed) == expected
    assert parsed.series.select("host", "metric", "labels").is_unique().all()
    assert sum(int(reject.reason.split()[0]) for reject in parsed.rejects) == odd
    for reject in parsed.rejects:
        assert "NaN or infinite" in reject.reason


@given(RESULTS, st.data())
@settings(max_examples=examples(150), deadline=None)
def test_torn_and_changed_bytes_end_as_points_or_rejects_never_as_errors(
    result: list[Any], data: st.DataObject
) -> None:
    body = bytearray(compact(answer([{"metric": metric, "values": pairs} for metric, pairs in result])))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body) - 1))
        change = data.draw(st.sampled_from(["cut", "byte", "drop", "twice", "insert"]))
        if change == "cut" and place:
            del body[place:]
        elif change == "byte":
            body[place] = data.draw(st.integers(0, 255))
        elif change == "drop":
            del body[place : place + data.draw(st.integers(1, 9))]
        elif change == "twice":
            body[place:place] = body[place : place + 12]
        else:
            body[place:place] = data.draw(st.sampled_from([b"[", b"]", b'"', b",", b"1", b"],[", b'"],["', b"e", b"-"]))
        if not body:
            body = bytearray(b"x")
    parsed = read(bytes(body))
    assert parsed.points.height or parsed.rejects
    assert parsed.points["value"].is_finite().all()
    assert parsed.points["series"].is_in(range(parsed.series.height)).all()


@given(RESULTS, st.integers(0, 200), st.sampled_from([b"0", b"[", b"]", b'"', b",", b".", b"-", b"],[", b"null", b" "]))
@settings(deadline=None)
def test_both_ways_of_reading_agree(result: list[Any], place: int, inserted: bytes) -> None:
    body = compact(answer([{"metric": metric, "values": pairs} for metric, pairs in result]))
    start = body.find(b'"values":[') + place
    body = body[:start] + inserted + body[start:]
    fast, slow = _Reader(), _Reader()
    if not fast._by_columns(0, body):
        assert not fast.productive
        assert fast.rejects.count(0) == 0
        return
    try:
        slow._one_by_one(0, body)
    except UnreadableBody:
        # A number with a zero or a sign before it is no JSON, although there is no doubt what it means.
        assert inserted in {b"0", b"-"}
        return
    assert [frame.rows() for frame in fast.finish()] == [frame.rows() for frame in slow.finish()]
    assert fast.rejects.count(0) == slow.rejects.count(0)


def test_values_that_are_not_finite_are_rejected_together_and_can_be_read_again() -> None:
    values = [[60 * n, "NaN" if n % 2 else "1"] for n in range(10)]
    body = compact(
        answer([{"metric": LOAD, "values": values}, {"metric": {**LOAD, "a": "b"}, "values": [[1, "+Inf"]]}])
    )
    parsed = read(body)
    assert parsed.points.height == 5
    (reject,) = parsed.rejects
    assert reject.reason == "6 values are NaN or infinite, which are not stored"
    again = orjson.loads(reject.content)["data"]["result"]
    assert [len(entry["values"]) for entry in again] == [5, 1]
    assert read(reject.content).rejects[0].reason == reject.reason


def test_native_histograms_are_refused_by_name_and_the_rest_is_taken() -> None:
    histogram = {"metric": {**LOAD, "__name__": "latency"}, "histograms": [[1, {"count": "3", "sum": "2"}]]}
    parsed = read(compact(answer([{"metric": LOAD, "values": [[1, "2"]]}, histogram])))
    assert parsed.points.height == 1
    (reject,) = parsed.rejects
    assert reject.reason == "native histogram 'latency': only float samples are stored"
    assert orjson.loads(reject.content)["data"]["result"] == [histogram]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (answer([]), "the answer holds no series"),
        ({"status": "error", "errorType": "timeout", "error": "query timed out"}, "timeout: query timed out"),
        ({"status": "success", "data": {"resultType": "vector", "result": []}}, "allowed: 'matrix'"),
        ({"status": "success"}, "expected"),
        ([1], "expected"),
        ({"prometheus_range": 2, "answer": answer([])}, "prometheus_range: allowed: 1"),
        (answer([{"metric": {"a": "b"}, "values": [[1, "2"]]}]), "without __name__"),
        (answer([{"metric": LOAD, "values": []}]), "values: expected"),
        (answer([{"metric": LOAD, "values": [[1, 2]]}]), "a number in a string"),
        (answer([{"metric": LOAD, "values": [[1e14, "2"]]}]), "seconds since the epoch"),
        (answer([{"metric": LOAD, "values": [["1", "2"]]}]), "seconds since the epoch"),
        (answer([{"metric": {"__name__": "a\nb"}, "values": [[1, "2"]]}]), "control character"),
        (answer([{"metric": {"__name__": "a", "b": 1}, "values": [[1, "2"]]}]), "label values are strings"),
    ],
)
def test_what_is_no_matrix_of_samples_is_rejected_whole_with_the_reason(document: object, reason: str) -> None:
    body = compact(document)
    parsed = read(body)
    assert parsed.points.is_empty()
    (reject,) = parsed.rejects
    assert reason in reject.reason
    assert reject.content == body


def test_one_bad_sample_and_one_bad_series_do_not_take_the_others_with_them() -> None:
    document = answer(
        [
            {"metric": LOAD, "values": [[1, "1"], [2, "x"], [3, "3"]]},
            {"metric": {"job": "nameless"}, "values": [[1, "1"]]},
            "nothing",
        ]
    )
    parsed = read(compact(document))
    assert parsed.points["value"].to_list() == [1.0, 3.0]
    assert len(parsed.rejects) == 3


@pytest.mark.parametrize("odd", [rb'[1,"\ud800"]', b'[1e400,"1"]', b'[123456789012345678901234567890,"1"]', b"[1,NaN]"])
def test_what_strict_json_lacks_rejects_its_sample_alone(odd: bytes) -> None:
    head = b'{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"x"},"values": ['
    parsed = read(head + odd + b',[2,"3"]]}]}}')
    assert parsed.points.select("ts", "value").rows() == [(2_000_000, 3.0)]
    assert len(parsed.rejects) == 1


def test_points_of_several_deliveries_share_their_series() -> None:
    bodies = [compact(answer([{"metric": LOAD, "values": [[n, str(n)]]}])) for n in range(3)]
    parsed = read(*bodies)
    assert parsed.series.height == 1
    assert parsed.points.select("delivery", "series", "value").rows() == [(0, 0, 0.0), (1, 0, 1.0), (2, 0, 2.0)]
    assert parsed.points["ts"].dtype == pl.Int64
