"""Turns come on time whatever single devices do, and what they bring is made durable or its loss is said aloud."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiops_assets.collectors.document import Fetched, Poll, document, point
from aiops_assets.collectors.outbox import DELIVERY_BYTES, Outbox, _Waiting, deliveries
from aiops_assets.collectors.scheduler import (
    LONGEST_BACK_OFF,
    PATIENCE,
    Collector,
    Pulse,
    Watch,
    back_off,
    jitter,
    next_turn,
    read_json,
    write_json,
)
from aiops_assets.collectors.snmp.engine import Reply
from aiops_assets.collectors.snmp.window import Window
from aiops_assets.config import Config, Device
from aiops_assets.landing.reader import read_segment
from aiops_assets.landing.segment import Delivery
from aiops_assets.landing.writer import LandingFull, SegmentWriter

names = st.text(min_size=1, max_size=40)
intervals = st.floats(1, 86_400)


@given(names, intervals)
def test_jitter_lies_in_the_interval_and_is_always_the_same(name: str, interval: float) -> None:
    assert 0 <= jitter(name, interval) < interval
    assert jitter(name, interval) == jitter(name, interval)


@given(names, intervals, st.floats(0, 2e9))
def test_the_next_turn_is_ahead_by_at_most_an_interval_and_in_phase(name: str, interval: float, now: float) -> None:
    turn = next_turn(now, name, interval)
    assert now < turn + 1e-6
    assert turn - now <= interval + 1e-6
    laps = (turn - jitter(name, interval)) / interval
    assert laps == pytest.approx(round(laps), abs=1e-3)


@given(st.integers(0, 10_000), intervals)
def test_back_off_grows_and_is_bounded(failures: int, interval: float) -> None:
    wait = back_off(failures, interval)
    assert interval <= wait <= max(interval, LONGEST_BACK_OFF)
    assert back_off(failures + 1, interval) >= wait
    if failures < PATIENCE:
        assert wait == interval


class Stub:
    """A poller in the test's hand."""

    kind = "snmp"
    source = "snmp"

    def __init__(self, name: str, poll: Callable[[], Any], interval: float = 0.05, deadline: float = 5.0) -> None:
        self.name, self.interval, self.deadline = name, interval, deadline
        self._poll = poll
        self.closed = False

    async def poll(self) -> Poll:
        return await self._poll()

    def state(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        self.closed = True


async def eventually(condition: Callable[[], object]) -> None:
    """Wait, at most ten seconds, for a condition."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


class Reports(list[dict[str, Any]]):
    """Documents as they are reported."""

    def put(self, source: str, body: bytes) -> None:
        self.append(orjson.loads(body))

    def deliver(self, source: str, fetched: Sequence[Fetched], delivered: Callable[[], None] | None) -> None:
        raise AssertionError("these pollers fetch nothing")

    def of(self, name: str) -> list[dict[str, Any]]:
        return [entry for entry in self if entry["host"] == name]

    async def reach(self, name: str, count: int) -> None:
        await eventually(lambda: len(self.of(name)) >= count)


async def fine() -> Poll:
    return Poll(up=True, points=[point("m", 1.0, "1")])


async def silent() -> Poll:
    return Poll(error="no reply")


async def stuck() -> Poll:
    await asyncio.Event().wait()
    raise AssertionError


def up(entry: dict[str, Any]) -> float:
    assert entry["points"][0]["metric"] == "aiops.device.up"
    return float(entry["points"][0]["value"])


def test_a_stuck_device_misses_turns_that_are_counted_and_the_others_none() -> None:
    async def scene() -> None:
        reports = Reports()
        slow, quick = Watch(Stub("slow", stuck), reports), Watch(Stub("quick", fine), reports)
        slow.start(0)
        quick.start(0)
        await reports.reach("quick", 6)
        assert slow.skipped >= 3
        assert quick.skipped == 0
        assert quick.status()["ok"]
        assert reports.of("slow") == []
        await slow.stop()
        await quick.stop()

    asyncio.run(scene())


def test_a_poller_beyond_its_deadline_is_cut_and_called_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiops_assets.collectors.scheduler.GRACE_SECONDS", 0.05)

    async def scene() -> None:
        reports = Reports()
        watch = Watch(Stub("slow", stuck, interval=10, deadline=0.05), reports)
        watch.start(0)
        await reports.reach("slow", 1)
        assert up(reports[0]) == 0.0
        assert watch.status()["slow"]
        assert "cut after" in watch.status()["error"]
        await watch.stop()

    asyncio.run(scene())


def test_a_dead_device_is_tried_less_often_but_its_absence_reported_at_every_turn() -> None:
    async def scene() -> None:
        reports = Reports()
        watch = Watch(Stub("dead", silent), reports)
        watch.start(0)
        await reports.reach("dead", 12)
        assert {up(entry) for entry in reports} == {0.0}
        assert watch.polls < 9
        stamps = [entry["ts"] for entry in reports]
        assert stamps == sorted(set(stamps))
        await watch.stop()

    asyncio.run(scene())


def test_a_device_that_comes_back_is_polled_at_its_interval_again() -> None:
    answers = iter([silent] * 4)

    async def recovering() -> Poll:
        return await next(answers, fine)()

    async def scene() -> None:
        reports = Reports()
        watch = Watch(Stub("d", recovering), reports)
        watch.start(0)
        await eventually(lambda: watch.ok)
        assert watch.failures == 0
        polls = watch.polls
        await reports.reach("d", len(reports) + 3)
        assert watch.polls >= polls + 3
        await watch.stop()

    asyncio.run(scene())


def test_a_poller_that_raises_is_down_with_the_reason_and_polled_again() -> None:
    async def broken() -> Poll:
        raise KeyError("oops")

    async def scene() -> None:
        reports = Reports()
        watch = Watch(Stub("d", broken), reports)
        watch.start(0)
        await reports.reach("d", 2)
        assert "KeyError" in watch.status()["error"]
        await watch.stop()

    asyncio.run(scene())


def test_an_overloaded_collector_leaves_turns_out_instead_of_calling_devices_dead() -> None:
    async def scene() -> None:
        reports = Reports()
        queued = 0.0
        pulse = Pulse(lambda: queued)
        watch = Watch(Stub("d", fine), reports, pulse)
        watch.start(0)
        await reports.reach("d", 1)
        queued = 5.0
        polls = watch.polls
        await eventually(lambda: pulse.left_out >= 3)
        assert watch.polls == polls
        assert watch.skipped >= 3
        assert {up(entry) for entry in reports} == {1.0}
        queued = 0.0
        await reports.reach("d", len(reports) + 1)
        await watch.stop()

    asyncio.run(scene())


def test_a_clock_set_back_neither_stops_turns_nor_repeats_an_instant() -> None:
    async def scene() -> None:
        reports = Reports()
        clock = [1_000_000.0]

        def now() -> float:
            clock[0] += 0.01
            return clock[0]

        watch = Watch(Stub("d", fine), reports, clock=now)
        watch.start(0)
        await reports.reach("d", 2)
        clock[0] -= 3_600
        await reports.reach("d", 5)
        stamps = [entry["ts"] for entry in reports]
        assert stamps == sorted(set(stamps))
        await watch.stop()

    asyncio.run(scene())


class SilentEngine:
    """An engine whose devices never answer."""

    def session(self, device: Device) -> SilentEngine:
        return self

    version = "2c"

    async def get_next(self, oids: Any) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    get = get_next

    async def get_bulk(self, non_repeaters: int, repetitions: int, oids: Any) -> Reply:
        return await self.get_next(oids)

    def close(self) -> None: ...


def config(*names_: str, host: bool = False, **fields: Any) -> Config:
    return Config.model_validate(
        {
            "collect": {"host": {"enabled": host}},
            "devices": [{"name": name, "address": "192.0.2.1"} | fields for name in names_],
        }
    )


def test_watches_follow_the_configuration(tmp_path: Path) -> None:
    async def scene() -> None:
        with SegmentWriter(tmp_path, "collector", max_bytes=1 << 20, max_age_seconds=1) as writer:
            collector = Collector(Outbox(writer), SilentEngine, host_name="here")  # type: ignore[arg-type]
            await collector.apply(config("a", "b", host=True))
            assert set(collector.status()) == {"a", "b", "here"}
            kept, changed = collector.watches["snmp", "a"][1], collector.watches["snmp", "b"][1]
            await collector.apply(
                Config.model_validate(
                    {
                        "collect": {"host": {"enabled": False}},
                        "devices": [
                            {"name": "a", "address": "192.0.2.1"},
                            {"name": "b", "address": "192.0.2.2"},
                            {"name": "c", "address": "192.0.2.3"},
                        ],
                    }
                )
            )
            assert set(collector.status()) == {"a", "b", "c"}
            assert collector.watches["snmp", "a"][1] is kept
            assert collector.watches["snmp", "b"][1] is not changed
            await collector.finish(0)

    asyncio.run(scene())


def test_the_document_always_says_whether_the_device_answered_and_keeps_a_series_once() -> None:
    outcome = Poll(up=True, points=[point("m", 1.0, "1", labels={"a": "b"}), point("m", 2.0, "1", labels={"a": "b"})])
    made = document("h", "snmp", 5, outcome, 0.25)
    assert [(p["metric"], p["value"]) for p in made["points"]] == [
        ("aiops.device.up", 1.0),
        ("aiops.device.poll.duration", 0.25),
        ("m", 1.0),
    ]
    assert "entity" not in made
    assert "changes" not in made


# --- the window -----------------------------------------------------------------------------------------------------


def test_a_window_lets_so_many_through_and_the_unanswered_do_not_hold_it() -> None:
    async def scene() -> None:
        window = Window(2, hold_seconds=0.05)
        never = asyncio.Event()
        lost = [asyncio.create_task(window.through(never.wait)) for _ in range(2)]
        await asyncio.sleep(0)

        async def answer() -> int:
            return 7

        assert window.delay == 0.0
        async with asyncio.timeout(2):
            assert await window.through(answer) == 7
        never.set()
        await asyncio.gather(*lost)

    asyncio.run(scene())


def test_a_window_survives_cancelled_waiters() -> None:
    async def scene() -> None:
        window = Window(1, hold_seconds=10)
        gate = asyncio.Event()
        first = asyncio.create_task(window.through(gate.wait))
        waiting = [asyncio.create_task(window.through(gate.wait)) for _ in range(5)]
        await asyncio.sleep(0)
        for task in waiting[:3]:
            task.cancel()
        await asyncio.sleep(0.01)
        assert window.delay > 0
        gate.set()
        async with asyncio.timeout(2):
            await asyncio.gather(first, *waiting, return_exceptions=True)
        assert window.delay == 0.0

    asyncio.run(scene())


# --- the outbox -----------------------------------------------------------------------------------------------------


def landed(root: Path) -> list[Delivery]:
    folder = root / "collector"
    return [d for path in sorted(folder.glob("*.seg")) for d in read_segment(folder, int(path.stem)).deliveries]


@given(
    st.lists(st.tuples(st.sampled_from(["host", "snmp"]), st.integers(1, DELIVERY_BYTES)), max_size=12),
)
def test_documents_are_delivered_once_each_in_order_and_by_source(entries: list[tuple[str, int]]) -> None:
    documents = [
        _Waiting(source, orjson.dumps({"n": n, "pad": "x" * size}), n) for n, (source, size) in enumerate(entries)
    ]
    made = deliveries(documents)
    for source in ("host", "snmp"):
        numbers = [entry["n"] for d in made if d.source == source for entry in orjson.loads(d.body)]
        assert numbers == [n for n, (s, _) in enumerate(entries) if s == source]
    assert len({d.delivery_id for d in made}) == len(made)
    assert all(d.headers == {"format": "collected"} for d in made)


def test_documents_of_a_moment_share_one_append(tmp_path: Path) -> None:
    async def scene() -> None:
        writer = SegmentWriter(tmp_path, "collector", max_bytes=1 << 20, max_age_seconds=60)
        outbox = Outbox(writer, gather_seconds=0.05)
        runner = asyncio.create_task(outbox.run())
        for n in range(10):
            outbox.put("snmp", b'{"n":%d}' % n)
        await outbox.close(runner)
        assert outbox.written == 10

    asyncio.run(scene())
    (delivery,) = landed(tmp_path)
    assert [entry["n"] for entry in orjson.loads(delivery.body)] == list(range(10))


class FullWriter(SegmentWriter):
    """A writer on a disk that is full for a while."""

    full = True

    def append(self, records: Any) -> None:
        if self.full:
            raise LandingFull("no space left on device")
        super().append(records)


def test_a_full_disk_keeps_what_fits_gives_up_the_oldest_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("aiops_assets.collectors.outbox.RETRY_SECONDS", 0.02)

    async def scene() -> Outbox:
        writer = FullWriter(tmp_path, "collector", max_bytes=1 << 20, max_age_seconds=60)
        outbox = Outbox(writer, max_bytes=50, gather_seconds=0.01)
        runner = asyncio.create_task(outbox.run())
        outbox.put("snmp", b'{"n": 0}')
        await eventually(lambda: outbox.blocked)
        for n in range(1, 20):
            outbox.put("snmp", b'{"n":%2d}' % n)
        await eventually(lambda: outbox.waiting <= 6)
        assert outbox.blocked == "no space left on device"
        writer.full = False
        await eventually(lambda: outbox.waiting == 0)
        await outbox.close(runner)
        return outbox

    outbox = asyncio.run(scene())
    kept = [entry["n"] for d in landed(tmp_path) for entry in orjson.loads(d.body)]
    assert kept == list(range(20 - len(kept), 20))
    assert outbox.dropped == 20 - len(kept) > 0
    assert outbox.blocked is None
    assert "refuses: no space left on device" in caplog.text
    assert "takes documents again" in caplog.text


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff"])
def test_a_damaged_state_file_counts_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.json").write_bytes(content)
    assert read_json(tmp_path / "state.json") == {}


def test_state_survives_its_file(tmp_path: Path) -> None:
    write_json(tmp_path / "state.json", {"a": {"b": [1, 2.5, None]}})
    assert read_json(tmp_path / "state.json") == {"a": {"b": [1, 2.5, None]}}
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
