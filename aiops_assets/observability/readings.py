"""What other processes the operations database and the lake say, as samples of the metric catalogue.

What belongs here: turning progress files, the collector's status, counts of incidents and Delta logs into samples. What
does not: names and help (``metrics``). Every function reads little and returns what it found.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.landing.reader import Backlog
from aiops_assets.live.progress import Progress
from aiops_assets.observability.health import check_database
from aiops_assets.observability.metrics import Sample

if TYPE_CHECKING:
    from aiops_assets.incidents.store import IncidentStore

log = logging.getLogger(__name__)


def backlog_samples(backlog: Backlog, free: int, now: float | None = None) -> list[Sample]:
    """The landing zone; ``free`` in bytes, ``now`` in seconds since the epoch."""
    now = time.time() if now is None else now
    age = max(0.0, now - backlog.oldest_modified) if backlog.oldest_modified is not None else 0.0
    return [
        Sample("aiops_landing_backlog_bytes", backlog.size),
        Sample("aiops_landing_backlog_segments", backlog.segments),
        Sample("aiops_landing_backlog_age_seconds", age),
        Sample("aiops_landing_free_bytes", free),
    ]


def live_samples(progress: Progress) -> list[Sample]:
    """The live session and its sources."""
    samples = [
        Sample("aiops_live_updated_timestamp_seconds", progress.updated_at / MICROS_PER_SECOND),
        Sample("aiops_live_batches_total", progress.batches),
        Sample("aiops_live_series", progress.series),
        Sample("aiops_live_watermark_timestamp_seconds", progress.watermark / MICROS_PER_SECOND),
        Sample("aiops_live_open_alerts", progress.open_alerts),
        Sample("aiops_live_hours_closed_total", progress.hours_closed),
        Sample("aiops_live_problems", len(progress.problems)),
    ]
    samples += [Sample("aiops_live_lag_seconds", value, (stage,)) for stage, value in progress.lag.items()]
    samples += [Sample("aiops_live_taken_segment", seq, (writer,)) for writer, seq in progress.taken.items()]
    for name, source in progress.sources.items():
        values: dict[str, float] = {
            "deliveries_total": source.deliveries,
            "points_total": source.points,
            "duplicates_total": source.duplicates,
            "conflicts_total": source.conflicts,
            "quarantined_total": source.quarantined,
            "refused_series_total": source.refused_series,
            "late_total": source.late,
            "points_per_second": source.rate,
            "last_received_timestamp_seconds": source.last_received_at / MICROS_PER_SECOND,
            "last_event_timestamp_seconds": source.last_event_at / MICROS_PER_SECOND,
        }
        samples += [Sample(f"aiops_source_{field}", value, (name,)) for field, value in values.items()]
    return samples


def collector_status(folder: Path) -> dict[str, Any]:
    """The collector's status file, ``{}`` while there is none or it is not readable JSON."""
    try:
        status = orjson.loads((folder / "status.json").read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    return status if isinstance(status, dict) else {}


def collector_samples(status: dict[str, Any]) -> list[Sample]:
    """The collector and its devices."""
    if not status:
        return []
    samples = [
        Sample("aiops_collector_updated_timestamp_seconds", _number(status.get("updated_at")) / MICROS_PER_SECOND)
    ]
    devices = status.get("devices")
    for name, device in devices.items() if isinstance(devices, dict) else ():
        values = {
            "device_up": device.get("ok"),
            "poll_seconds": device.get("duration"),
            "poll_points": device.get("points"),
            "slow": device.get("slow"),
            "skipped_total": device.get("skipped"),
        }
        samples += [Sample(f"aiops_collector_{field}", _number(value), (str(name),)) for field, value in values.items()]
    return samples


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


class IncidentReadings:
    """How many incidents are in each state, from the operations database; none while it does not answer."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._store: IncidentStore | None = None

    def samples(self) -> list[Sample]:
        """The figures now; call it from a thread."""
        if not check_database(self._url).ok:
            return []
        if self._store is None:
            from aiops_assets.incidents.store import IncidentStore

            self._store = IncidentStore(self._url)
        return [Sample("aiops_incidents", count, (state,)) for state, count in self._store.counts().items()]


class LakeReadings:
    """Rows, bytes, files and versions of the tables, read from their Delta logs; handles are kept and caught up."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self._handles: dict[str, DeltaTable] = {}

    def samples(self) -> list[Sample]:
        """The figures now. Slow on large tables (tens of milliseconds): call it from a thread, and not often."""
        from aiops_assets.tables import TABLES

        samples: list[Sample] = []
        for name in TABLES:
            try:
                samples += self._table(name)
            except TableNotFoundError:
                continue
            except (DeltaError, OSError) as error:
                self._handles.pop(name, None)
                log.warning("the size of table %s cannot be read: %s", name, error)
        return samples

    def _table(self, name: str) -> list[Sample]:
        handle = self._handles.get(name)
        if handle is None:
            handle = self._handles[name] = DeltaTable(f"{self.root}/{name}")
        else:
            handle.update_incremental()
        actions = handle.get_add_actions(flatten=True)
        columns = set(actions.schema.names)
        rows = sum(count or 0 for count in actions.column("num_records").to_pylist()) if "num_records" in columns else 0
        sizes = actions.column("size_bytes").to_pylist()
        return [
            Sample("aiops_table_rows", rows, (name,)),
            Sample("aiops_table_bytes", sum(sizes), (name,)),
            Sample("aiops_table_files", len(sizes), (name,)),
            Sample("aiops_table_version", handle.version(), (name,)),
        ]
