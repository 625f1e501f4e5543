"""Marts: what the lake's tables say, rolled up by dbt on DuckDB, and how people read it.

What belongs here: DuckDB views over the lake, the dbt project's wiring into the asset graph, read-only queries, and the
KPI page. What does not: the models themselves (``dbt/``, SQL), anything of the live plane, and writing to the lake.
DuckDB and dbt are imported inside functions only; the KPI page needs neither.

In a notebook: ``from aiops_assets.marts import connect; connect().sql("select * from metric_daily")``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from aiops_assets.settings import Settings


def connect(settings: Settings | None = None) -> DuckDBPyConnection:
    """A DuckDB connection (in memory) with one view for every table of the lake and every mart, as they are now.

    Views name the files of this moment: connect again to see what came since. The time zone is UTC.

    Raises:
        ValueError: the home folder does not exist.
    """
    from aiops_assets.marts.views import open_all
    from aiops_assets.settings import load_settings

    return open_all(settings or load_settings())
