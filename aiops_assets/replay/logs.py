"""Logs of alerts as people would have got them: decisions of hours, with windows, silences and imported history.

What belongs here: from decisions to rows of ``tables.ALERTS``, the same way for what is recorded and for what a replay
found, so that comparing the two compares the judgement. What does not: comparing (``difference``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
import polars as pl

from aiops_assets.detection.alerts import HISTORY_AFTER, Suppression, covering, history_reason
from aiops_assets.detection.amendments import WITHDRAWN, Row, newest_told, plain, same_content
from aiops_assets.detection.receipts import Receipt
from aiops_assets.hours import MICROS_PER_HOUR, hour_start, instant
from aiops_assets.lake.tables import Lake
from aiops_assets.tables import ALERTS, MAINTENANCE, TIMESTAMP

_TIMES = ("starts_at", "ends_at", "changed_at", "received_at")
_OURS = ("rule", "anomaly", "absence")


def told(decisions: pl.DataFrame, windows: Sequence[Suppression], until: int) -> pl.DataFrame:
    """The log that decisions give.

    Args:
        decisions: rows of ``tables.ALERTS`` without ``suppressed_by`` and ``amended_by``.
        windows: maintenance windows and silences; an alert that outlasts its window fires then.
        until: nothing after this instant (µs) is known.

    Returns:
        Rows of ``tables.ALERTS``: revisions count from 0 in order of ``changed_at``.
    """
    log = decisions.with_columns(
        pl.lit(None, pl.String).alias("suppressed_by"), pl.lit(None, pl.String).alias("amended_by")
    ).select(pl.col(name).cast(dtype) for name, dtype in ALERTS.schema.items())
    late = (pl.col("received_at") - pl.col("changed_at")).dt.total_microseconds() > HISTORY_AFTER
    order = ("alert_id", "changed_at", "revision")
    quiet = pl.Series("alert_id", log.filter(late)["alert_id"].unique())
    if windows:
        quiet = log["alert_id"].unique()
    plain_rows = log.filter(~pl.col("alert_id").is_in(quiet.implode())) if len(quiet) else log
    rows: list[Row] = []
    for alert in _by_alert(log.filter(pl.col("alert_id").is_in(quiet.implode())).sort(order)) if len(quiet) else ():
        rows += _suppressed(alert, windows, until)
    schema = ALERTS.schema | {column: pl.Int64() for column in _TIMES}
    changed = pl.DataFrame(rows, schema=schema, orient="row").with_columns(
        pl.col(column).cast(TIMESTAMP) for column in _TIMES
    )
    joined = pl.concat([plain_rows, changed]).sort(order)
    return joined.with_columns(
        pl.int_range(pl.len(), dtype=pl.Int32).over("alert_id").alias("revision"),
        pl.when(pl.col("state").is_in(["resolved", "suppressed"]))
        .then("state")
        .otherwise(pl.lit("firing"))
        .alias("state"),
    )


def _by_alert(rows: pl.DataFrame) -> Iterable[list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in plain(rows):
        found.setdefault(row["alert_id"], []).append(row)
    return found.values()


def _suppressed(rows: list[Row], windows: Sequence[Suppression], until: int) -> list[Row]:
    """The revisions of one alert, and those that windows add which begin or end while it is open."""
    made: list[Row] = []
    history: str | None = None
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        at = row["changed_at"]
        if row["state"] == "resolved":
            made.append({**row, "suppressed_by": made[-1]["suppressed_by"] if made else None})
            continue
        late = row["received_at"] - at
        if late > HISTORY_AFTER:
            history = history or history_reason(late)
        window = covering(windows, at, row["host"], row["name"], row["labels"])
        why = history or (window.explanation if window else None)
        made.append({**row, "state": "suppressed" if why else "firing", "suppressed_by": why})
        if history:
            continue
        end = following["changed_at"] if following is not None else until
        for border in sorted(
            {edge for entry in windows for edge in (entry.starts_at, entry.ends_at) if at < edge < end}
        ):
            window = covering(windows, border, row["host"], row["name"], row["labels"])
            why = window.explanation if window else None
            if why != made[-1]["suppressed_by"]:
                state = "suppressed" if why else "firing"
                made.append({**row, "state": state, "suppressed_by": why, "changed_at": border})
    return made


def recorded_decisions(lake: Lake, receipts: Mapping[str, Receipt], first: str, last: str) -> pl.DataFrame:
    """What the hours from ``first`` to ``last`` decided about alerts, as it stands now.

    Decisions of the newest revisions, of alerts that were not withdrawn. Where an amendment said something else in the
    end, that is the last row. Hours without receipts: what was told.

    Returns:
        Rows of ``tables.ALERTS`` without ``suppressed_by`` and ``amended_by``.
    """
    until = instant(hour_start(last) + MICROS_PER_HOUR)
    columns = [name for name in ALERTS.schema if name not in {"suppressed_by", "amended_by"}]
    revisions = pl.DataFrame(
        [(receipt.hour, receipt.revision) for receipt in receipts.values() if first <= receipt.hour <= last],
        schema={"hour": pl.String, "receipt_revision": pl.Int32},
        orient="row",
    )
    in_hours = (pl.col("hour") >= first) & (pl.col("hour") <= last)
    decisions = (
        lake.scan("alert_decisions")
        .filter(in_hours)
        .join(revisions.lazy(), on=["hour", "receipt_revision"], how="semi")
        .select(columns)
        .collect()
    )
    changed = lake.scan("alerts").filter(
        pl.col("kind").is_in(_OURS) & (pl.col("changed_at") >= instant(hour_start(first)))
    )
    touched = pl.concat([changed.select("alert_id").unique().collect(), decisions.select("alert_id").unique()]).unique()
    log = lake.scan("alerts").join(touched.lazy(), on="alert_id", how="semi").collect()
    rows = newest_told(log)
    withdrawn = [alert for alert, row in rows.items() if row["state"] == WITHDRAWN]
    decisions = decisions.filter(pl.col("alert_id").is_in(list(rows)) & ~pl.col("alert_id").is_in(withdrawn))
    newest = {row["alert_id"]: row for row in plain(decisions.sort("changed_at", "revision"))}
    amended: list[dict[str, Any]] = []
    for alert, row in rows.items():
        decided = newest.get(alert)
        known = row["amended_by"] is not None and instant(row["changed_at"]) < until
        if known and row["state"] != WITHDRAWN and decided is not None and not same_content(row, decided):
            amended.append({name: row[name] for name in columns} | {"revision": 1 << 20})
    without = log.filter(
        ~pl.col("alert_id").is_in(list(newest))
        & ~pl.col("alert_id").is_in(withdrawn)
        & ~pl.col("hour").is_in(list(receipts))
        & (pl.col("changed_at") < until)
        & (pl.col("changed_at") >= instant(hour_start(first)))
    ).select(columns)
    schema = {name: pl.Int64() if name in _TIMES else ALERTS.schema[name] for name in columns}
    last_words = pl.DataFrame(amended, schema=schema, orient="row").with_columns(
        pl.col(column).cast(TIMESTAMP) for column in _TIMES
    )
    return pl.concat([decisions, without, last_words])


def pinned_windows(receipts: Iterable[Receipt]) -> list[Suppression]:
    """The windows and silences that receipts name, each once."""
    found = {
        orjson.dumps(entry, option=orjson.OPT_SORT_KEYS): entry for receipt in receipts for entry in receipt.windows
    }
    return [_window(entry) for _, entry in sorted(found.items())]


def known_silences(lake: Lake) -> list[Suppression]:
    """Silences of the table of maintenance."""
    rows = lake.read(MAINTENANCE.name).filter(pl.col("kind") == "silence")
    made = []
    for row in rows.with_columns(pl.col("starts_at", "ends_at").dt.epoch("us")).iter_rows(named=True):
        matchers = orjson.loads(row["matchers"])
        made.append(_window({**row, "host": matchers.pop("host"), "rule": matchers.pop("rule"), "labels": matchers}))
    return made


def _window(entry: Mapping[str, Any]) -> Suppression:
    def patterns(value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    return Suppression(
        window_id=entry["window_id"],
        kind=entry["kind"],
        starts_at=int(entry["starts_at"]),
        ends_at=int(entry["ends_at"]),
        author=entry["author"],
        reason=entry["reason"],
        host=patterns(entry["host"]),
        rule=patterns(entry["rule"]),
        labels={name: patterns(value) for name, value in entry["labels"].items()},
    )
