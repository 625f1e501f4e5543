"""The certificate of a data set: what it is, what it was made from, what every gate said, and a few of its records.

What belongs here: the certificate as a document, as Markdown and HTML, and where it is kept. What does not: judging.

Versions are immutable and gates are asked after a version has its name, so the certificate lies beside the
registry, under ``<home>/certificates/golden_incidents/<version>.{json,md,html}``. It is derived from the registry alone
and can be written again at any time; ``hash`` is the SHA-256 of everything else in it.
"""

from __future__ import annotations

import hashlib
import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from aiops_assets.lake.drawing import markdown_table
from aiops_assets.landing.writer import fsync_folder
from aiops_assets.promotion.gates import GateResult, Measure, VersionFiles
from aiops_assets.promotion.registry import Registry
from aiops_assets.settings import Settings

THING = "golden_incidents"
FORMAT = 1
_SAMPLES = 5
_SHOWN = (
    "incident_id", "opened_at", "category", "subcategory", "priority", "state", "assignment_group", "short_description",
    "resolution_notes", "language", "ai_confidence_score",
)  # fmt: skip


def certificate(
    files: VersionFiles, results: Mapping[str, GateResult], *, blocking: Sequence[str] = ()
) -> dict[str, Any]:
    """The document, JSON-able, of a version and what its gates said (gate → result)."""
    incidents = next(iter(sorted(files.folder.glob("*.parquet"))))
    sample = pl.scan_parquet(incidents).select(_SHOWN).head(_SAMPLES).collect()
    hashes = {}
    for path in sorted(files.folder.iterdir()):
        with path.open("rb") as file:
            hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    passed = bool(results) and all(
        result.passed for name, result in results.items() if not blocking or name in blocking
    )
    document: dict[str, Any] = {
        "format": FORMAT,
        "thing": files.thing,
        "version": files.version,
        "what": "Synthetic ITSM incidents. No record describes a real incident, person, device or company.",
        "passed": passed,
        "inputs": dict(files.inputs),
        "metrics": dict(files.metrics),
        "files": hashes,
        "gates": [
            {
                "gate": name,
                "passed": result.passed,
                "skipped": result.skipped,
                "summary": result.summary,
                "measures": {key: _measure(measure) for key, measure in sorted(result.measures.items())},
                "advice": "" if result.passed else result.advice,
            }
            for name, result in sorted(results.items())
        ],
        "samples": [{key: _text(value) for key, value in row.items()} for row in sample.to_dicts()],
    }
    document = orjson.loads(orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY))
    document["hash"] = hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return document


def verified(document: Mapping[str, Any]) -> bool:
    """Whether nothing in a certificate was changed since it was written."""
    rest = {key: value for key, value in document.items() if key != "hash"}
    return hashlib.sha256(orjson.dumps(rest, option=orjson.OPT_SORT_KEYS)).hexdigest() == document.get("hash")


def recorded(settings: Settings, files: VersionFiles) -> dict[str, Any]:
    """The certificate of what the registry has recorded of a version."""
    with Registry(settings) as registry:
        last = registry.gates(files.thing, files.version)
    results = {
        one.gate: GateResult(one.passed, one.summary, one.measures, one.details, None, one.advice, one.skipped)
        for one in last
    }
    return certificate(files, results, blocking=[one.gate for one in last if one.blocking])


def write_certificate(settings: Settings, files: VersionFiles) -> Path:
    """Write the recorded certificate as JSON, Markdown and HTML; the path of the JSON."""
    document = recorded(settings, files)
    folder = settings.paths.certificates / files.thing
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "md": markdown(document).encode(),
        "html": page(document).encode(),
        "json": orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS),
    }
    for suffix, content in contents.items():
        _written(folder / f"{files.version}.{suffix}", content)
    return folder / f"{files.version}.json"


def _written(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    fsync_folder(path.parent)


def markdown(document: Mapping[str, Any]) -> str:
    """For people, and for the Dagster UI."""
    inputs = document["inputs"]
    parts = [
        f"# Certificate of {document['thing']} {document['version'][:12]}",
        document["what"],
        f"**{'All blocking gates have passed.' if document['passed'] else 'Not every blocking gate has passed.'}**",
        "## What it was made from",
        markdown_table(
            pl.DataFrame([{"input": k, "value": _text(v)} for k, v in _flat(inputs)], schema=["input", "value"])
        ),
        "## Gates",
        markdown_table(
            pl.DataFrame(
                [{"gate": g["gate"], "verdict": _verdict(g), "finding": g["summary"]} for g in document["gates"]],
                schema=["gate", "verdict", "finding"],
            )
        ),
        "## Measures",
        markdown_table(pl.DataFrame(_measures(document), schema=["gate", "measure", "value", "limits", "holds"])),
        "## Sample records",
        markdown_table(pl.DataFrame(document["samples"])),
        "## Files",
        markdown_table(pl.DataFrame([{"file": k, "sha256": v} for k, v in document["files"].items()])),
        f"Hash of this certificate: {document['hash']}",
    ]
    return "\n\n".join(parts) + "\n"


def page(document: Mapping[str, Any]) -> str:
    """A page that needs nothing from outside."""

    def rows(entries: Sequence[Mapping[str, Any]]) -> str:
        if not entries:
            return "<p>none</p>"
        head = "".join(f"<th>{html.escape(str(key))}</th>" for key in entries[0])
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(str(value))}</td>" for value in entry.values()) + "</tr>"
            for entry in entries
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    gates = [{"gate": g["gate"], "verdict": _verdict(g), "finding": g["summary"]} for g in document["gates"]]
    said = "All blocking gates have passed." if document["passed"] else "Not every blocking gate has passed."
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Certificate {document["version"][:12]}</title>'
        "<style>body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}"
        "table{border-collapse:collapse;width:100%;margin:.5rem 0 1.5rem}"
        "td,th{border:1px solid #ccc;padding:.3rem .5rem;"
        "text-align:left;vertical-align:top;overflow-wrap:anywhere}th{background:#f2f4f7}</style>"
        f"<h1>Certificate of {html.escape(document['thing'])}</h1><p><code>{document['version']}</code></p>"
        f"<p>{html.escape(document['what'])}</p><p><strong>{said}</strong></p>"
        f"<h2>Made from</h2>{rows([{'input': k, 'value': _text(v)} for k, v in _flat(document['inputs'])])}"
        f"<h2>Gates</h2>{rows(gates)}<h2>Measures</h2>{rows(_measures(document))}"
        f"<h2>Sample records</h2>{rows(document['samples'])}"
        f"<h2>Files</h2>{rows([{'file': k, 'sha256': v} for k, v in document['files'].items()])}"
        f"<p>Hash of this certificate: <code>{document['hash']}</code></p></html>"
    )


def _verdict(gate: Mapping[str, Any]) -> str:
    return "skipped" if gate["skipped"] else ("passed" if gate["passed"] else "FAILED")


def _measures(document: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {
            "gate": gate["gate"],
            "measure": name,
            "value": f"{one['value']:.4g}" if one["value"] is not None else "not a number",
            "limits": " ".join(
                part for part in (f"≥ {one['least']:.4g}" if one["least"] is not None else "",
                                  f"≤ {one['most']:.4g}" if one["most"] is not None else "") if part
            ),
            "holds": "yes" if one["holds"] else "NO",
        }
        for gate in document["gates"]
        for name, one in gate["measures"].items()
    ]  # fmt: skip


def _measure(measure: Measure) -> dict[str, Any]:
    value = measure.value if measure.value == measure.value else None
    return {"value": value, "least": measure.least, "most": measure.most, "unit": measure.unit, "holds": measure.holds}


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    out: list[tuple[str, Any]] = []
    for key, value in sorted(values.items()):
        out += _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else [(f"{before}{key}", value)]
    return out


def _text(value: Any) -> str:
    text = value.isoformat() if hasattr(value, "isoformat") else "" if value is None else str(value)
    return text if len(text) <= 300 else text[:299] + "…"
