"""Deriving an hour: the one function that closing, late data, backfills, replays and explanations call.

``derive`` is pure: the same rows (in any order), lessons, judgements and state handed over give the same anomalies,
decisions and state, to the last bit. What belongs here: that function and the shape of its result. What does not: which
inputs an hour is pinned to (``receipts``), where they lie (``live``, ``replay``) and what becomes of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from aiops_assets.detection.alerts import BatchRows
from aiops_assets.detection.judge import Judge, Lesson
from aiops_assets.detection.judgement import Judgement
from aiops_assets.detection.transitions import Transition
from aiops_assets.hours import MICROS_PER_HOUR, hour_key
from aiops_assets.lake.digest import digest
from aiops_assets.tables import ALERT_DECISIONS, ANOMALIES, METRIC_POINTS, TIMESTAMP

#: columns of ``metric_points`` that a derivation reads
INPUT_COLUMNS = ("series_id", "ts", "value", "received_at", "writer", "seq")
_PINNED_COLUMNS = tuple(name for name in METRIC_POINTS.schema if name != METRIC_POINTS.partition)


@dataclass(frozen=True, slots=True)
class Derived:
    """What an hour comes to.

    ``anomalies`` are rows of ``tables.ANOMALIES``, ``decisions`` rows of ``tables.ALERT_DECISIONS`` (without
    ``receipt_revision``), both in order of their keys.
    """

    anomalies: pl.DataFrame
    decisions: pl.DataFrame

    @property
    def anomalies_hash(self) -> str:
        """Hash of the anomalies, as receipts record it."""
        return anomalies_hash(self.anomalies)

    @property
    def decisions_hash(self) -> str:
        """Hash of the decisions, as receipts record it."""
        return decisions_hash(self.decisions)


def derive(
    judge: Judge,
    hour: int,
    rows: pl.DataFrame,
    lessons: Sequence[Lesson],
    segments: Sequence[tuple[int | None, Judgement]],
    until: int | None = None,
) -> Derived:
    """Judge all rows of an hour; ``judge`` goes from the state at its start to the state at its end.

    Args:
        judge: holds the state handed over, and a directory that has every series of the rows.
        hour: first microsecond of the hour.
        rows: ``INPUT_COLUMNS`` of ``metric_points`` of that hour, each (series_id, ts) once, in any order.
        lessons: baselines to learn at the start.
        segments: judgements in force, each from an event time (µs; ``None``: from the start) on, ascending.
        until: how far event time has come (µs) when the hour is not over yet.
    """
    end = hour + MICROS_PER_HOUR
    if segments and segments[0][0] is None:
        judge.reconfigure(segments[0][1])
        segments = segments[1:]
    judge.learn(lessons)
    ordered = rows.select(INPUT_COLUMNS).sort("series_id", "ts")
    ts = ordered["ts"].to_physical().to_numpy()
    number = judge.numbers_of_column(ordered["series_id"])
    parts = _Parts(judge, ordered, number, ts)
    cuts = [*(at for at, _ in segments if at is not None), end]
    parts.take(hour, cuts[0])
    for (_, judgement), start, stop in zip(segments, cuts, cuts[1:], strict=False):
        judge.reconfigure(judgement)
        parts.take(start, stop)
    parts.close(end if until is None else min(end, until))
    if until is None or until >= end:
        judge.forget(end)
    return Derived(parts.anomalies(), parts.decisions(hour))


class _Parts:
    """The stretches of an hour between changes of the configuration."""

    def __init__(self, judge: Judge, rows: pl.DataFrame, number: NDArray[np.int32], ts: NDArray[np.int64]) -> None:
        self._judge, self._rows, self._number, self._ts = judge, rows, number, ts
        self._value = rows["value"].to_numpy()
        self._received = rows["received_at"].to_physical().to_numpy()
        self._found: list[pl.DataFrame] = []
        self._decided: list[pl.DataFrame] = []

    def take(self, start: int, stop: int) -> None:
        """Judge the rows of a stretch."""
        whole = len(self._ts) == 0 or (int(self._ts.min()) >= start and int(self._ts.max()) < stop)
        place = np.arange(len(self._ts)) if whole else np.flatnonzero((self._ts >= start) & (self._ts < stop))
        later = self._ts[place] > self._judge.last[self._number[place]]
        place = place if later.all() else place[later]
        if not len(place):
            return
        found, transitions = self._judge.take(
            self._number[place], self._ts[place], self._value[place], self._received[place]
        )
        if not found.is_empty():
            self._found.append(found.with_columns(pl.Series("row", place[found["row"].to_numpy()])))
        batch = BatchRows(
            self._received[place],
            self._rows["writer"].gather(pl.Series(place)),
            self._rows["seq"].gather(pl.Series(place)),
        )
        self._decide(transitions, batch)

    def close(self, end: int) -> None:
        """Judge what is missing by the end of the hour."""
        self._decide(self._judge.absences(end), BatchRows.empty())

    def _decide(self, transitions: list[Transition], batch: BatchRows) -> None:
        if transitions:
            self._decided.append(self._judge.decide(transitions, batch))

    def anomalies(self) -> pl.DataFrame:
        """Rows of ``tables.ANOMALIES``."""
        if not self._found:
            return ANOMALIES.empty()
        return anomaly_rows(pl.concat(self._found), self._rows, self._judge.directory.frame)

    def decisions(self, hour: int) -> pl.DataFrame:
        """Rows of ``tables.ALERT_DECISIONS`` without the revision of the receipt."""
        if not self._decided:
            return decision_rows(None, hour)
        return decision_rows(pl.concat(self._decided), hour)


def anomaly_rows(found: pl.DataFrame, rows: pl.DataFrame, directory: pl.DataFrame) -> pl.DataFrame:
    """Rows of ``tables.ANOMALIES`` in order of their key.

    Args:
        found: as ``Judge.take`` returns it, all of one hour, ``row`` pointing into ``rows``.
        rows: with ``received_at``, ``writer`` and ``seq``.
        directory: the series directory, ordered by number.
    """
    named = directory[found["series"]].select("series_id", "host", "metric")
    origin = rows[found["row"]].select("received_at", "writer", "seq")
    key = hour_key(int(found["ts"][0])) if found.height else ""
    return (
        found.drop("row", "series")
        .hstack(named)
        .hstack(origin)
        .with_columns(pl.col("ts").cast(TIMESTAMP), pl.lit(key).alias("hour"))
        .select(pl.col(name).cast(dtype) for name, dtype in ANOMALIES.schema.items())
        .sort("series_id", "ts")
    )


def decision_rows(revisions: pl.DataFrame | None, hour: int) -> pl.DataFrame:
    """Rows of ``tables.ALERT_DECISIONS`` without ``receipt_revision``, filed under the hour that decided."""
    schema = {name: dtype for name, dtype in ALERT_DECISIONS.schema.items() if name != "receipt_revision"}
    if revisions is None or revisions.is_empty():
        return pl.DataFrame(schema=schema)
    return (
        revisions.with_columns(pl.lit(hour_key(hour)).alias("hour"))
        .select(pl.col(name).cast(dtype) for name, dtype in schema.items())
        .sort("alert_id", "revision")
    )


def input_hash(rows: pl.DataFrame) -> str:
    """Hash of rows of ``metric_points`` (all its columns) that an hour is derived from."""
    return digest(rows.select(_PINNED_COLUMNS), ("series_id", "ts"))


def anomalies_hash(rows: pl.DataFrame) -> str:
    """Hash of the anomalies of an hour."""
    return digest(rows.select(name for name in ANOMALIES.schema if name != "hour"), ("series_id", "ts"))


def decisions_hash(rows: pl.DataFrame) -> str:
    """Hash of the decisions of an hour, whatever the revision of the receipt is called."""
    columns = [name for name in ALERT_DECISIONS.schema if name not in {"hour", "receipt_revision"}]
    return digest(rows.select(columns), ("alert_id", "revision"))


def baseline_hash(rows: pl.DataFrame) -> str:
    """Hash of one version of the baselines of an hour."""
    return digest(rows.drop("hour"), ("series_id",))
