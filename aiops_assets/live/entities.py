"""Entities and maintenance windows as the live plane knows them: declared in ``aiops.yaml`` or discovered."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson
import polars as pl

from aiops_assets.config import Config
from aiops_assets.detection.alerts import Suppression
from aiops_assets.hours import instant
from aiops_assets.tables import ENTITIES, MAINTENANCE


class EntityBook:
    """Entities by identifier. Declared ones win over discovered ones of the same name, field by field."""

    def __init__(self) -> None:
        self._discovered: dict[str, dict[str, Any]] = {}
        self._rows: tuple[str, pl.DataFrame] | None = None
        self.changed = False

    def load(self, stored: pl.DataFrame) -> None:
        """Take over what was discovered before."""
        for row in stored.filter(pl.col("origin") == "discovered").iter_rows(named=True):
            self._discovered[row["name"]] = row

    def discover_hosts(self, series: pl.DataFrame) -> None:
        """Hosts that appear in new series (rows of ``tables.SERIES``)."""
        for name, first_seen in series.group_by("host").agg(pl.col("first_seen").min()).sort("host").iter_rows():
            if name not in self._discovered:
                self._add(name, "host", None, "{}", [], first_seen)

    def discover(self, entities: pl.DataFrame, at: int) -> None:
        """Entities that deliveries describe (columns of ``formats.batch.ENTITIES_SCHEMA``)."""
        for kind, name, site, labels, depends_on in (
            entities.select("kind", "name", "site", "labels", "depends_on").unique().iter_rows()
        ):
            known = self._discovered.get(name)
            described = (kind, site, labels, depends_on or [])
            if known is None or (known["kind"], known["site"], known["labels"], known["depends_on"]) != described:
                first_seen = instant(at) if known is None else known["first_seen"]
                self._add(name, kind, site, labels, depends_on or [], first_seen)

    def rows(self, config: Config) -> pl.DataFrame:
        """Rows of ``tables.ENTITIES``: declared over discovered, sorted by identifier."""
        if self._rows is not None and self._rows[0] == config.digest:
            return self._rows[1]
        merged = {name: dict(row) for name, row in self._discovered.items()}
        declared = [
            (e.name, e.kind, e.site, e.owner, dict(e.labels) | {"impact": str(e.impact)}, e.depends_on)
            for e in config.entities
        ] + [(d.name, "device", d.site, d.owner, dict(d.labels), d.depends_on) for d in config.devices]
        for name, kind, site, owner, labels, depends_on in declared:
            known = merged.get(name)
            merged[name] = {
                "entity_id": f"{kind}:{name}",
                "kind": kind,
                "name": name,
                "site": site or (known and known["site"]),
                "owner": owner,
                "labels": orjson.dumps(labels, option=orjson.OPT_SORT_KEYS).decode(),
                "depends_on": list(depends_on) or (known["depends_on"] if known else []),
                "origin": "declared",
                "first_seen": known["first_seen"] if known else instant(0),
            }
        frame = pl.DataFrame(list(merged.values()), schema=ENTITIES.schema, orient="row").sort("entity_id")
        self._rows = (config.digest, frame)
        self.changed = False
        return frame

    def _add(
        self, name: str, kind: str, site: str | None, labels: str, depends_on: list[str], first_seen: datetime
    ) -> None:
        self._discovered[name] = {
            "entity_id": f"{kind}:{name}",
            "kind": kind,
            "name": name,
            "site": site,
            "owner": None,
            "labels": labels,
            "depends_on": depends_on,
            "origin": "discovered",
            "first_seen": first_seen,
        }
        self._rows = None
        self.changed = True


def maintenance_rows(windows: Sequence[Suppression]) -> pl.DataFrame:
    """Rows of ``tables.MAINTENANCE`` for the windows and silences in force."""
    rows = [
        {
            "window_id": window.window_id,
            "kind": window.kind,
            "matchers": orjson.dumps(
                {"host": window.host, "rule": window.rule, **dict(window.labels)}, option=orjson.OPT_SORT_KEYS
            ).decode(),
            "starts_at": instant(window.starts_at),
            "ends_at": instant(window.ends_at),
            "author": window.author,
            "reason": window.reason,
        }
        for window in windows
    ]
    return pl.DataFrame(rows, schema=MAINTENANCE.schema, orient="row")
