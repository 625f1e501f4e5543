"""Planted defects are refused by the gate that is there for them; good data sets pass.

The everyday part asks gates that need no long import; every defect and every variant is asked in the soak part.
"""

from __future__ import annotations

from functools import lru_cache

import polars as pl
import pytest

from aiops_assets.promotion.gates import GateResult
from aiops_assets.synthetic.gate import gates
from aiops_assets.synthetic.gate.subject import Subject
from aiops_assets.synthetic.golden.config import default_config, parse_golden_config
from aiops_assets.synthetic.golden.generate import generate
from tests.golden_defects import DEFECTS, VARIANTS

QUICK = {"volumes", "distribution", "times", "confidence", "diversity"}


@lru_cache(maxsize=2)
def good(count: int = 800, seed: int = 1) -> Subject:
    return Subject(generate(default_config(), count=count, seed=seed), default_config(), seed=seed)


def judged(name: str, frame: pl.DataFrame, base: Subject) -> GateResult:
    subject = Subject(frame, base.config, base.reference, base.source, base.people, base.seed)
    subject.__dict__["expected"] = base.expected
    return gates.judge(name, subject)


@pytest.mark.parametrize("name", [name for name, (_, gate) in DEFECTS.items() if gate in QUICK])
def test_a_planted_defect_is_refused_by_its_gate(name: str) -> None:
    plant, gate = DEFECTS[name]
    assert not judged(gate, plant(good().frame), good()).passed


@pytest.mark.parametrize("gate", sorted(QUICK))
def test_good_records_pass(gate: str) -> None:
    result = judged(gate, good().frame, good())
    assert result.passed, result.summary


def test_there_are_enough_defects_and_variants() -> None:
    assert len(DEFECTS) >= 25
    assert len(VARIANTS) >= 20
    assert {gate for _, gate in DEFECTS.values()} <= {name for name, _, _ in gates.JUDGES}


def test_without_a_reference_what_needs_one_is_skipped_with_the_reason() -> None:
    for name in ("utility", "discriminator"):
        result = gates.judge(name, good())
        assert result.passed
        assert "golden.reference" in result.skipped


@pytest.mark.soak
@pytest.mark.parametrize("name", sorted(DEFECTS))
def test_every_defect_is_refused_by_its_gate(name: str) -> None:
    plant, gate = DEFECTS[name]
    base = good(1_500, 1)
    assert not judged(gate, plant(base.frame), base).passed


@pytest.mark.soak
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_every_variant_passes_every_gate(name: str) -> None:
    text, count, seed = VARIANTS[name]
    config = parse_golden_config(text, name) if text else default_config()
    subject = Subject(generate(config, count=count, seed=seed), config, seed=seed)
    refused = {gate: result.summary for gate, _, judge in gates.JUDGES if not (result := judge(subject)).passed}
    assert refused == {}
