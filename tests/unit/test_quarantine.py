"""Quarantine keeps reasons and bytes, once, and gives them back."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from aiops_assets.landing.quarantine import Quarantine, QuarantineEntry
from aiops_assets.landing.reader import read_segment
from aiops_assets.landing.writer import SegmentWriter


def entry(
    content: bytes = b"cpu value=oops", seq: int = 1, offset: int = 0, source: str = "telegraf"
) -> QuarantineEntry:
    return QuarantineEntry(
        source, "bad field", content, "01ABC", 5, "text/plain", "telegraf", "gateway", seq, 0, offset
    )


@given(content=st.binary(max_size=200), reason=st.text(max_size=50))
def test_bytes_and_reason_survive_exactly(tmp_path_factory, content: bytes, reason: str) -> None:  # type: ignore[no-untyped-def]
    quarantine = Quarantine(tmp_path_factory.mktemp("quarantine"))
    kept = QuarantineEntry("s", reason, content, "id", 1, "text/plain", "generic", "gateway", 9, 2, 7)
    quarantine.record([kept])
    assert list(quarantine.entries()) == [kept]


def test_taking_a_segment_twice_keeps_one_copy(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path)
    for _ in range(2):
        quarantine.record([entry(offset=0), entry(offset=9)])
    assert quarantine.counts() == {"telegraf": {"bad field": 2}}


def test_retry_hands_the_bytes_back_to_the_landing_zone_and_retires_them(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "quarantine")
    quarantine.record([entry(b"first"), entry(b"second", source="other")])
    with SegmentWriter(_made(tmp_path / "landing"), "retry", max_bytes=1 << 20, max_age_seconds=1) as writer:
        assert quarantine.retry(writer, "telegraf") == 1
    assert quarantine.counts() == {"other": {"bad field": 1}}
    (delivery,) = read_segment(tmp_path / "landing" / "retry", 1).deliveries
    assert (delivery.body, delivery.source, delivery.headers["format"]) == (b"first", "telegraf", "telegraf")


def test_a_retried_segment_does_not_return_when_it_is_taken_again(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "quarantine")
    quarantine.record([entry()])
    with SegmentWriter(_made(tmp_path / "landing"), "retry", max_bytes=1 << 20, max_age_seconds=1) as writer:
        quarantine.retry(writer)
    quarantine.record([entry()])
    assert quarantine.counts() == {}


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
