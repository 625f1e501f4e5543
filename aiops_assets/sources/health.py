"""Judging sources: are they late, does a polled device lag, were series refused?

What belongs here: pure functions from what the collector and the session wrote down to ``CheckResult``. What does not:
Dagster (``sources.factory``) and alerts about silent hosts, which are rules.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.lake.report import CheckResult, Number, SourceDrops
from aiops_assets.sources.catalogue import SHIPPED
from aiops_assets.tables import SERIES

ARRIVES, ARRIVES_TEXT = "arrives_in_time", "The last delivery is younger than the source's freshness limit."
NO_LAGGARDS, LAGGARDS_TEXT = "no_laggards", "Every polled device answers, and well within its deadline."
WITHIN_CAP = "series_within_cap"
CAP_TEXT = "No source has been refused new series (max_series in aiops.yaml, AIOPS_MAX_SERIES_PER_SOURCE)."
#: sources of which nothing is expected
ON_DEMAND = frozenset(entry.name for entry in SHIPPED if entry.freshness is None)
_MOST_NAMED = 10


def arrives_in_time(source: str, limit: float | None, last_received_at: int, now: int) -> CheckResult:
    """Age of a source's last delivery against its limit in seconds (``None``: it comes when somebody asks for it).

    Instants are microseconds since the epoch, ``last_received_at`` 0 for never: nothing is expected of a source that
    nobody has connected yet.
    """
    never = last_received_at == 0
    age = (now - last_received_at) / MICROS_PER_SECOND
    numbers: dict[str, Number] = {"age_seconds": "nothing has arrived yet" if never else round(age, 1)}
    if limit is not None:
        numbers["late_after_seconds"] = limit
    passed = never or limit is None or age <= limit
    return CheckResult(f"drops/{source}", ARRIVES, passed, ARRIVES_TEXT, "WARN", numbers=numbers)


def no_laggards(source: str, status: Mapping[str, Any]) -> CheckResult:
    """Which devices of a source are slow or do not answer, from the collector's status file."""
    devices = {
        str(name): device
        for name, device in sorted(status.get("devices", {}).items())
        if isinstance(device, Mapping) and device.get("source") == source
    }
    late = {
        name: str(device.get("error") or "does not answer") if not device.get("ok", True) else "slow"
        for name, device in devices.items()
        if device.get("slow") or not device.get("ok", True)
    }
    numbers: dict[str, Number] = {"devices": len(devices), "laggards": len(late)}
    numbers.update({name: late[name] for name in list(late)[:_MOST_NAMED]})
    return CheckResult(f"drops/{source}", NO_LAGGARDS, not late, LAGGARDS_TEXT, "WARN", numbers=numbers)


def series_within_cap(refused: Mapping[str, int]) -> CheckResult:
    """Whether any source was refused series; ``refused`` counts the refused series by source."""
    worst: dict[str, Number] = {source: count for source, count in sorted(refused.items()) if count}
    return CheckResult(SERIES.name, WITHIN_CAP, not worst, CAP_TEXT, "WARN", numbers=worst or {"refused": 0})


def on_arrival(drops: Sequence[SourceDrops], collector: Path, now: int) -> list[CheckResult]:
    """What a live session knows about sources that have just delivered, so that their checks are never out of date.

    ``collector`` is the collector's folder, ``now`` in microseconds since the epoch.
    """
    status = read_status(collector / "status.json")
    expected = [entry for entry in drops if entry.source not in ON_DEMAND]
    results = [arrives_in_time(entry.source, None, entry.last_received_at, now) for entry in expected]
    polled = {device.get("source") for device in status.get("devices", {}).values() if isinstance(device, Mapping)}
    return results + [no_laggards(entry.source, status) for entry in drops if entry.source in polled]


def read_status(path: Path) -> Mapping[str, Any]:
    """The collector's status file; empty while the collector has not written one."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    return content if isinstance(content, dict) else {}
