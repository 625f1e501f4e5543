"""OTLP: what the library encodes comes out equal in protobuf and JSON, damage becomes rejects, nothing is lost."""

from __future__ import annotations

import gzip
import math
import os
import tracemalloc
from pathlib import Path
from typing import Any

import orjson
import pytest
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest as LogsRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest as MetricsRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest as TracesRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import NumberDataPoint

from aiops_assets.formats import parse, wire
from aiops_assets.formats.batch import Parsed, labels_json
from aiops_assets.formats.otlp import plain_attributes, sender_of
from aiops_assets.formats.otlp_metrics import distinguishing, exponential_quantiles
from aiops_assets.landing.segment import Delivery
from tests.examples import examples

CAPTURES = Path(os.environ.get("AIOPS_REAL_DATA", "../shared/data")) / "captures"
NOW = 1_760_000_000_123_456
T = 1_750_000_000 * 10**9
PROTOBUF, JSON = "application/x-protobuf", "application/json"


def delivery(body: bytes, content_type: str = PROTOBUF) -> Delivery:
    return Delivery("id", NOW, "otlp", content_type, body, {})


def put(attributes: Any, values: dict[str, Any]) -> None:
    for key, value in values.items():
        entry = attributes.add(key=key)
        if isinstance(value, bool):
            entry.value.bool_value = value
        elif isinstance(value, int):
            entry.value.int_value = value
        elif isinstance(value, float):
            entry.value.double_value = value
        else:
            entry.value.string_value = value


def metrics(resource: dict[str, Any] | None = None) -> tuple[MetricsRequest, Any]:
    """A request and the scope that takes metrics."""
    request = MetricsRequest()
    holder = request.resource_metrics.add()
    put(holder.resource.attributes, {"host.name": "web-1", "service.name": "shop"} if resource is None else resource)
    return request, holder.scope_metrics.add()


def gauge(scope: Any, name: str = "queue.length", *points: float, **attributes: Any) -> Any:
    metric = scope.metrics.add(name=name, unit="1")
    for number, value in enumerate(points):
        point = metric.gauge.data_points.add(time_unix_nano=T + number * 10**9, as_double=value)
        put(point.attributes, attributes)
    return metric


def as_json(request: Any) -> bytes:
    """OTLP's JSON of a request: enumerations as integers, identifiers in hex."""
    found = json_format.MessageToDict(request, use_integers_for_enums=True)

    def with_hex(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: __import__("base64").b64decode(inner).hex()
                if key in {"traceId", "spanId", "parentSpanId"}
                else with_hex(inner)
                for key, inner in value.items()
            }
        return [with_hex(inner) for inner in value] if isinstance(value, list) else value

    return orjson.dumps(with_hex(found))


Rows = list[tuple[int, str, str, str, str, int, float]]


def rows(parsed: Parsed) -> Rows:
    series = parsed.series.rows(named=True)
    found = []
    for of, number, ts, value in parsed.points.iter_rows():
        row = series[number]
        found.append((of, row["host"], row["metric"], row["labels"], row["kind"], ts, value))
    return found


def numbers_by_the_library(request: MetricsRequest, of: int = 0) -> Rows:
    """What gauges and sums of a request become, read by the library alone."""
    found: Rows = []
    for holder in request.resource_metrics:
        sender = sender_of(plain_attributes(holder.resource.attributes))
        for scope in holder.scope_metrics:
            for metric in scope.metrics:
                data = metric.WhichOneof("data")
                if data not in {"gauge", "sum"}:
                    continue
                kind = "gauge"
                if data == "sum" and metric.sum.aggregation_temporality == 1:
                    kind = "rate"
                elif data == "sum" and metric.sum.is_monotonic:
                    kind = "counter"
                for point in getattr(metric, data).data_points:
                    value = point.WhichOneof("value")
                    number = float(getattr(point, value)) if value else math.nan
                    if point.flags & 1 or not math.isfinite(number):
                        continue
                    attributes = {key: one for key, one in plain_attributes(point.attributes).items() if one != ""}
                    labels = distinguishing(sender.attributes) | {
                        key: one if isinstance(one, str) else orjson.dumps(one).decode()
                        for key, one in attributes.items()
                    }
                    ts = point.time_unix_nano // 1000 if point.time_unix_nano else NOW
                    found.append((of, sender.host, metric.name, labels_json(labels), kind, ts, number))
    return found


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp", "Cn"]), min_size=1, max_size=12)
SCALARS = st.one_of(TEXT, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, width=32))
ATTRIBUTES = st.dictionaries(TEXT, SCALARS, max_size=4)
NANOS = st.one_of(st.integers(T, T + 10**15), st.just(0), st.integers(1, 2**64 - 1))


@st.composite
def requests(draw: st.DrawFn) -> MetricsRequest:
    request = MetricsRequest()
    for _ in range(draw(st.integers(0, 2))):
        holder = request.resource_metrics.add()
        put(holder.resource.attributes, draw(ATTRIBUTES))
        if draw(st.booleans()):
            put(holder.resource.attributes, {"host.name": draw(TEXT)})
        for _ in range(draw(st.integers(0, 2))):
            scope = holder.scope_metrics.add(schema_url="x")
            scope.scope.name = draw(TEXT)
            for _ in range(draw(st.integers(0, 3))):
                metric = scope.metrics.add(name="m" + draw(TEXT), description=draw(st.just("") | TEXT) * 20)
                data = metric.gauge if draw(st.booleans()) else metric.sum
                data.SetInParent()
                if data is metric.sum or isinstance(data, type(metric.sum)):
                    data.aggregation_temporality = draw(st.integers(0, 2))
                    data.is_monotonic = draw(st.booleans())
                for _ in range(draw(st.integers(0, 5))):
                    point = data.data_points.add(time_unix_nano=draw(NANOS))
                    if draw(st.booleans()):
                        point.start_time_unix_nano = draw(NANOS)
                    if draw(st.booleans()):
                        point.as_int = draw(st.integers(-(2**63), 2**63 - 1))
                    else:
                        point.as_double = draw(st.floats(allow_nan=False, allow_infinity=False))
                    put(point.attributes, draw(ATTRIBUTES))
                    if draw(st.integers(0, 5)) == 0:
                        point.flags = draw(st.integers(0, 3))
                    if draw(st.integers(0, 5)) == 0:
                        point.exemplars.add(as_double=1.0)
    return request


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(requests(), min_size=1, max_size=3))
def test_numbers_that_the_library_encodes_come_out_equal(found: list[MetricsRequest]) -> None:
    parsed = parse("otlp_metrics", [delivery(request.SerializeToString()) for request in found])
    expected = [row for of, request in enumerate(found) for row in numbers_by_the_library(request, of)]
    told: dict[Any, set[Any]] = {}
    for row in expected:
        told.setdefault(row[1:4], set()).add(row[4])

    def without_disputed_kinds(listed: list[Any]) -> list[Any]:
        """One series that is told to be of two kinds is of either."""
        return [(*row[:4], "either", *row[5:]) if len(told.get(row[1:4], ())) > 1 else row for row in listed]

    assert without_disputed_kinds(rows(parsed)) == without_disputed_kinds(expected)
    assert {reject.reason for reject in parsed.rejects} <= {"empty"}


@settings(max_examples=examples(100), deadline=None)
@given(requests())
def test_json_gives_the_same_as_protobuf(request: MetricsRequest) -> None:
    parsed = parse("otlp_metrics", [delivery(as_json(request), JSON)])
    expected = numbers_by_the_library(request)
    found = rows(parsed)
    assert [row[:3] + row[4:] for row in found] == [row[:3] + row[4:] for row in expected]
    # the library writes floats of attributes in its own spelling
    assert [set(orjson.loads(row[3])) for row in found] == [set(orjson.loads(row[3])) for row in expected]


@settings(max_examples=examples(250), deadline=None)
@given(requests(), st.data())
def test_mutated_bytes_never_raise_and_are_never_forgotten(request: MetricsRequest, data: st.DataObject) -> None:
    body = mutated(request.SerializeToString(), data)
    parsed = parse("otlp_metrics", [delivery(body)])
    assert parsed.points.height or parsed.rejects or parsed.entities.height
    try:
        message = MetricsRequest.FromString(body)
        expected = numbers_by_the_library(message)
    except Exception:  # what the library refuses, or what no name or label can hold, is not compared
        return
    others = {"histogram", "exponential_histogram", "summary"}
    scopes = [scope for holder in message.resource_metrics for scope in holder.scope_metrics]
    if not parsed.rejects and not any(metric.WhichOneof("data") in others for one in scopes for metric in one.metrics):
        assert rows(parsed) == expected


def mutated(body: bytes, data: st.DataObject) -> bytes:
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(0, len(changed) - 1)))
        kind = data.draw(st.sampled_from(["flip", "cut", "insert", "end"]))
        if kind == "flip" and changed:
            changed[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del changed[at : at + data.draw(st.integers(1, 9))]
        elif kind == "insert":
            changed[at:at] = data.draw(st.binary(max_size=9))
        else:
            del changed[at:]
    return bytes(changed)


@settings(max_examples=examples(100), deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["otlp_metrics", "otlp_logs", "otlp_traces"]))
def test_any_bytes_give_rows_or_a_reject(body: bytes, format_name: str) -> None:
    for content_type in (PROTOBUF, JSON, ""):
        parsed = parse(format_name, [delivery(body, content_type)])
        assert parsed.rejects or parsed.points.height or parsed.logs.height or parsed.spans.height


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=examples(200), deadline=None)
@given(st.data())
def test_json_of_any_values_in_any_place_never_raises(data: st.DataObject) -> None:
    format_name, sample = data.draw(
        st.sampled_from([("otlp_metrics", SAMPLE_METRICS), ("otlp_logs", SAMPLE_LOGS), ("otlp_traces", SAMPLE_TRACES)])
    )
    document = orjson.loads(sample)
    places = list(walk(document))
    holder, key = data.draw(st.sampled_from(places))
    holder[key] = data.draw(JSON_VALUES)
    import json

    parsed = parse(format_name, [delivery(json.dumps(document).encode("utf-8", "surrogatepass"), JSON)])
    assert parsed.rejects or parsed.points.height or parsed.logs.height or parsed.spans.height or "[]" in str(document)


def walk(value: Any) -> Any:
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield value, key
            yield from walk(inner)


def test_points_of_one_series_and_many_requests_are_one_series() -> None:
    request, scope = metrics()
    gauge(scope, "queue.length", 1.0, 2.0, queue="a")
    body = request.SerializeToString()
    parsed = parse("otlp_metrics", [delivery(body), delivery(gzip.compress(body)), delivery(as_json(request), JSON)])
    labels = labels_json({"service.name": "shop", "queue": "a"})
    assert parsed.series.rows() == [("web-1", "queue.length", "1", labels, "gauge")]
    assert [row[-1] for row in rows(parsed)] == [1.0, 2.0] * 3


@pytest.mark.parametrize(
    ("resource", "host"),
    [
        ({"host.name": "h", "service.instance.id": "i"}, "h"),
        ({"service.instance.id": "i-7", "k8s.pod.name": "p"}, "i-7"),
        ({"service.instance.id": "627cc493-f310-47de-96bd-71410b7dec09", "k8s.pod.name": "p"}, "p"),
        ({"service.instance.id": "627cc493-f310-47de-96bd-71410b7dec09", "service.name": "s"}, "s"),
        ({"service.instance.id": "627cc493-f310-47de-96bd-71410b7dec09"}, "627cc493-f310-47de-96bd-71410b7dec09"),
        ({"service.name": "s"}, "s"),
        ({}, "unknown"),
    ],
)
def test_the_host_comes_from_the_resource(resource: dict[str, str], host: str) -> None:
    assert sender_of(resource).host == host


def test_resources_become_entities_and_labels() -> None:
    request, scope = metrics(
        {"host.name": "web-1", "service.name": "shop", "service.version": "2", "os.type": "linux", "k8s.pod.name": "p"}
    )
    gauge(scope, "m", 1.0)
    parsed = parse("otlp_metrics", [delivery(request.SerializeToString())])
    assert orjson.loads(parsed.series["labels"][0]) == {"service.name": "shop", "k8s.pod.name": "p"}
    assert parsed.entities.select("kind", "name", "labels", "depends_on").rows() == [
        ("service", "shop", '{"service.version":"2"}', ["web-1"]),
        ("host", "web-1", '{"os.type":"linux"}', []),
    ]


@pytest.mark.parametrize(
    ("temporality", "monotonic", "kind"),
    [(2, True, "counter"), (2, False, "gauge"), (1, True, "rate"), (1, False, "rate"), (0, True, "counter")],
)
def test_sums_have_the_kind_of_their_temporality(temporality: int, monotonic: bool, kind: str) -> None:
    request, scope = metrics()
    metric = scope.metrics.add(name="requests")
    metric.sum.aggregation_temporality, metric.sum.is_monotonic = temporality, monotonic
    metric.sum.data_points.add(time_unix_nano=T, as_int=7)
    for body, content_type in ((request.SerializeToString(), PROTOBUF), (as_json(request), JSON)):
        assert rows(parse("otlp_metrics", [delivery(body, content_type)]))[0][4:] == (kind, T // 1000, 7.0)


def test_totals_of_what_is_a_rate_here_are_kept_as_totals() -> None:
    request, scope = metrics()
    metric = scope.metrics.add(name="system.network.io", unit="By")
    metric.sum.aggregation_temporality, metric.sum.is_monotonic = 2, True
    metric.sum.data_points.add(time_unix_nano=T, as_int=7)
    gauge(scope, "system.cpu.utilization", 0.5)
    parsed = parse("otlp_metrics", [delivery(request.SerializeToString())])
    assert parsed.series.select("metric", "unit", "kind").rows() == [
        ("system.network.io.total", "By", "counter"),
        ("system.cpu.utilization", "1", "ratio"),
    ]


def both(request: Any, format_name: str = "otlp_metrics") -> Parsed:
    """The frames of a request, the same from protobuf and JSON."""
    one = parse(format_name, [delivery(request.SerializeToString())])
    other = parse(format_name, [delivery(as_json(request), JSON)])
    assert rows(one) == rows(other)
    assert one.logs.equals(other.logs)
    assert one.spans.equals(other.spans)
    assert one.entities.equals(other.entities)
    assert [reject.reason for reject in one.rejects] == [reject.reason for reject in other.rejects]
    return one


def test_histograms_become_counts_sums_and_cumulative_buckets() -> None:
    request, scope = metrics({"host.name": "a"})
    metric = scope.metrics.add(name="latency", unit="s")
    metric.histogram.aggregation_temporality = 2
    metric.histogram.data_points.add(
        time_unix_nano=T, count=6, sum=1.5, bucket_counts=[1, 2, 3], explicit_bounds=[0.5, 10], min=0.1, max=0.9
    )
    found = [(row[2], row[3], row[4], row[6]) for row in rows(both(request))]
    assert found == [
        ("latency.count", "{}", "counter", 6.0),
        ("latency.sum", "{}", "counter", 1.5),
        ("latency.min", "{}", "gauge", 0.1),
        ("latency.max", "{}", "gauge", 0.9),
        ("latency.bucket", '{"le":"0.5"}', "counter", 1.0),
        ("latency.bucket", '{"le":"10"}', "counter", 3.0),
        ("latency.bucket", '{"le":"+Inf"}', "counter", 6.0),
    ]


def test_a_histogram_whose_bounds_do_not_fit_is_rejected_alone() -> None:
    request, scope = metrics()
    metric = scope.metrics.add(name="latency")
    for counts in ([1, 2], [1, 2, 3]):
        metric.histogram.data_points.add(time_unix_nano=T, count=3, bucket_counts=counts, explicit_bounds=[1.0])
    parsed = both(request)
    assert [row[2] for row in rows(parsed)] == ["latency.count", "latency.bucket", "latency.bucket"]
    assert "3 bucketCounts and 1 explicitBounds" in parsed.rejects[0].reason


@settings(max_examples=examples(100), deadline=None)
@given(
    st.lists(st.floats(1e-3, 1e6) | st.floats(-1e6, -1e-3) | st.just(0.0), min_size=1, max_size=50), st.integers(0, 6)
)
def test_quantiles_of_exponential_histograms_are_within_a_bucket_of_the_truth(values: list[float], scale: int) -> None:
    width = 2.0**-scale

    def buckets(sizes: list[float]) -> tuple[int, list[int]]:
        places = [math.ceil(math.log2(size) / width) - 1 for size in sizes]
        if not places:
            return 0, []
        counts = [0] * (max(places) - min(places) + 1)
        for place in places:
            counts[place - min(places)] += 1
        return min(places), counts

    quantiles = (0.0, 0.25, 0.5, 0.9, 1.0)
    found = exponential_quantiles(
        scale,
        values.count(0.0),
        buckets([v for v in values if v > 0]),
        buckets([-v for v in values if v < 0]),
        quantiles,
    )
    ordered = sorted(values)
    for quantile, value in zip(quantiles[1:], found[1:], strict=True):
        truth = ordered[max(0, math.ceil(quantile * len(ordered)) - 1)]
        assert value is not None
        assert value == pytest.approx(truth, rel=2.0**width - 1 + 1e-6)


def test_exponential_histograms_and_summaries_become_counts_sums_and_quantiles() -> None:
    request, scope = metrics({"host.name": "a"})
    metric = scope.metrics.add(name="size", unit="By")
    point = metric.exponential_histogram.data_points.add(time_unix_nano=T, count=4, sum=20.0, scale=0, min=4.5, max=8)
    metric.exponential_histogram.aggregation_temporality = 1
    point.positive.offset = 2
    point.positive.bucket_counts.extend([4])
    summary = scope.metrics.add(name="wait", unit="s").summary.data_points.add(time_unix_nano=T, count=2, sum=3.0)
    summary.quantile_values.add(quantile=0.5, value=1.25)
    summary.quantile_values.add(quantile=0.99, value=2.0)
    found = [(row[2], row[3], row[4], row[6]) for row in rows(both(request))]
    assert found[:4] == [
        ("size.count", "{}", "rate", 4.0), ("size.sum", "{}", "rate", 20.0),
        ("size.min", "{}", "gauge", 4.5), ("size.max", "{}", "gauge", 8.0),
    ]  # fmt: skip
    assert found[4] == ("size.quantile", '{"quantile":"0.5"}', "gauge", pytest.approx(2**2.5))
    assert found[8:] == [
        ("wait.count", "{}", "counter", 2.0), ("wait.sum", "{}", "counter", 3.0),
        ("wait.quantile", '{"quantile":"0.5"}', "gauge", 1.25), ("wait.quantile", '{"quantile":"0.99"}', "gauge", 2.0),
    ]  # fmt: skip


def test_points_without_a_recorded_value_are_no_rows_and_no_rejects() -> None:
    request, scope = metrics()
    metric = scope.metrics.add(name="m")
    metric.gauge.data_points.add(time_unix_nano=T, as_double=1.0, flags=1)
    parsed = both(request)
    assert not rows(parsed)
    assert not parsed.rejects


def test_values_that_are_no_numbers_are_rejected_alone_and_can_be_read_again() -> None:
    request, scope = metrics()
    gauge(scope, "m", 1.0, math.nan, math.inf, 2.0)
    parsed = parse("otlp_metrics", [delivery(request.SerializeToString())])
    assert [row[-1] for row in rows(parsed)] == [1.0, 2.0]
    (reject,) = parsed.rejects
    assert reject.reason == "NaN and infinite values are not stored (2 rejects joined)"
    again = MetricsRequest.FromString(reject.content)
    assert [scope.metrics[0].name for holder in again.resource_metrics for scope in holder.scope_metrics] == ["m"] * 2


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [({"k": "a\x00b"}, "control character U+0000"), ({"k": "x" * 1025}, "longer than 1024")],
)
def test_a_bad_point_is_rejected_alone(attributes: dict[str, str], reason: str) -> None:
    request, scope = metrics()
    gauge(scope, "good", 1.0)
    gauge(scope, "bad", 2.0, **attributes)
    gauge(scope, "good", 3.0)
    parsed = both(request)
    assert [row[-1] for row in rows(parsed)] == [1.0, 3.0]
    (reject,) = parsed.rejects
    assert reason in reject.reason
    assert reject.reason.startswith("bad: ")


def test_a_metric_that_is_not_utf8_is_rejected_alone() -> None:
    request, scope = metrics()
    gauge(scope, "good", 1.0)
    gauge(scope, "abcd", 2.0)
    body = request.SerializeToString().replace(b"abcd", b"ab\xff\xfe")
    with pytest.raises(DecodeError):
        MetricsRequest.FromString(body)
    parsed = parse("otlp_metrics", [delivery(body)])
    assert [row[2] for row in rows(parsed)] == ["good"]
    assert parsed.rejects[0].offset == body.index(b"\x0a\x04ab\xff\xfe")


def test_a_cut_request_keeps_what_is_whole_and_rejects_the_rest_with_its_offset() -> None:
    request, scope = metrics()
    gauge(scope, "m", 1.0)
    body = request.SerializeToString()
    parsed = parse("otlp_metrics", [delivery(body + body[:-4])])
    assert [row[-1] for row in rows(parsed)] == [1.0]
    (reject,) = parsed.rejects
    assert (reject.offset, reject.content) == (len(body), body[:-4])


def test_a_field_that_comes_again_after_the_attributes_counts() -> None:
    request, scope = metrics()
    gauge(scope, "m", 1.0, k="v")
    point = scope.metrics[0].gauge.data_points[0].SerializeToString()
    twice = point + NumberDataPoint(as_double=9.0).SerializeToString()
    body = request.SerializeToString()
    for inner, longer in nested(body, point, twice):
        body = body.replace(inner, longer)
    assert rows(parse("otlp_metrics", [delivery(body)])) == numbers_by_the_library(MetricsRequest.FromString(body))


def nested(body: bytes, point: bytes, twice: bytes) -> list[tuple[bytes, bytes]]:
    """The replacement that puts ``twice`` in the place of ``point``, lengths of all messages around it included."""
    request = MetricsRequest.FromString(body)
    (holder,) = request.resource_metrics
    (scope,) = holder.scope_metrics
    header = b"\x0a\x01m\x1a\x011"
    metric = wire.framed(b"\x12", header + wire.framed(b"\x2a", wire.framed(b"\x0a", twice)))
    resource = wire.framed(b"\x0a", holder.resource.SerializeToString())
    assert scope.metrics[0].SerializeToString() == header + wire.framed(b"\x2a", wire.framed(b"\x0a", point))
    return [(body, wire.framed(b"\x0a", resource + wire.framed(b"\x12", metric)))]


def log_request() -> LogsRequest:
    request = LogsRequest()
    holder = request.resource_logs.add()
    put(holder.resource.attributes, {"host.name": "web-1", "service.name": "shop", "process.pid": 7})
    scope = holder.scope_logs.add()
    scope.scope.name = "shop.orders"
    record = scope.log_records.add(
        time_unix_nano=T, observed_time_unix_nano=T + 5, severity_number=17, severity_text="ERROR",
        trace_id=bytes(range(16)), span_id=bytes(range(8)), event_name="order.failed",
    )  # fmt: skip
    record.body.string_value = "payment refused\nby the bank"
    put(record.attributes, {"order.id": 42, "retry": True})
    other = scope.log_records.add(observed_time_unix_nano=T, severity_text="warn")
    put(other.body.kvlist_value.values, {"a": 1})
    scope.log_records.add()
    return request


def test_log_records_become_rows() -> None:
    parsed = both(log_request(), "otlp_logs")
    first, second, third = parsed.logs.rows(named=True)
    attributes = orjson.loads(first.pop("attributes"))
    assert first == {
        "delivery": 0, "ts": T // 1000, "event_id": None, "host": "web-1", "app": "shop", "pid": 7,
        "severity_number": 17, "body": "payment refused\nby the bank",
        "trace_id": "000102030405060708090a0b0c0d0e0f", "span_id": "0001020304050607",
    }  # fmt: skip
    assert attributes["order.id"] == 42
    assert (attributes["severity_text"], attributes["event_name"]) == ("ERROR", "order.failed")
    assert attributes["resource"]["service.name"] == "shop"
    assert (second["ts"], second["severity_number"], second["body"]) == (T // 1000, 13, '{"a":1}')
    assert (third["ts"], third["severity_number"], third["body"]) == (None, None, "")
    assert not parsed.rejects
    assert parsed.entities["name"].to_list() == ["shop", "web-1"]


def trace_request() -> TracesRequest:
    request = TracesRequest()
    holder = request.resource_spans.add()
    put(holder.resource.attributes, {"host.name": "web-1", "service.name": "shop"})
    spans = holder.scope_spans.add().spans
    span = spans.add(
        trace_id=bytes(range(16)), span_id=bytes(range(8)), parent_span_id=bytes(range(1, 9)), name="GET /",
        kind=2, start_time_unix_nano=T, end_time_unix_nano=T + 250_000_000,
    )  # fmt: skip
    span.status.code, span.status.message = 2, "boom"
    put(span.attributes, {"http.request.method": "GET"})
    put(span.events.add(time_unix_nano=T, name="exception").attributes, {"exception.type": "ValueError"})
    span.links.add(trace_id=bytes(range(16)), span_id=bytes(range(8)))
    spans.add(trace_id=bytes(range(16)), span_id=bytes(range(1, 9)), name="unfinished", start_time_unix_nano=T)
    return request


def test_spans_become_rows() -> None:
    parsed = both(trace_request(), "otlp_traces")
    first, second = parsed.spans.rows(named=True)
    attributes = orjson.loads(first.pop("attributes"))
    assert first == {
        "delivery": 0, "ts": T // 1000, "trace_id": "000102030405060708090a0b0c0d0e0f", "span_id": "0001020304050607",
        "parent_span_id": "0102030405060708", "duration": 0.25, "name": "GET /", "kind": "server", "service": "shop",
        "host": "web-1", "status": "error", "status_message": "boom",
    }  # fmt: skip
    assert attributes["events"][0]["attributes"] == {"exception.type": "ValueError"}
    assert attributes["links"][0]["span_id"] == "0001020304050607"
    assert (second["duration"], second["status"], second["kind"]) == (0.0, "unset", "internal")


def test_a_span_without_identifiers_is_rejected_alone() -> None:
    request = trace_request()
    request.resource_spans[0].scope_spans[0].spans.add(name="nobody")
    request.resource_spans[0].scope_spans[0].spans.add(name="short", trace_id=b"abc", span_id=b"d")
    parsed = parse("otlp_traces", [delivery(request.SerializeToString())])
    assert parsed.spans.height == 2
    assert ["are required" in reject.reason or "expected 16 bytes" in reject.reason for reject in parsed.rejects] == [
        True,
        True,
    ]
    again = TracesRequest.FromString(parsed.rejects[0].content)
    assert again.resource_spans[0].scope_spans[0].spans[0].name == "nobody"


@pytest.mark.parametrize("format_name", ["otlp_logs", "otlp_traces"])
def test_a_record_that_is_not_utf8_is_rejected_alone(format_name: str) -> None:
    request = log_request() if format_name == "otlp_logs" else trace_request()
    word = b"refused" if format_name == "otlp_logs" else b"unfinished"
    body = request.SerializeToString().replace(word, b"\xff" * len(word))
    parsed = parse(format_name, [delivery(body)])
    whole = parse(format_name, [delivery(request.SerializeToString())])
    assert parsed.logs.height + parsed.spans.height == whole.logs.height + whole.spans.height - 1
    assert len(parsed.rejects) == 1


@settings(max_examples=examples(100), deadline=None)
@given(st.sampled_from(["otlp_logs", "otlp_traces"]), st.data())
def test_mutated_logs_and_traces_never_raise_and_are_never_forgotten(format_name: str, data: st.DataObject) -> None:
    request = log_request() if format_name == "otlp_logs" else trace_request()
    parsed = parse(format_name, [delivery(mutated(request.SerializeToString(), data))])
    assert parsed.logs.height or parsed.spans.height or parsed.rejects


def test_json_names_of_enumerations_and_numbers_for_integers_are_read() -> None:
    document = orjson.loads(SAMPLE_LOGS)
    record = document["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
    record |= {"severityNumber": "SEVERITY_NUMBER_WARN2", "timeUnixNano": T}
    parsed = parse("otlp_logs", [delivery(orjson.dumps(document), JSON)])
    assert parsed.logs.select("ts", "severity_number").row(0) == (T // 1000, 14)


def test_the_first_byte_tells_json_where_the_content_type_does_not() -> None:
    for content_type in ("", "text/plain", JSON, "application/json; charset=utf-8"):
        assert parse("otlp_logs", [delivery(SAMPLE_LOGS, content_type)]).logs.height


@pytest.mark.parametrize("name", ["otlp-http-1.http", "otlp-http-2.http"])
def test_captured_requests_of_the_python_sdk_are_read(name: str) -> None:
    path = CAPTURES / name
    if not path.exists():
        pytest.skip(f"no captured requests in {CAPTURES}")
    head, _, body = path.read_bytes().partition(b"\r\n\r\n")
    format_name = "otlp_metrics" if b"/v1/metrics" in head else "otlp_traces"
    parsed = parse(format_name, [delivery(body)])
    assert not parsed.rejects
    assert parsed.points.height if format_name == "otlp_metrics" else parsed.spans.height


def test_a_million_empty_metrics_stay_within_bounds() -> None:
    body = wire.framed(b"\x0a", wire.framed(b"\x12", b"\x12\x00" * 300_000))
    parsed = parse("otlp_metrics", [delivery(body)])
    assert len(parsed.rejects) == 1


@pytest.mark.parametrize(
    ("format_name", "content"),
    [
        ("otlp_metrics", wire.framed(b"\x12", b"\x0a\x01m" + wire.framed(b"\x2a", b"\x0a\x00" * 8_000_000))),
        ("otlp_metrics", wire.framed(b"\x12", b"\x0a\x01m" + wire.framed(b"\x4a", b"\x0a\x00" * 8_000_000))),
        ("otlp_logs", b"\x12\x00" * 8_000_000),
        ("otlp_traces", b"\x12\x00" * 8_000_000),
    ],
)
def test_millions_of_empty_records_stay_within_bounds(
    format_name: str, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiops_assets.formats.otlp.MAX_RECORDS", 5_000)
    body = wire.framed(b"\x0a", wire.framed(b"\x12", content))
    tracemalloc.start()
    try:
        parsed = parse(format_name, [delivery(body)])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert parsed.rejects
    assert peak < 256 * 1024 * 1024


@settings(max_examples=examples(50), deadline=None)
@given(st.sampled_from(["otlp_logs", "otlp_traces"]), st.integers(0, 300))
def test_records_read_alone_are_the_same(format_name: str, size: int) -> None:
    request = log_request() if format_name == "otlp_logs" else trace_request()
    body = request.SerializeToString()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aiops_assets.formats.otlp.MAX_WHOLE_BYTES", size)
        alone = parse(format_name, [delivery(body)])
    whole = parse(format_name, [delivery(body)])
    assert alone.logs.equals(whole.logs)
    assert alone.spans.equals(whole.spans)
    assert not alone.rejects


SAMPLE_METRICS, SAMPLE_LOGS, SAMPLE_TRACES = b"", as_json(log_request()), as_json(trace_request())
_request, _scope = metrics()
gauge(_scope, "queue.length", 1.0, 2.0, queue="a")
_histogram = _scope.metrics.add(name="latency", unit="s").histogram
_histogram.data_points.add(time_unix_nano=T, count=1, sum=1.0, bucket_counts=[1, 0], explicit_bounds=[1.0])
SAMPLE_METRICS = as_json(_request)
