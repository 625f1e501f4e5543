"""The state of the whole platform in one answer: what ``aiops status`` shows and what scripts read as JSON.

What belongs here: gathering what the session, the collector, the landing zone, the quarantine and the operations
database say, and naming what is wrong. What does not: the drawing of tables (``cli``) and metrics (``readings``).
Everything is read from files and the operations database, so it works while parts of the platform are down.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

from aiops_assets.config import Config, ConfigError, Source, load_config
from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.landing.quarantine import Quarantine
from aiops_assets.landing.reader import backlog, gaps, writers
from aiops_assets.live.lease import live_lease
from aiops_assets.live.progress import Progress, SourceProgress, read_progress
from aiops_assets.observability.health import check_backlog, check_database, check_session
from aiops_assets.observability.readings import collector_status
from aiops_assets.settings import Settings
from aiops_assets.sources.catalogue import entries

#: a collector that has not written its status for so long (seconds) is called silent
_COLLECTOR_SILENT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """One source of deliveries. Instants are microseconds since the epoch (UTC), 0 when never."""

    name: str
    last_received_at: int
    last_event_at: int
    #: rows stored a second, averaged over the last minute
    rate: float
    #: seconds between the newest event and its delivery
    lag: float
    deliveries: int
    points: int
    #: logs, errors, spans, tickets, documents, news of external alerts
    events: int
    duplicates: int
    conflicts: int
    late: int
    refused_series: int
    #: entries in quarantine now
    quarantined: int
    #: seconds without a delivery after which it is called late; ``None``: nothing is expected of it
    freshness: float | None
    fresh: bool
    #: who is polled and does not answer or is slow, and who sent regularly and has fallen silent, by name
    laggards: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """A device whose last poll failed or was cut at its deadline; ``skipped`` counts polls that could not begin."""

    name: str
    source: str
    ok: bool
    slow: bool
    skipped: int
    last_poll_at: int
    duration: float
    error: str | None


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """The live session. ``holder`` names the owner of the lease, ``None`` while nobody works."""

    holder: str | None
    pid: int
    started_at: int
    updated_at: int
    batches: int
    series: int
    watermark: int
    hours_closed: int
    open_alerts: int
    #: seconds from acceptance to commit of the newest batch, by stage
    lag: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IncidentSummary:
    """An incident that is not resolved."""

    incident_id: str
    state: str
    priority: int
    title: str
    hosts: Sequence[str]
    assignee: str | None
    started_at: int
    opened_at: int


@dataclass(frozen=True, slots=True)
class Status:
    """Everything ``aiops status`` knows. ``problems`` are lines for people; empty means all is well."""

    at: int
    home: str
    session: SessionStatus
    sources: Sequence[SourceStatus]
    devices: int
    laggards: Sequence[DeviceStatus]
    backlog_segments: int
    backlog_bytes: int
    backlog_age: float
    quarantine: Mapping[str, Mapping[str, int]]
    incidents: Sequence[IncidentSummary]
    problems: Sequence[str]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def platform_status(settings: Settings, *, now: float | None = None) -> Status:
    """Read the state of the platform of these settings; ``now`` in seconds since the epoch."""
    now = time.time() if now is None else now
    home = settings.paths
    problems: list[str] = []
    try:
        config = load_config(home.config)
    except ConfigError as error:
        config = Config()
        problems += error.problems
    progress = read_progress(home.live)
    problems += [problem for problem in progress.problems if problem not in problems]

    waiting = backlog(home.landing, progress.taken)
    holder = live_lease(home.live).holder()
    for check in (check_backlog(waiting, settings.gateway_max_backlog_bytes), check_session(waiting, progress, now)):
        if not check.ok:
            problems.append(check.detail)
    for writer in writers(home.landing):
        if missing := gaps(home.landing / writer):
            problems.append(f"landing writer {writer}: segments are missing: {', '.join(map(str, missing[:5]))}")

    quarantine = Quarantine(home.quarantine).counts()
    collector = collector_status(home.collector)
    devices: Mapping[str, Any] = collector.get("devices") or {}
    laggards = [_device(name, device) for name, device in sorted(devices.items())]
    laggards = [device for device in laggards if not device.ok or device.slow]
    heard = collector_status(home.listener)
    lagging: dict[str, list[str]] = {"syslog": [], "snmp_trap": []}
    for device in laggards:
        lagging.setdefault(device.source, []).append(device.name)
    for name, listener in sorted((heard.get("listeners") or {}).items()):
        lagging["snmp_trap" if name.startswith("traps") else "syslog"] += [
            str(sender) for sender in listener.get("laggards") or ()
        ]
        if listener.get("error"):
            problems.append(f"listener {name}: {listener['error']}")
        if listener.get("dropped"):
            problems.append(f"listener {name}: {listener['dropped']} messages were given up, the landing zone was full")
    limits = {entry.name: entry.freshness for entry in entries(config)}
    sources = [
        _source(name, progress, limits, sum(quarantine.get(name, {}).values()), lagging.get(name, ()), now)
        for name in sorted({*progress.sources, *quarantine, *config.sources})
    ]
    problems += [f"source {source.name} is late" for source in sources if not source.fresh and source.deliveries]
    for source in sources:
        if source.refused_series:
            problems.append(f"source {source.name}: {source.refused_series} series beyond the limit were refused")

    silent = now - float(collector.get("updated_at", 0)) / MICROS_PER_SECOND
    if collector and silent > _COLLECTOR_SILENT_SECONDS:
        problems.append(f"the collector has been silent for {silent:.0f} s")

    return Status(
        at=int(now * MICROS_PER_SECOND),
        home=str(home.root),
        session=SessionStatus(
            holder=holder.owner if holder else None,
            pid=holder.pid if holder else 0,
            started_at=progress.started_at,
            updated_at=progress.updated_at,
            batches=progress.batches,
            series=progress.series,
            watermark=progress.watermark,
            hours_closed=progress.hours_closed,
            open_alerts=progress.open_alerts,
            lag=progress.lag,
        ),
        sources=sources,
        devices=len(devices),
        laggards=laggards,
        backlog_segments=waiting.segments,
        backlog_bytes=waiting.size,
        backlog_age=max(0.0, now - waiting.oldest_modified) if waiting.oldest_modified is not None else 0.0,
        quarantine=quarantine,
        incidents=_open_incidents(home.operations_url),
        problems=problems,
    )


def _source(
    name: str,
    progress: Progress,
    limits: Mapping[str, timedelta | None],
    quarantined: int,
    laggards: Sequence[str],
    now: float,
) -> SourceStatus:
    said = progress.sources.get(name, SourceProgress())
    limit = limits.get(name, timedelta(seconds=Source().freshness))
    last = said.last_received_at
    return SourceStatus(
        name=name,
        last_received_at=last,
        last_event_at=said.last_event_at,
        rate=said.rate,
        lag=max(0.0, (last - said.last_event_at) / MICROS_PER_SECOND) if said.last_event_at else 0.0,
        deliveries=said.deliveries,
        points=said.points,
        events=said.events,
        duplicates=said.duplicates,
        conflicts=said.conflicts,
        late=said.late,
        refused_series=said.refused_series,
        quarantined=quarantined,
        freshness=limit.total_seconds() if limit else None,
        fresh=limit is None or (bool(last) and now - last / MICROS_PER_SECOND <= limit.total_seconds()),
        laggards=list(laggards),
    )


def _device(name: str, device: Mapping[str, Any]) -> DeviceStatus:
    return DeviceStatus(
        name=name,
        source=str(device.get("source") or ""),
        ok=bool(device.get("ok")),
        slow=bool(device.get("slow")),
        skipped=int(device.get("skipped") or 0),
        last_poll_at=int(device.get("last_poll_at") or 0),
        duration=float(device.get("duration") or 0.0),
        error=device.get("error"),
    )


def _open_incidents(url: str) -> list[IncidentSummary]:
    if not check_database(url).ok:
        return []
    from aiops_assets.incidents.store import IncidentStore

    store = IncidentStore(url)
    try:
        found = store.list(states=("open", "acknowledged", "reopened"))
    finally:
        store.close()
    return [
        IncidentSummary(
            incident.incident_id,
            incident.state,
            incident.priority,
            incident.title,
            incident.hosts,
            incident.assignee,
            incident.started_at,
            incident.opened_at,
        )
        for incident in found
    ]
