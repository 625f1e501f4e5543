"""What depends on what: the graph that incidents follow.

Nodes are entities by name, from ``aiops.yaml`` (entities and devices) and from discovery (table ``entities``); what is
declared wins. An edge says that one entity needs another. Walks are bounded by ``MAX_DEPTH`` steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson
import polars as pl

from aiops_assets.config import Config

MAX_DEPTH = 3
#: a service of more parts than this says little about two of them
MAX_PARTS = 20
#: labels that say where something belongs; two alerts that share one (and the metric) may have one cause
SCOPE_LABELS = ("service", "service.name", "cluster", "rack", "site")


@dataclass(frozen=True, slots=True)
class Node:
    """An entity. ``impact`` is ``None`` when nobody declared it; ``needs`` are names."""

    name: str
    kind: str = "host"
    site: str | None = None
    owner: str | None = None
    impact: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()


class Topology:
    """The dependency graph. Paths are tuples of names from the asked entity (left out) to the one found."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = {node.name: node for node in nodes}
        self._needed_by: dict[str, list[str]] = {}
        for node in nodes:
            for needed in node.needs:
                self._needed_by.setdefault(needed, []).append(node.name)
        self._up: dict[str, dict[str, tuple[str, ...]]] = {}
        self._down: dict[str, dict[str, tuple[str, ...]]] = {}

    @classmethod
    def of(cls, config: Config, entities: pl.DataFrame) -> Topology:
        """The graph of what is declared in ``config`` and what stands in ``entities`` (``tables.ENTITIES``)."""
        nodes: dict[str, Node] = {}
        names = dict(entities.select("entity_id", "name").iter_rows()) if entities.height else {}
        columns = ("name", "kind", "site", "owner", "labels", "depends_on")
        for name, kind, site, owner, labels, depends_on in (
            entities.select(columns).iter_rows() if entities.height else ()
        ):
            needs = tuple(_plain_name(reference, names) for reference in depends_on or ())
            merge(nodes, Node(name, kind, site, owner, None, _labels(labels), needs))
        for device in config.devices:
            merge(nodes, Node(device.name, "device", device.site, device.owner, None, device.labels, device.depends_on))
        for entity in config.entities:
            declared = (entity.site, entity.owner, entity.impact, entity.labels, entity.depends_on)
            merge(nodes, Node(entity.name, entity.kind, *declared))
        return cls(list(nodes.values()))

    def upstream(self, name: str) -> dict[str, tuple[str, ...]]:
        """Everything ``name`` needs, directly or through others: entity → path to it."""
        if name not in self._up:
            self._up[name] = self._walk(name, lambda at: self.nodes[at].needs if at in self.nodes else ())
        return self._up[name]

    def downstream(self, name: str) -> dict[str, tuple[str, ...]]:
        """Everything that needs ``name``, directly or through others: entity → path to it."""
        if name not in self._down:
            self._down[name] = self._walk(name, lambda at: self._needed_by.get(at, ()))
        return self._down[name]

    def services(self, name: str) -> list[str]:
        """The services that need ``name``, nearest first."""
        return [other for other in self.downstream(name) if other in self.nodes and self.nodes[other].kind == "service"]

    def parts(self, name: str) -> tuple[str, ...]:
        """What ``name`` needs directly."""
        return self.nodes[name].needs if name in self.nodes else ()

    def direct_services(self, name: str) -> list[str]:
        """Services of at most ``MAX_PARTS`` parts of which ``name`` is one."""
        direct = (self.nodes[other] for other in self._needed_by.get(name, ()) if other in self.nodes)
        return [node.name for node in direct if node.kind == "service" and len(node.needs) <= MAX_PARTS]

    def scopes(self, host: str, labels: Mapping[str, str]) -> set[tuple[str, str]]:
        """Where a host and the alert on it belong: (label, value) pairs of ``SCOPE_LABELS``."""
        node = self.nodes.get(host)
        merged = {**(node.labels if node else {}), **labels}
        if node and node.site:
            merged.setdefault("site", node.site)
        return {(name, merged[name]) for name in SCOPE_LABELS if merged.get(name)}

    def impact(self, name: str) -> int | None:
        """The declared impact of an entity, ``None`` when nobody declared it."""
        node = self.nodes.get(name)
        return node.impact if node else None

    @staticmethod
    def _walk(start: str, neighbours: Callable[[str], Sequence[str]]) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        edge: list[tuple[str, tuple[str, ...]]] = [(start, ())]
        for _ in range(MAX_DEPTH):
            following: list[tuple[str, tuple[str, ...]]] = []
            for at, path in edge:
                for other in neighbours(at):
                    if other != start and other not in found:
                        found[other] = (*path, other)
                        following.append((other, found[other]))
            edge = following
        return found


def merge(nodes: dict[str, Node], node: Node) -> None:
    """Add what is known of an entity; what comes later wins, needs add up."""
    before = nodes.get(node.name)
    if before is None:
        nodes[node.name] = node
        return
    nodes[node.name] = Node(
        node.name,
        node.kind,
        node.site or before.site,
        node.owner or before.owner,
        node.impact if node.impact is not None else before.impact,
        {**before.labels, **node.labels},
        tuple(dict.fromkeys((*before.needs, *node.needs))),
    )


def _plain_name(reference: str, names: Mapping[str, str]) -> str:
    """The name behind an entity_id such as ``host:web-1``; a plain name stays as it is."""
    if reference in names:
        return names[reference]
    kind, colon, name = reference.partition(":")
    return name if colon and kind in {"host", "service", "device"} else reference


def _labels(text: str | None) -> dict[str, str]:
    return {str(name): str(value) for name, value in orjson.loads(text or "{}").items()}
