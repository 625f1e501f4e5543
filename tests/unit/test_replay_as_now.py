"""As now: with nothing changed nothing differs; what is changed differs as it should; nothing else is touched."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiops_assets.config import Config, ConfigError, load_config
from aiops_assets.hours import MICROS_PER_HOUR, hour_key, instant
from aiops_assets.replay import asnow
from aiops_assets.replay.asnow import Busy, Request, replays, running
from aiops_assets.replay.difference import compare_alerts
from aiops_assets.replay.labels import Label, LabelProblem, read_labels
from aiops_assets.replay.overrides import apply
from aiops_assets.replay.period import Period, parse_instant, parse_mask
from aiops_assets.replay.report import is_empty
from aiops_assets.replay.run import as_now
from aiops_assets.settings import Settings
from tests.home import send
from tests.replay_home import FULL, MINUTE, SILENT, Story, documents, start

FIRST = start()
WHOLE = Period(FIRST, FIRST + 9 * MICROS_PER_HOUR)
LESS_SENSITIVE = ("filesystem-almost-full.value=0.95", "filesystem-almost-full.clear=0.9")


@pytest.fixture(scope="module")
def calm_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calm")
    story = Story(folder)
    story.stream(documents(FIRST, 60 * 9))
    story.settle()
    story.pipeline.close()
    return folder


@pytest.fixture
def settings(calm_home: Path, tmp_path: Path) -> Settings:
    shutil.copytree(calm_home, tmp_path / "home")
    return Settings(home=tmp_path / "home")


def names(frame: pl.DataFrame) -> list[tuple[str, str]]:
    return sorted(frame.select("name", "host").rows())


def timeless(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in {"seconds", "folder"}}


def test_with_nothing_changed_nothing_differs(settings: Settings) -> None:
    done = as_now(settings, WHOLE)
    assert is_empty(done.document)
    assert done.document["alerts"]["same"] == 3
    assert done.document["pages"]["recorded"] == done.document["pages"]["replayed"] == 3
    assert done.document["hours_still_open"] == [hour_key(FIRST + 8 * MICROS_PER_HOUR)]
    assert done.document["hours_with_other_baselines"] == []


def test_a_range_in_the_middle_starts_from_the_state_handed_over(settings: Settings) -> None:
    middle = Period(FIRST + 2 * MICROS_PER_HOUR + 45 * MINUTE, FIRST + 6 * MICROS_PER_HOUR)
    done = as_now(settings, middle)
    assert is_empty(done.document)
    assert done.document["began"].startswith(f"from the state handed over by {hour_key(FIRST + MICROS_PER_HOUR)}")


def test_without_any_state_detectors_warm_up_and_the_report_says_so(settings: Settings) -> None:
    shutil.rmtree(settings.home / "lake" / "hour_receipts")
    done = as_now(settings, Period(FIRST + 4 * MICROS_PER_HOUR, FIRST + 8 * MICROS_PER_HOUR))
    assert "warmed up on 4 hours" in done.document["began"]
    assert len(done.document["hours_without_receipt"]) == 4
    assert names(done.found.replayed.alerts) == [("filesystem-almost-full", "web-2"), ("telemetry-missing", "web-3")]


def test_a_changed_limit_shows_which_alerts_incidents_and_pages_go(settings: Settings) -> None:
    done = as_now(settings, WHOLE, sets=LESS_SENSITIVE)
    assert names(done.found.alerts.vanished) == [("filesystem-almost-full", f"web-{host}") for host in FULL]
    assert done.found.alerts.raised.is_empty()
    assert done.document["incidents"]["recorded"] - done.document["incidents"]["replayed"] == 2
    assert (done.document["pages"]["recorded"], done.document["pages"]["replayed"]) == (3, 1)
    report = (done.shadow.folder / "report.md").read_text()
    assert "Alerts vanished (2)" in report
    assert (done.shadow.folder / "alerts.svg").read_text().startswith("<svg")


def test_a_shorter_hold_fires_earlier_and_is_no_new_alert(settings: Settings) -> None:
    done = as_now(settings, WHOLE, sets=["telemetry-missing.for=4m"])
    assert done.found.alerts.same == 2
    (changed,) = done.found.alerts.changed.iter_rows(named=True)
    assert changed["name"] == "telemetry-missing"
    assert changed["before_starts_at"] == changed["after_starts_at"]
    assert (changed["before_fired_at"] - changed["after_fired_at"]).total_seconds() == 60


def test_what_is_about_the_same_and_overlaps_is_one_alert_with_another_start(settings: Settings) -> None:
    recorded = as_now(settings, WHOLE).found.recorded.alerts
    earlier = recorded.with_columns(
        pl.col("alert_id") + "-other", pl.col("starts_at") - pl.duration(minutes=3), pl.col("fired_at") + pl.duration()
    )
    found = compare_alerts(recorded, earlier)
    assert (found.same, found.raised.height, found.vanished.height, found.changed.height) == (0, 0, 0, 3)
    much_earlier = recorded.with_columns(
        pl.col("alert_id") + "-other", *(pl.col(name) - pl.duration(days=1) for name in ("starts_at", "ends_at"))
    )
    found = compare_alerts(recorded, much_earlier)
    assert (found.same, found.raised.height, found.vanished.height, found.changed.height) == (0, 3, 3, 0)


def test_a_changed_severity_is_a_change_and_no_new_alert(settings: Settings) -> None:
    done = as_now(settings, WHOLE, sets=["filesystem-almost-full.severity=critical"])
    assert done.found.alerts.raised.is_empty()
    assert done.found.alerts.vanished.is_empty()
    assert set(done.found.alerts.changed.select("before_severity_number", "after_severity_number").rows()) == {(17, 21)}


def test_a_configuration_file_brings_its_own_rules_and_windows(settings: Settings, tmp_path: Path) -> None:
    full = FIRST + FULL[1][0] * MINUTE
    other = tmp_path / "other.yaml"
    other.write_text(
        f"""
rules:
- {{name: app-load, metric: app.load, value: 1.6, for: 1m}}
maintenance:
- {{name: disks, rule: filesystem-*, host: web-1, author: me, reason: test,
    from: "{instant(full - MINUTE).isoformat()}", to: "{instant(full + 60 * MINUTE).isoformat()}"}}
"""
    )
    done = as_now(settings, WHOLE, config=other)
    assert {name for name, _ in names(done.found.alerts.raised)} == {"app-load"}
    (changed,) = done.found.alerts.changed.iter_rows(named=True)
    assert (changed["host"], changed["before_suppressed_by"]) == ("web-1", None)
    assert changed["after_suppressed_by"].startswith("disks: window")
    pages = done.found.replayed.pages.join(done.found.replayed.incidents, on="incident_id")
    assert all("web-1" not in hosts or title.startswith("app.load") for hosts, title in pages["hosts", "title"].rows())


def test_masked_rows_count_as_if_they_had_never_come(settings: Settings) -> None:
    from_, to = (FIRST + minute * MINUTE for minute in (FULL[1][0] - 1, FULL[1][1] + 1))
    done = as_now(settings, WHOLE, masks=[Period(from_, to)])
    assert names(done.found.alerts.vanished) == [("filesystem-almost-full", "web-1")]
    assert done.document["hours_with_other_baselines"] == [hour_key(from_)]
    assert done.document["points"] == as_now(settings, WHOLE).document["points"] - 4 * 3 * (FULL[1][1] - FULL[1][0] + 2)


def test_an_hour_that_is_masked_whole_is_left_out(settings: Settings) -> None:
    hour = Period(FIRST + 5 * MICROS_PER_HOUR, FIRST + 6 * MICROS_PER_HOUR)
    done = as_now(settings, WHOLE, masks=[hour])
    assert done.document["hours"] == 7
    assert as_now(settings, WHOLE).document["hours"] == 8


def test_a_mask_outside_the_range_is_refused(settings: Settings) -> None:
    with pytest.raises(ValueError, match="is not within"):
        as_now(settings, WHOLE, masks=[Period(FIRST - MICROS_PER_HOUR, FIRST + MINUTE)])


def test_one_host_comes_out_as_it_does_among_all(settings: Settings) -> None:
    for host in FULL.keys() | SILENT.keys():
        done = as_now(settings, WHOLE, host=f"web-{host}")
        assert is_empty(done.document)
        assert done.document["alerts"]["same"] == 1


def test_rows_that_came_late_and_were_not_amended_yet_are_known_now(settings: Settings) -> None:
    full = [
        {"host": "web-0", "ts": FIRST + (65 + minute) * MINUTE + 500, "points": [
            {"metric": "system.filesystem.utilization", "value": 0.93, "unit": "1", "labels": {"mountpoint": "/late"}}]}
        for minute in range(20)
    ]  # fmt: skip
    send(settings, full, at=FIRST + 9 * MICROS_PER_HOUR)
    from aiops_assets.live.pipeline import Pipeline

    pipeline = Pipeline(settings)
    pipeline.open()
    assert pipeline.step() is not None
    pipeline.close()
    done = as_now(settings, WHOLE)
    assert names(done.found.alerts.raised) == [("filesystem-almost-full", "web-0")]
    assert done.document["hours_with_other_baselines"] == [hour_key(full[0]["ts"])]


def test_nothing_outside_the_folder_of_replays_changes(settings: Settings) -> None:
    def content() -> dict[str, bytes]:
        files = (path for path in settings.home.rglob("*") if path.is_file())
        return {str(path): path.read_bytes() for path in files if settings.paths.replays not in path.parents}

    before = content()
    as_now(settings, WHOLE, sets=LESS_SENSITIVE, masks=[Period(FIRST, FIRST + MINUTE)])
    assert content() == before
    assert settings.paths.replays.is_dir()


def test_shadow_tables_have_what_the_report_counts(settings: Settings) -> None:
    done = as_now(settings, WHOLE, sets=["telemetry-missing.for=20m"])
    lake = done.shadow.lake
    assert set(lake.read("alerts")["alert_id"]) == set(done.found.replayed.alerts["alert_id"])
    incidents = pl.read_delta(str(done.shadow.folder / "incidents"))
    pages = pl.read_delta(str(done.shadow.folder / "pages"))
    assert incidents.height == done.found.replayed.incidents.height
    assert pages.height == done.document["pages"]["replayed"]


KILLED = """
import os, signal, sys
from pathlib import Path
from aiops_assets.replay import asnow
from aiops_assets.replay.period import Period
from aiops_assets.replay.run import as_now
from aiops_assets.settings import Settings

asnow.CHUNK_HOURS = 2
def progress(done, total):
    if done == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
period = Period(int(sys.argv[2]), int(sys.argv[3]))
as_now(Settings(home=Path(sys.argv[1])), period, sets=sys.argv[5:], progress=progress)
"""


@pytest.mark.parametrize("hour", [1, 3, 6, 8])
def test_a_killed_replay_goes_on_and_says_the_same(
    settings: Settings, hour: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asnow, "CHUNK_HOURS", 2)
    command = [sys.executable, "-c", KILLED, str(settings.home), str(WHOLE.start), str(WHOLE.end), str(hour)]
    killed = subprocess.run([*command, *LESS_SENSITIVE], timeout=120, check=False, capture_output=True)
    assert killed.returncode == -9, killed.stderr
    (shadow,) = replays(settings.paths.replays)
    assert not shadow.journal.finished
    hours: list[int] = []
    resumed = as_now(settings, WHOLE, sets=LESS_SENSITIVE, progress=lambda done, total: hours.append(done))
    assert hours[0] == (hour - 1) // 2 * 2 + 1, "it went on after the last stored chunk"
    tables = {name: resumed.shadow.lake.read(name) for name in ("anomalies", "alert_decisions", "alerts")}
    anew = as_now(settings, WHOLE, sets=LESS_SENSITIVE, fresh=True)
    assert timeless(resumed.document) == timeless(anew.document)
    for name, table in tables.items():
        assert table.equals(anew.shadow.lake.read(name)), name


def test_a_finished_replay_is_done_anew(settings: Settings) -> None:
    first, second = (as_now(settings, WHOLE, sets=LESS_SENSITIVE) for _ in range(2))
    assert first.shadow.folder == second.shadow.folder
    assert timeless(first.document) == timeless(second.document)
    assert len(replays(settings.paths.replays)) == 1


def test_two_of_the_same_replay_do_not_run_at_once(settings: Settings) -> None:
    seen: list[str] = []

    def meanwhile(done: int, total: int) -> None:
        if done == 2:
            (settings.paths.replays / Request.of(WHOLE, config, LESS_SENSITIVE).replay_id).exists()
            with pytest.raises(Busy, match="another process"):
                as_now(settings, WHOLE, sets=LESS_SENSITIVE)
            seen.append("busy")

    config = apply(load_config(settings.paths.config), LESS_SENSITIVE)
    done = as_now(settings, WHOLE, sets=LESS_SENSITIVE, progress=meanwhile)
    assert seen == ["busy"]
    assert not running(done.shadow)


def test_labels_give_precision_and_recall_of_both_sides(settings: Settings, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"

    def at(minute: int) -> str:
        return instant(FIRST + minute * MINUTE).isoformat()

    labels.write_text(
        "host,metric,from,to\n"
        f"web-1,system.filesystem.utilization,{at(FULL[1][0])},{at(FULL[1][1])}\n"
        f"web-0,,{at(100)},{at(110)}\n"
        f"web-9,,{at(-1000)},{at(-900)}\n"
    )
    done = as_now(settings, WHOLE, sets=["filesystem-almost-full.host=web-1"], labels=labels)
    recorded, replayed = done.found.score_recorded, done.found.score_replayed
    assert recorded is not None
    assert replayed is not None
    assert (recorded.windows, recorded.seen, recorded.alerts, recorded.right) == (2, 1, 3, 1)
    assert (replayed.alerts, replayed.right, replayed.recall) == (2, 1, 0.5)
    assert (recorded.precision, replayed.precision) == (pytest.approx(1 / 3), 0.5)
    assert (recorded.pages_right, recorded.page_precision) == (1, pytest.approx(1 / 3))
    assert "Against the labels" in (done.shadow.folder / "report.md").read_text()


def test_an_empty_range_says_what_there_is(settings: Settings) -> None:
    with pytest.raises(LookupError, match="the lake has hours from"):
        as_now(settings, Period(FIRST - 50 * MICROS_PER_HOUR, FIRST - 40 * MICROS_PER_HOUR))


# -- what people write ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cpu-saturated.value=0.9", ("cpu-saturated", "value", 0.9)),
        ("cpu-saturated.for=5m", ("cpu-saturated", "hold", 300.0)),
        ("cpu-saturated.enabled=false", ("cpu-saturated", "enabled", False)),
        ("cpu-saturated.host=web-*", ("cpu-saturated", "host", "web-*")),
        ("statistics.severity=error", ("statistics", "severity", "error")),
        ("statistics.exclude=[net.*, disk.*]", ("statistics", "exclude", ("net.*", "disk.*"))),
        ("grouping.window=30m", ("grouping", "window", 1800.0)),
    ],
)
def test_parameters_are_set_as_aiops_yaml_writes_them(text: str, expected: tuple[str, str, Any]) -> None:
    name, field, value = expected
    config = apply(Config(), [text])
    holder = getattr(config, name, None) or next(rule for rule in config.rules if rule.name == name)
    assert getattr(holder, field) == value


def test_what_is_not_set_stays_as_it_was() -> None:
    before = {rule.name: rule for rule in Config().active_rules}
    after = {rule.name: rule for rule in apply(Config(), ["cpu-saturated.value=0.9"]).active_rules}
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} == {"cpu-saturated"}
    assert after["cpu-saturated"].model_copy(update={"value": 0.95}) == before["cpu-saturated"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cpu-saturated.valu=1", "there are name, kind, metric"),
        ("cpu-saturated.severity=bad", "'trace', 'debug', 'info', 'warning', 'error' or 'critical'"),
        ("cpu-saturated.for=soon", "a duration such as 30s, 5m, 2h or 1d"),
        ("cpu-saturated.clear=0.99", "'clear' must lie on the quiet side"),
        ("no-such.value=1", "there is no rule 'no-such'; there are statistics, grouping, filesystem-almost-full"),
        ("cpu-saturated=1", "write NAME.PARAMETER=VALUE"),
        ("statistics.level=1", "there are enabled, severity, exclude"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_is_allowed(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        apply(Config(), [text])
    (problem,) = raised.value.problems
    assert problem.startswith("--set ")
    assert said in problem


@given(st.integers(0, 4_000_000_000), st.integers(1, 10_000_000))
def test_times_are_read_as_they_are_written(seconds: int, length: int) -> None:
    period = Period(seconds * 1_000_000, (seconds + length) * 1_000_000)
    assert parse_mask(str(period), now=instant(0)) == period
    assert parse_instant(instant(period.start).isoformat()) == period.start


@pytest.mark.parametrize(
    "text", ["", "soon", "2026-13-01", "2026-01-01T25", "2026-01-01..", "..", "2026-01-02..2026-01-01"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write|later"):
        parse_mask(text, now=instant(0))


def test_labels_are_read_from_json_too_and_wrong_ones_are_named(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text('[{"host": "a", "metric": null, "from": "2026-01-01", "to": "2026-01-01T01"}]')
    assert read_labels(path) == [Label("a", None, 1_767_225_600_000_000, 1_767_229_200_000_000)]
    for text, said in (
        ('[{"host": "a", "from": "2026-01-01"}]', "label 1: to is missing"),
        ('[{"host": "a", "from": "2026-01-02", "to": "2026-01-01"}]', "must be later"),
        ('[{"host": "a", "from": "soon", "to": "2026-01-01"}]', "not a time"),
        ("[1]", "list of objects"),
        ("[", "cannot be read"),
    ):
        path.write_text(text)
        with pytest.raises(LabelProblem, match=said):
            read_labels(path)
