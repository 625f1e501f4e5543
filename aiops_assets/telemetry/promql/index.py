"""Which series there are, under their Prometheus labels, and which of them a selector means.

What belongs here: the dictionary of series as dictionary-encoded label columns, selection, label names and values.
What does not: points (``points``). Two of our series never have the same Prometheus labels: metrics whose names become
equal get the label ``metric`` with the original name, and series that would still be equal get ``series_id``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from aiops_assets.telemetry.promql import regexes
from aiops_assets.telemetry.promql.names import (
    NAME,
    ORIGINAL_NAME,
    ORIGINAL_SERIES,
    is_classic,
    label_names,
    metric_name,
)
from aiops_assets.telemetry.promql.plan import Matcher

Bools = NDArray[np.bool_]
Labels = dict[str, str]
COLUMNS = ("series_id", "host", "metric", "unit", "labels", "kind", "source", "first_seen")


@dataclass(frozen=True, slots=True)
class LabelColumn:
    """One label of all series: ``codes`` (int32, by series) into ``values``, whose first entry is "" for absent."""

    codes: NDArray[np.int32]
    values: list[str]


@dataclass(frozen=True)
class SeriesIndex:
    """All series of a version of the table, ordered by ``ids`` (int64, ascending)."""

    ids: NDArray[np.int64]
    columns: dict[str, LabelColumn]
    #: microseconds since the epoch by series
    first_seen: NDArray[np.int64]
    #: what each Prometheus name means: (our name, kind, unit)
    meanings: dict[str, list[tuple[str, str, str]]]
    originals: LabelColumn = field(repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, matchers: Iterable[Matcher]) -> NDArray[np.int64]:
        """Positions of the series that satisfy every matcher, ascending.

        Raises:
            QueryError: a regular expression is not legal.
        """
        chosen = np.ones(len(self), np.bool_)
        for matcher in matchers:
            chosen &= self._matches(matcher)
        return np.flatnonzero(chosen)

    def labels(self, position: int) -> Labels:
        """The Prometheus labels of one series, sorted by name."""
        return {
            name: column.values[code] for name, column in self._sorted if (code := int(column.codes[position])) != 0
        }

    def label_names(self, positions: NDArray[np.int64]) -> list[str]:
        """Names of the labels that any of these series has, sorted."""
        return [name for name, column in self._sorted if column.codes[positions].any()]

    def label_values(self, name: str, positions: NDArray[np.int64]) -> list[str]:
        """Values of one label among these series, sorted."""
        column = self.columns.get(name)
        if column is None:
            return []
        return sorted(column.values[code] for code in np.unique(column.codes[positions]) if code)

    @cached_property
    def _sorted(self) -> list[tuple[str, LabelColumn]]:
        return sorted(self.columns.items())

    def _matches(self, matcher: Matcher) -> Bools:
        column = self.columns.get(matcher.name)
        if matcher.name == NAME and matcher.op in {"=", "!="} and not is_classic(matcher.value) and matcher.value:
            column = self.originals
        if column is None:
            column = LabelColumn(np.zeros(len(self), np.int32), [""])
        return holds(matcher, column.values)[column.codes]


def holds(matcher: Matcher, values: Sequence[str]) -> Bools:
    """For each value of the matcher's label ("" where a series has none), whether it satisfies the matcher."""
    if matcher.op in {"=", "!="}:
        equal = np.fromiter((value == matcher.value for value in values), np.bool_, len(values))
        return equal if matcher.op == "=" else ~equal
    found = np.array(regexes.matching(values, matcher.value), np.bool_)
    return found if matcher.op == "=~" else ~found


def build(series: pl.DataFrame) -> SeriesIndex:
    """The index of rows of ``tables.SERIES`` (the columns ``COLUMNS``)."""
    series = series.unique("series_id", keep="first", maintain_order=True).sort("series_id")
    shape_columns = ("metric", "unit", "labels", "source", "kind")
    coded = series.select(
        "series_id",
        "host",
        "metric",
        pl.col("first_seen").dt.timestamp("us"),
        pl.struct(pl.col(name).fill_null("") for name in shape_columns).rank("dense").cast(pl.Int64).alias("shape"),
        *(pl.col(name).fill_null("").alias(f"_{name}") for name in shape_columns),
    )
    shapes = coded.unique("shape", keep="first").sort("shape")
    of_series = coded["shape"].to_numpy().astype(np.int64) - 1
    meanings: dict[str, list[tuple[str, str, str]]] = {}
    of_shape: dict[str, list[str]] = {}
    names = []
    for number, (metric, unit, labels, source, kind) in enumerate(
        shapes.select(f"_{name}" for name in shape_columns).iter_rows()
    ):
        name = metric_name(metric)
        names.append(metric)
        meaning = (metric, kind, unit)
        known = meanings.setdefault(name, [])
        if meaning not in known:
            known.append(meaning)
        mapped = {**label_names(orjson.loads(labels or "{}")), NAME: name, "unit": unit, "source": source}
        for label, value in mapped.items():
            of_shape.setdefault(label, [""] * shapes.height)[number] = value
    ambiguous = {name for name, entries in meanings.items() if len({metric for metric, _, _ in entries}) > 1}
    if ambiguous:
        of_shape[ORIGINAL_NAME] = [metric if metric_name(metric) in ambiguous else "" for metric in names]
    columns = {label: _column(values, of_series) for label, values in of_shape.items()}
    columns["host"] = _column(series["host"].fill_null("").to_list(), None)
    ids = series["series_id"].to_numpy()
    equal = pl.DataFrame({label: column.codes for label, column in columns.items()}).is_duplicated().to_numpy()
    if equal.any():
        texts = [str(number) if same else "" for number, same in zip(ids.tolist(), equal, strict=True)]
        columns[ORIGINAL_SERIES] = _column(texts, None)
    columns = {label: column for label, column in columns.items() if len(column.values) > 1}
    return SeriesIndex(ids, columns, coded["first_seen"].to_numpy(), meanings, _column(names, of_series))


def _column(values: Sequence[str], of_series: NDArray[np.int64] | None) -> LabelColumn:
    """Dictionary-encode values, which are given by shape when ``of_series`` says each series' shape."""
    known: dict[str, int] = {"": 0}
    codes = np.fromiter((known.setdefault(value, len(known)) for value in values), np.int32, len(values))
    return LabelColumn(codes if of_series is None else codes[of_series], list(known))
