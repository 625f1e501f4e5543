"""Alerts of another tool against the truth of a storm: the same definitions, from a table that anybody can write.

What belongs here: reading the table. What does not: scoring (``scoring``).

One row a firing: ``host`` and ``fired_at`` are needed; ``metric``, ``labels`` (canonical JSON), ``ended_at``,
``severity_number`` (OpenTelemetry, 17 when left out), ``name``, ``incident_id`` and ``rank`` may be there. Times are
ISO 8601 (UTC unless they say otherwise) or microseconds since the epoch. Rows of one ``incident_id`` are one incident,
which pages at its first row; without, every row is its own. Hosts of an incident are in order of ``rank``, else in that
of their first rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from aiops_assets.evaluation.scoring import StormScore, Volume, score
from aiops_assets.evaluation.truth import Truth
from aiops_assets.hours import hour_key, instant, micros
from aiops_assets.incidents.rehearsal import INCIDENTS_SCHEMA, PAGES_SCHEMA
from aiops_assets.replay.period import parse_instant
from aiops_assets.tables import ALERTS

_ERROR = 17
_READERS: Mapping[str, Callable[[Path], pl.DataFrame]] = {
    ".csv": lambda path: pl.read_csv(path, infer_schema=False),
    ".json": pl.read_json,
    ".jsonl": pl.read_ndjson,
    ".ndjson": pl.read_ndjson,
    ".parquet": pl.read_parquet,
}


class AlertsProblem(Exception):
    """A file of alerts cannot be used; the text says where and why."""


def score_alerts(path: Path, truth: Truth) -> StormScore:
    """Score a file of alerts (``.csv``, ``.jsonl``, ``.json`` or ``.parquet``).

    Raises:
        AlertsProblem: it cannot be read, or a row is wrong.
    """
    rows = [_row(f"{path}, row {number}", row) for number, row in enumerate(_read(path), 1)]
    incidents, pages = _incidents(rows)
    volume = Volume(series=truth.series)
    alerts = pl.DataFrame([_alert(row) for row in rows], schema=ALERTS.schema)
    return score(truth, alerts, incidents, pages, scenario=truth.scenario, seed=truth.seed, volume=volume)


def _read(path: Path) -> list[dict[str, Any]]:
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise AlertsProblem(f"{path}: allowed are {', '.join(sorted(_READERS))}")
    try:
        frame = _READERS[suffix](path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise AlertsProblem(f"{path}: cannot be read: {error}") from error
    lacking = [name for name in ("host", "fired_at") if name not in frame.columns]
    if lacking:
        raise AlertsProblem(f"{path}: {', '.join(lacking)} missing; it has {', '.join(frame.columns)}")
    return frame.to_dicts()


def _row(place: str, row: dict[str, Any]) -> dict[str, Any]:
    if not row["host"]:
        raise AlertsProblem(f"{place}: host is missing")
    made = {"host": str(row["host"]), "fired_at": _instant(f"{place}, fired_at", row["fired_at"])}
    made["ended_at"] = _instant(f"{place}, ended_at", row["ended_at"]) if row.get("ended_at") else None
    for name in ("metric", "labels", "incident_id"):
        made[name] = str(row[name]) if row.get(name) else None
    made["name"] = str(row.get("name") or "alert")
    made["severity_number"] = _whole(f"{place}, severity_number", row.get("severity_number"), _ERROR)
    made["rank"] = _whole(f"{place}, rank", row.get("rank"), None)
    made["alert_id"] = place
    return made


def _whole(place: str, value: Any, default: int | None) -> int | None:
    if value is None or value == "":
        return default
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise AlertsProblem(f"{place}: expected a whole number, got {value!r}") from error


def _instant(place: str, value: object) -> int:
    if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()):
        return int(value)
    try:
        return parse_instant(value) if isinstance(value, str) else micros(value)  # type: ignore[arg-type]
    except (AttributeError, TypeError, ValueError) as error:
        raise AlertsProblem(f"{place}: expected ISO 8601 or microseconds since the epoch, got {value!r}") from error


def _alert(row: dict[str, Any]) -> dict[str, Any]:
    at = instant(row["fired_at"])
    return {
        "alert_id": row["alert_id"],
        "fingerprint": row["alert_id"],
        "kind": "external",
        "name": row["name"],
        "host": row["host"],
        "metric": row["metric"],
        "labels": row["labels"],
        "severity_number": row["severity_number"],
        "starts_at": at,
        "changed_at": at,
        "revision": 0,
        "state": "firing",
        "title": row["name"],
        "evidence": "{}",
        "received_at": at,
        "writer": "",
        "seq": 0,
        "hour": hour_key(row["fired_at"]),
    }


def _incidents(rows: list[dict[str, Any]]) -> tuple[pl.DataFrame, pl.DataFrame]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: int(row["fired_at"])):
        groups.setdefault(row["incident_id"] or row["alert_id"], []).append(row)
    incidents, pages = [], []
    for name, members in groups.items():
        ranked = sorted(members, key=lambda row: row["rank"] if row["rank"] is not None else len(members))
        first = instant(members[0]["fired_at"])
        incidents.append(
            {
                "incident_id": name,
                "title": name,
                "priority": 3,
                "started_at": first,
                "resolved_at": None,
                "hosts": list(dict.fromkeys(row["host"] for row in ranked)),
                "alert_ids": [row["alert_id"] for row in members],
                "withdrawn": False,
                "suspects": [],
            }
        )
        pages.append({"incident_id": name, "at": first, "priority": 3, "reason": "opened"})
    return pl.DataFrame(incidents, schema=INCIDENTS_SCHEMA), pl.DataFrame(pages, schema=PAGES_SCHEMA)
