"""What every format returns: strings once a series, numbers once a point.

A delivery of a thousand points mentions few distinct series, so formats return two frames: ``series`` holds each
distinct series of the batch once, ``points`` refers to it by row number. Everything downstream works on integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson
import polars as pl

from aiops_assets.tables import TIMESTAMP

#: a host, metric or label longer than this many characters is refused
MAX_NAME_CHARS = 1024
#: a series is refused when its labels together are longer than this many characters
MAX_LABELS_CHARS = 16_384

#: One row a distinct series of the batch. ``kind`` is gauge, rate, counter or ratio; ``labels`` is canonical JSON
#: (sorted keys, string values, no spaces: ``labels_json``). Values in ``points`` are already scaled to ``unit``.
SERIES_SCHEMA: dict[str, pl.DataType] = {
    "host": pl.String(),
    "metric": pl.String(),
    "unit": pl.String(),
    "labels": pl.String(),
    "kind": pl.String(),
}

#: One row a point. ``delivery`` is the index into the deliveries handed to the parser, ``series`` the row of the
#: series frame, ``ts`` microseconds since the epoch (UTC).
POINTS_SCHEMA: dict[str, pl.DataType] = {
    "delivery": pl.UInt32(),
    "series": pl.UInt32(),
    "ts": pl.Int64(),
    "value": pl.Float64(),
}

#: Changes as formats see them; the pipeline adds change_id, source and position. Columns as in tables.CHANGES.
CHANGES_SCHEMA: dict[str, pl.DataType] = {
    "delivery": pl.UInt32(),
    "ts": TIMESTAMP,
    "kind": pl.String(),
    "host": pl.String(),
    "service": pl.String(),
    "title": pl.String(),
    "actor": pl.String(),
    "details": pl.String(),
}

#: Discovered entities; ``labels`` canonical JSON.
ENTITIES_SCHEMA: dict[str, pl.DataType] = {
    "kind": pl.String(),
    "name": pl.String(),
    "site": pl.String(),
    "labels": pl.String(),
    "depends_on": pl.List(pl.String()),
}


@dataclass(frozen=True, slots=True)
class Reject:
    """Bytes of a delivery that are not stored, and why; ``offset`` counts bytes in the decompressed body."""

    delivery: int
    offset: int
    reason: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Parsed:
    """The rows of a batch of deliveries of one format, and what could not be read."""

    series: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SERIES_SCHEMA))
    points: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=POINTS_SCHEMA))
    changes: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=CHANGES_SCHEMA))
    entities: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=ENTITIES_SCHEMA))
    rejects: list[Reject] = field(default_factory=list)


def labels_json(labels: Mapping[str, str]) -> str:
    """Labels as canonical JSON: sorted keys, string values, no spaces, characters beyond ASCII as they are.

    Raises:
        orjson.JSONEncodeError: a key or value is not a string that UTF-8 can hold.
    """
    return orjson.dumps(labels, option=orjson.OPT_SORT_KEYS).decode() if labels else "{}"
