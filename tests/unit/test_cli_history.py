"""The made-up hosts of ``aiops try``: marked, reproducible, ordinary until the story begins."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiops_assets.formats import parse
from aiops_assets.landing.segment import Delivery
from aiops_assets.synthetic.history import (
    DATABASE,
    DEPENDS_ON,
    DISK_FULL_AT,
    HOSTS,
    SIGNALS,
    WEB,
    deploy,
    history_documents,
    history_points,
    story,
    story_document,
    values,
    week,
)

NOW = 1_760_000_000_000_000


def _delivery(body: bytes, format_name: str) -> Delivery:
    return Delivery("d", NOW, "try", "application/json", body, {"format": format_name})


@given(st.sampled_from(SIGNALS), st.integers(0, 2_000), st.integers(1, 50))
def test_any_window_made_alone_agrees_with_the_whole(signal: object, start: int, length: int) -> None:
    ts = week(NOW, days=1.5)
    whole = values(signal, ts)  # type: ignore[arg-type]
    part = slice(start, start + length)
    assert np.array_equal(values(signal, ts[part]), whole[part])  # type: ignore[arg-type]


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: f"{signal.host} {signal.metric}")
def test_ordinary_values_are_possible_and_noisy(signal: object) -> None:
    made = values(signal, week(NOW))  # type: ignore[arg-type]
    assert np.isfinite(made).all()
    assert made.min() >= 0
    assert made.max() <= signal.most  # type: ignore[attr-defined]
    assert np.unique(made).size > len(made) * 0.9


def test_seeds_differ() -> None:
    ts = week(NOW, days=0.1)
    assert not np.array_equal(values(SIGNALS[0], ts, 1), values(SIGNALS[0], ts, 2))


def test_history_is_read_whole_is_marked_and_ends_before_now() -> None:
    bodies = list(history_documents(NOW, days=1))
    assert max(map(len, bodies)) < 1_000_000
    parsed = parse("collected", [_delivery(body, "collected") for body in bodies])
    assert parsed.points.height == history_points(1)
    assert not parsed.rejects
    assert parsed.points.select("series", "ts").is_unique().all()
    assert parsed.points["ts"].max() < NOW  # type: ignore[operator]
    assert set(parsed.series["host"]) == set(HOSTS)
    assert all(orjson.loads(labels)["synthetic"] == "true" for labels in parsed.series["labels"])
    needs = {row["name"]: tuple(row["depends_on"]) for row in parsed.entities.iter_rows(named=True)}
    assert needs == dict(DEPENDS_ON)


def test_the_disk_is_full_in_time_and_only_the_hosts_of_the_story_suffer() -> None:
    for signal in SIGNALS:
        assert story(signal, 0.0, 0.5) == 0.5
        late = story(signal, DISK_FULL_AT, signal.level)
        if signal.host == DATABASE and signal.metric == "system.filesystem.utilization":
            assert 0.97 < late < 1
        if signal.host not in {WEB, DATABASE}:
            assert late == signal.level


def test_the_story_is_sent_in_formats_that_the_platform_reads() -> None:
    body, points = story_document(NOW, NOW + 20_000_000)
    parsed = parse("collected", [_delivery(body, "collected")])
    assert parsed.points.height == points == len(SIGNALS)
    changes = parse("generic", [_delivery(orjson.dumps(deploy(NOW)), "generic")])
    assert not changes.rejects
    assert changes.changes.select("kind", "host", "service").rows() == [("deploy", WEB, "try-shop")]
