"""``aiops storm`` end to end: played by the command into a landing zone and through a real gateway, read by parsers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import orjson
import yaml

from aiops_assets.formats import parse
from aiops_assets.landing.reader import numbers, read_segment, writers
from aiops_assets.landing.segment import Delivery
from aiops_assets.settings import Settings
from aiops_assets.synthetic.storms.scenario import load_scenario
from aiops_assets.synthetic.storms.truth import truth
from tests.gateway_process import served
from tests.storms import START, document, fault

#: ``START`` in words
FRIDAY = "2026-11-20T13:20Z"


def aiops(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aiops_assets.cli", *arguments],
        env={**os.environ, "AIOPS_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def scenario_file(folder: Path) -> Path:
    made = document(
        duration="3m",
        flush="30s",
        history={"span": "10m", "interval": "60s"},
        faults=[
            fault("bad_deploy", "web-1", start="1m", lasts="1m"),
            {**fault("psu_failure", "db-1", start="1m"), "id": "psu"},
        ],
    )
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(made))
    return path


def landed(home: Path) -> dict[str, list[Delivery]]:
    found: dict[str, list[Delivery]] = defaultdict(list)
    for writer in writers(home / "landing"):
        folder = home / "landing" / writer
        for seq in sorted(numbers(folder, ".seg")):
            for delivery in read_segment(folder, seq).deliveries:
                found[delivery.headers["format"]].append(delivery)
    return found


def rows(deliveries: dict[str, list[Delivery]]) -> dict[str, int]:
    """Points and events by format; nothing may be rejected."""
    counted = {}
    for name, found in deliveries.items():
        batch = parse(name, found)
        assert not batch.rejects
        counted[name] = batch.points.height + batch.logs.height + batch.errors.height + batch.changes.height
    return counted


def test_a_short_storm_goes_into_the_landing_zone_and_through_the_parsers(tmp_path: Path) -> None:
    home, file = tmp_path / "home", scenario_file(tmp_path)
    done = aiops(home, "storm", "run", str(file), "--to", "landing", "--as-history", "--start", FRIDAY, "--json")
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = orjson.loads(done.stdout)
    assert result["start"] == START
    found = landed(home)
    assert sum(map(len, found.values())) == result["deliveries"]
    counted = rows(found)
    assert counted["telegraf"] == result["formats"]["telegraf"]
    assert counted["syslog"] == result["formats"]["syslog"]
    assert {"telegraf", "collected", "syslog", "sentry_envelope", "redfish_event", "generic"} <= set(found)
    assert {one.source for part in found.values() for one in part} == {"storm-tiny"}
    told = truth(load_scenario(file), result["start"], result["seed"])
    read = parse("telegraf", found["telegraf"])
    series = set(read.series.select("host", "metric", "labels").iter_rows())
    shown = {(row.host, row.metric, row.labels) for row in told.affected if row.fault_id == "it"}
    assert shown
    assert shown <= series


def test_the_same_storm_through_a_real_gateway_leaves_the_same_rows_once(tmp_path: Path) -> None:
    home, file = tmp_path / "home", scenario_file(tmp_path)
    settings = Settings(home=home)
    settings.paths.create()
    with served(settings) as (url, key):
        key_file = tmp_path / "key"
        key_file.write_text(key)
        run = (
            "storm",
            "run",
            str(file),
            "--url",
            url,
            "--key-file",
            str(key_file),
            "--start",
            FRIDAY,
            "--json",
        )
        first = aiops(home, *run)
        assert first.returncode == 0, first.stderr
        again = aiops(home, *run, "--connections", "4")
        assert again.returncode == 0, again.stderr
    result: dict[str, Any] = orjson.loads(first.stdout)
    found = landed(home)
    # What is sent again has the same identities, so that it is stored once.
    once = {name: list({one.delivery_id: one for one in part}.values()) for name, part in found.items()}
    assert sum(map(len, once.values())) == result["deliveries"]
    counted = rows(once)
    assert counted["telegraf"] == result["formats"]["telegraf"]
    assert counted["sentry_envelope"] == result["formats"]["sentry_envelope"]
    history = [one for part in once.values() for one in part if one.headers.get("history") == "1"]
    assert history
    assert all(one.received_at > START for one in history)
