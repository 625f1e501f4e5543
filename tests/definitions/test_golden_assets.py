"""Golden incidents as a promoted thing: made, published, reproduced, certified; and wired to their gates."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from aiops_assets.lake.tables import Lake
from aiops_assets.promotion.gates import GateResult, Measure, VersionFiles
from aiops_assets.promotion.registry import Registry
from aiops_assets.settings import Settings
from aiops_assets.synthetic.assets import golden_incidents
from aiops_assets.synthetic.gate.certificate import certificate, markdown, page, verified
from aiops_assets.synthetic.gate.gates import JUDGES, golden_gates
from aiops_assets.synthetic.gate.subject import subject
from aiops_assets.synthetic.golden.candidates import produce, publish, reproduce
from aiops_assets.synthetic.golden.reference import FIELDS
from aiops_assets.synthetic.golden.versions import THING
from tests.home import home
from tests.unit.test_golden_fitting import reference

COUNT = 120


def settings_with(tmp_path: Path, golden: str) -> Settings:
    settings = home(tmp_path)
    settings.paths.config.write_text(f"golden:\n  count: {COUNT}\n  seed: 4\n{golden}", "utf-8")
    return settings


def made(settings: Settings) -> VersionFiles:
    with Registry(settings) as registry, registry.working(THING) as folder:
        candidate = produce(settings, folder)
        version = registry.register(THING, "dataset", folder, candidate)
        return registry.files(THING, version)


def rows(settings: Settings) -> pl.DataFrame:
    handle = Lake(settings.paths.lake).open(THING)
    assert handle is not None
    return pl.scan_delta(handle).collect()


def test_the_same_inputs_make_the_same_version_and_it_can_be_made_again(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, "")
    files = made(settings)
    assert made(settings).version == files.version
    assert files.inputs["seed"] == 4
    found = reproduce(files)
    assert found.same
    assert found.code_version == found.recorded_code_version


def test_a_version_that_was_changed_does_not_come_out_again(tmp_path: Path) -> None:
    files = made(settings_with(tmp_path, ""))
    other = tmp_path / "other"
    other.mkdir()
    for path in files.folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    frame = pl.read_parquet(other / "incidents.parquet")
    frame.with_columns(priority=pl.lit(1, pl.Int32)).write_parquet(other / "incidents.parquet")
    found = reproduce(VersionFiles(files.thing, files.version, other, files.inputs, files.metrics))
    assert found.differing == ("incidents.parquet",)


def test_publishing_twice_leaves_the_rows_once(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, "")
    files = made(settings)
    publish(settings, files)
    publish(settings, files)
    frame = rows(settings)
    assert frame.height == COUNT
    assert set(frame["version"]) == {files.version}


def test_what_a_killed_publication_left_is_replaced(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, "")
    files = made(settings)
    publish(settings, files)
    handle = Lake(settings.paths.lake).open(THING)
    assert handle is not None
    handle.delete(f"incident_id = '{rows(settings)['incident_id'][0]}'")
    assert rows(settings).height == COUNT - 1
    publish(settings, files)
    assert rows(settings).height == COUNT


def test_a_calibrated_version_records_its_reference_and_reproduces(tmp_path: Path) -> None:
    real = tmp_path / "real.parquet"
    reference().write_parquet(real)
    files = made(settings_with(tmp_path, f"  reference: {real}\n"))
    assert {path.name for path in files.folder.iterdir()} >= {"fitted.json", "fitted.npz", "config.json"}
    assert files.inputs["more"]["reference"] == str(real.resolve())
    given = subject(files)
    assert given.reference is not None
    assert given.reference.columns == list(FIELDS)
    assert set(given.frame["category"]) <= {"Mail", "Net", "Disk"}
    assert reproduce(files).same
    reference().head(300).write_parquet(real)
    with pytest.raises(ValueError, match="is not the file"):
        subject.__wrapped__(files) if hasattr(subject, "__wrapped__") else _fresh(files)


def _fresh(files: VersionFiles) -> None:
    from aiops_assets.synthetic.gate import subject as module

    module._subject.cache_clear()
    subject(files)


def test_the_certificate_tells_everything_and_shows_when_it_was_changed(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, "")
    files = made(settings)
    results = {
        "schema": GateResult(True, "all hold", {"failed": Measure(0, most=0)}),
        "privacy": GateResult(False, "1 find <b>", {"personal_data": Measure(1, most=0)}, advice="Make it anew."),
    }
    document = json.loads(json.dumps(certificate(files, results)))
    assert verified(document)
    assert document["passed"] is False
    assert document["files"].keys() >= {"incidents.parquet", "config.json"}
    assert len(document["samples"]) == 5
    assert files.version[:12] in markdown(document)
    assert "1 find &lt;b&gt;" in page(document)
    document["gates"][0]["passed"] = True
    assert not verified(document)


def test_publishing_writes_the_certificate_of_what_was_recorded(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, "")
    files = made(settings)
    with Registry(settings) as registry:
        registry.record_gates(THING, files.version, [(golden_gates()[0], GateResult(True, "fine"))])
    publish(settings, files)
    folder = settings.paths.root / "certificates" / THING
    assert {path.suffix for path in folder.iterdir()} == {".json", ".md", ".html"}
    document = json.loads((folder / f"{files.version}.json").read_bytes())
    assert verified(document)
    assert [gate["gate"] for gate in document["gates"]] == ["schema"]


def test_every_gate_is_a_blocking_check_of_the_candidate() -> None:
    thing = golden_incidents()
    keys = {key.to_user_string() for asset in thing.assets for key in asset.keys}
    assert keys == {"golden_incidents_candidate", "golden_incidents_champion"}
    specs = [spec for check in thing.checks for spec in check.check_specs]
    assert {spec.name for spec in specs} == {name for name, _, _ in JUDGES}
    assert all(spec.blocking for spec in specs)


@pytest.mark.soak
def test_a_good_candidate_becomes_the_champion(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, "")
    settings.paths.config.write_text("golden:\n  count: 1500\n  seed: 4\n", "utf-8")
    thing = golden_incidents()
    result = dg.materialize([*thing.assets, *thing.checks], resources={"settings": settings})
    assert result.success
    with Registry(settings) as registry:
        assert registry.champion(THING) is not None
    assert rows(settings).height == 1_500
