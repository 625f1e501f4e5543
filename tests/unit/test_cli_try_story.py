"""The story of ``aiops try``: marked, the same wherever it overlaps, ordinary until it begins, as fast as asked for."""

from __future__ import annotations

from collections.abc import Iterable

import orjson
import polars as pl
import pytest

from aiops_assets.cli.try_load import SOURCE, Outgoing
from aiops_assets.cli.try_story import Story, names_of_try, points_in, scenario_of_try, source_of_try
from aiops_assets.formats import parse
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND
from aiops_assets.landing.segment import Delivery
from aiops_assets.synthetic.storms.delivery import delivery_of
from aiops_assets.synthetic.storms.engine import Emission

S = MICROS_PER_SECOND
NOW = 1_760_000_000 * S
HOSTS = {"try-web-1", "try-web-2", "try-db-1"}


def points(emissions: Iterable[Emission]) -> pl.DataFrame:
    """host, metric, labels, ts, value of everything measured."""
    frames = []
    by_format: dict[str, list[Delivery]] = {}
    for emission in emissions:
        delivery = delivery_of(emission, emission.at, history=False)
        by_format.setdefault(emission.format, []).append(delivery)
    for name, deliveries in by_format.items():
        parsed = parse(name, deliveries)
        assert not parsed.rejects, (name, parsed.rejects[:1])
        series = parsed.series.with_row_index("series")
        frames.append(parsed.points.join(series, on="series").select("host", "metric", "labels", "ts", "value"))
    return pl.concat(frame for frame in frames if frame.height)


def test_everything_bears_the_mark_by_which_it_is_removed() -> None:
    assert source_of_try() == SOURCE
    assert set(Story().hosts) == HOSTS
    assert set(names_of_try()) >= {*HOSTS, "try-shop"}
    sent = [*Story().past(NOW, 0.1, NOW - MICROS_PER_HOUR), *Story().begun(NOW).due(NOW + 40 * S)]
    assert {emission.source for emission in sent} == {SOURCE}
    made = points(sent)
    assert set(made["host"]) == HOSTS
    assert all(orjson.loads(labels)["synthetic"] == "true" for labels in made["labels"].unique())


def test_histories_of_two_tries_agree_where_they_overlap_and_end_before_the_story() -> None:
    earlier, later = (points(Story().past(now, 0.1, now - 2 * MICROS_PER_HOUR)) for now in (NOW, NOW + 613 * S))
    key = ["host", "metric", "labels", "ts"]
    both = earlier.join(later, on=key, suffix="_later")
    assert both.height > 1_000
    assert both.filter(pl.col("value") != pl.col("value_later")).is_empty()
    assert earlier["ts"].max() < NOW  # type: ignore[operator]
    assert earlier.select(key).is_unique().all()


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (0, NOW - 86_400 * S),
        (NOW - 90_000 * S, NOW - 86_400 * S),
        (NOW - 1_500 * S, NOW - 1_200 * S),
        (NOW - 99 * S, NOW),
    ],
)
def test_a_later_try_adds_only_what_came_after_the_earlier_one(known: int, expected: int) -> None:
    begin = Story.begin_of_past(NOW, 1.0, known)
    assert begin == expected
    if begin < NOW:
        made = points(Story().past(NOW, 1.0, begin))
        assert made["ts"].min() >= known  # type: ignore[operator]


@pytest.mark.parametrize("speed", [0.5, 1.0, 4.0])
def test_the_disk_is_full_at_the_moment_told_and_only_the_hosts_of_the_story_suffer(speed: float) -> None:
    told = Story(speed).begun(NOW)
    assert (told.web, told.database) == ("try-web-1", "try-db-1")
    assert told.deployed_at == NOW + round(3 * S / speed)
    assert told.full_at == NOW + round(33 * S / speed)
    assert told.change == "try-shop 2.14.0 rolled out (synthetic)"
    made = points(told.due(told.full_at + 5 * S))
    before = made.filter(pl.col("ts") < told.deployed_at)
    after = made.filter(pl.col("ts") > told.full_at)
    disk = pl.col("metric") == "system.filesystem.utilization"
    full = pl.col("value") > 0.97
    assert before.filter(disk & full).is_empty()
    assert set(after.filter(disk & full)["host"]) == {"try-db-1"}
    errors = pl.col("metric") == "http.server.error.ratio"
    assert set(after.filter(errors & (pl.col("value") > 0.05))["host"]) == {"try-web-1"}


def test_what_is_due_goes_out_once_and_in_order() -> None:
    told = Story().begun(NOW)
    first, second = list(told.due(NOW + 5 * S)), list(told.due(NOW + 9 * S))
    assert list(told.due(NOW + 9 * S)) == []
    assert max(emission.at for emission in first) <= NOW + 5 * S < min(emission.at for emission in second)
    assert [emission.at for emission in second] == sorted(emission.at for emission in second)
    changes = [emission for emission in first if emission.format == "generic"]
    (change,) = parse("generic", [delivery_of(one, one.at, history=False) for one in changes]).changes.rows(named=True)
    assert (change["kind"], change["host"], change["service"]) == ("deploy", "try-web-1", "try-shop")


def test_points_are_counted_as_the_table_counts_them_and_events_are_not() -> None:
    sent = list(Story().begun(NOW).due(NOW + 20 * S))
    assert {emission.format for emission in sent} - {"telegraf", "collected"}
    assert sum(map(points_in, sent)) == points(sent).height
    assert sum(Outgoing.of(emission).points for emission in sent) == points(sent).height


def test_an_outgoing_delivery_is_posted_as_its_own_sender_would() -> None:
    sent = {emission.format: Outgoing.of(emission) for emission in Story().begun(NOW).due(NOW + 60 * S)}
    path, params, headers = sent["collected"].request("secret")
    assert (path, dict(params)) == ("/webhooks/collected", {"source": SOURCE})
    assert headers["Authorization"] == "Bearer secret"
    assert headers["Idempotency-Key"] == sent["collected"].key
    assert "X-Aiops-History" not in headers
    for name, outgoing in sent.items():
        assert outgoing.request("secret")[1]["source"] == SOURCE, name


def test_the_history_of_a_day_has_a_sample_a_minute_of_every_series() -> None:
    made = points(Story().past(NOW, 1.0, NOW - 86_400 * S))
    counts = made.group_by("host", "metric", "labels").len()
    assert counts["len"].min() == counts["len"].max() == 1_440
    assert scenario_of_try().source_name == SOURCE
