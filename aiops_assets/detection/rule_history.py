"""What rules would have fired: stored points run through the engine and the book that the live session uses.

What belongs here: reading a stretch of history hour by hour, and counting. What does not: any judging of its own. All
points count as live and no maintenance window applies, so the answer is about the rule alone. Before the stretch asked
for, as many hours are read as the rules look back (``for``, ``window``), so that its start is judged like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from aiops_assets.config import Config, Rule, default_rules
from aiops_assets.detection.alerts import AlertBook, BatchRows, present
from aiops_assets.detection.matching import matching_series
from aiops_assets.detection.rules import CELL, RuleEngine
from aiops_assets.detection.steps import steps
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND, hour_key, hour_start, instant
from aiops_assets.lake.tables import Lake
from aiops_assets.tables import ALERTS, TIMESTAMP

#: hours of a rule's past that are read at most before the stretch asked for
MOST_LEAD_HOURS = 48
#: opening a table costs more than reading an hour of it
HOURS_AT_ONCE = 6
TOP_HOSTS = 5

#: a table and, for partitioned ones, its hours → its rows
Scan = Callable[[str, Sequence[str] | None], pl.LazyFrame]

RULE_COLUMNS: dict[str, pl.DataType] = {
    "rule": pl.String(),
    "kind": pl.String(),
    "severity": pl.String(),
    "series": pl.Int64(),  # series that the rule watches
    "alerts": pl.Int64(),  # alerts that were open at some time within the stretch
    "open_at_end": pl.Int64(),
    "firing_seconds": pl.Float64(),  # summed over alerts, from first bad point to recovery, within the stretch
    "hosts": pl.Int64(),
    "top_hosts": pl.List(pl.Struct({"host": pl.String(), "alerts": pl.Int64()})),
    "first": TIMESTAMP,  # start of the first alert
    "last": TIMESTAMP,  # start of the last one
}


@dataclass(frozen=True, slots=True)
class RuleTestReport:
    """What rules would have fired in [``start``, ``end``), microseconds since the epoch (UTC).

    ``rules``: one row a rule with the columns of ``RULE_COLUMNS``, in the order of the rules. ``alerts``: the last
    state of each alert, columns of ``tables.ALERTS``, by ``starts_at``. ``hours`` and ``points``: how much was read.
    """

    start: int
    end: int
    hours: int
    points: int
    rules: pl.DataFrame
    alerts: pl.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able values; instants in ISO 8601, UTC."""
        shown = self.alerts.select(
            "alert_id", "name", "kind", "state", "host", "metric", "labels", "starts_at", "ends_at", "title", "value"
        )
        return {
            "from": instant(self.start).isoformat(),
            "to": instant(self.end).isoformat(),
            "hours_read": self.hours,
            "points_read": self.points,
            "rules": _iso_times(self.rules).to_dicts(),
            "alerts": _iso_times(shown).to_dicts(),
        }


def test_rules(
    points_by_hour: Iterable[tuple[str, pl.DataFrame]],
    directory: pl.DataFrame,
    rules: Sequence[Rule],
    *,
    start: int,
    end: int,
) -> RuleTestReport:
    """Run rules over points.

    Args:
        points_by_hour: hour keys in order, each with a frame of ``number`` (series number), ``ts`` (int64 microseconds
            or Datetime) and ``value``; at most one point a series and instant. A row without a number says that some
            other series reported then.
        directory: series by number: number, series_id, host, metric, unit, labels, kind.
        start: first instant that counts; hours before only prepare.
        end: the instant after the last that counts.
    """
    engine, book = RuleEngine(rules), AlertBook(history_after=None)
    engine.grow(directory)
    revisions = [ALERTS.empty()]
    hours = points = 0
    for _, hour in points_by_hour:
        frame = hour.select(pl.col("number").cast(pl.Int32), pl.col("ts").cast(pl.Int64), "value").filter(
            pl.col("ts") < end
        )
        others, frame = frame.filter(pl.col("number").is_null()), frame.filter(pl.col("number").is_not_null())
        hours, points = hours + 1, points + len(frame)
        ts = frame["ts"].to_numpy()
        engine.reported(others["ts"].to_numpy())
        found = engine.process(steps(frame["number"].to_numpy(), ts, frame["value"].to_numpy()))
        if len(ts) or len(others):
            found += engine.absences(int(pl.concat([frame["ts"], others["ts"]]).max()))  # type: ignore[arg-type]
        revisions.append(book.apply(found, directory=directory, windows=[], batch=BatchRows.empty()))
    alerts = present(pl.concat(revisions)).filter(
        pl.col("ends_at").is_null() | (pl.col("ends_at").dt.epoch("us") >= start)
    )
    alerts = alerts.sort("starts_at", "name", "host", "alert_id")
    return RuleTestReport(start, end, hours, points, _by_rule(alerts, rules, engine.matched(), start, end), alerts)


def run_rule_test(
    lake_root: str, config: Config, start: int, end: int, names: Sequence[str] = (), *, scan: Scan | None = None
) -> RuleTestReport:
    """Run rules of a configuration over the stored points of [``start``, ``end``), microseconds since the epoch.

    Args:
        lake_root: root of the Delta tables.
        config: where the rules stand.
        names: rules to run, also ones that are not enabled; none means all that are in force.
        scan: how tables are read, for tests; default: the lake's.

    Raises:
        ValueError: a name is unknown, or the stretch is empty.
    """
    if end <= start:
        raise ValueError("'to' must be later than 'from'")
    rules = _chosen(config, names)
    read = scan or Lake(lake_root).scan
    directory = _directory(read("series", None), rules)
    lead = max((max(rule.hold, rule.window) for rule in rules), default=0.0)
    lead_hours = min(-(-round(lead * MICROS_PER_SECOND) // MICROS_PER_HOUR), MOST_LEAD_HOURS)
    first = hour_start(hour_key(start)) - lead_hours * MICROS_PER_HOUR
    keys = [hour_key(at) for at in range(first, end, MICROS_PER_HOUR)]
    absence = any(rule.kind == "absence" for rule in rules)
    return test_rules(_points(read, keys, directory, absence), directory, rules, start=start, end=end)


def _chosen(config: Config, names: Sequence[str]) -> tuple[Rule, ...]:
    if not names:
        return config.active_rules
    known = {rule.name: rule for rule in (*default_rules(), *config.rules)}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no rule named {', '.join(map(repr, unknown))}; known: {', '.join(sorted(known))}")
    return tuple(known[name] for name in dict.fromkeys(names))


def _directory(series: pl.LazyFrame, rules: Sequence[Rule]) -> pl.DataFrame:
    """The stored series that any rule watches, numbered anew."""
    stored = series.select("series_id", "host", "metric", "unit", "labels", "kind").collect()
    stored = stored.unique("series_id", keep="first", maintain_order=True).sort("series_id")
    stored = stored.with_row_index("number").with_columns(pl.col("number").cast(pl.Int32))
    watched = {
        number
        for rule in rules
        for number in matching_series(stored, metric=rule.metric, host=rule.host, labels=rule.labels).tolist()
    }
    return stored[sorted(watched)].with_columns(pl.int_range(len(watched), dtype=pl.Int32).alias("number"))


def _points(
    read: Scan, keys: Sequence[str], directory: pl.DataFrame, absence: bool
) -> Iterator[tuple[str, pl.DataFrame]]:
    """Points of watched series and, for absence, one row for each cell of event time in which any series reported."""
    numbers = directory.select("series_id", "number").lazy()
    for first in range(0, len(keys), HOURS_AT_ONCE):
        chunk = keys[first : first + HOURS_AT_ONCE]
        stored = read("metric_points", chunk)
        parts = [stored.join(numbers, on="series_id").select("hour", "number", "ts", "value")]
        if absence:
            cell = pl.col("ts").dt.truncate(f"{CELL}us")
            parts.append(stored.select("hour", cell).unique().sort("ts"))
        frame = pl.concat(parts, how="diagonal").collect()
        for key in chunk:
            yield key, frame.filter(pl.col("hour") == key)


def _by_rule(
    alerts: pl.DataFrame, rules: Sequence[Rule], matched: dict[str, int], start: int, end: int
) -> pl.DataFrame:
    begin = pl.max_horizontal(pl.col("starts_at").dt.epoch("us"), pl.lit(start))
    over = pl.min_horizontal(pl.col("ends_at").dt.epoch("us").fill_null(end), pl.lit(end))
    timed = alerts.with_columns(((over - begin) / MICROS_PER_SECOND).clip(0).alias("firing_seconds"))
    rows: list[dict[str, Any]] = []
    for rule in rules:
        own = timed.filter(pl.col("name") == rule.name)
        hosts = own.group_by("host").agg(pl.len().cast(pl.Int64).alias("alerts"))
        hosts = hosts.sort("alerts", "host", descending=[True, False])
        rows.append(
            {
                "rule": rule.name,
                "kind": rule.kind,
                "severity": rule.severity,
                "series": matched[rule.name],
                "alerts": len(own),
                "open_at_end": own["ends_at"].null_count(),
                "firing_seconds": float(own["firing_seconds"].sum()),
                "hosts": len(hosts),
                "top_hosts": hosts.head(TOP_HOSTS).to_dicts(),
                "first": own["starts_at"].min(),
                "last": own["starts_at"].max(),
            }
        )
    return pl.DataFrame(rows, schema=RULE_COLUMNS, orient="row")


def _iso_times(frame: pl.DataFrame) -> pl.DataFrame:
    times = [name for name, dtype in frame.schema.items() if dtype == TIMESTAMP]
    return frame.with_columns(pl.col(times).dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"))
