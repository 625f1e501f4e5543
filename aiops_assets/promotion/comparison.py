"""Two versions of one thing side by side.

What belongs here: what differs in inputs, metrics, files and gates. What does not: comparing what the files contain
(the room whose thing it is).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiops_assets.promotion.records import Evaluation
from aiops_assets.promotion.registry import Registry, described


def compare(registry: Registry, thing: str, a: str, b: str) -> dict[str, Any]:
    """JSON-able: ``a`` and ``b`` described, and rows (name, a, b, differs) of inputs, metrics, files and gates."""
    first, second = registry.manifest(thing, a), registry.manifest(thing, b)
    gates_a = {one.gate: one for one in registry.gates(thing, a)}
    gates_b = {one.gate: one for one in registry.gates(thing, b)}
    metrics = _rows(first.metrics, second.metrics)
    for row in metrics:
        if isinstance(row["a"], float) and isinstance(row["b"], float):
            row["difference"] = row["b"] - row["a"]
    return {
        "thing": thing,
        "a": described(first),
        "b": described(second),
        "same": a == b,
        "inputs": _rows(flat(first.inputs), flat(second.inputs)),
        "metrics": metrics,
        "files": _rows(
            {entry.path: entry.sha256 for entry in first.files}, {entry.path: entry.sha256 for entry in second.files}
        ),
        "gates": [
            *_rows({name: _said(one) for name, one in gates_a.items()}, {n: _said(one) for n, one in gates_b.items()}),
            *_rows(_measured(gates_a), _measured(gates_b)),
        ],
    }


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted names."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    found: dict[str, Any] = {}
    for name, inner in value.items():
        found.update(flat(inner, f"{prefix}.{name}" if prefix else str(name)))
    return found


def _rows(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = list(dict.fromkeys([*a, *b]))
    return [{"name": n, "a": a.get(n), "b": b.get(n), "differs": a.get(n) != b.get(n)} for n in names]


def _said(one: Evaluation) -> str:
    return "passed" if one.passed else "failed" if one.blocking else "warns"


def _measured(gates: Mapping[str, Evaluation]) -> dict[str, float]:
    return {
        f"{gate}.{name}": measure.value
        for gate, one in gates.items()
        for name, measure in one.measures.items()
        if measure.value == measure.value
    }
