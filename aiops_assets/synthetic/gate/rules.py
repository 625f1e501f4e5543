"""Rules that every record keeps, as Great Expectations suites.

What belongs here: suites on columns and on what is derived of them row by row. What does not: statistics over a data
set (``statistics``), texts (``texts``). Great Expectations is imported inside the functions: it takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from aiops_assets.promotion.gates import GateResult, Measure
from aiops_assets.synthetic.gate.subject import Subject, typed
from aiops_assets.synthetic.golden.declared import MONITORING_CONTACT
from aiops_assets.tables import GOLDEN_INCIDENTS

_STATES = ("New", "In Progress", "On Hold", "Resolved", "Closed")
_LANGUAGES = ("en", "de")
_MOST_SHOWN = 10


def _needed(subject: Subject, *columns: str) -> GateResult | None:
    missing = [name for name in columns if name not in subject.frame.columns]
    if not missing:
        return None
    return GateResult(
        False,
        f"columns are missing: {', '.join(missing)}",
        {"missing_columns": Measure(len(missing), most=0)},
        advice="The schema gate names every difference; make the candidate anew with this version of the product.",
    )


def _validated(
    frame: pl.DataFrame, name: str, expectations: Sequence[Any], advice: str, tolerated: float = 0
) -> GateResult:
    """The suite's verdict: how many expectations hold, how many values break them, and which."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults

    context = gx.get_context(
        mode="ephemeral",
        project_config=DataContextConfig(
            analytics_enabled=False,
            store_backend_defaults=InMemoryStoreBackendDefaults(),
            progress_bars={"globally": False},
        ),
    )
    batch = (
        context.data_sources.add_pandas("records")
        .add_dataframe_asset(name)
        .add_batch_definition_whole_dataframe("all")
        .get_batch({"dataframe": frame.to_pandas()})
    )
    result = batch.validate(gx.ExpectationSuite(name=name, expectations=list(expectations)))
    details: list[dict[str, Any]] = []
    broken = 0
    for entry in result.results:
        if entry.success:
            continue
        said = entry.expectation_config
        unexpected = int((entry.result or {}).get("unexpected_count") or 1)
        broken += unexpected
        rule = (said.meta or {}).get("rule") or said.type
        columns = (
            said.kwargs.get("column")
            or said.kwargs.get("column_list")
            or [
                said.kwargs.get("column_A"),
                said.kwargs.get("column_B"),
            ]
        )
        sample = (entry.result or {}).get("partial_unexpected_list") or []
        details.append(
            {
                "rule": rule,
                "column": columns if isinstance(columns, str) else ", ".join(str(c) for c in columns if c),
                "broken": unexpected,
                "values": "; ".join(str(value) for value in sample[:3]),
                "error": str((entry.exception_info or {}).get("exception_message") or "")[:200],
            }
        )
    failed = len(details)
    summary = (
        f"all {len(result.results)} expectations hold for {frame.height:,} records"
        if not failed
        else f"{failed} of {len(result.results)} expectations do not hold: "
        + ", ".join(f"{row['rule']} ({row['column']}, {row['broken']:,})" for row in details[:4])
    )
    measures = {"failed_expectations": Measure(failed, most=0), "broken_values": Measure(broken, most=tolerated)}
    return GateResult(not failed, summary, measures, details, advice=advice)


def schema(subject: Subject) -> GateResult:
    """Columns, types, required values, ranges."""
    frame = subject.frame
    if wrong := typed(frame):
        return GateResult(
            False,
            f"{len(wrong)} columns differ from the record: {wrong[0]}",
            {"differing_columns": Measure(len(wrong), most=0)},
            [{"column": line.split(": ")[0], "difference": line.split(": ", 1)[1]} for line in wrong],
            advice="Make the candidate with this version of the product; the columns are those of `GoldenIncident`.",
        )
    import great_expectations.expectations as gxe

    required = [c.name for c in GOLDEN_INCIDENTS.columns if not c.nullable and c.name != "version"]
    ranges = {"priority": (1, 5), "impact": (1, 3), "urgency": (1, 3), "ai_confidence_score": (0, 1)}
    expectations: list[Any] = [gxe.ExpectTableRowCountToBeBetween(min_value=1)]
    expectations += [gxe.ExpectColumnValuesToNotBeNull(column=name, meta={"rule": "required"}) for name in required]
    expectations += [
        gxe.ExpectColumnValuesToBeBetween(column=name, min_value=low, max_value=high, meta={"rule": "in range"})
        for name, (low, high) in ranges.items()
    ]
    expectations += [
        gxe.ExpectColumnValuesToBeBetween(column=name, min_value=0, meta={"rule": "not negative"})
        for name in ("reassignment_count", "reopen_count", "update_count")
    ]
    expectations += [
        gxe.ExpectColumnValueLengthsToBeBetween(column=name, min_value=low, max_value=high, meta={"rule": "length"})
        for name, low, high in (("short_description", 5, 250), ("description", 10, 8_000), ("incident_id", 1, 40))
    ]
    plain = frame.with_columns(pl.col("work_notes").list.len())
    return _validated(plain, "schema", expectations, "See which column is null or out of range; the generator made it.")


def uniqueness(subject: Subject) -> GateResult:
    """Numbers are unique, and no row stands twice under two numbers."""
    if missing := _needed(subject, "incident_id", "opened_at", "caller_id", "description"):
        return missing
    import great_expectations.expectations as gxe

    content = ["opened_at", "caller_id", "description"]
    return _validated(
        subject.frame.select("incident_id", *content),
        "uniqueness",
        [
            gxe.ExpectColumnValuesToBeUnique(column="incident_id", meta={"rule": "unique number"}),
            gxe.ExpectCompoundColumnsToBeUnique(column_list=content, meta={"rule": "no copied row"}),
        ],
        "Rows were copied or numbered twice: make the candidate anew from its seed and compare (`aiops golden diff`).",
    )


def vocabulary(subject: Subject) -> GateResult:
    """Names are those of the configuration or of the reference; subcategories and groups belong to the category."""
    if missing := _needed(
        subject, "category", "subcategory", "assignment_group", "state", "language", "business_service"
    ):
        return missing
    import great_expectations.expectations as gxe

    known = subject.vocabulary
    pairs = [(category, sub) for category, subs in known.categories.items() for sub in subs]
    expectations: list[Any] = [
        gxe.ExpectColumnValuesToBeInSet(column=name, value_set=sorted(values), meta={"rule": "known name"})
        for name, values in (
            ("category", known.categories),
            ("assignment_group", known.groups),
            ("state", _STATES),
            ("language", _LANGUAGES),
            *([("business_service", known.services)] if known.services else []),
        )
    ]
    if subject.source is None:
        expectations += [
            gxe.ExpectColumnValuesToBeInSet(column=name, value_set=sorted(values), meta={"rule": "known name"})
            for name, values in (
                ("contact_type", {*subject.config.contact_types, MONITORING_CONTACT}),
                ("location", [place.name for place in subject.config.locations]),
                ("business_domain", [domain.name for domain in subject.config.domains]),
            )
            if name in subject.frame.columns
        ]
    fits = pl.DataFrame(
        [(c, g, True) for c, groups in known.fitting.items() for g in groups],
        schema={"category": pl.String, "assignment_group": pl.String, "fits": pl.Boolean},
        orient="row",
    )
    limited = pl.Series(list(known.fitting), dtype=pl.String)
    over = pl.col("state").is_in(["Resolved", "Closed"])
    frame = subject.frame.select(
        pl.col("category", "subcategory", "assignment_group", "state", "language", "business_service"),
        *(pl.col(n) for n in ("contact_type", "location", "business_domain") if n in subject.frame.columns),
    ).join(fits, on=["category", "assignment_group"], how="left", maintain_order="left")
    frame = frame.with_columns(
        fits=pl.col("fits").fill_null(False) | ~pl.col("category").is_in(limited.implode()) | ~over
    )
    expectations += [
        gxe.ExpectColumnPairValuesToBeInSet(
            column_A="category", column_B="subcategory", value_pairs_set=pairs, meta={"rule": "subcategory of category"}
        ),
        gxe.ExpectColumnValuesToBeInSet(column="fits", value_set=[True], meta={"rule": "group fits category"}),
    ]
    return _validated(
        frame, "vocabulary", expectations, "Names must stand in the configuration: `aiops golden config` shows them."
    )


def cross_fields(subject: Subject) -> GateResult:
    """Priority from impact and urgency; the SLA flag and due times; counts against entries; nulls by state."""
    if missing := _needed(subject, "priority", "impact", "urgency", "made_sla", "resolved_at", "state", "work_notes"):
        return missing
    import great_expectations.expectations as gxe

    expected = pl.lit(None, pl.Int32)
    for impact, row in enumerate(subject.config.matrix, 1):
        for urgency, priority in enumerate(row, 1):
            cell = (pl.col("impact") == impact) & (pl.col("urgency") == urgency)
            expected = pl.when(cell).then(priority).otherwise(expected)
    resolved, closed = pl.col("resolved_at").is_not_null(), pl.col("closed_at").is_not_null()
    over, ended = pl.col("state").is_in(["Resolved", "Closed"]), pl.coalesce("resolved_at", "generation_timestamp")
    rules: dict[str, pl.Expr] = {
        "priority is that of impact and urgency": pl.col("priority") == expected,
        "made_sla says whether it was resolved in time": pl.col("made_sla") == (ended <= pl.col("resolution_due_at")),
        "resolved or closed has a resolution time": over == resolved,
        "closed has a closing time": (pl.col("state") == "Closed") == closed,
        "resolved has resolution notes": resolved == pl.col("resolution_notes").is_not_null(),
        "resolved has a close code": resolved == pl.col("close_code").is_not_null(),
        "new has no response yet": (pl.col("state") != "New") | pl.col("first_response_at").is_null(),
        "reopened has a time": (pl.col("reopen_count") > 0) == pl.col("reopened_at").is_not_null(),
        "has entries": pl.col("work_notes").list.len() > 0,
        "entries are among the updates": pl.col("update_count") + 1 >= pl.col("work_notes").list.len(),
    }
    frame = subject.frame.select(rule.fill_null(False).alias(name) for name, rule in rules.items())
    return _validated(
        frame,
        "cross_fields",
        [gxe.ExpectColumnValuesToBeInSet(column=name, value_set=[True], meta={"rule": name}) for name in rules],
        "Fields of one record contradict each other; the priority matrix and the SLA stand in the configuration.",
    )


def time_order(subject: Subject) -> GateResult:
    """Times are in order, entries lie within the life, and nothing lies after the instant it is seen at."""
    times = ("opened_at", "first_response_at", "resolved_at", "closed_at", "reopened_at", "generation_timestamp")
    if missing := _needed(subject, *times, "work_notes"):
        return missing
    import great_expectations.expectations as gxe

    written = pl.col("work_notes").list.eval(pl.element().struct.field("written_at"))
    frame = subject.frame.select(
        *times,
        first_entry=written.list.min(),
        last_entry=written.list.max(),
        entries_in_order=(
            written.list.eval(pl.element().diff().dt.total_microseconds().min() >= 0).list.first()
        ).fill_null(True),
    )
    end = pl.coalesce("closed_at", "generation_timestamp")
    frame = frame.with_columns(
        entries_in_life=(
            (pl.col("first_entry") >= pl.col("opened_at")) & (pl.col("last_entry") <= end + pl.duration(seconds=1))
        ).fill_null(True)
    )
    order = [
        ("first_response_at", "opened_at"),
        ("resolved_at", "opened_at"),
        ("resolved_at", "first_response_at"),
        ("closed_at", "resolved_at"),
        ("reopened_at", "opened_at"),
        *(("generation_timestamp", name) for name in times[:-1]),
    ]
    expectations: list[Any] = [
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A=later,
            column_B=earlier,
            or_equal=True,
            ignore_row_if="either_value_is_missing",
            meta={"rule": f"{later} not before {earlier}"},
        )
        for later, earlier in order
    ]
    expectations += [
        gxe.ExpectColumnValuesToBeInSet(column=name, value_set=[True], meta={"rule": rule})
        for name, rule in (
            ("entries_in_order", "entries are in order"),
            ("entries_in_life", "entries lie within the life of the ticket"),
        )
    ]
    return _validated(
        frame.drop("first_entry", "last_entry"),
        "time_order",
        expectations,
        "Look at the records in `details`; times are UTC.",
    )
