"""A home folder with data in it, driven in this process: what tests of lake care and backup start from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.lake.tables import Lake
from aiops_assets.landing.segment import Delivery
from aiops_assets.landing.writer import SegmentWriter
from aiops_assets.live.pipeline import Pipeline
from aiops_assets.settings import Settings

MINUTE = 60 * MICROS_PER_SECOND


def home(folder: Path, **more: Any) -> Settings:
    """Settings of a new home."""
    settings = Settings(home=folder, **more)
    settings.paths.create()
    return settings


def document(host: str, ts: int, value: float, metric: str = "app.load") -> dict[str, Any]:
    """One point in the ``collected`` format."""
    return {"host": host, "ts": ts, "points": [{"metric": metric, "value": value, "unit": "1", "kind": "gauge"}]}


def send(
    settings: Settings,
    documents: Sequence[dict[str, Any]],
    writer: str = "gateway",
    source: str = "test",
    name: str = "",
    at: int | None = None,
) -> None:
    """One delivery in one segment."""
    with SegmentWriter(settings.paths.landing, writer, max_bytes=1 << 24, max_age_seconds=60) as target:
        at = max(entry["ts"] for entry in documents) + MICROS_PER_SECOND if at is None else at
        identity = name or f"{writer}-{target.last_sealed + 1}"
        body = orjson.dumps(list(documents))
        target.append_deliveries([Delivery(identity, at, source, "application/json", body, {"format": "collected"})])


def fill(
    settings: Settings, start: int, minutes: int, hosts: int = 3, writer: str = "gateway", value: float = 0.5
) -> None:
    """One segment a minute from several hosts, beginning at ``start`` (µs)."""
    for minute in range(minutes):
        ts = start + minute * MINUTE
        send(settings, [document(f"web-{n}", ts + n, value + n / 100) for n in range(hosts)], writer)


def drain(settings: Settings) -> None:
    """A session that takes everything, and ends."""
    pipeline = Pipeline(settings)
    pipeline.open()
    while pipeline.step() is not None:
        pass
    pipeline.close()


def points(settings: Settings) -> pl.DataFrame:
    """All stored points in order of their key."""
    return Lake(settings.paths.lake).read("metric_points").sort("series_id", "ts")
