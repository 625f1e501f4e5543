"""Personal data goes out of incidents, consistently over columns, rows and frames, and nothing else changes."""

from __future__ import annotations

import polars as pl
from polars.testing import assert_frame_equal

from aiops_assets.privacy.detect import People, find
from aiops_assets.synthetic.golden.record import SCHEMA
from aiops_assets.synthetic.golden.sanitise import sanitised
from tests.golden_frames import plain

EMAIL = "karl.weber@contoso-mail.com"


def with_notes(frame: pl.DataFrame, author: str, note: str) -> pl.DataFrame:
    entry = pl.struct(written_at="opened_at", author=pl.lit(author), note=pl.lit(note))
    return frame.with_columns(pl.concat_list(entry, entry).cast(SCHEMA["work_notes"]).alias("work_notes"))


def test_clean_incidents_come_back_as_they_are() -> None:
    frame = plain(30)
    found = sanitised(frame, "salt")
    assert_frame_equal(found.frame, frame)
    assert (found.finds, found.rows) == ({}, 0)


def test_finds_are_replaced_alike_everywhere() -> None:
    frame = with_notes(plain(4), EMAIL, f"Mail to {EMAIL} sent, no answer.").with_columns(
        description=pl.when(pl.int_range(pl.len()) == 1).then(pl.lit(f"Write to {EMAIL}")).otherwise("description"),
        caller_id=pl.lit(EMAIL),
    )
    found = sanitised(frame, "salt")
    new = found.frame["caller_id"][0]
    assert new != EMAIL
    assert found.frame["description"][1] == f"Write to {new}"
    assert found.frame["work_notes"][3].to_list()[1]["note"] == f"Mail to {new} sent, no answer."
    assert {entry["author"] for entry in found.frame["work_notes"][0].to_list()} == {new}
    assert found.finds == {"email": 1 + 4 + 2 * 2 * 4}
    assert found.rows == 4
    assert found.frame["description"][0] == frame["description"][0]
    assert sanitised(frame.tail(1), "salt").frame["caller_id"][0] == new
    assert sanitised(frame.tail(1), "pepper").frame["caller_id"][0] != new
    assert find(found.frame["description"]).is_empty()


def test_everything_but_texts_stays_and_missing_columns_do_not_matter() -> None:
    frame = with_notes(plain(5), "mira.k", f"Ask {EMAIL}")
    found = sanitised(frame, "salt").frame
    assert_frame_equal(found.drop("work_notes"), frame.drop("work_notes"))
    assert found.schema == frame.schema
    assert (
        found["work_notes"]
        .list.eval(pl.element().struct.field("written_at"))
        .equals(frame["work_notes"].list.eval(pl.element().struct.field("written_at")))
    )
    part = sanitised(pl.DataFrame({"description": [EMAIL, None, "nothing"], "n": [1, 2, 3]}), "salt")
    assert part.frame["description"].to_list()[1:] == [None, "nothing"]
    assert part.finds == {"email": 1}
    assert sanitised(pl.DataFrame({"n": [1]}), "salt").rows == 0


def test_incidents_without_notes_and_empty_frames() -> None:
    none = plain(3).with_columns(work_notes=pl.lit([], SCHEMA["work_notes"]), description=pl.lit(EMAIL))
    found = sanitised(none, "salt")
    assert found.frame["work_notes"].list.len().to_list() == [0, 0, 0]
    assert found.finds == {"email": 3}
    assert sanitised(plain(0), "salt").frame.equals(plain(0))


def test_redaction_and_real_people() -> None:
    frame = plain(2).with_columns(description=pl.lit("zoltan qwertz hat angerufen"))
    people = People.of(["Zoltan Qwertz"])
    assert sanitised(frame, "salt").rows == 0
    assert sanitised(frame, "salt", people=people, redact=True).frame["description"][0] == "[person] hat angerufen"
