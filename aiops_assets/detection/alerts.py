"""The book of alerts: which transitions become alerts, what is suppressed and why, and how an alert ends.

What belongs here: one event, one alert. What does not: deciding what is bad (``rules``, ``statistics``) and what people
do with alerts (``incidents``). Nothing here reads a clock.

- A **fingerprint** is what an alert is about: kind, name and series; for absence kind, name and host. At most one alert
  of a fingerprint is open. Its ``alert_id`` follows from fingerprint and ``starts_at``, so that the same transitions
  give the same ids wherever and however often they run.
- **Revision** 0 is the first state; each change of state, and each rise of the severity, adds one. A revision is never
  rewritten.
- **Flapping**: what starts again within ``REOPEN_WITHIN`` of its end is the same event: the alert is reopened under its
  old ``alert_id`` and ``starts_at`` by a further revision, and its evidence counts ``reopened``.
- **Suppression**: a maintenance window or silence that covers the deciding instant makes the state ``suppressed``;
  ``suppressed_by`` says by which, until when, by whom and why. ``recheck`` follows windows that begin or end meanwhile.
- **History**: a decision that rests on a point received more than ``history_after`` late is recorded as suppressed.
  When its series has become current and the alert is still open, ``recheck`` lets it fire.
- An alert that ends was ``resolved``, suppressed or not; ``suppressed_by`` then says that it never fired.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from aiops_assets.config import Config
from aiops_assets.detection.matching import Patterns, labels_match, matches, parse_labels
from aiops_assets.detection.transitions import FIRING, Transition
from aiops_assets.detection.wording import duration, printable, when
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND, hour_key, micros
from aiops_assets.tables import ALERTS, TIMESTAMP

Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)

#: what starts again this soon after its end is the same event
REOPEN_WITHIN = 600 * MICROS_PER_SECOND
#: a decision on a point received later than this is about history
HISTORY_AFTER = MICROS_PER_HOUR
#: at most so many ended alerts are remembered; of more, the tenth that ended first is forgotten
CLOSED_KEPT = 10_000
_HISTORY = "history: "
_TIMES = ("starts_at", "ends_at", "changed_at", "received_at")


@dataclass(frozen=True, slots=True)
class Suppression:
    """A maintenance window (``aiops.yaml``) or a silence (set by a person). Instants are microseconds since the epoch.

    ``host`` and ``rule`` (the name of a rule or detector) are patterns with ``*``; ``labels`` maps labels to patterns.
    It covers instants from ``starts_at`` up to, not including, ``ends_at``.
    """

    window_id: str
    kind: Literal["window", "silence"]
    starts_at: int
    ends_at: int
    author: str
    reason: str
    host: Patterns = "*"
    rule: Patterns = "*"
    labels: Mapping[str, Patterns] = field(default_factory=dict)

    def covers(self, at: int, host: str, name: str, labels: str) -> bool:
        """Whether an alert of this host, name and labels (canonical JSON) is suppressed at an instant."""
        return (
            self.starts_at <= at < self.ends_at
            and matches(self.host, host)
            and matches(self.rule, name)
            and (not self.labels or labels_match(self.labels, parse_labels(labels)))
        )

    @property
    def explanation(self) -> str:
        """For people: which, until when, who, why."""
        return f"{self.window_id}: {self.kind} until {when(self.ends_at)} by {self.author}: {self.reason}"


def suppressions_of(config: Config) -> list[Suppression]:
    """The maintenance windows of ``aiops.yaml``."""
    return [
        Suppression(
            window_id=window.name,
            kind="window",
            starts_at=micros(window.starts_at),
            ends_at=micros(window.ends_at),
            author=window.author,
            reason=window.reason,
            host=window.host,
            rule=window.rule,
            labels=window.labels,
        )
        for window in config.maintenance
    ]


class _Strings(Protocol):
    def __getitem__(self, index: int, /) -> str: ...


class _Integers(Protocol):
    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class BatchRows:
    """Where a batch came from, by row: ``received_at`` (int64 microseconds), landing ``writer`` and ``seq``."""

    received_at: NDArray[np.int64]
    writer: _Strings
    seq: _Integers

    @classmethod
    def empty(cls) -> BatchRows:
        """For decisions that no row made."""
        return cls(np.empty(0, np.int64), [], np.empty(0, np.int64))

    def position(self, row: int, at: int) -> tuple[int, str, int]:
        """Ingest position of a row; (``at``, "", 0) when no row decided."""
        if row < 0 or not len(self.received_at):
            return at, "", 0
        return int(self.received_at[row]), self.writer[row], int(self.seq[row])


@dataclass(slots=True)
class OpenAlert:
    """An alert that has not ended: its newest revision."""

    alert_id: str
    fingerprint: str
    kind: str
    name: str
    host: str
    metric: str | None
    series_id: int | None
    labels: str
    severity_number: int
    starts_at: int
    changed_at: int
    revision: int
    state: str
    title: str
    value: float | None
    threshold: float | None
    evidence: str
    suppressed_by: str | None
    #: when the window that suppresses it ends
    suppressed_until: int | None
    reopened: int
    #: what its last start said: first bad point and the instant of the decision
    started_at: int
    decided_at: int

    @property
    def is_history(self) -> bool:
        return self.suppressed_by is not None and self.suppressed_by.startswith(_HISTORY)


#: columns of ``tables.ALERTS`` that are fields of an open alert
_COPIED = tuple(name for name in ALERTS.schema if name in OpenAlert.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class _Closed:
    """What is remembered of an alert that ended."""

    starts_at: int
    ends_at: int
    started_at: int
    revision: int
    reopened: int
    series_id: int | None


class AlertBook:
    """The open alerts. Every method returns new revisions as rows of ``tables.ALERTS`` (with ``hour``), in order."""

    def __init__(self, history_after: int | None = HISTORY_AFTER) -> None:
        self._history_after = history_after
        self._open: dict[str, OpenAlert] = {}
        self._closed: dict[str, _Closed] = {}
        #: newest revision told of alerts that this book may not know, by alert_id
        self._told: dict[str, int] = {}

    @property
    def open_count(self) -> int:
        """How many alerts are open, suppressed ones included."""
        return len(self._open)

    def apply(
        self,
        transitions: Iterable[Transition],
        *,
        directory: pl.DataFrame,
        windows: Sequence[Suppression],
        batch: BatchRows,
    ) -> pl.DataFrame:
        """Take what rules and detectors reported.

        What is known already changes nothing: a start that is no later than the last one of the fingerprint, or of what
        is open (unless it is more severe); an end that was decided before that start, or of what is not open.

        Args:
            directory: the series directory, ordered by number.
            windows: maintenance windows and silences in force.
            batch: positions of the rows that ``Transition.row`` refers to.
        """
        ordered = sorted(transitions, key=lambda transition: transition.at)
        if not ordered:
            return ALERTS.empty()
        numbers = sorted({transition.series for transition in ordered})
        named = dict(zip(numbers, directory[numbers].iter_rows(named=True), strict=True))
        rows: list[dict[str, Any]] = []
        for transition in ordered:
            series = named[transition.series]
            about = series["host"] if transition.kind == "absence" else series["series_id"]
            key = fingerprint(transition.kind, transition.name, about)
            position = batch.position(transition.row, transition.at)
            if transition.state == FIRING:
                self._start(key, transition, series, windows, position, rows)
            else:
                self._end(key, transition, series, position, rows)
        return revisions_frame(rows)

    def recheck(
        self,
        watermark: int,
        *,
        windows: Sequence[Suppression],
        directory: pl.DataFrame,
        latest: NDArray[np.int64] | None = None,
        received_at: int | None = None,
    ) -> pl.DataFrame:
        """Look at open alerts again: windows that began or ended, history that has become the present.

        Args:
            watermark: event time reached, microseconds since the epoch.
            windows: maintenance windows and silences in force.
            directory: the series directory, ordered by number.
            latest: by series number, event time of the newest point (microseconds); with ``received_at``, the newest
                time of receipt, it lets alerts fire that were suppressed as history and whose series is current now.
        """
        rows: list[dict[str, Any]] = []
        current = self._current_series(directory, latest, received_at)
        for alert in self._open.values():
            if alert.is_history and alert.series_id not in current:
                continue
            if not windows and alert.state == FIRING:
                continue
            at = max(watermark, alert.changed_at)
            window = covering(windows, at, alert.host, alert.name, alert.labels)
            explanation = window.explanation if window else None
            if explanation == alert.suppressed_by:
                continue
            if window:
                changed_at = max(window.starts_at, alert.changed_at)
            elif alert.suppressed_until is not None and alert.suppressed_until <= at:
                changed_at = max(alert.suppressed_until, alert.changed_at)
            else:
                changed_at = at
            alert.state, alert.suppressed_by = ("suppressed" if window else FIRING), explanation
            alert.suppressed_until = window.ends_at if window else None
            alert.changed_at, alert.revision = changed_at, alert.revision + 1
            rows.append(revision_row(alert, (changed_at, "", 0)))
        return revisions_frame(rows)

    def export(self) -> dict[str, Any]:
        """Everything as JSON-able values, in an order that follows from them alone."""
        return {
            "open": [_fields(self._open[key]) for key in sorted(self._open)],
            "closed": {key: _fields(self._closed[key]) for key in sorted(self._closed)},
        }

    def adopt_state(self, state: Mapping[str, Any]) -> None:
        """Take over an ``export`` in place of everything."""
        self._open = {entry["fingerprint"]: OpenAlert(**entry) for entry in state["open"]}
        self._closed = {key: _Closed(**entry) for key, entry in state["closed"].items()}

    def drop_absences_but(self, silent: Collection[tuple[str, str]]) -> None:
        """Drop open absence alerts unless their (rule, host) is among those that are silent.

        An absence alert is about a host, its state follows a series: of two joined states, one may know the silence and
        the other that the host reported by another series.
        """
        self._open = {
            key: alert
            for key, alert in self._open.items()
            if alert.kind != "absence" or (alert.name, alert.host) in silent
        }

    def forget(self, before: int) -> None:
        """Forget what ended so long before an instant (µs) that nothing from then on can reopen it."""
        self._closed = {key: closed for key, closed in self._closed.items() if closed.ends_at >= before - REOPEN_WITHIN}

    def open_rows(self) -> pl.DataFrame:
        """The open alerts as they stand."""
        return revisions_frame([revision_row(alert, (alert.changed_at, "", 0)) for alert in self._open.values()])

    def ended_at(self) -> dict[str, int]:
        """alert_id → end (µs) of alerts that ended lately."""
        return {alert_id(key, closed.starts_at): closed.ends_at for key, closed in self._closed.items()}

    def ended_starts(self) -> dict[str, int]:
        """alert_id → start (µs) of alerts that ended lately."""
        return {alert_id(key, closed.starts_at): closed.starts_at for key, closed in self._closed.items()}

    def rebase(self, derived: AlertBook, told: Mapping[str, Mapping[str, Any]]) -> None:
        """Go on from what was derived anew; what people were told of it stays: revision, suppression.

        Args:
            derived: a book without regard to windows.
            told: alert_id → newest row of ``tables.ALERTS`` (times in µs).
        """
        self._open, self._closed = {}, {}
        self._told = {name: row["revision"] for name, row in told.items()}
        for key, alert in derived._open.items():
            mine = OpenAlert(**_fields(alert))
            row = told.get(alert.alert_id)
            if row is not None:
                mine.revision = row["revision"]
                if row["state"] == "suppressed":
                    mine.state, mine.suppressed_by = "suppressed", row["suppressed_by"]
                    mine.suppressed_until = None
            self._open[key] = mine
        for key, closed in derived._closed.items():
            row = told.get(alert_id(key, closed.starts_at))
            self._closed[key] = replace(closed, revision=row["revision"]) if row is not None else closed

    def _start(
        self,
        key: str,
        transition: Transition,
        series: Mapping[str, Any],
        windows: Sequence[Suppression],
        position: tuple[int, str, int],
        rows: list[dict[str, Any]],
    ) -> None:
        if key in self._open:
            self._sharpen(self._open[key], transition, series, position, rows)
            return
        earlier = self._closed.get(key)
        if earlier and transition.starts_at <= earlier.started_at:
            return
        starts_at, revision, reopened = transition.starts_at, 0, 0
        if earlier and transition.starts_at - earlier.ends_at <= REOPEN_WITHIN:
            starts_at, revision, reopened = earlier.starts_at, earlier.revision + 1, earlier.reopened + 1
        self._closed.pop(key, None)
        told = self._told.get(alert_id(key, starts_at))
        if not revision and told is not None:
            revision = told + 1
        labels = "{}" if transition.kind == "absence" else series["labels"]
        late = position[0] - transition.at
        until: int | None = None
        suppressed_by: str | None = None
        if self._history_after is not None and late > self._history_after:
            suppressed_by = history_reason(late)
        elif window := covering(windows, transition.at, series["host"], transition.name, labels):
            suppressed_by, until = window.explanation, window.ends_at
        evidence = dict(transition.evidence)
        if reopened:
            evidence |= {"reopened": reopened, "fired_again_at": when(transition.starts_at)}
        alert = OpenAlert(
            alert_id=alert_id(key, starts_at),
            fingerprint=key,
            kind=transition.kind,
            name=transition.name,
            host=series["host"],
            metric=series["metric"],
            series_id=series["series_id"],
            labels=labels,
            severity_number=transition.severity_number,
            starts_at=starts_at,
            changed_at=transition.at,
            revision=revision,
            state="suppressed" if suppressed_by else FIRING,
            title=_title(transition, series),
            value=_finite(transition.value),
            threshold=_finite(transition.threshold),
            evidence=_json(evidence),
            suppressed_by=suppressed_by,
            suppressed_until=until,
            reopened=reopened,
            started_at=transition.starts_at,
            decided_at=transition.at,
        )
        self._open[key] = alert
        rows.append(revision_row(alert, position))

    def _sharpen(
        self,
        alert: OpenAlert,
        transition: Transition,
        series: Mapping[str, Any],
        position: tuple[int, str, int],
        rows: list[dict[str, Any]],
    ) -> None:
        """What is open has become more severe."""
        if transition.severity_number <= alert.severity_number or transition.at < alert.decided_at:
            return
        alert.severity_number, alert.title = transition.severity_number, _title(transition, series)
        alert.value, alert.threshold = _finite(transition.value), _finite(transition.threshold)
        evidence = dict(transition.evidence)
        if alert.reopened:
            evidence["reopened"] = alert.reopened
        alert.evidence = _json(evidence)
        alert.changed_at, alert.revision = max(transition.at, alert.changed_at), alert.revision + 1
        rows.append(revision_row(alert, position))

    def _end(
        self,
        key: str,
        transition: Transition,
        series: Mapping[str, Any],
        position: tuple[int, str, int],
        rows: list[dict[str, Any]],
    ) -> None:
        alert = self._open.get(key)
        if alert is None or transition.at < alert.decided_at:
            return
        del self._open[key]
        lasted = (transition.at - alert.starts_at) / MICROS_PER_SECOND
        evidence = {**transition.evidence, "duration_seconds": lasted}
        if alert.reopened:
            evidence["reopened"] = alert.reopened
        alert.title = f"{_title(transition, series)} (after {duration(lasted)})"
        alert.changed_at, alert.revision, alert.state = (
            max(transition.at, alert.changed_at),
            alert.revision + 1,
            "resolved",
        )
        alert.value, alert.evidence = _finite(transition.value), _json(evidence)
        rows.append(revision_row(alert, position, ends_at=transition.at))
        closed = _Closed(
            alert.starts_at, transition.at, alert.started_at, alert.revision, alert.reopened, alert.series_id
        )
        self._remember(key, closed)

    def _remember(self, key: str, closed: _Closed) -> None:
        self._closed[key] = closed
        if len(self._closed) > CLOSED_KEPT:
            # By their ends, not by the order of the dictionary, which handing over does not keep.
            oldest = sorted(self._closed, key=lambda name: (self._closed[name].ends_at, name))
            for name in oldest[: CLOSED_KEPT // 10]:
                del self._closed[name]

    def _current_series(
        self, directory: pl.DataFrame, latest: NDArray[np.int64] | None, received_at: int | None
    ) -> set[int | None]:
        """Series of alerts suppressed as history whose newest point was live when it came."""
        if latest is None or received_at is None or self._history_after is None:
            return set()
        wanted = [a.series_id for a in self._open.values() if a.is_history and a.kind != "absence"]
        if not wanted:
            return set()
        found = directory.filter(pl.col("series_id").is_in(wanted)).select("number", "series_id")
        live = received_at - latest[found["number"].to_numpy()] <= self._history_after
        return set(found["series_id"].filter(pl.Series(live)).to_list())


def fingerprint(kind: str, name: str, about: int | str) -> str:
    """Stable identity of what an alert is about: a series_id, or a host for absence."""
    return hashlib.blake2b(orjson.dumps([kind, name, about]), digest_size=10).hexdigest()


def alert_id(fingerprint: str, starts_at: int) -> str:
    """Stable identity of one alert; ``starts_at`` is microseconds since the epoch."""
    return hashlib.blake2b(f"{fingerprint}/{starts_at}".encode(), digest_size=10).hexdigest()


def present(alerts: Frame) -> Frame:
    """The highest revision of each alert: what is true now."""
    return alerts.filter(pl.col("revision") == pl.col("revision").max().over("alert_id"))


def history_reason(late: int) -> str:
    """Why an alert about history is suppressed; ``late`` is in µs."""
    return f"{_HISTORY}received {duration(late / MICROS_PER_SECOND)} after it happened"


def covering(windows: Sequence[Suppression], at: int, host: str, name: str, labels: str) -> Suppression | None:
    """The window that covers an alert; of several, the one that lasts longest."""
    covering = [window for window in windows if window.covers(at, host, name, labels)]
    return max(covering, key=lambda window: (window.ends_at, window.window_id), default=None)


def _title(transition: Transition, series: Mapping[str, Any]) -> str:
    """One line for people; names and labels are senders' text and are made printable."""
    summary = printable(transition.summary, 240)
    if transition.kind == "anomaly":
        return summary
    host = printable(series["host"], 80)
    if transition.kind == "absence":
        return f"{host}: {summary}"
    labels = ", ".join(f"{name}={value}" for name, value in parse_labels(series["labels"]).items())
    return f"{printable(series['metric'], 100)}{printable(f' ({labels})', 100) if labels else ''} on {host}: {summary}"


def _fields(entry: OpenAlert | _Closed) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in entry.__slots__}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _json(evidence: Mapping[str, object]) -> str:
    return orjson.dumps(evidence, default=str, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS).decode()


def revision_row(alert: OpenAlert, position: tuple[int, str, int], ends_at: int | None = None) -> dict[str, Any]:
    received_at, writer, seq = position
    row = {name: getattr(alert, name) for name in _COPIED}
    return row | {
        "ends_at": ends_at,
        "amended_by": None,
        "received_at": received_at,
        "writer": writer,
        "seq": seq,
        "hour": hour_key(alert.starts_at),
    }


def revisions_frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    schema = ALERTS.schema | {column: pl.Int64() for column in _TIMES}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(
        pl.col(column).cast(TIMESTAMP) for column in _TIMES
    )
