"""What the KPI page shows, computed from marts. Pure functions: frames in, values for the template out.

What belongs here: periods, totals and which figure goes into which plot. What does not: reading files (``reading``),
geometry (``charts``) and HTTP (``pages``). Durations are seconds; days are UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from aiops_assets.incidents.correlation import duration_text
from aiops_assets.marts.charts import Chart, Column, column_chart, duration_ticks, whole_ticks

#: ranges that the page offers, in days
RANGES = (14, 30, 90, 365)
#: beyond this many days a column is a week
MOST_DAILY = 45
OPEN_ROWS = 50
HOST_ROWS = 10


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure with what it stands on."""

    name: str
    value: str
    about: str


@dataclass(frozen=True, slots=True)
class OpenIncident:
    """An incident that was not resolved when the snapshot was taken; instants in microseconds since the epoch."""

    incident_id: str
    title: str
    state: str
    priority: int
    assignee: str | None
    opened_at: int
    age: int


@dataclass(frozen=True, slots=True)
class HostHealth:
    """A host with its score and what took points from it."""

    host: str
    score: int
    reasons: str


@dataclass(frozen=True, slots=True)
class Board:
    """The whole page."""

    days: int
    weekly: bool
    as_of: int | None
    tiles: tuple[Tile, ...]
    charts: tuple[Chart, ...]
    shifts: tuple[Chart, ...]
    open_incidents: tuple[OpenIncident, ...]
    open_total: int
    hosts: tuple[HostHealth, ...]
    hosts_total: int
    health_as_of: int | None


def median_lasting(seconds: Sequence[float], over: Sequence[bool]) -> float | None:
    """The Kaplan-Meier median of durations of which those not ``over`` lasted at least so long.

    ``None`` while the estimate stays above one half. Kaplan and Meier (1958), "Nonparametric estimation from incomplete
    observations".
    """
    surviving, at_risk = 1.0, len(seconds)
    pairs = sorted(zip(seconds, over, strict=True))
    position = 0
    while position < len(pairs):
        same = [ended for second, ended in pairs[position:] if second == pairs[position][0]]
        surviving *= 1 - sum(same) / at_risk
        if surviving <= 0.5 + 1e-12:
            return pairs[position][0]
        at_risk -= len(same)
        position += len(same)
    return None


def board(frame: Callable[[str], pl.DataFrame], days: int, today: date) -> Board:
    """The page for some days up to today. ``frame`` gives a mart by name, without columns where it was never built."""
    first = today - timedelta(days=days - 1)
    lifecycle, noise, load = (
        _since(frame(name), first) for name in ("incident_lifecycle", "noise_reduction", "alert_load")
    )
    weekly = days > MOST_DAILY
    periods = _periods(first, today, weekly)
    return Board(
        days=days,
        weekly=weekly,
        as_of=_newest(lifecycle, "as_of"),
        tiles=_tiles(lifecycle, noise, load),
        charts=_charts(lifecycle, noise, periods, weekly),
        shifts=_shift_charts(load, periods, weekly),
        open_incidents=_open(frame("open_incidents")),
        open_total=frame("open_incidents").height,
        hosts=_hosts(frame("fleet_health")),
        hosts_total=frame("fleet_health").height,
        health_as_of=_newest(frame("fleet_health"), "as_of"),
    )


def documents(frame: Callable[[str], pl.DataFrame], days: int, today: date) -> dict[str, Any]:
    """The same days as rows, for scripts: ``incident_kpis``, ``noise_reduction`` and ``alert_load``."""
    first = today - timedelta(days=days - 1)
    names = ("incident_kpis", "noise_reduction", "alert_load")
    return {name: _since(frame(name), first).to_dicts() for name in names}


def _since(frame: pl.DataFrame, first: date) -> pl.DataFrame:
    return frame.filter(pl.col("day") >= first) if "day" in frame.columns else frame


def _newest(frame: pl.DataFrame, column: str) -> int | None:
    if frame.is_empty():
        return None
    newest = frame[column].dt.timestamp("us").max()
    return int(newest) if isinstance(newest, int) else None


def _count(frame: pl.DataFrame, condition: pl.Expr) -> int:
    return int(frame.select(condition.sum()).item() or 0)


def _periods(first: date, last: date, weekly: bool) -> list[date]:
    """First days of all columns, oldest first."""
    if not weekly:
        return [first + timedelta(days=number) for number in range((last - first).days + 1)]
    monday = first - timedelta(days=first.weekday())
    return [monday + timedelta(weeks=number) for number in range((last - monday).days // 7 + 1)]


def _by_period(frame: pl.DataFrame, periods: Sequence[date], weekly: bool) -> dict[date, pl.DataFrame]:
    if frame.is_empty():
        return {}
    start = pl.col("day").dt.truncate("1w") if weekly else pl.col("day")
    groups = frame.with_columns(start.alias("_period")).partition_by("_period", as_dict=True, include_key=False)
    return {period: groups[(period,)] for period in periods if (period,) in groups}


def _tiles(lifecycle: pl.DataFrame, noise: pl.DataFrame, load: pl.DataFrame) -> tuple[Tile, ...]:
    tiles = []
    if not lifecycle.is_empty():
        total, still_open = lifecycle.height, _count(lifecycle, ~pl.col("is_resolved"))
        unacknowledged = _count(lifecycle, ~pl.col("is_acknowledged") & pl.col("is_resolved"))
        detect = lifecycle["detect_s"].median()
        told = lifecycle.filter(pl.col("was_resolved") & pl.col("reopened").is_not_null())
        reopened = _count(told, pl.col("reopened") > 0)
        tiles += [
            Tile("Incidents", f"{total:,}", f"{still_open:,} still open"),
            Tile("Time to detect", _seconds(detect if isinstance(detect, int | float) else None), "median"),
            Tile(
                "Time to acknowledge",
                _seconds(_median(lifecycle, "acknowledge_s", "is_acknowledged")),
                f"median; {unacknowledged:,} ended without anybody",
            ),
            Tile(
                "Time to resolve",
                _seconds(_median(lifecycle, "resolve_s", "is_resolved")),
                "median, open ones censored",
            ),
            Tile(
                "Reopened",
                f"{reopened / told.height:.0%}" if told.height else "–",
                f"{reopened:,} of {told.height:,} resolved",
            ),
        ]
    if not noise.is_empty():
        signals, incidents = int(noise["signals"].sum()), int(noise["incidents"].sum())
        share = f"{1 - incidents / signals:.0%}" if signals else "–"
        tiles.append(Tile("Noise reduction", share, f"{signals:,} signals, {incidents:,} incidents"))
    if not load.is_empty():
        about = f"{int(load['suppressed'].sum()):,} more were suppressed"
        tiles.append(Tile("Pages", f"{int(load['pages'].sum()):,}", about))
    return tuple(tiles)


def _median(frame: pl.DataFrame, seconds: str, over: str) -> float | None:
    return median_lasting(frame[seconds].to_list(), frame[over].to_list())


def _charts(lifecycle: pl.DataFrame, noise: pl.DataFrame, periods: Sequence[date], weekly: bool) -> tuple[Chart, ...]:
    groups, noises = _by_period(lifecycle, periods, weekly), _by_period(noise, periods, weekly)
    labels = [_label(period, weekly) for period in periods]
    charts = []
    for name, seconds, over, word in (
        ("Time to acknowledge", "acknowledge_s", "is_acknowledged", "acknowledged"),
        ("Time to resolve", "resolve_s", "is_resolved", "resolved"),
    ):
        columns = [
            _lasting(groups.get(period), label, seconds, over, word)
            for period, label in zip(periods, labels, strict=True)
        ]
        about = "median; an arrow says that fewer than half are known yet"
        charts.append(column_chart(name, about, periods, columns, duration_ticks))
    opened = [_opened(groups.get(period), label) for period, label in zip(periods, labels, strict=True)]
    charts.append(
        column_chart(
            "Incidents opened", "by what is known now", periods, opened, whole_ticks, key=("resolved", "still open")
        )
    )
    reduced = [_noise(noises.get(period), label) for period, label in zip(periods, labels, strict=True)]
    charts.append(
        column_chart("Noise reduction", "share of signals that became no incident", periods, reduced, _percent_ticks)
    )
    return tuple(charts)


def _lasting(rows: pl.DataFrame | None, label: str, seconds: str, over: str, word: str) -> Column:
    if rows is None or rows.is_empty():
        return Column((), f"{label}: no incident")
    known = _count(rows, pl.col(over))
    median = _median(rows, seconds, over)
    text = f"{label}: {known} of {rows.height} {word}"
    if median is None:
        return Column((), f"{text}, too few for a median", beyond=True)
    return Column((median,), f"{text}, median {_seconds(median)}")


def _opened(rows: pl.DataFrame | None, label: str) -> Column:
    if rows is None:
        return Column((), f"{label}: none")
    still_open = _count(rows, ~pl.col("is_resolved"))
    return Column(
        (float(rows.height - still_open), float(still_open)), f"{label}: {rows.height} opened, {still_open} still open"
    )


def _noise(rows: pl.DataFrame | None, label: str) -> Column:
    signals = int(rows["signals"].sum()) if rows is not None else 0
    if rows is None or not signals:
        return Column((), f"{label}: no signal")
    incidents = int(rows["incidents"].sum())
    share = max(0.0, 1 - incidents / signals)
    return Column((share,), f"{label}: {signals:,} signals, {incidents:,} incidents, {share:.0%}")


def _shift_charts(load: pl.DataFrame, periods: Sequence[date], weekly: bool) -> tuple[Chart, ...]:
    """One plot a shift, all on one scale, so that shifts can be compared."""
    if load.is_empty():
        return ()
    levels = ("critical", "error", "warning")
    shifts = sorted(load["shift"].unique().to_list())
    columns: dict[str, list[Column]] = {}
    for shift in shifts:
        groups = _by_period(load.filter(pl.col("shift") == shift), periods, weekly)
        columns[shift] = []
        for period in periods:
            rows, label = groups.get(period), _label(period, weekly)
            values = tuple(float(rows[level].sum()) if rows is not None else 0.0 for level in levels)
            pages = int(sum(values))
            columns[shift].append(Column(values, f"{label}, shift {shift}: {pages} page{'s' if pages != 1 else ''}"))
    highest = max((sum(column.values) for each in columns.values() for column in each), default=0.0)
    totals = {shift: int(sum(sum(column.values) for column in columns[shift])) for shift in shifts}
    return tuple(
        column_chart(
            f"Shift {shift}",
            f"{totals[shift]:,} pages",
            periods,
            columns[shift],
            whole_ticks,
            key=levels,
            highest=highest,
            height=96.0,
        )
        for shift in shifts
    )


def _open(found: pl.DataFrame) -> tuple[OpenIncident, ...]:
    if found.is_empty():
        return ()
    rows = found.sort("priority", "opened_at").head(OPEN_ROWS)
    return tuple(
        OpenIncident(
            incident_id=row["incident_id"],
            title=row["title"],
            state=row["state"],
            priority=row["priority"],
            assignee=row["assignee"],
            opened_at=_micros(row["opened_at"]),
            age=round(row["age_s"] * 1e6),
        )
        for row in rows.iter_rows(named=True)
    )


def _hosts(health: pl.DataFrame) -> tuple[HostHealth, ...]:
    if health.is_empty():
        return ()
    worst = health.filter(pl.col("health_score") < 100).sort("health_score", "host").head(HOST_ROWS)
    return tuple(
        HostHealth(row["host"], row["health_score"], ", ".join(_reasons(row))) for row in worst.iter_rows(named=True)
    )


def _reasons(row: Mapping[str, Any]) -> Iterable[str]:
    if row["is_silent"]:
        yield f"silent for {duration_text(_micros(row['as_of']) - _micros(row['last_seen']))}"
    for level in ("critical", "error", "warning"):
        if row[f"open_{level}"]:
            yield f"{row[f'open_{level}']} {level}"
    if row["anomaly_events_24h"]:
        events = row["anomaly_events_24h"]
        yield f"{events} anomal{'y' if events == 1 else 'ies'} in 24 h"
    if row["coverage"] is not None and row["coverage"] < 0.995:
        yield f"{row['coverage']:.0%} of its points came"


def _seconds(value: float | None) -> str:
    return "–" if value is None else duration_text(round(value * 1e6))


def _percent_ticks(_high: float) -> list[tuple[float, str]]:
    return [(0.0, "0"), (0.5, "50%"), (1.0, "100%")]


def _label(period: date, weekly: bool) -> str:
    return f"week of {period:%d %b}" if weekly else f"{period:%a %d %b}"


def _micros(moment: datetime) -> int:
    from aiops_assets.hours import micros

    return micros(moment.astimezone(UTC))
