"""Elasticsearch's bulk API as shippers know it: the handshake, and one answer for each action.

What belongs here: that protocol's words. What does not: the documents (``formats.elastic_bulk``). Only what shippers
need is here; templates, index lifecycles and searches are turned off in their configuration.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import time
from collections.abc import Mapping

import orjson

from aiops_assets.formats.payload import UnreadableBody, decoded
from aiops_assets.gateway.answers import Headers, Refusal, Send, answer_json
from aiops_assets.gateway.credentials import key_of
from aiops_assets.gateway.dialects import Dialect, RawHeaders
from aiops_assets.landing.segment import Delivery

#: the version whose bulk API this is; shippers refuse servers older than themselves
VERSION = "8.19.0"
PRODUCT: Headers = ((b"x-elastic-product", b"Elasticsearch"),)
#: as far as this a body is read for its answer; shippers send a hundredth of it at once
MAX_UNPACKED_BYTES, MAX_ITEMS = 64 * 1024 * 1024, 500_000
_LINES = re.compile(rb"[^\n]+")
#: longer bodies are answered from a thread
_LONG = 64 * 1024
_TYPES = {
    400: "illegal_argument_exception",
    401: "security_exception",
    403: "security_exception",
    405: "method_not_allowed_exception",
    413: "content_too_long_exception",
    415: "media_type_header_exception",
    429: "es_rejected_execution_exception",
    503: "cluster_block_exception",
}
_WORDS = {"index": "created", "create": "created", "update": "updated", "delete": "deleted"}
_HANDSHAKE: dict[str, object] = {
    "name": "aiops",
    "cluster_name": "aiops",
    "cluster_uuid": "aiops",
    "version": {
        "number": VERSION,
        "build_flavor": "default",
        "build_type": "docker",
        "build_hash": "0" * 40,
        "build_date": "2025-07-01T00:00:00.000000000Z",
        "build_snapshot": False,
        "lucene_version": "9.12.1",
        "minimum_wire_compatibility_version": "7.17.0",
        "minimum_index_compatibility_version": "7.0.0",
    },
    "tagline": "You Know, for Search",
}
_LICENCE = {"license": {"status": "active", "type": "basic", "mode": "basic", "uid": "aiops"}}
_CLUSTER = {"cluster_name": "aiops", "status": "green", "timed_out": False, "number_of_nodes": 1}
#: what shippers ask before they send, and the answer
HANDSHAKE: Mapping[str, object] = {
    "/": _HANDSHAKE,
    "/_license": _LICENCE,
    "/_cluster/health": _CLUSTER,
    "/_cat/health": [{"cluster": "aiops", "status": "green", "node.total": "1"}],
}


class Bulk(Dialect):
    """``{"took", "errors", "items"}`` with one item an action; what is poison is taken and quarantined later."""

    keeps_empty = False
    reads_what_it_refuses = True

    def key(self, headers: RawHeaders, _query: bytes) -> bytes | None:
        authorization = headers.get(b"authorization", b"")
        if authorization[:7].lower() == b"apikey ":
            return _api_key(authorization[7:].strip())
        return key_of(headers)

    def unauthorized(self, _headers: RawHeaders, key: bytes | None) -> Refusal:
        reason = "missing authentication credentials" if key is None else "unable to authenticate with this key"
        challenge = (b"www-authenticate", b'Basic realm="aiops", charset="UTF-8", ApiKey')
        return Refusal(401, "unauthorized", reason, (challenge,))

    def is_empty(self, body: bytes) -> bool:
        if not body:
            raise Refusal(400, "empty", "request body is required")
        return False

    async def accepted(self, send: Send, delivery: Delivery, _headers: RawHeaders) -> None:
        await _answer(send, delivery, None)

    async def not_kept(self, send: Send, refusal: Refusal, delivery: Delivery, headers: RawHeaders) -> None:
        """Refuse each action with 429, as an overloaded Elasticsearch does."""
        if refusal.status == 503 and delivery.body:
            await _answer(send, delivery, refusal)
        else:
            await self.refused(send, refusal, headers)

    def hears_only_silence(self, headers: RawHeaders) -> bool:
        # rsyslog gives up what is refused in any words; it is the shipper that does not say who it is.
        return b"user-agent" not in headers

    async def refused(self, send: Send, refusal: Refusal, _headers: RawHeaders) -> None:
        kind = _TYPES.get(refusal.status, "exception")
        cause = {"type": kind, "reason": refusal.message}
        answer = {"error": {"root_cause": [cause], **cause}, "status": refusal.status}
        await answer_json(send, refusal.status, answer, (*refusal.headers, *PRODUCT))


def _api_key(encoded: bytes) -> bytes | None:
    """The key in ``ApiKey base64(id:key)``; what is no such thing is taken for the key itself."""
    try:
        name, colon, key = base64.b64decode(encoded, validate=True).partition(b":")
    except binascii.Error:
        return encoded
    return key if colon and name else encoded


async def _answer(send: Send, delivery: Delivery, refusal: Refusal | None) -> None:
    started = time.perf_counter()
    if len(delivery.body) > _LONG or "content-encoding" in delivery.headers:
        items = await asyncio.to_thread(answered_items, delivery, refusal)
    else:
        items = answered_items(delivery, refusal)
    took = int((time.perf_counter() - started) * 1000)
    errors = b"false" if refusal is None else b"true"
    body = b'{"took":%d,"errors":%s,"items":[' % (took, errors) + b",".join(items) + b"]}"
    length = (b"content-length", str(len(body)).encode())
    more = refusal.headers if refusal is not None else ()
    start = [(b"content-type", b"application/json"), length, *PRODUCT, *more]
    await send({"type": "http.response.start", "status": 200 if refusal is None else 429, "headers": start})
    await send({"type": "http.response.body", "body": body})


def answered_items(delivery: Delivery, refusal: Refusal | None = None) -> list[bytes]:
    """One JSON item for each action of a bulk body, as far as it can be read; shippers match them by place."""
    try:
        body = decoded(delivery.body, delivery.headers.get("content-encoding", ""), MAX_UNPACKED_BYTES)
    except UnreadableBody:
        return []
    index = delivery.headers.get("index", "aiops")
    known: dict[bytes, tuple[bytes, bool]] = {}
    items: list[bytes] = []
    is_document = False
    for match in _LINES.finditer(body):
        if is_document:
            is_document = False
            continue
        line = match[0]
        if line.isspace():
            continue
        if len(items) == MAX_ITEMS:
            break
        found = known.get(line)
        if found is None:
            found = _item(line, index, f"{delivery.delivery_id}-{len(items)}", refusal)
            if len(known) < 1000:
                known[line] = found
        items.append(found[0])
        is_document = found[1]
    return items


def _item(line: bytes, index: str, identifier: str, refusal: Refusal | None) -> tuple[bytes, bool]:
    """The answer to one action line, and whether a document follows it."""
    name: str = "index"
    details: object = {}
    try:
        action = orjson.loads(line)
        if isinstance(action, dict) and len(action) == 1 and next(iter(action)) in _WORDS:
            name, details = next(iter(action.items()))
    except orjson.JSONDecodeError:
        pass
    fields: Mapping[str, object] = details if isinstance(details, dict) else {}
    item: dict[str, object] = {
        "_index": str(fields.get("_index") or index),
        "_id": str(fields.get("_id") or identifier),
    }
    if refusal is not None:
        item |= {"status": 429, "error": {"type": _TYPES[429], "reason": refusal.message}}
    else:
        status = 201 if name in {"index", "create"} else 200
        item |= {"_version": 1, "result": _WORDS[name], "status": status}
    return orjson.dumps({name: item}), name != "delete"


async def answer_handshake(send: Send, path: str) -> None:
    """Answer what a shipper asks before it sends."""
    await answer_json(send, 200, HANDSHAKE[path], PRODUCT)
