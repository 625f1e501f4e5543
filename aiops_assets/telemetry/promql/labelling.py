"""``label_replace`` and ``label_join``.

What belongs here: functions that change labels and no value. What does not: the mapping of our names (``names``).
"""

from __future__ import annotations

from collections.abc import Sequence

from aiops_assets.telemetry.promql import regexes
from aiops_assets.telemetry.promql.errors import execution
from aiops_assets.telemetry.promql.names import is_label
from aiops_assets.telemetry.promql.vectors import Vector, merged


def label_replace(vector: Vector, target: str, replacement: str, source: str, pattern: str) -> Vector:
    """Where the whole of label ``source`` matches, label ``target`` becomes the replacement; empty removes it.

    Raises:
        QueryError: ``target`` is no label name, the pattern is not legal, or two elements become equal.
    """
    if not is_label(target):
        raise execution(f"invalid destination label name in label_replace(): {target}")
    present = [entry.get(source, "") for entry in vector.labels]
    distinct = sorted(set(present))
    becomes = dict(zip(distinct, regexes.replaced(distinct, pattern, replacement), strict=True))
    labels = []
    for entry, value in zip(vector.labels, present, strict=True):
        new = becomes[value]
        changed = entry if new is None else {**entry, target: new}
        labels.append({name: text for name, text in changed.items() if text})
    return merged(labels, vector.values, vector.present)


def label_join(vector: Vector, target: str, separator: str, sources: Sequence[str]) -> Vector:
    """Label ``target`` becomes the values of ``sources``, joined.

    Raises:
        QueryError: a name is no label name, or two elements become equal.
    """
    for name, place in ((target, "destination"), *((source, "source") for source in sources)):
        if not is_label(name):
            raise execution(f"invalid {place} label name in label_join(): {name}")
    labels = []
    for entry in vector.labels:
        joined = separator.join(entry.get(source, "") for source in sources)
        labels.append({name: text for name, text in {**entry, target: joined}.items() if text})
    return merged(labels, vector.values, vector.present)
