"""The micro-batch pipeline over a temporary home: exactly once, restartable anywhere, honest about what it refuses."""

from __future__ import annotations

import gzip
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND, hour_key
from aiops_assets.incidents.store import IncidentStore
from aiops_assets.landing.quarantine import Quarantine
from aiops_assets.landing.segment import Delivery
from aiops_assets.landing.writer import SegmentWriter
from aiops_assets.live.pipeline import Pipeline
from aiops_assets.settings import Settings
from tests.examples import examples

NOW = time.time_ns() // 1000
HOUR = NOW - NOW % MICROS_PER_HOUR - 2 * MICROS_PER_HOUR


class Sender:
    """Writes deliveries in the ``collected`` format to the landing zone of a home, one segment a call."""

    def __init__(self, home: Path, writer: str = "gateway") -> None:
        self._root, self._writer = home / "landing", writer
        self._number = 0

    def send(self, *documents: dict[str, Any], source: str = "test", received_at: int | None = None) -> None:
        with SegmentWriter(self._root, self._writer, max_bytes=1 << 20, max_age_seconds=60) as writer:
            self._number += 1
            at = (
                max(document["ts"] for document in documents) + MICROS_PER_SECOND
                if received_at is None
                else received_at
            )
            body = orjson.dumps(list(documents))
            writer.append_deliveries(
                [Delivery(f"d{self._number}", at, source, "application/json", body, {"format": "collected"})]
            )


def cpu(ts: int, value: float = 0.5, host: str = "web-1", **labels: str) -> dict[str, Any]:
    point = {"metric": "app.load", "value": value, "unit": "1", "kind": "gauge", "labels": labels}
    return {"host": host, "ts": ts, "points": [point]}


def disk(ts: int, value: float, host: str = "db-1") -> dict[str, Any]:
    point = {"metric": "system.filesystem.utilization", "value": value, "unit": "1", "labels": {"mountpoint": "/"}}
    return {"host": host, "ts": ts, "points": [point]}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(home=tmp_path)
    settings.paths.create()
    return settings


def opened(settings: Settings) -> Pipeline:
    pipeline = Pipeline(settings)
    pipeline.open()
    return pipeline


def drain(pipeline: Pipeline) -> None:
    while pipeline.step() is not None:
        pass


@pytest.fixture
def sender(settings: Settings) -> Iterator[Sender]:
    yield Sender(settings.home)


def stored(pipeline: Pipeline) -> pl.DataFrame:
    return pipeline.lake.read("metric_points").sort("series_id", "ts")


def test_points_land_in_the_hour_of_their_own_timestamp(settings: Settings, sender: Sender) -> None:
    sender.send(cpu(HOUR - 1), cpu(HOUR))
    pipeline = opened(settings)
    drain(pipeline)
    assert stored(pipeline)["hour"].to_list() == [hour_key(HOUR - 1), hour_key(HOUR)]


def test_a_repeated_delivery_is_stored_once_and_counted(settings: Settings, sender: Sender) -> None:
    sender.send(cpu(HOUR))
    sender.send(cpu(HOUR))
    pipeline = opened(settings)
    drain(pipeline)
    sender.send(cpu(HOUR), cpu(HOUR + 1))
    drain(pipeline)
    assert stored(pipeline).height == 2
    assert pipeline.progress.sources["test"].duplicates == 2


def test_another_value_for_a_stored_time_is_kept_in_quarantine(settings: Settings, sender: Sender) -> None:
    sender.send(cpu(HOUR, 0.5))
    pipeline = opened(settings)
    drain(pipeline)
    sender.send(cpu(HOUR, 0.7))
    drain(pipeline)
    assert stored(pipeline)["value"].to_list() == [0.5]
    (entry,) = Quarantine(settings.paths.quarantine).entries()
    assert "another value" in entry.reason
    assert b"0.7" in entry.content
    assert pipeline.progress.sources["test"].conflicts == 1


@pytest.mark.parametrize("crash_after", ["nothing closed", "an hour closed", "states lost"])
def test_a_crash_between_commits_repeats_and_loses_nothing(
    settings: Settings, sender: Sender, crash_after: str
) -> None:
    pipeline = opened(settings)
    if crash_after != "nothing closed":
        sender.send(*[disk(HOUR + n * MICROS_PER_SECOND, 0.5) for n in range(60)], received_at=NOW)
        drain(pipeline)
        pipeline.close()
        pipeline = opened(settings)
    sender.send(
        *[disk(HOUR + MICROS_PER_HOUR + n * MICROS_PER_SECOND, 0.93) for n in range(60)],
        received_at=HOUR + MICROS_PER_HOUR + 61 * MICROS_PER_SECOND,
    )
    drain(pipeline)
    before = (stored(pipeline), pipeline.lake.read("alerts").sort("alert_id", "revision"))
    del pipeline  # no close: the process died after the last commit
    if crash_after == "states lost":
        shutil.rmtree(settings.paths.live / "handover")
    pipeline = opened(settings)
    drain(pipeline)
    assert stored(pipeline).equals(before[0])
    assert pipeline.lake.read("alerts").sort("alert_id", "revision").equals(before[1])
    assert before[1].height == 1
    sender.send(disk(HOUR + MICROS_PER_HOUR + 90 * MICROS_PER_SECOND, 0.5))
    drain(pipeline)
    assert pipeline.lake.read("alerts").sort("revision")["state"].to_list() == ["firing", "resolved"]


def test_a_full_filesystem_becomes_one_alert_and_one_incident(settings: Settings, sender: Sender) -> None:
    pipeline = opened(settings)
    for n in range(12):
        at = NOW + n * 10 * MICROS_PER_SECOND
        sender.send(disk(at, 0.93), received_at=at)
        drain(pipeline)
    alerts = pipeline.lake.read("alerts")
    assert alerts["name"].to_list() == ["filesystem-almost-full"]
    assert alerts["state"].to_list() == ["firing"]
    store = IncidentStore(settings.paths.operations_url)
    (incident,) = store.list()
    assert "db-1" in incident.hosts


@pytest.mark.parametrize("reason", ["in the future", "in the past"])
def test_absurd_times_are_quarantined_with_their_reason(settings: Settings, sender: Sender, reason: str) -> None:
    ts = NOW + MICROS_PER_HOUR if reason == "in the future" else 86_400 * MICROS_PER_SECOND
    sender.send(cpu(ts), cpu(NOW), received_at=NOW)
    pipeline = opened(settings)
    drain(pipeline)
    assert stored(pipeline).height == 1
    (entry,) = Quarantine(settings.paths.quarantine).entries()
    assert reason in entry.reason


def test_series_beyond_the_limit_of_a_source_are_refused_visibly_and_kept(settings: Settings, sender: Sender) -> None:
    settings = settings.model_copy(update={"max_series_per_source": 3})
    sender.send(*[cpu(HOUR, host=f"h{n}") for n in range(10)])
    pipeline = opened(settings)
    drain(pipeline)
    assert stored(pipeline).height == 3
    assert pipeline.progress.sources["test"].refused_series == 7
    (entry,) = Quarantine(settings.paths.quarantine).entries()
    assert "series limit" in entry.reason
    assert len(orjson.loads(entry.content)) == 7
    sender.send(cpu(HOUR + 1, host="h0"))
    drain(pipeline)
    assert stored(pipeline).height == 4


def test_a_quarantined_series_returns_by_retry_once_there_is_room(settings: Settings, sender: Sender) -> None:
    tight = settings.model_copy(update={"max_series_per_source": 1})
    sender.send(cpu(HOUR, host="a"), cpu(HOUR, host="b"))
    pipeline = opened(tight)
    drain(pipeline)
    pipeline.close()
    with SegmentWriter(settings.paths.landing, "retry", max_bytes=1 << 20, max_age_seconds=60) as writer:
        assert Quarantine(settings.paths.quarantine).retry(writer) == 1
    pipeline = opened(settings)
    drain(pipeline)
    assert sorted(stored(pipeline)["host"]) == ["a", "b"]


@pytest.mark.parametrize("hostile", ["../../x", "'; drop table", "<script>alert(1)</script>", "a\\b", "ünïcode ☃"])
def test_hostile_names_are_stored_as_they_are_and_touch_nothing_else(
    settings: Settings, sender: Sender, hostile: str
) -> None:
    sender.send(cpu(HOUR, host=hostile, label=hostile))
    pipeline = opened(settings)
    drain(pipeline)
    assert stored(pipeline)["host"].to_list() == [hostile]
    folders = {path.name for path in settings.home.iterdir()}
    usual = {"lake", "landing", "quarantine", "logs", "live", "collector", "listener", "dagster", "keys"}
    assert folders <= usual | {name for name in folders if name.startswith("operations.db")}


def test_an_hour_closes_into_a_baseline_once_event_time_has_passed_it(settings: Settings, sender: Sender) -> None:
    pipeline = opened(settings)
    sender.send(*[cpu(HOUR + n * 60 * MICROS_PER_SECOND, n / 60) for n in range(60)])
    drain(pipeline)
    assert pipeline.lake.read("baselines").is_empty()
    sender.send(cpu(HOUR + MICROS_PER_HOUR + 121 * MICROS_PER_SECOND))
    drain(pipeline)
    (row,) = pipeline.lake.read("baselines").iter_rows(named=True)
    assert (row["count"], row["baseline_version"], row["hour"]) == (60, 1, hour_key(HOUR))
    assert row["mean"] == pytest.approx(29.5 / 60)


def test_late_rows_give_a_closed_hour_a_new_baseline_version(settings: Settings, sender: Sender) -> None:
    pipeline = opened(settings)
    sender.send(cpu(HOUR), cpu(HOUR + MICROS_PER_HOUR + 121 * MICROS_PER_SECOND))
    drain(pipeline)
    sender.send(cpu(HOUR + MICROS_PER_SECOND))
    drain(pipeline)
    for _ in range(6):
        pipeline.idle()
    versions = pipeline.lake.read("baselines", [hour_key(HOUR)]).sort("baseline_version")
    assert versions.select("baseline_version", "count").rows() == [(1, 1), (2, 2)]
    assert pipeline.progress.sources["test"].late == 1


def test_a_damaged_segment_stops_nobody_and_its_bytes_are_kept(settings: Settings, sender: Sender) -> None:
    sender.send(cpu(HOUR))
    sender.send(cpu(HOUR + 1))
    path = settings.paths.landing / "gateway" / "000000000001.seg"
    data = bytearray(path.read_bytes())
    data[-3] ^= 0xFF
    path.write_bytes(data)
    pipeline = opened(settings)
    drain(pipeline)
    assert stored(pipeline).height == 1
    (entry,) = Quarantine(settings.paths.quarantine).entries("landing")
    assert "checksum" in entry.reason
    assert any("damaged" in problem for problem in pipeline.progress.problems)


def test_a_missing_segment_is_an_alarm(settings: Settings, sender: Sender) -> None:
    for n in range(3):
        sender.send(cpu(HOUR + n))
    (settings.paths.landing / "gateway" / "000000000002.seg").unlink()
    pipeline = opened(settings)
    assert any("missing: [2]" in problem for problem in pipeline.progress.problems)


def test_a_mistake_in_aiops_yaml_is_told_and_changes_nothing(settings: Settings, sender: Sender) -> None:
    settings.paths.config.write_text("rules: []\n")
    pipeline = opened(settings)
    settings.paths.config.write_text("rules:\n  - name: broken\n    metric: m\n    kind: nonsense\n")
    sender.send(cpu(HOUR))
    drain(pipeline)
    assert stored(pipeline).height == 1
    assert any("aiops.yaml:4" in problem for problem in pipeline.progress.problems)


def test_a_rule_added_while_running_takes_effect(settings: Settings, sender: Sender) -> None:
    settings.paths.config.write_text("rules: []\n")
    pipeline = opened(settings)
    sender.send(cpu(NOW, 0.99))
    drain(pipeline)
    assert pipeline.lake.read("alerts").is_empty()
    settings.paths.config.write_text('rules:\n  - {name: hot, metric: app.load, op: ">", value: 0.9}\n')
    sender.send(cpu(NOW + MICROS_PER_SECOND, 0.99))
    drain(pipeline)
    assert pipeline.lake.read("alerts")["name"].to_list() == ["hot"]


def test_small_files_are_compacted_while_the_session_works(settings: Settings, sender: Sender) -> None:
    pipeline = opened(settings)
    for n in range(70):
        sender.send(cpu(HOUR + n))
        drain(pipeline)
    (part,) = pipeline.lake.partitions("metric_points")
    assert part.rows == 70
    assert part.files <= 10


def test_a_change_without_an_alert_reaches_a_running_incident(settings: Settings, sender: Sender) -> None:
    pipeline = opened(settings)
    for n in range(5):
        at = NOW + n * 10 * MICROS_PER_SECOND
        sender.send(disk(at, 0.99), received_at=at)
        drain(pipeline)
    at = NOW - 60 * MICROS_PER_SECOND
    deploy = {"ts": at, "kind": "deploy", "title": "shop 1.2 on db-1", "details": {}}
    sender.send({"host": "db-1", "ts": NOW + 60 * MICROS_PER_SECOND, "points": [], "changes": [deploy]})
    drain(pipeline)
    assert pipeline.lake.read("changes")["title"].to_list() == ["shop 1.2 on db-1"]
    store = IncidentStore(settings.paths.operations_url)
    (incident,) = store.list()
    assert [suspect.title for suspect in store.get(incident.incident_id).suspects] == ["shop 1.2 on db-1"]


FORMAT = st.sampled_from(["telegraf", "generic", "collected", "nonsense", ""])
TEMPLATES = [
    b"cpu,host=a usage_idle=90,usage_user=5i 1790000000000000000\n",
    b'{"metrics":[{"name":"m","tags":{"host":"h"},"fields":{"x":1.5},"timestamp":1790000000}]}',
    b'[{"host":"h","metric":"m","value":NaN},{"host":"h","metric":"m","value":2,"ts":"2026-09-21T00:00:00Z"}]',
    b'{"host":"../../x","ts":1790000000000000,"points":[{"metric":"\'; drop table","value":1e999}]}',
    gzip.compress(b"m,host=<script> v=1 1790000000000000000"),
    b"\xff\xfe\x00m v=1",
]


@st.composite
def hostile_bodies(draw: st.DrawFn) -> bytes:
    """Random bytes, or a valid payload cut, doubled or with bytes changed."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=300))
    body = bytearray(draw(st.sampled_from(TEMPLATES)))
    for _ in range(draw(st.integers(0, 4))):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return bytes(body[: draw(st.integers(0, len(body)))]) * draw(st.integers(1, 2))


@settings_of_hypothesis(max_examples=examples(20), deadline=None)
@given(bodies=st.lists(st.tuples(FORMAT, hostile_bodies()), min_size=1, max_size=12))
def test_every_hostile_delivery_ends_as_rows_or_in_quarantine(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[tuple[str, bytes]]
) -> None:
    settings = Settings(home=tmp_path_factory.mktemp("hostile"))
    settings.paths.create()
    with SegmentWriter(settings.paths.landing, "gateway", max_bytes=1 << 20, max_age_seconds=60) as writer:
        for number, (name, body) in enumerate(bodies):
            received = NOW + number * MICROS_PER_SECOND
            delivery = Delivery(f"d{number}", received, "test", "", body, {"format": name} if name else {})
            writer.append_deliveries([delivery])
    pipeline = opened(settings)
    drain(pipeline)
    rows = stored(pipeline)
    received_with_rows = set(rows["received_at"].dt.epoch("us")) | set(
        pipeline.lake.read("changes")["received_at"].dt.epoch("us")
    )
    quarantined = {entry.delivery_id for entry in Quarantine(settings.paths.quarantine).entries()}
    repeated = pipeline.progress.sources["test"].duplicates
    for number in range(len(bodies)):
        accounted = f"d{number}" in quarantined or NOW + number * MICROS_PER_SECOND in received_with_rows
        assert accounted or repeated, bodies[number]
    assert rows["value"].is_finite().all()
    assert rows.select("series_id", "ts").is_unique().all()
