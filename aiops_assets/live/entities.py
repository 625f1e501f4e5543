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
    """Entities by identifier. What senders tell of one is joined; what is declared wins, field by field.

    ``changed`` says that something is new; ``altered`` that a value differs from the one before, which can wait a
    little: two senders may tell different things of one host with every delivery.
    """

    def __init__(self) -> None:
        self._discovered: dict[str, dict[str, Any]] = {}
        self._rows: tuple[str, pl.DataFrame] | None = None
        self.changed = False
        self.altered = False

    def load(self, stored: pl.DataFrame) -> None:
        """Take over what was discovered before."""
        for row in stored.filter(pl.col("origin") == "discovered").iter_rows(named=True):
            self._discovered[row["entity_id"]] = row

    def discover_hosts(self, series: pl.DataFrame) -> None:
        """Hosts that appear in new series (rows of ``tables.SERIES``)."""
        named = {row["name"] for row in self._discovered.values()}
        for name, first_seen in series.group_by("host").agg(pl.col("first_seen").min()).sort("host").iter_rows():
            if name not in named:
                self._add(name, "host", first_seen)

    def discover(self, entities: pl.DataFrame, at: int) -> None:
        """Entities that deliveries describe (columns of ``formats.batch.ENTITIES_SCHEMA``), at an instant (µs)."""
        for kind, name, site, labels, depends_on in (
            entities.select("kind", "name", "site", "labels", "depends_on").unique(maintain_order=True).iter_rows()
        ):
            # A host that only series told of so far is the device that is described now.
            placeholder = self._discovered.get(f"host:{name}")
            if kind == "device" and placeholder is not None and f"device:{name}" not in self._discovered:
                del self._discovered[f"host:{name}"]
                self._add(name, kind, placeholder["first_seen"])
            known = self._discovered.get(f"{kind}:{name}") or self._add(name, kind, instant(at))
            self._join(known, site, orjson.loads(labels) if labels else {}, depends_on or [])

    def rows(self, config: Config) -> pl.DataFrame:
        """Rows of ``tables.ENTITIES``: declared over discovered, sorted by identifier."""
        if self._rows is not None and self._rows[0] == config.digest:
            return self._rows[1]
        merged = {identifier: dict(row) for identifier, row in self._discovered.items()}
        declared = [
            (e.name, e.kind, e.site, e.owner, dict(e.labels) | {"impact": str(e.impact)}, e.depends_on)
            for e in config.entities
        ] + [(d.name, "device", d.site, d.owner, dict(d.labels), d.depends_on) for d in config.devices]
        for name, kind, site, owner, labels, depends_on in declared:
            identifier = f"{kind}:{name}"
            known = merged.pop(identifier, None) or merged.pop(f"host:{name}", None)
            merged[identifier] = {
                "entity_id": identifier,
                "kind": kind,
                "name": name,
                "site": site or (known and known["site"]),
                "owner": owner,
                "labels": _canonical((orjson.loads(known["labels"]) if known else {}) | labels),
                "depends_on": list(depends_on) or (known["depends_on"] if known else []),
                "origin": "declared",
                "first_seen": known["first_seen"] if known else instant(0),
            }
        frame = pl.DataFrame(list(merged.values()), schema=ENTITIES.schema, orient="row").sort("entity_id")
        self._rows = (config.digest, frame)
        return frame

    def written(self) -> None:
        """The table has what ``rows`` gave."""
        self.changed = self.altered = False

    def _add(self, name: str, kind: str, first_seen: datetime) -> dict[str, Any]:
        row: dict[str, Any] = {
            "entity_id": f"{kind}:{name}",
            "kind": kind,
            "name": name,
            "site": None,
            "owner": None,
            "labels": "{}",
            "depends_on": [],
            "origin": "discovered",
            "first_seen": first_seen,
        }
        self._discovered[row["entity_id"]] = row
        self._rows = None
        self.changed = True
        return row

    def _join(self, known: dict[str, Any], site: str | None, labels: dict[str, str], depends_on: list[str]) -> None:
        before = orjson.loads(known["labels"])
        needs = known["depends_on"] + [name for name in depends_on if name not in known["depends_on"]]
        new = labels.keys() - before.keys() or needs != known["depends_on"] or (site and not known["site"])
        other = any(before[name] != value for name, value in labels.items() if name in before) or (
            site and known["site"] not in {None, site}
        )
        if not new and not other:
            return
        known["labels"], known["depends_on"] = _canonical(before | labels), needs
        known["site"] = site or known["site"]
        self._rows = None
        self.changed |= bool(new)
        self.altered |= bool(other)


def _canonical(labels: dict[str, str]) -> str:
    return orjson.dumps(labels, option=orjson.OPT_SORT_KEYS).decode()


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
