"""Damaged payloads for the tests of formats, and the accounting that every parser owes for whatever it is given."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pytest

from aiops_assets.formats.batch import (
    CHANGES_SCHEMA,
    ENTITIES_SCHEMA,
    ERRORS_SCHEMA,
    EXTERNAL_SCHEMA,
    LOGS_SCHEMA,
    POINTS_SCHEMA,
    SERIES_SCHEMA,
    SPANS_SCHEMA,
    Parsed,
    labels_json,
)
from aiops_assets.hours import micros
from aiops_assets.landing.segment import Delivery
from aiops_assets.settings import load_settings

#: requests of real clients, where they are at hand
CAPTURES = load_settings().real_data / "captures"
NOW = 1_760_000_000_123_456
SCHEMAS = {
    "series": SERIES_SCHEMA,
    "points": POINTS_SCHEMA,
    "changes": CHANGES_SCHEMA,
    "entities": ENTITIES_SCHEMA,
    "logs": LOGS_SCHEMA,
    "errors": ERRORS_SCHEMA,
    "spans": SPANS_SCHEMA,
    "external": EXTERNAL_SCHEMA,
}
#: values that senders should not send where they stand, and do
_ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 2**63, 2**64, -(2**63), 1e308, "",
    "x", "\x00", "\n", "\ud800", "é" * 40, "a" * 2_000,
    "NaN", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-11-20T08:00:27.824314362Z", 1_795_160_829,
    [], {}, [[]], [None], {"": ""}, {"a": {"b": []}}, ["x"], [1, 2, 3], {"values": "x"}, {"@odata.id": 3},
)  # fmt: skip


def delivery(body: object, headers: dict[str, str] | None = None, content_type: str = "") -> Delivery:
    """A delivery of bytes, or of an object as JSON."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    return Delivery("id", NOW, "web", content_type, data, headers or {})


def captured(name: str) -> bytes:
    """The body of a captured request; the test is skipped where there is none."""
    path = CAPTURES / f"{name}.http"
    if not path.exists():
        pytest.skip(f"no captured request at {path} (AIOPS_REAL_DATA)")
    return path.read_bytes().split(b"\r\n\r\n", 1)[1]


def odd_value(value: Any, chance: random.Random) -> Any:
    """A JSON value with one of its parts replaced, removed, doubled or renamed."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        name = chance.choice(list(value))
        copy = dict(value)
        action = chance.random()
        if action < 0.1:
            del copy[name]
        elif action < 0.2:
            copy[chance.choice(("", "\n", "x" * 1_100, "type", "\ud800"))] = copy.pop(name)
        else:
            copy[name] = odd_value(value[name], chance)
        return copy
    if isinstance(value, list) and value and chance.random() < 0.9:
        place = chance.randrange(len(value))
        if chance.random() < 0.1:
            return [*value, value[place]]
        return [*value[:place], odd_value(value[place], chance), *value[place + 1 :]]
    return chance.choice(_ODD)


def damaged(body: bytes, chance: random.Random) -> bytes:
    """The bytes with something replaced, removed, repeated or cut off."""
    data = bytearray(body)
    for _ in range(chance.choice((1, 1, 2, 5))):
        if not data:
            break
        start = chance.randrange(len(data))
        end = min(len(data), start + chance.choice((1, 1, 2, 10, 100)))
        action = chance.randrange(5)
        if action == 0:
            data[start:end] = bytes(chance.randrange(256) for _ in range(end - start))
        elif action == 1:
            del data[start:end]
        elif action == 2:
            data[start:start] = data[start:end]
        elif action == 3:
            del data[start:]
        else:
            data[start:start] = chance.choice((b"\n", b"\x00", b'"', b"{", b"]", b"\\", b"\xff", b"1e999", b"null"))
    return bytes(data)


def mutated(sample: object, seed: int) -> bytes:
    """A sample (JSON, or bytes) with some damage, the same for the same seed."""
    chance = random.Random(seed)
    if not isinstance(sample, bytes) and chance.random() < 0.7:
        value = sample
        for _ in range(chance.choice((1, 1, 2, 4))):
            value = odd_value(value, chance)
        try:
            return orjson.dumps(value)
        except orjson.JSONEncodeError:
            import json

            return json.dumps(value).encode()
    return damaged(sample if isinstance(sample, bytes) else orjson.dumps(sample), chance)


def accounted(parse: Callable[[Sequence[Delivery]], Parsed], deliveries: Sequence[Delivery]) -> Parsed:
    """Parse, and check what every format owes: schemas, bounds, readable JSON, every delivery accounted for."""
    parsed = parse(deliveries)
    seen: set[int] = set()
    for name, schema in SCHEMAS.items():
        frame = getattr(parsed, name)
        assert dict(frame.schema) == schema, name
        if "delivery" in schema:
            seen |= set(frame["delivery"].to_list())
    rejected = {reject.delivery for reject in parsed.rejects}
    assert seen | rejected <= set(range(len(deliveries)))
    if parsed.entities.is_empty():
        assert seen | rejected == set(range(len(deliveries)))
    for reject in parsed.rejects:
        assert reject.reason
        assert reject.content or not deliveries[reject.delivery].body
    assert parsed.points["value"].is_finite().all()
    if parsed.points.height:
        assert int(parsed.points["series"].max()) < parsed.series.height  # type: ignore[arg-type]
    for name in ("logs", "errors", "spans", "external"):
        for row in getattr(parsed, name).iter_rows(named=True):
            for field in ("attributes", "evidence", "stack", "fingerprint"):
                if row.get(field) is not None:
                    orjson.loads(row[field])
            for field in ("host", "service", "app", "project"):
                assert row.get(field) is None or 0 < len(row[field]) <= 1_024
            assert row["ts"] is None or abs(row["ts"]) < micros_of_year_10000()
    for text in (*parsed.series["labels"].to_list(), *parsed.external["labels"].to_list()):
        assert labels_json(orjson.loads(text)) == text
    for row in parsed.external.iter_rows(named=True):
        assert row["key"]
        assert row["name"]
        assert row["title"]
        assert row["host"]
        assert row["state"] in {"firing", "resolved"}
        assert row["state"] == "resolved" or row["ends_at"] is None
        assert 1 <= row["severity_number"] <= 24
    return parsed


def micros_of_year_10000() -> int:
    """The first microsecond that no datetime holds."""
    from datetime import UTC, datetime

    return micros(datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)) + 1


def rows(parsed: Parsed) -> list[tuple[str, str, str, str, str, int, float]]:
    """(host, metric, unit, kind, labels, ts, value) of every point."""
    series = parsed.series.rows()
    return [
        (host, metric, unit, kind, labels, ts, value)
        for _, number, ts, value in parsed.points.iter_rows()
        for host, metric, unit, labels, kind in (series[number],)
    ]


def external(parsed: Parsed) -> list[dict[str, Any]]:
    """External alerts as dictionaries, with their JSON read."""
    return [
        {**row, "labels": orjson.loads(row["labels"]), "evidence": orjson.loads(row["evidence"])}
        for row in parsed.external.iter_rows(named=True)
    ]


def entities(parsed: Parsed) -> dict[str, tuple[str, str | None, list[str]]]:
    """name → (kind, site, depends_on)."""
    return {row["name"]: (row["kind"], row["site"], row["depends_on"]) for row in parsed.entities.iter_rows(named=True)}
