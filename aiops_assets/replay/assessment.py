"""A finished replay set against what is recorded: alerts, the incidents and pages they give, anomalies, labels.

What belongs here: putting both sides together from tables, and the shadow tables of alerts, incidents and pages. What
does not: matching (``difference``), wording (``report``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
from deltalake import write_deltalake

from aiops_assets.config import Config
from aiops_assets.detection.alerts import Suppression, suppressions_of
from aiops_assets.detection.matching import matches
from aiops_assets.detection.receipts import newest, read_receipts
from aiops_assets.hours import MICROS_PER_SECOND, instant
from aiops_assets.incidents.rehearsal import incidents_of
from aiops_assets.lake.tables import Lake
from aiops_assets.replay.asnow import Shadow
from aiops_assets.replay.difference import (
    Alerts,
    Incidents,
    Side,
    compare_alerts,
    compare_anomalies,
    compare_incidents,
    opened_by,
    pages_by_day,
    summary,
)
from aiops_assets.replay.labels import Label, Score, score
from aiops_assets.replay.logs import known_silences, pinned_windows, recorded_decisions, told
from aiops_assets.replay.period import Period
from aiops_assets.tables import ALERTS


@dataclass(frozen=True, slots=True)
class Assessment:
    """Everything that a report says. Pages are counted by ``day`` and ``rule``."""

    recorded: Side
    replayed: Side
    anomalies: dict[str, int]
    alerts: Alerts
    incidents: Incidents
    pages_recorded: pl.DataFrame
    pages_replayed: pl.DataFrame
    score_recorded: Score | None
    score_replayed: Score | None
    #: replayed hours that have no receipt: what was told stands for them
    without_receipt: list[str]


def assess(
    lake: Lake, shadow: Shadow, today: Config, changed: Config, labels: Sequence[Label] | None = None
) -> Assessment:
    """Compare a replay whose hours are done with what is recorded.

    Args:
        today: the configuration in force, which groups what is recorded.
        changed: the configuration of the replay.
        labels: windows that are known to be real, if any are.
    """
    journal = shadow.journal
    period = journal.request.period
    first, last = journal.hours[0], journal.hours[-1]
    receipts = newest(read_receipts(lake, first, last))
    entities = lake.read("entities")
    lookback = max(today.grouping.change_lookback, changed.grouping.change_lookback)
    near = pl.col("ts").is_between(instant(period.start - round(lookback * MICROS_PER_SECOND)), instant(period.end))
    changes = lake.scan("changes").filter(near).collect()
    opened = shadow.alerts_at_start()
    pinned = pinned_windows(receipts.values())
    silences = [window for window in pinned if window.kind == "silence"]
    silences += [window for window in known_silences(lake) if window not in silences]
    columns = [name for name in ALERTS.schema if name not in {"suppressed_by", "amended_by"}]
    decided = (
        recorded_decisions(lake, receipts, first, last),
        shadow.lake.read("alert_decisions").select(columns),
    )
    windows: tuple[list[Suppression], list[Suppression]] = (
        [*pinned, *(window for window in silences if window not in pinned)],
        [*suppressions_of(changed), *silences],
    )
    logs = [
        told(pl.concat([opened.select(columns), _of_hosts(rows, journal.request.host)]), known, period.end)
        for rows, known in zip(decided, windows, strict=True)
    ]
    sides = []
    for log, config in zip(logs, (today, changed), strict=True):
        incidents, pages = incidents_of(log, config=config, entities=entities, changes=changes, until=period.end)
        sides.append(Side(summary(log), incidents, pages))
    recorded, replayed = sides
    _write(shadow, "alerts", logs[1])
    _write(shadow, "incidents", replayed.incidents)
    _write(shadow, "pages", replayed.pages)
    rules = [opened_by(side.alerts) for side in sides]
    scores = [_score(labels, side, period) for side in sides]
    return Assessment(
        recorded,
        replayed,
        _anomalies(lake, shadow),
        compare_alerts(recorded.alerts, replayed.alerts),
        compare_incidents(recorded.incidents, replayed.incidents),
        pages_by_day(recorded.pages, rules[0]),
        pages_by_day(replayed.pages, rules[1]),
        scores[0],
        scores[1],
        [key for key in journal.hours if key not in receipts],
    )


def _of_hosts(rows: pl.DataFrame, pattern: str) -> pl.DataFrame:
    if pattern == "*":
        return rows
    return rows.filter(pl.Series([matches((pattern,), host) for host in rows["host"]], dtype=pl.Boolean))


def _score(labels: Sequence[Label] | None, side: Side, period: Period) -> Score | None:
    if labels is None:
        return None
    members = {incident: set(ids) for incident, ids in side.incidents.select("incident_id", "alert_ids").iter_rows()}
    return score(labels, side.alerts, side.pages, members, period)


def _anomalies(lake: Lake, shadow: Shadow) -> dict[str, int]:
    """Differences of the anomalies, a day at a time."""
    hours, host = shadow.journal.hours, shadow.journal.request.host
    counts: dict[str, int] = {}
    for begin in range(0, len(hours), 24):
        part = hours[begin : begin + 24]
        found = compare_anomalies(_of_hosts(lake.read("anomalies", part), host), shadow.lake.read("anomalies", part))
        counts = {name: counts.get(name, 0) + count for name, count in found.items()}
    return counts


def _write(shadow: Shadow, table: str, frame: pl.DataFrame) -> None:
    write_deltalake(str(shadow.folder / table), frame, mode="overwrite", schema_mode="overwrite")
