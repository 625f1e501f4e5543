"""Prometheus remote write: what the library encodes comes out equal, damaged bytes become rejects, nothing is lost."""

from __future__ import annotations

import math
import struct
import tracemalloc
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops_assets.formats import parse, wire
from aiops_assets.formats.batch import Parsed, labels_json
from aiops_assets.formats.prometheus_mapping import resolve
from aiops_assets.formats.remote_write import messages
from aiops_assets.landing.segment import Delivery
from tests.examples import examples

NOW = 1_760_000_000_123_456
T = 1_750_000_000_000
STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]


def snappy(body: bytes) -> bytes:
    return bytes(pa.Codec("snappy").compress(body, asbytes=True))


def delivery(body: bytes, packed: bool = True) -> Delivery:
    headers = {"content-encoding": "snappy"} if packed else {}
    return Delivery("id", NOW, "prometheus", "application/x-protobuf", snappy(body) if packed else body, headers)


def request(*series: tuple[dict[str, str], list[tuple[int, float]]]) -> Any:
    message = messages()["WriteRequest"]()
    for labels, samples in series:
        entry = message.timeseries.add()
        for name, value in labels.items():
            entry.labels.add(name=name, value=value)
        for millis, value in samples:
            entry.samples.add(timestamp=millis, value=value)
    return message


def rows(parsed: Parsed) -> list[tuple[int, str, str, str, int, float]]:
    series = parsed.series.rows(named=True)
    return [
        (of, series[number]["host"], series[number]["metric"], series[number]["labels"], ts, value)
        for of, number, ts, value in parsed.points.iter_rows()
    ]


def read_by_the_library(body: bytes, of: int = 0) -> list[tuple[int, str, str, str, int, float]]:
    found = []
    for entry in messages()["WriteRequest"].FromString(body).timeseries:
        series = resolve({label.name: label.value for label in entry.labels})
        for sample in entry.samples:
            if math.isfinite(sample.value):
                found.append((of, series.host, series.metric, series.labels, sample.timestamp * 1000, sample.value))
    return found


def web(name: str = "http_requests_total", **labels: str) -> dict[str, str]:
    return {"__name__": name, "instance": "web-1:9100", "job": "node", **labels}


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp", "Cn"]), min_size=1, max_size=20)
MILLIS = st.one_of(
    st.integers(T - 10**9, T + 10**9),
    st.integers(-(10**10), 10**10),
    st.sampled_from([0, 2**35, 2**42, 2**42 - 1, 2**43]),
)
VALUES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.just(0.0), st.just(-0.0), st.integers(0, 1000).map(float)
)
LABELS = st.builds(
    lambda name, more: {"__name__": name, **more}, TEXT, st.dictionaries(TEXT, TEXT | st.just(""), max_size=5)
)
SERIES = st.tuples(LABELS, st.lists(st.tuples(MILLIS, VALUES), max_size=80))


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(st.lists(SERIES, max_size=6), min_size=1, max_size=4))
def test_what_the_library_encodes_comes_out_equal(requests: list[list[tuple[dict[str, str], list[Any]]]]) -> None:
    bodies = [request(*series).SerializeToString() for series in requests]
    parsed = parse("remote_write", [delivery(body) for body in bodies])
    expected = [row for of, body in enumerate(bodies) for row in read_by_the_library(body, of)]
    assert rows(parsed) == expected
    assert all(reject.reason == "empty" for reject in parsed.rejects)


def raw_sample(value: float, millis: int) -> bytes:
    message = messages()["Sample"](value=value, timestamp=millis).SerializeToString()
    return wire.framed(b"\x12", bytes(message))


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.tuples(VALUES, MILLIS), min_size=1, max_size=5), st.binary(max_size=40), TEXT)
def test_bytes_that_look_like_samples_are_read_as_the_library_reads_them(
    samples: list[tuple[float, int]], noise: bytes, name: str
) -> None:
    # A label whose bytes end like a sample, and an unknown field of any bytes between labels and samples.
    tail = raw_sample(*samples[0])
    label = wire.framed(b"\x0a", wire.framed(b"\x0a", b"__name__") + wire.framed(b"\x12", name.encode()))
    unknown = wire.framed(b"\x7a", noise + tail)
    series = label + unknown + b"".join(raw_sample(*sample) for sample in samples) + unknown[:0]
    body = wire.framed(b"\x0a", series) + wire.framed(b"\x0a", label + unknown)
    parsed = parse("remote_write", [delivery(body)])
    assert rows(parsed) == read_by_the_library(body)
    assert not parsed.rejects


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(SERIES, min_size=1, max_size=4), st.data())
def test_mutated_bytes_never_raise_and_are_never_forgotten(series: list[Any], data: st.DataObject) -> None:
    body = bytearray(request(*series).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(body) - 1)))
        kind = data.draw(st.sampled_from(["flip", "cut", "insert", "end"]))
        if kind == "flip" and body:
            body[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del body[at : at + data.draw(st.integers(1, 9))]
        elif kind == "insert":
            body[at:at] = data.draw(st.binary(max_size=9))
        else:
            del body[at:]
    parsed = parse("remote_write", [delivery(bytes(body))])
    assert parsed.points.height or parsed.rejects or body
    try:
        message = messages()["WriteRequest"].FromString(bytes(body))
        valid = all(resolve({label.name: label.value for label in entry.labels}) for entry in message.timeseries)
        plain = valid and not any(len({label.name for label in e.labels}) < len(e.labels) for e in message.timeseries)
    except Exception:  # the library and the rules for names refuse what they like: only what they take is compared
        plain = False
    if plain and not parsed.rejects:
        assert rows(parsed) == read_by_the_library(bytes(body))
    if not plain:
        assert parsed.rejects


@settings(max_examples=examples(100), deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["", "snappy", "gzip", "zstd", "br", "deflate", "nonsense"]))
def test_any_bytes_give_rows_or_a_reject(body: bytes, encoding: str) -> None:
    headers = {"content-encoding": encoding} if encoding else {}
    parsed = parse("remote_write", [Delivery("id", NOW, "p", "", body, headers)])
    assert parsed.points.height or parsed.rejects or messages()["WriteRequest"].FromString(body) is not None


def test_series_are_recognised_in_the_next_batch() -> None:
    bodies = [request((web(code=str(code)), [(T, 1.0)])).SerializeToString() for code in range(5)]
    first = parse("remote_write", [delivery(body) for body in bodies])
    second = parse("remote_write", [delivery(body) for body in reversed(bodies)])
    assert [row[1:] for row in rows(second)] == [row[1:] for row in reversed(rows(first))]
    assert second.series.height == 5


def test_a_series_has_its_host_and_all_its_labels() -> None:
    parsed = parse("remote_write", [delivery(request((web(code="200"), [(T, 5.0)])).SerializeToString())])
    (row,) = parsed.series.rows(named=True)
    labels = {"instance": "web-1:9100", "job": "node", "code": "200"}
    assert row == {
        "host": "web-1", "metric": "http_requests_total", "unit": "", "labels": labels_json(labels), "kind": "counter",
    }  # fmt: skip
    assert parsed.points.row(0) == (0, 0, T * 1000, 5.0)


@pytest.mark.parametrize(
    ("labels", "host"),
    [
        ({"instance": "[::1]:9100", "host": "b"}, "::1"),
        ({"instance": "web-1"}, "web-1"),
        ({"host": "b", "job": "c"}, "b"),
        ({"hostname": "b", "job": "c"}, "b"),
        ({"job": "c"}, "c"),
        ({"instance": "", "job": "c"}, "c"),
        ({}, "prometheus"),
    ],
)
def test_the_host_comes_from_the_labels(labels: dict[str, str], host: str) -> None:
    assert resolve({"__name__": "m", **labels}).host == host


@pytest.mark.parametrize(
    ("name", "metric", "unit", "kind", "extra"),
    [
        ("node_cpu_seconds_total", "system.cpu.time", "s", "counter", {}),
        ("node_load5", "system.cpu.load_average.5m", "1", "gauge", {}),
        ("node_memory_MemTotal_bytes", "system.memory.limit", "By", "gauge", {}),
        ("node_memory_MemFree_bytes", "system.memory.usage", "By", "gauge", {"state": "free"}),
        ("node_filesystem_size_bytes", "system.filesystem.limit", "By", "gauge", {}),
        ("node_network_receive_bytes_total", "system.network.io.total", "By", "counter", {"direction": "receive"}),
        ("up", "up", "1", "gauge", {}),
        ("process_open_fds", "process_open_fds", "", "gauge", {}),
        ("go_gc_duration_seconds", "go_gc_duration_seconds", "s", "gauge", {}),
    ],
)
def test_names_of_exporters_become_canonical(
    name: str, metric: str, unit: str, kind: str, extra: dict[str, str]
) -> None:
    found = resolve(web(name))
    assert (found.metric, found.unit, found.kind) == (metric, unit, kind)
    assert orjson.loads(found.labels) == {"instance": "web-1:9100", "job": "node", **extra}


def test_a_label_that_a_canonical_name_needs_is_never_overwritten() -> None:
    found = resolve(web("node_network_receive_bytes_total", direction="north"))
    assert found.metric == "node_network_receive_bytes_total"


def test_metadata_tells_kind_and_unit_of_its_own_request() -> None:
    message = request((web("jobs"), [(T, 1.0)]))
    plain = message.SerializeToString()
    message.metadata.add(type=1, metric_family_name="jobs", unit="seconds")
    parsed = parse("remote_write", [delivery(message.SerializeToString())])
    assert parsed.series.row(0)[2:] == ("s", labels_json({"instance": "web-1:9100", "job": "node"}), "counter")
    assert parse("remote_write", [delivery(plain)]).series["kind"].to_list() == ["gauge"]


def test_metadata_alone_is_no_reject() -> None:
    message = messages()["WriteRequest"]()
    message.metadata.add(type=1, metric_family_name="jobs", help="all of them")
    assert not parse("remote_write", [delivery(message.SerializeToString())]).rejects


def test_staleness_markers_are_no_rows_and_no_rejects() -> None:
    body = request((web(), [(T, STALE)]), (web(code="1"), [(T, 1.0), (T + 1, STALE)])).SerializeToString()
    parsed = parse("remote_write", [delivery(body), delivery(request((web(), [(T, STALE)])).SerializeToString())])
    assert [row[-1] for row in rows(parsed)] == [1.0]
    assert not parsed.rejects


def test_other_values_that_are_no_numbers_are_rejected_alone_and_can_be_read_again() -> None:
    body = request((web(), [(T, math.nan), (T + 1, 2.0)]), (web(code="1"), [(T, math.inf)])).SerializeToString()
    parsed = parse("remote_write", [delivery(body)])
    assert [row[-1] for row in rows(parsed)] == [2.0]
    (reject,) = parsed.rejects
    assert reject.reason == "2 values are NaN or infinite, which are not stored"
    again = messages()["WriteRequest"].FromString(reject.content)
    assert [len(entry.samples) for entry in again.timeseries] == [1, 1]


def test_native_histograms_are_rejected_by_name_and_floats_beside_them_kept() -> None:
    message = request((web("latency"), [(T, 1.0)]), (web("up"), [(T, 1.0)]))
    message.timeseries[0].histograms.add()
    parsed = parse("remote_write", [delivery(message.SerializeToString())])
    assert [row[2] for row in rows(parsed)] == ["latency", "up"]
    (reject,) = parsed.rejects
    assert "native histogram 'latency'" in reject.reason


def test_exemplars_are_left_out() -> None:
    message = request((web(), [(T, 1.0)]))
    message.timeseries[0].exemplars.add()
    parsed = parse("remote_write", [delivery(message.SerializeToString())])
    assert len(rows(parsed)) == 1
    assert not parsed.rejects


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({"instance": "a"}, "without the label __name__"),
        ({}, "without labels"),
        (web(bad="a\x00b"), "control character U+0000"),
        (web(bad="x" * 1025), "longer than 1024"),
    ],
)
def test_a_bad_series_is_rejected_alone(labels: dict[str, str], reason: str) -> None:
    body = request((web(), [(T, 1.0)]), (labels, [(T, 2.0)]), (web(), [(T, 3.0)])).SerializeToString()
    parsed = parse("remote_write", [delivery(body)])
    assert [row[-1] for row in rows(parsed)] == [1.0, 3.0]
    (reject,) = parsed.rejects
    assert reason in reject.reason
    (again,) = messages()["WriteRequest"].FromString(reject.content).timeseries
    assert again.samples[0].value == 2.0


def test_a_cut_request_keeps_what_is_whole_and_rejects_the_rest_with_its_offset() -> None:
    first, second = request((web(), [(T, 1.0)])).SerializeToString(), request((web(), [(T, 2.0)])).SerializeToString()
    parsed = parse("remote_write", [delivery(first + second[:-3])])
    assert [row[-1] for row in rows(parsed)] == [1.0]
    (reject,) = parsed.rejects
    assert (reject.offset, reject.content) == (len(first), second[:-3])
    assert f"from byte {len(first)}" in reject.reason


@pytest.mark.parametrize("length", [2**31, 2**63, 2**64 - 1])
def test_lengths_are_not_trusted(length: int) -> None:
    head = bytearray()
    while length >= 0x80:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    body = b"\x0a" + bytes(head) + bytes([length]) + b"xyz"
    (reject,) = parse("remote_write", [delivery(body)]).rejects
    assert reject.offset == 0


def test_a_block_that_claims_more_than_it_may_hold_is_rejected_before_it_is_unpacked() -> None:
    bomb = snappy(bytes(256 * 1024 * 1024 + 1))
    tracemalloc.start()
    parsed = parse("remote_write", [Delivery("id", NOW, "p", "", bomb, {"content-encoding": "snappy"})])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "more than" in parsed.rejects[0].reason
    assert peak < 64 * 1024 * 1024


def test_a_million_empty_series_stay_within_bounds() -> None:
    body = b"\x0a\x00" * 1_000_000
    parsed = parse("remote_write", [delivery(body)])
    assert len(parsed.rejects) == 1


def test_what_comes_back_from_quarantine_is_read_without_its_header() -> None:
    body = request((web(), [(T, 1.0)])).SerializeToString()
    for sent in (body, snappy(body)):
        assert len(rows(parse("remote_write", [Delivery("id", NOW, "p", "", sent, {})]))) == 1


def test_version_two_is_refused_with_what_to_do() -> None:
    body = wire.framed(b"\x22", b"") + wire.framed(b"\x2a", b"\x0a\x00")
    (reject,) = parse("remote_write", [delivery(body)]).rejects
    assert "protobuf_message: prometheus.WriteRequest" in reject.reason


def test_sites_become_entities() -> None:
    body = request((web(site="berlin"), [(T, 1.0)])).SerializeToString()
    parsed = parse("remote_write", [delivery(body)])
    assert parsed.entities.select("kind", "name", "site").rows() == [("host", "web-1", "berlin")]
