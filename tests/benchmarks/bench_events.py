"""Points and events a second of the parsers of collectd, Netdata, Sentry and Alertmanager, each beside orjson alone.

The work runs in a process of its own with one Polars thread, and processor time is what counts. References: what
``orjson.loads`` takes for the same bytes, and for lines of PUTVAL splitting them and making floats of their values.
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
HOSTS = 100
#: values a body; collectd's and Netdata's senders fill buffers of some tens of kilobytes
BATCH = 200


def collectd_bodies(lists: int) -> list[bytes]:
    """What a hundred hosts send: interfaces (two values), memory, df and cpu (one value) as rates."""
    kinds = (("memory", "memory", 1), ("df", "percent_bytes", 1), ("cpu", "percent", 1), ("interface", "if_octets", 2))
    found = []
    for number in range(lists):
        plugin, kind, width = kinds[number % 4]
        found.append(
            {
                "values": [number % 1_000_003 / 7 for _ in range(width)],
                "dstypes": ["derive" if width == 2 else "gauge"] * width,
                "dsnames": ["rx", "tx"] if width == 2 else ["value"],
                "time": NOW + number / 64,
                "interval": 10.0,
                "host": f"web-{number // 40 % HOSTS}",
                "plugin": plugin,
                "plugin_instance": str(number % 10) if plugin != "memory" else "",
                "type": kind,
                "type_instance": "used" if width == 1 else "",
            }
        )
    return [json.dumps(found[start : start + BATCH]).encode() for start in range(0, lists, BATCH)]


def putval_bodies(lists: int) -> list[bytes]:
    """The same hosts with one value a line."""
    lines = [
        f"PUTVAL web-{number // 40 % HOSTS}/df-{number % 40}/df_complex-used interval=10 {NOW + number}:{number * 1.5}"
        for number in range(lists)
    ]
    return ["\n".join(lines[start : start + BATCH]).encode() for start in range(0, lists, BATCH)]


def netdata_bodies(points: int) -> list[bytes]:
    """Averages of a hundred hosts."""
    found = [
        {
            "prefix": "netdata",
            "hostname": f"web-{number // 40 % HOSTS}",
            "chart_id": f"disk.sd{number % 40}",
            "chart_name": f"disk.sd{number % 40}",
            "chart_family": "sda",
            "chart_context": "disk.io",
            "chart_type": "area",
            "units": "KiB/s",
            "id": "reads",
            "name": "reads",
            "value": number * 0.5,
            "timestamp": NOW + number // 64,
        }
        for number in range(points)
    ]
    return [json.dumps(found[start : start + BATCH]).encode() for start in range(0, points, BATCH)]


def envelope_bodies(count: int) -> list[bytes]:
    """One error with thirty frames an envelope."""
    frames = [
        {
            "function": f"f{n}",
            "module": "shop.pay",
            "filename": "pay.py",
            "lineno": n,
            "in_app": True,
            "vars": {"a": "b"},
        }
        for n in range(30)
    ]
    bodies = []
    for number in range(count):
        event = {
            "event_id": f"{number:032x}",
            "timestamp": NOW + number,
            "level": "error",
            "server_name": f"web-{number % HOSTS}",
            "release": "shop@1.2",
            "tags": {"region": "eu"},
            "exception": {"values": [{"type": "ValueError", "value": "bad", "stacktrace": {"frames": frames}}]},
            "contexts": {"trace": {"trace_id": f"{number + 1:032x}", "span_id": f"{number + 1:016x}"}},
        }
        payload = json.dumps(event).encode()
        head = json.dumps({"event_id": event["event_id"]}).encode()
        bodies.append(head + b"\n" + json.dumps({"type": "event", "length": len(payload)}).encode() + b"\n" + payload)
    return bodies


def notification_bodies(count: int) -> list[bytes]:
    """Ten alerts a notification."""
    return [
        json.dumps(
            {
                "version": "4",
                "status": "firing",
                "alerts": [
                    {
                        "status": "firing",
                        "labels": {"alertname": "Down", "instance": f"web-{n}:9100", "severity": "page", "job": "node"},
                        "annotations": {"summary": f"web-{n} is down"},
                        "startsAt": "2026-01-01T00:00:00.123456789Z",
                        "endsAt": "0001-01-01T00:00:00Z",
                        "fingerprint": f"{number * 10 + n:016x}",
                    }
                    for n in range(10)
                ],
            }
        ).encode()
        for number in range(count // 10)
    ]


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

    from aiops_assets.formats import parse
    from aiops_assets.landing.segment import Delivery

    count = 40_000 if quick else 200_000
    rows: list[dict[str, object]] = []

    def loads(bodies: Sequence[bytes]) -> None:
        for body in bodies:
            for document in body.split(b"\n"):
                orjson.loads(document)

    def split(bodies: Sequence[bytes]) -> None:
        for body in bodies:
            for line in body.split(b"\n"):
                _, _, _, values = line.split()
                [float(text) for text in values.split(b":")]

    def add(
        name: str,
        format_name: str,
        bodies: list[bytes],
        unit: str,
        reference: str,
        bare: Callable[..., Any],
        bar: float,
    ) -> None:
        deliveries = [Delivery(str(n), NOW * 10**6, "bench", "", body, {}) for n, body in enumerate(bodies)]
        parsed = parse(format_name, deliveries)
        if parsed.rejects:
            raise AssertionError(parsed.rejects[0])
        found = {"points": parsed.points, "errors": parsed.errors, "alerts": parsed.external}[unit].height
        value = found / best(lambda: parse(format_name, deliveries), 3)
        against = found / best(lambda: bare(bodies), 3)
        rows.append(
            {
                "name": f"{name}, {found:,} {unit}",
                "value": round(value),
                "unit": f"{unit}/s/core",
                "reference": reference,
                "reference_value": round(against),
                "ratio": round(value / against, 2),
                "bar": bar,
                "ok": value >= bar,
            }
        )

    alone = "orjson.loads alone"
    add("collectd JSON", "collectd", collectd_bodies(count), "points", alone, loads, 2e5)
    add("collectd PUTVAL", "collectd", putval_bodies(count), "points", "bare split and float", split, 2e5)
    add("netdata JSON", "netdata", netdata_bodies(count), "points", alone, loads, 2e5)
    add("Sentry envelopes, 30 frames", "sentry_envelope", envelope_bodies(count // 40), "errors", alone, loads, 2e3)
    add(
        "Alertmanager, 10 a notification", "alertmanager", notification_bodies(count // 10), "alerts", alone, loads, 1e4
    )
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
