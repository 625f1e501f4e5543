"""The asset of storm evaluations: a partition a shipped scenario, and what a materialisation tells."""

from __future__ import annotations

import dagster as dg
import pytest

from aiops_assets.evaluation.assets import NAME, evaluation_assets
from aiops_assets.synthetic.storms.scenario import shipped


def test_each_shipped_scenario_is_a_partition() -> None:
    (asset,) = evaluation_assets()
    assert asset.partitions_def is not None
    assert asset.partitions_def.get_partition_keys() == shipped()
    assert {"calm-week", "bad-deploy"} <= set(shipped())
    assert asset.metadata_by_key is not None
    assert asset.key == dg.AssetKey(NAME)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_materialisation_has_the_score_its_picture_and_numbers_to_plot() -> None:
    result = dg.materialize(evaluation_assets(), partition_key="bad-deploy")
    assert result.success
    (event,) = result.get_asset_materialization_events()
    metadata = event.materialization.metadata
    assert metadata["recall"].value == 1.0
    assert isinstance(metadata["false_pages"].value, int)
    assert str(metadata["timeline"].value).startswith("![")
    assert "data:image/svg+xml;base64," in str(metadata["timeline"].value)
    assert "bad_deploy" in str(metadata["score"].value)
