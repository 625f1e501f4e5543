"""Synthetic data sets in the asset graph: golden incidents as candidate, gates and champion.

What belongs here: wiring. What does not: generating (``golden``), judging (``gate``) and promoting (``promotion``).
"""

from aiops_assets.lake.assets import table_metadata
from aiops_assets.promotion.assets import PromotedThing, promoted
from aiops_assets.synthetic.gate.gates import golden_gates
from aiops_assets.synthetic.golden.candidates import produce, publish
from aiops_assets.synthetic.golden.versions import THING
from aiops_assets.tables import GOLDEN_INCIDENTS

GROUP = "synthetic"
_ABOUT = """Synthetic ITSM incidents for training, tests, demos and evaluation, made as `golden` in aiops.yaml says:
count, seed, configuration, and a real reference that they shall be like.

Every version is reproducible from its recorded inputs. The champion's rows are in the lake table `golden_incidents`
(column `version`), its certificate under `certificates/golden_incidents/` of the home folder."""


def golden_incidents() -> PromotedThing:
    """The promoted data set."""
    return promoted(
        THING,
        kind="dataset",
        produce=produce,
        gates=golden_gates(),
        publish=publish,
        group=GROUP,
        owners=[GOLDEN_INCIDENTS.owner],
        description=_ABOUT,
        kinds=("polars", "deltalake"),
        metadata=table_metadata(GOLDEN_INCIDENTS),
    )
