"""What differs between two sets of incidents is named and measured."""

from __future__ import annotations

import orjson
import polars as pl
import pytest

from aiops_assets.synthetic.golden.difference import difference
from tests.golden_frames import plain


def test_a_set_does_not_differ_from_itself() -> None:
    found = difference(plain(50), plain(50))
    assert (found.before, found.after, found.same, found.changed) == (50, 50, 50, 0)
    assert {entry.distance for entry in found.names.values()} == {0.0}
    assert {entry.distance for entry in found.numbers.values()} <= {0.0, None}
    assert found.words_added == found.words_removed == []


def test_names_that_came_and_went_and_shares_that_moved_are_told() -> None:
    after = plain(100).with_columns(
        category=pl.when(pl.int_range(pl.len()) < 25).then(pl.lit("printing")).otherwise("category"),
        contact_type=pl.lit("phone"),
    )
    found = difference(plain(100), after)
    assert (found.same, found.changed) == (0, 100)
    assert (found.names["category"].added, found.names["category"].removed) == (["printing"], [])
    assert found.names["category"].distance == pytest.approx(0.25)
    assert found.names["contact_type"].distance == 1.0
    assert [(shift.value, shift.before, shift.after) for shift in found.names["category"].shifts] == [
        ("email", 1.0, 0.75),
        ("printing", 0.0, 0.25),
    ]


def test_times_and_words_are_compared() -> None:
    slower = plain(100).with_columns(
        resolved_at=pl.col("resolved_at") + pl.duration(hours=3), description=pl.lit("Der Drucker streikt, Drucker!")
    )
    found = difference(plain(100), slower)
    times = found.numbers["hours to resolution"]
    assert (times.distance, times.median_before, times.median_after) == (1.0, 3.0, 6.0)
    assert found.words_added[0] == "drucker"
    assert "laptop" in found.words_removed
    assert found.numbers["reopenings"].distance == 0.0
    assert orjson.loads(orjson.dumps(found.document()))["numbers"]["hours to resolution"]["p90_after"] == 6.0


def test_an_empty_set_can_be_compared() -> None:
    found = difference(plain(10), plain(0))
    assert (found.before, found.after, found.names["category"].removed) == (10, 0, ["email"])
    assert found.numbers["hours to resolution"].distance is None
