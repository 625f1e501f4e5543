"""Points a second of the parsers on one core, each beside what the same bytes cost a bare library.

The work runs in a process of its own with one Polars thread, and processor time is what counts, so that a busy
neighbour does not show. References: for line protocol the same bytes split at blanks and commas and cast to numbers by
Polars, without reading keys, checking or mapping anything (and ``line-protocol-parser``, a C extension that reads
line by line, when it is installed); for JSON ``orjson.loads`` alone; for protobuf the classes of the protobuf library
(upb), decoding and then reading labels, instant and value of every point, which is what one would do without a reader
of one's own. Series are the same from batch to batch, as senders' are; "all series new" rows are of senders that were
never seen before, the first batch after a start.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

NOW = 1_767_225_600
HOSTS = 1_000
BATCH = 1_000


def line_bodies(points: int, fields: int, tail: str = "", hosts: int = HOSTS) -> list[bytes]:
    """Bodies of a thousand points each, ``fields`` to a line, four decimals, four tags."""
    lines = []
    for number in range(points // fields):
        values = ",".join(f"usage_{name}={(number * 37 + name * 11) % 1_000_003 / 1e4:.4f}" for name in range(fields))
        tags = f"cpu=cpu-total,host=web-{number % hosts},region=eu-west"
        lines.append(f"cpu,{tags} {values}{tail} {(NOW + number) * 10**9}")
    size = max(1, BATCH // fields)
    return [("\n".join(lines[start : start + size]) + "\n").encode() for start in range(0, len(lines), size)]


def json_bodies(points: int, fields: int) -> list[bytes]:
    """The same as Telegraf's JSON, as Go writes it: keys in order, no blanks."""
    metrics = json_metrics(points, fields)
    size = max(1, BATCH // fields)
    return [
        json.dumps({"metrics": metrics[start : start + size]}, separators=(",", ":")).encode()
        for start in range(0, len(metrics), size)
    ]


def json_metrics(points: int, fields: int) -> list[dict[str, object]]:
    """Metrics as Telegraf's JSON names them."""
    return [
        {
            "fields": {f"usage_{name}": (number * 37 + name * 11) % 1_000_003 / 1e4 for name in range(fields)},
            "name": "cpu",
            "tags": {"cpu": "cpu-total", "host": f"web-{number % HOSTS}", "region": "eu-west"},
            "timestamp": NOW + number,
        }
        for number in range(points // fields)
    ]


def single_json_bodies(points: int, fields: int) -> list[bytes]:
    """The same, a metric a body."""
    return [json.dumps(metric, separators=(",", ":")).encode() for metric in json_metrics(points, fields)]


def jumbled_json_bodies(points: int, fields: int) -> list[bytes]:
    """The same with keys in another order, as other programs write it."""
    metrics = [
        {name: metric[name] for name in ("name", "timestamp", "tags", "fields")}
        for metric in json_metrics(points, fields)
    ]
    size = max(1, BATCH // fields)
    return [json.dumps({"metrics": metrics[start : start + size]}).encode() for start in range(0, len(metrics), size)]


def remote_write_bodies(points: int, series: int) -> list[bytes]:
    """Write requests of a thousand series with eight labels and a sample each, packed with snappy."""
    import pyarrow as pa

    from aiops_assets.formats.remote_write import messages

    codec, bodies = pa.Codec("snappy"), []
    for start in range(0, points, BATCH):
        request = messages()["WriteRequest"]()
        for number in range(start, start + BATCH):
            which = number % series
            labels = {
                "__name__": f"http_requests_{which % 50}_total",
                "cluster": "eu-west-1",
                "code": "200",
                "env": "production",
                "handler": "/api/v1/query",
                "instance": f"web-{which // 50}:9100",
                "job": "shop",
                "method": "GET",
            }
            entry = request.timeseries.add()
            for name, value in labels.items():
                entry.labels.add(name=name, value=value)
            value = (number * 37 % 100_003) / 7 if number % 10 else 0.0
            entry.samples.add(timestamp=(NOW + start) * 1000, value=value)
        bodies.append(codec.compress(request.SerializeToString(), asbytes=True))
    return bodies


def otlp_bodies(points: int, each: int, hosts: int) -> list[bytes]:
    """Export requests of a thousand points with three attributes, ``each`` to a metric."""
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    def put(attributes: Any, values: dict[str, str]) -> None:
        for key, value in values.items():
            attributes.add(key=key).value.string_value = value

    bodies = []
    for number in range(points // BATCH):
        request = ExportMetricsServiceRequest()
        holder = request.resource_metrics.add()
        put(holder.resource.attributes, {"host.name": f"web-{number % hosts}", "service.name": "shop"})
        scope = holder.scope_metrics.add()
        for which in range(BATCH // each):
            metric = scope.metrics.add(name=f"http.server.requests.{which}", unit="{request}", description="Requests.")
            metric.sum.aggregation_temporality, metric.sum.is_monotonic = 2, True
            for place in range(each):
                point = metric.sum.data_points.add(
                    start_time_unix_nano=NOW * 10**9,
                    time_unix_nano=(NOW + number) * 10**9,
                    as_double=number * 1.5 + place,
                )
                put(
                    point.attributes,
                    {"http.request.method": "GET", "http.route": f"/{place}", "http.response.status_code": "200"},
                )
        bodies.append(request.SerializeToString())
    return bodies


def collected_bodies(points: int) -> list[bytes]:
    """Forty points a device and poll."""
    return [
        json.dumps(
            {
                "host": f"device-{number % HOSTS}",
                "ts": (NOW + number) * 10**6,
                "points": [
                    {
                        "metric": "system.network.io",
                        "value": number * 1.5 + name,
                        "unit": "By/s",
                        "kind": "rate",
                        "labels": {"device": f"eth{name // 2}", "direction": ("receive", "transmit")[name % 2]},
                    }
                    for name in range(40)
                ],
            }
        ).encode()
        for number in range(points // 40)
    ]


def generic_bodies(points: int) -> list[bytes]:
    """A thousand points a body, times as ISO 8601."""
    items = [
        {
            "host": f"web-{number % HOSTS}",
            "metric": "queue.length",
            "value": number * 0.5,
            "ts": f"2026-01-01T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}Z",
            "labels": {"queue": "orders"},
        }
        for number in range(points)
    ]
    return [json.dumps(items[start : start + BATCH]).encode() for start in range(0, points, BATCH)]


def best(work: Callable[[], object], times: int) -> float:
    """The smallest processor time in seconds of several runs."""
    found = []
    for _ in range(times):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def measure(quick: bool) -> list[dict[str, object]]:
    """All rows; call it with ``POLARS_MAX_THREADS=1``."""
    import orjson
    import polars as pl
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    from aiops_assets.formats import otlp_metrics, parse, remote_write
    from aiops_assets.formats.remote_write import messages
    from aiops_assets.formats.wire import varint
    from aiops_assets.landing.segment import Delivery

    points = 200_000 if quick else 1_000_000
    times = 3 if quick else 4
    rows: list[dict[str, object]] = []

    def bare_split(bodies: Sequence[bytes]) -> None:
        for start in range(0, len(bodies), 100):
            lines = pl.Series(bodies[start : start + 100], dtype=pl.Binary).cast(pl.String).str.split("\n").explode()
            parts = lines.str.splitn(" ", 3).struct.unnest()
            pairs = parts["field_1"].drop_nulls().str.split(",").explode().str.splitn("=", 2).struct.unnest()
            parts["field_2"].cast(pl.Int64, strict=False)
            pairs["field_1"].cast(pl.Float64, strict=False)

    def bare_loads(bodies: Sequence[bytes]) -> None:
        for body in bodies:
            orjson.loads(body)

    def by_upb_remote_write(bodies: Sequence[bytes]) -> None:
        import pyarrow as pa

        codec = pa.Codec("snappy")
        for body in bodies:
            size, _ = varint(body, 0, len(body))
            found = []
            for entry in messages()["WriteRequest"].FromString(codec.decompress(body, size, asbytes=True)).timeseries:
                labels = {label.name: label.value for label in entry.labels}
                found += [(labels, sample.timestamp, sample.value) for sample in entry.samples]

    def by_upb_otlp(bodies: Sequence[bytes]) -> None:
        for body in bodies:
            found = []
            for holder in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                resource = {entry.key: entry.value.string_value for entry in holder.resource.attributes}
                for scope in holder.scope_metrics:
                    for metric in scope.metrics:
                        name = metric.name
                        for point in metric.sum.data_points:
                            labels = {entry.key: entry.value.string_value for entry in point.attributes}
                            found.append((resource, name, labels, point.time_unix_nano, point.as_double))

    def forgotten() -> None:
        remote_write.recollections.clear()
        otlp_metrics.recollections.clear()

    def add(
        name: str,
        format_name: str,
        bodies: list[bytes],
        reference: str,
        bare: Callable[[list[bytes]], Any],
        bar: float,
        new: bool = False,
    ) -> None:
        headers = {"content-encoding": "snappy"} if format_name == "remote_write" else {}
        deliveries = [Delivery(str(n), NOW * 10**6, "bench", "", body, headers) for n, body in enumerate(bodies)]

        def work() -> None:
            if new:
                forgotten()
            parse(format_name, deliveries)

        parsed = parse(format_name, deliveries)
        if parsed.rejects:
            raise AssertionError(parsed.rejects[0])
        count = parsed.points.height
        value = count / best(work, times)
        against = count / best(lambda: bare(bodies), times)
        rows.append(
            {
                "name": f"{name}, {count:,} points",
                "value": round(value),
                "unit": "points/s/core",
                "reference": reference,
                "reference_value": round(against),
                "ratio": round(value / against, 2),
                "bar": bar,
                "ok": value >= bar,
            }
        )

    split = "bare split and cast (polars)"
    loads = "orjson.loads alone"
    add("line protocol, 1 field a line", "telegraf", line_bodies(points, 1), split, bare_split, 2.5e6)
    add("line protocol, 10 fields a line", "telegraf", line_bodies(points, 10), split, bare_split, 2.5e6)
    text = ',state="up, since \\"today\\""'
    add("line protocol, 4 fields and text", "telegraf", line_bodies(points, 4, text), split, bare_split, 1e6)
    add("line protocol, all series new", "telegraf", line_bodies(points, 10, hosts=points), split, bare_split, 3e5)
    try:
        from line_protocol_parser import parse_line
    except ImportError:
        pass
    else:

        def by_line(bodies: Sequence[bytes]) -> None:
            for body in bodies:
                for line in body.decode().splitlines():
                    parse_line(line)

        add(
            "line protocol, 10 fields a line",
            "telegraf",
            line_bodies(points, 10),
            "line-protocol-parser",
            by_line,
            2.5e6,
        )
    add("Telegraf JSON, 10 fields", "telegraf", json_bodies(points, 10), loads, bare_loads, 5e5)
    add("Telegraf JSON, 1 field", "telegraf", json_bodies(points // 4, 1), loads, bare_loads, 5e5)
    single = "Telegraf JSON, 10 fields, a metric a delivery"
    add(single, "telegraf", single_json_bodies(points // 2, 10), loads, bare_loads, 5e5)
    single = "Telegraf JSON, 1 field, a metric a delivery"
    add(single, "telegraf", single_json_bodies(points // 4, 1), loads, bare_loads, 5e5)
    jumbled = "JSON of Telegraf's shape in another order, 10 fields"
    add(jumbled, "telegraf", jumbled_json_bodies(points // 2, 10), loads, bare_loads, 5e5)
    upb = "protobuf (upb), every point read"
    same = "remote write, 20,000 series"
    add(same, "remote_write", remote_write_bodies(points // 2, 20_000), upb, by_upb_remote_write, 5e5)
    fresh = "remote write, all series new"
    add(fresh, "remote_write", remote_write_bodies(points // 10, points), upb, by_upb_remote_write, 4e4, new=True)
    for each in (10, 1):
        same = f"OTLP protobuf, {each} point{'s' if each > 1 else ''} a metric"
        add(same, "otlp_metrics", otlp_bodies(points // 2, each, 20), upb, by_upb_otlp, 5e5)
    fresh = "OTLP protobuf, all series new"
    add(fresh, "otlp_metrics", otlp_bodies(points // 10, 10, points), upb, by_upb_otlp, 4e4, new=True)
    add("collected JSON, 40 points a device", "collected", collected_bodies(points // 2), loads, bare_loads, 2e5)
    add("generic JSON", "generic", generic_bodies(points // 4), loads, bare_loads, 1e5)
    return rows


def run(quick: bool = False) -> list[dict[str, object]]:
    """Rows for ``make bench``, measured in a process with one Polars thread."""
    arguments = [sys.executable, str(Path(__file__).resolve()), "--measure", *(["--quick"] if quick else [])]
    done = subprocess.run(
        arguments, check=True, capture_output=True, timeout=600, env={**os.environ, "POLARS_MAX_THREADS": "1"}
    )
    rows: list[dict[str, object]] = json.loads(done.stdout)
    return rows


if __name__ == "__main__":
    if "--measure" in sys.argv:
        print(json.dumps(measure("--quick" in sys.argv)))
    else:
        for entry in run("--quick" in sys.argv):
            print(entry)
