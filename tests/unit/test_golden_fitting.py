"""What is learnt of a reference and drawn again: chains, clocks, slices, storage, names of people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from aiops_assets.synthetic.golden import clocks
from aiops_assets.synthetic.golden.calibrated import Calibrated, _shuffled
from aiops_assets.synthetic.golden.chains import Points, learn, linked, strata
from aiops_assets.synthetic.golden.fitting import Fitted, FittedProblem, fit, load, pseudonymous
from aiops_assets.synthetic.golden.reference import FIELDS
from aiops_assets.synthetic.golden.skeleton import NULLABLE, SKELETON_SCHEMA

DAY = 86_400


def reference(rows: int = 400, people: str = "Resolver {}") -> pl.DataFrame:
    """A service desk: minute grid, three categories with their groups, closed five days later on the hour."""
    rng = np.random.default_rng(1)
    start = datetime(2024, 3, 4, tzinfo=UTC)
    kind = rng.choice(3, rows, p=[0.6, 0.3, 0.1])
    opened = [
        start + timedelta(days=int(day), minutes=int(minute))
        for day, minute in zip(rng.integers(0, 5, rows), rng.integers(8 * 60, 18 * 60, rows), strict=True)
    ]
    spans = np.where(kind == 0, rng.integers(5, 120, rows), rng.integers(1_500, 9_000, rows))
    resolved = [a + timedelta(minutes=int(m)) for a, m in zip(opened, spans, strict=True)]
    due = [r + timedelta(days=5) for r in resolved]
    closed = [d.replace(minute=0) + timedelta(hours=1) for d in due]
    frame = pl.DataFrame(
        {
            "incident_id": [f"I{i}" for i in range(rows)],
            "opened_at": opened,
            "resolved_at": resolved,
            "closed_at": closed,
            "category": [("Mail", "Net", "Disk")[k] for k in kind],
            "subcategory": [
                f"{('Mail', 'Net', 'Disk')[k]} {s}" for k, s in zip(kind, rng.integers(0, 3, rows), strict=True)
            ],
            "impact": [int(k) + 1 for k in kind],
            "urgency": [2] * rows,
            "priority": [int(k) + 2 for k in kind],
            "contact_type": ["Phone"] * rows,
            "location": [f"Site {s}" for s in rng.integers(0, 4, rows)],
            "assignment_group": [("Desk", "Network", "Storage")[k] for k in kind],
            "assigned_to": [people.format(10 * k + s) for k, s in zip(kind, rng.integers(0, 3, rows), strict=True)],
            "caller_id": [f"Caller {c}" for c in rng.integers(1, 3_000, rows)],
            "reassignment_count": rng.integers(0, 3, rows),
            "reopen_count": [0] * rows,
            "update_count": rng.integers(2, 9, rows),
            "made_sla": [m < 3_000 for m in spans],
        }
    )
    missing = {name: pl.lit(None, dtype).alias(name) for name, dtype in FIELDS.items() if name not in frame.columns}
    return frame.with_columns(*missing.values()).select(pl.col(n).cast(d) for n, d in FIELDS.items())


@lru_cache(maxsize=1)
def fitted() -> Fitted:
    return fit(reference())


def drawn(count: int = 600, seed: int = 1) -> pl.DataFrame:
    return Calibrated(fitted()).skeletons(0, count, count, seed)


def test_skeletons_have_the_agreed_schema() -> None:
    frame = drawn()
    assert dict(frame.schema) == SKELETON_SCHEMA
    assert all(frame[name].null_count() == 0 for name in SKELETON_SCHEMA if name not in NULLABLE)
    assert frame["opened_at"].is_sorted()


def test_any_slice_is_that_part_of_the_whole() -> None:
    source, whole = Calibrated(fitted()), drawn(500)
    for start, count in ((0, 1), (17, 100), (499, 1), (250, 250)):
        assert source.skeletons(start, count, 500, 1).equals(whole[start : start + count])


def test_another_seed_draws_other_incidents() -> None:
    assert not drawn(seed=1).equals(drawn(seed=2))


def test_shares_are_those_of_the_reference() -> None:
    real, made = reference(), drawn(2_000)
    for name in ("category", "assignment_group", "location"):
        shares = [dict(side[name].value_counts(normalize=True).iter_rows()) for side in (real, made)]
        assert sum(abs(shares[0][key] - shares[1].get(key, 0)) for key in shares[0]) / 2 < 0.06


def test_subcategories_and_groups_stay_with_their_category() -> None:
    made = drawn(2_000)
    assert made.filter(~pl.col("subcategory").str.starts_with(pl.col("category"))).is_empty()
    pairs = set(made.select("category", "assignment_group").unique().iter_rows())
    assert len(pairs) <= 4


def test_times_lie_on_the_grid_and_closings_follow_the_job() -> None:
    made = drawn()
    assert (made["opened_at"].dt.second() == 0).all()
    assert (made["resolve_seconds"] % 60 == 0).all()
    closed = made["opened_at"].dt.epoch("s") + made["resolve_seconds"] + made["close_seconds"]
    assert ((closed % 3600) == 0).mean() > 0.95
    assert (made["close_seconds"].is_between(5 * DAY, 5 * DAY + 3_600)).mean() > 0.95


def test_priority_follows_the_matrix_of_the_reference() -> None:
    made = drawn()
    assert fitted().matrix == {"1/2": 2, "2/2": 3, "3/2": 4}
    assert (made["priority"] == made["impact"] + 1).all()


def test_a_fit_is_deterministic_and_survives_storage(tmp_path: Path) -> None:
    again = fit(reference())
    assert again.digest == fitted().digest
    again.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"fitted.json", "fitted.npz"}
    restored = load(tmp_path)
    assert restored.digest == again.digest
    assert Calibrated(restored).skeletons(0, 50, 50, 3).equals(Calibrated(again).skeletons(0, 50, 50, 3))


def test_no_row_of_the_reference_is_stored_or_drawn() -> None:
    real = reference()
    callers = set(real["caller_id"].value_counts().filter(pl.col("count") < 2)["caller_id"])
    stored = fitted().stored()
    assert not [name for name in callers if f'"{name}"'.encode() in stored["fitted.json"]]
    shared = ["opened_at", "category", "subcategory", "location", "assignment_group", "assigned_to"]
    assert drawn(2_000).join(real, on=[*shared, "caller_id"], how="semi").is_empty()


def test_names_of_people_are_replaced_and_pseudonyms_kept() -> None:
    names = ["Anna Huber", "Jo Ortega", "Mia Wolf"]
    assert not pseudonymous(names)
    assert pseudonymous(["Resolver 12", "Resolver 7"])
    assert pseudonymous(["0123456789abcdef0123456789abcdef"])
    real = reference().with_columns(
        assigned_to=pl.Series([names[i % 3] for i in range(400)]),
        caller_id=pl.Series([f"{names[i % 3]} {'abc'[i % 3]}" for i in range(400)]),
    )
    learnt = fit(real)
    made = Calibrated(learnt).skeletons(0, 300, 300, 1)
    text = b"".join(learnt.stored().values())
    assert not any(part.encode() in text for name in names for part in name.split())
    assert made["assigned_to"].str.starts_with("tech.").all()
    assert made["caller_id"].str.starts_with("caller.").all()


def test_damaged_and_foreign_fits_are_refused(tmp_path: Path) -> None:
    fitted().save(tmp_path)
    (tmp_path / "fitted.npz").write_bytes(b"no archive")
    with pytest.raises(FittedProblem, match="fit the reference anew"):
        load(tmp_path)
    with pytest.raises(FittedProblem):
        load(tmp_path / "gone")


def test_too_few_incidents_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 50"):
        fit(reference(20))


def test_a_reference_without_most_fields_is_enough() -> None:
    few = reference().with_columns(
        pl.lit(None, dtype).alias(name)
        for name, dtype in FIELDS.items()
        if name not in {"incident_id", "opened_at", "resolved_at", "category"}
    )
    made = Calibrated(fit(few)).skeletons(0, 100, 100, 1)
    assert dict(made.schema) == SKELETON_SCHEMA
    assert made["category"].is_in(["Mail", "Net", "Disk"]).all()


def test_even_numbers_give_even_counts() -> None:
    data = {"a": np.array([0] * 70 + [1] * 30), "b": np.array([0] * 35 + [1] * 35 + [2] * 30)}
    sizes = {"a": 2, "b": 3}
    chains = [learn("a", data, sizes, candidates=[]), learn("b", data, sizes, candidates=[], hard=["a"])]
    points = Points((np.arange(1_000) + 0.5) / 1_000, lambda rows: np.full(rows.size, 0.5))
    known: dict[str, np.ndarray] = {}
    for chain in chains:
        known[chain.target] = chain.draw(known, points)
    assert np.bincount(known["a"]).tolist() == [700, 300]
    assert np.abs(np.bincount(known["b"]) - [350, 350, 300]).max() <= 1


def test_each_part_is_used_once_before_any_is_used_again() -> None:
    donors = fitted().joints["work"].at.size
    for rounds in (1, 3):
        codes = Calibrated(fitted())._joined(5, np.arange(rounds * donors), rounds * donors)
        for joint in fitted().joints.values():
            drawn_parts = np.column_stack([codes[field] for field in joint.fields])
            seen, counts = np.unique(drawn_parts, axis=0, return_counts=True)
            known, often = np.unique(joint.codes, axis=0, return_counts=True)
            assert np.array_equal(seen, known)
            assert np.array_equal(counts, rounds * often)


def test_several_incidents_stand_behind_what_goes_with_a_part() -> None:
    joints = fitted().joints
    for name in ("site", "course"):
        assert joints[name].size.min() >= 5
        assert not {"category", "assigned_to"} & set(joints[name].fields)


def test_strata_back_off_where_too_few_agree() -> None:
    a, b = np.array([0] * 6 + [1] * 3 + [2]), np.array([0, 0, 0, 1, 1, 1, 0, 0, 1, 0])
    made = strata([a, b], [3, 2], 10, 3)
    groups = sorted(np.flatnonzero(made == stratum).tolist() for stratum in set(made.tolist()))
    assert groups == [[0, 1, 2, 9], [3, 4, 5], [6, 7, 8]]


def test_links_are_the_fields_that_tell_most() -> None:
    rng = np.random.default_rng(3)
    first, noise = rng.integers(0, 3, 300), rng.integers(0, 3, 300)
    data = {"first": first, "noise": noise, "goal": first}
    sizes = {"first": 3, "noise": 3, "goal": 3}
    assert linked(data, sizes, scored=["goal"], candidates=["noise", "first"], least=3) == ("first",)


@pytest.mark.parametrize("total", [1, 2, 7, 64, 1_000])
def test_the_shuffle_is_a_permutation(total: int) -> None:
    made = _shuffled(np.arange(total, dtype=np.int64), total, 5)
    assert sorted(made.tolist()) == list(range(total))


def test_working_days_skip_weekends() -> None:
    friday = int(datetime(2024, 3, 8, 12, tzinfo=UTC).timestamp() * 1e6)
    days = clocks.working_day(np.array([friday + n * clocks.DAY for n in range(4)]))
    assert (days - days[0]).tolist() == [0, 0, 0, 1]
