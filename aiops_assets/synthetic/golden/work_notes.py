"""Work notes in one cell: as JSON for programs, as dated paragraphs for people, and both back without loss.

What belongs here: the two texts of a list of notes and their parsing. What does not: files (``exports``, ``imports``).

The readable form of one note is a line ``[2026-03-02T09:15:00Z] author:`` and the note's lines below it, each
indented by two spaces; notes are parted by line feeds. Notes that this cannot hold (an unknown time, author or text, an
author with a line feed) make the whole cell JSON, which parsing tells by its first characters.
"""

from __future__ import annotations

import polars as pl

from aiops_assets.synthetic.golden.record import SCHEMA
from aiops_assets.tables import TIMESTAMP

NOTES = SCHEMA["work_notes"]
_READABLE = r"\A\[[0-9]"
_HEAD = r"\A\[([^\]\n]*)\] ([^\n]*):\n(?s:(.*))\z"
#: parts notes while the text is split; a text that has it is written as JSON
_PART = "\x1e"


def as_json(notes: pl.Expr) -> pl.Expr:
    """Lists of notes as JSON arrays, null for null; instants are ISO 8601 with an offset."""
    entries = notes.list.eval(pl.element().struct.json_encode()).list.join(",", ignore_nulls=False)
    return pl.when(notes.is_not_null()).then(pl.concat_str(pl.lit("["), entries, pl.lit("]")))


def as_paragraphs(notes: pl.Expr) -> pl.Expr:
    """Lists of notes as dated paragraphs, an empty text for no notes, null for null."""
    entry = pl.element().struct
    author, note = entry.field("author"), entry.field("note")
    text = pl.concat_str(
        pl.lit("["),
        entry.field("written_at").dt.strftime("%Y-%m-%dT%H:%M:%S%.fZ"),
        pl.lit("] "),
        author,
        pl.lit(":\n  "),
        note.str.replace_all("\n", "\n  ", literal=True),
    )
    # concat_str gives null when a part is null
    plain = text.is_not_null() & ~author.str.contains(r"[\n\x1e]") & ~note.str.contains(_PART, literal=True)
    holds = notes.list.eval(plain.fill_null(value=False).all()).list.first().fill_null(value=True)
    return pl.when(holds).then(notes.list.eval(text).list.join("\n")).otherwise(as_json(notes))


def parsed(text: pl.Series) -> pl.Series:
    """Lists of notes (``NOTES``) of texts in either form.

    Raises:
        ValueError: a text is neither; names the first such row, counted from 1.
    """
    frame = pl.DataFrame({"text": text}).with_columns(
        readable=pl.col("text").str.contains(_READABLE).fill_null(value=False) | (pl.col("text") == "")
    )
    json = pl.when(~pl.col("readable")).then("text")
    try:
        decoded = frame.select(json.str.json_decode(NOTES)).to_series()
    except pl.exceptions.PolarsError as error:
        raise ValueError(
            f"row {_first_wrong(frame)}: work_notes is neither a JSON list nor dated paragraphs"
        ) from error
    paragraphs = _paragraphs(frame.select(pl.when("readable").then("text")).to_series())
    return paragraphs.zip_with(frame["readable"], decoded).alias("work_notes")


def _first_wrong(frame: pl.DataFrame) -> int:
    for number, (text, readable) in enumerate(frame.iter_rows(), 1):
        if text is None or readable:
            continue
        try:
            pl.Series([text]).str.json_decode(NOTES)
        except pl.exceptions.PolarsError:
            return number
    return 0


def _paragraphs(text: pl.Series) -> pl.Series:
    """Dated paragraphs back to lists of notes; null stays null."""
    entries = (
        pl.DataFrame({"text": text})
        .with_row_index("row")
        .drop_nulls("text")
        .with_columns(pl.col("text").str.replace_all("\n[", f"\n{_PART}[", literal=True))
        .with_columns(pl.col("text").str.split(f"\n{_PART}"))
        .explode("text", empty_as_null=False)
        .filter(pl.col("text") != "")
        .with_columns(pl.col("text").str.extract_groups(_HEAD).alias("parts"))
    )
    made = entries.select(
        "row",
        written_at=pl.col("parts").struct.field("1").str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", strict=False)
        .dt.cast_time_unit("us").dt.replace_time_zone("UTC").cast(TIMESTAMP),
        author=pl.col("parts").struct.field("2"),
        note=pl.col("parts").struct.field("3").str.strip_prefix("  ").str.replace_all("\n  ", "\n", literal=True),
    )  # fmt: skip
    wrong = made.filter(pl.any_horizontal(pl.all().is_null()))
    if not wrong.is_empty():
        raise ValueError(f"row {wrong['row'][0] + 1}: work_notes is neither a JSON list nor dated paragraphs")
    listed = made.group_by("row", maintain_order=True).agg(pl.struct("written_at", "author", "note").alias("notes"))
    whole = pl.DataFrame({"text": text}).with_row_index("row").join(listed, "row", "left", maintain_order="left")
    empty = pl.lit([], dtype=NOTES)
    kept = pl.when(pl.col("text").is_not_null()).then(pl.col("notes").fill_null(empty))
    return whole.select(kept.cast(NOTES)).to_series()
