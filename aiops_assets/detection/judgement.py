"""What judges points: the rules and detector settings in force, as a document with a digest.

What belongs here: the part of ``aiops.yaml`` that decides whether something is bad, in a form that can be stored and
read back years later. What does not: grouping, windows and collection, which change nothing about an alert's numbers.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import orjson
import polars as pl

from aiops_assets.config import Config, Rule, Statistics
from aiops_assets.tables import CONFIG_VERSIONS


@dataclass(frozen=True, slots=True)
class Judgement:
    """Rules and settings of the statistics; two are equal when their digests are."""

    rules: tuple[Rule, ...]
    statistics: Statistics

    @classmethod
    def of(cls, config: Config) -> Judgement:
        """What a configuration puts in force. Statistics that are off leave every metric alone, so that events end."""
        statistics = config.statistics
        if not statistics.enabled:
            statistics = statistics.model_copy(update={"exclude": ("*",)})
        return cls(config.active_rules, statistics)

    @classmethod
    def parse(cls, document: str) -> Judgement:
        """Read back a ``document``.

        Raises:
            pydantic.ValidationError: it was written by a version with other fields.
        """
        content = orjson.loads(document)
        return cls(
            tuple(Rule.model_validate(entry) for entry in content["rules"]),
            Statistics.model_validate(content["statistics"]),
        )

    @property
    def document(self) -> str:
        """Canonical JSON: keys sorted, only what differs from the defaults."""
        content = {
            "rules": [rule.model_dump(mode="json", by_alias=True, exclude_defaults=True) for rule in self.rules],
            "statistics": self.statistics.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        }
        return orjson.dumps(content, option=orjson.OPT_SORT_KEYS).decode()

    @property
    def digest(self) -> str:
        """16 hex digits of the document's BLAKE2b hash."""
        return hashlib.blake2b(self.document.encode(), digest_size=8).hexdigest()


_TIMELINE = "timeline.json"


def write_timeline(folder: Path, entries: Sequence[tuple[int, Judgement]]) -> None:
    """Remember from which event times (µs) on judgements are in force, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{_TIMELINE}.{os.getpid()}"
    with temporary.open("wb") as file:
        file.write(orjson.dumps([[at, judgement.document] for at, judgement in entries]))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / _TIMELINE)


def read_timeline(folder: Path) -> list[tuple[int, Judgement]]:
    """What ``write_timeline`` wrote last."""
    try:
        content = (folder / _TIMELINE).read_bytes()
    except FileNotFoundError:
        return []
    return [(int(at), Judgement.parse(document)) for at, document in orjson.loads(content)]


def versions_frame(judgements: Iterable[Judgement], first_used: datetime) -> pl.DataFrame:
    """Rows of ``tables.CONFIG_VERSIONS``."""
    rows = [(judgement.digest, judgement.document, first_used) for judgement in judgements]
    return pl.DataFrame(rows, schema=CONFIG_VERSIONS.schema, orient="row")
