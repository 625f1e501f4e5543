"""Versions of golden incidents: made from recorded inputs, made again from them, put into the lake.

What belongs here: the files of a version, its inputs, reproduction, publication. What does not: generating records
(``generate``), judging them (``synthetic.gate``) and moving pointers (``promotion``).

Files of a version: ``incidents.parquet`` (records), ``config.json`` (the configuration in force, whole) and, when a
reference was configured, ``fitted.json`` and ``fitted.npz`` (what was learnt of it; never its rows).
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from aiops_assets.config import Golden, load_config
from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.promotion.gates import Candidate, Inputs, VersionFiles
from aiops_assets.settings import Settings
from aiops_assets.synthetic.golden import reference as references
from aiops_assets.synthetic.golden.calibrated import Calibrated
from aiops_assets.synthetic.golden.config import GoldenConfig, digest, load_golden_config, parse_golden_config
from aiops_assets.synthetic.golden.content import code_version
from aiops_assets.synthetic.golden.fitting import Fitted, fit, load
from aiops_assets.synthetic.golden.generate import stream
from aiops_assets.synthetic.golden.record import SCHEMA
from aiops_assets.synthetic.golden.skeleton import SkeletonSource
from aiops_assets.tables import GOLDEN_INCIDENTS

INCIDENTS, CONFIG = "incidents.parquet", "config.json"
_FITTED = ("fitted.json", "fitted.npz")
_CHUNK = 20_000


def produce(settings: Settings, folder: Path) -> Candidate:
    """Write a data set as ``golden`` of aiops.yaml says into ``folder``.

    Raises:
        ConfigError, ReferenceProblem, ValueError: the configuration or the reference cannot be used.
    """
    return make(load_config(settings.paths.config).golden, folder)


def make(golden: Golden, folder: Path) -> Candidate:
    """``produce`` for a configuration at hand."""
    config = load_golden_config(golden.config)
    files: dict[str, str] = {}
    more: dict[str, Any] = {"count": golden.count, "people": list(golden.people)}
    fitted: Fitted | None = None
    if golden.reference is not None:
        path = golden.reference.expanduser().resolve()
        frame = references.read(path, golden.reference_columns)
        fitted = fit(frame)
        fitted.save(folder)
        config = adapted(config, fitted, frame)
        files["reference"] = references.digest(path)
        more |= {
            "reference": str(path),
            "reference_columns": dict(golden.reference_columns),
            "fitted": fitted.digest,
            "learnt": dict(fitted.report),
        }
    (folder / CONFIG).write_bytes(config_bytes(config))
    rows, confidence = write(
        folder / INCIDENTS, config, golden.count, golden.seed, Calibrated(fitted) if fitted else None
    )
    return Candidate(
        Inputs(code_version=code_version(), config_digest=digest(config), seed=golden.seed, files=files, more=more),
        {"incidents": rows, "mean_confidence": confidence},
        rows=rows,
        preview=_preview(folder / INCIDENTS),
    )


def adapted(config: GoldenConfig, fitted: Fitted, reference: pl.DataFrame) -> GoldenConfig:
    """The configuration with the priority matrix of the reference, seen after the last of its incidents has ended."""
    rows = [list(row) for row in config.matrix]
    for cell, priority in fitted.matrix.items():
        impact, urgency = (int(part) for part in cell.split("/"))
        if 1 <= impact <= 3 and 1 <= urgency <= 3:
            rows[impact - 1][urgency - 1] = priority
    ends = [reference[name].max() for name in ("opened_at", "resolved_at", "closed_at")]
    last = max(end for end in ends if isinstance(end, datetime))
    if last >= config.seen_at:
        config = config.model_copy(update={"as_of": last + timedelta(days=1)})
    known = set(config.sla) & set(config.resolution)
    if any(priority not in known for row in rows for priority in row):
        return config
    return config.model_copy(update={"matrix": tuple(tuple(row) for row in rows)})


def config_bytes(config: GoldenConfig) -> bytes:
    """The whole configuration as JSON that ``load_golden_config`` reads; draws depend on the order of its entries."""
    return orjson.dumps(config.model_dump(mode="json"), option=orjson.OPT_NON_STR_KEYS | orjson.OPT_INDENT_2)


def write(
    path: Path,
    config: GoldenConfig,
    count: int,
    seed: int,
    source: SkeletonSource | None,
    progress: Callable[[int], None] | None = None,
) -> tuple[int, float]:
    """Generate into a Parquet file with bounded memory; rows and their mean confidence."""
    import pyarrow.parquet as pq

    rows, total, writer = 0, 0.0, None
    try:
        for frame in stream(config, count=count, seed=seed, chunk=_CHUNK, skeletons=source):
            table = frame.select(list(SCHEMA)).to_arrow()
            writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table)
            rows += frame.height
            total += float(frame["ai_confidence_score"].sum())
            if progress is not None:
                progress(frame.height)
    finally:
        if writer is not None:
            writer.close()
    return rows, total / max(1, rows)


def _preview(path: Path) -> list[dict[str, Any]]:
    shown = ["incident_id", "opened_at", "category", "priority", "state", "assignment_group", "short_description"]
    return [
        {name: str(value) for name, value in row.items()}
        for row in pl.read_parquet(path, columns=shown, n_rows=8).to_dicts()
    ]


def source_of(folder: Path) -> SkeletonSource | None:
    """What the records of a version were drawn from; ``None``: its configuration."""
    return Calibrated(load(folder)) if (folder / _FITTED[0]).is_file() else None


@dataclass(frozen=True, slots=True)
class Reproduction:
    """Whether a version came out of its recorded inputs again; ``differing`` names files with other hashes."""

    version: str
    same: bool
    differing: tuple[str, ...]
    code_version: str
    recorded_code_version: str


def reproduce(files: VersionFiles) -> Reproduction:
    """Make the records again from the version's configuration, fit, count and seed, and compare SHA-256 of the files.

    The fit itself is made again too when its reference is still the recorded file.
    """
    inputs, more = files.inputs, files.inputs.get("more") or {}
    config = parse_golden_config((files.folder / CONFIG).read_text("utf-8"), str(files.folder / CONFIG))
    differing: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write(folder / INCIDENTS, config, int(more["count"]), int(inputs["seed"]), source_of(files.folder))
        (folder / CONFIG).write_bytes(config_bytes(config))
        made = [INCIDENTS, CONFIG]
        reference = more.get("reference")
        recorded = (inputs.get("files") or {}).get("reference")
        if reference and Path(reference).is_file() and references.digest(Path(reference)) == recorded:
            fit(references.read(Path(reference), more.get("reference_columns") or {})).save(folder)
            made += _FITTED
        differing = [name for name in made if _sha(folder / name) != _sha(files.folder / name)]
    return Reproduction(
        files.version, not differing, tuple(differing), code_version(), str(inputs.get("code_version") or "")
    )


def _sha(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish(settings: Settings, files: VersionFiles) -> None:
    """Put the rows of a version into the lake table ``golden_incidents``, once; write its certificate.

    Rows of a version that was published before stay as they are; what a killed publication left is replaced.
    """
    from aiops_assets.synthetic.gate.certificate import write_certificate

    path = files.folder / INCIDENTS
    lake = Lake(settings.paths.lake)
    writer = TableWriter(lake, GOLDEN_INCIDENTS)
    wanted = int(pl.scan_parquet(path).select(pl.len()).collect().item())
    present = _present(lake, files.version)
    if present != wanted:
        if present:
            writer.delete(f"version = '{files.version}'")
        for begin in range(0, wanted, _CHUNK):
            part = pl.scan_parquet(path).slice(begin, _CHUNK).collect()
            writer.append(part.with_columns(version=pl.lit(files.version)).select(list(GOLDEN_INCIDENTS.schema)), {})
    write_certificate(settings, files)


def _present(lake: Lake, version: str) -> int:
    handle = lake.open(GOLDEN_INCIDENTS.name)
    if handle is None:
        return 0
    return int(pl.scan_delta(handle).filter(pl.col("version") == version).select(pl.len()).collect().item())
