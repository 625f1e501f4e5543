"""The drill: back up an installation while it works, restore it onto an empty home, look at all of it, go on working.

What the restored home must be: one moment of the original, whole, from which the live session goes on exactly once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from aiops_assets.backup.capture import back_up
from aiops_assets.backup.restore import restore
from aiops_assets.hours import MICROS_PER_HOUR
from aiops_assets.incidents.store import IncidentStore
from aiops_assets.lake.tables import Lake
from aiops_assets.landing.reader import gaps, numbers, writers
from aiops_assets.landing.segment import SEALED
from aiops_assets.live.pipeline import Pipeline
from aiops_assets.replay.period import Period
from aiops_assets.replay.run import as_recorded
from aiops_assets.settings import Settings
from tests.home import MINUTE, document, drain, fill, home, points, send

START = time.time_ns() // 1000 // MICROS_PER_HOUR * MICROS_PER_HOUR - 8 * MICROS_PER_HOUR
MINUTES = 260
HOSTS = 8


class Installation:
    """A home with a writer and a live session at work in threads of their own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.sent = 0
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._guarded, args=(work,)) for work in (self._write, self._follow)]

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # told by ``finish``
            self._errors.append(error)

    def _write(self) -> None:
        for minute in range(MINUTES):
            if self._stop.is_set():
                return
            ts = START + minute * MINUTE
            # Every hour one host is in trouble for twenty minutes, so that there are alerts and incidents.
            bad = minute % 60 in range(20, 40)
            rows = [document(f"web-{n}", ts + n, 0.99 if bad and n == 0 else 0.2 + n / 100) for n in range(HOSTS)]
            send(self.settings, rows, "gateway" if minute % 3 else "collector")
            self.sent = minute + 1

    def _follow(self) -> None:
        pipeline = Pipeline(self.settings)
        pipeline.open()
        while not self._stop.is_set():
            if pipeline.step() is None:
                if self.sent == MINUTES:
                    break
                self._stop.wait(0.005)
        pipeline.close()

    def __enter__(self) -> Installation:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def finish(self) -> None:
        """Wait for the writer and the session to be through."""
        for thread in self._threads:
            thread.join(180)
        assert self._errors == []


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = home(tmp_path / "origin")
    made.paths.config.write_text("rules: [{name: busy, metric: app.load, op: '>=', value: 0.9, for: 5m}]\n")
    return made


def table(settings: Settings, name: str, *keys: str) -> pl.DataFrame:
    return Lake(settings.paths.lake).read(name).sort(keys)


def test_a_backup_of_a_working_installation_is_a_moment_that_goes_on(settings: Settings, tmp_path: Path) -> None:
    backups = []
    with Installation(settings) as installation:
        for portion in (0.25, 0.5, 0.75):
            while installation.sent < MINUTES * portion:
                assert not installation._errors
                time.sleep(0.01)
            backups.append(back_up(settings, tmp_path / "backups").manifest)
    assert len({tuple(sorted(manifest.tables.items())) for manifest in backups}) == 3, "nothing moved meanwhile"
    origin = points(settings)
    heights = []
    for number, manifest in enumerate(backups):
        copy = Settings(home=tmp_path / f"copy-{number}")
        restored = restore(tmp_path / "backups", copy, manifest.backup_id, verify=True)
        assert restored.verification is not None
        assert restored.verification.clean, restored.verification.findings
        drain(copy)
        have = {writer: max(numbers(copy.paths.landing / writer, SEALED)) for writer in writers(copy.paths.landing)}
        assert all(gaps(copy.paths.landing / writer) == [] for writer in have)
        reached = pl.col("writer").replace_strict(have, default=0, return_dtype=pl.Int64)
        expected = origin.filter(pl.col("seq") <= reached)
        heights.append(expected.height)
        assert_frame_equal(points(copy), expected)
    # On a busy machine the last of them may begin when everything has been sent.
    assert 0 < heights[0] < origin.height
    assert heights == sorted(heights)
    # From the newest of them the rest of the work is done again, and comes out the same.
    copy = Settings(home=tmp_path / "copy-2")
    finish(copy, settings)
    assert_frame_equal(points(copy), origin)
    assert told(copy) == told(settings) != []
    # Every closed hour of the restored home comes out the same again.
    closed = Period(START, START + 24 * MICROS_PER_HOUR)
    again = as_recorded(copy, closed)
    assert again.hours > 0
    assert again.differences == []
    assert again.expired == {}
    # What was told of a moment opened an incident of its own in one home or the other.
    assert {state for _, state, _ in incidents(copy)} == {state for _, state, _ in incidents(settings)} != set()


def told(settings: Settings) -> list[tuple[object, ...]]:
    """What closed hours say about alerts: what was told of a moment and withdrawn since depends on the moment."""
    closed = Lake(settings.paths.lake).read("hour_receipts")["hour_start"].max()
    rows = table(settings, "alerts", "alert_id", "revision").unique("alert_id", keep="last").sort("alert_id")
    stands = rows.filter((pl.col("state") != "withdrawn") & (pl.col("starts_at") < closed))
    return stands.select("alert_id", "state", "starts_at", "ends_at", "value").rows()


def finish(copy: Settings, origin: Settings) -> None:
    """Hand the segments that the copy does not have to its landing zone, as their senders would, and take them."""
    for writer in writers(origin.paths.landing):
        have = max(numbers(copy.paths.landing / writer, SEALED), default=0)
        for path in sorted((origin.paths.landing / writer).glob(f"*{SEALED}")):
            if int(path.stem) > have:
                (copy.paths.landing / writer / path.name).write_bytes(path.read_bytes())
    drain(copy)


def incidents(settings: Settings) -> list[tuple[str, str, int]]:
    store = IncidentStore(settings.paths.operations_url)
    try:
        return sorted((i.incident_id, i.state, i.priority) for i in store.list())
    finally:
        store.close()


def test_a_restored_home_takes_nothing_twice_and_reuses_no_number(settings: Settings, tmp_path: Path) -> None:
    fill(settings, START, 70)
    drain(settings)
    back_up(settings, tmp_path / "backups")
    copy = Settings(home=tmp_path / "copy")
    restore(tmp_path / "backups", copy, verify=True)
    before = points(copy)
    for writer in writers(settings.paths.landing):
        folder = settings.paths.landing / writer
        newest = max(numbers(folder, SEALED))
        assert numbers(copy.paths.landing / writer, SEALED) == [newest]
    drain(copy)
    assert_frame_equal(points(copy), before)
    fill(copy, START + 70 * MINUTE, 5)
    drain(copy)
    assert points(copy).height == before.height + 15
    assert Lake(copy.paths.lake).taken("metric_points", ["gateway"]) == {"gateway": 75}
