"""Three made-up hosts: an ordinary week, and the minute in which a bad deploy on one fills the disk of another.

Every value is a pure function of (seed, signal, instant), so any window can be made again, alone, and overlaps agree.
Noise is a hash of those three turned into a normal deviate (SplitMix64, Steele et al. 2014; Box and Muller 1958).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import xxhash
from numpy.typing import NDArray

from aiops_assets.hours import MICROS_PER_SECOND

WEB, SECOND_WEB, DATABASE = "try-web-1", "try-web-2", "try-db-1"
HOSTS = (WEB, SECOND_WEB, DATABASE)
DEPENDS_ON: Mapping[str, tuple[str, ...]] = {WEB: (DATABASE,), SECOND_WEB: (DATABASE,), DATABASE: ()}
#: on every series, so that nobody takes them for real
MARK = {"synthetic": "true"}
SITE = "try"
_DAY, _WEEK = 86_400.0, 604_800.0
#: seconds into the story at which the deploy is rolled out, and at which the disk is full
DEPLOY_AT, DISK_FULL_AT = 3.0, 33.0


@dataclass(frozen=True, slots=True)
class Signal:
    """One series. ``daily`` and ``weekly`` are amplitudes relative to ``level``, ``noise`` a relative deviation."""

    host: str
    metric: str
    unit: str
    level: float
    daily: float = 0.0
    weekly: float = 0.0
    noise: float = 0.02
    most: float = float("inf")
    kind: str = "gauge"
    labels: Mapping[str, str] = field(default_factory=dict)


def _web(host: str) -> tuple[Signal, ...]:
    return (
        Signal(host, "system.cpu.utilization", "1", 0.34, 0.35, 0.10, 0.05, 1.0, "ratio", {"cpu": "total"}),
        Signal(host, "system.memory.utilization", "1", 0.58, 0.05, 0.02, 0.01, 1.0, "ratio"),
        Signal(host, "system.filesystem.utilization", "1", 0.41, 0.0, 0.0, 0.001, 1.0, "ratio", {"mountpoint": "/"}),
        Signal(host, "http.server.request.rate", "{request}/s", 180.0, 0.50, 0.15, 0.06, kind="rate"),
        Signal(host, "http.server.request.duration.p95", "s", 0.120, 0.15, 0.05, 0.05),
        Signal(host, "http.server.error.ratio", "1", 0.004, 0.10, 0.0, 0.20, 1.0, "ratio"),
        Signal(host, "log.records.rate", "{record}/s", 45.0, 0.40, 0.10, 0.08, kind="rate"),
    )


_DATA = {"mountpoint": "/var/lib/postgresql", "device": "/dev/vdb1"}
SIGNALS: tuple[Signal, ...] = (
    *_web(WEB),
    *_web(SECOND_WEB),
    Signal(DATABASE, "system.cpu.utilization", "1", 0.28, 0.30, 0.10, 0.05, 1.0, "ratio", {"cpu": "total"}),
    Signal(DATABASE, "system.memory.utilization", "1", 0.71, 0.02, 0.01, 0.005, 1.0, "ratio"),
    Signal(DATABASE, "system.filesystem.utilization", "1", 0.62, 0.0, 0.0, 0.001, 1.0, "ratio", _DATA),
    Signal(DATABASE, "system.disk.io", "By/s", 4.0e6, 0.45, 0.12, 0.08, kind="rate", labels={"direction": "write"}),
    Signal(DATABASE, "db.client.connections", "{connection}", 64.0, 0.30, 0.10, 0.04),
)


def values(signal: Signal, ts: NDArray[np.int64], seed: int = 1) -> NDArray[np.float64]:
    """Ordinary values of a signal.

    Args:
        ts: int64, microseconds since the epoch (UTC).

    Returns:
        float64 of the same length, in the signal's unit, never negative, at most ``signal.most``.
    """
    seconds = ts / MICROS_PER_SECOND
    # Busiest at 14:00 UTC, quietest at night; weekends lie below weekdays.
    daily = signal.daily * np.cos(2 * np.pi * (seconds % _DAY / _DAY - 14 / 24))
    weekday = (np.floor(seconds / _DAY) + 3) % 7
    weekly = np.where(weekday >= 5, -signal.weekly, signal.weekly * 0.4)
    made = signal.level * (1 + daily + weekly) * (1 + signal.noise * _normal(signal, ts, seed))
    return np.clip(made, 0.0, signal.most)


def _normal(signal: Signal, ts: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    name = f"{seed}|{signal.host}|{signal.metric}|{sorted(signal.labels.items())}"
    salt = xxhash.xxh3_64_intdigest(name.encode())
    first = _uniform(ts.astype(np.uint64) ^ np.uint64(salt))
    second = _uniform(ts.astype(np.uint64) ^ np.uint64(salt ^ 0x5851F42D4C957F2D))
    return np.sqrt(-2.0 * np.log1p(-first)) * np.cos(2 * np.pi * second)


def _uniform(keys: NDArray[np.uint64]) -> NDArray[np.float64]:
    """[0, 1) from 64-bit keys: the SplitMix64 finaliser, its upper 53 bits."""
    mixed = keys + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def story(signal: Signal, elapsed: float, ordinary: float) -> float:
    """A value while the deploy goes wrong; ``elapsed`` in seconds since the story began.

    The new release logs every query and holds transactions open: errors and latency of ``try-web-1`` rise at once, its
    log volume twentyfold, and the write-ahead log fills the data disk of ``try-db-1``.
    """
    since = elapsed - DEPLOY_AT
    if since < 0:
        return ordinary
    ramp = min(1.0, since / 4.0)
    if signal.host == WEB:
        grown = {
            "http.server.request.duration.p95": 1 + 11 * ramp,
            "http.server.error.ratio": 1 + 44 * ramp,
            "log.records.rate": 1 + 19 * ramp,
            "system.cpu.utilization": 1 + 0.9 * ramp,
        }.get(signal.metric, 1.0)
        return min(signal.most, ordinary * grown)
    if signal.host == DATABASE:
        if signal.metric == "system.filesystem.utilization":
            filled = min(1.0, since / (DISK_FULL_AT - DEPLOY_AT))
            return min(0.996, signal.level + (1.0 - signal.level) * filled)
        if signal.metric == "system.disk.io":
            return ordinary * (1 + 14 * ramp)
        if signal.metric == "db.client.connections":
            return ordinary * (1 + 2 * ramp)
    return ordinary


def week(end: int, *, days: float = 7.0, interval: float = 60.0, seed: int = 1) -> NDArray[np.int64]:
    """The instants of the history: int64 microseconds since the epoch (UTC), whole intervals before ``end``."""
    step = round(interval * MICROS_PER_SECOND)
    last = (end - 1) // step
    count = round(days * _DAY / interval)
    return np.arange(last - count + 1, last + 1, dtype=np.int64) * step


def history_documents(end: int, *, days: float = 7.0, interval: float = 60.0, seed: int = 1) -> Iterator[bytes]:
    """The ordinary past of all hosts up to ``end``, in time order, as bodies of format ``collected`` below 1 MB."""
    ts = week(end, days=days, interval=interval)
    made = [values(signal, ts, seed) for signal in SIGNALS]
    rows = max(1, 4_000 // len(SIGNALS))
    for start in range(0, len(ts), rows):
        part = slice(start, start + rows)
        yield _body(ts[part], [column[part] for column in made])


def history_points(days: float = 7.0, interval: float = 60.0) -> int:
    """How many points ``history_documents`` holds."""
    return round(days * _DAY / interval) * len(SIGNALS)


def story_document(began: int, now: int, *, speed: float = 1.0, seed: int = 1) -> tuple[bytes, int]:
    """(body of format ``collected``, number of points): all signals at ``now``, in a story that began at ``began``."""
    ts = np.array([now], np.int64)
    elapsed = (now - began) / MICROS_PER_SECOND * speed
    columns = [np.array([story(signal, elapsed, float(values(signal, ts, seed)[0]))]) for signal in SIGNALS]
    return _body(ts, columns), len(SIGNALS)


def deploy(now: int) -> dict[str, Any]:
    """The change event of the story, for the generic webhook."""
    return {
        "type": "deploy",
        "host": WEB,
        "service": "try-shop",
        "title": "try-shop 2.14.0 rolled out (synthetic)",
        "actor": "aiops try",
        "ts": now,
        "version": "2.14.0",
        "previous": "2.13.4",
        "synthetic": True,
    }


def _body(ts: NDArray[np.int64], columns: Sequence[NDArray[np.float64]]) -> bytes:
    instants = ts.tolist()
    documents = []
    for host in HOSTS:
        points: list[dict[str, Any]] = []
        for signal, column in zip(SIGNALS, columns, strict=True):
            if signal.host != host:
                continue
            shared = {
                "metric": signal.metric,
                "unit": signal.unit,
                "kind": signal.kind,
                "labels": {**signal.labels, **MARK},
            }
            points += [
                {**shared, "ts": at, "value": round(value, 6)}
                for at, value in zip(instants, column.tolist(), strict=True)
            ]
        entity = {"kind": "host", "site": SITE, "labels": MARK, "depends_on": list(DEPENDS_ON[host])}
        documents.append({"host": host, "ts": instants[-1], "points": points, "entity": entity})
    return orjson.dumps(documents)
