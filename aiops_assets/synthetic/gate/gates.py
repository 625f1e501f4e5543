"""The gates of golden incidents: what a data set must show before it serves anybody.

What belongs here: the list of gates, and those that need a reference (privacy, utility, discriminator). What does not:
what the others measure (``rules``, ``statistics``, ``texts``, ``realism``) and how gates are run (``promotion``).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from aiops_assets.promotion.gates import Gate, GateResult, Measure, VersionFiles
from aiops_assets.synthetic.gate import drawings, realism, rules, statistics, texts
from aiops_assets.synthetic.gate.subject import Subject, subject

Judge = Callable[[Subject], GateResult]
_NO_REFERENCE = "no reference is configured (golden.reference in aiops.yaml)"
AUC_LIMIT = 0.60
LOSS_LIMIT = 0.10


def privacy(given: Subject) -> GateResult:
    """No personal data and no secrets; with a reference, no record of it and none closer than real ones are."""
    found = texts.personal_data(given.frame, given.people)
    measures = {"personal_data": Measure(found.height, most=0)}
    rows = [
        {"incident_id": row["incident_id"], "field": row["field"], "kind": row["kind"], "text": _masked(row["text"])}
        for row in found.head(50).to_dicts()
    ]
    if given.reference is not None:
        near = realism.closeness(given.reference, given.finished, seed=given.seed)
        measures["copies_of_real_records"] = Measure(near.copies, most=0.001, unit="share")
        measures["closer_than_real_records"] = Measure(near.close, most=0.02, unit="share")
        measures["median_distance_to_real"] = Measure(
            float(np.median(near.made)), least=0.8 * float(np.median(near.real))
        )
    failed = [name for name, measure in measures.items() if not measure.holds]
    kinds = ", ".join(f"{kind} {count}" for kind, count in found["kind"].value_counts(sort=True).iter_rows())
    return GateResult(
        not failed,
        f"{found.height:,} finds of personal data or secrets ({kinds})" if found.height else
        (f"does not hold: {', '.join(failed)}" if failed else "no personal data, no secrets, no copies"),
        measures,
        rows,
        advice="Do not export this version. Find where it comes from, replace it (`privacy.redact`), make it anew.",
    )  # fmt: skip


def _masked(text: str) -> str:
    return text[:2] + "…" + text[-1:] if len(text) > 4 else "…"


def utility(given: Subject) -> GateResult:
    """Who learns from made-up records does as well on real ones as who learnt from real ones, within ten per cent."""
    if given.reference is None:
        return GateResult(True, f"skipped: {_NO_REFERENCE}", skipped=_NO_REFERENCE)
    real = given.reference.filter(pl.col("resolved_at").is_not_null())
    losses: dict[str, list[realism.Utility]] = {}
    for turn in range(1):
        order = np.random.default_rng(given.seed + turn).permutation(real.height)
        half = real.height // 2
        for train, test in ((order[:half], order[half:]), (order[half:], order[:half])):
            for one in realism.utility(real[np.sort(train)], real[np.sort(test)], given.finished, seed=turn):
                losses.setdefault(one.target, []).append(one)
    measures = {}
    rows = []
    for target, scored in losses.items():
        mine, theirs = float(np.mean([s.made for s in scored])), float(np.mean([s.real for s in scored]))
        loss = realism.Utility(target, theirs, mine, scored[0].rows).loss
        measures[f"loss_{target.replace(' ', '_')}"] = Measure(loss, most=LOSS_LIMIT, unit="share")
        rows.append({"target": target, "trained on real": round(theirs, 4), "trained on synthetic": round(mine, 4),
                     "loss": round(loss, 4)})  # fmt: skip
    return statistics._verdict(measures, rows, None, "utility",
                               "The fit misses what these targets depend on: give it a larger reference.")  # fmt: skip


def discriminator(given: Subject) -> GateResult:
    """A gradient-boosted classifier cannot tell synthetic from real records."""
    if given.reference is None:
        return GateResult(True, f"skipped: {_NO_REFERENCE}", skipped=_NO_REFERENCE)
    real = given.reference.filter(pl.col("resolved_at").is_not_null())
    found = realism.discriminate(real, given.finished, seed=given.seed)
    measures = {"auc": Measure(found.auc, most=AUC_LIMIT), "standard_error": Measure(found.error)}
    return GateResult(
        measures["auc"].holds,
        f"area under the ROC curve {found.auc:.3f} ± {found.error:.3f} (0.5: cannot tell, 1: always)",
        measures,
        [{"feature": name, "lost without it": round(value, 4)} for name, value in found.tells if value > 0],
        drawings.roc("Telling synthetic from real", found.scores, found.labels),
        "Features in the details give synthetic records away; look at their distributions beside the reference.",
    )


JUDGES: tuple[tuple[str, str, Judge], ...] = (
    ("schema", "Columns, types, required values and ranges (Great Expectations).", rules.schema),
    ("uniqueness", "Numbers are unique and no row is copied (Great Expectations).", rules.uniqueness),
    ("vocabulary", "Known names; subcategory and group fit the category (Great Expectations).", rules.vocabulary),
    ("cross_fields", "Priority, SLA, state and nulls agree (Great Expectations).", rules.cross_fields),
    ("time_order", "Times and entries are in order and inside the life (Great Expectations).", rules.time_order),
    ("volumes", "Categories come as often as they are weighed.", statistics.volumes),
    ("distribution", "Distances to the reference, or to what the configuration declares.", statistics.distribution),
    ("times", "Times follow seasonality, business hours and the grain of clocks.", statistics.times),
    ("confidence", "Stored confidence is what the record's checks give.", statistics.confidence),
    ("diversity", "Few near duplicates, many phrases, no dominating template.", texts.diversity),
    ("text_consistency", "Texts tell category, language and resolution of their own record.", texts.text_consistency),
    ("privacy", "No personal data, no secrets, no record of the reference.", privacy),
    ("utility", "Learning from it works as learning from real records does.", utility),
    ("discriminator", "A classifier cannot tell it from real records.", discriminator),
)


def judge(name: str, given: Subject) -> GateResult:
    """The verdict of one gate. A data set without the columns of records fails the schema and whatever needs them."""
    found = {entry[0]: entry[2] for entry in JUDGES}
    return found[name](given)


def golden_gates() -> list[Gate]:
    """The gates, for ``promoted``; everything they need is in the version and its recorded inputs."""

    def gate(name: str, description: str, asked: Judge) -> Gate:
        def judged(files: VersionFiles, champion: VersionFiles | None) -> GateResult:
            return asked(subject(files))

        return Gate(name, description, judged)

    return [gate(*entry) for entry in JUDGES]
