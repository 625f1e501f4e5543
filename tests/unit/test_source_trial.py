"""`aiops sources test`: what a source would store, or the exact problem; nothing is stored."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aiops_assets.cli import app
from aiops_assets.settings import Settings
from aiops_assets.sources.trial import UnknownSource, try_source
from tests.home import document, home, send

NOW = time.time_ns() // 1000


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    made = home(tmp_path / "home")
    monkeypatch.setenv("AIOPS_HOME", str(made.paths.root))
    return made


def test_this_machine_is_fetched_and_shown(settings: Settings) -> None:
    trial = try_source(settings, "host")
    assert trial.ok
    assert "aiops.device.up" in trial.rows["metric_points"]["metric"].to_list()
    assert not any(settings.paths.landing.rglob("*.seg")), "nothing is stored"


def test_the_newest_delivery_of_a_pushed_source_is_read(settings: Settings) -> None:
    for number in range(3):
        send(settings, [document("web-1", NOW + number, float(number))], source="shop")
    send(settings, [document("db-1", NOW + 9, 9.0)], source="other")
    (settings.paths.config).write_text("sources: {shop: {format: collected}}\n")
    trial = try_source(settings, "shop")
    assert trial.rows["metric_points"].select("host", "value").rows() == [("web-1", 2.0)]


def test_a_payload_is_read_as_its_source_would_be(settings: Settings, tmp_path: Path) -> None:
    body = tmp_path / "body.lp"
    body.write_text("cpu,host=web-1 usage_idle=90 1760000000000000000\nnonsense\n")
    trial = try_source(settings, "telegraf", body)
    assert trial.rows["metric_points"].height == 1
    assert len(trial.rejects) == 1 and not trial.ok


def test_a_source_that_never_delivered_says_how_to_point_a_sender_here(settings: Settings) -> None:
    trial = try_source(settings, "telegraf", gateway="http://10.0.0.5:9000")
    assert trial.problem == "nothing of the source telegraf has arrived lately"
    assert "http://10.0.0.5:9000/webhooks/telegraf" in trial.next_step


def test_a_device_that_does_not_answer_is_the_exact_problem(settings: Settings) -> None:
    settings.paths.config.write_text(
        "devices: [{name: gone, address: '127.0.0.1:1', timeout: 100ms, retries: 0, deadline: 1s}]\n"
    )
    trial = try_source(settings, "gone")
    assert trial.problem
    assert trial.rows["metric_points"]["value"][0] == 0.0, "that it is down is what would be stored"


def test_an_unknown_name_lists_those_there_are(settings: Settings) -> None:
    with pytest.raises(UnknownSource, match=r"there is no source 'nobody'; there are .*telegraf"):
        try_source(settings, "nobody")


def test_the_command_prints_tables_or_one_document(settings: Settings) -> None:
    send(settings, [document("web-1", NOW, 0.5)], source="generic")
    shown = CliRunner().invoke(app, ["sources", "test", "generic"])
    assert shown.exit_code == 0, shown.output
    assert "metric_points: 1 rows" in shown.output and "app.load" in shown.output
    document_ = json.loads(CliRunner().invoke(app, ["sources", "test", "generic", "--json"]).output)
    assert document_["tables"]["metric_points"]["first"][0]["value"] == 0.5
    wrong = CliRunner().invoke(app, ["sources", "test", "nobody"])
    assert wrong.exit_code == 2 and "telegraf" in wrong.output
    listed = json.loads(CliRunner().invoke(app, ["sources", "list", "--json"]).output)
    assert {"otlp", "sentry", "alertmanager"} <= {entry["name"] for entry in listed}
