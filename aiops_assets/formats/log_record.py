"""Log events as JSON objects, whoever wrote them: which field is the message, the host, the program, the level.

What belongs here: the reading of one object (ECS, OpenTelemetry, fluent-bit, vector, Docker, GELF, bunyan, Python and
Java loggers), the rows of the logs frame and the entities they tell of. What does not: how objects stand in a body.
What has no column stays in ``attributes`` under its own name; a level does too, because its word says more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import polars as pl

from aiops_assets.formats.batch import LOGS_SCHEMA
from aiops_assets.formats.columns import checked_labels
from aiops_assets.formats.instants import MONTHS, offset_micros, wall_clock
from aiops_assets.formats.payload import Refused, micros_of_json, name_problem
from aiops_assets.formats.records import MAX_MICROS, MIN_MICROS, Entities
from aiops_assets.formats.severity import of_text, of_word

_TIMES = (
    "@timestamp", "timestamp", "time", "ts", "date", "datetime", "@t", "eventTime", "Timestamp", "_timestamp",
    "timeMillis", "asctime", "created", "start_time",
)  # fmt: skip
_BODIES = (
    "message", "log", "msg", "body", "Body", "@m", "MESSAGE", "short_message", "text", "line", "Message", "event",
    "description",
)  # fmt: skip
_HOSTS = (
    ("host", "name"), ("host", "hostname"), ("host.name",), ("host",), ("hostname",), ("HOSTNAME",), ("_HOSTNAME",),
    ("host_name",), ("node_name",), ("nodename",), ("node",), ("kubernetes", "host"), ("kubernetes", "pod_node_name"),
    ("kubernetes", "node", "name"), ("kubernetes", "node_name"), ("agent", "hostname"), ("agent", "name"),
    ("beat", "hostname"), ("resource", "host.name"), ("source_host",), ("instance",), ("device",),
)  # fmt: skip
_SERVICES = (
    ("service", "name"), ("service.name",), ("service_name",), ("resource", "service.name"), ("serviceName",),
    ("serviceContext", "service"), ("service",), ("dd.service",),
)  # fmt: skip
_APPS = (
    ("app",), ("application",), ("app_name",), ("appname",), ("program",), ("ident",), ("syslog_identifier",),
    ("SYSLOG_IDENTIFIER",), ("kubernetes", "labels", "app.kubernetes.io/name"), ("kubernetes", "labels", "app"),
    ("kubernetes", "pod_labels", "app.kubernetes.io/name"), ("kubernetes", "pod_labels", "app"),
    ("kubernetes", "container_name"), ("kubernetes", "container", "name"), ("container", "name"), ("container_name",),
    ("process", "name"), ("log", "logger"), ("log.logger",), ("logger_name",), ("logger",), ("name",), ("component",),
    ("module",),
)  # fmt: skip
_PIDS = (("pid",), ("process", "pid"), ("process.pid",), ("procid",), ("PID",), ("process_id",), ("_PID",))
_LEVELS = (
    ("level",), ("severity",), ("log", "level"), ("log.level",), ("loglevel",), ("log_level",), ("lvl",),
    ("levelname",), ("level_name",), ("@l",), ("severity_text",), ("SeverityText",), ("PRIORITY",), ("priority",),
    ("syslog", "severity"), ("Level",), ("Severity",),
)  # fmt: skip
_TRACES = (("trace_id",), ("traceId",), ("trace", "id"), ("trace.id",), ("TraceId",), ("dd.trace_id",), ("traceid",))
_SPANS = (("span_id",), ("spanId",), ("span", "id"), ("span.id",), ("SpanId",), ("dd.span_id",), ("spanid",))
_SITES = (("site",), ("datacenter",), ("dc",))
_HEX = re.compile(r"[0-9a-fA-F]{16}(?:[0-9a-fA-F]{16})?")
_CLF = re.compile(r"(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-]\d{4})")
_COMMA = re.compile(r"(:\d\d),(\d)")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for objects that do not say it themselves."""

    host: str | None = None
    app: str | None = None
    ts: int | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


class LogRows:
    """Rows of ``batch.LOGS_SCHEMA``, and the hosts and services they tell of."""

    def __init__(self) -> None:
        self._rows: list[tuple[Any, ...]] = []
        self._hosts: dict[str, str | None] = {}
        self._services: dict[str, str | None] = {}

    def add(
        self,
        delivery: int,
        ts: int | None,
        body: str,
        *,
        host: str | None = None,
        app: str | None = None,
        pid: int | None = None,
        severity: int | None = None,
        event_id: str | None = None,
        trace_id: str | None = None,
        span_id: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Add one event; times outside of the years 1 to 9999 count as none."""
        if ts is not None and not MIN_MICROS <= ts <= MAX_MICROS:
            ts = None
        if pid is not None and not 0 <= pid < 2**63:
            pid = None
        if host:
            self._hosts.setdefault(host, None)
        encoded = "{}" if not attributes else json_text(attributes)
        self._rows.append((delivery, ts, event_id, host, app, pid, severity, body, trace_id, span_id, encoded))

    def seen(self, host: str | None, service: str | None, site: str | None) -> None:
        """A host or a service was named."""
        if host and (site or host not in self._hosts):
            self._hosts[host] = site
        if service and (site or service not in self._services):
            self._services[service] = site

    def __len__(self) -> int:
        return len(self._rows)

    def frame(self) -> pl.DataFrame:
        """The rows; a severity that nobody gave is taken from the message's level word."""
        frame = pl.DataFrame(self._rows, schema=LOGS_SCHEMA, orient="row")
        if frame.height and frame["severity_number"].null_count():
            unknown = frame["severity_number"].is_null()
            spoken = of_text(pl.select(pl.when(unknown).then(frame["body"])).to_series())
            frame = frame.with_columns(
                severity_number=pl.select(pl.coalesce(frame["severity_number"], spoken)).to_series()
            )
        return frame

    def entities(self) -> pl.DataFrame:
        """Every host and service that was named."""
        entities = Entities()
        for kind, names in (("host", self._hosts), ("service", self._services)):
            for name, site in names.items():
                try:
                    entities.add(name, {"kind": kind, "site": site})
                except Refused:
                    # A declared default that nothing checked.
                    continue
        return entities.frame()


def json_text(value: object) -> str:
    """A value out of JSON as JSON text that can be stored; what strict JSON lacks is written as text or null."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        pass
    try:
        return orjson.dumps(strict_value(value)).decode()
    except (orjson.JSONEncodeError, RecursionError):
        return orjson.dumps({"unreadable": storable(repr(value)[:65_536])}).decode()


def strict_value(value: object) -> object:
    """A JSON value without what strict JSON lacks: lone surrogates as escapes, integers beyond 64 bits as text."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable(str(name)): strict_value(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [strict_value(inner) for inner in value]
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**64:
        return str(value)
    return value


def time_of(value: object) -> int | None:
    """Microseconds (UTC) of a time in a log record: ``micros_of_json``, a comma before the fraction, or the times of
    access logs; a list of seconds and nanoseconds; ``None`` when it is none."""
    if isinstance(value, str):
        match = _CLF.fullmatch(value)
        if match is not None:
            month = MONTHS.get(match[2].lower(), 0)
            clock = int(match[4]), int(match[5]), int(match[6])
            wall = wall_clock(int(match[3]), month, int(match[1]), *clock, 0)
            return None if wall is None else wall - (offset_micros(match[7]) or 0)
        ts = micros_of_json(value)
        return micros_of_json(_COMMA.sub(r"\1.\2", value)) if ts is None else ts
    if isinstance(value, list) and len(value) == 2 and all(type(part) is int for part in value):
        return int(value[0]) * 1_000_000 + int(value[1]) // 1000
    if isinstance(value, dict):
        inner = value.get("$date", value.get("seconds"))
        return micros_of_json(inner) if inner is not None else None
    ts = micros_of_json(value)
    # Small numbers are durations and counters, not the first days of 1970.
    return ts if ts is not None and ts >= 10**14 else None


def read(rows: LogRows, delivery: int, record: Mapping[str, Any], defaults: Defaults, event_id: str | None) -> None:
    """Add the event that an object describes."""
    rest = dict(record)
    ts = None
    for name in _TIMES:
        if name in rest:
            ts = time_of(rest[name])
            if ts is not None:
                del rest[name]
                break
    body = _body(rest)
    host = _text(rest, _HOSTS)
    service = _text(rest, _SERVICES)
    app = service or _text(rest, _APPS)
    severity = _severity(rest)
    pid = _number(rest, _PIDS)
    trace_id, span_id = _hex(rest, _TRACES), _hex(rest, _SPANS)
    site = _text(rest, _SITES, take=False)
    if body is None:
        body = json_text(record)
        rest = {}
    if defaults.attributes:
        rest = {**defaults.attributes, **rest}
    host = host or defaults.host
    rows.seen(host, service, site)
    rows.add(
        delivery,
        defaults.ts if ts is None else ts,
        body,
        host=host,
        app=app or defaults.app,
        pid=pid,
        severity=severity,
        event_id=event_id,
        trace_id=trace_id,
        span_id=span_id,
        attributes=rest,
    )


def _body(rest: dict[str, Any]) -> str | None:
    for name in _BODIES:
        value = rest.get(name)
        if isinstance(value, str):
            del rest[name]
            return storable(value.rstrip("\r\n"))
    body = rest.get("body")
    if isinstance(body, dict) and isinstance(body.get("stringValue"), str):
        del rest["body"]
        return storable(str(body["stringValue"]))
    for name in ("message", "msg", "body"):
        value = rest.get(name)
        if value is not None and not isinstance(value, bool):
            del rest[name]
            return json_text(value)
    return None


def storable(text: str) -> str:
    """Text that UTF-8 can hold; lone surrogates are shown as escapes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def _find(rest: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = rest
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
        if value is None:
            return None
    return value


def _text(rest: dict[str, Any], paths: Iterable[tuple[str, ...]], take: bool = True) -> str | None:
    """The first name that can be stored; one from the top level moves, one from inside an object stays there too."""
    for path in paths:
        if path[0] not in rest:
            continue
        value = _find(rest, path)
        if type(value) is str and value and name_problem("name", value) is None:
            if take and len(path) == 1:
                del rest[path[0]]
            return value
    return None


def _first(rest: dict[str, Any], paths: Iterable[tuple[str, ...]], read_: Callable[[Any], Any], take: bool) -> Any:
    for path in paths:
        if path[0] not in rest:
            continue
        value = read_(_find(rest, path))
        if value is not None:
            if take and len(path) == 1:
                del rest[path[0]]
            return value
    return None


def _severity(rest: dict[str, Any]) -> int | None:
    for name in ("severity_number", "severityNumber", "SeverityNumber"):
        value = rest.get(name)
        if type(value) is int and 1 <= value <= 24:
            return value
    found: int | None = _first(rest, _LEVELS, of_word, False)
    return found


def _integer(value: Any) -> int | None:
    if type(value) is int:
        return value if 0 <= value < 2**63 else None
    return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 19 else None


def _number(rest: dict[str, Any], paths: Iterable[tuple[str, ...]]) -> int | None:
    found: int | None = _first(rest, paths, _integer, True)
    return found


def _hex(rest: dict[str, Any], paths: Iterable[tuple[str, ...]]) -> str | None:
    found: str | None = _first(rest, paths, _identifier, True)
    return found


def _identifier(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    plain = value.replace("-", "") if len(value) == 36 else value
    return plain.lower() if _HEX.fullmatch(plain) else None


def plain_labels(values: Mapping[str, Any]) -> dict[str, str]:
    """Dimensions as labels; what cannot be one is left out. Raises: Refused, when they are too long together."""
    return checked_labels(
        {k: v for k, v in values.items() if k and isinstance(v, str | int | float | bool) and v != ""}
    )
