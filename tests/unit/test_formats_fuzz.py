"""Whatever arrives: no parser fails, nothing is lost, memory stays bounded."""

from __future__ import annotations

import resource

import pytest

from aiops_assets.formats import FORMATS, parse
from aiops_assets.formats.rows import SCHEMAS
from aiops_assets.landing.segment import Delivery
from aiops_assets.live.events import EVENT_TABLES
from aiops_assets.sources.catalogue import FEEDS
from tests.corpus import AT, SEEDS, Seed, mutated

EVENTS = ("changes", *SCHEMAS)
PER_FORMAT, PER_FORMAT_SOAK, AT_ONCE = 300, 10_000, 50
MEMORY = 400 * 1024


def test_every_format_has_seeds() -> None:
    assert set(SEEDS) == set(FORMATS)


def deliveries(format_name: str, payloads: list[Seed]) -> list[Delivery]:
    return [
        Delivery(f"d{n}", AT * 1_000_000, "fuzz", seed.content_type, seed.body, {"format": format_name, **seed.headers})
        for n, seed in enumerate(payloads)
    ]


def lost(format_name: str, payloads: list[Seed]) -> list[bytes]:
    """Bodies that gave neither rows nor a reject. A body that says nothing at all may give nothing."""
    parsed = parse(format_name, deliveries(format_name, payloads))
    told = {reject.delivery for reject in parsed.rejects} | set(parsed.points["delivery"].to_list())
    for name in EVENTS:
        told |= set(getattr(parsed, name)["delivery"].to_list())
    silent = set(range(len(payloads))) - told
    return [payloads[n].body for n in sorted(silent)] if silent and parsed.entities.is_empty() else []


@pytest.mark.parametrize("format_name", sorted(SEEDS))
def test_what_senders_write_is_read(format_name: str) -> None:
    seeds = list(SEEDS[format_name])
    assert lost(format_name, seeds) == []


@pytest.mark.parametrize("format_name", sorted(SEEDS))
def test_damaged_payloads_end_as_rows_or_rejects(format_name: str) -> None:
    _fuzz(format_name, PER_FORMAT, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("format_name", sorted(SEEDS))
def test_ten_thousand_damaged_payloads_end_as_rows_or_rejects(format_name: str) -> None:
    _fuzz(format_name, PER_FORMAT_SOAK, seed=2)


def _fuzz(format_name: str, count: int, seed: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    batch: list[Seed] = []
    for payload in mutated(format_name, count, seed):
        batch.append(payload)
        if len(batch) == AT_ONCE:
            assert lost(format_name, batch) == []
            batch = []
    assert lost(format_name, batch) == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY, "KiB more than before"


@pytest.mark.parametrize("format_name", sorted(set(SEEDS) - {"rows"}))
def test_rows_go_where_the_catalogue_says(format_name: str) -> None:
    parsed = parse(format_name, deliveries(format_name, list(SEEDS[format_name])))
    frames = {"metric_points": parsed.points, "changes": parsed.changes, "entities": parsed.entities}
    frames |= {"alerts": parsed.external} | {table.name: getattr(parsed, name) for name, table in EVENT_TABLES.items()}
    filled = {table for table, frame in frames.items() if not frame.is_empty()}
    assert filled
    assert filled <= FEEDS[format_name]
