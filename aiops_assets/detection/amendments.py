"""From what was told about alerts to what is known now: the revisions that close the gap.

What belongs here: comparing decisions derived anew with the newest told row of each alert, as frames and rows. What
does not: deriving (``derive``) and what becomes of a revision (``incidents``).

Progress is not an amendment: a decision later than everything told is told as it is. Only when something told turns out
to be otherwise does the new revision carry ``amended_by``; an alert that should never have fired becomes ``withdrawn``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from aiops_assets.detection.alerts import HISTORY_AFTER, Suppression, covering, history_reason
from aiops_assets.detection.wording import when
from aiops_assets.hours import MICROS_PER_HOUR, hour_key
from aiops_assets.tables import ALERTS, TIMESTAMP

Row = dict[str, Any]
WITHDRAWN = "withdrawn"
_TIMES = ("starts_at", "ends_at", "changed_at", "received_at")
_CONTENT = ("starts_at", "ends_at", "severity_number", "title", "value", "threshold", "evidence")


@dataclass(slots=True)
class Revisions:
    """New rows of ``tables.ALERTS`` (times in µs), and how many alerts were raised, amended and withdrawn by them."""

    rows: list[Row] = field(default_factory=list)
    raised: set[str] = field(default_factory=set)
    amended: set[str] = field(default_factory=set)
    withdrawn: set[str] = field(default_factory=set)

    def frame(self) -> pl.DataFrame:
        """Rows of ``tables.ALERTS`` in order."""
        schema = ALERTS.schema | {column: pl.Int64() for column in _TIMES}
        return pl.DataFrame(self.rows, schema=schema, orient="row").with_columns(
            pl.col(column).cast(TIMESTAMP) for column in _TIMES
        )


def plain(rows: pl.DataFrame) -> list[Row]:
    """Rows with times as µs since the epoch."""
    return rows.with_columns(pl.col(column).dt.epoch("us") for column in _TIMES).to_dicts()


def by_alert(decisions: Iterable[Row]) -> dict[str, list[Row]]:
    """Decisions of each alert in their order."""
    found: dict[str, list[Row]] = {}
    for row in decisions:
        found.setdefault(row["alert_id"], []).append(row)
    return found


def newest_told(alerts: pl.DataFrame) -> dict[str, Row]:
    """The highest revision of each alert, from rows of ``tables.ALERTS``."""
    last = alerts.sort("revision").unique("alert_id", keep="last")
    return {row["alert_id"]: row for row in plain(last)}


def _ends_earlier(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether an hour that left an alert open now ends it: what later hours said about it does not count then."""
    return _ended(old) == "open" and _ended(new) == "resolved"


def same_content(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two rows say the same about an alert (suppression and numbering aside)."""
    return _ended(one) == _ended(other) and all(one[name] == other[name] for name in _CONTENT)


def _ended(row: Mapping[str, Any]) -> str:
    return row["state"] if row["state"] in {"resolved", WITHDRAWN} else "open"


def catch_up(
    decisions: Mapping[str, Sequence[Row]],
    told: Mapping[str, Row],
    still_open: Mapping[str, Row],
    ended: Mapping[str, int],
    provisional: Iterable[str],
    windows: Sequence[Suppression],
    reason: str,
) -> Revisions:
    """What is to be told so that it agrees with decisions derived anew up to the present.

    Args:
        decisions: alert_id → decisions since the last state that was handed over.
        told: alert_id → newest row told, for all alerts concerned.
        still_open: alert_id → row of the alerts that are open now.
        ended: alert_id → end of alerts that ended lately.
        provisional: alerts about which something was told since that state.
        windows: maintenance windows and silences in force.
        reason: said of every amendment.
    """
    result = Revisions()
    for alert, rows in sorted(decisions.items(), key=lambda entry: (entry[1][0]["changed_at"], entry[0])):
        before = told.get(alert)
        if before is not None and before["state"] == WITHDRAWN and rows[0]["revision"] > 0:
            # An hour that was derived before the withdrawal goes on with it; what never was has no end.
            continue
        if before is None:
            _tell(result, rows, 0, None, windows)
            result.raised.add(alert)
        elif not same_content(before, rows[-1]):
            place = next((i for i, row in enumerate(rows) if same_content(before, row)), None)
            if place is not None or before["changed_at"] < rows[0]["changed_at"]:
                _tell(result, rows[0 if place is None else place + 1 :], before["revision"] + 1, before, windows)
            else:
                _tell(result, rows[-1:], before["revision"] + 1, before, windows, reason)
                result.amended.add(alert)
    for alert in sorted(set(provisional) - set(decisions)):
        before = told.get(alert)
        if before is None or before["state"] == WITHDRAWN:
            continue
        if alert in still_open:
            if not same_content(before, still_open[alert]) and before["state"] == "resolved":
                _tell(result, [still_open[alert]], before["revision"] + 1, before, windows, reason)
                result.amended.add(alert)
        elif alert in ended:
            if before["state"] != "resolved" or before["ends_at"] != ended[alert]:
                _end(result, before, ended[alert], reason)
        else:
            _withdraw(result, before, reason)
    return result


def amend(
    old: Mapping[str, Sequence[Row]],
    new: Mapping[str, Sequence[Row]],
    told: Mapping[str, Row],
    still_open: Mapping[str, Row],
    window_end: int,
    windows: Sequence[Suppression],
    reason: str,
) -> Revisions:
    """What is to be told when a closed hour was derived again while later hours stay as they are.

    Args:
        old, new: alert_id → decisions of the hour, before and now.
        told: alert_id → newest row told.
        still_open: alert_id → row of the alerts that are open in the present.
        window_end: the end of the hour (µs).
        windows: maintenance windows and silences in force.
        reason: said of every revision.
    """
    result = Revisions()
    for alert in sorted(set(old) | set(new)):
        before, rows = told.get(alert), new.get(alert)
        if rows is None:
            if before is None or before["state"] == WITHDRAWN:
                continue
            if old[alert][0]["revision"] == 0:
                _withdraw(result, before, reason)
            elif (
                before["state"] == "resolved"
                and alert not in still_open
                and before["ends_at"] > window_end - MICROS_PER_HOUR
            ):
                _end(result, before, window_end, reason)
            continue
        if alert in old and same_content(old[alert][-1], rows[-1]):
            continue
        if before is None:
            _tell(result, rows, 0, None, windows, reason)
            result.raised.add(alert)
        elif not same_content(before, rows[-1]) and (
            alert not in old or same_content(before, old[alert][-1]) or _ends_earlier(old[alert][-1], rows[-1])
        ):
            _tell(result, rows[-1:], before["revision"] + 1, before, windows, reason)
            result.amended.add(alert)
    return result


def end_unfollowed(
    told: Mapping[str, Row], unfollowed: Iterable[str], still_open: Mapping[str, Row], end: int
) -> Revisions:
    """End what hours derived again left open at ``end`` (µs) and the present does not know: nobody follows it."""
    result = Revisions()
    for alert in sorted(unfollowed):
        before = told.get(alert)
        if before is not None and _ended(before) == "open" and alert not in still_open:
            _end(result, before, max(end, before["changed_at"]), f"not followed beyond {when(end)}")
    return result


def _tell(
    result: Revisions,
    rows: Sequence[Row],
    revision: int,
    before: Mapping[str, Any] | None,
    windows: Sequence[Suppression],
    reason: str | None = None,
) -> None:
    """Add revisions for decisions; suppression is judged as it would have been when they were made."""
    suppressed = before["suppressed_by"] if before is not None and before["state"] == "suppressed" else None
    for number, row in enumerate(rows, revision):
        state = row["state"]
        if state != "resolved":
            suppressed = suppressed or _suppressed_by(row, windows)
            state = "suppressed" if suppressed else "firing"
        result.rows.append(
            {name: row[name] for name in ALERTS.schema if name in row}
            | {
                "revision": number,
                "state": state,
                "suppressed_by": suppressed,
                "amended_by": reason,
                "hour": hour_key(row["starts_at"]),
            }
        )


def _suppressed_by(row: Mapping[str, Any], windows: Sequence[Suppression]) -> str | None:
    late = row["received_at"] - row["changed_at"]
    if late > HISTORY_AFTER:
        return history_reason(late)
    window = covering(windows, row["changed_at"], row["host"], row["name"], row["labels"])
    return window.explanation if window else None


def _end(result: Revisions, before: Row, ends_at: int, reason: str) -> None:
    if before["state"] == "resolved" and before["ends_at"] == ends_at:
        return
    result.rows.append(
        before | {"revision": before["revision"] + 1, "state": "resolved", "ends_at": ends_at, "amended_by": reason}
    )
    result.amended.add(before["alert_id"])


def _withdraw(result: Revisions, before: Row, reason: str) -> None:
    result.rows.append(before | {"revision": before["revision"] + 1, "state": WITHDRAWN, "amended_by": reason})
    result.withdrawn.add(before["alert_id"])
