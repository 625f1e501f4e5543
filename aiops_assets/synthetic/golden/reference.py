"""Real incidents as a reference: an ITSM export read to one row an incident, in the fields that records share.

What belongs here: layouts (the event log of ServiceNow with one row a change, plain tables with one row an incident,
a declared mapping of columns), unknown values, times and scales. What does not: what is learnt from it (``fitting``)
and how data sets are compared with it (``synthetic.gate``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import polars as pl

TIMESTAMP = pl.Datetime("us", "UTC")

#: the shared fields: one row an incident; null is unknown
FIELDS: dict[str, pl.DataType] = {
    "incident_id": pl.String(),
    "opened_at": TIMESTAMP,
    "first_response_at": TIMESTAMP,
    "resolved_at": TIMESTAMP,
    "closed_at": TIMESTAMP,
    "category": pl.String(),
    "subcategory": pl.String(),
    "impact": pl.Int32(),
    "urgency": pl.Int32(),
    "priority": pl.Int32(),
    "contact_type": pl.String(),
    "location": pl.String(),
    "assignment_group": pl.String(),
    "assigned_to": pl.String(),
    "caller_id": pl.String(),
    "configuration_item": pl.String(),
    "business_service": pl.String(),
    "close_code": pl.String(),
    "reassignment_count": pl.Int32(),
    "reopen_count": pl.Int32(),
    "update_count": pl.Int32(),
    "made_sla": pl.Boolean(),
}
NEEDED = ("opened_at", "category")
#: what ServiceNow and its exports call the fields, where the name differs
_ALIASES: dict[str, tuple[str, ...]] = {
    "incident_id": ("number", "incident_number", "ticket_id", "id"),
    "opened_at": ("sys_created_at", "sys_created_on", "created_at"),
    "update_count": ("sys_mod_count",),
    "close_code": ("closed_code", "resolution_code"),
    "configuration_item": ("cmdb_ci",),
    "contact_type": ("channel", "contact_channel"),
    "caller_id": ("caller", "requester", "u_caller"),
    "assigned_to": ("assignee",),
    "assignment_group": ("group",),
}
_UNKNOWN = ("?", "", "-", "null", "NULL", "None", "NaN", "nan", "N/A", "n/a", "(empty)")
_TIMES = ("first_response_at", "opened_at", "resolved_at", "closed_at")
_SCALES = {
    "impact": {"high": 1, "medium": 2, "moderate": 2, "low": 3},
    "urgency": {"high": 1, "medium": 2, "moderate": 2, "low": 3},
    "priority": {"critical": 1, "high": 2, "medium": 3, "moderate": 3, "low": 4, "planning": 5},
}
#: day first comes before month first: where both read every value and agree on the order of times, it is taken
_FORMATS = tuple(
    f"{day}{gap}%H:%M{rest}"
    for day in ("%Y-%m-%d", "%Y/%m/%d", "%d-%m-%Y", "%d/%m/%Y", "%d.%m.%Y", "%m/%d/%Y", "%m-%d-%Y")
    for gap in (" ", "T")
    for rest in ("", ":%S", ":%S%.f", ":%S%.fZ", ":%S%.f%z")
)


class ReferenceProblem(ValueError):
    """The reference cannot be used: names the file, the column, and what is expected."""


def read(path: Path, columns: Mapping[str, str] | None = None) -> pl.DataFrame:
    """Real incidents, one row each, sorted by ``opened_at``, with the columns ``FIELDS`` (null where unknown).

    ``columns`` declares which column of the file is which field (field → column); what it does not name is found by
    its own name or by what ServiceNow calls it. A file with several rows an incident is an event log: the last row of
    an incident is its state at the end, and the first row that is no longer ``New`` tells the first response. Times
    without a zone are taken as UTC.

    Raises:
        ReferenceProblem: the file cannot be read, a needed column is missing, or times cannot be understood.
    """
    return from_frame(_load(path), path, columns)


def from_frame(raw: pl.DataFrame, path: Path, columns: Mapping[str, str] | None = None) -> pl.DataFrame:
    """The same for rows that were read already; ``path`` is what messages name."""
    declared = dict(columns or {})
    if unknown := sorted(set(declared) - set(FIELDS)):
        raise ReferenceProblem(
            f"{path}: golden.reference_columns names {', '.join(unknown)}; fields are {', '.join(FIELDS)}"
        )
    if missing := sorted(set(declared.values()) - set(raw.columns)):
        raise ReferenceProblem(
            f"{path}: has no column {', '.join(missing)} (golden.reference_columns); it has {', '.join(raw.columns)}"
        )
    found = {field: column for field in FIELDS if (column := _column(field, raw.columns, declared)) is not None}
    if missing := [field for field in NEEDED if field not in found]:
        raise ReferenceProblem(
            f"{path}: no column for {', '.join(missing)}; it has {', '.join(raw.columns)}. "
            "Say which it is under golden.reference_columns (field: column)"
        )
    frame = raw.select(pl.col(column).alias(field) for field, column in found.items())
    if "incident_id" not in frame.columns:
        frame = frame.with_columns(incident_id=pl.format("row-{}", pl.int_range(pl.len())))
    frame = frame.with_columns(
        (pl.when(pl.col(pl.String).str.strip_chars().is_in(_UNKNOWN)).then(None))
        .otherwise(pl.col(pl.String).str.strip_chars())
        .name.keep()
    )
    frame = _one_row_each(frame, raw, path)
    frame = _times(frame, path)
    frame = frame.with_columns(
        *(_scale(frame[name], words) for name, words in _SCALES.items() if name in frame.columns),
        *(
            frame[name].cast(pl.Int32, strict=False)
            for name in ("reassignment_count", "reopen_count", "update_count")
            if name in frame.columns
        ),
        *([_flag(frame["made_sla"])] if "made_sla" in frame.columns else []),
    )
    frame = frame.with_columns(
        pl.lit(None, dtype).alias(name) for name, dtype in FIELDS.items() if name not in frame.columns
    ).select(pl.col(name).cast(dtype) for name, dtype in FIELDS.items())
    frame = frame.filter(pl.col("opened_at").is_not_null()).sort("opened_at", "incident_id")
    if frame.is_empty():
        raise ReferenceProblem(f"{path}: has no incident with a time of opening")
    return frame


def digest(path: Path) -> str:
    """SHA-256 of the file, as recorded among the inputs of versions."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known(frame: pl.DataFrame) -> list[str]:
    """The fields that the reference really has: at least a tenth of its values are known."""
    return [name for name in FIELDS if frame[name].null_count() <= 0.9 * frame.height]


def _load(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise ReferenceProblem(f"{path}: there is no such file (golden.reference in aiops.yaml)")
    try:
        if path.suffix.lower() in {".parquet", ".pq"}:
            return pl.read_parquet(path)
        return pl.read_csv(path, infer_schema=False, encoding="utf8-lossy")
    except pl.exceptions.PolarsError as error:
        raise ReferenceProblem(f"{path}: cannot be read as {path.suffix or 'CSV'}: {error}") from error


def _column(field: str, columns: list[str], declared: Mapping[str, str]) -> str | None:
    if field in declared:
        return declared[field]
    lower = {column.lower(): column for column in columns}
    return next((lower[name] for name in (field, *_ALIASES.get(field, ())) if name in lower), None)


def _one_row_each(frame: pl.DataFrame, raw: pl.DataFrame, path: Path) -> pl.DataFrame:
    if frame["incident_id"].null_count():
        raise ReferenceProblem(f"{path}: {frame['incident_id'].null_count()} rows have no incident number")
    if frame["incident_id"].n_unique() == frame.height:
        return frame
    order = pl.struct(
        pl.col("update_count").cast(pl.Int64, strict=False).fill_null(0)
        if "update_count" in frame.columns
        else pl.lit(0),
        pl.int_range(pl.len()).alias("row"),
    )
    whole = frame.columns
    if {"incident_state", "sys_updated_at"} <= set(raw.columns):
        state, at = raw["incident_state"].str.to_lowercase(), raw["sys_updated_at"]
        frame = frame.with_columns(
            pl.when(state != "new").then(at).alias("_taken_up"),
            pl.when(state == "resolved").then(at).alias("_resolved"),
        )
    last = frame.group_by("incident_id", maintain_order=True).agg(
        pl.exclude("incident_id", "^_.*$").sort_by(order).last(),
        pl.col("^_taken_up$").sort_by(order).drop_nulls().first(),
        pl.col("^_resolved$").sort_by(order).drop_nulls().last(),
    )
    if "_resolved" in last.columns:
        filled = {"first_response_at": "_taken_up", "resolved_at": "_resolved"}
        last = last.with_columns(
            pl.coalesce(*([pl.col(name)] if name in whole else []), pl.col(event)).alias(name)
            for name, event in filled.items()
        ).drop("_taken_up", "_resolved")
    return last


def _times(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    text = [name for name in _TIMES if name in frame.columns and frame.schema[name] == pl.String]
    done = [name for name in _TIMES if name in frame.columns and name not in text]
    frame = frame.with_columns(_instants(frame[name]) for name in done)
    if not text:
        return frame
    values = sum(frame.height - frame[name].null_count() for name in text)
    if not values:
        return frame.with_columns(pl.lit(None, TIMESTAMP).alias(name) for name in text)
    best: tuple[int, int] | None = None
    parsed: list[pl.Series] = []
    for form in _FORMATS:
        tried = [_parsed(frame[name], form) for name in text]
        read_values = sum(series.len() - series.null_count() for series in tried)
        if not read_values:
            continue
        named = dict(zip(text, tried, strict=True))
        backwards = sum(
            int((named[a] > named[b]).sum() or 0)
            for a, b in (("opened_at", "resolved_at"), ("resolved_at", "closed_at"))
            if a in named and b in named
        )
        if best is None or (read_values, -backwards) > best:
            best, parsed = (read_values, -backwards), tried
    if best is None or best[0] < 0.98 * values:
        sample = next((value for name in text for value in frame[name].drop_nulls().head(1)), "")
        raise ReferenceProblem(
            f"{path}: times like {sample!r} in {', '.join(text)} cannot be understood; "
            "write them as YYYY-MM-DD HH:MM:SS, or day first as DD-MM-YYYY HH:MM"
        )
    return frame.with_columns(parsed)


def _parsed(values: pl.Series, form: str) -> pl.Series:
    if form.endswith("%z"):
        return values.str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False)
    return values.str.to_datetime(form, time_unit="us", strict=False).dt.replace_time_zone("UTC")


def _instants(values: pl.Series) -> pl.Series:
    dtype = values.dtype
    if isinstance(dtype, pl.Datetime):
        zoned = values.dt.convert_time_zone("UTC") if dtype.time_zone else values.dt.replace_time_zone("UTC")
        return zoned.dt.cast_time_unit("us")
    return values.cast(pl.Int64).cast(TIMESTAMP)


def _scale(values: pl.Series, words: Mapping[str, int]) -> pl.Series:
    text = values.cast(pl.String)
    number = text.str.extract(r"^\s*(\d+)").cast(pl.Int32, strict=False)
    by_word = (
        text.str.to_lowercase().str.extract(r"([a-z]+)").replace_strict(words, default=None, return_dtype=pl.Int32)
    )
    return number.fill_null(by_word)


def _flag(values: pl.Series) -> pl.Series:
    if values.dtype == pl.Boolean:
        return values
    meanings = {"true": True, "1": True, "yes": True, "y": True, "false": False, "0": False, "no": False, "n": False}
    lower = values.cast(pl.String).str.to_lowercase()
    return lower.replace_strict(meanings, default=None, return_dtype=pl.Boolean)
