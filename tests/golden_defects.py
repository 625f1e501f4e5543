"""Defects planted into good golden incidents, each with the gate that has to refuse it, and good variants.

What belongs here: functions from a frame of records to a defective one. What does not: asking the gates.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import numpy as np
import polars as pl

Defect = Callable[[pl.DataFrame], pl.DataFrame]


def _share(frame: pl.DataFrame, share: float, seed: int = 1) -> pl.Series:
    chosen = np.random.default_rng(seed).random(frame.height) < share
    chosen[: min(3, frame.height)] = True
    return pl.Series(chosen)


def _where(frame: pl.DataFrame, share: float, column: str, value: pl.Expr) -> pl.DataFrame:
    return frame.with_columns(pl.when(pl.lit(_share(frame, share))).then(value).otherwise(column).alias(column))


def _shuffled(frame: pl.DataFrame, *columns: str) -> pl.DataFrame:
    other = frame.sample(fraction=1.0, shuffle=True, seed=3)
    return frame.with_columns(other[name].alias(name) for name in columns)


def _closed(frame: pl.DataFrame) -> pl.Expr:
    return pl.col("state") == "Closed"


def wrong_priority(frame: pl.DataFrame) -> pl.DataFrame:
    return _where(frame, 0.02, "priority", pl.col("priority") % 4 + 1)


def resolved_before_opened(frame: pl.DataFrame) -> pl.DataFrame:
    return _where(frame, 0.02, "resolved_at", pl.col("opened_at") - timedelta(hours=3))


def a_category_is_missing(frame: pl.DataFrame) -> pl.DataFrame:
    common = frame["category"].value_counts(sort=True)["category"][1]
    return frame.filter(pl.col("category") != common)


def rows_copied(frame: pl.DataFrame) -> pl.DataFrame:
    copies = frame.head(frame.height // 10).with_columns(incident_id=pl.col("incident_id") + "X")
    return pl.concat([frame, copies])


def near_copies(frame: pl.DataFrame) -> pl.DataFrame:
    head = frame.head(frame.height // 10)
    copies = head.with_columns(
        incident_id=pl.col("incident_id") + "X",
        description=pl.col("description") + " Thanks.",
        opened_at=pl.col("opened_at") - timedelta(minutes=1),
    )
    return pl.concat([frame, copies])


def leaked_email(frame: pl.DataFrame) -> pl.DataFrame:
    return _where(frame, 0.0, "description", pl.col("description") + " Write to anna.huber@siemens-energy.com please.")


def leaked_phone(frame: pl.DataFrame) -> pl.DataFrame:
    return _where(frame, 0.0, "resolution_notes", pl.lit("Called back on +49 89 32168844 and solved it there."))


def _noted(frame: pl.DataFrame, text: str) -> pl.DataFrame:
    chosen = _share(frame, 0.0)
    notes = [
        [{**note, "note": f"{note['note']} {text}"} for note in entries] if flag else entries
        for entries, flag in zip(frame["work_notes"].to_list(), chosen.to_list(), strict=True)
    ]
    return frame.with_columns(pl.Series("work_notes", notes, dtype=frame.schema["work_notes"]))


def secrets_in_notes(frame: pl.DataFrame) -> pl.DataFrame:
    return _noted(frame, "password: Tr0ub4dor&3x, token ghp_16C7e42F292c6912E7710c838347Ae178B4a")


def a_real_person(frame: pl.DataFrame) -> pl.DataFrame:
    return _noted(frame, "Regards, Michael Johnson")


def _span(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    begin, end = frame["opened_at"].min(), frame["opened_at"].max()
    micros = np.random.default_rng(5).uniform(begin.timestamp(), end.timestamp(), frame.height) * 1e6
    moved = pl.Series(micros.astype(np.int64)).cast(frame.schema[name])
    return frame.with_columns(moved.alias(f"_{name}"))


def uniform_times(frame: pl.DataFrame) -> pl.DataFrame:
    moved = _span(frame, "opened_at")
    shift = pl.col("_opened_at") - pl.col("opened_at")
    times = ("first_response_at", "resolved_at", "closed_at", "reopened_at", "response_due_at", "resolution_due_at")
    return moved.with_columns(*((pl.col(name) + shift) for name in times), opened_at=pl.col("_opened_at")).select(
        frame.columns
    )


def business_hours_ignored(frame: pl.DataFrame) -> pl.DataFrame:
    shift = timedelta(hours=11)
    times = [
        name
        for name, dtype in frame.schema.items()
        if isinstance(dtype, pl.Datetime) and name != "generation_timestamp"
    ]
    return frame.with_columns(pl.col(name) - shift for name in times)


def times_on_the_hour(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col("opened_at").dt.truncate("1h"))


def swapped_columns(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(category=pl.col("subcategory"), subcategory=pl.col("category"))


def swapped_texts(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(business_service=pl.col("business_domain"), business_domain=pl.col("business_service"))


def one_template(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(
        description=pl.format(
            "The user reports that {} does not work. Please check and repair it as soon as possible.", "subcategory"
        )
    )


def one_summary(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(short_description=pl.lit("Something does not work as it should"))


def wrong_group(frame: pl.DataFrame) -> pl.DataFrame:
    return _shuffled(frame, "assignment_group")


def unknown_category(frame: pl.DataFrame) -> pl.DataFrame:
    return _where(frame, 0.01, "category", pl.lit("Misc"))


def subcategory_of_another(frame: pl.DataFrame) -> pl.DataFrame:
    return _shuffled(frame, "subcategory")


def unknown_state(frame: pl.DataFrame) -> pl.DataFrame:
    return _where(frame, 0.01, "state", pl.lit("Done"))


def null_where_required(frame: pl.DataFrame) -> pl.DataFrame:
    return _where(frame, 0.01, "caller_id", pl.lit(None, pl.String))


def out_of_range(frame: pl.DataFrame) -> pl.DataFrame:
    return _where(frame, 0.01, "urgency", pl.lit(7, pl.Int32))


def a_column_is_gone(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.drop("close_code")


def a_type_is_wrong(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col("priority").cast(pl.String))


def closed_without_resolution(frame: pl.DataFrame) -> pl.DataFrame:
    chosen = pl.lit(_share(frame, 0.02)) & _closed(frame)
    return frame.with_columns(
        pl.when(chosen).then(None).otherwise(name).alias(name)
        for name in ("resolved_at", "resolution_notes", "close_code")
    )


def open_with_closing_time(frame: pl.DataFrame) -> pl.DataFrame:
    return _where(frame, 0.02, "state", pl.when(_closed(frame)).then(pl.lit("In Progress")).otherwise("state"))


def duplicate_ids(frame: pl.DataFrame) -> pl.DataFrame:
    return _where(frame, 0.02, "incident_id", pl.lit(frame["incident_id"][0]))


def notes_of_another(frame: pl.DataFrame) -> pl.DataFrame:
    return _shuffled(frame, "work_notes")


def resolution_of_another(frame: pl.DataFrame) -> pl.DataFrame:
    done = frame.filter(pl.col("resolution_notes").is_not_null())
    other = done.select(pl.col("resolution_notes").shift(7).fill_null(pl.col("resolution_notes").first()))
    rest = frame.filter(pl.col("resolution_notes").is_null())
    return pl.concat([done.with_columns(other.to_series()), rest])


def notes_unordered(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col("work_notes").list.reverse())


def notes_after_the_end(frame: pl.DataFrame) -> pl.DataFrame:
    notes = [
        [{**note, "written_at": note["written_at"] + timedelta(days=400)} for note in entries] if flag else entries
        for entries, flag in zip(frame["work_notes"].to_list(), _share(frame, 0.01).to_list(), strict=True)
    ]
    return frame.with_columns(pl.Series("work_notes", notes, dtype=frame.schema["work_notes"]))


def future_times(frame: pl.DataFrame) -> pl.DataFrame:
    return _where(frame, 0.01, "closed_at", pl.col("generation_timestamp") + timedelta(days=30))


def shuffled_texts(frame: pl.DataFrame) -> pl.DataFrame:
    return _shuffled(frame, "short_description", "description")


def constant_confidence(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(ai_confidence_score=pl.lit(0.95))


def invented_confidence(frame: pl.DataFrame) -> pl.DataFrame:
    made = np.round(np.random.default_rng(1).uniform(0.7, 1.0, frame.height), 4)
    return frame.with_columns(ai_confidence_score=pl.Series(made))


def weights_off(frame: pl.DataFrame) -> pl.DataFrame:
    common = frame["category"].value_counts(sort=True)["category"][0]
    return frame.filter((pl.col("category") != common) | pl.lit(_share(frame, 0.35)))


def constant_resolution(frame: pl.DataFrame) -> pl.DataFrame:
    ends = pl.col("opened_at") + timedelta(hours=8)
    return frame.with_columns(
        resolved_at=pl.when(pl.col("resolved_at").is_not_null()).then(ends),
        closed_at=pl.when(pl.col("closed_at").is_not_null()).then(ends + timedelta(days=5)),
    )


def sla_flipped(frame: pl.DataFrame) -> pl.DataFrame:
    return _where(frame, 0.02, "made_sla", ~pl.col("made_sla"))


def languages_mixed(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(
        language=pl.when(pl.lit(_share(frame, 0.2)))
        .then(pl.when(pl.col("language") == "en").then(pl.lit("de")).otherwise(pl.lit("en")))
        .otherwise("language")
    )


def notes_in_another_language(frame: pl.DataFrame) -> pl.DataFrame:
    english = frame.filter(pl.col("language") == "en")
    foreign = english["work_notes"].sample(frame.height, with_replacement=True, seed=2)
    return frame.with_columns(foreign.alias("work_notes"))


def no_notes(frame: pl.DataFrame) -> pl.DataFrame:
    return _where(frame, 0.02, "work_notes", pl.col("work_notes").list.head(0))


#: defect → the gate that has to refuse it
DEFECTS: dict[str, tuple[Defect, str]] = {
    "wrong priority": (wrong_priority, "cross_fields"),
    "resolved before opened": (resolved_before_opened, "time_order"),
    "one category missing": (a_category_is_missing, "volumes"),
    "copied rows": (rows_copied, "uniqueness"),
    "rows copied with small changes": (near_copies, "diversity"),
    "a leaked e-mail address": (leaked_email, "privacy"),
    "a leaked phone number": (leaked_phone, "privacy"),
    "secrets in notes": (secrets_in_notes, "privacy"),
    "a signature of a person": (a_real_person, "privacy"),
    "uniform times": (uniform_times, "times"),
    "business hours ignored": (business_hours_ignored, "times"),
    "times on the hour": (times_on_the_hour, "times"),
    "category and subcategory swapped": (swapped_columns, "vocabulary"),
    "service and domain swapped": (swapped_texts, "vocabulary"),
    "one description everywhere": (one_template, "diversity"),
    "one summary everywhere": (one_summary, "diversity"),
    "groups of other categories": (wrong_group, "vocabulary"),
    "an unknown category": (unknown_category, "vocabulary"),
    "subcategories of other categories": (subcategory_of_another, "vocabulary"),
    "an unknown state": (unknown_state, "vocabulary"),
    "null where a value is required": (null_where_required, "schema"),
    "a value out of range": (out_of_range, "schema"),
    "a column is gone": (a_column_is_gone, "schema"),
    "a column of another type": (a_type_is_wrong, "schema"),
    "closed without resolution": (closed_without_resolution, "cross_fields"),
    "open with a closing time": (open_with_closing_time, "cross_fields"),
    "duplicate numbers": (duplicate_ids, "uniqueness"),
    "notes of another ticket": (notes_of_another, "time_order"),
    "notes that tell another resolution": (notes_of_another, "text_consistency"),
    "resolution of another ticket": (resolution_of_another, "text_consistency"),
    "notes unordered": (notes_unordered, "time_order"),
    "notes after the end": (notes_after_the_end, "time_order"),
    "times in the future": (future_times, "time_order"),
    "shuffled texts": (shuffled_texts, "text_consistency"),
    "constant confidence": (constant_confidence, "confidence"),
    "invented confidence": (invented_confidence, "confidence"),
    "weights of categories off": (weights_off, "volumes"),
    "resolution times constant": (constant_resolution, "distribution"),
    "spans that never vary": (constant_resolution, "times"),
    "SLA flag flipped": (sla_flipped, "cross_fields"),
    "languages mixed up": (languages_mixed, "text_consistency"),
    "notes in another language": (notes_in_another_language, "text_consistency"),
    "no notes": (no_notes, "cross_fields"),
}

_OWN = """
company: Harbour Works
categories:
  - {name: Cranes, weight: 5, subcategories: [Spreader, Hoist, Cabin terminal]}
  - {name: Gates, weight: 2, subcategories: [Barrier, Plate reader]}
  - {name: Planning, weight: 1, subcategories: [Berth plan, Yard plan]}
"""
_SHIFTED = """
categories:
  - {name: Email, weight: 60, subcategories: [Delivery, Mailbox full, Calendar]}
  - {name: Network, weight: 30, subcategories: [VPN, Wireless, Switch]}
  - {name: Printing, weight: 10, subcategories: [Paper jam, Driver]}
"""
_GERMAN = """
locations:
  - {name: Hamburg, time_zone: Europe/Berlin, languages: {de: 1}, weight: 2}
  - {name: Graz, time_zone: Europe/Vienna, languages: {de: 1}}
"""
_ENGLISH = """
locations:
  - {name: Leeds, time_zone: Europe/London, languages: {en: 1}}
"""
_PACIFIC = """
locations:
  - {name: Auckland, time_zone: Pacific/Auckland, languages: {en: 1}}
  - {name: Honolulu, time_zone: Pacific/Honolulu, languages: {en: 1}}
"""
_QUARTER = """
start: 2025-04-01T00:00:00Z
end: 2025-07-01T00:00:00Z
"""
_SHORT = """
start: 2025-04-01T00:00:00Z
end: 2025-04-15T00:00:00Z
"""
_RUSHED = """
rates: {misrouted: 0.4, reassigned: 0.3, waiting_user: 0.5, waiting_vendor: 0.2, reopened: 0.2, confirmed: 0.9,
  response: 1.5}
"""
_CALM = """
rates: {misrouted: 0, reassigned: 0, waiting_user: 0, waiting_vendor: 0, reopened: 0, confirmed: 0, response: 0.2}
"""
_MATRIX = """
matrix: [[1, 1, 2], [1, 2, 3], [2, 3, 4]]
"""
_NEAT = """
wording: {typos: 0, telegraphic: 0}
callers: 200
"""
#: name → (configuration, records, seed); the configuration of ``""`` is the shipped one
VARIANTS: dict[str, tuple[str, int, int]] = {
    "shipped, seed 2": ("", 1_000, 2),
    "shipped, seed 3": ("", 1_000, 3),
    "shipped, seed 4": ("", 1_500, 4),
    "shipped, seed 99": ("", 2_000, 99),
    "shipped, 300 records": ("", 300, 5),
    "shipped, 5,000 records": ("", 5_000, 6),
    "shipped, 10,000 records": ("", 10_000, 7),
    "own categories": (_OWN, 1_000, 8),
    "own categories, another seed": (_OWN, 1_500, 9),
    "an own mix": (_SHIFTED, 1_000, 10),
    "German alone": (_GERMAN, 1_000, 11),
    "English alone": (_ENGLISH, 1_000, 12),
    "the Pacific": (_PACIFIC, 1_000, 13),
    "a quarter": (_QUARTER, 1_000, 14),
    "a fortnight": (_SHORT, 1_000, 15),
    "much goes wrong": (_RUSHED, 1_000, 16),
    "nothing goes wrong": (_CALM, 1_000, 17),
    "another matrix": (_MATRIX, 1_000, 18),
    "neat writers": (_NEAT, 1_000, 19),
    "all of it": (_OWN + _ENGLISH + _QUARTER + _NEAT, 1_200, 20),
}
