"""Storm evaluations as an asset: for each shipped scenario, what the live path makes of it.

What belongs here: wiring and wording. What does not: running and scoring (``storm``, ``scoring``). Nothing of the home
folder is read or changed but what is materialised.
"""

import time
from typing import Any

import dagster as dg
from pydantic import Field

from aiops_assets.lake.drawing import markdown_image, markdown_table
from aiops_assets.synthetic.storms.scenario import shipped
from aiops_assets.tables import PLATFORM

GROUP = "evaluation"
NAME = "storm_evaluation"
#: a run says at most this often how far it has come
_TELL_SECONDS = 10.0


class StormEvaluationConfig(dg.Config):
    """How storms are drawn."""

    seed: int | None = Field(default=None, description="seed of the storm; the scenario's own when left out")


def evaluation_assets() -> list[dg.AssetsDefinition]:
    """The assets of this room; the partitions are the shipped scenarios."""
    return [_storm_evaluation()]


def _storm_evaluation() -> dg.AssetsDefinition:
    @dg.asset(
        name=NAME,
        group_name=GROUP,
        partitions_def=dg.StaticPartitionsDefinition(shipped()),
        owners=[PLATFORM],
        kinds={"polars", "deltalake"},
        tags={"plane": "learning"},
        description="A storm whose truth is known, sent through the live path's own code in a home of its own: recall "
        "per fault, delay, false alarms a shift and for 10,000 series, compression, grouping, rank of the root cause.",
    )
    def storm_evaluation(
        context: dg.AssetExecutionContext, config: StormEvaluationConfig
    ) -> dg.MaterializeResult[None]:
        from aiops_assets.evaluation.report import document, faults_frame, picture, summary
        from aiops_assets.evaluation.storm import evaluate
        from aiops_assets.synthetic.storms.scenario import load_scenario

        told = time.monotonic()

        def tell(at: int, start: int, end: int) -> None:
            nonlocal told
            if time.monotonic() - told >= _TELL_SECONDS:
                told = time.monotonic()
                context.log.info(f"{(at - start) / max(end - start, 1):.0%} of the event time")

        done = evaluate(load_scenario(context.partition_key), seed=config.seed, tell=tell)
        score = done.score
        context.log.info(
            f"{score.scenario}: {len(score.found)} of {len(score.faults)} faults found, "
            f"{score.pages.wrong} of {score.pages.total} pages false"
        )
        content = document(score)
        return dg.MaterializeResult(
            metadata={
                "timeline": dg.MetadataValue.md(markdown_image(picture(done), f"timeline of {score.scenario}")),
                "faults": dg.MetadataValue.md(markdown_table(faults_frame([score]).drop("scenario"))),
                "summary": dg.MetadataValue.md(markdown_table(summary([score]))),
                "score": dg.MetadataValue.json(content),
                **_numbers(content),
            }
        )

    return storm_evaluation


def _numbers(content: dict[str, Any]) -> dict[str, Any]:
    """Plain numbers, which the UI plots over materialisations."""
    names = ("recall", "recall_paged", "median_delay", "median_delay_visible", "compression", "seconds")
    numbers = {name: content[name] for name in names if content[name] is not None}
    for part in ("alerts", "incidents", "pages"):
        numbers[part] = content[part]["total"]
        numbers[f"false_{part}"] = content[part]["wrong"]
    numbers["false_pages_per_shift_and_10k_series"] = content["per_shift_and_10k_series"]["false_pages"]
    for name in ("hit_1", "hit_3", "reciprocal_rank"):
        if content["root_cause"][name] is not None:
            numbers[f"root_cause_{name}"] = content["root_cause"][name]
    return numbers
