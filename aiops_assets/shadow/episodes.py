"""What did page: the ``ALERTS`` series of Prometheus as episodes, each with a beginning and an end.

What belongs here: samples to episodes. What does not: comparing them with ours (``comparison``).
"""

from __future__ import annotations

from collections.abc import Iterable

import orjson
import polars as pl

from aiops_assets.formats import parse
from aiops_assets.formats.batch import labels_json
from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.landing.segment import Delivery

#: one row an episode; microseconds since the epoch (UTC); ``ends_at`` is the first instant at which it no longer fired,
#: null when it fired at the last one; ``labels`` canonical JSON without ``alertname`` and ``alertstate``
EPISODES_SCHEMA: dict[str, pl.DataType] = {
    "alert": pl.String(),
    "labels": pl.String(),
    "starts_at": pl.Int64(),
    "ends_at": pl.Int64(),
}


class AlertsUnreadable(Exception):
    """Answers about ``ALERTS`` cannot be read; the text says why."""


def episodes(answers: Iterable[bytes], step: int, end: int) -> pl.DataFrame:
    """Episodes of firing alerts.

    Args:
        answers: answers of range queries for ``ALERTS{alertstate="firing"}``, any cut of the same time and grid.
        step: distance of instants, seconds.
        end: the first instant that was not asked for, seconds.

    Raises:
        AlertsUnreadable: an answer is none.
    """
    deliveries = [
        Delivery(str(number), 0, "alerts", "application/json", answer) for number, answer in enumerate(answers)
    ]
    parsed = parse("prometheus_range", deliveries)
    for reject in parsed.rejects:
        if reject.reason != "the answer holds no series":
            raise AlertsUnreadable(f"an answer about ALERTS cannot be read: {reject.reason}")
    if parsed.points.is_empty():
        return pl.DataFrame(schema=EPISODES_SCHEMA)
    named = parsed.series.with_row_index("series").select(
        pl.col("series").cast(pl.UInt32), pl.col("labels").map_elements(_named, pl.List(pl.String)).alias("named")
    )
    step_micros, end_micros = step * MICROS_PER_SECOND, end * MICROS_PER_SECOND
    return (
        parsed.points.unique(["series", "ts"])
        .sort("series", "ts")
        .with_columns(gap=(pl.col("ts").diff().over("series") > step_micros).fill_null(False))
        .with_columns(episode=pl.col("gap").cum_sum().over("series"))
        .group_by("series", "episode", maintain_order=True)
        .agg(pl.col("ts").first().alias("starts_at"), (pl.col("ts").last() + step_micros).alias("ends_at"))
        .join(named, on="series", how="left", maintain_order="left")
        .select(
            pl.col("named").list.get(0).alias("alert"),
            pl.col("named").list.get(1).alias("labels"),
            "starts_at",
            pl.when(pl.col("ends_at") < end_micros).then("ends_at").alias("ends_at"),
        )
        .sort("starts_at", "alert", "labels")
    )


def _named(labels: str) -> list[str]:
    """The alert's name and its other labels."""
    values = orjson.loads(labels)
    name = values.pop("alertname", "")
    values.pop("alertstate", None)
    return [name, labels_json(values)]
