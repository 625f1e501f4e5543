"""How our names become Prometheus names.

What belongs here: the mapping of metric and label names. What does not: which series have which labels (``index``).
Every character that Prometheus' classic names may not have becomes an underscore (``system.cpu.utilization`` →
``system_cpu_utilization``), as OpenTelemetry's Prometheus compatibility rules say. The mapping is not injective;
``index`` keeps series apart that it would make equal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

NAME = "__name__"
#: labels that come from columns of ``series``; a metric label of the same name is moved to ``exported_…``
OWN_LABELS = ("host", "unit", "source")
#: label that tells metrics apart whose names become equal, and series that would still be equal
ORIGINAL_NAME, ORIGINAL_SERIES = "metric", "series_id"
_CLASSIC_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_CLASSIC_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


def is_classic(name: str) -> bool:
    """Whether Prometheus accepts a metric name without quotes."""
    return _CLASSIC_METRIC.fullmatch(name) is not None


def is_label(name: str) -> bool:
    """Whether Prometheus accepts a label name without quotes."""
    return _CLASSIC_LABEL.fullmatch(name) is not None


def metric_name(name: str) -> str:
    """The Prometheus name of one of our metrics."""
    mapped = re.sub(r"[^a-zA-Z0-9_:]", "_", name)
    return mapped if is_classic(mapped) else "_" + mapped


def label_name(name: str) -> str:
    """The Prometheus name of one of our labels."""
    mapped = re.sub(r"[^a-zA-Z0-9_]", "_", name)
    mapped = mapped if is_label(mapped) else "_" + mapped
    reserved = mapped in {*OWN_LABELS, ORIGINAL_NAME, ORIGINAL_SERIES} or mapped.startswith("__")
    return "exported_" + mapped if reserved else mapped


def label_names(labels: Mapping[str, str]) -> dict[str, str]:
    """Prometheus labels of one series' labels; of two names that become equal the second gets ``_2``, and so on."""
    mapped: dict[str, str] = {}
    for name in sorted(labels, key=lambda name: (label_name(name) != name, name)):
        wanted = candidate = label_name(name)
        number = 2
        while candidate in mapped:
            candidate = f"{wanted}_{number}"
            number += 1
        mapped[candidate] = labels[name]
    return mapped
