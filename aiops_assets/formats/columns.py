"""Columns of a batch: codes to dense numbers, series joined where they are one, frames of several parsers put together.

What belongs here: what formats share once bytes have become names and numbers. What does not: reading any format.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from aiops_assets.formats.batch import (
    MAX_LABELS_CHARS,
    MAX_NAME_CHARS,
    POINTS_SCHEMA,
    SERIES_SCHEMA,
    labels_json,
)
from aiops_assets.formats.payload import FORBIDDEN, Refused, name_problem

KINDS = ("gauge", "rate", "counter", "ratio")
MAX_UNIT_CHARS = 64


def dense(codes: npt.NDArray[np.int64], size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The distinct codes, ascending, and for each entry the position of its code among them; ``0 <= code < size``."""
    if size <= max(1 << 20, 4 * codes.size):
        seen = np.zeros(size, dtype=bool)
        seen[codes] = True
        distinct = np.flatnonzero(seen)
        position = np.empty(size, dtype=np.int64)
        position[distinct] = np.arange(distinct.size)
        return distinct, position[codes]
    distinct, inverse = np.unique(codes, return_inverse=True)
    return distinct, inverse.astype(np.int64, copy=False)


def distinct_series(frame: pl.DataFrame, series: npt.NDArray[np.int64]) -> tuple[pl.DataFrame, npt.NDArray[np.int64]]:
    """Join rows of a series frame that are the same series (the first one's unit and kind stay), renumber points."""
    identity = ["host", "metric", "labels"]
    if frame.n_unique(identity) == frame.height:
        return frame, series
    rows = frame.with_row_index("row").group_by(identity, maintain_order=True).agg("row").get_column("row")
    target = np.empty(frame.height, dtype=np.int64)
    target[rows.explode().to_numpy()] = np.repeat(np.arange(rows.len()), rows.list.len().to_numpy())
    return frame[rows.list.first().to_numpy()], target[series]


def joined(parts: Sequence[tuple[pl.DataFrame, pl.DataFrame]]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """One pair of ``series`` and ``points`` from several; points in the order of their deliveries."""
    parts = [part for part in parts if part[1].height]
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return pl.DataFrame(schema=SERIES_SCHEMA), pl.DataFrame(schema=POINTS_SCHEMA)
    points: list[pl.DataFrame] = []
    before = 0
    for series, part in parts:
        points.append(part.with_columns((pl.col("series") + before).cast(pl.UInt32)))
        before += series.height
    together = pl.concat(points).sort("delivery", maintain_order=True)
    frame, codes = distinct_series(
        pl.concat([series for series, _ in parts]), together.get_column("series").to_numpy().astype(np.int64)
    )
    return frame, together.with_columns(pl.Series("series", codes, dtype=pl.UInt32))


@lru_cache(maxsize=65_536)
def _row(
    host: str, metric: str, unit: str | None, kind: str | None, labels: tuple[tuple[str, str], ...]
) -> tuple[str, str, str, str, str]:
    """A row of the series frame, remembered because devices send the same series again and again.

    Raises:
        Refused: naming the field that is wrong.
    """
    problem = name_problem("host", host) or name_problem("metric", metric)
    if problem:
        raise Refused(problem)
    if unit is not None and (len(unit) > MAX_UNIT_CHARS or FORBIDDEN.search(unit)):
        raise Refused(f"unit: expected a UCUM code of at most {MAX_UNIT_CHARS} characters")
    return host, metric, unit or "", labels_json(checked_labels(dict(labels))), kind or "gauge"


class PointColumns:
    """Points one after the other from formats that name each point's series in full."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str, str, str, str]] = []
        self._codes: dict[tuple[str, str, str], int] = {}
        self._sent: dict[tuple[Any, ...], int] = {}
        self.delivery: list[int] = []
        self.series: list[int] = []
        self.ts: list[int] = []
        self.value: list[float] = []

    def code(self, host: object, metric: object, unit: object, kind: object, labels: object) -> int:
        """The number of a series; ``None`` stands for what is not given. The first unit and kind of a series stay.

        Raises:
            Refused: naming the field that is wrong and what is allowed.
        """
        if not isinstance(host, str):
            raise Refused("host: expected a string")
        if not isinstance(metric, str):
            raise Refused("metric: expected a string")
        if unit is not None and not isinstance(unit, str):
            raise Refused("unit: expected a UCUM code")
        if kind is not None and not (isinstance(kind, str) and kind in KINDS):
            raise Refused(f"kind: allowed: {', '.join(KINDS)}")
        plain = not labels or (isinstance(labels, dict) and all(type(value) is str for value in labels.values()))
        given = labels if plain and isinstance(labels, dict) else checked_labels(labels)
        row = _row(host, metric, unit, kind, tuple(given.items()))
        identity = row[0], row[1], row[3]
        code = self._codes.get(identity)
        if code is None:
            code = self._codes[identity] = len(self._rows)
            self._rows.append(row)
        return code

    def known_code(self, host: object, metric: object, unit: object, kind: object, labels: object) -> int:
        """``code``, at once for what was seen before in the very same spelling.

        Raises:
            Refused: as ``code``.
        """
        try:
            sent = (host, metric, unit, kind, *(labels.items() if isinstance(labels, dict) else ()))
            code = self._sent.get(sent) if labels is None or isinstance(labels, dict) else None
        except TypeError:
            return self.code(host, metric, unit, kind, labels)
        if code is None:
            code = self.code(host, metric, unit, kind, labels)
            if labels is None or (isinstance(labels, dict) and all(type(value) is str for value in labels.values())):
                self._sent[sent] = code
        return code

    def add(self, delivery: int, series: int, ts: int, value: float) -> None:
        self.delivery.append(delivery)
        self.series.append(series)
        self.ts.append(ts)
        self.value.append(value)

    def finish(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The ``series`` and ``points`` frames, points in the order they were added."""
        used, codes = dense(np.array(self.series, dtype=np.int64), len(self._rows))
        rows = [self._rows[code] for code in used.tolist()]
        return pl.DataFrame(rows, schema=SERIES_SCHEMA, orient="row"), pl.DataFrame(
            {
                "delivery": np.array(self.delivery, dtype=np.uint32),
                "series": codes.astype(np.uint32),
                "ts": np.array(self.ts, dtype=np.int64),
                "value": np.array(self.value, dtype=np.float64),
            },
            schema=POINTS_SCHEMA,
        )


def checked_labels(labels: object) -> dict[str, str]:
    """Labels as strings; numbers and booleans are written out, ``null`` is left out.

    Raises:
        Refused: no object of plain values, or a name or value that cannot be stored.
    """
    if labels is None:
        return {}
    if not isinstance(labels, dict):
        raise Refused("labels: expected an object of strings")
    checked: dict[str, str] = {}
    for name, value in labels.items():
        if value is None:
            continue
        text = label_text(name, value)
        problem = name_problem("a label name", name) or (name_problem(f"labels.{name[:64]}", text) if text else None)
        if problem:
            raise Refused(problem)
        checked[name] = text
    if sum(len(name) + len(text) for name, text in checked.items()) > MAX_LABELS_CHARS:
        raise Refused(f"labels: together longer than {MAX_LABELS_CHARS} characters")
    return checked


def checked_texts(labels: dict[str, str]) -> dict[str, str]:
    """``checked_labels`` for labels that are known to be strings: one look at most sets of them is enough.

    Raises:
        Refused: as ``checked_labels``.
    """
    text = "".join((*labels, *labels.values()))
    if len(text) <= MAX_NAME_CHARS and "" not in labels and not FORBIDDEN.search(text):
        return labels
    return checked_labels(labels)


def label_text(name: str, value: object) -> str:
    """A label's value as text.

    Raises:
        Refused: it is neither text nor a number nor a boolean.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    raise Refused(f"labels.{name[:64]}: expected a string")


def number(field: str, value: object) -> float:
    """A finite number; booleans count as 1 and 0.

    Raises:
        Refused: it is no number, or not finite.
    """
    if not isinstance(value, int | float):
        raise Refused(f"{field}: expected a number")
    if not math.isfinite(value):
        raise Refused(f"{field}: NaN and infinite values are not stored")
    return float(value)
