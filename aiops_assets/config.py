"""``aiops.yaml``: what operations people tune while the platform runs.

What belongs here: the typed shape of that file, its loading with errors that name file, line, field and allowed values,
and its reloading, which never takes a running process down. What differs between installations is in ``settings``.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    SecretStr,
    ValidationError,
    model_validator,
)

from aiops_assets.landing.segment import is_name
from aiops_assets.settings import environment_variable

log = logging.getLogger(__name__)

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)?\s*")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, None: 1.0}
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def parse_duration(value: object) -> float:
    """Seconds of ``90``, ``"90s"``, ``"5m"``, ``"2h"``, ``"1d"`` or ``"500ms"``."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("a duration such as 30s, 5m, 2h or 1d")
    match = _DURATION.fullmatch(str(value))
    if match is None:
        raise ValueError("a duration such as 30s, 5m, 2h or 1d")
    return float(match[1]) * _UNITS[match[2]]


def _aware(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _name(value: str) -> str:
    if not is_name(value):
        raise ValueError("use lower-case letters, digits, '_', '.' and '-', at most 63")
    return value


def _patterns(value: object) -> object:
    entries = (value,) if isinstance(value, str) else value
    if not isinstance(entries, list | tuple) or not entries or not all(isinstance(entry, str) for entry in entries):
        raise ValueError("a pattern such as 'web-*' or a list of patterns; put numbers in quotes")
    return tuple(entries)


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("a time zone such as UTC or Europe/Berlin") from error
    return value


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError as error:
        raise ValueError("a network such as 192.0.2.0/24 or a single address") from error


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host.strip("[]") or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("host:port, for example 127.0.0.1:5514")
    return value


def _engine_id(value: str) -> str:
    try:
        octets = bytes.fromhex(value.removeprefix("0x").replace(":", ""))
    except ValueError as error:
        raise ValueError("an engine id in hex, for example 8000000001020304") from error
    if not 5 <= len(octets) <= 32:
        raise ValueError("an engine id has 5 to 32 octets")
    return octets.hex()


Duration = Annotated[float, BeforeValidator(parse_duration), Field(ge=0)]
Span = Annotated[Duration, Field(le=366 * 86400.0)]
Patterns = Annotated[tuple[str, ...], BeforeValidator(_patterns)]
Interval = Annotated[float, BeforeValidator(parse_duration), Field(ge=1)]
Instant = Annotated[datetime, AfterValidator(_aware)]
Name = Annotated[str, AfterValidator(_name)]
Zone = Annotated[str, AfterValidator(_zone)]
Network = Annotated[str, AfterValidator(_network)]
Address = Annotated[str, AfterValidator(_address)]
EngineId = Annotated[str, AfterValidator(_engine_id)]
Severity = Literal["trace", "debug", "info", "warning", "error", "critical"]
#: OpenTelemetry severity numbers of the words used in aiops.yaml
SEVERITY_NUMBER: dict[str, int] = {"trace": 1, "debug": 5, "info": 9, "warning": 13, "error": 17, "critical": 21}


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class HostCollection(_Model):
    """Collection of the machine the platform runs on."""

    enabled: bool = True
    interval: Interval = 10.0
    processes: int = Field(10, ge=0, le=200, description="how many of the busiest processes to record")


class SnmpCredentials(_Model):
    """How to talk to an SNMP agent; v3 is authPriv when both keys are given."""

    version: Literal["1", "2c", "3"] = "2c"
    community: SecretStr = SecretStr("public")
    user: str | None = None
    auth_protocol: Literal["MD5", "SHA", "SHA224", "SHA256", "SHA384", "SHA512"] = "SHA"
    auth_key: SecretStr | None = None
    priv_protocol: Literal["DES", "3DES", "AES", "AES192", "AES256"] = "AES"
    priv_key: SecretStr | None = None
    context: str = ""

    @model_validator(mode="after")
    def _v3_needs_a_user(self) -> SnmpCredentials:
        if self.version == "3" and not self.user:
            raise ValueError("version 3 needs 'user'")
        if self.priv_key is not None and self.auth_key is None:
            raise ValueError("'priv_key' needs 'auth_key' as well")
        return self


#: of devices of kind redfish, where aiops.yaml gives none (seconds)
REDFISH_TIMEOUT = 10.0
REDFISH_DEADLINE = 45.0


class RedfishCredentials(_Model):
    """How to talk to a Redfish service. Certificates are verified unless a fingerprint is pinned."""

    user: str | None = None
    password: SecretStr | None = None
    session: bool = Field(True, description="log in once and keep the session; false: HTTP basic authentication")
    scheme: Literal["https", "http"] = "https"
    ca_file: str | None = Field(None, description="PEM file with the authority that signed the service's certificate")
    fingerprint: str | None = Field(None, description="SHA-256 of the service's certificate in hex, instead of a CA")

    @model_validator(mode="after")
    def _fits_together(self) -> RedfishCredentials:
        if self.password is not None and not self.user:
            raise ValueError("'password' needs 'user' as well")
        if self.fingerprint is not None:
            digits = self.fingerprint.lower().removeprefix("sha256:").replace(":", "").replace(" ", "")
            if len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
                raise ValueError("'fingerprint': expected the SHA-256 of the certificate, 64 hexadecimal digits")
            if self.ca_file is not None:
                raise ValueError("give 'ca_file' or 'fingerprint', not both")
        if self.scheme == "http" and (self.fingerprint is not None or self.ca_file is not None):
            raise ValueError("'fingerprint' and 'ca_file' are for scheme https")
        return self


class Device(_Model):
    """A device to poll."""

    name: str = Field(min_length=1, max_length=255)
    kind: Literal["snmp", "redfish"] = "snmp"
    address: str = Field(min_length=1, description="host or host:port, the protocol's port when left out")
    snmp: SnmpCredentials = SnmpCredentials()
    redfish: RedfishCredentials = RedfishCredentials()
    interval: Interval = 60.0
    timeout: Annotated[Duration, Field(gt=0, le=60)] = 2.0
    retries: int = Field(2, ge=0, le=10)
    deadline: Annotated[Duration, Field(gt=0)] = Field(20.0, description="a poll that takes longer is cut and named")
    max_repetitions: int = Field(25, ge=1, le=100)
    profiles: tuple[str, ...] = Field((), description="profiles to poll; empty: all that the agent answers")
    site: str | None = None
    owner: str | None = None
    labels: Mapping[str, str] = Field(default_factory=dict)
    depends_on: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _management_controllers_are_slow(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("kind") == "redfish":
            return {"timeout": REDFISH_TIMEOUT, "deadline": REDFISH_DEADLINE, **given}
        return given


class Discovery(_Model):
    """A subnet that is searched for SNMP agents; only what is written here is ever asked."""

    name: Name
    subnet: str = Field(description="CIDR, at most 1,024 addresses, for example 192.0.2.0/26")
    snmp: SnmpCredentials = SnmpCredentials()
    interval: Interval = Field(3600.0, description="how often to search again")
    rate: float = Field(20.0, gt=0, le=1000, description="addresses asked a second")
    poll: bool = Field(False, description="poll what is found; otherwise it is only listed as an entity")


class NamedQuery(_Model):
    """A query whose result is stored under a name of its own."""

    name: str = Field(min_length=1, max_length=255, description="the metric's name")
    query: str = Field(min_length=1)


class Pull(_Model):
    """An API that is asked for what is new."""

    name: Name
    kind: Literal["datadog", "splunk", "thousandeyes", "prometheus", "servicenow"]
    url: str = Field(min_length=1, description="base address of the API, for example https://api.datadoghq.eu")
    token: SecretStr | None = None
    user: str | None = None
    password: SecretStr | None = None
    application_key: SecretStr | None = Field(None, description="datadog: the second key")
    queries: tuple[str | NamedQuery, ...] = Field(
        (), description="datadog, prometheus: metric queries, each a text or {name, query}; splunk: searches"
    )
    logs: str | None = Field(None, description="datadog: log search; '*' for all logs")
    tables: tuple[Literal["incident", "kb_knowledge", "problem", "change_request"], ...] = ("incident", "kb_knowledge")
    account: str | None = Field(None, description="thousandeyes: account group (aid)")
    tests: tuple[str, ...] = Field((), description="thousandeyes: names or ids of tests; empty: all enabled ones")
    host_label: str | None = Field(None, description="prometheus: the label that names the host")
    time: Literal["index", "event"] = Field(
        "index", description="splunk: go by when events were indexed, or by their own time"
    )
    reach: Annotated[Duration, Field(gt=0)] = Field(
        7 * 86_400.0, description="splunk, by index time: how old an event may be when it is indexed"
    )
    interval: Interval = 60.0
    since: Annotated[Duration, Field(gt=0)] = Field(3600.0, description="how far back the first fetch goes")
    overlap: Duration = Field(300.0, description="how much is asked for again, because indexes lag")
    window: Annotated[Duration, Field(gt=0)] = Field(3600.0, description="most time that one request asks for")
    settle: Duration = Field(30.0, description="datadog, prometheus: younger values may still change and wait")
    step: Interval = Field(60.0, description="prometheus, datadog: resolution of metric queries")
    page: int = Field(500, ge=1, le=10_000, description="records a page")
    timeout: Annotated[Duration, Field(gt=0, le=300)] = 30.0
    deadline: Annotated[Duration, Field(gt=0)] = Field(120.0, description="a fetch that takes longer is cut and named")
    ca_file: str | None = Field(None, description="PEM file of an authority of your own")

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Pull:
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("'url' must be an address such as https://api.example.org, without '?' and '#'")
        if parts.username or parts.password:
            raise ValueError("'url' holds a user or password; use 'user' and 'password'")
        if self.password is not None and not self.user:
            raise ValueError("'password' needs 'user' as well")
        basic = self.user is not None and self.password is not None
        if self.kind == "datadog" and (self.token is None or self.application_key is None):
            raise ValueError("datadog needs 'token' (the API key) and 'application_key'")
        if self.kind == "thousandeyes" and self.token is None:
            raise ValueError("thousandeyes needs 'token' (an OAuth bearer token)")
        if self.kind in {"splunk", "servicenow"} and self.token is None and not basic:
            raise ValueError(f"{self.kind} needs 'token', or 'user' and 'password'")
        if self.kind in {"splunk", "prometheus"} and not self.queries:
            raise ValueError(f"{self.kind} needs 'queries'")
        if self.kind == "datadog" and not self.queries and self.logs is None:
            raise ValueError("datadog needs 'queries' or 'logs'")
        if self.kind == "datadog" and self.page > 1000:
            raise ValueError("'page' of datadog is at most 1000")
        if self.kind in {"datadog", "prometheus"} and self.step != int(self.step):
            raise ValueError("'step' must be whole seconds")
        return self

    @property
    def named_queries(self) -> tuple[tuple[str | None, str], ...]:
        """(name or ``None``, query) of each query."""
        return tuple((None, entry) if isinstance(entry, str) else (entry.name, entry.query) for entry in self.queries)


class Tail(_Model):
    """Log files that are followed."""

    name: Name
    paths: tuple[str, ...] = Field(min_length=1, description="files or patterns such as /var/log/app/*.log")
    format: Literal["text", "json_lines", "syslog", "journal"] = "text"
    host: str | None = Field(None, description="the host these lines are of; this machine when left out")
    app: str | None = Field(None, description="the program; the file's name when left out")
    multiline: str | None = Field(
        None, description="regular expression of a first line; 'auto' knows stack traces; none: each line alone"
    )
    from_start: bool = Field(True, description="read what a file holds when it is first seen")
    compressed: bool = Field(False, description="read rotated .gz files that were never seen as well")
    zone: Zone = Field("UTC", description="time zone of times in these lines that name none")


class Folder(_Model):
    """A folder of documents for the knowledge base: Markdown, HTML, PDF, DOCX, text."""

    name: Name
    path: str = Field(min_length=1)
    pattern: str = Field("**/*", description="which files, as a glob")
    interval: Interval = 60.0
    max_bytes: int = Field(50_000_000, ge=1, description="larger files are reported, not read")


class SyslogListener(_Model):
    """Where syslog is received, each ``host:port``; nothing is received where none is given."""

    udp: tuple[Address, ...] = ()
    tcp: tuple[Address, ...] = ()
    tls: tuple[Address, ...] = ()
    certificate: str | None = Field(None, description="tls: PEM file with certificate and chain")
    private_key: str | None = Field(None, description="tls: PEM file")
    client_ca: str | None = Field(None, description="tls: PEM file; only clients with its certificates may send")
    allow: tuple[Network, ...] = Field(("127.0.0.0/8", "::1/128"), description="networks that may send")
    zone: Zone = Field("UTC", description="time zone of RFC 3164 timestamps, which name none")

    @model_validator(mode="after")
    def _tls_needs_a_certificate(self) -> SyslogListener:
        if self.tls and not (self.certificate and self.private_key):
            raise ValueError("'tls' needs 'certificate' and 'private_key' (PEM files)")
        return self


class TrapListener(_Model):
    """Where SNMP traps and informs are received."""

    udp: tuple[Address, ...] = ()
    communities: tuple[SecretStr, ...] = Field((), description="v2c communities that are believed")
    users: tuple[SnmpCredentials, ...] = Field((), description="v3 users")
    engine_ids: tuple[EngineId, ...] = Field(
        (), description="v3 traps: engine ids of the senders, in hex; none: any whose messages carry a user's keys"
    )
    allow: tuple[Network, ...] = Field(("127.0.0.0/8", "::1/128"), description="networks that may send")


class Listen(_Model):
    """Datagrams and streams that are received without HTTP."""

    syslog: SyslogListener = SyslogListener()
    traps: TrapListener = TrapListener()

    @property
    def addresses(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """What is received, and where."""
        syslog = self.syslog
        return (
            ("syslog over UDP", syslog.udp),
            ("syslog over TCP", syslog.tcp),
            ("syslog over TLS", syslog.tls),
            ("SNMP traps", self.traps.udp),
        )

    @property
    def declared(self) -> bool:
        """Whether anything is received at all."""
        return any(addresses for _, addresses in self.addresses)


#: kind of a reading → fields it must give (any of those joined by "|") and those it may give; of the last, names ending
#: in ".*" stand for entries of an object, for example ``labels.site``
READING_FIELDS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "point": (("host", "metric", "value"), ("ts", "unit", "kind", "labels", "labels.*")),
    "log": (
        ("host|app|service", "body"),
        ("ts", "severity", "pid", "id", "trace_id", "span_id", "labels", "labels.*", "attributes", "attributes.*"),
    ),
    "change": (
        ("host|service",),
        ("ts", "kind", "title", "actor", "labels", "labels.*", "details", "details.*"),
    ),
    "alert": (
        ("name", "host|service"),
        (
            "key", "state", "severity", "title", "ts", "starts_at", "ends_at", "metric", "value", "threshold", "labels",
            "labels.*", "evidence", "evidence.*",
        ),
    ),
}  # fmt: skip


class Reading(_Model):
    """How the JSON of a source becomes rows: every field is a JMESPath expression on one item."""

    items: str = Field("@", description="where the items stand in the body")
    kind: Literal["point", "log", "change", "alert"] = "point"
    fields: Mapping[str, str] = Field(description="field → expression, for example {host: 'agent.name'}")

    @property
    def required(self) -> frozenset[str]:
        """The fields that must be found in every item."""
        return frozenset(name for name in READING_FIELDS[self.kind][0] if "|" not in name)

    @model_validator(mode="after")
    def _fields_are_known_and_compile(self) -> Reading:
        import jmespath
        from jmespath.exceptions import JMESPathError

        required, optional = READING_FIELDS[self.kind]
        allowed = [name for names in required for name in names.split("|")] + list(optional)
        groups = tuple(name[:-1] for name in optional if name.endswith(".*"))
        for name in self.fields:
            if name not in allowed and not (name.startswith(groups) and not name.endswith(".")):
                raise ValueError(f"fields: {name!r} is no field of kind {self.kind}; allowed: {', '.join(allowed)}")
        for names in required:
            if not any(name in self.fields for name in names.split("|")):
                raise ValueError(f"fields: kind {self.kind} needs {names.replace('|', ' or ')}")
        for place, expression in (("items", self.items), *((f"fields.{n}", text) for n, text in self.fields.items())):
            try:
                jmespath.compile(expression)
            except (JMESPathError, RecursionError) as error:
                reason = " ".join(str(error).split("\n")[0].split())
                raise ValueError(f"{place}: {expression!r} is no JMESPath expression: {reason}") from error
        return self


class Source(_Model):
    """Limits and expectations of one source of deliveries."""

    format: str | None = Field(None, description="how its deliveries are written")
    freshness: Duration = Field(900.0, description="older than this, the source is called late")
    max_series: int | None = Field(None, ge=1, description="refuse series beyond this number, visibly")
    secret: SecretStr | None = Field(None, description="with which the sender signs what it sends (Sentry webhooks)")
    reading: tuple[Reading, ...] = Field((), description="generic JSON: how to read what this source sends")


class Entity(_Model):
    """A declared host, service or device."""

    name: str = Field(min_length=1)
    kind: Literal["host", "service", "device"] = "host"
    site: str | None = None
    owner: str | None = None
    impact: Literal[1, 2, 3] = Field(2, description="1: many people stop working, 3: hardly anybody notices")
    labels: Mapping[str, str] = Field(default_factory=dict)
    depends_on: tuple[str, ...] = Field((), description="names of entities this one needs")


_WITHOUT_EFFECT: dict[str, tuple[str, ...]] = {
    "threshold": ("window", "horizon"),
    "rate": ("horizon",),
    "fill_up": ("clear",),
    "absence": ("op", "value", "clear", "window", "horizon"),
}


class Rule(_Model):
    """One absolute rule. Which fields apply depends on ``kind``."""

    name: Name
    kind: Literal["threshold", "rate", "fill_up", "absence"] = "threshold"
    metric: str = Field(min_length=1, description="metric name; '*' matches any run of characters")
    host: str = Field("*", description="host name pattern with '*'")
    labels: Mapping[str, Patterns] = Field(
        default_factory=dict,
        description="label → pattern with '*', or several of which one must match; '': no such label",
    )
    op: Literal[">", ">=", "<", "<="] = Field(">=", description="fill_up: from which side the level is reached")
    value: FiniteFloat | None = Field(
        None, description="threshold, rate: the limit; fill_up: the level that means full"
    )
    clear: FiniteFloat | None = Field(None, description="the alert ends only at or beyond this value (hysteresis)")
    window: Span = Field(600.0, description="rate, fill_up: how far back to look")
    horizon: Span = Field(14400.0, description="fill_up: fire when full within this time")
    hold: Span = Field(0.0, alias="for", description="fire only when true for this long; absence: silent for this long")
    severity: Severity = "error"
    enabled: bool = True
    description: str = ""

    @model_validator(mode="after")
    def _fields_fit_kind(self) -> Rule:
        if self.kind != "absence" and self.value is None:
            raise ValueError(f"a rule of kind '{self.kind}' needs 'value'")
        if self.kind == "absence" and self.hold <= 0:
            raise ValueError("a rule of kind 'absence' needs 'for'")
        if self.kind in {"rate", "fill_up"} and self.window < 1:
            raise ValueError(f"a rule of kind '{self.kind}' needs a 'window' of at least 1s")
        idle = [
            name
            for name in _WITHOUT_EFFECT[self.kind]
            if name in self.model_fields_set and getattr(self, name) != Rule.model_fields[name].default
        ]
        if idle:
            raise ValueError(f"{', '.join(map(repr, idle))} has no effect in a rule of kind '{self.kind}'")
        if self.clear is not None and self.value is not None:
            rising = self.op in {">", ">="}
            if (rising and self.clear > self.value) or (not rising and self.clear < self.value):
                raise ValueError("'clear' must lie on the quiet side of 'value'")
        return self


class Window(_Model):
    """A maintenance window: alerts that match are recorded as suppressed, with this reason."""

    name: Name
    host: str = "*"
    rule: str = Field("*", description="name pattern of rules and detectors")
    labels: Mapping[str, Patterns] = Field(default_factory=dict)
    starts_at: Instant = Field(alias="from")
    ends_at: Instant = Field(alias="to")
    author: str = Field(min_length=1)
    reason: str = Field(min_length=1)

    @model_validator(mode="after")
    def _in_order(self) -> Window:
        if self.ends_at <= self.starts_at:
            raise ValueError("'to' must be later than 'from'")
        return self


class Statistics(_Model):
    """Tier 1: statistics against each series' own past."""

    enabled: bool = True
    severity: Severity = "warning"
    exclude: tuple[str, ...] = Field((), description="metric patterns that statistics leave alone")


class Grouping(_Model):
    """How alerts become incidents."""

    window: Duration = Field(900.0, description="alerts that start within this time of an incident's last may join it")
    change_lookback: Duration = Field(3600.0, description="changes this long before the start are listed as suspects")
    resolve_after: Duration = Field(
        300.0, description="an incident resolves itself when all alerts ended this long ago"
    )


def _kept(value: object) -> float | None:
    return None if value is None or value == "forever" else parse_duration(value)


#: how long rows stay, in seconds; ``None`` for ever
Kept = Annotated[Annotated[float, Field(ge=86_400)] | None, BeforeValidator(_kept)]
_DAY = 86_400.0


class Retention(_Model):
    """How long the rows of each table stay, at least a day: ``90d``, ``52w`` or ``forever``."""

    metric_points: Kept = 180 * _DAY
    baselines: Kept = 400 * _DAY
    anomalies: Kept = 400 * _DAY
    alert_decisions: Kept = 400 * _DAY
    hour_receipts: Kept = 800 * _DAY
    alerts: Kept = 800 * _DAY
    changes: Kept = 800 * _DAY
    log_events: Kept = 30 * _DAY
    error_events: Kept = 180 * _DAY
    spans: Kept = 14 * _DAY
    tickets: Kept = None
    documents: Kept = None
    incidents: Kept = None
    llm_calls: Kept = 400 * _DAY

    @model_validator(mode="after")
    def _what_explains_stays_longer(self) -> Retention:
        points = self.metric_points
        for name in ("baselines", "hour_receipts", "alerts", "incidents"):
            kept = getattr(self, name)
            if kept is not None and (points is None or kept < points):
                raise ValueError(f"'{name}' must stay at least as long as 'metric_points': it says what they meant")
        return self

    @property
    def days(self) -> dict[str, float | None]:
        """Table → days, ``None`` for ever."""
        kept = {name: getattr(self, name) for name in Retention.model_fields}
        return {name: None if seconds is None else seconds / _DAY for name, seconds in kept.items()}


class Collect(_Model):
    host: HostCollection = HostCollection()


class LlmBudget(_Model):
    """What may be used on one day (UTC); what is not named is not limited."""

    cost: float | None = Field(None, ge=0, description="in the currency of the prices")
    tokens: int | None = Field(None, ge=0, description="of questions and answers together")
    calls: int | None = Field(None, ge=0, description="requests, repetitions included")


class LlmBreaker(_Model):
    """When a provider that keeps failing is left alone for a while."""

    failures: int = Field(5, ge=1, le=1000, description="failed questions in a row")
    pause: Duration = Field(60.0, description="how long questions are then answered offline at once")


class LlmCache(_Model):
    """Answers that are kept in the lake, so that the same question is paid for once."""

    enabled: bool = True
    max_age: Duration = Field(90 * _DAY, description="older answers are asked for again, and pruned")


class Llm(_Model):
    """The language model that is asked; without one, the deterministic offline provider answers."""

    provider: Literal["offline", "openai", "azure", "ollama", "compatible"] = "offline"
    model: str = Field("", description="model, or with azure the deployment; not needed offline")
    base_url: str | None = Field(None, description="address of ollama or of a compatible server; Azure endpoint")
    api_key: SecretStr | None = Field(
        None, description="'${NAME}' reads a variable; azure without one uses the identity"
    )
    api_version: str = Field(
        "2024-10-21", description="azure: of the API; an address that ends in /openai/v1 needs none"
    )
    structured: Literal["json_schema", "tools", "json_object"] = Field(
        "json_schema", description="how answers are held to a schema; falls back by itself where it is refused"
    )
    timeout: Duration = Field(60.0, gt=0, description="of one request")
    deadline: Duration = Field(180.0, gt=0, description="of a question with all its repetitions")
    retries: int = Field(
        4, ge=0, le=20, description="repetitions after 408, 409, 429, 5xx, timeouts and lost connections"
    )
    max_retry_after: Duration = Field(60.0, description="longest pause that a server may ask for")
    concurrency: int = Field(8, ge=1, le=256, description="requests under way at once")
    prompt_price: float = Field(0.0, ge=0, description="of a million prompt tokens")
    completion_price: float = Field(0.0, ge=0, description="of a million completion tokens")
    budget: LlmBudget = LlmBudget()
    budgets: Mapping[str, LlmBudget] = Field(default_factory=dict, description="purpose → its own part of the budget")
    breaker: LlmBreaker = LlmBreaker()
    cache: LlmCache = LlmCache()
    redact: bool = Field(True, description="personal data and secrets are replaced before anything is sent")
    people: tuple[str, ...] = Field((), description="full names of people that are never sent")

    @model_validator(mode="after")
    def _provider_is_complete(self) -> Llm:
        if self.provider == "offline":
            return self
        if not self.model:
            raise ValueError(f"provider '{self.provider}' needs 'model'")
        if self.provider in {"azure", "compatible"} and not self.base_url:
            raise ValueError(f"provider '{self.provider}' needs 'base_url'")
        if self.provider == "openai" and self.api_key is None:
            raise ValueError("provider 'openai' needs 'api_key', for example '${OPENAI_API_KEY}'")
        if self.base_url is not None and urlsplit(self.base_url).scheme not in {"http", "https"}:
            raise ValueError("'base_url' begins with http:// or https://")
        return self


class Golden(_Model):
    """The synthetic incident data set that candidates are made of, and what it is compared with."""

    config: Path | None = Field(None, description="the generator's configuration; default: the shipped one")
    count: int = Field(10_000, ge=1, le=1_000_000, description="incidents in a candidate")
    seed: int = Field(1, ge=0, description="another seed gives another data set of the same kind")
    reference: Path | None = Field(None, description="real incidents (CSV, Parquet) to be compared with")
    reference_columns: Mapping[str, str] = Field(
        default_factory=dict, description="field → column, where the reference calls a field otherwise"
    )
    people: tuple[str, ...] = Field((), description="full names of real people that must not occur in made-up records")


class Config(_Model):
    """The whole of ``aiops.yaml``."""

    version: Literal[1] = 1
    collect: Collect = Collect()
    devices: tuple[Device, ...] = ()
    discover: tuple[Discovery, ...] = ()
    pull: tuple[Pull, ...] = ()
    tail: tuple[Tail, ...] = ()
    folders: tuple[Folder, ...] = ()
    listen: Listen = Listen()
    sources: Mapping[Name, Source] = Field(default_factory=dict)
    entities: tuple[Entity, ...] = ()
    default_rules: bool = Field(
        True, description="the rules that ship with the product, unless one of yours has the name"
    )
    rules: tuple[Rule, ...] = ()
    statistics: Statistics = Statistics()
    maintenance: tuple[Window, ...] = ()
    grouping: Grouping = Grouping()
    retention: Retention = Retention()
    llm: Llm = Llm()
    golden: Golden = Golden()
    priority: Mapping[str, Annotated[int, Field(ge=1, le=5)]] = Field(
        default_factory=lambda: dict(DEFAULT_PRIORITY), description="'impact/urgency' → priority, nine entries"
    )

    @model_validator(mode="after")
    def _names_are_unique(self) -> Config:
        named: tuple[tuple[str, Sequence[Any]], ...] = (
            ("devices", self.devices),
            ("discover", self.discover),
            ("pull", self.pull),
            ("tail", self.tail),
            ("folders", self.folders),
            ("rules", self.rules),
            ("maintenance", self.maintenance),
            ("entities", self.entities),
        )
        for field, entries in named:
            seen: set[str] = set()
            for entry in entries:
                if entry.name in seen:
                    raise ValueError(f"{field}: the name {entry.name!r} appears twice")
                seen.add(entry.name)
        if set(self.priority) != set(DEFAULT_PRIORITY):
            raise ValueError(f"priority: needs exactly the keys {', '.join(DEFAULT_PRIORITY)}")
        return self

    @property
    def active_rules(self) -> tuple[Rule, ...]:
        """The shipped rules (unless turned off or overridden by name) and the user's, enabled ones only."""
        own = {rule.name for rule in self.rules}
        shipped = [rule for rule in default_rules() if rule.name not in own] if self.default_rules else []
        return tuple(rule for rule in (*shipped, *self.rules) if rule.enabled)

    @property
    def digest(self) -> str:
        """Twelve hex digits that change when anything in force changes (secrets do not enter)."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]


#: ITIL priority from impact × urgency, after ServiceNow's sample data
DEFAULT_PRIORITY: dict[str, int] = {
    "1/1": 1, "1/2": 2, "1/3": 3,
    "2/1": 2, "2/2": 3, "2/3": 4,
    "3/1": 3, "3/2": 4, "3/3": 4,
}  # fmt: skip


class ConfigError(Exception):
    """The file is wrong; ``problems`` are lines for people: file, line, field, what is allowed."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def default_rules() -> tuple[Rule, ...]:
    """The rules that ship with the product."""
    text = resources.files("aiops_assets").joinpath("default_rules.yaml").read_text("utf-8")
    return tuple(Rule.model_validate(entry) for entry in yaml.safe_load(text)["rules"])


def template() -> str:
    """The commented ``aiops.yaml`` that a new home folder gets."""
    return resources.files("aiops_assets").joinpath("aiops.yaml").read_text("utf-8")


def load_config(path: Path) -> Config:
    """Read and check ``aiops.yaml``; a missing file means the defaults.

    Raises:
        ConfigError: with one readable line for each mistake.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return Config()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from error
    return parse_config(text, str(path))


def parse_config(text: str, origin: str) -> Config:
    """``load_config`` for text; ``origin`` names it in messages."""
    try:
        values = _parse(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError([f"{origin}{line}: not valid YAML: {getattr(error, 'problem', error)}"]) from error
    if values is None:
        return Config()
    if not isinstance(values, dict):
        raise ConfigError([f"{origin}:1: expected a mapping at the top, for example 'rules:'"])
    problems: list[str] = []
    values = _expand(values, origin, problems)
    if problems:
        raise ConfigError(problems)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(problems_in(text, origin, error, Config)) from error


def problems_in(text: str, origin: str, error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line for each mistake in a YAML text that ``model`` refused: file, line, field, what is allowed."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    items = error.errors(include_url=False)
    # A list whose entries are all wrong counts as empty; the entries' own mistakes say what is meant.
    deeper = [item["loc"] for item in items]
    told = [
        item
        for item in items
        if item["type"] != "too_short"
        or not any(len(loc) > len(item["loc"]) and loc[: len(item["loc"])] == item["loc"] for loc in deeper)
    ]
    return [_problem(origin, root, item, model) for item in told]


def _parse(text: str) -> Any:
    """The values of a YAML text; by the C parser, which is ten times faster, unless it fails: its errors say less."""
    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    except yaml.YAMLError:
        return yaml.safe_load(text)


def _expand(value: Any, origin: str, problems: list[str]) -> Any:
    """Replace ``${NAME}`` by the environment variable, so that secrets need not stand in the file."""
    if isinstance(value, dict):
        return {key: _expand(entry, origin, problems) for key, entry in value.items()}
    if isinstance(value, list):
        return [_expand(entry, origin, problems) for entry in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        found = environment_variable(match[1])
        if found is None:
            problems.append(f"{origin}: the environment variable {match[1]} is not set")
            return ""
        return found

    return _VARIABLE.sub(replace, value)


def _problem(origin: str, root: yaml.Node | None, item: Any, top: type[BaseModel]) -> str:
    # A check of several sections may say itself where its mistake stands.
    location: tuple[int | str, ...] = item["loc"] or getattr(item.get("ctx", {}).get("error"), "location", ())
    field = ".".join(str(part) for part in location) or "file"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        message = "unknown field"
        allowed = _allowed_fields(location[:-1], top)
        if allowed:
            message += f"; allowed: {', '.join(allowed)}"
    elif item["type"] == "missing":
        message = "is required"
    return f"{origin}:{_line(root, location)}: {field}: {message}"


def _line(node: yaml.Node | None, location: Sequence[int | str]) -> int:
    """The line (from 1) of the deepest part of a location that exists in the document."""
    line = node.start_mark.line if node is not None else 0
    for part in location:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    line, node = key.start_mark.line, value
                    break
            else:
                break
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line
        else:
            break
    return line + 1


def _allowed_fields(location: Sequence[int | str], top: type[BaseModel]) -> list[str]:
    model: Any = top
    for part in location:
        if isinstance(part, int):
            continue
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return []
        entry = next((f for n, f in model.model_fields.items() if part in {n, f.alias}), None)
        if entry is None:
            continue
        model = _inner_model(entry.annotation)
    if isinstance(model, type) and issubclass(model, BaseModel):
        return [entry.alias or name for name, entry in model.model_fields.items()]
    return []


def _inner_model(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        inner = _inner_model(argument)
        if inner is not None:
            return inner
    return None


class ConfigFile:
    """The configuration in force, re-read when the file changes; the last good one stays when it is wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []
        self._stamp: tuple[int, int] | None = None
        self._current = Config()
        self._loaded = False

    def current(self) -> Config:
        """The configuration in force. Cheap when nothing changed: one ``stat``.

        Raises:
            ConfigError: only on the first load; later mistakes are logged, kept in ``problems`` and change nothing.
        """
        try:
            stat = self.path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
        except FileNotFoundError:
            stamp = (0, 0)
        if self._loaded and stamp == self._stamp:
            return self._current
        try:
            self._current = load_config(self.path)
            self.problems = []
        except ConfigError as error:
            if not self._loaded:
                raise
            self.problems = error.problems
            log.error("aiops.yaml is wrong, the previous configuration stays in force: %s", error)
        self._loaded, self._stamp = True, stamp
        return self._current
