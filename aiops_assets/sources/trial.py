"""One source, tried now: what it would store, or the exact problem; nothing is stored.

What belongs here: finding what a name means, one fetch or the newest delivery, and its rows by table. What does not:
schedules (``collectors.scheduler``) and printing (``cli``). A trial begins without what the running collector
remembers, and changes nothing of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from aiops_assets.collectors.document import document, encode
from aiops_assets.collectors.scheduler import Declared, make_poller
from aiops_assets.collectors.snmp.engine import Engine
from aiops_assets.collectors.snmp.profile import ProfileError, load_profiles
from aiops_assets.config import Config, load_config
from aiops_assets.formats import FORMATS, parse
from aiops_assets.formats.batch import Parsed
from aiops_assets.landing.reader import newest_seq, read_segment, writers
from aiops_assets.landing.segment import Delivery
from aiops_assets.live.events import EVENT_TABLES
from aiops_assets.live.intake import DEFAULT_FORMAT, readings_of
from aiops_assets.settings import Settings
from aiops_assets.sources.catalogue import entries
from aiops_assets.tables import TIMESTAMP

#: segments that are looked through, from the newest back, for a delivery of a source
_SEGMENTS_BACK = 500
_GRACE_SECONDS = 5.0


class UnknownSource(LookupError):
    """No source, device or declaration has this name; the message lists those there are."""


@dataclass(slots=True)
class Trial:
    """What came of it. ``rows``: table → what would be stored; ``rejects``: why what could not be read was refused."""

    name: str
    how: str
    seconds: float = 0.0
    rows: dict[str, pl.DataFrame] = field(default_factory=dict)
    rejects: list[str] = field(default_factory=list)
    problem: str | None = None
    next_step: str = ""

    @property
    def ok(self) -> bool:
        return self.problem is None and not self.rejects


def declared(config: Config) -> dict[str, Declared]:
    """What the collector fetches, by the name that aiops.yaml gives it."""
    found: dict[str, Declared] = {"host": config.collect.host}
    for group in (config.discover, config.folders, config.tail, config.pull, config.devices):
        found |= {entry.name: entry for entry in group}
    return found


def try_source(settings: Settings, name: str, payload: Path | None = None, *, gateway: str = "") -> Trial:
    """Try a device, a pull, a file, a folder, or a source that is pushed.

    Args:
        payload: a file with a body as the sender would send it, instead of the newest delivery.
        gateway: the address that senders are told to use.

    Raises:
        UnknownSource: nothing has this name.
        ConfigError: ``aiops.yaml`` is wrong.
        OSError: the payload cannot be read.
    """
    config = load_config(settings.paths.config)
    polled = declared(config)
    began = time.monotonic()
    if payload is None and name in polled:
        trial = asyncio.run(_poll(settings, name, polled[name]))
    else:
        trial = _pushed(settings, config, name, payload, gateway)
    trial.seconds = time.monotonic() - began
    return trial


async def _poll(settings: Settings, name: str, made_from: Declared) -> Trial:
    engines: list[Engine] = []

    def engine() -> Engine:
        from aiops_assets.collectors.snmp.pysnmp_engine import PysnmpEngine

        engines.append(PysnmpEngine())
        return engines[0]

    try:
        profiles = load_profiles(settings.paths.root / "profiles")
    except ProfileError as error:
        return Trial(name, "fetched now", problem=str(error), next_step="correct the profile")
    poller = make_poller(made_from, engine, profiles=profiles)
    trial = Trial(name, f"fetched now from {_where(made_from)}")
    ts = time.time_ns() // 1000
    try:
        async with asyncio.timeout(poller.deadline + _GRACE_SECONDS):
            outcome = await poller.poll()
    except TimeoutError:
        trial.problem = f"no answer within {poller.deadline:g} s"
        trial.next_step = "see whether the address answers from here, or raise 'deadline'"
        return trial
    finally:
        closing = poller.close()
        if closing is not None:
            await closing
        for made in engines:
            made.close()
    trial.problem = outcome.error if outcome.error or outcome.up else "it does not answer"
    made_document = encode(document(poller.name, poller.kind, ts, outcome, time.time() - ts / 1_000_000))
    deliveries = [Delivery("trial", ts, poller.source, "application/json", made_document, {"format": "collected"})]
    deliveries += [
        Delivery("trial", ts, poller.source, one.content_type, one.body, {**one.headers, "format": one.format})
        for one in outcome.fetched
    ]
    _read(trial, deliveries, load_config(settings.paths.config))
    return trial


def _pushed(settings: Settings, config: Config, name: str, payload: Path | None, gateway: str) -> Trial:
    known = {entry.name: entry for entry in entries(config, gateway)}
    if name not in known:
        names = sorted({*known, *declared(config)})
        raise UnknownSource(f"there is no source {name!r}; there are {', '.join(names)}")
    entry = known[name]
    if payload is not None:
        body = payload.read_bytes()
        delivery = Delivery("trial", time.time_ns() // 1000, name, "", body, {"format": entry.format or DEFAULT_FORMAT})
        trial = Trial(name, f"read from {payload} as {entry.format}")
        _read(trial, [delivery], config)
        return trial
    found = _newest(settings.paths.landing, name)
    if found is None:
        return Trial(
            name,
            "looked for in the landing zone",
            problem=f"nothing of the source {name} has arrived lately",
            next_step=f"Point the sender here. {entry.point_here}",
        )
    at = f"{np.datetime64(found.received_at, 'us')}Z"
    trial = Trial(name, f"its newest delivery, accepted {at} ({found.headers.get('format', DEFAULT_FORMAT)})")
    _read(trial, [found], config)
    return trial


def _newest(landing: Path, source: str) -> Delivery | None:
    """The newest delivery of a source among the newest sealed segments of every writer."""
    newest: Delivery | None = None
    for writer in writers(landing):
        last = newest_seq(landing / writer)
        for seq in range(last, max(last - _SEGMENTS_BACK, 0), -1):
            mine = [d for d in read_segment(landing / writer, seq).deliveries if d.source == source]
            if mine:
                if newest is None or mine[-1].received_at > newest.received_at:
                    newest = mine[-1]
                break
    return newest


def _read(trial: Trial, deliveries: Sequence[Delivery], config: Config) -> None:
    readings = readings_of(config)
    for delivery in deliveries:
        how = delivery.headers.get("format", DEFAULT_FORMAT)
        if how not in FORMATS:
            trial.problem = f"unknown format {how!r}; allowed: {', '.join(FORMATS)}"
            return
        parsed = parse(how, [delivery], readings(delivery.source))
        trial.rejects += [f"at byte {reject.offset}: {reject.reason}" for reject in parsed.rejects]
        for table, rows in _rows(parsed).items():
            before = trial.rows.get(table)
            trial.rows[table] = rows if before is None else pl.concat([before, rows])


def _rows(parsed: Parsed) -> Mapping[str, pl.DataFrame]:
    """Table → rows in the words of people."""
    found: dict[str, pl.DataFrame] = {}
    if not parsed.points.is_empty():
        series = parsed.series.with_row_index("series")
        points = parsed.points.join(series, on="series", how="left", maintain_order="left")
        named = points.select("ts", "host", "metric", "value", "unit", "labels")
        found["metric_points"] = named.with_columns(pl.col("ts").cast(TIMESTAMP))
    frames = {"changes": parsed.changes, "entities": parsed.entities, "alerts": parsed.external}
    frames |= {table.name: getattr(parsed, name) for name, table in EVENT_TABLES.items()}
    for table, frame in frames.items():
        if not frame.is_empty():
            instants = [name for name in frame.columns if name == "ts" or name.endswith("_at")]
            shown = frame.drop("delivery", strict=False).with_columns(pl.col(instants).cast(TIMESTAMP))
            found[table] = shown
    return found


def _where(made_from: Declared) -> str:
    for name in ("address", "url", "path", "subnet"):
        where = getattr(made_from, name, None)
        if where:
            return str(where)
    return ", ".join(getattr(made_from, "paths", ())) or "this machine"
