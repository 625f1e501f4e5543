"""The factory: a way to make a candidate and its gates become candidate, blocking checks and champion.

What belongs here: wiring the registry to Dagster, and how versions and gate results look in its UI. What does not: the
rules of promotion (``registry``) and what is promoted (the domain rooms).

A promoted thing is this and nothing more::

    def produce(settings: Settings, folder: Path) -> Candidate:
        limits = fit_limits(Lake(settings.paths.lake))
        (folder / "limits.json").write_bytes(orjson.dumps(limits))
        return Candidate(Inputs(code_version="1", seed=7), {"series": len(limits)}, rows=len(limits))


    def covers_series(files: VersionFiles, champion: VersionFiles | None) -> GateResult:
        covered = Measure(files.metrics["series"], least=1)
        return GateResult(covered.holds, f"{covered.value:.0f} series have limits", {"series": covered},
                          advice="Load a week of history first: aiops ingest FILE")


    LIMITS = promoted(
        "alert_limits",
        kind="model",
        produce=produce,
        gates=[Gate("covers_series", "Every series has a limit.", covers_series)],
        group="detection",
        owners=[PLATFORM],
        deps=["metric_points"],
        description="Limits of alerts, fitted to last week.",
    )

with ``assets=[*LIMITS.assets]`` and ``asset_checks=LIMITS.checks`` in the definitions of its location.
"""

import math
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import orjson
import polars as pl
from pydantic import Field

from aiops_assets.hours import instant
from aiops_assets.lake.assets import table_metadata
from aiops_assets.lake.drawing import markdown_image, markdown_table, markdown_text, plain
from aiops_assets.promotion.gates import Candidate, Gate, GateResult, VersionFiles
from aiops_assets.promotion.problems import RegistryProblem
from aiops_assets.settings import Settings
from aiops_assets.tables import REGISTRY_GATES, REGISTRY_VERSIONS

GROUP = "promotion"
Dep = str | dg.AssetKey | dg.AssetSpec | dg.AssetsDefinition
#: of previews and certificates, so that the event log stays small
_LONGEST_TEXT = 50_000
_PREVIEW_ROWS = 10


@dataclass(frozen=True)
class PromotedThing:
    """What a location adds to its definitions."""

    name: str
    assets: list[dg.AssetsDefinition]
    checks: list[dg.AssetChecksDefinition]


def registry_specs(things: Sequence[PromotedThing] = ()) -> list[dg.AssetSpec]:
    """The registry's own tables in the asset graph; ``things`` write them."""
    candidates = [key for thing in things for asset in thing.assets for key in asset.keys]
    return [
        dg.AssetSpec(
            table.name,
            deps=candidates,
            description=f"{table.description}\n\nAppended by candidates and their checks, and by `aiops registry "
            "restore`: there is nothing to materialise. Read it with `aiops registry list`, `show` and `gate`.",
            group_name=GROUP,
            owners=[table.owner],
            kinds={"deltalake"},
            metadata=table_metadata(table),
        )
        for table in (REGISTRY_VERSIONS, REGISTRY_GATES)
    ]


class Override(dg.Config):
    """Promote although gates have not passed."""

    override_reason: str = Field(
        default="", description="why the candidate shall serve although gates failed; recorded with the move"
    )


def promoted(
    name: str,
    *,
    kind: str,
    produce: Callable[[Settings, Path], Candidate],
    gates: Sequence[Gate],
    publish: Callable[[Settings, VersionFiles], None] | None = None,
    group: str,
    owners: Sequence[str],
    deps: Sequence[Dep] = (),
    description: str,
    kinds: Sequence[str] = (),
    automation_condition: dg.AutomationCondition[Any] | None = None,
    tags: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> PromotedThing:
    """``<name>_candidate``, a check a gate, and ``<name>_champion``.

    Args:
        name: of the thing; lower-case letters, digits and '_'.
        kind: dataset, model or forecaster.
        produce: writes the files of a candidate into the (empty) folder it is given.
        gates: judged each on its own; at least one must be blocking.
        publish: puts the files where they are used before the pointer moves. It must be idempotent; a function at the
            top of a module is found again by ``aiops registry promote`` and ``rollback``.
        automation_condition: when a new candidate is made; by hand or by a schedule unless given.
        metadata: definition metadata of candidate and champion, such as ``lake.assets.table_metadata`` of a data set.

    Raises:
        ValueError: no gate blocks, or two have the same name.
    """
    from aiops_assets.promotion.store import check_thing

    check_thing(name)
    blocking = [gate.name for gate in gates if gate.blocking]
    if not blocking:
        raise ValueError(f"{name}: nothing is promoted without evidence, so at least one gate must be blocking")
    if len({gate.name for gate in gates}) != len(gates):
        raise ValueError(f"{name}: two gates have the same name")
    shared: dict[str, Any] = {
        "group_name": group,
        "owners": list(owners),
        "tags": {"plane": "learning", "promotion": name, **(tags or {})},
        "metadata": dict(metadata or {}),
    }
    return PromotedThing(
        name,
        [
            _candidate(name, kind, produce, publish, blocking, deps, description, kinds, automation_condition, shared),
            _champion(name, kind, publish, blocking, description, kinds, shared),
        ],
        [_judge(name, gates)],
    )


def _candidate(
    name: str,
    kind: str,
    produce: Callable[[Settings, Path], Candidate],
    publish: Callable[[Settings, VersionFiles], None] | None,
    blocking: list[str],
    deps: Sequence[Dep],
    description: str,
    kinds: Sequence[str],
    condition: dg.AutomationCondition[Any] | None,
    shared: dict[str, Any],
) -> dg.AssetsDefinition:
    @dg.asset(
        name=f"{name}_candidate",
        deps=deps,
        kinds={*kinds},
        automation_condition=condition,
        description=f"{description}\n\nA new, immutable version ({kind}), named by its contents. It serves nobody "
        f"before its checks have passed and `{name}_champion` has taken it.\n\n"
        f"By hand: `aiops registry list {name}`, `aiops registry diff {name} champion newest`.",
        **shared,
    )
    def candidate(
        context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult[None]:
        from aiops_assets.promotion.publishing import name_of
        from aiops_assets.promotion.registry import Registry

        with Registry(settings) as registry, _told():
            with registry.working(name) as folder:
                made = produce(settings, folder)
                version = registry.register(
                    name, kind, folder, made, gates=blocking, publisher=name_of(publish), run_id=context.run.run_id
                )
            manifest = registry.manifest(name, version)
            head = registry.head(name)
        serving = head.version if head is not None else None
        metadata: dict[str, Any] = {
            "version": version,
            "new": manifest.run_id == context.run.run_id,
            "serves_already": serving == version,
            "champion": serving or "none",
            "files": len(manifest.files),
            "size": manifest.size,
            "inputs": dg.MetadataValue.md(markdown_table(_flat(manifest.inputs))),
            **_metrics(manifest.metrics),
        }
        if made.rows is not None:
            metadata["dagster/row_count"] = made.rows
        if made.preview:
            preview = pl.DataFrame([{str(k): str(v) for k, v in row.items()} for row in made.preview[:_PREVIEW_ROWS]])
            metadata["preview"] = dg.MetadataValue.md(markdown_table(preview))
        return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(version))

    return candidate


def _judge(name: str, gates: Sequence[Gate]) -> dg.AssetChecksDefinition:
    asset = f"{name}_candidate"

    @dg.multi_asset_check(
        name=f"{name}_gates",
        specs=[
            dg.AssetCheckSpec(gate.name, asset=asset, description=gate.description, blocking=gate.blocking)
            for gate in gates
        ],
        can_subset=True,
    )
    def judge(
        context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]
    ) -> Iterator[dg.AssetCheckResult]:
        from aiops_assets.promotion.registry import Registry

        wanted = {key.name for key in context.selected_asset_check_keys}
        with Registry(settings) as registry, _told():
            head = registry.head(name)
            sequence, champion = (head.sequence, head.version) if head is not None else (0, None)
            version = _candidate_version(context.instance, name)
            files = registry.files(name, version)
            against = _against(context, registry, name, champion)
            results = []
            for gate in gates:
                if gate.name in wanted:
                    context.log.info(f"{gate.name}: judging {version[:12]}")
                    results.append((gate, _asked(gate, files, against)))
            registry.record_gates(
                name, version, results, champion=champion, sequence=sequence, run_id=context.run.run_id
            )
        for gate, result in results:
            yield _check_result(asset, version, gate, result, champion)

    return judge


def _champion(
    name: str,
    kind: str,
    publish: Callable[[Settings, VersionFiles], None] | None,
    blocking: list[str],
    description: str,
    kinds: Sequence[str],
    shared: dict[str, Any],
) -> dg.AssetsDefinition:
    @dg.asset(
        name=f"{name}_champion",
        deps=[f"{name}_candidate"],
        kinds={*kinds},
        automation_condition=dg.AutomationCondition.eager() & dg.AutomationCondition.all_deps_blocking_checks_passed(),
        description=f"{description}\n\nThe version ({kind}) that serves: the newest candidate whose blocking checks "
        "have all passed. The pointer moves only forward by itself; a person moves it with\n\n"
        f"- `aiops registry rollback {name} --reason TEXT`: back to the version before\n"
        f"- `aiops registry promote {name} VERSION --override --reason TEXT`: although gates failed (here: the "
        "launchpad's `override_reason`)\n"
        f"- `aiops registry revoke {name} VERSION --reason TEXT`: never again\n"
        f"- `aiops registry as-of {name} TIME`: what served then",
        **shared,
    )
    def champion(
        context: dg.AssetExecutionContext, config: Override, settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult[None]:
        from aiops_assets.promotion.registry import Registry

        reason = config.override_reason.strip()
        with Registry(settings) as registry, _told():
            version = _candidate_version(context.instance, name)
            judged = [one for one in registry.gates(name, version) if one.gate in blocking]
            seen = min((one.sequence for one in judged), default=None)
            move = registry.promote(
                name,
                version,
                who="dagster",
                reason=reason or f"gates passed, run {context.run.run_id}",
                override=bool(reason),
                expected=None if reason else seen,
                run_id=context.run.run_id,
                required=blocking,
                publish=None if publish is None else lambda files: publish(settings, files),
                automatic=True,
            )
            manifest = registry.manifest(name, version)
            metadata = {
                "version": version,
                "previous": move.previous or "none",
                "moved": move.changed,
                "how": move.how if move.changed else "serves already",
                "since": dg.MetadataValue.timestamp(instant(move.at)),
                "move": move.sequence,
                "inputs": dg.MetadataValue.md(markdown_table(_flat(manifest.inputs))),
                "gates": dg.MetadataValue.md(markdown_table(_gate_rows(registry.gates(name, version)))),
                "folder": dg.MetadataValue.path(str(registry.store.folder(name, version))),
                **_metrics(manifest.metrics),
                **_certificates(registry.store.folder(name, version).glob("certificate.*")),
                **_certificates((settings.paths.certificates / name).glob(f"{version}.*")),
            }
            if manifest.rows is not None:
                metadata["dagster/row_count"] = manifest.rows
        return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(version))

    return champion


@contextmanager
def _told() -> Iterator[None]:
    """What the registry refuses ends the run at once, with its text and without a retry."""
    try:
        yield
    except RegistryProblem as problem:
        raise dg.Failure(str(problem), allow_retries=False) from problem


def _candidate_version(instance: dg.DagsterInstance, name: str) -> str:
    event = instance.get_latest_materialization_event(dg.AssetKey(f"{name}_candidate"))
    if event is None or event.asset_materialization is None:
        raise dg.Failure(f"{name}_candidate was never materialised; materialise it first", allow_retries=False)
    return str(event.asset_materialization.metadata["version"].value)


def _against(
    context: dg.AssetCheckExecutionContext, registry: Any, name: str, champion: str | None
) -> VersionFiles | None:
    """The champion for comparison; a damaged one must not keep a better one from taking its place."""
    if champion is None:
        return None
    try:
        files: VersionFiles = registry.files(name, champion)
        return files
    except RegistryProblem as problem:
        context.log.error(f"the champion cannot be compared with: {problem}")
        return None


def _asked(gate: Gate, files: VersionFiles, champion: VersionFiles | None) -> GateResult:
    """What a gate says; its exception is its own failure and nobody else's."""
    try:
        return gate.judge(files, champion)
    except Exception as error:  # whatever a gate stumbles over must fail it, and it alone
        last = traceback.extract_tb(error.__traceback__)[-1]
        return GateResult(
            False,
            f"the check itself failed: {type(error).__name__}: {error}",
            details=[
                {"file": frame.filename.rpartition("/")[2], "line": frame.lineno, "in": frame.name}
                for frame in traceback.extract_tb(error.__traceback__)[-10:]
            ],
            advice=f"Mend the check {gate.name!r} ({last.name}, line {last.lineno}) or the candidate that it cannot "
            "read, then run the check again.",
        )


def _check_result(
    asset: str, version: str, gate: Gate, result: GateResult, champion: str | None
) -> dg.AssetCheckResult:
    from aiops_assets.promotion.drawing import detail_rows, measure_rows, measures_plot

    metadata: dict[str, Any] = {"version": version, "compared_with": champion or "no champion yet"}
    if result.measures:
        metadata["measures"] = dg.MetadataValue.md(markdown_table(measure_rows(result.measures)))
        for measure, one in result.measures.items():
            metadata[f"measure/{plain(measure)}"] = _finite(one.value)
    if result.details:
        metadata["details"] = dg.MetadataValue.md(markdown_table(detail_rows(result.details[:25])))
    plot = result.plot or measures_plot(result.measures, gate.name)
    if plot is not None:
        metadata["plot"] = dg.MetadataValue.md(markdown_image(plot, f"{gate.name} of {version[:12]}"))
    if result.skipped:
        metadata["skipped"] = plain(result.skipped, 400)
    if result.advice and not result.passed:
        metadata["what_to_do"] = dg.MetadataValue.md(markdown_text(result.advice, 2000))
    return dg.AssetCheckResult(
        asset_key=dg.AssetKey(asset),
        check_name=gate.name,
        passed=bool(result.passed),
        severity=dg.AssetCheckSeverity.ERROR if gate.blocking else dg.AssetCheckSeverity.WARN,
        description=plain(result.summary, 400),
        metadata=metadata,
    )


def _gate_rows(evaluations: Sequence[Any]) -> pl.DataFrame:
    rows = [
        {
            "gate": one.gate,
            "passed": "yes" if one.passed else "NO",
            "blocking": "yes" if one.blocking else "no",
            "found": one.summary,
            "when": f"{instant(one.evaluated_at):%Y-%m-%d %H:%M:%S}",
        }
        for one in evaluations
    ]
    return pl.DataFrame(rows)


def _flat(inputs: Mapping[str, Any]) -> pl.DataFrame:
    from aiops_assets.promotion.comparison import flat

    rows = [{"input": name, "value": "" if value is None else str(value)} for name, value in flat(inputs).items()]
    return pl.DataFrame(rows, schema={"input": pl.String(), "value": pl.String()})


def _metrics(metrics: Mapping[str, float | None]) -> dict[str, Any]:
    return {f"metric/{plain(name)}": _finite(value) for name, value in metrics.items()}


def _finite(value: float | None) -> float | str:
    return float(value) if value is not None and math.isfinite(value) else "not a number"


def _certificates(paths: Iterable[Path]) -> dict[str, Any]:
    """Certificates of a version: Markdown, JSON and SVG are shown, others (and unreadable ones) named."""
    found: dict[str, Any] = {}
    for path in sorted(paths):
        value: dg.MetadataValue[Any] = dg.MetadataValue.path(str(path))
        text = path.read_text("utf-8", "replace") if path.stat().st_size <= _LONGEST_TEXT else ""
        if text and path.suffix == ".svg":
            value = dg.MetadataValue.md(markdown_image(text, "certificate"))
        elif text and path.suffix == ".md":
            value = dg.MetadataValue.md(text.replace("<", "&lt;").replace(">", "&gt;"))
        elif text and path.suffix == ".json":
            with suppress(orjson.JSONDecodeError):
                value = dg.MetadataValue.json(orjson.loads(text))
        found[f"certificate_{path.suffix.removeprefix('.')}"] = value
    return found
