"""Golden incidents as frames: a stream in constant memory, a whole data set, one record.

What belongs here: putting skeletons, telling and score together in chunks. What does not: files (``exports``) and the
path through a language model (``from_model``). A record depends on seed, configuration, source, ``total`` and its own
index alone: any chunk size and any slice give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from aiops_assets.synthetic.golden.confidence import confidence
from aiops_assets.synthetic.golden.config import GoldenConfig
from aiops_assets.synthetic.golden.declared import Declared
from aiops_assets.synthetic.golden.record import SCHEMA, GoldenIncident, records
from aiops_assets.synthetic.golden.skeleton import SkeletonSource
from aiops_assets.synthetic.golden.telling import MODEL_VERSION, Telling

__all__ = ["CHUNK", "MODEL_VERSION", "generate", "one", "stream"]

#: records made at once: large enough for columns to pay, small enough for little memory
CHUNK = 10_000


def stream(
    config: GoldenConfig,
    *,
    count: int,
    seed: int,
    start: int = 0,
    total: int | None = None,
    chunk: int = CHUNK,
    skeletons: SkeletonSource | None = None,
) -> Iterator[pl.DataFrame]:
    """Records ``start`` … ``start + count`` of a data set of ``total``, in order of ``opened_at``.

    Args:
        total: size of the whole data set, over which arrivals spread; default: ``start + count``.
        chunk: records a frame; it changes nothing in them.
        skeletons: what incidents are drawn from; default: the configuration.

    Yields:
        frames of ``record.SCHEMA``, each of ``chunk`` records but the last.

    Raises:
        ValueError: a number is negative, or the slice lies outside the data set.
    """
    total = start + count if total is None else total
    if start < 0 or count < 0 or seed < 0 or chunk < 1:
        raise ValueError("start, count and seed must be at least 0, chunk at least 1")
    if start + count > total:
        raise ValueError(f"start + count is {start + count}, more than the total of {total}")
    source = skeletons or Declared(config)
    vocabulary = source.vocabulary()
    telling = Telling(config, vocabulary)
    for first in range(start, start + count, chunk):
        size = min(chunk, start + count - first)
        frame = telling.told(source.skeletons(first, size, total, seed), seed)
        yield frame.with_columns(confidence(frame, config, vocabulary))


def generate(
    config: GoldenConfig,
    *,
    count: int,
    seed: int,
    start: int = 0,
    total: int | None = None,
    skeletons: SkeletonSource | None = None,
) -> pl.DataFrame:
    """``stream`` in one frame of ``record.SCHEMA``."""
    frames = list(stream(config, count=count, seed=seed, start=start, total=total, skeletons=skeletons))
    return pl.concat(frames) if frames else pl.DataFrame(schema=SCHEMA)


def one(
    config: GoldenConfig,
    index: int,
    *,
    seed: int,
    total: int | None = None,
    skeletons: SkeletonSource | None = None,
) -> GoldenIncident:
    """The record with number ``index`` (from 0) of a data set of ``total`` (default: the last of its own)."""
    return next(records(generate(config, count=1, seed=seed, start=index, total=total, skeletons=skeletons)))
