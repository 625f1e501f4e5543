"""The hash of rows: the same for the same rows, another for any other."""

from __future__ import annotations

import math
import struct
from typing import Any

import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aiops_assets.lake.digest import digest, in_order
from aiops_assets.tables import TIMESTAMP
from tests.examples import examples

BY = ("series_id", "ts")
SCHEMA: dict[str, pl.DataType] = {
    "series_id": pl.Int64(),
    "ts": TIMESTAMP,
    "value": pl.Float64(),
    "unit": pl.String(),
    "seq": pl.Int32(),
    "opens": pl.Boolean(),
    "quantiles": pl.List(pl.Float64()),
    "hosts": pl.List(pl.String()),
}
Row = dict[str, Any]

floats = st.none() | st.floats()
texts = st.none() | st.text(max_size=6)
rows_of_tables = st.lists(
    st.fixed_dictionaries(
        {
            "series_id": st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 2),
            "ts": st.integers(0, 2**50) | st.integers(0, 3),
            "value": floats,
            "unit": texts,
            "seq": st.none() | st.integers(-(2**31), 2**31 - 1),
            "opens": st.none() | st.booleans(),
            "quantiles": st.none() | st.lists(floats, max_size=3),
            "hosts": st.none() | st.lists(texts, max_size=3),
        }
    ),
    max_size=12,
    unique_by=lambda row: (row["series_id"], row["ts"]),
)


def frame(rows: list[Row], **types: pl.DataType) -> pl.DataFrame:
    schema = SCHEMA | types
    plain = {name: pl.Int64() if dtype == TIMESTAMP else dtype for name, dtype in schema.items()}
    return pl.DataFrame(rows, schema=plain, orient="row").with_columns(pl.col("ts").cast(TIMESTAMP))


def bits(value: object) -> object:
    """Two values that differ anywhere have other bits; NaN is one value."""
    if isinstance(value, float):
        return struct.pack("<d", math.nan if math.isnan(value) else value)
    return [bits(entry) for entry in value] if isinstance(value, list) else (type(value).__name__, value)


@settings(max_examples=examples(150), deadline=None)
@given(rows_of_tables, st.randoms(), st.integers(0, 12))
def test_neither_the_order_of_rows_and_columns_nor_chunks_matter(rows: list[Row], random: Any, cut: int) -> None:
    whole = frame(rows)
    expected = digest(whole, BY)
    shuffled, columns = list(rows), list(whole.columns)
    random.shuffle(shuffled)
    random.shuffle(columns)
    other = frame(shuffled)
    in_chunks = pl.concat([other[:cut], other[cut:]], rechunk=False)
    assert digest(in_chunks.select(columns), BY) == expected
    assert digest(whole.sort(BY), BY) == expected
    first = whole[:1]
    inside = pl.concat([first, whole, first])[len(first) :][: len(rows)]
    assert digest(inside, BY) == expected
    assert len(expected) == 32


@settings(max_examples=examples(300), deadline=None)
@given(rows_of_tables.filter(len), st.data())
def test_any_change_of_a_value_changes_it(rows: list[Row], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(rows) - 1))
    other = data.draw(rows_of_tables.filter(len))[0]
    name = data.draw(st.sampled_from(sorted(SCHEMA)))
    changed = [*rows[:place], rows[place] | {name: other[name]}, *rows[place + 1 :]]
    assume(bits(other[name]) != bits(rows[place][name]))
    assume(len({(row["series_id"], row["ts"]) for row in changed}) == len(rows))
    assert digest(frame(changed), BY) != digest(frame(rows), BY)


@settings(max_examples=examples(50), deadline=None)
@given(rows_of_tables.filter(len), st.data())
def test_a_row_or_a_column_less_changes_it(rows: list[Row], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(rows) - 1))
    name = data.draw(st.sampled_from([name for name in SCHEMA if name not in BY]))
    whole = digest(frame(rows), BY)
    assert digest(frame([*rows[:place], *rows[place + 1 :]]), BY) != whole
    assert digest(frame(rows).drop(name), BY) != whole
    assert digest(frame(rows).rename({name: "other"}), BY) != whole


def of(values: list[Any], dtype: pl.DataType) -> str:
    return digest(pl.DataFrame({"k": list(range(len(values))), "v": pl.Series(values, dtype=dtype)}), ["k"])


@pytest.mark.parametrize(
    ("dtype", "columns"),
    [
        (pl.String(), [["a", None], ["a", ""], ["", "a"], [None, "a"], [None, None], ["", ""], ["a", "\0"]]),
        (pl.String(), [["ab", "c"], ["a", "bc"], ["", "abc"], ["abc", ""], ["abc", None]]),
        (pl.Float64(), [[0.0], [-0.0], [None], [math.nan], [math.inf], [5e-324]]),
        (pl.Int32(), [[0, 1], [None, 1], [0, None], [1, 0]]),
        (pl.Boolean(), [[False, True], [None, True], [False, None], [True, True]]),
        (pl.List(pl.Float64()), [[[], None], [None, []], [[None], None], [[0.0], None], [[0.0], []], [[], [0.0]]]),
        (pl.List(pl.Float64()), [[[1.0, 2.0], [3.0]], [[1.0], [2.0, 3.0]], [[1.0, 2.0, 3.0], []]]),
        (
            pl.List(pl.String()),
            [[["a"], ["b"]], [["a", "b"], []], [["ab"], [""]], [["ab"], []], [["ab"], None], [["ab"], [None]]],
        ),
    ],
)
def test_nothing_is_taken_for_something_else(dtype: pl.DataType, columns: list[list[Any]]) -> None:
    assert len({of(column, dtype) for column in columns}) == len(columns)


def test_types_count() -> None:
    types: list[pl.DataType] = [pl.Int64(), pl.Int32(), pl.UInt64(), pl.Float64(), TIMESTAMP, pl.Datetime("us")]
    empty = [of([], dtype) for dtype in types]
    assert len(set(empty)) == len(types)
    zeros = [digest(pl.DataFrame({"k": [0], "v": [0]}).with_columns(pl.col("v").cast(dtype)), ["k"]) for dtype in types]
    assert len(set(zeros)) == len(types)


def test_rows_of_other_keys_are_sorted_too() -> None:
    rows = pl.DataFrame({"alert_id": ["b", "a", "b"], "revision": [1, 0, 0]}, schema_overrides={"revision": pl.Int32})
    assert digest(rows, ("alert_id", "revision")) == digest(rows.reverse(), ("alert_id", "revision"))


def test_a_frame_in_order_is_left_as_it_is() -> None:
    rows = frame([{"series_id": s, "ts": t} for s, t in [(-1, 5), (0, 1), (0, 2), (3, 0)]])
    assert in_order(rows, BY) is rows
    shuffled = rows[[2, 0, 3, 1]]
    assert in_order(shuffled, BY).equals(rows)
    with_null = pl.DataFrame({"k": [1, None, 2]})
    assert in_order(with_null, ["k"])["k"].to_list() == [None, 1, 2]


def test_the_hash_does_not_change_between_versions() -> None:
    row = {"series_id": -7, "ts": 1, "value": 0.1, "unit": "ä", "seq": 3, "opens": True}
    whole = frame([row | {"quantiles": [1.0, None], "hosts": ["a", ""]}, {"series_id": 2, "ts": 0}])
    assert digest(whole, BY) == "75e484d0cb7ef9f2e7c9e9326fbb0c39"
