"""How alerts came about and which hours were amended, as the lake tells it: receipts of hours and revisions of alerts.

What belongs here: bounded, read-only queries and what pages and documents say of them. What does not: deriving anything
again (whoever explains does), and the operations database. Every function blocks on files, so servers call them in a
thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from aiops_assets.detection.receipts import Receipt
from aiops_assets.hours import MICROS_PER_HOUR, hour_key, hour_start
from aiops_assets.incidents.correlation import Alert
from aiops_assets.lake.tables import Lake
from aiops_assets.tables import ALERTS, HOUR_RECEIPTS, METRIC_POINTS

#: alerts of an incident whose revisions are read, and hours whose receipts are
MAX_ALERTS, MAX_HOURS = 50, 48
#: days that a strip of hours may have
MAX_DAYS = 31

HourState = Literal["closed", "amended", "open", "missing"]
#: summaries kept, so that an open page costs little
_SUMMARIES = 8
_STRIP = ("hour", "revision", "reason", "rows", "late_rows", "raised", "amended", "withdrawn")


@dataclass(frozen=True, slots=True)
class Revision:
    """A row of ``tables.ALERTS``. ``changed_at`` is microseconds since the epoch (UTC); it was decided in ``hour``."""

    alert_id: str
    revision: int
    state: str
    severity_number: int
    changed_at: int
    hour: str
    value: float | None
    threshold: float | None
    amended_by: str | None
    writer: str
    seq: int


@dataclass(frozen=True, slots=True)
class HourOrigin:
    """An hour in which something was decided: its receipts by revision, none while it is open.

    ``expired`` says that the rows it was derived from are gone.
    """

    hour: str
    receipts: tuple[Receipt, ...]
    expired: bool

    @property
    def start(self) -> int:
        return hour_start(self.hour)

    @property
    def receipt(self) -> Receipt | None:
        """The newest: the truth of the hour."""
        return self.receipts[-1] if self.receipts else None


@dataclass(frozen=True, slots=True)
class Origins:
    """How alerts came about: their revisions, oldest first, and the hours in which those were decided, by hour."""

    revisions: Mapping[str, tuple[Revision, ...]]
    hours: tuple[HourOrigin, ...]
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Amended:
    """One amendment of an hour: a receipt above revision 1. ``derived_at`` is microseconds since the epoch (UTC)."""

    hour: str
    revision: int
    reason: str
    rows: int
    late_rows: int
    raised: int
    amended: int
    withdrawn: int
    derived_at: int


@dataclass(frozen=True, slots=True)
class Hour:
    """A cell of the strip."""

    hour: str
    state: HourState
    revision: int = 0
    late_rows: int = 0

    @property
    def start(self) -> int:
        return hour_start(self.hour)


@dataclass(frozen=True, slots=True)
class Strip:
    """Hours by day (24 each, of the present day those until now), newest day first, and the amendments among them."""

    days: tuple[tuple[str, tuple[Hour, ...]], ...]
    amendments: tuple[Amended, ...]

    def count(self, state: HourState) -> int:
        """How many hours are in a state."""
        return sum(hour.state == state for _, hours in self.days for hour in hours)


class LakeHistory:
    """Reads receipts and alerts below one root."""

    def __init__(self, root: str) -> None:
        self._lake = Lake(root)
        #: the summary of the receipts of some hours, by version of their table
        self._summaries: dict[tuple[str, str], tuple[int, pl.DataFrame]] = {}

    def origins(self, alerts: Sequence[Alert]) -> Origins:
        """How alerts came about; of many the first ``MAX_ALERTS``."""
        chosen = alerts[:MAX_ALERTS]
        revisions = self._revisions(chosen)
        decided = {entry.hour for entries in revisions.values() for entry in entries}
        decided |= {hour_key(alert.changed_at) for alert in chosen if alert.alert_id not in revisions}
        wanted = sorted(decided)[-MAX_HOURS:]
        receipts = self._receipts(wanted)
        present = self._present(wanted)
        hours = tuple(
            HourOrigin(
                hour,
                tuple(receipts.get(hour, ())),
                expired=hour in receipts and receipts[hour][-1].rows > 0 and hour not in present,
            )
            for hour in wanted
        )
        return Origins(revisions, hours, len(alerts) - len(chosen))

    def strip(self, until: int, days: int) -> Strip:
        """The hours of some days (at most ``MAX_DAYS``) up to an instant (microseconds since the epoch, UTC)."""
        day = 24 * MICROS_PER_HOUR
        last = until - until % MICROS_PER_HOUR
        first = until - until % day - (min(days, MAX_DAYS) - 1) * day
        keys = [hour_key(at) for at in range(first, last + 1, MICROS_PER_HOUR)]
        frame = self._summary(keys)
        newest = {row["hour"]: row for row in frame.iter_rows(named=True)}
        present = self._present(keys)
        cells = {key: _cell(key, newest.get(key), key in present) for key in keys}
        by_day: dict[str, list[Hour]] = {}
        for key, cell in cells.items():
            by_day.setdefault(key[:10], []).append(cell)
        amendments = [Amended(**row) for row in frame.filter(pl.col("revision") > 1).iter_rows(named=True)]
        return Strip(
            tuple((key, tuple(by_day[key])) for key in sorted(by_day, reverse=True)),
            tuple(sorted(amendments, key=lambda entry: (entry.hour, entry.revision), reverse=True)),
        )

    def _summary(self, hours: Sequence[str]) -> pl.DataFrame:
        handle = self._lake.open(HOUR_RECEIPTS.name)
        version = -1 if handle is None else handle.version()
        span = hours[0], hours[-1]
        kept = self._summaries.get(span)
        if kept is not None and kept[0] == version:
            return kept[1]
        frame = (
            self._lake.scan(HOUR_RECEIPTS.name, hours=list(hours))
            .filter(pl.col("table") == METRIC_POINTS.name)
            .select(*_STRIP, pl.col("derived_at").dt.epoch("us"))
            .sort("hour", "revision")
            .collect()
        )
        if len(self._summaries) >= _SUMMARIES:
            self._summaries.clear()
        self._summaries[span] = (version, frame)
        return frame

    def _revisions(self, alerts: Sequence[Alert]) -> dict[str, tuple[Revision, ...]]:
        if not alerts:
            return {}
        hours = sorted({hour_key(alert.starts_at) for alert in alerts})
        columns = [name for name in Revision.__dataclass_fields__ if name != "hour"]
        rows = (
            self._lake.scan(ALERTS.name, hours=hours)
            .filter(pl.col("alert_id").is_in([alert.alert_id for alert in alerts]))
            .select(pl.col(name).dt.epoch("us") if name == "changed_at" else pl.col(name) for name in columns)
            .unique(["alert_id", "revision"], keep="last")
            .sort("alert_id", "revision")
            .collect()
        )
        found: dict[str, list[Revision]] = {}
        for row in rows.iter_rows(named=True):
            found.setdefault(row["alert_id"], []).append(Revision(**row, hour=hour_key(row["changed_at"])))
        return {alert_id: tuple(entries) for alert_id, entries in found.items()}

    def _receipts(self, hours: Sequence[str]) -> dict[str, list[Receipt]]:
        frame = (
            self._lake.scan(HOUR_RECEIPTS.name, hours=list(hours))
            .filter(pl.col("table") == METRIC_POINTS.name)
            .with_columns(pl.col("derived_at").dt.epoch("us"))
            .sort("hour", "revision")
            .collect()
        )
        found: dict[str, list[Receipt]] = {}
        for row in frame.iter_rows(named=True):
            found.setdefault(row["hour"], []).append(Receipt.of_row(row))
        return found

    def _present(self, hours: Iterable[str]) -> set[str]:
        """Hours of which points are stored."""
        handle = self._lake.open(METRIC_POINTS.name)
        wanted = list(hours)
        if handle is None or not wanted:
            return set()
        names = handle.file_uris(file_pruning_predicate=[("hour", "in", wanted)])
        return {part.removeprefix("hour=") for name in names for part in name.split("/") if part.startswith("hour=")}


def _cell(hour: str, receipt: Mapping[str, Any] | None, has_points: bool) -> Hour:
    if receipt is None:
        return Hour(hour, "open" if has_points else "missing")
    state: HourState = "amended" if receipt["revision"] > 1 else "closed"
    return Hour(hour, state, receipt["revision"], receipt["late_rows"])
