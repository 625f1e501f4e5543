"""Random numbers by address: (seed, field, incident) in, a number out, in any order and any slice.

What belongs here: uniform, normal and categorical draws keyed that way, and arrival positions in order. What does not:
what the numbers mean. Numbers come from the SplitMix64 finaliser over a Weyl sequence (Steele, Lea and Flood 2014), its
start by xxh3 of seed and field, so that they are the same on every platform and in every version of NumPy.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import xxhash
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: arrivals that are made together; a constant of the stream: another one would be other data
BLOCK = 1_024
_WEYL = np.uint64(0x9E3779B97F4A7C15)


@lru_cache(maxsize=4_096)
def _salt(seed: int, field: str) -> np.uint64:
    return np.uint64(xxhash.xxh3_64_intdigest(f"{seed}|{field}".encode()))


class Draws:
    """Draws for the incidents whose numbers are ``index`` (int64)."""

    def __init__(self, seed: int, index: Ints) -> None:
        self.seed = seed
        self._keys = index.astype(np.uint64) * _WEYL

    def bits(self, field: str) -> NDArray[np.uint64]:
        """64 random bits each."""
        return mixed(self._keys + _salt(self.seed, field))

    def uniform(self, field: str) -> Floats:
        """Uniform in the open interval (0, 1)."""
        return _unit(self.bits(field))

    def normal(self, field: str) -> Floats:
        """Standard normal deviates (Box and Muller 1958)."""
        radius = np.sqrt(-2.0 * np.log(self.uniform(field)))
        return np.asarray(radius * np.cos(2.0 * np.pi * self.uniform(field + "'")))

    def below(self, field: str, limit: int | Ints) -> Ints:
        """Whole numbers from 0 to ``limit`` - 1, one limit for all or one each; 0 where the limit is 0."""
        made = (self.uniform(field) * limit).astype(np.int64)
        return np.minimum(made, np.maximum(np.asarray(limit) - 1, 0))

    def chosen(self, field: str, cumulative: Floats, rows: Ints | None = None) -> Ints:
        """Positions drawn by cumulative weights that end in 1: one row for all, or ``cumulative[rows]`` each."""
        return pick(self.uniform(field), cumulative, rows)

    def happens(self, field: str, chance: float | Floats) -> NDArray[np.bool_]:
        """True with the chance given."""
        return np.asarray(self.uniform(field) < chance)


def mixed(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The SplitMix64 finaliser."""
    made = keys + _WEYL
    made = (made ^ (made >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    made = (made ^ (made >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return made ^ (made >> np.uint64(31))


def _unit(bits: NDArray[np.uint64]) -> Floats:
    return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def named(seed: int, field: str) -> int:
    """64 bits for a name rather than for an incident."""
    return int(_salt(seed, field))


def cumulated(weights: Floats) -> Floats:
    """Cumulative weights along the last axis, the last one exactly 1; rows without weight are even."""
    weights = np.asarray(weights, np.float64)
    total = weights.sum(axis=-1, keepdims=True)
    even = np.ones_like(weights) / weights.shape[-1]
    made = np.cumsum(np.where(total > 0, weights / np.where(total > 0, total, 1.0), even), axis=-1)
    # What follows the last weight above 0 is 1 as well, so that nothing without weight is ever drawn.
    made[made >= made[..., -1:]] = 1.0
    return made


def pick(uniform: Floats, cumulative: Floats, rows: Ints | None = None) -> Ints:
    """The position of each uniform number in cumulative weights (``Draws.chosen``)."""
    if rows is None:
        return np.searchsorted(cumulative, uniform, side="right").astype(np.int64)
    if cumulative.shape[1] <= 64:
        return (cumulative[rows] <= uniform[:, None]).sum(axis=1)
    # One search for all rows: row r lies between r and r + 1.
    flat = (cumulative + np.arange(len(cumulative))[:, None]).ravel()
    found = np.searchsorted(flat, uniform + rows, side="right") - rows * cumulative.shape[1]
    return np.minimum(found, cumulative.shape[1] - 1).astype(np.int64)


def sorted_uniforms(start: int, count: int, total: int, seed: int) -> Floats:
    """Order statistics ``start`` … ``start + count`` of ``total`` uniform numbers, in (0, 1), ascending.

    The gaps of ordered uniform numbers are exponential numbers over their sum (Devroye 1986, V.2). They are made in
    blocks: a block's sum is gamma-distributed (by Wilson and Hilferty 1931, close at this shape) and drawn first,
    so that a slice costs its own blocks and one number for each of the others.
    """
    blocks = -(-total // BLOCK)
    sizes = np.minimum(BLOCK, total - np.arange(blocks) * BLOCK).astype(np.float64)
    deviates = Draws(seed, np.arange(blocks + 1)).normal("arrival:block")
    shape = sizes + (np.arange(blocks) == blocks - 1)  # the last block also holds the gap after the last arrival
    sums = shape * np.maximum(1 - 1 / (9 * shape) + deviates[:blocks] / (3 * np.sqrt(shape)), 0.05) ** 3
    before = np.concatenate(([0.0], np.cumsum(sums)))
    first, last = start // BLOCK, (start + count - 1) // BLOCK
    parts = []
    for block in range(first, last + 1):
        size = int(shape[block])
        gaps = -np.log(Draws(seed, block * BLOCK + np.arange(size)).uniform("arrival:gap"))
        inside = np.cumsum(gaps)
        parts.append((before[block] + sums[block] * (inside / inside[-1]))[: int(sizes[block])])
    made = np.concatenate(parts) / before[-1]
    offset = start - first * BLOCK
    return np.asarray(made[offset : offset + count])
