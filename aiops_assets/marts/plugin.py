"""The dbt-duckdb plugin: gives dbt's in-memory DuckDB the lake as views, and files a way to appear whole.

What belongs here: what dbt's child process does at its connections. What does not: anything of the platform's own
processes. Everything it needs stands in the plugin's configuration (``dbt/profiles.yml``, from dbt variables).
"""

from __future__ import annotations

import os
import time
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiops_assets.lake.tables import Lake
from aiops_assets.marts.views import create_lake_views, create_mart_views

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

LAKE_SCHEMA = "lake"
#: a hidden file that a killed run left behind goes after this time
_LEFTOVER_SECONDS = 86_400.0


def plugin_class() -> type[Any]:
    """The class that dbt-duckdb looks for under the name ``Plugin``; made on demand, because dbt is a heavy import."""
    from dbt.adapters.duckdb.plugins import BasePlugin

    class Plugin(BasePlugin):
        """Views over the lake in schema ``lake``, over marts of earlier runs in ``main``, and ``publish(from, to)``."""

        def initialize(self, plugin_config: dict[str, Any]) -> None:
            self._lake, self._marts = str(plugin_config["lake"]), Path(str(plugin_config["marts"]))
            self._days = [date.fromisoformat(str(plugin_config[name])) for name in ("first_day", "last_day")]

        def configure_connection(self, conn: DuckDBPyConnection) -> None:
            create_lake_views(conn, Lake(self._lake), LAKE_SCHEMA)
            create_mart_views(conn, self._marts)
            conn.create_function("prepare_folder", prepare_folder, ["VARCHAR"], "VARCHAR", side_effects=True)
            conn.create_function("publish", publish, ["VARCHAR", "VARCHAR"], "VARCHAR", side_effects=True)

        def configure_cursor(self, cursor: DuckDBPyConnection) -> None:
            # Variables and what is registered belong to one cursor, views to all of them.
            for name, day in zip(("window_first_day", "window_last_day"), self._days, strict=True):
                cursor.execute(f"set variable {name} = date '{day}'")
            if "://" in self._lake:
                create_lake_views(cursor, Lake(self._lake), LAKE_SCHEMA)

    return Plugin


def __getattr__(name: str) -> Any:
    if name == "Plugin":
        return plugin_class()
    raise AttributeError(name)


def prepare_folder(folder: str) -> str:
    """Make a folder and clear away what a killed run left half written in it."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    for leftover in path.glob(".*.writing"):
        if time.time() - leftover.stat().st_mtime > _LEFTOVER_SECONDS:
            leftover.unlink(missing_ok=True)
    return folder


def publish(written: str, final: str) -> str:
    """Put a finished file in the place of another in one step: readers see the old one or the new one, whole."""
    with Path(written).open("rb") as file:
        os.fsync(file.fileno())
    Path(written).replace(final)
    descriptor = os.open(Path(final).parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return final
