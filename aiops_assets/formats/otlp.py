"""What the three signals of OTLP share: resources, attribute values, and requests in parts that can be read alone.

What belongs here: from a resource to host, service and entities; OTLP's values in protobuf and JSON; a request's frame
of resources, scopes and records (``opentelemetry/proto/*/v1``, the same field numbers in all three). What does not:
metrics, logs and spans themselves (``otlp_metrics``, ``otlp_logs``, ``otlp_traces``).

The host is ``host.name``, else ``service.instance.id`` unless that is a random UUID, else ``k8s.pod.name``, else
``service.name``, else that UUID. JSON is OTLP's own: lowerCamelCase, 64-bit integers as strings or numbers, identifiers
in hex, enumerations as integers (their names are read too).
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import orjson
import polars as pl
from google.protobuf.message import DecodeError

from aiops_assets.formats import wire
from aiops_assets.formats.batch import ENTITIES_SCHEMA, MAX_NAME_CHARS, labels_json
from aiops_assets.formats.payload import FORBIDDEN, Refused, Rejects, UnreadableBody, documents, json_bytes, unpacked
from aiops_assets.formats.records import checked_host
from aiops_assets.landing.segment import Delivery

UNKNOWN_HOST = "unknown"
UNKNOWN_SERVICE = "unknown_service"
_UUID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", re.IGNORECASE)
_SITES = ("site", "cloud.availability_zone", "cloud.region", "k8s.cluster.name")
_OF_HOST = ("host.id", "host.type", "host.arch", "os.type", "os.description", "cloud.provider", "cloud.region")
_OF_SERVICE = (
    "service.namespace", "service.version", "deployment.environment.name", "deployment.environment",
    "telemetry.sdk.language",
)  # fmt: skip
_HEX_ID = re.compile(r"[0-9a-fA-F]+", re.ASCII)
_INT = re.compile(r"-?\d{1,20}", re.ASCII)
_SIGNED_64 = (-(2**63), 2**63 - 1)
_RESOURCE, _SCOPES, _RECORDS = b"\x0a", b"\x12", b"\x12"
_MAX_DEPTH = 64
#: resources of more bytes are read record by record, because objects are many times the size of tiny records
MAX_WHOLE_BYTES = 1024 * 1024
MAX_RECORDS = 200_000
#: what longer resources were read as is not kept
_MAX_KEPT_BYTES = 16_384


class Sender(NamedTuple):
    """What a resource says: who sends. ``attributes`` are all of them as plain values."""

    host: str
    service: str | None
    attributes: Mapping[str, Any]


def sender_of(attributes: Mapping[str, Any]) -> Sender:
    """Host and service of a resource.

    Raises:
        Refused: their names cannot be stored.
    """
    order = ["host.name", "service.instance.id", "k8s.pod.name", "service.name"]
    names = {key: text_of(attributes[key]) for key in order if attributes.get(key)}
    instance = names.get("service.instance.id")
    if instance is not None and _UUID.fullmatch(instance):
        order.append(order.pop(1))
    host = next((names[key] for key in order if key in names), UNKNOWN_HOST)
    service = names.get("service.name")
    checked_host(host, "the host of the resource")
    if service is not None:
        checked_host(service, "service.name")
    return Sender(host, service, attributes)


class Senders:
    """Rows of the entities frame: a row for each service with the hosts it was seen on, and one for each host."""

    def __init__(self) -> None:
        self._hosts: dict[str, tuple[str | None, str]] = {}
        self._services: dict[str, tuple[str | None, str, set[str]]] = {}

    def add(self, sender: Sender) -> None:
        attributes = sender.attributes
        site = next((_short(attributes[key]) for key in _SITES if key in attributes), None)
        if sender.service is not None:
            entry = self._services.setdefault(sender.service, (site, _described(attributes, _OF_SERVICE), set()))
            if sender.host != sender.service:
                entry[2].add(sender.host)
        if sender.host not in {UNKNOWN_HOST, sender.service}:
            self._hosts.setdefault(sender.host, (site, _described(attributes, _OF_HOST)))

    def frame(self) -> pl.DataFrame:
        rows: list[tuple[str, str, str | None, str, list[str]]] = [
            ("service", name, site, labels, sorted(hosts)) for name, (site, labels, hosts) in self._services.items()
        ]
        rows += [
            ("host", name, site, labels, [])
            for name, (site, labels) in self._hosts.items()
            if name not in self._services
        ]
        return pl.DataFrame(rows, schema=ENTITIES_SCHEMA, orient="row")


def _described(attributes: Mapping[str, Any], keys: Sequence[str]) -> str:
    found = {key: _short(attributes[key]) for key in keys if key in attributes}
    return labels_json({key: value for key, value in found.items() if value is not None})


def _short(value: object) -> str | None:
    """A value that can be a label or a site, ``None`` when it cannot."""
    text = text_of(value)
    return text if text and len(text) <= MAX_NAME_CHARS and not FORBIDDEN.search(text) else None


def text_of(value: object) -> str:
    """A plain value as a label shows it: text as it is, everything else as JSON."""
    if isinstance(value, str):
        return value
    return orjson.dumps(value).decode()


def attributes_text(attributes: Mapping[str, Any]) -> str:
    """Attributes as JSON with sorted keys.

    Raises:
        Refused: they hold text that UTF-8 cannot hold, or are nested too deeply.
    """
    try:
        return orjson.dumps(attributes, option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONEncodeError as error:
        raise Refused(f"attributes: {error}") from error


def scoped(attributes: dict[str, Any], sender: Sender, scope: str, **more: Any) -> str:
    """The attributes of a record as JSON, with its resource, its scope and what else was sent.

    Raises:
        Refused: as ``attributes_text``.
    """
    extra = {name: value for name, value in more.items() if value}
    if scope:
        extra["scope"] = scope
    if sender.attributes:
        extra["resource"] = sender.attributes
    for name, value in extra.items():
        attributes[f"otel.{name}" if name in attributes else name] = value
    return attributes_text(attributes)


# -- values ---------------------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """An ``AnyValue`` of the protobuf library as a plain value; bytes as base64, numbers that JSON lacks as text."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind == "double_value":
        return _finite_or_text(value.double_value)
    if kind == "array_value":
        return [plain(entry) for entry in value.array_value.values]
    if kind == "kvlist_value":
        return plain_attributes(value.kvlist_value.values)
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    return None if kind is None else getattr(value, kind)


def plain_attributes(attributes: Any) -> dict[str, Any]:
    """Repeated ``KeyValue`` of the protobuf library as a dict; the last of a key stays."""
    return {entry.key: plain(entry.value) for entry in attributes}


def _finite_or_text(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def plain_of_json(value: object, depth: int = 0) -> Any:
    """An ``AnyValue`` of OTLP's JSON as a plain value.

    Raises:
        Refused: it is none.
    """
    if value is None or value == {}:
        return None
    if not isinstance(value, dict) or depth > _MAX_DEPTH:
        raise Refused('value: expected {"stringValue": …} or the like')
    for name, inner in value.items():
        if name == "stringValue":
            if not isinstance(inner, str):
                raise Refused("stringValue: expected a string")
            return inner
        if name == "boolValue":
            return bool(inner)
        if name == "intValue":
            return integer("intValue", inner)
        if name == "doubleValue":
            return _finite_or_text(double("doubleValue", inner))
        if name == "bytesValue":
            return str(inner)
        if name in {"arrayValue", "kvlistValue"}:
            values = inner.get("values", []) if isinstance(inner, dict) else None
            if not isinstance(values, list):
                raise Refused(f'{name}: expected {{"values": […]}}')
            if name == "arrayValue":
                return [plain_of_json(entry, depth + 1) for entry in values]
            return json_attributes(values, depth + 1)
    return None


def json_attributes(attributes: object, depth: int = 0) -> dict[str, Any]:
    """Attributes of OTLP's JSON (``[{"key", "value"}]``) as a dict; the last of a key stays.

    Raises:
        Refused: they are none.
    """
    if attributes is None:
        return {}
    if not isinstance(attributes, list):
        raise Refused('attributes: expected [{"key", "value"}]')
    found: dict[str, Any] = {}
    for entry in attributes:
        key = entry.get("key") if isinstance(entry, dict) else None
        if not isinstance(key, str):
            raise Refused('attributes: expected [{"key", "value"}]')
        found[key] = plain_of_json(entry.get("value"), depth)
    return found


def integer(field: str, value: object) -> int:
    """A 64-bit integer of OTLP's JSON: a number, or digits in a string.

    Raises:
        Refused: it is none.
    """
    if isinstance(value, str) and _INT.fullmatch(value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not _SIGNED_64[0] <= value <= 2 * _SIGNED_64[1] + 1:
        raise Refused(f"{field}: expected an integer of 64 bits, as a string")
    return value


def double(field: str, value: object) -> float:
    """A number of OTLP's JSON, which writes those that JSON lacks as text.

    Raises:
        Refused: it is none.
    """
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise Refused(f"{field}: expected a number") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(f"{field}: expected a number")
    try:
        return float(value)
    except OverflowError:
        raise Refused(f"{field}: too large for a number") from None


def enumerated(field: str, value: object, names: Mapping[str, int]) -> int:
    """An enumeration's number, sent as a number or a name.

    Raises:
        Refused: it is none of them.
    """
    if value is None:
        return 0
    if isinstance(value, str) and value in names:
        return names[value]
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refused(f"{field}: expected one of the integers {', '.join(str(number) for number in names.values())}")
    return value


def hex_id(field: str, value: object, digits: int) -> str | None:
    """An identifier of OTLP's JSON in lower case; ``None`` when it is missing or nothing but zeros.

    Raises:
        Refused: it is none.
    """
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) != digits or not _HEX_ID.fullmatch(value):
        raise Refused(f"{field}: expected {digits} hex digits")
    return value.lower() if value.strip("0") else None


def id_of_bytes(field: str, value: bytes, digits: int) -> str | None:
    """An identifier of protobuf in lower-case hex; ``None`` when it is missing or nothing but zeros.

    Raises:
        Refused: it has another length.
    """
    if not value:
        return None
    if 2 * len(value) != digits:
        raise Refused(f"{field}: expected {digits // 2} bytes")
    return value.hex() if any(value) else None


def micros_of_nanos(nanos: int) -> int | None:
    """Microseconds, rounded down; ``None`` for zero, which stands for an unknown time."""
    return nanos // 1000 if nanos else None


def storable(field: str, text: str) -> str:
    """A text as it is.

    Raises:
        Refused: UTF-8 cannot hold it.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Refused(f"{field}: lone surrogates cannot be stored") from None
    return text


def texts_of_json(record: Mapping[str, Any], field: str) -> str:
    """A text field of OTLP's JSON, empty when missing.

    Raises:
        Refused: it is no text.
    """
    value = record.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Refused(f"{field}: expected a string")
    return storable(field, value)


# -- requests -------------------------------------------------------------------------------------------------------


def is_json(delivery: Delivery, body: bytes) -> bool:
    """Whether a body is JSON: by its content type, without a telling one by its first byte (no protobuf's)."""
    content_type = delivery.content_type.lower()
    if "json" in content_type:
        return True
    return "protobuf" not in content_type and body[:1] == b"{"


def request_body(delivery: Delivery) -> bytes:
    """The plain body of an export request.

    Raises:
        UnreadableBody: damaged, or larger than 64 MiB.
    """
    body = unpacked(delivery)
    if len(body) > wire.MAX_MESSAGE_BYTES:
        raise UnreadableBody(f"an export request of more than {wire.MAX_MESSAGE_BYTES // 1024 // 1024} MiB")
    return body


def sender_of_bytes(resource: bytes) -> Sender:
    """The sender that an encoded ``Resource`` names.

    Raises:
        DecodeError: it is none.
        Refused: as ``sender_of``.
    """
    return _small_sender(resource) if len(resource) <= _MAX_KEPT_BYTES else _small_sender.__wrapped__(resource)


@lru_cache(maxsize=4096)
def _small_sender(resource: bytes) -> Sender:
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource

    return sender_of(plain_attributes(Resource.FromString(resource).attributes))


def resources(index: int, body: bytes, rejects: Rejects) -> Iterator[tuple[int, int, int]]:
    """Where the resources of a protobuf request lie: field, content, end. What is malformed is rejected to the end."""
    at, end = 0, len(body)
    try:
        while at < end:
            field = wire.field_at(body, at, end)
            if field.number == 1 and field.wire == wire.BYTES:
                yield field.at, field.start, field.end
            at = field.end
    except wire.Malformed as error:
        reason = f"no export request from byte {error.offset}: {error}"
        rejects.add(index, at, reason, body[at:])


def parts(index: int, body: bytes, rejects: Rejects, message: Any) -> Iterator[tuple[int, Any]]:
    """The resources of a protobuf request as ``message`` of the library, with their byte offsets.

    A resource that the library refuses is taken apart: each record of it comes alone, and what is refused even so is
    rejected alone, framed so that it can be read again.
    """
    for at, start, end in resources(index, body, rejects):
        if end - start <= MAX_WHOLE_BYTES:
            try:
                yield at, message.FromString(body[start:end])
                continue
            except DecodeError:
                pass
        try:
            whole = wire.fields(body, start, end)
        except wire.Malformed as error:
            rejects.add(index, at, f"not valid from byte {error.offset}: {error}", body[at:end])
            continue
        yield from _records(index, body, whole, rejects, message)


def _records(
    index: int, body: bytes, whole: list[wire.Field], rejects: Rejects, message: Any
) -> Iterator[tuple[int, Any]]:
    resource = wire.framed(_RESOURCE, joined(body, whole, 1))
    for scope in whole:
        if scope.number != 2 or scope.wire != wire.BYTES:
            continue
        about, at, count = b"", scope.start, 0
        while at < scope.end:
            try:
                record = wire.field_at(body, at, scope.end)
                if count == MAX_RECORDS:
                    raise wire.Malformed(at, f"more than {MAX_RECORDS:,} records in a scope")
            except wire.Malformed as error:
                rest = resource + wire.framed(_SCOPES, about + body[at : scope.end])
                reason = f"not valid from byte {error.offset}: {error}"
                rejects.add(index, at, reason, wire.framed(_RESOURCE, rest))
                break
            at = record.end
            if record.wire != wire.BYTES:
                continue
            if record.number == 1:
                about += body[record.at : record.end]
            if record.number != 2:
                continue
            count += 1
            part = resource + wire.framed(_SCOPES, about + body[record.at : record.end])
            try:
                yield record.at, message.FromString(part)
            except DecodeError as error:
                rejects.add(index, record.at, f"not valid: {error}", wire.framed(_RESOURCE, part))
                if rejects.full(index):
                    return


def record_of(resource: Any) -> bytes:
    """A request with one resource of the protobuf library."""
    return wire.framed(_RESOURCE, resource.SerializeToString())


def joined(body: bytes, fields: Sequence[wire.Field], number: int) -> bytes:
    """The content of a message field; one that is sent in several pieces is their sum."""
    return b"".join(
        body[field.start : field.end] for field in fields if field.number == number and field.wire == wire.BYTES
    )


class JsonPart(NamedTuple):
    """A scope of OTLP's JSON with its records; ``content`` makes a request of some of them."""

    offset: int
    resource: Mapping[str, Any]
    scope: str
    records: list[Any]
    content: Callable[[list[Any]], bytes]


def json_parts(index: int, body: bytes, rejects: Rejects, signal: str, records: str) -> Iterator[JsonPart]:
    """The scopes of a JSON request: ``signal`` is Metrics, Logs or Spans, ``records`` metrics, logRecords or spans.

    Raises:
        UnreadableBody: no JSON.
    """
    outer, inner = f"resource{signal}", f"scope{signal}"
    expected = f'expected {{"{outer}": [{{"resource", "{inner}": [{{"scope", "{records}"}}]}}]}}'
    for offset, document in documents(index, body, rejects):
        found = document.get(outer) if isinstance(document, dict) else None
        if not isinstance(found, list):
            rejects.add(index, offset, expected, json_bytes(document, body) + b"\n")
            continue
        for entry in found:
            try:
                if not isinstance(entry, dict):
                    raise Refused(expected)
                resource = entry.get("resource") or {}
                scopes = entry.get(inner) or []
                if not isinstance(resource, dict) or not isinstance(scopes, list):
                    raise Refused(expected)
                attributes = json_attributes(resource.get("attributes"))
                for scope in scopes:
                    if not isinstance(scope, dict) or not isinstance(scope.get(records) or [], list):
                        raise Refused(expected)
            except Refused as error:
                rejects.add(index, offset, str(error), json_bytes({outer: [entry]}, body) + b"\n")
                continue
            for scope in scopes:
                about = scope.get("scope") or {}
                name = about.get("name") if isinstance(about, dict) else None

                def content(chosen: list[Any], resource: Any = resource, about: Any = about) -> bytes:
                    part = {"resource": resource, inner: [{"scope": about, records: chosen}]}
                    return json_bytes({outer: [part]}, body) + b"\n"

                yield JsonPart(
                    offset, attributes, name if isinstance(name, str) else "", scope.get(records) or [], content
                )
