"""One or a few payloads of every format as their senders write them, and ways to damage them.

What belongs here: seeds for fuzzing. What does not: what they mean, which the tests of each format say.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import cramjam

AT = 1_760_000_000


@dataclass(frozen=True, slots=True)
class Seed:
    """A body and the request headers that its endpoint keeps."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _varint(number: int) -> bytes:
    out = bytearray()
    while True:
        number, low = number >> 7, number & 127
        out.append(low | (128 if number else 0))
        if not number:
            return bytes(out)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _write_request() -> bytes:
    import struct

    labels = b"".join(
        _field(1, _field(1, name) + _field(2, value))
        for name, value in ((b"__name__", b"up"), (b"instance", b"web-1:9100"), (b"job", b"node"))
    )
    samples = b"".join(
        _field(2, b"\x09" + struct.pack("<d", float(n)) + b"\x10" + _varint((AT + n) * 1000)) for n in range(3)
    )
    return bytes(cramjam.snappy.compress_raw(_field(1, labels + samples)))


_RESOURCE = {"attributes": [{"key": "host.name", "value": {"stringValue": "web-1"}}]}
_NANOS = str(AT * 10**9)
_ALERT = {
    "status": "firing", "labels": {"alertname": "Down", "instance": "web-1:9100", "severity": "critical"},
    "annotations": {"summary": "web-1 is down"}, "startsAt": "2026-03-02T10:00:00Z", "endsAt": "0001-01-01T00:00:00Z",
    "generatorURL": "http://p/graph", "fingerprint": "abc",
}  # fmt: skip
_SENTRY_EVENT = {
    "event_id": "9ec79c33ec9942ab8353589fcb2e04dc", "timestamp": AT, "platform": "python", "level": "error",
    "server_name": "web-1", "release": "shop@1", "environment": "production", "transaction": "/cart",
    "exception": {"values": [{"type": "KeyError", "value": "'x'", "stacktrace": {"frames": [
        {"function": "cart", "filename": "shop.py", "lineno": 3, "in_app": True}]}}]},
    "tags": {"a": "b"}, "user": {"email": "eva@example.com"},
}  # fmt: skip

SEEDS: Mapping[str, tuple[Seed, ...]] = {
    "telegraf": (
        Seed(b'cpu,host=web-1,cpu=cpu0 usage_idle=90.5,usage_user=3i,ok=t,what="a \\"b\\"" 1760000000000000000\n'),
        Seed(_json({"metrics": [{"name": "mem", "tags": {"host": "web-1"}, "fields": {"used": 5}, "timestamp": AT}]})),
    ),
    "generic": (
        Seed(_json([{"host": "web-1", "metric": "queue", "value": 4, "ts": AT}, {"type": "deploy", "host": "web-1"}])),
    ),
    "collected": (
        Seed(_json([{"host": "web-1", "ts": AT * 10**6, "points": [{"metric": "load", "value": 1.0, "unit": "1"}]}])),
    ),
    "prometheus_range": (
        Seed(_json({"status": "success", "data": {"resultType": "matrix", "result": [
            {"metric": {"__name__": "up", "instance": "web-1:9100"}, "values": [[AT, "1"], [AT + 60, "0"]]}]}})),
    ),
    "remote_write": (Seed(_write_request(), {"content-encoding": "snappy"}, "application/x-protobuf"),),
    "otlp_metrics": (
        Seed(_json({"resourceMetrics": [{"resource": _RESOURCE, "scopeMetrics": [{"metrics": [
            {"name": "queue", "unit": "1", "gauge": {"dataPoints": [{"timeUnixNano": _NANOS, "asDouble": 4.5}]}},
            {"name": "n", "sum": {"isMonotonic": True, "aggregationTemporality": 2,
                                  "dataPoints": [{"timeUnixNano": _NANOS, "asInt": "7"}]}}]}]}]})),
        Seed(_field(1, _field(1, _field(1, _field(1, b"host.name") + _field(2, _field(1, b"web-1"))))
             + _field(2, _field(2, _field(1, b"queue") + _field(5, _field(1, b"\x19"
             + (AT * 10**9).to_bytes(8, "little") + b"\x21\0\0\0\0\0\0\x12\x40"))))), {}, "application/x-protobuf"),
    ),
    "otlp_logs": (
        Seed(_json({"resourceLogs": [{"resource": _RESOURCE, "scopeLogs": [{"logRecords": [
            {"timeUnixNano": _NANOS, "severityNumber": 17, "body": {"stringValue": "it failed"},
             "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174"}]}]}]})),
    ),
    "otlp_traces": (
        Seed(_json({"resourceSpans": [{"resource": _RESOURCE, "scopeSpans": [{"spans": [
            {"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "GET /", "kind": 2,
             "startTimeUnixNano": _NANOS, "endTimeUnixNano": str(AT * 10**9 + 5), "status": {"code": 2}}]}]}]})),
    ),
    "collectd": (
        Seed(_json([{"values": [1.5], "dstypes": ["gauge"], "dsnames": ["value"], "time": AT, "interval": 10,
                     "host": "web-1", "plugin": "memory", "plugin_instance": "", "type": "memory",
                     "type_instance": "used"}])),
        Seed(b'PUTVAL "web-1/load/load" interval=10 1760000000:0.1:0.2:0.3\n', {}, "text/plain"),
    ),
    "netdata": (
        Seed(_json([{"prefix": "netdata", "hostname": "web-1", "chart_id": "system.cpu", "chart_name": "system.cpu",
                     "chart_family": "cpu", "chart_context": "system.cpu", "units": "percentage", "id": "user",
                     "name": "user", "value": 3.5, "timestamp": AT}])),
    ),
    "alertmanager": (
        Seed(_json({"version": "4", "groupKey": "g", "truncatedAlerts": 0, "status": "firing", "receiver": "r",
                    "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://am",
                    "alerts": [_ALERT]})),
    ),
    "grafana": (
        Seed(_json({"receiver": "r", "status": "firing", "orgId": 1, "alerts": [{**_ALERT, "values": {"A": 3},
                    "dashboardURL": "http://g/d/1"}], "title": "t", "state": "alerting"})),
    ),
    "datadog": (
        Seed(_json({"id": "1", "alert_id": "7", "alert_transition": "Triggered", "hostname": "web-1", "title": "high",
                    "body": "b", "date": AT * 1000, "tags": "env:prod,service:shop", "priority": "P2"})),
    ),
    "cloudevents": (
        Seed(_json({"specversion": "1.0", "id": "1", "source": "/shop", "type": "com.example.order", "data": {"a": 1},
                    "time": "2026-03-02T10:00:00Z"}), {}, "application/cloudevents+json"),
        Seed(_json({"a": 1}), {"ce-id": "2", "ce-source": "/shop", "ce-type": "x", "ce-specversion": "1.0"}),
    ),
    "redfish_event": (
        Seed(_json({"@odata.type": "#Event.v1_3_0.Event", "Id": "1", "Name": "e", "Context": "bmc-1", "Events": [
            {"EventType": "Alert", "EventId": "1", "Severity": "Critical", "Message": "fan failed",
             "MessageId": "Fan.1.0.Failed", "OriginOfCondition": {"@odata.id": "/redfish/v1/Chassis/1"},
             "EventTimestamp": "2026-03-02T10:00:00Z"}]})),
    ),
    "redfish_log": (
        Seed(_json({"host": "web-1", "log": "SEL", "path": "/redfish/v1/x", "entries": [
            {"Id": "1", "Created": "2026-03-02T10:00:00Z", "Severity": "Critical", "Message": "m"}]})),
    ),
    "sentry": (
        Seed(_json({"action": "created", "data": {"issue": {"id": "1", "title": "KeyError", "project": {"slug": "shop"},
                    "level": "error", "firstSeen": "2026-03-02T10:00:00Z"}}, "installation": {"uuid": "u"}}),
             {"sentry-hook-resource": "issue"}),
        Seed(_json({"action": "created", "data": {"error": _SENTRY_EVENT}}), {"sentry-hook-resource": "error"}),
    ),
    "sentry_envelope": (
        Seed(b"\n".join((_json({"event_id": "9ec79c33ec9942ab8353589fcb2e04dc"}), _json({"type": "event"}),
                         _json(_SENTRY_EVENT), _json({"type": "session"}),
                         _json({"sid": "1", "init": True, "started": "2026-03-02T10:00:00Z", "status": "ok",
                                "attrs": {"release": "shop@1"}}))),
             {"project": "1"}, "application/x-sentry-envelope"),
    ),
    "hec": (
        Seed(_json({"time": AT, "host": "web-1", "sourcetype": "x", "event": "failed"}) + _json({"event": {"a": 1}})),
        Seed(_json({"time": AT, "host": "web-1", "event": "metric", "fields": {"metric_name:cpu": 3.5}})),
    ),
    "hec_raw": (Seed(b"first line\nsecond line\n", {"query": "host=web-1&sourcetype=x"}, "text/plain"),),
    "json_lines": (
        Seed(_json({"@timestamp": "2026-03-02T10:00:00Z", "message": "it failed", "log.level": "error",
                    "host": {"name": "web-1"}}) + b"\n" + _json({"date": AT + 0.5, "log": "x", "stream": "stderr"})),
    ),
    "elastic_bulk": (
        Seed(b'{"index":{"_index":"logs","_id":"1"}}\n' + _json({"@timestamp": "2026-03-02T10:00:00Z", "message": "m"})
             + b"\n", {}, "application/x-ndjson"),
    ),
    "journal": (
        Seed(b"__CURSOR=s=1;i=1\n__REALTIME_TIMESTAMP=1760000000000000\n_HOSTNAME=web-1\nPRIORITY=3\n"
             b"SYSLOG_IDENTIFIER=shop\nMESSAGE\n\x05\0\0\0\0\0\0\0a\nb\nc\n_PID=7\n\n", {},
             "application/vnd.fdo.journal"),
    ),
    "syslog": (Seed(b"<11>Mar  2 10:00:00 web-1 shop[7]: it failed\n", {}, "text/plain"),),
    "text": (Seed(b"2026-03-02T10:00:00Z ERROR it failed\n", {"host": "web-1", "app": "shop"}, "text/plain"),),
    "snmp_trap": (
        Seed(_json({"ts": AT * 10**6, "peer": "192.0.2.7", "host": "core1", "version": "2c", "kind": "trap",
                    "request": 17, "uptime": 181296, "trap": "1.3.6.1.6.3.1.1.5.3",
                    "varbinds": [["1.3.6.1.2.1.2.2.1.1.7", "integer", 7]]})),
    ),
    "datadog_api": (
        Seed(_json({"status": "ok", "series": [{"metric": "system.cpu.user", "scope": "host:web-1",
                    "tag_set": ["host:web-1"], "pointlist": [[AT * 1000, 3.5]], "unit": None}]})),
        Seed(_json({"data": [{"id": "a", "type": "log", "attributes": {"timestamp": "2026-03-02T10:00:00Z",
                    "host": "web-1", "service": "shop", "status": "error", "message": "m"}}], "meta": {}})),
    ),
    "splunk_export": (
        Seed(_json({"preview": False, "offset": 0, "result": {"_time": "2026-03-02T10:00:00.000+00:00", "host": "web-1",
                    "_raw": "it failed", "source": "x", "sourcetype": "y"}})),
    ),
    "thousandeyes": (
        Seed(_json({"thousandeyes": 7, "kind": "network", "tests": {"9": {"testName": "t", "type": "agent-to-server",
                    "server": "shop.example:443"}}, "answer": {"results": [{"testId": "9", "roundId": AT, "loss": 1.5,
                    "agent": {"agentId": "3", "agentName": "berlin"}, "date": "2026-03-02T10:00:00Z"}]}})),
        Seed(_json({"thousandeyes": 7, "kind": "alerts", "tests": {}, "answer": {"alerts": [
            {"id": "1", "ruleId": "2", "state": "trigger", "startDate": "2026-03-02T10:00:00Z", "severity": "major",
             "alertType": "http-server"}]}})),
    ),
    "servicenow": (
        Seed(_json({"result": [{"sys_id": "a", "number": "INC1", "short_description": "x", "state": "1",
                    "priority": "2", "sys_updated_on": "2026-03-02 10:00:00", "opened_at": "2026-03-02 09:00:00"}]}),
             {"table": "incident"}),
    ),
    "documents": (
        Seed(b"# Runbook\n\nRestart it.\n", {"uri": "file:///r.md", "media-type": "text/markdown", "path": "r.md"},
             "text/markdown"),
        Seed(b"<html><head><title>R</title></head><body><script>x()</script><p>Hi</p></body></html>",
             {"uri": "file:///r.html", "media-type": "text/html", "path": "r.html"}, "text/html"),
    ),
    "rows": (Seed(b'{"logs":{"ts":1760000000000000,"host":"web-1","body":"x","attributes":"{}"}}'),),
}  # fmt: skip
_TOKENS = (
    b"null", b"true", b'""', b"[]", b"{}", b"-1", b"1e999", b"NaN", b"\xff\xfe", b"\0", b"\n", b'"', b"\\", b"{",
    b"]", b",", b"9999999999999999999999", b"\xe2\x80\xa8", b"\\ud800", b'{"a":' * 50, b"[" * 200, b"\x80" * 12,
)  # fmt: skip


def mutated(format_name: str, count: int, seed: int) -> Iterator[Seed]:
    """Payloads of a format: the seeds themselves first, then ``count`` damaged ones."""
    dice = random.Random(f"{format_name}/{seed}")
    seeds = SEEDS[format_name]
    yield from seeds
    for number in range(count):
        chosen = seeds[number % len(seeds)]
        body = bytearray(chosen.body)
        for _ in range(dice.choice((1, 1, 2, 5, 20))):
            _damage(body, dice, dice.choice(seeds).body)
        yield Seed(bytes(body), chosen.headers, chosen.content_type)


def _damage(body: bytearray, dice: random.Random, other: bytes) -> None:
    at = dice.randrange(len(body) + 1)
    match dice.randrange(7):
        case 0 if at < len(body):
            body[at] ^= 1 << dice.randrange(8)
        case 1:
            del body[at:]
        case 2:
            del body[at : at + dice.randrange(1, 16)]
        case 3:
            body[at:at] = dice.choice(_TOKENS)
        case 4:
            body[at : at + dice.randrange(1, 8)] = dice.choice(_TOKENS)
        case 5:
            start = dice.randrange(len(other) + 1)
            body[at:at] = other[start : start + dice.randrange(1, 64)]
        case _:
            body[at:at] = bytes(dice.randrange(256) for _ in range(dice.randrange(1, 8)))
