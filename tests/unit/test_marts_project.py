"""The dbt project around its SQL: generated sources, settings, the manifest that many processes may ask for at once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
import yaml

from aiops_assets.marts import project
from aiops_assets.marts.dbt_sources import FILE, sources_yaml, stale, write
from aiops_assets.marts.project import ProjectProblem, digest, manifest_path, shifts, variables
from aiops_assets.settings import Settings
from aiops_assets.tables import TABLES

ROOT = Path(__file__).parents[2]


def test_the_checked_in_sources_are_those_of_tables_py() -> None:
    assert not stale(ROOT / "dbt"), f"dbt/{FILE} is stale: run `aiops marts sources`"


def test_sources_have_every_table_and_column_and_staleness_is_noticed(tmp_path: Path) -> None:
    [source] = yaml.safe_load(sources_yaml())["sources"]
    found = {table["name"]: [column["name"] for column in table["columns"]] for table in source["tables"]}
    assert found.pop("open_points") == list(TABLES["metric_points"].schema)
    assert found == {name: list(table.schema) for name, table in TABLES.items()}
    assert stale(tmp_path)
    (tmp_path / "models" / "lake").mkdir(parents=True)
    write(tmp_path)
    assert not stale(tmp_path)
    (tmp_path / FILE).write_text(sources_yaml().replace("measurement", "x"))
    assert stale(tmp_path)


def test_every_model_is_described_owned_keyed_and_tested() -> None:
    described = {
        model["name"]: model for model in yaml.safe_load((ROOT / "dbt/models/marts/marts.yml").read_text())["models"]
    }
    assert set(described) == {path.stem for path in (ROOT / "dbt/models/marts").glob("*.sql")}
    for name, model in described.items():
        assert len(model["description"]) > 40 and model["config"]["meta"]["owner"].startswith("team:"), name
        columns = {column["name"]: column for column in model["columns"]}
        assert set(model["config"]["meta"]["key"]) <= set(columns), name
        assert all(column["description"] and column["data_type"] for column in columns.values()), name
        assert any("unique_key" in test for test in model["data_tests"]), name


@pytest.mark.parametrize("text", ["08-16,16-24,00-08", "0-24", "0-12, 12-24"])
def test_shifts_cover_a_day(text: str) -> None:
    assert sum(end - start for start, end in shifts(text)) == 24


@pytest.mark.parametrize("text", ["", "8-16", "00-08,08-16", "00-08,08-16,15-24", "22-06,06-22", "a-b"])
def test_shifts_that_do_not_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(ProjectProblem, match=r"AIOPS_SHIFTS.*08-16,16-24,00-08"):
        shifts(text)


def test_variables_name_days_places_and_limits(tmp_path: Path) -> None:
    found = variables(Settings(home=tmp_path, time_zone="Europe/Berlin", marts_memory="2GB"), date(2026, 1, 2))
    assert found["first_day"] == found["last_day"] == "2026-01-02" and found["time_zone"] == "Europe/Berlin"
    assert (
        found["lake"] == str(tmp_path / "lake")
        and found["marts"] == str(tmp_path / "marts")
        and found["memory"] == "2GB"
    )
    with pytest.raises(ProjectProblem, match="AIOPS_TIME_ZONE"):
        variables(Settings(home=tmp_path, time_zone="Nowhere/Land"))


def test_a_missing_project_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(ProjectProblem, match="AIOPS_DBT_PROJECT"):
        manifest_path(Settings(home=tmp_path, dbt_project=tmp_path))


def copy_of_project(folder: Path) -> Path:
    return Path(shutil.copytree(ROOT / "dbt", folder / "dbt", ignore=shutil.ignore_patterns("target", "logs")))


def test_the_manifest_follows_the_files_and_nothing_else(tmp_path: Path) -> None:
    folder = copy_of_project(tmp_path)
    before = digest(folder)
    (folder / "target").mkdir()
    (folder / "target" / "manifest-x.json").write_text("{}")
    assert digest(folder) == before
    (folder / "models" / "marts" / "metric_daily.sql").write_text("select 1 as day")
    assert digest(folder) != before


def test_processes_that_load_at_once_parse_once_and_agree(tmp_path: Path) -> None:
    folder = copy_of_project(tmp_path)
    code = (
        "import sys\nfrom pathlib import Path\nfrom aiops_assets.marts import project\n"
        "from aiops_assets.settings import Settings\n"
        "real = project._parse\n"
        "def parse(*given):\n    print('parsed', flush=True)\n    real(*given)\n"
        "project._parse = parse\n"
        "print(project.manifest_path(Settings(home=Path(sys.argv[1]), dbt_project=Path(sys.argv[2]))))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "home"), str(folder)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=180)[0].split() for process in running]
    assert all(process.returncode == 0 for process in running)
    assert sum("parsed" in lines for lines in said) == 1 and len({lines[-1] for lines in said}) == 1
    assert [path.name for path in (folder / "target").iterdir() if not path.name.startswith(".")] == [
        f"manifest-{digest(folder)}.json"
    ]
    assert not (tmp_path / "home").exists()


def test_a_model_that_is_wrong_is_reported_in_dbts_words(tmp_path: Path) -> None:
    folder = copy_of_project(tmp_path)
    (folder / "models" / "marts" / "broken.sql").write_text("select * from {{ ref('not_there') }}")
    with pytest.raises(ProjectProblem, match="not_there"):
        manifest_path(Settings(home=tmp_path / "home", dbt_project=folder))


def test_a_project_that_cannot_be_written_to_parses_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy_of_project(tmp_path)
    (folder / "target").write_text("a file in the way")
    monkeypatch.setattr(project, "_parse", lambda source, final: final.write_text("{}"))
    assert not manifest_path(Settings(home=tmp_path / "none", dbt_project=folder)).is_relative_to(folder)
    home = Settings(home=tmp_path / "home", dbt_project=folder)
    home.paths.create()
    assert manifest_path(home).is_relative_to(home.paths.root) and manifest_path(home) == manifest_path(home)
