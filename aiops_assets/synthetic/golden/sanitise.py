"""Personal data and secrets taken out of incidents whose texts did not come from the generator.

What belongs here: which columns hold texts of people, and replacing over all of them alike. What does not: finding and
making up replacements (``privacy``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from aiops_assets.privacy.detect import People, find
from aiops_assets.privacy.redact import redacted, replaced

#: columns of texts and of people; the authors and texts of work notes are looked at as well
COLUMNS = ("short_description", "description", "resolution_notes", "caller_id", "assigned_to")


@dataclass(frozen=True, slots=True)
class Sanitised:
    """``frame`` without personal data; ``finds`` counts by kind what was there, ``rows`` the incidents that had any."""

    frame: pl.DataFrame
    finds: dict[str, int]
    rows: int


def sanitised(
    frame: pl.DataFrame,
    salt: str,
    *,
    people: People | None = None,
    redact: bool = False,
    columns: Sequence[str] = COLUMNS,
) -> Sanitised:
    """A frame of ``record.SCHEMA`` (or some of its columns) without personal data and secrets.

    The same find becomes the same made-up value in every column and row, and in every frame with the same ``salt``;
    ``redact`` puts the word of its kind there instead. Everything else stays as it is.
    """
    texts = [
        frame.select(row=pl.int_range(pl.len()), column=pl.lit(name), text=pl.col(name))
        for name in columns
        if name in frame.columns
    ]
    notes = None
    if "work_notes" in frame.columns:
        notes = _exploded(frame)
        texts += [
            notes.select(row="row", column=pl.lit(field), text=pl.col("note").struct.field(field))
            for field in ("author", "note")
        ]
    if not texts:
        return Sanitised(frame, {}, 0)
    every = pl.concat(texts).with_row_index("position")
    finds = find(every["text"], people=people)
    if finds.is_empty():
        return Sanitised(frame, {}, 0)
    hit = finds["row"].unique().sort()
    found = every.filter(pl.col("position").is_in(hit.implode()))
    if redact:
        clean = pl.Series([redacted(text, people=people)[0] for text in found["text"]], dtype=pl.String)
    else:
        clean = replaced(found["text"], salt, people=people)
    every = every.with_columns(every["text"].scatter(hit, clean))
    frame = frame.with_columns(
        every.filter(pl.col("column") == name)["text"].alias(name) for name in columns if name in frame.columns
    )
    if notes is not None:
        frame = frame.with_columns(_listed(notes, every, frame))
    kinds = Counter(finds["kind"].to_list())
    return Sanitised(frame, dict(sorted(kinds.items())), found["row"].n_unique())


def _exploded(frame: pl.DataFrame) -> pl.DataFrame:
    """One row a work note: ``row`` of the frame, ``note``."""
    return frame.select(row=pl.int_range(pl.len()), note=pl.col("work_notes")).explode(
        "note", empty_as_null=False, keep_nulls=False
    )


def _listed(notes: pl.DataFrame, every: pl.DataFrame, frame: pl.DataFrame) -> pl.Series:
    """Work notes with the authors and texts of ``every``, as lists again."""
    made = notes.select(
        "row",
        note=pl.struct(
            written_at=notes["note"].struct.field("written_at"),
            author=every.filter(pl.col("column") == "author")["text"],
            note=every.filter(pl.col("column") == "note")["text"],
        ),
    )
    lists = made.group_by("row", maintain_order=True).agg("note")
    whole = frame.select(row=pl.int_range(pl.len())).join(lists, "row", "left", maintain_order="left")["note"]
    dtype = frame.schema["work_notes"]
    return whole.cast(dtype).fill_null(pl.Series([[]], dtype=dtype)).alias("work_notes")
