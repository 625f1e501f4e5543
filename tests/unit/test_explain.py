"""Explaining alerts and incidents: every number, derived again from the receipt, and every difference named."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from typer.testing import CliRunner

from aiops_assets.cli import app
from aiops_assets.detection.receipts import RESTATED
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND, hour_key
from aiops_assets.incidents.lifecycle import IncidentNotFound
from aiops_assets.incidents.store import IncidentStore
from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.replay import explain as explaining
from aiops_assets.replay.explain import NotFound, explain_alert, explain_incident
from aiops_assets.settings import Settings
from aiops_assets.tables import ALERT_DECISIONS, ALERTS, METRIC_POINTS
from tests.unit.test_closing_hours import MINUTE, START, Home, telemetry

Alerts = dict[str, dict[str, Any]]
HOURS = 27.2


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A day and more: rules fire each hour, a host falls silent, everything is off for a while, a value jumps."""
    root = tmp_path_factory.mktemp("explained") / "home"
    home = Home(root)
    off = range(400, 440)
    documents = [d for d in telemetry(HOURS) if (d["ts"] - START) // MINUTE not in off]
    # h2 comes back from the outage ten minutes later than all others.
    documents = [d for d in documents if not (d["host"] == "h2" and 440 <= (d["ts"] - START) // MINUTE < 450)]
    for document in documents:
        if document["host"] == "h0" and 26 * 60 + 5 <= (document["ts"] - START) // MINUTE < 26 * 60 + 8:
            document["points"][1]["value"] = 5.0
    home.stream(documents, minutes=60)
    home.rest()
    home.pipeline.close()
    return root


@pytest.fixture
def settings(filled: Path, tmp_path: Path) -> Settings:
    """A copy of it that a test may change."""
    shutil.copytree(filled, tmp_path / "home")
    return Settings(home=tmp_path / "home")


@pytest.fixture(scope="module")
def whole(filled: Path) -> Settings:
    return Settings(home=filled)


def present(settings: Settings) -> Alerts:
    """The newest row of every alert, by id, in order of time."""
    rows = Lake(settings.paths.lake).read("alerts").sort("revision").unique("alert_id", keep="last")
    return {row["alert_id"]: row for row in rows.sort("starts_at", "name", "host").to_dicts()}


def one(settings: Settings, kind: str, **wanted: Any) -> str:
    """An alert of a kind, the last that fits and began in a closed hour."""
    closed = set(Lake(settings.paths.lake).read("hour_receipts")["hour"])
    fitting = [
        alert
        for alert, row in present(settings).items()
        if row["kind"] == kind and row["hour"] in closed and all(row[name] == value for name, value in wanted.items())
    ]
    return fitting[-1]


def test_every_alert_of_a_day_comes_out_the_same(whole: Settings) -> None:
    every = list(present(whole).values())
    chosen = [row for place, row in enumerate(every) if row["kind"] != "rule" or place % 9 == 0]
    for row in chosen:
        explained = explain_alert(whole, row["alert_id"])
        expected = "open" if hour_key(START + 27 * MICROS_PER_HOUR) in {h.hour for h in explained.hours} else "same"
        assert explained.verdict == expected, (row["title"], explained.verdict_text)
    assert {row["kind"] for row in chosen} == {"rule", "anomaly", "absence"}


def test_without_any_kept_state_it_is_derived_from_the_first_hour_on(settings: Settings) -> None:
    shutil.rmtree(settings.paths.live / "handover")
    alert = one(settings, "absence")
    explained = explain_alert(settings, alert)
    assert explained.verdict == "same"
    assert explained.started_from == []
    assert explained.hours_derived > 5


def test_absence_is_judged_with_the_stretches_in_which_nothing_reported(whole: Settings) -> None:
    silent = [row for row in present(whole).values() if row["kind"] == "absence"]
    assert len(silent) >= 2, "one silence of its own, one after the outage"
    for row in silent:
        explained = explain_alert(whole, row["alert_id"])
        assert explained.verdict == "same"
        assert {point["metric"] for point in explained.points} == {
            "system.cpu.utilization",
            "system.filesystem.utilization",
        }


def test_an_explanation_has_rows_rule_evidence_and_pins(whole: Settings) -> None:
    explained = explain_alert(whole, one(whole, "rule", name="filesystem-almost-full", state="resolved"))
    assert explained.judged_by["name"] == "filesystem-almost-full"
    assert explained.judged_by["value"] == 0.9
    assert explained.judged_by_now == []
    assert explained.revisions[0]["evidence"]["limit"] == 0.9
    decisive = [point["value"] for point in explained.points if point["part"] == "decisive"]
    assert decisive[-1] == explained.revisions[0]["value"] == 0.98
    assert any(point["part"] == "before" for point in explained.points)
    (pins,) = {tuple((pin.what, pin.same) for pin in hour.pins) for hour in explained.hours}
    assert dict(pins)["input rows"] and dict(pins)["code"] and dict(pins)["detector"] and dict(pins)["libraries"]
    assert [line["reason"] for line in explained.hours[0].receipts] == ["closed"]
    assert explained.baselines and all(row["count"] for row in explained.baselines)
    assert orjson.loads(orjson.dumps(explained.document()))["alert_id"] == explained.alert_id


def test_an_anomaly_shows_its_signals_thresholds_and_season(whole: Settings) -> None:
    explained = explain_alert(whole, one(whole, "anomaly", host="h0"))
    assert explained.judged_by["opens_at_ratio"] == 1.28
    assert explained.revisions[0]["evidence"]["passed"]
    (row,) = [row for hour in explained.hours for row in hour.anomalies if row["opens_event"]]
    assert row["lower"] <= row["expected"] <= row["upper"] < row["value"] == 5.0
    assert explained.hours[0].seasonal[0]["days"] >= 1


def test_the_beginning_of_an_id_is_enough_and_must_be_enough(whole: Settings) -> None:
    alert = one(whole, "absence")
    assert explain_alert(whole, alert[:12]).alert_id == alert
    with pytest.raises(NotFound, match="begins"):
        explain_alert(whole, alert[0]) if sum(a[0] == alert[0] for a in present(whole)) > 1 else explain_alert(
            whole, ""
        )
    with pytest.raises(NotFound, match="aiops alerts"):
        explain_alert(whole, "nothing")


def test_a_decision_that_is_stored_otherwise_is_named(settings: Settings) -> None:
    alert = one(settings, "rule", state="resolved")
    lake = Lake(settings.paths.lake)
    (hour,) = lake.scan("alert_decisions").filter(pl.col("alert_id") == alert).collect()["hour"].unique()
    rows = lake.read("alert_decisions", [hour])
    changed = rows.with_columns(
        pl.when((pl.col("alert_id") == alert) & (pl.col("revision") == 0))
        .then(0.5)
        .otherwise(pl.col("threshold"))
        .alias("threshold")
    )
    TableWriter(lake, ALERT_DECISIONS).replace(changed, hour)
    explained = explain_alert(settings, alert)
    assert explained.verdict == "different"
    (difference,) = explained.hours[0].differences
    assert (difference.column, difference.recorded) == ("threshold", 0.5)
    assert difference.derived != 0.5
    assert "threshold" in explained.verdict_text


def test_rows_that_are_gone_make_it_expired_and_the_rest_is_still_told(settings: Settings) -> None:
    alert = one(settings, "rule", state="resolved", name="filesystem-almost-full")
    hour = hour_key(int(present(settings)[alert]["starts_at"].timestamp() * 1e6))
    lake = Lake(settings.paths.lake)
    TableWriter(lake, METRIC_POINTS).delete(f"hour = '{hour}'")
    explained = explain_alert(settings, alert)
    assert explained.verdict == "expired"
    assert "inputs expired" in explained.verdict_text
    assert explained.decisions and explained.hours[0].receipts and explained.hours[0].pins
    assert explained.hours[0].pins[0].same is False


def test_other_rows_in_the_place_of_the_input_are_noticed(settings: Settings) -> None:
    alert = one(settings, "rule", state="resolved", name="filesystem-almost-full")
    hour = hour_key(int(present(settings)[alert]["starts_at"].timestamp() * 1e6))
    lake = Lake(settings.paths.lake)
    rows = lake.read("metric_points", [hour])
    TableWriter(lake, METRIC_POINTS).replace(rows.with_columns(pl.col("value") + 1e-9), hour)
    assert explain_alert(settings, alert).verdict == "expired"


def test_a_rule_that_reads_otherwise_now_is_shown_beside_the_one_in_force_then(settings: Settings) -> None:
    settings.paths.config.write_text(
        "rules:\n- name: filesystem-almost-full\n  metric: system.filesystem.utilization\n  op: '>='\n  value: 0.7\n"
    )
    explained = explain_alert(settings, one(settings, "rule", name="filesystem-almost-full", state="resolved"))
    assert explained.verdict == "same"
    changed = {difference.column: (difference.recorded, difference.derived) for difference in explained.judged_by_now}
    assert changed["value"] == (0.9, 0.7)


def test_a_mistake_in_the_configuration_does_not_hinder_an_explanation(settings: Settings) -> None:
    settings.paths.config.write_text("rules: nonsense\n")
    explained = explain_alert(settings, one(settings, "rule", state="resolved"))
    assert explained.verdict == "same"
    assert any("aiops.yaml is wrong" in pin.now for pin in explained.hours[0].pins)


def test_other_code_is_named_and_judged_by_its_outcome(whole: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explaining, "code_version", lambda: "0123456789ab")
    explained = explain_alert(whole, one(whole, "rule", state="resolved"))
    (pin,) = [pin for pin in explained.hours[0].pins if pin.what == "code"]
    assert (pin.now, pin.same) == ("0123456789ab", False)
    assert explained.verdict == "same"


def test_a_state_of_another_detector_cannot_be_derived_from(whole: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiops_assets.detection.judge.DETECTOR_VERSION", "tier1-99")
    explained = explain_alert(whole, one(whole, "rule", state="resolved"))
    assert explained.verdict == "other code"
    assert "tier1-99" in explained.verdict_text


def test_time_that_runs_out_costs_the_derivation_alone(whole: Settings) -> None:
    explained = explain_alert(whole, one(whole, "rule", state="resolved"), seconds=0.0)
    assert explained.verdict == "too slow"
    assert explained.revisions and explained.points


def test_an_alert_of_another_kind_is_not_derived(settings: Settings) -> None:
    lake = Lake(settings.paths.lake)
    row = (
        lake.read("alerts")
        .head(1)
        .with_columns(
            pl.lit("external").alias("kind"),
            pl.lit("f" * 20).alias("alert_id"),
            pl.lit(None, pl.Int64).alias("series_id"),
        )
    )
    TableWriter(lake, ALERTS).append(row, {})
    explained = explain_alert(settings, "f" * 20)
    assert (explained.verdict, explained.hours) == ("not derived", [])


@pytest.fixture(scope="module")
def amended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Hours 1 to 4, where rows that show that host 1 was well in between come late for hour 1; and an open hour."""
    home = Home(tmp_path_factory.mktemp("amended") / "home")
    documents = telemetry(4.5)
    held = [d for d in documents if d["host"] == "h1" and 86 <= (d["ts"] - START) // MINUTE < 89]
    for document in held:
        document["points"][0]["value"] = 0.4
    home.stream([d for d in documents if d not in held])
    home.send(held, received_at=documents[-1]["ts"] + MICROS_PER_SECOND)
    home.rest()
    home.pipeline.close()
    yield home


def test_an_amended_alert_says_why_and_comes_out_as_amended(amended: Home) -> None:
    corrected = [row for row in present(amended.settings).values() if row["amended_by"]]
    assert corrected
    for row in corrected:
        explained = explain_alert(amended.settings, row["alert_id"])
        assert explained.verdict == "same", explained.verdict_text
        assert "late rows" in explained.amendments[-1]["why"]
        reasons = [line["reason"] for hour in explained.hours for line in hour.receipts]
        assert "late rows" in reasons


def test_an_alert_of_the_open_hour_is_derived_from_the_rows_so_far(amended: Home) -> None:
    now = hour_key(START + 4 * MICROS_PER_HOUR)
    alert = next(row["alert_id"] for row in present(amended.settings).values() if row["hour"] == now)
    explained = explain_alert(amended.settings, alert)
    assert explained.verdict == "open", explained.verdict_text
    assert explained.hours[0].receipts == []


def test_a_restated_hour_is_derived_from_its_newest_receipt(amended: Home, tmp_path: Path) -> None:
    shutil.copytree(amended.settings.home, tmp_path / "home")
    settings = Settings(home=tmp_path / "home")
    settings.paths.config.write_text("rules:\n- {name: busy, metric: system.cpu.utilization, op: '>=', value: 0.35}\n")
    home = Home(tmp_path / "home")
    home.pipeline.step()
    home.pipeline.rederive([hour_key(START + 2 * MICROS_PER_HOUR)], RESTATED)
    found = [row for row in present(settings).values() if row["name"] == "busy" and row["amended_by"]]
    assert found
    for row in found[:3]:
        explained = explain_alert(settings, row["alert_id"])
        assert explained.verdict == "same", explained.verdict_text
        assert explained.hours[0].receipts[-1]["reason"] == RESTATED
        assert explained.judged_by["name"] == "busy"


def test_an_incident_is_explained_by_all_its_alerts(whole: Settings) -> None:
    store = IncidentStore(whole.paths.operations_url)
    incidents = store.list(states=(), limit=100)
    store.close()
    assert incidents
    for incident in incidents[:5]:
        explained = explain_incident(whole, incident.incident_id)
        assert len(explained.alerts) + len(explained.gone) + len(explained.left_out) >= incident.alerts > 0
        assert explained.verdict in {"same", "open"}, explained.verdict_text
        assert explained.impact_reason and explained.urgency_reason
        assert orjson.dumps(explained.document())
    with pytest.raises(IncidentNotFound):
        explain_incident(whole, "INC-NOSUCH")


def test_the_command_tells_it_to_people_and_scripts(whole: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIOPS_HOME", str(whole.home))
    run = CliRunner()
    alert = one(whole, "rule", state="resolved")
    told = run.invoke(app, ["explain", "alert", alert[:14]])
    assert told.exit_code == 0, told.output
    assert "it came out the same" in told.output
    assert "input rows" in told.output
    document = orjson.loads(run.invoke(app, ["explain", "alert", alert, "--json"]).output)
    assert (document["same"], document["verdict"]) == (True, "same")
    assert isinstance(document["series_id"], str)
    missing = run.invoke(app, ["explain", "alert", "nothing"])
    assert missing.exit_code == 1


def test_the_command_ends_with_1_when_it_comes_out_differently(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIOPS_HOME", str(settings.home))
    lake = Lake(settings.paths.lake)
    alert = one(settings, "absence")
    (hour, *_) = lake.scan("alert_decisions").filter(pl.col("alert_id") == alert).collect()["hour"].unique().sort()
    rows = lake.read("alert_decisions", [hour]).filter(pl.col("alert_id") != alert)
    TableWriter(lake, ALERT_DECISIONS).replace(rows, hour)
    told = CliRunner().invoke(app, ["explain", "alert", alert])
    assert told.exit_code == 1
    assert "comes out differently" in told.output
