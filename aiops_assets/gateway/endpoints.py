"""Where deliveries come in: path → format, dialect, and what is kept of the request for the parser.

What belongs here: that table, and the reading of paths and query strings. What does not: the way to the disk
(``intake``) and what each protocol says (``dialects`` and the modules beside it).

| path | format | key |
|---|---|---|
| ``/webhooks/<format>`` | that one | ``Authorization``, ``X-Api-Key`` |
| ``/webhooks/sentry`` with a signature | sentry | HMAC with ``sources.<source>.secret`` |
| ``/api/<project>/envelope/``, ``/store/`` | sentry_envelope | ``X-Sentry-Auth``, ``?sentry_key=`` |
| ``/v1/metrics``, ``/v1/logs``, ``/v1/traces`` | otlp_metrics, otlp_logs, otlp_traces | as webhooks |
| ``/api/v1/write`` | remote_write | as webhooks |
| ``/services/collector``, ``/event``, ``/raw`` | hec, hec_raw | ``Splunk <key>``, Basic, ``?token=`` |
| ``/_bulk``, ``/<index>/_bulk`` | elastic_bulk | as webhooks, ``ApiKey`` |
| ``/upload`` | journal | Basic, from the URL |
| ``/api/put`` | netdata | Basic |
| ``/write``, ``/api/v2/write`` | telegraf (line protocol of InfluxDB clients) | ``Token``, Basic |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlencode

from aiops_assets.gateway.answers import Refusal, Scope
from aiops_assets.gateway.dialects import Dialect, Netdata, RemoteWrite
from aiops_assets.gateway.elastic import HANDSHAKE, Bulk
from aiops_assets.gateway.hec import Hec
from aiops_assets.gateway.journal import Journal
from aiops_assets.gateway.otlp import MAX_BODY_BYTES as MAX_OTLP_BYTES
from aiops_assets.gateway.otlp import Otlp
from aiops_assets.gateway.sentry import MAX_HOOK_BYTES, Envelopes
from aiops_assets.landing.segment import is_name
from aiops_assets.sources.catalogue import SHIPPED

PREFIX = "/webhooks/"
MAX_FIELDS = 32
MAX_KEPT_CHARS = 1024
MAX_QUERY_CHARS = 4096
#: fields of a query string that are credentials or may hold some
SECRET_FIELDS = frozenset(
    {"token", "sentry_key", "sentry_secret", "key", "api_key", "api-key", "apikey", "access_token"}
    | {"auth", "u", "p", "user", "password", "secret", "signature", "sig"}
)
#: what a query may say about a body of ours: the unit of its timestamps, and what its lines do not tell
_HINTS = frozenset({"precision", "host", "app", "zone"})
_ENVELOPE = re.compile(r"/api/([0-9]{1,20})/(envelope|store)/?")
_INDEX = re.compile(r"/([^/_][^/]{0,254})(?:/[^/]{1,64})?/_bulk/?")
#: requests that are answered without anything being delivered
Question = Literal["acks", "health", "handshake"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One way in. ``kept`` begins every delivery's headers; ``keeps`` are request headers that are added to them."""

    format: str
    dialect: Dialect
    kept: Mapping[str, str]
    #: what a delivery is of when neither its query nor its key names a source
    source: str = ""
    keeps: tuple[bytes, ...] = ()
    #: all request headers that begin so are added as well
    keeps_prefix: bytes = b""
    #: whether ``source`` in the query means something of this protocol, and not one of our sources
    own_source: bool = False
    max_body: int | None = None
    signed: bool = False
    #: long bodies are cut between entries while they stream
    cut: bool = False
    question: Question | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """What a query string says: the source it names, and what is kept of it."""

    source: str | None = None
    kept: Mapping[str, str] = field(default_factory=dict)


PLAIN = Route()
#: format → the source that ships with the product for it
SOURCES: Mapping[str, str] = {
    name: entry.name for entry in reversed(SHIPPED) for name in entry.formats if name != "collected"
}


class Endpoints:
    """The table of a gateway; its dialects hold what they must remember."""

    def __init__(self, formats: frozenset[str], *, sentry_per_minute: int = 0) -> None:
        plain, remote_write, journal = Dialect(), RemoteWrite(), Journal()
        self.otlp, self.hec, self.bulk, self.envelopes = Otlp(), Hec(), Bulk(), Envelopes(sentry_per_minute)
        self._formats = formats
        self._unknown = Endpoint("", plain, {})
        found = [(f"{PREFIX}{name}", _webhook(name, plain)) for name in sorted(formats)]
        for signal in ("metrics", "logs", "traces"):
            found.append((f"/v1/{signal}", _endpoint(f"otlp_{signal}", self.otlp, max_body=MAX_OTLP_BYTES)))
        found.append(("/api/v1/write", _endpoint("remote_write", remote_write)))
        found.append(("/api/put", _endpoint("netdata", Netdata())))
        found += [(path, _endpoint("telegraf", plain)) for path in ("/write", "/api/v2/write")]
        found.append(("/upload", _endpoint("journal", journal, cut=True)))
        keeps = (b"x-splunk-request-channel",)
        hec = _endpoint("hec", self.hec, own_source=True, keeps=keeps)
        raw = _endpoint("hec_raw", self.hec, own_source=True, keeps=keeps)
        collector = "/services/collector"
        found += [(collector + rest, hec) for rest in ("", "/event", "/event/1.0", "/1.0")]
        found += [(collector + rest, raw) for rest in ("/raw", "/raw/1.0")]
        acks, health = Endpoint("", self.hec, {}, question="acks"), Endpoint("", self.hec, {}, question="health")
        found += [(collector + rest, acks) for rest in ("/ack", "/ack/1.0")]
        found += [(collector + rest, health) for rest in ("/health", "/health/1.0")]
        found.append(("/_bulk", _endpoint("elastic_bulk", self.bulk)))
        found += [(path, Endpoint("", self.bulk, {}, question="handshake")) for path in HANDSHAKE]
        self._exact = dict(found) | {f"{path}/": endpoint for path, endpoint in found if path != "/"}

    def find(self, path: str) -> Endpoint | None:
        """The endpoint of a path, ``None`` for a page; what is unknown under ``/webhooks/`` has an endpoint as well."""
        endpoint = self._exact.get(path)
        if endpoint is not None:
            return endpoint
        if path.startswith(PREFIX):
            return self._unknown
        if path.startswith("/api/"):
            match = _ENVELOPE.fullmatch(path)
            if match is None:
                return None
            kept = {"format": "sentry_envelope", "project": match[1], "endpoint": match[2]}
            return Endpoint("sentry_envelope", self.envelopes, kept, SOURCES["sentry_envelope"])
        match = _INDEX.fullmatch(path) if "/_bulk" in path else None
        if match is None:
            return None
        kept = {"format": "elastic_bulk", "index": unquote(match[1])}
        return Endpoint("elastic_bulk", self.bulk, kept, SOURCES["elastic_bulk"])

    def not_found(self) -> Refusal:
        """What is said of an unknown webhook."""
        known = ", ".join(f"{PREFIX}{name}" for name in sorted(self._formats))
        return Refusal(404, "not_found", f"there are {known}")

    def close(self) -> None:
        """Release what dialects hold."""
        self.otlp.close()


def _endpoint(
    format_name: str,
    dialect: Dialect,
    *,
    keeps: tuple[bytes, ...] = (),
    own_source: bool = False,
    max_body: int | None = None,
    cut: bool = False,
) -> Endpoint:
    kept = {"format": format_name}
    source = SOURCES.get(format_name, format_name)
    return Endpoint(format_name, dialect, kept, source, keeps=keeps, own_source=own_source, max_body=max_body, cut=cut)


def _webhook(name: str, dialect: Dialect) -> Endpoint:
    kept, source = {"format": name}, SOURCES.get(name, name)
    if name == "cloudevents":
        return Endpoint(name, dialect, kept, source, keeps_prefix=b"ce-")
    if name == "sentry":
        keeps = (b"sentry-hook-resource", b"sentry-hook-timestamp", b"request-id")
        return Endpoint(name, dialect, kept, source, keeps=keeps, max_body=MAX_HOOK_BYTES, signed=True)
    return Endpoint(name, dialect, kept, source)


def route(endpoint: Endpoint, query: bytes) -> Route | Refusal:
    """Read a query string; secrets in it are left out of what is kept."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        return Refusal(400, "bad_query", "the query string cannot be read")
    named = [value for name, value in pairs if name == "source" and not endpoint.own_source]
    if named and (len(named) != 1 or not is_name(named[0])):
        message = "source: lower-case letters, digits, '_', '.' and '-', at most 63, given once"
        return Refusal(400, "bad_source", message)
    ours = SECRET_FIELDS if endpoint.own_source else SECRET_FIELDS | {"source"}
    others = [(name, value) for name, value in pairs if name.lower() not in ours]
    kept = {name: value[:MAX_KEPT_CHARS] for name, value in others if name in _HINTS}
    if others:
        kept["query"] = urlencode(others)[:MAX_QUERY_CHARS]
    return Route(named[0] if named else None, kept)


def is_shipper(scope: Scope) -> bool:
    """Whether ``GET /`` comes from a shipper of documents, rather than from somebody who wants to see a page."""
    if scope["method"] not in {"GET", "HEAD"}:
        return False
    headers = dict(scope["headers"])
    return (b"authorization" in headers or b"x-api-key" in headers) and b"text/html" not in headers.get(b"accept", b"")
