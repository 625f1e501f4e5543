"""What the KPI page makes of marts: censored medians, periods, plots, and what it says without data."""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.testclient import TestClient

from aiops_assets.marts.charts import Column, column_chart, duration_ticks, whole_ticks
from aiops_assets.marts.kpis import board, median_lasting
from aiops_assets.marts.pages import routes
from aiops_assets.marts.reading import MartReader, row_count, rows
from aiops_assets.settings import Settings
from tests.marts_lake import at

TODAY = date(2026, 3, 3)
DURATIONS = st.lists(st.tuples(st.integers(0, 50), st.booleans()), min_size=1, max_size=30)


def test_the_median_without_open_ones_is_the_middle() -> None:
    assert median_lasting([3.0, 1.0, 2.0], [True] * 3) == 2.0
    assert median_lasting([], []) is None


def test_open_ones_count_as_lasting_at_least_so_long() -> None:
    assert median_lasting([10, 20, 30, 40], [True, True, False, False]) == 20
    assert median_lasting([10, 100, 100, 100], [True, False, False, False]) is None
    # two that were already older than the one known end do not shorten it
    assert median_lasting([600, 1200, 1800, 89700], [True, False, True, False]) == 1800


@given(DURATIONS)
def test_the_median_is_the_first_time_by_which_half_is_over(pairs: list[tuple[int, bool]]) -> None:
    seconds, over = [float(second) for second, _ in pairs], [ended for _, ended in pairs]
    surviving, expected = 1.0, None
    for moment in sorted(set(seconds)):
        at_risk = sum(second >= moment for second in seconds)
        surviving *= 1 - sum(e and s == moment for s, e in zip(seconds, over, strict=True)) / at_risk
        if surviving <= 0.5 + 1e-12:
            expected = moment
            break
    assert median_lasting(seconds, over) == expected


@given(DURATIONS)
def test_taking_open_ones_for_ended_never_makes_the_median_longer(pairs: list[tuple[int, bool]]) -> None:
    seconds, over = [float(second) for second, _ in pairs], [ended for _, ended in pairs]
    naive, honest = median_lasting(seconds, [True] * len(pairs)), median_lasting(seconds, over)
    assert naive is not None and (honest is None or honest >= naive)


@given(st.floats(0, 1e8))
def test_scales_reach_the_highest_value_with_few_round_ticks(high: float) -> None:
    for ticks in (duration_ticks(high), whole_ticks(high)):
        values = [value for value, _ in ticks]
        assert values[0] == 0 and values[-1] >= high * 0.999 and 2 <= len(values) <= 5
        assert len({label for _, label in ticks}) == len(ticks)


def test_a_column_chart_stays_inside_and_describes_itself() -> None:
    days = [TODAY - timedelta(days=number) for number in range(30)][::-1]
    columns = [Column((float(number), 1.0), f"{day}: {number}") for number, day in enumerate(days)]
    chart = column_chart("Pages", "per day", days, columns, whole_ticks, key=("a", "b"))
    assert all(bar.x >= 0 and bar.x + bar.width <= 100.001 and 0 <= bar.y <= chart.height for bar in chart.bars)
    assert len(chart.places) == 30 and chart.summary.endswith("29") and chart.x_ticks[-1].label == "03 Mar"
    assert column_chart("Pages", "", [], [], whole_ticks).summary.endswith("Nothing to show.")


def lifecycle(day: date, lasts: float, resolved: bool, **fields: object) -> dict[str, object]:
    return {
        "day": day, "incident_id": f"INC-{day}-{lasts}", "title": "t", "priority": 2, "as_of": at(1, 12),
        "is_resolved": resolved, "is_acknowledged": resolved, "was_resolved": resolved, "reopened": 0, "detect_s": 60.0,
        "acknowledge_s": lasts / 2, "resolve_s": lasts,
    } | fields  # fmt: skip


def frames(**given: list[dict[str, object]]) -> dict[str, pl.DataFrame]:
    return {name: pl.DataFrame(found) for name, found in given.items()}


def test_the_board_counts_open_ones_as_open() -> None:
    days = [lifecycle(TODAY, 3600, True), lifecycle(TODAY, 90_000, False), lifecycle(TODAY - timedelta(1), 1800, True)]
    found = frames(incident_lifecycle=days)
    shown = board(lambda name: found.get(name, pl.DataFrame()), 14, TODAY)
    tiles = {tile.name: tile for tile in shown.tiles}
    assert tiles["Incidents"].value == "3" and tiles["Incidents"].about == "1 still open"
    assert tiles["Time to resolve"].value == "1 h" and tiles["Time to acknowledge"].value == "30 min"
    resolve = next(chart for chart in shown.charts if chart.name == "Time to resolve")
    assert [place.title for place in resolve.places][-1] == "Tue 03 Mar: 1 of 2 resolved, median 1 h"
    assert len(resolve.places) == 14 and not shown.weekly


def test_a_day_with_fewer_than_half_known_has_an_arrow_and_no_bar() -> None:
    found = frames(incident_lifecycle=[lifecycle(TODAY, 90_000, False), lifecycle(TODAY, 80_000, False)])
    shown = board(lambda name: found.get(name, pl.DataFrame()), 14, TODAY)
    resolve = next(chart for chart in shown.charts if chart.name == "Time to resolve")
    assert resolve.places[-1].beyond and not resolve.bars and "too few" in resolve.summary


def test_long_ranges_are_shown_by_week_and_older_days_left_out() -> None:
    old = lifecycle(TODAY - timedelta(days=100), 60, True)
    found = frames(incident_lifecycle=[old, lifecycle(TODAY, 60, True), lifecycle(TODAY - timedelta(1), 60, True)])
    shown = board(lambda name: found.get(name, pl.DataFrame()), 90, TODAY)
    opened = next(chart for chart in shown.charts if chart.name == "Incidents opened")
    assert shown.weekly and opened.places[-1].title == "week of 02 Mar: 2 opened, 0 still open"
    assert shown.tiles[0].value == "2"


def test_shifts_share_a_scale_and_count_pages_only() -> None:
    load = [
        {
            "day": TODAY,
            "shift": shift,
            "critical": critical,
            "error": 0,
            "warning": 1,
            "pages": critical + 1,
            "suppressed": 7,
        }
        for shift, critical in (("00-08", 0), ("08-16", 9))
    ]
    shown = board(lambda name: pl.DataFrame(load) if name == "alert_load" else pl.DataFrame(), 14, TODAY)
    night, day = shown.shifts
    assert [tick.label for tick in night.y_ticks] == [tick.label for tick in day.y_ticks]
    assert night.about == "1 pages" and day.about == "10 pages" and shown.tiles[0].about == "14 more were suppressed"


def client(home: Path) -> TestClient:
    return TestClient(Starlette(routes=routes(Settings(home=home))), raise_server_exceptions=True)


def test_the_page_without_marts_says_how_they_come_and_still_defines_its_words(tmp_path: Path) -> None:
    page = client(tmp_path).get("/kpis")
    assert page.status_code == 200 and "No mart was built yet" in page.text and "Kaplan" in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert client(tmp_path).get("/api/kpis?days=14").json()["incident_kpis"] == []


def test_the_page_survives_a_file_that_is_no_mart(tmp_path: Path) -> None:
    (tmp_path / "marts").mkdir()
    (tmp_path / "marts" / "fleet_health.parquet").write_text("torn")
    page = client(tmp_path).get("/kpis")
    assert page.status_code == 200 and "could not be read" in page.text
    (tmp_path / "marts" / "incident_kpis.parquet").write_text("torn")
    assert client(tmp_path).get("/api/kpis").status_code == 503


def test_hostile_titles_stay_text(tmp_path: Path) -> None:
    (tmp_path / "marts").mkdir()
    hostile = "<script>alert(1)</script>"
    row = {
        "incident_id": "INC-<b>", "title": hostile, "state": "open", "priority": 1, "assignee": hostile,
        "opened_at": at(), "as_of": at(1), "age_s": 86400.0,
    }  # fmt: skip
    pl.DataFrame([row]).write_parquet(tmp_path / "marts" / "open_incidents.parquet")
    pl.DataFrame([lifecycle(date.today(), 60, True, title=hostile)]).write_parquet(
        tmp_path / "marts" / "incident_lifecycle.parquet"
    )
    page = client(tmp_path).get("/kpis").text
    assert hostile not in page and "&lt;script&gt;" in page
    assert not re.search(r"\sstyle=|\son\w+=", page), "the content security policy forbids inline styles and handlers"


def test_frames_are_read_again_only_when_a_file_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    for day in ("2026-03-01", "2026-03-02"):
        pl.DataFrame({"day": [day]}).write_parquet(folder / f"{day}.parquet")
    reader = MartReader(tmp_path)
    first = reader.frame("m", "2026-03-02")
    assert first["day"].to_list() == ["2026-03-02"] and reader.frame("m", "2026-03-02") is first
    replacement = tmp_path / "new.parquet"
    pl.DataFrame({"day": ["2026-03-02"], "more": [1]}).write_parquet(replacement)
    replacement.replace(folder / "2026-03-02.parquet")
    assert reader.frame("m", "2026-03-02").columns == ["day", "more"]
    assert (
        rows(tmp_path, "m", "2026-03-01").height == 1
        and row_count(tmp_path, "m") == 2
        and row_count(tmp_path, "x") == 0
    )
