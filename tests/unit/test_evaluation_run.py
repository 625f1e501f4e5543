"""A small storm through the live path in process: found, paged, the same at every pace and in the live store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from aiops_assets.cli import app
from aiops_assets.config import load_config
from aiops_assets.evaluation.passage import read_passage, stored_incidents
from aiops_assets.evaluation.report import write
from aiops_assets.evaluation.storm import Evaluation, begins_at, evaluate, evaluate_storm, score_home
from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.settings import Settings
from aiops_assets.synthetic.storms.scenario import Scenario, parse_scenario
from aiops_assets.synthetic.storms.truth import truth

MINUTE = 60 * MICROS_PER_SECOND


def small(**more: Any) -> Scenario:
    """A web server and its database, whose disk fills; the web server falls silent later."""
    document = {
        "name": "small",
        "title": "A disk fills, a host falls silent",
        "duration": "40m",
        "flush": "30s",
        "services": {"shop": {}},
        "hosts": {
            "web": {"name": "web-1", "service": "shop", "profiles": ["lean"], "interval": "30s"},
            "db": {"name": "db-1", "profiles": ["lean"], "interval": "30s"},
        },
        "faults": [
            {"id": "disk", "kind": "disk_filling", "target": "db-1", "start": "4m", "ramp": "8m"},
            {"id": "silence", "kind": "silent_host", "target": "web-1", "start": "20m", "lasts": "12m"},
        ],
    }
    return parse_scenario(document | more)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, Path]:
    home = tmp_path_factory.mktemp("storm") / "home"
    return evaluate(small(), home=home), home


def test_both_faults_are_found_and_paged_in_incidents_of_their_own(done: tuple[Evaluation, Path]) -> None:
    score = done[0].score
    by_id = {fault.fault.fault_id: fault for fault in score.faults}
    assert score.problems == ()
    assert score.recall == score.recall_paged == 1.0
    # 0.41 to 0.994 in eight minutes: 0.90 is reached after 6 min 44 s, the rule waits for 30 s more.
    disk = by_id["disk"]
    assert disk.delay is not None
    assert 7 * 60 <= disk.delay <= 8 * 60 + 30
    # The rule waits for five minutes of silence, counted from the last sample.
    silence = by_id["silence"]
    assert silence.delay is not None
    assert 5 * 60 - 30 <= silence.delay <= 7 * 60
    assert (disk.rank, silence.rank) == (1, 1)
    assert (score.grouping.precision, score.grouping.recall) == (1.0, 1.0)
    assert score.alerts.wrong == 0
    assert score.volume.points > 1_000


def test_incidents_by_event_time_are_those_of_the_live_store(done: tuple[Evaluation, Path]) -> None:
    live = stored_incidents(Settings(home=done[1]))
    rehearsed = done[0].passage.incidents
    columns = ["incident_id", "hosts", "priority", "started_at"]
    assert live.select(columns).rows() == rehearsed.select(columns).rows()
    members = [sorted(ids) for ids in live["alert_ids"]]
    assert members == [sorted(ids) for ids in rehearsed["alert_ids"]]


def test_what_a_home_holds_can_be_scored_again(done: tuple[Evaluation, Path]) -> None:
    scenario = small()
    known = truth(scenario, begins_at(scenario), scenario.seed)
    again, _ = score_home(Settings(home=done[1]), known)
    first = done[0].score
    assert [fault.found_at for fault in again.faults] == [fault.found_at for fault in first.faults]
    assert again.pages.total == 0
    assert load_config(Settings(home=done[1]).paths.config).collect.host.enabled


def test_neither_pace_nor_place_changes_what_is_decided(done: tuple[Evaluation, Path]) -> None:
    slow = evaluate(small(), batch=5 * MINUTE)
    decided = ["alert_id", "revision", "state", "changed_at", "starts_at"]

    def log(evaluation: Evaluation) -> pl.DataFrame:
        return evaluation.passage.alerts.select(decided).sort(decided)

    assert log(slow).rows() == log(done[0]).rows()
    assert slow.passage.pages.rows() == done[0].passage.pages.rows()


def test_another_seed_is_another_storm_with_the_same_faults() -> None:
    first = evaluate(small(duration="14m", faults=small().model_dump(by_alias=True)["faults"][:1]), seed=5)
    assert first.score.seed == 5
    assert first.score.recall == 1.0


def test_a_home_with_data_in_it_is_left_alone(done: tuple[Evaluation, Path]) -> None:
    before = read_passage(Settings(home=done[1]), start=0, end=1).alerts.height
    with pytest.raises(ValueError, match="has data in it"):
        evaluate_storm(small(), home=done[1])
    assert read_passage(Settings(home=done[1]), start=0, end=1).alerts.height == before


def test_everything_is_written_for_those_who_would_rather_look(done: tuple[Evaluation, Path], tmp_path: Path) -> None:
    files = write([done[0]], tmp_path / "out")
    names = {path.relative_to(tmp_path / "out").as_posix() for path in files}
    assert names == {"index.html", "scores.json"} | {
        f"small/{name}"
        for name in ("truth.json", "score.json", "timeline.svg", "alerts.parquet", "incidents.parquet", "pages.parquet")
    }
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "small: 2 of 2 faults found" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert not list((tmp_path / "out").rglob(".*"))
    # What was written can be scored with the truth that lies beside it.
    theirs = pl.read_parquet(tmp_path / "out" / "small" / "alerts.parquet").filter(pl.col("revision") == 0)
    table = tmp_path / "theirs.csv"
    theirs.select("host", "metric", pl.col("changed_at").dt.epoch("us").alias("fired_at")).write_csv(table)
    truth_file = tmp_path / "out" / "small" / "truth.json"
    arguments = ["evaluate", "storm", "--alerts", str(table), "--truth", str(truth_file), "--json"]
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 0, told.output
    assert '"found": 2' in told.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name a scenario"),
        (["no-such-storm"], "allowed"),
        (["--alerts", "x.csv"], "belong together"),
        (["--alerts", "x.csv", "--truth", "none.json"], "none.json"),
    ],
)
def test_a_wrong_call_says_what_would_be_right(arguments: list[str], words: str) -> None:
    told = CliRunner().invoke(app, ["evaluate", "storm", *arguments])
    assert told.exit_code == 2
    assert words in " ".join(str(told.exception or told.output).split()) + told.output
