"""``ALERTS`` and ``ALERTS_FOR_STATE``: our alerts as the series that Prometheus writes about its own.

What belongs here: their labels and points. What does not: reading the table (``points``). An alert has a point of value
1 when it starts and every minute while it lasts, and a staleness marker when it ends. ``alertstate`` is ``firing``, or
``suppressed`` under a silence or maintenance window; alerts that were withdrawn never fired.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from aiops_assets.config import SEVERITY_NUMBER
from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.telemetry.promql.functions import STALE_BITS
from aiops_assets.telemetry.promql.index import holds
from aiops_assets.telemetry.promql.names import NAME, label_name
from aiops_assets.telemetry.promql.plan import Matcher
from aiops_assets.telemetry.promql.points import Points, grouped
from aiops_assets.telemetry.promql.vectors import Identity, Labels, identity

NAMES = ("ALERTS", "ALERTS_FOR_STATE")
MINUTE = 60 * MICROS_PER_SECOND
_STALE = float(np.array([STALE_BITS]).view(np.float64)[0])


def concerned(matchers: Iterable[Matcher]) -> list[str]:
    """Which of the names a selector can mean."""
    named = [matcher for matcher in matchers if matcher.name == NAME]
    return [name for name in NAMES if all(holds(matcher, [name])[0] for matcher in named)]


def labels_of(alerts: pl.DataFrame, name: str) -> list[Labels]:
    """The label set of each row of ``Lakeside.alerts``."""
    columns = ("name", "kind", "state", "severity_number", "host", "metric", "labels")
    return [_labels(name, *row) for row in alerts.select(columns).iter_rows()]


def select(
    alerts: pl.DataFrame,
    names: Iterable[str],
    matchers: Iterable[Matcher],
    first: int,
    last: int,
    *,
    points: bool = True,
) -> tuple[list[Labels], Points]:
    """Label sets and points of the alerts that satisfy every matcher, between two instants, both included.

    Args:
        points: without them only the label sets are worked out.
    """
    starts, ends = alerts["starts_at"].dt.timestamp("us"), alerts["ends_at"].dt.timestamp("us")
    alerts = alerts.filter((starts <= last) & (ends.is_null() | (ends >= first)))
    begins = alerts["starts_at"].dt.timestamp("us").to_list()
    stops = alerts["ends_at"].dt.timestamp("us").to_list()
    matchers = tuple(matchers)
    intervals: dict[Identity, list[tuple[int, int | None]]] = {}
    for name in names:
        for labels, begin, stop in zip(labels_of(alerts, name), begins, stops, strict=True):
            if all(holds(matcher, [labels.get(matcher.name, "")])[0] for matcher in matchers):
                intervals.setdefault(identity(labels), []).append((begin, stop))
    series, ts, values = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0)]
    for number, (key, spans) in enumerate(intervals.items()):
        is_state = dict(key)[NAME] == NAMES[1]
        for begin, stop in spans if points else ():
            times = _times(begin, stop, first, last)
            marked = np.full(len(times), begin / MICROS_PER_SECOND if is_state else 1.0)
            if stop is not None and first <= stop <= last and not _continued(stop, spans):
                times, marked = np.append(times, stop), np.append(marked, _STALE)
            series.append(np.full(len(times), number, np.int64))
            ts.append(times)
            values.append(marked)
    found = grouped(np.concatenate(series), np.concatenate(ts), np.concatenate(values), len(intervals))
    return [dict(key) for key in intervals], found


def _continued(stop: int, spans: Iterable[tuple[int, int | None]]) -> bool:
    """Whether an alert with the same labels goes on where one ends."""
    return any(begin <= stop and (other is None or other > stop) for begin, other in spans)


def _times(begin: int, stop: int | None, first: int, last: int) -> NDArray[np.int64]:
    """When an alert has points: at its start and at full minutes while it lasts."""
    low = max(begin + 1, first)
    high = last if stop is None else min(last, stop - 1)
    minutes = np.arange(-(-low // MINUTE) * MINUTE, high + 1, MINUTE, dtype=np.int64)
    return np.concatenate([[begin], minutes]).astype(np.int64) if first <= begin <= high else minutes


def _labels(
    metric_name: str, name: str, kind: str, state: str, severity: int, host: str, metric: str | None, labels: str
) -> Labels:
    own = {
        NAME: metric_name,
        "alertname": name,
        "alertstate": "suppressed" if state == "suppressed" else "firing",
        "severity": severity_name(severity),
        "host": host,
        "kind": kind,
        "metric": metric or "",
    }
    mapped: Labels = {}
    for label, value in orjson.loads(labels or "{}").items():
        wanted = label_name(label)
        mapped[f"exported_{wanted}" if wanted in own else wanted] = str(value)
    return {label: value for label, value in {**mapped, **own}.items() if value}


def severity_name(number: int) -> str:
    """The word of ``aiops.yaml`` for an OpenTelemetry severity number."""
    return next((word for word, least in reversed(SEVERITY_NUMBER.items()) if number >= least), "trace")
