"""Any set of golden incidents held against the gates, whether or not it is a registered version.

What belongs here: asking every gate about a frame. What does not: the gates, and what is recorded of versions.
"""

from __future__ import annotations

from collections.abc import Callable

from aiops_assets.promotion.gates import GateResult
from aiops_assets.synthetic.gate.gates import JUDGES
from aiops_assets.synthetic.gate.subject import Subject


def validated(
    subject: Subject, progress: Callable[[str, int, int], None] = lambda name, done, total: None
) -> dict[str, GateResult]:
    """What every gate says, in their order; a gate that breaks fails, with its error as the finding."""
    results: dict[str, GateResult] = {}
    for number, (name, _, judge) in enumerate(JUDGES):
        progress(name, number, len(JUDGES))
        try:
            results[name] = judge(subject)
        except Exception as error:  # one gate that cannot judge must not keep the others from being asked
            results[name] = GateResult(False, f"could not judge: {type(error).__name__}: {error}")
    progress("", len(JUDGES), len(JUDGES))
    return results
