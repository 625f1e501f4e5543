"""What an hour hands over: its file, its hash, and two states joined series by series."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiops_assets.config import Rule, Statistics
from aiops_assets.detection.alerts import BatchRows
from aiops_assets.detection.handover import HandOver, Shelf, load, merged, save
from aiops_assets.detection.judge import Judge
from aiops_assets.detection.judgement import Judgement
from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.telemetry.series import SeriesDirectory
from tests.examples import examples

START = 1_767_225_600 * MICROS_PER_SECOND  # 2026-01-01T00:00:00Z
MINUTE = 60 * MICROS_PER_SECOND
Last = Mapping[int, int]

rewriting = settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
series_ids = st.integers(-(2**63), 2**63 - 1)
lasts = st.dictionaries(st.integers(-6, 6), st.integers(0, 4), max_size=10)


def alert(series_id: int, side: str, name: str = "r") -> dict[str, Any]:
    return {"fingerprint": f"{name}/{series_id}", "series_id": series_id, "title": side}


def state(
    last: Last,
    side: float = 0.0,
    *,
    reached: int = 0,
    opened: Sequence[int] = (),
    closed: Sequence[int] = (),
    learnt: Mapping[str, int] | None = None,
) -> HandOver:
    """A state that has seen series up to some instants; all else it holds of a series tells ``side`` and the id."""
    ids = np.array(sorted(last), np.int64)
    pending = ids[::2]
    mark = ids + side
    return HandOver(
        {
            "seen": {"series_id": ids, "last": np.array([last[int(id_)] for id_ in ids], np.int64)},
            "statistics": {
                "series_id": ids,
                "state": np.stack([mark, -mark]) if len(ids) else np.zeros((2, 0)),
                "weekly": np.repeat(mark, 6).reshape(len(ids), 3, 2),
            },
            "rule:r:0": {"series_id": pending, "since": pending + side, "ring": np.tile(pending + side, (4, 1))},
            "coverage": {"coverage_reached": np.array([reached]), "coverage_holes": np.full((2, 1), side)},
        },
        {
            "config": "c",
            "detector": "d",
            "learnt": dict(learnt or {}),
            "open": [alert(id_, str(side)) for id_ in sorted(opened, key=lambda id_: f"r/{id_}")],
            "closed": {f"r/{id_}": alert(id_, str(side)) for id_ in closed},
        },
    )


def same(one: HandOver, other: HandOver) -> bool:
    assert {part: sorted(entries) for part, entries in one.parts.items()} == {
        part: sorted(entries) for part, entries in other.parts.items()
    }
    equal = all(
        array.dtype == other.parts[part][name].dtype
        and array.shape == other.parts[part][name].shape
        and array.tobytes() == other.parts[part][name].tobytes()
        for part, entries in one.parts.items()
        for name, array in entries.items()
    )
    return equal and one.document == other.document


# -- file and hash ----------------------------------------------------------------------------------------------------


@rewriting
@given(st.dictionaries(series_ids, st.integers(0, 2**62), max_size=20), st.text(max_size=20))
def test_a_state_comes_back_from_its_file_as_it_was(tmp_path: Path, last: Last, text: str) -> None:
    before = state(last, learnt={"2026-01-01T00": 2})
    before = HandOver(before.parts, {**before.document, "config": text})
    path = tmp_path / "folder" / "a.state.zst"
    save(path, before)
    after = load(path)
    assert same(after, before)
    assert after.digest() == before.digest()
    assert [entry.name for entry in path.parent.iterdir()] == ["a.state.zst"]


def test_a_state_of_nothing_comes_back(tmp_path: Path) -> None:
    save(tmp_path / "a", HandOver())
    assert load(tmp_path / "a") == HandOver()


def test_there_is_no_state_where_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "a")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("handover") / "a.state.zst"
    random = np.random.default_rng(0)
    save(path, state({int(id_): int(id_) ** 2 for id_ in random.integers(-(2**30), 2**30, 40)}, opened=[5], closed=[7]))
    return path


@settings(max_examples=examples(300), deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_refused(stored: Path, data: st.DataObject) -> None:
    good = stored.read_bytes()
    bad = bytearray(good)
    place = data.draw(st.integers(0, len(good) - 1))
    # What says how long things are may ask for all memory there is: kept to what a machine can refuse at once.
    bad[place] ^= data.draw(st.integers(1, 255)) if not 3 <= place < 8 else 0x40 if place == 7 else 0x80
    if data.draw(st.booleans()):
        del bad[data.draw(st.integers(0, len(bad) - 1)) :]
    path = stored.with_name("damaged")
    path.write_bytes(bad)
    try:
        found = load(path)
    except ValueError as error:
        assert str(path) in str(error)
    else:
        # A few bits of the compressed form mean nothing.
        assert same(found, load(stored))


@given(st.binary(max_size=200))
@rewriting
def test_what_is_no_state_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes((len(content) + 40).to_bytes(8, "little") + content)
    with pytest.raises(ValueError, match="not a readable hand-over state"):
        load(tmp_path / "a")


def test_the_hash_is_of_everything_and_of_nothing_else() -> None:
    base = state({1: 10, 2: 20}, opened=[1])
    assert state({2: 20, 1: 10}, opened=[1]).digest() == base.digest()
    reordered = HandOver(dict(reversed(list(base.parts.items()))), dict(reversed(list(base.document.items()))))
    assert reordered.digest() == base.digest()
    others = [
        state({1: 10, 2: 21}, opened=[1]),
        state({1: 10, 3: 20}, opened=[1]),
        state({1: 10, 2: 20}),
        state({1: 10, 2: 20}, opened=[1], closed=[2]),
        state({1: 10, 2: 20}, opened=[1], reached=1),
        state({1: 10, 2: 20}, opened=[1], learnt={"2026-01-01T00": 1}),
        HandOver({part: base.parts[part] for part in base.parts if part != "coverage"}, base.document),
        HandOver({**base.parts, "rule:r:1": base.parts["rule:r:0"]}, base.document),
        HandOver({**base.parts, "seen": {**base.parts["seen"], "last": np.array([10, 20], np.int32)}}, base.document),
    ]
    assert len({base.digest(), *(other.digest() for other in others)}) == len(others) + 1


def test_a_shelf_keeps_states_by_hour_and_revision(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "handover")
    assert shelf.kept() == []
    assert shelf.get("2026-01-01T00", 1) is None
    for hour, revision in (("2026-01-01T01", 1), ("2026-01-01T00", 2), ("2026-01-01T00", 1)):
        shelf.put(hour, revision, state({revision: 5}))
    (tmp_path / "handover" / "stray.state.zst").write_bytes(b"x")
    assert shelf.kept() == [("2026-01-01T00", 1), ("2026-01-01T00", 2), ("2026-01-01T01", 1)]
    found = shelf.get("2026-01-01T00", 2)
    assert found is not None
    assert same(found, state({2: 5}))
    shelf.drop("2026-01-01T00", 2)
    shelf.drop("2026-01-01T00", 2)
    assert shelf.get("2026-01-01T00", 2) is None
    (path,) = (tmp_path / "handover").glob("2026-01-01T01*")
    path.write_bytes(path.read_bytes()[:-3])
    assert shelf.get("2026-01-01T01", 1) is None


# -- joining ----------------------------------------------------------------------------------------------------------


@settings(max_examples=examples(200), deadline=None)
@given(base=lasts, other=lasts)
def test_of_each_series_the_state_that_saw_the_later_point_counts_and_of_equals_the_other(
    base: Last, other: Last
) -> None:
    left = state(base, 0.25, opened=list(base)[::2], closed=list(base)[1::2])
    right = state(other, 0.5, opened=list(other)[1::2], closed=list(other)[::2])
    joined = merged(left, right)
    ids = sorted({*base, *other})
    of_other = {id_ for id_ in other if other[id_] >= base.get(id_, -1)}
    side = {id_: 0.5 if id_ in of_other else 0.25 for id_ in ids}
    assert joined.parts["seen"]["series_id"].tolist() == ids
    assert joined.parts["seen"]["last"].tolist() == [max(base.get(i, -1), other.get(i, -1)) for i in ids]
    statistics = joined.parts["statistics"]
    assert statistics["series_id"].tolist() == ids
    assert statistics["state"].tolist() == [[i + side[i] for i in ids], [-i - side[i] for i in ids]]
    assert statistics["weekly"].shape == (len(ids), 3, 2)
    assert all((profile == i + side[i]).all() for i, profile in zip(ids, statistics["weekly"], strict=True))
    # What is pending ends with the side that does not know of it.
    pending = sorted({*sorted(base)[::2]} - of_other | {*sorted(other)[::2]} & of_other)
    assert joined.parts["rule:r:0"]["series_id"].tolist() == pending
    assert joined.parts["rule:r:0"]["since"].tolist() == [i + side[i] for i in pending]
    assert joined.parts["rule:r:0"]["ring"].tolist() == [[i + side[i] for i in pending]] * 4
    opened = [alert(i, "0.25") for i in list(base)[::2] if i not in of_other]
    opened += [alert(i, "0.5") for i in list(other)[1::2] if i in of_other]
    assert joined.document["open"] == sorted(opened, key=lambda entry: entry["fingerprint"])
    closed = [alert(i, "0.25") for i in list(base)[1::2] if i not in of_other]
    closed += [alert(i, "0.5") for i in list(other)[::2] if i in of_other]
    assert joined.document["closed"] == {entry["fingerprint"]: entry for entry in closed}


@given(lasts)
def test_a_state_joined_with_itself_or_with_nothing_is_itself(last: Last) -> None:
    one = state(last, reached=3, opened=list(last), learnt={"2026-01-01T00": 1})
    assert same(merged(one, one), one)
    assert same(merged(one, HandOver()), one)
    assert same(merged(HandOver(), one), one)


def test_joining_changes_neither_of_the_two() -> None:
    left, right = state({1: 1, 2: 5}, 0.25, opened=[1, 2]), state({1: 2, 2: 3}, 0.5, closed=[1])
    hashes = HandOver(left.parts, left.document).digest(), HandOver(right.parts, right.document).digest()
    merged(left, right)
    assert (HandOver(left.parts, left.document).digest(), HandOver(right.parts, right.document).digest()) == hashes


@pytest.mark.parametrize(("base", "other", "side"), [(5, 6, 0.5), (6, 5, 0.25), (5, 5, 0.25)])
def test_of_coverage_that_counts_which_reached_further(base: int, other: int, side: float) -> None:
    joined = merged(state({1: 1}, 0.25, reached=base), state({1: 1}, 0.5, reached=other))
    assert joined.parts["coverage"]["coverage_reached"].tolist() == [max(base, other)]
    assert joined.parts["coverage"]["coverage_holes"].tolist() == [[side], [side]]


def test_of_lessons_the_newest_version_of_each_hour_counts() -> None:
    one, other = state({1: 1}, learnt={"a": 1, "b": 3}), state({1: 1}, learnt={"b": 2, "c": 1})
    assert merged(one, other).document["learnt"] == {"a": 1, "b": 3, "c": 1}


@pytest.mark.parametrize("name", ["config", "detector"])
def test_states_of_other_rules_or_detectors_are_not_joined(name: str) -> None:
    other = state({1: 1})
    with pytest.raises(ValueError, match="cannot be joined"):
        merged(state({1: 1}), HandOver(other.parts, {**other.document, name: "another"}))


# -- a judge's state --------------------------------------------------------------------------------------------------

JUDGEMENT = Judgement(
    tuple(
        Rule.model_validate({"metric": "load", **fields})
        for fields in (
            {"name": "high", "value": 10, "for": "2m"},
            {"name": "fast", "kind": "rate", "value": 0.05, "window": "2m"},
            {"name": "silent", "kind": "absence", "for": "5m"},
        )
    ),
    Statistics(),
)


def judge(order: Sequence[str], judgement: Judgement = JUDGEMENT) -> Judge:
    directory = SeriesDirectory()
    rows = pl.DataFrame({"host": list(order)}).with_columns(
        metric=pl.lit("load"), unit=pl.lit(""), labels=pl.lit("{}"), kind=pl.lit("gauge")
    )
    directory.register(rows, "test", None)
    return Judge(judgement, directory)


def run(made: Judge, first: int, last: int) -> list[tuple[object, ...]]:
    """Minutes of points: ``b`` is high for a while, ``c`` falls silent; who began or ended what."""
    numbers = {host: number for number, host in enumerate(made.directory.frame["host"])}
    points = [
        (numbers[host], START + minute * MINUTE, 20.0 if host == "b" and 15 <= minute < 30 else float(minute % 3))
        for minute in range(first, last)
        for host in "abc"
        if host != "c" or minute < 10
    ]
    number, ts, value = (np.array(column) for column in zip(*points, strict=True))
    _, transitions = made.take(number.astype(np.int32), ts, value, ts)
    transitions += made.absences(START + last * MINUTE)
    rows = made.decide(transitions, BatchRows(ts, ["w"] * len(ts), np.zeros(len(ts), np.int64)))
    hosts = made.directory.frame["host"]
    told = [(hosts[t.series], str(replace(t, series=0, row=0))) for t in transitions]
    return [*told, *rows.drop("received_at", "writer", "seq").rows()]


@pytest.mark.parametrize("minutes", [5, 12, 16, 18])
def test_a_judge_goes_on_from_a_file_whatever_the_numbers_of_its_series(tmp_path: Path, minutes: int) -> None:
    one, other = judge("abc"), judge("xcbya")
    assert run(one, 0, minutes) == run(other, 0, minutes)
    assert one.export().digest() == other.export().digest()
    save(tmp_path / "a", one.export())
    after = judge("cxab")
    run(after, 0, 20)
    after.adopt(load(tmp_path / "a"))
    assert after.export().digest() == one.export().digest()
    expected = run(one, minutes, 40)
    assert expected
    assert run(after, minutes, 40) == expected
    assert after.export().digest() == one.export().digest()
    assert json.loads(json.dumps(one.export().document)) == one.export().document


def test_a_judge_refuses_a_state_of_other_rules_or_another_detector() -> None:
    made = judge("ab")
    exported = made.export()
    with pytest.raises(ValueError, match="detector another, this code has"):
        made.adopt(HandOver(exported.parts, {**exported.document, "detector": "another"}))
    with pytest.raises(ValueError, match="of other rules"):
        judge("ab", Judgement(JUDGEMENT.rules[:2], Statistics())).adopt(exported)


def test_a_judge_that_adopts_nothing_forgets_everything() -> None:
    made = judge("abc")
    run(made, 0, 20)
    made.adopt(HandOver())
    assert made.export().digest() == judge("abc").export().digest()
