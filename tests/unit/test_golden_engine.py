"""The life of golden incidents: same seed, same bytes; fields that agree; working time, weights and ranges kept."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops_assets.hours import micros
from aiops_assets.synthetic.golden.calendars import calendars
from aiops_assets.synthetic.golden.config import DAYS, GoldenConfig, Hours, Location, covers, default_config
from aiops_assets.synthetic.golden.declared import Declared
from aiops_assets.synthetic.golden.draws import BLOCK, Draws, cumulated, sorted_uniforms
from aiops_assets.synthetic.golden.generate import MODEL_VERSION, generate, one, stream
from aiops_assets.synthetic.golden.record import NULLABLE, SCHEMA, STATES, frame_of, records
from aiops_assets.synthetic.golden.skeleton import SKELETON_SCHEMA, Vocabulary
from tests.examples import examples


def changed(config: GoldenConfig, **values: Any) -> GoldenConfig:
    """A checked copy of a configuration with other values."""
    return GoldenConfig.model_validate({**config.model_dump(by_alias=True), **values})


def content(frame: pl.DataFrame) -> str:
    """SHA-256 of the frame as one Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(frame.rechunk().to_arrow(), buffer)
    return hashlib.sha256(buffer.getvalue()).hexdigest()


@cache
def year() -> pl.DataFrame:
    """Five thousand incidents of the shipped company."""
    return generate(default_config(), count=5_000, seed=1)


def broken_rules(frame: pl.DataFrame, config: GoldenConfig) -> list[str]:
    """Names of invariants that a record of the frame breaks."""
    groups = {group.name: group for group in config.groups}
    found: set[str] = set()
    seen = config.seen_at

    def require(name: str, holds: bool) -> None:
        if not holds:
            found.add(name)

    for row in frame.iter_rows(named=True):
        opened, responded, resolved = row["opened_at"], row["first_response_at"], row["resolved_at"]
        reopened, closed, state = row["reopened_at"], row["closed_at"], row["state"]
        require("priority", row["priority"] == config.matrix[row["impact"] - 1][row["urgency"] - 1])
        require("period", config.start <= opened < config.end)
        order = [at for at in (opened, responded, resolved, closed) if at is not None]
        require("order", order == sorted(order) and all(at <= seen for at in order))
        require("reopened", (reopened is None) == (row["reopen_count"] == 0))
        if reopened is not None:
            require("reopened between", opened <= reopened <= (resolved or seen))
        expected = {
            "New": (False, False, False),
            "In Progress": (True, False, False),
            "On Hold": (True, False, False),
            "Resolved": (True, True, False),
            "Closed": (True, True, True),
        }[state]
        require("state", (responded is not None, resolved is not None, closed is not None) == expected)
        require("assigned", (row["assigned_to"] is None) == (state == "New"))
        require("resolution", (resolved is not None) == (row["resolution_notes"] is not None))
        require("code", (resolved is not None) == (row["close_code"] is not None))
        if resolved is not None:
            fits = covers(groups[row["assignment_group"]].specialties, row["category"], row["subcategory"])
            require("group", fits)
        require("sla", row["made_sla"] == ((resolved or seen) <= row["resolution_due_at"]))
        require("due", opened < row["response_due_at"] and opened < row["resolution_due_at"])
        notes = row["work_notes"]
        times = [note["written_at"] for note in notes]
        require("entries", bool(notes) and times == sorted(times) and times[0] == opened and times[-1] <= seen)
        require("updates", row["update_count"] >= len(notes) - 1)
        require("entries of changes", len(notes) >= 1 + row["reassignment_count"] + 2 * row["reopen_count"])
        require("texts", all(note["note"].strip() and note["author"] for note in notes))
        if closed is not None:
            require("last entry", times[-1] == closed)
        if resolved is not None:
            require("entry of the resolution", resolved in times)
        require("service", any(s.name == row["business_service"] and s.domain == row["business_domain"]
                               for s in config.services))  # fmt: skip
    return sorted(found)


# --- same seed, same bytes


@pytest.mark.parametrize("chunk", [1, 7, 250, 10_000])
def test_chunks_change_nothing(chunk: int) -> None:
    config, count = default_config(), min(1_500, 20 * chunk)
    whole = generate(config, count=count, seed=5, total=1_500)
    parts = pl.concat(list(stream(config, count=count, seed=5, total=1_500, chunk=chunk)))
    assert content(parts) == content(whole)


def test_any_slice_can_be_made_alone() -> None:
    config = default_config()
    whole = generate(config, count=2_500, seed=2)
    for start, count in ((0, 10), (BLOCK - 3, 7), (1_700, 600), (2_499, 1)):
        part = generate(config, count=count, seed=2, start=start, total=2_500)
        assert content(part) == content(whole.slice(start, count))
    assert one(config, 1_234, seed=2, total=2_500) == next(records(whole.slice(1_234, 1)))


def test_other_processes_and_hash_seeds_make_the_same_bytes() -> None:
    program = (
        "import hashlib, io\n"
        "import pyarrow.parquet as pq\n"
        "from aiops_assets.synthetic.golden.config import default_config\n"
        "from aiops_assets.synthetic.golden.generate import generate\n"
        "made = io.BytesIO()\n"
        "pq.write_table(generate(default_config(), count=400, seed=9).rechunk().to_arrow(), made)\n"
        "print(hashlib.sha256(made.getvalue()).hexdigest())\n"
    )
    here = content(generate(default_config(), count=400, seed=9))
    for hash_seed, threads in (("77", "2"),):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "POLARS_MAX_THREADS": threads},
            stdout=subprocess.PIPE,
            text=True,
            timeout=120,
            check=True,
        )
        assert done.stdout.strip() == here


def test_other_seeds_make_other_data() -> None:
    config = default_config()
    first, second = (generate(config, count=500, seed=seed) for seed in (1, 2))
    for column in ("opened_at", "category", "caller_id", "description", "short_description"):
        assert (first[column] == second[column]).mean() < 0.5


def test_what_cannot_be_generated_is_refused() -> None:
    with pytest.raises(ValueError, match="more than the total of 5"):
        next(stream(default_config(), count=6, seed=1, total=5))
    with pytest.raises(ValueError, match="at least 0"):
        next(stream(default_config(), count=6, seed=-1))
    assert generate(default_config(), count=0, seed=1).schema == pl.Schema(SCHEMA)


# --- invariants


def test_records_have_the_shape_of_the_table() -> None:
    frame = year().head(300)
    assert frame.schema == pl.Schema(SCHEMA)
    assert all(frame[name].null_count() == 0 for name in SCHEMA if name not in NULLABLE)
    assert frame_of(list(records(frame))).equals(frame)
    assert set(frame["model_version"]) == {MODEL_VERSION}
    assert set(frame["generation_timestamp"]) == {default_config().seen_at}


def test_fields_of_the_shipped_company_agree() -> None:
    assert broken_rules(year(), default_config()) == []
    assert year()["incident_id"].is_unique().all()
    assert year()["opened_at"].is_sorted()


RATES = ("misrouted", "reassigned", "waiting_user", "waiting_vendor", "reopened", "identified", "confirmed")
SHARES = st.sampled_from([0.0, 0.1, 0.5, 1.0])


@settings(max_examples=examples(30), deadline=None)
@given(
    seed=st.integers(0, 2**40),
    days=st.sampled_from([1, 3, 40, 400]),
    rates=st.fixed_dictionaries(dict.fromkeys(RATES, SHARES)),
    matrix=st.sampled_from([((1, 2, 3), (2, 3, 4), (3, 4, 5)), ((1, 1, 2), (2, 3, 3), (3, 4, 4))]),
    later=st.sampled_from([0, 5, 100]),
    clock=st.booleans(),
)
def test_fields_agree_whatever_the_configuration(
    seed: int, days: int, rates: dict[str, float], matrix: Any, later: int, clock: bool
) -> None:
    base = default_config()
    end = base.start + timedelta(days=days)
    config = changed(
        base,
        end=end,
        as_of=end + timedelta(days=later),
        rates=rates,
        matrix=matrix,
        callers=1 if clock else 500,
        sla={level: {"response": 60.0, "resolution": 7_200.0, "around_the_clock": clock} for level in range(1, 6)},
    )
    assert broken_rules(generate(config, count=60, seed=seed), config) == []


# --- what is drawn


def test_categories_and_priorities_keep_their_weights() -> None:
    config = changed(
        default_config(), seasonality={**default_config().seasonality.model_dump(), "bursts": {"share": 0}}
    )
    frame = Declared(config).skeletons(0, 60_000, 60_000, 4)
    total = sum(category.weight for category in config.categories)
    for category in config.categories:
        part = frame.filter(pl.col("category") == category.name)
        share = category.weight / total
        assert abs(part.height / 60_000 - share) < 4 * np.sqrt(share / 60_000)
        weights = sum(category.priorities.values())
        for priority, weight in category.priorities.items():
            expected = weight / weights
            assert abs((part["priority"] == priority).mean() - expected) < 4.5 * np.sqrt(expected / part.height) + 1e-9


def test_a_tenth_is_solved_below_and_a_tenth_above_the_declared_range() -> None:
    base = default_config()
    sla = {n: {"response": 60.0, "resolution": 60.0, "around_the_clock": True} for n in range(1, 6)}
    config = changed(base, sla=sla)
    frame = Declared(config).skeletons(0, 40_000, 40_000, 8)
    for category in ("Workplace Hardware", "Online Shop"):
        declared = next(entry for entry in config.categories if entry.name == category)
        wanted = declared.resolution.get(3) or config.resolution[3]
        taken = frame.filter((pl.col("category") == category) & (pl.col("priority") == 3))["resolve_seconds"]
        assert abs((taken < wanted.low).mean() - 0.1) < 0.05
        assert abs((taken > wanted.high).mean() - 0.1) < 0.05


def test_incidents_come_by_day_and_by_night_as_declared() -> None:
    config = default_config()
    frame = Declared(config).skeletons(0, 50_000, 50_000, 1)
    local = frame.filter(pl.col("location") == "Leipzig").select(
        at=pl.col("opened_at").dt.convert_time_zone("Europe/Berlin")
    )
    hours = local["at"].dt.hour().value_counts().sort("at")["count"].to_numpy()
    expected = np.array(config.seasonality.hours) / sum(config.seasonality.hours)
    assert np.abs(hours / hours.sum() - expected).max() < 0.015
    weekend = (local["at"].dt.weekday() > 5).mean()
    assert weekend is not None and weekend < 0.08
    holiday = local.filter(pl.col("at").dt.date() == datetime(2025, 10, 3, tzinfo=UTC).date()).height
    ordinary = local.filter(pl.col("at").dt.date() == datetime(2025, 10, 10, tzinfo=UTC).date()).height
    assert holiday < ordinary / 2


def test_an_outage_is_reported_by_many_at_once() -> None:
    season = {**default_config().seasonality.model_dump(), "bursts": {"per_month": 2.0, "share": 0.5}}
    config = changed(default_config(), seasonality=season)
    frame = Declared(config).skeletons(0, 5_000, 5_000, 3)
    crowded = frame.group_by(pl.col("opened_at").dt.truncate("1h"), "subcategory", "business_service").len()
    assert crowded["len"].max() > 40


def test_arrivals_are_like_those_of_a_poisson_process() -> None:
    gaps = np.diff(sorted_uniforms(0, 20_000, 20_000, 6)) * 20_000
    assert abs(gaps.mean() - 1) < 0.03
    assert abs(gaps.std() - 1) < 0.05
    counts = np.histogram(sorted_uniforms(0, 20_000, 20_000, 6), bins=200, range=(0, 1))[0]
    assert 0.75 < counts.var() / counts.mean() < 1.3


@settings(max_examples=examples(60), deadline=None)
@given(total=st.integers(1, 5_000), seed=st.integers(0, 2**32), data=st.data())
def test_order_statistics_do_not_depend_on_the_slice(total: int, seed: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, total - 1))
    count = data.draw(st.integers(1, total - start))
    whole = sorted_uniforms(0, total, total, seed)
    assert (np.diff(whole) >= 0).all() and whole[0] > 0 and whole[-1] < 1
    assert (sorted_uniforms(start, count, total, seed) == whole[start : start + count]).all()


def test_draws_are_uniform_and_independent_of_each_other() -> None:
    draws = Draws(3, np.arange(50_000))
    first, second = draws.uniform("a"), draws.uniform("b")
    assert abs(first.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.02
    assert set(draws.chosen("c", cumulated(np.array([0.0, 1.0, 0.0])))) == {1}
    assert draws.below("d", 0).max() == 0


# --- working time


@settings(max_examples=examples(60), deadline=None)
@given(
    hours=st.tuples(st.integers(0, 1_200), st.integers(30, 239)),
    days=st.sets(st.sampled_from(DAYS), min_size=1),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Chatham"]),
    minutes=st.integers(0, 60 * 24 * 300),
    seconds=st.integers(0, 400_000),
)
def test_working_time_is_counted_as_on_the_fingers(
    hours: tuple[int, int], days: set[str], zone: str, minutes: int, seconds: int
) -> None:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    opening = Hours(open=hours[0], close=hours[0] + hours[1], days=tuple(sorted(days)))  # type: ignore[arg-type]
    place = Location(name="x", time_zone=zone, hours=opening)
    made = calendars([place], start, start + timedelta(days=400))
    at = start + timedelta(minutes=minutes)
    which = np.zeros(1, np.int64)
    later = int(made.later(np.array([micros(at)]), np.array([float(seconds)]), which)[0])
    worked = counted(opening, zone, at, datetime.fromtimestamp(later / 1e6, UTC))
    assert abs(worked - seconds) <= 1 or later == made.closes[made.last[0]]
    always = made.later(np.array([micros(at)]), np.array([float(seconds)]), np.array([made.always]))
    assert always[0] == micros(at + timedelta(seconds=seconds))


def counted(hours: Hours, zone: str, begin: datetime, end: datetime) -> float:
    """Working seconds between two instants, day by day."""
    info, total = ZoneInfo(zone), 0.0
    day = begin.astimezone(info).date() - timedelta(days=1)
    while day <= end.astimezone(info).date():
        if DAYS[day.weekday()] in hours.days:
            midnight = datetime(day.year, day.month, day.day, tzinfo=info)
            opens = (midnight + timedelta(minutes=hours.open)).astimezone(UTC)
            closes = (midnight + timedelta(minutes=hours.close)).astimezone(UTC)
            total += max(0.0, (min(closes, end) - max(opens, begin)).total_seconds())
        day += timedelta(days=1)
    return total


def test_what_is_not_worked_on_round_the_clock_is_solved_in_business_hours() -> None:
    config = default_config()
    ordinary = year().filter((pl.col("priority") >= 3) & pl.col("resolved_at").is_not_null())
    for place in config.locations:
        local = ordinary.filter(pl.col("location") == place.name)["resolved_at"].dt.convert_time_zone(place.time_zone)
        minute = local.dt.hour().cast(pl.Int32) * 60 + local.dt.minute()
        # A minute after closing time is what rounding up to whole seconds may give.
        inside = (minute >= place.hours.open) & (minute <= place.hours.close) & (local.dt.weekday() <= 5)
        free = local.dt.date().is_in(list(place.holidays))
        assert (inside & ~free).mean() > 0.995
    urgent = year().filter((pl.col("priority") <= 2) & pl.col("resolved_at").is_not_null())
    hour = urgent["resolved_at"].dt.hour()
    assert ((hour < 4) | (hour > 20)).sum() > 0


def test_the_closing_job_runs_at_its_time_after_its_business_days() -> None:
    config = default_config()
    frame = year().filter(pl.col("state") == "Closed")
    last = frame["work_notes"].list.last().struct.field("author")
    by_job = frame.filter(last == "system")
    assert 0.6 < by_job.height / frame.height < 0.8
    local = by_job["closed_at"].dt.convert_time_zone(config.locations[0].time_zone)
    minute = local.dt.hour().cast(pl.Int32) * 60 + local.dt.minute()
    assert minute.is_between(config.closing.at, config.closing.at + 5).all()
    assert ((by_job["closed_at"] - by_job["resolved_at"]) > timedelta(days=4)).all()


def test_tickets_that_are_still_open_are_seen_as_they_stand() -> None:
    base = default_config()
    config = changed(base, end=base.start + timedelta(days=12), rates={**base.rates.model_dump(), "waiting_user": 1.0})
    frame = generate(config, count=4_000, seed=1)
    assert set(frame["state"]) == set(STATES)
    assert broken_rules(frame, config) == []
    waiting = frame.filter(pl.col("state") == "On Hold")
    last = waiting["work_notes"].list.last().struct.field("author")
    assert (last == waiting["assigned_to"]).mean() > 0.9


def test_promises_stand_still_while_somebody_else_is_waited_for() -> None:
    base = default_config()
    held, free = (
        generate(
            changed(base, rates={**base.rates.model_dump(), "waiting_user": share, "waiting_vendor": 0}),
            count=800,
            seed=4,
        )
        for share in (1.0, 0.0)
    )
    assert (held["response_due_at"] == free["response_due_at"]).all()
    assert (held["resolution_due_at"] >= free["resolution_due_at"]).all()
    assert (held["resolution_due_at"] > free["resolution_due_at"]).mean() > 0.2


# --- other sources


@dataclass(frozen=True)
class Foreign:
    """A source with names that no configuration knows, and fields that it gives itself."""

    group: str = "Group 70"

    def vocabulary(self) -> Vocabulary:
        return Vocabulary(
            categories={"Category 45": frozenset({"Subcategory 164", "Subcategory 9"})},
            groups=("Group 70", "Group 25", "Group 24"),
        )

    def skeletons(self, start: int, count: int, total: int, seed: int) -> pl.DataFrame:
        index = np.arange(start, start + count)
        made = Draws(seed, index)
        return pl.DataFrame(
            {
                "index": index,
                "opened_at": micros(datetime(2016, 3, 1, tzinfo=UTC)) + index * 60_000_000,
                "category": ["Category 45"] * count,
                "subcategory": pl.Series(["Subcategory 164", "Subcategory 9"]).gather(index % 2),
                "business_service": ["Service 3"] * count,
                "business_domain": ["Domain 1"] * count,
                "contact_type": ["Phone"] * count,
                "location": pl.Series(["Location 204", "Leipzig"]).gather(index % 2),
                "caller_id": [f"Caller {number % 97}" for number in index],
                "impact": 1 + index % 3,
                "urgency": 1 + index % 3,
                "priority": pl.Series([1, 3, 5]).gather(index % 3),
                "assignment_group": [self.group] * count,
                "assigned_to": [None if number % 3 else "Resolver 17" for number in index],
                "configuration_item": [None] * count,
                "reassignment_count": index % 19,
                "reopen_count": index % 4 // 3,
                "response_seconds": 1e4 * made.uniform("r"),
                "resolve_seconds": [None if number % 50 == 49 else 2e4 + 60.0 * number for number in index],
                "close_seconds": [None if number % 50 == 49 else 86_400.0 * 5 for number in index],
                "update_count": 3 + index % 30,
                "made_sla": [None if number % 50 == 49 else bool(number % 2) for number in index],
                "close_code": [f"code {number % 7}" for number in index],
            },
            schema=SKELETON_SCHEMA,
            strict=False,
        )


def test_a_foreign_source_keeps_its_names_and_numbers() -> None:
    config = changed(default_config(), as_of=datetime(2026, 6, 1, tzinfo=UTC))
    source = Foreign()
    frame = generate(config, count=600, seed=1, skeletons=source)
    parts = pl.concat(list(stream(config, count=600, seed=1, skeletons=source, chunk=37)))
    assert content(frame) == content(parts)
    given_ = source.skeletons(0, 600, 600, 1)
    for column in ("category", "subcategory", "caller_id", "location", "assignment_group", "reassignment_count"):
        assert frame[column].to_list() == given_[column].to_list()
    solved = frame["resolved_at"].is_not_null()
    assert frame.filter(solved)["made_sla"].to_list() == given_.filter(solved)["made_sla"].to_list()
    assert frame.filter(solved)["close_code"].to_list() == given_.filter(solved)["close_code"].to_list()
    assert (frame["update_count"] >= given_["update_count"]).filter(solved).all()
    exact = (frame["update_count"] == given_["update_count"]).filter(solved & (given_["update_count"] > 22))
    assert exact.mean() == 1.0
    assert (frame["resolution_due_at"] > frame["opened_at"]).all()
    assert ((frame["response_due_at"] - frame["opened_at"]) < timedelta(days=10)).all()
    assert (frame["assigned_to"].filter(given_["assigned_to"].is_not_null()) == "Resolver 17").all()
    assert set(frame.filter(~solved)["state"]) <= {"In Progress", "On Hold"}
    text = frame["description"] + frame["short_description"]
    assert text.str.contains("Subcategory|Service 3|Fehler|rror").mean() > 0.8


def test_a_source_beyond_the_instant_of_seeing_is_refused() -> None:
    config = changed(default_config(), start="2010-01-01T00:00:00Z", end="2011-01-01T00:00:00Z")
    with pytest.raises(ValueError, match="set a later 'as_of'"):
        generate(config, count=5, seed=1, skeletons=Foreign())


def test_groups_outside_the_vocabulary_are_named() -> None:
    with pytest.raises(ValueError, match="assignment_group: 'Nobody'"):
        generate(default_config(), count=5, seed=1, skeletons=Foreign(group="Nobody"))
