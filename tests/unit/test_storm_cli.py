"""``aiops storm``: lists, truth, mistakes with their exit codes, and where a run begins."""

from __future__ import annotations

import time
from pathlib import Path

import orjson
import polars as pl
import pytest
import yaml
from typer.testing import CliRunner, Result

from aiops_assets.cli import app
from aiops_assets.landing.reader import numbers, read_segment
from tests.storms import SECOND, document, fault


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIOPS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def storm(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["storm", *arguments])


@pytest.fixture
def own(tmp_path: Path) -> str:
    path = tmp_path / "own.yaml"
    path.write_text(
        yaml.safe_dump(document(duration="2m", faults=[fault("slow_disk", "db-1", start="30s", lasts="1m")]))
    )
    return str(path)


def test_what_ships_is_listed_and_shown() -> None:
    listed = orjson.loads(storm("list", "--json").stdout)
    assert {"calm-week", "bad-deploy", "black-friday"} <= {row["name"] for row in listed}
    shown = storm("show", "bad-deploy")
    assert "try-web-1" in shown.stdout
    assert "disk_filling" in shown.stdout
    assert storm("show", "bad-deploy", "--yaml").stdout.startswith("#")


def test_a_scenario_with_mistakes_is_refused_with_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(document(faults=[fault("disk_fillign", "db-7")])))
    checked = storm("check", str(path))
    assert checked.exit_code == 2
    assert "faults.it.kind: unknown 'disk_fillign'; allowed: " in checked.stderr
    assert "faults.it.target: unknown 'db-7'; allowed: " in checked.stderr
    problems = orjson.loads(storm("check", str(path), "--json").stdout)
    assert len(problems["problems"]) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "no-such-storm"), "calm-week"),
        (("run", "bad-deploy", "--to", "nowhere"), "gateway and landing"),
        (("run", "bad-deploy", "--speed", "fast"), "60x"),
        (("run", "bad-deploy", "--start", "soon"), "6h-ago"),
        (("run", "bad-deploy", "--start", "2026-01-31T12:00"), "say the zone"),
        (("run", "bad-deploy", "--duration", "long"), "such as 30s"),
        (("run", "bad-deploy"), "there is no key"),
        (("run", "calm-week", "--to", "landing"), "add --as-history"),
    ],
)
def test_wrong_usage_says_what_is_allowed(arguments: tuple[str, ...], said: str) -> None:
    done = storm(*arguments)
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_storm_at_full_speed_ends_now_and_one_in_real_time_begins_now(own: str, home: Path) -> None:
    before = time.time_ns() // 1000
    done = storm("run", own, "--to", "landing", "--json")
    assert done.exit_code == 0, done.stderr
    result = orjson.loads(done.stdout)
    assert before - 122 * SECOND <= result["start"] <= time.time_ns() // 1000 - 119 * SECOND
    folder = home / "landing" / "storm"
    stored = [one for seq in numbers(folder, ".seg") for one in read_segment(folder, seq).deliveries]
    assert len(stored) == result["deliveries"]
    quick = orjson.loads(storm("run", own, "--to", "landing", "--speed", "1000x", "--duration", "20s", "--json").stdout)
    assert quick["start"] >= before - 22 * SECOND
    assert quick["deliveries"] < result["deliveries"]


def test_all_of_a_storm_can_be_marked_as_history(own: str, home: Path) -> None:
    assert storm("run", own, "--to", "landing", "--as-history", "--start", "6h-ago", "--json").exit_code == 0
    folder = home / "landing" / "storm"
    stored = [one for seq in numbers(folder, ".seg") for one in read_segment(folder, seq).deliveries]
    assert stored
    assert all(one.headers["history"] == "1" for one in stored)


def test_the_truth_is_a_table_json_or_parquet(own: str, tmp_path: Path) -> None:
    told = orjson.loads(storm("truth", own, "--start", "2026-11-20T13:20Z", "--json").stdout)
    assert told["faults"][0]["root"] == "tiny-db-1"
    done = storm("truth", own, "--start", "2026-11-20T13:20Z", "--out", str(tmp_path / "truth"))
    assert "tiny-db-1" in done.stdout
    assert pl.read_parquet(tmp_path / "truth" / "affected.parquet").height == len(told["affected"])
