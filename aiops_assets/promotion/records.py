"""What is recorded of versions and gates in the lake: each version once, each evaluation of a gate once.

What belongs here: rows of ``registry_versions`` and ``registry_gates``, and what they say. What does not: files
(``store``) and which version serves (``pointers``). An append carries a Delta application transaction of its own, by
which a later one finds it (Delta protocol, "Transaction Identifiers"); since delta-rs lets two commits with the same
one pass when they come at once, appends of this table wait for one another.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
import polars as pl
from deltalake.exceptions import CommitFailedError, DeltaError

from aiops_assets.hours import instant, micros
from aiops_assets.lake.tables import FILES_BEFORE_COMPACTION, Lake, TableWriter
from aiops_assets.promotion.gates import MOST_DETAILS, Gate, GateResult, Measure
from aiops_assets.promotion.problems import RegistryProblem
from aiops_assets.promotion.store import FileEntry, Manifest
from aiops_assets.tables import REGISTRY_GATES, REGISTRY_VERSIONS, Table

log = logging.getLogger(__name__)

_TRIES = 5
_LOCK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one gate said of one version, once; ``evaluated_at`` in microseconds since the epoch (UTC).

    ``champion`` is what served when it was judged (and is compared with), ``sequence`` the number of the move that had
    made it so (0: nothing ever served).
    """

    thing: str
    version: str
    gate: str
    evaluated_at: int
    passed: bool
    blocking: bool
    summary: str
    advice: str = ""
    measures: Mapping[str, Measure] = field(default_factory=dict)
    details: Sequence[Mapping[str, Any]] = ()
    skipped: str = ""
    champion: str | None = None
    sequence: int = 0
    run_id: str | None = None

    @classmethod
    def of(
        cls,
        thing: str,
        version: str,
        gate: Gate,
        result: GateResult,
        *,
        at: int,
        champion: str | None,
        sequence: int,
        run_id: str | None,
    ) -> Evaluation:
        """The record of a result."""
        return cls(
            thing,
            version,
            gate.name,
            at,
            bool(result.passed),
            gate.blocking,
            result.summary,
            result.advice,
            dict(result.measures),
            [dict(row) for row in result.details[:MOST_DETAILS]],
            result.skipped,
            champion,
            sequence,
            run_id,
        )

    def document(self) -> dict[str, Any]:
        """JSON-able; limits and values that are not numbers are null."""
        own = asdict(self)
        own["measures"] = {name: _measure(measure) for name, measure in self.measures.items()}
        return own


def enter_version(lake: Lake, locks: Path, manifest: Manifest) -> bool:
    """Append the row of a version unless it is there; whether it was appended. ``locks`` is a folder of this host."""
    row = {
        "thing": manifest.thing,
        "kind": manifest.kind,
        "version": manifest.version,
        "created_at": instant(manifest.created_at),
        "inputs": _json(manifest.inputs),
        "files": _json([asdict(entry) for entry in manifest.files]),
        "metrics": _json(manifest.metrics),
        "size": manifest.size,
        "run_id": manifest.run_id,
    }
    return _append_once(lake, locks, REGISTRY_VERSIONS, [row], f"version/{manifest.thing}/{manifest.version}")


def enter_gates(lake: Lake, locks: Path, evaluations: Sequence[Evaluation]) -> bool:
    """Append evaluations of one version, made at one instant, unless they are there; whether they were appended."""
    if not evaluations:
        return False
    first = evaluations[0]
    if {(one.thing, one.version, one.evaluated_at) for one in evaluations} != {
        (first.thing, first.version, first.evaluated_at)
    }:
        raise ValueError("evaluations that are entered together are of one version and one instant")
    rows = [
        {
            "thing": one.thing,
            "version": one.version,
            "gate": one.gate,
            "evaluated_at": instant(one.evaluated_at),
            "passed": one.passed,
            "blocking": one.blocking,
            "summary": one.summary,
            "advice": one.advice or None,
            "numbers": _json(
                {
                    "measures": {name: _measure(measure) for name, measure in one.measures.items()},
                    "skipped": one.skipped,
                    "champion": one.champion,
                    "sequence": one.sequence,
                }
            ),
            "details": _json(list(one.details)),
            "run_id": one.run_id,
        }
        for one in evaluations
    ]
    return _append_once(
        lake,
        locks,
        REGISTRY_GATES,
        rows,
        f"gates/{first.thing}/{first.version}/{first.evaluated_at}/{first.run_id or ''}",
    )


def entered_versions(lake: Lake, thing: str | None = None) -> pl.DataFrame:
    """Rows of ``registry_versions``, oldest first."""
    frame = lake.scan(REGISTRY_VERSIONS.name)
    if thing is not None:
        frame = frame.filter(pl.col("thing") == thing)
    return frame.collect().unique(["thing", "version"], keep="first").sort("thing", "created_at", "version")


def manifest_of(row: Mapping[str, Any]) -> Manifest:
    """What a row says of a version; without rows, gates and publisher, which only its manifest has."""
    return Manifest(
        row["thing"],
        row["kind"],
        row["version"],
        micros(row["created_at"]),
        orjson.loads(row["inputs"]),
        orjson.loads(row["metrics"]),
        tuple(FileEntry(**entry) for entry in orjson.loads(row["files"])),
        run_id=row["run_id"],
    )


def entered_gates(lake: Lake, thing: str | None = None, version: str | None = None) -> list[Evaluation]:
    """All evaluations, oldest first."""
    frame = lake.scan(REGISTRY_GATES.name)
    if thing is not None:
        frame = frame.filter(pl.col("thing") == thing)
    if version is not None:
        frame = frame.filter(pl.col("version") == version)
    rows = frame.collect().unique(list(REGISTRY_GATES.key), keep="first")
    return [_evaluation(row) for row in rows.sort("thing", "version", "evaluated_at", "gate").iter_rows(named=True)]


def newest(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Of every gate of every version the last evaluation, by the name of the gate."""
    last: dict[tuple[str, str, str], Evaluation] = {}
    for one in sorted(evaluations, key=lambda one: one.evaluated_at):
        last[one.thing, one.version, one.gate] = one
    return [last[key] for key in sorted(last)]


def _evaluation(row: Mapping[str, Any]) -> Evaluation:
    numbers = orjson.loads(row["numbers"])
    return Evaluation(
        row["thing"],
        row["version"],
        row["gate"],
        micros(row["evaluated_at"]),
        row["passed"],
        row["blocking"],
        row["summary"],
        row["advice"] or "",
        {
            name: Measure(math.nan if one["value"] is None else one["value"], one["least"], one["most"], one["unit"])
            for name, one in numbers["measures"].items()
        },
        orjson.loads(row["details"]),
        numbers["skipped"],
        numbers["champion"],
        numbers["sequence"],
        row["run_id"],
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process of this host appends meanwhile; one that is killed lets go."""
    path = folder / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o640)
    until = time.monotonic() + _LOCK_SECONDS
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise RegistryProblem(
                        f"{path}: another process has been writing for {_LOCK_SECONDS:.0f} s; try again when it is done"
                    ) from None
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _append_once(lake: Lake, locks: Path, table: Table, rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Append rows with the name of their only append, in one commit; whether they were not there yet."""
    with _alone(locks):
        return _append(lake, table, rows, name)


def _append(lake: Lake, table: Table, rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    identity = f"registry/{name}"
    frame = pl.DataFrame([dict(row) for row in rows], schema=table.schema)
    for attempt in range(_TRIES):
        writer = TableWriter(lake, table)
        if writer.taken(identity):
            return False
        try:
            writer.append(frame, {identity: 1})
        except (CommitFailedError, DeltaError, OSError) as error:
            # Lake care committed first: what holds now is seen by the next look.
            if attempt == _TRIES - 1:
                raise RegistryProblem(f"{lake.uri(table.name)}: cannot be appended to: {error}") from error
            log.info("%s: appending again: %s", table.name, str(error).partition("\n")[0])
            continue
        _tidy(writer)
        return True
    raise AssertionError("unreachable")


def _tidy(writer: TableWriter) -> None:
    if writer.files("") >= FILES_BEFORE_COMPACTION:
        writer.small_files[""] = FILES_BEFORE_COMPACTION
        try:
            writer.compact_where_due()
        except (CommitFailedError, DeltaError) as error:
            # Another process compacts; the rows are in already.
            log.info("%s: not compacted: %s", writer.table.name, str(error).partition("\n")[0])


def _measure(measure: Measure) -> dict[str, Any]:
    def number(value: float | None) -> float | None:
        return None if value is None or not math.isfinite(value) else float(value)

    return {
        "value": number(measure.value),
        "least": number(measure.least),
        "most": number(measure.most),
        "unit": measure.unit,
    }


def _json(value: Any) -> str:
    return orjson.dumps(
        value, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
    ).decode()
