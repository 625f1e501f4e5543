"""What tests of storms share: a small scenario, and deliveries as parsers get them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from aiops_assets.formats import parse
from aiops_assets.formats.batch import Parsed
from aiops_assets.synthetic.storms.delivery import delivery_of
from aiops_assets.synthetic.storms.engine import Emission, Storm
from aiops_assets.synthetic.storms.scenario import Scenario, parse_scenario

#: a Friday, 13:20 UTC
START = 1_795_180_800_000_000
SECOND = 1_000_000


def document(**changes: Any) -> dict[str, Any]:
    """A scenario of five hosts and a switch, ten minutes long, without faults."""
    made: dict[str, Any] = {
        "name": "tiny",
        "title": "A scenario of tests",
        "duration": "10m",
        "services": {"shop": {"depends_on": ["orders"]}, "orders": {}},
        "hosts": {
            "web": {
                "name": "web-{n}", "count": 3, "service": "shop", "site": "ams", "racks": 2,
                "profiles": ["linux", "web"], "depends_on": ["db", "switch"],
            },
            "db": {
                "name": "db-{n}", "count": 2, "service": "orders", "site": "ams", "racks": 2,
                "profiles": ["linux", "postgres"], "bmc": True, "bmc_interval": "30s", "depends_on": ["switch"],
            },
            "switch": {"name": "switch-{n}", "profiles": ["switch"], "sender": "snmp", "site": "ams",
                "interval": "20s"},
        },
    }  # fmt: skip
    return {**made, **changes}


def tiny(*faults: dict[str, Any], **changes: Any) -> Scenario:
    """That scenario with faults."""
    return parse_scenario(document(faults=list(faults), **changes))


def fault(kind: str, target: str, start: str = "2m", lasts: str = "5m", **more: Any) -> dict[str, Any]:
    """A fault called ``it``."""
    return {"id": "it", "kind": kind, "target": target, "start": start, "lasts": lasts, **more}


def played(scenario: Scenario, *, seed: int | None = None, **more: Any) -> list[Emission]:
    """All its deliveries."""
    return list(Storm(scenario, START, seed).emissions(**more))


def parsed(emissions: Iterable[Emission]) -> dict[str, Parsed]:
    """What parsers read, by format."""
    by_format: dict[str, list[Emission]] = defaultdict(list)
    for emission in emissions:
        by_format[emission.format].append(emission)
    return {
        name: parse(name, [delivery_of(one, one.at, history=one.history) for one in found])
        for name, found in by_format.items()
    }
