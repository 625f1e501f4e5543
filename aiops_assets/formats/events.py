"""Rows of events as webhooks and SDKs bring them: logs, errors, spans and external alerts, checked value by value.

What belongs here: the collector of a batch's rows, and what formats of events share (severity words, the host in a set
of labels, bounded JSON, pseudonyms). What does not: reading any one format, and identifiers (made by the pipeline).

Prose (titles, bodies, evidence) is kept as sent, except for lone surrogates, which no UTF-8 can hold. Names (hosts,
keys, labels) that cannot be stored are refused. An instant that cannot be read is no reason to lose an event: it counts
as not given.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson
import polars as pl

from aiops_assets.formats.batch import (
    ERRORS_SCHEMA,
    EXTERNAL_SCHEMA,
    LOGS_SCHEMA,
    MAX_LABELS_CHARS,
    SPANS_SCHEMA,
    Parsed,
    labels_json,
)
from aiops_assets.formats.columns import PointColumns
from aiops_assets.formats.payload import (
    FORBIDDEN,
    Refused,
    Rejects,
    UnreadableBody,
    documents,
    json_bytes,
    micros_of_json,
    name_problem,
    unpacked,
)
from aiops_assets.formats.records import MAX_MICROS, MIN_MICROS, Changes, Entities
from aiops_assets.landing.segment import Delivery

UNKNOWN_HOST = "unknown"
#: JSON columns of events are shortened beyond this many characters; the delivery itself is kept whole
MAX_JSON_CHARS = 65_536
MAX_TITLE_CHARS = 1_024
#: how deep evidence and attributes are followed
_MAX_DEPTH = 40
_CUT_TEXT, _CUT_ITEMS = 1_000, 30
_SURROGATES = re.compile("[\ud800-\udfff]")
_INT64 = 2**63

DEFAULT_ALERT_SEVERITY = 13
#: severity numbers of the words in which other systems tell how bad an alert is
_SEVERITIES: dict[str, int] = {
    word: number
    for number, words in (
        (21, "page critical crit p1 sev1 s1 disaster fatal emergency emerg panic urgent blocker highest 1"),
        (17, "error err high major p2 sev2 s2 failure failed alert alerting danger 2"),
        (13, "warning warn minor medium average p3 sev3 s3 moderate nodata 3"),
        (9, "info information informational notice low lowest p4 p5 sev4 sev5 s4 none ok okay good success normal 4 5"),
        (5, "debug verbose"),
        (1, "trace"),
    )
    for word in words.split()
}
#: labels that name where an alert happens, the first that is there
HOST_LABELS = (
    "instance", "host", "hostname", "host_name", "host.name", "node", "nodename", "device", "server", "server_name",
    "target", "pod",
)  # fmt: skip
SERVICE_LABELS = ("service", "service_name", "service.name", "app", "application")
#: the scrape job or the like, when nothing else tells where; a job is no service of its own
_LAST_LABELS = ("job", "job_name")
SITE_LABELS = ("site", "datacenter", "dc", "location", "region", "zone")


def prose(value: object, limit: int | None = None) -> str | None:
    """Text for people as it was sent, ``None`` when there is none; numbers and booleans are written out."""
    if value is None or isinstance(value, dict | list):
        return None
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    return storable(text) or None


def storable(text: str) -> str:
    """Text without lone surrogates."""
    return text if text.isascii() or not _SURROGATES.search(text) else _SURROGATES.sub("\ufffd", text)


def one_line(value: object, limit: int = MAX_TITLE_CHARS) -> str | None:
    """``prose`` on one line: control characters become blanks."""
    text = prose(value)
    text = FORBIDDEN.sub(" ", text).strip() if text else ""
    return (text if len(text) <= limit else text[: limit - 1] + "…") or None


def instant_of(value: object) -> int | None:
    """Microseconds since the epoch of a JSON timestamp, ``None`` when it tells none.

    Go's and .NET's zero times (year 1), and the epoch itself, stand for "not given".
    """
    micros = micros_of_json(value)
    return micros if micros is not None and 0 < micros <= MAX_MICROS else None


def finite(value: object) -> float | None:
    """A finite number of JSON or of digits in a string, else ``None``."""
    if isinstance(value, str):
        if len(value) > 64:
            return None
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def severity(word: object, default: int = DEFAULT_ALERT_SEVERITY) -> int:
    """Severity number (OpenTelemetry) of a word such as ``critical`` or ``P2``."""
    return _SEVERITIES.get(str(word).strip().lower(), default) if word is not None else default


def first_of(record: Mapping[str, Any], names: Iterable[str]) -> Any:
    """The first value of these names that is there and not empty."""
    for name in names:
        value = record.get(name)
        if value is not None and value != "":
            return value
    return None


def where(labels: Mapping[str, Any]) -> str | None:
    """The host that labels name (``instance`` without scheme, path and port), else their service, else ``None``."""
    found = first_of(labels, (*HOST_LABELS, *SERVICE_LABELS, *_LAST_LABELS))
    return host_of(found) if isinstance(found, str) else None


@lru_cache(maxsize=4096)
def host_of(address: str) -> str:
    """The host of ``name:port``, ``[v6]:port`` or a URL; anything else as it is."""
    text = address.strip()
    if "://" in text:
        text = text.split("://", 1)[1]
        text = re.split(r"[/?#]", text, maxsplit=1)[0].rpartition("@")[2]
    bracketed = re.fullmatch(r"\[([^\]]+)\](?::\d+)?", text)
    if bracketed:
        return bracketed[1]
    plain = re.fullmatch(r"([^:]+):\d{1,5}", text)
    return (plain[1] if plain else text) or address


def name_of(what: str, value: object) -> str | None:
    """A name that can be stored, ``None`` when none is given.

    Raises:
        Refused: it is no text, too long, or holds control characters.
    """
    if value is None or value == "":
        return None
    if isinstance(value, bool | int | float):
        value = orjson.dumps(value).decode()
    if not isinstance(value, str):
        raise Refused(f"{what}: expected a string")
    problem = name_problem(what, value)
    if problem:
        raise Refused(problem)
    return value


def text_labels(labels: object) -> dict[str, str]:
    """Labels as senders of events have them: plain values as text, nested ones as JSON, empty ones left out.

    Raises:
        Refused: no object, or a name or value that cannot be stored.
    """
    if labels is None:
        return {}
    if not isinstance(labels, dict):
        raise Refused("labels: expected an object of strings")
    checked: dict[str, str] = {}
    for name, value in labels.items():
        text = value if isinstance(value, str) else as_json(value) if isinstance(value, dict | list) else prose(value)
        if not text:
            continue
        problem = name_problem("a label name", name) or name_problem(f"labels.{name[:64]}", text)
        if problem:
            raise Refused(problem)
        checked[name] = text
    if sum(len(name) + len(text) for name, text in checked.items()) > MAX_LABELS_CHARS:
        raise Refused(f"labels: together longer than {MAX_LABELS_CHARS} characters")
    return checked


def as_json(value: object, limit: int = MAX_JSON_CHARS) -> str:
    """JSON with sorted keys that any reader can read, shortened where it is longer than ``limit`` characters."""
    text = _dumped(value)
    if len(text) <= limit:
        return text
    for cut_text, cut_items in ((_CUT_TEXT, _CUT_ITEMS), (200, 10), (40, 5)):
        text = _dumped(_shortened(value, cut_text, cut_items))
        if len(text) <= limit:
            return text
    keys = [storable(key)[:64] for key in value][:50] if isinstance(value, dict) else None
    return orjson.dumps({"shortened": True, "keys": keys}).decode()


def _dumped(value: object) -> str:
    option = orjson.OPT_SORT_KEYS
    try:
        return orjson.dumps(value, option=option).decode()
    except orjson.JSONEncodeError:
        return orjson.dumps(_plain(value), option=option).decode()


def _plain(value: object, depth: int = 0) -> object:
    """A value that can be written as JSON: no lone surrogates, not nested too deeply, no integers beyond 64 bits."""
    if depth > _MAX_DEPTH:
        return "…"
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable(str(key)): _plain(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner, depth + 1) for inner in value]
    if isinstance(value, int) and not -_INT64 <= value < 2 * _INT64:
        return str(value)
    return value


def _shortened(value: object, cut_text: int, cut_items: int, depth: int = 0) -> object:
    if isinstance(value, str):
        text = storable(value)
        return text if len(text) <= cut_text else f"{text[:cut_text]}… ({len(text)} characters)"
    if isinstance(value, dict | list) and depth > _MAX_DEPTH:
        return "…"
    if isinstance(value, dict):
        kept: dict[str, object] = {
            storable(str(key))[:256]: _shortened(inner, cut_text, cut_items, depth + 1)
            for key, inner in list(value.items())[: 4 * cut_items]
        }
        return kept if len(value) <= 4 * cut_items else {**kept, "…": f"{len(value) - 4 * cut_items} more"}
    if isinstance(value, list):
        items = [_shortened(inner, cut_text, cut_items, depth + 1) for inner in value[:cut_items]]
        return items if len(value) <= cut_items else [*items, f"… {len(value) - cut_items} more"]
    return _plain(value)


def pseudonym(value: object) -> str:
    """Sixteen hex digits that stand for a person: the same for the same value, without telling it."""
    return hashlib.blake2b(_dumped(value).encode(), digest_size=8, person=b"aiops.person").hexdigest()


def identity(*parts: object) -> str:
    """Thirty-two hex digits that are the same for the same values."""
    return hashlib.blake2b(_dumped(list(parts)).encode(), digest_size=16).hexdigest()


def hex_id(value: object, digits: int) -> str | None:
    """A trace or span id as lower-case hex of ``digits`` digits, ``None`` when it is none."""
    if not isinstance(value, str):
        return None
    text = value.replace("-", "").lower()
    return text if len(text) == digits and re.fullmatch("[0-9a-f]+", text) and text.strip("0") else None


class Events:
    """The rows of a batch of deliveries, of every kind, and what could not be read of them.

    Every method that adds a row raises ``Refused`` with the field that is wrong, and adds nothing then.
    """

    def __init__(self) -> None:
        self.columns = PointColumns()
        self.changes = Changes()
        self.entities = Entities()
        self.rejects = Rejects()
        self.productive: set[int] = set()
        self._logs: list[tuple[Any, ...]] = []
        self._errors: list[tuple[Any, ...]] = []
        self._spans: list[tuple[Any, ...]] = []
        self._external: list[tuple[Any, ...]] = []
        self._entities: dict[tuple[str, str], tuple[str | None, dict[str, str], dict[str, None]]] = {}

    def log(
        self,
        delivery: int,
        ts: int | None,
        host: object,
        body: object,
        *,
        app: object = None,
        event_id: object = None,
        pid: object = None,
        severity_number: int | None = None,
        trace_id: object = None,
        span_id: object = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a log event; a ``body`` that is no text is written as JSON."""
        text = prose(body) if not isinstance(body, dict | list) else as_json(body)
        row = (
            delivery,
            _bounded(ts),
            name_of("id", event_id),
            name_of("host", host) or UNKNOWN_HOST,
            name_of("app", app),
            pid if isinstance(pid, int) and not isinstance(pid, bool) and 0 <= pid < _INT64 else None,
            severity_number,
            text or "",
            hex_id(trace_id, 32),
            hex_id(span_id, 16),
            as_json(attributes or {}),
        )
        self._logs.append(row)
        self.productive.add(delivery)

    def error(self, delivery: int, ts: int | None, row: Mapping[str, Any]) -> None:
        """Add an error event; ``row`` holds the other columns, checked here."""
        names = ("event_id", "project", "platform", "host", "service", "release", "environment")
        checked = {name: name_of(name, row.get(name)) for name in names}
        self._errors.append(
            (
                delivery,
                _bounded(ts),
                checked["event_id"],
                checked["project"] or "unknown",
                checked["platform"],
                row.get("severity_number"),
                prose(row.get("type")) or "",
                prose(row.get("value")) or "",
                one_line(row.get("culprit")),
                row.get("handled"),
                row.get("stack"),
                checked["host"],
                checked["service"],
                checked["release"],
                checked["environment"],
                row.get("fingerprint"),
                hex_id(row.get("trace_id"), 32),
                hex_id(row.get("span_id"), 16),
                as_json(row.get("attributes") or {}),
            )
        )
        self.productive.add(delivery)

    def span(self, delivery: int, ts: int, row: Mapping[str, Any]) -> None:
        """Add a span; ``row`` holds the other columns, checked here."""
        trace_id, span_id = hex_id(row.get("trace_id"), 32), hex_id(row.get("span_id"), 16)
        if trace_id is None:
            raise Refused("trace_id: expected 32 hex digits")
        if span_id is None:
            raise Refused("span_id: expected 16 hex digits")
        duration = row.get("duration")
        if not isinstance(duration, int | float) or not math.isfinite(duration) or duration < 0:
            raise Refused("the end: expected a time that is not before the start")
        stamp = _bounded(ts)
        if stamp is None:
            raise Refused("start: expected a time between the years 1 and 9999")
        checked = (
            delivery,
            stamp,
            trace_id,
            span_id,
            hex_id(row.get("parent_span_id"), 16),
            float(duration),
            one_line(row.get("name")) or "unnamed",
            row.get("kind") or "internal",
            name_of("service", row.get("service")) or "unknown",
            name_of("host", row.get("host")),
            row.get("status") or "unset",
            prose(row.get("status_message")),
            as_json(row.get("attributes") or {}),
        )
        self._spans.append(checked)
        self.productive.add(delivery)

    def alert(
        self,
        delivery: int,
        ts: int | None,
        *,
        key: object,
        name: object,
        firing: bool,
        severity_number: int,
        host: object,
        title: object,
        labels: Mapping[str, str] | None = None,
        metric: object = None,
        starts_at: int | None = None,
        ends_at: int | None = None,
        value: float | None = None,
        threshold: float | None = None,
        evidence: Mapping[str, Any] | None = None,
    ) -> None:
        """Add news of an alert that another system raised or resolved.

        Without ``starts_at`` the news is of the alert that is open, if there is one, else it begins at ``ts``.
        """
        given = name_of("key", key)
        if given is None:
            raise Refused("key: is required: what the sender calls this alert")
        for label, text in (labels or {}).items():
            problem = name_problem("a label name", label) or name_problem(f"labels.{label[:64]}", text)
            if problem:
                raise Refused(problem)
        called = one_line(name) or "alert"
        at = name_of("host", host) or UNKNOWN_HOST
        row = (
            delivery,
            _bounded(ts),
            given,
            called,
            "firing" if firing else "resolved",
            severity_number,
            at,
            name_of("metric", metric),
            labels_json(dict(labels or {})),
            _bounded(starts_at),
            None if firing else _bounded(ends_at),
            one_line(title) or f"{called} on {at}",
            value,
            threshold,
            as_json({name: value for name, value in (evidence or {}).items() if value not in (None, "", [], {})}),
        )
        self._external.append(row)
        self.productive.add(delivery)

    def change(self, delivery: int, received_at: int, ts: int | None, host: object, change: Mapping[str, Any]) -> None:
        """Add a change; without an instant of its own it happened when it was received."""
        at = name_of("host", host)
        if at is None:
            raise Refused("host: is required: the host or service that was changed")
        self.changes.add(delivery, at, received_at if ts is None else ts, dict(change))
        self.productive.add(delivery)

    def point(
        self, delivery: int, ts: int, host: object, metric: str, unit: str, kind: str, labels: object, value: float
    ) -> None:
        """Add a point."""
        if not MIN_MICROS <= ts <= MAX_MICROS:
            raise Refused("ts: expected a time between the years 1 and 9999")
        if not math.isfinite(value):
            raise Refused("value: NaN and infinite values are not stored")
        self.columns.add(delivery, self.columns.known_code(host, metric, unit, kind, labels), ts, float(value))
        self.productive.add(delivery)

    def entity(
        self,
        kind: str,
        name: object,
        *,
        site: object = None,
        labels: Mapping[str, str] | None = None,
        depends_on: Iterable[str] = (),
    ) -> None:
        """Remember an entity; what several events tell of one is joined. Names that cannot be stored are left out."""
        if not isinstance(name, str) or name_problem(kind, name) or name == UNKNOWN_HOST:
            return
        place = site if isinstance(site, str) and site and not name_problem("site", site) else None
        known = self._entities.setdefault((kind, name), (None, {}, {}))
        known[1].update(labels or {})
        known[2].update(dict.fromkeys(other for other in depends_on if other not in {name, UNKNOWN_HOST}))
        self._entities[kind, name] = (place or known[0], known[1], known[2])

    def around(self, labels: Mapping[str, Any], host: str | None) -> None:
        """The host and the service that the labels of an event name, and where they are."""
        site = first_of(labels, SITE_LABELS)
        named = first_of(labels, HOST_LABELS)
        service = first_of(labels, SERVICE_LABELS)
        if host and isinstance(named, str):
            self.entity("host", host, site=site)
        if isinstance(service, str):
            on = [host] if host and isinstance(named, str) and not name_problem("host", host) else []
            self.entity("service", service, site=site, depends_on=on)

    def each(
        self, delivery: int, offset: int, items: Sequence[Any], take: Callable[[Any], None], around: Any = None
    ) -> None:
        """Take items one by one; a bad one is rejected alone, wrapped by ``around`` so that it can be sent again."""
        for position, item in enumerate(items):
            try:
                take(item)
            except Refused as error:
                place = f"item {position + 1}: " if len(items) > 1 else ""
                content = item if around is None else around(item)
                self.rejects.add(delivery, offset, f"{place}{error}", json_bytes(content, b"nested too deeply"))
                if self.rejects.full(delivery):
                    return

    def finish(self, deliveries: Sequence[Delivery]) -> Parsed:
        """The frames of everything added."""
        for (kind, name), (site, labels, needed) in self._entities.items():
            self.entities.add(name, {"kind": kind, "site": site, "labels": dict(labels), "depends_on": list(needed)})
        series, points = self.columns.finish()
        return Parsed(
            series,
            points,
            self.changes.frame(),
            self.entities.frame(),
            self.rejects.finish(deliveries, self.productive),
            logs=pl.DataFrame(self._logs, schema=LOGS_SCHEMA, orient="row"),
            errors=pl.DataFrame(self._errors, schema=ERRORS_SCHEMA, orient="row"),
            spans=pl.DataFrame(self._spans, schema=SPANS_SCHEMA, orient="row"),
            external=pl.DataFrame(self._external, schema=EXTERNAL_SCHEMA, orient="row"),
        )


def read_json(deliveries: Sequence[Delivery], take: Callable[[Events, int, Delivery, int, object], None]) -> Parsed:
    """Read deliveries whose bodies are JSON documents, one or one a line.

    ``take(events, index, delivery, offset, document)`` adds the rows of one document; what it refuses is rejected.
    """
    events = Events()
    for index, delivery in enumerate(deliveries):
        try:
            body = unpacked(delivery)
            for offset, document in documents(index, body, events.rejects):
                try:
                    take(events, index, delivery, offset, document)
                except Refused as error:
                    events.rejects.add(index, offset, str(error), json_bytes(document, body))
                if events.rejects.full(index):
                    break
        except UnreadableBody as error:
            events.rejects.add(index, 0, str(error), delivery.body)
    return events.finish(deliveries)


def _bounded(micros: int | None) -> int | None:
    return micros if micros is not None and MIN_MICROS <= micros <= MAX_MICROS else None
