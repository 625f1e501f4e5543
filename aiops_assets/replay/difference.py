"""Recorded against replayed: which anomalies, alerts, incidents and pages are new, gone or different.

What belongs here: matching and counting. What does not: how either side came about (``logs``, ``asnow``) and wording
(``report``).

- **Anomalies** are the same when series and time are; they differ when what they say does.
- **Alerts** are the same when their id is, that is when kind, name, series and start are. Of the rest, two about the
  same thing that overlap are one alert with another start. They differ in start, instant of firing, end, severity
  or suppression.
- **Incidents** are the same when their id is, or when they share an alert.
- **Pages** are counted by day and by the rule whose alert opened the incident.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from aiops_assets.incidents.placing import incident_id_of
from aiops_assets.tables import TIMESTAMP

#: one row an alert. ``fired_at``: when it first fired without being suppressed
SUMMARY_SCHEMA: dict[str, pl.DataType] = {
    "alert_id": pl.String(),
    "fingerprint": pl.String(),
    "kind": pl.String(),
    "name": pl.String(),
    "host": pl.String(),
    "metric": pl.String(),
    "labels": pl.String(),
    "severity_number": pl.Int32(),
    "starts_at": TIMESTAMP,
    "fired_at": TIMESTAMP,
    "ends_at": TIMESTAMP,
    "suppressed_by": pl.String(),
    "title": pl.String(),
}
_COMPARED = ("starts_at", "fired_at", "ends_at", "severity_number", "suppressed_by")


@dataclass(frozen=True, slots=True)
class Side:
    """One side: alerts (``SUMMARY_SCHEMA``), incidents and pages (``incidents.rehearsal``)."""

    alerts: pl.DataFrame
    incidents: pl.DataFrame
    pages: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Alerts:
    """``raised`` and ``vanished`` are rows of ``SUMMARY_SCHEMA``; ``changed`` has ``before_…`` and ``after_…``."""

    same: int
    raised: pl.DataFrame
    vanished: pl.DataFrame
    changed: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Incidents:
    """Incidents of one side only, and pairs whose priority, start, end or number of alerts differ."""

    same: int
    raised: pl.DataFrame
    vanished: pl.DataFrame
    changed: pl.DataFrame


def summary(log: pl.DataFrame) -> pl.DataFrame:
    """One row an alert, from rows of ``tables.ALERTS`` with all revisions, in order of start."""
    ordered = log.sort("alert_id", "revision")
    fires = pl.col("state") == "firing"
    open_ = pl.col("state") != "resolved"
    last_end = pl.when(pl.col("state").last() == "resolved").then(pl.col("ends_at").last())
    rows = ordered.group_by("alert_id", maintain_order=True).agg(
        pl.col("fingerprint", "kind", "name", "host", "metric", "labels", "starts_at").first(),
        pl.col("severity_number").max(),
        pl.col("changed_at").filter(fires).min().alias("fired_at"),
        last_end.alias("ends_at"),
        pl.col("suppressed_by").drop_nulls().first(),
        pl.coalesce(pl.col("title").filter(open_).first(), pl.col("title").first()).alias("title"),
    )
    return rows.select(pl.col(name).cast(dtype) for name, dtype in SUMMARY_SCHEMA.items()).sort("starts_at", "alert_id")


def compare_alerts(recorded: pl.DataFrame, replayed: pl.DataFrame) -> Alerts:
    """Compare two ``summary`` frames."""
    pairs = recorded.join(replayed, on="alert_id", how="inner", suffix="_after")
    rest_before = recorded.join(replayed, on="alert_id", how="anti")
    rest_after = replayed.join(recorded, on="alert_id", how="anti")
    moved = _overlapping(rest_before, rest_after)
    if moved:
        ids = pl.DataFrame(moved, schema={"alert_id": pl.String, "after_id": pl.String}, orient="row")
        shifted = (
            rest_before.join(ids, on="alert_id")
            .join(rest_after.rename({"alert_id": "after_id"}), on="after_id", suffix="_after")
            .drop("after_id")
        )
        pairs = pl.concat([pairs, shifted.select(pairs.columns)])
        rest_before = rest_before.join(ids, on="alert_id", how="anti")
        rest_after = rest_after.join(ids.select(pl.col("after_id").alias("alert_id")), on="alert_id", how="anti")
    differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_after")) for name in _COMPARED)
    changed = pairs.filter(differs).select(
        "alert_id",
        "name",
        "host",
        "metric",
        "labels",
        "title",
        *(pl.col(name).alias(f"before_{name}") for name in _COMPARED),
        *(pl.col(f"{name}_after").alias(f"after_{name}") for name in _COMPARED),
    )
    return Alerts(pairs.height - changed.height, rest_after, rest_before, changed.sort("before_starts_at", "alert_id"))


def _overlapping(before: pl.DataFrame, after: pl.DataFrame) -> list[tuple[str, str]]:
    """Pairs of ids of alerts about the same thing that overlap, each alert once."""
    columns = ("alert_id", "fingerprint", "starts_at", "ends_at")
    by_fingerprint: dict[str, list[tuple[str, object, object]]] = defaultdict(list)
    for alert, fingerprint, start, end in after.select(columns).iter_rows():
        by_fingerprint[fingerprint].append((alert, start, end))
    pairs = []
    for alert, fingerprint, start, end in before.select(columns).iter_rows():
        for place, (other, other_start, other_end) in enumerate(by_fingerprint.get(fingerprint, ())):
            if (other_end is None or start <= other_end) and (end is None or other_start <= end):
                pairs.append((alert, other))
                del by_fingerprint[fingerprint][place]
                break
    return pairs


def compare_incidents(recorded: pl.DataFrame, replayed: pl.DataFrame) -> Incidents:
    """Compare two frames of incidents."""
    kept = [frame.filter(~pl.col("withdrawn")) for frame in (recorded, replayed)]
    before = {row["incident_id"]: row for row in kept[0].iter_rows(named=True)}
    after = {row["incident_id"]: row for row in kept[1].iter_rows(named=True)}
    pairs = {incident: incident for incident in before if incident in after}
    holder = {
        alert: incident for incident, row in after.items() if incident not in before for alert in row["alert_ids"]
    }
    taken: set[str] = set()
    for incident, row in before.items():
        if incident in pairs:
            continue
        other = next((holder[alert] for alert in row["alert_ids"] if holder.get(alert, "") not in {"", *taken}), None)
        if other is not None:
            pairs[incident] = other
            taken.add(other)
    changed = []
    for incident, other in pairs.items():
        one, two = before[incident], after[other]
        facts = [(row["priority"], row["started_at"], row["resolved_at"], len(row["alert_ids"])) for row in (one, two)]
        if facts[0] != facts[1]:
            changed.append((incident, one["title"], *facts[0], *facts[1]))
    columns = ("priority", "started_at", "resolved_at", "alerts")
    types: tuple[pl.DataType, ...] = (pl.Int32(), TIMESTAMP, TIMESTAMP, pl.Int64())
    schema: dict[str, pl.DataType] = {"incident_id": pl.String(), "title": pl.String()}
    schema |= {f"before_{name}": dtype for name, dtype in zip(columns, types, strict=True)}
    schema |= {f"after_{name}": dtype for name, dtype in zip(columns, types, strict=True)}
    return Incidents(
        len(pairs) - len(changed),
        kept[1].filter(~pl.col("incident_id").is_in(list(pairs.values()))),
        kept[0].filter(~pl.col("incident_id").is_in(list(pairs))),
        pl.DataFrame(changed, schema=schema, orient="row"),
    )


def compare_anomalies(recorded: pl.DataFrame, replayed: pl.DataFrame) -> dict[str, int]:
    """How many anomalies are the same, new, gone or different, of rows of ``tables.ANOMALIES`` of some hours."""
    key = ["series_id", "ts"]
    said = ["score", "detector", "opens_event", "expected", "lower", "upper"]
    both = recorded.select(*key, *said).join(replayed.select(*key, *said), on=key, how="inner", suffix="_after")
    differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_after")) for name in said)
    changed = both.filter(differs).height
    return {
        "recorded": recorded.height,
        "replayed": replayed.height,
        "same": both.height - changed,
        "changed": changed,
        "raised": replayed.height - both.height,
        "vanished": recorded.height - both.height,
    }


def opened_by(alerts: pl.DataFrame) -> dict[str, str]:
    """incident_id → name of the rule or detector whose alert would open it."""
    return {incident_id_of(alert): name for alert, name in alerts.select("alert_id", "name").iter_rows()}


def pages_by_day(pages: pl.DataFrame, rules: Mapping[str, str]) -> pl.DataFrame:
    """``day`` (ISO), ``rule``, ``pages``, in that order."""
    named = pages.with_columns(
        pl.col("at").dt.strftime("%Y-%m-%d").alias("day"),
        pl.col("incident_id").replace_strict(rules, default="?", return_dtype=pl.String).alias("rule"),
    )
    return named.group_by("day", "rule").agg(pl.len().alias("pages")).sort("day", "rule")


def count_by(frame: pl.DataFrame, column: str) -> dict[str, int]:
    """How many rows each value has."""
    return dict(frame.group_by(column).len().sort(column).iter_rows())
