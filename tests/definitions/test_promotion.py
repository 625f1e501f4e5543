"""The factory of promoted things in Dagster: what it yields, what holds the champion back, what the UI is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from aiops_assets.promotion.assets import PromotedThing, promoted, registry_specs
from aiops_assets.promotion.gates import Candidate, Gate, GateResult, Inputs, Measure, VersionFiles
from aiops_assets.promotion.registry import Registry
from aiops_assets.settings import Settings
from aiops_assets.tables import PLATFORM
from tests.home import home

#: what the next candidate says; a test changes it
WORLD: dict[str, Any] = {}


# -- a whole promoted thing, in less than 30 lines
def produce(settings: Settings, folder: Path) -> Candidate:
    (folder / "model.json").write_text(json.dumps({"limit": WORLD["limit"]}))
    (folder / "certificate.json").write_text("{not json")
    (folder / "certificate.md").write_text(f"# limit {WORLD['limit']} <b>\n")
    inputs = Inputs(code_version="1", config_digest="c0ffee", seed=7, tables={"metric_points": 3})
    return Candidate(inputs, {"limit": WORLD["limit"]}, rows=1, preview=[{"limit": WORLD["limit"]}])


def sensible(files: VersionFiles, champion: VersionFiles | None) -> GateResult:
    limit = Measure(json.loads((files.folder / "model.json").read_text())["limit"], least=0.5, most=0.9)
    return GateResult(limit.holds, f"the limit is {limit.value}", {"limit": limit}, advice="Fit it to more data.")


def small(files: VersionFiles, champion: VersionFiles | None) -> GateResult:
    return GateResult(WORLD.get("small", True), "one file", details=[{"file": "model.json", "bytes": 14}])


THING = promoted(
    "toy_limits",
    kind="model",
    produce=produce,
    gates=[
        Gate("sensible", "The limit is one that people live with.", sensible),
        Gate("small", "It is small.", small, blocking=False),
    ],
    publish=lambda settings, files: WORLD.setdefault("published", []).append(files.version),
    group="toys",
    owners=[PLATFORM],
    description="A toy.",
)
# -- so far


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    WORLD.clear()
    WORLD["limit"] = 0.7
    return home(tmp_path / "home")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def materialize(
    settings: Settings,
    instance: dg.DagsterInstance,
    thing: PromotedThing = THING,
    selection: Any = None,
    config: dict[str, Any] | None = None,
) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [*thing.assets, *thing.checks],
        instance=instance,
        resources={"settings": settings},
        selection=selection,
        run_config=config,
        raise_on_error=False,
    )


def definitions(settings: Settings) -> dg.Definitions:
    return dg.Definitions(assets=THING.assets, asset_checks=THING.checks, resources={"settings": settings})


def metadata(result: dg.ExecuteInProcessResult, node: str) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node(node)
    return {name: value.value for name, value in event.metadata.items()}


def test_a_promoted_thing_takes_less_than_30_lines() -> None:
    lines = Path(__file__).read_text().split("# -- a whole promoted thing")[1].split("# -- so far")[0].splitlines()[1:]
    assert len([line for line in lines if line.strip()]) < 30


def test_candidate_checks_and_champion_stand_in_the_graph(tmp_path: Path) -> None:
    graph = definitions(home(tmp_path / "home")).resolve_asset_graph()
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == {
        "toy_limits_candidate",
        "toy_limits_champion",
    }
    (check,) = [key for key in graph.asset_check_keys if key.name == "sensible"]
    assert graph.get(check).blocking
    champion = next(asset for asset in THING.assets if asset.key.path == ["toy_limits_champion"])
    text = champion.descriptions_by_key[champion.key]
    assert all(f"aiops registry {verb} toy_limits" in text for verb in ("rollback", "promote", "revoke", "as-of"))


def test_the_registry_stands_behind_the_things_that_write_it() -> None:
    specs = {spec.key.to_user_string(): spec for spec in registry_specs([THING])}
    assert set(specs) == {"registry_versions", "registry_gates"}
    for spec in specs.values():
        assert "toy_limits_candidate" in {dep.asset_key.to_user_string() for dep in spec.deps}
        assert spec.description and spec.owners


def test_a_candidate_that_passes_serves_and_the_ui_is_told_everything(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    result = materialize(settings, instance)
    assert result.success
    with Registry(settings) as registry:
        (manifest,) = registry.versions("toy_limits")
        assert registry.champion("toy_limits") == manifest.version
        (move,) = registry.history("toy_limits")
    assert (move.who, move.how, move.run_id) == ("dagster", "promoted", result.run_id)
    assert WORLD["published"] == [manifest.version]
    candidate, champion = metadata(result, "toy_limits_candidate"), metadata(result, "toy_limits_champion")
    assert candidate["version"] == champion["version"] == manifest.version
    assert candidate["new"] and candidate["dagster/row_count"] == 1 and "metric&#95;points" in candidate["inputs"]
    assert champion["certificate_json"].endswith("certificate.json")
    assert champion["previous"] == "none" and "# limit 0.7 &lt;b&gt;" in champion["certificate_md"]
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert all(check.passed for check in checks.values())
    shown = {name: value.value for name, value in checks["sensible"].metadata.items()}
    assert shown["measure/limit"] == 0.7 and "0.5 to 0.9" in str(shown["measures"]).replace("&#46;", ".")
    assert str(shown["plot"]).startswith("![sensible of")


def test_a_failed_blocking_gate_keeps_the_champion_and_says_what_to_do(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    assert materialize(settings, instance).success
    before = Registry(settings).champion("toy_limits")
    WORLD["limit"] = 3.0
    result = materialize(settings, instance)
    assert not result.success
    assert not result.asset_materializations_for_node("toy_limits_champion")
    (check,) = [check for check in result.get_asset_check_evaluations() if check.check_name == "sensible"]
    assert not check.passed and check.severity == dg.AssetCheckSeverity.ERROR
    assert check.metadata["what_to_do"].value == "Fit it to more data&#46;"
    assert Registry(settings).champion("toy_limits") == before and len(WORLD["published"]) == 1


def test_across_runs_the_champion_materialised_by_hand_refuses_what_failed(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    WORLD["limit"] = 3.0
    materialize(settings, instance)
    result = materialize(settings, instance, selection="toy_limits_champion")
    assert not result.success
    failure = result.failure_data_for_node("toy_limits_champion")
    assert failure is not None and failure.error is not None
    assert "sensible: the limit is 3.0 → Fit it to more data." in failure.user_failure_data.description
    assert Registry(settings).champion("toy_limits") is None
    reasoned = {"ops": {"toy_limits_champion": {"config": {"override_reason": "a drill"}}}}
    assert materialize(settings, instance, selection="toy_limits_champion", config=reasoned).success
    (move,) = Registry(settings).history("toy_limits")
    assert (move.how, move.reason) == ("overridden", "a drill")


def test_a_warning_does_not_hold_the_champion_back(settings: Settings, instance: dg.DagsterInstance) -> None:
    WORLD["small"] = False
    result = materialize(settings, instance)
    assert result.success and Registry(settings).champion("toy_limits") is not None
    (check,) = [check for check in result.get_asset_check_evaluations() if check.check_name == "small"]
    assert not check.passed and check.severity == dg.AssetCheckSeverity.WARN


def test_automation_asks_for_the_champion_only_when_the_gates_of_another_run_passed(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    candidate = dg.AssetSelection.assets("toy_limits_candidate")
    champion = dg.AssetKey("toy_limits_champion")
    whole = definitions(settings)
    cursor = None

    def requested() -> int:
        nonlocal cursor
        outcome = dg.evaluate_automation_conditions(whole, instance, cursor=cursor)
        cursor = outcome.cursor
        return outcome.get_num_requested(champion)

    assert requested() == 0
    WORLD["limit"] = 3.0
    materialize(settings, instance, selection=candidate)
    assert [requested() for _ in range(3)] == [0, 0, 0]
    WORLD["limit"] = 0.8
    assert materialize(settings, instance, selection=candidate).success
    assert requested() == 1
    assert materialize(settings, instance, selection="toy_limits_champion").success
    assert requested() == 0
    WORLD["limit"] = 4.0
    materialize(settings, instance, selection=candidate)
    assert requested() == 0


def test_a_gate_that_raises_fails_alone_and_says_why(settings: Settings, instance: dg.DagsterInstance) -> None:
    def broken(files: VersionFiles, champion: VersionFiles | None) -> GateResult:
        raise ZeroDivisionError("no rows of category 'Network'")

    gates = [Gate("broken", "Divides by zero.", broken), Gate("sensible", "The limit.", sensible)]
    thing = promoted(
        "toy_broken", kind="model", produce=produce, gates=gates, group="toys", owners=[PLATFORM], description="A toy."
    )
    result = materialize(settings, instance, thing)
    assert not result.success
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert checks["sensible"].passed and not checks["broken"].passed
    assert checks["broken"].description == ("the check itself failed: ZeroDivisionError: no rows of category 'Network'")
    assert "what_to_do" in checks["broken"].metadata
    with Registry(settings) as registry:
        (manifest,) = registry.versions("toy_broken")
        assert {one.gate: one.passed for one in registry.gates("toy_broken", manifest.version)} == {
            "broken": False,
            "sensible": True,
        }


def test_single_checks_can_be_asked_again(settings: Settings, instance: dg.DagsterInstance) -> None:
    WORLD["limit"] = 0.95
    materialize(settings, instance)
    key = dg.AssetCheckKey(dg.AssetKey("toy_limits_candidate"), "sensible")
    result = materialize(settings, instance, selection=dg.AssetSelection.checks(key))
    assert [check.check_name for check in result.get_asset_check_evaluations()] == ["sensible"]
    with Registry(settings) as registry:
        (manifest,) = registry.versions("toy_limits")
        asked = [one.gate for one in registry.evaluations("toy_limits", manifest.version)]
    assert sorted(asked) == ["sensible", "sensible", "small"]


def test_what_a_person_rolled_back_from_is_not_promoted_again_by_the_next_run(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    assert materialize(settings, instance).success
    WORLD["limit"] = 0.8
    assert materialize(settings, instance).success
    with Registry(settings) as registry:
        first, second = registry.versions("toy_limits")
        registry.rollback("toy_limits", who="kim", reason="pages too often")
    result = materialize(settings, instance)
    assert not result.success
    failure = result.failure_data_for_node("toy_limits_champion")
    assert failure is not None and failure.user_failure_data is not None
    assert "kim rolled back from" in str(failure.user_failure_data.description)
    with Registry(settings) as registry:
        assert registry.champion("toy_limits") == first.version
        registry.promote("toy_limits", second.version, who="kim", reason="it was the network")
    assert materialize(settings, instance).success


def test_a_candidate_that_was_judged_before_the_pointer_moved_is_not_promoted(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    assert materialize(settings, instance).success
    WORLD["limit"] = 0.6
    assert materialize(settings, instance, selection=dg.AssetSelection.assets("toy_limits_candidate")).success
    with Registry(settings) as registry:
        first = registry.champion("toy_limits")
        registry.revoke("toy_limits", str(first), who="kim", reason="wrong units")
    result = materialize(settings, instance, selection="toy_limits_champion")
    assert not result.success
    failure = result.failure_data_for_node("toy_limits_champion")
    assert failure is not None and failure.user_failure_data is not None
    assert "somebody else moved it" in str(failure.user_failure_data.description)


@pytest.mark.parametrize(
    ("gates", "said"),
    [
        ([], "without evidence"),
        ([Gate("small", "It is small.", small, blocking=False)], "without evidence"),
        ([Gate("small", "", small), Gate("small", "", small)], "same name"),
    ],
)
def test_a_thing_without_evidence_cannot_be_declared(gates: list[Gate], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        promoted(
            "toy", kind="model", produce=produce, gates=gates, group="toys", owners=[PLATFORM], description="A toy."
        )
