"""Labels: when a host (or one of its metrics) really was in trouble, and what that says about alerts.

What belongs here: the file of labels, precision and recall. What does not: where labels come from.

A file has one window a row: ``host``, ``from``, ``to`` and, if only one metric is meant, ``metric``; as CSV with a
header or as a JSON list of objects. Times are ISO 8601 (UTC unless they say otherwise).

- An alert is **right** when it is open at some time of a window of its host (and metric, where the window names one and
  the alert has one), else it is a **false alarm**. Alerts that were suppressed all along, and notices (severity below
  warning), say nothing to people and are not counted.
- A window is **seen** when an alert is right because of it, **missed** otherwise.
- ``precision`` = right alerts / alerts; ``recall`` = windows seen / windows. Windows outside the replayed range do not
  count. Pages are counted the same way: a page is right when an alert of its incident is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from aiops_assets.hours import micros
from aiops_assets.replay.period import Period, parse_instant

#: below this severity an alert is a notice
WARNING = 13
_FIELDS = ("host", "from", "to")


class LabelProblem(Exception):
    """A file of labels cannot be used; the text says where and why."""


@dataclass(frozen=True, slots=True)
class Label:
    """One window. Instants are microseconds since the epoch (UTC), ``ends_at`` not included."""

    host: str
    metric: str | None
    starts_at: int
    ends_at: int


@dataclass(frozen=True, slots=True)
class Score:
    """How alerts fit labels. ``precision`` and ``recall`` are ``None`` where there is nothing to count."""

    windows: int
    seen: int
    alerts: int
    right: int
    pages: int
    pages_right: int

    @property
    def precision(self) -> float | None:
        return self.right / self.alerts if self.alerts else None

    @property
    def recall(self) -> float | None:
        return self.seen / self.windows if self.windows else None

    @property
    def page_precision(self) -> float | None:
        return self.pages_right / self.pages if self.pages else None

    def document(self) -> dict[str, Any]:
        """JSON-able values."""
        shares = {"precision": self.precision, "recall": self.recall, "page_precision": self.page_precision}
        return asdict(self) | shares


def read_labels(path: Path) -> list[Label]:
    """Read a file of labels.

    Raises:
        LabelProblem: it cannot be read, or a row is wrong.
    """
    try:
        content = path.read_bytes()
        if path.suffix.lower() == ".json":
            rows = orjson.loads(content)
        else:
            rows = pl.read_csv(content, infer_schema=False).to_dicts() if content.strip() else []
    except (OSError, orjson.JSONDecodeError, pl.exceptions.PolarsError) as error:
        raise LabelProblem(f"{path}: cannot be read: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise LabelProblem(f"{path}: expected a list of objects with {', '.join(_FIELDS)} and perhaps metric")
    return [_label(f"{path}, label {number}", row) for number, row in enumerate(rows, 1)]


def _label(place: str, row: dict[str, Any]) -> Label:
    lacking = [name for name in _FIELDS if not row.get(name)]
    if lacking:
        raise LabelProblem(f"{place}: {', '.join(lacking)} is missing; needed are {', '.join(_FIELDS)}")
    try:
        start, end = (parse_instant(str(row[name])) for name in ("from", "to"))
    except ValueError as error:
        raise LabelProblem(f"{place}: {error}") from error
    if end <= start:
        raise LabelProblem(f"{place}: 'to' must be later than 'from'")
    return Label(str(row["host"]), str(row["metric"]) if row.get("metric") else None, start, end)


def score(
    labels: Sequence[Label], alerts: pl.DataFrame, pages: pl.DataFrame, opened_by: dict[str, set[str]], period: Period
) -> Score:
    """Count.

    Args:
        alerts: as ``difference.summary`` gives them.
        pages: ``rehearsal.PAGES_SCHEMA``.
        opened_by: incident_id → its alert_ids.
        period: the replayed range.
    """
    wanted = [label for label in labels if period.overlaps(label.starts_at, label.ends_at)]
    by_host: dict[str, list[int]] = {}
    for number, label in enumerate(wanted):
        by_host.setdefault(label.host, []).append(number)
    counted = alerts.filter(pl.col("fired_at").is_not_null() & (pl.col("severity_number") >= WARNING))
    seen: set[int] = set()
    right: set[str] = set()
    for row in counted.iter_rows(named=True):
        start = micros(row["starts_at"])
        end = micros(row["ends_at"]) if row["ends_at"] is not None else period.end
        for number in by_host.get(row["host"], ()):
            label = wanted[number]
            same = label.metric is None or row["metric"] is None or label.metric == row["metric"]
            if same and label.starts_at <= end and start < label.ends_at:
                seen.add(number)
                right.add(row["alert_id"])
    pages_right = sum(1 for incident in pages["incident_id"] if opened_by.get(incident, set()) & right)
    return Score(len(wanted), len(seen), counted.height, len(right), pages.height, pages_right)
