"""Frames of golden incidents for tests of files: strange texts, times and nulls, without the generator."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import polars as pl
from hypothesis import strategies as st

from aiops_assets.synthetic.golden.record import NULLABLE, SCHEMA

#: what breaks readers and writers of files
NASTY = (
    "", " ", "'", "''=1", "=1+1", "+49", "-1", "@x", "\tx", "\rx", "\nx", "'=cmd|' /C calc'!A0", "＝1", 'say "hi"',
    "a,b;c", "line\nbreak", "line\r\nbreak", "end\n", "\ufeffbom", "nul\x00", "bell\x07", "esc\x1b[31m", "part\x1e",
    "\x7f", "_x0041_", "_x0041_x0042_", "_x005F_", "\ufffe\uffff", "json:x", "json:\"\\u0041\"", "null", "true", "12",
    "2026-01-01", "<b>&amp;</b>", "]]>", "<r><t>x</t></r>", "<r></c></r>",
    "[2026-01-01T00:00:00Z] a:\n  b", "[]", "[{", "é ü ß 漢字 العربية",
    "😀👩‍💻", "a\u2028b\u0085", " lead", "trail ", "  two\n  spaces", "%s {} \\n", "#c", "\\", "1e5",
)  # fmt: skip
_ALPHABET = st.characters(exclude_categories=("Cs",))


def texts() -> st.SearchStrategy[str]:
    """Texts as they should never come, and do."""
    free = st.text(_ALPHABET, max_size=20)
    return st.one_of(st.sampled_from(NASTY), free, st.tuples(st.sampled_from(NASTY), free).map("".join))


def instants() -> st.SearchStrategy[datetime]:
    """Instants with microseconds, the far past and future among them."""
    usual = st.integers(0, 4_000_000_000).map(lambda second: datetime.fromtimestamp(second, UTC))
    any_time = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999_999)).map(
        lambda naive: naive.replace(tzinfo=UTC)
    )
    return st.one_of(usual, any_time)


def _values(name: str, dtype: pl.DataType) -> st.SearchStrategy[Any]:
    if isinstance(dtype, pl.List):
        return st.lists(
            st.fixed_dictionaries({"written_at": instants(), "author": texts(), "note": texts()}), max_size=3
        )
    if isinstance(dtype, pl.Datetime):
        values: st.SearchStrategy[Any] = instants()
    elif dtype == pl.Boolean:
        values = st.booleans()
    elif dtype == pl.Float64:
        values = st.floats(allow_nan=False, allow_infinity=False)
    elif dtype == pl.Int32:
        values = st.integers(-(2**31), 2**31 - 1)
    else:
        values = texts()
    return st.none() | values if name in NULLABLE else values


def frames(max_rows: int = 4) -> st.SearchStrategy[pl.DataFrame]:
    """Frames of the record's schema with any values that its types allow."""
    row = st.fixed_dictionaries({name: _values(name, dtype) for name, dtype in SCHEMA.items()})
    return st.lists(row, max_size=max_rows).map(lambda rows: pl.DataFrame(rows, schema=SCHEMA))


def plain(count: int, start: int = 0) -> pl.DataFrame:
    """Ordinary incidents, quickly made: row ``n`` depends on ``start + n`` alone."""
    opened = datetime(2026, 3, 2, 9, tzinfo=UTC)
    number = pl.int_range(start, start + count, eager=True, dtype=pl.Int64).alias("n")
    at = pl.lit(opened) + pl.duration(minutes=pl.col("n"))
    note = pl.struct(
        written_at=at + pl.duration(minutes=7), author=pl.lit("mira.k"), note=pl.format("Looked at ticket {}.", "n")
    )
    made: dict[str, pl.Expr] = {
        "incident_id": pl.format("INC{}", pl.col("n").cast(pl.String).str.zfill(7)),
        "short_description": pl.format("Outlook does not start since update {}", pl.col("n") % 97),
        "description": pl.format("Since this morning Outlook closes right after its start, on laptop LT-{}.", "n"),
        "category": pl.lit("email"),
        "subcategory": pl.lit("client"),
        "priority": pl.lit(3),
        "urgency": pl.lit(2),
        "impact": pl.lit(2),
        "state": pl.lit("Closed"),
        "opened_at": at,
        "work_notes": pl.concat_list(note, note),
        "made_sla": pl.col("n") % 3 != 0,
        "language": pl.lit("en"),
        "ai_confidence_score": pl.lit(1) / (pl.col("n") + 1),
        "resolved_at": pl.when(pl.col("n") % 5 != 0).then(at + pl.duration(hours=3)),
        "resolution_notes": pl.when(pl.col("n") % 5 != 0).then(pl.lit("Profile made anew, starts again.")),
    }
    rest = {
        name: pl.lit(None) if name in NULLABLE else at if isinstance(dtype, pl.Datetime)
        else pl.lit(0) if dtype == pl.Int32 else pl.lit(name)
        for name, dtype in SCHEMA.items()
        if name not in made
    }  # fmt: skip
    return number.to_frame().select((made | rest)[name].cast(dtype).alias(name) for name, dtype in SCHEMA.items())
