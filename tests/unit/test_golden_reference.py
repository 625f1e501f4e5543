"""Reading real incidents: layouts, unknown values, times, mappings, and errors that say what to do."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from aiops_assets.settings import load_settings
from aiops_assets.synthetic.golden.reference import FIELDS, ReferenceProblem, digest, known, read

LOG = """number,incident_state,reassignment_count,reopen_count,sys_mod_count,made_sla,caller_id,opened_at,\
sys_updated_at,contact_type,location,category,subcategory,cmdb_ci,impact,urgency,priority,assignment_group,assigned_to,closed_code,\
resolved_at,closed_at
INC1,New,0,0,0,TRUE,Caller 1,29-02-2016 06:10,29-02-2016 06:26,Phone,Location 2,Category 20,?,?,2 - Medium,2 - Medium,\
3 - Moderate,?,?,code 1,01-03-2016 02:55,06-03-2016 03:00
INC1,Active,0,0,1,TRUE,Caller 1,29-02-2016 06:10,29-02-2016 07:00,Phone,Location 2,Category 20,Sub 1,?,2 - Medium,\
2 - Medium,3 - Moderate,Group 70,?,code 1,01-03-2016 02:55,06-03-2016 03:00
INC1,Closed,2,1,9,FALSE,Caller 1,29-02-2016 06:10,06-03-2016 03:00,Phone,Location 2,Category 20,Sub 1,?,1 - High,\
2 - Medium,2 - High,Group 70,Resolver 3,code 1,01-03-2016 02:55,06-03-2016 03:00
INC2,Resolved,0,0,0,TRUE,Caller 2,01-03-2016 13:30,01-03-2016 13:30,Phone,?,Category 9,Sub 2,?,3 - Low,3 - Low,4 - Low,\
Group 1,?,?,?,06-03-2016 14:00
INC2,Closed,0,0,1,TRUE,Caller 2,01-03-2016 13:30,06-03-2016 14:00,Phone,?,Category 9,Sub 2,?,3 - Low,3 - Low,4 - Low,\
Group 1,?,?,?,06-03-2016 14:00
"""


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type,misc]


def written(folder: Path, text: str, name: str = "log.csv") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def test_the_last_row_of_an_event_log_is_the_state_of_its_incident(tmp_path: Path) -> None:
    frame = read(written(tmp_path, LOG))
    assert frame.columns == list(FIELDS)
    assert dict(frame.schema) == FIELDS
    first = frame.row(0, named=True)
    assert frame["incident_id"].to_list() == ["INC1", "INC2"]
    assert (first["impact"], first["urgency"], first["priority"]) == (1, 2, 2)
    assert (first["reassignment_count"], first["reopen_count"], first["update_count"]) == (2, 1, 9)
    assert first["made_sla"] is False
    assert first["assigned_to"] == "Resolver 3"
    assert first["opened_at"] == at(2016, 2, 29, 6, 10)
    assert first["resolved_at"] == at(2016, 3, 1, 2, 55)
    assert first["first_response_at"] == at(2016, 2, 29, 7, 0)


def test_question_marks_are_unknown(tmp_path: Path) -> None:
    second = read(written(tmp_path, LOG)).row(1, named=True)
    assert second["location"] is None
    assert second["assigned_to"] is None
    assert second["close_code"] is None
    assert second["configuration_item"] is None


def test_a_resolution_time_that_is_unknown_is_that_of_the_event(tmp_path: Path) -> None:
    assert read(written(tmp_path, LOG))["resolved_at"][1] == at(2016, 3, 1, 13, 30)


@pytest.mark.parametrize(
    "text",
    [
        "2025-03-01 08:09",
        "2025-03-01T08:09:00Z",
        "01/03/2025 08:09",
        "01.03.2025 08:09:00",
        "2025-03-01 10:09:00+02:00",
    ],
)
def test_usual_forms_of_times_are_read(tmp_path: Path, text: str) -> None:
    rest = text.replace("01", "13", 1) if "/" in text or "." in text else text
    frame = read(written(tmp_path, f"id,opened_at,category\n1,{text},Mail\n2,{rest},Mail\n"))
    assert frame["opened_at"][0] == at(2025, 3, 1, 8, 9)


def test_months_first_are_understood_when_days_first_cannot_be(tmp_path: Path) -> None:
    frame = read(written(tmp_path, "id,opened_at,category\n1,03/25/2025 08:09,Mail\n2,03/01/2025 08:09,Mail\n"))
    assert frame["opened_at"].to_list() == [at(2025, 3, 1, 8, 9), at(2025, 3, 25, 8, 9)]


def test_declared_columns_are_taken(tmp_path: Path) -> None:
    path = written(tmp_path, "nr,created,kind,prio\n1,2025-03-01 08:00,Mail,high\n2,2025-03-02 08:00,Net,low\n")
    frame = read(path, {"incident_id": "nr", "opened_at": "created", "category": "kind", "priority": "prio"})
    assert frame["priority"].to_list() == [2, 4]
    assert frame["category"].to_list() == ["Mail", "Net"]


def test_parquet_with_own_columns_is_read_as_it_is(tmp_path: Path) -> None:
    own = pl.DataFrame(
        {
            "incident_id": ["A", "B"],
            "opened_at": [at(2025, 1, 1), at(2025, 1, 2)],
            "category": ["x", "y"],
            "impact": [1, 3],
        }
    )
    own.write_parquet(tmp_path / "own.parquet")
    frame = read(tmp_path / "own.parquet")
    assert frame["impact"].to_list() == [1, 3]
    assert frame["opened_at"].to_list() == own["opened_at"].to_list()


@pytest.mark.parametrize(
    ("text", "columns", "said"),
    [
        ("id,category\n1,x\n", {}, "no column for opened_at"),
        ("id,opened_at,category\n1,yesterday,x\n", {}, "'yesterday'"),
        ("id,opened_at,category\n1,2025-01-01 00:00,x\n", {"category": "kind"}, "no column kind"),
        ("id,opened_at,category\n1,2025-01-01 00:00,x\n", {"colour": "category"}, "fields are incident_id"),
        ("id,opened_at,category\n1,?,x\n", {}, "no incident with a time of opening"),
    ],
)
def test_what_cannot_be_used_is_said_with_the_file(
    tmp_path: Path, text: str, columns: dict[str, str], said: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ReferenceProblem, match=said) as caught:
        read(path, columns)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReferenceProblem, match="there is no such file"):
        read(tmp_path / "gone.csv")


def test_fields_that_are_hardly_ever_known_are_not_counted(tmp_path: Path) -> None:
    frame = read(written(tmp_path, LOG))
    assert "configuration_item" not in known(frame)
    assert "category" in known(frame)


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    import hashlib

    path = written(tmp_path, LOG)
    assert digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_real_log_is_read_whole() -> None:
    path = load_settings().real_data / "itsm" / "incident_event_log.csv"
    if not path.is_file():
        pytest.skip(f"real data set {path} is absent")
    frame = read(path)
    assert frame["incident_id"].is_unique().all()
    assert frame["incident_id"].n_unique() == pl.read_csv(path, infer_schema=False)["number"].n_unique()
    assert frame["resolved_at"].null_count() == 0
    assert (frame["closed_at"] >= frame["resolved_at"]).all()
