"""The lake's tables as dbt sources, written from ``tables.py``.

What belongs here: the text of ``dbt/models/lake/sources.yml``. What does not: the views themselves (``views``). The
file is checked in, so that dbt's own tools and readers see it; ``aiops marts sources`` writes it again and a test says
when it is stale.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from aiops_assets.marts.plugin import LAKE_SCHEMA
from aiops_assets.marts.views import OPEN_POINTS, duckdb_type
from aiops_assets.tables import METRIC_POINTS, TABLES, Table

#: below the dbt project
FILE = "models/lake/sources.yml"
_HEAD = "# Written from aiops_assets/tables.py by `aiops marts sources`; do not edit.\n"


def sources_yaml() -> str:
    """The whole file."""
    tables = [_table(table) for table in TABLES.values()]
    about = "Points of hours that are not closed yet: no baseline stands for them."
    tables.insert(1, _table(METRIC_POINTS) | {"name": OPEN_POINTS, "description": about})
    source = {
        "name": LAKE_SCHEMA,
        "schema": LAKE_SCHEMA,
        "description": "The canonical Delta tables, one view each over the files that their logs name.",
        "tables": tables,
    }
    return _HEAD + yaml.safe_dump({"version": 2, "sources": [source]}, sort_keys=False, allow_unicode=True, width=120)


def stale(project: Path) -> bool:
    """Whether the checked-in file differs from what ``tables.py`` says."""
    path = project / FILE
    return not path.is_file() or path.read_text("utf-8") != sources_yaml()


def write(project: Path) -> Path:
    """Write the file; its path."""
    path = project / FILE
    path.write_text(sources_yaml(), "utf-8")
    return path


def _table(table: Table) -> dict[str, Any]:
    units = {column.name: f" [{column.unit}]" if column.unit else "" for column in table.columns}
    columns = [
        {
            "name": column.name,
            "data_type": duckdb_type(column.dtype),
            "description": column.description + units[column.name],
        }
        for column in table.columns
    ]
    if table.partition and table.partition not in {column.name for column in table.columns}:
        form = {"hour": "YYYY-MM-DDTHH", "day": "YYYY-MM-DD"}[table.partition]
        description = f"partition: {table.partition} of {table.time_column}, {form} in UTC"
        columns.append({"name": table.partition, "data_type": "VARCHAR", "description": description})
    return {
        "name": table.name,
        "description": table.description,
        "config": {"meta": {"key": list(table.key), "owner": table.owner, "schema_version": table.schema_version}},
        "columns": columns,
    }
