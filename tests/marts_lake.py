"""A small lake with known contents, for tests of marts and queries.

What belongs here: two days of points, their baselines, alerts and incident snapshots, written as the platform writes
them. What does not: expectations, which stand in the tests.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from aiops_assets.detection.baselines import close
from aiops_assets.hours import hour_expr, hour_key, micros
from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.tables import ALERTS, ANOMALIES, BASELINES, ENTITIES, INCIDENTS, METRIC_POINTS, SERIES, TABLES

DAY = datetime(2026, 3, 2, tzinfo=UTC)
SECOND, MINUTE, HOUR = 1_000_000, 60_000_000, 3_600_000_000


def at(day: int = 0, hour: float = 0, minute: float = 0) -> datetime:
    """An instant relative to midnight (UTC) of the first day."""
    return DAY + timedelta(days=day, hours=hour, minutes=minute)


def points(series: int, start: datetime, end: datetime, seconds: int = 60, seed: int = 0) -> pl.DataFrame:
    """Rows of ``metric_points``: series ``host-<n>``/``load`` with a regular interval."""
    ts = np.arange(micros(start), micros(end), seconds * SECOND)
    values = np.random.default_rng(seed + series).normal(10 + series, 2, len(ts))
    return (
        pl.DataFrame({"ts": ts, "value": values})
        .with_columns(
            pl.col("ts").cast(METRIC_POINTS.schema["ts"]),
            series_id=pl.lit(series, pl.Int64),
            host=pl.lit(f"host-{series}"),
            metric=pl.lit("load"),
            unit=pl.lit("1"),
            source=pl.lit("telegraf"),
            received_at=pl.col("ts").cast(METRIC_POINTS.schema["ts"]),
            writer=pl.lit("gateway"),
            seq=pl.lit(1, pl.Int64),
        )
        .with_columns(hour=hour_expr())
    )


def write(lake: Lake, table: str, rows: pl.DataFrame | list[dict[str, Any]]) -> None:
    """Append rows to a table; columns that are left out are null."""
    schema = TABLES[table].schema
    frame = rows if isinstance(rows, pl.DataFrame) else pl.DataFrame(rows, schema=schema, orient="row")
    TableWriter(lake, TABLES[table]).append(frame, {})


def write_points(lake: Lake, frame: pl.DataFrame, closed_until: datetime) -> None:
    """Write points, their series and the baselines of hours that end by ``closed_until``."""
    write(lake, METRIC_POINTS.name, frame.select(*METRIC_POINTS.schema))
    series = frame.group_by("series_id", "host", "metric", "unit", "source").agg(first_seen=pl.col("ts").min())
    series = series.with_columns(labels=pl.lit("{}"), kind=pl.lit("gauge"))
    TableWriter(lake, SERIES).overwrite(series.select(*SERIES.schema))
    for (hour,), rows in frame.partition_by("hour", as_dict=True).items():
        start = datetime.strptime(str(hour), "%Y-%m-%dT%H").replace(tzinfo=UTC)
        if start + timedelta(hours=1) <= closed_until:
            write_baseline(lake, rows, start, 1)


def write_baseline(lake: Lake, rows: pl.DataFrame, start: datetime, version: int) -> None:
    """The baseline of an hour, as closing it would write it."""
    statistics = close(rows.select("series_id", "ts", "value")).with_columns(
        hour_start=pl.lit(start).cast(BASELINES.schema["hour_start"]),
        baseline_version=pl.lit(version, pl.Int32),
        hour=pl.lit(hour_key(micros(start))),
    )
    write(lake, BASELINES.name, statistics.select(*BASELINES.schema))


def alert(alert_id: str, starts: datetime, state: str = "firing", revision: int = 0, **fields: Any) -> dict[str, Any]:
    """A row of ``alerts``."""
    row = {
        "alert_id": alert_id, "revision": revision, "fingerprint": alert_id, "kind": "rule", "name": "load-high",
        "state": state, "severity_number": 17, "host": "host-1", "labels": "{}", "starts_at": starts,
        "changed_at": starts + timedelta(minutes=1), "title": "load is high", "evidence": "{}",
        "received_at": starts, "writer": "gateway", "seq": 1, "hour": hour_key(micros(starts)),
    }  # fmt: skip
    return row | fields


def anomaly(series: int, ts: datetime, opens: bool) -> dict[str, Any]:
    """A row of ``anomalies``."""
    return {
        "ts": ts, "series_id": series, "host": f"host-{series}", "metric": "load", "value": 99.0, "score": 0.9,
        "detector": "spike", "detector_version": "1", "evidence": "{}", "opens_event": opens, "received_at": ts,
        "writer": "gateway", "seq": 1, "hour": hour_key(micros(ts)),
    }  # fmt: skip


def incident(incident_id: str, opened: datetime, taken: datetime, state: str = "open", **fields: Any) -> dict[str, Any]:
    """A row of the daily snapshot taken at ``taken``."""
    row = {
        "snapshot_at": taken, "incident_id": incident_id, "title": f"about {incident_id}", "state": state,
        "priority": 2, "impact": 2, "urgency": 2, "hosts": ["host-1"], "alert_ids": ["a"],
        "started_at": opened - timedelta(minutes=2), "opened_at": opened, "reopened": 0, "alerts": 1,
        "suppressed_alerts": 0, "withdrawn_alerts": 0, "kinds": ["rule"], "updated_at": opened,
        "day": taken.strftime("%Y-%m-%d"),
    }  # fmt: skip
    return row | fields


def small_lake(root: str) -> Lake:
    """Two days: three series of one-minute points (one falls silent), hours closed until 12:00 of the second day."""
    lake = Lake(root)
    frame = pl.concat(
        [
            points(1, at(), at(1, 13)),
            points(2, at(), at(0, 20)),
            points(3, at(0, 6), at(0, 10)),
            points(3, at(0, 11), at(1, 13)),
        ]
    )
    write_points(lake, frame, at(1, 12))
    write(
        lake,
        ALERTS.name,
        [
            alert("a1", at(0, 7, 30)),
            alert("a1", at(0, 7, 30), "resolved", 1, changed_at=at(0, 9), ends_at=at(0, 9)),
            alert("a2", at(0, 23, 30), severity_number=21),
            alert("a3", at(0, 10), "suppressed", suppressed_by="window x"),
            alert("a4", at(0, 12)),
            alert("a4", at(0, 12), "withdrawn", 1, amended_by="late rows"),
            alert("a5", at(0, 13), kind="anomaly", severity_number=13, host="host-3"),
        ],
    )
    write(lake, ANOMALIES.name, [anomaly(3, at(0, 13, n), n == 0) for n in range(5)])
    write(
        lake,
        ENTITIES.name,
        [
            {
                "entity_id": "host:host-1", "kind": "host", "name": "host-1", "owner": "team:shop", "labels": "{}",
                "depends_on": [], "origin": "declared", "first_seen": at(),
            }
        ],
    )  # fmt: skip
    write(lake, INCIDENTS.name, snapshots())
    return lake


def snapshots() -> list[dict[str, Any]]:
    """Two snapshots: incidents that end in all the ways there are."""
    first, second = at(0, 23, 55), at(1, 12, 55)
    return [
        incident("INC-OVER", at(0, 8), first, "resolved", acknowledged_at=at(0, 8, 10), resolved_at=at(0, 9),
                 first_resolved_at=at(0, 9)),
        incident("INC-LATER", at(0, 9), first, "acknowledged", acknowledged_at=at(0, 9, 30)),
        incident("INC-LATER", at(0, 9), second, "resolved", acknowledged_at=at(0, 9, 30), resolved_at=at(1, 9),
                 first_resolved_at=at(0, 12), reopened=1),
        incident("INC-OPEN", at(0, 12), first),
        incident("INC-OPEN", at(0, 12), second),
        incident("INC-ITSELF", at(0, 14), first, "resolved", resolved_at=at(0, 14, 20), resolved_by="aiops",
                 first_resolved_at=at(0, 14, 20), priority=4),
        incident("INC-MERGED", at(0, 15), first),
        incident("INC-MERGED", at(0, 15), second, "resolved", resolved_at=at(0, 15, 1), merged_into="INC-OPEN"),
        incident("INC-WITHDRAWN", at(0, 16), second, "resolved", resolved_at=at(0, 16, 5), alerts=0,
                 withdrawn_alerts=1, withdrawn_because="late rows"),
    ]  # fmt: skip
