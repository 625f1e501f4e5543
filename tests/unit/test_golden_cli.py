"""``aiops golden`` as people and scripts meet it."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from aiops_assets.cli import app
from aiops_assets.cli.golden_sets import golden
from aiops_assets.promotion.gates import Candidate, GateResult, Inputs, Measure
from aiops_assets.promotion.registry import Registry
from aiops_assets.settings import Settings
from aiops_assets.synthetic.gate import validation
from aiops_assets.synthetic.golden.exports import write
from aiops_assets.synthetic.golden.generate import MODEL_VERSION
from aiops_assets.synthetic.golden.imports import metadata, read, verified
from tests.fakes.golden_model import content
from tests.fakes.openai_server import API_KEY, FakeOpenAI
from tests.golden_frames import plain


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIOPS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def run(*arguments: str, code: int = 0) -> str:
    # The group alone: building all commands of `aiops` for each call takes longer than most of the calls.
    result = CliRunner().invoke(golden, list(arguments))
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout if code == 0 else result.stderr + result.stdout


def registered(home: Path, frame: pl.DataFrame, *, serving: bool = False) -> str:
    settings = Settings(home=home)
    settings.paths.create()
    with Registry(settings) as registry, registry.working("golden_incidents") as folder:
        frame.write_parquet(folder / "incidents.parquet")
        inputs = Inputs(code_version="c", config_digest="d1", seed=4)
        version = registry.register("golden_incidents", "dataset", folder, Candidate(inputs))
        if serving:
            registry.promote("golden_incidents", version, who="test", override=True, reason="for a test")
        return version


# -- generate ---------------------------------------------------------------------------------------------------------


def test_the_same_command_gives_the_same_bytes_and_says_what_was_written(home: Path) -> None:
    first = json.loads(run("generate", "-n", "40", "--seed", "7", "--out", "a.csv", "--json"))
    text = run("generate", "-n", "40", "--seed", "7", "--out", "b.csv")
    assert "40 incidents written to b.csv" in text
    assert Path("a.csv").read_bytes() == Path("b.csv").read_bytes()
    assert (first["count"], first["seed"], first["format"], first["provider"]) == (40, 7, "csv", "offline")
    frame, whole = verified(Path("a.csv"))
    assert (frame.height, whole, set(frame["model_version"])) == (40, True, {MODEL_VERSION})
    other = json.loads(run("generate", "-n", "40", "--seed", "8", "--out", "c.csv", "--json"))
    assert other["content_hash"] != first["content_hash"]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl.gz", "a.xlsx", "a.parquet"])
def test_the_format_follows_the_suffix(name: str, home: Path) -> None:
    run("generate", "-n", "5", "--out", name, "--no-metadata")
    assert read(Path(name)).height == 5
    assert metadata(Path(name)) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--out", "a.doc"), "none of csv, json"),
        (("--out", "a.csv", "--format", "word"), "format 'word' is none of"),
        (("--out", "nowhere/a.csv"), "there is no folder nowhere"),
        (("--out", "a.csv", "--config", "missing.yaml"), "missing.yaml: cannot be read"),
        (("--out", "a.csv", "--provider", "configured"), "llm.provider is offline"),
        (("--out", "a.csv", "--reference-fit", "nothing"), "nothing"),
    ],
)
def test_mistakes_are_one_line_and_code_2(arguments: tuple[str, ...], words: str, home: Path) -> None:
    said = run("generate", "-n", "3", *arguments, code=2)
    assert words in said.replace("\n", " ")
    assert "Traceback" not in said
    assert not Path("a.csv").exists()


def test_a_configured_model_tells_the_incidents_and_the_file_names_it(home: Path) -> None:
    home.mkdir()
    server = FakeOpenAI(content=content())
    with server.serving():
        (home / "aiops.yaml").write_text(
            f"llm: {{provider: compatible, model: m1, base_url: '{server.url}/v1', api_key: {API_KEY}}}\n"
        )
        said = json.loads(run("generate", "-n", "6", "--provider", "configured", "--out", "a.jsonl", "--json"))
        text = run("generate", "-n", "6", "--provider", "configured", "--out", "b.jsonl")
        one = json.loads(run("one", "--provider", "configured", "--index", "2", "--count", "6", "--json"))
    assert said["provider"] == "compatible/m1"
    assert said["model"]["told"] + sum(said["model"]["kept"].values()) == 6
    assert "stored answers" in text
    assert read(Path("b.jsonl")).equals(read(Path("a.jsonl")))
    assert one["incident_id"] == read(Path("a.jsonl"))["incident_id"][2]
    assert metadata(Path("a.jsonl"))["provider"] == "compatible/m1"  # type: ignore[index]


# -- one --------------------------------------------------------------------------------------------------------------


def test_one_incident_is_that_of_the_data_set(home: Path) -> None:
    run("generate", "-n", "30", "--seed", "2", "--out", "a.parquet")
    row = read(Path("a.parquet")).row(11, named=True)
    shown = json.loads(run("one", "--seed", "2", "--index", "11", "--count", "30", "--json"))
    assert (shown["incident_id"], shown["description"]) == (row["incident_id"], row["description"])
    assert len(shown["work_notes"]) == len(row["work_notes"])
    text = run("one", "--seed", "2", "--index", "11", "--count", "30")
    for part in (row["incident_id"], row["category"], row["work_notes"][0]["author"]):
        assert part in text
    assert "the last is 29" in run("one", "--index", "30", "--count", "30", code=2)


# -- config -----------------------------------------------------------------------------------------------------------


def test_the_shipped_configuration_can_be_written_checked_and_used(home: Path) -> None:
    assert run("config").startswith("#")
    run("config", "--out", "mine.yaml")
    assert "is right" in run("config", "check", "mine.yaml")
    assert "is there already" in run("config", "--out", "mine.yaml", code=2)
    shipped = json.loads(run("generate", "-n", "3", "--out", "a.csv", "--json"))
    mine = json.loads(run("generate", "-n", "3", "--out", "b.csv", "--config", "mine.yaml", "--json"))
    assert mine["content_hash"] == shipped["content_hash"]


def test_a_wrong_configuration_is_told_by_field(home: Path) -> None:
    Path("wrong.yaml").write_text("company: Example\ncallers: none\n")
    assert "callers" in run("config", "check", "wrong.yaml", code=2)
    assert "callers" in run("generate", "--out", "a.csv", "--config", "wrong.yaml", code=2)
    said = CliRunner().invoke(app, ["golden", "config", "check", "wrong.yaml", "--json"])
    assert said.exit_code == 2
    assert "callers" in json.loads(said.stdout)["problems"][0]


# -- validate ---------------------------------------------------------------------------------------------------------


def test_gates_decide_over_a_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def first(given: object) -> GateResult:
        seen.append(given)
        return GateResult(True, "as it should be", {"share": Measure(0.5, least=0.1)})

    def second(given: object) -> GateResult:
        return GateResult(False, "two wrong", details=[{"incident_id": "INC0000001"}], advice="make it anew")

    def broken(given: object) -> GateResult:
        raise ZeroDivisionError("nothing to divide by")

    write([plain(4)], Path("a.csv"))
    monkeypatch.setattr(validation, "JUDGES", (("one", "", first),))
    assert "0 of 1 gates failed" in run("validate", "a.csv")
    assert seen[0].frame.equals(plain(4))  # type: ignore[attr-defined]
    monkeypatch.setattr(validation, "JUDGES", (("one", "", first), ("two", "", second), ("three", "", broken)))
    text = run("validate", "a.csv", code=1)
    for part in ("make it anew", "INC0000001", "ZeroDivisionError", "2 of 3 gates failed"):
        assert part in text
    said = CliRunner().invoke(app, ["golden", "validate", "a.csv", "--json"])
    document = json.loads(said.stdout)
    assert (said.exit_code, document["passed"], document["as_written"]) == (1, False, True)
    assert [gate["passed"] for gate in document["gates"]] == [True, False, False]
    assert document["gates"][0]["measures"]["share"] == {"value": 0.5, "least": 0.1, "most": None, "holds": True}


def test_a_file_that_was_changed_since_does_not_pass(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "JUDGES", (("one", "", lambda given: GateResult(True, "fine")),))
    write([plain(4)], Path("a.csv"))
    Path("a.csv").write_bytes(Path("a.csv").read_bytes().replace(b"laptop LT-1", b"laptop LT-7"))
    assert "was changed since" in run("validate", "a.csv", code=1)
    Path("b.csv").write_text("what,is,this\n1,2,3\n")
    assert "b.csv: no column incident_id" in run("validate", "b.csv", code=2)


# -- versions ---------------------------------------------------------------------------------------------------------


def test_the_champion_is_exported_with_its_origin(home: Path) -> None:
    version = registered(home, plain(50), serving=True)
    said = json.loads(run("export", "--out", "a.csv", "--json"))
    assert (said["count"], said["version"], said["seed"], said["config_digest"]) == (50, version, 4, "d1")
    assert read(Path("a.csv")).equals(plain(50))
    assert "written to b.xlsx" in run("export", "--version", version[:8], "--out", "b.xlsx")
    assert metadata(Path("b.xlsx"))["version"] == version  # type: ignore[index]


def test_versions_that_are_not_there_or_damaged_are_told(home: Path) -> None:
    assert "there is no home folder" in run("export", "--out", "a.csv", code=1)
    version = registered(home, plain(5))
    assert "nothing serves" in run("export", "--out", "a.csv", code=2)
    assert "there is no version" in run("certificate", "abcd1234", code=2)
    (path,) = home.rglob("incidents.parquet")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert "incidents.parquet" in run("export", "--version", version[:12], "--out", "a.csv", code=1)
    assert not Path("a.csv").exists()


def test_a_certificate_is_shown_and_written(home: Path) -> None:
    version = registered(home, plain(5))
    document = json.loads(run("certificate", "newest", "--json"))
    assert document["version"] == version
    for name in ("c.json", "c.md", "c.html"):
        run("certificate", "newest", "--out", name)
        assert version[:12] in Path(name).read_text()
    assert version[:12] in run("certificate", "newest")
    assert "name a file with .json, .md, .html" in run("certificate", "newest", "--out", "c.pdf", code=2)


def test_a_version_and_a_file_are_compared(home: Path) -> None:
    registered(home, plain(20))
    write([plain(20).with_columns(category=pl.lit("printing"))], Path("b.csv"))
    said = json.loads(run("diff", "newest", "b.csv", "--json"))
    assert (said["before"], said["changed"]) == (20, 20)
    assert said["names"]["category"]["added"] == ["printing"]
    text = run("diff", "newest", "b.csv")
    assert "printing" in text
    assert "20 are the same in every field" in run("diff", "b.csv", "b.csv")
    assert "there is no such file" in run("diff", "b.csv", "none.csv", code=2)


def test_personal_data_in_an_edited_file_is_taken_out(home: Path) -> None:
    edited = plain(6).with_columns(
        description=pl.lit("Please call Anna Smith, +49 30 901820, or write to anna.smith@contoso-mail.com."),
        resolution_notes=pl.lit("Told anna.smith@contoso-mail.com that it works."),
    )
    write([edited], Path("a.xlsx"), metadata=False)
    said = json.loads(run("sanitise", "a.xlsx", "--out", "b.csv", "--salt", "s", "--json"))
    assert (said["finds"]["email"], said["incidents_with_finds"]) == (12, 6)
    frame = read(Path("b.csv"))
    assert frame["description"].n_unique() == frame["resolution_notes"].n_unique() == 1
    address = frame["resolution_notes"][0].split()[1]
    assert address in frame["description"][0]
    assert frame.drop("description", "resolution_notes").equals(plain(6).drop("description", "resolution_notes"))
    assert "12 email" in run("sanitise", "a.xlsx", "--out", "c.csv", "--redact")
    assert "[email]" in read(Path("c.csv"))["description"][0]


# -- fit --------------------------------------------------------------------------------------------------------------


def test_what_was_learnt_from_real_incidents_is_used(home: Path) -> None:
    frame = plain(400).with_columns(
        category=pl.when(pl.int_range(pl.len()) % 3 == 0).then(pl.lit("Melons")).otherwise(pl.lit("Pears")),
        work_notes=pl.lit(None, pl.String),
        closed_at=pl.col("resolved_at") + pl.duration(days=5),
    )
    frame.drop("work_notes").write_csv("real.csv")
    said = json.loads(run("fit", "real.csv", "--out", "fitted", "--json"))
    assert said["digest"]
    made = json.loads(run("generate", "-n", "60", "--reference-fit", "fitted", "--out", "a.csv", "--json"))
    assert set(read(Path("a.csv"))["category"]) == {"Melons", "Pears"}
    assert "+" in made["config_digest"]
    assert "no such file" in run("fit", "none.csv", "--out", "fitted", code=2)
    assert "FIELD=COLUMN" in run("fit", "real.csv", "--out", "fitted", "--column", "oops", code=2)
