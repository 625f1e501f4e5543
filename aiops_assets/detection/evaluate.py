"""Running the live detector over files, so that its verdicts can be scored from outside.

What belongs here: reading ``DIR/data/<category>/<file>.csv``, driving ``Tier1`` causally as the live plane does (an
hour's points are judged with baselines of closed hours only, then the hour closes), and writing its verdicts. What does
not: any parameter of the detector, and labels, which are never read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from aiops_assets.detection import baselines
from aiops_assets.detection.statistics import DETECTOR_VERSION, Tier1
from aiops_assets.detection.steps import steps
from aiops_assets.hours import MICROS_PER_HOUR

_DAY = 86_400_000_000


def evaluate_detector(data: Path, out: Path, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Judge every ``data/data/<category>/<file>.csv`` (``timestamp,value``) and write ``out/<category>/<file>.csv``.

    An output file has one row a data row in the same order: ``timestamp`` as it was, ``anomaly_score`` in [0, 1],
    ``alert`` 1 on the row that raises an alert, else 0. Rows that cannot be read as time and finite number, and rows
    that repeat a time, score 0. The summary is also written to ``out/summary.json``.

    Args:
        progress: called with (rows done, rows in all).

    Raises:
        FileNotFoundError: no CSV file lies where it should.
        ValueError: a file lacks a column.
    """
    paths = sorted((data / "data").glob("*/*.csv"))
    if not paths:
        raise FileNotFoundError(f"no CSV file in {data / 'data'}/<category>/")
    frames = [_read(path) for path in paths]
    points = pl.concat(
        [
            frame.with_columns(series=pl.lit(number, pl.Int32)).filter(
                pl.col("ts").is_not_null() & pl.col("value").is_finite()
            )
            for number, frame in enumerate(frames)
        ]
    )
    names = [path.relative_to(data / "data").as_posix() for path in paths]
    scores, alerts = judge(points, names, progress)
    summary_files: dict[str, Any] = {}
    for number, (frame, name) in enumerate(zip(frames, names, strict=True)):
        mine = (points["series"] == number).to_numpy()
        row = points["row"].to_numpy()[mine]
        score, alert = np.zeros(frame.height), np.zeros(frame.height, np.int8)
        score[row], alert[row] = scores[mine], alerts[mine]
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        frame.select("timestamp").with_columns(anomaly_score=score, alert=alert).write_csv(target)
        span = frame["ts"].max() or 0, frame["ts"].min() or 0
        summary_files[name] = {
            "rows": frame.height,
            "alerts": int(alert.sum()),
            "days": (span[0] - span[1]) / _DAY,  # type: ignore[operator]
        }
    rows, count = sum(f["rows"] for f in summary_files.values()), sum(f["alerts"] for f in summary_files.values())
    days = sum(f["days"] for f in summary_files.values())
    summary = {
        "detector_version": DETECTOR_VERSION,
        "files": len(names),
        "rows": rows,
        "alerts": count,
        "alerts_per_1000_rows": 1000.0 * count / max(rows, 1),
        "alerts_per_series_day": count / days if days else 0.0,
        "by_file": summary_files,
    }
    (out / "summary.json").write_bytes(orjson.dumps(summary, option=orjson.OPT_INDENT_2))
    return summary


def judge(
    points: pl.DataFrame, names: list[str], progress: Callable[[int, int], None] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Score and alert of each row of ``points``: ``series`` (Int32), ``ts`` (Int64 µs), ``value``, in any order.

    Series are independent, so the k-th hour of every file is judged in one go, whenever it was. As in the live path, an
    hour knows the hours up to the last but one (``judge.LEARNT_AFTER_HOURS``).
    """
    detector = Tier1()
    detector.grow(
        pl.DataFrame(
            {"host": names, "metric": "value", "labels": "{}", "kind": "gauge"},
            schema={"host": pl.String, "metric": pl.String, "labels": pl.String, "kind": pl.String},
        )
    )
    indexed = points.with_columns(
        position=pl.int_range(pl.len(), dtype=pl.Int64), hour=pl.col("ts") // MICROS_PER_HOUR * MICROS_PER_HOUR
    ).with_columns(turn=pl.col("hour").rank("dense").over("series"))
    scores, alerts = np.zeros(points.height), np.zeros(points.height, np.int8)
    done = 0
    closed: tuple[NDArray[np.int64], pl.DataFrame] | None = None
    for (_,), turn in indexed.sort("turn", maintain_order=True).group_by(["turn"], maintain_order=True):
        position = turn["position"].to_numpy()
        turn_scores = np.zeros(turn.height)
        found, _ = detector.process(
            steps(turn["series"].to_numpy(), turn["ts"].to_numpy(), turn["value"].to_numpy()), turn_scores
        )
        scores[position] = turn_scores
        alerts[position[found.filter("opens_event")["row"].to_numpy()]] = 1
        if closed is not None:
            detector.close_hours(*closed)
        hours = turn.group_by("series").agg(pl.col("hour").first()).sort("series")["hour"].to_numpy()
        statistics = baselines.close(turn.select(pl.col("series").cast(pl.Int64).alias("series_id"), "ts", "value"))
        closed = hours, statistics.with_columns(number=pl.col("series_id").cast(pl.Int32))
        done += turn.height
        if progress:
            progress(done, points.height)
    return scores, alerts


def _read(path: Path) -> pl.DataFrame:
    """``timestamp`` (text as it was), ``ts`` (µs, null when unreadable), ``value`` (null or NaN likewise), ``row``."""
    frame = pl.read_csv(path, infer_schema=False, truncate_ragged_lines=True)
    lacking = [name for name in ("timestamp", "value") if name not in frame.columns]
    if lacking:
        raise ValueError(f"{path}: missing column {', '.join(lacking)}; found {', '.join(frame.columns)}")
    return frame.select(
        "timestamp",
        ts=pl.col("timestamp")
        .str.strip_chars()
        .str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
        .to_physical(),
        value=pl.col("value").str.strip_chars().cast(pl.Float64, strict=False),
        row=pl.int_range(pl.len(), dtype=pl.Int64),
    )
