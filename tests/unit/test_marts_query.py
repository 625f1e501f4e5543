"""`aiops query`: it answers what reads, refuses everything else by name, and says what is wrong in words."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import orjson
import pytest
from typer.testing import CliRunner

from aiops_assets.cli import app
from aiops_assets.marts.query import QueryProblem, readable_statement, readables, run_query
from aiops_assets.settings import Settings
from aiops_assets.tables import TABLES
from tests.marts_lake import at, small_lake


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    made = Settings(home=tmp_path_factory.mktemp("home"))
    made.paths.create()
    small_lake(made.paths.lake)
    yield made


@pytest.fixture
def home(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("AIOPS_HOME", str(settings.home))
    return settings


def test_a_question_is_answered_with_names_types_and_rows(settings: Settings) -> None:
    answer = run_query(settings, "select host, count(*) as points from metric_points group by host order by host;")
    assert answer.columns == ("host", "points") and answer.types == ("VARCHAR", "BIGINT")
    assert answer.rows == [("host-1", 2220), ("host-2", 1200), ("host-3", 1800)] and not answer.more
    assert run_query(settings, "select max(ts) from metric_points").rows == [(at(1, 12, 59),)]


def test_the_limit_cuts_rows_and_says_so(settings: Settings) -> None:
    answer = run_query(settings, "select ts from metric_points order by ts", limit=3)
    assert [row[0] for row in answer.rows] == [at(0, 0, 0), at(0, 0, 0), at(0, 0, 1)] and answer.more


@pytest.mark.parametrize(
    "sql",
    [
        "from series", "with a as (select 1 as x) select x from a", "values (1)", "describe series", "summarize series",
        "show tables", "explain select 1", "explain analyze select 1", "-- why\nselect 1;",
        "pivot (from series) on host in ('host-1') using count(*)",
    ],
)  # fmt: skip
def test_everything_that_reads_is_answered(settings: Settings, sql: str) -> None:
    assert run_query(settings, sql).rows


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("copy series to '/tmp/x.csv'", "COPY"),
        ("attach '/tmp/x.db'", "ATTACH"),
        ("install httpfs", "LOAD"),
        ("load httpfs", "LOAD"),
        ("insert into series values (1)", "INSERT"),
        ("create table t as select 1", "CREATE"),
        ("delete from series", "DELETE"),
        ("update series set host = 'x'", "UPDATE"),
        ("set memory_limit = '1TB'", "SET"),
        ("pragma version", "PRAGMA"),
        ("export database '/tmp/x'", "EXPORT"),
        ("explain analyze copy series to '/tmp/x.csv'", "COPY"),
        ("explain (format json) insert into series values (1)", "EXPLAIN"),
        ("select 1; drop view series", "one statement"),
        ("pivot series on host using count(*)", "PIVOT"),
        ("", "one statement"),
    ],
)
def test_everything_else_is_refused_by_name(sql: str, kind: str) -> None:
    with pytest.raises(QueryProblem, match=kind):
        readable_statement(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_csv('/etc/passwd')", "select * from '/etc/passwd'",
        "select * from read_text('/etc/hostname')", "select * from glob('/etc/*')", "select * from read_parquet('http://127.0.0.1:9/x.parquet')",
    ],
)  # fmt: skip
def test_no_other_file_can_be_read(settings: Settings, sql: str) -> None:
    with pytest.raises(QueryProblem):
        run_query(settings, sql)


def test_nothing_of_the_process_can_be_read(settings: Settings) -> None:
    with pytest.raises(QueryProblem, match="no table 'settings'"):
        run_query(settings, "select * from settings")


def test_an_unknown_table_is_answered_with_names_near_it(settings: Settings) -> None:
    with pytest.raises(QueryProblem, match=r"no table 'metric_point'; near it: metric_points.*--tables"):
        run_query(settings, "select * from metric_point")
    with pytest.raises(QueryProblem, match=r"nope.*\n.*Candidate"):
        run_query(settings, "select nope from series")


def test_a_slow_question_is_stopped(settings: Settings) -> None:
    slow = "select count(*) from metric_points a, metric_points b, metric_points c where a.value + b.value > c.value"
    with pytest.raises(QueryProblem, match=r"stopped after 0\.2 s"):
        run_query(settings, slow, timeout=0.2)


def test_a_greedy_question_is_stopped(settings: Settings) -> None:
    small = settings.model_copy(update={"marts_memory": "20MB"})
    with pytest.raises(QueryProblem, match="AIOPS_MARTS_MEMORY"):
        run_query(small, "select list(a.value + b.value) from metric_points a, metric_points b", timeout=30)


def test_tables_are_listed_with_rows_and_columns(settings: Settings) -> None:
    found = {entry.name: entry for entry in readables(settings)}
    assert set(TABLES) <= set(found)
    assert found["metric_points"].rows == 5220 and found["open_points"].rows == 120
    assert ("value", "DOUBLE") in found["metric_points"].columns


def test_the_command_prints_a_table_json_or_csv(home: Settings) -> None:
    runner = CliRunner()
    sql = "select host, first_seen, null as nothing from series order by host limit 1"
    shown = runner.invoke(app, ["query", sql])
    assert shown.exit_code == 0 and "host-1" in shown.stdout and "null" in shown.stdout
    [row] = orjson.loads(runner.invoke(app, ["query", sql, "--json"]).stdout)
    assert row == {"host": "host-1", "first_seen": "2026-03-02T00:00:00+00:00", "nothing": None}
    rows = list(csv.reader(io.StringIO(runner.invoke(app, ["query", sql, "--csv"]).stdout)))
    assert rows == [["host", "first_seen", "nothing"], ["host-1", "2026-03-02 00:00:00+00:00", ""]]
    [twice] = orjson.loads(runner.invoke(app, ["query", "select 1 as a, 2 as a", "--json"]).stdout)
    assert list(twice.values()) == [1, 2]
    assert "open_points" in runner.invoke(app, ["query", "--tables"]).stdout
    assert runner.invoke(app, ["query", "-"], input="select 41 + 1 as answer").stdout.split()[-1] == "42"


def test_the_command_refuses_in_one_line_with_a_code(home: Settings) -> None:
    refused = CliRunner().invoke(app, ["query", "drop view series"])
    assert refused.exit_code == 2 and "DROP is refused" in refused.output
    assert CliRunner().invoke(app, ["query"]).exit_code == 2
    assert CliRunner().invoke(app, ["query", "select 1", "--json", "--csv"]).exit_code == 2
